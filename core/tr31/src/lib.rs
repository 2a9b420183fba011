//! X9.143 / TR-31 key blocks, DUKPT initial keys and key check values.
//!
//! [`wrap`] and [`unwrap`] make and open key blocks of the versions A to E. Writing is strict; what
//! reading forgives has a name ([`Leniency`]). [`policy`] says which keys are fit for use and may
//! wrap which. [`dukpt`] derives initial and working keys and gives out key serial numbers.
//!
//! Ciphers, keys and padding are arguments: [`Ciphers`] is a provider (`aws_lc::AwsLc` with the
//! feature `aws-lc`), [`Kbpk`] a key in memory or one held elsewhere, [`Padding`] a generator or
//! given bytes.
//!
//! Absent on purpose: key storage, clocks, any input or output.
//!
//! ```
//! # #[cfg(feature = "aws-lc")] {
//! use countersign_crypto::Secret;
//! use tr31::{Header, Kbpk, Leniency, Padding, Version, aws_lc::AwsLc, unwrap, wrap};
//!
//! let kbpk = Secret::copied_from(&[0x42; 16]);
//! let key = Secret::copied_from(&[0x17; 16]);
//! let header = Header::new(Version::D, *b"P0", b'A', b'E', b'N');
//! let padding = Padding::Exact(&[0; 30]);
//! let block = wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, padding, Leniency::NONE)?;
//! let opened = unwrap(&AwsLc, Kbpk::Clear(&kbpk), block.as_bytes(), Leniency::NONE)?;
//! assert!(opened.key.ct_eq(key.expose()));
//! # }
//! # Ok::<(), tr31::Tr31Error>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(feature = "aws-lc")]
pub mod aws_lc;
mod block;
mod ciphers;
pub mod dukpt;
mod error;
mod header;
mod kbpk;
pub mod kcv;
mod leniency;
pub mod names;
mod optional;
pub mod policy;

pub use block::{Inspected, Padding, Unwrapped, inspect, unwrap, wrap};
pub use ciphers::{BlockCipher, CipherError, Ciphers};
pub use error::{KeyFault, Tr31Error};
pub use header::{BLOCK_MAX, HEADER_LEN, Header, ParsedHeader, Version};
pub use kbpk::{CmacKey, Kbpk};
pub use kcv::{Kcv, KcvMethod};
pub use leniency::Leniency;
pub use optional::{OptionalBlock, OptionalId};
