//! The reader's cache (C6, C7, C8, C13, C14, C15).
//!
//! On a device with a secure element it lives in the element's volatile memory; in the software
//! reader it is ordinary memory, wiped on drop. Nothing here is written to disk. Not `Clone`.

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoError, CryptoRng, Provider, Secret,
};
use zeroize::Zeroizing;

use crate::{
    CONFIGURATION_LEN, Configuration, EncryptedData, FINGERPRINT_LEN_MAX, PACKET_DATA_MAX,
    PACKETS_MAX, PHOTO_LEN, Packet, PlainData, TEXT_LEN,
};

/// Most cards kept at a time; the one used longest ago makes room (C7).
pub const CARDS_MAX: usize = 8;
/// Most bytes that the cache may take of a secure element's volatile memory.
pub const CACHE_BYTES_MAX: usize = 64 * 1024;

const ENTRY_BYTES_MAX: usize = CONFIGURATION_LEN
    + PACKETS_MAX * PACKET_DATA_MAX
    + (TEXT_LEN + PHOTO_LEN + 2 + FINGERPRINT_LEN_MAX + AEAD_KEY_LEN + AEAD_TAG_LEN);

const _: () = assert!(CARDS_MAX >= 1 && CARDS_MAX * ENTRY_BYTES_MAX <= CACHE_BYTES_MAX);

/// Each key seals exactly once, so its only nonce is unique.
const NONCE: [u8; AEAD_NONCE_LEN] = [0; AEAD_NONCE_LEN];

/// How many cards are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Several cards, up to [`CARDS_MAX`] (C7).
    #[default]
    MultiCard,
    /// One card: a new card's configuration first erases everything of the previous one (C8).
    SingleCard,
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

/// A plaintext under its own random key (C13).
struct Sealed {
    key: Secret,
    ciphertext: Zeroizing<Vec<u8>>,
}

struct Entry {
    configuration: Configuration,
    /// Whether the fingerprint was asked for when this was read.
    fingerprint: bool,
    packets: Vec<Packet>,
    plaintext: Option<Sealed>,
    last_used: u64,
}

/// The reader's cache: per card its configuration and, once read, its encrypted packets and, if
/// the server's policy allows, its plaintext under a random key.
pub struct ReaderCache {
    mode: CacheMode,
    provider: Provider,
    entries: Vec<Entry>,
    uses: u64,
}

impl fmt::Debug for ReaderCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReaderCache({:?}, {} cards)", self.mode, self.entries.len())
    }
}

impl ReaderCache {
    /// An empty cache.
    #[must_use]
    pub fn new(mode: CacheMode, provider: Provider) -> Self {
        Self { mode, provider, entries: Vec::with_capacity(CARDS_MAX), uses: 0 }
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

    /// A card appeared: stores its configuration if it is not there (C6). True if it was new.
    pub fn card_appeared(&mut self, configuration: &Configuration) -> bool {
        self.uses += 1;
        let now = self.uses;
        if let Some(entry) = self.entry(configuration) {
            entry.last_used = now;
            return false;
        }
        match self.mode {
            CacheMode::SingleCard => self.entries.clear(),
            CacheMode::MultiCard if self.entries.len() >= CARDS_MAX => self.evict(),
            CacheMode::MultiCard => {}
        }
        self.entries.push(Entry {
            configuration: configuration.clone(),
            fingerprint: false,
            packets: Vec::new(),
            plaintext: None,
            last_used: now,
        });
        true
    }

    /// Stores a card's encrypted data as packets, with its configuration (C7, C9). A plaintext
    /// kept from an earlier read goes.
    pub fn store_encrypted(
        &mut self,
        configuration: &Configuration,
        data: &EncryptedData,
        fingerprint: bool,
    ) {
        self.card_appeared(configuration);
        if let Some(entry) = self.entry(configuration) {
            entry.packets = data.packets();
            entry.fingerprint = fingerprint;
            entry.plaintext = None;
        }
    }

    /// Encrypts a plaintext under a fresh random key and keeps the ciphertext (C13). Only to be
    /// called when the policy allows it; [`ReaderFlow`](crate::reader::ReaderFlow) does so.
    ///
    /// # Errors
    /// [`CryptoError`] from the provider; nothing is then kept.
    pub fn store_plaintext(
        &mut self,
        rng: &mut dyn CryptoRng,
        configuration: &Configuration,
        data: &PlainData,
    ) -> Result<(), CryptoError> {
        let Some(at) = self.position(configuration) else {
            return Ok(());
        };
        self.entries[at].plaintext = None;
        let key = Secret::try_filled(AEAD_KEY_LEN, |bytes| {
            rng.fill_bytes(bytes);
            Ok::<(), CryptoError>(())
        })?;
        let len = data.encoded_len() + AEAD_TAG_LEN;
        let mut ciphertext = Zeroizing::new(Vec::with_capacity(len));
        data.write_to(&mut ciphertext);
        self.provider.aead.key(&key)?.seal(&NONCE, configuration.as_bytes(), &mut ciphertext)?;
        self.entries[at].plaintext = Some(Sealed { key, ciphertext });
        Ok(())
    }

    /// What the cache has for a read of this card. Data read with another `fingerprint` choice do
    /// not count: the card is then read anew.
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
        if let Some(plain) = self.open(at) {
            return CacheHit::Plaintext(plain);
        }
        let packets = &self.entries[at].packets;
        if packets.is_empty() { CacheHit::Nothing } else { CacheHit::Packets(packets.clone()) }
    }

    /// Forgets a card's data but not its configuration: the server refused what was kept.
    pub fn forget_data(&mut self, configuration: &Configuration) {
        if let Some(entry) = self.entry(configuration) {
            entry.packets = Vec::new();
            entry.plaintext = None;
        }
    }

    /// Wipes everything, keys first (C11, C15).
    pub fn wipe(&mut self) {
        for entry in &mut self.entries {
            entry.plaintext = None;
        }
        self.entries.clear();
    }

    fn open(&mut self, at: usize) -> Option<PlainData> {
        let entry = &mut self.entries[at];
        let sealed = entry.plaintext.as_ref()?;
        let mut bytes = sealed.ciphertext.clone();
        let opened = self
            .provider
            .aead
            .key(&sealed.key)
            .and_then(|key| key.open(&NONCE, entry.configuration.as_bytes(), &mut bytes));
        let plain = opened.ok().and_then(|()| PlainData::read_from(&bytes));
        if plain.is_none() {
            // Damaged memory: as if it had never been there.
            entry.plaintext = None;
        }
        plain.map(|(plain, _)| plain)
    }

    fn position(&self, configuration: &Configuration) -> Option<usize> {
        self.entries.iter().position(|entry| entry.configuration == *configuration)
    }

    fn entry(&mut self, configuration: &Configuration) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.configuration == *configuration)
    }

    fn evict(&mut self) {
        let oldest = self.entries.iter().enumerate().min_by_key(|(_, entry)| entry.last_used);
        if let Some((at, _)) = oldest {
            self.entries.swap_remove(at);
        }
    }
}
