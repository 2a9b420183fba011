//! The key block protection key and the keys it makes for one block.

use alloc::vec::Vec;

use countersign_crypto::Secret;

use crate::leniency::Tolerance;
use crate::{BlockCipher, CipherError, Ciphers, Tr31Error, Version, policy};

/// A key that stays where it is (an HSM) and computes CMACs there.
pub trait CmacKey: Send + Sync {
    /// Its cipher.
    fn cipher(&self) -> BlockCipher;

    /// Its length in bytes.
    fn key_len(&self) -> usize;

    /// The whole CMAC of `data`: one block long.
    ///
    /// # Errors
    /// [`CipherError`] if the key cannot be used.
    fn cmac(&self, data: &[u8]) -> Result<Secret, CipherError>;
}

/// The key block protection key.
#[derive(Clone, Copy)]
pub enum Kbpk<'a> {
    /// Its bytes: for every version.
    Clear(&'a Secret),
    /// A key that only computes CMACs: for versions B, D and E.
    Held(&'a dyn CmacKey),
}

/// What a derived key is for (X9.143 and ISO 20038: the key usage indicator).
#[derive(Clone, Copy)]
enum Purpose {
    Cbc = 0x0000,
    Mac = 0x0001,
    Ctr = 0x0002,
}

/// The two keys of one version: to encrypt (KBEK) and to authenticate (KBAK).
pub(crate) struct BlockKeys {
    pub(crate) encryption: Secret,
    pub(crate) authentication: Secret,
}

impl Kbpk<'_> {
    fn len(self) -> usize {
        match self {
            Self::Clear(key) => key.len(),
            Self::Held(key) => key.key_len(),
        }
    }

    /// Its strength in bits for this version's cipher.
    pub(crate) fn strength(self, version: Version) -> Result<u32, Tr31Error> {
        let algorithm = match version.cipher() {
            BlockCipher::Tdes => b'T',
            BlockCipher::Aes => b'A',
        };
        match self {
            Self::Clear(key) => policy::strength_bits(algorithm, key.expose()),
            Self::Held(key) => policy::block_cipher_strength(version.cipher(), key.key_len()),
        }
        .ok_or(Tr31Error::KbpkLength)
    }

    /// Whether it can protect blocks of this version.
    pub(crate) fn check(
        self,
        version: Version,
        tolerance: &mut Tolerance,
    ) -> Result<(), Tr31Error> {
        match self {
            Self::Clear(key) => policy::kbpk(version.cipher(), key, tolerance),
            Self::Held(key) => {
                if key.cipher() != version.cipher() {
                    return Err(Tr31Error::KbpkCipher);
                }
                match (key.cipher(), key.key_len()) {
                    (_, 16 | 24) | (BlockCipher::Aes, 32) => Ok(()),
                    _ => Err(Tr31Error::KbpkLength),
                }
            }
        }
    }

    /// The CMAC of `data` under the key itself.
    pub(crate) fn cmac(
        self,
        ciphers: &dyn Ciphers,
        cipher: BlockCipher,
        data: &[u8],
    ) -> Result<Secret, CipherError> {
        match self {
            Self::Clear(key) => ciphers.cmac(cipher, key, data),
            Self::Held(key) => key.cmac(data),
        }
    }

    /// KBEK and KBAK of this version.
    pub(crate) fn block_keys(
        self,
        ciphers: &dyn Ciphers,
        version: Version,
    ) -> Result<BlockKeys, Tr31Error> {
        let (encryption, authentication) = match version {
            Version::A | Version::C => {
                let Self::Clear(key) = self else { return Err(Tr31Error::KbpkHeld) };
                (variant(key, b'E'), variant(key, b'M'))
            }
            Version::B | Version::D => (
                self.derive(ciphers, version, Purpose::Cbc)?,
                self.derive(ciphers, version, Purpose::Mac)?,
            ),
            Version::E => (
                self.derive(ciphers, version, Purpose::Ctr)?,
                self.derive(ciphers, version, Purpose::Mac)?,
            ),
        };
        Ok(BlockKeys { encryption, authentication })
    }

    /// One derived key, as long as the protection key (X9.143; NIST SP 800-108 in counter mode
    /// over CMAC).
    fn derive(
        self,
        ciphers: &dyn Ciphers,
        version: Version,
        purpose: Purpose,
    ) -> Result<Secret, Tr31Error> {
        let length = self.len();
        let algorithm = match (version.cipher(), length) {
            (BlockCipher::Tdes, 16) => 0,
            (BlockCipher::Tdes, 24) => 1,
            (BlockCipher::Aes, 16) => 2,
            (BlockCipher::Aes, 24) => 3,
            (BlockCipher::Aes, 32) => 4,
            _ => return Err(Tr31Error::KbpkLength),
        };
        let bits = u16::try_from(length * 8).map_err(|_| Tr31Error::KbpkLength)?.to_be_bytes();
        let block_len = version.cipher().block_len();
        let mut input = [0, 0, purpose as u8, 0, 0, algorithm, bits[0], bits[1]];
        Secret::try_filled(length, |derived| {
            for part in derived.chunks_mut(block_len) {
                input[0] += 1;
                let block = self.cmac(ciphers, version.cipher(), &input)?;
                part.copy_from_slice(block.expose().get(..part.len()).ok_or(CipherError)?);
            }
            Ok(())
        })
    }
}

/// The key with every byte xored with the letter of its purpose (versions A and C).
fn variant(key: &Secret, letter: u8) -> Secret {
    let mut bytes = Vec::with_capacity(key.len());
    bytes.extend(key.expose().iter().map(|byte| byte ^ letter));
    Secret::new(bytes)
}
