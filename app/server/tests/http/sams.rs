//! SAM modules and their hosts over the API.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{NoSam, World, build};

const SAM: &str = "/v1/sams/05.03-20260101-0000000001-0000000001";

async fn post(world: &World, path: &str, body: Value) -> crate::world::Answer {
    world.send(build(Method::POST, path, &world.admin, Body::from(body.to_string()))).await
}

#[tokio::test]
async fn a_drain_is_listed_with_its_reason_until_it_is_resumed() {
    let world = World::with_sams(vec![std::sync::Arc::new(NoSam)]).await;
    let drained = post(&world, &format!("{SAM}/drain"), json!({ "reason": "moved" })).await;
    assert_eq!(drained.status, StatusCode::OK, "{drained:?}");
    let expected = drained.json();
    assert_eq!((&expected["port"], &expected["drained"]), (&Value::Null, &json!(true)));
    assert_eq!(expected["drain"]["reason"], "moved");
    let list = world.get("/v1/sams").await.json();
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "the module here, and the one that is nowhere: {list}");
    assert_eq!((&items[0]["port"], &items[0]["drain"]), (&json!("/dev/ttySAM0"), &Value::Null));
    assert_eq!(items[1], expected);
    // Again, with another reason; then back, once.
    let again = post(&world, &format!("{SAM}/drain"), json!({ "reason": "broken" })).await;
    assert_eq!(again.json()["drain"]["reason"], "broken");
    let resumed = post(&world, &format!("{SAM}/resume"), json!({})).await;
    assert_eq!((resumed.status, &resumed.json()["drain"]), (StatusCode::OK, &Value::Null));
    post(&world, &format!("{SAM}/resume"), json!({})).await.assert_check(404, "not-found");
    let audit = world.service.audit_page(None, 10).await.unwrap();
    let actions: Vec<_> = audit.items.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions[..3], ["sam.resume", "sam.drain", "sam.drain"], "{actions:?}");
}

#[tokio::test]
async fn what_is_no_module_or_has_no_reason_is_refused() {
    let world = World::new().await;
    for (path, body, check) in [
        ("/v1/sams/abc/drain", json!({ "reason": "r" }), "sam-id"),
        ("/v1/sams/05.03%2F1/drain", json!({ "reason": "r" }), "sam-id"),
        (&format!("/v1/sams/{}/drain", "1".repeat(65)), json!({ "reason": "r" }), "sam-id"),
        (&format!("{SAM}/drain"), json!({ "reason": "" }), "reason-length"),
        ("/v1/sams/xyz/resume", json!({}), "sam-id"),
    ] {
        post(&world, path, body).await.assert_check(422, check);
    }
    for number in 0..64 {
        let path = format!("/v1/sams/05.03-{number}/drain");
        assert_eq!(post(&world, &path, json!({ "reason": "r" })).await.status, StatusCode::OK);
    }
    let full = post(&world, &format!("{SAM}/drain"), json!({ "reason": "r" })).await;
    full.assert_check(409, "drains-full");
    let known = post(&world, "/v1/sams/05.03-7/drain", json!({ "reason": "again" })).await;
    assert_eq!(known.status, StatusCode::OK);
}

#[tokio::test]
async fn a_reader_is_no_sam_host() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    for verb in ["block", "revoke"] {
        let path = format!("/v1/sam-hosts/{id}/{verb}");
        post(&world, &path, json!({ "reason": "r" })).await.assert_check(404, "not-found");
    }
    let reader = world.get(&format!("/v1/readers/{id}")).await.json();
    assert_eq!(reader["status"], "enrolled");
    assert_eq!(world.get("/v1/sam-hosts").await.json()["items"], json!([]));
}
