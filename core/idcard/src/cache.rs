//! The reader's cache (C6, C7, C8, C13, C14, C15).
//!
//! Its volatile part (configurations, random keys, order of use) is a secure element's memory, or
//! ordinary memory wiped on drop. What is kept of the cards lies there too, or, sealed, in a
//! [`CacheStorage`] that outlives power. Every blob there has a random key of its own, which
//! exists in the volatile part only: without power, and after a wipe, nothing can be opened, even
//! if the storage did not erase it (crypto-erasure). Not `Clone`.

mod storage;
mod vault;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::{AEAD_KEY_LEN, AEAD_TAG_LEN, CryptoError, CryptoRng, Provider};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    CONFIGURATION_LEN, Configuration, ENCRYPTED_LEN_MAX, EncryptedData, FINGERPRINT_LEN_MAX,
    PHOTO_LEN, Packet, PlainData, TEXT_LEN,
};
pub use storage::{CacheStorage, Kind, SEALED_LEN_MAX, Slot, StorageError};
use vault::{Flash, KeepError, Kept, Lost, Vault, random_key};

/// Most cards kept at a time; the one used longest ago makes room (C7).
pub const CARDS_MAX: usize = 8;
/// Most bytes that the cache may take of a secure element's volatile memory.
pub const CACHE_BYTES_MAX: usize = 64 * 1024;
/// Most notes in waiting; when one more comes, the oldest goes.
pub const NOTES_MAX: usize = 16;

/// Bytes of a plaintext as it is kept: text, photo, length, fingerprint.
const PLAIN_LEN_MAX: usize = TEXT_LEN + PHOTO_LEN + 2 + FINGERPRINT_LEN_MAX;
const ENTRY_BYTES_MAX: usize =
    CONFIGURATION_LEN + ENCRYPTED_LEN_MAX + PLAIN_LEN_MAX + AEAD_KEY_LEN + AEAD_TAG_LEN;

const _: () = assert!(CARDS_MAX >= 1 && CARDS_MAX * ENTRY_BYTES_MAX <= CACHE_BYTES_MAX);

/// How many cards are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Several cards, up to [`CARDS_MAX`] (C7).
    #[default]
    MultiCard,
    /// One card: a new card's configuration first erases everything of the previous one (C8).
    SingleCard,
    /// None: the configuration of the card that is there, and nothing that was read.
    Off,
}

/// What the cache can answer a read with.
#[derive(Debug)]
pub enum CacheHit {
    /// The plaintext: no network, no SAM (C14).
    Plaintext(PlainData),
    /// The encrypted packets: the card's encrypted files need not be read again (C7).
    Packets(Vec<Packet>),
    /// Nothing but, at most, the configuration.
    Nothing,
}

/// Something the owner should log. None of it fails a read: what is not kept is read again.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CacheNote {
    /// What lies in the storage is not what was put there: changed, of another slot, or older. It
    /// counts as absent and was erased.
    #[error("the {} data in the cache were tampered with and are not used", .0.name())]
    Tampered(Kind),
    /// The storage could not be read; what should be there counts as absent.
    #[error("the {} data cannot be read from the cache: {error}", .kind.name())]
    Unreadable {
        /// What should be there.
        kind: Kind,
        /// What the storage said.
        error: StorageError,
    },
    /// Not kept: the storage is full, or failed.
    #[error("the {} data are not kept: {reason}", .kind.name())]
    NotKept {
        /// What is not kept.
        kind: Kind,
        /// What the storage said.
        reason: StorageError,
    },
    /// The storage did not erase. The key is gone, so nothing can be opened; erasing is tried
    /// again with the next wipe.
    #[error("the cache could not be erased: {0}; its key is gone")]
    NotErased(StorageError),
}

struct Entry {
    configuration: Configuration,
    /// Its place in the storage, below [`CARDS_MAX`].
    place: u8,
    /// Whether the fingerprint was asked for when this was read.
    fingerprint: bool,
    encrypted: Option<Kept>,
    plaintext: Option<Kept>,
    last_used: u64,
}

impl Entry {
    const fn kept(&mut self, kind: Kind) -> &mut Option<Kept> {
        match kind {
            Kind::Encrypted => &mut self.encrypted,
            Kind::Plaintext => &mut self.plaintext,
        }
    }
}

/// The reader's cache: per card its configuration and, once read, its encrypted data and, if the
/// server's policy allows, its plaintext under a random key. Dropping it wipes it.
pub struct ReaderCache {
    mode: CacheMode,
    vault: Vault,
    entries: Vec<Entry>,
    uses: u64,
    notes: VecDeque<CacheNote>,
}

