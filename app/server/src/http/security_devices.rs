//! `/v1/devices`: security devices, which confirm payments, and what operators do with them (D4).

mod joint;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_crypto::UnixTime;
use countersign_service::{Authority, EnrolledOcra, ServiceError, SignerToEnrol};
use countersign_store::{BoundAccount, CertificateState, Page, SignerRecord};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, SecurityDevicesManage, SecurityDevicesRead};
use super::body::{Body, NoBody};
use super::json::{List, certificate_pem, request_der, timestamp};
use super::problem::Problem;
use super::query::{Id, Params, SerialQuery};
use super::readers::{Reason, Terms};

pub(super) use joint::*;

/// A security device.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SecurityDevice {
    /// `sdv_…`.
    id: String,
    /// Its serial number.
    serial: String,
    /// For people.
    label: String,
    /// How it confirms: `pki` by a signature, `ocra` by a dynamic password, `joint` by a signature
    /// and a joint password.
    #[schema(example = "pki")]
    method: &'static str,
    /// `enrolled` or `blocked`.
    #[schema(example = "enrolled")]
    status: &'static str,
    /// Why it is blocked; null if it is not.
    #[schema(required)]
    block_reason: Option<String>,
    /// The accounts that it confirms payments from.
    accounts: Vec<Account>,
    /// Wrong answers since the last good one.
    failures: u32,
    /// The number of its certificate; null without a live one.
    #[schema(required)]
    certificate_number: Option<String>,
    /// Until when that holds.
    #[schema(required, format = DateTime)]
    not_after: Option<String>,
    /// The suite of its dynamic passwords; null if it makes none.
    #[schema(required)]
    ocra_suite: Option<String>,
    /// When it was enrolled.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its status last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

/// An account that a security device or a phone is bound to.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BoundAccount)]
pub(super) struct Account {
    /// `acc_…`.
    id: String,
    /// Its number.
    identification: String,
}

impl From<BoundAccount> for Account {
    fn from(bound: BoundAccount) -> Self {
        Self { id: bound.id, identification: bound.number }
    }
}

impl SecurityDevice {
    fn at(now: UnixTime, record: SignerRecord) -> Self {
        let blocked = record.device.blocked(now).map(str::to_owned);
        let SignerRecord { device, signer, accounts } = record;
        let live = device.certificate.filter(|live| live.state == CertificateState::Issued);
        let has_key = signer.ocra_key.is_some();
        Self {
            id: device.device.id,
            serial: device.device.serial,
            label: signer.label,
            method: signer.method.name(),
            status: if blocked.is_some() { "blocked" } else { "enrolled" },
            block_reason: blocked,
            accounts: accounts.into_iter().map(Into::into).collect(),
            failures: signer.failures,
            not_after: live.as_ref().map(|live| timestamp(live.not_after)),
            certificate_number: live.map(|live| live.number),
            ocra_suite: signer.ocra_suite.filter(|_| has_key),
            created_at: timestamp(device.device.created_at),
            updated_at: timestamp(device.device.updated_at),
        }
    }
}

/// A security device that signs with a key of its own.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolDeviceRequest)]
pub(super) struct Enrol {
    /// The device's PKCS#10 request: PEM, or base64 of its DER.
    request: String,
    /// For people: 1 to 64 characters.
    label: String,
    /// The accounts that it confirms payments from: ids or numbers, at most 16.
    accounts: Vec<String>,
}

/// What a security device needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeviceEnrolment)]
pub(super) struct Enrolment {
    /// The device.
    device: SecurityDevice,
    /// Its certificate, PEM.
    certificate: String,
    /// The certificate of the CA that issued it, PEM.
    device_issuer: String,
    #[serde(flatten)]
    chain: ServerChain,
    /// The id in this server's certificate.
    server_id: String,
}

/// What a security device without a network needs to know that a request is this server's.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServerChain {
    /// This server's certificate, PEM.
    server_certificate: String,
    /// The certificate of the CA that issued it, PEM.
    server_issuer: String,
    /// The root's certificate, PEM.
    root: String,
}

impl ServerChain {
    fn of(authority: &Authority) -> Self {
        Self {
            server_certificate: certificate_pem(&authority.server),
            server_issuer: certificate_pem(&authority.server_issuer),
            root: certificate_pem(&authority.root),
        }
    }
}

