use std::collections::BTreeMap;
use std::time::Duration;

use countersign_payment::State;
use countersign_store::{
    Account, AnswerOutcome, Authorisation, Listener, Page, Payment, PaymentFilter, PaymentRecord,
    Posting, Role, TimelineRow, Topic,
};
use tokio::time::{Instant, timeout_at};

use crate::{Actor, PhoneActor, Scope, Service, ServiceError};

/// Longest wait for a change of a payment.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a waiter looks although nothing woke it: a notice may be lost with a connection.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Whether an actor sees all payments. Who only asks for payments sees those that it asked for.
pub(super) fn sees_all(actor: &Actor) -> bool {
    match actor {
        Actor::Operator(operator) => operator.roles.iter().any(|role| role != Role::Integrator),
        Actor::Console | Actor::System => true,
        Actor::Device(_) => false,
    }
}

/// Whether an actor sees this payment.
pub(super) fn sees(actor: &Actor, record: &PaymentRecord) -> bool {
    sees_all(actor) || record.payment.created_by == actor.id()
}

/// Answers as they are told outside: not which check refused one (D7), and so not whether there is
/// the device that a refused one named.
pub(super) fn outside(answers: Vec<Authorisation>) -> Vec<Authorisation> {
    let tell = |answer: Authorisation| match answer.outcome {
        AnswerOutcome::Refused => Authorisation { failed_check: None, device_id: None, ..answer },
        AnswerOutcome::Accepted | AnswerOutcome::Rejected => answer,
    };
    answers.into_iter().map(tell).collect()
}

/// A payment with its accounts beside it.
fn beside(
    payment: Payment,
    accounts: &BTreeMap<String, Account>,
) -> Result<PaymentRecord, ServiceError> {
    let account = |id: &str| {
        let missing = || ServiceError::Internal { detail: format!("{id} is missing") };
        accounts.get(id).cloned().ok_or_else(missing)
    };
    let (payer, payee) = (account(&payment.payer_account)?, account(&payment.payee_account)?);
    Ok(PaymentRecord { payment, payer, payee })
}

pub(super) const fn missing() -> ServiceError {
    ServiceError::NotFound { what: "payment" }
}

impl Service {
    /// One payment. One whose time is over is ended first, so that nobody sees it wait.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`], also for another's payment.
    pub async fn payment(&self, actor: &Actor, id: &str) -> Result<PaymentRecord, ServiceError> {
        actor.require(Scope::PaymentsRead)?;
        let record = self.find_payment(id).await?;
        if !sees(actor, &record) {
            return Err(missing());
        }
        self.as_of_now(record).await
    }

    pub(super) async fn find_payment(&self, id: &str) -> Result<PaymentRecord, ServiceError> {
        let id = id.to_owned();
        let found = self.store.read("payment", move |tx| tx.payment(&id)).await?;
        found.ok_or_else(missing)
    }

    /// A payment for whoever may see it; one whose time is over is ended first.
    pub(super) async fn find_as_of_now(&self, id: &str) -> Result<PaymentRecord, ServiceError> {
        let record = self.find_payment(id).await?;
        self.as_of_now(record).await
    }

    async fn as_of_now(&self, record: PaymentRecord) -> Result<PaymentRecord, ServiceError> {
        let payment = &record.payment;
        if payment.state.is_open() && payment.expires_at <= self.now() {
            return self.expire_payment(&payment.id).await;
        }
        Ok(record)
    }

