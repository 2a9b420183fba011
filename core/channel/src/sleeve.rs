//! The sleeve's side of A1 (pairing) and of A2 and A3 (connect).

mod connect;
mod pair;
#[cfg(all(test, feature = "std"))]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Suite, UnixTime};
use countersign_pki::{CertificateNumber, Identity, Leaf, Role as PkiRole};

use self::connect::{ExpectAnswer, ExpectChallenge};
use self::pair::{AskConfirm, AskStore, ExpectAcknowledgement, ExpectPairAnswer};
use crate::credential::{self, Credential};
use crate::endpoint::{Cx, Endpoint, Event, Party, Step};
use crate::link::Link;
use crate::methods::channel;
use crate::pairing::{PAIRING_TIMEOUT, Pairing};
use crate::wire::{Frame, Kind, Mode};
use crate::{Delivery, Error, Exporter, Heartbeat, Policy, Refusal};

/// What a sleeve is provisioned with.
#[derive(Clone)]
pub struct SleeveConfig {
    /// One credential per suite it can speak, the preferred one first.
    pub credentials: Vec<Credential>,
    /// The policies it accepts, the preferred one first: over streams, not certificate-sealed.
    pub policies: Vec<Policy>,
    /// The id in its certificates.
    pub sleeve_id: String,
}

impl SleeveConfig {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`Error::Misuse`] for what can never work.
    pub fn check(&self) -> Result<(), Error> {
        let misuse = |_| Error::Misuse("the sleeve's id");
        let own = Identity::new(PkiRole::Sleeve, &self.sleeve_id).map_err(misuse)?;
        credential::check_pairing_party(&self.credentials, &[Mode::A1], &self.policies, &own)
    }
}

/// What the sleeve's owner is asked in a pairing (A1).
#[derive(Debug)]
pub enum SleeveQuestion {
    /// The manager has proven itself: show its certified id to the user, who compares it with the
    /// label, and call [`SleeveChannel::confirm`].
    Confirm {
        /// The id in the manager's verified certificate.
        manager_id: String,
        /// The number of that certificate.
        number: CertificateNumber,
    },
    /// The user said yes: keep this as *pending*, on disk, and call [`SleeveChannel::stored`]. Only
    /// then does the sleeve's proof (M3) leave. It is confirmed with [`Event::Connected`], or, if
    /// the acknowledgement got lost, with the first A2 or A3 that succeeds.
    Store(Pairing),
}

/// What happened on the sleeve's side.
pub type SleeveEvent = Event<SleeveQuestion>;

/// The sleeve's side of a channel to its manager: pairing (A1) or connecting (A2, A3), and the
/// session after it. See the crate's grammar.
pub struct SleeveChannel(Endpoint<Sleeve>);

channel!(SleeveChannel, SleeveEvent);

impl SleeveChannel {
    /// Starts A1: makes `R3` and the ephemeral shares, and queues M1.
    ///
    /// # Errors
    /// [`Error::Local`] if the provider fails; [`Error::Misuse`] for a configuration outside its
    /// bounds.
    pub fn pair(
        config: Arc<SleeveConfig>,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        config.check()?;
        let mut link = Link::new([Mode::A1]);
        let state = State::ExpectPairAnswer(ExpectPairAnswer::begin(&config, &mut link, rng)?);
        Ok(Self(Endpoint::new(Sleeve { config }, Delivery::Stream, link, state, now)))
    }

    /// Starts A2 or A3 with a manager that the sleeve is paired with: makes the ephemeral share and
    /// queues M0.
    ///
    /// # Errors
    /// [`Error::Local`] if the provider fails; [`Error::Misuse`] for another mode, or for a
    /// configuration or a pairing outside its bounds.
    pub fn connect(
        config: Arc<SleeveConfig>,
        mode: Mode,
        pairing: Arc<Pairing>,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        config.check()?;
        pairing.check()?;
        if !matches!(mode, Mode::A2 | Mode::A3) {
            return Err(Error::Misuse("a paired sleeve connects by A2 or A3"));
        }
        let mut link = Link::new([mode]);
        let first = ExpectChallenge::begin(&config, pairing, &mut link, rng)?;
        let state = State::ExpectChallenge(Box::new(first));
        Ok(Self(Endpoint::new(Sleeve { config }, Delivery::Stream, link, state, now)))
    }

