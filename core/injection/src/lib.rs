//! What a terminal and a server say to each other while keys are injected (requirements E2–E8).
//!
//! [`message`] has the messages, each the plaintext of one record of the secure channel;
//! [`terminal`] and [`server`] are the two flow machines. The order is the patent's: the terminal
//! is bound, asks with `RT_KRD`, is given `KT_KDH`, checks and stores the key beside the old one,
//! reports its check value, and uses it once the server has confirmed.
//!
//! A token is opaque here: the owner of a flow makes and checks it, and says what came of it. So a
//! flow knows what is said when, and nothing of keys.
//!
//! A break-off at any message is repaired at the next contact: a key that waits for confirmation is
//! reported again first, and what was not stored is asked for again.
//!
//! Absent on purpose: clocks, randomness, storage, cryptography of the tokens, any I/O.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod flow;
pub mod message;
pub mod server;
pub mod terminal;
mod wire;

pub use flow::{FlowError, PATIENCE, TOKENS_PER_CONTACT_MAX};
pub use wire::{Bounded, Name};
