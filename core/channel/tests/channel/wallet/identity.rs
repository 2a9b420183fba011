//! Certificates: of other trees, expired, revoked, of another role; pinned ones looked at anew.

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{LookupRefusal, ManagerConfig, Refusal, SleeveConfig};
use countersign_crypto::Secret;
use countersign_pki::{PkiError, Role, TrustStore};
use testkit::pki::{LEAF_VALIDITY, NOW, TestPki};
use testkit::wallet::{copied, manager_config, sleeve_config};

use super::*;

/// A1: whose certificate is not a sleeve's or a manager's of this tree is not paired. The sleeve
/// sends nothing more; neither list changes.
#[test]
fn a1_bad_certificates_leave_both_lists_unchanged() {
    let mut other = TestPki::new(aws_lc::provider(), 271);
    // The sleeve's.
    let mut world = world(270);
    let foreign = other.party(Role::Sleeve, "SLV-1");
    let mut config = sleeve_config(&other, &foreign, aws_lc::provider());
    config.credentials[0].trust = world.sleeve.credentials[0].trust.clone();
    world.sleeve = Arc::new(config);
    assert_eq!(refused(&mut world, Mode::A1), PkiError::UnknownIssuer.into());
    // The manager's.
    let mut world = self::world(270);
    let foreign = other.party(Role::Manager, "MGR-1");
    let mut config = manager_config(&other, &foreign, aws_lc::provider());
    config.credentials[0].trust = world.manager.credentials[0].trust.clone();
    world.manager = Arc::new(config);
    let mut pair = world.contact(Mode::A1);
    assert_eq!(pair.drive(), Err(PkiError::UnknownIssuer.into()));
    pair.collect();
    assert!(pair.to_manager.is_empty() && pair.asked == ["window SLV-1"]);
    // Too late, for either.
    let mut world = self::world(270);
    world.now = NOW.plus(LEAF_VALIDITY + Duration::from_secs(1));
    assert_eq!(refused(&mut world, Mode::A1), PkiError::Expired.into());
}

/// A1: a reader's certificate is no sleeve's, a sleeve's is no manager's.
#[test]
fn g9_a1_certificates_of_other_roles_are_refused() {
    for role in [Role::Reader, Role::Terminal, Role::Manager] {
        let mut world = world(272);
        let mut pair = world.contact(Mode::A1);
        let m1 = pair.take_message(0);
        let stranger = world.pki.party(role, "SLV-1");
        let swapped = swap(&m1, &world.sleeve.credentials[0].certificate, &stranger.certificate);
        assert_eq!(pair.deliver_to_manager(&swapped), Err(PkiError::WrongRole.into()), "{role:?}");
    }
    for role in [Role::Sleeve, Role::Server] {
        let mut world = world(272);
        let mut pair = world.contact(Mode::A1);
        let m2 = pair.take_message(1);
        let stranger = world.pki.party(role, "MGR-1");
        let swapped = swap(&m2, &world.manager.credentials[0].certificate, &stranger.certificate);
        assert_eq!(pair.deliver_to_sleeve(&swapped), Err(PkiError::WrongRole.into()), "{role:?}");
        assert_eq!(pair.asked, ["window SLV-1"], "the user is not asked");
    }
}

/// A frame of A1 with one certificate in the place of another, of any length.
fn swap(frame: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = frame.windows(old.len()).position(|part| part == old).unwrap();
    let prefix = u16::try_from(new.len()).unwrap().to_be_bytes();
    let mut body = [&frame[8..at - 2], &prefix, new, &frame[at + old.len()..]].concat();
    if frame[4] == 6 {
        // M1: the list of offers behind the sleeve's id has a length too, of two bytes.
        let at = body.windows(5).position(|part| part == b"SLV-1").unwrap() + 5;
        let len = body.len() - at - 2;
        body[at..at + 2].copy_from_slice(&(u16::try_from(len).unwrap() | 0x4000).to_be_bytes());
    }
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&frame[..5], &len[1..], &body].concat()
}

