//! Sleeves and managers: pairing (A1) and connecting (A2, A3).

use std::sync::{Arc, OnceLock};

use countersign_channel::{
    Challenges, Credential, Error, Event, HANDSHAKE_FRAME_MAX, LookupRefusal, ManagerChannel,
    ManagerConfig, ManagerQuestion, Mode, Pairing, Policy, Protection, SharedChallenges,
    SharedSources, SleeveChannel, SleeveConfig, SleeveQuestion, SourceLimits,
};
use countersign_crypto::{Provider, rust_crypto, sm};
use testkit::pair::ADDRESS;
use testkit::pki::NOW;
use testkit::rng::{ChaCha20Rng, seeded};
use testkit::wallet::{MODES, World};

use super::node::HEADER_LEN;
use crate::script::Script;

/// The ids of testkit's world.
const SLEEVE_ID: &str = "SLV-1";
const MANAGER_ID: &str = "MGR-1";
/// Turns: the handshake's messages, then records, sleeve and manager by turns.
const TURNS: u8 = 7;
/// Most frames that one input makes a machine send: an answer, and an alert.
const ANSWERS_MAX: usize = 2;

/// What a world provisions, in one suite, and what its two sides keep of each other.
struct Provision {
    sleeve: SleeveConfig,
    manager: ManagerConfig,
    of_manager: Arc<Pairing>,
    of_sleeve: Arc<Pairing>,
}

/// For each suite.
fn provisions() -> &'static [Provision; 2] {
    static PROVISIONS: OnceLock<[Provision; 2]> = OnceLock::new();
    PROVISIONS.get_or_init(|| {
        [rust_crypto::provider(), sm::provider()].map(|provider: Provider| {
            let world = World::new(provider.clone(), provider.clone(), provider, 0xA1).paired();
            Provision {
                sleeve: (*world.sleeve).clone(),
                manager: (*world.manager).clone(),
                of_manager: world.of_manager.expect("paired"),
                of_sleeve: world.of_sleeve.expect("paired"),
            }
        })
    })
}

/// A sleeve and a manager that can agree.
struct Setting {
    sleeve: Arc<SleeveConfig>,
    manager: Arc<ManagerConfig>,
    mode: Mode,
    suite: usize,
}

impl Setting {
    /// From two bytes: the mode by the low two bits, then bit 2 the suite, 3 both suites on offer;
    /// then the protection and, by bit 7, all of them offered.
    fn new(script: &mut Script<'_>) -> Self {
        let (bits, offers) = (script.byte(), script.byte());
        let suite = usize::from(bits >> 2 & 1);
        let all = [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt];
        let mut policies = all.map(|protection| Policy { protection, ..Policy::default() });
        policies.rotate_left(usize::from(offers & 3) % all.len());
        let offered = if offers & 0x80 == 0 { &policies[..1] } else { &policies[..] };
        let [mine, other] = [suite, 1 - suite].map(|suite| &provisions()[suite]);
        let (mut sleeve, mut manager) = (mine.sleeve.clone(), mine.manager.clone());
        sleeve.policies = offered.to_vec();
        manager.policies = offered.to_vec();
        if bits & 8 != 0 {
            let join = |mine: &mut Vec<Credential>, theirs: &[Credential]| {
                mine.extend_from_slice(theirs);
            };
            join(&mut sleeve.credentials, &other.sleeve.credentials);
            join(&mut manager.credentials, &other.manager.credentials);
        }
        // Fresh, so that no input depends on the ones before it.
        let provider = manager.credentials[0].provider.clone();
        manager.challenges = Arc::new(SharedChallenges::new(Challenges::new(provider.clone())));
        let sources = SourceLimits::new(provider, &mut seeded(1));
        manager.sources = Arc::new(SharedSources::new(sources));
        let mode = MODES[usize::from(bits & 3) % MODES.len()];
        Self { sleeve: Arc::new(sleeve), manager: Arc::new(manager), mode, suite }
    }

    fn sleeve(&self, rng: &mut ChaCha20Rng) -> SleeveChannel {
        let config = self.sleeve.clone();
        let sleeve = match self.mode {
            Mode::A1 => SleeveChannel::pair(config, NOW, rng),
            mode => {
                let pairing = provisions()[self.suite].of_manager.clone();
                SleeveChannel::connect(config, mode, pairing, NOW, rng)
            }
        };
        sleeve.expect("a sound configuration")
    }

    fn find(&self, id: &str) -> Result<Arc<Pairing>, LookupRefusal> {
        let known = Some(&provisions()[self.suite].of_sleeve).filter(|pairing| pairing.peer == id);
        known.cloned().ok_or(LookupRefusal::Unknown)
    }
}

enum Machine {
    Sleeve(Box<SleeveChannel>),
    Manager(Box<ManagerChannel>),
}

macro_rules! of_either {
    ($machine:expr, $channel:ident => $do:expr) => {
        match $machine {
            Machine::Sleeve($channel) => $do,
            Machine::Manager($channel) => $do,
        }
    };
}

