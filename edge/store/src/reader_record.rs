//! What is known of a reader beside its certificates and reads (C5, [0060]): how it was made, what
//! it came to, what was reported against it, what was paid at it.

use countersign_crypto::UnixTime;

use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{IdKind, Page, Row, StoreError, Tx, Value};

/// Counts of one reader that are shown: kinds and checks are few, but reports name their own.
const MAX_COUNTS: u32 = 500;
/// Sorts after every id: all ids begin with a lower-case prefix.
const AFTER_EVERY_ID: &str = "~";

/// How a reader was made, as an operator or integrator says. A text may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factory {
    /// Who made it.
    pub maker: String,
    /// The model.
    pub model: String,
    /// Version of its hardware.
    pub hardware: String,
    /// Version of its firmware.
    pub firmware: String,
    /// The batch it is from.
    pub batch: String,
    /// The day it was made on, `YYYY-MM-DD`.
    pub made_on: String,
    /// Anything else.
    pub note: String,
    /// Who said so.
    pub set_by: String,
    /// When.
    pub set_at: UnixTime,
}

/// A report against a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// `rpt_…`.
    pub id: String,
    /// The reader.
    pub device_id: String,
    /// Whoever reports names it by this; once per reader.
    pub reference: String,
    /// What kind of report.
    pub kind: String,
    /// What is said.
    pub text: String,
    /// The operator who brought it in.
    pub told_by: String,
    /// When.
    pub at: UnixTime,
}

/// A transaction at a reader, as a back office told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// `txn_…`.
    pub id: String,
    /// The reader.
    pub device_id: String,
    /// The back office's name for it; once per reader.
    pub reference: String,
    /// A decimal number, as it was told.
    pub amount: String,
    /// ISO 4217, three letters.
    pub currency: String,
    /// How it ended.
    pub outcome: String,
    /// The operator who told it.
    pub told_by: String,
    /// When.
    pub at: UnixTime,
}

/// What a reader came to in all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderCount {
    /// A [`crate::RiskKind`]'s name, or [`Self::DONE`].
    pub kind: String,
    /// The check, kind or outcome; empty where there is none.
    pub label: String,
    /// How many, since the reader was enrolled.
    pub total: i64,
    /// When the last one was.
    pub last_at: UnixTime,
}

impl ReaderCount {
    /// The kind of reads whose record was handed out.
    pub const DONE: &'static str = "done";
}

const REPORT: &str = "id, device_id, reference, kind, said, told_by, at";
const TRANSACTION: &str = "id, device_id, reference, amount, currency, outcome, told_by, at";

fn report(row: &Row) -> Result<Report, StoreError> {
    Ok(Report {
        id: row.text(0)?.to_owned(),
        device_id: row.text(1)?.to_owned(),
        reference: row.text(2)?.to_owned(),
        kind: row.text(3)?.to_owned(),
        text: row.text(4)?.to_owned(),
        told_by: row.text(5)?.to_owned(),
        at: row.time(6)?,
    })
}

fn transaction(row: &Row) -> Result<Transaction, StoreError> {
    Ok(Transaction {
        id: row.text(0)?.to_owned(),
        device_id: row.text(1)?.to_owned(),
        reference: row.text(2)?.to_owned(),
        amount: row.text(3)?.to_owned(),
        currency: row.text(4)?.to_owned(),
        outcome: row.text(5)?.to_owned(),
        told_by: row.text(6)?.to_owned(),
        at: row.time(7)?,
    })
}

