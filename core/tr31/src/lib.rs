//! X9.143 / TR-31 key blocks, DUKPT initial keys and key check values.
#![forbid(unsafe_code)]

#[cfg(feature = "aws-lc")]
pub mod aws_lc;
mod ciphers;

pub use ciphers::{BlockCipher, CipherError, Ciphers};
