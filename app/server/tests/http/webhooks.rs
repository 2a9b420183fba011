//! `/v1/webhooks` and `/v1/webhook-deliveries`.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_store::{Event, IdKind, Role, new_id};
use serde_json::{Value, json};

use crate::world::{World, build};

const URL: &str = "https://shop.example/hooks";

async fn registered(world: &World) -> Value {
    let answer = world.post("/v1/webhooks", &json!({ "url": URL, "types": ["payment.*"] })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let webhook = answer.json();
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), path);
    webhook
}

/// Something happened, and it was tried to tell it.
async fn tried(world: &World) {
    let service = &world.service;
    let event = Event {
        id: new_id(IdKind::Event, service.now(), &mut *service.rng()),
        kind: "payment.executed".to_owned(),
        subject: "pay_1".to_owned(),
        data: "{}".to_owned(),
        owner: None,
        at: service.now(),
    };
    let insert =
        move |tx: &mut countersign_store::Tx<'_>| tx.insert_events(std::slice::from_ref(&event));
    service.store().run_tx("event", insert).await.unwrap();
    service.spread_events().await.unwrap();
    for due in service.claim_deliveries(8).await.unwrap() {
        service.attempt_delivery(due).await.unwrap();
    }
}

#[tokio::test]
async fn a_webhook_is_registered_shown_and_removed_and_its_secret_is_told_once() {
    let world = World::new().await;
    let webhook = registered(&world).await;
    let secret = webhook["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{secret}");
    for (name, value) in [
        ("url", json!(URL)),
        ("types", json!(["payment.*"])),
        ("status", json!("active")),
        ("statusReason", Value::Null),
        ("ownOnly", json!(false)),
    ] {
        assert_eq!(webhook[name], value, "{name}");
    }
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    let mut shown = webhook.clone();
    shown.as_object_mut().unwrap().remove("secret");
    for path in [path.as_str(), "/v1/webhooks"] {
        let answer = world.get(path).await;
        assert!(!answer.text.contains("whsec_") && !answer.text.contains("secret"), "{path}");
        let value = answer.json();
        assert_eq!(if path == "/v1/webhooks" { &value["items"][0] } else { &value }, &shown);
    }
    let off = world.post(&format!("{path}/disable"), &json!({ "reason": "moved" })).await.json();
    assert_eq!((&off["status"], &off["statusReason"]), (&json!("disabled"), &json!("moved")));
    let on = world.post_text(&format!("{path}/enable"), "").await.json();
    assert_eq!((&on["status"], &on["statusReason"]), (&json!("active"), &Value::Null));
    let gone = world.post_text(&format!("{path}/remove"), "").await;
    assert_eq!(gone.json()["status"], "removed");
    world.get(&path).await.assert_check(404, "not-found");
    assert_eq!(world.get("/v1/webhooks").await.json()["items"], json!([]));
}

#[tokio::test]
async fn what_points_inward_or_is_no_url_is_refused_by_name() {
    let world = World::new().await;
    for (url, check) in [
        ("http://shop.example/", "webhook-url-scheme"),
        ("https://localhost:8443@127.0.0.1/", "webhook-url"),
        ("https://127.0.0.1/", "webhook-address-loopback"),
        ("https://[::ffff:127.0.0.1]/", "webhook-address-loopback"),
        ("https://169.254.169.254/latest", "webhook-address-link-local"),
        ("https://10.0.0.8/", "webhook-address-private"),
        ("https://100.64.1.1/", "webhook-address-shared"),
        ("https://0.0.0.0/", "webhook-address-unspecified"),
        ("https://239.1.2.3/", "webhook-address-multicast"),
        ("", "webhook-url"),
        ("\u{202e}https://shop.example/", "webhook-url"),
    ] {
        world.post("/v1/webhooks", &json!({ "url": url })).await.assert_check(422, check);
    }
    let types = json!({ "url": URL, "types": ["no such form"] });
    world.post("/v1/webhooks", &types).await.assert_check(422, "webhook-types");
    for body in [json!({}), json!({ "url": 7 }), json!({ "url": URL, "secret": "mine" })] {
        world.post("/v1/webhooks", &body).await.assert_check(400, "body");
    }
}

#[tokio::test]
async fn deliveries_are_listed_and_sent_again() {
    let world = World::new().await;
    let webhook = registered(&world).await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().unwrap());
    tried(&world).await;
    let listed = world.get(&format!("{path}/deliveries")).await.json();
    let delivery = &listed["items"][0];
    for (name, value) in [
        ("webhookId", webhook["id"].clone()),
        ("eventType", json!("payment.executed")),
        ("state", json!("pending")),
        ("attempts", json!(1)),
        ("lastStatus", Value::Null),
        ("lastError", json!("resolve")),
    ] {
        assert_eq!(delivery[name], value, "{name}");
    }
    assert!(delivery["nextAt"].is_string());
    let resend = format!("/v1/webhook-deliveries/{}/resend", delivery["id"].as_str().unwrap());
    let again = world.post_text(&resend, "").await;
    assert_eq!((again.status, &again.json()["attempts"]), (StatusCode::OK, &json!(0)));
    world.post(&format!("{path}/disable"), &json!({ "reason": "moved" })).await;
    world.post_text(&resend, "").await.assert_check(409, "webhook-not-active");
    let none = "/v1/webhook-deliveries/dlv_00000000-0000-7000-8000-000000000000/resend";
    world.post_text(none, "").await.assert_check(404, "not-found");
    world.post_text("/v1/webhook-deliveries/A%20b/resend", "").await.assert_check(404, "not-found");
}

#[tokio::test]
async fn an_integrator_finds_its_own_webhooks_only() {
    let world = World::new().await;
    let (shop, other) = (
        world.token("shop", &[Role::Integrator]).await,
        world.token("other", &[Role::Integrator]).await,
    );
    registered(&world).await;
    let body = Body::from(json!({ "url": URL }).to_string());
    let own = world.send(build(Method::POST, "/v1/webhooks", &shop, body)).await.json();
    assert_eq!(own["ownOnly"], true);
    let seen = world.get_with(&shop, "/v1/webhooks").await.json();
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    let path = format!("/v1/webhooks/{}", own["id"].as_str().unwrap());
    world.get_with(&other, &path).await.assert_check(404, "not-found");
    let remove = build(Method::POST, &format!("{path}/remove"), &other, Body::empty());
    world.send(remove).await.assert_check(404, "not-found");
    assert_eq!(world.get_with(&shop, &path).await.status, StatusCode::OK);
}
