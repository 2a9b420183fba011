//! What the server asks for and says again, when, and how often at most (C9, C10): every timer in
//! virtual time, and readers that lie, flood or never finish.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::message::{
    AbortReason, Missing, ReadBegin, ReaderMessage, ServerMessage, Source,
};
use countersign_idcard::server::{LAST_WORDS_KEPT, ReadPolicy, ServerEvent, ServerFlow};
use countersign_idcard::{
    Bytes, Check, Delivery, ENCRYPTED_LEN_MAX, EncryptedData, FlowError, MESSAGES_MAX, Packet,
    REPEAT_FIRST, REPEAT_MAX, REPEATS_MAX, RESEND_AFTER, RESENDS_MAX, RESULT_RESENDS_MAX,
    ShortText,
};

use super::flows::{NOW, configuration, reader_message, sam_result};

const BEGIN: u8 = 0;
const BEGIN_CACHED: u8 = 1;
const ANSWER: u8 = 2;
const CHALLENGE: u8 = 0;
const PROOF: u8 = 1;
const PLAINTEXT: u8 = 2;
const MILLISECOND: Duration = Duration::from_millis(1);

fn server(delivery: Delivery) -> ServerFlow {
    server_with(ReadPolicy::default(), delivery)
}

fn server_with(policy: ReadPolicy, delivery: Delivery) -> ServerFlow {
    ServerFlow::new(NOW, policy, delivery, ShortText::new("inc_7").expect("short"))
}

/// A policy that leaves all the time in the world, so that other bounds show.
fn patient() -> ReadPolicy {
    let long = Duration::from_secs(100_000);
    ReadPolicy { reader_turn: long, reader_total: long, ..ReadPolicy::default() }
}

/// Three packets.
fn packets() -> Vec<Packet> {
    let bytes: Vec<u8> = (0..ENCRYPTED_LEN_MAX).map(|at| (at % 251) as u8).collect();
    EncryptedData::new(bytes.into()).expect("a possible length").packets()
}

fn packet(index: usize) -> Vec<u8> {
    ReaderMessage::Packet(packets().swap_remove(index)).encode().to_vec()
}

fn names(flow: &mut ServerFlow) -> Vec<&'static str> {
    std::iter::from_fn(|| flow.poll_transmit())
        .map(|bytes| ServerMessage::decode(&bytes).expect("a message").name())
        .collect()
}

fn asked(flow: &mut ServerFlow) -> u8 {
    let bytes = flow.poll_transmit().expect("it asks");
    assert!(flow.poll_transmit().is_none());
    match ServerMessage::decode(&bytes) {
        Ok(ServerMessage::Resend(missing)) => missing.bits(),
        other => panic!("{other:?}"),
    }
}

fn events(flow: &mut ServerFlow) -> Vec<ServerEvent> {
    std::iter::from_fn(|| flow.poll_event()).collect()
}

/// A read from the cache whose packets are due; the server has said so at `NOW`.
fn expecting_packets(policy: ReadPolicy, delivery: Delivery) -> ServerFlow {
    let mut flow = server_with(policy, delivery);
    flow.handle(NOW, &reader_message(BEGIN_CACHED).encode()).expect("in turn");
    assert_eq!(names(&mut flow), ["send packets"]);
    flow
}

/// A read over datagrams that is done at `NOW`; its result was sent once.
fn done() -> ServerFlow {
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Datagrams);
    for index in 0..3 {
        flow.handle(NOW, &packet(index)).expect("in turn");
    }
    flow.sam_done(NOW, sam_result(CHALLENGE)).expect("asked for");
    flow.sam_done(NOW, sam_result(PLAINTEXT)).expect("asked for");
    assert!(matches!(events(&mut flow).last(), Some(ServerEvent::Done { .. })));
    assert_eq!(names(&mut flow), ["result part"; 2]);
    flow
}

/// Lets time pass to the next timer, which must be after exactly `pause`.
fn wait(flow: &mut ServerFlow, now: &mut UnixTime, pause: Duration) {
    let due = flow.poll_timeout().expect("a timer");
    assert_eq!(due.since(*now), pause);
    flow.handle_timeout(due.minus(MILLISECOND));
    assert!(flow.poll_transmit().is_none(), "too early");
    flow.handle_timeout(due);
    *now = due;
}

