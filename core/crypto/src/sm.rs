//! The suite [`Suite::SM2_SM4GCM_SM3`], of the Chinese national standards, in pure Rust: `no_std`,
//! deterministic under a given generator, on RustCrypto crates.
//!
//! Exchange: Diffie-Hellman on the SM2 curve (RFC 8998 §3.2, `curveSM2`). Signatures: SM2 with SM3
//! (GB/T 32918.2), with one distinguishing id per [`Domain`]. Encryption: SM2 (GB/T 32918.4),
//! C1 C3 C2 in the DER form of GM/T 0009. AEAD: SM4-GCM (RFC 8998 §3.1). Hash: SM3 (GB/T 32905).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use rand_core::CryptoRng;
use sm2::dsa::signature::{RandomizedSigner, Verifier};
use sm2::dsa::{Signature, SigningKey};
use sm2::elliptic_curve::Generate;
use sm2::elliptic_curve::sec1::ToSec1Point;
use sm2::pkcs8::der::Decode;
use sm2::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use sm2::pke::{Cipher, EncryptingKey};
use sm2::{AffinePoint, NonZeroScalar, ProjectivePoint, PublicKey, Scalar, SecretKey};
use sm3::Sm3;
use sm4::Sm4;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::generic::{Gcm, Over, POINT_LEN, check_uncompressed};
use crate::{
    CryptoError, DecryptionKey, Digest, Domain, ENCRYPTED_TEXT_MAX, EncryptionScheme, ExchangeKey,
    HASH_LEN, Hash, KeyExchange, Provider, Secret, SecureElement, SignatureScheme,
    SoftwareDecryptionKey, SoftwareKey, Suite, VerifyingKey,
};

/// The curve `sm2p256v1` and `SM2-with-SM3` (GM/T 0006).
const SM2_P256_V1: &str = "1.2.156.10197.1.301";
const SM2_WITH_SM3: &str = "1.2.156.10197.1.501";
/// The distinguishing id of certificates and documents (GM/T 0009 §10), and that of handshakes.
const DOCUMENT_ID: &str = "1234567812345678";
const HANDSHAKE_ID: &str = "Countersign v1 handshake";

/// The suite [`Suite::SM2_SM4GCM_SM3`] in pure Rust.
#[must_use]
pub fn provider() -> Provider {
    Provider {
        suite: Suite::SM2_SM4GCM_SM3,
        hash: Arc::new(Over::<Sm3>::new()),
        mac: Arc::new(Over::<Sm3>::new()),
        kdf: Arc::new(Over::<Sm3>::new()),
        aead: Arc::new(Gcm::<Sm4>::new()),
        key_exchange: Arc::new(Exchange),
        signature: Arc::new(Signatures),
        encryption: Some(Arc::new(Encryption)),
        sealing: Arc::new(Encryption),
    }
}

/// A point of the curve, not at infinity, in its one encoding.
fn parse_point(point: &[u8]) -> Result<PublicKey, CryptoError> {
    check_uncompressed(point)?;
    PublicKey::from_sec1_bytes(point).map_err(|_| CryptoError::InvalidKey)
}

fn encode_point(point: &AffinePoint) -> [u8; POINT_LEN] {
    let encoded = point.to_sec1_point(false);
    encoded.as_bytes().try_into().expect("an uncompressed point has 65 bytes")
}

fn generate(rng: &mut dyn CryptoRng) -> Result<SecretKey, CryptoError> {
    let scalar = NonZeroScalar::try_generate_from_rng(rng).map_err(|_| CryptoError::Failed)?;
    Ok(scalar.into())
}

fn to_pkcs8(key: &SecretKey) -> Result<Secret, CryptoError> {
    let der = key.to_pkcs8_der().map_err(|_| CryptoError::Failed)?;
    Ok(Secret::copied_from(der.as_bytes()))
}

fn from_pkcs8(der: &Secret) -> Result<SecretKey, CryptoError> {
    SecretKey::from_pkcs8_der(der.expose()).map_err(|_| CryptoError::InvalidKey)
}

