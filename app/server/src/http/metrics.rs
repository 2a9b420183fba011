//! Prometheus metrics: their names, their recorder, `GET /metrics`.
//!
//! Whoever counts uses the `metrics` macros with the names described here. Labels are from
//! bounded sets: no ids, no paths, no text of clients.

use std::sync::OnceLock;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use countersign_service::{
    ALARM_WORK, INJECTIONS, LEASE_WAIT_SECONDS, RELAY_BYTES, RELAY_MEETS, RELAY_PRESENT, Service,
};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Api;
use super::auth::{Granted, MetricsRead};

/// How often [`upkeep`] is to be called.
pub const UPKEEP_PERIOD: Duration = Duration::from_secs(5);

const HTTP_REQUESTS: &str = "countersign_http_requests_total";
const HTTP_SECONDS: &str = "countersign_http_request_seconds";
const STORE_ATTEMPTS: &str = "countersign_store_attempts_total";
const STORE_RETRIES: &str = "countersign_store_retries_total";
const STORE_TRANSACTIONS: &str = "countersign_store_transactions_total";
const STORE_SECONDS: &str = "countersign_store_seconds";
const SAM_READY: &str = "countersign_sam_ready";
const SAM_READS: &str = "countersign_sam_reads_total";
const SAM_FAILURES: &str = "countersign_sam_failures_total";
const SAM_BUSY_SECONDS: &str = "countersign_sam_busy_seconds";
const SAM_QUEUE: &str = "countersign_sam_queue";
const CRL_LEFT: &str = "countersign_crl_left_seconds";

/// HTTP connections closed at once, because there was no place.
pub const HTTP_TURNED_AWAY: &str = "countersign_http_turned_away_total";
/// Handshakes by `outcome` and `transport` (`tcp`, `udp`), counted by the device gateway; those
/// `accepted` also by `handshake` and `suite`.
pub const HANDSHAKES: &str = "countersign_handshakes_total";
/// Device connections turned away at once, because their source held as many as it may, or, over
/// UDP, because there was no place.
pub const TURNED_AWAY: &str = "countersign_connections_turned_away_total";
/// Open device connections by `transport`, a gauge of the device gateway.
pub const CONNECTIONS: &str = "countersign_connections";
/// Datagrams that the device gateway dropped, by `reason`: `damaged` (the checksum), `unexpected`
/// (no handshake's beginning, or a stale or forged challenge), `amplification` (the answer would be
/// too long for an address that is not proven), `queue-full`, `ended`.
pub const DATAGRAMS_DROPPED: &str = "countersign_datagrams_dropped_total";
/// Reads by `outcome` and `transport`, counted by the device gateway.
pub const READS: &str = "countersign_reads_total";
/// Packets of encrypted data that had to be asked for again (C10), by `transport`, counted when the
/// read ends.
pub const PACKETS_RESENT: &str = "countersign_packets_resent_total";
/// How long reads took, in seconds, a histogram of the device gateway.
pub const READ_SECONDS: &str = "countersign_read_seconds";

/// Audit checkpoints that could not be written outside the store, counted by the chaining job.
pub const CHECKPOINTS_LOST: &str = "countersign_audit_checkpoints_lost_total";

/// Upper bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// The version of the text format that is rendered.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Installs the recorder of this process, once, and describes the metrics.
///
/// If another recorder is in place already, the handle renders nothing, and the log says so.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(start).clone()
}

fn start() -> PrometheusHandle {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &BUCKETS)
        .expect("there are buckets")
        .build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::error!(%error, "no metrics: another recorder is installed");
    }
    describe();
    handle
}

