use countersign_store::{
    CertificateIntent, Device, DeviceKind, IdKind, MAX_PAGE, RELAY_ADDRESS_MAX, RelayPlace,
    StoreError, Tx, WalletAlarm,
};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, device, id};

const ADDRESS: &str = "one.example:8444";

fn wallet(kind: DeviceKind, serial: &str) -> Device {
    let of = if kind == DeviceKind::Sleeve { IdKind::Sleeve } else { IdKind::Manager };
    Device { id: id(of, serial), kind, ..device(serial) }
}

async fn enrolled(db: &Db, kind: DeviceKind, serial: &str) -> String {
    let device = wallet(kind, serial);
    let id = device.id.clone();
    db.tx(move |tx| tx.insert_device(&device)).await;
    id
}

fn place(server: &str, address: &str, until: u64) -> RelayPlace {
    RelayPlace {
        manager: "MGR-1".to_owned(),
        server: server.to_owned(),
        address: address.to_owned(),
        until: at(until),
    }
}

fn alarm(manager: &str, name: &str, millis: u64) -> WalletAlarm {
    WalletAlarm {
        id: id(IdKind::Alarm, &format!("{manager}{name}")),
        manager_id: manager.to_owned(),
        alarm: name.to_owned(),
        sleeve: "SLV-1".to_owned(),
        sleeve_id: None,
        session: "7".to_owned(),
        raised_at: at(millis),
        at: at(millis + 1),
    }
}

pub(crate) async fn a_manager_waits_where_it_came_last(db: Db) {
    assert_eq!(db.tx(|tx| tx.relay_place("MGR-1", at(0))).await, None);
    db.tx(|tx| tx.take_relay_place("MGR-1", "one", ADDRESS, at(10))).await;
    let found = db.tx(|tx| tx.relay_place("MGR-1", at(9))).await;
    assert_eq!(found, Some(place("one", ADDRESS, 10)));
    assert_eq!(db.tx(|tx| tx.relay_place("MGR-1", at(10))).await, None, "its time is over");
    assert_eq!(db.tx(|tx| tx.relay_place("MGR-2", at(9))).await, None);

    // It went to another server: the one before keeps nothing, and gives nothing of it up.
    db.tx(|tx| tx.take_relay_place("MGR-1", "two", "two.example:8444", at(20))).await;
    assert!(!db.tx(|tx| tx.release_relay_place("MGR-1", "one")).await);
    assert_eq!(db.tx(|tx| tx.release_relay_places("one")).await, 0);
    let found = db.tx(|tx| tx.relay_place("MGR-1", at(9))).await;
    assert_eq!(found, Some(place("two", "two.example:8444", 20)));

    assert!(db.tx(|tx| tx.release_relay_place("MGR-1", "two")).await);
    assert_eq!(db.tx(|tx| tx.relay_place("MGR-1", at(9))).await, None);
    for address in [String::new(), "x".repeat(RELAY_ADDRESS_MAX + 1)] {
        let error = db.refused(move |tx| tx.take_relay_place("MGR-1", "one", &address, at(9)));
        assert!(matches!(error.await, StoreError::Refused { .. }));
    }
    let long = "s".repeat(300);
    let error = db.refused(move |tx| tx.take_relay_place("MGR-1", &long, ADDRESS, at(9))).await;
    assert_eq!(error, StoreError::Refused { check: "text-too-long" });
}

