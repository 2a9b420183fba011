//! Links that lose, damage, double, swap and delay, at given rates, and repeat under a seed.
//!
//! [`LossyLink`] is the model: pure, in virtual time. [`UdpProxy`] puts it between real sockets,
//! [`lossy_line`](crate::parts::lossy_line) between the ends of a serial line.

mod udp;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::rng::seeded;
pub use udp::UdpProxy;

/// Rates are counted in thousandths.
pub const WHOLE: u32 = 1000;
/// Most datagrams under way at once; more are lost, as in a router.
pub const UNDER_WAY_MAX: usize = 4096;
/// Most bits that one damaged datagram has flipped.
const FLIPS_MAX: u32 = 8;

/// How bad a link is; each rate in thousandths ([`WHOLE`]) of the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// Never arrive.
    pub drop: u32,
    /// Arrive with up to eight bits flipped.
    pub damage: u32,
    /// Arrive twice, the second time after a time of its own.
    pub duplicate: u32,
    /// Are held back for [`Self::hold`] longer, so that later ones overtake them.
    pub reorder: u32,
    /// The shortest time on the way.
    pub delay: Duration,
    /// What the time on the way may be longer, evenly.
    pub jitter: Duration,
    /// How much longer a datagram that is swapped takes.
    pub hold: Duration,
}

impl Rates {
    /// A link without fault or delay.
    pub const PERFECT: Self = Self {
        drop: 0,
        damage: 0,
        duplicate: 0,
        reorder: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        hold: Duration::ZERO,
    };

    /// Drops, damages, doubles and swaps so many percent each, with a short delay.
    #[must_use]
    pub const fn all(percent: u32) -> Self {
        let rate = percent * WHOLE / 100;
        Self {
            drop: rate,
            damage: rate,
            duplicate: rate,
            reorder: rate,
            delay: Duration::from_millis(1),
            jitter: Duration::from_millis(2),
            hold: Duration::from_millis(15),
        }
    }

    /// Only drops, so many percent.
    #[must_use]
    pub const fn dropping(percent: u32) -> Self {
        Self { drop: percent * WHOLE / 100, ..Self::PERFECT }
    }
}

/// Which way a datagram travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From whoever began, to the server or the host.
    Forth,
    /// Back.
    Back,
}

/// What a link did so far, one count for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Handed in.
    pub sent: u64,
    /// Never to arrive.
    pub dropped: u64,
    /// Altered on the way.
    pub damaged: u64,
    /// Copies made.
    pub duplicated: u64,
    /// Held back.
    pub reordered: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            dropped: self.dropped + other.dropped,
            damaged: self.damaged + other.damaged,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
        }
    }
}

/// A link in virtual time. Time is a duration since any moment the owner likes.
#[derive(Debug)]
pub struct LossyLink {
    rates: Rates,
    rng: ChaCha20Rng,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    next: u64,
    tally: [Tally; 2],
}

/// Sorted by time, then by the order in which they were handed in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Duration,
    number: u64,
    direction: Direction,
    bytes: Vec<u8>,
}

impl LossyLink {
    /// A link with these rates both ways.
    #[must_use]
    pub fn new(rates: Rates, seed: u64) -> Self {
        let tally = [Tally::default(); 2];
        Self { rates, rng: seeded(seed), under_way: BinaryHeap::new(), next: 0, tally }
    }

    /// Hands a datagram in at time `now`.
    pub fn push(&mut self, now: Duration, direction: Direction, bytes: &[u8]) {
        // Every draw is made for every datagram, so that one rate does not shift another's events.
        let lost = self.hits(self.rates.drop);
        let damaged = self.hits(self.rates.damage);
        let doubled = self.hits(self.rates.duplicate);
        let swapped = self.hits(self.rates.reorder);
        let (first, second) = (self.travel(), self.travel());
        let mut bytes = bytes.to_vec();
        if damaged && !bytes.is_empty() {
            self.flip(&mut bytes);
        }
        let full = self.under_way.len() + 2 > UNDER_WAY_MAX;
        let tally = &mut self.tally[direction as usize];
        tally.sent += 1;
        if lost || full {
            tally.dropped += 1;
            return;
        }
        tally.damaged += u64::from(damaged);
        tally.duplicated += u64::from(doubled);
        tally.reordered += u64::from(swapped);
        let held = if swapped { self.rates.hold } else { Duration::ZERO };
        if doubled {
            self.put(now + second, direction, bytes.clone());
        }
        self.put(now + first + held, direction, bytes);
    }

    /// The next datagram that has arrived by `now`.
    pub fn pop_due(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(arrived) = self.under_way.pop()?;
        Some((arrived.direction, arrived.bytes))
    }

