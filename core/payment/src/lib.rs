//! Payments that are confirmed on a security device (D): what is signed, the two ways of signing
//! it, the states of a payment, the rules of its ledger, receipts and evidence.
//!
//! Absent on purpose: storage, clocks, HTTP, who may do what.
#![forbid(unsafe_code)]
