//! What a contact costs before it is authenticated, in exact counts (G11).

use std::sync::Arc;

use countersign_channel::{ManagerQuestion, Refusal, SOURCE_BURST};
use countersign_crypto::Secret;
use countersign_pki::{BoundedLeafCache, PkiError};
use testkit::counting::{CountingProvider, Counts};
use testkit::pki::TestPki;
use testkit::wallet::{copied, sleeve_config};

use super::*;

/// A world in which everything that the manager computes is counted.
fn counted(seed: u64) -> (World, CountingProvider) {
    let counting = CountingProvider::new(aws_lc::provider());
    let plain = aws_lc::provider();
    let mut world = World::new(plain.clone(), plain, counting.provider(), seed);
    world.change_manager(|config| {
        let key = config.credentials[0].key.clone();
        config.credentials[0].key = counting.secure_element(key);
    });
    (world, counting)
}

fn bad_at(frame: &[u8], from_end: usize) -> Vec<u8> {
    let mut bad = frame.to_vec();
    let at = bad.len() - 1 - from_end;
    bad[at] ^= 1;
    bad
}

/// Every refusal of an M2, in the order of the checks: none uses the private key or makes one.
#[test]
fn g11_a2_a3_refusals_cost_what_the_design_says() {
    for mode in CONNECTS {
        let (world, counting) = counted(240);
        let mut world = world.paired();
        connected(&mut world, mode); // certificate cached, epoch share made

        let mut pair = world.contact(mode);
        let m0 = pair.take_message(0);
        let (_, counts) = counting.measure(|| pair.deliver_to_manager(&m0).unwrap());
        assert_eq!(counts, Counts { hash: 2, mac: 1, ..Counts::default() }, "M1");

        let m2 = world.contact(mode).take_message(2);
        let cost = |frame: &[u8], world: &mut World| {
            let mut attacker = world.contact(mode);
            let (result, counts) = counting.measure(|| attacker.deliver_to_manager(frame));
            (result.unwrap_err(), counts)
        };
        let nothing = Counts::default();
        let one_mac = Counts { mac: 1, ..nothing };
        let mut stale = m2.clone();
        stale[8 + 5] ^= 1; // the epoch
        assert_eq!(cost(&stale, &mut world), (Refusal::ChallengeStale.into(), nothing));
        let mut forged = m2.clone();
        forged[8 + 20] ^= 1; // inside the challenge's MAC
        assert_eq!(cost(&forged, &mut world), (Error::Authentication("challenge-mac"), one_mac));

        // From here on the source is charged (one MAC), and the transcript is hashed.
        let unknown = world.of_sleeve.take();
        let (error, counts) = cost(&m2, &mut world);
        assert_eq!(error, Refusal::UnknownSleeve.into());
        assert_eq!(counts, Counts { mac: 2, hash: counts.hash, ..nothing }, "not in the list");
        assert!(counts.hash < 8);
        world.of_sleeve = unknown;

        let right = world.of_sleeve.clone();
        let mut wrong = copied(right.as_ref().unwrap());
        wrong.factor = Secret::copied_from(&[3; 32]);
        world.of_sleeve = Some(Arc::new(wrong));
        let (error, counts) = cost(&m2, &mut world);
        assert_eq!(error, Error::Authentication("binder"));
        let symmetric = Counts { kdf_extract: 1, kdf_expand: 1, mac: 3, ..nothing };
        assert_eq!(counts, Counts { hash: counts.hash, ..symmetric }, "not the factor");
        world.of_sleeve = right;

        let (error, counts) = cost(&bad_at(&m2, 0), &mut world);
        assert_eq!(error, Error::Authentication("sleeve-signature"));
        assert_eq!(counts, Counts { hash: counts.hash, verify: 1, ..symmetric }, "cached");
        world.change_manager(|config| config.leaf_cache = Arc::new(BoundedLeafCache::default()));
        let (error, counts) = cost(&bad_at(&m2, 0), &mut world);
        assert_eq!(error, Error::Authentication("sleeve-signature"));
        let (hash, public_key) = (counts.hash, counts.public_key);
        assert_eq!(counts, Counts { hash, public_key, verify: 2, ..symmetric }, "not cached");

        // The true one gets through; its replay costs one MAC.
        let mut pair = world.contact(mode);
        let (result, counts) = counting.measure(|| pair.deliver_to_manager(&m2));
        assert_eq!(result, Ok(()));
        assert_eq!((counts.sign, counts.agree, counts.generated()), (1, 2, 1));
        assert_eq!(cost(&m2, &mut world), (Refusal::ChallengeReplayed.into(), one_mac));
    }
}

/// The share of an epoch is signed once, whatever the number of contacts.
#[test]
fn g11_a2_a3_an_epoch_share_is_made_once_per_epoch() {
    for mode in CONNECTS {
        let (world, counting) = counted(241);
        let mut world = world.paired();
        let contacts = |world: &mut World| {
            counting.measure(|| (0..20).for_each(|_| drop(world.contact(mode).take_message(1)))).1
        };
        let first = contacts(&mut world);
        assert_eq!((first.sign, first.exchange_generate, first.mac), (1, 1, 20));
        let again = contacts(&mut world);
        assert_eq!((again.private_key(), again.generated()), (0, 0));
        world.now = world.now.plus(countersign_channel::EPOCH);
        let next = contacts(&mut world);
        assert_eq!((next.sign, next.exchange_generate), (1, 1));
    }
}

