//! The suite [`Suite::X25519_P256_AES128GCM_SHA256`] in pure Rust: `no_std`, deterministic under a
//! given generator, on RustCrypto crates.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use aes_gcm::aes::Aes128;
use p256::ecdsa::signature::Verifier;
use p256::ecdsa::signature::hazmat::RandomizedPrehashSigner;
use p256::ecdsa::{DerSignature, Signature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};

use crate::generic::{Gcm, Over, check_uncompressed};
use crate::hpke::Hpke;
use crate::{
    CryptoError, Domain, ExchangeKey, HASH_LEN, KeyExchange, Provider, Secret, SecureElement,
    SignatureScheme, SoftwareKey, Suite, VerifyingKey,
};

/// Object identifiers of the suite (RFC 5480, RFC 5758), shared by its two providers.
pub(crate) const PRIME256V1: &str = "1.2.840.10045.3.1.7";
pub(crate) const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// The suite [`Suite::X25519_P256_AES128GCM_SHA256`] in pure Rust.
#[must_use]
pub fn provider() -> Provider {
    Provider {
        suite: Suite::X25519_P256_AES128GCM_SHA256,
        hash: Arc::new(Over::<Sha256>::new()),
        mac: Arc::new(Over::<Sha256>::new()),
        kdf: Arc::new(Over::<Sha256>::new()),
        aead: Arc::new(Gcm::<Aes128>::new()),
        key_exchange: Arc::new(X25519),
        signature: Arc::new(P256),
        encryption: None,
        sealing: Arc::new(Hpke),
    }
}

const X25519_LEN: usize = 32;

struct X25519;

impl KeyExchange for X25519 {
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
        PRIME256V1
    }

    fn signature_oid(&self) -> &'static str {
        ECDSA_WITH_SHA256
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
