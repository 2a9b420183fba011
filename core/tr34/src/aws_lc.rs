//! RSA on AWS-LC, which draws its own randomness.

use alloc::vec;
use alloc::vec::Vec;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use countersign_crypto::{CryptoRng, Secret};

use crate::public_key::pkcs8_of_pkcs1;
use crate::{PublicKey, Rsa, RsaError, RsaKey};

/// Public-key operations on AWS-LC.
#[derive(Debug, Clone, Copy, Default)]
pub struct AwsLc;

impl Rsa for AwsLc {
    fn bits(&self, public_key: &[u8]) -> Result<u32, RsaError> {
        Ok(PublicKey::parse(public_key)?.bits())
    }

    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), RsaError> {
        PublicKey::parse(public_key)?;
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
            .verify(message, signature)
            .map_err(|_| RsaError::BadSignature)
    }

    fn encrypt(
        &self,
        _rng: &mut dyn CryptoRng,
        public_key: &[u8],
        text: &Secret,
    ) -> Result<Vec<u8>, RsaError> {
        PublicKey::parse(public_key)?;
        let key = PublicEncryptingKey::from_der(public_key).map_err(|_| RsaError::InvalidKey)?;
        let key = OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::InvalidKey)?;
        let mut out = vec![0; key.ciphertext_size()];
        let length = key
            .encrypt(&OAEP_SHA256_MGF1SHA256, text.expose(), &mut out, None)
            .map_err(|_| RsaError::Failed)?
            .len();
        out.truncate(length);
        Ok(out)
    }

    fn sha256(&self, data: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, data).as_ref());
        out
    }
}

/// An RSA private key in memory.
pub struct SoftwareRsaKey {
    signing: RsaKeyPair,
    decryption: OaepPrivateDecryptingKey,
    public_key: Vec<u8>,
    pkcs8: Secret,
}

impl SoftwareRsaKey {
    /// Makes a key of 2048, 3072 or 4096 bits. Takes seconds for the longest.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`] for another length; [`RsaError::Failed`].
    pub fn generate(bits: u32) -> Result<Self, RsaError> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            _ => return Err(RsaError::InvalidKey),
        };
        let key = PrivateDecryptingKey::generate(size).map_err(|_| RsaError::Failed)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|_| RsaError::Failed)?;
        Self::from_pkcs8(&Secret::copied_from(der.as_ref()))
    }

    /// From PKCS#8, unencrypted.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`] unless it is a sound RSA key of a length that is accepted.
    pub fn from_pkcs8(pkcs8: &Secret) -> Result<Self, RsaError> {
        let invalid = |_| RsaError::InvalidKey;
        let signing = RsaKeyPair::from_pkcs8(pkcs8.expose()).map_err(invalid)?;
        let key = PrivateDecryptingKey::from_pkcs8(pkcs8.expose()).map_err(invalid)?;
        let public_key = AsDer::<PublicKeyX509Der<'_>>::as_der(&key.public_key())
            .map_err(|_| RsaError::InvalidKey)?
            .as_ref()
            .to_vec();
        PublicKey::parse(&public_key)?;
        let decryption = OaepPrivateDecryptingKey::new(key).map_err(|_| RsaError::InvalidKey)?;
        Ok(Self { signing, decryption, public_key, pkcs8: Secret::copied_from(pkcs8.expose()) })
    }

    /// From PKCS#1 (`RSA PRIVATE KEY` in PEM), unencrypted.
    ///
    /// # Errors
    /// As [`Self::from_pkcs8`].
    pub fn from_pkcs1(pkcs1: &Secret) -> Result<Self, RsaError> {
        Self::from_pkcs8(&pkcs8_of_pkcs1(pkcs1.expose()))
    }

    /// The private key in PKCS#8, to be stored sealed.
    #[must_use]
    pub fn to_pkcs8(&self) -> Secret {
        Secret::copied_from(self.pkcs8.expose())
    }
}

impl RsaKey for SoftwareRsaKey {
    fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RsaError> {
        let mut signature = vec![0; self.signing.public_modulus_len()];
        self.signing
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| RsaError::Failed)?;
        Ok(signature)
    }

    fn decrypt(&self, ciphertext: &[u8]) -> Result<Secret, RsaError> {
        let mut length = 0;
        let whole = Secret::try_filled(self.decryption.min_output_size(), |out| {
            length = self
                .decryption
                .decrypt(&OAEP_SHA256_MGF1SHA256, ciphertext, out, None)
                .map_err(|_| RsaError::BadCiphertext)?
                .len();
            Ok(())
        })?;
        Ok(Secret::copied_from(&whole.expose()[..length]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::{Walker, tag};
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    #[test]
    fn signs_decrypts_and_refuses_what_was_changed() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let key = SoftwareRsaKey::generate(2048).unwrap();
        assert_eq!(AwsLc.bits(key.public_key()), Ok(2048));
        let signature = key.sign(b"message").unwrap();
        assert_eq!(signature.len(), 256);
        AwsLc.verify(key.public_key(), b"message", &signature).unwrap();
        assert_eq!(
            AwsLc.verify(key.public_key(), b"messagf", &signature),
            Err(RsaError::BadSignature)
        );
        assert_eq!(
            AwsLc.verify(key.public_key(), b"message", &signature[1..]),
            Err(RsaError::BadSignature)
        );

        let text = Secret::copied_from(&[7; 24]);
        let mut ciphertext = AwsLc.encrypt(&mut rng, key.public_key(), &text).unwrap();
        assert!(key.decrypt(&ciphertext).unwrap().ct_eq(text.expose()));
        ciphertext[100] ^= 1;
        assert_eq!(key.decrypt(&ciphertext).unwrap_err(), RsaError::BadCiphertext);
        assert_eq!(key.decrypt(&[]).unwrap_err(), RsaError::BadCiphertext);
        let long = Secret::new(vec![0; 191]);
        assert_eq!(AwsLc.encrypt(&mut rng, key.public_key(), &long), Err(RsaError::Failed));
    }

    #[test]
    fn a_key_survives_both_forms_of_storage() {
        let key = SoftwareRsaKey::generate(2048).unwrap();
        let pkcs8 = key.to_pkcs8();
        let again = SoftwareRsaKey::from_pkcs8(&pkcs8).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        // PKCS#1 is the octet string inside.
        let mut inside = Walker::single(pkcs8.expose(), tag::SEQUENCE).unwrap().inside().unwrap();
        inside.any().unwrap();
        inside.any().unwrap();
        let pkcs1 = Secret::copied_from(inside.element(tag::OCTET_STRING).unwrap().content);
        let again = SoftwareRsaKey::from_pkcs1(&pkcs1).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        AwsLc.verify(key.public_key(), b"m", &again.sign(b"m").unwrap()).unwrap();
    }

    #[test]
    fn other_keys_are_refused() {
        assert_eq!(SoftwareRsaKey::generate(1024).err(), Some(RsaError::InvalidKey));
        let nothing = Secret::copied_from(b"not a key");
        assert_eq!(SoftwareRsaKey::from_pkcs8(&nothing).err(), Some(RsaError::InvalidKey));
        assert_eq!(SoftwareRsaKey::from_pkcs1(&nothing).err(), Some(RsaError::InvalidKey));
        assert_eq!(AwsLc.bits(b"not a key"), Err(RsaError::InvalidKey));
        assert_eq!(AwsLc.verify(b"not a key", b"", b""), Err(RsaError::InvalidKey));
    }
}
