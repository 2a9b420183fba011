use countersign_store::{
    Assignment, AuthorityRole, AuthorityState, Device, DeviceKind, IdKind, Injection,
    InjectionFilter, InjectionRun, InjectionState, Key, KeyAuthority, KeyIntent, KeyOrigin,
    KeyScope, KeyState, RUN_TERMINALS_MAX, RunKey, RunState, StoreError, TokenIntent, TokenKind,
};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, device, id};

const KDH: &str = "rka_kdh";

/// A database with two keys and a KDH.
async fn prepare(db: &Db) {
    let operator = db.operator("maker").await;
    for name in ["one", "two"] {
        let key = Key {
            id: key(name),
            name: name.to_owned(),
            scope: KeyScope::Shared,
            state: KeyState::Active,
            origin: KeyOrigin::Generated,
            usage: "K0".to_owned(),
            algorithm: "T".to_owned(),
            mode: "D".to_owned(),
            exportability: "N".to_owned(),
            length: 16,
            kek_id: None,
            kcv: None,
            block: None,
            ksn: None,
            created_by: operator.clone(),
            created_at: at(0),
            activated_at: Some(at(0)),
            retired_at: None,
        };
        db.tx(move |tx| tx.insert_key(&key)).await;
    }
    let kdh = KeyAuthority {
        id: KDH.to_owned(),
        role: AuthorityRole::Kdh,
        generation: 1,
        state: AuthorityState::Intended,
        issuer_id: None,
        label: "kdh-1".to_owned(),
        bits: 2048,
        serial: None,
        der: None,
        not_after: None,
        intended_at: at(0),
        issued_at: None,
        ended_at: None,
        end_reason: None,
    };
    db.tx(move |tx| tx.intend_authority(&kdh)).await;
}

fn key(name: &str) -> String {
    id(IdKind::Key, name)
}

async fn terminal(db: &Db, serial: &str) -> String {
    let terminal = id(IdKind::Terminal, serial);
    let device = Device { id: terminal.clone(), kind: DeviceKind::Terminal, ..device(serial) };
    db.tx(move |tx| tx.insert_device(&device)).await;
    terminal
}

fn assignment(number: u64, terminal: &str, name: &str, slot: u32) -> Assignment {
    Assignment {
        id: format!("inj_{number:05}"),
        device_id: terminal.to_owned(),
        key_id: key(name),
        slot,
        run_id: None,
        by: "opr_1".to_owned(),
        at: at(number),
    }
}

async fn assign(db: &Db, assignment: Assignment) -> (Injection, bool) {
    db.tx(move |tx| tx.assign_injection(&assignment)).await
}

fn intent(terminal: &str, nonce: u8, millis: u64) -> TokenIntent {
    TokenIntent {
        device_id: terminal.to_owned(),
        nonce: vec![nonce; 16],
        kind: TokenKind::Key,
        kdh_id: KDH.to_owned(),
        at: at(millis),
    }
}

fn carries(injection: &Injection) -> KeyIntent {
    KeyIntent {
        injection_id: injection.id.clone(),
        header: "D0016K0TD00N0000".to_owned(),
        kcv: vec![1, 2, 3],
        ksn: Some(vec![9; 10]),
    }
}

async fn issue(db: &Db, injection: &Injection, nonce: u8, millis: u64) -> Result<(), StoreError> {
    let (intent, key) = (intent(&injection.device_id, nonce, millis), carries(injection));
    db.store.run_tx("issue", move |tx| tx.issue_injection(&intent, &key)).await
}

async fn find(db: &Db, injection: &Injection) -> Injection {
    let id = injection.id.clone();
    db.tx(move |tx| tx.injection_by_id(&id)).await.unwrap()
}

fn refused<T>(check: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Refused { check })
}

