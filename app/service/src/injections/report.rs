//! What a terminal reports: a key that waits for its confirmation (E7), a token it refuses (E6).

use countersign_crypto::Secret;
use countersign_injection::message::{Installed, Refusing, ServerMessage, TokenRefused};
use countersign_injection::server::refusal;
use countersign_store::{AuditEntry, AuditOutcome, IdKind, Injection, InjectionState, Tx};
use data_encoding::HEXUPPER;
use serde_json::json;

use super::INJECTIONS;
use super::session::{TOKEN_REFUSED, name};
use crate::{Actor, KnownDevice, Service, ServiceError, done};

/// What came of a check value.
enum Compared {
    Installed,
    /// It was so before: the answer was lost.
    Again,
    Wrong,
}

impl Service {
    /// Compares a key's check value with the expected one, in constant time, and only then counts
    /// the key as installed (E7). Reported again, it is confirmed again.
    pub(super) async fn confirm(
        &self,
        terminal: &KnownDevice,
        installed: &Installed,
    ) -> Result<ServerMessage, ServiceError> {
        self.served_terminal(terminal).await?;
        let now = self.now();
        let incident = self.new_id(IdKind::Incident);
        let actor = Actor::Device(terminal.id.clone());
        let id = installed.injection.as_str().to_owned();
        let slot = u32::from(installed.slot);
        let told = installed.kcv.as_slice().to_vec();
        let (device, stored_incident) = (terminal.id.clone(), incident.clone());
        let compared = self
            .store
            .run_tx("confirm_injection", move |tx| {
                let injection = own_injection(tx, &id, &device)?;
                let expected = Secret::new(injection.kcv.clone().unwrap_or_default());
                let issued = injection.state == InjectionState::Issued;
                if !issued && injection.state != InjectionState::Installed {
                    let detail = format!("the injection is {}", injection.state);
                    return Err(ServiceError::refused("injection-closed", detail));
                }
                if !told.is_empty() && expected.ct_eq(&told) && injection.slot == slot {
                    let again = tx.confirm_injection(&id, now)?;
                    if !again {
                        let detail = json!({
                            "key": injection.key_id,
                            "slot": slot,
                            "kcv": shown(&told),
                        });
                        let entry = done(now, &actor, "injection.install", &id);
                        tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry })?;
                    }
                    return Ok(if again { Compared::Again } else { Compared::Installed });
                }
                let check = if injection.slot == slot { "kcv-mismatch" } else { "slot-mismatch" };
                if issued {
                    let why = Some((check, stored_incident.as_str()));
                    tx.end_injection(&id, InjectionState::Failed, why, now)?;
                }
                tx.append_audit(&AuditEntry {
                    outcome: AuditOutcome::Failed,
                    check: Some(check.to_owned()),
                    incident: Some(stored_incident.clone()),
                    detail: json!({ "key": injection.key_id, "slot": slot }).to_string(),
                    ..done(now, &actor, "injection.fail", &id)
                })?;
                Ok(Compared::Wrong)
            })
            .await?;
        match compared {
            Compared::Installed => count("installed"),
            Compared::Again => {}
            Compared::Wrong => {
                count("failed");
                return Ok(refusal(TOKEN_REFUSED, false, &incident));
            }
        }
        Ok(ServerMessage::Confirmed(installed.injection.clone()))
    }

    /// Puts a refusal on record, under an incident that the terminal shows to people: the exact
    /// check stands in the audit only. A refused key ends its injection.
    pub(super) async fn note_refusal(
        &self,
        terminal: &KnownDevice,
        refused: &TokenRefused,
    ) -> Result<ServerMessage, ServiceError> {
        let now = self.now();
        let incident = self.new_id(IdKind::Incident);
        let check = refused.check.as_str().to_owned();
        match refused.what {
            Refusing::Key => {
                let id = refused.injection.as_str().to_owned();
                self.store_refused_key(terminal, id, check, incident.clone()).await?;
                count("failed");
            }
            Refusing::Binding | Refusing::Rebinding | Refusing::Unbinding => {
                let rebind = match refused.what {
                    Refusing::Rebinding => self.rebind_due(&terminal.id).await?,
                    _ => None,
                };
                if let Some(rebind) = rebind {
                    self.rebound(&terminal.id, &rebind, Err(&check)).await?;
                }
                let action = match refused.what {
                    Refusing::Binding => "terminal.bind",
                    Refusing::Rebinding => "terminal.rebind",
                    _ => "terminal.unbind",
                };
                let actor = Actor::Device(terminal.id.clone());
                let entry = AuditEntry {
                    outcome: AuditOutcome::Refused,
                    check: Some(check),
                    incident: Some(incident.clone()),
                    ..done(now, &actor, action, &terminal.id)
                };
                let binding = refused.what == Refusing::Binding;
                self.store
                    .run_tx("note_refusal", move |tx| {
                        if binding {
                            tx.binding_refused(&entry.subject)?;
                        }
                        tx.append_audit(&entry)?;
                        Ok::<_, ServiceError>(())
                    })
                    .await?;
            }
        }
        Ok(ServerMessage::Noted(name(&incident)))
    }

    async fn store_refused_key(
        &self,
        terminal: &KnownDevice,
        id: String,
        check: String,
        incident: String,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let actor = Actor::Device(terminal.id.clone());
        let device = terminal.id.clone();
        self.store
            .run_tx("refused_key", move |tx| {
                let injection = own_injection(tx, &id, &device)?;
                // Cancelled or replaced meanwhile: then only the audit grows.
                if injection.state.is_open() {
                    let why = Some((check.as_str(), incident.as_str()));
                    tx.end_injection(&id, InjectionState::Failed, why, now)?;
                }
                let detail = json!({ "key": injection.key_id, "slot": injection.slot });
                tx.append_audit(&AuditEntry {
                    outcome: AuditOutcome::Refused,
                    check: Some(check.clone()),
                    incident: Some(incident.clone()),
                    detail: detail.to_string(),
                    ..done(now, &actor, "injection.fail", &id)
                })?;
                Ok::<_, ServiceError>(())
            })
            .await
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(INJECTIONS, "outcome" => outcome).increment(1);
}

/// An injection of this terminal's; another's does not exist for it.
fn own_injection(tx: &mut Tx<'_>, id: &str, device: &str) -> Result<Injection, ServiceError> {
    tx.injection_by_id(id)?
        .filter(|injection| injection.device_id == device)
        .ok_or(ServiceError::NotFound { what: "injection" })
}

/// What people are shown of a check value: three bytes.
pub(super) fn shown(kcv: &[u8]) -> String {
    HEXUPPER.encode(&kcv[..kcv.len().min(3)])
}
