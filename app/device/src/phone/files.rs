//! A phone's directory. The token lies in a file that only its owner may read; a real phone keeps
//! it in its keystore.

use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{PhoneError, PhoneSettings};
use crate::private_file;

const SETTINGS: &str = "phone.toml";
const CA: &str = "ca.pem";
const TOKEN: &str = "token";
const FILE_MAX: u64 = 64 * 1024;

pub(super) struct PhoneFiles(PathBuf);

impl PhoneFiles {
    /// Makes the directory, private to its owner. A phone that is in it stays.
    pub(super) fn make(path: &Path) -> Result<Self, PhoneError> {
        if path.join(SETTINGS).exists() {
            return Err(PhoneError::Taken(path.to_owned()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(file_error(path))?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn store(
        &self,
        settings: &PhoneSettings,
        ca: &str,
        token: &str,
    ) -> Result<(), PhoneError> {
        let text = toml::to_string(settings).expect("short strings");
        self.write(CA, ca.as_bytes())?;
        self.write(TOKEN, token.as_bytes())?;
        self.write(SETTINGS, text.as_bytes()) // last: its presence says "done"
    }

    /// Settings, CA and token.
    pub(super) fn open(
        path: &Path,
    ) -> Result<(PhoneSettings, String, Zeroizing<String>), PhoneError> {
        if !path.join(SETTINGS).exists() {
            return Err(PhoneError::NotOurs(path.to_owned()));
        }
        let files = Self(path.to_owned());
        let settings = toml::from_str(&files.text(SETTINGS)?).map_err(|error| {
            PhoneError::File { path: path.join(SETTINGS), detail: error.to_string() }
        })?;
        Ok((settings, files.text(CA)?, Zeroizing::new(files.text(TOKEN)?)))
    }

    fn text(&self, name: &str) -> Result<String, PhoneError> {
        let path = self.0.join(name);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text));
        read.map_err(file_error(&path))?;
        Ok(text)
    }

    /// Replaces a file at once. Follows no link.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PhoneError> {
        let path = self.0.join(name);
        private_file::replace(&path, bytes).map_err(file_error(&path))
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> PhoneError + '_ {
    |error| PhoneError::File { path: path.to_owned(), detail: error.to_string() }
}
