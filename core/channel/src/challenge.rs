//! The stateless challenge of M1: `R1 = epoch ‖ counter ‖ HMAC(K_epoch, …)`.
//!
//! The server keeps no state per contact but one bit per counter. A stale or replayed challenge
//! costs one MAC; a counter is burnt only for a reader that has proven itself.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, ExchangeKey, Provider, Secret, UnixTime};

use crate::contribution::random_secret;
use crate::message::Challenge;
use crate::{CLOCK_SLACK, Error, Mode, Refusal};

/// How long an epoch's key issues challenges; it accepts them for one more epoch.
pub const EPOCH: Duration = Duration::from_secs(60);
/// Counters an epoch remembers: one bit each, 128 KiB per epoch. A flood of requests must exceed
/// this between a reader's M1 and M2 to push the reader out.
pub const WINDOW: u64 = 1 << 20;

/// Issues, checks and consumes challenges. Shared by all connections of a server.
pub trait ChallengeGate: Send + Sync {
    /// Fills in epoch, counter and MAC. `binding` is what the MAC ties the challenge to besides
    /// the selection in it: the peer's address and the hash of M0. A gate must put all of it under
    /// the MAC: the server never sees M0 again, so protection from downgrades rests on it (G8).
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the owner of the epoch cannot be asked.
    fn issue(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        selection: Selection,
        binding: &[u8],
    ) -> Result<Issued, Error>;

    /// Window, then MAC, then a peek at the bit (G11): one MAC at most.
    ///
    /// # Errors
    /// [`Refusal::ChallengeStale`], [`Error::Authentication`], [`Refusal::ChallengeReplayed`].
    fn check(&self, now: UnixTime, issued: &Issued, binding: &[u8]) -> Result<(), Error>;

    /// Drops what has expired. Whoever owns a gate that may idle calls this every [`EPOCH`], so
    /// that an epoch's share is gone after three of them at most; every other call does it too.
    fn expire(&self, now: UnixTime);

    /// Burns the counter, atomically: of two proofs with one challenge only one gets through.
    ///
    /// # Errors
    /// [`Refusal::ChallengeStale`] or [`Refusal::ChallengeReplayed`].
    fn consume(&self, now: UnixTime, issued: &Issued) -> Result<(), Error>;

    /// The share of the challenge's epoch (C2, A2, A3), for its mode and the certificate (DER) of
    /// the server or manager.
    /// `make` makes it: once per epoch, not per contact.
    ///
    /// # Errors
    /// [`Refusal::ChallengeStale`], or what `make` returns.
    fn epoch_share(
        &self,
        now: UnixTime,
        issued: &Issued,
        certificate: &[u8],
        make: &mut dyn FnMut() -> Result<EpochShare, Error>,
    ) -> Result<Arc<EpochShare>, Error>;
}

/// A share that the server or manager signs once per epoch; the other side seals its
/// contribution to it (C2, A2, A3). It goes with its epoch, so that what was sealed
/// to it cannot be opened later.
pub struct EpochShare {
    pub(crate) key: Box<dyn ExchangeKey>,
    /// The certificate whose key signed it.
    pub(crate) certificate: Vec<u8>,
    /// By that certificate's key, over mode, role, suite, epoch and share.
    pub(crate) signature: Vec<u8>,
}

/// What the server selected from the offers of M0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection {
    pub(crate) mode: Mode,
    pub(crate) version: u16,
    pub(crate) suite: u16,
    pub(crate) policy: u8,
}

/// A challenge as issued, or as echoed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub(crate) selection: Selection,
    pub(crate) epoch: u32,
    pub(crate) counter: u64,
    pub(crate) mac: [u8; 32],
}

impl Issued {
    pub(crate) const fn from_wire(mode: Mode, wire: &Challenge) -> Self {
        let Challenge { version, suite, policy, .. } = *wire;
        let selection = Selection { mode, version, suite, policy };
        Self { selection, epoch: wire.epoch, counter: wire.counter, mac: wire.mac }
    }

    pub(crate) const fn to_wire(&self) -> Challenge {
        let Selection { version, suite, policy, .. } = self.selection;
        let Self { epoch, counter, mac, .. } = *self;
        Challenge { version, suite, policy, epoch, counter, mac }
    }
}

