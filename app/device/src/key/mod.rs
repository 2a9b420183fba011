//! A security device in software (D3, D4): it parses what it is to sign, shows what it parsed, asks
//! for its PIN, and signs those very bytes.
//!
//! [`SecurityDevice`] is whatever can do that: a directory ([`KeyDir`]), a card behind a reader
//! ([`CardKey`]), a PKCS#11 token. [`KeyChip`] puts a directory under a card's application, and
//! [`InProcessCard`] is such a card without a reader. A directory is a stand-in for the chip, good
//! for trying and for tests: whoever copies its files can try PINs without end, which a chip counts
//! inside.

mod card_key;
mod chip;
pub(crate) mod enrolment;
mod error;
pub(crate) mod files;
mod in_process;
mod offline;
pub(crate) mod sealed;
pub(crate) mod server;
#[cfg(feature = "pkcs11")]
mod token;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, aws_lc};
use countersign_payment::{ConfirmationRequest, Line, ocra};
use serde::{Deserialize, Serialize};

pub use card_key::CardKey;
pub use chip::KeyChip;
pub use enrolment::{KeyEnrolment, device_suite};
pub use error::KeyError;
use files::Files;
pub use in_process::InProcessCard;
pub use offline::OfflineAnswer;
use sealed::Seals;
pub use sealed::{PIN_MAX, PIN_MIN, PIN_TRIES, PUK_DIGITS, PUK_TRIES};
#[cfg(feature = "pkcs11")]
pub use token::{TOKEN_KEY_LABEL, TokenKey, TokenPlace};

use crate::device_dir::suite_name;

const MARKER: &str = "COUNTERSIGN-SECURITY-DEVICE";
const FORMAT: &str = "countersign security device, format 1\n";
const SETTINGS: &str = "security-device.toml";
const CERTIFICATE: &str = "certificate.pem";

/// How a security device signs (D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignWith {
    /// Its private key: a signature under its certificate.
    Pki,
    /// The key that it shares with the server: a dynamic password (OCRA, RFC 6287).
    Ocra,
}

impl SignWith {
    /// The name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pki => "pki",
            Self::Ocra => "ocra",
        }
    }
}

/// What a security device answers to a confirmation request. Until it is sent it is worth a
/// payment: printed, it shows whose it is only.
#[derive(Clone, PartialEq, Eq)]
pub enum DeviceAnswer {
    /// A signature over the request's bytes.
    Pki {
        /// The device's serial number.
        serial: String,
        /// As the suite's signatures are.
        signature: Vec<u8>,
    },
    /// A dynamic password over the request's bytes.
    Ocra {
        /// The device's serial number.
        serial: String,
        /// Decimal digits.
        digits: String,
    },
}

impl fmt::Debug for DeviceAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, serial) = match self {
            Self::Pki { serial, .. } => ("Pki", serial),
            Self::Ocra { serial, .. } => ("Ocra", serial),
        };
        f.debug_struct(name).field("serial", serial).finish_non_exhaustive()
    }
}

impl DeviceAnswer {
    /// Of a device's bytes: a signature, or digits; `None` if they are neither.
    fn of(method: SignWith, serial: String, answer: Vec<u8>) -> Option<Self> {
        match method {
            SignWith::Pki => Some(Self::Pki { serial, signature: answer }),
            SignWith::Ocra => {
                let digits = String::from_utf8(answer).ok()?;
                let right = digits.len() == ocra::PAYMENT_DIGITS
                    && digits.bytes().all(|c| c.is_ascii_digit());
                right.then_some(Self::Ocra { serial, digits })
            }
        }
    }
}

/// Who holds a security device: reads its display and types at its keypad.
pub trait Holder {
    /// Reads what the device shows, and gives its PIN to sign it, or `None` to sign nothing.
    ///
    /// # Errors
    /// [`KeyError::Keypad`] if no PIN is to be had.
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError>;

    /// Is told that the device shows and asks at its own keypad now. Not asked here then.
    fn sent_to_device(&mut self) {}
}

/// Who shows a request to the holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownBy {
    /// The device: what it shows is what it signs.
    Device,
    /// The machine that asks for the PIN. It parses the same bytes, and has to be trusted.
    Host,
}

/// A security device: what it shows is what it signs (D3).
pub trait SecurityDevice {
    /// Its serial number.
    fn serial(&self) -> &str;

    /// Who shows what it signs.
    fn shown_by(&self) -> ShownBy;

    /// Parses the bytes of a confirmation request, shows what it parsed, and if its holder agrees
    /// answers for those bytes.
    ///
    /// # Errors
    /// [`KeyError::Request`] for bytes that it could not show as they are: nothing is shown then,
    /// and no PIN asked for; [`KeyError::Declined`]; those of the PIN and of the key.
    fn confirm(
        &mut self,
        request: &[u8],
        holder: &mut dyn Holder,
        rng: &mut dyn CryptoRng,
    ) -> Result<DeviceAnswer, KeyError>;
}

/// What a device knows beside its key and certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySettings {
    /// Serial number.
    pub serial: String,
    /// How it signs.
    pub method: SignWith,
    /// The suite of its key, or of the server that its key is shared with.
    #[serde(with = "suite_name")]
    pub suite: Suite,
    /// The server that enrolled it; empty until then.
    #[serde(default)]
    pub server_id: String,
}

