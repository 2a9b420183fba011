use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use countersign_channel::{Delivery, LookupRefusal, Protection};
use countersign_crypto::UnixTime;
use testkit::rng::{ChaCha20Rng, seeded};

use super::node::{HEADER_LEN, KIND_AT, MARK, Node};
use super::setting::Setting;
use crate::script::Script;

const STEPS_MAX: usize = 64;
/// Most parties of a script: the second pair is there to be mixed with the first.
const NODES_MAX: usize = 4;
/// Frames that wait on the wire.
const QUEUE_MAX: usize = 16;
/// Most frames that one input makes a machine send: an answer, and an alert or a repetition.
const ANSWERS_MAX: usize = 3;
/// Message types: M1 to M4.
const CHALLENGE: u8 = 2;
const PROOF: u8 = 3;
const SERVER_PROOF: u8 = 4;
const FINISHED: u8 = 5;
/// What a side must have from its peer unaltered. Of M0 the server keeps nothing but a MAC.
const TO_READER: [u8; 2] = [CHALLENGE, SERVER_PROOF];
const TO_SERVER: [u8; 2] = [PROOF, FINISHED];

/// Handshakes through an attacker's hands, who keeps, drops, repeats, swaps, alters, reflects,
/// invents and mixes. Script: `setting, steps`.
///
/// Who connects has got every message as an honest peer sent it, and names that peer; of one
/// session there is one reader and one server, who agree on everything; data arrive as they were
/// said, over a stream in order and without a gap, over datagrams at most once; encrypted, they do
/// not show; an ended machine stays ended.
pub fn handshake(data: &[u8]) {
    let mut script = Script::new(data);
    let mut run = Run::new(Setting::new(&mut script));
    run.play(&mut script);
}

/// The same from the first record on: the handshake itself is left in peace.
pub fn records(data: &[u8]) {
    let mut script = Script::new(data);
    let mut run = Run::new(Setting::new(&mut script));
    for _ in 0..3 {
        run.pass(0);
        run.pass(1);
    }
    assert!(run.nodes[0].connected && run.nodes[1].connected, "an honest handshake fails");
    assert_eq!(run.nodes[0].policy(), Some(run.setting.policy));
    run.play(&mut script);
}

struct Run {
    setting: Setting,
    nodes: Vec<Node>,
    /// What each has sent and nobody has got yet.
    wires: Vec<VecDeque<Vec<u8>>>,
    rng: ChaCha20Rng,
    now: UnixTime,
    /// What the directory answers next; `None`: nothing for now.
    directory: Option<Result<(), LookupRefusal>>,
}

impl Run {
    fn new(setting: Setting) -> Self {
        let now = setting.start();
        let mut run = Self {
            setting,
            nodes: Vec::new(),
            wires: Vec::new(),
            rng: seeded(7),
            now,
            directory: Some(Ok(())),
        };
        run.add_pair();
        run
    }

    /// A reader at an even place, its server behind it.
    fn add_pair(&mut self) {
        let reader = self.setting.reader(self.now, &mut self.rng);
        self.nodes.push(Node::reader(reader));
        self.nodes.push(Node::server(self.setting.server(self.now)));
        self.wires.resize_with(self.nodes.len(), VecDeque::new);
        self.collect(self.nodes.len() - 2, 1);
    }

    fn play(&mut self, script: &mut Script<'_>) {
        for _ in 0..STEPS_MAX {
            if script.is_empty() {
                break;
            }
            self.step(script);
        }
        self.check_data();
        // G6, G11: a reader's proof is answered once, by whomever.
        let proofs = self.sent(PROOF).len();
        assert!(self.sent(SERVER_PROOF).len() <= proofs, "one challenge used twice");
    }

