//! Giving out device identifiers so that no two terminals get one key serial number.

use crate::Tr31Error;
use crate::dukpt::{InitialKeyId, TdesKsn};

/// The identifiers of one base derivation key that may be given out.
///
/// The owner keeps one number, how many have been given out, and raises it in the transaction that
/// records the terminal: [`Self::next`] of a number is always the same identifier, and of different
/// numbers different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KsnRange {
    base: Base,
    first: u32,
    last: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Base {
    Tdes([u8; 5]),
    Aes([u8; 4]),
}

/// What a terminal is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Allotted {
    /// An initial key serial number of TDES DUKPT.
    Tdes(TdesKsn),
    /// An initial key identifier of AES DUKPT.
    Aes(InitialKeyId),
}

impl KsnRange {
    /// The device identifiers from `first` to `last` (both included) under a TDES key set
    /// identifier.
    ///
    /// # Errors
    /// [`Tr31Error::Ksn`] if `last` is before `first` or has more than 19 bits.
    pub const fn tdes(key_set: [u8; 5], first: u32, last: u32) -> Result<Self, Tr31Error> {
        if first > last || last > TdesKsn::DEVICE_MAX {
            return Err(Tr31Error::Ksn);
        }
        Ok(Self { base: Base::Tdes(key_set), first, last })
    }

    /// The derivation identifiers from `first` to `last` (both included) under an AES base
    /// derivation key identifier.
    ///
    /// # Errors
    /// [`Tr31Error::Ksn`] if `last` is before `first`.
    pub const fn aes(base_id: [u8; 4], first: u32, last: u32) -> Result<Self, Tr31Error> {
        if first > last {
            return Err(Tr31Error::Ksn);
        }
        Ok(Self { base: Base::Aes(base_id), first, last })
    }

    /// How many identifiers the range has.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        (self.last - self.first) as u64 + 1
    }

    /// The identifier to give out when `given_out` have been before.
    ///
    /// # Errors
    /// [`Tr31Error::KsnExhausted`] when that was all.
    pub fn next(&self, given_out: u64) -> Result<Allotted, Tr31Error> {
        let device = u64::from(self.first)
            .checked_add(given_out)
            .and_then(|device| u32::try_from(device).ok())
            .filter(|device| *device <= self.last)
            .ok_or(Tr31Error::KsnExhausted)?;
        match self.base {
            Base::Tdes(key_set) => TdesKsn::initial(key_set, device).map(Allotted::Tdes),
            Base::Aes(base_id) => Ok(Allotted::Aes(InitialKeyId::new(base_id, device))),
        }
    }

    /// True if both ranges could give out one identifier.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.base == other.base && self.first <= other.last && other.first <= self.last
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_range_never_repeats_and_ends() {
        let tdes = KsnRange::tdes([0xFF, 0xFF, 0x98, 0x76, 0x54], 7, 1006).unwrap();
        let aes = KsnRange::aes([1, 2, 3, 4], u32::MAX - 999, u32::MAX).unwrap();
        for range in [tdes, aes] {
            assert_eq!(range.capacity(), 1000);
            let given: HashSet<_> = (0..1000).map(|at| range.next(at).unwrap()).collect();
            assert_eq!(given.len(), 1000);
            for beyond in [1000, 1001, u64::MAX] {
                assert_eq!(range.next(beyond), Err(Tr31Error::KsnExhausted));
            }
        }
        let Ok(Allotted::Tdes(ksn)) = tdes.next(2) else { panic!("a TDES range gives TDES") };
        assert_eq!((ksn.device(), ksn.counter()), (9, 0));
        assert!(
            tdes.overlaps(&KsnRange::tdes([0xFF, 0xFF, 0x98, 0x76, 0x54], 1006, 2000).unwrap())
        );
        assert!(
            !tdes.overlaps(&KsnRange::tdes([0xFF, 0xFF, 0x98, 0x76, 0x54], 1007, 2000).unwrap())
        );
        assert!(!tdes.overlaps(&aes));
    }

    #[test]
    fn identifiers_beyond_the_field_are_refused() {
        assert_eq!(KsnRange::tdes([0; 5], 0, 1 << 19), Err(Tr31Error::Ksn));
        assert_eq!(KsnRange::tdes([0; 5], 2, 1), Err(Tr31Error::Ksn));
        assert_eq!(KsnRange::aes([0; 4], 2, 1), Err(Tr31Error::Ksn));
        assert_eq!(TdesKsn::initial([0; 5], 1 << 19), Err(Tr31Error::Ksn));
    }
}
