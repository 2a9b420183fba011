//! What operators do with modules: see them, take them out of service, put them back (C12).

use std::collections::BTreeSet;

use countersign_idcard::sam::remote::{DRAINED_MAX, REMOTE_TEXT_MAX};
use countersign_store::SamDrain;

use super::SamModule;
use crate::devices::check_reason;
use crate::{Actor, Service, ServiceError, done};

/// A module, or a drain of one that is not attached to this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamListed {
    /// The module as this server sees it; none if it is not attached.
    pub module: Option<SamModule>,
    /// Why it is out of service, if it is.
    pub drain: Option<SamDrain>,
}

impl Service {
    /// Every module that this server knows of, and those that are out of service elsewhere.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_sams(&self) -> Result<Vec<SamListed>, ServiceError> {
        let mut drains = self.drains().await?;
        let mut listed = Vec::new();
        for module in self.sams.modules() {
            let at = drains.iter().position(|drain| Some(&drain.sam_id) == module.sam_id.as_ref());
            let drain = at.map(|at| drains.remove(at));
            listed.push(SamListed { module: Some(module), drain });
        }
        let elsewhere = |drain| SamListed { module: None, drain: Some(drain) };
        listed.extend(drains.into_iter().map(elsewhere));
        Ok(listed)
    }

    /// Takes a module out of service, on every server and for good: what is under way finishes, and
    /// nothing new begins. This server follows at once, the others within a second.
    ///
    /// # Errors
    /// `sam-id` for what is no module's id; `reason-length`; `drains-full`.
    pub async fn drain_sam(
        &self,
        actor: &Actor,
        sam_id: &str,
        reason: &str,
    ) -> Result<SamListed, ServiceError> {
        check_sam_id(sam_id)?;
        let now = self.now();
        let drain = SamDrain {
            sam_id: sam_id.to_owned(),
            reason: check_reason(reason)?,
            actor: actor.id().to_owned(),
            at: now,
        };
        let entry = done(now, actor, "sam.drain", sam_id);
        self.store
            .run_tx("sam_drain", move |tx| {
                let known = tx.sam_drains()?;
                let full = known.len() >= DRAINED_MAX
                    && known.iter().all(|known| known.sam_id != drain.sam_id);
                if full {
                    let detail = format!("at most {DRAINED_MAX} modules may be out of service");
                    return Err(ServiceError::refused("drains-full", detail));
                }
                tx.put_sam_drain(&drain)?;
                Ok(tx.append_audit(&entry)?)
            })
            .await?;
        self.refresh_drains().await?;
        self.listed(sam_id).await
    }

    /// Puts a module back into service.
    ///
    /// # Errors
    /// `sam-id`; [`ServiceError::NotFound`] if it is not out of service.
    pub async fn resume_sam(&self, actor: &Actor, sam_id: &str) -> Result<SamListed, ServiceError> {
        check_sam_id(sam_id)?;
        let entry = done(self.now(), actor, "sam.resume", sam_id);
        let id = sam_id.to_owned();
        self.store
            .run_tx("sam_resume", move |tx| {
                if !tx.remove_sam_drain(&id)? {
                    return Err(ServiceError::NotFound { what: "drained SAM module" });
                }
                Ok(tx.append_audit(&entry)?)
            })
            .await?;
        self.refresh_drains().await?;
        self.listed(sam_id).await
    }

    /// Has the pool do what the store says: to be called before the first read and then every
    /// second, because other servers drain too.
    ///
    /// # Errors
    /// The store's; the pool then goes on as before.
    pub async fn refresh_drains(&self) -> Result<(), ServiceError> {
        let drains = self.drains().await?;
        let ids: BTreeSet<String> = drains.into_iter().map(|drain| drain.sam_id).collect();
        self.sams.set_drained(ids);
        Ok(())
    }

    async fn drains(&self) -> Result<Vec<SamDrain>, ServiceError> {
        self.store.read("sam_drains", |tx| tx.sam_drains().map_err(ServiceError::from)).await
    }

    async fn listed(&self, sam_id: &str) -> Result<SamListed, ServiceError> {
        let has = |listed: &SamListed| {
            let of_module = listed.module.as_ref().and_then(|module| module.sam_id.as_deref());
            let of_drain = listed.drain.as_ref().map(|drain| drain.sam_id.as_str());
            of_module.or(of_drain) == Some(sam_id)
        };
        let found = self.list_sams().await?.into_iter().find(has);
        Ok(found.unwrap_or(SamListed { module: None, drain: None }))
    }
}

/// As the trade writes it, and nothing that a database or a SAM host would choke on.
fn check_sam_id(sam_id: &str) -> Result<(), ServiceError> {
    let allowed = |c: u8| c.is_ascii_digit() || matches!(c, b'A'..=b'F' | b'.' | b'-');
    if sam_id.is_empty() || sam_id.len() > REMOTE_TEXT_MAX || !sam_id.bytes().all(allowed) {
        let detail = "a module's id is written like 05.03-20260101-0000000001-0000000001";
        return Err(ServiceError::refused("sam-id", detail));
    }
    Ok(())
}
