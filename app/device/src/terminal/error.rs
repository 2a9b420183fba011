use countersign_crypto::Suite;
use countersign_payment::PaymentError;
use countersign_payment::card::CardError;
use countersign_pki::PkiError;
use thiserror::Error;

use crate::ApiError;

/// Why a terminal did not get a payment done.
#[derive(Debug, Error)]
pub enum JointError {
    /// The server, or the way to it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The card, or the way to it.
    #[error(transparent)]
    Card(#[from] CardError),
    /// The card has no certificate.
    #[error("the card is not enrolled")]
    NotEnrolled,
    /// The card is another one than its certificate says.
    #[error("the card is another one than its certificate says")]
    OtherCard,
    /// The card's certificate is none of ours.
    #[error("the card's certificate: {0}")]
    Certificate(PkiError),
    /// A suite that this program does not have.
    #[error("this program does not have the card's suite {0}")]
    Suite(Suite),
    /// No form that the server takes is one that the card has, and that was asked for.
    #[error("the card makes no form of commitment that the server takes")]
    NoForm,
    /// The card's signature does not verify under its own certificate.
    #[error("the card's signature does not verify under its certificate")]
    CardSignature,
    /// The request is another payment's than the one it was fetched for.
    #[error("the server sent the confirmation request of another payment")]
    OtherPayment,
    /// What the server sent is no confirmation request; or what was given as a joint password has
    /// not the form of one.
    #[error(transparent)]
    Request(#[from] PaymentError),
}

impl JointError {
    /// Stable name of the failed check: for what the server refused, the server's.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Api(ApiError::Refused { check, .. }) => check,
            Self::Api(_) => "server",
            Self::Card(error) => error.check(),
            Self::NotEnrolled => "device-not-enrolled",
            Self::OtherCard => "card-other",
            Self::Certificate(error) => error.check(),
            Self::Suite(_) => "device-suite",
            Self::NoForm => "joint-form",
            Self::CardSignature => "card-signature",
            Self::OtherPayment => "payment-other",
            Self::Request(error) => error.check(),
        }
    }

    /// Whether the payer may type the joint password again: it had not the form of one, which costs
    /// no try, or the server refused it, which does. The server does not say what was wrong, and
    /// ends the payment at the third.
    #[must_use]
    pub fn may_type_again(&self) -> bool {
        match self {
            Self::Api(ApiError::Refused { check, .. }) => {
                matches!(check.as_str(), "answer-format" | "authorisation-refused")
            }
            Self::Request(PaymentError::JointPasswordForm) => true,
            _ => false,
        }
    }

    /// Whether the same call may be made again as it is: the server could not be reached, or had no
    /// place for it.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_lost())
    }
}
