use countersign_store::{AuditEntry, IdKind, InjectionRun, Page, RunState, StoreError};
use serde_json::json;

use super::{RunReport, report};
use crate::{Actor, Scope, Service, ServiceError, done};

/// Longest label of a run, in bytes.
const LABEL_MAX: usize = 100;

impl Service {
    /// Begins a run over an inventory of terminals that is fixed from now on. They need not be
    /// enrolled yet. Which keys they get is assigned afterwards, with approval.
    ///
    /// # Errors
    /// `run-label`, `run-size`, `run-serial-repeated`, `run-label-taken`. Refusals are audited.
    pub async fn begin_run(
        &self,
        actor: &Actor,
        label: &str,
        serials: Vec<String>,
    ) -> Result<RunReport, ServiceError> {
        let begun = self.try_begin_run(actor, label, serials).await;
        if let Err(error) = &begun {
            self.refused_operator(actor, "run.begin", "run", error).await;
        }
        begun
    }

    async fn try_begin_run(
        &self,
        actor: &Actor,
        label: &str,
        serials: Vec<String>,
    ) -> Result<RunReport, ServiceError> {
        actor.require(Scope::KeysManage)?;
        if label.is_empty() || label.len() > LABEL_MAX || label.contains(char::is_control) {
            let detail = format!("a label has 1 to {LABEL_MAX} bytes and no control characters");
            return Err(ServiceError::refused("run-label", detail));
        }
        if let Some(bad) = serials.iter().position(|serial| {
            countersign_pki::Identity::new(countersign_pki::Role::Terminal, serial).is_err()
        }) {
            let detail = format!("serial number {} of the list is not one", bad + 1);
            return Err(ServiceError::refused("serial-format", detail));
        }
        let now = self.now();
        let run = InjectionRun {
            id: self.new_id(IdKind::InjectionRun),
            label: label.to_owned(),
            state: RunState::Open,
            begun_by: actor.id().to_owned(),
            begun_at: now,
            closed_by: None,
            closed_at: None,
        };
        let detail = json!({ "label": label, "terminals": serials.len() }).to_string();
        let entry = AuditEntry { detail, ..done(now, actor, "run.begin", &run.id) };
        self.store
            .run_tx("begin_run", move |tx| {
                tx.begin_run(&run, &serials).map_err(named)?;
                tx.append_audit(&entry)?;
                Ok::<_, ServiceError>(report(tx, run.clone())?)
            })
            .await
    }

    /// Closes a run: nothing of it is assigned any more, and what it came to stays as it is. What
    /// still waits is cancelled.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `run-closed`.
    pub async fn close_run(&self, actor: &Actor, id: &str) -> Result<RunReport, ServiceError> {
        let closed = self.try_close_run(actor, id).await;
        if let Err(error) = &closed {
            let subject = if id.len() <= 64 { id } else { "run" };
            self.refused_operator(actor, "run.close", subject, error).await;
        }
        closed
    }

    async fn try_close_run(&self, actor: &Actor, id: &str) -> Result<RunReport, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let now = self.now();
        let (actor, id) = (actor.clone(), id.to_owned());
        self.store
            .run_tx("close_run", move |tx| {
                tx.open_run(&id)?;
                let cancelled = tx.cancel_run_injections(&id, now)?;
                tx.close_run(&id, actor.id(), now)?;
                let run = tx.run_by_id(&id)?.ok_or(ServiceError::NotFound { what: "run" })?;
                let report = report(tx, run)?;
                let detail =
                    json!({ "cancelled": cancelled, "unexpected": report.unexpected.len() });
                let entry = done(now, &actor, "run.close", &id);
                tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry })?;
                Ok(report)
            })
            .await
    }

    /// A run against its inventory.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn run(&self, id: &str) -> Result<RunReport, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("run_report", move |tx| {
                let run = tx.run_by_id(&id)?.ok_or(ServiceError::NotFound { what: "run" })?;
                Ok(report(tx, run)?)
            })
            .await
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn runs(
        &self,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<InjectionRun>, ServiceError> {
        self.store.read("runs_page", move |tx| Ok(tx.runs_page(cursor.as_deref(), limit)?)).await
    }
}

/// The database's rules by names that people know.
fn named(error: StoreError) -> ServiceError {
    match &error {
        StoreError::Conflict { constraint } if constraint == "injection_runs_label_key" => {
            ServiceError::refused("run-label-taken", "there is a run with this label")
        }
        StoreError::Conflict { constraint }
            if constraint == "injection_run_terminals_run_id_serial_key" =>
        {
            ServiceError::refused("run-serial-repeated", "a serial number is there twice")
        }
        _ => error.into(),
    }
}
