//! What a terminal keeps between contacts: whom it trusts and is bound to, and its keys, each as a
//! TR-31 D block under the element's storage key.
//!
//! One file, replaced at once, under a CMAC of the storage key: it cannot be altered without the
//! element. An older copy put back in its place is not noticed; a real chip keeps this inside.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use countersign_crypto::UnixTime;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tr31::CmacKey;

use super::{Element, PosError};
use crate::private_file;

const ELEMENT: &str = "element.toml";
const STATE: &str = "terminal-state";
const LOCK: &str = "terminal-lock";
/// Longest state file, in bytes.
const STATE_MAX: u64 = 1024 * 1024;
/// Before the state under the CMAC, so that nothing else under the storage key reads as one.
const LABEL: &[u8] = b"countersign terminal state, format 1\0";

/// Bytes as hexadecimal in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hex(pub(super) Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        HEXLOWER.decode(text.as_bytes()).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A key in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeldKey {
    /// The injection that brought it.
    pub(super) injection: String,
    /// TR-31 D under the storage key.
    pub(super) block: String,
    pub(super) kcv: Hex,
    /// When it was stored, in milliseconds.
    pub(super) at: u64,
}

/// A place for a key. The old key is used until the new one is confirmed (E8).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Slot {
    /// In use.
    pub(super) active: Option<HeldKey>,
    /// Stored and checked; waits for the server's confirmation.
    pub(super) pending: Option<HeldKey>,
    /// In use before the active one.
    pub(super) previous: Option<HeldKey>,
}

/// The state. Certificates are DER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Kept {
    /// The terminal's own RSA certificate.
    pub(super) krd: Hex,
    /// `Sub_CA_KRD`, which issued it.
    pub(super) ca_krd: Hex,
    /// The pinned root.
    pub(super) root: Hex,
    /// `CA_KDH`: of enrolment, then of the KDH that it is bound to.
    pub(super) ca_kdh: Hex,
    /// The receiver's state: the bound KDH, the outstanding nonce, the revocation lists seen.
    pub(super) receiver: Hex,
    pub(super) slots: BTreeMap<u8, Slot>,
}

/// The files of a terminal's state in its directory.
#[derive(Debug, Clone)]
pub(super) struct StateFiles {
    dir: PathBuf,
}

impl StateFiles {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Keeps other programs away until it is dropped.
    pub(super) fn lock(&self) -> Result<File, PosError> {
        let path = self.dir.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(PosError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(PosError::Busy),
            Err(fs::TryLockError::Error(error)) => Err(PosError::io(&path)(error)),
        }
    }

    /// Which element the terminal has; files if it was never said.
    pub(super) fn element(&self) -> Result<Element, PosError> {
        let path = self.dir.join(ELEMENT);
        let Some(text) = read(&path)? else { return Ok(Element::File) };
        let parsed = std::str::from_utf8(&text).ok().and_then(|text| toml::from_str(text).ok());
        parsed.ok_or(PosError::State { path, detail: "it does not name an element" })
    }

    pub(super) fn store_element(&self, element: &Element) -> Result<(), PosError> {
        let text = toml::to_string(element).map_err(|_| PosError::State {
            path: self.dir.join(ELEMENT),
            detail: "the element's path is not text",
        })?;
        self.replace(ELEMENT, text.as_bytes())
    }

    /// The state, or nothing before enrolment.
    pub(super) fn load(&self, key: &dyn CmacKey) -> Result<Option<Kept>, PosError> {
        let path = self.dir.join(STATE);
        let Some(bytes) = read(&path)? else { return Ok(None) };
        let state = |detail| PosError::State { path: path.clone(), detail };
        let text = std::str::from_utf8(&bytes).map_err(|_| state("it is not text"))?;
        let (mac, json) = text.split_once('\n').ok_or(state("it is cut short"))?;
        let mac = HEXLOWER.decode(mac.as_bytes()).map_err(|_| state("it has no check value"))?;
        if !own_mac(key, json)?.ct_eq(&mac) {
            return Err(state("it was altered, or belongs to another secure element"));
        }
        serde_json::from_str(json).map(Some).map_err(|_| state("it does not parse"))
    }

