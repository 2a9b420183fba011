//! Webhooks, and the deliveries of events to them.
//!
//! A delivery is claimed in the database before it is tried, so that of several servers one tries
//! it. Who claims and dies loses nothing: when the claim's time has passed it is claimed again, so
//! an event arrives at least once.

use countersign_crypto::UnixTime;

use crate::events::{EVENT_COLUMNS, Event, event};
use crate::names::stored_as_text;
use crate::page::{check_cursor, fetch_limit};
use crate::value::check_texts;
use crate::{Page, Row, StoreError, Tx};

/// Most webhooks that are not removed.
pub const WEBHOOKS_MAX: u32 = 100;
/// Most of one integrator, not removed: with [`PER_WEBHOOK_MAX`] each, half of the deliveries that
/// a server has under way at a time, however slow they are.
pub const OWN_WEBHOOKS_MAX: u32 = 8;
/// Longest URL of a webhook, in bytes.
pub const WEBHOOK_URL_MAX: usize = 1024;
/// Most types of events that one webhook names.
pub const WEBHOOK_TYPES_MAX: usize = 32;
/// Most deliveries that one [`Tx::claim_deliveries`] claims.
pub const CLAIM_MAX: u32 = 64;
/// Most deliveries to one webhook that are under way at a time, on all servers together.
pub const PER_WEBHOOK_MAX: u32 = 4;

/// Where a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WebhookStatus {
    /// Events are delivered.
    Active,
    /// It failed for too long, or an operator said so: nothing is delivered.
    Disabled,
    /// It is no more; its deliveries remain to be seen for a while.
    Removed,
}

stored_as_text!(WebhookStatus, "webhook status", {
    Active => "active",
    Disabled => "disabled",
    Removed => "removed",
});

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// It is to be tried, at its time.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Every attempt failed.
    GivenUp,
}

stored_as_text!(DeliveryState, "delivery state", {
    Pending => "pending",
    Delivered => "delivered",
    GivenUp => "given-up",
});

/// Where events are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// `whk_…`.
    pub id: String,
    /// The receiver.
    pub url: String,
    /// Types of events that it wants; empty: all.
    pub types: Vec<String>,
    /// Whether it is told only events whose owner registered it.
    pub own_only: bool,
    /// The signing secret as a TR-31 block under the storage key; empty once it is removed.
    pub secret: String,
    /// Where it stands.
    pub status: WebhookStatus,
    /// Why it is disabled.
    pub status_reason: Option<String>,
    /// Who registered it.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
    /// When its status last changed.
    pub updated_at: UnixTime,
}

impl Webhook {
    /// Whether it is told events of this type: `payment.executed`, `payment.*` or nothing named.
    #[must_use]
    pub fn wants(&self, kind: &str) -> bool {
        let matches = |wanted: &String| match wanted.strip_suffix('*') {
            Some(group) => kind.starts_with(group),
            None => wanted == kind,
        };
        self.types.is_empty() || self.types.iter().any(matches)
    }

    /// Whether it may be told events of this owner.
    #[must_use]
    pub fn may_hear(&self, owner: Option<&str>) -> bool {
        !self.own_only || owner == Some(self.created_by.as_str())
    }
}

/// One event on its way to one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// `dlv_…`.
    pub id: String,
    /// To which webhook.
    pub webhook_id: String,
    /// Which event.
    pub event_id: String,
    /// The event's type.
    pub kind: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, while it is pending.
    pub next_at: UnixTime,
    /// Until when a server has claimed it.
    pub claimed_until: Option<UnixTime>,
    /// The HTTP status of the last answer.
    pub last_status: Option<u32>,
    /// Why the last attempt failed: a stable name.
    pub last_error: Option<String>,
    /// Since when it is there.
    pub created_at: UnixTime,
    /// When it last changed.
    pub updated_at: UnixTime,
}

/// A delivery that was claimed, with all that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueDelivery {
    /// The delivery; its `attempts` count this one.
    pub delivery: Delivery,
    /// What is delivered.
    pub event: Event,
    /// Where to.
    pub webhook: Webhook,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEnd {
    /// Where the delivery stands now.
    pub state: DeliveryState,
    /// When it is tried next, if it is pending.
    pub next_at: UnixTime,
    /// The HTTP status, if there was an answer.
    pub status: Option<u32>,
    /// Why it failed: a stable name.
    pub error: Option<String>,
}

