use alloc::string::String;

use countersign_crypto::CryptoError;
use countersign_pki::PkiError;
use thiserror::Error;

use crate::AlertCode;

/// Why a channel ended, by blame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer sent bytes that are not this protocol, or exceed a bound of it.
    #[error("the peer sent a malformed message ({0})")]
    Malformed(&'static str),
    /// The peer sent a message that is not awaited now.
    #[error("the peer sent a message out of order")]
    Unexpected,
    /// There is no common version, suite or policy.
    #[error("no common {0}")]
    Incompatible(&'static str),
    /// A check on identity, state or policy failed.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A certificate was refused.
    #[error(transparent)]
    Certificate(#[from] PkiError),
    /// A check that depends on a secret failed; `&str` names it for the audit log only.
    #[error("authentication failed")]
    Authentication(&'static str),
    /// The peer ended the connection and said why.
    #[error("the peer refused: {}{}", code.check(), incident_suffix(incident))]
    Alert {
        /// The check it names.
        code: AlertCode,
        /// Incident id, perhaps empty, under which the peer's operator finds the detail.
        incident: String,
    },
    /// The byte stream ended without a close record: data may be missing.
    #[error("the connection was cut")]
    Truncated,
    /// The handshake did not finish in time.
    #[error("the handshake timed out")]
    Timeout,
    /// A sleeping peer did not answer, or one that was watched fell silent (A6).
    #[error("the peer has been silent for too long")]
    Silent,
    /// The key has protected as many records as it may.
    #[error("the record limit of this session is reached")]
    KeyExhausted,
    /// The caller's mistake: sending before the handshake is done, or more than a record holds.
    #[error("misuse: {0}")]
    Misuse(&'static str),
    /// This party's own key or provider failed.
    #[error("the local secure element or crypto provider failed")]
    Local(CryptoError),
    /// The machine ended earlier.
    #[error("the channel has already ended")]
    Dead,
}

fn incident_suffix(incident: &str) -> String {
    if incident.is_empty() { String::new() } else { alloc::format!(" (incident {incident})") }
}

/// A check on identity, state or policy that failed. None depends on a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request names another server.
    #[error("the request is for another server")]
    WrongServer,
    /// The challenge's epoch or counter has left the window.
    #[error("the challenge is stale")]
    ChallengeStale,
    /// The challenge was used before (C3, G11).
    #[error("the challenge was used before")]
    ChallengeReplayed,
    /// No such reader.
    #[error("the reader is not enrolled")]
    UnknownReader,
    /// Serial number and certificate number do not map to each other (C4).
    #[error("serial number and certificate number do not belong together")]
    ReaderIdMismatch,
    /// Blocked by an operator or a rule.
    #[error("the reader is blocked")]
    ReaderBlocked,
    /// This source has had too many proofs refused lately.
    #[error("too many refused contacts from this address")]
    SourceLimited,
    /// The directory could not be asked.
    #[error("the server is busy")]
    Busy,
    /// A party's encryption certificate is another's.
    #[error("the encryption certificate is of another party")]
    EncryptionIdMismatch,
    /// The certified server is not the one the reader was set up for.
    #[error("the server is not the one this reader was set up for")]
    UnexpectedServer,
    /// The manager's pairing window is closed (A1).
    #[error("the manager's pairing window is closed")]
    PairingClosed,
    /// The sleeve's user said no (A1).
    #[error("the pairing was refused at the sleeve")]
    PairingRefused,
    /// The owner of the channel could not keep the pairing, or would not.
    #[error("the pairing was not stored")]
    PairingNotStored,
    /// No sleeve with this id is in the manager's pairing list.
    #[error("the sleeve is not paired with this manager")]
    UnknownSleeve,
    /// The owner blocked this sleeve.
    #[error("the sleeve is blocked")]
    SleeveBlocked,
    /// The id in a message is not the one in the certificate beside it, or in the pinned one.
    #[error("the id sent is not the certified one")]
    PeerIdMismatch,
    /// The manager is not the one that the sleeve is paired with.
    #[error("the manager is not the one this sleeve is paired with")]
    UnexpectedManager,
}

impl Error {
    /// Stable name of the failed check, in full detail: for the audit log, not for the peer.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "message-format",
            Self::Unexpected => "message-unexpected",
            Self::Incompatible(_) => "incompatible",
            Self::Refused(refusal) => match refusal {
                Refusal::WrongServer => "wrong-server",
                Refusal::ChallengeStale => "challenge-stale",
                Refusal::ChallengeReplayed => "challenge-replayed",
                Refusal::UnknownReader => "reader-unknown",
                Refusal::ReaderIdMismatch => "reader-id-mismatch",
                Refusal::ReaderBlocked => "reader-blocked",
                Refusal::SourceLimited => "source-limited",
                Refusal::Busy => "busy",
                Refusal::EncryptionIdMismatch => "encryption-id-mismatch",
                Refusal::UnexpectedServer => "server-unexpected",
                Refusal::PairingClosed => "pairing-closed",
                Refusal::PairingRefused => "pairing-refused",
                Refusal::PairingNotStored => "pairing-not-stored",
                Refusal::UnknownSleeve => "sleeve-unknown",
                Refusal::SleeveBlocked => "sleeve-blocked",
                Refusal::PeerIdMismatch => "peer-id-mismatch",
                Refusal::UnexpectedManager => "manager-unexpected",
            },
            Self::Certificate(error) => error.check(),
            Self::Authentication(check) => check,
            Self::Alert { code, .. } => code.check(),
            Self::Truncated => "connection-cut",
            Self::Timeout => "handshake-timeout",
            Self::Silent => "heartbeat",
            Self::KeyExhausted => "record-limit",
            Self::Misuse(_) => "misuse",
            Self::Local(_) => "secure-element",
            Self::Dead => "channel-ended",
        }
    }

    /// What the peer is told; nothing where it has gone, or spoke last.
    #[must_use]
    pub const fn alert(&self) -> Option<AlertCode> {
        Some(match self {
            Self::Malformed(_) => AlertCode::Decode,
            Self::Unexpected => AlertCode::Unexpected,
            Self::Incompatible(_) => AlertCode::Incompatible,
            Self::Refused(refusal) => match refusal {
                Refusal::WrongServer => AlertCode::WrongServer,
                Refusal::ChallengeStale => AlertCode::ChallengeStale,
                Refusal::ChallengeReplayed => AlertCode::ChallengeReplayed,
                Refusal::UnknownReader => AlertCode::UnknownReader,
                Refusal::ReaderIdMismatch => AlertCode::ReaderIdMismatch,
                Refusal::ReaderBlocked => AlertCode::ReaderBlocked,
                Refusal::SourceLimited => AlertCode::SourceLimited,
                Refusal::Busy => AlertCode::Busy,
                Refusal::EncryptionIdMismatch => AlertCode::Certificate,
                // The reader checks this, and the patent has it send nothing more (S110).
                Refusal::UnexpectedServer | Refusal::UnexpectedManager => return None,
                Refusal::PairingClosed => AlertCode::PairingClosed,
                Refusal::PairingRefused => AlertCode::PairingRefused,
                Refusal::PairingNotStored => AlertCode::Internal,
                Refusal::UnknownSleeve => AlertCode::UnknownSleeve,
                Refusal::SleeveBlocked => AlertCode::SleeveBlocked,
                Refusal::PeerIdMismatch => AlertCode::Certificate,
            },
            Self::Certificate(error) => match error {
                PkiError::Expired | PkiError::NotYetValid => AlertCode::CertificateTime,
                PkiError::Revoked => AlertCode::CertificateRevoked,
                PkiError::BadSignature => AlertCode::Authentication,
                _ => AlertCode::Certificate,
            },
            Self::Authentication(_) => AlertCode::Authentication,
            Self::Timeout => AlertCode::Timeout,
            Self::KeyExhausted | Self::Misuse(_) | Self::Local(_) => AlertCode::Internal,
            Self::Alert { .. } | Self::Truncated | Self::Silent | Self::Dead => return None,
        })
    }
}
