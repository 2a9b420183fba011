use std::time::Duration;

use countersign_crypto::{UnixTime, rust_crypto};
use countersign_idcard::cache::{CARDS_MAX, CacheMode, ReaderCache};
use countersign_idcard::card::{CardDone, CardError, CardWork};
use countersign_idcard::message::{
    AbortReason, CardAnswer, Missing, Plaintext, ReadBegin, ReaderMessage, Refused, ServerMessage,
    Source,
};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::sam::{SamError, SamOperation, SamResult, Sw3};
use countersign_idcard::server::{ReadPolicy, SAM_ATTEMPTS_MAX, ServerEvent, ServerFlow};
use countersign_idcard::{
    Bytes, Configuration, Delivery, FlowError, MESSAGES_MAX, PACKET_DATA_MAX, Packet,
    PacketAssembler, RESULT_RESENDS_MAX, ShortText,
};
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

const fn delivery(setting: u8) -> Delivery {
    if setting & 2 == 0 { Delivery::Stream } else { Delivery::Datagrams }
}

/// The server's flow between a reader and a SAM that both do anything. Script: `settings, steps`.
///
/// A read is decided once; nothing is asked of a SAM before `Begin`, after `Cancel` or after it was
/// lost, and only so many are tried; a plaintext leaves only when a SAM gave one; the reader never
/// has its turn without a deadline; what is answered is bounded by what was asked.
pub fn server_flow(data: &[u8]) {
    let mut script = Script::new(data);
    let settings = script.byte();
    let policy = ReadPolicy { cache_plaintext: settings & 1 != 0, ..ReadPolicy::default() };
    let delivery = delivery(settings);
    let mut run = ServerRun {
        flow: ServerFlow::new(START, policy, delivery, text(b"inc_7")),
        policy,
        delivery,
        now: START,
        sam: Sam::Unused,
        begins: 0,
        plaintexts_due: 0,
        plaintexts_sent: 0,
        taken: 0,
        sent: 0,
        waits: 0,
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
    delivery: Delivery,
    now: UnixTime,
    sam: Sam,
    begins: u8,
    plaintexts_due: u32,
    /// Messages with a plaintext, or a part of one.
    plaintexts_sent: u32,
    taken: u16,
    /// All messages.
    sent: u32,
    /// Times that the flow was given the time.
    waits: u32,
    ends: u32,
    /// The owner ended it, which has no event.
    refused: bool,
}

impl ServerRun {
    fn step(&mut self, script: &mut Script<'_>) {
        let was_over = self.flow.is_over();
        let was_decided = self.flow.is_decided();
        match script.byte() % 16 {
            0..8 => {
                let bytes = reader_message(script);
                let result = self.flow.handle(self.now, &bytes);
                assert!(!was_over || result == Err(FlowError::Over));
                assert!(was_decided || result != Err(FlowError::Over));
                assert!(result.is_ok() || self.flow.is_over(), "alive after {result:?}");
                self.taken += u16::from(result.is_ok());
                assert!(self.taken <= MESSAGES_MAX);
            }
            8..12 => self.sam_done(script),
            12 => {
                self.flow.refuse(self.now, "sam-busy", true, text(script.short()));
                self.refused |= !was_decided;
                assert!(self.flow.is_decided());
            }
            13 => {
                self.now = self.now.plus(Duration::from_millis(script.number() as u64));
                self.flow.handle_timeout(self.now);
                self.waits += 1;
                let due = self.flow.poll_timeout().is_some_and(|deadline| deadline <= self.now);
                assert!(!due, "too late and still waiting");
            }
            14 if script.byte() == 0 => {
                self.flow.reader_gone();
                assert!(self.flow.is_over());
            }
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
            3 => Ok(SamResult::Plaintext { data: plain(0x20, None), card_checked: true }),
            4 => {
                let data = plain(script.byte(), Some(512));
                Ok(SamResult::Plaintext { data, card_checked: false })
            }
            5 => Ok(SamResult::Cancelled),
            6 => Err(SamError::Gone),
            _ => Err(SamError::Card { during: "find", status: Sw3::VerificationFailed }),
        };
        self.drain(); // an answer comes after its question
        let open = self.sam == Sam::Working;
        let is_plaintext = matches!(result, Ok(SamResult::Plaintext { .. }));
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
                ServerEvent::SamLost { .. } => {
                    assert_eq!((self.sam, self.ends), (Sam::Waiting, 0));
                    self.sam = Sam::Unused;
                }
                ServerEvent::Done { .. } => {
                    self.ends += 1;
                    assert_eq!(self.plaintexts_due, 1, "done without a plaintext");
                }
                ServerEvent::Failed { .. } => self.ends += 1,
            }
        }
        while let Some(bytes) = self.flow.poll_transmit() {
            self.sent += 1;
            let stream = self.delivery == Delivery::Stream;
            match ServerMessage::decode(&bytes).expect("the server sends messages") {
                ServerMessage::Plaintext(plaintext) if stream => {
                    assert_eq!(plaintext.cache_plaintext, self.policy.cache_plaintext);
                    self.plaintexts_sent += 1;
                }
                ServerMessage::ResultPart(_) if !stream => self.plaintexts_sent += 1,
                message => assert_eq!(self.plaintexts_sent, 0, "{} after the end", message.name()),
            }
        }
        let most = match self.delivery {
            Delivery::Stream => 1,
            Delivery::Datagrams => 3 * (1 + u32::from(RESULT_RESENDS_MAX)),
        };
        assert!(self.plaintexts_sent <= self.plaintexts_due * most, "a plaintext from nowhere");
        let answers = u32::from(self.taken) + self.waits + u32::from(self.begins) * 2;
        assert!(self.sent <= 3 * answers + 2, "{} messages for {answers}", self.sent);
        assert_eq!(self.ends, u32::from(self.flow.is_decided() && !self.refused));
        match self.flow.poll_timeout() {
            timeout if self.flow.is_over() => assert_eq!(timeout, None),
            timeout if self.flow.is_decided() => assert!(timeout.is_some(), "kept for ever"),
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
                self.begins += 1;
                assert!(self.begins <= SAM_ATTEMPTS_MAX);
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
            SamOperation::Status => panic!("a read does not ask how the module is"),
        };
    }
}

