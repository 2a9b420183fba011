use countersign_channel::{AlertCode, Error};
use countersign_idcard::card::CardError;
use countersign_idcard::reader::ReadFailure;
use thiserror::Error as ThisError;

/// Why a read did not succeed.
#[derive(Debug, ThisError)]
pub enum ReadError {
    /// No card within [`CARD_WAIT`](crate::CARD_WAIT).
    #[error("there is no card on the reader")]
    NoCard,
    /// The card failed before the server was asked.
    #[error("the card: {0}")]
    Card(#[from] CardError),
    /// A check refused the read.
    #[error("the read was refused: {}{}", .0.check, incident_suffix(.0.incident.as_deref()))]
    Refused(ReadFailure),
    /// The secure channel ended.
    #[error("the secure channel: {0}")]
    Channel(Error),
    /// The server does not allow what this reader offers.
    #[error(
        "the secure channel: {error}; this reader offers {offered}, and the server allows others \
         only"
    )]
    NoCommonGround {
        /// How the channel ended.
        error: Error,
        /// Handshake, suite and policy, for a person.
        offered: String,
    },
    /// The server cannot be reached.
    #[error("the server at {gateway} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        gateway: String,
        /// What the system said.
        detail: String,
    },
}

fn incident_suffix(incident: Option<&str>) -> String {
    incident.map(|id| format!(" (incident {id})")).unwrap_or_default()
}

impl ReadError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::NoCard => "no-card",
            Self::Card(_) => "card",
            Self::Refused(failure) => &failure.check,
            Self::Channel(error) | Self::NoCommonGround { error, .. } => error.check(),
            Self::Unreachable { .. } => "server-unreachable",
        }
    }

    /// Where an operator of the server finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::Refused(failure) => failure.incident.as_deref(),
            Self::Channel(Error::Alert { incident, .. })
            | Self::NoCommonGround { error: Error::Alert { incident, .. }, .. }
                if !incident.is_empty() =>
            {
                Some(incident)
            }
            _ => None,
        }
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Channel(Error::Truncated))
    }

    /// Whether trying again may help: a server that was killed comes back.
    pub(super) const fn may_pass(&self) -> bool {
        match self {
            Self::Refused(failure) => failure.retry,
            Self::Channel(error) => matches!(
                error,
                Error::Truncated
                    | Error::Timeout
                    | Error::Alert {
                        code: AlertCode::Busy
                            | AlertCode::SourceLimited
                            | AlertCode::ChallengeStale
                            | AlertCode::Internal,
                        ..
                    }
            ),
            Self::Unreachable { .. } => true,
            Self::NoCard | Self::Card(_) | Self::NoCommonGround { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_server_is_tried_again_and_a_refusal_is_not() {
        let told = |code| Error::Alert { code, incident: String::new() };
        for code in [AlertCode::Busy, AlertCode::SourceLimited, AlertCode::ChallengeStale] {
            assert!(ReadError::Channel(told(code)).may_pass(), "{code:?}");
        }
        for code in [AlertCode::ReaderBlocked, AlertCode::Authentication, AlertCode::Certificate] {
            assert!(!ReadError::Channel(told(code)).may_pass(), "{code:?}");
        }
        let error = told(AlertCode::Incompatible);
        assert!(!ReadError::NoCommonGround { error, offered: String::new() }.may_pass());
    }
}