pub(crate) async fn a_key_waits_is_issued_and_installed(db: Db) {
    prepare(&db).await;
    let pos = terminal(&db, "POS-1").await;
    let (one, new) = assign(&db, assignment(1, &pos, "one", 0)).await;
    assert!(new && one.state == InjectionState::Assigned && one.attempts == 0);
    let (same, new) = assign(&db, assignment(2, &pos, "one", 0)).await;
    assert_eq!((&same, new), (&one, false), "it waits already");

    assert_eq!(issue(&db, &one, 1, 10).await, Ok(()));
    assert_eq!(issue(&db, &one, 2, 20).await, Ok(()), "the answer was lost");
    let issued = find(&db, &one).await;
    assert_eq!((issued.state, issued.attempts), (InjectionState::Issued, 2));
    assert_eq!(issued.kcv, Some(vec![1, 2, 3]));
    assert_eq!((issued.kdh_id.as_deref(), issued.issued_at), (Some(KDH), Some(at(20))));

    let confirm = |millis| {
        let id = one.id.clone();
        db.tx(move |tx| tx.confirm_injection(&id, at(millis)))
    };
    assert!(!confirm(30).await);
    assert!(confirm(40).await, "confirmed again, the answer was lost");
    assert_eq!(find(&db, &one).await.ended_at, Some(at(30)));
    assert_eq!(issue(&db, &one, 3, 50).await, refused("injection-closed"));
    let id = one.id.clone();
    let end = db.refused(move |tx| tx.end_injection(&id, InjectionState::Cancelled, None, at(60)));
    assert_eq!(end.await, StoreError::Refused { check: "injection-closed" });
    assert_eq!(find(&db, &one).await.state, InjectionState::Installed);
}

pub(crate) async fn a_nonce_makes_one_token_per_terminal(db: Db) {
    prepare(&db).await;
    let (pos, other) = (terminal(&db, "POS-1").await, terminal(&db, "POS-2").await);
    let (one, _) = assign(&db, assignment(1, &pos, "one", 0)).await;
    let (two, _) = assign(&db, assignment(2, &other, "one", 0)).await;
    assert_eq!(issue(&db, &one, 7, 10).await, Ok(()));
    assert_eq!(issue(&db, &one, 7, 20).await, refused("nonce-reused"));
    assert_eq!(find(&db, &one).await.attempts, 1, "nothing of it is stored");
    assert_eq!(issue(&db, &two, 7, 20).await, Ok(()), "it is another terminal's");
    for (len, check) in
        [(7, Err("nonce-length")), (8, Ok(())), (16, Ok(())), (17, Err("nonce-length"))]
    {
        let rebind =
            TokenIntent { nonce: vec![9; len], kind: TokenKind::Rebind, ..intent(&pos, 0, 30) };
        let made = db.store.run_tx("intend", move |tx| tx.intend_token(&rebind, None)).await;
        assert_eq!(made, check.map_err(|check| StoreError::Refused { check }), "{len}");
    }
    let since = |millis: u64| {
        let pos = pos.clone();
        db.tx(move |tx| tx.tokens_since(&pos, at(millis)))
    };
    assert_eq!((since(0).await, since(10).await, since(30).await), (3, 2, 0));
    // No two of the authority's have one signing time; another terminal's do not matter.
    let by_ca = |terminal: &str, nonce: u8, millis: u64| {
        let kind = TokenKind::RebindByCa;
        let rebind = TokenIntent { kind, ..intent(terminal, nonce, millis) };
        db.store.run_tx("intend", move |tx| tx.intend_token(&rebind, None))
    };
    let latest = || {
        let pos = pos.clone();
        db.tx(move |tx| tx.signing_time(&pos))
    };
    assert_eq!(latest().await, None);
    assert_eq!(by_ca(&pos, 20, 5_000).await, Ok(()));
    assert_eq!(by_ca(&pos, 21, 5_000).await, refused("signing-time-taken"));
    assert_eq!(by_ca(&pos, 21, 4_999).await, refused("signing-time-taken"));
    assert_eq!(by_ca(&other, 21, 4_999).await, Ok(()));
    assert_eq!(by_ca(&pos, 21, 5_001).await, Ok(()));
    assert_eq!(latest().await, Some(at(5_001)));
    // A token for another terminal's injection is none.
    let (wrong, key) = (intent(&other, 8, 40), carries(&one));
    let crossed = db.refused(move |tx| tx.issue_injection(&wrong, &key)).await;
    assert_eq!(crossed, StoreError::Refused { check: "injection-closed" });
}

