//! The reader's side of one read (C6, C7, C9, C10, C13, C14), sans I/O.

use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;
use core::{fmt, mem};

use countersign_crypto::{CryptoRng, UnixTime};
use zeroize::Zeroizing;

use crate::cache::{CacheHit, ReaderCache};
use crate::card::{CardDone, CardError, CardWork};
use crate::flow::Pace;
use crate::message::{
    AbortReason, Missing, PLAINTEXT_LEN_MAX, Plaintext, ReadBegin, ReaderMessage, ServerMessage,
    Source,
};
use crate::pieces::Pieces;
use crate::server::SAM_ATTEMPTS_MAX;
use crate::{
    Challenge, Check, Configuration, DataError, Delivery, FlowError, MESSAGES_MAX, Packet,
    PlainData, Proof, RESENDS_MAX, ReadId,
};

mod repeat;

/// How long a read may take in all, unless chosen otherwise. Several times what a real module and
/// card need, so that queueing for a SAM fits.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// What the user of the reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Also read the fingerprint, if the card has one.
    pub fingerprint: bool,
    /// How long the read may take in all.
    pub timeout: Duration,
    /// How the link below the channel delivers.
    pub delivery: Delivery,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { fingerprint: false, timeout: READ_TIMEOUT, delivery: Delivery::default() }
    }
}

/// How a read begins.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "made once per read and taken apart at once")]
pub enum ReadStart {
    /// The cache had the plaintext: done, without any message (C14).
    Answered(PlainData),
    /// The server is needed: drive this flow.
    Started(ReaderFlow),
}

/// A read that ended without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFailure {
    /// The failed check's stable name: the server's if it refused, else our own
    /// [`Check::name`].
    pub check: String,
    /// True if trying again may help.
    pub retry: bool,
    /// The server's incident id, if it gave one.
    pub incident: Option<String>,
}

impl From<Check> for ReadFailure {
    fn from(check: Check) -> Self {
        Self { check: check.name().to_string(), retry: check.is_worth_retrying(), incident: None }
    }
}

/// What the flow tells its owner.
#[derive(Debug)]
pub enum ReaderEvent {
    /// Do this with the card, then call [`ReaderFlow::card_done`].
    Card(CardWork),
    /// The result. The flow is over.
    Plaintext(PlainData),
    /// No result. The flow is over; send what is left to transmit, then close.
    Failed(ReadFailure),
}

/// What is awaited; consumed by what comes.
enum State {
    ExpectChallenge,
    Authenticating,
    ExpectProof,
    ReadingCard,
    ExpectSendPackets { packets: Vec<Packet> },
    ExpectPlaintext(Sent),
    Over,
}

/// The packets are sent; they are kept until the result is there, to be sent again (C10).
struct Sent {
    packets: Vec<Packet>,
    /// When they were sent last.
    at: UnixTime,
    /// The server has shown that it has some of them.
    acknowledged: bool,
    resends: u8,
    /// Datagrams: the parts of the result that have come.
    result: Pieces,
}

impl State {
    const fn awaited(&self) -> &'static str {
        match self {
            Self::ExpectChallenge => "card challenge",
            Self::Authenticating => "the card's answer",
            Self::ExpectProof => "sam proof",
            Self::ReadingCard => "the card's data",
            Self::ExpectSendPackets { .. } => "send packets",
            Self::ExpectPlaintext(_) => "plaintext",
            Self::Over => "nothing",
        }
    }
}

/// The reader's side of one read.
///
/// Grammar: [`handle`](Self::handle) takes one received message (one record's plaintext),
/// [`card_done`](Self::card_done) what came of [`ReaderEvent::Card`],
/// [`handle_timeout`](Self::handle_timeout) the time; then drain
/// [`poll_transmit`](Self::poll_transmit), each item to be sealed as one record, and
/// [`poll_event`](Self::poll_event). The cache is handed in, because it outlives reads.
pub struct ReaderFlow {
    configuration: Configuration,
    options: ReadOptions,
    source: Source,
    deadline: UnixTime,
    state: State,
    pace: Pace,
    /// The message that awaits the server's answer, to say it again.
    last: Zeroizing<Vec<u8>>,
    /// The challenges that the card was given: one per SAM that the server tried.
    challenges: Vec<Challenge>,
    proof: Option<Proof>,
    /// Messages taken from the server.
    taken: u16,
    transmits: VecDeque<Zeroizing<Vec<u8>>>,
    events: VecDeque<ReaderEvent>,
}

impl fmt::Debug for ReaderFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReaderFlow").field("awaits", &self.state.awaited()).finish_non_exhaustive()
    }
}

