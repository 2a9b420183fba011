//! What a store says of SAM hosts, to servers that use them (C12).

use countersign_pki::CertificateNumber;
use countersign_store::{CertificateState, DeviceKind, DeviceStatus, Store};

use crate::SamHostRefused;

/// What a store says of the SAM host with this serial number, which has shown the certificate with
/// this number. A store that cannot be asked refuses nobody.
///
/// # Errors
/// [`SamHostRefused`].
pub async fn vouch_for_sam_host(
    store: &Store,
    serial: &str,
    number: &CertificateNumber,
) -> Result<(), SamHostRefused> {
    let serial = serial.to_owned();
    let found = store
        .read("sam_host_vouch", move |tx| tx.device_by_serial(DeviceKind::SamHost, &serial))
        .await;
    let record = match found {
        Ok(record) => record.ok_or(SamHostRefused::Unknown)?,
        Err(error) => {
            tracing::warn!(%error, "the store cannot be asked about a SAM host");
            return Ok(());
        }
    };
    if record.device.status == DeviceStatus::Blocked {
        return Err(SamHostRefused::Blocked);
    }
    match record.certificate {
        Some(live) if live.state != CertificateState::Issued => Err(SamHostRefused::Revoked),
        Some(live) if live.number == number.to_string() => Ok(()),
        // Another one is live: this one was revoked for it.
        Some(_) | None => Err(SamHostRefused::Revoked),
    }
}
