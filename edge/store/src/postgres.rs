//! PostgreSQL: a bounded pool of worker threads, each with its own connection.

mod values;

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::mem;
use std::sync::PoisonError;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Statement};

use self::values::{array, arrays, describe, failure, few, parameters};
use crate::dialect::Column;
use crate::error::Failure;
use crate::job::{Attempt, Job, Mode, SharedInbox};
use crate::tx::Many;
use crate::value::{Bound, Row};
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
const MAX_STATEMENTS: usize = 512;
/// Explicit, so that a server configured otherwise changes neither durability nor bounds.
const SESSION: &str = "SET synchronous_commit = on; SET statement_timeout = '30s';
    SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s';
    SET client_min_messages = warning; SET standard_conforming_strings = on";

/// For statements over many rows, which look rows up by keys: their plans are made once, and early,
/// when the tables may be small or not counted yet; a plan that reads whole tables would stay.
const BY_KEYS: &str = "SET LOCAL plan_cache_mode = force_generic_plan;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off;
    SET LOCAL enable_material = off";

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
    /// Whether [`BY_KEYS`] has been sent in this transaction.
    by_keys: bool,
    /// What travels after it and before the next statement, or before the `COMMIT`.
    due: Vec<Due>,
    /// Whether the transaction's end has travelled with its last statements.
    ended: bool,
    runtime: Runtime,
}

/// A statement with one array per column.
struct Due {
    statement: Statement,
    arrays: Vec<Box<dyn ToSql + Sync>>,
}

/// What is sent right before a statement, without waiting in between.
#[derive(Default)]
struct Before {
    begin: Option<&'static str>,
    by_keys: bool,
    due: Vec<Due>,
}

