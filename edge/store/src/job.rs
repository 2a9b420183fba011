//! A transaction on its way through a queue to the thread that runs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::error::Failure;
use crate::faults::Faults;
use crate::stats::{Outcome, Stats, Stopwatch};
use crate::{StoreError, Tx};

/// What a transaction may do and what it must not see of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads and writes, as if transactions ran one after another.
    Serializable,
    /// Reads and writes on one snapshot; uniqueness guards what matters. For the chainer, whose
    /// reading of everything would otherwise make other transactions retry.
    Snapshot,
    /// Reads and writes; each statement sees what was committed before it. For work that locks
    /// every row from which it decides.
    Locked,
    /// Reads one snapshot; writing is refused.
    ReadOnly,
}

/// How one attempt of a closure ended.
pub(crate) enum Attempt {
    /// The closure returned `Ok`: commit.
    Keep,
    /// The closure returned its own error, or a statement failed for good: roll back and deliver.
    Undo,
    /// Roll back; another attempt may succeed.
    Again(Failure),
}

/// A closure with its caller waiting; the types are hidden so that one queue carries them all.
pub(crate) trait Job: Send {
    fn mode(&self) -> Mode;
    /// Runs the closure once.
    fn attempt(&mut self, tx: &mut Tx<'_>) -> Attempt;
    /// Answers the caller: with what the last attempt returned, or with the database's error.
    fn settle(self: Box<Self>, outcome: Result<(), StoreError>);
    /// Counts an attempt after the first.
    fn note_retry(&self);
}

/// The receiving end of a queue that several threads serve: who holds the lock waits for the
/// next job.
pub(crate) type SharedInbox = Arc<Mutex<Receiver<Box<dyn Job>>>>;

/// The one implementation of [`Job`].
pub(crate) struct Typed<T, E, F> {
    pub(crate) faults: Faults,
    /// The error that an injected fault ends this attempt with.
    pub(crate) fault: Option<StoreError>,
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) closure: F,
    pub(crate) result: Option<Result<T, E>>,
    pub(crate) reply: oneshot::Sender<Result<T, E>>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) watch: Stopwatch,
}

impl<T, E, F> Job for Typed<T, E, F>
where
    T: Send,
    E: From<StoreError> + Send,
    F: Fn(&mut Tx<'_>) -> Result<T, E> + Send,
{
    fn mode(&self) -> Mode {
        self.mode
    }

    fn attempt(&mut self, tx: &mut Tx<'_>) -> Attempt {
        self.stats.attempt(self.name);
        // The closure is `Fn` over its own captures and the transaction is rolled back, so
        // nothing half-changed is looked at again.
        let result = match catch_unwind(AssertUnwindSafe(|| (self.closure)(tx))) {
            Ok(result) => result,
            Err(_) => {
                self.result = Some(Err(StoreError::Panicked { name: self.name }.into()));
                return Attempt::Undo;
            }
        };
        self.fault = None;
        let (result, attempt) = match (result, tx.failure()) {
            (Ok(value), None) => match self.faults.draw(self.name) {
                None => (Ok(value), Attempt::Keep),
                Some(fault) => {
                    self.fault = Some(fault.error());
                    let end = if fault.is_stored() { Attempt::Keep } else { Attempt::Undo };
                    (Ok(value), end)
                }
            },
            (Err(error), None) => (Err(error), Attempt::Undo),
            (_, Some(again @ (Failure::Retry | Failure::Lost(_)))) => {
                (Err(again.error().into()), Attempt::Again(again.clone()))
            }
            // The closure may have given the database's error a name of its own.
            (Err(error), Some(Failure::Final(_))) => (Err(error), Attempt::Undo),
            (Ok(_), Some(Failure::Final(error))) => (Err(error.clone().into()), Attempt::Undo),
        };
        self.result = Some(result);
        attempt
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>) {
        let answer = match (self.fault.map_or(outcome, Err), self.result) {
            (Ok(()), Some(result)) => {
                let kind = if result.is_ok() { Outcome::Committed } else { Outcome::RolledBack };
                self.stats.finish(self.name, kind, &self.watch);
                result
            }
            (Err(error), _) => {
                self.stats.finish(self.name, Outcome::Failed, &self.watch);
                Err(error.into())
            }
            (Ok(()), None) => Err(StoreError::misuse("settled before it ran").into()),
        };
        // A caller that went away no longer wants the answer; what was committed stays.
        let _ = self.reply.send(answer);
    }

    fn note_retry(&self) {
        self.stats.retry(self.name);
    }
}
