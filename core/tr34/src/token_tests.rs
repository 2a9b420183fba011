//! The tokens and both roles against each other, and one refusal for each check.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod arbitrary;
mod binding;
mod checks;
mod fixture;
mod openssl;
mod roundtrip;
