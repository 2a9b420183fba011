//! AES DUKPT (X9.24-3).

use core::fmt;

use countersign_crypto::Secret;

use crate::{BlockCipher, Ciphers, KeyFault, Tr31Error};

/// A counter has at most so many bits set (X9.24-3).
const COUNTER_ONES: u32 = 16;
/// The counter under which a terminal's next initial key is wrapped (X9.24-3).
const UPDATE_COUNTER: u32 = 0xFFFF_FFFF;

/// What a derived key is (X9.24-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AesKeyType {
    /// Two-key TDES.
    Tdes2,
    /// Three-key TDES.
    Tdes3,
    /// AES-128.
    Aes128,
    /// AES-192.
    Aes192,
    /// AES-256.
    Aes256,
    /// HMAC with a key of 16 bytes.
    Hmac128,
    /// HMAC with a key of 24 bytes.
    Hmac192,
    /// HMAC with a key of 32 bytes.
    Hmac256,
}

impl AesKeyType {
    /// Bytes of such a key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Tdes2 | Self::Aes128 | Self::Hmac128 => 16,
            Self::Tdes3 | Self::Aes192 | Self::Hmac192 => 24,
            Self::Aes256 | Self::Hmac256 => 32,
        }
    }

    const fn algorithm(self) -> u8 {
        match self {
            Self::Tdes2 => 0,
            Self::Tdes3 => 1,
            Self::Aes128 => 2,
            Self::Aes192 => 3,
            Self::Aes256 => 4,
            Self::Hmac128 | Self::Hmac192 | Self::Hmac256 => 5,
        }
    }

    /// Bits of strength; TDES never has more than 112.
    const fn strength(self) -> usize {
        match self {
            Self::Tdes2 => 80,
            Self::Tdes3 => 112,
            _ => self.key_len() * 8,
        }
    }

    fn of_aes(key: &Secret) -> Result<Self, Tr31Error> {
        match key.len() {
            16 => Ok(Self::Aes128),
            24 => Ok(Self::Aes192),
            32 => Ok(Self::Aes256),
            _ => Err(Tr31Error::Key(KeyFault::Length)),
        }
    }
}

/// What a working key is for (X9.24-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AesKeyUsage {
    /// Key encryption.
    KeyEncryption,
    /// PIN encryption.
    PinEncryption,
    /// MAC generation, by the terminal.
    MacGeneration,
    /// MAC verification.
    MacVerification,
    /// MAC, both ways.
    MacBothWays,
    /// Data encryption, by the terminal.
    DataEncrypt,
    /// Data decryption.
    DataDecrypt,
    /// Data, both ways.
    DataBothWays,
}

impl AesKeyUsage {
    const fn indicator(self) -> u16 {
        match self {
            Self::KeyEncryption => 0x0002,
            Self::PinEncryption => 0x1000,
            Self::MacGeneration => 0x2000,
            Self::MacVerification => 0x2001,
            Self::MacBothWays => 0x2002,
            Self::DataEncrypt => 0x3000,
            Self::DataDecrypt => 0x3001,
            Self::DataBothWays => 0x3002,
        }
    }
}

/// Derivation of a further derivation key.
const KEY_DERIVATION: u16 = 0x8000;
/// Derivation of an initial key.
const INITIAL_KEY: u16 = 0x8001;

/// An initial key identifier: base derivation key identifier and derivation identifier, 32 bits
/// each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InitialKeyId([u8; 8]);

impl InitialKeyId {
    /// From its eight bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Of a device under a base derivation key.
    #[must_use]
    pub fn new(base_id: [u8; 4], device: u32) -> Self {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&base_id);
        bytes[4..].copy_from_slice(&device.to_be_bytes());
        Self(bytes)
    }

    /// Its eight bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// The key serial number of a transaction.
    #[must_use]
    pub fn transaction(self, counter: u32) -> AesKsn {
        AesKsn { initial: self, counter }
    }

    /// The initial key of this device, from a base derivation key of 16, 24 or 32 bytes: as long as
    /// that.
    ///
    /// # Errors
    /// [`Tr31Error::Key`] for another length; [`Tr31Error::Cipher`].
    pub fn initial_key(&self, ciphers: &dyn Ciphers, base: &Secret) -> Result<Secret, Tr31Error> {
        derive(ciphers, base, INITIAL_KEY, AesKeyType::of_aes(base)?, self.0)
    }

    /// The key under which the device's next initial key is wrapped (X9.24-3), from its
    /// present initial key.
    ///
    /// # Errors
    /// As [`AesKsn::working_key`].
    pub fn update_key(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
        key_type: AesKeyType,
    ) -> Result<Secret, Tr31Error> {
        let ksn = self.transaction(UPDATE_COUNTER);
        let key = ksn.derivation_key_unbounded(ciphers, initial)?;
        ksn.working_key_under(ciphers, &key, AesKeyUsage::KeyEncryption, key_type)
    }
}

