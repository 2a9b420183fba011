//! Listing, blocking, unblocking and revoking readers.

use std::time::Duration;

use axum::http::StatusCode;
use countersign_store::CertificateIntent;
use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/readers").await.json(), json!({ "items": [], "next": null }));
    let mut enrolled = Vec::new();
    for seed in 1..=5 {
        enrolled.push(world.reader(&format!("RD-{seed}"), seed).await);
        world.advance(Duration::from_millis(1));
    }
    let whole = world.get("/v1/readers").await.json();
    assert_eq!(whole["next"], Value::Null);
    let (mut seen, mut path, mut sizes) = (Vec::new(), "/v1/readers?limit=2".to_owned(), vec![]);
    loop {
        let page = world.get(&path).await.json();
        let items = page["items"].as_array().unwrap().clone();
        sizes.push(items.len());
        seen.extend(items);
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/readers?limit=2&cursor={next}");
    }
    assert_eq!(sizes, [2, 2, 1]);
    assert_eq!(whole["items"], Value::Array(seen.clone()));
    let ids: Vec<_> = seen.iter().map(|reader| reader["id"].as_str().unwrap()).collect();
    assert_eq!(ids, enrolled);
}

#[tokio::test]
async fn a_bad_query_is_refused() {
    let world = World::new().await;
    let malformed = "The request is malformed";
    for limit in ["0", "201", "4294967295"] {
        let answer = world.get(&format!("/v1/readers?limit={limit}")).await;
        answer.assert_problem(400, "page-limit", malformed, "limit is a number from 1 to 200");
    }
    for cursor in ["", "A", "%00", "a%20b", &"a".repeat(42)] {
        let answer = world.get(&format!("/v1/readers?cursor={cursor}")).await;
        let detail = "cursor is the next of the page before";
        answer.assert_problem(400, "page-cursor", malformed, detail);
    }
    for query in ["limit=x", "limit=", "limit=-1", "limit=1&limit=1", "order=up", "readerId=a"] {
        world.get(&format!("/v1/readers?{query}")).await.assert_check(400, "query");
    }
    for limit in [1, 200] {
        let answer = world.get(&format!("/v1/readers?limit={limit}")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_reader_is_blocked_and_let_in_again() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let path = format!("/v1/readers/{id}");
    let before = world.get(&path).await.json();
    world.advance(Duration::from_secs(1));
    let blocked = world.post(&format!("{path}/block"), &json!({ "reason": "löst" })).await;
    assert_eq!(blocked.status, StatusCode::OK);
    let mut expected = before.clone();
    expected["status"] = json!("blocked");
    expected["blockReason"] = json!("löst");
    expected["updatedAt"] = json!("2027-01-15T08:00:01.000Z");
    assert_eq!(blocked.json(), expected);
    assert_eq!(world.get(&path).await.json(), expected);
    for body in ["", "{}"] {
        let open = world.post_text(&format!("{path}/unblock"), body).await;
        assert_eq!(open.status, StatusCode::OK);
        expected = before.clone();
        expected["updatedAt"] = json!("2027-01-15T08:00:01.000Z");
        assert_eq!(open.json(), expected);
    }
    world.post(&format!("{path}/unblock"), &json!({ "reason": "x" })).await.assert_problem(
        400,
        "body",
        "The request is malformed",
        "this request has no body",
    );
}

#[tokio::test]
async fn a_certificate_is_revoked_once() {
    let world = World::new().await;
    let path = format!("/v1/readers/{}", world.reader("RD-1", 1).await);
    let reason = json!({ "reason": "stolen" });
    let revoked = world.post(&format!("{path}/revoke"), &reason).await;
    assert_eq!((revoked.status, &revoked.json()["certificate"]), (StatusCode::OK, &Value::Null));
    assert_eq!(revoked.json()["status"], "enrolled");
    let again = world.post(&format!("{path}/revoke"), &reason).await;
    again.assert_problem(404, "not-found", "Not found", "there is no such certificate");
}

#[tokio::test]
async fn a_certificate_that_was_never_signed_does_not_show() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let path = format!("/v1/readers/{id}");
    world.post(&format!("{path}/revoke"), &json!({ "reason": "lost" })).await;
    let now = world.service.now();
    let intent = CertificateIntent {
        number: "07".to_owned(),
        device_id: id,
        public_key: [7; 32],
        not_after: now.plus(Duration::from_secs(1)),
        at: now,
    };
    let store = world.service.store();
    store.run_tx("test_intend", move |tx| tx.intend_certificate(&intent)).await.unwrap();
    assert_eq!(world.get(&path).await.json()["certificate"], Value::Null);
}

#[tokio::test]
async fn a_reason_has_bounds() {
    let world = World::new().await;
    let path = format!("/v1/readers/{}", world.reader("RD-1", 1).await);
    for action in ["block", "revoke"] {
        for reason in ["", &"x".repeat(201), "a\0b", "a\nb"] {
            let answer =
                world.post(&format!("{path}/{action}"), &json!({ "reason": reason })).await;
            answer.assert_problem(
                422,
                "reason-length",
                "A value is refused",
                "a reason has 1 to 200 bytes and no control characters",
            );
        }
        let longest = json!({ "reason": "x".repeat(200) });
        let answer = world.post(&format!("{path}/{action}"), &longest).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
}

#[tokio::test]
async fn a_reader_that_is_not_there_is_not_found() {
    let world = World::new().await;
    let unknown = "rdr_00000000-0000-7000-8000-000000000000";
    for id in [unknown, "x", "RDR", "%00", "a%2Fb", &"a".repeat(5000)] {
        let path = format!("/v1/readers/{id}");
        let reason = json!({ "reason": "lost" });
        let answers = [
            world.get(&path).await,
            world.post(&format!("{path}/block"), &reason).await,
            world.post_text(&format!("{path}/unblock"), "").await,
            world.post(&format!("{path}/revoke"), &reason).await,
        ];
        for answer in answers {
            answer.assert_problem(404, "not-found", "Not found", "there is no such reader");
        }
    }
    world.get("/v1/readers/%ff").await.assert_check(400, "path");
}
