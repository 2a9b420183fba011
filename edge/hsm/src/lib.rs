//! Where the keys of injection live: sealed by the caller's storage, or in a PKCS#11 token.
//!
//! A [`Vault`] holds two kinds of keys under labels: RSA key pairs (of the KDH, of the CAs, of a
//! terminal) and symmetric keys that only compute CMACs, which is all that a TR-31 key block of
//! version B, D or E asks of the key that protects it. Keys are used through [`tr34::RsaKey`] and
//! [`tr31::CmacKey`] and never leave.
//!
//! - [`FileVault`] keeps them in memory and, through a [`VaultStorage`], wherever its owner seals
//!   them: the data directory of a server, the directory of a device, nowhere.
//! - `Pkcs11Vault`, with the feature `pkcs11`, keeps them in a token that does not give them away.
//! - `SigningToken`, with the same feature, keeps a person's P-256 signing key and its certificate
//!   in such a token: a security device that confirms payments.
//!
//! Absent on purpose: where sealed bytes lie, what a key is for, who may use it.
#![forbid(unsafe_code)]

mod config;
mod error;
mod file;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod storage;
mod vault;

pub use config::{Pkcs11Config, TokenName, open_token};
pub use error::HsmError;
pub use file::FileVault;
#[cfg(feature = "pkcs11")]
pub use pkcs11::{Pkcs11Vault, SigningToken};
pub use storage::{MemoryStorage, StorageError, VaultStorage};
pub use vault::{
    Description, HeldKey, KeyKind, LABEL_MAX, LABELS_MAX, RANDOM_MAX, RsaUse, STORAGE_KEY_LEN,
    Vault, check_label,
};
