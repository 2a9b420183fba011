//! Each kind of event trips its rule, and nothing else does.

use countersign_channel::Error;
use countersign_idcard::message::{AbortReason, ReadBegin, ReaderMessage, ServerMessage, Source};
use countersign_idcard::{Configuration, EncryptedData};
use countersign_service::{Actor, NewReport, NewTransaction, Rule, RuleAction};
use countersign_store::{DeviceKind, RiskAction, RiskKind};

use crate::desk::{Desk, MINUTE, SECOND, refused, rule};

fn warn(count: RiskKind, check: Option<&str>, at_least: u32) -> Rule {
    let check = check.map(str::to_owned);
    Rule { count, check, at_least, action: RuleAction::Warn, ..rule() }
}

fn report(kind: &str, reference: &str) -> NewReport {
    NewReport {
        kind: kind.to_owned(),
        text: "it was so".to_owned(),
        reference: reference.to_owned(),
    }
}

fn transaction(outcome: &str, reference: &str) -> NewTransaction {
    NewTransaction {
        reference: reference.to_owned(),
        amount: "12.34".to_owned(),
        currency: "CNY".to_owned(),
        outcome: outcome.to_owned(),
    }
}

#[tokio::test]
async fn errors_up_to_the_threshold_block_and_the_reason_is_kept() {
    let desk = Desk::new(vec![rule()]).await;
    let (reader, other) = (desk.reader("RD-1").await, desk.reader("RD-2").await);
    for read in 1..=2 {
        desk.err(&reader, read, AbortReason::CardRemoved).await.unwrap();
        desk.err(&other, read, AbortReason::CardRemoved).await.unwrap();
    }
    assert!(desk.decisions(&reader).await.is_empty(), "two are not three, not of two readers");
    desk.err(&reader, 3, AbortReason::CardTimeout).await.unwrap();
    let [decision] = &desk.decisions(&reader).await[..] else { panic!("one decision") };
    assert_eq!((decision.action, decision.counted), (RiskAction::Block, 3));
    assert_eq!(decision.reason, "rule test: 3 errors within 10m");
    let terms: serde_json::Value = serde_json::from_str(&decision.terms).unwrap();
    assert_eq!((&terms["atLeast"], &terms["within"]), (&3.into(), &"10m".into()));
    assert_eq!((decision.at, decision.until), (desk.now(), None));
    assert_eq!(desk.audited("risk.decide").await, 1);
    // Its open connections and its next handshake; the other reader reads on.
    let blocked = desk.err(&reader, 4, AbortReason::CardRemoved).await;
    assert_eq!(blocked, refused("reader-blocked", false));
    assert_eq!(desk.look_up("RD-1").await, None);
    assert!(desk.look_up("RD-2").await.is_some());
    let record = desk.service.reader_record(&reader.id).await.unwrap();
    assert_eq!(record.reader.blocked(desk.now()), Some("rule test: 3 errors within 10m"));
    assert_eq!(desk.decisions(&reader).await.len(), 1, "not again while it stands");
}

#[tokio::test]
async fn a_check_filters() {
    let desk = Desk::new(vec![warn(RiskKind::Errors, Some("card-removed"), 2)]).await;
    let reader = desk.reader("RD-1").await;
    for read in 1..=5 {
        desk.err(&reader, read, AbortReason::CardTimeout).await.unwrap();
    }
    desk.err(&reader, 6, AbortReason::CardRemoved).await.unwrap();
    assert!(desk.decisions(&reader).await.is_empty());
    desk.err(&reader, 7, AbortReason::CardRemoved).await.unwrap();
    let decisions = desk.decisions(&reader).await;
    assert_eq!(decisions[0].reason, "rule test: 2 errors (card-removed) within 10m");
    desk.err(&reader, 8, AbortReason::CardRemoved).await.unwrap();
    assert!(desk.look_up("RD-1").await.is_some(), "a warning refuses nobody");
}

