//! The server's side of one read (C9, C10, C12), sans I/O: the reader on one hand, a SAM on the
//! other.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use core::{fmt, mem};

use countersign_crypto::UnixTime;
use zeroize::Zeroizing;

use crate::flow::Pace;
use crate::message::{
    AbortReason, CHECK_NAME_MAX, CardAnswer, INCIDENT_MAX, Plaintext, ReadBegin, ReaderMessage,
    Refused, ServerMessage, Source,
};
use crate::record::DocumentType;
use crate::sam::SamOperation;
use crate::{
    Check, Delivery, EncryptedData, FlowError, MESSAGES_MAX, PlainData, ReadId, ShortText,
};

mod linger;
mod repeat;
mod sam;

use linger::Lingering;
use repeat::Receiving;

/// SAMs that one read may try, the first one included (C12).
pub const SAM_ATTEMPTS_MAX: u8 = 3;
/// How long a server keeps its last words over datagrams, the result among them: as long as a
/// reader may still ask for them.
pub const LAST_WORDS_KEPT: Duration = crate::reader::READ_TIMEOUT;

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
    /// The SAM failed in mid-read and is of no use any more: the lease ends. `Begin` for another
    /// one follows (C12).
    SamLost {
        /// What was wrong with it.
        check: Check,
    },
    /// The plaintext is ready to transmit. The read is decided.
    Done {
        /// Which of the four documents it was.
        document_type: DocumentType,
        /// Whether the SAM said that the data are this card's.
        card_checked: bool,
    },
    /// No result; a refusal is ready to transmit unless the reader gave up. The read is decided.
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
    ExpectPackets(Receiving),
    /// The data are here, a SAM is being shown the card: it was read from the cache, or the SAM
    /// that had it was lost.
    AwaitSelected {
        data: EncryptedData,
    },
    AwaitPlaintext {
        /// Kept for another SAM, should this one fail.
        data: EncryptedData,
    },
    /// Decided, over datagrams: the last words may be asked for again.
    Lingering(Lingering),
    Over,
}

