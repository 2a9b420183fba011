//! Where the keys of injection live: sealed files of the directory, or a PKCS#11 token.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use countersign_crypto::{CryptoRng, Secret};
use countersign_hsm::{
    FileVault, Pkcs11Config, StorageError, TokenName, Vault, VaultStorage, open_token,
};
use countersign_net::SystemRng;

use super::DataError;
use super::files::{make_dir, read_bytes, sync_dir, write_new};
use crate::config::{Keys as KeysConfig, VaultAt};
use crate::seal::Sealer;

/// The files' ending.
const SEALED: &str = ".sealed";
/// What a name is prefixed with when it is bound to the sealed bytes: no file of `keys/` opens as
/// one of these, nor the other way round.
const BOUND: &str = "vault/";
/// Random bytes in the name of a file that is being written.
const SUFFIX_BYTES: usize = 8;

/// `keys/vault/`: one sealed file per key. The directory is made when the first key is.
pub(super) struct VaultFiles {
    dir: PathBuf,
    sealer: Arc<Sealer>,
    rng: Mutex<SystemRng>,
}

impl VaultFiles {
    pub(super) fn new(dir: PathBuf, sealer: Arc<Sealer>) -> Self {
        Self { dir, sealer, rng: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SEALED}"))
    }

    /// A name beside the final ones that nobody else has at this moment.
    fn building(&self, name: &str, rng: &mut dyn CryptoRng) -> PathBuf {
        let mut random = [0; SUFFIX_BYTES];
        rng.fill_bytes(&mut random);
        self.dir.join(format!("{name}.{}.new", data_encoding::HEXLOWER.encode(&random)))
    }
}

fn failed(error: DataError) -> StorageError {
    match error {
        DataError::Io { source, .. } => StorageError::Io(source),
        other => StorageError::Io(io::Error::other(other.to_string())),
    }
}

impl VaultStorage for VaultFiles {
    fn names(&self) -> Result<Vec<String>, StorageError> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let name = name.to_str().and_then(|name| name.strip_suffix(SEALED));
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }

    fn load(&self, name: &str) -> Result<Option<Secret>, StorageError> {
        match read_bytes(&self.path(name)) {
            Err(DataError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(failed(error)),
            Ok(sealed) => {
                let opened = self.sealer.open(&format!("{BOUND}{name}"), &sealed);
                opened.map(Some).map_err(|_| StorageError::Damaged)
            }
        }
    }

    fn create(&self, name: &str, value: &Secret) -> Result<(), StorageError> {
        make_dir(&self.dir).map_err(failed)?;
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self
            .sealer
            .seal(&format!("{BOUND}{name}"), value, &mut *rng)
            .map_err(|error| StorageError::Io(io::Error::other(error.to_string())))?;
        let building = self.building(name, &mut *rng);
        drop(rng);
        write_new(&building, &sealed).map_err(failed)?;
        // A link is made at once and never over what is there.
        let linked = fs::hard_link(&building, self.path(name));
        let _gone = fs::remove_file(&building);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StorageError::Taken);
            }
            linked => linked?,
        }
        sync_dir(&self.dir).map_err(failed)
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        sync_dir(&self.dir).map_err(failed)
    }
}

/// The vault that `[keys]` in the configuration names.
pub(super) fn open(
    path: &Path,
    keys: &KeysConfig,
    sealer: Arc<Sealer>,
) -> Result<Arc<dyn Vault>, DataError> {
    match &keys.vault {
        VaultAt::File => {
            let files = VaultFiles::new(path.join("keys/vault"), sealer);
            Ok(Arc::new(FileVault::new(files, SystemRng::default())))
        }
        VaultAt::Token { module, token, pin_file } => {
            let pin = read_pin(&path.join(pin_file))?;
            let token = TokenName::Label(token.clone());
            let config = Pkcs11Config { module: module.clone(), token, pin };
            Ok(open_token(config, SystemRng::default())?)
        }
    }
}

/// The PIN, without the end of its line.
fn read_pin(path: &Path) -> Result<Secret, DataError> {
    let bytes = zeroize::Zeroizing::new(read_bytes(path)?);
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(Secret::copied_from(text.strip_suffix(b"\r").unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Derivation;
    use countersign_hsm::{HsmError, RsaUse};

    fn sealer(passphrase: &[u8]) -> Arc<Sealer> {
        let mut derivation = Derivation::fresh(&mut testkit::rng::seeded(1));
        derivation.make_cheap();
        Arc::new(derivation.derive(&Secret::copied_from(passphrase)).unwrap())
    }

    fn files(dir: &Path, passphrase: &[u8]) -> VaultFiles {
        VaultFiles::new(dir.join("vault"), sealer(passphrase))
    }

    #[test]
    fn keys_are_there_again_under_the_same_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let open = |passphrase| FileVault::new(files(dir.path(), passphrase), SystemRng::default());
        let vault = open(b"right");
        assert!(vault.labels().unwrap().is_empty(), "nothing is made by looking");
        let key = vault.rsa_generate("kdh.1", RsaUse::Sign, 2048).unwrap();
        let again = open(b"right").rsa_open("kdh.1").unwrap();
        assert_eq!(again.public_key(), key.public_key());
        let taken = vault.rsa_generate("kdh.1", RsaUse::Sign, 2048).err().unwrap();
        assert_eq!(taken.check(), "label-taken");
        let wrong = open(b"wrong").rsa_open("kdh.1").err().unwrap();
        assert!(matches!(wrong, HsmError::Damaged(_)), "{wrong}");
        vault.rsa_delete("kdh.1").unwrap();
        assert_eq!(open(b"right").rsa_open("kdh.1").err().unwrap().check(), "label-unknown");
    }

    #[test]
    fn a_sealed_key_opens_under_its_own_name_only_and_in_the_clear_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path(), b"p");
        let value = Secret::copied_from(b"the very secret value");
        files.create("a", &value).unwrap();
        let taken = files.create("a", &Secret::copied_from(b"other"));
        assert!(matches!(taken, Err(StorageError::Taken)));
        assert!(files.load("a").unwrap().unwrap().ct_eq(value.expose()), "unchanged");
        let bytes = fs::read(files.path("a")).unwrap();
        assert!(!bytes.windows(8).any(|part| value.expose().windows(8).any(|s| s == part)));
        fs::copy(files.path("a"), files.path("b")).unwrap();
        assert!(matches!(files.load("b"), Err(StorageError::Damaged)));
        // As a crash in mid-write leaves it: it is no key.
        fs::write(dir.path().join("vault/c.0011223344556677.new"), b"half").unwrap();
        assert_eq!(files.load("c").unwrap().map(|_| ()), None);
        let mut names = files.names().unwrap();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn two_that_make_one_name_at_once_do_not_overwrite_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let made = std::thread::scope(|scope| {
            let make = |n: u8| {
                let files = files(dir.path(), b"p");
                scope.spawn(move || files.create("key", &Secret::new(vec![n; 32])).map(|()| n))
            };
            let threads: Vec<_> = (0..8).map(make).collect();
            threads.into_iter().filter_map(|one| one.join().unwrap().ok()).collect::<Vec<_>>()
        });
        assert_eq!(made.len(), 1, "one wins: {made:?}");
        let kept = files(dir.path(), b"p").load("key").unwrap().unwrap();
        assert!(kept.ct_eq(&[made[0]; 32]));
    }
}
