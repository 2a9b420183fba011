//! What distributions are compared by.

/// The value below which `percent` of the samples lie; NaN of none.
pub(super) fn percentile(samples: &[f64], percent: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * percent / 100.0).ceil() as usize;
    sorted.get(at.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn mean_and_variance(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>();
    (mean, squares / (count - 1.0))
}

/// Welch's t of two sets of samples; NaN if one has fewer than two, or nothing varies.
pub(super) fn welch(a: &[f64], b: &[f64]) -> f64 {
    if a.len() < 2 || b.len() < 2 {
        return f64::NAN;
    }
    let ((mean_a, variance_a), (mean_b, variance_b)) = (mean_and_variance(a), mean_and_variance(b));
    let error = variance_a / a.len() as f64 + variance_b / b.len() as f64;
    (mean_a - mean_b) / error.sqrt()
}

/// The largest |t| of all samples and of those below some percentiles of both together, as dudect
/// does: what disturbs the machine lies in the upper tail and hides small differences.
pub(super) fn largest_t(a: &[f64], b: &[f64]) -> f64 {
    let both = [a, b].concat();
    let below = |samples: &[f64], bound: f64| -> Vec<f64> {
        samples.iter().copied().filter(|sample| *sample <= bound).collect()
    };
    let of = |percent| {
        let bound = percentile(&both, percent);
        welch(&below(a, bound), &below(b, bound)).abs()
    };
    [100.0, 90.0, 50.0].map(of).into_iter().fold(f64::NAN, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let of = |percent| percentile(&samples, percent);
        assert_eq!((of(50.0), of(99.0), of(100.0)), (50.0, 99.0, 100.0));
        assert_eq!(percentile(&[7.0], 99.0), 7.0);
        assert!(percentile(&[], 50.0).is_nan());
    }

    /// Against figures computed by hand from Welch's formula.
    #[test]
    fn t_is_welchs() {
        let t = welch(&[1.0, 2.0, 3.0, 4.0, 5.0], &[2.0, 4.0, 6.0, 8.0, 10.0]);
        // means 3 and 6, variances 2.5 and 10: -3 / sqrt(0.5 + 2)
        assert!((t + 3.0 / 2.5_f64.sqrt()).abs() < 1e-12, "{t}");
        assert!(welch(&[1.0], &[1.0, 2.0]).is_nan());
    }

    /// A difference in the body shows, whatever the tail does; none shows where there is none.
    #[test]
    fn a_small_difference_is_found_under_a_noisy_tail() {
        let noisy = |shift: f64| -> Vec<f64> {
            let body = (0..1000).map(|at| 100.0 + f64::from(at * 37 % 100) / 10.0 + shift);
            body.enumerate().map(|(at, us)| if at % 20 == 7 { us * 40.0 } else { us }).collect()
        };
        assert!(largest_t(&noisy(0.0), &noisy(0.0)) < 0.1);
        assert!(largest_t(&noisy(0.0), &noisy(1.0)) > 4.5);
        assert!(welch(&noisy(0.0), &noisy(1.0)).abs() < 4.5, "all of them alone do not show it");
    }
}
