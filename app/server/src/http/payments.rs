//! `/v1/payments`: initiating terminals ask, wait and are told (D1, D6, D7).

mod answers;
mod events;
mod joint;
mod returns;
mod shape;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use countersign_service::{Once, ServiceError, Settled};
use countersign_store::{PaymentFilter, PaymentRecord};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, PaymentsCreate, PaymentsRead};
use super::body::NoBody;
use super::idempotency::{Idempotent, Key};
use super::json::List;
use super::problem::Problem;
use super::query::{Id, Params, PaymentsQuery, WaitQuery};

pub(super) use answers::*;
pub(super) use events::*;
pub(super) use joint::*;
pub(super) use returns::*;
pub(super) use shape::{Ask, Identified, Named, Payment, Posting, TimelineEntry};

/// Requests at once that wait for a change: each looks into the store now and then.
pub(super) const WAITS_MAX: usize = 1024;
/// Those of one token.
pub(super) const WAITS_PER_OWNER_MAX: usize = 256;

/// Says that the request was answered before, and that this is the answer of then.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Asks for a payment: its payer is to confirm it on a security device.
///
/// The same Idempotency-Key and body again is answered with the same bytes.
#[utoipa::path(post, path = "/payments", tag = "payments", operation_id = "create_payment",
    request_body = Ask, security(("token" = ["payments:create"])),
    params(("Idempotency-Key" = String, Header,
        description = "The terminal's own name for this request: 1 to 255 visible ASCII \
                       characters, kept for 24 hours")),
    responses(
        (status = 201, description = "It waits for its payer", body = Payment,
            headers(("Location" = String, description = "The payment"),
                ("Idempotency-Replayed" = String,
                    description = "`true`: this is the answer of an earlier request"))),
        (status = 409, description = "`idempotency-in-flight`: the same request is being worked on",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`idempotency-mismatch`: the key was used for another \
            request; or a value is refused",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn create(
    granted: Granted<PaymentsCreate>,
    State(api): State<Api>,
    Idempotent { key, value }: Idempotent<Ask>,
) -> Result<Response, Problem> {
    let once = once(key, |record: &PaymentRecord| Payment::from(record));
    let created = api.service.create_payment(&granted.actor, &value.into(), once).await?;
    settled(&created, Some("/v1/payments/"))
}

/// A request that happens once, and is answered with what `shape` makes of it.
pub(super) fn once<T, S: Serialize>(
    Key { key, hash: request_hash }: Key,
    shape: impl Fn(&T) -> S + Send + Sync + 'static,
) -> Once<T> {
    let render = move |done: &T| {
        let body = serde_json::to_vec(&shape(done)).unwrap_or_default();
        (StatusCode::CREATED.as_u16(), body)
    };
    Once { key, request_hash, render: Arc::new(render) }
}

/// The stored answer as it is, whether it was made now or before. What has a route of its own is
/// at `collection` and its id.
pub(super) fn settled<T>(
    settled: &Settled<T>,
    collection: Option<&str>,
) -> Result<Response, Problem> {
    let (status, body) = settled.answer();
    let status = StatusCode::from_u16(status)
        .map_err(|_| Problem::internal("a stored answer has no HTTP status"))?;
    let made: Value = serde_json::from_slice(body)
        .map_err(|error| Problem::internal(format!("a stored answer is not JSON: {error}")))?;
    let mut response = (status, body.to_vec()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let location = collection.zip(made["id"].as_str()).map(|(at, id)| format!("{at}{id}"));
    if let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) {
        headers.insert(LOCATION, location);
    }
    if matches!(settled, Settled::Replay { .. }) {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Payments, the newest first. Who may create payments but not manage them sees those that it
/// asked for.
#[utoipa::path(get, path = "/payments", tag = "payments", operation_id = "payments",
    params(PaymentsQuery), security(("token" = ["payments:read"])),
    responses((status = 200, description = "A part of the list", body = List<Payment>)))]
pub(super) async fn list(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    Params(query): Params<PaymentsQuery>,
) -> Result<Json<List<Payment>>, Problem> {
    let asked = query.checked()?;
    let payer = match asked.payer {
        None => None,
        Some(number) => match api.service.account_by_number(&granted.actor, &number).await {
            Ok(account) => Some(account.id),
            Err(ServiceError::NotFound { .. }) => {
                return Ok(Json(List::whole(Vec::<PaymentRecord>::new())));
            }
            Err(error) => return Err(error.into()),
        },
    };
    let filter = PaymentFilter { state: asked.state, payer, created_by: None };
    let page = api.service.payments(&granted.actor, filter, asked.cursor, asked.limit).await?;
    Ok(Json(List::of(page)))
}

/// One payment; on request as soon as it has changed.
///
/// The answer comes at the end of the time at the latest, changed or not.
#[utoipa::path(get, path = "/payments/{id}", tag = "payments", operation_id = "payment",
    params(("id" = String, Path, description = "`pay_…`"), WaitQuery),
    security(("token" = ["payments:read"])),
    responses(
        (status = 200, description = "The payment", body = Payment),
        (status = 429, description = "`waits-full`: too many requests of one token wait",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn one(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
    Params(query): Params<WaitQuery>,
) -> Result<Json<Payment>, Problem> {
    let (id, waiting) = (id.of("payment")?, query.checked()?);
    let Some((wait, seen)) = waiting else {
        return Ok(Json(api.service.payment(&granted.actor, &id).await?.into()));
    };
    let _place = api.waits.take(granted.actor.id()).ok_or_else(waits_full)?;
    let seen = match seen {
        Some(version) => version,
        None => api.service.payment(&granted.actor, &id).await?.payment.version,
    };
    let record = api.service.wait_payment(&granted.actor, &id, seen, wait).await?;
    if !granted.still(&api.service).await {
        return Err(ServiceError::Unauthenticated.into());
    }
    Ok(Json(record.into()))
}

fn waits_full() -> Problem {
    let detail = format!("one token waits for at most {WAITS_PER_OWNER_MAX} changes at once");
    let status = StatusCode::TOO_MANY_REQUESTS;
    Problem::new(status, "waits-full", "Too many requests wait", detail)
}

/// Takes a payment back that is not confirmed yet. Again is answered the same.
#[utoipa::path(post, path = "/payments/{id}/cancel", tag = "payments",
    operation_id = "cancel_payment", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:create"])),
    responses(
        (status = 200, description = "The payment", body = Payment),
        (status = 409, description = "`payment-settled`, `payment-expired`, `payment-rejected`, \
             `payment-failed`: it has ended otherwise",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn cancel(
    granted: Granted<PaymentsCreate>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Payment>, Problem> {
    let record = api.service.cancel_payment(&granted.actor, &id.of("payment")?).await?;
    Ok(Json(record.into()))
}

/// The states that a payment went through, the first first.
#[utoipa::path(get, path = "/payments/{id}/timeline", tag = "payments",
    operation_id = "payment_timeline", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:read"])),
    responses((status = 200, description = "All of them", body = List<TimelineEntry>)))]
pub(super) async fn timeline(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<List<TimelineEntry>>, Problem> {
    let rows = api.service.payment_timeline(&granted.actor, &id.of("payment")?).await?;
    Ok(Json(List::whole(rows)))
}

/// A receipt.
#[derive(Serialize, ToSchema)]
pub(super) struct Receipt {
    /// A JWS (RFC 7515) in compact form, signed by this server, its certificates in `x5c`.
    receipt: String,
}

/// The signed receipt of an executed payment.
#[utoipa::path(get, path = "/payments/{id}/receipt", tag = "payments",
    operation_id = "payment_receipt", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:read"])),
    responses(
        (status = 200, description = "The receipt", body = Receipt),
        (status = 409, description = "`receipt-not-ready`: the payment is not executed",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn receipt(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Receipt>, Problem> {
    let receipt = api.service.payment_receipt(&granted.actor, &id.of("payment")?).await?;
    Ok(Json(Receipt { receipt }))
}

/// What proves how a payment came about: signed bytes, signature, certificate, timeline,
/// postings, receipt; `countersign evidence verify` checks it offline.
#[utoipa::path(get, path = "/payments/{id}/evidence", tag = "payments",
    operation_id = "payment_evidence", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:read"])),
    responses(
        (status = 200, description = "The bundle, signed by this server", body = Object),
        (status = 409, description = "`evidence-not-ready`: the payment has not ended",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn evidence(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Response, Problem> {
    let bundle = api.service.payment_evidence(&granted.actor, &id.of("payment")?).await?;
    Ok(([(CONTENT_TYPE, "application/json")], bundle).into_response())
}
