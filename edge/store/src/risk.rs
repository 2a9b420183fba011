//! What the risk rules count (C5): events of a reader, over windows and in all, and how fast it
//! begins reads. What an event changes and what the rules then count goes to the database in one
//! round trip.

use std::borrow::Cow;
use std::time::Duration;

use countersign_crypto::UnixTime;

use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::reads::{begin, begun, finish};
use crate::tx::Statement;
use crate::value::check_texts;
use crate::{
    AuditEntry, BegunRead, DeviceRecord, Page, ReadEnd, ReadStart, ReaderCount, Row, StoreError,
    Tx, devices,
};

/// Standing throttles of one reader that are looked at: more than there can be rules.
const MAX_THROTTLES: u32 = 64;
/// Statements of one event: its row and its count.
const PER_EVENT: usize = 2;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RiskKind {
    /// Reads begun, each attempt.
    Reads,
    /// Reads that failed for a reason on the reader's side; labelled with the check.
    Errors,
    /// Reads and proven connections that were refused; labelled with the check.
    Refusals,
    /// Reports against it; labelled with their kind.
    Reports,
    /// Transactions at it; labelled with their outcome.
    Transactions,
    /// Packets that had to be asked for again.
    Resent,
    /// Signs that two devices present its certificate; labelled with the sign.
    Concurrent,
}

stored_as_text!(RiskKind, "kind of risk event", {
    Reads => "reads",
    Errors => "errors",
    Refusals => "refusals",
    Reports => "reports",
    Transactions => "transactions",
    Resent => "resent",
    Concurrent => "concurrent",
});

/// Something to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskEvent {
    /// What.
    pub kind: RiskKind,
    /// Its label, empty if the kind has none.
    pub label: String,
    /// How many, at least 1.
    pub amount: u32,
}

impl RiskEvent {
    /// One of a kind.
    #[must_use]
    pub fn one(kind: RiskKind, label: &str) -> Self {
        Self { kind, label: label.to_owned(), amount: 1 }
    }
}

/// What a rule wants counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskWatch {
    /// The rule: what its earlier decisions used up does not count.
    pub rule: String,
    /// What.
    pub kind: RiskKind,
    /// With this label only.
    pub label: Option<String>,
    /// Events after this count.
    pub since: UnixTime,
    /// Events after this were stored by a clock that was ahead, and do not count.
    pub horizon: UnixTime,
    /// Counting stops here.
    pub at_least: u32,
}

/// What noting events found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RiskNoted {
    /// The number of the last event noted.
    pub last_event: i64,
    /// What was counted, for each watch in its order. The newest `at_least` events are looked at:
    /// whether a count reaches that is exact, what is above it is not.
    pub counts: Vec<u32>,
}

/// An event as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RiskRow {
    /// Number given by the database, rising.
    pub id: i64,
    /// What.
    pub event: RiskEvent,
    /// When.
    pub at: UnixTime,
}

/// How fast a reader begins reads, and from where. A reader that never began one has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderMeter {
    /// When it began a read last.
    pub begun_at: UnixTime,
    /// When the bucket that bounds reads per minute is empty again.
    pub empty_at: UnixTime,
    /// The address from which it began last.
    pub peer: String,
    /// The other address from which it began before, empty if there was none.
    pub peer_before: String,
    /// When that was last.
    pub peer_before_at: UnixTime,
}

/// A throttle that nobody ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// The rule.
    pub rule: String,
    /// The least time between two reads.
    pub pause: Duration,
    at: UnixTime,
    until: Option<UnixTime>,
}

impl Throttle {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn stands(&self, now: UnixTime) -> bool {
        crate::decisions::stands(self.at, self.until, now)
    }
}

/// What decides whether a reader may begin a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderGate {
    /// The reader, if there is such.
    pub record: Option<DeviceRecord>,
    /// How fast it began reads so far.
    pub meter: Option<ReaderMeter>,
    /// The throttles on it.
    pub throttles: Vec<Throttle>,
    /// Whether another session has another read of it under way.
    pub overlaps: bool,
}

/// An attempt that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndingRead {
    /// The reader.
    pub device_id: String,
    /// What [`Tx::begin_read`] gave.
    pub begun: BegunRead,
    /// How it ends; `None` leaves the row as it is.
    pub end: Option<ReadEnd>,
    /// When.
    pub at: UnixTime,
}

/// The rows of two statements for each event, then of one for each watch.
fn note(
    device_id: &str,
    at: UnixTime,
    events: &[RiskEvent],
    watches: &[RiskWatch],
) -> Result<Vec<Statement>, StoreError> {
    let mut statements = Vec::with_capacity(PER_EVENT * events.len() + watches.len());
    for event in events {
        check_texts([event.label.as_str()])?;
        let (kind, amount) = (event.kind.name(), event.amount);
        statements.push(Statement::new(
            "INSERT INTO risk_events (device_id, kind, label, amount, at)
             VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id",
            vec![device_id.into(), kind.into(), (&event.label).into(), amount.into(), at.into()],
        ));
        statements.push(count(device_id, kind, &event.label, amount, at));
    }
    statements.extend(watches.iter().map(|watch| look(device_id, watch)));
    Ok(statements)
}

