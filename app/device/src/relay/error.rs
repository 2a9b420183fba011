use std::time::Duration;

use countersign_channel::{AlertCode, Error};
use thiserror::Error as ThisError;

use crate::DeviceDirError;

/// Why a device does not meet another one through the server.
#[derive(Debug, ThisError)]
pub enum RelayError {
    /// The device's directory.
    #[error(transparent)]
    Dir(#[from] DeviceDirError),
    /// The server cannot be reached.
    #[error("the server at {gateway} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        gateway: String,
        /// What the system said.
        detail: String,
    },
    /// The secure channel with the server.
    #[error("the secure channel with the server: {0}")]
    Channel(Error),
    /// The server broke the protocol.
    #[error("the server breaks the relay's protocol: {0}")]
    Protocol(&'static str),
    /// The server does not do what was asked.
    #[error("the server refused: {check}")]
    Refused {
        /// The failed check's public name.
        check: String,
        /// After how many seconds asking again may help; 0 if it will not.
        retry_after: u32,
    },
    /// One server names another, and that one a third: the manager moves faster than it is found.
    #[error("the manager is always at another server")]
    AlwaysElsewhere,
    /// No such serial number can be.
    #[error("a serial number has 1 to 64 characters of A-Z a-z 0-9 . _ -")]
    Serial,
}

impl RelayError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Dir(error) => error.check(),
            Self::Unreachable { .. } => "server-unreachable",
            Self::Channel(error) => error.check(),
            Self::Protocol(_) => "relay-protocol",
            Self::Refused { check, .. } => check,
            Self::AlwaysElsewhere => "manager-elsewhere",
            Self::Serial => "device-serial",
        }
    }

    /// Where the server's operator finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::Channel(Error::Alert { incident, .. }) => Some(incident.as_str()),
            _ => None,
        }
        .filter(|incident| !incident.is_empty())
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Dir(error) => matches!(error, DeviceDirError::Io { .. }),
            Self::Unreachable { .. } | Self::AlwaysElsewhere => true,
            Self::Channel(error) => {
                matches!(error, Error::Truncated | Error::Timeout | Error::Silent)
            }
            Self::Refused { retry_after, .. } => *retry_after > 0,
            Self::Protocol(_) | Self::Serial => false,
        }
    }

    /// Whether coming again later may help.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::AlwaysElsewhere | Self::Protocol(_) => true,
            Self::Refused { retry_after, .. } => *retry_after > 0,
            Self::Channel(error) => match error {
                Error::Truncated | Error::Timeout | Error::Silent => true,
                Error::Alert { code, .. } => matches!(
                    code,
                    AlertCode::Busy
                        | AlertCode::Internal
                        | AlertCode::Timeout
                        | AlertCode::SourceLimited
                        | AlertCode::ChallengeStale
                        | AlertCode::ChallengeReplayed
                ),
                _ => false,
            },
            Self::Dir(_) | Self::Serial => false,
        }
    }

    /// Whether a manager need not come again. Alerts are in the clear, and whoever can cut the line
    /// can forge one or change a byte: only what this device knows itself, or was told in a record,
    /// is final.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self, Self::Dir(_) | Self::Serial | Self::Refused { retry_after: 0, .. })
    }

    /// The least pause before coming again, if the server named one.
    pub(super) fn pause(&self) -> Duration {
        match self {
            Self::Refused { retry_after, .. } => Duration::from_secs(u64::from(*retry_after)),
            _ => Duration::ZERO,
        }
    }
}
