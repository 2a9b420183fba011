//! The signing card: what it does, and what it does not do, seen from both ends of its commands and
//! from its holder's hand (B1 to B7).
#![expect(clippy::unwrap_used, reason = "tests")]

mod apdus;
mod client;
mod consent;
mod flow;
mod model;
mod release;
mod rig;
mod tear;
