//! A security device in software (D3, D4): it parses what it is to sign, shows what it parsed, asks
//! for its PIN, and signs those very bytes.
//!
//! [`SecurityDevice`] is whatever can do that: a card behind a reader is another one. [`KeyDir`] is
//! a stand-in for the chip, good for trying and for tests: whoever copies its files can try PINs
//! without end, which a chip counts inside.

mod enrolment;
mod error;
mod files;
mod sealed;

use std::fs::File;
use std::path::{Path, PathBuf};

use countersign_crypto::{CryptoRng, Provider, Secret, SecureElement, Suite, aws_lc};
use countersign_payment::{ConfirmationRequest, Line, ocra};
use serde::{Deserialize, Serialize};

pub use enrolment::{KeyEnrolment, device_suite};
pub use error::KeyError;
use files::Files;
use sealed::Sealed;
pub use sealed::{PIN_MAX, PIN_MIN, PIN_TRIES};

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

/// What a security device answers to a confirmation request.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// Who holds a security device: reads its display and types at its keypad.
pub trait Holder {
    /// Reads what the device shows, and gives its PIN to sign it, or `None` to sign nothing.
    ///
    /// # Errors
    /// [`KeyError::Keypad`] if no PIN is to be had.
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError>;
}

/// A security device: what it shows is what it signs (D3).
pub trait SecurityDevice {
    /// Its serial number.
    fn serial(&self) -> &str;

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
        Ok(Self { files, settings, _lock: lock })
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
        Sealed::load(&self.files)?.tries_left(&self.files)
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
        sealed::check_pin(new)?;
        let key = self.unlock(old)?;
        Sealed::seal(&self.settings.bound(), &key, new, rng)?.store(&self.files)
    }

    /// The key, for its PIN. Each try is counted before it is made.
    fn unlock(&self, pin: &Secret) -> Result<Secret, KeyError> {
        Sealed::load(&self.files)?.open(&self.files, &self.settings.bound(), pin)
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
        let serial = self.settings.serial.clone();
        match self.settings.method {
            SignWith::Pki => {
                let element = self.element(&key)?;
                let signature = countersign_payment::sign(&*element, rng, request)
                    .map_err(KeyError::Request)?;
                Ok(DeviceAnswer::Pki { serial, signature })
            }
            SignWith::Ocra => {
                let digits = ocra::respond(&key, request).map_err(KeyError::Request)?;
                Ok(DeviceAnswer::Ocra { serial, digits })
            }
        }
    }
}

#[cfg(test)]
mod tests;
