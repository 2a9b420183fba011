//! Sealing what the cache keeps, and the keys, which never leave volatile memory (C13, C15).

use alloc::boxed::Box;
use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoError, CryptoRng, Provider, Secret,
};
use zeroize::Zeroizing;

use super::{CacheStorage, Kind, Slot, StorageError};
use crate::{CONFIGURATION_LEN, Configuration};

/// Each key seals exactly once, so its only nonce is unique.
const NONCE: [u8; AEAD_NONCE_LEN] = [0; AEAD_NONCE_LEN];
const AAD_LEN: usize = CONFIGURATION_LEN + 2 + 8;

/// What is kept of one card and kind, and where. Dropping it wipes the key.
pub(super) enum Kept {
    /// In volatile memory; sealed if there is a key.
    Memory { key: Option<Secret>, counter: u64, bytes: Zeroizing<Vec<u8>> },
    /// In the storage, sealed; `len` bytes.
    Stored { key: Secret, counter: u64, len: usize },
}

/// Why something kept cannot be had back.
pub(super) enum Lost {
    /// It is not what was kept.
    Tampered,
    /// The storage failed.
    Storage(StorageError),
}

/// The storage and what belongs to it.
pub(super) struct Flash {
    storage: Box<dyn CacheStorage + Send>,
    rng: Box<dyn CryptoRng + Send>,
    /// Slots that may hold something: at first all, for a former start may have left it.
    dirty: [bool; Slot::COUNT],
}

impl Flash {
    pub(super) fn new(
        storage: Box<dyn CacheStorage + Send>,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        Self { storage, rng, dirty: [true; Slot::COUNT] }
    }

    /// Empties the slot if anything may be there.
    pub(super) fn erase(&mut self, slot: Slot) -> Result<(), StorageError> {
        if self.dirty[slot.index()] {
            self.storage.erase(slot)?;
            self.dirty[slot.index()] = false;
        }
        Ok(())
    }

    fn write(&mut self, slot: Slot, sealed: &[u8]) -> Result<(), StorageError> {
        self.dirty[slot.index()] = true;
        self.storage.write(slot, sealed)
    }
}

/// Seals and opens, into memory or the storage.
pub(super) struct Vault {
    provider: Provider,
    pub(super) flash: Option<Flash>,
    /// Counts everything ever kept, so that no two seals have the same associated data.
    counter: u64,
}

impl Vault {
    pub(super) fn new(provider: Provider, flash: Option<Flash>) -> Self {
        Self { provider, flash, counter: 0 }
    }

