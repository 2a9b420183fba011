//! `/v1/managers`: managers of real cards (A).

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use countersign_store::DeviceKind;

use super::{Kind, WalletDevice, WalletEnrolment};
use crate::http::Api;
use crate::http::auth::{Granted, WalletsManage, WalletsRead};
use crate::http::body::{Body, NoBody};
use crate::http::json::List;
use crate::http::problem::{Document, Problem};
use crate::http::query::{Id, Params, SerialQuery};
use crate::http::readers::{Enrol, Reason};

const MANAGER: Kind = Kind { kind: DeviceKind::Manager, name: "manager", path: "managers" };

/// Enrols a manager. Repeating it with the same key answers 200 and the same certificate.
#[utoipa::path(post, path = "/managers", tag = "wallets", operation_id = "enrol_manager",
    security(("token" = ["wallets:manage"])), request_body = Enrol,
    responses(
        (status = 201, description = "Enrolled", body = WalletEnrolment,
            headers(("Location" = String, description = "The manager"))),
        (status = 200, description = "Was enrolled with this key before", body = WalletEnrolment),
        (status = 409, description = "`serial-taken`, `device-blocked`", body = Document,
            content_type = "application/problem+json"),
    ))]
pub(in crate::http) async fn enrol(
    granted: Granted<WalletsManage>,
    State(api): State<Api>,
    Body(body): Body<Enrol>,
) -> Result<Response, Problem> {
    MANAGER.enrol(&api, &granted.actor, body).await
}

/// Managers, oldest first; or the one with a serial number.
#[utoipa::path(get, path = "/managers", tag = "wallets", operation_id = "managers",
    params(SerialQuery),
    security(("token" = ["wallets:read"])),
    responses((status = 200, description = "A part of the list", body = List<WalletDevice>)))]
pub(in crate::http) async fn list(
    _granted: Granted<WalletsRead>,
    State(api): State<Api>,
    Params(query): Params<SerialQuery>,
) -> Result<Json<List<WalletDevice>>, Problem> {
    MANAGER.list(&api, query).await
}

/// One manager.
#[utoipa::path(get, path = "/managers/{id}", tag = "wallets", operation_id = "manager",
    params(("id" = String, Path, description = "`mgr_…`")),
    security(("token" = ["wallets:read"])),
    responses((status = 200, description = "The manager", body = WalletDevice)))]
pub(in crate::http) async fn one(
    _granted: Granted<WalletsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<WalletDevice>, Problem> {
    MANAGER.one(&api, id).await
}

/// Blocks a manager: the relay refuses it until it is unblocked, and ends its meetings.
#[utoipa::path(post, path = "/managers/{id}/block", tag = "wallets", request_body = Reason,
    operation_id = "block_manager",
    params(("id" = String, Path, description = "`mgr_…`")),
    security(("token" = ["wallets:manage"])),
    responses((status = 200, description = "The manager", body = WalletDevice)))]
pub(in crate::http) async fn block(
    granted: Granted<WalletsManage>,
    State(api): State<Api>,
    id: Id,
    Body(reason): Body<Reason>,
) -> Result<Json<WalletDevice>, Problem> {
    MANAGER.block(&api, &granted.actor, id, reason).await
}

/// Lets a blocked manager in again.
#[utoipa::path(post, path = "/managers/{id}/unblock", tag = "wallets",
    operation_id = "unblock_manager",
    params(("id" = String, Path, description = "`mgr_…`")),
    security(("token" = ["wallets:manage"])),
    responses((status = 200, description = "The manager", body = WalletDevice)))]
pub(in crate::http) async fn unblock(
    granted: Granted<WalletsManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<WalletDevice>, Problem> {
    MANAGER.unblock(&api, &granted.actor, id).await
}

/// Revokes a manager's live certificate: it must enrol again.
#[utoipa::path(post, path = "/managers/{id}/revoke", tag = "wallets", request_body = Reason,
    operation_id = "revoke_manager",
    params(("id" = String, Path, description = "`mgr_…`")),
    security(("token" = ["wallets:manage"])),
    responses((status = 200, description = "The manager", body = WalletDevice)))]
pub(in crate::http) async fn revoke(
    granted: Granted<WalletsManage>,
    State(api): State<Api>,
    id: Id,
    Body(reason): Body<Reason>,
) -> Result<Json<WalletDevice>, Problem> {
    MANAGER.revoke(&api, &granted.actor, id, reason).await
}
