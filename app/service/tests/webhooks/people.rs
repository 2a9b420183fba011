use countersign_store::{DeliveryState, Role, WebhookStatus};

use crate::stage::Stage;

const URL: &str = "https://shop.example/token-in-the-path";

#[tokio::test]
async fn a_secret_is_shown_once_and_kept_sealed() {
    let stage = Stage::new().await;
    let registered = stage.register(URL).await;
    let secret = registered.secret.to_string();
    let key = secret.strip_prefix("whsec_").unwrap();
    assert_eq!(data_encoding::BASE64.decode(key.as_bytes()).unwrap().len(), 32);
    assert!(!format!("{registered:?}").contains(key));
    let stored = registered.webhook;
    // A TR-31 block of version D.
    assert!(stored.secret.starts_with('D') && !stored.secret.contains(key), "{}", stored.secret);
    let listed = stage.service.webhooks(&stage.admin, None, 10).await.unwrap();
    assert_eq!(listed.items, [stored]);
    let other = stage.register(URL).await;
    assert_ne!(*other.secret, secret, "each has its own");
    for row in stage.audit().await {
        let text = format!("{row:?}");
        assert!(!text.contains(key) && !text.contains("token-in-the-path"), "{text}");
    }
}

/// A block that is put at another webhook's row does not open.
#[tokio::test]
async fn secrets_that_were_exchanged_in_the_database_sign_nothing() {
    let stage = Stage::new().await;
    stage.register(URL).await;
    let other = stage.register("https://other.example/").await.webhook;
    let block = other.secret.clone();
    stage
        .service
        .store()
        .run_tx("tamper", move |tx| {
            tx.execute("UPDATE webhooks SET secret = ?1", &[(&block).into()])
        })
        .await
        .unwrap();
    stage.happens(None).await;
    stage.service.spread_events().await.unwrap();
    for due in stage.service.claim_deliveries(64).await.unwrap() {
        let own = due.webhook.id == other.id;
        let attempted = stage.service.attempt_delivery(due).await;
        match attempted {
            Ok(state) => assert!(own && state == DeliveryState::Delivered),
            Err(error) => assert!(!own && error.check() == "internal", "{error}"),
        }
    }
    assert_eq!(stage.world.posted().len(), 1);
}

