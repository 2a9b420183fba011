//! X9 TR-34: symmetric keys carried under RSA, for both the sender (KDH) and the receiver (KRD).
//!
//! [`kdh`] makes tokens and [`krd`] checks them; [`token`] is what both read and write, in a
//! [`Dialect`] that they are told. The rest is the hierarchy they trust: certificates, lists of
//! revoked ones, requests, issuing. RSA and the block ciphers are arguments ([`Rsa`], [`RsaKey`],
//! `tr31::Ciphers`), with `aws_lc` for those who have no token of hardware.
//!
//! Absent on purpose: clocks, randomness, storage, any input or output.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod authority;
#[cfg(feature = "aws-lc")]
pub mod aws_lc;
mod certificate;
mod chain;
mod crl;
mod dialect;
mod error;
mod extensions;
mod identity;
pub mod kdh;
pub mod krd;
mod party;
mod public_key;
pub mod reader;
mod request;
mod rsa;
pub mod token;
#[cfg(all(test, feature = "aws-lc"))]
mod token_tests;

pub use authority::{
    CrlTerms, IssueError, Issuer, Prepared, PreparedCrl, Revocation, Validity, prepare_root,
};
pub use certificate::{CERTIFICATE_MAX, Certificate, CertificateError, Leniency};
pub use chain::{IssuingCa, Kdh, Krd};
pub use crl::{CRL_ENTRIES_MAX, CRL_MAX, Crl, CrlError, CrlNumber, CrlSeen};
pub use dialect::{
    AttributeOrder, ContentForm, CrlPlace, Dialect, EncryptedContentPlace, HeaderForm,
    KeyBlockVersion, OaepForm, Observed, SignatureName, SignedDataVersion, Switch,
};
pub use error::{AttributeFault, Error, TokenRefused};
pub use identity::{IssuerAndSerial, NAME_MAX, SERIAL_MAX, name_text};
pub use party::{BadParty, ID_MAX, Party, Role};
pub use public_key::{PublicKey, RSA_BITS};
pub use reader::DerError;
pub use request::{RequestError, Requested, parse_foreign_request, parse_request, request};
pub use rsa::{Rsa, RsaError, RsaKey};
