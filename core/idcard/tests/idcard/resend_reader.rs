//! What the reader says again, when, and how often at most: every timer in virtual time, and
//! servers that lie or flood.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::cache::ReaderCache;
use countersign_idcard::card::{CardDone, CardWork};
use countersign_idcard::message::{CardAnswer, Missing, ReaderMessage, ServerMessage};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::{
    Bytes, Delivery, ENCRYPTED_LEN_MAX, EncryptedData, FlowError, MESSAGES_MAX, Packet,
    REPEAT_FIRST, REPEAT_MAX, RESEND_AFTER, RESENDS_MAX,
};

use super::flows::{NOW, cache, configuration, rng, server_message as said};

const CHALLENGE: u8 = 0;
const PLAINTEXT: u8 = 3;
const MILLISECOND: Duration = Duration::from_millis(1);

fn reader(delivery: Delivery, cached: bool) -> (ReaderFlow, ReaderCache) {
    let mut cache = cache();
    if cached {
        let bytes: Vec<u8> = (0..ENCRYPTED_LEN_MAX).map(|at| (at % 251) as u8).collect();
        let data = EncryptedData::new(bytes.into()).expect("a possible length");
        cache.store_encrypted(&configuration(), &data, false);
    }
    let options = ReadOptions { delivery, ..ReadOptions::default() };
    match ReaderFlow::begin(NOW, &mut cache, &configuration(), [1; 16], options) {
        ReadStart::Started(flow) => (flow, cache),
        ReadStart::Answered(_) => panic!("no plaintext is cached"),
    }
}

fn spoken(flow: &mut ReaderFlow) -> Vec<ReaderMessage> {
    std::iter::from_fn(|| flow.poll_transmit())
        .map(|bytes| ReaderMessage::decode(&bytes).expect("a message"))
        .collect()
}

fn indices(flow: &mut ReaderFlow) -> Vec<u8> {
    let index = |message| match message {
        ReaderMessage::Packet(packet) => packet.index,
        other => panic!("{other:?}"),
    };
    spoken(flow).into_iter().map(index).collect()
}

/// A reader that has sent its three packets at `NOW`.
fn sent(
    delivery: Delivery,
) -> (ReaderFlow, impl FnMut(&mut ReaderFlow, UnixTime, &ServerMessage) -> Result<(), FlowError>) {
    let (mut flow, mut cache) = reader(delivery, true);
    let mut hear = move |flow: &mut ReaderFlow, now, message: &ServerMessage| {
        flow.handle(now, &mut rng(), &mut cache, &message.encode())
    };
    spoken(&mut flow);
    hear(&mut flow, NOW, &ServerMessage::SendPackets).expect("in turn");
    assert_eq!(indices(&mut flow), [0, 1, 2]);
    (flow, hear)
}

fn missing(bits: u8) -> ServerMessage {
    ServerMessage::Resend(Missing::new(bits).expect("possible"))
}

