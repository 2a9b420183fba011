//! Limits per source address: whoever can answer challenges can still make a server verify
//! signatures, so bad proofs are paid for (G11).

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Provider, Secret, UnixTime};

use crate::contribution::random_secret;
use crate::{Error, Refusal};

/// Refused proofs that a source may have at once.
pub const SOURCE_BURST: u32 = 64;
/// How long one of them takes to be forgiven: 16 per second.
pub const SOURCE_FORGIVES: Duration = Duration::from_micros(62_500);
/// Sources are told apart by a keyed hash into so many places: 512 KiB, however many there
/// are.
/// Two that share a place share its limit; nobody outside knows which do.
pub const SOURCE_PLACES: usize = 1 << 16;

/// What of an IPv6 address names a network: one link (/64), whose rest is free to choose, and a
/// customer's site (/48), who may have many links and is given 16 times as much in all.
const IPV6_NETWORKS: [(usize, u64); 2] = [(8, STEP), (6, STEP / 16)];

/// Lets proofs of a source through, or not. Shared by all connections of a server.
pub trait SourceGate: Send + Sync {
    /// Before a proof from `address` (its octets) is verified: counts it as if it were bad.
    ///
    /// # Errors
    /// [`Refusal::SourceLimited`].
    fn admit(&self, now: UnixTime, address: &[u8]) -> Result<Admission, Error>;

    /// The proof was good, or nothing was spent on it: it does not count.
    fn forgive(&self, admission: Admission);
}

/// That a proof was let through, and where it was charged. Whoever drops it has paid.
#[derive(Debug)]
#[must_use]
pub struct Admission {
    /// Place and charge, one or two.
    charges: [Option<(usize, u64)>; 2],
}

/// When a place will be free of what was charged to it (the "generic cell rate" form of a token
/// bucket: one time per place).
type FreeAt = u64;

/// The limits of one server process.
pub struct SourceLimits {
    provider: Provider,
    key: Secret,
    places: Vec<FreeAt>,
}

impl SourceLimits {
    /// No source has been heard of.
    #[must_use]
    pub fn new(provider: Provider, rng: &mut dyn CryptoRng) -> Self {
        Self { provider, key: random_secret(rng), places: vec![0; SOURCE_PLACES] }
    }

    fn charge(&self, network: &[u8], step: u64) -> Option<(usize, u64)> {
        let [a, b, ..] = self.provider.mac.mac(self.key.expose(), &[network]);
        Some((usize::from(u16::from_be_bytes([a, b])), step))
    }

    fn charges(&self, address: &[u8]) -> [Option<(usize, u64)>; 2] {
        if address.len() == 16 {
            IPV6_NETWORKS.map(|(len, step)| self.charge(&address[..len], step))
        } else {
            [self.charge(address, STEP), None]
        }
    }

    /// See [`SourceGate::admit`].
    ///
    /// # Errors
    /// As there.
    pub fn admit(&mut self, now: UnixTime, address: &[u8]) -> Result<Admission, Error> {
        let now = micros(now);
        let charges = self.charges(address);
        let mut free_at = [0; 2];
        for (slot, (place, step)) in free_at.iter_mut().zip(charges.into_iter().flatten()) {
            // What lies far ahead of any charge was made under a clock that was set back since. Not
            // what lies ahead a little: threads read the clock before they come here in turn.
            let before = self.places[place];
            *slot = if before > now + LIMIT + CLOCK_SLACK { now } else { before.max(now) } + step;
            if *slot > now + LIMIT {
                return Err(Refusal::SourceLimited.into());
            }
        }
        for (free_at, (place, _)) in free_at.into_iter().zip(charges.into_iter().flatten()) {
            self.places[place] = free_at;
        }
        Ok(Admission { charges })
    }

    /// See [`SourceGate::forgive`].
    pub fn forgive(&mut self, admission: Admission) {
        for (place, step) in admission.charges.into_iter().flatten() {
            self.places[place] = self.places[place].saturating_sub(step);
        }
    }
}

const STEP: u64 = SOURCE_FORGIVES.as_micros() as u64;
/// How far ahead of now a place may be charged.
const LIMIT: u64 = STEP * SOURCE_BURST as u64;
const CLOCK_SLACK: u64 = crate::CLOCK_SLACK.as_micros() as u64;

fn micros(now: UnixTime) -> u64 {
    now.as_millis().saturating_mul(1000)
}

/// [`SourceLimits`] behind a lock, for a server's connections.
#[cfg(feature = "std")]
pub struct SharedSources(std::sync::Mutex<SourceLimits>);

