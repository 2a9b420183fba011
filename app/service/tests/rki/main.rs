//! The injection hierarchy, terminals and rebind campaigns (E1, E2), in virtual time.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod binding;
mod desk;
mod enrolment;
mod hierarchy;