const WEBHOOK_COLUMNS: &str = "w.id, w.url, w.types, w.own_only, w.secret, w.status, \
     w.status_reason, w.created_by, w.created_at, w.updated_at";
const DELIVERY_COLUMNS: &str = "d.id, d.webhook_id, d.event_id, e.type, d.state, d.attempts, \
     d.next_at, d.claimed_until, d.last_status, d.last_error, d.created_at, d.updated_at";
/// Where the event's columns begin after a delivery's, and the webhook's after those.
const EVENT_AT: usize = 12;
const WEBHOOK_AT: usize = EVENT_AT + 6;

fn webhook(row: &Row, first: usize) -> Result<Webhook, StoreError> {
    let types = row.text(first + 2)?;
    let types = types.split(',').filter(|kind| !kind.is_empty()).map(str::to_owned);
    Ok(Webhook {
        id: row.text(first)?.to_owned(),
        url: row.text(first + 1)?.to_owned(),
        types: types.collect(),
        own_only: row.int(first + 3)? != 0,
        secret: row.text(first + 4)?.to_owned(),
        status: WebhookStatus::stored(row.text(first + 5)?)?,
        status_reason: row.opt_text(first + 6)?.map(str::to_owned),
        created_by: row.text(first + 7)?.to_owned(),
        created_at: row.time(first + 8)?,
        updated_at: row.time(first + 9)?,
    })
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    Ok(Delivery {
        id: row.text(0)?.to_owned(),
        webhook_id: row.text(1)?.to_owned(),
        event_id: row.text(2)?.to_owned(),
        kind: row.text(3)?.to_owned(),
        state: DeliveryState::stored(row.text(4)?)?,
        attempts: row.u32(5)?,
        next_at: row.time(6)?,
        claimed_until: row.opt_time(7)?,
        last_status: if row.is_null(8)? { None } else { Some(row.u32(8)?) },
        last_error: row.opt_text(9)?.map(str::to_owned),
        created_at: row.time(10)?,
        updated_at: row.time(11)?,
    })
}

