//! Challenges: replayed, forged, stale, raced; and what each refusal costs (C3, G6, G11).

use std::sync::Arc;

use countersign_channel::{Error, ReaderChannel, Refusal, ServerChannel, ServerEvent};
use countersign_crypto::aws_lc;
use countersign_pki::Role;
use testkit::counting::{CountingProvider, Counts};
use testkit::pair::{ADDRESS, World, entry, reader_config};

use super::*;

/// A contact up to M2, which is taken off the wire: the pair, M0 and M2.
fn up_to_m2(world: &mut World) -> (Pair, Vec<u8>, Vec<u8>) {
    let mut pair = world.connect();
    let m0 = pair.take_reader_frame(0);
    pair.deliver_to_server(&m0).unwrap();
    pair.collect();
    let m1 = pair.to_reader.pop_front().unwrap();
    pair.deliver_to_reader(&m1).unwrap();
    pair.collect();
    let m2 = pair.to_server.pop_front().unwrap();
    (pair, m0, m2)
}

/// Where M2 has the transcript hash after M0.
const AFTER_M0_AT: usize = 8 + 49;

/// G6, G11: a replayed M2, from the same address or another, with another M0, too late.
#[test]
fn a_replayed_m2_is_refused() {
    for (_, mut world) in worlds(10) {
        let (mut pair, m0, m2) = up_to_m2(&mut world);
        pair.deliver_to_server(&m2).unwrap();

        // The attacker replays the recorded flight M0, M2 from the same address; or M2 alone.
        let mut replay = world.connect();
        replay.deliver_to_server(&m0).unwrap();
        let error = replay.deliver_to_server(&m2).unwrap_err();
        assert_eq!(error, Refusal::ChallengeReplayed.into());
        let error = world.connect().deliver_to_server(&m2).unwrap_err();
        assert_eq!(error, Refusal::ChallengeReplayed.into());

        // With another M0 the challenge is not his.
        let forged = Error::Authentication("challenge-mac");
        let mut other = m2.clone();
        other[AFTER_M0_AT] ^= 1;
        assert_eq!(world.connect().deliver_to_server(&other).unwrap_err(), forged);

        // From another address neither.
        let mut elsewhere = ServerChannel::new(world.server.clone(), &[10, 0, 0, 1], world.now);
        elsewhere.handle(world.now, &mut pair.rng, &m0).unwrap();
        assert_eq!(elsewhere.handle(world.now, &mut pair.rng, &m2).unwrap_err(), forged);

        // In the other mode neither.
        let mut crossed = m2.clone();
        crossed[3] = 3 - crossed[3];
        let error = world.connect().deliver_to_server(&crossed).unwrap_err();
        assert!([Error::Malformed("M2"), forged].contains(&error), "{error}");

        // Two epochs later it is stale.
        world.now = world.now.plus(2 * countersign_channel::EPOCH);
        let mut late = world.connect();
        late.deliver_to_server(&m0).unwrap();
        assert_eq!(late.deliver_to_server(&m2).unwrap_err(), Refusal::ChallengeStale.into());
    }
}

