//! A1: who is asked what and when, what is stored, and that a no leaves both lists as they were.

use std::time::Duration;

use countersign_channel::{AlertCode, HANDSHAKE_TIMEOUT, PAIRING_TIMEOUT, Refusal};
use countersign_channel::{ManagerQuestion, SleeveQuestion};
use countersign_crypto::{rust_crypto, sm};

use super::*;

/// The whole of it, in both suites and with either side on either provider: the questions come in
/// their order, both sides store the same factor and each other's certificate.
#[test]
fn a1_both_sides_store_the_same_factor_and_each_other() {
    let (plain, fast) = (rust_crypto::provider(), aws_lc::provider());
    for (sleeve, manager) in
        [(plain.clone(), fast.clone()), (fast, plain), (sm::provider(), sm::provider())]
    {
        let suite = sleeve.suite;
        let pki = countersign_crypto::provider_of(suite).unwrap();
        let mut world = World::new(pki, sleeve, manager, 200);
        let mut pair = connected(&mut world, Mode::A1);
        assert_eq!(pair.asked, ["window SLV-1", "confirm MGR-1", "pending MGR-1", "store SLV-1"]);
        let of_manager = pair.of_manager.clone().unwrap();
        let of_sleeve = pair.of_sleeve.clone().unwrap();
        assert_eq!(of_manager.factor.expose(), of_sleeve.factor.expose());
        assert_eq!(of_manager.factor.len(), 32);
        assert_eq!((&*of_manager.peer, &*of_sleeve.peer), ("MGR-1", "SLV-1"));
        assert_eq!(of_manager.certificate, world.manager.credentials[0].certificate);
        assert_eq!(of_sleeve.certificate, world.sleeve.credentials[0].certificate);
        assert_eq!((of_manager.suite, of_sleeve.suite), (suite, suite));
        assert_eq!((pair.sleeve.mode(), pair.manager.mode()), (Mode::A1, Mode::A1));
        // The session that follows is open both ways.
        pair.sleeve.send(b"up").unwrap();
        pair.manager.send(b"down").unwrap();
        pair.drive().unwrap();
        assert_eq!(manager_data(&mut pair), [b"up".to_vec()]);
        assert!(matches!(&pair.sleeve_events[..], [SleeveEvent::Data(data)] if **data == b"down"));
        let text = format!("{of_manager:?}");
        assert_eq!(text, "Pairing { peer: \"MGR-1\", .. }", "no factor in it");
    }
}

/// Issue 9, bad input: the user says no. The manager hears of it, nobody stores anything.
#[test]
fn a1_a_user_who_says_no_leaves_both_lists_unchanged() {
    let mut world = world(201);
    world.answers.confirmed = false;
    let mut pair = world.contact(Mode::A1);
    assert_eq!(pair.drive(), Err(Refusal::PairingRefused.into()));
    assert_eq!(pair.asked, ["window SLV-1", "confirm MGR-1"]);
    pair.collect();
    let alert = pair.to_manager.pop_front().unwrap();
    assert!(pair.to_manager.is_empty(), "the alert and nothing else");
    let told = pair.deliver_to_manager(&alert).unwrap_err();
    let expected = Error::Alert { code: AlertCode::PairingRefused, incident: String::new() };
    assert_eq!(told, expected);
    assert!(pair.of_manager.is_none() && pair.of_sleeve.is_none());
    assert_eq!(pair.asked.len(), 2, "the manager was not asked to store");
}

/// Issue 9, bad input: the window is closed. The sleeve is told so by name.
#[test]
fn a1_a_closed_window_is_refused_by_name() {
    let mut world = world(202);
    world.answers.window = false;
    let mut pair = world.contact(Mode::A1);
    assert_eq!(pair.drive(), Err(Refusal::PairingClosed.into()));
    pair.collect();
    let alert = pair.to_sleeve.pop_front().unwrap();
    let told = pair.deliver_to_sleeve(&alert).unwrap_err();
    assert_eq!(told.to_string(), "the peer refused: pairing-closed (incident inc-test)");
    assert_eq!(pair.asked, ["window SLV-1"]);
    assert!(pair.of_manager.is_none() && pair.of_sleeve.is_none());
}