impl Due {
    fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.arrays.iter().map(AsRef::as_ref).collect()
    }
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
        Ok(Self {
            client,
            statements: HashMap::new(),
            begin: None,
            by_keys: false,
            due: Vec::new(),
            ended: false,
            runtime,
        })
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
        self.due.clear();
        self.by_keys = false;
        self.ended = false;
        self.begin = Some(match mode {
            Mode::Serializable => "BEGIN ISOLATION LEVEL SERIALIZABLE",
            Mode::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ",
            Mode::Locked => "BEGIN ISOLATION LEVEL READ COMMITTED",
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
        self.due.clear();
        self.end("ROLLBACK")
    }

    fn end(&mut self, sql: &str) -> Result<(), Failure> {
        if mem::take(&mut self.ended) {
            return Ok(());
        }
        // A transaction without a statement never began.
        if self.due.is_empty() && self.begin.take().is_some() { Ok(()) } else { self.batch(sql) }
    }

    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), Failure> {
        let before = self.before();
        self.send(before, self.client.batch_execute(sql))
    }

    /// What is to be sent right before the next statement.
    fn before(&mut self) -> Before {
        let due = mem::take(&mut self.due);
        let by_keys = !due.is_empty() && !mem::replace(&mut self.by_keys, true);
        Before { begin: self.begin.take(), by_keys, due }
    }

    /// Waits for an answer, sending right before what is due.
    fn send<T>(
        &self,
        Before { begin, by_keys, due }: Before,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        let first = match (begin, by_keys) {
            (Some(begin), true) => Some(Cow::Owned(format!("{begin}; {BY_KEYS}"))),
            (Some(begin), false) => Some(Cow::Borrowed(begin)),
            (None, true) => Some(Cow::Borrowed(BY_KEYS)),
            (None, false) => None,
        };
        let begun = async {
            match &first {
                Some(first) => self.client.batch_execute(first).await,
                None => Ok(()),
            }
        };
        let bound: Vec<_> = due.iter().map(|due| (&due.statement, due.parameters())).collect();
        let due = bound.iter().map(|(statement, values)| self.client.query(*statement, values));
        let due = in_order(due.collect());
        wait(&self.runtime, async {
            // Polled in this order, so they are sent in this order, without waiting in between.
            match tokio::join!(biased; begun, due, answer) {
                (Ok(()), Ok(_), done) => done.map_err(|error| failure(&error)),
                // The server skips what follows a failure; a `COMMIT` then rolls back.
                (Ok(()), Err(error), _) => Err(failure(&error)),
                (Err(error), _, Err(_)) => Err(failure(&error)),
                // Never seen: the statement ran by itself, outside any transaction.
                (Err(error), _, Ok(_)) => {
                    Err(StoreError::Uncertain { detail: describe(&error) }.into())
                }
            }
        })
    }

    pub(crate) fn execute(&mut self, sql: &str, values: &[Bound<'_>]) -> Result<u64, Failure> {
        let statement = self.statement(sql)?;
        let parameters = parameters(&statement, values)?;
        let before = self.before();
        self.send(before, self.client.execute(&statement, &parameters))
    }

    pub(crate) fn query(&mut self, sql: &str, values: &[Bound<'_>]) -> Result<Vec<Row>, Failure> {
        let statement = self.statement(sql)?;
        let parameters = parameters(&statement, values)?;
        let before = self.before();
        let rows = self.send(before, self.client.query(&statement, &parameters))?;
        few(&rows)
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
        let before = self.before();
        let answers = bound.iter().map(|(statement, values)| self.client.query(*statement, values));
        let answers = self.send(before, in_order(answers.collect()))?;
        answers.iter().map(|rows| few(rows)).collect()
    }

    /// Sends all statements over many rows before it waits for the first answer, and right behind
    /// them, if they are the `last`, the end of the transaction.
    pub(crate) fn query_many(
        &mut self,
        statements: Vec<(String, Many)>,
        last: bool,
    ) -> Result<Vec<Vec<Row>>, Failure> {
        let run: Vec<bool> = statements.iter().map(|(_, many)| !many.rows.is_empty()).collect();
        let due = self.prepared(statements)?;
        if due.is_empty() {
            return Ok(run.iter().map(|_| Vec::new()).collect());
        }
        let bound: Vec<_> = due.iter().map(|due| (&due.statement, due.parameters())).collect();
        let mut before = self.before();
        before.by_keys |= !mem::replace(&mut self.by_keys, true);
        self.ended = last;
        let answers = bound.iter().map(|(statement, values)| self.client.query(*statement, values));
        let answers = in_order(answers.collect());
        let ended = async { if last { self.client.batch_execute("COMMIT").await } else { Ok(()) } };
        let all = async {
            let (answers, ended) = tokio::join!(biased; answers, ended);
            answers.and_then(|answers| ended.map(|()| answers))
        };
        let mut answers = self.send(before, all)?.into_iter();
        run.iter()
            .map(|run| if *run { few(&answers.next().unwrap_or_default()) } else { Ok(Vec::new()) })
            .collect()
    }

    /// Sends statements over many rows right before the next statement, or before the `COMMIT`.
    pub(crate) fn write_last(&mut self, statements: Vec<(String, Many)>) -> Result<(), Failure> {
        let prepared = self.prepared(statements)?;
        self.due.extend(prepared);
        Ok(())
    }

    /// Statements over many rows, without those that have none.
    fn prepared(&mut self, statements: Vec<(String, Many)>) -> Result<Vec<Due>, Failure> {
        let mut prepared = Vec::with_capacity(statements.len());
        for (sql, many) in statements {
            if !many.rows.is_empty() {
                let statement = self.statement(&sql)?;
                prepared.push(Due { statement, arrays: arrays(many.columns, many.rows)? });
            }
        }
        Ok(prepared)
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
        let before = self.before();
        self.send(before, self.client.execute(&statement, &parameters)).map(|_| ())
    }

    fn statement(&mut self, sql: &str) -> Result<Statement, Failure> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.send(Before::default(), self.client.prepare(sql))?;
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