/// Adds to what a reader came to in all.
fn count(device_id: &str, kind: &str, label: &str, amount: u32, at: UnixTime) -> Statement {
    Statement::new(
        "INSERT INTO reader_counts (device_id, kind, label, total, last_at)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (device_id, kind, label) DO UPDATE SET
             total = reader_counts.total + excluded.total, last_at = excluded.last_at",
        vec![device_id.into(), kind.into(), label.into(), amount.into(), at.into()],
    )
}

/// Counts for a rule: no more rows than would trip it, by an index.
fn look(device_id: &str, watch: &RiskWatch) -> Statement {
    let mut values = vec![
        device_id.into(),
        watch.kind.name().into(),
        watch.since.into(),
        watch.horizon.into(),
        (&watch.rule).into(),
        watch.at_least.into(),
    ];
    let mut filter = "";
    if let Some(label) = &watch.label {
        values.push(label.into());
        filter = "AND e.label = ?7";
    }
    let sql = format!(
        "SELECT CAST(COALESCE(sum(newest.amount), 0) AS BIGINT) FROM (
             SELECT e.amount AS amount FROM risk_events e
             WHERE e.device_id = ?1 AND e.kind = ?2 AND e.at > ?3 AND e.at <= ?4 {filter}
               AND e.id > COALESCE((SELECT max(d.up_to_event) FROM risk_decisions d
                                    WHERE d.device_id = ?1 AND d.rule = ?5), 0)
             ORDER BY e.at DESC LIMIT ?6) AS newest"
    );
    Statement::new(sql, values)
}

fn noted(answers: &[Vec<Row>], events: usize) -> Result<RiskNoted, StoreError> {
    let (noted, counted) = answers.split_at(PER_EVENT * events);
    let last = noted.chunks(PER_EVENT).next_back().and_then(|rows| rows.first()?.first());
    let last_event = last.map(|row| row.int(0)).transpose()?.unwrap_or_default();
    let counts = counted.iter().map(|rows| {
        let row = rows.first().ok_or_else(|| StoreError::misuse("a count returned no row"))?;
        Ok::<_, StoreError>(u32::try_from(row.int(0)?).unwrap_or(u32::MAX))
    });
    Ok(RiskNoted { last_event, counts: counts.collect::<Result<_, _>>()? })
}

fn meter(row: &Row) -> Result<ReaderMeter, StoreError> {
    Ok(ReaderMeter {
        begun_at: row.time(0)?,
        empty_at: row.time(1)?,
        peer: row.text(2)?.to_owned(),
        peer_before: row.text(3)?.to_owned(),
        peer_before_at: row.time(4)?,
    })
}

fn throttle(row: &Row) -> Result<Throttle, StoreError> {
    Ok(Throttle {
        rule: row.text(0)?.to_owned(),
        pause: Duration::from_millis(row.u32(1)?.into()),
        at: row.time(2)?,
        until: row.opt_time(3)?,
    })
}

