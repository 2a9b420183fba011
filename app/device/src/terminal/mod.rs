//! A terminal at which a signing card pays (B1–B8): what a shop's till, a vending machine or a
//! bank's counter embeds. [`JointTerminal`] talks to the server, over its [`Api`] alone;
//! [`TerminalCard`] talks to a card, over whatever [`CardLink`](countersign_iso7816::CardLink) the
//! reader gives. Both block; neither keeps anything, and each call can be made from any thread.
//!
//! One payment:
//!
//! ```no_run
//! use countersign_device::{Api, JointError, JointTerminal, PaymentOrder, TerminalCard};
//! use countersign_iso7816::CardLink;
//! use countersign_payment::joint::{Form, JointPassword};
//!
//! /// `key` is the idempotency key of this payment: drawn once, kept until the payment has ended.
//! fn pay(
//!     api: &Api,
//!     key: &str,
//!     reader: impl CardLink,
//!     typed: impl FnOnce() -> String,
//! ) -> Result<String, JointError> {
//!     let terminal = JointTerminal::new(api);
//!     // The card is in the contact reader.
//!     let mut card = TerminalCard::new(reader)?;
//!     let order = PaymentOrder {
//!         from: card.account().to_owned(),
//!         to: "SHOP0001".to_owned(),
//!         payee: "Tea Shop".to_owned(),
//!         amount: "12.34".to_owned(),
//!         currency: "CNY".to_owned(),
//!         order: "Order 7: 2 teas".to_owned(),
//!         reference: "order-7".to_owned(),
//!         initiator: "Till 3".to_owned(),
//!         expires_in: None,
//!     };
//!     let payment = terminal.create(&order, key)?;
//!     let announced = terminal.announce(&payment.id)?;
//!     let signed = card.sign(&announced, &Form::ALL)?;
//!     // Now the payer takes the card out, reads it, gives the PIN to it, and types what it shows.
//!     let password = JointPassword::parse(&typed())?;
//!     let taken = terminal.submit(&signed, &password)?;
//!     Ok(taken.status)
//! }
//! ```
//!
//! What may go wrong, by [`JointError::check`], and what a terminal does then:
//!
//! - `card-removed`, `card-reset`, `card-order`, `card-link`: nothing was signed that counts. Have
//!   the card put in again, and begin with [`TerminalCard::new`], for the same payment.
//! - Of [`TerminalCard::new`]: `card-not-ours`, `card-other`, `device-not-enrolled`; of
//!   [`TerminalCard::sign`]: `card-signature`: no card to pay with.
//! - `joint-form`, `card-form`: this card makes nothing that this server takes.
//! - `pin-blocked`: its holder has to unblock it first. Take the payment back.
//! - `card-consent`, of [`CardSigned::fetch_password`]: the payer has not consented yet. Ask again,
//!   until [`Announced::expires_at`] at most.
//! - `card-not-ours`, `card-other-signature`, `card-nothing-released`, of
//!   [`CardSigned::fetch_password`]: another card than the one that signed, or one that has lost
//!   its joint password. Wait for the right one, as long.
//! - `declined`: there will be no joint password. Take the payment back, by
//!   [`JointTerminal::cancel`].
//! - `joint-password-form`, `answer-format`: mistyped, which costs no try. Let the payer type
//!   again.
//! - `authorisation-refused`: the server says no more than that. Let the payer type again; the
//!   third ends the payment.
//! - `payment-expired`, `payment-failed`, `payment-cancelled`, …: it has ended.
//! - `server`: where [`JointError::is_lost`], nobody knows what became of it. Submit the same
//!   again, or ask by [`JointTerminal::payment`]; before, neither hand out goods nor ask for
//!   another payment.
//!
//! What such a terminal cannot do: make the card sign other bytes than the payer is shown, have
//! the joint password before the payer has consented at the card, or guess it (three tries, for
//! one of 10^8).

mod card;
mod error;
mod scan;

