//! One server's connection to a SAM host: the channel, then one lease at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_channel::{
    Error, HANDSHAKE_TIMEOUT, Heartbeat, LookupRefusal, ReaderId, ServerChannel, ServerEvent,
};
use countersign_crypto::UnixTime;
use countersign_idcard::sam::remote::{
    FromHost, HEARTBEAT_EVERY, HEARTBEAT_WITHIN, HOST_MODULES_MAX, ModuleHealth, ModuleState,
    NoLease, REMOTE_TEXT_MAX, REMOTE_V1, RemoteText, ToHost,
};
use countersign_idcard::sam::{SamError, SamOperation};
use countersign_net::{Connection, NetError, Next};
use countersign_service::{SamLease, SamState, SamUnavailable};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::Shared;

/// The modules that connected servers have taken out of service, by connection: a module is out of
/// service here while one of them says so.
#[derive(Default)]
pub(crate) struct Drained(Mutex<BTreeMap<u64, BTreeSet<String>>>);

impl Drained {
    /// What this connection says from now on. `tell` gets all that is out of service then; as one
    /// step, so that of two connections the later word stands.
    fn say(
        &self,
        connection: u64,
        ids: Option<BTreeSet<String>>,
        tell: impl FnOnce(BTreeSet<String>),
    ) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ids {
            Some(ids) => said.insert(connection, ids),
            None => said.remove(&connection),
        };
        tell(said.values().flatten().cloned().collect());
    }
}

pub(super) struct Contact {
    shared: Arc<Shared>,
    number: u64,
    connection: Connection<ServerChannel, TcpStream>,
    peer: SocketAddr,
    stop: watch::Receiver<bool>,
    /// The server's id, once it has proven itself.
    server: Option<String>,
    greeted: bool,
    lease: Option<SamLease>,
    /// Until when whoever connected has to prove itself; none once it has.
    proof_by: Option<UnixTime>,
}