    /// Replaces the state at once: a crash leaves the old one or the new one.
    pub(super) fn store(&self, key: &dyn CmacKey, kept: &Kept) -> Result<(), PosError> {
        let json = serde_json::to_string(kept).expect("text, numbers and maps");
        let mac = HEXLOWER.encode(own_mac(key, &json)?.expose());
        self.replace(STATE, format!("{mac}\n{json}").as_bytes())
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), PosError> {
        let path = self.dir.join(name);
        private_file::replace(&path, bytes).map_err(PosError::io(&path))
    }
}

impl HeldKey {
    pub(super) fn new(injection: &str, block: String, kcv: &[u8], now: UnixTime) -> Self {
        let (injection, kcv) = (injection.to_owned(), Hex(kcv.to_vec()));
        Self { injection, block, kcv, at: now.as_millis() }
    }
}

fn own_mac(key: &dyn CmacKey, json: &str) -> Result<countersign_crypto::Secret, PosError> {
    let mac = key.cmac(&[LABEL, json.as_bytes()].concat());
    mac.map_err(|error| PosError::Own(error.to_string()))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, PosError> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(STATE_MAX).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(PosError::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use countersign_hsm::{FileVault, MemoryStorage, Vault};
    use countersign_net::SystemRng;

    use super::*;

    #[test]
    fn the_state_is_there_again_and_nobody_alters_it() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateFiles::new(dir.path());
        let vault = FileVault::new(MemoryStorage::new(), SystemRng::default());
        let key = vault.storage_key("storage").unwrap();
        assert!(files.load(&*key).unwrap().is_none());
        let held = HeldKey::new("inj_1", "D0112".to_owned(), &[1, 2, 3], UnixTime::from_secs(1));
        let slot = Slot { active: Some(held), ..Slot::default() };
        let bytes = |text: &str| Hex(text.as_bytes().to_vec());
        let kept = Kept {
            krd: bytes("krd"),
            ca_krd: bytes("ca-krd"),
            root: bytes("root"),
            ca_kdh: bytes("ca-kdh"),
            receiver: bytes("receiver"),
            slots: [(3, slot)].into(),
        };
        files.store(&*key, &kept).unwrap();
        assert_eq!(files.load(&*key).unwrap(), Some(kept));

        let other = vault.storage_key("other").unwrap();
        assert!(matches!(files.load(&*other), Err(PosError::State { .. })));
        let path = dir.path().join(STATE);
        let text = fs::read_to_string(&path).unwrap();
        for altered in [text.replace("inj_1", "inj_2"), text[..40].to_owned(), String::new()] {
            fs::write(&path, altered).unwrap();
            assert!(matches!(files.load(&*key), Err(PosError::State { .. })));
        }
    }

    #[test]
    fn one_program_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateFiles::new(dir.path());
        let held = files.lock().unwrap();
        assert!(matches!(files.lock(), Err(PosError::Busy)));
        drop(held);
        files.lock().unwrap();
    }

    #[test]
    fn the_element_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let files = StateFiles::new(dir.path());
        assert_eq!(files.element().unwrap(), Element::File);
        let token = Element::Pkcs11 {
            module: "/usr/lib/module.so".into(),
            token: "POS 1".to_owned(),
            pin_file: "pin".into(),
        };
        for element in [token, Element::File] {
            files.store_element(&element).unwrap();
            assert_eq!(files.element().unwrap(), element);
        }
        fs::write(dir.path().join(ELEMENT), "kind = \"chip\"\n").unwrap();
        assert!(matches!(files.element(), Err(PosError::State { .. })));
    }
}
