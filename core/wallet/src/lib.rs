//! Sleeve and manager (requirements A4–A9): what they say inside their channel, and what decides
//! there.
//!
//! The manager is at home and has the real cards; the sleeve is with its owner and shows one of
//! them to a terminal. [`message`] has what they say, [`flow`] the two machines that say it, one
//! for each side of a connected channel. [`login`] decides who is let in, [`lease`] who has which
//! card, [`policy`] which commands reach it, and [`audit`] keeps what happened. [`relay`] is what
//! both say to the server that joins them.
//!
//! Absent on purpose: clocks, randomness, storage, card readers, the channel itself, any I/O.
#![forbid(unsafe_code)]

pub mod audit;
pub mod flow;
pub mod lease;
pub mod login;
pub mod message;
pub mod policy;
pub mod relay;
mod wire;

pub use countersign_injection::{Bounded, Name};
pub use wire::{Text, Wiped};
