//! Drives core machines over async byte streams.
//!
//! A [`Connection`] owns a stream and a [`Machine`] and moves bytes between them; what the machine
//! reports comes out of [`Connection::next`]. The clock and the generator are handed in: [`Clock`],
//! [`SystemClock`] and [`SystemRng`] are the only places in the workspace that read the real ones.
//!
//! Absent on purpose: any decision. What an event means is for `app/` to say.
#![forbid(unsafe_code)]

mod ambient;
mod connection;
mod machines;
mod names;
pub mod serial;

pub use ambient::{Clock, SystemClock, SystemRng};
pub use connection::{Connection, Machine, NetError, Next, WRITE_TIMEOUT};
pub use names::{UnknownName, mode_name, mode_of, policy_name, policy_of};
