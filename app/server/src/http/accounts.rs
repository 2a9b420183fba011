//! `/v1/accounts`, `/v1/postings`, `/v1/ledger` (D6).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{NewAccount, NewPosting, ServiceError};
use countersign_store::{Account as Stored, AccountKind, Entry as StoredEntry, Page, TrialBalance};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{AccountsManage, AccountsRead, Granted};
use super::body::{Body, NoBody};
use super::idempotency::Idempotent;
use super::json::{List, timestamp};
use super::money::{Money, decimal};
use super::payments::{Identified, Posting, once, settled};
use super::problem::Problem;
use super::query::{AccountsQuery, Id, Paging, Params};
use super::readers::Reason;

/// An account of the ledger.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Account {
    /// `acc_…`.
    id: String,
    /// Its number.
    #[schema(example = "PAYER0001")]
    identification: String,
    /// Whose it is.
    holder: String,
    /// ISO 4217's alphabetic code.
    #[schema(example = "CNY")]
    currency: String,
    /// `customer`, or `external`: it stands for the outside world.
    #[schema(example = "customer")]
    kind: &'static str,
    /// `open`, `frozen` or `closed`.
    #[schema(example = "open")]
    status: &'static str,
    /// Why it is frozen or closed; null if it is open.
    #[schema(required)]
    status_reason: Option<String>,
    /// What is on it; below zero with an overdraft.
    balance: Money,
    /// How far below zero it may go; null: without bound.
    #[schema(required)]
    overdraft: Option<Money>,
    /// How many entries it has.
    entries: i64,
    /// When it was opened.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<Stored> for Account {
    fn from(stored: Stored) -> Self {
        Self {
            balance: Money::of(stored.balance, &stored.currency),
            overdraft: stored.overdraft.map(|bound| Money::of(bound, &stored.currency)),
            id: stored.id,
            identification: stored.number,
            holder: stored.holder,
            currency: stored.currency,
            kind: stored.kind.name(),
            status: stored.status.name(),
            status_reason: stored.status_reason,
            entries: stored.entries,
            created_at: timestamp(stored.created_at),
            updated_at: timestamp(stored.updated_at),
        }
    }
}

/// An account that is to be opened.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = OpenAccountRequest)]
pub(super) struct OpenAccount {
    /// Its number, unique: 4 to 34 of A-Z 0-9; an IBAN's check digits are checked.
    #[schema(example = "PAYER0001")]
    identification: String,
    /// Whose it is.
    #[schema(example = "Li Lei")]
    holder: String,
    /// ISO 4217's alphabetic code.
    #[schema(example = "CNY")]
    currency: String,
    /// `customer` (if it is not said), or `external`: it stands for the outside world.
    #[serde(default)]
    kind: Option<String>,
    /// How far below zero it may go, a decimal number. Not said: not at all for a customer's,
    /// without bound for one of the outside world.
    #[serde(default)]
    #[schema(example = "0.00")]
    overdraft: Option<String>,
}

/// Opens an account. Its number is unique, so asking again opens no second one.
#[utoipa::path(post, path = "/accounts", tag = "accounts", operation_id = "open_account",
    request_body = OpenAccount, security(("token" = ["accounts:manage"])),
    responses(
        (status = 201, description = "It is open", body = Account,
            headers(("Location" = String, description = "The account"))),
        (status = 409, description = "`account-number-taken`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn open(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    Body(asked): Body<OpenAccount>,
) -> Result<Response, Problem> {
    let kind = match asked.kind {
        None => AccountKind::Customer,
        Some(name) => AccountKind::from_name(&name)
            .ok_or_else(|| Problem::value("account-kind", "kind is customer or external"))?,
    };
    let new = NewAccount {
        number: asked.identification,
        holder: asked.holder,
        currency: asked.currency,
        kind,
        overdraft: asked.overdraft,
    };
    let account = api.service.open_account(&granted.actor, &new).await?;
    let location = format!("/v1/accounts/{}", account.id);
    let body = Json(Account::from(account));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Accounts, the oldest first.
#[utoipa::path(get, path = "/accounts", tag = "accounts", operation_id = "accounts",
    params(AccountsQuery), security(("token" = ["accounts:read"])),
    responses((status = 200, description = "A part of the list", body = List<Account>)))]
