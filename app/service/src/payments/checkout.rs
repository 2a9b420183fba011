//! What the page of a checkout does for the payer beside the initiating terminal (D6, D7): it shows
//! the number to match, how the payment stands, and a text for a device without a phone, whose
//! digits it takes.
//!
//! A page holds a key that is good for one payment, until a day after its end. Key and number are
//! computed from the payment's id under keys that come from the storage key: nothing is stored,
//! every server knows them, and nobody who reads the database does.

use std::time::Duration;

use countersign_crypto::{Digest, Secret, UnixTime};
use countersign_payment::{ConfirmationRequest, PaymentError, State, offline};
use countersign_store::{Payment, PaymentRecord, PhonePayment, Topic};
use data_encoding::BASE64URL_NOPAD;
use tr31::CmacKey;
use zeroize::Zeroizing;

use super::answer::{Answered, Bearer, PaymentAnswer};
use super::read::missing;
use crate::refusals::{Party, Refusal};
use crate::{Actor, Authority, Scope, Service, ServiceError};

/// Of this the storage key makes the key under which checkouts' keys are computed.
const KEY_LABEL: &[u8] = b"countersign checkout key v1\0";
/// Of this it makes the one for the numbers to match. A label of its own: who is shown a number
/// learns nothing of a key.
const MATCH_LABEL: &[u8] = b"countersign number match v1\0";
/// Of this it makes the one under which what a signing card's terminal brings is hashed
/// ([`Service::answer_joint`]).
const JOINT_LABEL: &[u8] = b"countersign joint answer v1\0";
/// Bytes of a checkout's key: as many of the MAC.
const KEY_LEN: usize = 16;
/// The same as text, in characters.
const KEY_TEXT_LEN: usize = 22;
/// How long a checkout's key opens its page after the payment has ended: for a payer who comes back
/// to it, and not for who finds an old address in a browser's history.
const KEY_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Fewest of the numbers to match; all have two digits.
const MATCH_LEAST: u64 = 10;
/// How many numbers to match there are.
const MATCH_COUNT: u64 = 90;

/// Who answers for a checkout, in the audit: nobody is known there but the payment's key.
pub(super) const CHECKOUT_ACTOR: &str = "checkout";

/// What keys, numbers and the hashes of cards' answers are computed under. The storage key, which
/// may lie in an HSM, makes them once for each server: anybody may show something as a checkout's
/// key, and that must set no HSM to work.
pub(super) struct CheckoutKeys {
    pages: Secret,
    numbers: Secret,
    pub(super) joint_answers: Secret,
}

impl CheckoutKeys {
    /// CMACs of the storage key over the labels. All end in a zero, and no label is as short as
    /// those from which the storage key derives keys of blocks.
    fn derive(storage: &dyn CmacKey) -> Result<Self, ServiceError> {
        let failed = |_| ServiceError::Internal { detail: "the storage key fails".into() };
        let under = |label| storage.cmac(label).map_err(failed);
        Ok(Self {
            pages: under(KEY_LABEL)?,
            numbers: under(MATCH_LABEL)?,
            joint_answers: under(JOINT_LABEL)?,
        })
    }
}

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
    /// signature of its own, so it is another one each time. `None` where a change was waited for:
    /// nothing is signed for each change.
    pub offline: Option<String>,
    /// When it last changed.
    pub updated_at: UnixTime,
}

impl Service {
    pub(super) async fn checkout_keys(&self) -> Result<&CheckoutKeys, ServiceError> {
        let derive = || async {
            let storage = self.storage_key().await?;
            self.blocking(move || CheckoutKeys::derive(&*storage)).await
        };
        self.payments.checkouts.get_or_try_init(derive).await
    }

    fn of_payment(&self, key: &Secret, id: &str) -> Zeroizing<Digest> {
        Zeroizing::new(self.authority.provider.mac.mac(key.expose(), &[id.as_bytes()]))
    }

    /// The number that the initiating terminal shows and the payer types into a browser phone: two
    /// digits, the same for a payment for ever.
    ///
    /// # Errors
    /// Those of the storage key.
    pub async fn match_code(&self, payment_id: &str) -> Result<String, ServiceError> {
        let mac = self.of_payment(&self.checkout_keys().await?.numbers, payment_id);
        let [a, b, c, d, e, f, g, h, ..] = *mac;
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Ok((MATCH_LEAST + number % MATCH_COUNT).to_string())
    }

