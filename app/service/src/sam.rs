//! The SAM pool (C12): modules behind ports, leased to one read at a time.
//!
//! Each module has a task that owns its port. A lease is exclusive from `Begin` to the plaintext;
//! a lease that is dropped in between makes the module forget the card. A dead port is reopened
//! with a growing pause.

mod module;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use countersign_idcard::sam::{SamConfig, SamError, SamOperation, SamResult};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::Ambient;
use module::Module;

/// How long a read waits for a free module.
pub const LEASE_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits while no module is ready at all: a port that is just being reopened is
/// back within this, an unplugged one is not.
pub const READY_WAIT: Duration = Duration::from_secs(2);
/// Reads that may wait at once; one more is refused.
pub const QUEUE_MAX: usize = 256;

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
    /// Of the lease that asks. The module may have been reopened since.
    generation: u64,
    operation: SamOperation,
    reply: oneshot::Sender<Result<SamResult, SamError>>,
}

/// What the pool knows of one module.
struct Slot {
    health: SamHealth,
    /// Counts how often the module became ready: a lease holds for one of these only.
    generation: u64,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Indices of modules that are ready and not leased, longest idle first. Empty while a live
    /// waiter is queued.
    idle: VecDeque<usize>,
    /// Reads that wait, in the order in which they came.
    waiters: VecDeque<oneshot::Sender<Place>>,
    /// When a module that was ready was lost last.
    lost_at: Option<Instant>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one assignment or push, so a poisoned lock holds nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The module answers: from now on leases of an earlier generation are stale.
    fn ready(self: &Arc<Self>, index: usize, sam_id: String) -> u64 {
        let generation = {
            let slot = &mut self.lock().slots[index];
            slot.generation += 1;
            slot.health.sam_id = Some(sam_id);
            slot.health.ready = true;
            slot.health.failure = None;
            slot.generation
        };
        self.free(index, generation);
        generation
    }

    /// The module does not answer. Nobody is given it until it is ready again.
    fn lost(&self, index: usize, failure: String) {
        let mut state = self.lock();
        state.idle.retain(|idle| *idle != index);
        let health = &mut state.slots[index].health;
        health.failure = Some(failure);
        if std::mem::take(&mut health.ready) {
            state.lost_at = Some(Instant::now());
        }
    }

    /// Gives the module to the read that has waited longest, or notes that it is idle. What
    /// belongs to an earlier generation, or to a module that is lost, is nobody's to give.
    fn free(self: &Arc<Self>, index: usize, generation: u64) {
        loop {
            let waiter = {
                let mut state = self.lock();
                let slot = &state.slots[index];
                if slot.generation != generation || !slot.health.ready {
                    return;
                }
                match state.waiters.pop_front() {
                    Some(waiter) => waiter,
                    None => return state.idle.push_back(index),
                }
            };
            let place = Place { shared: self.clone(), index, generation, held: true };
            match waiter.send(place) {
                Ok(()) => return,
                Err(mut gone) => gone.held = false, // we still hold it: to the next one
            }
        }
    }
}

/// The right to use one module, for one of its generations. Its drop gives the module on.
struct Place {
    shared: Arc<Shared>,
    index: usize,
    generation: u64,
    held: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held {
            self.shared.free(self.index, self.generation);
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
        let slot = |connector: &Arc<dyn SamConnector>| {
            let port = connector.name().to_owned();
            let health = SamHealth { port, sam_id: None, ready: false, failure: None };
            Slot { health, generation: 0 }
        };
        let state = State { slots: connectors.iter().map(slot).collect(), ..State::default() };
        let shared = Arc::new(Shared(Mutex::new(state)));
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
        self.shared.lock().slots.iter().map(|slot| slot.health.clone()).collect()
    }

