//! The device gateway: sockets to channels to read sessions. It moves bytes and decides nothing.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    Challenges, Credential, EPOCH, Error, Protection, ServerChannel, ServerConfig, ServerEvent,
    SharedChallenges, SharedSources, SourceLimits,
};
use countersign_crypto::{Suite, UnixTime};
use countersign_net::{Connection, NetError, Next, mode_name};
use countersign_pki::BoundedLeafCache;
use countersign_service::{Answer, KnownReader, ReadSession, Service};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::http::metrics::{CONNECTIONS, HANDSHAKES, READ_SECONDS, READS, TURNED_AWAY};
use crate::per_source::PerSource;
use crate::{StartError, config};

/// Connections at once; more wait in the system's backlog.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections at once from one IPv4 address or IPv6 network; one more is closed at once.
pub const PER_SOURCE_MAX: usize = 256;
/// How long an authenticated reader may be silent between reads.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How old a connection may become: its keys, and what the handshake proved, do not last for ever.
pub const SESSION_MAX: Duration = Duration::from_secs(3600);
/// How long the system may refuse to accept before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(crate) struct Gateway {
    service: Arc<Service>,
    config: Arc<ServerConfig>,
}

impl Gateway {
    pub(crate) fn new(service: Arc<Service>, config: &config::Gateway) -> Result<Self, StartError> {
        let authority = service.authority();
        let provider = authority.provider.clone();
        let credential = Credential {
            provider: provider.clone(),
            key: authority.server_key.clone(),
            certificate: authority.server.clone(),
            trust: Arc::new(authority.trust_in_readers(service.now())?),
            encryption: authority.server_encryption.clone(),
        };
        let sources = SourceLimits::new(provider.clone(), &mut *service.rng());
        let config = ServerConfig {
            credentials: vec![credential],
            modes: config.handshakes.clone(),
            policies: config.policies.clone(),
            server_id: authority.server_id.clone(),
            leaf_cache: Arc::new(BoundedLeafCache::default()),
            challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
            sources: Arc::new(SharedSources::new(sources)),
        };
        config.check().map_err(StartError::Channel)?;
        if config.policies.iter().any(|policy| policy.protection == Protection::Mac) {
            tracing::warn!(
                "policy \"mac\" is allowed: such readers' records can be read on the wire"
            );
        }
        Ok(Self { service, config: Arc::new(config) })
    }

