//! `/v1/sams` and `/v1/sam-hosts` (C12).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{Enrolled, SamListed, SamModule, SamState};
use countersign_store::{CertificateState, DeviceKind, DeviceRecord, DeviceStatus, Page, SamDrain};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, SamsManage, SamsRead};
use super::body::{Body, NoBody};
use super::json::{List, certificate_pem, request_der, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params};
use super::readers::{Enrol, Reason};

const SAM_HOST: DeviceKind = DeviceKind::SamHost;

/// A SAM module, or a module that is out of service and not attached here.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Sam {
    /// The module's id, as the trade writes it; null until it has answered.
    #[schema(required)]
    sam_id: Option<String>,
    /// Its port, or the SAM host and the port there; null if this server does not reach it.
    #[schema(required)]
    port: Option<String>,
    /// Whether it answers.
    ready: bool,
    /// Whether a read has it.
    leased: bool,
    /// Whether it is out of service, by an operator's word.
    drained: bool,
    /// Whether it is put aside, because it flaps.
    quarantined: bool,
    /// What it is doing.
    state: Doing,
    /// How often it was lost, as the server or SAM host that has it says.
    failures: u64,
    /// Its operations that failed for this server, by check; the card may have been to blame.
    failed_operations: BTreeMap<&'static str, u64>,
    /// How many reads it did for this server.
    reads: u64,
    /// Why it is out of service, and since when; null if it is not.
    #[schema(required)]
    drain: Option<Drain>,
}

/// What a module is doing.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SamState)]
pub(super) enum Doing {
    /// It waits for a read.
    Ready,
    /// A read has it.
    Leased,
    /// It is being taken out of service: its read may finish.
    Draining,
    /// It is out of service.
    Drained,
    /// It failed too often in too short a time and is put aside.
    Quarantined,
    /// It has not answered yet.
    Starting,
    /// It failed, and is tried again; the log says why.
    Failed,
}

impl From<SamState> for Doing {
    fn from(state: SamState) -> Self {
        match state {
            SamState::Starting => Self::Starting,
            SamState::Ready => Self::Ready,
            SamState::Leased => Self::Leased,
            SamState::Draining => Self::Draining,
            SamState::Drained => Self::Drained,
            SamState::Quarantined => Self::Quarantined,
            SamState::Failed => Self::Failed,
        }
    }
}

/// Why a module is out of service.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SamDrain)]
struct Drain {
    /// The operator's words.
    reason: String,
    /// Who did it.
    by: String,
    /// Since when.
    #[schema(format = DateTime)]
    at: String,
}

impl From<SamDrain> for Drain {
    fn from(drain: SamDrain) -> Self {
        Self { reason: drain.reason, by: drain.actor, at: timestamp(drain.at) }
    }
}

impl From<SamListed> for Sam {
    fn from(SamListed { module, drain }: SamListed) -> Self {
        let state = module.as_ref().map_or(SamState::Drained, |module| module.state);
        let of_drain = drain.as_ref().map(|drain| drain.sam_id.clone());
        let drained = drain.is_some();
        let (sam_id, port, failures, reads, failed_operations) = match module {
            Some(SamModule { sam_id, port, failures, reads, failed, .. }) => {
                (sam_id, Some(port), failures, reads, failed)
            }
            None => (of_drain, None, 0, 0, BTreeMap::new()),
        };
        let attached = port.is_some();
        let answers = matches!(
            state,
            SamState::Ready | SamState::Leased | SamState::Draining | SamState::Drained
        );
        Self {
            sam_id,
            port,
            ready: attached && answers,
            leased: matches!(state, SamState::Leased | SamState::Draining),
            drained,
            quarantined: state == SamState::Quarantined,
            state: state.into(),
            failures,
            failed_operations,
            reads,
            drain: drain.map(Into::into),
        }
    }
}

/// The SAM modules: at this server, at its SAM hosts, and those out of service elsewhere.
#[utoipa::path(get, path = "/sams", tag = "sams", operation_id = "sams",
    security(("token" = ["sams:read"])),
    responses((status = 200, description = "All of them", body = List<Sam>)))]
