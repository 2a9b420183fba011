//! The manager's side of A1 (pairing) and of A2 and A3 (connect).
//!
//! The order of checks on M2 of A2 and A3 is the design's (G11): length → window → MAC → bit →
//! source limit → pairing list → binder → pinned certificate → signature → atomic consumption →
//! only now key generation and the private key. A1 alone answers whom it does not know, while the
//! owner's pairing window is open.

mod connect;
mod pair;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Suite, UnixTime};
use countersign_pki::{Identity, Leaf, LeafCache, Role as PkiRole};

use self::connect::{AskSleeve, ExpectFinished};
use self::pair::{AskStore, AskWindow, ExpectPairProof};
use crate::credential::{self, Credential};
use crate::endpoint::{Cx, Endpoint, Event, Party, Step};
use crate::link::Link;
use crate::message::{HANDSHAKE_V1, OFFER_MAX};
use crate::methods::channel;
use crate::pairing::{PAIRING_TIMEOUT, Pairing};
use crate::server::LookupRefusal;
use crate::source::SourceGate;
use crate::wire::{Frame, Kind, Mode};
use crate::{ChallengeGate, Delivery, Error, Exporter, Heartbeat, Policy};

/// What a manager's connections share.
#[derive(Clone)]
pub struct ManagerConfig {
    /// One credential per suite it can speak, the preferred one first.
    pub credentials: Vec<Credential>,
    /// The policies it accepts, the preferred one first: over streams, not certificate-sealed.
    pub policies: Vec<Policy>,
    /// The handshakes it answers: of A1, A2 and A3.
    pub modes: Vec<Mode>,
    /// The id in its certificates.
    pub manager_id: String,
    /// Remembers verified certificates.
    pub leaf_cache: Arc<dyn LeafCache>,
    /// Issues and burns the challenges of A2 and A3.
    pub challenges: Arc<dyn ChallengeGate>,
    /// Limits what one source can make the manager verify.
    pub sources: Arc<dyn SourceGate>,
}

impl ManagerConfig {
    /// Checks what the types do not: call this once, when the configuration is made.
    ///
    /// # Errors
    /// [`Error::Misuse`] for what can never work.
    pub fn check(&self) -> Result<(), Error> {
        let misuse = |_| Error::Misuse("the manager's id");
        let own = Identity::new(PkiRole::Manager, &self.manager_id).map_err(misuse)?;
        credential::check_pairing_party(&self.credentials, &self.modes, &self.policies, &own)
    }

    /// The credential of a suite that was selected.
    fn credential(&self, suite: u16) -> Result<&Credential, Error> {
        credential::of_suite(&self.credentials, suite).ok_or(Error::Incompatible("suite"))
    }

    /// The choice among the offered versions and policies: the manager prefers its own order.
    fn select_policy(&self, versions: &[u16], policies: &[u8]) -> Result<Policy, Error> {
        if versions.len().max(policies.len()) > OFFER_MAX {
            return Err(Error::Malformed("more offers than a message holds"));
        }
        if !versions.contains(&HANDSHAKE_V1) {
            return Err(Error::Incompatible("version"));
        }
        let offered = |policy: &&Policy| policies.contains(&policy.code());
        let found = self.policies.iter().find(offered).copied();
        found.ok_or(Error::Incompatible("protection policy"))
    }
}

/// What the manager's owner is asked.
#[derive(Debug)]
pub enum ManagerQuestion {
    /// A1: somebody asks to be paired. Is the pairing window open? Nothing has been looked at yet:
    /// no certificate, no key. Call [`ManagerChannel::window`].
    Window {
        /// Who it claims to be; nothing is proven.
        sleeve_id: String,
    },
    /// A1: the sleeve has proven itself, and its user has said yes. Show its certified id
    /// (`peer`), keep this in the pairing list, on disk, and call [`ManagerChannel::stored`].
    Store(Pairing),
    /// A2, A3: look this sleeve up in the pairing list and call [`ManagerChannel::sleeve_found`].
    Sleeve {
        /// Who it claims to be; nothing is proven.
        id: String,
    },
}

