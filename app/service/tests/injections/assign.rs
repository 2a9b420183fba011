use countersign_injection::message::SLOTS;
use countersign_service::{ASSIGN_MAX, Actor, AssignKey, AssignTo, Gated, Reconciled};
use countersign_store::{InjectionState, Role};

use crate::plant::{BITS, Plant};

fn to(key: &str, slot: u8, terminals: &[&str]) -> AssignKey {
    let to = AssignTo::Terminals(terminals.iter().map(|name| (*name).to_owned()).collect());
    AssignKey { key_id: key.to_owned(), slot, to }
}

async fn refused(plant: &Plant, actor: &Actor, wanted: &AssignKey) -> &'static str {
    let error = plant.service.assign_key(actor, wanted, None).await.err();
    error.expect("it must be refused").check()
}

#[tokio::test]
async fn wrong_assignments_are_refused_before_anybody_is_asked() {
    let plant = Plant::new().await;
    plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let ann = &plant.asker;
    assert_eq!(refused(&plant, ann, &to(&key, SLOTS, &["POS-1"])).await, "slot-range");
    assert_eq!(refused(&plant, ann, &to(&key, 0, &[])).await, "terminals-count");
    let many = vec!["POS-1"; ASSIGN_MAX + 1];
    assert_eq!(refused(&plant, ann, &to(&key, 0, &many)).await, "terminals-count");
    assert_eq!(refused(&plant, ann, &to(&key, 0, &["POS-1", "POS-7"])).await, "not-found");
    assert_eq!(refused(&plant, ann, &to("key_none", 0, &["POS-1"])).await, "not-found");
    let run = AssignTo::Run("run_none".to_owned());
    let wanted = AssignKey { key_id: key.clone(), slot: 0, to: run };
    assert_eq!(refused(&plant, ann, &wanted).await, "not-found");
    let made = plant.service.add_operator(&Actor::Console, "aud", &[Role::Auditor]).await.unwrap();
    let auditor = Actor::Operator(made.0);
    assert_eq!(refused(&plant, &auditor, &to(&key, 0, &["POS-1"])).await, "scope");
    let wanted = to(&key, 0, &["POS-1"]);
    assert_eq!(refused(&plant, &Actor::Console, &wanted).await, "approval-operator-needed");
    // An approval is for what was asked, and once.
    let id = plant.agreed(plant.service.assign_key(ann, &wanted, None).await).await;
    let other = plant.service.assign_key(ann, &to(&key, 1, &["POS-1"]), Some(&id)).await;
    assert_eq!(other.err().unwrap().check(), "approval-other-request");
    plant.service.assign_key(ann, &wanted, Some(&id)).await.unwrap();
    let again = plant.service.assign_key(ann, &wanted, Some(&id)).await;
    assert_eq!(again.err().unwrap().check(), "approval-used");
}

#[tokio::test]
async fn what_waits_is_replaced_and_cancelled() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let (one, two) = (plant.tdes_key("one").await, plant.tdes_key("two").await);
    let first = plant.assign(&one, 0, "POS-1").await;
    let same = plant.assign(&one, 0, "POS-1").await;
    assert_eq!(first.id, same.id, "it waits already");
    let second = plant.assign(&two, 0, "POS-1").await;
    assert_eq!(plant.injection(&first.id).await.state, InjectionState::Replaced);
    plant.service.cancel_injection(&plant.asker, &second.id).await.unwrap();
    plant.update(&mut pos).await.unwrap();
    assert!(pos.slots.is_empty());
    for (id, check) in [(second.id.as_str(), "injection-closed"), ("inj_none", "not-found")] {
        let error = plant.service.cancel_injection(&plant.asker, id).await.err().unwrap();
        assert_eq!(error.check(), check);
    }
}

#[tokio::test]
async fn a_run_gives_its_keys_to_its_inventory_only() {
    let plant = Plant::new().await;
    let service = &plant.service;
    let mut early = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let serials = || ["POS-1", "POS-2"].map(str::to_owned).to_vec();
    for (label, serials, check) in [
        ("", serials(), "run-label"),
        ("A", Vec::new(), "run-size"),
        ("A", vec!["a b".to_owned()], "serial-format"),
        ("A", vec!["POS-1".to_owned(); 2], "run-serial-repeated"),
    ] {
        let begun = service.begin_run(&plant.asker, label, serials).await;
        assert_eq!(begun.err().unwrap().check(), check);
    }
    let run = service.begin_run(&plant.asker, "A", serials()).await.unwrap().run;
    let taken = service.begin_run(&plant.asker, "A", serials()).await;
    assert_eq!(taken.err().unwrap().check(), "run-label-taken");
    let wanted = AssignKey { key_id: key, slot: 0, to: AssignTo::Run(run.id.clone()) };
    let id = plant.agreed(service.assign_key(&plant.asker, &wanted, None).await).await;
    let done = service.assign_key(&plant.asker, &wanted, Some(&id)).await.unwrap();
    let Gated::Done(assigned) = done else { panic!("it was approved") };
    assert_eq!(assigned.terminals, 1, "the other one does not exist yet");
    plant.update(&mut early).await.unwrap();
    let mut late = plant.terminal("POS-2", BITS).await;
    plant.update(&mut late).await.unwrap();
    let mut stranger = plant.terminal("POS-8", BITS).await;
    plant.update(&mut stranger).await.unwrap();
    assert!(stranger.slots.is_empty());
    let report = service.run(&run.id).await.unwrap();
    let states: Vec<_> = report.terminals.iter().map(|row| report.reconciled(row)).collect();
    assert_eq!(states, [Reconciled::Installed; 2]);
    assert_eq!(report.unexpected.len(), 1);
    assert_eq!(report.unexpected[0].serial, "POS-8");
    let closed = service.close_run(&plant.asker, &run.id).await.unwrap();
    assert_eq!(closed.terminals, report.terminals);
    let again = service.close_run(&plant.asker, &run.id).await;
    assert_eq!(again.err().unwrap().check(), "run-closed");
}
