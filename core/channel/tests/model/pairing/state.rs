//! The state of a model of sleeves and managers: the actions, and what can be seen of the machines
//! that took them.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::attack::Place;
use crate::state::{Belief, FrameId, Sent, hash};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The attacker hands a frame that was sent some time to some machine, perhaps changed.
    Deliver { frame: FrameId, to: usize, change: Option<Place> },
    /// A machine's question is answered; without `good`, as if the answer were no.
    Answer { at: usize, good: bool },
    /// A sleeve whose pairing is on disk connects.
    Begin(usize),
    /// The attacker ends a machine's byte stream.
    End(usize),
    /// A connected machine's application sends its data.
    Say(usize),
}

/// What a machine waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// The manager's: is the window open?
    Window,
    /// The sleeve's: is this the manager that the user wants?
    Confirm(String),
    /// Either side's: is the pairing on disk?
    Store,
    /// The manager's: who is this?
    Sleeve(String),
}

/// One side's entry in its pairing list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) peer: String,
    pub(crate) certificate: u64,
    /// The factor itself: nothing here is secret.
    pub(crate) factor: Vec<u8>,
}

/// What can be seen of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct View {
    /// It has begun: all but those who connect with a pairing that has yet to be made.
    pub(crate) begun: bool,
    pub(crate) dead: bool,
    /// Hash of all that a living machine was given, in order. A dead one is like any other.
    pub(crate) trace: u64,
    pub(crate) inputs: Vec<u64>,
    pub(crate) outputs: Vec<Sent>,
    /// What it waits for; and whether it was given something meanwhile.
    pub(crate) question: Option<Question>,
    pub(crate) ahead: bool,
    /// What was asked and how it was answered, in order.
    pub(crate) answers: Vec<(Question, bool)>,
    /// The entry it has made in its side's list (A1).
    pub(crate) entry: Option<Entry>,
    /// Type and content of the messages that it took, in order.
    pub(crate) taken: Vec<(u8, u64)>,
    /// The challenge in the M2 that it took, and whether it was burnt.
    pub(crate) challenge: Option<Vec<u8>>,
    pub(crate) burnt: bool,
    /// Something came of a frame that its own side has sent.
    pub(crate) reflected: bool,
    pub(crate) belief: Option<Belief>,
    /// Data that it said and heard.
    pub(crate) said: Vec<Vec<u8>>,
    pub(crate) heard: Vec<Vec<u8>>,
    /// Data came before it was connected.
    pub(crate) early: bool,
    /// A frame of its own has a binding factor in it.
    pub(crate) tells_factor: bool,
}

impl View {
    pub(crate) fn is_open(&self) -> bool {
        self.belief.is_some() && !self.dead
    }

    /// Whether it was asked this and was answered so.
    pub(crate) fn answered(&self, question: &Question, good: bool) -> bool {
        self.answers.iter().any(|(asked, answer)| asked == question && *answer == good)
    }
}

/// A view and its hash, which is computed once.
#[derive(Debug)]
pub(crate) struct Hashed {
    hash: u64,
    view: View,
}

impl Hashed {
    pub(crate) fn new(view: View) -> Arc<Self> {
        Arc::new(Self { hash: hash(&view), view })
    }
}

impl Deref for Hashed {
    type Target = View;

    fn deref(&self) -> &View {
        &self.view
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.view == other.view
    }
}

impl Eq for Hashed {}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

/// All there is to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Summary {
    pub(crate) views: Vec<Arc<Hashed>>,
    pub(crate) faults: u8,
}

#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) actions: Arc<[Action]>,
    pub(crate) summary: Arc<Summary>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.summary == other.summary
    }
}

impl Eq for State {}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.summary.hash(state);
    }
}
