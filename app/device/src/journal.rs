//! Reads that the user asked to keep: an append-only journal, sealed, in the device's directory.
//!
//! Entries have one size, so that a damaged one hides no other. Each is sealed under the journal's
//! own key with its number as associated data: entries cannot be changed or change places. The key
//! lies beside them, private to the owner, as the device's own key does; who can read that can
//! read the journal.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_crypto::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoRng, Provider, Secret, UnixTime,
};
use countersign_idcard::{FINGERPRINT_LEN_MAX, PHOTO_LEN, PlainData, TEXT_LEN};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{DeviceDir, Source};

const DIR: &str = "reads";
const LOCK: &str = "lock";
const KEY: &str = "key";
const ENTRIES: &str = "entries";
/// Associated data of every entry, before its number.
const LABEL: &[u8] = b"countersign kept read, format 1";

/// Most reads kept: export and erase them before there are more.
pub const KEPT_MAX: u64 = 10_000;
/// `source ‖ time ‖ fingerprint length ‖ text ‖ photo ‖ fingerprint, padded with zeros`.
const PLAIN_LEN: usize = 1 + 8 + 2 + TEXT_LEN + PHOTO_LEN + FINGERPRINT_LEN_MAX;
/// `nonce ‖ ciphertext ‖ tag`.
const ENTRY_LEN: usize = AEAD_NONCE_LEN + PLAIN_LEN + AEAD_TAG_LEN;

/// Why a read is not kept, or cannot be had back.
#[derive(Debug, Error)]
pub enum JournalError {
    /// As many as may be are kept.
    #[error("{KEPT_MAX} reads are kept, which is the most: export them, then erase them")]
    Full,
    /// An entry is not what was written.
    #[error("kept read {number} is damaged")]
    Damaged {
        /// Which, from 1.
        number: u64,
    },
    /// The journal's key is not there, or is no key.
    #[error("{0}: the key of the kept reads is missing or damaged; they cannot be opened")]
    Key(PathBuf),
    /// The provider failed.
    #[error("the kept reads: {0}")]
    Crypto(#[from] countersign_crypto::CryptoError),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl JournalError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Full => "reads-full",
            Self::Damaged { .. } => "reads-damaged",
            Self::Key(_) => "reads-key",
            Self::Crypto(_) => "internal",
            Self::Io { .. } => "io",
        }
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Crypto(_))
    }
}

/// A read that was kept.
#[derive(Debug)]
pub struct KeptRead {
    /// Its number in the journal, from 1.
    pub number: u64,
    /// When it was done.
    pub at: UnixTime,
    /// Where its answer came from.
    pub source: Source,
    /// What was on the card.
    pub data: PlainData,
}

/// What came of keeping a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its number in the journal, from 1.
    pub number: u64,
    /// An entry was dropped that a crash had cut off. Its read had not been reported as kept.
    pub dropped_torn: bool,
}

/// The journal of one device.
pub struct ReadJournal {
    dir: PathBuf,
    provider: Provider,
}

impl ReadJournal {
    /// The journal of this device, whether it keeps anything yet or not.
    #[must_use]
    pub fn new(device: &DeviceDir) -> Self {
        Self { dir: device.path().join(DIR), provider: device.provider() }
    }

    /// Keeps a read. When this returns it is on the disk.
    ///
    /// # Errors
    /// [`JournalError`]; the read is then not kept, and what was kept before is as it was.
    pub fn append(
        &self,
        rng: &mut dyn CryptoRng,
        at: UnixTime,
        source: Source,
        data: &PlainData,
    ) -> Result<Kept, JournalError> {
        let _lock = self.lock()?;
        let path = self.dir.join(ENTRIES);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let mut file = private().create(true).truncate(false).open(&path).map_err(io)?;
        let (whole, torn) = split(file.metadata().map_err(io)?.len());
        if whole >= KEPT_MAX {
            return Err(JournalError::Full);
        }
        let key = if whole == 0 && torn == 0 { self.make_key(rng)? } else { self.key()? };
        let number = whole + 1;
        let entry = self.seal(rng, &key, number, &encode(at, source, data))?;
        let end = whole * ENTRY_LEN as u64;
        let written = file.set_len(end).and_then(|()| {
            file.seek(SeekFrom::Start(end))?;
            file.write_all(&entry)?;
            file.sync_all()?;
            // The names too, once they are new.
            if whole == 0 { File::open(&self.dir)?.sync_all() } else { Ok(()) }
        });
        if written.is_err() {
            let _as_before = file.set_len(end);
        }
        written.map_err(io)?;
        Ok(Kept { number, dropped_torn: torn > 0 })
    }

