//! Terminals as operators see them: the allow-list, what is known of each, unbinding (E1).

use countersign_crypto::UnixTime;
use countersign_pki::{Identity, Role};
use countersign_store::{
    CertificateState, Device, DeviceKind, DeviceStatus, IdKind, Page, StoreError, TerminalRecord,
    TerminalRow, TerminalState,
};
use serde_json::json;
use tr34::Certificate;

use super::making::stored_certificate;
use crate::codes::{CodeOf, EnrolmentCode};
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// Longest model or owner, in bytes.
const NOTE_MAX: usize = 128;
/// A terminal that may enrol now.
#[derive(Debug)]
pub struct AllowedTerminal {
    /// The terminal.
    pub record: TerminalRecord,
    /// Shown once; only its hash is kept.
    pub code: EnrolmentCode,
    /// Until when it may be used.
    pub expires_at: UnixTime,
}

/// A terminal, for whoever serves it.
#[derive(Debug, Clone)]
pub struct Terminal {
    /// `trm_…`.
    pub id: String,
    /// Its serial number.
    pub serial: String,
    /// Where it stands now.
    pub state: TerminalState,
    /// Its live RSA certificate.
    pub krd: Option<Certificate>,
    /// The KDH that it is bound to, `rka_…`.
    pub bound_kdh: Option<String>,
}

impl Service {
    /// Puts a terminal on the allow-list and gives it a one-time enrolment code.
    ///
    /// # Errors
    /// `serial-format`, `terminal-note`, `terminal-serial-taken`.
    pub async fn allow_terminal(
        &self,
        actor: &Actor,
        serial: &str,
        model: &str,
        owner: &str,
    ) -> Result<AllowedTerminal, ServiceError> {
        let allowed = self.allow(actor, serial, model, owner).await;
        if let Err(error) = &allowed {
            let subject = if serial.len() <= NOTE_MAX { serial } else { "serial" };
            self.refused_operator(actor, "terminal.allow", subject, error).await;
        }
        allowed
    }

    async fn allow(
        &self,
        actor: &Actor,
        serial: &str,
        model: &str,
        owner: &str,
    ) -> Result<AllowedTerminal, ServiceError> {
        actor.require(Scope::TerminalsManage)?;
        check_serial(serial)?;
        for note in [model, owner] {
            if note.len() > NOTE_MAX || note.contains(char::is_control) {
                let detail =
                    format!("model and owner have at most {NOTE_MAX} bytes, no control characters");
                return Err(ServiceError::refused("terminal-note", detail));
            }
        }
        let now = self.now();
        let (code, hash) = self.fresh_code(CodeOf::Terminal);
        let expires_at = now.plus(self.policy.rki.code_validity);
        let device = Device {
            id: self.new_id(IdKind::Terminal),
            kind: DeviceKind::Terminal,
            serial: serial.to_owned(),
            status: DeviceStatus::Enrolled,
            block_reason: None,
            created_at: now,
            updated_at: now,
        };
        let row = TerminalRow {
            device_id: device.id.clone(),
            model: model.to_owned(),
            owner: owner.to_owned(),
            code_hash: Some(hash),
            code_expires_at: Some(expires_at),
            code_used_at: None,
            code_used_by: None,
            wrong_codes: 0,
            wrong_since: UnixTime::default(),
            bound_kdh: None,
            bound_at: None,
            unbind_asked_at: None,
            unbound_at: None,
        };
        let entry = done(now, actor, "terminal.allow", &device.id);
        let record = self
            .store
            .run_tx("allow_terminal", move |tx| {
                tx.insert_device(&device).map_err(refuse_taken)?;
                tx.insert_terminal(&row)?;
                tx.append_audit(&entry)?;
                tx.terminal_by_id(&device.id)?.ok_or_else(no_terminal)
            })
            .await?;
        Ok(AllowedTerminal { record, code, expires_at })
    }

