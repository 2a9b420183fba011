//! The mutually authenticated secure channel.
//!
//! This crate has handshakes C1 (the reader proves itself first) and C2 (the server shows its
//! certificate first), pairing of a sleeve and a manager (A1) and how such a pair connects (A2,
//! A3), the stateless challenge that lets forged and replayed contacts die cheaply, and the record
//! layer: over streams and over datagrams, with re-keying and heartbeat. Design and goals (G1–G16)
//! are in `docs/protocols/channel.md`.
//!
//! # Grammar
//!
//! Each side is a sans-I/O machine: [`ReaderChannel`] and [`ServerChannel`], [`SleeveChannel`] and
//! [`ManagerChannel`]. Bytes that arrived go into `handle`; bytes to send come out of
//! `poll_transmit`; what happened comes out of `poll_event`; when to call `handle_timeout` comes
//! out of `poll_timeout`. After an error the machine is dead: every later call returns
//! [`Error::Dead`], and what it still wants to transmit (an alert) may be sent before
//! the connection is dropped.
//!
//! # Inside
//!
//! One endpoint (`endpoint.rs`) runs the states of any party; a party (`reader.rs`, `server.rs`,
//! `sleeve.rs`, `manager.rs`) is one struct per awaited message. A further mode is a further party,
//! or further states of one.
//!
//! # Absent on purpose
//!
//! Sockets, clocks, operating-system randomness, storage, people. The server side asks its owner to
//! look the reader up ([`Event::Ask`]) and waits for [`ServerChannel::reader_found`]; sleeve and
//! manager ask for the user's yes, the pairing window and the pairing list in the same way
//! ([`SleeveQuestion`], [`ManagerQuestion`]).
#![cfg_attr(not(feature = "std"), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod alert;
mod challenge;
mod contribution;
mod credential;
mod endpoint;
mod error;
mod heartbeat;
mod link;
mod manager;
mod message;
mod methods;
mod pairing;
mod policy;
mod reader;
mod record;
mod schedule;
mod server;
mod session;
mod sleeve;
mod source;
mod transcript;
mod window;
mod wire;

pub use alert::{AlertCode, INCIDENT_MAX};
#[cfg(feature = "std")]
pub use challenge::SharedChallenges;
pub use challenge::{ChallengeGate, Challenges, EPOCH, EpochShare, Issued, Selection, WINDOW};
pub use credential::{Credential, EncryptionCredential};
pub use endpoint::Event;
pub use error::{Error, Refusal};
pub use heartbeat::Heartbeat;
pub use manager::{ManagerChannel, ManagerConfig, ManagerEvent, ManagerQuestion};
pub use message::{IdKind, ReaderId};
pub use pairing::{PAIRING_TIMEOUT, Pairing};
pub use policy::{Delivery, Policy, Protection};
pub use reader::{ReaderChannel, ReaderConfig, ReaderEvent};
pub use record::{KEYS_AHEAD_MAX, KEYS_PER_SESSION_MAX, RECORD_MAX, RECORDS_PER_KEY_MAX};
pub use schedule::Exporter;
pub use server::{DirectoryEntry, LookupRefusal, ServerChannel, ServerConfig, ServerEvent};
pub use sleeve::{SleeveChannel, SleeveConfig, SleeveEvent, SleeveQuestion};
#[cfg(feature = "std")]
pub use source::SharedSources;
pub use source::{
    Admission, SOURCE_BURST, SOURCE_FORGIVES, SOURCE_PLACES, SourceGate, SourceLimits,
};
pub use window::REPLAY_WINDOW;
pub use wire::{
    AMPLIFICATION_MAX, HANDSHAKE_FRAME_MAX, Mode, OPENING_DATAGRAM_LEN, opens_handshake,
};

/// How far time may go back between two calls before it counts as a clock that was set back, and
/// not as threads that read it one after the other.
const CLOCK_SLACK: core::time::Duration = core::time::Duration::from_secs(10);

/// How long a handshake may take from its first byte to its last.
pub const HANDSHAKE_TIMEOUT: core::time::Duration = core::time::Duration::from_secs(10);