    /// The different messages of a type that were sent.
    fn sent(&self, kind: u8) -> BTreeSet<&Vec<u8>> {
        let frames = self.nodes.iter().flat_map(|node| &node.sent);
        frames.filter(|frame| frame[KIND_AT] == kind).collect()
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let choice = script.byte();
        let at = usize::from(choice >> 6) % self.nodes.len();
        match choice & 0x1F {
            0..6 => self.pass(at),
            6 => drop(self.wires[at].pop_front()),
            7 => {
                if let Some(frame) = self.wires[at].front().cloned() {
                    self.wires[at].push_back(frame);
                }
            }
            8 if self.wires[at].len() > 1 => self.wires[at].swap(0, 1),
            9 | 10 => {
                if let Some(frame) = self.wires[at].front_mut() {
                    script.edit_once(frame);
                }
            }
            11 => {
                if let Some(frame) = self.wires[at].pop_front() {
                    self.deliver(at, &frame); // reflected
                }
            }
            12 => {
                if let Some(frame) = self.wires[at].pop_front() {
                    let other = (at + usize::from(script.byte())) % self.nodes.len();
                    self.deliver(other, &frame);
                }
            }
            13 => {
                let from = usize::from(script.byte()) % self.nodes.len();
                let sent = &self.nodes[from].sent;
                let which = usize::from(script.byte());
                if let Some(frame) = sent.get(which % sent.len().max(1)).cloned() {
                    self.deliver(at, &frame); // heard before
                }
            }
            14 => self.invent(script, at),
            15 => {
                let bytes = script.short().to_vec();
                self.deliver(at, &bytes);
            }
            16 => self.cut(script, at),
            17 => {
                let unit = if choice & 0x20 == 0 { 10 } else { 1000 };
                let millis = unit * script.number() as u64;
                self.now = self.now.plus(Duration::from_millis(millis));
                for at in 0..self.nodes.len() {
                    self.nodes[at].tick(self.now);
                    self.collect(at, ANSWERS_MAX);
                }
            }
            18 | 19 => {
                let text = script.short();
                if self.nodes[at].say(text) {
                    self.collect(at, 1);
                }
            }
            20 => {
                self.nodes[at].close();
                self.collect(at, 1);
            }
            21 => {
                self.nodes[at].rekey();
                self.collect(at, 1);
            }
            22 => self.nodes[at].pulse(self.now, script.byte()),
            23 if self.setting.delivery == Delivery::Stream => self.nodes[at].end(),
            24 => {
                self.directory = match script.byte() % 6 {
                    0 => Some(Err(LookupRefusal::Unknown)),
                    1 => Some(Err(LookupRefusal::Revoked)),
                    2 => Some(Err(LookupRefusal::Blocked)),
                    3 => Some(Err(LookupRefusal::Unavailable)),
                    4 => None,
                    _ => Some(Ok(())),
                };
            }
            25 => self.look_up(at),
            26 if self.nodes.len() < NODES_MAX => self.add_pair(),
            _ => {}
        }
    }

    /// Delivers the next frame of `from` to its peer.
    fn pass(&mut self, from: usize) {
        if let Some(frame) = self.wires[from].pop_front() {
            self.deliver(from ^ 1, &frame);
        }
    }

    /// A frame that nobody sent: `type, body`.
    fn invent(&mut self, script: &mut Script<'_>, at: usize) {
        let kind = script.byte();
        let body = script.short();
        let mode = self.setting.mode as u8 ^ (kind >> 7);
        let len = u8::try_from(body.len()).expect("a short body");
        let header = [b'C', b'S', 1, mode, kind & 0x1F, 0, 0, len];
        self.deliver(at, &[&header, body].concat());
    }

    /// Over a stream: delivers a part of the next frame and leaves the rest.
    fn cut(&mut self, script: &mut Script<'_>, from: usize) {
        let number = script.number();
        if self.setting.delivery == Delivery::Datagrams {
            return;
        }
        if let Some(mut frame) = self.wires[from].pop_front() {
            let rest = frame.split_off(number % (frame.len() + 1));
            self.wires[from].push_front(rest);
            self.deliver(from ^ 1, &frame);
        }
    }

    fn deliver(&mut self, at: usize, bytes: &[u8]) {
        let connected = self.nodes[at].deliver(self.now, &mut self.rng, bytes);
        self.collect(at, ANSWERS_MAX);
        if connected {
            self.check_connected(at);
        }
        if self.nodes[at].asking {
            self.look_up(at);
        }
    }

    fn look_up(&mut self, at: usize) {
        let Some(answer) = self.directory else { return };
        let found = answer.map(|()| self.setting.entry());
        let connected = self.nodes[at].answer(self.now, &mut self.rng, found);
        self.collect(at, ANSWERS_MAX);
        if connected {
            self.check_connected(at);
        }
    }

