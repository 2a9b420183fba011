//! Accounts, and payments that wait for their confirmation, put into the database in bulk.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::{AccountNumber, Amount, ConfirmationRequest, Currency};
use countersign_service::Service;
use countersign_store::{Column, StoreError, Tx, Value};

use super::slice::{AMOUNT, CURRENCY, HOT, OUTSIDE, PAYERS, Slice, numbered, payer};
use crate::Fallible;

/// Minor units that each payer has at the start.
const FUNDS: i64 = 1_000_000_000_000;
/// Rows of one insert.
const ROWS: usize = 1000;
/// How long the payments wait: longer than any run.
const WAIT: Duration = Duration::from_secs(86_400);

type Columns = &'static [(&'static str, Column)];

const ACCOUNTS: Columns = &[
    ("id", Column::Text),
    ("number", Column::Text),
    ("holder", Column::Text),
    ("currency", Column::Text),
    ("kind", Column::Text),
    ("status", Column::Text),
    ("balance", Column::Int),
    ("overdraft", Column::Int),
    ("entries", Column::Int),
    ("created_at", Column::Int),
    ("updated_at", Column::Int),
];
const POSTINGS: Columns = &[
    ("id", Column::Text),
    ("kind", Column::Text),
    ("reference", Column::Text),
    ("debit_account", Column::Text),
    ("credit_account", Column::Text),
    ("currency", Column::Text),
    ("amount", Column::Int),
    ("debit_entry", Column::Int),
    ("debit_balance", Column::Int),
    ("credit_entry", Column::Int),
    ("credit_balance", Column::Int),
    ("actor", Column::Text),
    ("at", Column::Int),
];
const PAYMENTS: Columns = &[
    ("id", Column::Text),
    ("state", Column::Text),
    ("payer_account", Column::Text),
    ("payee_account", Column::Text),
    ("currency", Column::Text),
    ("amount", Column::Int),
    ("refunded", Column::Int),
    ("end_to_end_id", Column::Text),
    ("order_text", Column::Text),
    ("initiating_party", Column::Text),
    ("alerts", Column::Text),
    ("created_by", Column::Text),
    ("request", Column::Blob),
    ("wrong_answers", Column::Int),
    ("version", Column::Int),
    ("created_at", Column::Int),
    ("expires_at", Column::Int),
    ("updated_at", Column::Int),
];
const TIMELINE: Columns = &[
    ("payment_id", Column::Text),
    ("number", Column::Int),
    ("state", Column::Text),
    ("actor", Column::Text),
    ("at", Column::Int),
];

/// A payer's or payee's account number.
fn account_number(account: u64) -> String {
    format!("BENCH{account:08}")
}

/// Opens all accounts and gives the payers money that the outside world owes.
pub(super) async fn accounts(service: &Service) -> Fallible<()> {
    let now = service.now();
    let (mut accounts, mut postings, mut outside) = (Vec::new(), Vec::new(), 0);
    for account in 0..=HOT {
        let pays = account < PAYERS;
        let (balance, entries) = if pays { (FUNDS, 1) } else { (0, 0) };
        accounts.push(account_row(account, "customer", balance, Some(0), entries, now));
        if pays {
            outside -= balance;
            let entry = i64::try_from(account)? + 1;
            postings.push(funding_row(account, entry, outside, now));
        }
    }
    let entries = i64::try_from(PAYERS)?;
    accounts.push(account_row(OUTSIDE, "external", outside, None, entries, now));
    insert(service, "ledger_accounts", ACCOUNTS, accounts).await?;
    insert(service, "ledger_postings", POSTINGS, postings).await
}

fn account_row(
    account: u64,
    kind: &str,
    balance: i64,
    overdraft: Option<i64>,
    entries: i64,
    now: UnixTime,
) -> Vec<Value> {
    vec![
        numbered("acc", account).into(),
        account_number(account).into(),
        format!("Holder {account}").into(),
        CURRENCY.into(),
        kind.into(),
        "open".into(),
        balance.into(),
        overdraft.map_or(Value::Null, Value::from),
        entries.into(),
        now.into(),
        now.into(),
    ]
}

