//! `/v1/phones`, payers' phones as operators see them, and `/v1/phone`, what a phone itself asks
//! (D2): its payments and its pushes.

use std::collections::HashSet;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use countersign_service::{AllowedPhone, PhoneDevice, ServiceError, SessionKey};
use countersign_store::{PhonePayment, PhoneRecord};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::auth::{Granted, SecurityDevicesManage, SecurityDevicesRead};
use super::body::{Body, NoBody, SecretBody};
use super::granted::PhoneGranted;
use super::json::{List, timestamp};
use super::problem::Problem;
use super::query::{Id, Paging, Params, Peer};
use super::readers::Reason;
use super::security_devices::{Account, Bind, Unbind};
use super::sse::Events;
use super::terminals::Code;

/// How often a stream looks without being woken: what a lost notice costs at most. Nothing is sent
/// before the token was looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// A payer's phone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Phone)]
pub(super) struct Phone {
    /// `phn_…`.
    id: String,
    /// For people.
    label: String,
    /// `allowed` (may enrol), `enrolled` or `revoked`.
    #[schema(example = "enrolled")]
    state: &'static str,
    /// The accounts whose payments it is told of.
    accounts: Vec<Account>,
    /// When it was allowed.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when its enrolment code may be used; null without an open one.
    #[schema(required, format = DateTime)]
    code_expires_at: Option<String>,
    /// When it got its token.
    #[schema(required, format = DateTime)]
    enrolled_at: Option<String>,
    /// When it last came, to the minute.
    #[schema(required, format = DateTime)]
    seen_at: Option<String>,
    /// When it was revoked.
    #[schema(required, format = DateTime)]
    revoked_at: Option<String>,
    /// Why.
    #[schema(required)]
    revoke_reason: Option<String>,
}

impl From<PhoneRecord> for Phone {
    fn from(record: PhoneRecord) -> Self {
        let state = record.state().name();
        let PhoneRecord { phone, accounts } = record;
        Self {
            id: phone.id,
            label: phone.label,
            state,
            accounts: accounts.into_iter().map(Into::into).collect(),
            created_at: timestamp(phone.created_at),
            code_expires_at: phone.code_expires_at.map(timestamp),
            enrolled_at: phone.enrolled_at.map(timestamp),
            seen_at: phone.seen_at.map(timestamp),
            revoked_at: phone.revoked_at.map(timestamp),
            revoke_reason: phone.revoke_reason,
        }
    }
}

/// A phone that is to be allowed to enrol.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = AllowPhoneRequest)]
pub(super) struct Allow {
    /// For people: 1 to 64 characters.
    label: String,
    /// The accounts whose payments it is told of: ids or numbers, at most 16.
    accounts: Vec<String>,
}

/// A phone that may enrol, and its code.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AllowedPhone)]
pub(super) struct Allowed {
    /// The phone.
    phone: Phone,
    /// Lets it enrol once. Shown once: only its hash is kept.
    #[schema(example = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX")]
    enrolment_code: String,
    /// Until when the code may be used.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<AllowedPhone> for Allowed {
    fn from(allowed: AllowedPhone) -> Self {
        Self {
            phone: allowed.record.into(),
            enrolment_code: allowed.code.expose().to_owned(),
            expires_at: timestamp(allowed.expires_at),
        }
    }
}

/// Allows a phone to enrol and gives it a one-time code.
#[utoipa::path(post, path = "/phones", tag = "phones", operation_id = "allow_phone",
    request_body = Allow, security(("token" = ["security-devices:manage"])),
    responses((status = 201, description = "It may enrol", body = Allowed,
        headers(("Location" = String, description = "The phone")))))]
pub(super) async fn allow(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    Body(Allow { label, accounts }): Body<Allow>,
) -> Result<Response, Problem> {
    let allowed = api.service.allow_phone(&granted.actor, &label, &accounts).await?;
    let location = format!("/v1/phones/{}", allowed.record.phone.id);
    let body = Json(Allowed::from(allowed));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], body).into_response())
}

