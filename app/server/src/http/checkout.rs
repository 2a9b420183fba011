//! `/v1/payments/{id}/checkout`, what an initiating terminal shows its payer, and
//! `/v1/checkout/{id}`, what the payer's checkout page asks (D2, D6): it shows the payment, the
//! number to match, how it ended, and takes the digits of a device without a network.
//!
//! The page has the payment's key from the fragment of its URL, which no browser sends, and shows
//! it in `Authorization: Checkout`. It stands in no path, no query and no log.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use countersign_service::{CheckoutView, ServiceError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, PaymentsCreate};
use super::body::Body;
use super::granted::{CheckoutGranted, unopened};
use super::json::timestamp;
use super::money::Money;
use super::payments::{Identified, Named, Outcome};
use super::problem::Problem;
use super::query::{Id, WAIT_MAX};
use super::sse::LastEventId;

/// The type of the events.
const KIND: &str = "payment";
/// How long one look waits for a change.
const LOOK: Duration = Duration::from_secs(WAIT_MAX);
/// The pause after a look that the database could not serve.
const PAUSE: Duration = Duration::from_secs(1);
/// No version: none is below zero.
const NONE: i64 = -1;

/// What an initiating terminal shows to the payer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Checkout {
    /// The page of the payment. Whoever has it sees the payment and may type in digits: it is for
    /// the payer, and no terminal keeps it.
    #[schema(example = "https://pay.example/checkout/pay_…#…")]
    url: String,
    /// The number that the payer types into a browser's phone.
    #[schema(example = "42")]
    match_code: String,
    /// The confirmation request, signed by this server, as text for a QR code: a security device
    /// without a network scans it and answers with digits. Null if no QR code can hold it.
    #[schema(required, example = "CS1:…")]
    offline: Option<String>,
}