/// Intent before effect: M3 leaves the sleeve only after the pending pairing is stored, M4 leaves
/// the manager only after the pairing is; a disk that fails ends it, and no key is used.
#[test]
fn a1_messages_leave_only_after_what_they_depend_on_is_stored() {
    let mut world = world(203);
    let mut pair = world.contact(Mode::A1);
    let m2 = pair.take_message(1);
    pair.sleeve.handle(pair.now, &mut pair.rng, &m2).unwrap();
    let Some(SleeveEvent::Ask(SleeveQuestion::Confirm { manager_id, number })) =
        pair.sleeve.poll_event()
    else {
        panic!("the user is asked")
    };
    assert_eq!(manager_id, "MGR-1");
    let certificate = &world.manager.credentials[0].certificate;
    assert_eq!(number, countersign_pki::number(certificate).unwrap());
    assert!(pair.sleeve.poll_transmit().is_none());
    let early = pair.sleeve.stored(pair.now, &mut pair.rng, true);
    assert!(matches!(early, Err(Error::Misuse(_))), "not asked yet");
    pair.sleeve.confirm(pair.now, &mut pair.rng, true).unwrap();
    assert!(matches!(
        pair.sleeve.poll_event(),
        Some(SleeveEvent::Ask(SleeveQuestion::Store(pairing))) if pairing.peer == "MGR-1"
    ));
    assert!(pair.sleeve.poll_transmit().is_none(), "M3 waits for the disk");
    pair.sleeve.stored(pair.now, &mut pair.rng, true).unwrap();
    let m3 = pair.sleeve.poll_transmit().unwrap();
    assert!(pair.sleeve.poll_transmit().is_none() && pair.sleeve.poll_event().is_none());

    pair.manager.handle(pair.now, &mut pair.rng, &m3).unwrap();
    assert!(pair.manager.is_asking());
    assert!(matches!(
        pair.manager.poll_event(),
        Some(ManagerEvent::Ask(ManagerQuestion::Store(pairing))) if pairing.peer == "SLV-1"
    ));
    assert!(pair.manager.poll_transmit().is_none(), "M4 waits for the disk");
    pair.manager.stored(pair.now, &mut pair.rng, true).unwrap();
    assert!(pair.manager.poll_transmit().is_some() && !pair.manager.is_asking());
}

#[test]
fn a1_a_disk_that_fails_ends_the_pairing() {
    let mut world = world(204);
    world.answers.sleeve_stores = false;
    let mut pair = world.contact(Mode::A1);
    assert_eq!(pair.drive(), Err(Refusal::PairingNotStored.into()));
    assert_eq!(pair.asked, ["window SLV-1", "confirm MGR-1", "pending MGR-1"]);
    pair.collect();
    let told = pair.to_manager.pop_front().unwrap();
    let heard = pair.deliver_to_manager(&told).unwrap_err();
    assert!(matches!(heard, Error::Alert { code: AlertCode::Internal, .. }));
    assert!(pair.of_sleeve.is_none());

    world.answers.sleeve_stores = true;
    world.answers.manager_stores = false;
    let mut pair = world.contact(Mode::A1);
    assert_eq!(pair.drive(), Err(Refusal::PairingNotStored.into()));
    pair.collect();
    assert_eq!(pair.to_sleeve.len(), 1);
    let told = pair.to_sleeve.pop_front().unwrap();
    let heard = pair.deliver_to_sleeve(&told).unwrap_err();
    assert!(matches!(heard, Error::Alert { code: AlertCode::Internal, .. }));
    assert!(!sleeve_open(&pair), "what the sleeve holds stays pending");
}

