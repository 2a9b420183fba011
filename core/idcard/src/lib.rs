//! ID-card records, SAM frames, the read protocol and the reader's cache (requirements C6–C15).
//!
//! A reader without a SAM reads the configuration and the encrypted data of a resident identity
//! card; a server gives both to a SAM module and returns the plaintext. The modules follow that
//! walk: [`card`] (reader to card, APDUs), [`message`] (what reader and server say inside the
//! secure channel), [`reader`] and [`server`] (the two flow machines), [`sam`] (server to SAM
//! module), [`record`] (the decoded text) and [`cache`] (what the reader may keep).
//!
//! **What this cannot do.** The cryptography between a real card and a real SAM module is not
//! published, and a module reaches its card over its own RF side. Reading real resident cards
//! takes a real, authorised SAM module and its vendor's RF bridge (see [`sam::CardSide`]);
//! without these everything here runs against the emulator, whose card scheme is its own.
//!
//! Absent on purpose: any clock, any operating-system randomness, any I/O, any encryption of
//! messages (the channel seals them), any photo decoder (the format is closed; see
//! [`record::PhotoDecoder`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cache;
pub mod card;
mod check;
mod data;
mod flow;
pub mod message;
mod pieces;
pub mod presence;
pub mod reader;
pub mod record;
pub mod sam;
pub mod server;
mod wire;

pub use check::Check;
pub use data::{
    CHALLENGE_LEN, CONFIGURATION_LEN, Challenge, Configuration, DN_LEN, DataError,
    ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX, EncryptedData, FILE_FINGERPRINT_LEN, FILE_HEADER_LEN,
    FILE_PHOTO_LEN, FILE_TEXT_LEN, FINGERPRINT_LEN_MAX, PACKET_DATA_MAX, PACKETS_MAX, PHOTO_LEN,
    Packet, PacketAssembler, PlainData, Proof, READ_ID_LEN, ReadId, TEXT_LEN,
};
pub use flow::{
    Delivery, FlowError, MESSAGES_MAX, PATIENCE_MAX, REPEAT_FIRST, REPEAT_MAX, REPEATS_MAX,
    RESEND_AFTER, RESENDS_MAX, RESULT_RESENDS_MAX,
};
pub use wire::{Bytes, ShortText};
