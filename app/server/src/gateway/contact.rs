//! One contact with a device: look-up, channel, session. The same over streams and datagrams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign_channel::{Error, LookupRefusal, ServerChannel, ServerEvent};
use countersign_crypto::{Suite, UnixTime};
use countersign_idcard::Delivery;
use countersign_net::{Connection, NetError, Next, Transport, mode_name};
use countersign_service::{Answer, KnownDevice, Service};
use tokio::sync::watch;

use super::session::{Broken, Session, is_served};
use super::{Gateway, IDLE_TIMEOUT, RELAY_SESSION_MAX, RELAY_SILENCE, SESSION_MAX};
use crate::http::metrics::{CONNECTIONS, HANDSHAKES, PACKETS_RESENT, READ_SECONDS, READS};

/// What carries a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Tcp,
    Udp,
}

impl Carrier {
    /// What the read protocol may expect of it.
    pub(super) const fn delivery(self) -> Delivery {
        match self {
            Self::Tcp => Delivery::Stream,
            Self::Udp => Delivery::Datagrams,
        }
    }

    /// The label of metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Messages of the relay that are sealed at once, before the device is listened to again.
const RELAYED_TOGETHER: usize = 4;

/// Until when a connection is kept.
struct Patience {
    idle: Duration,
    idle_after: UnixTime,
    session_until: UnixTime,
}

impl Patience {
    fn from(now: UnixTime) -> Self {
        let idle = IDLE_TIMEOUT;
        Self { idle, idle_after: now.plus(idle), session_until: now.plus(SESSION_MAX) }
    }

    /// At the relay, where the channel itself watches for silence.
    fn at_relay(now: UnixTime) -> Self {
        let idle = RELAY_SESSION_MAX;
        Self { idle, idle_after: now.plus(idle), session_until: now.plus(idle) }
    }

    fn heard(&mut self, now: UnixTime) {
        self.idle_after = now.plus(self.idle);
    }

    fn until(&self) -> UnixTime {
        self.idle_after.min(self.session_until)
    }

    fn is_over(&self, now: UnixTime) -> bool {
        now >= self.until()
    }
}

/// One contact with a device, over a stream or over datagrams.
pub(super) struct Contact<'a, T> {
    service: &'a Arc<Service>,
    stop: watch::Receiver<bool>,
    connection: Connection<ServerChannel, T>,
    carrier: Carrier,
    peer: SocketAddr,
    patience: Patience,
    reader: Option<KnownDevice>,
    session: Option<Session>,
    /// Whether the handshake is done; before it nothing is proven of the peer.
    connected: Arc<AtomicBool>,
}

impl<'a, T: Transport> Contact<'a, T> {
    pub(super) fn new(
        gateway: &'a Gateway,
        channel: ServerChannel,
        transport: T,
        carrier: Carrier,
        peer: SocketAddr,
        connected: Arc<AtomicBool>,
    ) -> Self {
        let (service, stop) = (&gateway.service, gateway.stop.clone());
        let connection = Connection::new(channel, transport, service.clock(), service.rng());
        let patience = Patience::from(service.now());
        let (reader, session) = (None, None);
        Self { service, stop, connection, carrier, peer, patience, reader, session, connected }
    }

    /// Serves the device until either side ends it. It is boxed, and so is in [`Self::run`] what is
    /// done now and then: a contact may wait for a day, and its future is as large as its largest
    /// step.
    pub(super) async fn serve(mut self: Box<Self>) {
        let labels = [("transport", self.carrier.name())];
        metrics::gauge!(CONNECTIONS, &labels).increment(1);
        let ended = self.run().await;
        Box::pin(self.end(ended)).await;
        metrics::gauge!(CONNECTIONS, &labels).decrement(1);
    }

    async fn run(&mut self) -> Result<(), NetError<Error>> {
        loop {
            let dismissed = self.is_dismissed();
            let more = self.send_relayed()?;
            // A read has limits of its own and is not cut by the session's.
            let reading = self.session.as_ref().is_some_and(Session::is_reading);
            let session_due = self.session.as_ref().and_then(Session::poll_timeout);
            let patience = (!reading).then(|| self.patience.until());
            let due = [session_due, patience].into_iter().flatten().min();
            self.connection.flush().await?; // a result leaves before the server does
            if dismissed && !more {
                return self.close().await; // it has been told why
            }
            let next = tokio::select! {
                next = self.connection.next(due) => Some(next?),
                _ = self.stop.wait_for(|stop| *stop), if !reading => None,
                () = Session::changed(self.session.as_ref()), if !more => continue,
                () = std::future::ready(()), if more => continue,
            };
            let Some(next) = next else { return self.close().await };
            match next {
                Next::Event(ServerEvent::Ask(id)) => {
                    let found = Box::pin(self.service.look_up(&id)).await;
                    let found = found.and_then(|known| match is_served(&known, self.carrier) {
                        true => Ok(known),
                        false => Err(LookupRefusal::Unknown),
                    });
                    let entry = found.as_ref().map(|known| known.entry.clone());
                    let entry = entry.map_err(|refusal| *refusal);
                    self.reader = found.ok();
                    let (channel, now, rng) = self.connection.parts();
                    channel.reader_found(now, rng, entry).map_err(NetError::Machine)?;
                }
                Next::Event(ServerEvent::Connected) => self.connected()?,
                Next::Event(ServerEvent::Data(message)) => {
                    let now = self.service.now();
                    if !reading && self.patience.is_over(now) {
                        return self.close().await; // one that never pauses is closed too
                    }
                    self.patience.heard(now);
                    let Some(session) = &mut self.session else { return Ok(()) };
                    let (answer, handled) = Box::pin(session.handle(&message)).await;
                    self.send(&answer)?;
                    if let Err(broken) = handled {
                        return self.broken(&broken).await;
                    }
                }
                Next::Event(ServerEvent::Closed) => return self.close().await,
                Next::Ended => return Ok(()),
                Next::Deadline if !reading && self.patience.is_over(self.service.now()) => {
                    return self.close().await;
                }
                Next::Deadline => {
                    let Some(session) = &mut self.session else { return Ok(()) };
                    let (answer, handled) = Box::pin(session.handle_timeout()).await;
                    self.send(&answer)?;
                    if let Err(broken) = handled {
                        return self.broken(&broken).await;
                    }
                }
            }
        }
    }

