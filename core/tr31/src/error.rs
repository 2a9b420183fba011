use thiserror::Error;

use crate::{CipherError, OptionalId};

/// What is wrong with a key that has to be fit for use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// Not a length that its algorithm has.
    #[error("its length does not fit its algorithm")]
    Length,
    /// Single DES.
    #[error("it is a single-length DES key")]
    SingleDes,
    /// A byte without odd parity.
    #[error("it is a DES key without odd parity")]
    Parity,
    /// A weak or semi-weak DES key.
    #[error("it contains a weak or semi-weak DES key")]
    Weak,
    /// Two neighbouring parts are equal, so that TDES is single DES.
    #[error("it is a TDES key with equal halves")]
    EqualHalves,
}

/// Why a key block, a key or a request was refused. [`Tr31Error::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Tr31Error {
    /// A byte outside printable ASCII.
    #[error("the key block has a character that is not printable ASCII")]
    Character,
    /// Version other than A to E.
    #[error("the key block's version is not A, B, C, D or E")]
    Version,
    /// The length field is no number, or not the length of what is there.
    #[error("the key block's length is not what its length field says, or too small for its parts")]
    BlockLength,
    /// Longer than four digits can say, or than a bound here.
    #[error("the key block would be too long")]
    TooLong,
    /// Payload or MAC are not hex digits.
    #[error("the payload or the MAC is not in hex digits")]
    Hex,
    /// Key usage reserved, proprietary or malformed.
    #[error("the key usage is not one that X9.143 defines")]
    Usage,
    /// Algorithm reserved, proprietary or malformed.
    #[error("the algorithm is not one that X9.143 defines")]
    Algorithm,
    /// Mode of use reserved, proprietary or malformed.
    #[error("the mode of use is not one that X9.143 defines")]
    Mode,
    /// Key version number malformed.
    #[error("the key version number is malformed")]
    KeyVersion,
    /// Exportability reserved or malformed.
    #[error("the exportability is not E, N or S")]
    Exportability,
    /// Key context reserved or malformed.
    #[error("the key context is not 0, 1 or 2")]
    KeyContext,
    /// The reserved field is not "0".
    #[error("the header's reserved field is not 0")]
    Reserved,
    /// The number of optional blocks is no number.
    #[error("the number of optional blocks is malformed")]
    OptionalCount,
    /// An optional block's length is malformed or reaches beyond the key block.
    #[error("the length of optional block {0} is malformed or too large")]
    OptionalLength(OptionalId),
    /// An extended length in a form other than "02" and four hex digits.
    #[error("the extended length of optional block {0} is not in the form 02 and four hex digits")]
    ExtendedLength(OptionalId),
    /// An optional block that X9.143 does not define.
    #[error("optional block {0} is not one that X9.143 defines")]
    UnknownOptional(OptionalId),
    /// Two optional blocks with one identifier.
    #[error("optional block {0} is there twice")]
    DuplicateOptional(OptionalId),
    /// The value of an optional block is not in its format.
    #[error("the value of optional block {0} is not in the format that X9.143 gives it")]
    OptionalFormat(OptionalId),
    /// An optional block that does not go with the key's algorithm.
    #[error("optional block {0} does not go with the key's algorithm")]
    OptionalMisplaced(OptionalId),
    /// The optional blocks are not filled up to whole cipher blocks, or PB is not the last one.
    #[error("the optional blocks are not padded to whole cipher blocks by a last block PB")]
    OptionalPadding,
    /// Usage and algorithm that do not go together.
    #[error("the key usage does not go with the algorithm")]
    UsageAlgorithm,
    /// Usage and mode that do not go together.
    #[error("the key usage does not go with the mode of use")]
    UsageMode,
    /// Wrapped key given in a length that is no key's, or payload that is not.
    #[error("the payload's length is not one of its version")]
    PayloadLength,
    /// The block protection key has a length that its version's cipher does not have.
    #[error("the key block protection key's length is not one of this version")]
    KbpkLength,
    /// A held key cannot serve versions A and C.
    #[error("versions A and C need the key block protection key in the clear")]
    KbpkHeld,
    /// The held key is another cipher's.
    #[error("the key block protection key is for another cipher than this version's")]
    KbpkCipher,
    /// The MAC does not verify: wrong key, or an altered block.
    #[error("the key block does not authenticate: wrong key, or an altered block")]
    Mac,
    /// The key length inside the payload is impossible.
    #[error("the key length inside the payload is impossible")]
    EncodedKeyLength,
    /// The payload is not padded to its algorithm's longest key.
    #[error("the payload gives away the length of the key")]
    LengthObfuscation,
    /// The wrapped key is unfit.
    #[error("the wrapped key is unfit: {0}")]
    Key(KeyFault),
    /// The block protection key is unfit.
    #[error("the key block protection key is unfit: {0}")]
    Kbpk(KeyFault),
    /// A component where a whole key belongs.
    #[error("the key is a component of one")]
    Component,
    /// The wrapping key is weaker than the wrapped.
    #[error("the wrapping key is weaker than the wrapped")]
    WeakerWrappingKey,
    /// The check value of the wrapped key in block KC is another key's.
    #[error("the check value in block KC is not the wrapped key's")]
    Kcv,
    /// The check value in block KP is another key's.
    #[error("the check value in block KP is not the key block protection key's")]
    KbpkKcv,
    /// A check value was asked for by a method that the key's algorithm does not have.
    #[error("there is no such check value for this key")]
    KcvMethod,
    /// Padding handed in does not fill up whole cipher blocks.
    #[error("the padding does not fill up whole cipher blocks")]
    Padding,
    /// A key serial number or identifier is malformed.
    #[error("the key serial number is malformed")]
    Ksn,
    /// A transaction counter that DUKPT does not use.
    #[error("the transaction counter is zero or has too many bits set")]
    KsnCounter,
    /// The range of device identifiers has been given out.
    #[error("no device identifier is left in this range")]
    KsnExhausted,
    /// A derived key would be stronger than the key it comes from.
    #[error("the derived key would be stronger than the key it comes from")]
    DerivedStronger,
    /// The cipher refused the key or the data.
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

