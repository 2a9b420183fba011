//! What happened, stored in the transaction in which it happened, for webhooks.

use std::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};

use crate::tx::Many;
use crate::value::check_texts;
use crate::webhooks::WebhookStatus;
use crate::{Column, IdKind, Row, StoreError, Tx, new_id};

/// Longest data of an event, in bytes of JSON.
pub const EVENT_DATA_MAX: usize = 16 * 1024;
/// Most events that one [`Tx::spread_events`] spreads.
pub const SPREAD_MAX: u32 = 256;
/// How long events and settled deliveries are kept.
pub const EVENTS_KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Most rows that one [`Tx::sweep_events`] removes of each kind.
pub const EVENTS_SWEEP_MAX: u32 = 500;

/// Something that happened, such as the execution of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `evt_…`; becomes the `id` of a CloudEvent.
    pub id: String,
    /// What happened, in reverse-DNS form without the prefix: `payment.executed`.
    pub kind: String,
    /// The id of what it happened to: `pay_…`.
    pub subject: String,
    /// A JSON object; no secrets.
    pub data: String,
    /// The operator who asked for what happened: an integrator's webhooks are told of its own
    /// only. `None`: nobody's in particular.
    pub owner: Option<String>,
    /// When.
    pub at: UnixTime,
}

pub(crate) fn event(row: &Row, first: usize) -> Result<Event, StoreError> {
    Ok(Event {
        id: row.text(first)?.to_owned(),
        kind: row.text(first + 1)?.to_owned(),
        subject: row.text(first + 2)?.to_owned(),
        data: row.text(first + 3)?.to_owned(),
        owner: row.opt_text(first + 4)?.map(str::to_owned),
        at: row.time(first + 5)?,
    })
}

pub(crate) const EVENT_COLUMNS: &str = "e.id, e.type, e.subject, e.data, e.owner, e.at";

/// The statement that stores events.
pub(crate) fn store_events(events: &[Event]) -> Result<Many, StoreError> {
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        check_texts([event.id.as_str(), event.kind.as_str(), event.subject.as_str()])?;
        check_texts(event.owner.as_deref())?;
        if event.data.len() > EVENT_DATA_MAX {
            return Err(StoreError::Refused { check: "event-data" });
        }
        rows.push(vec![
            (&event.id).into(),
            (&event.kind).into(),
            (&event.subject).into(),
            (&event.data).into(),
            event.owner.as_deref().into(),
            event.at.into(),
            0_i64.into(),
        ]);
    }
    Ok(Many::insert(
        "events",
        "id, type, subject, data, owner, at, spread",
        &[
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Text,
            Column::Int,
            Column::Int,
        ],
        rows,
    ))
}

impl Tx<'_> {
    /// Stores events in the transaction in which they happen. Afterwards publish
    /// [`crate::Notice::events`] on the bus, so that they leave at once.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`, `event-data`.
    pub fn insert_events(&mut self, events: &[Event]) -> Result<(), StoreError> {
        self.write_last(vec![store_events(events)?])
    }

    /// Makes deliveries of the oldest events that have none yet, at most [`SPREAD_MAX`]: one for
    /// each active webhook that wants the event and was there before it. Returns how many events
    /// were looked at; fewer than [`SPREAD_MAX`] means that none is left.
    ///
    /// # Errors
    /// What the database answers.
    pub fn spread_events(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
    ) -> Result<u32, StoreError> {
        const COLUMNS: [(&str, Column); 8] = [
            ("id", Column::Text),
            ("webhook_id", Column::Text),
            ("event_id", Column::Text),
            ("state", Column::Text),
            ("attempts", Column::Int),
            ("next_at", Column::Int),
            ("created_at", Column::Int),
            ("updated_at", Column::Int),
        ];
        let sql = "SELECT id, type, at, owner FROM events WHERE spread = 0 ORDER BY id LIMIT ?1";
        let waiting = self.query(sql, &[SPREAD_MAX.into()])?;
        let Some((first, last)) = waiting.first().zip(waiting.last()) else { return Ok(0) };
        let (first, last) = (first.text(0)?.to_owned(), last.text(0)?.to_owned());
        // First: a second server that spreads the same events at this moment begins anew here.
        let marked = self.execute(
            "UPDATE events SET spread = 1 WHERE spread = 0 AND id >= ?1 AND id <= ?2",
            &[first.into(), last.into()],
        )?;
        if marked != waiting.len() as u64 {
            return Err(StoreError::Busy { what: "spreading events" });
        }
        let webhooks = self.webhooks_that_are(WebhookStatus::Active)?;
        let mut rows = Vec::new();
        for event in &waiting {
            let (id, kind, at) = (event.text(0)?, event.text(1)?, event.time(2)?);
            let owner = event.opt_text(3)?;
            let wanting = webhooks
                .iter()
                .filter(|hook| hook.wants(kind) && hook.may_hear(owner) && hook.created_at <= at);
            rows.extend(wanting.map(|hook| {
                vec![
                    new_id(IdKind::Delivery, now, rng).into(),
                    (&hook.id).into(),
                    id.into(),
                    "pending".into(),
                    0_i64.into(),
                    now.into(),
                    now.into(),
                    now.into(),
                ]
            }));
        }
        self.insert_many("webhook_deliveries", &COLUMNS, &rows)?;
        Ok(u32::try_from(marked).unwrap_or(SPREAD_MAX))
    }

    /// Removes settled deliveries, and events without deliveries, from before `before`; at most
    /// [`EVENTS_SWEEP_MAX`] of each. Returns how many rows went.
    ///
    /// # Errors
    /// What the database answers.
    pub fn sweep_events(&mut self, before: UnixTime) -> Result<u64, StoreError> {
        let values = [before.into(), EVENTS_SWEEP_MAX.into()];
        let deliveries = self.execute(
            "DELETE FROM webhook_deliveries WHERE id IN (
                 SELECT d.id FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
                 WHERE d.updated_at < ?1 AND (d.state <> 'pending' OR w.status <> 'active')
                 ORDER BY d.id LIMIT ?2)",
            &values,
        )?;
        let events = self.execute(
            "DELETE FROM events WHERE id IN (
                 SELECT e.id FROM events e WHERE e.at < ?1 AND e.spread = 1 AND NOT EXISTS (
                     SELECT 1 FROM webhook_deliveries d WHERE d.event_id = e.id)
                 ORDER BY e.id LIMIT ?2)",
            &values,
        )?;
        Ok(deliveries + events)
    }
}
