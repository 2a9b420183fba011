use countersign_crypto::UnixTime;
use countersign_payment::{AccountNumber, Amount, Currency, text};
use countersign_store::{
    Account, AccountKind, AccountStatus, AuditEntry, Entry, IdKind, Page, StoreError, Tx,
};
use serde_json::json;

use crate::devices::check_reason;
use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest name of an account's holder, in characters, as in ISO 20022 (Max140Text).
const HOLDER_MAX: usize = 140;

/// An account that is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Its number, unique: 4 to 34 of `A`–`Z` and `0`–`9`; an IBAN has right check digits.
    pub number: String,
    /// Whose it is.
    pub holder: String,
    /// ISO 4217.
    pub currency: String,
    /// A customer's, or one that stands for the world outside.
    pub kind: AccountKind,
    /// How far below zero its balance may go, as a decimal. By default a customer's may not, and
    /// an outside account's may go as far as it likes.
    pub overdraft: Option<String>,
}

/// An overdraft in minor units: as an amount, and zero.
fn overdraft(decimal: &str, currency: Currency) -> Result<i64, ServiceError> {
    let zeros = decimal.bytes().all(|c| matches!(c, b'0' | b'.'));
    let zero = zeros && (decimal == "0" || decimal.starts_with("0."));
    if zero && Amount::parse(&format!("1{}", &decimal[1..]), currency.code()).is_ok() {
        return Ok(0);
    }
    Ok(Amount::parse(decimal, currency.code())?.minor())
}

fn missing() -> ServiceError {
    ServiceError::NotFound { what: "account" }
}

/// An account, locked until the transaction ends.
fn locked(tx: &mut Tx<'_>, id: &str) -> Result<Account, ServiceError> {
    tx.lock_accounts(&[id])?.remove(id).ok_or_else(missing)
}

impl Service {
    /// Opens an account, without money: that comes by postings.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; the checks of `countersign_payment` over number, holder,
    /// currency and overdraft; `account-number-taken`.
    pub async fn open_account(
        &self,
        actor: &Actor,
        new: &NewAccount,
    ) -> Result<Account, ServiceError> {
        let opened = self.open(actor, new).await;
        if let Err(error) = &opened {
            self.refused_operator(actor, "account.open", "account", error).await;
        }
        opened
    }

