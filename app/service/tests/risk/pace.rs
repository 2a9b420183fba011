//! Throttles, and the bound that needs no rule.

use countersign_idcard::message::{AbortReason, ReaderMessage};
use countersign_service::{KnownDevice, Policy, READS_PER_MINUTE, RiskRules, Rule, RuleAction};
use countersign_store::{RiskAction, RiskKind};

use crate::desk::{Desk, MINUTE, Refusal, SECOND, refused, rule};

async fn read(desk: &Desk, reader: &KnownDevice, read: u8) -> Result<(), Refusal> {
    desk.err(reader, read, AbortReason::Cancelled).await
}

fn throttle() -> Rule {
    Rule {
        count: RiskKind::Reads,
        action: RuleAction::Throttle { pause: 5 * SECOND },
        lasts: Some(10 * MINUTE),
        ..rule()
    }
}

#[tokio::test]
async fn a_throttled_reader_pauses_and_may_try_again() {
    let desk = Desk::new(vec![throttle()]).await;
    let (reader, other) = (desk.reader("RD-1").await, desk.reader("RD-2").await);
    for number in 1..=3 {
        read(&desk, &reader, number).await.unwrap();
    }
    assert_eq!(desk.decisions(&reader).await[0].action, RiskAction::Throttle);
    assert_eq!(read(&desk, &reader, 4).await, refused("reader-throttled", true));
    assert_eq!(read(&desk, &other, 4).await, Ok(()), "one reader's throttle is no other's");
    desk.advance(5 * SECOND - SECOND / 1000);
    assert_eq!(read(&desk, &reader, 4).await, refused("reader-throttled", true));
    desk.advance(SECOND / 1000);
    assert_eq!(read(&desk, &reader, 4).await, Ok(()), "a refused read is no read");
    assert_eq!(read(&desk, &reader, 5).await, refused("reader-throttled", true));
    assert!(desk.look_up("RD-1").await.is_some(), "its connections are let in");
    desk.reverse(&desk.decisions(&reader).await[0]).await;
    assert_eq!(read(&desk, &reader, 5).await, Ok(()));
    assert_eq!(read(&desk, &reader, 6).await, Ok(()), "lifted");
}

#[tokio::test]
async fn the_longest_pause_holds_until_its_own_end() {
    let long = Rule {
        name: "long".into(),
        action: RuleAction::Throttle { pause: 20 * SECOND },
        lasts: Some(MINUTE),
        ..throttle()
    };
    let desk = Desk::new(vec![throttle(), long]).await;
    let reader = desk.reader("RD-1").await;
    for number in 1..=3 {
        read(&desk, &reader, number).await.unwrap();
    }
    desk.advance(10 * SECOND);
    assert_eq!(read(&desk, &reader, 4).await, refused("reader-throttled", true));
    desk.advance(10 * SECOND);
    assert_eq!(read(&desk, &reader, 4).await, Ok(()));
    desk.advance(40 * SECOND);
    read(&desk, &reader, 5).await.unwrap();
    desk.advance(5 * SECOND);
    assert_eq!(read(&desk, &reader, 6).await, Ok(()), "the long one is over");
    assert_eq!(read(&desk, &reader, 7).await, refused("reader-throttled", true));
}

#[tokio::test]
async fn a_flood_is_bounded_without_any_rule() {
    let risk = RiskRules::default().with_reads_per_minute(20).unwrap();
    let desk = Desk::with(Policy { risk, ..Policy::default() }).await;
    let (reader, other) = (desk.reader("RD-1").await, desk.reader("RD-2").await);
    let (mut begun, mut last) = (0, Ok(()));
    for number in 0..30 {
        last = read(&desk, &reader, number).await;
        begun += u32::from(last.is_ok());
    }
    assert_eq!(begun, 10, "half of a minute's at once");
    assert_eq!(last, refused("reader-throttled", true));
    assert_eq!(read(&desk, &other, 1).await, Ok(()));
    // The same read again and again is no way around it, nor is another connection.
    assert_eq!(read(&desk, &reader, 1).await, refused("reader-throttled", true));
    for number in 0..100 {
        desk.advance(SECOND);
        begun += u32::from(read(&desk, &reader, number).await.is_ok());
    }
    assert!((25..=27).contains(&begun), "one in six seconds: {begun}");
    assert!(desk.decisions(&reader).await.is_empty());
    const { assert!(READS_PER_MINUTE >= 60, "no person is slowed") };
}

#[tokio::test]
async fn a_read_under_way_is_not_cut_by_a_throttle() {
    let desk = Desk::new(vec![Rule { at_least: 1, ..throttle() }]).await;
    let reader = desk.reader("RD-1").await;
    let mut connection = desk.connect(&reader, "192.0.2.1");
    connection.begin(1).await.unwrap();
    assert_eq!(desk.decisions(&reader).await.len(), 1);
    connection.say(ReaderMessage::Abort(AbortReason::CardRemoved)).await;
    let read = desk.service.reads(Some(reader.id), None, 1).await.unwrap().items.remove(0);
    assert_eq!(read.failed_check.as_deref(), Some("card-removed"), "it went its way");
}
