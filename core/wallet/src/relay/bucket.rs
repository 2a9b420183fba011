//! Token buckets: so much at once, and so much a second in the long run.

use std::time::Duration;

use countersign_crypto::UnixTime;

/// A limit over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much at once.
    pub burst: u32,
    /// How much comes back in [`Self::every`], 1 or more.
    pub amount: u32,
    /// The time for [`Self::amount`]; not zero.
    pub every: Duration,
}

impl Rate {
    /// So much a second, and the same at once.
    #[must_use]
    pub const fn per_second(amount: u32) -> Self {
        Self { burst: amount, amount, every: Duration::from_secs(1) }
    }

    /// So much a minute, and the same at once.
    #[must_use]
    pub const fn per_minute(amount: u32) -> Self {
        Self { burst: amount, amount, every: Duration::from_secs(60) }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.every.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// What is left of a [`Rate`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: Rate,
    /// In `1 / rate.millis()` of a unit, so that nothing is lost by rounding.
    level: u64,
    at: UnixTime,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: UnixTime) -> Self {
        Self { rate, level: u64::from(rate.burst).saturating_mul(rate.millis()), at: now }
    }

    fn fill(&mut self, now: UnixTime) {
        let passed = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let most = u64::from(self.rate.burst).saturating_mul(self.rate.millis());
        let more = passed.saturating_mul(u64::from(self.rate.amount));
        self.level = self.level.saturating_add(more).min(most);
        self.at = self.at.max(now);
    }

    /// How many whole units there are now.
    pub(super) fn available(&mut self, now: UnixTime) -> u32 {
        self.fill(now);
        u32::try_from(self.level / self.rate.millis()).unwrap_or(u32::MAX)
    }

    /// Takes what [`Self::available`] has.
    pub(super) fn take(&mut self, amount: u32) {
        self.level = self.level.saturating_sub(u64::from(amount) * self.rate.millis());
    }

    /// When there will be so many; now, if there are. More than fit never come: then when full.
    pub(super) fn ready_at(&mut self, now: UnixTime, amount: u32) -> UnixTime {
        self.fill(now);
        let wanted = u64::from(amount.min(self.rate.burst)).saturating_mul(self.rate.millis());
        let lacks = wanted.saturating_sub(self.level);
        now.plus(Duration::from_millis(lacks.div_ceil(u64::from(self.rate.amount.max(1)))))
    }

    /// Whether it is full, and so need not be remembered.
    pub(super) fn is_full(&mut self, now: UnixTime) -> bool {
        self.available(now) >= self.rate.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let start = UnixTime::from_secs(1000);
        let mut bucket = Bucket::full(Rate::per_minute(12), start);
        for _ in 0..12 {
            assert!(bucket.available(start) > 0);
            bucket.take(1);
        }
        assert_eq!(bucket.available(start), 0);
        let next = bucket.ready_at(start, 1);
        assert_eq!(next, start.plus(Duration::from_secs(5)));
        assert_eq!(bucket.available(next.minus(Duration::from_millis(1))), 0);
        assert_eq!(bucket.available(next), 1);
        assert!(!bucket.is_full(next));
        assert!(bucket.is_full(start.plus(Duration::from_secs(60))));
        assert_eq!(
            bucket.available(start.plus(Duration::from_secs(9999))),
            12,
            "no more than that"
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_twice() {
        let start = UnixTime::from_secs(1000);
        let mut bucket = Bucket::full(Rate::per_second(10), start);
        bucket.take(10);
        assert_eq!(bucket.available(start.minus(Duration::from_secs(5))), 0);
        assert_eq!(bucket.available(start), 0);
        assert_eq!(bucket.available(start.plus(Duration::from_millis(100))), 1);
    }
}
