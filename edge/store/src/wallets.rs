//! What the server keeps for sleeves and managers (A): where a manager waits to be met, and the
//! alarms that managers raise.

use std::collections::HashSet;

use countersign_crypto::UnixTime;

use crate::page::{check_cursor, fetch_limit};
use crate::tx::Many;
use crate::value::check_texts;
use crate::{Column, Page, Row, StoreError, Tx};

/// Longest address of a [`RelayPlace`], in bytes: a host's name and a port.
pub const RELAY_ADDRESS_MAX: usize = 262;
/// Most ids that [`Tx::wallet_devices_changed`] gives at once.
pub const WALLET_CHANGES_MAX: u32 = 1000;

/// Comes after every id, as text.
const AFTER_EVERY_ID: &str = "~";

/// At which server a manager waits for its sleeves (A9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlace {
    /// The manager's serial number.
    pub manager: String,
    /// Which process it is: a name that no other process has.
    pub server: String,
    /// Where sleeves reach that process: `host:port`.
    pub address: String,
    /// Until when this is to be believed.
    pub until: UnixTime,
}

/// That someone has logged in at a manager with the alarm password (A5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletAlarm {
    /// `alm_…`.
    pub id: String,
    /// The manager, `mgr_…`.
    pub manager_id: String,
    /// What the manager calls this alarm: unique among its own.
    pub alarm: String,
    /// The serial number of the sleeve, as the manager has it.
    pub sleeve: String,
    /// That sleeve, `slv_…`, if it is enrolled here.
    pub sleeve_id: Option<String>,
    /// What the manager calls the session.
    pub session: String,
    /// When it happened, by the manager's clock.
    pub raised_at: UnixTime,
    /// When it was stored.
    pub at: UnixTime,
}

const PLACE: &str = "manager, server, address, until";
const ALARM: &str = "id, manager_id, alarm, sleeve, sleeve_id, session, raised_at, at";

fn place(row: &Row) -> Result<RelayPlace, StoreError> {
    Ok(RelayPlace {
        manager: row.text(0)?.to_owned(),
        server: row.text(1)?.to_owned(),
        address: row.text(2)?.to_owned(),
        until: row.time(3)?,
    })
}

fn alarm(row: &Row) -> Result<WalletAlarm, StoreError> {
    Ok(WalletAlarm {
        id: row.text(0)?.to_owned(),
        manager_id: row.text(1)?.to_owned(),
        alarm: row.text(2)?.to_owned(),
        sleeve: row.text(3)?.to_owned(),
        sleeve_id: row.opt_text(4)?.map(str::to_owned),
        session: row.text(5)?.to_owned(),
        raised_at: row.time(6)?,
        at: row.time(7)?,
    })
}