pub(crate) async fn one_injection_waits_for_a_place(db: Db) {
    prepare(&db).await;
    let pos = terminal(&db, "POS-1").await;
    let (one, _) = assign(&db, assignment(1, &pos, "one", 0)).await;
    let (two, _) = assign(&db, assignment(2, &pos, "two", 0)).await;
    let (three, _) = assign(&db, assignment(3, &pos, "one", 1)).await;
    assert_eq!(find(&db, &one).await.state, InjectionState::Replaced);
    let device = pos.clone();
    assert_eq!(db.tx(move |tx| tx.next_injection(&device)).await, Some(two.clone()));
    assert_eq!(issue(&db, &one, 1, 5).await, refused("injection-closed"));

    let mut tasks = JoinSet::new();
    for number in 10..16 {
        let (store, pos) = (db.store.clone(), pos.clone());
        tasks.spawn(async move {
            let name = if number % 2 == 0 { "one" } else { "two" };
            let assignment = assignment(number, &pos, name, 2);
            store.run_tx("assign", move |tx| tx.assign_injection(&assignment).map(|_| ())).await
        });
    }
    for result in tasks.join_all().await {
        assert!(matches!(
            result,
            Ok(()) | Err(StoreError::Conflict { .. } | StoreError::Busy { .. })
        ));
    }
    let open = InjectionFilter { state: Some(InjectionState::Assigned), ..Default::default() };
    let page = db.tx(move |tx| tx.injections_page(&open, None, 50)).await;
    let mut slots: Vec<_> = page.items.iter().map(|injection| injection.slot).collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2], "one for each place");

    let cancel = |injection: &Injection| {
        let id = injection.id.clone();
        db.tx(move |tx| tx.end_injection(&id, InjectionState::Cancelled, None, at(50)))
    };
    assert_eq!(cancel(&two).await.state, InjectionState::Cancelled);
    let id = three.id.clone();
    let failed = db.tx(move |tx| {
        let why = Some(("kcv-mismatch", "inc_1"));
        tx.end_injection(&id, InjectionState::Failed, why, at(50))
    });
    let failed = failed.await;
    assert_eq!(failed.failed_check.as_deref(), Some("kcv-mismatch"));
    assert_eq!((failed.incident.as_deref(), failed.ended_at), (Some("inc_1"), Some(at(50))));
    let missing =
        db.refused(|tx| tx.end_injection("inj_none", InjectionState::Failed, None, at(1))).await;
    assert_eq!(missing, StoreError::NotFound { what: "injection" });
    let unknown = assignment(90, "trm_none", "one", 0);
    let error = db.refused(move |tx| tx.assign_injection(&unknown)).await;
    assert_eq!(error, StoreError::NotFound { what: "referenced row" });
}

pub(crate) async fn a_terminals_keys_are_the_last_of_each_place(db: Db) {
    prepare(&db).await;
    let pos = terminal(&db, "POS-1").await;
    let keys = || {
        let pos = pos.clone();
        db.tx(move |tx| tx.keys_at(&pos))
    };
    let end = |injection: &Injection, state: InjectionState| {
        let id = injection.id.clone();
        db.tx(move |tx| tx.end_injection(&id, state, Some(("digest", "inc_1")), at(9)))
    };
    let install = |injection: &Injection| {
        let id = injection.id.clone();
        db.tx(move |tx| tx.confirm_injection(&id, at(9)))
    };
    let (old, _) = assign(&db, assignment(1, &pos, "one", 0)).await;
    issue(&db, &old, 1, 1).await.unwrap();
    install(&old).await;
    let (failed, _) = assign(&db, assignment(2, &pos, "two", 0)).await;
    end(&failed, InjectionState::Failed).await;
    let ids = |found: Vec<Injection>| found.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(keys().await), [old.id.clone(), failed.id.clone()]);
    let (new, _) = assign(&db, assignment(3, &pos, "two", 0)).await;
    assert_eq!(ids(keys().await), [old.id.clone(), new.id.clone()], "what failed was tried again");
    issue(&db, &new, 2, 3).await.unwrap();
    install(&new).await;
    assert_eq!(ids(keys().await), std::slice::from_ref(&new.id));
    let (gone, _) = assign(&db, assignment(4, &pos, "one", 0)).await;
    end(&gone, InjectionState::Cancelled).await;
    let (other, _) = assign(&db, assignment(5, &pos, "one", 4)).await;
    assert_eq!(ids(keys().await), [new.id, other.id]);
}

