//! What deciding answers stores, in one round trip.

use countersign_crypto::UnixTime;
use countersign_payment::State;

use super::{Authorisation, authorisations, stored_state};
use crate::audit::append_all;
use crate::events::store_events;
use crate::postings;
use crate::tx::Many;
use crate::value::check_texts;
use crate::{AuditEntry, Column, Event, Posting, Row, StoreError, Tx};

/// A row of a payment's timeline: one change of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRow {
    /// The payment.
    pub payment_id: String,
    /// The payment's version after this change: rising, but not without gaps, because not every
    /// change is one of state.
    pub number: i64,
    /// The state that it came into.
    pub state: State,
    /// Who, as in the audit.
    pub actor: String,
    /// Why: a stable name.
    pub reason: Option<String>,
    /// When.
    pub at: UnixTime,
}

/// How a payment that is locked changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentChange {
    /// The payment.
    pub id: String,
    /// Its version as it was locked.
    pub version_before: i64,
    /// Its version now: higher.
    pub version: i64,
    /// Where it stands now.
    pub state: State,
    /// Answers that did not verify, now.
    pub wrong_answers: u32,
    /// How much of it has gone back, now, in minor units.
    pub refunded: i64,
    /// Why it ended as it did: a stable name.
    pub reason: Option<String>,
    /// Under which incident the audit has it.
    pub incident: Option<String>,
    /// When.
    pub at: UnixTime,
}

/// How a security device that is locked changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignerChange {
    /// `sdv_…`.
    pub device_id: String,
    /// Wrong answers since the last good one, now.
    pub failures: u32,
    /// When its owner was last alerted, now.
    pub alerted_at: Option<UnixTime>,
    /// Why it is blocked from now on, if it is.
    pub blocked: Option<String>,
    /// When.
    pub at: UnixTime,
}

/// How an account that is locked is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFreeze {
    /// `acc_…`.
    pub account_id: String,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: UnixTime,
}

/// Everything that deciding some answers stores. One change per payment and per device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Payments that changed.
    pub changes: Vec<PaymentChange>,
    /// Their timelines' new rows.
    pub timeline: Vec<TimelineRow>,
    /// The answers.
    pub authorisations: Vec<Authorisation>,
    /// The postings; the balances follow from them.
    pub postings: Vec<Posting>,
    /// Accounts that are frozen from now on.
    pub freezes: Vec<AccountFreeze>,
    /// Security devices that changed.
    pub signers: Vec<SignerChange>,
    /// What webhooks are told.
    pub events: Vec<Event>,
    /// The audit's rows.
    pub audit: Vec<AuditEntry>,
}

pub(super) fn timeline_row(row: &Row) -> Result<TimelineRow, StoreError> {
    Ok(TimelineRow {
        payment_id: row.text(0)?.to_owned(),
        number: row.int(1)?,
        state: stored_state(row.text(2)?)?,
        actor: row.text(3)?.to_owned(),
        reason: row.opt_text(4)?.map(str::to_owned),
        at: row.time(5)?,
    })
}

/// The statement that stores rows of timelines.
pub(super) fn timeline(rows: &[TimelineRow]) -> Result<Many, StoreError> {
    for row in rows {
        check_texts([row.actor.as_str(), row.reason.as_deref().unwrap_or_default()])?;
    }
    let cells = |row: &TimelineRow| {
        vec![
            (&row.payment_id).into(),
            row.number.into(),
            row.state.name().into(),
            (&row.actor).into(),
            row.reason.as_deref().into(),
            row.at.into(),
        ]
    };
    Ok(Many::insert(
        "payment_events",
        "payment_id, number, state, actor, reason, at",
        &[Column::Text, Column::Int, Column::Text, Column::Text, Column::Text, Column::Int],
        rows.iter().map(cells).collect(),
    ))
}

