//! The model's state: the list of actions, and what can be seen of the machines that took them.
//! Two lists that lead to the same machines are one state.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::attack::Place;
use countersign_channel::{Delivery, Policy};

/// A frame by who sent it, and as its how manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FrameId {
    pub(crate) from: usize,
    pub(crate) nth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The attacker hands a frame that was sent some time to some machine, perhaps changed.
    Deliver { frame: FrameId, to: usize, change: Option<Place> },
    /// The attacker ends a machine's byte stream.
    End(usize),
    /// The directory answers a server.
    Answer(usize),
    /// A machine's application takes its next step.
    Apply(usize),
    /// Time passes until the next timer.
    Tick,
}

/// What a machine has reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Seen {
    Connected,
    Data(Vec<u8>),
    Closed,
}

/// What a machine believes of its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Belief {
    pub(crate) peer: String,
    pub(crate) mode: u8,
    pub(crate) suite: u16,
    pub(crate) policy: Policy,
    /// What its exporter gives.
    pub(crate) key: Vec<u8>,
}

impl Hash for Belief {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let policy = (self.policy.protection as u8, self.policy.delivery == Delivery::Stream);
        (&self.peer, self.mode, self.suite, policy, &self.key).hash(state);
    }
}

/// A frame that a machine has sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Sent {
    /// Hash of its bytes.
    pub(crate) content: u64,
    pub(crate) kind: u8,
    /// The places at which it can be changed.
    pub(crate) places: Vec<Place>,
}

/// What can be seen of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct View {
    pub(crate) dead: bool,
    /// Hash of all that a living machine was given, in order. A dead one is like any other.
    pub(crate) trace: u64,
    /// The contents that a living machine was given.
    pub(crate) inputs: Vec<u64>,
    /// Distinct frames, in order.
    pub(crate) outputs: Vec<Sent>,
    /// Waits for the directory; and was given something meanwhile.
    pub(crate) waits: bool,
    pub(crate) ahead: bool,
    /// Steps of its script that were taken.
    pub(crate) steps: usize,
    pub(crate) events: Vec<Seen>,
    /// Data that its application has sent, and whether it has closed.
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) closed: bool,
    /// Content of the message it accepted: M2 at a server, M3 at a reader.
    pub(crate) accepted: Option<u64>,
    /// The challenge in that M2, and whether it was burnt.
    pub(crate) challenge: Option<Vec<u8>>,
    pub(crate) burnt: bool,
    /// Something came of a frame that its own side has sent.
    pub(crate) reflected: bool,
    pub(crate) belief: Option<Belief>,
    /// Whether its stream ended properly.
    pub(crate) ended: Option<bool>,
    /// Milliseconds from the beginning: when it must act, and by when the silence must end.
    pub(crate) timer: Option<u64>,
    pub(crate) patience: Option<u64>,
}

impl View {
    pub(crate) fn is_open(&self) -> bool {
        self.belief.is_some() && !self.dead
    }

    pub(crate) fn content_of(&self, kind: u8) -> Option<u64> {
        self.outputs.iter().find(|sent| sent.kind == kind).map(|sent| sent.content)
    }

    pub(crate) fn data(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.events.iter().filter_map(|event| match event {
            Seen::Data(data) => Some(data),
            _ => None,
        })
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

pub(crate) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// All there is to see.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Summary {
    pub(crate) views: Vec<Arc<Hashed>>,
    pub(crate) now: u64,
    pub(crate) faults: u8,
    pub(crate) ticks: u8,
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
