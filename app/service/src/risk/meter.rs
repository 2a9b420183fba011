//! How fast a reader begins reads, and from where: what is decided without any rule, and what a
//! throttle adds.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{CLOCKS_DIFFER, ReaderMeter, Throttle};

/// Reads that one reader may begin in any minute, whatever the rules say, unless another number is
/// set: far more than a reader with cards and people before it can do.
pub const READS_PER_MINUTE: u32 = 6000;
/// The highest number that may be set: the bucket's steps are milliseconds.
pub const READS_PER_MINUTE_MAX: u32 = 120_000;
/// The bucket's size in time: half of a minute's reads at once, the other half as it empties.
const BUCKET: Duration = Duration::from_secs(60);
/// A reader that is back at the address before its last within this is not one reader that moved.
pub const ALTERNATING_WITHIN: Duration = Duration::from_secs(60);

/// A read that may begin.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// The meter after it.
    pub(crate) meter: ReaderMeter,
    /// The reader went back and forth between two addresses.
    pub(crate) alternates: bool,
}

/// A read that may not begin yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooSoon {
    /// The rule that throttles it; `None` for the bound that needs no rule.
    pub(crate) rule: Option<String>,
    /// When it may.
    pub(crate) wait: Duration,
}

/// Time since `then`. A `then` that is to come is another server's clock, or ours before it was
/// set back: as if it were now up to `tolerance`, and long ago beyond, so that nothing waits for a
/// clock to catch up.
fn elapsed(then: UnixTime, now: UnixTime, tolerance: Duration) -> Duration {
    if then.since(now) > tolerance { Duration::MAX } else { now.since(then) }
}

/// The later of two servers' clocks, so that asking them in turn wins no time; ours if the other
/// was further ahead than any may be.
fn latest(before: &ReaderMeter, now: UnixTime) -> UnixTime {
    if before.begun_at.since(now) > CLOCKS_DIFFER { now } else { now.max(before.begun_at) }
}