/// A reader's message, well formed or not.
fn reader_message(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let message = match kind % 14 {
        12 => match Missing::new(script.byte()) {
            Some(missing) => ReaderMessage::ResendResult(missing),
            None => ReaderMessage::Received,
        },
        13 => ReaderMessage::Received,
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

/// Reads of several cards by a reader whose server and card do anything. Script: `settings, steps`.
///
/// A read ends once; a plaintext is either the server's or one that the server had allowed to be
/// kept for this card; the packets sent are what the card gave; the cache is bounded.
pub fn reader_flow(data: &[u8]) {
    let mut script = Script::new(data);
    let settings = script.byte();
    let (mode, bound) = match settings & 1 {
        0 => (CacheMode::MultiCard, CARDS_MAX),
        _ => (CacheMode::SingleCard, 1),
    };
    let mut cache = ReaderCache::new(mode, rust_crypto::provider());
    let mut kept = Vec::new();
    for _ in 0..STEPS_MAX {
        if script.is_empty() {
            break;
        }
        read(&mut script, &mut cache, &mut kept, delivery(settings));
        assert!(cache.len() <= bound, "{} cards kept", cache.len());
    }
}

/// One read. `kept` has the cards whose plaintext the server allowed to be kept.
fn read(
    script: &mut Script<'_>,
    cache: &mut ReaderCache,
    kept: &mut Vec<Configuration>,
    delivery: Delivery,
) {
    let choice = script.byte();
    let configuration = Configuration::new([choice & 0x0F; 32]);
    let fingerprint = choice & 0x10 != 0;
    let options = ReadOptions { fingerprint, delivery, ..ReadOptions::default() };
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
        delivery,
        now: START,
        work: None,
        packets: PacketAssembler::new(),
        complete: false,
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
    delivery: Delivery,
    now: UnixTime,
    work: Option<CardWork>,
    packets: PacketAssembler,
    /// All packets were sent.
    complete: bool,
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
            12 => {
                self.now = self.now.plus(Duration::from_millis(script.number() as u64));
                self.flow.handle_timeout(self.now);
                let due = self.flow.poll_timeout().is_some_and(|deadline| deadline <= self.now);
                assert!(!due, "too late and still waiting");
            }
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
        let result = self.flow.handle(self.now, &mut seeded(1), cache, &bytes);
        assert_eq!(was_over, result == Err(FlowError::Over));
        assert!(result.is_ok() || self.flow.is_over(), "alive after {result:?}");
        let stream = self.delivery == Delivery::Stream;
        match (result, ServerMessage::decode(&bytes)) {
            (Ok(()), Ok(ServerMessage::Plaintext(plain))) => {
                assert!(stream && self.complete, "a plaintext of data that were not sent");
                if plain.cache_plaintext {
                    kept.push(self.configuration.clone());
                }
            }
            (Ok(()), Ok(ServerMessage::ResultPart(_))) => {
                assert!(!stream && self.complete, "a result of data that were not sent");
                kept.push(self.configuration.clone()); // or not, as the parts together say
            }
            _ => {}
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
        let taken = self.flow.card_done(self.now, cache, done).is_ok();
        assert!(!taken || asked.is_some(), "took what it had not asked for");
    }

    fn drain(&mut self, was_over: bool) {
        while let Some(event) = self.flow.poll_event() {
            assert!(!was_over, "{event:?} after the end");
            match event {
                ReaderEvent::Card(work) => self.work = Some(work),
                ReaderEvent::Plaintext(_) => {
                    assert!(self.complete, "a plaintext from nowhere");
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
                    if let Some(whole) = self.packets.push(&packet).expect("the same each time") {
                        assert!(whole.as_bytes().iter().all(|&byte| byte == 4));
                        self.complete = true;
                    }
                }
                ReaderMessage::ReadBegin(begin) => {
                    assert_eq!(begin.configuration, self.configuration);
                }
                ReaderMessage::ResendResult(_) | ReaderMessage::Received => {
                    assert!(self.complete && self.delivery == Delivery::Datagrams);
                }
                ReaderMessage::CardAnswer(_) | ReaderMessage::Abort(_) => {}
            }
        }
    }
}

/// A server's message, well formed or not.
fn server_message(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let message = match kind % 10 {
        8 => match Missing::new(script.byte()) {
            Some(missing) => ServerMessage::Resend(missing),
            None => ServerMessage::SendPackets,
        },
        9 => {
            let data = plain(0x20, None);
            let plaintext = Plaintext { data, cache_plaintext: kind & 0x80 != 0 };
            let whole = ServerMessage::Plaintext(plaintext).encode();
            let at = script.byte() & 1;
            let part = whole[1..].chunks(PACKET_DATA_MAX).nth(at.into()).expect("two parts");
            let data = Bytes::new(part).expect("a packet at most");
            ServerMessage::ResultPart(Packet { index: at, total: 2, data })
        }
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
