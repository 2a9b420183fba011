//! The HTTP API under `/v1` (interfaces.md): parses, authorises, asks the service, answers.
//!
//! Every failure is an RFC 9457 problem. Handlers return a `Problem`; `envelope`
//! gives each answer its request id, renders problems, logs one line and counts.
//!
//! Absent on purpose: decisions, SQL, protocol bytes.

mod accounts;
mod approvals;
mod auth;
mod body;
mod checkout;
mod envelope;
mod granted;
mod health;
mod idempotency;
mod injections;
mod json;
mod keks;
mod keys;
pub mod metrics;
mod money;
mod openapi;
mod pages;
mod payments;
mod phones;
mod places;
mod problem;
mod query;
mod readers;
mod reads;
mod risk;
mod rki;
mod sams;
mod security_devices;
mod site;
mod sse;
mod terminals;
mod wallets;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use countersign_service::Service;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use problem::Problem;
use wallets::{managers, sleeves};

pub use site::Site;

/// Longest request body, in bytes; a longer one is the problem `body-too-large`.
pub const BODY_MAX: usize = 64 * 1024;
/// How long a request may take, from its head to its answer: the problem `request-timeout`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to send its body: the problem `body-timeout`.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What every handler is given.
#[derive(Clone)]
struct Api {
    service: Arc<Service>,
    metrics: PrometheusHandle,
    /// The store's latest answer, for health checks.
    pulse: Arc<health::Pulse>,
    /// The rendered OpenAPI document.
    openapi: Bytes,
    /// Where browsers find this server.
    site: Arc<Site>,
    /// The open streams of events.
    streams: sse::Streams,
    /// Those of checkouts.
    checkout_streams: sse::Streams,
    /// For requests that wait for a change.
    waits: places::Places,
}

/// All routes: `/v1/…` and `/metrics`. `metrics` comes from [`metrics::install`]; streams of
/// events end when `stop` turns true. `site` says where browsers find this server: pages from
/// elsewhere are refused.
///
/// # Panics
/// Never in a build whose tests passed: two handlers on one method and path would.
pub fn router(
    service: Arc<Service>,
    metrics: PrometheusHandle,
    stop: watch::Receiver<bool>,
    site: Site,
) -> Router {
    let (router, document) = routes().split_for_parts();
    let openapi = openapi::render(document);
    let streams = sse::Streams::new(stop.clone());
    let checkout_streams = sse::Streams::of_checkouts(stop);
    let waits = places::Places::new(payments::WAITS_MAX, payments::WAITS_PER_OWNER_MAX);
    let (pulse, site) = (Arc::default(), Arc::new(site));
    let api = Api { service, metrics, pulse, openapi, site, streams, checkout_streams, waits };
    router
        .merge(pages::router(api.site.is_https_only()))
        .fallback(async || Problem::unknown_path())
        .method_not_allowed_fallback(async || Problem::wrong_method())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(api.clone(), site::screen))
        .layer(from_fn_with_state(api.clone(), pages::show_problems))
        .layer(from_fn_with_state(api.clone(), envelope::wrap))
        .with_state(api)
}