/// What a request for enrolment has to be made with, and this server's certificates.
#[derive(Serialize, ToSchema)]
#[schema(as = DeviceTerms)]
pub(super) struct SignerTerms {
    #[serde(flatten)]
    terms: Terms,
    #[serde(flatten)]
    chain: ServerChain,
    #[serde(flatten)]
    seal_to: SealTo,
}

/// In which suite this server certifies security devices: to be asked before a request is made.
/// Also this server's certificates, as a device that works without a network keeps them, and the
/// one to whose key a signing card seals.
#[utoipa::path(get, path = "/devices/terms", tag = "security devices",
    operation_id = "device_terms", security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "What a request has to be made with",
        body = SignerTerms)))]
pub(super) async fn terms(
    _granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
) -> Result<Json<SignerTerms>, Problem> {
    let authority = api.service.authority();
    let (chain, seal_to) = (ServerChain::of(authority), SealTo::of(authority));
    Ok(Json(SignerTerms { terms: Terms::of(&api)?, chain, seal_to }))
}

/// Enrols a security device that signs with a key of its own.
///
/// Repeating it with the same key answers 200 and the same certificate.
#[utoipa::path(post, path = "/devices", tag = "security devices", operation_id = "enrol_device",
    request_body = Enrol, security(("token" = ["security-devices:manage"])),
    responses(
        (status = 201, description = "Enrolled", body = Enrolment,
            headers(("Location" = String, description = "The device"))),
        (status = 200, description = "Was enrolled with this key before", body = Enrolment),
        (status = 409, description = "`serial-taken`, `device-blocked`, `signer-method`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    Body(Enrol { request, label, accounts }): Body<Enrol>,
) -> Result<Response, Problem> {
    let der = request_der(&request)?;
    let new = SignerToEnrol { label, accounts };
    let signer = api.service.enrol_signer(&granted.actor, &der, &new).await?;
    let authority = api.service.authority();
    let location = format!("/v1/devices/{}", signer.record.signer.device_id);
    let enrolment = Json(Enrolment {
        device: SecurityDevice::at(api.service.now(), signer.record),
        certificate: certificate_pem(&signer.enrolled.certificate),
        device_issuer: certificate_pem(&authority.device_issuer),
        chain: ServerChain::of(authority),
        server_id: authority.server_id.clone(),
    });
    Ok(if signer.enrolled.created {
        (StatusCode::CREATED, [(header::LOCATION, location)], enrolment).into_response()
    } else {
        enrolment.into_response()
    })
}

/// A security device that makes dynamic passwords.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolOcraRequest)]
pub(super) struct EnrolOcra {
    /// Its serial number: 1 to 64 characters of A-Z a-z 0-9 . _ -
    serial: String,
    /// For people: 1 to 64 characters.
    label: String,
    /// The accounts that it confirms payments from: ids or numbers, at most 16.
    accounts: Vec<String>,
}

/// A security device and its key for dynamic passwords.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OcraEnrolment {
    /// The device.
    device: SecurityDevice,
    /// Its OCRA suite (RFC 6287).
    suite: &'static str,
    /// Its key in hex. Shown once.
    key: String,
    #[serde(flatten)]
    chain: ServerChain,
    /// The id in this server's certificate.
    server_id: String,
}

/// Enrols a security device that makes dynamic passwords (OCRA, RFC 6287).
///
/// Its key is drawn here and shown once. A device that was revoked gets another key.
#[utoipa::path(post, path = "/devices/ocra", tag = "security devices",
    operation_id = "enrol_ocra_device", request_body = EnrolOcra,
    security(("token" = ["security-devices:manage"])),
    responses(
        (status = 201, description = "Enrolled", body = OcraEnrolment,
            headers(("Location" = String, description = "The device"))),
        (status = 409, description = "`serial-taken`, `device-blocked`, `signer-method`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol_ocra(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    Body(EnrolOcra { serial, label, accounts }): Body<EnrolOcra>,
) -> Result<Response, Problem> {
    let new = SignerToEnrol { label, accounts };
    let enrolled = api.service.enrol_ocra(&granted.actor, &serial, &new).await?;
    let EnrolledOcra { record, suite, key } = enrolled;
    let location = format!("/v1/devices/{}", record.signer.device_id);
    let body = Json(OcraEnrolment {
        device: SecurityDevice::at(api.service.now(), record),
        suite,
        key: HEXLOWER.encode(key.expose()),
        chain: ServerChain::of(api.service.authority()),
        server_id: api.service.authority().server_id.clone(),
    });
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Security devices, oldest first; or the one with a serial number.
#[utoipa::path(get, path = "/devices", tag = "security devices", operation_id = "devices",
    params(SerialQuery), security(("token" = ["security-devices:read"])),
    responses((status = 200, description = "A part of the list", body = List<SecurityDevice>)))]
