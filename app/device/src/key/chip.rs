//! A directory in a chip's place: what the card's application needs of the chip below it.

use countersign_crypto::{CryptoRng, Secret};
use countersign_payment::card::{CardInfo, Chip, ChipError, Method, PinEntry, Tries};

use super::{CERTIFICATE, KeyDir, KeyError, SignWith};

/// A security device's directory as the chip of a card.
pub struct KeyChip {
    dir: KeyDir,
    info: CardInfo,
    /// The key, between the right PIN and the one signature that it is for.
    unlocked: Option<Secret>,
}

impl KeyChip {
    /// The chip of an enrolled device, whose holder types the PIN in this place.
    ///
    /// # Errors
    /// [`KeyError::NotEnrolled`].
    pub fn new(dir: KeyDir, pin_entry: PinEntry) -> Result<Self, KeyError> {
        let settings = dir.settings();
        if settings.server_id.is_empty() {
            return Err(KeyError::NotEnrolled(dir.path()));
        }
        let info = CardInfo {
            serial: settings.serial.clone(),
            method: settings.method.into(),
            suite: settings.suite,
            pin_entry,
            server_id: settings.server_id.clone(),
        };
        Ok(Self { dir, info, unlocked: None })
    }

    /// The directory.
    #[must_use]
    pub const fn directory(&self) -> &KeyDir {
        &self.dir
    }
}

impl From<SignWith> for Method {
    fn from(method: SignWith) -> Self {
        match method {
            SignWith::Pki => Self::Pki,
            SignWith::Ocra => Self::Ocra,
        }
    }
}

impl From<Method> for SignWith {
    fn from(method: Method) -> Self {
        match method {
            Method::Pki => Self::Pki,
            Method::Ocra => Self::Ocra,
        }
    }
}

impl Chip for KeyChip {
    fn info(&self) -> CardInfo {
        self.info.clone()
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        // What is not there or damaged is not given out; the key does not depend on it.
        self.dir.files.has(CERTIFICATE).then(|| self.dir.files.pem(CERTIFICATE).ok())?
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        let few = |left: u32| u8::try_from(left).unwrap_or(u8::MAX);
        let pin = few(self.dir.tries_left()?);
        Ok(Tries { pin, puk: few(self.dir.puk_tries_left()?.unwrap_or(0)) })
    }

    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError> {
        self.unlocked = None;
        self.unlocked = Some(self.dir.unlock(pin)?);
        Ok(())
    }

    fn lock(&mut self) {
        self.unlocked = None;
    }

    fn sign(&mut self, request: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError> {
        let key = self.unlocked.take().ok_or(ChipError::Locked)?;
        Ok(self.dir.sign_with(&key, request, rng)?)
    }

    fn change_pin(
        &mut self,
        old: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        self.unlocked = None;
        Ok(self.dir.change_pin(old, new, rng)?)
    }

    fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        self.unlocked = None;
        Ok(self.dir.unblock(puk, new, rng)?)
    }
}

impl From<KeyError> for ChipError {
    fn from(error: KeyError) -> Self {
        let few = |left: u32| u8::try_from(left).unwrap_or(u8::MAX);
        match error {
            KeyError::PinForm | KeyError::PukForm => Self::PinForm,
            KeyError::PinWrong { left } => Self::PinWrong { left: few(left) },
            KeyError::PinBlocked => Self::PinBlocked,
            KeyError::PukWrong { left } => Self::PukWrong { left: few(left) },
            KeyError::PukBlocked => Self::PukBlocked,
            KeyError::PukAbsent => Self::PukAbsent,
            KeyError::Request(error) => Self::Request(error),
            other => Self::Failed(other.to_string()),
        }
    }
}
