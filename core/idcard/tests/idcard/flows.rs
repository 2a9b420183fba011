//! The two flow machines on their own: every input out of turn, in every state.

use std::time::Duration;

use countersign_crypto::{Secret, UnixTime, rust_crypto};
use countersign_idcard::cache::{CacheMode, ReaderCache};
use countersign_idcard::card::{CardDone, CardError, CardWork};
use countersign_idcard::message::{
    AbortReason, CardAnswer, Plaintext, ReadBegin, ReaderMessage, Refused, ServerMessage, Source,
};
use countersign_idcard::reader::{ReadOptions, ReadStart, ReaderEvent, ReaderFlow};
use countersign_idcard::sam::{SamError, SamOperation, SamResult};
use countersign_idcard::server::{
    READER_TOTAL_TIMEOUT, READER_TURN_TIMEOUT, ReadPolicy, ServerEvent, ServerFlow,
};
use countersign_idcard::{
    Check, Configuration, Delivery, ENCRYPTED_BASE_LEN, EncryptedData, FlowError, PlainData,
    ShortText,
};
use proptest::prelude::*;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub(crate) const NOW: UnixTime = UnixTime::from_secs(1);

pub(crate) fn configuration() -> Configuration {
    Configuration::new([1; 32])
}

pub(crate) fn cache() -> ReaderCache {
    ReaderCache::new(CacheMode::MultiCard, rust_crypto::provider())
}

pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(1)
}

pub(crate) fn encrypted() -> EncryptedData {
    EncryptedData::new(vec![1; ENCRYPTED_BASE_LEN].into()).expect("a possible length")
}

/// A plaintext of blanks: a citizen's record by its flag, which is all that the server looks at.
pub(crate) fn plain(flag: u8) -> PlainData {
    let mut text: Vec<u8> = [0x20, 0x00].repeat(128);
    text[248] = flag;
    PlainData::new(Secret::new(text), Secret::new(vec![0; 1024]), None).expect("lengths fit")
}

fn reader(cache: &mut ReaderCache) -> ReaderFlow {
    match ReaderFlow::begin(NOW, cache, &configuration(), [1; 16], ReadOptions::default()) {
        ReadStart::Started(flow) => flow,
        ReadStart::Answered(_) => panic!("nothing is cached"),
    }
}

fn server() -> ServerFlow {
    let incident = ShortText::new("inc_7").expect("short");
    ServerFlow::new(NOW, ReadPolicy::default(), Delivery::Stream, incident)
}

pub(crate) fn server_message(kind: u8) -> ServerMessage {
    match kind {
        0 => ServerMessage::CardChallenge([1; 8]),
        1 => ServerMessage::SamProof([2; 8]),
        2 => ServerMessage::SendPackets,
        3 => ServerMessage::Plaintext(Plaintext { data: plain(0x20), cache_plaintext: true }),
        _ => ServerMessage::Refused(Refused::new(
            ShortText::new("sam-gone").expect("short"),
            true,
            ShortText::new("").expect("short"),
        )),
    }
}

pub(crate) fn reader_message(kind: u8) -> ReaderMessage {
    let begin = |source| ReadBegin { read_id: [1; 16], configuration: configuration(), source };
    match kind {
        0 => ReaderMessage::ReadBegin(begin(Source::Card)),
        1 => ReaderMessage::ReadBegin(begin(Source::Cache)),
        2 => ReaderMessage::CardAnswer(CardAnswer { answer: [3; 8], random: [4; 8] }),
        3 => ReaderMessage::Packet(encrypted().packets().remove(0)),
        4 => ReaderMessage::Packet(encrypted().packets().remove(1)),
        _ => ReaderMessage::Abort(AbortReason::Cancelled),
    }
}

pub(crate) fn sam_result(kind: u8) -> Result<SamResult, SamError> {
    match kind {
        0 => Ok(SamResult::Challenge([1; 8])),
        1 => Ok(SamResult::Proof([2; 8])),
        2 => Ok(SamResult::Plaintext { data: plain(0x20), card_checked: true }),
        3 => Ok(SamResult::Cancelled),
        _ => Err(SamError::Gone),
    }
}

