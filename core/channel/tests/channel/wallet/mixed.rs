//! Two contacts at once, modes mixed, certified strangers in the middle (G2, G5, G9).

use std::sync::Arc;

use countersign_channel::Refusal;
use countersign_pki::Role;
use testkit::wallet::{copied, manager_config, sleeve_config};

use super::*;

/// G9: a message of one mode says nothing in another, whichever two they are.
#[test]
fn g9_modes_do_not_mix() {
    for (mode, mut world) in worlds(260) {
        for message in 0..messages(mode) {
            for other in [Mode::C1, Mode::C2].into_iter().chain(MODES) {
                if other == mode {
                    continue;
                }
                let mut pair = world.contact(mode);
                let mut frame = pair.take_message(message);
                frame[3] = other as u8;
                let outcome = pair.deliver_message(message, &frame).and_then(|()| pair.drive());
                assert!(outcome.is_err(), "{mode:?} as {other:?}, message {message}");
                let open = if message % 2 == 0 { manager_open(&pair) } else { sleeve_open(&pair) };
                assert!(!open, "{mode:?} as {other:?}, message {message}");
            }
        }
    }
}

/// G9: what a pair says in A2 cannot be finished in A3, though all keys are the same: M0 is
/// answered in A3, and the sleeve takes no M1 of it.
#[test]
fn g9_an_attacker_cannot_turn_a2_into_a3() {
    for (mode, other) in [(Mode::A2, Mode::A3), (Mode::A3, Mode::A2)] {
        let mut world = world(261).paired();
        let mut pair = world.contact(mode);
        let mut m0 = pair.take_message(0);
        m0[3] = other as u8;
        pair.deliver_to_manager(&m0).unwrap();
        pair.collect();
        let mut m1 = pair.to_sleeve.pop_front().unwrap();
        m1[3] = mode as u8;
        assert!(pair.deliver_to_sleeve(&m1).is_err());
        pair.collect();
        assert!(pair.to_manager.is_empty());
    }
}

/// G9: reader and server do not speak with sleeve and manager: modes are refused at the header.
#[test]
fn g9_readers_and_servers_are_no_sleeves_and_managers() {
    let (mut ours, mut theirs) = (world(262).paired(), crate::world(262));
    let m0 = theirs.connect().take_reader_frame(0);
    let mut manager = ours.contact(Mode::A2);
    assert_eq!(manager.deliver_to_manager(&m0), Err(Error::Incompatible("handshake")));
    for mode in MODES {
        let first = ours.contact(mode).take_message(0);
        let refused = theirs.connect().deliver_to_server(&first);
        assert_eq!(refused, Err(Error::Incompatible("handshake")));
    }
    theirs.change_reader(|config| config.mode = Mode::A2);
    let rng = &mut testkit::rng::seeded(1);
    let made = countersign_channel::ReaderChannel::new(theirs.reader.clone(), theirs.now, rng);
    assert!(matches!(made.err(), Some(Error::Misuse(_))));
    theirs.change_server(|config| config.modes.push(Mode::A1));
    assert!(matches!(theirs.server.check(), Err(Error::Misuse(_))));
}

/// G2: two pairings at once, and an attacker who swaps their messages: none gets through. Left
/// alone, both do, and their factors differ.
#[test]
fn g2_concurrent_pairings_do_not_mix() {
    for swapped in 0..4 {
        let mut world = world(263);
        let mut pairs = [world.contact(Mode::A1), world.contact(Mode::A1)];
        let frames = pairs.each_mut().map(|pair| pair.take_message(swapped));
        let [first, second] = &frames;
        for (pair, frame) in pairs.iter_mut().zip([second, first]) {
            let outcome = pair.deliver_message(swapped, frame).and_then(|()| pair.drive());
            // M1 swapped is the other sleeve's M1, in a machine of its own: M2 goes astray then.
            assert!(outcome.is_err(), "message {swapped}");
            assert!(!sleeve_open(pair));
            assert!(swapped == 3 || pair.of_sleeve.is_none(), "message {swapped}");
        }
    }
    let mut world = world(264);
    let mut pairs = [world.contact(Mode::A1), world.contact(Mode::A1)];
    let factors = pairs.each_mut().map(|pair| {
        pair.drive().unwrap();
        pair.of_sleeve.as_ref().unwrap().factor.expose().to_vec()
    });
    assert_ne!(factors[0], factors[1]);
}

