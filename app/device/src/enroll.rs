//! Enrolment: key here, certificate from the server (E1's shape; used by every kind of device).

use std::path::Path;

use countersign_crypto::{CryptoRng, Provider, Suite, UnixTime};
use countersign_pki::{Identity, PkiError, encryption_request, request};
use pem::Pem;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device_dir::Certificates;
use crate::{Api, ApiError, DeviceDir, DeviceDirError, DeviceKind};

/// Why a device was not enrolled.
#[derive(Debug, Error)]
pub enum EnrollError {
    /// The device's own directory.
    #[error(transparent)]
    Dir(#[from] DeviceDirError),
    /// The server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The request could not be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The server's certificates are of a suite that this program does not have.
    #[error("the server's suite is {0}, which this program does not have")]
    UnknownSuite(String),
}

#[derive(Deserialize)]
struct Terms {
    suite: String,
}

/// In which suite the server certifies devices: to be asked before a key is made. Blocking.
///
/// # Errors
/// [`EnrollError::Api`] or [`EnrollError::UnknownSuite`].
pub fn server_suite(api: &Api) -> Result<Suite, EnrollError> {
    let Terms { suite } = api.get("/v1/enrolment")?;
    Suite::from_name(&suite).ok_or(EnrollError::UnknownSuite(suite))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EnrollRequest {
    request: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_request: Option<String>,
}

impl EnrollRequest {
    fn pem(der: Vec<u8>) -> String {
        pem::encode(&Pem::new("CERTIFICATE REQUEST", der))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnrollAnswer {
    certificate: String,
    encryption_certificate: Option<String>,
    device_issuer: String,
    server_issuer: String,
    root: String,
    server_id: String,
}

/// Makes (or finds) the reader's keys in `dir`, has the server certify them as reader `serial`,
/// checks and stores the answer. `provider` is of the [`server_suite`]; where that has encryption
/// certificates, there are two keys. Blocking. Repeating it after a break-off is safe.
///
/// # Errors
/// [`EnrollError`].
pub fn enroll(
    dir: &Path,
    serial: &str,
    api: &Api,
    provider: &Provider,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<DeviceDir, EnrollError> {
    enroll_as(DeviceKind::Reader, dir, serial, api, provider, now, rng)
}

/// [`enroll`] for a device of any kind.
///
/// # Errors
/// [`EnrollError`].
pub fn enroll_as(
    kind: DeviceKind,
    dir: &Path,
    serial: &str,
    api: &Api,
    provider: &Provider,
    now: UnixTime,
    rng: &mut dyn CryptoRng,
) -> Result<DeviceDir, EnrollError> {
    let mut dir = DeviceDir::open_or_make_of(kind, dir, serial, provider, rng)?;
    let key = dir.key(provider)?;
    let identity = Identity::new(kind.role(), serial)?;
    let der = request(provider, &identity, &*key, rng)?;
    let second = match dir.encryption_signer(provider)? {
        Some(key) => Some(encryption_request(provider, &identity, &*key, rng)?),
        None => None,
    };
    let body = EnrollRequest {
        request: EnrollRequest::pem(der),
        encryption_request: second.map(EnrollRequest::pem),
    };
    let answer: EnrollAnswer = api.post(kind.path(), &body)?;
    let certificates = Certificates {
        own: &answer.certificate,
        encryption: answer.encryption_certificate.as_deref(),
        device_issuer: &answer.device_issuer,
        server_issuer: &answer.server_issuer,
        root: &answer.root,
    };
    dir.store_enrolment(&answer.server_id, &certificates, provider, now)?;
    Ok(dir)
}
