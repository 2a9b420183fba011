//! The RSA hierarchy from outside: what is issued is accepted, by us and by OpenSSL, and every
//! check refuses what it is there for.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod arbitrary;
mod certificates;
mod chain;
mod crls;
mod forge;
mod issuing;
mod openssl;
mod requests;
mod world;
