//! `/v1/readers`.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_crypto::UnixTime;
use countersign_service::{Enrolled, ServiceError};
use countersign_store::{CertificateState, Device, DeviceKind, DeviceRecord, Page};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, ReadersBlock, ReadersEnrol, ReadersRead};
use super::body::{Body, NoBody};
use super::json::{List, certificate_pem, request_der, timestamp};
use super::problem::Problem;
use super::query::{Id, Params, SerialQuery};

const READER: DeviceKind = DeviceKind::Reader;

/// A reader.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reader {
    /// `rdr_…`.
    id: String,
    /// The serial number in its certificate.
    serial: String,
    /// Whether it may be served.
    status: Status,
    /// Why it is blocked; null if it is not.
    #[schema(required)]
    block_reason: Option<String>,
    /// When it was enrolled.
    #[schema(format = DateTime)]
    created_at: String,
    /// When its status last changed.
    #[schema(format = DateTime)]
    updated_at: String,
    /// Its live certificate; null if that was revoked.
    #[schema(required)]
    certificate: Option<LiveCertificate>,
}

/// Whether a reader may be served.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Status {
    Enrolled,
    Blocked,
}

/// The certificate that a reader may use.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LiveCertificate {
    /// Its serial number, lower-case hexadecimal.
    number: String,
    /// Until when it holds.
    #[schema(format = DateTime)]
    not_after: String,
}

impl Reader {
    /// `blocked` says why it is refused now: by an operator or by a rule.
    fn new(device: Device, blocked: Option<String>, certificate: Option<LiveCertificate>) -> Self {
        Self {
            id: device.id,
            serial: device.serial,
            status: if blocked.is_some() { Status::Blocked } else { Status::Enrolled },
            block_reason: blocked,
            created_at: timestamp(device.created_at),
            updated_at: timestamp(device.updated_at),
            certificate,
        }
    }
}

impl Reader {
    /// The reader as it is at `now`: a rule's block ends by itself.
    pub(super) fn at(now: UnixTime, record: DeviceRecord) -> Self {
        let blocked = record.blocked(now).map(str::to_owned);
        let DeviceRecord { device, certificate, .. } = record;
        // An intent whose certificate was never signed is no certificate yet.
        let issued = certificate.filter(|live| live.state == CertificateState::Issued);
        let live = issued.map(|live| LiveCertificate {
            not_after: timestamp(live.not_after),
            number: live.number,
        });
        Self::new(device, blocked, live)
    }
}

/// A request to enrol a reader.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolRequest)]
pub(super) struct Enrol {
    /// The reader's PKCS#10 request: PEM, or base64 of its DER.
    pub(super) request: String,
    /// A second request, for its encryption key, where the suite has encryption certificates.
    pub(super) encryption_request: Option<String>,
}

/// What a request for enrolment has to be made with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Terms {
    /// The suite of this server's certificates and handshakes: `p256` or `sm2`.
    #[schema(example = "p256")]
    suite: &'static str,
    /// Whether a reader may ask for an encryption certificate too.
    encryption: bool,
    /// The id in this server's certificate.
    server_id: String,
}

impl Terms {
    pub(super) fn of(api: &Api) -> Result<Self, Problem> {
        let authority = api.service.authority();
        let suite = authority.provider.suite.name();
        Ok(Self {
            suite: suite.ok_or_else(|| Problem::internal("the suite has no name"))?,
            encryption: authority.provider.encryption.is_some(),
            server_id: authority.server_id.clone(),
        })
    }
}

/// What a reader needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Enrolment {
    /// The reader.
    reader: Reader,
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

/// Why something is done.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Reason {
    /// 1 to 200 bytes, no control characters.
    #[schema(min_length = 1, max_length = 200)]
    pub(super) reason: String,
}

/// In which suite this server certifies readers: to be asked before a request is made.
#[utoipa::path(get, path = "/enrolment", tag = "readers",
    security(("token" = ["readers:enrol"])),
    responses((status = 200, description = "What a request has to be made with", body = Terms)))]
pub(super) async fn terms(
    _granted: Granted<ReadersEnrol>,
    State(api): State<Api>,
) -> Result<Json<Terms>, Problem> {
    Terms::of(&api).map(Json)
}