#[test]
fn a_server_says_its_turn_again_with_growing_pauses_until_the_turn_ends() {
    let mut flow = server(Delivery::Datagrams);
    flow.handle(NOW, &reader_message(BEGIN).encode()).expect("in turn");
    assert_eq!(flow.poll_timeout(), None, "the SAM's turn");
    flow.sam_done(NOW, sam_result(CHALLENGE)).expect("asked for");
    assert_eq!(names(&mut flow), ["card challenge"]);
    let (mut now, mut pause) = (NOW, REPEAT_FIRST);
    let turn_ends = NOW.plus(ReadPolicy::default().reader_turn);
    while now.plus(pause) < turn_ends {
        wait(&mut flow, &mut now, pause);
        assert_eq!(names(&mut flow), ["card challenge"]);
        pause = (pause * 2).min(REPEAT_MAX);
    }
    assert_eq!(flow.poll_timeout(), Some(turn_ends));
    flow.handle_timeout(turn_ends);
    assert_eq!(names(&mut flow), ["refused"]);
    let failed = |event: &_| matches!(event, ServerEvent::Failed { check: Check::PeerTimeout });
    assert!(events(&mut flow).iter().any(failed));

    // Over a stream nothing is said twice.
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Stream);
    assert_eq!(flow.poll_timeout(), Some(turn_ends));
    flow.handle_timeout(turn_ends.minus(MILLISECOND));
    assert!(flow.poll_transmit().is_none());
}

#[test]
fn a_gap_is_asked_for_when_nothing_new_has_come_for_a_moment() {
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Datagrams);
    let mut now = NOW.plus(10 * MILLISECOND);
    flow.handle(now, &packet(2)).expect("in any order");
    assert_eq!(flow.poll_timeout(), Some(now.plus(RESEND_AFTER)), "the last one says nothing yet");
    now = now.plus(RESEND_AFTER - MILLISECOND);
    flow.handle(now, &packet(0)).expect("only overtaken");
    // What is here already is no sign that more will come.
    flow.handle(now.plus(50 * MILLISECOND), &packet(0)).expect("a repeat");
    wait(&mut flow, &mut now, RESEND_AFTER);
    assert_eq!((asked(&mut flow), flow.resent()), (0b010, 1));
    // The question may be lost too.
    wait(&mut flow, &mut now, REPEAT_FIRST);
    assert_eq!((asked(&mut flow), flow.resent()), (0b010, 2));
    wait(&mut flow, &mut now, 2 * REPEAT_FIRST);
    assert_eq!(asked(&mut flow), 0b010);
    flow.handle(now, &packet(1)).expect("asked for");
    assert!(matches!(
        events(&mut flow).as_slice(),
        [ServerEvent::Begun { .. }, ServerEvent::Sam(_)]
    ));
    assert_eq!(flow.poll_timeout(), None);
}

#[test]
fn over_a_stream_a_gap_is_asked_for_at_once() {
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Stream);
    flow.handle(NOW, &packet(2)).expect("in any order");
    assert_eq!(asked(&mut flow), 0b011);
    flow.handle(NOW, &packet(1)).expect("asked for");
    assert_eq!(asked(&mut flow), 0b001, "what was asked for last ended with a gap");
    flow.handle(NOW, &packet(1)).expect("a repeat");
    assert!(flow.poll_transmit().is_none());
    flow.handle(NOW, &packet(0)).expect("asked for");
    assert!(matches!(events(&mut flow).last(), Some(ServerEvent::Sam(_))));
    assert_eq!(flow.resent(), 3);
    // It was asked for twice and may come twice.
    flow.handle(NOW, &packet(0)).expect("late");
    assert!(!flow.is_over());

    // Nobody asked this one for anything.
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Stream);
    (0..3).for_each(|index| flow.handle(NOW, &packet(index)).expect("in turn"));
    let late = flow.handle(NOW, &packet(0));
    assert!(matches!(late, Err(FlowError::Unexpected { message: "packet", .. })));
}

