//! The SAM pool (C12): modules behind ports, leased to one read at a time.
//!
//! Each module has a task that owns its port. A lease is exclusive from `Begin` to the plaintext;
//! a lease that is dropped in between makes the module forget the card. A dead port is reopened
//! with a growing pause.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_idcard::sam::{SamConfig, SamError, SamEvent, SamHost, SamOperation, SamResult};
use countersign_net::{Connection, Next};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::Ambient;

/// How long a read waits for a free module.
pub const LEASE_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits while no module is ready at all: a port that is just being reopened is
/// back within this, an unplugged one is not.
pub const READY_WAIT: Duration = Duration::from_secs(2);
/// Reads that may wait at once; one more is refused.
pub const QUEUE_MAX: usize = 256;
/// The pause before a dead port is opened again, at first and at most.
const REOPEN_FIRST: Duration = Duration::from_millis(200);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// A byte stream to a module.
pub trait SamPort: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> SamPort for T {}

/// Opens a module's port; the server hands in one that opens a serial port.
pub trait SamConnector: Send + Sync {
    /// What the port is called in logs and health answers, for instance its path.
    fn name(&self) -> &str;

    /// Opens the port.
    ///
    /// # Errors
    /// The system's.
    fn open(&self) -> io::Result<Box<dyn SamPort>>;
}

/// How a module is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamHealth {
    /// The port's name.
    pub port: String,
    /// The module's id once it has answered, as the trade writes it.
    pub sam_id: Option<String>,
    /// Whether it can be leased (or is).
    pub ready: bool,
    /// The last failure, if it is not ready.
    pub failure: Option<String>,
}

/// No module could be leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SamUnavailable {
    /// None is attached, or none answers.
    #[error("no SAM module is ready")]
    NoneReady,
    /// All are busy, and too many reads wait already.
    #[error("all SAM modules are busy")]
    Busy,
}

struct Request {
    operation: SamOperation,
    reply: oneshot::Sender<Result<SamResult, SamError>>,
}

#[derive(Default)]
struct State {
    health: Vec<SamHealth>,
    /// Indices of modules that are ready and not leased, longest idle first.
    idle: VecDeque<usize>,
    waiting: usize,
}

struct Shared {
    state: Mutex<State>,
    freed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment or push, so a poisoned lock holds nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, index: usize) {
        let mut state = self.lock();
        if state.health[index].ready && !state.idle.contains(&index) {
            state.idle.push_back(index);
            self.freed.notify_one();
        }
    }
}

/// The modules attached to this server.
pub struct SamPool {
    shared: Arc<Shared>,
    modules: Vec<mpsc::Sender<Request>>,
}

impl SamPool {
    /// Starts a task per module. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(
        connectors: Vec<Arc<dyn SamConnector>>,
        config: SamConfig,
        ambient: &Ambient,
    ) -> Self {
        let health = |connector: &Arc<dyn SamConnector>| SamHealth {
            port: connector.name().to_owned(),
            sam_id: None,
            ready: false,
            failure: None,
        };
        let state = State { health: connectors.iter().map(health).collect(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), freed: Notify::new() });
        let start = |(index, connector)| {
            let (sender, requests) = mpsc::channel(1);
            let module = Module { index, connector, config, ambient: ambient.clone(), requests };
            tokio::spawn(module.run(shared.clone()));
            sender
        };
        let modules = connectors.into_iter().enumerate().map(start).collect();
        Self { shared, modules }
    }

    /// How each module is.
    #[must_use]
    pub fn health(&self) -> Vec<SamHealth> {
        self.shared.lock().health.clone()
    }

    /// Leases the longest idle module, waiting up to [`LEASE_WAIT`].
    ///
    /// # Errors
    /// [`SamUnavailable`].
    pub async fn lease(&self) -> Result<SamLease, SamUnavailable> {
        {
            let mut state = self.shared.lock();
            if state.waiting >= QUEUE_MAX {
                return Err(SamUnavailable::Busy);
            }
            state.waiting += 1;
        }
        let _waiting = Waiting(&self.shared);
        let until = Instant::now() + LEASE_WAIT;
        let mut ready_until = Instant::now() + READY_WAIT;
        loop {
            let freed = self.shared.freed.notified();
            let any_ready = {
                let mut state = self.shared.lock();
                if let Some(index) = state.idle.pop_front() {
                    return Ok(self.leased(index));
                }
                state.health.iter().any(|health| health.ready)
            };
            if any_ready {
                ready_until = Instant::now() + READY_WAIT;
            }
            if timeout_at(until.min(ready_until), freed).await.is_err() {
                let any_ready = self.shared.lock().health.iter().any(|health| health.ready);
                if !any_ready {
                    return Err(SamUnavailable::NoneReady);
                }
                if Instant::now() >= until {
                    return Err(SamUnavailable::Busy);
                }
            }
        }
    }

    fn leased(&self, index: usize) -> SamLease {
        SamLease {
            shared: self.shared.clone(),
            requests: self.modules[index].clone(),
            index,
            in_use: false,
        }
    }
}

struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting -= 1;
    }
}