#[tokio::test]
async fn reads_count_each_attempt() {
    let desk = Desk::new(vec![warn(RiskKind::Reads, None, 3)]).await;
    let reader = desk.reader("RD-1").await;
    let mut connection = desk.connect(&reader, "192.0.2.1");
    connection.begin(1).await.unwrap();
    connection.say(ReaderMessage::Abort(AbortReason::Cancelled)).await;
    connection.begin(1).await.unwrap();
    connection.say(ReaderMessage::Abort(AbortReason::Cancelled)).await;
    assert!(desk.decisions(&reader).await.is_empty());
    connection.begin(1).await.unwrap();
    assert_eq!(desk.decisions(&reader).await[0].reason, "rule test: 3 reads begun within 10m");
}

#[tokio::test]
async fn refusals_of_the_proven_reader_count_and_claims_do_not() {
    let desk = Desk::new(vec![warn(RiskKind::Refusals, None, 3)]).await;
    let reader = desk.reader("RD-1").await;
    let service = &desk.service;
    for _ in 0..5 {
        service.refused_contact("192.0.2.9", None, &Error::Unexpected).await;
    }
    assert!(desk.decisions(&reader).await.is_empty(), "somebody at an address");
    let id = Some(reader.id.as_str());
    service.refused_contact("192.0.2.9", id, &Error::Unexpected).await;
    let mut connection = desk.connect(&reader, "192.0.2.1");
    service.block_device(DeviceKind::Reader, &Actor::Console, &reader.id, "stolen").await.unwrap();
    assert_eq!(connection.begin(1).await, refused("reader-blocked", false));
    assert!(desk.decisions(&reader).await.is_empty());
    assert_eq!(connection.begin(2).await, refused("reader-blocked", false));
    assert_eq!(desk.decisions(&reader).await[0].counted, 3);
    let record = service.reader_record(&reader.id).await.unwrap();
    let refusals = record.totals.iter().filter(|count| count.kind == "refusals");
    assert_eq!(refusals.map(|count| count.total).sum::<i64>(), 3);
}

#[tokio::test]
async fn reports_and_transactions_count_once_each() {
    let reports = Rule { name: "reports".into(), ..warn(RiskKind::Reports, Some("seal"), 2) };
    let paid =
        Rule { name: "paid".into(), ..warn(RiskKind::Transactions, Some("charged-back"), 2) };
    let desk = Desk::new(vec![reports, paid]).await;
    let (reader, console) = (desk.reader("RD-1").await, Actor::Console);
    let service = &desk.service;
    for (kind, reference) in [("seal", "T-1"), ("seal", "T-1"), ("noise", "T-2")] {
        service.report_reader(&console, &reader.id, report(kind, reference)).await.unwrap();
    }
    for (outcome, reference) in [("charged-back", "P-1"), ("charged-back", "P-1"), ("paid", "P-2")]
    {
        let told = transaction(outcome, reference);
        service.tell_transaction(&console, &reader.id, told).await.unwrap();
    }
    assert!(desk.decisions(&reader).await.is_empty(), "the same again does not count");
    service.report_reader(&console, &reader.id, report("seal", "T-3")).await.unwrap();
    let told = transaction("charged-back", "P-3");
    service.tell_transaction(&console, &reader.id, told).await.unwrap();
    let mut rules: Vec<_> = desk.decisions(&reader).await.into_iter().map(|d| d.rule).collect();
    rules.sort();
    assert_eq!(rules, ["paid", "reports"]);
}