/// Why a connection ended.
enum End {
    Net(NetError<Error>),
    /// The server did what it must not.
    Protocol(&'static str),
    Closed,
}

impl From<NetError<Error>> for End {
    fn from(error: NetError<Error>) -> Self {
        Self::Net(error)
    }
}

impl Contact {
    pub(super) fn new(
        shared: Arc<Shared>,
        number: u64,
        stream: TcpStream,
        peer: SocketAddr,
        stop: watch::Receiver<bool>,
    ) -> Self {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "the connection is already gone");
        }
        let octets = match peer.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let clock = shared.ambient.clock.clone();
        let channel = ServerChannel::new(shared.channel.clone(), &octets, clock.now());
        let connection = Connection::new(channel, stream, clock, (shared.ambient.rng)());
        let (server, greeted, lease) = (None, false, None);
        let proof_by = Some(connection.now().plus(HANDSHAKE_TIMEOUT));
        Self { shared, number, connection, peer, stop, server, greeted, lease, proof_by }
    }

    pub(super) async fn run(mut self) {
        let Err(end) = self.serve().await;
        // The module forgets its card before anybody else gets it.
        self.lease = None;
        self.drained(None);
        let peer = self.peer;
        match end {
            End::Closed => {
                let _not_open = self.connection.machine().close();
            }
            End::Net(NetError::Machine(Error::Truncated | Error::Alert { .. })) => {
                tracing::debug!(%peer, "a server went away");
            }
            End::Net(NetError::Machine(error)) => {
                tracing::warn!(%peer, check = error.check(), "a server's connection was refused");
                self.connection.machine().refuse(&error, "");
            }
            End::Net(error) => tracing::debug!(%peer, %error, "a connection failed"),
            End::Protocol(what) => {
                tracing::warn!(%peer, what, "a server broke the SAM host's protocol");
                let _not_open = self.connection.machine().close();
            }
        }
        let _gone = self.connection.flush().await;
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let stopping = self.lease.is_none();
            let next = tokio::select! {
                next = self.connection.next(self.proof_by) => next?,
                // While a lease is under way it may finish.
                _ = self.stop.wait_for(|stop| *stop), if stopping => return Err(End::Closed),
            };
            match next {
                Next::Event(ServerEvent::Ask(id)) => {
                    let found = self.look_up(&id);
                    self.server = found.as_ref().ok().cloned();
                    let (channel, now, rng) = self.connection.parts();
                    channel.peer_found(now, rng, found).map_err(NetError::Machine)?;
                }
                Next::Event(ServerEvent::Connected) => {
                    let times = Heartbeat { every: HEARTBEAT_EVERY, within: HEARTBEAT_WITHIN };
                    let (channel, now, _) = self.connection.parts();
                    channel.watch(now, times).map_err(NetError::Machine)?;
                    self.proof_by = None;
                    let server = self.server.as_deref().unwrap_or_default();
                    tracing::info!(server, peer = %self.peer, "a server connected");
                }
                Next::Event(ServerEvent::Data(message)) => {
                    let message = ToHost::decode(&message);
                    let message = message.map_err(|_| End::Protocol("no message"))?;
                    self.message(message).await?;
                }
                Next::Event(ServerEvent::Closed) | Next::Ended | Next::Deadline => {
                    return Err(End::Closed);
                }
            }
        }
    }

    /// The servers that this host serves stand in its settings.
    fn look_up(&self, id: &ReaderId) -> Result<String, LookupRefusal> {
        match id {
            ReaderId::Serial(id) if self.shared.servers.contains(id) => Ok(id.clone()),
            _ => Err(LookupRefusal::Unknown),
        }
    }

    async fn message(&mut self, message: ToHost) -> Result<(), End> {
        if self.greeted == matches!(message, ToHost::Hello(_)) {
            return Err(End::Protocol("hello comes first, and once"));
        }
        match message {
            ToHost::Hello(versions) => {
                if !versions.contains(&REMOTE_V1) {
                    return Err(End::Protocol("no common version"));
                }
                self.greeted = true;
                let modules = self.shared.pool.health().len().min(HOST_MODULES_MAX);
                let modules = u8::try_from(modules).unwrap_or(u8::MAX);
                let host = text(&self.shared.id);
                self.answer(&FromHost::Hello { version: REMOTE_V1, host, modules }).await
            }
            ToHost::Lease(wait) => self.lease(wait).await,
            ToHost::Operate(operation) => self.operate(operation).await,
            ToHost::Release => {
                self.lease = None;
                Ok(())
            }
            ToHost::Ping(number) => {
                let modules = self.modules();
                self.answer(&FromHost::Pong { number, modules }).await
            }
            ToHost::Drained(ids) => {
                self.drained(Some(ids.iter().map(|id| id.as_str().to_owned()).collect()));
                Ok(())
            }
        }
    }

    fn drained(&self, ids: Option<BTreeSet<String>>) {
        self.shared.drained.say(self.number, ids, |all| self.shared.pool.set_drained(all));
    }

    async fn lease(&mut self, wait: Duration) -> Result<(), End> {
        if self.lease.is_some() {
            return Err(End::Protocol("a second lease"));
        }
        if *self.stop.borrow() {
            return self.answer(&FromHost::Unavailable(NoLease::NoneReady)).await;
        }
        // Connections take turns, as readers do at a server.
        let who = format!("{}/{}", self.server.as_deref().unwrap_or_default(), self.number);
        let shared = self.shared.clone();
        let leased = self.meanwhile(shared.pool.lease_within(&who, wait)).await?;
        let answer = match leased {
            Ok(lease) => {
                let sam_id = text(&lease.sam_id().unwrap_or_default());
                self.lease = Some(lease);
                FromHost::Leased(sam_id)
            }
            Err(SamUnavailable::Busy) => FromHost::Unavailable(NoLease::Busy),
            Err(SamUnavailable::NoneReady) => FromHost::Unavailable(NoLease::NoneReady),
        };
        self.answer(&answer).await
    }

    async fn operate(&mut self, operation: SamOperation) -> Result<(), End> {
        let Some(mut lease) = self.lease.take() else {
            return self.answer(&FromHost::Failed(SamError::NotReady)).await;
        };
        // Where the connection ends meanwhile the lease is dropped, and the module reset.
        let (lease, result) = self
            .meanwhile(async move {
                let result = lease.operate(operation).await;
                (lease, result)
            })
            .await?;
        self.lease = Some(lease);
        self.answer(&match result {
            Ok(result) => FromHost::Done(result),
            Err(error) => FromHost::Failed(error),
        })
        .await
    }

    /// Waits for a module and keeps the connection alive: the server says nothing meanwhile, and
    /// only the channel's own probes cross. Should one of these be cut off in the middle, which
    /// takes a full socket, the server cannot open what follows, and connects again.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        tokio::select! {
            done = work => Ok(done),
            next = self.connection.next(None) => match next? {
                Next::Event(ServerEvent::Data(_)) => Err(End::Protocol("spoke out of turn")),
                _ => Err(End::Closed),
            },
        }
    }

    async fn answer(&mut self, message: &FromHost) -> Result<(), End> {
        let sent = self.connection.machine().send(&message.encode());
        sent.map_err(NetError::Machine)?;
        Ok(self.connection.flush().await?)
    }

    fn modules(&self) -> Vec<ModuleHealth> {
        let modules = self.shared.pool.modules().into_iter().take(HOST_MODULES_MAX);
        modules
            .map(|one| ModuleHealth {
                sam_id: text(&one.sam_id.unwrap_or_default()),
                port: text(&one.port),
                state: match one.state {
                    SamState::Starting => ModuleState::Starting,
                    SamState::Ready => ModuleState::Ready,
                    SamState::Leased => ModuleState::Leased,
                    SamState::Draining => ModuleState::Draining,
                    SamState::Drained => ModuleState::Drained,
                    SamState::Quarantined => ModuleState::Quarantined,
                    SamState::Failed => ModuleState::Failed,
                },
                failures: u32::try_from(one.failures).unwrap_or(u32::MAX),
            })
            .collect()
    }
}

/// As much of a name as the protocol carries; the end of a path tells more than its beginning.
fn text(name: &str) -> RemoteText {
    let visible: String = name.chars().filter(char::is_ascii_graphic).collect();
    let from = visible.len().saturating_sub(REMOTE_TEXT_MAX);
    RemoteText::new(&visible[from..]).or_else(|| RemoteText::new("")).expect("visible and short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_out_of_service_while_one_server_says_so() {
        let drained = Drained::default();
        let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();
        for (connection, ids, all) in [
            (1, Some(set(&["a"])), set(&["a"])),
            (2, Some(set(&["a", "b"])), set(&["a", "b"])),
            (1, Some(set(&[])), set(&["a", "b"])),
            (2, None, set(&[])),
        ] {
            let mut told = None;
            drained.say(connection, ids, |now| told = Some(now));
            assert_eq!(told, Some(all));
        }
    }

    #[test]
    fn a_long_or_odd_name_is_carried_as_far_as_it_can_be() {
        assert_eq!(text("/dev/ttyUSB0").as_str(), "/dev/ttyUSB0");
        assert_eq!(text("/dev/tty\u{e9} 1").as_str(), "/dev/tty1");
        let long = format!("/{}/tty7", "a".repeat(100));
        assert!(text(&long).as_str().ends_with("a/tty7"));
        assert_eq!(text(&long).as_str().len(), REMOTE_TEXT_MAX);
    }
}
