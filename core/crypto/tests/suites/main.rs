//! Both suites and all their providers: the standards' known answers, what must be refused (in the
//! manner of Wycheproof), and OpenSSL as an independent peer.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod hpke;
mod negatives;
mod openssl;
mod p256;
mod points;
mod sm;
mod support;
