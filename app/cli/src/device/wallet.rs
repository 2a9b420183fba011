//! What the commands of a sleeve and of a manager share (A).

use std::path::Path;

use countersign_crypto::{Secret, UnixTime};
use countersign_device::{DeviceKind, enroll_as, server_suite};
use countersign_server::ambient;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::key::typed;
use super::{Client, provider_of, read_file};
use crate::failure::Failure;
use crate::output::Output;

/// Makes a device of this kind in its directory, and has the server certify it.
pub(super) fn enrolled(
    kind: DeviceKind,
    path: &Path,
    serial: &str,
    client: &Client,
) -> Result<Output, Failure> {
    let api = client.api()?;
    let ambient = ambient();
    let provider = provider_of(server_suite(&api)?)?;
    let (now, mut rng) = (ambient.clock.now(), (ambient.rng)());
    let dir = enroll_as(kind, path, serial, &api, &provider, now, &mut *rng)?;
    let number = dir.certificate_number()?;
    let settings = &dir.settings;
    let text = format!(
        "Enrolled   {} at {}\nSuite      {}\nCertificate {number}\nDirectory  {}",
        settings.serial,
        settings.server_id,
        settings.suite,
        path.display()
    );
    let json = json!({
        "serial": settings.serial,
        "serverId": settings.server_id,
        "suite": settings.suite.name(),
        "certificateNumber": number.to_string(),
        "directory": path,
    });
    Ok(Output::new(json, text))
}

/// A password: the first line of a file, or typed without an echo.
pub(super) fn password(file: Option<&Path>, question: &str) -> Result<Secret, Failure> {
    let Some(path) = file else { return typed(question) };
    let text = Zeroizing::new(read_file(path)?);
    // Blanks may be its own.
    Ok(Secret::copied_from(text.lines().next().unwrap_or_default().as_bytes()))
}

/// A time in the form of RFC 3339.
pub(super) fn time(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).ok();
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.to_string())
}
