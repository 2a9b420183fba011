use std::time::Duration;

use countersign_crypto::{UnixTime, rust_crypto};
use countersign_idcard::cache::{CARDS_MAX, CacheMode, ReaderCache};
use countersign_idcard::card::{CardDone, CardError, CardWork};
use countersign_idcard::message::{
    AbortReason, CardAnswer, Plaintext, ReadBegin, ReaderMessage, Refused, ServerMessage, Source,
};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::sam::{SamError, SamOperation, SamResult, Sw3};
use countersign_idcard::server::{ReadPolicy, ServerEvent, ServerFlow};
use countersign_idcard::{Bytes, Configuration, FlowError, Packet, PacketAssembler, ShortText};
use testkit::rng::seeded;

use super::{encrypted, plain};
use crate::script::Script;

const STEPS_MAX: usize = 64;
const START: UnixTime = UnixTime::from_secs(1);

fn text<const MAX: usize>(bytes: &[u8]) -> ShortText<MAX> {
    let bytes = &bytes[..bytes.len().min(MAX)];
    let visible: String = bytes.iter().map(|byte| char::from(b'!' + byte % 94)).collect();
    ShortText::new(&visible).expect("visible and short")
}

/// The server's flow between a reader and a SAM that both do anything. Script: `steps`.
///
/// A flow ends once; nothing is asked of a SAM before `Begin` or after `Cancel`; a plaintext leaves
/// only when a SAM gave one; the reader never has its turn without a deadline.
pub fn server_flow(data: &[u8]) {
    let mut script = Script::new(data);
    let policy = ReadPolicy { cache_plaintext: script.byte() & 1 != 0, ..ReadPolicy::default() };
    let mut run = ServerRun {
        flow: ServerFlow::new(START, policy, text(b"inc_7")),
        policy,
        now: START,
        sam: Sam::Unused,
        plaintexts_due: 0,
        plaintexts_sent: 0,
        ends: 0,
        refused: false,
    };
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        run.step(&mut script);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sam {
    Unused,
    /// It was asked for something.
    Working,
    /// It answered.
    Waiting,
    Released,
}

struct ServerRun {
    flow: ServerFlow,
    policy: ReadPolicy,
    now: UnixTime,
    sam: Sam,
    plaintexts_due: u32,
    plaintexts_sent: u32,
    ends: u32,
    /// The owner ended it, which has no event.
    refused: bool,
}

impl ServerRun {
    fn step(&mut self, script: &mut Script<'_>) {
        let was_over = self.flow.is_over();
        match script.byte() % 16 {
            0..8 => {
                let bytes = reader_message(script);
                let result = self.flow.handle(self.now, &bytes);
                assert_eq!(was_over, result == Err(FlowError::Over));
                assert!(result.is_ok() || self.flow.is_over(), "alive after {result:?}");
            }
            8..12 => self.sam_done(script),
            12 => {
                self.flow.refuse("sam-busy", true, text(script.short()));
                self.refused |= !was_over;
                assert!(self.flow.is_over());
            }
            13 => {
                self.now = self.now.plus(Duration::from_millis(script.number() as u64));
                let due = self.flow.poll_timeout().is_some_and(|deadline| deadline <= self.now);
                self.flow.handle_timeout(self.now);
                assert!(!due || self.flow.is_over(), "too late and still alive");
            }
            14 if script.byte() == 0 => self.flow.reader_gone(),
            _ => {}
        }
        // An owner may take its time.
        if script.byte() & 1 == 0 || script.is_empty() {
            self.drain();
        }
    }

    fn sam_done(&mut self, script: &mut Script<'_>) {
        let kind = script.byte();
        let result = match kind % 8 {
            0 | 1 => Ok(SamResult::Challenge(script.array())),
            2 => Ok(SamResult::Proof(script.array())),
            3 => Ok(SamResult::Plaintext(plain(0x20, None))),
            4 => Ok(SamResult::Plaintext(plain(script.byte(), Some(512)))),
            5 => Ok(SamResult::Cancelled),
            6 => Err(SamError::Gone),
            _ => Err(SamError::Card { during: "find", status: Sw3::VerificationFailed }),
        };
        self.drain(); // an answer comes after its question
        let open = self.sam == Sam::Working;
        let is_plaintext = matches!(result, Ok(SamResult::Plaintext(_)));
        let taken = self.flow.sam_done(self.now, result).is_ok();
        if taken && is_plaintext {
            assert!(open, "a plaintext that nobody asked for");
            self.plaintexts_due += 1;
        }
        if open {
            self.sam = Sam::Waiting;
        }
    }

    fn drain(&mut self) {
        while let Some(event) = self.flow.poll_event() {
            match event {
                ServerEvent::Begun { .. } => assert_eq!((self.sam, self.ends), (Sam::Unused, 0)),
                ServerEvent::Sam(operation) => self.sam_asked(&operation),
                ServerEvent::Done { .. } => {
                    self.ends += 1;
                    assert_eq!(self.plaintexts_due, 1, "done without a plaintext");
                }
                ServerEvent::Failed { .. } => self.ends += 1,
            }
        }
        while let Some(bytes) = self.flow.poll_transmit() {
            match ServerMessage::decode(&bytes).expect("the server sends messages") {
                ServerMessage::Plaintext(plaintext) => {
                    assert_eq!(plaintext.cache_plaintext, self.policy.cache_plaintext);
                    self.plaintexts_sent += 1;
                }
                message => assert_eq!(self.plaintexts_sent, 0, "{} after the end", message.name()),
            }
        }
        assert!(self.plaintexts_sent <= self.plaintexts_due.min(1), "a plaintext from nowhere");
        assert_eq!(self.ends, u32::from(self.flow.is_over() && !self.refused));
        match self.flow.poll_timeout() {
            _ if self.flow.is_over() => assert_eq!(self.flow.poll_timeout(), None),
            None => assert_eq!(self.sam, Sam::Working, "the reader's turn has no end"),
            Some(deadline) => {
                assert!(deadline <= self.now.plus(self.policy.reader_turn));
                assert_ne!(self.sam, Sam::Working);
            }
        }
    }

    fn sam_asked(&mut self, operation: &SamOperation) {
        let before = self.sam;
        self.sam = match operation {
            SamOperation::Begin { .. } => {
                assert_eq!(before, Sam::Unused);
                Sam::Working
            }
            SamOperation::Answer { .. } | SamOperation::Decrypt(_) => {
                assert_eq!(before, Sam::Waiting, "asked while it works");
                Sam::Working
            }
            SamOperation::Cancel => {
                assert!(matches!(before, Sam::Working | Sam::Waiting), "nothing to cancel");
                Sam::Released
            }
        };
    }
}

/// A reader's message, well formed or not.
fn reader_message(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let message = match kind % 12 {
        0..3 => ReaderMessage::ReadBegin(ReadBegin {
            read_id: script.array(),
            configuration: Configuration::new([1; 32]),
            source: if kind & 0x80 == 0 { Source::Card } else { Source::Cache },
        }),
        3 | 4 => {
            ReaderMessage::CardAnswer(CardAnswer { answer: script.array(), random: script.array() })
        }
        5..8 => {
            let mut packets = encrypted(2, kind & 0x80 != 0).packets();
            let at = usize::from(kind >> 4 & 7) % packets.len();
            ReaderMessage::Packet(packets.swap_remove(at))
        }
        8 => ReaderMessage::Packet(Packet {
            index: script.byte() % 6,
            total: script.byte() % 6,
            data: Bytes::new(&vec![3; script.number() % 1025]).expect("a packet at most"),
        }),
        9 => ReaderMessage::Abort(AbortReason::Cancelled),
        10 => return script.short().to_vec(),
        _ => {
            let mut bytes = encrypted(2, false).packets().remove(1).data.as_slice().to_vec();
            script.edit_once(&mut bytes);
            return bytes;
        }
    };
    let mut bytes = message.encode().to_vec();
    if kind & 0x0F == 0x0F {
        script.edit_once(&mut bytes);
    }
    bytes
}

/// Reads of several cards by a reader whose server and card do anything. Script: `mode, steps`.
///
/// A read ends once; a plaintext is either the server's or one that the server had allowed to be
/// kept for this card; the packets sent are what the card gave; the cache is bounded.
pub fn reader_flow(data: &[u8]) {
    let mut script = Script::new(data);
    let (mode, bound) = match script.byte() & 1 {
        0 => (CacheMode::MultiCard, CARDS_MAX),
        _ => (CacheMode::SingleCard, 1),
    };
    let mut cache = ReaderCache::new(mode, rust_crypto::provider());
    let mut kept = Vec::new();
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        read(&mut script, &mut cache, &mut kept);
        assert!(cache.len() <= bound, "{} cards kept", cache.len());
    }
}

