//! A sleeve and a manager in memory, with a hand on the wire: pairing (A1), connecting (A2, A3).

use std::collections::VecDeque;
use std::sync::Arc;

use countersign_channel::{
    Challenges, Error, LookupRefusal, ManagerChannel, ManagerConfig, ManagerEvent, ManagerQuestion,
    Mode, Pairing, Policy, SharedChallenges, SharedSources, SleeveChannel, SleeveConfig,
    SleeveEvent, SleeveQuestion, SourceLimits,
};
use countersign_crypto::{Provider, Secret, UnixTime};
use countersign_pki::{BoundedLeafCache, Role};
use rand_chacha::ChaCha20Rng;

use crate::pair::{ADDRESS, credential};
use crate::pki::{NOW, Party, TestPki};

/// The handshakes of sleeves and managers.
pub const MODES: [Mode; 3] = [Mode::A1, Mode::A2, Mode::A3];
/// Those of a pair that knows each other.
pub const CONNECTS: [Mode; 2] = [Mode::A2, Mode::A3];

/// What the owners of both machines answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The pairing window is open.
    pub window: bool,
    /// The sleeve's user says yes.
    pub confirmed: bool,
    /// The sleeve's disk takes the pending pairing.
    pub sleeve_stores: bool,
    /// The manager's disk takes the pairing.
    pub manager_stores: bool,
    /// What the pairing list answers instead of the pairing.
    pub refusal: Option<LookupRefusal>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            window: true,
            confirmed: true,
            sleeve_stores: true,
            manager_stores: true,
            refusal: None,
        }
    }
}

/// What it takes to start any number of contacts between one sleeve and one manager.
pub struct World {
    /// The tree both belong to.
    pub pki: TestPki,
    /// The sleeve's configuration.
    pub sleeve: Arc<SleeveConfig>,
    /// The manager's configuration.
    pub manager: Arc<ManagerConfig>,
    /// What the sleeve keeps of the manager, once paired.
    pub of_manager: Option<Arc<Pairing>>,
    /// What the manager keeps of the sleeve, once paired.
    pub of_sleeve: Option<Arc<Pairing>>,
    /// What the owners answer.
    pub answers: Answers,
    /// The clock.
    pub now: UnixTime,
}

impl World {
    /// A world with the sleeve `SLV-1` and the manager `MGR-1`, not paired. Each side computes with
    /// the provider it is given.
    #[must_use]
    pub fn new(pki_provider: Provider, sleeve: Provider, manager: Provider, seed: u64) -> Self {
        let mut pki = TestPki::new(pki_provider, seed);
        let sleeve_party = pki.party(Role::Sleeve, "SLV-1");
        let manager_party = pki.party(Role::Manager, "MGR-1");
        let sleeve = Arc::new(sleeve_config(&pki, &sleeve_party, sleeve));
        let manager = Arc::new(manager_config(&pki, &manager_party, manager));
        let answers = Answers::default();
        Self { pki, sleeve, manager, of_manager: None, of_sleeve: None, answers, now: NOW }
    }

    /// Pairs the two (A1).
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn paired(mut self) -> Self {
        let mut pair = self.contact(Mode::A1);
        pair.drive().expect("paired");
        self.of_manager = pair.of_manager;
        self.of_sleeve = pair.of_sleeve;
        self
    }

    /// Lets both sides have `policy` and no other.
    #[must_use]
    pub fn under(mut self, policy: Policy) -> Self {
        self.change_sleeve(|config| config.policies = vec![policy]);
        self.change_manager(|config| config.policies = vec![policy]);
        self
    }

    /// Changes the sleeve's configuration for the contacts to come.
    pub fn change_sleeve(&mut self, change: impl FnOnce(&mut SleeveConfig)) {
        change(Arc::make_mut(&mut self.sleeve));
    }

    /// Changes the manager's configuration for the contacts to come.
    pub fn change_manager(&mut self, change: impl FnOnce(&mut ManagerConfig)) {
        change(Arc::make_mut(&mut self.manager));
    }

