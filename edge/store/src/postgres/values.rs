//! Values on their way to PostgreSQL and back, and what its errors mean.

use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::StoreError;
use crate::dialect::{APPEND_ONLY, Column};
use crate::error::Failure;
use crate::tx::MAX_QUERY_ROWS;
use crate::value::{Bound, Row, Value};

/// Drivers check parameter types strictly, so NULL needs the parameter's own type.
pub(super) fn parameters<'a>(
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

pub(super) fn array<'a>(
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

/// One array per column, from rows that have one checked value per column.
pub(super) fn arrays(
    columns: &[Column],
    rows: Vec<Vec<Value>>,
) -> Result<Vec<Box<dyn ToSql + Sync>>, Failure> {
    let count = rows.len();
    let mut cells: Vec<_> = columns.iter().map(|_| Vec::with_capacity(count)).collect();
    for row in rows {
        for (column, value) in cells.iter_mut().zip(row) {
            column.push(value);
        }
    }
    columns.iter().zip(cells).map(|(column, cells)| owned_array(*column, cells)).collect()
}

fn owned_array(column: Column, values: Vec<Value>) -> Result<Box<dyn ToSql + Sync>, Failure> {
    let wrong = || Failure::from(StoreError::misuse("a value is not of its column's type"));
    let values = values.into_iter();
    Ok(match column {
        Column::Int => Box::new(
            values
                .map(|value| match value {
                    Value::Int(int) => Ok(Some(int)),
                    Value::Time(time) => i64::try_from(time.as_millis())
                        .map(Some)
                        .map_err(|_| StoreError::Refused { check: "time-range" }.into()),
                    Value::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<Option<i64>>, Failure>>()?,
        ),
        Column::Text => Box::new(
            values
                .map(|value| match value {
                    Value::Text(text) => Ok(Some(text)),
                    Value::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<Option<String>>, Failure>>()?,
        ),
        Column::Blob => Box::new(
            values
                .map(|value| match value {
                    Value::Blob(blob) => Ok(Some(blob)),
                    Value::Null => Ok(None),
                    _ => Err(wrong()),
                })
                .collect::<Result<Vec<Option<Vec<u8>>>, Failure>>()?,
        ),
    })
}

pub(super) fn few(rows: &[tokio_postgres::Row]) -> Result<Vec<Row>, Failure> {
    if rows.len() > MAX_QUERY_ROWS {
        return Err(StoreError::misuse("a query without LIMIT returned too many rows").into());
    }
    rows.iter().map(row).collect()
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

pub(super) fn failure(error: &tokio_postgres::Error) -> Failure {
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
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
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
