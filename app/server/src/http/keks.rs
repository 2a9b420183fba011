//! `/v1/keks`: key-encrypting keys, entered as components (E4).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use countersign_service::{KekRecord, NewKek};
use countersign_store::{KekComponent, KekState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::approvals::{Approval, Approved, gated};
use super::auth::{ComponentsEnter, Granted, KeysManage, KeysRead};
use super::body::{Body, SecretBody, SecretHex};
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params};

/// A key-encrypting key. Never its value.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Kek {
    /// `kek_…`.
    id: String,
    /// Its unique name.
    name: String,
    /// `collecting` while components are awaited, `active`, or `retired`: erased.
    #[schema(example = "collecting")]
    state: &'static str,
    /// `A` (AES) or `T` (TDES).
    #[schema(example = "A")]
    algorithm: String,
    /// Length in bytes.
    length: u32,
    /// How many components make it.
    components: u32,
    /// Who has entered which.
    entered: Vec<Entered>,
    /// The check value that the whole key must have, hex; null if none was told.
    #[schema(required)]
    expected_kcv: Option<String>,
    /// The whole key's check value, hex; null until the last component was entered.
    #[schema(required)]
    kcv: Option<String>,
    /// `database`: under the storage key, or `token`; null unless it is active.
    #[schema(required, example = "database")]
    held: Option<&'static str>,
    /// The operator who began it.
    created_by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// When the last component was entered; null until then.
    #[schema(required, format = DateTime)]
    activated_at: Option<String>,
    /// When it was erased; null if it was not.
    #[schema(required, format = DateTime)]
    retired_at: Option<String>,
}

/// A component that was entered.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = KekComponent)]
struct Entered {
    /// From 1.
    number: u32,
    /// Who entered it.
    operator_id: String,
    /// Its own check value, hex.
    kcv: String,
    /// When.
    #[schema(format = DateTime)]
    at: String,
}

impl From<KekRecord> for Kek {
    fn from(KekRecord { kek, components }: KekRecord) -> Self {
        let held = if kek.label.is_some() { "token" } else { "database" };
        let entered = |one: KekComponent| Entered {
            number: one.number,
            operator_id: one.operator_id,
            kcv: one.kcv,
            at: timestamp(one.at),
        };
        Self {
            id: kek.id,
            name: kek.name,
            state: kek.state.name(),
            algorithm: kek.algorithm,
            length: kek.length,
            components: kek.components,
            entered: components.into_iter().map(entered).collect(),
            expected_kcv: kek.expected_kcv,
            kcv: kek.kcv,
            held: (kek.state == KekState::Active).then_some(held),
            created_by: kek.created_by,
            created_at: timestamp(kek.created_at),
            activated_at: kek.activated_at.map(timestamp),
            retired_at: kek.retired_at.map(timestamp),
        }
    }
}

/// A key-encrypting key that is to be entered.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewKek)]
pub(super) struct Begin {
    /// Its unique name, 1 to 64 printable characters.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// `A` (AES) or `T` (TDES).
    #[schema(example = "A")]
    algorithm: String,
    /// Bytes: AES 16, 24 or 32; TDES 16 or 24.
    #[schema(example = 32)]
    length: u32,
    /// How many components make it.
    #[schema(minimum = 2, maximum = 3)]
    components: u32,
    /// The check value that the whole key must have, hex, if its sender told it.
    #[serde(default)]
    kcv: Option<String>,
    /// The approval, once others have agreed.
    #[serde(default)]
    approval_id: Option<String>,
}

