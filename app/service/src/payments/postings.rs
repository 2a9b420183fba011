use countersign_crypto::UnixTime;
use countersign_payment::ledger::{self, LedgerError, Posted};
use countersign_payment::{Amount, Currency, text};
use countersign_store::{
    Account, AuditEntry, IdKind, Posting, PostingKind, StoreError, TrialBalance, Tx,
};
use serde_json::json;

use super::create::Money;
use super::once::{Once, Settled};
use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest reference of a posting by hand, in characters.
const REFERENCE_MAX: usize = 64;

/// A posting by hand: money that comes from outside, or goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPosting {
    /// What is posted at most once.
    pub reference: String,
    /// The account that loses: its id or its number.
    pub debit: String,
    /// The account that gets: its id or its number.
    pub credit: String,
    /// How much.
    pub amount: Money,
}

impl From<LedgerError> for ServiceError {
    fn from(error: LedgerError) -> Self {
        Self::refused(error.check(), error.to_string())
    }
}

/// What a posting is for.
pub(super) struct Cause<'a> {
    pub(super) id: String,
    pub(super) kind: PostingKind,
    pub(super) reference: String,
    pub(super) payment_id: Option<String>,
    pub(super) actor: &'a str,
    pub(super) at: UnixTime,
}

/// An account as the rules of the ledger see it.
pub(super) fn view(account: &Account) -> Result<ledger::AccountView<'_>, ServiceError> {
    Ok(ledger::AccountView {
        id: &account.id,
        currency: Currency::parse(&account.currency).map_err(|_| ServiceError::Internal {
            detail: format!("the currency of {} is damaged", account.id),
        })?,
        balance: account.balance,
        overdraft: account.overdraft,
        status: account.status,
    })
}

/// What the ledger's rules say to moving `amount` between two locked accounts.
///
/// # Errors
/// [`ServiceError::Internal`] for a damaged account.
pub(super) fn try_posting(
    debit: &Account,
    credit: &Account,
    amount: Amount,
) -> Result<Result<Posted, LedgerError>, ServiceError> {
    Ok(ledger::post(&view(debit)?, &view(credit)?, amount))
}

/// The posting that the rules allowed; the accounts are as they are after it.
pub(super) fn record_posting(
    cause: Cause<'_>,
    debit: &mut Account,
    credit: &mut Account,
    amount: Amount,
    posted: Posted,
) -> Posting {
    let next = |account: &mut Account, balance: i64| {
        account.balance = balance;
        account.entries += 1;
        account.updated_at = cause.at;
        account.entries
    };
    let debit_entry = next(debit, posted.debit_balance);
    let credit_entry = next(credit, posted.credit_balance);
    Posting {
        id: cause.id,
        kind: cause.kind,
        reference: cause.reference,
        payment_id: cause.payment_id,
        debit_account: debit.id.clone(),
        credit_account: credit.id.clone(),
        currency: debit.currency.clone(),
        amount: amount.minor(),
        debit_entry,
        debit_balance: posted.debit_balance,
        credit_entry,
        credit_balance: posted.credit_balance,
        actor: cause.actor.to_owned(),
        at: cause.at,
    }
}

/// Moves `amount` between two locked accounts.
///
/// # Errors
/// The ledger's rules.
pub(super) fn move_money(
    cause: Cause<'_>,
    debit: &mut Account,
    credit: &mut Account,
    amount: Amount,
) -> Result<Posting, ServiceError> {
    let posted = try_posting(debit, credit, amount)??;
    Ok(record_posting(cause, debit, credit, amount, posted))
}

/// An account by its id or its number.
fn named(tx: &mut Tx<'_>, name: &str) -> Result<Account, ServiceError> {
    let found = match tx.account(name)? {
        Some(account) => Some(account),
        None => tx.account_by_number(name)?,
    };
    let detail = format!("there is no account {name}");
    found.ok_or_else(|| ServiceError::refused("account-unknown", detail))
}

impl Service {
    /// What the accounts of each currency come to: zero, in a ledger that is in order.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`].
    pub async fn trial_balance(&self, actor: &Actor) -> Result<Vec<TrialBalance>, ServiceError> {
        actor.require(Scope::AccountsRead)?;
        Ok(self.store.read("trial_balance", |tx| tx.trial_balance()).await?)
    }

    /// Posts by hand.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; the checks of `countersign_payment` over reference and amount;
    /// `account-unknown`, `reference-taken`; the ledger's: `same-account`, `currency-mismatch`,
    /// `account-frozen`, `account-closed`, `insufficient-funds`, `balance-overflow`;
    /// `idempotency-in-flight`, `idempotency-mismatch`.
    pub async fn post(
        &self,
        actor: &Actor,
        new: &NewPosting,
        once: Once<Posting>,
    ) -> Result<Settled<Posting>, ServiceError> {
        let posted = self.post_once(actor, new, once).await;
        if let Err(error) = &posted {
            self.refused_operator(actor, "ledger.post", "ledger", error).await;
        }
        posted
    }

    async fn post_once(
        &self,
        actor: &Actor,
        new: &NewPosting,
        once: Once<Posting>,
    ) -> Result<Settled<Posting>, ServiceError> {
        actor.require(Scope::AccountsManage)?;
        text::check("reference", &new.reference, REFERENCE_MAX)?;
        let amount = new.amount.parse()?;
        let (attempt, _working) = self.once(actor, once)?;
        let (now, id) = (self.now(), self.new_id(IdKind::Posting));
        let (new, actor) = (new.clone(), actor.clone());
        self.store
            .run_locked("post", move |tx| {
                attempt.run(tx, now, |tx| {
                    let (kind, reference) = (PostingKind::Manual, new.reference.clone());
                    let (debit, credit) = (named(tx, &new.debit)?, named(tx, &new.credit)?);
                    if debit.id == credit.id {
                        return Err(LedgerError::SameAccount.into());
                    }
                    let mut accounts = tx.lock_accounts(&[&debit.id, &credit.id])?;
                    // After the lock: who posts the same twice waits here.
                    if tx.posting_by_reference(kind, &reference)?.is_some() {
                        let detail = "this reference was posted before";
                        return Err(ServiceError::refused("reference-taken", detail));
                    }
                    let mut locked = |id: &str| {
                        let missing = || StoreError::NotFound { what: "account" };
                        accounts.remove(id).ok_or_else(missing)
                    };
                    let (mut debit, mut credit) = (locked(&debit.id)?, locked(&credit.id)?);
                    let cause = Cause {
                        id: id.clone(),
                        kind,
                        reference,
                        payment_id: None,
                        actor: actor.id(),
                        at: now,
                    };
                    let posting = move_money(cause, &mut debit, &mut credit, amount)?;
                    tx.insert_postings(std::slice::from_ref(&posting))?;
                    let detail = json!({
                        "reference": posting.reference,
                        "debit": debit.number,
                        "credit": credit.number,
                        "amount": amount.decimal(),
                        "currency": posting.currency,
                    });
                    let entry = done(now, &actor, "ledger.post", &id);
                    tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry })?;
                    Ok(posting)
                })
            })
            .await
            .map_err(|error| match error {
                // Between accounts of its own, a second one with this reference waits for nobody.
                ServiceError::Refused { check: "conflict", .. } => {
                    ServiceError::refused("reference-taken", "this reference was posted before")
                }
                other => other,
            })
    }
}
