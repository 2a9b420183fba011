//! SAM hosts as devices: enrolled like a reader, under a role of their own (C12).

use countersign_pki::{CertificateNumber, Role};
use countersign_store::{
    CertificateState, DeviceKind, DeviceRecord, DeviceStatus, IdKind, Page, Store, Tx,
};

use crate::readers::{DeviceSort, check_reason, revoke_live};
use crate::{Actor, Enrolled, SamHostRefused, Scope, Service, ServiceError};

const SAM_HOST: DeviceSort = DeviceSort {
    kind: DeviceKind::SamHost,
    role: Role::SamHost,
    id: IdKind::SamHost,
    name: "SAM host",
    enrols: Scope::SamsManage,
    enrol: "sam-host.enrol",
};

impl Service {
    /// Enrols a SAM host, as [`Service::enrol_reader`] does a reader.
    ///
    /// # Errors
    /// As there.
    pub async fn enrol_sam_host(
        &self,
        actor: &Actor,
        request: &[u8],
        encryption: Option<&[u8]>,
    ) -> Result<Enrolled, ServiceError> {
        self.enrol_device(&SAM_HOST, actor, request, encryption).await
    }

    /// SAM hosts, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn sam_hosts(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<DeviceRecord>, ServiceError> {
        self.store
            .read("sam_hosts_page", move |tx| {
                Ok(tx.devices_page(DeviceKind::SamHost, cursor.as_deref(), limit)?)
            })
            .await
    }

    /// Blocks a SAM host: no server uses it any more, from the next second on.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`].
    pub async fn block_sam_host(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let reason = check_reason(reason)?;
        let block = move |tx: &mut Tx<'_>, id: &str, now| tx.block_device(id, &reason, now);
        self.change_device(&SAM_HOST, actor, id, "sam-host.block", block).await
    }

    /// Lets a blocked SAM host be used again.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn unblock_sam_host(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let unblock = |tx: &mut Tx<'_>, id: &str, now| tx.unblock_device(id, now);
        self.change_device(&SAM_HOST, actor, id, "sam-host.unblock", unblock).await
    }

    /// Revokes a SAM host's live certificate: it must enrol again.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`] if there is no such host or it has no live
    /// certificate.
    pub async fn revoke_sam_host_certificate(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<DeviceRecord, ServiceError> {
        let revoke = revoke_live(check_reason(reason)?);
        self.change_device(&SAM_HOST, actor, id, "sam-host.revoke", revoke).await
    }
}

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
