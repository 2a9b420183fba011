use std::sync::atomic::Ordering;

use countersign_store::{
    AuditReport, AuditRow, ChainOutcome, Checkpoint, Page, chain_audit, release_chain, verify_audit,
};

use crate::{Service, ServiceError};

impl Service {
    /// Links the rows that wait and signs a checkpoint, if this process is the elected chainer.
    /// The caller appends the checkpoint to the file outside the store.
    ///
    /// # Errors
    /// The store's; a chain that does not end in a checkpoint of our key is not continued.
    pub async fn chain_audit(&self, holder: &str) -> Result<ChainOutcome, ServiceError> {
        let now = self.now();
        Ok(chain_audit(
            &self.store,
            &self.authority.provider,
            &*self.authority.audit_key,
            &mut *self.rng(),
            now,
            holder,
            countersign_store::MAX_CHAIN_ROWS,
        )
        .await?)
    }

    /// Notes whether the latest checkpoint could be written outside the store, for health checks.
    pub fn note_checkpoint(&self, written: bool) {
        self.checkpoint_lost.store(!written, Ordering::Relaxed);
    }

    /// Whether the latest checkpoint of this process is outside the store too; true before the
    /// first one.
    #[must_use]
    pub fn checkpoint_written(&self) -> bool {
        !self.checkpoint_lost.load(Ordering::Relaxed)
    }

    /// Lets another process chain at once, when this one stops.
    ///
    /// # Errors
    /// The store's.
    pub async fn release_chain(&self, holder: &str) -> Result<(), ServiceError> {
        Ok(release_chain(&self.store, holder).await?)
    }

    /// Verifies the whole audit against the store's and the file's checkpoints.
    ///
    /// # Errors
    /// The store's; what is wrong with the audit is in the report.
    pub async fn verify_audit(
        &self,
        file_checkpoints: &[Checkpoint],
    ) -> Result<AuditReport, ServiceError> {
        let provider = &self.authority.provider;
        let key = provider
            .signature
            .public_key(self.authority.audit_key.public_key())
            .map_err(|error| ServiceError::Internal { detail: error.to_string() })?;
        Ok(verify_audit(&self.store, provider, &*key, file_checkpoints).await?)
    }

    /// The rows of one incident: the check that the peer was not told.
    ///
    /// # Errors
    /// The store's.
    pub async fn incident(&self, id: &str) -> Result<Vec<AuditRow>, ServiceError> {
        let id = id.to_owned();
        self.store.read("incident", move |tx| Ok(tx.audit_by_incident(&id)?)).await
    }

    /// Audit rows, newest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn audit_page(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<AuditRow>, ServiceError> {
        self.store.read("audit_page", move |tx| Ok(tx.audit_page(cursor.as_deref(), limit)?)).await
    }
}
