//! Pushes to phones (D2): stored with the payment, announced after the commit, taken by the phone
//! whenever it comes. What is announced is an opaque id; a lost announcement loses nothing.

use countersign_crypto::UnixTime;
use countersign_store::{
    IdKind, Listener, Notice, PHONES_PER_ACCOUNT_MAX, PhonePayment, Push, StoreError, Topic, Tx,
    new_id,
};

use super::PhoneActor;
use crate::{Service, ServiceError};

/// Pushes, or payments, that a phone is told of in one turn.
pub const PUSHES_TAKEN_MAX: u32 = 100;

/// Ids for the pushes of one payment, drawn before its transaction, which may run several times.
#[derive(Debug, Clone)]
pub struct PushIds(Vec<String>);

impl PushIds {
    /// One push of a payment for each phone of the payer's account, in the transaction that makes
    /// the payment and after its row.
    ///
    /// # Errors
    /// The store's.
    pub fn push_payment(
        &self,
        tx: &mut Tx<'_>,
        payment_id: &str,
        payer_account: &str,
        now: UnixTime,
        expires_at: UnixTime,
    ) -> Result<Vec<Push>, StoreError> {
        let phones = tx.phones_of_account(payer_account)?;
        let push = |(phone_id, id): (String, &String)| Push {
            id: id.clone(),
            phone_id,
            payment_id: payment_id.to_owned(),
            created_at: now,
            expires_at,
            delivered_at: None,
        };
        let pushes: Vec<Push> = phones.into_iter().zip(&self.0).map(push).collect();
        tx.insert_pushes(&pushes)?;
        Ok(pushes)
    }
}

impl Service {
    /// Ids for the pushes of one payment.
    #[must_use]
    pub fn push_ids(&self) -> PushIds {
        let (now, mut rng) = (self.now(), self.rng());
        let ids = (0..PHONES_PER_ACCOUNT_MAX).map(|_| new_id(IdKind::Push, now, &mut *rng));
        PushIds(ids.collect())
    }

    /// Tells waiting phones that there is something for them, after the commit.
    pub fn announce_pushes(&self, pushes: &[Push]) {
        for push in pushes {
            self.wake_phone(&push.phone_id);
        }
    }

    /// Has a phone that waits look again: for a push, or because its token is void.
    pub(super) fn wake_phone(&self, phone_id: &str) {
        self.store.bus().publish(&[Notice::new(Topic::Phone, phone_id)]);
    }

    /// Hears when there is something for a phone, or its token is void. To be asked for before
    /// [`Self::take_pushes`], so that nothing falls in between.
    #[must_use]
    pub fn listen_for_phone(&self, phone: &PhoneActor) -> Listener {
        self.store.bus().listen(Topic::Phone, phone.id())
    }

    /// What waits for a phone, oldest first, the newest [`PUSHES_TAKEN_MAX`]: pushes of payments
    /// that wait for an answer, whether it was sent them before or not. [`Self::delivered`] notes
    /// that it was.
    ///
    /// # Errors
    /// The store's.
    pub async fn take_pushes(&self, phone: &PhoneActor) -> Result<Vec<Push>, ServiceError> {
        let (id, now) = (phone.id().to_owned(), self.now());
        self.store
            .read("waiting_pushes", move |tx| Ok(tx.waiting_pushes(&id, now, PUSHES_TAKEN_MAX)?))
            .await
    }

    /// Notes that a phone was sent these pushes.
    ///
    /// # Errors
    /// The store's.
    pub async fn delivered(
        &self,
        phone: &PhoneActor,
        ids: Vec<String>,
    ) -> Result<(), ServiceError> {
        if ids.is_empty() {
            return Ok(());
        }
        let (phone, now) = (phone.id().to_owned(), self.now());
        self.store
            .run_snapshot("mark_delivered", move |tx| Ok(tx.mark_delivered(&phone, &ids, now)?))
            .await
    }

    /// The payments that wait for this phone's answer, oldest first, the newest
    /// [`PUSHES_TAKEN_MAX`].
    ///
    /// # Errors
    /// The store's.
    pub async fn phone_payments(
        &self,
        phone: &PhoneActor,
    ) -> Result<Vec<PhonePayment>, ServiceError> {
        let (id, now) = (phone.id().to_owned(), self.now());
        self.store
            .read("phone_payments", move |tx| Ok(tx.phone_payments(&id, now, PUSHES_TAKEN_MAX)?))
            .await
    }

    /// A payment of one of the phone's accounts, or the one behind a push: by `pay_…` or `psh_…`.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`], also for a payment of another account.
    pub async fn phone_payment(
        &self,
        phone: &PhoneActor,
        id: &str,
    ) -> Result<PhonePayment, ServiceError> {
        let (phone, id, now) = (phone.id().to_owned(), id.to_owned(), self.now());
        let found: Option<PhonePayment> = self
            .store
            .read("phone_payment", move |tx| tx.phone_payment(&phone, &id, now))
            .await
            .map_err(|error: StoreError| ServiceError::from(error))?;
        found.ok_or(ServiceError::NotFound { what: "payment" })
    }
}