    /// The user's word on [`SleeveQuestion::Confirm`]. After a yes comes [`SleeveQuestion::Store`];
    /// after a no the manager is told `pairing-refused` and nothing is stored on either side.
    ///
    /// # Errors
    /// [`Refusal::PairingRefused`] after a no, with the alert queued; [`Error::Timeout`] if the
    /// answer came too late; [`Error::Misuse`] if nothing was asked; otherwise as [`Self::handle`].
    pub fn confirm(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        yes: bool,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::AskConfirm(_));
        self.0.answer(now, rng, waits, |sleeve, state, cx| match state {
            State::AskConfirm(asked) if yes => {
                let (next, pairing) = asked.confirmed(&sleeve.config, cx)?;
                let question = SleeveQuestion::Store(pairing);
                Ok(Step::Ask(State::AskStore(Box::new(next)), question))
            }
            _ => Err(told(cx, Refusal::PairingRefused.into())),
        })
    }

    /// Answers [`SleeveQuestion::Store`]: whether the pending pairing is on disk. If so, the
    /// sleeve's proof leaves now.
    ///
    /// # Errors
    /// [`Refusal::PairingNotStored`] if not; otherwise as [`Self::confirm`].
    pub fn stored(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        stored: bool,
    ) -> Result<(), Error> {
        let waits = |state: &State| matches!(state, State::AskStore(_));
        self.0.answer(now, rng, waits, |_, state, cx| match state {
            State::AskStore(asked) if stored => {
                Ok(Step::Await(State::ExpectAcknowledgement(Box::new(asked.stored(cx)))))
            }
            _ => Err(told(cx, Refusal::PairingNotStored.into())),
        })
    }
}

/// Queues the alert that lets the manager close the contact at once.
fn told(cx: &mut Cx<'_>, error: Error) -> Error {
    cx.link.send_alert(&error, "");
    error
}

pub(crate) struct Sleeve {
    config: Arc<SleeveConfig>,
}

pub(crate) enum State {
    ExpectPairAnswer(ExpectPairAnswer),
    AskConfirm(Box<AskConfirm>),
    AskStore(Box<AskStore>),
    ExpectAcknowledgement(Box<ExpectAcknowledgement>),
    ExpectChallenge(Box<ExpectChallenge>),
    ExpectAnswer(Box<ExpectAnswer>),
}

/// What a handshake settled, and with whom.
pub(crate) struct Agreed {
    suite: Suite,
    policy: Policy,
    peer: Arc<Leaf>,
}

impl Party for Sleeve {
    type State = State;
    type Question = SleeveQuestion;
    const HEARS_ALERTS: bool = true;

    fn allows(state: &State) -> Option<Duration> {
        matches!(state, State::AskConfirm(_)).then_some(PAIRING_TIMEOUT)
    }

    fn awaited(state: &State) -> &'static [Kind] {
        match state {
            State::ExpectPairAnswer(_) => &[Kind::PairAnswer],
            State::AskConfirm(_) | State::AskStore(_) => &[],
            State::ExpectAcknowledgement(_) => &[Kind::Finished],
            State::ExpectChallenge(_) => &[Kind::Challenge],
            State::ExpectAnswer(_) => &[Kind::ServerProof],
        }
    }

    fn repeats(_: &State) -> bool {
        false
    }

    fn handle(&self, state: State, cx: &mut Cx<'_>, frame: &Frame) -> Result<Step<Self>, Error> {
        match state {
            State::ExpectPairAnswer(expect) => {
                let next = expect.handle(&self.config, cx, frame)?;
                let question = next.question();
                Ok(Step::Ask(State::AskConfirm(Box::new(next)), question))
            }
            State::AskConfirm(_) | State::AskStore(_) => Err(Error::Unexpected),
            State::ExpectAcknowledgement(expect) => {
                Ok(Step::Open(Box::new(expect.handle(&self.config, frame)?)))
            }
            State::ExpectChallenge(expect) => {
                let next = expect.handle(&self.config, cx, frame)?;
                Ok(Step::Await(State::ExpectAnswer(Box::new(next))))
            }
            State::ExpectAnswer(expect) => {
                Ok(Step::Open(Box::new(expect.handle(&self.config, cx, frame)?)))
            }
        }
    }
}

impl SleeveConfig {
    /// G8: a selected suite must be one of the offers.
    fn credential(&self, suite: u16) -> Result<&Credential, Error> {
        credential::of_suite(&self.credentials, suite).ok_or(Error::Incompatible("suite"))
    }

    /// G8: a selected policy must be one of the offers.
    fn policy(&self, code: u8) -> Result<Policy, Error> {
        let policy = Policy::from_code(code)?;
        if !self.policies.contains(&policy) {
            return Err(Error::Incompatible("protection policy"));
        }
        Ok(policy)
    }
}
