use std::time::Duration;

use countersign_idcard::ReadId;
use countersign_store::{
    AuditEntry, AuditOutcome, BegunRead, DeviceStatus, IdKind, Page, Read, ReadEnd, ReadStart,
    ReadState,
};

use crate::{Actor, Service, ServiceError, done};

impl Service {
    /// Stores the intent to read; a retry of the same read continues it.
    ///
    /// # Errors
    /// `reader-blocked`: the reader was blocked since its handshake.
    pub(crate) async fn begin_read(
        &self,
        device_id: &str,
        read_id: ReadId,
    ) -> Result<BegunRead, ServiceError> {
        let start = ReadStart {
            id: self.new_id(IdKind::Read),
            device_id: device_id.to_owned(),
            client_read_id: read_id,
            at: self.now(),
        };
        self.store
            .run_snapshot("begin_read", move |tx| {
                let device = tx.device_by_id(&start.device_id)?;
                let device = device.ok_or(ServiceError::NotFound { what: "reader" })?.device;
                if device.status == DeviceStatus::Blocked {
                    return Err(ServiceError::refused("reader-blocked", "the reader is blocked"));
                }
                Ok(tx.begin_read(&start)?)
            })
            .await
    }

    /// Stores that the reader is about to be given the record. A read that was done before (its
    /// answer was lost on the way) keeps its row; only the audit grows.
    pub(crate) async fn finish_read(
        &self,
        device_id: &str,
        begun: &BegunRead,
        sam_id: String,
        document_type: &str,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let repeated = begun.state == ReadState::Done;
        let action = if repeated { "read.repeat" } else { "read.done" };
        let entry = AuditEntry {
            detail: serde_json::json!({ "documentType": document_type, "samId": sam_id })
                .to_string(),
            ..done(now, &Actor::Device(device_id.to_owned()), action, &begun.id)
        };
        let (id, attempt) = (begun.id.clone(), begun.attempt);
        let end = ReadEnd::Done { sam_id, document_type: document_type.to_owned() };
        self.store
            .run_snapshot("finish_read", move |tx| {
                if !repeated {
                    tx.finish_read(&id, attempt, &end, now)?;
                }
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await
    }

    /// Stores that an attempt failed, and why, under the incident id that the reader was given.
    pub(crate) async fn fail_read(
        &self,
        device_id: &str,
        begun: &BegunRead,
        sam_id: Option<String>,
        check: &str,
        incident: &str,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let entry = AuditEntry {
            outcome: AuditOutcome::Failed,
            check: Some(check.to_owned()),
            incident: Some(incident.to_owned()),
            ..done(now, &Actor::Device(device_id.to_owned()), "read.fail", &begun.id)
        };
        let repeated = begun.state == ReadState::Done;
        let (id, attempt) = (begun.id.clone(), begun.attempt);
        let end = ReadEnd::Failed { check: check.to_owned(), sam_id };
        self.store
            .run_snapshot("fail_read", move |tx| {
                if !repeated {
                    tx.finish_read(&id, attempt, &end, now)?;
                }
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await
    }

    /// Ends reads whose server died under way, so that no row says "started" for ever.
    ///
    /// # Errors
    /// The store's.
    pub async fn abandon_reads(&self, older_than: Duration) -> Result<u64, ServiceError> {
        let now = self.now();
        let before = now.minus(older_than);
        let abandoned = self
            .store
            .run_tx("abandon_reads", move |tx| {
                let abandoned = tx.abandon_reads(before, now)?;
                if abandoned > 0 {
                    let detail = serde_json::json!({ "reads": abandoned }).to_string();
                    let entry = done(now, &Actor::System, "read.abandon", "reads");
                    tx.append_audit(&AuditEntry { detail, ..entry })?;
                }
                Ok::<_, ServiceError>(abandoned)
            })
            .await?;
        Ok(abandoned)
    }

    /// Reads, newest first, of one reader or of all.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn reads(
        &self,
        reader_id: Option<String>,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Read>, ServiceError> {
        self.store
            .read("reads_page", move |tx| {
                Ok(tx.reads_page(reader_id.as_deref(), cursor.as_deref(), limit)?)
            })
            .await
    }

    /// One read by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn read(&self, id: &str) -> Result<Read, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("read_by_id", move |tx| tx.read_by_id(&id))
            .await?
            .ok_or(ServiceError::NotFound { what: "read" })
    }
}