#[test]
fn a_reader_dies_of_any_message_out_of_turn() {
    // Card read: the challenge is due.
    for kind in [1, 2, 3] {
        let mut cache = cache();
        let mut flow = reader(&mut cache);
        let _begin = flow.poll_transmit();
        let message = server_message(kind).encode();
        let result = flow.handle(NOW, &mut rng(), &mut cache, &message);
        assert!(matches!(result, Err(FlowError::Unexpected { awaited: "card challenge", .. })));
        let Some(ReaderEvent::Failed(failure)) = flow.poll_event() else { panic!("silent") };
        assert_eq!(failure.check, "message-unexpected");
        assert!(flow.is_over() && flow.poll_timeout().is_none());
        let again = flow.handle(NOW, &mut rng(), &mut cache, &server_message(0).encode());
        assert_eq!(again, Err(FlowError::Over));
        assert!(flow.poll_event().is_none() && flow.poll_transmit().is_none());
        // A plaintext out of turn is not kept.
        assert!(cache.knows(&configuration()));
        let _still_started = reader(&mut cache);
    }
}

#[test]
fn a_reader_is_told_of_a_refusal_and_of_its_incident() {
    let mut cache = cache();
    let mut flow = reader(&mut cache);
    flow.handle(NOW, &mut rng(), &mut cache, &server_message(4).encode()).expect("any time");
    let Some(ReaderEvent::Failed(failure)) = flow.poll_event() else { panic!("silent") };
    assert_eq!((failure.check.as_str(), failure.retry), ("sam-gone", true));
    assert_eq!(failure.incident, None);
}

#[test]
fn a_reader_gives_up_in_time_and_says_why() {
    let mut cache = cache();
    let mut flow = reader(&mut cache);
    let _begin = flow.poll_transmit();
    let deadline = flow.poll_timeout().expect("waits");
    flow.handle_timeout(UnixTime::from_millis(deadline.as_millis() - 1));
    assert!(!flow.is_over());
    flow.handle_timeout(deadline);
    let abort = ReaderMessage::Abort(AbortReason::TimedOut).encode();
    assert_eq!(flow.poll_transmit(), Some(abort));
    assert!(matches!(flow.poll_event(), Some(ReaderEvent::Failed(f)) if f.check == "peer-timeout"));
    flow.handle_timeout(deadline);
    flow.cancel();
    assert!(flow.poll_event().is_none() && flow.poll_transmit().is_none());
}

#[test]
fn a_card_removed_aborts_until_its_data_are_sent() {
    let mut cache = cache();
    let mut flow = reader(&mut cache);
    let _begin = flow.poll_transmit();
    flow.card_removed();
    let abort = ReaderMessage::Abort(AbortReason::CardRemoved).encode();
    assert_eq!(flow.poll_transmit(), Some(abort));
    assert!(flow.is_over());

    let mut flow = reader(&mut cache);
    for (kind, done) in [
        (0, CardDone::Answer(CardAnswer { answer: [0; 8], random: [0; 8] })),
        (1, CardDone::Encrypted(encrypted())),
    ] {
        flow.handle(NOW, &mut rng(), &mut cache, &server_message(kind).encode()).expect("in turn");
        assert!(matches!(flow.poll_event(), Some(ReaderEvent::Card(_))));
        flow.card_done(NOW, &mut cache, Ok(done)).expect("asked for");
    }
    flow.card_removed();
    assert!(!flow.is_over());
    flow.handle(NOW, &mut rng(), &mut cache, &server_message(3).encode()).expect("in turn");
    assert!(matches!(flow.poll_event(), Some(ReaderEvent::Plaintext(_))));
}

#[test]
fn card_results_that_nobody_asked_for_are_misuse() {
    let mut cache = cache();
    let mut flow = reader(&mut cache);
    let result = flow.card_done(NOW, &mut cache, Err(CardError::Removed));
    assert_eq!(result, Err(FlowError::Misuse));
    let mut flow = reader(&mut cache);
    flow.handle(NOW, &mut rng(), &mut cache, &server_message(0).encode()).expect("in turn");
    let work = flow.poll_event();
    let expected = CardWork::Authenticate { challenge: [1; 8] };
    assert!(matches!(work, Some(ReaderEvent::Card(work)) if work == expected));
    let result = flow.card_done(NOW, &mut cache, Ok(CardDone::Encrypted(encrypted())));
    assert_eq!(result, Err(FlowError::Misuse));
    assert_eq!(flow.card_done(NOW, &mut cache, Err(CardError::Link)), Err(FlowError::Over));
}

