//! The evidence of a payment, for a dispute: what was confirmed, by whom, when, and what came of
//! it, under the server's signature; checked offline against the root alone.
//!
//! A bundle is JSON: `type`, `version`, the [`Evidence`], and `seal`, a JWS with detached payload
//! (RFC 7515 appendix F) over the canonical JSON (RFC 8785) of the others, so that a bundle may be
//! laid out for reading and still verifies. What each part rests on:
//!
//! - that the payer's device confirmed exactly this payment: on the device's own signature and
//!   certificate; with OCRA, whose key is no one else's business, on the server's word;
//! - with a joint password, that the payer's card was asked for exactly this payment: on the card's
//!   signature and certificate; that its holder consented, on the server's word, who alone saw that
//!   the password was right;
//! - when that was, that the certificate was not revoked then, the timeline and the postings: on
//!   the server's word, which it cannot take back once the bundle is sealed.

use countersign_crypto::{CryptoRng, UnixTime};
use serde::{Deserialize, Serialize};

use crate::jws::{self, StatementKey};
use crate::wire::{self, Text};
use crate::{AccountNumber, Amount, ConfirmationRequest, PaymentError, State};

mod verify;

pub use verify::verify;

/// Longest bundle, in bytes.
pub const BUNDLE_MAX: usize = 1 << 20;
/// Most answers, events and postings of a bundle, each.
pub const ROWS_MAX: usize = 1024;

/// The `typ` of the seal's header.
const TYP: &str = "countersign-evidence";
const TYPE: &str = "countersign.payment.evidence";
const VERSION: u32 = 1;

/// The kind of the posting that executes a payment, and of those that give back (part of) it.
pub const KIND_PAYMENT: &str = "payment";
/// See [`KIND_PAYMENT`].
pub const KIND_REFUND: &str = "refund";
/// See [`KIND_PAYMENT`].
pub const KIND_REVERSAL: &str = "reversal";

/// What came of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It confirmed the payment.
    Accepted,
    /// It was wrong.
    Refused,
    /// The payer said no.
    Rejected,
}

impl Outcome {
    /// The name in bundles.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
        }
    }
}

/// How an answer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A signature under a certificate.
    Pki,
    /// Digits under a shared key (RFC 6287).
    Ocra,
    /// A signature under a certificate and a joint password.
    Joint,
    /// None of them: a rejection.
    None,
}

impl Method {
    /// The name in bundles.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pki => "pki",
            Self::Ocra => "ocra",
            Self::Joint => "joint",
            Self::None => "none",
        }
    }
}

/// An answer as it was stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Answer {
    /// Its id.
    pub id: String,
    /// What came of it.
    #[serde(with = "wire::text")]
    pub outcome: Outcome,
    /// How it was made.
    #[serde(with = "wire::text")]
    pub method: Method,
    /// The security device's serial number.
    #[serde(deserialize_with = "Option::deserialize")]
    pub device: Option<String>,
    /// The phone that brought it.
    #[serde(deserialize_with = "Option::deserialize")]
    pub phone: Option<String>,
    /// The signature (DER), or the digits as ASCII.
    #[serde(with = "wire::maybe")]
    pub signature: Option<Vec<u8>>,
    /// What the signature commits to beside the request, with a joint password
    /// ([`Commitment`](crate::joint::Commitment)). Left out where there is none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "wire::maybe::serialize",
        deserialize_with = "wire::present"
    )]
    pub commitment: Option<Vec<u8>>,
    /// The device's certificate (DER).
    #[serde(with = "wire::maybe")]
    pub certificate: Option<Vec<u8>>,
    /// The certificate (DER) that issued it, which the root issued.
    #[serde(with = "wire::maybe")]
    pub issuer: Option<Vec<u8>>,
    /// The failed check of a refused answer.
    #[serde(deserialize_with = "Option::deserialize")]
    pub failed_check: Option<String>,
    /// When it was decided.
    #[serde(with = "wire::text")]
    pub at: UnixTime,
}

/// What the server says about the certificate of the accepted answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Revocation {
    /// The certificate's number, in lower-case hexadecimal.
    pub certificate_number: String,
    /// Since when it is revoked, if it is.
    #[serde(with = "wire::maybe")]
    pub revoked_at: Option<UnixTime>,
    /// Why.
    #[serde(deserialize_with = "Option::deserialize")]
    pub reason: Option<String>,
    /// When this was so.
    #[serde(with = "wire::text")]
    pub stated_at: UnixTime,
}

/// A change of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Event {
    /// Rising from event to event; gaps are changes of other things.
    pub number: u32,
    /// The new state.
    #[serde(with = "wire::text")]
    pub state: State,
    /// Who caused it.
    pub actor: String,
    /// Why, where it ended otherwise than executed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub reason: Option<String>,
    /// When.
    #[serde(with = "wire::text")]
    pub at: UnixTime,
}

