//! Answers that are decided together: everything from which they are decided, in one round trip.

use std::collections::{BTreeMap, BTreeSet};

use super::authorisations::{self, authorisation};
use super::{Authorisation, Payment, payment};
use crate::accounts::{ACCOUNT_COLUMNS, by_id};
use crate::dialect::Dialect;
use crate::security_devices::{select_signers_with, signer};
use crate::tx::Many;
use crate::{Account, Column, SignerRecord, StoreError, Tx, Value};

/// Most answers that are decided together.
pub const ANSWERS_MAX: usize = 256;

/// What an answer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerKey {
    /// The payment, `pay_…`.
    pub payment_id: String,
    /// SHA-256 of the answer.
    pub answer_hash: [u8; 32],
    /// The phone that brought it, `phn_…`; `None` if no phone did.
    pub phone_id: Option<String>,
    /// The serial number of the security device; a rejection has none.
    pub device_serial: Option<String>,
}

/// What an answer is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerContext {
    /// The payment, if there is one. Several answers to one payment each get it as it is before
    /// the first of them.
    pub payment: Option<Payment>,
    /// The same answer, if it was decided before.
    pub prior: Option<Authorisation>,
    /// Whether there is a phone, it is not revoked and is told of the payer's payments.
    pub phone_serves_payer: bool,
    /// The security device, if there is one.
    pub device: Option<SignerRecord>,
}

/// What the signature of an answer is verified with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToVerify {
    /// The bytes that are to be signed, if there is the payment. They never change.
    pub request: Option<Vec<u8>>,
    /// The number and the DER of the certificate that the security device has now, if it has one.
    pub certificate: Option<(String, Vec<u8>)>,
}

/// What answers are decided from: one context per key, in the order of the keys, and the accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedAnswers {
    /// One for each key.
    pub contexts: Vec<AnswerContext>,
    /// Every account that one of the payments touches, by id.
    pub accounts: BTreeMap<String, Account>,
}

/// Distinct texts, in order, as rows of one column: the order in which rows are locked.
fn rows_of<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Vec<Value>> {
    let texts: BTreeSet<&str> = texts.collect();
    texts.into_iter().map(|text| vec![text.into()]).collect()
}

fn statements(keys: &[AnswerKey], locks: bool) -> Vec<Many> {
    let payments = || rows_of(keys.iter().map(|key| key.payment_id.as_str()));
    let serials = || rows_of(keys.iter().filter_map(|key| key.device_serial.as_deref()));
    let answers = keys.iter().enumerate().map(|(index, key)| {
        let number = i64::try_from(index).unwrap_or(i64::MAX);
        vec![number.into(), (&key.payment_id).into(), (&key.answer_hash).into()]
    });
    // A statement that waits for a lock sees the locked row as it is then, but everything beside it
    // as it was before: so what is not locked is selected by a later statement.
    let lock_devices = Many::new(
        "SELECT t.device_id FROM {rows}
         JOIN devices d ON d.kind = 'security-device' AND d.serial = k.k1
         JOIN security_devices t ON t.device_id = d.id ORDER BY t.device_id {lock}",
        &[Column::Text],
        // Without locks it would select for nothing.
        if locks { serials() } else { Vec::new() },
    );
    vec![
        Many::new(
            format!(
                "SELECT {} FROM {{rows}} JOIN payments t ON t.id = k.k1 ORDER BY t.id {{lock}}",
                super::COLUMNS
            ),
            &[Column::Text],
            payments(),
        ),
        lock_devices,
        Many::new(
            format!(
                "SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts t WHERE t.id IN (
                     SELECT p.payer_account FROM {{rows}} JOIN payments p ON p.id = k.k1
                     UNION SELECT p.payee_account FROM {{rows}} JOIN payments p ON p.id = k.k1)
                 ORDER BY t.id {{lock}}"
            ),
            &[Column::Text],
            payments(),
        ),
        Many::new(
            format!(
                "SELECT {}, k.k1 FROM {{rows}} JOIN payment_authorisations a
                   ON a.payment_id = k.k2 AND a.answer_hash = k.k3",
                authorisations::COLUMNS
            ),
            &[Column::Int, Column::Text, Column::Blob],
            answers.collect(),
        ),
        Many::new(
            "SELECT b.phone_id, b.account_id FROM {rows}
             JOIN phones f ON f.id = k.k1 AND f.revoked_at IS NULL
             JOIN phone_accounts b ON b.phone_id = k.k1",
            &[Column::Text],
            rows_of(keys.iter().filter_map(|key| key.phone_id.as_deref())),
        ),
        Many::new(
            select_signers_with("JOIN {rows} ON k.k1 = d.serial", "d.kind = 'security-device'"),
            &[Column::Text],
            serials(),
        ),
    ]
}