pub(crate) async fn pages_of_injections_walk_newest_first(db: Db) {
    prepare(&db).await;
    let (pos, other) = (terminal(&db, "POS-1").await, terminal(&db, "POS-2").await);
    for number in 0..6 {
        let slot = u32::try_from(number).unwrap();
        let whose = if number % 2 == 0 { &pos } else { &other };
        assign(&db, assignment(number, whose, "one", slot)).await;
    }
    let page = |filter: InjectionFilter, cursor: Option<String>| {
        db.tx(move |tx| tx.injections_page(&filter, cursor.as_deref(), 2))
    };
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let part = page(InjectionFilter::default(), cursor).await;
        seen.extend(part.items.into_iter().map(|injection| injection.slot));
        cursor = part.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, [5, 4, 3, 2, 1, 0]);
    let of = InjectionFilter { device_id: Some(other), ..InjectionFilter::default() };
    let part = page(of, None).await;
    assert_eq!(part.items.iter().map(|one| one.slot).collect::<Vec<_>>(), [5, 3]);
    assert!(part.next.is_some());
    let none = InjectionFilter { key_id: Some(key("two")), ..InjectionFilter::default() };
    assert!(page(none, None).await.items.is_empty());
}

fn run(name: &str, millis: u64) -> InjectionRun {
    InjectionRun {
        id: format!("run_{millis:05}"),
        label: name.to_owned(),
        state: RunState::Open,
        begun_by: "opr_1".to_owned(),
        begun_at: at(millis),
        closed_by: None,
        closed_at: None,
    }
}

async fn begin(db: &Db, run: InjectionRun, serials: &[&str]) -> Result<(), StoreError> {
    let serials: Vec<String> = serials.iter().map(|serial| (*serial).to_owned()).collect();
    db.store.run_tx("begin", move |tx| tx.begin_run(&run, &serials)).await
}

