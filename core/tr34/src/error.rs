use thiserror::Error;
use tr31::Tr31Error;

use crate::dialect::Switch;
use crate::{CertificateError, CrlError, DerError, RsaError};

/// What is wrong with a signed attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttributeFault {
    /// It is not there.
    Missing,
    /// It is there twice.
    Repeated,
    /// It has none or several values.
    Values,
    /// It does not belong into this kind of token.
    Unexpected,
}

impl AttributeFault {
    pub(crate) const fn of(self, name: &'static str) -> Error {
        Error::Attribute { fault: self, name }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Missing => "is missing",
            Self::Repeated => "is there twice",
            Self::Values => "has not exactly one value",
            Self::Unexpected => "does not belong there",
        }
    }
}

/// Why a token was refused or could not be made. [`Error::check`] gives the stable name;
/// [`Error::outside`] what a peer may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    // The peer: structure.
    /// Longer than [`TOKEN_MAX`](crate::token::TOKEN_MAX).
    #[error("the token is too long")]
    TooLong,
    /// Not DER, or not the structure of this token.
    #[error("the token is not what the standard describes")]
    Malformed,
    /// Nested deeper than [`DEPTH_MAX`](crate::reader::DEPTH_MAX).
    #[error("the token is nested too deeply")]
    TooDeep,
    /// Bytes follow the token, or a structure in it.
    #[error("bytes follow the token or a structure in it")]
    Trailing,
    /// More elements of a kind than are looked at.
    #[error("the token has too many elements of a kind")]
    TooMany,
    /// Not the content type of this kind of token.
    #[error("the content is of another type than this token's")]
    ContentType,
    /// Signers: none, several, or one where there is none.
    #[error("the token does not have the number of signers of its kind")]
    SignerCount,
    /// Certificates: none, several, or one where there is none.
    #[error("the token does not have the number of certificates of its kind")]
    CertificateCount,
    /// Revocation lists: several, or one where there is none.
    #[error("the token does not have the number of revocation lists of its kind")]
    CrlCount,
    /// The token has no revocation list.
    #[error("the token has no revocation list")]
    CrlAbsent,
    /// An algorithm or parameter that is not allowed.
    #[error("the token uses an algorithm that is not allowed")]
    Algorithm,
    /// A signed attribute is not as it should be.
    #[error("the signed attribute {name} {}", fault.words())]
    Attribute {
        /// What is wrong.
        fault: AttributeFault,
        /// The attribute.
        name: &'static str,
    },
    /// The token is in another dialect than its reader was told.
    #[error("the token is in another dialect: {0}")]
    Dialect(Switch),
    /// The token has one pass where only two are accepted.
    #[error("a token of one pass is not accepted here")]
    OnePass,

    // The peer: trust.
    /// The certificate in the token, or the one it is checked against.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The revocation list in the token.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// The signer is not the one that is bound.
    #[error("the token was not signed by the KDH that is bound")]
    Signer,
    /// The signer is not the pinned certification authority.
    #[error("the token was not signed by the certification authority")]
    SignerNotCa,
    /// contentType is not the content's type.
    #[error("the signed content type is not the content's")]
    ContentTypeAttribute,
    /// messageDigest is not the content's digest.
    #[error("the signed digest is not the content's")]
    Digest,
    /// The signature does not verify.
    #[error("the token's signature does not verify")]
    Signature,
    /// No request is outstanding.
    #[error("no request is outstanding")]
    NonceAbsent,
    /// The request has expired.
    #[error("the request has expired")]
    NonceExpired,
    /// Another random number than the request's.
    #[error("the token answers another request")]
    NonceMismatch,
    /// Not later than the last one that was accepted.
    #[error("the signing time is not later than the last one")]
    SigningTimeOld,
    /// Later than now.
    #[error("the signing time lies in the future")]
    SigningTimeFuture,
    /// The token is for another receiver.
    #[error("the token is for another receiver")]
    Recipient,
    /// RSA, cipher, padding or the inside of the envelope. Says no more, on purpose.
    #[error("the envelope does not open")]
    Decryption,
    /// The key block names another sender than the signer.
    #[error("the key block names another sender than the token's signer")]
    KeyBlockIdentity,
    /// The header inside the envelope is not the signed one.
    #[error("the header in the envelope is not the signed one")]
    KeyBlockHeader,
    /// The header or the key breaks a rule of the key block policy.
    #[error(transparent)]
    Policy(#[from] Tr31Error),
    /// A rebind token names another KDH as the old one.
    #[error("the token rebinds from another KDH than the one that is bound")]
    RebindFrom,
    /// The new KDH is the old one.
    #[error("the token rebinds to the KDH that is bound already")]
    RebindSame,
    /// UBT_CA proves no freshness; the policy does not allow it.
    #[error("unbinding by the certification authority is not allowed here")]
    CaUnbind,
    /// A KDH is bound already: unbind or rebind.
    #[error("a KDH is bound already")]
    AlreadyBound,
    /// No KDH is bound.
    #[error("no KDH is bound")]
    NotBound,

    // The caller and the environment.
    /// A stored state that is not one.
    #[error("the stored state is not one")]
    State,
    /// A time that no certificate or attribute can hold.
    #[error("the time is out of range")]
    Time,
    /// The private key is not the certificate's.
    #[error("the private key is not the certificate's")]
    KeyMismatch,
    /// The private key's holder failed.
    #[error("the private key could not be used")]
    Key,
    /// The provider of ciphers failed.
    #[error("the cipher could not be run")]
    Cipher,
}

