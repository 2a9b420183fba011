//! Rebind campaigns: terminals of older KDHs are bound to another at their next contact (E2).

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebindState {
    /// Terminals remain.
    Open,
    /// Every terminal was rebound.
    Done,
    /// Ended by an operator, or by another campaign.
    Cancelled,
}

stored_as_text!(RebindState, "rebind state", {
    Open => "open",
    Done => "done",
    Cancelled => "cancelled",
});

/// How far a terminal is within a campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebindProgress {
    /// It has not been in contact yet.
    Open,
    /// It was rebound.
    Done,
    /// The last try failed; the next contact tries again.
    Failed,
}

stored_as_text!(RebindProgress, "rebind progress", {
    Open => "open",
    Done => "done",
    Failed => "failed",
});

/// A campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebindCampaign {
    /// `reb_…`.
    pub id: String,
    /// The KDH to bind to, `rka_…`.
    pub to_kdh: String,
    /// Where it stands.
    pub state: RebindState,
    /// Who began it.
    pub actor: String,
    /// When.
    pub created_at: UnixTime,
    /// When it ended.
    pub ended_at: Option<UnixTime>,
    /// Terminals that have not been in contact yet.
    pub open: u32,
    /// Terminals that were rebound.
    pub done: u32,
    /// Terminals whose last try failed.
    pub failed: u32,
}

/// A terminal within a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebindTerminal {
    /// The campaign.
    pub rebind_id: String,
    /// The KDH to bind to.
    pub to_kdh: String,
    /// The terminal, `trm_…`.
    pub device_id: String,
    /// Its serial number.
    pub serial: String,
    /// The KDH that it was bound to when the campaign began.
    pub from_kdh: String,
    /// How far it is.
    pub progress: RebindProgress,
    /// The check that failed last.
    pub failed_check: Option<String>,
    /// Since when.
    pub at: UnixTime,
}

const COLUMNS: &str = "r.id, r.to_kdh, r.state, r.actor, r.created_at, r.ended_at,
     (SELECT count(*) FROM rebind_terminals o WHERE o.rebind_id = r.id AND o.state = 'open'),
     (SELECT count(*) FROM rebind_terminals o WHERE o.rebind_id = r.id AND o.state = 'done'),
     (SELECT count(*) FROM rebind_terminals o WHERE o.rebind_id = r.id AND o.state = 'failed')";

fn campaign(row: &Row) -> Result<RebindCampaign, StoreError> {
    Ok(RebindCampaign {
        id: row.text(0)?.to_owned(),
        to_kdh: row.text(1)?.to_owned(),
        state: RebindState::stored(row.text(2)?)?,
        actor: row.text(3)?.to_owned(),
        created_at: row.time(4)?,
        ended_at: row.opt_time(5)?,
        open: row.u32(6)?,
        done: row.u32(7)?,
        failed: row.u32(8)?,
    })
}

const MEMBER_COLUMNS: &str = "m.rebind_id, r.to_kdh, m.device_id, d.serial, m.from_kdh, m.state, \
     m.failed_check, m.at";
const MEMBER_JOIN: &str = "rebind_terminals m JOIN rebinds r ON r.id = m.rebind_id \
     JOIN devices d ON d.id = m.device_id";

fn member(row: &Row) -> Result<RebindTerminal, StoreError> {
    Ok(RebindTerminal {
        rebind_id: row.text(0)?.to_owned(),
        to_kdh: row.text(1)?.to_owned(),
        device_id: row.text(2)?.to_owned(),
        serial: row.text(3)?.to_owned(),
        from_kdh: row.text(4)?.to_owned(),
        progress: RebindProgress::stored(row.text(5)?)?,
        failed_check: row.opt_text(6)?.map(str::to_owned),
        at: row.time(7)?,
    })
}

