//! The sleeve's side.

use core::time::Duration;
use core::{fmt, mem};
use std::collections::VecDeque;

use countersign_crypto::{Secret, UnixTime};
use zeroize::Zeroizing;

use super::{ANSWER_PATIENCE, FlowError, Output};
use crate::login::PaddedPassword;
use crate::message::{
    APDU_MAX, Atr, CardId, CardLine, DistanceCheckFails, Joined, Joiner, LoginOutcome,
    ManagerMessage, Piece, SleeveMessage, Take, Taken, Times,
};
use crate::policy::distance;

/// What the owner is to know.
pub enum SleeveEvent {
    /// In.
    LoggedIn,
    /// Not in; there may be another try.
    LoginRefused {
        /// How it went: anything but [`LoginOutcome::Ok`].
        outcome: LoginOutcome,
        /// How long to wait before the next try, in seconds.
        seconds: u32,
    },
    /// The cards of this session.
    Cards(Vec<CardLine>),
    /// The card is here.
    Taken(Taken),
    /// The card's response.
    Answer(Zeroizing<Vec<u8>>),
    /// The card was reset; its answer to reset.
    WasReset(Atr),
    /// The manager refuses what was asked. A card that was taken is still there;
    /// [`status_of_refusal`](crate::policy::status_of_refusal) is what it says to the terminal.
    Refused {
        /// The failed check.
        check: String,
    },
    /// The card is given back.
    Released,
    /// A probe came back after so long.
    Probed(Duration),
    /// The card is gone: it is to leave its terminal at once. A command that was under way has no
    /// other answer than this.
    CardLost {
        /// Why.
        check: String,
    },
    /// The terminal's distance check must fail: to be told to whoever pays.
    DistanceCheckFails(DistanceCheckFails),
    /// The manager ended the session; the channel is to be closed.
    Ended {
        /// Why.
        check: String,
    },
}

/// What it is, without what a card said.
impl fmt::Debug for SleeveEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoggedIn => f.write_str("LoggedIn"),
            Self::LoginRefused { outcome, seconds } => {
                write!(f, "LoginRefused({outcome:?}, {seconds} s)")
            }
            Self::Cards(lines) => write!(f, "Cards({lines:?})"),
            Self::Taken(taken) => taken.fmt(f),
            Self::Answer(response) => write!(f, "Answer({} bytes)", response.len()),
            Self::WasReset(_) => f.write_str("WasReset"),
            Self::Refused { check } => write!(f, "Refused({check})"),
            Self::Released => f.write_str("Released"),
            Self::Probed(after) => write!(f, "Probed({after:?})"),
            Self::CardLost { check } => write!(f, "CardLost({check})"),
            Self::DistanceCheckFails(fails) => fails.fmt(f),
            Self::Ended { check } => write!(f, "Ended({check})"),
        }
    }
}

/// Where a session stands.
#[derive(Debug)]
enum State {
    /// Not logged in.
    Outside,
    /// The password was sent.
    LoggingIn {
        due: UnixTime,
    },
    Open(Open),
    /// Ended.
    Over,
}

/// A session after its login.
#[derive(Debug, Default)]
struct Open {
    lease: Option<u64>,
    asked: Option<Asked>,
    /// What waits until a request without a card was answered.
    queued: Option<Request>,
    /// The last request's number.
    number: u32,
}

/// What is asked for.
enum Request {
    List,
    Take(CardId),
    Apdu(Zeroizing<Vec<u8>>),
    Release,
    Probe,
    Reset,
}

/// Nothing of it.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request(..)")
    }
}

/// What was asked for, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Take,
    Apdu {
        distance_check: bool,
    },
    Release,
    Probe,
    Reset,
    /// A command whose card is gone: its answer is for nobody.
    Orphan,
}

/// The request under way.
#[derive(Debug)]
struct Asked {
    kind: Kind,
    number: u32,
    begun: UnixTime,
    due: UnixTime,
    joiner: Option<Joiner>,
}

