//! Payments that are confirmed on a security device (D): what is signed, the two ways of signing
//! it, the states of a payment, the rules of its ledger, receipts and evidence.
//!
//! A server builds a [`ConfirmationRequest`]; its canonical bytes are stored, sent, shown and
//! signed, and nothing else is. A device parses those bytes, shows [`ConfirmationRequest::lines`]
//! and answers with a [`signature`](sign) or, where it has only a shared key, with the digits of
//! [`ocra::respond`]. [`machine`] decides what an answer does to a payment, [`ledger`] what a
//! posting does to two balances; both are pure, so that they run inside a locked transaction.
//! [`card`] is the device as a smart card and whoever talks to it, [`offline`] a request that a
//! camera takes to it.
//! With the feature `std`, [`receipt`] and [`evidence`] make and check what outlives the server.
//!
//! Absent on purpose: storage, clocks, HTTP, who may do what.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod account;
mod amount;
pub mod card;
mod currency;
mod error;
#[cfg(feature = "std")]
pub mod evidence;
pub mod jcs;
pub mod joint;
#[cfg(feature = "std")]
mod jws;
pub mod ledger;
pub mod machine;
pub mod ocra;
pub mod offline;
#[cfg(feature = "std")]
pub mod receipt;
mod request;
mod signature;
mod state;
pub mod text;
mod time;
#[cfg(feature = "std")]
mod wire;

pub use account::{ACCOUNT_MAX, ACCOUNT_MIN, AccountNumber};
pub use amount::{Amount, MAX_MINOR, decimal};
pub use currency::Currency;
pub use error::PaymentError;
#[cfg(feature = "std")]
pub use jws::StatementKey;
pub use request::{ConfirmationRequest, Line, NAME_MAX, ORDER_MAX, REQUEST_MAX};
pub use signature::{DOMAIN, request_hash, sign, signing_input, verify};
pub use state::State;
pub use time::{from_rfc3339, to_rfc3339};
