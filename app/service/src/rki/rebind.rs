//! Rebind campaigns as operators begin and follow them.

use countersign_store::{
    AuditEntry, AuthorityRole, AuthorityState, IdKind, Page, RebindCampaign, RebindState,
    RebindTerminal,
};
use serde_json::json;

use crate::{Actor, Gated, Scope, Service, ServiceError, done};

const MISSING: ServiceError = ServiceError::NotFound { what: "rebind campaign" };

impl Service {
    /// Begins a campaign: every terminal that is bound to an older KDH is bound to the one in use
    /// at its next contact. One that is open for another KDH is cancelled.
    ///
    /// # Errors
    /// `rki-no-kdh`; `rebind-open`; the gate's.
    pub async fn begin_rebind(
        &self,
        actor: &Actor,
        approval: Option<&str>,
    ) -> Result<Gated<RebindCampaign>, ServiceError> {
        let begun = self.begin_campaign(actor, approval).await;
        if let Err(error) = &begun {
            self.refused_operator(actor, "rebind.begin", "rebind", error).await;
        }
        begun
    }

    async fn begin_campaign(
        &self,
        actor: &Actor,
        approval: Option<&str>,
    ) -> Result<Gated<RebindCampaign>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let kdh = self.authority_in(AuthorityRole::Kdh, AuthorityState::Active).await?;
        let kdh = kdh.ok_or_else(|| {
            ServiceError::refused("rki-no-kdh", "there is no KDH in use to bind to")
        })?;
        let subject = json!({ "kdh": kdh.id });
        let grant = match self.gate(actor, "rebind.begin", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        let now = self.now();
        let id = self.new_id(IdKind::Rebind);
        let detail = json!({ "kdh": kdh.id }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "rebind.begin", &id) };
        let by = actor.id().to_owned();
        let campaign = self
            .store
            .run_tx("begin_rebind", move |tx| {
                grant.consume(tx, now)?;
                let campaign = tx.begin_rebind(&id, &kdh.id, &by, now)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(campaign)
            })
            .await?;
        Ok(Gated::Done(campaign))
    }

    /// Ends an open campaign; terminals that were rebound stay so.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `rebind-ended`.
    pub async fn cancel_rebind(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<RebindCampaign, ServiceError> {
        let cancelled = self.end_campaign(actor, id).await;
        if let Err(error) = &cancelled {
            self.refused_operator(actor, "rebind.cancel", id, error).await;
        }
        cancelled
    }

    async fn end_campaign(&self, actor: &Actor, id: &str) -> Result<RebindCampaign, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let now = self.now();
        let entry = done(now, actor, "rebind.cancel", id);
        let id = id.to_owned();
        self.store
            .run_tx("cancel_rebind", move |tx| {
                tx.rebind_by_id(&id)?.ok_or(MISSING)?;
                tx.end_rebind(&id, RebindState::Cancelled, now)?;
                tx.append_audit(&entry)?;
                tx.rebind_by_id(&id)?.ok_or(MISSING)
            })
            .await
    }

    /// Campaigns, newest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn rebinds(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<RebindCampaign>, ServiceError> {
        self.store
            .read("rebinds_page", move |tx| Ok(tx.rebinds_page(cursor.as_deref(), limit)?))
            .await
    }

    /// A campaign by its id.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn rebind(&self, id: &str) -> Result<RebindCampaign, ServiceError> {
        let id = id.to_owned();
        let found = self
            .store
            .read("rebind_by_id", move |tx| Ok::<_, ServiceError>(tx.rebind_by_id(&id)?))
            .await?;
        found.ok_or(MISSING)
    }

    /// The terminals of a campaign and how far each is.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `page-limit`, `page-cursor`.
    pub async fn rebind_terminals(
        &self,
        id: &str,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<RebindTerminal>, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("rebind_terminals", move |tx| {
                tx.rebind_by_id(&id)?.ok_or(MISSING)?;
                Ok(tx.rebind_terminals_page(&id, cursor.as_deref(), limit)?)
            })
            .await
    }
}
