//! Approvals: what changes keys or the injection hierarchy is done only after M operators beside
//! the one who asks have agreed (E4; interfaces.md, Operators).
//!
//! A use case calls [`Service::gate`] with its action and all its parameters. Without an approval's
//! id that inserts a request and returns it; with one it returns a [`Grant`], which the deciding
//! transaction uses up: once, for exactly these parameters, by whom it was asked for.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{
    Approval, ApprovalState, ApprovalVote, AuditEntry, IdKind, Page, StoreError, Tx, Vote,
};
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::{Actor, Scope, Service, ServiceError, done};

/// Requests of one operator that may be open at a time.
pub const LIVE_APPROVALS_MAX: u32 = 100;
/// Longest subject that the audit repeats whole, in bytes; of a longer one it has the digest only.
const AUDITED_SUBJECT_MAX: usize = 2048;
/// Approvals that one turn of the sweep marks, and turns of one sweep.
const SWEEP_ROWS: u32 = 100;
const SWEEP_TURNS: u32 = 100;

/// How many must agree, and for how long a request stands: `[approvals]` in `config.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalPolicy {
    /// Distinct operators beside the one who asks, 1..=[`countersign_store::MAX_VOTES_NEEDED`].
    pub needed: u32,
    /// From the request on, votes and use included.
    pub expires: Duration,
}

impl Default for ApprovalPolicy {
    fn default() -> Self {
        Self { needed: 1, expires: Duration::from_secs(24 * 3600) }
    }
}

/// What came of an action that needs approval.
#[derive(Debug)]
pub enum Gated<T> {
    /// It was done.
    Done(T),
    /// Nothing was done: others must agree first.
    Pending(Approval),
}

/// The gate is open for one action. Only [`Service::gate`] makes it, and it opens nothing by
/// itself: the transaction that decides calls [`Grant::consume`].
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    approval_id: String,
    action: &'static str,
    subject: String,
    by: Actor,
}

impl Grant {
    /// Uses the approval up, with its audit row.
    ///
    /// # Errors
    /// `approval-not-usable` if it was used or expired meanwhile.
    pub(crate) fn consume(&self, tx: &mut Tx<'_>, now: UnixTime) -> Result<(), StoreError> {
        tx.use_approval(&self.approval_id, self.action, &self.subject, self.by.id(), now)?;
        let entry = AuditEntry {
            detail: json!({ "action": self.action }).to_string(),
            ..done(now, &self.by, "approval.use", &self.approval_id)
        };
        tx.append_audit(&entry)?;
        Ok(())
    }
}

/// An approval with the votes on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRecord {
    /// The request.
    pub approval: Approval,
    /// The votes counted so far, in order.
    pub votes: Vec<ApprovalVote>,
}

fn refuse<T>(check: &'static str, detail: &str) -> Result<T, ServiceError> {
    Err(ServiceError::refused(check, detail))
}

/// An approval is asked for and voted on by people with tokens, whom the audit can name.
fn operator(actor: &Actor) -> Result<&str, ServiceError> {
    match actor {
        Actor::Operator(operator) => Ok(&operator.id),
        _ => refuse("approval-operator-needed", "this needs an operator: use the API with a token"),
    }
}

/// As it stands now: a stored state does not know that time has passed.
fn state_at(approval: &Approval, now: UnixTime) -> ApprovalState {
    match approval.state {
        ApprovalState::Pending | ApprovalState::Approved if now >= approval.expires_at => {
            ApprovalState::Expired
        }
        state => state,
    }
}