fn describe() {
    describe_counter!(HTTP_REQUESTS, "HTTP requests by method, route and status");
    describe_histogram!(HTTP_SECONDS, Unit::Seconds, "Time from request to answer");
    describe_counter!(HTTP_TURNED_AWAY, "HTTP connections for which there was no place");
    describe_counter!(STORE_ATTEMPTS, "Times a transaction ran, by its name");
    describe_counter!(STORE_RETRIES, "Times a transaction ran again, by its name");
    describe_counter!(STORE_TRANSACTIONS, "Transactions by name and outcome");
    describe_gauge!(STORE_SECONDS, Unit::Seconds, "Time in transactions, queue included, by name");
    describe_gauge!(SAM_READY, "1 if the SAM module at this port is ready, else 0");
    describe_counter!(SAM_READS, "Reads that a SAM module decrypted, by its id and port");
    describe_counter!(SAM_FAILURES, "Operations of a SAM module that failed, by check");
    describe_gauge!(SAM_BUSY_SECONDS, Unit::Seconds, "Time that a SAM module was leased");
    describe_gauge!(CRL_LEFT, Unit::Seconds, "Time until the first CRL of key injection ends");
    describe_gauge!(SAM_QUEUE, "Reads that wait for a SAM module");
    describe_histogram!(LEASE_WAIT_SECONDS, Unit::Seconds, "Time that reads waited for a module");
    describe_counter!(HANDSHAKES, "Device handshakes by outcome");
    describe_gauge!(CONNECTIONS, "Open device connections");
    describe_counter!(TURNED_AWAY, "Device connections for which there was no place");
    describe_counter!(DATAGRAMS_DROPPED, "Datagrams that the device gateway dropped, by reason");
    describe_counter!(PACKETS_RESENT, "Packets that were asked for again, by transport");
    describe_counter!(RELAY_MEETS, "Meetings of sleeves and managers asked for, by outcome");
    describe_counter!(RELAY_BYTES, Unit::Bytes, "Bytes passed on between sleeves and managers");
    describe_gauge!(RELAY_PRESENT, "What is at the relay: devices, managers, meetings");
    describe_counter!(READS, "Reads by outcome");
    describe_counter!(INJECTIONS, "Keys that terminals reported, by outcome");
    describe_counter!(CHECKPOINTS_LOST, "Audit checkpoints not written outside the store");
    counter!(CHECKPOINTS_LOST).absolute(0); // shows before the first one is lost
    describe_histogram!(READ_SECONDS, Unit::Seconds, "Time from a read's begin to its end");
}

/// Moves recorded durations into their buckets; without it they pile up between scrapes. To be
/// called every [`UPKEEP_PERIOD`].
pub fn upkeep(metrics: &PrometheusHandle) {
    metrics.run_upkeep();
}

/// Counts an answered request. `route` is the route's pattern.
pub(super) fn count_request(
    method: &'static str,
    route: &str,
    status: StatusCode,
    elapsed: Duration,
) {
    // That operators look at alarms is not for everybody who may scrape (A5).
    let route = route.strip_suffix("/alarms").unwrap_or(route);
    let (route, status) = (route.to_owned(), status.as_u16().to_string());
    let labels = [("method", method.to_owned()), ("route", route.clone()), ("status", status)];
    counter!(HTTP_REQUESTS, &labels).increment(1);
    histogram!(HTTP_SECONDS, "method" => method, "route" => route).record(elapsed);
}

/// Takes over what others count themselves.
fn collect(service: &Service) {
    for (name, stats) in service.store().stats() {
        // Who scrapes may be a shop, and must not see that somebody is under duress (A5).
        if ALARM_WORK.contains(&name) {
            continue;
        }
        counter!(STORE_ATTEMPTS, "name" => name).absolute(stats.attempts);
        counter!(STORE_RETRIES, "name" => name).absolute(stats.retries);
        gauge!(STORE_SECONDS, "name" => name).set(stats.total.as_secs_f64());
        let outcomes =
            [("commit", stats.commits), ("rollback", stats.rollbacks), ("failure", stats.failures)];
        for (outcome, count) in outcomes {
            counter!(STORE_TRANSACTIONS, "name" => name, "outcome" => outcome).absolute(count);
        }
    }
    if let Some(crls) = service.crl_health() {
        gauge!(CRL_LEFT).set(crls.next_update.since(service.now()).as_secs_f64());
    }
    gauge!(SAM_QUEUE).set(f64::from(u32::try_from(service.sams().waiting()).unwrap_or(u32::MAX)));
    // Ports are the configuration's, and the pool bounds the ids at each.
    for sam in service.sams().health() {
        let port = sam.port;
        gauge!(SAM_READY, "port" => port.clone()).set(f64::from(u8::from(sam.ready)));
        for (id, tally) in sam.tallies {
            let labels = [("sam", id), ("port", port.clone())];
            counter!(SAM_READS, &labels).absolute(tally.reads);
            gauge!(SAM_BUSY_SECONDS, &labels).set(tally.busy.as_secs_f64());
            let [sam, port] = labels;
            for (check, count) in tally.failures {
                let labels = [sam.clone(), port.clone(), ("check", check.to_owned())];
                counter!(SAM_FAILURES, &labels).absolute(count);
            }
        }
    }
}

/// The metrics, as Prometheus text.
#[utoipa::path(get, path = "/metrics", tag = "operation",
    security(("token" = ["metrics:read"])),
    responses((status = 200, description = "Prometheus text", body = String,
        content_type = "text/plain; version=0.0.4; charset=utf-8")))]
pub(super) async fn scrape(_granted: Granted<MetricsRead>, State(api): State<Api>) -> Response {
    collect(&api.service);
    ([(CONTENT_TYPE, TEXT_FORMAT)], api.metrics.render()).into_response()
}
