//! Suites, keys, secrets and the secure-element trait.
//!
//! A [`Provider`] is a plain struct of trait objects: one suite's algorithms, passed explicitly to
//! whoever needs them and never kept in a global. Each suite is one file. Two providers exist for
//! the suite [`Suite::X25519_P256_AES128GCM_SHA256`]: [`rust_crypto::provider`], pure Rust,
//! `no_std` and deterministic under a given generator; and, with the feature `aws-lc`,
//! `aws_lc::provider`, which is several times faster, needs std and draws its randomness from
//! AWS-LC. The suite [`Suite::SM2_SM4GCM_SM3`] has one, [`sm::provider`], of the first kind. Who
//! has a suite and wants its provider asks [`provider_of`], or a server `aws_lc::provider_of`.
//!
//! Absent on purpose: any clock, any operating-system randomness, any file.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "aws-lc")]
pub mod aws_lc;
mod error;
mod generic;
mod hpke;
mod provider;
pub mod rust_crypto;
mod secret;
pub mod sm;
mod suite;
mod time;

pub use error::CryptoError;
pub use provider::{
    AEAD_KEY_LEN, AEAD_NONCE_LEN, AEAD_TAG_LEN, Aead, AeadKey, DecryptionKey, Digest, Domain,
    ENCRYPTED_TEXT_MAX, EncryptionScheme, ExchangeKey, HASH_LEN, Hash, Kdf, KeyExchange, Mac,
    Provider, SecureElement, SignatureScheme, SoftwareDecryptionKey, SoftwareKey, VerifyingKey,
};
pub use rand_core::CryptoRng;
pub use secret::Secret;
pub use suite::{Suite, UnknownSuite};
pub use time::UnixTime;

/// The pure-Rust provider of a suite: `no_std`, deterministic under a given generator. None for a
/// suite that this build does not know.
#[must_use]
pub fn provider_of(suite: Suite) -> Option<Provider> {
    match suite {
        Suite::X25519_P256_AES128GCM_SHA256 => Some(rust_crypto::provider()),
        Suite::SM2_SM4GCM_SM3 => Some(sm::provider()),
        _ => None,
    }
}