pub(crate) async fn places_that_are_lost_are_told(db: Db) {
    let names: Vec<String> = (0..5).map(|number| format!("MGR-{number}")).collect();
    for name in names.clone() {
        db.tx(move |tx| tx.take_relay_place(&name, "one", ADDRESS, at(10))).await;
    }
    db.tx(|tx| tx.take_relay_place("MGR-3", "two", ADDRESS, at(10))).await;
    db.tx(|tx| tx.release_relay_place("MGR-4", "one")).await;
    // The last one is not said to be here: it is left to its time.
    let here = names[1..].to_vec();
    let lost = db.tx(move |tx| tx.keep_relay_places("one", &here, at(30))).await;
    assert_eq!(lost, ["MGR-3", "MGR-4"]);
    let until = |name: &'static str| {
        let found = db.tx(move |tx| tx.relay_place(name, at(1)));
        async move { found.await.map(|place| (place.server, place.until)) }
    };
    assert_eq!(until("MGR-0").await, Some(("one".to_owned(), at(10))));
    assert_eq!(until("MGR-1").await, Some(("one".to_owned(), at(30))));
    assert_eq!(until("MGR-3").await, Some(("two".to_owned(), at(10))));
    assert_eq!(until("MGR-4").await, None);
    assert!(db.tx(|tx| tx.keep_relay_places("one", &[], at(30))).await.is_empty());
    assert_eq!(db.tx(|tx| tx.release_relay_places("one")).await, 3);
    assert_eq!(until("MGR-1").await, None);
    assert!(until("MGR-3").await.is_some(), "it waits elsewhere");
}

pub(crate) async fn blocked_and_revoked_devices_are_found(db: Db) {
    let sleeve = enrolled(&db, DeviceKind::Sleeve, "SLV-1").await;
    let manager = enrolled(&db, DeviceKind::Manager, "MGR-1").await;
    let quiet = enrolled(&db, DeviceKind::Sleeve, "SLV-2").await;
    let reader = db.reader("SLV-1").await;
    let both = db.tx(|tx| tx.device_by_serial(DeviceKind::Sleeve, "SLV-1")).await.unwrap();
    assert_eq!(both.device.id, sleeve, "a serial number belongs to one device of each kind");

    let (blocked, other) = (sleeve.clone(), reader.clone());
    db.tx(move |tx| {
        tx.block_device(&blocked, "lost", at(5))?;
        tx.block_device(&other, "lost", at(5))
    })
    .await;
    let id = manager.clone();
    db.tx(move |tx| {
        tx.intend_certificate(&CertificateIntent {
            number: "0a".to_owned(),
            device_id: id.clone(),
            public_key: [9; 32],
            not_after: at(1_000_000),
            at: at(1),
        })?;
        tx.record_issued_certificate("0a", b"der", at(2))?;
        tx.revoke_certificate("0a", "lost", at(7))
    })
    .await;
    let changed = |since: u64| db.tx(move |tx| tx.wallet_devices_changed(at(since)));
    let mut wanted = [sleeve.clone(), manager.clone()];
    wanted.sort();
    assert_eq!(changed(5).await, wanted, "a reader is none of them, and {quiet} is as it was");
    assert_eq!(changed(6).await, std::slice::from_ref(&manager));
    assert!(changed(8).await.is_empty());
    db.tx(move |tx| tx.unblock_device(&sleeve, at(9))).await;
    assert_eq!(changed(8).await.len(), 1, "who is let in again has changed too");
}

