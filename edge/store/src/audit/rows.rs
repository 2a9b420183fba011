use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::tx::{Many, Statement};
use crate::value::check_texts;
use crate::{Column, Page, Row, StoreError, Tx};

/// Longest `detail`, in bytes.
pub const MAX_DETAIL_LEN: usize = 16 * 1024;
/// Most rows one incident shows.
const MAX_INCIDENT_ROWS: u32 = 100;

/// How what was audited ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditOutcome {
    /// It was done.
    Done,
    /// A check refused it.
    Refused,
    /// The environment failed it.
    Failed,
}

stored_as_text!(AuditOutcome, "audit outcome", {
    Done => "done",
    Refused => "refused",
    Failed => "failed",
});

/// One decision, to be written down in the transaction that makes it. Never holds secrets or
/// the content of a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: UnixTime,
    /// Who: an operator's or device's id, or the name of a part of the program.
    pub actor: String,
    /// What, as a stable name, for instance `device.block`.
    pub action: String,
    /// On what: an id.
    pub subject: String,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// The stable name of the check that refused it.
    pub check: Option<String>,
    /// `inc_…`, by which an operator finds what the peer was not told.
    pub incident: Option<String>,
    /// More, as JSON text.
    pub detail: String,
}

/// An entry as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Number given by the database, rising but not without gaps.
    pub id: i64,
    /// What was written.
    pub entry: AuditEntry,
    /// Its place in the chain, from 1, if it is linked already.
    pub position: Option<i64>,
}

/// Every column of a row, in the order in which it is hashed.
pub(super) const ROW_COLUMNS: &str = "r.id, r.at, r.actor, r.action, r.subject, r.outcome, \
     r.failed_check, r.incident, r.detail";
pub(super) const ROW_WIDTH: usize = 9;

fn audit_row(row: &Row) -> Result<AuditRow, StoreError> {
    let position = if row.is_null(ROW_WIDTH)? { None } else { Some(row.int(ROW_WIDTH)?) };
    let entry = AuditEntry {
        at: row.time(1)?,
        actor: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        subject: row.text(4)?.to_owned(),
        outcome: AuditOutcome::stored(row.text(5)?)?,
        check: row.opt_text(6)?.map(str::to_owned),
        incident: row.opt_text(7)?.map(str::to_owned),
        detail: row.text(8)?.to_owned(),
    };
    Ok(AuditRow { id: row.int(0)?, entry, position })
}

fn check_lengths(entry: &AuditEntry) -> Result<(), StoreError> {
    check_texts([entry.actor.as_str(), &entry.action, &entry.subject])?;
    check_texts(entry.check.as_deref().into_iter().chain(entry.incident.as_deref()))?;
    if entry.detail.len() <= MAX_DETAIL_LEN {
        Ok(())
    } else {
        Err(StoreError::Refused { check: "detail-too-long" })
    }
}

/// The statement that writes an entry and returns its row's number.
pub(crate) fn append(entry: &AuditEntry) -> Result<Statement, StoreError> {
    check_lengths(entry)?;
    Ok(Statement::new(
        "INSERT INTO audit_rows
             (at, actor, action, subject, outcome, failed_check, incident, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id",
        vec![
            entry.at.into(),
            (&entry.actor).into(),
            (&entry.action).into(),
            (&entry.subject).into(),
            entry.outcome.name().into(),
            entry.check.as_deref().into(),
            entry.incident.as_deref().into(),
            (&entry.detail).into(),
        ],
    ))
}

/// The statement that writes entries, in their order.
pub(crate) fn append_all(entries: &[AuditEntry]) -> Result<Many, StoreError> {
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        rows.push(append(entry)?.values);
    }
    Ok(Many::insert(
        "audit_rows",
        "at, actor, action, subject, outcome, failed_check, incident, detail",
        &[
            Column::Int,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
        ],
        rows,
    ))
}

impl Tx<'_> {
    /// Writes an entry, in the transaction of the decision it is about, and returns its row's
    /// number. The chain takes it up later.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`, `detail-too-long`.
    pub fn append_audit(&mut self, entry: &AuditEntry) -> Result<i64, StoreError> {
        let Statement { sql, values } = append(entry)?;
        let row = self.query_one(&sql, &values)?;
        row.ok_or_else(|| StoreError::misuse("an insert returned no row"))?.int(0)
    }

    /// The rows of an incident, oldest first, at most 100.
    ///
    /// # Errors
    /// What the database answers.
    pub fn audit_by_incident(&mut self, incident: &str) -> Result<Vec<AuditRow>, StoreError> {
        let sql = format!(
            "SELECT {ROW_COLUMNS}, c.position
             FROM audit_rows r LEFT JOIN audit_chain c ON c.row_id = r.id
             WHERE r.incident = ?1 ORDER BY r.id LIMIT ?2"
        );
        let rows = self.query(&sql, &[incident.into(), MAX_INCIDENT_ROWS.into()])?;
        rows.iter().map(audit_row).collect()
    }

    /// Rows, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn audit_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<AuditRow>, StoreError> {
        let before = match check_cursor(cursor)? {
            None => i64::MAX,
            Some(text) => text.parse().map_err(|_| StoreError::Refused { check: "page-cursor" })?,
        };
        let sql = format!(
            "SELECT {ROW_COLUMNS}, c.position
             FROM audit_rows r LEFT JOIN audit_chain c ON c.row_id = r.id
             WHERE r.id < ?1 ORDER BY r.id DESC LIMIT ?2"
        );
        let rows = self.query(&sql, &[before.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(audit_row).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |row: &AuditRow| row.id.to_string()))
    }
}
