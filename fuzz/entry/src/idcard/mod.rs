//! Cards, SAM modules, records, messages and the two flows of a read.

mod card;
mod flow;
mod message;
mod record;
mod sam;
mod sam_host;
mod sam_remote;

pub use card::card;
pub use flow::{reader_flow, server_flow};
pub use message::messages;
pub use record::record;
pub use sam::sam_frames;
pub use sam_host::sam_host;
pub use sam_remote::sam_remote;

use countersign_crypto::Secret;
use countersign_idcard::{
    ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX, EncryptedData, PHOTO_LEN, PlainData, TEXT_LEN,
};

/// Encrypted card data, every byte `fill`.
pub(crate) fn encrypted(fill: u8, fingerprint: bool) -> EncryptedData {
    let len = if fingerprint { ENCRYPTED_LEN_MAX } else { ENCRYPTED_BASE_LEN };
    EncryptedData::new(vec![fill; len].into()).expect("one of the two lengths")
}

/// Blank card data with `flag` as their document's.
pub(crate) fn plain(flag: u8, fingerprint: Option<usize>) -> PlainData {
    let mut text: Vec<u8> = [0x20, 0x00].repeat(TEXT_LEN / 2);
    text[248] = flag;
    let fingerprint = fingerprint.map(|len| Secret::new(vec![7; len]));
    PlainData::new(Secret::new(text), Secret::new(vec![6; PHOTO_LEN]), fingerprint)
        .expect("the lengths fit")
}
