//! The device PKI: certificate profiles, requests, issuing, and the checks a relying party makes.
//!
//! The tree has one root and, below it, one issuing certificate per kind of subject (servers,
//! devices). Intermediates are provisioned; only leaves travel. A leaf's subject is an
//! [`Identity`]: its role and its serial number, carried as the one URI in its subjectAltName.
//!
//! A leaf has one [`Usage`]. Signing is the usual one; in dual-certificate deployments a party has
//! a second leaf, under the same identity, whose key others encrypt to.
//!
//! Issuing has two steps that only moves connect: [`Issuer::prepare`] checks everything and yields
//! a [`Prepared`], which the caller records as an intent; [`Prepared::sign`] consumes it.
//!
//! Absent on purpose: storage, the revocation list's source, any clock.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "std")]
mod cache;
mod error;
mod identity;
mod issue;
mod keys;
mod number;
mod parsed;
mod request;
mod usage;
mod verify;

#[cfg(feature = "std")]
pub use cache::{BoundedLeafCache, LEAVES_MAX};
pub use error::PkiError;
pub use identity::{ID_MAX, Identity, Role};
pub use issue::{Issuer, Prepared, TlsName, Validity, self_signed};
pub use number::CertificateNumber;
pub use parsed::CERTIFICATE_MAX;
pub use request::{Requested, encryption_request, parse_request, request};
pub use usage::Usage;
pub use verify::{
    EncryptionLeaf, Leaf, LeafCache, TrustStore, certified_point, identity, not_after, number,
};

#[cfg(test)]
mod encryption_tests;
#[cfg(test)]
mod profile_tests;
#[cfg(test)]
mod tests;