struct Epoch {
    number: u32,
    key: Secret,
    started: UnixTime,
    /// The next counter to issue.
    next: u64,
    /// Bit `counter % WINDOW` is set when the counter was consumed.
    used: Vec<u64>,
    /// By mode and certificate; there are no more than a server has.
    shares: Vec<(Mode, Arc<EpochShare>)>,
}

impl Epoch {
    fn new(number: u32, now: UnixTime, rng: &mut dyn CryptoRng) -> Self {
        let key = random_secret(rng);
        let used = vec![0; usize::try_from(WINDOW / 64).expect("128 KiB fit everywhere")];
        Self { number, key, started: now, next: 0, used, shares: Vec::new() }
    }

    fn slot(counter: u64) -> (usize, u64) {
        let at = counter % WINDOW;
        (usize::try_from(at / 64).expect("below WINDOW / 64"), 1 << (at % 64))
    }

    fn issue(&mut self) -> u64 {
        let counter = self.next;
        self.next += 1;
        let (word, bit) = Self::slot(counter);
        self.used[word] &= !bit; // the slot's former counter has left the window
        counter
    }

    const fn in_window(&self, counter: u64) -> bool {
        counter < self.next && self.next - counter <= WINDOW
    }
}

/// The challenges of one server process: the current and the previous epoch.
///
/// The keys live in memory only: after a restart old challenges are stale, and readers ask again.
pub struct Challenges {
    provider: Provider,
    current: Option<Epoch>,
    previous: Option<Epoch>,
    /// The number of the next epoch; the first is random.
    next_number: Option<u32>,
}

impl Challenges {
    /// No epoch yet; the first request makes one.
    #[must_use]
    pub const fn new(provider: Provider) -> Self {
        Self { provider, current: None, previous: None, next_number: None }
    }

    fn rotate(&mut self, now: UnixTime, rng: &mut dyn CryptoRng) -> &mut Epoch {
        self.expire(now);
        let due = self.current.as_ref().is_none_or(|epoch| now.since(epoch.started) >= EPOCH);
        if due {
            // A restarted server must not repeat an epoch number under another key.
            let number = *self.next_number.get_or_insert_with(|| rng.next_u32());
            self.next_number = Some(number.wrapping_add(1));
            let fresh = Epoch::new(number, now, rng);
            self.previous = self.current.replace(fresh);
        }
        self.current.as_mut().expect("just made")
    }

    /// See [`ChallengeGate::expire`].
    pub fn expire(&mut self, now: UnixTime) {
        // A clock that was set back ends an epoch too: it must not last for as long as the step.
        let expired = |epoch: &mut Epoch| {
            now.since(epoch.started) >= EPOCH * 2 || epoch.started.since(now) > CLOCK_SLACK
        };
        self.previous.take_if(expired);
        self.current.take_if(expired);
    }

    /// See [`ChallengeGate::issue`]; in one process it cannot fail.
    pub fn issue(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        selection: Selection,
        binding: &[u8],
    ) -> Issued {
        let mac = self.provider.mac.clone();
        let epoch = self.rotate(now, rng);
        let counter = epoch.issue();
        let mut issued = Issued { selection, epoch: epoch.number, counter, mac: [0; 32] };
        issued.mac = mac.mac(epoch.key.expose(), &[&mac_input(&issued), binding]);
        issued
    }

    fn epoch(&mut self, now: UnixTime, issued: &Issued) -> Result<&mut Epoch, Error> {
        self.expire(now);
        [&mut self.current, &mut self.previous]
            .into_iter()
            .flatten()
            .find(|epoch| epoch.number == issued.epoch && epoch.in_window(issued.counter))
            .ok_or(Error::Refused(Refusal::ChallengeStale))
    }

