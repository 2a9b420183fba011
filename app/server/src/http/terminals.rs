//! `/v1/terminals`: the allow-list, enrolment by one-time code, and what operators do with a
//! terminal (E1, E2).

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_crypto::{Secret, UnixTime};
use countersign_service::{AllowedTerminal, ServiceError, TerminalRequest};
use countersign_store::{CertificateState, DeviceKind, Page, TerminalRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::approvals::{Approval, Approved, gated};
use super::auth::{Granted, TerminalsManage, TerminalsRead};
use super::body::{Body, NoBody, SecretBody};
use super::json::{List, certificate_pem, request_der, timestamp};
use super::problem::Problem;
use super::query::{Id, Params, Peer, SerialQuery};
use super::readers::{Reason, Terms};

const TERMINAL: DeviceKind = DeviceKind::Terminal;

/// A terminal.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Terminal {
    /// `trm_…`.
    id: String,
    /// Its serial number.
    serial: String,
    /// Its model.
    model: String,
    /// Whose it is.
    owner: String,
    /// `allowed` (may enrol), `enrolled`, `bound` (to a KDH), `unbound` or `blocked`.
    #[schema(example = "bound")]
    state: &'static str,
    /// Why it is blocked; null if it is not.
    #[schema(required)]
    block_reason: Option<String>,
    /// When it was put on the list.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when its enrolment code may be used; null if it was used.
    #[schema(required, format = DateTime)]
    code_expires_at: Option<String>,
    /// The number of its channel certificate; null without a live one.
    #[schema(required)]
    certificate_number: Option<String>,
    /// Its RSA certificate; null without a live one.
    #[schema(required)]
    krd_certificate: Option<KrdCertificate>,
    /// The KDH that it is bound to, `rka_…`; null if it is not.
    #[schema(required)]
    bound_kdh: Option<String>,
    /// Since when.
    #[schema(required, format = DateTime)]
    bound_at: Option<String>,
    /// Whether it is to be unbound at its next contact.
    unbind_asked: bool,
}

/// A terminal's RSA certificate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KrdCertificate {
    /// The Sub_CA_KRD that certified it, `rka_…`.
    issuer_id: String,
    /// Its serial number, lower-case hexadecimal.
    serial: String,
    /// Until when it holds.
    #[schema(format = DateTime)]
    not_after: String,
    /// The certificate, PEM.
    certificate: String,
}

impl Terminal {
    pub(super) fn at(now: UnixTime, record: TerminalRecord) -> Self {
        let state = record.state(now).name();
        let blocked = record.device.blocked(now).map(str::to_owned);
        let TerminalRecord { device, terminal, krd } = record;
        let channel = device.certificate.filter(|live| live.state == CertificateState::Issued);
        let krd = krd.filter(|live| live.state == CertificateState::Issued);
        let unused = terminal.code_used_at.is_none();
        Self {
            id: device.device.id,
            serial: device.device.serial,
            model: terminal.model,
            owner: terminal.owner,
            state,
            block_reason: blocked,
            created_at: timestamp(device.device.created_at),
            code_expires_at: terminal.code_expires_at.filter(|_| unused).map(timestamp),
            certificate_number: channel.map(|live| live.number),
            krd_certificate: krd.map(|live| KrdCertificate {
                issuer_id: live.issuer_id,
                serial: live.serial,
                not_after: timestamp(live.not_after),
                certificate: certificate_pem(&live.der.unwrap_or_default()),
            }),
            bound_kdh: terminal.bound_kdh,
            bound_at: terminal.bound_at.map(timestamp),
            unbind_asked: terminal.unbind_asked_at.is_some(),
        }
    }
}

/// A terminal that is to be allowed to enrol.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = AllowTerminalRequest)]
pub(super) struct Allow {
    /// Its serial number: 1 to 64 characters of A-Z a-z 0-9 . _ -
    serial: String,
    /// Its model, at most 128 bytes.
    #[serde(default)]
    model: String,
    /// Whose it is, at most 128 bytes.
    #[serde(default)]
    owner: String,
}

/// A terminal that may enrol, and its code.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AllowedTerminal)]
pub(super) struct Allowed {
    /// The terminal.
    terminal: Terminal,
    /// Lets it enrol once. Shown once: only its hash is kept.
    #[schema(example = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX")]
    enrolment_code: String,
    /// Until when the code may be used.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl Allowed {
    fn at(now: UnixTime, allowed: AllowedTerminal) -> Self {
        Self {
            terminal: Terminal::at(now, allowed.record),
            enrolment_code: allowed.code.expose().to_owned(),
            expires_at: timestamp(allowed.expires_at),
        }
    }
}