/// Measures a read that begins `now` from `peer`.
pub(crate) fn begin(
    before: Option<&ReaderMeter>,
    throttles: &[Throttle],
    peer: &str,
    reads_per_minute: u32,
    now: UnixTime,
) -> Result<Begun, TooSoon> {
    let step = BUCKET * 2 / reads_per_minute.max(1);
    let here = now;
    let now = before.map_or(here, |before| latest(before, here));
    let ahead = now.since(here);
    let fresh = ReaderMeter {
        begun_at: now,
        empty_at: now.plus(step),
        peer: peer.to_owned(),
        peer_before: String::new(),
        peer_before_at: UnixTime::default(),
    };
    let Some(before) = before else { return Ok(Begun { meter: fresh, alternates: false }) };
    for throttle in throttles.iter().filter(|throttle| throttle.stands(here)) {
        let elapsed = elapsed(before.begun_at, now, CLOCKS_DIFFER);
        if elapsed < throttle.pause {
            let (rule, wait) = (Some(throttle.rule.clone()), throttle.pause - elapsed + ahead);
            return Err(TooSoon { rule, wait });
        }
    }
    let full = now.plus(BUCKET);
    // No bucket is fuller than full: that one was filled by a clock that was wrong.
    let empty_at = if before.empty_at > full { now } else { before.empty_at.max(now) }.plus(step);
    if empty_at > full {
        return Err(TooSoon { rule: None, wait: empty_at.since(full) + ahead });
    }
    let mut meter = ReaderMeter { empty_at, ..fresh };
    let mut alternates = false;
    if peer == before.peer {
        (meter.peer_before, meter.peer_before_at) =
            (before.peer_before.clone(), before.peer_before_at);
    } else {
        let recent = |then| elapsed(then, now, ALTERNATING_WITHIN) < ALTERNATING_WITHIN;
        alternates =
            peer == before.peer_before && recent(before.peer_before_at) && recent(before.begun_at);
        (meter.peer_before, meter.peer_before_at) = (before.peer.clone(), before.begun_at);
    }
    Ok(Begun { meter, alternates })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_secs(1_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    fn next(before: &ReaderMeter, peer: &str, per_minute: u32, now: UnixTime) -> Option<Begun> {
        begin(Some(before), &[], peer, per_minute, now).ok()
    }

    fn first(now: UnixTime) -> ReaderMeter {
        begin(None, &[], "a", 60, now).unwrap().meter
    }

    /// Begins as often as it can for so long, in steps; how often it could in each minute.
    fn flood(per_minute: u32, step: Duration, steps: u32) -> Vec<UnixTime> {
        let (mut meter, mut times, mut now) = (None, Vec::new(), NOW);
        for _ in 0..steps {
            if let Ok(begun) = begin(meter.as_ref(), &[], "a", per_minute, now) {
                meter = Some(begun.meter);
                times.push(now);
            } else {
                now = now.plus(step);
            }
        }
        times
    }

    #[test]
    fn no_minute_has_more_reads_than_the_bound_and_a_steady_flood_gets_half() {
        for per_minute in [60, READS_PER_MINUTE, READS_PER_MINUTE_MAX] {
            let times = flood(per_minute, Duration::from_millis(7), 400_000);
            let allowed = per_minute as usize;
            for window in times.windows(allowed + 1) {
                let took = window[allowed].since(window[0]);
                assert!(took >= BUCKET, "more than {allowed} within {took:?}");
            }
            assert!(times.len() > allowed, "the test has looked at something");
            let at_once = times.iter().take_while(|at| **at == NOW).count();
            assert_eq!(at_once, allowed / 2, "a burst is let through");
            assert!(times.len() > at_once, "and then it goes on");
        }
    }

    #[test]
    fn the_wait_that_is_told_is_enough() {
        let mut meter = first(NOW);
        let wait = loop {
            match begin(Some(&meter), &[], "a", 60, NOW) {
                Ok(begun) => meter = begun.meter,
                Err(soon) => break soon.wait,
            }
        };
        let just = NOW.plus(wait).minus(Duration::from_millis(1));
        assert!(next(&meter, "a", 60, just).is_none());
        assert!(next(&meter, "a", 60, NOW.plus(wait)).is_some());
    }

    #[test]
    fn a_clock_set_back_or_forward_neither_locks_out_nor_lets_all_through() {
        let mut meter = first(NOW);
        while let Some(begun) = next(&meter, "a", 60, NOW) {
            meter = begun.meter;
        }
        // Set back by a day: a new bucket, which is a bound again.
        let back = NOW.minus(SECOND * 86_400);
        let mut allowed = 0;
        while let Some(begun) = next(&meter, "a", 60, back) {
            (meter, allowed) = (begun.meter, allowed + 1);
        }
        assert_eq!(allowed, 30);
        // Set forward: empty, and full again after as many.
        let forward = NOW.plus(SECOND * 86_400);
        allowed = 0;
        while let Some(begun) = next(&meter, "a", 60, forward) {
            (meter, allowed) = (begun.meter, allowed + 1);
        }
        assert_eq!(allowed, 30);
    }

    /// Reads let through at two servers, asked in turn for so long; the second's clock is ahead.
    fn at_two_servers(ahead: Duration, seconds: u32) -> u32 {
        let (mut meter, mut allowed) = (None, 0);
        for tick in 0..seconds * 100 {
            let now = NOW.plus(Duration::from_millis(10) * tick);
            for clock in [now, now.plus(ahead)] {
                while let Ok(begun) = begin(meter.as_ref(), &[], "a", 6000, clock) {
                    (meter, allowed) = (Some(begun.meter), allowed + 1);
                }
            }
        }
        allowed
    }

    #[test]
    fn two_servers_with_clocks_apart_let_no_more_through() {
        for ahead in [Duration::from_millis(30), SECOND * 2, SECOND * 59, CLOCKS_DIFFER] {
            let allowed = at_two_servers(ahead, 10);
            // Half a minute's at once, what flows off in ten seconds, and the second's lead.
            let lead = ahead.min(BUCKET).as_secs() as u32;
            let bound = 3000 + 50 * (10 + lead + 1);
            assert!((3000..=bound).contains(&allowed), "{allowed} with {ahead:?}");
        }
    }

    #[test]
    fn time_that_is_to_come_counts_as_now_for_a_while_only() {
        let then = NOW.plus(SECOND * 5);
        assert_eq!(elapsed(then, NOW, SECOND * 5), Duration::ZERO);
        assert_eq!(elapsed(then, NOW, SECOND * 4), Duration::MAX);
        assert_eq!(elapsed(NOW, then, SECOND), SECOND * 5);
    }

    #[test]
    fn going_back_and_forth_is_a_sign_and_moving_is_none() {
        let mut now = NOW;
        let mut meter = first(now);
        let mut go = |peer: &str, after: Duration| {
            now = now.plus(after);
            let begun = next(&meter, peer, 6000, now).unwrap();
            meter = begun.meter;
            begun.alternates
        };
        assert!(!go("a", SECOND));
        assert!(!go("b", SECOND), "moved");
        assert!(!go("b", SECOND));
        assert!(go("a", SECOND), "and back");
        assert!(go("b", SECOND));
        assert!(!go("c", SECOND), "a third address");
        assert!(!go("a", SECOND), "not the one before");
        assert!(!go("c", ALTERNATING_WITHIN), "too long ago");
    }
}
