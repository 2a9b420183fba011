//! `/v1/webhooks` and `/v1/webhook-deliveries`: who is told what happens (D6).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::RegisteredWebhook;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, WebhooksManage, WebhooksRead};
use super::body::{Body, NoBody};
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params};
use super::readers::Reason;

/// A receiver of events. Never its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Webhook {
    /// `whk_…`.
    id: String,
    /// Where events are sent.
    url: String,
    /// Types of events that it wants, without `countersign.`; empty: all.
    #[schema(example = json!(["payment.executed", "payment.failed"]))]
    types: Vec<String>,
    /// Whether it is told only of payments that its operator asked for.
    own_only: bool,
    /// `active` or `disabled`; `removed` in the answer that says so.
    #[schema(example = "active")]
    status: &'static str,
    /// Why it is disabled: an operator's words, `deliveries-failed` or `gone`; null if it is not.
    #[schema(required)]
    status_reason: Option<String>,
    /// The operator who registered it.
    created_by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its status last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<countersign_store::Webhook> for Webhook {
    fn from(webhook: countersign_store::Webhook) -> Self {
        Self {
            id: webhook.id,
            url: webhook.url,
            types: webhook.types,
            own_only: webhook.own_only,
            status: webhook.status.name(),
            status_reason: webhook.status_reason,
            created_by: webhook.created_by,
            created_at: timestamp(webhook.created_at),
            updated_at: timestamp(webhook.updated_at),
        }
    }
}

/// A webhook that was registered, with its secret: shown now and never again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Registered {
    /// `whsec_` and base64 of the key of HMAC-SHA256 (Standard Webhooks).
    secret: String,
    /// The webhook.
    #[serde(flatten)]
    webhook: Webhook,
}

/// A receiver that is to be told.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub(super) struct Register {
    /// Where events are to be sent: `https://…`.
    #[schema(max_length = 1024, example = "https://shop.example/countersign")]
    url: String,
    /// Types of events that it wants: `payment.executed`, or `payment.*`; none named: all.
    #[serde(default)]
    #[schema(max_items = 32)]
    types: Vec<String>,
}

/// One event on its way to one webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Delivery {
    /// `dlv_…`.
    id: String,
    /// To which webhook.
    webhook_id: String,
    /// Which event: the `webhook-id` of each attempt, and the CloudEvent's id.
    event_id: String,
    /// The event's type, without `countersign.`.
    event_type: String,
    /// `pending`, `delivered` or `given-up`.
    #[schema(example = "pending")]
    state: &'static str,
    /// How often it was tried since it was last asked for.
    attempts: u32,
    /// When it is tried next; null unless it is pending.
    #[schema(required, format = DateTime)]
    next_at: Option<String>,
    /// The HTTP status of the last answer; null if there was none.
    #[schema(required)]
    last_status: Option<u32>,
    /// Why the last attempt failed; null if it did not.
    #[schema(required, example = "timeout")]
    last_error: Option<String>,
    /// Since when it is there.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

impl From<countersign_store::Delivery> for Delivery {
    fn from(delivery: countersign_store::Delivery) -> Self {
        let pending = delivery.state == countersign_store::DeliveryState::Pending;
        Self {
            id: delivery.id,
            webhook_id: delivery.webhook_id,
            event_id: delivery.event_id,
            event_type: delivery.kind,
            state: delivery.state.name(),
            attempts: delivery.attempts,
            next_at: pending.then(|| timestamp(delivery.next_at)),
            last_status: delivery.last_status,
            last_error: delivery.last_error,
            created_at: timestamp(delivery.created_at),
            updated_at: timestamp(delivery.updated_at),
        }
    }
}

/// Registers a receiver of events. Its secret is in this answer only.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks", operation_id = "register_webhook",
    request_body = Register, security(("token" = ["webhooks:manage"])),
    responses(
        (status = 201, description = "The webhook, with its secret", body = Registered,
            headers(("Location" = String, description = "The webhook"))),
        (status = 409, description = "`webhooks-full`", body = super::problem::Document,
            content_type = "application/problem+json"),
        (status = 422, description = "`webhook-url`, `webhook-url-scheme`, `webhook-types`, \
            `webhook-address-loopback` and its like", body = super::problem::Document,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn register(
    granted: Granted<WebhooksManage>,
    State(api): State<Api>,
    Body(Register { url, types }): Body<Register>,
) -> Result<Response, Problem> {
    let RegisteredWebhook { webhook, secret } =
        api.service.register_webhook(&granted.actor, &url, &types).await?;
    let location = [(header::LOCATION, format!("/v1/webhooks/{}", webhook.id))];
    let registered = Registered { secret: secret.to_string(), webhook: webhook.into() };
    Ok((StatusCode::CREATED, location, Json(registered)).into_response())
}

/// Lists the webhooks, oldest first; an integrator's own.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", operation_id = "list_webhooks",
    params(Paging), security(("token" = ["webhooks:read"])),
    responses((status = 200, description = "A part of the list", body = List<Webhook>)))]