impl State {
    const fn awaited(&self) -> &'static str {
        match self {
            Self::ExpectBegin => "read begin",
            Self::AwaitChallenge => "the SAM's challenge",
            Self::ExpectAnswer => "card answer",
            Self::AwaitProof => "the SAM's proof",
            Self::ExpectPackets(_) => "packet",
            Self::AwaitSelected { .. } => "the SAM's selection",
            Self::AwaitPlaintext { .. } => "the SAM's plaintext",
            Self::Lingering(_) => "the end",
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
    delivery: Delivery,
    incident: ShortText<INCIDENT_MAX>,
    /// When the reader's turn ends; `None` while it is the SAM's turn.
    deadline: Option<UnixTime>,
    /// When all of the reader's turns must be over; known from its first turn on, so that waiting
    /// for a SAM does not count.
    latest: Option<UnixTime>,
    sam_in_use: bool,
    /// SAMs tried.
    attempts: u8,
    /// When the last one was lost. The time until the reader's next turn is not the reader's.
    lost: Option<UnixTime>,
    state: State,
    /// What the reader began with.
    read: Option<ReadBegin>,
    /// Answers of the card that were taken: one per SAM.
    answers: Vec<CardAnswer>,
    pace: Pace,
    /// The message that awaits the reader's answer, to say it again.
    last: Zeroizing<Vec<u8>>,
    /// Messages taken from the reader.
    taken: u16,
    resent: u32,
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
    pub fn new(
        now: UnixTime,
        policy: ReadPolicy,
        delivery: Delivery,
        incident: ShortText<INCIDENT_MAX>,
    ) -> Self {
        Self {
            policy,
            delivery,
            incident,
            deadline: Some(now.plus(policy.reader_turn)),
            latest: None,
            sam_in_use: false,
            attempts: 0,
            lost: None,
            state: State::ExpectBegin,
            read: None,
            answers: Vec::new(),
            pace: Pace::new(delivery),
            last: Zeroizing::default(),
            taken: 0,
            resent: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// True if the flow takes no message any more. Over a stream this is so once the read is
    /// decided.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// True if the read has its result or its refusal. Over datagrams the reader may then still
    /// ask for these last words, for [`LAST_WORDS_KEPT`]; no SAM is used, nothing more is decided,
    /// and nothing has to be awaited.
    #[must_use]
    pub const fn is_decided(&self) -> bool {
        matches!(self.state, State::Lingering(_) | State::Over)
    }

    /// How many packets were asked for again (C10).
    #[must_use]
    pub const fn resent(&self) -> u32 {
        self.resent
    }

    /// Takes one message from the reader.
    ///
    /// # Errors
    /// [`FlowError`] if the message kills the flow ([`ServerEvent::Failed`] tells it too, unless
    /// the read was decided) or the flow is over. [`FlowError::Over`] also for a message that
    /// begins another read when this one is decided: give it to a new flow.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        if matches!(self.state, State::Lingering(_)) {
            return self.handle_late(now, bytes);
        }
        if self.is_over() {
            return Err(FlowError::Over);
        }
        let message = ReaderMessage::decode(bytes).map_err(|error| self.die(now, error.into()))?;
        self.taken += 1;
        if self.taken > MESSAGES_MAX {
            let error = FlowError::Flood { what: "messages", limit: MESSAGES_MAX };
            return Err(self.die(now, error));
        }
        let awaited = self.state.awaited();
        match (mem::replace(&mut self.state, State::Over), message) {
            (_, ReaderMessage::Abort(reason)) => {
                self.fail(now, blame(reason), None);
                Ok(())
            }
            (State::ExpectBegin, ReaderMessage::ReadBegin(begin)) => {
                self.begin(now, begin);
                Ok(())
            }
            // An answer that was taken was to another SAM's challenge.
            (State::ExpectAnswer, ReaderMessage::CardAnswer(answer))
                if !self.answers.contains(&answer) =>
            {
                self.pace.heard(now);
                let operation =
                    SamOperation::Answer { answer: answer.answer, random: answer.random };
                self.answers.push(answer);
                self.sam(State::AwaitProof, operation);
                Ok(())
            }
            (State::ExpectPackets(receiving), ReaderMessage::Packet(packet)) => {
                self.packet(now, receiving, &packet)
            }
            (state, message) if self.is_repeat(&state, &message) => {
                self.state = state;
                self.repeated(now, &message);
                Ok(())
            }
            (_, message) => {
                let error = FlowError::Unexpected { message: message.name(), awaited };
                Err(self.die(now, error))
            }
        }
    }

    /// Ends the read for a reason of the owner's own, such as no SAM being free. What was not taken
    /// with [`poll_transmit`](Self::poll_transmit) yet is not said any more.
    ///
    /// `check` is a stable name; one that is too long or not visible ASCII becomes `"refused"`.
    pub fn refuse(
        &mut self,
        now: UnixTime,
        check: &str,
        retry: bool,
        incident: ShortText<INCIDENT_MAX>,
    ) {
        if !self.is_decided() {
            let last_words = self.replace_words(check, retry, incident);
            self.end(now, last_words);
            self.release();
        }
    }

    /// Withdraws the result after [`ServerEvent::Done`], because it could not be recorded: it
    /// must not have been taken with [`poll_transmit`](Self::poll_transmit) yet. The reader is
    /// refused as with [`refuse`](Self::refuse), and nothing can be asked for any more.
    pub fn withhold(
        &mut self,
        now: UnixTime,
        check: &str,
        retry: bool,
        incident: ShortText<INCIDENT_MAX>,
    ) {
        if self.is_decided() {
            let last_words = self.replace_words(check, retry, incident);
            self.end(now, last_words);
        }
    }

    /// A refusal in place of what was to be sent.
    fn replace_words(
        &mut self,
        check: &str,
        retry: bool,
        incident: ShortText<INCIDENT_MAX>,
    ) -> Lingering {
        let check =
            ShortText::new(check).or_else(|| ShortText::new("refused")).expect("a short constant");
        self.transmits.clear();
        let refused = ServerMessage::Refused(Refused::new(check, retry, incident)).encode();
        self.send(refused.clone());
        Lingering::refused(refused)
    }

    /// The connection to the reader is gone: the read ends as if the reader had given it up.
    pub fn reader_gone(&mut self) {
        if !self.is_decided() {
            self.state = State::Over;
            self.events.push_back(ServerEvent::Failed { check: Check::ReaderAborted });
            self.release();
        }
        self.state = State::Over;
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        match &self.state {
            State::Over => {}
            State::Lingering(lingering) if lingering.is_past(now) => self.state = State::Over,
            State::Lingering(_) => {}
            _ if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.refuse_check(now, Check::PeerTimeout);
            }
            _ if self.pace.is_due(now) => self.say_again(now),
            _ => {}
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest. Of a read that
    /// [is decided](Self::is_decided) it wipes the result.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        match &self.state {
            State::Over => None,
            State::Lingering(lingering) => Some(lingering.until()),
            _ => self.deadline.into_iter().chain(self.pace.due()).min(),
        }
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
        let (read_id, source) = (begin.read_id, begin.source);
        self.read = Some(begin);
        self.events.push_back(ServerEvent::Begun { read_id, source });
        match source {
            Source::Card => self.begin_sam(State::AwaitChallenge),
            // The SAM is leased only when the data are complete: a slow reader holds no SAM.
            Source::Cache => {
                let next = State::ExpectPackets(Receiving::default());
                self.turn(now, next, &ServerMessage::SendPackets);
            }
        }
    }

