use std::sync::{Arc, Condvar, Mutex};

use countersign_store::{Column, QUEUE_LEN, StoreError, Value};
use tokio::task::JoinSet;

use crate::fixture::{Db, append, at, device, operator};

#[derive(Debug, PartialEq)]
enum Refusal {
    Mine,
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

async fn subjects(db: &Db) -> Vec<String> {
    let rows = db.store.read::<_, StoreError, _>("test", |tx| {
        tx.query("SELECT subject FROM audit_rows ORDER BY id", &[])
    });
    rows.await.unwrap().iter().map(|row| row.text(0).unwrap().to_owned()).collect()
}

pub(crate) async fn acknowledged_work_is_seen(db: Db) {
    for number in 0..20 {
        db.append(number, 1).await;
        assert_eq!(subjects(&db).await.len() as u64, number + 1);
    }
    db.store.ping().await.unwrap();
}

pub(crate) async fn an_error_undoes_only_itself(db: Db) {
    let mut tasks = JoinSet::new();
    for number in 0..60_u64 {
        let store = db.store.clone();
        tasks.spawn(async move {
            let done = store.run_tx("test", move |tx| {
                append(tx, number)?;
                if number % 2 == 0 { Ok(()) } else { Err(Refusal::Mine) }
            });
            (number, done.await)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        let (number, done) = ended.unwrap();
        assert_eq!(done, if number % 2 == 0 { Ok(()) } else { Err(Refusal::Mine) });
    }
    let mut stored: Vec<u64> =
        subjects(&db).await.iter().map(|subject| subject.parse().unwrap()).collect();
    stored.sort_unstable();
    assert_eq!(stored, (0..60).step_by(2).collect::<Vec<_>>());
}

pub(crate) async fn a_panic_undoes_only_itself(db: Db) {
    let panicking = |tx: &mut countersign_store::Tx<'_>| -> Result<(), StoreError> {
        append(tx, 1)?;
        panic!("this panic belongs to the test");
    };
    let store = db.store.clone();
    let error = store.run_tx("panicking", panicking).await.unwrap_err();
    assert_eq!(error, StoreError::Panicked { name: "panicking" });
    let error = store.read("panicking", |_| -> Result<(), StoreError> {
        panic!("this panic belongs to the test");
    });
    assert_eq!(error.await.unwrap_err(), StoreError::Panicked { name: "panicking" });
    db.append(2, 1).await;
    assert_eq!(subjects(&db).await, ["2"]);
}

pub(crate) async fn a_failed_statement_dooms_its_transaction(db: Db) {
    db.operator("ada").await;
    let conflict = StoreError::Conflict { constraint: "operators_name_key".to_owned() };
    let wanted = conflict.clone();
    let error = db
        .refused(move |tx| {
            append(tx, 1)?;
            let mut other = operator("ada");
            other.id.push('x');
            assert_eq!(tx.insert_operator(&other), Err(wanted.clone()));
            // Whatever is tried next gets the same answer, and so does the caller.
            assert_eq!(append(tx, 2), Err(wanted.clone()));
            Ok(())
        })
        .await;
    assert_eq!(error, conflict);
    assert!(subjects(&db).await.is_empty());
    // A value that never reached the database dooms nothing.
    db.tx(|tx| {
        let refused = tx.query("SELECT CAST(?1 AS TEXT)", &["a\0".into()]);
        assert_eq!(refused, Err(StoreError::Refused { check: "text-nul" }));
        append(tx, 3)
    })
    .await;
    assert_eq!(subjects(&db).await, ["3"]);
    // The closure's own name for the database's refusal reaches the caller.
    let renamed = db
        .store
        .run_tx("test", |tx| tx.insert_operator(&operator("ada")).map_err(|_| Refusal::Mine));
    assert_eq!(renamed.await, Err(Refusal::Mine));
}

pub(crate) async fn conflicts_have_one_name_everywhere(db: Db) {
    db.operator("ada").await;
    db.reader("S1").await;
    let conflict = |name: &str| StoreError::Conflict { constraint: name.to_owned() };
    // One rule at a time: which of several is named is not promised.
    let same_id = db
        .refused(|tx| {
            let name = "eve".to_owned();
            tx.insert_operator(&countersign_store::Operator { name, ..operator("ada") })
        })
        .await;
    assert_eq!(same_id, conflict("operators_id_key"));
    let mut twin = device("S1");
    twin.id.push('x');
    let same_serial = db.refused(move |tx| tx.insert_device(&twin)).await;
    assert_eq!(same_serial, conflict("devices_kind_serial_key"));
    db.append(1, 1).await;
    let link = "INSERT INTO audit_chain (position, row_id, hash)
                SELECT ?1, id, ?2 FROM audit_rows";
    let hash: Value = (&[0_u8; 32]).into();
    let first = hash.clone();
    db.tx(move |tx| tx.execute(link, &[1_i64.into(), first.clone()])).await;
    let second = hash.clone();
    let same_row = db.refused(move |tx| tx.execute(link, &[2_i64.into(), second.clone()])).await;
    assert_eq!(same_row, conflict("audit_chain_row_id_key"));
    let link = "INSERT INTO audit_chain (position, row_id, hash) VALUES (1, 77, ?1)";
    let fork = db.refused(move |tx| tx.execute(link, std::slice::from_ref(&hash))).await;
    assert_eq!(fork, conflict("audit_chain_position_key"));
}

pub(crate) async fn bad_statements_are_misuse(db: Db) {
    let misuse = |error: StoreError| assert!(matches!(error, StoreError::Misuse { .. }), "{error}");
    misuse(db.refused(|tx| tx.query("SELEC 1", &[])).await);
    misuse(db.refused(|tx| tx.query("SELECT 1 FROM nowhere", &[])).await);
    misuse(db.refused(|tx| tx.query("SELECT ?", &[1_i64.into()])).await);
    misuse(db.refused(|tx| tx.query("SELECT id FROM reads WHERE id = ?1", &[])).await);
    let two = ["a".into(), "b".into()];
    misuse(db.refused(move |tx| tx.query("SELECT id FROM reads WHERE id = ?1", &two)).await);
    let unknown_device = "INSERT INTO certificates
        (number, device_id, public_key, state, not_after, intended_at)
        VALUES ('00', 'nobody', ?1, 'intended', 1, 1)";
    let error = db.refused(|tx| tx.execute(unknown_device, &[(&[0_u8; 32]).into()])).await;
    assert_eq!(error, StoreError::NotFound { what: "referenced row" });
    let missing = "INSERT INTO leases (name, holder) VALUES ('a', 'b')";
    misuse(db.refused(|tx| tx.execute(missing, &[])).await);
    db.store.ping().await.unwrap();
}

pub(crate) async fn reads_cannot_write(db: Db) {
    let error = db.store.read("test", |tx| append(tx, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Misuse { .. }), "{error}");
    assert!(subjects(&db).await.is_empty());
    db.append(1, 1).await;
    assert_eq!(subjects(&db).await, ["1"]);
}

pub(crate) async fn values_keep_their_types(db: Db) {
    let row = db
        .tx(|tx| {
            let sql = "SELECT CAST(?1 AS BIGINT), CAST(?2 AS TEXT), ?3 || ?3, CAST(?4 AS BIGINT),
                              CAST(?5 AS TEXT), CAST(?6 AS BOOLEAN)";
            let values = [
                i64::MIN.into(),
                "身份证 '?1' \"$2\" \\".into(),
                Value::from("a"),
                at(0).into(),
                Value::Null,
                true.into(),
            ];
            tx.query_one(sql, &values)
        })
        .await
        .unwrap();
    assert_eq!(row.int(0), Ok(i64::MIN));
    assert_eq!(row.text(1), Ok("身份证 '?1' \"$2\" \\"));
    assert_eq!(row.text(2), Ok("aa"));
    assert_eq!(row.time(3), Ok(at(0)));
    assert_eq!(row.opt_text(4), Ok(None));
    assert_eq!(row.bool(5), Ok(true));
    // Types are kept by the tables too.
    let wrong = "INSERT INTO leases (name, holder, until) VALUES ('a', 'b', ?1)";
    let error = db.refused(|tx| tx.execute(wrong, &["soon".into()])).await;
    assert!(matches!(error, StoreError::Misuse { .. }), "{error}");
}

pub(crate) async fn many_rows_at_once(db: Db) {
    let columns = [("name", Column::Text), ("holder", Column::Text), ("until", Column::Int)];
    let rows: Vec<Vec<Value>> =
        (0..1000_i64).map(|n| vec![format!("lease {n}").into(), "me".into(), n.into()]).collect();
    let all = rows.clone();
    db.tx(move |tx| tx.insert_many("leases", &columns, &all)).await;
    let row = db.tx(|tx| tx.query_one("SELECT count(*), max(until) FROM leases", &[])).await;
    let row = row.unwrap();
    assert_eq!((row.int(0), row.int(1)), (Ok(1000), Ok(999)));
    let error = db.refused(move |tx| tx.insert_many("leases", &columns, &rows[..1])).await;
    assert_eq!(error, StoreError::Conflict { constraint: "leases_name_key".to_owned() });
    let short = vec![vec![Value::from("a")]];
    let error = db.refused(move |tx| tx.insert_many("leases", &columns, &short)).await;
    assert!(matches!(error, StoreError::Misuse { .. }));
}

/// Looks at the counter and writes what it saw, plus one.
fn count_up(tx: &mut countersign_store::Tx<'_>) -> Result<u64, StoreError> {
    let seen = tx.query_one("SELECT until FROM leases WHERE name = 'counter'", &[])?;
    let next = seen.unwrap().int(0)? + 1;
    tx.execute("UPDATE leases SET until = ?1 WHERE name = 'counter'", &[next.into()])
}

pub(crate) async fn lost_updates_do_not_happen(db: Db) {
    const TASKS: i64 = 12;
    db.tx(|tx| tx.execute("INSERT INTO leases VALUES ('counter', 'all', 0)", &[])).await;
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let store = db.store.clone();
        tasks.spawn(async move {
            let counted = store.run_tx("count", count_up).await?;
            Ok::<_, StoreError>(counted + store.run_snapshot("count", count_up).await?)
        });
    }
    for counted in tasks.join_all().await {
        assert_eq!(counted, Ok(2));
    }
    let row = db.tx(|tx| tx.query_one("SELECT until FROM leases", &[])).await.unwrap();
    assert_eq!(row.int(0), Ok(2 * TASKS));
}

pub(crate) async fn a_full_queue_is_busy(db: Db) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let mut tasks = JoinSet::new();
    // More than any back end runs at a time, and a full queue, and some.
    for _ in 0..QUEUE_LEN + 64 {
        let (store, gate) = (db.store.clone(), Arc::clone(&gate));
        tasks.spawn(async move {
            store
                .run_tx::<_, StoreError, _>("gated", move |_| {
                    let (open, opened) = &*gate;
                    drop(opened.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
                    Ok(())
                })
                .await
        });
    }
    // Nothing passes the gate yet, so whatever ends first was refused.
    let first = tasks.join_next().await.unwrap().unwrap();
    assert_eq!(first, Err(StoreError::Busy { what: "queue full" }));
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let mut done = 0;
    while let Some(ended) = tasks.join_next().await {
        match ended.unwrap() {
            Ok(()) => done += 1,
            Err(error) => assert_eq!(error, StoreError::Busy { what: "queue full" }),
        }
    }
    assert!(done >= QUEUE_LEN);
    db.store.ping().await.unwrap();
}

pub(crate) async fn counters_count(db: Db) {
    let refuse = |_: &mut countersign_store::Tx<'_>| Err::<(), _>(Refusal::Mine);
    db.store.run_tx("counted", |tx| append(tx, 1)).await.unwrap();
    assert_eq!(db.store.run_tx("counted", refuse).await, Err(Refusal::Mine));
    let stats = db.store.stats()["counted"];
    assert_eq!((stats.attempts, stats.commits, stats.rollbacks), (2, 1, 1));
    assert_eq!((stats.retries, stats.failures), (0, 0));
    assert!(!stats.total.is_zero());
    assert!(!db.store.stats().contains_key("never run"));
}

pub(crate) async fn a_dropped_caller_does_not_stop_the_work(db: Db) {
    {
        let work = db.store.run_tx("test", |tx| append(tx, 1));
        let mut work = std::pin::pin!(work);
        // Polled once: submitted. Then the caller goes away.
        std::future::poll_fn(|cx| {
            let _ = work.as_mut().poll(cx);
            std::task::Poll::Ready(())
        })
        .await;
    }
    // The commit is nobody's to await, so look until the row shows.
    let shows = async { while subjects(&db).await != ["1"] {} };
    let shown = tokio::time::timeout(std::time::Duration::from_secs(60), shows).await;
    shown.expect("the transaction of a caller that went away is run");
}

/// SQLite only: with no page left, everything in the shared commit fails, and nothing before it.
pub(crate) async fn a_full_disk_loses_nothing_acknowledged(db: Db) {
    db.append(1, 3).await;
    db.tx(|tx| tx.query("PRAGMA max_page_count = 1", &[])).await; // SQLite keeps what it has
    let mut tasks = JoinSet::new();
    for number in 0..20 {
        let store = db.store.clone();
        tasks.spawn(async move {
            let filled = store.run_tx::<_, StoreError, _>("fill", move |tx| {
                let columns = "INSERT INTO tokens (id, operator_id, hash, label, created_at)";
                let sql = format!("{columns} VALUES (?1, ?2, ?3, 'x', 1)");
                tx.insert_operator(&operator(&format!("operator {number}")))?;
                let owner = operator(&format!("operator {number}")).id;
                let big = vec![number; 100_000];
                tx.execute(&sql, &[i64::from(number).to_string().into(), owner.into(), big.into()])
            });
            filled.await
        });
    }
    for done in tasks.join_all().await {
        assert_eq!(done, Err(StoreError::Full));
    }
    let pages = db.tx(|tx| tx.query("PRAGMA max_page_count = 100000", &[])).await;
    assert_eq!(pages[0].int(0), Ok(100_000));
    db.append(4, 1).await;
    assert_eq!(subjects(&db).await, ["1", "2", "3", "4"]);
    assert!(db.tx(|tx| tx.operators_page(None, 1)).await.items.is_empty());
}
