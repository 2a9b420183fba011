//! Handshake C1 and its records, by the goals of `docs/protocols/channel.md`.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{
    DirectoryEntry, Error, IdKind, LookupRefusal, ReaderChannel, ReaderConfig, ReaderEvent,
    ReaderId, Refusal, ServerChannel, ServerConfig, ServerEvent,
};
use countersign_crypto::{Provider, aws_lc, rust_crypto};
use countersign_pki::{PkiError, Role};
use proptest::prelude::*;
use testkit::counting::{CountingProvider, Counts};
use testkit::pair::{ADDRESS, Pair, World, entry, reader_config, server_config};
use testkit::pki::{LEAF_VALIDITY, NOW, TestPki};

fn world_with(provider: &Provider, seed: u64) -> World {
    World::new(provider.clone(), provider.clone(), provider.clone(), seed)
}

fn world(seed: u64) -> World {
    world_with(&aws_lc::provider(), seed)
}

fn connected(world: &mut World) -> Pair {
    let mut pair = world.connect();
    pair.drive().unwrap();
    assert!(matches!(pair.reader_events.remove(0), ReaderEvent::Connected));
    assert!(matches!(pair.server_events.remove(0), ServerEvent::Connected));
    pair
}

fn server_data(pair: &mut Pair) -> Vec<Vec<u8>> {
    let data = |event| match event {
        ServerEvent::Data(data) => data.to_vec(),
        _ => panic!("only data"),
    };
    pair.server_events.drain(..).map(data).collect()
}

#[test]
fn both_providers_agree_and_data_flows_both_ways() {
    for (reader, server) in [
        (rust_crypto::provider(), aws_lc::provider()),
        (aws_lc::provider(), rust_crypto::provider()),
    ] {
        let mut world = World::new(rust_crypto::provider(), reader, server, 1);
        let mut pair = connected(&mut world);
        assert_eq!(pair.looked_up, [ReaderId::Serial("RD-1".into())]);
        pair.reader.send(b"configuration").unwrap();
        pair.reader.send(&[7; 16 * 1024]).unwrap();
        pair.server.send(b"plaintext").unwrap();
        pair.drive().unwrap();
        assert_eq!(server_data(&mut pair), [b"configuration".to_vec(), vec![7; 16 * 1024]]);
        let Some(ReaderEvent::Data(data)) = pair.reader_events.pop() else { panic!("data") };
        assert_eq!(*data, b"plaintext");
        assert_eq!(pair.reader.peer().unwrap().identity().id(), "srv-1");
        assert_eq!(pair.server.peer().unwrap().identity().id(), "RD-1");
        let export = |e: &countersign_channel::Exporter, label| {
            e.export(label, b"context", 32).unwrap().expose().to_vec()
        };
        let (ours, theirs) = (pair.reader.exporter().unwrap(), pair.server.exporter().unwrap());
        assert_eq!(export(ours, "binding"), export(theirs, "binding"));
        assert_ne!(export(ours, "binding"), export(theirs, "other"));
    }
}

#[test]
fn the_first_data_travel_with_m4() {
    let mut world = world(2);
    let mut pair = world.connect();
    let m3 = pair.take_server_frame(1);
    pair.deliver_to_reader(&m3).unwrap();
    pair.reader.send(b"configuration").unwrap();
    pair.collect();
    let flight = pair.to_server.drain(..).collect::<Vec<_>>().concat();
    pair.deliver_to_server(&flight).unwrap();
    assert!(matches!(pair.server_events.remove(0), ServerEvent::Connected));
    assert_eq!(server_data(&mut pair), [b"configuration".to_vec()]);
}

#[test]
fn bytes_may_arrive_one_at_a_time() {
    let mut world = world(3);
    let mut pair = world.connect();
    for _ in 0..3 {
        pair.collect();
        for frame in pair.to_server.drain(..).collect::<Vec<_>>() {
            for byte in frame {
                pair.deliver_to_server(&[byte]).unwrap();
            }
        }
        pair.collect();
        for frame in pair.to_reader.drain(..).collect::<Vec<_>>() {
            for byte in frame {
                pair.deliver_to_reader(&[byte]).unwrap();
            }
        }
    }
    assert!(matches!(pair.server_events[0], ServerEvent::Connected));
}

