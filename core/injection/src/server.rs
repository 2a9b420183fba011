//! The server's side: what a terminal asks, and what it may be answered.

use alloc::vec::Vec;
use core::mem;

use countersign_crypto::UnixTime;

use crate::message::{
    Incident, InjectionId, Installed, KeyToken, Refusal, Refusing, SLOTS, ServerMessage,
    TerminalMessage, Token, TokenRefused, TokenRequest,
};
use crate::{FlowError, PATIENCE, TOKENS_PER_CONTACT_MAX};

/// What the terminal says; each but [`Unbound`](Self::Unbound) wants an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// `CT_KRD`: bind it, with [`ServerMessage::Bound`].
    Bind(Token),
    /// Give it what waits, with any of [`ServerMessage::KeyToken`], [`ServerMessage::Rebind`],
    /// [`ServerMessage::RebindByCa`], [`ServerMessage::Unbind`], [`ServerMessage::Nothing`].
    Asked(TokenRequest),
    /// Compare the check value and confirm, with [`ServerMessage::Confirmed`].
    Installed(Installed),
    /// Put the refusal on record, with [`ServerMessage::Noted`].
    Refused(TokenRefused),
    /// The terminal has erased its binding.
    Unbound,
}

/// A token that was given and whose fate is awaited.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Binding,
    Key { injection: InjectionId, slot: u8 },
    Rebinding,
    Unbinding,
}

/// What the owner decides on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Question {
    Bind,
    Token,
    Key(InjectionId),
    Refusal,
}

#[derive(Debug)]
enum State {
    /// The terminal's next word, after this was given.
    Listening(Option<Given>),
    /// The owner's answer.
    Deciding(Question),
    Over,
}

/// One contact of a server with a terminal.
///
/// A message makes one event; its answer is one message. Whatever is refused with
/// [`ServerMessage::Refused`] ends the contact, but for a key that was reported again: after that
/// the terminal may go on.
#[derive(Debug)]
pub struct ServerFlow {
    state: State,
    tokens: u32,
    /// Keys that were reported again. No more can wait than there are slots.
    reports: u8,
    due: Option<UnixTime>,
    transmit: Option<Vec<u8>>,
    event: Option<ServerEvent>,
}

impl ServerFlow {
    /// Begins, once the channel is confirmed.
    #[must_use]
    pub fn new(now: UnixTime) -> Self {
        let state = State::Listening(None);
        let due = Some(now.plus(PATIENCE));
        Self { state, tokens: 0, reports: 0, due, transmit: None, event: None }
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.take()
    }

