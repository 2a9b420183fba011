//! Where the reader's cache keeps what is sealed: the secure element's flash, or the device's.

use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::AEAD_TAG_LEN;
use thiserror::Error;

use super::{CARDS_MAX, PLAIN_LEN_MAX};
use crate::ENCRYPTED_LEN_MAX;

/// What of a card is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The encrypted data as the card gave them (C7, C9).
    Encrypted,
    /// The plaintext that a SAM made of them (C13).
    Plaintext,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Encrypted, Self::Plaintext];

    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encrypted => "encrypted",
            Self::Plaintext => "plaintext",
        }
    }
}

/// A place in the storage: one per card that may be kept and kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    card: u8,
    kind: Kind,
}

impl Slot {
    /// How many there are.
    pub const COUNT: usize = CARDS_MAX * Kind::ALL.len();

    /// The place of `kind` of the card in place `card`, below [`CARDS_MAX`].
    pub(super) const fn new(card: u8, kind: Kind) -> Self {
        Self { card, kind }
    }

    /// All places.
    pub fn all() -> impl Iterator<Item = Self> {
        const _: () = assert!(CARDS_MAX <= u8::MAX as usize);
        (0..CARDS_MAX as u8).flat_map(|card| Kind::ALL.map(|kind| Self { card, kind }))
    }

    /// Its number, from 0, below [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.card as usize * Kind::ALL.len() + self.kind as usize
    }

    /// What lies there.
    #[must_use]
    pub const fn kind(self) -> Kind {
        self.kind
    }
}

/// Most bytes ever written to one slot.
pub const SEALED_LEN_MAX: usize = AEAD_TAG_LEN
    + if ENCRYPTED_LEN_MAX > PLAIN_LEN_MAX { ENCRYPTED_LEN_MAX } else { PLAIN_LEN_MAX };

/// The storage failed; says what the system or the element said.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// Storage that outlives power: the secure element's flash, or files. It only ever sees
/// ciphertext, whose keys it never holds (C15); it need not be trusted with anything but space.
pub trait CacheStorage {
    /// Puts these bytes, at most [`SEALED_LEN_MAX`], in place of whatever is in the slot.
    ///
    /// # Errors
    /// [`StorageError`]; what the slot then holds does not matter.
    fn write(&mut self, slot: Slot, sealed: &[u8]) -> Result<(), StorageError>;

    /// What is in the slot; `None` if nothing is, or more than [`SEALED_LEN_MAX`] bytes.
    ///
    /// # Errors
    /// [`StorageError`].
    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError>;

    /// Empties the slot. An empty slot stays empty, without an error.
    ///
    /// # Errors
    /// [`StorageError`].
    fn erase(&mut self, slot: Slot) -> Result<(), StorageError>;
}