#[test]
fn a_reader_that_never_sends_what_is_missing_is_given_up() {
    let mut flow = expecting_packets(patient(), Delivery::Datagrams);
    let mut now = NOW;
    flow.handle(now, &packet(0)).expect("in turn");
    for round in 0..RESENDS_MAX {
        now = flow.poll_timeout().expect("a timer");
        flow.handle_timeout(now);
        assert_eq!(asked(&mut flow), 0b110, "{round}");
    }
    flow.handle_timeout(flow.poll_timeout().expect("a timer"));
    assert_eq!(names(&mut flow), ["refused"]);
    let failed = |event: &_| matches!(event, ServerEvent::Failed { check: Check::Packets });
    assert!(events(&mut flow).iter().any(failed));
    // And one that sends nothing at all, after its turn.
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Datagrams);
    while !flow.is_decided() {
        flow.handle_timeout(flow.poll_timeout().expect("a timer"));
    }
    let failed = |event: &_| matches!(event, ServerEvent::Failed { check: Check::PeerTimeout });
    assert!(events(&mut flow).iter().any(failed));
    assert!(names(&mut flow).len() < 20);
}

#[test]
fn a_reader_that_lies_about_its_packets_is_refused() {
    type Alter = fn(&mut Packet);
    let lies: [(&str, Alter); 6] = [
        ("other total", |packet| packet.total = 2),
        ("a total of none", |packet| packet.total = 0),
        ("more than any card has", |packet| packet.total = 4),
        ("an index beyond the total", |packet| packet.index = 3),
        ("other content", |packet| packet.index = 0),
        ("too short", |packet| packet.data = Bytes::new(&[1; 9]).expect("fits")),
    ];
    for (name, alter) in lies {
        for delivery in [Delivery::Stream, Delivery::Datagrams] {
            let mut flow = expecting_packets(ReadPolicy::default(), delivery);
            flow.handle(NOW, &packet(0)).expect("in turn");
            let mut lie = packets().swap_remove(1);
            alter(&mut lie);
            let result = flow.handle(NOW, &ReaderMessage::Packet(lie).encode());
            assert!(matches!(result, Err(FlowError::Packets(_))), "{name}");
            assert_eq!(names(&mut flow), ["refused"], "{name}");
            assert!(flow.is_over());
        }
    }
}

#[test]
fn a_server_takes_only_so_many_messages() {
    let flood: [(&str, Vec<u8>); 3] = [
        ("packets", packet(0)),
        ("begins", reader_message(BEGIN_CACHED).encode().to_vec()),
        ("questions", ReaderMessage::ResendResult(Missing::ALL).encode().to_vec()),
    ];
    for (name, message) in flood {
        let mut flow = expecting_packets(patient(), Delivery::Datagrams);
        let mut sent = 0;
        for _ in 1..MESSAGES_MAX {
            flow.handle(NOW, &message).expect("within the bound");
            sent += names(&mut flow).len();
        }
        let over = flow.handle(NOW, &message);
        let expected = FlowError::Flood { what: "messages", limit: MESSAGES_MAX };
        assert_eq!(over, Err(expected), "{name}");
        assert_eq!(expected.check(), Check::PeerFlood);
        assert!(sent <= usize::from(MESSAGES_MAX), "{name}: {sent} answers");
        assert!(flow.is_over());
    }
}

/// Repeats on both sides add up: what the timer says again and what the reader asks for again.
#[test]
fn a_reader_that_only_repeats_itself_costs_the_read_and_nothing_else() {
    let mut flow = expecting_packets(patient(), Delivery::Datagrams);
    let mut now = NOW;
    for _ in 0..REPEATS_MAX {
        now = now.plus(REPEAT_MAX);
        flow.handle_timeout(now);
    }
    let begin = reader_message(BEGIN_CACHED).encode();
    for _ in 1..MESSAGES_MAX {
        flow.handle(now, &begin).expect("within the bound");
    }
    let over = flow.handle(now, &begin);
    assert!(matches!(over, Err(FlowError::Flood { what: "messages", .. })));
    assert!(flow.is_over());
}

