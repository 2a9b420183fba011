//! The terminal's side: what it says, and what its owner is to do.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::mem;

use countersign_crypto::UnixTime;

use crate::message::{
    Binding, CheckName, CheckValue, CrlNumber, Fingerprint, Incident, InjectionId, Installed,
    KeyToken, REQUEST_LEN_MAX, Refusal, Refusing, ServerMessage, TerminalMessage, Token,
    TokenRefused, TokenRequest,
};
use crate::{Bounded, FlowError, PATIENCE, TOKENS_PER_CONTACT_MAX};

/// What a terminal has when it connects.
#[derive(Debug, Clone)]
pub struct Standing {
    /// `CT_KRD`, for the binding.
    pub ct_krd: Token,
    /// The certificate of the KDH that it is bound to, if it is.
    pub bound: Option<Fingerprint>,
    /// Keys that were stored and not confirmed: an answer was lost. They are reported first.
    pub pending: Vec<Installed>,
}

/// What the owner is to do. Each but the last two wants an answer: [`TerminalFlow::answer`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalEvent {
    /// Check this `CT_KDH` and store the binding: [`TerminalWork::Bound`] or refused.
    CheckBinding(Binding),
    /// Make an `RT_KRD` and store its nonce as outstanding: [`TerminalWork::Requested`].
    MakeRequest,
    /// Check this token and store its key beside the old one: [`TerminalWork::Installed`] or
    /// refused.
    Install(KeyToken),
    /// Check this `RBT_KDH` and store the new binding: [`TerminalWork::Bound`] or refused.
    Rebind(Binding),
    /// Check this `RBT_CA` and store the new binding: [`TerminalWork::Bound`] or refused.
    RebindByCa(Binding),
    /// Check this `UBT_KDH` and erase the binding: [`TerminalWork::Unbound`] or refused.
    Unbind(Token),
    /// Use the key from now on: [`TerminalWork::Kept`].
    Activate(InjectionId),
    /// Erase the key that waits: it will not be confirmed. [`TerminalWork::Kept`].
    Discard {
        /// Which injection.
        injection: InjectionId,
        /// Why.
        refusal: Refusal,
    },
    /// All is done.
    Done,
    /// It ends here.
    Failed(Failure),
}

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TerminalWork {
    /// Bound to the KDH with this certificate; stored.
    Bound(Fingerprint),
    /// The request, whose nonce is stored, and the newest revocation list seen.
    Requested {
        /// `RT_KRD`.
        request: Bounded<REQUEST_LEN_MAX>,
        /// Number of the list.
        crl_seen: CrlNumber,
    },
    /// The key is stored beside the old one; its check value.
    Installed(CheckValue),
    /// The binding is erased.
    Unbound,
    /// Done and stored.
    Kept,
    /// This check refused the token; nothing was changed but that its nonce is used.
    Refused(CheckName),
}

/// Why a contact ended without all being done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server does not do what was asked.
    Server(Refusal),
    /// The terminal refused a token.
    Token {
        /// What was refused.
        what: Refusing,
        /// The check that failed.
        check: CheckName,
        /// Where the server's operator finds it.
        incident: Incident,
    },
}

/// What the flow waits for.
#[derive(Debug)]
enum State {
    /// The channel; nothing was said.
    Begin,
    /// The server's answer to a key reported again.
    Reported(InjectionId),
    /// The server's answer to `CT_KRD`.
    Binding,
    /// The owner's word on `CT_KDH`.
    CheckingBinding,
    /// The owner's `RT_KRD`.
    Requesting,
    /// The server's token.
    Asked,
    /// The owner's word on a key.
    Installing { injection: InjectionId, slot: u8 },
    /// The server's word on a check value.
    Confirming(InjectionId),
    /// The owner's word on another KDH.
    Rebinding,
    /// The owner's word on the end of the binding.
    Unbinding,
    /// The owner has a key to use or to erase; then it goes on, or ends.
    Keeping { failure: Option<Refusal> },
    /// The server's receipt for a refusal.
    Noting { what: Refusing, check: CheckName },
    /// Ended.
    Over,
}

