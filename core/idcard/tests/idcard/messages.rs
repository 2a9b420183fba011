use countersign_crypto::Secret;
use countersign_idcard::message::{
    AbortReason, CardAnswer, MESSAGE_LEN_MAX, MessageError, Missing, Plaintext, ReadBegin,
    ReaderMessage, Refused, ServerMessage, Source,
};
use countersign_idcard::{
    Bytes, Check, Configuration, DataError, ENCRYPTED_BASE_LEN, ENCRYPTED_LEN_MAX, EncryptedData,
    Packet, PacketAssembler, PlainData, ShortText,
};
use proptest::prelude::*;

fn reader_messages() -> Vec<ReaderMessage> {
    vec![
        ReaderMessage::ReadBegin(ReadBegin {
            read_id: [1; 16],
            configuration: Configuration::new([2; 32]),
            source: Source::Card,
        }),
        ReaderMessage::CardAnswer(CardAnswer { answer: [3; 8], random: [4; 8] }),
        ReaderMessage::Packet(Packet {
            index: 0,
            total: 2,
            data: Bytes::new(&[5; 1024]).expect("fits"),
        }),
        ReaderMessage::Abort(AbortReason::CardRemoved),
        ReaderMessage::ResendResult(Missing::new(0b0101).expect("possible")),
        ReaderMessage::Received,
    ]
}

fn plain(fingerprint: Option<usize>) -> PlainData {
    let secret = |len| Secret::new(vec![6; len]);
    PlainData::new(secret(256), secret(1024), fingerprint.map(secret)).expect("lengths fit")
}

fn server_messages() -> Vec<ServerMessage> {
    let text = |text| ShortText::new(text).expect("short");
    let plaintext = |finger, cache_plaintext| Plaintext { data: plain(finger), cache_plaintext };
    vec![
        ServerMessage::CardChallenge([1; 8]),
        ServerMessage::SamProof([2; 8]),
        ServerMessage::SendPackets,
        ServerMessage::Plaintext(plaintext(None, false)),
        ServerMessage::Plaintext(plaintext(Some(512), true)),
        ServerMessage::Refused(Refused::new(
            ShortText::new("sam-timeout").expect("short"),
            true,
            text("inc_1"),
        )),
        ServerMessage::Resend(Missing::new(0b1000).expect("possible")),
        ServerMessage::ResultPart(Packet {
            index: 1,
            total: 2,
            data: Bytes::new(&[7; 259]).expect("fits"),
        }),
    ]
}

