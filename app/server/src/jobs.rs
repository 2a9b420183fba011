//! What a server does by itself: chaining the audit, ending abandoned reads, removing old events.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_service::{PAYMENT_SWEEP_EVERY, Service};
use countersign_store::{ChainOutcome, Checkpoint, Topic};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::audit_file::append_checkpoint;
use crate::http::metrics::{CHECKPOINTS_LOST, UPKEEP_PERIOD, upkeep as upkeep_once};

/// How often the audit's waiting rows are linked.
const CHAIN_EVERY: Duration = Duration::from_millis(500);
/// How often the store is asked which SAM modules are out of service.
const DRAINS_EVERY: Duration = Duration::from_secs(1);
/// How often abandoned reads are looked for, and how old they then are.
const ABANDON_EVERY: Duration = Duration::from_secs(30);
const ABANDONED_AFTER: Duration = Duration::from_secs(300);
/// How often approvals are looked through for those whose time has passed.
const EXPIRE_APPROVALS_EVERY: Duration = Duration::from_secs(60);
/// How often keys are looked for whose value is still to be made.
const FINISH_KEYS_EVERY: Duration = Duration::from_secs(15);
/// How often a token is looked through for keys that no row names.
const SWEEP_KEKS_EVERY: Duration = Duration::from_secs(600);
/// How often the injection hierarchy is looked after.
const MAINTAIN_RKI_EVERY: Duration = Duration::from_secs(20);
/// How often events that no rule needs any more are removed.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(60);
/// How often deliveries that are due are looked for when nobody wakes this server.
const DELIVER_EVERY: Duration = Duration::from_secs(1);
/// The pause between two looks, so that many events at once are looked at together.
const DELIVER_PAUSE: Duration = Duration::from_millis(20);
/// Deliveries under way on this server at a time.
const ATTEMPTS_AT_ONCE: usize = 64;
/// How long deliveries under way may take when the server stops.
const DELIVER_GRACE: Duration = Duration::from_secs(3);
/// How often old events are looked for.
const SWEEP_EVENTS_EVERY: Duration = Duration::from_secs(600);

/// Calls `work` every `period` until `stop` turns true, and once more then.
pub(crate) async fn every<F>(
    period: Duration,
    mut stop: watch::Receiver<bool>,
    mut work: impl FnMut() -> F,
) where
    F: Future<Output = ()>,
{
    loop {
        let stopped = tokio::time::timeout(period, stop.wait_for(|stop| *stop)).await.is_ok();
        work().await;
        if stopped {
            return;
        }
    }
}

/// Links audit rows while this process is the elected chainer.
pub(crate) async fn chain(
    service: Arc<Service>,
    holder: String,
    checkpoints: PathBuf,
    stop: watch::Receiver<bool>,
) {
    every(CHAIN_EVERY, stop, || chain_all(&service, &holder, &checkpoints)).await;
    if let Err(error) = service.release_chain(&holder).await {
        tracing::warn!(%error, "the audit's lease could not be given back");
    }
}

async fn chain_all(service: &Service, holder: &str, checkpoints: &Path) {
    loop {
        match service.chain_audit(holder).await {
            Ok(ChainOutcome::Linked { rows, checkpoint }) => {
                write_out(service, checkpoints, checkpoint).await;
                if rows < countersign_store::MAX_CHAIN_ROWS {
                    return;
                }
            }
            Ok(ChainOutcome::Idle | ChainOutcome::NotElected) => return,
            Err(error) => {
                tracing::error!(%error, "the audit could not be chained");
                return;
            }
        }
    }
}

/// Writes a checkpoint to the file outside the store; a failure shows in health and metrics.
async fn write_out(service: &Service, path: &Path, checkpoint: Checkpoint) {
    let path = path.to_owned();
    let writing = tokio::task::spawn_blocking(move || {
        append_checkpoint(&path, &checkpoint).map_err(|error| error.to_string())
    });
    let written = writing.await.unwrap_or_else(|failed| Err(failed.to_string()));
    service.note_checkpoint(written.is_ok());
    if let Err(error) = written {
        metrics::counter!(CHECKPOINTS_LOST).increment(1);
        tracing::error!(error, "an audit checkpoint could not be written");
    }
}

/// Ends reads that nobody works on any more.
pub(crate) async fn abandon(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(ABANDON_EVERY, stop, || async {
        match service.abandon_reads(ABANDONED_AFTER).await {
            Ok(0) => {}
            Ok(reads) => tracing::info!(reads, "abandoned reads were ended"),
            Err(error) => tracing::warn!(%error, "abandoned reads could not be ended"),
        }
    })
    .await;
}

