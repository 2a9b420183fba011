//! Where a terminal's keys live: sealed files that stand for a chip, or a PKCS#11 token.
//!
//! With files the key that seals them lies beside them, private to the owner: who can read that can
//! read the terminal's keys. A real terminal has a chip, and says so with `pkcs11`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{AEAD_KEY_LEN, AEAD_NONCE_LEN, CryptoRng, Provider, Secret, rust_crypto};
use countersign_hsm::{FileVault, StorageError, Vault, VaultStorage};
use countersign_net::SystemRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::PosError;

/// Associated data of every sealed key, before its name.
const LABEL: &[u8] = b"countersign terminal key, format 1\0";
const DIR: &str = "element";
const SEALING_KEY: &str = "sealing-key";
const SUFFIX: &str = ".key";
/// Longest sealed key, in bytes.
const SEALED_MAX: u64 = 16 * 1024;

/// Which secure element a terminal has.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Element {
    /// Sealed files in the terminal's directory, in the place of a chip.
    #[default]
    File,
    /// A PKCS#11 token.
    #[serde(rename_all = "kebab-case")]
    Pkcs11 {
        /// The module's library.
        module: PathBuf,
        /// The token's label.
        token: String,
        /// A file with the user PIN.
        pin_file: PathBuf,
    },
}

impl Element {
    /// Opens it; `dir` is the terminal's directory.
    ///
    /// # Errors
    /// [`PosError::Io`], [`PosError::Element`]; [`PosError::NoPkcs11`] in a build without it.
    pub(super) fn open(&self, dir: &Path) -> Result<Arc<dyn Vault>, PosError> {
        match self {
            Self::File => {
                let files = ElementFiles::open(&dir.join(DIR), &mut SystemRng::default())?;
                Ok(Arc::new(FileVault::new(files, SystemRng::default())))
            }
            Self::Pkcs11 { module, token, pin_file } => pkcs11(module, token, pin_file),
        }
    }
}

#[cfg(feature = "pkcs11")]
fn pkcs11(module: &Path, token: &str, pin_file: &Path) -> Result<Arc<dyn Vault>, PosError> {
    use countersign_hsm::{Pkcs11Config, Pkcs11Vault, TokenName};
    let pin = Zeroizing::new(fs::read(pin_file).map_err(PosError::io(pin_file))?);
    let config = Pkcs11Config {
        module: module.to_owned(),
        token: TokenName::Label(token.to_owned()),
        pin: Secret::copied_from(pin.trim_ascii_end()),
    };
    Ok(Arc::new(Pkcs11Vault::open(config, SystemRng::default())?))
}

#[cfg(not(feature = "pkcs11"))]
fn pkcs11(_module: &Path, _token: &str, _pin_file: &Path) -> Result<Arc<dyn Vault>, PosError> {
    Err(PosError::NoPkcs11)
}

/// `element/` in a terminal's directory: each key a file, sealed and bound to its name.
pub(super) struct ElementFiles {
    dir: PathBuf,
    key: Secret,
    provider: Provider,
}

impl ElementFiles {
    /// Opens or makes it.
    fn open(dir: &Path, rng: &mut dyn CryptoRng) -> Result<Self, PosError> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(PosError::io(dir)(error));
            }
            _ => {}
        }
        let path = dir.join(SEALING_KEY);
        let fresh = Secret::try_filled(AEAD_KEY_LEN, |bytes| {
            rng.fill_bytes(bytes);
            Ok::<_, io::Error>(())
        });
        let made = fresh.and_then(|key| match publish(dir, &path, key.expose()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        made.map_err(PosError::io(&path))?;
        let key = read(&path).map_err(PosError::io(&path))?.unwrap_or_default();
        if key.len() != AEAD_KEY_LEN {
            return Err(PosError::State { path, detail: "it is no key" });
        }
        let key = Secret::copied_from(&key);
        Ok(Self { dir: dir.to_owned(), key, provider: rust_crypto::provider() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SUFFIX}"))
    }
}

impl VaultStorage for ElementFiles {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let label = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            names.extend(label.map(str::to_owned));
        }
        Ok(names)
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
        let Some(sealed) = read(&self.path(name))? else { return Ok(None) };
        let open = || {
            let (nonce, sealed) = sealed.split_first_chunk::<AEAD_NONCE_LEN>()?;
            let mut plain = Zeroizing::new(sealed.to_vec());
            let key = self.provider.aead.key(&self.key).ok()?;
            key.open(nonce, &[LABEL, name.as_bytes()].concat(), &mut plain).ok()?;
            Some(Secret::copied_from(&plain))
        };
        open().map(Some).ok_or(StorageError::Damaged)
    }

    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError> {
        let mut nonce = [0; AEAD_NONCE_LEN];
        rand_fill(&mut nonce);
        let mut sealed = Zeroizing::new(value.expose().to_vec());
        let failed = |_| StorageError::Io(io::Error::other("the key could not be sealed"));
        let key = self.provider.aead.key(&self.key).map_err(failed)?;
        key.seal(&nonce, &[LABEL, name.as_bytes()].concat(), &mut sealed).map_err(failed)?;
        let path = self.path(name);
        match publish(&self.dir, &path, &[&nonce[..], &sealed].concat()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(StorageError::Taken),
            other => Ok(other?),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(File::open(&self.dir)?.sync_all()?),
        }
    }
}

fn rand_fill(bytes: &mut [u8]) {
    let rng: &mut dyn CryptoRng = &mut SystemRng::default();
    rng.fill_bytes(bytes);
}

fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::new());
    match File::open(path).and_then(|file| file.take(SEALED_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a new file, whole and durable, or nothing; fails if there is one.
fn publish(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut random = [0; 8];
    rand_fill(&mut random);
    let new = path.with_extension(format!("{:016x}.new", u64::from_be_bytes(random)));
    let written = (|| {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&new, path) // fails if it is there
    })();
    let _absent = fs::remove_file(&new);
    written?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::copied_from(text.as_bytes())
    }

    #[test]
    fn keys_are_sealed_bound_to_their_names_and_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("element");
        let files = ElementFiles::open(&place, &mut SystemRng::default()).unwrap();
        files.create("one", &secret("first value")).unwrap();
        files.create("two", &secret("second value")).unwrap();
        let taken = files.create("one", &secret("another"));
        assert!(matches!(taken, Err(StorageError::Taken)));

        let files = ElementFiles::open(&place, &mut SystemRng::default()).unwrap();
        assert_eq!(files.load("one").unwrap().unwrap().expose(), b"first value");
        assert!(files.load("three").unwrap().is_none());
        let mut names = files.names().unwrap();
        names.sort();
        assert_eq!(names, ["one", "two"]);
        let raw = fs::read(place.join("one.key")).unwrap();
        assert!(!raw.windows(5).any(|part| part == b"first"), "nothing in the clear");

        fs::copy(place.join("one.key"), place.join("two.key")).unwrap();
        assert!(matches!(files.load("two"), Err(StorageError::Damaged)), "another key's place");
        let mut altered = raw.clone();
        altered[20] ^= 1;
        fs::write(place.join("one.key"), altered).unwrap();
        assert!(matches!(files.load("one"), Err(StorageError::Damaged)));
        files.delete("one").unwrap();
        files.delete("one").unwrap();
        assert!(files.load("one").unwrap().is_none());
    }
}
