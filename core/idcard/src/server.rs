//! The server's side of one read (C9, C12), sans I/O: the reader on one hand, a SAM on the other.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use core::{fmt, mem};

use countersign_crypto::UnixTime;
use zeroize::Zeroizing;

use crate::message::{
    AbortReason, CHECK_NAME_MAX, INCIDENT_MAX, Plaintext, ReadBegin, ReaderMessage, Refused,
    ServerMessage, Source,
};
use crate::record::DocumentType;
use crate::sam::{SamError, SamOperation, SamResult};
use crate::{
    Check, Configuration, EncryptedData, FlowError, Packet, PacketAssembler, PlainData, ReadId,
    ShortText,
};

/// How long the reader may take for each of its turns, unless configured otherwise. A turn
/// includes reading a few files from a slow card.
pub const READER_TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the reader may take from its first turn to its last packet, unless configured
/// otherwise: a reader that is never late in any one turn must not hold a SAM without end.
pub const READER_TOTAL_TIMEOUT: Duration = Duration::from_secs(20);

/// The server's policy for reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPolicy {
    /// C13: the reader may keep the plaintext in its cache. Off by default.
    pub cache_plaintext: bool,
    /// How long the reader may take for each of its turns.
    pub reader_turn: Duration,
    /// How long the reader may take from its first turn to its last packet.
    pub reader_total: Duration,
}

impl Default for ReadPolicy {
    fn default() -> Self {
        Self {
            cache_plaintext: false,
            reader_turn: READER_TURN_TIMEOUT,
            reader_total: READER_TOTAL_TIMEOUT,
        }
    }
}

/// What the flow tells its owner.
#[derive(Debug)]
pub enum ServerEvent {
    /// The reader began; the moment to record the intent.
    Begun {
        /// The reader's id for this read.
        read_id: ReadId,
        /// Where the encrypted data come from.
        source: Source,
    },
    /// Let a SAM do this, then call [`ServerFlow::sam_done`]. The first one is always `Begin`: the
    /// moment to lease a SAM. After `Cancel` no answer is awaited, and the lease ends when the
    /// SAM has done it.
    Sam(SamOperation),
    /// The plaintext is ready to transmit. The flow is over.
    Done {
        /// Which of the four documents it was.
        document_type: DocumentType,
    },
    /// No result; a refusal is ready to transmit unless the reader gave up. The flow is over.
    Failed {
        /// What failed, in detail: for the audit, under the flow's incident id.
        check: Check,
    },
}

/// What is awaited; consumed by what comes.
enum State {
    ExpectBegin,
    /// Card read: the SAM makes its challenge.
    AwaitChallenge,
    ExpectAnswer,
    AwaitProof,
    ExpectPackets {
        packets: PacketAssembler,
        begin: Option<Configuration>,
    },
    /// Cache read: the data are here, the SAM is being shown the card.
    AwaitSelected {
        data: EncryptedData,
    },
    AwaitPlaintext,
    Over,
}

impl State {
    const fn awaited(&self) -> &'static str {
        match self {
            Self::ExpectBegin => "read begin",
            Self::AwaitChallenge => "the SAM's challenge",
            Self::ExpectAnswer => "card answer",
            Self::AwaitProof => "the SAM's proof",
            Self::ExpectPackets { .. } => "packet",
            Self::AwaitSelected { .. } => "the SAM's selection",
            Self::AwaitPlaintext => "the SAM's plaintext",
            Self::Over => "nothing",
        }
    }
}

/// The server's side of one read.
///
/// Grammar: [`handle`](Self::handle) takes one received message (one record's plaintext),
/// [`sam_done`](Self::sam_done) what came of [`ServerEvent::Sam`],
/// [`handle_timeout`](Self::handle_timeout) the time; then drain
/// [`poll_transmit`](Self::poll_transmit), each item to be sealed as one record, and
/// [`poll_event`](Self::poll_event).
pub struct ServerFlow {
    policy: ReadPolicy,
    incident: ShortText<INCIDENT_MAX>,
    /// When the reader's turn ends; `None` while it is the SAM's turn.
    deadline: Option<UnixTime>,
    /// When all of the reader's turns must be over; known from its first turn on, so that waiting
    /// for a SAM does not count.
    latest: Option<UnixTime>,
    sam_in_use: bool,
    state: State,
    transmits: VecDeque<Zeroizing<Vec<u8>>>,
    events: VecDeque<ServerEvent>,
}

