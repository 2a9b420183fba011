//! What is sent again over a link that damages packets, beside the least possible (C10).
//!
//! Both flows in memory and in virtual time. A damaged record is dropped by the channel, as is one
//! that got lost, so the link drops.

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_crypto::{Secret, UnixTime};
use countersign_emulator::sample;
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::message::{ReaderMessage, ServerMessage};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::record::DocumentType;
use countersign_idcard::sam::{SamOperation, SamResult};
use countersign_idcard::server::{ReadPolicy, ServerEvent, ServerFlow};
use countersign_idcard::{
    CONFIGURATION_LEN, Configuration, Delivery, ENCRYPTED_BASE_LEN, EncryptedData, PHOTO_LEN,
    PlainData, READ_ID_LEN, ShortText,
};
use rand_core::Rng;
use testkit::loss::{Direction, LossyLink, Rates, WHOLE};
use testkit::rng::{ChaCha20Rng, seeded};

use crate::Fallible;
use crate::report::Row;

/// Of a hundred packets so many are damaged.
const DAMAGE: [u32; 3] = [1, 5, 20];
/// Reads for each round that was asked for: damage is rare, and a few reads tell nothing.
const READS_A_ROUND: usize = 20;
/// How long a datagram is on its way.
const DELAY: Duration = Duration::from_millis(20);
/// When a read begins.
const START: UnixTime = UnixTime::from_secs(1_000_000);

/// Bytes of packet messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Bytes {
    /// Sent beyond the first time.
    again: usize,
    /// Lost on the way: what has to be sent again at the least.
    lost: usize,
    /// What resending all packets of a card whenever one is missing would have sent again.
    everything: usize,
}

pub(super) fn rows(rounds: usize) -> Fallible<Vec<Row>> {
    let mut rows = Vec::new();
    for percent in DAMAGE {
        let bytes = resent(percent, rounds * READS_A_ROUND)?;
        let again = bytes.again as f64;
        let row = || Row::new(format!("sent again, {percent} % damaged"), again, "bytes");
        rows.push(
            row().against("what got lost: the least possible", bytes.lost as f64).at_most(1.1),
        );
        rows.push(row().against("sending all packets again", bytes.everything as f64));
    }
    Ok(rows)
}

/// Of so many reads over a link that damages so many percent, both ways.
fn resent(percent: u32, reads: usize) -> Fallible<Bytes> {
    let rates = Rates { delay: DELAY, ..Rates::dropping(percent) };
    let mut draw = seeded(u64::from(percent));
    let mut sum = Bytes::default();
    for at in 0..reads {
        let link = LossyLink::new(rates, (u64::from(percent) << 32) + at as u64);
        let bytes = Read::begin(link)?.run()?;
        sum.again += bytes.again;
        sum.lost += bytes.lost;
        sum.everything += everything_again(&mut draw, percent);
    }
    Ok(sum)
}

/// Bytes that a reader sends again that knows only whether all packets arrived.
fn everything_again(draw: &mut ChaCha20Rng, percent: u32) -> usize {
    let packets: Vec<usize> = packets().iter().map(Vec::len).collect();
    let mut again = 0;
    while packets.iter().fold(false, |lost, _| draw.next_u32() % WHOLE < percent * 10 || lost) {
        again += packets.iter().sum::<usize>();
    }
    again
}

/// What is on any card without fingerprint.
fn encrypted() -> EncryptedData {
    EncryptedData::new(vec![0; ENCRYPTED_BASE_LEN].into()).expect("the right length")
}

/// Its packet messages.
fn packets() -> Vec<Vec<u8>> {
    let encode = |packet| ReaderMessage::Packet(packet).encode().to_vec();
    encrypted().packets().into_iter().map(encode).collect()
}

/// One read of a card whose packets are in the cache: nothing but the packets is at stake.
struct Read {
    link: LossyLink,
    now: UnixTime,
    cache: ReaderCache,
    reader: ReaderFlow,
    server: ServerFlow,
    seen: BTreeSet<u8>,
    bytes: Bytes,
    done: bool,
}