impl Tx<'_> {
    /// Begins a campaign over every terminal that is bound to another KDH than `to_kdh`, and
    /// returns it. One that is open for another KDH is cancelled: a terminal has one way to go.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `rebind-open` if one to the same KDH is open.
    pub fn begin_rebind(
        &mut self,
        id: &str,
        to_kdh: &str,
        actor: &str,
        now: UnixTime,
    ) -> Result<RebindCampaign, StoreError> {
        check_texts([id, actor])?;
        let open = self.query_one("SELECT id, to_kdh FROM rebinds WHERE state = 'open'", &[])?;
        if let Some(open) = open {
            if open.text(1)? == to_kdh {
                return Err(StoreError::Refused { check: "rebind-open" });
            }
            self.end_rebind(open.text(0)?, RebindState::Cancelled, now)?;
        }
        self.execute(
            "INSERT INTO rebinds (id, to_kdh, state, actor, created_at)
             VALUES (?1, ?2, 'open', ?3, ?4)",
            &[id.into(), to_kdh.into(), actor.into(), now.into()],
        )?;
        self.execute(
            "INSERT INTO rebind_terminals (rebind_id, device_id, from_kdh, state, at)
             SELECT ?1, device_id, bound_kdh, 'open', ?3 FROM terminals
             WHERE bound_kdh IS NOT NULL AND bound_kdh <> ?2",
            &[id.into(), to_kdh.into(), now.into()],
        )?;
        self.finish_rebind_if_complete(id, now)?;
        self.rebind_by_id(id)?.ok_or(StoreError::NotFound { what: "rebind campaign" })
    }

    /// Ends an open campaign.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `rebind-ended` if it is not open.
    pub fn end_rebind(
        &mut self,
        id: &str,
        state: RebindState,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let changed = self.execute(
            "UPDATE rebinds SET state = ?2, ended_at = ?3 WHERE id = ?1 AND state = 'open'",
            &[id.into(), state.name().into(), now.into()],
        )?;
        let ended = StoreError::Refused { check: "rebind-ended" };
        if changed == 1 { Ok(()) } else { Err(ended) }
    }

    /// The campaign with this id.
    ///
    /// # Errors
    /// What the database answers.
    pub fn rebind_by_id(&mut self, id: &str) -> Result<Option<RebindCampaign>, StoreError> {
        let sql = format!("SELECT {COLUMNS} FROM rebinds r WHERE r.id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| campaign(&row)).transpose()
    }

    /// Campaigns, newest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn rebinds_page(
        &mut self,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RebindCampaign>, StoreError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM rebinds r WHERE (?1 = '' OR r.id < ?1)
             ORDER BY r.id DESC LIMIT ?2"
        );
        let before = check_cursor(cursor)?.unwrap_or_default();
        let values = [before.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(campaign).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |campaign: &RebindCampaign| campaign.id.clone()))
    }

    /// The terminals of a campaign by id, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn rebind_terminals_page(
        &mut self,
        rebind_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RebindTerminal>, StoreError> {
        let sql = format!(
            "SELECT {MEMBER_COLUMNS} FROM {MEMBER_JOIN}
             WHERE m.rebind_id = ?1 AND m.device_id > ?2 ORDER BY m.device_id LIMIT ?3"
        );
        let after = check_cursor(cursor)?.unwrap_or_default();
        let values = [rebind_id.into(), after.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(member).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |member: &RebindTerminal| member.device_id.clone()))
    }

    /// What the open campaign wants of a terminal that is still bound as it was when the campaign
    /// began; `None` if nothing.
    ///
    /// # Errors
    /// What the database answers.
    pub fn rebind_due(&mut self, device_id: &str) -> Result<Option<RebindTerminal>, StoreError> {
        let sql = format!(
            "SELECT {MEMBER_COLUMNS} FROM {MEMBER_JOIN}
             JOIN terminals t ON t.device_id = m.device_id AND t.bound_kdh = m.from_kdh
             WHERE m.device_id = ?1 AND m.state <> 'done' AND r.state = 'open' LIMIT 1"
        );
        self.query_one(&sql, &[device_id.into()])?.map(|row| member(&row)).transpose()
    }

    /// The KDHs that ended campaigns offered a terminal by a token while it was bound as it is: it
    /// may have followed one, and its word of it was lost. Newest first.
    ///
    /// # Errors
    /// What the database answers.
    pub fn rebinds_offered(&mut self, device_id: &str) -> Result<Vec<RebindTerminal>, StoreError> {
        // The time of `RBT_CA` is in whole seconds, rounded down.
        let sql = format!(
            "SELECT {MEMBER_COLUMNS} FROM {MEMBER_JOIN}
             JOIN terminals t ON t.device_id = m.device_id AND t.bound_kdh = m.from_kdh
             WHERE m.device_id = ?1 AND m.state <> 'done' AND r.state <> 'open'
               AND EXISTS (SELECT 1 FROM injection_tokens k WHERE k.device_id = m.device_id
                   AND k.kind IN ('rebind', 'rebind-ca') AND k.at > r.created_at - 1000)
             ORDER BY r.id DESC LIMIT 16"
        );
        self.query(&sql, &[device_id.into()])?.iter().map(member).collect()
    }

    /// A terminal has followed an ended campaign to this KDH. What the open campaign wants of it
    /// stands, at the word of that KDH.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such terminal or KDH.
    pub fn follow_rebind(
        &mut self,
        device_id: &str,
        kdh: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        self.change_one(
            "terminal",
            "UPDATE terminals SET bound_kdh = ?2, bound_at = ?3, unbound_at = NULL
             WHERE device_id = ?1",
            &[device_id.into(), kdh.into(), now.into()],
        )?;
        self.execute(
            "UPDATE rebind_terminals SET from_kdh = ?2, at = ?3
             WHERE device_id = ?1 AND state <> 'done'
               AND rebind_id IN (SELECT id FROM rebinds WHERE state = 'open' AND to_kdh <> ?2)",
            &[device_id.into(), kdh.into(), now.into()],
        )?;
        Ok(())
    }

    /// Notes how the rebinding of a terminal went: done, or the check that failed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the campaign does not have it; [`StoreError::Refused`]
    /// `text-too-long`.
    pub fn note_rebind(
        &mut self,
        rebind_id: &str,
        device_id: &str,
        failed_check: Option<&str>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts(failed_check)?;
        let state = if failed_check.is_some() { "failed" } else { "done" };
        self.change_one(
            "terminal of the rebind campaign",
            "UPDATE rebind_terminals SET state = ?3, failed_check = ?4, at = ?5
             WHERE rebind_id = ?1 AND device_id = ?2",
            &[rebind_id.into(), device_id.into(), state.into(), failed_check.into(), now.into()],
        )?;
        self.finish_rebind_if_complete(rebind_id, now)
    }

    /// A terminal was bound anew, or unbound: the open campaign wants nothing more of it.
    pub(crate) fn settle_rebind(
        &mut self,
        device_id: &str,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let Some(due) = self.query_one(
            "SELECT m.rebind_id FROM rebind_terminals m JOIN rebinds r ON r.id = m.rebind_id
             WHERE m.device_id = ?1 AND m.state <> 'done' AND r.state = 'open'",
            &[device_id.into()],
        )?
        else {
            return Ok(());
        };
        self.note_rebind(due.text(0)?, device_id, None, now)
    }

    fn finish_rebind_if_complete(&mut self, id: &str, now: UnixTime) -> Result<(), StoreError> {
        self.execute(
            "UPDATE rebinds SET state = 'done', ended_at = ?2
             WHERE id = ?1 AND state = 'open' AND NOT EXISTS (
                 SELECT 1 FROM rebind_terminals m WHERE m.rebind_id = ?1 AND m.state <> 'done')",
            &[id.into(), now.into()],
        )
        .map(|_| ())
    }
}