/// Puts a terminal on the allow-list.
#[utoipa::path(post, path = "/terminals", tag = "terminals", operation_id = "allow_terminal",
    request_body = Allow, security(("token" = ["terminals:manage"])),
    responses(
        (status = 201, description = "It may enrol", body = Allowed,
            headers(("Location" = String, description = "The terminal"))),
        (status = 409, description = "`terminal-serial-taken`: it is on the list",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn allow(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    Body(Allow { serial, model, owner }): Body<Allow>,
) -> Result<Response, Problem> {
    let allowed = api.service.allow_terminal(&granted.actor, &serial, &model, &owner).await?;
    let location = format!("/v1/terminals/{}", allowed.record.device.device.id);
    let body = Json(Allowed::at(api.service.now(), allowed));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Gives a terminal another enrolment code; the one before is void.
#[utoipa::path(post, path = "/terminals/{id}/code", tag = "terminals",
    operation_id = "renew_enrolment_code",
    params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:manage"])),
    responses((status = 200, description = "The code, shown once", body = Allowed)))]
pub(super) async fn renew_code(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Allowed>, Problem> {
    let renewed = api.service.renew_enrolment_code(&granted.actor, &id.of("terminal")?).await?;
    Ok(Json(Allowed::at(api.service.now(), renewed)))
}

/// Terminals, oldest first.
#[utoipa::path(get, path = "/terminals", tag = "terminals", operation_id = "terminals",
    params(SerialQuery), security(("token" = ["terminals:read"])),
    responses((status = 200, description = "A part of the list", body = List<Terminal>)))]
pub(super) async fn list(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    Params(query): Params<SerialQuery>,
) -> Result<Json<List<Terminal>>, Problem> {
    let (serial, cursor, limit) = query.checked()?;
    let page = match serial {
        None => api.service.terminals(cursor, limit).await?,
        Some(serial) => match api.service.terminal_by_serial(&serial).await {
            Ok(record) => Page { items: vec![record], next: None },
            Err(ServiceError::NotFound { .. }) => Page { items: Vec::new(), next: None },
            Err(error) => return Err(error.into()),
        },
    };
    let now = api.service.now();
    Ok(Json(List::mapped(page, |record| Terminal::at(now, record))))
}

/// One terminal.
#[utoipa::path(get, path = "/terminals/{id}", tag = "terminals", operation_id = "terminal",
    params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:read"])),
    responses((status = 200, description = "The terminal", body = Terminal)))]
pub(super) async fn one(
    _granted: Granted<TerminalsRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Terminal>, Problem> {
    shown(&api, &id.of("terminal")?).await
}

async fn shown(api: &Api, id: &str) -> Result<Json<Terminal>, Problem> {
    let record = api.service.terminal_record(id).await?;
    Ok(Json(Terminal::at(api.service.now(), record)))
}

/// Blocks a terminal: it is refused until it is unblocked.
#[utoipa::path(post, path = "/terminals/{id}/block", tag = "terminals", request_body = Reason,
    operation_id = "block_terminal", params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:manage"])),
    responses((status = 200, description = "The terminal", body = Terminal)))]
pub(super) async fn block(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Terminal>, Problem> {
    let id = id.of("terminal")?;
    api.service.block_device(TERMINAL, &granted.actor, &id, &reason).await?;
    shown(&api, &id).await
}

/// Lets a blocked terminal in again.
#[utoipa::path(post, path = "/terminals/{id}/unblock", tag = "terminals",
    operation_id = "unblock_terminal", params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:manage"])),
    responses((status = 200, description = "The terminal", body = Terminal)))]
pub(super) async fn unblock(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Terminal>, Problem> {
    let id = id.of("terminal")?;
    api.service.unblock_device(TERMINAL, &granted.actor, &id).await?;
    shown(&api, &id).await
}

/// Revokes a terminal's certificates, the RSA one by CRL: it must enrol again, with a new code.
#[utoipa::path(post, path = "/terminals/{id}/revoke", tag = "terminals", request_body = Reason,
    operation_id = "revoke_terminal", params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:manage"])),
    responses((status = 200, description = "The terminal", body = Terminal)))]
