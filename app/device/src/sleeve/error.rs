use std::io;
use std::path::PathBuf;

use countersign_channel::{AlertCode, Error};
use thiserror::Error as ThisError;

use crate::{DeviceDirError, RelayError};

/// Why a sleeve did not do what it was asked.
#[derive(Debug, ThisError)]
pub enum SleeveError {
    /// Another program uses this sleeve's directory.
    #[error("another program is using this sleeve")]
    Busy,
    /// The directory, its key or its certificates.
    #[error(transparent)]
    Dir(#[from] DeviceDirError),
    /// A file of a pairing does not parse.
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
    /// The sleeve is paired with as many managers as it can keep.
    #[error("this sleeve is paired with as many managers as it can keep: forget one")]
    TooManyManagers,
    /// As many pairings with this manager as the sleeve can keep are unconfirmed.
    #[error("pairings with {0} wait to be confirmed: connect to settle them, or forget it")]
    TooManyPending(String),
    /// The sleeve is not paired with this manager.
    #[error("this sleeve is not paired with the manager {0}: pair it first")]
    UnknownManager(String),
    /// No manager was named, and there is not exactly one.
    #[error("this sleeve is paired with {0} managers: name one")]
    WhichManager(usize),
    /// Through a relay a manager is met by its id.
    #[error("through a relay a manager is met by its id: name it")]
    ManagerUnnamed,
    /// The manager that answered is not the one that was named.
    #[error("the manager that answered is {found}, not {wanted}")]
    OtherManager {
        /// The certified id of the one that answered.
        found: String,
        /// Who was named.
        wanted: String,
    },
    /// The user said no: nothing was stored on either side (A1).
    #[error("the pairing was refused")]
    Declined,
    /// The manager's last message did not come: the next connect shows whether it was stored (A1).
    #[error("the manager has not confirmed the pairing, which is pending: connect to settle it")]
    Unconfirmed,
    /// The manager cannot be reached.
    #[error("the manager at {at} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        at: String,
        /// What the system said.
        detail: String,
    },
    /// The way through the server's relay.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The secure channel ended, or was not made.
    #[error("the secure channel: {0}")]
    Channel(Error),
    /// What the manager said is not what it may say now.
    #[error("the manager said what it may not say now")]
    Protocol,
    /// The manager refused a request.
    #[error("the manager refused: {0}")]
    Refused(String),
    /// The session is over; a new one begins with a connect and a login.
    #[error("the session has ended: {check}{}", incident_suffix(.incident.as_deref()))]
    Ended {
        /// Stable name of what ended it.
        check: String,
        /// Where the manager's owner finds more.
        incident: Option<String>,
    },
    /// A request while another one waits, or for a card without one.
    #[error("misuse: {0}")]
    Misuse(&'static str),
}

fn incident_suffix(incident: Option<&str>) -> String {
    incident.map(|id| format!(" (incident {id})")).unwrap_or_default()
}

impl SleeveError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Busy => "device-busy",
            Self::Dir(error) => error.check(),
            Self::Damaged { .. } => "device-damaged",
            Self::Io { .. } => "io",
            Self::TooManyManagers => "too-many-managers",
            Self::TooManyPending(_) => "too-many-pending",
            Self::UnknownManager(_) => "manager-unknown",
            Self::WhichManager(_) | Self::ManagerUnnamed => "manager-unnamed",
            Self::OtherManager { .. } => "other-manager",
            Self::Declined => "pairing-refused",
            Self::Unconfirmed => "pairing-unconfirmed",
            Self::Unreachable { .. } => "manager-unreachable",
            Self::Relay(error) => error.check(),
            Self::Channel(error) => error.check(),
            Self::Protocol => "message-format",
            Self::Refused(check) | Self::Ended { check, .. } => check,
            Self::Misuse(_) => "misuse",
        }
    }

    /// Where the owner of the other side finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::Channel(Error::Alert { incident, .. }) if !incident.is_empty() => Some(incident),
            Self::Ended { incident, .. } => incident.as_deref(),
            Self::Relay(error) => error.incident(),
            _ => None,
        }
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Busy | Self::Io { .. } | Self::Unreachable { .. } | Self::Unconfirmed => true,
            Self::Dir(error) => matches!(error, DeviceDirError::Io { .. }),
            Self::Relay(error) => error.is_environment(),
            Self::Channel(error) => is_lost(error),
            Self::Ended { check, .. } => LOST_CHECKS.contains(&&**check),
            _ => false,
        }
    }

    /// Whether connecting again may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Relay(error) => error.is_lost(),
            Self::Channel(error) => is_lost(error) || is_busy(error),
            Self::Ended { check, .. } => LOST_CHECKS.contains(&&**check),
            _ => false,
        }
    }

    /// The error of a session that has ended, to be told again and again.
    pub(super) fn ended(&self) -> Self {
        Self::Ended { check: self.check().to_owned(), incident: self.incident().map(str::to_owned) }
    }
}

/// How a session ends whose link was lost.
const LOST_CHECKS: [&str; 6] = [
    "connection-cut",
    "heartbeat",
    "handshake-timeout",
    "link-lost",
    "peer-stalled",
    "peer-timeout",
];

/// The way failed, and not what was said on it.
const fn is_lost(error: &Error) -> bool {
    matches!(error, Error::Truncated | Error::Timeout | Error::Silent)
}

const fn is_busy(error: &Error) -> bool {
    matches!(
        error,
        Error::Alert {
            code: AlertCode::Busy
                | AlertCode::SourceLimited
                | AlertCode::ChallengeStale
                | AlertCode::Internal,
            ..
        }
    )
}
