//! Payments (D1, D5–D7): where each stands, how it got there, and the answers to it.

mod authorisations;
mod batch;
mod outcomes;

use countersign_crypto::UnixTime;
use countersign_payment::{REQUEST_MAX, State};

pub use self::authorisations::{AnswerOutcome, Authorisation};
pub use self::batch::{ANSWERS_MAX, AnswerContext, AnswerKey, LockedAnswers, ToVerify};
pub use self::outcomes::{AccountFreeze, Outcomes, PaymentChange, SignerChange, TimelineRow};
use crate::accounts::{ACCOUNT_COLUMNS, account};
use crate::page::{check_cursor, fetch_limit};
use crate::tx::{Many, Statement};
use crate::value::check_texts;
use crate::{Account, Column, MAX_PAGE, Page, Row, StoreError, Tx, Value};

/// Sorts after every id: all ids begin with a lower-case prefix.
const AFTER_EVERY_ID: &str = "~";

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// `pay_…`.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// The account that pays, `acc_…`.
    pub payer_account: String,
    /// The account that is paid, `acc_…`.
    pub payee_account: String,
    /// ISO 4217 code: both accounts' currency.
    pub currency: String,
    /// In minor units, above zero.
    pub amount: i64,
    /// How much of it has gone back, in minor units.
    pub refunded: i64,
    /// The initiating party's own name for it.
    pub end_to_end_id: String,
    /// What is paid for.
    pub order_text: String,
    /// Who asks for it, for people.
    pub initiating_party: String,
    /// Stable names of what whoever confirms it is alerted to.
    pub alerts: Vec<String>,
    /// The operator whose token asked for it, `opr_…`.
    pub created_by: String,
    /// The bytes of the confirmation request: the very ones that a device signs.
    pub request: Vec<u8>,
    /// Answers that did not verify.
    pub wrong_answers: u32,
    /// Why it ended as it did: a stable name.
    pub reason: Option<String>,
    /// Under which incident the audit has it.
    pub incident: Option<String>,
    /// One more with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: UnixTime,
    /// Until when it may be confirmed.
    pub expires_at: UnixTime,
    /// When it last changed.
    pub updated_at: UnixTime,
}

/// A payment and both its accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRecord {
    /// The payment.
    pub payment: Payment,
    /// The account that pays.
    pub payer: Account,
    /// The account that is paid.
    pub payee: Account,
}

/// Which payments a list has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// In this state.
    pub state: Option<State>,
    /// From this account, `acc_…`.
    pub payer: Option<String>,
    /// Asked for by this operator, `opr_…`.
    pub created_by: Option<String>,
}

const COLUMNS: &str = "t.id, t.state, t.payer_account, t.payee_account, t.currency, t.amount, \
     t.refunded, t.end_to_end_id, t.order_text, t.initiating_party, t.alerts, t.created_by, \
     t.request, t.wrong_answers, t.reason, t.incident, t.version, t.created_at, t.expires_at, \
     t.updated_at";

fn payment(row: &Row) -> Result<Payment, StoreError> {
    let alerts = row.text(10)?;
    Ok(Payment {
        id: row.text(0)?.to_owned(),
        state: stored_state(row.text(1)?)?,
        payer_account: row.text(2)?.to_owned(),
        payee_account: row.text(3)?.to_owned(),
        currency: row.text(4)?.to_owned(),
        amount: row.int(5)?,
        refunded: row.int(6)?,
        end_to_end_id: row.text(7)?.to_owned(),
        order_text: row.text(8)?.to_owned(),
        initiating_party: row.text(9)?.to_owned(),
        alerts: alerts.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        created_by: row.text(11)?.to_owned(),
        request: row.blob(12)?.to_vec(),
        wrong_answers: row.u32(13)?,
        reason: row.opt_text(14)?.map(str::to_owned),
        incident: row.opt_text(15)?.map(str::to_owned),
        version: row.int(16)?,
        created_at: row.time(17)?,
        expires_at: row.time(18)?,
        updated_at: row.time(19)?,
    })
}

fn stored_state(name: &str) -> Result<State, StoreError> {
    State::from_name(name).ok_or_else(|| StoreError::corrupt("unknown payment state"))
}

fn check_payment(payment: &Payment, alerts: &str) -> Result<(), StoreError> {
    check_texts([
        payment.id.as_str(),
        &payment.end_to_end_id,
        &payment.created_by,
        alerts,
        payment.reason.as_deref().unwrap_or_default(),
        payment.incident.as_deref().unwrap_or_default(),
    ])?;
    let parts = [payment.order_text.len(), payment.initiating_party.len(), payment.request.len()];
    if parts.into_iter().any(|len| len > REQUEST_MAX) {
        return Err(StoreError::Refused { check: "text-too-long" });
    }
    Ok(())
}

