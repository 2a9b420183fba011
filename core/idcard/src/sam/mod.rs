//! The SAM module's serial protocol (GA 450, GA 467) and its host.
//!
//! [`frame`] cuts bytes into frames, [`Command`] and [`Response`] say what they mean, [`SamHost`]
//! runs one operation at a time. A real module reaches its card over its own RF side, whose
//! protocol is not published; [`CardSide`] is the seam where a vendor's RF bridge attaches. The
//! commands `E0 xx` ([`Command::RemoteCard`], [`Command::CardAnswer`],
//! [`Command::EncryptedData`]) are **the Countersign emulator's own extension**, spoken in the
//! same frame format; no real module knows them.

mod command;
pub mod frame;
mod host;
mod operation;
pub mod remote;
mod status;

pub use command::{CARD_NUMBER_LEN, CHUNK_MAX, Command, Response, SamId};
pub use host::SamHost;
pub use operation::{
    BridgeOutcome, BridgeWork, CHECKSUM_RETRIES, CardNumberCheck, CardSide, SamConfig, SamError,
    SamEvent, SamOperation, SamResult, SamTimeouts,
};
pub use status::{Status, Sw3};
