//! What goes back after a payment was executed: refunds and the reversal.

use axum::extract::State;
use axum::response::Response;
use countersign_service::Refunded;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::Api;
use super::super::auth::{Granted, PaymentsManage};
use super::super::idempotency::{Idempotent, IdempotentNoBody};
use super::super::money::Money;
use super::super::problem::Problem;
use super::super::query::Id;
use super::{Posting, once, settled};

/// A part of a payment that is to go back.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RefundRequest)]
pub(in super::super) struct Refund {
    /// How much, in the payment's currency.
    instructed_amount: Money,
}

/// Gives a part of an executed payment back. All refunds together are at most its amount.
#[utoipa::path(post, path = "/payments/{id}/refunds", tag = "payments",
    operation_id = "refund_payment", request_body = Refund,
    params(("id" = String, Path, description = "`pay_…`"),
        ("Idempotency-Key" = String, Header, description = "As for payments")),
    security(("token" = ["payments:manage"])),
    responses(
        (status = 201, description = "The posting", body = Posting),
        (status = 409, description = "`payment-not-executed`, `payment-reversed`, \
             `idempotency-in-flight`",
            body = super::super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`refund-too-much`, `refund-too-many` (after 100, unless of \
             all that is left), `currency-mismatch`, `idempotency-mismatch`",
            body = super::super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn refund(
    granted: Granted<PaymentsManage>,
    State(api): State<Api>,
    id: Id,
    Idempotent { key, value }: Idempotent<Refund>,
) -> Result<Response, Problem> {
    let once = once(key, |done: &Refunded| Posting::from(&done.posting));
    let (actor, id) = (&granted.actor, id.of("payment")?);
    let Money { amount, currency } = value.instructed_amount;
    if api.service.payment(actor, &id).await?.payment.currency != currency {
        let detail = "a refund is in the payment's currency";
        return Err(Problem::value("currency-mismatch", detail));
    }
    let refunded = api.service.refund_payment(actor, &id, &amount, once).await?;
    settled(&refunded, None)
}

/// Gives all of an executed payment back, once.
#[utoipa::path(post, path = "/payments/{id}/reversal", tag = "payments",
    operation_id = "reverse_payment",
    params(("id" = String, Path, description = "`pay_…`"),
        ("Idempotency-Key" = String, Header, description = "As for payments")),
    security(("token" = ["payments:manage"])),
    responses(
        (status = 201, description = "The posting", body = Posting),
        (status = 409, description = "`payment-not-executed`, `payment-reversed`, \
             `idempotency-in-flight`",
            body = super::super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn reverse(
    granted: Granted<PaymentsManage>,
    State(api): State<Api>,
    id: Id,
    IdempotentNoBody { key, .. }: IdempotentNoBody,
) -> Result<Response, Problem> {
    let once = once(key, |done: &Refunded| Posting::from(&done.posting));
    let reversed = api.service.reverse_payment(&granted.actor, &id.of("payment")?, once).await?;
    settled(&reversed, None)
}
