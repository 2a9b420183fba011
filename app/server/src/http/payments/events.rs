//! `/v1/payments/{id}/events`: a payment's changes as they happen.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use countersign_service::ServiceError;

use super::super::Api;
use super::super::auth::{Granted, PaymentsRead};
use super::super::problem::Problem;
use super::super::query::{Id, WAIT_MAX};
use super::super::sse::LastEventId;
use super::Payment;

/// The type of the events.
const KIND: &str = "payment";
/// How long one look waits for a change.
const LOOK: Duration = Duration::from_secs(WAIT_MAX);
/// The pause after a look that the database could not serve.
const PAUSE: Duration = Duration::from_secs(1);

/// A payment now and after each change, as server-sent events of the type `payment`: the id is the
/// payment's version, the data the payment. The stream ends when nothing follows its
/// state, and soon after its token was revoked.
#[utoipa::path(get, path = "/payments/{id}/events", tag = "payments",
    operation_id = "payment_events",
    params(("id" = String, Path, description = "`pay_…`"),
        ("Last-Event-ID" = Option<String>, Header,
            description = "The version that the client has: it is not sent again")),
    security(("token" = ["payments:read"])),
    responses(
        (status = 200, description = "The stream", body = String,
            content_type = "text/event-stream"),
        (status = 429, description = "`streams-full`: too many streams of one token",
            body = super::super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn events(
    granted: Granted<PaymentsRead>,
    State(api): State<Api>,
    id: Id,
    last: LastEventId,
) -> Result<Response, Problem> {
    let id = id.of("payment")?;
    let mut seen = last.0.and_then(|version| version.parse::<i64>().ok());
    // Who may not see it learns so by status, not by an empty stream.
    let mut record = api.service.payment(&granted.actor, &id).await?;
    let service = api.service;
    let owner = granted.actor.id().to_owned();
    api.streams.answer(&owner, async move |events| {
        loop {
            let (version, ended) = (record.payment.version, record.payment.state.is_terminal());
            if seen != Some(version) {
                let payment = serde_json::to_string(&Payment::from(&record)).unwrap_or_default();
                if !events.send(KIND, &version.to_string(), &payment).await {
                    return;
                }
                seen = Some(version);
            }
            if ended {
                return;
            }
            match service.wait_payment(&granted.actor, &id, version, LOOK).await {
                Ok(now) => record = now,
                Err(ServiceError::Unavailable { .. }) => tokio::time::sleep(PAUSE).await,
                Err(_) => return, // the client comes back and is told by status
            }
            if !granted.still(&service).await {
                return;
            }
        }
    })
}
