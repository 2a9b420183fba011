//! The mutually authenticated secure channel.
//!
//! This crate has handshake C1 (the reader goes first), the stateless challenge that lets forged
//! and
//! replayed contacts die cheaply, and the record layer. Design and goals (G1–G16) are in
//! `docs/protocols/channel.md`.
//!
//! # Grammar
//!
//! Each side is a sans-I/O machine: [`ReaderChannel`] and [`ServerChannel`]. Bytes that arrived go
//! into `handle`; bytes to send come out of `poll_transmit`; what happened comes out of
//! `poll_event`;
//! when to call `handle_timeout` comes out of `poll_timeout`. After an error the machine is dead:
//! every later call returns [`Error::Dead`], and what it still wants to transmit (an alert) may be
//! sent before the connection is dropped.
//!
//! # Absent on purpose
//!
//! Sockets, clocks, operating-system randomness, storage. The server side asks its owner to look
//! the
//! reader up ([`ServerEvent::LookUp`]) and waits for [`ServerChannel::reader_found`].
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod alert;
mod challenge;
mod error;
mod link;
mod message;
mod reader;
mod record;
mod schedule;
mod server;
mod transcript;
mod wire;

pub use alert::{AlertCode, INCIDENT_MAX};
#[cfg(feature = "std")]
pub use challenge::SharedChallenges;
pub use challenge::{ChallengeGate, Challenges, EPOCH, WINDOW};
pub use error::{Error, Refusal};
pub use message::{IdKind, Policy, ReaderId};
pub use reader::{ReaderChannel, ReaderConfig, ReaderEvent};
pub use record::{RECORD_MAX, RECORDS_PER_KEY_MAX};
pub use schedule::Exporter;
pub use server::{DirectoryEntry, LookupRefusal, ServerChannel, ServerConfig, ServerEvent};
pub use wire::HANDSHAKE_FRAME_MAX;

/// How long a handshake may take from its first byte to its last.
pub const HANDSHAKE_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(10);
