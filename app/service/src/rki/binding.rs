//! Binding a terminal to a KDH, rebinding and unbinding, as its session asks for them (E2).

use countersign_store::{
    AuditEntry, AuditOutcome, AuthorityState, CertificateState, KeyAuthority, RebindTerminal,
};
use serde_json::json;
use tr34::{Certificate, Krd};

use super::terminals::{no_terminal, not_bound};
use crate::{Actor, Service, ServiceError, done};

/// What a terminal that was bound is told: who its KDH is, and proof of it.
#[derive(Debug, Clone)]
pub struct BoundAnswer {
    /// The KDH, `rka_…`.
    pub kdh_id: String,
    /// Its certificate.
    pub kdh: Certificate,
    /// The CA_KDH that certified it.
    pub ca_kdh: Certificate,
    /// The CRL of that CA_KDH, DER, valid now.
    pub crl: Vec<u8>,
}

/// What a campaign wants of a terminal: to be bound to another KDH, on the word of the old one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebind {
    /// The campaign, `reb_…`.
    pub campaign: String,
    /// The KDH that it is bound to, `rka_…`: it signs the token.
    pub old: String,
    /// The KDH to bind to.
    pub new: String,
}

impl Rebind {
    fn of(due: RebindTerminal) -> Self {
        Self { campaign: due.rebind_id, old: due.from_kdh, new: due.to_kdh }
    }
}

impl Service {
    /// Binds a terminal to the KDH in use, on its own RSA certificate (DER): that must be the one
    /// that was issued to this terminal and is live, and must verify under its Sub_CA_KRD.
    ///
    /// # Errors
    /// `device-blocked`; `krd-not-own` for the certificate of another terminal; `krd-revoked` for
    /// one of its own that is not live; the certificate's checks; those of [`Self::hierarchy`].
    pub async fn bind_terminal(
        &self,
        device_id: &str,
        krd: &[u8],
    ) -> Result<BoundAnswer, ServiceError> {
        let certificate = Certificate::parse(krd)?;
        let record = self.terminal_record(device_id).await?;
        if record.device.blocked(self.now()).is_some() {
            return Err(ServiceError::refused("device-blocked", "the terminal is blocked"));
        }
        let own = certificate.party().is_some_and(|party| {
            party.role() == tr34::Role::Krd && party.id() == record.device.device.serial
        });
        if !own {
            let detail = "the certificate is not that of this terminal";
            return Err(ServiceError::refused("krd-not-own", detail));
        }
        let revoked = || {
            let detail = "the terminal's RSA certificate is revoked or was replaced";
            ServiceError::refused("krd-revoked", detail)
        };
        let live = record.krd.filter(|live| live.state == CertificateState::Issued);
        let live = live.ok_or_else(revoked)?;
        let ca = self.ca_krd_by_id(&live.issuer_id).await?;
        let (rsa, now) = (self.rsa()?.clone(), self.now());
        let presented = certificate.clone();
        self.blocking(move || Ok(Krd::verify(&*rsa, presented, &ca, now)?)).await?;
        if live.der.as_deref() != Some(certificate.raw()) {
            return Err(revoked());
        }
        let hierarchy = self.hierarchy().await?;
        let answer = BoundAnswer {
            kdh_id: hierarchy.kdh_id.clone(),
            kdh: hierarchy.kdh.clone(),
            ca_kdh: hierarchy.ca_kdh.clone(),
            crl: hierarchy.crl.clone(),
        };
        self.store_binding(device_id, &answer.kdh_id, live.serial, "terminal.bind").await?;
        Ok(answer)
    }

