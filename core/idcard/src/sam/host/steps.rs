//! The steps between commands: what is sent, and what an answer leads to.

use core::mem;
use core::time::Duration;

use countersign_crypto::UnixTime;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{Pending, SamHost, Stage};
use crate::sam::{
    BridgeWork, CHUNK_MAX, CardNumberCheck, CardSide, Command, Response, SamError, SamEvent, SamId,
    SamResult, Status, Sw3,
};
use crate::{CHALLENGE_LEN, Challenge, Configuration, DN_LEN, EncryptedData, PlainData, Proof};

impl SamHost {
    pub(super) fn send(&mut self, now: UnixTime, command: Command) {
        let frame = command.to_frame();
        self.transmits.push_back(frame.clone());
        let deadline = now.plus(self.timeout(&command));
        self.pending = Some(Pending { command, frame, attempts: 1, deadline });
    }

    pub(super) fn timeout(&self, command: &Command) -> Duration {
        let timeouts = &self.config.timeouts;
        match command {
            Command::Reset | Command::Status | Command::SamId => timeouts.start,
            Command::Find => timeouts.find,
            Command::Select | Command::CardNumber => timeouts.select,
            Command::ReadTextPhoto | Command::ReadTextPhotoFingerprint => timeouts.read,
            Command::RemoteCard(_) | Command::CardAnswer { .. } | Command::EncryptedData { .. } => {
                timeouts.card_side
            }
        }
    }

    /// A step on the card side: by the emulator's commands, or by the bridge.
    pub(super) fn card_side(&mut self, now: UnixTime, work: BridgeWork) {
        match (self.config.card_side, work) {
            (CardSide::Bridge, work) => {
                self.bridge_deadline = Some(now.plus(self.config.timeouts.card_side));
                self.events.push_back(SamEvent::Bridge(work));
            }
            (CardSide::EmulatorExtension, BridgeWork::RemoteCard(configuration)) => {
                self.send(now, Command::RemoteCard(configuration));
            }
            (CardSide::EmulatorExtension, BridgeWork::CardAnswer { answer, random }) => {
                self.send(now, Command::CardAnswer { answer, random });
            }
            (CardSide::EmulatorExtension, BridgeWork::EncryptedData(data)) => {
                self.load_chunk(now, data, 0);
            }
        }
    }

    pub(super) fn load(&mut self, now: UnixTime, data: EncryptedData) {
        if self.config.card_side == CardSide::Bridge {
            let copy = EncryptedData::new(Zeroizing::new(data.as_bytes().to_vec()))
                .expect("the original has this length");
            self.stage = Stage::Loading { data, next: 1 };
            self.card_side(now, BridgeWork::EncryptedData(copy));
        } else {
            self.load_chunk(now, data, 0);
        }
    }

    /// Sends chunk `index`, or the read command after the last one.
    pub(super) fn load_chunk(&mut self, now: UnixTime, data: EncryptedData, index: usize) {
        let total = data.as_bytes().len().div_ceil(CHUNK_MAX);
        let Some(chunk) = data.as_bytes().chunks(CHUNK_MAX).nth(index) else {
            return self.read(now, data);
        };
        let byte = |value| u8::try_from(value).expect("PACKETS_MAX chunks at most");
        let command = Command::EncryptedData {
            index: byte(index),
            total: byte(total),
            chunk: Zeroizing::new(chunk.to_vec()),
        };
        self.stage = Stage::Loading { data, next: index + 1 };
        self.send(now, command);
    }

    pub(super) fn find(&mut self, now: UnixTime, challenge: Challenge) {
        self.stage = Stage::Finding { challenge };
        self.send(now, Command::Find);
    }

    pub(super) fn selected(&mut self, now: UnixTime, challenge: Challenge) {
        match (self.redo.take(), self.config.card_side) {
            (Some(data), CardSide::EmulatorExtension) => self.load_chunk(now, data, 0),
            (Some(data), CardSide::Bridge) => self.read(now, data),
            (None, _) => {
                self.stage = Stage::Selected;
                self.events.push_back(SamEvent::Done(SamResult::Challenge(challenge)));
            }
        }
    }

    pub(super) fn proven(&mut self, proof: Proof) {
        self.stage = Stage::Authenticated;
        self.events.push_back(SamEvent::Done(SamResult::Proof(proof)));
    }

    pub(super) fn read(&mut self, now: UnixTime, data: EncryptedData) {
        let command = if data.has_fingerprint() {
            Command::ReadTextPhotoFingerprint
        } else {
            Command::ReadTextPhoto
        };
        self.reads += 1;
        self.stage = Stage::Reading { data };
        self.send(now, command);
    }