impl Service {
    /// The gate before `action`. `subject` holds every parameter; the same request gives the same
    /// text. The caller has checked the actor's scope and the parameters before, and audits the
    /// gate's refusals with its own.
    ///
    /// Asking again for the same while a request is open returns that request.
    ///
    /// # Errors
    /// `approval-operator-needed`; `approvals-full`; with an id: `approval-other-request` unless it
    /// is for this action and subject and was asked for by this operator, `approval-pending`,
    /// `approval-rejected`, `approval-expired`, `approval-used`.
    pub(crate) async fn gate(
        &self,
        actor: &Actor,
        action: &'static str,
        subject: &Value,
        approval: Option<&str>,
    ) -> Result<Gated<Grant>, ServiceError> {
        let subject = subject.to_string();
        match approval {
            None => self.ask(actor, action, subject).await.map(Gated::Pending),
            Some(id) => self.open_gate(actor, action, subject, id).await.map(Gated::Done),
        }
    }

    async fn ask(
        &self,
        actor: &Actor,
        action: &'static str,
        subject: String,
    ) -> Result<Approval, ServiceError> {
        let by = operator(actor)?.to_owned();
        let now = self.now();
        let policy = self.policy.approvals;
        let approval = Approval {
            id: self.new_id(IdKind::Approval),
            action: action.to_owned(),
            subject,
            needed: policy.needed,
            requested_by: by,
            created_at: now,
            expires_at: now.plus(policy.expires),
            state: ApprovalState::Pending,
        };
        let digest = self.authority.provider.hash.hash(&[approval.subject.as_bytes()]);
        let mut detail = json!({
            "action": action,
            "needed": approval.needed,
            "subjectDigest": HEXLOWER.encode(digest.as_ref()),
        });
        if approval.subject.len() <= AUDITED_SUBJECT_MAX {
            detail["subject"] = approval.subject.as_str().into();
        }
        let entry = AuditEntry {
            detail: detail.to_string(),
            ..done(now, actor, "approval.request", &approval.id)
        };
        self.store
            .run_tx("ask_approval", move |tx| {
                let (subject, by) = (&approval.subject, &approval.requested_by);
                if let Some(open) = tx.live_approval(&approval.action, subject, by, now)? {
                    return Ok(open);
                }
                if tx.count_live_approvals(by)? >= LIVE_APPROVALS_MAX {
                    let detail = format!("{LIVE_APPROVALS_MAX} requests of this operator are open");
                    return Err(ServiceError::refused("approvals-full", detail));
                }
                tx.insert_approval(&approval)?;
                tx.append_audit(&entry)?;
                Ok(approval.clone())
            })
            .await
    }

    async fn open_gate(
        &self,
        actor: &Actor,
        action: &'static str,
        subject: String,
        id: &str,
    ) -> Result<Grant, ServiceError> {
        let by = operator(actor)?;
        let now = self.now();
        let approval = self.approval_by_id(id).await?;
        if approval.action != action || approval.subject != subject || approval.requested_by != by {
            let detail = "the approval is for another request, or was asked for by someone else";
            return refuse("approval-other-request", detail);
        }
        match state_at(&approval, now) {
            ApprovalState::Approved => {
                Ok(Grant { approval_id: approval.id, action, subject, by: actor.clone() })
            }
            ApprovalState::Pending => refuse("approval-pending", "others must agree first"),
            ApprovalState::Rejected => refuse("approval-rejected", "an operator has objected"),
            ApprovalState::Expired => refuse("approval-expired", "the request's time has passed"),
            ApprovalState::Used => refuse("approval-used", "an approval allows one action"),
        }
    }

    async fn approval_by_id(&self, id: &str) -> Result<Approval, ServiceError> {
        let id = id.to_owned();
        self.store
            .read("approval", move |tx| tx.approval_by_id(&id))
            .await?
            .ok_or(ServiceError::NotFound { what: "approval" })
    }

    /// Approvals, of one state or all, oldest first.
    ///
    /// # Errors
    /// `page-limit`, `page-cursor`.
    pub async fn approvals(
        &self,
        state: Option<ApprovalState>,
        cursor: Option<String>,
        limit: u32,
    ) -> Result<Page<Approval>, ServiceError> {
        let now = self.now();
        let mut page = self
            .store
            .read("approvals_page", move |tx| tx.approvals_page(state, cursor.as_deref(), limit))
            .await?;
        for approval in &mut page.items {
            approval.state = state_at(approval, now);
        }
        Ok(page)
    }

