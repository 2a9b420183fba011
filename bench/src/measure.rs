//! Thread CPU time, medians, and rounds in which the subjects take turns.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::Fallible;

/// Rounds that are run and thrown away: caches and branch predictors settle.
pub(crate) const WARM_UP: usize = 3;

/// The middle of the samples, the mean of the two middle ones if their number is even; NaN of none.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (len, middle) if len % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// In microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Runs `work` and tells the CPU time that this thread spent in it. What other threads and other
/// processes do in the meantime is not in it, their use of the caches apart.
pub(crate) fn cpu_time<T>(work: impl FnOnce() -> T) -> Fallible<(T, Duration)> {
    let started = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    let done = work();
    let ended = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok((done, Duration::from(ended).saturating_sub(Duration::from(started))))
}

/// One subject's work for one round: returns a sample, one figure per lap.
pub(crate) type Work<'a> = Box<dyn FnMut() -> Fallible<Vec<f64>> + 'a>;

/// A subject's place among those that take turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject(usize);

/// Those that take turns.
#[derive(Default)]
pub(crate) struct Subjects<'a>(Vec<Work<'a>>);

impl<'a> Subjects<'a> {
    /// One more, after the others.
    pub(crate) fn add(&mut self, work: impl FnMut() -> Fallible<Vec<f64>> + 'a) -> Subject {
        self.0.push(Box::new(work));
        Subject(self.0.len() - 1)
    }

    /// Lets the subjects take turns for `rounds` rounds, so that what disturbs the machine disturbs
    /// all of them.
    pub(crate) fn run(mut self, rounds: usize) -> Fallible<Samples> {
        let mut samples: Vec<Vec<Vec<f64>>> = self.0.iter().map(|_| Vec::new()).collect();
        for round in 0..WARM_UP + rounds {
            for (work, samples) in self.0.iter_mut().zip(&mut samples) {
                let laps = work()?;
                if round >= WARM_UP {
                    samples.push(laps);
                }
            }
        }
        Ok(Samples(samples))
    }
}

/// What was measured: by subject, then by round, then by lap.
pub(crate) struct Samples(Vec<Vec<Vec<f64>>>);

impl Samples {
    fn median_of(&self, Subject(at): Subject, figure: impl Fn(&[f64]) -> f64) -> f64 {
        let figures: Vec<_> = self.0[at].iter().map(|laps| figure(laps)).collect();
        median(&figures)
    }

    /// The median of all laps together.
    pub(crate) fn whole(&self, subject: Subject) -> f64 {
        self.median_of(subject, |laps| laps.iter().sum())
    }

    /// The median of one lap; NaN if a sample lacks it.
    pub(crate) fn lap(&self, subject: Subject, lap: usize) -> f64 {
        self.median_of(subject, |laps| laps.get(lap).copied().unwrap_or(f64::NAN))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_median_is_the_middle_and_no_outlier_moves_it() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[1.0, 2.0, 1e9]), 2.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn subjects_take_turns_and_the_warm_up_does_not_count() {
        let order = RefCell::new(Vec::new());
        let mut round = 0.0;
        let mut subjects = Subjects::default();
        let a = subjects.add(|| {
            order.borrow_mut().push('a');
            round += 1.0;
            Ok(vec![round, 7.0])
        });
        let b = subjects.add(|| {
            order.borrow_mut().push('b');
            Ok(vec![1.0])
        });
        let samples = subjects.run(3).unwrap();
        // Rounds 4, 5, 6 counted.
        assert_eq!((samples.lap(a, 0), samples.lap(a, 1), samples.whole(a)), (5.0, 7.0, 12.0));
        assert_eq!(samples.whole(b), 1.0);
        assert!(samples.lap(b, 1).is_nan());
        assert_eq!(order.into_inner(), "ab".repeat(6).chars().collect::<Vec<_>>());
    }

    #[test]
    fn a_subject_that_fails_ends_the_run() {
        let mut subjects = Subjects::default();
        subjects.add(|| Err("refused".into()));
        assert!(subjects.run(1).is_err());
    }

    #[test]
    fn cpu_time_counts_work_of_this_thread_only() {
        let (sum, spent) = cpu_time(|| (0..2_000_000_u64).map(std::hint::black_box).sum::<u64>())
            .expect("the thread's clock");
        assert_eq!(sum, 1_999_999_000_000);
        assert!(spent > Duration::ZERO);
        let other = || {
            let thread = std::thread::spawn(|| {
                cpu_time(|| (0..20_000_000_u64).map(std::hint::black_box).sum::<u64>())
            });
            thread.join().unwrap().unwrap().1
        };
        let (theirs, ours) = cpu_time(other).unwrap();
        assert!(ours < theirs, "{ours:?} here, {theirs:?} there");
    }
}
