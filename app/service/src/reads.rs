use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::ReadId;
use countersign_idcard::message::Source;
use countersign_store::{
    AuditEntry, AuditOutcome, BegunRead, CertificateState, DeviceRecord, EndingRead, IdKind, Page,
    Read, ReadEnd, ReadStart, ReadState, ReaderGate, RiskEvent, RiskKind,
};

use crate::refusals::{Party, Refusal};
use crate::{Actor, KnownDevice, Service, ServiceError, done, risk};

/// How long another session's read counts as under way: longer than any read takes.
const UNDER_WAY: Duration = Duration::from_secs(60);
/// Signs that two devices present one certificate: reads of two sessions at once, reads that come
/// from one address and another in turn.
const OVERLAPPING: &str = "overlapping-reads";
const ALTERNATING: &str = "alternating-addresses";
/// Random bytes in the name of a session.
const SESSION_BYTES: usize = 16;

/// What a SAM gave.
pub(crate) struct Given {
    pub(crate) sam_id: String,
    /// Which of the documents it was.
    pub(crate) document_type: &'static str,
    /// The SAM said that the data are this card's.
    pub(crate) card_checked: bool,
}

/// Where a reader's reads come from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Names the connection; no other has the name.
    session_id: String,
    /// The peer's address, without its port; empty if nobody said.
    pub(crate) peer: String,
}