#[test]
fn a_repeat_is_answered_with_what_was_said_or_ignored() {
    let begin = || reader_message(BEGIN).encode();
    let answer = || reader_message(ANSWER).encode();
    let mut flow = server(Delivery::Datagrams);
    flow.handle(NOW, &begin()).expect("in turn");
    flow.handle(NOW, &begin()).expect("the SAM is still at it");
    assert!(flow.poll_transmit().is_none());
    flow.sam_done(NOW, sam_result(CHALLENGE)).expect("asked for");
    flow.handle(NOW, &begin()).expect("it has not heard");
    assert_eq!(names(&mut flow), ["card challenge"; 2]);
    flow.handle(NOW, &answer()).expect("in turn");
    for late in [begin(), answer()] {
        flow.handle(NOW, &late).expect("the SAM is still at it");
        assert!(flow.poll_transmit().is_none());
    }
    flow.sam_done(NOW, sam_result(PROOF)).expect("asked for");
    flow.handle(NOW, &begin()).expect("very late");
    assert_eq!(names(&mut flow), ["sam proof"]);
    flow.handle(NOW, &answer()).expect("it has not heard");
    assert_eq!(names(&mut flow), ["sam proof"]);
    flow.handle(NOW, &packet(0)).expect("in turn");
    flow.handle(NOW, &answer()).expect("late: it has the proof");
    assert!(flow.poll_transmit().is_none());
    let started = events(&mut flow);
    let begun = |event: &&ServerEvent| matches!(event, ServerEvent::Begun { .. });
    assert_eq!(started.iter().filter(begun).count(), 1);

    // Another read is not a repeat, nor is anything over a stream.
    let other =
        ReadBegin { read_id: [9; 16], configuration: configuration(), source: Source::Card };
    let other = flow.handle(NOW, &ReaderMessage::ReadBegin(other).encode());
    assert!(matches!(other, Err(FlowError::Unexpected { message: "read begin", .. })));
    let mut flow = server(Delivery::Stream);
    flow.handle(NOW, &begin()).expect("in turn");
    assert!(matches!(flow.handle(NOW, &begin()), Err(FlowError::Unexpected { .. })));
}

#[test]
fn a_result_is_kept_for_a_while_and_given_part_by_part() {
    let ask =
        |bits| ReaderMessage::ResendResult(Missing::new(bits).expect("possible")).encode().to_vec();
    let mut flow = done();
    assert!(flow.is_decided() && !flow.is_over());
    let later = NOW.plus(REPEAT_FIRST);
    // Whoever has nothing may have asked before the parts could arrive.
    flow.handle(later.minus(MILLISECOND), &ask(0b1111)).expect("early");
    assert!(flow.poll_transmit().is_none());
    flow.handle(later, &ask(0b1111)).expect("lost");
    assert_eq!(names(&mut flow), ["result part"; 2]);
    flow.handle(later, &ask(0b0010)).expect("lost");
    let part = flow.poll_transmit().expect("one part");
    assert!(
        matches!(ServerMessage::decode(&part), Ok(ServerMessage::ResultPart(p)) if p.index == 1)
    );
    assert!(flow.poll_transmit().is_none());
    flow.handle(later, &ask(0b1000)).expect("there is none such");
    assert!(flow.poll_transmit().is_none());
    // Late repeats of what is long done begin nothing.
    for late in [packet(1), reader_message(BEGIN_CACHED).encode().to_vec()] {
        flow.handle(later, &late).expect("late");
    }
    assert!(flow.poll_transmit().is_none() && flow.poll_event().is_none());

    let until = NOW.plus(LAST_WORDS_KEPT);
    assert_eq!(flow.poll_timeout(), Some(until));
    flow.handle_timeout(until.minus(MILLISECOND));
    assert!(!flow.is_over());
    flow.handle_timeout(until);
    assert!(flow.is_over() && flow.poll_timeout().is_none());
    let mut flow = done();
    assert_eq!(flow.handle(until, &ask(0b0001)), Err(FlowError::Over), "whatever woke it");
    assert!(flow.poll_transmit().is_none());
}

