//! Public-key encryption for the suite [`crate::Suite::X25519_P256_AES128GCM_SHA256`]: HPKE (RFC
//! 9180) in base mode with DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-128-GCM, one message a
//! key. What it makes is `enc ‖ ciphertext ‖ tag`; `info` is a label of this product, `aad` empty.
//!
//! Both providers of the suite use it: sealing is rare, and the private key of the server needs no
//! speed here. Base mode says nothing about the sender.

use alloc::sync::Arc;
use alloc::vec::Vec;

use ::hpke::aead::{AeadTag, AesGcm128};
use ::hpke::inout::InOutBuf;
use ::hpke::kdf::HkdfSha256;
use ::hpke::kem::DhP256HkdfSha256;
use ::hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open_inout_detached,
    single_shot_seal_inout_detached_with_rng,
};
use p256::SecretKey;
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::generic::{POINT_LEN, check_uncompressed};
use crate::{
    AEAD_TAG_LEN, CryptoError, DecryptionKey, ENCRYPTED_TEXT_MAX, EncryptionScheme, Secret,
    SoftwareDecryptionKey,
};

/// `info` of RFC 9180 §5.1: nothing sealed for another purpose opens here.
const INFO: &[u8] = b"countersign.sealing.v1";

type Recipient = <DhP256HkdfSha256 as Kem>::PublicKey;
type Opening = <DhP256HkdfSha256 as Kem>::PrivateKey;
type Encapsulated = <DhP256HkdfSha256 as Kem>::EncappedKey;

/// HPKE to a P-256 key.
pub(crate) struct Hpke;

impl EncryptionScheme for Hpke {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareDecryptionKey, CryptoError> {
        let secret = SecretKey::try_generate_from_rng(rng).map_err(|_| CryptoError::Failed)?;
        let der = secret.to_pkcs8_der().map_err(|_| CryptoError::Failed)?;
        let pkcs8 = Secret::copied_from(der.as_bytes());
        Ok(SoftwareDecryptionKey { key: Arc::new(Opener::new(&secret)?), pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn DecryptionKey>, CryptoError> {
        let secret =
            SecretKey::from_pkcs8_der(der.expose()).map_err(|_| CryptoError::InvalidKey)?;
        Ok(Arc::new(Opener::new(&secret)?))
    }

    fn encrypt(
        &self,
        mut rng: &mut dyn CryptoRng,
        point: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        check_uncompressed(point)?;
        let to = Recipient::from_bytes(point).map_err(|_| CryptoError::InvalidKey)?;
        if text.is_empty() || text.len() > ENCRYPTED_TEXT_MAX {
            return Err(CryptoError::TooLong);
        }
        // At its final size, so that the text leaves no copy behind; it is encrypted in place.
        let mut sealed = alloc::vec![0; POINT_LEN + text.len() + AEAD_TAG_LEN];
        let (enc, rest) = sealed.split_at_mut(POINT_LEN);
        let (cipher, end) = rest.split_at_mut(text.len());
        cipher.copy_from_slice(text);
        let made = single_shot_seal_inout_detached_with_rng::<
            AesGcm128,
            HkdfSha256,
            DhP256HkdfSha256,
        >(&OpModeS::Base, &to, INFO, InOutBuf::from(&mut *cipher), &[], &mut rng);
        let Ok((key, tag)) = made else {
            cipher.zeroize();
            return Err(CryptoError::Failed);
        };
        key.write_exact(enc);
        tag.write_exact(end);
        Ok(sealed)
    }
}

/// Opens what was encrypted to its point.
struct Opener {
    /// Wiped on drop by its library.
    secret: Opening,
    point: [u8; POINT_LEN],
}

impl Opener {
    fn new(secret: &SecretKey) -> Result<Self, CryptoError> {
        let encoded = secret.public_key().to_sec1_point(false);
        let point = encoded.as_bytes().try_into().expect("an uncompressed point has 65 bytes");
        let mut bytes = secret.to_bytes();
        let opening = Opening::from_bytes(&bytes).map_err(|_| CryptoError::InvalidKey);
        bytes.as_mut_slice().zeroize();
        Ok(Self { secret: opening?, point })
    }
}

impl DecryptionKey for Opener {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn decrypt(&self, sealed: &[u8]) -> Result<Secret, CryptoError> {
        let refused = CryptoError::BadAuthentication;
        let (enc, rest) = sealed.split_at_checked(POINT_LEN).ok_or(refused)?;
        let len = rest.len().checked_sub(AEAD_TAG_LEN).ok_or(refused)?;
        if len == 0 || len > ENCRYPTED_TEXT_MAX {
            return Err(refused);
        }
        let (cipher, tag) = rest.split_at(len);
        let enc = Encapsulated::from_bytes(enc).map_err(|_| refused)?;
        let tag = AeadTag::<AesGcm128>::from_bytes(tag).map_err(|_| refused)?;
        Secret::try_filled(len, |out| {
            out.copy_from_slice(cipher);
            single_shot_open_inout_detached::<AesGcm128, HkdfSha256, DhP256HkdfSha256>(
                &OpModeR::Base,
                &self.secret,
                &enc,
                INFO,
                InOutBuf::from(out),
                &[],
                &tag,
            )
            .map_err(|_| refused)
        })
    }
}