    async fn open(&self, actor: &Actor, new: &NewAccount) -> Result<Account, ServiceError> {
        actor.require(Scope::AccountsManage)?;
        let number = AccountNumber::parse(&new.number)?;
        text::check("holder", &new.holder, HOLDER_MAX)?;
        let currency = Currency::parse(&new.currency)?;
        let overdraft = match (&new.overdraft, new.kind) {
            (Some(decimal), _) => Some(overdraft(decimal, currency)?),
            (None, AccountKind::Customer) => Some(0),
            (None, AccountKind::External) => None,
        };
        let now = self.now();
        let account = Account {
            id: self.new_id(IdKind::Account),
            number: number.as_str().to_owned(),
            holder: new.holder.clone(),
            currency: currency.code().to_owned(),
            kind: new.kind,
            status: AccountStatus::Open,
            status_reason: None,
            balance: 0,
            overdraft,
            entries: 0,
            created_at: now,
            updated_at: now,
        };
        let detail = json!({
            "number": account.number,
            "currency": account.currency,
            "kind": account.kind.name(),
            "overdraft": account.overdraft,
        });
        let entry = done(now, actor, "account.open", &account.id);
        let entry = AuditEntry { detail: detail.to_string(), ..entry };
        let stored = account.clone();
        self.store
            .run_tx("open_account", move |tx| {
                tx.insert_account(&stored).map_err(refuse_taken)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        Ok(account)
    }

    /// One account.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`].
    pub async fn account(&self, actor: &Actor, id: &str) -> Result<Account, ServiceError> {
        actor.require(Scope::AccountsRead)?;
        let id = id.to_owned();
        let found = self.store.read("account", move |tx| tx.account(&id)).await?;
        found.ok_or_else(missing)
    }

    /// One account by its number.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`].
    pub async fn account_by_number(
        &self,
        actor: &Actor,
        number: &str,
    ) -> Result<Account, ServiceError> {
        actor.require(Scope::AccountsRead)?;
        let number = number.to_owned();
        let found =
            self.store.read("account_by_number", move |tx| tx.account_by_number(&number)).await?;
        found.ok_or_else(missing)
    }

    /// Accounts, oldest first.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `page-limit`, `page-cursor`.
    pub async fn accounts(
        &self,
        actor: &Actor,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Account>, ServiceError> {
        actor.require(Scope::AccountsRead)?;
        self.store
            .read("accounts_page", move |tx| Ok(tx.accounts_page(cursor.as_deref(), limit)?))
            .await
    }

    /// An account's entries, newest first; the cursor is the number of an entry.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn account_entries(
        &self,
        actor: &Actor,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Entry>, ServiceError> {
        actor.require(Scope::AccountsRead)?;
        let id = id.to_owned();
        self.store
            .read("account_entries", move |tx| {
                tx.account(&id)?.ok_or_else(missing)?;
                Ok(tx.entries_page(&id, cursor.as_deref(), limit)?)
            })
            .await
    }

    /// Freezes an account: nothing is posted to it until it is opened again. Payments that wait for
    /// their answers stay; they fail when they would execute.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `reason-length`; `account-closed`.
    pub async fn freeze_account(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<Account, ServiceError> {
        self.change_status(actor, id, "account.freeze", AccountStatus::Frozen, Some(reason)).await
    }

    /// Opens a frozen account again.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `account-closed`.
    pub async fn unfreeze_account(&self, actor: &Actor, id: &str) -> Result<Account, ServiceError> {
        self.change_status(actor, id, "account.unfreeze", AccountStatus::Open, None).await
    }

    /// Closes an account for good. It must be empty.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `reason-length`; `account-closed`;
    /// `account-not-empty`.
    pub async fn close_account(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<Account, ServiceError> {
        self.change_status(actor, id, "account.close", AccountStatus::Closed, Some(reason)).await
    }

    async fn change_status(
        &self,
        actor: &Actor,
        id: &str,
        action: &'static str,
        status: AccountStatus,
        reason: Option<&str>,
    ) -> Result<Account, ServiceError> {
        let reason = reason.map(str::to_owned);
        let change = move |tx: &mut Tx<'_>, account: &Account, now| {
            if status == AccountStatus::Closed && account.balance != 0 {
                let detail = "an account is closed when its balance is zero";
                return Err(ServiceError::refused("account-not-empty", detail));
            }
            let reason = reason.as_deref().map(check_reason).transpose()?;
            Ok(tx.set_account_status(&account.id, status, reason.as_deref(), now)?)
        };
        self.change_account(actor, id, action, change).await
    }

    /// Sets how far below zero an account's balance may go, as a decimal.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; `amount…`; `overdraft-used` if the
    /// balance is lower already.
    pub async fn set_overdraft(
        &self,
        actor: &Actor,
        id: &str,
        decimal: &str,
    ) -> Result<Account, ServiceError> {
        let decimal = decimal.to_owned();
        let change = move |tx: &mut Tx<'_>, account: &Account, now| {
            let limit = overdraft(&decimal, Currency::parse(&account.currency)?)?;
            if account.balance < -limit {
                let detail = "the balance is lower than this already";
                return Err(ServiceError::refused("overdraft-used", detail));
            }
            Ok(tx.set_overdraft(&account.id, Some(limit), now)?)
        };
        self.change_account(actor, id, "account.overdraft", change).await
    }

    async fn change_account<F>(
        &self,
        actor: &Actor,
        id: &str,
        action: &'static str,
        change: F,
    ) -> Result<Account, ServiceError>
    where
        F: Fn(&mut Tx<'_>, &Account, UnixTime) -> Result<(), ServiceError> + Send + 'static,
    {
        let changed = match actor.require(Scope::AccountsManage) {
            Err(error) => Err(error),
            Ok(()) => {
                let now = self.now();
                let (entry, id) = (done(now, actor, action, id), id.to_owned());
                let work = move |tx: &mut Tx<'_>| {
                    let account = locked(tx, &id)?;
                    if account.status == AccountStatus::Closed {
                        let detail = "the account is closed";
                        return Err(ServiceError::refused("account-closed", detail));
                    }
                    change(tx, &account, now)?;
                    tx.append_audit(&entry)?;
                    tx.account(&id)?.ok_or_else(missing)
                };
                self.store.run_locked("change_account", work).await
            }
        };
        if let Err(error) = &changed {
            self.refused_operator(actor, action, id, error).await;
        }
        changed
    }
}

fn refuse_taken(error: StoreError) -> ServiceError {
    match &error {
        StoreError::Conflict { constraint } if constraint == "ledger_accounts_number_key" => {
            ServiceError::refused("account-number-taken", "an account with this number exists")
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overdraft_is_an_amount_or_zero() {
        let of = |decimal: &str, code: &str| {
            let currency = Currency::parse(code).expect("it is one of the list");
            overdraft(decimal, currency).map_err(|error| error.check())
        };
        for (decimal, code, minor) in
            [("0", "CNY", 0), ("0.00", "CNY", 0), ("0", "JPY", 0), ("12.5", "CNY", 1250)]
        {
            assert_eq!(of(decimal, code), Ok(minor), "{decimal}");
        }
        for bad in ["", ".", "00", "0.000", "-1", "0.", "0.0.0"] {
            assert!(of(bad, "CNY").is_err(), "{bad}");
        }
    }
}