    /// The read's answer arrived damaged. A module forgets its card with the read, so sending the
    /// command again is not enough: the card is shown, found and selected anew.
    pub(super) fn read_again(&mut self, now: UnixTime, data: EncryptedData) {
        self.redo = Some(data);
        match (self.config.card_side, self.configuration.clone()) {
            (CardSide::EmulatorExtension, Some(configuration)) => {
                self.stage = Stage::Presenting;
                self.send(now, Command::RemoteCard(configuration));
            }
            // A bridge still has its card in the module's field; its challenge is over.
            _ => self.find(now, [0; CHALLENGE_LEN]),
        }
    }

    pub(super) fn cancel(&mut self, now: UnixTime) -> Result<(), SamError> {
        match self.stage {
            Stage::New | Stage::Resetting | Stage::Testing | Stage::Identifying => {
                return Err(SamError::NotReady);
            }
            Stage::Idle => self.events.push_back(SamEvent::Done(SamResult::Cancelled)),
            // The reset is on its way; its end tells the owner.
            Stage::Clearing { .. } => {}
            // One command at a time: the answer to the open one comes first.
            _ if self.pending.is_some() || self.bridge_deadline.is_some() => {
                self.cancelling = true;
            }
            _ => self.clear(now, SamEvent::Done(SamResult::Cancelled)),
        }
        Ok(())
    }

    /// Makes the module forget the card, then tells `then`.
    pub(super) fn clear(&mut self, now: UnixTime, then: SamEvent) {
        self.redo = None;
        self.configuration = None;
        self.cancelling = false;
        self.stage = Stage::Clearing { then };
        self.send(now, Command::Reset);
    }

    /// An answer arrived damaged: the module has run the command.
    pub(super) fn damaged(&mut self, now: UnixTime) {
        match mem::replace(&mut self.stage, Stage::Dead) {
            Stage::Reading { data }
                if !self.cancelling && self.reads <= u16::from(self.config.checksum_retries) =>
            {
                self.decoder.clear();
                self.pending = None;
                self.read_again(now, data);
            }
            Stage::Reading { .. } if !self.cancelling => {
                let during = self.pending.as_ref().map_or("read", |open| open.command.name());
                self.die(SamError::Damaged { during, attempts: self.reads });
            }
            stage => {
                self.stage = stage;
                self.resend(now);
            }
        }
    }

    /// Sends the open command again, unless it was sent too often.
    pub(super) fn resend(&mut self, now: UnixTime) {
        self.decoder.clear();
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        if pending.attempts > u16::from(self.config.checksum_retries) {
            let (during, attempts) = (pending.command.name(), pending.attempts);
            return self.die(SamError::Damaged { during, attempts });
        }
        pending.attempts += 1;
        pending.deadline = now.plus(self.timeout(&pending.command));
        self.transmits.push_back(pending.frame.clone());
        self.pending = Some(pending);
    }

    pub(super) fn answer(&mut self, now: UnixTime, body: &[u8]) {
        let Some(response) = Response::parse(body) else {
            return self.resend(now);
        };
        if response.status == Status::Known(Sw3::BadChecksum) {
            return self.resend(now);
        }
        if self.is_stale(&response) {
            return;
        }
        let Some(Pending { command, .. }) = self.pending.take() else {
            return;
        };
        let during = command.name();
        let expected = if command == Command::Find { Sw3::CardFound } else { Sw3::Ok };
        match response.status {
            Status::Known(status) if status == expected => {
                if !response.has_ok_len(&command) {
                    self.die(SamError::Malformed { during });
                } else if self.cancelling {
                    self.cancelled(now);
                } else {
                    self.advance(now, during, &response);
                }
            }
            Status::Known(status) if self.may_be_unchecked(status) => self.unchecked(),
            Status::Known(status) if status.blames_card() && self.is_reading() => {
                if self.cancelling {
                    self.cancelled(now);
                } else {
                    self.clear(now, SamEvent::Failed(SamError::Card { during, status }));
                }
            }
            Status::VendorTimeout => self.die(SamError::Timeout { during }),
            status => self.die(SamError::Unexpected { during, status }),
        }
    }

    /// The module said whose data it gave. A module that confuses cards is of no use until it is
    /// started anew, and the data are nobody's to have.
    pub(super) fn numbered(&mut self, plain: PlainData, number: &[u8]) {
        let shown = self.configuration.as_ref().map(Configuration::dn);
        let given = number.last_chunk::<DN_LEN>();
        match shown.zip(given) {
            Some((shown, given)) if bool::from(shown.ct_eq(given)) => self.read_done(plain, true),
            _ => self.die(SamError::OtherCard),
        }
    }