/// What happened on the manager's side.
pub type ManagerEvent = Event<ManagerQuestion>;

/// The manager's side of a channel to a sleeve: A1, A2 or A3, as the sleeve begins, and the session
/// after it. See the crate's grammar.
pub struct ManagerChannel(Endpoint<Manager>);

channel!(ManagerChannel, ManagerEvent);

impl ManagerChannel {
    /// Waits for a sleeve whose address is `address`: its IP octets, or through a relay any bytes
    /// by which the relay tells its contacts apart.
    #[must_use]
    pub fn new(config: Arc<ManagerConfig>, address: &[u8], now: UnixTime) -> Self {
        let link = Link::new(config.modes.iter().copied().filter(|mode| !mode.is_of_readers()));
        let manager = Manager { config, address: address.to_vec() };
        let state = State::Contact { asked: false };
        Self(Endpoint::new(manager, Delivery::Stream, link, state, now))
    }

    /// Answers [`ManagerQuestion::Window`]. Only an open window lets the manager look at the
    /// certificate and answer.
    ///
    /// # Errors
    /// [`crate::Refusal::PairingClosed`] if it is not open; otherwise as [`Self::handle`];
    /// [`Error::Misuse`] if nothing was asked.
    pub fn window(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        open: bool,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::AskWindow(_));
        self.0.answer(now, rng, waits, |manager, state, cx| match state {
            State::AskWindow(asked) => {
                let next = asked.answered(manager, cx, open)?;
                Ok(Step::Await(State::ExpectPairProof(Box::new(next))))
            }
            _ => Err(Error::Misuse("no window was asked for")),
        })
    }

    /// Answers [`ManagerQuestion::Store`]: whether the pairing is on disk. If so, the
    /// acknowledgement leaves now.
    ///
    /// # Errors
    /// [`crate::Refusal::PairingNotStored`] if not; otherwise as [`Self::window`].
    pub fn stored(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        stored: bool,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::AskStore(_));
        self.0.answer(now, rng, waits, |manager, state, cx| match state {
            State::AskStore(asked) => {
                Ok(Step::Open(Box::new(asked.answered(manager, cx, stored)?)))
            }
            _ => Err(Error::Misuse("nothing was to be stored")),
        })
    }

    /// Answers [`ManagerQuestion::Sleeve`] from the pairing list; the handshake goes on.
    ///
    /// # Errors
    /// As [`Self::handle`]; [`Error::Misuse`] if nothing was asked, or if the pairing is another
    /// sleeve's.
    pub fn sleeve_found(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        found: Result<Arc<Pairing>, LookupRefusal>,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::AskSleeve(_));
        self.0.answer(now, rng, waits, |manager, state, cx| match state {
            State::AskSleeve(asked) => {
                let next = asked.answered(manager, cx, found)?;
                Ok(Step::Await(State::ExpectFinished(Box::new(next))))
            }
            _ => Err(Error::Misuse("no sleeve was asked for")),
        })
    }

    /// Whether a question was or will be reported and waits for its answer.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.0.is_in(|state| Manager::awaited(state).is_empty())
    }

    /// For tests: as if M1 had had another `R7`.
    #[cfg(all(test, feature = "std"))]
    pub(crate) fn expect_another_r7(&mut self) {
        if let Some(State::AskSleeve(asked)) = self.0.state_mut() {
            asked.expect_another_r7();
        }
    }

    /// Queues the alert for an error that a call returned, with the incident id that leads the
    /// owner to the detail. Nothing else leaves any more.
    pub fn refuse(&mut self, error: &Error, incident: &str) {
        self.0.refuse(error, incident);
    }
}

pub(crate) struct Manager {
    config: Arc<ManagerConfig>,
    /// What a challenge is tied to besides M0.
    address: Vec<u8>,
}

