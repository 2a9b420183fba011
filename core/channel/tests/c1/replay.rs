//! Challenges: replayed, forged, stale, raced; and what each refusal costs (C3, G6, G11).

use std::sync::Arc;

use countersign_channel::{Error, ReaderChannel, Refusal, ServerChannel, ServerEvent};
use countersign_crypto::aws_lc;
use countersign_pki::Role;
use testkit::counting::{CountingProvider, Counts};
use testkit::pair::{ADDRESS, World, entry, reader_config};

use super::*;

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
