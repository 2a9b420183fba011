//! PostgreSQL: a bounded pool of worker threads, each with its own connection.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::dialect::{APPEND_ONLY, Column};
use crate::error::Failure;
use crate::job::{Attempt, Job, Mode, SharedInbox};
use crate::tx::MAX_QUERY_ROWS;
use crate::value::{Bound, Row, Value};
use crate::{StoreError, Tx, schema};

/// Connections, and so transactions at a time, per process.
pub(crate) const WORKERS: usize = 8;
/// Connecting, with name resolution and start-up, takes at most this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The server gives up a statement after [`SESSION`]'s 30 s; later the network is to blame.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(40);
/// Attempts of one transaction against serialisation failures and deadlocks.
const MAX_ATTEMPTS: u32 = 24;
/// Connections one transaction may lose before it is given up.
const MAX_LOSSES: u32 = 2;
/// Pause before the second attempt; grows linearly, and differs by worker to break symmetry.
const RETRY_DELAY: Duration = Duration::from_micros(200);
const MAX_STATEMENTS: usize = 256;
/// Explicit, so that a server configured otherwise changes neither durability nor bounds.
const SESSION: &str = "SET synchronous_commit = on; SET statement_timeout = '30s';
    SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s';
    SET client_min_messages = warning; SET standard_conforming_strings = on";

/// Parses a connection URL. The URL may hold a password, so it is in no error.
pub(crate) fn parse(url: &str) -> Result<Config, StoreError> {
    let mut config: Config = url.parse().map_err(|_| {
        StoreError::unreachable("the URL is not valid (postgres://user@host:port/database)")
    })?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(StoreError::TlsUnsupported);
    }
    config.connect_timeout(CONNECT_TIMEOUT).application_name("countersign");
    Ok(config)
}

