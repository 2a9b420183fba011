//! One run of the real machines: from the beginning, action by action, always with the same bytes.

use std::sync::Arc;

use countersign_channel::{
    ChallengeGate, Error, Event, LookupRefusal, ManagerChannel, ManagerConfig, ManagerQuestion,
    Mode, Pairing, SleeveChannel, SleeveQuestion,
};
use countersign_crypto::{Secret, Suite};
use testkit::pair::ADDRESS;
use testkit::pki::NOW;
use testkit::rng::ChaCha20Rng;

use super::scenario::{Purpose, Scenario};
use super::state::{Action, Entry, Hashed, Question, Summary, View};
use super::world::People;
use crate::attack::{self, kind};
use crate::state::{Belief, FrameId, Sent, hash};
use crate::world::ModelGate;

/// Messages by which the two agree: all that is kept of what a dead machine was given.
const SETTLES: [u8; 5] =
    [kind::PROOF, kind::SERVER_PROOF, kind::PAIR_REQUEST, kind::PAIR_ANSWER, kind::PAIR_PROOF];

enum Machine {
    Sleeve(Box<SleeveChannel>),
    Manager(Box<ManagerChannel>),
}

/// Calls a method that both sides have.
macro_rules! each {
    ($machine:expr, $channel:ident => $call:expr) => {
        match $machine {
            Machine::Sleeve($channel) => $call,
            Machine::Manager($channel) => $call,
        }
    };
}

/// What both sides' events have in common.
enum Report {
    Ask(Question, Option<Pairing>),
    Connected,
    Data(Vec<u8>),
    Closed,
}

fn report<Q>(event: Event<Q>, ask: impl FnOnce(Q) -> Report) -> Report {
    match event {
        Event::Ask(question) => ask(question),
        Event::Connected => Report::Connected,
        Event::Data(data) => Report::Data(data.to_vec()),
        Event::Closed => Report::Closed,
    }
}

impl Machine {
    fn poll_event(&mut self) -> Option<Report> {
        Some(match self {
            Self::Sleeve(sleeve) => report(sleeve.poll_event()?, |question| match question {
                SleeveQuestion::Confirm { manager_id, .. } => {
                    Report::Ask(Question::Confirm(manager_id), None)
                }
                SleeveQuestion::Store(pairing) => Report::Ask(Question::Store, Some(pairing)),
            }),
            Self::Manager(manager) => report(manager.poll_event()?, |question| match question {
                ManagerQuestion::Window { .. } => Report::Ask(Question::Window, None),
                ManagerQuestion::Store(pairing) => Report::Ask(Question::Store, Some(pairing)),
                ManagerQuestion::Sleeve { id } => Report::Ask(Question::Sleeve(id), None),
            }),
        })
    }

    fn belief(&self) -> Option<Belief> {
        let (peer, exporter, suite, policy, mode) = each!(self, one => (
            one.peer(), one.exporter(), one.suite(), one.policy(), one.mode()
        ));
        let key = exporter?.export("model", b"", 16).expect("short enough");
        Some(Belief {
            peer: peer?.identity().id().into(),
            mode: mode as u8,
            suite: suite?.code(),
            policy: policy?,
            key: key.expose().to_vec(),
        })
    }
}

/// A machine, its randomness, and what it has sent.
struct Node {
    /// Absent until it begins.
    machine: Option<Machine>,
    rng: ChaCha20Rng,
    view: View,
    frames: Vec<Vec<u8>>,
    /// What it was asked to store.
    offered: Option<Pairing>,
    /// What it has stored, or began with.
    pairing: Option<Arc<Pairing>>,
}

impl Node {
    fn new(machine: Option<Machine>, rng: ChaCha20Rng, pairing: Option<Arc<Pairing>>) -> Self {
        let view = View { begun: machine.is_some(), ..View::default() };
        Self { machine, rng, view, frames: Vec::new(), offered: None, pairing }
    }
}

pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    gates: Vec<Arc<ModelGate>>,
    nodes: Vec<Node>,
    faults: u8,
}

fn entry(pairing: &Pairing) -> Entry {
    Entry {
        peer: pairing.peer.clone(),
        certificate: hash(&pairing.certificate),
        factor: pairing.factor.expose().to_vec(),
    }
}