/// Phones, oldest first.
#[utoipa::path(get, path = "/phones", tag = "phones", operation_id = "phones", params(Paging),
    security(("token" = ["security-devices:read"])),
    responses((status = 200, description = "A part of the list", body = List<Phone>)))]
pub(super) async fn list(
    _granted: Granted<SecurityDevicesRead>,
    State(api): State<Api>,
    Params(paging): Params<Paging>,
) -> Result<Json<List<Phone>>, Problem> {
    let (cursor, limit) = paging.checked()?;
    Ok(Json(List::of(api.service.phones(cursor, limit).await?)))
}

/// One phone.
#[utoipa::path(get, path = "/phones/{id}", tag = "phones", operation_id = "phone",
    params(("id" = String, Path, description = "`phn_…`")),
    security(("token" = ["security-devices:read"])),
    responses((status = 200, description = "The phone", body = Phone)))]
pub(super) async fn one(
    _granted: Granted<SecurityDevicesRead>,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Phone>, Problem> {
    Ok(Json(api.service.phone(&id.of("phone")?).await?.into()))
}

/// Gives a phone another enrolment code; using it makes the phone's token void.
#[utoipa::path(post, path = "/phones/{id}/code", tag = "phones",
    operation_id = "renew_phone_code", params(("id" = String, Path, description = "`phn_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The code, shown once", body = Allowed)))]
pub(super) async fn renew_code(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    _: NoBody,
) -> Result<Json<Allowed>, Problem> {
    Ok(Json(api.service.renew_phone_code(&granted.actor, &id.of("phone")?).await?.into()))
}

/// Has a phone told of the payments of further accounts.
#[utoipa::path(post, path = "/phones/{id}/bind", tag = "phones", operation_id = "bind_phone",
    request_body = Bind, params(("id" = String, Path, description = "`phn_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The phone", body = Phone)))]
pub(super) async fn bind(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Bind { accounts }): Body<Bind>,
) -> Result<Json<Phone>, Problem> {
    let id = id.of("phone")?;
    Ok(Json(api.service.bind_phone(&granted.actor, &id, &accounts).await?.into()))
}

/// Takes an account away from a phone.
#[utoipa::path(post, path = "/phones/{id}/unbind", tag = "phones", operation_id = "unbind_phone",
    request_body = Unbind, params(("id" = String, Path, description = "`phn_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The phone", body = Phone)))]
pub(super) async fn unbind(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Unbind { account }): Body<Unbind>,
) -> Result<Json<Phone>, Problem> {
    let id = id.of("phone")?;
    Ok(Json(api.service.unbind_phone(&granted.actor, &id, &account).await?.into()))
}

/// Revokes a phone for good: its token is refused at once.
#[utoipa::path(post, path = "/phones/{id}/revoke", tag = "phones", operation_id = "revoke_phone",
    request_body = Reason, params(("id" = String, Path, description = "`phn_…`")),
    security(("token" = ["security-devices:manage"])),
    responses((status = 200, description = "The phone", body = Phone)))]
pub(super) async fn revoke(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    id: Id,
    Body(Reason { reason }): Body<Reason>,
) -> Result<Json<Phone>, Problem> {
    let id = id.of("phone")?;
    Ok(Json(api.service.revoke_phone(&granted.actor, &id, &reason).await?.into()))
}

/// What a phone sends to be enrolled.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolPhoneRequest)]
pub(super) struct Enrol {
    /// The one-time code.
    #[schema(value_type = String, example = "ABCD-EFGH-IJKL-MNOP-QRST-UVWX")]
    code: Code,
    /// A browser's key: from then on each request needs a proof made with it. A program has none.
    #[serde(default)]
    session_key: Option<Jwk>,
}

/// The public key of a browser's phone: a P-256 key as a JWK (RFC 7517) of these four members.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SessionKey)]
pub(super) struct Jwk {
    /// `EC`.
    #[schema(example = "EC")]
    kty: String,
    /// `P-256`.
    #[schema(example = "P-256")]
    crv: String,
    /// 32 bytes in base64url without padding.
    x: String,
    /// 32 bytes in base64url without padding.
    y: String,
}

