use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_store::{
    AttemptEnd, DeliveryState, DueDelivery, EVENT_DATA_MAX, Event, IdKind, PER_WEBHOOK_MAX,
    SPREAD_MAX, Store, StoreError, WEBHOOKS_MAX, Webhook, WebhookStatus,
};
use testkit::rng::seeded;
use tokio::task::JoinSet;

use crate::fixture::{Db, at, id};

const SOON: Duration = Duration::from_secs(60);

fn event(name: &str, kind: &str, owner: Option<&str>) -> Event {
    Event {
        id: id(IdKind::Event, name),
        kind: kind.to_owned(),
        subject: "pay_1".to_owned(),
        data: "{\"status\":\"executed\"}".to_owned(),
        owner: owner.map(str::to_owned),
        at: at(10),
    }
}

fn webhook(name: &str, types: &[&str]) -> Webhook {
    Webhook {
        id: id(IdKind::Webhook, name),
        url: format!("https://{name}.example/"),
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
        own_only: false,
        secret: "D0".to_owned(),
        status: WebhookStatus::Active,
        status_reason: None,
        created_by: "opr_1".to_owned(),
        created_at: at(1),
        updated_at: at(1),
    }
}

async fn register(db: &Db, webhook: Webhook) -> String {
    let id = webhook.id.clone();
    db.tx(move |tx| tx.insert_webhook(&webhook)).await;
    id
}

async fn happen(db: &Db, events: &[Event]) {
    let events = events.to_vec();
    db.tx(move |tx| tx.insert_events(&events)).await;
}

async fn spread(db: &Db) -> u32 {
    db.tx(|tx| tx.spread_events(at(20), &mut seeded(3))).await
}

async fn claim(store: &Store, now: UnixTime, limit: u32) -> Vec<DueDelivery> {
    let claiming =
        move |tx: &mut countersign_store::Tx<'_>| tx.claim_deliveries(now, now.plus(SOON), limit);
    store.run_snapshot("claim", claiming).await.unwrap()
}

async fn finish(db: &Db, due: &DueDelivery, state: DeliveryState, next_at: UnixTime) -> bool {
    let (id, attempt) = (due.delivery.id.clone(), due.delivery.attempts);
    let failed = state != DeliveryState::Delivered;
    let end = AttemptEnd {
        state,
        next_at,
        status: Some(if failed { 500 } else { 204 }),
        error: failed.then(|| "status".to_owned()),
    };
    db.tx(move |tx| tx.finish_attempt(&id, attempt, &end, at(40))).await
}

pub(crate) async fn events_go_to_the_webhooks_that_want_them(db: Db) {
    let all = register(&db, webhook("all", &[])).await;
    let some = register(&db, webhook("some", &["payment.executed", "device.*"])).await;
    let own = Webhook { own_only: true, created_by: "opr_7".to_owned(), ..webhook("own", &[]) };
    let own = register(&db, own).await;
    let late = Webhook { created_at: at(11), ..webhook("late", &[]) };
    let late = register(&db, late).await;
    let off = Webhook { status: WebhookStatus::Disabled, ..webhook("off", &[]) };
    let off = register(&db, off).await;
    happen(
        &db,
        &[
            event("1", "payment.executed", Some("opr_7")),
            event("2", "payment.expired", Some("opr_8")),
            event("3", "device.blocked", None),
        ],
    )
    .await;
    assert_eq!(spread(&db).await, 3);
    assert_eq!(spread(&db).await, 0, "each is spread once");
    for (webhook, wanted) in [
        (&all, &["1", "2", "3"][..]),
        (&some, &["1", "3"]),
        (&own, &["1"]),
        (&late, &[]),
        (&off, &[]),
    ] {
        let (webhook, wanted) = (webhook.clone(), wanted.to_vec());
        let found = db.tx(move |tx| tx.deliveries_page(&webhook, None, 50)).await;
        let mut found: Vec<String> = found.items.into_iter().map(|one| one.event_id).collect();
        found.sort();
        let mut expected: Vec<String> = wanted.iter().map(|name| id(IdKind::Event, name)).collect();
        expected.sort();
        assert_eq!(found, expected);
    }
}

