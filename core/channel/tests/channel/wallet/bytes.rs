//! Bytes: order, lengths, alterations, reflection, truncation, noise (G2, G7, G9, G12, G15).

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Whether the one who would have to believe message `n` is open after all.
fn believed(pair: &Pair, mode: Mode, n: usize) -> bool {
    let last = n + 1 == messages(mode);
    // Before the last message neither may be open; after it one side rightly is.
    match (last, mode) {
        (true, Mode::A1) => sleeve_open(pair),
        (true, _) => manager_open(pair),
        (false, _) => sleeve_open(pair) || manager_open(pair),
    }
}

/// G2, G9, G12: whatever byte of whatever message is changed, nobody connects, and in A1 the
/// manager stores nothing.
#[test]
fn g2_a_change_to_any_byte_of_a_handshake_is_refused() {
    for (mode, mut world) in worlds(250) {
        for message in 0..messages(mode) {
            let length = world.contact(mode).take_message(message).len();
            for at in 0..length {
                // An attacker's bad proofs would be limited; here each is the first.
                world.now = world.now.plus(Duration::from_millis(100));
                let mut pair = world.contact(mode);
                let mut frame = pair.take_message(message);
                if at >= frame.len() {
                    continue; // DER signatures vary in length
                }
                frame[at] ^= 1 << (at % 8);
                let outcome = pair.deliver_message(message, &frame).and_then(|()| pair.drive());
                let note = format!("{mode:?}, message {message}, byte {at}: {outcome:?}");
                assert!(!believed(&pair, mode, message), "{note}");
                let stored = mode == Mode::A1 && message < 3 && pair.of_sleeve.is_some();
                assert!(!stored, "{note}");
                // A longer length makes a party wait; everything else is an error.
                assert!(outcome.is_err() || (5..8).contains(&at), "{note}");
            }
        }
    }
}

/// The same for truncation, extension and repetition of every message.
#[test]
fn g2_a_message_cut_lengthened_or_repeated_is_refused() {
    for (mode, mut world) in worlds(251) {
        for message in 0..messages(mode) {
            let frame = world.contact(mode).take_message(message);
            let body = frame.len() - 8;
            let resized = |len: usize| {
                let mut resized = frame.clone();
                resized.resize(8 + len, 0);
                resized[5..8].copy_from_slice(&u32::try_from(len).unwrap().to_be_bytes()[1..]);
                resized
            };
            let bad = [0, 1, body / 2, body - 1, body + 1, body + 7].map(resized);
            for (number, bytes) in bad.into_iter().enumerate() {
                world.now = world.now.plus(Duration::from_millis(100));
                let mut pair = world.contact(mode);
                drop(pair.take_message(message));
                let result = pair.deliver_message(message, &bytes);
                assert!(result.is_err(), "{mode:?}, message {message}, variant {number}");
            }
            let mut pair = world.contact(mode);
            let frame = pair.take_message(message);
            let twice = [&frame[..], &frame[..]].concat();
            let result = pair.deliver_message(message, &twice);
            assert!(result.is_err(), "{mode:?}, message {message} twice");
        }
    }
}

/// G9: every message reflected to its sender, or brought where another one is due, is refused.
#[test]
fn g9_messages_out_of_order_or_reflected_are_refused() {
    for (mode, mut world) in worlds(252) {
        let frames: Vec<_> =
            (0..messages(mode)).map(|n| world.contact(mode).take_message(n)).collect();
        for due in 0..messages(mode) {
            let mut pair = world.contact(mode);
            let own = pair.take_message(due);
            assert!(pair.deliver_message(due + 1, &own).is_err(), "{mode:?}: {due} reflected");
            for (sent, frame) in frames.iter().enumerate() {
                world.now = world.now.plus(Duration::from_millis(100));
                let mut pair = world.contact(mode);
                drop(pair.take_message(due));
                let outcome = pair.deliver_message(due, frame);
                // The manager keeps nothing between M0 and M2, so M2 may come to a machine that
                // never saw M0; another contact's first message begins one, and its M1 is found
                // out by the challenge.
                let may = match mode {
                    Mode::A1 => (due, sent) == (0, 0),
                    _ => [(0, 0), (0, 2), (1, 1)].contains(&(due, sent)),
                };
                let note = format!("{mode:?}: {sent} where {due} is due: {outcome:?}");
                assert_eq!(outcome.is_ok(), may, "{note}");
                assert!(!believed(&pair, mode, due), "{note}");
            }
        }
    }
}

