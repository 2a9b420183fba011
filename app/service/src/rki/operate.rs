//! What operators do with the hierarchy: make it, look at it, roll over, revoke a KDH.

use std::time::Duration;

use countersign_store::{
    AuditEntry, AuthorityRole, AuthorityState, KeyAuthority, StoreError, StoredCrl,
};
use serde_json::json;

use super::crl::Renew;
use super::making::{ROLES, check_bits};
use super::not_initialised;
use crate::devices::check_reason;
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// From when on an intent whose key nobody has made counts as left behind by a crash.
const LEFT_BEHIND_AFTER: Duration = Duration::from_secs(10);

/// A member of the hierarchy and what depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityStatus {
    /// The member.
    pub authority: KeyAuthority,
    /// Terminals that are bound to it, if it is a KDH.
    pub bound: u64,
    /// Its newest CRL, if it is a CA.
    pub crl: Option<StoredCrl>,
}

/// The whole hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RkiStatus {
    /// What the vault says of itself.
    pub vault: String,
    /// Every generation, the newest first.
    pub authorities: Vec<AuthorityStatus>,
}

impl Service {
    /// Makes the hierarchy: root, Sub_CA_KRD, CA_KDH, the first KDH and the first CRLs. What is
    /// there already stays as it is, and what a crash left half made is finished: it may be run
    /// again at any time. Who has the data directory may run it; later generations need approval.
    ///
    /// # Errors
    /// `key-size`; the vault's.
    pub async fn init_rki(&self, actor: &Actor, bits: u32) -> Result<RkiStatus, ServiceError> {
        actor.require(Scope::KeysManage)?;
        check_bits(bits)?;
        self.note_vault(actor).await?;
        self.storage_key().await?;
        for role in ROLES {
            let existing = self
                .store
                .read("authorities", |tx| Ok::<_, ServiceError>(tx.authorities()?))
                .await?;
            let of_role: Vec<_> = existing.into_iter().filter(|one| one.role == role).collect();
            let half = of_role.iter().find(|one| one.state == AuthorityState::Intended);
            let intended = match half {
                Some(half) => half.clone(),
                None if of_role.is_empty() => {
                    self.intend_authority(actor, role, bits, None).await?
                }
                None => continue,
            };
            self.finish_authority(actor, &intended).await?;
        }
        self.maintain_rki().await?;
        self.rki_status().await
    }

    /// Has the vault that the hierarchy is made in in the audit.
    async fn note_vault(&self, actor: &Actor) -> Result<(), ServiceError> {
        let vault = self.in_vault(|vault| vault.describe()).await?.to_string();
        let detail = json!({ "vault": vault }).to_string();
        let subject = &self.authority.server_id;
        let entry = AuditEntry { detail, ..done(self.now(), actor, "rki.init", subject) };
        self.store
            .run_tx("rki_init", move |tx| tx.append_audit(&entry).map(|_| ()))
            .await
            .map_err(|error: StoreError| error.into())
    }

