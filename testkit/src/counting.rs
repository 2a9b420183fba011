//! Cryptography that counts itself, for exact operation counts (goal G11 of the channel).
//!
//! ```
//! use testkit::counting::{CountingProvider, Counts};
//!
//! let counting = CountingProvider::new(countersign_crypto::rust_crypto::provider());
//! let provider = counting.provider();
//! let (_, counts) = counting.measure(|| provider.mac.mac(b"key", &[b"message"]));
//! assert_eq!(counts, Counts { mac: 1, ..Counts::default() });
//! ```

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_crypto::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, CryptoError, CryptoRng, DecryptionKey, Digest,
    Domain, EncryptionScheme, ExchangeKey, Hash, Kdf, KeyExchange, Mac, Provider, Secret,
    SecureElement, SignatureScheme, SoftwareDecryptionKey, SoftwareKey, VerifyingKey,
};

/// Declares the kinds of operations once: the public numbers and the shared counters.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How many operations of each kind were begun, failed ones included.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        impl Counters {
            fn snapshot(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        /// What was counted between two snapshots: the later minus the earlier.
        impl Sub for Counts {
            type Output = Self;

            fn sub(self, earlier: Self) -> Self {
                Self { $($name: self.$name - earlier.$name,)* }
            }
        }
    };
}

operations! {
    /// Hashes.
    hash,
    /// MACs computed or verified; a verification is one.
    mac,
    /// HKDF extractions.
    kdf_extract,
    /// HKDF expansions.
    kdf_expand,
    /// AEAD keys prepared.
    aead_key,
    /// AEAD encryptions.
    seal,
    /// AEAD decryptions, of forged data too.
    open,
    /// Ephemeral key pairs made.
    exchange_generate,
    /// Ephemeral agreements (a private-key operation).
    agree,
    /// Signing keys made.
    key_generate,
    /// Signing keys loaded from PKCS#8.
    key_load,
    /// Public keys parsed.
    public_key,
    /// Signatures made (a private-key operation).
    sign,
    /// Signatures verified, bad ones too.
    verify,
    /// Public-key encryptions.
    encrypt,
    /// Decryptions (a private-key operation).
    decrypt,
}

impl Counts {
    /// Operations with a private key: signatures, agreements, decryptions. G11: none before the
    /// client is authenticated.
    #[must_use]
    pub fn private_key(&self) -> u64 {
        self.sign + self.agree + self.decrypt
    }

    /// Keys made, ephemeral or signing. G11: none before the client is authenticated.
    #[must_use]
    pub fn generated(&self) -> u64 {
        self.exchange_generate + self.key_generate
    }
}

/// Wraps a [`Provider`] so that every operation counts; results are the wrapped provider's.
///
/// Clones of [`provider`](Self::provider) and every key that comes out of it count here too.
/// Give each party its own, to know who did what.
pub struct CountingProvider {
    inner: Provider,
    counters: Arc<Counters>,
}

impl CountingProvider {
    /// Counts what is done with `inner`, from zero.
    #[must_use]
    pub fn new(inner: Provider) -> Self {
        Self { inner, counters: Arc::default() }
    }

    /// The provider to hand to the code under test.
    #[must_use]
    pub fn provider(&self) -> Provider {
        Provider {
            suite: self.inner.suite,
            hash: self.wrap(&self.inner.hash),
            mac: self.wrap(&self.inner.mac),
            kdf: self.wrap(&self.inner.kdf),
            aead: self.wrap(&self.inner.aead),
            key_exchange: self.wrap(&self.inner.key_exchange),
            signature: self.wrap(&self.inner.signature),
            encryption: self
                .inner
                .encryption
                .as_ref()
                .map(|inner| self.wrap(inner) as Arc<dyn EncryptionScheme>),
            sealing: self.wrap(&self.inner.sealing),
        }
    }

    /// A key made elsewhere (a chip, an HSM, a fixture), its signatures counted here.
    #[must_use]
    pub fn secure_element(&self, key: Arc<dyn SecureElement>) -> Arc<dyn SecureElement> {
        self.wrap(&key)
    }

    /// The counts since the beginning. The difference of two snapshots counts what lies between.
    #[must_use]
    pub fn snapshot(&self) -> Counts {
        self.counters.snapshot()
    }

    /// What `work` returns and what it cost.
    pub fn measure<T>(&self, work: impl FnOnce() -> T) -> (T, Counts) {
        let before = self.snapshot();
        let result = work();
        (result, self.snapshot() - before)
    }

    fn wrap<T: ?Sized>(&self, inner: &Arc<T>) -> Arc<Counted<Arc<T>>> {
        Arc::new(Counted { inner: Arc::clone(inner), counters: Arc::clone(&self.counters) })
    }
}