/// A configuration with the run's challenges, whose epoch and epoch shares somebody has had made
/// before: so which of the machines comes first makes no difference.
fn used(scenario: &Scenario, config: &ManagerConfig, gate: &Arc<ModelGate>) -> Arc<ManagerConfig> {
    let challenges: Arc<dyn ChallengeGate> = gate.clone();
    let sources = scenario.world.sources();
    let config = Arc::new(ManagerConfig { challenges, sources, ..config.clone() });
    for mode in [Mode::A2, Mode::A3] {
        let certificate = config.credentials[0].certificate.clone();
        let identity = countersign_pki::identity(&certificate).expect("a certificate");
        let earlier = Pairing {
            peer: identity.id().into(),
            certificate,
            factor: Secret::new(vec![0; 32]),
            suite: Suite::X25519_P256_AES128GCM_SHA256,
        };
        let mut rng = testkit::rng::seeded(99);
        let sleeve = scenario.sleeves[0].config.clone();
        let mut sleeve = SleeveChannel::connect(sleeve, mode, Arc::new(earlier), NOW, &mut rng)
            .expect("a sleeve");
        let request = sleeve.poll_transmit().expect("M0");
        let mut manager = ManagerChannel::new(config.clone(), &ADDRESS, NOW);
        manager.handle(NOW, &mut rng, &request).expect("M0");
    }
    config
}

impl<'a> Run<'a> {
    /// Fresh machines that take `actions`; `None` if those go beyond the scenario's limits.
    pub(crate) fn replay(scenario: &'a Scenario, actions: &[Action]) -> Option<Self> {
        let mut run = Self::new(scenario);
        actions.iter().try_for_each(|action| run.apply(*action))?;
        Some(run)
    }

    fn new(scenario: &'a Scenario) -> Self {
        let seeded = |side: u64, at: usize| {
            let at = if scenario.world.mutant.same_randomness { 0 } else { at as u64 };
            testkit::rng::seeded(1000 * side + at)
        };
        let mut nodes = Vec::new();
        for (at, sleeve) in scenario.sleeves.iter().enumerate() {
            let mut rng = seeded(1, at);
            let (machine, pairing) = match &sleeve.purpose {
                Purpose::Pair => {
                    (Some(SleeveChannel::pair(sleeve.config.clone(), NOW, &mut rng)), None)
                }
                Purpose::Connect(mode, pairing) => {
                    let (config, pinned) = (sleeve.config.clone(), pairing.clone());
                    let machine = SleeveChannel::connect(config, *mode, pinned, NOW, &mut rng);
                    (Some(machine), Some(pairing.clone()))
                }
                Purpose::ConnectAfter(..) => (None, None),
            };
            let machine = machine.map(|one| Machine::Sleeve(Box::new(one.expect("a sleeve"))));
            nodes.push(Node::new(machine, rng, pairing));
        }
        let gates: Vec<_> =
            scenario.managers.iter().map(|_| Arc::new(scenario.world.gate())).collect();
        let configs = scenario.managers.iter().zip(&gates);
        let configs: Vec<_> =
            configs.map(|(manager, gate)| used(scenario, &manager.config, gate)).collect();
        for (at, manager) in scenario.connections.iter().enumerate() {
            let machine = ManagerChannel::new(configs[*manager].clone(), &ADDRESS, NOW);
            let machine = Machine::Manager(Box::new(machine));
            nodes.push(Node::new(Some(machine), seeded(2, at), None));
        }
        let mut run = Self { scenario, gates, nodes, faults: 0 };
        (0..run.nodes.len()).for_each(|at| run.collect(at));
        run
    }

    pub(crate) fn summary(self) -> Summary {
        let views = self.nodes.into_iter().map(|node| Hashed::new(node.view)).collect();
        Summary { views, faults: self.faults }
    }

    /// A machine's own entry and what it was connected with, for scenarios that begin later.
    pub(crate) fn into_pairing(mut self, at: usize) -> Arc<Pairing> {
        self.nodes.swap_remove(at).pairing.expect("paired")
    }

    /// Takes one action; `None` if it goes beyond the scenario's limits.
    pub(crate) fn apply(&mut self, action: Action) -> Option<()> {
        match action {
            Action::Deliver { frame, to, change } => {
                self.deliver(frame, to, change.is_some(), |bytes| {
                    change.into_iter().for_each(|place| attack::change(bytes, place));
                });
            }
            Action::Answer { at, good } => self.answer(at, good),
            Action::Begin(at) => self.begin(at),
            Action::End(at) => {
                let node = &mut self.nodes[at];
                let machine = node.machine.as_mut().expect("begun");
                let result = each!(machine, one => one.handle_end());
                self.settle(at, result, None);
                self.bury(at);
            }
            Action::Say(at) => self.say(at),
        }
        (self.faults <= self.scenario.limits.faults).then_some(())
    }