/// Removes what the rules need no more and notes the end of decisions whose time is over.
pub(crate) async fn clean_up_risk(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(CLEAN_UP_EVERY, stop, || async {
        match service.clean_up_risk().await {
            Ok((0, 0)) => {}
            Ok((events, decisions)) => tracing::info!(events, decisions, "risk was cleaned up"),
            Err(error) => tracing::warn!(%error, "risk could not be cleaned up"),
        }
    })
    .await;
}

/// Marks approvals whose time has passed.
pub(crate) async fn approvals(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(EXPIRE_APPROVALS_EVERY, stop, || async {
        match service.expire_approvals().await {
            Ok(0) => {}
            Ok(approvals) => tracing::info!(approvals, "approvals have expired"),
            Err(error) => tracing::warn!(%error, "approvals could not be marked as expired"),
        }
    })
    .await;
}

/// Ends payments that nobody answered in time.
pub(crate) async fn expire_payments(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(PAYMENT_SWEEP_EVERY, stop, || async {
        match service.expire_payments().await {
            Ok(0) => {}
            Ok(payments) => tracing::info!(payments, "payments have expired"),
            Err(error) => tracing::warn!(%error, "overdue payments could not be ended"),
        }
    })
    .await;
}

/// Makes the values of keys that are still pending.
pub(crate) async fn finish_keys(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(FINISH_KEYS_EVERY, stop, || async {
        match service.finish_pending_keys().await {
            Ok(0) => {}
            Ok(keys) => tracing::info!(keys, "pending keys were made"),
            Err(error) => tracing::warn!(%error, "pending keys could not be made"),
        }
    })
    .await;
}

/// Removes from a token what a crash has left there.
pub(crate) async fn sweep_keks(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(SWEEP_KEKS_EVERY, stop, || async {
        match service.sweep_keks().await {
            Ok(0) => {}
            Ok(keys) => tracing::info!(keys, "keys that nobody uses were removed from the token"),
            Err(error) => tracing::warn!(%error, "the token could not be swept"),
        }
    })
    .await;
}

/// Keeps the injection hierarchy up: CRLs in good time, what was left half made, what nobody needs.
pub(crate) async fn maintain_rki(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(MAINTAIN_RKI_EVERY, stop, || async {
        if let Err(error) = service.maintain_rki().await {
            tracing::error!(%error, check = error.check(), "the injection hierarchy needs care");
        }
    })
    .await;
}

/// Follows what operators did to SAM modules on other servers.
pub(crate) async fn drains(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(DRAINS_EVERY, stop, || async {
        if let Err(error) = service.refresh_drains().await {
            tracing::warn!(%error, "which SAM modules are out of service could not be read");
        }
    })
    .await;
}

/// Keeps the metrics' memory bounded.
pub(crate) async fn upkeep(
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    stop: watch::Receiver<bool>,
) {
    let handle = &metrics;
    every(UPKEEP_PERIOD, stop, || async { upkeep_once(handle) }).await;
}

/// Tells webhooks what has happened, as long as the server runs.
pub(crate) async fn deliver_webhooks(service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let mut woken = service.store().bus().listen(Topic::Event, "all");
    let mut attempts = JoinSet::new();
    loop {
        if let Err(error) = deliver_due(&service, &mut attempts).await {
            tracing::warn!(%error, "webhooks could not be told");
        }
        tokio::time::sleep(DELIVER_PAUSE).await;
        tokio::select! {
            _stopped = stop.wait_for(|stop| *stop) => break,
            () = woken.changed() => {}
            () = tokio::time::sleep(DELIVER_EVERY) => {}
            // Its place may be wanted.
            Some(_ended) = attempts.join_next() => {}
        }
    }
    // What does not end in time is delivered again by another server, or after the next start.
    let ending = async { while attempts.join_next().await.is_some() {} };
    let _in_time = tokio::time::timeout(DELIVER_GRACE, ending).await;
}

async fn deliver_due(
    service: &Arc<Service>,
    attempts: &mut JoinSet<()>,
) -> Result<(), countersign_service::ServiceError> {
    while attempts.try_join_next().is_some() {}
    service.spread_events().await?;
    for due in service.claim_deliveries(ATTEMPTS_AT_ONCE - attempts.len()).await? {
        let service = service.clone();
        attempts.spawn(async move {
            if let Err(error) = service.attempt_delivery(due).await {
                tracing::warn!(%error, "what came of a delivery could not be stored");
            }
        });
    }
    Ok(())
}

/// Removes old events, settled deliveries, and answers to repeated requests.
pub(crate) async fn sweep_events(service: Arc<Service>, stop: watch::Receiver<bool>) {
    every(SWEEP_EVENTS_EVERY, stop, || async {
        match service.sweep_events().await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old events and idempotency keys were removed"),
            Err(error) => tracing::warn!(%error, "old events could not be removed"),
        }
    })
    .await;
}