pub(crate) async fn a_run_is_reconciled_with_its_inventory(db: Db) {
    prepare(&db).await;
    assert_eq!(begin(&db, run("A", 1), &["POS-1", "POS-2", "POS-3"]).await, Ok(()));
    let run_id = || run("A", 1).id;
    let pos = terminal(&db, "POS-1").await;
    let failing = terminal(&db, "POS-2").await;
    let outside = terminal(&db, "POS-8").await;
    let asking = terminal(&db, "POS-9").await;
    for (slot, name) in [(0, "one"), (1, "two")] {
        let key = RunKey { slot, key_id: key(name) };
        db.tx(move |tx| tx.add_run_key(&run_id(), &key)).await;
    }
    let again = RunKey { slot: 0, key_id: key("one") };
    db.tx(move |tx| tx.add_run_key(&run_id(), &again)).await;
    let taken = RunKey { slot: 0, key_id: key("two") };
    let error = db.refused(move |tx| tx.add_run_key(&run_id(), &taken)).await;
    assert_eq!(error, StoreError::Refused { check: "run-slot-taken" });

    let mut devices = vec![pos.clone(), failing.clone()];
    devices.sort();
    assert_eq!(db.tx(move |tx| tx.run_devices(&run_id())).await, devices);
    let due = |device: &str| {
        let device = device.to_owned();
        db.tx(move |tx| tx.run_keys_due(&device))
    };
    assert_eq!(due(&pos).await.len(), 2);
    assert_eq!(due(&outside).await, []);

    let of_run = |number, device: &str, name, slot| Assignment {
        run_id: Some(run_id()),
        ..assignment(number, device, name, slot)
    };
    for (number, slot, name) in [(20, 0, "one"), (21, 1, "two")] {
        let (injection, _) = assign(&db, of_run(number, &pos, name, slot)).await;
        issue(&db, &injection, u8::try_from(number).unwrap(), number).await.unwrap();
        db.tx(move |tx| tx.confirm_injection(&injection.id, at(number))).await;
    }
    assert_eq!(due(&pos).await, []);
    let (injection, _) = assign(&db, of_run(22, &failing, "one", 0)).await;
    db.tx(move |tx| {
        let why = Some(("digest", "inc_1"));
        tx.end_injection(&injection.id, InjectionState::Failed, why, at(30))
    })
    .await;
    assert_eq!(due(&failing).await.len(), 1, "what failed is not assigned again by itself");

    // Its key goes to a terminal outside the inventory; another one comes with nothing assigned.
    let (stray, _) = assign(&db, assignment(23, &outside, "one", 5)).await;
    for millis in [31, 32] {
        let asking = asking.clone();
        assert_eq!(db.tx(move |tx| tx.note_stranger(&asking, at(millis))).await, 1);
    }
    let known = pos.clone();
    assert_eq!(db.tx(move |tx| tx.note_stranger(&known, at(31))).await, 0);

    let rows = db.tx(move |tx| tx.run_rows(&run_id())).await;
    let rows: Vec<_> = rows
        .iter()
        .map(|row| (row.serial.as_str(), row.installed, row.failed, row.failed_check.as_deref()))
        .collect();
    assert_eq!(
        rows,
        [("POS-1", 2, 0, None), ("POS-2", 0, 1, Some("digest")), ("POS-3", 0, 0, None)]
    );
    let unexpected = db.tx(move |tx| tx.run_unexpected(&run("A", 1))).await;
    let unexpected: Vec<_> =
        unexpected.iter().map(|one| (one.serial.as_str(), one.asked_at, one.injection)).collect();
    assert_eq!(
        unexpected,
        [("POS-8", None, Some(InjectionState::Assigned)), ("POS-9", Some(at(31)), None)]
    );

    db.tx(move |tx| tx.close_run(&run_id(), "opr_2", at(50))).await;
    let closed = db.tx(move |tx| tx.run_by_id(&run_id())).await.unwrap();
    assert_eq!((closed.state, closed.closed_at), (RunState::Closed, Some(at(50))));
    assert_eq!(closed.closed_by.as_deref(), Some("opr_2"));
    let error = db.refused(move |tx| tx.close_run(&run_id(), "opr_3", at(60))).await;
    assert_eq!(error, StoreError::Refused { check: "run-closed" });
    let late = RunKey { slot: 9, key_id: key("two") };
    let error = db.refused(move |tx| tx.add_run_key(&run_id(), &late)).await;
    assert_eq!(error, StoreError::Refused { check: "run-closed" });
    let device = asking.clone();
    assert_eq!(db.tx(move |tx| tx.note_stranger(&device, at(70))).await, 0);
    // What happens later with its keys is not the run's.
    assign(&db, assignment(90, &asking, "one", 5)).await;
    let shown = || {
        let closed = closed.clone();
        db.tx(move |tx| tx.run_unexpected(&closed))
    };
    let unexpected = shown().await;
    assert_eq!(unexpected.last().unwrap().injection, None);
    // Nor is what becomes of a key that waited at a stranger when it was closed.
    issue(&db, &stray, 95, 95).await.unwrap();
    assert_eq!(shown().await, unexpected);
    db.tx(move |tx| tx.confirm_injection(&stray.id, at(96))).await;
    assert_eq!(shown().await, unexpected);
}

pub(crate) async fn runs_are_named_once_and_bounded(db: Db) {
    prepare(&db).await;
    assert_eq!(begin(&db, run("A", 1), &["POS-1"]).await, Ok(()));
    let taken = begin(&db, run("A", 2), &["POS-1"]).await;
    let constraint = "injection_runs_label_key".to_owned();
    assert_eq!(taken, Err(StoreError::Conflict { constraint }));
    let twice = begin(&db, run("B", 3), &["POS-1", "POS-1"]).await;
    let constraint = "injection_run_terminals_run_id_serial_key".to_owned();
    assert_eq!(twice, Err(StoreError::Conflict { constraint }));
    assert_eq!(begin(&db, run("C", 4), &[]).await, refused("run-size"));
    let many = vec!["x"; RUN_TERMINALS_MAX + 1];
    assert_eq!(begin(&db, run("D", 5), &many).await, refused("run-size"));
    assert_eq!(begin(&db, run("E", 6), &["POS-1"]).await, Ok(()), "in two runs");
    let page = db.tx(|tx| tx.runs_page(None, 1)).await;
    assert_eq!(page.items[0].label, "E");
    let cursor = page.next;
    let rest = db.tx(move |tx| tx.runs_page(cursor.as_deref(), 10)).await;
    assert_eq!(rest.items.iter().map(|run| run.label.as_str()).collect::<Vec<_>>(), ["A"]);
    let error = db.refused(|tx| tx.close_run("run_none", "opr_1", at(9))).await;
    assert_eq!(error, StoreError::NotFound { what: "run" });
}
