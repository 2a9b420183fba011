use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use countersign_crypto::UnixTime;
use zeroize::Zeroizing;

use super::frame::{Decoder, Item};
use super::{
    BridgeOutcome, BridgeWork, Command, SamConfig, SamError, SamEvent, SamOperation, SamResult,
};
use crate::{Challenge, Configuration, EncryptedData, PlainData};

mod steps;

/// A command that was sent and waits for its answer.
struct Pending {
    command: Command,
    frame: Zeroizing<Vec<u8>>,
    attempts: u16,
    deadline: UnixTime,
}

/// Where the host stands between commands; while one is [`Pending`], what its answer is for.
enum Stage {
    New,
    Resetting,
    Testing,
    Identifying,
    Idle,
    /// Waits for the module to say that it is well.
    Checking,
    /// Waits for the module (or bridge) to take the remote card.
    Presenting,
    Finding {
        challenge: Challenge,
    },
    Selecting {
        challenge: Challenge,
    },
    /// The card is selected and not authenticated.
    Selected,
    /// Waits for the module's proof.
    Proving,
    /// Card and SAM have authenticated each other.
    Authenticated,
    /// Waits until the module has chunk `next - 1`.
    Loading {
        data: EncryptedData,
        next: usize,
    },
    Reading {
        data: EncryptedData,
    },
    /// The data are here; waits for the module to say whose they are.
    Numbering {
        plain: PlainData,
    },
    /// Waits for the reset that makes the module forget the card; then this is told.
    Clearing {
        then: SamEvent,
    },
    Dead,
}

/// Host side of one SAM module: a sans-I/O machine that runs one operation at a time.
///
/// Grammar: [`start`](Self::start) and [`operate`](Self::operate) ask for something;
/// [`handle`](Self::handle) takes bytes from the port; [`handle_timeout`](Self::handle_timeout)
/// takes the time; after any of these, drain [`poll_transmit`](Self::poll_transmit) (bytes for
/// the port) and [`poll_event`](Self::poll_event), and call again at
/// [`poll_timeout`](Self::poll_timeout). After a fatal error the host is dead: close the port,
/// reopen it, make a new host.
pub struct SamHost {
    config: SamConfig,
    decoder: Decoder,
    stage: Stage,
    pending: Option<Pending>,
    bridge_deadline: Option<UnixTime>,
    /// The card of the open read, to show it again.
    configuration: Option<Configuration>,
    /// How often the open read's read command was sent.
    reads: u16,
    /// Set while the card is shown again because the read's answer was damaged.
    redo: Option<EncryptedData>,
    cancelling: bool,
    dead: bool,
    transmits: VecDeque<Zeroizing<Vec<u8>>>,
    events: VecDeque<SamEvent>,
}

impl core::fmt::Debug for SamHost {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let during = self.pending.as_ref().map(|pending| pending.command.name());
        f.debug_struct("SamHost").field("during", &during).finish_non_exhaustive()
    }
}

impl SamHost {
    /// A host for a freshly opened port.
    #[must_use]
    pub fn new(config: SamConfig) -> Self {
        Self {
            config,
            decoder: Decoder::new(),
            stage: Stage::New,
            pending: None,
            bridge_deadline: None,
            configuration: None,
            reads: 0,
            redo: None,
            cancelling: false,
            dead: false,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Starts: reset, status, id; then [`SamEvent::Ready`].
    ///
    /// # Errors
    /// [`SamError::NotReady`] if already started, [`SamError::Dead`].
    pub fn start(&mut self, now: UnixTime) -> Result<(), SamError> {
        match self.stage {
            Stage::New => {
                self.stage = Stage::Resetting;
                self.send(now, Command::Reset);
                Ok(())
            }
            Stage::Dead => Err(SamError::Dead),
            _ => Err(SamError::NotReady),
        }
    }

    /// True if a read can begin.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// True after a fatal error.
    #[must_use]
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    /// Asks for an operation; its end is one [`SamEvent::Done`] or [`SamEvent::Failed`].
    ///
    /// # Errors
    /// [`SamError::NotReady`] if the operation does not fit now, [`SamError::Dead`].
    pub fn operate(&mut self, now: UnixTime, operation: SamOperation) -> Result<(), SamError> {
        match (&self.stage, operation) {
            (Stage::Dead, _) => Err(SamError::Dead),
            (Stage::Idle, SamOperation::Begin { configuration }) => {
                self.stage = Stage::Presenting;
                self.configuration = Some(configuration.clone());
                self.reads = 0;
                self.card_side(now, BridgeWork::RemoteCard(configuration));
                Ok(())
            }
            (Stage::Selected, SamOperation::Answer { answer, random }) => {
                self.stage = Stage::Proving;
                self.card_side(now, BridgeWork::CardAnswer { answer, random });
                Ok(())
            }
            (Stage::Selected | Stage::Authenticated, SamOperation::Decrypt(data)) => {
                self.load(now, data);
                Ok(())
            }
            (_, SamOperation::Cancel) => self.cancel(now),
            (Stage::Idle, SamOperation::Status) => {
                self.stage = Stage::Checking;
                self.send(now, Command::Status);
                Ok(())
            }
            _ => Err(SamError::NotReady),
        }
    }

    /// Takes what came of [`SamEvent::Bridge`].
    ///
    /// # Errors
    /// [`SamError::NotReady`] if no bridge step is open.
    pub fn bridge_done(&mut self, now: UnixTime, outcome: BridgeOutcome) -> Result<(), SamError> {
        if self.bridge_deadline.take().is_none() {
            return Err(SamError::NotReady);
        }
        if self.cancelling {
            self.clear(now, SamEvent::Done(SamResult::Cancelled));
            return Ok(());
        }
        match (mem::replace(&mut self.stage, Stage::Dead), outcome) {
            (Stage::Presenting, BridgeOutcome::Challenge(challenge)) => self.find(now, challenge),
            (Stage::Proving, BridgeOutcome::Proof(proof)) => self.proven(proof),
            (Stage::Loading { data, .. }, BridgeOutcome::Accepted) => {
                self.read(now, data);
            }
            (_, BridgeOutcome::Refused(status)) => {
                let error = SamError::Card { during: "card side", status };
                self.clear(now, SamEvent::Failed(error));
            }
            _ => self.die(SamError::Malformed { during: "card side" }),
        }
        Ok(())
    }

    /// Takes bytes from the port.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) {
        let mut input = bytes;
        while self.pending.is_some() {
            match self.decoder.next(&mut input) {
                None => return,
                Some(Item::Damaged) => {
                    self.damaged(now);
                    return;
                }
                Some(Item::Frame(body)) => self.answer(now, &body),
            }
        }
        // Nobody asked for what is left: noise, or a late answer.
        self.decoder.clear();
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            let during =
                self.pending.as_ref().map_or("card side", |pending| pending.command.name());
            self.die(SamError::Timeout { during });
        }
    }

    /// The owner reports that the port failed or was unplugged.
    pub fn gone(&mut self) {
        self.die(SamError::Gone);
    }

    /// Bytes for the port.
    pub fn poll_transmit(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<SamEvent> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        self.pending.as_ref().map(|pending| pending.deadline).or(self.bridge_deadline)
    }
}