impl fmt::Debug for ReaderCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderCache({:?}, {} cards)", self.mode, self.entries.len())
    }
}

impl Drop for ReaderCache {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl ReaderCache {
    /// An empty cache in volatile memory alone: gone with the power.
    #[must_use]
    pub fn new(mode: CacheMode, provider: Provider) -> Self {
        Self::made(mode, Vault::new(provider, None))
    }

    /// An empty cache that keeps what it must in `storage`, sealed. What a former start left there
    /// cannot be opened by anyone and is erased. `rng` makes the keys.
    #[must_use]
    pub fn with_storage(
        mode: CacheMode,
        provider: Provider,
        storage: Box<dyn CacheStorage + Send>,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        let mut cache = Self::made(mode, Vault::new(provider, Some(Flash::new(storage, rng))));
        cache.erase_slots();
        cache
    }

    fn made(mode: CacheMode, vault: Vault) -> Self {
        let entries = Vec::with_capacity(CARDS_MAX);
        Self { mode, vault, entries, uses: 0, notes: VecDeque::new() }
    }

    /// How many cards it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if it knows no card.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if this configuration is stored.
    #[must_use]
    pub fn knows(&self, configuration: &Configuration) -> bool {
        self.entries.iter().any(|entry| entry.configuration == *configuration)
    }

    /// The next thing for the owner's log.
    pub fn poll_note(&mut self) -> Option<CacheNote> {
        self.notes.pop_front()
    }

    /// A card appeared: stores its configuration if it is not there (C6). True if it was new. With
    /// one card's worth of cache everything of the previous card is erased first (C8).
    pub fn card_appeared(&mut self, configuration: &Configuration) -> bool {
        self.uses += 1;
        let now = self.uses;
        if let Some(at) = self.position(configuration) {
            self.entries[at].last_used = now;
            return false;
        }
        match self.mode {
            CacheMode::SingleCard | CacheMode::Off => self.wipe(),
            CacheMode::MultiCard if self.entries.len() >= CARDS_MAX => self.evict(),
            CacheMode::MultiCard => {}
        }
        let free = |place: &u8| self.entries.iter().all(|entry| entry.place != *place);
        let place = (0..CARDS_MAX as u8).find(free).expect("fewer than CARDS_MAX entries");
        self.entries.push(Entry {
            configuration: configuration.clone(),
            place,
            fingerprint: false,
            encrypted: None,
            plaintext: None,
            last_used: now,
        });
        true
    }

    /// Stores a card's encrypted data, with its configuration (C7, C9). A plaintext kept from an
    /// earlier read goes. If the storage fails, nothing is kept and a note says so.
    pub fn store_encrypted(
        &mut self,
        configuration: &Configuration,
        data: &EncryptedData,
        fingerprint: bool,
    ) {
        self.card_appeared(configuration);
        let Some(at) = self.position(configuration) else { return };
        self.forget_at(at);
        self.entries[at].fingerprint = fingerprint;
        if self.mode == CacheMode::Off {
            return;
        }
        // At its final size: growing would leave a copy behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(data.as_bytes().len() + AEAD_TAG_LEN));
        bytes.extend_from_slice(data.as_bytes());
        let slot = Slot::new(self.entries[at].place, Kind::Encrypted);
        let kept = self.vault.keep_encrypted(configuration, slot, bytes);
        // Only the storage can fail here: keys and lengths are our own.
        let _sealed = self.kept(at, slot, kept);
    }

    /// Encrypts a plaintext under a fresh random key and keeps the ciphertext (C13). Only to be
    /// called when the policy allows it; [`ReaderFlow`](crate::reader::ReaderFlow) does so. If the
    /// storage fails, nothing is kept and a note says so.
    ///
    /// # Errors
    /// [`CryptoError`] from the provider; nothing is then kept.
    pub fn store_plaintext(
        &mut self,
        rng: &mut dyn CryptoRng,
        configuration: &Configuration,
        data: &PlainData,
    ) -> Result<(), CryptoError> {
        let Some(at) = self.position(configuration).filter(|_| self.mode != CacheMode::Off) else {
            return Ok(());
        };
        self.forget_kind(at, Kind::Plaintext);
        let mut bytes = Zeroizing::new(Vec::with_capacity(data.encoded_len() + AEAD_TAG_LEN));
        data.write_to(&mut bytes);
        let slot = Slot::new(self.entries[at].place, Kind::Plaintext);
        let kept = self.vault.keep_plaintext(configuration, slot, random_key(rng), bytes);
        self.kept(at, slot, kept)
    }

