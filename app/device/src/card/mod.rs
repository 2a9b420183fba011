//! A signing card with a joint password (B1–B8): its directory, the chip that a directory stands
//! for, and such a card without a reader.
//!
//! [`CardDir`] is enrolled at a server and kept by its holder; [`CardChipDir`] puts it under the
//! card's application, [`JointCard`](countersign_payment::joint::card::JointCard);
//! [`InProcessJointCard`] is the whole card in this process.
//!
//! The PIN consents: what is sealed under it is a random value with no other use. The private key
//! and the key that is shared with the server work before the PIN is given, as the patent has it (a
//! signature alone executes nothing), so they lie in files that only their owner may read, not
//! under the PIN. A directory is a stand-in for the chip: whoever copies its files can sign, make
//! joint passwords of their own, and try PINs without end. A chip keeps all of that inside.
//!
//! | file | holds | written |
//! |-|-|-|
//! | `signing-card.toml` | serial number, suite, account; the server, which says "done" | 1, 9 |
//! | `COUNTERSIGN-SIGNING-CARD` | that the directory is one | 2 |
//! | `puk-tries`, `puk.sealed` | the value of consent under the PUK | 3 |
//! | `pin-tries`, `consent.sealed` | the same under the PIN | 4 |
//! | `key.p8` | the private key, PKCS#8 | 5 |
//! | `root.pem`, `server-issuer.pem`, `server-encryption.pem` | the server, pinned | 6 |
//! | `device-issuer.pem`, `certificate.pem` | the card's certificate | 7 |
//! | `shared.key` | what the server drew for it, hexadecimal | 8 |
//!
//! Each is replaced at once. Cut off before 2, the directory is begun again; before 9, the card is
//! not enrolled, and [`CardDir::enroll`] goes on with the same key pair, for which the server gives
//! the same certificate and a new shared key; before 7 also with a new PUK, for nobody was told the
//! one before. When an enrolled card is enrolled again, its server is taken out of the settings
//! before 6, and its PUK stays. A new PIN is 4 again, a new PUK 3: cut off amid either, the old one
//! counts, with all its tries, or the new one.

mod chip;
mod enrolment;
mod in_process;
mod server;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, aws_lc};
use countersign_payment::joint::SHARED_LEN;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use chip::CardChipDir;
pub use enrolment::CardEnrolment;
pub use in_process::InProcessJointCard;

use crate::KeyError;
use crate::device_dir::suite_name;
use crate::key::files::Files;
use crate::key::sealed::Seals;

const MARKER: &str = "COUNTERSIGN-SIGNING-CARD";
const FORMAT: &str = "countersign signing card, format 1\n";
const SETTINGS: &str = "signing-card.toml";
const CONSENT: &str = "consent.sealed";
const KEY: &str = "key.p8";
const SHARED: &str = "shared.key";
const CERTIFICATE: &str = "certificate.pem";

/// What a signing card knows beside its keys and certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardSettings {
    /// Serial number.
    pub serial: String,
    /// The suite of its key.
    #[serde(with = "suite_name")]
    pub suite: Suite,
    /// The server that enrolled it; empty until then.
    #[serde(default)]
    pub server_id: String,
    /// The number of the account that it pays from: the one that was named first at enrolment.
    /// Empty if it was bound to none. Told to terminals; what counts is the server's word.
    #[serde(default)]
    pub account: String,
}

/// A signing card's directory. One program at a time has it open.
pub struct CardDir {
    files: Files,
    settings: CardSettings,
    /// The PUK that was made while this was open, until it is told.
    puk: Option<Secret>,
    _lock: File,
}

