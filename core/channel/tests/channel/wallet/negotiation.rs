//! Suites and policies: what is offered, what is selected, and that nobody can weaken it (G8, A7).

use std::sync::Arc;

use countersign_channel::{Policy, Protection};
use countersign_crypto::{Suite, sm};
use countersign_pki::Role;
use testkit::pair::credential;
use testkit::pki::TestPki;

use super::*;

const SM: Suite = Suite::SM2_SM4GCM_SM3;
const P256: Suite = Suite::X25519_P256_AES128GCM_SHA256;

/// Both sides with credentials of both suites, in the order given.
fn two_suites(sleeve: [Suite; 2], manager: [Suite; 2]) -> World {
    let mut world = world(290);
    let mut other = TestPki::new(sm::provider(), 291);
    let parties = (other.party(Role::Sleeve, "SLV-1"), other.party(Role::Manager, "MGR-1"));
    let order =
        |suites: [Suite; 2], p256, sm| if suites[0] == SM { [sm, p256] } else { [p256, sm] };
    world.change_sleeve(|config| {
        let sm = credential(&other, &parties.0, sm::provider());
        config.credentials = order(sleeve, config.credentials[0].clone(), sm).into();
    });
    world.change_manager(|config| {
        let sm = credential(&other, &parties.1, sm::provider());
        config.credentials = order(manager, config.credentials[0].clone(), sm).into();
    });
    world
}

/// A1: the manager prefers its own order among what both have; the pair keeps to that suite in A2
/// and A3, whatever either would prefer then.
#[test]
fn a1_negotiates_the_suite_that_a_pair_keeps() {
    for (sleeve, manager) in [([P256, SM], [SM, P256]), ([SM, P256], [P256, SM])] {
        let mut world = two_suites(sleeve, manager);
        let pair = connected(&mut world, Mode::A1);
        assert_eq!(pair.sleeve.suite(), Some(manager[0]));
        assert_eq!(pair.of_sleeve.as_ref().unwrap().suite, manager[0]);
        assert_eq!(pair.of_manager.as_ref().unwrap().suite, manager[0]);
        (world.of_manager, world.of_sleeve) = (pair.of_manager, pair.of_sleeve);
        for mode in CONNECTS {
            world.change_manager(|config| config.credentials.reverse());
            let pair = connected(&mut world, mode);
            assert_eq!(pair.sleeve.suite(), Some(manager[0]), "{mode:?}");
        }
        // Without that suite there is no connect.
        let lacks = |credentials: &mut Vec<countersign_channel::Credential>| {
            credentials.retain(|one| one.provider.suite != manager[0]);
        };
        world.change_manager(|config| lacks(&mut config.credentials));
        for mode in CONNECTS {
            assert_eq!(refused(&mut world, mode), Error::Incompatible("suite"), "{mode:?}");
        }
    }
    let mut world = two_suites([P256, SM], [SM, P256]);
    world.change_sleeve(|config| config.credentials.truncate(1));
    world.change_manager(|config| config.credentials.truncate(1));
    assert_eq!(refused(&mut world, Mode::A1), Error::Incompatible("suite"));
}

/// G8: an attacker who takes the better offer out of A1's M1 is found out by the signatures.
#[test]
fn g8_a1_nobody_on_the_path_can_take_a_suite_away() {
    let mut world = two_suites([SM, P256], [SM, P256]);
    let mut pair = world.contact(Mode::A1);
    let mut m1 = pair.take_message(0);
    // The first offer's suite becomes one that nobody has: the manager takes the second.
    let at = m1.windows(5).position(|part| part == b"SLV-1").unwrap() + 5 + 2;
    assert_eq!(m1[at..at + 2], [0, 2]);
    m1[at] = 0x7f;
    pair.deliver_to_manager(&m1).unwrap();
    assert_eq!(pair.drive(), Err(Error::Authentication("manager-signature")));
    assert!(pair.of_sleeve.is_none() && pair.of_manager.is_none());
    // M2 says something that was never offered.
    let mut pair = world.contact(Mode::A1);
    let m2 = pair.take_message(1);
    for (at, what) in [(8 + 1, "version"), (8 + 3, "suite"), (8 + 4, "protection policy")] {
        let mut pair = world.contact(Mode::A1);
        drop(pair.take_message(1));
        let mut changed = m2.clone();
        changed[at] ^= 3 + 4;
        let outcome = pair.deliver_to_sleeve(&changed).unwrap_err();
        let expected = [Error::Incompatible(what), Error::Malformed(what)];
        assert!(expected.contains(&outcome), "{what}: {outcome}");
    }
}