    /// What the cache has for a read of this card. Data read with another `fingerprint` choice do
    /// not count: the card is then read anew. Nor does what was tampered with.
    pub fn lookup(&mut self, configuration: &Configuration, fingerprint: bool) -> CacheHit {
        self.uses += 1;
        let now = self.uses;
        let Some(at) = self.position(configuration) else {
            return CacheHit::Nothing;
        };
        self.entries[at].last_used = now;
        if self.entries[at].fingerprint != fingerprint {
            return CacheHit::Nothing;
        }
        let plain = self.open(at, Kind::Plaintext, |bytes| {
            PlainData::read_from(&bytes).filter(|(_, rest)| rest.is_empty()).map(|(plain, _)| plain)
        });
        if let Some(plain) = plain {
            return CacheHit::Plaintext(plain);
        }
        let data = self.open(at, Kind::Encrypted, |bytes| EncryptedData::new(bytes).ok());
        data.map_or(CacheHit::Nothing, |data| CacheHit::Packets(data.packets()))
    }

    /// Forgets a card's data but not its configuration: the server refused what was kept.
    pub fn forget_data(&mut self, configuration: &Configuration) {
        if let Some(at) = self.position(configuration) {
            self.forget_at(at);
        }
    }

    /// Wipes everything: keys first, then configurations and ciphertext (C11, C15). Whatever the
    /// storage does after the first step, nothing in it can be opened.
    pub fn wipe(&mut self) {
        for entry in &mut self.entries {
            for kind in Kind::ALL {
                drop(entry.kept(kind).take());
            }
        }
        self.entries.clear();
        self.erase_slots();
    }

    fn erase_slots(&mut self) {
        for slot in Slot::all() {
            self.erase_slot(slot);
        }
    }

    fn erase_slot(&mut self, slot: Slot) {
        if let Some(Err(error)) = self.vault.flash.as_mut().map(|flash| flash.erase(slot)) {
            self.note(CacheNote::NotErased(error));
        }
    }

    /// Takes what came of keeping something in `slot` of the entry.
    fn kept(
        &mut self,
        at: usize,
        slot: Slot,
        kept: Result<Kept, KeepError>,
    ) -> Result<(), CryptoError> {
        let kind = slot.kind();
        match kept {
            Ok(kept) => *self.entries[at].kept(kind) = Some(kept),
            Err(KeepError::Storage(error)) => {
                // A part of it may lie there.
                self.erase_slot(slot);
                self.note(CacheNote::NotKept { kind, reason: error });
            }
            Err(KeepError::Crypto(error)) => {
                let reason = StorageError(error.to_string());
                self.note(CacheNote::NotKept { kind, reason });
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is kept of one kind, as `parse` understands it; what cannot be had is forgotten.
    fn open<T>(
        &mut self,
        at: usize,
        kind: Kind,
        parse: impl FnOnce(Zeroizing<Vec<u8>>) -> Option<T>,
    ) -> Option<T> {
        let entry = &self.entries[at];
        let kept = match kind {
            Kind::Encrypted => entry.encrypted.as_ref()?,
            Kind::Plaintext => entry.plaintext.as_ref()?,
        };
        let slot = Slot::new(entry.place, kind);
        let opened = self.vault.open(&entry.configuration, slot, kept);
        let note = match opened.map(parse) {
            Ok(Some(parsed)) => return Some(parsed),
            Ok(None) | Err(Lost::Tampered) => CacheNote::Tampered(kind),
            Err(Lost::Storage(error)) => CacheNote::Unreadable { kind, error },
        };
        self.forget_kind(at, kind);
        self.note(note);
        None
    }

    /// Key first, then the ciphertext.
    fn forget_kind(&mut self, at: usize, kind: Kind) {
        let slot = Slot::new(self.entries[at].place, kind);
        if self.entries[at].kept(kind).take().is_some() {
            self.erase_slot(slot);
        }
    }

    fn forget_at(&mut self, at: usize) {
        for kind in Kind::ALL {
            drop(self.entries[at].kept(kind).take());
        }
        for kind in Kind::ALL {
            self.erase_slot(Slot::new(self.entries[at].place, kind));
        }
    }

    fn evict(&mut self) {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.last_used);
        if let Some((at, _)) = oldest {
            self.forget_at(at);
            self.entries.swap_remove(at);
        }
    }

    fn position(&self, configuration: &Configuration) -> Option<usize> {
        self.entries.iter().position(|entry| entry.configuration == *configuration)
    }

    fn note(&mut self, note: CacheNote) {
        if self.notes.len() >= NOTES_MAX {
            self.notes.pop_front();
        }
        self.notes.push_back(note);
    }
}
