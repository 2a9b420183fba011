//! What a sleeve keeps of each manager that it is paired with: one file each, replaced at once.
//!
//! A pairing whose last message got lost is *pending*: it is used by the next connect, and then it
//! is confirmed. Pairing again with a manager keeps the former pairings until the new one is
//! confirmed, so that lost messages, however many, never brick a pair (A1).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use countersign_channel::{PAIRING_TIMEOUT, Pairing};
use countersign_crypto::{Secret, Suite, UnixTime};
use countersign_pki::CertificateNumber;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::SleeveError;
use crate::device_dir::suite_name;
use crate::private_file;

const PAIRINGS: &str = "pairings";
const LOCK: &str = "sleeve-lock";
/// Managers that one sleeve is paired with, at most.
pub const MANAGERS_MAX: usize = 64;
/// Pairings with one manager that wait for their confirmation, at most.
const PENDING_MAX: usize = 4;
/// Longest file of a manager, in bytes: its pairings' certificates and what is about them.
const FILE_MAX: u64 = 32 * 1024;
/// Longest id of a manager, as a certificate can hold it.
const ID_MAX: usize = 64;

/// A manager that a sleeve is paired with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedManager {
    /// The id in its certificate.
    pub id: String,
    /// The number of that certificate.
    pub number: CertificateNumber,
    /// The suite that the pair speaks.
    pub suite: Suite,
    /// When the user said yes.
    pub paired_at: UnixTime,
    /// The manager has not confirmed yet: its last message got lost, and the next connect shows
    /// whether it has this sleeve on its list.
    pub pending: bool,
}

/// One pairing, in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    /// Each pairing with the same manager has another one; the later the higher.
    number: u32,
    #[serde(with = "suite_name")]
    suite: Suite,
    certificate: String,
    #[serde(with = "hex_secret")]
    factor: Secret,
    /// Milliseconds.
    paired_at: u64,
}

/// A manager's file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    manager: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirmed: Option<Entry>,
    /// The oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending: Vec<Entry>,
}

impl Kept {
    fn empty(manager: &str) -> Self {
        Self { manager: manager.to_owned(), confirmed: None, pending: Vec::new() }
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.confirmed.iter().chain(&self.pending)
    }
}

/// A pairing on the disk, and its number there.
pub(super) struct KeptPairing {
    pub(super) number: u32,
    pub(super) pairing: Pairing,
}

/// The pairings of a sleeve's directory.
#[derive(Debug, Clone)]
pub(super) struct Pairings(PathBuf);

impl Pairings {
    pub(super) fn of(dir: &Path) -> Self {
        Self(dir.join(PAIRINGS))
    }