pub(super) async fn revoke(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Terminal>, Problem> {
    let id = id.of("terminal")?;
    api.service.revoke_device(TERMINAL, &granted.actor, &id, &reason).await?;
    shown(&api, &id).await
}

/// Asks for a terminal to be unbound from its KDH at its next contact.
#[utoipa::path(post, path = "/terminals/{id}/unbind", tag = "terminals", request_body = Approved,
    operation_id = "unbind_terminal", params(("id" = String, Path, description = "`trm_…`")),
    security(("token" = ["terminals:manage"])),
    responses(
        (status = 200, description = "The terminal", body = Terminal),
        (status = 202, description = "Others must agree first", body = Approval),
        (status = 409, description = "`terminal-not-bound`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn unbind(
    granted: Granted<TerminalsManage>,
    State(api): State<Api>,
    id: Id,
    Body(Approved { approval_id }): Body<Approved>,
) -> Result<Response, Problem> {
    let id = id.of("terminal")?;
    let asked = api.service.ask_unbind(&granted.actor, &id, approval_id.as_deref()).await?;
    let now = api.service.now();
    Ok(gated(asked, |record| (StatusCode::OK, None, Terminal::at(now, record))))
}

/// In which suite this server certifies channels of terminals. Needs no token.
#[utoipa::path(get, path = "/terminals/terms", tag = "terminals",
    operation_id = "terminal_terms",
    responses((status = 200, description = "What a request has to be made with", body = Terms)))]
pub(super) async fn terms(State(api): State<Api>) -> Result<Json<Terms>, Problem> {
    Terms::of(&api).map(Json)
}

/// What a terminal sends to be enrolled.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolTerminalRequest)]
pub(super) struct Enrol {
    /// Its serial number.
    serial: String,
    /// The one-time code.
    #[schema(value_type = String, example = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX")]
    code: Code,
    /// PKCS#10 for the channel's key: PEM, or base64 of its DER.
    request: String,
    /// PKCS#10 for the RSA key: PEM, or base64 of its DER.
    krd_request: String,
}

/// A code in a body: wiped, and shown nowhere.
#[derive(Deserialize)]
#[serde(from = "String")]
pub(super) struct Code(pub(super) Secret);

impl From<String> for Code {
    fn from(text: String) -> Self {
        Self(Secret::new(text.into_bytes()))
    }
}

/// What a terminal needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TerminalEnrolment)]
pub(super) struct Enrolment {
    /// The terminal.
    terminal: Terminal,
    /// Its channel certificate, PEM.
    certificate: String,
    /// Its RSA certificate, PEM.
    krd_certificate: String,
    /// The Sub_CA_KRD that issued that, PEM.
    ca_krd: String,
    /// The CA_KDH that certifies KDHs, PEM: to be pinned.
    ca_kdh: String,
    /// The root of both, PEM: to be pinned.
    rki_root: String,
    /// The certificate of the CA that issued the channel certificate, PEM.
    device_issuer: String,
    /// The certificate of the CA that issued this server's, PEM.
    server_issuer: String,
    /// The root of these two, PEM.
    root: String,
    /// The id in this server's certificate.
    server_id: String,
}

/// Enrols a terminal that is on the allow-list, for its one-time code; no token is needed.
///
/// Repeating it with the same keys and code answers 200 and the same certificates.
#[utoipa::path(post, path = "/terminals/enrolments", tag = "terminals",
    operation_id = "enrol_terminal", request_body = Enrol,
    responses(
        (status = 201, description = "Enrolled", body = Enrolment,
            headers(("Location" = String, description = "The terminal"))),
        (status = 200, description = "Was enrolled with these keys before", body = Enrolment),
        (status = 403, description = "`terminal-not-allowed`; `enrolment-code`: wrong, expired or \
             used, with an incident id in the detail",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = 409, description = "`device-blocked`, `serial-taken`, `rki-not-initialised`",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol(
    State(api): State<Api>,
    peer: Peer,
    SecretBody(Enrol { serial, code, request, krd_request }): SecretBody<Enrol>,
) -> Result<Response, Problem> {
    let (channel, krd) = (request_der(&request)?, request_der(&krd_request)?);
    let asked = TerminalRequest { serial, code: code.0, channel, krd };
    let enrolled = api.service.enrol_terminal(&peer.0, asked).await?;
    let authority = api.service.authority();
    let location = format!("/v1/terminals/{}", enrolled.record.device.device.id);
    let hierarchy = &enrolled.hierarchy;
    let enrolment = Json(Enrolment {
        certificate: certificate_pem(&enrolled.certificate),
        krd_certificate: certificate_pem(&enrolled.krd),
        ca_krd: certificate_pem(enrolled.ca_krd.raw()),
        ca_kdh: certificate_pem(hierarchy.ca_kdh.raw()),
        rki_root: certificate_pem(hierarchy.root.raw()),
        device_issuer: certificate_pem(&authority.device_issuer),
        server_issuer: certificate_pem(&authority.server_issuer),
        root: certificate_pem(&authority.root),
        server_id: authority.server_id.clone(),
        terminal: Terminal::at(api.service.now(), enrolled.record),
    });
    Ok(if enrolled.created {
        (StatusCode::CREATED, [(header::LOCATION, location)], enrolment).into_response()
    } else {
        enrolment.into_response()
    })
}
