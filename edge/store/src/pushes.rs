//! Pushes: what waits for a phone (D2). A push names nothing but itself; the phone asks for the
//! payment behind it.

use countersign_crypto::UnixTime;
use countersign_payment::State;

use crate::page::fetch_limit;
use crate::{Column, Row, StoreError, Tx, Value};

/// A payment that waits for a phone's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// `psh_…`: all that is ever sent.
    pub id: String,
    /// For which phone.
    pub phone_id: String,
    /// Of which payment.
    pub payment_id: String,
    /// When it was made: in the transaction that made the payment.
    pub created_at: UnixTime,
    /// Until when it is of use: the payment's expiry.
    pub expires_at: UnixTime,
    /// When the phone got it first, if it has.
    pub delivered_at: Option<UnixTime>,
}

/// A payment as a phone of its payer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhonePayment {
    /// `pay_…`.
    pub id: String,
    /// Where it stands at the time it was asked for: one that is overdue is expired.
    pub state: State,
    /// The confirmation request: the very bytes to be signed.
    pub request: Vec<u8>,
    /// Why it ended as it did.
    pub reason: Option<String>,
    /// When it was made.
    pub created_at: UnixTime,
    /// Until when it may be answered.
    pub expires_at: UnixTime,
    /// The push by which this phone was told of it, if it was.
    pub push_id: Option<String>,
}

const PAYMENTS: &str = "SELECT p.id, p.state, p.request, p.reason, p.created_at, p.expires_at, \
     h.id FROM payments p JOIN phone_accounts a ON a.account_id = p.payer_account \
     LEFT JOIN pushes h ON h.payment_id = p.id AND h.phone_id = a.phone_id \
     WHERE a.phone_id = ?1 AND ";

fn phone_payment(row: &Row, now: UnixTime) -> Result<PhonePayment, StoreError> {
    let state = State::from_name(row.text(1)?)
        .ok_or_else(|| StoreError::corrupt("unknown payment state"))?;
    let expires_at = row.time(5)?;
    let overdue = matches!(state, State::Created | State::Pending) && now >= expires_at;
    Ok(PhonePayment {
        id: row.text(0)?.to_owned(),
        state: if overdue { State::Expired } else { state },
        request: row.blob(2)?.to_vec(),
        reason: row.opt_text(3)?.map(str::to_owned),
        created_at: row.time(4)?,
        expires_at,
        push_id: row.opt_text(6)?.map(str::to_owned),
    })
}

const SELECT: &str = "SELECT h.id, h.phone_id, h.payment_id, h.created_at, h.expires_at, \
     h.delivered_at FROM pushes h JOIN payments p ON p.id = h.payment_id WHERE ";

fn push(row: &Row) -> Result<Push, StoreError> {
    Ok(Push {
        id: row.text(0)?.to_owned(),
        phone_id: row.text(1)?.to_owned(),
        payment_id: row.text(2)?.to_owned(),
        created_at: row.time(3)?,
        expires_at: row.time(4)?,
        delivered_at: row.opt_time(5)?,
    })
}

impl Tx<'_> {
    /// Inserts pushes, none of them delivered.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `pushes_phone_id_payment_id_key`; [`StoreError::NotFound`] for no
    /// such phone or payment.
    pub fn insert_pushes(&mut self, pushes: &[Push]) -> Result<(), StoreError> {
        let columns = [
            ("id", Column::Text),
            ("phone_id", Column::Text),
            ("payment_id", Column::Text),
            ("created_at", Column::Int),
            ("expires_at", Column::Int),
        ];
        let row = |push: &Push| -> Vec<Value> {
            vec![
                (&push.id).into(),
                (&push.phone_id).into(),
                (&push.payment_id).into(),
                push.created_at.into(),
                push.expires_at.into(),
            ]
        };
        let rows: Vec<Vec<Value>> = pushes.iter().map(row).collect();
        self.insert_many("pushes", &columns, &rows)
    }

    /// The pushes that wait for a phone: of payments that are pending and not overdue at `now`,
    /// the newest `limit` of them, oldest first: many that nobody answers hide none that was made
    /// after them; `limit` in 1..=[`crate::MAX_PAGE`]. Delivered ones are among them, for a phone
    /// may have lost one; and there is no cursor, for a push may be stored after a later one.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn waiting_pushes(
        &mut self,
        phone_id: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<Push>, StoreError> {
        let sql = format!(
            "{SELECT} h.phone_id = ?1 AND h.expires_at > ?2 AND p.state = 'pending'
             AND EXISTS (SELECT 1 FROM phone_accounts a
                 WHERE a.phone_id = h.phone_id AND a.account_id = p.payer_account)
             ORDER BY h.id DESC LIMIT ?3"
        );
        let values = [phone_id.into(), now.into(), (fetch_limit(limit)? - 1).into()];
        self.query(&sql, &values)?.iter().rev().map(push).collect()
    }

    /// The push that this phone was sent, whatever became of its payment.
    ///
    /// # Errors
    /// What the database answers.
    pub fn push_by_id(&mut self, phone_id: &str, id: &str) -> Result<Option<Push>, StoreError> {
        let sql = format!("{SELECT} h.id = ?1 AND h.phone_id = ?2");
        self.query_one(&sql, &[id.into(), phone_id.into()])?.map(|row| push(&row)).transpose()
    }

    /// The payments of a phone's accounts that wait for an answer at `now`, as
    /// [`Self::waiting_pushes`]; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn phone_payments(
        &mut self,
        phone_id: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<PhonePayment>, StoreError> {
        let sql = format!(
            "{PAYMENTS} p.state = 'pending' AND p.expires_at > ?2 ORDER BY p.id DESC LIMIT ?3"
        );
        let values = [phone_id.into(), now.into(), (fetch_limit(limit)? - 1).into()];
        self.query(&sql, &values)?.iter().rev().map(|row| phone_payment(row, now)).collect()
    }

    /// A payment of one of a phone's accounts, by its id or by that of the phone's push, whatever
    /// has become of it.
    ///
    /// # Errors
    /// What the database answers.
    pub fn phone_payment(
        &mut self,
        phone_id: &str,
        id: &str,
        now: UnixTime,
    ) -> Result<Option<PhonePayment>, StoreError> {
        let sql = format!("{PAYMENTS} (p.id = ?2 OR h.id = ?2) LIMIT 1");
        let row = self.query_one(&sql, &[phone_id.into(), id.into()])?;
        row.map(|row| phone_payment(&row, now)).transpose()
    }

    /// All pushes of a payment, in the order of their phones; at most [`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// What the database answers.
    pub fn pushes_of_payment(&mut self, payment_id: &str) -> Result<Vec<Push>, StoreError> {
        let sql = format!("{SELECT} h.payment_id = ?1 ORDER BY h.phone_id LIMIT ?2");
        let values = [payment_id.into(), crate::MAX_PAGE.into()];
        self.query(&sql, &values)?.iter().map(push).collect()
    }

    /// Notes that a phone has got these pushes; the first time stays.
    ///
    /// # Errors
    /// What the database answers.
    pub fn mark_delivered(
        &mut self,
        phone_id: &str,
        ids: &[String],
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let sql = "UPDATE pushes SET delivered_at = ?3
                   WHERE id = ?1 AND phone_id = ?2 AND delivered_at IS NULL";
        for id in ids {
            self.execute(sql, &[id.into(), phone_id.into(), now.into()])?;
        }
        Ok(())
    }
}
