//! Deliveries: spread, claimed, tried, tried again.

use std::net::SocketAddr;
use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{
    AttemptEnd, AuditEntry, CLAIM_MAX, DeliveryState, DueDelivery, EVENTS_KEPT, IDEMPOTENCY_KEPT,
    PHONE_PROOFS_SWEEP_MAX, SPREAD_MAX, StoreError, Tx, WebhookStatus,
};
use serde_json::json;
use url::{Host, Url};

use super::{WebhookFailure, Webhooks, address, message};
use crate::{Actor, Service, ServiceError, done};

/// How long one attempt may take, from the name's resolution to the answer's status.
pub const ATTEMPT_TIME: Duration = Duration::from_secs(10);
/// After which pause the next attempt follows: two days in all, for a receiver that is down over
/// a weekend's half.
pub const RETRY_AFTER: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    Duration::from_secs(2 * 60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(6 * 3600),
    Duration::from_secs(12 * 3600),
    Duration::from_secs(24 * 3600),
];
/// Attempts of one delivery.
pub const ATTEMPTS_MAX: u32 = RETRY_AFTER.len() as u32 + 1;
/// A claim outlasts an attempt and what is stored around it; who has not finished by then is dead.
const CLAIM_TIME: Duration = Duration::from_secs(60);
/// Addresses of one name that are looked at.
const ADDRESSES_MAX: usize = 32;
/// How many turns of sweeping one call makes at most.
const SWEEPS_MAX: usize = 20;
/// And of sweeping used proofs: a million.
const PROOF_SWEEPS_MAX: usize = 500;

/// How a receiver answered, or why there is no answer.
struct Outcome {
    status: Option<u16>,
    /// `None`: it took the event.
    failure: Option<&'static str>,
}

impl Outcome {
    const fn failed(failure: &'static str) -> Self {
        Self { status: None, failure: Some(failure) }
    }

    fn answered(status: u16) -> Self {
        let failure = match status {
            200..=299 => None,
            // A redirect could lead anywhere, also inward: it is a wrong answer.
            300..=399 => Some("redirect"),
            410 => Some("gone"),
            _ => Some("status"),
        };
        Self { status: Some(status), failure }
    }
}