pub(crate) async fn events_are_bounded_and_undone_with_their_transaction(db: Db) {
    let long = Event { data: "x".repeat(EVENT_DATA_MAX + 1), ..event("1", "a", None) };
    let refused = db.refused(move |tx| tx.insert_events(std::slice::from_ref(&long))).await;
    assert_eq!(refused, StoreError::Refused { check: "event-data" });
    let one = event("1", "a", None);
    let undone = db.refused(move |tx| {
        tx.insert_events(std::slice::from_ref(&one))?;
        Err::<(), _>(StoreError::NotFound { what: "payment" })
    });
    assert_eq!(undone.await, StoreError::NotFound { what: "payment" });
    assert_eq!(spread(&db).await, 0);
    let many: Vec<Event> =
        (0..=SPREAD_MAX).map(|number| event(&number.to_string(), "a", None)).collect();
    happen(&db, &many).await;
    assert_eq!((spread(&db).await, spread(&db).await), (SPREAD_MAX, 1));
}

pub(crate) async fn a_delivery_is_claimed_once_and_again_when_its_claim_ends(db: Db) {
    register(&db, webhook("a", &[])).await;
    happen(&db, &[event("1", "payment.executed", None)]).await;
    spread(&db).await;
    assert!(claim(&db.store, at(19), 8).await.is_empty(), "it is not due yet");
    let first = claim(&db.store, at(20), 8).await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].delivery.attempts, 1);
    assert_eq!(first[0].event, event("1", "payment.executed", None));
    assert_eq!(first[0].webhook, webhook("a", &[]));
    assert!(claim(&db.store, at(20), 8).await.is_empty(), "it is under way");
    // Who claimed it died.
    let later = at(20).plus(SOON);
    let second = claim(&db.store, later, 8).await;
    assert_eq!((second.len(), second[0].delivery.attempts), (1, 2));
    assert_eq!(second[0].event.id, first[0].event.id);
    // It was only slow; its failure is old news, its success counts.
    assert!(!finish(&db, &first[0], DeliveryState::Pending, at(90)).await);
    assert!(finish(&db, &first[0], DeliveryState::Delivered, at(90)).await);
    assert!(!finish(&db, &second[0], DeliveryState::Pending, at(90)).await, "it is settled");
    assert!(claim(&db.store, later.plus(SOON), 8).await.is_empty());
}

pub(crate) async fn failures_wait_and_successes_settle(db: Db) {
    let hook = register(&db, webhook("a", &[])).await;
    happen(&db, &[event("1", "payment.executed", None)]).await;
    spread(&db).await;
    let due = claim(&db.store, at(20), 8).await.remove(0);
    assert!(finish(&db, &due, DeliveryState::Pending, at(100)).await);
    assert!(claim(&db.store, at(99), 8).await.is_empty());
    let due = claim(&db.store, at(100), 8).await.remove(0);
    assert_eq!((due.delivery.attempts, due.delivery.last_status), (2, Some(500)));
    assert_eq!(due.delivery.last_error.as_deref(), Some("status"));
    let (dlv, to) = (due.delivery.id.clone(), hook.clone());
    let refused = db.refused(move |tx| tx.resend_delivery(&dlv, at(101))).await;
    assert_eq!(refused, StoreError::Refused { check: "delivery-under-way" });
    assert!(!db.tx(move |tx| tx.webhook_took_any(&to, at(0))).await);
    assert!(finish(&db, &due, DeliveryState::GivenUp, at(100)).await);
    let dlv = due.delivery.id.clone();
    let again = db.tx(move |tx| tx.resend_delivery(&dlv, at(200))).await;
    assert_eq!((again.state, again.attempts), (DeliveryState::Pending, 0));
    let due = claim(&db.store, at(200), 8).await.remove(0);
    assert!(finish(&db, &due, DeliveryState::Delivered, at(200)).await);
    let to = hook.clone();
    assert!(db.tx(move |tx| tx.webhook_took_any(&to, at(0))).await);
    let (dlv, off) = (due.delivery.id.clone(), hook.clone());
    db.tx(move |tx| tx.set_webhook_status(&off, WebhookStatus::Disabled, Some("x"), at(3))).await;
    let refused = db.refused(move |tx| tx.resend_delivery(&dlv, at(300))).await;
    assert_eq!(refused, StoreError::Refused { check: "webhook-not-active" });
    let refused = db.refused(|tx| tx.resend_delivery("dlv_none", at(300))).await;
    assert_eq!(refused, StoreError::NotFound { what: "delivery" });
}