#[test]
fn a_reader_says_its_message_again_until_it_hears_the_next() {
    let (mut flow, mut cache) = reader(Delivery::Datagrams, false);
    let begin = spoken(&mut flow);
    let (mut now, mut pause) = (NOW, REPEAT_FIRST);
    for _ in 0..5 {
        now = now.plus(pause);
        assert_eq!(flow.poll_timeout(), Some(now));
        flow.handle_timeout(now.minus(MILLISECOND));
        assert!(flow.poll_transmit().is_none());
        flow.handle_timeout(now);
        assert_eq!(spoken(&mut flow), begin);
        pause = (pause * 2).min(REPEAT_MAX);
    }
    // While the card is at work there is nothing to say, and a repeat of the server's is no news.
    let mut hear = |flow: &mut ReaderFlow, now, message: &ServerMessage| {
        flow.handle(now, &mut rng(), &mut cache, &message.encode())
    };
    hear(&mut flow, now, &said(CHALLENGE)).expect("in turn");
    hear(&mut flow, now, &said(CHALLENGE)).expect("a repeat");
    let event = flow.poll_event();
    assert!(matches!(event, Some(ReaderEvent::Card(CardWork::Authenticate { .. }))));
    assert!(flow.poll_event().is_none());
    assert_eq!(flow.poll_timeout(), Some(NOW.plus(ReadOptions::default().timeout)));
    let done = CardDone::Answer(CardAnswer { answer: [3; 8], random: [4; 8] });
    flow.card_done(now, &mut cache, Ok(done)).expect("asked for");
    let answer = spoken(&mut flow);
    assert!(matches!(answer.as_slice(), [ReaderMessage::CardAnswer(_)]));
    let mut hear = |flow: &mut ReaderFlow, now, message: &ServerMessage| {
        flow.handle(now, &mut rng(), &mut cache, &message.encode())
    };
    hear(&mut flow, now, &said(CHALLENGE)).expect("it has not heard");
    assert_eq!(spoken(&mut flow), answer);

    // Over a stream nothing is said twice.
    let (flow, _) = reader(Delivery::Stream, false);
    assert_eq!(flow.poll_timeout(), Some(NOW.plus(ReadOptions::default().timeout)));
}

#[test]
fn a_reader_sends_exactly_what_is_asked_for_and_nothing_else() {
    for delivery in [Delivery::Stream, Delivery::Datagrams] {
        let (mut flow, mut hear) = sent(delivery);
        for (bits, expected) in
            [(0b001, &[0][..]), (0b110, &[1, 2]), (0b111, &[0, 1, 2]), (0b100, &[2])]
        {
            hear(&mut flow, NOW, &missing(bits)).expect("they exist");
            assert_eq!(indices(&mut flow), expected);
        }
    }
}

#[test]
fn a_server_that_asks_for_what_does_not_exist_or_without_end_is_left() {
    for delivery in [Delivery::Stream, Delivery::Datagrams] {
        for bits in [0b1000, 0b1001, 0b1111] {
            let (mut flow, mut hear) = sent(delivery);
            let result = hear(&mut flow, NOW, &missing(bits));
            assert!(matches!(result, Err(FlowError::Packets(_))), "{bits:#b}");
            let event = flow.poll_event();
            assert!(matches!(event, Some(ReaderEvent::Failed(f)) if f.check == "packets"));
            assert!(flow.poll_transmit().is_none());
        }
        let (mut flow, mut hear) = sent(delivery);
        for _ in 0..RESENDS_MAX {
            hear(&mut flow, NOW, &missing(0b010)).expect("within the bound");
            assert_eq!(indices(&mut flow), [1]);
        }
        let result = hear(&mut flow, NOW, &missing(0b010));
        assert!(matches!(result, Err(FlowError::Flood { what: "resend", .. })));
        let event = flow.poll_event();
        assert!(matches!(event, Some(ReaderEvent::Failed(f)) if f.check == "peer-flood"));
    }
    // Before there are packets, too.
    let (mut flow, mut cache) = reader(Delivery::Datagrams, true);
    let result = flow.handle(NOW, &mut rng(), &mut cache, &missing(1).encode());
    assert!(matches!(result, Err(FlowError::Unexpected { message: "resend", .. })));
}

/// The server repeats its turn while it has no packet at all; they may be on their way.
#[test]
fn a_repeated_turn_brings_all_packets_again_only_after_a_while() {
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    let soon = NOW.plus(REPEAT_FIRST).minus(MILLISECOND);
    hear(&mut flow, soon, &ServerMessage::SendPackets).expect("a repeat");
    assert!(flow.poll_transmit().is_none());
    hear(&mut flow, NOW.plus(REPEAT_FIRST), &ServerMessage::SendPackets).expect("all were lost");
    assert_eq!(indices(&mut flow), [0, 1, 2]);
    hear(&mut flow, NOW.plus(REPEAT_FIRST), &ServerMessage::SendPackets).expect("a repeat");
    assert!(flow.poll_transmit().is_none());
    // Once it has named some, it has the others.
    hear(&mut flow, NOW.plus(REPEAT_FIRST), &missing(0b010)).expect("they exist");
    assert_eq!(indices(&mut flow), [1]);
    hear(&mut flow, NOW.plus(10 * REPEAT_MAX), &ServerMessage::SendPackets).expect("very late");
    assert!(flow.poll_transmit().is_none());
}