/// C4: the signed and the sent id in all four combinations, and pairs that do not match.
#[test]
fn c4_ids_of_different_kinds_are_mapped_and_must_match() {
    let kinds = [IdKind::Serial, IdKind::CertificateNumber];
    for signed_id in kinds {
        for sent_id in kinds {
            let mut world = world(4);
            with_reader(&mut world, |config| {
                config.signed_id = signed_id;
                config.sent_id = sent_id;
            });
            connected(&mut world);
        }
    }
    // The directory maps the sent serial to another certificate number.
    let mut world = world(4);
    let other = world.pki.party(Role::Reader, "RD-2");
    world.directory = Ok(DirectoryEntry { serial: "RD-1".into(), ..entry(&other) });
    assert_eq!(refused(&mut world), Refusal::ReaderIdMismatch.into());
    // RD-1 shows RD-2's serial with its own certificate.
    world.directory = Ok(entry(&other));
    with_reader(&mut world, |config| config.serial = "RD-2".into());
    assert_eq!(refused(&mut world), Refusal::ReaderIdMismatch.into());
    // The certificate number it signs is not the one the directory maps to.
    let mut world = self::world(4);
    let number = other.number.clone();
    with_reader(&mut world, |config| config.certificate_number = number);
    assert_eq!(refused(&mut world), Error::Authentication("reader-signature"));
}

fn with_reader(world: &mut World, change: impl FnOnce(&mut ReaderConfig)) {
    change(Arc::get_mut(&mut world.reader).expect("not shared yet"));
}

fn with_server(world: &mut World, change: impl FnOnce(&mut ServerConfig)) {
    change(Arc::get_mut(&mut world.server).expect("not shared yet"));
}

fn refused(world: &mut World) -> Error {
    let mut pair = world.connect();
    let error = pair.drive().expect_err("must be refused");
    assert!(pair.server_events.is_empty() && pair.reader_events.is_empty());
    error
}

#[test]
fn foreign_expired_revoked_blocked_and_unknown_readers_are_refused_by_name() {
    let provider = aws_lc::provider();
    let mut foreign = world(5);
    let mut other = TestPki::new(provider.clone(), 6);
    let party = other.party(Role::Reader, "RD-1");
    foreign.directory = Ok(entry(&party));
    let trust = foreign.reader.trust.clone();
    foreign.reader = Arc::new(ReaderConfig { trust, ..reader_config(&other, &party, provider) });
    assert_eq!(refused(&mut foreign), PkiError::UnknownIssuer.into());

    let mut late = world(5);
    late.now = NOW.plus(LEAF_VALIDITY + Duration::from_secs(1));
    assert_eq!(refused(&mut late), PkiError::Expired.into());

    for (answer, error) in [
        (LookupRefusal::Unknown, Refusal::UnknownReader.into()),
        (LookupRefusal::Revoked, PkiError::Revoked.into()),
        (LookupRefusal::Blocked, Refusal::ReaderBlocked.into()),
        (LookupRefusal::Unavailable, Error::from(Refusal::Busy)),
    ] {
        let mut world = world(5);
        world.directory = Err(answer);
        assert_eq!(refused(&mut world), error);
    }
}

#[test]
fn the_alert_names_the_check_and_the_incident() {
    let mut world = world(7);
    world.directory = Err(LookupRefusal::Blocked);
    let mut pair = world.connect();
    pair.drive().unwrap_err();
    pair.collect();
    let alert = pair.to_reader.pop_front().unwrap();
    let error = pair.deliver_to_reader(&alert).unwrap_err();
    assert_eq!(error.to_string(), "the peer refused: reader-blocked (incident inc-test)");
    assert_eq!(pair.deliver_to_reader(&alert), Err(Error::Dead));
}