    /// Whether this answers the question whose data they are, with "I cannot tell", and the
    /// configuration takes that for an answer.
    pub(super) fn may_be_unchecked(&self, status: Sw3) -> bool {
        matches!(self.stage, Stage::Numbering { .. })
            && !self.cancelling
            && self.config.card_number == CardNumberCheck::IfKnown
            && status.has_no_answer()
    }

    pub(super) fn unchecked(&mut self) {
        if let Stage::Numbering { plain } = mem::replace(&mut self.stage, Stage::Dead) {
            self.read_done(plain, false);
        }
    }

    fn read_done(&mut self, data: PlainData, card_checked: bool) {
        self.stage = Stage::Idle;
        self.configuration = None;
        let result = SamResult::Plaintext { data, card_checked };
        self.events.push_back(SamEvent::Done(result));
    }

    pub(super) fn cancelled(&mut self, now: UnixTime) {
        self.clear(now, SamEvent::Done(SamResult::Cancelled));
    }

    /// Whether this can only answer a command that an earlier owner of the port left behind. Such
    /// answers may come until the id, whose length no other answer has, shows that host and module
    /// are in step.
    pub(super) fn is_stale(&self, response: &Response) -> bool {
        let starting = matches!(self.stage, Stage::Resetting | Stage::Testing | Stage::Identifying);
        let Some(Pending { command, .. }) = self.pending.as_ref().filter(|_| starting) else {
            return false;
        };
        match response.status {
            Status::Known(Sw3::Ok) => !response.has_ok_len(command),
            Status::Known(status) => status == Sw3::CardFound || status.blames_card(),
            _ => false,
        }
    }

    pub(super) const fn is_reading(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Resetting
                | Stage::Testing
                | Stage::Identifying
                | Stage::Checking
                | Stage::Clearing { .. }
        )
    }

    /// The awaited command succeeded: each stage is consumed and makes the next one.
    pub(super) fn advance(&mut self, now: UnixTime, during: &'static str, response: &Response) {
        let data = response.data();
        let challenge = || <[u8; CHALLENGE_LEN]>::try_from(data).ok();
        match mem::replace(&mut self.stage, Stage::Dead) {
            Stage::Resetting => {
                self.stage = Stage::Testing;
                self.send(now, Command::Status);
            }
            Stage::Testing => {
                self.stage = Stage::Identifying;
                self.send(now, Command::SamId);
            }
            Stage::Identifying => match data.try_into() {
                Ok(id) => {
                    self.stage = Stage::Idle;
                    self.events.push_back(SamEvent::Ready(SamId::new(id)));
                }
                Err(_) => self.die(SamError::Malformed { during }),
            },
            Stage::Checking => {
                self.stage = Stage::Idle;
                self.events.push_back(SamEvent::Done(SamResult::Healthy));
            }
            Stage::Presenting => match challenge() {
                Some(challenge) => self.find(now, challenge),
                None => self.die(SamError::Malformed { during }),
            },
            Stage::Finding { challenge } => {
                self.stage = Stage::Selecting { challenge };
                self.send(now, Command::Select);
            }
            Stage::Selecting { challenge } => self.selected(now, challenge),
            Stage::Proving => match challenge() {
                Some(proof) => self.proven(proof),
                None => self.die(SamError::Malformed { during }),
            },
            Stage::Loading { data, next } => self.load_chunk(now, data, next),
            Stage::Reading { data: read } => {
                match PlainData::from_sam(data, read.has_fingerprint()) {
                    Some(plain) => {
                        self.stage = Stage::Numbering { plain };
                        self.send(now, Command::CardNumber);
                    }
                    None => self.die(SamError::Malformed { during }),
                }
            }
            Stage::Numbering { plain } => self.numbered(plain, data),
            Stage::Clearing { then } => {
                self.stage = Stage::Idle;
                self.events.push_back(then);
            }
            Stage::New | Stage::Idle | Stage::Selected | Stage::Authenticated | Stage::Dead => {
                self.die(SamError::Malformed { during });
            }
        }
    }

    pub(super) fn die(&mut self, error: SamError) {
        if !mem::replace(&mut self.dead, true) {
            self.events.push_back(SamEvent::Failed(error));
        }
        self.stage = Stage::Dead;
        self.pending = None;
        self.redo = None;
        self.configuration = None;
        self.bridge_deadline = None;
        self.transmits.clear();
        self.decoder.clear();
    }
}
