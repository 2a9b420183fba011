//! The manager's side.

mod event;

use core::mem;
use std::collections::VecDeque;

use countersign_crypto::UnixTime;
use countersign_iso7816::LinkError;
use zeroize::Zeroizing;

pub use event::ManagerEvent;

use super::{CONSENT_PATIENCE, FlowError, Output, PATIENCE};
use crate::login::{Access, Locked, PaddedPassword, Verdict};
use crate::message::{
    APDU_MAX, Atr, CardLine, Cards, CheckName, Joined, Joiner, Label, LeaseEnded, LoginOutcome,
    LoginResult, ManagerMessage, Piece, Refused, ResetDone, SleeveMessage, Taken,
};
use crate::policy::{Policy, distance};

/// Most logins that one connection may try; then it ends.
pub const LOGINS_PER_SESSION: u32 = 3;

/// On which terms a sleeve is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The channel's records can be read on the way (`Protection::Mac`): no login then.
    pub readable: bool,
    /// Who is at the manager is asked after each right password.
    pub ask_consent: bool,
}

/// A card for the sleeve.
#[derive(Debug)]
pub struct CardTaken {
    /// The lease's number.
    pub lease: u64,
    /// How long it lasts without use, in seconds.
    pub seconds: u32,
    /// The card's answer to reset.
    pub atr: Atr,
    /// What it is called.
    pub label: Label,
    /// What may reach it.
    pub policy: Policy,
}

/// Where a session stands.
#[derive(Debug)]
enum State {
    /// No login yet, or none that was right.
    Outside,
    /// The owner verifies a password.
    Verifying,
    /// Who is at the manager is asked.
    Consenting { access: Access, until: UnixTime },
    /// Logged in.
    Open(Box<Open>),
    /// Ended.
    Over,
}

/// A session after its login.
#[derive(Debug, Default)]
struct Open {
    card: Option<Held>,
    work: Work,
    /// The last request's number.
    number: u32,
    /// The card answered a distance check, of which the sleeve may say once that it fails.
    measured: bool,
}

/// The card of a session.
#[derive(Debug)]
struct Held {
    lease: u64,
    policy: Policy,
}

/// What is under way.
#[derive(Debug, Default)]
enum Work {
    /// The sleeve's turn.
    #[default]
    Nothing,
    /// A command comes in pieces.
    Joining {
        joiner: Joiner,
        due: UnixTime,
    },
    /// The owner's turn.
    List,
    Take,
    Transmit,
    Reset,
}

/// The manager's side of one sleeve's connection.
///
/// Feed it with [`handle`](Self::handle), the answers to its events and
/// [`handle_timeout`](Self::handle_timeout); after each, drain [`poll`](Self::poll).
#[derive(Debug)]
pub struct ManagerFlow {
    terms: Terms,
    state: State,
    logins: u32,
    due: Option<UnixTime>,
    outputs: VecDeque<Output<ManagerEvent>>,
}

impl ManagerFlow {
    /// Begins, once the channel is connected.
    #[must_use]
    pub fn new(terms: Terms, now: UnixTime) -> Self {
        let due = Some(now.plus(PATIENCE));
        Self { terms, state: State::Outside, logins: 0, due, outputs: VecDeque::new() }
    }

    /// What comes next: something to send, or an event. What follows an event that was not taken
    /// stays where it is, and so does what follows a message.
    pub fn poll(&mut self) -> Option<Output<ManagerEvent>> {
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
    pub fn poll_event(&mut self) -> Option<ManagerEvent> {
        match self.outputs.pop_front_if(|next| matches!(next, Output::Event(_)))? {
            Output::Event(event) => Some(event),
            Output::Send(_) => None,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        match &self.state {
            State::Outside => self.due,
            State::Consenting { until, .. } => Some(*until),
            State::Open(open) => match &open.work {
                Work::Joining { due, .. } => Some(*due),
                _ => None,
            },
            State::Verifying | State::Over => None,
        }
    }

    /// Gives a sleeve up that says nothing, or an owner who does not consent.
    ///
    /// # Errors
    /// [`FlowError::Timeout`]; the flow is dead then.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Result<(), FlowError> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return Ok(());
        }
        if let State::Consenting { .. } = self.state {
            return self.consented(now, false);
        }
        self.die_of(Err(FlowError::Timeout))
    }

