//! Health and metrics, with parts that work and parts that do not.

use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use countersign_store::{QUEUE_LEN, StoreError};
use serde_json::json;

use crate::world::{NoSam, SAM_FAILURE, World};

async fn health(world: &World) -> crate::world::Answer {
    let request = Request::builder().uri("/v1/health").body(Body::empty()).unwrap();
    world.send(request).await
}

#[tokio::test]
async fn health_needs_no_token() {
    let world = World::new().await;
    let answer = health(&world).await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = json!({
        "status": "ok",
        "store": { "reachable": true, "backend": "sqlite-memory" },
        "audit": { "checkpointWritten": true },
        "sams": [],
        "crls": null,
    });
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn a_sam_that_is_not_ready_shows_without_the_reason() {
    let world = World::with_sams(vec![Arc::new(NoSam)]).await;
    while world.service.sams().health()[0].failure.is_none() {
        tokio::task::yield_now().await;
    }
    let answer = health(&world).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["status"], "degraded");
    let sams = json!([{ "port": "/dev/ttySAM0", "state": "failed", "check": "sam-port" }]);
    assert_eq!(answer.json()["sams"], sams);
    assert!(!answer.text.contains(SAM_FAILURE));
    let metrics = world.get("/metrics").await.text;
    assert!(metrics.contains("countersign_sam_ready{port=\"/dev/ttySAM0\"} 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_makes_it_unavailable() {
    let world = World::new().await;
    let store = world.service.store().clone();
    let (running, started) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let blocker = tokio::spawn({
        let store = store.clone();
        async move {
            let work = store.run_tx("test_gate", move |_| {
                running.send(()).unwrap();
                let _released = gate.lock().unwrap().recv();
                Ok::<_, StoreError>(())
            });
            work.await
        }
    });
    started.recv().unwrap();
    // Fill the queue behind the transaction that waits, until it refuses.
    let mut waiting = Vec::new();
    loop {
        let mut ping = Box::pin(async { store.ping().await });
        match pin!(&mut ping).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => waiting.push(ping),
            Poll::Ready(refused) => break assert!(refused.is_err()),
        }
        assert!(waiting.len() <= 2 * QUEUE_LEN);
    }
    let answer = health(&world).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "status": "unavailable",
        "store": { "reachable": false, "backend": "sqlite-memory" },
        "audit": { "checkpointWritten": true },
        "sams": [],
        "crls": null,
    });
    assert_eq!(answer.json(), expected);
    world.get("/v1/readers").await.assert_problem(
        503,
        "unavailable",
        "Unavailable",
        "a part of the server cannot serve now; try again later",
    );
    release.send(()).unwrap();
    blocker.await.unwrap().unwrap();
    for ping in waiting {
        ping.await.unwrap();
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(health(&world).await.status, StatusCode::OK);
    assert_eq!(world.get("/v1/readers").await.status, StatusCode::OK);
}

#[tokio::test]
async fn health_asks_the_store_at_most_once_a_second() {
    let world = World::new().await;
    let asked = || world.service.store().stats().get("ping").map_or(0, |stats| stats.attempts);
    for _ in 0..50 {
        assert_eq!(health(&world).await.status, StatusCode::OK);
    }
    assert_eq!(asked(), 1);
    world.advance(Duration::from_secs(1));
    for _ in 0..50 {
        assert_eq!(health(&world).await.status, StatusCode::OK);
    }
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_checkpoint_that_could_not_be_written_shows() {
    let world = World::new().await;
    world.service.note_checkpoint(false);
    let answer = health(&world).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["status"], "degraded");
    assert_eq!(answer.json()["audit"]["checkpointWritten"], false);
    world.service.note_checkpoint(true);
    assert_eq!(health(&world).await.json()["status"], "ok");
}

#[tokio::test]
async fn a_damaged_store_is_an_internal_error_without_detail() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let work = world.service.store().run_tx("test_damage", |tx| {
        tx.execute("UPDATE devices SET status = 'damaged'", &[]).map(|_| ())
    });
    work.await.unwrap();
    world.get(&format!("/v1/readers/{id}")).await.assert_problem(
        500,
        "internal",
        "Internal error",
        "the server failed; its log has the reason under this request id",
    );
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_transactions_by_name() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    world.get(&format!("/v1/readers/{id}?secret=1")).await;
    world.get("/nothing/secret").await;
    let answer = world.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let lines = [
        "# TYPE countersign_http_requests_total counter",
        r#"countersign_http_requests_total{method="POST",route="/v1/readers",status="201"}"#,
        r#"countersign_http_requests_total{method="GET",route="/v1/readers/{id}",status="200"}"#,
        r#"countersign_http_requests_total{method="GET",route="none",status="404"}"#,
        "# TYPE countersign_http_request_seconds histogram",
        r#"countersign_http_request_seconds_bucket{method="POST",route="/v1/readers",le="#,
        r#"countersign_store_transactions_total{name="enrol_intend",outcome="commit"}"#,
        r#"countersign_store_attempts_total{name="authorise"}"#,
        "countersign_audit_checkpoints_lost_total 0",
    ];
    for line in lines {
        assert!(answer.text.contains(line), "{line}\n{}", answer.text);
    }
    assert!(!answer.text.contains("secret") && !answer.text.contains(&id));
    countersign_server::http::metrics::upkeep(&countersign_server::http::metrics::install());
}

#[tokio::test]
async fn metrics_need_a_token() {
    let world = World::new().await;
    let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
    world.send(request).await.assert_check(401, "token");
}