    /// What the terminal said.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.event.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<UnixTime> {
        self.due
    }

    /// Takes a message of the terminal's.
    ///
    /// # Errors
    /// [`FlowError`]; the flow is dead then.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        self.handle_timeout(now)?;
        let taken = self.take(bytes);
        self.die_of(taken)
    }

    /// Takes the owner's answer.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if it does not fit what the terminal said; the flow is dead then.
    pub fn answer(&mut self, now: UnixTime, message: &ServerMessage) -> Result<(), FlowError> {
        let taken = self.take_answer(now, message);
        self.die_of(taken)
    }

    /// Gives the terminal up if it is due.
    ///
    /// # Errors
    /// [`FlowError::Timeout`]; the flow is dead then.
    pub fn handle_timeout(&mut self, now: UnixTime) -> Result<(), FlowError> {
        match self.due {
            Some(due) if now >= due => self.die_of(Err(FlowError::Timeout)),
            _ => Ok(()),
        }
    }

    fn die_of(&mut self, result: Result<(), FlowError>) -> Result<(), FlowError> {
        if result.is_err() {
            self.state = State::Over;
            (self.due, self.transmit, self.event) = (None, None, None);
        }
        result
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), FlowError> {
        if self.is_over() {
            return Err(FlowError::Dead);
        }
        let message = TerminalMessage::decode(bytes)?;
        let given = match mem::replace(&mut self.state, State::Over) {
            State::Listening(given) => given,
            State::Deciding(_) => return Err(FlowError::Unexpected { message: message.name() }),
            State::Over => return Err(FlowError::Dead),
        };
        let (question, event) = match (given, message) {
            (None, TerminalMessage::Bind(token)) => (Question::Bind, ServerEvent::Bind(token)),
            (
                None | Some(Given::Binding | Given::Rebinding),
                TerminalMessage::TokenRequest(asked),
            ) => {
                self.tokens += 1;
                if self.tokens > TOKENS_PER_CONTACT_MAX {
                    return Err(FlowError::TooMany);
                }
                (Question::Token, ServerEvent::Asked(asked))
            }
            // Without a token before it, it is reported again: its confirmation was lost.
            (None, TerminalMessage::Installed(installed)) => {
                if self.reports == SLOTS {
                    return Err(FlowError::TooMany);
                }
                self.reports += 1;
                (Question::Key(installed.injection.clone()), ServerEvent::Installed(installed))
            }
            (Some(Given::Key { injection, slot }), TerminalMessage::Installed(installed)) => {
                if installed.injection != injection || installed.slot != slot {
                    return Err(FlowError::OtherInjection);
                }
                (Question::Key(injection), ServerEvent::Installed(installed))
            }
            (Some(given), TerminalMessage::Refused(refused)) => {
                check_refused(&given, &refused)?;
                (Question::Refusal, ServerEvent::Refused(refused))
            }
            (Some(Given::Unbinding), TerminalMessage::Unbound) => {
                (self.due, self.event) = (None, Some(ServerEvent::Unbound));
                return Ok(());
            }
            (_, message) => return Err(FlowError::Unexpected { message: message.name() }),
        };
        self.state = State::Deciding(question);
        (self.due, self.event) = (None, Some(event));
        Ok(())
    }

    fn take_answer(&mut self, now: UnixTime, message: &ServerMessage) -> Result<(), FlowError> {
        let question = match mem::replace(&mut self.state, State::Over) {
            State::Deciding(question) => question,
            State::Listening(_) => return Err(FlowError::Misuse),
            State::Over => return Err(FlowError::Dead),
        };
        let next = match (question, message) {
            (Question::Bind, ServerMessage::Bound(_)) => State::Listening(Some(Given::Binding)),
            (Question::Token, ServerMessage::KeyToken(KeyToken { injection, slot, .. })) => {
                let given = Given::Key { injection: injection.clone(), slot: *slot };
                State::Listening(Some(given))
            }
            (Question::Token, ServerMessage::Rebind(_) | ServerMessage::RebindByCa(_)) => {
                State::Listening(Some(Given::Rebinding))
            }
            (Question::Token, ServerMessage::Unbind(_)) => State::Listening(Some(Given::Unbinding)),
            (Question::Key(injection), ServerMessage::Confirmed(confirmed))
                if injection == *confirmed =>
            {
                State::Listening(None)
            }
            // The terminal erases the key, and may go on.
            (Question::Key(_), ServerMessage::Refused(_)) => State::Listening(None),
            (Question::Token, ServerMessage::Nothing)
            | (Question::Refusal, ServerMessage::Noted(_))
            | (_, ServerMessage::Refused(_)) => State::Over,
            _ => return Err(FlowError::Misuse),
        };
        self.due = matches!(next, State::Listening(_)).then(|| now.plus(PATIENCE));
        self.state = next;
        self.transmit = Some(message.encode());
        Ok(())
    }

    /// Whether the contact is over: nothing more is expected of the terminal.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }
}

/// A refusal is of what was given, not of something else.
fn check_refused(given: &Given, refused: &TokenRefused) -> Result<(), FlowError> {
    let fits = match (given, refused.what) {
        (Given::Key { injection, .. }, Refusing::Key) => refused.injection == *injection,
        (Given::Binding, Refusing::Binding)
        | (Given::Rebinding, Refusing::Rebinding)
        | (Given::Unbinding, Refusing::Unbinding) => true,
        _ => false,
    };
    if fits { Ok(()) } else { Err(FlowError::OtherInjection) }
}

/// The answer [`ServerMessage::Refused`].
#[must_use]
pub fn refusal(check: &str, retry: bool, incident: &str) -> ServerMessage {
    let refusal = Refusal::new(crate::Name::clipped(check), retry, Incident::clipped(incident));
    ServerMessage::Refused(refusal)
}
