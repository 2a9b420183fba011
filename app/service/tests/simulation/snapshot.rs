//! Everything that is stored about payments, read with its own SQL in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use countersign_crypto::UnixTime;
use countersign_store::{MAX_QUERY_ROWS, Row, Store, StoreError, Tx};

/// An account's row.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) number: String,
    pub(crate) currency: String,
    pub(crate) status: String,
    pub(crate) balance: i64,
    pub(crate) overdraft: Option<i64>,
    pub(crate) entries: i64,
}

/// A posting's row.
#[derive(Debug, Clone)]
pub(crate) struct Posting {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) reference: String,
    pub(crate) payment: Option<String>,
    pub(crate) debit: Side,
    pub(crate) credit: Side,
    pub(crate) currency: String,
    pub(crate) amount: i64,
}

/// One of a posting's two entries.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) account: String,
    pub(crate) entry: i64,
    pub(crate) balance: i64,
}

/// A payment's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payment {
    pub(crate) state: String,
    pub(crate) payer: String,
    pub(crate) payee: String,
    pub(crate) currency: String,
    pub(crate) amount: i64,
    pub(crate) refunded: i64,
    pub(crate) order: String,
    pub(crate) initiator: String,
    pub(crate) request: Vec<u8>,
    pub(crate) wrong_answers: i64,
    pub(crate) version: i64,
    pub(crate) expires_at: UnixTime,
}

/// A row of a payment's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) number: i64,
    pub(crate) state: String,
    pub(crate) at: UnixTime,
}

/// A stored answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) payment: String,
    pub(crate) outcome: String,
    pub(crate) method: String,
    pub(crate) device: Option<String>,
    pub(crate) phone: Option<String>,
    pub(crate) certificate: Option<Vec<u8>>,
    pub(crate) signature: Option<Vec<u8>>,
    pub(crate) commitment: Option<Vec<u8>>,
    pub(crate) failed_check: Option<String>,
    pub(crate) incident: Option<String>,
    pub(crate) at: UnixTime,
}

/// A security device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) serial: String,
    pub(crate) status: String,
    pub(crate) method: String,
    /// Wrong answers in a row.
    pub(crate) failures: i64,
}

/// The whole of it, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) postings: Vec<Posting>,
    pub(crate) payments: BTreeMap<String, Payment>,
    pub(crate) timelines: BTreeMap<String, Vec<Change>>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) devices: BTreeMap<String, Device>,
    /// How many phones each payment was pushed to.
    pub(crate) pushes: BTreeMap<String, i64>,
    /// Type and subject of what webhooks are told.
    pub(crate) events: BTreeSet<(String, String)>,
    /// How often the audit has an action on a subject.
    pub(crate) audit: BTreeMap<(String, String), i64>,
    /// Incidents in the audit.
    pub(crate) incidents: BTreeSet<String>,
    /// Whether the store's own check of its ledger found nothing.
    pub(crate) ledger_is_right: bool,
}

const ACCOUNTS: &str = "SELECT id, number, currency, balance, overdraft, entries, status
    FROM ledger_accounts ORDER BY id";
const POSTINGS: &str = "SELECT id, kind, reference, payment_id, debit_account, debit_entry,
    debit_balance, credit_account, credit_entry, credit_balance, currency, amount
    FROM ledger_postings ORDER BY id";
const PAYMENTS: &str = "SELECT id, state, payer_account, payee_account, currency, amount,
    refunded, order_text, initiating_party, request, wrong_answers, version, expires_at
    FROM payments ORDER BY id";
const CHANGES: &str = "SELECT payment_id, number, state, at FROM payment_events
    ORDER BY payment_id, number";
const ANSWERS: &str = "SELECT id, payment_id, outcome, method, device_id, phone_id, certificate,
    signature, at, incident, commitment, failed_check FROM payment_authorisations ORDER BY id";
const DEVICES: &str = "SELECT d.id, d.serial, d.status, s.method, s.failures FROM devices d
    JOIN security_devices s ON s.device_id = d.id ORDER BY d.id";
const PUSHES: &str = "SELECT payment_id, count(*) FROM pushes GROUP BY payment_id";
const EVENTS: &str = "SELECT type, subject FROM events
    WHERE subject LIKE 'pay%' OR subject LIKE 'acc%'";
const AUDIT: &str = "SELECT action, subject, count(*) FROM audit_rows
    WHERE (subject LIKE 'pay%' OR subject LIKE 'acc%') AND outcome <> 'refused'
    GROUP BY action, subject";
