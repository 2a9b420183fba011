use countersign_crypto::UnixTime;

use crate::StoreError;

/// Longest text or blob a statement may bind, in bytes.
pub const MAX_VALUE_LEN: usize = 1 << 20;

/// Longest name, serial, label, reason and other short text of a row, in bytes. Also keeps every
/// indexed text within what PostgreSQL can index.
pub const MAX_TEXT_LEN: usize = 256;

/// Refuses a row with a short text that is longer than [`MAX_TEXT_LEN`].
pub(crate) fn check_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), StoreError> {
    if texts.into_iter().all(|text| text.len() <= MAX_TEXT_LEN) {
        Ok(())
    } else {
        Err(StoreError::Refused { check: "text-too-long" })
    }
}

/// A typed value to bind to a statement, or a cell of a row.
///
/// SQLite has no booleans: there a [`Value::Bool`] is stored, and read back, as an integer.
/// Times are milliseconds since the epoch in both databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit integer.
    Int(i64),
    /// Text; NUL characters are refused because PostgreSQL cannot hold them.
    Text(String),
    /// Bytes.
    Blob(Vec<u8>),
    /// A truth value.
    Bool(bool),
    /// A time, stored as milliseconds.
    Time(UnixTime),
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(value: &[u8; N]) -> Self {
        Self::Blob(value.to_vec())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<UnixTime> for Value {
    fn from(value: UnixTime) -> Self {
        Self::Time(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A checked value on its way to a driver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
    Bool(bool),
}

/// Checks values against the bounds both databases share.
pub(crate) fn bind(values: &[Value]) -> Result<Vec<Bound<'_>>, StoreError> {
    values.iter().map(bind_one).collect()
}

fn bind_one(value: &Value) -> Result<Bound<'_>, StoreError> {
    let bound = match value {
        Value::Null => Bound::Null,
        Value::Int(int) => Bound::Int(*int),
        Value::Text(text) if text.contains('\0') => {
            return Err(StoreError::Refused { check: "text-nul" });
        }
        Value::Text(text) => Bound::Text(text),
        Value::Blob(blob) => Bound::Blob(blob),
        Value::Bool(truth) => Bound::Bool(*truth),
        Value::Time(time) => Bound::Int(
            i64::try_from(time.as_millis())
                .map_err(|_| StoreError::Refused { check: "time-range" })?,
        ),
    };
    let len = match bound {
        Bound::Text(text) => text.len(),
        Bound::Blob(blob) => blob.len(),
        _ => 0,
    };
    if len > MAX_VALUE_LEN {
        return Err(StoreError::Refused { check: "value-too-long" });
    }
    Ok(bound)
}

/// One row of a result; columns by index from 0.
///
/// Every access states the type it expects; another type, or an unexpected NULL, is
/// [`StoreError::Corrupt`], a column that is not there is [`StoreError::Misuse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Value>);

impl Row {
    pub(crate) fn new(cells: Vec<Value>) -> Self {
        Self(cells)
    }

    /// All cells, as stored.
    #[must_use]
    pub fn cells(&self) -> &[Value] {
        &self.0
    }

    /// A 64-bit integer.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn int(&self, column: usize) -> Result<i64, StoreError> {
        match self.cell(column)? {
            Value::Int(int) => Ok(*int),
            other => Err(mismatch(column, "an integer", other)),
        }
    }

    /// An integer that is not negative and fits.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn u32(&self, column: usize) -> Result<u32, StoreError> {
        let int = self.int(column)?;
        u32::try_from(int)
            .map_err(|_| StoreError::corrupt(format!("column {column} is out of range")))
    }

    /// Text.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn text(&self, column: usize) -> Result<&str, StoreError> {
        match self.cell(column)? {
            Value::Text(text) => Ok(text),
            other => Err(mismatch(column, "text", other)),
        }
    }

    /// Bytes.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn blob(&self, column: usize) -> Result<&[u8], StoreError> {
        match self.cell(column)? {
            Value::Blob(blob) => Ok(blob),
            other => Err(mismatch(column, "bytes", other)),
        }
    }

    /// Exactly `N` bytes.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn array<const N: usize>(&self, column: usize) -> Result<[u8; N], StoreError> {
        let blob = self.blob(column)?;
        blob.try_into()
            .map_err(|_| StoreError::corrupt(format!("column {column} has not {N} bytes")))
    }

    /// A truth value (an integer 0 or 1 in SQLite).
    ///
    /// # Errors
    /// See [`Row`].
    pub fn bool(&self, column: usize) -> Result<bool, StoreError> {
        match self.cell(column)? {
            Value::Bool(truth) => Ok(*truth),
            Value::Int(0) => Ok(false),
            Value::Int(1) => Ok(true),
            other => Err(mismatch(column, "a truth value", other)),
        }
    }

    /// A time.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn time(&self, column: usize) -> Result<UnixTime, StoreError> {
        let millis = u64::try_from(self.int(column)?)
            .map_err(|_| StoreError::corrupt(format!("column {column} is a time before 1970")))?;
        Ok(UnixTime::from_millis(millis))
    }

    /// Text or NULL.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        if self.is_null(column)? { Ok(None) } else { self.text(column).map(Some) }
    }

    /// Bytes or NULL.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn opt_blob(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        if self.is_null(column)? { Ok(None) } else { self.blob(column).map(Some) }
    }

    /// A time or NULL.
    ///
    /// # Errors
    /// See [`Row`].
    pub fn opt_time(&self, column: usize) -> Result<Option<UnixTime>, StoreError> {
        if self.is_null(column)? { Ok(None) } else { self.time(column).map(Some) }
    }

    /// True if the cell is NULL.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] if there is no such column.
    pub fn is_null(&self, column: usize) -> Result<bool, StoreError> {
        Ok(*self.cell(column)? == Value::Null)
    }

    fn cell(&self, column: usize) -> Result<&Value, StoreError> {
        self.0
            .get(column)
            .ok_or_else(|| StoreError::misuse(format!("the row has no column {column}")))
    }
}