impl Service {
    /// Makes deliveries of the events that have none yet. Returns how many events there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn spread_events(&self) -> Result<u32, ServiceError> {
        let mut all = 0;
        loop {
            let (now, rng) = (self.now(), self.ambient.rng.clone());
            let spreading = self
                .store
                .run_snapshot("spread_events", move |tx| tx.spread_events(now, &mut *rng()));
            let events = match spreading.await {
                // Another server does it at this moment.
                Err(StoreError::Busy { .. } | StoreError::Conflict { .. }) => return Ok(all),
                events => events?,
            };
            all += events;
            if events < SPREAD_MAX {
                return Ok(all);
            }
        }
    }

    /// Claims deliveries that are due, at most `limit`. Each is to be tried with
    /// [`Service::attempt_delivery`]; what is not, is due again a minute later.
    ///
    /// # Errors
    /// The store's.
    pub async fn claim_deliveries(&self, limit: usize) -> Result<Vec<DueDelivery>, ServiceError> {
        let limit = u32::try_from(limit).unwrap_or(CLAIM_MAX).min(CLAIM_MAX);
        if limit == 0 {
            return Ok(Vec::new());
        }
        let now = self.now();
        let claiming = self.store.run_snapshot("claim_deliveries", move |tx| {
            tx.claim_deliveries(now, now.plus(CLAIM_TIME), limit)
        });
        match claiming.await {
            Err(StoreError::Busy { .. }) => Ok(Vec::new()), // other servers claim them
            claimed => Ok(claimed?),
        }
    }

    /// Tries a claimed delivery once and stores what came of it. Returns where it stands.
    ///
    /// # Errors
    /// [`ServiceError::Unavailable`] in a service without webhooks; the store's: the delivery is
    /// then tried again when its claim ends.
    pub async fn attempt_delivery(&self, due: DueDelivery) -> Result<DeliveryState, ServiceError> {
        let webhooks = self.webhooks_or_refuse()?;
        let secret = self.open_hmac(&due.webhook.id, &due.webhook.secret).await?;
        let now = self.now();
        let request = message::request(&*webhooks.mac, &secret, &due.webhook.url, &due.event, now)?;
        drop(secret);
        let attempt = tokio::time::timeout(ATTEMPT_TIME, send(webhooks, &request));
        let outcome = attempt.await.unwrap_or(Outcome::failed("timeout"));
        let now = self.now();
        let end = self.end_of(&due, &outcome, now);
        let state = end.state;
        match outcome.failure {
            None => tracing::debug!(delivery = due.delivery.id, "a webhook took an event"),
            Some(check) => {
                let (delivery, attempt) = (&due.delivery.id, due.delivery.attempts);
                tracing::info!(delivery, attempt, check, "a webhook did not take an event");
            }
        }
        let disable = match (outcome.failure, state) {
            (Some("gone"), _) => Some(("gone", None)),
            (_, DeliveryState::GivenUp) => {
                Some(("deliveries-failed", Some(due.delivery.created_at)))
            }
            _ => None,
        };
        self.store
            .run_tx("finish_attempt", move |tx| {
                let (delivery, webhook) = (&due.delivery, &due.webhook);
                if !tx.finish_attempt(&delivery.id, delivery.attempts, &end, now)? {
                    return Ok(());
                }
                let Some((reason, since)) = disable else { return Ok(()) };
                // One event that cannot be digested is not a receiver that is gone.
                if let Some(since) = since
                    && tx.webhook_took_any(&webhook.id, since)?
                {
                    return Ok(());
                }
                let still = tx.webhook(&webhook.id)?;
                if still.is_some_and(|webhook| webhook.status == WebhookStatus::Active) {
                    let disabled = WebhookStatus::Disabled;
                    tx.set_webhook_status(&webhook.id, disabled, Some(reason), now)?;
                    let detail = json!({ "reason": reason, "delivery": delivery.id }).to_string();
                    let entry = done(now, &Actor::System, "webhook.disable", &webhook.id);
                    tx.append_audit(&AuditEntry { detail, ..entry })?;
                }
                Ok::<_, StoreError>(())
            })
            .await?;
        Ok(state)
    }

    /// What an outcome makes of a delivery.
    fn end_of(&self, due: &DueDelivery, outcome: &Outcome, now: UnixTime) -> AttemptEnd {
        let pause = usize::try_from(due.delivery.attempts.saturating_sub(1))
            .ok()
            .and_then(|tried| RETRY_AFTER.get(tried));
        let (state, next_at) = match (outcome.failure, pause) {
            (None, _) => (DeliveryState::Delivered, now),
            (Some("gone"), _) | (Some(_), None) => (DeliveryState::GivenUp, now),
            (Some(_), Some(pause)) => {
                // Up to a tenth more, so that what failed together does not return together.
                let mut random = [0];
                self.rng().fill_bytes(&mut random);
                let more = *pause * u32::from(random[0]) / 2560;
                (DeliveryState::Pending, now.plus(*pause + more))
            }
        };
        AttemptEnd {
            state,
            next_at,
            status: outcome.status.map(u32::from),
            error: outcome.failure.map(str::to_owned),
        }
    }

    /// Removes settled deliveries, old events, and keys of repeated requests and proofs of phones
    /// whose time is over. Returns how many rows went. Proofs go also where the others could not.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep_events(&self) -> Result<u64, ServiceError> {
        let (events, proofs) = (self.sweep_old_events().await, self.sweep_used_proofs().await);
        Ok(events? + proofs?)
    }

    async fn sweep_old_events(&self) -> Result<u64, StoreError> {
        let now = self.now().as_millis();
        let before = |kept: Duration| {
            let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
            UnixTime::from_millis(now.saturating_sub(kept))
        };
        let (events, keys) = (before(EVENTS_KEPT), before(IDEMPOTENCY_KEPT));
        let mut all = 0;
        for _ in 0..SWEEPS_MAX {
            let swept = self.store.run_snapshot("sweep_events", move |tx| {
                Ok::<_, StoreError>(tx.sweep_events(events)? + tx.sweep_idempotency(keys)?)
            });
            match swept.await? {
                0 => break,
                rows => all += rows,
            }
        }
        Ok(all)
    }

    /// There is one for every request of a browser: far more than of all the others.
    async fn sweep_used_proofs(&self) -> Result<u64, StoreError> {
        let at = self.now();
        let mut all = 0;
        for _ in 0..PROOF_SWEEPS_MAX {
            let sweep = move |tx: &mut Tx<'_>| tx.sweep_phone_proofs(at);
            let rows: u64 = self.store.run_locked("sweep_phone_proofs", sweep).await?;
            all += rows;
            if rows < u64::from(PHONE_PROOFS_SWEEP_MAX) {
                break;
            }
        }
        Ok(all)
    }
}

/// Resolves the receiver's name, checks every address, and sends to the first: to that address and
/// no other, so that a name which resolves differently a moment later gains nothing.
async fn send(webhooks: &Webhooks, request: &message::WebhookRequest) -> Outcome {
    // What was registered under a wider policy is not delivered under this one.
    let url: Url = match address::parse(&webhooks.policy, &request.url) {
        Ok(url) => url,
        Err(error) => return Outcome::failed(error.check()),
    };
    let port = url.port_or_known_default().unwrap_or(443);
    let addresses: Vec<SocketAddr> = match url.host() {
        Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
        Some(Host::Domain(host)) => match webhooks.client.resolve(host, port).await {
            Ok(addresses) => addresses.into_iter().take(ADDRESSES_MAX).collect(),
            Err(_) => return Outcome::failed("resolve"),
        },
        None => return Outcome::failed("webhook-url"),
    };
    for address in &addresses {
        if let Err(inward) = address::check(&webhooks.policy, address.ip()) {
            return Outcome::failed(inward.check());
        }
    }
    let Some(first) = addresses.first() else { return Outcome::failed("resolve") };
    match webhooks.client.post(request, *first).await {
        Ok(status) => Outcome::answered(status),
        Err(WebhookFailure::Connect) => Outcome::failed("connect"),
        Err(WebhookFailure::Tls) => Outcome::failed("tls"),
        Err(WebhookFailure::Answer) => Outcome::failed("answer"),
    }
}
