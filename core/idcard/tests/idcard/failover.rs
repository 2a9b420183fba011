//! The server's flow when SAMs fail under it (C12).

use std::time::Duration;

use countersign_idcard::message::{CardAnswer, ReaderMessage, ServerMessage};
use countersign_idcard::sam::{SamError, SamOperation, SamResult, Sw3};
use countersign_idcard::server::{
    READER_TOTAL_TIMEOUT, READER_TURN_TIMEOUT, ReadPolicy, SAM_ATTEMPTS_MAX, ServerEvent,
    ServerFlow,
};
use countersign_idcard::{Check, Delivery, FlowError, ShortText};

use super::flows::{NOW, encrypted, reader_message, sam_result};

fn server(delivery: Delivery) -> ServerFlow {
    let incident = ShortText::new("inc_7").expect("short");
    ServerFlow::new(NOW, ReadPolicy::default(), delivery, incident)
}

/// The events' kinds in order.
fn events(flow: &mut ServerFlow) -> Vec<&'static str> {
    let name = |event| match event {
        ServerEvent::Begun { .. } => "begun",
        ServerEvent::Sam(SamOperation::Begin { .. }) => "begin",
        ServerEvent::Sam(SamOperation::Answer { .. }) => "answer",
        ServerEvent::Sam(SamOperation::Decrypt(data)) => {
            assert_eq!(data, encrypted(), "the data are kept as they came");
            "decrypt"
        }
        ServerEvent::Sam(SamOperation::Cancel) => "cancel",
        ServerEvent::Sam(SamOperation::Status) => "status",
        ServerEvent::SamLost { check: Check::SamGone } => "lost",
        ServerEvent::SamLost { check } => check.name(),
        ServerEvent::Done { .. } => "done",
        ServerEvent::Failed { check } => check.name(),
    };
    std::iter::from_fn(|| flow.poll_event()).map(name).collect()
}

fn said(flow: &mut ServerFlow) -> Vec<&'static str> {
    std::iter::from_fn(|| flow.poll_transmit())
        .map(|bytes| ServerMessage::decode(&bytes).expect("a message").name())
        .collect()
}

fn heard(flow: &mut ServerFlow, kind: u8) {
    flow.handle(NOW, &reader_message(kind).encode()).expect("in turn");
}

fn sam(flow: &mut ServerFlow, kind: u8) {
    flow.sam_done(NOW, sam_result(kind)).expect("asked for");
}

const BEGIN: u8 = 0;
const BEGIN_CACHED: u8 = 1;
const ANSWER: u8 = 2;
const PACKETS: [u8; 2] = [3, 4];
const CHALLENGE: u8 = 0;
const PROOF: u8 = 1;
const PLAINTEXT: u8 = 2;
const GONE: u8 = 4;

#[test]
fn a_sam_lost_before_its_challenge_troubles_nobody() {
    let mut flow = server(Delivery::Stream);
    heard(&mut flow, BEGIN);
    sam(&mut flow, GONE);
    assert_eq!(events(&mut flow), ["begun", "begin", "lost", "begin"]);
    assert!(said(&mut flow).is_empty() && flow.poll_timeout().is_none());
    sam(&mut flow, CHALLENGE);
    assert_eq!(said(&mut flow), ["card challenge"]);
}

#[test]
fn a_sam_lost_before_its_proof_lets_the_card_answer_anew() {
    for delivery in [Delivery::Stream, Delivery::Datagrams] {
        let mut flow = server(delivery);
        heard(&mut flow, BEGIN);
        sam(&mut flow, CHALLENGE);
        heard(&mut flow, ANSWER);
        sam(&mut flow, GONE);
        assert_eq!(events(&mut flow), ["begun", "begin", "answer", "lost", "begin"]);
        said(&mut flow);
        flow.sam_done(NOW, Ok(SamResult::Challenge([8; 8]))).expect("asked for");
        assert_eq!(said(&mut flow), ["card challenge"]);
        // The answer to the lost SAM's challenge must not reach the other one.
        let late = flow.handle(NOW, &reader_message(ANSWER).encode());
        assert_eq!(late.is_ok(), delivery == Delivery::Datagrams);
        assert!(!events(&mut flow).contains(&"answer"));
        if late.is_err() {
            continue;
        }
        assert_eq!(said(&mut flow), ["card challenge"]);
        let answer = CardAnswer { answer: [6; 8], random: [7; 8] };
        flow.handle(NOW, &ReaderMessage::CardAnswer(answer).encode()).expect("in turn");
        assert_eq!(events(&mut flow), ["answer"]);
        sam(&mut flow, PROOF);
        assert_eq!(said(&mut flow), ["sam proof"]);
    }
}