fn set_meter(device_id: &str, meter: &ReaderMeter) -> Result<Statement, StoreError> {
    check_texts([meter.peer.as_str(), &meter.peer_before])?;
    Ok(Statement::new(
        "INSERT INTO reader_meters
             (device_id, begun_at, empty_at, peer, peer_before, peer_before_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (device_id) DO UPDATE SET begun_at = excluded.begun_at,
             empty_at = excluded.empty_at, peer = excluded.peer,
             peer_before = excluded.peer_before, peer_before_at = excluded.peer_before_at",
        vec![
            device_id.into(),
            meter.begun_at.into(),
            meter.empty_at.into(),
            (&meter.peer).into(),
            (&meter.peer_before).into(),
            meter.peer_before_at.into(),
        ],
    ))
}

impl Tx<'_> {
    /// Everything that decides whether `start` may be. Reads of other sessions count as under way
    /// if they began after `under_way_since`.
    ///
    /// # Errors
    /// What the database answers.
    pub fn reader_gate(
        &mut self,
        start: &ReadStart,
        under_way_since: UnixTime,
    ) -> Result<ReaderGate, StoreError> {
        let device = || vec![(&start.device_id).into()];
        let mut capped = device();
        capped.push(MAX_THROTTLES.into());
        let answers = self.together(&[
            Statement::new(Cow::Owned(devices::select("d.id = ?1")), device()),
            Statement::new(
                "SELECT begun_at, empty_at, peer, peer_before, peer_before_at
                 FROM reader_meters WHERE device_id = ?1",
                device(),
            ),
            Statement::new(
                "SELECT rule, pause, at, until FROM risk_decisions
                 WHERE device_id = ?1 AND ended_at IS NULL AND action = 'throttle' LIMIT ?2",
                capped,
            ),
            Statement::new(
                "SELECT id FROM reads WHERE device_id = ?1 AND state = 'started'
                   AND session_id <> ?2 AND client_read_id <> ?3 AND started_at > ?4 LIMIT 1",
                vec![
                    (&start.device_id).into(),
                    (&start.session_id).into(),
                    (&start.client_read_id).into(),
                    under_way_since.into(),
                ],
            ),
        ])?;
        let [device, meters, throttles, others] = answers.as_slice() else {
            return Err(StoreError::misuse("four statements, but not four answers"));
        };
        Ok(ReaderGate {
            record: device.first().map(devices::record).transpose()?,
            meter: meters.first().map(meter).transpose()?,
            throttles: throttles.iter().map(throttle).collect::<Result<_, _>>()?,
            overlaps: !others.is_empty(),
        })
    }

    /// [`Tx::begin_read`], with the reader's new meter and the events of it, in one round trip.
    ///
    /// # Errors
    /// As [`Tx::begin_read`].
    pub fn begin_watched_read(
        &mut self,
        start: &ReadStart,
        meter: &ReaderMeter,
        events: &[RiskEvent],
        watches: &[RiskWatch],
    ) -> Result<(BegunRead, RiskNoted), StoreError> {
        let mut statements = vec![begin(start)?, set_meter(&start.device_id, meter)?];
        let own = statements.len();
        statements.extend(note(&start.device_id, start.at, events, watches)?);
        let answers = self.together(&statements)?;
        let (first, rest) = answers.split_at(own);
        Ok((begun(first.first().map_or(&[], Vec::as_slice))?, noted(rest, events.len())?))
    }

    /// [`Tx::finish_read`], with its audit entry and its events, in one round trip. A failure of an
    /// attempt that is not the latest any more leaves the row as it is and is noted all the same.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such read; [`StoreError::Refused`] `read-superseded` for
    /// [`ReadEnd::Done`]; as [`Tx::append_audit`].
    pub fn finish_watched_read(
        &mut self,
        ending: &EndingRead,
        entry: &AuditEntry,
        events: &[RiskEvent],
        watches: &[RiskWatch],
    ) -> Result<RiskNoted, StoreError> {
        let (id, device_id, at) = (&ending.begun.id, &ending.device_id, ending.at);
        let done = matches!(ending.end, Some(ReadEnd::Done { .. }));
        let mut statements = vec![crate::audit::append(entry)?];
        if let Some(end) = &ending.end {
            statements.push(finish(id, ending.begun.attempt, end, at)?);
        }
        if done {
            statements.push(count(device_id, ReaderCount::DONE, "", 1, at));
        }
        let own = statements.len();
        statements.extend(note(device_id, at, events, watches)?);
        let answers = self.together(&statements)?;
        let noted = noted(&answers[own..], events.len())?;
        let changed = ending.end.is_none() || answers.get(1).is_some_and(|rows| !rows.is_empty());
        if !changed {
            match self.why_not_ended(id)? {
                StoreError::Refused { .. } if !done => {}
                error => return Err(error),
            }
        }
        Ok(noted)
    }

    /// Notes events of a reader and counts for the rules that watch them.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such device; [`StoreError::Refused`] `text-too-long`.
    pub fn note_risk(
        &mut self,
        device_id: &str,
        at: UnixTime,
        events: &[RiskEvent],
        watches: &[RiskWatch],
    ) -> Result<RiskNoted, StoreError> {
        let answers = self.together(&note(device_id, at, events, watches)?)?;
        noted(&answers, events.len())
    }

    /// Events of a reader, newest first, before `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn risk_events_page(
        &mut self,
        device_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<RiskRow>, StoreError> {
        let before = match check_cursor(cursor)? {
            None => i64::MAX,
            Some(text) => text.parse().map_err(|_| StoreError::Refused { check: "page-cursor" })?,
        };
        let sql = "SELECT id, kind, label, amount, at FROM risk_events
                   WHERE device_id = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3";
        let values = [device_id.into(), before.into(), fetch_limit(limit)?.into()];
        let event = |row: &Row| {
            let kind = RiskKind::stored(row.text(1)?)?;
            let event = RiskEvent { kind, label: row.text(2)?.to_owned(), amount: row.u32(3)? };
            Ok::<_, StoreError>(RiskRow { id: row.int(0)?, event, at: row.time(4)? })
        };
        let items = self.query(sql, &values)?.iter().map(event).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |row: &RiskRow| row.id.to_string()))
    }

    /// Removes up to `limit` events that no window can reach: from before `before`, or stored by a
    /// clock that was ahead, after `after`. Returns how many.
    ///
    /// # Errors
    /// What the database answers.
    pub fn remove_risk_events(
        &mut self,
        before: UnixTime,
        after: UnixTime,
        limit: u32,
    ) -> Result<u64, StoreError> {
        self.execute(
            "DELETE FROM risk_events WHERE id IN
                 (SELECT id FROM risk_events WHERE at < ?1 OR at > ?2 ORDER BY at LIMIT ?3)",
            &[before.into(), after.into(), limit.into()],
        )
    }
}
