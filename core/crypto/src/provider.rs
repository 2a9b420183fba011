use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

use crate::{CryptoError, Secret, Suite};

/// Output length in bytes of the hash of every suite (SHA-256, SM3).
pub const HASH_LEN: usize = 32;
/// Key length in bytes of the AEAD of every suite (AES-128, SM4).
pub const AEAD_KEY_LEN: usize = 16;
/// Nonce length in bytes of the AEAD of every suite.
pub const AEAD_NONCE_LEN: usize = 12;
/// Tag length in bytes of the AEAD of every suite.
pub const AEAD_TAG_LEN: usize = 16;

/// Longest text of public-key encryption: keys and contributions, not documents.
pub const ENCRYPTED_TEXT_MAX: usize = 256;

/// A hash value.
pub type Digest = [u8; HASH_LEN];

/// One suite's algorithms.
///
/// Cheap to clone (reference counts). Tests wrap single members, for instance to count operations.
#[derive(Clone)]
pub struct Provider {
    /// Which suite this is.
    pub suite: Suite,
    /// The suite's hash.
    pub hash: Arc<dyn Hash>,
    /// HMAC over the suite's hash.
    pub mac: Arc<dyn Mac>,
    /// HKDF over the suite's hash.
    pub kdf: Arc<dyn Kdf>,
    /// The suite's AEAD.
    pub aead: Arc<dyn Aead>,
    /// The suite's ephemeral key exchange.
    pub key_exchange: Arc<dyn KeyExchange>,
    /// The suite's signature scheme.
    pub signature: Arc<dyn SignatureScheme>,
    /// The suite's public-key encryption in the handshakes of the channel (dual-certificate
    /// deployments), where it has one.
    pub encryption: Option<Arc<dyn EncryptionScheme>>,
    /// The suite's public-key encryption of short secrets to an encryption certificate, which
    /// every suite has: HPKE for P-256, SM2 for SM2. What opens at all opens unaltered.
    pub sealing: Arc<dyn EncryptionScheme>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// A hash function with 32-byte output.
pub trait Hash: Send + Sync {
    /// Hash of the concatenation of `parts`. The caller frames what must not be ambiguous.
    fn hash(&self, parts: &[&[u8]]) -> Digest;
}

/// HMAC.
pub trait Mac: Send + Sync {
    /// MAC of the concatenation of `parts` under `key` (any length).
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest;

    /// Compares in constant time.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`] if `tag` is not the MAC.
    fn verify(&self, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> Result<(), CryptoError> {
        if bool::from(self.mac(key, parts).as_slice().ct_eq(tag)) {
            Ok(())
        } else {
            Err(CryptoError::BadAuthentication)
        }
    }
}

/// HKDF (RFC 5869).
pub trait Kdf: Send + Sync {
    /// HKDF-Extract: a pseudorandom key of [`HASH_LEN`] bytes.
    fn extract(&self, salt: &[u8], input_key: &[u8]) -> Secret;

    /// HKDF-Expand of `prk` ([`HASH_LEN`] bytes) to `len` bytes.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] if `len` exceeds 255 hash lengths or `prk` has another length.
    fn expand(&self, prk: &Secret, info: &[&[u8]], len: usize) -> Result<Secret, CryptoError>;
}

/// An authenticated cipher with 16-byte keys, 12-byte nonces and 16-byte tags.
pub trait Aead: Send + Sync {
    /// Prepares a key.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] unless `key` has [`AEAD_KEY_LEN`] bytes.
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError>;
}

/// A prepared AEAD key. The caller never uses a nonce twice.
pub trait AeadKey: Send + Sync {
    /// Encrypts in place and gives the tag.
    ///
    /// # Errors
    /// [`CryptoError::TooLong`] if the data exceed the algorithm's limit.
    fn seal_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; AEAD_TAG_LEN], CryptoError>;

    /// Checks the tag at the end of `sealed` and decrypts in place; gives the length of the text,
    /// which lies at the beginning.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`]; `sealed` is then unspecified and must not be used.
    fn open_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, CryptoError>;

    /// Encrypts in place and appends the tag.
    ///
    /// # Errors
    /// As [`Self::seal_in_place`].
    fn seal(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let tag = self.seal_in_place(nonce, aad, data)?;
        data.extend_from_slice(&tag);
        Ok(())
    }

    /// Checks the tag at the end of `data`, removes it and decrypts in place.
    ///
    /// # Errors
    /// As [`Self::open_in_place`].
    fn open(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut Vec<u8>,
    ) -> Result<(), CryptoError> {
        let len = self.open_in_place(nonce, aad, data)?;
        data.truncate(len);
        Ok(())
    }
}

/// Ephemeral Diffie-Hellman.
pub trait KeyExchange: Send + Sync {
    /// A fresh key pair. A provider whose library has its own generator may ignore `rng`.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] if the provider cannot make one.
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError>;
}

/// The private half of a share, of one handshake or of one epoch (C2). Wiped on drop; the
/// handshakes bound its life by owning it.
pub trait ExchangeKey: Send + Sync {
    /// The public share to send.
    fn share(&self) -> &[u8];