#[test]
fn a_sam_lost_with_the_data_is_replaced_without_troubling_the_reader() {
    let mut flow = server(Delivery::Stream);
    heard(&mut flow, BEGIN);
    sam(&mut flow, CHALLENGE);
    heard(&mut flow, ANSWER);
    sam(&mut flow, PROOF);
    PACKETS.iter().for_each(|packet| heard(&mut flow, *packet));
    said(&mut flow);
    assert_eq!(events(&mut flow), ["begun", "begin", "answer", "decrypt"]);
    sam(&mut flow, GONE); // while it decrypts
    assert_eq!(events(&mut flow), ["lost", "begin"]);
    sam(&mut flow, GONE); // the next one while it is shown the card
    assert_eq!(events(&mut flow), ["lost", "begin"]);
    sam(&mut flow, CHALLENGE);
    assert_eq!(events(&mut flow), ["decrypt"]);
    assert!(said(&mut flow).is_empty() && flow.poll_timeout().is_none());
    sam(&mut flow, PLAINTEXT);
    assert_eq!((events(&mut flow), said(&mut flow)), (vec!["done"], vec!["plaintext"]));
}

#[test]
fn only_so_many_sams_are_tried_and_the_last_ones_check_is_told() {
    for cached in [false, true] {
        let mut flow = server(Delivery::Stream);
        heard(&mut flow, if cached { BEGIN_CACHED } else { BEGIN });
        if cached {
            PACKETS.iter().for_each(|packet| heard(&mut flow, *packet));
        }
        said(&mut flow);
        for _ in 1..SAM_ATTEMPTS_MAX {
            sam(&mut flow, GONE);
            assert!(!flow.is_over());
        }
        flow.sam_done(NOW, Err(SamError::OtherCard)).expect("asked for");
        let expected = ["begun", "begin", "lost", "begin", "lost", "begin", "sam-other-card"];
        assert_eq!(events(&mut flow), expected);
        assert_eq!(said(&mut flow), ["refused"]);
        assert!(flow.is_over());
    }
}

#[test]
fn what_blames_the_card_or_the_owner_ends_the_read_at_once() {
    let card = SamError::Card { during: "find", status: Sw3::UnknownCardType };
    for (error, check) in [(card, "card-unreadable"), (SamError::NotReady, "sam-failed")] {
        let mut flow = server(Delivery::Stream);
        heard(&mut flow, BEGIN);
        flow.sam_done(NOW, Err(error)).expect("asked for");
        assert_eq!(events(&mut flow), ["begun", "begin", check]);
    }
}

#[test]
fn the_owner_may_find_no_other_sam() {
    let mut flow = server(Delivery::Stream);
    heard(&mut flow, BEGIN);
    events(&mut flow);
    sam(&mut flow, GONE);
    assert!(matches!(flow.poll_event(), Some(ServerEvent::SamLost { .. })));
    flow.refuse(NOW, "sam-none-ready", true, ShortText::new("").expect("short"));
    // Nothing was begun with another one: nothing is cancelled.
    assert!(events(&mut flow).is_empty());
    assert_eq!(said(&mut flow), ["refused"]);
    assert_eq!(flow.sam_done(NOW, sam_result(CHALLENGE)), Err(FlowError::Over));
}

/// Waiting for another SAM is not the reader's time.
#[test]
fn the_readers_time_stands_still_while_a_sam_is_replaced() {
    let mut flow = server(Delivery::Stream);
    heard(&mut flow, BEGIN);
    sam(&mut flow, CHALLENGE);
    heard(&mut flow, ANSWER);
    let wait = READER_TOTAL_TIMEOUT;
    sam(&mut flow, GONE);
    flow.sam_done(NOW.plus(wait), sam_result(CHALLENGE)).expect("asked for");
    assert_eq!(flow.poll_timeout(), Some(NOW.plus(wait + READER_TURN_TIMEOUT)));
    // All of its turns together are still bounded.
    let answered = NOW.plus(wait + READER_TURN_TIMEOUT - Duration::from_secs(1));
    let answer = CardAnswer { answer: [6; 8], random: [7; 8] };
    flow.handle(answered, &ReaderMessage::CardAnswer(answer).encode()).expect("in turn");
    flow.sam_done(answered, sam_result(PROOF)).expect("asked for");
    let packet = answered.plus(READER_TURN_TIMEOUT - Duration::from_secs(1));
    flow.handle(packet, &reader_message(PACKETS[0]).encode()).expect("in turn");
    assert_eq!(flow.poll_timeout(), Some(NOW.plus(wait + READER_TOTAL_TIMEOUT)));
}
