//! CRLs of the CAs: numbered by the database, made anew at each revocation and in good time.

use std::sync::PoisonError;

use countersign_crypto::UnixTime;
use countersign_store::{
    AuditEntry, AuthorityRole, AuthorityState, CLOCKS_DIFFER, KeyAuthority, Listed, MAX_QUERY_ROWS,
    StoredCrl,
};
use data_encoding::HEXLOWER;
use serde_json::json;
use tr34::{CRL_ENTRIES_MAX, Crl, CrlTerms, Issuer, Revocation};

use super::making::stored_certificate;
use crate::{Actor, Service, ServiceError, done};

/// How often a CRL is numbered again because another server took the number at that moment.
const TRIES: u32 = 4;
/// Most certificates a CRL of ours lists.
const LISTED_MAX: usize = if CRL_ENTRIES_MAX < MAX_QUERY_ROWS { CRL_ENTRIES_MAX } else { 10_000 };

/// When a CRL is made anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renew {
    /// When it has ended or does not list what it has to.
    IfDue,
    /// Also when half of its time is over.
    InGoodTime,
}

/// How the CRLs are, as this server saw them last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlHealth {
    /// When the first of them ends.
    pub next_update: UnixTime,
    /// Whether it is renewed late: less than a quarter of its time is left.
    pub expiring: bool,
}

impl Service {
    /// How the CRLs are; `None` before there is a hierarchy, or before it was looked after here.
    #[must_use]
    pub fn crl_health(&self) -> Option<CrlHealth> {
        let seen = *self.rki.crls.lock().unwrap_or_else(PoisonError::into_inner);
        let late = self.policy.rki.crl_validity / 4;
        let expiring = |next: UnixTime| self.now().plus(late) >= next;
        seen.map(|seen| CrlHealth { expiring: expiring(seen.next_update), ..seen })
    }

