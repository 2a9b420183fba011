use std::io;
use std::path::PathBuf;

use countersign_crypto::Suite;
use countersign_hsm::HsmError;
use countersign_payment::PaymentError;
use countersign_payment::card::CardError;
use countersign_pki::PkiError;
use thiserror::Error;

use super::{PIN_MAX, PIN_MIN, PUK_DIGITS};
use crate::{ApiError, EnrollError};

/// Why a security device did not do what it was asked.
#[derive(Debug, Error)]
pub enum KeyError {
    /// Not there, or not one of ours.
    #[error("{0} is no security device: run `countersign device key enroll` first")]
    NotOurs(PathBuf),
    /// Enrolment has not finished.
    #[error("{0} is not enrolled: run `countersign device key enroll` again")]
    NotEnrolled(PathBuf),
    /// Not there, or no signing card of ours.
    #[error("{0} is no signing card: run `countersign device card enroll` first")]
    CardNotOurs(PathBuf),
    /// Enrolment of a signing card has not finished.
    #[error("{0} is not enrolled: run `countersign device card enroll` again")]
    CardNotEnrolled(PathBuf),
    /// It is another device, of another method or of another suite.
    #[error("{dir} holds another security device: {detail}")]
    Other {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        detail: String,
    },
    /// Another program has it in use.
    #[error("another program has this security device in use")]
    Busy,
    /// A suite that this program does not have.
    #[error("this program does not have the suite {0}")]
    Suite(Suite),
    /// A PIN of a form that none has.
    #[error("a PIN has {PIN_MIN} to {PIN_MAX} digits")]
    PinForm,
    /// A wrong PIN.
    #[error("the PIN is wrong; it may be tried {left} more times")]
    PinWrong {
        /// Tries that are left.
        left: u32,
    },
    /// Too many wrong PINs.
    #[error("too many wrong PINs: the security device is blocked until its PUK unblocks it")]
    PinBlocked,
    /// A PUK of a form that none has.
    #[error("a PUK has {PUK_DIGITS} digits")]
    PukForm,
    /// The device was made without a PUK.
    #[error("this security device has no PUK (countersign device key puk makes one)")]
    PukAbsent,
    /// A signing card without a PUK: its enrolment was cut off before it had one.
    #[error("this signing card has no PUK (countersign device card puk makes one)")]
    CardPukAbsent,
    /// A wrong PUK.
    #[error("the PUK is wrong; it may be tried {left} more times")]
    PukWrong {
        /// Tries that are left.
        left: u32,
    },
    /// Too many wrong PUKs.
    #[error("too many wrong PUKs: no PUK unblocks this security device any more")]
    PukBlocked,
    /// No PIN could be had from the keypad.
    #[error("no PIN was entered: {0}")]
    Keypad(String),
    /// Its holder would not sign.
    #[error("the holder of the security device has declined")]
    Declined,
    /// What it is to sign is no confirmation request, or holds what it must not show.
    #[error("the security device refuses to sign this: {0}")]
    Request(PaymentError),
    /// Enrolment.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The server's API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A serial number of a form that none has.
    #[error(transparent)]
    Serial(PkiError),
    /// A certificate does not verify.
    #[error("the security device's certificates: {0}")]
    Pki(PkiError),
    /// What the server sent at enrolment is not for this device.
    #[error("what the server certified is not for this security device")]
    Foreign,
    /// The server's certificate was not kept at enrolment.
    #[error("this security device does not know its server's certificate: enrol it anew")]
    ServerUnpinned,
    /// A server that does not know signing cards.
    #[error("the server gives no certificate to encrypt joint passwords to: it is too old")]
    NoServerEncryption,
    /// A device that signs with a private key was given a QR code: nobody types a signature.
    #[error("this security device makes no digits to type: its payments are confirmed by a phone")]
    NoDigits,
    /// The card, or the way to it.
    #[error(transparent)]
    Card(CardError),
    /// Another card than the one that this began with, or that was meant, or that its certificate
    /// says.
    #[error("this is another security device than the one that was meant")]
    OtherCard,
    /// The PKCS#11 token that is the device.
    #[error("the security device's token: {0}")]
    Token(HsmError),
    /// The token has no key of a security device, or no certificate beside it.
    #[error("the token is no security device yet: run `countersign device key enroll` first")]
    TokenNotEnrolled,
    /// The token is another security device.
    #[error("the token is another security device: {0}")]
    TokenOther(String),
    /// A token makes signatures in the suite p256, and nothing else that confirms payments.
    #[error("a token signs with a private key (method pki) of the suite p256 only")]
    TokenMethod,
    /// A file does not parse or was altered.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl KeyError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::NotOurs(_) | Self::CardNotOurs(_) => "device-not-ours",
            Self::NotEnrolled(_) | Self::CardNotEnrolled(_) => "device-not-enrolled",
            Self::Other { .. } => "device-other",
            Self::Busy => "device-busy",
            Self::Suite(_) => "device-suite",
            Self::PinForm => "pin-form",
            Self::PinWrong { .. } => "pin-wrong",
            Self::PinBlocked => "pin-blocked",
            Self::PukForm => "puk-form",
            Self::PukAbsent | Self::CardPukAbsent => "puk-absent",
            Self::PukWrong { .. } => "puk-wrong",
            Self::PukBlocked => "puk-blocked",
            Self::Keypad(_) => "pin-absent",
            Self::Declined => "declined",
            Self::Request(error) => error.check(),
            Self::Enroll(_) | Self::Api(_) => "enrolment",
            Self::Serial(error) | Self::Pki(error) => error.check(),
            Self::Foreign => "device-foreign",
            Self::ServerUnpinned => "server-unpinned",
            Self::NoServerEncryption => "server-encryption",
            Self::NoDigits => "offline-method",
            Self::Card(error) => error.check(),
            Self::OtherCard => "card-other",
            Self::Token(error) => error.check(),
            Self::TokenNotEnrolled => "device-not-enrolled",
            Self::TokenOther(_) => "device-other",
            Self::TokenMethod => "device-method",
            Self::Damaged { .. } => "device-damaged",
            Self::Io { .. } => "io",
        }
    }

    /// Whether the system is to blame, rather than whoever asked.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Busy | Self::Card(CardError::Link(_)) => true,
            Self::Token(error) => error.is_environment(),
            _ => false,
        }
    }
}