    /// Leases the longest idle module, waiting up to [`LEASE_WAIT`]. Who came first is served
    /// first.
    ///
    /// # Errors
    /// [`SamUnavailable`].
    pub async fn lease(&self) -> Result<SamLease, SamUnavailable> {
        let mut given = match self.take_or_queue()? {
            Ok(place) => return Ok(self.leased(place)),
            Err(given) => given,
        };
        let until = Instant::now() + LEASE_WAIT;
        let mut ready_until = Instant::now() + READY_WAIT;
        loop {
            match timeout_at(until.min(ready_until), &mut given).await {
                Ok(Ok(place)) => return Ok(self.leased(place)),
                // The queue drops no waiter that still waits.
                Ok(Err(_)) => return Err(SamUnavailable::NoneReady),
                Err(_elapsed) => {}
            }
            let now = Instant::now();
            let state = self.shared.lock();
            if state.slots.iter().any(|slot| slot.health.ready) {
                ready_until = now + READY_WAIT;
            } else {
                let lost_for = state.lost_at.map_or(READY_WAIT, |at| now.duration_since(at));
                if lost_for >= READY_WAIT {
                    return Err(SamUnavailable::NoneReady);
                }
                ready_until = now + (READY_WAIT - lost_for);
            }
            if now >= until {
                return Err(SamUnavailable::Busy);
            }
        }
    }

    /// An idle module, or a place at the end of the queue.
    fn take_or_queue(&self) -> Result<Result<Place, oneshot::Receiver<Place>>, SamUnavailable> {
        let mut state = self.shared.lock();
        if let Some(index) = state.idle.pop_front() {
            let generation = state.slots[index].generation;
            return Ok(Ok(Place { shared: self.shared.clone(), index, generation, held: true }));
        }
        state.waiters.retain(|waiter| !waiter.is_closed());
        if state.waiters.len() >= QUEUE_MAX {
            return Err(SamUnavailable::Busy);
        }
        let (waiter, given) = oneshot::channel();
        state.waiters.push_back(waiter);
        Ok(Err(given))
    }

    fn leased(&self, place: Place) -> SamLease {
        let sam_id = self.shared.lock().slots[place.index].health.sam_id.clone();
        let requests = self.modules[place.index].clone();
        SamLease { requests, place: Arc::new(place), sam_id, in_use: false }
    }
}

/// One module, for one read.
pub struct SamLease {
    requests: mpsc::Sender<Request>,
    /// Shared with the task that makes the module forget its card; the last one gives it on.
    place: Arc<Place>,
    sam_id: Option<String>,
    /// The module holds a card that it must forget if the lease is dropped.
    in_use: bool,
}

impl SamLease {
    /// The module's id, as the trade writes it.
    #[must_use]
    pub fn sam_id(&self) -> Option<String> {
        self.sam_id.clone()
    }

    /// Lets the module do one operation.
    ///
    /// # Errors
    /// [`SamError`]; after a fatal one the module is being reopened, and this lease gets
    /// [`SamError::Gone`] from then on.
    pub async fn operate(&mut self, operation: SamOperation) -> Result<SamResult, SamError> {
        self.in_use = true;
        let result = ask(&self.requests, self.place.generation, operation).await;
        // After a plaintext or an error the module has forgotten the card by itself; an operation
        // out of turn changed nothing.
        self.in_use = matches!(
            result,
            Ok(SamResult::Challenge(_) | SamResult::Proof(_)) | Err(SamError::NotReady)
        );
        result
    }
}

impl Drop for SamLease {
    fn drop(&mut self) {
        if !self.in_use {
            return;
        }
        let (requests, place) = (self.requests.clone(), self.place.clone());
        // Without a runtime the program is ending, and the module is reset at its next start.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _forgotten = ask(&requests, place.generation, SamOperation::Cancel).await;
                drop(place);
            });
        }
    }
}

async fn ask(
    requests: &mpsc::Sender<Request>,
    generation: u64,
    operation: SamOperation,
) -> Result<SamResult, SamError> {
    let (reply, answer) = oneshot::channel();
    let request = Request { generation, operation, reply };
    requests.send(request).await.map_err(|_| SamError::Gone)?;
    answer.await.map_err(|_| SamError::Gone)?
}
