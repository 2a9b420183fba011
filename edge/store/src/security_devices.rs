//! Security devices: what signs, by which method, and for which accounts (D3, D4).
//!
//! A security device is a row of `devices` with its certificate, as any device, and a row here.

use countersign_crypto::UnixTime;

use crate::devices::{RECORD_WIDTH, record, select_with};
use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{DeviceKind, DeviceRecord, Page, Row, StoreError, Tx, Value};

/// Most accounts that one security device, or one phone, may be bound to.
pub const BOUND_ACCOUNTS_MAX: usize = 16;

/// How a security device signs (D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignMethod {
    /// A signature with its private key, verified under its certificate.
    Pki,
    /// A dynamic password: the digits of OCRA (RFC 6287).
    Ocra,
    /// A signature of a card, which counts only beside the joint password that it covers (B8).
    Joint,
}

stored_as_text!(SignMethod, "signing method", {
    Pki => "pki",
    Ocra => "ocra",
    Joint => "joint",
});

/// What only security devices have, beside their device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerRow {
    /// `sdv_…`.
    pub device_id: String,
    /// How it signs.
    pub method: SignMethod,
    /// For people.
    pub label: String,
    /// OCRA only: its suite.
    pub ocra_suite: Option<String>,
    /// OCRA only: its key as a TR-31 block under the storage key.
    pub ocra_key: Option<String>,
    /// Joint only: the key that the card shares with the server, likewise as a block. `None` once
    /// it was erased.
    pub joint_key: Option<String>,
    /// Wrong answers since the last good one.
    pub failures: u32,
    /// When its owner was last alerted of these, if they were many.
    pub alerted_at: Option<UnixTime>,
}

/// An account that a security device or a phone is bound to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundAccount {
    /// `acc_…`.
    pub id: String,
    /// Its number, as payers know it.
    pub number: String,
}

/// A security device: its device and live certificate, how it signs, whose accounts it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerRecord {
    /// The device; an OCRA device has no certificate.
    pub device: DeviceRecord,
    /// What only security devices have.
    pub signer: SignerRow,
    /// The accounts that it may confirm payments from, by their ids.
    pub accounts: Vec<BoundAccount>,
}

impl SignerRecord {
    /// Whether it may confirm payments from this account.
    #[must_use]
    pub fn serves(&self, account_id: &str) -> bool {
        self.accounts.iter().any(|bound| bound.id == account_id)
    }
}

/// Columns and join of a signer for [`select_with`].
const COLUMNS: &str = ", s.device_id, s.method, s.label, s.ocra_suite, s.ocra_key, s.joint_key, \
     s.failures, s.alerted_at, (SELECT string_agg(l.id || ' ' || l.number, ',') \
     FROM security_device_accounts a JOIN ledger_accounts l ON l.id = a.account_id \
     WHERE a.device_id = s.device_id)";
const JOIN: &str = "JOIN security_devices s ON s.device_id = d.id";

/// Selects security devices; `d` is the device, `s` its row here, `c` its live certificate.
pub(crate) fn select_signers(condition: &str) -> String {
    select_signers_with("", condition)
}

/// As [`select_signers`], with more joins.
pub(crate) fn select_signers_with(joins: &str, condition: &str) -> String {
    select_with(COLUMNS, &format!("{JOIN} {joins}"), condition)
}

/// Reads a security device from a row of [`select_signers`].
pub(crate) fn signer(row: &Row) -> Result<SignerRecord, StoreError> {
    let first = RECORD_WIDTH;
    Ok(SignerRecord {
        device: record(row)?,
        signer: SignerRow {
            device_id: row.text(first)?.to_owned(),
            method: SignMethod::stored(row.text(first + 1)?)?,
            label: row.text(first + 2)?.to_owned(),
            ocra_suite: row.opt_text(first + 3)?.map(str::to_owned),
            ocra_key: row.opt_text(first + 4)?.map(str::to_owned),
            joint_key: row.opt_text(first + 5)?.map(str::to_owned),
            failures: row.u32(first + 6)?,
            alerted_at: row.opt_time(first + 7)?,
        },
        accounts: bound_accounts(row.opt_text(first + 8)?)?,
    })
}

