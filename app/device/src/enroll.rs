//! Enrolment: key here, certificate from the server (E1's shape; used by every kind of device).

use std::path::Path;

use countersign_crypto::{CryptoRng, Provider, UnixTime};
use countersign_pki::{Identity, PkiError, Role, request};
use pem::Pem;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device_dir::Certificates;
use crate::{Api, ApiError, DeviceDir, DeviceDirError};

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
}

#[derive(Serialize)]
struct EnrollRequest {
    request: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EnrollAnswer {
    certificate: String,
    device_issuer: String,
    server_issuer: String,
    root: String,
    server_id: String,
}

/// Makes (or finds) the device's key in `dir`, has the server certify it as reader `serial`, checks
/// and stores the answer. Blocking. Repeating it after a break-off is safe.
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
    let mut dir = DeviceDir::open_or_make(dir, serial, provider, rng)?;
    let key = dir.key(provider)?;
    let identity = Identity::new(Role::Reader, serial)?;
    let der = request(provider, &identity, &*key, rng)?;
    let body = EnrollRequest { request: pem::encode(&Pem::new("CERTIFICATE REQUEST", der)) };
    let answer: EnrollAnswer = api.post("/v1/readers", &body)?;
    let certificates = Certificates {
        own: &answer.certificate,
        device_issuer: &answer.device_issuer,
        server_issuer: &answer.server_issuer,
        root: &answer.root,
    };
    dir.store_enrolment(&answer.server_id, &certificates, provider, now)?;
    Ok(dir)
}