impl Tx<'_> {
    /// Inserts a payment and the first rows of its timeline.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if one of its accounts is not there in this currency;
    /// [`StoreError::Conflict`] `payments_id_key`; [`StoreError::Refused`] `text-too-long`,
    /// `row-check` for an amount that is not above zero.
    pub fn insert_payment(
        &mut self,
        payment: &Payment,
        timeline: &[TimelineRow],
    ) -> Result<(), StoreError> {
        let alerts = payment.alerts.join(",");
        check_payment(payment, &alerts)?;
        self.execute(
            "INSERT INTO payments
                 (id, state, payer_account, payee_account, currency, amount, refunded,
                  end_to_end_id, order_text, initiating_party, alerts, created_by, request,
                  wrong_answers, reason, incident, version, created_at, expires_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                     ?18, ?19, ?20)",
            &[
                (&payment.id).into(),
                payment.state.name().into(),
                (&payment.payer_account).into(),
                (&payment.payee_account).into(),
                (&payment.currency).into(),
                payment.amount.into(),
                payment.refunded.into(),
                (&payment.end_to_end_id).into(),
                (&payment.order_text).into(),
                (&payment.initiating_party).into(),
                alerts.into(),
                (&payment.created_by).into(),
                payment.request.as_slice().into(),
                payment.wrong_answers.into(),
                payment.reason.as_deref().into(),
                payment.incident.as_deref().into(),
                payment.version.into(),
                payment.created_at.into(),
                payment.expires_at.into(),
                payment.updated_at.into(),
            ],
        )?;
        self.write_last(vec![outcomes::timeline(timeline)?])
    }

    /// The payment with this id, and its accounts.
    ///
    /// # Errors
    /// What the database answers.
    pub fn payment(&mut self, id: &str) -> Result<Option<PaymentRecord>, StoreError> {
        self.payment_record(id, "")
    }

    /// As [`Tx::payment`], and nobody else changes the payment until the transaction ends. Its
    /// accounts are not locked. For [`crate::Store::run_locked`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn lock_payment(&mut self, id: &str) -> Result<Option<PaymentRecord>, StoreError> {
        self.payment_record(id, "{lock}")
    }

    fn payment_record(
        &mut self,
        id: &str,
        lock: &str,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let found = self.together(&[
            Statement::new(
                format!("SELECT {COLUMNS} FROM payments t WHERE t.id = ?1 {lock}"),
                vec![id.into()],
            ),
            Statement::new(
                format!(
                    "SELECT {ACCOUNT_COLUMNS} FROM payments p
                     JOIN ledger_accounts t ON t.id = p.payer_account WHERE p.id = ?1"
                ),
                vec![id.into()],
            ),
            Statement::new(
                format!(
                    "SELECT {ACCOUNT_COLUMNS} FROM payments p
                     JOIN ledger_accounts t ON t.id = p.payee_account WHERE p.id = ?1"
                ),
                vec![id.into()],
            ),
        ])?;
        let [found, payer, payee] = found.as_slice() else { return Ok(None) };
        let Some(row) = found.first() else { return Ok(None) };
        let of = |rows: &[Row]| {
            let row = rows.first();
            row.ok_or_else(|| StoreError::corrupt("a payment's account is missing"))
                .and_then(account)
        };
        Ok(Some(PaymentRecord { payment: payment(row)?, payer: of(payer)?, payee: of(payee)? }))
    }

    /// Locks payments in the order of their ids, at most [`ANSWERS_MAX`], and returns them as they
    /// are now; those that are not there are missing. For [`crate::Store::run_locked`].
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for more.
    pub fn lock_payments(&mut self, ids: &[&str]) -> Result<Vec<Payment>, StoreError> {
        if ids.len() > ANSWERS_MAX {
            return Err(StoreError::misuse("more payments than are locked at a time"));
        }
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let rows = ids.into_iter().map(|id| vec![id.into()]).collect();
        let found = self.select_many(vec![Many::new(
            format!(
                "SELECT {COLUMNS} FROM {{rows}} JOIN payments t ON t.id = k.k1
                 ORDER BY t.id {{lock}}"
            ),
            &[Column::Text],
            rows,
        )])?;
        found.iter().flatten().map(payment).collect()
    }

    /// Payments, newest first, before `cursor`; `limit` in 1..=[`MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn payments_page(
        &mut self,
        filter: &PaymentFilter,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Payment>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or(AFTER_EVERY_ID);
        let mut values: Vec<Value> = vec![before.into(), fetch_limit(limit)?.into()];
        let mut sql = format!("SELECT {COLUMNS} FROM payments t WHERE t.id < ?1");
        let wanted = [
            ("state", filter.state.map(State::name)),
            ("payer_account", filter.payer.as_deref()),
            ("created_by", filter.created_by.as_deref()),
        ];
        for (column, wanted) in wanted {
            if let Some(wanted) = wanted {
                values.push(wanted.into());
                sql.push_str(&format!(" AND t.{column} = ?{}", values.len()));
            }
        }
        sql.push_str(" ORDER BY t.id DESC LIMIT ?2");
        let items = self.query(&sql, &values)?.iter().map(payment).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |payment: &Payment| payment.id.clone()))
    }

    /// A payment's timeline, oldest first, at most [`MAX_PAGE`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn timeline(&mut self, payment_id: &str) -> Result<Vec<TimelineRow>, StoreError> {
        let rows = self.query(
            "SELECT payment_id, number, state, actor, reason, at FROM payment_events
             WHERE payment_id = ?1 ORDER BY number LIMIT ?2",
            &[payment_id.into(), MAX_PAGE.into()],
        )?;
        rows.iter().map(outcomes::timeline_row).collect()
    }

    /// Payments that wait for an answer and are overdue at `now`, the longest overdue first;
    /// `limit` in 1..=[`MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn overdue_payments(
        &mut self,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<Payment>, StoreError> {
        fetch_limit(limit)?;
        let sql = format!(
            "SELECT {COLUMNS} FROM payments t
             WHERE t.state IN ('created', 'pending') AND t.expires_at <= ?1
             ORDER BY t.expires_at, t.id LIMIT ?2"
        );
        self.query(&sql, &[now.into(), limit.into()])?.iter().map(payment).collect()
    }
}
