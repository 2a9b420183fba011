//! Generators that repeat: a failing test is reproduced by its seed.

pub use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// A ChaCha20 generator that gives the same bytes for the same seed, on every machine.
///
/// It implements `rand_core::CryptoRng`, so `&mut seeded(7)` goes wherever randomness is an
/// argument. Never for anything but tests.
#[must_use]
pub fn seeded(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn same_seed_same_bytes_other_seed_other_bytes() {
        let draw = |seed| {
            let mut bytes = [0; 32];
            seeded(seed).fill_bytes(&mut bytes);
            bytes
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }
}
