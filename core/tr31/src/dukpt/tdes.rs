//! TDES DUKPT (X9.24-1 annex A).

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::Secret;

use crate::{BlockCipher, Ciphers, Tr31Error};

/// Bits of the transaction counter.
const COUNTER_BITS: u32 = 21;
/// Its mask in the last four bytes of a key serial number.
const COUNTER_MASK: u32 = (1 << COUNTER_BITS) - 1;
/// A counter has at most so many bits set (X9.24-1): so many derivations lead to its key.
const COUNTER_ONES: u32 = 10;
/// Xored into a key for the right half of what it derives.
const RIGHT: [u8; 16] = [0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0, 0xC0, 0xC0, 0xC0, 0xC0, 0, 0, 0, 0];

/// A key serial number: key set identifier (40 bits), device identifier (19), transaction counter
/// (21).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TdesKsn([u8; 10]);

/// What a working key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TdesUse {
    /// PIN encryption.
    Pin,
    /// MAC of a request, or both ways.
    MacRequest,
    /// MAC of a response.
    MacResponse,
    /// Data encryption of a request, or both ways.
    DataRequest,
    /// Data encryption of a response.
    DataResponse,
}

impl TdesUse {
    /// The byte of each half that the variant is xored into.
    const fn variant_byte(self) -> usize {
        match self {
            Self::Pin => 7,
            Self::MacRequest => 6,
            Self::MacResponse => 4,
            Self::DataRequest => 5,
            Self::DataResponse => 3,
        }
    }
}

impl TdesKsn {
    /// The longest device identifier.
    pub const DEVICE_MAX: u32 = (1 << 19) - 1;

    /// From its ten bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// The initial key serial number (counter zero) of a device under a key set.
    ///
    /// # Errors
    /// [`Tr31Error::Ksn`] if the device identifier has more than 19 bits.
    pub fn initial(key_set: [u8; 5], device: u32) -> Result<Self, Tr31Error> {
        if device > Self::DEVICE_MAX {
            return Err(Tr31Error::Ksn);
        }
        let mut bytes = [0; 10];
        bytes[..5].copy_from_slice(&key_set);
        let rest = (u64::from(device) << COUNTER_BITS).to_be_bytes();
        bytes[5..].copy_from_slice(&rest[3..]);
        Ok(Self(bytes))
    }

    /// Its ten bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// The transaction counter.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.tail() & COUNTER_MASK
    }

    /// The device identifier.
    #[must_use]
    pub fn device(&self) -> u32 {
        let rest = self.0[5..].iter().fold(0, |all: u64, byte| all << 8 | u64::from(*byte));
        u32::try_from(rest >> COUNTER_BITS).unwrap_or(Self::DEVICE_MAX)
    }

    /// This key serial number with another counter.
    ///
    /// # Errors
    /// [`Tr31Error::KsnCounter`] if the counter has more than 21 bits.
    pub const fn with_counter(&self, counter: u32) -> Result<Self, Tr31Error> {
        if counter > COUNTER_MASK {
            return Err(Tr31Error::KsnCounter);
        }
        let tail = (self.tail() & !COUNTER_MASK | counter).to_be_bytes();
        let mut bytes = self.0;
        let mut at = 0;
        while at < 4 {
            bytes[6 + at] = tail[at];
            at += 1;
        }
        Ok(Self(bytes))
    }

    const fn tail(&self) -> u32 {
        u32::from_be_bytes([self.0[6], self.0[7], self.0[8], self.0[9]])
    }

    /// The initial key (IK, IPEK) of this device from the base derivation key of 16 bytes.
    ///
    /// # Errors
    /// [`Tr31Error::Key`] if the base key is not double-length; [`Tr31Error::Cipher`].
    pub fn initial_key(&self, ciphers: &dyn Ciphers, base: &Secret) -> Result<Secret, Tr31Error> {
        double_length(base)?;
        let initial = self.with_counter(0)?;
        Secret::try_filled(16, |key| {
            for (half, variant) in key.chunks_exact_mut(8).zip([[0; 16], RIGHT]) {
                half.copy_from_slice(&initial.0[..8]);
                let base = xored(base, &variant);
                ciphers.cbc_encrypt(BlockCipher::Tdes, &base, &[0; 8], half)?;
            }
            Ok(())
        })
    }

    /// The key of this transaction, from the initial key (X9.24-1): one derivation for each bit
    /// of the counter.
    ///
    /// # Errors
    /// [`Tr31Error::KsnCounter`] for counters that are not used; [`Tr31Error::Key`];
    /// [`Tr31Error::Cipher`].
    pub fn transaction_key(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
    ) -> Result<Secret, Tr31Error> {
        double_length(initial)?;
        let counter = self.counter();
        if !(1..=COUNTER_ONES).contains(&counter.count_ones()) {
            return Err(Tr31Error::KsnCounter);
        }
        let mut reached = self.with_counter(0)?;
        let mut key = Secret::copied_from(initial.expose());
        for bit in (0..COUNTER_BITS).rev().map(|bit| 1 << bit).filter(|bit| counter & bit != 0) {
            reached = reached.with_counter(reached.counter() | bit)?;
            let register = &reached.0[2..];
            let right = half(ciphers, &key, register)?;
            let left = half(ciphers, &xored(&key, &RIGHT), register)?;
            key = Secret::new([left.expose(), right.expose()].concat());
        }
        Ok(key)
    }

    /// A working key of this transaction (X9.24-1): the transaction key's variant, for data
    /// encrypted under itself.
    ///
    /// # Errors
    /// As [`Self::transaction_key`].
    pub fn working_key(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
        purpose: TdesUse,
    ) -> Result<Secret, Tr31Error> {
        let transaction = self.transaction_key(ciphers, initial)?;
        let mut variant = [0; 16];
        variant[purpose.variant_byte()] = 0xFF;
        variant[purpose.variant_byte() + 8] = 0xFF;
        let key = xored(&transaction, &variant);
        if !matches!(purpose, TdesUse::DataRequest | TdesUse::DataResponse) {
            return Ok(key);
        }
        Secret::try_filled(16, |bytes| {
            bytes.copy_from_slice(key.expose());
            for half in bytes.chunks_exact_mut(8) {
                ciphers.cbc_encrypt(BlockCipher::Tdes, &key, &[0; 8], half)?;
            }
            Ok(())
        })
    }
}

impl fmt::Display for TdesKsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// One half of a derived key: DES under the left half of `key`, whitened with the right.
fn half(ciphers: &dyn Ciphers, key: &Secret, register: &[u8]) -> Result<Secret, Tr31Error> {
    let (left, right) = key.expose().split_at(8);
    let left = Secret::copied_from(left);
    Secret::try_filled(8, |bytes| {
        for ((byte, register), right) in bytes.iter_mut().zip(register).zip(right) {
            *byte = register ^ right;
        }
        ciphers.cbc_encrypt(BlockCipher::Tdes, &left, &[0; 8], bytes)?;
        for (byte, right) in bytes.iter_mut().zip(right) {
            *byte ^= right;
        }
        Ok(())
    })
}

fn xored(key: &Secret, mask: &[u8; 16]) -> Secret {
    let mut bytes = Vec::with_capacity(key.len());
    bytes.extend(key.expose().iter().zip(mask).map(|(byte, mask)| byte ^ mask));
    Secret::new(bytes)
}

fn double_length(key: &Secret) -> Result<(), Tr31Error> {
    if key.len() == 16 { Ok(()) } else { Err(Tr31Error::Key(crate::KeyFault::Length)) }
}
