use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::machine::{self, Decision, PaymentView, Refusal, Step};
use countersign_payment::{Currency, State, decimal, to_rfc3339};
use countersign_store::{
    Event, IdKind, Notice, Outcomes, Payment, PaymentRecord, TimelineRow, Topic, Tx, new_id,
};
use serde_json::json;

use crate::{Actor, Scope, Service, ServiceError, done};

/// How often overdue payments are looked for.
pub const PAYMENT_SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Payments that are ended together.
const SWEEP_MAX: u32 = 200;
/// How often one turn of the sweep looks for more.
const SWEEP_TURNS: usize = 20;
/// The reason of a payment that its initiator took back.
const REASON_CANCELLED: &str = "cancelled-by-initiator";

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        Self::refused(refusal.check(), refusal.to_string())
    }
}

/// A locked payment as the machine sees it.
pub(super) const fn view(payment: &Payment) -> PaymentView {
    PaymentView {
        state: payment.state,
        expires_at: payment.expires_at,
        wrong_answers: payment.wrong_answers,
    }
}

/// Takes a payment through `steps`, each of which is a row of its timeline. The number of a row is
/// the payment's version with it, so that numbers rise.
pub(super) fn walk(
    payment: &mut Payment,
    steps: &[Step],
    actor: &str,
    at: UnixTime,
) -> Vec<TimelineRow> {
    let row = |step: &Step| {
        payment.version += 1;
        payment.state = step.state;
        payment.reason = step.reason.map(str::to_owned);
        payment.updated_at = at;
        TimelineRow {
            payment_id: payment.id.clone(),
            number: payment.version,
            state: step.state,
            actor: actor.to_owned(),
            reason: payment.reason.clone(),
            at,
        }
    };
    steps.iter().map(row).collect()
}

/// The event that a payment is where it is now.
pub(super) fn event(id: String, payment: &Payment, at: UnixTime) -> Event {
    let kind = format!("payment.{}", payment.state.name());
    named_event(id, &kind, payment, at)
}

/// An event about a payment, with what webhooks need to find it in their own books.
pub(super) fn named_event(id: String, kind: &str, payment: &Payment, at: UnixTime) -> Event {
    let data = json!({
        "payment": payment.id,
        "endToEndIdentification": payment.end_to_end_id,
        "state": payment.state.name(),
        "transactionStatus": payment.state.iso20022(),
        "reason": payment.reason,
        "instructedAmount": {
            "amount": shown(payment.amount, &payment.currency),
            "currency": payment.currency,
        },
        "refunded": shown(payment.refunded, &payment.currency),
        "expiresAt": to_rfc3339(payment.expires_at),
    });
    let (kind, subject) = (kind.to_owned(), payment.id.clone());
    let owner = Some(payment.created_by.clone());
    Event { id, kind, subject, owner, data: data.to_string(), at }
}

/// Minor units as a decimal of their currency.
fn shown(minor: i64, currency: &str) -> String {
    Currency::parse(currency)
        .map_or_else(|_| minor.to_string(), |currency| decimal(minor, currency))
}

/// What became of a payment that was to be changed.
struct Change {
    record: PaymentRecord,
    /// Why not, although something may have changed: who comes too late lets it expire.
    refusal: Option<Refusal>,
    changed: bool,
}

impl Service {
    /// Takes a payment back that nobody has answered yet. Again: the same answer.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`], also without `payments:manage` for another's payment that the
    /// actor sees; [`ServiceError::NotFound`] for one that it does not see;
    /// `payment-expired`, `payment-settled`, `payment-rejected`, `payment-failed`.
    pub async fn cancel_payment(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<PaymentRecord, ServiceError> {
        let cancelled = self.take_back(actor, id).await;
        if let Err(error) = &cancelled {
            self.refused_operator(actor, "payment.cancel", id, error).await;
        }
        cancelled
    }

    async fn take_back(&self, actor: &Actor, id: &str) -> Result<PaymentRecord, ServiceError> {
        if let Err(not_any) = actor.require(Scope::PaymentsManage) {
            actor.require(Scope::PaymentsCreate)?;
            // Who may see all payments and ask for some takes back its own. Whose a payment is
            // never changes: no lock is needed.
            let record = self.find_payment(id).await?;
            if super::read::sees(actor, &record) && record.payment.created_by != actor.id() {
                return Err(not_any);
            }
        }
        let decide = |view: &PaymentView, now| machine::cancel(view, now, REASON_CANCELLED);
        let change = self.change_payment(actor, id, "payment.cancel", decide).await?;
        match change.refusal {
            None | Some(Refusal::Cancelled) => Ok(change.record),
            Some(refusal) => Err(refusal.into()),
        }
    }

    /// Ends a payment whose time is over, if it still waits; else changes nothing.
    pub(super) async fn expire_payment(&self, id: &str) -> Result<PaymentRecord, ServiceError> {
        let change = self.change_payment(&Actor::System, id, "payment.expire", machine::expire);
        Ok(change.await?.record)
    }

    /// Ends payments that nobody answered in time: the sweeper's turn. Returns how many. Whoever
    /// looks at such a payment, or answers it, ends it too.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire_payments(&self) -> Result<usize, ServiceError> {
        let mut expired = 0;
        for _ in 0..SWEEP_TURNS {
            let now = self.now();
            let overdue: Vec<Payment> = self
                .store
                .read("overdue_payments", move |tx| tx.overdue_payments(now, SWEEP_MAX))
                .await
                .map_err(ServiceError::from)?;
            if overdue.is_empty() {
                break;
            }
            let ids: Vec<String> = overdue.into_iter().map(|payment| payment.id).collect();
            let last = ids.len() < SWEEP_MAX as usize;
            let changed = self.expire_all(ids).await?;
            expired += changed.len();
            for payment in changed {
                self.announce_payment(&payment);
            }
            if last {
                break;
            }
        }
        Ok(expired)
    }

