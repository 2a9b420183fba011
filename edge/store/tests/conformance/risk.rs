//! Events, counts, meters and decisions of the risk rules (C5).

use std::time::Duration;

use countersign_store::{
    BegunRead, CLOCKS_DIFFER, DecisionEnd, EndingRead, IdKind, ReadEnd, ReadStart, ReadState,
    ReaderMeter, RiskAction, RiskDecision, RiskEvent, RiskKind, RiskNoted, RiskWatch, StoreError,
};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, entry, id};

const SECOND: Duration = Duration::from_secs(1);

fn watch(rule: &str, label: Option<&str>, since: u64, at_least: u32) -> RiskWatch {
    RiskWatch {
        rule: rule.to_owned(),
        kind: RiskKind::Errors,
        label: label.map(str::to_owned),
        since: at(since),
        horizon: at(1_000_000),
        at_least,
    }
}

fn error(label: &str) -> RiskEvent {
    RiskEvent::one(RiskKind::Errors, label)
}

async fn note(db: &Db, reader: &str, millis: u64, events: &[RiskEvent]) -> RiskNoted {
    look(db, reader, millis, events, &[]).await
}

async fn look(
    db: &Db,
    reader: &str,
    millis: u64,
    events: &[RiskEvent],
    watches: &[RiskWatch],
) -> RiskNoted {
    let (reader, events, watches) = (reader.to_owned(), events.to_vec(), watches.to_vec());
    db.tx(move |tx| tx.note_risk(&reader, at(millis), &events, &watches)).await
}

fn decision(reader: &str, name: &str, rule: &str) -> RiskDecision {
    RiskDecision {
        id: id(IdKind::Decision, name),
        device_id: reader.to_owned(),
        rule: rule.to_owned(),
        terms: "{}".to_owned(),
        counted: 3,
        action: RiskAction::Block,
        pause: None,
        reason: format!("rule {rule}: {name}"),
        at: at(100),
        until: None,
        up_to_event: 0,
        end: None,
    }
}

async fn open(db: &Db, decision: &RiskDecision) -> bool {
    let decision = decision.clone();
    db.tx(move |tx| tx.open_decision(&decision)).await
}

fn ended(millis: u64) -> DecisionEnd {
    DecisionEnd { at: at(millis), by: "opr_1".to_owned(), reason: "looked at it".to_owned() }
}

fn start(reader: &str, client: u8, session: &str, millis: u64) -> ReadStart {
    ReadStart {
        id: id(IdKind::Read, &format!("{session}{client}")),
        device_id: reader.to_owned(),
        client_read_id: [client; 16],
        at: at(millis),
        session_id: session.to_owned(),
    }
}

fn meter(millis: u64) -> ReaderMeter {
    ReaderMeter {
        begun_at: at(millis),
        empty_at: at(millis + 20),
        peer: "192.0.2.1".to_owned(),
        peer_before: String::new(),
        peer_before_at: at(0),
    }
}

pub(crate) async fn windows_count_what_is_in_them(db: Db) {
    let (one, two) = (db.reader("S1").await, db.reader("S2").await);
    for millis in [100, 200, 300] {
        note(&db, &one, millis, &[error("packets")]).await;
    }
    note(&db, &one, 300, &[error("card-removed")]).await;
    note(&db, &two, 300, &[error("packets")]).await;
    let counts = async |watches: &[RiskWatch]| look(&db, &one, 300, &[], watches).await.counts;
    assert_eq!(counts(&[watch("r", None, 0, 100)]).await, [4]);
    assert_eq!(counts(&[watch("r", None, 100, 100)]).await, [3], "at the edge it is out");
    assert_eq!(counts(&[watch("r", None, 99, 100)]).await, [4]);
    assert_eq!(counts(&[watch("r", None, 300, 100)]).await, [0]);
    let packets = watch("r", Some("packets"), 0, 100);
    let removed = watch("r", Some("card-removed"), 0, 100);
    assert_eq!(counts(&[packets.clone(), removed]).await, [3, 1], "each in its order");
    assert_eq!(counts(&[watch("r", None, 0, 2)]).await, [2], "no further than it must");
    let early = RiskWatch { horizon: at(200), ..packets };
    assert_eq!(counts(&[early]).await, [2], "what a clock that was ahead stored is left out");
    let reads = RiskWatch { kind: RiskKind::Reads, ..watch("r", None, 0, 100) };
    assert_eq!(counts(&[reads]).await, [0]);
}

