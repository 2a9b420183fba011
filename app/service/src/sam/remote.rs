//! Modules at a SAM host: one task per connection to it, each good for one lease at a time.
//!
//! Where a module is, and who else uses it, is the host's business. The connection is ready while
//! the host has a module that serves; it is lost, reopened and put aside like a port.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Error, ReaderChannel, ReaderConfig, ReaderEvent};
use countersign_crypto::UnixTime;
use countersign_idcard::sam::remote::{
    DRAINED_MAX, FromHost, HEARTBEAT_EVERY, HEARTBEAT_WITHIN, ModuleHealth, ModuleState, NoLease,
    REMOTE_V1, RemoteText, ToHost,
};
use countersign_idcard::sam::{SamError, SamOperation, SamResult};
use countersign_net::{Connection, NetError, Next};
use countersign_pki::CertificateNumber;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::health::{SamFailure, SamModule, SamState};
use super::module::{REOPEN_FIRST, REOPEN_MAX, refuse_for};
use super::shared::Shared;
use super::{Request, SamPort, SamUnavailable, Work};
use crate::Ambient;

/// How long connecting may take, and how long the handshake and the first words after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a host is asked how its modules are, and the store whether the host is still good.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// How long a read waits at a host whose modules others have, before it looks elsewhere.
const LEASE_THERE_WAIT: Duration = Duration::from_millis(250);
/// How long any answer may take, beside the wait that was asked for: the longest operation of a
/// module, with every command sent again.
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How old a connection may become: its keys, and what the handshake proved, do not last for ever.
/// An older one finishes the read that it serves, and is made anew.
pub const SAM_HOST_SESSION_MAX: Duration = Duration::from_secs(3600);

/// What a connector promises, boxed so that the pool can hold connectors of any kind.
pub type Promise<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a SAM host is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SamHostRefused {
    /// The store has no such host, or knows it with another certificate.
    #[error("the SAM host is not enrolled, or not with this certificate")]
    Unknown,
    /// Its certificate was revoked.
    #[error("the SAM host's certificate is revoked")]
    Revoked,
    /// An operator blocked it.
    #[error("the SAM host is blocked")]
    Blocked,
}

impl SamHostRefused {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Unknown => "sam-host-unknown",
            Self::Revoked => "certificate-revoked",
            Self::Blocked => "sam-host-blocked",
        }
    }
}

/// Reaches a SAM host; the server hands in one that opens a TCP connection.
pub trait SamHostConnector: Send + Sync {
    /// What the connection is called in logs and health answers: the host and a number.
    fn name(&self) -> &str;

    /// Opens the connection.
    fn open(&self) -> Promise<'_, io::Result<Box<dyn SamPort>>>;

    /// What the server's side of the channel is made of: it begins, with the server's certificate,
    /// and expects the host's.
    ///
    /// # Errors
    /// What is wrong with the server's own certificates now.
    fn channel(&self, now: UnixTime) -> Result<Arc<ReaderConfig>, Error>;

    /// Whether the certificate with this number is the live one of the host that was expected, and
    /// the host is not blocked. Asked after each handshake and then every [`PING_EVERY`]. A store
    /// that cannot be asked refuses nobody: without it no read begins anyway.
    fn vouch<'a>(
        &'a self,
        number: &'a CertificateNumber,
    ) -> Promise<'a, Result<(), SamHostRefused>>;
}

/// One connection's task.
pub(super) struct Remote {
    pub(super) index: usize,
    pub(super) connector: Arc<dyn SamHostConnector>,
    pub(super) ambient: Ambient,
    pub(super) requests: mpsc::Receiver<Request>,
}