    /// Ends those of these payments whose time is over, and that wait still.
    async fn expire_all(&self, ids: Vec<String>) -> Result<Vec<String>, ServiceError> {
        let ambient = self.ambient.clone();
        self.store
            .run_locked("expire_payments", move |tx| {
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                let locked = tx.lock_payments(&ids)?;
                let (clock, mut rng) = (ambient.clock.now(), (ambient.rng)());
                let mut out = Outcomes::default();
                for mut payment in locked {
                    let now = clock.max(payment.updated_at);
                    let Decision { steps, .. } = machine::expire(&view(&payment), now);
                    if steps.is_empty() {
                        continue; // it was answered, or taken back, a moment ago
                    }
                    let before = payment.version;
                    let timeline = walk(&mut payment, &steps, Actor::System.id(), now);
                    out.timeline.extend(timeline);
                    out.changes.push(super::decide::change(&payment, before));
                    let id = new_id(IdKind::Event, now, &mut *rng);
                    out.events.push(event(id, &payment, now));
                    out.audit.push(done(now, &Actor::System, "payment.expire", &payment.id));
                }
                let expired = out.changes.iter().map(|change| change.id.clone()).collect();
                if out != Outcomes::default() {
                    tx.store_outcomes(&out)?;
                }
                Ok(expired)
            })
            .await
    }

    /// Decides over a payment under its lock and stores what comes of it, with its audit row.
    async fn change_payment(
        &self,
        actor: &Actor,
        id: &str,
        action: &'static str,
        decide: impl Fn(&PaymentView, UnixTime) -> Decision + Send + 'static,
    ) -> Result<Change, ServiceError> {
        let (clock, event_id) = (self.clock(), self.new_id(IdKind::Event));
        let (actor, id) = (actor.clone(), id.to_owned());
        let change = self
            .store
            .run_locked("change_payment", move |tx| {
                let record = locked(tx, &id)?;
                if !super::read::sees(&actor, &record) {
                    return Err(super::read::missing());
                }
                // Read under the lock: who waited for it may have come too late.
                let now = clock.now().max(record.payment.updated_at);
                let decision = decide(&view(&record.payment), now);
                let Decision { steps, refusal, .. } = decision;
                let (mut record, before) = (record.clone(), record.payment.version);
                if !steps.is_empty() {
                    let expired = steps.iter().any(|step| step.state == State::Expired);
                    let by = if expired { &Actor::System } else { &actor };
                    let action = if expired { "payment.expire" } else { action };
                    let timeline = walk(&mut record.payment, &steps, by.id(), now);
                    tx.store_outcomes(&Outcomes {
                        changes: vec![super::decide::change(&record.payment, before)],
                        timeline,
                        events: vec![event(event_id.clone(), &record.payment, now)],
                        audit: vec![done(now, by, action, &id)],
                        ..Outcomes::default()
                    })?;
                }
                Ok(Change { record, refusal, changed: !steps.is_empty() })
            })
            .await?;
        if change.changed {
            self.announce_payment(&change.record.payment.id);
        }
        Ok(change)
    }

    /// Wakes who waits for a payment, and the sender of webhooks.
    pub(super) fn announce_payment(&self, payment: &str) {
        let notices = [Notice::new(Topic::Payment, payment), Notice::events()];
        self.store.bus().publish(&notices);
    }
}

/// A payment, locked until the transaction ends.
pub(super) fn locked(tx: &mut Tx<'_>, id: &str) -> Result<PaymentRecord, ServiceError> {
    tx.lock_payment(id)?.ok_or_else(super::read::missing)
}
