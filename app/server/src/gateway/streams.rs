//! Readers over TCP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::ServerChannel;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::contact::{Carrier, Contact};
use super::{Gateway, octets};
use crate::http::metrics::TURNED_AWAY;

/// How long the system may refuse to accept before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Gateway {
    /// Accepts until `stop` turns true; connections under way end by themselves then.
    pub(crate) async fn serve_streams(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let place = tokio::select! {
                place = self.places.clone().acquire_owned() => place,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // As IPv4, where an IPv6 socket took it: else all of IPv4 were one source.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let Some(held) = self.sources.hold(peer.ip()) else {
                        metrics::counter!(TURNED_AWAY).increment(1); // a log line were a flood
                        continue;
                    };
                    let gateway = self.clone();
                    tokio::spawn(async move {
                        gateway.connection(stream, peer).await;
                        drop((held, place));
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: others must end before it gets better.
                    tracing::warn!(%error, "accepting a device connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection is already gone");
            return;
        }
        let service = &self.service;
        let channel = ServerChannel::new(self.streams.clone(), &octets(peer.ip()), service.now());
        let connected = Arc::default();
        let contact = Contact::new(self, channel, stream, Carrier::Tcp, peer, connected);
        Box::new(contact).serve().await;
    }
}
