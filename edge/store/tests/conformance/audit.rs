use countersign_store::{
    AuditEntry, AuditOutcome, ChainOutcome, LEASE_TIME, MAX_DETAIL_LEN, StoreError,
};
use tokio::task::JoinSet;

use crate::fixture::{Auditor, Backend, Db, append, at, entry};

pub(crate) async fn rows_are_found_again(db: Db) {
    let refused = AuditEntry {
        outcome: AuditOutcome::Refused,
        check: Some("reader-signature".to_owned()),
        incident: Some("inc_1".to_owned()),
        detail: r#"{"说":"明"}"#.to_owned(),
        ..entry(2)
    };
    db.append(1, 1).await;
    let row = refused.clone();
    db.tx(move |tx| tx.append_audit(&row)).await;
    db.append(3, 1).await;
    let found = db.tx(|tx| tx.audit_by_incident("inc_1")).await;
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].entry, found[0].position), (&refused, None));
    assert!(db.tx(|tx| tx.audit_by_incident("inc_2")).await.is_empty());

    let page = db.tx(|tx| tx.audit_page(None, 2)).await;
    let cursor = page.next.clone();
    let rest = db.tx(move |tx| tx.audit_page(cursor.as_deref(), 2)).await;
    let subjects: Vec<_> =
        page.items.iter().chain(&rest.items).map(|row| row.entry.subject.as_str()).collect();
    assert_eq!((subjects, rest.next), (vec!["3", "2", "1"], None));
    let error = db.refused(|tx| tx.audit_page(Some("abc"), 2)).await;
    assert_eq!(error, StoreError::Refused { check: "page-cursor" });

    let actor = "x".repeat(countersign_store::MAX_TEXT_LEN + 1);
    let long = AuditEntry { actor, ..entry(4) };
    let error = db.refused(move |tx| tx.append_audit(&long)).await;
    assert_eq!(error, StoreError::Refused { check: "text-too-long" });
    let long = AuditEntry { detail: "x".repeat(MAX_DETAIL_LEN + 1), ..entry(4) };
    let error = db.refused(move |tx| tx.append_audit(&long)).await;
    assert_eq!(error, StoreError::Refused { check: "detail-too-long" });
}

pub(crate) async fn rows_cannot_be_changed(db: Db) {
    db.append(1, 3).await;
    let mut auditor = Auditor::new(1);
    auditor.chain_all(&db.store, 100).await;
    for statement in [
        "UPDATE audit_rows SET subject = 'x'",
        "DELETE FROM audit_rows",
        "UPDATE audit_chain SET position = position + 1",
        "DELETE FROM audit_chain",
        "UPDATE audit_checkpoints SET at = 0",
        "DELETE FROM audit_checkpoints",
    ] {
        let error = db.refused(move |tx| tx.execute(statement, &[])).await;
        assert_eq!(error, StoreError::Refused { check: "append-only" }, "{statement}");
    }
    let around = match db.backend {
        Backend::Postgres => "TRUNCATE audit_rows, audit_chain, audit_checkpoints CASCADE",
        _ => {
            "INSERT OR REPLACE INTO audit_rows (id, at, actor, action, subject, outcome, detail)
             VALUES (1, 1, 'a', 'b', 'c', 'done', '{}')"
        }
    };
    let error = db.refused(move |tx| tx.execute(around, &[])).await;
    assert_eq!(error, StoreError::Refused { check: "append-only" });
    assert_eq!(auditor.verify(&db.store, &[]).await.first_bad, None);
}

pub(crate) async fn rows_are_linked_and_verified(db: Db) {
    let mut auditor = Auditor::new(1);
    let empty = auditor.verify(&db.store, &[]).await;
    assert_eq!((empty.chained, empty.unchained, empty.checkpoints), (0, 0, 0));
    assert_eq!(empty.first_bad, None);
    assert_eq!(auditor.chain(&db.store, at(0), "one", 10).await, Ok(ChainOutcome::Idle));

    db.append(1, 5).await;
    let ChainOutcome::Linked { rows, checkpoint } =
        auditor.chain(&db.store, at(0), "one", 2).await.unwrap()
    else {
        panic!("there were rows to link");
    };
    assert_eq!((rows, checkpoint.position), (2, 2));
    let report = auditor.verify(&db.store, std::slice::from_ref(&checkpoint)).await;
    assert_eq!((report.chained, report.unchained, report.checkpoints), (2, 3, 1));
    assert_eq!(report.first_bad, None);

    let mut file = vec![checkpoint];
    file.extend(auditor.chain_all(&db.store, 2).await);
    assert_eq!(file.len(), 3);
    let report = auditor.verify(&db.store, &file).await;
    assert_eq!((report.chained, report.unchained, report.checkpoints), (5, 0, 3));
    assert_eq!(report.first_bad, None);
    let page = db.tx(|tx| tx.audit_page(None, 10)).await;
    let positions: Vec<_> = page.items.iter().map(|row| row.position.unwrap()).collect();
    assert_eq!(positions, [5, 4, 3, 2, 1]);
    // The file may lag behind the store, and its lines survive being text.
    let line: countersign_store::Checkpoint = file[0].to_string().parse().unwrap();
    assert_eq!(auditor.verify(&db.store, &[line]).await.first_bad, None);
}

