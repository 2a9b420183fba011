use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::ReadId;
use countersign_idcard::message::Source;
use countersign_store::{
    AuditEntry, AuditOutcome, BegunRead, CertificateState, DeviceRecord, DeviceStatus, IdKind,
    Page, Read, ReadEnd, ReadStart, ReadState, StoreError,
};

use crate::refusals::{Party, Refusal};
use crate::{Actor, KnownReader, Service, ServiceError, done};

/// Under what name the store refuses to end an attempt that is not the latest any more.
const SUPERSEDED: &str = "read-superseded";

/// What is known of a read that is under way.
pub(crate) struct UnderWay {
    pub(crate) begun: BegunRead,
    pub(crate) source: Source,
}

const fn source_name(source: Source) -> &'static str {
    match source {
        Source::Card => "card",
        Source::Cache => "cache",
    }
}

/// The reader may read on: not blocked, and the certificate of its handshake still holds. Its
/// connection may be older than an operator's decision.
fn check_reader(
    record: Option<DeviceRecord>,
    reader: &KnownReader,
    now: UnixTime,
) -> Result<(), ServiceError> {
    let record = record.ok_or(ServiceError::NotFound { what: "reader" })?;
    if record.device.status == DeviceStatus::Blocked {
        return Err(ServiceError::refused("reader-blocked", "the reader is blocked"));
    }
    let number = reader.entry.certificate_number.to_string();
    let live = record.certificate.filter(|certificate| {
        certificate.state == CertificateState::Issued && certificate.number == number
    });
    let revoked = || {
        let detail = "the certificate of this connection is revoked or replaced";
        ServiceError::refused("certificate-revoked", detail)
    };
    if live.ok_or_else(revoked)?.not_after <= now {
        let detail = "the certificate of this connection has run out";
        return Err(ServiceError::refused("certificate-expired", detail));
    }
    Ok(())
}

impl Service {
    /// Stores the intent to read; a retry of the same read continues it.
    ///
    /// # Errors
    /// `reader-blocked`, `certificate-revoked`, `certificate-expired`: what became of the reader
    /// since its handshake. Refusals are audited.
    pub(crate) async fn begin_read(
        &self,
        reader: &KnownReader,
        read_id: ReadId,
    ) -> Result<BegunRead, ServiceError> {
        let begun = self.try_begin_read(reader, read_id).await;
        if let Err(error) = &begun {
            self.refused_read(reader, "read.begin", &reader.id, error).await;
        }
        begun
    }

    async fn try_begin_read(
        &self,
        reader: &KnownReader,
        read_id: ReadId,
    ) -> Result<BegunRead, ServiceError> {
        let reader = reader.clone();
        let start = ReadStart {
            id: self.new_id(IdKind::Read),
            device_id: reader.id.clone(),
            client_read_id: read_id,
            at: self.now(),
        };
        self.store
            .run_snapshot("begin_read", move |tx| {
                check_reader(tx.device_by_id(&start.device_id)?, &reader, start.at)?;
                Ok(tx.begin_read(&start)?)
            })
            .await
    }

    async fn refused_read(
        &self,
        reader: &KnownReader,
        action: &str,
        subject: &str,
        error: &ServiceError,
    ) {
        if error.is_refusal() {
            let (party, actor) = (Party::Reader, reader.id.as_str());
            let (check, reason) = (error.check(), error.to_string());
            self.audit_refusal(Refusal { party, actor, action, subject, check, reason }).await;
        }
    }

    /// Stores that the reader is about to be given the record. A read that was done before (its
    /// answer was lost on the way) keeps its row; only the audit grows.
    ///
    /// # Errors
    /// `read-superseded`: a later attempt of this read began meanwhile. Audited.
    pub(crate) async fn finish_read(
        &self,
        reader: &KnownReader,
        read: &UnderWay,
        sam_id: String,
        document_type: &str,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let repeated = read.begun.state == ReadState::Done;
        let action = if repeated { "read.repeat" } else { "read.done" };
        let detail = serde_json::json!({
            "documentType": document_type,
            "samId": sam_id,
            "source": source_name(read.source),
        });
        let (id, attempt) = (read.begun.id.clone(), read.begun.attempt);
        let entry = AuditEntry {
            detail: detail.to_string(),
            ..done(now, &Actor::Device(reader.id.clone()), action, &id)
        };
        let end = ReadEnd::Done { sam_id, document_type: document_type.to_owned() };
        let finished = self
            .store
            .run_snapshot("finish_read", move |tx| {
                if !repeated {
                    tx.finish_read(&id, attempt, &end, now)?;
                }
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await;
        if let Err(error) = &finished {
            self.refused_read(reader, action, &read.begun.id, error).await;
        }
        finished
    }

    /// Stores that an attempt failed, and why, under the incident id that the reader was given.
    /// The row of a read that was done before, or that a later attempt has taken over, stays as it
    /// is; the audit grows all the same.
    pub(crate) async fn fail_read(
        &self,
        reader: &KnownReader,
        read: &UnderWay,
        sam_id: Option<String>,
        check: &str,
        incident: &str,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let detail = serde_json::json!({ "samId": sam_id, "source": source_name(read.source) });
        let (id, attempt) = (read.begun.id.clone(), read.begun.attempt);
        let entry = AuditEntry {
            outcome: AuditOutcome::Failed,
            check: Some(check.to_owned()),
            incident: Some(incident.to_owned()),
            detail: detail.to_string(),
            ..done(now, &Actor::Device(reader.id.clone()), "read.fail", &id)
        };
        let repeated = read.begun.state == ReadState::Done;
        let end = ReadEnd::Failed { check: check.to_owned(), sam_id };
        self.store
            .run_snapshot("fail_read", move |tx| {
                if !repeated {
                    match tx.finish_read(&id, attempt, &end, now) {
                        Ok(()) | Err(StoreError::Refused { check: SUPERSEDED }) => {}
                        Err(error) => return Err(error.into()),
                    }
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
