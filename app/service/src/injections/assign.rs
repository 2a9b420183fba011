use countersign_injection::message::SLOTS;
use countersign_store::{
    Assignment, AuditEntry, IdKind, Injection, InjectionState, KeyState, RunKey, TerminalRecord, Tx,
};
use serde_json::json;

use crate::approvals::Grant;
use crate::{Actor, Gated, Scope, Service, ServiceError, done};

/// Most terminals that one call names; a run has more.
pub const ASSIGN_MAX: usize = 200;

/// Whom a key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssignTo {
    /// These terminals, by their ids or serial numbers.
    Terminals(Vec<String>),
    /// The inventory of this run.
    Run(String),
}

/// A key for a place in terminals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignKey {
    /// The key.
    pub key_id: String,
    /// The place, below [`SLOTS`].
    pub slot: u8,
    /// Where.
    pub to: AssignTo,
}

/// What was assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Terminals that the key waits for now.
    pub terminals: usize,
    /// The first [`ASSIGN_MAX`] of the injections.
    pub injections: Vec<Injection>,
}

/// The parameters, resolved.
#[derive(Debug, Clone)]
struct Plan {
    key_id: String,
    slot: u8,
    run_id: Option<String>,
    devices: Vec<String>,
}

impl Service {
    /// Assigns a key to a place in terminals, or in those of a run's inventory (E5, E8): each is
    /// given it at its next contact. What waited at that place is replaced; what is installed there
    /// stays in use until the new key is confirmed.
    ///
    /// A run's terminals that are not enrolled yet are given the key when they first ask.
    ///
    /// # Errors
    /// `slot-range`, `terminals-count`, `key-not-active`, `run-closed`, `run-slot-taken`;
    /// [`ServiceError::NotFound`]; the gate's. Refusals are audited.
    pub async fn assign_key(
        &self,
        actor: &Actor,
        assign: &AssignKey,
        approval: Option<&str>,
    ) -> Result<Gated<Assigned>, ServiceError> {
        let assigned = self.assign(actor, assign, approval).await;
        if let Err(error) = &assigned {
            let subject = if assign.key_id.len() <= 64 { assign.key_id.as_str() } else { "key" };
            self.refused_operator(actor, "injection.assign", subject, error).await;
        }
        assigned
    }

    async fn assign(
        &self,
        actor: &Actor,
        assign: &AssignKey,
        approval: Option<&str>,
    ) -> Result<Gated<Assigned>, ServiceError> {
        actor.require(Scope::KeysManage)?;
        if assign.slot >= SLOTS {
            let detail = format!("a terminal has the places 0 to {}", SLOTS - 1);
            return Err(ServiceError::refused("slot-range", detail));
        }
        let wanted = assign.clone();
        let plan = self.store.read("plan_assignment", move |tx| plan(tx, &wanted)).await?;
        let subject = match &plan.run_id {
            None => json!({ "key": plan.key_id, "slot": plan.slot, "terminals": plan.devices }),
            Some(run) => json!({ "key": plan.key_id, "slot": plan.slot, "run": run }),
        };
        let grant = match self.gate(actor, "injection.assign", &subject, approval).await? {
            Gated::Done(grant) => grant,
            Gated::Pending(approval) => return Ok(Gated::Pending(approval)),
        };
        self.store_assignments(actor, plan, grant).await.map(Gated::Done)
    }

    async fn store_assignments(
        &self,
        actor: &Actor,
        plan: Plan,
        grant: Grant,
    ) -> Result<Assigned, ServiceError> {
        let now = self.now();
        let ids: Vec<_> = plan.devices.iter().map(|_| self.new_id(IdKind::Injection)).collect();
        let actor = actor.clone();
        self.store
            .run_tx("assign_key", move |tx| {
                grant.consume(tx, now)?;
                active_key(tx, &plan.key_id)?;
                let slot = u32::from(plan.slot);
                if let Some(run) = &plan.run_id {
                    tx.add_run_key(run, &RunKey { slot, key_id: plan.key_id.clone() })?;
                    let detail = json!({ "key": plan.key_id, "slot": slot }).to_string();
                    let entry = done(now, &actor, "run.key", run);
                    tx.append_audit(&AuditEntry { detail, ..entry })?;
                }
                let mut injections = Vec::new();
                for (id, device_id) in ids.iter().zip(&plan.devices) {
                    let assignment = Assignment {
                        id: id.clone(),
                        device_id: device_id.clone(),
                        key_id: plan.key_id.clone(),
                        slot,
                        run_id: plan.run_id.clone(),
                        by: actor.id().to_owned(),
                        at: now,
                    };
                    injections.push(store_assignment(tx, &actor, &assignment)?);
                }
                let terminals = injections.len();
                injections.truncate(ASSIGN_MAX);
                Ok::<_, ServiceError>(Assigned { terminals, injections })
            })
            .await
    }