fn without(world: &World, sleeve_side: bool) -> TrustStore {
    let mut trust = world.pki.trust(aws_lc::provider());
    let credentials =
        if sleeve_side { &world.manager.credentials } else { &world.sleeve.credentials };
    trust.revoke(countersign_pki::number(&credentials[0].certificate).unwrap());
    trust
}

/// A2, A3: the pinned certificates are looked at anew at every connect: revoked and expired ones
/// are refused by name, though they are in the list and remembered as verified.
#[test]
fn a2_a3_pinned_certificates_are_rechecked() {
    for mode in CONNECTS {
        let mut world = world(273).paired();
        connected(&mut world, mode); // cached
        let revoked = Arc::new(without(&world, false));
        world.change_manager(|config| config.credentials[0].trust = revoked);
        assert_eq!(refused(&mut world, mode), PkiError::Revoked.into(), "the sleeve's");

        let mut world = self::world(273).paired();
        let revoked = Arc::new(without(&world, true));
        world.change_sleeve(|config| config.credentials[0].trust = revoked);
        let mut pair = world.contact(mode);
        assert_eq!(pair.drive(), Err(PkiError::Revoked.into()), "the manager's");
        pair.collect();
        assert!(pair.to_manager.is_empty(), "nothing more is sent");

        let mut world = self::world(273).paired();
        world.now = NOW.plus(LEAF_VALIDITY + Duration::from_secs(1));
        assert_eq!(refused(&mut world, mode), PkiError::Expired.into());
    }
}

/// A pinned certificate that is not the one of the peer: what a disk that was tampered with holds.
#[test]
fn a2_a3_a_pinned_certificate_of_another_is_refused() {
    for mode in CONNECTS {
        let mut world = world(274).paired();
        let stranger = world.pki.party(Role::Manager, "MGR-2");
        let mut wrong = copied(world.of_manager.as_ref().unwrap());
        wrong.certificate = stranger.certificate;
        let right = world.of_manager.replace(Arc::new(wrong));
        assert_eq!(refused(&mut world, mode), Refusal::PeerIdMismatch.into());
        world.of_manager = right;
        // The other way round both pin another one alike: the binder fits, the id does not.
        let stranger = world.pki.party(Role::Sleeve, "SLV-2");
        let mut wrong = copied(world.of_sleeve.as_ref().unwrap());
        wrong.certificate.clone_from(&stranger.certificate);
        world.of_sleeve = Some(Arc::new(wrong));
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
    }
}

/// A3: the manager says who it is; another one than the sleeve's is refused before anything else,
/// and hears nothing of why. In A2 nothing names it: its epoch's signature is not the pinned key's.
#[test]
fn a2_a3_a_wrong_manager_is_refused() {
    for mode in CONNECTS {
        let mut world = world(275).paired();
        let other = world.pki.party(Role::Manager, "MGR-2");
        world.manager = Arc::new(manager_config(&world.pki, &other, aws_lc::provider()));
        let expected = match mode {
            Mode::A3 => Refusal::UnexpectedManager.into(),
            _ => Error::Authentication("epoch-signature"),
        };
        let mut pair = world.contact(mode);
        assert_eq!(pair.drive(), Err(expected));
        pair.collect();
        assert!(pair.to_manager.is_empty() && pair.asked.is_empty());
    }
}

/// A renewed certificate is another one: the pair pairs again.
#[test]
fn a2_a3_a_renewed_certificate_needs_another_pairing() {
    for mode in CONNECTS {
        let mut world = world(276).paired();
        let renewed = world.pki.party(Role::Sleeve, "SLV-1");
        world.sleeve = Arc::new(sleeve_config(&world.pki, &renewed, aws_lc::provider()));
        assert_eq!(refused(&mut world, mode), Error::Authentication("binder"));
        let mut world = world.paired();
        connected(&mut world, mode);
    }
}