/// Accounts as a statement joins them: `id number,id number`. In the order of their ids.
pub(crate) fn bound_accounts(joined: Option<&str>) -> Result<Vec<BoundAccount>, StoreError> {
    let account = |text: &str| {
        let (id, number) =
            text.split_once(' ').ok_or_else(|| StoreError::corrupt("an account without number"))?;
        Ok(BoundAccount { id: id.to_owned(), number: number.to_owned() })
    };
    let accounts = joined.into_iter().flat_map(|joined| joined.split(',')).map(account);
    let mut accounts = accounts.collect::<Result<Vec<_>, StoreError>>()?;
    accounts.sort_unstable();
    Ok(accounts)
}

impl Tx<'_> {
    /// Puts the row of a security device beside the device that was just inserted. Failures and
    /// alerts are not looked at: it has none.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `security_devices_device_id_key`; [`StoreError::NotFound`] for no
    /// such device; [`StoreError::Refused`] `text-too-long`.
    pub fn insert_signer(&mut self, new: &SignerRow) -> Result<(), StoreError> {
        check_texts([new.device_id.as_str(), &new.label])?;
        check_texts(new.ocra_suite.as_deref())?;
        self.execute(
            "INSERT INTO security_devices
                 (device_id, method, label, ocra_suite, ocra_key, joint_key, failures)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)",
            &[
                (&new.device_id).into(),
                new.method.name().into(),
                (&new.label).into(),
                new.ocra_suite.as_deref().into(),
                new.ocra_key.as_deref().into(),
                new.joint_key.as_deref().into(),
            ],
        )?;
        Ok(())
    }

    /// The security device with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn signer_by_id(&mut self, id: &str) -> Result<Option<SignerRecord>, StoreError> {
        self.signer_where("d.id = ?1", &[id.into()])
    }

    /// The security device with this serial number.
    ///
    /// # Errors
    /// What the database answers.
    pub fn signer_by_serial(&mut self, serial: &str) -> Result<Option<SignerRecord>, StoreError> {
        let kind = DeviceKind::SecurityDevice.name();
        self.signer_where("d.kind = ?1 AND d.serial = ?2", &[kind.into(), serial.into()])
    }

    /// Security devices, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn signers_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<SignerRecord>, StoreError> {
        let sql = select_signers("d.kind = ?1 AND d.id > ?2 ORDER BY d.id LIMIT ?3");
        let after = check_cursor(cursor)?.unwrap_or_default();
        let kind = DeviceKind::SecurityDevice.name();
        let values = [kind.into(), after.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(signer).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |found: &SignerRecord| found.device.device.id.clone()))
    }

    /// The security devices that serve an account, oldest first, at most [`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn signers_of_account(
        &mut self,
        account_id: &str,
    ) -> Result<Vec<SignerRecord>, StoreError> {
        let sql = select_signers(
            "d.id IN (SELECT b.device_id FROM security_device_accounts b WHERE b.account_id = ?1)
             ORDER BY d.id LIMIT ?2",
        );
        let values = [account_id.into(), crate::MAX_PAGE.into()];
        self.query(&sql, &values)?.iter().map(signer).collect()
    }

    /// Lets a security device confirm payments from these accounts (ids or numbers) too. Binding
    /// again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device or account; [`StoreError::Refused`]
    /// `bound-accounts` if it would serve more than [`BOUND_ACCOUNTS_MAX`].
    pub fn bind_signer(&mut self, device_id: &str, accounts: &[String]) -> Result<(), StoreError> {
        self.bind_accounts("security_device_accounts", "device_id", device_id, accounts).map(|_| ())
    }

    /// Takes an account (id or number) away from a security device; returns whether it had it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn unbind_signer(&mut self, device_id: &str, account: &str) -> Result<bool, StoreError> {
        self.hold_signer("t.device_id = ?1", device_id)?;
        let sql = "DELETE FROM security_device_accounts WHERE device_id = ?1 AND account_id IN
                   (SELECT id FROM ledger_accounts WHERE id = ?2 OR number = ?2)";
        Ok(self.execute(sql, &[device_id.into(), account.into()])? == 1)
    }

    /// Forgets a security device's wrong answers, as an operator who lifts its block wants.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn forgive_signer(&mut self, device_id: &str) -> Result<(), StoreError> {
        let sql =
            "UPDATE security_devices SET failures = 0, alerted_at = NULL WHERE device_id = ?1";
        self.change_one("security device", sql, &[device_id.into()])
    }

    /// Erases an OCRA key, of which no answer is to be accepted any more; returns whether there was
    /// one.
    ///
    /// # Errors
    /// What the database answers.
    pub fn erase_ocra_key(&mut self, device_id: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE security_devices SET ocra_key = NULL
                   WHERE device_id = ?1 AND ocra_key IS NOT NULL";
        Ok(self.execute(sql, &[device_id.into()])? == 1)
    }

    /// Gives an OCRA device a key: its first, or another one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such device of this method.
    pub fn set_ocra_key(
        &mut self,
        device_id: &str,
        suite: &str,
        block: &str,
    ) -> Result<(), StoreError> {
        check_texts([suite])?;
        self.change_one(
            "security device",
            "UPDATE security_devices SET ocra_suite = ?2, ocra_key = ?3
             WHERE device_id = ?1 AND method = 'ocra'",
            &[device_id.into(), suite.into(), block.into()],
        )
    }

    /// Erases the key that a card shares with the server; returns whether there was one. An answer
    /// that is being decided under it ends before.
    ///
    /// # Errors
    /// What the database answers.
    pub fn erase_joint_key(&mut self, device_id: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE security_devices SET joint_key = NULL
                   WHERE device_id = ?1 AND joint_key IS NOT NULL";
        Ok(self.execute(sql, &[device_id.into()])? == 1)
    }

    /// Gives a card the key that it shares with the server: its first, or another one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such device of this method.
    pub fn set_joint_key(&mut self, device_id: &str, block: &str) -> Result<(), StoreError> {
        self.change_one(
            "security device",
            "UPDATE security_devices SET joint_key = ?2 WHERE device_id = ?1 AND method = 'joint'",
            &[device_id.into(), block.into()],
        )
    }

    /// Locks the row of a security device, if it is one: answers that are being decided with it
    /// ([`Tx::lock_answers`]) end before, and later ones see what changes now. So an answer is
    /// never accepted after a block or a revocation was acknowledged.
    pub(crate) fn hold_signer(&mut self, condition: &str, value: &str) -> Result<(), StoreError> {
        let sql = format!("SELECT t.device_id FROM security_devices t WHERE {condition} {{lock}}");
        self.query(&sql, &[value.into()]).map(|_| ())
    }

    fn signer_where(
        &mut self,
        condition: &str,
        values: &[Value],
    ) -> Result<Option<SignerRecord>, StoreError> {
        self.query_one(&select_signers(condition), values)?.map(|row| signer(&row)).transpose()
    }

    /// The ids of accounts that are named by id or number.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for one that is not there; [`StoreError::Refused`]
    /// `bound-accounts` for more than [`BOUND_ACCOUNTS_MAX`].
    pub fn account_ids(&mut self, accounts: &[String]) -> Result<Vec<String>, StoreError> {
        if accounts.len() > BOUND_ACCOUNTS_MAX {
            return Err(StoreError::Refused { check: "bound-accounts" });
        }
        // No number looks like an id: ids have lower-case letters.
        let sql = "SELECT id FROM ledger_accounts WHERE id = ?1 OR number = ?1";
        let mut ids = Vec::with_capacity(accounts.len());
        for account in accounts {
            let row = self.query_one(sql, &[account.into()])?;
            let row = row.ok_or(StoreError::NotFound { what: "account" })?;
            ids.push(row.text(0)?.to_owned());
        }
        Ok(ids)
    }

    /// Binds accounts in `table`, whose first column is `column`; returns their ids.
    pub(crate) fn bind_accounts(
        &mut self,
        table: &str,
        column: &str,
        id: &str,
        accounts: &[String],
    ) -> Result<Vec<String>, StoreError> {
        let ids = self.account_ids(accounts)?;
        let insert = format!(
            "INSERT INTO {table} ({column}, account_id) VALUES (?1, ?2) ON CONFLICT DO NOTHING"
        );
        for account in &ids {
            self.execute(&insert, &[id.into(), account.into()])?;
        }
        let count = format!("SELECT count(*) FROM {table} WHERE {column} = ?1");
        let bound = self.query_one(&count, &[id.into()])?;
        let bound = bound.map_or(Ok(0), |row| row.u32(0))?;
        if bound as usize > BOUND_ACCOUNTS_MAX {
            return Err(StoreError::Refused { check: "bound-accounts" });
        }
        Ok(ids)
    }
}
