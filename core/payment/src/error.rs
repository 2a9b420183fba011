use thiserror::Error;

use crate::text::TextProblem;

/// Why something about a payment was refused. [`PaymentError::check`] gives the stable name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PaymentError {
    /// Not the alphabetic code of a currency in use (ISO 4217).
    #[error("the currency is not one of ISO 4217")]
    UnknownCurrency,
    /// Not a decimal number in its one form: no sign, no exponent, no leading zero.
    #[error("an amount is digits, and after a point up to the currency's decimals")]
    AmountForm,
    /// More decimals than the currency has.
    #[error("the amount has more decimals than its currency")]
    AmountDecimals,
    /// Zero, negative, or more than [`MAX_MINOR`](crate::MAX_MINOR) minor units.
    #[error("the amount is zero or too large")]
    AmountRange,
    /// An account number with characters or a length that none has.
    #[error("an account number has 4 to 34 characters of A-Z 0-9")]
    AccountForm,
    /// It has the form of an IBAN, and its check digits do not fit.
    #[error("the check digits of the IBAN are wrong")]
    IbanCheck,
    /// A text that a device must not be asked to show.
    #[error("{field}: {problem}")]
    Text {
        /// Which text.
        field: &'static str,
        /// What is wrong with it.
        problem: TextProblem,
    },
    /// Not the RFC 3339 time in UTC that is written here.
    #[error("a time is written as 2026-01-31T23:59:59.000Z")]
    TimeForm,
    /// A confirmation request that is not in its one form: another type or version, a field too
    /// many or too few, another order, not canonical (RFC 8785).
    #[error("the confirmation request is not in its canonical form")]
    RequestForm,
    /// A confirmation request longer than [`REQUEST_MAX`](crate::REQUEST_MAX).
    #[error("the confirmation request is too long")]
    RequestTooLong,
    /// A signature that does not verify, whatever the reason.
    #[error("the signature does not verify")]
    Signature,
    /// The secure element did not sign.
    #[error("the secure element did not sign")]
    Signing,
    /// An OCRA suite that RFC 6287 §6 does not know, or a weak one.
    #[error("not an OCRA suite")]
    OcraSuite,
    /// An input of OCRA that its suite does not have, lacks, or bounds.
    #[error("the inputs do not fit the OCRA suite")]
    OcraInput,
    /// A signed statement (receipt, evidence) whose form is not the one written here.
    #[error("the statement is malformed")]
    StatementForm,
    /// A signed statement whose signature does not verify.
    #[error("the statement's signature does not verify")]
    StatementSignature,
    /// A signed statement whose certificates do not lead to the root given, or not for a server.
    #[error("the statement's certificates do not lead to the trusted root")]
    StatementCertificate,
    /// A text that is no offline request in its one form.
    #[error("not the text of an offline confirmation request")]
    OfflineForm,
    /// An offline request that no QR code holds: more than
    /// [`TEXT_MAX`](crate::offline::TEXT_MAX) characters.
    #[error("the offline confirmation request is too long for a QR code")]
    OfflineTooLong,
    /// An offline request under another certificate than the server's, or that one has expired.
    #[error("the offline confirmation request is not from the server that this device knows")]
    OfflineServer,
    /// An offline request whose signature does not verify.
    #[error("the server's signature of the offline confirmation request does not verify")]
    OfflineSignature,
    /// An offline request that it is too late to answer.
    #[error("the offline confirmation request has expired")]
    OfflineExpired,
    /// A commitment to a joint password whose form is unknown, not announced, or not kept.
    #[error("not a commitment to a joint password in a form that is taken")]
    JointForm,
    /// A joint password of another form, or with a wrong check digit: mistyped, whatever it was.
    #[error("a joint password has nine digits, the last of them a check digit")]
    JointPasswordForm,
    /// A joint password that is not the one that the card committed to.
    #[error("the joint password is wrong")]
    JointPassword,
    /// What a card committed to cannot be opened, or holds another text than its form has: sealed
    /// to another key than the server's, or for another card or transaction. That depends on what
    /// the card signed, never on the joint password that was given.
    #[error("what the card committed to does not open: no joint password fits it")]
    JointSealed,
}

impl PaymentError {
    /// Stable name of the failed check, as errors and the audit log give it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::UnknownCurrency => "currency-unknown",
            Self::AmountForm => "amount-form",
            Self::AmountDecimals => "amount-decimals",
            Self::AmountRange => "amount-range",
            Self::AccountForm => "account-form",
            Self::IbanCheck => "account-check-digits",
            Self::Text { problem, .. } => problem.check(),
            Self::TimeForm => "time-form",
            Self::RequestForm => "request-form",
            Self::RequestTooLong => "request-too-long",
            Self::Signature => "answer-signature",
            Self::Signing => "signing",
            Self::OcraSuite => "ocra-suite",
            Self::OcraInput => "ocra-input",
            Self::StatementForm => "statement-form",
            Self::StatementSignature => "statement-signature",
            Self::StatementCertificate => "statement-certificate",
            Self::OfflineForm => "offline-form",
            Self::OfflineTooLong => "offline-too-long",
            Self::OfflineServer => "offline-server",
            Self::OfflineSignature => "offline-signature",
            Self::OfflineExpired => "offline-expired",
            Self::JointForm => "joint-form",
            Self::JointPasswordForm => "joint-password-form",
            Self::JointPassword => "joint-password",
            Self::JointSealed => "joint-sealed",
        }
    }
}