/// A connection with its own runtime; everything is driven by the calling thread.
pub(crate) struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    /// The `BEGIN` that travels with the transaction's first statement, to save a round trip.
    begin: Option<&'static str>,
    runtime: Runtime,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] after at most [`CONNECT_TIMEOUT`].
    pub(crate) fn connect(config: &Config) -> Result<Self, StoreError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::unreachable(error.to_string()))?;
        let connecting = async {
            let (client, connection) = config.connect(NoTls).await?;
            // Ends with the connection; the error shows at the client too.
            tokio::spawn(connection);
            client.batch_execute(SESSION).await?;
            Ok(client)
        };
        let client = runtime
            .block_on(async { tokio::time::timeout(CONNECT_TIMEOUT, connecting).await })
            .map_err(|_| StoreError::unreachable("no answer within 5 s"))?
            .map_err(|error: tokio_postgres::Error| StoreError::unreachable(describe(&error)))?;
        Ok(Self { client, statements: HashMap::new(), begin: None, runtime })
    }

    /// Connects and brings the schema up to date.
    pub(crate) fn connect_and_migrate(config: &Config) -> Result<Self, StoreError> {
        let mut session = Self::connect(config)?;
        // Read committed: after waiting for the lock, see what the other process has done.
        session.batch("BEGIN ISOLATION LEVEL READ COMMITTED").map_err(|error| error.error())?;
        schema::migrate(&mut Tx::on_postgres(&mut session))?;
        session.commit().map_err(|error| error.error())?;
        Ok(session)
    }

    fn begin(&mut self, mode: Mode) {
        self.begin = Some(match mode {
            Mode::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Mode::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Mode::ReadOnly => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        });
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.end("COMMIT").map_err(|failure| match failure {
            // Whether the server got and did it cannot be known: never tried again.
            Failure::Lost(StoreError::Unreachable { detail }) => {
                StoreError::Uncertain { detail }.into()
            }
            other => other,
        })
    }

    fn rollback(&mut self) -> Result<(), Failure> {
        self.end("ROLLBACK")
    }

    fn end(&mut self, sql: &str) -> Result<(), Failure> {
        // A transaction without a statement never began.
        if self.begin.take().is_some() { Ok(()) } else { self.batch(sql) }
    }

    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), Failure> {
        let begin = self.begin.take();
        self.send(begin, self.client.batch_execute(sql))
    }

    /// Waits for an answer, sending a `BEGIN` right before if one is due.
    fn send<T>(
        &self,
        begin: Option<&'static str>,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let Some(begin) = begin else {
            return wait(&self.runtime, async { answer.await.map_err(|error| failure(&error)) });
        };
        wait(&self.runtime, async {
            // Polled in this order, so they are sent in this order, without waiting in between.
            match tokio::join!(biased; self.client.batch_execute(begin), answer) {
                (Ok(()), done) => done.map_err(|error| failure(&error)),
                (Err(error), Err(_)) => Err(failure(&error)),
                // Never seen: the statement ran by itself, outside any transaction.
                (Err(error), Ok(_)) => {
                    Err(StoreError::Uncertain { detail: describe(&error) }.into())
                }
            }
        })
    }

    pub(crate) fn execute(&mut self, sql: &str, values: &[Bound<'_>]) -> Result<u64, Failure> {
        let statement = self.statement(sql)?;
        let parameters = parameters(&statement, values)?;
        let begin = self.begin.take();
        self.send(begin, self.client.execute(&statement, &parameters))
    }

    pub(crate) fn query(&mut self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>, Failure> {
        let statement = self.statement(sql)?;
        let parameters = parameters(&statement, values)?;
        let begin = self.begin.take();
        let rows = self.send(begin, self.client.query(&statement, &parameters))?;
        if rows.len() > MAX_QUERY_ROWS {
            return Err(StoreError::misuse("a query without LIMIT returned too many rows").into());
        }
        rows.iter().map(row).collect()
    }

    /// Sends all statements before it waits for the first answer.
    pub(crate) fn query_all(
        &mut self,
        statements: &[(Cow<'_, str>, Vec<Bound<'_>>)],
    ) -> Result<Vec<Vec<Row>>, Failure> {
        let mut prepared = Vec::with_capacity(statements.len());
        for (sql, values) in statements {
            prepared.push((self.statement(sql)?, values));
        }
        let mut bound = Vec::with_capacity(prepared.len());
        for (statement, values) in &prepared {
            bound.push((statement, parameters(statement, values)?));
        }
        let begin = self.begin.take();
        let answers = bound.iter().map(|(statement, values)| self.client.query(*statement, values));
        let answers = self.send(begin, in_order(answers.collect()))?;
        let mut all = Vec::with_capacity(answers.len());
        for rows in answers {
            if rows.len() > MAX_QUERY_ROWS {
                let detail = "a query without LIMIT returned too many rows";
                return Err(StoreError::misuse(detail).into());
            }
            all.push(rows.iter().map(row).collect::<Result<_, _>>()?);
        }
        Ok(all)
    }

    /// Binds one array per column, see [`crate::dialect::Dialect::insert_many`].
    pub(crate) fn insert_arrays(
        &mut self,
        sql: &str,
        columns: &[Column],
        rows: &[Vec<Bound<'_>>],
    ) -> Result<(), Failure> {
        let statement = self.statement(sql)?;
        let arrays = columns
            .iter()
            .enumerate()
            .map(|(index, column)| array(*column, rows.iter().map(|row| row[index])))
            .collect::<Result<Vec<_>, _>>()?;
        let parameters: Vec<&(dyn ToSql + Sync)> = arrays.iter().map(AsRef::as_ref).collect();
        let begin = self.begin.take();
        self.send(begin, self.client.execute(&statement, &parameters)).map(|_| ())
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.send(None, self.client.prepare(sql))?;
        if self.statements.len() < MAX_STATEMENTS {
            self.statements.insert(sql.to_owned(), statement.clone());
        }
        Ok(statement)
    }
}

/// Waits for all, polled in their order: what each sends when it is first polled is sent in that
/// order. After a failure the server skips the rest of the transaction, so the first one counts.
async fn in_order<T, E>(answers: Vec<impl Future<Output = Result<T, E>>>) -> Result<Vec<T>, E> {
    let mut answers: Vec<_> = answers.into_iter().map(|answer| (Box::pin(answer), None)).collect();
    poll_fn(|context| {
        let mut all = true;
        for (answer, done) in &mut answers {
            if done.is_none() {
                match answer.as_mut().poll(context) {
                    Poll::Ready(result) => *done = Some(result),
                    Poll::Pending => all = false,
                }
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.into_iter().filter_map(|(_, done)| done).collect()
}

fn wait<T>(
    runtime: &Runtime,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    match runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, answer).await }) {
        Ok(answer) => answer,
        Err(_) => Err(Failure::Lost(StoreError::unreachable("no answer within 40 s"))),
    }
}

/// Runs queued transactions until all senders are gone.
pub(crate) fn serve(
    config: &Config,
    mut session: Option<Session>,
    worker: u32,
    queue: &SharedInbox,
) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        let outcome = run(config, &mut session, worker, job.as_mut());
        job.settle(outcome);
    }
}

/// Runs one job to its end. `session` is `None` afterwards if the connection is unusable.
fn run(
    config: &Config,
    session: &mut Option<Session>,
    worker: u32,
    job: &mut dyn Job,
) -> Result<(), StoreError> {
    let mut losses = 0;
    for attempt in 1..=MAX_ATTEMPTS {
        let mut connected = match session.take() {
            Some(session) => session,
            None => Session::connect(config)?,
        };
        match attempt_once(&mut connected, job) {
            Ok(()) => {
                *session = Some(connected);
                return Ok(());
            }
            Err(Failure::Final(error)) => {
                // An unknown outcome means a lost connection: drop it.
                if !matches!(error, StoreError::Uncertain { .. }) {
                    *session = Some(connected);
                }
                return Err(error);
            }
            Err(Failure::Lost(error)) => {
                losses += 1;
                if losses == MAX_LOSSES {
                    return Err(error);
                }
            }
            Err(Failure::Retry) => *session = Some(connected),
        }
        job.note_retry();
        std::thread::sleep(RETRY_DELAY * attempt * (worker + 1));
    }
    Err(Failure::Retry.error())
}

fn attempt_once(session: &mut Session, job: &mut dyn Job) -> Result<(), Failure> {
    let mode = job.mode();
    session.begin(mode);
    match job.attempt(&mut Tx::on_postgres(session)) {
        Attempt::Keep => session.commit().map_err(|failure| match failure {
            // Nothing was written, so nothing is uncertain.
            Failure::Final(StoreError::Uncertain { detail }) if mode == Mode::ReadOnly => {
                Failure::Lost(StoreError::Unreachable { detail })
            }
            other => other,
        }),
        Attempt::Undo => match session.rollback() {
            // The server forgets the transaction with the connection: undone either way.
            Err(Failure::Lost(_)) | Ok(()) => Ok(()),
            Err(other) => Err(other),
        },
        Attempt::Again(Failure::Lost(error)) => Err(Failure::Lost(error)),
        Attempt::Again(failure) => {
            session.rollback()?;
            Err(failure)
        }
    }
}

/// Drivers check parameter types strictly, so NULL needs the parameter's own type.
fn parameters<'a>(
    statement: &Statement,
    values: &'a [Bound<'a>],
) -> Result<Vec<&'a (dyn ToSql + Sync)>, Failure> {
    if statement.params().len() != values.len() {
        let wanted = statement.params().len();
        let detail = format!("{} values for {wanted} parameters", values.len());
        return Err(StoreError::misuse(detail).into());
    }
    statement.params().iter().zip(values).map(|(wanted, value)| parameter(wanted, value)).collect()
}