/// One read. `kept` has the cards whose plaintext the server allowed to be kept.
fn read(script: &mut Script<'_>, cache: &mut ReaderCache, kept: &mut Vec<Configuration>) {
    let choice = script.byte();
    let configuration = Configuration::new([choice & 0x0F; 32]);
    let options = ReadOptions { fingerprint: choice & 0x10 != 0, ..ReadOptions::default() };
    let flow = match ReaderFlow::begin(START, cache, &configuration, script.array(), options) {
        ReadStart::Answered(_) => {
            assert!(kept.contains(&configuration), "kept without the server's leave");
            return;
        }
        ReadStart::Started(flow) => flow,
    };
    assert!(cache.knows(&configuration));
    let mut run = ReaderRun {
        flow,
        configuration,
        work: None,
        packets: PacketAssembler::new(),
        complete: false,
        plaintexts: 0,
        ends: 0,
    };
    for _ in 0..STEPS_MAX {
        if script.is_empty() || run.step(script, cache, kept) {
            break;
        }
    }
}

struct ReaderRun {
    flow: ReaderFlow,
    configuration: Configuration,
    work: Option<CardWork>,
    packets: PacketAssembler,
    /// All packets were sent.
    complete: bool,
    /// Messages with a plaintext that the flow took.
    plaintexts: u32,
    ends: u32,
}