/// Row A1: a lost acknowledgement is settled by the next connect, by A2 and by A3.
#[test]
fn a1_a_lost_acknowledgement_is_settled_by_the_next_connect() {
    for mode in CONNECTS {
        let mut world = world(205);
        let mut pair = world.contact(Mode::A1);
        drop(pair.take_message(3)); // M4 is lost
        assert_eq!(pair.sleeve.handle_end(), Err(Error::Truncated));
        assert!(!sleeve_open(&pair));
        world.of_manager = pair.of_manager; // pending
        world.of_sleeve = pair.of_sleeve;
        connected(&mut world, mode);
    }
    // M3 is lost: the manager knows nothing, and says so by name.
    for mode in CONNECTS {
        let mut world = world(206);
        let mut pair = world.contact(Mode::A1);
        drop(pair.take_message(2));
        assert!(pair.of_sleeve.is_none());
        world.of_manager = pair.of_manager;
        assert_eq!(refused(&mut world, mode), Refusal::UnknownSleeve.into());
    }
}

/// The user may take two minutes, on both sides' clocks, and no longer; before M2 and in A2 and A3
/// it is ten seconds.
#[test]
fn a1_the_user_has_two_minutes() {
    let moment = Duration::from_millis(1);
    for in_time in [true, false] {
        let mut world = world(207);
        let mut pair = world.contact(Mode::A1);
        assert_eq!(pair.sleeve.poll_timeout(), Some(world.now.plus(HANDSHAKE_TIMEOUT)));
        assert_eq!(pair.manager.poll_timeout(), Some(world.now.plus(HANDSHAKE_TIMEOUT)));
        let m2 = pair.take_message(1);
        let due = world.now.plus(PAIRING_TIMEOUT);
        assert_eq!(pair.manager.poll_timeout(), Some(due));
        pair.sleeve.handle(pair.now, &mut pair.rng, &m2).unwrap();
        assert_eq!(pair.sleeve.poll_timeout(), Some(due));
        pair.now = if in_time { due.minus(moment) } else { due };
        let result = pair.deliver_to_sleeve(&[]).and_then(|()| pair.drive());
        if in_time {
            assert_eq!(result, Ok(()));
            assert!(sleeve_open(&pair) && manager_open(&pair));
        } else {
            assert_eq!(result, Err(Error::Timeout));
            assert_eq!(pair.manager.handle_timeout(due), Err(Error::Timeout));
            assert!(pair.of_manager.is_none() && pair.of_sleeve.is_none());
        }
    }
    for mode in CONNECTS {
        let mut world = world_for(mode, 208);
        let mut pair = world.contact(mode);
        let late = world.now.plus(HANDSHAKE_TIMEOUT);
        drop(pair.take_message(3));
        assert_eq!(pair.sleeve.handle_timeout(late), Err(Error::Timeout));
        assert_eq!(pair.manager.handle_timeout(late), Err(Error::Timeout));
    }
}

/// The sleeve's no is the only alert that a manager hears, and only while it waits for M3.
#[test]
fn a1_alerts_of_a_sleeve_count_only_while_its_user_is_asked() {
    let mut world = world(209).paired();
    let mut pair = world.contact(Mode::A1);
    pair.answers.confirmed = false;
    let m2 = pair.take_message(1);
    pair.deliver_to_sleeve(&m2).unwrap_err();
    pair.collect();
    let no = pair.to_manager.pop_front().unwrap();
    let mut fresh = world.contact(Mode::A1);
    assert_eq!(fresh.deliver_to_manager(&no), Err(Error::Unexpected), "before M1");
    let mut open = connected(&mut world, Mode::A1);
    assert_eq!(open.deliver_to_manager(&no), Err(Error::Unexpected), "in a session");
    for mode in CONNECTS {
        let mut other = no.clone();
        other[3] = mode as u8;
        for sent in [1, 3] {
            let mut pair = world.contact(mode);
            drop(pair.take_message(sent));
            assert_eq!(pair.deliver_to_manager(&other), Err(Error::Unexpected));
        }
    }
}
