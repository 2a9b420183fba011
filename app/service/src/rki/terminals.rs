//! Terminals as operators see them: the allow-list, what is known of each, unbinding (E1).

use std::fmt;

use countersign_crypto::{Secret, UnixTime};
use countersign_pki::{Identity, Role};
use countersign_store::{
    CertificateState, Device, DeviceKind, DeviceStatus, IdKind, Page, StoreError, TerminalRecord,
    TerminalRow, TerminalState,
};
use data_encoding::BASE32_NOPAD;
use serde_json::json;
use tr34::Certificate;
use zeroize::Zeroizing;

use super::making::stored_certificate;
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// Random bytes of an enrolment code: 120 bits, 24 characters.
const CODE_BYTES: usize = 15;
/// Characters of a code, and in each of the groups that it is shown in.
const CODE_LEN: usize = CODE_BYTES * 8 / 5;
const CODE_GROUP: usize = 4;
/// Longest model or owner, in bytes.
const NOTE_MAX: usize = 128;
/// What a code's hash begins with, so that it is the hash of nothing else.
const CODE_HASH: &[u8] = b"countersign enrolment code v1";

/// A terminal's one-time enrolment code, as it is shown once.
pub struct EnrolmentCode(Zeroizing<String>);

impl EnrolmentCode {
    /// The code in groups: `ABCD-EFGH-…`.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnrolmentCode(..)")
    }
}

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
        let (code, hash) = self.fresh_code();
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
        let (code, hash) = self.fresh_code();
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

    fn fresh_code(&self) -> (EnrolmentCode, [u8; 32]) {
        let mut bytes = Zeroizing::new([0; CODE_BYTES]);
        self.rng().fill_bytes(&mut *bytes);
        let plain = Zeroizing::new(BASE32_NOPAD.encode(&*bytes));
        let mut shown = Zeroizing::new(String::with_capacity(CODE_LEN + CODE_LEN / CODE_GROUP));
        for (index, c) in plain.chars().enumerate() {
            if index > 0 && index % CODE_GROUP == 0 {
                shown.push('-');
            }
            shown.push(c);
        }
        (EnrolmentCode(shown), self.code_hash(&plain))
    }

    fn code_hash(&self, plain: &str) -> [u8; 32] {
        self.authority.provider.hash.hash(&[CODE_HASH, plain.as_bytes()])
    }

    /// The hash of a code as somebody typed it; `None` if no code looks like this.
    pub(crate) fn typed_code_hash(&self, typed: &Secret) -> Option<[u8; 32]> {
        let typed = std::str::from_utf8(typed.expose()).ok()?;
        let mut plain = Zeroizing::new(String::with_capacity(CODE_LEN));
        for c in typed.chars().filter(|c| !matches!(c, '-' | ' ')) {
            if plain.len() == CODE_LEN || !c.is_ascii_alphanumeric() {
                return None;
            }
            plain.push(c.to_ascii_uppercase());
        }
        (plain.len() == CODE_LEN).then(|| self.code_hash(&plain))
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