#[test]
fn a_server_dies_of_any_message_out_of_turn_and_refuses() {
    for kind in [2, 3, 4] {
        let mut flow = server();
        let result = flow.handle(NOW, &reader_message(kind).encode());
        assert!(matches!(result, Err(FlowError::Unexpected { awaited: "read begin", .. })));
        let refused = flow.poll_transmit().expect("a refusal");
        let Ok(ServerMessage::Refused(refused)) = ServerMessage::decode(&refused) else {
            panic!("not a refusal");
        };
        assert_eq!(refused.check.as_str(), "message-unexpected");
        // Nothing secret: no incident. No SAM was asked: none is freed.
        assert_eq!((refused.incident.as_str(), refused.retry()), ("", false));
        let event = flow.poll_event();
        assert!(matches!(event, Some(ServerEvent::Failed { check: Check::MessageUnexpected })));
        assert!(flow.poll_event().is_none());
        assert_eq!(flow.handle(NOW, &reader_message(0).encode()), Err(FlowError::Over));
    }
}

#[test]
fn a_cached_read_leases_no_sam_before_the_data_are_complete() {
    let mut flow = server();
    flow.handle(NOW, &reader_message(1).encode()).expect("in turn");
    assert!(matches!(flow.poll_event(), Some(ServerEvent::Begun { source: Source::Cache, .. })));
    flow.handle(NOW, &reader_message(3).encode()).expect("in turn");
    assert!(flow.poll_event().is_none());
    flow.handle(NOW, &reader_message(4).encode()).expect("in turn");
    let event = flow.poll_event();
    assert!(matches!(event, Some(ServerEvent::Sam(SamOperation::Begin { .. }))));
    assert_eq!(flow.poll_timeout(), None);
    flow.sam_done(NOW, sam_result(0)).expect("asked for");
    let event = flow.poll_event();
    assert!(
        matches!(event, Some(ServerEvent::Sam(SamOperation::Decrypt(data))) if data == encrypted())
    );
    flow.sam_done(NOW, sam_result(2)).expect("asked for");
    assert!(matches!(flow.poll_event(), Some(ServerEvent::Done { .. })));
    assert!(flow.is_over() && flow.poll_event().is_none());
}

#[test]
fn a_plaintext_that_is_no_record_is_refused() {
    let mut flow = server();
    for kind in [1, 3, 4] {
        flow.handle(NOW, &reader_message(kind).encode()).expect("in turn");
    }
    flow.sam_done(NOW, sam_result(0)).expect("asked for");
    let result = SamResult::Plaintext { data: plain(b'?'), card_checked: true };
    flow.sam_done(NOW, Ok(result)).expect("asked for");
    let ended = std::iter::from_fn(|| flow.poll_event()).last();
    assert!(matches!(ended, Some(ServerEvent::Failed { check: Check::Record })));
    let sent = std::iter::from_fn(|| flow.poll_transmit()).last().expect("a refusal");
    assert!(matches!(ServerMessage::decode(&sent), Ok(ServerMessage::Refused(_))));
}

#[test]
fn the_owner_may_refuse_and_an_open_sam_is_freed() {
    let none = || ShortText::new("").expect("short");
    let mut flow = server();
    flow.handle(NOW, &reader_message(0).encode()).expect("in turn");
    // The operation was not taken yet: no SAM knows of the read.
    flow.refuse(NOW, "sam-busy", true, none());
    assert!(matches!(flow.poll_event(), Some(ServerEvent::Begun { .. })));
    assert!(flow.poll_event().is_none());

    let mut flow = server();
    flow.handle(NOW, &reader_message(1).encode()).expect("in turn");
    // The reader is not asked for packets first.
    flow.refuse(NOW, "certificate-revoked", false, none());
    let sent = flow.poll_transmit().expect("a refusal");
    assert!(matches!(ServerMessage::decode(&sent), Ok(ServerMessage::Refused(_))));
    assert!(flow.poll_transmit().is_none());

    let mut flow = server();
    flow.handle(NOW, &reader_message(0).encode()).expect("in turn");
    while flow.poll_event().is_some() {}
    flow.refuse(NOW, "not a name", true, none());
    let sent = flow.poll_transmit().expect("a refusal");
    let Ok(ServerMessage::Refused(refused)) = ServerMessage::decode(&sent) else { panic!("none") };
    assert_eq!(refused.check.as_str(), "refused");
    assert!(matches!(flow.poll_event(), Some(ServerEvent::Sam(SamOperation::Cancel))));
    // The SAM's late result changes nothing.
    assert_eq!(flow.sam_done(NOW, sam_result(0)), Err(FlowError::Over));
    assert_eq!(flow.sam_done(NOW, sam_result(3)), Ok(()));
    flow.reader_gone();
    assert!(flow.poll_event().is_none() && flow.poll_transmit().is_none());
}