    /// See [`ChallengeGate::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&mut self, now: UnixTime, issued: &Issued, binding: &[u8]) -> Result<(), Error> {
        let mac = self.provider.mac.clone();
        let epoch = self.epoch(now, issued)?;
        mac.verify(epoch.key.expose(), &[&mac_input(issued), binding], &issued.mac)
            .map_err(|_| Error::Authentication("challenge-mac"))?;
        let (word, bit) = Epoch::slot(issued.counter);
        if epoch.used[word] & bit != 0 {
            return Err(Refusal::ChallengeReplayed.into());
        }
        Ok(())
    }

    /// See [`ChallengeGate::consume`].
    ///
    /// # Errors
    /// As there.
    pub fn consume(&mut self, now: UnixTime, issued: &Issued) -> Result<(), Error> {
        let epoch = self.epoch(now, issued)?;
        let (word, bit) = Epoch::slot(issued.counter);
        if epoch.used[word] & bit != 0 {
            return Err(Refusal::ChallengeReplayed.into());
        }
        epoch.used[word] |= bit;
        Ok(())
    }

    /// See [`ChallengeGate::epoch_share`].
    ///
    /// # Errors
    /// As there.
    pub fn epoch_share(
        &mut self,
        now: UnixTime,
        issued: &Issued,
        certificate: &[u8],
        make: &mut dyn FnMut() -> Result<EpochShare, Error>,
    ) -> Result<Arc<EpochShare>, Error> {
        let mode = issued.selection.mode;
        let epoch = self.epoch(now, issued)?;
        let wanted = |(of, share): &&(Mode, Arc<EpochShare>)| {
            *of == mode && share.certificate == certificate
        };
        if let Some((_, share)) = epoch.shares.iter().find(wanted) {
            return Ok(share.clone());
        }
        let share = Arc::new(make()?);
        epoch.shares.push((mode, share.clone()));
        Ok(share)
    }
}

fn mac_input(issued: &Issued) -> [u8; 18] {
    let mut input = [0; 18];
    input[0] = issued.selection.mode as u8;
    input[1..3].copy_from_slice(&issued.selection.version.to_be_bytes());
    input[3..5].copy_from_slice(&issued.selection.suite.to_be_bytes());
    input[5] = issued.selection.policy;
    input[6..10].copy_from_slice(&issued.epoch.to_be_bytes());
    input[10..].copy_from_slice(&issued.counter.to_be_bytes());
    input
}

/// [`Challenges`] behind a lock, for a server's connections. The lock is held for one MAC at most,
/// and once per epoch and suite for the making of a share.
#[cfg(feature = "std")]
pub struct SharedChallenges(std::sync::Mutex<Challenges>);

