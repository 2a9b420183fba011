//! What the relay wants looked after while the server runs (A9).

use std::net::SocketAddr;
use std::sync::Arc;

use countersign_service::{RELAY_KEEP_EVERY, Service};
use tokio::sync::watch;

use crate::config;
use crate::jobs::every;

/// Says where sleeves of other servers are sent, and warns where that is not known.
pub(crate) fn advertise(service: &Service, config: &config::Gateway, listening: SocketAddr) {
    let own = (!listening.ip().is_unspecified()).then(|| listening.to_string());
    if let Some(address) = config.advertise.clone().or(own) {
        service.relay().advertise(&address);
    }
    if service.relay_is_apart() {
        tracing::warn!(
            "[gateway] advertise is not set: sleeves that come to another server do not find the \
             managers that are connected to this one"
        );
    }
}

/// Sends away devices that may not be served any more, and keeps the places of managers, until
/// `stop` turns true; then gives them up.
pub(crate) async fn keep(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(RELAY_KEEP_EVERY, stop, async || {
        if let Err(error) = service.keep_relay().await {
            tracing::warn!(%error, "the relay could not be looked after");
        }
    })
    .await;
    if let Err(error) = service.release_relay().await {
        tracing::warn!(%error, "the places of managers could not be given up");
    }
}
