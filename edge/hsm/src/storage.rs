use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_crypto::Secret;
use thiserror::Error;

/// Why a storage could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// [`VaultStorage::create`] under a name that is there already.
    #[error("the name is taken")]
    Taken,
    /// What is stored does not open: altered, or sealed under another key.
    #[error("the sealed key does not open")]
    Damaged,
    /// The system refused.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// Where a [`FileVault`](crate::FileVault) keeps its keys: its owner seals them and knows the
/// place. Names are labels as [`check_label`](crate::check_label) allows them, good as names of
/// files. Values are clear keys of some kilobytes: an implementation encrypts them, bound to their
/// name, before they touch a disk.
pub trait VaultStorage: Send + Sync {
    /// The names that are there, in any order.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn names(&self) -> Result<Vec<String>, StorageError>;

    /// What is under `name`, or nothing.
    ///
    /// # Errors
    /// [`StorageError::Damaged`], [`StorageError::Io`].
    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError>;

    /// Stores a value under a new name, whole and durable when this returns; a crash leaves all of
    /// it or nothing. Of two at once one wins.
    ///
    /// # Errors
    /// [`StorageError::Taken`], with what is there unchanged; [`StorageError::Io`].
    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError>;

    /// Removes a name, durably. One that is not there is no error.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    fn delete(&self, name: &str) -> Result<(), StorageError>;
}

/// A storage that ends with the process, for tests and measurements.
#[derive(Default)]
pub struct MemoryStorage {
    values: Mutex<BTreeMap<String, Secret>>,
}

impl MemoryStorage {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<String, Secret>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VaultStorage for MemoryStorage {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        Ok(self.values().keys().cloned().collect())
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
        Ok(self.values().get(name).map(|value| Secret::copied_from(value.expose())))
    }

    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError> {
        let mut values = self.values();
        if values.contains_key(name) {
            return Err(StorageError::Taken);
        }
        values.insert(name.to_owned(), Secret::copied_from(value.expose()));
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        self.values().remove(name);
        Ok(())
    }
}

impl<S: VaultStorage + ?Sized> VaultStorage for std::sync::Arc<S> {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        (**self).names()
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
        (**self).load(name)
    }

    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError> {
        (**self).create(name, value)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        (**self).delete(name)
    }
}
