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

/// A statement of shared SQL over many rows of values: `{rows}` in it is a table `k` with columns
/// `k1`, `k2` … of these types. PostgreSQL runs it once, with one array per column; SQLite once per
/// row.
pub(crate) struct Many {
    pub(crate) sql: Cow<'static, str>,
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Vec<Value>>,
}

impl Many {
    pub(crate) fn new(
        sql: impl Into<Cow<'static, str>>,
        columns: &'static [Column],
        rows: Vec<Vec<Value>>,
    ) -> Self {
        Self { sql: sql.into(), columns, rows }
    }

    /// Inserts rows; `names` are the columns, joined by commas.
    pub(crate) fn insert(
        table: &str,
        names: &str,
        columns: &'static [Column],
        rows: Vec<Vec<Value>>,
    ) -> Self {
        let cells: Vec<String> = (1..=columns.len()).map(|n| format!("k{n}")).collect();
        let cells = cells.join(", ");
        Self::new(
            format!("INSERT INTO {table} ({names}) SELECT {cells} FROM {{rows}}"),
            columns,
            rows,
        )
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

    /// Runs statements over many rows, one after the other, and returns what each selects. They
    /// travel to PostgreSQL together. One without rows is not run and selects nothing.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for a row of another width; else of the first that fails.
    pub(crate) fn select_many(
        &mut self,
        statements: Vec<Many>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        self.select(statements, false)
    }

    /// As [`Tx::select_many`], as the last thing of a transaction that only reads: to PostgreSQL
    /// the end travels with it.
    ///
    /// # Errors
    /// As [`Tx::select_many`].
    pub(crate) fn select_last(
        &mut self,
        statements: Vec<Many>,
    ) -> Result<Vec<Vec<Row>>, StoreError> {
        self.select(statements, true)
    }

    fn select(&mut self, statements: Vec<Many>, last: bool) -> Result<Vec<Vec<Row>>, StoreError> {
        self.check()?;
        let dialect = self.dialect();
        let statements = checked(dialect, statements)?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => statements
                .into_iter()
                .map(|(sql, many)| sqlite::query_many(connection, &sql, &many.rows))
                .collect(),
            Session::Postgres(session) => session.query_many(statements, last),
        };
        self.doom(result)
    }

    /// Runs statements over many rows of which nothing is expected but that they work. To
    /// PostgreSQL they travel with the next statement or, if none follows, with the commit, so that
    /// both cost one round trip: then the transaction fails with their error.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for a row of another width; in SQLite, of the first that fails.
    pub(crate) fn write_last(&mut self, statements: Vec<Many>) -> Result<(), StoreError> {
        self.check()?;
        let statements = checked(self.dialect(), statements)?;
        let result = match &mut self.session {
            Session::Sqlite(connection) => statements
                .iter()
                .try_for_each(|(sql, many)| sqlite::execute_many(connection, sql, &many.rows)),
            Session::Postgres(session) => session.write_last(statements),
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

/// Statements as the database wants them, with rows that have been checked.
fn checked(dialect: Dialect, statements: Vec<Many>) -> Result<Vec<(String, Many)>, StoreError> {
    let mut checked = Vec::with_capacity(statements.len());
    for many in statements {
        for row in &many.rows {
            if row.len() != many.columns.len() {
                return Err(StoreError::misuse("a row has not one value per column"));
            }
            bind(row)?;
        }
        checked.push((dialect.many(&many.sql, many.columns)?, many));
    }
    Ok(checked)
}
