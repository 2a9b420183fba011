//! A clock that is set back or forward locks nobody out for good and lets nobody through for good.

use countersign_idcard::message::AbortReason;
use countersign_service::{KnownDevice, Rule, RuleAction};
use countersign_store::RiskKind;

use crate::desk::{DAY, Desk, HOUR, MINUTE, SECOND, START, refused, rule};

async fn errors(desk: &Desk, reader: &KnownDevice, reads: &[u8]) {
    for read in reads {
        desk.err(reader, *read, AbortReason::CardRemoved).await.unwrap();
    }
}

#[tokio::test]
async fn a_block_made_by_a_clock_that_was_ahead_ends_when_the_clock_is_right_again() {
    let desk = Desk::new(vec![Rule { lasts: Some(HOUR), ..rule() }]).await;
    let reader = desk.reader("RD-1").await;
    desk.advance(365 * DAY);
    errors(&desk, &reader, &[1, 2, 3]).await;
    assert_eq!(desk.look_up("RD-1").await, None);
    desk.set(START);
    assert!(desk.look_up("RD-1").await.is_some(), "not for a year");
    // And the rule works: neither the old decision nor the old events are in its way.
    errors(&desk, &reader, &[4, 5]).await;
    assert!(desk.look_up("RD-1").await.is_some());
    errors(&desk, &reader, &[6]).await;
    assert_eq!(desk.look_up("RD-1").await, None);
}

#[tokio::test]
async fn a_block_without_an_end_holds_whatever_the_clock_says() {
    let desk = Desk::new(vec![rule()]).await;
    let reader = desk.reader("RD-1").await;
    desk.advance(DAY);
    errors(&desk, &reader, &[1, 2, 3]).await;
    for time in [START, START.plus(365 * DAY)] {
        desk.set(time);
        assert_eq!(desk.look_up("RD-1").await, None);
    }
}

#[tokio::test]
async fn events_of_a_clock_that_was_ahead_do_not_count_when_their_time_is_not_yet() {
    let desk = Desk::new(vec![rule()]).await;
    let reader = desk.reader("RD-1").await;
    desk.advance(DAY);
    errors(&desk, &reader, &[1, 2]).await;
    desk.set(START);
    errors(&desk, &reader, &[3]).await;
    assert!(desk.decisions(&reader).await.is_empty(), "one now, two tomorrow");
    // Another server's clock may be a little ahead: its events count.
    desk.advance(MINUTE);
    errors(&desk, &reader, &[4]).await;
    desk.set(START);
    errors(&desk, &reader, &[5]).await;
    assert_eq!(desk.decisions(&reader).await.len(), 1);
}

#[tokio::test]
async fn a_clock_set_forward_forgives_what_was_and_nothing_that_comes() {
    let desk = Desk::new(vec![rule()]).await;
    let reader = desk.reader("RD-1").await;
    errors(&desk, &reader, &[1, 2]).await;
    desk.advance(DAY);
    errors(&desk, &reader, &[3, 4]).await;
    assert!(desk.decisions(&reader).await.is_empty());
    errors(&desk, &reader, &[5]).await;
    assert_eq!(desk.decisions(&reader).await.len(), 1);
}

#[tokio::test]
async fn a_throttle_waits_for_no_clock() {
    let throttle = Rule {
        count: RiskKind::Reads,
        at_least: 1,
        action: RuleAction::Throttle { pause: 5 * SECOND },
        ..rule()
    };
    let desk = Desk::new(vec![throttle]).await;
    let reader = desk.reader("RD-1").await;
    desk.advance(DAY);
    errors(&desk, &reader, &[1]).await;
    desk.set(START);
    errors(&desk, &reader, &[2]).await; // no day's wait
    let soon = desk.err(&reader, 3, AbortReason::CardRemoved).await;
    assert_eq!(soon, refused("reader-throttled", true), "but the throttle still works");
    // Set back a little: at most twice the pause.
    desk.advance(5 * SECOND);
    errors(&desk, &reader, &[3]).await;
    desk.set(desk.now().plus(SECOND - 5 * SECOND / 5).minus(4 * SECOND));
    let soon = desk.err(&reader, 4, AbortReason::CardRemoved).await;
    assert_eq!(soon, refused("reader-throttled", true));
    desk.advance(9 * SECOND);
    errors(&desk, &reader, &[4]).await;
}

#[tokio::test]
async fn a_throttle_holds_over_two_servers_whose_clocks_are_apart_by_more_than_its_pause() {
    let throttle = Rule {
        count: RiskKind::Reads,
        at_least: 1,
        action: RuleAction::Throttle { pause: 5 * SECOND },
        ..rule()
    };
    let desk = Desk::new(vec![throttle]).await;
    let reader = desk.reader("RD-1").await;
    let behind = desk.now();
    desk.advance(30 * SECOND);
    errors(&desk, &reader, &[1]).await; // at the server that is ahead
    desk.set(behind);
    let soon = desk.err(&reader, 2, AbortReason::CardRemoved).await;
    assert_eq!(soon, refused("reader-throttled", true), "at the other one");
    desk.advance(35 * SECOND);
    errors(&desk, &reader, &[2]).await;
}

#[tokio::test]
async fn the_clean_up_keeps_what_a_window_can_reach_and_goes_on_in_turns() {
    let desk = Desk::new(vec![rule()]).await;
    let reader = desk.reader("RD-1").await;
    errors(&desk, &reader, &[1]).await; // two events: the read and the error
    assert_eq!(desk.service.clean_up_risk().await, Ok((0, 0)));
    desk.advance(31 * DAY);
    errors(&desk, &reader, &[2]).await;
    assert_eq!(desk.service.clean_up_risk().await, Ok((0, 0)), "the longest window is kept");
    desk.advance(HOUR);
    assert_eq!(desk.service.clean_up_risk().await, Ok((2, 0)));
    let left = desk.service.risk_events(&reader.id, None, 200).await.unwrap().items;
    assert_eq!(left.len(), 2);
    let totals = desk.service.reader_record(&reader.id).await.unwrap().totals;
    let reads = totals.iter().find(|count| count.kind == "reads").unwrap();
    assert_eq!(reads.total, 2, "totals stay");
}