#[test]
fn the_reader_refuses_servers_it_was_not_set_up_for() {
    // Another certified server: G5, no misbinding with a corrupt certified peer.
    let mut world = world(8);
    let provider = aws_lc::provider();
    let mallory = world.pki.party(Role::Server, "srv-2");
    let mut config = server_config(&world.pki, &mallory, provider.clone());
    config.server_id = "srv-1".into(); // it answers to the name, but its certificate does not
    world.server = Arc::new(config);
    assert_eq!(refused_by_reader(&mut world), Refusal::UnexpectedServer.into());
    // A server that says honestly who it is refuses at once.
    with_server(&mut world, |config| config.server_id = "srv-2".into());
    assert_eq!(refused(&mut world), Refusal::WrongServer.into());
    // A reader's certificate does not make a server.
    let reader = world.pki.party(Role::Reader, "srv-1");
    world.server = Arc::new(server_config(&world.pki, &reader, provider));
    assert_eq!(refused_by_reader(&mut world), PkiError::WrongRole.into());
}

/// The reader ends and, as S110 has it, sends nothing more.
fn refused_by_reader(world: &mut World) -> Error {
    let mut pair = world.connect();
    let error = pair.drive().expect_err("must be refused");
    pair.collect();
    assert!(pair.to_server.is_empty());
    assert!(pair.server_events.is_empty());
    error
}

/// G2, G9, G12: whatever byte of whatever message is changed, nobody connects.
#[test]
fn a_change_to_any_byte_of_the_handshake_is_refused() {
    let mut world = world(9);
    for message in 0..5 {
        let length = frame_of(&mut world.connect(), message).len();
        for at in 0..length {
            let mut pair = world.connect();
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
            assert!(!server_open, "message {message}, byte {at}: {outcome:?}");
            // A longer length makes a party wait; everything else is an error. M4 is the last
            // message, after which the reader rightly is open.
            let reader_open =
                pair.reader_events.iter().any(|event| matches!(event, ReaderEvent::Connected));
            assert!(!reader_open || message == 4, "message {message}, byte {at}");
        }
    }
}

fn frame_of(pair: &mut Pair, message: usize) -> Vec<u8> {
    match message {
        0 | 2 | 4 => pair.take_reader_frame(message / 2),
        _ => pair.take_server_frame(message / 2),
    }
}

/// G6, G11: a replayed M2, on the same connection's challenge or on a fresh connection.
#[test]
fn a_replayed_m2_is_refused() {
    let mut world = world(10);
    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    pair.deliver_to_server(&m0).unwrap();
    pair.collect();
    let m1 = pair.to_reader.pop_front().unwrap();
    pair.deliver_to_reader(&m1).unwrap();
    pair.collect();
    let m2 = pair.to_server.pop_front().unwrap();
    pair.deliver_to_server(&m2).unwrap();

    // The attacker replays the recorded flight M0, M2 from the same address.
    let mut replay = world.connect();
    replay.collect();
    replay.deliver_to_server(&m0).unwrap();
    let error = replay.deliver_to_server(&m2).unwrap_err();
    assert_eq!(error, Refusal::ChallengeReplayed.into());

    // With another M0 the challenge is not his.
    let mut other = world.connect();
    let mut any_server = m0[..m0.len() - b"srv-1".len()].to_vec();
    *any_server.last_mut().unwrap() = 0;
    any_server[7] -= 5;
    other.deliver_to_server(&any_server).unwrap();
    assert_eq!(other.deliver_to_server(&m2).unwrap_err(), Error::Authentication("challenge-mac"));

    // From another address neither.
    let mut elsewhere = ServerChannel::new(world.server.clone(), &[10, 0, 0, 1], world.now);
    elsewhere.handle(world.now, &mut pair.rng, &m0).unwrap();
    let error = elsewhere.handle(world.now, &mut pair.rng, &m2).unwrap_err();
    assert_eq!(error, Error::Authentication("challenge-mac"));

    // Two epochs later it is stale.
    let mut late = world.connect();
    late.now = world.now.plus(2 * countersign_channel::EPOCH);
    late.deliver_to_server(&m0).unwrap();
    assert_eq!(late.deliver_to_server(&m2).unwrap_err(), Refusal::ChallengeStale.into());
}

