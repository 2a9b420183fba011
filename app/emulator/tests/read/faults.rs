//! What goes wrong at the SAM, at the card and on the wire: each gives its own check, and the
//! next read works again.

use crate::world::{World, card};
use countersign_emulator::{Fault, Faults, sample};
use countersign_idcard::Check;
use countersign_idcard::cache::CacheMode;
use countersign_idcard::message::{AbortReason, ReaderMessage};
use countersign_idcard::record::DocumentType;
use countersign_idcard::sam::{CHECKSUM_RETRIES, CardNumberCheck, SamConfig};

const REMOTE_CARD: [u8; 2] = [0xE0, 0x01];
const CARD_ANSWER: [u8; 2] = [0xE0, 0x02];
const ENCRYPTED: [u8; 2] = [0xE0, 0x03];
const FIND: [u8; 2] = [0x20, 0x01];
const SELECT: [u8; 2] = [0x20, 0x02];
const READ: [u8; 2] = [0x30, 0x01];
const CARD_NUMBER: [u8; 2] = [0x30, 0x05];
/// All that a read sends.
const COMMANDS: [[u8; 2]; 7] =
    [REMOTE_CARD, FIND, SELECT, CARD_ANSWER, ENCRYPTED, READ, CARD_NUMBER];

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
        assert_eq!(world.read().check(), "sam-none-ready");
        assert_eq!(world.lost, [Check::SamDamaged]);
        assert!(world.host.is_dead());
        world.replug();
        world.read().record();
    }
}