impl CardDir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`KeyError::CardNotOurs`], [`KeyError::Busy`], [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let files = Files::new(path);
        match files.text(MARKER) {
            Ok(text) if text == FORMAT => {}
            _ => return Err(KeyError::CardNotOurs(path.to_owned())),
        }
        let lock = files.lock()?;
        let text = files.text(SETTINGS)?;
        let settings =
            toml::from_str(&text).map_err(|error| files.damaged(SETTINGS, error.to_string()))?;
        Ok(Self { files, settings, puk: None, _lock: lock })
    }

    /// What it knows of itself.
    #[must_use]
    pub const fn settings(&self) -> &CardSettings {
        &self.settings
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// Whether its enrolment has finished.
    #[must_use]
    pub const fn is_enrolled(&self) -> bool {
        !self.settings.server_id.is_empty()
    }

    /// PINs that may still be tried before it blocks, of [`PIN_TRIES`](crate::PIN_TRIES).
    ///
    /// # Errors
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn tries_left(&self) -> Result<u32, KeyError> {
        self.seals().tries_left()
    }

    /// PUKs that may still be tried, of [`PUK_TRIES`](crate::PUK_TRIES); `None` of a card whose
    /// enrolment was cut off before it had one.
    ///
    /// # Errors
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn puk_tries_left(&self) -> Result<Option<u32>, KeyError> {
        self.seals().puk_tries_left()
    }

    /// The PUK that [`Self::enroll`] made, [`PUK_DIGITS`](crate::PUK_DIGITS) digits, for its
    /// holder to keep. Told once: it is stored nowhere.
    pub const fn take_puk(&mut self) -> Option<Secret> {
        self.puk.take()
    }

    /// The number of its certificate; `None` until it is enrolled.
    ///
    /// # Errors
    /// [`KeyError::Damaged`].
    pub fn certificate_number(&self) -> Result<Option<String>, KeyError> {
        if !self.files.has(CERTIFICATE) {
            return Ok(None);
        }
        let der = self.files.pem(CERTIFICATE)?;
        let number = countersign_pki::number(&der).map_err(KeyError::Pki)?;
        Ok(Some(number.to_string()))
    }

    /// Changes the PIN.
    ///
    /// # Errors
    /// [`KeyError::PinForm`]; [`KeyError::PinWrong`], [`KeyError::PinBlocked`];
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn change_pin(
        &mut self,
        old: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        self.seals().change_pin(old, new, rng)
    }

    /// Sets a new PIN for the PUK, and gives both all their tries back.
    ///
    /// # Errors
    /// [`KeyError::PinForm`], [`KeyError::PukForm`], neither of which costs a try;
    /// [`KeyError::CardPukAbsent`], [`KeyError::PukWrong`], [`KeyError::PukBlocked`];
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        self.seals().unblock(puk, new, rng).map_err(|error| match error {
            KeyError::PukAbsent => KeyError::CardPukAbsent,
            other => other,
        })
    }

    /// Makes a new PUK, for the PIN: of a card whose holder has lost it.
    ///
    /// # Errors
    /// [`KeyError::PukBlocked`]: that is for good; those of the PIN; [`KeyError::Damaged`],
    /// [`KeyError::Io`].
    pub fn renew_puk(&mut self, pin: &Secret, rng: &mut dyn CryptoRng) -> Result<Secret, KeyError> {
        self.seals().renew_puk(pin, rng)
    }

    fn seals(&self) -> Seals<'_> {
        // Of another method than any other device's, so that no seal fits in another's place.
        let bound = format!("joint\0{}", self.settings.serial);
        Seals { files: &self.files, bound, pin_file: CONSENT }
    }

    fn provider(&self) -> Result<Provider, KeyError> {
        let suite = self.settings.suite;
        aws_lc::provider_of(suite).ok_or(KeyError::Suite(suite))
    }

    /// The private key.
    fn element(&self) -> Result<Arc<dyn SecureElement>, KeyError> {
        let der = Secret::new(self.files.bytes(KEY)?);
        let loaded = self.provider()?.signature.load_pkcs8(&der);
        loaded.map_err(|error| self.files.damaged(KEY, error.to_string()))
    }

    /// What the server drew for it.
    fn shared(&self) -> Result<Secret, KeyError> {
        let text = Zeroizing::new(self.files.text(SHARED)?);
        shared_key(text.trim_end())
            .ok_or_else(|| self.files.damaged(SHARED, "no key of the right length".to_owned()))
    }

    fn write_settings(&self) -> Result<(), KeyError> {
        let text = toml::to_string(&self.settings).expect("short strings");
        self.files.write(SETTINGS, text.as_bytes())
    }
}

/// The key in its hexadecimal form.
fn shared_key(hex: &str) -> Option<Secret> {
    if HEXLOWER.decode_len(hex.len()) != Ok(SHARED_LEN) {
        return None;
    }
    let filled =
        |out: &mut [u8]| HEXLOWER.decode_mut(hex.as_bytes(), out).map(|_| ()).map_err(|_| ());
    Secret::try_filled(SHARED_LEN, filled).ok()
}

#[cfg(test)]
mod tests;
