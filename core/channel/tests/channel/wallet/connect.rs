//! A2 and A3: a pair that knows each other; replays; a wrong factor; what is not in the list.

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{EPOCH, LookupRefusal, ManagerChannel, ManagerQuestion, Refusal};
use countersign_crypto::{CryptoError, Digest, Mac, Secret, rust_crypto, sm};
use testkit::wallet::copied;

use super::*;

/// Where M2 has the transcript hash after M0.
const AFTER_M0_AT: usize = 8 + 49;

#[test]
fn a2_a3_a_pair_connects_and_data_flows_both_ways() {
    let (plain, fast) = (rust_crypto::provider(), aws_lc::provider());
    for (sleeve, manager) in
        [(plain.clone(), fast.clone()), (fast, plain), (sm::provider(), sm::provider())]
    {
        let suite = sleeve.suite;
        let pki = countersign_crypto::provider_of(suite).unwrap();
        let mut world = World::new(pki, sleeve, manager, 220).paired();
        for mode in CONNECTS {
            let mut pair = connected(&mut world, mode);
            assert_eq!(pair.asked, ["sleeve SLV-1"]);
            pair.sleeve.send(b"password").unwrap();
            pair.sleeve.send(&[7; 16 * 1024]).unwrap();
            pair.manager.send(b"cards").unwrap();
            pair.drive().unwrap();
            assert_eq!(manager_data(&mut pair), [b"password".to_vec(), vec![7; 16 * 1024]]);
            let cards = &pair.sleeve_events[..];
            assert!(matches!(cards, [SleeveEvent::Data(data)] if **data == b"cards"));
            assert_eq!(pair.sleeve.peer().unwrap().identity().id(), "MGR-1");
            assert_eq!(pair.manager.peer().unwrap().identity().id(), "SLV-1");
            assert_eq!((pair.sleeve.mode(), pair.manager.mode()), (mode, mode));
            assert_eq!((pair.sleeve.suite(), pair.manager.suite()), (Some(suite), Some(suite)));
            let export = |exporter: Option<&countersign_channel::Exporter>| {
                exporter.unwrap().export("x", b"", 32).unwrap().expose().to_vec()
            };
            assert_eq!(export(pair.sleeve.exporter()), export(pair.manager.exporter()));
        }
    }
}

/// G6: every session has keys of its own, whatever was reused; both sides contribute.
#[test]
fn g6_every_session_is_unique() {
    for (mode, mut world) in worlds(221) {
        let mut seen = Vec::new();
        for _ in 0..4 {
            let pair = connected(&mut world, mode);
            let exporter = pair.sleeve.exporter().unwrap();
            seen.push(exporter.export("x", b"", 32).unwrap().expose().to_vec());
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 4, "{mode:?}");
    }
}

/// Issue 9, bad input: replayed connects. M0 with M2, M2 alone, from another address, with another
/// M0, too late.
#[test]
fn g6_g11_replayed_connects_are_refused() {
    for mode in CONNECTS {
        let mut world = world(222).paired();
        let mut pair = world.contact(mode);
        let m0 = pair.take_message(0);
        pair.deliver_to_manager(&m0).unwrap();
        let m2 = pair.take_answer_to_m1();
        pair.deliver_to_manager(&m2).unwrap();

        let mut replay = world.contact(mode);
        replay.deliver_to_manager(&m0).unwrap();
        let replayed = Err(Refusal::ChallengeReplayed.into());
        assert_eq!(replay.deliver_to_manager(&m2), replayed, "{mode:?}");
        assert_eq!(world.contact(mode).deliver_to_manager(&m2), replayed);
        assert!(replay.asked.is_empty(), "the pairing list was not asked");

        let forged = Err(Error::Authentication("challenge-mac"));
        let mut other = m2.clone();
        other[AFTER_M0_AT] ^= 1;
        assert_eq!(world.contact(mode).deliver_to_manager(&other), forged);
        let elsewhere = &mut ManagerChannel::new(world.manager.clone(), &[10, 0, 0, 1], world.now);
        assert_eq!(elsewhere.handle(world.now, &mut pair.rng, &m2), forged);

        world.now = world.now.plus(2 * EPOCH);
        let stale = Err(Refusal::ChallengeStale.into());
        assert_eq!(world.contact(mode).deliver_to_manager(&m2), stale);
    }
}

