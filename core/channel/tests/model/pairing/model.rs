//! The model that is explored: from each state every action, by the real machines.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stateright::{Model, Property};

use super::run::Run;
use super::scenario::{Purpose, Scenario};
use super::state::{Action, Hashed, State, Summary};
use crate::attack::{Place, kind};
use crate::state::FrameId;

/// The model: one scenario and its properties.
pub(crate) struct Pairings {
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) properties: Vec<Property<Self>>,
    /// Whether each step is taken by the machines every time, and compared with what is remembered.
    pub(crate) forgetful: bool,
    pub(crate) memory: Arc<Memory>,
}

/// Steps that machines have taken: a machine is a function of what it was given, and of what its
/// manager's other machines have done.
#[derive(Default)]
pub(crate) struct Memory(Mutex<HashMap<Key, Option<Outcome>>>);

/// All that a step depends on.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    at: usize,
    what: What,
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

impl Pairings {
    fn key(&self, summary: &Summary, action: Action) -> Key {
        let first = self.scenario.sleeves.len();
        let (at, what) = match action {
            Action::Answer { at, .. } | Action::Begin(at) | Action::End(at) | Action::Say(at) => {
                (at, What::Other(action))
            }
            Action::Deliver { frame, to, change } => {
                let content = summary.views[frame.from].outputs[frame.nth].content;
                let same_side = self.scenario.is_sleeve(frame.from) == self.scenario.is_sleeve(to);
                (to, What::Deliver { content, change, same_side })
            }
        };
        let views = match action {
            Action::Begin(_) => &summary.views[..first],
            _ if self.scenario.is_sleeve(at) => &summary.views[at..=at],
            _ => &summary.views[first..],
        };
        Key { at, what, views: views.to_vec() }
    }

    /// Takes a step with the real machines, from the beginning.
    fn take(&self, state: &State, action: Action) -> Option<Summary> {
        let mut run = Run::replay(&self.scenario, &state.actions)?;
        run.apply(action)?;
        Some(run.summary())
    }

    /// The same, from memory where the step was taken before.
    fn take_or_remember(&self, state: &State, action: Action) -> Option<Summary> {
        let before = &*state.summary;
        let key = self.key(before, action);
        let at = key.at;
        let known = self.memory.0.lock().unwrap().get(&key).cloned();
        let outcome = known.unwrap_or_else(|| {
            let outcome = self.take(state, action).map(|after| Outcome {
                view: after.views[at].clone(),
                faults: after.faults - before.faults,
            });
            self.memory.0.lock().unwrap().insert(key, outcome.clone());
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
        // While an answer is awaited, bytes are only kept.
        if view.question.is_some() && (view.ahead || !may_fault) {
            return;
        }
        let mut offered = Vec::new();
        for (from, sender) in summary.views.iter().enumerate() {
            let same_side = self.scenario.is_sleeve(from) == self.scenario.is_sleeve(to);
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

    /// A manager's machine that nobody has spoken to is like any other such machine of that
    /// manager: the first of them stands for all.
    fn is_like_another(&self, summary: &Summary, at: usize) -> bool {
        let untouched = |at: usize| {
            let view = &summary.views[at];
            !view.dead && view.inputs.is_empty()
        };
        let first = self.scenario.sleeves.len();
        let manager = |at: usize| self.scenario.manager_at(at);
        at >= first
            && untouched(at)
            && (first..at).any(|other| manager(other) == manager(at) && untouched(other))
    }

    /// A sleeve that has a pairing to begin with, and has not begun.
    fn can_begin(&self, summary: &Summary, at: usize) -> bool {
        let purpose = self.scenario.sleeves.get(at).map(|sleeve| &sleeve.purpose);
        match purpose {
            Some(Purpose::ConnectAfter(_, of)) => {
                !summary.views[at].begun && summary.views[*of].entry.is_some()
            }
            _ => false,
        }
    }
}

impl Model for Pairings {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let run = Run::replay(&self.scenario, &[]).expect("nothing happened yet");
        vec![State { actions: Arc::new([]), summary: Arc::new(run.summary()) }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let (summary, limits) = (&*state.summary, self.scenario.limits);
        for (at, view) in summary.views.iter().enumerate().filter(|(_, view)| !view.dead) {
            if !view.begun {
                if self.can_begin(summary, at) {
                    actions.push(Action::Begin(at));
                }
                continue;
            }
            if self.is_like_another(summary, at) {
                continue;
            }
            self.deliveries(summary, at, actions);
            if view.question.is_some() {
                actions.push(Action::Answer { at, good: true });
                if limits.refusals {
                    actions.push(Action::Answer { at, good: false });
                }
            }
            if view.is_open() && limits.data && view.said.is_empty() {
                actions.push(Action::Say(at));
            }
            if limits.ends {
                actions.push(Action::End(at));
            }
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