#[cfg(feature = "std")]
impl SharedChallenges {
    /// Shares `challenges`.
    #[must_use]
    pub const fn new(challenges: Challenges) -> Self {
        Self(std::sync::Mutex::new(challenges))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Challenges> {
        // No method leaves the state half-changed, so a poisoned lock is still sound.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(feature = "std")]
impl ChallengeGate for SharedChallenges {
    fn issue(
        &self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        selection: Selection,
        binding: &[u8],
    ) -> Result<Issued, Error> {
        Ok(self.lock().issue(now, rng, selection, binding))
    }

    fn check(&self, now: UnixTime, issued: &Issued, binding: &[u8]) -> Result<(), Error> {
        self.lock().check(now, issued, binding)
    }

    fn consume(&self, now: UnixTime, issued: &Issued) -> Result<(), Error> {
        self.lock().consume(now, issued)
    }

    fn epoch_share(
        &self,
        now: UnixTime,
        issued: &Issued,
        certificate: &[u8],
        make: &mut dyn FnMut() -> Result<EpochShare, Error>,
    ) -> Result<Arc<EpochShare>, Error> {
        self.lock().epoch_share(now, issued, certificate, make)
    }

    fn expire(&self, now: UnixTime) {
        self.lock().expire(now);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;

    const SELECTION: Selection = Selection { mode: Mode::C1, version: 1, suite: 1, policy: 1 };
    const T0: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn stale() -> Result<(), Error> {
        Err(Refusal::ChallengeStale.into())
    }

    fn replayed() -> Result<(), Error> {
        Err(Refusal::ChallengeReplayed.into())
    }

    /// Steps over counters without computing their MACs.
    fn skip(challenges: &mut Challenges, counters: u64) {
        let epoch = challenges.current.as_mut().expect("an epoch");
        for _ in 0..counters {
            epoch.issue();
        }
    }

    #[test]
    fn a_challenge_leaves_with_its_window() {
        let mut rng = testkit::rng::seeded(1);
        let mut challenges = Challenges::new(rust_crypto::provider());
        let first = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        skip(&mut challenges, WINDOW - 1);
        assert_eq!(challenges.check(T0, &first, b"peer"), Ok(()));
        assert_eq!(challenges.consume(T0, &first), Ok(()));
        assert_eq!(challenges.check(T0, &first, b"peer"), replayed());
        assert_eq!(challenges.consume(T0, &first), replayed());
        // The next counter takes the first one's slot: its bit is cleared, and the first is out.
        let next = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        assert_eq!(challenges.check(T0, &next, b"peer"), Ok(()));
        assert_eq!(challenges.check(T0, &first, b"peer"), stale());
        assert_eq!(challenges.consume(T0, &first), stale());
        assert_eq!(challenges.consume(T0, &next), Ok(()));
    }

    #[test]
    fn a_challenge_outlives_its_epoch_by_one() {
        let mut rng = testkit::rng::seeded(2);
        let mut challenges = Challenges::new(rust_crypto::provider());
        let first = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        let later = T0.plus(EPOCH);
        let second = challenges.issue(later, &mut rng, SELECTION, b"peer");
        assert_eq!(second.epoch, first.epoch.wrapping_add(1));
        let last_moment = T0.plus(EPOCH * 2).minus(Duration::from_millis(1));
        assert_eq!(challenges.check(last_moment, &first, b"peer"), Ok(()));
        assert_eq!(challenges.check(T0.plus(EPOCH * 2), &first, b"peer"), stale());
        assert_eq!(challenges.check(T0.plus(EPOCH * 2), &second, b"peer"), Ok(()));
    }

    /// An idle server keeps no epoch, and a clock that goes back does not make one last.
    #[test]
    fn epochs_end_by_themselves() {
        let mut rng = testkit::rng::seeded(5);
        let mut challenges = Challenges::new(rust_crypto::provider());
        let first = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        challenges.expire(T0.plus(EPOCH));
        assert!(challenges.current.is_some());
        challenges.expire(T0.plus(EPOCH * 2));
        assert!(challenges.current.is_none() && challenges.previous.is_none());
        let later = T0.plus(EPOCH * 9);
        let second = challenges.issue(later, &mut rng, SELECTION, b"peer");
        assert_eq!(second.epoch, first.epoch.wrapping_add(1), "numbers go on");
        // Threads that read the clock a moment apart do not end it.
        let moment = Duration::from_millis(1);
        let next = challenges.issue(later.plus(EPOCH), &mut rng, SELECTION, b"peer");
        let late = later.plus(EPOCH).minus(moment);
        let same = challenges.issue(late, &mut rng, SELECTION, b"peer");
        assert_eq!(same.epoch, next.epoch);
        assert_eq!(challenges.check(late, &second, b"peer"), Ok(()));
        challenges.expire(T0);
        assert!(challenges.current.is_none() && challenges.previous.is_none());
        let back = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        assert_ne!(back.epoch, next.epoch, "the clock was set back by ten minutes");
    }

    #[test]
    fn every_part_of_a_challenge_is_authenticated() {
        let mut rng = testkit::rng::seeded(3);
        let mut challenges = Challenges::new(rust_crypto::provider());
        let good = challenges.issue(T0, &mut rng, SELECTION, b"peer");
        challenges.issue(T0, &mut rng, SELECTION, b"peer");
        let forged = Err(Error::Authentication("challenge-mac"));
        let mut changes = vec![good.clone(); 6];
        changes[0].selection.version ^= 1;
        changes[1].selection.suite ^= 1;
        changes[2].selection.policy ^= 1;
        changes[3].counter ^= 1;
        changes[4].mac[31] ^= 1;
        changes[5].selection.mode = Mode::C2;
        for changed in changes {
            assert_eq!(challenges.check(T0, &changed, b"peer"), forged, "{changed:?}");
        }
        assert_eq!(challenges.check(T0, &good, b"other"), forged);
        let unissued = Issued { counter: 2, ..good.clone() };
        assert_eq!(challenges.check(T0, &unissued, b"peer"), stale());
        let foreign = Issued { epoch: good.epoch ^ 1, ..good };
        assert_eq!(challenges.check(T0, &foreign, b"peer"), stale());
    }
}