pub(super) async fn list(
    _granted: Granted<SecurityDevicesRead>,
    State(api): State<Api>,
    Params(query): Params<SerialQuery>,
) -> Result<Json<List<SecurityDevice>>, Problem> {
    let (serial, cursor, limit) = query.checked()?;
    let page = match serial {
        None => api.service.signers(cursor, limit).await?,
        Some(serial) => match api.service.signer_by_serial(&serial).await {
            Ok(record) => Page { items: vec![record], next: None },
            Err(ServiceError::NotFound { .. }) => Page { items: Vec::new(), next: None },
            Err(error) => return Err(error.into()),
        },
    };
    let now = api.service.now();
    Ok(Json(List::mapped(page, |record| SecurityDevice::at(now, record))))
}

/// One security device.
#[utoipa::path(get, path = "/devices/{id}", tag = "security devices", operation_id = "device",
    params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:read"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn one(
    _granted: Granted<SecurityDevicesRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<SecurityDevice>, Problem> {
    let record = api.service.signer(&id.of("security device")?).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}

/// Accounts to be bound.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = BindRequest)]
pub(super) struct Bind {
    /// Ids or numbers, at most 16 in all.
    pub(super) accounts: Vec<String>,
}

/// An account to be taken away.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = UnbindRequest)]
pub(super) struct Unbind {
    /// Its id or number.
    pub(super) account: String,
}

/// Lets a security device confirm payments from further accounts.
#[utoipa::path(post, path = "/devices/{id}/bind", tag = "security devices",
    operation_id = "bind_device", request_body = Bind,
    params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn bind(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Bind { accounts }): Body<Bind>,
) -> Result<Json<SecurityDevice>, Problem> {
    let id = id.of("security device")?;
    let record = api.service.bind_signer(&granted.actor, &id, &accounts).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}

/// Takes an account away from a security device.
#[utoipa::path(post, path = "/devices/{id}/unbind", tag = "security devices",
    operation_id = "unbind_device", request_body = Unbind,
    params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn unbind(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Unbind { account }): Body<Unbind>,
) -> Result<Json<SecurityDevice>, Problem> {
    let id = id.of("security device")?;
    let record = api.service.unbind_signer(&granted.actor, &id, &account).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}

/// Blocks a security device: none of its answers is taken until it is unblocked.
#[utoipa::path(post, path = "/devices/{id}/block", tag = "security devices",
    operation_id = "block_device", request_body = Reason,
    params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn block(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<SecurityDevice>, Problem> {
    let id = id.of("security device")?;
    let record = api.service.block_signer(&granted.actor, &id, &reason).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}

/// Takes answers of a blocked security device again; its wrong ones are forgiven.
#[utoipa::path(post, path = "/devices/{id}/unblock", tag = "security devices",
    operation_id = "unblock_device", params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn unblock(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<SecurityDevice>, Problem> {
    let id = id.of("security device")?;
    let record = api.service.unblock_signer(&granted.actor, &id).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}

/// Revokes a security device's certificate, and erases the key that this server shares with it: it
/// must enrol again.
#[utoipa::path(post, path = "/devices/{id}/revoke", tag = "security devices",
    operation_id = "revoke_device", request_body = Reason,
    params(("id" = String, Path, description = "`sdv_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The device", body = SecurityDevice)))]
pub(super) async fn revoke(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<SecurityDevice>, Problem> {
    let id = id.of("security device")?;
    let record = api.service.revoke_signer(&granted.actor, &id, &reason).await?;
    Ok(Json(SecurityDevice::at(api.service.now(), record)))
}