    fn deliver(
        &mut self,
        FrameId { from, nth }: FrameId,
        to: usize,
        changed: bool,
        change: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut bytes = self.nodes[from].frames[nth].clone();
        change(&mut bytes);
        let content = hash(&bytes);
        let same_side = self.scenario.is_sleeve(from) == self.scenario.is_sleeve(to);
        let peeks = self.scenario.world.mutant.people == People::Peeks;
        let node = &mut self.nodes[to];
        let replayed = node.view.inputs.contains(&content);
        node.view.inputs.push(content);
        node.view.trace = hash((node.view.trace, content));
        let waits = node.view.question.is_some();
        node.view.ahead |= waits;
        let before = (node.view.heard.len(), waits, node.view.belief.is_some());
        if peeks && node.view.belief.is_none() && attack::kind_of(&bytes) == kind::RECORD {
            node.view.heard.push(bytes[8..10].to_vec());
            node.view.early = true;
        }
        let Some(machine) = &mut node.machine else { return };
        let result = each!(machine, one => one.handle(NOW, &mut node.rng, &bytes));
        // While it waits for an answer nothing can be meant for it: what comes then is kept, and no
        // honest peer has sent it.
        if result.is_ok() && !waits {
            node.view.taken.push((attack::kind_of(&bytes), content));
        }
        self.settle(to, result, Some(&bytes));
        let view = &mut self.nodes[to].view;
        let after = (view.heard.len(), view.question.is_some(), view.belief.is_some());
        view.reflected |= same_side && before != after;
        self.faults += u8::from(changed || same_side || replayed || waits);
    }

    fn say(&mut self, at: usize) {
        let people = self.scenario.world.mutant.people;
        let node = &mut self.nodes[at];
        let factor = node.pairing.as_ref().map(|pairing| pairing.factor.expose().to_vec());
        let data = match factor {
            Some(factor) if people == People::SendsFactor => factor,
            _ => vec![b'd', u8::try_from(at).expect("few")],
        };
        node.view.trace = hash((node.view.trace, "say"));
        let machine = node.machine.as_mut().expect("begun");
        assert_eq!(each!(machine, one => one.send(&data)), Ok(()), "an open session");
        node.view.said.push(data);
        self.collect(at);
    }

    /// A sleeve connects with what it has on its disk.
    fn begin(&mut self, at: usize) {
        let sleeve = &self.scenario.sleeves[at];
        let Purpose::ConnectAfter(mode, of) = sleeve.purpose else { return };
        let Some(pairing) = self.nodes[of].pairing.clone() else { return };
        let node = &mut self.nodes[at];
        let config = sleeve.config.clone();
        let machine = SleeveChannel::connect(config, mode, pairing.clone(), NOW, &mut node.rng);
        node.machine = Some(Machine::Sleeve(Box::new(machine.expect("a sleeve"))));
        node.view.trace = hash(pairing.factor.expose());
        node.pairing = Some(pairing);
        node.view.begun = true;
        self.collect(at);
    }

    /// Whether a manager has stored a pairing since its window was opened.
    fn has_paired(&self, manager: usize) -> bool {
        let first = self.scenario.sleeves.len();
        let machines =
            (first..self.nodes.len()).filter(|at| self.scenario.manager_at(*at) == manager);
        machines.into_iter().any(|at| self.nodes[at].view.entry.is_some())
    }

    fn is_open(&self, manager: usize) -> bool {
        self.scenario.world.mutant.people == People::NeverCloses || !self.has_paired(manager)
    }

    /// What a manager's list has for `id`.
    fn find(&self, manager: usize, id: &str) -> Result<Arc<Pairing>, LookupRefusal> {
        let first = self.scenario.sleeves.len();
        let machines =
            (first..self.nodes.len()).filter(|at| self.scenario.manager_at(*at) == manager);
        let new = machines.filter_map(|at| self.nodes[at].pairing.clone());
        let mut list = self.scenario.managers[manager].list.iter().cloned().chain(new);
        list.find(|pairing| pairing.peer == id).ok_or(LookupRefusal::Unknown)
    }

