//! Alarms of managers (A5): stored once, told once, and only by those who may.

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_service::{
    ALARM_NAME_MAX, ALARMS_PER_WINDOW, ALARMS_WINDOW, NewAlarm, RaisedAlarm, ServiceError,
    WebhookPolicy,
};
use countersign_store::{
    AuditOutcome, AuditRow, Device, DeviceKind, DeviceStatus, IdKind, Role, new_id,
};
use serde_json::{Value, json};

use crate::stage::{START, Stage, turn};

const URL: &str = "https://guard.example/hook";

async fn enrolled(stage: &Stage, kind: DeviceKind, serial: &str) -> String {
    let of = match kind {
        DeviceKind::Sleeve => IdKind::Sleeve,
        DeviceKind::Manager => IdKind::Manager,
        _ => IdKind::Reader,
    };
    let (service, now) = (&stage.service, stage.service.now());
    let device = Device {
        id: new_id(of, now, &mut *service.rng()),
        kind,
        serial: serial.to_owned(),
        status: DeviceStatus::Enrolled,
        block_reason: None,
        created_at: now,
        updated_at: now,
    };
    let id = device.id.clone();
    service.store().run_tx("enrolled", move |tx| tx.insert_device(&device)).await.unwrap();
    id
}

fn alarm(name: &str) -> NewAlarm {
    NewAlarm {
        alarm: name.to_owned(),
        sleeve: "SLV-1".to_owned(),
        session: "7".to_owned(),
        raised_at: START,
    }
}

async fn raise(stage: &Stage, manager: &str, new: NewAlarm) -> Result<RaisedAlarm, ServiceError> {
    stage.service.raise_alarm(manager, new).await
}

async fn refused(stage: &Stage, manager: &str, new: NewAlarm) -> &'static str {
    raise(stage, manager, new).await.unwrap_err().check()
}

/// What the audit has of alarms, oldest first.
async fn audited(stage: &Stage) -> Vec<AuditRow> {
    let mut rows = stage.audit().await;
    rows.retain(|row| row.entry.action == "sleeve.alarm");
    rows.reverse();
    rows
}

#[tokio::test]
async fn an_alarm_is_stored_audited_and_told_once() {
    let stage = Stage::new().await;
    let manager = enrolled(&stage, DeviceKind::Manager, "MGR-1").await;
    let sleeve = enrolled(&stage, DeviceKind::Sleeve, "SLV-1").await;
    let guard = stage.register(URL).await.webhook;
    let shop = stage.operator("shop", Role::Integrator).await;
    let shops = stage.service.register_webhook(&shop, "https://shop.example/", &[]).await.unwrap();

    let first = raise(&stage, &manager, alarm("0a")).await.unwrap();
    assert!(first.created);
    stage.advance(Duration::from_secs(60));
    let again = raise(&stage, &manager, alarm("0a")).await.unwrap();
    assert_eq!(
        (again.created, &again.alarm),
        (false, &first.alarm),
        "telling again changes nothing"
    );
    stage.turn().await;
    raise(&stage, &manager, alarm("0a")).await.unwrap();
    assert!(stage.turn().await.is_empty(), "nothing more to tell");

    let posted = stage.world.posted();
    assert_eq!(posted.len(), 1, "{posted:?}");
    let body: Value = serde_json::from_slice(&posted[0].0.body).unwrap();
    assert_eq!(posted[0].0.url, URL);
    assert_eq!(body["type"], "countersign.sleeve.alarm");
    assert_eq!(body["subject"], first.alarm.id);
    let told = json!({
        "alarm": first.alarm.id,
        "manager": { "id": manager, "serial": "MGR-1" },
        "sleeve": { "id": sleeve, "serial": "SLV-1" },
        "session": "7",
        "raisedAt": "2027-01-15T08:00:00.000Z",
    });
    assert_eq!(body["data"], told);
    assert_eq!(stage.deliveries(&guard.id).await.len(), 1);
    let others = stage.service.deliveries(&shop, &shops.webhook.id, None, 9).await.unwrap();
    assert!(others.items.is_empty(), "who is under duress is no shop's business");

    let rows = audited(&stage).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let entry = &rows[0].entry;
    assert_eq!((&entry.actor, &entry.subject), (&manager, &first.alarm.id));
    assert_eq!(entry.outcome, AuditOutcome::Done);
    assert_eq!(serde_json::from_str::<Value>(&entry.detail).unwrap(), told);
    assert_eq!(stage.service.alarms(None, 10).await.unwrap().items, [first.alarm]);
}

#[tokio::test]
async fn an_alarm_over_an_unknown_sleeve_is_taken_all_the_same() {
    let stage = Stage::new().await;
    let manager = enrolled(&stage, DeviceKind::Manager, "MGR-1").await;
    let raised = raise(&stage, &manager, alarm("0a")).await.unwrap();
    assert_eq!((raised.created, raised.alarm.sleeve_id), (true, None));
    assert_eq!(raised.alarm.sleeve, "SLV-1");
}