/// A posting of the payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Posting {
    /// Its id.
    pub id: String,
    /// [`KIND_PAYMENT`], [`KIND_REFUND`] or [`KIND_REVERSAL`].
    pub kind: String,
    /// The account that lost.
    #[serde(with = "wire::text")]
    pub debit_account: AccountNumber,
    /// The account that got.
    #[serde(with = "wire::text")]
    pub credit_account: AccountNumber,
    /// How much.
    #[serde(with = "wire::money")]
    pub amount: Amount,
    /// When.
    #[serde(with = "wire::text")]
    pub at: UnixTime,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Evidence {
    /// The payment's id.
    pub payment: String,
    /// The initiating party's own name of it.
    #[serde(rename = "endToEndIdentification")]
    pub end_to_end_id: String,
    /// Its state.
    #[serde(with = "wire::text")]
    pub state: State,
    /// The very bytes that were to be signed.
    #[serde(with = "as_text")]
    pub request: Vec<u8>,
    /// Every answer.
    pub answers: Vec<Answer>,
    /// About the certificate of the accepted answer; none for OCRA, or if none was accepted.
    #[serde(deserialize_with = "Option::deserialize")]
    pub revocation: Option<Revocation>,
    /// Every change of state, in order.
    pub timeline: Vec<Event>,
    /// Every posting, in order.
    pub postings: Vec<Posting>,
    /// The receipt, if it was executed.
    #[serde(deserialize_with = "Option::deserialize")]
    pub receipt: Option<String>,
    /// When the bundle was made.
    #[serde(with = "wire::text")]
    pub made_at: UnixTime,
}

/// One check of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its stable name.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// What was found, for people.
    pub detail: String,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every check that could be made, in order.
    pub checks: Vec<Check>,
    /// What was confirmed, as far as it could be read.
    pub request: Option<ConfirmationRequest>,
    /// The state that the bundle says.
    pub state: Option<State>,
    /// The id of the server that signed the bundle.
    pub server_id: Option<String>,
    /// Whether the answer cannot be checked, or not all of it, without a key of the server (OCRA, a
    /// joint password), so that the evidence rests on the server's word.
    pub rests_on_server: bool,
}

impl Report {
    /// Whether every check passed.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }

    /// The names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.checks.iter().filter(|check| !check.ok).map(|check| check.name)
    }
}

/// The bundle as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    #[serde(rename = "type")]
    kind: String,
    version: u32,
    evidence: Evidence,
    /// `header..signature`; absent in what it is made over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seal: Option<String>,
}

/// Makes a bundle: JSON, sealed by the server.
///
/// # Errors
/// [`PaymentError::Signing`] if the key does not sign, [`PaymentError::StatementCertificate`] if
/// the certificate is not of this key, [`PaymentError::StatementForm`] if the request is not UTF-8
/// or the bundle would exceed [`BUNDLE_MAX`] or [`ROWS_MAX`].
pub fn make(
    evidence: &Evidence,
    key: &StatementKey<'_>,
    rng: &mut dyn CryptoRng,
) -> Result<Vec<u8>, PaymentError> {
    let evidence = evidence.clone();
    let mut bundle = Bundle { kind: TYPE.to_string(), version: VERSION, evidence, seal: None };
    if !bundle.evidence.is_bounded() {
        return Err(PaymentError::StatementForm);
    }
    let payload = wire::canonical(&bundle)?;
    let (protected, signature) = jws::sign(key, TYP, payload.as_bytes(), rng)?;
    bundle.seal = Some([protected.as_str(), "", signature.as_str()].join("."));
    let bytes = wire::canonical(&bundle)?.into_bytes();
    if bytes.len() <= BUNDLE_MAX { Ok(bytes) } else { Err(PaymentError::StatementForm) }
}

impl Evidence {
    fn is_bounded(&self) -> bool {
        let rows = [self.answers.len(), self.timeline.len(), self.postings.len()];
        rows.into_iter().all(|rows| rows <= ROWS_MAX)
    }
}

/// For `#[serde(with)]`: bytes that are UTF-8, as the text that they are.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let text = core::str::from_utf8(bytes).map_err(serde::ser::Error::custom)?;
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        String::deserialize(from).map(String::into_bytes)
    }
}

impl Text for Outcome {
    fn to_text(&self) -> String {
        self.name().to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Accepted, Self::Refused, Self::Rejected].into_iter().find(|one| one.name() == text)
    }
}

impl Text for Method {
    fn to_text(&self) -> String {
        self.name().to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        [Self::Pki, Self::Ocra, Self::Joint, Self::None].into_iter().find(|one| one.name() == text)
    }
}
