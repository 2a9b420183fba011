//! The fast provider for servers, on AWS-LC: signatures, exchange and AEAD. Needs std; AWS-LC draws
//! its own randomness, so the generators passed in are ignored: replayable tests use
//! [`crate::rust_crypto`].

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use aws_lc_rs::{agreement, rand::SystemRandom};
use rand_core::CryptoRng;
use sha2::Sha256;

use crate::generic::{Over, check_uncompressed};
use crate::hpke::Hpke;
use crate::rust_crypto::{ECDSA_WITH_SHA256, PRIME256V1};
use crate::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, CryptoError, Domain, ExchangeKey, KeyExchange,
    Provider, Secret, SecureElement, SignatureScheme, SoftwareKey, Suite, VerifyingKey,
};

/// The suite [`Suite::X25519_P256_AES128GCM_SHA256`] on AWS-LC.
#[must_use]
pub fn provider() -> Provider {
    Provider {
        suite: Suite::X25519_P256_AES128GCM_SHA256,
        // Hashing alone comes from `sha2`: what is hashed here is short, and AWS-LC spends more on
        // its contexts than on that (docs/performance.md).
        hash: Arc::new(Over::<Sha256>::new()),
        mac: Arc::new(Over::<Sha256>::new()),
        kdf: Arc::new(Over::<Sha256>::new()),
        aead: Arc::new(AesGcm),
        key_exchange: Arc::new(X25519),
        signature: Arc::new(P256),
        encryption: None,
        sealing: Arc::new(Hpke),
    }
}

/// The fastest provider of a suite: AWS-LC's where it has one, else [`crate::provider_of`].
#[must_use]
pub fn provider_of(suite: Suite) -> Option<Provider> {
    match suite {
        Suite::X25519_P256_AES128GCM_SHA256 => Some(provider()),
        _ => crate::provider_of(suite),
    }
}

struct AesGcm;

impl Aead for AesGcm {
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError> {
        let key =
            UnboundKey::new(&AES_128_GCM, key.expose()).map_err(|_| CryptoError::InvalidKey)?;
        Ok(Box::new(AesGcmKey(LessSafeKey::new(key))))
    }
}

struct AesGcmKey(LessSafeKey);

impl AeadKey for AesGcmKey {
    fn seal_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; AEAD_TAG_LEN], CryptoError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::from(aad), data)
            .map_err(|_| CryptoError::TooLong)?;
        tag.as_ref().try_into().map_err(|_| CryptoError::Failed)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, CryptoError> {
        self.0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), sealed)
            .map(|text| text.len())
            .map_err(|_| CryptoError::BadAuthentication)
    }
}

struct X25519;

impl KeyExchange for X25519 {
    fn generate(&self, _rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError> {
        let secret =
            agreement::PrivateKey::generate(&agreement::X25519).map_err(|_| CryptoError::Failed)?;
        let share = secret.compute_public_key().map_err(|_| CryptoError::Failed)?;
        Ok(Box::new(X25519Key { secret, share }))
    }
}

struct X25519Key {
    secret: agreement::PrivateKey,
    share: agreement::PublicKey,
}

impl ExchangeKey for X25519Key {
    fn share(&self) -> &[u8] {
        self.share.as_ref()
    }

    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError> {
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, peer_share);
        // AWS-LC refuses an all-zero result (RFC 7748 §6.1).
        agreement::agree(&self.secret, peer, CryptoError::InvalidKey, |shared| {
            Ok(Secret::copied_from(shared))
        })
    }
}

struct P256;

impl SignatureScheme for P256 {
    fn curve_oid(&self) -> &'static str {
        PRIME256V1
    }

    fn signature_oid(&self) -> &'static str {
        ECDSA_WITH_SHA256
    }

    fn generate(&self, _rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError> {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| CryptoError::Failed)?;
        let pkcs8 = Secret::copied_from(der.as_ref());
        Ok(SoftwareKey { key: self.load_pkcs8(&pkcs8)?, pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.expose())
            .map_err(|_| CryptoError::InvalidKey)?;
        Ok(Arc::new(P256Key(key)))
    }

    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError> {
        check_uncompressed(point)?;
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .map_err(|_| CryptoError::InvalidKey)?;
        Ok(Arc::new(P256PublicKey(key)))
    }
}

struct P256Key(EcdsaKeyPair);

impl SecureElement for P256Key {
    fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign_in(
        &self,
        _rng: &mut dyn CryptoRng,
        _domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let signature =
            self.0.sign(&SystemRandom::new(), message).map_err(|_| CryptoError::Failed)?;
        Ok(signature.as_ref().to_vec())
    }
}

struct P256PublicKey(ParsedPublicKey);

impl VerifyingKey for P256PublicKey {
    fn verify_in(
        &self,
        _domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.0.verify_sig(message, signature).map_err(|_| CryptoError::BadAuthentication)
    }
}
