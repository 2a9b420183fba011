//! Keys in a PKCS#11 token.

mod failure;
mod keys;
mod module;
mod objects;
mod token;
mod vault;

pub use vault::Pkcs11Vault;