    /// The hierarchy, every generation of it.
    ///
    /// # Errors
    /// The vault's.
    pub async fn rki_status(&self) -> Result<RkiStatus, ServiceError> {
        let vault = self.in_vault(|vault| vault.describe()).await?.to_string();
        let authorities = self
            .store
            .read("rki_status", move |tx| {
                let bound = tx.bound_counts()?;
                let of = |id: &str| bound.iter().find(|(kdh, _)| kdh == id).map_or(0, |(_, n)| *n);
                let status = |authority: KeyAuthority, tx: &mut countersign_store::Tx<'_>| {
                    let crl = tx.newest_crl(&authority.id)?;
                    let bound = of(&authority.id);
                    Ok::<_, ServiceError>(AuthorityStatus { authority, bound, crl })
                };
                let all = tx.authorities()?;
                all.into_iter().map(|authority| status(authority, tx)).collect()
            })
            .await;
        Ok(RkiStatus { vault, authorities: authorities? })
    }

    /// Makes the next generation of a role and puts it into use; the one before is retiring. After
    /// a CA_KDH comes a KDH under it. A crash after the approval was used leaves an intent that
    /// [`Self::maintain_rki`] finishes.
    ///
    /// # Errors
    /// `authority-role` for a root; `rki-not-initialised`; `roll-under-way`; `key-size`; the
    /// gate's; the vault's.
    pub async fn roll_authority(
        &self,
        actor: &Actor,
        role: AuthorityRole,
        bits: Option<u32>,
        approval: Option<&str>,
    ) -> Result<Gated<RkiStatus>, ServiceError> {
        let rolled = self.roll(actor, role, bits, approval).await;
        if let Err(error) = &rolled {
            self.refused_operator(actor, "rki.roll", role.name(), error).await;
        }
        rolled
    }

    async fn roll(
        &self,
        actor: &Actor,
        role: AuthorityRole,
        bits: Option<u32>,
        approval: Option<&str>,
    ) -> Result<Gated<RkiStatus>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        if role == AuthorityRole::Root {
            let detail = "a root is not rolled over: terminals have it from their enrolment";
            return Err(ServiceError::refused("authority-role", detail));
        }
        let all =
            self.store.read("authorities", |tx| Ok::<_, ServiceError>(tx.authorities()?)).await?;
        let mut of_role = all.iter().filter(|one| one.role == role);
        let before = of_role.next().ok_or_else(not_initialised)?;
        let bits = bits.unwrap_or(before.bits);
        check_bits(bits)?;
        let subject = json!({ "role": role.name(), "bits": bits });
        let grant = match self.gate(actor, "rki.roll", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let intended = self.intend_authority(actor, role, bits, Some(grant)).await?;
        self.finish_authority(actor, &intended).await?;
        self.maintain_rki().await?;
        Ok(Gated::Done(self.rki_status().await?))
    }

    /// Revokes a KDH: it stands on the next CRL, which is made at once. Its key signs no token from
    /// this moment on.
    ///
    /// # Errors
    /// `reason-length`; [`ServiceError::NotFound`]; `authority-role` for anything but a KDH;
    /// `authority-ended`; the gate's.
    pub async fn revoke_authority(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
        approval: Option<&str>,
    ) -> Result<Gated<RkiStatus>, ServiceError> {
        let revoked = self.revoke_kdh(actor, id, reason, approval).await;
        if let Err(error) = &revoked {
            self.refused_operator(actor, "rki.revoke", id, error).await;
        }
        revoked
    }

    async fn revoke_kdh(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
        approval: Option<&str>,
    ) -> Result<Gated<RkiStatus>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let reason = check_reason(reason)?;
        let found = self.authority_by_id(id).await?;
        if found.role != AuthorityRole::Kdh {
            let detail = "only a KDH is revoked; a CA is rolled over";
            return Err(ServiceError::refused("authority-role", detail));
        }
        if found.der.is_none() || found.state == AuthorityState::Revoked {
            let detail = "this KDH is revoked, or was never certified";
            return Err(ServiceError::refused("authority-ended", detail));
        }
        let subject = json!({ "authority": id, "reason": reason });
        let grant = match self.gate(actor, "rki.revoke", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        let detail = json!({ "reason": reason }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "rki.revoke", id) };
        let id = id.to_owned();
        self.store
            .run_tx("revoke_authority", move |tx| {
                grant.consume(tx, now)?;
                tx.revoke_authority(&id, &reason, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(())
            })
            .await?;
        if let Some(issuer) = &found.issuer_id {
            self.fresh_crl(issuer, Renew::IfDue).await?;
        }
        Ok(Gated::Done(self.rki_status().await?))
    }

    /// What the hierarchy needs by itself: finishes what was intended, gives a new CA_KDH its KDH,
    /// makes CRLs in good time, retires what nobody needs any more. To be called now and then, on
    /// any number of servers.
    ///
    /// # Errors
    /// The vault's, the store's; what was done before it stays done.
    pub async fn maintain_rki(&self) -> Result<(), ServiceError> {
        let maintained = self.maintain().await;
        self.watch_crls().await?;
        maintained
    }

    async fn maintain(&self) -> Result<(), ServiceError> {
        let system = Actor::System;
        let active = |role| self.authority_in(role, AuthorityState::Active);
        if active(AuthorityRole::Root).await?.is_none() {
            return Ok(()); // `rki init` finishes what it has begun
        }
        for role in ROLES {
            if let Some(half) = self.authority_in(role, AuthorityState::Intended).await?
                && self.is_ours_to_finish(&half).await?
            {
                self.finish_authority(&system, &half).await?;
            }
        }
        let (ca, kdh) = (active(AuthorityRole::CaKdh).await?, active(AuthorityRole::Kdh).await?);
        if let (Some(ca), Some(kdh)) = (ca, kdh)
            && kdh.issuer_id.as_deref() != Some(ca.id.as_str())
        {
            let made = self.intend_authority(&system, AuthorityRole::Kdh, kdh.bits, None).await;
            match made {
                Ok(intended) => drop(self.finish_authority(&system, &intended).await?),
                // Another server is at it.
                Err(ServiceError::Refused { check: "roll-under-way" | "conflict", .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.retire_unneeded().await?;
        for issuer in self.crl_issuers().await? {
            self.fresh_crl(&issuer.id, Renew::InGoodTime).await?;
        }
        Ok(())
    }

    /// Whether what was intended is to be finished here: its key is in this vault already, or
    /// nobody has made it in the time that making takes.
    async fn is_ours_to_finish(&self, half: &KeyAuthority) -> Result<bool, ServiceError> {
        let label = half.label.clone();
        let held =
            self.in_vault(move |vault| Ok(vault.labels()?.iter().any(|held| held.label == label)));
        Ok(held.await? || self.now().since(half.intended_at) >= LEFT_BEHIND_AFTER)
    }

    /// Retires KDHs to which no terminal is bound, and then CAs of which nothing is left.
    async fn retire_unneeded(&self) -> Result<(), ServiceError> {
        let now = self.now();
        self.store
            .run_tx("retire_authorities", move |tx| {
                for id in tx.unneeded_authorities(now)? {
                    tx.retire_authority(&id, now)?;
                    tx.append_audit(&done(now, &Actor::System, "rki.retire", &id))?;
                }
                Ok(())
            })
            .await
    }
}