/// G2, G6: the same for two connects at once.
#[test]
fn g2_concurrent_connects_do_not_mix() {
    for mode in CONNECTS {
        for swapped in 0..5 {
            let mut world = world(265).paired();
            let mut pairs = [world.contact(mode), world.contact(mode)];
            let frames = pairs.each_mut().map(|pair| pair.take_message(swapped));
            let [first, second] = &frames;
            for (pair, frame) in pairs.iter_mut().zip([second, first]) {
                let outcome = pair.deliver_message(swapped, frame).and_then(|()| pair.drive());
                assert!(outcome.is_err() || swapped == 2, "{mode:?}, message {swapped}");
                assert!(!manager_open(pair), "{mode:?}, message {swapped}");
                assert!(!sleeve_open(pair) || swapped == 4, "{mode:?}, message {swapped}");
            }
        }
    }
}

/// G5: a certified manager in the middle of a pairing. It can pair with the sleeve as itself, and
/// then the user sees its own id; passed on as the true one's, what it makes is refused.
#[test]
fn g5_a_certified_manager_in_the_middle_shows_its_own_id() {
    let mut world = world(266);
    let corrupt = world.pki.party(Role::Manager, "MGR-X");
    let corrupt = Arc::new(manager_config(&world.pki, &corrupt, aws_lc::provider()));
    let honest = world.manager.clone();
    world.manager = corrupt.clone();
    let mut pair = world.contact(Mode::A1);
    pair.answers.confirmed = false; // it is not the id on the label
    assert_eq!(pair.drive(), Err(Refusal::PairingRefused.into()));
    assert_eq!(pair.asked, ["window SLV-1", "confirm MGR-X"]);
    // It claims the true one's id, with its own certificate; then it sends the true certificate.
    let mut lying = (*corrupt).clone();
    lying.manager_id.clone_from(&honest.manager_id);
    world.manager = Arc::new(lying.clone());
    assert_eq!(refused(&mut world, Mode::A1), Refusal::PeerIdMismatch.into());
    lying.credentials[0].certificate.clone_from(&honest.credentials[0].certificate);
    world.manager = Arc::new(lying);
    assert_eq!(refused(&mut world, Mode::A1), Error::Authentication("manager-signature"));
}

/// G5: a certified sleeve in the middle. What the true sleeve signs names the manager it talks to,
/// and every certificate is under the signatures: an M3 is of no use in another pairing.
#[test]
fn g5_a_certified_sleeve_in_the_middle_pairs_only_itself() {
    let mut world = world(267);
    let corrupt = world.pki.party(Role::Sleeve, "SLV-X");
    let corrupt = Arc::new(sleeve_config(&world.pki, &corrupt, aws_lc::provider()));
    let mut honest = world.contact(Mode::A1);
    let m3 = honest.take_message(2);
    let ours = std::mem::replace(&mut world.sleeve, corrupt.clone());
    let mut middle = world.contact(Mode::A1);
    drop(middle.take_message(2));
    let refused = middle.deliver_to_manager(&m3);
    assert_eq!(refused, Err(Error::Authentication("sleeve-signature")));
    assert!(middle.of_sleeve.is_none());
    // Its own certificate under the true sleeve's id, and the other way round.
    let mut lying = (*corrupt).clone();
    lying.sleeve_id.clone_from(&ours.sleeve_id);
    assert!(matches!(lying.check(), Err(Error::Misuse(_))), "an honest program refuses that");
    let mut pair = world.contact(Mode::A1);
    let mut m1 = pair.take_message(0);
    let at = m1.windows(5).position(|part| part == b"SLV-X").unwrap();
    m1[at + 4] = b'1'; // the id in front; the certificate says X
    assert_eq!(pair.deliver_to_manager(&m1), Err(Refusal::PeerIdMismatch.into()));
}

/// G5: two sleeves of one manager. One that takes the other's id, or is answered with the other's
/// pairing, does not get in as the other.
#[test]
fn g5_one_paired_sleeve_is_not_another() {
    for mode in CONNECTS {
        let mut world = world(268).paired();
        let first = world.of_sleeve.clone().unwrap();
        let second = world.pki.party(Role::Sleeve, "SLV-2");
        let second = Arc::new(sleeve_config(&world.pki, &second, aws_lc::provider()));
        let ours = std::mem::replace(&mut world.sleeve, second);
        let mut world = world.paired();
        connected(&mut world, mode);
        // The list answers SLV-2's id with what belongs to SLV-1.
        let mut mixed = copied(&first);
        mixed.peer = "SLV-2".into();
        let right = world.of_sleeve.replace(Arc::new(mixed));
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
        // And even if the factors were the same, the pinned certificate is another's.
        let mut same = copied(&first);
        same.peer = "SLV-2".into();
        same.factor = copied(right.as_ref().unwrap()).factor;
        world.of_sleeve = Some(Arc::new(same));
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
        world.of_sleeve = right;
        world.sleeve = ours; // SLV-1 with SLV-2's factor
        world.of_sleeve = world.of_sleeve.map(|pairing| {
            let mut renamed = copied(&pairing);
            renamed.peer = "SLV-1".into();
            Arc::new(renamed)
        });
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
    }
}
