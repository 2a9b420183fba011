//! Suites, policies, modes: what is offered, what is selected, and that nobody can weaken it (G8).

use std::sync::Arc;

use countersign_channel::{Delivery, Policy, Protection, Refusal};
use countersign_crypto::Suite;
use countersign_pki::Role;
use testkit::pair::credential;
use testkit::pki::TestPki;

use super::*;

const SM: Suite = Suite::SM2_SM4GCM_SM3;
const P256: Suite = Suite::X25519_P256_AES128GCM_SHA256;

/// Both sides with credentials of both suites, in the order given; the directory maps to the
/// certificate of `expected`.
fn two_suites(mode: Mode, reader: [Suite; 2], server: [Suite; 2], expected: Suite) -> World {
    let mut world = world(40).speaking(mode);
    let mut other = TestPki::new(sm::provider(), 41);
    let (reader_party, server_party) =
        (other.party(Role::Reader, "RD-1"), other.party(Role::Server, "srv-1"));
    if expected == SM {
        world.directory = Ok(testkit::pair::entry(&reader_party));
    }
    let order =
        |suites: [Suite; 2], p256, sm| if suites[0] == SM { [sm, p256] } else { [p256, sm] };
    world.change_reader(|config| {
        let sm = credential(&other, &reader_party, sm::provider());
        config.credentials = order(reader, config.credentials[0].clone(), sm).into();
    });
    world.change_server(|config| {
        let sm = credential(&other, &server_party, sm::provider());
        config.credentials = order(server, config.credentials[0].clone(), sm).into();
    });
    world
}

/// The server prefers its own order among what both have.
#[test]
fn suites_are_negotiated_by_the_servers_preference() {
    for mode in MODES {
        for (reader, server) in [([P256, SM], [SM, P256]), ([SM, P256], [P256, SM])] {
            let mut world = two_suites(mode, reader, server, server[0]);
            let pair = connected(&mut world);
            assert_eq!(pair.reader.suite(), Some(server[0]));
            assert_eq!(pair.server.suite(), Some(server[0]));
        }
    }
}

#[test]
fn a_suite_or_policy_that_only_one_side_has_is_refused_by_name() {
    for mode in MODES {
        let mut world = two_suites(mode, [P256, SM], [SM, P256], P256);
        world.change_reader(|config| drop(config.credentials.pop()));
        world.change_server(|config| drop(config.credentials.pop()));
        assert_eq!(refused(&mut world), Error::Incompatible("suite"));
        let mut world = self::world(42).speaking(mode);
        let mac = Policy { protection: Protection::Mac, ..Policy::default() };
        world.change_reader(|config| config.policies = vec![mac]);
        assert_eq!(refused(&mut world), Error::Incompatible("protection policy"));
    }
}

/// Encrypt-only and MAC-only are refused unless the policy names them (A7); each works where it is
/// named, and the agreed one is reported.
#[test]
fn a7_policies_apply_where_both_sides_name_them() {
    for mode in MODES {
        for protection in [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt] {
            let policy = Policy { protection, ..Policy::default() };
            let mut world = world(43).speaking(mode).under(policy);
            let mut pair = connected(&mut world);
            assert_eq!((pair.reader.policy(), pair.server.policy()), (Some(policy), Some(policy)));
            pair.reader.send(b"up").unwrap();
            pair.server.send(b"down").unwrap();
            pair.drive().unwrap();
            assert_eq!(server_data(&mut pair), [b"up".to_vec()]);
            if protection != Protection::EncryptAndMac {
                let mut other = self::world(43).speaking(mode);
                other.change_reader(|config| config.policies = vec![policy]);
                assert_eq!(refused(&mut other), Error::Incompatible("protection policy"));
            }
        }
    }
}

