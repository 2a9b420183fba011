//! Worlds that once went wrong. They run first, on every database, and stay.

/// A world that went wrong: its seed, how many actions it takes, and what was wrong with it.
pub(crate) struct Reproduction {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) what: &'static str,
}

pub(crate) const REPRODUCTIONS: &[Reproduction] = &[];