/// Enrols a reader.
///
/// Repeating it with the same key answers 200 and the same certificate; an encryption certificate
/// is a new one each time.
#[utoipa::path(post, path = "/readers", tag = "readers", security(("token" = ["readers:enrol"])),
    request_body = Enrol,
    responses(
        (status = 201, description = "Enrolled", body = Enrolment,
            headers(("Location" = String, description = "The reader"))),
        (status = 200, description = "Was enrolled with this key before", body = Enrolment),
        (status = 409, description = "`serial-taken`, `reader-blocked`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol(
    granted: Granted<ReadersEnrol>,
    State(api): State<Api>,
    Body(Enrol { request, encryption_request }): Body<Enrol>,
) -> Result<Response, Problem> {
    let der = request_der(&request)?;
    let second = encryption_request.as_deref().map(request_der).transpose()?;
    let enrolled =
        api.service.enrol_device(READER, &granted.actor, &der, second.as_deref()).await?;
    let Enrolled { device, certificate, number, not_after, encryption_certificate, created } =
        enrolled;
    let authority = api.service.authority();
    let location = format!("/v1/readers/{}", device.id);
    let live = LiveCertificate { number, not_after: timestamp(not_after) };
    let enrolment = Json(Enrolment {
        reader: Reader::new(device, None, Some(live)),
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

/// Readers, oldest first; or the one with a serial number.
#[utoipa::path(get, path = "/readers", tag = "readers", params(SerialQuery),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "A part of the list", body = List<Reader>)))]
pub(super) async fn list(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    Params(query): Params<SerialQuery>,
) -> Result<Json<List<Reader>>, Problem> {
    let (serial, cursor, limit) = query.checked()?;
    let page = match serial {
        None => api.service.devices(READER, cursor, limit).await?,
        Some(serial) => match api.service.device_by_serial(READER, &serial).await {
            Ok(record) => Page { items: vec![record], next: None },
            Err(ServiceError::NotFound { .. }) => Page { items: Vec::new(), next: None },
            Err(error) => return Err(error.into()),
        },
    };
    let now = api.service.now();
    Ok(Json(List::mapped(page, |record| Reader::at(now, record))))
}

/// One reader.
#[utoipa::path(get, path = "/readers/{id}", tag = "readers",
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:read"])),
    responses((status = 200, description = "The reader", body = Reader)))]
pub(super) async fn one(
    _granted: Granted<ReadersRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Reader>, Problem> {
    let record = api.service.device(READER, &id.of("reader")?).await?;
    Ok(Json(Reader::at(api.service.now(), record)))
}

/// Blocks a reader: it is refused until it is unblocked.
#[utoipa::path(post, path = "/readers/{id}/block", tag = "readers", request_body = Reason,
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:block"])),
    responses((status = 200, description = "The reader", body = Reader)))]
pub(super) async fn block(
    granted: Granted<ReadersBlock>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Reader>, Problem> {
    let id = id.of("reader")?;
    let record = api.service.block_device(READER, &granted.actor, &id, &reason).await?;
    Ok(Json(Reader::at(api.service.now(), record)))
}

/// Lets a blocked reader in again.
#[utoipa::path(post, path = "/readers/{id}/unblock", tag = "readers",
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:block"])),
    responses((status = 200, description = "The reader", body = Reader)))]
pub(super) async fn unblock(
    granted: Granted<ReadersBlock>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Reader>, Problem> {
    let id = id.of("reader")?;
    let record = api.service.unblock_device(READER, &granted.actor, &id).await?;
    Ok(Json(Reader::at(api.service.now(), record)))
}

/// Revokes a reader's live certificate: it must enrol again.
#[utoipa::path(post, path = "/readers/{id}/revoke", tag = "readers", request_body = Reason,
    params(("id" = String, Path, description = "`rdr_…`")),
    security(("token" = ["readers:block"])),
    responses((status = 200, description = "The reader", body = Reader)))]
pub(super) async fn revoke(
    granted: Granted<ReadersBlock>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Reader>, Problem> {
    let id = id.of("reader")?;
    let record = api.service.revoke_device(READER, &granted.actor, &id, &reason).await?;
    Ok(Json(Reader::at(api.service.now(), record)))
}
