//! How much of a card was used: stored by its owner before the card is.

use core::time::Duration;

use countersign_crypto::UnixTime;
use serde::{Deserialize, Serialize};

/// How long uses and amounts are summed up; then counting begins anew.
pub const PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

/// Payments, and their sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// How many.
    pub uses: u32,
    /// Their sum, in minor units of the limits' currency.
    pub spent: u64,
}

impl Tally {
    pub(super) const fn plus(self, uses: u32, spent: u64) -> Self {
        Self { uses: self.uses.saturating_add(uses), spent: self.spent.saturating_add(spent) }
    }
}

/// What was used of one card in a [`PERIOD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// When the period began, in milliseconds since the epoch.
    since: u64,
    /// In all sessions.
    pub all: Tally,
    /// In those after an alarm.
    pub alarm: Tally,
}

impl Usage {
    /// As it counts now: nothing, once the period is over. A clock that was set back makes it
    /// longer.
    #[must_use]
    pub fn at(self, now: UnixTime) -> Self {
        if now >= UnixTime::from_millis(self.since).plus(PERIOD) {
            return Self { since: now.as_millis(), ..Self::default() };
        }
        self
    }
}
