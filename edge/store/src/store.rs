use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::sync::oneshot;

use crate::faults::{Fault, Faults};
use crate::job::{Job, Mode, SharedInbox, Typed};
use crate::sqlite::Place;
use crate::stats::{Outcome, Stats, Stopwatch, TxStats};
use crate::{Bus, StoreError, Tx, postgres, sqlite};

/// Transactions that may wait per queue; one more is refused with [`StoreError::Busy`].
pub const QUEUE_LEN: usize = 1024;

type Queue = SyncSender<Box<dyn Job>>;

/// The database, whichever it is. A cheap handle: clone it freely; the threads behind it end
/// when the last clone is dropped and the queue is empty.
#[derive(Clone)]
pub struct Store {
    writes: Queue,
    /// The same queue as `writes` where reads have no threads of their own.
    reads: Queue,
    stats: Arc<Stats>,
    bus: Bus,
    faults: Faults,
    backend: &'static str,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens, and creates if absent, the SQLite database at `path` and migrates its schema.
    ///
    /// Several processes may have the same file open. Every commit is on the disk
    /// (`synchronous=FULL`) before it is acknowledged; transactions that wait share one commit.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if the file cannot be opened, [`StoreError::NotOurs`],
    /// [`StoreError::TooNew`], [`StoreError::Corrupt`], [`StoreError::Busy`].
    pub async fn sqlite(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_path_buf();
        let writes = start_writer(Place::File(path.clone())).await?;
        let (reads, inbox) = shared_queue();
        for number in 0..sqlite::READERS {
            let (path, inbox) = (path.clone(), Arc::clone(&inbox));
            start(format!("store-read-{number}"), move |ready| {
                let connection = sqlite::open_reader(&path);
                serve_if_open(connection, ready, |connection| {
                    sqlite::serve_reader(&connection, &inbox);
                });
            })
            .await?;
        }
        Ok(Self {
            writes,
            reads,
            stats: Arc::default(),
            faults: Faults::default(),
            bus: Bus::local(),
            backend: "sqlite",
        })
    }