pub(crate) async fn an_alarm_is_kept_once_and_never_changed(db: Db) {
    let manager = enrolled(&db, DeviceKind::Manager, "MGR-1").await;
    let other = enrolled(&db, DeviceKind::Manager, "MGR-2").await;
    let sleeve = enrolled(&db, DeviceKind::Sleeve, "SLV-1").await;
    let first = WalletAlarm { sleeve_id: Some(sleeve), ..alarm(&manager, "a", 5) };
    let stored = first.clone();
    assert_eq!(db.tx(move |tx| tx.insert_wallet_alarm(&stored)).await, Ok(()));
    let again = WalletAlarm { id: "alm_2".to_owned(), session: "8".to_owned(), ..first.clone() };
    let found = db.tx(move |tx| tx.insert_wallet_alarm(&again)).await;
    assert_eq!(found, Err(first.clone()), "what was told first stays");
    let theirs = alarm(&other, "a", 6);
    assert_eq!(db.tx(move |tx| tx.insert_wallet_alarm(&theirs)).await, Ok(()), "its own names");

    let id = manager.clone();
    assert_eq!(db.tx(move |tx| tx.wallet_alarm(&id, "a")).await, Some(first.clone()));
    let id = manager.clone();
    assert_eq!(db.tx(move |tx| tx.wallet_alarm(&id, "b")).await, None);
    for (since, count) in [(0, 1), (6, 1), (7, 0)] {
        let id = manager.clone();
        assert_eq!(db.tx(move |tx| tx.wallet_alarms_since(&id, at(since))).await, count);
    }
    for sql in ["UPDATE wallet_alarms SET sleeve = 'x'", "DELETE FROM wallet_alarms"] {
        let error = db.refused(move |tx| tx.execute(sql, &[])).await;
        assert_eq!(error, StoreError::Refused { check: "append-only" }, "{sql}");
    }
    let nobody = alarm("mgr_nobody", "a", 5);
    let error = db.refused(move |tx| tx.insert_wallet_alarm(&nobody)).await;
    assert_eq!(error, StoreError::NotFound { what: "referenced row" });
    let long = WalletAlarm { session: "x".repeat(300), ..alarm(&manager, "c", 5) };
    let error = db.refused(move |tx| tx.insert_wallet_alarm(&long)).await;
    assert_eq!(error, StoreError::Refused { check: "text-too-long" });
}

pub(crate) async fn racing_alarms_are_stored_once(db: Db) {
    let manager = enrolled(&db, DeviceKind::Manager, "MGR-1").await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        let new = WalletAlarm { id: format!("alm_{number}"), ..alarm(&manager, "a", 5) };
        let store = db.store.clone();
        let insert = move |tx: &mut Tx<'_>| tx.insert_wallet_alarm(&new);
        tasks.spawn(async move { store.run_tx::<_, StoreError, _>("alarm", insert).await });
    }
    let done = tasks.join_all().await;
    let stored = done.iter().filter(|one| matches!(one, Ok(Ok(())))).count();
    let found: Vec<_> = done.iter().filter_map(|one| one.as_ref().ok()?.as_ref().err()).collect();
    assert_eq!((stored, found.len()), (1, 15), "{done:?}");
    assert!(found.iter().all(|one| one.id == found[0].id), "all find the same one");
}

pub(crate) async fn pages_of_alarms_walk_newest_first(db: Db) {
    let manager = enrolled(&db, DeviceKind::Manager, "MGR-1").await;
    for number in 0..5 {
        let new = WalletAlarm { id: format!("alm_{number}"), ..alarm(&manager, "a", number) };
        let new = WalletAlarm { alarm: format!("a{number}"), ..new };
        db.tx(move |tx| tx.insert_wallet_alarm(&new)).await.unwrap();
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = db.tx(move |tx| tx.wallet_alarms_page(cursor.as_deref(), 2)).await;
        seen.extend(page.items.into_iter().map(|alarm| alarm.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["alm_4", "alm_3", "alm_2", "alm_1", "alm_0"]);
    let error = db.refused(|tx| tx.wallet_alarms_page(None, MAX_PAGE + 1)).await;
    assert_eq!(error, StoreError::Refused { check: "page-limit" });
}

/// What a database of before has is there after the step, and the new tables are empty.
pub(crate) async fn a_database_from_before_sleeves_is_brought_up_to_date(db: Db) {
    let reader = db.reader("S1").await;
    db.tamper(crate::opening::WITHOUT_WALLETS).await;
    let store = db.open().await.unwrap();
    let kept = store.read::<_, StoreError, _>("test", move |tx| tx.device_by_id(&reader));
    assert!(kept.await.unwrap().is_some());
    let alarms = store.read::<_, StoreError, _>("test", |tx| tx.wallet_alarms_page(None, 9));
    assert!(alarms.await.unwrap().items.is_empty());
    let places = store.run_tx::<_, StoreError, _>("test", |tx| tx.release_relay_places("one"));
    assert_eq!(places.await, Ok(0));
}