/// What cannot work is the configuration's mistake, and is said before anything is sent.
#[test]
fn impossible_configurations_are_refused_at_once() {
    use countersign_channel::{Delivery, Policy, SleeveChannel};
    let world = world(277).paired();
    let policy = Policy::default();
    let sealed = Policy { certificate_sealed: true, ..policy };
    let datagrams = Policy { delivery: Delivery::Datagrams, ..policy };
    let other = world.manager.credentials[0].certificate.clone();
    let bad: [&dyn Fn(&mut SleeveConfig); 7] = [
        &|config| config.credentials.clear(),
        &|config| config.policies.clear(),
        &|config| config.policies = vec![sealed],
        &|config| config.policies = vec![datagrams],
        &|config| config.sleeve_id = "SLV-2".into(),
        &|config| config.sleeve_id = "no id".into(),
        &|config| config.credentials[0].certificate.clone_from(&other),
    ];
    let rng = &mut testkit::rng::seeded(2);
    for change in bad {
        let mut config = (*world.sleeve).clone();
        change(&mut config);
        let config = Arc::new(config);
        assert!(matches!(config.check(), Err(Error::Misuse(_))));
        let paired = SleeveChannel::pair(config.clone(), world.now, rng);
        assert!(matches!(paired.err(), Some(Error::Misuse(_))));
        let pairing = world.of_manager.clone().unwrap();
        let connects = SleeveChannel::connect(config, Mode::A2, pairing, world.now, rng);
        assert!(matches!(connects.err(), Some(Error::Misuse(_))));
    }
    let bad: [&dyn Fn(&mut ManagerConfig); 5] = [
        &|config| config.modes.clear(),
        &|config| config.modes = vec![Mode::A1, Mode::C1],
        &|config| config.policies = vec![datagrams],
        &|config| config.manager_id = "MGR-2".into(),
        &|config| config.credentials.clear(),
    ];
    for change in bad {
        let mut config = (*world.manager).clone();
        change(&mut config);
        assert!(matches!(config.check(), Err(Error::Misuse(_))));
    }
    assert_eq!((world.manager.check(), world.sleeve.check()), (Ok(()), Ok(())));
    // Other modes, factors of another length.
    let pairing = world.of_manager.clone().unwrap();
    for mode in [Mode::A1, Mode::C1] {
        let made =
            SleeveChannel::connect(world.sleeve.clone(), mode, pairing.clone(), world.now, rng);
        assert!(matches!(made.err(), Some(Error::Misuse(_))));
    }
    let mut short = copied(&pairing);
    short.factor = Secret::copied_from(&[1; 16]);
    let made =
        SleeveChannel::connect(world.sleeve.clone(), Mode::A2, Arc::new(short), world.now, rng);
    assert!(matches!(made.err(), Some(Error::Misuse(_))));
}

/// A manager that does not serve a mode refuses it at the header.
#[test]
fn a_mode_that_is_not_served_is_refused() {
    for (mode, mut world) in worlds(278) {
        world.change_manager(|config| config.modes.retain(|one| *one != mode));
        assert_eq!(refused(&mut world, mode), Error::Incompatible("handshake"));
    }
}

/// The list may be asked late: after the deadline nothing dear is done any more.
#[test]
fn a2_a3_a_late_answer_ends_the_handshake() {
    for mode in CONNECTS {
        let mut world = world(279).paired();
        let mut pair = world.contact(mode);
        let m2 = pair.take_message(2);
        pair.manager.handle(pair.now, &mut pair.rng, &m2).unwrap();
        let late = pair.manager.poll_timeout().unwrap();
        let found = Err(LookupRefusal::Unknown);
        let result = pair.manager.sleeve_found(late, &mut pair.rng, found);
        assert_eq!(result, Err(Error::Timeout));
    }
}