    /// When the next datagram arrives.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.under_way.peek().map(|Reverse(next)| next.due)
    }

    /// What was done to datagrams of this way.
    #[must_use]
    pub const fn tally(&self, direction: Direction) -> Tally {
        self.tally[direction as usize]
    }

    fn put(&mut self, due: Duration, direction: Direction, bytes: Vec<u8>) {
        let number = self.next;
        self.next += 1;
        self.under_way.push(Reverse(UnderWay { due, number, direction, bytes }));
    }

    fn hits(&mut self, rate: u32) -> bool {
        self.rng.next_u32() % WHOLE < rate
    }

    fn travel(&mut self) -> Duration {
        let jitter = u64::try_from(self.rates.jitter.as_micros()).unwrap_or(u64::MAX);
        let more = self.rng.next_u64() % jitter.saturating_add(1);
        self.rates.delay + Duration::from_micros(more)
    }

    /// Flips one to eight bits, none of them back.
    fn flip(&mut self, bytes: &mut [u8]) {
        let bits = u32::try_from(bytes.len() * 8).unwrap_or(u32::MAX);
        let flips = 1 + self.rng.next_u32() % FLIPS_MAX.min(bits);
        let start = self.rng.next_u32() % bits;
        for flip in 0..flips {
            let bit = ((start + flip * 37) % bits) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 20_000;

    fn run(rates: Rates, seed: u64) -> (Vec<(Direction, Vec<u8>)>, Tally) {
        let mut link = LossyLink::new(rates, seed);
        let mut arrived = Vec::new();
        for number in 0..MANY {
            let now = Duration::from_millis(number);
            link.push(now, Direction::Forth, &number.to_be_bytes());
            arrived.extend(std::iter::from_fn(|| link.pop_due(now)));
        }
        while let Some(due) = link.next_due() {
            arrived.extend(link.pop_due(due));
        }
        (arrived, link.tally(Direction::Forth))
    }

    #[test]
    fn a_perfect_link_changes_nothing() {
        let (arrived, tally) = run(Rates::PERFECT, 1);
        let expected: Vec<_> =
            (0..MANY).map(|number| (Direction::Forth, number.to_be_bytes().to_vec())).collect();
        assert!(arrived == expected);
        assert_eq!(tally, Tally { sent: MANY, ..Tally::default() });
    }

    #[test]
    fn the_rates_come_out_and_the_counts_tell_what_was_done() {
        for percent in [1, 5, 20, 50] {
            let rates = Rates::all(percent);
            let (arrived, tally) = run(rates, u64::from(percent));
            let near = |count: u64, of: u64| {
                let expected = of * u64::from(percent) / 100;
                count.abs_diff(expected) <= expected / 8 + 20
            };
            let survived = tally.sent - tally.dropped;
            assert!(near(tally.dropped, MANY), "{percent}: {tally:?}");
            for count in [tally.damaged, tally.duplicated, tally.reordered] {
                assert!(near(count, survived), "{percent}: {tally:?}");
            }
            assert_eq!(arrived.len() as u64, survived + tally.duplicated);
            // Each number that nobody sent is a damaged one, or its copy.
            let order: Vec<u64> = arrived
                .iter()
                .map(|(_, bytes)| u64::from_be_bytes(bytes[..].try_into().unwrap()))
                .collect();
            assert!(order.iter().any(|number| *number >= MANY), "something is altered");
            let swapped = order.windows(2).filter(|two| two[0] > two[1]).count() as u64;
            assert!(swapped >= tally.reordered / 2, "{percent}: {swapped}");
        }
    }

    #[test]
    fn the_same_seed_does_the_same_and_another_does_not() {
        let rates = Rates::all(20);
        assert!(run(rates, 7) == run(rates, 7));
        assert!(run(rates, 7) != run(rates, 8));
    }

    #[test]
    fn damage_is_never_undone_by_itself() {
        let rates = Rates { damage: WHOLE, ..Rates::PERFECT };
        for len in 1..40 {
            let mut link = LossyLink::new(rates, len as u64);
            for _ in 0..50 {
                link.push(Duration::ZERO, Direction::Back, &vec![0; len]);
                let (direction, bytes) = link.pop_due(Duration::ZERO).unwrap();
                assert!(direction == Direction::Back && bytes != vec![0; len], "{len}");
            }
        }
    }

    #[test]
    fn a_full_link_drops_and_time_is_the_owners() {
        let second = Duration::from_secs(1);
        let mut link = LossyLink::new(Rates { delay: second, ..Rates::PERFECT }, 1);
        for _ in 0..UNDER_WAY_MAX + 10 {
            link.push(Duration::ZERO, Direction::Forth, b"x");
        }
        assert_eq!(link.pop_due(second - Duration::from_nanos(1)), None);
        assert_eq!(link.next_due(), Some(second));
        let arrived = std::iter::from_fn(|| link.pop_due(second)).count();
        let lost = link.tally(Direction::Forth).dropped;
        assert_eq!((arrived as u64) + lost, UNDER_WAY_MAX as u64 + 10);
        assert_eq!(arrived, UNDER_WAY_MAX - 1);
    }
}
