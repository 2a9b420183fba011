//! The device gateway over real sockets, with an emulated SAM module on a real pty: good reads, and
//! every bad input that must be refused by name with nothing stored.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod datagrams;
mod faults;
mod hostile;
mod hosts;
mod limits;
mod relay;
mod sessions;
mod stage;
mod terminals;
mod upkeep;
