//! The SAM pool (C12): modules behind ports, and at SAM hosts, leased to one read at a time.
//!
//! Each module has a task that owns its port. A lease is exclusive from `Begin` to the plaintext;
//! a lease that is dropped in between makes the module forget the card, and one that lasts too long
//! is taken back. A freed module goes at once to the read whose turn it is: readers take turns. A
//! dead port is reopened with a growing pause; a module that flaps is put aside; one that an
//! operator drains finishes what is under way and begins nothing new.

mod drain;
mod gate;
mod health;
mod module;
mod queue;
mod record;
mod remote;
mod shared;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use countersign_idcard::sam::{SamConfig, SamError, SamOperation, SamResult};
use countersign_idcard::server::READER_TOTAL_TIMEOUT;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::Ambient;
use gate::Gate;
use module::Module;
use remote::Remote;
use shared::{Place, Shared, Slot, Turn};

pub use drain::SamListed;
pub use gate::PER_READER_HELD_MAX;
pub use health::{SamFailure, SamHealth, SamModule, SamState};
pub use module::HEALTH_EVERY;
pub use record::{FLAP_WINDOW, FLAPS_MAX, PROBATION, QUARANTINE_FIRST, QUARANTINE_MAX, SamTally};
pub use remote::{PING_EVERY, Promise, SAM_HOST_SESSION_MAX, SamHostConnector, SamHostRefused};

/// How long a read waits for a free module.
pub const LEASE_WAIT: Duration = Duration::from_secs(10);
/// How long a read waits while no module serves at all: a port that is just being reopened is
/// back within this, an unplugged one is not.
pub const READY_WAIT: Duration = Duration::from_secs(2);
/// Reads that may wait at once; one more is refused.
pub const QUEUE_MAX: usize = 256;
/// Reads of one reader that may wait at once; one more is refused.
pub const PER_READER_MAX: usize = 8;
/// How long a lease may last: a read with all its reader's turns, and the module's own work.
pub const LEASE_MAX: Duration = Duration::from_secs(45);
/// Histogram: how long reads waited for a module, in seconds, those that got none too.
pub const LEASE_WAIT_SECONDS: &str = "countersign_sam_lease_wait_seconds";

const _: () = assert!(LEASE_MAX.as_secs() > 2 * READER_TOTAL_TIMEOUT.as_secs());

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

/// What is asked of a module's task.
enum Work {
    /// At a SAM host: lease a module there.
    Lease { reply: oneshot::Sender<Result<String, SamUnavailable>> },
    /// One operation under the lease.
    Operate { operation: SamOperation, reply: oneshot::Sender<Result<SamResult, SamError>> },
    /// The lease ends: forget the card, and at a SAM host, give the module back.
    Release { reply: oneshot::Sender<()> },
}

struct Request {
    /// Of the lease that asks. The module may have been reopened since.
    generation: u64,
    work: Work,
}