#[tokio::test]
async fn an_integrator_hears_of_its_own_payments_and_sees_its_own_webhooks() {
    let stage = Stage::new().await;
    let (shop, other) = (
        stage.operator("shop", Role::Integrator).await,
        stage.operator("other", Role::Integrator).await,
    );
    let own = stage.service.register_webhook(&shop, URL, &[]).await.unwrap().webhook;
    assert!(own.own_only);
    let all = stage.register(URL).await.webhook;
    assert!(!all.own_only);
    let mine = stage.happens(Some(shop.id())).await;
    let theirs = stage.happens(Some(other.id())).await;
    stage.turn().await;
    let told = |deliveries: Vec<countersign_store::Delivery>| {
        let mut ids: Vec<String> = deliveries.into_iter().map(|one| one.event_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(told(stage.deliveries(&own.id).await), std::slice::from_ref(&mine));
    let mut both = [mine, theirs];
    both.sort();
    assert_eq!(told(stage.deliveries(&all.id).await), both);
    let seen = stage.service.webhooks(&shop, None, 10).await.unwrap().items;
    assert_eq!(seen, std::slice::from_ref(&own));
    assert!(stage.service.webhooks(&other, None, 10).await.unwrap().items.is_empty());
    let delivery = stage.deliveries(&all.id).await.remove(0).id;
    for check in [
        stage.service.webhook(&other, &own.id).await.map(|_| ()).unwrap_err().check(),
        stage.service.remove_webhook(&other, &own.id).await.map(|_| ()).unwrap_err().check(),
        stage.service.disable_webhook(&other, &own.id, "x").await.map(|_| ()).unwrap_err().check(),
        stage.service.deliveries(&other, &own.id, None, 9).await.map(|_| ()).unwrap_err().check(),
        stage.service.resend_delivery(&other, &delivery).await.map(|_| ()).unwrap_err().check(),
    ] {
        assert_eq!(check, "not-found");
    }
}

/// Whose token was stolen is disabled; a webhook that the thief left behind tells nothing more.
#[tokio::test]
async fn the_webhooks_of_an_operator_that_is_disabled_are_disabled_with_it() {
    let stage = Stage::new().await;
    let service = &stage.service;
    let shop = stage.operator("shop", Role::Integrator).await;
    let own = service.register_webhook(&shop, "https://left.example/", &[]).await.unwrap().webhook;
    let other = stage.register(URL).await.webhook;
    stage.happens(Some(shop.id())).await;
    service.spread_events().await.unwrap();
    service.disable_operator(&stage.admin, "shop").await.unwrap();
    stage.happens(Some(shop.id())).await;
    stage.turn().await;
    let told: Vec<String> = stage.world.posted().into_iter().map(|(one, _)| one.url).collect();
    assert_eq!(told, [URL, URL]);
    let own = service.webhook(&stage.admin, &own.id).await.unwrap();
    let why = (own.status, own.status_reason.as_deref());
    assert_eq!(why, (WebhookStatus::Disabled, Some("operator-disabled")));
    let other = service.webhook(&stage.admin, &other.id).await.unwrap();
    assert_eq!(other.status, WebhookStatus::Active);
    let rows = stage.audit().await;
    let disabled = |row: &&countersign_store::AuditRow| row.entry.action == "webhook.disable";
    let subjects: Vec<_> = rows.iter().filter(disabled).map(|row| &row.entry.subject).collect();
    assert_eq!(subjects, [&own.id]);
}

#[tokio::test]
async fn an_integrator_takes_some_places_and_leaves_others_theirs() {
    let stage = Stage::new().await;
    let service = &stage.service;
    let shop = stage.operator("shop", Role::Integrator).await;
    let mut last = None;
    for _ in 0..countersign_store::OWN_WEBHOOKS_MAX {
        last = Some(service.register_webhook(&shop, URL, &[]).await.unwrap().webhook);
    }
    let full = service.register_webhook(&shop, URL, &[]).await.unwrap_err();
    assert_eq!(full.check(), "webhooks-full");
    let other = stage.operator("other", Role::Integrator).await;
    service.register_webhook(&other, URL, &[]).await.unwrap();
    stage.register(URL).await;
    service.remove_webhook(&shop, &last.unwrap().id).await.unwrap();
    service.register_webhook(&shop, URL, &[]).await.unwrap();
}

#[tokio::test]
async fn who_may_not_is_refused_and_it_is_audited() {
    let stage = Stage::new().await;
    let auditor = stage.operator("auditor", Role::Auditor).await;
    let approver = stage.operator("approver", Role::Approver).await;
    let hook = stage.register(URL).await.webhook;
    let service = &stage.service;
    assert!(service.webhooks(&auditor, None, 10).await.is_ok());
    assert_eq!(service.webhooks(&approver, None, 10).await.unwrap_err().check(), "scope");
    for actor in [&auditor, &approver] {
        let refused = service.register_webhook(actor, URL, &[]).await.unwrap_err();
        assert_eq!(refused.check(), "scope");
        let refused = service.remove_webhook(actor, &hook.id).await.unwrap_err();
        assert_eq!(refused.check(), "scope");
    }
    for (url, types, check) in [
        ("http://shop.example/", &[][..], "webhook-url-scheme"),
        ("https://127.0.0.1/", &[], "webhook-address-loopback"),
        ("https://[::ffff:169.254.169.254]/", &[], "webhook-address-link-local"),
        ("nonsense", &[], "webhook-url"),
        (URL, &["PAYMENT"], "webhook-types"),
    ] {
        let types: Vec<String> = types.iter().map(|kind| (*kind).to_owned()).collect();
        let refused = service.register_webhook(&stage.admin, url, &types).await.unwrap_err();
        assert_eq!(refused.check(), check, "{url}");
    }
    let rows = stage.audit().await;
    let refusals: Vec<_> = rows
        .iter()
        .filter(|row| row.entry.action == "webhook.register" && row.entry.check.is_some())
        .collect();
    assert_eq!(refusals.len(), 7);
}

#[tokio::test]
async fn webhooks_are_disabled_enabled_and_removed() {
    let stage = Stage::new().await;
    let (service, admin) = (&stage.service, &stage.admin);
    let hook = stage.register(URL).await.webhook;
    stage.happens(None).await;
    service.spread_events().await.unwrap();
    let off = service.disable_webhook(admin, &hook.id, "the shop moves").await.unwrap();
    assert_eq!(off.status_reason.as_deref(), Some("the shop moves"));
    assert_eq!(stage.turn().await, [], "what waits goes on waiting");
    let delivery = stage.deliveries(&hook.id).await.remove(0);
    let refused = service.resend_delivery(admin, &delivery.id).await.unwrap_err();
    assert_eq!(refused.check(), "webhook-not-active");
    assert_eq!(
        service.disable_webhook(admin, &hook.id, "").await.unwrap_err().check(),
        "reason-length"
    );
    let on = service.enable_webhook(admin, &hook.id).await.unwrap();
    assert_eq!((on.status, on.status_reason), (WebhookStatus::Active, None));
    assert_eq!(stage.turn().await, [DeliveryState::Delivered]);
    let gone = service.remove_webhook(admin, &hook.id).await.unwrap();
    assert_eq!((gone.status, gone.secret.as_str()), (WebhookStatus::Removed, ""));
    for check in [
        service.webhook(admin, &hook.id).await.unwrap_err().check(),
        service.enable_webhook(admin, &hook.id).await.unwrap_err().check(),
        service.remove_webhook(admin, "whk_none").await.unwrap_err().check(),
        service.resend_delivery(admin, "dlv_none").await.unwrap_err().check(),
    ] {
        assert_eq!(check, "not-found");
    }
    stage.happens(None).await;
    assert_eq!(stage.turn().await, []);
}
