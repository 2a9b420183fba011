//! Reads of ID cards: that they happened and how they ended. Never what the card said.

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::tx::Statement;
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// The check that [`Tx::abandon_reads`] names.
const ABANDONED: &str = "abandoned";
/// The check of an attempt that is not the latest any more.
const SUPERSEDED: &str = "read-superseded";

/// Sorts after every id: all ids begin with a lower-case prefix.
const AFTER_EVERY_ID: &str = "~";

/// Where a read stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadState {
    /// Under way, or its server died.
    Started,
    /// The reader was given the record. Final.
    Done,
    /// The latest attempt failed; the reader may try again.
    Failed,
}

stored_as_text!(ReadState, "read state", {
    Started => "started",
    Done => "done",
    Failed => "failed",
});

/// A read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// `read_…`.
    pub id: String,
    /// The reader.
    pub device_id: String,
    /// The reader's own name for this read, by which a retry is recognised.
    pub client_read_id: [u8; 16],
    /// Where it stands.
    pub state: ReadState,
    /// The check that failed the latest attempt.
    pub failed_check: Option<String>,
    /// The SAM that worked on it.
    pub sam_id: Option<String>,
    /// Which of the document types it was.
    pub document_type: Option<String>,
    /// How often the reader began it.
    pub attempts: u32,
    /// When the latest attempt began.
    pub started_at: UnixTime,
    /// When it ended.
    pub finished_at: Option<UnixTime>,
}

/// A reader's wish to begin a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadStart {
    /// `read_…`: the id if the read is new.
    pub id: String,
    /// The reader.
    pub device_id: String,
    /// The reader's own name for this read.
    pub client_read_id: [u8; 16],
    /// When.
    pub at: UnixTime,
    /// The connection on which it is begun, by a name that no other has.
    pub session_id: String,
}

/// What beginning a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunRead {
    /// The read's id: the new one, or that of the first attempt.
    pub id: String,
    /// [`ReadState::Started`], or [`ReadState::Done`] if it was done before.
    pub state: ReadState,
    /// Which attempt this is, from 1; to be given to [`Tx::finish_read`].
    pub attempt: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadEnd {
    /// The reader was given the record.
    Done {
        /// The SAM that decrypted it.
        sam_id: String,
        /// Which of the document types it was.
        document_type: String,
    },
    /// A check failed.
    Failed {
        /// The check's stable name.
        check: String,
        /// The SAM that worked on it, if one did.
        sam_id: Option<String>,
    },
}

const COLUMNS: &str = "id, device_id, client_read_id, state, failed_check, sam_id, \
     document_type, attempts, started_at, finished_at";

fn read(row: &Row) -> Result<Read, StoreError> {
    Ok(Read {
        id: row.text(0)?.to_owned(),
        device_id: row.text(1)?.to_owned(),
        client_read_id: row.array(2)?,
        state: ReadState::stored(row.text(3)?)?,
        failed_check: row.opt_text(4)?.map(str::to_owned),
        sam_id: row.opt_text(5)?.map(str::to_owned),
        document_type: row.opt_text(6)?.map(str::to_owned),
        attempts: row.u32(7)?,
        started_at: row.time(8)?,
        finished_at: row.opt_time(9)?,
    })
}

/// The statement that begins a read.
pub(crate) fn begin(start: &ReadStart) -> Result<Statement, StoreError> {
    check_texts([start.id.as_str(), &start.session_id])?;
    Ok(Statement::new(
        "INSERT INTO reads
             (id, device_id, client_read_id, state, attempts, started_at, session_id)
         VALUES (?1, ?2, ?3, 'started', 1, ?4, ?5)
         ON CONFLICT (device_id, client_read_id) DO UPDATE SET
             attempts = CASE reads.state WHEN 'done' THEN reads.attempts
                             ELSE reads.attempts + 1 END,
             started_at = CASE reads.state WHEN 'done' THEN reads.started_at
                               ELSE excluded.started_at END,
             finished_at = CASE reads.state WHEN 'done' THEN reads.finished_at END,
             sam_id = CASE reads.state WHEN 'done' THEN reads.sam_id END,
             failed_check = NULL,
             session_id = excluded.session_id,
             state = CASE reads.state WHEN 'done' THEN 'done' ELSE 'started' END
         RETURNING id, state, attempts",
        vec![
            (&start.id).into(),
            (&start.device_id).into(),
            (&start.client_read_id).into(),
            start.at.into(),
            (&start.session_id).into(),
        ],
    ))
}