impl Error {
    /// Stable name of the failed check, as the audit log and local tools give it.
    #[must_use]
    pub fn check(&self) -> &'static str {
        match self {
            Self::TooLong => "token-too-long",
            Self::Malformed => "token-malformed",
            Self::TooDeep => "token-depth",
            Self::Trailing => "token-trailing",
            Self::TooMany => "token-too-many",
            Self::ContentType => "token-content-type",
            Self::SignerCount => "token-signers",
            Self::CertificateCount => "token-certificates",
            Self::CrlCount => "token-crls",
            Self::CrlAbsent => "crl-absent",
            Self::Algorithm => "token-algorithm",
            Self::Attribute { fault, .. } => match fault {
                AttributeFault::Missing => "attribute-missing",
                AttributeFault::Repeated => "attribute-repeated",
                AttributeFault::Values => "attribute-values",
                AttributeFault::Unexpected => "attribute-unexpected",
            },
            Self::Dialect(switch) => switch.check(),
            Self::OnePass => "token-one-pass",
            Self::Certificate(error) => error.check(),
            Self::Crl(error) => error.check(),
            Self::Signer => "token-signer",
            Self::SignerNotCa => "token-signer-ca",
            Self::ContentTypeAttribute => "attribute-content-type",
            Self::Digest => "token-digest",
            Self::Signature => "token-signature",
            Self::NonceAbsent => "nonce-absent",
            Self::NonceExpired => "nonce-expired",
            Self::NonceMismatch => "nonce-mismatch",
            Self::SigningTimeOld => "signing-time-old",
            Self::SigningTimeFuture => "signing-time-future",
            Self::Recipient => "token-recipient",
            Self::Decryption => "token-decryption",
            Self::KeyBlockIdentity => "key-block-identity",
            Self::KeyBlockHeader => "key-block-header",
            Self::Policy(error) => error.check(),
            Self::RebindFrom => "rebind-from",
            Self::RebindSame => "rebind-same",
            Self::CaUnbind => "unbind-by-ca",
            Self::AlreadyBound => "already-bound",
            Self::NotBound => "not-bound",
            Self::State => "state-malformed",
            Self::Time => "time-range",
            Self::KeyMismatch => "key-mismatch",
            Self::Key => "key-failed",
            Self::Cipher => "cipher-failed",
        }
    }

    /// What a peer may be told: that the token was refused, and nothing about why. A decryption
    /// oracle has no use for it.
    #[must_use]
    pub const fn outside(&self) -> TokenRefused {
        TokenRefused
    }

    /// True if this is the caller's or the environment's failure, not the token's.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        matches!(self, Self::State | Self::Time | Self::KeyMismatch | Self::Key | Self::Cipher)
    }
}

impl From<DerError> for Error {
    fn from(error: DerError) -> Self {
        match error {
            DerError::Trailing => Self::Trailing,
            DerError::TooDeep => Self::TooDeep,
            _ => Self::Malformed,
        }
    }
}

impl From<RsaError> for Error {
    fn from(error: RsaError) -> Self {
        match error {
            RsaError::BadSignature => Self::Signature,
            RsaError::BadCiphertext => Self::Decryption,
            RsaError::InvalidKey => Self::Algorithm,
            _ => Self::Key,
        }
    }
}

/// The one error that goes outside, whatever the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the token was refused")]
pub struct TokenRefused;

impl TokenRefused {
    /// The one name of all checks that depend on a secret.
    #[must_use]
    pub const fn check(self) -> &'static str {
        "authentication"
    }
}
