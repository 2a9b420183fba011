//! Files of the data directory: private, bounded, and on the disk before they count.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::DataError;

/// Largest file of the directory that is read whole, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

pub(super) fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataError + '_ {
    |source| DataError::Io { path: path.to_owned(), source }
}

pub(super) fn is_occupied(path: &Path) -> Result<bool, DataError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
        Err(error) => Err(io_error(path)(error)),
    }
}

pub(super) fn make_dir(path: &Path) -> Result<(), DataError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path))
}

pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_error(path))
}

/// Replaces a file at once: a crash leaves the old one or the new one.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&new)(error)),
        _ => {}
    }
    write_new(&new, bytes)?;
    fs::rename(&new, path).map_err(io_error(path))?;
    sync_dir(parent(path))
}

/// The directory that a path is in.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

pub(super) fn sync_dir(path: &Path) -> Result<(), DataError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error(path))
}

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, DataError> {
    let read = || {
        let len = fs::metadata(path)?.len();
        if len > FILE_MAX {
            return Err(io::Error::other("the file is larger than any of ours"));
        }
        fs::read(path)
    };
    read().map_err(io_error(path))
}

pub(super) fn read_text(path: &Path) -> Result<String, DataError> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| DataError::Damaged { path: path.to_owned(), detail: "not text".into() })
}