/// `[d]P`, encoded; the scalar multiplication takes the same time for every `d`.
fn multiply(key: &SecretKey, point: &AffinePoint) -> Zeroizing<[u8; POINT_LEN]> {
    let mut scalar = key.to_nonzero_scalar();
    let mut product = (ProjectivePoint::from(*point) * *scalar).to_affine();
    scalar.zeroize();
    let encoded = Zeroizing::new(encode_point(&product));
    product.zeroize();
    encoded
}

struct Exchange;

impl KeyExchange for Exchange {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError> {
        let secret = generate(rng)?;
        let share = encode_point(secret.public_key().as_affine());
        Ok(Box::new(Share { secret, share }))
    }
}

struct Share {
    secret: SecretKey,
    share: [u8; POINT_LEN],
}

impl ExchangeKey for Share {
    fn share(&self) -> &[u8] {
        &self.share
    }

    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError> {
        let peer = parse_point(peer_share)?;
        // The curve has cofactor 1, so a valid share cannot lead to infinity.
        let product = multiply(&self.secret, peer.as_affine());
        Ok(Secret::copied_from(&product[1..=HASH_LEN]))
    }
}

struct Signatures;

impl SignatureScheme for Signatures {
    fn curve_oid(&self) -> &'static str {
        SM2_P256_V1
    }

    fn signature_oid(&self) -> &'static str {
        SM2_WITH_SM3
    }

    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError> {
        let secret = generate(rng)?;
        Ok(SoftwareKey { key: Arc::new(PrivateKey::new(&secret)?), pkcs8: to_pkcs8(&secret)? })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError> {
        Ok(Arc::new(PrivateKey::new(&from_pkcs8(der)?)?))
    }

    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError> {
        let key = parse_point(point)?;
        let in_domain =
            |id| sm2::dsa::VerifyingKey::new(id, key).map_err(|_| CryptoError::InvalidKey);
        let (document, handshake) = (in_domain(DOCUMENT_ID)?, in_domain(HANDSHAKE_ID)?);
        Ok(Arc::new(ParsedKey { document, handshake }))
    }
}

/// One key per domain: each keeps the hash `Z` over its distinguishing id and the public key.
struct PrivateKey {
    document: SigningKey,
    handshake: SigningKey,
    point: [u8; POINT_LEN],
}

impl PrivateKey {
    fn new(secret: &SecretKey) -> Result<Self, CryptoError> {
        let mut scalar = secret.to_nonzero_scalar();
        // GB/T 32918.1 §6.1: 1 to n-2, for signing divides by d+1.
        if bool::from((*scalar + Scalar::ONE).is_zero()) {
            return Err(CryptoError::InvalidKey);
        }
        let in_domain =
            |id| SigningKey::from_nonzero_scalar(id, scalar).map_err(|_| CryptoError::InvalidKey);
        let (document, handshake) = (in_domain(DOCUMENT_ID)?, in_domain(HANDSHAKE_ID)?);
        scalar.zeroize();
        let point = encode_point(document.verifying_key().as_affine());
        Ok(Self { document, handshake, point })
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        // The crate's key does not wipe itself: overwrite it with the key 1, visibly for the
        // optimizer, which would otherwise drop the write.
        if let Some(one) = Option::from(NonZeroScalar::new(Scalar::ONE))
            && let Ok(nobody) = SigningKey::from_nonzero_scalar("", one)
        {
            self.document = nobody.clone();
            self.handshake = nobody;
            core::hint::black_box(&*self);
        }
    }
}

impl SecureElement for PrivateKey {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn sign_in(
        &self,
        rng: &mut dyn CryptoRng,
        domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let key = match domain {
            Domain::Document => &self.document,
            Domain::Handshake => &self.handshake,
        };
        // The crate derives k as RFC 6979 does, with added entropy: safe under a repeating
        // generator.
        let signature: Signature =
            key.try_sign_with_rng(rng, message).map_err(|_| CryptoError::Failed)?;
        Ok(signature.to_der().to_vec())
    }
}

