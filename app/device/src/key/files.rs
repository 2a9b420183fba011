//! Small files of a directory that only its owner may read, each replaced at once.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::KeyError;
use crate::private_file;

const LOCK: &str = "lock";
const FILE_MAX: u64 = 64 * 1024;

/// A directory's files.
#[derive(Debug, Clone)]
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// Makes the directory, private to its owner, if it is not there.
    pub(crate) fn make_dir(&self) -> Result<(), KeyError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|source| KeyError::Io { path: self.0.clone(), source })
    }

    /// Whether there is anything in the directory but the lock and what [`Self::write`] leaves of
    /// the files `begun` when it is cut off.
    pub(crate) fn occupied(&self, begun: &[&str]) -> bool {
        let ours = |found: &Path| {
            let mut files = begun.iter().map(Path::new);
            found == Path::new(LOCK)
                || files.any(|file| found == file || found == file.with_extension("new"))
        };
        let entries = fs::read_dir(&self.0).into_iter().flatten();
        let mut names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        names.any(|name| !name.is_ok_and(|name| ours(Path::new(&name))))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// Keeps other programs away until it is dropped.
    pub(crate) fn lock(&self) -> Result<File, KeyError> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.0.join(LOCK)).map_err(self.io(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(KeyError::Busy),
            Err(fs::TryLockError::Error(error)) => Err(self.io(LOCK)(error)),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<String, KeyError> {
        let bytes = self.bytes(name)?;
        String::from_utf8(bytes).map_err(|_| self.damaged(name, "not text".to_owned()))
    }

    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<u8>, KeyError> {
        let mut bytes = Vec::new();
        let mut read = || {
            let file = File::open(self.0.join(name))?;
            // Once and for all: what a vector leaves behind when it grows is not wiped.
            let len = file.metadata()?.len().min(FILE_MAX);
            bytes.reserve_exact(usize::try_from(len).unwrap_or(0) + 1);
            file.take(FILE_MAX + 1).read_to_end(&mut bytes)
        };
        read().map_err(self.io(name))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(self.damaged(name, "the file is larger than any of ours".to_owned()));
        }
        Ok(bytes)
    }

    /// The certificate in a PEM file.
    pub(crate) fn pem(&self, name: &str) -> Result<Vec<u8>, KeyError> {
        let parsed = pem::parse(self.text(name)?);
        let pem = parsed.map_err(|error| self.damaged(name, error.to_string()))?;
        if pem.tag() != "CERTIFICATE" {
            return Err(self.damaged(name, "not a certificate".to_owned()));
        }
        Ok(pem.into_contents())
    }

    /// Replaces a file at once: a crash leaves the old one or the new one. Follows no link.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
        private_file::replace(&self.0.join(name), bytes).map_err(self.io(name))
    }

    pub(crate) fn damaged(&self, name: &str, detail: String) -> KeyError {
        KeyError::Damaged { path: self.0.join(name), detail }
    }

    fn io(&self, name: &str) -> impl FnOnce(io::Error) -> KeyError + use<> {
        let path = self.0.join(name);
        move |source| KeyError::Io { path, source }
    }
}
