//! Keys in a PKCS#11 token.

mod failure;
mod keys;
mod module;
mod objects;
mod signing;
mod token;
mod vault;

pub use signing::SigningToken;
pub use vault::Pkcs11Vault;
