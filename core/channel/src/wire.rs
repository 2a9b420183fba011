//! The frame around every message: magic, version, mode, type, u24 length.

use alloc::vec::Vec;

use crate::Error;

pub(crate) const MAGIC: [u8; 2] = *b"CS";
/// Version of the frame and of the handshakes.
pub(crate) const VERSION: u8 = 1;
pub(crate) const HEADER_LEN: usize = 8;
/// Where the mode stands in a header, behind magic and version.
const MODE_AT: usize = 3;
/// Longest body of a handshake message, in bytes: bounds what an unauthenticated peer can make the
/// other side hold (G11). Two certificates and what goes with them.
pub const HANDSHAKE_FRAME_MAX: usize = 5 * 1024;
/// Over datagrams M0 is filled up with zeros to this many bytes, so that a server which answers an
/// address that is not proven yet with at most [`AMPLIFICATION_MAX`] times as many can answer at
/// all: M1 of C2 carries certificates.
pub const OPENING_DATAGRAM_LEN: usize = 512;
/// How many times the bytes of an opening datagram its answer may have (as RFC 9000 §8).
pub const AMPLIFICATION_MAX: usize = 3;

/// Which handshake a channel is made by; in every frame, signature, MAC and key (G9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Handshake 1: the reader proves itself first (row C1).
    C1 = 1,
    /// Handshake 2: the server shows its certificate first (row C2).
    C2 = 2,
    /// Pairing of a sleeve and a manager (row A1).
    A1 = 3,
    /// A paired sleeve connects, by the binding factor (row A2).
    A2 = 4,
    /// A paired sleeve connects, by the pairing list (row A3).
    A3 = 5,
}

impl Mode {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| *mode as u8 == code)
    }

    /// All of them.
    const ALL: [Self; 5] = [Self::C1, Self::C2, Self::A1, Self::A2, Self::A3];

    /// Whether readers and servers speak it; the others are of sleeves and managers.
    pub(crate) const fn is_of_readers(self) -> bool {
        matches!(self, Self::C1 | Self::C2)
    }
}

/// A set of modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Modes(u8);

impl Modes {
    pub(crate) fn of(modes: impl IntoIterator<Item = Mode>) -> Self {
        Self(modes.into_iter().fold(0, |set, mode| set | 1 << mode as u8))
    }

    pub(crate) const fn only(mode: Mode) -> Self {
        Self(1 << mode as u8)
    }

    const fn contains(self, mode: Mode) -> bool {
        self.0 & 1 << mode as u8 != 0
    }

    /// The first, if there is any.
    pub(crate) fn first(self) -> Option<Mode> {
        Mode::from_code(u8::try_from(self.0.trailing_zeros()).ok()?)
    }
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
    PairRequest = 6,
    PairAnswer = 7,
    PairProof = 8,
    Alert = 15,
    Record = 16,
    /// A record that carries its number, over datagrams.
    Numbered = 17,
}

impl Kind {
    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Request,
            Self::Challenge,
            Self::Proof,
            Self::ServerProof,
            Self::Finished,
            Self::PairRequest,
            Self::PairAnswer,
            Self::PairProof,
            Self::Alert,
            Self::Record,
            Self::Numbered,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == code)
    }

    /// The largest body of this type, in bytes.
    const fn cap(self) -> usize {
        match self {
            Self::Request => 512,
            Self::Challenge | Self::Proof | Self::ServerProof => HANDSHAKE_FRAME_MAX,
            Self::PairRequest | Self::PairAnswer => HANDSHAKE_FRAME_MAX,
            Self::PairProof => 512,
            Self::Finished => 32,
            Self::Alert => 128,
            Self::Record => crate::record::SEALED_MAX,
            Self::Numbered => crate::record::SEALED_MAX + crate::record::NUMBER_LEN,
        }
    }
}

/// A frame as it arrived. `raw` is header and body: transcripts are computed over it.
pub(crate) struct Frame {
    pub(crate) mode: Mode,
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

/// Which frames a state accepts.
#[derive(Clone, Copy)]
pub(crate) struct Awaited<'a> {
    pub(crate) modes: Modes,
    pub(crate) kinds: &'a [Kind],
}

/// Checks a header, as much of it as there is, and gives mode, type and length of the body once it
/// is whole: noise dies at its first wrong byte, a wrong type or length at the header.
fn read_header(bytes: &[u8], awaited: Awaited<'_>) -> Result<Option<(Mode, Kind, usize)>, Error> {
    let expected: [u8; MODE_AT] = [MAGIC[0], MAGIC[1], VERSION];
    let seen = bytes.len().min(expected.len());
    let foreign = Error::Malformed("not a frame of this protocol");
    if bytes[..seen] != expected[..seen] {
        return Err(foreign);
    }
    let Some(&mode) = bytes.get(MODE_AT) else { return Ok(None) };
    let mode = Mode::from_code(mode).ok_or(foreign)?;
    if !awaited.modes.contains(mode) {
        return Err(Error::Incompatible("handshake"));
    }
    let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let kind = Kind::from_code(head[4]).ok_or(Error::Malformed("unknown message type"))?;
    if !awaited.kinds.contains(&kind) {
        return Err(Error::Unexpected);
    }
    let len = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    if len > kind.cap() {
        return Err(Error::Malformed("length beyond the type's bound"));
    }
    Ok(Some((mode, kind, len)))
}