    fn collect(&mut self, at: usize, max: usize) {
        let frames = self.nodes[at].collect(max);
        if self.setting.policy.protection != Protection::Mac {
            let shows = |frame: &Vec<u8>| frame.windows(MARK.len()).any(|bytes| bytes == MARK);
            assert!(!frames.iter().any(shows), "plaintext on the wire");
        }
        let room = QUEUE_MAX.saturating_sub(self.wires[at].len());
        self.wires[at].extend(frames.into_iter().take(room));
    }

    /// G2, G5, G6, G8: what holds when `at` has just connected.
    fn check_connected(&self, at: usize) {
        let node = &self.nodes[at];
        let needed = if node.is_reader() { TO_READER } else { TO_SERVER };
        let frames = frames(&node.delivered);
        for kind in needed {
            let mut taken = frames.iter().filter(|frame| frame[KIND_AT] == kind);
            let honest = |frame: &Vec<u8>| {
                let peers = self.nodes.iter().filter(|peer| peer.is_reader() != node.is_reader());
                peers.flat_map(|peer| &peer.sent).any(|sent| sent == frame)
            };
            let ok = match self.setting.delivery {
                // It takes the first of its kind, or dies of it.
                Delivery::Stream => taken.next().is_some_and(honest),
                Delivery::Datagrams => taken.any(honest),
            };
            assert!(ok, "connected by a message of type {kind} that no peer sent");
        }
        if node.dead {
            assert!(node.session.is_none());
            return;
        }
        // Nobody on the way has talked them into something else.
        node.assert_peer();
        assert_eq!(node.policy(), Some(self.setting.policy));
        assert_eq!(node.agreed(), (Some(self.setting.suite()), self.setting.mode));
        let same = |peer: &&Node| peer.session == node.session;
        let mut parties = self.nodes.iter().filter(same);
        match (parties.next(), parties.next(), parties.next()) {
            // The reader is first to know; it may have died of what came with its last message.
            (Some(_), None, _) => {
                let dead =
                    |peer: &Node| peer.is_reader() && peer.connected && peer.session.is_none();
                let alone = node.is_reader() || self.nodes.iter().any(dead);
                assert!(alone, "a server alone in its session");
            }
            (Some(one), Some(two), None) => {
                assert_ne!(one.is_reader(), two.is_reader(), "a session of two alike");
                assert!(!node.is_reader(), "the server connects last");
            }
            _ => panic!("a session of three"),
        }
    }

    /// G7, G12: what arrived was said, by the peer.
    fn check_data(&self) {
        for node in &self.nodes {
            if node.heard.is_empty() && !node.closed {
                continue;
            }
            let of_session = |peer: &&Node| {
                let known = node.session.is_some() && peer.session.is_some();
                let same = !known || peer.session == node.session;
                let said = |text: &Vec<u8>| peer.said.contains(text);
                peer.is_reader() != node.is_reader()
                    && peer.connected
                    && same
                    && node.heard.iter().all(said)
            };
            let peer = self.nodes.iter().find(of_session).expect("data from nobody");
            match self.setting.delivery {
                Delivery::Stream => assert!(peer.said.starts_with(&node.heard), "a gap"),
                Delivery::Datagrams => {
                    for heard in &node.heard {
                        let times =
                            |said: &[Vec<u8>]| said.iter().filter(|text| *text == heard).count();
                        assert!(times(&node.heard) <= times(&peer.said), "not said so often");
                    }
                }
            }
            assert!(!node.closed || peer.closing, "closed by nobody");
        }
    }
}

/// The frames of a stream, or the datagrams, that have a header and all of their body.
fn frames(delivered: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let bytes = delivered.concat();
    let mut rest = &bytes[..];
    while rest.len() >= HEADER_LEN {
        let len = u32::from_be_bytes([0, rest[5], rest[6], rest[7]]) as usize;
        let Some((frame, after)) = rest.split_at_checked(HEADER_LEN + len) else { break };
        frames.push(frame.to_vec());
        rest = after;
    }
    // A damaged datagram must not hide the next one.
    frames.extend(delivered.iter().filter(|bytes| bytes.len() >= HEADER_LEN).cloned());
    frames
}