/// G11 exempts A1 inside the window only: closed, M1 costs its parsing. Inside, a certificate that
/// is not a sleeve's costs no private-key operation either.
#[test]
fn g11_a1_costs_nothing_outside_the_window() {
    let (mut world, counting) = counted(242);
    let mut pair = world.contact(Mode::A1);
    let m1 = pair.take_message(0);
    pair.answers.window = false;
    let (result, counts) = counting.measure(|| pair.deliver_to_manager(&m1));
    assert_eq!(result, Err(Refusal::PairingClosed.into()));
    assert_eq!(counts, Counts::default());

    let mut other = TestPki::new(aws_lc::provider(), 243);
    let foreign = other.party(countersign_pki::Role::Sleeve, "SLV-1");
    let mut config = sleeve_config(&other, &foreign, aws_lc::provider());
    config.credentials[0].trust = world.sleeve.credentials[0].trust.clone();
    let ours = std::mem::replace(&mut world.sleeve, Arc::new(config));
    let mut pair = world.contact(Mode::A1);
    let m1 = pair.take_message(0);
    let (result, counts) = counting.measure(|| pair.deliver_to_manager(&m1));
    assert_eq!(result, Err(PkiError::UnknownIssuer.into()));
    assert_eq!((counts.private_key(), counts.generated()), (0, 0));
    world.sleeve = ours;
    let mut pair = world.contact(Mode::A1);
    let m1 = pair.take_message(0);
    let (result, counts) = counting.measure(|| pair.deliver_to_manager(&m1));
    assert_eq!(result, Ok(()));
    assert_eq!((counts.sign, counts.agree, counts.generated(), counts.verify), (1, 1, 1, 1));
}

/// The sleeve signs nothing for a manager that has not proven itself, and in A1 nothing before its
/// user's yes.
#[test]
fn g10_g11_the_sleeve_signs_only_for_its_manager() {
    let counting = CountingProvider::new(aws_lc::provider());
    let plain = aws_lc::provider();
    let mut world = World::new(plain.clone(), counting.provider(), plain, 244);
    world.change_sleeve(|config| {
        let key = config.credentials[0].key.clone();
        config.credentials[0].key = counting.secure_element(key);
    });
    let mut pair = world.contact(Mode::A1);
    let m2 = pair.take_message(1);
    let (bad, counts) = counting.measure(|| pair.deliver_to_sleeve(&bad_at(&m2, 0)));
    assert_eq!(bad, Err(Error::Authentication("manager-signature")));
    assert_eq!((counts.private_key(), counts.generated()), (0, 0));
    let mut pair = world.contact(Mode::A1);
    let m2 = pair.take_message(1);
    pair.answers.confirmed = false;
    let (_, counts) = counting.measure(|| pair.deliver_to_sleeve(&m2).unwrap_err());
    assert_eq!((counts.sign, counts.agree), (0, 1), "it only opened R3 and R4");

    let mut world = world.paired();
    for mode in CONNECTS {
        let mut pair = world.contact(mode);
        let m1 = pair.take_message(1);
        let (bad, counts) = counting.measure(|| pair.deliver_to_sleeve(&bad_at(&m1, 0)));
        assert_eq!(bad, Err(Error::Authentication("epoch-signature")));
        assert_eq!((counts.private_key(), counts.generated()), (0, 0), "{mode:?}");
        assert_eq!(counts.verify, 2, "the pinned certificate, the epoch's share");
    }
}

/// Whoever can answer challenges, or asks in an open window, is limited by his source.
#[test]
fn g11_bad_contacts_are_limited_per_source() {
    for (mode, mut world) in worlds(245) {
        let attack = |world: &mut World| match mode {
            Mode::A1 => world.contact(mode).take_and_leave(0),
            _ => {
                let m2 = world.contact(mode).take_message(2);
                world.contact(mode).deliver_to_manager(&bad_at(&m2, 0))
            }
        };
        for _ in 0..SOURCE_BURST {
            assert_ne!(attack(&mut world), Err(Refusal::SourceLimited.into()));
        }
        assert_eq!(attack(&mut world), Err(Refusal::SourceLimited.into()), "{mode:?}");
        world.now = world.now.plus(std::time::Duration::from_secs(1));
        for _ in 0..2 * SOURCE_BURST {
            connected(&mut world, mode); // good contacts do not count
            if mode == Mode::A1 {
                continue;
            }
            world.answers.refusal = Some(countersign_channel::LookupRefusal::Unavailable);
            assert_eq!(refused(&mut world, mode), Refusal::Busy.into());
            world.answers.refusal = None;
        }
    }
}

/// While the owner is asked, what may lie unread is one flight.
#[test]
fn g11_what_is_sent_ahead_is_bounded() {
    for (mode, mut world) in worlds(246) {
        let mut pair = world.contact(mode);
        let message = pair.take_message(if mode == Mode::A1 { 0 } else { 2 });
        pair.manager.handle(pair.now, &mut pair.rng, &message).unwrap();
        assert!(pair.manager.is_asking());
        let asked = pair.manager.poll_event().unwrap();
        match (mode, asked) {
            (Mode::A1, ManagerEvent::Ask(ManagerQuestion::Window { sleeve_id: id }))
            | (_, ManagerEvent::Ask(ManagerQuestion::Sleeve { id })) => assert_eq!(id, "SLV-1"),
            (_, event) => panic!("{event:?}"),
        }
        let chunk = [0_u8; 1024];
        let refused =
            (0..100).find_map(|_| pair.manager.handle(pair.now, &mut pair.rng, &chunk).err());
        assert_eq!(refused, Some(Error::Malformed("more bytes than a handshake has")));
    }
}

trait Leaving {
    fn take_and_leave(&mut self, n: usize) -> Result<(), Error>;
}

impl Leaving for Pair {
    /// Delivers the sleeve's `n`-th message; the sleeve then leaves.
    fn take_and_leave(&mut self, n: usize) -> Result<(), Error> {
        let message = self.take_message(n);
        self.deliver_to_manager(&message)
    }
}
