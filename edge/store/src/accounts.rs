//! Accounts of the ledger (D6). Amounts are integers in minor units of the account's currency.

use std::collections::BTreeMap;

use countersign_crypto::UnixTime;
use countersign_payment::Currency;
pub use countersign_payment::ledger::AccountStatus;
use countersign_payment::ledger::AccountView;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::tx::Many;
use crate::value::check_texts;
use crate::{Column, Page, Row, StoreError, Tx};

/// Longest holder, in bytes: 140 characters, as names in payments have.
const HOLDER_MAX: usize = 560;

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountKind {
    /// A payer's or a payee's.
    Customer,
    /// The outside world's: where money comes from and goes to.
    External,
}

stored_as_text!(AccountKind, "account kind", { Customer => "customer", External => "external" });

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `acc_…`.
    pub id: String,
    /// The account number, unique.
    pub number: String,
    /// Whose it is, for people.
    pub holder: String,
    /// ISO 4217 code.
    pub currency: String,
    /// Whose account it is.
    pub kind: AccountKind,
    /// Whether it may be posted to.
    pub status: AccountStatus,
    /// Why it is frozen or closed.
    pub status_reason: Option<String>,
    /// In minor units: the sum of its entries.
    pub balance: i64,
    /// How far below zero the balance may go, in minor units; `None`: without bound.
    pub overdraft: Option<i64>,
    /// How many entries it has: the number of the last one.
    pub entries: i64,
    /// When it was opened.
    pub created_at: UnixTime,
    /// When anything of it last changed.
    pub updated_at: UnixTime,
}

impl Account {
    /// As a posting sees it.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if its currency is none.
    pub fn view(&self) -> Result<AccountView<'_>, StoreError> {
        Ok(AccountView {
            id: &self.id,
            currency: Currency::parse(&self.currency)
                .map_err(|_| StoreError::corrupt("an account's currency is none"))?,
            balance: self.balance,
            overdraft: self.overdraft,
            status: self.status,
        })
    }
}

pub(crate) const ACCOUNT_COLUMNS: &str = "t.id, t.number, t.holder, t.currency, t.kind, t.status, \
     t.status_reason, t.balance, t.overdraft, t.entries, t.created_at, t.updated_at";

pub(crate) fn account(row: &Row) -> Result<Account, StoreError> {
    Ok(Account {
        id: row.text(0)?.to_owned(),
        number: row.text(1)?.to_owned(),
        holder: row.text(2)?.to_owned(),
        currency: row.text(3)?.to_owned(),
        kind: AccountKind::stored(row.text(4)?)?,
        status: AccountStatus::from_name(row.text(5)?)
            .ok_or_else(|| StoreError::corrupt("unknown account status"))?,
        status_reason: row.opt_text(6)?.map(str::to_owned),
        balance: row.int(7)?,
        overdraft: if row.is_null(8)? { None } else { Some(row.int(8)?) },
        entries: row.int(9)?,
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
    })
}

/// The accounts in rows, by id.
pub(crate) fn by_id(rows: &[Row]) -> Result<BTreeMap<String, Account>, StoreError> {
    let mut accounts = BTreeMap::new();
    for row in rows {
        let account = account(row)?;
        accounts.insert(account.id.clone(), account);
    }
    Ok(accounts)
}

impl Tx<'_> {
    /// Opens an account. It has no entries yet: money gets into it by postings only.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `ledger_accounts_number_key` if the number is taken;
    /// [`StoreError::Refused`] `account-not-empty`, `text-too-long`, `row-check` for an overdraft
    /// below zero.
    pub fn insert_account(&mut self, account: &Account) -> Result<(), StoreError> {
        check_texts([account.id.as_str(), &account.number, &account.currency])?;
        check_texts(account.status_reason.as_deref())?;
        if account.holder.len() > HOLDER_MAX {
            return Err(StoreError::Refused { check: "text-too-long" });
        }
        if account.balance != 0 || account.entries != 0 {
            return Err(StoreError::Refused { check: "account-not-empty" });
        }
        self.execute(
            "INSERT INTO ledger_accounts
                 (id, number, holder, currency, kind, status, status_reason, balance, overdraft,
                  entries, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, 0, ?9, ?10)",
            &[
                (&account.id).into(),
                (&account.number).into(),
                (&account.holder).into(),
                (&account.currency).into(),
                account.kind.name().into(),
                account.status.name().into(),
                account.status_reason.as_deref().into(),
                account.overdraft.into(),
                account.created_at.into(),
                account.updated_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The account with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn account(&mut self, id: &str) -> Result<Option<Account>, StoreError> {
        let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts t WHERE t.id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| account(&row)).transpose()
    }

    /// The account with this number.
    ///
    /// # Errors
    /// What the database answers.
    pub fn account_by_number(&mut self, number: &str) -> Result<Option<Account>, StoreError> {
        let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts t WHERE t.number = ?1");
        self.query_one(&sql, &[number.into()])?.map(|row| account(&row)).transpose()
    }

    /// Accounts, oldest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn accounts_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Account>, StoreError> {
        let after = check_cursor(cursor)?.unwrap_or_default();
        let sql = format!(
            "SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts t
             WHERE t.id > ?1 ORDER BY t.id LIMIT ?2"
        );
        let rows = self.query(&sql, &[after.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(account).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |account: &Account| account.id.clone()))
    }

    /// The accounts with these ids; those that are not there are missing.
    ///
    /// # Errors
    /// What the database answers.
    pub fn accounts_by_id(
        &mut self,
        ids: &[&str],
    ) -> Result<BTreeMap<String, Account>, StoreError> {
        self.some_accounts(ids, "")
    }

    /// Locks accounts, in the order of their ids, and returns them as they are now; those that are
    /// not there are missing. For [`crate::Store::run_locked`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn lock_accounts(&mut self, ids: &[&str]) -> Result<BTreeMap<String, Account>, StoreError> {
        self.some_accounts(ids, "{lock}")
    }

    fn some_accounts(
        &mut self,
        ids: &[&str],
        lock: &str,
    ) -> Result<BTreeMap<String, Account>, StoreError> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let sql = format!(
            "SELECT {ACCOUNT_COLUMNS} FROM {{rows}} JOIN ledger_accounts t ON t.id = k.k1
             ORDER BY t.id {lock}"
        );
        let rows = ids.into_iter().map(|id| vec![id.into()]).collect();
        let found = self.select_many(vec![Many::new(sql, &[Column::Text], rows)])?;
        by_id(found.first().map(Vec::as_slice).unwrap_or_default())
    }

    /// Freezes, reopens or closes an account. Whether it may be, the caller decides, from the
    /// account that it has locked.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `text-too-long`.
    pub fn set_account_status(
        &mut self,
        id: &str,
        status: AccountStatus,
        reason: Option<&str>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts(reason)?;
        self.change_one(
            "account",
            "UPDATE ledger_accounts SET status = ?2, status_reason = ?3, updated_at = ?4
             WHERE id = ?1",
            &[id.into(), status.name().into(), reason.into(), now.into()],
        )
    }

    /// Sets how far below zero an account's balance may go, in minor units.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `row-check` if it is below zero, or if the
    /// balance is lower already.
    pub fn set_overdraft(
        &mut self,
        id: &str,
        overdraft: Option<i64>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.change_one(
            "account",
            "UPDATE ledger_accounts SET overdraft = ?2, updated_at = ?3 WHERE id = ?1",
            &[id.into(), overdraft.into(), now.into()],
        )
    }
}
