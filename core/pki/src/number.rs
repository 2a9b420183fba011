use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::CryptoRng;

use crate::PkiError;

/// Random bytes in a certificate number: 2^-64 would do (CA/B), 16 leaves no room for doubt.
const NUMBER_LEN: usize = 16;

/// A certificate's serial number: the content octets, positive, at most 20 (RFC 5280 §4.1.2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateNumber(Vec<u8>);

impl CertificateNumber {
    /// A fresh random number.
    #[must_use]
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = vec![0; NUMBER_LEN];
        rng.fill_bytes(&mut bytes);
        bytes[0] = bytes[0] & 0x7f | 0x40; // positive, and of fixed length
        Self(bytes)
    }

    /// From content octets.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] unless 1 to 20 octets of a positive number in its shortest form, so
    /// that a number has one representation.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PkiError> {
        let shortest_positive = match bytes {
            [0, second, ..] => *second >= 0x80,
            [first, ..] => (1..0x80).contains(first),
            [] => false,
        };
        if !shortest_positive || bytes.len() > 20 {
            return Err(PkiError::Malformed);
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The content octets.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CertificateNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
