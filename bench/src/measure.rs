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

/// Lets the subjects take turns for `rounds` rounds, so that what disturbs the machine disturbs all
/// of them; returns the median of each lap of each subject.
pub(crate) fn interleaved(rounds: usize, subjects: &mut [Work<'_>]) -> Fallible<Vec<Vec<f64>>> {
    let mut samples: Vec<Vec<Vec<f64>>> = subjects.iter().map(|_| Vec::new()).collect();
    for round in 0..WARM_UP + rounds {
        for (subject, samples) in subjects.iter_mut().zip(&mut samples) {
            let laps = subject()?;
            if round >= WARM_UP {
                samples.resize(laps.len(), Vec::new());
                samples.iter_mut().zip(laps).for_each(|(samples, lap)| samples.push(lap));
            }
        }
    }
    Ok(samples.iter().map(|laps| laps.iter().map(|lap| median(lap)).collect()).collect())
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
        let mut subjects: Vec<Work<'_>> = vec![
            Box::new(|| {
                order.borrow_mut().push('a');
                round += 1.0;
                Ok(vec![round, 7.0])
            }),
            Box::new(|| {
                order.borrow_mut().push('b');
                Ok(vec![1.0])
            }),
        ];
        let medians = interleaved(3, &mut subjects).unwrap();
        drop(subjects);
        // Rounds 4, 5, 6 counted.
        assert_eq!(medians, [vec![5.0, 7.0], vec![1.0]]);
        assert_eq!(order.into_inner(), "ab".repeat(6).chars().collect::<Vec<_>>());
    }

    #[test]
    fn a_subject_that_fails_ends_the_run() {
        let mut subjects: Vec<Work<'_>> = vec![Box::new(|| Err("refused".into()))];
        assert!(interleaved(1, &mut subjects).is_err());
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