fn mismatch(column: usize, wanted: &str, found: &Value) -> StoreError {
    let found = match found {
        Value::Null => "NULL",
        Value::Int(_) | Value::Time(_) => "an integer",
        Value::Text(_) => "text",
        Value::Blob(_) => "bytes",
        Value::Bool(_) => "a truth value",
    };
    StoreError::corrupt(format!("column {column} holds {found} instead of {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_read_back_with_their_type_only() {
        let row = Row::new(vec![Value::Int(1), Value::Text("a".into()), Value::Null]);
        assert_eq!(row.int(0), Ok(1));
        assert_eq!(row.bool(0), Ok(true));
        assert_eq!(row.text(1), Ok("a"));
        assert_eq!(row.opt_text(2), Ok(None));
        assert!(matches!(row.text(0), Err(StoreError::Corrupt { .. })));
        assert!(matches!(row.int(2), Err(StoreError::Corrupt { .. })));
        assert!(matches!(row.opt_text(0), Err(StoreError::Corrupt { .. })));
        assert!(matches!(row.int(3), Err(StoreError::Misuse { .. })));
        let negative = Row::new(vec![Value::Int(-1), Value::Blob(vec![0; 3])]);
        assert!(negative.time(0).is_err() && negative.u32(0).is_err() && negative.bool(0).is_err());
        assert!(negative.array::<4>(1).is_err());
        assert_eq!(negative.array::<3>(1), Ok([0; 3]));
    }

    #[test]
    fn binding_refuses_what_one_database_could_not_hold() {
        let refused = |value: Value| bind(&[value]).err();
        let check = |check| Some(StoreError::Refused { check });
        assert_eq!(refused("a\0b".into()), check("text-nul"));
        assert_eq!(refused(UnixTime::from_millis(u64::MAX).into()), check("time-range"));
        assert_eq!(refused(vec![0; MAX_VALUE_LEN + 1].into()), check("value-too-long"));
        assert_eq!(refused(vec![0; MAX_VALUE_LEN].into()), None);
    }
}
