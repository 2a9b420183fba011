//! Postings: what one account loses and another one gets, in one row that only ever stays (D6).

use std::collections::BTreeMap;

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::tx::Many;
use crate::value::check_texts;
use crate::{Column, MAX_PAGE, Page, Row, StoreError, Tx, Value};

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PostingKind {
    /// The execution of a payment; its reference is the payment's id.
    Payment,
    /// A part of a payment that goes back.
    Refund,
    /// The whole of a payment that goes back; its reference is the payment's id.
    Reversal,
    /// An operator's posting.
    Manual,
}

stored_as_text!(PostingKind, "posting kind", {
    Payment => "payment",
    Refund => "refund",
    Reversal => "reversal",
    Manual => "manual",
});

/// A posting: a debit entry and a credit entry of one amount, so that they sum to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// `pst_…`.
    pub id: String,
    /// What is posted.
    pub kind: PostingKind,
    /// What of this kind is posted at most once: the payment, the refund.
    pub reference: String,
    /// The payment that it belongs to, if to one.
    pub payment_id: Option<String>,
    /// The account that loses the amount, `acc_…`.
    pub debit_account: String,
    /// The account that gets it, `acc_…`.
    pub credit_account: String,
    /// ISO 4217 code: both accounts' currency.
    pub currency: String,
    /// In minor units, above zero.
    pub amount: i64,
    /// The number of the entry in the account that loses.
    pub debit_entry: i64,
    /// The balance of that account after it.
    pub debit_balance: i64,
    /// The number of the entry in the account that gets.
    pub credit_entry: i64,
    /// The balance of that account after it.
    pub credit_balance: i64,
    /// Who, as in the audit.
    pub actor: String,
    /// When.
    pub at: UnixTime,
}

/// One account's side of a posting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number in the account: from 1, without gaps.
    pub number: i64,
    /// In minor units: below zero if the account lost it.
    pub amount: i64,
    /// The account's balance after it.
    pub balance: i64,
    /// The other account, `acc_…`.
    pub other_account: String,
    /// The number of the other account.
    pub other_number: String,
    /// The posting.
    pub posting_id: String,
    /// What was posted.
    pub kind: PostingKind,
    /// The posting's reference.
    pub reference: String,
    /// The payment, if it belongs to one.
    pub payment_id: Option<String>,
    /// When.
    pub at: UnixTime,
}

const COLUMNS: &str = "id, kind, reference, payment_id, debit_account, credit_account, currency, \
     amount, debit_entry, debit_balance, credit_entry, credit_balance, actor, at";

const COLUMN_TYPES: &[Column] = &[
    Column::Text,
    Column::Text,
    Column::Text,
    Column::Text,
    Column::Text,
    Column::Text,
    Column::Text,
    Column::Int,
    Column::Int,
    Column::Int,
    Column::Int,
    Column::Int,
    Column::Text,
    Column::Int,
];

fn posting(row: &Row) -> Result<Posting, StoreError> {
    Ok(Posting {
        id: row.text(0)?.to_owned(),
        kind: PostingKind::stored(row.text(1)?)?,
        reference: row.text(2)?.to_owned(),
        payment_id: row.opt_text(3)?.map(str::to_owned),
        debit_account: row.text(4)?.to_owned(),
        credit_account: row.text(5)?.to_owned(),
        currency: row.text(6)?.to_owned(),
        amount: row.int(7)?,
        debit_entry: row.int(8)?,
        debit_balance: row.int(9)?,
        credit_entry: row.int(10)?,
        credit_balance: row.int(11)?,
        actor: row.text(12)?.to_owned(),
        at: row.time(13)?,
    })
}

fn cells(posting: &Posting) -> Vec<Value> {
    vec![
        (&posting.id).into(),
        posting.kind.name().into(),
        (&posting.reference).into(),
        posting.payment_id.as_deref().into(),
        (&posting.debit_account).into(),
        (&posting.credit_account).into(),
        (&posting.currency).into(),
        posting.amount.into(),
        posting.debit_entry.into(),
        posting.debit_balance.into(),
        posting.credit_entry.into(),
        posting.credit_balance.into(),
        (&posting.actor).into(),
        posting.at.into(),
    ]
}

fn entry(row: &Row) -> Result<Entry, StoreError> {
    Ok(Entry {
        number: row.int(0)?,
        amount: row.int(1)?,
        balance: row.int(2)?,
        other_account: row.text(3)?.to_owned(),
        other_number: row.text(4)?.to_owned(),
        posting_id: row.text(5)?.to_owned(),
        kind: PostingKind::stored(row.text(6)?)?,
        reference: row.text(7)?.to_owned(),
        payment_id: row.opt_text(8)?.map(str::to_owned),
        at: row.time(9)?,
    })
}

/// What postings make of one account.
struct Moved {
    first_entry: i64,
    last_entry: i64,
    balance: i64,
    at: UnixTime,
}

fn note(
    moved: &mut BTreeMap<String, Moved>,
    account: &str,
    number: i64,
    balance: i64,
    at: UnixTime,
) {
    let first = Moved { first_entry: number, last_entry: number, balance, at };
    let moved = moved.entry(account.to_owned()).or_insert(first);
    moved.first_entry = moved.first_entry.min(number);
    if number >= moved.last_entry {
        (moved.last_entry, moved.balance) = (number, balance);
    }
    moved.at = moved.at.max(at);
}

