use countersign_idcard::sam::frame::{self, Decoder, FRAME_MAX, Item, LEN_MAX, PREAMBLE};
use countersign_idcard::sam::{Command, Response, SamId, Status, Sw3};
use countersign_idcard::{Configuration, PlainData};
use proptest::prelude::*;

/// Everything that the decoder finds, fed in pieces of `piece` bytes.
fn decode(bytes: &[u8], piece: usize) -> Vec<Item> {
    let mut decoder = Decoder::new();
    let mut items = Vec::new();
    for mut input in bytes.chunks(piece) {
        while let Some(item) = decoder.next(&mut input) {
            items.push(item);
        }
    }
    items
}

fn framed(body: &[u8]) -> Vec<u8> {
    frame::encode(&[body]).expect("fits").to_vec()
}

fn item(body: &[u8]) -> Item {
    Item::Frame(zeroize::Zeroizing::new(body.to_vec()))
}

/// The requests of GA 450 / GA 467, byte for byte.
#[test]
fn standard_requests_are_the_published_bytes() {
    let cases: [(Command, &str); 7] = [
        (Command::Reset, "000310ffec"),
        (Command::Status, "000311ffed"),
        (Command::SamId, "000312ffee"),
        (Command::Find, "0003200122"),
        (Command::Select, "0003200221"),
        (Command::ReadTextPhoto, "0003300132"),
        (Command::ReadTextPhotoFingerprint, "0003301023"),
    ];
    for (command, rest) in cases {
        let hex: String = command.to_frame().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("aaaaaa9669{rest}"));
        let items = decode(&command.to_frame(), 1);
        let [Item::Frame(body)] = items.as_slice() else { panic!("{items:?}") };
        assert_eq!(Command::parse(body), Ok(command));
    }
}

#[test]
fn standard_responses_have_the_published_lengths() {
    let len = |frame: &[u8]| u16::from_be_bytes([frame[5], frame[6]]);
    let failure = Response::frame(Sw3::NoCard.into(), &[]).expect("fits");
    assert_eq!(failure[5..].to_vec(), [0x00, 0x04, 0x00, 0x00, 0x80, 0x84]);
    assert_eq!(len(&Response::frame(Sw3::Ok.into(), &[0; 16]).expect("fits")), 0x0014);
    assert_eq!(len(&Response::frame(Sw3::CardFound.into(), &[0; 4]).expect("fits")), 0x0008);
    assert_eq!(len(&Response::frame(Sw3::Ok.into(), &[0; 8]).expect("fits")), 0x000C);
    let plain = |finger: Option<usize>| {
        let secret = |len| countersign_crypto::Secret::new(vec![7; len]);
        PlainData::new(secret(256), secret(1024), finger.map(secret)).expect("lengths fit")
    };
    let text = Response::frame(Sw3::Ok.into(), &plain(None).to_sam(false)).expect("fits");
    assert_eq!((text.len(), len(&text)), (1295, 0x0508));
    for (finger, total) in [(Some(1024), 2321), (Some(512), 1809), (None, 1297)] {
        let data = plain(finger).to_sam(true);
        assert_eq!(Response::frame(Sw3::Ok.into(), &data).expect("fits").len(), total);
        let again = PlainData::from_sam(&data, true).expect("parses");
        assert_eq!(again.fingerprint().map(<[u8]>::len), finger);
        assert!(PlainData::from_sam(&data[..data.len() - 1], true).is_none());
    }
}

#[test]
fn sam_ids_are_shown_as_on_the_label() {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&[0x05, 0x00, 0x03, 0x00]);
    bytes[4..8].copy_from_slice(&20_160_105_u32.to_le_bytes());
    bytes[8..12].copy_from_slice(&1_234_567_u32.to_le_bytes());
    bytes[12..].copy_from_slice(&4_000_000_000_u32.to_le_bytes());
    assert_eq!(SamId::new(bytes).to_string(), "05.03-20160105-0001234567-4000000000");
}

#[test]
fn extension_commands_round_trip_and_have_exact_lengths() {
    let commands = [
        Command::RemoteCard(Configuration::new([9; 32])),
        Command::CardAnswer { answer: [1; 8], random: [2; 8] },
        Command::EncryptedData { index: 0, total: 2, chunk: vec![5; 1024].into() },
    ];
    for command in commands {
        let frame = command.to_frame();
        let body = &frame[7..frame.len() - 1];
        assert_eq!(Command::parse(body), Ok(command));
        let mut long = body.to_vec();
        long.push(0);
        assert_eq!(Command::parse(&long), Err(Sw3::BadLength));
    }
    assert_eq!(Command::parse(&[0xE0, 0x03, 0, 1]), Err(Sw3::BadLength));
    assert_eq!(Command::parse(&[0xE0, 0x04]), Err(Sw3::UnknownCommand));
    assert_eq!(Command::parse(&[0x10]), Err(Sw3::BadLength));
    assert_eq!(Command::parse(&[0x10, 0xFF, 0]), Err(Sw3::BadLength));
}

