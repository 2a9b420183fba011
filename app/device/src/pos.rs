//! The POS terminal: keys are injected into it over the network (E1–E8).
//!
//! [`Pos::enroll`] makes its two keys (of the channel, and the RSA key that symmetric keys come to)
//! and has the server certify them, by a one-time code. [`Pos::update`] is the one button: bind if
//! needed, ask, check, store, report, use. What it trusts is pinned at enrolment.

mod contact;
mod element;
mod enrolment;
mod error;
mod kept;
mod tokens;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use countersign_crypto::{CryptoRng, UnixTime};
use countersign_hsm::{HsmError, RsaUse, Vault};
use tr31::{CmacKey, Header, Kbpk, Leniency, aws_lc};
use tr34::{Certificate, Party, RsaKey, krd};

pub use contact::{Discarded, InjectedKey, Updated};
pub use element::Element;
pub use enrolment::{Enrolment, RSA_BITS};
pub use error::{PosError, TOKEN_REFUSED};
use kept::{HeldKey, Kept, StateFiles};

use crate::device_dir::DeviceKind;
use crate::{DeviceDir, DeviceDirError};

/// Label of the terminal's RSA key in its element.
const KRD_LABEL: &str = "krd";
/// Label of the key that its keys and its state lie under.
const STORAGE_LABEL: &str = "storage";

/// Where a key in a slot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// In use.
    Active,
    /// Stored; used once the server has confirmed.
    Pending,
    /// In use before the active one.
    Previous,
}

impl KeyState {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Previous => "previous",
        }
    }
}

/// A key in a terminal, without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotKey {
    /// The place.
    pub slot: u8,
    /// Where it stands.
    pub state: KeyState,
    /// Key usage, as TR-31 writes it.
    pub usage: String,
    /// Algorithm, as TR-31 writes it.
    pub algorithm: char,
    /// Mode of use, as TR-31 writes it.
    pub mode: char,
    /// Exportability, as TR-31 writes it.
    pub exportability: char,
    /// Key check value.
    pub kcv: Vec<u8>,
    /// The injection that brought it.
    pub injection: String,
    /// When it was stored.
    pub at: UnixTime,
}

/// What a terminal is and whom it trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its serial number.
    pub serial: String,
    /// The server it was enrolled with.
    pub server_id: String,
    /// Its secure element.
    pub element: String,
    /// Issuer and serial number of its RSA certificate.
    pub krd: String,
    /// Until when that holds.
    pub krd_not_after: UnixTime,
    /// Issuer and serial number of the KDH it is bound to.
    pub kdh: Option<String>,
    /// The KDH's id in its certificate.
    pub kdh_id: Option<String>,
    /// Number of the newest revocation list that it has seen, hexadecimal.
    pub crl_seen: Option<String>,
    /// Whether a request awaits its answer.
    pub outstanding: bool,
}

/// A terminal, open for work: no other program is at its keys.
pub struct Pos {
    dir: DeviceDir,
    files: StateFiles,
    vault: Arc<dyn Vault>,
    key: Arc<dyn RsaKey>,
    storage: Arc<dyn CmacKey>,
    kept: Kept,
    certificate: Certificate,
    ca_krd: Certificate,
    root: Certificate,
    receiver: krd::State,
    _lock: File,
}

impl Pos {
    /// Opens an enrolled terminal.
    ///
    /// # Errors
    /// [`PosError`]; [`DeviceDirError::NotEnrolled`] in it before its enrolment has ended.
    pub fn open(path: &Path) -> Result<Self, PosError> {
        let dir = DeviceDir::open(path)?;
        dir.check_kind(DeviceKind::Terminal)?;
        let files = StateFiles::new(path);
        let lock = files.lock()?;
        let vault = files.element()?.open(path)?;
        Self::with(dir, files, vault, lock)
    }

    fn with(
        dir: DeviceDir,
        files: StateFiles,
        vault: Arc<dyn Vault>,
        lock: File,
    ) -> Result<Self, PosError> {
        let not_enrolled = || DeviceDirError::NotEnrolled(dir.path().to_owned());
        let storage = vault.storage_key(STORAGE_LABEL)?;
        let kept = files.load(&*storage)?.ok_or_else(not_enrolled)?;
        let key = match vault.rsa_open(KRD_LABEL) {
            Err(HsmError::LabelUnknown(_)) => return Err(not_enrolled().into()),
            other => other?,
        };
        let certificate = parse(&kept.krd.0)?;
        let receiver = krd::State::from_bytes(&kept.receiver.0, tr34::Leniency::STRICT);
        let receiver = receiver.map_err(own)?;
        let (ca_krd, root) = (parse(&kept.ca_krd.0)?, parse(&kept.root.0)?);
        let _lock = lock;
        Ok(Self {
            dir,
            files,
            vault,
            key,
            storage,
            kept,
            certificate,
            ca_krd,
            root,
            receiver,
            _lock,
        })
    }