impl ReaderFlow {
    /// Begins a read of the present card: from the plaintext cache if it can answer (C14), else
    /// with the cached packets (C7), else from the card.
    #[must_use]
    pub fn begin(
        now: UnixTime,
        cache: &mut ReaderCache,
        configuration: &Configuration,
        read_id: ReadId,
        options: ReadOptions,
    ) -> ReadStart {
        cache.card_appeared(configuration);
        let (source, state) = match cache.lookup(configuration, options.fingerprint) {
            CacheHit::Plaintext(plain) => return ReadStart::Answered(plain),
            CacheHit::Packets(packets) => (Source::Cache, State::ExpectSendPackets { packets }),
            CacheHit::Nothing => (Source::Card, State::ExpectChallenge),
        };
        let mut flow = Self {
            configuration: configuration.clone(),
            options,
            source,
            deadline: now.plus(options.timeout),
            state,
            pace: Pace::new(options.delivery),
            last: Zeroizing::default(),
            challenges: Vec::new(),
            proof: None,
            taken: 0,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        };
        let configuration = configuration.clone();
        flow.ask(now, &ReaderMessage::ReadBegin(ReadBegin { read_id, configuration, source }));
        ReadStart::Started(flow)
    }

    /// Where the encrypted data come from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The card that is being read.
    #[must_use]
    pub const fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// True while card and SAM are authenticating each other: looking for the card would make it
    /// begin anew.
    #[must_use]
    pub const fn holds_card(&self) -> bool {
        matches!(self.state, State::Authenticating | State::ExpectProof | State::ReadingCard)
    }

    /// True if the flow is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Takes one message from the server.
    ///
    /// # Errors
    /// [`FlowError`] if the message kills the flow ([`ReaderEvent::Failed`] tells it too) or the
    /// flow is over.
    pub fn handle(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        cache: &mut ReaderCache,
        bytes: &[u8],
    ) -> Result<(), FlowError> {
        if self.is_over() {
            return Err(FlowError::Over);
        }
        let message = ServerMessage::decode(bytes).map_err(|error| self.die(error.into()))?;
        self.taken += 1;
        if self.taken > MESSAGES_MAX {
            return Err(self.die(FlowError::Flood { what: "messages", limit: MESSAGES_MAX }));
        }
        let datagrams = self.options.delivery == Delivery::Datagrams;
        let awaited = self.state.awaited();
        match (mem::replace(&mut self.state, State::Over), message) {
            (state, message) if datagrams && self.is_repeat(&state, &message) => {
                self.state = state;
                self.repeated(now, &message)?;
            }
            // In place of the proof: the SAM failed, and another one begins anew (C12).
            (
                State::ExpectChallenge | State::ExpectProof,
                ServerMessage::CardChallenge(challenge),
            ) if self.challenges.len() < usize::from(SAM_ATTEMPTS_MAX) => {
                self.pace.heard(now);
                self.challenges.push(challenge);
                self.work(State::Authenticating, CardWork::Authenticate { challenge });
            }
            (State::ExpectProof, ServerMessage::SamProof(proof)) => {
                self.pace.heard(now);
                self.proof = Some(proof);
                let (fingerprint, configuration) =
                    (self.options.fingerprint, self.configuration.clone());
                let work = CardWork::ReadEncrypted { proof, fingerprint, configuration };
                self.work(State::ReadingCard, work);
            }
            (State::ExpectSendPackets { packets }, ServerMessage::SendPackets) => {
                self.pace.heard(now);
                self.send_packets(now, packets);
            }
            (State::ExpectPlaintext(sent), ServerMessage::Resend(missing)) => {
                self.resend(now, sent, missing)?;
            }
            (State::ExpectPlaintext(_), ServerMessage::Plaintext(plaintext)) if !datagrams => {
                self.finish(rng, cache, plaintext);
            }
            (State::ExpectPlaintext(sent), ServerMessage::ResultPart(part)) if datagrams => {
                if let Some(plaintext) = self.part(now, sent, &part)? {
                    self.send(&ReaderMessage::Received);
                    self.finish(rng, cache, plaintext);
                }
            }
            (_, ServerMessage::Refused(refused)) => {
                if !refused.retry() {
                    // What was kept may be why: the next read asks the card. A server that is only
                    // busy, or a SAM that broke, is no reason to trouble the card again.
                    cache.forget_data(&self.configuration);
                }
                let incident = refused.incident.as_str();
                self.events.push_back(ReaderEvent::Failed(ReadFailure {
                    check: refused.check.as_str().to_string(),
                    retry: refused.retry(),
                    incident: (!incident.is_empty()).then(|| incident.to_string()),
                }));
            }
            (_, message) => {
                return Err(self.die(FlowError::Unexpected { message: message.name(), awaited }));
            }
        }
        Ok(())
    }