    /// The shared secret with the peer's share.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] for a share of wrong length, one that is no point of the curve,
    /// or one that yields an all-zero secret.
    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError>;
}

/// What is signed, where a scheme makes a difference between them: SM2 mixes a *distinguishing id*
/// into every signature. ECDSA has none; there the signed bytes themselves begin with their domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// Certificates, requests, and whatever others verify: SM2's usual id `1234567812345678`.
    Document,
    /// The handshakes of the channel: an id of their own.
    Handshake,
}

/// A signature scheme: makes, loads and parses keys, and names itself in certificates.
pub trait SignatureScheme: Send + Sync {
    /// Object identifier of the curve in a certificate's public key, dotted.
    fn curve_oid(&self) -> &'static str;

    /// Object identifier of the signature algorithm in a certificate, dotted.
    fn signature_oid(&self) -> &'static str;

    /// A new software key.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] if the provider cannot make one.
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError>;

    /// Loads a software key from its PKCS#8 DER.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] if it is not a key of this scheme.
    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError>;

    /// Parses a public key: the SEC1 uncompressed point, 65 bytes.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] if it is not a point of the curve.
    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError>;
}

/// A private key made in software, with the form in which it can be stored (sealed).
pub struct SoftwareKey {
    /// The usable key.
    pub key: Arc<dyn SecureElement>,
    /// PKCS#8 DER of the private key.
    pub pkcs8: Secret,
}

/// Whatever holds a long-term private key and signs with it: a security chip, an HSM, or software.
///
/// The private key never leaves it. `Send + Sync`, so one key serves many connections.
pub trait SecureElement: Send + Sync {
    /// The public key: SEC1 uncompressed point, 65 bytes.
    fn public_key(&self) -> &[u8];

    /// Signs `message` (hashing it as the scheme says) for `domain`. The signature is DER
    /// `ECDSA-Sig-Value`, or the same form for SM2.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] if the element refuses or cannot.
    fn sign_in(
        &self,
        rng: &mut dyn CryptoRng,
        domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;

    /// Signs a document: [`Self::sign_in`] with [`Domain::Document`].
    ///
    /// # Errors
    /// As there.
    fn sign(&self, rng: &mut dyn CryptoRng, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        self.sign_in(rng, Domain::Document, message)
    }
}

/// Public-key encryption to the key of an encryption certificate.
pub trait EncryptionScheme: Send + Sync {
    /// A new software key.
    ///
    /// # Errors
    /// [`CryptoError::Failed`] if the provider cannot make one.
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareDecryptionKey, CryptoError>;

    /// Loads a software key from its PKCS#8 DER.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] if it is not a key of this scheme.
    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn DecryptionKey>, CryptoError>;

    /// Encrypts `text` to a public key: the SEC1 uncompressed point, 65 bytes.
    ///
    /// # Errors
    /// [`CryptoError::InvalidKey`] if it is not a point of the curve, [`CryptoError::TooLong`]
    /// unless `text` has 1 to [`ENCRYPTED_TEXT_MAX`] bytes.
    fn encrypt(
        &self,
        rng: &mut dyn CryptoRng,
        point: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, CryptoError>;
}

/// A private decryption key made in software, with the form in which it can be stored (sealed).
pub struct SoftwareDecryptionKey {
    /// The usable key.
    pub key: Arc<dyn DecryptionKey>,
    /// PKCS#8 DER of the private key.
    pub pkcs8: Secret,
}

/// Whatever holds a private decryption key.
pub trait DecryptionKey: Send + Sync {
    /// The public key: SEC1 uncompressed point, 65 bytes.
    fn public_key(&self) -> &[u8];

    /// Opens what [`EncryptionScheme::encrypt`] made.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`], whatever the reason.
    fn decrypt(&self, sealed: &[u8]) -> Result<Secret, CryptoError>;
}

/// A parsed public key.
pub trait VerifyingKey: Send + Sync {
    /// Verifies what [`SecureElement::sign_in`] made for `domain`.
    ///
    /// # Errors
    /// [`CryptoError::BadAuthentication`] if it does not verify, whatever the reason.
    fn verify_in(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError>;

    /// Verifies a document: [`Self::verify_in`] with [`Domain::Document`].
    ///
    /// # Errors
    /// As there.
    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.verify_in(Domain::Document, message, signature)
    }
}