/// M2 that brings another M0 than the one its challenge answered, though the hash of that one.
#[test]
fn g2_an_m2_with_another_m0_is_refused() {
    for mode in CONNECTS {
        let mut world = world(223).paired();
        let mut pair = world.contact(mode);
        let m2 = pair.take_message(2);
        let id = m2.windows(5).position(|part| part == b"SLV-1").unwrap();
        for at in [id + 4, id + 6] {
            let mut other = m2.clone();
            other[at] ^= 1; // another sleeve's id; another share
            let mut fresh = world.contact(mode);
            assert_eq!(fresh.deliver_to_manager(&other), Err(Error::Malformed("M2")));
            assert!(fresh.asked.is_empty());
        }
    }
}

/// Only one of two simultaneous proofs with the same challenge gets through; a bad one burns none.
#[test]
fn g6_a_challenge_serves_once_and_only_the_pair() {
    for mode in CONNECTS {
        let mut world = world(224).paired();
        let mut pair = world.contact(mode);
        let m2 = pair.take_message(2);
        let mut bad = m2.clone();
        *bad.last_mut().unwrap() ^= 1;
        let refused = world.contact(mode).deliver_to_manager(&bad);
        assert_eq!(refused, Err(Error::Authentication("sleeve-signature")));
        let rng = &mut pair.rng;
        let mut racing = world.contact(mode).manager;
        let mut first = pair.manager;
        first.handle(world.now, rng, &m2).unwrap();
        racing.handle(world.now, rng, &m2).unwrap();
        assert!(first.is_asking() && racing.is_asking());
        let found = || Ok(world.of_sleeve.clone().unwrap());
        first.sleeve_found(world.now, rng, found()).unwrap();
        let error = racing.sleeve_found(world.now, rng, found()).unwrap_err();
        assert_eq!(error, Refusal::ChallengeReplayed.into());
    }
}

/// A stranger with the sleeve's key but not the factor, or the other way round; a manager likewise.
#[test]
fn a2_a3_neither_the_factor_nor_a_key_is_enough() {
    for mode in CONNECTS {
        let mut world = world(225).paired();
        let mut wrong = copied(world.of_manager.as_ref().unwrap());
        wrong.factor = Secret::copied_from(&[9; 32]);
        let right = world.of_manager.replace(Arc::new(wrong));
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
        world.of_manager = right;

        let (sleeve, manager) = (world.sleeve.clone(), world.manager.clone());
        let stranger = manager.credentials[0].key.clone();
        world.change_sleeve(|config| config.credentials[0].key = stranger);
        assert_eq!(refused(&mut world, mode), Error::Authentication("sleeve-signature"));
        let other_key = sleeve.credentials[0].key.clone();
        world.sleeve = sleeve;
        world.now = world.now.plus(2 * EPOCH); // another epoch's share
        world.change_manager(|config| config.credentials[0].key = other_key);
        assert_eq!(refused(&mut world, mode), Error::Authentication("epoch-signature"));
        world.now = world.now.plus(2 * EPOCH);
        world.manager = manager;
        connected(&mut world, mode);
    }
}

/// An HMAC that takes every tag.
struct Gullible(Arc<dyn Mac>);

impl Mac for Gullible {
    fn mac(&self, key: &[u8], parts: &[&[u8]]) -> Digest {
        self.0.mac(key, parts)
    }

    fn verify(&self, _: &[u8], _: &[&[u8]], _: &[u8]) -> Result<(), CryptoError> {
        Ok(())
    }
}

