use core::time::Duration;

use countersign_crypto::UnixTime;
use serde::{Deserialize, Serialize};
use subtle::ConditionallySelectable;
use thiserror::Error;

use super::Verdict;

/// Tries that cost no waiting.
pub const FREE_TRIES: u32 = 3;
/// The first wait; each further wrong password doubles it.
pub const LOCK_FIRST: Duration = Duration::from_secs(30);
/// The longest wait.
pub const LOCK_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// No password is looked at for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("locked for {} seconds after wrong passwords", self.seconds)]
pub struct Locked {
    /// For so long, in seconds, rounded up.
    pub seconds: u32,
}

impl Locked {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        "login-locked"
    }
}

/// Wrong passwords of one sleeve, and the wait that follows them (A4): the first
/// [`FREE_TRIES`] cost none, then [`LOCK_FIRST`], doubled each time up to [`LOCK_MAX`].
///
/// Intent before effect: [`Self::before`] counts the attempt as a wrong one, its outcome is stored,
/// and only then the password is looked at; so whoever cuts the power after a wrong password has
/// gained nothing. [`Self::after`] does the same for either right password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Lockout {
    failures: u32,
    /// Milliseconds since the epoch.
    locked_until: u64,
}

impl Lockout {
    /// Counts an attempt that is about to be made. The owner stores this before the password is
    /// looked at.
    ///
    /// # Errors
    /// [`Locked`]: the password is not to be looked at, and nothing was counted. If the clock was
    /// set back, the wait is [`LOCK_MAX`] from here on.
    pub fn before(&mut self, now: UnixTime) -> Result<(), Locked> {
        // After a clock was set back.
        self.locked_until = self.locked_until.min(now.plus(LOCK_MAX).as_millis());
        if let Some(seconds) = self.waits(now) {
            return Err(Locked { seconds });
        }
        self.failures = self.failures.saturating_add(1);
        self.locked_until = match self.failures.checked_sub(FREE_TRIES) {
            None => 0,
            Some(doublings) => now.plus(wait(doublings)).as_millis(),
        };
        Ok(())
    }

    /// Takes what came of the attempt. The owner stores this, whatever it was, before the answer
    /// leaves. Selected without a branch.
    pub fn after(&mut self, verdict: Verdict) {
        self.failures.conditional_assign(&0, verdict.right);
        self.locked_until.conditional_assign(&0, verdict.right);
    }

    /// For how many seconds, rounded up, nothing is looked at; `None` if an attempt may be made.
    #[must_use]
    pub fn waits(&self, now: UnixTime) -> Option<u32> {
        let until = UnixTime::from_millis(self.locked_until).min(now.plus(LOCK_MAX));
        let left = until.since(now).as_millis().div_ceil(1000);
        u32::try_from(left).ok().filter(|left| *left > 0)
    }

    /// Wrong passwords in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

fn wait(doublings: u32) -> Duration {
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    LOCK_FIRST.saturating_mul(factor).min(LOCK_MAX)
}