pub(super) async fn list(
    _granted: Granted<SamsRead>,
    State(api): State<Api>,
) -> Result<Json<List<Sam>>, Problem> {
    let items = api.service.list_sams().await?;
    Ok(Json(List::of(Page { items, next: None })))
}

/// Takes a module out of service, on every server: what is under way finishes.
#[utoipa::path(post, path = "/sams/{samId}/drain", tag = "sams", operation_id = "drain_sam",
    request_body = Reason, params(("samId" = String, Path, description = "The module's id")),
    security(("token" = ["sams:manage"])),
    responses((status = 200, description = "The module", body = Sam)))]
pub(super) async fn drain(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    Path(sam_id): Path<String>,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Sam>, Problem> {
    let listed = api.service.drain_sam(&granted.actor, &sam_id, &reason).await?;
    Ok(Json(listed.into()))
}

/// Puts a module back into service.
#[utoipa::path(post, path = "/sams/{samId}/resume", tag = "sams", operation_id = "resume_sam",
    params(("samId" = String, Path, description = "The module's id")),
    security(("token" = ["sams:manage"])),
    responses((status = 200, description = "The module", body = Sam)))]
pub(super) async fn resume(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    Path(sam_id): Path<String>,
    _: NoBody,
) -> Result<Json<Sam>, Problem> {
    let listed = api.service.resume_sam(&granted.actor, &sam_id).await?;
    Ok(Json(listed.into()))
}

/// A SAM host.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SamHost {
    /// `smh_…`.
    id: String,
    /// The serial number in its certificate.
    serial: String,
    /// Whether servers may use it.
    blocked: bool,
    /// Why it is blocked; null if it is not.
    #[schema(required)]
    block_reason: Option<String>,
    /// When it was enrolled.
    #[schema(format = DateTime)]
    created_at: String,
    /// The number of its live certificate; null if that was revoked.
    #[schema(required)]
    certificate_number: Option<String>,
}

impl From<DeviceRecord> for SamHost {
    fn from(record: DeviceRecord) -> Self {
        let DeviceRecord { device, certificate, .. } = record;
        let live = certificate.filter(|live| live.state == CertificateState::Issued);
        Self {
            id: device.id,
            serial: device.serial,
            blocked: device.status == DeviceStatus::Blocked,
            block_reason: device.block_reason,
            created_at: timestamp(device.created_at),
            certificate_number: live.map(|live| live.number),
        }
    }
}

/// What a SAM host needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SamHostEnrolment {
    /// `smh_…`.
    id: String,
    /// Its certificate, PEM.
    certificate: String,
    /// Its encryption certificate, PEM; null if it asked for none.
    #[schema(required)]
    encryption_certificate: Option<String>,
    /// The certificate of the CA that issued it, PEM.
    device_issuer: String,
    /// The certificate of the CA that issued this server's, PEM.
    server_issuer: String,
    /// The root's certificate, PEM.
    root: String,
    /// The id in this server's certificate.
    server_id: String,
}