    /// What it is and whom it trusts.
    ///
    /// # Errors
    /// [`PosError::Element`].
    pub fn status(&self) -> Result<Status, PosError> {
        let kdh = self.receiver.kdh();
        let seen = kdh.and_then(|kdh| {
            let seen = self
                .receiver
                .crls()
                .iter()
                .find(|seen| seen.issuer() == kdh.identity().issuer())?;
            seen.number()
        });
        Ok(Status {
            serial: self.dir.settings.serial.clone(),
            server_id: self.dir.settings.server_id.clone(),
            element: self.vault.describe()?.to_string(),
            krd: self.certificate.identity().to_string(),
            krd_not_after: self.certificate.not_after(),
            kdh: kdh.map(|kdh| kdh.identity().to_string()),
            kdh_id: kdh.and_then(Certificate::party).map(Party::id).map(str::to_owned),
            crl_seen: seen.map(|number| number.to_string()),
            outstanding: self.receiver.outstanding().is_some(),
        })
    }

    /// The keys in it, by slot, without their values.
    ///
    /// # Errors
    /// [`PosError::State`] if a block does not open.
    pub fn keys(&self) -> Result<Vec<SlotKey>, PosError> {
        let mut keys = Vec::new();
        for (slot, kept) in &self.kept.slots {
            let held = [
                (KeyState::Active, &kept.active),
                (KeyState::Pending, &kept.pending),
                (KeyState::Previous, &kept.previous),
            ];
            for (state, held) in held {
                let Some(held) = held else { continue };
                let (header, kcv) = self.look_into(held)?;
                keys.push(SlotKey {
                    slot: *slot,
                    state,
                    usage: String::from_utf8_lossy(&header.usage).into_owned(),
                    algorithm: header.algorithm.into(),
                    mode: header.mode.into(),
                    exportability: header.exportability.into(),
                    kcv,
                    injection: held.injection.clone(),
                    at: UnixTime::from_millis(held.at),
                });
            }
        }
        Ok(keys)
    }

    /// Opens a stored key for a look at its header and its check value; its value is wiped.
    fn look_into(&self, held: &HeldKey) -> Result<(Header, Vec<u8>), PosError> {
        let ciphers = &aws_lc::AwsLc;
        let kbpk = Kbpk::Held(&*self.storage);
        let opened = tr31::unwrap(ciphers, kbpk, held.block.as_bytes(), Leniency::NONE);
        let opened = opened.map_err(|error| PosError::Own(error.to_string()))?;
        let kcv = tr31::kcv::kcv(ciphers, opened.header.algorithm, &opened.key);
        let kcv = kcv.map_err(|error| PosError::Own(error.to_string()))?;
        if kcv.as_bytes() != held.kcv.0 {
            return Err(PosError::Own("a stored key does not have its check value".to_owned()));
        }
        Ok((opened.header, kcv.as_bytes().to_vec()))
    }

    /// Stores what has changed, at once. What could not be stored did not happen: nothing is
    /// reported that a crash would lose.
    fn save(&mut self) -> Result<(), PosError> {
        self.kept.receiver.0 = self.receiver.to_bytes();
        let stored = self.files.store(&*self.storage, &self.kept);
        if stored.is_err()
            && let Some(kept) = self.files.load(&*self.storage)?
        {
            let receiver = krd::State::from_bytes(&kept.receiver.0, tr34::Leniency::STRICT);
            self.receiver = receiver.map_err(own)?;
            self.kept = kept;
        }
        stored
    }
}

fn parse(der: &[u8]) -> Result<Certificate, PosError> {
    Certificate::parse(der)
        .map_err(|error| PosError::Certificates { check: error.check(), detail: error.to_string() })
}

fn own(error: tr34::Error) -> PosError {
    PosError::Own(error.to_string())
}

/// The RSA key in the element: made if it is not there yet.
fn krd_key(vault: &dyn Vault, bits: u32) -> Result<Arc<dyn RsaKey>, HsmError> {
    match vault.rsa_open(KRD_LABEL) {
        Err(HsmError::LabelUnknown(_)) => {
            vault.rsa_generate(KRD_LABEL, RsaUse::SignAndDecrypt, bits)
        }
        other => other,
    }
}

/// A block under the storage key.
fn stored_block(
    storage: &dyn CmacKey,
    header: &Header,
    key: &countersign_crypto::Secret,
    rng: &mut dyn CryptoRng,
) -> Result<String, PosError> {
    let mut header = Header { version: tr31::Version::D, ..header.clone() };
    // Another version's filling, and the check value of another protection key.
    let others = [tr31::OptionalId::PB, tr31::OptionalId::KP];
    header.optional.retain(|block| !others.contains(&block.id));
    let padding = tr31::Padding::Random(rng);
    tr31::wrap(&aws_lc::AwsLc, Kbpk::Held(storage), &header, key, padding, Leniency::NONE)
        .map_err(|error| PosError::Own(error.to_string()))
}

#[cfg(test)]
mod tests;