/// The statement that changes payments. One that is not at the version from which was decided
/// breaks the row's rule that nothing below zero was refunded: then nothing is stored.
fn change(changes: &[PaymentChange]) -> Result<Many, StoreError> {
    for change in changes {
        check_texts([&change.reason, &change.incident].into_iter().filter_map(Option::as_deref))?;
    }
    let cells = |change: &PaymentChange| {
        vec![
            (&change.id).into(),
            change.version_before.into(),
            change.version.into(),
            change.state.name().into(),
            change.wrong_answers.into(),
            change.refunded.into(),
            change.reason.as_deref().into(),
            change.incident.as_deref().into(),
            change.at.into(),
        ]
    };
    Ok(Many::new(
        "UPDATE payments SET version = k.k3, state = k.k4, wrong_answers = k.k5,
             refunded = CASE WHEN version = k.k2 AND k.k3 > k.k2 THEN k.k6 ELSE -1 END,
             reason = k.k7, incident = k.k8, updated_at = k.k9
         FROM {rows} WHERE id = k.k1",
        &[
            Column::Text,
            Column::Int,
            Column::Int,
            Column::Text,
            Column::Int,
            Column::Int,
            Column::Text,
            Column::Text,
            Column::Int,
        ],
        changes.iter().map(cells).collect(),
    ))
}

/// The statements that change security devices.
fn change_signers(changes: &[SignerChange]) -> Result<[Many; 2], StoreError> {
    check_texts(changes.iter().filter_map(|change| change.blocked.as_deref()))?;
    let counts = changes
        .iter()
        .map(|change| {
            vec![(&change.device_id).into(), change.failures.into(), change.alerted_at.into()]
        })
        .collect();
    let blocks = changes
        .iter()
        .filter_map(|change| {
            let reason = change.blocked.as_deref()?;
            Some(vec![(&change.device_id).into(), reason.into(), change.at.into()])
        })
        .collect();
    Ok([
        Many::new(
            "UPDATE security_devices SET failures = k.k2, alerted_at = k.k3
             FROM {rows} WHERE device_id = k.k1",
            &[Column::Text, Column::Int, Column::Int],
            counts,
        ),
        Many::new(
            "UPDATE devices SET status = 'blocked', block_reason = k.k2, updated_at = k.k3
             FROM {rows} WHERE id = k.k1",
            &[Column::Text, Column::Text, Column::Int],
            blocks,
        ),
    ])
}

/// The statement that freezes accounts. Who locked them knows that they were open.
fn freeze(freezes: &[AccountFreeze]) -> Result<Many, StoreError> {
    check_texts(freezes.iter().map(|freeze| freeze.reason.as_str()))?;
    let cells = |freeze: &AccountFreeze| {
        vec![(&freeze.account_id).into(), (&freeze.reason).into(), freeze.at.into()]
    };
    Ok(Many::new(
        "UPDATE ledger_accounts SET status = 'frozen', status_reason = k.k2, updated_at = k.k3
         FROM {rows} WHERE id = k.k1 AND status = 'open'",
        &[Column::Text, Column::Text, Column::Int],
        freezes.iter().map(cells).collect(),
    ))
}

impl Tx<'_> {
    /// Stores what was decided about payments that [`Tx::lock_answers`], [`Tx::lock_payment`] or
    /// [`Tx::lock_payments`] has locked, and accounts locked likewise. On PostgreSQL it all travels
    /// with the commit, or with the next statement, so that an error may show as the transaction's.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `payment_authorisations_payment_id_key` for a second acceptance,
    /// `payment_authorisations_payment_id_answer_hash_key` for an answer that was stored before,
    /// `payment_events_payment_id_number_key`, and those of [`Tx::insert_postings`];
    /// [`StoreError::Refused`] `row-check` for a payment that is not at `version_before`, or of
    /// which more than its amount would have gone back; `text-too-long`, `detail-too-long`,
    /// `event-data`.
    pub fn store_outcomes(&mut self, outcomes: &Outcomes) -> Result<(), StoreError> {
        let [balances, posted] = postings::store(&outcomes.postings)?;
        let [signers, blocks] = change_signers(&outcomes.signers)?;
        self.write_last(vec![
            change(&outcomes.changes)?,
            timeline(&outcomes.timeline)?,
            authorisations::store(&outcomes.authorisations)?,
            signers,
            blocks,
            balances,
            posted,
            freeze(&outcomes.freezes)?,
            store_events(&outcomes.events)?,
            append_all(&outcomes.audit)?,
        ])
    }
}
