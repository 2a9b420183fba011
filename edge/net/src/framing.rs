//! Frames on a serial line between a reader and its host.
//!
//! A frame is `type (1) ‖ payload ‖ CRC-32`, encoded with COBS, so that it has no zero byte,
//! between two zero bytes. Whatever a line does to it (noise, a boot message, a cut, a flipped
//! bit) costs the frames it hit and no other: the next zero byte begins anew.

use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

use crate::datagram::{CHECKSUM_LEN, DATAGRAM_MAX, checksum};

/// The longest payload, in bytes: a datagram.
pub const PAYLOAD_MAX: usize = DATAGRAM_MAX;
/// The longest frame before it is encoded.
const PLAIN_MAX: usize = 1 + PAYLOAD_MAX + CHECKSUM_LEN;
/// The longest frame on the line, without its delimiters: one byte more for each 254 begun.
const ENCODED_MAX: usize = PLAIN_MAX + PLAIN_MAX.div_ceil(RUN_MAX);
const DELIMITER: u8 = 0;
/// The most bytes that COBS puts between two of its counts.
const RUN_MAX: usize = 254;

/// A frame as it arrived, its checksum verified.
#[derive(PartialEq, Eq)]
pub struct SerialFrame {
    /// What the payload is.
    pub kind: u8,
    /// At most [`PAYLOAD_MAX`] bytes; they may be personal data, so they wipe themselves.
    pub payload: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for SerialFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, payload } = self;
        write!(f, "SerialFrame({kind:#04x}, {} bytes)", payload.len())
    }
}

/// A payload that no frame can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a payload of {0} bytes is too long for a serial frame")]
pub struct PayloadTooLong(pub usize);

/// A frame as it goes onto the line, both delimiters included.
///
/// # Errors
/// [`PayloadTooLong`] beyond [`PAYLOAD_MAX`].
pub fn encode(kind: u8, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, PayloadTooLong> {
    if payload.len() > PAYLOAD_MAX {
        return Err(PayloadTooLong(payload.len()));
    }
    let sum = checksum(&[&[kind], payload]);
    let plain = [kind].into_iter().chain(payload.iter().copied()).chain(sum);
    let mut out = Zeroizing::new(Vec::with_capacity(ENCODED_MAX + 2));
    out.extend([DELIMITER, 0]);
    let mut count_at = 1;
    let mut end_run = |out: &mut Vec<u8>| {
        out[count_at] = u8::try_from(out.len() - count_at).expect("a run has at most 254 bytes");
        count_at = out.len();
        out.push(0);
    };
    let mut run = 0;
    for byte in plain {
        if run == RUN_MAX {
            end_run(&mut out); // a full run stands for no zero
            run = 0;
        }
        if byte == 0 {
            end_run(&mut out);
            run = 0;
            continue;
        }
        out.push(byte);
        run += 1;
    }
    end_run(&mut out); // the count it opens is the closing delimiter
    Ok(out)
}

/// What was decoded of COBS; none if a count points beyond the end.
fn decode_cobs(encoded: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut out = Zeroizing::new(Vec::with_capacity(encoded.len()));
    let mut rest = encoded;
    while let Some((&count, after)) = rest.split_first() {
        let run = usize::from(count).checked_sub(1)?;
        let (bytes, after) = after.split_at_checked(run)?;
        out.extend_from_slice(bytes);
        if run < RUN_MAX && !after.is_empty() {
            out.push(0);
        }
        rest = after;
    }
    Some(out)
}

/// What a line did to the frames so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineDamage {
    /// Pieces between delimiters that were no frame: noise, or frames cut or altered.
    pub damaged: u64,
    /// Pieces longer than any frame.
    pub oversized: u64,
}

/// Cuts a serial line's bytes into frames. Holds at most one frame.
#[derive(Default)]
pub struct FrameDecoder {
    piece: Zeroizing<Vec<u8>>,
    /// The piece is longer than any frame: the rest of it is skipped.
    overlong: bool,
    damage: LineDamage,
}

impl FrameDecoder {
    /// Takes bytes off the line and gives the frames that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SerialFrame> {
        let mut frames = Vec::new();
        for &byte in bytes {
            if byte == DELIMITER {
                frames.extend(self.end_piece());
            } else if self.piece.len() < ENCODED_MAX {
                if self.piece.capacity() == 0 {
                    self.piece.reserve_exact(ENCODED_MAX); // growing would leave unwiped copies
                }
                self.piece.push(byte);
            } else {
                self.overlong = true;
            }
        }
        frames
    }

    /// What the line damaged so far.
    #[must_use]
    pub const fn damage(&self) -> LineDamage {
        self.damage
    }

    /// Whether bytes came that no delimiter has ended yet.
    #[must_use]
    pub fn is_within_piece(&self) -> bool {
        !self.piece.is_empty()
    }

    fn end_piece(&mut self) -> Option<SerialFrame> {
        if self.piece.is_empty() {
            return None;
        }
        let frame = if self.overlong {
            self.damage.oversized += 1;
            None
        } else {
            let frame = decode_cobs(&self.piece).and_then(|plain| unwrap_frame(&plain));
            self.damage.damaged += u64::from(frame.is_none());
            frame
        };
        self.piece.as_mut_slice().zeroize();
        self.piece.clear();
        self.overlong = false;
        frame
    }
}

