//! The pure-Rust provider: `no_std`, deterministic under a given generator, on RustCrypto crates.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes128Gcm, Nonce, Tag};
use hmac::{Hmac, Mac as _};
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::signature::hazmat::RandomizedPrehashSigner;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};

use crate::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, CryptoError, Digest, Domain, ExchangeKey,
    HASH_LEN, Hash, Kdf, KeyExchange, Mac, Provider, Secret, SecureElement, SignatureScheme,
    SoftwareKey, Suite, VerifyingKey,
};

/// The suite [`Suite::X25519_P256_AES128GCM_SHA256`] in pure Rust.
#[must_use]
pub fn provider() -> Provider {
    Provider {
        suite: Suite::X25519_P256_AES128GCM_SHA256,
        hash: Arc::new(Sha2),
        mac: Arc::new(HmacSha256),
        kdf: Arc::new(HkdfSha256),
        aead: Arc::new(AesGcm),
        key_exchange: Arc::new(X25519),
        signature: Arc::new(P256),
        encryption: None,
    }
}

struct Sha2;

impl Hash for Sha2 {
    fn hash(&self, parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }
}

struct HmacSha256;

impl Mac for HmacSha256 {
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

struct HkdfSha256;

impl Kdf for HkdfSha256 {
    fn extract(&self, salt: &[u8], input_key: &[u8]) -> Secret {
        let (mut prk, _) = hkdf::Hkdf::<Sha256>::extract(Some(salt), input_key);
        let secret = Secret::copied_from(&prk);
        zeroize::Zeroize::zeroize(prk.as_mut_slice());
        secret
    }

    fn expand(&self, prk: &Secret, info: &[&[u8]], len: usize) -> Result<Secret, CryptoError> {
        if prk.len() != HASH_LEN {
            return Err(CryptoError::TooLong);
        }
        let hkdf =
            hkdf::Hkdf::<Sha256>::from_prk(prk.expose()).map_err(|_| CryptoError::TooLong)?;
        Secret::try_filled(len, |out| {
            hkdf.expand_multi_info(info, out).map_err(|_| CryptoError::TooLong)
        })
    }
}

struct AesGcm;

impl Aead for AesGcm {
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError> {
        let key = Aes128Gcm::new_from_slice(key.expose()).map_err(|_| CryptoError::InvalidKey)?;
        Ok(Box::new(AesGcmKey(key)))
    }
}

struct AesGcmKey(Aes128Gcm);

impl AeadKey for AesGcmKey {
    fn seal_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; AEAD_TAG_LEN], CryptoError> {
        self.0
            .encrypt_inout_detached(&Nonce::from(*nonce), aad, data.into())
            .map(Into::into)
            .map_err(|_| CryptoError::TooLong)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let refused = CryptoError::BadAuthentication;
        let len = sealed.len().checked_sub(AEAD_TAG_LEN).ok_or(refused)?;
        let (text, tag) = sealed.split_at_mut(len);
        let tag = Tag::try_from(&*tag).map_err(|_| refused)?;
        self.0
            .decrypt_inout_detached(&Nonce::from(*nonce), aad, text.into(), &tag)
            .map(|()| len)
            .map_err(|_| refused)
    }
}

const X25519_LEN: usize = 32;

struct X25519;

impl KeyExchange for X25519 {
    fn share_len(&self) -> usize {
        X25519_LEN
    }

    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError> {
        let secret = x25519_dalek::ReusableSecret::random_from_rng(rng);
        let share = x25519_dalek::PublicKey::from(&secret);
        Ok(Box::new(X25519Key { secret, share }))
    }
}

struct X25519Key {
    secret: x25519_dalek::ReusableSecret,
    share: x25519_dalek::PublicKey,
}

impl ExchangeKey for X25519Key {
    fn share(&self) -> &[u8] {
        self.share.as_bytes()
    }

    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError> {
        let peer: [u8; X25519_LEN] = peer_share.try_into().map_err(|_| CryptoError::InvalidKey)?;
        let shared = self.secret.diffie_hellman(&peer.into());
        // RFC 7748 §6.1: a low-order share gives an all-zero secret.
        if !shared.was_contributory() {
            return Err(CryptoError::InvalidKey);
        }
        Ok(Secret::copied_from(shared.as_bytes()))
    }
}

struct P256;

impl SignatureScheme for P256 {
    fn curve_oid(&self) -> &'static str {
        crate::suite::PRIME256V1
    }

    fn signature_oid(&self) -> &'static str {
        crate::suite::ECDSA_WITH_SHA256
    }

    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError> {
        let key = SigningKey::try_generate_from_rng(rng).map_err(|_| CryptoError::Failed)?;
        let der = key.to_pkcs8_der().map_err(|_| CryptoError::Failed)?;
        let pkcs8 = Secret::copied_from(der.as_bytes());
        Ok(SoftwareKey { key: Arc::new(P256Key::new(key)), pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError> {
        let key = SigningKey::from_pkcs8_der(der.expose()).map_err(|_| CryptoError::InvalidKey)?;
        Ok(Arc::new(P256Key::new(key)))
    }

    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError> {
        check_uncompressed(point)?;
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
            .map_err(|_| CryptoError::InvalidKey)?;
        Ok(Arc::new(P256PublicKey(key)))
    }
}

/// Only one encoding per key, so that a key is its bytes.
pub(crate) fn check_uncompressed(point: &[u8]) -> Result<(), CryptoError> {
    if point.len() == 65 && point[0] == 4 { Ok(()) } else { Err(CryptoError::InvalidKey) }
}

struct P256Key {
    key: SigningKey,
    point: Vec<u8>,
}

impl P256Key {
    fn new(key: SigningKey) -> Self {
        let point = key.verifying_key().to_sec1_point(false).as_bytes().to_vec();
        Self { key, point }
    }
}

impl SecureElement for P256Key {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn sign_in(
        &self,
        rng: &mut dyn CryptoRng,
        _domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let prehash: [u8; HASH_LEN] = Sha256::digest(message).into();
        // RFC 6979 with added entropy: safe even under a repeating generator.
        let signature: Signature =
            self.key.sign_prehash_with_rng(rng, &prehash).map_err(|_| CryptoError::Failed)?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

struct P256PublicKey(p256::ecdsa::VerifyingKey);

impl VerifyingKey for P256PublicKey {
    fn verify_in(
        &self,
        _domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let signature =
            DerSignature::from_bytes(signature).map_err(|_| CryptoError::BadAuthentication)?;
        self.0.verify(message, &signature).map_err(|_| CryptoError::BadAuthentication)
    }
}
