//! What tests, benches and `xtask` stand on: real parts, a seeded generator, counted cryptography.
//!
//! - [`parts`] starts real components (PostgreSQL, pty pairs) and takes them down again.
//! - [`rng`] gives generators that repeat under a seed.
//! - [`pki`] makes a small PKI; [`pair`] runs both ends of a channel in memory, [`wallet`] those of
//!   a sleeve and a manager.
//! - [`loss`] is a link that drops, damages, doubles, swaps and delays, at seeded rates.
//! - [`counting`] counts every cryptographic operation, for goal G11 of the channel.
//! - [`toy`] is no cryptography at all: fast algorithms for the channel's model, and broken ones.
//!
//! Development only: nothing a user runs depends on this crate, and it depends on core crates only.
#![forbid(unsafe_code)]

pub mod counting;
pub mod loss;
pub mod pair;
pub mod parts;
pub mod pki;
pub mod rng;
pub mod toy;
pub mod wallet;
