//! `/v1/devices/joint`: signing cards, which confirm by a signature and a joint password (B1).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use countersign_service::{Authority, SignerToEnrol};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize;

use super::super::Api;
use super::super::auth::{Granted, SecurityDevicesManage};
use super::super::body::Body;
use super::super::json::{certificate_pem, request_der};
use super::super::problem::{Document, Problem};
use super::{SecurityDevice, ServerChain};

/// A signing card.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = EnrolJointRequest)]
pub(in super::super) struct EnrolJoint {
    /// The card's PKCS#10 request: PEM, or base64 of its DER.
    request: String,
    /// For people: 1 to 64 characters.
    label: String,
    /// The accounts that it confirms payments from: ids or numbers, at most 16.
    accounts: Vec<String>,
}

/// What a card needs to seal a joint password to this server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct SealTo {
    /// This server's encryption certificate, PEM.
    server_encryption_certificate: String,
}

impl SealTo {
    pub(in super::super) fn of(authority: &Authority) -> Self {
        let certificate = certificate_pem(&authority.server_encryption.certificate);
        Self { server_encryption_certificate: certificate }
    }
}

/// What a signing card needs to begin its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in super::super) struct JointEnrolment {
    /// The card.
    device: SecurityDevice,
    /// Its certificate, PEM.
    certificate: String,
    /// The certificate of the CA that issued it, PEM.
    device_issuer: String,
    #[serde(flatten)]
    chain: ServerChain,
    #[serde(flatten)]
    seal_to: SealTo,
    /// The id in this server's certificate.
    server_id: String,
    /// 32 bytes that the card and this server alone know, in hex. Shown once.
    shared_key: String,
}

impl Drop for JointEnrolment {
    fn drop(&mut self) {
        self.shared_key.zeroize();
    }
}

/// Enrols a signing card.
///
/// Repeating it with the same key pair answers 200, the same certificate and another shared key:
/// the one before is void.
#[utoipa::path(post, path = "/devices/joint", tag = "security devices",
    operation_id = "enrol_joint_device", request_body = EnrolJoint,
    security(("token" = ["security-devices:manage"])),
    responses(
        (status = 201, description = "Enrolled", body = JointEnrolment,
            headers(("Location" = String, description = "The device"))),
        (status = 200, description = "Was enrolled with this key pair before",
            body = JointEnrolment),
        (status = 409, description = "`serial-taken`, `device-blocked`, `signer-method`",
            body = Document, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn enrol_joint(
    granted: Granted<SecurityDevicesManage>,
    State(api): State<Api>,
    Body(EnrolJoint { request, label, accounts }): Body<EnrolJoint>,
) -> Result<Response, Problem> {
    let der = request_der(&request)?;
    let new = SignerToEnrol { label, accounts };
    let card = api.service.enrol_joint(&granted.actor, &der, &new).await?;
    let authority = api.service.authority();
    let location = format!("/v1/devices/{}", card.record.signer.device_id);
    let enrolment = Json(JointEnrolment {
        device: SecurityDevice::at(api.service.now(), card.record),
        certificate: certificate_pem(&card.enrolled.certificate),
        device_issuer: certificate_pem(&authority.device_issuer),
        chain: ServerChain::of(authority),
        seal_to: SealTo::of(authority),
        server_id: authority.server_id.clone(),
        shared_key: HEXLOWER.encode(card.key.expose()),
    });
    Ok(if card.enrolled.created {
        (StatusCode::CREATED, [(LOCATION, location)], enrolment).into_response()
    } else {
        enrolment.into_response()
    })
}
