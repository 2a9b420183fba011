//! Approvals: something is done only after M distinct operators agreed (interfaces.md).

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// Most votes an approval may need.
pub const MAX_VOTES_NEEDED: u32 = 32;
/// Longest subject of an approval in bytes: a list of devices fits.
pub const MAX_SUBJECT_LEN: usize = 32 * 1024;

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApprovalState {
    /// Votes are awaited.
    Pending,
    /// Enough operators agreed; not used yet.
    Approved,
    /// An operator objected: one objection suffices.
    Rejected,
    /// Its time passed.
    Expired,
    /// What it allowed was done; it allows nothing more.
    Used,
}

stored_as_text!(ApprovalState, "approval state", {
    Pending => "pending",
    Approved => "approved",
    Rejected => "rejected",
    Expired => "expired",
    Used => "used",
});

/// An operator's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vote {
    /// For.
    Approve,
    /// Against.
    Reject,
}

stored_as_text!(Vote, "vote", { Approve => "approve", Reject => "reject" });

/// A request for approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// `apr_…`.
    pub id: String,
    /// What is to be done, as a stable name.
    pub action: String,
    /// On what, with all parameters: a text that is compared byte by byte, at most
    /// [`MAX_SUBJECT_LEN`] long.
    pub subject: String,
    /// How many distinct operators must agree, 1..=[`MAX_VOTES_NEEDED`], not counting the one
    /// who asks: he may not vote.
    pub needed: u32,
    /// The operator who asks.
    pub requested_by: String,
    /// When.
    pub created_at: UnixTime,
    /// From when on it is void.
    pub expires_at: UnixTime,
    /// Where it stands, as last stored: expiry shows at the next vote, use or sweep.
    pub state: ApprovalState,
}

/// A vote that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalVote {
    /// Who voted.
    pub operator_id: String,
    /// What.
    pub vote: Vote,
    /// When.
    pub at: UnixTime,
}

const COLUMNS: &str = "id, action, subject, needed, requested_by, created_at, expires_at, state";

fn approval(row: &Row) -> Result<Approval, StoreError> {
    Ok(Approval {
        id: row.text(0)?.to_owned(),
        action: row.text(1)?.to_owned(),
        subject: row.text(2)?.to_owned(),
        needed: row.u32(3)?,
        requested_by: row.text(4)?.to_owned(),
        created_at: row.time(5)?,
        expires_at: row.time(6)?,
        state: ApprovalState::stored(row.text(7)?)?,
    })
}