/// The sleeve's side of its connection.
///
/// Feed it with [`handle`](Self::handle), requests and [`handle_timeout`](Self::handle_timeout);
/// after each, drain [`poll`](Self::poll). A request that is [`FlowError::Misuse`] changed nothing;
/// after any other error the flow is dead.
#[derive(Debug)]
pub struct SleeveFlow {
    readable: bool,
    state: State,
    outputs: VecDeque<Output<SleeveEvent>>,
}

impl SleeveFlow {
    /// Begins, once the channel is connected. `readable`: its records can be read on the way
    /// (`Protection::Mac`); no password is sent then.
    #[must_use]
    pub fn new(readable: bool) -> Self {
        Self { readable, state: State::Outside, outputs: VecDeque::new() }
    }

    /// What comes next: something to send, or an event.
    pub fn poll(&mut self) -> Option<Output<SleeveEvent>> {
        self.outputs.pop_front()
    }

    /// The next message to send, unless an event comes first.
    pub fn poll_transmit(&mut self) -> Option<Zeroizing<Vec<u8>>> {
        match self.outputs.pop_front_if(|next| matches!(next, Output::Send(_)))? {
            Output::Send(bytes) => Some(bytes),
            Output::Event(_) => None,
        }
    }

    /// The next event, unless a message comes first.
    pub fn poll_event(&mut self) -> Option<SleeveEvent> {
        match self.outputs.pop_front_if(|next| matches!(next, Output::Event(_)))? {
            Output::Event(event) => Some(event),
            Output::Send(_) => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        match &self.state {
            State::LoggingIn { due } => Some(*due),
            State::Open(open) => open.asked.as_ref().map(|asked| asked.due),
            State::Outside | State::Over => None,
        }
    }

    /// Gives a manager up that does not answer.
    ///
    /// # Errors
    /// [`FlowError::Timeout`]; the flow is dead then.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Result<(), FlowError> {
        match self.poll_timeout() {
            Some(due) if now >= due => self.die_of(Err(FlowError::Timeout)),
            _ => Ok(()),
        }
    }

