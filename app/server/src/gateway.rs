//! The device gateway: sockets to channels to sessions. It moves bytes and decides nothing.

mod contact;
mod datagrams;
mod relay;
mod session;
mod streams;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    Challenges, Credential, Delivery, EPOCH, Heartbeat, Protection, ServerConfig, SharedChallenges,
    SharedSources, SourceLimits,
};
use countersign_pki::{BoundedLeafCache, Role};
use countersign_service::Service;
use tokio::sync::{Semaphore, watch};

use crate::per_source::PerSource;
use crate::{StartError, config};

pub(crate) use relay::{advertise, keep as keep_relay};

/// Contacts at once, over TCP and UDP together, unless `[gateway]` says otherwise; more TCP
/// connections wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 4096;
/// Contacts at once from one IPv4 address or IPv6 network, unless `[gateway]` says otherwise; one
/// more is turned away at once.
pub const PER_SOURCE_MAX: usize = 256;
/// How long an authenticated reader may be silent between reads.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How old a connection may become: its keys, and what the handshake proved, do not last for ever.
pub const SESSION_MAX: Duration = Duration::from_secs(3600);

/// How old a sleeve's or manager's connection may become. Whether it may still be served is looked
/// at meanwhile.
pub const RELAY_SESSION_MAX: Duration = Duration::from_secs(24 * 3600);
/// How often a sleeve or a manager must prove its connection alive, and how late it may be.
pub const RELAY_SILENCE: Heartbeat =
    Heartbeat { every: Duration::from_secs(240), within: Duration::from_secs(60) };

/// What all contacts share.
pub(crate) struct Gateway {
    service: Arc<Service>,
    streams: Arc<ServerConfig>,
    /// The same, challenges and limits included, for channels over datagrams.
    datagrams: Arc<ServerConfig>,
    places: Arc<Semaphore>,
    /// How many places there are.
    connections: usize,
    sources: PerSource,
    /// Turns true when the server stops: a contact ends as soon as it reads no card.
    stop: watch::Receiver<bool>,
}

impl Gateway {
    pub(crate) fn new(
        service: Arc<Service>,
        config: &config::Gateway,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let authority = service.authority();
        let provider = authority.provider.clone();
        let credential = Credential {
            provider: provider.clone(),
            key: authority.server_key.clone(),
            certificate: authority.server.clone(),
            trust: Arc::new(authority.trust_in_devices(service.now())?),
            // Only a suite whose handshakes encrypt presents it to devices.
            encryption: provider
                .encryption
                .as_ref()
                .map(|_scheme| authority.server_encryption.clone()),
        };
        let sources = SourceLimits::new(provider.clone(), &mut *service.rng());
        let (connections, per_source) = (config.connections, config.per_source);
        let config = ServerConfig {
            credentials: vec![credential],
            modes: config.handshakes.clone(),
            policies: config.policies.clone(),
            server_id: authority.server_id.clone(),
            leaf_cache: Arc::new(BoundedLeafCache::default()),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
            sources: Arc::new(SharedSources::new(sources)),
            peer_roles: vec![Role::Reader, Role::Terminal, Role::Sleeve, Role::Manager],
        };
        config.check().map_err(StartError::Channel)?;
        if config.policies.iter().any(|policy| policy.protection == Protection::Mac) {
            tracing::warn!(
                "policy \"mac\" is allowed: such readers' records can be read on the wire"
            );
        }
        let mut datagrams = config.clone();
        for policy in &mut datagrams.policies {
            policy.delivery = Delivery::Datagrams;
        }
        Ok(Self {
            service,
            streams: Arc::new(config),
            datagrams: Arc::new(datagrams),
            places: Arc::new(Semaphore::new(connections)),
            connections,
            sources: PerSource::new(per_source),
            stop,
        })
    }

    /// Waits until the last contact has ended, which it does some time after `stop` turned true;
    /// at most for this long.
    pub(crate) async fn ended(&self, within: Duration) {
        let all = u32::try_from(self.connections).expect("at most a million");
        if tokio::time::timeout(within, self.places.acquire_many(all)).await.is_err() {
            tracing::warn!("contacts with readers did not end in time");
        }
    }

    /// How many places are taken.
    pub(crate) fn contacts(&self) -> usize {
        self.connections - self.places.available_permits()
    }

    /// On a server that nobody calls, epochs end too.
    pub(crate) async fn expire_challenges(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EPOCH) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.streams.challenges.expire(self.service.now());
        }
    }
}

/// The address that a challenge is tied to.
fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