pub(crate) async fn events_count_with_those_that_come_with_them(db: Db) {
    let reader = db.reader("S1").await;
    let resent = |amount| RiskEvent { kind: RiskKind::Resent, label: String::new(), amount };
    let wide = RiskWatch { kind: RiskKind::Resent, ..watch("r", None, 0, 10) };
    let first = look(&db, &reader, 1, &[resent(4), error("a")], std::slice::from_ref(&wide)).await;
    assert_eq!(first.counts, [4], "amounts add up, and the event itself counts");
    let second = look(&db, &reader, 2, &[resent(7)], &[wide]).await;
    assert_eq!(second.counts, [11]);
    assert!(second.last_event > first.last_event && first.last_event > 0);
    let key = reader.clone();
    let totals = db.tx(move |tx| tx.reader_counts(&key)).await;
    let shown: Vec<_> = totals.iter().map(|c| (&*c.kind, &*c.label, c.total)).collect();
    assert_eq!(shown, [("errors", "a", 1), ("resent", "", 11)]);
    assert_eq!(totals[1].last_at, at(2));
    let key = reader.clone();
    let recent = db.tx(move |tx| tx.recent_counts(&key, at(1))).await;
    let shown: Vec<_> = recent.iter().map(|c| (&*c.kind, &*c.label, c.total)).collect();
    assert_eq!(shown, [("resent", "", 7)]);
    let key = reader.clone();
    let page = db.tx(move |tx| tx.risk_events_page(&key, None, 2)).await;
    assert_eq!(page.items.len(), 2);
    assert_eq!((page.items[0].id, page.items[0].event.amount), (second.last_event, 7));
    let next = page.next.unwrap();
    let key = reader.clone();
    let rest = db.tx(move |tx| tx.risk_events_page(&key, Some(&next), 2)).await;
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let refused = db.refused(|tx| tx.note_risk("rdr_nobody", at(1), &[error("a")], &[])).await;
    assert_eq!(refused, StoreError::NotFound { what: "referenced row" });
    let long = "x".repeat(257);
    let refused = db.refused(move |tx| tx.note_risk("x", at(1), &[error(&long)], &[])).await;
    assert_eq!(refused, StoreError::Refused { check: "text-too-long" });
}

pub(crate) async fn a_rule_decides_once_and_counts_anew_after_it(db: Db) {
    let reader = db.reader("S1").await;
    let noted = note(&db, &reader, 1, &[error("a"), error("b")]).await;
    let mut first = decision(&reader, "first", "bad");
    first.up_to_event = noted.last_event;
    assert!(open(&db, &first).await);
    assert!(!open(&db, &decision(&reader, "again", "bad")).await, "it stands");
    assert!(open(&db, &decision(&reader, "other", "other-rule")).await, "another rule's does not");
    let watches = [watch("bad", None, 0, 9), watch("other", None, 0, 9)];
    let counted = look(&db, &reader, 2, &[error("c")], &watches).await;
    assert_eq!(counted.counts, [1, 3], "what led to the decision is used up");

    let (key, decision_id) = (reader.clone(), first.id.clone());
    let reverse = move |tx: &mut countersign_store::Tx<'_>| {
        tx.reverse_decision(&key, &decision_id, &ended(200))
    };
    let reversed = db.tx(reverse.clone()).await;
    assert_eq!(reversed.end, Some(ended(200)));
    assert!(!reversed.stands(at(150)));
    assert_eq!(db.refused(reverse).await, StoreError::Refused { check: "decision-ended" });
    let counted = look(&db, &reader, 3, &[error("d")], &watches[..1]).await;
    assert_eq!(counted.counts, [1], "and what came before the reversal too");
    assert!(open(&db, &decision(&reader, "second", "bad")).await, "it may decide again");
    let key = reader.clone();
    let missing = db.refused(move |tx| tx.reverse_decision(&key, "dec_none", &ended(1))).await;
    assert_eq!(missing, StoreError::NotFound { what: "decision" });
    let other = db.reader("S2").await;
    let foreign = decision(&reader, "second", "bad").id;
    let missing = db.refused(move |tx| tx.reverse_decision(&other, &foreign, &ended(1))).await;
    assert_eq!(missing, StoreError::NotFound { what: "decision" }, "another reader's");
    let key = reader.clone();
    let page = db.tx(move |tx| tx.decisions_page(&key, None, 200)).await;
    assert_eq!(page.items.len(), 3);
    let found = page.items.into_iter().find(|found| found.id == first.id).unwrap();
    assert!(found.up_to_event > noted.last_event);
    let expected = RiskDecision { up_to_event: found.up_to_event, end: Some(ended(200)), ..first };
    assert_eq!(found, expected, "as it was stored");
}

