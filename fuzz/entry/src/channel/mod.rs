//! The secure channel: both machines of both modes, under every policy and suite.

mod alert;
mod handshake;
mod node;
mod setting;
mod sides;

pub use alert::alert;
pub use handshake::{handshake, records};
pub use sides::{reader_channel, server_channel};