impl Tr31Error {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Character => "character",
            Self::Version => "version",
            Self::BlockLength => "block-length",
            Self::TooLong => "block-too-long",
            Self::Hex => "hex",
            Self::Usage => "key-usage",
            Self::Algorithm => "algorithm",
            Self::Mode => "mode-of-use",
            Self::KeyVersion => "key-version",
            Self::Exportability => "exportability",
            Self::KeyContext => "key-context",
            Self::Reserved => "reserved-field",
            Self::OptionalCount => "optional-block-count",
            Self::OptionalLength(_) => "optional-block-length",
            Self::ExtendedLength(_) => "extended-length",
            Self::UnknownOptional(_) => "unknown-optional-block",
            Self::DuplicateOptional(_) => "duplicate-optional-block",
            Self::OptionalFormat(_) => "optional-block-format",
            Self::OptionalMisplaced(_) => "optional-block-misplaced",
            Self::OptionalPadding => "optional-block-padding",
            Self::UsageAlgorithm => "usage-algorithm",
            Self::UsageMode => "usage-mode",
            Self::PayloadLength => "payload-length",
            Self::KbpkLength => "kbpk-length",
            Self::KbpkHeld => "kbpk-held",
            Self::KbpkCipher => "kbpk-cipher",
            Self::Mac => "mac",
            Self::EncodedKeyLength => "encoded-key-length",
            Self::LengthObfuscation => "length-obfuscation",
            Self::Key(KeyFault::Length) => "key-length",
            Self::Key(KeyFault::SingleDes) => "single-des",
            Self::Key(KeyFault::Parity) => "des-parity",
            Self::Key(KeyFault::Weak) => "des-weak-key",
            Self::Key(KeyFault::EqualHalves) => "des-equal-halves",
            Self::Kbpk(KeyFault::Length | KeyFault::SingleDes) => "kbpk-length",
            Self::Kbpk(KeyFault::Parity) => "kbpk-des-parity",
            Self::Kbpk(KeyFault::Weak) => "kbpk-des-weak-key",
            Self::Kbpk(KeyFault::EqualHalves) => "kbpk-des-equal-halves",
            Self::Component => "key-component",
            Self::WeakerWrappingKey => "wrapping-key-weaker",
            Self::Kcv => "kcv",
            Self::KbpkKcv => "kbpk-kcv",
            Self::KcvMethod => "kcv-method",
            Self::Padding => "padding",
            Self::Ksn => "ksn-format",
            Self::KsnCounter => "ksn-counter",
            Self::KsnExhausted => "ksn-exhausted",
            Self::DerivedStronger => "derived-key-stronger",
            Self::Cipher(_) => "cipher",
        }
    }
}
