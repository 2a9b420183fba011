//! The HTTP API, driven without sockets: every route with good and bad input.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accounts;
mod bank;
mod browsers;
mod cards;
mod checkout;
mod confirmed;
mod contract;
mod enrolment;
mod joint;
mod joint_enrolment;
mod joint_refused;
mod keys;
mod limits;
mod logs;
mod operation;
mod origins;
mod pages;
mod payers;
mod payments;
mod readers;
mod reads;
mod refusals;
mod risk;
mod rki;
mod sams;
mod scopes;
mod totality;
mod wallets;
mod webhooks;
mod world;