impl Tx<'_> {
    /// Says that a manager waits at `server` until `until`. Who came last has it: a manager that
    /// has connected elsewhere is no longer where it was.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`, `relay-address`.
    pub fn take_relay_place(
        &mut self,
        manager: &str,
        server: &str,
        address: &str,
        until: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts([manager, server, address])?;
        if address.is_empty() || address.len() > RELAY_ADDRESS_MAX {
            return Err(StoreError::Refused { check: "relay-address" });
        }
        self.execute(
            "INSERT INTO relay_places (manager, server, address, until) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (manager) DO UPDATE SET
                server = excluded.server, address = excluded.address, until = excluded.until",
            &[manager.into(), server.into(), address.into(), until.into()],
        )?;
        Ok(())
    }

    /// Says again that these managers wait at `server`. Returns those that do not any more: they
    /// have been taken by another server, or given up.
    ///
    /// # Errors
    /// What the database answers.
    pub fn keep_relay_places(
        &mut self,
        server: &str,
        managers: &[String],
        until: UnixTime,
    ) -> Result<Vec<String>, StoreError> {
        let mut names: Vec<&String> = managers.iter().collect();
        names.sort_unstable(); // one order of locks for all servers
        names.dedup();
        let rows = names.iter().map(|name| vec![(*name).into(), server.into(), until.into()]);
        let kept = self.select_many(vec![Many::new(
            "UPDATE relay_places SET until = k.k3 FROM {rows}
             WHERE manager = k.k1 AND server = k.k2 RETURNING manager",
            &[Column::Text, Column::Text, Column::Int],
            rows.collect(),
        )])?;
        let mut here = HashSet::new();
        for row in kept.iter().flatten() {
            here.insert(row.text(0)?.to_owned());
        }
        Ok(names.into_iter().filter(|name| !here.contains(*name)).cloned().collect())
    }

    /// Where a manager waits at `now`, if it is known.
    ///
    /// # Errors
    /// What the database answers.
    pub fn relay_place(
        &mut self,
        manager: &str,
        now: UnixTime,
    ) -> Result<Option<RelayPlace>, StoreError> {
        let sql = format!("SELECT {PLACE} FROM relay_places WHERE manager = ?1 AND until > ?2");
        let row = self.query_one(&sql, &[manager.into(), now.into()])?;
        row.map(|row| place(&row)).transpose()
    }

    /// A manager has left `server`. Whether it was known to wait there; a place that another
    /// server has taken meanwhile stays.
    ///
    /// # Errors
    /// What the database answers.
    pub fn release_relay_place(&mut self, manager: &str, server: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM relay_places WHERE manager = ?1 AND server = ?2";
        Ok(self.execute(sql, &[manager.into(), server.into()])? == 1)
    }

    /// A server stops: nobody waits there any more. Returns how many did.
    ///
    /// # Errors
    /// What the database answers.
    pub fn release_relay_places(&mut self, server: &str) -> Result<u64, StoreError> {
        self.execute("DELETE FROM relay_places WHERE server = ?1", &[server.into()])
    }

    /// The ids of the sleeves and managers that were blocked or let in again, or of which a
    /// certificate was revoked, at `since` or later; at most [`WALLET_CHANGES_MAX`]: who gets so
    /// many looks at everyone.
    ///
    /// # Errors
    /// What the database answers.
    pub fn wallet_devices_changed(&mut self, since: UnixTime) -> Result<Vec<String>, StoreError> {
        let rows = self.query(
            "SELECT id FROM devices WHERE kind IN ('sleeve', 'manager') AND updated_at >= ?1
             UNION SELECT d.id FROM certificates c JOIN devices d ON d.id = c.device_id
                   WHERE c.revoked_at IS NOT NULL AND c.revoked_at >= ?1
                     AND d.kind IN ('sleeve', 'manager')
             ORDER BY 1 LIMIT ?2",
            &[since.into(), WALLET_CHANGES_MAX.into()],
        )?;
        rows.iter().map(|row| row.text(0).map(str::to_owned)).collect()
    }

    /// Stores an alarm, or finds the one that the manager told before under its name: `Ok` is
    /// new, `Err` was there before, and may say something else.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn insert_wallet_alarm(
        &mut self,
        new: &WalletAlarm,
    ) -> Result<Result<(), WalletAlarm>, StoreError> {
        check_texts([new.id.as_str(), &new.alarm, &new.sleeve, &new.session])?;
        let sql = format!(
            "INSERT INTO wallet_alarms ({ALARM}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (manager_id, alarm) DO NOTHING"
        );
        let values = [
            (&new.id).into(),
            (&new.manager_id).into(),
            (&new.alarm).into(),
            (&new.sleeve).into(),
            new.sleeve_id.as_deref().into(),
            (&new.session).into(),
            new.raised_at.into(),
            new.at.into(),
        ];
        if self.execute(&sql, &values)? == 1 {
            return Ok(Ok(()));
        }
        let found = self.wallet_alarm(&new.manager_id, &new.alarm)?;
        // Alarms are never removed: who conflicts is there.
        found.map(Err).ok_or_else(|| StoreError::corrupt("an alarm conflicts with none"))
    }

    /// The alarm that a manager told under this name.
    ///
    /// # Errors
    /// What the database answers.
    pub fn wallet_alarm(
        &mut self,
        manager_id: &str,
        name: &str,
    ) -> Result<Option<WalletAlarm>, StoreError> {
        let sql = format!("SELECT {ALARM} FROM wallet_alarms WHERE manager_id = ?1 AND alarm = ?2");
        let row = self.query_one(&sql, &[manager_id.into(), name.into()])?;
        row.map(|row| alarm(&row)).transpose()
    }

    /// How many alarms of a manager were stored at `since` or later.
    ///
    /// # Errors
    /// What the database answers.
    pub fn wallet_alarms_since(
        &mut self,
        manager_id: &str,
        since: UnixTime,
    ) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM wallet_alarms WHERE manager_id = ?1 AND at >= ?2";
        let row = self.query_one(sql, &[manager_id.into(), since.into()])?;
        let row = row.ok_or_else(|| StoreError::misuse("counting returned no row"))?;
        u64::try_from(row.int(0)?).map_err(|_| StoreError::corrupt("a negative count"))
    }

    /// Alarms, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn wallet_alarms_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<WalletAlarm>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or(AFTER_EVERY_ID);
        let sql =
            format!("SELECT {ALARM} FROM wallet_alarms WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
        let rows = self.query(&sql, &[before.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(alarm).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |alarm: &WalletAlarm| alarm.id.clone()))
    }
}
