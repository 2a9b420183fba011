use countersign_idcard::PlainData;
use countersign_idcard::sam::frame::{self, BODY_MAX, Decoder, FRAME_MAX, Item};
use countersign_idcard::sam::{Command, Response};

use crate::script::Script;

/// Bytes of a frame around its body: preamble, LEN, checksum.
const AROUND: usize = 8;

/// A port's bytes in pieces: the same frames however they are cut, each one a frame of the input,
/// and never more held back than one frame. Script: `size of a piece, bytes`.
pub fn sam_frames(data: &[u8]) {
    let mut script = Script::new(data);
    let piece = usize::from(script.byte()).max(1);
    let stream = script.rest();
    let items = decode(stream, piece);
    assert!(items == decode(stream, stream.len().max(1)), "pieces make a difference");
    for item in &items {
        if let Item::Frame(body) = item {
            check_body(stream, body);
        }
    }
}

fn decode(stream: &[u8], piece: usize) -> Vec<Item> {
    let mut decoder = Decoder::new();
    let mut items = Vec::new();
    let (mut fed, mut framed) = (0, 0);
    for mut input in stream.chunks(piece) {
        fed += input.len();
        while let Some(item) = decoder.next(&mut input) {
            if let Item::Frame(body) = &item {
                framed += body.len() + AROUND;
            }
            items.push(item);
        }
        assert!(input.is_empty(), "no item and input left over");
        let done = framed + usize::try_from(decoder.skipped()).expect("less than was fed");
        let held = fed.checked_sub(done).expect("more is done with than was fed");
        assert!(held < FRAME_MAX, "{held} bytes held");
    }
    decoder.clear();
    assert_eq!(framed + usize::try_from(decoder.skipped()).expect("as above"), fed);
    items
}

fn check_body(stream: &[u8], body: &[u8]) {
    assert!(body.len() <= BODY_MAX);
    let frame = frame::encode(&[body]).expect("what was decoded, encodes");
    assert!(stream.windows(frame.len()).any(|window| window == &frame[..]));
    if let Ok(command) = Command::parse(body) {
        assert_eq!(command.to_frame(), frame);
    }
    if let Some(response) = Response::parse(body) {
        assert_eq!(Response::frame(response.status, response.data()), Some(frame));
        for fingerprint in [false, true] {
            if let Some(plain) = PlainData::from_sam(response.data(), fingerprint) {
                assert_eq!(plain.to_sam(fingerprint).as_slice(), response.data());
            }
        }
    }
}