impl Remote {
    pub(super) async fn run(mut self, shared: Arc<Shared>) {
        let mut pause = REOPEN_FIRST;
        loop {
            let failure = match self.serve(&shared, &mut pause).await {
                Ok(Over::Pool) => return,
                Ok(Over::Age) => continue,
                Err(failure) => failure,
            };
            let (host, check, detail) = (self.connector.name(), failure.check, &failure.detail);
            tracing::warn!(host, check, detail, "SAM host not ready");
            shared.lost(self.index, failure);
            let quarantine = shared.quarantine(self.index);
            if !refuse_for(&mut self.requests, quarantine.max(pause)).await {
                return;
            }
            pause = (pause * 2).min(REOPEN_MAX);
        }
    }

    async fn serve(
        &mut self,
        shared: &Arc<Shared>,
        pause: &mut Duration,
    ) -> Result<Over, SamFailure> {
        let begun = timeout(BEGIN_TIMEOUT, self.begin(shared)).await;
        let mut serving = begun.map_err(|_elapsed| unreachable("the host does not answer"))??;
        *pause = REOPEN_FIRST;
        tracing::info!(host = self.connector.name(), "SAM host connected");
        let mut ping_at = Instant::now() + PING_EVERY;
        let old_at = Instant::now() + SAM_HOST_SESSION_MAX;
        loop {
            if Instant::now() >= old_at && shared.retire(self.index) {
                serving.close().await;
                return Ok(Over::Age);
            }
            let lease_until = shared.lease_until(self.index);
            let due = lease_until.map_or(ping_at, |until| until.min(ping_at));
            tokio::select! {
                request = self.requests.recv() => {
                    let Some(request) = request else { return Ok(Over::Pool) };
                    serving.request(request).await?;
                }
                // Only probes are exchanged without a question, and the channel keeps those.
                ended = serving.connection.next(None) => return Err(match ended {
                    Ok(_) => protocol("the host spoke out of turn, or closed"),
                    Err(error) => channel(error),
                }),
                _ = serving.drained.changed() => serving.tell_drained().await?,
                () = sleep_until(due) => serving.take_back().await?,
            }
            // A connection that is busy is looked after too.
            if Instant::now() >= ping_at {
                self.connector.vouch(&serving.number).await.map_err(refused)?;
                serving.ping().await?;
                ping_at = Instant::now() + PING_EVERY;
            }
        }
    }

    /// Connects, proves itself, checks the host, and learns of its modules.
    async fn begin<'a>(&self, shared: &'a Arc<Shared>) -> Result<Serving<'a>, SamFailure> {
        let stream = timeout(CONNECT_TIMEOUT, self.connector.open()).await;
        let stream = stream
            .map_err(|_elapsed| unreachable("no answer"))?
            .map_err(|error| unreachable(&error.to_string()))?;
        let (clock, mut rng) = (self.ambient.clock.clone(), (self.ambient.rng)());
        let now = clock.now();
        let local = |error| channel(NetError::Machine(error));
        let config = self.connector.channel(now).map_err(local)?;
        let expected = config.server_id.clone();
        let machine = ReaderChannel::new(config, now, &mut *rng).map_err(local)?;
        let mut connection = Connection::new(machine, stream, clock, rng);
        match connection.next(None).await.map_err(channel)? {
            Next::Event(ReaderEvent::Connected) => {}
            _ => return Err(protocol("the host ended the handshake")),
        }
        let (machine, now, _) = connection.parts();
        let peer = machine.peer().ok_or_else(|| protocol("no certificate"))?;
        let number = peer.number().clone();
        let times =
            countersign_channel::Heartbeat { every: HEARTBEAT_EVERY, within: HEARTBEAT_WITHIN };
        machine.sleep(now, times).map_err(local)?;
        self.connector.vouch(&number).await.map_err(refused)?;
        let drained = shared.drained();
        let index = self.index;
        let generation = shared.opened(index);
        let mut serving = Serving {
            index,
            host: self.connector.name().to_owned(),
            connection,
            shared,
            generation,
            drained,
            number,
            pings: 0,
        };
        match serving.exchange(&ToHost::Hello(vec![REMOTE_V1]), ANSWER_WAIT).await? {
            FromHost::Hello { version: REMOTE_V1, host, .. }
                if expected.is_none_or(|expected| expected == host.as_str()) => {}
            _ => return Err(protocol("the host did not greet as it must")),
        }
        serving.tell_drained().await?;
        serving.ping().await?;
        Ok(serving)
    }
}