/// Begins a key-encrypting key, which then awaits its components.
#[utoipa::path(post, path = "/keks", tag = "keys", operation_id = "begin_kek",
    request_body = Begin, security(("token" = ["keys:manage"])),
    responses(
        (status = 201, description = "It awaits its components", body = Kek,
            headers(("Location" = String, description = "The key-encrypting key"))),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`kek-name-taken`, `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn begin(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    Body(new): Body<Begin>,
) -> Result<Response, Problem> {
    let Begin { name, algorithm, length, components, kcv, approval_id } = new;
    let new = NewKek { name, algorithm, length, components, kcv };
    let begun = api.service.begin_kek(&granted.actor, &new, approval_id.as_deref()).await?;
    Ok(gated(begun, |record| {
        let location = format!("/v1/keks/{}", record.kek.id);
        (StatusCode::CREATED, Some(location), Kek::from(record))
    }))
}

/// A component, as it stands on its paper.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewComponent {
    /// From 1.
    #[schema(minimum = 1, maximum = 3)]
    number: u32,
    /// The component, hex.
    #[schema(value_type = String)]
    component: SecretHex,
    /// Its own check value, hex: 3 bytes, for AES also 4 or 5.
    #[schema(example = "A1B2C3")]
    kcv: String,
}

/// Takes a component in, each from another operator. The last one makes the key.
#[utoipa::path(post, path = "/keks/{id}/components", tag = "keys",
    operation_id = "enter_kek_component", request_body = NewComponent,
    params(("id" = String, Path, description = "`kek_…`")),
    security(("token" = ["components:enter"])),
    responses(
        (status = 201, description = "It was taken in; the key as it stands now", body = Kek),
        (status = 409, description = "`kek-not-collecting`, `component-operator`, \
            `component-taken`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enter(
    granted: Granted<ComponentsEnter>,
    State(api): State<Api>,
    id: Id,
    SecretBody(new): SecretBody<NewComponent>,
) -> Result<(StatusCode, Json<Kek>), Problem> {
    let id = id.of("key-encrypting key")?;
    let NewComponent { number, component, kcv } = new;
    let record =
        api.service.enter_component(&granted.actor, &id, number, &component.0, &kcv).await?;
    Ok((StatusCode::CREATED, Json(record.into())))
}

/// Key-encrypting keys, oldest first.
#[utoipa::path(get, path = "/keks", tag = "keys", operation_id = "keks", params(Paging),
    security(("token" = ["keys:read"])),
    responses((status = 200, description = "A part of the list", body = List<Kek>)))]
pub(super) async fn list(
    _granted: Granted<KeysRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Kek>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.keks(cursor, limit).await?)))
}

/// One key-encrypting key.
#[utoipa::path(get, path = "/keks/{id}", tag = "keys", operation_id = "kek",
    params(("id" = String, Path, description = "`kek_…`")),
    security(("token" = ["keys:read"])),
    responses((status = 200, description = "The key-encrypting key", body = Kek)))]
pub(super) async fn one(
    _granted: Granted<KeysRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Kek>, Problem> {
    let id = id.of("key-encrypting key")?;
    Ok(Json(api.service.kek(&id).await?.into()))
}

/// Erases a key-encrypting key, or gives up one that awaits components. Keys that came under it
/// stay.
#[utoipa::path(post, path = "/keks/{id}/retire", tag = "keys", operation_id = "retire_kek",
    request_body = Approved, params(("id" = String, Path, description = "`kek_…`")),
    security(("token" = ["keys:manage"])),
    responses(
        (status = 200, description = "The key-encrypting key, erased", body = Kek),
        (status = 202, description = "Others must agree first", body = Approval,
            headers(("Location" = String, description = "The approval"))),
        (status = 409, description = "`kek-retired`, `approval-pending` …",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn retire(
    granted: Granted<KeysManage>,
    State(api): State<Api>,
    id: Id,
    Body(Approved { approval_id }): Body<Approved>,
) -> Result<Response, Problem> {
    let id = id.of("key-encrypting key")?;
    let retired = api.service.retire_kek(&granted.actor, &id, approval_id.as_deref()).await?;
    Ok(gated(retired, |record| (StatusCode::OK, None, Kek::from(record))))
}
