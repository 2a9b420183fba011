use std::borrow::Cow;

use crate::dialect::{Column, Dialect};
use crate::error::Failure;
use crate::value::{Row, Value, bind};
use crate::{StoreError, postgres, sqlite};

/// Most rows one [`Tx::query`] may return; more is the caller's misuse (a missing `LIMIT`).
pub const MAX_QUERY_ROWS: usize = 20_000;

/// A statement of shared SQL with its values, for [`Tx::together`]. Whether it changes or returns
/// rows does not matter; how many it changed shows with `RETURNING` only.
pub(crate) struct Statement {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) values: Vec<Value>,
}

impl Statement {
    pub(crate) fn new(sql: impl Into<Cow<'static, str>>, values: Vec<Value>) -> Self {
        Self { sql: sql.into(), values }
    }
}

/// A running transaction: statements, and the entity methods of this crate.
///
/// **A failed statement dooms the transaction.** PostgreSQL aborts it anyway, so SQLite behaves
/// the same here: further statements return the same error and the transaction is rolled back
/// even if the closure returns `Ok`. What may fail in ordinary use is written so that it does
/// not (`ON CONFLICT …`, a select first), and the rest ends the closure with `?`.
/// Values refused before they reach the database (too long, NUL in text) do not doom it.
pub struct Tx<'a> {
    session: Session<'a>,
    failure: Option<Failure>,
}

enum Session<'a> {
    Sqlite(&'a rusqlite::Connection),
    Postgres(&'a mut postgres::Session),
}

impl<'a> Tx<'a> {
    pub(crate) fn on_sqlite(connection: &'a rusqlite::Connection) -> Self {
        Self { session: Session::Sqlite(connection), failure: None }
    }

    pub(crate) fn on_postgres(session: &'a mut postgres::Session) -> Self {
        Self { session: Session::Postgres(session), failure: None }
    }

    /// Runs one statement of shared SQL (parameters `?1`, `?2` …) and returns how many rows it
    /// changed. A statement with `RETURNING` goes to [`Tx::query`].
    ///
    /// # Errors
    /// What the database answers, see [`StoreError`].
    pub fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        self.check()?;
        let sql = self.dialect().statement(sql)?;
        let bound = bind(values)?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => sqlite::execute(connection, &sql, &bound),
            Session::Postgres(session) => session.execute(&sql, &bound),
        };
        self.doom(result)
    }

    /// Runs one statement of shared SQL and returns its rows, at most [`MAX_QUERY_ROWS`].
    ///
    /// # Errors
    /// What the database answers, see [`StoreError`].
    pub fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        self.check()?;
        let sql = self.dialect().statement(sql)?;
        let bound = bind(values)?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => sqlite::query(connection, &sql, &bound),
            Session::Postgres(session) => session.query(&sql, &bound),
        };
        self.doom(result)
    }

    /// Like [`Tx::query`], for at most one row: the first, if any.
    ///
    /// # Errors
    /// What the database answers, see [`StoreError`].
    pub fn query_one(&mut self, sql: &str, values: &[Value]) -> Result<Option<Row>, StoreError> {
        Ok(self.query(sql, values)?.into_iter().next())
    }

    /// Runs statements one after the other and returns the rows of each. They travel to
    /// PostgreSQL together, so that all of them cost one round trip.
    ///
    /// # Errors
    /// Of the first that fails; none after it has an effect.
    pub(crate) fn together(
        &mut self,
        statements: &[Statement],
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        self.check()?;
        let mut bound = Vec::with_capacity(statements.len());
        for statement in statements {
            bound.push((self.dialect().statement(&statement.sql)?, bind(&statement.values)?));
        }
        let result = match &mut self.session {
            Session::Sqlite(connection) => {
                bound.iter().map(|(sql, values)| sqlite::query(connection, sql, values)).collect()
            }
            Session::Postgres(session) => session.query_all(&bound),
        };
        self.doom(result)
    }

    /// Inserts many rows at once: one `UNNEST` statement in PostgreSQL, a prepared statement in
    /// a loop in SQLite. `columns` gives names and types; every row has one value per column.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for a row of another width; else what the database answers.
    pub fn insert_many(
        &mut self,
        table: &str,
        columns: &[(&str, Column)],
        rows: &[Vec<Value>],
    ) -> Result<(), StoreError> {
        self.check()?;
        if rows.is_empty() {
            return Ok(());
        }
        if rows.iter().any(|row| row.len() != columns.len()) {
            return Err(StoreError::misuse("a row has not one value per column"));
        }
        let (names, types): (Vec<&str>, Vec<Column>) = columns.iter().copied().unzip();
        let sql = self.dialect().insert_many(table, &names, &types);
        let bound = rows.iter().map(|row| bind(row)).collect::<Result<Vec<_>, _>>()?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => {
                bound.iter().try_for_each(|row| sqlite::execute(connection, &sql, row).map(|_| ()))
            }
            Session::Postgres(session) => session.insert_arrays(&sql, &types, &bound),
        };
        self.doom(result)
    }

    /// Runs several statements without parameters, as migrations do.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.check()?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => sqlite::batch(connection, sql),
            Session::Postgres(session) => session.batch(sql),
        };
        self.doom(result)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self.session {
            Session::Sqlite(_) => Dialect::Sqlite,
            Session::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.failure.as_ref().map_or(Ok(()), |failure| Err(failure.error()))
    }

    fn doom<T>(&mut self, result: Result<T, Failure>) -> Result<T, StoreError> {
        result.map_err(|failure| {
            let error = failure.error();
            self.failure = Some(failure);
            error
        })
    }
}