/// Why a connection is not gone on with, though nothing failed.
enum Over {
    /// The pool is gone.
    Pool,
    /// It is [`SAM_HOST_SESSION_MAX`] old.
    Age,
}

/// A host that has proven itself.
struct Serving<'a> {
    index: usize,
    host: String,
    connection: Connection<ReaderChannel, Box<dyn SamPort>>,
    shared: &'a Arc<Shared>,
    generation: u64,
    drained: watch::Receiver<Arc<BTreeSet<String>>>,
    number: CertificateNumber,
    pings: u32,
}

impl Serving<'_> {
    async fn request(&mut self, request: Request) -> Result<(), SamFailure> {
        if request.generation != self.generation {
            request.work.refuse();
            return Ok(());
        }
        match request.work {
            Work::Lease { reply } => {
                let leased = self.lease().await;
                let failure = self.noticed(leased.as_ref().err());
                let leased = leased.unwrap_or(Err(SamUnavailable::NoneReady));
                if reply.send(leased).is_err_and(|unread| unread.is_ok()) {
                    self.tell(&ToHost::Release).await?; // nobody waits for it any more
                }
                failure
            }
            Work::Operate { operation, reply } => {
                let result = self.operate(operation).await;
                let failure = self.noticed(result.as_ref().err());
                let _reader_gone = reply.send(result.unwrap_or(Err(SamError::Gone)));
                failure
            }
            Work::Release { reply } => {
                self.tell(&ToHost::Release).await?;
                let _nobody_waits = reply.send(());
                Ok(())
            }
        }
    }

    /// Before the answer: whoever gets it gives the place back, for nobody to take.
    fn noticed(&self, failure: Option<&SamFailure>) -> Result<(), SamFailure> {
        let Some(failure) = failure else { return Ok(()) };
        self.shared.lost(self.index, failure.clone());
        Err(failure.clone())
    }

    async fn lease(&mut self) -> Result<Result<String, SamUnavailable>, SamFailure> {
        if self.drained.has_changed().unwrap_or(false) {
            self.tell_drained().await?; // before the host can give one of those
        }
        let asked = ToHost::Lease(LEASE_THERE_WAIT);
        match self.exchange(&asked, LEASE_THERE_WAIT + ANSWER_WAIT).await? {
            FromHost::Leased(sam_id) => {
                let sam_id = sam_id.as_str().to_owned();
                self.shared.leased_there(self.index, sam_id.clone());
                Ok(Ok(sam_id))
            }
            FromHost::Unavailable(NoLease::Busy) => Ok(Err(SamUnavailable::Busy)),
            FromHost::Unavailable(NoLease::NoneReady) => {
                self.shared.set_open(self.index, Err(none_serves()));
                Ok(Err(SamUnavailable::NoneReady))
            }
            other => Err(protocol(other.name())),
        }
    }

    async fn operate(
        &mut self,
        operation: SamOperation,
    ) -> Result<Result<SamResult, SamError>, SamFailure> {
        let result = match self.exchange(&ToHost::Operate(operation), ANSWER_WAIT).await? {
            FromHost::Done(result) => Ok(result),
            FromHost::Failed(error) => Err(error),
            other => return Err(protocol(other.name())),
        };
        self.shared.count(self.index, &result);
        Ok(result)
    }

    /// How the host's modules are; the connection is ready while one of them serves.
    async fn ping(&mut self) -> Result<(), SamFailure> {
        self.pings = self.pings.wrapping_add(1);
        match self.exchange(&ToHost::Ping(self.pings), ANSWER_WAIT).await? {
            FromHost::Pong { number, modules } if number == self.pings => {
                let serves = |one: &ModuleHealth| {
                    matches!(one.state, ModuleState::Ready | ModuleState::Leased)
                };
                let open = if modules.iter().any(serves) { Ok(()) } else { Err(none_serves()) };
                let modules = modules.into_iter().map(|one| self.module(&one)).collect();
                self.shared.report(self.index, modules);
                self.shared.set_open(self.index, open);
                Ok(())
            }
            other => Err(protocol(other.name())),
        }
    }

    fn module(&self, one: &ModuleHealth) -> SamModule {
        let host = self.host.split('#').next().unwrap_or_default();
        let sam_id = one.sam_id.as_str();
        SamModule {
            sam_id: (!sam_id.is_empty()).then(|| sam_id.to_owned()),
            port: format!("{host}/{}", one.port.as_str()),
            state: match one.state {
                ModuleState::Starting => SamState::Starting,
                ModuleState::Ready => SamState::Ready,
                ModuleState::Leased => SamState::Leased,
                ModuleState::Draining => SamState::Draining,
                ModuleState::Drained => SamState::Drained,
                ModuleState::Quarantined => SamState::Quarantined,
                ModuleState::Failed => SamState::Failed,
            },
            failures: one.failures.into(),
            reads: 0,
            failed: BTreeMap::new(),
        }
    }

    async fn tell_drained(&mut self) -> Result<(), SamFailure> {
        let ids = self.drained.borrow_and_update().clone();
        let ids = ids.iter().filter_map(|id| RemoteText::new(id)).take(DRAINED_MAX).collect();
        self.tell(&ToHost::Drained(ids)).await
    }

    /// Ends a lease that has lasted too long.
    async fn take_back(&mut self) -> Result<(), SamFailure> {
        let Some(generation) = self.shared.take_back(self.index) else { return Ok(()) };
        tracing::warn!(host = self.host, "a SAM lease lasted too long and was taken back");
        self.generation = generation;
        self.tell(&ToHost::Release).await?;
        self.shared.free(self.index, generation);
        Ok(())
    }

    /// In good order; whether the host still hears it does not matter.
    async fn close(&mut self) {
        let _not_open = self.connection.machine().close();
        let _gone = self.connection.flush().await;
    }

    async fn tell(&mut self, message: &ToHost) -> Result<(), SamFailure> {
        let sent = self.connection.machine().send(&message.encode());
        sent.map_err(|error| channel(NetError::Machine(error)))?;
        self.connection.flush().await.map_err(channel)
    }

    async fn exchange(
        &mut self,
        message: &ToHost,
        within: Duration,
    ) -> Result<FromHost, SamFailure> {
        self.tell(message).await?;
        let until = self.connection.now().plus(within);
        let answer: Zeroizing<Vec<u8>> =
            match self.connection.next(Some(until)).await.map_err(channel)? {
                Next::Event(ReaderEvent::Data(answer)) => answer,
                Next::Deadline => return Err(unreachable("the host does not answer")),
                _ => return Err(protocol("the host closed")),
            };
        FromHost::decode(&answer).map_err(|error| protocol(&error.to_string()))
    }
}

fn none_serves() -> SamFailure {
    SamFailure { check: "sam-none-ready", detail: "no module at the host serves".to_owned() }
}

fn unreachable(detail: &str) -> SamFailure {
    SamFailure { check: "sam-host-unreachable", detail: detail.to_owned() }
}

fn protocol(detail: &str) -> SamFailure {
    SamFailure { check: "sam-host-protocol", detail: detail.to_owned() }
}

fn refused(refused: SamHostRefused) -> SamFailure {
    SamFailure { check: refused.check(), detail: refused.to_string() }
}

fn channel(error: NetError<Error>) -> SamFailure {
    match error {
        NetError::Machine(error) => SamFailure { check: error.check(), detail: error.to_string() },
        error => unreachable(&error.to_string()),
    }
}
