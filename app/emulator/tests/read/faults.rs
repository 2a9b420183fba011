//! What goes wrong at the SAM, at the card and on the wire: each gives its own check, and the
//! next read works again.

use crate::world::{World, card};
use countersign_emulator::Fault;
use countersign_idcard::Check;
use countersign_idcard::message::{AbortReason, ReaderMessage};
use countersign_idcard::record::DocumentType;
use countersign_idcard::sam::CHECKSUM_RETRIES;

const REMOTE_CARD: [u8; 2] = [0xE0, 0x01];
const CARD_ANSWER: [u8; 2] = [0xE0, 0x02];
const ENCRYPTED: [u8; 2] = [0xE0, 0x03];
const FIND: [u8; 2] = [0x20, 0x01];
const SELECT: [u8; 2] = [0x20, 0x02];
const READ: [u8; 2] = [0x30, 0x01];

fn world() -> World {
    let world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world
}

#[test]
fn checksum_errors_are_retried_and_recover_up_to_the_limit() {
    let limit = u32::from(CHECKSUM_RETRIES);
    type MakeFault = fn(u32) -> Fault;
    let kinds: [MakeFault; 2] = [Fault::BadChecksumTimes, Fault::ReportChecksumTimes];
    for fault in kinds {
        for times in 1..=limit {
            let mut world = world();
            world.faults.inject(fault(times));
            world.read().record();
        }
        let mut world = world();
        world.faults.inject(fault(limit + 1));
        let outcome = world.read();
        assert_eq!(outcome.check(), "sam-damaged");
        assert_eq!(outcome.server, Some(Err(Check::SamDamaged)));
        assert!(world.host.is_dead());
        world.replug();
        world.read().record();
    }
}

/// The read's answer is the one that cannot simply be asked for again: the module has forgotten
/// the card. From the cache, so that the fault can be placed after the card's turn.
#[test]
fn a_damaged_answer_at_any_step_recovers() {
    // Commands of one read: remote card, find, select, answer, two chunks, read.
    for step in 0..7 {
        for fault in [Fault::BadChecksumTimes(1), Fault::ReportChecksumTimes(1)] {
            let mut world = world();
            world.faults.inject_at(step, fault);
            let outcome = world.read();
            assert!(outcome.result.is_ok(), "{step} {fault:?} {outcome:?}");
        }
    }
}

#[test]
fn a_read_that_is_damaged_every_time_fails() {
    let mut world = world();
    for _ in 0..=CHECKSUM_RETRIES {
        world.faults.inject(Fault::DamageAnswerTo(READ));
    }
    assert_eq!(world.read().check(), "sam-damaged");
    world.replug();
    for _ in 0..CHECKSUM_RETRIES {
        world.faults.inject(Fault::DamageAnswerTo(READ));
    }
    world.read().record();
}

#[test]
fn a_silent_module_times_out_at_any_command() {
    for code in [REMOTE_CARD, FIND, SELECT, CARD_ANSWER, ENCRYPTED, READ] {
        let mut world = world();
        world.faults.inject(Fault::SilentAfter(code));
        let outcome = world.read();
        assert_eq!(outcome.check(), "sam-timeout", "{code:02x?}");
        assert!(world.host.is_dead());
        let failure = outcome.result.expect_err("checked");
        assert!(failure.retry);
        world.replug();
        world.read().record();
    }
}

#[test]
fn a_module_unplugged_at_any_command_is_gone() {
    for code in [REMOTE_CARD, FIND, SELECT, CARD_ANSWER, ENCRYPTED, READ] {
        let mut world = world();
        world.faults.inject(Fault::UnplugAt(code));
        assert_eq!(world.read().check(), "sam-gone", "{code:02x?}");
        // The next read finds the host dead, and says so, without waiting.
        assert_eq!(world.read().check(), "sam-failed");
        world.replug();
        world.read().record();
    }
}

#[test]
fn garbage_is_skipped_and_a_truncated_answer_times_out() {
    let mut world = world();
    world.faults.inject(Fault::GarbageBeforeAnswer);
    world.read().record();
    world.faults.inject(Fault::TruncatedAnswer);
    assert_eq!(world.read().check(), "sam-timeout");
}

