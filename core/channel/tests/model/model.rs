//! The model that is explored: from each state every action, by the real machines.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use crate::attack::{Place, kind};
use crate::run::Run;
use crate::scenario::Scenario;
use crate::state::{Action, FrameId, Hashed, State, Summary};

/// The model: one scenario and its properties.
pub(crate) struct Channel {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) properties: Vec<Property<Self>>,
    /// Whether each step is taken by the machines every time, and compared with what is remembered.
    pub(crate) forgetful: bool,
    pub(crate) memory: Arc<Memory>,
}

/// Steps that machines have taken. A machine is a function of what it was given: its randomness
/// has a seed of its own, and what servers share is in their views. So the same step of the same
/// machine need not be taken again for each combination of states of the others.
#[derive(Default)]
pub(crate) struct Memory {
    steps: Mutex<HashMap<Key, Option<Outcome>>>,
    taken: AtomicUsize,
}

impl Memory {
    /// How many steps the machines have really taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// All that a step depends on.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    at: usize,
    what: What,
    now: u64,
    /// The machine's own view; a server's whose handshake goes on, all servers' views.
    views: Vec<Arc<Hashed>>,
}

#[derive(PartialEq, Eq, Hash)]
enum What {
    Deliver { content: u64, change: Option<Place>, same_side: bool },
    Other(Action),
}

/// What a step made of a machine, and whether it was a fault.
#[derive(Clone)]
struct Outcome {
    view: Arc<Hashed>,
    faults: u8,
}

impl Channel {
    pub(crate) fn new(
        scenario: Arc<Scenario>,
        properties: Vec<Property<Self>>,
        memory: Arc<Memory>,
    ) -> Self {
        Self { scenario, properties, forgetful: false, memory }
    }

    /// What a step depends on, if only one machine takes it.
    fn key(&self, summary: &Summary, action: Action) -> Option<Key> {
        let (at, what) = match action {
            Action::Tick => return None,
            Action::End(at) | Action::Answer(at) | Action::Apply(at) => (at, What::Other(action)),
            Action::Deliver { frame, to, change } => {
                let content = summary.views[frame.from].outputs[frame.nth].content;
                let same_side = self.scenario.is_reader(frame.from) == self.scenario.is_reader(to);
                (to, What::Deliver { content, change, same_side })
            }
        };
        let view = &summary.views[at];
        let alone = self.scenario.is_reader(at) || view.is_open();
        let first = self.scenario.readers.len();
        let others = if alone { &[][..] } else { &summary.views[first..] };
        let views = others.iter().chain([view]).cloned().collect();
        Some(Key { at, what, now: summary.now, views })
    }

    /// Takes a step with the real machines, from the beginning.
    fn take(&self, state: &State, action: Action) -> Option<Summary> {
        self.memory.taken.fetch_add(1, Ordering::Relaxed);
        let mut run = Run::replay(&self.scenario, &state.actions)?;
        run.apply(action)?;
        Some(run.summary())
    }

    /// The same, from memory where the step was taken before.
    fn take_or_remember(&self, state: &State, action: Action) -> Option<Summary> {
        let before = &*state.summary;
        let Some(key) = self.key(before, action) else { return self.take(state, action) };
        let at = key.at;
        let known = self.memory.steps.lock().unwrap().get(&key).cloned();
        let outcome = known.unwrap_or_else(|| {
            let outcome = self.take(state, action).map(|after| Outcome {
                view: after.views[at].clone(),
                faults: after.faults - before.faults,
            });
            self.memory.steps.lock().unwrap().insert(key, outcome.clone());
            outcome
        })?;
        let mut after = before.clone();
        after.views[at] = outcome.view;
        after.faults += outcome.faults;
        (after.faults <= self.scenario.limits.faults).then_some(after)
    }

    fn deliveries(&self, summary: &Summary, to: usize, actions: &mut Vec<Action>) {
        let limits = self.scenario.limits;
        let may_fault = summary.faults < limits.faults;
        let view = &summary.views[to];
        // While the directory is asked, bytes are only kept.
        if view.waits && (view.ahead || !may_fault) {
            return;
        }
        let mut offered = Vec::new();
        for (from, sender) in summary.views.iter().enumerate() {
            let same_side = self.scenario.is_reader(from) == self.scenario.is_reader(to);
            for (nth, sent) in sender.outputs.iter().enumerate() {
                if offered.contains(&(sent.content, same_side)) {
                    continue;
                }
                offered.push((sent.content, same_side));
                let frame = FrameId { from, nth };
                if may_fault || !(same_side || view.inputs.contains(&sent.content)) {
                    actions.push(Action::Deliver { frame, to, change: None });
                }
                if may_fault && limits.changes && !same_side && sent.kind != kind::ALERT {
                    let change = |place| Action::Deliver { frame, to, change: Some(place) };
                    actions.extend(sent.places.iter().copied().map(change));
                }
            }
        }
    }
}

impl Model for Channel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let run = Run::replay(&self.scenario, &self.scenario.prelude);
        let run = run.expect("the prelude has no faults");
        vec![State {
            actions: self.scenario.prelude.clone().into(),
            summary: Arc::new(run.summary()),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (summary, limits) = (&*state.summary, self.scenario.limits);
        for (at, view) in summary.views.iter().enumerate().filter(|(_, view)| !view.dead) {
            self.deliveries(summary, at, actions);
            if view.waits {
                actions.push(Action::Answer(at));
            }
            if view.is_open() && view.steps < self.scenario.scripts[at].len() {
                actions.push(Action::Apply(at));
            }
            if view.is_open() && limits.ends {
                actions.push(Action::End(at));
            }
        }
        if summary.ticks < limits.ticks && summary.views.iter().any(|view| view.timer.is_some()) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let after = self.take_or_remember(state, action);
        if self.forgetful {
            assert_eq!(after, self.take(state, action), "{state:?}, {action:?}");
        }
        let actions = state.actions.iter().copied().chain([action]).collect();
        Some(State { actions, summary: Arc::new(after?) })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.properties.clone()
    }
}