pub(crate) async fn racing_decisions_make_one(db: Db) {
    let reader = db.reader("S1").await;
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let (store, decision) = (db.store.clone(), decision(&reader, &number.to_string(), "bad"));
        tasks.spawn(async move {
            store.run_snapshot("race", move |tx| tx.open_decision(&decision)).await
        });
    }
    let opened: Vec<bool> =
        tasks.join_all().await.into_iter().map(Result::<_, StoreError>::unwrap).collect();
    assert_eq!(opened.iter().filter(|opened| **opened).count(), 1);
}

/// Reads of one reader that begin at the same moment: each counts, and each sees the one before.
pub(crate) async fn racing_reads_of_one_reader_all_count(db: Db) {
    const TASKS: u32 = 30;
    let reader = db.reader("S1").await;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (store, key) = (db.store.clone(), reader.clone());
        let client = u8::try_from(number).unwrap();
        let start = start(&key, client, &format!("s{number}"), 1);
        tasks.spawn(async move {
            let begun = store.run_snapshot("race", move |tx| {
                let before = tx.reader_gate(&start, at(0))?.meter.map(|meter| meter.empty_at);
                let empty_at = before.unwrap_or(at(0)).plus(SECOND);
                let next = ReaderMeter { empty_at, ..meter(1) };
                let events = [RiskEvent::one(RiskKind::Reads, "")];
                tx.begin_watched_read(&start, &next, &events, &[]).map(|_| ())
            });
            begun.await
        });
    }
    for begun in tasks.join_all().await {
        begun.unwrap_or_else(|error: StoreError| panic!("{error}"));
    }
    let key = reader.clone();
    assert_eq!(db.tx(move |tx| tx.reader_counts(&key)).await[0].total, i64::from(TASKS));
    let last = start(&reader, 99, "last", 2);
    let meter = db.tx(move |tx| tx.reader_gate(&last, at(0))).await.meter.unwrap();
    assert_eq!(meter.empty_at, at(0).plus(SECOND * TASKS), "none was lost");
}

pub(crate) async fn decisions_end_with_their_time(db: Db) {
    let reader = db.reader("S1").await;
    let mut short = decision(&reader, "short", "bad");
    short.until = Some(at(1100));
    let mut ahead = decision(&reader, "ahead", "ahead");
    (ahead.at, ahead.until) = (at(9_000_000), Some(at(9_001_000)));
    for decision in [&short, &ahead, &decision(&reader, "for good", "good")] {
        assert!(open(&db, decision).await);
    }
    let next = RiskDecision { at: at(1099), ..decision(&reader, "next", "bad") };
    assert!(!open(&db, &next).await);
    let next = RiskDecision { at: at(1100), ..next };
    assert!(open(&db, &next).await, "its time is over: another may be made");
    assert_eq!(db.tx(|tx| tx.end_decisions(at(1200), 10)).await, 1, "that of a clock ahead");
    assert_eq!(db.tx(|tx| tx.end_decisions(at(1200), 10)).await, 0);
    let key = reader.clone();
    let open = db.tx(move |tx| tx.open_decisions(&key, 10)).await;
    let mut names: Vec<_> = open.iter().map(|decision| &*decision.rule).collect();
    names.sort_unstable();
    assert_eq!(names, ["bad", "good"]);
    let found = db.tx(move |tx| tx.decisions_page(&reader, None, 10)).await.items;
    let end =
        |name: &str| found.iter().find(|d| d.rule == name && d.end.is_some()).unwrap().clone();
    assert_eq!(end("bad").end.unwrap().by, "system");
    assert_eq!(end("ahead").end.unwrap().at, at(1200));
}