/// One module, for one read.
pub struct SamLease {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    index: usize,
    /// The module holds a card that it must forget if the lease is dropped.
    in_use: bool,
}

impl SamLease {
    /// The module's id, as the trade writes it.
    #[must_use]
    pub fn sam_id(&self) -> Option<String> {
        self.shared.lock().health[self.index].sam_id.clone()
    }

    /// Lets the module do one operation.
    ///
    /// # Errors
    /// [`SamError`]; after a fatal one the module is being reopened.
    pub async fn operate(&mut self, operation: SamOperation) -> Result<SamResult, SamError> {
        self.in_use = true;
        let (reply, answer) = oneshot::channel();
        let request = Request { operation, reply };
        self.requests.send(request).await.map_err(|_| SamError::Gone)?;
        let result = answer.await.map_err(|_| SamError::Gone)?;
        // After a result the module has forgotten the card by itself; after an error it has too.
        self.in_use = matches!(result, Ok(SamResult::Challenge(_) | SamResult::Proof(_)));
        result
    }
}

impl Drop for SamLease {
    fn drop(&mut self) {
        if !self.in_use {
            self.shared.free(self.index);
            return;
        }
        let (shared, requests, index) = (self.shared.clone(), self.requests.clone(), self.index);
        tokio::spawn(async move {
            let (reply, answer) = oneshot::channel();
            let cancel = Request { operation: SamOperation::Cancel, reply };
            if requests.send(cancel).await.is_ok() {
                let _forgotten = answer.await;
            }
            shared.free(index);
        });
    }
}

/// One module's task.
struct Module {
    index: usize,
    connector: Arc<dyn SamConnector>,
    config: SamConfig,
    ambient: Ambient,
    requests: mpsc::Receiver<Request>,
}

impl Module {
    async fn run(mut self, shared: Arc<Shared>) {
        let mut pause = REOPEN_FIRST;
        loop {
            let failure = match self.serve(&shared, &mut pause).await {
                Ok(()) => return, // the pool is gone
                Err(failure) => failure,
            };
            tracing::warn!(port = self.connector.name(), failure, "SAM module not ready");
            {
                let mut state = shared.lock();
                state.idle.retain(|index| *index != self.index);
                let health = &mut state.health[self.index];
                health.ready = false;
                health.failure = Some(failure);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(REOPEN_MAX);
            // What was asked of the dead port is answered, not left waiting.
            while let Ok(request) = self.requests.try_recv() {
                let _gone = request.reply.send(Err(SamError::Gone));
            }
        }
    }

    /// Opens the port and serves until it dies.
    async fn serve(&mut self, shared: &Shared, pause: &mut Duration) -> Result<(), String> {
        let port = self.connector.open().map_err(|error| error.to_string())?;
        let (clock, rng) = (self.ambient.clock.clone(), (self.ambient.rng)());
        let mut connection = Connection::new(SamHost::new(self.config), port, clock, rng);
        let (host, now, _) = connection.parts();
        host.start(now).map_err(|error| error.to_string())?;
        let ready = event(&mut connection).await.map_err(|error| error.to_string())?;
        let SamEvent::Ready(id) = ready else {
            return Err(format!("unexpected event at the start: {ready:?}"));
        };
        *pause = REOPEN_FIRST;
        {
            let mut state = shared.lock();
            let health = &mut state.health[self.index];
            health.sam_id = Some(id.to_string());
            health.ready = true;
            health.failure = None;
        }
        shared.free(self.index);
        tracing::info!(port = self.connector.name(), sam = %id, "SAM module ready");
        loop {
            // Between requests the port is watched, so that an unplugged module shows at once.
            let request = tokio::select! {
                request = self.requests.recv() => request,
                ended = event(&mut connection) => {
                    return Err(ended.map_or_else(|error| error.to_string(), |event| {
                        format!("unexpected event while idle: {event:?}")
                    }));
                }
            };
            let Some(Request { operation, reply }) = request else { return Ok(()) };
            let result = operate(&mut connection, operation).await;
            let fatal = result.as_ref().err().filter(|error| error.is_fatal()).copied();
            let _reader_gone = reply.send(result);
            if let Some(error) = fatal {
                return Err(error.to_string());
            }
        }
    }
}

type SamConnection = Connection<SamHost, Box<dyn SamPort>>;

async fn operate(
    connection: &mut SamConnection,
    operation: SamOperation,
) -> Result<SamResult, SamError> {
    let (host, now, _) = connection.parts();
    host.operate(now, operation)?;
    match event(connection).await? {
        SamEvent::Done(result) => Ok(result),
        SamEvent::Failed(error) => Err(error),
        SamEvent::Ready(_) | SamEvent::Bridge(_) => Err(SamError::NotReady),
    }
}

async fn event(connection: &mut SamConnection) -> Result<SamEvent, SamError> {
    match connection.next(None).await {
        Ok(Next::Event(SamEvent::Failed(error))) if error.is_fatal() => Err(error),
        Ok(Next::Event(event)) => Ok(event),
        Ok(Next::Ended | Next::Deadline) | Err(_) => Err(SamError::Gone),
    }
}