#[tokio::test]
async fn alarms_that_do_not_fit_are_refused_and_audited() {
    let stage = Stage::new().await;
    let manager = enrolled(&stage, DeviceKind::Manager, "MGR-1").await;
    let reader = enrolled(&stage, DeviceKind::Reader, "MGR-1").await;
    let sleeve = enrolled(&stage, DeviceKind::Sleeve, "SLV-1").await;
    for name in ["", "a b", "a\nb", "ä", &"x".repeat(ALARM_NAME_MAX + 1)] {
        assert_eq!(refused(&stage, &manager, alarm(name)).await, "alarm-name", "{name:?}");
        let new = NewAlarm { session: name.to_owned(), ..alarm("0a") };
        assert_eq!(refused(&stage, &manager, new).await, "alarm-name", "{name:?}");
    }
    for name in ["", "SLV 1", &"x".repeat(65)] {
        let new = NewAlarm { sleeve: name.to_owned(), ..alarm("0a") };
        assert_eq!(refused(&stage, &manager, new).await, "alarm-sleeve", "{name:?}");
    }
    let new = NewAlarm { raised_at: UnixTime::from_millis(u64::MAX), ..alarm("0a") };
    assert_eq!(refused(&stage, &manager, new).await, "alarm-time");
    stage.advance(Duration::from_secs(60)); // the bound on such rows of the audit
    for nobody in [reader.as_str(), &sleeve, "mgr_nobody"] {
        assert_eq!(refused(&stage, nobody, alarm("0a")).await, "not-found", "{nobody}");
    }
    assert!(stage.service.alarms(None, 10).await.unwrap().items.is_empty(), "nothing is stored");

    assert!(raise(&stage, &manager, alarm("0a")).await.unwrap().created);
    for new in [
        NewAlarm { session: "8".to_owned(), ..alarm("0a") },
        NewAlarm { sleeve: "SLV-2".to_owned(), ..alarm("0a") },
        NewAlarm { raised_at: START.plus(Duration::from_millis(1)), ..alarm("0a") },
    ] {
        assert_eq!(refused(&stage, &manager, new).await, "alarm-changed");
    }
    let id = manager.clone();
    let block = move |tx: &mut countersign_store::Tx<'_>| tx.block_device(&id, "stolen", START);
    stage.service.store().run_tx("block", block).await.unwrap();
    assert_eq!(refused(&stage, &manager, alarm("0b")).await, "device-blocked");

    assert_eq!(stage.service.alarms(None, 10).await.unwrap().items.len(), 1);
    assert!(stage.turn().await.is_empty(), "no webhook");
    let rows = audited(&stage).await;
    let checks: Vec<_> = rows.iter().filter_map(|row| row.entry.check.as_deref()).collect();
    for check in
        ["alarm-name", "alarm-sleeve", "alarm-time", "not-found", "alarm-changed", "device-blocked"]
    {
        assert!(checks.contains(&check), "{check} is missing in {checks:?}");
    }
    assert_eq!(rows.iter().filter(|row| row.entry.outcome == AuditOutcome::Done).count(), 1);
}

/// A stolen manager cannot fill the disk, takes nothing from another, and what it could not tell it
/// can tell later.
#[tokio::test]
async fn alarms_are_bounded_and_can_be_told_later() {
    let stage = Stage::new().await;
    let manager = enrolled(&stage, DeviceKind::Manager, "MGR-1").await;
    let other = enrolled(&stage, DeviceKind::Manager, "MGR-2").await;
    for number in 0..ALARMS_PER_WINDOW {
        assert!(raise(&stage, &manager, alarm(&number.to_string())).await.unwrap().created);
    }
    assert_eq!(refused(&stage, &manager, alarm("more")).await, "alarm-rate");
    assert!(!raise(&stage, &manager, alarm("0")).await.unwrap().created, "what is known is known");
    assert!(raise(&stage, &other, alarm("more")).await.unwrap().created);
    stage.advance(ALARMS_WINDOW + Duration::from_millis(1));
    assert!(raise(&stage, &manager, alarm("more")).await.unwrap().created);
}

#[tokio::test]
async fn an_alarm_told_to_two_servers_at_once_is_told_on_once() {
    let stage = Stage::new().await;
    let manager = enrolled(&stage, DeviceKind::Manager, "MGR-1").await;
    stage.register(URL).await;
    let another = stage.another(WebhookPolicy::default());
    for number in 0..8 {
        let name = format!("0{number}");
        let (one, two) = tokio::join!(
            stage.service.raise_alarm(&manager, alarm(&name)),
            another.raise_alarm(&manager, alarm(&name)),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert!(one.created != two.created, "{number}");
        assert_eq!(one.alarm, two.alarm);
    }
    turn(&another).await;
    turn(&stage.service).await;
    assert_eq!(stage.world.posted().len(), 8);
    assert_eq!(audited(&stage).await.len(), 8);
}
