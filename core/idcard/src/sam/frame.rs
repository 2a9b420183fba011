//! Frames: `AA AA AA 96 69 | LEN (2, big-endian) | body | CHK`.
//!
//! LEN counts everything after itself, CHK included. CHK is the XOR of every byte after the
//! preamble, CHK excluded (so LEN is covered).

use alloc::vec::Vec;
use core::fmt;

use zeroize::{Zeroize, Zeroizing};

/// What every frame starts with, both ways.
pub const PREAMBLE: [u8; 5] = [0xAA, 0xAA, 0xAA, 0x96, 0x69];
/// Smallest LEN: command, parameter and checksum.
pub const LEN_MIN: usize = 3;
/// Largest LEN accepted. The largest in the table is 0x090A (text, photo and fingerprint); the
/// rest is margin.
pub const LEN_MAX: usize = 0x0A00;
/// Most bytes of a frame's body (LEN without the checksum).
pub const BODY_MAX: usize = LEN_MAX - 1;

const HEADER_LEN: usize = PREAMBLE.len() + 2;
/// Most bytes of a whole frame, and the size of the decoder's buffer.
pub const FRAME_MAX: usize = HEADER_LEN + LEN_MAX;

const _: () = assert!(LEN_MAX <= u16::MAX as usize && LEN_MAX >= 0x090A);

/// The checksum of `len` (big-endian) and `body`.
#[must_use]
pub fn checksum(len: [u8; 2], body: &[u8]) -> u8 {
    body.iter().fold(len[0] ^ len[1], |sum, byte| sum ^ byte)
}

/// A frame around `body`, the concatenation of `parts`; `None` if the body is empty, too short or
/// longer than [`BODY_MAX`].
#[must_use]
pub fn encode(parts: &[&[u8]]) -> Option<Zeroizing<Vec<u8>>> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    if !(LEN_MIN - 1..=BODY_MAX).contains(&body) {
        return None;
    }
    let len = u16::try_from(body + 1).ok()?.to_be_bytes();
    let mut frame = Zeroizing::new(Vec::with_capacity(HEADER_LEN + body + 1));
    frame.extend_from_slice(&PREAMBLE);
    frame.extend_from_slice(&len);
    for part in parts {
        frame.extend_from_slice(part);
    }
    let sum = checksum(len, &frame[HEADER_LEN..]);
    frame.push(sum);
    Some(frame)
}

/// What the decoder found. A frame may hold personal data, so `Debug` prints its length only.
#[derive(PartialEq, Eq)]
pub enum Item {
    /// A frame's body, checksum verified and removed.
    Frame(Zeroizing<Vec<u8>>),
    /// A frame whose checksum does not match.
    Damaged,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(body) => write!(f, "Frame({} bytes)", body.len()),
            Self::Damaged => f.write_str("Damaged"),
        }
    }
}

/// An incremental decoder. Skips garbage before a preamble, never holds more than [`FRAME_MAX`]
/// bytes, and never trusts LEN beyond [`LEN_MAX`].
pub struct Decoder {
    buffer: Zeroizing<Vec<u8>>,
    /// Where the bytes not yet looked at begin; those before are done with.
    start: usize,
    skipped: u64,
}

impl Decoder {
    /// An empty decoder.
    #[must_use]
    pub fn new() -> Self {
        // At full size from the start: growing would leave copies of personal data behind.
        Self { buffer: Zeroizing::new(Vec::with_capacity(FRAME_MAX)), start: 0, skipped: 0 }
    }

    /// Takes bytes from `input` (shortening it) until one item is found or the input is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Item> {
        loop {
            if let Some(item) = self.take_item() {
                return Some(item);
            }
            if input.is_empty() {
                return None;
            }
            if self.buffer.len() == FRAME_MAX || self.start == self.buffer.len() {
                self.compact();
            }
            let (now, later) = input.split_at(input.len().min(FRAME_MAX - self.buffer.len()));
            self.buffer.extend_from_slice(now);
            *input = later;
        }
    }

    /// Forgets what is buffered, as after a timeout.
    pub fn clear(&mut self) {
        self.skip(self.buffer.len() - self.start);
        self.compact();
    }

    /// How many bytes were skipped as garbage so far.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Finds an item in the buffer. After `None` what is left is an incomplete candidate, shorter
    /// than [`FRAME_MAX`], so there is room for more.
    fn take_item(&mut self) -> Option<Item> {
        loop {
            self.skip_to_preamble();
            let rest = &self.buffer[self.start..];
            let len: [u8; 2] = rest.get(PREAMBLE.len()..HEADER_LEN)?.try_into().ok()?;
            let value = usize::from(u16::from_be_bytes(len));
            if !(LEN_MIN..=LEN_MAX).contains(&value) {
                self.skip(1);
                continue;
            }
            let (&sum, body) = rest.get(HEADER_LEN..HEADER_LEN + value)?.split_last()?;
            if checksum(len, body) == sum {
                let body = Zeroizing::new(body.to_vec());
                self.start += HEADER_LEN + value;
                self.compact();
                return Some(Item::Frame(body));
            }
            // Only the preamble goes: behind a truncated frame the next one may already stand.
            self.skip(PREAMBLE.len());
            return Some(Item::Damaged);
        }
    }

    /// Drops everything before the first (possibly incomplete) preamble.
    fn skip_to_preamble(&mut self) {
        let rest = &self.buffer[self.start..];
        let found = (0..rest.len()).find(|&at| {
            let rest = &rest[at..];
            let len = rest.len().min(PREAMBLE.len());
            rest[..len] == PREAMBLE[..len]
        });
        let garbage = found.unwrap_or(rest.len());
        self.skip(garbage);
    }

    fn skip(&mut self, count: usize) {
        self.skipped += count as u64;
        self.start += count;
    }

    /// Moves what is left to the front and wipes the rest.
    fn compact(&mut self) {
        let left = self.buffer.len() - self.start;
        self.buffer.copy_within(self.start.., 0);
        self.buffer[left..].zeroize();
        self.buffer.truncate(left);
        self.start = 0;
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decoder({} bytes held, {} skipped)", self.buffer.len(), self.skipped)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}
