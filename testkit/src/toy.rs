//! **Not cryptography.** A provider whose algorithms only *bind*: equal inputs give equal outputs
//! and different inputs different ones, so that machines built on it refuse what they should.
//! Anyone can forge its signatures, compute its secrets and open what it sealed.
//!
//! It exists for the model of the channel (`core/channel/tests/model`), which runs the real
//! machines some 100 000 times and whose attacker moves, repeats and damages messages but computes
//! nothing. For everything else there are the real providers.
//!
//! [`Broken`] takes single properties away, so that the model can be shown to notice.

use std::sync::Arc;

use countersign_crypto::{
    AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, CryptoError, CryptoRng, Digest, Domain,
    ExchangeKey, HASH_LEN, Hash, Kdf, KeyExchange, Mac, Provider, Secret, SecureElement,
    SignatureScheme, SoftwareKey, Suite, VerifyingKey, rust_crypto,
};

/// What does not bind: the ways in which a provider can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Broken {
    /// The hash is the same for all inputs.
    pub hash: bool,
    /// The MAC is the same for all keys and messages.
    pub mac: bool,
    /// A derived key does not depend on what it is for.
    pub purpose: bool,
    /// The AEAD takes neither the nonce nor the associated data into account.
    pub place: bool,
    /// The AEAD opens whatever it is given.
    pub tag: bool,
    /// The exchange gives the same secret to everyone.
    pub exchange: bool,
    /// Every signature verifies.
    pub signature: bool,
}

/// The toy under the name of `suite`, broken as `broken` says.
#[must_use]
pub fn provider(suite: Suite, broken: Broken) -> Provider {
    let toy = Arc::new(Toy(broken));
    Provider {
        suite,
        hash: toy.clone(),
        mac: toy.clone(),
        kdf: toy.clone(),
        aead: toy.clone(),
        key_exchange: toy.clone(),
        signature: toy,
        encryption: None,
        // The model seals nothing to certificates; this one member is real.
        sealing: rust_crypto::provider().sealing,
    }
}

struct Toy(Broken);

const REFUSED: CryptoError = CryptoError::BadAuthentication;

/// Mixes `parts`, concatenated, into 256 bits: fast without optimisation, and without any claim.
fn mix(parts: &[&[u8]]) -> Digest {
    let bytes = parts.concat();
    let mut state = [0x243f_6a88_85a3_08d3_u64, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0];
    state[3] = bytes.len() as u64;
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    for (at, word) in words.chain([0; 12]).enumerate() {
        let mut mixed = (state[at % 4] ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^= mixed >> 29;
        state[at % 4] = mixed;
        state[(at + 1) % 4] = state[(at + 1) % 4].rotate_left(17).wrapping_add(mixed);
    }
    let mut out = [0; HASH_LEN];
    for (part, word) in out.chunks_mut(8).zip(state) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    out
}

impl Hash for Toy {
    fn hash(&self, parts: &[&[u8]]) -> Digest {
        if self.0.hash { [0x42; HASH_LEN] } else { mix(parts) }
    }
}

fn keyed(key: &[u8], parts: &[&[u8]]) -> Digest {
    let len = (key.len() as u64).to_le_bytes();
    mix(&[&[b"keyed", &len[..], key], parts].concat())
}

impl Mac for Toy {
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest {
        if self.0.mac { [0x43; HASH_LEN] } else { keyed(key, parts) }
    }
}

impl Kdf for Toy {
    fn extract(&self, salt: &[u8], input_key: &[u8]) -> Secret {
        Secret::copied_from(&keyed(salt, &[input_key]))
    }

    fn expand(&self, prk: &Secret, info: &[&[u8]], len: usize) -> Result<Secret, CryptoError> {
        let info = if self.0.purpose { Vec::new() } else { info.concat() };
        Secret::try_filled(len, |out| {
            for (count, part) in (0_u64..).zip(out.chunks_mut(HASH_LEN)) {
                let block = keyed(prk.expose(), &[&count.to_le_bytes(), &info]);
                part.copy_from_slice(&block[..part.len()]);
            }
            Ok(())
        })
    }
}

impl Aead for Toy {
    fn key(&self, key: &Secret) -> Result<Box<dyn AeadKey>, CryptoError> {
        Ok(Box::new(ToyKey { key: key.expose().to_vec(), broken: self.0 }))
    }
}

struct ToyKey {
    key: Vec<u8>,
    broken: Broken,
}

impl ToyKey {
    /// What a seal depends on besides key and data.
    fn place(&self, nonce: &[u8; AEAD_NONCE_LEN], aad: &[u8]) -> Digest {
        if self.broken.place { [0; HASH_LEN] } else { mix(&[nonce, aad]) }
    }

    fn cipher(&self, place: &Digest, data: &mut [u8]) {
        for (count, part) in (0_u64..).zip(data.chunks_mut(HASH_LEN)) {
            let stream = keyed(&self.key, &[b"stream", &count.to_le_bytes(), place]);
            part.iter_mut().zip(stream).for_each(|(byte, key)| *byte ^= key);
        }
    }

    fn tag(&self, place: &Digest, sealed: &[u8]) -> [u8; AEAD_TAG_LEN] {
        let tag = keyed(&self.key, &[b"tag", place, sealed]);
        *tag.first_chunk().expect("a digest is longer than a tag")
    }
}

impl AeadKey for ToyKey {
    fn seal_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; AEAD_TAG_LEN], CryptoError> {
        let place = self.place(nonce, aad);
        self.cipher(&place, data);
        Ok(self.tag(&place, data))
    }

    fn open_in_place(
        &self,
        nonce: &[u8; AEAD_NONCE_LEN],
        aad: &[u8],
        sealed: &mut [u8],
    ) -> Result<usize, CryptoError> {
        let len = sealed.len().checked_sub(AEAD_TAG_LEN).ok_or(REFUSED)?;
        let (data, tag) = sealed.split_at_mut(len);
        let place = self.place(nonce, aad);
        if self.tag(&place, data) != *tag && !self.broken.tag {
            return Err(REFUSED);
        }
        self.cipher(&place, data);
        Ok(len)
    }
}