    /// Takes a message of the sleeve's.
    ///
    /// # Errors
    /// [`FlowError`]; the flow is dead then.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        self.handle_timeout(now)?;
        let taken = self.take(now, bytes);
        self.die_of(taken)
    }

    /// Ends the session from this side: the sleeve is revoked, the manager shuts down. The sleeve
    /// is told.
    pub fn end(&mut self, check: &str) {
        if !matches!(self.state, State::Over) {
            let check = CheckName::clipped(check);
            self.say(&ManagerMessage::Ended(check.clone()));
            self.over(check.as_str());
        }
    }

    /// A lease ended by itself: it expired, was revoked, or its card is gone. What is under way
    /// with the card is refused; what the owner still answers to it is for nobody.
    pub fn lease_ended(&mut self, lease: u64, check: &str) {
        let State::Open(open) = &mut self.state else { return };
        if open.card.take_if(|held| held.lease == lease).is_none() {
            return;
        }
        let check = CheckName::clipped(check);
        let number = open.number;
        let refused = matches!(open.work, Work::Transmit | Work::Reset);
        if refused {
            open.work = Work::Nothing;
        }
        self.say(&ManagerMessage::LeaseEnded(LeaseEnded { lease, check: check.clone() }));
        if refused {
            self.say(&ManagerMessage::Refused(Refused { number, check }));
        }
    }

    fn say(&mut self, message: &ManagerMessage) {
        self.outputs.push_back(Output::Send(message.encode()));
    }

    fn tell(&mut self, event: ManagerEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    fn over(&mut self, check: &str) {
        (self.state, self.due) = (State::Over, None);
        self.tell(ManagerEvent::Ended { check: check.to_owned() });
    }

    fn die_of(&mut self, result: Result<(), FlowError>) -> Result<(), FlowError> {
        // What a flow that had ended before still has to tell stays.
        if let Err(error) = result
            && error != FlowError::Dead
        {
            (self.state, self.due) = (State::Over, None);
            self.outputs.clear();
            self.tell(ManagerEvent::Ended { check: error.check().to_owned() });
        }
        result
    }

    fn take(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        if matches!(self.state, State::Over) {
            return Err(FlowError::Dead);
        }
        let message = SleeveMessage::decode(bytes)?;
        match (&mut self.state, message) {
            (State::Outside, SleeveMessage::Login(password)) => self.login(password),
            (State::Open(_), message) => return self.take_open(now, message),
            (_, message) => return Err(FlowError::Unexpected { message: message.name() }),
        }
        Ok(())
    }

    fn login(&mut self, password: PaddedPassword) {
        if self.terms.readable {
            return self.end(FlowError::Readable.check());
        }
        self.logins += 1;
        self.state = State::Verifying;
        self.tell(ManagerEvent::Verify(password));
    }

    /// Takes what the password is. Nothing here depends on which of the right ones it was.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if that was not asked; the flow is dead then. After the end of a
    /// session it is for nobody.
    pub fn verified(
        &mut self,
        now: UnixTime,
        verdict: Verdict,
        wait: Option<Locked>,
    ) -> Result<(), FlowError> {
        if !matches!(self.state, State::Verifying) {
            return self.unasked();
        }
        if !verdict.is_right() {
            let seconds = wait.map_or(0, |locked| locked.seconds);
            self.turn_away(now, LoginResult { outcome: LoginOutcome::Refused, seconds });
        } else if self.terms.ask_consent {
            let until = now.plus(CONSENT_PATIENCE);
            self.state = State::Consenting { access: verdict.access(), until };
            self.tell(ManagerEvent::Consent);
        } else {
            self.open(verdict.access());
        }
        Ok(())
    }

    /// The sleeve is locked out, and the password was not looked at.
    ///
    /// # Errors
    /// As [`Self::verified`].
    pub fn locked(&mut self, now: UnixTime, locked: Locked) -> Result<(), FlowError> {
        if !matches!(self.state, State::Verifying) {
            return self.unasked();
        }
        let seconds = locked.seconds;
        self.turn_away(now, LoginResult { outcome: LoginOutcome::Locked, seconds });
        Ok(())
    }

    /// Takes the word of who is at the manager.
    ///
    /// # Errors
    /// None so far: a word that comes after [`CONSENT_PATIENCE`], or after the end, is just too
    /// late.
    pub fn consented(&mut self, now: UnixTime, yes: bool) -> Result<(), FlowError> {
        let State::Consenting { access, until } = self.state else { return Ok(()) };
        if yes && now < until {
            self.open(access);
        } else {
            self.turn_away(now, LoginResult { outcome: LoginOutcome::Declined, seconds: 0 });
        }
        Ok(())
    }

    fn open(&mut self, access: Access) {
        (self.state, self.due) = (State::Open(Box::default()), None);
        let result = LoginResult { outcome: LoginOutcome::Ok, seconds: 0 };
        self.say(&ManagerMessage::LoginResult(result));
        self.tell(ManagerEvent::LoggedIn(access));
    }

    fn turn_away(&mut self, now: UnixTime, result: LoginResult) {
        self.say(&ManagerMessage::LoginResult(result));
        (self.state, self.due) = (State::Outside, Some(now.plus(PATIENCE)));
        if self.logins >= LOGINS_PER_SESSION {
            self.end("login-attempts");
        }
    }

    fn misused(&mut self) -> Result<(), FlowError> {
        self.die_of(Err(FlowError::Misuse))
    }

    fn take_open(&mut self, now: UnixTime, message: SleeveMessage) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return Err(FlowError::Dead) };
        let unexpected = Err(FlowError::Unexpected { message: message.name() });
        let next = open.number.wrapping_add(1);
        let measured = mem::take(&mut open.measured);
        match (mem::take(&mut open.work), message) {
            (Work::Joining { joiner, .. }, SleeveMessage::Apdu(piece)) => {
                return self.join(now, Some(joiner), &piece);
            }
            (Work::Nothing, SleeveMessage::Apdu(piece)) if piece.number == next => {
                open.number = next;
                return self.join(now, None, &piece);
            }
            (Work::Nothing, SleeveMessage::List(number)) if number == next => {
                (open.number, open.work) = (next, Work::List);
                self.tell(ManagerEvent::List);
            }
            (Work::Nothing, SleeveMessage::Take(take))
                if take.number == next && open.card.is_none() =>
            {
                (open.number, open.work) = (next, Work::Take);
                self.tell(ManagerEvent::Take { card: take.card.as_str().to_owned() });
            }
            (Work::Nothing, SleeveMessage::Release(number)) if number == next => {
                open.number = next;
                let held = open.card.take();
                if let Some(Held { lease, .. }) = held {
                    self.tell(ManagerEvent::Released { lease });
                }
                self.say(&ManagerMessage::Released(number));
            }
            (Work::Nothing, SleeveMessage::Reset(number)) if number == next => {
                open.number = next;
                match &mut open.card {
                    Some(held) => {
                        held.policy.reset();
                        open.work = Work::Reset;
                        let lease = held.lease;
                        self.tell(ManagerEvent::Reset { lease });
                    }
                    None => self.refuse(NO_LEASE),
                }
            }
            (Work::Nothing, SleeveMessage::Probe(number)) if number == next => {
                open.number = next;
                self.say(&ManagerMessage::ProbeResult(number));
            }
            (Work::Nothing, SleeveMessage::Sleep(times)) => self.tell(ManagerEvent::Sleep(times)),
            (Work::Nothing, SleeveMessage::Awake) => self.tell(ManagerEvent::Awake),
            (Work::Nothing, SleeveMessage::Distance(fails)) if measured => {
                self.tell(ManagerEvent::DistanceCheckFails(fails));
            }
            _ => return unexpected,
        }
        Ok(())
    }

    fn join(
        &mut self,
        now: UnixTime,
        before: Option<Joiner>,
        piece: &Piece,
    ) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return Err(FlowError::Dead) };
        let number = before.as_ref().map_or(piece.number, Joiner::number);
        let joined = Joiner::take(before, piece).filter(|_| number == open.number);
        match joined.ok_or(FlowError::Unexpected { message: "apdu" })? {
            Joined::More(joiner) => {
                open.work = Work::Joining { joiner, due: now.plus(PATIENCE) };
            }
            Joined::Whole(command) => self.command(now, command),
        }
        Ok(())
    }

    /// A whole command: past the policy, to the card.
    fn command(&mut self, now: UnixTime, command: Zeroizing<Vec<u8>>) {
        let State::Open(open) = &mut self.state else { return };
        let Some(held) = &mut open.card else { return self.refuse(NO_LEASE) };
        let lease = held.lease;
        match held.policy.check(now, &command) {
            Ok(()) => {
                let usage = held.policy.changed_usage();
                open.work = Work::Transmit;
                self.tell(ManagerEvent::Transmit { lease, command, usage });
            }
            Err(refusal) => {
                let exchange = held.policy.exchange().clone();
                self.tell(ManagerEvent::Exchanged { lease, exchange, usage: None });
                self.refuse(refusal.check());
            }
        }
    }

    /// The request under way is refused.
    fn refuse(&mut self, check: &str) {
        let State::Open(open) = &mut self.state else { return };
        open.work = Work::Nothing;
        let (number, check) = (open.number, CheckName::clipped(check));
        self.say(&ManagerMessage::Refused(Refused { number, check }));
    }

    /// Takes the cards of this session.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if they were not asked for, or are too many; the flow is dead then.
    pub fn listed(&mut self, lines: Vec<CardLine>) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return self.unasked() };
        let cards = Cards::new(open.number, lines);
        match (mem::take(&mut open.work), cards) {
            (Work::List, Some(cards)) => self.say(&ManagerMessage::Cards(cards)),
            _ => return self.misused(),
        }
        Ok(())
    }

    /// Takes the card that was asked for, or the check that refuses it.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if that was not asked; the flow is dead then.
    pub fn taken(
        &mut self,
        now: UnixTime,
        taken: Result<CardTaken, &str>,
    ) -> Result<(), FlowError> {
        let State::Open(open) = &mut self.state else { return self.unasked() };
        if !matches!(open.work, Work::Take) {
            return self.misused();
        }
        match taken {
            Ok(CardTaken { lease, seconds, atr, label, policy }) => {
                let limits = policy.limits(now);
                (open.card, open.work) = (Some(Held { lease, policy }), Work::Nothing);
                let taken = Taken::new(open.number, lease, seconds, (atr, label), limits);
                self.say(&ManagerMessage::Taken(taken));
            }
            Err(check) => self.refuse(check),
        }
        Ok(())
    }

    /// Takes the card's response to the command of this lease. Without one the card is gone: the
    /// lease is over, and nothing is sent again. For a lease that has ended nothing happens.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if that was not asked; the flow is dead then.
    pub fn answered(
        &mut self,
        lease: u64,
        response: Result<&[u8], &LinkError>,
    ) -> Result<(), FlowError> {
        let Some(open) = self.open_with(lease) else { return Ok(()) };
        let Open { card: Some(held), work: Work::Transmit, .. } = open else {
            return self.misused();
        };
        let outcome = match response {
            // Without a status word it is no response (ISO/IEC 7816-4, 5.3).
            Ok(response) if !(2..=APDU_MAX).contains(&response.len()) => Err(BAD_RESPONSE),
            Ok(response) => held.policy.answered(response).map_err(|no| no.check()),
            Err(error) => Err(error.check()),
        };
        let usage = held.policy.changed_usage();
        let mut exchange = held.policy.exchange().clone();
        exchange.check = outcome.err();
        open.measured = exchange.instruction == Some(distance::EXCHANGE) && outcome.is_ok();
        self.tell(ManagerEvent::Exchanged { lease, exchange, usage });
        match (response, outcome) {
            (Ok(response), Ok(())) => self.pass_on(response),
            (Ok(_), Err(check)) => self.refuse(check),
            (Err(_), Err(check)) => self.lease_ended(lease, check),
            (Err(error), Ok(())) => self.lease_ended(lease, error.check()),
        }
        Ok(())
    }

    fn pass_on(&mut self, response: &[u8]) {
        let State::Open(open) = &mut self.state else { return };
        open.work = Work::Nothing;
        for piece in Piece::cut(open.number, response) {
            self.say(&ManagerMessage::ApduResult(piece));
        }
    }

    /// The card of this lease was reset, and this is its answer; or it is gone. For a lease that
    /// has ended nothing happens.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if that was not asked; the flow is dead then.
    pub fn was_reset(&mut self, lease: u64, atr: Result<Atr, &LinkError>) -> Result<(), FlowError> {
        let Some(open) = self.open_with(lease) else { return Ok(()) };
        if !matches!(open.work, Work::Reset) {
            return self.misused();
        }
        match atr {
            Ok(atr) => {
                open.work = Work::Nothing;
                let number = open.number;
                self.say(&ManagerMessage::ResetDone(ResetDone { number, atr }));
            }
            Err(error) => self.lease_ended(lease, error.check()),
        }
        Ok(())
    }

    /// The session, if it has the card of this lease.
    fn open_with(&mut self, lease: u64) -> Option<&mut Open> {
        match &mut self.state {
            State::Open(open) if open.card.as_ref().is_some_and(|held| held.lease == lease) => {
                Some(open.as_mut())
            }
            _ => None,
        }
    }

    /// An answer to what a session asked that is over is for nobody; to any other it is a fault.
    fn unasked(&mut self) -> Result<(), FlowError> {
        if matches!(self.state, State::Over) { Ok(()) } else { self.misused() }
    }
}

/// There is no card: it was never taken, or its lease ended.
const NO_LEASE: &str = "card-not-taken";
/// What the card said is no response APDU.
const BAD_RESPONSE: &str = "card-response";
