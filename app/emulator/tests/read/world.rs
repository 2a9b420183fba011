//! Reader flow, server flow, SAM host, emulated SAM and emulated card, all in memory, with
//! virtual time and a seeded generator.

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Provider, UnixTime, rust_crypto};
use countersign_emulator::{
    CardHandle, CardImage, EmulatedCard, EmulatedSam, Faults, Reply, Scheme, sample,
};
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::card::read_configuration;
use countersign_idcard::message::{ReaderMessage, ServerMessage};
use countersign_idcard::reader::{ReadFailure, ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_idcard::sam::{SamConfig, SamEvent, SamHost, SamOperation};
use countersign_idcard::server::{ReadPolicy, ServerEvent, ServerFlow};
use countersign_idcard::{Check, Delivery, PlainData, ShortText};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;

/// What the reader sends to the server may be altered, dropped or added to on the way.
pub(crate) type Tamper = Box<dyn FnMut(&[u8]) -> Vec<Vec<u8>>>;

pub(crate) struct World {
    pub(crate) now: UnixTime,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) cache: ReaderCache,
    pub(crate) policy: ReadPolicy,
    pub(crate) options: ReadOptions,
    pub(crate) link: EmulatedCard,
    pub(crate) card: CardHandle,
    pub(crate) sam: EmulatedSam,
    pub(crate) faults: Faults,
    pub(crate) host: SamHost,
    pub(crate) unplugged: bool,
    /// Modules that are leased when the one in use is lost, the last one first.
    pub(crate) spare: Vec<Faults>,
    /// Why modules were given up in mid-read.
    pub(crate) lost: Vec<Check>,
    /// Whether the last read that was done was checked.
    pub(crate) card_checked: bool,
    config: SamConfig,
    pub(crate) tamper: Option<Tamper>,
    next_read: u8,
}

/// What one read came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) result: Result<PlainData, ReadFailure>,
    /// Messages sent by both sides.
    pub(crate) messages: usize,
    /// What the server ended with.
    pub(crate) server: Option<Result<DocumentType, Check>>,
    /// Kinds of messages in order.
    pub(crate) names: Vec<&'static str>,
}

impl Outcome {
    /// The check that the reader was told.
    pub(crate) fn check(&self) -> &str {
        &self.result.as_ref().expect_err("the read should have failed").check
    }

    pub(crate) fn record(&self) -> IdRecord {
        let plain = self.result.as_ref().expect("the read should have succeeded");
        IdRecord::decode(plain.text()).expect("the sample is valid")
    }
}

pub(crate) fn provider() -> Provider {
    rust_crypto::provider()
}