impl Read {
    fn begin(link: LossyLink) -> Fallible<Self> {
        let provider = countersign_crypto::aws_lc::provider();
        let mut cache = ReaderCache::new(CacheMode::MultiCard, provider);
        let configuration = Configuration::new([1; CONFIGURATION_LEN]);
        cache.store_encrypted(&configuration, &encrypted(), false);
        let options = ReadOptions { delivery: Delivery::Datagrams, ..ReadOptions::default() };
        let id = [7; READ_ID_LEN];
        let start = ReaderFlow::begin(START, &mut cache, &configuration, id, options);
        let ReadStart::Started(reader) = start else { return Err("answered by the cache".into()) };
        let incident = ShortText::new("").ok_or("the empty text fits")?;
        let server = ServerFlow::new(START, ReadPolicy::default(), Delivery::Datagrams, incident);
        let (seen, bytes) = (BTreeSet::new(), Bytes::default());
        Ok(Self { link, now: START, cache, reader, server, seen, bytes, done: false })
    }

    fn run(mut self) -> Fallible<Bytes> {
        loop {
            self.talk()?;
            if self.done {
                return Ok(self.bytes);
            }
            let due = self.link.next_due().map(|due| START.plus(due));
            let timers = [self.reader.poll_timeout(), self.server.poll_timeout(), due];
            self.now = timers.into_iter().flatten().min().ok_or("nothing will happen any more")?;
            self.reader.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
            self.deliver()?;
        }
    }

    /// Lets both say what they have to say.
    fn talk(&mut self) -> Fallible<()> {
        while let Some(event) = self.reader.poll_event() {
            match event {
                ReaderEvent::Plaintext(_) => self.done = true,
                other => return Err(format!("the read ended with {other:?}").into()),
            }
        }
        while let Some(event) = self.server.poll_event() {
            if let ServerEvent::Sam(operation) = event {
                self.answer(&operation)?;
            }
        }
        while let Some(message) = self.reader.poll_transmit() {
            let lost = self.push(Direction::Forth, &message);
            if let Ok(ReaderMessage::Packet(packet)) = ReaderMessage::decode(&message) {
                let again = !self.seen.insert(packet.index);
                self.bytes.again += if again { message.len() } else { 0 };
                self.bytes.lost += if lost { message.len() } else { 0 };
            }
        }
        while let Some(message) = self.server.poll_transmit() {
            self.push(Direction::Back, &message);
        }
        Ok(())
    }

    /// Whether the link lost it.
    fn push(&mut self, direction: Direction, message: &[u8]) -> bool {
        let before = self.link.tally(direction).dropped;
        self.link.push(self.now.since(START), direction, message);
        self.link.tally(direction).dropped > before
    }

    fn deliver(&mut self) -> Fallible<()> {
        while let Some((direction, message)) = self.link.pop_due(self.now.since(START)) {
            match direction {
                Direction::Forth => self.server.handle(self.now, &message)?,
                Direction::Back => {
                    ServerMessage::decode(&message)?;
                    let mut rng = seeded(0);
                    self.reader.handle(self.now, &mut rng, &mut self.cache, &message)?;
                }
            }
        }
        Ok(())
    }

    /// A module that needs no time.
    fn answer(&mut self, operation: &SamOperation) -> Fallible<()> {
        let result = match operation {
            SamOperation::Begin { .. } => SamResult::Challenge([1; 8]),
            SamOperation::Decrypt(_) => SamResult::Plaintext { data: plain()?, card_checked: true },
            other => return Err(format!("the flow asks for {other:?}").into()),
        };
        Ok(self.server.sam_done(self.now, Ok(result))?)
    }
}

fn plain() -> Fallible<PlainData> {
    let record = sample(DocumentType::Citizen);
    let text = Secret::copied_from(record.encode()?.as_slice());
    let photo = Secret::copied_from(&[0; PHOTO_LEN]);
    Ok(PlainData::new(text, photo, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_perfect_link_needs_nothing_again_and_a_bad_one_little_more_than_it_lost() {
        assert_eq!(resent(0, 3).unwrap(), Bytes::default());
        let bytes = resent(20, 40).unwrap();
        assert!(bytes.lost > 0 && bytes.again >= bytes.lost, "{bytes:?}");
        assert!(bytes.everything > bytes.again, "{bytes:?}");
    }
}