impl Jwk {
    fn key(&self) -> Result<SessionKey, ServiceError> {
        SessionKey::from_jwk(&self.kty, &self.crv, &self.x, &self.y)
    }
}

/// A phone and its token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneEnrolment)]
pub(super) struct Enrolment {
    /// The phone.
    phone: Phone,
    /// `csp_…`: what the phone proves itself by. Shown once: only its hash is kept.
    token: String,
    /// The id in this server's certificate.
    server_id: String,
}

/// Enrols a phone for its one-time code; no token is needed.
#[utoipa::path(post, path = "/phone/enrolments", tag = "phone", operation_id = "enrol_phone",
    request_body = Enrol,
    responses(
        (status = 201, description = "Enrolled", body = Enrolment),
        (status = 403, description = "`enrolment-code`: wrong, expired or used, with an incident \
             id in the detail",
            body = super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "`session-key`: no P-256 key",
            body = super::problem::Document, content_type = "application/problem+json"),
    ))]
pub(super) async fn enrol(
    State(api): State<Api>,
    peer: Peer,
    SecretBody(Enrol { code, session_key }): SecretBody<Enrol>,
) -> Result<Response, Problem> {
    let session_key = session_key.as_ref().map(Jwk::key).transpose()?;
    let enrolled = api.service.enrol_phone(&peer.0, &code.0, session_key).await?;
    let body = Json(Enrolment {
        phone: enrolled.record.into(),
        token: enrolled.token.as_str().to_owned(),
        server_id: api.service.authority().server_id.clone(),
    });
    Ok((StatusCode::CREATED, body).into_response())
}

/// The phone whose token this is.
#[utoipa::path(get, path = "/phone", tag = "phone", operation_id = "own_phone",
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses((status = 200, description = "The phone", body = Phone)))]
pub(super) async fn own(granted: PhoneGranted) -> Json<Phone> {
    Json(granted.phone.record.into())
}

/// A payment as a phone of its payer sees it.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhonePayment)]
pub(super) struct Payment {
    /// `pay_…`.
    id: String,
    /// The push by which this phone was told of it; null if it was not.
    #[schema(required)]
    push_id: Option<String>,
    /// Where it stands.
    #[schema(example = "pending")]
    status: &'static str,
    /// Why it ended as it did; null if nothing is to be said.
    #[schema(required)]
    status_reason: Option<String>,
    /// The very bytes that the security device is to show and sign, in base64url without padding.
    request: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// Until when it may be answered.
    #[schema(format = DateTime)]
    expires_at: String,
}

impl From<PhonePayment> for Payment {
    fn from(payment: PhonePayment) -> Self {
        Self {
            id: payment.id,
            push_id: payment.push_id,
            status: payment.state.name(),
            status_reason: payment.reason,
            request: BASE64URL_NOPAD.encode(&payment.request),
            created_at: timestamp(payment.created_at),
            expires_at: timestamp(payment.expires_at),
        }
    }
}

/// The payments that wait for this phone's answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhonePayments)]
pub(super) struct Payments {
    /// Oldest first, the newest 100.
    items: Vec<Payment>,
}

/// The payments that wait for this phone's answer.
#[utoipa::path(get, path = "/phone/payments", tag = "phone", operation_id = "phone_payments",
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses((status = 200, description = "What waits", body = Payments)))]
pub(super) async fn payments(
    granted: PhoneGranted,
    State(api): State<Api>,
) -> Result<Json<Payments>, Problem> {
    let waiting = api.service.phone_payments(&granted.phone).await?;
    Ok(Json(Payments { items: waiting.into_iter().map(Into::into).collect() }))
}

