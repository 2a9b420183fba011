//! Private keys at rest: Argon2id over the passphrase gives a key, AES-256-GCM seals each file.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use countersign_crypto::{CryptoRng, Secret};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Argon2id's cost for new data directories: 64 MiB, 3 passes (RFC 9106 §4, second choice).
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// What a stored cost may be at most: a tampered file must not exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const SALT_LEN: usize = 16;
const KEY_LEN: usize = 32;
const FORMAT: &[u8] = b"countersign sealed key v1";

/// Why a key could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The passphrase is wrong, or the file was altered: one answer for both.
    #[error("the passphrase is wrong, or the sealed key was altered")]
    WrongPassphrase,
    /// The parameters of the key derivation are outside their bounds.
    #[error("the key derivation's parameters are damaged")]
    BadParameters,
}

/// How the sealing key comes from the passphrase; stored in the clear beside the sealed keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Derivation {
    /// Always `argon2id`.
    algorithm: String,
    memory_kib: u32,
    passes: u32,
    /// Hexadecimal.
    salt: String,
}

impl Derivation {
    /// Today's cost and a fresh salt.
    pub(crate) fn fresh(rng: &mut dyn CryptoRng) -> Self {
        let mut salt = [0; SALT_LEN];
        rng.fill_bytes(&mut salt);
        Self {
            algorithm: "argon2id".into(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: data_encoding::HEXLOWER.encode(&salt),
        }
    }

    /// The least that is allowed, for tests.
    #[cfg(test)]
    pub(crate) fn make_cheap(&mut self) {
        self.memory_kib = 64;
    }

    /// Derives the sealing key. Takes about a tenth of a second, on purpose.
    ///
    /// # Errors
    /// [`SealError::BadParameters`].
    pub(crate) fn derive(&self, passphrase: &Secret) -> Result<Sealer, SealError> {
        let bad = SealError::BadParameters;
        let salt = data_encoding::HEXLOWER.decode(self.salt.as_bytes()).map_err(|_| bad)?;
        if self.algorithm != "argon2id"
            || self.memory_kib > MEMORY_KIB_MAX
            || self.passes > PASSES_MAX
            || salt.len() != SALT_LEN
        {
            return Err(bad);
        }
        let params =
            Params::new(self.memory_kib, self.passes, 1, Some(KEY_LEN)).map_err(|_| bad)?;
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let key = Secret::try_filled(KEY_LEN, |out| {
            argon.hash_password_into(passphrase.expose(), &salt, out).map_err(|_| bad)
        })?;
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).map_err(|_| bad)?;
        Ok(Sealer { key: LessSafeKey::new(key) })
    }
}

/// Seals and opens the keys of one data directory.
pub(crate) struct Sealer {
    key: LessSafeKey,
}

impl Sealer {
    /// `nonce ‖ ciphertext ‖ tag`, bound to `name` so that files cannot be swapped.
    ///
    /// # Errors
    /// [`SealError::BadParameters`] for a key of gigabytes.
    pub(crate) fn seal(
        &self,
        name: &str,
        secret: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut body = secret.expose().to_vec();
        body.reserve_exact(AES_256_GCM.tag_len());
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad(name), &mut body)
            .map_err(|_| SealError::BadParameters)?;
        Ok([&nonce[..], &body].concat())
    }

    /// Opens what [`Self::seal`] made under the same name.
    ///
    /// # Errors
    /// [`SealError::WrongPassphrase`].
    pub(crate) fn open(&self, name: &str, sealed: &[u8]) -> Result<Secret, SealError> {
        let wrong = SealError::WrongPassphrase;
        let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(wrong)?;
        let mut body = zeroize::Zeroizing::new(body.to_vec());
        let open = self
            .key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad(name), &mut body)
            .map_err(|_| wrong)?;
        Ok(Secret::copied_from(open))
    }
}

fn aad(name: &str) -> Aad<Vec<u8>> {
    Aad::from([FORMAT, name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap(seed: u64) -> Derivation {
        let mut derivation = Derivation::fresh(&mut testkit::rng::seeded(seed));
        derivation.make_cheap();
        derivation
    }

    #[test]
    fn keys_open_only_with_passphrase_name_and_bytes() {
        let mut rng = testkit::rng::seeded(1);
        let passphrase = |text: &str| Secret::copied_from(text.as_bytes());
        let sealer = cheap(1).derive(&passphrase("right")).unwrap();
        let sealed = sealer.seal("root", &passphrase("key"), &mut rng).unwrap();
        assert_eq!(sealer.open("root", &sealed).unwrap().expose(), b"key");
        let wrong = Some(SealError::WrongPassphrase);
        assert_eq!(sealer.open("tls", &sealed).err(), wrong);
        let other = cheap(1).derive(&passphrase("wrong")).unwrap();
        assert_eq!(other.open("root", &sealed).err(), wrong);
        let salted = cheap(2).derive(&passphrase("right")).unwrap();
        assert_eq!(salted.open("root", &sealed).err(), wrong);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert_eq!(sealer.open("root", &bad).err(), wrong);
            assert_eq!(sealer.open("root", &sealed[..at]).err(), wrong);
        }
    }

    #[test]
    fn costs_are_bounded() {
        for change in [
            |d: &mut Derivation| d.memory_kib = u32::MAX,
            |d: &mut Derivation| d.passes = u32::MAX,
            |d: &mut Derivation| d.salt = "zz".into(),
            |d: &mut Derivation| d.algorithm = "md5".into(),
        ] {
            let mut derivation = cheap(3);
            change(&mut derivation);
            let derived = derivation.derive(&Secret::copied_from(b"x")).err();
            assert_eq!(derived, Some(SealError::BadParameters));
        }
    }
}
