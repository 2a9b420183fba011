//! The SAM's part of a read (C12): what it is asked for, and another one in its place.

use core::mem;

use countersign_crypto::UnixTime;

use super::repeat::Receiving;
use super::{SAM_ATTEMPTS_MAX, ServerEvent, ServerFlow, State};
use crate::message::ServerMessage;
use crate::sam::{SamError, SamOperation, SamResult};
use crate::{Check, EncryptedData, FlowError};

impl ServerFlow {
    /// Takes what came of [`ServerEvent::Sam`]. A SAM that refuses the card fails the read, and the
    /// reader is told; one that fails itself is replaced, up to [`SAM_ATTEMPTS_MAX`] (C12). The
    /// answer to `Cancel` may be passed on too, and changes nothing.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] for a result that was not asked for (the flow is then dead);
    /// [`FlowError::Over`] for one that came after the end, which may be ignored.
    pub fn sam_done(
        &mut self,
        now: UnixTime,
        result: Result<SamResult, SamError>,
    ) -> Result<(), FlowError> {
        if self.is_decided() {
            return match result {
                Ok(SamResult::Cancelled) => Ok(()),
                _ => Err(FlowError::Over),
            };
        }
        let state = mem::replace(&mut self.state, State::Over);
        match (state, result) {
            (_, Err(_)) if !self.sam_in_use => Err(self.die(now, FlowError::Misuse)),
            (state, Err(error)) => {
                // The SAM has cleared itself, or is dead: nothing to cancel.
                self.sam_in_use = false;
                self.sam_failed(now, state, &error);
                Ok(())
            }
            (State::AwaitChallenge, Ok(SamResult::Challenge(challenge))) => {
                self.turn(now, State::ExpectAnswer, &ServerMessage::CardChallenge(challenge));
                Ok(())
            }
            (State::AwaitProof, Ok(SamResult::Proof(proof))) => {
                let next = State::ExpectPackets(Receiving::default());
                self.turn(now, next, &ServerMessage::SamProof(proof));
                Ok(())
            }
            (State::AwaitSelected { data }, Ok(SamResult::Challenge(_))) => {
                // The card took part when the data were read; there is nobody to challenge now.
                self.decrypt(data);
                Ok(())
            }
            (State::AwaitPlaintext { .. }, Ok(SamResult::Plaintext { data, card_checked })) => {
                self.sam_in_use = false;
                self.finish(now, data, card_checked);
                Ok(())
            }
            _ => Err(self.die(now, FlowError::Misuse)),
        }
    }

    /// Lets another SAM begin where this one failed. The reader is troubled only if the card must
    /// take part again.
    fn sam_failed(&mut self, now: UnixTime, state: State, error: &SamError) {
        if !error.is_fatal() || self.attempts >= SAM_ATTEMPTS_MAX {
            return self.refuse_check(now, Check::from(error));
        }
        let next = match state {
            State::AwaitChallenge | State::AwaitProof => State::AwaitChallenge,
            State::AwaitSelected { data } | State::AwaitPlaintext { data } => {
                State::AwaitSelected { data }
            }
            _ => return self.refuse_check(now, Check::from(error)),
        };
        self.lost = Some(now);
        self.events.push_back(ServerEvent::SamLost { check: Check::from(error) });
        self.begin_sam(next);
    }

    /// The data are complete.
    pub(super) fn received(&mut self, data: EncryptedData) {
        if self.sam_in_use {
            self.decrypt(data);
        } else {
            self.begin_sam(State::AwaitSelected { data });
        }
    }

    fn decrypt(&mut self, data: EncryptedData) {
        let operation = SamOperation::Decrypt(data.copy());
        self.sam(State::AwaitPlaintext { data }, operation);
    }

    /// A SAM is shown the card.
    pub(super) fn begin_sam(&mut self, next: State) {
        let read = self.read.as_ref().expect("the reader has begun");
        let configuration = read.configuration.clone();
        self.attempts += 1;
        self.sam(next, SamOperation::Begin { configuration });
    }

    /// The SAM's turn.
    pub(super) fn sam(&mut self, next: State, operation: SamOperation) {
        self.state = next;
        self.deadline = None;
        self.pace.rest();
        self.sam_in_use = true;
        self.events.push_back(ServerEvent::Sam(operation));
    }

    /// Ends the use of the SAM. Operations that the owner has not taken yet are dropped; if the
    /// first one is among them, the SAM knows nothing of this read.
    pub(super) fn release(&mut self) {
        if !mem::take(&mut self.sam_in_use) {
            return;
        }
        let mut begun = true;
        self.events.retain(|event| match event {
            ServerEvent::Sam(operation) => {
                begun &= !matches!(operation, SamOperation::Begin { .. });
                false
            }
            _ => true,
        });
        if begun {
            self.events.push_back(ServerEvent::Sam(SamOperation::Cancel));
        }
    }
}