#[test]
fn a_server_waits_for_the_reader_only_so_long() {
    let mut flow = server();
    let deadline = flow.poll_timeout().expect("waits");
    flow.handle_timeout(deadline);
    assert!(matches!(flow.poll_event(), Some(ServerEvent::Failed { check: Check::PeerTimeout })));
    assert!(flow.poll_transmit().is_some());
}

/// A reader that is in time with each turn still does not hold a SAM without end.
#[test]
fn all_of_a_readers_turns_have_one_limit() {
    let turn = READER_TURN_TIMEOUT - Duration::from_secs(1);
    let mut flow = server();
    flow.handle(NOW, &reader_message(0).encode()).expect("in turn");
    // Waiting for a SAM is not the reader's: the limit begins with its first turn.
    let leased = NOW.plus(READER_TOTAL_TIMEOUT);
    flow.sam_done(leased, sam_result(0)).expect("asked for");
    assert_eq!(flow.poll_timeout(), Some(leased.plus(READER_TURN_TIMEOUT)));
    let answered = leased.plus(turn);
    flow.handle(answered, &reader_message(2).encode()).expect("in turn");
    flow.sam_done(answered, sam_result(1)).expect("asked for");
    let packet = answered.plus(turn);
    flow.handle(packet, &reader_message(3).encode()).expect("in turn");
    let latest = leased.plus(READER_TOTAL_TIMEOUT);
    assert_eq!(flow.poll_timeout(), Some(latest), "not another whole turn");
    while flow.poll_event().is_some() {} // the SAM did all that was asked
    flow.handle_timeout(latest.minus(Duration::from_millis(1)));
    assert!(!flow.is_over());
    flow.handle_timeout(latest);
    let events: Vec<_> = std::iter::from_fn(|| flow.poll_event()).collect();
    let failed = |event: &_| matches!(event, ServerEvent::Failed { check: Check::PeerTimeout });
    assert!(events.iter().any(failed), "{events:?}");
    assert!(matches!(events.last(), Some(ServerEvent::Sam(SamOperation::Cancel))), "{events:?}");
}

proptest! {
    /// Any inputs in any order: no panic, one end, and silence after it.
    #[test]
    fn a_server_ends_once(inputs in prop::collection::vec((0_u8..12, any::<u8>()), 0..20)) {
        let mut flow = server();
        let mut ends = 0;
        for (kind, byte) in inputs {
            let over = flow.is_over();
            match kind {
                0..6 => { let _either = flow.handle(NOW, &reader_message(kind).encode()); }
                6..11 => { let _either = flow.sam_done(NOW, sam_result(kind - 6)); }
                _ => { let _either = flow.handle(NOW, &[byte; 3]); }
            }
            while let Some(event) = flow.poll_event() {
                prop_assert!(!over);
                let end = matches!(event, ServerEvent::Done { .. } | ServerEvent::Failed { .. });
                ends += u32::from(end);
            }
        }
        prop_assert_eq!(ends, u32::from(flow.is_over()));
    }

    #[test]
    fn a_reader_ends_once(inputs in prop::collection::vec((0_u8..10, any::<u8>()), 0..20)) {
        let mut cache = cache();
        let mut flow = reader(&mut cache);
        let mut ends = 0;
        for (kind, byte) in inputs {
            let over = flow.is_over();
            let done = match kind {
                5 => Some(Ok(CardDone::Answer(CardAnswer { answer: [0; 8], random: [0; 8] }))),
                6 => Some(Ok(CardDone::Encrypted(encrypted()))),
                7 => Some(Err(CardError::Timeout)),
                _ => None,
            };
            let message = server_message(kind).encode();
            let bytes = if kind < 5 { message.as_slice() } else { &[byte; 9] };
            let _either = match done {
                Some(done) => flow.card_done(NOW, &mut cache, done),
                None => flow.handle(NOW, &mut rng(), &mut cache, bytes),
            };
            while let Some(event) = flow.poll_event() {
                prop_assert!(!over);
                ends += u32::from(!matches!(event, ReaderEvent::Card(_)));
            }
        }
        prop_assert_eq!(ends, u32::from(flow.is_over()));
    }
}