#[tokio::test]
async fn packets_sent_again_count_each() {
    let desk = Desk::new(vec![warn(RiskKind::Resent, None, 2)]).await;
    let data = EncryptedData::new(vec![0; 1494].into()).unwrap();
    let reader = desk.reader("RD-1").await;
    for read in 1..=2 {
        assert!(desk.decisions(&reader).await.is_empty());
        let mut connection = desk.connect(&reader, "192.0.2.1");
        connection.begin(read).await.unwrap();
        // The last of two, and the first never came.
        let last = ReaderMessage::Packet(data.packets().remove(1));
        let [ServerMessage::Resend(_)] = connection.say(last).await[..] else {
            panic!("the missing packet is asked for")
        };
        connection.say(ReaderMessage::Abort(AbortReason::CardRemoved)).await;
    }
    assert_eq!(
        desk.decisions(&reader).await[0].reason,
        "rule test: 2 packets sent again within 10m"
    );
}

#[tokio::test]
async fn two_reads_at_once_of_one_certificate_are_a_sign() {
    let desk = Desk::new(vec![warn(RiskKind::Concurrent, Some("overlapping-reads"), 1)]).await;
    let reader = desk.reader("RD-1").await;
    let mut one = desk.connect(&reader, "192.0.2.1");
    let mut two = desk.connect(&reader, "192.0.2.1");
    one.begin(1).await.unwrap();
    // A retry on a new connection, while the server has not noticed the end of the old one.
    two.begin(1).await.unwrap();
    assert!(desk.decisions(&reader).await.is_empty(), "one reader, one read");
    let mut three = desk.connect(&reader, "192.0.2.1");
    three.begin(2).await.unwrap();
    let decisions = desk.decisions(&reader).await;
    assert_eq!(decisions.len(), 1, "another read beside it");
    assert!(decisions[0].reason.contains("a second device"), "{}", decisions[0].reason);
}

#[tokio::test]
async fn a_read_that_nobody_ended_is_no_sign_for_ever() {
    let desk = Desk::new(vec![warn(RiskKind::Concurrent, None, 1)]).await;
    let reader = desk.reader("RD-1").await;
    desk.connect(&reader, "192.0.2.1").begin(1).await.unwrap(); // its server dies here
    desk.advance(MINUTE);
    desk.err(&reader, 2, AbortReason::CardRemoved).await.unwrap();
    assert!(desk.decisions(&reader).await.is_empty());
}

#[tokio::test]
async fn one_certificate_from_two_addresses_in_turn_is_a_sign() {
    let alternating = warn(RiskKind::Concurrent, Some("alternating-addresses"), 2);
    let desk = Desk::new(vec![alternating]).await;
    let reader = desk.reader("RD-1").await;
    let mut read = 0;
    let mut from = async |peer: &str| {
        read += 1;
        let mut connection = desk.connect(&reader, peer);
        connection.begin(read).await.unwrap();
        connection.say(ReaderMessage::Abort(AbortReason::Cancelled)).await;
        desk.advance(SECOND);
    };
    for peer in ["192.0.2.1", "192.0.2.1", "198.51.100.7", "198.51.100.7", "192.0.2.1"] {
        from(peer).await;
    }
    assert!(desk.decisions(&reader).await.is_empty(), "back once");
    from("198.51.100.7").await;
    assert_eq!(desk.decisions(&reader).await.len(), 1);
}

/// Nobody is blocked because the server has no module.
#[tokio::test(start_paused = true)]
async fn the_servers_own_failures_count_against_no_reader() {
    let desk = Desk::new(vec![Rule { at_least: 1, ..rule() }]).await;
    let reader = desk.reader("RD-1").await;
    let mut connection = desk.connect(&reader, "192.0.2.1");
    let begin = ReadBegin {
        read_id: [1; 16],
        configuration: Configuration::new([1; 32]),
        source: Source::Card,
    };
    let said = connection.say(ReaderMessage::ReadBegin(begin)).await;
    let [ServerMessage::Refused(refused)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(refused.check.as_str(), "sam-none-ready");
    assert!(desk.decisions(&reader).await.is_empty());
    let read = desk.service.reads(Some(reader.id), None, 1).await.unwrap().items.remove(0);
    assert_eq!(read.failed_check.as_deref(), Some("sam-none-ready"), "and it is recorded");
}