/// A proof with a bad signature must not burn the true reader's challenge.
#[test]
fn only_a_proven_reader_burns_a_challenge() {
    let mut world = world(11);
    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    pair.deliver_to_server(&m0).unwrap();
    pair.collect();
    let m1 = pair.to_reader.pop_front().unwrap();
    pair.deliver_to_reader(&m1).unwrap();
    pair.collect();
    let m2 = pair.to_server.pop_front().unwrap();
    let mut forged = m2.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let mut attacker = world.connect();
    attacker.deliver_to_server(&m0).unwrap();
    let error = attacker.deliver_to_server(&forged).unwrap_err();
    assert_eq!(error, Error::Authentication("reader-signature"));
    pair.deliver_to_server(&m2).unwrap();
    pair.drive().unwrap();
    assert!(matches!(pair.server_events[0], ServerEvent::Connected));
}

/// An old M3 replayed to the reader meets another M0 and another share (note (b) on H1).
#[test]
fn a_replayed_server_flight_is_refused_by_the_reader() {
    let mut world = world(12);
    let m3 = world.connect().take_server_frame(1);
    let mut fresh = world.connect();
    let m1 = fresh.take_server_frame(0);
    fresh.deliver_to_reader(&m1).unwrap();
    assert_eq!(fresh.deliver_to_reader(&m3), Err(Error::Authentication("server-signature")));
}

/// G11: exact operation counts of the server for each refusal, before anyone is authenticated.
#[test]
fn g11_refusals_cost_what_the_design_says() {
    let counting = CountingProvider::new(aws_lc::provider());
    let plain = aws_lc::provider();
    let mut world = World::new(plain.clone(), plain, counting.provider(), 13);
    with_server(&mut world, |config| config.key = counting.secure_element(config.key.clone()));
    connected(&mut world); // the reader's certificate is cached from here on

    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    let (_, counts) = counting.measure(|| pair.deliver_to_server(&m0).unwrap());
    let only = Counts { hash: counts.hash, mac: counts.mac, ..Counts::default() };
    assert_eq!(counts, only, "M1 costs hashes and one MAC");
    assert_eq!(counts.mac, 1);
    pair.collect();
    let m1 = pair.to_reader.pop_front().unwrap();
    pair.deliver_to_reader(&m1).unwrap();
    pair.collect();
    let m2 = pair.to_server.pop_front().unwrap();

    let refusal = |frame: &[u8], world: &mut World| {
        let mut attacker = world.connect();
        attacker.deliver_to_server(&m0).unwrap();
        let (result, counts) = counting.measure(|| attacker.deliver_to_server(frame));
        (result.unwrap_err(), counts)
    };
    let one_mac = Counts { mac: 1, ..Counts::default() };

    let mut forged = m2.clone();
    forged[8 + 20] ^= 1; // inside the MAC of R1
    assert_eq!(refusal(&forged, &mut world), (Error::Authentication("challenge-mac"), one_mac));
    let mut stale = m2.clone();
    stale[8 + 5] ^= 1; // the epoch
    let nothing = Counts::default();
    assert_eq!(refusal(&stale, &mut world), (Refusal::ChallengeStale.into(), nothing));

    let mut bad = m2.clone();
    let last = bad.len() - 1;
    bad[last] ^= 1;
    let (error, counts) = refusal(&bad, &mut world);
    assert_eq!(error, Error::Authentication("reader-signature"));
    assert_eq!((counts.verify, counts.mac), (1, 1), "certificate cached: one verification");
    assert_eq!((counts.private_key(), counts.generated()), (0, 0));

    pair.deliver_to_server(&m2).unwrap();
    assert_eq!(refusal(&m2, &mut world), (Refusal::ChallengeReplayed.into(), one_mac));

    // Not cached: two verifications at most.
    let newcomer = world.pki.party(Role::Reader, "RD-2");
    let config = reader_config(&world.pki, &newcomer, aws_lc::provider());
    world.reader = Arc::new(config);
    world.directory = Ok(entry(&newcomer));
    let mut pair = world.connect();
    let mut m2 = pair.take_reader_frame(1);
    let last = m2.len() - 1;
    m2[last] ^= 1;
    let (result, counts) = counting.measure(|| pair.deliver_to_server(&m2));
    assert_eq!(result, Err(Error::Authentication("reader-signature")));
    assert_eq!(counts.verify, 2);
    assert_eq!((counts.private_key(), counts.generated()), (0, 0));
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
    // Noise dies at its first byte.
    let mut pair = world.connect();
    assert_eq!(pair.deliver_to_server(b"G").unwrap_err().check(), "message-format");
    assert_eq!(pair.deliver_to_server(b"C").unwrap_err(), Error::Dead);
}