/// An algorithm or key with the counters it reports to.
struct Counted<T> {
    inner: T,
    counters: Arc<Counters>,
}

impl<T> Counted<T> {
    fn count(&self, counter: impl FnOnce(&Counters) -> &AtomicU64) {
        counter(&self.counters).fetch_add(1, Ordering::Relaxed);
    }

    /// `inner`, reporting to the same counters.
    fn share<U>(&self, inner: U) -> Counted<U> {
        Counted { inner, counters: Arc::clone(&self.counters) }
    }
}

impl Hash for Counted<Arc<dyn Hash>> {
    fn hash(&self, parts: &[&[u8]]) -> Digest {
        self.count(|c| &c.hash);
        self.inner.hash(parts)
    }
}

impl Mac for Counted<Arc<dyn Mac>> {
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest {
        self.count(|c| &c.mac);
        self.inner.mac(key, parts)
    }

    fn verify(&self, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> Result<(), CryptoError> {
        self.count(|c| &c.mac);
        self.inner.verify(key, parts, tag)
    }
}

impl Kdf for Counted<Arc<dyn Kdf>> {
    fn extract(&self, salt: &[u8], input_key: &[u8]) -> Secret {
        self.count(|c| &c.kdf_extract);
        self.inner.extract(salt, input_key)
    }

    fn expand(&self, prk: &Secret, info: &[&[u8]], len: usize) -> Result<Secret, CryptoError> {
        self.count(|c| &c.kdf_expand);
        self.inner.expand(prk, info, len)
    }
}

impl Aead for Counted<Arc<dyn Aead>> {
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError> {
        self.count(|c| &c.aead_key);
        Ok(Box::new(self.share(self.inner.key(key)?)))
    }
}

impl AeadKey for Counted<Box<dyn AeadKey>> {
    fn seal_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; AEAD_TAG_LEN], CryptoError> {
        self.count(|c| &c.seal);
        self.inner.seal_in_place(nonce, aad, data)
    }

    fn open_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, CryptoError> {
        self.count(|c| &c.open);
        self.inner.open_in_place(nonce, aad, sealed)
    }
}

impl KeyExchange for Counted<Arc<dyn KeyExchange>> {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError> {
        self.count(|c| &c.exchange_generate);
        Ok(Box::new(self.share(self.inner.generate(rng)?)))
    }
}

impl ExchangeKey for Counted<Box<dyn ExchangeKey>> {
    fn share(&self) -> &[u8] {
        self.inner.share()
    }

    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError> {
        self.count(|c| &c.agree);
        self.inner.agree(peer_share)
    }
}