    /// Gives a terminal another enrolment code; the one before is void. Its certificates stay: to
    /// enrol with other keys they have to be revoked first.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn renew_enrolment_code(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<AllowedTerminal, ServiceError> {
        let renewed = self.renew_code(actor, id).await;
        if let Err(error) = &renewed {
            self.refused_operator(actor, "terminal.code", id, error).await;
        }
        renewed
    }

    async fn renew_code(&self, actor: &Actor, id: &str) -> Result<AllowedTerminal, ServiceError> {
        actor.require(Scope::TerminalsManage)?;
        let now = self.now();
        let (code, hash) = self.fresh_code(CodeOf::Terminal);
        let expires_at = now.plus(self.policy.rki.code_validity);
        let entry = done(now, actor, "terminal.code", id);
        let id = id.to_owned();
        let record = self
            .store
            .run_tx("renew_enrolment_code", move |tx| {
                tx.terminal_by_id(&id)?.ok_or_else(no_terminal)?;
                tx.renew_enrolment_code(&id, &hash, expires_at)?;
                tx.append_audit(&entry)?;
                tx.terminal_by_id(&id)?.ok_or_else(no_terminal)
            })
            .await?;
        Ok(AllowedTerminal { record, code, expires_at })
    }

    /// Terminals, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn terminals(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<TerminalRecord>, ServiceError> {
        self.store
            .read("terminals_page", move |tx| Ok(tx.terminals_page(cursor.as_deref(), limit)?))
            .await
    }

    /// A terminal by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn terminal_record(&self, id: &str) -> Result<TerminalRecord, ServiceError> {
        let id = id.to_owned();
        let found = self
            .store
            .read("terminal_by_id", move |tx| Ok::<_, ServiceError>(tx.terminal_by_id(&id)?))
            .await?;
        found.ok_or_else(no_terminal)
    }

    /// A terminal by its serial number.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn terminal_by_serial(&self, serial: &str) -> Result<TerminalRecord, ServiceError> {
        let serial = serial.to_owned();
        let found = self
            .store
            .read("terminal_by_serial", move |tx| {
                Ok::<_, ServiceError>(tx.terminal_by_serial(&serial)?)
            })
            .await?;
        found.ok_or_else(no_terminal)
    }

    /// A terminal as its session needs it.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn terminal(&self, id: &str) -> Result<Terminal, ServiceError> {
        let record = self.terminal_record(id).await?;
        let state = record.state(self.now());
        let issued = record.krd.filter(|krd| krd.state == CertificateState::Issued);
        let krd = issued.map(|krd| stored_certificate(krd.der.as_deref())).transpose()?;
        Ok(Terminal {
            id: record.device.device.id,
            serial: record.device.device.serial,
            state,
            krd,
            bound_kdh: record.terminal.bound_kdh,
        })
    }

    /// Asks for a terminal to be unbound from its KDH at its next contact.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `terminal-not-bound`; the gate's.
    pub async fn ask_unbind(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<TerminalRecord>, ServiceError> {
        let asked = self.ask_to_unbind(actor, id, approval).await;
        if let Err(error) = &asked {
            self.refused_operator(actor, "terminal.unbind", id, error).await;
        }
        asked
    }

    async fn ask_to_unbind(
        &self,
        actor: &Actor,
        id: &str,
        approval: Option<&str>,
    ) -> Result<Gated<TerminalRecord>, ServiceError> {
        actor.require(Scope::TerminalsManage)?;
        if self.terminal_record(id).await?.terminal.bound_kdh.is_none() {
            return Err(not_bound());
        }
        let subject = json!({ "terminal": id });
        let grant = match self.gate(actor, "terminal.unbind", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        let entry = done(now, actor, "terminal.ask-unbind", id);
        let id = id.to_owned();
        let record = self
            .store
            .run_tx("ask_unbind", move |tx| {
                grant.consume(tx, now)?;
                tx.ask_unbind(&id, now)?;
                tx.append_audit(&entry)?;
                tx.terminal_by_id(&id)?.ok_or_else(no_terminal)
            })
            .await?;
        Ok(Gated::Done(record))
    }
}

fn check_serial(serial: &str) -> Result<(), ServiceError> {
    let refused = |_| {
        let detail = "a serial number has 1 to 64 characters of A-Z a-z 0-9 . _ -";
        ServiceError::refused("serial-format", detail)
    };
    Identity::new(Role::Terminal, serial).map(|_| ()).map_err(refused)
}

fn refuse_taken(error: StoreError) -> ServiceError {
    match error {
        StoreError::Conflict { constraint } if constraint == "devices_kind_serial_key" => {
            let detail = "a terminal with this serial number is on the list";
            ServiceError::refused("terminal-serial-taken", detail)
        }
        other => other.into(),
    }
}

pub(crate) fn no_terminal() -> ServiceError {
    ServiceError::NotFound { what: "terminal" }
}

pub(crate) fn not_bound() -> ServiceError {
    ServiceError::refused("terminal-not-bound", "the terminal is not bound to a KDH")
}