#[test]
fn messages_round_trip_and_refuse_every_truncation_and_extension() {
    for message in reader_messages() {
        let bytes = message.encode();
        assert_eq!(ReaderMessage::decode(&bytes), Ok(message));
        for len in 0..bytes.len() {
            assert!(ReaderMessage::decode(&bytes[..len]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(ReaderMessage::decode(&longer), Err(MessageError::Trailing));
    }
    for message in server_messages() {
        let bytes = message.encode();
        let again = ServerMessage::decode(&bytes).expect("its own encoding");
        assert_eq!(again.encode(), bytes);
        assert_eq!(again.name(), message.name());
        for len in 0..bytes.len() {
            assert!(ServerMessage::decode(&bytes[..len]).is_err());
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(ServerMessage::decode(&longer).err(), Some(MessageError::Trailing));
    }
}

#[test]
fn the_wire_is_as_documented() {
    let [begin, answer, packet, abort, resend, received] =
        reader_messages().try_into().expect("six");
    let begin = begin.encode();
    assert_eq!((begin.len(), begin[0], begin[49]), (1 + 16 + 32 + 1, 1, 1));
    assert_eq!((answer.encode().len(), answer.encode()[0]), (17, 2));
    assert_eq!(packet.encode()[..5], [3, 0, 2, 0x04, 0x00]);
    assert_eq!(*abort.encode(), [4, 1]);
    assert_eq!(*resend.encode(), [6, 0b0101]);
    assert_eq!(*received.encode(), [7]);
    let part = server_messages().pop().expect("the last").encode();
    assert_eq!(part[..5], [0x87, 1, 2, 0x01, 0x03]);
    assert_eq!(part[5..], [7; 259]);
    let resend = ServerMessage::Resend(Missing::ALL).encode();
    assert_eq!(*resend, [0x86, 0b1111]);
    assert_eq!(*ServerMessage::SendPackets.encode(), [0x83]);
}

#[test]
fn plaintext_carries_data_and_policy() {
    for (finger, policy) in [(None, false), (Some(1024), true)] {
        let message =
            ServerMessage::Plaintext(Plaintext { data: plain(finger), cache_plaintext: policy });
        let Ok(ServerMessage::Plaintext(again)) = ServerMessage::decode(&message.encode()) else {
            panic!("not a plaintext");
        };
        assert_eq!(again.cache_plaintext, policy);
        assert_eq!(again.data.fingerprint().map(<[u8]>::len), finger);
        assert!(!format!("{again:?}").contains('6'), "personal data printed");
    }
}

#[test]
fn unknown_types_and_values_are_typed_errors() {
    for code in [0, 5, 8, 0x81, 0xFF] {
        let error = ReaderMessage::decode(&[code, 0, 0]);
        assert_eq!(error, Err(MessageError::UnknownType(code.into())));
    }
    for code in [0, 1, 0x80, 0x88, 0xFF] {
        let error = ServerMessage::decode(&[code, 0, 0]).err();
        assert_eq!(error, Some(MessageError::UnknownType(code.into())));
    }
    let mut begin = reader_messages().remove(0).encode();
    begin[49] = 3;
    assert_eq!(ReaderMessage::decode(&begin), Err(MessageError::UnknownType(3)));
    assert!(ReaderMessage::decode(&[4, 9]).is_err());
    // A flag is 0 or 1, a name visible ASCII.
    let refused = server_messages().swap_remove(5).encode();
    let mut altered = refused.clone();
    altered[2 + "sam-timeout".len()] = 2;
    assert_eq!(ServerMessage::decode(&altered).err(), Some(MessageError::Malformed));
    let mut altered = refused;
    altered[3] = 0x0A;
    assert_eq!(ServerMessage::decode(&altered).err(), Some(MessageError::Malformed));
}

#[test]
fn a_bitmap_names_something_that_can_be_missing() {
    for bits in [0, 0b1_0000, 0b1000_0001, 0xFF] {
        assert_eq!(Missing::new(bits), None);
        assert_eq!(ReaderMessage::decode(&[6, bits]), Err(MessageError::Malformed));
        let error = ServerMessage::decode(&[0x86, bits]).err();
        assert_eq!(error, Some(MessageError::Malformed));
    }
    let missing = Missing::new(0b0110).expect("possible");
    assert_eq!((missing.bits(), missing.last()), (0b0110, 2));
    assert_eq!([0, 1, 2, 3, 8].map(|index| missing.has(index)), [false, true, true, false, false]);
    assert_eq!(Missing::ALL.bits(), 0b1111);
}

#[test]
fn lengths_are_capped_before_anything_is_allocated() {
    for len in [1025_u16, 0x7FFF, 0xFFFF] {
        let [high, low] = len.to_be_bytes();
        let mut bytes = vec![3, 0, 1, high, low];
        bytes.resize(MESSAGE_LEN_MAX, 0);
        assert_eq!(ReaderMessage::decode(&bytes), Err(MessageError::Malformed));
    }
    let long = vec![3; MESSAGE_LEN_MAX + 1];
    assert_eq!(ReaderMessage::decode(&long), Err(MessageError::TooLong(long.len())));
    assert!(Bytes::<4>::new(&[0; 5]).is_none());
    assert!(ShortText::<4>::new("12345").is_none());
    assert!(ShortText::<4>::new("a b").is_none());
}

#[test]
fn check_names_fit_the_refusal_and_hide_what_depends_on_secrets() {
    let checks = [
        Check::MessageMalformed,
        Check::MessageUnexpected,
        Check::Packets,
        Check::PeerFlood,
        Check::PeerTimeout,
        Check::ReaderAborted,
        Check::CardRemoved,
        Check::CardTimeout,
        Check::CardRefused,
        Check::CardSwapped,
        Check::CardUnreadable,
        Check::CardNotFound,
        Check::CardAuthentication,
        Check::Decryption,
        Check::Record,
        Check::SamTimeout,
        Check::SamDamaged,
        Check::SamGone,
        Check::SamOtherCard,
        Check::SamFailed,
    ];
    let names: std::collections::BTreeSet<_> = checks.iter().map(|check| check.name()).collect();
    assert_eq!(names.len(), checks.len());
    assert_eq!(Check::publish("sam-busy"), "sam-busy");
    for check in checks {
        assert!(ShortText::<48>::new(check.public_name()).is_some());
        assert_eq!(check.is_secret_dependent(), check.public_name() == "authentication");
        assert_eq!(Check::publish(check.name()), check.public_name());
    }
}

fn encrypted(len: usize) -> EncryptedData {
    let bytes = (0..len).map(|at| (at % 251) as u8).collect::<Vec<u8>>();
    EncryptedData::new(bytes.into()).expect("a possible length")
}

#[test]
fn packets_reassemble_to_the_same_data() {
    for (len, count) in [(ENCRYPTED_BASE_LEN, 2), (ENCRYPTED_LEN_MAX, 3)] {
        let data = encrypted(len);
        let packets = data.packets();
        assert_eq!(packets.len(), count);
        let mut assembler = PacketAssembler::new();
        let mut result = None;
        for packet in &packets {
            assert!(result.is_none());
            result = assembler.push(packet).expect("in order");
        }
        assert_eq!(result, Some(data));
    }
    assert!(EncryptedData::new(vec![0; ENCRYPTED_BASE_LEN - 1].into()).is_err());
    assert!(EncryptedData::new(vec![].into()).is_err());
}

#[test]
fn packets_come_in_any_order_and_more_than_once() {
    let data = encrypted(ENCRYPTED_LEN_MAX);
    let packets = data.packets();
    let mut assembler = PacketAssembler::new();
    assert_eq!((assembler.missing(), assembler.is_empty()), (0b1111, true));
    for (index, missing) in [(2, 0b011), (2, 0b011), (0, 0b010), (2, 0b010), (0, 0b010)] {
        assert_eq!(assembler.push(&packets[index]), Ok(None));
        assert_eq!((assembler.missing(), assembler.is_empty()), (missing, false));
    }
    assert_eq!(assembler.push(&packets[1]), Ok(Some(data)));
    assert_eq!(assembler.missing(), 0);
    // Once whole, whatever comes again gives nothing more.
    assert_eq!(assembler.push(&packets[1]), Ok(None));
}

#[test]
fn packets_of_wrong_number_or_length_are_refused() {
    let packets = encrypted(ENCRYPTED_LEN_MAX).packets();
    let push = |packets: &[Packet]| {
        let mut assembler = PacketAssembler::new();
        packets.iter().find_map(|packet| assembler.push(packet).err())
    };
    let with = |alter: fn(&mut Vec<Packet>)| {
        let mut packets = packets.clone();
        alter(&mut packets);
        push(&packets)
    };
    assert_eq!(push(&packets), None);
    assert_eq!(with(|packets| packets.reverse()), None);
    let expected = Some(DataError::PacketConflict { index: 0 });
    assert_eq!(with(|packets| packets[1].index = 0), expected);
    let expected = Some(DataError::PacketIndex { index: 3, total: 3 });
    assert_eq!(with(|packets| packets[1].index = 3), expected);
    assert_eq!(with(|packets| packets[1].total = 2), Some(DataError::PacketCount { total: 2 }));
    assert_eq!(with(|packets| packets[0].total = 0), Some(DataError::PacketCount { total: 0 }));
    assert_eq!(with(|packets| packets[0].total = 5), Some(DataError::PacketCount { total: 5 }));
    // Four are possible by their number, but no card has so much.
    assert_eq!(with(|packets| packets[0].total = 4), Some(DataError::PacketCount { total: 4 }));
    let short = |packet: &mut Packet| packet.data = Bytes::new(&[0; 10]).expect("fits");
    let expected = Some(DataError::Length { part: "packet", len: 10 });
    let mut altered = packets.clone();
    short(&mut altered[0]);
    assert_eq!(push(&altered), expected);
    let mut altered = packets.clone();
    short(&mut altered[2]);
    assert!(matches!(push(&altered), Some(DataError::Length { part: "encrypted data", .. })));
    let mut alone = packets[0].clone();
    alone.total = 1;
    assert!(matches!(push(&[alone]), Some(DataError::Length { part: "encrypted data", .. })));
}

proptest! {
    #[test]
    fn decoding_is_total(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2600),
        code in 0_u8..8,
    ) {
        let _either = ReaderMessage::decode(&bytes);
        let _either = ServerMessage::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = code;
            if let Ok(message) = ReaderMessage::decode(&bytes) {
                prop_assert_eq!(&*message.encode(), &bytes);
            }
            bytes[0] = code | 0x80;
            if let Ok(message) = ServerMessage::decode(&bytes) {
                prop_assert_eq!(&*message.encode(), &bytes);
            }
        }
    }
}
