use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Counters of one named transaction since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TxStats {
    /// Times the closure ran.
    pub attempts: u64,
    /// Times it ran again after a serialisation failure or a lost connection.
    pub retries: u64,
    /// Transactions committed.
    pub commits: u64,
    /// Transactions rolled back by their own closure's error.
    pub rollbacks: u64,
    /// Transactions that the database or the queue failed.
    pub failures: u64,
    /// Time from submission to answer, all transactions together.
    pub total: Duration,
}

pub(crate) enum Outcome {
    Committed,
    RolledBack,
    Failed,
}

/// When a transaction was submitted.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a duration for metrics, measured at the edge")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

/// Names are `&'static str`, so the map is bounded by the program text.
#[derive(Debug, Default)]
pub(crate) struct Stats(Mutex<BTreeMap<&'static str, TxStats>>);

impl Stats {
    pub(crate) fn attempt(&self, name: &'static str) {
        self.change(name, |stats| stats.attempts += 1);
    }

    pub(crate) fn retry(&self, name: &'static str) {
        self.change(name, |stats| stats.retries += 1);
    }

    pub(crate) fn finish(&self, name: &'static str, outcome: Outcome, watch: &Stopwatch) {
        let elapsed = watch.0.elapsed();
        self.change(name, |stats| {
            match outcome {
                Outcome::Committed => stats.commits += 1,
                Outcome::RolledBack => stats.rollbacks += 1,
                Outcome::Failed => stats.failures += 1,
            }
            stats.total += elapsed;
        });
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<&'static str, TxStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, name: &'static str, change: impl FnOnce(&mut TxStats)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    }
}
