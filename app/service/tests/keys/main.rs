//! Approvals, key-encrypting keys and keys for injection (E3, E4), in virtual time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod approvals;
mod exchange;
mod keks;
mod lifecycle;
mod office;
