use super::*;

fn from_devices() -> Vec<DeviceMessage> {
    let alarm = Alarm {
        id: AlarmId::new("0123456789abcdef").unwrap(),
        sleeve: Serial::new("SLV-1").unwrap(),
        session: 7,
        at: 1_800_000_000_000,
    };
    vec![
        DeviceMessage::Register,
        DeviceMessage::Meet(Serial::new("MGR-1").unwrap()),
        DeviceMessage::Data(Piece { meeting: 1, bytes: Bounded::new(&[9; PIECE_MAX]).unwrap() }),
        DeviceMessage::Credit(Credited { meeting: 1, bytes: WINDOW }),
        DeviceMessage::Close(Closed { meeting: 1, reason: CloseReason::Busy }),
        DeviceMessage::Alarm(alarm),
    ]
}

fn from_server() -> Vec<RelayMessage> {
    vec![
        RelayMessage::Registered(WINDOW),
        RelayMessage::Met(Met { meeting: 3, peer: Serial::new("SLV-1").unwrap() }),
        RelayMessage::Data(Piece { meeting: 3, bytes: Bounded::new(b"x").unwrap() }),
        RelayMessage::Credit(Credited { meeting: 3, bytes: 1 }),
        RelayMessage::Close(Closed { meeting: 3, reason: CloseReason::PeerGone }),
        RelayMessage::Elsewhere(Address::new("gateway.example:8444").unwrap()),
        RelayMessage::refused("manager-absent", 5),
        RelayMessage::AlarmTaken(AlarmId::new("a1").unwrap()),
    ]
}

/// Every message is read back; cut anywhere, or with a byte more, it is none.
#[test]
fn messages_are_read_back_whole_and_only_whole() {
    for message in from_devices() {
        let encoded = message.encode();
        assert!(encoded.len() <= MESSAGE_LEN_MAX);
        assert_eq!(DeviceMessage::decode(&encoded).as_ref(), Ok(&message));
        for len in 0..encoded.len() {
            assert!(DeviceMessage::decode(&encoded[..len]).is_err(), "{} {len}", message.name());
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(DeviceMessage::decode(&longer).is_err());
        assert!(RelayMessage::decode(&encoded).is_err(), "the other direction's");
    }
    for message in from_server() {
        let encoded = message.encode();
        assert_eq!(RelayMessage::decode(&encoded).as_ref(), Ok(&message));
        for len in 0..encoded.len() {
            assert!(RelayMessage::decode(&encoded[..len]).is_err(), "{} {len}", message.name());
        }
        let longer = [&encoded[..], &[0]].concat();
        assert!(RelayMessage::decode(&longer).is_err());
        assert!(DeviceMessage::decode(&encoded).is_err(), "the other direction's");
    }
}

#[test]
fn impossible_messages_are_refused() {
    let long = vec![3; MESSAGE_LEN_MAX + 1];
    assert_eq!(DeviceMessage::decode(&long), Err(MessageError::TooLong(long.len())));
    assert_eq!(RelayMessage::decode(&long), Err(MessageError::TooLong(long.len())));
    for unknown in [0, 7, 0x80, 0xff] {
        assert!(DeviceMessage::decode(&[unknown]).is_err());
        assert!(RelayMessage::decode(&[unknown]).is_err());
    }
    let empty = Piece { meeting: 1, bytes: Bounded::new(&[]).unwrap() };
    let nobody = Serial::new("").unwrap();
    for encoded in [
        DeviceMessage::Data(empty.clone()).encode(),
        DeviceMessage::Credit(Credited { meeting: 1, bytes: 0 }).encode(),
        DeviceMessage::Credit(Credited { meeting: 1, bytes: WINDOW + 1 }).encode(),
        DeviceMessage::Meet(nobody.clone()).encode(),
    ] {
        assert_eq!(DeviceMessage::decode(&encoded), Err(MessageError::Malformed));
    }
    for encoded in [
        RelayMessage::Data(empty).encode(),
        RelayMessage::Credit(Credited { meeting: 1, bytes: 0 }).encode(),
        RelayMessage::Met(Met { meeting: 1, peer: nobody }).encode(),
        RelayMessage::Registered(WINDOW + 1).encode(),
        RelayMessage::Elsewhere(Address::new("").unwrap()).encode(),
        RelayMessage::refused("", 0).encode(),
    ] {
        assert_eq!(RelayMessage::decode(&encoded), Err(MessageError::Malformed));
    }
    // A reason that nobody knows.
    let closed = DeviceMessage::Close(Closed { meeting: 1, reason: CloseReason::Done }).encode();
    let unknown = [&closed[..closed.len() - 1], &[9]].concat();
    assert!(DeviceMessage::decode(&unknown).is_err());
}
