use countersign_store::{BegunRead, IdKind, ReadEnd, ReadStart, ReadState, StoreError};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, id};

fn start(device_id: &str, client: u8, name: &str, millis: u64) -> ReadStart {
    ReadStart {
        id: id(IdKind::Read, name),
        device_id: device_id.to_owned(),
        client_read_id: [client; 16],
        at: at(millis),
        session_id: "one".to_owned(),
    }
}

async fn begin(db: &Db, start: ReadStart) -> BegunRead {
    db.tx(move |tx| tx.begin_read(&start)).await
}

fn done() -> ReadEnd {
    ReadEnd::Done { sam_id: "sam-1".to_owned(), document_type: "resident".to_owned() }
}

fn failed(check: &str) -> ReadEnd {
    ReadEnd::Failed { check: check.to_owned(), sam_id: None }
}

async fn finish(db: &Db, begun: &BegunRead, end: ReadEnd) -> Result<(), StoreError> {
    let begun = begun.clone();
    let ended =
        db.store.run_tx("finish", move |tx| tx.finish_read(&begun.id, begun.attempt, &end, at(50)));
    ended.await
}

pub(crate) async fn a_retry_is_the_same_read(db: Db) {
    let reader = db.reader("S1").await;
    let other = db.reader("S2").await;
    let first = begin(&db, start(&reader, 1, "a", 1)).await;
    assert_eq!((first.state, first.attempt), (ReadState::Started, 1));
    let second = begin(&db, start(&reader, 1, "b", 2)).await;
    assert_eq!((&second.id, second.state, second.attempt), (&first.id, ReadState::Started, 2));
    // The same client id of another device, and another of the same, are other reads.
    assert_ne!(begin(&db, start(&other, 1, "c", 3)).await.id, first.id);
    assert_ne!(begin(&db, start(&reader, 2, "d", 3)).await.id, first.id);

    finish(&db, &second, failed("card-removed")).await.unwrap();
    let third = begin(&db, start(&reader, 1, "e", 4)).await;
    assert_eq!((&third.id, third.state, third.attempt), (&first.id, ReadState::Started, 3));
    finish(&db, &third, done()).await.unwrap();
    let after = begin(&db, start(&reader, 1, "f", 99)).await;
    assert_eq!((&after.id, after.state, after.attempt), (&first.id, ReadState::Done, 3));

    let key = first.id.clone();
    let read = db.tx(move |tx| tx.read_by_id(&key)).await.unwrap();
    assert_eq!((read.state, read.attempts, read.failed_check), (ReadState::Done, 3, None));
    assert_eq!((read.started_at, read.finished_at), (at(4), Some(at(50))));
    assert_eq!(read.sam_id.as_deref(), Some("sam-1"));
    assert_eq!(read.document_type.as_deref(), Some("resident"));
    let nobody = start("rdr_nobody", 1, "g", 1);
    let error = db.refused(move |tx| tx.begin_read(&nobody)).await;
    assert_eq!(error, StoreError::NotFound { what: "referenced row" });
}

pub(crate) async fn only_the_latest_attempt_ends_a_read(db: Db) {
    let reader = db.reader("S1").await;
    let first = begin(&db, start(&reader, 1, "a", 1)).await;
    let second = begin(&db, start(&reader, 1, "a", 2)).await;
    let superseded = Err(StoreError::Refused { check: "read-superseded" });
    assert_eq!(finish(&db, &first, failed("late")).await, superseded);
    assert_eq!(finish(&db, &second, done()).await, Ok(()));
    assert_eq!(finish(&db, &second, failed("late")).await, superseded);
    let unknown = BegunRead { id: "read_none".to_owned(), ..second };
    let error = finish(&db, &unknown, done()).await;
    assert_eq!(error, Err(StoreError::NotFound { what: "read" }));
}

pub(crate) async fn racing_starts_make_one_row(db: Db) {
    const TASKS: u32 = 40;
    let reader = db.reader("S1").await;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let store = db.store.clone();
        let start = start(&reader, 1, &format!("task {number}"), 1);
        tasks.spawn(async move { store.run_tx("begin", move |tx| tx.begin_read(&start)).await });
    }
    let begun: Vec<BegunRead> =
        tasks.join_all().await.into_iter().map(Result::<_, StoreError>::unwrap).collect();
    assert!(begun.iter().all(|read| read.id == begun[0].id));
    let mut attempts: Vec<u32> = begun.iter().map(|read| read.attempt).collect();
    attempts.sort_unstable();
    assert_eq!(attempts, (1..=TASKS).collect::<Vec<_>>());
    assert_eq!(db.tx(|tx| tx.reads_page(None, None, 10)).await.items.len(), 1);
}

pub(crate) async fn stale_reads_are_abandoned(db: Db) {
    let reader = db.reader("S1").await;
    let stale = begin(&db, start(&reader, 1, "a", 10)).await;
    let fresh = begin(&db, start(&reader, 2, "b", 20)).await;
    let ended = begin(&db, start(&reader, 3, "c", 10)).await;
    finish(&db, &ended, done()).await.unwrap();
    assert_eq!(db.tx(|tx| tx.abandon_reads(at(20), at(99))).await, 1);
    let read = db.tx(move |tx| tx.read_by_id(&stale.id)).await.unwrap();
    assert_eq!((read.state, read.failed_check.as_deref()), (ReadState::Failed, Some("abandoned")));
    let read = db.tx(move |tx| tx.read_by_id(&fresh.id)).await.unwrap();
    assert_eq!(read.state, ReadState::Started);
    let read = db.tx(move |tx| tx.read_by_id(&ended.id)).await.unwrap();
    assert_eq!(read.state, ReadState::Done);
}

pub(crate) async fn pages_walk_newest_first(db: Db) {
    let (reader, other) = (db.reader("S1").await, db.reader("S2").await);
    let mut wanted = Vec::new();
    for client in 0..5 {
        wanted.push(begin(&db, start(&reader, client, &client.to_string(), 1)).await.id);
    }
    begin(&db, start(&other, 1, "other", 1)).await;
    wanted.sort();
    wanted.reverse();
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let (from, key) = (cursor.clone(), reader.clone());
        let page = db.tx(move |tx| tx.reads_page(Some(&key), from.as_deref(), 2)).await;
        seen.extend(page.items.into_iter().map(|read| read.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, wanted);
    assert_eq!(db.tx(|tx| tx.reads_page(None, None, 200)).await.items.len(), 6);
}
