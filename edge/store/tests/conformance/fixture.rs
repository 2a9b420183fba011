//! A database for one test, rows to put into it, and a way around the store's protection.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use countersign_crypto::{Provider, SecureElement, UnixTime, VerifyingKey, rust_crypto};
use countersign_store::{
    AuditEntry, AuditOutcome, ChainOutcome, Checkpoint, Device, DeviceKind, DeviceStatus, IdKind,
    Operator, Role, Store, StoreError, Tx, chain_audit, new_id,
};
use tempfile::TempDir;
use testkit::rng::{ChaCha20Rng, seeded};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Memory,
    File,
    Postgres,
}

pub(crate) struct Db {
    pub(crate) store: Store,
    pub(crate) backend: Backend,
    /// Path or URL; empty in memory.
    pub(crate) place: String,
    _dir: Option<TempDir>,
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

impl Db {
    pub(crate) async fn local(backend: Backend) -> Self {
        if backend == Backend::Memory {
            let store = Store::in_memory().await.unwrap();
            return Self { store, backend, place: String::new(), _dir: None };
        }
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("store.sqlite");
        let store = Store::sqlite(&path).await.unwrap();
        let place = path.to_str().unwrap().to_owned();
        Self { store, backend, place, _dir: Some(dir) }
    }

    pub(crate) async fn remote(url: String) -> Self {
        let store = Store::postgres(&url).await.unwrap();
        Self { store, backend: Backend::Postgres, place: url, _dir: None }
    }

    /// A second store on the same database, as another process would open it.
    pub(crate) async fn open(&self) -> Result<Store, StoreError> {
        open(self.backend, &self.place).await
    }

    /// Runs statements as someone with the database in hands: no triggers, no foreign keys.
    pub(crate) async fn tamper(&self, statements: &str) {
        match self.backend {
            Backend::Memory => panic!("nobody else reaches a database in memory"),
            Backend::File => {
                let connection = rusqlite::Connection::open(PathBuf::from(&self.place)).unwrap();
                connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
                let triggers = connection
                    .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                    .unwrap()
                    .query_map([], |row| row.get::<_, String>(0))
                    .unwrap()
                    .collect::<Result<Vec<_>, _>>()
                    .unwrap();
                for trigger in triggers {
                    connection.execute_batch(&format!("DROP TRIGGER {trigger}")).unwrap();
                }
                connection.execute_batch(statements).unwrap();
            }
            Backend::Postgres => {
                let (client, connection) =
                    tokio_postgres::connect(&self.place, tokio_postgres::NoTls).await.unwrap();
                let driver = tokio::spawn(connection);
                client.batch_execute("SET session_replication_role = replica").await.unwrap();
                // Bytes are written x'…' in SQLite.
                let statements = statements.replace("x'", "'\\x");
                client.batch_execute(&statements).await.unwrap();
                drop(client);
                driver.await.unwrap().unwrap();
            }
        }
    }

    /// Runs a transaction that must work.
    pub(crate) async fn tx<T: Send + 'static>(
        &self,
        closure: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.run_tx("test", closure).await.unwrap()
    }

    /// Runs a transaction that must fail.
    pub(crate) async fn refused<T: Send + std::fmt::Debug + 'static>(
        &self,
        closure: impl Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> StoreError {
        self.store.run_tx("test", closure).await.unwrap_err()
    }

    /// Appends `count` audit rows numbered from `first`.
    pub(crate) async fn append(&self, first: u64, count: u64) {
        self.tx(move |tx| (first..first + count).try_for_each(|n| append(tx, n).map(|_| ()))).await;
    }

    /// Enrols a reader and returns its id.
    pub(crate) async fn reader(&self, serial: &str) -> String {
        let device = device(serial);
        let id = device.id.clone();
        self.tx(move |tx| tx.insert_device(&device)).await;
        id
    }

    /// Inserts an operator and returns its id.
    pub(crate) async fn operator(&self, name: &str) -> String {
        let operator = operator(name);
        let id = operator.id.clone();
        self.tx(move |tx| tx.insert_operator(&operator)).await;
        id
    }
}

pub(crate) async fn open(backend: Backend, place: &str) -> Result<Store, StoreError> {
    match backend {
        Backend::Memory => Store::in_memory().await,
        Backend::File => Store::sqlite(place).await,
        Backend::Postgres => Store::postgres(place).await,
    }
}

/// A time in 2026, `millis` later.
pub(crate) fn at(millis: u64) -> UnixTime {
    UnixTime::from_millis(1_790_000_000_000 + millis)
}

/// An id that depends on `name` only.
pub(crate) fn id(kind: IdKind, name: &str) -> String {
    let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
    new_id(kind, at(0), &mut seeded(seed))
}

pub(crate) fn device(serial: &str) -> Device {
    Device {
        id: id(IdKind::Reader, serial),
        kind: DeviceKind::Reader,
        serial: serial.to_owned(),
        status: DeviceStatus::Enrolled,
        block_reason: None,
        created_at: at(0),
        updated_at: at(0),
    }
}

pub(crate) fn operator(name: &str) -> Operator {
    Operator {
        id: id(IdKind::Operator, name),
        name: name.to_owned(),
        roles: [Role::Admin, Role::Auditor].into_iter().collect(),
        created_at: at(0),
        disabled_at: None,
    }
}

pub(crate) fn entry(number: u64) -> AuditEntry {
    AuditEntry {
        at: at(number),
        actor: "opr_test".to_owned(),
        action: "test.append".to_owned(),
        subject: number.to_string(),
        outcome: AuditOutcome::Done,
        check: None,
        incident: None,
        detail: "{}".to_owned(),
    }
}

pub(crate) fn append(tx: &mut Tx<'_>, number: u64) -> Result<i64, StoreError> {
    tx.append_audit(&entry(number))
}

/// The auditor's key and what goes with it.
pub(crate) struct Auditor {
    pub(crate) provider: Provider,
    pub(crate) signer: Arc<dyn SecureElement>,
    pub(crate) key: Arc<dyn VerifyingKey>,
    pub(crate) rng: ChaCha20Rng,
}

impl Auditor {
    pub(crate) fn new(seed: u64) -> Self {
        let provider = rust_crypto::provider();
        let mut rng = seeded(seed);
        let signer = provider.signature.generate(&mut rng).unwrap().key;
        let key = provider.signature.public_key(signer.public_key()).unwrap();
        Self { provider, signer, key, rng }
    }

    pub(crate) async fn chain(
        &mut self,
        store: &Store,
        now: UnixTime,
        holder: &str,
        limit: u32,
    ) -> Result<ChainOutcome, StoreError> {
        let signer = self.signer.as_ref();
        chain_audit(store, &self.provider, signer, &mut self.rng, now, holder, limit).await
    }

    /// Links everything in steps of `limit` and returns the checkpoints.
    pub(crate) async fn chain_all(&mut self, store: &Store, limit: u32) -> Vec<Checkpoint> {
        let mut checkpoints = Vec::new();
        loop {
            match self.chain(store, at(1000), "one", limit).await.unwrap() {
                ChainOutcome::Linked { checkpoint, .. } => checkpoints.push(checkpoint),
                ChainOutcome::Idle => return checkpoints,
                ChainOutcome::NotElected => panic!("nobody else chains"),
            }
        }
    }

    pub(crate) async fn verify(
        &self,
        store: &Store,
        file: &[Checkpoint],
    ) -> countersign_store::AuditReport {
        countersign_store::verify_audit(store, &self.provider, self.key.as_ref(), file)
            .await
            .unwrap()
    }
}
