//! The terminal's end, whoever wants it: a signal stops it, so that the payment is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;

/// Whether the terminal is to stop. All that it waits for looks here.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Has it stop.
    pub(super) fn stop(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Refused once it is to stop.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.is_set() { Err(interrupted()) } else { Ok(()) }
    }

    /// A moment's wait.
    pub(super) fn pause(&self, time: Duration) -> Result<(), Failure> {
        self.check()?;
        thread::sleep(time);
        self.check()
    }
}

/// What is told when it was stopped.
pub(super) fn interrupted() -> Failure {
    Failure::check("interrupted", "the terminal was stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stopped_waits_no_more() {
        let stop = Stop::default();
        assert!(stop.pause(Duration::ZERO).is_ok());
        stop.clone().stop();
        // It would not return in time.
        let refused = stop.pause(Duration::MAX).unwrap_err();
        assert_eq!((refused.check.as_str(), refused.blame.exit_code()), ("interrupted", 1));
    }
}
