use thiserror::Error;
use tr31::Tr31Error;

use crate::StorageError;

/// Why a vault refused or failed. [`HsmError::check`] gives the stable name. No variant carries a
/// PIN or a key.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HsmError {
    // The caller asked for what cannot be.
    /// A label that [`check_label`](crate::check_label) refuses.
    #[error(
        "a key's label has 1 to 64 characters of A-Z a-z 0-9 . _ - and starts with a letter \
             or digit"
    )]
    LabelFormat,
    /// There is a key under this label.
    #[error("there is already a key with the label {0}")]
    LabelTaken(String),
    /// There is no key under this label.
    #[error("there is no key with the label {0}")]
    LabelUnknown(String),
    /// The vault holds as many keys as it may.
    #[error("the vault is full: it holds 1024 keys")]
    Full,
    /// The key under this label is of another kind.
    #[error("the key {label} is of another kind: {found}")]
    WrongKind {
        /// The label.
        label: String,
        /// What is there.
        found: &'static str,
    },
    /// An RSA size that is not made here.
    #[error("an RSA key has 2048, 3072 or 4096 bits, not {0}")]
    KeySize(u32),
    /// An imported key of no length that its cipher knows.
    #[error("an AES key has 16, 24 or 32 bytes, a TDES key 16 or 24")]
    KeyLength,
    /// An imported key that is not fit to protect key blocks. Once it is held nobody can tell.
    #[error(transparent)]
    KeyUnfit(Tr31Error),
    /// More random bytes than one call gives, or none.
    #[error("one call gives 1 to 1024 random bytes")]
    RandomLength,

    // The operator's configuration, or the token, does not fit.
    /// This program was built without PKCS#11.
    #[error("this program was built without PKCS#11: build it with the feature pkcs11")]
    NotBuilt,
    /// The module does not load or is no PKCS#11 module.
    #[error("the PKCS#11 module is of no use: {0}")]
    Module(String),
    /// No token of this name.
    #[error("no token {0} is present")]
    TokenAbsent(String),
    /// Several tokens of this name.
    #[error("several tokens are {0}: name the serial number")]
    TokenAmbiguous(String),
    /// The token refused the PIN. It is not sent again: tokens count wrong ones.
    #[error("the token refused the PIN")]
    PinWrong,
    /// The PIN is locked after too many wrong ones.
    #[error("the token's PIN is locked")]
    PinLocked,
    /// The token has no user PIN yet, or wants its first PIN changed.
    #[error("the token's user PIN is not set up")]
    PinNotSet,
    /// The token lacks a mechanism.
    #[error("the token does not do {0}")]
    MechanismUnsupported(&'static str),
    /// The token does OAEP, but not with SHA-256. There is no way round: TR-34 asks for it.
    #[error("the token does not decrypt RSA OAEP with SHA-256, which TR-34 asks for")]
    OaepSha256Unsupported,
    /// The token would give the key away, or another program may have put it there.
    #[error("the key {0} is not a sensitive, non-extractable key of the token")]
    KeyExposed(String),
    /// Several keys in the token have this label.
    #[error("several keys in the token have the label {0}")]
    LabelAmbiguous(String),
    /// What the token computes with a key does not fit the key.
    #[error("the key {0} does not compute what it should")]
    KeyInconsistent(String),

    // The environment failed.
    /// What is stored under this label does not open or is no key.
    #[error("the stored key {0} is damaged")]
    Damaged(String),
    /// The storage failed.
    #[error("the storage of keys: {0}")]
    Storage(#[source] StorageError),
    /// All sessions that the token allows are busy.
    #[error("the token has no free session")]
    Busy,
    /// This process is logged in to the token already, so that the token would not look at the PIN.
    #[error("this program has the token in use already")]
    LoggedIn,
    /// The token was taken away, or ended the session, and did not come back.
    #[error("the token is gone: {0}")]
    TokenLost(String),
    /// The token failed otherwise.
    #[error("the token failed: {0}")]
    Token(String),
    /// A certificate that is none.
    #[error("this is no X.509 certificate")]
    Certificate,
    /// Software cryptography failed.
    #[error("the key could not be made")]
    Crypto,
}

impl HsmError {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::LabelFormat => "label-format",
            Self::LabelTaken(_) => "label-taken",
            Self::LabelUnknown(_) => "label-unknown",
            Self::Full => "vault-full",
            Self::WrongKind { .. } => "key-kind",
            Self::KeySize(_) => "key-size",
            Self::KeyLength => "key-length",
            Self::KeyUnfit(error) => error.check(),
            Self::RandomLength => "random-length",
            Self::NotBuilt => "pkcs11-not-built",
            Self::Module(_) => "pkcs11-module",
            Self::TokenAbsent(_) => "token-absent",
            Self::TokenAmbiguous(_) => "token-ambiguous",
            Self::PinWrong => "pin-wrong",
            Self::PinLocked => "pin-locked",
            Self::PinNotSet => "pin-not-set",
            Self::MechanismUnsupported(_) => "mechanism-unsupported",
            Self::OaepSha256Unsupported => "oaep-sha256-unsupported",
            Self::KeyExposed(_) => "key-exposed",
            Self::LabelAmbiguous(_) => "label-ambiguous",
            Self::KeyInconsistent(_) => "key-inconsistent",
            Self::Damaged(_) => "key-damaged",
            Self::Storage(_) => "key-storage",
            Self::Busy | Self::LoggedIn => "token-busy",
            Self::TokenLost(_) => "token-lost",
            Self::Token(_) => "token-failed",
            Self::Certificate => "certificate",
            Self::Crypto => "crypto",
        }
    }

    /// True if trying again later may help: a busy token, a lost one, a failed disk.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(
            self,
            Self::Busy
                | Self::LoggedIn
                | Self::TokenLost(_)
                | Self::TokenAbsent(_)
                | Self::Token(_)
                | Self::Storage(_)
                | Self::Damaged(_)
                | Self::Crypto
        )
    }
}
