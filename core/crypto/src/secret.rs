use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Secret bytes: wiped on drop, not `Clone`, compared in constant time, and silent in `Debug`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Takes the bytes over. The vector must be at its final size: growing would leave copies.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// A secret of `len` bytes filled by `fill`.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn try_filled<E>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut secret = Self(alloc::vec![0; len]);
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A copy of `bytes`; the caller still wipes the original.
    #[must_use]
    pub fn copied_from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes. Named so that each use shows in review.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes; lengths are not secret.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for the empty secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Constant-time comparison (for equal lengths).
    #[must_use]
    pub fn ct_eq(&self, other: &[u8]) -> bool {
        self.0.as_slice().ct_eq(other).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
