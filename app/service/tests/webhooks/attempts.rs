use std::time::Duration;

use countersign_service::{ATTEMPTS_MAX, RETRY_AFTER, WebhookFailure, WebhookPolicy};
use countersign_store::{DeliveryState, WebhookStatus};
use serde_json::Value;

use crate::stage::{Does, Stage, turn};

/// More than the part that chance adds to a pause of this length.
fn surely(pause: Duration) -> Duration {
    pause + pause / 10 + Duration::from_secs(1)
}

#[tokio::test]
async fn an_event_is_delivered_once_with_what_cloudevents_requires() {
    let stage = Stage::new().await;
    let hook = stage.register("https://shop.example/hooks?a=1").await.webhook;
    let event = stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    assert_eq!(stage.turn().await, []);
    let posted = stage.world.posted();
    assert_eq!(posted.len(), 1);
    let request = &posted[0].0;
    assert_eq!((request.url.as_str(), &request.id), ("https://shop.example/hooks?a=1", &event));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", event.as_str()),
        ("source", "urn:countersign:events"),
        ("type", "countersign.payment.executed"),
        ("subject", "pay_1"),
        ("time", "2027-01-15T08:00:00.000Z"),
    ] {
        assert_eq!(body[name], value);
    }
    let told = stage.deliveries(&hook.id).await.remove(0);
    assert_eq!((told.attempts, told.last_status, told.last_error), (1, Some(204), None));
}

#[tokio::test]
async fn a_failing_receiver_is_tried_by_the_schedule_and_then_disabled() {
    let stage = Stage::new().await;
    let hook = stage.register("https://down.example/").await.webhook;
    let event = stage.happens(None).await;
    stage.world.does(Does::Answers(500));
    for (number, pause) in RETRY_AFTER.into_iter().enumerate() {
        assert_eq!(stage.turn().await, [DeliveryState::Pending], "attempt {number}");
        stage.advance(pause - Duration::from_secs(1));
        assert_eq!(stage.turn().await, [], "it is too early after attempt {number}");
        stage.advance(surely(pause) - pause + Duration::from_secs(1));
    }
    assert_eq!(stage.turn().await, [DeliveryState::GivenUp]);
    let posted = stage.world.posted();
    assert_eq!(posted.len(), ATTEMPTS_MAX as usize);
    assert!(posted.iter().all(|(request, _)| request.id == event), "webhook-id stays");
    let now = stage.service.webhook(&stage.admin, &hook.id).await.unwrap();
    assert_eq!(now.status, WebhookStatus::Disabled);
    assert_eq!(now.status_reason.as_deref(), Some("deliveries-failed"));
    let rows = stage.audit().await;
    let row = rows.iter().find(|row| row.entry.action == "webhook.disable").unwrap();
    assert_eq!((row.entry.actor.as_str(), &row.entry.subject), ("system", &hook.id));
    assert!(row.entry.detail.contains("deliveries-failed"), "{}", row.entry.detail);
    // Nothing is spread to it now; enabled again it hears what happens then.
    stage.happens(None).await;
    assert_eq!(stage.turn().await, []);
    stage.world.does(Does::Answers(200));
    stage.service.enable_webhook(&stage.admin, &hook.id).await.unwrap();
    stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
}

