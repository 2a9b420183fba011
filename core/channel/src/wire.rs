//! The frame around every message: magic, version, mode, type, u24 length.

use alloc::vec::Vec;

use crate::Error;

pub(crate) const MAGIC: [u8; 2] = *b"CS";
/// Version of the frame and of the handshakes.
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER_LEN: usize = 8;
/// Longest body of a handshake message, in bytes: bounds what an unauthenticated peer can make the
/// other side hold (G11).
pub const HANDSHAKE_FRAME_MAX: usize = 4096;

/// Which handshake a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    C1 = 1,
}

/// Message types of all modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Request = 1,
    Challenge = 2,
    Proof = 3,
    ServerProof = 4,
    Finished = 5,
    Alert = 15,
    Record = 16,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Request,
            Self::Challenge,
            Self::Proof,
            Self::ServerProof,
            Self::Finished,
            Self::Alert,
            Self::Record,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
    }

    /// The largest body of this type, in bytes.
    const fn cap(self) -> usize {
        match self {
            Self::Request => 512,
            Self::Challenge => 64,
            Self::Proof | Self::ServerProof => HANDSHAKE_FRAME_MAX,
            Self::Finished => 32,
            Self::Alert => 128,
            Self::Record => crate::record::SEALED_MAX,
        }
    }
}

/// A frame as it arrived. `raw` is header and body: transcripts are computed over it.
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) raw: Vec<u8>,
}

impl Frame {
    pub(crate) fn body(&self) -> &[u8] {
        &self.raw[HEADER_LEN..]
    }
}

pub(crate) fn header(mode: Mode, kind: Kind, len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(len <= kind.cap());
    let [.., a, b, c] = len.to_be_bytes();
    [MAGIC[0], MAGIC[1], VERSION, mode as u8, kind as u8, a, b, c]
}

pub(crate) fn frame(mode: Mode, kind: Kind, parts: &[&[u8]]) -> Vec<u8> {
    let len = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(HEADER_LEN + len);
    out.extend_from_slice(&header(mode, kind, len));
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// Cuts a byte stream into frames. Nothing is allocated for a length before it is checked.
pub(crate) struct FrameBuffer {
    mode: Mode,
    bytes: Vec<u8>,
}

impl FrameBuffer {
    pub(crate) const fn new(mode: Mode) -> Self {
        Self { mode, bytes: Vec::new() }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next whole frame, if it has arrived. `awaited` says which types this state accepts, so
    /// that a wrong type or length dies at its header.
    pub(crate) fn next(&mut self, awaited: &[Kind]) -> Result<Option<Frame>, Error> {
        // As many header bytes as there are are checked: noise need not send all eight.
        let expected = [MAGIC[0], MAGIC[1], VERSION, self.mode as u8];
        let seen = self.bytes.len().min(expected.len());
        if self.bytes[..seen] != expected[..seen] {
            return Err(Error::Malformed("not a frame of this protocol and mode"));
        }
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let kind = Kind::from_code(head[4]).ok_or(Error::Malformed("unknown message type"))?;
        if !awaited.contains(&kind) {
            return Err(Error::Unexpected);
        }
        let len = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if len > kind.cap() {
            return Err(Error::Malformed("length beyond the type's bound"));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let tail = self.bytes.split_off(HEADER_LEN + len);
        let raw = core::mem::replace(&mut self.bytes, tail);
        Ok(Some(Frame { kind, raw }))
    }
}

const _: () = assert!(crate::record::SEALED_MAX < 1 << 24);
