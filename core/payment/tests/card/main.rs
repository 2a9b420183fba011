//! The security device as a card: what it does, and what it does not do, seen from both ends of its
//! commands.
#![expect(clippy::unwrap_used, reason = "tests")]

mod apdus;
mod chip;
mod client;
mod keypad;
mod model;
mod order;
mod pins;
mod removal;
