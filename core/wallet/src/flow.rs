//! The two machines on a connected channel: [`SleeveFlow`] and [`ManagerFlow`] (A4, A5, A6, A8).
//!
//! The sleeve asks, the manager answers; exactly one request is under way, and its answer bears its
//! number. One login comes before everything. What the manager says by itself is that a lease or
//! the session is over.
//!
//! What a flow wants sent and what it wants done come out in one order: [`Output`]. So the audit of
//! an exchange is asked for before its answer leaves, and what a login was is told after its answer
//! has left.

use core::fmt;
use core::time::Duration;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::message::MessageError;

mod manager;
mod sleeve;
#[cfg(test)]
mod tests;

pub use manager::{CardTaken, LOGINS_PER_SESSION, ManagerEvent, ManagerFlow, Terms};
pub use sleeve::{SleeveEvent, SleeveFlow};

/// How long a manager waits for a login, which someone types, and for the rest of an APDU.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How long the manager's owner has to consent; then the answer is no.
pub const CONSENT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a sleeve waits for an answer: longer than an owner may take to consent, or a card to
/// answer.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(90);

/// What comes out of a flow next.
pub enum Output<E> {
    /// To be sent: the plaintext of one record.
    Send(Zeroizing<Vec<u8>>),
    /// To be done or known.
    Event(E),
}

/// Of a message only its length: there may be a password or a PIN in it.
impl<E: fmt::Debug> fmt::Debug for Output<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Self::Event(event) => event.fmt(f),
        }
    }
}

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
    /// The channel's policy would let anyone on the way read the password (A4).
    #[error("the channel does not hide what it carries")]
    Readable,
    /// The peer said nothing in time.
    #[error("no answer in time")]
    Timeout,
    /// The owner did what was not asked: a fault of this program.
    #[error("the owner's word does not fit what was asked")]
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
            Self::Readable => "login-readable",
            Self::Timeout => "peer-timeout",
            Self::Misuse => "internal",
            Self::Dead => "flow-dead",
        }
    }
}