/// An operator's block and a rule's lie beside each other, and each is lifted by itself.
pub(crate) async fn blocks_are_kept_apart(db: Db) {
    let reader = db.reader("S1").await;
    let record = async || {
        let key = reader.clone();
        db.tx(move |tx| tx.device_by_id(&key)).await.unwrap()
    };
    assert_eq!(record().await.blocked(at(1)), None);
    let mut short = decision(&reader, "short", "short");
    short.until = Some(at(5000));
    open(&db, &short).await;
    assert_eq!(record().await.blocked(at(4999)), Some("rule short: short"));
    assert_eq!(record().await.blocked(at(5000)), None, "its time is over");
    let long = decision(&reader, "long", "long");
    open(&db, &long).await;
    assert_eq!(record().await.blocked(at(9000)), Some("rule long: long"), "the most lasting");
    let warning = RiskDecision { action: RiskAction::Warn, ..decision(&reader, "w", "w") };
    open(&db, &warning).await;
    let key = reader.clone();
    db.tx(move |tx| tx.block_device(&key, "stolen", at(6000))).await;
    assert_eq!(record().await.blocked(at(9000)), Some("stolen"));
    let (key, end) = (reader.clone(), ended(7000));
    db.tx(move |tx| tx.reverse_decision(&key, &long.id, &end).map(|_| ())).await;
    assert_eq!(record().await.blocked(at(9000)), Some("stolen"), "the operator's stays");
    let key = reader.clone();
    db.tx(move |tx| tx.unblock_device(&key, at(8000))).await;
    assert_eq!(record().await.blocked(at(9000)), None);
    assert_eq!(record().await.blocked(at(4999)), Some("rule short: short"), "a rule's stays");
    let page = db.tx(|tx| tx.devices_page(countersign_store::DeviceKind::Reader, None, 5)).await;
    assert_eq!(page.items, [record().await], "one row per device, however many blocks");
}

pub(crate) async fn the_gate_shows_what_decides(db: Db) {
    let reader = db.reader("S1").await;
    let gate = async |start: ReadStart| db.tx(move |tx| tx.reader_gate(&start, at(50))).await;
    let empty = gate(start(&reader, 1, "one", 100)).await;
    assert!(empty.record.is_some() && empty.meter.is_none() && empty.throttles.is_empty());
    assert!(!empty.overlaps);
    assert_eq!(gate(start("rdr_nobody", 1, "one", 100)).await.record, None);

    let first = start(&reader, 1, "one", 100);
    let begun = async |start: ReadStart, meter: ReaderMeter| {
        let events = [RiskEvent::one(RiskKind::Reads, "")];
        let watch = RiskWatch { kind: RiskKind::Reads, ..watch("fast", None, 0, 5) };
        db.tx(move |tx| {
            tx.begin_watched_read(&start, &meter, &events, std::slice::from_ref(&watch))
        })
        .await
    };
    let (read, noted) = begun(first.clone(), meter(100)).await;
    assert_eq!((read.state, read.attempt, noted.counts), (ReadState::Started, 1, vec![1]));
    let same = gate(first.clone()).await;
    assert_eq!(same.meter, Some(meter(100)));
    assert!(!same.overlaps, "its own");
    assert!(!gate(start(&reader, 2, "one", 100)).await.overlaps, "the same session");
    assert!(!gate(start(&reader, 1, "two", 100)).await.overlaps, "the same read, tried again");
    assert!(gate(start(&reader, 2, "two", 100)).await.overlaps, "two at once");
    let late = start(&reader, 2, "two", 100);
    let long_ago = db.tx(move |tx| tx.reader_gate(&late, at(100))).await;
    assert!(!long_ago.overlaps, "one that nobody ended");
    let (again, noted) = begun(start(&reader, 1, "three", 200), meter(200)).await;
    assert_eq!((again.attempt, noted.counts), (2, vec![2]));
    assert_eq!(gate(first.clone()).await.meter, Some(meter(200)));

    let throttle = RiskDecision {
        action: RiskAction::Throttle,
        pause: Some(5 * SECOND),
        until: Some(at(100_000)),
        ..decision(&reader, "slow", "flood")
    };
    open(&db, &throttle).await;
    let throttles = gate(first).await.throttles;
    assert_eq!((&*throttles[0].rule, throttles[0].pause), ("flood", 5 * SECOND));
    assert!(throttles[0].stands(at(99_999)) && !throttles[0].stands(at(100_000)));
    assert!(!throttles[0].stands(at(100).minus(CLOCKS_DIFFER + SECOND)));
}