    /// Takes an injection back that was not installed yet. A terminal that has stored the key
    /// already erases it at its next contact.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; `injection-closed`.
    pub async fn cancel_injection(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<Injection, ServiceError> {
        let cancelled = self.cancel(actor, id).await;
        if let Err(error) = &cancelled {
            let subject = if id.len() <= 64 { id } else { "injection" };
            self.refused_operator(actor, "injection.cancel", subject, error).await;
        }
        cancelled
    }

    async fn cancel(&self, actor: &Actor, id: &str) -> Result<Injection, ServiceError> {
        actor.require(Scope::KeysManage)?;
        let now = self.now();
        let entry = done(now, actor, "injection.cancel", id);
        let id = id.to_owned();
        self.store
            .run_tx("cancel_injection", move |tx| {
                let cancelled = tx.end_injection(&id, InjectionState::Cancelled, None, now)?;
                tx.append_audit(&entry)?;
                Ok(cancelled)
            })
            .await
    }
}

/// One assignment with its audit row; what waited there already stays as it is.
pub(super) fn store_assignment(
    tx: &mut Tx<'_>,
    actor: &Actor,
    assignment: &Assignment,
) -> Result<Injection, ServiceError> {
    let before = tx.open_injection_at(&assignment.device_id, assignment.slot)?;
    let (injection, new) = tx.assign_injection(assignment)?;
    if new {
        let detail = json!({
            "key": injection.key_id,
            "terminal": injection.device_id,
            "slot": injection.slot,
            "run": injection.run_id,
            "replaces": before.map(|before| before.id),
        });
        let entry = done(assignment.at, actor, "injection.assign", &injection.id);
        tx.append_audit(&AuditEntry { detail: detail.to_string(), ..entry })?;
    }
    Ok(injection)
}

fn active_key(tx: &mut Tx<'_>, id: &str) -> Result<(), ServiceError> {
    let record = tx.key_by_id(id)?.ok_or(ServiceError::NotFound { what: "key" })?;
    if record.key.state == KeyState::Active {
        return Ok(());
    }
    let detail = format!("the key is {}", record.key.state);
    Err(ServiceError::refused("key-not-active", detail))
}

fn plan(tx: &mut Tx<'_>, wanted: &AssignKey) -> Result<Plan, ServiceError> {
    active_key(tx, &wanted.key_id)?;
    let (run_id, mut devices) = match &wanted.to {
        AssignTo::Run(run) => {
            tx.open_run(run)?;
            (Some(run.clone()), tx.run_devices(run)?)
        }
        AssignTo::Terminals(names) => {
            if names.is_empty() || names.len() > ASSIGN_MAX {
                let detail = format!("one call names 1 to {ASSIGN_MAX} terminals");
                return Err(ServiceError::refused("terminals-count", detail));
            }
            let found: Result<Vec<_>, _> = names.iter().map(|name| terminal(tx, name)).collect();
            (None, found?.into_iter().map(|record| record.device.device.id).collect())
        }
    };
    devices.sort_unstable();
    devices.dedup();
    Ok(Plan { key_id: wanted.key_id.clone(), slot: wanted.slot, run_id, devices })
}

/// A terminal by its id or its serial number.
fn terminal(tx: &mut Tx<'_>, name: &str) -> Result<TerminalRecord, ServiceError> {
    let found = match tx.terminal_by_id(name)? {
        None => tx.terminal_by_serial(name)?,
        found => found,
    };
    found.ok_or(ServiceError::NotFound { what: "terminal" })
}