/// Registering and documenting a route is one step, so that neither can be forgotten.
fn routes() -> OpenApiRouter<Api> {
    let v1 = OpenApiRouter::new()
        .routes(routes!(health::health))
        .routes(routes!(openapi::document))
        .routes(routes!(readers::terms))
        .routes(routes!(readers::enrol, readers::list))
        .routes(routes!(readers::one))
        .routes(routes!(readers::block))
        .routes(routes!(readers::unblock))
        .routes(routes!(readers::revoke))
        .routes(routes!(risk::record))
        .routes(routes!(risk::set_factory))
        .routes(routes!(risk::report, risk::reports))
        .routes(routes!(risk::tell_transaction, risk::transactions))
        .routes(routes!(risk::events))
        .routes(routes!(risk::decisions))
        .routes(routes!(risk::reverse))
        .routes(routes!(reads::list))
        .routes(routes!(reads::one))
        .routes(routes!(approvals::list))
        .routes(routes!(approvals::one))
        .routes(routes!(approvals::vote))
        .routes(routes!(keys::generate, keys::list))
        .routes(routes!(keys::import))
        .routes(routes!(keys::one))
        .routes(routes!(keys::retire))
        .routes(routes!(keys::export))
        .routes(routes!(keks::begin, keks::list))
        .routes(routes!(keks::one))
        .routes(routes!(keks::enter))
        .routes(routes!(keks::retire))
        .routes(routes!(sams::list))
        .routes(routes!(sams::drain))
        .routes(routes!(sams::resume))
        .routes(routes!(sams::enrol_host, sams::hosts))
        .routes(routes!(sams::block_host))
        .routes(routes!(sams::unblock_host))
        .routes(routes!(sams::revoke_host))
        .routes(routes!(rki::status))
        .routes(routes!(rki::roll))
        .routes(routes!(rki::revoke))
        .routes(routes!(rki::crl))
        .routes(routes!(rki::begin_rebind, rki::rebinds))
        .routes(routes!(rki::rebind))
        .routes(routes!(rki::rebind_terminals))
        .routes(routes!(rki::cancel_rebind))
        .routes(routes!(terminals::allow, terminals::list))
        .routes(routes!(terminals::terms))
        .routes(routes!(terminals::enrol))
        .routes(routes!(terminals::one))
        .routes(routes!(terminals::renew_code))
        .routes(routes!(terminals::block))
        .routes(routes!(terminals::unblock))
        .routes(routes!(terminals::revoke))
        .routes(routes!(terminals::unbind))
        .routes(routes!(sleeves::enrol, sleeves::list))
        .routes(routes!(wallets::alarms))
        .routes(routes!(sleeves::one))
        .routes(routes!(sleeves::block))
        .routes(routes!(sleeves::unblock))
        .routes(routes!(sleeves::revoke))
        .routes(routes!(managers::enrol, managers::list))
        .routes(routes!(managers::one))
        .routes(routes!(managers::block))
        .routes(routes!(managers::unblock))
        .routes(routes!(managers::revoke))
        .routes(routes!(accounts::open, accounts::list))
        .routes(routes!(accounts::one))
        .routes(routes!(accounts::entries))
        .routes(routes!(accounts::freeze))
        .routes(routes!(accounts::unfreeze))
        .routes(routes!(accounts::set_overdraft))
        .routes(routes!(accounts::close))
        .routes(routes!(accounts::post))
        .routes(routes!(accounts::ledger))
        .routes(routes!(payments::create, payments::list))
        .routes(routes!(payments::one))
        .routes(routes!(payments::cancel))
        .routes(routes!(payments::timeline))
        .routes(routes!(payments::events))
        .routes(routes!(payments::receipt))
        .routes(routes!(payments::evidence))
        .routes(routes!(payments::answer, payments::authorisations))
        .routes(routes!(payments::joint_terms, payments::answer_joint))
        .routes(routes!(checkout::checkout))
        .routes(routes!(checkout::one))
        .routes(routes!(checkout::events))
        .routes(routes!(checkout::answer))
        .routes(routes!(payments::refund))
        .routes(routes!(payments::reverse))
        .routes(routes!(security_devices::enrol, security_devices::list))
        .routes(routes!(security_devices::terms))
        .routes(routes!(security_devices::enrol_ocra))
        .routes(routes!(security_devices::enrol_joint))
        .routes(routes!(security_devices::one))
        .routes(routes!(security_devices::bind))
        .routes(routes!(security_devices::unbind))
        .routes(routes!(security_devices::block))
        .routes(routes!(security_devices::unblock))
        .routes(routes!(security_devices::revoke))
        .routes(routes!(phones::allow, phones::list))
        .routes(routes!(phones::one))
        .routes(routes!(phones::renew_code))
        .routes(routes!(phones::bind))
        .routes(routes!(phones::unbind))
        .routes(routes!(phones::revoke))
        .routes(routes!(phones::enrol))
        .routes(routes!(phones::own))
        .routes(routes!(phones::payments))
        .routes(routes!(phones::payment))
        .routes(routes!(phones::devices))
        .routes(routes!(phones::events))
        .routes(routes!(injections::assign, injections::list))
        .routes(routes!(injections::one))
        .routes(routes!(injections::cancel))
        .routes(routes!(injections::keys))
        .routes(routes!(injections::begin_run, injections::runs))
        .routes(routes!(injections::run))
        .routes(routes!(injections::close_run))
        .routes(routes!(webhooks::register, webhooks::list))
        .routes(routes!(webhooks::one))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::remove))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::resend));
    OpenApiRouter::with_openapi(openapi::base()).nest("/v1", v1).routes(routes!(metrics::scrape))
}