/// What a read's end writes is one transaction: its row, its audit entry, its events.
pub(crate) async fn a_read_ends_with_its_events(db: Db) {
    let reader = db.reader("S1").await;
    let key = start(&reader, 1, "one", 100);
    let begun = db.tx(move |tx| tx.begin_read(&key)).await;
    let failed = ReadEnd::Failed { check: "packets".to_owned(), sam_id: None };
    let ending = EndingRead {
        device_id: reader.clone(),
        begun: begun.clone(),
        end: Some(failed.clone()),
        at: at(110),
    };
    let end = async |ending: EndingRead| {
        let watches = [watch("bad", None, 0, 9)];
        let finish = db.store.run_snapshot("end", move |tx| {
            tx.finish_watched_read(&ending, &entry(1), &[error("packets")], &watches)
        });
        finish.await
    };
    assert_eq!(end(ending.clone()).await.unwrap().counts, [1]);
    let key = begun.id.clone();
    let row = db.tx(move |tx| tx.read_by_id(&key)).await.unwrap();
    assert_eq!((row.state, row.failed_check.as_deref()), (ReadState::Failed, Some("packets")));
    // Late: the row stays, the event and the entry are kept.
    assert_eq!(end(ending.clone()).await.unwrap().counts, [2]);
    // A record must not be handed out by an attempt that is not the latest: nothing is kept.
    let done = ReadEnd::Done { sam_id: "s".to_owned(), document_type: "citizen".to_owned() };
    let late = EndingRead { end: Some(done.clone()), ..ending.clone() };
    let superseded = StoreError::Refused { check: "read-superseded" };
    assert_eq!(end(late).await.unwrap_err(), superseded);
    let unknown = BegunRead { id: "read_none".to_owned(), ..begun };
    let unknown = EndingRead { begun: unknown, ..ending.clone() };
    assert_eq!(end(unknown).await.unwrap_err(), StoreError::NotFound { what: "read" });
    assert_eq!(db.tx(|tx| tx.audit_page(None, 10)).await.items.len(), 2);

    let key = start(&reader, 2, "one", 200);
    let begun = db.tx(move |tx| tx.begin_read(&key)).await;
    let ending = EndingRead { begun, end: Some(done), ..ending };
    assert_eq!(end(ending.clone()).await.unwrap().counts, [3]);
    let repeated = EndingRead { end: None, ..ending };
    assert_eq!(end(repeated).await.unwrap().counts, [4], "a read that was done before");
    let key = reader.clone();
    let totals = db.tx(move |tx| tx.reader_counts(&key)).await;
    let shown: Vec<_> = totals.iter().map(|c| (&*c.kind, c.total)).collect();
    assert_eq!(shown, [("done", 1), ("errors", 4)]);
    let key = reader.clone();
    let ids = db.tx(move |tx| tx.reads_done_since(&key, at(0))).await;
    assert_eq!(ids, 1);
    assert_eq!(db.tx(move |tx| tx.reads_done_since(&reader, at(1))).await, 0);
}

pub(crate) async fn old_events_go_in_bounded_turns(db: Db) {
    let reader = db.reader("S1").await;
    for millis in [10, 20, 30, 40, 9_000_000] {
        note(&db, &reader, millis, &[error("a")]).await;
    }
    let remove =
        async |limit| db.tx(move |tx| tx.remove_risk_events(at(40), at(1_000_000), limit)).await;
    assert_eq!(remove(2).await, 2);
    assert_eq!(remove(2).await, 2, "one that is old and one of a clock that was ahead");
    assert_eq!(remove(2).await, 0);
    let key = reader.clone();
    let left = db.tx(move |tx| tx.risk_events_page(&key, None, 10)).await.items;
    assert_eq!(left.iter().map(|row| row.at).collect::<Vec<_>>(), [at(40)]);
    let totals = db.tx(move |tx| tx.reader_counts(&reader)).await;
    assert_eq!(totals[0].total, 5, "totals stay");
}