/// A proof with a bad signature must not burn the true reader's challenge.
#[test]
fn only_a_proven_reader_burns_a_challenge() {
    for (_, mut world) in worlds(11) {
        let (mut pair, m0, m2) = up_to_m2(&mut world);
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
}

/// An old M3 replayed to the reader meets another M0 and another share (note (b) on H1).
#[test]
fn a_replayed_server_flight_is_refused_by_the_reader() {
    for (_, mut world) in worlds(12) {
        let m3 = world.connect().take_server_frame(1);
        let mut fresh = world.connect();
        let m1 = fresh.take_server_frame(0);
        fresh.deliver_to_reader(&m1).unwrap();
        let refused = Err(Error::Authentication("server-signature"));
        assert_eq!(fresh.deliver_to_reader(&m3), refused);
    }
}

/// G11: exact operation counts of the server for each refusal, before anyone is authenticated.
#[test]
fn g11_refusals_cost_what_the_design_says() {
    for mode in MODES {
        let counting = CountingProvider::new(aws_lc::provider());
        let plain = aws_lc::provider();
        let mut world = World::new(plain.clone(), plain, counting.provider(), 13).speaking(mode);
        world.change_server(|config| {
            let key = config.credentials[0].key.clone();
            config.credentials[0].key = counting.secure_element(key);
        });
        connected(&mut world); // the reader's certificate is cached, C2's epoch share made

        let mut pair = world.connect();
        let m0 = pair.take_reader_frame(0);
        let (_, counts) = counting.measure(|| pair.deliver_to_server(&m0).unwrap());
        assert_eq!(counts, Counts { hash: 2, mac: 1, ..Counts::default() }, "M1");
        let (mut pair, m0, m2) = up_to_m2(&mut world);

        let refusal = |frame: &[u8], world: &mut World| {
            let mut attacker = world.connect();
            attacker.deliver_to_server(&m0).unwrap();
            let (result, counts) = counting.measure(|| attacker.deliver_to_server(frame));
            (result.unwrap_err(), counts)
        };
        let one_mac = Counts { mac: 1, ..Counts::default() };

        let mut forged = m2.clone();
        forged[8 + 20] ^= 1; // inside the MAC of R1
        let error = Error::Authentication("challenge-mac");
        assert_eq!(refusal(&forged, &mut world), (error, one_mac));
        let mut stale = m2.clone();
        stale[8 + 5] ^= 1; // the epoch
        let nothing = Counts::default();
        assert_eq!(refusal(&stale, &mut world), (Refusal::ChallengeStale.into(), nothing));

        let mut bad = m2.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let (error, counts) = refusal(&bad, &mut world);
        assert_eq!(error, Error::Authentication("reader-signature"));
        // One MAC for the challenge, one to find the source's place.
        let hash = counts.hash;
        assert_eq!(counts, Counts { mac: 2, verify: 1, hash, ..nothing }, "certificate cached");

        pair.deliver_to_server(&m2).unwrap();
        assert_eq!(refusal(&m2, &mut world), (Refusal::ChallengeReplayed.into(), one_mac));

        // Not cached: two verifications at most.
        let newcomer = world.pki.party(Role::Reader, "RD-2");
        let config = reader_config(&world.pki, &newcomer, aws_lc::provider());
        world.reader = Arc::new(config);
        world.change_reader(|config| config.mode = mode);
        world.directory = Ok(entry(&newcomer));
        let mut pair = world.connect();
        let mut m2 = pair.take_reader_frame(1);
        let last = m2.len() - 1;
        m2[last] ^= 1;
        let (result, counts) = counting.measure(|| pair.deliver_to_server(&m2));
        assert_eq!(result, Err(Error::Authentication("reader-signature")));
        let (hash, public_key) = (counts.hash, counts.public_key);
        assert_eq!(counts, Counts { mac: 2, verify: 2, hash, public_key, ..nothing });
    }
}

/// C2: the share and its signature are made once per epoch, whatever the number of contacts.
#[test]
fn g11_an_epoch_share_is_made_once_per_epoch() {
    let counting = CountingProvider::new(aws_lc::provider());
    let plain = aws_lc::provider();
    let mut world = World::new(plain.clone(), plain, counting.provider(), 28).speaking(Mode::C2);
    world.change_server(|config| {
        let key = config.credentials[0].key.clone();
        config.credentials[0].key = counting.secure_element(key);
    });
    let contacts = |world: &mut World| {
        counting.measure(|| (0..50).for_each(|_| drop(world.connect().take_server_frame(0)))).1
    };
    let first = contacts(&mut world);
    assert_eq!((first.sign, first.exchange_generate, first.mac), (1, 1, 50));
    let same_epoch = contacts(&mut world);
    assert_eq!((same_epoch.private_key(), same_epoch.generated()), (0, 0));
    let second = Duration::from_secs(1);
    world.now = world.now.plus(countersign_channel::EPOCH).minus(second);
    let (old, _, m2) = up_to_m2(&mut world);
    world.now = world.now.plus(second);
    let next_epoch = contacts(&mut world);
    assert_eq!((next_epoch.sign, next_epoch.exchange_generate), (1, 1));
    // What was sealed to the former epoch's share is still opened, one epoch long.
    let mut late = world.connect();
    late.now = world.now;
    late.deliver_to_server(&m2).unwrap();
    late.collect();
    let m3 = late.to_reader.pop_front().unwrap();
    let mut reader = old.reader;
    reader.handle(world.now, &mut late.rng, &m3).unwrap();
    assert!(matches!(reader.poll_event(), Some(ReaderEvent::Connected)));
}

/// G11: whoever can answer challenges still cannot make the server verify without end.
#[test]
fn g11_bad_proofs_are_limited_per_source() {
    for (_, mut world) in worlds(29) {
        let (mut pair, m0, m2) = up_to_m2(&mut world);
        let mut bad = m2.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        let attack = |world: &mut World| world.connect().deliver_to_server(&bad).unwrap_err();
        for _ in 0..countersign_channel::SOURCE_BURST {
            assert_eq!(attack(&mut world), Error::Authentication("reader-signature"));
        }
        assert_eq!(attack(&mut world), Refusal::SourceLimited.into());
        assert_eq!(pair.deliver_to_server(&m2).unwrap_err(), Refusal::SourceLimited.into());
        // It is forgiven with time, and another source was never limited.
        let mut elsewhere = ServerChannel::new(world.server.clone(), &[10, 0, 0, 1], world.now);
        elsewhere.handle(world.now, &mut pair.rng, &m0).unwrap();
        assert!(elsewhere.poll_transmit().is_some());
        world.now = world.now.plus(Duration::from_secs(1));
        connected(&mut world);
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