use std::fmt;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_payment::joint::{Form, JointPassword};
use countersign_payment::{ConfirmationRequest, PaymentError, from_rfc3339};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use card::{CardSigned, TerminalCard};
pub use error::JointError;
pub use scan::{SCAN_BYTES_MAX, SCAN_PIXELS_MAX, ScanError, scan};

use crate::phone::segment;
use crate::{AnswerTaken, Api, ApiError};

const PAYMENTS: &str = "/v1/payments";
/// Most forms that a server may announce.
const FORMS_MAX: usize = 16;
/// How often an answer is sent whose reply got lost, or that the server had no place for.
const ATTEMPTS: u32 = 5;
/// The pause before it is sent again.
const PAUSE: Duration = Duration::from_millis(500);

/// What a terminal asks a payer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentOrder {
    /// The account that pays, an id or a number: mostly the [`TerminalCard::account`].
    pub from: String,
    /// The account that is paid, an id or a number.
    pub to: String,
    /// The payee's name, as the payer is to see it.
    pub payee: String,
    /// A decimal number, for instance `12.34`.
    pub amount: String,
    /// Three capital letters (ISO 4217).
    pub currency: String,
    /// What is paid for, as the payer is to see it.
    pub order: String,
    /// The terminal's own reference for it.
    pub reference: String,
    /// Who asks, as the payer is to see it.
    pub initiator: String,
    /// Until when it can be confirmed, in seconds from now; the server has its own default.
    pub expires_in: Option<u64>,
}

impl PaymentOrder {
    /// The body of the request for it, as the API takes it.
    #[must_use]
    pub fn body(&self) -> Value {
        let mut body = json!({
            "endToEndIdentification": self.reference,
            "instructedAmount": { "amount": self.amount, "currency": self.currency },
            "debtorAccount": { "identification": self.from },
            "creditorAccount": { "identification": self.to },
            "creditor": { "name": self.payee },
            "remittanceInformation": self.order,
            "initiatingParty": { "name": self.initiator },
        });
        if let Some(seconds) = self.expires_in {
            body["expiresIn"] = json!(seconds);
        }
        body
    }
}

/// A payment as the server has it.
#[derive(Debug, Clone, PartialEq)]
pub struct CreatedPayment {
    /// `pay_…`.
    pub id: String,
    /// Where it stands: `pending` as long as it waits for its payer, then `executed`, `rejected`,
    /// `expired`, `failed`, `cancelled` or `execution_failed`.
    pub status: String,
    /// Until when it can be confirmed (RFC 3339).
    pub expires_at: String,
    /// All that the server told, as the API writes it.
    pub whole: Value,
}

impl CreatedPayment {
    fn of(path: &str, whole: Value) -> Result<Self, JointError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Told {
            id: String,
            status: String,
            expires_at: String,
        }

        let not_ours = |error: serde_json::Error| ApiError::NotOurs {
            url: path.to_owned(),
            detail: error.to_string(),
        };
        let Told { id, status, expires_at } = Told::deserialize(&whole).map_err(not_ours)?;
        Ok(Self { id, status, expires_at, whole })
    }
}

/// What a card is to sign, as the server holds it, and the forms of commitments that it takes.
#[derive(Clone, PartialEq, Eq)]
pub struct Announced {
    payment: String,
    transaction: Vec<u8>,
    forms: Vec<Form>,
    expires_at: UnixTime,
}

impl Announced {
    /// `pay_…`.
    #[must_use]
    pub fn payment(&self) -> &str {
        &self.payment
    }

    /// The transaction message: the bytes of the payment's confirmation request.
    #[must_use]
    pub fn transaction(&self) -> &[u8] {
        &self.transaction
    }

    /// The forms that the server takes, its favourite first. One that this program does not know is
    /// not among them.
    #[must_use]
    pub fn forms(&self) -> &[Form] {
        &self.forms
    }

    /// Until when it can be confirmed.
    #[must_use]
    pub const fn expires_at(&self) -> UnixTime {
        self.expires_at
    }
}

impl fmt::Debug for Announced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Announced").field("payment", &self.payment).finish_non_exhaustive()
    }
}

