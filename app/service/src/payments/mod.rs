//! Payments (D1, D5–D7): the server takes a transaction from an initiating terminal, extracts what
//! the payer is to confirm, verifies the answer that comes from the payer's phone, and executes the
//! payment in the ledger.
//!
//! Approval and execution are one transaction, because the ledger is in the same database: there is
//! no moment in which a payment is approved, and it is not known whether it was executed. A rail
//! outside needs the intent stored first, an effect that can be repeated under one reference, and
//! the outcome stored afterwards: the state `executing` is there for it.

mod accounts;
mod answer;
mod checkout;
mod create;
mod decide;
mod joint;
mod lane;
mod once;
mod papers;
mod policy;
mod postings;
mod read;
mod returns;
mod settle;
mod verify;

pub use accounts::NewAccount;
pub use answer::{Answered, PaymentAnswer, RejectReason};
pub use checkout::{Checkout, CheckoutView};
pub use create::{Money, NewPayment};
pub use joint::{JointAnswer, JointTerms};
pub use once::{Once, Settled};
pub use policy::PaymentPolicy;
pub use postings::NewPosting;
pub use read::WAIT_MAX;
pub use returns::Refunded;
pub use settle::PAYMENT_SWEEP_EVERY;

pub(crate) use lane::Payments;