/// G8: an attacker who takes the better offer out of M0, or changes the selection in M1, is found
/// out, whichever of suite and policy it is.
#[test]
fn g8_nobody_on_the_path_can_downgrade() {
    for mode in MODES {
        // M0: versions <2> 0001, suites <4> 0002 0001: the list loses its first entry.
        let mut world = two_suites(mode, [SM, P256], [SM, P256], SM);
        let mut pair = world.connect();
        let m0 = pair.take_reader_frame(0);
        let at = m0.windows(5).position(|part| part == [4, 0, 2, 0, 1]).unwrap();
        let mut stripped = m0.clone();
        stripped.splice(at..at + 3, [2]);
        stripped[7] -= 2;
        pair.deliver_to_server(&stripped).unwrap();
        let outcome = pair.drive();
        let refused = Error::Authentication("challenge-mac");
        assert_eq!(outcome, Err(refused.clone()), "{mode:?}: the server sees another M0 hash");

        // M1: the selected suite or policy is changed to another one on offer.
        let mac = Policy { protection: Protection::Mac, ..Policy::default() };
        for (at, to) in [(8 + 3, 1), (8 + 4, 2)] {
            let mut world = two_suites(mode, [SM, P256], [SM, P256], SM);
            world.change_reader(|config| config.policies = vec![Policy::default(), mac]);
            world.change_server(|config| config.policies = vec![Policy::default(), mac]);
            let mut pair = world.connect();
            let mut m1 = pair.take_server_frame(0);
            m1[at] = to;
            let outcome = pair.deliver_to_reader(&m1).and_then(|()| pair.drive());
            assert!(outcome.is_err(), "{mode:?}: {outcome:?}");
            if mode == Mode::C1 {
                assert_eq!(outcome, Err(refused.clone()));
            }
        }
        // M1: something that was never offered.
        let mut world = self::world(44).speaking(mode);
        for (at, what) in [(8 + 1, "version"), (8 + 3, "suite"), (8 + 4, "protection policy")] {
            let mut pair = world.connect();
            let mut m1 = pair.take_server_frame(0);
            m1[at] ^= 2 + 1;
            let outcome = pair.deliver_to_reader(&m1);
            assert_eq!(outcome, Err(Error::Incompatible(what)), "{mode:?}");
        }
    }
}

/// G9: a server that speaks one mode refuses the other at the header, and a message of one mode
/// says nothing in the other.
#[test]
fn g9_modes_do_not_mix() {
    let mut world = world(45).speaking(Mode::C2);
    world.change_server(|config| config.modes = vec![Mode::C1]);
    let m0 = world.connect().take_reader_frame(0);
    let error = world.connect().deliver_to_server(&m0).unwrap_err();
    assert_eq!(error, Error::Incompatible("handshake"));
    // The reader is told in its own mode.
    let mut pair = world.connect();
    let error = pair.drive().unwrap_err();
    pair.server.refuse(&error, "inc-test");
    pair.collect();
    let alert = pair.to_reader.pop_front().unwrap();
    let told = pair.deliver_to_reader(&alert).unwrap_err();
    assert_eq!(told.to_string(), "the peer refused: incompatible (incident inc-test)");
    for (mode, mut world) in worlds(46) {
        for message in 1..5 {
            let mut pair = world.connect();
            let mut frame = frame_of(&mut pair, message);
            frame[3] = 3 - frame[3];
            let result = if message % 2 == 0 {
                pair.deliver_to_server(&frame)
            } else {
                pair.deliver_to_reader(&frame)
            };
            assert!(result.is_err(), "{mode:?}, message {message}");
        }
    }
}

/// What cannot work is the configuration's mistake, and is said before anything is sent.
#[test]
fn impossible_configurations_are_refused_at_once() {
    let mut world = world(47);
    let base = world.reader.clone();
    let mut refuse = |change: &dyn Fn(&mut countersign_channel::ReaderConfig)| {
        let mut config = (*base).clone();
        change(&mut config);
        let channel = countersign_channel::ReaderChannel::new(
            Arc::new(config),
            world.now,
            &mut world.pki.rng,
        );
        assert!(matches!(channel.err(), Some(Error::Misuse(_))));
    };
    refuse(&|config| config.credentials.clear());
    refuse(&|config| config.policies.clear());
    refuse(&|config| config.server_id = Some("x".repeat(65)));
    refuse(&|config| config.credentials[0].certificate.truncate(20));
    // A policy that P-256 cannot serve, and two that no one link can be.
    let sealed = Policy { certificate_sealed: true, ..Policy::default() };
    refuse(&|config| config.policies = vec![sealed]);
    let datagrams = Policy { delivery: Delivery::Datagrams, ..Policy::default() };
    refuse(&|config| config.policies = vec![Policy::default(), datagrams]);
    // M0 names another server: refused before a challenge is made.
    world.change_reader(|config| config.server_id = Some("srv-9".into()));
    assert_eq!(refused(&mut world), Refusal::WrongServer.into());
}
