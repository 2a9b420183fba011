//! Every difference between the SQL of SQLite and of PostgreSQL.
//!
//! Statements are written once, with parameters `?1`, `?2` … (rusqlite takes `$1` as a *name*,
//! numbered by first appearance: silently wrong). Schemas are written once with the words below.

use std::borrow::Cow;

use crate::StoreError;

/// A database's manner of speaking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Words of the shared schema text: (word, SQLite, PostgreSQL).
///
/// Text compares by bytes in both, so that cursors over ids walk in one order.
const WORDS: &[(&str, &str, &str)] = &[
    ("{int}", "INTEGER", "BIGINT"),
    ("{text}", "TEXT", "TEXT COLLATE \"C\""),
    ("{bytes}", "BLOB", "BYTEA"),
    ("{strict}", "STRICT", ""),
    ("{serial}", "INTEGER PRIMARY KEY AUTOINCREMENT", "BIGINT GENERATED ALWAYS AS IDENTITY"),
    // SQLite's serial is already the key; a second clause would be an error there.
    ("{serial_key}", "CHECK (id > 0)", "PRIMARY KEY (id)"),
];

/// The word of shared statements that locks the rows of the table with the alias `t` until the
/// transaction ends. Not so strongly that a new row could not refer to them meanwhile. In SQLite
/// the transaction that writes is alone.
const LOCK: &str = "{lock}";
/// The word of shared statements that is the rows of a [`crate::tx::Many`].
const ROWS: &str = "{rows}";

/// What an append-only trigger says; [`crate::StoreError::Refused`] with this check.
pub(crate) const APPEND_ONLY: &str = "append-only";

impl Dialect {
    /// The shared statement as this database wants it.
    pub(crate) fn statement(self, sql: &str) -> Result<Cow<'_, str>, StoreError> {
        let rewritten = dollar_placeholders(sql)?;
        Ok(match self {
            Self::Sqlite if sql.contains(LOCK) => Cow::Owned(sql.replace(LOCK, "")),
            Self::Sqlite => Cow::Borrowed(sql),
            Self::Postgres => Cow::Owned(rewritten.replace(LOCK, "FOR NO KEY UPDATE OF t")),
        })
    }

    /// The shared statement over many rows: for PostgreSQL one statement whose parameters are one
    /// array per column, for SQLite a statement that is run once per row. In both, `k` is a table
    /// with the columns `k1`, `k2` …
    pub(crate) fn many(self, sql: &str, types: &[Column]) -> Result<String, StoreError> {
        let numbers = 1..=types.len();
        let rows = match self {
            Self::Sqlite => {
                let cells: Vec<String> = numbers.map(|n| format!("?{n} AS k{n}")).collect();
                format!("(SELECT {}) AS k", cells.join(", "))
            }
            Self::Postgres => {
                let arrays: Vec<String> = numbers
                    .clone()
                    .zip(types)
                    .map(|(n, column)| format!("?{n}::{}[]", column.postgres()))
                    .collect();
                let names: Vec<String> = numbers.map(|n| format!("k{n}")).collect();
                format!("UNNEST({}) AS k ({})", arrays.join(", "), names.join(", "))
            }
        };
        Ok(self.statement(&sql.replace(ROWS, &rows))?.into_owned())
    }

    /// The shared schema text as this database wants it.
    pub(crate) fn schema(self, text: &str) -> String {
        WORDS.iter().fold(text.to_owned(), |text, (word, sqlite, postgres)| {
            text.replace(
                word,
                match self {
                    Self::Sqlite => sqlite,
                    Self::Postgres => postgres,
                },
            )
        })
    }

    /// Triggers that refuse changing, deleting or replacing rows of `table`. (In SQLite, REPLACE
    /// fires delete triggers only under `recursive_triggers`, which our connections turn on.)
    pub(crate) fn append_only(self, table: &str) -> String {
        match self {
            Self::Sqlite => format!(
                "CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}
                 BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END;
                 CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}
                 BEGIN SELECT RAISE(ABORT, '{APPEND_ONLY}'); END;"
            ),
            Self::Postgres => format!(
                "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger
                 LANGUAGE plpgsql AS $$
                 BEGIN RAISE EXCEPTION '{APPEND_ONLY}' USING ERRCODE = 'restrict_violation'; END $$;
                 CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION refuse_change();
                 CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table}
                 FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();"
            ),
        }
    }

    /// Counts the tables named `countersign_schema` (0 or 1), and all ordinary tables.
    pub(crate) fn table_counts(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT count(CASE WHEN name = 'countersign_schema' THEN 1 END), count(*)
                 FROM sqlite_master WHERE type = 'table'"
            }
            Self::Postgres => {
                "SELECT count(CASE WHEN c.relname = 'countersign_schema' THEN 1 END), count(*)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')"
            }
        }
    }

    /// Lets one process migrate at a time (SQLite's write lock does that by itself).
    pub(crate) fn migration_lock(self) -> Option<&'static str> {
        match self {
            Self::Sqlite => None,
            // Any constant will do as long as every version uses the same one.
            Self::Postgres => Some("SELECT pg_advisory_xact_lock(4848151623)"),
        }
    }

    /// A trigger that puts each new row's `id` of `table` into `queue(row_id)`.
    pub(crate) fn enqueue(self, table: &str, queue: &str) -> String {
        match self {
            Self::Sqlite => format!(
                "CREATE TRIGGER {table}_enqueue AFTER INSERT ON {table}
                 BEGIN INSERT INTO {queue} (row_id) VALUES (NEW.id); END;"
            ),
            Self::Postgres => format!(
                "CREATE FUNCTION {table}_enqueue() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN INSERT INTO {queue} (row_id) VALUES (NEW.id); RETURN NULL; END $$;
                 CREATE TRIGGER {table}_enqueue AFTER INSERT ON {table}
                 FOR EACH ROW EXECUTE FUNCTION {table}_enqueue();"
            ),
        }
    }

    /// An insert of many rows: for PostgreSQL one statement whose parameters are one array per
    /// column, for SQLite a statement that is run once per row.
    pub(crate) fn insert_many(self, table: &str, columns: &[&str], types: &[Column]) -> String {
        let names = columns.join(", ");
        let numbers = 1..=columns.len();
        match self {
            Self::Sqlite => {
                let marks: Vec<String> = numbers.map(|n| format!("?{n}")).collect();
                format!("INSERT INTO {table} ({names}) VALUES ({})", marks.join(", "))
            }
            Self::Postgres => {
                let arrays: Vec<String> = numbers
                    .zip(types)
                    .map(|(n, column)| format!("${n}::{}[]", column.postgres()))
                    .collect();
                let arrays = arrays.join(", ");
                format!("INSERT INTO {table} ({names}) SELECT * FROM UNNEST({arrays})")
            }
        }
    }
}

