//! `/v1/health`: for balancers and people, without a token and so without detail.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use countersign_crypto::UnixTime;
use countersign_service::{SamHealth, Service};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::Api;
use super::json::timestamp;
use super::sams::Doing;

/// How long the store may take to answer before it counts as unreachable.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// How long the store's answer counts: whoever asks for health without a token must not keep the
/// store busy.
const PULSE_PERIOD: Duration = Duration::from_secs(1);

/// The store's latest answer to a ping, and when it was asked. Who asks meanwhile waits for it.
#[derive(Default)]
pub(super) struct Pulse(Mutex<Option<(UnixTime, bool)>>);

impl Pulse {
    async fn reachable(&self, service: &Service) -> bool {
        let mut latest = self.0.lock().await;
        let now = service.now();
        if let Some((asked, reachable)) = *latest
            && asked <= now
            && now.since(asked) < PULSE_PERIOD
        {
            return reachable;
        }
        let reachable = ping(service).await;
        *latest = Some((service.now(), reachable));
        reachable
    }
}

async fn ping(service: &Service) -> bool {
    match tokio::time::timeout(STORE_WAIT, service.store().ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "health: the store does not answer");
            false
        }
        Err(_elapsed) => false,
    }
}

/// How the server is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// The whole.
    status: Condition,
    /// The database.
    store: StoreHealth,
    /// The audit.
    audit: AuditHealth,
    /// The SAM modules attached to this server.
    sams: Vec<SamModule>,
    /// The CRLs of key injection; null before there is an injection hierarchy.
    #[schema(required)]
    crls: Option<CrlsHealth>,
}

/// How the CRLs of key injection are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CrlsHealth {
    /// When the first of them ends.
    #[schema(format = DateTime)]
    next_update: String,
    /// Whether it should have been made anew: less than a quarter of its time is left.
    expiring: bool,
}

/// How the whole is.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Condition {
    /// All parts work.
    Ok,
    /// A SAM module is not ready, the audit's checkpoints cannot be written, or a CRL ends soon;
    /// the API works.
    Degraded,
    /// The database does not answer: nothing works.
    Unavailable,
}

/// How the database is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StoreHealth {
    /// Whether it answered within the last second.
    reachable: bool,
    /// `sqlite`, `sqlite-memory` or `postgresql`.
    backend: &'static str,
}

/// How the audit is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuditHealth {
    /// Whether this server's latest checkpoint is in the file outside the database too.
    checkpoint_written: bool,
}

/// How a SAM module is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SamModule {
    /// Where it is attached.
    port: String,
    /// How it is.
    state: Doing,
    /// The check that failed, if it is not ready; the log has the detail.
    #[schema(required)]
    check: Option<&'static str>,
}

impl SamModule {
    /// One that an operator took out of service is as it shall be.
    const fn is_amiss(&self) -> bool {
        matches!(self.state, Doing::Starting | Doing::Quarantined | Doing::Failed)
    }
}

impl From<SamHealth> for SamModule {
    fn from(health: SamHealth) -> Self {
        let check = health.failure.map(|failure| failure.check);
        Self { port: health.port, state: health.state.into(), check }
    }
}

/// Whether the server can serve. Needs no token.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "The database does not answer", body = Health),
    ))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    let service = &api.service;
    let reachable = api.pulse.reachable(service).await;
    let audit = AuditHealth { checkpoint_written: service.checkpoint_written() };
    let sams: Vec<SamModule> = service.sams().health().into_iter().map(Into::into).collect();
    let crls = service.crl_health();
    let expiring = crls.is_some_and(|crls| crls.expiring);
    let (code, status) = if !reachable {
        (StatusCode::SERVICE_UNAVAILABLE, Condition::Unavailable)
    } else if !audit.checkpoint_written || expiring || sams.iter().any(SamModule::is_amiss) {
        (StatusCode::OK, Condition::Degraded)
    } else {
        (StatusCode::OK, Condition::Ok)
    };
    let store = StoreHealth { reachable, backend: service.store().backend_name() };
    let crls = crls.map(|crls| CrlsHealth {
        next_update: timestamp(crls.next_update),
        expiring: crls.expiring,
    });
    (code, Json(Health { status, store, audit, sams, crls }))
}