pub(super) async fn list(
    granted: Granted<WebhooksRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Webhook>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.webhooks(&granted.actor, cursor, limit).await?)))
}

/// Shows one webhook.
#[utoipa::path(get, path = "/webhooks/{id}", tag = "webhooks", operation_id = "webhook",
    params(("id" = String, Path, description = "`whk_…`")),
    security(("token" = ["webhooks:read"])),
    responses((status = 200, description = "The webhook", body = Webhook)))]
pub(super) async fn one(
    granted: Granted<WebhooksRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Webhook>, Problem> {
    let id = id.of("webhook")?;
    Ok(Json(api.service.webhook(&granted.actor, &id).await?.into()))
}

/// Disables a webhook: nothing is delivered until it is enabled again.
#[utoipa::path(post, path = "/webhooks/{id}/disable", tag = "webhooks",
    operation_id = "disable_webhook", request_body = Reason,
    params(("id" = String, Path, description = "`whk_…`")),
    security(("token" = ["webhooks:manage"])),
    responses((status = 200, description = "The webhook", body = Webhook)))]
pub(super) async fn disable(
    granted: Granted<WebhooksManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Webhook>, Problem> {
    let id = id.of("webhook")?;
    Ok(Json(api.service.disable_webhook(&granted.actor, &id, &reason).await?.into()))
}

/// Enables a webhook again; what waits for it is delivered.
#[utoipa::path(post, path = "/webhooks/{id}/enable", tag = "webhooks",
    operation_id = "enable_webhook",
    params(("id" = String, Path, description = "`whk_…`")),
    security(("token" = ["webhooks:manage"])),
    responses((status = 200, description = "The webhook", body = Webhook)))]
pub(super) async fn enable(
    granted: Granted<WebhooksManage>,
    State(api): State<Api>,
    id: Id,
    _none: NoBody,
) -> Result<Json<Webhook>, Problem> {
    let id = id.of("webhook")?;
    Ok(Json(api.service.enable_webhook(&granted.actor, &id).await?.into()))
}

/// Removes a webhook for good and erases its secret.
#[utoipa::path(post, path = "/webhooks/{id}/remove", tag = "webhooks",
    operation_id = "remove_webhook",
    params(("id" = String, Path, description = "`whk_…`")),
    security(("token" = ["webhooks:manage"])),
    responses((status = 200, description = "The webhook, `removed`", body = Webhook)))]
pub(super) async fn remove(
    granted: Granted<WebhooksManage>,
    State(api): State<Api>,
    id: Id,
    _none: NoBody,
) -> Result<Json<Webhook>, Problem> {
    let id = id.of("webhook")?;
    Ok(Json(api.service.remove_webhook(&granted.actor, &id).await?.into()))
}

/// Lists the deliveries to a webhook, newest first.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", tag = "webhooks",
    operation_id = "list_deliveries",
    params(("id" = String, Path, description = "`whk_…`"), Paging),
    security(("token" = ["webhooks:read"])),
    responses((status = 200, description = "A part of the list", body = List<Delivery>)))]
pub(super) async fn deliveries(
    granted: Granted<WebhooksRead>,
    State(api): State<Api>,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Delivery>>, Problem> {
    let id = id.of("webhook")?;
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.deliveries(&granted.actor, &id, cursor, limit).await?)))
}

/// Has an event delivered again, whatever came of it before.
#[utoipa::path(post, path = "/webhook-deliveries/{id}/resend", tag = "webhooks",
    operation_id = "resend_delivery",
    params(("id" = String, Path, description = "`dlv_…`")),
    security(("token" = ["webhooks:manage"])),
    responses(
        (status = 200, description = "The delivery, pending", body = Delivery),
        (status = 409, description = "`webhook-not-active`, `delivery-under-way`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn resend(
    granted: Granted<WebhooksManage>,
    State(api): State<Api>,
    id: Id,
    _none: NoBody,
) -> Result<Json<Delivery>, Problem> {
    let id = id.of("delivery")?;
    Ok(Json(api.service.resend_delivery(&granted.actor, &id).await?.into()))
}
