use countersign_store::{SCHEMA_VERSION, Store, StoreError};
use tokio::task::JoinSet;

use crate::fixture::{Backend, Db, append, open};

pub(crate) async fn reopening_keeps_everything(db: Db) {
    db.operator("ada").await;
    let again = db.open().await.unwrap();
    assert_eq!(again.backend_name(), db.store.backend_name());
    let found = again.read::<_, StoreError, _>("test", |tx| tx.operator_by_name("ada"));
    assert!(found.await.unwrap().is_some());
    let version = db.tx(|tx| tx.query("SELECT version FROM countersign_schema", &[])).await;
    assert_eq!((version.len(), version[0].int(0)), (1, Ok(SCHEMA_VERSION)));
}

/// Back to the schema before sleeves and managers.
pub(crate) const WITHOUT_WALLETS: &str = "
    DROP TABLE relay_places; DROP TABLE wallet_alarms;
    DROP INDEX devices_wallets_changed; DROP INDEX certificates_revoked;
    UPDATE countersign_schema SET version = 6";

/// Back to the schema before key injection.
const WITHOUT_INJECTION: &str = "
    DROP TABLE webhook_deliveries; DROP TABLE webhooks; DROP TABLE events;
    DROP TABLE phone_proofs; DROP TABLE idempotency_keys; DROP TABLE pushes;
    DROP TABLE phone_accounts; DROP TABLE phones;
    DROP TABLE security_device_accounts; DROP TABLE security_devices;
    DROP TABLE payment_authorisations; DROP TABLE payment_events; DROP TABLE payments;
    DROP VIEW ledger_entries; DROP TABLE ledger_postings; DROP TABLE ledger_accounts;
    DROP TABLE injection_tokens; DROP TABLE injections; DROP TABLE injection_run_strangers;
    DROP TABLE injection_run_keys; DROP TABLE injection_run_terminals; DROP TABLE injection_runs;
    DROP TABLE key_values; DROP TABLE ksn_allotments; DROP TABLE keys; DROP TABLE kek_components;
    DROP TABLE keks; DROP TABLE rebind_terminals; DROP TABLE rebinds; DROP TABLE krd_certificates;
    DROP TABLE terminals; DROP TABLE rki_crls; DROP TABLE rki_authorities; DROP TABLE storage_keys;
    DROP TABLE server_keys;
    UPDATE countersign_schema SET version = 2";

pub(crate) async fn a_database_from_before_injection_is_brought_up_to_date(db: Db) {
    let reader = db.reader("S1").await;
    db.tamper(WITHOUT_WALLETS).await;
    db.tamper(WITHOUT_INJECTION).await;
    let store = db.open().await.unwrap();
    let kept = store.read::<_, StoreError, _>("test", move |tx| tx.device_by_id(&reader));
    assert!(kept.await.unwrap().is_some());
    let empty = store.read::<_, StoreError, _>("test", |tx| tx.authorities());
    assert!(empty.await.unwrap().is_empty());
}

/// A phone from before the step is known by its token alone, as it was.
pub(crate) async fn a_database_from_before_proofs_is_brought_up_to_date(db: Db) {
    db.tamper(WITHOUT_WALLETS).await;
    db.tamper(
        "DROP TABLE phone_proofs; ALTER TABLE phones DROP COLUMN session_key;
         ALTER TABLE security_devices DROP COLUMN joint_key;
         ALTER TABLE payment_authorisations DROP COLUMN commitment;
         DROP TABLE server_keys;
         INSERT INTO phones (id, label, created_at) VALUES ('phn_old', 'handset', 1);
         UPDATE countersign_schema SET version = 4",
    )
    .await;
    let store = db.open().await.unwrap();
    let kept = store.read::<_, StoreError, _>("test", |tx| tx.phone_by_id("phn_old"));
    assert_eq!(kept.await.unwrap().unwrap().phone.session_key, None);
    let used = store.run_tx::<_, StoreError, _>("test", |tx| {
        tx.use_phone_proof(&[1; 32], countersign_crypto::UnixTime::from_secs(9))
    });
    assert!(used.await.unwrap());
}

/// What a database of the first version has is there after the step, and is counted.
pub(crate) async fn an_older_database_is_brought_up_to_date(db: Db) {
    let reader = db.reader("S1").await;
    db.tamper(WITHOUT_WALLETS).await;
    db.tamper(WITHOUT_INJECTION).await;
    db.tamper(
        "DROP TABLE risk_events; DROP TABLE risk_decisions; DROP TABLE reader_meters;
         DROP TABLE reader_counts; DROP TABLE reader_reports; DROP TABLE reader_transactions;
         DROP TABLE reader_factory; DROP TABLE IF EXISTS sam_drains;
         DROP INDEX reads_under_way; DROP INDEX certificates_by_device;
         ALTER TABLE reads DROP COLUMN session_id;
         UPDATE countersign_schema SET version = 1",
    )
    .await;
    for (number, state, check, attempts) in [
        (1, "done", "NULL", 2),
        (2, "failed", "'packets'", 1),
        (3, "failed", "'sam-gone'", 1),
        (4, "failed", "'abandoned'", 1),
        (5, "started", "NULL", 1),
    ] {
        db.tamper(&format!(
            "INSERT INTO reads (id, device_id, client_read_id, state, failed_check, attempts,
                 started_at, finished_at)
             VALUES ('read_{number}', '{reader}', x'0{number}', '{state}', {check}, {attempts},
                 {number}, {number})"
        ))
        .await;
    }
    let store = db.open().await.unwrap();
    let counts = store.read::<_, StoreError, _>("test", move |tx| tx.reader_counts(&reader));
    let counts = counts.await.unwrap();
    let shown: Vec<_> = counts.iter().map(|c| (&*c.kind, &*c.label, c.total)).collect();
    assert_eq!(shown, [("done", "", 1), ("errors", "packets", 1), ("reads", "", 6)]);
}