pub(super) async fn list(
    granted: Granted<AccountsRead>,
    State(api): State<Api>,
    Params(query): Params<AccountsQuery>,
) -> Result<Json<List<Account>>, Problem> {
    let (number, cursor, limit) = query.checked()?;
    let page = match number {
        None => api.service.accounts(&granted.actor, cursor, limit).await?,
        Some(number) => {
            let items = match api.service.account_by_number(&granted.actor, &number).await {
                Ok(account) => vec![account],
                Err(ServiceError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            Page { items, next: None }
        }
    };
    Ok(Json(List::of(page)))
}

/// One account.
#[utoipa::path(get, path = "/accounts/{id}", tag = "accounts", operation_id = "account",
    params(("id" = String, Path, description = "`acc_…`")),
    security(("token" = ["accounts:read"])),
    responses((status = 200, description = "The account", body = Account)))]
pub(super) async fn one(
    granted: Granted<AccountsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Account>, Problem> {
    let account = api.service.account(&granted.actor, &id.of("account")?).await?;
    Ok(Json(account.into()))
}

/// Freezes an account: nothing is posted to it until it is unfrozen.
#[utoipa::path(post, path = "/accounts/{id}/freeze", tag = "accounts", request_body = Reason,
    operation_id = "freeze_account", params(("id" = String, Path, description = "`acc_…`")),
    security(("token" = ["accounts:manage"])),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 409, description = "`account-closed`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn freeze(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Account>, Problem> {
    let id = id.of("account")?;
    Ok(Json(api.service.freeze_account(&granted.actor, &id, &reason).await?.into()))
}

/// Unfreezes an account.
#[utoipa::path(post, path = "/accounts/{id}/unfreeze", tag = "accounts",
    operation_id = "unfreeze_account", params(("id" = String, Path, description = "`acc_…`")),
    security(("token" = ["accounts:manage"])),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 409, description = "`account-closed`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn unfreeze(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Account>, Problem> {
    let id = id.of("account")?;
    Ok(Json(api.service.unfreeze_account(&granted.actor, &id).await?.into()))
}

/// Closes an account for ever. Its balance must be zero.
#[utoipa::path(post, path = "/accounts/{id}/close", tag = "accounts", request_body = Reason,
    operation_id = "close_account", params(("id" = String, Path, description = "`acc_…`")),
    security(("token" = ["accounts:manage"])),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 409, description = "`account-not-empty`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn close(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Account>, Problem> {
    let id = id.of("account")?;
    Ok(Json(api.service.close_account(&granted.actor, &id, &reason).await?.into()))
}

/// How far below zero a balance may go.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SetOverdraftRequest)]
pub(super) struct SetOverdraft {
    /// A decimal number in the account's currency, zero or more.
    #[schema(example = "100.00")]
    overdraft: String,
}

/// Sets how far below zero the balance of an account may go.
#[utoipa::path(post, path = "/accounts/{id}/overdraft", tag = "accounts",
    request_body = SetOverdraft, operation_id = "set_overdraft",
    params(("id" = String, Path, description = "`acc_…`")),
    security(("token" = ["accounts:manage"])),
    responses(
        (status = 200, description = "The account", body = Account),
        (status = 409, description = "`overdraft-used`: the balance is lower already; \
            `account-closed`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn set_overdraft(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    id: Id,
    Body(SetOverdraft { overdraft }): Body<SetOverdraft>,
) -> Result<Json<Account>, Problem> {
    let id = id.of("account")?;
    Ok(Json(api.service.set_overdraft(&granted.actor, &id, &overdraft).await?.into()))
}

/// An entry: one account's side of a posting.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = LedgerEntry)]
pub(super) struct Entry {
    /// Its number in the account, from 1 without gaps.
    number: i64,
    /// The posting, `pst_…`.
    posting_id: String,
    /// `payment`, `refund`, `reversal` or `manual`.
    #[schema(example = "payment")]
    kind: &'static str,
    /// What it was posted for, once.
    reference: String,
    /// The payment that it belongs to; null if to none.
    #[schema(required)]
    payment_id: Option<String>,
    /// The account on the other side.
    other_account: Identified,
    /// What came in, or went out with a minus.
    amount: Money,
    /// What was on the account afterwards.
    balance: Money,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl Entry {
    fn of(entry: StoredEntry, currency: &str) -> Self {
        Self {
            number: entry.number,
            posting_id: entry.posting_id,
            kind: entry.kind.name(),
            reference: entry.reference,
            payment_id: entry.payment_id,
            other_account: Identified { identification: entry.other_number },
            amount: Money::of(entry.amount, currency),
            balance: Money::of(entry.balance, currency),
            at: timestamp(entry.at),
        }
    }
}

/// The entries of an account, the newest first.
#[utoipa::path(get, path = "/accounts/{id}/entries", tag = "accounts",
    operation_id = "account_entries", security(("token" = ["accounts:read"])),
    params(("id" = String, Path, description = "`acc_…`"), Paging),
    responses((status = 200, description = "A part of the list", body = List<Entry>)))]