/// Whoever has the manager's key, and the epoch's share, but not the factor, and takes any binder:
/// it can sign as the manager, and still the sleeve refuses it, for the keys need the factor (G4).
#[test]
fn g4_a2_a3_the_keys_need_the_factor() {
    for mode in CONNECTS {
        let mut world = world(226).paired();
        world.change_manager(|config| {
            let mac = &mut config.credentials[0].provider.mac;
            *mac = Arc::new(Gullible(mac.clone()));
        });
        connected(&mut world, mode); // it works as long as it has the factor
        let mut wrong = copied(world.of_sleeve.as_ref().unwrap());
        wrong.factor = Secret::copied_from(&[9; 32]);
        world.of_sleeve = Some(Arc::new(wrong));
        let mut pair = world.contact(mode);
        assert_eq!(pair.drive(), Err(Error::Authentication("finished")));
        pair.collect();
        assert!(!sleeve_open(&pair) && pair.to_manager.is_empty(), "nothing more is sent");
    }
}

/// Issue 9, bad input: a revoked sleeve, one that is not in the list, a blocked one.
#[test]
fn a2_a3_the_pairing_list_refuses_by_name() {
    for mode in CONNECTS {
        for (refusal, check) in [
            (LookupRefusal::Unknown, "sleeve-unknown"),
            (LookupRefusal::Revoked, "certificate-revoked"),
            (LookupRefusal::Blocked, "sleeve-blocked"),
            (LookupRefusal::Unavailable, "busy"),
        ] {
            let mut world = world(227).paired();
            world.answers.refusal = Some(refusal);
            let mut pair = world.contact(mode);
            assert_eq!(pair.drive().unwrap_err().check(), check);
            pair.collect();
            let alert = pair.to_sleeve.pop_front().unwrap();
            let told = pair.deliver_to_sleeve(&alert).unwrap_err().to_string();
            assert_eq!(told, format!("the peer refused: {check} (incident inc-test)"));
            assert!(!manager_open(&pair) && !sleeve_open(&pair));
        }
    }
}

/// What the owner answers must fit the question.
#[test]
fn a2_a3_a_wrong_answer_is_the_owners_mistake() {
    for mode in CONNECTS {
        let mut world = world(228).paired();
        let asked = |world: &mut World| {
            let mut pair = world.contact(mode);
            let m2 = pair.take_message(2);
            pair.manager.handle(pair.now, &mut pair.rng, &m2).unwrap();
            let event = pair.manager.poll_event();
            assert!(matches!(
                event,
                Some(ManagerEvent::Ask(ManagerQuestion::Sleeve { id })) if id == "SLV-1"
            ));
            pair
        };
        let right = world.of_sleeve.clone().unwrap();
        let mut other = copied(&right);
        other.peer = "SLV-2".into();
        let mut short = copied(&right);
        short.factor = Secret::copied_from(&[1; 31]);
        for wrong in [other, short] {
            let mut pair = asked(&mut world);
            let found = Ok(Arc::new(wrong));
            let result = pair.manager.sleeve_found(pair.now, &mut pair.rng, found);
            assert!(matches!(result, Err(Error::Misuse(_))), "{result:?}");
        }
        // A question that was not asked ends nothing.
        let mut pair = asked(&mut world);
        let result = pair.manager.window(pair.now, &mut pair.rng, true);
        assert!(matches!(result, Err(Error::Misuse(_))));
        pair.manager.sleeve_found(pair.now, &mut pair.rng, Ok(right)).unwrap();
        pair.drive().unwrap();
        assert!(manager_open(&pair) && sleeve_open(&pair));
    }
}