/// One contact of a terminal with its server.
///
/// Feed it with [`handle`](Self::handle), [`answer`](Self::answer) and
/// [`handle_timeout`](Self::handle_timeout); after each, drain
/// [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event).
#[derive(Debug)]
pub struct TerminalFlow {
    ct_krd: Token,
    bound: Option<Fingerprint>,
    pending: VecDeque<Installed>,
    state: State,
    asked: u32,
    due: Option<UnixTime>,
    transmit: Option<Vec<u8>>,
    event: Option<TerminalEvent>,
}

impl TerminalFlow {
    /// Begins, once the channel is confirmed.
    #[must_use]
    pub fn new(standing: Standing, now: UnixTime) -> Self {
        let Standing { ct_krd, bound, pending } = standing;
        let mut flow = Self {
            ct_krd,
            bound,
            pending: pending.into(),
            state: State::Begin,
            asked: 0,
            due: None,
            transmit: None,
            event: None,
        };
        flow.go_on(now);
        flow
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmit.take()
    }

    /// What the owner is to do next.
    pub fn poll_event(&mut self) -> Option<TerminalEvent> {
        self.event.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<UnixTime> {
        self.due
    }

    /// Takes a message of the server's.
    ///
    /// # Errors
    /// [`FlowError`]; the flow is dead then.
    pub fn handle(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), FlowError> {
        self.handle_timeout(now)?;
        let taken = self.take(bytes);
        self.die_of(taken)
    }

    /// Takes what came of an event.
    ///
    /// # Errors
    /// [`FlowError::Misuse`] if it does not fit the event; the flow is dead then.
    pub fn answer(&mut self, now: UnixTime, work: TerminalWork) -> Result<(), FlowError> {
        let taken = self.take_work(now, work);
        self.die_of(taken)
    }

    /// Gives the server up if it is due.
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

    /// What comes next, between two tokens.
    fn go_on(&mut self, now: UnixTime) {
        if let Some(installed) = self.pending.pop_front() {
            let state = State::Reported(installed.injection.clone());
            self.say(now, state, &TerminalMessage::Installed(installed));
        } else if self.bound.is_none() {
            self.say(now, State::Binding, &TerminalMessage::Bind(self.ct_krd.clone()));
        } else if self.asked == TOKENS_PER_CONTACT_MAX {
            self.end(TerminalEvent::Done);
        } else {
            self.do_first(State::Requesting, TerminalEvent::MakeRequest);
        }
    }

    fn say(&mut self, now: UnixTime, state: State, message: &TerminalMessage) {
        self.state = state;
        self.due = Some(now.plus(PATIENCE));
        self.transmit = Some(message.encode());
    }

    fn do_first(&mut self, state: State, event: TerminalEvent) {
        (self.state, self.due, self.event) = (state, None, Some(event));
    }

    fn end(&mut self, event: TerminalEvent) {
        self.do_first(State::Over, event);
    }

    fn refuse(&mut self, now: UnixTime, what: Refusing, injection: InjectionId, check: CheckName) {
        let state = State::Noting { what, check: check.clone() };
        self.say(now, state, &TerminalMessage::Refused(TokenRefused { what, injection, check }));
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), FlowError> {
        if matches!(self.state, State::Over) {
            return Err(FlowError::Dead);
        }
        let message = ServerMessage::decode(bytes)?;
        match (mem::replace(&mut self.state, State::Over), message) {
            (State::Binding, ServerMessage::Bound(binding)) => {
                self.do_first(State::CheckingBinding, TerminalEvent::CheckBinding(binding));
            }
            (State::Asked, ServerMessage::KeyToken(key)) => {
                let state = State::Installing { injection: key.injection.clone(), slot: key.slot };
                self.do_first(state, TerminalEvent::Install(key));
            }
            (State::Asked, ServerMessage::Rebind(binding)) => {
                self.do_first(State::Rebinding, TerminalEvent::Rebind(binding));
            }
            (State::Asked, ServerMessage::RebindByCa(binding)) => {
                self.do_first(State::Rebinding, TerminalEvent::RebindByCa(binding));
            }
            (State::Asked, ServerMessage::Unbind(token)) => {
                self.do_first(State::Unbinding, TerminalEvent::Unbind(token));
            }
            (State::Asked, ServerMessage::Nothing) => self.end(TerminalEvent::Done),
            (
                State::Reported(injection) | State::Confirming(injection),
                ServerMessage::Confirmed(confirmed),
            ) => {
                if confirmed != injection {
                    return Err(FlowError::OtherInjection);
                }
                let state = State::Keeping { failure: None };
                self.do_first(state, TerminalEvent::Activate(injection));
            }
            // A refusal for now leaves the key waiting: it is reported again next time. One for
            // good ends the contact that brought the key, but not a later one.
            (State::Reported(injection), ServerMessage::Refused(refusal)) if !refusal.retry() => {
                let state = State::Keeping { failure: None };
                self.do_first(state, TerminalEvent::Discard { injection, refusal });
            }
            (State::Confirming(injection), ServerMessage::Refused(refusal)) if !refusal.retry() => {
                let state = State::Keeping { failure: Some(refusal.clone()) };
                self.do_first(state, TerminalEvent::Discard { injection, refusal });
            }
            (
                State::Binding | State::Asked | State::Reported(_) | State::Confirming(_),
                ServerMessage::Refused(refusal),
            ) => self.end(TerminalEvent::Failed(Failure::Server(refusal))),
            (State::Noting { what, check }, ServerMessage::Noted(incident)) => {
                let failure = Failure::Token { what, check, incident };
                self.end(TerminalEvent::Failed(failure));
            }
            (_, message) => return Err(FlowError::Unexpected { message: message.name() }),
        }
        Ok(())
    }

    fn take_work(&mut self, now: UnixTime, work: TerminalWork) -> Result<(), FlowError> {
        match (mem::replace(&mut self.state, State::Over), work) {
            (State::CheckingBinding | State::Rebinding, TerminalWork::Bound(bound)) => {
                self.bound = Some(bound);
                self.go_on(now);
            }
            (State::CheckingBinding, TerminalWork::Refused(check)) => {
                self.refuse(now, Refusing::Binding, InjectionId::clipped(""), check);
            }
            (State::Rebinding, TerminalWork::Refused(check)) => {
                self.refuse(now, Refusing::Rebinding, InjectionId::clipped(""), check);
            }
            (State::Unbinding, TerminalWork::Refused(check)) => {
                self.refuse(now, Refusing::Unbinding, InjectionId::clipped(""), check);
            }
            (State::Requesting, TerminalWork::Requested { request, crl_seen }) => {
                let bound = self.bound.ok_or(FlowError::Misuse)?;
                self.asked += 1;
                let asked = TokenRequest { request, bound, crl_seen };
                self.say(now, State::Asked, &TerminalMessage::TokenRequest(asked));
            }
            (State::Installing { injection, slot }, TerminalWork::Installed(kcv)) => {
                let state = State::Confirming(injection.clone());
                let installed = Installed { injection, slot, kcv };
                self.say(now, state, &TerminalMessage::Installed(installed));
            }
            (State::Installing { injection, .. }, TerminalWork::Refused(check)) => {
                self.refuse(now, Refusing::Key, injection, check);
            }
            (State::Unbinding, TerminalWork::Unbound) => {
                self.bound = None;
                self.transmit = Some(TerminalMessage::Unbound.encode());
                self.end(TerminalEvent::Done);
            }
            (State::Keeping { failure }, TerminalWork::Kept) => match failure {
                None => self.go_on(now),
                Some(refusal) => self.end(TerminalEvent::Failed(Failure::Server(refusal))),
            },
            (State::Over, _) => return Err(FlowError::Dead),
            _ => return Err(FlowError::Misuse),
        }
        Ok(())
    }
}