/// What the payer of a payment is to be shown: for the terminal that asked for it.
#[utoipa::path(get, path = "/payments/{id}/checkout", tag = "payments",
    operation_id = "payment_checkout", params(("id" = String, Path, description = "`pay_…`")),
    security(("token" = ["payments:create"])),
    responses(
        (status = 200, description = "Page, number and text", body = Checkout),
        (status = 400, description = "`host`: the request does not say which host it asks",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn checkout(
    granted: Granted<PaymentsCreate>,
    State(api): State<Api>,
    uri: Uri,
    headers: HeaderMap,
    id: Id,
) -> Result<Json<Checkout>, Problem> {
    let id = id.of("payment")?;
    let made = api.service.checkout(&granted.actor, &id).await?;
    let detail = "the request does not say at which host it asks, so there is no URL";
    let base = api.site.base(&uri, &headers).ok_or_else(|| Problem::query("host", detail))?;
    let url = format!("{base}/checkout/{id}#{}", *made.key);
    Ok(Json(Checkout { url, match_code: made.match_code, offline: made.offline }))
}

/// A payment as its checkout page sees it. The payer's account is not in it: bystanders look too.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CheckoutPayment)]
pub(super) struct Payment {
    /// `pay_…`.
    id: String,
    /// `created`, `pending`, `approved`, `executing`, `executed`, `rejected`, `expired`, `failed`,
    /// `cancelled` or `execution_failed`.
    #[schema(example = "pending")]
    status: &'static str,
    /// The same in pain.002's codes.
    #[schema(example = "PDNG")]
    transaction_status: &'static str,
    /// Why it ended as it did; null if there is nothing to say.
    #[schema(required, example = "insufficient-funds")]
    status_reason: Option<String>,
    /// How much.
    instructed_amount: Money,
    /// The account that is paid.
    creditor_account: Identified,
    /// The payee.
    creditor: Named,
    /// The order: what is paid for.
    remittance_information: String,
    /// The number that is to be typed into a browser's phone; null once the payment has ended.
    #[schema(required, example = "42")]
    match_code: Option<String>,
    /// What a device without a network scans; null once the payment has ended, and in events: it
    /// is signed anew for each who asks for the payment.
    #[schema(required, example = "CS1:…")]
    offline: Option<String>,
    /// One more, or a few, with every change.
    version: i64,
    /// Until when it can be confirmed.
    #[schema(format = DateTime)]
    expires_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<CheckoutView> for Payment {
    fn from(view: CheckoutView) -> Self {
        let request = view.request;
        Self {
            id: view.payment,
            status: view.state.name(),
            transaction_status: view.state.iso20022(),
            status_reason: view.reason,
            instructed_amount: Money::of(request.amount.minor(), request.amount.currency().code()),
            creditor_account: Identified::of(&request.payee_account),
            creditor: Named::of(&request.payee_name),
            remittance_information: request.order,
            match_code: view.match_code,
            offline: view.offline,
            version: view.version,
            expires_at: timestamp(request.expires),
            updated_at: timestamp(view.updated_at),
        }
    }
}

/// The payment, for its checkout page.
#[utoipa::path(get, path = "/checkout/{id}", tag = "checkout", operation_id = "checkout",
    params(("id" = String, Path, description = "`pay_…`")),
    security(("checkout" = [])),
    responses((status = 200, description = "The payment", body = Payment)))]
pub(super) async fn one(
    granted: CheckoutGranted,
    State(api): State<Api>,
) -> Result<Json<Payment>, Problem> {
    Ok(Json(granted.view(&api.service).await?.into()))
}

/// The payment now and after each change, as server-sent events of the type `payment`: the id is
/// the payment's version, the data the payment without `offline`. The stream ends when nothing
/// follows its state.
#[utoipa::path(get, path = "/checkout/{id}/events", tag = "checkout",
    operation_id = "checkout_events",
    params(("id" = String, Path, description = "`pay_…`"),
        ("Last-Event-ID" = Option<String>, Header,
            description = "The version that the page has: it is not sent again")),
    security(("checkout" = [])),
    responses(
        (status = 200, description = "The stream", body = String,
            content_type = "text/event-stream"),
        (status = 429, description = "`streams-full`: too many streams of one payment",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn events(
    CheckoutGranted { id, key }: CheckoutGranted,
    State(api): State<Api>,
    last: LastEventId,
) -> Result<Response, Problem> {
    let mut seen = last.0.and_then(|version| version.parse::<i64>().ok());
    let service = api.service;
    let owner = id.clone();
    let now = service.wait_checkout(&id, &key, NONE, Duration::ZERO).await;
    let mut view = now.map_err(unopened)?;
    api.checkout_streams.answer(&owner, async move |events| {
        loop {
            let (version, ended) = (view.version, view.state.is_terminal());
            if seen != Some(version) {
                let payment = serde_json::to_string(&Payment::from(view)).unwrap_or_default();
                if !events.send(KIND, &version.to_string(), &payment).await {
                    return;
                }
                seen = Some(version);
            }
            if ended {
                return;
            }
            view = loop {
                match service.wait_checkout(&id, &key, version, LOOK).await {
                    Ok(now) => break now,
                    Err(ServiceError::Unavailable { .. }) => tokio::time::sleep(PAUSE).await,
                    Err(_) => return, // the page comes back and is told by status
                }
            };
        }
    })
}

/// The digits that a device without a network showed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = CheckoutAnswer)]
pub(super) struct Digits {
    /// The device's serial number.
    device_serial: String,
    /// What it showed.
    #[schema(example = "12345678")]
    digits: String,
}

/// Takes the digits that the payer typed into the checkout page: verifies them, executes the
/// payment, tells how it ended. The same digits again are answered the same.
#[utoipa::path(post, path = "/checkout/{id}/answers", tag = "checkout",
    operation_id = "answer_checkout", request_body = Digits,
    params(("id" = String, Path, description = "`pay_…`")),
    security(("checkout" = [])),
    responses(
        (status = 201, description = "The digits are accepted", body = Outcome),
        (status = 409, description = "`payment-settled`, `payment-expired`, `payment-cancelled`, \
             `payment-rejected`, `payment-failed`: the payment has ended",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`authorisation-refused`: digits or device; which of them is \
             in the audit under the incident in the detail",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn answer(
    granted: CheckoutGranted,
    State(api): State<Api>,
    Body(Digits { device_serial, digits }): Body<Digits>,
) -> Result<Response, Problem> {
    let CheckoutGranted { id, key } = granted;
    let answered = api.service.answer_offline(&id, &key, &device_serial, &digits).await?;
    Ok((StatusCode::CREATED, Json(Outcome::from(answered))).into_response())
}