    fn finish(&mut self, now: UnixTime, data: PlainData, card_checked: bool) {
        let Some(document_type) = DocumentType::of(data.text()) else {
            return self.refuse_check(now, Check::Record);
        };
        let plaintext = Plaintext { data, cache_plaintext: self.policy.cache_plaintext };
        match self.delivery {
            Delivery::Stream => {
                self.send(ServerMessage::Plaintext(plaintext).encode());
                self.state = State::Over;
            }
            Delivery::Datagrams => {
                let parts: Vec<_> = plaintext
                    .parts()
                    .into_iter()
                    .map(|part| ServerMessage::ResultPart(part).encode())
                    .collect();
                parts.iter().for_each(|part| self.send(part.clone()));
                self.end(now, Lingering::done(now, parts));
            }
        }
        self.events.push_back(ServerEvent::Done { document_type, card_checked });
    }

    /// The reader's turn.
    fn turn(&mut self, now: UnixTime, next: State, message: &ServerMessage) {
        self.state = next;
        if let (Some(lost), Some(latest)) = (self.lost.take(), &mut self.latest) {
            *latest = latest.plus(now.since(lost));
        }
        self.await_reader(now);
        self.ask(now, message);
    }

    /// Sends what awaits an answer.
    fn ask(&mut self, now: UnixTime, message: &ServerMessage) {
        self.last = message.encode();
        self.send(self.last.clone());
        self.pace.said(now);
    }

    fn await_reader(&mut self, now: UnixTime) {
        let latest = *self.latest.get_or_insert(now.plus(self.policy.reader_total));
        self.deadline = Some(now.plus(self.policy.reader_turn).min(latest));
    }

    fn send(&mut self, message: Zeroizing<Vec<u8>>) {
        self.transmits.push_back(message);
    }

    fn refuse_check(&mut self, now: UnixTime, check: Check) {
        let name = ShortText::<CHECK_NAME_MAX>::new(check.public_name());
        let name = name.expect("check names are short; tested");
        let incident = if check.is_secret_dependent() {
            self.incident.clone()
        } else {
            ShortText::new("").expect("the empty text fits")
        };
        let refused = Refused::new(name, check.is_worth_retrying(), incident);
        let refused = ServerMessage::Refused(refused).encode();
        self.send(refused.clone());
        self.fail(now, check, Some(refused));
    }

    fn die(&mut self, now: UnixTime, error: FlowError) -> FlowError {
        self.refuse_check(now, error.check());
        self.state = State::Over;
        error
    }

    /// Ends without a result. `refused` is what the reader is told; nothing if it gave up itself.
    fn fail(&mut self, now: UnixTime, check: Check, refused: Option<Zeroizing<Vec<u8>>>) {
        let last_words = refused.map_or_else(Lingering::silent, Lingering::refused);
        self.end(now, last_words);
        self.events.push_back(ServerEvent::Failed { check });
        self.release();
    }

    /// The read is decided. Over a stream the last words arrive; over datagrams they may have to
    /// be said again.
    fn end(&mut self, now: UnixTime, last_words: Lingering) {
        self.pace.rest();
        self.last = Zeroizing::default();
        self.state = match (self.delivery, &self.read) {
            (Delivery::Datagrams, Some(_)) => {
                State::Lingering(last_words.until_past(now.plus(LAST_WORDS_KEPT)))
            }
            _ => State::Over,
        };
    }
}

const fn blame(reason: AbortReason) -> Check {
    match reason {
        AbortReason::CardRemoved => Check::CardRemoved,
        AbortReason::CardTimeout => Check::CardTimeout,
        AbortReason::CardRefused => Check::CardRefused,
        AbortReason::Cancelled => Check::ReaderAborted,
        AbortReason::TimedOut => Check::PeerTimeout,
        AbortReason::CardSwapped => Check::CardSwapped,
    }
}