    /// True from a request until its answer: the next must wait.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match &self.state {
            State::Outside => false,
            State::LoggingIn { .. } | State::Over => true,
            State::Open(Open { asked, queued, .. }) => {
                let orphan = asked.as_ref().is_none_or(|asked| asked.kind == Kind::Orphan);
                !orphan || queued.is_some()
            }
        }
    }

    /// Sends the password.
    ///
    /// # Errors
    /// [`FlowError::Readable`], [`FlowError::Misuse`] (also for what can be no password).
    pub fn login(&mut self, now: UnixTime, password: &Secret) -> Result<(), FlowError> {
        if self.readable {
            return Err(FlowError::Readable);
        }
        if !matches!(self.state, State::Outside) {
            return Err(FlowError::Misuse);
        }
        let password = PaddedPassword::new(password).map_err(|_| FlowError::Misuse)?;
        self.say(&SleeveMessage::Login(password));
        self.state = State::LoggingIn { due: now.plus(ANSWER_PATIENCE) };
        Ok(())
    }

    /// Asks which cards there are.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] before the login, or while another request is under way.
    pub fn list(&mut self, now: UnixTime) -> Result<(), FlowError> {
        self.ask(now, Request::List)
    }

    /// Asks for a card.
    ///
    /// # Errors
    /// As [`Self::list`]; also with a card in hand.
    pub fn take(&mut self, now: UnixTime, card: &CardId) -> Result<(), FlowError> {
        if self.lease().is_some() || card.is_empty() {
            return Err(FlowError::Misuse);
        }
        self.ask(now, Request::Take(card.clone()))
    }

    /// Sends a command to the card.
    ///
    /// # Errors
    /// As [`Self::list`]; also without a card, or for an APDU that is empty or too long.
    pub fn transmit(&mut self, now: UnixTime, command: &[u8]) -> Result<(), FlowError> {
        if self.lease().is_none() || command.is_empty() || command.len() > APDU_MAX {
            return Err(FlowError::Misuse);
        }
        self.ask(now, Request::Apdu(Zeroizing::new(command.to_vec())))
    }

    /// Asks to reset the card, as the terminal did.
    ///
    /// # Errors
    /// As [`Self::list`]; also without a card.
    pub fn reset(&mut self, now: UnixTime) -> Result<(), FlowError> {
        self.lease().ok_or(FlowError::Misuse)?;
        self.ask(now, Request::Reset)
    }

    /// Gives the card back.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn release(&mut self, now: UnixTime) -> Result<(), FlowError> {
        self.ask(now, Request::Release)
    }

    /// Measures the way: [`SleeveEvent::Probed`].
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn probe(&mut self, now: UnixTime) -> Result<(), FlowError> {
        self.ask(now, Request::Probe)
    }

    /// Tells that probes of the channel follow (A6), with these times in milliseconds.
    ///
    /// # Errors
    /// As [`Self::list`]; also for a time of zero.
    pub fn sleep(&mut self, times: Times) -> Result<(), FlowError> {
        if times.every == 0 || times.within == 0 {
            return Err(FlowError::Misuse);
        }
        self.notify(&SleeveMessage::Sleep(times))
    }

    /// Tells that they are over.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub fn wake(&mut self) -> Result<(), FlowError> {
        self.notify(&SleeveMessage::Awake)
    }

    /// The lease of the card in hand.
    #[must_use]
    pub fn lease(&self) -> Option<u64> {
        match &self.state {
            State::Open(open) => open.lease,
            _ => None,
        }
    }

    /// Takes a message of the manager's.
    ///
    /// # Errors
    /// [`FlowError`]; the flow is dead then.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        self.handle_timeout(now)?;
        let taken = self.take_message(now, bytes);
        self.die_of(taken)
    }

    fn say(&mut self, message: &SleeveMessage) {
        self.outputs.push_back(Output::Send(message.encode()));
    }

    fn tell(&mut self, event: SleeveEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    fn die_of(&mut self, result: Result<(), FlowError>) -> Result<(), FlowError> {
        // What a flow that had ended before still has to tell stays.
        if let Err(error) = result
            && error != FlowError::Dead
        {
            self.state = State::Over;
            self.outputs.clear();
            self.tell(SleeveEvent::Ended { check: error.check().to_owned() });
        }
        result
    }

    fn notify(&mut self, message: &SleeveMessage) -> Result<(), FlowError> {
        match &self.state {
            State::Open(Open { asked: None, .. }) => {
                self.say(message);
                Ok(())
            }
            _ => Err(FlowError::Misuse),
        }
    }

    fn ask(&mut self, now: UnixTime, request: Request) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return Err(FlowError::Misuse) };
        match &open.asked {
            None => self.send(now, request),
            Some(Asked { kind: Kind::Orphan, .. }) if open.queued.is_none() => {
                open.queued = Some(request);
            }
            Some(_) => return Err(FlowError::Misuse),
        }
        Ok(())
    }

    fn send(&mut self, now: UnixTime, request: Request) {
        let State::Open(open) = &mut self.state else { return };
        open.number = open.number.wrapping_add(1);
        let number = open.number;
        let kind = match &request {
            Request::List => Kind::List,
            Request::Take(_) => Kind::Take,
            Request::Apdu(command) => Kind::Apdu { distance_check: distance::is_check(command) },
            Request::Release => Kind::Release,
            Request::Probe => Kind::Probe,
            Request::Reset => Kind::Reset,
        };
        let due = now.plus(ANSWER_PATIENCE);
        open.asked = Some(Asked { kind, number, begun: now, due, joiner: None });
        match request {
            Request::List => self.say(&SleeveMessage::List(number)),
            Request::Take(card) => self.say(&SleeveMessage::Take(Take { number, card })),
            Request::Apdu(command) => {
                for piece in Piece::cut(number, &command) {
                    self.say(&SleeveMessage::Apdu(piece));
                }
            }
            Request::Release => self.say(&SleeveMessage::Release(number)),
            Request::Probe => self.say(&SleeveMessage::Probe(number)),
            Request::Reset => self.say(&SleeveMessage::Reset(number)),
        }
    }

    fn take_message(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        if matches!(self.state, State::Over) {
            return Err(FlowError::Dead);
        }
        let message = ManagerMessage::decode(bytes)?;
        match (&mut self.state, message) {
            (_, ManagerMessage::Ended(check)) => {
                self.state = State::Over;
                self.tell(SleeveEvent::Ended { check: check.as_str().to_owned() });
            }
            (State::LoggingIn { .. }, ManagerMessage::LoginResult(result)) => {
                if result.outcome == LoginOutcome::Ok {
                    self.state = State::Open(Open::default());
                    self.tell(SleeveEvent::LoggedIn);
                } else {
                    self.state = State::Outside;
                    let (outcome, seconds) = (result.outcome, result.seconds);
                    self.tell(SleeveEvent::LoginRefused { outcome, seconds });
                }
            }
            (State::Open(open), ManagerMessage::LeaseEnded(ended)) => {
                if open.lease.take_if(|lease| *lease == ended.lease).is_some() {
                    if let Some(asked) = &mut open.asked
                        && matches!(asked.kind, Kind::Apdu { .. } | Kind::Reset)
                    {
                        asked.kind = Kind::Orphan;
                    }
                    self.tell(SleeveEvent::CardLost { check: ended.check.as_str().to_owned() });
                }
            }
            (State::Open(_), message) => return self.answered(now, message),
            (_, message) => return Err(FlowError::Unexpected { message: message.name() }),
        }
        Ok(())
    }

    /// An answer to the request under way.
    fn answered(&mut self, now: UnixTime, message: ManagerMessage) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return Err(FlowError::Dead) };
        let unexpected = FlowError::Unexpected { message: message.name() };
        let asked = open.asked.take().ok_or(unexpected)?;
        let number = asked.number;
        match (asked.kind, message) {
            (Kind::Apdu { distance_check }, ManagerMessage::ApduResult(piece))
                if piece.number == number =>
            {
                let response = match Joiner::take(asked.joiner, &piece).ok_or(unexpected)? {
                    Joined::Whole(response) => response,
                    Joined::More(joiner) => {
                        let due = now.plus(ANSWER_PATIENCE);
                        open.asked = Some(Asked { joiner: Some(joiner), due, ..asked });
                        return Ok(());
                    }
                };
                if distance_check {
                    self.judge(now.since(asked.begun), &response);
                }
                self.tell(SleeveEvent::Answer(response));
            }
            (Kind::List, ManagerMessage::Cards(cards)) if cards.number == number => {
                self.tell(SleeveEvent::Cards(cards.lines().to_vec()));
            }
            (Kind::Take, ManagerMessage::Taken(taken)) if taken.number == number => {
                open.lease = Some(taken.lease);
                self.tell(SleeveEvent::Taken(taken));
            }
            (Kind::Reset, ManagerMessage::ResetDone(done)) if done.number == number => {
                self.tell(SleeveEvent::WasReset(done.atr));
            }
            (Kind::Release, ManagerMessage::Released(of)) if of == number => {
                open.lease = None;
                self.tell(SleeveEvent::Released);
            }
            (Kind::Probe, ManagerMessage::ProbeResult(of)) if of == number => {
                self.tell(SleeveEvent::Probed(now.since(asked.begun)));
            }
            (Kind::Orphan, ManagerMessage::Refused(refused)) if refused.number == number => {}
            (_, ManagerMessage::Refused(refused)) if refused.number == number => {
                self.tell(SleeveEvent::Refused { check: refused.check.as_str().to_owned() });
            }
            _ => return Err(unexpected),
        }
        self.send_queued(now);
        Ok(())
    }

    fn send_queued(&mut self, now: UnixTime) {
        let State::Open(open) = &mut self.state else { return };
        if let Some(request) = mem::take(&mut open.queued) {
            self.send(now, request);
        }
    }

    /// The finding goes to the manager's audit too; the response has lost no time by it.
    fn judge(&mut self, measured: Duration, response: &[u8]) {
        if let Some(fails) = distance::judge(&distance::EXCHANGE, response, measured) {
            self.say(&SleeveMessage::Distance(fails));
            self.tell(SleeveEvent::DistanceCheckFails(fails));
        }
    }
}