impl Tx<'_> {
    /// Registers a webhook.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `webhooks-full`, `text-too-long`.
    pub fn insert_webhook(&mut self, webhook: &Webhook) -> Result<(), StoreError> {
        let types = webhook.types.join(",");
        let short = webhook.types.iter().map(String::as_str);
        check_texts(short.chain([webhook.id.as_str(), webhook.created_by.as_str()]))?;
        if webhook.url.len() > WEBHOOK_URL_MAX || webhook.types.len() > WEBHOOK_TYPES_MAX {
            return Err(StoreError::Refused { check: "text-too-long" });
        }
        let sql = "SELECT count(*) FROM webhooks WHERE status <> 'removed'";
        let count = self.query_one(sql, &[])?.map_or(Ok(0), |row| row.int(0))?;
        let sql = "SELECT count(*) FROM webhooks
             WHERE status <> 'removed' AND own_only = 1 AND created_by = ?1";
        let own = self.query_one(sql, &[(&webhook.created_by).into()])?;
        let own = own.map_or(Ok(0), |row| row.int(0))?;
        let own_full = webhook.own_only && own >= i64::from(OWN_WEBHOOKS_MAX);
        if own_full || count >= i64::from(WEBHOOKS_MAX) {
            return Err(StoreError::Refused { check: "webhooks-full" });
        }
        self.execute(
            "INSERT INTO webhooks (id, url, types, own_only, secret, status, status_reason,
                                   created_by, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            &[
                (&webhook.id).into(),
                (&webhook.url).into(),
                types.into(),
                i64::from(webhook.own_only).into(),
                (&webhook.secret).into(),
                webhook.status.name().into(),
                webhook.status_reason.clone().into(),
                (&webhook.created_by).into(),
                webhook.created_at.into(),
                webhook.updated_at.into(),
            ],
        )
        .map(|_| ())
    }

    /// The webhook with this id, also if it is removed.
    ///
    /// # Errors
    /// What the database answers.
    pub fn webhook(&mut self, id: &str) -> Result<Option<Webhook>, StoreError> {
        let sql = format!("SELECT {WEBHOOK_COLUMNS} FROM webhooks w WHERE w.id = ?1");
        self.query_one(&sql, &[id.into()])?.map(|row| webhook(&row, 0)).transpose()
    }

    /// Webhooks that are not removed, of one operator or all, oldest first, after `cursor`;
    /// `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn webhooks_page(
        &mut self,
        created_by: Option<&str>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Webhook>, StoreError> {
        let sql = format!(
            "SELECT {WEBHOOK_COLUMNS} FROM webhooks w
             WHERE w.status <> 'removed' AND w.id > ?1 AND (?2 = '' OR w.created_by = ?2)
             ORDER BY w.id LIMIT ?3"
        );
        let (after, by) = (check_cursor(cursor)?.unwrap_or_default(), created_by.unwrap_or(""));
        let rows = self.query(&sql, &[after.into(), by.into(), fetch_limit(limit)?.into()])?;
        let items = rows.iter().map(|row| webhook(row, 0)).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |webhook: &Webhook| webhook.id.clone()))
    }

    /// All webhooks of a status.
    pub(crate) fn webhooks_that_are(
        &mut self,
        status: WebhookStatus,
    ) -> Result<Vec<Webhook>, StoreError> {
        let sql = format!(
            "SELECT {WEBHOOK_COLUMNS} FROM webhooks w WHERE w.status = ?1 ORDER BY w.id LIMIT ?2"
        );
        let rows = self.query(&sql, &[status.name().into(), WEBHOOKS_MAX.into()])?;
        rows.iter().map(|row| webhook(row, 0)).collect()
    }

    /// Enables, disables or removes a webhook. A removed one loses its secret and stays removed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for none, or a removed one; [`StoreError::Refused`]
    /// `text-too-long`.
    pub fn set_webhook_status(
        &mut self,
        id: &str,
        status: WebhookStatus,
        reason: Option<&str>,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        check_texts(reason)?;
        self.change_one(
            "webhook",
            "UPDATE webhooks SET status = ?2, status_reason = ?3, updated_at = ?4,
                 secret = CASE WHEN ?2 = 'removed' THEN '' ELSE secret END
             WHERE id = ?1 AND status <> 'removed'",
            &[id.into(), status.name().into(), reason.into(), now.into()],
        )
    }

    /// Deliveries to a webhook, newest first, after `cursor`; `limit` in 1..=[`crate::MAX_PAGE`].
    ///
    /// # Errors
    /// [`StoreError::Refused`] `page-limit`, `page-cursor`.
    pub fn deliveries_page(
        &mut self,
        webhook_id: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<Delivery>, StoreError> {
        let sql = format!(
            "SELECT {DELIVERY_COLUMNS} FROM webhook_deliveries d
             JOIN events e ON e.id = d.event_id
             WHERE d.webhook_id = ?1 AND (?2 = '' OR d.id < ?2) ORDER BY d.id DESC LIMIT ?3"
        );
        let before = check_cursor(cursor)?.unwrap_or_default();
        let values = [webhook_id.into(), before.into(), fetch_limit(limit)?.into()];
        let items = self.query(&sql, &values)?.iter().map(delivery).collect::<Result<_, _>>()?;
        Ok(Page::cut(items, limit, |delivery: &Delivery| delivery.id.clone()))
    }

    /// One delivery.
    ///
    /// # Errors
    /// What the database answers.
    pub fn delivery(&mut self, id: &str) -> Result<Option<Delivery>, StoreError> {
        let sql = format!(
            "SELECT {DELIVERY_COLUMNS} FROM webhook_deliveries d
             JOIN events e ON e.id = d.event_id WHERE d.id = ?1"
        );
        self.query_one(&sql, &[id.into()])?.map(|row| delivery(&row)).transpose()
    }

    /// Has a delivery tried again at once, whatever came of it, with all its attempts before it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for no such delivery; [`StoreError::Refused`]
    /// `delivery-under-way` while a server is at it, `webhook-not-active`.
    pub fn resend_delivery(&mut self, id: &str, now: UnixTime) -> Result<Delivery, StoreError> {
        let absent = StoreError::NotFound { what: "delivery" };
        let found = self.delivery(id)?.ok_or(absent.clone())?;
        let webhook = self.webhook(&found.webhook_id)?.ok_or(absent.clone())?;
        if webhook.status != WebhookStatus::Active {
            return Err(StoreError::Refused { check: "webhook-not-active" });
        }
        let changed = self.execute(
            "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_at = ?2,
                 claimed_until = NULL, updated_at = ?2
             WHERE id = ?1 AND (claimed_until IS NULL OR claimed_until <= ?2)",
            &[id.into(), now.into()],
        )?;
        if changed == 0 {
            return Err(StoreError::Refused { check: "delivery-under-way" });
        }
        self.delivery(id)?.ok_or(absent)
    }

    /// Claims deliveries that are due until `until`, oldest first: at most `limit` (and
    /// [`CLAIM_MAX`]) and, with those under way, [`PER_WEBHOOK_MAX`] of one webhook, so that a
    /// slow receiver holds up itself only.
    ///
    /// # Errors
    /// What the database answers.
    pub fn claim_deliveries(
        &mut self,
        now: UnixTime,
        until: UnixTime,
        limit: u32,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let due = self.query(
            "SELECT id FROM (
                 SELECT d.id AS id, d.next_at AS next_at,
                     row_number() OVER (PARTITION BY d.webhook_id ORDER BY d.next_at, d.id)
                     + (SELECT count(*) FROM webhook_deliveries u
                        WHERE u.webhook_id = d.webhook_id AND u.state = 'pending'
                          AND u.claimed_until > ?1) AS place
                 FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id
                 WHERE d.state = 'pending' AND d.next_at <= ?1 AND w.status = 'active'
                   AND (d.claimed_until IS NULL OR d.claimed_until <= ?1)) AS due
             WHERE place <= ?2 ORDER BY next_at, id LIMIT ?3",
            &[now.into(), PER_WEBHOOK_MAX.into(), limit.min(CLAIM_MAX).into()],
        )?;
        let sql = format!(
            "SELECT {DELIVERY_COLUMNS}, {EVENT_COLUMNS}, {WEBHOOK_COLUMNS}
             FROM webhook_deliveries d JOIN events e ON e.id = d.event_id
             JOIN webhooks w ON w.id = d.webhook_id WHERE d.id = ?1"
        );
        let mut claimed = Vec::with_capacity(due.len());
        for row in due {
            let id = row.text(0)?;
            let won = self.execute(
                "UPDATE webhook_deliveries
                 SET claimed_until = ?2, attempts = attempts + 1, updated_at = ?3
                 WHERE id = ?1 AND state = 'pending'
                   AND (claimed_until IS NULL OR claimed_until <= ?3)",
                &[id.into(), until.into(), now.into()],
            )?;
            let Some(row) = self.query_one(&sql, &[id.into()])?.filter(|_| won == 1) else {
                continue;
            };
            claimed.push(DueDelivery {
                delivery: delivery(&row)?,
                event: event(&row, EVENT_AT)?,
                webhook: webhook(&row, WEBHOOK_AT)?,
            });
        }
        Ok(claimed)
    }

    /// Notes how attempt number `attempt` of a delivery ended. A failure that comes after the
    /// delivery was claimed again changes nothing; that the receiver took it always counts.
    /// Returns whether it was noted.
    ///
    /// # Errors
    /// [`StoreError::Refused`] `text-too-long`.
    pub fn finish_attempt(
        &mut self,
        id: &str,
        attempt: u32,
        end: &AttemptEnd,
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        check_texts(end.error.as_deref())?;
        let changed = self.execute(
            "UPDATE webhook_deliveries SET state = ?3, next_at = ?4, claimed_until = NULL,
                 last_status = ?5, last_error = ?6, updated_at = ?7
             WHERE id = ?1 AND state = 'pending' AND (attempts = ?2 OR ?3 = 'delivered')",
            &[
                id.into(),
                attempt.into(),
                end.state.name().into(),
                end.next_at.into(),
                end.status.map(i64::from).into(),
                end.error.clone().into(),
                now.into(),
            ],
        )?;
        Ok(changed == 1)
    }

    /// Whether a webhook took any delivery since `since`.
    ///
    /// # Errors
    /// What the database answers.
    pub fn webhook_took_any(&mut self, id: &str, since: UnixTime) -> Result<bool, StoreError> {
        let sql = "SELECT id FROM webhook_deliveries
             WHERE webhook_id = ?1 AND state = 'delivered' AND updated_at >= ?2 LIMIT 1";
        Ok(self.query_one(sql, &[id.into(), since.into()])?.is_some())
    }
}