/// The terminal's side of the server: makes payments, and submits what card and payer gave.
///
/// The [`Api`]'s token needs the scope `payments:create`; a payment is answered with the token of
/// the operator that made it.
#[derive(Clone, Copy)]
pub struct JointTerminal<'a> {
    api: &'a Api,
}

impl<'a> JointTerminal<'a> {
    /// Over this client.
    #[must_use]
    pub const fn new(api: &'a Api) -> Self {
        Self { api }
    }

    /// Asks for a payment. The same key and order again are answered by the same payment: so after
    /// a lost answer, call it again.
    ///
    /// # Errors
    /// [`JointError::Api`].
    pub fn create(&self, order: &PaymentOrder, key: &str) -> Result<CreatedPayment, JointError> {
        CreatedPayment::of(PAYMENTS, self.api.post_once(PAYMENTS, key, &order.body())?)
    }

    /// Asks where a payment stands.
    ///
    /// # Errors
    /// [`JointError::Api`].
    pub fn payment(&self, payment: &str) -> Result<CreatedPayment, JointError> {
        let path = path(payment);
        CreatedPayment::of(&path, self.api.get(&path)?)
    }

    /// Fetches what a card is to sign for a payment (B1), and the forms that the server takes.
    ///
    /// # Errors
    /// [`JointError::Api`]: of a payment that does not wait any more, say;
    /// [`JointError::Request`], [`JointError::OtherPayment`] for bytes that are not this payment's.
    pub fn announce(&self, payment: &str) -> Result<Announced, JointError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Told {
            transaction: String,
            forms: Vec<String>,
            expires_at: String,
        }

        let told: Told = self.api.get(&format!("{}/joint", path(payment)))?;
        let transaction = BASE64URL_NOPAD.decode(told.transaction.as_bytes());
        let transaction = transaction.map_err(|_| PaymentError::RequestForm)?;
        if ConfirmationRequest::parse(&transaction)?.payment != payment {
            return Err(JointError::OtherPayment);
        }
        let known = told.forms.iter().take(FORMS_MAX).filter_map(|name| Form::from_name(name));
        let forms = known.collect();
        let expires_at = from_rfc3339(&told.expires_at)?;
        let payment = payment.to_owned();
        Ok(Announced { payment, transaction, forms, expires_at })
    }

    /// Submits what the card signed with the joint password that the payer gave (B8), and tells how
    /// the payment ended. While the server cannot be reached it is sent again, a few times: the
    /// same answer again is answered as the first time and executes nothing twice.
    ///
    /// # Errors
    /// [`JointError::Api`]. Where [`JointError::may_type_again`], the payer may have mistyped.
    pub fn submit(
        &self,
        signed: &CardSigned,
        password: &JointPassword,
    ) -> Result<AnswerTaken, JointError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            transaction: String,
            device_serial: &'a str,
            commitment: String,
            signature: String,
            joint_password: &'a str,
        }

        let body = Body {
            transaction: BASE64URL_NOPAD.encode(signed.transaction()),
            device_serial: signed.serial(),
            commitment: BASE64URL_NOPAD.encode(signed.commitment().as_bytes()),
            signature: BASE64URL_NOPAD.encode(signed.signature()),
            joint_password: password.digits(),
        };
        let path = format!("{}/joint", path(signed.payment()));
        let mut attempt = 1;
        loop {
            match self.api.post(&path, &body) {
                Err(error) if error.is_lost() && attempt < ATTEMPTS => std::thread::sleep(PAUSE),
                other => return Ok(other?),
            }
            attempt += 1;
        }
    }

    /// Takes a payment back: the payer said no at the card, or did not answer.
    ///
    /// # Errors
    /// [`JointError::Api`]: of a payment that has ended, say.
    pub fn cancel(&self, payment: &str) -> Result<Value, JointError> {
        Ok(self.api.post(&format!("{}/cancel", path(payment)), &json!({}))?)
    }
}

fn path(payment: &str) -> String {
    format!("{PAYMENTS}/{}", segment(payment))
}

#[cfg(test)]
mod tests;