/// What the statement that begins a read returned.
pub(crate) fn begun(rows: &[Row]) -> Result<BegunRead, StoreError> {
    let row = rows.first().ok_or_else(|| StoreError::misuse("an upsert returned no row"))?;
    Ok(BegunRead {
        id: row.text(0)?.to_owned(),
        state: ReadState::stored(row.text(1)?)?,
        attempt: row.u32(2)?,
    })
}

/// The statement that ends an attempt; it returns no row if it is not the latest any more.
pub(crate) fn finish(
    id: &str,
    attempt: u32,
    end: &ReadEnd,
    now: UnixTime,
) -> Result<Statement, StoreError> {
    let (state, check, sam_id, document_type) = match end {
        ReadEnd::Done { sam_id, document_type } => {
            (ReadState::Done, None, Some(sam_id.as_str()), Some(document_type.as_str()))
        }
        ReadEnd::Failed { check, sam_id } => {
            (ReadState::Failed, Some(check.as_str()), sam_id.as_deref(), None)
        }
    };
    check_texts(check.into_iter().chain(sam_id).chain(document_type))?;
    Ok(Statement::new(
        "UPDATE reads SET state = ?3, failed_check = ?4, sam_id = ?5, document_type = ?6,
             finished_at = ?7
         WHERE id = ?1 AND attempts = ?2 AND state = 'started' RETURNING id",
        vec![
            id.into(),
            attempt.into(),
            state.name().into(),
            check.into(),
            sam_id.into(),
            document_type.into(),
            now.into(),
        ],
    ))
}

impl Tx<'_> {
    /// Begins a read, or begins it again: the same device and client id give the same read, one
    /// attempt later. A read that is done stays as it is.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn begin_read(&mut self, start: &ReadStart) -> Result<BegunRead, StoreError> {
        let Statement { sql, values } = begin(start)?;
        begun(&self.query(&sql, &values)?)
    }

    /// Ends the attempt that [`Tx::begin_read`] numbered.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `read-superseded` if a later attempt
    /// began, or the read has ended, meanwhile; `text-too-long`.
    pub fn finish_read(
        &mut self,
        id: &str,
        attempt: u32,
        end: &ReadEnd,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let Statement { sql, values } = finish(id, attempt, end, now)?;
        let ended = !self.query(&sql, &values)?.is_empty();
        if ended { Ok(()) } else { Err(self.why_not_ended(id)?) }
    }

    /// Why no attempt was ended.
    pub(crate) fn why_not_ended(&mut self, id: &str) -> Result<StoreError, StoreError> {
        Ok(match self.read_by_id(id)? {
            Some(_) => StoreError::Refused { check: SUPERSEDED },
            None => StoreError::NotFound { what: "read" },
        })
    }

    /// The read with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn read_by_id(&mut self, id: &str) -> Result<Option<Read>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM reads WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| read(&row)).transpose()
    }

    /// Reads, newest first, before `cursor`, of one device or of all; `limit` in
    /// 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn reads_page(
        &mut self,
        device_id: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Read>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or(AFTER_EVERY_ID);
        let mut values = vec![before.into(), fetch_limit(limit)?.into()];
        values.extend(device_id.map(Into::into));
        let filter = if device_id.is_some() { "AND device_id = ?3" } else { "" };
        let sql =
            format!("SELECT {COLUMNS} FROM reads WHERE id < ?1 {filter} ORDER BY id DESC LIMIT ?2");
        let items = self.query(&sql, &values)?.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |read: &Read| read.id.clone()))
    }

    /// Fails, with the check `abandoned`, reads whose latest attempt began before
    /// `started_before` and never ended, because their server died. Returns how many.
    ///
    /// # Errors
    /// What the database answers.
    pub fn abandon_reads(
        &mut self,
        started_before: UnixTime,
        now: UnixTime,
    ) -> Result<u64, StoreError> {
        self.execute(
            "UPDATE reads SET state = 'failed', failed_check = ?3, finished_at = ?2
             WHERE state = 'started' AND started_at < ?1",
            &[started_before.into(), now.into(), ABANDONED.into()],
        )
    }
}
