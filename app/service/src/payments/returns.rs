use countersign_payment::{Amount, State};
use countersign_store::{
    AuditEntry, IdKind, Outcomes, PaymentRecord, Posting, PostingKind, StoreError, Tx,
};
use serde_json::json;

use super::decide::{change, currency};
use super::once::{Once, Settled};
use super::postings::{Cause, move_money};
use super::settle::{locked, named_event};
use crate::{Actor, Scope, Service, ServiceError, done};

/// Refunds of one payment, beside one of all that is left: its postings fit one page of the store,
/// so that what evidence lists is all of them.
const REFUNDS_MAX: usize = 100;

/// A part of a payment, or all of it, that went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refunded {
    /// The payment after it.
    pub record: PaymentRecord,
    /// The posting from the payee to the payer.
    pub posting: Posting,
}

/// How much goes back.
enum Return {
    /// This much, as a decimal.
    Part(String),
    /// Everything, and nothing went back before.
    Whole,
}

impl Return {
    const fn kind(&self) -> PostingKind {
        match self {
            Self::Part(_) => PostingKind::Refund,
            Self::Whole => PostingKind::Reversal,
        }
    }

    /// The audit's action, and the event.
    const fn names(&self) -> (&'static str, &'static str) {
        match self {
            Self::Part(_) => ("payment.refund", "payment.refunded"),
            Self::Whole => ("payment.reverse", "payment.reversed"),
        }
    }
}

impl Service {
    /// Gives a part of an executed payment back, as a posting of its own. All refunds together are
    /// at most the payment's amount.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`]; the checks of amounts;
    /// `payment-not-executed`, `payment-reversed`, `refund-too-much`; `refund-too-many` after 100
    /// refunds, unless it is of all that is left; the ledger's, where the payee has the money no
    /// more: `insufficient-funds`, `account-frozen`, `account-closed`; `idempotency-in-flight`,
    /// `idempotency-mismatch`.
    pub async fn refund_payment(
        &self,
        actor: &Actor,
        id: &str,
        amount: &str,
        once: Once<Refunded>,
    ) -> Result<Settled<Refunded>, ServiceError> {
        self.give_back(actor, id, Return::Part(amount.to_owned()), once).await
    }

    /// Gives the whole of an executed payment back, once.
    ///
    /// # Errors
    /// As [`Self::refund_payment`]; `payment-refunded` if a part went back already.
    pub async fn reverse_payment(
        &self,
        actor: &Actor,
        id: &str,
        once: Once<Refunded>,
    ) -> Result<Settled<Refunded>, ServiceError> {
        self.give_back(actor, id, Return::Whole, once).await
    }

    async fn give_back(
        &self,
        actor: &Actor,
        id: &str,
        what: Return,
        once: Once<Refunded>,
    ) -> Result<Settled<Refunded>, ServiceError> {
        let (action, _) = what.names();
        let returned = self.give_back_once(actor, id, what, once).await;
        match &returned {
            Ok(Settled::Fresh { value, .. }) => self.announce_payment(&value.record.payment.id),
            Ok(Settled::Replay { .. }) => {}
            Err(error) => self.refused_operator(actor, action, id, error).await,
        }
        returned
    }

    async fn give_back_once(
        &self,
        actor: &Actor,
        id: &str,
        what: Return,
        once: Once<Refunded>,
    ) -> Result<Settled<Refunded>, ServiceError> {
        actor.require(Scope::PaymentsManage)?;
        let (attempt, _working) = self.once(actor, once)?;
        let (now, actor, id) = (self.now(), actor.clone(), id.to_owned());
        let (posting_id, event_id) = (self.new_id(IdKind::Posting), self.new_id(IdKind::Event));
        self.store
            .run_locked("give_back", move |tx| {
                attempt.run(tx, now, |tx| {
                    let record = locked(tx, &id)?;
                    let (kind, (action, event)) = (what.kind(), what.names());
                    let amount = how_much(tx, &record, &what)?;
                    let mut record = lock_accounts(tx, record)?;
                    let now = now.max(record.payment.updated_at);
                    let before = record.payment.version;
                    record.payment.version += 1;
                    record.payment.refunded += amount.minor();
                    record.payment.updated_at = now;
                    let reference = match what {
                        // Once per payment, and once per version of it: rules of the database.
                        Return::Whole => id.clone(),
                        Return::Part(_) => format!("{id}/{}", record.payment.version),
                    };
                    let cause = Cause {
                        id: posting_id.clone(),
                        kind,
                        reference,
                        payment_id: Some(id.clone()),
                        actor: actor.id(),
                        at: now,
                    };
                    let PaymentRecord { payer, payee, .. } = &mut record;
                    let posting = move_money(cause, payee, payer, amount)?;
                    let detail = json!({
                        "posting": posting.id,
                        "amount": amount.decimal(),
                        "currency": posting.currency,
                    });
                    let entry = done(now, &actor, action, &id);
                    tx.store_outcomes(&Outcomes {
                        changes: vec![change(&record.payment, before)],
                        postings: vec![posting.clone()],
                        events: vec![named_event(event_id.clone(), event, &record.payment, now)],
                        audit: vec![AuditEntry { detail: detail.to_string(), ..entry }],
                        ..Outcomes::default()
                    })?;
                    Ok(Refunded { record, posting })
                })
            })
            .await
    }
}

/// How much goes back, if so much can.
fn how_much(
    tx: &mut Tx<'_>,
    record: &PaymentRecord,
    what: &Return,
) -> Result<Amount, ServiceError> {
    let payment = &record.payment;
    if payment.state != State::Executed {
        let detail = "only an executed payment gives anything back";
        return Err(ServiceError::refused("payment-not-executed", detail));
    }
    if tx.posting_by_reference(PostingKind::Reversal, &payment.id)?.is_some() {
        return Err(ServiceError::refused("payment-reversed", "the payment was reversed"));
    }
    let currency = currency(payment)?;
    match what {
        Return::Whole if payment.refunded > 0 => {
            let detail = "a part of the payment was refunded: refund the rest";
            Err(ServiceError::refused("payment-refunded", detail))
        }
        Return::Whole => Ok(Amount::new(payment.amount, currency)?),
        Return::Part(decimal) => {
            let amount = Amount::parse(decimal, currency.code())?;
            let left = payment.amount - payment.refunded;
            if amount.minor() > left {
                let detail = "refunds are at most what was paid";
                return Err(ServiceError::refused("refund-too-much", detail));
            }
            // The payment's own posting is among them.
            let done = tx.postings_of_payment(&payment.id)?.len();
            if amount.minor() < left && done > REFUNDS_MAX {
                let detail = format!("after {REFUNDS_MAX} refunds only all that is left goes back");
                return Err(ServiceError::refused("refund-too-many", detail));
            }
            Ok(amount)
        }
    }
}

/// The same payment with its accounts locked.
fn lock_accounts(tx: &mut Tx<'_>, record: PaymentRecord) -> Result<PaymentRecord, ServiceError> {
    let mut accounts = tx.lock_accounts(&[&record.payer.id, &record.payee.id])?;
    let mut of = |id: &str| accounts.remove(id).ok_or(StoreError::NotFound { what: "account" });
    let (payer, payee) = (of(&record.payer.id)?, of(&record.payee.id)?);
    Ok(PaymentRecord { payer, payee, ..record })
}