#[test]
fn odd_answers_have_their_checks_and_blame_decides_who_lives() {
    let cases = [
        (Fault::VendorTimeout, "sam-timeout", true),
        (Fault::UnknownStatus, "sam-failed", true),
        (Fault::CardNotFound, "card-not-found", false),
        (Fault::RejectCard, "authentication", false),
    ];
    for (fault, check, dies) in cases {
        let mut world = world();
        world.faults.inject(fault);
        assert_eq!(world.read().check(), check);
        assert_eq!(world.host.is_dead(), dies, "{fault:?}");
        if !dies {
            assert!(world.host.is_idle());
            world.read().record();
        }
    }
}

#[test]
fn a_card_that_answers_wrongly_is_refused_under_one_public_name() {
    let mut world = world();
    world.card.set_wrong_answers(true);
    let outcome = world.read();
    assert_eq!(outcome.check(), "authentication");
    assert_eq!(outcome.server, Some(Err(Check::CardAuthentication)));
    let failure = outcome.result.expect_err("checked");
    assert_eq!((failure.incident.as_deref(), failure.retry), (Some("inc_1"), false));
    world.card.set_wrong_answers(false);
    world.read().record();
}

#[test]
fn a_wrong_proof_is_refused_by_the_card() {
    use countersign_emulator::EmulatedCard;
    use countersign_idcard::card::{CardError, authenticate, read_encrypted};
    let (mut link, handle) =
        EmulatedCard::new(crate::world::scheme(), Box::new(crate::world::rng(1)));
    let image = card(DocumentType::Citizen, 1, false);
    handle.insert(image.clone());
    let challenge = [3; 8];
    let answer = authenticate(&mut link, &challenge).expect("answers");
    let refused = read_encrypted(&mut link, &[0; 8], false);
    assert_eq!(refused, Err(CardError::Refused(0x6300)));
    // A proof is looked at once: the right one is too late now, and works with a new challenge.
    let prove = |random| {
        crate::world::scheme().sam_proof(image.configuration(), &challenge, &random).expect("makes")
    };
    assert!(read_encrypted(&mut link, &prove(answer.random), false).is_err());
    let answer = authenticate(&mut link, &challenge).expect("answers");
    assert!(read_encrypted(&mut link, &prove(answer.random), false).is_ok());
}

#[test]
fn without_authentication_the_card_gives_only_its_configuration() {
    use countersign_emulator::EmulatedCard;
    use countersign_idcard::card::{CardLink, read_configuration};
    let (mut link, handle) =
        EmulatedCard::new(crate::world::scheme(), Box::new(crate::world::rng(1)));
    assert_eq!(link.poll(), Ok(None));
    handle.insert(card(DocumentType::Citizen, 1, false));
    assert!(matches!(link.poll(), Ok(Some(_))));
    assert!(read_configuration(&mut link).is_ok());
    let select = link.transceive(&[0x00, 0xA4, 0x00, 0x00, 0x02, 0x60, 0x12]).expect("in field");
    assert_eq!(*select, [0x90, 0x00]);
    let read = link.transceive(&[0x80, 0xB0, 0x00, 0x00, 0x70]).expect("in field");
    assert_eq!(*read, [0x69, 0x82]);
}

#[test]
fn a_card_removed_at_any_apdu_aborts_the_read_and_frees_the_sam() {
    let mut world = world();
    let before = world.card.apdus();
    world.read().record();
    let apdus = world.card.apdus() - before;
    // The first two read the configuration, before the read command.
    for after in 2..apdus {
        let mut world = self::world();
        world.card.remove_after(after);
        let outcome = world.read();
        assert_eq!(outcome.check(), "card-removed", "after {after}");
        assert_eq!(outcome.server, Some(Err(Check::CardRemoved)));
        assert_eq!(outcome.names.last(), Some(&"abort"));
        assert!(world.host.is_idle(), "after {after}");
        world.card.insert(card(DocumentType::Citizen, 1, false));
        world.read().record();
    }
}

