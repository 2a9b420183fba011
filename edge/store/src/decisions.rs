//! Decisions of the risk rules over readers (C5).

use std::time::Duration;

use countersign_crypto::UnixTime;

use crate::leases::CLOCKS_DIFFER;
use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::tx::Statement;
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx, Value};

/// Longest copy of a rule's terms, in bytes.
const MAX_TERMS_LEN: usize = 1024;
/// Sorts after every id: all ids begin with a lower-case prefix.
const AFTER_EVERY_ID: &str = "~";
/// Who ends a decision whose time is over.
const SYSTEM: &str = "system";

/// What a rule does to a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RiskAction {
    /// It is written down, for people to look at.
    Warn,
    /// The reader must pause between reads.
    Throttle,
    /// The reader is refused.
    Block,
}

stored_as_text!(RiskAction, "risk action", {
    Warn => "warn",
    Throttle => "throttle",
    Block => "block",
});

/// A decision, with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskDecision {
    /// `dec_…`.
    pub id: String,
    /// The reader.
    pub device_id: String,
    /// The rule's name.
    pub rule: String,
    /// A copy of the rule as it was, JSON.
    pub terms: String,
    /// What was counted when it tripped.
    pub counted: u32,
    /// What is done.
    pub action: RiskAction,
    /// The least time between two reads, of a throttle.
    pub pause: Option<Duration>,
    /// Why, in one sentence.
    pub reason: String,
    /// When.
    pub at: UnixTime,
    /// Until when; `None` until an operator reverses it.
    pub until: Option<UnixTime>,
    /// Events up to this number are used up: the rule counts from the next one.
    pub up_to_event: i64,
    /// How it ended, if somebody noted its end.
    pub end: Option<DecisionEnd>,
}

/// How a decision ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionEnd {
    /// When.
    pub at: UnixTime,
    /// `system` if its time was over, else the operator's id.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl RiskDecision {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn stands(&self, now: UnixTime) -> bool {
        self.end.is_none() && stands(self.at, self.until, now)
    }
}

/// Whether a decision that nobody ended holds at `now`.
///
/// One with an end that is to come, but was made later than any server's clock can say it is now,
/// is from a clock that was ahead and holds no more: else nobody could wait for its end.
pub(crate) fn stands(at: UnixTime, until: Option<UnixTime>, now: UnixTime) -> bool {
    until.is_none_or(|until| now < until && at <= now.plus(CLOCKS_DIFFER))
}

const COLUMNS: &str = "id, device_id, rule, terms, counted, action, pause, reason, at, until, \
     up_to_event, ended_at, ended_by, end_reason";

fn decision(row: &Row) -> Result<RiskDecision, StoreError> {
    let pause = if row.is_null(6)? { None } else { Some(row.u32(6)?) };
    let end = match row.opt_time(11)? {
        None => None,
        Some(at) => {
            Some(DecisionEnd { at, by: row.text(12)?.to_owned(), reason: row.text(13)?.to_owned() })
        }
    };
    Ok(RiskDecision {
        id: row.text(0)?.to_owned(),
        device_id: row.text(1)?.to_owned(),
        rule: row.text(2)?.to_owned(),
        terms: row.text(3)?.to_owned(),
        counted: row.u32(4)?,
        action: RiskAction::stored(row.text(5)?)?,
        pause: pause.map(|millis| Duration::from_millis(millis.into())),
        reason: row.text(7)?.to_owned(),
        at: row.time(8)?,
        until: row.opt_time(9)?,
        up_to_event: row.int(10)?,
        end,
    })
}

/// A pause as it is stored: milliseconds.
fn millis(pause: Duration) -> Result<Value, StoreError> {
    let millis = u32::try_from(pause.as_millis());
    millis.map(Value::from).map_err(|_| StoreError::Refused { check: "pause-range" })
}

