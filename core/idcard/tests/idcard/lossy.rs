//! Reader and server over a link that loses, delays, overtakes and doubles, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::card::{CardDone, CardWork};
use countersign_idcard::message::{CardAnswer, ReaderMessage, ServerMessage};
use countersign_idcard::reader::{
    READ_TIMEOUT, ReadFailure, ReadOptions, ReadStart, ReaderEvent, ReaderFlow,
};
use countersign_idcard::sam::{SamOperation, SamResult};
use countersign_idcard::server::{LAST_WORDS_KEPT, ReadPolicy, ServerEvent, ServerFlow};
use countersign_idcard::{
    Check, Delivery, ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX, EncryptedData, FlowError, PACKETS_MAX,
    PlainData, ShortText,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::flows::{configuration, plain};

const START: UnixTime = UnixTime::from_secs(1_800_000_000);

/// What the link does, in percent and milliseconds.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Lost, or damaged: the channel drops what does not open.
    drop: u32,
    duplicate: u32,
    /// A message that is held back by up to `held` more, so that others overtake it.
    reorder: u32,
    held: u64,
    delay: (u64, u64),
    /// The channel's window: what comes twice is dropped below the flows.
    window: bool,
}

impl Weather {
    const fn of(drop: u32) -> Self {
        Self { drop, duplicate: drop, reorder: drop, held: 50, delay: (5, 40), window: true }
    }
}

/// One direction. What is in flight has its time of arrival and its number.
struct Link {
    weather: Weather,
    rng: ChaCha20Rng,
    flight: BTreeMap<(UnixTime, u64), (u64, Vec<u8>)>,
    pushed: u64,
    came: BTreeSet<u64>,
}

impl Link {
    fn new(weather: Weather, seed: u64) -> Self {
        let rng = ChaCha20Rng::seed_from_u64(seed);
        Self { weather, rng, flight: BTreeMap::new(), pushed: 0, came: BTreeSet::new() }
    }

    fn happens(&mut self, percent: u32) -> bool {
        self.rng.next_u32() % 100 < percent
    }

    fn within(&mut self, (least, most): (u64, u64)) -> Duration {
        Duration::from_millis(least + self.rng.next_u64() % (most - least + 1))
    }

    /// False if it is lost.
    fn push(&mut self, now: UnixTime, bytes: &[u8]) -> bool {
        let message = self.pushed;
        self.pushed += 1;
        if self.happens(self.weather.drop) {
            return false;
        }
        let copies = 1 + u64::from(self.happens(self.weather.duplicate));
        for copy in 0..copies {
            let mut delay = self.within(self.weather.delay);
            if self.happens(self.weather.reorder) {
                delay += self.within((1, self.weather.held));
            }
            self.flight.insert((now.plus(delay), 2 * message + copy), (message, bytes.to_vec()));
        }
        true
    }

    fn next(&self) -> Option<UnixTime> {
        self.flight.keys().next().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: UnixTime) -> Option<Vec<u8>> {
        while self.next().is_some_and(|at| at <= now) {
            let (message, bytes) = self.flight.pop_first().expect("just seen").1;
            if self.came.insert(message) || !self.weather.window {
                return Some(bytes);
            }
        }
        None
    }
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fate {
    sent: u32,
    lost: u32,
}

struct Run {
    now: UnixTime,
    reader: ReaderFlow,
    server: ServerFlow,
    cache: ReaderCache,
    up: Link,
    down: Link,
    /// When the SAM and the card are done.
    sam: Option<(UnixTime, SamOperation)>,
    card: Option<(UnixTime, CardWork)>,
    data: usize,
    challenges: u8,
    packets: [Fate; PACKETS_MAX],
    result: Option<Result<PlainData, ReadFailure>>,
    ended: Vec<Result<(), Check>>,
    begun: u32,
    messages: u32,
}

/// How long a SAM takes for one operation, and the card for its work.
const SAM_WORKS: Duration = Duration::from_millis(120);
const CARD_WORKS: Duration = Duration::from_millis(400);

fn encrypted(len: usize) -> EncryptedData {
    let bytes: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
    EncryptedData::new(bytes.into()).expect("a possible length")
}

impl Run {
    fn new(weather: Weather, seed: u64, fingerprint: bool, cached: bool) -> Self {
        let data = if fingerprint { ENCRYPTED_LEN_MAX } else { ENCRYPTED_BASE_LEN };
        let provider = countersign_crypto::rust_crypto::provider();
        let mut cache = ReaderCache::new(CacheMode::MultiCard, provider);
        if cached {
            cache.store_encrypted(&configuration(), &encrypted(data), fingerprint);
        }
        let delivery = Delivery::Datagrams;
        let options = ReadOptions { fingerprint, delivery, ..ReadOptions::default() };
        let start = ReaderFlow::begin(START, &mut cache, &configuration(), [1; 16], options);
        let ReadStart::Started(reader) = start else { panic!("no plaintext is cached") };
        let incident = ShortText::new("inc_7").expect("short");
        Self {
            now: START,
            reader,
            server: ServerFlow::new(START, ReadPolicy::default(), delivery, incident),
            cache,
            up: Link::new(weather, 2 * seed),
            down: Link::new(weather, 2 * seed + 1),
            sam: None,
            card: None,
            data,
            challenges: 0,
            packets: Default::default(),
            result: None,
            ended: Vec::new(),
            begun: 0,
            messages: 0,
        }
    }

