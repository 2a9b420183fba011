//! What is told of a reader, and all of it together.

use countersign_idcard::message::AbortReason;
use countersign_service::{Actor, NewFactory, NewReport, NewTransaction, Scope};
use countersign_store::Role;

use crate::desk::{DAY, Desk, SECOND, is_new};

fn report(text: &str) -> NewReport {
    NewReport { kind: "seal".into(), text: text.into(), reference: "T-1".into() }
}

fn transaction(amount: &str) -> NewTransaction {
    NewTransaction {
        reference: "P-1".into(),
        amount: amount.into(),
        currency: "CNY".into(),
        outcome: "paid".into(),
    }
}

#[tokio::test]
async fn a_record_shows_all_that_is_known() {
    let desk = Desk::new(Vec::new()).await;
    let (reader, console) = (desk.reader("RD-1").await, Actor::Console);
    let service = &desk.service;
    desk.err(&reader, 1, AbortReason::CardRemoved).await.unwrap();
    desk.advance(DAY);
    desk.err(&reader, 2, AbortReason::CardTimeout).await.unwrap();
    service.report_reader(&console, &reader.id, report("torn")).await.unwrap();
    service.tell_transaction(&console, &reader.id, transaction("12.34")).await.unwrap();
    let factory = NewFactory { maker: "Acme".into(), ..NewFactory::default() };
    service.set_factory(&console, &reader.id, factory).await.unwrap();
    let record = service.reader_record(&reader.id).await.unwrap();
    let shown = |counts: &[countersign_store::ReaderCount]| -> Vec<String> {
        let one =
            |c: &countersign_store::ReaderCount| format!("{} {} {}", c.kind, c.label, c.total);
        counts.iter().map(one).collect()
    };
    assert_eq!(
        shown(&record.totals),
        [
            "errors card-removed 1",
            "errors card-timeout 1",
            "reads  2",
            "reports seal 1",
            "transactions paid 1"
        ]
    );
    assert_eq!(
        shown(&record.recent),
        ["errors card-timeout 1", "reads  1", "reports seal 1", "transactions paid 1"],
        "a day ago is not within a day"
    );
    assert_eq!(record.last_read_at, Some(desk.now()));
    assert_eq!(record.factory.unwrap().maker, "Acme");
    assert_eq!(record.certificates.len(), 1);
    assert_eq!(record.reader.device.serial, "RD-1");
    for action in ["reader.report", "reader.transaction", "reader.factory"] {
        assert_eq!(desk.audited(action).await, 1, "{action}");
    }
    let missing = service.reader_record("rdr_none").await.unwrap_err();
    assert_eq!(missing.check(), "not-found");
}

#[tokio::test]
async fn a_reference_is_told_once_and_never_differently() {
    let desk = Desk::new(Vec::new()).await;
    let (reader, console) = (desk.reader("RD-1").await, Actor::Console);
    let service = &desk.service;
    let first = service.report_reader(&console, &reader.id, report("torn")).await.unwrap();
    desk.advance(SECOND);
    let again = service.report_reader(&console, &reader.id, report("torn")).await.unwrap();
    assert!(is_new(&first) && !is_new(&again));
    assert_eq!(first.stored, again.stored, "as it was stored");
    let other = service.report_reader(&console, &reader.id, report("gone")).await.unwrap_err();
    assert_eq!(other.check(), "reference-taken");
    let first = service.tell_transaction(&console, &reader.id, transaction("1")).await.unwrap();
    let again = service.tell_transaction(&console, &reader.id, transaction("1")).await.unwrap();
    assert!(is_new(&first) && !is_new(&again));
    let other = service.tell_transaction(&console, &reader.id, transaction("2")).await;
    assert_eq!(other.unwrap_err().check(), "reference-taken");
    assert_eq!(desk.audited("reader.transaction").await, 1);
}

#[tokio::test]
async fn bad_words_and_unknown_readers_are_refused() {
    let desk = Desk::new(Vec::new()).await;
    let (reader, console) = (desk.reader("RD-1").await, Actor::Console);
    let service = &desk.service;
    let tell = async |new: NewReport| {
        service.report_reader(&console, &reader.id, new).await.unwrap_err().check()
    };
    assert_eq!(tell(NewReport { kind: "Seal".into(), ..report("x") }).await, "code-format");
    assert_eq!(tell(NewReport { text: "\u{7}".into(), ..report("x") }).await, "text-length");
    assert_eq!(tell(report(&"x".repeat(2001))).await, "text-length");
    assert_eq!(tell(NewReport { reference: "".into(), ..report("x") }).await, "reference-format");
    let pay = async |new: NewTransaction| {
        service.tell_transaction(&console, &reader.id, new).await.unwrap_err().check()
    };
    assert_eq!(pay(transaction("1,5")).await, "amount-format");
    let currency = NewTransaction { currency: "yuan".into(), ..transaction("1") };
    assert_eq!(pay(currency).await, "currency-format");
    let outcome = NewTransaction { outcome: "".into(), ..transaction("1") };
    assert_eq!(pay(outcome).await, "code-format");
    let long = NewFactory { model: "x".repeat(101), ..NewFactory::default() };
    let error = service.set_factory(&console, &reader.id, long).await.unwrap_err();
    assert_eq!(error.check(), "text-length");
    let day = NewFactory { made_on: "yesterday".into(), ..NewFactory::default() };
    let error = service.set_factory(&console, &reader.id, day).await.unwrap_err();
    assert_eq!(error.check(), "day-format");
    let nobody = service.report_reader(&console, "rdr_none", report("x")).await.unwrap_err();
    assert_eq!(nobody.check(), "not-found");
    assert_eq!(desk.audited("reader.report").await, 0);
}

#[tokio::test]
async fn who_may_not_tell_tells_nothing() {
    let desk = Desk::new(Vec::new()).await;
    let reader = desk.reader("RD-1").await;
    let service = &desk.service;
    for (role, may) in [
        (Role::Admin, true),
        (Role::Custodian, true),
        (Role::Integrator, true),
        (Role::Auditor, false),
        (Role::Approver, false),
    ] {
        let (operator, _) =
            service.add_operator(&Actor::Console, role.name(), &[role]).await.unwrap();
        let actor = Actor::Operator(operator);
        assert_eq!(actor.require(Scope::ReadersReport).is_ok(), may, "{role}");
        let told = service.report_reader(&actor, &reader.id, report("torn")).await;
        assert_eq!(told.is_ok(), may, "{role}");
        let told = service.tell_transaction(&actor, &reader.id, transaction("1")).await;
        assert_eq!(told.is_ok(), may, "{role}");
        let factory = service.set_factory(&actor, &reader.id, NewFactory::default()).await;
        assert_eq!(factory.is_ok(), may, "{role}");
    }
}
