use std::fmt;
use std::sync::Arc;

use countersign_crypto::Secret;
use tr31::{BlockCipher, CmacKey};
use tr34::RsaKey;

use crate::HsmError;

/// The longest label, in characters.
pub const LABEL_MAX: usize = 64;
/// How many keys a vault holds at most.
pub const LABELS_MAX: usize = 1024;
/// How many random bytes one call gives at most.
pub const RANDOM_MAX: usize = 1024;
/// The length of a storage key: AES-256.
pub const STORAGE_KEY_LEN: usize = 32;

/// What an RSA key may do. It is fixed when the key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RsaUse {
    /// Sign only: the key of a CA or of the KDH.
    Sign,
    /// Sign, which proves possession at enrolment, and decrypt (OAEP, SHA-256): a terminal's key.
    SignAndDecrypt,
}

/// What is held under a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// An RSA key pair.
    Rsa(RsaUse),
    /// A key of this cipher that computes CMACs.
    Cmac(BlockCipher),
}

impl KeyKind {
    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rsa(RsaUse::Sign) => "RSA, signs",
            Self::Rsa(RsaUse::SignAndDecrypt) => "RSA, signs and decrypts",
            Self::Cmac(BlockCipher::Tdes) => "TDES CMAC",
            Self::Cmac(BlockCipher::Aes) => "AES CMAC",
        }
    }
}

/// A key of a vault, as [`Vault::labels`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldKey {
    /// Its label.
    pub label: String,
    /// What it is.
    pub kind: KeyKind,
}

/// What a vault is, for its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Description {
    /// Keys in memory, sealed by their owner's storage.
    File,
    /// Keys in a PKCS#11 token. All texts are what module and token say of themselves.
    Token {
        /// The token's label.
        label: String,
        /// Who made it.
        manufacturer: String,
        /// Its model.
        model: String,
        /// Its serial number.
        serial: String,
        /// Its firmware's version.
        firmware: String,
        /// The module: its description and version.
        library: String,
    },
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("sealed files"),
            Self::Token { label, manufacturer, model, serial, firmware, library } => write!(
                f,
                "token {label:?} (serial {serial}): {manufacturer} {model}, firmware {firmware}, \
                 module {library}"
            ),
        }
    }
}

/// Where keys live (E4). Labels are unique over all kinds; see [`check_label`].
///
/// A key that was opened stays usable after its deletion where the vault is memory; a token
/// refuses it.
pub trait Vault: Send + Sync {
    /// What this vault is.
    ///
    /// # Errors
    /// [`HsmError::TokenAbsent`] and the like.
    fn describe(&self) -> Result<Description, HsmError>;

    /// The keys it holds, by label in order. Objects of a token that are not ours (no label of
    /// our form, another kind) are left out.
    ///
    /// # Errors
    /// What the storage or token answers.
    fn labels(&self) -> Result<Vec<HeldKey>, HsmError>;

    /// `len` random bytes from the token's generator, or the system's where there is no token.
    /// At most [`RANDOM_MAX`].
    ///
    /// # Errors
    /// [`HsmError::RandomLength`].
    fn random(&self, len: usize) -> Result<Secret, HsmError>;

    /// Makes an RSA key of 2048, 3072 or 4096 bits. It is durable when this returns. A key that is
    /// to decrypt has done so once.
    ///
    /// # Errors
    /// [`HsmError::LabelTaken`]; [`HsmError::KeySize`]; [`HsmError::OaepSha256Unsupported`] from a
    /// token that cannot do it, with nothing left there.
    fn rsa_generate(
        &self,
        label: &str,
        usage: RsaUse,
        bits: u32,
    ) -> Result<Arc<dyn RsaKey>, HsmError>;

    /// Opens an RSA key. A token's key has signed, and decrypted if it may, when this returns.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`]; [`HsmError::WrongKind`]; [`HsmError::KeyExposed`];
    /// [`HsmError::OaepSha256Unsupported`].
    fn rsa_open(&self, label: &str) -> Result<Arc<dyn RsaKey>, HsmError>;

    /// Deletes an RSA key for good.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`]; [`HsmError::WrongKind`].
    fn rsa_delete(&self, label: &str) -> Result<(), HsmError>;

    /// The AES-256 key under this label, made here if there is none: the key block protection key
    /// (TR-31 version D) of what its owner keeps in a database.
    ///
    /// # Errors
    /// [`HsmError::WrongKind`] if the label holds another kind of key.
    fn storage_key(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError>;

    /// Takes a key in, for good: a KEK that was combined from its components. AES keys have 16, 24
    /// or 32 bytes, TDES keys 16 or 24.
    ///
    /// # Errors
    /// [`HsmError::LabelTaken`]; [`HsmError::KeyLength`]; [`HsmError::KeyUnfit`] for a TDES key
    /// without odd parity, with equal parts or a weak one; [`HsmError::MechanismUnsupported`] for
    /// TDES in a token.
    fn cmac_import(
        &self,
        label: &str,
        cipher: BlockCipher,
        key: Secret,
    ) -> Result<Arc<dyn CmacKey>, HsmError>;

    /// Opens a CMAC key.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`]; [`HsmError::WrongKind`]; [`HsmError::KeyExposed`].
    fn cmac_open(&self, label: &str) -> Result<Arc<dyn CmacKey>, HsmError>;

    /// Deletes a CMAC key for good. What was wrapped under it never opens again.
    ///
    /// # Errors
    /// [`HsmError::LabelUnknown`]; [`HsmError::WrongKind`].
    fn cmac_delete(&self, label: &str) -> Result<(), HsmError>;
}

/// A label has 1 to [`LABEL_MAX`] characters of `A-Z a-z 0-9 . _ -` and starts with a letter or
/// digit, so that it serves as the name of a file too.
///
/// # Errors
/// [`HsmError::LabelFormat`].
pub fn check_label(label: &str) -> Result<(), HsmError> {
    let starts = label.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if starts && label.len() <= LABEL_MAX && label.bytes().all(allowed) {
        return Ok(());
    }
    Err(HsmError::LabelFormat)
}

/// What is under the label is not what was asked for.
pub(crate) fn wrong_kind(label: &str, found: KeyKind) -> HsmError {
    HsmError::WrongKind { label: label.to_owned(), found: found.name() }
}

/// The RSA sizes that a vault makes.
pub(crate) fn check_bits(bits: u32) -> Result<(), HsmError> {
    if matches!(bits, 2048 | 3072 | 4096) { Ok(()) } else { Err(HsmError::KeySize(bits)) }
}

/// The lengths of imported keys.
pub(crate) fn check_cmac_len(cipher: BlockCipher, len: usize) -> Result<(), HsmError> {
    let fits = match cipher {
        BlockCipher::Tdes => matches!(len, 16 | 24),
        BlockCipher::Aes => matches!(len, 16 | 24 | 32),
    };
    if fits { Ok(()) } else { Err(HsmError::KeyLength) }
}

/// A bound on random bytes.
pub(crate) fn check_random_len(len: usize) -> Result<(), HsmError> {
    if (1..=RANDOM_MAX).contains(&len) { Ok(()) } else { Err(HsmError::RandomLength) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names_of_files_too() {
        let longest = "a".repeat(LABEL_MAX);
        for good in ["kdh", "ca-kdh.2", "0_x", longest.as_str()] {
            assert!(check_label(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(LABEL_MAX + 1);
        for bad in ["", ".kdh", "-kdh", "a/b", "a b", "kdh\0", "schlüssel", too_long.as_str()] {
            assert_eq!(check_label(bad).unwrap_err().check(), "label-format", "{bad}");
        }
    }
}