    /// All that is kept, oldest first.
    ///
    /// # Errors
    /// [`JournalError::Key`], [`JournalError::Io`].
    pub fn entries(&self) -> Result<KeptReads<'_>, JournalError> {
        let path = self.dir.join(ENTRIES);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let none = KeptReads { journal: self, open: None, number: 0, count: 0, torn: false };
        if !self.dir.exists() {
            return Ok(none);
        }
        // Appending and erasing wait, so what is seen here is whole and under the key beside it.
        let lock = self.lock()?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(none),
            Err(error) => return Err(io(error)),
        };
        let (count, torn) = split(file.metadata().map_err(io)?.len());
        let open = match count {
            0 => None,
            _ => Some(Open { file, key: self.key()?, _lock: lock }),
        };
        Ok(KeptReads { journal: self, open, number: 0, count: count.min(KEPT_MAX), torn: torn > 0 })
    }

    /// Erases all that is kept, the key first. How many reads that were.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn erase(&self) -> Result<u64, JournalError> {
        if !self.dir.exists() {
            return Ok(0);
        }
        let _lock = self.lock()?;
        let (key, entries) = (self.dir.join(KEY), self.dir.join(ENTRIES));
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Io { path, source }
        };
        if key.exists() {
            let overwrite = || {
                let mut file = private().open(&key)?;
                file.write_all(&[0; AEAD_KEY_LEN])?;
                file.sync_all()?;
                fs::remove_file(&key)
            };
            overwrite().map_err(io(&key))?;
        }
        let count = match fs::metadata(&entries) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io(&entries)(error)),
            Ok(found) => {
                fs::remove_file(&entries).map_err(io(&entries))?;
                split(found.len()).0
            }
        };
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io(&self.dir))?;
        Ok(count)
    }

    /// Waits for any other program at this journal.
    fn lock(&self) -> Result<File, JournalError> {
        let path = self.dir.join(LOCK);
        let lock = || {
            match DirBuilder::new().mode(0o700).create(&self.dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let file = private().create(true).truncate(false).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|source| JournalError::Io { path: path.clone(), source })
    }

    fn key(&self) -> Result<Secret, JournalError> {
        let path = self.dir.join(KEY);
        let mut key = Zeroizing::new(Vec::with_capacity(AEAD_KEY_LEN + 1));
        let read = File::open(&path)
            .and_then(|file| file.take(AEAD_KEY_LEN as u64 + 1).read_to_end(&mut key));
        match read {
            // Zeros are what erasing leaves of a key if it does not come to its end.
            Ok(AEAD_KEY_LEN) if key.iter().any(|byte| *byte != 0) => Ok(Secret::copied_from(&key)),
            Ok(_) => Err(JournalError::Key(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(JournalError::Key(path)),
            Err(source) => Err(JournalError::Io { path, source }),
        }
    }

    /// A fresh key, in place of any that sealed nothing.
    fn make_key(&self, rng: &mut dyn CryptoRng) -> Result<Secret, JournalError> {
        let path = self.dir.join(KEY);
        let Ok(key) = Secret::try_filled(AEAD_KEY_LEN, |bytes| {
            rng.fill_bytes(bytes);
            Ok::<_, std::convert::Infallible>(())
        });
        let write = || {
            let mut file = private().create(true).truncate(true).open(&path)?;
            file.write_all(key.expose())?;
            file.sync_all()
        };
        write().map_err(|source| JournalError::Io { path: path.clone(), source })?;
        Ok(key)
    }

    fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        key: &Secret,
        number: u64,
        plain: &[u8],
    ) -> Result<Vec<u8>, JournalError> {
        let mut nonce = [0; AEAD_NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut sealed = Zeroizing::new(Vec::with_capacity(PLAIN_LEN + AEAD_TAG_LEN));
        sealed.extend_from_slice(plain);
        self.provider.aead.key(key)?.seal(&nonce, &associated(number), &mut sealed)?;
        Ok([&nonce[..], &sealed].concat())
    }

    fn open_entry(&self, key: &Secret, number: u64, entry: &[u8]) -> Option<KeptRead> {
        let (nonce, sealed) = entry.split_first_chunk::<AEAD_NONCE_LEN>()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        self.provider.aead.key(key).ok()?.open(nonce, &associated(number), &mut plain).ok()?;
        decode(number, &plain)
    }
}

/// What is kept, one after the other; a damaged entry is an error and the next one follows.
pub struct KeptReads<'a> {
    journal: &'a ReadJournal,
    open: Option<Open>,
    number: u64,
    count: u64,
    torn: bool,
}

struct Open {
    file: File,
    key: Secret,
    _lock: File,
}

impl KeptReads<'_> {
    /// How many there are.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.count
    }

    /// Whether a crash cut off an entry at the end. Its read had not been reported as kept.
    #[must_use]
    pub const fn is_torn(&self) -> bool {
        self.torn
    }
}

