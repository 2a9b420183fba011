use countersign_store::{
    HeldKek, IdKind, Kek, KekComponent, KekState, Key, KeyOrigin, KeyScope, KeyState, KeyValue,
    KsnSeries, MAX_COMPONENTS, StoreError,
};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, id};

fn kek(name: &str, by: &str) -> Kek {
    Kek {
        id: id(IdKind::Kek, name),
        name: name.to_owned(),
        state: KekState::Active, // ignored: a new one awaits components
        algorithm: "A".to_owned(),
        length: 32,
        components: 3,
        expected_kcv: Some("A1B2C3".to_owned()),
        kcv: None,
        block: None,
        label: None,
        created_by: by.to_owned(),
        created_at: at(1),
        activated_at: None,
        retired_at: None,
    }
}

fn component(number: u32, by: &str) -> KekComponent {
    KekComponent {
        number,
        operator_id: by.to_owned(),
        kcv: format!("00000{number}"),
        block: Some(format!("D{number}")),
        at: at(2),
    }
}

fn key(name: &str, by: &str, scope: KeyScope) -> Key {
    let seed = name.bytes().fold(0, |seed: u8, byte| seed.wrapping_mul(7).wrapping_add(byte));
    Key {
        id: id(IdKind::Key, name),
        name: name.to_owned(),
        scope,
        state: KeyState::Active,
        origin: KeyOrigin::Generated,
        usage: "B0".to_owned(),
        algorithm: "A".to_owned(),
        mode: "X".to_owned(),
        exportability: "N".to_owned(),
        length: 16,
        kek_id: None,
        kcv: Some("A1B2C3".to_owned()),
        block: Some("D0".to_owned()),
        ksn: (scope == KeyScope::Dukpt).then(|| KsnSeries {
            base: vec![seed; 4],
            first: 5,
            next: 5,
            end: 8,
        }),
        created_by: by.to_owned(),
        created_at: at(1),
        activated_at: Some(at(1)),
        retired_at: None,
    }
}

fn value(injection: &str, key_id: &str, device: &str) -> KeyValue {
    KeyValue {
        injection_id: injection.to_owned(),
        key_id: key_id.to_owned(),
        device_id: device.to_owned(),
        kcv: "A1B2C3".to_owned(),
        ksn: Some(vec![1, 2]),
        block: Some("D1".to_owned()),
        at: at(3),
    }
}

fn conflict(constraint: &str) -> StoreError {
    StoreError::Conflict { constraint: constraint.to_owned() }
}

fn refused(check: &'static str) -> StoreError {
    StoreError::Refused { check }
}

pub(crate) async fn components_are_one_per_number_and_operator_and_erased_together(db: Db) {
    let ids = [db.operator("a").await, db.operator("b").await, db.operator("c").await];
    let new = kek("zone", &ids[0]);
    let stored = new.clone();
    db.tx(move |tx| tx.insert_kek(&stored)).await;
    let again = Kek { id: "kek_other".to_owned(), ..new.clone() };
    assert_eq!(db.refused(move |tx| tx.insert_kek(&again)).await, conflict("keks_name_key"));
    for components in [0, 1, MAX_COMPONENTS + 1] {
        let bad = Kek { components, name: "other".to_owned(), ..new.clone() };
        assert_eq!(db.refused(move |tx| tx.insert_kek(&bad)).await, refused("kek-components"));
    }
    let enter = async |number, by: &str| {
        let (kek, one) = (new.id.clone(), component(number, by));
        db.store.run_tx("enter", move |tx| tx.insert_kek_component(&kek, &one)).await
    };
    assert_eq!(enter(1, &ids[0]).await, Ok(()));
    let operator = conflict("kek_components_kek_id_operator_id_key");
    assert_eq!(enter(2, &ids[0]).await, Err(operator));
    assert_eq!(enter(1, &ids[1]).await, Err(conflict("kek_components_kek_id_number_key")));
    let what = "key-encrypting key that awaits this component";
    assert_eq!(enter(4, &ids[1]).await, Err(StoreError::NotFound { what }));
    assert_eq!(enter(3, &ids[1]).await, Ok(()));
    let activate = async |held: HeldKek| {
        let kek = new.id.clone();
        let work =
            db.store.run_tx("activate", move |tx| tx.activate_kek(&kek, "A1B2C3", &held, at(4)));
        work.await
    };
    let held = HeldKek::Block("D9".to_owned());
    assert_eq!(activate(held.clone()).await, Err(refused("kek-incomplete")));
    let kek_id = new.id.clone();
    let open = db.tx(move |tx| tx.kek_components(&kek_id)).await;
    assert!(open.iter().all(|one| one.block.is_some()), "what was refused has erased nothing");
    assert_eq!(enter(2, &ids[2]).await, Ok(()));
    assert_eq!(activate(held.clone()).await, Ok(()));
    let what = "key-encrypting key that awaits components";
    assert_eq!(activate(held).await, Err(StoreError::NotFound { what }));
    let kek_id = new.id.clone();
    let (active, components) =
        db.tx(move |tx| Ok((tx.kek_by_id(&kek_id)?.unwrap(), tx.kek_components(&kek_id)?))).await;
    assert_eq!((active.state, active.block.as_deref()), (KekState::Active, Some("D9")));
    assert_eq!((active.kcv.as_deref(), active.activated_at), (Some("A1B2C3"), Some(at(4))));
    let numbers: Vec<_> = components.iter().map(|one| (one.number, &one.operator_id)).collect();
    assert_eq!(numbers, [(1, &ids[0]), (2, &ids[2]), (3, &ids[1])]);
    assert!(components.iter().all(|one| one.block.is_none()));
    let kek_id = new.id.clone();
    db.tx(move |tx| tx.retire_kek(&kek_id, at(5))).await;
    let kek_id = new.id.clone();
    let error = db.refused(move |tx| tx.retire_kek(&kek_id, at(6))).await;
    assert_eq!(error, StoreError::NotFound { what: "key-encrypting key" });
    let page = db.tx(|tx| tx.keks_page(None, 10)).await;
    let retired = (page.items[0].state, page.items[0].block.as_ref(), page.items[0].retired_at);
    assert_eq!(retired, (KekState::Retired, None, Some(at(5))));
}

