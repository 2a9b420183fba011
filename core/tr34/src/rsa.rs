use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Secret};
use thiserror::Error;

/// Why an RSA operation failed. What depends on a secret looks the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RsaError {
    /// The public key is not an RSA key of 2048, 3072 or 4096 bits with a sound exponent.
    #[error("not an RSA key of 2048, 3072 or 4096 bits")]
    InvalidKey,
    /// The signature does not verify.
    #[error("the signature does not verify")]
    BadSignature,
    /// The ciphertext does not open. Says no more, on purpose.
    #[error("the ciphertext does not open")]
    BadCiphertext,
    /// The key's holder (a file, a token) could not do the operation.
    #[error("the holder of the RSA key failed")]
    Failed,
}

/// An RSA private key, wherever it lives: memory, or a PKCS#11 token that never gives it away.
pub trait RsaKey: Send + Sync {
    /// The public key: DER `SubjectPublicKeyInfo` with `rsaEncryption`.
    fn public_key(&self) -> &[u8];

    /// Signs `message` with RSASSA-PKCS1-v1_5 and SHA-256. The signature has the modulus' length.
    ///
    /// # Errors
    /// [`RsaError::Failed`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, RsaError>;

    /// Decrypts with RSAES-OAEP: SHA-256, MGF1 with SHA-256, empty label.
    ///
    /// # Errors
    /// [`RsaError::BadCiphertext`]; [`RsaError::Failed`].
    fn decrypt(&self, ciphertext: &[u8]) -> Result<Secret, RsaError>;
}

/// The public-key operations of RSA, as a provider gives them. Keys are DER
/// `SubjectPublicKeyInfo`.
pub trait Rsa: Send + Sync {
    /// The modulus' length in bits, of an acceptable key only.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`].
    fn bits(&self, public_key: &[u8]) -> Result<u32, RsaError>;

    /// Verifies RSASSA-PKCS1-v1_5 with SHA-256.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`], [`RsaError::BadSignature`].
    fn verify(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), RsaError>;

    /// Encrypts with RSAES-OAEP: SHA-256, MGF1 with SHA-256, empty label. AWS-LC takes its own
    /// generator instead of `rng`.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`], [`RsaError::Failed`].
    fn encrypt(
        &self,
        rng: &mut dyn CryptoRng,
        public_key: &[u8],
        text: &Secret,
    ) -> Result<Vec<u8>, RsaError>;

    /// SHA-256.
    fn sha256(&self, data: &[u8]) -> [u8; 32];
}