/// Enrols a SAM host. Repeating it with the same key answers 200 and the same certificate.
#[utoipa::path(post, path = "/sam-hosts", tag = "sams", operation_id = "enrol_sam_host",
    security(("token" = ["sams:manage"])), request_body = Enrol,
    responses(
        (status = 201, description = "Enrolled", body = SamHostEnrolment,
            headers(("Location" = String, description = "The SAM host"))),
        (status = 200, description = "Was enrolled with this key before", body = SamHostEnrolment),
        (status = 409, description = "`serial-taken`, `device-blocked`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol_host(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    Body(Enrol { request, encryption_request }): Body<Enrol>,
) -> Result<Response, Problem> {
    let der = request_der(&request)?;
    let second = encryption_request.as_deref().map(request_der).transpose()?;
    let enrolled =
        api.service.enrol_device(SAM_HOST, &granted.actor, &der, second.as_deref()).await?;
    let Enrolled { device, certificate, encryption_certificate, created, .. } = enrolled;
    let authority = api.service.authority();
    let location = format!("/v1/sam-hosts/{}", device.id);
    let enrolment = Json(SamHostEnrolment {
        id: device.id,
        certificate: certificate_pem(&certificate),
        encryption_certificate: encryption_certificate.as_deref().map(certificate_pem),
        device_issuer: certificate_pem(&authority.device_issuer),
        server_issuer: certificate_pem(&authority.server_issuer),
        root: certificate_pem(&authority.root),
        server_id: authority.server_id.clone(),
    });
    Ok(if created {
        (StatusCode::CREATED, [(header::LOCATION, location)], enrolment).into_response()
    } else {
        enrolment.into_response()
    })
}

/// SAM hosts, oldest first.
#[utoipa::path(get, path = "/sam-hosts", tag = "sams", operation_id = "sam_hosts", params(Paging),
    security(("token" = ["sams:read"])),
    responses((status = 200, description = "A part of the list", body = List<SamHost>)))]
pub(super) async fn hosts(
    _granted: Granted<SamsRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<SamHost>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.devices(SAM_HOST, cursor, limit).await?)))
}

/// Blocks a SAM host: no server uses it until it is unblocked.
#[utoipa::path(post, path = "/sam-hosts/{id}/block", tag = "sams", request_body = Reason,
    operation_id = "block_sam_host",
    params(("id" = String, Path, description = "`smh_…`")),
    security(("token" = ["sams:manage"])),
    responses((status = 200, description = "The SAM host", body = SamHost)))]
pub(super) async fn block_host(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<SamHost>, Problem> {
    let id = id.of("SAM host")?;
    let blocked = api.service.block_device(SAM_HOST, &granted.actor, &id, &reason).await?;
    Ok(Json(blocked.into()))
}

/// Lets a blocked SAM host be used again.
#[utoipa::path(post, path = "/sam-hosts/{id}/unblock", tag = "sams",
    operation_id = "unblock_sam_host",
    params(("id" = String, Path, description = "`smh_…`")),
    security(("token" = ["sams:manage"])),
    responses((status = 200, description = "The SAM host", body = SamHost)))]
pub(super) async fn unblock_host(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<SamHost>, Problem> {
    let id = id.of("SAM host")?;
    Ok(Json(api.service.unblock_device(SAM_HOST, &granted.actor, &id).await?.into()))
}

/// Revokes a SAM host's live certificate: it must enrol again.
#[utoipa::path(post, path = "/sam-hosts/{id}/revoke", tag = "sams", request_body = Reason,
    operation_id = "revoke_sam_host",
    params(("id" = String, Path, description = "`smh_…`")),
    security(("token" = ["sams:manage"])),
    responses((status = 200, description = "The SAM host", body = SamHost)))]
pub(super) async fn revoke_host(
    granted: Granted<SamsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<SamHost>, Problem> {
    let id = id.of("SAM host")?;
    let record = api.service.revoke_device(SAM_HOST, &granted.actor, &id, &reason).await?;
    Ok(Json(record.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_failed_at_is_told_by_its_checks() {
        let module = SamModule {
            sam_id: Some("05.03-1".to_owned()),
            port: "/dev/ttyUSB0".to_owned(),
            state: SamState::Ready,
            failures: 2,
            reads: 7,
            failed: BTreeMap::from([("sam-timeout", 2), ("card-not-found", 1)]),
        };
        let told = |module| {
            let sam = Sam::from(SamListed { module, drain: None });
            serde_json::to_value(sam).expect("plain members")
        };
        let known = told(Some(module));
        assert_eq!((&known["failures"], &known["reads"]), (&2.into(), &7.into()));
        let checks = serde_json::json!({ "card-not-found": 1, "sam-timeout": 2 });
        assert_eq!(known["failedOperations"], checks);
        assert_eq!(told(None)["failedOperations"], serde_json::json!({}));
    }
}