pub(crate) async fn a_slow_receiver_holds_up_itself_only(db: Db) {
    let (slow, quick) = (
        register(&db, webhook("slow", &["a"])).await,
        register(&db, webhook("quick", &["b"])).await,
    );
    let mut events: Vec<Event> =
        (0..20).map(|number| event(&format!("a{number}"), "a", None)).collect();
    events.push(event("b", "b", None));
    happen(&db, &events).await;
    spread(&db).await;
    let count =
        |due: &[DueDelivery], hook: &str| due.iter().filter(|due| due.webhook.id == hook).count();
    let due = claim(&db.store, at(20), 64).await;
    assert_eq!(count(&due, &slow), PER_WEBHOOK_MAX as usize);
    assert_eq!(count(&due, &quick), 1);
    assert!(claim(&db.store, at(20), 64).await.is_empty(), "its places are taken");
    assert!(finish(&db, &due[0], DeliveryState::Delivered, at(20)).await);
    assert_eq!(claim(&db.store, at(20), 64).await.len(), 1, "one place was given back");
}

pub(crate) async fn racing_claims_share_the_deliveries(db: Db) {
    for number in 0..8 {
        register(&db, webhook(&format!("w{number}"), &[])).await;
    }
    let events = [event("1", "a", None), event("2", "a", None), event("3", "a", None)];
    happen(&db, &events).await;
    let mut racing = JoinSet::new();
    for seed in 0..4 {
        let store = db.store.clone();
        racing.spawn(async move {
            let spreading = move |tx: &mut countersign_store::Tx<'_>| {
                tx.spread_events(at(20), &mut seeded(seed))
            };
            store.run_snapshot("spread", spreading).await
        });
    }
    let spread: u32 = racing.join_all().await.into_iter().map(Result::unwrap).sum();
    assert_eq!(spread, 3, "each event is spread once");
    let mut racing = JoinSet::new();
    for _ in 0..4 {
        let store = db.store.clone();
        racing.spawn(async move { claim(&store, at(20), 64).await });
    }
    let claimed = racing.join_all().await;
    let mut ids: Vec<String> = claimed.into_iter().flatten().map(|due| due.delivery.id).collect();
    assert_eq!(ids.len(), 24);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 24, "none is claimed twice");
}

pub(crate) async fn webhooks_are_bounded_and_removed_with_their_secret(db: Db) {
    let mut ids = Vec::new();
    for number in 0..WEBHOOKS_MAX {
        ids.push(register(&db, webhook(&number.to_string(), &["a", "b"])).await);
    }
    let refused = db.refused(|tx| tx.insert_webhook(&webhook("more", &[]))).await;
    assert_eq!(refused, StoreError::Refused { check: "webhooks-full" });
    let first = db.tx(|tx| tx.webhooks_page(None, None, 60)).await;
    let next = first.next.clone();
    let second = db.tx(move |tx| tx.webhooks_page(None, next.as_deref(), 60)).await;
    assert_eq!((first.items.len(), second.items.len(), second.next), (60, 40, None));
    assert!(db.tx(|tx| tx.webhooks_page(Some("opr_2"), None, 60)).await.items.is_empty());
    let gone = ids[0].clone();
    db.tx(move |tx| tx.set_webhook_status(&gone, WebhookStatus::Removed, None, at(5))).await;
    let gone = ids[0].clone();
    let kept = db.tx(move |tx| tx.webhook(&gone)).await.unwrap();
    assert_eq!((kept.secret.as_str(), kept.status), ("", WebhookStatus::Removed));
    let gone = ids[0].clone();
    let again =
        db.refused(move |tx| tx.set_webhook_status(&gone, WebhookStatus::Active, None, at(6)));
    assert_eq!(again.await, StoreError::NotFound { what: "webhook" });
    register(&db, webhook("more", &[])).await;
}

pub(crate) async fn old_events_are_swept_and_what_waits_is_not(db: Db) {
    register(&db, webhook("a", &["told", "waits"])).await;
    happen(&db, &[event("1", "told", None), event("2", "unwanted", None)]).await;
    spread(&db).await;
    let due = claim(&db.store, at(20), 8).await.remove(0);
    assert!(finish(&db, &due, DeliveryState::Delivered, at(20)).await);
    happen(&db, &[event("3", "waits", None), event("4", "not spread", None)]).await;
    assert_eq!(db.tx(|tx| tx.sweep_events(at(10))).await, 0, "nothing is old yet");
    // The unwanted event, the settled delivery, and then its event.
    assert_eq!(db.tx(|tx| tx.sweep_events(at(1000))).await, 3);
    assert_eq!(spread(&db).await, 2, "what was not spread is there");
    assert_eq!(claim(&db.store, at(20), 8).await.len(), 1, "what waits is there");
}