pub(crate) fn scheme() -> Scheme {
    Scheme::with_demo_key(provider())
}

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// The sample card of a type, with a fingerprint if `fingerprint`.
pub(crate) fn card(document_type: DocumentType, serial: u64, fingerprint: bool) -> Arc<CardImage> {
    let finger = vec![0xF1; 1024];
    let finger = fingerprint.then_some(finger.as_slice());
    let record = sample(document_type);
    let card = CardImage::new(&scheme(), &mut rng(serial), serial, &record, None, finger);
    Arc::new(card.expect("samples are valid"))
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(SamConfig::default(), CacheMode::MultiCard)
    }

    pub(crate) fn with(config: SamConfig, mode: CacheMode) -> Self {
        let faults = Faults::none();
        let (link, card) = EmulatedCard::new(scheme(), Box::new(rng(7)));
        let mut world = Self {
            now: UnixTime::from_secs(1_800_000_000),
            rng: rng(1),
            cache: ReaderCache::new(mode, provider()),
            policy: ReadPolicy::default(),
            options: ReadOptions::default(),
            link,
            card,
            sam: EmulatedSam::new(scheme(), 42, faults.clone()),
            faults,
            host: SamHost::new(config),
            unplugged: false,
            spare: Vec::new(),
            lost: Vec::new(),
            card_checked: false,
            config,
            tamper: None,
            next_read: 0,
        };
        world.host.start(world.now).expect("a new host starts");
        let ready = world.run_sam();
        assert!(matches!(ready.as_slice(), [SamEvent::Ready(id)] if *id == world.sam.id()));
        world
    }

    /// Replaces module and host, as after reopening the port.
    pub(crate) fn replug(&mut self) {
        self.faults.clear();
        self.plug(43, self.faults.clone());
    }

    /// The last number of the id of the module in use.
    pub(crate) fn host_serial(&self) -> u32 {
        let id = self.sam.id();
        u32::from_le_bytes(id.as_bytes()[12..].try_into().expect("four bytes"))
    }

    /// Another module and its host; `serial` is the last number of its id.
    fn plug(&mut self, serial: u32, faults: Faults) {
        self.sam = EmulatedSam::new(scheme(), serial, faults);
        self.host = SamHost::new(self.config);
        self.unplugged = false;
        self.host.start(self.now).expect("a new host starts");
        assert!(matches!(self.run_sam().as_slice(), [SamEvent::Ready(_)]));
    }

    /// Runs host and module against each other until both are still, letting time pass where the
    /// host waits for an answer that does not come.
    pub(crate) fn run_sam(&mut self) -> Vec<SamEvent> {
        let mut events = Vec::new();
        loop {
            while let Some(frame) = self.host.poll_transmit() {
                if self.unplugged {
                    self.host.gone();
                    continue;
                }
                for reply in self.sam.handle(&mut self.rng, &frame) {
                    match reply {
                        // Byte by byte: a serial port cuts where it likes.
                        Reply::Bytes(bytes) => {
                            for byte in bytes.iter() {
                                self.host.handle(self.now, &[*byte]);
                            }
                        }
                        Reply::Unplugged => {
                            self.unplugged = true;
                            self.host.gone();
                        }
                    }
                }
            }
            while let Some(event) = self.host.poll_event() {
                events.push(event);
            }
            match self.host.poll_timeout() {
                Some(deadline) if events.is_empty() => {
                    self.now = deadline;
                    self.host.handle_timeout(self.now);
                }
                _ => return events,
            }
        }
    }

    /// One whole read of the card in the field.
    pub(crate) fn read(&mut self) -> Outcome {
        let configuration = read_configuration(&mut self.link).expect("a card is in the field");
        self.cache.card_appeared(&configuration);
        self.next_read += 1;
        let start = ReaderFlow::begin(
            self.now,
            &mut self.cache,
            &configuration,
            [self.next_read; 16],
            self.options,
        );
        match start {
            ReadStart::Answered(plain) => {
                Outcome { result: Ok(plain), messages: 0, server: None, names: Vec::new() }
            }
            ReadStart::Started(reader) => self.drive(reader),
        }
    }

    fn drive(&mut self, mut reader: ReaderFlow) -> Outcome {
        let incident = ShortText::new("inc_1").expect("short");
        let mut server = ServerFlow::new(self.now, self.policy, Delivery::Stream, incident);
        let mut outcome = None;
        let mut ended = None;
        let mut names = Vec::new();
        for _turn in 0..100 {
            let mut idle = true;
            while let Some(message) = reader.poll_transmit() {
                idle = false;
                let on_the_way = match &mut self.tamper {
                    Some(tamper) => tamper(&message),
                    None => vec![message.to_vec()],
                };
                for message in on_the_way {
                    names.push(ReaderMessage::decode(&message).map_or("garbage", |m| m.name()));
                    // A dead flow says so and takes no more.
                    let over = server.is_over();
                    let result = server.handle(self.now, &message);
                    assert!(!over || result.is_err());
                }
            }
            while let Some(message) = server.poll_transmit() {
                idle = false;
                names.push(ServerMessage::decode(&message).map_or("garbage", |m| m.name()));
                let _dead = reader.handle(self.now, &mut self.rng, &mut self.cache, &message);
            }
            while let Some(event) = server.poll_event() {
                idle = false;
                self.serve(&mut server, event, &mut ended);
            }
            while let Some(event) = reader.poll_event() {
                idle = false;
                match event {
                    ReaderEvent::Card(work) => {
                        let done = work.perform(&mut self.link);
                        reader
                            .card_done(self.now, &mut self.cache, done)
                            .expect("it was asked for");
                    }
                    ReaderEvent::Plaintext(plain) => outcome = Some(Ok(plain)),
                    ReaderEvent::Failed(failure) => outcome = Some(Err(failure)),
                }
            }
            if idle && (reader.is_over() && server.is_over()) {
                break;
            }
            if idle {
                // Nobody has anything to say: time passes.
                self.now = self.now.plus(Duration::from_secs(1));
                server.handle_timeout(self.now);
                reader.handle_timeout(self.now);
            }
        }
        assert!(reader.is_over() && server.is_over(), "{reader:?} {server:?}");
        let result = outcome.expect("a read ends with a result or a failure");
        Outcome { result, messages: names.len(), server: ended, names }
    }

    fn serve(
        &mut self,
        server: &mut ServerFlow,
        event: ServerEvent,
        ended: &mut Option<Result<DocumentType, Check>>,
    ) {
        match event {
            ServerEvent::Begun { .. } => {}
            ServerEvent::SamLost { check } => {
                assert!(self.host.is_dead(), "given up although it lives");
                self.lost.push(check);
                match self.spare.pop() {
                    Some(faults) => self.plug(100 + self.spare.len() as u32, faults),
                    None => {
                        let none = ShortText::new("").expect("short");
                        server.refuse(self.now, "sam-none-ready", true, none);
                    }
                }
            }
            ServerEvent::Done { document_type, card_checked } => {
                self.card_checked = card_checked;
                *ended = Some(Ok(document_type));
            }
            ServerEvent::Failed { check } => *ended = Some(Err(check)),
            ServerEvent::Sam(operation) => {
                let cancel = operation == SamOperation::Cancel;
                if let Err(error) = self.host.operate(self.now, operation) {
                    if !cancel {
                        server.sam_done(self.now, Err(error)).expect("it was asked for");
                    }
                    return;
                }
                for event in self.run_sam() {
                    match event {
                        SamEvent::Done(result) => {
                            server.sam_done(self.now, Ok(result)).expect("it was asked for");
                        }
                        SamEvent::Failed(error) => {
                            server.sam_done(self.now, Err(error)).expect("it was asked for");
                        }
                        SamEvent::Ready(_) | SamEvent::Bridge(_) => panic!("out of turn"),
                    }
                }
            }
        }
    }
}