struct ParsedKey {
    document: sm2::dsa::VerifyingKey,
    handshake: sm2::dsa::VerifyingKey,
}

impl VerifyingKey for ParsedKey {
    fn verify_in(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let key = match domain {
            Domain::Document => &self.document,
            Domain::Handshake => &self.handshake,
        };
        let signature =
            Signature::from_der(signature).map_err(|_| CryptoError::BadAuthentication)?;
        key.verify(message, &signature).map_err(|_| CryptoError::BadAuthentication)
    }
}

struct Encryption;

impl EncryptionScheme for Encryption {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareDecryptionKey, CryptoError> {
        let secret = generate(rng)?;
        let pkcs8 = to_pkcs8(&secret)?;
        Ok(SoftwareDecryptionKey { key: Arc::new(Opener::new(secret)), pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn DecryptionKey>, CryptoError> {
        Ok(Arc::new(Opener::new(from_pkcs8(der)?)))
    }

    fn encrypt(
        &self,
        mut rng: &mut dyn CryptoRng,
        point: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        let key = EncryptingKey::new(parse_point(point)?);
        if text.is_empty() || text.len() > ENCRYPTED_TEXT_MAX {
            return Err(CryptoError::TooLong);
        }
        key.encrypt_der(&mut rng, text).map_err(|_| CryptoError::Failed)
    }
}

/// Opens what was encrypted to its point. The crate's own decryption compares C3 byte by byte until
/// one differs, and takes a key stream of zeros; only its parser is used.
struct Opener {
    secret: SecretKey,
    point: [u8; POINT_LEN],
}

/// Longest DER of a ciphertext: a header of 4, two INTEGERs of 35, C3 with 2, C2 with 4.
const CIPHERTEXT_MAX: usize = 4 + 2 * 35 + 2 + HASH_LEN + 4 + ENCRYPTED_TEXT_MAX;

impl Opener {
    fn new(secret: SecretKey) -> Self {
        let point = encode_point(secret.public_key().as_affine());
        Self { secret, point }
    }
}

/// The KDF of GB/T 32918.4 §5.4.3, over the two coordinates.
fn key_stream(coordinates: &[u8], len: usize) -> Secret {
    let mut stream = Zeroizing::new(Vec::with_capacity(len.next_multiple_of(HASH_LEN)));
    for counter in (1_u32..).take(len.div_ceil(HASH_LEN)) {
        let mut block = Over::<Sm3>::new().hash(&[coordinates, &counter.to_be_bytes()]);
        stream.extend_from_slice(&block);
        block.zeroize();
    }
    Secret::copied_from(&stream[..len])
}

impl DecryptionKey for Opener {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn decrypt(&self, sealed: &[u8]) -> Result<Secret, CryptoError> {
        let refused = CryptoError::BadAuthentication;
        if sealed.len() > CIPHERTEXT_MAX {
            return Err(refused);
        }
        // Strict DER, and C1 lies on the curve (B1).
        let cipher = Cipher::<'_, sm2::Sm2, Sm3>::from_der(sealed).map_err(|_| refused)?;
        let c2 = cipher.c2();
        if c2.is_empty() || c2.len() > ENCRYPTED_TEXT_MAX {
            return Err(refused);
        }
        let product = multiply(&self.secret, cipher.c1()); // B3
        let (x, y) = product[1..].split_at(HASH_LEN);
        let stream = key_stream(&product[1..], c2.len()); // B4
        let any = stream.expose().iter().fold(0, |any, byte| any | byte);
        let text = Secret::try_filled(c2.len(), |out| {
            for ((out, c2), key) in out.iter_mut().zip(c2).zip(stream.expose()) {
                *out = c2 ^ key; // B5
            }
            Ok::<(), CryptoError>(())
        })?;
        let wanted: Digest = Over::<Sm3>::new().hash(&[x, text.expose(), y]);
        // B6, and B4's refusal of a stream of zeros, with one outcome.
        let good = wanted.as_slice().ct_eq(cipher.c3()) & !any.ct_eq(&0_u8);
        if bool::from(good) { Ok(text) } else { Err(refused) }
    }
}
