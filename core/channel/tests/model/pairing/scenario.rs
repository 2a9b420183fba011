//! What is explored: which sleeves pair and connect, with whom, and how much the attacker may do.

use std::sync::Arc;

use countersign_channel::{ManagerConfig, Mode, Pairing, SleeveConfig};

use super::state::{Action, State};
use super::world::World;
use crate::attack::kind;
use crate::state::FrameId;

/// How far a run goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// How often the attacker repeats, reflects, damages or misdirects something that a machine
    /// may survive. Loss and other orders are free.
    pub(crate) faults: u8,
    /// Whether bytes are changed.
    pub(crate) changes: bool,
    /// Whether people and programs may say no.
    pub(crate) refusals: bool,
    /// Whether the attacker ends streams.
    pub(crate) ends: bool,
    /// Whether data are said once connected.
    pub(crate) data: bool,
}

/// What a sleeve's machine is for.
#[derive(Clone)]
pub(crate) enum Purpose {
    /// A1.
    Pair,
    /// A2 or A3, with a pairing that was made before.
    Connect(Mode, Arc<Pairing>),
    /// A2 or A3, with the pairing that this machine makes, as soon as the sleeve has it.
    ConnectAfter(Mode, usize),
}

/// A sleeve's machine.
pub(crate) struct Sleeve {
    pub(crate) config: Arc<SleeveConfig>,
    pub(crate) purpose: Purpose,
    /// The manager whose label its user looks at.
    pub(crate) wanted: &'static str,
}

/// A manager: the id in its certificate, its configuration, which may claim another, and whom it
/// was paired with before.
pub(crate) struct Manager {
    pub(crate) id: &'static str,
    pub(crate) config: ManagerConfig,
    pub(crate) list: Vec<Arc<Pairing>>,
}

pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) world: World,
    pub(crate) sleeves: Vec<Sleeve>,
    pub(crate) managers: Vec<Manager>,
    /// One manager's machine for each: which of the managers.
    pub(crate) connections: Vec<usize>,
    pub(crate) limits: Limits,
}

impl Scenario {
    pub(crate) fn is_sleeve(&self, machine: usize) -> bool {
        machine < self.sleeves.len()
    }

    /// The manager that a machine works for, by its place.
    pub(crate) fn manager_at(&self, machine: usize) -> usize {
        self.connections[machine - self.sleeves.len()]
    }

    /// The id in a machine's certificate.
    pub(crate) fn id_of(&self, machine: usize) -> &str {
        match self.sleeves.get(machine) {
            Some(sleeve) => &sleeve.config.sleeve_id,
            None => self.managers[self.manager_at(machine)].id,
        }
    }

    /// The mode that a sleeve's machine speaks.
    pub(crate) fn mode_of(&self, sleeve: usize) -> Mode {
        match self.sleeves[sleeve].purpose {
            Purpose::Pair => Mode::A1,
            Purpose::Connect(mode, _) | Purpose::ConnectAfter(mode, _) => mode,
        }
    }

    /// How a machine is called in a report.
    fn name_of(&self, machine: usize) -> String {
        match machine.checked_sub(self.sleeves.len()) {
            None => format!("S{machine}"),
            Some(at) => format!("M{at}"),
        }
    }

    /// An action in words; `end` knows which frames there were.
    pub(crate) fn describe(&self, action: Action, end: &State) -> String {
        match action {
            Action::Deliver { frame: FrameId { from, nth }, to, change } => {
                let name = match end.summary.views[from].outputs[nth].kind {
                    kind @ kind::REQUEST..=kind::FINISHED => format!("message {}", kind - 1),
                    kind @ kind::PAIR_REQUEST..=kind::PAIR_PROOF => {
                        format!("message {}", kind - kind::PAIR_REQUEST + 1)
                    }
                    kind::ALERT => "alert".into(),
                    _ => format!("record {nth}"),
                };
                let change = change.map(|place| format!(" with another {place:?}"));
                let (from, to) = (self.name_of(from), self.name_of(to));
                format!("{from}'s {name}{} to {to}", change.unwrap_or_default())
            }
            Action::Answer { at, good: true } => format!("{} has its answer", self.name_of(at)),
            Action::Answer { at, .. } => format!("{} has a no", self.name_of(at)),
            Action::Begin(at) => format!("{} begins", self.name_of(at)),
            Action::End(at) => format!("{}'s stream ends", self.name_of(at)),
            Action::Say(at) => format!("{} says something", self.name_of(at)),
        }
    }
}