/// G7: no application data before confirmation.
#[test]
fn g7_nothing_is_sent_or_accepted_before_confirmation() {
    for (mode, mut world) in worlds(253) {
        let mut pair = world.contact(mode);
        assert!(matches!(pair.sleeve.send(b"early"), Err(Error::Misuse(_))));
        assert!(matches!(pair.manager.send(b"early"), Err(Error::Misuse(_))));
        let last = pair.take_message(messages(mode) - 1);
        // Who sent the last message may send; its record does not overtake the message.
        if mode == Mode::A1 {
            assert!(matches!(pair.sleeve.send(b"early"), Err(Error::Misuse(_))));
            pair.manager.send(b"data").unwrap();
        } else {
            assert!(matches!(pair.manager.send(b"early"), Err(Error::Misuse(_))));
            pair.sleeve.send(b"data").unwrap();
        }
        pair.collect();
        let n = messages(mode) - 1;
        let wire = if mode == Mode::A1 { &mut pair.to_sleeve } else { &mut pair.to_manager };
        let record = wire.pop_front().unwrap();
        assert_eq!(pair.deliver_message(n, &record), Err(Error::Unexpected), "{mode:?}");
        drop(last);
    }
}

/// G12: order, replay, loss, truncation of records, and that one reflected does not open.
#[test]
fn g12_records_replayed_lost_swapped_reflected_or_cut_are_refused() {
    for (mode, mut world) in worlds(254) {
        let send_two = |world: &mut World| {
            let mut pair = connected(world, mode);
            pair.sleeve.send(b"one").unwrap();
            pair.sleeve.send(b"two").unwrap();
            pair.collect();
            let [one, two] = [(); 2].map(|()| pair.to_manager.pop_front().unwrap());
            (pair, one, two)
        };
        let bad = Err(Error::Authentication("record"));
        let (mut pair, one, _) = send_two(&mut world);
        pair.deliver_to_manager(&one).unwrap();
        assert_eq!(pair.deliver_to_manager(&one), bad, "replayed");
        let (mut pair, _, two) = send_two(&mut world);
        assert_eq!(pair.deliver_to_manager(&two), bad, "lost or swapped");
        let (mut pair, one, _) = send_two(&mut world);
        assert_eq!(pair.deliver_to_sleeve(&one), bad, "reflected");
        let (mut pair, one, two) = send_two(&mut world);
        pair.deliver_to_manager(&[one, two].concat()).unwrap();
        assert_eq!(manager_data(&mut pair), [b"one".to_vec(), b"two".to_vec()]);
        assert_eq!(pair.manager.handle_end(), Err(Error::Truncated), "cut");
        let (mut pair, one, two) = send_two(&mut world);
        pair.deliver_to_manager(&[one, two].concat()).unwrap();
        pair.sleeve.close().unwrap();
        pair.drive().unwrap();
        assert!(matches!(pair.manager_events.pop(), Some(ManagerEvent::Closed)));
        assert_eq!(pair.manager.handle_end(), Ok(()));
    }
}

/// Bytes may arrive one at a time.
#[test]
fn bytes_may_arrive_one_at_a_time() {
    for (mode, mut world) in worlds(255) {
        let mut pair = world.contact(mode);
        for _ in 0..3 {
            pair.collect();
            for byte in pair.to_manager.drain(..).flatten().collect::<Vec<_>>() {
                pair.deliver_to_manager(&[byte]).unwrap();
            }
            pair.collect();
            for byte in pair.to_sleeve.drain(..).flatten().collect::<Vec<_>>() {
                pair.deliver_to_sleeve(&[byte]).unwrap();
            }
        }
        assert!(manager_open(&pair) && sleeve_open(&pair), "{mode:?}");
    }
}

/// G15: a length beyond a type's bound dies at the header, an id outside its alphabet in it.
#[test]
fn g15_lengths_and_ids_are_bounded() {
    for (mode, mut world) in worlds(256) {
        for message in 0..messages(mode) {
            for length in [[0xff, 0xff, 0xff], [0, 0x20, 0]] {
                let mut pair = world.contact(mode);
                let mut head = pair.take_message(message)[..8].to_vec();
                head[5..8].copy_from_slice(&length);
                let error = pair.deliver_message(message, &head).unwrap_err();
                assert_eq!(error.check(), "message-format", "{mode:?}, message {message}");
            }
        }
        let mut pair = world.contact(mode);
        let mut first = pair.take_message(0);
        let at = first.windows(5).position(|part| part == b"SLV-1").unwrap();
        first[at] = b'\x1b'; // a terminal would obey it
        let error = pair.deliver_to_manager(&first).unwrap_err();
        assert_eq!(error.check(), "message-format");
        assert!(pair.asked.is_empty(), "nobody is shown it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// G15: no bytes make a machine panic, and a dead one stays dead.
    #[test]
    fn g15_machines_are_total(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        message in 0_usize..5,
        head in any::<bool>(),
        mode in proptest::sample::select(MODES.as_slice()),
    ) {
        let mut world = world_for(mode, 257);
        let message = message.min(messages(mode) - 1);
        let mut pair = world.contact(mode);
        let frame = pair.take_message(message);
        let bytes = if head { [&frame[..8], &noise].concat() } else { noise };
        if pair.deliver_message(message, &bytes).is_err() {
            prop_assert_eq!(pair.deliver_message(message, &[]), Err(Error::Dead));
        }
    }
}
