use thiserror::Error;

use crate::message::MessageError;
use crate::{Check, DataError};

/// Why a flow machine died, or does not take an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The peer sent bytes that are no message.
    #[error("the peer sent a malformed message: {0}")]
    Malformed(#[from] MessageError),
    /// The peer sent a message out of turn.
    #[error("the peer sent '{message}' while '{awaited}' was awaited")]
    Unexpected {
        /// The message that came.
        message: &'static str,
        /// What was awaited.
        awaited: &'static str,
    },
    /// The peer's packets do not fit together.
    #[error("the peer's packets do not fit together: {0}")]
    Packets(#[from] DataError),
    /// Misuse: the caller gave a result that was not asked for. The flow is dead.
    #[error("a result that was not asked for")]
    Misuse,
    /// The flow is over (finished, refused or dead); begin a new one.
    #[error("the flow is over")]
    Over,
}

impl FlowError {
    /// The check that failed.
    #[must_use]
    pub const fn check(self) -> Check {
        match self {
            Self::Malformed(_) => Check::MessageMalformed,
            Self::Packets(_) => Check::Packets,
            Self::Unexpected { .. } | Self::Misuse | Self::Over => Check::MessageUnexpected,
        }
    }
}
