//! SQLite: one writer thread that commits in groups, and a few readers.

use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params_from_iter};

use crate::dialect::{APPEND_ONLY, constraint_of_columns};
use crate::error::Failure;
use crate::job::{Attempt, Job, Mode, SharedInbox};
use crate::tx::MAX_QUERY_ROWS;
use crate::value::{Bound, Row, Value, bind};
use crate::{StoreError, Tx, schema};

/// Reader threads of a file database.
pub(crate) const READERS: usize = 3;
/// Most transactions in one commit: bounds how long the first of a group waits.
const MAX_GROUP: usize = 256;
/// How long SQLite waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts of a read that meets a lock in spite of the timeout.
const MAX_READ_ATTEMPTS: usize = 3;
/// Attempts to switch a new file to WAL while another process opens it too.
const MAX_WAL_ATTEMPTS: usize = 50;
const WAL_RETRY_DELAY: Duration = Duration::from_millis(20);
const STATEMENT_CACHE: usize = 128;
/// Pages between checkpoints; the default of 1000 costs a quarter of the write rate.
const WAL_AUTOCHECKPOINT: i64 = 16_000;
/// "CsSt", in the file's header: whose database this is.
const APPLICATION_ID: i64 = 0x4373_5374;

/// Where the database lives.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Memory,
    File(PathBuf),
}

/// Opens the writer's connection and migrates the schema.
pub(crate) fn open_writer(place: &Place) -> Result<Connection, StoreError> {
    let connection = match place {
        Place::Memory => Connection::open_in_memory(),
        Place::File(path) => {
            create_private(path)?;
            Connection::open_with_flags(path, flags())
        }
    }
    .map_err(|error| open_error(&error))?;
    prepare(&connection)?;
    refuse_foreign(&connection)?;
    if let Place::File(_) = place {
        switch_to_wal(&connection)?;
    }
    migrate(&connection)?;
    Ok(connection)
}

/// Opens a reader's connection to a database that [`open_writer`] has prepared.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, flags()).map_err(|error| open_error(&error))?;
    prepare(&connection)?;
    batch(&connection, "PRAGMA query_only = ON").map_err(|failure| failure.error())?;
    Ok(connection)
}

fn flags() -> OpenFlags {
    // One thread per connection, so SQLite's own mutex is not needed; no URI file names.
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Creates the file readable by its owner only; SQLite gives its side files the same mode.
fn create_private(path: &Path) -> Result<(), StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .map(|_| ())
        .map_err(|error| StoreError::unreachable(format!("cannot open the database file: {error}")))
}

fn prepare(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| open_error(&error))?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
    let pragmas = format!(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA recursive_triggers = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT};"
    );
    connection.execute_batch(&pragmas).map_err(|error| open_error(&error))
}

fn refuse_foreign(connection: &Connection) -> Result<(), StoreError> {
    let id: i64 = connection
        .query_row("PRAGMA application_id", [], |row| row.get(0))
        .map_err(|error| open_error(&error))?;
    if id == 0 || id == APPLICATION_ID { Ok(()) } else { Err(StoreError::NotOurs) }
}

fn switch_to_wal(connection: &Connection) -> Result<(), StoreError> {
    // The switch needs the file alone and does not wait for it by itself.
    for _ in 0..MAX_WAL_ATTEMPTS {
        let mode =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {}
            Err(error) => return Err(open_error(&error)),
        }
        std::thread::sleep(WAL_RETRY_DELAY);
    }
    Err(StoreError::Busy { what: "switching the database to WAL" })
}

fn migrate(connection: &Connection) -> Result<(), StoreError> {
    begin(connection)?;
    let migrated = schema::migrate(&mut Tx::on_sqlite(connection)).and_then(|()| {
        let mark = format!("PRAGMA application_id = {APPLICATION_ID}; COMMIT");
        batch(connection, &mark).map_err(|failure| failure.error())
    });
    if migrated.is_err() && !connection.is_autocommit() {
        batch(connection, "ROLLBACK").map_err(|failure| failure.error())?;
    }
    migrated
}