/// The read's answer is the one that cannot simply be asked for again: the module has forgotten
/// the card. From the cache, so that the fault can be placed after the card's turn.
#[test]
fn a_damaged_answer_at_any_step_recovers() {
    // Commands of one read: remote card, find, select, answer, two chunks, read, card number.
    for step in 0..8 {
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
    assert_eq!(world.read().check(), "sam-none-ready");
    assert_eq!(world.lost, [Check::SamDamaged]);
    world.replug();
    for _ in 0..CHECKSUM_RETRIES {
        world.faults.inject(Fault::DamageAnswerTo(READ));
    }
    world.read().record();
}

#[test]
fn without_another_module_the_read_of_a_lost_one_fails() {
    type At = fn([u8; 2]) -> Fault;
    let kinds: [(At, Check); 2] =
        [(Fault::SilentAfter, Check::SamTimeout), (Fault::UnplugAt, Check::SamGone)];
    for (fault, check) in kinds {
        for code in COMMANDS {
            let mut world = world();
            world.faults.inject(fault(code));
            let outcome = world.read();
            assert_eq!(outcome.check(), "sam-none-ready", "{code:02x?}");
            assert_eq!(world.lost, [check], "{code:02x?}");
            assert!(outcome.result.expect_err("checked").retry);
            assert!(world.host.is_dead());
            world.replug();
            world.read().record();
        }
    }
}

/// C12: the module dies at each of its commands; the read succeeds with the other one, in one
/// attempt of the reader.
#[test]
fn a_module_that_dies_at_any_command_is_replaced_in_mid_read() {
    type At = fn([u8; 2]) -> Fault;
    let kinds: [At; 2] = [Fault::SilentAfter, Fault::UnplugAt];
    for fault in kinds {
        for code in COMMANDS {
            let mut world = world();
            world.spare.push(Faults::none());
            let apdus = world.card.apdus();
            world.faults.inject(fault(code));
            let outcome = world.read();
            let read_once = outcome.names.iter().filter(|name| **name == "packet").count();
            assert_eq!((world.lost.len(), read_once), (1, 2), "{code:02x?}");
            assert_eq!(world.host_serial(), 100, "the other module finished it");
            assert_eq!(outcome.record(), sample(DocumentType::Citizen), "{code:02x?}");
            assert!(world.card_checked);
            // The card takes part again only if the proof was not there yet.
            let challenges = outcome.names.iter().filter(|name| **name == "card challenge").count();
            let again = usize::from(code == CARD_ANSWER);
            assert_eq!(challenges, 1 + again, "{code:02x?}");
            assert!(world.card.apdus() > apdus);
        }
    }
}

/// From the cache there is no card to take part at all.
#[test]
fn a_read_from_the_cache_survives_its_module_too() {
    for code in [REMOTE_CARD, FIND, SELECT, ENCRYPTED, READ, CARD_NUMBER] {
        let mut world = world();
        world.read().record();
        world.spare.push(Faults::none());
        world.faults.inject(Fault::UnplugAt(code));
        let outcome = world.read();
        outcome.record();
        let expected = ["read begin", "send packets", "packet", "packet", "plaintext"];
        assert_eq!(outcome.names, expected, "{code:02x?}");
    }
}

#[test]
fn modules_are_replaced_only_so_often() {
    for code in COMMANDS {
        let dying = || {
            let faults = Faults::none();
            faults.inject(Fault::UnplugAt(code));
            faults
        };
        let mut world = world();
        world.faults.inject(Fault::UnplugAt(code));
        world.spare = vec![Faults::none(), dying(), dying()];
        let outcome = world.read();
        assert_eq!(outcome.check(), "sam-gone", "{code:02x?}");
        assert_eq!(outcome.server, Some(Err(Check::SamGone)));
        assert_eq!((world.lost.len(), world.spare.len()), (2, 1), "{code:02x?}");
        let mut world = self::world();
        world.faults.inject(Fault::UnplugAt(code));
        world.spare = vec![Faults::none(), dying()];
        world.read().record();
    }
}

/// What blames the card is not tried on every module in turn.
#[test]
fn a_card_that_one_module_refuses_is_not_shown_to_another() {
    let mut world = world();
    world.spare.push(Faults::none());
    world.faults.inject(Fault::RejectCard);
    assert_eq!(world.read().check(), "authentication");
    assert_eq!((world.lost.len(), world.spare.len()), (0, 1));
}

#[test]
fn a_module_that_gives_another_cards_data_is_found_out_and_replaced() {
    let mut world = world();
    world.card.insert(card(DocumentType::Foreigner2017, 2, false));
    world.read().record();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world.faults.inject(Fault::AnotherCardsData);
    let outcome = world.read();
    assert_eq!(outcome.check(), "sam-none-ready");
    assert_eq!(world.lost, [Check::SamOtherCard]);
    assert!(world.host.is_dead(), "it is reset before anybody gets it again");

    let mut world = self::world();
    world.card.insert(card(DocumentType::Foreigner2017, 2, false));
    world.read().record();
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world.faults.inject(Fault::AnotherCardsData);
    world.spare.push(Faults::none());
    let outcome = world.read();
    assert_eq!(outcome.record(), sample(DocumentType::Citizen));
    assert_eq!(outcome.server, Some(Ok(DocumentType::Citizen)));
    assert_eq!(world.lost, [Check::SamOtherCard]);
}

#[test]
fn a_module_that_cannot_tell_whose_data_it_gave_is_used_and_shown_as_such() {
    let mut world = world();
    world.read().record();
    assert!(world.card_checked);
    world.faults.inject(Fault::Unknown(CARD_NUMBER));
    world.read().record();
    assert!(!world.card_checked);

    let required = SamConfig { card_number: CardNumberCheck::Required, ..SamConfig::default() };
    let mut world = World::with(required, CacheMode::MultiCard);
    world.card.insert(card(DocumentType::Citizen, 1, false));
    world.read().record();
    world.faults.inject(Fault::Unknown(CARD_NUMBER));
    world.read();
    assert_eq!(world.lost, [Check::SamFailed]);
}

#[test]
fn garbage_is_skipped_and_a_truncated_answer_times_out() {
    let mut world = world();
    world.faults.inject(Fault::GarbageBeforeAnswer);
    world.read().record();
    world.faults.inject(Fault::TruncatedAnswer);
    world.read();
    assert_eq!(world.lost, [Check::SamTimeout]);
}

#[test]
fn odd_answers_have_their_checks_and_blame_decides_who_lives() {
    let fatal =
        [(Fault::VendorTimeout, Check::SamTimeout), (Fault::UnknownStatus, Check::SamFailed)];
    for (fault, check) in fatal {
        let mut world = world();
        world.faults.inject(fault);
        world.read();
        assert_eq!(world.lost, [check], "{fault:?}");
        assert!(world.host.is_dead());
    }
    let cases = [(Fault::CardNotFound, "card-not-found"), (Fault::RejectCard, "authentication")];
    for (fault, check) in cases {
        let mut world = world();
        world.faults.inject(fault);
        assert_eq!(world.read().check(), check);
        assert!(world.lost.is_empty() && world.host.is_idle(), "{fault:?}");
        world.read().record();
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
        ("index repeats, with other content", |packet| packet.index = 0),
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

/// C10: a reader that leaves a packet out is asked for exactly that one.
#[test]
fn a_packet_that_was_left_out_is_asked_for() {
    for left_out in 0..3 {
        let mut world = World::new();
        world.card.insert(card(DocumentType::Citizen, 1, true));
        world.options.fingerprint = true;
        let mut dropped = false;
        world.tamper = Some(Box::new(move |bytes| match ReaderMessage::decode(bytes) {
            Ok(ReaderMessage::Packet(packet)) if packet.index == left_out && !dropped => {
                dropped = true;
                Vec::new()
            }
            _ => vec![bytes.to_vec()],
        }));
        let outcome = world.read();
        if left_out == 2 {
            // Over a stream nothing tells that more was meant to come.
            assert_eq!(outcome.check(), "peer-timeout");
            assert!(world.host.is_idle());
            continue;
        }
        outcome.record();
        let tail = ["sam proof", "packet", "packet", "resend", "packet", "plaintext"];
        assert!(outcome.names.ends_with(&tail), "{left_out} {:?}", outcome.names);
    }
}

#[test]
fn a_reader_that_never_sends_what_is_asked_for_is_given_up() {
    // It says that there are three, and sends the other two for ever.
    let mut world = World::new();
    world.card.insert(card(DocumentType::Citizen, 1, true));
    world.options.fingerprint = true;
    world.tamper = Some(Box::new(|bytes| match ReaderMessage::decode(bytes) {
        Ok(ReaderMessage::Packet(packet)) if packet.index == 1 => Vec::new(),
        _ => vec![bytes.to_vec()],
    }));
    let outcome = world.read();
    assert_eq!(outcome.check(), "peer-timeout");
    assert_eq!(outcome.names.iter().filter(|name| **name == "resend").count(), 1);
    assert!(world.host.is_idle());
}

#[test]
fn a_message_out_of_turn_kills_the_read() {
    let mut world = world();
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
    // What the card gave may be why: it is not kept for the next read.
    world.tamper = None;
    assert!(world.read().names.contains(&"card challenge"));
    assert!(world.read().names.contains(&"send packets"));
}

#[test]
fn garbage_from_the_reader_kills_the_flow() {
    for garbage in
        [vec![], vec![0x06], vec![0x06, 0], vec![0xFF; 5000], vec![3, 0, 2, 0xFF, 0xFF, 0]]
    {
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
