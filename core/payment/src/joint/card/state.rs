use alloc::vec::Vec;

use countersign_crypto::{Digest, UnixTime};

use super::{CONSENT_TIME, SHOW_TIME, TAKE_OUT_TIME};
use crate::Line;
use crate::joint::{Form, JointPassword};

/// Where a card stands, as GET DATA `DF06` says it in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has nothing.
    Idle,
    /// It has a transaction, and has not signed it.
    Loaded,
    /// It has signed, and waits to be taken out of the terminal.
    Signed,
    /// It was taken out, and asks its holder.
    Asking,
    /// Its holder has consented: it shows the joint password.
    Released,
    /// Its holder has said no.
    Declined,
    /// Its holder said nothing in time.
    TimedOut,
    /// Its PIN was wrong too often.
    Blocked,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::Loaded,
        Self::Signed,
        Self::Asking,
        Self::Released,
        Self::Declined,
        Self::TimedOut,
        Self::Blocked,
    ];

    /// Its byte.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Idle => 0,
            Self::Loaded => 1,
            Self::Signed => 2,
            Self::Asking => 3,
            Self::Released => 4,
            Self::Declined => 5,
            Self::TimedOut => 6,
            Self::Blocked => 7,
        }
    }

    /// The phase of this byte.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.code() == code)
    }

    /// The name, for people and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Loaded => "loaded",
            Self::Signed => "signed",
            Self::Asking => "asking",
            Self::Released => "released",
            Self::Declined => "declined",
            Self::TimedOut => "timed-out",
            Self::Blocked => "blocked",
        }
    }
}

/// What a card's display shows.
#[derive(Debug)]
pub enum View<'a> {
    /// Nothing.
    Idle,
    /// That it is in use: a transaction came, and is not signed yet, or the terminal does not have
    /// all of the signature yet.
    Loaded,
    /// That it is to be taken out of the terminal, and what it signed.
    TakeOut {
        /// The transaction.
        lines: &'a [Line],
    },
    /// What it signed, and whether its holder wants it: it waits for the PIN, or a no.
    Consent {
        /// The transaction.
        lines: &'a [Line],
        /// Tries that are left of the PIN; none if the chip does not say.
        tries_left: Option<u8>,
    },
    /// The joint password, to be typed, scanned, or read without contact.
    Password {
        /// The transaction.
        lines: &'a [Line],
        /// The joint password.
        password: &'a JointPassword,
    },
    /// That its holder has declined.
    Declined,
    /// That it took too long.
    TimedOut,
    /// That its PIN was wrong too often, and the PUK is needed.
    Blocked,
}

/// Why there is no joint password any more, as long as nothing new is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Declined,
    TimedOut,
    Blocked,
}

/// How a signing ended without a joint password.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub(super) why: Ending,
    /// What the terminal must show to be told so without contact; none if nothing was signed.
    pub(super) release: Option<Digest>,
}

/// A joint password that is kept, and what it belongs to. Wiped when it is dropped.
pub(super) struct Kept {
    pub(super) lines: Vec<Line>,
    pub(super) password: JointPassword,
    /// What the terminal must show to be given it without contact.
    pub(super) release: Digest,
    /// When this state began.
    pub(super) since: UnixTime,
}

/// What a card remembers of a transaction.
pub(super) enum State {
    Idle(Option<Ended>),
    Loaded {
        transaction: Vec<u8>,
        lines: Vec<Line>,
        form: Option<Form>,
    },
    Signed {
        kept: Kept,
        /// The terminal has the whole answer.
        is_delivered: bool,
    },
    Asking(Kept),
    Released(Kept),
}

impl State {
    pub(super) const fn phase(&self) -> Phase {
        match self {
            Self::Idle(None) => Phase::Idle,
            Self::Idle(Some(Ended { why: Ending::Declined, .. })) => Phase::Declined,
            Self::Idle(Some(Ended { why: Ending::TimedOut, .. })) => Phase::TimedOut,
            Self::Idle(Some(Ended { why: Ending::Blocked, .. })) => Phase::Blocked,
            Self::Loaded { .. } => Phase::Loaded,
            Self::Signed { .. } => Phase::Signed,
            Self::Asking(_) => Phase::Asking,
            Self::Released(_) => Phase::Released,
        }
    }

    /// What the terminal shows that has this signing's signature; none if nobody has one.
    pub(super) const fn release(&self) -> Option<&Digest> {
        match self {
            Self::Signed { kept, is_delivered: true } => Some(&kept.release),
            Self::Asking(kept) | Self::Released(kept) => Some(&kept.release),
            Self::Idle(Some(ended)) => ended.release.as_ref(),
            Self::Idle(None) | Self::Loaded { .. } | Self::Signed { .. } => None,
        }
    }

    /// Whether what is kept is too old.
    pub(super) fn is_late(&self, now: UnixTime) -> bool {
        let (since, allowed) = match self {
            Self::Idle(_) | Self::Loaded { .. } => return false,
            Self::Signed { kept, .. } => (kept.since, TAKE_OUT_TIME),
            Self::Asking(kept) => (kept.since, CONSENT_TIME),
            Self::Released(kept) => (kept.since, SHOW_TIME),
        };
        now.since(since) >= allowed
    }
}