fn begin(connection: &Connection) -> Result<(), StoreError> {
    batch(connection, "BEGIN IMMEDIATE").map_err(|failure| match failure {
        Failure::Retry => StoreError::Busy { what: "write lock held by another process" },
        other => other.error(),
    })
}

/// Runs queued transactions until all senders are gone: as many as wait share one commit, and
/// all are answered after it.
pub(crate) fn serve_writer(connection: &Connection, queue: &Receiver<Box<dyn Job>>) {
    while let Ok(first) = queue.recv() {
        if let Err(error) = begin(connection) {
            first.settle(Err(error));
            continue;
        }
        let mut group = Vec::new();
        let mut next = Some(first);
        let mut lost = None;
        while let Some(mut job) = next.take() {
            lost = in_savepoint(connection, job.as_mut()).err();
            group.push(job);
            if lost.is_none() && group.len() < MAX_GROUP {
                next = queue.try_recv().ok();
            }
        }
        let outcome = match lost {
            Some(error) => Err(error),
            None => batch(connection, "COMMIT").map_err(|failure| failure.error()),
        };
        if outcome.is_err() && !connection.is_autocommit() {
            // Fails only if SQLite has already rolled back.
            let _ = batch(connection, "ROLLBACK");
        }
        for job in group {
            job.settle(outcome.clone());
        }
    }
}

/// Runs one job so that its error undoes only itself. `Err` means the whole group is lost.
fn in_savepoint(connection: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    let whole = |failure: Failure| failure.error();
    batch(connection, "SAVEPOINT job").map_err(whole)?;
    let read_only = job.mode() == Mode::ReadOnly;
    if read_only {
        batch(connection, "PRAGMA query_only = ON").map_err(whole)?;
    }
    let mut tx = Tx::on_sqlite(connection);
    let attempt = job.attempt(&mut tx);
    let failed = tx.failure().map(Failure::error);
    if read_only {
        batch(connection, "PRAGMA query_only = OFF").map_err(whole)?;
    }
    if connection.is_autocommit() {
        // A full disk or an I/O error makes SQLite roll everything back by itself.
        return Err(failed.unwrap_or_else(|| StoreError::misuse("a closure ended the transaction")));
    }
    match attempt {
        Attempt::Keep => batch(connection, "RELEASE job").map_err(whole),
        // The write lock is held: there is nothing that trying again would change.
        Attempt::Undo | Attempt::Again(_) => {
            batch(connection, "ROLLBACK TO job; RELEASE job").map_err(whole)
        }
    }
}

/// Runs queued reads, each on its own snapshot, until all senders are gone.
pub(crate) fn serve_reader(connection: &Connection, queue: &SharedInbox) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        let outcome = read_once(connection, job.as_mut());
        job.settle(outcome);
    }
}

fn read_once(connection: &Connection, job: &mut dyn Job) -> Result<(), StoreError> {
    for attempt in 1.. {
        batch(connection, "BEGIN DEFERRED").map_err(|failure| failure.error())?;
        let ended = job.attempt(&mut Tx::on_sqlite(connection));
        if !connection.is_autocommit() {
            batch(connection, "ROLLBACK").map_err(|failure| failure.error())?;
        }
        match ended {
            Attempt::Keep | Attempt::Undo => return Ok(()),
            Attempt::Again(failure) if attempt == MAX_READ_ATTEMPTS => return Err(failure.error()),
            Attempt::Again(_) => job.note_retry(),
        }
    }
    unreachable!("the loop ends by returning")
}

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(int) => ValueRef::Integer(*int),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Blob(blob) => ValueRef::Blob(blob),
            Self::Bool(truth) => ValueRef::Integer(i64::from(*truth)),
        }))
    }
}

