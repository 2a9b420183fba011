//! After the end, over datagrams: what was said last may be lost, and is then asked for again.

use super::*;
use crate::RESULT_RESENDS_MAX;
use crate::message::Missing;

/// A decided read's last words.
pub(super) struct Lingering {
    words: Words,
    until: UnixTime,
}

enum Words {
    /// The result, part by part.
    Result {
        parts: Vec<Zeroizing<Vec<u8>>>,
        sent: UnixTime,
        resends: u8,
    },
    Refused(Zeroizing<Vec<u8>>),
    /// The reader gave up, or has everything: nothing is left to say.
    Nothing,
}

impl Lingering {
    /// With the encoded parts of the result, which were sent `now`.
    pub(super) const fn done(now: UnixTime, parts: Vec<Zeroizing<Vec<u8>>>) -> Self {
        Self { words: Words::Result { parts, sent: now, resends: 0 }, until: now }
    }

    /// With this encoded refusal.
    pub(super) const fn refused(refused: Zeroizing<Vec<u8>>) -> Self {
        Self { words: Words::Refused(refused), until: UnixTime::from_millis(0) }
    }

    pub(super) const fn silent() -> Self {
        Self { words: Words::Nothing, until: UnixTime::from_millis(0) }
    }

    pub(super) const fn until_past(mut self, until: UnixTime) -> Self {
        self.until = until;
        self
    }

    pub(super) const fn until(&self) -> UnixTime {
        self.until
    }

    pub(super) fn is_past(&self, now: UnixTime) -> bool {
        now >= self.until
    }
}

impl ServerFlow {
    /// A message after the end: a late repeat, a question for the result, or another read.
    pub(super) fn handle_late(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        let State::Lingering(mut lingering) = mem::replace(&mut self.state, State::Over) else {
            return Err(FlowError::Over);
        };
        if lingering.is_past(now) {
            return Err(FlowError::Over);
        }
        // From here on an error leaves the flow over, without an event: the read is decided.
        let message = ReaderMessage::decode(bytes)?;
        self.taken += 1;
        if self.taken > MESSAGES_MAX {
            return Err(FlowError::Flood { what: "messages", limit: MESSAGES_MAX });
        }
        match (&mut lingering.words, message) {
            (_, ReaderMessage::ReadBegin(begin))
                if self.read.as_ref().is_none_or(|read| read.read_id != begin.read_id) =>
            {
                return Err(FlowError::Over);
            }
            (words, ReaderMessage::Received | ReaderMessage::Abort(_)) => *words = Words::Nothing,
            (Words::Refused(refused), _) => self.transmits.push_back(refused.clone()),
            (Words::Result { parts, sent, resends }, ReaderMessage::ResendResult(missing)) => {
                // Whoever has nothing yet may have asked before the parts could arrive.
                let waits = missing == Missing::ALL && now.since(*sent) < self.pace.patience();
                if !waits {
                    *resends += 1;
                    if *resends > RESULT_RESENDS_MAX {
                        let limit = RESULT_RESENDS_MAX.into();
                        return Err(FlowError::Flood { what: "resend result", limit });
                    }
                    *sent = now;
                    let asked = (0..).zip(parts.iter()).filter(|(index, _)| missing.has(*index));
                    self.transmits.extend(asked.map(|(_, part)| part.clone()));
                }
            }
            _ => {}
        }
        self.state = State::Lingering(lingering);
        Ok(())
    }
}