impl fmt::Debug for ServerFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFlow").field("awaits", &self.state.awaited()).finish_non_exhaustive()
    }
}

impl ServerFlow {
    /// A flow that waits for a read to begin. `incident` is told to the reader if a check fails
    /// that depends on a secret.
    #[must_use]
    pub fn new(now: UnixTime, policy: ReadPolicy, incident: ShortText<INCIDENT_MAX>) -> Self {
        Self {
            policy,
            incident,
            deadline: Some(now.plus(policy.reader_turn)),
            latest: None,
            sam_in_use: false,
            state: State::ExpectBegin,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// True if the flow is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes one message from the reader.
    ///
    /// # Errors
    /// [`FlowError`] if the message kills the flow ([`ServerEvent::Failed`] tells it too) or the
    /// flow is over.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        if self.is_over() {
            return Err(FlowError::Over);
        }
        let message = ReaderMessage::decode(bytes).map_err(|error| self.die(error.into()))?;
        let awaited = self.state.awaited();
        match (mem::replace(&mut self.state, State::Over), message) {
            (_, ReaderMessage::Abort(reason)) => {
                self.fail(blame(reason));
                Ok(())
            }
            (State::ExpectBegin, ReaderMessage::ReadBegin(begin)) => {
                self.begin(now, begin);
                Ok(())
            }
            (State::ExpectAnswer, ReaderMessage::CardAnswer(answer)) => {
                let (answer, random) = (answer.answer, answer.random);
                self.sam(State::AwaitProof, SamOperation::Answer { answer, random });
                Ok(())
            }
            (State::ExpectPackets { packets, begin }, ReaderMessage::Packet(packet)) => {
                self.packet(now, packets, begin, &packet)
            }
            (_, message) => {
                Err(self.die(FlowError::Unexpected { message: message.name(), awaited }))
            }
        }
    }

    /// Takes what came of [`ServerEvent::Sam`]. A failing SAM fails the read, and the reader is
    /// told. The answer to `Cancel` may be passed on too, and changes nothing.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] for a result that was not asked for (the flow is then dead);
    /// [`FlowError::Over`] for one that came after the end, which may be ignored.
    pub fn sam_done(
        &mut self,
        now: UnixTime,
        result: Result<SamResult, SamError>,
    ) -> Result<(), FlowError> {
        let state = mem::replace(&mut self.state, State::Over);
        match (state, result) {
            (State::Over, Ok(SamResult::Cancelled)) => Ok(()),
            (State::Over, _) => Err(FlowError::Over),
            (_, Err(_)) if !self.sam_in_use => Err(self.die(FlowError::Misuse)),
            (_, Err(error)) => {
                // The SAM has cleared itself, or is dead: nothing to cancel.
                self.sam_in_use = false;
                self.refuse_check(Check::from(&error));
                Ok(())
            }
            (State::AwaitChallenge, Ok(SamResult::Challenge(challenge))) => {
                self.turn(now, State::ExpectAnswer, &ServerMessage::CardChallenge(challenge));
                Ok(())
            }
            (State::AwaitProof, Ok(SamResult::Proof(proof))) => {
                let next = State::ExpectPackets { packets: PacketAssembler::new(), begin: None };
                self.turn(now, next, &ServerMessage::SamProof(proof));
                Ok(())
            }
            (State::AwaitSelected { data }, Ok(SamResult::Challenge(_))) => {
                // The card took part when the data were read; there is nobody to challenge now.
                self.sam(State::AwaitPlaintext, SamOperation::Decrypt(data));
                Ok(())
            }
            (State::AwaitPlaintext, Ok(SamResult::Plaintext(data))) => {
                self.sam_in_use = false;
                self.finish(data);
                Ok(())
            }
            _ => Err(self.die(FlowError::Misuse)),
        }
    }

    /// Ends the read for a reason of the owner's own, such as no SAM being free. What was not taken
    /// with [`poll_transmit`](Self::poll_transmit) yet is not said any more.
    ///
    /// `check` is a stable name; one that is too long or not visible ASCII becomes `"refused"`.
    pub fn refuse(&mut self, check: &str, retry: bool, incident: ShortText<INCIDENT_MAX>) {
        if self.is_over() {
            return;
        }
        let check =
            ShortText::new(check).or_else(|| ShortText::new("refused")).expect("a short constant");
        self.state = State::Over;
        self.transmits.clear(); // a turn that the reader was not given yet
        self.send(&ServerMessage::Refused(Refused::new(check, retry, incident)));
        self.release();
    }