    async fn checkout_key(&self, id: &str) -> Result<Secret, ServiceError> {
        let mac = self.of_payment(&self.checkout_keys().await?.pages, id);
        Ok(Secret::copied_from(&mac[..KEY_LEN]))
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
            key: Zeroizing::new(BASE64URL_NOPAD.encode(self.checkout_key(id).await?.expose())),
            match_code: self.match_code(id).await?,
            offline: self.offline_of(id, &record.payment.request)?,
        })
    }

    /// Whether this is the key of the payment's checkout, in constant time. What does not look like
    /// a key is refused before anything is computed.
    async fn check_checkout(&self, id: &str, key: &str) -> Result<(), ServiceError> {
        let shown = key_of(key).ok_or(ServiceError::Unauthenticated)?;
        let wanted = self.checkout_key(id).await?;
        if wanted.ct_eq(&*shown) { Ok(()) } else { Err(ServiceError::Unauthenticated) }
    }

    /// The payment that a key opens; one whose time is over is ended first. The store is not asked
    /// before the key is known to be right.
    async fn open_checkout(&self, id: &str, key: &str) -> Result<PaymentRecord, ServiceError> {
        self.check_checkout(id, key).await?;
        match self.find_as_of_now(id).await {
            Ok(record) if is_kept(&record.payment, self.now()) => Ok(record),
            Ok(_) | Err(ServiceError::NotFound { .. }) => Err(ServiceError::Unauthenticated),
            Err(error) => Err(error),
        }
    }

    /// Whether a key opens a payment's checkout.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] for a key that is not this payment's, whether there is
    /// such a payment or not, and for its own from 24 hours after its end.
    pub async fn authorise_checkout(&self, id: &str, key: &str) -> Result<(), ServiceError> {
        self.open_checkout(id, key).await.map(drop)
    }

    /// A payment as its checkout page shows it. One whose time is over is ended first.
    ///
    /// # Errors
    /// As [`Self::authorise_checkout`].
    pub async fn checkout_view(&self, id: &str, key: &str) -> Result<CheckoutView, ServiceError> {
        let record = self.open_checkout(id, key).await?;
        let offline = self.offline_text(&record)?;
        Ok(CheckoutView { offline, ..self.view_of(&record).await? })
    }

    /// Waits until a payment is in another version than `seen`, or will not change any more, or
    /// `timeout` (at most [`crate::WAIT_MAX`]) is over; then the payment as it is, without the text
    /// for a device without a phone.
    ///
    /// # Errors
    /// As [`Self::authorise_checkout`].
    pub async fn wait_checkout(
        &self,
        id: &str,
        key: &str,
        seen: i64,
        timeout: Duration,
    ) -> Result<CheckoutView, ServiceError> {
        self.check_checkout(id, key).await?;
        let listener = self.store.bus().listen(Topic::Payment, id);
        let look = || self.open_checkout(id, key);
        let record = self.wait_for(listener, seen, timeout, look).await?;
        self.view_of(&record).await
    }

    /// Decides over the digits that a payer's device showed for the text of the checkout, typed in
    /// there: as [`Service::answer_payment`] does, but no phone is named. Wrong ones count as any
    /// wrong answer, for the payment and for the device.
    ///
    /// # Errors
    /// [`ServiceError::Unauthenticated`] as [`Self::authorise_checkout`]; else those of
    /// [`Service::answer_payment`].
    pub async fn answer_offline(
        &self,
        id: &str,
        key: &str,
        serial: &str,
        digits: &str,
    ) -> Result<Answered, ServiceError> {
        self.authorise_checkout(id, key).await?;
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

    /// Without the text for a device without a phone.
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
            offline: None,
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

    /// The same for its checkout page.
    fn offline_text(&self, record: &PaymentRecord) -> Result<Option<String>, ServiceError> {
        let payment = &record.payment;
        if !payment.state.is_open() {
            return Ok(None);
        }
        self.offline_of(&payment.id, &payment.request)
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

/// The bytes of what was shown as a key, if it has a key's form.
fn key_of(text: &str) -> Option<Zeroizing<[u8; KEY_LEN]>> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    if text.len() != KEY_TEXT_LEN {
        return None;
    }
    BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut *key).ok()?;
    Some(key)
}

/// Whether the key of a payment's checkout is good yet. A refund changes a payment long after its
/// end; but none ends later than its time for an answer, so that a refund revives no key.
fn is_kept(payment: &Payment, now: UnixTime) -> bool {
    let ended = payment.updated_at.min(payment.expires_at);
    !payment.state.is_terminal() || now < ended.plus(KEY_KEPT)
}