fn funding_row(account: u64, entry: i64, outside: i64, now: UnixTime) -> Vec<Value> {
    // Numbers of payments' postings start where those of accounts end.
    let id = numbered("pst", account);
    vec![
        id.clone().into(),
        "manual".into(),
        id.into(),
        numbered("acc", OUTSIDE).into(),
        numbered("acc", account).into(),
        CURRENCY.into(),
        FUNDS.into(),
        entry.into(),
        outside.into(),
        1_i64.into(),
        FUNDS.into(),
        "console".into(),
        now.into(),
    ]
}

/// Makes the slice's payments and returns the bytes that are to be signed, in their order.
pub(super) async fn payments(service: &Service, slice: Slice) -> Fallible<Vec<Vec<u8>>> {
    let now = service.now();
    // Whole seconds, as what a device shows.
    let expires = UnixTime::from_secs(now.plus(WAIT).as_secs());
    let (mut payments, mut timeline, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for number in slice.numbers() {
        let request = request(number, slice, expires)?;
        payments.push(payment_row(number, slice, &request, now, expires));
        for (version, state) in [(1_i64, "created"), (2, "pending")] {
            timeline.push(vec![
                numbered("pay", number).into(),
                version.into(),
                state.into(),
                "console".into(),
                now.into(),
            ]);
        }
        requests.push(request);
    }
    insert(service, "payments", PAYMENTS, payments).await?;
    insert(service, "payment_events", TIMELINE, timeline).await?;
    Ok(requests)
}

fn request(number: u64, slice: Slice, expires: UnixTime) -> Fallible<Vec<u8>> {
    let payee = slice.payee(number);
    let request = ConfirmationRequest {
        server: "srv-bench".to_owned(),
        payment: numbered("pay", number),
        payer_account: AccountNumber::parse(&account_number(payer(number)))?,
        payee_account: AccountNumber::parse(&account_number(payee))?,
        payee_name: format!("Holder {payee}"),
        order: format!("Order {number}"),
        amount: Amount::new(AMOUNT, Currency::parse(CURRENCY)?)?,
        expires,
        initiator: "Bench checkout".to_owned(),
        alerts: Vec::new(),
    };
    Ok(request.to_bytes()?)
}

fn payment_row(
    number: u64,
    slice: Slice,
    request: &[u8],
    now: UnixTime,
    expires: UnixTime,
) -> Vec<Value> {
    vec![
        numbered("pay", number).into(),
        "pending".into(),
        numbered("acc", payer(number)).into(),
        numbered("acc", slice.payee(number)).into(),
        CURRENCY.into(),
        AMOUNT.into(),
        0_i64.into(),
        format!("E2E-{number}").into(),
        format!("Order {number}").into(),
        "Bench checkout".into(),
        "".into(),
        "console".into(),
        request.to_vec().into(),
        0_i64.into(),
        2_i64.into(),
        now.into(),
        expires.into(),
        now.into(),
    ]
}

/// How many of the slice's payments are executed and posted.
pub(super) async fn executed(service: &Service, slice: Slice) -> Fallible<u64> {
    let bounds = [slice.numbers().start, slice.numbers().end].map(|at| numbered("pay", at));
    let [first, end] = bounds;
    let count = move |tx: &mut Tx<'_>| {
        let sql = "SELECT count(*) FROM payments p JOIN ledger_postings g ON g.payment_id = p.id \
                   WHERE p.id >= ?1 AND p.id < ?2 AND p.state = 'executed'";
        let values = [first.as_str().into(), end.as_str().into()];
        tx.query_one(sql, &values)?.ok_or(StoreError::NotFound { what: "count" })?.int(0)
    };
    let count: i64 = service.store().read("bench_count", count).await?;
    Ok(u64::try_from(count)?)
}

async fn insert(
    service: &Service,
    table: &'static str,
    columns: Columns,
    mut rows: Vec<Vec<Value>>,
) -> Fallible<()> {
    while !rows.is_empty() {
        let rest = rows.split_off(ROWS.min(rows.len()));
        let some = std::mem::replace(&mut rows, rest);
        let insert = move |tx: &mut Tx<'_>| tx.insert_many(table, columns, &some);
        let inserted: Result<(), StoreError> = service.store().run_tx("bench_seed", insert).await;
        inserted?;
    }
    Ok(())
}