    /// Until nobody waits for anything any more.
    fn run(mut self) -> Self {
        for _step in 0..100_000 {
            self.settle();
            let times = [
                self.up.next(),
                self.down.next(),
                self.sam.as_ref().map(|(at, _)| *at),
                self.card.as_ref().map(|(at, _)| *at),
                self.reader.poll_timeout(),
                self.server.poll_timeout(),
            ];
            let Some(next) = times.into_iter().flatten().min() else {
                assert!(self.reader.is_over() && self.server.is_over());
                return self;
            };
            assert!(next >= self.now, "a timer in the past");
            self.now = next;
            self.arrive();
        }
        panic!("it goes on for ever: {:?} {:?}", self.reader, self.server);
    }

    fn arrive(&mut self) {
        let now = self.now;
        while let Some(bytes) = self.up.pop(now) {
            match self.server.handle(now, &bytes) {
                Ok(()) => {}
                // A reader that gave up in mid-read, or whose last words come very late.
                Err(FlowError::Over) => assert!(self.server.is_over()),
                Err(error) => panic!("the server died of {error}"),
            }
        }
        while let Some(bytes) = self.down.pop(now) {
            let mut rng = ChaCha20Rng::seed_from_u64(9);
            match self.reader.handle(now, &mut rng, &mut self.cache, &bytes) {
                Ok(()) | Err(FlowError::Over) => {}
                Err(error) => panic!("the reader died of {error}"),
            }
        }
        if let Some((_, operation)) = self.sam.take_if(|(at, _)| *at <= now) {
            self.sam_works(operation);
        }
        if let Some((_, work)) = self.card.take_if(|(at, _)| *at <= now) {
            let done = match work {
                CardWork::Authenticate { challenge } => {
                    CardDone::Answer(CardAnswer { answer: challenge, random: [4; 8] })
                }
                CardWork::ReadEncrypted { .. } => CardDone::Encrypted(encrypted(self.data)),
            };
            if !self.reader.is_over() {
                self.reader.card_done(now, &mut self.cache, Ok(done)).expect("asked for");
            }
        }
        self.reader.handle_timeout(now);
        self.server.handle_timeout(now);
    }

    fn sam_works(&mut self, operation: SamOperation) {
        let result = match operation {
            SamOperation::Begin { .. } => {
                self.challenges += 1;
                SamResult::Challenge([self.challenges; 8])
            }
            SamOperation::Answer { answer, .. } => {
                assert_eq!(answer, [self.challenges; 8], "the answer to another challenge");
                SamResult::Proof([7; 8])
            }
            SamOperation::Decrypt(data) => {
                assert_eq!(data, encrypted(self.data));
                SamResult::Plaintext { data: plain(0x20), card_checked: true }
            }
            SamOperation::Cancel | SamOperation::Status => return,
        };
        let _refused_meanwhile = self.server.sam_done(self.now, Ok(result));
    }

    fn settle(&mut self) {
        let now = self.now;
        while let Some(event) = self.server.poll_event() {
            match event {
                ServerEvent::Begun { .. } => self.begun += 1,
                ServerEvent::Sam(SamOperation::Cancel) => self.sam = None,
                ServerEvent::Sam(operation) => {
                    self.sam = Some((now.plus(SAM_WORKS), operation));
                }
                ServerEvent::SamLost { .. } => panic!("no SAM fails here"),
                ServerEvent::Done { .. } => self.ended.push(Ok(())),
                ServerEvent::Failed { check } => self.ended.push(Err(check)),
            }
        }
        while let Some(event) = self.reader.poll_event() {
            match event {
                ReaderEvent::Card(work) => self.card = Some((now.plus(CARD_WORKS), work)),
                ReaderEvent::Plaintext(plain) => self.result = Some(Ok(plain)),
                ReaderEvent::Failed(failure) => self.result = Some(Err(failure)),
            }
        }
        while let Some(bytes) = self.reader.poll_transmit() {
            self.messages += 1;
            let arrives = self.up.push(now, &bytes);
            if let Ok(ReaderMessage::Packet(packet)) = ReaderMessage::decode(&bytes) {
                let fate = &mut self.packets[usize::from(packet.index)];
                fate.sent += 1;
                fate.lost += u32::from(!arrives);
            }
        }
        while let Some(bytes) = self.server.poll_transmit() {
            self.messages += 1;
            assert!(bytes.len() <= 1029, "more than a datagram should have");
            assert!(!matches!(ServerMessage::decode(&bytes), Ok(ServerMessage::Plaintext(_))));
            self.down.push(now, &bytes);
        }
    }