    /// A new, empty SQLite database in memory, for tests. It is gone with the last clone.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] if no thread or memory is to be had.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let writes = start_writer(Place::Memory).await?;
        let reads = writes.clone();
        let bus = Bus::local();
        Ok(Self {
            writes,
            reads,
            stats: Arc::default(),
            faults: Faults::default(),
            bus,
            backend: "sqlite-memory",
        })
    }

    /// Connects to the PostgreSQL database at `url` (`postgres://user@host:port/database`) and
    /// migrates its schema.
    ///
    /// A few worker threads own one connection each and reconnect when it is lost.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] within 5 s if nobody answers,
    /// [`StoreError::TlsUnsupported`] for `sslmode=require`, [`StoreError::NotOurs`],
    /// [`StoreError::TooNew`].
    pub async fn postgres(url: &str) -> Result<Self, StoreError> {
        let config = postgres::parse(url)?;
        let (writes, inbox) = shared_queue();
        for worker in 0..postgres::WORKERS {
            let (config, inbox) = (config.clone(), Arc::clone(&inbox));
            start(format!("store-pg-{worker}"), move |ready| {
                // The others connect when they are first needed.
                let session = match worker {
                    0 => postgres::Session::connect_and_migrate(&config).map(Some),
                    _ => Ok(None),
                };
                let number = u32::try_from(worker).unwrap_or_default();
                serve_if_open(session, ready, |session| {
                    postgres::serve(&config, session, number, &inbox);
                });
            })
            .await?;
        }
        let reads = writes.clone();
        let bus = Bus::postgres(config);
        Ok(Self {
            writes,
            reads,
            stats: Arc::default(),
            faults: Faults::default(),
            bus,
            backend: "postgresql",
        })
    }

    /// `"sqlite"`, `"sqlite-memory"` or `"postgresql"`.
    #[must_use]
    pub fn backend_name(&self) -> &'static str {
        self.backend
    }

    /// What wakes those who wait for a change, on all servers of this database.
    #[must_use]
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }

    /// For tests: a handle on the same database through which transactions fail when `draw` says
    /// so. It is asked with a transaction's name each time that its closure has succeeded.
    #[must_use]
    pub fn with_faults(
        mut self,
        draw: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        self.faults = Faults::new(draw);
        self
    }

    /// Runs `closure` in a transaction and returns after the commit is durable.
    ///
    /// The closure may run several times (serialisation failures, lost connections), so its
    /// only effects go through the [`Tx`]. Its own `Err` rolls back what it did and nothing
    /// else. It runs on a database thread that others wait for: no I/O, no waiting. If the
    /// returned future is dropped, the transaction still runs.
    ///
    /// # Errors
    /// The closure's own, or one made from a [`StoreError`]: [`StoreError::Busy`] if the queue
    /// is full or retries are used up, [`StoreError::Panicked`] if the closure panicked,
    /// [`StoreError::Uncertain`] if the outcome is unknown.
    pub async fn run_tx<T, E, F>(&self, name: &'static str, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(&self.writes, name, Mode::Serializable, closure).await
    }

    /// Runs `closure` in a read-only transaction on one snapshot; writing is a misuse.
    ///
    /// # Errors
    /// As [`Store::run_tx`], without [`StoreError::Uncertain`].
    pub async fn read<T, E, F>(&self, name: &'static str, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(&self.reads, name, Mode::ReadOnly, closure).await
    }

    /// [`Store::run_tx`] with less isolation and, on PostgreSQL, much less retrying under load:
    /// every statement sees one snapshot, and two transactions that change the *same row*, or
    /// insert rows that break uniqueness, still exclude each other. For hot work that decides
    /// from the rows it changes, such as beginning or ending a read or appending to the audit;
    /// not for work that decides from rows it only looks at, such as counting votes.
    ///
    /// # Errors
    /// As [`Store::run_tx`].
    pub async fn run_snapshot<T, E, F>(&self, name: &'static str, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(&self.writes, name, Mode::Snapshot, closure).await
    }

    /// [`Store::run_tx`] for work that **locks every row it decides from** before it decides, in
    /// the order payments, security devices, accounts, and by id among each: [`Tx::lock_answers`],
    /// [`Tx::lock_payment`], [`Tx::lock_accounts`]. On PostgreSQL it waits for locks instead of
    /// trying again, and each statement sees what was committed before it (READ COMMITTED);
    /// SQLite runs one writing transaction at a time anyway.
    ///
    /// # Errors
    /// As [`Store::run_tx`].
    pub async fn run_locked<T, E, F>(&self, name: &'static str, closure: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.submit(&self.writes, name, Mode::Locked, closure).await
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Busy`] and what else keeps it from answering.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read("ping", |tx| tx.query("SELECT 1", &[]).map(|_| ())).await
    }

    /// Counters by transaction name since this store was opened, for metrics.
    #[must_use]
    pub fn stats(&self) -> BTreeMap<&'static str, TxStats> {
        self.stats.snapshot()
    }

    async fn submit<T, E, F>(
        &self,
        queue: &Queue,
        name: &'static str,
        mode: Mode,
        closure: F,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let (stats, watch) = (Arc::clone(&self.stats), Stopwatch::start());
        let faults = self.faults.clone();
        let job =
            Typed { faults, fault: None, name, mode, closure, result: None, reply, stats, watch };
        let refused = match queue.try_send(Box::new(job)) {
            Ok(()) => None,
            Err(TrySendError::Full(_)) => Some(StoreError::Busy { what: "queue full" }),
            Err(TrySendError::Disconnected(_)) => Some(gone()),
        };
        if let Some(error) = refused {
            self.stats.finish(name, Outcome::Failed, &Stopwatch::start());
            return Err(error.into());
        }
        answer.await.unwrap_or_else(|_| Err(gone().into()))
    }
}

fn gone() -> StoreError {
    StoreError::unreachable("the database thread has ended")
}

type Ready = oneshot::Sender<Result<(), StoreError>>;

/// Starts a thread and waits until it says that it is ready.
async fn start(name: String, body: impl FnOnce(Ready) + Send + 'static) -> Result<(), StoreError> {
    let (ready, started) = oneshot::channel();
    thread::Builder::new()
        .name(name)
        .spawn(move || body(ready))
        .map_err(|error| StoreError::unreachable(format!("no thread: {error}")))?;
    started.await.unwrap_or_else(|_| Err(gone()))
}

fn serve_if_open<C>(opened: Result<C, StoreError>, ready: Ready, serve: impl FnOnce(C)) {
    match opened {
        Ok(connection) => {
            // Nobody waiting means that the store was given up while it opened.
            if ready.send(Ok(())).is_ok() {
                serve(connection);
            }
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

async fn start_writer(place: Place) -> Result<Queue, StoreError> {
    let (writes, inbox) = sync_channel(QUEUE_LEN);
    start("store-write".to_owned(), move |ready| {
        serve_if_open(sqlite::open_writer(&place), ready, |connection| {
            sqlite::serve_writer(&connection, &inbox);
        });
    })
    .await?;
    Ok(writes)
}

/// A queue that several threads serve.
fn shared_queue() -> (Queue, SharedInbox) {
    let (sender, inbox) = sync_channel(QUEUE_LEN);
    (sender, Arc::new(Mutex::new(inbox)))
}