#[test]
fn a_reader_asks_for_its_result_and_for_exactly_the_parts_that_are_missing() {
    let parts: Vec<_> = {
        let whole = said(PLAINTEXT).encode();
        let total = 2;
        let part = |(index, chunk)| {
            let data = Bytes::new(chunk).expect("a packet at most");
            ServerMessage::ResultPart(Packet { index, total, data })
        };
        (0..).zip(whole[1..].chunks(1024)).map(part).collect()
    };
    let wanted = |flow: &mut ReaderFlow| match spoken(flow).as_slice() {
        [ReaderMessage::ResendResult(missing)] => missing.bits(),
        other => panic!("{other:?}"),
    };
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    let (mut now, mut pause) = (NOW, REPEAT_FIRST);
    for _ in 0..4 {
        now = now.plus(pause);
        assert_eq!(flow.poll_timeout(), Some(now));
        flow.handle_timeout(now);
        assert_eq!(wanted(&mut flow), 0b1111);
        pause = (pause * 2).min(REPEAT_MAX);
    }
    hear(&mut flow, now, &parts[1]).expect("in any order");
    hear(&mut flow, now, &parts[1]).expect("a repeat");
    assert_eq!(flow.poll_timeout(), Some(now.plus(RESEND_AFTER)));
    now = now.plus(RESEND_AFTER);
    flow.handle_timeout(now);
    assert_eq!(wanted(&mut flow), 0b01);
    assert_eq!(flow.poll_timeout(), Some(now.plus(REPEAT_FIRST)));
    hear(&mut flow, now, &parts[0]).expect("asked for");
    assert!(matches!(flow.poll_event(), Some(ReaderEvent::Plaintext(_))));
    assert_eq!(spoken(&mut flow), [ReaderMessage::Received]);
    assert!(flow.is_over());

    // Each link has its own form of the result, and parts must fit.
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    assert!(matches!(hear(&mut flow, NOW, &said(PLAINTEXT)), Err(FlowError::Unexpected { .. })));
    let (mut flow, mut hear) = sent(Delivery::Stream);
    assert!(matches!(hear(&mut flow, NOW, &parts[0]), Err(FlowError::Unexpected { .. })));
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    let part = |index, total, data: &[u8]| {
        let data = Bytes::new(data).expect("a packet at most");
        ServerMessage::ResultPart(Packet { index, total, data })
    };
    hear(&mut flow, NOW, &parts[0]).expect("fits");
    let lie = hear(&mut flow, NOW, &part(1, 3, &[0; 1024]));
    assert!(matches!(lie, Err(FlowError::Packets(_))));
    // Whole, and still no plaintext.
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    let short = hear(&mut flow, NOW, &part(0, 1, &[0; 20]));
    assert!(matches!(short, Err(FlowError::Malformed(_))));
}

#[test]
fn a_reader_takes_only_so_many_messages() {
    let (mut flow, mut hear) = sent(Delivery::Datagrams);
    for _ in 2..=MESSAGES_MAX {
        hear(&mut flow, NOW, &ServerMessage::SendPackets).expect("within the bound");
        assert!(flow.poll_transmit().is_none());
    }
    let over = hear(&mut flow, NOW, &ServerMessage::SendPackets);
    assert_eq!(over, Err(FlowError::Flood { what: "messages", limit: MESSAGES_MAX }));
}
