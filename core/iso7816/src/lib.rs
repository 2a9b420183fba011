#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;

mod command;
mod in_process;
mod link;
mod machine;
mod response;
mod status;
mod terminal;
pub mod tlv;

pub use command::{
    CHAIN_BIT, COMMAND_MAX, Command, CommandError, EXTENDED_DATA_MAX, EXTENDED_NE_MAX,
    SHORT_DATA_MAX, SHORT_NE_MAX,
};
pub use in_process::InProcess;
pub use link::{CardLink, LinkError};
pub use machine::{Application, CHAIN_MAX, CardMachine};
pub use response::Response;
pub use status::Status;
pub use terminal::{ROUNDS_MAX, TRANSFER_MAX, Terminal, TerminalError};
