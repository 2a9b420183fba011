//! Which numbered records have been seen: a sliding window (RFC 6479's shape).

/// How far behind the newest record another may still arrive.
pub const REPLAY_WINDOW: u64 = 1024;
const WORDS: usize = (REPLAY_WINDOW / 64) as usize;

/// A bit per number of the last [`REPLAY_WINDOW`].
#[derive(Debug, Default)]
pub(crate) struct ReplayWindow {
    /// One more than the newest number seen.
    next: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    const fn slot(number: u64) -> (usize, u64) {
        let at = number % REPLAY_WINDOW;
        ((at / 64) as usize, 1 << (at % 64))
    }

    /// Whether a record with this number would be new.
    pub(crate) const fn is_fresh(&self, number: u64) -> bool {
        if number >= self.next {
            return true;
        }
        let (word, bit) = Self::slot(number);
        self.next - number <= REPLAY_WINDOW && self.seen[word] & bit == 0
    }

    /// Marks a number whose record was authentic. Only then: a forged number must not move the
    /// window.
    pub(crate) fn mark(&mut self, number: u64) {
        if number >= self.next {
            if number - self.next >= REPLAY_WINDOW {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.next..=number {
                    let (word, bit) = Self::slot(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.next = number + 1;
        }
        let (word, bit) = Self::slot(number);
        self.seen[word] |= bit;
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the obvious model: a set of all numbers seen.
        #[test]
        fn the_window_is_a_set_with_an_end(
            steps in proptest::collection::vec((0_u64..5000, any::<bool>()), 1..400),
        ) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            for (number, mark) in steps {
                let newest = seen.last().copied();
                let behind = newest.is_some_and(|newest: u64| newest >= number + REPLAY_WINDOW);
                let fresh = !seen.contains(&number) && !behind;
                prop_assert_eq!(window.is_fresh(number), fresh, "{}", number);
                if mark && fresh {
                    window.mark(number);
                    seen.insert(number);
                }
            }
        }
    }

    #[test]
    fn the_last_number_of_all_is_marked_too() {
        let mut window = ReplayWindow::default();
        window.mark(u64::MAX - 1);
        assert!(!window.is_fresh(u64::MAX - 1));
        assert!(window.is_fresh(u64::MAX - 2));
        assert!(!window.is_fresh(0));
    }
}