impl Tx<'_> {
    /// Inserts a pending approval (whatever `state` says).
    ///
    /// # Errors
    /// [`StoreError::Refused`] `approval-needed` if `needed` is out of range, `text-too-long`,
    /// `approval-subject-length`; [`StoreError::NotFound`] for no such operator.
    pub fn insert_approval(&mut self, approval: &Approval) -> Result<(), StoreError> {
        if !(1..=MAX_VOTES_NEEDED).contains(&approval.needed) {
            return Err(StoreError::Refused { check: "approval-needed" });
        }
        check_texts([approval.id.as_str(), &approval.action])?;
        if approval.subject.len() > MAX_SUBJECT_LEN {
            return Err(StoreError::Refused { check: "approval-subject-length" });
        }
        self.execute(
            "INSERT INTO approvals
                 (id, action, subject, needed, requested_by, created_at, expires_at, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'pending')",
            &[
                (&approval.id).into(),
                (&approval.action).into(),
                (&approval.subject).into(),
                approval.needed.into(),
                (&approval.requested_by).into(),
                approval.created_at.into(),
                approval.expires_at.into(),
            ],
        )?;
        Ok(())
    }

    /// The approval with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn approval_by_id(&mut self, id: &str) -> Result<Option<Approval>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| approval(&row)).transpose()
    }

    /// Approvals, of one state or all, oldest first, after `cursor`; `limit` in
    /// 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn approvals_page(
        &mut self,
        state: Option<ApprovalState>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Approval>, StoreError> {
        let mut values =
            vec![check_cursor(cursor)?.unwrap_or_default().into(), fetch_limit(limit)?.into()];
        let of_state = if let Some(state) = state {
            values.push(state.name().into());
            "state = ?3 AND"
        } else {
            ""
        };
        let sql = format!(
            "SELECT {COLUMNS} FROM approvals WHERE {of_state} id > ?1 ORDER BY id LIMIT ?2"
        );
        let items = self.query(&sql, &values)?.iter().map(approval).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |approval: &Approval| approval.id.clone()))
    }

    /// The live approval that this operator has asked for with exactly this action and subject, if
    /// there is one: pending or approved, and not past its time.
    ///
    /// # Errors
    /// What the database answers.
    pub fn live_approval(
        &mut self,
        action: &str,
        subject: &str,
        requested_by: &str,
        now: UnixTime,
    ) -> Result<Option<Approval>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM approvals
             WHERE state IN ('pending', 'approved') AND requested_by = ?3 AND action = ?1
               AND subject = ?2 AND expires_at > ?4 ORDER BY id LIMIT 1"
        );
        let values = [action.into(), subject.into(), requested_by.into(), now.into()];
        self.query_one(&sql, &values)?.map(|row| approval(&row)).transpose()
    }

    /// How many approvals this operator has asked for that are pending or approved and unused.
    ///
    /// # Errors
    /// What the database answers.
    pub fn count_live_approvals(&mut self, requested_by: &str) -> Result<u32, StoreError> {
        let sql = "SELECT count(*) FROM approvals
                   WHERE state IN ('pending', 'approved') AND requested_by = ?1";
        self.query_one(sql, &[requested_by.into()])?.map_or(Ok(0), |row| row.u32(0))
    }

    /// Counts an operator's vote and returns the new state. A vote that comes too late is not
    /// counted: the approval becomes, or stays, expired.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `approval-own-request` for the one who
    /// asked, `approval-settled` if it is decided; [`StoreError::Conflict`]
    /// `approval_votes_approval_id_operator_id_key` for a second vote.
    pub fn vote(
        &mut self,
        approval_id: &str,
        operator_id: &str,
        vote: Vote,
        now: UnixTime,
    ) -> Result<ApprovalState, StoreError> {
        let approval = self.approval_by_id(approval_id)?;
        let approval = approval.ok_or(StoreError::NotFound { what: "approval" })?;
        if approval.requested_by == operator_id {
            return Err(StoreError::Refused { check: "approval-own-request" });
        }
        match approval.state {
            ApprovalState::Pending if now >= approval.expires_at => {
                return self.settle(approval_id, ApprovalState::Expired);
            }
            ApprovalState::Pending => {}
            ApprovalState::Expired => return Ok(ApprovalState::Expired),
            _ => return Err(StoreError::Refused { check: "approval-settled" }),
        }
        self.execute(
            "INSERT INTO approval_votes (approval_id, operator_id, vote, at)
             VALUES (?1, ?2, ?3, ?4)",
            &[approval_id.into(), operator_id.into(), vote.name().into(), now.into()],
        )?;
        match vote {
            Vote::Reject => self.settle(approval_id, ApprovalState::Rejected),
            Vote::Approve if self.votes_for(approval_id)? >= i64::from(approval.needed) => {
                self.settle(approval_id, ApprovalState::Approved)
            }
            Vote::Approve => Ok(ApprovalState::Pending),
        }
    }

    /// The votes counted for an approval, in order: at most one per operator, and no more than
    /// it needs and one objection.
    ///
    /// # Errors
    /// What the database answers.
    pub fn votes_on(&mut self, approval_id: &str) -> Result<Vec<ApprovalVote>, StoreError> {
        let rows = self.query(
            "SELECT operator_id, vote, at FROM approval_votes WHERE approval_id = ?1
             ORDER BY at, operator_id LIMIT ?2",
            &[approval_id.into(), (MAX_VOTES_NEEDED + 1).into()],
        )?;
        rows.iter()
            .map(|row| {
                Ok(ApprovalVote {
                    operator_id: row.text(0)?.to_owned(),
                    vote: Vote::stored(row.text(1)?)?,
                    at: row.time(2)?,
                })
            })
            .collect()
    }

    /// Uses an approval up, in the transaction of what it allows: exactly once, for exactly this
    /// action and subject, and by the operator who asked for it. Who was disabled since counts no
    /// more, neither the one who asked nor those who agreed.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `approval-not-usable` in every other case.
    pub fn use_approval(
        &mut self,
        id: &str,
        action: &str,
        subject: &str,
        by: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE approvals SET state = 'used'
             WHERE id = ?1 AND action = ?2 AND subject = ?3 AND requested_by = ?4
               AND state = 'approved' AND expires_at > ?5
               AND EXISTS (SELECT 1 FROM operators o WHERE o.id = ?4 AND o.disabled_at IS NULL)
               AND needed <= (SELECT count(*) FROM approval_votes v
                   JOIN operators o ON o.id = v.operator_id
                   WHERE v.approval_id = ?1 AND v.vote = 'approve' AND o.disabled_at IS NULL)",
            &[id.into(), action.into(), subject.into(), by.into(), now.into()],
        )?;
        if changed == 1 {
            Ok(())
        } else {
            Err(StoreError::Refused { check: "approval-not-usable" })
        }
    }

    /// Marks pending and unused approvals whose time has passed, `limit` at most; returns their
    /// ids and actions.
    ///
    /// # Errors
    /// What the database answers.
    pub fn expire_approvals(
        &mut self,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let sql = "UPDATE approvals SET state = 'expired'
                   WHERE id IN (SELECT id FROM approvals
                                WHERE state IN ('pending', 'approved') AND expires_at <= ?1
                                ORDER BY id LIMIT ?2)
                   RETURNING id, action";
        let rows = self.query(sql, &[now.into(), limit.into()])?;
        rows.iter().map(|row| Ok((row.text(0)?.to_owned(), row.text(1)?.to_owned()))).collect()
    }

    fn votes_for(&mut self, approval_id: &str) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM approval_votes WHERE approval_id = ?1 AND vote = 'approve'";
        let row = self.query_one(sql, &[approval_id.into()])?;
        row.map_or(Ok(0), |row| row.int(0))
    }

    fn settle(&mut self, id: &str, state: ApprovalState) -> Result<ApprovalState, StoreError> {
        let sql = "UPDATE approvals SET state = ?2 WHERE id = ?1 AND state = 'pending'";
        self.change_one("approval", sql, &[id.into(), state.name().into()])?;
        Ok(state)
    }
}
