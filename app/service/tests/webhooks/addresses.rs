use std::sync::atomic::Ordering;

use countersign_service::WebhookPolicy;
use countersign_store::DeliveryState;

use crate::stage::{OUTSIDE, Stage, turn};

#[tokio::test]
async fn names_that_resolve_inward_are_refused_by_name_and_never_connected_to() {
    for (check, address) in [
        ("loopback", "127.0.0.1:443"),
        ("loopback", "[::1]:443"),
        ("loopback", "[::ffff:127.0.0.1]:443"),
        ("private", "10.1.2.3:443"),
        ("private", "192.168.0.1:443"),
        ("private", "[fd00::1]:443"),
        ("private", "[::ffff:192.168.0.1]:443"),
        ("link-local", "169.254.169.254:443"),
        ("link-local", "[fe80::1]:443"),
        ("unspecified", "0.0.0.0:443"),
        ("unspecified", "[::]:443"),
        ("shared", "100.64.0.1:443"),
        ("multicast", "224.0.0.251:443"),
        ("multicast", "[ff02::fb]:443"),
        ("reserved", "255.255.255.255:443"),
        ("reserved", "[2002:7f00:1::]:443"),
        ("reserved", "[64:ff9b::a00:1]:443"),
    ] {
        let stage = Stage::new().await;
        let hook = stage.register("https://inward.example/").await.webhook;
        stage.happens(None).await;
        // One good address does not make up for a bad one.
        stage.world.resolves_to(&[&[OUTSIDE, address]]);
        assert_eq!(stage.turn().await, [DeliveryState::Pending], "{address}");
        let told = stage.deliveries(&hook.id).await.remove(0);
        assert_eq!(told.last_error, Some(format!("webhook-address-{check}")), "{address}");
        assert!(stage.world.posted().is_empty(), "{address}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_what_was_checked_is_connected_to() {
    let stage = Stage::new().await;
    stage.register("https://rebinding.example/").await;
    stage.happens(None).await;
    stage.world.resolves_to(&[&[OUTSIDE], &["127.0.0.1:443"]]);
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    assert_eq!(stage.world.resolved.load(Ordering::SeqCst), 1);
    let posted = stage.world.posted();
    assert_eq!(posted[0].1, OUTSIDE.parse().unwrap());
    assert_eq!(posted[0].0.url, "https://rebinding.example/", "its name goes into TLS and Host");
    // The next delivery meets the other answer.
    stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Pending]);
    assert_eq!(stage.world.posted().len(), 1);
}

#[tokio::test]
async fn what_was_registered_under_a_wider_policy_is_not_delivered_under_this_one() {
    let stage = Stage::new().await;
    let wide = stage.another(WebhookPolicy { allow_private: true, allow_http: true });
    let url = "http://127.0.0.1:8080/";
    let hook = wide.register_webhook(&stage.admin, url, &[]).await.unwrap().webhook;
    stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Pending]);
    let told = stage.deliveries(&hook.id).await.remove(0);
    assert_eq!(told.last_error.as_deref(), Some("webhook-url-scheme"));
    assert!(stage.world.posted().is_empty());
    stage.happens(None).await;
    assert_eq!(turn(&wide).await, [DeliveryState::Delivered]);
    assert_eq!(stage.world.posted()[0].1, "127.0.0.1:8080".parse().unwrap());
}