#[cfg(feature = "std")]
impl SharedSources {
    /// Shares `limits`.
    #[must_use]
    pub const fn new(limits: SourceLimits) -> Self {
        Self(std::sync::Mutex::new(limits))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SourceLimits> {
        // No method leaves the state half-changed, so a poisoned lock is still sound.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(feature = "std")]
impl SourceGate for SharedSources {
    fn admit(&self, now: UnixTime, address: &[u8]) -> Result<Admission, Error> {
        self.lock().admit(now, address)
    }

    fn forgive(&self, admission: Admission) {
        self.lock().forgive(admission);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;

    const T0: UnixTime = UnixTime::from_secs(1_800_000_000);
    const LIMITED: Result<(), Error> = Err(Error::Refused(Refusal::SourceLimited));

    fn limits() -> SourceLimits {
        let mut rng = testkit::rng::seeded(4);
        SourceLimits::new(rust_crypto::provider(), &mut rng)
    }

    fn admitted(limits: &mut SourceLimits, now: UnixTime, address: &[u8]) -> Result<(), Error> {
        limits.admit(now, address).map(drop)
    }

    #[test]
    fn bad_proofs_are_limited_per_source_and_forgiven_with_time() {
        let mut limits = limits();
        for _ in 0..SOURCE_BURST {
            assert_eq!(admitted(&mut limits, T0, &[10, 0, 0, 1]), Ok(()));
        }
        assert_eq!(admitted(&mut limits, T0, &[10, 0, 0, 1]), LIMITED);
        assert_eq!(admitted(&mut limits, T0, &[10, 0, 0, 2]), Ok(()), "another source");
        let later = T0.plus(Duration::from_millis(63));
        assert_eq!(admitted(&mut limits, later, &[10, 0, 0, 1]), Ok(()));
        assert_eq!(admitted(&mut limits, later, &[10, 0, 0, 1]), LIMITED);
        let much_later = T0.plus(SOURCE_FORGIVES * (SOURCE_BURST + 2));
        for _ in 0..SOURCE_BURST {
            assert_eq!(admitted(&mut limits, much_later, &[10, 0, 0, 1]), Ok(()));
        }
    }

    /// A branch with many good readers behind one address never runs dry.
    #[test]
    fn good_proofs_cost_nothing() {
        let mut limits = limits();
        for _ in 0..10 * SOURCE_BURST {
            let admission = limits.admit(T0, &[10, 0, 0, 1]).expect("never limited");
            limits.forgive(admission);
        }
    }

    /// Whoever has an IPv6 network has all its addresses.
    #[test]
    fn an_ipv6_network_is_one_source() {
        let mut limits = limits();
        let mut address = [0x20_u8; 16];
        for _ in 0..SOURCE_BURST {
            address[15] = address[15].wrapping_add(1);
            assert_eq!(admitted(&mut limits, T0, &address), Ok(()));
        }
        address[15] = 0;
        assert_eq!(admitted(&mut limits, T0, &address), LIMITED);
        address[7] ^= 1;
        assert_eq!(admitted(&mut limits, T0, &address), Ok(()));
        // And whoever has many links has no more than 16 times as much.
        let mut let_through = SOURCE_BURST + 1;
        for link in 0..=u16::MAX {
            address[6..8].copy_from_slice(&link.to_be_bytes());
            let_through += u32::from(admitted(&mut limits, T0, &address).is_ok());
        }
        assert_eq!(let_through, 16 * SOURCE_BURST);
        address[5] ^= 1;
        assert_eq!(admitted(&mut limits, T0, &address), Ok(()), "another site");
    }

    /// A clock that is set back does not limit those who did nothing.
    #[test]
    fn a_clock_set_back_is_no_charge() {
        let mut limits = limits();
        let admission = limits.admit(T0, &[10, 0, 0, 1]).expect("admitted");
        limits.forgive(admission);
        let earlier = T0.minus(Duration::from_secs(60));
        for _ in 0..SOURCE_BURST {
            assert_eq!(admitted(&mut limits, earlier, &[10, 0, 0, 1]), Ok(()));
        }
        assert_eq!(admitted(&mut limits, earlier, &[10, 0, 0, 1]), LIMITED);
    }

    /// Threads that read the clock a moment apart may come in the other order: no way around.
    #[test]
    fn contacts_out_of_order_do_not_reset_a_limit() {
        let mut limits = limits();
        let tick = Duration::from_millis(1);
        for address in [&[10, 0, 0, 1][..], &[0x20; 16]] {
            for _ in 0..SOURCE_BURST {
                assert_eq!(admitted(&mut limits, T0.plus(tick), address), Ok(()));
            }
            for late in [T0, T0.minus(tick), T0.plus(tick).minus(crate::CLOCK_SLACK)] {
                assert_eq!(admitted(&mut limits, late, address), LIMITED);
            }
        }
    }
}