    /// Keeps the card's encrypted data: under a fresh key in the storage, else in memory as they
    /// are.
    pub(super) fn keep_encrypted(
        &mut self,
        configuration: &Configuration,
        slot: Slot,
        bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Kept, KeepError> {
        let counter = self.next();
        match &mut self.flash {
            None => Ok(Kept::Memory { key: None, counter, bytes }),
            Some(flash) => {
                let key = random_key(&mut *flash.rng);
                self.keep_sealed(configuration, slot, key, counter, bytes)
            }
        }
    }

    /// Keeps the plaintext, always under `key`, which nothing else is sealed with.
    pub(super) fn keep_plaintext(
        &mut self,
        configuration: &Configuration,
        slot: Slot,
        key: Secret,
        bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Kept, KeepError> {
        let counter = self.next();
        self.keep_sealed(configuration, slot, key, counter, bytes)
    }

    fn keep_sealed(
        &mut self,
        configuration: &Configuration,
        slot: Slot,
        key: Secret,
        counter: u64,
        mut bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Kept, KeepError> {
        let aad = associated(configuration, slot, counter);
        let aead = self.provider.aead.key(&key).map_err(KeepError::Crypto)?;
        bytes.reserve_exact(AEAD_TAG_LEN);
        aead.seal(&NONCE, &*aad, &mut bytes).map_err(KeepError::Crypto)?;
        match &mut self.flash {
            None => Ok(Kept::Memory { key: Some(key), counter, bytes }),
            Some(flash) => {
                flash.write(slot, &bytes).map_err(KeepError::Storage)?;
                Ok(Kept::Stored { key, counter, len: bytes.len() })
            }
        }
    }

    /// Gives back what was kept, if it is exactly that: not another slot's, not another card's,
    /// not what lay there before.
    pub(super) fn open(
        &mut self,
        configuration: &Configuration,
        slot: Slot,
        kept: &Kept,
    ) -> Result<Zeroizing<Vec<u8>>, Lost> {
        let (key, counter, mut bytes) = match kept {
            Kept::Memory { key: None, bytes, .. } => return Ok(bytes.clone()),
            Kept::Memory { key: Some(key), counter, bytes } => (key, *counter, bytes.clone()),
            Kept::Stored { key, counter, len } => {
                let flash = self.flash.as_mut().ok_or(Lost::Tampered)?;
                let found = flash.storage.read(slot).map_err(Lost::Storage)?;
                let bytes = found.filter(|found| found.len() == *len).ok_or(Lost::Tampered)?;
                (key, *counter, Zeroizing::new(bytes))
            }
        };
        let aad = associated(configuration, slot, counter);
        let opened =
            self.provider.aead.key(key).and_then(|key| key.open(&NONCE, &*aad, &mut bytes));
        opened.map(|()| bytes).map_err(|_| Lost::Tampered)
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

/// Why something is not kept.
pub(super) enum KeepError {
    Crypto(CryptoError),
    Storage(StorageError),
}

pub(super) fn random_key(rng: &mut dyn CryptoRng) -> Secret {
    let Ok(key) = Secret::try_filled(AEAD_KEY_LEN, |bytes| {
        rng.fill_bytes(bytes);
        Ok::<(), core::convert::Infallible>(())
    });
    key
}

/// `configuration ‖ kind ‖ slot ‖ counter`.
fn associated(configuration: &Configuration, slot: Slot, counter: u64) -> Zeroizing<[u8; AAD_LEN]> {
    const _: () = assert!(Slot::COUNT <= u8::MAX as usize);
    let kind = match slot.kind() {
        Kind::Encrypted => 1,
        Kind::Plaintext => 2,
    };
    let mut aad = Zeroizing::new([0; AAD_LEN]);
    aad[..CONFIGURATION_LEN].copy_from_slice(configuration.as_bytes());
    aad[CONFIGURATION_LEN] = kind;
    aad[CONFIGURATION_LEN + 1] = slot.index() as u8;
    aad[CONFIGURATION_LEN + 2..].copy_from_slice(&counter.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;

    /// Each key seals once, so this only shows if a key were ever used twice.
    #[test]
    fn under_one_key_every_part_of_the_associated_data_counts() {
        let mut vault = Vault::new(rust_crypto::provider(), None);
        let card = Configuration::new([1; CONFIGURATION_LEN]);
        let (key, slot) = (|| Secret::new(alloc::vec![1; AEAD_KEY_LEN]), Slot::new);
        let here = slot(0, Kind::Plaintext);
        let bytes = Zeroizing::new(alloc::vec![7; 100]);
        let Ok(kept) = vault.keep_plaintext(&card, here, key(), bytes.clone()) else { panic!() };
        assert!(vault.open(&card, here, &kept).is_ok_and(|opened| opened == bytes));
        let other = Configuration::new([2; CONFIGURATION_LEN]);
        assert!(vault.open(&other, here, &kept).is_err());
        assert!(vault.open(&card, slot(1, Kind::Plaintext), &kept).is_err());
        assert!(vault.open(&card, slot(0, Kind::Encrypted), &kept).is_err());
        let Kept::Memory { key, counter, bytes } = kept else { panic!("there is no storage") };
        let older = Kept::Memory { key, counter: counter - 1, bytes };
        assert!(vault.open(&card, here, &older).is_err());
    }
}
