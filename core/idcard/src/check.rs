use crate::sam::{SamError, Sw3};

/// What failed, under a stable name for logs, the audit and the API.
///
/// A failure that depends on a secret has a detailed [`name`](Self::name) for the audit and one
/// common [`public_name`](Self::public_name) for everybody else (`interfaces.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Check {
    /// Bytes that are no message, or one of unknown type.
    MessageMalformed,
    /// A well-formed message out of turn.
    MessageUnexpected,
    /// Packets of wrong number, order or length (C9).
    Packets,
    /// The peer sent more, or asked for more, than any read needs.
    PeerFlood,
    /// The peer did not answer in time.
    PeerTimeout,
    /// The reader gave the read up.
    ReaderAborted,
    /// The card left the field in mid-read.
    CardRemoved,
    /// The card did not answer the reader in time.
    CardTimeout,
    /// The card refused a command.
    CardRefused,
    /// The card that gave the data is not the one whose configuration was read.
    CardSwapped,
    /// The card or its data are of no kind that the SAM module can read.
    CardUnreadable,
    /// The SAM module did not find the card.
    CardNotFound,
    /// Card and SAM did not authenticate each other. Depends on a secret.
    CardAuthentication,
    /// The SAM module could not decrypt the card's data. Depends on a secret.
    Decryption,
    /// The decrypted text is no valid record.
    Record,
    /// The SAM module did not answer in time.
    SamTimeout,
    /// The SAM module's answers (or our commands) kept arriving damaged.
    SamDamaged,
    /// The SAM module went away in mid-read.
    SamGone,
    /// The SAM module gave another card's data.
    SamOtherCard,
    /// The SAM module answered what it must not, or reported its own failure.
    SamFailed,
}

/// The checks that depend on a secret, and the one name under which they all leave the server.
const SECRET_DEPENDENT: [Check; 2] = [Check::CardAuthentication, Check::Decryption];
const SECRET_DEPENDENT_NAME: &str = "authentication";

impl Check {
    /// What may leave the server of a stored [`name`](Self::name): as [`Self::public_name`], and
    /// a name that is no check of this crate as it is.
    #[must_use]
    pub fn publish(name: &str) -> &str {
        let secret = SECRET_DEPENDENT.iter().any(|check| check.name() == name);
        if secret { SECRET_DEPENDENT_NAME } else { name }
    }

    /// The stable name, in detail.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageMalformed => "message-malformed",
            Self::MessageUnexpected => "message-unexpected",
            Self::Packets => "packets",
            Self::PeerFlood => "peer-flood",
            Self::PeerTimeout => "peer-timeout",
            Self::ReaderAborted => "reader-aborted",
            Self::CardRemoved => "card-removed",
            Self::CardTimeout => "card-timeout",
            Self::CardRefused => "card-refused",
            Self::CardSwapped => "card-swapped",
            Self::CardUnreadable => "card-unreadable",
            Self::CardNotFound => "card-not-found",
            Self::CardAuthentication => "card-authentication",
            Self::Decryption => "decryption",
            Self::Record => "record",
            Self::SamTimeout => "sam-timeout",
            Self::SamDamaged => "sam-damaged",
            Self::SamGone => "sam-gone",
            Self::SamOtherCard => "sam-other-card",
            Self::SamFailed => "sam-failed",
        }
    }

    /// True if the failure depends on a secret: then an incident id goes with it.
    #[must_use]
    pub fn is_secret_dependent(self) -> bool {
        SECRET_DEPENDENT.contains(&self)
    }

    /// The name that may leave the server.
    #[must_use]
    pub fn public_name(self) -> &'static str {
        if self.is_secret_dependent() { SECRET_DEPENDENT_NAME } else { self.name() }
    }

    /// True if the same read may succeed when tried again, perhaps with another SAM module.
    #[must_use]
    pub const fn is_worth_retrying(self) -> bool {
        matches!(
            self,
            Self::PeerTimeout
                | Self::CardTimeout
                | Self::CardRemoved
                | Self::CardNotFound
                | Self::SamTimeout
                | Self::SamDamaged
                | Self::SamGone
                | Self::SamOtherCard
                | Self::SamFailed
        )
    }
}

impl From<&SamError> for Check {
    fn from(error: &SamError) -> Self {
        match error {
            SamError::Timeout { .. } => Self::SamTimeout,
            SamError::Damaged { .. } => Self::SamDamaged,
            SamError::Gone => Self::SamGone,
            SamError::OtherCard => Self::SamOtherCard,
            SamError::Card { status, .. } => match status {
                Sw3::CardRejectedSam | Sw3::SamRejectedCard | Sw3::VerificationFailed => {
                    Self::CardAuthentication
                }
                Sw3::ReadFailed => Self::Decryption,
                Sw3::NoCard => Self::CardNotFound,
                _ => Self::CardUnreadable,
            },
            SamError::Unexpected { .. }
            | SamError::Malformed { .. }
            | SamError::NotReady
            | SamError::Dead => Self::SamFailed,
        }
    }
}