pub(crate) enum State {
    /// Waiting for A1's M1, or for M0 or M2 of A2 and A3. Nothing of a contact is kept between the
    /// two: M2 brings what there is to know, under the challenge's MAC.
    Contact {
        /// A stream asks once.
        asked: bool,
    },
    AskWindow(Box<AskWindow>),
    ExpectPairProof(Box<ExpectPairProof>),
    AskStore(Box<AskStore>),
    AskSleeve(Box<AskSleeve>),
    ExpectFinished(Box<ExpectFinished>),
}

/// What a handshake settled, and with whom.
pub(crate) struct Agreed {
    suite: Suite,
    policy: Policy,
    peer: Arc<Leaf>,
}

impl Party for Manager {
    type State = State;
    type Question = ManagerQuestion;
    const HEARS_ALERTS: bool = false;

    /// The sleeve's user may say no.
    fn hears_alerts(state: &State) -> bool {
        matches!(state, State::ExpectPairProof(_))
    }

    fn allows(state: &State) -> Option<Duration> {
        matches!(state, State::ExpectPairProof(_)).then_some(PAIRING_TIMEOUT)
    }

    fn awaited(state: &State) -> &'static [Kind] {
        match state {
            State::Contact { asked: true } => &[Kind::Proof],
            State::Contact { asked: false } => &[Kind::Request, Kind::Proof, Kind::PairRequest],
            State::AskWindow(_) | State::AskStore(_) | State::AskSleeve(_) => &[],
            State::ExpectPairProof(_) => &[Kind::PairProof],
            State::ExpectFinished(_) => &[Kind::Finished],
        }
    }

    fn repeats(_: &State) -> bool {
        false
    }

    fn handle(&self, state: State, cx: &mut Cx<'_>, frame: &Frame) -> Result<Step<Self>, Error> {
        match state {
            State::Contact { .. } => self.contact(cx, frame),
            State::AskWindow(_) | State::AskStore(_) | State::AskSleeve(_) => {
                Err(Error::Unexpected)
            }
            State::ExpectPairProof(expect) => {
                let (next, pairing) = expect.handle(self, frame)?;
                let question = ManagerQuestion::Store(pairing);
                Ok(Step::Ask(State::AskStore(Box::new(next)), question))
            }
            State::ExpectFinished(expect) => Ok(Step::Open(Box::new(expect.handle(self, frame)?))),
        }
    }
}

impl Manager {
    /// The first message that this machine sees.
    fn contact(&self, cx: &mut Cx<'_>, frame: &Frame) -> Result<Step<Self>, Error> {
        match (frame.mode, frame.kind) {
            (Mode::A1, Kind::PairRequest) => {
                let asked = AskWindow::of(frame)?;
                let question = ManagerQuestion::Window { sleeve_id: asked.claimed().to_string() };
                Ok(Step::Ask(State::AskWindow(Box::new(asked)), question))
            }
            (Mode::A2 | Mode::A3, Kind::Request) => {
                self.challenge(cx, frame)?;
                Ok(Step::Await(State::Contact { asked: true }))
            }
            (Mode::A2 | Mode::A3, Kind::Proof) => {
                let asked = self.proof(cx, frame)?;
                let question = ManagerQuestion::Sleeve { id: asked.claimed().to_string() };
                Ok(Step::Ask(State::AskSleeve(Box::new(asked)), question))
            }
            _ => Err(Error::Unexpected), // a message of another mode
        }
    }
}

/// An id that a sleeve claims: the same alphabet as in certificates, nothing else ever reaches a
/// pairing list or a screen.
fn claimed(id: &[u8], message: &'static str) -> Result<String, Error> {
    match core::str::from_utf8(id) {
        Ok(text) if Identity::new(PkiRole::Sleeve, text).is_ok() => Ok(text.into()),
        _ => Err(Error::Malformed(message)),
    }
}