/// A7: each protection works where both sides name it, in every mode; MAC only and encrypt only are
/// refused elsewhere.
#[test]
fn a7_policies_apply_where_both_sides_name_them() {
    for mode in MODES {
        for protection in [Protection::EncryptAndMac, Protection::Mac, Protection::Encrypt] {
            let policy = Policy { protection, ..Policy::default() };
            let mut world = world_for(mode, 292).under(policy);
            let mut pair = connected(&mut world, mode);
            let agreed = (pair.sleeve.policy(), pair.manager.policy());
            assert_eq!(agreed, (Some(policy), Some(policy)));
            pair.sleeve.send(b"up").unwrap();
            pair.collect();
            let record = &pair.to_manager[0];
            let readable = record.windows(2).any(|part| part == b"up");
            assert_eq!(readable, protection == Protection::Mac, "{mode:?}");
            pair.drive().unwrap();
            assert_eq!(manager_data(&mut pair), [b"up".to_vec()]);
            if protection != Protection::EncryptAndMac {
                let mut other = world_for(mode, 292);
                other.change_sleeve(|config| config.policies = vec![policy]);
                assert_eq!(refused(&mut other, mode), Error::Incompatible("protection policy"));
            }
        }
    }
}

/// G8: neither the offered policies nor the selected one can be changed on the path.
#[test]
fn g8_nobody_on_the_path_can_weaken_the_policy() {
    let mac = Policy { protection: Protection::Mac, ..Policy::default() };
    for (mode, mut world) in worlds(293) {
        let policies = vec![Policy::default(), mac];
        world.change_sleeve(|config| config.policies.clone_from(&policies));
        world.change_manager(|config| config.policies = policies);
        // The first message: policies <2> 01 02 become <2> 02 02.
        let mut pair = world.contact(mode);
        let mut first = pair.take_message(0);
        let at = first.windows(3).position(|part| part == [2, 1, 2]).unwrap();
        first[at + 1] = 2;
        pair.deliver_to_manager(&first).unwrap();
        let expected = match mode {
            Mode::A1 => "manager-signature",
            _ => "challenge-mac",
        };
        assert_eq!(pair.drive(), Err(Error::Authentication(expected)), "{mode:?}");
        // The manager's selection.
        let mut pair = world.contact(mode);
        let mut second = pair.take_message(1);
        assert_eq!(second[8 + 4], 1);
        second[8 + 4] = 2;
        let outcome = pair.deliver_to_sleeve(&second).and_then(|()| pair.drive());
        assert_eq!(outcome, Err(Error::Authentication(expected)), "{mode:?}");
        connected(&mut world, mode);
    }
}

/// More offers than a message may have are refused, however they fit in.
#[test]
fn g15_offers_are_bounded() {
    let world = world(294);
    let mut config = (*world.sleeve).clone();
    config.policies = vec![Policy::default(); 17];
    assert!(matches!(config.check(), Err(Error::Misuse(_))));
    let mut config = (*world.sleeve).clone();
    config.credentials = vec![config.credentials[0].clone(); 16];
    let rng = &mut testkit::rng::seeded(5);
    let made = countersign_channel::SleeveChannel::pair(Arc::new(config), world.now, rng);
    assert!(matches!(made.err(), Some(Error::Misuse(_))), "they do not fit into M1");
}
