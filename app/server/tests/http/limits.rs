//! What is too large, malformed, misaddressed; and what every answer has.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use countersign_server::http::BODY_MAX;
use serde_json::json;

use crate::world::{World, build};

#[tokio::test]
async fn a_body_may_be_as_long_as_the_limit_and_no_longer() {
    let world = World::new().await;
    let padded = |len: usize| {
        let mut text = json!({ "request": "AAAA" }).to_string();
        text.push_str(&" ".repeat(len - text.len()));
        text
    };
    world
        .post_text("/v1/readers", padded(BODY_MAX))
        .await
        .assert_check(422, "certificate-malformed");
    for path in ["/v1/readers", "/v1/readers/x/block", "/v1/readers/x/unblock"] {
        let answer = world.post_text(path, padded(BODY_MAX + 1)).await;
        let detail = "a body has at most 65536 bytes";
        answer.assert_problem(413, "body-too-large", "The body is too large", detail);
    }
}

#[tokio::test]
async fn what_is_not_the_json_asked_for_is_refused() {
    let world = World::new().await;
    let bodies = [
        "",
        "{",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{}",
        r#"{"request":7}"#,
        r#"{"request":null}"#,
        r#"{"request":"AA","more":1}"#,
        r#"{"request":"AA","request":"AA"}"#,
        r#"["AA"]"#,
        r#"["AA",null]"#,
        "{\"request\":\"\u{1}\"}",
    ];
    for body in bodies {
        world.post_text("/v1/readers", body).await.assert_check(400, "body");
    }
    let deep = "[".repeat(10_000);
    world.post_text("/v1/readers", deep).await.assert_check(400, "body");
    let long = json!({ "x".repeat(5000): 1 });
    let answer = world.post("/v1/readers", &long).await;
    answer.assert_check(400, "body");
    assert!(answer.text.len() < 1000, "what the client sent is not all sent back");
    let mut bytes = br#"{"request":""#.to_vec();
    bytes.extend([0xff, b'"', b'}']);
    world.post_text("/v1/readers", bytes).await.assert_check(400, "body");
}

#[tokio::test]
async fn json_must_be_called_json() {
    let world = World::new().await;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = build(Method::POST, "/v1/readers", &world.admin, Body::from("{}"));
        request.headers_mut().remove(header::CONTENT_TYPE);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        let answer = world.send(request).await;
        let title = "The media type is not JSON";
        answer.assert_problem(415, "media-type", title, "send application/json");
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let world = World::new().await;
    for path in
        ["/", "/v1", "/v1/", "/v1/nothing", "/v1/readers/", "/v1/readers/a/b", "/v2/readers"]
    {
        for method in [Method::GET, Method::POST] {
            let answer = world.send(build(method, path, "", Body::empty())).await;
            answer.assert_problem(404, "path", "Unknown path", "see /v1/openapi.json");
        }
    }
}

#[tokio::test]
async fn every_answer_has_a_request_id_of_its_own_from_the_server() {
    let world = World::new().await;
    let mut ids = BTreeSet::new();
    let count = 50;
    for number in 0..count {
        let path = ["/v1/health", "/v1/nothing", "/v1/readers", "/metrics"][number % 4];
        let request = Request::builder().uri(path).header("X-Request-Id", "mine");
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        let id = answer.header("x-request-id").to_owned();
        assert!(id.starts_with("req_") && id.len() == 40, "{id}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        ids.insert(id);
    }
    assert_eq!(ids.len(), count);
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    let world = World::new().await;
    for (path, status) in [("/v1/readers", StatusCode::OK), ("/nothing", StatusCode::NOT_FOUND)] {
        let answer = world.send(build(Method::HEAD, path, &world.admin, Body::empty())).await;
        assert_eq!((answer.status, answer.text.as_str()), (status, ""));
    }
}
