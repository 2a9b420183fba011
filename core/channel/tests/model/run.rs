//! One run of the real machines: from the beginning, action by action, always with the same bytes.

use std::sync::Arc;

use countersign_channel::{
    ChallengeGate, Error, Exporter, Mode, Policy, ReaderChannel, ReaderEvent, ReaderId,
    ServerChannel, ServerConfig, ServerEvent,
};
use countersign_crypto::{Suite, UnixTime};
use countersign_pki::Leaf;
use testkit::pair::ADDRESS;
use testkit::pki::NOW;
use testkit::rng::ChaCha20Rng;

use crate::attack::{self, kind};
use crate::scenario::{HEARTBEAT, Scenario, Step};
use crate::state::{Action, Belief, FrameId, Hashed, Seen, Sent, Summary, View, hash};
use crate::world::{ModelGate, Owner};

enum Machine {
    Reader(ReaderChannel),
    Server(ServerChannel),
}

/// Calls a method that both sides have.
macro_rules! each {
    ($machine:expr, $channel:ident => $call:expr) => {
        match $machine {
            Machine::Reader($channel) => $call,
            Machine::Server($channel) => $call,
        }
    };
}

/// What both sides' events have in common.
enum Report {
    Ask(ReaderId),
    Seen(Seen),
}

impl Machine {
    fn poll_event(&mut self) -> Option<Report> {
        Some(match self {
            Self::Reader(reader) => Report::Seen(match reader.poll_event()? {
                ReaderEvent::Ask(never) => match never {},
                ReaderEvent::Connected => Seen::Connected,
                ReaderEvent::Data(data) => Seen::Data(data.to_vec()),
                ReaderEvent::Closed => Seen::Closed,
            }),
            Self::Server(server) => match server.poll_event()? {
                ServerEvent::Ask(id) => Report::Ask(id),
                ServerEvent::Connected => Report::Seen(Seen::Connected),
                ServerEvent::Data(data) => Report::Seen(Seen::Data(data.to_vec())),
                ServerEvent::Closed => Report::Seen(Seen::Closed),
            },
        })
    }

