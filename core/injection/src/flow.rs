use core::time::Duration;

use thiserror::Error;

use crate::message::{MessageError, SLOTS};

/// How long a side waits for the other's next message.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Most tokens that one contact asks for; what is left comes with the next contact.
pub const TOKENS_PER_CONTACT_MAX: u32 = 64;

/// Why a flow ended before its time. The flow is dead then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FlowError {
    /// The peer sent bytes that are no message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer said something that has no place here.
    #[error("{message} is out of order")]
    Unexpected {
        /// What it said.
        message: &'static str,
    },
    /// The peer answered for another injection or slot.
    #[error("the answer is for another injection")]
    OtherInjection,
    /// The peer asks for more tokens than a contact may, or reports more keys than it has slots.
    #[error("more than {TOKENS_PER_CONTACT_MAX} tokens or {SLOTS} reports in one contact")]
    TooMany,
    /// The peer said nothing for [`PATIENCE`].
    #[error("no answer in time")]
    Timeout,
    /// The owner answered what was not asked: a fault of this program.
    #[error("the owner's answer does not fit what was asked")]
    Misuse,
    /// The flow has ended before.
    #[error("the flow has ended")]
    Dead,
}

impl FlowError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Message(_) => "message-malformed",
            Self::Unexpected { .. } => "message-unexpected",
            Self::OtherInjection => "message-other-injection",
            Self::TooMany => "peer-flood",
            Self::Timeout => "peer-timeout",
            Self::Misuse => "internal",
            Self::Dead => "flow-dead",
        }
    }
}
