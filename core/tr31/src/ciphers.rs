use countersign_crypto::Secret;
use thiserror::Error;

/// The block ciphers of payment keys. The length of a key says which variant: TDES 8 (single, for
/// key derivation only), 16 or 24 bytes; AES 16, 24 or 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockCipher {
    /// Triple DES, block of 8 bytes.
    Tdes,
    /// AES, block of 16 bytes.
    Aes,
}

impl BlockCipher {
    /// The block's length in bytes.
    #[must_use]
    pub const fn block_len(self) -> usize {
        match self {
            Self::Tdes => 8,
            Self::Aes => 16,
        }
    }
}

/// A cipher could not be run: the key or the data have a length it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the cipher refused the key or the data")]
pub struct CipherError;

/// The block-cipher operations that key blocks and key tokens need, as a provider gives them.
pub trait Ciphers: Send + Sync {
    /// Encrypts whole blocks in place in CBC mode under `iv` (one block long). No padding. With a
    /// zero `iv` and one block it is ECB.
    ///
    /// # Errors
    /// [`CipherError`] for a wrong length of key, `iv` or `data`.
    fn cbc_encrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError>;

    /// Decrypts whole blocks in place in CBC mode under `iv`.
    ///
    /// # Errors
    /// As [`Self::cbc_encrypt`].
    fn cbc_decrypt(
        &self,
        cipher: BlockCipher,
        key: &Secret,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), CipherError>;

    /// AES in counter mode, in place, from the counter block `iv` (big-endian, whole block).
    ///
    /// # Errors
    /// [`CipherError`] for a wrong length of key or `iv`.
    fn aes_ctr(&self, key: &Secret, iv: &[u8; 16], data: &mut [u8]) -> Result<(), CipherError>;

    /// The whole CMAC (NIST SP 800-38B) of `data`: one block long.
    ///
    /// # Errors
    /// [`CipherError`] for a wrong length of key.
    fn cmac(&self, cipher: BlockCipher, key: &Secret, data: &[u8]) -> Result<Secret, CipherError>;
}