/// What a machine asks.
enum Question {
    Window,
    Confirm,
    Store(Pairing),
    Sleeve(String),
}

/// What a machine reports.
enum Told {
    Ask(Question),
    Connected,
    Data(Vec<u8>),
    Closed,
}

fn told<Q>(event: Event<Q>, ask: impl FnOnce(Q) -> Question) -> Told {
    match event {
        Event::Ask(question) => Told::Ask(ask(question)),
        Event::Connected => Told::Connected,
        Event::Data(data) => Told::Data(data.to_vec()),
        Event::Closed => Told::Closed,
    }
}

/// What the owners answer: a set bit is a no.
#[derive(Clone, Copy)]
struct Noes(u8);

impl Noes {
    const fn says_yes(self, bit: u8) -> bool {
        self.0 & bit == 0
    }
}

/// What has come of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Come {
    connected: bool,
    closed: bool,
    heard: Vec<Vec<u8>>,
    /// The user was shown an id; a pairing was stored.
    confirmed: bool,
    stored: bool,
}

struct Node<'a> {
    machine: Machine,
    setting: &'a Setting,
    noes: Noes,
    come: Come,
    dead: bool,
}

fn is_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    (1..=64).contains(&id.len()) && id.chars().all(allowed)
}

impl Node<'_> {
    fn deliver(&mut self, rng: &mut ChaCha20Rng, bytes: &[u8]) {
        let result = of_either!(&mut self.machine, it => it.handle(NOW, rng, bytes));
        self.outcome(result);
        self.pump(rng);
    }

    /// A call's result: after an error the machine is dead, and says so.
    fn outcome(&mut self, result: Result<(), Error>) {
        if self.dead {
            assert_eq!(result, Err(Error::Dead), "alive after its end");
            return;
        }
        let Err(error) = result else { return };
        assert!(!matches!(error, Error::Misuse(_) | Error::Local(_)), "not the peer's: {error}");
        if let Error::Alert { incident, .. } = &error {
            assert!(incident.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        self.dead = true;
        if let Machine::Manager(manager) = &mut self.machine {
            manager.refuse(&error, "inc-1");
        }
    }

    fn pump(&mut self, rng: &mut ChaCha20Rng) {
        loop {
            let event = match &mut self.machine {
                Machine::Sleeve(sleeve) => sleeve.poll_event().map(|event| {
                    told(event, |question| match question {
                        SleeveQuestion::Confirm { manager_id, .. } => {
                            assert_eq!(manager_id, MANAGER_ID, "who was never certified");
                            Question::Confirm
                        }
                        SleeveQuestion::Store(pairing) => Question::Store(pairing),
                    })
                }),
                Machine::Manager(manager) => manager.poll_event().map(|event| {
                    told(event, |question| match question {
                        ManagerQuestion::Window { sleeve_id } => {
                            assert!(is_id(&sleeve_id), "{sleeve_id:?}");
                            Question::Window
                        }
                        ManagerQuestion::Store(pairing) => Question::Store(pairing),
                        ManagerQuestion::Sleeve { id } => {
                            assert!(is_id(&id), "{id:?}");
                            Question::Sleeve(id)
                        }
                    })
                }),
            };
            match event {
                None => return,
                Some(Told::Ask(question)) => self.answer(rng, question),
                Some(Told::Connected) => {
                    assert!(!self.come.connected, "connected twice");
                    self.come.connected = true;
                }
                Some(Told::Data(data)) => {
                    assert!(self.come.connected, "data before confirmation");
                    self.come.heard.push(data);
                }
                Some(Told::Closed) => self.come.closed = true,
            }
        }
    }

    fn answer(&mut self, rng: &mut ChaCha20Rng, question: Question) {
        assert!(!self.come.connected, "asked after all was settled");
        let noes = self.noes;
        if let Question::Store(pairing) = &question {
            let peer = if self.is_sleeve() { MANAGER_ID } else { SLEEVE_ID };
            assert_eq!(pairing.peer, peer, "a pairing with somebody else");
            assert_eq!(pairing.factor.len(), 32);
            self.come.stored = true;
        }
        let result = match (&mut self.machine, question) {
            (Machine::Sleeve(sleeve), Question::Confirm) => {
                self.come.confirmed = true;
                sleeve.confirm(NOW, rng, noes.says_yes(2))
            }
            (Machine::Sleeve(sleeve), _) => sleeve.stored(NOW, rng, noes.says_yes(4)),
            (Machine::Manager(manager), Question::Window) => {
                manager.window(NOW, rng, noes.says_yes(1))
            }
            (Machine::Manager(manager), Question::Store(_)) => {
                manager.stored(NOW, rng, noes.says_yes(8))
            }
            (Machine::Manager(manager), Question::Sleeve(id)) => {
                let found = self.setting.find(&id);
                let blocked = Err(LookupRefusal::Blocked);
                manager.sleeve_found(NOW, rng, if noes.says_yes(16) { found } else { blocked })
            }
            (Machine::Manager(_), Question::Confirm) => unreachable!("a sleeve's question"),
        };
        self.outcome(result);
    }

    const fn is_sleeve(&self) -> bool {
        matches!(self.machine, Machine::Sleeve(_))
    }

    /// What it sends, of which there is a bound.
    fn collect(&mut self) -> Vec<u8> {
        let next = || of_either!(&mut self.machine, it => it.poll_transmit());
        let frames: Vec<_> = std::iter::from_fn(next).collect();
        assert!(frames.len() <= ANSWERS_MAX, "{} frames", frames.len());
        let longest = HEADER_LEN + HANDSHAKE_FRAME_MAX;
        assert!(frames.iter().all(|frame| frame.len() <= longest), "a frame beyond its bound");
        frames.concat()
    }

    fn say(&mut self, text: &[u8]) {
        let result = of_either!(&mut self.machine, it => it.send(text));
        assert_eq!(result.is_ok(), self.come.connected && !self.dead, "{result:?}");
    }
}

/// A sleeve in any of its states takes bytes: raw, or the message it awaits, altered.
/// Script: `setting, noes, state, how, bytes or edits`.
///
/// Whatever its manager has not sent shows its user no id, stores and connects nothing.
pub fn sleeve_channel(data: &[u8]) {
    one_side(data, 0);
}

/// As [`sleeve_channel`], for the manager: whatever the sleeve has not sent stores and connects
/// nothing.
pub fn manager_channel(data: &[u8]) {
    one_side(data, 1);
}

fn one_side(data: &[u8], side: usize) {
    let mut script = Script::new(data);
    let setting = Setting::new(&mut script);
    let noes = Noes(script.byte());
    let mut rng = seeded(7);
    let sleeve = Machine::Sleeve(Box::new(setting.sleeve(&mut rng)));
    let manager = ManagerChannel::new(setting.manager.clone(), &ADDRESS, NOW);
    let manager = Machine::Manager(Box::new(manager));
    let mut nodes = [sleeve, manager].map(|machine| Node {
        machine,
        setting: &setting,
        noes,
        come: Come::default(),
        dead: false,
    });
    // A1 has a message less before the records, and its last is the manager's.
    let handshake = if setting.mode == Mode::A1 { 4 } else { 5 };
    let turns = script.byte() % TURNS;
    // Honest turns, until the one whose message is the script's.
    let mut awaited = Vec::new();
    for turn in 0..=turns {
        let from = usize::from(turn & 1);
        if turn >= handshake {
            nodes[from].say(&[turn]);
        }
        awaited = nodes[from].collect();
        if turn == turns {
            if from == side {
                awaited.clear(); // nothing is on its way to this side
            }
            break;
        }
        nodes[from ^ 1].deliver(&mut rng, &awaited);
    }
    let all_yes = noes.0 & 0x1f == 0;
    let settled = nodes.iter().all(|node| node.come.connected);
    assert!(!all_yes || turns < handshake || settled, "an honest handshake fails");
    let how = script.byte();
    let mut bytes = awaited.clone();
    if how & 1 == 0 {
        bytes = script.rest().to_vec();
    } else {
        script.edit(&mut bytes);
    }
    let piece = match how >> 1 {
        0 => bytes.len().max(1),
        piece => usize::from(piece),
    };
    let node = &mut nodes[side];
    let before = node.come.clone();
    for piece in bytes.chunks(piece) {
        node.deliver(&mut rng, piece);
        let _answers = node.collect();
    }
    let genuine = !awaited.is_empty() && bytes.starts_with(&awaited);
    if !genuine {
        assert_eq!(node.come, before, "something has come of what nobody sent");
    } else if bytes == awaited && all_yes {
        assert!(!node.dead, "dead of an honest message");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mode and suite, with and without a choice, up to records both ways.
    #[test]
    fn honest_scripts_connect() {
        for bits in (0..16).filter(|bits| bits & 3 != 3) {
            for side in 0..2 {
                one_side(&[bits, 0x80, 0, 5, 1], side);
                one_side(&[bits, 1, 0, 6, 1], side);
            }
        }
    }

    /// Each no of the five ends a handshake that it is asked in.
    #[test]
    fn a_no_ends_it() {
        for (mode, noes) in [(0, 1), (0, 2), (0, 4), (0, 8), (1, 16), (2, 16)] {
            let setting = Setting::new(&mut Script::new(&[mode, 0]));
            let mut rng = seeded(7);
            let sleeve = Machine::Sleeve(Box::new(setting.sleeve(&mut rng)));
            let manager = ManagerChannel::new(setting.manager.clone(), &ADDRESS, NOW);
            let manager = Machine::Manager(Box::new(manager));
            let mut nodes = [sleeve, manager].map(|machine| Node {
                machine,
                setting: &setting,
                noes: Noes(noes),
                come: Come::default(),
                dead: false,
            });
            for turn in 0..6 {
                let bytes = nodes[turn & 1].collect();
                nodes[turn & 1 ^ 1].deliver(&mut rng, &bytes);
            }
            assert!(nodes.iter().all(|node| !node.come.connected), "{mode} {noes}");
            assert!(nodes.iter().any(|node| node.dead), "{mode} {noes}");
        }
    }
}
