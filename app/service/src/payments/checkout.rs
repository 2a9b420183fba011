//! What the page of a checkout does for the payer beside the initiating terminal (D6, D7): it shows
//! the number to match, how the payment stands, and a text for a device without a phone, whose
//! digits it takes.
//!
//! A page holds a key that is good for one payment. Key and number are computed from the payment's
//! id under the storage key: nothing is stored, every server knows them, and nobody who reads the
//! database does.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::{ConfirmationRequest, PaymentError, State, offline};
use countersign_store::{PaymentRecord, PhonePayment, Topic};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::answer::{Answered, Bearer, PaymentAnswer};
use super::read::missing;
use crate::refusals::{Party, Refusal};
use crate::{Actor, Authority, Scope, Service, ServiceError};

/// What a checkout's key is computed over, before the payment's id.
const KEY_LABEL: &[u8] = b"countersign checkout key v1\0";
/// What the number to match is computed over, before the payment's id.
const MATCH_LABEL: &[u8] = b"countersign number match v1\0";
/// Bytes of a checkout's key: the whole CMAC.
const KEY_LEN: usize = 16;
/// Fewest of the numbers to match; all have two digits.
const MATCH_LEAST: u64 = 10;
/// How many numbers to match there are.
const MATCH_COUNT: u64 = 90;

/// Who answers for a checkout, in the audit: nobody is known there but the payment's key.
pub(super) const CHECKOUT_ACTOR: &str = "checkout";

/// What an initiating terminal needs to show a payment's checkout.
#[derive(Debug)]
pub struct Checkout {
    /// Opens the page: base64url, 22 characters. It belongs into the fragment of a URL.
    pub key: Zeroizing<String>,
    /// Two digits that the payer types into a browser phone.
    pub match_code: String,
    /// The request for a device without a phone, signed by this server; for a QR code. `None` if
    /// no QR code holds it: a request of very long texts.
    pub offline: Option<String>,
}

/// A payment as the page of its checkout shows it, and nothing else of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckoutView {
    /// `pay_…`.
    pub payment: String,
    /// One more with every change.
    pub version: i64,
    /// Where it stands.
    pub state: State,
    /// Why it ended as it did: a stable name; `None` while it waits and where all went well.
    pub reason: Option<String>,
    /// What the payer is asked to confirm, as a security device shows it.
    pub request: ConfirmationRequest,
    /// The number to match, while it waits.
    pub match_code: Option<String>,
    /// The text for a device without a phone, while it waits and if a QR code holds it. Each has a
    /// signature of its own, so it is another one each time.
    pub offline: Option<String>,
    /// When it last changed.
    pub updated_at: UnixTime,
}

impl Service {
    /// CMAC of the storage key over a label and a payment's id. Both labels end in a zero, and no
    /// input is as short as those from which the storage key derives keys.
    async fn of_payment(&self, label: &'static [u8], id: &str) -> Result<Vec<u8>, ServiceError> {
        let storage = self.storage_key().await?;
        let input = [label, id.as_bytes()].concat();
        self.blocking(move || {
            let failed = |_| ServiceError::Internal { detail: "the storage key fails".into() };
            Ok(storage.cmac(&input).map_err(failed)?.expose().to_vec())
        })
        .await
    }

    /// The number that the initiating terminal shows and the payer types into a browser phone: two
    /// digits, the same for a payment for ever.
    ///
    /// # Errors
    /// Those of the storage key.
    pub async fn match_code(&self, payment_id: &str) -> Result<String, ServiceError> {
        let mac = self.of_payment(MATCH_LABEL, payment_id).await?;
        let first = mac.first_chunk().ok_or_else(short)?;
        Ok((MATCH_LEAST + u64::from_be_bytes(*first) % MATCH_COUNT).to_string())
    }

    async fn checkout_key(&self, id: &str) -> Result<Zeroizing<String>, ServiceError> {
        let mac = Zeroizing::new(self.of_payment(KEY_LABEL, id).await?);
        let key = mac.get(..KEY_LEN).ok_or_else(short)?;
        Ok(Zeroizing::new(BASE64URL_NOPAD.encode(key)))
    }

    /// What the initiator of a payment needs for its checkout page.
    ///
    /// # Errors
    /// [`ServiceError::Forbidden`]; [`ServiceError::NotFound`], also for another's payment; those
    /// of the storage key.
    pub async fn checkout(&self, actor: &Actor, id: &str) -> Result<Checkout, ServiceError> {
        actor.require(Scope::PaymentsCreate)?;
        let record = self.find_payment(id).await?;
        if record.payment.created_by != actor.id() {
            return Err(missing());
        }
        Ok(Checkout {
            key: self.checkout_key(id).await?,
            match_code: self.match_code(id).await?,
            offline: self.offline_text(&record)?,
        })
    }