    /// A fresh contact in `mode`.
    ///
    /// # Panics
    /// If the sleeve cannot start, as one that is not paired in A2 and A3.
    #[must_use]
    pub fn contact(&mut self, mode: Mode) -> Pair {
        let mut rng = crate::rng::seeded(rand_core::Rng::next_u64(&mut self.pki.rng));
        let config = self.sleeve.clone();
        let sleeve = match (mode, &self.of_manager) {
            (Mode::A1, _) => SleeveChannel::pair(config, self.now, &mut rng),
            (_, Some(pairing)) => {
                SleeveChannel::connect(config, mode, pairing.clone(), self.now, &mut rng)
            }
            (_, None) => panic!("not paired"),
        };
        Pair {
            sleeve: sleeve.expect("sleeve"),
            manager: ManagerChannel::new(self.manager.clone(), &ADDRESS, self.now),
            rng,
            now: self.now,
            answers: self.answers.clone(),
            of_manager: self.of_manager.clone(),
            of_sleeve: self.of_sleeve.clone(),
            asked: Vec::new(),
            to_manager: VecDeque::new(),
            to_sleeve: VecDeque::new(),
            sleeve_events: Vec::new(),
            manager_events: Vec::new(),
        }
    }
}

/// A sleeve's configuration.
#[must_use]
pub fn sleeve_config(pki: &TestPki, party: &Party, provider: Provider) -> SleeveConfig {
    SleeveConfig {
        credentials: vec![credential(pki, party, provider)],
        policies: vec![Policy::default()],
        sleeve_id: party.id.clone(),
    }
}

/// A manager's configuration for all three modes, with challenges, limits and cache of its own.
#[must_use]
pub fn manager_config(pki: &TestPki, party: &Party, provider: Provider) -> ManagerConfig {
    let mut rng = crate::rng::seeded(0x5150);
    let sources = SourceLimits::new(provider.clone(), &mut rng);
    ManagerConfig {
        credentials: vec![credential(pki, party, provider.clone())],
        policies: vec![Policy::default()],
        modes: MODES.to_vec(),
        manager_id: party.id.clone(),
        leaf_cache: Arc::new(BoundedLeafCache::default()),
        challenges: Arc::new(SharedChallenges::new(Challenges::new(provider))),
        sources: Arc::new(SharedSources::new(sources)),
    }
}

/// A copy of a pairing, as reading it from a disk makes one.
#[must_use]
pub fn copied(pairing: &Pairing) -> Pairing {
    Pairing {
        peer: pairing.peer.clone(),
        certificate: pairing.certificate.clone(),
        factor: Secret::copied_from(pairing.factor.expose()),
        suite: pairing.suite,
    }
}

/// A sleeve, a manager, and what lies on the wire between them.
pub struct Pair {
    /// The sleeve's machine.
    pub sleeve: SleeveChannel,
    /// The manager's machine.
    pub manager: ManagerChannel,
    /// Randomness for both.
    pub rng: ChaCha20Rng,
    /// The clock.
    pub now: UnixTime,
    /// What the owners answer.
    pub answers: Answers,
    /// What the sleeve's disk holds: pending from the question on.
    pub of_manager: Option<Arc<Pairing>>,
    /// What the manager's disk holds.
    pub of_sleeve: Option<Arc<Pairing>>,
    /// What was asked, in order: `window SLV-1`, `confirm MGR-1`, `pending MGR-1`, `store SLV-1`,
    /// `sleeve SLV-1`.
    pub asked: Vec<String>,
    /// Frames on their way to the manager: tests change, drop or keep them.
    pub to_manager: VecDeque<Vec<u8>>,
    /// Frames on their way to the sleeve.
    pub to_sleeve: VecDeque<Vec<u8>>,
    /// What the sleeve reported, questions aside.
    pub sleeve_events: Vec<SleeveEvent>,
    /// What the manager reported, questions aside.
    pub manager_events: Vec<ManagerEvent>,
}

impl Pair {
    /// Moves what the machines want to send onto the wire.
    pub fn collect(&mut self) {
        self.to_manager.extend(std::iter::from_fn(|| self.sleeve.poll_transmit()));
        self.to_sleeve.extend(std::iter::from_fn(|| self.manager.poll_transmit()));
    }

    /// Delivers bytes to the manager and answers what it asks.
    ///
    /// # Errors
    /// The manager's.
    pub fn deliver_to_manager(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let handled = self.manager.handle(self.now, &mut self.rng, bytes);
        let answered = self.pump_manager();
        handled.and(answered)
    }