/// Columns of an authorisation.
const PRIOR_WIDTH: usize = 14;

impl Tx<'_> {
    /// Locks what answers are decided from, in the order payments, security devices, accounts, and
    /// by id among each; and returns it as it is then. One round trip on PostgreSQL. For
    /// [`crate::Store::run_locked`]; [`Tx::store_outcomes`] ends it.
    ///
    /// Blocking a security device, revoking its certificate and taking an account from it wait for
    /// answers that are being decided with it. Revoking a phone does not wait: one that commits
    /// meanwhile counts as later.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for more than [`ANSWERS_MAX`].
    pub fn lock_answers(&mut self, keys: &[AnswerKey]) -> Result<LockedAnswers, StoreError> {
        refuse_many(keys)?;
        let locks = self.dialect() == Dialect::Postgres;
        let found = self.select_many(statements(keys, locks))?;
        let [payments, _, accounts, priors, phones, devices] = found.as_slice() else {
            return Err(StoreError::misuse("not one result per statement"));
        };
        let mut by_payment = BTreeMap::new();
        for row in payments {
            let found = payment(row)?;
            by_payment.insert(found.id.clone(), found);
        }
        let mut by_serial = BTreeMap::new();
        for row in devices {
            let found = signer(row)?;
            by_serial.insert(found.device.device.serial.clone(), found);
        }
        let mut served = BTreeSet::new();
        for row in phones {
            served.insert((row.text(0)?, row.text(1)?));
        }
        let mut contexts: Vec<AnswerContext> = keys
            .iter()
            .map(|key| {
                let payment = by_payment.get(&key.payment_id);
                let payer = payment.map(|payment| payment.payer_account.as_str());
                AnswerContext {
                    payment: payment.cloned(),
                    prior: None,
                    phone_serves_payer: key
                        .phone_id
                        .as_deref()
                        .zip(payer)
                        .is_some_and(|phone_and_payer| served.contains(&phone_and_payer)),
                    device: key.device_serial.as_ref().and_then(|it| by_serial.get(it).cloned()),
                }
            })
            .collect();
        for row in priors {
            let number = usize::try_from(row.int(PRIOR_WIDTH)?).ok();
            if let Some(context) = number.and_then(|number| contexts.get_mut(number)) {
                context.prior = Some(authorisation(row)?);
            }
        }
        Ok(LockedAnswers { contexts, accounts: by_id(accounts)? })
    }

    /// What the signatures of answers are verified with, one for each key: to be read before, and
    /// outside any lock, for what may change is looked at again under the lock. The last thing that
    /// [`crate::Store::read`] does: on PostgreSQL all of it is one round trip.
    ///
    /// # Errors
    /// [`StoreError::Misuse`] for more than [`ANSWERS_MAX`].
    pub fn to_verify(&mut self, keys: &[AnswerKey]) -> Result<Vec<ToVerify>, StoreError> {
        refuse_many(keys)?;
        let found = self.select_last(vec![
            Many::new(
                "SELECT p.id, p.request FROM {rows} JOIN payments p ON p.id = k.k1",
                &[Column::Text],
                rows_of(keys.iter().map(|key| key.payment_id.as_str())),
            ),
            Many::new(
                "SELECT d.serial, c.number, c.der FROM {rows}
                 JOIN devices d ON d.kind = 'security-device' AND d.serial = k.k1
                 JOIN certificates c ON c.device_id = d.id AND c.state IN ('intended', 'issued')
                 WHERE c.der IS NOT NULL",
                &[Column::Text],
                rows_of(keys.iter().filter_map(|key| key.device_serial.as_deref())),
            ),
        ])?;
        let [payments, devices] = found.as_slice() else {
            return Err(StoreError::misuse("not one result per statement"));
        };
        let mut requests = BTreeMap::new();
        for row in payments {
            requests.insert(row.text(0)?, row.blob(1)?);
        }
        let mut certificates = BTreeMap::new();
        for row in devices {
            certificates.insert(row.text(0)?, (row.text(1)?, row.blob(2)?));
        }
        let of_key = |key: &AnswerKey| ToVerify {
            request: requests.get(key.payment_id.as_str()).map(|request| request.to_vec()),
            certificate: key
                .device_serial
                .as_ref()
                .and_then(|serial| certificates.get(serial.as_str()))
                .map(|(number, der)| ((*number).to_owned(), der.to_vec())),
        };
        Ok(keys.iter().map(of_key).collect())
    }
}

fn refuse_many(keys: &[AnswerKey]) -> Result<(), StoreError> {
    if keys.len() > ANSWERS_MAX {
        return Err(StoreError::misuse("more answers than are decided together"));
    }
    Ok(())
}