/// Cuts a byte stream into frames. Nothing is allocated for a length before it is checked.
#[derive(Default)]
pub(crate) struct FrameBuffer {
    bytes: Vec<u8>,
    /// What has been cut off already, at the beginning of `bytes`.
    taken: usize,
}

impl FrameBuffer {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) const fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The mode of the frame that comes next.
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.bytes.get(self.taken + MODE_AT).copied().and_then(Mode::from_code)
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next(&mut self, awaited: Awaited<'_>) -> Result<Option<Frame>, Error> {
        let bytes = &self.bytes[self.taken..];
        let Some((mode, kind, len)) = read_header(bytes, awaited)? else { return Ok(None) };
        let Some(frame) = bytes.get(..HEADER_LEN + len) else { return Ok(None) };
        // A frame must not hold on to the room that others came in: many small ones add up.
        let raw = if frame.len() == self.bytes.len() && self.bytes.capacity() <= 2 * frame.len() {
            core::mem::take(&mut self.bytes)
        } else {
            let raw = frame.to_vec();
            self.taken += raw.len();
            raw
        };
        if self.len() == 0 {
            *self = Self::default();
        }
        Ok(Some(Frame { mode, kind, raw }))
    }
}

/// The one frame that a datagram is; `None` for anything else.
pub(crate) fn datagram(bytes: &[u8], modes: Modes) -> Option<Frame> {
    const KINDS: [Kind; 7] = [
        Kind::Request,
        Kind::Challenge,
        Kind::Proof,
        Kind::ServerProof,
        Kind::Finished,
        Kind::Alert,
        Kind::Numbered,
    ];
    let (mode, kind, len) = read_header(bytes, Awaited { modes, kinds: &KINDS }).ok()??;
    let (frame, filling) = bytes.split_at_checked(HEADER_LEN + len)?;
    let may_be_filled = kind == Kind::Request && bytes.len() <= OPENING_DATAGRAM_LEN;
    let fits = filling.is_empty() || (may_be_filled && filling.iter().all(|byte| *byte == 0));
    fits.then(|| Frame { mode, kind, raw: frame.to_vec() })
}

/// Whether a datagram claims to be M0 or M2, with which a handshake begins (at a server that keeps
/// nothing between the two). For whoever sorts datagrams by their sender; it proves nothing.
#[must_use]
pub fn opens_handshake(datagram: &[u8]) -> bool {
    let kind = datagram.starts_with(&MAGIC).then(|| datagram.get(MODE_AT + 1)).flatten();
    kind.is_some_and(|kind| [Kind::Request as u8, Kind::Proof as u8].contains(kind))
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    /// M0 may be filled up with zeros, so far and no further; no other message may.
    #[test]
    fn only_the_opening_datagram_may_be_filled_up() {
        let modes = Modes::only(Mode::C1);
        for kind in [Kind::Request, Kind::Challenge, Kind::Proof, Kind::Numbered] {
            let message = frame(Mode::C1, kind, &[b"body"]);
            let is_opening = kind == Kind::Request;
            assert_eq!(opens_handshake(&message), is_opening || kind == Kind::Proof);
            assert_eq!(datagram(&message, modes).expect("whole").raw, message);
            let filled = |len: usize, last: u8| {
                let mut filled = message.clone();
                filled.resize(len, 0);
                filled[len - 1] = last;
                datagram(&filled, modes).map(|frame| frame.raw)
            };
            let expected = is_opening.then(|| message.clone());
            assert_eq!(filled(OPENING_DATAGRAM_LEN, 0), expected);
            assert_eq!(filled(message.len() + 1, 0), expected);
            assert_eq!(filled(OPENING_DATAGRAM_LEN + 1, 0), None);
            assert_eq!(filled(OPENING_DATAGRAM_LEN, 1), None);
            assert!(datagram(&message[..message.len() - 1], modes).is_none());
        }
        assert!(!opens_handshake(b"CS\x01\x01") && !opens_handshake(b"SC\x01\x01\x01"));
    }

    /// What a peer sent is what it costs, in however many frames.
    #[test]
    fn small_frames_hold_no_more_room_than_they_need() {
        let mut buffer = FrameBuffer::default();
        let one = frame(Mode::C1, Kind::Finished, &[&[7; 18]]);
        let chunk: Vec<u8> = one.iter().copied().cycle().take(one.len() * 600).collect();
        buffer.push(&chunk[..chunk.len() - 1]);
        let awaited = Awaited { modes: Modes::only(Mode::C1), kinds: &[Kind::Finished] };
        let mut frames = Vec::new();
        while let Some(frame) = buffer.next(awaited).expect("frames") {
            assert_eq!(frame.raw, one);
            frames.push(frame);
        }
        assert_eq!((frames.len(), buffer.len()), (599, one.len() - 1));
        buffer.push(&chunk[chunk.len() - 1..]);
        frames.push(buffer.next(awaited).expect("a frame").expect("the last"));
        let held: usize = frames.iter().map(|frame| frame.raw.capacity()).sum();
        assert!(held <= 2 * chunk.len(), "{held} bytes for {}", chunk.len());
        assert!(buffer.next(awaited).expect("nothing").is_none());
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}

const _: () = assert!(crate::record::SEALED_MAX + crate::record::NUMBER_LEN < 1 << 24);