    fn pump_manager(&mut self) -> Result<(), Error> {
        while let Some(event) = self.manager.poll_event() {
            let ManagerEvent::Ask(question) = event else {
                self.manager_events.push(event);
                continue;
            };
            let (now, rng) = (self.now, &mut self.rng);
            match question {
                ManagerQuestion::Window { sleeve_id } => {
                    self.asked.push(format!("window {sleeve_id}"));
                    self.manager.window(now, rng, self.answers.window)?;
                }
                ManagerQuestion::Store(pairing) => {
                    self.asked.push(format!("store {}", pairing.peer));
                    if self.answers.manager_stores {
                        self.of_sleeve = Some(Arc::new(pairing));
                    }
                    self.manager.stored(now, rng, self.answers.manager_stores)?;
                }
                ManagerQuestion::Sleeve { id } => {
                    let known = self.of_sleeve.clone().filter(|pairing| pairing.peer == id);
                    self.asked.push(format!("sleeve {id}"));
                    let found = match self.answers.refusal {
                        Some(refusal) => Err(refusal),
                        None => known.ok_or(LookupRefusal::Unknown),
                    };
                    self.manager.sleeve_found(now, rng, found)?;
                }
            }
        }
        Ok(())
    }

    /// Delivers bytes to the sleeve and answers what it asks.
    ///
    /// # Errors
    /// The sleeve's.
    pub fn deliver_to_sleeve(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let handled = self.sleeve.handle(self.now, &mut self.rng, bytes);
        let answered = self.pump_sleeve();
        handled.and(answered)
    }

    fn pump_sleeve(&mut self) -> Result<(), Error> {
        while let Some(event) = self.sleeve.poll_event() {
            let SleeveEvent::Ask(question) = event else {
                self.sleeve_events.push(event);
                continue;
            };
            let (now, rng) = (self.now, &mut self.rng);
            match question {
                SleeveQuestion::Confirm { manager_id, .. } => {
                    self.asked.push(format!("confirm {manager_id}"));
                    self.sleeve.confirm(now, rng, self.answers.confirmed)?;
                }
                SleeveQuestion::Store(pairing) => {
                    self.asked.push(format!("pending {}", pairing.peer));
                    if self.answers.sleeve_stores {
                        self.of_manager = Some(Arc::new(pairing));
                    }
                    self.sleeve.stored(now, rng, self.answers.sleeve_stores)?;
                }
            }
        }
        Ok(())
    }

    /// Delivers frames in turn until the wire is empty.
    ///
    /// # Errors
    /// The first error of either side; a manager's error has its alert queued.
    pub fn drive(&mut self) -> Result<(), Error> {
        loop {
            self.collect();
            if let Some(frame) = self.to_manager.pop_front() {
                if let Err(error) = self.deliver_to_manager(&frame) {
                    self.manager.refuse(&error, "inc-test");
                    return Err(error);
                }
            } else if let Some(frame) = self.to_sleeve.pop_front() {
                self.deliver_to_sleeve(&frame)?;
            } else {
                return Ok(());
            }
        }
    }

    /// Delivers messages in turn and takes the `n`-th (from 0) off the wire: even ones are the
    /// sleeve's, odd ones the manager's. A1 has 0 to 3, A2 and A3 0 to 4.
    ///
    /// # Panics
    /// If the handshake ends before.
    pub fn take_message(&mut self, n: usize) -> Vec<u8> {
        for at in 0..n {
            self.collect();
            if at % 2 == 0 {
                let frame = self.to_manager.pop_front().expect("the sleeve's message");
                self.deliver_to_manager(&frame).expect("manager");
            } else {
                let frame = self.to_sleeve.pop_front().expect("the manager's message");
                self.deliver_to_sleeve(&frame).expect("sleeve");
            }
        }
        self.collect();
        let wire = if n.is_multiple_of(2) { &mut self.to_manager } else { &mut self.to_sleeve };
        wire.pop_front().expect("a message")
    }

    /// Delivers the `n`-th message, or what takes its place, to its receiver.
    ///
    /// # Errors
    /// The receiver's.
    pub fn deliver_message(&mut self, n: usize, bytes: &[u8]) -> Result<(), Error> {
        if n.is_multiple_of(2) {
            self.deliver_to_manager(bytes)
        } else {
            self.deliver_to_sleeve(bytes)
        }
    }
}
