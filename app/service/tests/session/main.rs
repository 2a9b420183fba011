//! A reader's session over real use cases, a store in memory and emulated modules: failover in
//! mid-read (C12), and what is kept over datagrams (C9, C10).

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod stage;

use std::time::Duration;

use countersign_emulator::Fault;
use countersign_idcard::message::{Missing, ReaderMessage, ServerMessage};
use countersign_idcard::server::LAST_WORDS_KEPT;
use countersign_idcard::{Delivery, FlowError, REPEAT_MAX};

use stage::{Read, Stage};

/// All commands of a read, in order.
const COMMANDS: [[u8; 2]; 7] = [
    [0xE0, 0x01],
    [0x20, 0x01],
    [0x20, 0x02],
    [0xE0, 0x02],
    [0xE0, 0x03],
    [0x30, 0x01],
    [0x30, 0x05],
];

fn names(read: &Read) -> Vec<&'static str> {
    read.answers.iter().map(|bytes| ServerMessage::decode(bytes).unwrap().name()).collect()
}

#[tokio::test]
async fn a_module_that_dies_at_any_command_is_replaced_within_one_attempt() {
    for code in COMMANDS {
        let stage = Stage::new(2).await;
        let (dying, other) = stage.next_and_other().await;
        stage.faults(&dying).inject(Fault::UnplugAt(code));
        let read = stage.session(Delivery::Stream).read(false).await;
        assert!(read.result.is_ok(), "{code:02x?} {:?}", names(&read));
        let ended = read.ended.unwrap();
        assert_eq!((ended.outcome, ended.sams_lost), ("done", 1), "{code:02x?}");
        assert!(ended.card_checked);
        let row = stage.only_read().await;
        assert_eq!((row.state.name(), row.attempts), ("done", 1), "{code:02x?}");
        assert_eq!(row.sam_id, Some(other), "the row says which module finished it");
        assert_ne!(row.sam_id, Some(dying));
    }
}

#[tokio::test]
async fn the_audit_says_whether_the_module_told_whose_data_it_gave() {
    let stage = Stage::new(1).await;
    assert!(stage.session(Delivery::Stream).read(false).await.ended.unwrap().card_checked);
    assert!(stage.last_audit().await.contains("\"cardChecked\":true"));
    let (module, _) = stage.next_and_other().await;
    stage.faults(&module).inject(Fault::Unknown([0x30, 0x05]));
    assert!(!stage.session(Delivery::Stream).read(false).await.ended.unwrap().card_checked);
    assert!(stage.last_audit().await.contains("\"cardChecked\":false"));
}

#[tokio::test]
async fn a_module_that_confuses_cards_is_replaced_and_its_data_go_nowhere() {
    let stage = Stage::new(2).await;
    // Both modules have read the first card.
    for _ in 0..2 {
        assert!(stage.session(Delivery::Stream).read(false).await.result.is_ok());
    }
    let first = stage.text();
    stage.insert_another_card();
    let (confused, other) = stage.next_and_other().await;
    stage.faults(&confused).inject(Fault::AnotherCardsData);
    let read = stage.session(Delivery::Stream).read(false).await;
    let text = *read.result.unwrap().text();
    assert!(text == stage.text() && text != first);
    let ended = read.ended.unwrap();
    assert_eq!((ended.sams_lost, ended.card_checked), (1, true));
    assert_eq!(stage.reads().await[0].sam_id, Some(other));
}

#[tokio::test]
async fn without_another_module_the_read_ends_by_name_and_may_be_tried_again() {
    let stage = Stage::new(1).await;
    let (module, _) = stage.next_and_other().await;
    stage.bar(&module);
    stage.faults(&module).inject(Fault::UnplugAt([0x30, 0x01]));
    let read = stage.session(Delivery::Stream).read(false).await;
    let failure = read.result.unwrap_err();
    assert_eq!((failure.check.as_str(), failure.retry), ("sam-none-ready", true));
    let row = stage.only_read().await;
    assert_eq!((row.state.name(), row.failed_check.as_deref()), ("failed", Some("sam-none-ready")));
}

/// A module that is back within the wait is as good as another one.
#[tokio::test]
async fn a_lonely_module_that_comes_back_finishes_the_read() {
    let stage = Stage::new(1).await;
    let (module, _) = stage.next_and_other().await;
    stage.faults(&module).inject(Fault::UnplugAt([0x30, 0x01]));
    let read = stage.session(Delivery::Stream).read(false).await;
    assert!(read.result.is_ok());
    let row = stage.only_read().await;
    assert_eq!((row.state.name(), row.attempts, row.sam_id), ("done", 1, Some(module)));
}

#[tokio::test]
async fn over_datagrams_the_outcome_is_stored_and_the_module_free_before_the_first_part_leaves() {
    let stage = Stage::new(1).await;
    let mut session = stage.session(Delivery::Datagrams);
    let read = session.read_to_the_result().await;
    assert_eq!(names(&read), ["card challenge", "sam proof", "result part", "result part"]);
    assert_eq!(stage.only_read().await.state.name(), "done");
    drop(tokio::time::timeout(Duration::from_secs(1), stage.lease()).await.unwrap());
    assert!(!session.session.is_reading(), "the connection's own limits hold again");

    // Asked for again: the same parts, no second use of a module, no second row.
    let uses = stage.uses();
    let ask = ReaderMessage::ResendResult(Missing::ALL).encode();
    stage.pass(REPEAT_MAX);
    let (answer, handled) = session.session.handle(&ask).await;
    assert!(handled.is_ok() && answer.ended.is_none());
    assert_eq!(*answer.messages, read.answers[2..]);
    assert_eq!(stage.uses(), uses);
    assert_eq!(stage.reads().await.len(), 1);

    // Kept so long and no longer.
    stage.pass(LAST_WORDS_KEPT);
    assert!(session.session.poll_timeout().unwrap() <= stage.now());
    assert!(session.session.handle_timeout().await.messages.is_empty());
    assert_eq!(session.session.poll_timeout(), None);
    let (_, handled) = session.session.handle(&ask).await;
    assert!(matches!(handled, Err(FlowError::Unexpected { .. })), "a read that never began");
    assert_eq!(stage.reads().await.len(), 1);
}

#[tokio::test]
async fn several_reads_follow_each_other_over_datagrams() {
    let stage = Stage::new(2).await;
    let mut session = stage.session(Delivery::Datagrams);
    for reads in 1..4 {
        let read = session.read(reads > 1).await;
        assert!(read.result.is_ok());
        assert_eq!(stage.reads().await.len(), reads);
        // Late repeats of what is over begin nothing.
        for late in &read.said {
            let (answer, handled) = session.session.handle(late).await;
            assert!(handled.is_ok() && answer.ended.is_none() && answer.messages.is_empty());
        }
        assert_eq!(stage.reads().await.len(), reads);
    }
}

#[tokio::test]
async fn packets_that_were_asked_for_again_are_counted() {
    let stage = Stage::new(1).await;
    let mut session = stage.session(Delivery::Datagrams);
    session.lose_packet(0);
    let read = session.read(false).await;
    assert!(read.result.is_ok(), "{:?}", names(&read));
    assert_eq!(read.ended.unwrap().resent, 1);
    assert!(names(&read).contains(&"resend"));
}
