//! Processes and servers that die.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_store::{Event, IdKind, Store, StoreError};
use testkit::parts::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::fixture::{Backend, Db, append, at, block_on, id, open};

/// Set for the child: where its database is.
const PLACE: &str = "COUNTERSIGN_STORE_CRASH_PLACE";
/// Transactions the child keeps under way, so that commits are shared when it dies.
const WRITERS: u64 = 8;
/// Acknowledgements after which the parent kills.
const ENOUGH: usize = 300;

pub(crate) fn is_child() -> bool {
    std::env::var_os(PLACE).is_some()
}

/// Writes rows for ever, printing each number once its transaction is acknowledged.
pub(crate) fn child() {
    let place = std::env::var(PLACE).unwrap();
    let backend = if place.starts_with("postgres://") { Backend::Postgres } else { Backend::File };
    block_on(async {
        let store = open(backend, &place).await.unwrap();
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.spawn(async move {
                for number in (writer..).step_by(WRITERS as usize) {
                    let done =
                        store.run_tx::<_, StoreError, _>("write", move |tx| append(tx, number));
                    done.await.unwrap();
                    // One write call per line: whole lines reach the pipe.
                    std::io::stdout().write_all(format!("{number}\n").as_bytes()).unwrap();
                }
            });
        }
        writers.join_all().await;
    });
}

pub(crate) async fn acknowledged_rows_survive_a_killed_process(db: Db) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(PLACE, &db.place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<String> = lines.by_ref().take(ENOUGH).map(Result::unwrap).collect();
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    // What it had printed before it died counts too.
    acknowledged.extend(lines.map(Result::unwrap));
    assert!(acknowledged.len() >= ENOUGH);

    let again = db.open().await.unwrap();
    let rows = again
        .read::<_, StoreError, _>("test", |tx| tx.query("SELECT subject FROM audit_rows", &[]));
    let rows = rows.await.unwrap();
    let stored: HashSet<&str> = rows.iter().map(|row| row.text(0).unwrap()).collect();
    assert_eq!(stored.len(), rows.len(), "no row twice");
    for number in &acknowledged {
        assert!(stored.contains(number.as_str()), "row {number} was acknowledged and is lost");
    }
    // Fewer than the writers were under way and not yet acknowledged.
    assert!(stored.len() <= acknowledged.len() + WRITERS as usize);
}

/// The server dies and comes back; the store says so and then works again.
pub(crate) async fn the_store_reconnects(server: &mut Postgres) {
    let store = Store::postgres(server.url()).await.unwrap();
    let write = |number| {
        let store = store.clone();
        async move { store.run_tx("write", move |tx| append(tx, number)).await }
    };
    let _: i64 = write(1).await.unwrap_or_else(|error: StoreError| panic!("{error}"));
    server.kill().unwrap();
    let error = write(2).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(error.is_transient());
    assert!(store.ping().await.is_err());
    server.restart().unwrap();
    write(3).await.unwrap();
    let rows = store.read::<_, StoreError, _>("test", |tx| {
        tx.query("SELECT subject FROM audit_rows ORDER BY id", &[])
    });
    let rows = rows.await.unwrap();
    let stored: Vec<_> = rows.iter().map(|row| row.text(0).unwrap()).collect();
    assert_eq!(stored, ["1", "3"]);
    let stats = store.stats()["write"];
    assert_eq!((stats.commits, stats.failures), (2, 1));
}

/// The connection breaks while a commit is under way: nobody can know, so nothing is tried again.
pub(crate) async fn a_commit_without_answer_is_uncertain(url: String) {
    let cut = Arc::new(AtomicBool::new(false));
    let store = Store::postgres(&through_a_proxy(&url, Arc::clone(&cut)).await).await.unwrap();
    cut.store(true, Ordering::SeqCst);
    let error = store.run_tx("cut", |tx| append(tx, 1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
    assert!(!error.is_transient());
    assert_eq!((store.stats()["cut"].attempts, store.stats()["cut"].retries), (1, 0));
    // Nor if what is written travels with the commit.
    let error = store.run_locked("cut late", |tx| tx.insert_events(&[event("1")])).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
    assert_eq!((store.stats()["cut late"].attempts, store.stats()["cut late"].retries), (1, 0));
    // A read has nothing to be uncertain about.
    let error = store.read("cut read", |tx| tx.query("SELECT 1", &[])).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    cut.store(false, Ordering::SeqCst);
    store.run_tx::<_, StoreError, _>("again", |tx| append(tx, 2)).await.unwrap();
    let again = store.run_locked("again", |tx| tx.insert_events(&[event("2")]));
    again.await.unwrap();
    // What is refused on the way to the commit is no loss, and leaves the connection usable.
    let twice = store.run_locked("twice", |tx| tx.insert_events(&[event("3"), event("2")]));
    let constraint = "events_id_key".to_owned();
    assert_eq!(twice.await, Err(StoreError::Conflict { constraint }));
    let found = store.read::<_, StoreError, _>("test", |tx| {
        let rows = tx.query("SELECT subject FROM events ORDER BY subject", &[])?;
        rows.iter().map(|row| row.text(0).map(str::to_owned)).collect::<Result<Vec<_>, _>>()
    });
    assert_eq!(found.await.unwrap(), ["2"]);
}

fn event(subject: &str) -> Event {
    Event {
        id: id(IdKind::Event, subject),
        kind: "test.happened".to_owned(),
        subject: subject.to_owned(),
        data: "{}".to_owned(),
        owner: None,
        at: at(1),
    }
}

/// A URL that leads to `url` through a proxy, which hangs up on `COMMIT` while `cut` is set.
async fn through_a_proxy(url: &str, cut: Arc<AtomicBool>) -> String {
    let server = url.split(['@', '/']).find(|part| part.starts_with("127.0.0.1:")).unwrap();
    let (server, listener) = (server.to_owned(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let proxied = url.replace(&server, &listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut read, mut write) = client.into_split();
            let (mut answers, mut requests) =
                TcpStream::connect(&server).await.unwrap().into_split();
            let cut = Arc::clone(&cut);
            let back = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut write).await });
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    let bytes = &buffer[..count];
                    let commit = bytes.windows(6).any(|window| window == b"COMMIT");
                    if commit && cut.load(Ordering::SeqCst) {
                        break;
                    }
                    if requests.write_all(bytes).await.is_err() {
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    proxied
}