pub(crate) async fn racing_components_are_each_stored_once(db: Db) {
    let new = kek("raced", &db.operator("asker").await);
    let stored = new.clone();
    db.tx(move |tx| tx.insert_kek(&stored)).await;
    let mut tasks = JoinSet::new();
    for at in 0..9 {
        let operator = db.operator(&format!("op {at}")).await;
        let (store, kek) = (db.store.clone(), new.id.clone());
        let one = component(at % 3 + 1, &operator);
        tasks.spawn(async move {
            store.run_tx("enter", move |tx| tx.insert_kek_component(&kek, &one)).await
        });
    }
    let entered = tasks.join_all().await;
    assert_eq!(entered.iter().filter(|entered| entered.is_ok()).count(), 3, "{entered:?}");
    let components = db.tx(move |tx| tx.kek_components(&new.id)).await;
    let numbers: Vec<_> = components.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

pub(crate) async fn keys_are_pending_then_active_then_erased(db: Db) {
    let by = db.operator("a").await;
    let device = db.reader("T-1").await;
    let pending = Key {
        state: KeyState::Pending,
        kcv: None,
        block: None,
        activated_at: None,
        ..key("zone", &by, KeyScope::Shared)
    };
    let stored = pending.clone();
    db.tx(move |tx| tx.insert_key(&stored)).await;
    let found = db.tx(|tx| tx.key_by_name("zone")).await.unwrap();
    assert_eq!((found.key, found.terminals), (pending.clone(), 0));
    let again = Key { id: "key_other".to_owned(), ..pending.clone() };
    assert_eq!(db.refused(move |tx| tx.insert_key(&again)).await, conflict("keys_name_key"));
    let early = value("inj_1", &pending.id, &device);
    let refusal = db.refused(move |tx| tx.put_key_value(&early)).await;
    assert_eq!(refusal, refused("key-not-active"));
    let found = db.tx(|tx| tx.pending_keys(10)).await;
    assert_eq!(found, std::slice::from_ref(&pending));
    for won in [true, false] {
        let key_id = pending.id.clone();
        let activated = db.tx(move |tx| tx.activate_key(&key_id, "A1B2C3", "D7", at(5))).await;
        assert_eq!(activated, won);
    }
    assert_eq!(db.tx(|tx| tx.pending_keys(10)).await, []);

    let first = value("inj_1", &pending.id, &device);
    let second = KeyValue { block: Some("D2".to_owned()), ..first.clone() };
    let kept = first.clone();
    assert_eq!(db.tx(move |tx| tx.put_key_value(&first)).await, (kept.clone(), true));
    let stored = db.tx(move |tx| tx.put_key_value(&second)).await;
    assert_eq!(stored, (kept.clone(), false), "what came first stays");
    let key_id = pending.id.clone();
    assert_eq!(db.tx(move |tx| tx.key_by_id(&key_id)).await.unwrap().terminals, 1);
    let nowhere = value("inj_2", &pending.id, "trm_none");
    let absent = db.refused(move |tx| tx.put_key_value(&nowhere)).await;
    assert_eq!(absent, StoreError::NotFound { what: "referenced row" });

    let key_id = pending.id.clone();
    db.tx(move |tx| tx.retire_key(&key_id, at(6))).await;
    let page = db.tx(|tx| tx.keys_page(None, 10)).await;
    let retired = &page.items[0].key;
    assert_eq!((retired.state, &retired.block), (KeyState::Retired, &None));
    let erased = db.tx(|tx| tx.key_value("inj_1")).await.unwrap();
    assert_eq!(erased, KeyValue { block: None, ..kept });
    let key_id = pending.id.clone();
    let error = db.refused(move |tx| tx.retire_key(&key_id, at(7))).await;
    assert_eq!(error, StoreError::NotFound { what: "key" });
    let late = value("inj_3", &pending.id, &device);
    let refusal = db.refused(move |tx| tx.put_key_value(&late)).await;
    assert_eq!(refusal, refused("key-not-active"));
    let long = Key {
        block: Some("D".repeat(5000)),
        name: "long".to_owned(),
        id: "key_long".to_owned(),
        ..pending
    };
    assert_eq!(db.refused(move |tx| tx.insert_key(&long)).await, refused("block-too-long"));
}

async fn allot(db: &Db, key: &str, injection: &str, device: &str) -> Result<i64, StoreError> {
    let (key, injection, device) = (key.to_owned(), injection.to_owned(), device.to_owned());
    let work =
        db.store.run_snapshot("allot", move |tx| tx.allot_ksn(&key, &injection, &device, at(1)));
    work.await
}

pub(crate) async fn device_numbers_are_given_out_once(db: Db) {
    let (by, device) = (db.operator("a").await, db.reader("T-1").await);
    let bdk = key("bdk", &by, KeyScope::Dukpt);
    let stored = bdk.clone();
    db.tx(move |tx| tx.insert_key(&stored)).await;
    let same_base = Key { name: "b".to_owned(), id: "key_b".to_owned(), ..bdk.clone() };
    let taken = db.refused(move |tx| tx.insert_key(&same_base)).await;
    assert_eq!(taken, conflict("keys_ksn_base_key"));
    for (injection, expected) in
        [("inj_1", 5), ("inj_2", 6), ("inj_1", 5), ("inj_3", 7), ("inj_2", 6)]
    {
        assert_eq!(allot(&db, &bdk.id, injection, &device).await, Ok(expected), "{injection}");
    }
    assert_eq!(allot(&db, &bdk.id, "inj_4", &device).await, Err(refused("ksn-exhausted")));
    assert_eq!(allot(&db, &bdk.id, "inj_3", &device).await, Ok(7), "what was given out stays");
    let unknown = allot(&db, "key_none", "inj_4", &device).await;
    assert_eq!(unknown, Err(StoreError::NotFound { what: "key" }));

    let other = key("other", &by, KeyScope::Dukpt);
    let stored = other.clone();
    db.tx(move |tx| tx.insert_key(&stored)).await;
    let unknown = allot(&db, &other.id, "inj_5", "trm_none").await;
    assert_eq!(unknown, Err(StoreError::NotFound { what: "referenced row" }));
    assert_eq!(allot(&db, &other.id, "inj_5", &device).await, Ok(5), "nothing was used up");
    let reused = allot(&db, &other.id, "inj_1", &device).await;
    assert_eq!(reused, Err(conflict("ksn_allotments_injection_id_key")), "one key's injection");
    let key_id = other.id.clone();
    db.tx(move |tx| tx.retire_key(&key_id, at(6))).await;
    assert_eq!(allot(&db, &other.id, "inj_6", &device).await, Err(refused("key-not-active")));
}

pub(crate) async fn racing_allotments_never_repeat_a_number(db: Db) {
    let (by, device) = (db.operator("a").await, db.reader("T-1").await);
    let series = KsnSeries { base: vec![1], first: 0, next: 0, end: 100 };
    let bdk = Key { ksn: Some(series), ..key("bdk", &by, KeyScope::Dukpt) };
    let stored = bdk.clone();
    db.tx(move |tx| tx.insert_key(&stored)).await;
    let mut tasks = JoinSet::new();
    for number in 0..16 {
        // Each injection asks twice.
        let (store, key, device) = (db.store.clone(), bdk.id.clone(), device.clone());
        let injection = format!("inj_{}", number / 2);
        tasks.spawn(async move {
            let name = injection.clone();
            let allotted = store
                .run_snapshot("allot", move |tx| tx.allot_ksn(&key, &injection, &device, at(1)));
            (name, allotted.await.unwrap())
        });
    }
    let mut all = tasks.join_all().await;
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8, "one number for each injection: {all:?}");
    let mut numbers: Vec<_> = all.iter().map(|(_, number)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>(), "and none twice");
}