    /// Notes when the first of the newest CRLs ends.
    pub(crate) async fn watch_crls(&self) -> Result<(), ServiceError> {
        let issuers = self.crl_issuers().await?;
        let ends = self
            .store
            .read("watch_crls", move |tx| {
                let mut ends = Vec::new();
                for issuer in &issuers {
                    // One that is needed and is not there has ended at the beginning of time.
                    let newest = tx.newest_crl(&issuer.id)?;
                    ends.push(newest.map_or(UnixTime::default(), |crl| crl.next_update));
                }
                Ok::<_, ServiceError>(ends)
            })
            .await?;
        let first = ends.into_iter().min();
        let seen = first.map(|next_update| CrlHealth { next_update, expiring: false });
        *self.rki.crls.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// An issuer's CRL that is valid now and lists all that is revoked; made anew if need be.
    pub(crate) async fn fresh_crl(
        &self,
        issuer_id: &str,
        renew: Renew,
    ) -> Result<StoredCrl, ServiceError> {
        for _ in 0..TRIES {
            if let Some(crl) = self.good_crl(issuer_id, renew).await? {
                return Ok(crl);
            }
            match self.issue_crl(issuer_id).await {
                // Another server makes one: it is there at the next look, or soon.
                Err(ServiceError::Refused { check: "conflict", .. }) => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
        }
        let detail = "the CRL is being made by several servers; try again".to_owned();
        Err(ServiceError::Unavailable { detail })
    }

    /// The CRL of a CA that is in use or retiring, valid now.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] for anything else; the vault's.
    pub async fn authority_crl(&self, id: &str) -> Result<StoredCrl, ServiceError> {
        let keeps = self.crl_issuers().await?.into_iter().any(|one| one.id == id);
        if !keeps {
            return Err(ServiceError::NotFound { what: "CA" });
        }
        self.fresh_crl(id, Renew::IfDue).await
    }

    async fn good_crl(
        &self,
        issuer_id: &str,
        renew: Renew,
    ) -> Result<Option<StoredCrl>, ServiceError> {
        let (id, now) = (issuer_id.to_owned(), self.now());
        let (newest, revoked) = self
            .store
            .read("newest_crl", move |tx| {
                let revoked = tx.revoked_under(&id, now, listed_limit())?;
                Ok::<_, ServiceError>((tx.newest_crl(&id)?, revoked))
            })
            .await?;
        let left = match renew {
            Renew::IfDue => std::time::Duration::ZERO,
            Renew::InGoodTime => self.policy.rki.crl_validity / 2,
        };
        let in_time = |crl: &StoredCrl| crl.this_update <= now && now.plus(left) < crl.next_update;
        match newest.filter(in_time) {
            Some(crl) if lists(&crl, &revoked)? => Ok(Some(crl)),
            _ => Ok(None),
        }
    }

    async fn issue_crl(&self, issuer_id: &str) -> Result<(), ServiceError> {
        let issuer = self.authority_by_id(issuer_id).await?;
        let certificate = stored_certificate(issuer.der.as_deref())?;
        let key = self.rsa_key(&issuer.label, None).await?;
        let now = self.now();
        let next_update = now.plus(self.policy.rki.crl_validity).min(certificate.not_after());
        let intent = StoredCrl {
            issuer_id: issuer.id.clone(),
            number: 0,
            listed: 0,
            // Terminals' clocks may be behind.
            this_update: now.minus(CLOCKS_DIFFER).max(certificate.not_before()),
            next_update,
            der: None,
        };
        let (intent, listed) = self
            .store
            .run_tx("intend_crl", move |tx| {
                let listed = tx.revoked_under(&intent.issuer_id, now, listed_limit())?;
                let mut intent = intent.clone();
                intent.listed = u32::try_from(listed.len()).unwrap_or(u32::MAX);
                intent.number = tx.intend_crl(&intent)?;
                Ok::<_, ServiceError>((intent, listed))
            })
            .await?;
        let terms = CrlTerms {
            number: intent.number,
            this_update: intent.this_update,
            next_update: intent.next_update,
        };
        let damaged = |_| ServiceError::Internal { detail: "a damaged serial number".into() };
        let revoked = listed
            .into_iter()
            .map(|one| {
                let serial = HEXLOWER.decode(one.serial.as_bytes()).map_err(damaged)?;
                Ok(Revocation { serial, at: one.at })
            })
            .collect::<Result<Vec<_>, ServiceError>>()?;
        let rsa = self.rsa()?.clone();
        let der = self
            .blocking(move || {
                let prepared = Issuer::new(certificate)?.prepare_crl(terms, &revoked)?;
                Ok(prepared.sign(&*rsa, &*key)?)
            })
            .await?;
        let detail = json!({ "number": intent.number, "listed": intent.listed }).to_string();
        let entry = AuditEntry { detail, ..done(now, &Actor::System, "crl.issue", &issuer.id) };
        self.store
            .run_tx("record_crl", move |tx| {
                tx.record_crl(&intent.issuer_id, intent.number, &der)?;
                tx.append_audit(&entry)?;
                Ok(())
            })
            .await
    }

    /// Makes the CRLs of the CAs that certify terminals anew where a terminal was revoked.
    pub(crate) async fn refresh_krd_crls(&self) -> Result<(), ServiceError> {
        for issuer in self.crl_issuers().await? {
            if issuer.role == AuthorityRole::CaKrd {
                self.fresh_crl(&issuer.id, Renew::IfDue).await?;
            }
        }
        Ok(())
    }

    /// The CAs whose CRLs are kept up: those in use, and those that are retiring.
    pub(crate) async fn crl_issuers(&self) -> Result<Vec<KeyAuthority>, ServiceError> {
        let all =
            self.store.read("authorities", |tx| Ok::<_, ServiceError>(tx.authorities()?)).await?;
        let keeps = |one: &KeyAuthority| {
            matches!(one.role, AuthorityRole::CaKdh | AuthorityRole::CaKrd)
                && matches!(one.state, AuthorityState::Active | AuthorityState::Retiring)
        };
        Ok(all.into_iter().filter(keeps).collect())
    }
}

/// Whether a CRL lists these and no others: as many would not do, for one may have expired since
/// and another been revoked.
fn lists(crl: &StoredCrl, revoked: &[Listed]) -> Result<bool, ServiceError> {
    let der = crl.der.as_deref().unwrap_or_default();
    let damaged =
        |error| ServiceError::Internal { detail: format!("a stored CRL is damaged: {error}") };
    let crl = Crl::parse(der).map_err(damaged)?;
    let mut listed: Vec<String> = crl.serials().map(|serial| HEXLOWER.encode(serial)).collect();
    let mut wanted: Vec<&str> = revoked.iter().map(|one| one.serial.as_str()).collect();
    listed.sort_unstable();
    wanted.sort_unstable();
    Ok(listed == wanted)
}

fn listed_limit() -> u32 {
    u32::try_from(LISTED_MAX).unwrap_or(u32::MAX)
}
