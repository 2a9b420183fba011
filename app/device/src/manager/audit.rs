//! The audit on the disk (A8): `audit.jsonl`, and `audit-head.json` with the manager's signature
//! over its end.
//!
//! A line is on the disk before what it tells of is answered, but for what only read a card: such
//! a line is written before, so that it outlives this process, and is on the disk, which takes
//! longer than everything else, with the next one or the head. The head follows soon, and nobody
//! waits for it: a crash leaves lines that are chained and not signed yet, or half a line, of which
//! nothing was told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Provider, SecureElement, UnixTime, VerifyingKey};
use countersign_wallet::audit::{AuditError, Broken, Entry, Head, Trail, Verified, verify};

use super::ManagerError;
use super::files;
use crate::key::files::Files;

const LINES: &str = "audit.jsonl";
const HEAD: &str = "audit-head.json";
/// Longest audit, in bytes: a hundred thousand payments or so. It is read whole when the manager
/// starts.
pub const AUDIT_MAX: u64 = 256 * 1024 * 1024;

/// The audit of a manager that serves.
pub(super) struct AuditLog {
    files: Files,
    path: PathBuf,
    file: Arc<File>,
    len: u64,
    trail: Trail,
    key: Arc<dyn SecureElement>,
    /// A line may or may not be on the disk: nothing is written after it.
    failed: bool,
    /// The number of the last line that is on the disk for certain.
    stored: u64,
    /// The number of the last line that a head covers.
    signed: u64,
}

impl AuditLog {
    /// Goes on with the audit in this directory, after checking it. What a crash left of a line is
    /// cut off; lines that no head covers, as a crash or a forger leaves them, stay told of.
    ///
    /// There is a head from the beginning, so one that is gone was taken away.
    pub(super) fn open(
        dir: &Path,
        provider: &Provider,
        manager: &str,
        key: Arc<dyn SecureElement>,
        (now, rng): (UnixTime, &mut dyn CryptoRng),
    ) -> Result<Self, ManagerError> {
        let (files, path) = (Files::new(dir), dir.join(LINES));
        let (text, torn) = whole_lines(&path)?;
        if torn > 0 {
            tracing::warn!(bytes = torn, "a line of the audit was cut off by a crash");
        }
        let trail = Trail::resume(provider, manager, text.lines())?;
        let uncovered = match head_of(&files)? {
            Some(head) => {
                let public = verifying_key(provider, &*key)?;
                verify(provider, text.lines(), &head, &*public)?.uncovered
            }
            None if trail.number() > 0 => {
                return Err(Broken { line: 0, error: AuditError::Head }.into());
            }
            None => {
                files::write(&files, HEAD, &trail.head(&*key, rng)?)?;
                0
            }
        };
        let len = text.len() as u64;
        let file = opened(&path, len).map_err(|source| io_error(&path, source))?;
        let (stored, signed) = (trail.number(), trail.number() - uncovered);
        let mut log = Self {
            files,
            path,
            file: Arc::new(file),
            len,
            trail,
            key,
            failed: false,
            stored,
            signed,
        };
        if uncovered > 0 {
            let outcome = Some(format!("uncovered {uncovered}"));
            log.append(now, Entry { outcome, ..Entry::new("resume") })?;
        }
        Ok(log)
    }

    /// Writes an entry; it is on the disk when this returns, and all before it. Blocking.
    pub(super) fn append(&mut self, now: UnixTime, entry: Entry) -> Result<(), ManagerError> {
        self.write(now, entry)?;
        let synced = self.file.sync_data();
        self.failed = synced.is_err();
        synced.map_err(|source| io_error(&self.path, source))?;
        self.stored = self.trail.number();
        Ok(())
    }

    /// Writes an entry that may be lost with the power until a head covers it.
    pub(super) fn write(&mut self, now: UnixTime, entry: Entry) -> Result<(), ManagerError> {
        if self.failed {
            return Err(io_error(&self.path, io::Error::other("a line could not be written")));
        }
        if self.len >= AUDIT_MAX {
            return Err(ManagerError::AuditFull(self.path.clone()));
        }
        let line = self.trail.append(now, entry)?;
        let written = (&*self.file).write_all(line.as_bytes());
        self.failed = written.is_err();
        written.map_err(|source| io_error(&self.path, source))?;
        self.len += line.len() as u64;
        Ok(())
    }