    fn belief(&self) -> Option<Belief> {
        let (peer, exporter, suite, policy, mode): (
            Option<&Leaf>,
            Option<&Exporter>,
            Option<Suite>,
            Option<Policy>,
            Mode,
        ) = each!(self, one => (
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
    machine: Machine,
    rng: ChaCha20Rng,
    view: View,
    frames: Vec<Vec<u8>>,
    asked: Option<ReaderId>,
}

pub(crate) struct Run<'a> {
    scenario: &'a Scenario,
    gates: Vec<Arc<ModelGate>>,
    now: UnixTime,
    nodes: Vec<Node>,
    faults: u8,
    ticks: u8,
}

fn millis(at: UnixTime) -> u64 {
    at.as_millis() - NOW.as_millis()
}

impl<'a> Run<'a> {
    /// Fresh machines that take `actions`; `None` if those go beyond the scenario's limits.
    pub(crate) fn replay(scenario: &'a Scenario, actions: &[Action]) -> Option<Self> {
        let mut run = Self::new(scenario);
        actions.iter().try_for_each(|action| run.apply(*action))?;
        Some(run)
    }

    fn new(scenario: &'a Scenario) -> Self {
        let fresh = || Arc::new(scenario.world.gate(scenario.shared_challenges));
        let mut gates = vec![fresh()];
        while gates.len() < scenario.servers.len() {
            let shared = scenario.shared_challenges.then(|| gates[0].clone());
            gates.push(shared.unwrap_or_else(fresh));
        }
        let sources = scenario.world.sources();
        let configs = scenario.servers.iter().zip(&gates).map(|(server, gate)| {
            let challenges: Arc<dyn ChallengeGate> = gate.clone();
            let config = Arc::new(ServerConfig {
                challenges,
                sources: sources.clone(),
                ..server.config.clone()
            });
            // Somebody was here before: which of the machines comes first makes no epoch, so that
            // runs in which only the order differs are one.
            for request in &scenario.requests {
                let mut rng = testkit::rng::seeded(99);
                let mut earlier = ServerChannel::new(config.clone(), &ADDRESS, NOW);
                earlier.handle(NOW, &mut rng, request).expect("M0");
            }
            config
        });
        let configs: Vec<_> = configs.collect();
        let seeded = |side: u64, at: u64| {
            let at = if scenario.world.mutant.same_randomness { 0 } else { at };
            testkit::rng::seeded(1000 * side + at)
        };
        let node = |(at, machine): (u64, Machine)| Node {
            rng: seeded(1, if matches!(machine, Machine::Reader(_)) { at } else { 100 + at }),
            machine,
            view: View::default(),
            frames: Vec::new(),
            asked: None,
        };
        let reader = |(at, config): (u64, &Arc<_>)| {
            let mut rng = seeded(2, at);
            let reader = ReaderChannel::new(Arc::clone(config), NOW, &mut rng);
            Machine::Reader(reader.expect("a reader"))
        };
        let server =
            |of: &usize| Machine::Server(ServerChannel::new(configs[*of].clone(), &ADDRESS, NOW));
        let machines = (0..).zip(&scenario.readers).map(reader);
        let machines = machines.chain(scenario.connections.iter().map(server));
        let nodes = (0..).zip(machines).map(node).collect();
        let mut run = Self { scenario, gates, now: NOW, nodes, faults: 0, ticks: 0 };
        (0..run.nodes.len()).for_each(|at| run.collect(at));
        run
    }

    pub(crate) fn summary(self) -> Summary {
        let views = self.nodes.into_iter().map(|node| Hashed::new(node.view)).collect();
        Summary { views, now: millis(self.now), faults: self.faults, ticks: self.ticks }
    }

    /// Takes one action; `None` if it goes beyond the scenario's limits.
    pub(crate) fn apply(&mut self, action: Action) -> Option<()> {
        match action {
            Action::Deliver { frame, to, change } => {
                self.deliver(frame, to, change.is_some(), |bytes| {
                    change.into_iter().for_each(|place| attack::change(bytes, place));
                });
            }
            Action::End(at) => self.end(at),
            Action::Answer(at) => self.answer(at),
            Action::Apply(at) => self.step(at),
            Action::Tick => self.tick(),
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
        let same_side = self.scenario.is_reader(from) == self.scenario.is_reader(to);
        let now = self.now;
        let peeks = self.scenario.world.mutant.owner == Owner::Peeks;
        let node = &mut self.nodes[to];
        let replayed = node.view.inputs.contains(&content);
        node.view.inputs.push(content);
        node.view.trace = hash((node.view.trace, content, millis(now)));
        let discarded = each!(&node.machine, one => one.discarded());
        let before = (node.view.events.len(), node.view.waits, node.view.is_open());
        let waits = node.view.waits;
        node.view.ahead |= waits;
        if peeks && !before.2 && attack::kind_of(&bytes) == kind::RECORD {
            node.view.events.push(Seen::Data(bytes[8..10].to_vec()));
        }
        let result = each!(&mut node.machine, one => one.handle(now, &mut node.rng, &bytes));
        let ignored = discarded < each!(&node.machine, one => one.discarded());
        self.settle(to, result, Some((content, &bytes)));
        let view = &mut self.nodes[to].view;
        let came_of_it = before.0 < view.events.len() || before.1 != view.waits;
        view.reflected |= same_side && came_of_it;
        let fault = changed || same_side || replayed || ignored || waits;
        self.faults += u8::from(fault);
        if !fault && before.2 && view.is_open() {
            self.heard(to);
        }
    }

    /// A living peer was heard: its silence begins anew.
    fn heard(&mut self, at: usize) {
        let view = &mut self.nodes[at].view;
        let last = self.scenario.scripts[at][..view.steps].last();
        view.patience = match last {
            Some(Step::Watch) => Some(self.now.plus(HEARTBEAT.every).plus(HEARTBEAT.within)),
            _ => None,
        }
        .map(millis);
    }

    fn end(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let result = each!(&mut node.machine, one => one.handle_end());
        let ignores = self.scenario.world.mutant.owner == Owner::IgnoresCuts;
        node.view.ended = Some(result.is_ok() || ignores);
        self.settle(at, result, None);
        self.bury(at);
    }

    fn answer(&mut self, at: usize) {
        let burnt = || self.gates.iter().map(|gate| gate.burnt()).sum::<u64>();
        let (now, before) = (self.now, burnt());
        let node = &mut self.nodes[at];
        let Machine::Server(server) = &mut node.machine else { return };
        let Some(id) = node.asked.take() else { return };
        node.view.trace = hash((node.view.trace, "answer", millis(now)));
        node.view.waits = false;
        let found = self.scenario.world.look_up(&id);
        let result = server.reader_found(now, &mut node.rng, found);
        node.view.burnt = burnt() > before;
        self.settle(at, result, None);
    }

    /// The application's next step; what it is refused it does not have.
    fn step(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let view = &mut node.view;
        let step = self.scenario.scripts[at][view.steps];
        let [from, nth] = [at, view.steps].map(|number| u8::try_from(number).expect("few"));
        let data = vec![b'd', from, nth];
        view.steps += 1;
        view.trace = hash((view.trace, step, millis(now)));
        let result = each!(&mut node.machine, one => match step {
            Step::Send => one.send(&data),
            Step::Rekey => one.rekey(),
            Step::Close => one.close(),
            Step::Sleep => one.sleep(now, HEARTBEAT),
            Step::Watch => one.watch(now, HEARTBEAT),
        });
        assert_eq!(result, Ok(()), "{step:?} of an open session");
        match step {
            Step::Send => view.sent.push(data),
            Step::Close => view.closed = true,
            _ => {}
        }
        self.collect(at);
        if step == Step::Watch {
            self.heard(at);
        }
    }

    fn tick(&mut self) {
        self.ticks += 1;
        let timer = |node: &Node| each!(&node.machine, one => one.poll_timeout());
        let living = |node: &&Node| !node.view.dead;
        let Some(due) = self.nodes.iter().filter(living).filter_map(timer).min() else { return };
        self.now = self.now.max(due);
        let now = self.now;
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.view.dead || timer(node).is_none_or(|due| due > now) {
                continue;
            }
            node.view.trace = hash((node.view.trace, "time", millis(now)));
            let result = each!(&mut node.machine, one => one.handle_timeout(now));
            self.settle(at, result, None);
            let next = timer(&self.nodes[at]);
            assert!(next.is_none_or(|next| next > now), "a timer that was served is due again");
        }
    }

    /// After every call: what the machine reports and sends, and whether it lives.
    fn settle(&mut self, at: usize, result: Result<(), Error>, input: Option<(u64, &[u8])>) {
        let twice = self.scenario.world.mutant.owner == Owner::ReadsTwice;
        let node = &mut self.nodes[at];
        while let Some(report) = node.machine.poll_event() {
            let accepted = input.map(|(content, _)| content);
            match report {
                Report::Ask(id) => {
                    node.asked = Some(id);
                    node.view.waits = true;
                    node.view.accepted = accepted;
                    let challenge = input.map(|(_, bytes)| attack::challenge_of(bytes).to_vec());
                    node.view.challenge = challenge;
                }
                Report::Seen(seen) => {
                    if seen == Seen::Connected {
                        node.view.belief = node.machine.belief();
                        assert!(node.view.belief.is_some(), "a session that is open");
                        if matches!(node.machine, Machine::Reader(_)) {
                            node.view.accepted = accepted;
                        }
                    }
                    if twice && matches!(seen, Seen::Data(_)) {
                        node.view.events.push(seen.clone());
                    }
                    node.view.events.push(seen);
                }
            }
        }
        if let Err(error) = result {
            if let (Machine::Server(server), true) =
                (&mut node.machine, self.scenario.limits.alerts)
            {
                server.refuse(&error, "");
            }
            self.collect(at);
            self.bury(at);
        } else {
            self.collect(at);
        }
    }

    /// Frames that the machine has not sent before: who repeats himself tells nothing new.
    fn collect(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let asleep = self.scenario.scripts[at][..node.view.steps].last() == Some(&Step::Sleep);
        while let Some(frame) = each!(&mut node.machine, one => one.poll_transmit()) {
            let content = hash(&frame);
            let record = [kind::RECORD, kind::NUMBERED].contains(&attack::kind_of(&frame));
            if asleep && record && node.view.patience.is_none() {
                // A probe: this is how long its answer may take.
                node.view.patience = Some(millis(now.plus(HEARTBEAT.within)));
            }
            if node.view.outputs.iter().all(|sent| sent.content != content) {
                let (kind, places) = (attack::kind_of(&frame), attack::places_of(&frame));
                node.view.outputs.push(Sent { content, kind, places });
                node.frames.push(frame);
            }
        }
        node.view.timer = each!(&node.machine, one => one.poll_timeout()).map(millis);
    }

    /// One dead machine is like another, but for what it has done.
    fn bury(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let again = each!(&mut node.machine, one => one.handle(now, &mut node.rng, b"CS"));
        assert_eq!(again, Err(Error::Dead), "after an error or an end a machine is dead");
        let view = &mut node.view;
        view.dead = true;
        (view.waits, view.ahead, view.trace) = (false, false, 0);
        view.inputs.clear();
        (view.timer, view.patience) = (None, None);
        node.asked = None;
    }
}