    /// Seals some of what the relay has for this device. Whether there is more.
    fn send_relayed(&mut self) -> Result<bool, NetError<Error>> {
        let Some(session) = self.session.as_mut().and_then(Session::relay) else {
            return Ok(false);
        };
        for _ in 0..RELAYED_TOGETHER {
            let Some(message) = session.poll_transmit() else { return Ok(false) };
            self.connection.machine().send(&message).map_err(NetError::Machine)?;
        }
        Ok(true)
    }

    /// Whether the relay has sent this device away.
    fn is_dismissed(&mut self) -> bool {
        let session = self.session.as_mut().and_then(Session::relay);
        session.is_some_and(|session| session.is_dismissed())
    }

    fn connected(&mut self) -> Result<(), NetError<Error>> {
        self.connected.store(true, Ordering::Relaxed);
        let channel = self.connection.machine();
        let handshake = mode_name(channel.mode());
        let suite = channel.suite().and_then(Suite::name).unwrap_or("unknown");
        let transport = self.carrier.name();
        let labels = [
            ("outcome", "accepted"),
            ("handshake", handshake),
            ("suite", suite),
            ("transport", transport),
        ];
        metrics::counter!(HANDSHAKES, &labels).increment(1);
        if let Some(reader) = &self.reader {
            let device = reader.id.as_str();
            tracing::info!(device, handshake, suite, transport, "a device connected");
            let peer = self.peer.ip();
            self.session = Session::new(self.service, reader, self.carrier, peer);
        }
        if self.session.as_mut().and_then(Session::relay).is_some() {
            let now = self.service.now();
            self.patience = Patience::at_relay(now);
            let channel = self.connection.machine();
            channel.watch(now, RELAY_SILENCE).map_err(NetError::Machine)?;
        }
        Ok(())
    }

    fn send(&mut self, answer: &Answer) -> Result<(), NetError<Error>> {
        if let Some(ended) = answer.ended {
            let transport = self.carrier.name();
            let labels = [("outcome", ended.outcome), ("transport", transport)];
            metrics::counter!(READS, &labels).increment(1);
            metrics::histogram!(READ_SECONDS).record(ended.took);
            let resent = u64::from(ended.resent);
            metrics::counter!(PACKETS_RESENT, "transport" => transport).increment(resent);
        }
        let channel = self.connection.machine();
        answer
            .messages
            .iter()
            .try_for_each(|message| channel.send(message))
            .map_err(NetError::Machine)
    }

    /// The peer broke its protocol, or fell silent in the middle of it.
    async fn broken(&mut self, broken: &Broken) -> Result<(), NetError<Error>> {
        let Broken { protocol, check, detail } = broken;
        let device = self.reader.as_ref().map(|reader| reader.id.as_str()).unwrap_or_default();
        tracing::warn!(device, protocol, check, detail, "a device broke the protocol");
        self.close().await
    }

    async fn close(&mut self) -> Result<(), NetError<Error>> {
        if self.session.as_mut().and_then(Session::relay).is_some() {
            self.session = None; // its meetings end now, also if it does not read
        }
        // Before the handshake is done there is nothing to close but the socket.
        let _not_open = self.connection.machine().close();
        self.connection.flush().await
    }

    async fn end(mut self, ended: Result<(), NetError<Error>>) {
        let peer = self.peer;
        if let Some(session) = self.session.take() {
            session.gone().await;
        }
        match ended {
            Ok(()) => {}
            // A client that goes away is no incident.
            Err(NetError::Machine(Error::Truncated | Error::Alert { .. } | Error::Silent)) => {
                tracing::debug!(%peer, "a device went away");
            }
            Err(NetError::Machine(error)) => self.refuse(&error).await,
            Err(error) => tracing::debug!(%peer, %error, "a connection failed"),
        }
    }

    async fn refuse(&mut self, error: &Error) {
        let (outcome, peer) = (error.check(), self.peer);
        // Before the handshake is done an id is a claim; the audit's actor is the address.
        let connected = self.connected.load(Ordering::Relaxed);
        let proven = self.reader.as_ref().filter(|_| connected);
        let reader = proven.map(|reader| reader.id.clone());
        if !connected {
            let labels = [("outcome", outcome), ("transport", self.carrier.name())];
            metrics::counter!(HANDSHAKES, &labels).increment(1);
        }
        let incident =
            self.service.refused_contact(&peer.ip().to_string(), reader.as_deref(), error).await;
        tracing::warn!(%peer, check = outcome, incident, "a device connection was refused");
        self.connection.machine().refuse(error, &incident);
        if let Err(error) = self.connection.flush().await {
            tracing::debug!(%peer, %error, "the alert could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
