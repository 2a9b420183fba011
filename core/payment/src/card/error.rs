use alloc::string::String;

use countersign_iso7816::{LinkError, Status, TerminalError};
use thiserror::Error;

use crate::PaymentError;

/// Why a chip did not do what its application asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChipError {
    /// A PIN of a form that none has.
    #[error("a PIN has 4 to 12 digits")]
    PinForm,
    /// A wrong PIN.
    #[error("the PIN is wrong; it may be tried {left} more times")]
    PinWrong {
        /// Tries that are left.
        left: u8,
    },
    /// Too many wrong PINs.
    #[error("the PIN is blocked")]
    PinBlocked,
    /// A wrong PUK.
    #[error("the PUK is wrong; it may be tried {left} more times")]
    PukWrong {
        /// Tries that are left.
        left: u8,
    },
    /// Too many wrong PUKs.
    #[error("the PUK is blocked")]
    PukBlocked,
    /// The chip was made without one.
    #[error("there is no PUK")]
    PukAbsent,
    /// Nobody gave a PIN since it last signed.
    #[error("no PIN was given")]
    Locked,
    /// What it is to sign is no confirmation request.
    #[error(transparent)]
    Request(#[from] PaymentError),
    /// The chip failed.
    #[error("the chip failed: {0}")]
    Failed(String),
}

impl ChipError {
    /// The status word that says it.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Request(PaymentError::Signing) | Self::Failed(_) => Status::FAILED,
            Self::PinForm | Self::Request(_) => Status::WRONG_DATA,
            Self::PinWrong { left } | Self::PukWrong { left } => Status::tries(*left),
            Self::PinBlocked | Self::PukBlocked => Status::BLOCKED,
            Self::PukAbsent => Status::NO_DATA_OBJECT,
            Self::Locked => Status::SECURITY,
        }
    }
}

/// Why a card did not do what it was asked, as whoever talks to it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CardError {
    /// The link failed: the card may be gone.
    #[error(transparent)]
    Link(LinkError),
    /// A PIN or PUK of a form that none has.
    #[error("a PIN has 4 to 12 digits, a PUK 8")]
    PinForm,
    /// A wrong PIN.
    #[error("the PIN is wrong; it may be tried {left} more times")]
    PinWrong {
        /// Tries that are left.
        left: u8,
    },
    /// Too many wrong PINs.
    #[error("too many wrong PINs: the card is blocked until its PUK is given")]
    PinBlocked,
    /// A wrong PUK.
    #[error("the PUK is wrong; it may be tried {left} more times")]
    PukWrong {
        /// Tries that are left.
        left: u8,
    },
    /// Too many wrong PUKs.
    #[error("too many wrong PUKs: the card is blocked for good and must be enrolled anew")]
    PukBlocked,
    /// The card has no PUK.
    #[error("the card has no PUK")]
    PukAbsent,
    /// The card takes PIN and PUK at a keypad of its own, and from nobody else.
    #[error("the card takes PIN and PUK at its own keypad only")]
    Keypad,
    /// A PUK, where the PIN is not blocked.
    #[error("the PIN is not blocked, so the card takes no PUK")]
    PinNotBlocked,
    /// Its holder said no, at its keypad.
    #[error("the holder of the card has declined")]
    Declined,
    /// The card cannot show what it is to sign, so it does not take it.
    #[error("the card refuses to show and sign this")]
    RequestRefused,
    /// A signing card does not have this form of signature (B3 to B5).
    #[error("the card does not sign in this form")]
    FormRefused,
    /// The holder of a signing card has not consented yet, so it keeps its joint password (B6).
    #[error("the holder of the card has not consented yet")]
    ConsentPending,
    /// A signing card has no joint password to release: none was made, or it is gone (B7).
    #[error("the card has no joint password to release")]
    NothingReleased,
    /// A signing card releases the joint password of another signature (B7).
    #[error("the card's joint password belongs to another signature")]
    OtherSignature,
    /// Another card.
    #[error("the card is no security device of ours")]
    NotOurs,
    /// The card does not know of what should have come before: it was reset, or nothing was loaded,
    /// or no PIN given.
    #[error("the card has lost what came before; begin again")]
    OutOfOrder,
    /// The card's answer is none that such a card gives.
    #[error("the card's answer is malformed")]
    Malformed,
    /// Another status word.
    #[error("the card refuses with the status word {0:04X}")]
    Status(u16),
}

impl CardError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Link(error) => error.check(),
            Self::PinForm => "pin-form",
            Self::PinWrong { .. } => "pin-wrong",
            Self::PinBlocked => "pin-blocked",
            Self::PukWrong { .. } => "puk-wrong",
            Self::PukBlocked => "puk-blocked",
            Self::PukAbsent => "puk-absent",
            Self::Keypad => "card-keypad",
            Self::PinNotBlocked => "pin-not-blocked",
            Self::Declined => "declined",
            Self::RequestRefused => "card-request",
            Self::FormRefused => "card-form",
            Self::ConsentPending => "card-consent",
            Self::NothingReleased => "card-nothing-released",
            Self::OtherSignature => "card-other-signature",
            Self::NotOurs => "card-not-ours",
            Self::OutOfOrder => "card-order",
            Self::Malformed => "card-malformed",
            Self::Status(_) => "card-status",
        }
    }
}

impl From<TerminalError> for CardError {
    fn from(error: TerminalError) -> Self {
        match error {
            TerminalError::Link(error) => Self::Link(error),
            TerminalError::Malformed | TerminalError::TooLong => Self::Malformed,
        }
    }
}