impl Iterator for KeptReads<'_> {
    type Item = Result<KeptRead, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let open = self.open.as_mut().filter(|_| self.number < self.count)?;
        self.number += 1;
        let number = self.number;
        let mut entry = vec![0; ENTRY_LEN];
        if let Err(source) = open.file.read_exact(&mut entry) {
            self.number = self.count; // the file cannot be read on
            let path = self.journal.dir.join(ENTRIES);
            return Some(Err(JournalError::Io { path, source }));
        }
        let read = self.journal.open_entry(&open.key, number, &entry);
        Some(read.ok_or(JournalError::Damaged { number }))
    }
}

/// Whole entries, and the bytes of one that was cut off.
const fn split(len: u64) -> (u64, u64) {
    (len / ENTRY_LEN as u64, len % ENTRY_LEN as u64)
}

/// Files that only their owner may read.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

fn associated(number: u64) -> Vec<u8> {
    [LABEL, &number.to_be_bytes()].concat()
}

fn encode(at: UnixTime, source: Source, data: &PlainData) -> Zeroizing<Vec<u8>> {
    let fingerprint = data.fingerprint().unwrap_or_default();
    let len = u16::try_from(fingerprint.len()).expect("at most FINGERPRINT_LEN_MAX");
    let mut plain = Zeroizing::new(Vec::with_capacity(PLAIN_LEN));
    plain.push(match source {
        Source::Cache => 1,
        Source::ServerFromCache => 2,
        Source::Server => 3,
    });
    plain.extend_from_slice(&at.as_millis().to_be_bytes());
    plain.extend_from_slice(&len.to_be_bytes());
    plain.extend_from_slice(data.text());
    plain.extend_from_slice(data.photo());
    plain.extend_from_slice(fingerprint);
    plain.resize(PLAIN_LEN, 0);
    plain
}

fn decode(number: u64, plain: &[u8]) -> Option<KeptRead> {
    let (source, rest) = plain.split_first()?;
    let source = match source {
        1 => Source::Cache,
        2 => Source::ServerFromCache,
        3 => Source::Server,
        _ => return None,
    };
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(TEXT_LEN)?;
    let (photo, rest) = rest.split_at_checked(PHOTO_LEN)?;
    let fingerprint = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
    let fingerprint = (!fingerprint.is_empty()).then(|| Secret::copied_from(fingerprint));
    let (text, photo) = (Secret::copied_from(text), Secret::copied_from(photo));
    let data = PlainData::new(text, photo, fingerprint).ok()?;
    let at = UnixTime::from_millis(u64::from_be_bytes(*at));
    Some(KeptRead { number, at, source, data })
}

#[cfg(test)]
mod tests;
