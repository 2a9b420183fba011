//! Pages of other sites are refused, on every route and before anything else.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::json;

use crate::bank::{Bank, keyed, order};
use crate::contract::operations;
use crate::world::{World, build};

const HOST: &str = "pay.test:8443";
const OWN: &str = "https://pay.test:8443";

fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    request.headers_mut().insert(header::HOST, HOST.parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_foreign_page_is_refused_on_every_route() {
    let world = World::new().await;
    for operation in operations(&world).await {
        let path = operation.path.replace("{id}", "unknown").replace("{decisionId}", "unknown");
        let name = format!("{} {path}", operation.method);
        for foreign in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let request = build(operation.method.clone(), &path, &world.admin, Body::from("{"));
            let answer = world.send(with(request, &[foreign])).await;
            answer.assert_problem(
                403,
                "origin",
                "Another site asks",
                "a page of another site asks: only this server's own pages may",
            );
            assert!(answer.headers.get("access-control-allow-origin").is_none(), "{name}");
        }
        // The server's own page gets what anyone gets; one whose path is not there, too.
        let request = build(operation.method.clone(), &path, "", Body::empty());
        let own = [("origin", OWN), ("sec-fetch-site", "same-origin")];
        let own = world.send(with(request, &own)).await;
        let request = build(operation.method, &path, "", Body::empty());
        let plain = world.send(request).await;
        assert_eq!(own.status, plain.status, "{name}");
    }
    let request = build(Method::GET, "/nowhere", "", Body::empty());
    let foreign = [("origin", "https://evil.example")];
    world.send(with(request, &foreign)).await.assert_check(403, "origin");
}

/// The preflight of a foreign page is answered with nothing that would let it go on.
#[tokio::test]
async fn a_preflight_is_refused() {
    let world = World::new().await;
    let request = build(Method::OPTIONS, "/v1/payments", "", Body::empty());
    let answer = world.send(with(
        request,
        &[("origin", "https://evil.example"), ("access-control-request-method", "POST")],
    ));
    let answer = answer.await;
    answer.assert_check(403, "origin");
    let allowed = |name: &axum::http::HeaderName| name.as_str().starts_with("access-control-");
    assert!(!answer.headers.keys().any(allowed), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_refused_page_has_done_nothing() {
    let bank = Bank::new().await;
    let ask = || keyed(&bank.till, "/v1/payments", "k-1", order().to_string());
    let foreign = [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")];
    bank.world.send(with(ask(), &foreign)).await.assert_check(403, "origin");
    let listed = bank.world.get("/v1/payments").await.json();
    assert_eq!(listed["items"], json!([]));
    // The key is free: nothing was stored under it.
    let own = [("origin", OWN), ("sec-fetch-site", "same-origin")];
    let asked = bank.world.send(with(ask(), &own)).await;
    assert_eq!(asked.status, StatusCode::CREATED, "{asked:?}");
    assert_eq!(asked.header("idempotency-replayed"), "");
}

#[tokio::test]
async fn a_link_from_anywhere_opens_in_its_own_window() {
    let world = World::new().await;
    let asked = async |dest: &str| {
        let request = build(Method::GET, "/v1/health", "", Body::empty());
        let request = with(
            request,
            &[
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", "navigate"),
                ("sec-fetch-dest", dest),
            ],
        );
        world.send(request).await.status
    };
    assert_eq!(asked("document").await, StatusCode::OK);
    for dest in ["iframe", "frame", "object", "embed", "empty"] {
        assert_eq!(asked(dest).await, StatusCode::FORBIDDEN, "{dest}");
    }
}
