//! `/v1/payments/{id}/authorisations`: what payers' devices answered (D5, D7).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign_service::{Answered, PaymentAnswer as Given, RejectReason};
use countersign_store::{AnswerOutcome, Authorisation as Stored, SignMethod};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::Api;
use super::super::auth::{Granted, PaymentsRead};
use super::super::granted::PhoneBody;
use super::super::json::{List, timestamp};
use super::super::problem::Problem;
use super::super::query::Id;

/// A phone's answer for its payer.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
#[schema(as = AuthorisationRequest)]
pub(in super::super) enum Answer {
    /// Confirmed by a signature of a device that has a certificate.
    #[serde(rename_all = "camelCase")]
    Pki {
        /// The device's serial number.
        device_serial: String,
        /// Over the confirmation request; base64url without padding.
        signature: String,
        /// The number that the checkout page shows. A browser's phone must send it.
        #[serde(default)]
        #[schema(example = "42")]
        match_code: Option<String>,
    },
    /// Confirmed by the digits that an OCRA device showed.
    #[serde(rename_all = "camelCase")]
    Ocra {
        /// The device's serial number.
        device_serial: String,
        /// The digits.
        #[schema(example = "12345678")]
        digits: String,
        /// The number that the checkout page shows. A browser's phone must send it.
        #[serde(default)]
        #[schema(example = "42")]
        match_code: Option<String>,
    },
    /// Rejected.
    Reject {
        /// `not-mine`, `wrong-details` or `changed-mind`.
        reason: String,
    },
}

impl Answer {
    /// The answer, and the number to match.
    fn given(self) -> Result<(Given, Option<String>), Problem> {
        Ok(match self {
            Self::Pki { device_serial, signature, match_code } => {
                let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| {
                    let detail = "signature is base64url without padding";
                    Problem::value("signature-encoding", detail)
                })?;
                (Given::Pki { device_serial, signature }, match_code)
            }
            Self::Ocra { device_serial, digits, match_code } => {
                (Given::Ocra { device_serial, digits }, match_code)
            }
            Self::Reject { reason } => {
                let detail = "reason is not-mine, wrong-details or changed-mind";
                let unknown = || Problem::value("reject-reason", detail);
                let reason = RejectReason::from_name(&reason).ok_or_else(unknown)?;
                (Given::Reject { reason }, None)
            }
        })
    }
}

/// What became of an answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuthorisationResult)]
pub(in super::super) struct Outcome {
    /// `aut_…`.
    authorisation_id: String,
    /// `finalised` for a confirmation, `failed` for a rejection.
    #[schema(example = "finalised")]
    sca_status: &'static str,
    /// The payment.
    payment_id: String,
    /// Its state.
    #[schema(example = "executed")]
    status: &'static str,
    /// The same in pain.002's codes.
    #[schema(example = "ACSC")]
    transaction_status: &'static str,
    /// Why it was not executed; null if it was.
    #[schema(required, example = "insufficient-funds")]
    status_reason: Option<String>,
}

impl From<Answered> for Outcome {
    fn from(Answered { record, authorisation, .. }: Answered) -> Self {
        let payment = record.payment;
        Self {
            authorisation_id: authorisation.id,
            sca_status: sca_status(authorisation.outcome),
            payment_id: payment.id,
            status: payment.state.name(),
            transaction_status: payment.state.iso20022(),
            status_reason: payment.reason,
        }
    }
}

/// The names of the Berlin Group's framework for what an answer is.
const fn sca_status(outcome: AnswerOutcome) -> &'static str {
    match outcome {
        AnswerOutcome::Accepted => "finalised",
        AnswerOutcome::Refused | AnswerOutcome::Rejected => "failed",
    }
}

/// Takes a phone's answer: verifies it, executes the payment, tells how it ended. The same answer
/// again is answered the same.
#[utoipa::path(post, path = "/payments/{id}/authorisations", tag = "payments",
    operation_id = "answer_payment", request_body = Answer,
    params(("id" = String, Path, description = "`pay_…`")),
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses(
        (status = 201, description = "The answer is accepted, or the payment rejected",
            body = Outcome),
        (status = 409, description = "`payment-settled`, `payment-expired`, `payment-cancelled`, \
             `payment-rejected`, `payment-failed`: the payment has ended",
            body = super::super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`authorisation-refused`: signature, digits, device, \
             certificate or number to match; which of them is in the audit under the incident \
             in the detail",
            body = super::super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn answer(
    State(api): State<Api>,
    id: Result<Id, Problem>,
    PhoneBody { phone, value: answer }: PhoneBody<Answer>,
) -> Result<Response, Problem> {
    let (id, (answer, match_code)) = (id?.of("payment")?, answer.given()?);
    let answered = api.service.answer_payment(&phone, &id, answer, match_code).await?;
    Ok((StatusCode::CREATED, Json(Outcome::from(answered))).into_response())
}

/// A stored answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct Authorisation {
    /// `aut_…`.
    authorisation_id: String,
    /// `finalised` or `failed`.
    sca_status: &'static str,
    /// `pki`, `ocra` or `joint`; null for a rejection.
    #[schema(required, example = "pki")]
    method: Option<&'static str>,
    /// `accepted`, `refused` or `rejected`.
    outcome: &'static str,
    /// The security device, `sdv_…`; null if none is known, and, but for operators who see all
    /// payments, of a refused answer.
    #[schema(required)]
    device_id: Option<String>,
    /// The phone, `phn_…`; null for digits of a checkout page and for a signing card at a terminal.
    #[schema(required)]
    phone_id: Option<String>,
    /// The number of the certificate under which it was accepted.
    #[schema(required)]
    certificate_number: Option<String>,
    /// Under which incident the audit has why it was refused.
    #[schema(required)]
    incident: Option<String>,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<Stored> for Authorisation {
    fn from(stored: Stored) -> Self {
        Self {
            authorisation_id: stored.id,
            sca_status: sca_status(stored.outcome),
            method: stored.method.map(SignMethod::name),
            outcome: stored.outcome.name(),
            device_id: stored.device_id,
            phone_id: stored.phone_id,
            certificate_number: stored.certificate_number,
            incident: stored.incident,
            at: timestamp(stored.at),
        }
    }
}

/// The answers to a payment, the first first. Never which check refused one.
#[utoipa::path(get, path = "/payments/{id}/authorisations", tag = "payments",
    operation_id = "payment_authorisations",
    params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:read"])),
    responses((status = 200, description = "All of them", body = List<Authorisation>)))]
pub(in super::super) async fn authorisations(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<List<Authorisation>>, Problem> {
    let stored = api.service.payment_authorisations(&granted.actor, &id.of("payment")?).await?;
    Ok(Json(List::whole(stored)))
}