const INCIDENTS: &str = "SELECT incident FROM audit_rows WHERE incident IS NOT NULL";

impl Snapshot {
    /// Reads it.
    pub(crate) async fn take(store: &Store) -> Result<Self, StoreError> {
        store.read("snapshot", Self::of).await
    }

    fn of(tx: &mut Tx<'_>) -> Result<Self, StoreError> {
        let mut seen = Self::default();
        for row in all(tx, ACCOUNTS)? {
            let overdraft = if row.is_null(4)? { None } else { Some(row.int(4)?) };
            let account = Account {
                number: text(&row, 1)?,
                currency: text(&row, 2)?,
                status: text(&row, 6)?,
                balance: row.int(3)?,
                overdraft,
                entries: row.int(5)?,
            };
            seen.accounts.insert(text(&row, 0)?, account);
        }
        for row in all(tx, POSTINGS)? {
            let side = |at| {
                let (entry, balance) = (row.int(at + 1)?, row.int(at + 2)?);
                Ok::<_, StoreError>(Side { account: text(&row, at)?, entry, balance })
            };
            seen.postings.push(Posting {
                id: text(&row, 0)?,
                kind: text(&row, 1)?,
                reference: text(&row, 2)?,
                payment: row.opt_text(3)?.map(str::to_owned),
                debit: side(4)?,
                credit: side(7)?,
                currency: text(&row, 10)?,
                amount: row.int(11)?,
            });
        }
        for row in all(tx, PAYMENTS)? {
            seen.payments.insert(text(&row, 0)?, payment(&row)?);
        }
        for row in all(tx, CHANGES)? {
            let change = Change { number: row.int(1)?, state: text(&row, 2)?, at: row.time(3)? };
            seen.timelines.entry(text(&row, 0)?).or_default().push(change);
        }
        for row in all(tx, ANSWERS)? {
            seen.answers.push(answer(&row)?);
        }
        for row in all(tx, DEVICES)? {
            let device = Device {
                serial: text(&row, 1)?,
                status: text(&row, 2)?,
                method: text(&row, 3)?,
                failures: row.int(4)?,
            };
            seen.devices.insert(text(&row, 0)?, device);
        }
        seen.note_records(tx)?;
        seen.ledger_is_right = tx.ledger_check()?.is_empty();
        Ok(seen)
    }

    /// What else has to be there of every payment.
    fn note_records(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for row in all(tx, PUSHES)? {
            self.pushes.insert(text(&row, 0)?, row.int(1)?);
        }
        for row in all(tx, EVENTS)? {
            self.events.insert((text(&row, 0)?, text(&row, 1)?));
        }
        for row in all(tx, AUDIT)? {
            self.audit.insert((text(&row, 0)?, text(&row, 1)?), row.int(2)?);
        }
        for row in all(tx, INCIDENTS)? {
            self.incidents.insert(text(&row, 0)?);
        }
        Ok(())
    }
}

fn all(tx: &mut Tx<'_>, sql: &str) -> Result<Vec<Row>, StoreError> {
    let rows = tx.query(sql, &[])?;
    assert!(rows.len() < MAX_QUERY_ROWS, "a world is small enough to be looked at whole");
    Ok(rows)
}

fn text(row: &Row, column: usize) -> Result<String, StoreError> {
    row.text(column).map(str::to_owned)
}

fn payment(row: &Row) -> Result<Payment, StoreError> {
    Ok(Payment {
        state: text(row, 1)?,
        payer: text(row, 2)?,
        payee: text(row, 3)?,
        currency: text(row, 4)?,
        amount: row.int(5)?,
        refunded: row.int(6)?,
        order: text(row, 7)?,
        initiator: text(row, 8)?,
        request: row.blob(9)?.to_vec(),
        wrong_answers: row.int(10)?,
        version: row.int(11)?,
        expires_at: row.time(12)?,
    })
}

fn answer(row: &Row) -> Result<Answer, StoreError> {
    let opt = |column| row.opt_text(column).map(|text| text.map(str::to_owned));
    Ok(Answer {
        id: text(row, 0)?,
        payment: text(row, 1)?,
        outcome: text(row, 2)?,
        method: text(row, 3)?,
        device: opt(4)?,
        phone: opt(5)?,
        certificate: row.opt_blob(6)?.map(<[u8]>::to_vec),
        signature: row.opt_blob(7)?.map(<[u8]>::to_vec),
        at: row.time(8)?,
        incident: opt(9)?,
        commitment: row.opt_blob(10)?.map(<[u8]>::to_vec),
        failed_check: opt(11)?,
    })
}