/// A security device's directory. One program at a time has it open.
pub struct KeyDir {
    files: Files,
    settings: KeySettings,
    /// The PUK that was made while this was open, until it is told.
    puk: Option<Secret>,
    _lock: File,
}

impl KeyDir {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// [`KeyError::NotOurs`], [`KeyError::Busy`], [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let files = Files::new(path);
        match files.text(MARKER) {
            Ok(text) if text == FORMAT => {}
            _ => return Err(KeyError::NotOurs(path.to_owned())),
        }
        let lock = files.lock()?;
        let text = files.text(SETTINGS)?;
        let settings =
            toml::from_str(&text).map_err(|error| files.damaged(SETTINGS, error.to_string()))?;
        Ok(Self { files, settings, puk: None, _lock: lock })
    }

    /// What it knows of itself.
    #[must_use]
    pub const fn settings(&self) -> &KeySettings {
        &self.settings
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.files.path()
    }

    /// PINs that may still be tried before it blocks, of [`PIN_TRIES`].
    ///
    /// # Errors
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn tries_left(&self) -> Result<u32, KeyError> {
        self.seals().tries_left()
    }

    /// PUKs that may still be tried, of [`PUK_TRIES`]; `None` if the device has no PUK.
    ///
    /// # Errors
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn puk_tries_left(&self) -> Result<Option<u32>, KeyError> {
        self.seals().puk_tries_left()
    }

    /// The PUK that [`Self::enroll`] made, [`PUK_DIGITS`] digits, for its holder to keep. Told
    /// once: it is stored nowhere.
    pub const fn take_puk(&mut self) -> Option<Secret> {
        self.puk.take()
    }

    /// The number of its certificate; `None` for a device that makes dynamic passwords, or that is
    /// not enrolled.
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
    /// [`KeyError::PukAbsent`], [`KeyError::PukWrong`], [`KeyError::PukBlocked`];
    /// [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), KeyError> {
        self.seals().unblock(puk, new, rng)
    }

    /// Makes a new PUK, for the PIN: of a device that has none, or whose holder has lost it.
    ///
    /// # Errors
    /// [`KeyError::PukBlocked`]: that is for good; those of the PIN; [`KeyError::Damaged`],
    /// [`KeyError::Io`].
    pub fn renew_puk(&mut self, pin: &Secret, rng: &mut dyn CryptoRng) -> Result<Secret, KeyError> {
        self.seals().renew_puk(pin, rng)
    }

    /// The key, for its PIN. Each try is counted before it is made.
    fn unlock(&self, pin: &Secret) -> Result<Secret, KeyError> {
        self.seals().unlock(pin)
    }

    fn seals(&self) -> Seals<'_> {
        Seals { files: &self.files, bound: self.settings.bound(), pin_file: sealed::FILE }
    }

    /// A signature, or the digits of a dynamic password.
    fn sign_with(
        &self,
        key: &Secret,
        request: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, KeyError> {
        let signed = match self.settings.method {
            SignWith::Pki => countersign_payment::sign(&*self.element(key)?, rng, request),
            SignWith::Ocra => ocra::respond(key, request).map(String::into_bytes),
        };
        signed.map_err(KeyError::Request)
    }

    fn provider(&self) -> Result<Provider, KeyError> {
        let suite = self.settings.suite;
        aws_lc::provider_of(suite).ok_or(KeyError::Suite(suite))
    }

    fn element(&self, key: &Secret) -> Result<std::sync::Arc<dyn SecureElement>, KeyError> {
        let loaded = self.provider()?.signature.load_pkcs8(key);
        loaded.map_err(|error| self.files.damaged(sealed::FILE, error.to_string()))
    }
}

impl KeySettings {
    /// What the sealed key is bound to, so that files of two devices cannot be exchanged.
    fn bound(&self) -> String {
        format!("{}\0{}", self.method.name(), self.serial)
    }
}

impl SecurityDevice for KeyDir {
    fn serial(&self) -> &str {
        &self.settings.serial
    }

    fn shown_by(&self) -> ShownBy {
        ShownBy::Device
    }

    fn confirm(
        &mut self,
        request: &[u8],
        holder: &mut dyn Holder,
        rng: &mut dyn CryptoRng,
    ) -> Result<DeviceAnswer, KeyError> {
        if self.settings.server_id.is_empty() {
            return Err(KeyError::NotEnrolled(self.path()));
        }
        // Parsed here, from the bytes that are signed below: whoever carried them adds nothing.
        let parsed = ConfirmationRequest::parse(request).map_err(KeyError::Request)?;
        if self.tries_left()? == 0 {
            return Err(KeyError::PinBlocked);
        }
        let pin = holder.asked(&parsed.lines())?.ok_or(KeyError::Declined)?;
        let key = self.unlock(&pin)?;
        let answer = self.sign_with(&key, request, rng)?;
        let (method, serial) = (self.settings.method, self.settings.serial.clone());
        Ok(DeviceAnswer::of(method, serial, answer).expect("made here"))
    }
}

#[cfg(test)]
mod tests;
