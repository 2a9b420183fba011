//! X9 TR-34: symmetric keys carried under RSA, for both the sender (KDH) and the receiver (KRD).
#![forbid(unsafe_code)]

mod rsa;

pub use rsa::{Rsa, RsaError, RsaKey};
