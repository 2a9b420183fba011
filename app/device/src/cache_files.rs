//! The device's flash for the reader's cache: sealed files in its directory (C7, C13, C15).
//!
//! The keys are in the reader's memory only, so no file here outlives the program in any use. That
//! is why nothing is synced: what a power cut loses is lost anyway.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use countersign_idcard::cache::{CacheStorage, SEALED_LEN_MAX, Slot, StorageError};

use crate::{DeviceDir, DeviceDirError};

const DIR: &str = "cache";
const LOCK: &str = "lock";

/// `cache/` in a device's directory: one file per slot, private to its owner.
pub struct CacheFiles {
    dir: PathBuf,
    /// Held as long as this reader runs: two must not erase each other's files.
    _lock: File,
}

impl CacheFiles {
    /// Makes `cache/` if it is not there, and takes it for this program alone. What a former start
    /// left is erased by the cache that gets this.
    ///
    /// # Errors
    /// [`DeviceDirError::Io`]: also if it is in use by another program, or is no directory.
    pub fn open(device: &DeviceDir) -> Result<Self, DeviceDirError> {
        let dir = device.path().join(DIR);
        let io = |source| DeviceDirError::Io { path: dir.clone(), source };
        make_private(&dir).map_err(io)?;
        let lock = options().create(true).truncate(false).open(dir.join(LOCK)).map_err(io)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io(io::Error::other("in use by another reader program")),
            TryLockError::Error(error) => io(error),
        })?;
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self, slot: Slot) -> PathBuf {
        // The number is the card's place; both kinds of a card lie side by side.
        let place = slot.index() / countersign_idcard::cache::Kind::ALL.len();
        self.dir.join(format!("{place}-{}", slot.kind().name()))
    }

    fn new_path(&self, slot: Slot) -> PathBuf {
        self.path(slot).with_extension("new")
    }
}

/// A directory that only its owner may enter, there already or made.
fn make_private(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Ok(found) if !found.is_dir() => Err(io::Error::other("not a directory")),
        Ok(_) => fs::set_permissions(dir, fs::Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).create(dir)
        }
        Err(error) => Err(error),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

impl CacheStorage for CacheFiles {
    fn write(&mut self, slot: Slot, sealed: &[u8]) -> Result<(), StorageError> {
        let (path, new) = (self.path(slot), self.new_path(slot));
        let written = erase(&new).and_then(|()| {
            options().create_new(true).open(&new)?.write_all(sealed)?;
            fs::rename(&new, &path)
        });
        if written.is_err() {
            let _gone = fs::remove_file(&new);
        }
        written.map_err(|error| failed(&path, &error))
    }

    fn read(&mut self, slot: Slot) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.path(slot);
        let read = || {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() => {}
                Ok(_) => return Ok(None), // nothing that was written here
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
            let mut bytes = Vec::with_capacity(SEALED_LEN_MAX + 1);
            File::open(&path)?.take(SEALED_LEN_MAX as u64 + 1).read_to_end(&mut bytes)?;
            Ok(Some(bytes).filter(|bytes| bytes.len() <= SEALED_LEN_MAX))
        };
        read().map_err(|error| failed(&path, &error))
    }

    fn erase(&mut self, slot: Slot) -> Result<(), StorageError> {
        let path = self.path(slot);
        erase(&self.new_path(slot)).and(erase(&path)).map_err(|error| failed(&path, &error))
    }
}

/// Overwrites, where that is possible, and removes.
fn erase(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.is_file() => {
            let len = usize::try_from(found.len()).unwrap_or(usize::MAX).min(SEALED_LEN_MAX);
            // No more than a courtesy: the key is what went.
            let _overwritten = options().open(path).and_then(|mut file| {
                file.write_all(&vec![0; len])?;
                file.sync_data()
            });
        }
        // A link is removed, never followed.
        Ok(_) => {}
    }
    fs::remove_file(path)
}

fn failed(path: &Path, error: &io::Error) -> StorageError {
    StorageError(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
