//! The small files of a manager's directory: JSON, each replaced at once, read into memory that is
//! wiped.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::ManagerError;
use crate::key::files::Files;

/// Bytes of room for a file that is written: growing would leave copies of what it holds.
const ROOM: usize = 64 * 1024;

/// One directory with files of one kind, each by its id: one of those that a certificate, or the
/// settings, may have.
#[derive(Debug, Clone)]
pub(super) struct Shelf(Files);

impl Shelf {
    /// The shelf in this directory, which is made if it is not there.
    pub(super) fn open(dir: &Path) -> Result<Self, ManagerError> {
        let files = Files::new(dir);
        files.make_dir()?;
        Ok(Self(files))
    }

    /// The ids that there are files of.
    pub(super) fn ids(&self) -> Result<Vec<String>, ManagerError> {
        let path = self.0.path();
        let io = |source| ManagerError::Io { path: path.clone(), source };
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            // What a replacement left behind that was cut off is no file of ours.
            ids.extend(
                name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned),
            );
        }
        ids.sort();
        Ok(ids)
    }

    /// A file's content; none if there is no such file.
    pub(super) fn load<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, ManagerError> {
        let name = name_of(id);
        if !self.0.has(&name) {
            return Ok(None);
        }
        read(&self.0, &name).map(Some)
    }

    /// A file's content, which may borrow from the bytes while it is parsed: as secrets do.
    pub(super) fn load_with<T>(
        &self,
        id: &str,
        parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
    ) -> Result<T, ManagerError> {
        let name = name_of(id);
        let bytes = Zeroizing::new(self.0.bytes(&name)?);
        parse(&bytes).map_err(|error| self.0.damaged(&name, error.to_string()).into())
    }

    /// Replaces a file; it is on the disk before this returns.
    pub(super) fn save(&self, id: &str, content: &impl Serialize) -> Result<(), ManagerError> {
        write(&self.0, &name_of(id), content)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, id: &str) -> Result<(), ManagerError> {
        let path = self.0.path().join(name_of(id));
        let removed = std::fs::remove_file(&path).and_then(|()| {
            let dir = std::fs::File::open(self.0.path())?;
            dir.sync_all()
        });
        match removed {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(ManagerError::Io { path, source })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn damaged(&self, id: &str, detail: &str) -> ManagerError {
        self.0.damaged(&name_of(id), detail.to_owned()).into()
    }
}

fn name_of(id: &str) -> String {
    format!("{id}.json")
}

/// A JSON file's content.
pub(super) fn read<T: DeserializeOwned>(files: &Files, name: &str) -> Result<T, ManagerError> {
    let bytes = Zeroizing::new(files.bytes(name)?);
    let parsed = serde_json::from_slice(&bytes);
    parsed.map_err(|error| files.damaged(name, error.to_string()).into())
}

/// Replaces a JSON file.
pub(super) fn write(
    files: &Files,
    name: &str,
    content: &impl Serialize,
) -> Result<(), ManagerError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *bytes, content)
        .map_err(|error| files.damaged(name, error.to_string()))?;
    Ok(files.write(name, &bytes)?)
}