/// The exchange is Diffie-Hellman in the additive group modulo this prime: commutative, and anyone
/// can divide.
const PRIME: u64 = (1 << 61) - 1;

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b) % u128::from(PRIME);
    u64::try_from(product).expect("below the prime")
}

impl KeyExchange for Toy {
    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<Box<dyn ExchangeKey>, CryptoError> {
        let secret = 1 + rng.next_u64() % (PRIME - 1);
        let share = times(secret, 7).to_be_bytes();
        Ok(Box::new(ToyExchange { secret, share, broken: self.0 }))
    }
}

struct ToyExchange {
    secret: u64,
    share: [u8; 8],
    broken: Broken,
}

impl ExchangeKey for ToyExchange {
    fn share(&self) -> &[u8] {
        &self.share
    }

    fn agree(&self, peer_share: &[u8]) -> Result<Secret, CryptoError> {
        let share = peer_share.try_into().map_err(|_| CryptoError::InvalidKey)?;
        let share = u64::from_be_bytes(share);
        if share == 0 || share >= PRIME {
            return Err(CryptoError::InvalidKey);
        }
        let secret = if self.broken.exchange { 1 } else { times(self.secret, share) };
        Ok(Secret::copied_from(&mix(&[&secret.to_be_bytes()])))
    }
}

/// Length of an uncompressed point: what certificates have room for.
const POINT_LEN: usize = 65;

impl Toy {
    fn load(&self, secret: &[u8]) -> Arc<dyn SecureElement> {
        let half = mix(&[b"public", secret]);
        let point = [&[4][..], &half, &half].concat();
        Arc::new(ToyElement { point })
    }
}

impl SignatureScheme for Toy {
    fn curve_oid(&self) -> &'static str {
        "1.2.3.4.1"
    }

    fn signature_oid(&self) -> &'static str {
        "1.2.3.4.2"
    }

    fn generate(&self, rng: &mut dyn CryptoRng) -> Result<SoftwareKey, CryptoError> {
        let mut secret = [0; HASH_LEN];
        rng.fill_bytes(&mut secret);
        Ok(SoftwareKey { key: self.load(&secret), pkcs8: Secret::copied_from(&secret) })
    }

    fn load_pkcs8(&self, der: &Secret) -> Result<Arc<dyn SecureElement>, CryptoError> {
        Ok(self.load(der.expose()))
    }

    fn public_key(&self, point: &[u8]) -> Result<Arc<dyn VerifyingKey>, CryptoError> {
        if point.len() != POINT_LEN || point[0] != 4 {
            return Err(CryptoError::InvalidKey);
        }
        Ok(Arc::new(ToyVerifier { point: point.to_vec(), broken: self.0 }))
    }
}