impl Tx<'_> {
    /// Sets how a reader was made; the latest word counts.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn set_factory(&mut self, device_id: &str, factory: &Factory) -> Result<(), StoreError> {
        let texts = [
            &factory.maker,
            &factory.model,
            &factory.hardware,
            &factory.firmware,
            &factory.batch,
            &factory.made_on,
            &factory.note,
            &factory.set_by,
        ];
        check_texts(texts.map(String::as_str))?;
        let mut values: Vec<Value> = vec![device_id.into()];
        values.extend(texts.map(Value::from));
        values.push(factory.set_at.into());
        self.execute(
            "INSERT INTO reader_factory (device_id, maker, model, hardware, firmware, batch,
                 made_on, note, set_by, set_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT (device_id) DO UPDATE SET maker = excluded.maker,
                 model = excluded.model, hardware = excluded.hardware,
                 firmware = excluded.firmware, batch = excluded.batch,
                 made_on = excluded.made_on, note = excluded.note,
                 set_by = excluded.set_by, set_at = excluded.set_at",
            &values,
        )?;
        Ok(())
    }

    /// How a reader was made, if anybody said so.
    ///
    /// # Errors
    /// What the database answers.
    pub fn factory(&mut self, device_id: &str) -> Result<Option<Factory>, StoreError> {
        let sql = "SELECT maker, model, hardware, firmware, batch, made_on, note, set_by, set_at
                   FROM reader_factory WHERE device_id = ?1";
        let row = self.query_one(sql, &[device_id.into()])?;
        let factory = |row: Row| {
            Ok(Factory {
                maker: row.text(0)?.to_owned(),
                model: row.text(1)?.to_owned(),
                hardware: row.text(2)?.to_owned(),
                firmware: row.text(3)?.to_owned(),
                batch: row.text(4)?.to_owned(),
                made_on: row.text(5)?.to_owned(),
                note: row.text(6)?.to_owned(),
                set_by: row.text(7)?.to_owned(),
                set_at: row.time(8)?,
            })
        };
        row.map(factory).transpose()
    }

    /// Stores a report, or finds the one that has its reference already: `Ok` is new, `Err` was
    /// there before, and may say something else.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn insert_report(&mut self, new: &Report) -> Result<Result<(), Report>, StoreError> {
        check_texts([&*new.id, &new.reference, &new.kind, &new.told_by])?;
        let sql = format!(
            "INSERT INTO reader_reports ({REPORT}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (device_id, reference) DO NOTHING"
        );
        let values = [
            (&new.id).into(),
            (&new.device_id).into(),
            (&new.reference).into(),
            (&new.kind).into(),
            (&new.text).into(),
            (&new.told_by).into(),
            new.at.into(),
        ];
        if self.execute(&sql, &values)? == 1 {
            return Ok(Ok(()));
        }
        let sql =
            format!("SELECT {REPORT} FROM reader_reports WHERE device_id = ?1 AND reference = ?2");
        let found = self.query_one(&sql, &[(&new.device_id).into(), (&new.reference).into()])?;
        let found = found.ok_or_else(|| StoreError::misuse("a conflict without a row"))?;
        Ok(Err(report(&found)?))
    }

    /// Reports against a reader, newest first, before `cursor`; `limit` in
    /// 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn reports_page(
        &mut self,
        device_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Report>, StoreError> {
        let rows = self.newest("reader_reports", REPORT, device_id, cursor, limit)?;
        let items = rows.iter().map(report).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |report: &Report| report.id.clone()))
    }

    /// Stores a transaction, or finds the one that has its reference already: `Ok` is new, `Err`
    /// was there before, and may say something else.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn insert_transaction(
        &mut self,
        new: &Transaction,
    ) -> Result<Result<(), Transaction>, StoreError> {
        let texts = [&new.id, &new.reference, &new.amount, &new.currency, &new.outcome];
        check_texts(texts.map(String::as_str))?;
        check_texts([new.told_by.as_str()])?;
        let sql = format!(
            "INSERT INTO reader_transactions ({TRANSACTION})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (device_id, reference) DO NOTHING"
        );
        let values = [
            (&new.id).into(),
            (&new.device_id).into(),
            (&new.reference).into(),
            (&new.amount).into(),
            (&new.currency).into(),
            (&new.outcome).into(),
            (&new.told_by).into(),
            new.at.into(),
        ];
        if self.execute(&sql, &values)? == 1 {
            return Ok(Ok(()));
        }
        let sql = format!(
            "SELECT {TRANSACTION} FROM reader_transactions WHERE device_id = ?1 AND reference = ?2"
        );
        let found = self.query_one(&sql, &[(&new.device_id).into(), (&new.reference).into()])?;
        let found = found.ok_or_else(|| StoreError::misuse("a conflict without a row"))?;
        Ok(Err(transaction(&found)?))
    }

    /// Transactions at a reader, newest first, before `cursor`; `limit` in
    /// 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn transactions_page(
        &mut self,
        device_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Transaction>, StoreError> {
        let rows = self.newest("reader_transactions", TRANSACTION, device_id, cursor, limit)?;
        let items = rows.iter().map(transaction).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |transaction: &Transaction| transaction.id.clone()))
    }

    /// What a reader came to in all, by kind and label, the first 500.
    ///
    /// # Errors
    /// What the database answers.
    pub fn reader_counts(&mut self, device_id: &str) -> Result<Vec<ReaderCount>, StoreError> {
        let sql = "SELECT kind, label, total, last_at FROM reader_counts
                   WHERE device_id = ?1 ORDER BY kind, label LIMIT ?2";
        self.counts(sql, &[device_id.into(), MAX_COUNTS.into()])
    }

    /// The same for the events after `since`; none from before the events that are still kept.
    /// Reads that were done are not events and not among them.
    ///
    /// # Errors
    /// What the database answers.
    pub fn recent_counts(
        &mut self,
        device_id: &str,
        since: UnixTime,
    ) -> Result<Vec<ReaderCount>, StoreError> {
        let sql = "SELECT kind, label, CAST(sum(amount) AS BIGINT), max(at) FROM risk_events
                   WHERE device_id = ?1 AND at > ?2 GROUP BY kind, label
                   ORDER BY kind, label LIMIT ?3";
        self.counts(sql, &[device_id.into(), since.into(), MAX_COUNTS.into()])
    }

    /// Reads that were begun at `since` or later and done.
    ///
    /// # Errors
    /// What the database answers.
    pub fn reads_done_since(
        &mut self,
        device_id: &str,
        since: UnixTime,
    ) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM reads
                   WHERE device_id = ?1 AND id >= ?2 AND state = 'done'";
        let from = crate::id::ids_from(IdKind::Read, since);
        let row = self.query_one(sql, &[device_id.into(), from.into()])?;
        row.ok_or_else(|| StoreError::misuse("counting returned no row"))?.int(0)
    }

    fn counts(&mut self, sql: &str, values: &[Value]) -> Result<Vec<ReaderCount>, StoreError> {
        let count = |row: &Row| {
            Ok(ReaderCount {
                kind: row.text(0)?.to_owned(),
                label: row.text(1)?.to_owned(),
                total: row.int(2)?,
                last_at: row.time(3)?,
            })
        };
        self.query(sql, values)?.iter().map(count).collect()
    }

    fn newest(
        &mut self,
        table: &str,
        columns: &str,
        device_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Row>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or(AFTER_EVERY_ID);
        let sql = format!(
            "SELECT {columns} FROM {table}
             WHERE device_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        );
        self.query(&sql, &[device_id.into(), before.into(), fetch_limit(limit)?.into()])
    }
}