fn unwrap_frame(plain: &[u8]) -> Option<SerialFrame> {
    let (content, sum) = plain.split_last_chunk::<CHECKSUM_LEN>()?;
    let (&kind, payload) = content.split_first()?;
    let fits = payload.len() <= PAYLOAD_MAX && *sum == checksum(&[content]);
    fits.then(|| SerialFrame { kind, payload: Zeroizing::new(payload.to_vec()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> SerialFrame {
        SerialFrame { kind, payload: Zeroizing::new(payload.to_vec()) }
    }

    fn decode(bytes: &[u8]) -> Vec<SerialFrame> {
        FrameDecoder::default().push(bytes)
    }

    #[test]
    fn frames_of_every_length_pass_and_hold_no_zero_inside() {
        for len in (0..=1024).chain([PAYLOAD_MAX - 1, PAYLOAD_MAX]) {
            for fill in [0, 1, 0xff] {
                let payload = vec![fill; len];
                let line = encode(0, &payload).unwrap();
                assert!(line.len() <= ENCODED_MAX + 2);
                let (inside, ends) = (&line[1..line.len() - 1], [line[0], line[line.len() - 1]]);
                assert!(!inside.contains(&0) && ends == [0, 0], "{len} {fill}");
                assert_eq!(decode(&line), [frame(0, &payload)], "{len} {fill}");
            }
        }
        let long = vec![1; PAYLOAD_MAX + 1];
        assert_eq!(encode(1, &long), Err(PayloadTooLong(PAYLOAD_MAX + 1)));
    }

    /// A zero at every place, right behind a full run among them.
    #[test]
    fn zeros_pass_wherever_they_stand() {
        for len in [1, 250, 252, 253, 254, 255, 256, 507, 508, 509, 1100] {
            for zero in 0..len {
                let mut payload = vec![7; len];
                payload[zero] = 0;
                let line = encode(1, &payload).unwrap();
                assert!(!line[1..line.len() - 1].contains(&0));
                assert_eq!(decode(&line), [frame(1, &payload)], "{zero} of {len}");
            }
        }
    }

    /// Every cut and every flipped bit costs that frame and leaves the next one.
    #[test]
    fn what_the_line_damages_is_dropped_and_the_next_frame_is_found() {
        let payload: Vec<u8> = (0..=255).chain(0..60).collect();
        let line = encode(7, &payload).unwrap();
        let next = encode(8, b"next").unwrap();
        for cut in 0..line.len() {
            let bytes = [&line[..cut], &next].concat();
            let found = decode(&bytes);
            // Only the closing delimiter is missing: the next frame's opening one stands for it.
            let whole = cut == line.len() - 1;
            assert_eq!(found.len(), 1 + usize::from(whole), "{cut}");
            assert_eq!(found.last(), Some(&frame(8, b"next")));
        }
        for bit in 8..(line.len() - 1) * 8 {
            let mut bytes = line.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes.extend_from_slice(&next);
            assert_eq!(decode(&bytes), [frame(8, b"next")], "{bit}");
        }
    }

    #[test]
    fn noise_and_overlong_pieces_are_counted_and_skipped() {
        let mut decoder = FrameDecoder::default();
        let good = encode(3, b"good").unwrap();
        assert_eq!(decoder.push(b"U-Boot 2026.01\r\n"), []);
        assert!(decoder.is_within_piece());
        assert_eq!(decoder.push(&good), [frame(3, b"good")]);
        assert!(!decoder.is_within_piece());
        assert_eq!(decoder.damage(), LineDamage { damaged: 1, oversized: 0 });
        for _ in 0..100 {
            assert_eq!(decoder.push(&[0x55; ENCODED_MAX]), []);
        }
        assert!(decoder.piece.capacity() <= ENCODED_MAX, "{}", decoder.piece.capacity());
        assert_eq!(decoder.push(&good), [frame(3, b"good")]);
        assert_eq!(decoder.damage(), LineDamage { damaged: 1, oversized: 1 });
        assert_eq!(decoder.push(&[0; 1000]), [], "idle delimiters are nothing");
        assert_eq!(decoder.damage(), LineDamage { damaged: 1, oversized: 1 });
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_harmless(
            noise in proptest::collection::vec(any::<u8>(), 0..600),
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            piece in 1_usize..64,
        ) {
            let line = encode(9, &payload).unwrap();
            let mut decoder = FrameDecoder::default();
            let bytes = [&noise[..], &line].concat();
            let found: Vec<_> = bytes.chunks(piece).flat_map(|piece| decoder.push(piece)).collect();
            prop_assert_eq!(found.last(), Some(&frame(9, &payload)));
        }
    }
}