/// Anyone with the public key can make these; nobody in the model does.
fn sign(point: &[u8], domain: Domain, message: &[u8]) -> Digest {
    mix(&[b"signature", &[domain as u8], point, message])
}

struct ToyElement {
    point: Vec<u8>,
}

impl SecureElement for ToyElement {
    fn public_key(&self) -> &[u8] {
        &self.point
    }

    fn sign_in(
        &self,
        _rng: &mut dyn CryptoRng,
        domain: Domain,
        message: &[u8],
    ) -> Result<Vec<u8>, CryptoError> {
        Ok(sign(&self.point, domain, message).to_vec())
    }
}

struct ToyVerifier {
    point: Vec<u8>,
    broken: Broken,
}

impl VerifyingKey for ToyVerifier {
    fn verify_in(
        &self,
        domain: Domain,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let good = self.broken.signature || sign(&self.point, domain, message) == *signature;
        if good { Ok(()) } else { Err(REFUSED) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy(broken: Broken) -> Provider {
        provider(Suite::X25519_P256_AES128GCM_SHA256, broken)
    }

    #[test]
    fn every_bit_of_a_message_reaches_every_word_of_its_hash() {
        for len in [1, 7, 8, 9, 40, 300] {
            let message = vec![0x5a; len];
            let hash = mix(&[&message]);
            for at in 0..len {
                for bit in 0..8 {
                    let mut other = message.clone();
                    other[at] ^= 1 << bit;
                    let other = mix(&[&other]);
                    let words = hash.chunks(8).zip(other.chunks(8));
                    assert_eq!(words.filter(|(one, other)| one != other).count(), 4);
                }
            }
            assert_ne!(hash, mix(&[&message, &[0]]));
            assert_eq!(hash, mix(&[&message[..len / 2], &message[len / 2..]]));
        }
    }

    #[test]
    fn seals_signatures_and_exchanges_bind_unless_broken() {
        let key = Secret::copied_from(&[1; 16]);
        let open = |broken, nonce: u8, aad: &[u8], flip: usize| {
            let key = toy(broken).aead.key(&key).expect("key");
            let mut sealed = b"text".to_vec();
            key.seal(&[1; AEAD_NONCE_LEN], b"aad", &mut sealed).expect("sealed");
            sealed[flip % 20] ^= u8::from(flip < 20);
            key.open(&[nonce; AEAD_NONCE_LEN], aad, &mut sealed).map(|()| sealed)
        };
        let good = Broken::default();
        assert_eq!(open(good, 1, b"aad", 20), Ok(b"text".to_vec()));
        assert_eq!(open(good, 2, b"aad", 20), Err(REFUSED));
        assert_eq!(open(good, 1, b"add", 20), Err(REFUSED));
        (0..20).for_each(|at| assert_eq!(open(good, 1, b"aad", at), Err(REFUSED)));
        let place = Broken { place: true, ..good };
        assert_eq!(open(place, 2, b"add", 20), Ok(b"text".to_vec()));
        assert_eq!(open(place, 1, b"aad", 0), Err(REFUSED));
        assert!(open(Broken { tag: true, ..good }, 1, b"aad", 0).is_ok());

        let mut rng = crate::rng::seeded(1);
        for (broken, same) in [(good, false), (Broken { exchange: true, ..good }, true)] {
            let [a, b, c] = [(); 3].map(|()| toy(broken).key_exchange.generate(&mut rng));
            let [a, b, c] = [a, b, c].map(|key| key.expect("key"));
            let secret = |one: &dyn ExchangeKey, other: &dyn ExchangeKey| {
                one.agree(other.share()).expect("secret").expose().to_vec()
            };
            assert_eq!(secret(&*a, &*b), secret(&*b, &*a));
            assert_eq!(secret(&*a, &*b) == secret(&*a, &*c), same);
        }
        for (broken, good) in [(good, false), (Broken { signature: true, ..good }, true)] {
            let scheme = toy(broken).signature;
            let key = scheme.generate(&mut rng).expect("key").key;
            let signature = key.sign(&mut rng, b"message").expect("signed");
            let verifier = scheme.public_key(key.public_key()).expect("key");
            assert_eq!(verifier.verify(b"message", &signature), Ok(()));
            assert_eq!(verifier.verify(b"other", &signature).is_ok(), good);
            let other = verifier.verify_in(Domain::Handshake, b"message", &signature);
            assert_eq!(other.is_ok(), good);
        }
    }
}
