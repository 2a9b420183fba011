//! Bytes: order, lengths, alterations, reflection, truncation, noise (G2, G7, G9, G12, G15).

use countersign_channel::{DirectoryEntry, Error, LookupRefusal, ReaderEvent, ServerEvent};
use proptest::prelude::*;
use testkit::pair::World;

use super::*;

/// Readers do not send alerts, and after a fatal error nothing but the alert leaves the server.
#[test]
fn alerts_go_one_way_and_alone() {
    let mut world = world(26);
    world.directory = Err(LookupRefusal::Blocked);
    let mut pair = world.connect();
    pair.drive().unwrap_err();
    pair.collect();
    let alert = pair.to_reader.pop_front().unwrap();
    world.directory = connected_directory(&mut world);
    let mut pair = world.connect();
    assert_eq!(pair.deliver_to_server(&alert).unwrap_err(), Error::Unexpected);
    // M4 garbage sent ahead: M3 was queued, but only the alert goes out.
    let mut pair = world.connect();
    let m2 = pair.take_reader_frame(1);
    let garbage = [&m2[..], b"CS\x01\x01\x05\x00\x00\x20", &[0; 32]].concat();
    let error = pair.deliver_to_server(&garbage).unwrap_err();
    assert_eq!(error, Error::Authentication("finished"));
    pair.server.refuse(&error, "inc-test");
    pair.collect();
    assert_eq!(pair.to_reader.len(), 1);
    assert_eq!(pair.to_reader[0][4], 15);
}

fn connected_directory(world: &mut World) -> Result<DirectoryEntry, LookupRefusal> {
    Ok(DirectoryEntry {
        serial: world.reader.serial.clone(),
        certificate_number: countersign_pki::number(&world.reader.credentials[0].certificate)
            .unwrap(),
    })
}

/// G2, G9, G12: whatever byte of whatever message is changed, nobody connects.
#[test]
fn a_change_to_any_byte_of_the_handshake_is_refused() {
    for (mode, mut world) in worlds(9) {
        for message in 0..5 {
            let length = frame_of(&mut world.connect(), message).len();
            for at in 0..length {
                let mut pair = world.connect();
                // An attacker's bad proofs would be limited; here each is the first.
                world.now = world.now.plus(Duration::from_millis(100));
                let mut frame = frame_of(&mut pair, message);
                if at >= frame.len() {
                    continue; // DER signatures vary in length
                }
                frame[at] ^= 1 << (at % 8);
                let delivered = if message % 2 == 0 {
                    pair.deliver_to_server(&frame)
                } else {
                    pair.deliver_to_reader(&frame)
                };
                let outcome = delivered.and_then(|()| pair.drive());
                let server_open =
                    pair.server_events.iter().any(|event| matches!(event, ServerEvent::Connected));
                assert!(!server_open, "{mode:?}, message {message}, byte {at}: {outcome:?}");
                // A longer length makes a party wait; everything else is an error. M4 is the last
                // message, after which the reader rightly is open.
                let reader_open =
                    pair.reader_events.iter().any(|event| matches!(event, ReaderEvent::Connected));
                assert!(!reader_open || message == 4, "{mode:?}, message {message}, byte {at}");
            }
        }
    }
}

/// The same for truncation, extension and repetition of every message.
#[test]
fn a_message_cut_lengthened_or_repeated_is_refused() {
    for (mode, mut world) in worlds(30) {
        for message in 0..5 {
            let frame = frame_of(&mut world.connect(), message);
            let body = frame.len() - 8;
            let resized = |len: usize| {
                let mut resized = frame.clone();
                resized.resize(8 + len, 0);
                resized[5..8].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes()[1..]);
                resized
            };
            let mut bad: Vec<_> =
                [0, 1, body / 2, body - 1, body + 1, body + 7].map(resized).into();
            bad.push([&frame[..], &frame[..]].concat());
            for (number, bytes) in bad.into_iter().enumerate() {
                world.now = world.now.plus(Duration::from_millis(100));
                let mut pair = world.connect();
                drop(frame_of(&mut pair, message));
                let result = if message % 2 == 0 {
                    pair.deliver_to_server(&bytes)
                } else {
                    pair.deliver_to_reader(&bytes)
                };
                assert!(result.is_err(), "{mode:?}, message {message}, variant {number}");
            }
        }
    }
}