/// The type of a column in a statement over many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Integers and times.
    Int,
    /// Text.
    Text,
    /// Bytes.
    Blob,
}

impl Column {
    fn postgres(self) -> &'static str {
        match self {
            Self::Int => "BIGINT",
            Self::Text => "TEXT",
            Self::Blob => "BYTEA",
        }
    }
}

/// The stable name of the uniqueness rule that SQLite names by its columns, as in
/// `UNIQUE constraint failed: reads.device_id, reads.client_read_id`.
pub(crate) fn constraint_of_columns(message: &str) -> String {
    let columns = message.rsplit(": ").next().unwrap_or_default();
    let mut name = String::new();
    for (index, column) in columns.split(", ").enumerate() {
        match column.split_once('.') {
            Some((table, column)) if index == 0 => {
                name = format!("{table}_{column}");
            }
            Some((_, column)) => {
                name.push('_');
                name.push_str(column);
            }
            None => return "unknown".to_owned(),
        }
    }
    name + "_key"
}

/// `?N` to `$N`, outside quotes. A `?` without a number is refused for both databases.
fn dollar_placeholders(sql: &str) -> Result<String, StoreError> {
    let mut out = String::with_capacity(sql.len());
    let mut quote = None;
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == '?' => {
                if !chars.peek().is_some_and(|next| matches!(next, '1'..='9')) {
                    return Err(StoreError::misuse("a parameter without a number"));
                }
                out.push('$');
                continue;
            }
            None if c == '$' => return Err(StoreError::misuse("parameters are written ?N")),
            None => {}
        }
        out.push(c);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_over_many_rows_have_a_table_of_them() {
        let sql = "UPDATE t SET a = k.k2 FROM {rows} WHERE t.id = k.k1";
        let types = [Column::Text, Column::Int];
        assert_eq!(
            Dialect::Postgres.many(sql, &types).unwrap(),
            "UPDATE t SET a = k.k2 FROM UNNEST($1::TEXT[], $2::BIGINT[]) AS k (k1, k2) \
             WHERE t.id = k.k1"
        );
        assert_eq!(
            Dialect::Sqlite.many(sql, &types).unwrap(),
            "UPDATE t SET a = k.k2 FROM (SELECT ?1 AS k1, ?2 AS k2) AS k WHERE t.id = k.k1"
        );
    }

    #[test]
    fn only_postgresql_is_told_to_lock() {
        let sql = "SELECT a FROM t WHERE id = ?1 {lock}";
        let locking = "SELECT a FROM t WHERE id = $1 FOR NO KEY UPDATE OF t";
        assert_eq!(Dialect::Postgres.statement(sql).unwrap(), locking);
        assert_eq!(Dialect::Sqlite.statement(sql).unwrap(), "SELECT a FROM t WHERE id = ?1 ");
    }

    #[test]
    fn parameters_are_rewritten_outside_quotes_only() {
        let sql = "SELECT '?1 it''s', \"?2\" FROM t WHERE a = ?1 AND b = ?12";
        let wanted = "SELECT '?1 it''s', \"?2\" FROM t WHERE a = $1 AND b = $12";
        assert_eq!(Dialect::Postgres.statement(sql).unwrap(), wanted);
        assert_eq!(Dialect::Sqlite.statement(sql).unwrap(), sql);
        for bad in ["SELECT ?", "SELECT ?0", "SELECT ?a", "SELECT $1"] {
            assert!(Dialect::Sqlite.statement(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sqlite_conflicts_get_the_postgresql_name() {
        let name = constraint_of_columns("UNIQUE constraint failed: reads.device_id, reads.c_id");
        assert_eq!(name, "reads_device_id_c_id_key");
        assert_eq!(constraint_of_columns("UNIQUE constraint failed: o.name"), "o_name_key");
        assert_eq!(constraint_of_columns("nonsense"), "unknown");
    }
}