    /// One approval with its votes.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`].
    pub async fn approval(&self, id: &str) -> Result<ApprovalRecord, ServiceError> {
        let (id, now) = (id.to_owned(), self.now());
        self.store.read("approval", move |tx| record(tx, &id, now)).await
    }

    /// Counts an operator's vote.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`]; [`ServiceError::Forbidden`]; `approval-operator-needed`;
    /// `operator-disabled`; `approval-own-request` for the one who asked; `approval-voted` for a
    /// second vote; `approval-settled`; `approval-expired`. All are audited.
    pub async fn vote(
        &self,
        actor: &Actor,
        id: &str,
        vote: Vote,
    ) -> Result<ApprovalRecord, ServiceError> {
        let voted = self.count_vote(actor, id, vote).await;
        if let Err(error) = &voted {
            self.refused_operator(actor, "approval.vote", id, error).await;
        }
        voted
    }

    async fn count_vote(
        &self,
        actor: &Actor,
        id: &str,
        vote: Vote,
    ) -> Result<ApprovalRecord, ServiceError> {
        actor.require(Scope::ApprovalsVote)?;
        let by = operator(actor)?.to_owned();
        let (now, id, actor) = (self.now(), id.to_owned(), actor.clone());
        let (record, counted) = self
            .store
            .run_tx("vote", move |tx| {
                let operator = tx.operator_by_id(&by)?;
                if operator.is_none_or(|operator| operator.disabled_at.is_some()) {
                    return refuse("operator-disabled", "the operator is disabled");
                }
                if tx.votes_on(&id)?.iter().any(|vote| vote.operator_id == by) {
                    return refuse("approval-voted", "this operator has voted");
                }
                if tx.approval_by_id(&id)?.is_some_and(|it| it.state == ApprovalState::Expired) {
                    return refuse("approval-expired", "the request's time has passed");
                }
                let state = tx.vote(&id, &by, vote, now)?;
                let counted = state != ApprovalState::Expired;
                let (actor, action) = if counted {
                    (&actor, "approval.vote")
                } else {
                    (&Actor::System, "approval.expire")
                };
                let detail = json!({ "vote": vote.name(), "state": state.name() });
                let detail = if counted { detail } else { json!({}) };
                let entry =
                    AuditEntry { detail: detail.to_string(), ..done(now, actor, action, &id) };
                tx.append_audit(&entry)?;
                Ok((record(tx, &id, now)?, counted))
            })
            .await?;
        if counted {
            Ok(record)
        } else {
            refuse("approval-expired", "the request's time has passed")
        }
    }

    /// Marks approvals whose time has passed, each with its audit row, in bounded turns. Returns
    /// how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire_approvals(&self) -> Result<usize, ServiceError> {
        let now = self.now();
        let mut expired = 0;
        for _ in 0..SWEEP_TURNS {
            let marked = self
                .store
                .run_tx("expire_approvals", move |tx| {
                    let marked = tx.expire_approvals(now, SWEEP_ROWS)?;
                    for (id, action) in &marked {
                        let detail = json!({ "action": action }).to_string();
                        let entry = done(now, &Actor::System, "approval.expire", id);
                        tx.append_audit(&AuditEntry { detail, ..entry })?;
                    }
                    Ok::<_, ServiceError>(marked.len())
                })
                .await?;
            expired += marked;
            if marked < SWEEP_ROWS as usize {
                break;
            }
        }
        Ok(expired)
    }
}

fn record(tx: &mut Tx<'_>, id: &str, now: UnixTime) -> Result<ApprovalRecord, ServiceError> {
    let approval = tx.approval_by_id(id)?;
    let mut approval = approval.ok_or(ServiceError::NotFound { what: "approval" })?;
    approval.state = state_at(&approval, now);
    Ok(ApprovalRecord { votes: tx.votes_on(id)?, approval })
}
