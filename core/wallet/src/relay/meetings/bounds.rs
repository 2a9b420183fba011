//! What devices may use of a server's relay, and what they are told where they may not.

use thiserror::Error;

use super::super::{CloseReason, MessageError, Rate};

/// What devices may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open meetings of a manager.
    pub per_manager: usize,
    /// Open meetings of one connection of a sleeve.
    pub per_sleeve: usize,
    /// New meetings of one sleeve with one manager.
    pub pair: Rate,
    /// New meetings of one manager, with all sleeves.
    pub manager: Rate,
    /// Bytes of one meeting, both directions together.
    pub pair_bytes: Rate,
    /// Bytes of all meetings of a manager.
    pub manager_bytes: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u32 = 1024 * 1024;
        Self {
            per_manager: 64,
            per_sleeve: 4,
            pair: Rate::per_minute(12),
            manager: Rate::per_minute(120),
            pair_bytes: Rate { burst: MIB, ..Rate::per_second(MIB / 4) },
            manager_bytes: Rate { burst: 4 * MIB, ..Rate::per_second(MIB) },
        }
    }
}

/// How a device broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// No message.
    #[error("{0}")]
    Message(#[from] MessageError),
    /// More was sent than is credited, or more credited than came.
    #[error("a window of the relay was exceeded")]
    Window,
    /// A sleeve's message from a manager, or the other way round.
    #[error("such a device does not say that")]
    WrongParty,
}

impl RelayError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Message(_) => "message-format",
            Self::Window => "window-exceeded",
            Self::WrongParty => "message-role",
        }
    }
}

/// Why a meeting does not come about. None of it says whether there is such a manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeetRefusal {
    /// No manager of that serial number is registered here.
    Absent,
    /// It has as many meetings as it may.
    Full,
    /// The sleeve has as many meetings as it may.
    SleeveFull,
    /// Meetings begin too often: again after so many seconds.
    Rate(u32),
}

impl MeetRefusal {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Absent => "manager-absent",
            Self::Full => "manager-full",
            Self::SleeveFull => "meetings-full",
            Self::Rate(_) => "meeting-rate",
        }
    }

    /// After how many seconds asking again may help.
    #[must_use]
    pub const fn retry_after(self) -> u32 {
        match self {
            Self::Absent => 5,
            Self::Full | Self::SleeveFull => 30,
            Self::Rate(seconds) => seconds,
        }
    }
}

/// Why a device is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dismissal {
    /// The manager came again: its newer connection takes the place of this one.
    Replaced,
    /// The manager registered with another server.
    Elsewhere,
    /// It does not take what is sent to it.
    Slow,
    /// It is blocked.
    Blocked,
    /// Its certificate is revoked or replaced.
    Revoked,
}

impl Dismissal {
    /// Stable name of the check, as the device is told it.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Replaced => "manager-replaced",
            Self::Elsewhere => "manager-elsewhere",
            Self::Slow => "relay-slow",
            Self::Blocked => "device-blocked",
            Self::Revoked => "certificate-revoked",
        }
    }

    /// Whether the device may come again, after so many seconds.
    pub(super) const fn retry_after(self) -> u32 {
        match self {
            Self::Replaced | Self::Elsewhere => 60,
            Self::Slow => 5,
            Self::Blocked | Self::Revoked => 0,
        }
    }

    /// What its peers are told.
    pub(super) const fn for_peers(self) -> CloseReason {
        match self {
            Self::Blocked | Self::Revoked => CloseReason::PeerDismissed,
            Self::Replaced | Self::Elsewhere | Self::Slow => CloseReason::PeerGone,
        }
    }
}