/// A payment of one of this phone's accounts, or the one behind a push.
#[utoipa::path(get, path = "/phone/payments/{id}", tag = "phone", operation_id = "phone_payment",
    params(("id" = String, Path, description = "`pay_…`, or a push's `psh_…`")),
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses((status = 200, description = "The payment", body = Payment)))]
pub(super) async fn payment(
    granted: PhoneGranted,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Payment>, Problem> {
    Ok(Json(api.service.phone_payment(&granted.phone, &id.of("payment")?).await?.into()))
}

/// A security device that can answer a payment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = PhoneDevice)]
pub(super) struct Device {
    /// Its serial number.
    serial: String,
    /// For people.
    label: String,
    /// How it answers: `pki` or `ocra`.
    #[schema(example = "ocra")]
    method: &'static str,
}

impl From<PhoneDevice> for Device {
    fn from(PhoneDevice { serial, label, method }: PhoneDevice) -> Self {
        Self { serial, label, method: method.name() }
    }
}

/// The devices that can answer a payment.
#[derive(Serialize, ToSchema)]
#[schema(as = PhoneDevices)]
pub(super) struct Devices {
    /// Only those that are usable now.
    items: Vec<Device>,
}

/// The security devices by which a payment can be answered from a phone. A signing card is none:
/// it confirms at a terminal.
#[utoipa::path(get, path = "/phone/payments/{id}/devices", tag = "phone",
    operation_id = "phone_devices", params(("id" = String, Path, description = "`pay_…`")),
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses((status = 200, description = "All of them", body = Devices)))]
pub(super) async fn devices(
    granted: PhoneGranted,
    State(api): State<Api>,
    id: Id,
) -> Result<Json<Devices>, Problem> {
    let devices = api.service.phone_devices(&granted.phone, &id.of("payment")?).await?;
    Ok(Json(Devices { items: devices.into_iter().map(Into::into).collect() }))
}

/// Pushes: at first all that wait, then each as it comes.
///
/// An event `push` carries the id of a push and nothing else; `/v1/phone/payments/{id}` says what
/// is behind it. A phone that comes back is told again of what still waits. The stream ends when
/// the phone is revoked.
#[utoipa::path(get, path = "/phone/events", tag = "phone", operation_id = "phone_events",
    security(("phone" = []), ("boundPhone" = [], "proof" = [])),
    responses((status = 200, description = "Server-sent events", body = String,
        content_type = "text/event-stream")))]
pub(super) async fn events(
    granted: PhoneGranted,
    State(api): State<Api>,
) -> Result<Response, Problem> {
    let owner = granted.phone.id().to_owned();
    let streams = api.streams.clone();
    streams.answer(&owner, move |events| send_pushes(api, granted, events))
}

/// Looks, sends, waits, looks again: until the client goes or its token is void.
async fn send_pushes(api: Api, granted: PhoneGranted, events: Events) {
    let mut phone = granted.phone.clone();
    let mut listener = api.service.listen_for_phone(&phone);
    // What was sent in this stream and still waits.
    let mut sent = HashSet::new();
    loop {
        match api.service.take_pushes(&phone).await {
            Ok(waiting) => {
                let ids: HashSet<String> = waiting.iter().map(|push| push.id.clone()).collect();
                sent.retain(|id| ids.contains(id));
                let new = waiting.into_iter().filter(|push| !sent.contains(&push.id));
                let new: Vec<String> = new.map(|push| push.id).collect();
                for id in &new {
                    let data = serde_json::json!({ "id": id }).to_string();
                    if !events.send("push", id, &data).await {
                        return;
                    }
                }
                sent.extend(new.iter().cloned());
                // Sent, but perhaps not got: that is why what waits is sent again.
                if let Err(error) = api.service.delivered(&phone, new).await {
                    tracing::debug!(%error, "deliveries could not be noted");
                }
            }
            Err(error) => tracing::debug!(%error, "pushes cannot be looked for now"),
        }
        let _woken_or_late = tokio::time::timeout(LOOK_EVERY, listener.changed()).await;
        match granted.again(&api.service).await {
            Ok(still) => phone = still,
            Err(ServiceError::Unauthenticated) => return,
            // The database is away: nothing can be sent either, and the next turn asks again.
            Err(error) => tracing::debug!(%error, "a phone's token cannot be checked now"),
        }
    }
}