fn parameter<'a>(wanted: &Type, value: &'a Bound<'a>) -> Result<&'a (dyn ToSql + Sync), Failure> {
    Ok(match (value, wanted) {
        (Bound::Int(int), &Type::INT8) => int,
        (Bound::Text(text), &Type::TEXT) => text,
        (Bound::Blob(blob), &Type::BYTEA) => blob,
        (Bound::Bool(truth), &Type::BOOL) => truth,
        (Bound::Null, &Type::INT8) => &None::<i64>,
        (Bound::Null, &Type::TEXT) => &None::<&str>,
        (Bound::Null, &Type::BYTEA) => &None::<&[u8]>,
        (Bound::Null, &Type::BOOL) => &None::<bool>,
        _ => return Err(StoreError::misuse(format!("a parameter must be {wanted}")).into()),
    })
}

fn array<'a>(
    column: Column,
    values: impl Iterator<Item = Bound<'a>>,
) -> Result<Box<dyn ToSql + Sync + 'a>, Failure> {
    let wrong = || Failure::from(StoreError::misuse("a value is not of its column's type"));
    Ok(match column {
        Column::Int => Box::new(
            values
                .map(|value| match value {
                    Bound::Int(int) => Ok(Some(int)),
                    Bound::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<_>, _>>()?,
        ),
        Column::Text => Box::new(
            values
                .map(|value| match value {
                    Bound::Text(text) => Ok(Some(text)),
                    Bound::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<_>, _>>()?,
        ),
        Column::Blob => Box::new(
            values
                .map(|value| match value {
                    Bound::Blob(blob) => Ok(Some(blob)),
                    Bound::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<_>, _>>()?,
        ),
    })
}

fn row(row: &tokio_postgres::Row) -> Result<Row, Failure> {
    let cells = row
        .columns()
        .iter()
        .enumerate()
        .map(|(index, column)| cell(row, index, column.type_()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Row::new(cells))
}

fn cell(row: &tokio_postgres::Row, index: usize, kind: &Type) -> Result<Value, Failure> {
    let value = match *kind {
        Type::INT8 => row.try_get::<_, Option<i64>>(index).map(Value::from),
        Type::INT4 => row.try_get::<_, Option<i32>>(index).map(|int| int.map(i64::from).into()),
        Type::TEXT | Type::VARCHAR | Type::NAME => {
            row.try_get::<_, Option<String>>(index).map(Value::from)
        }
        Type::BYTEA => row.try_get::<_, Option<Vec<u8>>>(index).map(Value::from),
        Type::BOOL => row.try_get::<_, Option<bool>>(index).map(Value::from),
        // What functions without a result return.
        Type::VOID => Ok(Value::Null),
        _ => return Err(StoreError::misuse(format!("a column of type {kind}")).into()),
    };
    value.map_err(|error| failure(&error))
}

fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(answer) = error.as_db_error() else {
        // No answer from the server: the connection is gone, or never understood us.
        return Failure::Lost(StoreError::unreachable(describe(error)));
    };
    let code = answer.code();
    let named = || answer.constraint().unwrap_or("unknown").to_owned();
    let message = || answer.message().to_owned();
    if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
        return Failure::Retry;
    }
    // Classes 08 (connection) and 57P (shutdown): the server is closing this connection.
    if code.code().starts_with("08") || code.code().starts_with("57P") {
        return Failure::Lost(StoreError::unreachable(message()));
    }
    Failure::Final(match *code {
        SqlState::UNIQUE_VIOLATION => StoreError::Conflict { constraint: named() },
        SqlState::FOREIGN_KEY_VIOLATION => StoreError::NotFound { what: "referenced row" },
        SqlState::CHECK_VIOLATION => StoreError::Refused { check: "row-check" },
        SqlState::RESTRICT_VIOLATION => StoreError::Refused { check: APPEND_ONLY },
        SqlState::LOCK_NOT_AVAILABLE => StoreError::Busy { what: "lock" },
        SqlState::QUERY_CANCELED => StoreError::Busy { what: "statement took too long" },
        SqlState::DISK_FULL => StoreError::Full,
        SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => StoreError::corrupt(message()),
        SqlState::TOO_MANY_CONNECTIONS | SqlState::OUT_OF_MEMORY | SqlState::IO_ERROR => {
            StoreError::unreachable(message())
        }
        _ => StoreError::misuse(format!("{} ({})", answer.message(), code.code())),
    })
}

/// The error with its causes; the driver puts neither URL nor values into them.
fn describe(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
