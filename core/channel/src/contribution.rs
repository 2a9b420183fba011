//! Sealing a contribution (as `R2` or `R3`) to the share its receiver has signed or will sign, and
//! where the policy says so to the receiver's encryption certificate as well.

use alloc::vec::Vec;

use countersign_crypto::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, CryptoRng, DecryptionKey, HASH_LEN, Provider, Secret,
};
use zeroize::Zeroizing;

use crate::transcript::Transcript;
use crate::{Error, schedule};

/// 32 fresh random bytes: a contribution, or a key of this process.
pub(crate) fn random_secret(rng: &mut dyn CryptoRng) -> Secret {
    let mut bytes = Zeroizing::new([0; HASH_LEN]);
    rng.fill_bytes(&mut *bytes);
    Secret::copied_from(&*bytes)
}

/// Secrets of fixed lengths, one behind the other.
pub(crate) fn joined<const N: usize>(parts: [&[u8]; N]) -> Secret {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut bytes = Vec::with_capacity(len); // at its final size: growing would leave a copy
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    Secret::new(bytes)
}

/// What binds a sealed contribution: the transcript before it, the exchange, and its name.
pub(crate) struct Seal<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) transcript: &'a Transcript,
    pub(crate) shared: &'a Secret,
    /// What is sealed, as "seal R2" or "seal R3".
    pub(crate) label: &'static [u8],
}

impl Seal<'_> {
    /// Seals; `certified` is the point of the receiver's encryption certificate.
    pub(crate) fn seal(
        &self,
        rng: &mut dyn CryptoRng,
        certified: Option<&[u8]>,
        contribution: &Secret,
    ) -> Result<Vec<u8>, Error> {
        let inner = match certified {
            None => Zeroizing::new(contribution.expose().to_vec()),
            Some(point) => {
                let scheme = self.provider.encryption.as_ref().ok_or(NO_ENCRYPTION)?;
                let sealed = scheme.encrypt(rng, point, contribution.expose());
                Zeroizing::new(sealed.map_err(Error::Local)?)
            }
        };
        // At its final size from the start: growing would leave a copy behind.
        let mut sealed = Zeroizing::new(Vec::with_capacity(inner.len() + AEAD_TAG_LEN));
        sealed.extend_from_slice(&inner);
        let key = schedule::sealing_key(self.provider, self.transcript, self.shared, self.label)?;
        // A key used once, so the nonce is zero.
        key.seal(&[0; AEAD_NONCE_LEN], self.transcript.hash(), &mut sealed)
            .map_err(Error::Local)?;
        Ok(core::mem::take(&mut sealed))
    }

    /// Opens; `certified` is the key of this side's encryption certificate.
    pub(crate) fn open(
        &self,
        certified: Option<&dyn DecryptionKey>,
        sealed: &[u8],
    ) -> Result<Secret, Error> {
        self.open_of(HASH_LEN, certified, sealed)
    }

    /// Opens what has `len` bytes.
    pub(crate) fn open_of(
        &self,
        len: usize,
        certified: Option<&dyn DecryptionKey>,
        sealed: &[u8],
    ) -> Result<Secret, Error> {
        let refused = Error::Authentication("contribution");
        let key = schedule::sealing_key(self.provider, self.transcript, self.shared, self.label)?;
        let mut inner = Zeroizing::new(sealed.to_vec());
        key.open(&[0; AEAD_NONCE_LEN], self.transcript.hash(), &mut inner)
            .map_err(|_| refused.clone())?;
        let contribution = match certified {
            None => Secret::copied_from(&inner),
            Some(key) => key.decrypt(&inner).map_err(|_| refused)?,
        };
        if contribution.len() != len {
            return Err(Error::Malformed("length of a contribution"));
        }
        Ok(contribution)
    }
}

const NO_ENCRYPTION: Error = Error::Misuse("the suite has no public-key encryption");