/// G11 bounds bytes, G15 lengths: a 2 GB claim dies at its header.
#[test]
fn lengths_beyond_the_bound_die_at_the_header() {
    let mut world = world(14);
    for length in [[0xff, 0xff, 0xff], [0x00, 0x10, 0x00]] {
        let mut pair = world.connect();
        let mut head = pair.take_reader_frame(0)[..8].to_vec();
        head[5..8].copy_from_slice(&length);
        let error = pair.deliver_to_server(&head).unwrap_err();
        assert_eq!(error.check(), "message-format");
    }
    // A vector inside M0 that claims 2 GB (variable-length prefix 0xc0…): refused, not allocated.
    let mut pair = world.connect();
    let mut m0 = pair.take_reader_frame(0);
    m0[8..12].copy_from_slice(&[0xbf, 0xff, 0xff, 0xff]);
    assert_eq!(pair.deliver_to_server(&m0).unwrap_err(), Error::Malformed("M0"));
    // Lengths have one encoding: eight-byte prefixes and padded ones are refused.
    for prefix in [&[0xc0, 0, 0, 0, 0, 0, 0, 2][..], &[0x40, 2]] {
        let mut pair = world.connect();
        let m0 = pair.take_reader_frame(0);
        let mut body = [prefix, &m0[9..]].concat();
        let mut frame = m0[..8].to_vec();
        frame[7] = u8::try_from(body.len()).unwrap();
        frame.append(&mut body);
        assert_eq!(pair.deliver_to_server(&frame).unwrap_err(), Error::Malformed("M0"));
    }
    // Noise dies at its first byte.
    let mut pair = world.connect();
    assert_eq!(pair.deliver_to_server(b"G").unwrap_err().check(), "message-format");
    assert_eq!(pair.deliver_to_server(b"C").unwrap_err(), Error::Dead);
}

#[test]
fn messages_out_of_order_or_reflected_are_refused() {
    let mut world = world(15);
    // A stream asks once.
    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    pair.deliver_to_server(&m0).unwrap();
    assert_eq!(pair.deliver_to_server(&m0).unwrap_err(), Error::Unexpected);
    let m4 = world.connect().take_reader_frame(2);
    assert_eq!(world.connect().deliver_to_server(&m4).unwrap_err(), Error::Unexpected);
    let m0 = world.connect().take_reader_frame(0);
    assert_eq!(world.connect().deliver_to_reader(&m0).unwrap_err(), Error::Unexpected);
    let mut pair = connected(&mut world);
    pair.reader.send(b"x").unwrap();
    pair.collect();
    let record = pair.to_server.pop_front().unwrap();
    // G9: a record comes back to its sender.
    assert_eq!(pair.deliver_to_reader(&record), Err(Error::Authentication("record")));
}

/// G12: order, replay, loss, truncation of records.
#[test]
fn g12_records_replayed_lost_swapped_or_cut_are_refused() {
    let mut world = world(16);
    let send_two = |world: &mut World| {
        let mut pair = connected(world);
        pair.reader.send(b"one").unwrap();
        pair.reader.send(b"two").unwrap();
        pair.collect();
        let one = pair.to_server.pop_front().unwrap();
        let two = pair.to_server.pop_front().unwrap();
        (pair, one, two)
    };
    let bad = Err(Error::Authentication("record"));
    let (mut pair, one, _) = send_two(&mut world);
    pair.deliver_to_server(&one).unwrap();
    assert_eq!(pair.deliver_to_server(&one), bad, "replayed");
    let (mut pair, _, two) = send_two(&mut world);
    assert_eq!(pair.deliver_to_server(&two), bad, "lost or swapped");
    let (mut pair, mut one, _) = send_two(&mut world);
    let middle = one.len() / 2;
    one[middle] ^= 1;
    assert_eq!(pair.deliver_to_server(&one), bad, "altered");
    let (mut pair, one, two) = send_two(&mut world);
    pair.deliver_to_server(&[one, two].concat()).unwrap();
    assert_eq!(pair.server.handle_end(), Err(Error::Truncated), "cut");

    let (mut pair, one, two) = send_two(&mut world);
    pair.deliver_to_server(&[one, two].concat()).unwrap();
    pair.reader.close().unwrap();
    assert!(matches!(pair.reader.send(b"late"), Err(Error::Misuse(_))));
    pair.drive().unwrap();
    assert!(matches!(pair.server_events.pop(), Some(ServerEvent::Closed)));
    assert_eq!(pair.server.handle_end(), Ok(()));
}

/// G7: no application data before confirmation.
#[test]
fn g7_nothing_is_sent_or_accepted_before_confirmation() {
    let mut world = world(17);
    let mut pair = world.connect();
    assert!(matches!(pair.reader.send(b"early"), Err(Error::Misuse(_))));
    let m3 = pair.take_server_frame(1);
    assert!(matches!(pair.server.send(b"early"), Err(Error::Misuse(_))));
    pair.deliver_to_reader(&m3).unwrap();
    pair.reader.send(b"data").unwrap();
    pair.collect();
    let _m4 = pair.to_server.pop_front().unwrap();
    let record = pair.to_server.pop_front().unwrap();
    assert_eq!(pair.deliver_to_server(&record).unwrap_err(), Error::Unexpected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// G15: no bytes make a machine panic, and a dead one stays dead.
    #[test]
    fn g15_machines_are_total(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        message in 0_usize..5,
        head in any::<bool>(),
        mode in proptest::sample::select(MODES.as_slice()),
    ) {
        let mut world = world(21).speaking(mode);
        let mut pair = world.connect();
        let frame = frame_of(&mut pair, message);
        let bytes = if head { [&frame[..8], &noise].concat() } else { noise };
        let result = if message % 2 == 0 {
            pair.deliver_to_server(&bytes)
        } else {
            pair.deliver_to_reader(&bytes)
        };
        if result.is_err() {
            let again = if message % 2 == 0 {
                pair.deliver_to_server(&[])
            } else {
                pair.deliver_to_reader(&[])
            };
            prop_assert_eq!(again, Err(Error::Dead));
        }
    }
}