/// An old M3 or M1 is of no use to a fresh sleeve.
#[test]
fn g6_replayed_answers_of_the_manager_are_refused_by_the_sleeve() {
    for mode in CONNECTS {
        let mut world = world(229).paired();
        let m3 = world.contact(mode).take_message(3);
        let mut fresh = world.contact(mode);
        drop(fresh.take_message(2));
        let refused = Err(Error::Authentication("manager-signature"));
        assert_eq!(fresh.deliver_to_sleeve(&m3), refused);
        // M1 of another contact: the epoch's signature is good, but the challenge is not this M0's.
        let m1 = world.contact(mode).take_message(1);
        let mut fresh = world.contact(mode);
        let m0 = fresh.take_message(0);
        fresh.deliver_to_manager(&m0).unwrap();
        fresh.collect();
        fresh.to_sleeve.clear();
        fresh.deliver_to_sleeve(&m1).unwrap();
        assert_eq!(fresh.drive(), Err(Error::Authentication("challenge-mac")));
    }
    let mut world = world(230);
    let m2 = world.contact(Mode::A1).take_message(1);
    let mut fresh = world.contact(Mode::A1);
    let refused = Err(Error::Authentication("manager-signature"));
    assert_eq!(fresh.deliver_to_sleeve(&m2), refused);
    assert!(fresh.asked.is_empty(), "no user is asked about it");
}

/// A manager that was restarted keeps its pairs; a challenge of before is stale, the next is not.
#[test]
fn a2_a3_pairs_survive_a_restart() {
    for mode in CONNECTS {
        let mut world = world(231).paired();
        let mut pair = world.contact(mode);
        let m2 = pair.take_message(2);
        let challenges = countersign_channel::Challenges::new(aws_lc::provider());
        let fresh = countersign_channel::SharedChallenges::new(challenges);
        world.change_manager(|config| config.challenges = Arc::new(fresh));
        let mut after = world.contact(mode);
        assert_eq!(after.deliver_to_manager(&m2), Err(Refusal::ChallengeStale.into()));
        world.now = world.now.plus(Duration::from_secs(1));
        connected(&mut world, mode);
    }
}

/// A6 in the sessions of this issue: a sleeve that sleeps stays connected while it is answered; who
/// hears nothing any more gives up, on either side, and its keys are gone.
#[test]
fn a6_a_sleeping_sleeve_and_its_manager_give_a_silent_peer_up() {
    let (every, within) = (Duration::from_secs(20), Duration::from_secs(5));
    for mode in CONNECTS {
        let mut world = world(232).paired();
        let mut pair = connected(&mut world, mode);
        let times = countersign_channel::Heartbeat { every, within };
        pair.sleeve.sleep(pair.now, times).unwrap();
        pair.manager.watch(pair.now, times).unwrap();
        for _ in 0..3 {
            pair.now = pair.now.plus(every);
            pair.sleeve.handle_timeout(pair.now).unwrap();
            pair.manager.handle_timeout(pair.now).unwrap();
            pair.drive().unwrap();
        }
        assert!(pair.manager_events.is_empty() && pair.sleeve_events.is_empty());
        pair.now = pair.now.plus(every);
        pair.sleeve.handle_timeout(pair.now).unwrap(); // a probe, and it is lost
        let late = pair.now.plus(within);
        assert_eq!(pair.sleeve.handle_timeout(late), Err(Error::Silent));
        assert_eq!(pair.manager.handle_timeout(late), Err(Error::Silent));
        assert!(pair.sleeve.exporter().is_none() && pair.manager.exporter().is_none());
        assert_eq!(pair.sleeve.send(b"x"), Err(Error::Dead));
    }
}

trait Answering {
    fn take_answer_to_m1(&mut self) -> Vec<u8>;
}

impl Answering for Pair {
    /// M1 is on its way: delivers it and takes M2 off the wire.
    fn take_answer_to_m1(&mut self) -> Vec<u8> {
        self.collect();
        let m1 = self.to_sleeve.pop_front().unwrap();
        self.deliver_to_sleeve(&m1).unwrap();
        self.collect();
        self.to_manager.pop_front().unwrap()
    }
}
