//! `/v1/health`: for balancers and people, without a token and so without detail.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use countersign_service::SamHealth;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;

/// How long the store may take to answer before it counts as unreachable.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// How the server is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Health {
    /// The whole.
    status: Condition,
    /// The database.
    store: StoreHealth,
    /// The SAM modules attached to this server.
    sams: Vec<SamModule>,
}

/// How the whole is.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Condition {
    /// All parts work.
    Ok,
    /// A SAM module is not ready; the API works.
    Degraded,
    /// The database does not answer: nothing works.
    Unavailable,
}

/// How the database is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct StoreHealth {
    /// Whether it answered just now.
    reachable: bool,
    /// `sqlite`, `sqlite-memory` or `postgresql`.
    backend: &'static str,
}

/// How a SAM module is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct SamModule {
    /// Where it is attached.
    port: String,
    /// How it is.
    state: SamState,
}

/// How a SAM module is.
#[derive(Clone, Copy, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum SamState {
    /// It answered, and serves reads.
    Ready,
    /// It has not answered yet.
    Starting,
    /// It failed, and is tried again; the log says why.
    Failed,
}

impl From<SamHealth> for SamModule {
    fn from(health: SamHealth) -> Self {
        let state = match (health.ready, health.failure) {
            (true, _) => SamState::Ready,
            (false, None) => SamState::Starting,
            (false, Some(_)) => SamState::Failed,
        };
        Self { port: health.port, state }
    }
}

/// Whether the server can serve. Needs no token.
#[utoipa::path(get, path = "/health", tag = "operation",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = 503, description = "The database does not answer", body = Health),
    ))]
pub(super) async fn health(State(api): State<Api>) -> (StatusCode, Json<Health>) {
    let store = api.service.store();
    let reachable = match tokio::time::timeout(STORE_WAIT, store.ping()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "health: the store does not answer");
            false
        }
        Err(_elapsed) => false,
    };
    let sams: Vec<SamModule> = api.service.sams().health().into_iter().map(Into::into).collect();
    let (code, status) = if !reachable {
        (StatusCode::SERVICE_UNAVAILABLE, Condition::Unavailable)
    } else if sams.iter().any(|sam| sam.state != SamState::Ready) {
        (StatusCode::OK, Condition::Degraded)
    } else {
        (StatusCode::OK, Condition::Ok)
    };
    let store = StoreHealth { reachable, backend: store.backend_name() };
    (code, Json(Health { status, store, sams }))
}