#[test]
fn garbage_and_false_starts_are_skipped() {
    let mut bytes = vec![0xAA, 0xAA, 0x96, 0x69, 0x00, 0x55, 0xAA, 0xAA];
    bytes.extend(framed(&[0, 0, 0x90]));
    bytes.extend([1, 2, 3]);
    bytes.extend(framed(&[0, 0, 0x80]));
    for piece in [1, 3, 7, 1000] {
        assert_eq!(decode(&bytes, piece), [item(&[0, 0, 0x90]), item(&[0, 0, 0x80])]);
    }
}

#[test]
fn a_damaged_frame_is_reported_and_the_next_one_found() {
    let mut bytes = framed(&[0, 0, 0x90, 1, 2, 3]);
    bytes[9] ^= 4;
    bytes.extend(framed(&[0, 0, 0x80]));
    assert_eq!(decode(&bytes, 5), [Item::Damaged, item(&[0, 0, 0x80])]);
    // Truncated: its LEN swallows the start of the next frame, which is found all the same.
    let mut bytes = framed(&[7; 12]);
    bytes.truncate(10);
    bytes.extend(framed(&[0, 0, 0x80]));
    assert_eq!(decode(&bytes, 5), [Item::Damaged, item(&[0, 0, 0x80])]);
}

#[test]
fn impossible_lengths_are_not_believed() {
    for len in [0_u16, 1, 2, LEN_MAX as u16 + 1, 0x7FFF, 0xFFFF] {
        let mut bytes = PREAMBLE.to_vec();
        bytes.extend(len.to_be_bytes());
        bytes.extend(framed(&[0, 0, 0x90]));
        assert_eq!(decode(&bytes, 4), [item(&[0, 0, 0x90])], "{len:#x}");
    }
    assert!(frame::encode(&[&vec![0; LEN_MAX]]).is_none());
    assert!(frame::encode(&[&vec![0; LEN_MAX - 1]]).is_some());
    assert!(frame::encode(&[&[1]]).is_none());
}

#[test]
fn status_bytes_outside_the_table_stay_unknown() {
    let response = Response::parse(&[0, 0, 0x77, 1]).expect("three status bytes");
    assert_eq!(response.status, Status::Unknown([0, 0, 0x77]));
    assert!(Response::parse(&[0, 0]).is_none());
    let response = Response::parse(&[5, 5, 5]).expect("three status bytes");
    assert_eq!(response.status, Status::VendorTimeout);
}

/// What a line may carry: noise, false starts, headers that promise much, whole frames.
fn line_noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(PREAMBLE.to_vec()),
        Just(vec![0xAA, 0xAA]),
        prop::collection::vec(any::<u8>(), 0..60),
        (0_u16..0x1000).prop_map(|len| [&PREAMBLE[..], &len.to_be_bytes()].concat()),
        prop::collection::vec(any::<u8>(), 2..60).prop_map(|body| framed(&body)),
    ];
    prop::collection::vec(piece, 0..80).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_pieces_do_not_matter(
        bytes in line_noise(),
        piece in 1_usize..300,
    ) {
        let items = decode(&bytes, piece);
        prop_assert_eq!(&items, &decode(&bytes, FRAME_MAX * 2));
        for item in items {
            if let Item::Frame(body) = item {
                let _either = Command::parse(&body);
                let _either = Response::parse(&body);
                let _either = PlainData::from_sam(&body, true);
            }
        }
    }

    #[test]
    fn any_body_is_found_behind_any_garbage(
        garbage in prop::collection::vec(any::<u8>(), 0..50),
        body in prop::collection::vec(any::<u8>(), 2..500),
    ) {
        // A preamble inside the garbage may claim a length and wait: not the case meant here.
        prop_assume!(!garbage.windows(3).any(|bytes| bytes == [0xAA; 3]));
        prop_assume!(garbage.last() != Some(&0xAA));
        let mut bytes = garbage;
        bytes.extend(framed(&body));
        prop_assert_eq!(decode(&bytes, 64), [item(&body)]);
    }
}
