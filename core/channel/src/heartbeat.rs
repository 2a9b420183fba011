//! The heartbeat of sleep mode (A6): one side probes, the other answers and watches.

use core::time::Duration;

use countersign_crypto::UnixTime;

use crate::Error;

/// The times of row A6; both sides are configured with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// *t1*: how often the sleeping side sends a probe.
    pub every: Duration,
    /// *t2*: how long it waits for the answer; and by how much a probe may be late for the side
    /// that watches.
    pub within: Duration,
}

/// What this side does about it.
#[derive(Debug, Default)]
pub(crate) enum Pulse {
    #[default]
    Off,
    /// This side sleeps: a probe is due at `probe_at`, an answer by `answer_by`.
    Probing { times: Heartbeat, probe_at: UnixTime, answer_by: Option<UnixTime> },
    /// This side watches: something authentic must arrive by `heard_by`.
    Watching { times: Heartbeat, heard_by: UnixTime },
}

/// What the time asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Probe,
    /// The peer has been silent for too long.
    Silence,
}

impl Pulse {
    pub(crate) fn probing(now: UnixTime, times: Heartbeat) -> Self {
        Self::Probing { times, probe_at: now.plus(times.every), answer_by: None }
    }

    pub(crate) fn watching(now: UnixTime, times: Heartbeat) -> Self {
        Self::Watching { times, heard_by: now.plus(times.every).plus(times.within) }
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixTime> {
        match self {
            Self::Off => None,
            Self::Probing { probe_at, answer_by, .. } => {
                Some(answer_by.map_or(*probe_at, |answer_by| answer_by.min(*probe_at)))
            }
            Self::Watching { heard_by, .. } => Some(*heard_by),
        }
    }

    /// Silence is looked at first: a late timer must not send a probe to a peer that is given up.
    pub(crate) fn handle_timeout(&mut self, now: UnixTime) -> Due {
        match self {
            Self::Probing { answer_by: Some(answer_by), .. } if now >= *answer_by => Due::Silence,
            Self::Watching { heard_by, .. } if now >= *heard_by => Due::Silence,
            Self::Probing { times, probe_at, answer_by } if now >= *probe_at => {
                *probe_at = now.plus(times.every);
                // An answer that is still awaited keeps its deadline.
                answer_by.get_or_insert(now.plus(times.within));
                Due::Probe
            }
            _ => Due::Nothing,
        }
    }

    /// The answer to a probe arrived.
    pub(crate) fn answered(&mut self) {
        if let Self::Probing { answer_by, .. } = self {
            *answer_by = None;
        }
    }

    /// A new authentic record arrived.
    pub(crate) fn heard(&mut self, now: UnixTime) {
        if let Self::Watching { times, heard_by } = self {
            *heard_by = now.plus(times.every).plus(times.within);
        }
    }
}

impl Heartbeat {
    pub(crate) const fn check(&self) -> Result<(), Error> {
        if self.every.is_zero() || self.within.is_zero() {
            return Err(Error::Misuse("a heartbeat's times must not be zero"));
        }
        Ok(())
    }
}