    /// What must hold however the link was.
    fn check(&self) {
        assert!(self.now <= START.plus(READ_TIMEOUT + LAST_WORDS_KEPT + READ_TIMEOUT));
        assert!(self.begun <= 1 && self.ended.len() == 1, "{:?}", self.ended);
        assert!(self.messages < 400, "{} messages", self.messages);
        match self.result.as_ref().expect("a read ends with a result or a failure") {
            Ok(data) => {
                assert_eq!(data.text(), plain(0x20).text());
                assert_eq!(self.ended, [Ok(())]);
            }
            Err(failure) => assert_eq!(failure.check, "peer-timeout"),
        }
    }
}

const WEATHERS: [u32; 5] = [0, 1, 5, 20, 50];

/// C9, C10: at every rate the read ends with the right plaintext or a clear failure, and the
/// packets sent again are exactly those that were lost.
#[test]
fn reads_survive_the_link_and_send_again_exactly_what_was_lost() {
    for drop in WEATHERS {
        let (mut done, mut sent, mut lost) = (0, 0, 0);
        for seed in 0..200 {
            let run = Run::new(Weather::of(drop), seed, seed % 2 == 0, seed % 4 == 3).run();
            run.check();
            if matches!(run.result, Some(Ok(_))) {
                done += 1;
            }
            for fate in run.packets.into_iter().filter(|fate| fate.sent > 0) {
                let due = fate.lost + u32::from(fate.lost < fate.sent);
                assert_eq!(fate.sent, due, "{drop} % seed {seed}: {:?}", run.packets);
                sent += fate.sent;
                lost += fate.lost;
            }
        }
        let least = if drop <= 20 { 200 } else { 160 };
        assert!(done >= least, "{drop} %: only {done} of 200 reads succeeded");
        assert!((drop == 0) == (lost == 0), "{drop} %: {lost} of {sent} lost");
    }
}

/// Below the flows the channel drops what comes twice. If it did not, reads would still be right.
#[test]
fn reads_are_right_even_if_everything_comes_twice() {
    for drop in WEATHERS {
        for seed in 0..50 {
            let twice = Weather { duplicate: 100, window: false, ..Weather::of(drop) };
            Run::new(twice, seed, seed % 2 == 0, seed % 4 == 3).run().check();
        }
    }
}

/// Delays longer than the pauses cost bytes, not correctness: the pauses follow the turnaround.
#[test]
fn a_slow_link_is_not_taken_for_a_lossy_one() {
    for (delay, bound) in [((300, 340), 1), ((700, 740), 2)] {
        let slow = Weather { drop: 0, duplicate: 0, reorder: 0, held: 1, delay, window: true };
        for seed in 0..20 {
            let run = Run::new(slow, seed, true, seed % 2 == 0).run();
            run.check();
            assert!(matches!(run.result, Some(Ok(_))));
            let most = run.packets.iter().map(|fate| fate.sent).max();
            assert!(most <= Some(bound), "{delay:?}: {:?}", run.packets);
        }
    }
}

#[test]
fn a_link_that_carries_nothing_ends_in_time() {
    let dead = Weather { drop: 100, ..Weather::of(0) };
    let run = Run::new(dead, 1, false, false).run();
    let failure = run.result.expect("an end").expect_err("nothing came");
    assert_eq!((failure.check.as_str(), failure.retry), ("peer-timeout", true));
    assert_eq!(run.ended, [Err(Check::PeerTimeout)]);
    // The reader repeats itself, less and less.
    assert!((10..40).contains(&run.messages), "{}", run.messages);
}

#[test]
fn the_same_seed_gives_the_same_read() {
    let run = || {
        let run = Run::new(Weather::of(20), 5, true, false).run();
        (run.packets, run.messages, run.now)
    };
    assert_eq!(run(), run());
}
