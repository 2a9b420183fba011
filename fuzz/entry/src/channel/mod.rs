//! The secure channel: both machines of every mode, under every policy and suite.

mod alert;
mod handshake;
mod node;
mod pairs;
mod setting;
mod sides;

pub use alert::alert;
pub use handshake::{handshake, records};
pub use pairs::{manager_channel, sleeve_channel};
pub use sides::{reader_channel, server_channel};
