//! `/v1/payments/{id}/joint`: payments that are confirmed by a signing card and its joint password,
//! as the terminal at which the card was brings them (B1, B7, B8).

use std::fmt;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_crypto::Secret;
use countersign_payment::joint::Form;
use countersign_service::{JointAnswer, JointTerms};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::super::Api;
use super::super::auth::{Granted, PaymentsCreate};
use super::super::body::SecretBody;
use super::super::json::timestamp;
use super::super::problem::{Document, Problem};
use super::super::query::Id;
use super::answers::Outcome;

/// What a terminal gives a signing card.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = JointTerms)]
pub(in super::super) struct Terms {
    /// The transaction message: the confirmation request, base64url without padding.
    transaction: String,
    /// The forms of signatures that this server takes, the best first: `sealed-random`, `sealed`,
    /// `digest`.
    #[schema(example = json!(["sealed-random", "sealed", "digest"]))]
    forms: Vec<&'static str>,
    /// Until when the payment can be confirmed.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<JointTerms> for Terms {
    fn from(terms: JointTerms) -> Self {
        Self {
            transaction: URL_SAFE_NO_PAD.encode(&terms.transaction),
            forms: terms.forms.iter().map(|form| Form::name(*form)).collect(),
            expires_at: timestamp(terms.expires_at),
        }
    }
}

/// What a signing card is to sign for a payment, and in which form: for the terminal that asked
/// for the payment.
#[utoipa::path(get, path = "/payments/{id}/joint", tag = "payments",
    operation_id = "payment_joint_terms", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:create"])),
    responses(
        (status = 200, description = "The transaction message and the forms", body = Terms),
        (status = 409, description = "`payment-settled`, `payment-expired`, `payment-cancelled`, \
             `payment-rejected`, `payment-failed`: the payment has ended",
            body = Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn joint_terms(
    granted: Granted<PaymentsCreate>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Terms>, Problem> {
    Ok(Json(api.service.joint_terms(&granted.actor, &id.of("payment")?).await?.into()))
}

/// What a terminal brings of a signing card.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = JointAnswer)]
pub(in super::super) struct Brought {
    /// The transaction message that the card signed; base64url without padding.
    transaction: String,
    /// The card's serial number.
    device_serial: String,
    /// What the card committed itself to: its form and the sealed joint password, or the digest of
    /// it; base64url without padding.
    commitment: String,
    /// The card's signature over both; base64url without padding.
    signature: String,
    /// The joint password that the card showed after its owner's consent: nine digits, spaces or
    /// hyphens between them do not matter.
    #[schema(value_type = String, example = "1234 5678 8")]
    joint_password: Typed,
}

/// A text that is wiped when it is dropped.
struct Typed(Secret);

impl<'de> Deserialize<'de> for Typed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Typed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Typed, E> {
                Ok(Typed(Secret::copied_from(text.as_bytes())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl Brought {
    /// The answer; whether its fields have their lengths and forms, the service looks.
    fn given(self) -> Result<JointAnswer, Problem> {
        Ok(JointAnswer {
            transaction: decoded("transaction", &self.transaction)?,
            device_serial: self.device_serial,
            commitment: decoded("commitment", &self.commitment)?,
            signature: decoded("signature", &self.signature)?,
            password: self.joint_password.0,
        })
    }
}

fn decoded(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    let detail = || format!("{field} is base64url without padding");
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Problem::value("answer-format", detail()))
}

/// Takes what a signing card made for a payment, and its joint password: verifies both, executes
/// the payment, tells how it ended. The same again is answered the same.
#[utoipa::path(post, path = "/payments/{id}/joint", tag = "payments",
    operation_id = "answer_payment_jointly", request_body = Brought,
    params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:create"])),
    responses(
        (status = 201, description = "Signature and joint password are accepted", body = Outcome),
        (status = 409, description = "`payment-settled`, `payment-expired`, `payment-cancelled`, \
             `payment-rejected`, `payment-failed`: the payment has ended",
            body = Document, content_type = "application/problem+json"),
        (status = 422, description = "`answer-format`: a field is of another form; it counts for \
             nothing. `authorisation-refused`: transaction, form, signature, joint password, \
             device or certificate; which of them is in the audit under the incident in the \
             detail, and the third ends the payment",
            body = Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn answer_joint(
    granted: Granted<PaymentsCreate>,
    State(api): State<Api>,
    id: Id,
    SecretBody(brought): SecretBody<Brought>,
) -> Result<Response, Problem> {
    let (id, answer) = (id.of("payment")?, brought.given()?);
    let answered = api.service.answer_joint(&granted.actor, &id, answer).await?;
    Ok((StatusCode::CREATED, Json(Outcome::from(answered))).into_response())
}
