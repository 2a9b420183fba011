//! Which security device a command means: a directory, a card behind a reader, a PKCS#11 token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use countersign_crypto::CryptoRng;
use countersign_device::{CardKey, DeviceAnswer, KeyDir, KeyError, SecurityDevice};
use countersign_iso7816::CardLink;

use super::key::{AtTerminal, PinFile};
use super::token::WhichToken;
use crate::failure::Failure;

/// A card behind whatever reader.
pub(crate) type Card = CardKey<Box<dyn CardLink>>;

/// Which security device.
#[derive(Args)]
pub(crate) struct WhichDevice {
    /// A security device in software: its own directory.
    #[arg(long, value_name = "DIR", default_value = "./countersign-key", alias = "device",
          conflicts_with_all = ["reader", "token"])]
    pub(crate) key: PathBuf,
    /// A card behind the PC/SC reader of this name, or of a name with this part; without a name,
    /// behind the only reader that has a card (then the last word, or before another option).
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "",
          conflicts_with = "token")]
    pub(crate) reader: Option<String>,
    /// A PKCS#11 token: its label.
    #[arg(long, value_name = "LABEL", requires = "pkcs11_module")]
    pub(crate) token: Option<String>,
    /// The token's PKCS#11 module.
    #[arg(long, value_name = "FILE", requires = "token")]
    pub(crate) pkcs11_module: Option<PathBuf>,
}

/// A security device that has a PIN and a PUK to be looked after.
pub(crate) enum Kept {
    /// In software.
    Directory(KeyDir),
    /// Behind a reader.
    Card(Card, Place),
}

/// Where a device is, as its holder is told: "in the reader …".
pub(crate) type Place = String;

/// A security device, ready to confirm payments, and where it is.
pub(crate) struct Opened {
    device: Box<dyn SecurityDevice>,
    place: Place,
}

impl Opened {
    /// Its serial number.
    pub(crate) fn serial(&self) -> &str {
        self.device.serial()
    }

    /// Has it answer a request, if whoever sits at this terminal or holds the device agrees.
    pub(crate) fn confirm(
        &mut self,
        request: &[u8],
        pin: &PinFile,
        rng: &mut dyn CryptoRng,
    ) -> Result<DeviceAnswer, KeyError> {
        let mut holder = AtTerminal::beside(&*self.device, &self.place, pin);
        self.device.confirm(request, &mut holder, rng)
    }
}

impl WhichDevice {
    /// Opens it, ready to confirm payments.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        self.open_within(Duration::ZERO)
    }

    /// The same, waiting so long for a card to be put to the reader.
    pub(crate) fn open_within(&self, wait: Duration) -> Result<Opened, Failure> {
        if let Some(token) = self.token() {
            let place = format!("in the token {}", token.label);
            return Ok(Opened { device: token.open()?, place });
        }
        Ok(match self.keep_within(wait)? {
            Kept::Directory(dir) => {
                let place = format!("in {}", dir.path().display());
                Opened { device: Box::new(dir), place }
            }
            Kept::Card(card, place) => Opened { device: Box::new(card), place },
        })
    }

    /// The token, if it is one.
    pub(crate) fn token(&self) -> Option<WhichToken<'_>> {
        let (label, module) = (self.token.as_deref()?, self.pkcs11_module.as_deref()?);
        Some(WhichToken { label, module })
    }

    /// Opens it, to look after its PIN and PUK.
    pub(crate) fn keep(&self) -> Result<Kept, Failure> {
        self.keep_within(Duration::ZERO)
    }

    fn keep_within(&self, wait: Duration) -> Result<Kept, Failure> {
        if self.token.is_some() {
            let detail = "a token's own tools do this (pkcs11-tool --change-pin, --unlock-pin)";
            return Err(Failure::usage("token-tools", detail));
        }
        match &self.reader {
            Some(name) => {
                let (card, place) = card(Some(&**name).filter(|name| !name.is_empty()), wait)?;
                Ok(Kept::Card(card, place))
            }
            None => Ok(Kept::Directory(KeyDir::open(&self.key)?)),
        }
    }

    /// The directory, for what only that can do.
    pub(crate) fn directory(&self) -> Result<&Path, Failure> {
        if self.reader.is_some() || self.token.is_some() {
            let detail = "this is done with a security device's own directory (--key DIR)";
            return Err(Failure::usage("device-directory", detail));
        }
        Ok(&self.key)
    }
}

/// The card in a reader, as a security device.
fn card(reader: Option<&str>, wait: Duration) -> Result<(Card, Place), Failure> {
    let (link, place) = link(reader, wait)?;
    Ok((CardKey::new(link)?, place))
}

/// The card in a reader, whatever it is, and where that is.
#[cfg(feature = "pcsc")]
pub(crate) fn link(
    reader: Option<&str>,
    wait: Duration,
) -> Result<(Box<dyn CardLink>, Place), Failure> {
    use countersign_smartcard::pcsc::PcscLink;

    let link = PcscLink::connect_within(reader, wait)
        .map_err(|error| Failure::environment(error.check(), error.to_string()))?;
    let place = format!("in the reader {}", link.reader());
    Ok((Box::new(link), place))
}

/// Without PC/SC there is no reader.
#[cfg(not(feature = "pcsc"))]
pub(crate) fn link(
    _reader: Option<&str>,
    _wait: Duration,
) -> Result<(Box<dyn CardLink>, Place), Failure> {
    let detail = "this program was built without PC/SC: build it with the feature `pcsc`";
    Err(Failure::check("pcsc-not-built", detail))
}