/// A key serial number: initial key identifier and transaction counter (32 bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AesKsn {
    initial: InitialKeyId,
    counter: u32,
}

impl AesKsn {
    /// From its twelve bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 12]) -> Self {
        let mut initial = [0; 8];
        initial.copy_from_slice(&bytes[..8]);
        let counter = u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        Self { initial: InitialKeyId(initial), counter }
    }

    /// Its twelve bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.initial.0);
        bytes[8..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }

    /// The initial key identifier.
    #[must_use]
    pub const fn initial_key_id(&self) -> InitialKeyId {
        self.initial
    }

    /// The transaction counter.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// The derivation key of this transaction, from the initial key (X9.24-3): one derivation
    /// for each bit of the counter.
    ///
    /// # Errors
    /// [`Tr31Error::KsnCounter`] for counters that are not used; [`Tr31Error::Key`];
    /// [`Tr31Error::Cipher`].
    pub fn derivation_key(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
    ) -> Result<Secret, Tr31Error> {
        if !(1..=COUNTER_ONES).contains(&self.counter.count_ones()) {
            return Err(Tr31Error::KsnCounter);
        }
        self.derivation_key_unbounded(ciphers, initial)
    }

    fn derivation_key_unbounded(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
    ) -> Result<Secret, Tr31Error> {
        let key_type = AesKeyType::of_aes(initial)?;
        let mut reached = 0;
        let mut key = Secret::copied_from(initial.expose());
        for bit in (0..u32::BITS).rev().map(|bit| 1 << bit).filter(|bit| self.counter & bit != 0) {
            reached |= bit;
            let context = self.context(reached);
            key = derive(ciphers, &key, KEY_DERIVATION, key_type, context)?;
        }
        Ok(key)
    }

    /// A working key of this transaction, from the initial key.
    ///
    /// # Errors
    /// As [`Self::derivation_key`]; [`Tr31Error::DerivedStronger`] for a key stronger than the
    /// initial key.
    pub fn working_key(
        &self,
        ciphers: &dyn Ciphers,
        initial: &Secret,
        usage: AesKeyUsage,
        key_type: AesKeyType,
    ) -> Result<Secret, Tr31Error> {
        let key = self.derivation_key(ciphers, initial)?;
        self.working_key_under(ciphers, &key, usage, key_type)
    }

    fn working_key_under(
        &self,
        ciphers: &dyn Ciphers,
        key: &Secret,
        usage: AesKeyUsage,
        key_type: AesKeyType,
    ) -> Result<Secret, Tr31Error> {
        derive(ciphers, key, usage.indicator(), key_type, self.context(self.counter))
    }

    /// Derivation identifier and counter: what makes a transaction's derivation its own.
    fn context(&self, counter: u32) -> [u8; 8] {
        let mut context = [0; 8];
        context[..4].copy_from_slice(&self.initial.0[4..]);
        context[4..].copy_from_slice(&counter.to_be_bytes());
        context
    }
}

impl fmt::Display for InitialKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Display for AesKsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

/// One derived key: the derivation data encrypted block by block (X9.24-3).
fn derive(
    ciphers: &dyn Ciphers,
    key: &Secret,
    usage: u16,
    key_type: AesKeyType,
    context: [u8; 8],
) -> Result<Secret, Tr31Error> {
    if key_type.strength() > AesKeyType::of_aes(key)?.strength() {
        return Err(Tr31Error::DerivedStronger);
    }
    let length = key_type.key_len();
    let bits = u16::try_from(length * 8).map_err(|_| Tr31Error::Key(KeyFault::Length))?;
    let mut data = [0; 16];
    data[0] = 1;
    data[2..4].copy_from_slice(&usage.to_be_bytes());
    data[5] = key_type.algorithm();
    data[6..8].copy_from_slice(&bits.to_be_bytes());
    data[8..].copy_from_slice(&context);
    let whole = Secret::try_filled(length.next_multiple_of(16), |derived| {
        derived.chunks_exact_mut(16).try_for_each(|block| {
            data[1] += 1;
            block.copy_from_slice(&data);
            ciphers.cbc_encrypt(BlockCipher::Aes, key, &[0; 16], block)
        })
    })?;
    Ok(if whole.len() == length { whole } else { Secret::copied_from(&whole.expose()[..length]) })
}