impl Origin {
    pub(crate) fn new(service: &Service) -> Self {
        let mut random = [0; SESSION_BYTES];
        service.rng().fill_bytes(&mut random);
        Self { session_id: data_encoding::HEXLOWER.encode(&random), peer: String::new() }
    }
}

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
    reader: &KnownDevice,
    now: UnixTime,
) -> Result<(), ServiceError> {
    let record = record.ok_or(ServiceError::NotFound { what: "reader" })?;
    if record.blocked(now).is_some() {
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

fn throttled(soon: &risk::TooSoon) -> ServiceError {
    let wait = soon.wait.as_millis();
    let detail = match &soon.rule {
        Some(rule) => format!("rule {rule} lets the reader begin a read again in {wait} ms"),
        None => format!("the reader begins too many reads; the next one in {wait} ms"),
    };
    ServiceError::refused("reader-throttled", detail)
}

/// The event of packets that were asked for again, if there were any.
fn sent_again(resent: u32) -> Vec<RiskEvent> {
    let event = RiskEvent { kind: RiskKind::Resent, label: String::new(), amount: resent };
    if resent == 0 { Vec::new() } else { vec![event] }
}

impl Service {
    /// Stores the intent to read; a retry of the same read continues it.
    ///
    /// # Errors
    /// `reader-blocked`, `certificate-revoked`, `certificate-expired`: what became of the reader
    /// since its handshake; `reader-throttled`. Refusals are audited.
    pub(crate) async fn begin_read(
        &self,
        reader: &KnownDevice,
        read_id: ReadId,
        origin: &Origin,
    ) -> Result<BegunRead, ServiceError> {
        let begun = self.try_begin_read(reader, read_id, origin).await;
        if let Err(error) = &begun {
            self.refused_read(reader, "read.begin", &reader.id, error).await;
        }
        begun
    }

    async fn try_begin_read(
        &self,
        reader: &KnownDevice,
        read_id: ReadId,
        origin: &Origin,
    ) -> Result<BegunRead, ServiceError> {
        let reader = reader.clone();
        let start = ReadStart {
            id: self.new_id(IdKind::Read),
            device_id: reader.id.clone(),
            client_read_id: read_id,
            at: self.now(),
            session_id: origin.session_id.clone(),
        };
        let kinds = [RiskKind::Reads, RiskKind::Concurrent];
        let evaluation = self.evaluation(&reader.id, start.at, &kinds);
        let (peer, per_minute) = (origin.peer.clone(), self.policy.risk.reads_per_minute());
        let (begun, decisions) = self
            .store
            .run_snapshot("begin_read", move |tx| {
                let gate = tx.reader_gate(&start, start.at.minus(UNDER_WAY))?;
                let ReaderGate { record, meter, throttles, overlaps } = gate;
                check_reader(record, &reader, start.at)?;
                let pace = risk::begin(meter.as_ref(), &throttles, &peer, per_minute, start.at)
                    .map_err(|soon| throttled(&soon))?;
                let mut events = vec![RiskEvent::one(RiskKind::Reads, "")];
                let signs = [(overlaps, OVERLAPPING), (pace.alternates, ALTERNATING)];
                let seen = signs.into_iter().filter(|(seen, _)| *seen);
                events.extend(seen.map(|(_, sign)| RiskEvent::one(RiskKind::Concurrent, sign)));
                let watching = evaluation.watch(&events);
                let (begun, noted) =
                    tx.begin_watched_read(&start, &pace.meter, &events, &watching.watches)?;
                let decisions = evaluation.decide(tx, &watching, &noted)?;
                Ok::<_, ServiceError>((begun, decisions))
            })
            .await?;
        risk::log(&decisions);
        Ok(begun)
    }

    async fn refused_read(
        &self,
        reader: &KnownDevice,
        action: &str,
        subject: &str,
        error: &ServiceError,
    ) {
        if error.is_refusal() {
            let (party, actor) = (Party::Reader, reader.id.as_str());
            let (check, reason) = (error.check(), error.to_string());
            let told = Some(reader.id.as_str());
            let refusal = Refusal { party, actor, action, subject, check, reason, reader: told };
            self.audit_refusal(refusal).await;
        }
    }

    /// Stores that the reader is about to be given the record. A read that was done before (its
    /// answer was lost on the way) keeps its row; only the audit grows.
    ///
    /// # Errors
    /// `read-superseded`: a later attempt of this read began meanwhile. Audited.
    pub(crate) async fn finish_read(
        &self,
        reader: &KnownDevice,
        read: &UnderWay,
        given: Given,
        resent: u32,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let Given { sam_id, document_type, card_checked } = given;
        let repeated = read.begun.state == ReadState::Done;
        let action = if repeated { "read.repeat" } else { "read.done" };
        let detail = serde_json::json!({
            "documentType": document_type,
            "samId": sam_id,
            "cardChecked": card_checked,
            "source": source_name(read.source),
        });
        let entry = AuditEntry {
            detail: detail.to_string(),
            ..done(now, &Actor::Device(reader.id.clone()), action, &read.begun.id)
        };
        let end = ReadEnd::Done { sam_id, document_type: document_type.to_owned() };
        let ending = EndingRead {
            device_id: reader.id.clone(),
            begun: read.begun.clone(),
            end: (!repeated).then_some(end),
            at: now,
        };
        let finished = self.end_read("finish_read", ending, entry, sent_again(resent)).await;
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
        reader: &KnownDevice,
        read: &UnderWay,
        sam_id: Option<String>,
        check: &str,
        incident: &str,
        resent: u32,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let detail = serde_json::json!({ "samId": sam_id, "source": source_name(read.source) });
        let entry = AuditEntry {
            outcome: AuditOutcome::Failed,
            check: Some(check.to_owned()),
            incident: Some(incident.to_owned()),
            detail: detail.to_string(),
            ..done(now, &Actor::Device(reader.id.clone()), "read.fail", &read.begun.id)
        };
        let repeated = read.begun.state == ReadState::Done;
        let end = ReadEnd::Failed { check: check.to_owned(), sam_id };
        let ending = EndingRead {
            device_id: reader.id.clone(),
            begun: read.begun.clone(),
            end: (!repeated).then_some(end),
            at: now,
        };
        let mut events = sent_again(resent);
        if risk::blames_reader(check) {
            events.push(RiskEvent::one(RiskKind::Errors, check));
        }
        self.end_read("fail_read", ending, entry, events).await
    }

    async fn end_read(
        &self,
        name: &'static str,
        ending: EndingRead,
        entry: AuditEntry,
        events: Vec<RiskEvent>,
    ) -> Result<(), ServiceError> {
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        let evaluation = self.evaluation(&ending.device_id, ending.at, &kinds);
        let decisions = self
            .store
            .run_snapshot(name, move |tx| {
                let watching = evaluation.watch(&events);
                let noted = tx.finish_watched_read(&ending, &entry, &events, &watching.watches)?;
                Ok::<_, ServiceError>(evaluation.decide(tx, &watching, &noted)?)
            })
            .await?;
        risk::log(&decisions);
        Ok(())
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