    /// Accepts until `stop` turns true; connections under way end with the runtime.
    pub(crate) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        tokio::spawn(self.clone().expire_challenges(stop.clone()));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let sources = PerSource::new(PER_SOURCE_MAX);
        loop {
            let place = tokio::select! {
                place = places.clone().acquire_owned() => place,
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
                    let Some(held) = sources.hold(peer.ip()) else {
                        metrics::counter!(TURNED_AWAY).increment(1); // a log line were a flood
                        continue;
                    };
                    let gateway = self.clone();
                    tokio::spawn(async move {
                        metrics::gauge!(CONNECTIONS).increment(1);
                        gateway.connection(stream, peer).await;
                        metrics::gauge!(CONNECTIONS).decrement(1);
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

    /// On a server that nobody calls, epochs end too.
    async fn expire_challenges(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(EPOCH) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            self.config.challenges.expire(self.service.now());
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection is already gone");
            return;
        }
        let octets = match peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let service = &self.service;
        let channel = ServerChannel::new(self.config.clone(), &octets, service.now());
        let connection = Connection::new(channel, stream, service.clock(), service.rng());
        let patience = Patience::from(service.now());
        let (reader, session, connected) = (None, None, false);
        let mut contact = Contact { service, connection, patience, reader, session, connected };
        let ended = contact.run().await;
        contact.end(peer, ended).await;
    }
}

/// Until when a connection is kept.
struct Patience {
    idle_after: UnixTime,
    session_until: UnixTime,
}

impl Patience {
    fn from(now: UnixTime) -> Self {
        Self { idle_after: now.plus(IDLE_TIMEOUT), session_until: now.plus(SESSION_MAX) }
    }

    fn heard(&mut self, now: UnixTime) {
        self.idle_after = now.plus(IDLE_TIMEOUT);
    }

    fn until(&self) -> UnixTime {
        self.idle_after.min(self.session_until)
    }

    fn is_over(&self, now: UnixTime) -> bool {
        now >= self.until()
    }
}

/// One connection.
struct Contact<'a> {
    service: &'a Arc<Service>,
    connection: Connection<ServerChannel, TcpStream>,
    patience: Patience,
    reader: Option<KnownReader>,
    session: Option<ReadSession>,
    connected: bool,
}

impl Contact<'_> {
    async fn run(&mut self) -> Result<(), NetError<Error>> {
        loop {
            // A read has limits of its own and is not cut by the session's.
            let reading = self.session.as_ref().is_some_and(ReadSession::is_reading);
            let session_due = self.session.as_ref().and_then(ReadSession::poll_timeout);
            let due = if reading { session_due } else { Some(self.patience.until()) };
            match self.connection.next(due).await? {
                Next::Event(ServerEvent::Ask(id)) => {
                    let found = self.service.look_up(&id).await;
                    let entry = found.as_ref().map(|known| known.entry.clone());
                    let entry = entry.map_err(|refusal| *refusal);
                    self.reader = found.ok();
                    let (channel, now, rng) = self.connection.parts();
                    channel.reader_found(now, rng, entry).map_err(NetError::Machine)?;
                }
                Next::Event(ServerEvent::Connected) => {
                    self.connected = true;
                    let channel = self.connection.machine();
                    let handshake = mode_name(channel.mode());
                    let suite = channel.suite().and_then(Suite::name).unwrap_or("unknown");
                    let labels =
                        [("outcome", "accepted"), ("handshake", handshake), ("suite", suite)];
                    metrics::counter!(HANDSHAKES, &labels).increment(1);
                    if let Some(reader) = &self.reader {
                        tracing::info!(reader = reader.id, handshake, suite, "a reader connected");
                        let session = ReadSession::new(self.service.clone(), reader.clone());
                        self.session = Some(session);
                    }
                }
                Next::Event(ServerEvent::Data(message)) => {
                    let now = self.service.now();
                    if !reading && self.patience.is_over(now) {
                        return self.close().await; // one that never pauses is closed too
                    }
                    self.patience.heard(now);
                    let Some(session) = &mut self.session else { return Ok(()) };
                    let (answer, handled) = session.handle(&message).await;
                    self.send(&answer)?;
                    if let Err(error) = handled {
                        tracing::warn!(%error, "a reader broke the read protocol");
                        return self.close().await;
                    }
                }
                Next::Event(ServerEvent::Closed) => return self.close().await,
                Next::Ended => return Ok(()),
                Next::Deadline if !reading => return self.close().await,
                Next::Deadline => {
                    let Some(session) = &mut self.session else { return Ok(()) };
                    let answer = session.handle_timeout().await;
                    self.send(&answer)?;
                }
            }
        }
    }

    fn send(&mut self, answer: &Answer) -> Result<(), NetError<Error>> {
        if let Some(ended) = answer.ended {
            metrics::counter!(READS, "outcome" => ended.outcome).increment(1);
            metrics::histogram!(READ_SECONDS).record(ended.took);
        }
        let channel = self.connection.machine();
        answer
            .messages
            .iter()
            .try_for_each(|message| channel.send(message))
            .map_err(NetError::Machine)
    }

    async fn close(&mut self) -> Result<(), NetError<Error>> {
        // Before the handshake is done there is nothing to close but the socket.
        let _not_open = self.connection.machine().close();
        self.connection.flush().await
    }

    async fn end(mut self, peer: SocketAddr, ended: Result<(), NetError<Error>>) {
        if let Some(session) = self.session.take() {
            session.reader_gone().await;
        }
        match ended {
            Ok(()) => {}
            // A client that goes away is no incident.
            Err(NetError::Machine(Error::Truncated | Error::Alert { .. })) => {
                tracing::debug!(%peer, "a reader went away");
            }
            Err(NetError::Machine(error)) => self.refuse(peer, &error).await,
            Err(error) => tracing::debug!(%peer, %error, "a connection failed"),
        }
    }

    async fn refuse(&mut self, peer: SocketAddr, error: &Error) {
        let outcome = error.check();
        // Before the handshake is done an id is a claim; the audit's actor is the address.
        let who = match (&self.reader, self.connected) {
            (Some(reader), true) => format!("{} at {}", reader.id, peer.ip()),
            _ => peer.ip().to_string(),
        };
        if !self.connected {
            metrics::counter!(HANDSHAKES, "outcome" => outcome).increment(1);
        }
        let incident = self.service.refused_contact(&who, self.connected, error).await;
        tracing::warn!(%peer, check = outcome, incident, "a device connection was refused");
        self.connection.machine().refuse(error, &incident);
        if let Err(error) = self.connection.flush().await {
            tracing::debug!(%peer, %error, "the alert could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_ends_soon_and_a_busy_one_in_the_end() {
        let start = UnixTime::from_secs(1000);
        let mut patience = Patience::from(start);
        let mut now = start.plus(IDLE_TIMEOUT).minus(Duration::from_millis(1));
        assert!(!patience.is_over(now));
        patience.heard(now);
        assert!(!patience.is_over(start.plus(IDLE_TIMEOUT)));
        assert!(patience.is_over(now.plus(IDLE_TIMEOUT)));
        let second = Duration::from_secs(1);
        while now < start.plus(SESSION_MAX).minus(second) {
            patience.heard(now);
            now = now.plus(second);
            assert!(!patience.is_over(now));
        }
        patience.heard(now);
        assert!(patience.is_over(start.plus(SESSION_MAX)));
    }
}