pub(crate) fn execute(
    connection: &Connection,
    sql: &str,
    values: &[Bound<'_>],
) -> Result<u64, Failure> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| failure(&error))?;
    let changed = statement.execute(params_from_iter(values)).map_err(|error| failure(&error))?;
    Ok(u64::try_from(changed).unwrap_or(u64::MAX))
}

pub(crate) fn query(
    connection: &Connection,
    sql: &str,
    values: &[Bound<'_>],
) -> Result<Vec<Row>, Failure> {
    let mut statement = connection.prepare_cached(sql).map_err(|error| failure(&error))?;
    let width = statement.column_count();
    let mut rows = statement.query(params_from_iter(values)).map_err(|error| failure(&error))?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(|error| failure(&error))? {
        if out.len() == MAX_QUERY_ROWS {
            return Err(StoreError::misuse("a query without LIMIT returned too many rows").into());
        }
        let cells = (0..width)
            .map(|column| row.get_ref(column).map_err(|error| failure(&error)).and_then(cell))
            .collect::<Result<Vec<_>, _>>()?;
        out.push(Row::new(cells));
    }
    Ok(out)
}

/// Runs a statement once per row of values.
pub(crate) fn execute_many(
    connection: &Connection,
    sql: &str,
    rows: &[Vec<Value>],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(sql).map_err(|error| failure(&error))?;
    for row in rows {
        let values = params_from_iter(bind(row)?);
        statement.execute(values).map_err(|error| failure(&error))?;
    }
    Ok(())
}

/// Runs a query once per row of values and returns the rows of all.
pub(crate) fn query_many(
    connection: &Connection,
    sql: &str,
    rows: &[Vec<Value>],
) -> Result<Vec<Row>, Failure> {
    let mut all = Vec::new();
    for row in rows {
        all.extend(query(connection, sql, &bind(row)?)?);
    }
    Ok(all)
}

fn cell(value: ValueRef<'_>) -> Result<Value, Failure> {
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(int) => Value::Int(int),
        // Text that is no text any more is handed on as bytes: whoever expects text finds it
        // corrupt, and the audit's verifier can still name the row.
        ValueRef::Text(text) => std::str::from_utf8(text)
            .map_or_else(|_| Value::Blob(text.to_vec()), |text| Value::Text(text.to_owned())),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
        ValueRef::Real(_) => return Err(StoreError::misuse("a column of type REAL").into()),
    })
}

pub(crate) fn batch(connection: &Connection, sql: &str) -> Result<(), Failure> {
    connection.execute_batch(sql).map_err(|error| failure(&error))
}

fn open_error(error: &rusqlite::Error) -> StoreError {
    match failure(error) {
        Failure::Final(StoreError::Misuse { detail }) => StoreError::Unreachable { detail },
        other => other.error(),
    }
}

fn failure(error: &rusqlite::Error) -> Failure {
    let rusqlite::Error::SqliteFailure(code, message) = error else {
        return StoreError::misuse(error.to_string()).into();
    };
    let message = message.clone().unwrap_or_else(|| code.to_string());
    match code.code {
        ErrorCode::ConstraintViolation => violation(code.extended_code, message).into(),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Failure::Retry,
        ErrorCode::DiskFull => StoreError::Full.into(),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::corrupt(message).into(),
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::PermissionDenied
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OutOfMemory => StoreError::unreachable(message).into(),
        _ => StoreError::misuse(message).into(),
    }
}

fn violation(extended_code: i32, message: String) -> StoreError {
    match extended_code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => {
            StoreError::Conflict { constraint: constraint_of_columns(&message) }
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => StoreError::NotFound { what: "referenced row" },
        ffi::SQLITE_CONSTRAINT_CHECK => StoreError::Refused { check: "row-check" },
        ffi::SQLITE_CONSTRAINT_TRIGGER => StoreError::Refused { check: APPEND_ONLY },
        _ => StoreError::misuse(message),
    }
}
