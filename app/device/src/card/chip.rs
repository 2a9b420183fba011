//! A directory in a chip's place: what the signing card's application needs of the chip below it.

use std::sync::Arc;

use countersign_crypto::{CryptoRng, Hash, Provider, Secret, SecureElement, UnixTime};
use countersign_payment::card::{ChipError, Tries};
use countersign_payment::joint::card::{JointChip, JointInfo};
use countersign_payment::joint::{Commitment, Form, JointPassword, SealTo, commit, sign};

use super::{CERTIFICATE, CardDir};
use crate::KeyError;

/// The forms of commitments that it makes, best first.
const FORMS: [Form; 3] = [Form::SealedRandom, Form::Sealed, Form::Digest];

/// A signing card's directory as the chip of a card.
pub struct CardChipDir {
    dir: CardDir,
    provider: Provider,
    element: Arc<dyn SecureElement>,
    shared: Secret,
    server_point: Vec<u8>,
    certificate: Vec<u8>,
}

impl CardChipDir {
    /// The chip of an enrolled card. The server's encryption certificate is verified at `now`, from
    /// the root that was pinned, and not again: as a card does, which has no clock to trust. The
    /// server opens nothing that is encrypted to a key that it does not use any more.
    ///
    /// # Errors
    /// [`KeyError::CardNotEnrolled`]; [`KeyError::Suite`]; [`KeyError::Pki`], which
    /// [`CardDir::refresh`] may heal; [`KeyError::Damaged`], [`KeyError::Io`].
    pub fn new(dir: CardDir, now: UnixTime) -> Result<Self, KeyError> {
        if !dir.is_enrolled() {
            return Err(KeyError::CardNotEnrolled(dir.path()));
        }
        Ok(Self {
            provider: dir.provider()?,
            element: dir.element()?,
            shared: dir.shared()?,
            server_point: dir.server_point(now)?,
            certificate: dir.files.pem(CERTIFICATE)?,
            dir,
        })
    }

    /// The directory.
    #[must_use]
    pub const fn directory(&self) -> &CardDir {
        &self.dir
    }

    /// The directory, to change PIN or PUK. What changes the keys needs a new chip.
    pub const fn directory_mut(&mut self) -> &mut CardDir {
        &mut self.dir
    }
}

impl JointChip for CardChipDir {
    fn info(&self) -> JointInfo {
        let settings = self.dir.settings();
        JointInfo {
            serial: settings.serial.clone(),
            forms: FORMS.to_vec(),
            suite: settings.suite,
            server_id: settings.server_id.clone(),
            account: settings.account.clone(),
        }
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        Some(self.certificate.clone())
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        let few = |left: u32| u8::try_from(left).unwrap_or(u8::MAX);
        let pin = few(self.dir.tries_left()?);
        Ok(Tries { pin, puk: few(self.dir.puk_tries_left()?.unwrap_or(0)) })
    }

    fn hash(&self) -> &dyn Hash {
        &*self.provider.hash
    }

    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError> {
        let (provider, serial) = (&self.provider, &*self.dir.settings().serial);
        let to = SealTo { server_point: &self.server_point, shared: &self.shared };
        let commitment = commit(provider, rng, form, serial, transaction, password, &to)?;
        let signature = sign(&*self.element, rng, &*provider.hash, transaction, &commitment)?;
        Ok((commitment, signature))
    }

    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError> {
        // What the PIN opens is of no use but that it opened.
        self.dir.seals().unlock(pin)?;
        Ok(())
    }
}