    /// Payments, newest first; for one who only asks for payments, those that it asked for.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; `page-limit`, `page-cursor`.
    pub async fn payments(
        &self,
        actor: &Actor,
        filter: PaymentFilter,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<PaymentRecord>, ServiceError> {
        actor.require(Scope::PaymentsRead)?;
        let created_by =
            if sees_all(actor) { filter.created_by } else { Some(actor.id().to_owned()) };
        let filter = PaymentFilter { created_by, ..filter };
        self.store
            .read("payments_page", move |tx| {
                let page = tx.payments_page(&filter, cursor.as_deref(), limit)?;
                let both = |payment: &Payment| {
                    [payment.payer_account.clone(), payment.payee_account.clone()]
                };
                let ids: Vec<String> = page.items.iter().flat_map(both).collect();
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                let accounts = tx.accounts_by_id(&ids)?;
                let items = page.items.into_iter().map(|payment| beside(payment, &accounts));
                let items = items.collect::<Result<_, _>>()?;
                Ok(Page { items, next: page.next })
            })
            .await
    }

    /// A payment's changes of state, oldest first.
    ///
    /// # Errors
    /// As [`Self::payment`].
    pub async fn payment_timeline(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Vec<TimelineRow>, ServiceError> {
        let id = self.payment(actor, id).await?.payment.id;
        Ok(self.store.read("timeline", move |tx| tx.timeline(&id)).await?)
    }

    /// The answers to a payment, oldest first. Which check refused one is told to those who see
    /// all payments.
    ///
    /// # Errors
    /// As [`Self::payment`].
    pub async fn payment_authorisations(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Vec<Authorisation>, ServiceError> {
        let id = self.payment(actor, id).await?.payment.id;
        let found = self.store.read("authorisations", move |tx| tx.authorisations(&id)).await?;
        Ok(if sees_all(actor) { found } else { outside(found) })
    }

    /// The answers to a payment of one of the phone's accounts, oldest first.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for a payment of another account.
    pub async fn phone_authorisations(
        &self,
        phone: &PhoneActor,
        id: &str,
    ) -> Result<Vec<Authorisation>, ServiceError> {
        let record = self.find_payment(id).await?;
        if !phone.serves(&record.payment.payer_account) {
            return Err(missing());
        }
        let id = record.payment.id;
        let found = self.store.read("authorisations", move |tx| tx.authorisations(&id)).await?;
        Ok(outside(found))
    }

    /// A payment's postings, oldest first.
    ///
    /// # Errors
    /// As [`Self::payment`].
    pub async fn payment_postings(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Vec<Posting>, ServiceError> {
        let id = self.payment(actor, id).await?.payment.id;
        Ok(self.store.read("postings_of_payment", move |tx| tx.postings_of_payment(&id)).await?)
    }

    /// Waits until a payment is in another version than `seen`, or will not change any more, or
    /// `timeout` (at most [`WAIT_MAX`]) is over; then the payment as it is.
    ///
    /// # Errors
    /// As [`Self::payment`].
    pub async fn wait_payment(
        &self,
        actor: &Actor,
        id: &str,
        seen: i64,
        timeout: Duration,
    ) -> Result<PaymentRecord, ServiceError> {
        let listener = self.store.bus().listen(Topic::Payment, id);
        self.wait_for(listener, seen, timeout, || self.payment(actor, id)).await
    }

    /// Looks at a payment until it is in another version than `seen`, or for as long as is said.
    pub(super) async fn wait_for<F, L>(
        &self,
        mut listener: Listener,
        seen: i64,
        timeout: Duration,
        look: L,
    ) -> Result<PaymentRecord, ServiceError>
    where
        F: Future<Output = Result<PaymentRecord, ServiceError>>,
        L: Fn() -> F,
    {
        let until = Instant::now() + timeout.min(WAIT_MAX);
        loop {
            let record = look().await?;
            let payment = &record.payment;
            let is_last: fn(State) -> bool = State::is_terminal;
            if payment.version != seen || is_last(payment.state) || Instant::now() >= until {
                return Ok(record);
            }
            let left = payment.expires_at.since(self.now());
            let again = Instant::now() + LOOK_EVERY.min(left.max(Duration::from_millis(1)));
            // Woken, or time to look again: both lead to the store, which is the truth.
            let _woken = timeout_at(again.min(until), listener.changed()).await;
        }
    }
}
