//! Injection runs: keys for an inventory of terminals that was authorised before, and what came of
//! it (PCI PIN Annex B, 30-3).

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Column, InjectionState, Page, Row, StoreError, Tx};

/// Most terminals of one run.
pub const RUN_TERMINALS_MAX: usize = 2000;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunState {
    /// Its keys may be injected.
    Open,
    /// It has ended; nothing of it changes any more.
    Closed,
}

stored_as_text!(RunState, "run state", { Open => "open", Closed => "closed" });

/// An injection run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectionRun {
    /// `run_…`.
    pub id: String,
    /// Its name among people.
    pub label: String,
    /// Where it stands.
    pub state: RunState,
    /// Who began it, as in the audit.
    pub begun_by: String,
    /// When.
    pub begun_at: UnixTime,
    /// Who closed it.
    pub closed_by: Option<String>,
    /// When.
    pub closed_at: Option<UnixTime>,
}

/// A key of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunKey {
    /// The place in the terminals.
    pub slot: u32,
    /// The key.
    pub key_id: String,
}

/// One terminal against a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Its serial number.
    pub serial: String,
    /// The terminal, if there is one with this number.
    pub device_id: Option<String>,
    /// Keys of the run that are installed.
    pub installed: u32,
    /// Keys of the run whose latest injection failed.
    pub failed: u32,
    /// The latest failed check among them.
    pub failed_check: Option<String>,
}

/// A terminal that is not of the inventory and was seen all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unexpected {
    /// Its serial number.
    pub serial: String,
    /// The terminal.
    pub device_id: String,
    /// When it asked for keys, if it did so with nothing assigned.
    pub asked_at: Option<UnixTime>,
    /// Where an injection of one of the run's keys stands, if there is one from the run's time.
    pub injection: Option<InjectionState>,
}

const COLUMNS: &str = "id, label, state, begun_by, begun_at, closed_by, closed_at";

fn run(row: &Row) -> Result<InjectionRun, StoreError> {
    Ok(InjectionRun {
        id: row.text(0)?.to_owned(),
        label: row.text(1)?.to_owned(),
        state: RunState::stored(row.text(2)?)?,
        begun_by: row.text(3)?.to_owned(),
        begun_at: row.time(4)?,
        closed_by: row.opt_text(5)?.map(str::to_owned),
        closed_at: row.opt_time(6)?,
    })
}

fn run_key(row: &Row) -> Result<RunKey, StoreError> {
    Ok(RunKey { slot: row.u32(0)?, key_id: row.text(1)?.to_owned() })
}