pub(crate) async fn one_chainer_at_a_time(db: Db) {
    let mut auditor = Auditor::new(1);
    db.append(1, 6).await;
    let linked = auditor.chain(&db.store, at(0), "one", 1).await.unwrap();
    assert!(matches!(linked, ChainOutcome::Linked { rows: 1, .. }));
    let other = auditor.chain(&db.store, at(1), "two", 1).await.unwrap();
    assert_eq!(other, ChainOutcome::NotElected);
    let lapsed = at(0).plus(LEASE_TIME);
    let other = auditor.chain(&db.store, lapsed, "two", 1).await.unwrap();
    assert!(matches!(other, ChainOutcome::Linked { rows: 1, .. }), "the lease lapsed");
    let first = auditor.chain(&db.store, lapsed, "one", 1).await.unwrap();
    assert_eq!(first, ChainOutcome::NotElected);
    db.tx(|tx| tx.release_lease("audit-chain", "one")).await; // not its own: nothing happens
    assert_eq!(
        db.tx(move |tx| tx.lease_holder("audit-chain", lapsed)).await.as_deref(),
        Some("two")
    );
    db.tx(|tx| tx.release_lease("audit-chain", "two")).await;
    let first = auditor.chain(&db.store, lapsed, "one", 1).await.unwrap();
    assert!(matches!(first, ChainOutcome::Linked { rows: 1, .. }));
    assert_eq!(auditor.verify(&db.store, &[]).await.first_bad, None);

    // A chainer whose clock was years ahead died with the lease: nobody waits for those years.
    let years = std::time::Duration::from_secs(10 * 365 * 86_400);
    db.tx(|tx| tx.release_lease("audit-chain", "one")).await;
    let ahead = lapsed.plus(years);
    assert!(db.tx(move |tx| tx.take_lease("audit-chain", "ahead", ahead, LEASE_TIME)).await);
    let next = auditor.chain(&db.store, lapsed, "next", 1).await.unwrap();
    assert!(matches!(next, ChainOutcome::Linked { rows: 1, .. }), "{next:?}");
    // One whose clock is ahead by a minute keeps it.
    let minute = lapsed.plus(std::time::Duration::from_secs(60));
    db.tx(|tx| tx.release_lease("audit-chain", "next")).await;
    assert!(db.tx(move |tx| tx.take_lease("audit-chain", "ahead", minute, LEASE_TIME)).await);
    let next = auditor.chain(&db.store, lapsed, "next", 1).await.unwrap();
    assert_eq!(next, ChainOutcome::NotElected);
}

pub(crate) async fn racing_chainers_never_fork(db: Db) {
    db.append(1, 60).await;
    let mut tasks = JoinSet::new();
    for number in 0..4_u64 {
        let store = db.store.clone();
        // All hold the lease, by the same name: as when clocks differ by more than its time.
        tasks.spawn(async move {
            let mut auditor = Auditor::new(1);
            let mut linked = 0;
            for round in 0..12 {
                append_one(&store, 1000 + number * 100 + round).await;
                match auditor.chain(&store, at(0), "all", 7).await.unwrap() {
                    ChainOutcome::Linked { rows, .. } => linked += u64::from(rows),
                    ChainOutcome::NotElected | ChainOutcome::Idle => {}
                }
            }
            linked
        });
    }
    let linked: u64 = tasks.join_all().await.into_iter().sum();
    let report = Auditor::new(1).verify(&db.store, &[]).await;
    assert_eq!(report.first_bad, None);
    assert_eq!(report.chained, linked, "every link was reported by one chainer");
    assert_eq!(report.chained + report.unchained, 60 + 48);
    assert!(linked > 0);
}

async fn append_one(store: &countersign_store::Store, number: u64) {
    store.run_tx::<_, StoreError, _>("test", move |tx| append(tx, number)).await.unwrap();
}

pub(crate) async fn undone_decisions_leave_no_row(db: Db) {
    db.append(1, 1).await;
    let undone = db
        .refused(|tx| {
            append(tx, 2)?;
            Err::<(), _>(StoreError::Refused { check: "test" })
        })
        .await;
    assert_eq!(undone, StoreError::Refused { check: "test" });
    db.append(3, 1).await;
    let mut auditor = Auditor::new(1);
    auditor.chain_all(&db.store, 10).await;
    let report = auditor.verify(&db.store, &[]).await;
    assert_eq!((report.chained, report.unchained, report.first_bad), (2, 0, None));
}

pub(crate) async fn long_chains_are_walked_in_pages(db: Db) {
    // Page borders of the verifier (500) fall on and beside checkpoints.
    let mut auditor = Auditor::new(1);
    let mut file = Vec::new();
    for (first, count) in [(0, 500), (500, 499), (999, 302)] {
        db.append(first, count).await;
        file.extend(auditor.chain_all(&db.store, 2000).await);
        let report = auditor.verify(&db.store, &file).await;
        assert_eq!((report.chained, report.first_bad), (first + count, None));
    }
    assert_eq!(auditor.verify(&db.store, &file).await.checkpoints, 3);
}

pub(crate) async fn verifying_while_others_write_finds_nothing(db: Db) {
    let store = db.store.clone();
    let writer = tokio::spawn(async move {
        let mut auditor = Auditor::new(1);
        for round in 0..15 {
            for number in 0..6 {
                append_one(&store, round * 100 + number).await;
            }
            auditor.chain(&store, at(round), "one", 5).await.unwrap();
        }
    });
    let auditor = Auditor::new(1);
    let mut rounds = 0;
    while !writer.is_finished() || rounds == 0 {
        assert_eq!(auditor.verify(&db.store, &[]).await.first_bad, None);
        rounds += 1;
    }
    writer.await.unwrap();
    let report = auditor.verify(&db.store, &[]).await;
    assert_eq!((report.chained, report.unchained, report.checkpoints), (75, 15, 15));
}
