use core::time::Duration;

use countersign_crypto::UnixTime;
use thiserror::Error;

use crate::message::MessageError;
use crate::{Check, DataError};

/// How long a party waits over datagrams before it says its last message again for the first
/// time. One and a half times the turnaround measured, where that is longer.
pub const REPEAT_FIRST: Duration = Duration::from_millis(250);
/// The longest pause between two repeats, unless the turnaround is longer; each pause is twice the
/// one before.
pub const REPEAT_MAX: Duration = Duration::from_secs(1);
/// The longest that any turnaround measured makes a party wait.
pub const PATIENCE_MAX: Duration = Duration::from_secs(3);
/// Most repeats of one message. The timeouts of a turn and of a read end it sooner.
pub const REPEATS_MAX: u8 = 32;
/// How long nothing new must have come over datagrams before what is missing is asked for (C10).
/// A packet that was only overtaken arrives within this.
pub const RESEND_AFTER: Duration = Duration::from_millis(100);
/// Most times that packets are asked for again in one read (C10), and most times that the reader
/// answers.
pub const RESENDS_MAX: u8 = 16;
/// Most times that parts of one result are asked for again and sent.
pub const RESULT_RESENDS_MAX: u8 = 32;
/// Most messages that a party takes from its peer in one read.
pub const MESSAGES_MAX: u16 = 256;

/// How the link below the channel delivers what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// All of it, in order, or the connection ends.
    #[default]
    Stream,
    /// Each message on its own: it may be lost, overtaken or come late.
    Datagrams,
}

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
    /// The peer's packets, or what it asks for of ours, do not fit together.
    #[error("the peer's packets do not fit together: {0}")]
    Packets(#[from] DataError),
    /// The peer sent more messages, or asked for more, than any read needs.
    #[error("the peer floods: more than {limit} of '{what}' in one read")]
    Flood {
        /// What there is too much of.
        what: &'static str,
        /// The bound that was passed.
        limit: u16,
    },
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
            Self::Flood { .. } => Check::PeerFlood,
            Self::Unexpected { .. } | Self::Misuse | Self::Over => Check::MessageUnexpected,
        }
    }
}

/// When a party says again over datagrams what it said last, and how fast its peer answers. Over a
/// stream it never asks for anything.
pub(crate) struct Pace {
    delivery: Delivery,
    /// When the message that awaits an answer was said first.
    said: Option<UnixTime>,
    /// The shortest turnaround seen: the link's, with as little of the peer's own work as may be.
    turnaround: Option<Duration>,
    pause: Duration,
    repeats: u8,
    due: Option<UnixTime>,
}

impl Pace {
    pub(crate) const fn new(delivery: Delivery) -> Self {
        Self { delivery, said: None, turnaround: None, pause: REPEAT_FIRST, repeats: 0, due: None }
    }

    /// How long an answer may take before its absence means anything.
    pub(crate) fn patience(&self) -> Duration {
        self.turnaround
            .map_or(REPEAT_FIRST, |took| (took * 3 / 2).clamp(REPEAT_FIRST, PATIENCE_MAX))
    }

    /// Something was said that awaits an answer.
    pub(crate) fn said(&mut self, now: UnixTime) {
        self.said = Some(now);
        self.pause = self.patience();
        self.repeats = 0;
        self.wait(now, self.pause);
    }

    /// It was said again.
    pub(crate) fn again(&mut self, now: UnixTime) {
        self.pause = (self.pause * 2).min(REPEAT_MAX.max(self.patience()));
        self.repeats = self.repeats.saturating_add(1);
        if self.repeats < REPEATS_MAX {
            self.wait(now, self.pause);
        } else {
            self.due = None;
        }
    }

    /// The answer came, or its first piece.
    pub(crate) fn heard(&mut self, now: UnixTime) {
        if let Some(said) = self.said.take() {
            let took = now.since(said);
            self.turnaround = Some(self.turnaround.map_or(took, |before| before.min(took)));
        }
        self.due = None;
    }

    /// A piece of the answer came and more are to follow.
    pub(crate) fn heard_a_piece(&mut self, now: UnixTime) {
        self.heard(now);
        self.wait(now, RESEND_AFTER);
    }

    /// It is not the peer's turn.
    pub(crate) const fn rest(&mut self) {
        self.due = None;
    }

    /// Nothing was heard since the last thing said.
    pub(crate) const fn is_unheard(&self) -> bool {
        self.said.is_some()
    }

    pub(crate) const fn due(&self) -> Option<UnixTime> {
        self.due
    }

    pub(crate) fn is_due(&self, now: UnixTime) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    fn wait(&mut self, now: UnixTime, pause: Duration) {
        self.due = match self.delivery {
            Delivery::Stream => None,
            Delivery::Datagrams => Some(now.plus(pause)),
        };
    }
}