/// The modules of this server: at its own ports, and at SAM hosts.
pub struct SamPool {
    shared: Arc<Shared>,
    gate: Gate,
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
        Self::start_with_hosts(connectors, Vec::new(), config, ambient)
    }

    /// The same, and a task per connection to a SAM host.
    #[must_use]
    pub fn start_with_hosts(
        connectors: Vec<Arc<dyn SamConnector>>,
        hosts: Vec<Arc<dyn SamHostConnector>>,
        config: SamConfig,
        ambient: &Ambient,
    ) -> Self {
        let local = connectors.iter().map(|one| Slot::new(one.name().to_owned(), false));
        let remote = hosts.iter().map(|one| Slot::new(one.name().to_owned(), true));
        let shared = Arc::new(Shared::new(local.chain(remote).collect()));
        let mut modules = Vec::with_capacity(connectors.len() + hosts.len());
        for connector in connectors {
            let (sender, requests) = mpsc::channel(1);
            let (index, ambient) = (modules.len(), ambient.clone());
            let module = Module { index, connector, config, ambient, requests };
            tokio::spawn(module.run(shared.clone()));
            modules.push(sender);
        }
        for connector in hosts {
            let (sender, requests) = mpsc::channel(1);
            let (index, ambient) = (modules.len(), ambient.clone());
            let remote = Remote { index, connector, ambient, requests };
            tokio::spawn(remote.run(shared.clone()));
            modules.push(sender);
        }
        Self { shared, gate: Gate::default(), modules }
    }

    /// How each module, or connection to a SAM host, is.
    #[must_use]
    pub fn health(&self) -> Vec<SamHealth> {
        self.shared.health()
    }

    /// Every module, those at SAM hosts too, each once.
    #[must_use]
    pub fn modules(&self) -> Vec<SamModule> {
        self.shared.modules()
    }

    /// How many reads wait for a module.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.gate.waiting() + self.shared.waiting()
    }

    /// Takes exactly these modules, by their ids, out of service: what is under way finishes, and
    /// nothing new begins.
    pub fn set_drained(&self, ids: BTreeSet<String>) {
        self.shared.drain(ids);
    }

    /// Begins no lease any more, and waits until those under way have ended, at most for this long.
    pub async fn close(&self, within: Duration) {
        self.shared.close(within).await;
    }

    /// Leases the longest idle module, waiting up to [`LEASE_WAIT`]. Readers take turns; the reads
    /// of one reader are served in the order in which they came, [`PER_READER_HELD_MAX`] at once.
    ///
    /// # Errors
    /// [`SamUnavailable`].
    pub async fn lease(&self, reader: &str) -> Result<SamLease, SamUnavailable> {
        self.lease_within(reader, LEASE_WAIT).await
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// [`SamUnavailable`].
    pub async fn lease_within(
        &self,
        reader: &str,
        wait: Duration,
    ) -> Result<SamLease, SamUnavailable> {
        let asked = Instant::now();
        let leased = self.find(reader, asked + wait).await;
        metrics::histogram!(LEASE_WAIT_SECONDS).record(asked.elapsed());
        leased
    }

    async fn find(&self, reader: &str, until: Instant) -> Result<SamLease, SamUnavailable> {
        let mut passed = Some(self.gate.pass(reader, until).await?);
        let mut turn = Turn::New;
        loop {
            let place = self.place(reader, turn, until).await?;
            let (remote, sam_id) = self.shared.given(place.index);
            let requests = self.modules[place.index].clone();
            let passed = match passed.take() {
                Some(passed) => passed,
                None => self.gate.pass(reader, until).await?,
            };
            let place = Arc::new(Held { place, _passed: passed });
            let lease = SamLease { requests, remote, place, sam_id, in_use: false };
            match lease.confirmed().await {
                Ok(lease) => return Ok(lease),
                // Somebody else has that host's modules: another place, and before the others.
                Err(_) if Instant::now() < until => turn = Turn::Again,
                Err(unavailable) => return Err(unavailable),
            }
        }
    }

    /// The right to use a module.
    async fn place(
        &self,
        reader: &str,
        turn: Turn,
        until: Instant,
    ) -> Result<Place, SamUnavailable> {
        let mut given = match self.shared.take_or_queue(reader, turn)? {
            Ok(place) => return Ok(place),
            Err(given) => given,
        };
        let mut ready_until = Instant::now() + READY_WAIT;
        loop {
            match timeout_at(until.min(ready_until), &mut given).await {
                Ok(Ok(place)) => return Ok(place),
                // The queue drops no waiter that still waits.
                Ok(Err(_)) => return Err(SamUnavailable::NoneReady),
                Err(_elapsed) => {}
            }
            let dark = self.shared.dark_for(READY_WAIT);
            if dark >= READY_WAIT {
                return Err(SamUnavailable::NoneReady);
            }
            let now = Instant::now();
            ready_until = now + (READY_WAIT - dark);
            if now >= until {
                return Err(SamUnavailable::Busy);
            }
        }
    }
}

/// A module, and the reader's right to hold one. The module goes first.
struct Held {
    place: Place,
    _passed: OwnedSemaphorePermit,
}

/// One module, for one read.
pub struct SamLease {
    requests: mpsc::Sender<Request>,
    remote: bool,
    /// Shared with the task that makes the module forget its card; the last one gives it on.
    place: Arc<Held>,
    sam_id: Option<String>,
    /// The module holds a card that it must forget if the lease is dropped; a module at a SAM host
    /// must be given back there in any case.
    in_use: bool,
}

impl SamLease {
    /// The module's id, as the trade writes it.
    #[must_use]
    pub fn sam_id(&self) -> Option<String> {
        self.sam_id.clone()
    }

    /// At a SAM host, the lease of a module there; here it is one already.
    async fn confirmed(mut self) -> Result<Self, SamUnavailable> {
        if self.remote {
            self.in_use = true; // from here on somebody may have to give it back there
            let leased = self.ask(|reply| Work::Lease { reply }).await;
            let leased = leased.unwrap_or(Err(SamUnavailable::NoneReady));
            self.in_use = leased.is_ok();
            self.sam_id = Some(leased?);
        }
        Ok(self)
    }

    /// Lets the module do one operation.
    ///
    /// # Errors
    /// [`SamError`]; after a fatal one the module is being reopened, and this lease gets
    /// [`SamError::Gone`] from then on. So it does once it has lasted [`LEASE_MAX`].
    pub async fn operate(&mut self, operation: SamOperation) -> Result<SamResult, SamError> {
        self.in_use = true;
        let result = self.ask(|reply| Work::Operate { operation, reply }).await;
        let result = result.unwrap_or(Err(SamError::Gone));
        // After a plaintext or an error the module has forgotten the card by itself; an operation
        // out of turn changed nothing.
        let forgotten = !matches!(
            result,
            Ok(SamResult::Challenge(_) | SamResult::Proof(_)) | Err(SamError::NotReady)
        );
        self.in_use = self.remote || !forgotten;
        result
    }

    /// Asks the module's task; nothing if it is gone.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work) -> Option<T> {
        ask(&self.requests, self.place.place.generation, work).await
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
                let work = |reply| Work::Release { reply };
                let _released = ask(&requests, place.place.generation, work).await;
                drop(place);
            });
        }
    }
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    generation: u64,
    work: impl FnOnce(oneshot::Sender<T>) -> Work,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    requests.send(Request { generation, work: work(reply) }).await.ok()?;
    answer.await.ok()
}