#[test]
fn a_result_goes_when_it_is_received_and_when_another_read_begins() {
    let ask = ReaderMessage::ResendResult(Missing::ALL).encode();
    let late = NOW.plus(REPEAT_FIRST);
    for end in [ReaderMessage::Received, ReaderMessage::Abort(AbortReason::Cancelled)] {
        let mut flow = done();
        for _ in 0..2 {
            flow.handle(NOW, &end.encode()).expect("may come twice");
            flow.handle(late, &ask).expect("late");
            assert!(flow.poll_transmit().is_none() && flow.poll_event().is_none());
        }
    }
    let other =
        ReadBegin { read_id: [9; 16], configuration: configuration(), source: Source::Card };
    let other = ReaderMessage::ReadBegin(other).encode();
    let mut flow = done();
    assert_eq!(flow.handle(NOW, &other), Err(FlowError::Over));
    assert_eq!(flow.handle(late, &ask), Err(FlowError::Over));
    // Whoever sends what is no message gets nothing more, and the read stays done.
    let mut flow = done();
    assert!(matches!(flow.handle(NOW, &[0xFF]), Err(FlowError::Malformed(_))));
    assert!(flow.is_over() && flow.poll_transmit().is_none() && flow.poll_event().is_none());
    let mut flow = done();
    flow.reader_gone();
    assert!(flow.is_over() && flow.poll_event().is_none());
}

#[test]
fn a_result_is_sent_only_so_often() {
    let ask = ReaderMessage::ResendResult(Missing::new(0b0011).expect("possible")).encode();
    let mut flow = done();
    for _ in 0..RESULT_RESENDS_MAX {
        flow.handle(NOW, &ask).expect("within the bound");
        assert_eq!(names(&mut flow).len(), 2);
    }
    let limit = RESULT_RESENDS_MAX.into();
    assert_eq!(flow.handle(NOW, &ask), Err(FlowError::Flood { what: "resend result", limit }));
    assert!(flow.is_over() && flow.poll_transmit().is_none() && flow.poll_event().is_none());
}

#[test]
fn a_result_that_could_not_be_recorded_is_withheld() {
    let none = || ShortText::new("").expect("short");
    for delivery in [Delivery::Stream, Delivery::Datagrams] {
        let mut flow = expecting_packets(ReadPolicy::default(), delivery);
        (0..3).for_each(|index| flow.handle(NOW, &packet(index)).expect("in turn"));
        flow.sam_done(NOW, sam_result(CHALLENGE)).expect("asked for");
        flow.sam_done(NOW, sam_result(PLAINTEXT)).expect("asked for");
        assert!(matches!(events(&mut flow).last(), Some(ServerEvent::Done { .. })));
        flow.withhold(NOW, "unavailable", true, none());
        assert_eq!(names(&mut flow), ["refused"]);
        assert!(flow.poll_event().is_none());
        let ask = ReaderMessage::ResendResult(Missing::ALL).encode();
        let asked = flow.handle(NOW.plus(REPEAT_FIRST), &ask);
        assert_eq!(asked.is_ok(), delivery == Delivery::Datagrams);
        let expected: &[&str] = if asked.is_ok() { &["refused"] } else { &[] };
        assert_eq!(names(&mut flow), expected);
    }
    // Before the end there is nothing to withhold.
    let mut flow = expecting_packets(ReadPolicy::default(), Delivery::Stream);
    flow.withhold(NOW, "unavailable", true, none());
    assert!(flow.poll_transmit().is_none() && !flow.is_over());
}

#[test]
fn a_refusal_is_said_again_to_whoever_has_not_heard_it() {
    let mut flow = server(Delivery::Datagrams);
    flow.handle(NOW, &reader_message(BEGIN).encode()).expect("in turn");
    flow.refuse(NOW, "sam-busy", true, ShortText::new("").expect("short"));
    assert_eq!(names(&mut flow), ["refused"]);
    events(&mut flow);
    flow.handle(NOW, &reader_message(BEGIN).encode()).expect("it has not heard");
    assert_eq!(names(&mut flow), ["refused"]);
    assert!(flow.poll_event().is_none(), "the read is decided once");
}