    /// Whether this is the key of the payment's checkout.
    async fn check_checkout(&self, id: &str, key: &str) -> Result<(), ServiceError> {
        let wanted = self.checkout_key(id).await?;
        let wanted = countersign_crypto::Secret::copied_from(wanted.as_bytes());
        if wanted.ct_eq(key.as_bytes()) { Ok(()) } else { Err(ServiceError::Unauthenticated) }
    }

    /// A payment as its checkout page shows it. One whose time is over is ended first.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] for a key that is not this payment's, whether there is
    /// such a payment or not.
    pub async fn checkout_view(&self, id: &str, key: &str) -> Result<CheckoutView, ServiceError> {
        self.check_checkout(id, key).await?;
        let record = self.find_as_of_now(id).await?;
        self.view_of(&record).await
    }

    /// Waits until a payment is in another version than `seen`, or will not change any more, or
    /// `timeout` (at most [`crate::WAIT_MAX`]) is over; then the payment as it is.
    ///
    /// # Errors
    /// As [`Self::checkout_view`].
    pub async fn wait_checkout(
        &self,
        id: &str,
        key: &str,
        seen: i64,
        timeout: Duration,
    ) -> Result<CheckoutView, ServiceError> {
        self.check_checkout(id, key).await?;
        let listener = self.store.bus().listen(Topic::Payment, id);
        let record = self.wait_for(listener, seen, timeout, || self.find_as_of_now(id)).await?;
        self.view_of(&record).await
    }

    /// Decides over the digits that a payer's device showed for the text of the checkout, typed in
    /// there: as [`Service::answer_payment`] does, but no phone is named. Wrong ones count as any
    /// wrong answer, for the payment and for the device.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] as [`Self::checkout_view`]; else those of
    /// [`Service::answer_payment`].
    pub async fn answer_offline(
        &self,
        id: &str,
        key: &str,
        serial: &str,
        digits: &str,
    ) -> Result<Answered, ServiceError> {
        self.check_checkout(id, key).await?;
        let (device_serial, digits) = (serial.to_owned(), digits.to_owned());
        let answer = PaymentAnswer::Ocra { device_serial, digits };
        let answered = self.answer(Bearer::Checkout, id, answer, None).await;
        if let Err(error) = &answered
            && error.is_refusal()
        {
            let (action, subject, check) = ("payment.answer", id, error.check());
            let (party, actor, reason) = (Party::Phone, CHECKOUT_ACTOR, error.to_string());
            // A bound for each payment: one page's noise is not another's.
            let reader = Some(id);
            self.audit_refusal(Refusal { party, actor, action, subject, check, reason, reader })
                .await;
        }
        answered
    }

    async fn view_of(&self, record: &PaymentRecord) -> Result<CheckoutView, ServiceError> {
        let payment = &record.payment;
        let request = ConfirmationRequest::parse(&payment.request).map_err(|error| {
            let detail = format!("the request of {} is damaged: {error}", payment.id);
            ServiceError::Internal { detail }
        })?;
        let waits = payment.state.is_open();
        Ok(CheckoutView {
            payment: payment.id.clone(),
            version: payment.version,
            state: payment.state,
            reason: payment.reason.clone(),
            request,
            match_code: if waits { Some(self.match_code(&payment.id).await?) } else { None },
            offline: if waits { self.offline_text(record)? } else { None },
            updated_at: payment.updated_at,
        })
    }

    /// The text for a device without a phone, for a phone of the payer that shows it to the device;
    /// while the payment waits, and where a QR code holds it. Who has the payment may have it.
    ///
    /// # Errors
    /// [`ServiceError::Internal`] if it cannot be signed.
    pub fn phone_offline(&self, payment: &PhonePayment) -> Result<Option<String>, ServiceError> {
        if !payment.state.is_open() {
            return Ok(None);
        }
        self.offline_of(&payment.id, &payment.request)
    }

    fn offline_text(&self, record: &PaymentRecord) -> Result<Option<String>, ServiceError> {
        self.offline_of(&record.payment.id, &record.payment.request)
    }

    /// The payment's very bytes with this server's signature, as text for a QR code.
    fn offline_of(&self, id: &str, request: &[u8]) -> Result<Option<String>, ServiceError> {
        let Authority { server, server_key, .. } = &self.authority;
        let number = countersign_pki::number(server)?;
        match offline::sign(&**server_key, &mut *self.rng(), &number, request) {
            Ok(text) => Ok(Some(text)),
            Err(PaymentError::OfflineTooLong) => Ok(None),
            Err(error) => {
                let detail = format!("the text of {id} was not made: {error}");
                Err(ServiceError::Internal { detail })
            }
        }
    }
}

fn short() -> ServiceError {
    ServiceError::Internal { detail: "the storage key's CMAC is short".to_owned() }
}