#[test]
fn messages_out_of_order_or_reflected_are_refused() {
    let mut world = world(15);
    let m2 = world.connect().take_reader_frame(1);
    assert_eq!(world.connect().deliver_to_server(&m2).unwrap_err(), Error::Unexpected);
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

#[test]
fn handshakes_time_out() {
    let mut world = world(18);
    let mut pair = world.connect();
    let deadline = pair.server.poll_timeout().unwrap();
    assert_eq!(deadline, world.now.plus(countersign_channel::HANDSHAKE_TIMEOUT));
    let before = deadline.minus(Duration::from_millis(1));
    assert_eq!(pair.server.handle_timeout(before), Ok(()));
    assert_eq!(pair.server.handle_timeout(deadline), Err(Error::Timeout));
    assert_eq!(pair.reader.handle_timeout(deadline), Err(Error::Timeout));
    let connected = connected(&mut world);
    assert_eq!((connected.server.poll_timeout(), connected.reader.poll_timeout()), (None, None));
}

/// Same seed, same bytes: the pure-Rust provider replays.
#[test]
fn handshakes_replay_under_a_seed() {
    let frames = || {
        let mut world = world_with(&rust_crypto::provider(), 19);
        let mut pair = world.connect();
        (0..3)
            .map(|n| {
                if n == 0 {
                    pair.take_reader_frame(0)
                } else {
                    let mut fresh = world.connect();
                    fresh.take_server_frame(1)
                }
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(frames(), frames());
    let mut world = world_with(&rust_crypto::provider(), 20);
    assert_ne!(world.connect().take_server_frame(1), world.connect().take_server_frame(1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// G15: no bytes make a machine panic, and a dead one stays dead.
    #[test]
    fn g15_machines_are_total(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        message in 0_usize..5,
        head in any::<bool>(),
    ) {
        let mut world = world(21);
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

/// Only one of two simultaneous proofs with the same challenge gets through.
#[test]
fn a_challenge_serves_once_even_when_two_connections_race() {
    let mut world = world(22);
    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    let mut first = ServerChannel::new(world.server.clone(), &ADDRESS, world.now);
    let mut second = ServerChannel::new(world.server.clone(), &ADDRESS, world.now);
    let rng = &mut pair.rng;
    first.handle(world.now, rng, &m0).unwrap();
    second.handle(world.now, rng, &m0).unwrap();
    let m1 = first.poll_transmit().unwrap();
    let mut reader: ReaderChannel = pair.reader;
    reader.handle(world.now, rng, &m1).unwrap();
    let m2 = reader.poll_transmit().unwrap();
    // Both pass the peek before either consumes.
    first.handle(world.now, rng, &m2).unwrap();
    second.handle(world.now, rng, &m2).unwrap();
    let found = world.directory.clone();
    first.reader_found(world.now, rng, found.clone()).unwrap();
    let error = second.reader_found(world.now, rng, found).unwrap_err();
    assert_eq!(error, Refusal::ChallengeReplayed.into());
}
