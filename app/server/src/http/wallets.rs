//! `/v1/sleeves` and `/v1/managers` (A), and the alarms that managers raise (A5).
//!
//! The two kinds of devices have the same routes and answers; `sleeves` and `managers` have the
//! routes, and what they do is here.

pub(super) mod managers;
pub(super) mod sleeves;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{Actor, Enrolled, ServiceError};
use countersign_store::{
    CertificateState, Device, DeviceKind, DeviceRecord, DeviceStatus, Page, WalletAlarm,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, WalletsRead};
use super::json::{List, certificate_pem, request_der, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params, SerialQuery};
use super::readers::{Enrol, Reason};

/// A sleeve or a manager.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WalletDevice {
    /// `slv_…` or `mgr_…`.
    id: String,
    /// The serial number in its certificate.
    serial: String,
    /// Whether it is refused.
    blocked: bool,
    /// Why it is blocked; null if it is not.
    #[schema(required)]
    block_reason: Option<String>,
    /// When it was enrolled.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last blocked or let in again.
    #[schema(format = DateTime)]
    updated_at: String,
    /// Its live certificate; null if that was revoked.
    #[schema(required)]
    certificate: Option<WalletCertificate>,
}

/// The certificate that a sleeve or a manager may use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WalletCertificate {
    /// Its serial number, lower-case hexadecimal.
    number: String,
    /// Until when it holds.
    #[schema(format = DateTime)]
    not_after: String,
}

impl WalletDevice {
    fn new(device: Device, certificate: Option<WalletCertificate>) -> Self {
        Self {
            id: device.id,
            serial: device.serial,
            blocked: device.status == DeviceStatus::Blocked,
            block_reason: device.block_reason,
            created_at: timestamp(device.created_at),
            updated_at: timestamp(device.updated_at),
            certificate,
        }
    }
}

impl From<DeviceRecord> for WalletDevice {
    fn from(DeviceRecord { device, certificate, .. }: DeviceRecord) -> Self {
        // An intent whose certificate was never signed is no certificate yet.
        let issued = certificate.filter(|live| live.state == CertificateState::Issued);
        let live = issued.map(|live| WalletCertificate {
            not_after: timestamp(live.not_after),
            number: live.number,
        });
        Self::new(device, live)
    }
}

/// What a sleeve or a manager needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WalletEnrolment {
    /// The device.
    device: WalletDevice,
    /// Its certificate, PEM.
    certificate: String,
    /// Its encryption certificate, PEM; null if it asked for none.
    #[schema(required)]
    encryption_certificate: Option<String>,
    /// The certificate of the CA that issued it, and those of the devices that it meets, PEM.
    device_issuer: String,
    /// The certificate of the CA that issued this server's, PEM.
    server_issuer: String,
    /// The root's certificate, PEM.
    root: String,
    /// The id in this server's certificate.
    server_id: String,
}

/// That someone has logged in at a manager with the alarm password.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alarm {
    /// `alm_…`.
    id: String,
    /// The manager, `mgr_…`.
    manager_id: String,
    /// The serial number of the sleeve, as the manager has it.
    sleeve: String,
    /// That sleeve, `slv_…`; null if none with this serial number is enrolled here.
    #[schema(required)]
    sleeve_id: Option<String>,
    /// What the manager calls the session.
    session: String,
    /// When it happened, by the manager's clock.
    #[schema(format = DateTime)]
    raised_at: String,
    /// When the server was told.
    #[schema(format = DateTime)]
    at: String,
}

impl From<WalletAlarm> for Alarm {
    fn from(alarm: WalletAlarm) -> Self {
        Self {
            id: alarm.id,
            manager_id: alarm.manager_id,
            sleeve: alarm.sleeve,
            sleeve_id: alarm.sleeve_id,
            session: alarm.session,
            raised_at: timestamp(alarm.raised_at),
            at: timestamp(alarm.at),
        }
    }
}

/// Alarms that managers have raised, newest first.
///
/// Webhooks are told each as the event `sleeve.alarm`.
#[utoipa::path(get, path = "/sleeves/alarms", tag = "wallets", operation_id = "wallet_alarms",
    params(Paging), security(("token" = ["wallets:read"])),
    responses((status = 200, description = "A part of the list", body = List<Alarm>)))]
pub(super) async fn alarms(
    _granted: Granted<WalletsRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Alarm>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.alarms(cursor, limit).await?)))
}

/// One of the two kinds.
#[derive(Clone, Copy)]
struct Kind {
    kind: DeviceKind,
    /// For people.
    name: &'static str,
    /// Its part of the path.
    path: &'static str,
}

impl Kind {
    async fn enrol(self, api: &Api, actor: &Actor, body: Enrol) -> Result<Response, Problem> {
        let der = request_der(&body.request)?;
        let second = body.encryption_request.as_deref().map(request_der).transpose()?;
        let enrolled = api.service.enrol_device(self.kind, actor, &der, second.as_deref()).await?;
        let Enrolled { device, certificate, number, not_after, encryption_certificate, created } =
            enrolled;
        let authority = api.service.authority();
        let location = format!("/v1/{}/{}", self.path, device.id);
        let live = WalletCertificate { number, not_after: timestamp(not_after) };
        let enrolment = Json(WalletEnrolment {
            device: WalletDevice::new(device, Some(live)),
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

    async fn list(
        self,
        api: &Api,
        query: SerialQuery,
    ) -> Result<Json<List<WalletDevice>>, Problem> {
        let (serial, cursor, limit) = query.checked()?;
        let page = match serial {
            None => api.service.devices(self.kind, cursor, limit).await?,
            Some(serial) => match api.service.device_by_serial(self.kind, &serial).await {
                Ok(record) => Page { items: vec![record], next: None },
                Err(ServiceError::NotFound { .. }) => Page { items: Vec::new(), next: None },
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Json(List::of(page)))
    }

    async fn one(self, api: &Api, id: Id) -> Result<Json<WalletDevice>, Problem> {
        let record = api.service.device(self.kind, &id.of(self.name)?).await?;
        Ok(Json(record.into()))
    }

    async fn block(
        self,
        api: &Api,
        actor: &Actor,
        id: Id,
        Reason { reason }: Reason,
    ) -> Result<Json<WalletDevice>, Problem> {
        let id = id.of(self.name)?;
        Ok(Json(api.service.block_device(self.kind, actor, &id, &reason).await?.into()))
    }

    async fn unblock(
        self,
        api: &Api,
        actor: &Actor,
        id: Id,
    ) -> Result<Json<WalletDevice>, Problem> {
        let id = id.of(self.name)?;
        Ok(Json(api.service.unblock_device(self.kind, actor, &id).await?.into()))
    }

    async fn revoke(
        self,
        api: &Api,
        actor: &Actor,
        id: Id,
        Reason { reason }: Reason,
    ) -> Result<Json<WalletDevice>, Problem> {
        let id = id.of(self.name)?;
        Ok(Json(api.service.revoke_device(self.kind, actor, &id, &reason).await?.into()))
    }
}