    /// The connection to the reader is gone: the read ends as if the reader had given it up.
    pub fn reader_gone(&mut self) {
        if !self.is_over() {
            self.fail(Check::ReaderAborted);
        }
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        if self.poll_timeout().is_some_and(|deadline| now >= deadline) {
            self.refuse_check(Check::PeerTimeout);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<UnixTime> {
        if self.is_over() { None } else { self.deadline }
    }

    /// The next message to seal as one record and send.
    pub fn poll_transmit(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    fn begin(&mut self, now: UnixTime, begin: ReadBegin) {
        let ReadBegin { read_id, configuration, source } = begin;
        self.events.push_back(ServerEvent::Begun { read_id, source });
        match source {
            Source::Card => {
                self.sam(State::AwaitChallenge, SamOperation::Begin { configuration });
            }
            // The SAM is leased only when the data are complete: a slow reader holds no SAM.
            Source::Cache => {
                let packets = PacketAssembler::new();
                let next = State::ExpectPackets { packets, begin: Some(configuration) };
                self.turn(now, next, &ServerMessage::SendPackets);
            }
        }
    }

    fn packet(
        &mut self,
        now: UnixTime,
        mut packets: PacketAssembler,
        begin: Option<Configuration>,
        packet: &Packet,
    ) -> Result<(), FlowError> {
        match packets.push(packet).map_err(|error| self.die(error.into()))? {
            None => {
                self.state = State::ExpectPackets { packets, begin };
                self.await_reader(now);
            }
            Some(data) => match begin {
                None => self.sam(State::AwaitPlaintext, SamOperation::Decrypt(data)),
                Some(configuration) => {
                    let operation = SamOperation::Begin { configuration };
                    self.sam(State::AwaitSelected { data }, operation);
                }
            },
        }
        Ok(())
    }

    fn finish(&mut self, data: PlainData) {
        let Some(document_type) = DocumentType::of(data.text()) else {
            return self.refuse_check(Check::Record);
        };
        let cache_plaintext = self.policy.cache_plaintext;
        self.send(&ServerMessage::Plaintext(Plaintext { data, cache_plaintext }));
        self.events.push_back(ServerEvent::Done { document_type });
    }

    /// The reader's turn.
    fn turn(&mut self, now: UnixTime, next: State, message: &ServerMessage) {
        self.state = next;
        self.await_reader(now);
        self.send(message);
    }

    fn await_reader(&mut self, now: UnixTime) {
        let latest = *self.latest.get_or_insert(now.plus(self.policy.reader_total));
        self.deadline = Some(now.plus(self.policy.reader_turn).min(latest));
    }

    /// The SAM's turn.
    fn sam(&mut self, next: State, operation: SamOperation) {
        self.state = next;
        self.deadline = None;
        self.sam_in_use = true;
        self.events.push_back(ServerEvent::Sam(operation));
    }

    fn send(&mut self, message: &ServerMessage) {
        self.transmits.push_back(message.encode());
    }

    fn refuse_check(&mut self, check: Check) {
        let name = ShortText::<CHECK_NAME_MAX>::new(check.public_name());
        let name = name.expect("check names are short; tested");
        let incident = if check.is_secret_dependent() {
            self.incident.clone()
        } else {
            ShortText::new("").expect("the empty text fits")
        };
        let refused = Refused::new(name, check.is_worth_retrying(), incident);
        self.send(&ServerMessage::Refused(refused));
        self.fail(check);
    }

    fn die(&mut self, error: FlowError) -> FlowError {
        self.refuse_check(error.check());
        error
    }

    fn fail(&mut self, check: Check) {
        self.state = State::Over;
        self.events.push_back(ServerEvent::Failed { check });
        self.release();
    }

    /// Ends the use of the SAM. Operations that the owner has not taken yet are dropped; if the
    /// first one is among them, the SAM knows nothing of this read.
    fn release(&mut self) {
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

const fn blame(reason: AbortReason) -> Check {
    match reason {
        AbortReason::CardRemoved => Check::CardRemoved,
        AbortReason::CardTimeout => Check::CardTimeout,
        AbortReason::CardRefused => Check::CardRefused,
        AbortReason::Cancelled => Check::ReaderAborted,
        AbortReason::TimedOut => Check::PeerTimeout,
    }
}