#[test]
fn a_card_that_falls_silent_is_a_card_timeout() {
    let mut world = world();
    let link = world.card.clone();
    world.tamper = Some(Box::new(move |message| {
        link.set_silent(true);
        vec![message.to_vec()]
    }));
    assert_eq!(world.read().check(), "card-timeout");
}

#[test]
fn wrong_packets_kill_the_read() {
    type Alter = fn(&mut countersign_idcard::Packet);
    let cases: [(&str, Alter); 5] = [
        ("total too large", |packet| packet.total = 5),
        ("total changes", |packet| packet.total += packet.index),
        ("index repeats", |packet| packet.index = 0),
        ("total zero", |packet| packet.total = 0),
        ("one packet only", |packet| packet.total = 1),
    ];
    for (name, alter) in cases {
        let mut world = world();
        world.tamper = Some(Box::new(move |bytes| match ReaderMessage::decode(bytes) {
            Ok(ReaderMessage::Packet(mut packet)) => {
                alter(&mut packet);
                vec![ReaderMessage::Packet(packet).encode().to_vec()]
            }
            _ => vec![bytes.to_vec()],
        }));
        let outcome = world.read();
        assert_eq!(outcome.check(), "packets", "{name}");
        assert!(world.host.is_idle());
    }
}

#[test]
fn a_missing_packet_times_out_and_an_extra_one_is_out_of_turn() {
    let mut world = world();
    let mut seen = 0;
    world.tamper = Some(Box::new(move |bytes| {
        let packet = matches!(ReaderMessage::decode(bytes), Ok(ReaderMessage::Packet(_)));
        seen += usize::from(packet);
        if packet && seen == 2 { Vec::new() } else { vec![bytes.to_vec()] }
    }));
    assert_eq!(world.read().check(), "peer-timeout");
    assert!(world.host.is_idle());

    let mut world = self::world();
    world.tamper = Some(Box::new(|bytes| match ReaderMessage::decode(bytes) {
        Ok(ReaderMessage::CardAnswer(_)) => vec![bytes.to_vec(), bytes.to_vec()],
        _ => vec![bytes.to_vec()],
    }));
    assert_eq!(world.read().check(), "message-unexpected");
    assert!(world.host.is_idle());
}

#[test]
fn altered_data_fail_under_the_same_public_name_as_a_wrong_card() {
    let mut world = world();
    world.tamper = Some(Box::new(|bytes| match ReaderMessage::decode(bytes) {
        Ok(ReaderMessage::Packet(packet)) if packet.index == 0 => {
            let mut altered = bytes.to_vec();
            altered[500] ^= 1;
            vec![altered]
        }
        _ => vec![bytes.to_vec()],
    }));
    let outcome = world.read();
    assert_eq!(outcome.check(), "authentication");
    assert_eq!(outcome.server, Some(Err(Check::Decryption)));
    // The card's data are kept, and refused again from the cache: then they are forgotten.
    let outcome = world.read();
    assert!(outcome.names.contains(&"send packets"));
    assert_eq!(outcome.check(), "authentication");
    world.tamper = None;
    assert!(world.read().names.contains(&"card challenge"));
}

#[test]
fn garbage_from_the_reader_kills_the_flow() {
    for garbage in [vec![], vec![0x06], vec![0xFF; 5000], vec![3, 0, 2, 0xFF, 0xFF, 0]] {
        let mut world = world();
        world.tamper = Some(Box::new(move |_| vec![garbage.clone()]));
        let outcome = world.read();
        assert_eq!(outcome.check(), "message-malformed");
        assert_eq!(outcome.server, Some(Err(Check::MessageMalformed)));
    }
}

#[test]
fn an_abort_at_any_time_ends_the_read_and_frees_the_sam() {
    for step in 0..4 {
        let mut world = world();
        let mut count = 0;
        world.tamper = Some(Box::new(move |bytes| {
            count += 1;
            let abort = ReaderMessage::Abort(AbortReason::Cancelled).encode().to_vec();
            if count == step + 1 { vec![abort] } else { vec![bytes.to_vec()] }
        }));
        let outcome = world.read();
        assert_eq!(outcome.server, Some(Err(Check::ReaderAborted)));
        assert!(world.host.is_idle());
        assert!(outcome.result.is_err());
    }
}