    fn answer(&mut self, at: usize, good: bool) {
        let Some(question) = self.nodes[at].view.question.clone() else { return };
        let people = self.scenario.world.mutant.people;
        let answer = good
            && match &question {
                Question::Window => self.is_open(self.scenario.manager_at(at)),
                Question::Confirm(shown) => {
                    people == People::AlwaysYes || self.scenario.sleeves[at].wanted == shown
                }
                Question::Store => {
                    self.scenario.is_sleeve(at) || self.is_open(self.scenario.manager_at(at))
                }
                Question::Sleeve(_) => true,
            };
        let found = match &question {
            Question::Sleeve(id) => self.find(self.scenario.manager_at(at), id),
            _ => Err(LookupRefusal::Unknown),
        };
        let found = if answer { found } else { Err(LookupRefusal::Blocked) };
        let burnt = || self.gates.iter().map(|gate| gate.burnt()).sum::<u64>();
        let before = burnt();
        let keeps = people != People::Forgets || self.scenario.is_sleeve(at);
        let node = &mut self.nodes[at];
        node.view.trace = hash((node.view.trace, answer));
        node.view.question = None;
        node.view.answers.push((question.clone(), answer));
        let offered = node.offered.take();
        if let (Some(pairing), true, true) = (offered, answer, keeps) {
            node.view.entry = Some(entry(&pairing));
            node.pairing = Some(Arc::new(pairing));
        }
        let (rng, machine) = (&mut node.rng, node.machine.as_mut().expect("begun"));
        let result = match (machine, question) {
            (Machine::Sleeve(sleeve), Question::Confirm(_)) => sleeve.confirm(NOW, rng, answer),
            (Machine::Sleeve(sleeve), _) => sleeve.stored(NOW, rng, answer),
            (Machine::Manager(manager), Question::Window) => manager.window(NOW, rng, answer),
            (Machine::Manager(manager), Question::Store) => manager.stored(NOW, rng, answer),
            (Machine::Manager(manager), _) => {
                node.pairing = found.clone().ok();
                manager.sleeve_found(NOW, rng, found)
            }
        };
        node.view.burnt = burnt() > before;
        self.settle(at, result, None);
    }

    /// After every call: what the machine reports and sends, and whether it lives.
    fn settle(&mut self, at: usize, result: Result<(), Error>, input: Option<&[u8]>) {
        let node = &mut self.nodes[at];
        let machine = node.machine.as_mut().expect("begun");
        while let Some(report) = machine.poll_event() {
            match report {
                Report::Ask(question, offered) => {
                    if let (Question::Sleeve(_), Some(bytes)) = (&question, input) {
                        node.view.challenge = Some(attack::challenge_of(bytes).to_vec());
                    }
                    node.view.question = Some(question);
                    node.offered = offered;
                }
                Report::Connected => {
                    node.view.belief = machine.belief();
                    // What came with its last message may have killed it at once.
                    assert!(node.view.belief.is_some() || result.is_err(), "an open session");
                }
                Report::Data(data) => {
                    node.view.early |= node.view.belief.is_none();
                    node.view.heard.push(data);
                }
                Report::Closed => {}
            }
        }
        if let Err(error) = result {
            if let Machine::Manager(manager) = machine {
                manager.refuse(&error, "");
            }
            self.collect(at);
            self.bury(at);
        } else {
            self.collect(at);
        }
    }

    /// Frames that the machine has not sent before.
    fn collect(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(machine) = &mut node.machine else { return };
        let known = node.pairing.as_ref().map(|pairing| pairing.factor.expose());
        let offered = node.offered.as_ref().map(|pairing| pairing.factor.expose());
        while let Some(frame) = each!(machine, one => one.poll_transmit()) {
            let content = hash(&frame);
            let tells = |factor: &[u8]| frame.windows(factor.len()).any(|part| part == factor);
            node.view.tells_factor |= [known, offered].into_iter().flatten().any(tells);
            if node.view.outputs.iter().all(|sent| sent.content != content) {
                let (kind, places) = (attack::kind_of(&frame), attack::places_of(&frame));
                node.view.outputs.push(Sent { content, kind, places });
                node.frames.push(frame);
            }
        }
    }

    /// One dead machine is like another, but for what it has done.
    fn bury(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let machine = node.machine.as_mut().expect("begun");
        let again = each!(machine, one => one.handle(NOW, &mut node.rng, b"CS"));
        assert_eq!(again, Err(Error::Dead), "after an error or an end a machine is dead");
        let view = &mut node.view;
        view.dead = true;
        (view.question, view.ahead, view.trace) = (None, false, 0);
        view.inputs.clear();
        view.taken.retain(|(kind, _)| SETTLES.contains(kind));
        node.offered = None;
    }
}