    /// Takes what came of [`ReaderEvent::Card`]. A failing card aborts the read, and the server
    /// is told.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] for a result that was not asked for (the flow is then dead);
    /// [`FlowError::Over`].
    pub fn card_done(
        &mut self,
        now: UnixTime,
        cache: &mut ReaderCache,
        result: Result<CardDone, CardError>,
    ) -> Result<(), FlowError> {
        match (mem::replace(&mut self.state, State::Over), result) {
            (State::Over, _) => Err(FlowError::Over),
            (State::Authenticating | State::ReadingCard, Err(error)) => {
                let (reason, check) = blame(error);
                self.abort(reason, check);
                Ok(())
            }
            (State::Authenticating, Ok(CardDone::Answer(answer))) => {
                self.state = State::ExpectProof;
                self.ask(now, &ReaderMessage::CardAnswer(answer));
                Ok(())
            }
            (State::ReadingCard, Ok(CardDone::Encrypted(data))) => {
                cache.store_encrypted(&self.configuration, &data, self.options.fingerprint);
                self.send_packets(now, data.packets());
                Ok(())
            }
            _ => Err(self.die(FlowError::Misuse)),
        }
    }

    /// The card left the field, or the user cancelled, while the flow awaits the server. Once the
    /// data are sent, a leaving card does not matter any more and is not an abort.
    pub fn card_removed(&mut self) {
        match self.state {
            State::Over | State::ExpectPlaintext(_) | State::ExpectSendPackets { .. } => {}
            _ => self.abort(AbortReason::CardRemoved, Check::CardRemoved),
        }
    }

    /// Gives the read up.
    pub fn cancel(&mut self) {
        if !self.is_over() {
            self.abort(AbortReason::Cancelled, Check::ReaderAborted);
        }
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        if self.is_over() {
            return;
        }
        if now >= self.deadline {
            self.abort(AbortReason::TimedOut, Check::PeerTimeout);
        } else if self.pace.is_due(now) {
            self.say_again(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        if self.is_over() {
            return None;
        }
        Some(self.pace.due().map_or(self.deadline, |due| due.min(self.deadline)))
    }

    /// The next message to seal as one record and send.
    pub fn poll_transmit(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        self.transmits.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ReaderEvent> {
        self.events.pop_front()
    }

    fn send(&mut self, message: &ReaderMessage) {
        self.transmits.push_back(message.encode());
    }

    /// Sends what awaits an answer.
    fn ask(&mut self, now: UnixTime, message: &ReaderMessage) {
        self.last = message.encode();
        self.transmits.push_back(self.last.clone());
        self.pace.said(now);
    }

    fn send_packets(&mut self, now: UnixTime, packets: Vec<Packet>) {
        for packet in &packets {
            self.send(&ReaderMessage::Packet(packet.clone()));
        }
        self.pace.said(now);
        self.state = State::ExpectPlaintext(Sent {
            packets,
            at: now,
            acknowledged: false,
            resends: 0,
            result: Pieces::default(),
        });
    }

    fn work(&mut self, state: State, work: CardWork) {
        self.state = state;
        self.events.push_back(ReaderEvent::Card(work));
    }

    fn finish(&mut self, rng: &mut dyn CryptoRng, cache: &mut ReaderCache, result: Plaintext) {
        let Plaintext { data, cache_plaintext } = result;
        if cache_plaintext {
            // A cache that cannot keep it is only slower the next time.
            let _kept = cache.store_plaintext(rng, &self.configuration, &data);
        }
        self.events.push_back(ReaderEvent::Plaintext(data));
    }

    fn abort(&mut self, reason: AbortReason, check: Check) {
        self.send(&ReaderMessage::Abort(reason));
        self.state = State::Over;
        self.events.push_back(ReaderEvent::Failed(check.into()));
    }

    fn die(&mut self, error: FlowError) -> FlowError {
        self.state = State::Over;
        self.transmits.clear();
        self.events.push_back(ReaderEvent::Failed(error.check().into()));
        error
    }
}

const fn blame(error: CardError) -> (AbortReason, Check) {
    match error {
        CardError::Removed => (AbortReason::CardRemoved, Check::CardRemoved),
        CardError::Swapped => (AbortReason::CardSwapped, Check::CardSwapped),
        CardError::Timeout | CardError::Link => (AbortReason::CardTimeout, Check::CardTimeout),
        CardError::Refused(_) | CardError::Malformed => {
            (AbortReason::CardRefused, Check::CardRefused)
        }
    }
}
