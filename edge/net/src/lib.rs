//! Drives core machines over async byte streams and over datagrams.
//!
//! A [`Connection`] owns a [`Transport`] and a [`Machine`] and moves bytes between them; what the
//! machine reports comes out of [`Connection::next`]. A transport is any async byte stream, a
//! [`UdpLink`], or what an owner makes of [`framing`] on a serial line. The clock and the generator
//! are handed in: [`Clock`], [`SystemClock`] and [`SystemRng`] are the only places in the workspace
//! that read the real ones.
//!
//! Absent on purpose: any decision. What an event means is for `app/` to say.
#![forbid(unsafe_code)]

mod ambient;
mod connection;
pub mod datagram;
pub mod framing;
mod machines;
mod names;
pub mod serial;
mod transport;

pub use ambient::{Clock, SystemClock, SystemRng};
pub use connection::{Connection, Machine, NetError, Next, WRITE_TIMEOUT};
pub use datagram::UdpLink;
pub use names::{UnknownName, mode_name, mode_of, policy_name, policy_of};
pub use transport::Transport;