    /// What is to be signed and stored as the head, if that is behind.
    pub(super) fn unsigned(&self) -> Option<Unsigned> {
        if self.failed || self.signed == self.trail.number() {
            return None;
        }
        let (files, file, key) = (self.files.clone(), self.file.clone(), self.key.clone());
        let file = (self.stored < self.trail.number()).then_some(file);
        Some(Unsigned { files, path: self.path.clone(), file, trail: self.trail.clone(), key })
    }

    /// The head covers so many lines.
    pub(super) fn is_signed(&mut self, lines: u64) {
        self.signed = lines;
        self.stored = self.stored.max(lines);
    }

    /// How many of its lines the power's end could take.
    #[cfg(test)]
    pub(super) fn at_risk(&self) -> u64 {
        self.trail.number() - self.stored
    }

    /// What was written may not be on the disk: the next line cannot be written.
    pub(super) const fn fail(&mut self) {
        self.failed = true;
    }
}

/// An end of the audit that no head covers yet: lines go on being written while it is signed.
pub(super) struct Unsigned {
    files: Files,
    path: PathBuf,
    /// Where there are lines in it that are not on the disk yet.
    file: Option<Arc<File>>,
    trail: Trail,
    key: Arc<dyn SecureElement>,
}

impl Unsigned {
    /// Has the lines on the disk: a head that covers one that is not there tells of a forger.
    /// Blocking.
    pub(super) fn sync(&self) -> Result<(), ManagerError> {
        let Some(file) = &self.file else { return Ok(()) };
        file.sync_data().map_err(|source| io_error(&self.path, source))
    }

    /// Signs it and stores the head; how many lines that covers. One at a time, and after
    /// [`Self::sync`]. Blocking.
    pub(super) fn store_head(&self, rng: &mut dyn CryptoRng) -> Result<u64, ManagerError> {
        let head = self.trail.head(&*self.key, rng)?;
        files::write(&self.files, HEAD, &head)?;
        Ok(head.number)
    }
}

/// Verifies the audit in a directory against its head, or one that was kept elsewhere.
pub(super) fn verified(
    dir: &Path,
    provider: &Provider,
    key: &dyn SecureElement,
    kept: Option<&Path>,
) -> Result<Verified, ManagerError> {
    let files = Files::new(dir);
    let (text, _torn) = whole_lines(&dir.join(LINES))?;
    let head = match kept {
        Some(path) => {
            let text = fs::read(path).map_err(|source| io_error(path, source))?;
            let parsed = serde_json::from_slice(&text);
            Some(parsed.map_err(|error| ManagerError::Damaged {
                path: path.to_owned(),
                detail: error.to_string(),
            })?)
        }
        None => head_of(&files)?,
    };
    let public = verifying_key(provider, key)?;
    match head {
        Some(head) => Ok(verify(provider, text.lines(), &head, &*public)?),
        None if text.is_empty() => Ok(Verified { covered: 0, uncovered: 0 }),
        None => Err(ManagerError::Audit(Broken { line: 0, error: AuditError::Head })),
    }
}

fn verifying_key(
    provider: &Provider,
    key: &dyn SecureElement,
) -> Result<Arc<dyn VerifyingKey>, ManagerError> {
    let public = provider.signature.public_key(key.public_key());
    public.map_err(|_| ManagerError::Trail(AuditError::Signing))
}

fn head_of(files: &Files) -> Result<Option<Head>, ManagerError> {
    if files.has(HEAD) { files::read(files, HEAD).map(Some) } else { Ok(None) }
}

/// The whole lines of the audit, and how many bytes of a cut one follow.
fn whole_lines(path: &Path) -> Result<(String, u64), ManagerError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        // A line may begin below the bound and end above it.
        file.take(2 * AUDIT_MAX).read_to_string(&mut text)
    });
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((text, 0)),
        Err(source) => return Err(io_error(path, source)),
        Ok(_) => {}
    }
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let torn = (text.len() - whole) as u64;
    text.truncate(whole);
    Ok((text, torn))
}

/// The file, to append to, without what comes after `len` bytes.
fn opened(path: &Path, len: u64) -> io::Result<File> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    file.set_len(len)?;
    file.sync_all()?;
    let dir = path.parent().unwrap_or(path);
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn io_error(path: &Path, source: io::Error) -> ManagerError {
    ManagerError::Io { path: path.to_owned(), source }
}