impl SignatureScheme for Counted<Arc<dyn SignatureScheme>> {
    fn curve_oid(&self) -> &'static str {
        self.inner.curve_oid()
    }

    fn signature_oid(&self) -> &'static str {
        self.inner.signature_oid()
    }

    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError> {
        self.count(|c| &c.key_generate);
        let SoftwareKey { key, pkcs8 } = self.inner.generate(rng)?;
        Ok(SoftwareKey { key: Arc::new(self.share(key)), pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError> {
        self.count(|c| &c.key_load);
        Ok(Arc::new(self.share(self.inner.load_pkcs8(der)?)))
    }

    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError> {
        self.count(|c| &c.public_key);
        Ok(Arc::new(self.share(self.inner.public_key(point)?)))
    }
}

impl SecureElement for Counted<Arc<dyn SecureElement>> {
    fn public_key(&self) -> &[u8] {
        self.inner.public_key()
    }

    fn sign_in(
        &self,
        rng: &mut dyn CryptoRng,
        domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.count(|c| &c.sign);
        self.inner.sign_in(rng, domain, message)
    }
}

impl VerifyingKey for Counted<Arc<dyn VerifyingKey>> {
    fn verify_in(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.count(|c| &c.verify);
        self.inner.verify_in(domain, message, signature)
    }
}

impl EncryptionScheme for Counted<Arc<dyn EncryptionScheme>> {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareDecryptionKey, CryptoError> {
        self.count(|c| &c.key_generate);
        let SoftwareDecryptionKey { key, pkcs8 } = self.inner.generate(rng)?;
        Ok(SoftwareDecryptionKey { key: Arc::new(self.share(key)), pkcs8 })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn DecryptionKey>, CryptoError> {
        self.count(|c| &c.key_load);
        Ok(Arc::new(self.share(self.inner.load_pkcs8(der)?)))
    }

    fn encrypt(
        &self,
        rng: &mut dyn CryptoRng,
        point: &[u8],
        text: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        self.count(|c| &c.encrypt);
        self.inner.encrypt(rng, point, text)
    }
}

impl DecryptionKey for Counted<Arc<dyn DecryptionKey>> {
    fn public_key(&self) -> &[u8] {
        self.inner.public_key()
    }

    fn decrypt(&self, sealed: &[u8]) -> Result<Secret, CryptoError> {
        self.count(|c| &c.decrypt);
        self.inner.decrypt(sealed)
    }
}

#[cfg(test)]
mod tests {
    use countersign_crypto::rust_crypto;

    use super::*;
    use crate::rng::seeded;

    fn counting() -> (CountingProvider, Provider) {
        let counting = CountingProvider::new(rust_crypto::provider());
        let provider = counting.provider();
        (counting, provider)
    }

    #[test]
    fn symmetric_operations_are_counted_by_kind_and_keep_their_results() {
        let (counting, provider) = counting();
        let plain = rust_crypto::provider();
        assert_eq!(provider.hash.hash(&[b"a"]), plain.hash.hash(&[b"a"]));
        let tag = provider.mac.mac(b"k", &[b"a"]);
        provider.mac.verify(b"k", &[b"a"], &tag).unwrap();
        provider.mac.verify(b"k", &[b"b"], &tag).unwrap_err();
        let prk = provider.kdf.extract(b"salt", b"key");
        let key = provider.kdf.expand(&prk, &[b"info"], 16).unwrap();
        let aead = provider.aead.key(&key).unwrap();
        let mut data = b"text".to_vec();
        aead.seal(&[0; 12], b"", &mut data).unwrap();
        aead.open(&[0; 12], b"", &mut data.clone()).unwrap();
        aead.open(&[1; 12], b"", &mut data).unwrap_err();
        let expected = Counts {
            hash: 1,
            mac: 3,
            kdf_extract: 1,
            kdf_expand: 1,
            aead_key: 1,
            seal: 1,
            open: 2,
            ..Counts::default()
        };
        assert_eq!(counting.snapshot(), expected);
        assert_eq!((expected.private_key(), expected.generated()), (0, 0));
    }

    #[test]
    fn keys_that_come_out_of_the_provider_count_too() {
        let (counting, provider) = counting();
        let rng = &mut seeded(1);
        let made = provider.signature.generate(rng).unwrap();
        let loaded = provider.signature.load_pkcs8(&made.pkcs8).unwrap();
        let public = provider.signature.public_key(made.key.public_key()).unwrap();
        let signature = loaded.sign(rng, b"message").unwrap();
        public.verify(b"message", &signature).unwrap();
        public.verify(b"another", &signature).unwrap_err();
        let ours = provider.key_exchange.generate(rng).unwrap();
        let theirs = rust_crypto::provider().key_exchange.generate(rng).unwrap();
        ours.agree(theirs.share()).unwrap();
        let expected = Counts {
            exchange_generate: 1,
            agree: 1,
            key_generate: 1,
            key_load: 1,
            public_key: 1,
            sign: 1,
            verify: 2,
            ..Counts::default()
        };
        assert_eq!(counting.snapshot(), expected);
        assert_eq!((expected.private_key(), expected.generated()), (2, 2));
    }

    #[test]
    fn sealing_and_opening_are_counted() {
        let (counting, provider) = counting();
        let rng = &mut seeded(3);
        let made = provider.sealing.generate(rng).unwrap();
        let loaded = provider.sealing.load_pkcs8(&made.pkcs8).unwrap();
        let sealed = provider.sealing.encrypt(rng, made.key.public_key(), b"text").unwrap();
        assert_eq!(loaded.decrypt(&sealed).unwrap().expose(), b"text");
        made.key.decrypt(&sealed[1..]).unwrap_err();
        let expected =
            Counts { key_generate: 1, key_load: 1, encrypt: 1, decrypt: 2, ..Counts::default() };
        assert_eq!(counting.snapshot(), expected);
        assert_eq!(expected.private_key(), 2);
    }

    #[test]
    fn a_key_from_elsewhere_counts_and_measuring_counts_only_its_own() {
        let (counting, provider) = counting();
        let rng = &mut seeded(2);
        let chip = rust_crypto::provider().signature.generate(rng).unwrap().key;
        let key = counting.secure_element(chip.clone());
        assert_eq!(key.public_key(), chip.public_key());
        key.sign(rng, b"before").unwrap();
        let (signature, counts) = counting.measure(|| key.sign(rng, b"m").unwrap());
        assert_eq!(counts, Counts { sign: 1, ..Counts::default() });
        // The unwrapped key and another provider stay uncounted.
        chip.sign(rng, b"m").unwrap();
        let public = rust_crypto::provider().signature.public_key(key.public_key()).unwrap();
        public.verify(b"m", &signature).unwrap();
        assert_eq!(counting.snapshot().verify, 0);
        assert_eq!(counting.snapshot().sign, 2);
        drop(provider);
    }
}
