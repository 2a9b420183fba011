//! What is remembered of a module: its failures, so that one that flaps is put aside, and what it
//! has done.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// A module that was ready and failed this often within [`FLAP_WINDOW`] is put aside.
pub const FLAPS_MAX: usize = 4;
/// The time in which failures count together.
pub const FLAP_WINDOW: Duration = Duration::from_secs(60);
/// How long a flapping module is put aside the first time; then twice as long, and so on.
pub const QUARANTINE_FIRST: Duration = Duration::from_secs(10);
/// The longest it is put aside.
pub const QUARANTINE_MAX: Duration = Duration::from_secs(600);
/// How long a module is watched after a quarantine: one failure in this time, and it is put aside
/// again, however many reads went well.
pub const PROBATION: Duration = Duration::from_secs(300);
/// Module ids that are counted apart at one port; those of more modules are counted as one.
const IDS_MAX: usize = 8;
/// The id of those.
const OTHER_ID: &str = "other";

/// How a module fails.
#[derive(Default)]
pub(super) struct Flaps {
    failures: VecDeque<Instant>,
    /// The next quarantine, and when the last one ended or will end.
    last: Option<(Duration, Instant)>,
}

impl Flaps {
    /// A module that was ready has failed; how long to put it aside, if so.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Duration> {
        let watched = self.last.filter(|(_, until)| now < *until + PROBATION);
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|at| *at + FLAP_WINDOW <= now) {
            self.failures.pop_front();
        }
        if watched.is_none() && self.failures.len() < FLAPS_MAX {
            return None;
        }
        let quarantine = watched.map_or(QUARANTINE_FIRST, |(next, _)| next);
        self.failures.clear();
        self.last = Some(((quarantine * 2).min(QUARANTINE_MAX), now + quarantine));
        Some(quarantine)
    }
}

/// What a module has done for this server since the server was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SamTally {
    /// Reads it decrypted.
    pub reads: u64,
    /// Operations that failed, by the check's name; those that the card was to blame for too.
    pub failures: BTreeMap<&'static str, u64>,
    /// How often it was lost, at a port of this machine.
    pub lost: u64,
    /// How long it was leased in all.
    pub busy: Duration,
}

/// The tallies of the modules that were at one port.
#[derive(Default)]
pub(super) struct Tallies(Vec<(String, SamTally)>);

impl Tallies {
    /// The tally of a module. A peer that makes up ids makes no more than a bound of them.
    pub(super) fn of(&mut self, sam_id: &str) -> &mut SamTally {
        let found = self.0.iter().position(|(id, _)| id == sam_id);
        let at = found.unwrap_or_else(|| {
            let id = if self.0.len() < IDS_MAX { sam_id } else { OTHER_ID };
            self.0.iter().position(|(known, _)| known == id).unwrap_or_else(|| {
                self.0.push((id.to_owned(), SamTally::default()));
                self.0.len() - 1
            })
        });
        &mut self.0[at].1
    }

    pub(super) fn all(&self) -> &[(String, SamTally)] {
        &self.0
    }

    pub(super) fn reads(&self) -> u64 {
        self.0.iter().map(|(_, tally)| tally.reads).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_flaps_is_put_aside_for_longer_each_time() {
        let mut flaps = Flaps::default();
        let mut now = Instant::now();
        let second = Duration::from_secs(1);
        for _ in 1..FLAPS_MAX {
            assert_eq!(flaps.failed(now), None);
            now += second;
        }
        let mut expected = QUARANTINE_FIRST;
        for _ in 0..10 {
            assert_eq!(flaps.failed(now), Some(expected));
            now += expected + PROBATION - second; // it may have read well all the time
            expected = (expected * 2).min(QUARANTINE_MAX);
        }
        assert_eq!(expected, QUARANTINE_MAX);
        now += 2 * second;
        assert_eq!(flaps.failed(now), None, "it has behaved for long enough");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_far_apart_are_no_flapping() {
        let mut flaps = Flaps::default();
        let mut now = Instant::now();
        for _ in 0..20 {
            assert_eq!(flaps.failed(now), None);
            now += FLAP_WINDOW / (FLAPS_MAX as u32 - 1);
        }
        assert!(flaps.failures.len() < FLAPS_MAX);
    }

    #[test]
    fn made_up_ids_are_counted_as_one() {
        let mut tallies = Tallies::default();
        for number in 0..100 {
            tallies.of(&format!("sam-{number}")).reads += 1;
        }
        assert_eq!((tallies.all().len(), tallies.reads()), (IDS_MAX + 1, 100));
        assert_eq!(tallies.of("sam-99").reads, 100 - IDS_MAX as u64);
        assert_eq!(tallies.of("sam-0").reads, 1);
    }
}