#[tokio::test]
async fn one_event_that_is_not_digested_does_not_disable_a_receiver_that_works() {
    let stage = Stage::new().await;
    let hook = stage.register("https://shop.example/").await.webhook;
    stage.happens(None).await;
    stage.world.does(Does::Answers(422));
    for pause in RETRY_AFTER {
        assert_eq!(stage.turn().await, [DeliveryState::Pending]);
        stage.world.does(Does::Answers(200));
        stage.happens(None).await;
        assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
        stage.world.does(Does::Answers(422));
        stage.advance(surely(pause));
    }
    assert_eq!(stage.turn().await, [DeliveryState::GivenUp]);
    let now = stage.service.webhook(&stage.admin, &hook.id).await.unwrap();
    assert_eq!(now.status, WebhookStatus::Active);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_disabled_at_once() {
    let stage = Stage::new().await;
    let hook = stage.register("https://gone.example/").await.webhook;
    stage.happens(None).await;
    stage.world.does(Does::Answers(410));
    assert_eq!(stage.turn().await, [DeliveryState::GivenUp]);
    let now = stage.service.webhook(&stage.admin, &hook.id).await.unwrap();
    assert_eq!((now.status, now.status_reason.as_deref()), (WebhookStatus::Disabled, Some("gone")));
}

#[tokio::test]
async fn wrong_answers_have_names_and_redirects_are_not_followed() {
    for (does, error) in [
        (Does::Answers(302), "redirect"),
        (Does::Answers(307), "redirect"),
        (Does::Answers(404), "status"),
        (Does::Answers(503), "status"),
        (Does::Fails(WebhookFailure::Connect), "connect"),
        (Does::Fails(WebhookFailure::Tls), "tls"),
        (Does::Fails(WebhookFailure::Answer), "answer"),
    ] {
        let stage = Stage::new().await;
        let hook = stage.register("https://shop.example/").await.webhook;
        stage.happens(None).await;
        stage.world.does(does);
        assert_eq!(stage.turn().await, [DeliveryState::Pending], "{does:?}");
        let told = stage.deliveries(&hook.id).await.remove(0);
        assert_eq!(told.last_error.as_deref(), Some(error), "{does:?}");
        assert_eq!(stage.world.posted().len(), 1, "{does:?}");
    }
    let stage = Stage::new().await;
    let hook = stage.register("https://absent.example/").await.webhook;
    stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Pending]);
    let told = stage.deliveries(&hook.id).await.remove(0);
    assert_eq!(told.last_error.as_deref(), Some("resolve"));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_or_a_name_that_hangs_has_its_time() {
    for url in ["https://shop.example/", "https://slow.example/"] {
        let stage = Stage::new().await;
        let hook = stage.register(url).await.webhook;
        stage.happens(None).await;
        stage.world.does(Does::Hangs);
        assert_eq!(stage.turn().await, [DeliveryState::Pending], "{url}");
        let told = stage.deliveries(&hook.id).await.remove(0);
        assert_eq!(told.last_error.as_deref(), Some("timeout"), "{url}");
    }
}

#[tokio::test]
async fn who_claims_and_dies_loses_nothing() {
    let stage = Stage::new().await;
    stage.register("https://shop.example/").await;
    let event = stage.happens(None).await;
    let other = stage.another(WebhookPolicy::default());
    stage.service.spread_events().await.unwrap();
    let claimed = stage.service.claim_deliveries(64).await.unwrap();
    assert_eq!(claimed.len(), 1);
    drop(claimed);
    assert_eq!(turn(&other).await, [], "it may still be at it");
    stage.advance(Duration::from_secs(61));
    assert_eq!(turn(&other).await, [DeliveryState::Delivered]);
    assert_eq!(stage.world.posted()[0].0.id, event);
}

#[tokio::test]
async fn two_servers_deliver_each_event_once() {
    let stage = Stage::new().await;
    for number in 0..4 {
        stage.register(&format!("https://shop{number}.example/")).await;
    }
    let other = stage.another(WebhookPolicy::default());
    let mut events = Vec::new();
    for _ in 0..8 {
        events.push(stage.happens(None).await);
    }
    for _ in 0..4 {
        let (_one, _other) = tokio::join!(stage.turn(), turn(&other));
    }
    let mut told: Vec<(String, String)> =
        stage.world.posted().into_iter().map(|(request, _)| (request.url, request.id)).collect();
    assert_eq!(told.len(), 32);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 32, "each event once at each receiver");
}

#[tokio::test]
async fn a_delivery_is_sent_again_when_it_is_asked_for() {
    let stage = Stage::new().await;
    let hook = stage.register("https://shop.example/").await.webhook;
    let event = stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    let first = stage.deliveries(&hook.id).await.remove(0);
    stage.advance(Duration::from_secs(100));
    let again = stage.service.resend_delivery(&stage.admin, &first.id).await.unwrap();
    assert_eq!((again.state, again.attempts), (DeliveryState::Pending, 0));
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    let posted = stage.world.posted();
    assert_eq!((&posted[0].0.id, &posted[1].0.id), (&event, &event));
    assert_eq!(posted[0].0.body, posted[1].0.body, "the event is the same");
    assert_eq!(posted[1].0.timestamp, posted[0].0.timestamp + 100);
    assert_ne!(posted[0].0.signature, posted[1].0.signature, "the time is signed");
    let actions: Vec<String> =
        stage.audit().await.into_iter().map(|row| row.entry.action).collect();
    assert!(actions.contains(&"webhook.resend".to_owned()), "{actions:?}");
}

#[tokio::test]
async fn old_events_and_keys_are_swept() {
    let stage = Stage::new().await;
    let hook = stage.register("https://shop.example/").await.webhook;
    stage.happens(None).await;
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    assert_eq!(stage.service.sweep_events().await.unwrap(), 0);
    stage.advance(Duration::from_secs(31 * 86_400));
    assert_eq!(stage.service.sweep_events().await.unwrap(), 2);
    assert!(stage.deliveries(&hook.id).await.is_empty());
}