impl Tx<'_> {
    /// Stores a decision, unless one of the same rule over the same reader stands already. Returns
    /// whether it was stored. One whose time is over makes room.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`,
    /// `pause-range`.
    pub fn open_decision(&mut self, decision: &RiskDecision) -> Result<bool, StoreError> {
        check_texts([decision.id.as_str(), &decision.rule, &decision.reason])?;
        if decision.terms.len() > MAX_TERMS_LEN {
            return Err(StoreError::Refused { check: "text-too-long" });
        }
        let pause = decision.pause.map(millis).transpose()?;
        let at = decision.at;
        let over = Statement::new(
            "UPDATE risk_decisions SET ended_at = ?3, ended_by = ?4, end_reason = 'its time is over'
             WHERE device_id = ?1 AND rule = ?2 AND ended_at IS NULL
               AND until IS NOT NULL AND (until <= ?3 OR at > ?5)",
            vec![
                (&decision.device_id).into(),
                (&decision.rule).into(),
                at.into(),
                SYSTEM.into(),
                at.plus(CLOCKS_DIFFER).into(),
            ],
        );
        let insert = Statement::new(
            "INSERT INTO risk_decisions (id, device_id, rule, terms, counted, action, pause,
                 reason, at, until, up_to_event)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (device_id, rule) WHERE ended_at IS NULL DO NOTHING RETURNING id",
            vec![
                (&decision.id).into(),
                (&decision.device_id).into(),
                (&decision.rule).into(),
                (&decision.terms).into(),
                decision.counted.into(),
                decision.action.name().into(),
                pause.unwrap_or(Value::Null),
                (&decision.reason).into(),
                at.into(),
                decision.until.into(),
                decision.up_to_event.into(),
            ],
        );
        let answers = self.together(&[over, insert])?;
        Ok(answers.last().is_some_and(|rows| !rows.is_empty()))
    }

    /// Ends a reader's decision by an operator's word. Its rule counts anew from here.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] `decision-ended`, `text-too-long`.
    pub fn reverse_decision(
        &mut self,
        device_id: &str,
        id: &str,
        end: &DecisionEnd,
    ) -> Result<RiskDecision, StoreError> {
        check_texts([end.by.as_str(), &end.reason])?;
        let sql = format!(
            "UPDATE risk_decisions SET ended_at = ?3, ended_by = ?4, end_reason = ?5,
                 up_to_event = (SELECT COALESCE(max(e.id), 0) FROM risk_events e
                                WHERE e.device_id = ?1)
             WHERE device_id = ?1 AND id = ?2 AND ended_at IS NULL RETURNING {COLUMNS}"
        );
        let values =
            [device_id.into(), id.into(), end.at.into(), (&end.by).into(), (&end.reason).into()];
        if let Some(row) = self.query_one(&sql, &values)? {
            return decision(&row);
        }
        let sql = "SELECT id FROM risk_decisions WHERE device_id = ?1 AND id = ?2";
        match self.query_one(sql, &[device_id.into(), id.into()])? {
            Some(_) => Err(StoreError::Refused { check: "decision-ended" }),
            None => Err(StoreError::NotFound { what: "decision" }),
        }
    }

    /// Notes the end of up to `limit` decisions whose time is over at `now`, or that a clock made
    /// which was ahead. Returns how many.
    ///
    /// # Errors
    /// What the database answers.
    pub fn end_decisions(&mut self, now: UnixTime, limit: u32) -> Result<u64, StoreError> {
        self.execute(
            "UPDATE risk_decisions SET ended_at = ?1, ended_by = ?2, end_reason = 'its time is over'
             WHERE id IN (SELECT id FROM risk_decisions
                          WHERE ended_at IS NULL AND until IS NOT NULL
                            AND (until <= ?1 OR at > ?3) LIMIT ?4)",
            &[now.into(), SYSTEM.into(), now.plus(CLOCKS_DIFFER).into(), limit.into()],
        )
    }

    /// Decisions over a reader, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn decisions_page(
        &mut self,
        device_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RiskDecision>, StoreError> {
        let before = check_cursor(cursor)?.unwrap_or(AFTER_EVERY_ID);
        let sql = format!(
            "SELECT {COLUMNS} FROM risk_decisions
             WHERE device_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
        );
        let values = [device_id.into(), before.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(decision).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |decision: &RiskDecision| decision.id.clone()))
    }

    /// Decisions over a reader whose end nobody noted: at most one of each rule, the oldest first,
    /// at most `limit` (in 1..=[`crate::MAX_PAGE`]).
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`.
    pub fn open_decisions(
        &mut self,
        device_id: &str,
        limit: u32,
    ) -> Result<Vec<RiskDecision>, StoreError> {
        fetch_limit(limit)?;
        let sql = format!(
            "SELECT {COLUMNS} FROM risk_decisions
             WHERE device_id = ?1 AND ended_at IS NULL ORDER BY id LIMIT ?2"
        );
        self.query(&sql, &[device_id.into(), limit.into()])?.iter().map(decision).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_holds_until_its_time_and_no_clock_makes_it_hold_for_ever() {
        let (at, hour) = (UnixTime::from_secs(1_000_000), Duration::from_secs(3600));
        let until = Some(at.plus(hour));
        assert!(stands(at, until, at) && stands(at, until, at.plus(hour / 2)));
        assert!(!stands(at, until, at.plus(hour)), "over");
        // Another server's clock may be behind, but not by an hour.
        assert!(stands(at, until, at.minus(CLOCKS_DIFFER)));
        assert!(!stands(at, until, at.minus(hour)), "the clock was ahead when it was made");
        // Without an end an operator ends it, whatever the clock says.
        for now in [UnixTime::default(), at.minus(hour), at.plus(hour * 10_000)] {
            assert!(stands(at, None, now));
        }
    }
}
