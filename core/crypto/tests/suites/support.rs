//! What the test programs of this crate share.

use std::collections::VecDeque;
use std::convert::Infallible;

use countersign_crypto::{Provider, rust_crypto, sm};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{SeedableRng, TryCryptoRng, TryRng};

/// Every provider of every suite.
pub(crate) fn providers() -> Vec<Provider> {
    vec![
        rust_crypto::provider(),
        #[cfg(feature = "aws-lc")]
        countersign_crypto::aws_lc::provider(),
        sm::provider(),
    ]
}

/// Hexadecimal, with blanks wherever they help the eye.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

/// A generator that repeats.
pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

/// A generator that gives what a standard's example says, and no more.
pub(crate) struct Example(VecDeque<u8>);

impl Example {
    /// Gives these bytes.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().collect())
    }
}

impl TryRng for Example {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.0.pop_front().expect("the example has no more randomness");
        }
        Ok(())
    }
}

impl TryCryptoRng for Example {}