impl Tx<'_> {
    /// Begins a run over these terminals.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `run-size`, `text-too-long`; [`StoreError::Conflict`]
    /// `injection_runs_label_key`, `injection_run_terminals_run_id_serial_key` for a serial number
    /// that is there twice.
    pub fn begin_run(&mut self, run: &InjectionRun, serials: &[String]) -> Result<(), StoreError> {
        if serials.is_empty() || serials.len() > RUN_TERMINALS_MAX {
            return Err(StoreError::Refused { check: "run-size" });
        }
        check_texts([run.id.as_str(), &run.label, &run.begun_by])?;
        check_texts(serials.iter().map(String::as_str))?;
        self.execute(
            "INSERT INTO injection_runs (id, label, state, begun_by, begun_at)
             VALUES (?1, ?2, 'open', ?3, ?4)",
            &[(&run.id).into(), (&run.label).into(), (&run.begun_by).into(), run.begun_at.into()],
        )?;
        let rows: Vec<_> =
            serials.iter().map(|serial| vec![(&run.id).into(), serial.into()]).collect();
        let columns = [("run_id", Column::Text), ("serial", Column::Text)];
        self.insert_many("injection_run_terminals", &columns, &rows)
    }

    /// The run with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_by_id(&mut self, id: &str) -> Result<Option<InjectionRun>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM injection_runs WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| run(&row)).transpose()
    }

    /// Runs, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn runs_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<InjectionRun>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or("run~");
        let sql =
            format!("SELECT {COLUMNS} FROM injection_runs WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let values = [before.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(run).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |run: &InjectionRun| run.id.clone()))
    }

    /// Closes a run.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `run-closed` if it is.
    pub fn close_run(&mut self, id: &str, by: &str, now: UnixTime) -> Result<(), StoreError> {
        self.open_run(id)?;
        self.execute(
            "UPDATE injection_runs SET state = 'closed', closed_by = ?2, closed_at = ?3
             WHERE id = ?1 AND state = 'open'",
            &[id.into(), by.into(), now.into()],
        )?;
        Ok(())
    }

    /// Cancels what of a run still waits. How many injections.
    ///
    /// # Errors
    /// What the database answers.
    pub fn cancel_run_injections(&mut self, id: &str, now: UnixTime) -> Result<u64, StoreError> {
        self.execute(
            "UPDATE injections SET state = 'cancelled', ended_at = ?2
             WHERE run_id = ?1 AND state IN ('assigned', 'issued')",
            &[id.into(), now.into()],
        )
    }

    /// The run, if it is open.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `run-closed`.
    pub fn open_run(&mut self, id: &str) -> Result<InjectionRun, StoreError> {
        match self.run_by_id(id)? {
            Some(run) if run.state == RunState::Open => Ok(run),
            Some(_) => Err(StoreError::Refused { check: "run-closed" }),
            None => Err(StoreError::NotFound { what: "run" }),
        }
    }

    /// Gives a run a key for a place.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `run-closed`, `run-slot-taken` if the run
    /// has another key for the place.
    pub fn add_run_key(&mut self, run_id: &str, key: &RunKey) -> Result<(), StoreError> {
        self.open_run(run_id)?;
        self.execute(
            "INSERT INTO injection_run_keys (run_id, slot, key_id) VALUES (?1, ?2, ?3)
             ON CONFLICT (run_id, slot) DO NOTHING",
            &[run_id.into(), key.slot.into(), (&key.key_id).into()],
        )?;
        if self.run_keys(run_id)?.contains(key) {
            Ok(())
        } else {
            Err(StoreError::Refused { check: "run-slot-taken" })
        }
    }

    /// The keys of a run, by place.
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_keys(&mut self, run_id: &str) -> Result<Vec<RunKey>, StoreError> {
        let sql = "SELECT slot, key_id FROM injection_run_keys WHERE run_id = ?1 ORDER BY slot";
        self.query(sql, &[run_id.into()])?.iter().map(run_key).collect()
    }

    /// The terminals of a run's inventory that exist.
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_devices(&mut self, run_id: &str) -> Result<Vec<String>, StoreError> {
        let rows = self.query(
            "SELECT d.id FROM injection_run_terminals t
             JOIN devices d ON d.serial = t.serial AND d.kind = 'terminal'
             WHERE t.run_id = ?1 ORDER BY d.id",
            &[run_id.into()],
        )?;
        rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
    }

    /// What the open runs have for a terminal that it was never assigned: (run, key).
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_keys_due(&mut self, device_id: &str) -> Result<Vec<(String, RunKey)>, StoreError> {
        let rows = self.query(
            "SELECT k.slot, k.key_id, r.id FROM devices d
             JOIN injection_run_terminals t ON t.serial = d.serial
             JOIN injection_runs r ON r.id = t.run_id AND r.state = 'open'
             JOIN injection_run_keys k ON k.run_id = r.id
             WHERE d.id = ?1 AND d.kind = 'terminal' AND NOT EXISTS (
                 SELECT 1 FROM injections i WHERE i.device_id = d.id AND i.run_id = r.id
                   AND i.slot = k.slot)
             ORDER BY r.id, k.slot",
            &[device_id.into()],
        )?;
        rows.iter().map(|row| Ok((row.text(2)?.to_owned(), run_key(row)?))).collect()
    }

    /// Notes in each open run whose inventory lacks the terminal that it asked for keys.
    ///
    /// # Errors
    /// What the database answers.
    pub fn note_stranger(&mut self, device_id: &str, now: UnixTime) -> Result<u64, StoreError> {
        self.execute(
            "INSERT INTO injection_run_strangers (run_id, device_id, first_at, last_at)
             SELECT r.id, d.id, CAST(?2 AS BIGINT), CAST(?2 AS BIGINT)
             FROM injection_runs r, devices d
             WHERE r.state = 'open' AND d.id = ?1 AND NOT EXISTS (
                 SELECT 1 FROM injection_run_terminals t
                 WHERE t.run_id = r.id AND t.serial = d.serial)
             ON CONFLICT (run_id, device_id) DO UPDATE SET last_at = excluded.last_at",
            &[device_id.into(), now.into()],
        )
    }

    /// A run's inventory, each terminal with what came of the run's keys.
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_rows(&mut self, run_id: &str) -> Result<Vec<RunRow>, StoreError> {
        let latest = "SELECT max(n.id) FROM injections n
                      WHERE n.device_id = i.device_id AND n.slot = i.slot AND n.run_id = i.run_id";
        let sql = format!(
            "SELECT t.serial, d.id,
                 CAST(COALESCE(sum(CASE WHEN i.state = 'installed' THEN 1 ELSE 0 END), 0)
                     AS BIGINT),
                 CAST(COALESCE(sum(CASE WHEN i.state = 'failed' THEN 1 ELSE 0 END), 0) AS BIGINT),
                 max(i.failed_check)
             FROM injection_run_terminals t
             LEFT JOIN devices d ON d.serial = t.serial AND d.kind = 'terminal'
             LEFT JOIN injections i ON i.device_id = d.id AND i.run_id = t.run_id
                 AND i.id = ({latest})
             WHERE t.run_id = ?1 GROUP BY t.serial, d.id ORDER BY t.serial"
        );
        let rows = self.query(&sql, &[run_id.into()])?;
        rows.iter()
            .map(|row| {
                Ok(RunRow {
                    serial: row.text(0)?.to_owned(),
                    device_id: row.opt_text(1)?.map(str::to_owned),
                    installed: row.u32(2)?,
                    failed: row.u32(3)?,
                    failed_check: row.opt_text(4)?.map(str::to_owned),
                })
            })
            .collect()
    }

    /// Terminals outside a run's inventory that asked for keys with nothing assigned while it was
    /// open, or that were assigned one of its keys in that time. Of a closed run, an injection's
    /// state is that of when it was closed.
    ///
    /// # Errors
    /// What the database answers.
    pub fn run_unexpected(&mut self, run: &InjectionRun) -> Result<Vec<Unexpected>, StoreError> {
        let rows = self.query(
            "SELECT d.serial, d.id, s.first_at, (
                 SELECT CASE WHEN i.ended_at <= COALESCE(?3, i.ended_at) THEN i.state
                     WHEN EXISTS (SELECT 1 FROM injection_tokens k
                         WHERE k.device_id = i.device_id AND k.injection_id = i.id
                           AND k.at <= COALESCE(?3, k.at)) THEN 'issued'
                     ELSE 'assigned' END
                 FROM injections i
                 JOIN injection_run_keys k ON k.run_id = ?1 AND k.key_id = i.key_id
                 WHERE i.device_id = d.id AND i.assigned_at >= ?2
                   AND i.assigned_at <= COALESCE(?3, i.assigned_at)
                 ORDER BY i.id DESC LIMIT 1) AS injected
             FROM devices d
             LEFT JOIN injection_run_strangers s ON s.run_id = ?1 AND s.device_id = d.id
             WHERE d.kind = 'terminal' AND (s.device_id IS NOT NULL OR d.id IN (
                 SELECT i.device_id FROM injections i
                 JOIN injection_run_keys k ON k.run_id = ?1 AND k.key_id = i.key_id
                 WHERE i.assigned_at >= ?2 AND i.assigned_at <= COALESCE(?3, i.assigned_at)))
               AND NOT EXISTS (SELECT 1 FROM injection_run_terminals t
                   WHERE t.run_id = ?1 AND t.serial = d.serial)
             ORDER BY d.serial LIMIT 2000",
            &[(&run.id).into(), run.begun_at.into(), run.closed_at.into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(Unexpected {
                    serial: row.text(0)?.to_owned(),
                    device_id: row.text(1)?.to_owned(),
                    asked_at: row.opt_time(2)?,
                    injection: row.opt_text(3)?.map(InjectionState::stored).transpose()?,
                })
            })
            .collect()
    }
}
