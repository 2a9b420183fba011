use thiserror::Error;

/// Why a cryptographic operation failed.
///
/// Secret-dependent failures carry no detail: which of several checks failed is not for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CryptoError {
    /// A signature, MAC or authentication tag does not match.
    #[error("authentication failed")]
    BadAuthentication,
    /// A key or share is not one of this suite (length, encoding, not on the curve, low order).
    #[error("malformed or invalid key")]
    InvalidKey,
    /// An input is longer than the algorithm allows.
    #[error("input too long")]
    TooLong,
    /// The secure element or the provider could not do the operation.
    #[error("the secure element or crypto provider failed")]
    Failed,
}
