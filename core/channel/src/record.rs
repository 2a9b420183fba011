//! The record layer for streams: AEAD, nonce = IV ⊕ sequence number, close record.

use alloc::boxed::Box;
use alloc::vec::Vec;

use countersign_crypto::{AEAD_NONCE_LEN, AEAD_TAG_LEN, AeadKey};
use zeroize::Zeroizing;

use crate::Error;
use crate::wire::{self, HEADER_LEN, Kind, Mode};

/// Longest application data of one record, in bytes.
pub const RECORD_MAX: usize = 16 * 1024;
/// Longest body of a record frame: content type, data, tag.
pub(crate) const SEALED_MAX: usize = 1 + RECORD_MAX + AEAD_TAG_LEN;
/// Records one key protects. AES-GCM's bound at 16 KiB is 2^24.5 (RFC 8446 §5.5).
pub const RECORDS_PER_KEY_MAX: u64 = 1 << 24;

const DATA: u8 = 0;
const CLOSE: u8 = 1;

/// Key and counter of one direction.
pub(crate) struct DirectionKeys {
    key: Box<dyn AeadKey>,
    iv: Zeroizing<[u8; AEAD_NONCE_LEN]>,
    sequence: u64,
}

impl DirectionKeys {
    pub(crate) fn new(key: Box<dyn AeadKey>, iv: Zeroizing<[u8; AEAD_NONCE_LEN]>) -> Self {
        Self { key, iv, sequence: 0 }
    }

    /// The nonce of the next record, if that is below `limit`.
    fn nonce(&self, limit: u64) -> Result<[u8; AEAD_NONCE_LEN], Error> {
        if self.sequence >= limit {
            return Err(Error::KeyExhausted);
        }
        let mut nonce = *self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        Ok(nonce)
    }

    fn seal(&mut self, mode: Mode, content: u8, data: &[u8]) -> Result<Vec<u8>, Error> {
        // The last record of a key is kept for the close: a full session can still end properly.
        let limit = RECORDS_PER_KEY_MAX - u64::from(content == DATA);
        let nonce = self.nonce(limit)?;
        let head = wire::header(mode, Kind::Record, data.len() + 1 + AEAD_TAG_LEN);
        let len = HEADER_LEN + data.len() + 1 + AEAD_TAG_LEN;
        // At its final size from the start, and wiped if it cannot be sealed.
        let mut frame = Zeroizing::new(Vec::with_capacity(len));
        frame.extend_from_slice(&head);
        frame.extend_from_slice(data);
        frame.push(content);
        let body = &mut frame[HEADER_LEN..];
        let tag = self.key.seal_in_place(&nonce, &head, body).map_err(Error::Local)?;
        frame.extend_from_slice(&tag);
        self.sequence += 1;
        Ok(core::mem::take(&mut frame))
    }

    pub(crate) fn seal_data(&mut self, mode: Mode, data: &[u8]) -> Result<Vec<u8>, Error> {
        if data.len() > RECORD_MAX {
            return Err(Error::Misuse("more than a record holds"));
        }
        self.seal(mode, DATA, data)
    }

    pub(crate) fn seal_close(&mut self, mode: Mode) -> Result<Vec<u8>, Error> {
        self.seal(mode, CLOSE, &[])
    }

    /// Opens a record frame in place. A failed open does not advance the counter (G12).
    pub(crate) fn open(&mut self, raw: Vec<u8>) -> Result<Content, Error> {
        let nonce = self.nonce(RECORDS_PER_KEY_MAX)?;
        let mut frame = Zeroizing::new(raw);
        let (head, body) = frame.split_at_mut(HEADER_LEN);
        let len = self
            .key
            .open_in_place(&nonce, head, body)
            .map_err(|_| Error::Authentication("record"))?;
        self.sequence += 1;
        frame.truncate(HEADER_LEN + len);
        // The content type comes last, so that taking it off moves nothing.
        let content = if len == 0 { None } else { frame.pop() };
        frame.drain(..HEADER_LEN);
        match content {
            Some(DATA) => Ok(Content::Data(frame)),
            Some(CLOSE) if frame.is_empty() => Ok(Content::Close),
            _ => Err(Error::Malformed("record content")),
        }
    }
}

/// What a record holds.
#[derive(Debug)]
pub(crate) enum Content {
    Data(Zeroizing<Vec<u8>>),
    Close,
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use countersign_crypto::{Secret, rust_crypto};

    use super::*;

    fn pair() -> (DirectionKeys, DirectionKeys) {
        let keys = || {
            let key = rust_crypto::provider().aead.key(&Secret::copied_from(&[1; 16]));
            DirectionKeys::new(key.expect("a key"), Zeroizing::new([2; AEAD_NONCE_LEN]))
        };
        (keys(), keys())
    }

    /// G12: a key ends at its limit, and the session can still be closed.
    #[test]
    fn a_key_protects_so_many_records_and_the_close() {
        let (mut sealing, mut opening) = pair();
        sealing.sequence = RECORDS_PER_KEY_MAX - 2;
        opening.sequence = sealing.sequence;
        let last = sealing.seal_data(Mode::C1, b"last").expect("below the limit");
        assert!(matches!(opening.open(last), Ok(Content::Data(_))));
        assert_eq!(sealing.seal_data(Mode::C1, b"more"), Err(Error::KeyExhausted));
        let close = sealing.seal_close(Mode::C1).expect("the place that is kept for it");
        assert!(matches!(opening.open(close.clone()), Ok(Content::Close)));
        assert_eq!(sealing.seal_close(Mode::C1), Err(Error::KeyExhausted));
        assert!(matches!(opening.open(close), Err(Error::KeyExhausted)));
    }

    #[test]
    fn a_failed_open_changes_nothing() {
        let (mut sealing, mut opening) = pair();
        let good = sealing.seal_data(Mode::C1, b"data").expect("sealed");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(opening.open(bad).is_err(), "byte {at}");
        }
        assert!(opening.open(good[..HEADER_LEN].to_vec()).is_err());
        assert!(matches!(opening.open(good), Ok(Content::Data(data)) if *data == b"data"));
    }

    #[test]
    fn nonces_differ_by_sequence() {
        let (mut sealing, _) = pair();
        let first = sealing.seal_data(Mode::C1, b"same").expect("sealed");
        let second = sealing.seal_data(Mode::C1, b"same").expect("sealed");
        assert_ne!(first, second);
        assert_eq!(
            sealing.seal_data(Mode::C1, &[0; RECORD_MAX + 1]),
            Err(Error::Misuse("more than a record holds"))
        );
    }
}