impl ReaderRun {
    /// True if the script goes on to the next read.
    fn step(
        &mut self,
        script: &mut Script<'_>,
        cache: &mut ReaderCache,
        kept: &mut Vec<Configuration>,
    ) -> bool {
        let was_over = self.flow.is_over();
        match script.byte() % 16 {
            0..8 => self.handle(script, cache, kept),
            8..12 => self.card_done(script, cache),
            12 => self.flow.handle_timeout(START.plus(Duration::from_secs(script.number() as u64))),
            13 => self.flow.card_removed(),
            14 if script.byte() == 0 => self.flow.cancel(),
            _ if was_over => return true,
            _ => {}
        }
        self.drain(was_over);
        false
    }

    fn handle(
        &mut self,
        script: &mut Script<'_>,
        cache: &mut ReaderCache,
        kept: &mut Vec<Configuration>,
    ) {
        let was_over = self.flow.is_over();
        let bytes = server_message(script);
        let result = self.flow.handle(&mut seeded(1), cache, &bytes);
        assert_eq!(was_over, result == Err(FlowError::Over));
        assert!(result.is_ok() || self.flow.is_over(), "alive after {result:?}");
        if let (Ok(()), Ok(ServerMessage::Plaintext(plain))) =
            (result, ServerMessage::decode(&bytes))
        {
            assert!(self.complete, "a plaintext of data that were not sent");
            self.plaintexts += 1;
            if plain.cache_plaintext {
                kept.push(self.configuration.clone());
            }
        }
    }

    fn card_done(&mut self, script: &mut Script<'_>, cache: &mut ReaderCache) {
        let kind = script.byte();
        let asked = self.work.take();
        let done = match (kind % 8, &asked) {
            (0, _) => Err(CardError::Timeout),
            (1, _) => Err(CardError::Refused(0x6A82)),
            (2, _) => Ok(CardDone::Answer(CardAnswer { answer: [1; 8], random: [2; 8] })),
            (3, _) => Ok(CardDone::Encrypted(encrypted(4, false))),
            (_, Some(CardWork::ReadEncrypted { fingerprint, .. })) => {
                Ok(CardDone::Encrypted(encrypted(4, *fingerprint)))
            }
            _ => Ok(CardDone::Answer(CardAnswer { answer: [1; 8], random: [2; 8] })),
        };
        let taken = self.flow.card_done(cache, done).is_ok();
        assert!(!taken || asked.is_some(), "took what it had not asked for");
    }

    fn drain(&mut self, was_over: bool) {
        while let Some(event) = self.flow.poll_event() {
            assert!(!was_over, "{event:?} after the end");
            match event {
                ReaderEvent::Card(work) => self.work = Some(work),
                ReaderEvent::Plaintext(_) => {
                    assert_eq!(self.plaintexts, 1, "a plaintext from nowhere");
                    self.ends += 1;
                }
                ReaderEvent::Failed(_) => self.ends += 1,
            }
        }
        assert_eq!(self.ends, u32::from(self.flow.is_over()));
        assert_eq!(self.flow.is_over(), self.flow.poll_timeout().is_none());
        while let Some(bytes) = self.flow.poll_transmit() {
            match ReaderMessage::decode(&bytes).expect("the reader sends messages") {
                ReaderMessage::Packet(packet) => {
                    if let Some(whole) = self.packets.push(&packet).expect("in order, and fitting")
                    {
                        assert!(whole.as_bytes().iter().all(|&byte| byte == 4));
                        self.complete = true;
                    }
                }
                ReaderMessage::ReadBegin(begin) => {
                    assert_eq!(begin.configuration, self.configuration);
                }
                ReaderMessage::CardAnswer(_) | ReaderMessage::Abort(_) => {}
            }
        }
    }
}

/// A server's message, well formed or not.
fn server_message(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let message = match kind % 8 {
        0 | 1 => ServerMessage::CardChallenge(script.array()),
        2 => ServerMessage::SamProof(script.array()),
        3 => ServerMessage::SendPackets,
        4 => ServerMessage::Plaintext(Plaintext {
            data: plain(0x20, None),
            cache_plaintext: kind & 0x80 != 0,
        }),
        5 => ServerMessage::Plaintext(Plaintext {
            data: plain(0x20, Some(512)),
            cache_plaintext: kind & 0x80 != 0,
        }),
        6 => ServerMessage::Refused(Refused::new(
            text(script.short()),
            kind & 0x80 != 0,
            text(script.short()),
        )),
        _ => return script.short().to_vec(),
    };
    let mut bytes = message.encode().to_vec();
    if kind & 0x70 == 0x70 {
        script.edit_once(&mut bytes);
    }
    bytes
}