/// The statements that store postings and the balances they lead to: one change per account. An
/// account that is not at the entry before the first one breaks the row's rule that no number of
/// entries is below zero: then nothing is stored.
pub(crate) fn store(postings: &[Posting]) -> Result<[Many; 2], StoreError> {
    let mut moved = BTreeMap::new();
    for posting in postings {
        check_texts([posting.id.as_str(), &posting.reference, &posting.actor])?;
        let Posting { debit_account, credit_account, at, .. } = posting;
        note(&mut moved, debit_account, posting.debit_entry, posting.debit_balance, *at);
        note(&mut moved, credit_account, posting.credit_entry, posting.credit_balance, *at);
    }
    let balances = moved
        .into_iter()
        .map(|(id, moved)| {
            vec![
                id.into(),
                (moved.first_entry - 1).into(),
                moved.last_entry.into(),
                moved.balance.into(),
                moved.at.into(),
            ]
        })
        .collect();
    Ok([
        Many::new(
            "UPDATE ledger_accounts SET balance = k.k4,
                 entries = CASE WHEN entries = k.k2 THEN k.k3 ELSE -1 END, updated_at = k.k5
             FROM {rows} WHERE id = k.k1",
            &[Column::Text, Column::Int, Column::Int, Column::Int, Column::Int],
            balances,
        ),
        Many::insert(
            "ledger_postings",
            COLUMNS,
            COLUMN_TYPES,
            postings.iter().map(cells).collect(),
        ),
    ])
}

impl Tx<'_> {
    /// Stores postings with the balances that they lead to, between accounts that are locked
    /// ([`Tx::lock_accounts`]). Several in one account have numbers one after the other. On
    /// PostgreSQL the statements travel with the next one, or with the commit, so that an error of
    /// theirs may show as the transaction's.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `ledger_postings_kind_reference_key` if this was posted before;
    /// [`StoreError::Refused`] `row-check` for an amount not above zero, one account on both sides,
    /// a balance below the overdraft, a number that is not the account's next; `text-too-long`;
    /// [`StoreError::NotFound`] for no such account in this currency.
    pub fn insert_postings(&mut self, postings: &[Posting]) -> Result<(), StoreError> {
        self.write_last(store(postings)?.into())
    }

    /// The posting with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn posting(&mut self, id: &str) -> Result<Option<Posting>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM ledger_postings WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| posting(&row)).transpose()
    }

    /// The posting of this kind with this reference.
    ///
    /// # Errors
    /// What the database answers.
    pub fn posting_by_reference(
        &mut self,
        kind: PostingKind,
        reference: &str,
    ) -> Result<Option<Posting>, StoreError> {
        let sql =
            format!("SELECT {COLUMNS} FROM ledger_postings WHERE kind = ?1 AND reference = ?2");
        let values = [kind.name().into(), reference.into()];
        self.query_one(&sql, &values)?.map(|row| posting(&row)).transpose()
    }

    /// The postings of a payment, oldest first, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn postings_of_payment(&mut self, payment_id: &str) -> Result<Vec<Posting>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM ledger_postings WHERE payment_id = ?1 ORDER BY at, id LIMIT ?2"
        );
        let rows = self.query(&sql, &[payment_id.into(), MAX_PAGE.into()])?;
        rows.iter().map(posting).collect()
    }

    /// Whether a payment from one account to another was ever executed.
    ///
    /// # Errors
    /// What the database answers.
    pub fn paid_before(&mut self, payer: &str, payee: &str) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM ledger_postings
                   WHERE kind = 'payment' AND debit_account = ?1 AND credit_account = ?2 LIMIT 1";
        Ok(self.query_one(sql, &[payer.into(), payee.into()])?.is_some())
    }

    /// An account's entries, newest first, before `cursor` (the number of an entry); `limit` in
    /// 1..=[`MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn entries_page(
        &mut self,
        account_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Entry>, StoreError> {
        let before = match check_cursor(cursor)? {
            None => i64::MAX,
            Some(text) => text.parse().map_err(|_| StoreError::Refused { check: "page-cursor" })?,
        };
        // Each side by itself, so that each walks its index from its end.
        let side = |own: &str, other: &str, sign: &str| {
            format!(
                "SELECT * FROM (SELECT p.{own}_entry AS entry, {sign}p.amount AS amount,
                     p.{own}_balance AS balance, p.{other}_account AS other,
                     a.number AS other_number, p.id AS id, p.kind AS kind,
                     p.reference AS reference, p.payment_id AS payment_id, p.at AS at
                 FROM ledger_postings p JOIN ledger_accounts a ON a.id = p.{other}_account
                 WHERE p.{own}_account = ?1 AND p.{own}_entry < ?2
                 ORDER BY p.{own}_entry DESC LIMIT ?3) AS {own}_side"
            )
        };
        let sql = format!(
            "{} UNION ALL {} ORDER BY entry DESC LIMIT ?3",
            side("debit", "credit", "-"),
            side("credit", "debit", "")
        );
        let values = [account_id.into(), before.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |entry: &Entry| entry.number.to_string()))
    }
}