pub(crate) async fn a_newer_schema_is_refused(db: Db) {
    db.tamper("UPDATE countersign_schema SET version = 4711").await;
    let error = db.open().await.unwrap_err();
    assert_eq!(error, StoreError::TooNew { found: 4711, known: SCHEMA_VERSION });
}

pub(crate) async fn a_foreign_database_is_refused(db: Db) {
    // Another program's database: tables, but none of ours.
    db.tamper("ALTER TABLE countersign_schema RENAME TO somebody_elses").await;
    assert_eq!(db.open().await.unwrap_err(), StoreError::NotOurs);
    db.tamper("ALTER TABLE somebody_elses RENAME TO countersign_schema").await;
    assert!(db.open().await.is_ok());
}

pub(crate) async fn two_stores_share_one_database(db: Db) {
    let other = db.open().await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let store = if number % 2 == 0 { db.store.clone() } else { other.clone() };
        tasks.spawn(async move { store.run_tx("test", move |tx| append(tx, number)).await });
    }
    for done in tasks.join_all().await {
        let _: i64 = done.unwrap_or_else(|error: StoreError| panic!("{error}"));
    }
    for store in [&db.store, &other] {
        let rows =
            store.read::<_, StoreError, _>("test", |tx| tx.query("SELECT id FROM audit_rows", &[]));
        assert_eq!(rows.await.unwrap().len(), 100);
    }
}

pub(crate) async fn two_stores_may_create_it_together(db: Db) {
    let dir = tempfile::TempDir::new().unwrap();
    let place = match db.backend {
        Backend::File => dir.path().join("new.sqlite").to_str().unwrap().to_owned(),
        // In PostgreSQL the tables of the fixture go, and the database is as new.
        _ => {
            db.tamper("DROP SCHEMA public CASCADE; CREATE SCHEMA public").await;
            db.place.clone()
        }
    };
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let (backend, place) = (db.backend, place.clone());
        tasks.spawn(async move { open(backend, &place).await });
    }
    for opened in tasks.join_all().await {
        opened.unwrap().ping().await.unwrap();
    }
}

pub(crate) async fn files_that_are_no_database_are_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("letter.txt");
    let letter = "Dear Sir or Madam, ".repeat(500);
    std::fs::write(&path, &letter).unwrap();
    let error = Store::sqlite(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), letter, "left as it was");

    let path = dir.path().join("browser.sqlite");
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign.execute_batch("PRAGMA application_id = 77").unwrap();
    drop(foreign);
    assert_eq!(Store::sqlite(&path).await.unwrap_err(), StoreError::NotOurs);

    let error = Store::sqlite(dir.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    let error = Store::sqlite(dir.path().join("no/such/dir/db")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");

    let path = dir.path().join("private.sqlite");
    Store::sqlite(&path).await.unwrap();
    use std::os::unix::fs::PermissionsExt;
    for name in ["private.sqlite", "private.sqlite-wal"] {
        let mode = std::fs::metadata(dir.path().join(name)).map(|file| file.permissions().mode());
        assert!(mode.map_or(true, |mode| mode & 0o077 == 0), "{name} is for its owner only");
    }
}

pub(crate) async fn unusable_urls_say_why() {
    // A port that was just free: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("postgres://cs:s3cret@127.0.0.1:{port}/test");
    let error = Store::postgres(&url).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(!error.to_string().contains("s3cret") && error.to_string().contains("refused"));

    let error = Store::postgres(&format!("{url}?sslmode=require")).await.unwrap_err();
    assert_eq!(error, StoreError::TlsUnsupported);
    for bad in ["postgres://u:s3cret@[bad/x", "mysql://u:s3cret@h/x", "s3cret", ""] {
        let error = Store::postgres(bad).await.unwrap_err();
        assert!(matches!(&error, StoreError::Unreachable { .. }), "{bad}: {error:?}");
        assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
    }
    // Somebody listens but never answers: given up after the time limit.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://cs@{}/test", silent.local_addr().unwrap());
    let error = tokio::time::timeout(std::time::Duration::from_secs(20), Store::postgres(&url));
    let error = error.await.expect("bounded").unwrap_err();
    assert!(matches!(&error, StoreError::Unreachable { .. }), "{error:?}");
}