    async fn store_binding(
        &self,
        device_id: &str,
        kdh: &str,
        krd: String,
        action: &'static str,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let detail = json!({ "kdh": kdh }).to_string();
        let terminal = Actor::Device(device_id.to_owned());
        let entry = AuditEntry { detail, ..done(now, &terminal, action, device_id) };
        let (id, kdh) = (device_id.to_owned(), kdh.to_owned());
        self.store
            .run_tx("bind_terminal", move |tx| {
                // Blocked or revoked while it was verified: then nothing is bound.
                let record = tx.terminal_by_id(&id)?.ok_or_else(no_terminal)?;
                if record.device.blocked(now).is_some() {
                    return Err(ServiceError::refused("device-blocked", "the terminal is blocked"));
                }
                if record.krd.is_none_or(|live| live.serial != krd) {
                    let detail = "the terminal's RSA certificate was revoked";
                    return Err(ServiceError::refused("krd-revoked", detail));
                }
                let revoked = |kdh: KeyAuthority| kdh.state == AuthorityState::Revoked;
                if tx.authority_by_id(&kdh)?.is_none_or(revoked) {
                    let detail = "the KDH was revoked at this moment: there is another soon";
                    return Err(ServiceError::refused("kdh-revoked", detail));
                }
                tx.bind_terminal(&id, &kdh, now)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    /// What the open campaign wants of a terminal, if anything.
    ///
    /// # Errors
    /// The store's.
    pub async fn rebind_due(&self, device_id: &str) -> Result<Option<Rebind>, ServiceError> {
        let id = device_id.to_owned();
        let due = self
            .store
            .read("rebind_due", move |tx| Ok::<_, ServiceError>(tx.rebind_due(&id)?))
            .await?;
        Ok(due.map(Rebind::of))
    }

    /// Notes how the rebinding of a terminal went: it says that it is bound to the new KDH, or the
    /// check that failed. After a failure its next contact tries again.
    ///
    /// # Errors
    /// `rebind-not-due` if nothing of the kind is due any more; the store's.
    pub async fn rebound(
        &self,
        device_id: &str,
        rebind: &Rebind,
        outcome: Result<(), &str>,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let terminal = Actor::Device(device_id.to_owned());
        let detail = json!({ "campaign": rebind.campaign, "old": rebind.old, "new": rebind.new });
        let mut entry = AuditEntry {
            detail: detail.to_string(),
            ..done(now, &terminal, "terminal.rebind", device_id)
        };
        let failed = outcome.err().map(str::to_owned);
        if let Some(check) = &failed {
            entry.outcome = AuditOutcome::Refused;
            entry.check = Some(check.clone());
        }
        let (id, rebind) = (device_id.to_owned(), rebind.clone());
        self.store
            .run_tx("rebound", move |tx| {
                let due = tx.rebind_due(&id)?.filter(|due| due.rebind_id == rebind.campaign);
                if due.is_none() {
                    let detail = "this terminal has nothing to be rebound to";
                    return Err(ServiceError::refused("rebind-not-due", detail));
                }
                match &failed {
                    None => tx.bind_terminal(&id, &rebind.new, now)?,
                    Some(check) => tx.note_rebind(&rebind.campaign, &id, Some(check), now)?,
                }
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    /// What ended campaigns offered a terminal, newest first.
    pub(crate) async fn rebinds_offered(
        &self,
        device_id: &str,
    ) -> Result<Vec<Rebind>, ServiceError> {
        let id = device_id.to_owned();
        let offered = self
            .store
            .read("rebinds_offered", move |tx| Ok::<_, ServiceError>(tx.rebinds_offered(&id)?))
            .await?;
        Ok(offered.into_iter().map(Rebind::of).collect())
    }

    /// Notes that a terminal is bound to what an ended campaign offered it.
    pub(crate) async fn rebound_late(
        &self,
        device_id: &str,
        rebind: Rebind,
    ) -> Result<(), ServiceError> {
        let now = self.now();
        let terminal = Actor::Device(device_id.to_owned());
        let detail = json!({ "campaign": rebind.campaign, "old": rebind.old, "new": rebind.new });
        let entry = AuditEntry {
            detail: detail.to_string(),
            ..done(now, &terminal, "terminal.rebind", device_id)
        };
        let id = device_id.to_owned();
        self.store
            .run_tx("rebound_late", move |tx| {
                let offered = tx.rebinds_offered(&id)?;
                if !offered.iter().any(|one| one.rebind_id == rebind.campaign) {
                    let detail = "this terminal has nothing to be rebound to";
                    return Err(ServiceError::refused("rebind-not-due", detail));
                }
                tx.follow_rebind(&id, &rebind.new, now)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    /// The KDH from which an operator wants a terminal unbound, if so.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn unbind_due(&self, device_id: &str) -> Result<Option<String>, ServiceError> {
        let terminal = self.terminal_record(device_id).await?.terminal;
        Ok(terminal.unbind_asked_at.and(terminal.bound_kdh))
    }

    /// Notes that a terminal has unbound itself, as it was asked to.
    ///
    /// # Errors
    /// `terminal-not-bound` if nobody asked for it or it is not bound.
    pub async fn unbound(&self, device_id: &str) -> Result<(), ServiceError> {
        let now = self.now();
        let terminal = Actor::Device(device_id.to_owned());
        let entry = done(now, &terminal, "terminal.unbind", device_id);
        let id = device_id.to_owned();
        self.store
            .run_tx("unbind_terminal", move |tx| {
                let row = tx.terminal_by_id(&id)?.ok_or_else(no_terminal)?.terminal;
                if row.bound_kdh.is_none() || row.unbind_asked_at.is_none() {
                    return Err(not_bound());
                }
                tx.unbind_terminal(&id, now)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }
}
