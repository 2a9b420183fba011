//! What leaked keys are good for, and what not (G1, G3, G4).

use std::sync::Arc;

use countersign_channel::{Challenges, ManagerChannel, SharedChallenges};
use testkit::pair::ADDRESS;

use super::*;
use crate::secrecy::Leaked;

/// G1, G3: a connect was recorded; later the manager's long-term key, its challenge keys, the
/// epoch's share **and the binding factor** are known. Whoever has them all and plays the recorded
/// M2 once more gets another session, and the recorded one stays closed.
#[test]
fn g3_leaked_keys_and_a_leaked_factor_do_not_open_recorded_sessions() {
    for mode in CONNECTS {
        let mut world = world(300).paired();
        let gate = Arc::new(Leaked(SharedChallenges::new(Challenges::new(aws_lc::provider()))));
        world.change_manager(|config| config.challenges = gate);
        let mut pair = world.contact(mode);
        let m2 = pair.take_message(2);
        pair.deliver_to_manager(&m2).unwrap();
        pair.collect();
        let m3 = pair.to_sleeve.pop_front().unwrap();
        pair.deliver_to_sleeve(&m3).unwrap();
        pair.sleeve.send(b"password").unwrap();
        pair.collect();
        let [m4, record] = [(); 2].map(|()| pair.to_manager.pop_front().unwrap());

        let rng = &mut pair.rng;
        let mut attacker = ManagerChannel::new(world.manager.clone(), &ADDRESS, world.now);
        attacker.handle(world.now, rng, &m2).unwrap();
        attacker.sleeve_found(world.now, rng, Ok(world.of_sleeve.clone().unwrap())).unwrap();
        assert!(attacker.poll_transmit().is_some(), "it can answer as the manager");
        let error = attacker.handle(world.now, rng, &m4).unwrap_err();
        assert_eq!(error, Error::Authentication("finished"));
        // The true manager opens what the attacker could not.
        pair.deliver_to_manager(&[m4, record].concat()).unwrap();
        assert!(matches!(pair.manager_events.remove(0), ManagerEvent::Connected));
        assert_eq!(manager_data(&mut pair), [b"password".to_vec()]);
    }
}

/// G3, A1: a pairing was recorded; the long-term keys of both are known later. Played once more to
/// the manager, in another open window, M1 gets another `R4` and another share: the recorded M3
/// does not fit, and no list has another factor.
#[test]
fn g3_a1_a_recorded_pairing_cannot_be_made_again() {
    let mut world = world(301);
    let mut pair = world.contact(Mode::A1);
    let m1 = pair.take_message(0);
    pair.deliver_to_manager(&m1).unwrap();
    pair.collect();
    let m2 = pair.to_sleeve.pop_front().unwrap();
    pair.deliver_to_sleeve(&m2).unwrap();
    pair.collect();
    let m3 = pair.to_manager.pop_front().unwrap();
    let mut again = world.contact(Mode::A1);
    again.deliver_to_manager(&m1).unwrap();
    again.collect();
    assert_ne!(again.to_sleeve.pop_front().unwrap(), m2);
    assert_eq!(again.deliver_to_manager(&m3), Err(Error::Authentication("sleeve-signature")));
    assert!(again.of_sleeve.is_none());
    pair.deliver_to_manager(&m3).unwrap();
    assert!(manager_open(&pair));
}

/// G4: with the sleeve's leaked key an attacker is no manager to it, with the manager's no sleeve.
#[test]
fn g4_a_leaked_key_impersonates_its_owner_only() {
    for (mode, mut world) in worlds(302) {
        let sleeve_key = world.sleeve.credentials[0].key.clone();
        let manager_key = world.manager.credentials[0].key.clone();
        world.change_manager(|config| config.credentials[0].key = sleeve_key.clone());
        let check = if mode == Mode::A1 { "manager-signature" } else { "epoch-signature" };
        assert_eq!(refused(&mut world, mode), Error::Authentication(check));
        let fresh = SharedChallenges::new(Challenges::new(aws_lc::provider()));
        world.change_manager(|config| {
            config.credentials[0].key = manager_key.clone();
            config.challenges = Arc::new(fresh);
        });
        world.change_sleeve(|config| config.credentials[0].key = manager_key);
        assert_eq!(refused(&mut world, mode), Error::Authentication("sleeve-signature"));
        world.change_sleeve(|config| config.credentials[0].key = sleeve_key);
        connected(&mut world, mode);
    }
}
