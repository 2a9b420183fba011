//! What is explored: who takes part, what they mean to do, and how much the attacker may do.

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Delivery, Heartbeat, Mode, Policy, ReaderChannel, ReaderConfig};
use testkit::pair::MODES;
use testkit::pki::NOW;

use crate::attack::kind;
use crate::state::{Action, FrameId, State};
use crate::world::{Server, World};

/// What an application does once it is connected, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Send,
    Rekey,
    Close,
    Sleep,
    Watch,
}

/// How far a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// How often the attacker repeats, reflects, damages or misdirects something that a machine
    /// may survive. Loss and other orders are free.
    pub(crate) faults: u8,
    /// How often time passes until the next timer.
    pub(crate) ticks: u8,
    /// Whether bytes are changed.
    pub(crate) changes: bool,
    /// Whether the attacker ends streams.
    pub(crate) ends: bool,
    /// Whether servers tell why they refuse.
    pub(crate) alerts: bool,
}

pub(crate) const HEARTBEAT: Heartbeat =
    Heartbeat { every: Duration::from_secs(4), within: Duration::from_secs(3) };

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) world: World,
    /// One reader machine for each.
    pub(crate) readers: Vec<Arc<ReaderConfig>>,
    pub(crate) servers: Vec<Server>,
    /// One server machine for each: which of the servers.
    pub(crate) connections: Vec<usize>,
    /// Whether all servers know each other's challenges.
    pub(crate) shared_challenges: bool,
    /// By machine: readers first.
    pub(crate) scripts: Vec<Vec<Step>>,
    /// What has happened before the exploration begins.
    pub(crate) prelude: Vec<Action>,
    pub(crate) limits: Limits,
    /// What a reader of any server would ask first, in each mode that is spoken.
    pub(crate) requests: Vec<Vec<u8>>,
}

impl Scenario {
    pub(crate) fn new(
        name: &'static str,
        world: World,
        readers: Vec<ReaderConfig>,
        servers: Vec<Server>,
        connections: &[usize],
    ) -> Self {
        let spoken = |mode: &Mode| readers.iter().any(|one| one.mode == *mode);
        let requests = MODES
            .into_iter()
            .filter(spoken)
            .map(|mode| {
                let config = ReaderConfig { mode, server_id: None, ..readers[0].clone() };
                let mut rng = testkit::rng::seeded(0);
                let reader = ReaderChannel::new(Arc::new(config), NOW, &mut rng);
                reader.expect("a reader").poll_transmit().expect("M0")
            })
            .collect();
        Self {
            name,
            world,
            scripts: vec![Vec::new(); readers.len() + connections.len()],
            readers: readers.into_iter().map(Arc::new).collect(),
            servers,
            connections: connections.into(),
            shared_challenges: false,
            prelude: Vec::new(),
            limits: Limits::default(),
            requests,
        }
    }

    /// `pairs` connections between reader `RD-1` and server `srv-1`.
    pub(crate) fn of_one_reader(
        name: &'static str,
        mut world: World,
        pairs: usize,
        mode: Mode,
        policy: Policy,
    ) -> Self {
        let mut reader = world.reader("RD-1", mode);
        reader.policies = vec![policy];
        let mut server = world.server("srv-1");
        server.config.policies = vec![policy];
        Self::new(name, world, vec![reader; pairs], vec![server], &vec![0; pairs])
    }

    pub(crate) fn scripts(mut self, reader: &[Step], server: &[Step]) -> Self {
        for (at, script) in self.scripts.iter_mut().enumerate() {
            *script = if at < self.readers.len() { reader.into() } else { server.into() };
        }
        self
    }

    pub(crate) fn within(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Begins when reader `n` is connected with connection `n`, for all of them.
    pub(crate) fn connected(mut self) -> Self {
        let readers = self.readers.len();
        for reader in 0..readers.min(self.connections.len()) {
            let server = readers + reader;
            let deliver =
                |from, nth, to| Action::Deliver { frame: FrameId { from, nth }, to, change: None };
            self.prelude.extend([
                deliver(reader, 0, server),
                deliver(server, 0, reader),
                deliver(reader, 1, server),
                Action::Answer(server),
                deliver(server, 1, reader),
                deliver(reader, 2, server),
            ]);
        }
        self
    }

    /// Begins with every machine's next `steps` steps taken.
    pub(crate) fn stepped(mut self, steps: usize) -> Self {
        for machine in 0..self.scripts.len() {
            self.prelude.extend(std::iter::repeat_n(Action::Apply(machine), steps));
        }
        self
    }

    pub(crate) fn is_reader(&self, machine: usize) -> bool {
        machine < self.readers.len()
    }

    /// The server that a machine works for.
    pub(crate) fn server_of(&self, machine: usize) -> &Server {
        &self.servers[self.connections[machine - self.readers.len()]]
    }

    /// The id in a machine's certificate.
    pub(crate) fn id_of(&self, machine: usize) -> &str {
        match self.readers.get(machine) {
            Some(reader) => &reader.serial,
            None => &self.server_of(machine).id,
        }
    }

    /// How a machine is called in a report.
    fn name_of(&self, machine: usize) -> String {
        match machine.checked_sub(self.readers.len()) {
            None => format!("R{machine}"),
            Some(at) => format!("S{at}"),
        }
    }

    /// An action in words; `end` knows which frames there were.
    pub(crate) fn describe(&self, action: Action, end: &State) -> String {
        match action {
            Action::Deliver { frame: FrameId { from, nth }, to, change } => {
                let name = match end.summary.views[from].outputs[nth].kind {
                    kind @ kind::REQUEST..=kind::FINISHED => format!("M{}", kind - 1),
                    kind::ALERT => "alert".into(),
                    _ => format!("record {nth}"),
                };
                let change = change.map(|place| format!(" with another {place:?}"));
                let (from, to) = (self.name_of(from), self.name_of(to));
                format!("{from}'s {name}{} to {to}", change.unwrap_or_default())
            }
            Action::End(at) => format!("{}'s stream ends", self.name_of(at)),
            Action::Answer(at) => format!("{} hears from the directory", self.name_of(at)),
            Action::Apply(at) => format!("{} takes its next step", self.name_of(at)),
            Action::Tick => "time passes".into(),
        }
    }

    pub(crate) fn delivery(&self) -> Delivery {
        self.readers[0].policies[0].delivery
    }
}