    /// Keeps other programs away until it is dropped.
    pub(super) fn lock(dir: &Path) -> Result<File, SleeveError> {
        let path = dir.join(LOCK);
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(io_error(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(SleeveError::Busy),
            Err(fs::TryLockError::Error(error)) => Err(io_error(&path)(error)),
        }
    }

    /// Removes what a program left half written that was cut off: it may hold a factor.
    pub(super) fn sweep(&self) -> Result<(), SleeveError> {
        for path in self.files()? {
            if path.extension().is_some_and(|extension| extension == "new") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>, SleeveError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error(&self.0)(error)),
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<_>>().map_err(io_error(&self.0))
    }

    /// All managers, by their ids.
    pub(super) fn managers(&self) -> Result<Vec<PairedManager>, SleeveError> {
        let mut managers = Vec::new();
        for path in self.files()? {
            // What a replacement left behind that was cut off is no file of ours.
            if path.extension().is_some_and(|extension| extension == "json") {
                managers.extend(shown(&path, &load(&path)?)?);
            }
        }
        managers.sort_by(|one: &PairedManager, other| one.id.cmp(&other.id));
        Ok(managers)
    }

    /// The pairings with this manager, the latest pending one first and the confirmed one last.
    pub(super) fn find(&self, manager: &str) -> Result<Vec<KeptPairing>, SleeveError> {
        let path = self.path(manager)?;
        if !path.exists() {
            return Ok(Vec::new());
        }
        let kept = load(&path)?;
        let paired = |entry: &Entry| {
            let pairing = Pairing {
                peer: kept.manager.clone(),
                certificate: certificate(&path, entry)?,
                factor: Secret::copied_from(entry.factor.expose()),
                suite: entry.suite,
            };
            Ok(KeptPairing { number: entry.number, pairing })
        };
        kept.entries().rev().map(paired).collect()
    }

    /// Keeps a pairing as pending; gives its number. Former ones with the same manager stay: which
    /// of them it has shows with the next connect.
    pub(super) fn keep_pending(
        &self,
        pairing: &Pairing,
        now: UnixTime,
    ) -> Result<u32, SleeveError> {
        let path = self.path(&pairing.peer)?;
        let known = path.exists();
        if !known && self.managers()?.len() >= MANAGERS_MAX {
            return Err(SleeveError::TooManyManagers);
        }
        let mut kept = if known { load(&path)? } else { Kept::empty(&pairing.peer) };
        if kept.pending.len() >= PENDING_MAX {
            return Err(SleeveError::TooManyPending(pairing.peer.clone()));
        }
        let number = kept.entries().map(|entry| entry.number).max().map_or(0, |last| last + 1);
        kept.pending.push(Entry {
            number,
            suite: pairing.suite,
            certificate: BASE64.encode(&pairing.certificate),
            factor: Secret::copied_from(pairing.factor.expose()),
            paired_at: now.as_millis(),
        });
        self.save(&path, &kept)?;
        Ok(number)
    }

    /// The manager has shown that it has this pairing: the others are forgotten. One that began so
    /// lately that its proof may still be on its way stays pending: whoever is on that way could
    /// let it arrive after this.
    pub(super) fn confirm(
        &self,
        manager: &str,
        number: u32,
        now: UnixTime,
    ) -> Result<(), SleeveError> {
        let path = self.path(manager)?;
        if !path.exists() {
            return Err(SleeveError::UnknownManager(manager.to_owned()));
        }
        let mut kept = load(&path)?;
        let before = kept.pending.len();
        if let Some(at) = kept.pending.iter().position(|entry| entry.number == number) {
            kept.confirmed = Some(kept.pending.remove(at));
        }
        let on_its_way =
            |entry: &Entry| now.since(UnixTime::from_millis(entry.paired_at)) < PAIRING_TIMEOUT;
        kept.pending.retain(on_its_way);
        if kept.pending.len() == before { Ok(()) } else { self.save(&path, &kept) }
    }

    /// Forgets a manager; whether there was one.
    pub(super) fn forget(&self, manager: &str) -> Result<bool, SleeveError> {
        let path = self.path(manager)?;
        let known = path.exists();
        if known {
            remove(&path)?;
        }
        Ok(known)
    }

    /// Ids are certified, but a file's name takes no chances.
    fn path(&self, manager: &str) -> Result<PathBuf, SleeveError> {
        if manager.is_empty() || manager.len() > ID_MAX {
            return Err(SleeveError::UnknownManager(manager.to_owned()));
        }
        Ok(self.0.join(format!("{}.json", HEXLOWER.encode(manager.as_bytes()))))
    }

    fn save(&self, path: &Path, kept: &Kept) -> Result<(), SleeveError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(io_error(&self.0))?;
        // Each time: a program that ended in between has made it, and no more.
        sync_dir_of(&self.0)?;
        // To its final size: growing would leave copies of the factor.
        let room = usize::try_from(FILE_MAX).unwrap_or(usize::MAX);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *bytes, kept)
            .map_err(|error| damaged(path, &error.to_string()))?;
        private_file::replace(path, &bytes).map_err(io_error(path))
    }
}

fn load(path: &Path) -> Result<Kept, SleeveError> {
    let room = usize::try_from(FILE_MAX).unwrap_or(usize::MAX) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    read.map_err(io_error(path))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(damaged(path, "the file is larger than any of ours"));
    }
    let kept: Kept =
        serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    let name = format!("{}.json", HEXLOWER.encode(kept.manager.as_bytes()));
    if path.file_name().is_none_or(|found| found != name.as_str()) {
        return Err(damaged(path, "it is of another manager"));
    }
    Ok(kept)
}

fn remove(path: &Path) -> Result<(), SleeveError> {
    fs::remove_file(path).map_err(io_error(path))?;
    sync_dir_of(path)
}

/// What was made or removed there is so on the disk, too.
fn sync_dir_of(path: &Path) -> Result<(), SleeveError> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io_error(parent))
}

/// A manager as it is listed: its confirmed pairing, or else the latest pending one.
fn shown(path: &Path, kept: &Kept) -> Result<Option<PairedManager>, SleeveError> {
    let pending = kept.confirmed.is_none();
    let entry = kept.confirmed.as_ref().or(kept.pending.last());
    let Some(entry) = entry else { return Ok(None) };
    let number = countersign_pki::number(&certificate(path, entry)?);
    Ok(Some(PairedManager {
        id: kept.manager.clone(),
        number: number.map_err(|error| damaged(path, &error.to_string()))?,
        suite: entry.suite,
        paired_at: UnixTime::from_millis(entry.paired_at),
        pending,
    }))
}

fn certificate(path: &Path, entry: &Entry) -> Result<Vec<u8>, SleeveError> {
    let decoded = BASE64.decode(entry.certificate.as_bytes());
    decoded.map_err(|error| damaged(path, &error.to_string()))
}

fn damaged(path: &Path, detail: &str) -> SleeveError {
    SleeveError::Damaged { path: path.to_owned(), detail: detail.to_owned() }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> SleeveError + '_ {
    |source| SleeveError::Io { path: path.to_owned(), source }
}

/// A secret as hex digits, in buffers that are wiped.
mod hex_secret {
    use countersign_crypto::Secret;
    use data_encoding::HEXLOWER;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(secret: &Secret, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(HEXLOWER.encode(secret.expose())))
    }

    /// Borrowed from the input, which its owner wipes.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
        let text = <&str>::deserialize(from)?;
        HEXLOWER.decode(text.as_bytes()).map(Secret::new).map_err(|_| D::Error::custom("no secret"))
    }
}