pub(super) async fn entries(
    granted: Granted<AccountsRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Entry>>, Problem> {
    let (id, (cursor, limit)) = (id.of("account")?, paging.checked()?);
    let account = api.service.account(&granted.actor, &id).await?;
    let page = api.service.account_entries(&granted.actor, &id, cursor, limit).await?;
    Ok(Json(List::mapped(page, |entry| Entry::of(entry, &account.currency))))
}

/// A posting by hand.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = PostingRequest)]
pub(super) struct Post {
    /// What it is posted for, once.
    #[schema(example = "cash-1")]
    reference: String,
    /// The account that loses the amount.
    debtor_account: Identified,
    /// The account that gets it.
    creditor_account: Identified,
    /// How much.
    amount: Money,
}

/// Posts an amount from one account to another, by hand: cash, fees, corrections.
#[utoipa::path(post, path = "/postings", tag = "accounts", operation_id = "post",
    request_body = Post, security(("token" = ["accounts:manage"])),
    params(("Idempotency-Key" = String, Header, description = "As for payments")),
    responses(
        (status = 201, description = "The posting", body = Posting),
        (status = 409, description = "`reference-taken`, `idempotency-in-flight`",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`insufficient-funds`, `account-frozen`, `account-closed`, \
             `currency-mismatch`, `same-account`, `idempotency-mismatch`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn post(
    granted: Granted<AccountsManage>,
    State(api): State<Api>,
    Idempotent { key, value }: Idempotent<Post>,
) -> Result<Response, Problem> {
    let once = once(key, |posting: &countersign_store::Posting| Posting::from(posting));
    let new = NewPosting {
        reference: value.reference,
        debit: value.debtor_account.identification,
        credit: value.creditor_account.identification,
        amount: value.amount.into(),
    };
    let posted = api.service.post(&granted.actor, &new, once).await?;
    settled(&posted, None)
}

/// The trial balance.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ledger {
    /// Whether the balances of every currency sum to zero, as they must.
    balanced: bool,
    /// Each currency.
    currencies: Vec<Sums>,
}

/// The accounts of one currency together.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CurrencySums)]
struct Sums {
    /// ISO 4217's alphabetic code.
    currency: String,
    /// How many accounts there are.
    accounts: i64,
    /// What the balances below zero come to, without the sign.
    #[schema(example = "1000.00")]
    debit: String,
    /// What the balances above zero come to: the same.
    #[schema(example = "1000.00")]
    credit: String,
}

/// The trial balance: the sums of all accounts, by currency.
#[utoipa::path(get, path = "/ledger", tag = "accounts", operation_id = "ledger",
    security(("token" = ["accounts:read"])),
    responses((status = 200, description = "The sums", body = Ledger)))]
pub(super) async fn ledger(
    granted: Granted<AccountsRead>,
    State(api): State<Api>,
) -> Result<Json<Ledger>, Problem> {
    let sums = api.service.trial_balance(&granted.actor).await?;
    let balanced = sums.iter().all(TrialBalance::is_zero);
    let currencies = sums
        .into_iter()
        .map(|row| Sums {
            accounts: row.accounts,
            debit: decimal(row.debit, &row.currency),
            credit: decimal(row.credit, &row.currency),
            currency: row.currency,
        })
        .collect();
    Ok(Json(Ledger { balanced, currencies }))
}
