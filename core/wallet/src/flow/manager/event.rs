//! What the manager's owner hears of a session.

use core::fmt;

use zeroize::Zeroizing;

#[cfg(doc)]
use super::ManagerFlow;
use crate::login::{Access, PaddedPassword};
use crate::message::{DistanceCheckFails, Times};
use crate::policy::{Exchange, Usage};

/// What the owner is to do or to know.
pub enum ManagerEvent {
    /// Let [`Lockout::before`](crate::login::Lockout::before) count the attempt and store it; then
    /// verify the password. Answer: [`ManagerFlow::verified`], or [`ManagerFlow::locked`].
    Verify(PaddedPassword),
    /// The password was right: ask who is at the manager. Answer: [`ManagerFlow::consented`].
    Consent,
    /// Logged in; the answer has left. Only now may the owner look at the access, and raise an
    /// alarm.
    LoggedIn(Access),
    /// Which cards has this session? Answer: [`ManagerFlow::listed`].
    List,
    /// The sleeve wants this card. Answer: [`ManagerFlow::taken`].
    Take {
        /// Its id.
        card: String,
    },
    /// Send this command to the card, once and never again. Answer: [`ManagerFlow::answered`].
    Transmit {
        /// The lease under which it is sent, to be renewed.
        lease: u64,
        /// The APDU.
        command: Zeroizing<Vec<u8>>,
        /// What was used of the card, if that changed: to be stored before the card is.
        usage: Option<Usage>,
    },
    /// Reset the card. Answer: [`ManagerFlow::was_reset`].
    Reset {
        /// The lease under which it is reset.
        lease: u64,
    },
    /// An exchange is over, or was refused: write it down; its answer leaves afterwards.
    Exchanged {
        /// The lease.
        lease: u64,
        /// What it was.
        exchange: Exchange,
        /// What was used of the card, if the response changed it: to be stored.
        usage: Option<Usage>,
    },
    /// The sleeve gave its card back: end the lease, power the card down.
    Released {
        /// Which lease.
        lease: u64,
    },
    /// Sleep mode begins: watch the channel with these times (A6).
    Sleep(Times),
    /// Sleep mode is over: stop watching.
    Awake,
    /// The sleeve tells that a distance check cannot have been met.
    DistanceCheckFails(DistanceCheckFails),
    /// The session is over; the channel is to be closed.
    Ended {
        /// Why.
        check: String,
    },
}

/// What it is, without what goes to a card: that may be a PIN.
impl fmt::Debug for ManagerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verify(password) => write!(f, "Verify({password:?})"),
            Self::Consent => f.write_str("Consent"),
            Self::LoggedIn(access) => write!(f, "LoggedIn({access:?})"),
            Self::List => f.write_str("List"),
            Self::Take { card } => write!(f, "Take({card})"),
            Self::Transmit { lease, command, .. } => {
                write!(f, "Transmit({lease}, {} bytes)", command.len())
            }
            Self::Reset { lease } => write!(f, "Reset({lease})"),
            Self::Exchanged { lease, exchange, .. } => {
                write!(f, "Exchanged({lease}, {exchange:?})")
            }
            Self::Released { lease } => write!(f, "Released({lease})"),
            Self::Sleep(times) => write!(f, "Sleep({times:?})"),
            Self::Awake => f.write_str("Awake"),
            Self::DistanceCheckFails(fails) => fails.fmt(f),
            Self::Ended { check } => write!(f, "Ended({check})"),
        }
    }
}
