//! What the fuzz targets do, on a stable compiler.
//!
//! Each target is a function of bytes that panics when something does not hold: not only that a
//! parser survives, but that what it accepts it writes again, that nobody who altered a message is
//! let in, that what a machine keeps and sends is bounded. The cargo-fuzz package beside this crate
//! calls them with a line each; `tests/smoke.rs` replays the corpus, with mutations, in the CI.
//!
//! Keys are made once per process from a fixed seed, so that an input repeats.
#![forbid(unsafe_code)]

mod channel;
mod hierarchy;
mod idcard;
mod injection;
mod joint;
mod joint_card;
mod payment;
mod pki;
mod script;
pub mod seeds;
mod smartcard;
mod tokens;
mod tr31;
mod wallet;

pub use channel::{
    alert, handshake, manager_channel, reader_channel, records, server_channel, sleeve_channel,
};
pub use hierarchy::hierarchy;
pub use idcard::{
    card, messages, reader_flow, record, sam_frames, sam_host, sam_remote, server_flow,
};
pub use injection::injection;
pub use joint::joint_commitment;
pub use joint_card::joint_card;
pub use payment::{evidence, payment};
pub use pki::{certificate, certificate_edits, request};
pub use smartcard::{apdu, device_card, offline_request};
pub use tokens::tokens;
pub use tr31::key_block;
pub use wallet::{relay_messages, wallet_messages, wallet_policy, wallet_rules};

/// A fuzz target.
#[derive(Clone, Copy)]
pub struct Target {
    /// The name: of the function, of the file in `fuzz_targets`, of the folder in `corpus`.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&[u8]),
    /// How many mutations of each file of its corpus the smoke test tries: few where an input
    /// costs signatures.
    pub mutations: u32,
}

macro_rules! targets {
    ($($name:ident: $mutations:literal,)*) => {
        /// Every target, by name.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $name, mutations: $mutations },)*
        ];
    };
}

targets! {
    alert: 40,
    apdu: 1000,
    card: 400,
    certificate: 200,
    certificate_edits: 80,
    device_card: 300,
    evidence: 40,
    handshake: 24,
    hierarchy: 60,
    injection: 1000,
    joint_card: 120,
    joint_commitment: 120,
    key_block: 400,
    manager_channel: 20,
    messages: 1000,
    offline_request: 80,
    payment: 600,
    reader_channel: 20,
    reader_flow: 200,
    record: 400,
    records: 16,
    relay_messages: 1000,
    request: 80,
    sam_frames: 400,
    sam_host: 400,
    sam_remote: 1000,
    server_channel: 20,
    server_flow: 1000,
    sleeve_channel: 20,
    tokens: 150,
    wallet_messages: 1000,
    wallet_policy: 400,
    wallet_rules: 400,
}
