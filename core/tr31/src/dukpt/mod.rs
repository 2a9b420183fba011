//! Derived unique keys per transaction: initial keys for terminals, the keys of a transaction, and
//! the key serial numbers they go by. TDES as in X9.24-1, AES as in X9.24-3.

mod aes;
mod allot;
mod tdes;

pub use aes::{AesKeyType, AesKeyUsage, AesKsn, InitialKeyId};
pub use allot::{Allotted, KsnRange};
pub use tdes::{TdesKsn, TdesUse};
