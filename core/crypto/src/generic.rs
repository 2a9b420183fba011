//! What the pure-Rust suites share, written once: hash, HMAC and HKDF over any digest, GCM over any
//! block cipher, and the one encoding of points.

use alloc::boxed::Box;
use core::marker::PhantomData;

use aes_gcm::aead::array::typenum::{U12, U16, U32};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{AesGcm, Nonce, Tag};
use hmac::{EagerHash, Hmac, Mac as _};
use zeroize::Zeroize;

use crate::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, CryptoError, Digest, HASH_LEN, Hash, Kdf, Mac,
    Secret,
};

/// Length of an uncompressed point of a 256-bit curve (SEC1 §2.3.3).
pub(crate) const POINT_LEN: usize = 65;

/// Only one encoding per key, so that a key is its bytes.
pub(crate) fn check_uncompressed(point: &[u8]) -> Result<(), CryptoError> {
    if point.len() == POINT_LEN && point[0] == 4 { Ok(()) } else { Err(CryptoError::InvalidKey) }
}

/// Hash, HMAC and HKDF over `D`.
pub(crate) struct Over<D>(PhantomData<fn() -> D>);

impl<D> Over<D> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

/// A digest with the output length of every suite.
pub(crate) trait SuiteDigest: EagerHash + hmac::digest::Digest<OutputSize = U32> {}

impl<D: EagerHash + hmac::digest::Digest<OutputSize = U32>> SuiteDigest for D {}

impl<D: SuiteDigest> Hash for Over<D> {
    fn hash(&self, parts: &[&[u8]]) -> Digest {
        let mut hash = D::new();
        for part in parts {
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl<D: SuiteDigest> Mac for Over<D>
where
    Hmac<D>: KeyInit + hmac::Mac<OutputSize = U32>,
{
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest {
        let mut mac = <Hmac<D> as KeyInit>::new_from_slice(key).expect("HMAC takes any key");
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

impl<D: SuiteDigest> Kdf for Over<D>
where
    Hmac<D>: hkdf::HmacImpl + hmac::digest::OutputSizeUser<OutputSize = U32>,
{
    fn extract(&self, salt: &[u8], input_key: &[u8]) -> Secret {
        let (mut prk, _) = hkdf::Hkdf::<D>::extract(Some(salt), input_key);
        let secret = Secret::copied_from(&prk);
        prk.as_mut_slice().zeroize();
        secret
    }

    fn expand(&self, prk: &Secret, info: &[&[u8]], len: usize) -> Result<Secret, CryptoError> {
        if prk.len() != HASH_LEN {
            return Err(CryptoError::TooLong);
        }
        let hkdf = hkdf::Hkdf::<D>::from_prk(prk.expose()).map_err(|_| CryptoError::TooLong)?;
        Secret::try_filled(len, |out| {
            hkdf.expand_multi_info(info, out).map_err(|_| CryptoError::TooLong)
        })
    }
}

/// GCM (NIST SP 800-38D) over the block cipher `C`.
pub(crate) struct Gcm<C>(PhantomData<fn() -> C>);

impl<C> Gcm<C> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<C> Aead for Gcm<C>
where
    AesGcm<C, U12>: KeyInit + AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync,
    C: 'static,
{
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError> {
        let key = <AesGcm<C, U12> as KeyInit>::new_from_slice(key.expose())
            .map_err(|_| CryptoError::InvalidKey)?;
        Ok(Box::new(GcmKey(key)))
    }
}

struct GcmKey<A>(A);

impl<A: AeadInOut<NonceSize = U12, TagSize = U16> + Send + Sync> AeadKey for GcmKey<A> {
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
