//! The record layer for streams: AEAD, nonce = IV ⊕ sequence number, close record.

use alloc::boxed::Box;
use alloc::vec::Vec;

use countersign_crypto::{AEAD_NONCE_LEN, AEAD_TAG_LEN, AeadKey};
use zeroize::{Zeroize, Zeroizing};

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
    iv: [u8; AEAD_NONCE_LEN],
    sequence: u64,
}

impl Drop for DirectionKeys {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}

impl DirectionKeys {
    pub(crate) fn new(key: Box<dyn AeadKey>, iv: [u8; AEAD_NONCE_LEN]) -> Self {
        Self { key, iv, sequence: 0 }
    }

    fn nonce(&self) -> Result<[u8; AEAD_NONCE_LEN], Error> {
        if self.sequence >= RECORDS_PER_KEY_MAX {
            return Err(Error::KeyExhausted);
        }
        let mut nonce = self.iv;
        for (byte, counter) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= counter;
        }
        Ok(nonce)
    }

    fn seal(&mut self, mode: Mode, content: u8, data: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = self.nonce()?;
        let mut body = Vec::with_capacity(1 + data.len() + AEAD_TAG_LEN);
        body.push(content);
        body.extend_from_slice(data);
        let head = wire::header(mode, Kind::Record, body.len() + AEAD_TAG_LEN);
        self.key.seal(&nonce, &head, &mut body).map_err(Error::Local)?;
        self.sequence += 1;
        let mut frame = Vec::with_capacity(HEADER_LEN + body.len());
        frame.extend_from_slice(&head);
        frame.append(&mut body);
        Ok(frame)
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

    /// Opens a record frame. A failed open does not advance the counter (G12).
    pub(crate) fn open(&mut self, raw: &[u8]) -> Result<Content, Error> {
        let nonce = self.nonce()?;
        let (head, body) = raw.split_at(HEADER_LEN);
        let mut body = Zeroizing::new(body.to_vec());
        self.key.open(&nonce, head, &mut body).map_err(|_| Error::Authentication("record"))?;
        self.sequence += 1;
        match body.first() {
            Some(&DATA) => {
                body.remove(0);
                Ok(Content::Data(body))
            }
            Some(&CLOSE) if body.len() == 1 => Ok(Content::Close),
            _ => Err(Error::Malformed("record content")),
        }
    }
}

/// What a record holds.
pub(crate) enum Content {
    Data(Zeroizing<Vec<u8>>),
    Close,
}
