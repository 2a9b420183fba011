//! The injection hierarchy, its CRLs, terminals and rebind campaigns (E1, E2).

use countersign_store::{
    AuthorityRole, AuthorityState, CertificateState, Device, DeviceKind, IdKind, KeyAuthority,
    KrdCertificate, RebindProgress, RebindState, Store, StoreError, StoredCrl, TerminalRow,
    TerminalState, TokenIntent, TokenKind,
};

use crate::fixture::{Backend, Db, at, device, id};

const FAR: u64 = 1_000_000;

fn authority(role: AuthorityRole, name: &str, issuer: Option<&str>) -> KeyAuthority {
    KeyAuthority {
        id: id(IdKind::KeyAuthority, name),
        role,
        generation: 0,
        state: AuthorityState::Intended,
        issuer_id: issuer.map(|name| id(IdKind::KeyAuthority, name)),
        label: format!("{}.{name}", role.name()),
        bits: 2048,
        serial: None,
        der: None,
        not_after: None,
        intended_at: at(1),
        issued_at: None,
        ended_at: None,
        end_reason: None,
    }
}

async fn made(db: &Db, role: AuthorityRole, name: &'static str, issuer: Option<&'static str>) {
    db.tx(move |tx| {
        let new = authority(role, name, issuer);
        tx.intend_authority(&new)?;
        tx.activate_authority(&new.id, &format!("0a{:02x}", name.len()), b"der", at(FAR), at(2))
    })
    .await;
}

async fn hierarchy(db: &Db) {
    made(db, AuthorityRole::Root, "root", None).await;
    made(db, AuthorityRole::CaKrd, "krds", Some("root")).await;
    made(db, AuthorityRole::CaKdh, "kdhs-1", Some("root")).await;
    made(db, AuthorityRole::Kdh, "kdh-1", Some("kdhs-1")).await;
}

fn rka(name: &str) -> String {
    id(IdKind::KeyAuthority, name)
}

fn terminal(serial: &str) -> (Device, TerminalRow) {
    let device =
        Device { id: id(IdKind::Terminal, serial), kind: DeviceKind::Terminal, ..device(serial) };
    let row = TerminalRow {
        device_id: device.id.clone(),
        model: "M2".to_owned(),
        owner: "Shop".to_owned(),
        code_hash: Some([7; 32]),
        code_expires_at: Some(at(100)),
        code_used_at: None,
        code_used_by: None,
        wrong_codes: 0,
        wrong_since: at(0),
        bound_kdh: None,
        bound_at: None,
        unbind_asked_at: None,
        unbound_at: None,
    };
    (device, row)
}

async fn allowed(db: &Db, serial: &str) -> String {
    let (device, row) = terminal(serial);
    let id = device.id.clone();
    db.tx(move |tx| {
        tx.insert_device(&device)?;
        tx.insert_terminal(&row)
    })
    .await;
    id
}

fn krd(device_id: &str, serial: &str) -> KrdCertificate {
    KrdCertificate {
        issuer_id: rka("krds"),
        serial: serial.to_owned(),
        device_id: device_id.to_owned(),
        public_key: [3; 32],
        state: CertificateState::Intended,
        der: None,
        not_after: at(FAR),
        intended_at: at(5),
        issued_at: None,
        revoked_at: None,
        revoke_reason: None,
    }
}

fn refused(check: &'static str) -> StoreError {
    StoreError::Refused { check }
}

pub(crate) async fn one_authority_of_a_role_is_active(db: Db) {
    hierarchy(&db).await;
    let pulse = db.tx(|tx| tx.hierarchy_pulse()).await;
    assert_eq!((pulse.kdh, pulse.ca_kdh), (Some(rka("kdh-1")), Some(rka("kdhs-1"))));
    assert_eq!((pulse.crl, pulse.revoked), (0, 0));
    // A roll-over: intended first, and the old one is retiring only when the new one is there.
    let generation = db
        .tx(|tx| tx.intend_authority(&authority(AuthorityRole::Kdh, "kdh-2", Some("kdhs-1"))))
        .await;
    assert_eq!(generation, 2);
    let active = |db: &Db| {
        let store = db.store.clone();
        async move {
            let found = store
                .read("active", |tx| tx.authority_in(AuthorityRole::Kdh, AuthorityState::Active));
            found.await.unwrap().map(|found| found.id)
        }
    };
    assert_eq!(active(&db).await, Some(rka("kdh-1")));
    db.tx(|tx| tx.intend_authority_serial(&rka("kdh-2"), "0b")).await;
    db.tx(|tx| tx.activate_authority(&rka("kdh-2"), "0b", b"two", at(FAR), at(4))).await;
    assert_eq!(active(&db).await, Some(rka("kdh-2")));
    let old = db.tx(|tx| tx.authority_by_id(&rka("kdh-1"))).await.unwrap();
    assert_eq!(old.state, AuthorityState::Retiring);
    // The same certificate again changes nothing; another is refused.
    db.tx(|tx| tx.activate_authority(&rka("kdh-2"), "0b", b"two", at(FAR), at(5))).await;
    for name in ["kdh-2", "kdh-1"] {
        let error = db
            .refused(move |tx| tx.activate_authority(&rka(name), "0c", b"x", at(FAR), at(5)))
            .await;
        assert_eq!(error, refused("authority-not-intended"));
    }
    let error = db.refused(|tx| tx.intend_authority_serial(&rka("kdh-2"), "0d")).await;
    assert_eq!(error, refused("authority-not-intended"));
    let missing = StoreError::NotFound { what: "retiring authority" };
    assert_eq!(db.refused(|tx| tx.retire_authority(&rka("kdh-2"), at(6))).await, missing);
    db.tx(|tx| tx.retire_authority(&rka("kdh-1"), at(6))).await;
    assert_eq!(db.tx(|tx| tx.authorities()).await.len(), 5);
}

pub(crate) async fn racing_roll_overs_make_distinct_generations(db: Db) {
    hierarchy(&db).await;
    let other = if db.backend == Backend::Memory { None } else { Some(db.open().await.unwrap()) };
    let other = other.unwrap_or_else(|| db.store.clone());
    let intend = |store: Store, name: &'static str| async move {
        let new = authority(AuthorityRole::Kdh, name, Some("kdhs-1"));
        store.run_tx("race", move |tx| tx.intend_authority(&new)).await
    };
    let both = tokio::join!(intend(db.store.clone(), "a"), intend(other, "b"));
    let mut done: Vec<u32> = [both.0, both.1].into_iter().flatten().collect();
    done.sort_unstable();
    assert!(done == [2, 3] || done == [2], "{done:?}");
}

pub(crate) async fn revoked_authorities_are_to_be_listed(db: Db) {
    hierarchy(&db).await;
    let issuer = rka("kdhs-1");
    let listed = |now: u64| {
        let (store, issuer) = (db.store.clone(), issuer.clone());
        async move {
            let found = store
                .read("listed", move |tx| tx.revoked_under(&issuer, at(now), 10))
                .await
                .unwrap();
            found.into_iter().map(|one| (one.serial, one.at)).collect::<Vec<_>>()
        }
    };
    assert_eq!(listed(9).await, []);
    db.tx(|tx| tx.revoke_authority(&rka("kdh-1"), "lost", at(8))).await;
    assert_eq!(listed(9).await, [("0a05".to_owned(), at(8))]);
    assert_eq!(listed(FAR).await, [], "not once it has expired");
    let again = db.refused(|tx| tx.revoke_authority(&rka("kdh-1"), "lost", at(9))).await;
    assert_eq!(again, StoreError::NotFound { what: "live authority" });
    let pulse = db.tx(|tx| tx.hierarchy_pulse()).await;
    assert_eq!(pulse.kdh, None, "a revoked KDH is in use no more");
    made(&db, AuthorityRole::Kdh, "kdh-02", Some("kdhs-1")).await;
    let pulse = db.tx(|tx| tx.hierarchy_pulse()).await;
    assert_eq!((pulse.kdh, pulse.revoked), (Some(rka("kdh-02")), 1));
}

fn crl(issuer: &str, now: u64) -> StoredCrl {
    StoredCrl {
        issuer_id: rka(issuer),
        number: 0,
        listed: 0,
        this_update: at(now),
        next_update: at(now + 10),
        der: None,
    }
}

pub(crate) async fn crl_numbers_rise_whoever_signs(db: Db) {
    hierarchy(&db).await;
    assert_eq!(db.tx(|tx| tx.newest_crl(&rka("kdhs-1"))).await, None);
    assert_eq!(db.tx(|tx| tx.intend_crl(&crl("kdhs-1", 1))).await, 1);
    assert_eq!(db.tx(|tx| tx.intend_crl(&crl("kdhs-1", 2))).await, 2, "1 was never signed");
    assert_eq!(db.tx(|tx| tx.intend_crl(&crl("krds", 2))).await, 1, "each issuer has its own");
    db.tx(|tx| tx.record_crl(&rka("kdhs-1"), 2, b"second")).await;
    // One that was numbered earlier and signed later is not the newest.
    db.tx(|tx| tx.record_crl(&rka("kdhs-1"), 1, b"first")).await;
    let newest = db.tx(|tx| tx.newest_crl(&rka("kdhs-1"))).await.unwrap();
    assert_eq!((newest.number, newest.der.as_deref()), (2, Some(&b"second"[..])));
    let again = db.refused(|tx| tx.record_crl(&rka("kdhs-1"), 2, b"other")).await;
    assert_eq!(again, StoreError::NotFound { what: "intended CRL" });
}

pub(crate) async fn racing_crls_never_share_a_number(db: Db) {
    hierarchy(&db).await;
    let intend = |store: Store| async move {
        let mut numbers = Vec::new();
        for _ in 0..10 {
            match store.run_tx("race", |tx| tx.intend_crl(&crl("kdhs-1", 1))).await {
                Ok(number) => numbers.push(number),
                Err(StoreError::Conflict { constraint }) => {
                    assert_eq!(constraint, "rki_crls_issuer_id_number_key");
                }
                Err(StoreError::Busy { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        numbers
    };
    let (one, two) = tokio::join!(intend(db.store.clone()), intend(db.store.clone()));
    let mut all = [one, two].concat();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert!(count > 0 && all.len() == count, "each number once");
}

pub(crate) async fn a_storage_key_is_kept_once(db: Db) {
    let kept = db.tx(|tx| tx.keep_storage_key("storage", &[1; 8], at(1))).await;
    assert_eq!(kept, [1; 8]);
    let kept = db.tx(|tx| tx.keep_storage_key("storage", &[2; 8], at(2))).await;
    assert_eq!(kept, [1; 8], "another vault's key does not take its place");
}

pub(crate) async fn a_code_is_used_once(db: Db) {
    let id = allowed(&db, "POS-1").await;
    let found = db.tx(|tx| tx.terminal_by_serial("POS-1")).await.unwrap();
    assert_eq!((found.terminal.code_hash, found.state(at(1))), {
        (Some([7; 32]), TerminalState::Allowed)
    });
    let (device, row) = terminal("POS-1");
    let twice = db.refused(move |tx| tx.insert_device(&device)).await;
    let constraint = "devices_kind_serial_key".to_owned();
    assert!(matches!(twice, StoreError::Conflict { .. }), "{twice}, wanted {constraint}");
    let twice = db.refused(move |tx| tx.insert_terminal(&row)).await;
    assert_eq!(twice, StoreError::Conflict { constraint: "terminals_device_id_key".to_owned() });

    for (first, wrong) in [(true, 1), (false, 2), (false, 3), (true, 1)] {
        let name = id.clone();
        db.tx(move |tx| tx.count_wrong_code(&name, first, at(10 + wrong))).await;
        let name = id.clone();
        let row = db.tx(move |tx| tx.terminal_by_id(&name)).await.unwrap().terminal;
        assert_eq!(u64::from(row.wrong_codes), wrong);
    }
    let name = id.clone();
    let foreign =
        db.refused(move |tx| tx.use_enrolment_code(&name, &[8; 32], &[1; 32], at(20))).await;
    assert_eq!(foreign, refused("enrolment-code-used"));
    let name = id.clone();
    db.tx(move |tx| tx.use_enrolment_code(&name, &[7; 32], &[1; 32], at(20))).await;
    let name = id.clone();
    let again =
        db.refused(move |tx| tx.use_enrolment_code(&name, &[7; 32], &[1; 32], at(21))).await;
    assert_eq!(again, refused("enrolment-code-used"), "for the same keys too");
    let name = id.clone();
    db.tx(move |tx| tx.renew_enrolment_code(&name, &[9; 32], at(200))).await;
    let row = db.tx(move |tx| tx.terminal_by_id(&id)).await.unwrap().terminal;
    assert_eq!((row.code_hash, row.code_used_at, row.wrong_codes), (Some([9; 32]), None, 0));
}

pub(crate) async fn a_terminal_has_one_live_rsa_certificate(db: Db) {
    hierarchy(&db).await;
    let one = allowed(&db, "POS-1").await;
    let two = allowed(&db, "POS-2").await;
    let first = krd(&one, "01");
    db.tx(move |tx| tx.intend_krd(&first)).await;
    let second = krd(&one, "02");
    let twice = db.refused(move |tx| tx.intend_krd(&second)).await;
    let constraint = "krd_certificates_device_id_key".to_owned();
    assert_eq!(twice, StoreError::Conflict { constraint });
    let same = krd(&two, "01");
    let number = db.refused(move |tx| tx.intend_krd(&same)).await;
    let constraint = "krd_certificates_issuer_id_serial_key".to_owned();
    assert_eq!(number, StoreError::Conflict { constraint });
    let name = one.clone();
    let shown = db.tx(move |tx| tx.terminal_by_id(&name)).await.unwrap();
    assert_eq!(shown.state(at(6)), TerminalState::Allowed, "an intent is no certificate");
    db.tx(|tx| tx.record_issued_krd(&rka("krds"), "01", b"der", at(6))).await;
    let name = one.clone();
    let shown = db.tx(move |tx| tx.terminal_by_id(&name)).await.unwrap();
    assert_eq!(shown.state(at(6)), TerminalState::Enrolled);
    assert_eq!(shown.krd.unwrap().der.as_deref(), Some(&b"der"[..]));
    let again = db.refused(|tx| tx.record_issued_krd(&rka("krds"), "01", b"x", at(7))).await;
    assert_eq!(again, refused("certificate-not-intended"));

    let name = one.clone();
    assert!(db.tx(move |tx| tx.revoke_krd(&name, "lost", at(8))).await);
    assert!(!db.tx(move |tx| tx.revoke_krd(&one, "lost", at(9))).await, "nothing is live");
    let listed = db.tx(|tx| tx.revoked_under(&rka("krds"), at(9), 10)).await;
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].serial.as_str(), listed[0].at), ("01", at(8)));
    // What was never signed need not be listed.
    let intent = krd(&two, "03");
    db.tx(move |tx| tx.intend_krd(&intent)).await;
    assert!(db.tx(move |tx| tx.revoke_krd(&two, "never signed", at(9))).await);
    assert_eq!(db.tx(|tx| tx.revoked_under(&rka("krds"), at(9), 10)).await.len(), 1);
}

pub(crate) async fn terminals_are_bound_and_unbound(db: Db) {
    hierarchy(&db).await;
    let id = allowed(&db, "POS-1").await;
    let name = id.clone();
    let free = db.refused(move |tx| tx.ask_unbind(&name, at(1))).await;
    assert_eq!(free, refused("terminal-not-bound"));
    let name = id.clone();
    let nobody = db.refused(move |tx| tx.bind_terminal(&name, "rka_none", at(2))).await;
    assert!(matches!(nobody, StoreError::NotFound { .. }), "{nobody}");
    let name = id.clone();
    db.tx(move |tx| tx.bind_terminal(&name, &rka("kdh-1"), at(2))).await;
    assert_eq!(db.tx(|tx| tx.bound_counts()).await, [(rka("kdh-1"), 1)]);
    let name = id.clone();
    db.tx(move |tx| tx.ask_unbind(&name, at(3))).await;
    let name = id.clone();
    let shown = db.tx(move |tx| tx.terminal_by_id(&name)).await.unwrap();
    assert_eq!(shown.state(at(3)), TerminalState::Bound);
    assert_eq!(shown.terminal.unbind_asked_at, Some(at(3)));
    let name = id.clone();
    db.tx(move |tx| tx.block_device(&name, "lost", at(4))).await;
    let name = id.clone();
    let shown = db.tx(move |tx| tx.terminal_by_id(&name)).await.unwrap();
    assert_eq!(shown.state(at(4)), TerminalState::Blocked);
    let name = id.clone();
    db.tx(move |tx| tx.unbind_terminal(&name, at(5))).await;
    let row = db.tx(move |tx| tx.terminal_by_id(&id)).await.unwrap().terminal;
    assert_eq!((row.bound_kdh, row.unbind_asked_at, row.unbound_at), (None, None, Some(at(5))));
    let page = db.tx(|tx| tx.terminals_page(None, 10)).await;
    assert_eq!((page.items.len(), page.next), (1, None));
}

pub(crate) async fn who_is_blocked_or_revoked_is_not_served(db: Db) {
    hierarchy(&db).await;
    let id = allowed(&db, "POS-1").await;
    let served = |now: u64, kdh: &'static str| {
        let (store, id) = (db.store.clone(), id.clone());
        async move {
            let served = store.run_tx("served", move |tx| tx.check_served(&id, &rka(kdh), at(now)));
            served.await
        }
    };
    let certified = |serial: &'static str| {
        let (db, intent) = (&db, krd(&id, serial));
        async move {
            let issuer = intent.issuer_id.clone();
            db.tx(move |tx| tx.intend_krd(&intent)).await;
            db.tx(move |tx| tx.record_issued_krd(&issuer, serial, b"krd", at(2))).await;
        }
    };
    assert_eq!(served(1, "kdh-1").await, Err(refused("krd-revoked")), "it has none yet");
    certified("01").await;
    assert_eq!(served(3, "kdh-1").await, Ok(()));
    assert!(matches!(served(3, "none").await, Err(StoreError::NotFound { .. })));
    let name = id.clone();
    db.tx(move |tx| tx.block_device(&name, "lost", at(4))).await;
    assert_eq!(served(4, "kdh-1").await, Err(refused("device-blocked")));
    let name = id.clone();
    db.tx(move |tx| tx.unblock_device(&name, at(5))).await;
    let name = id.clone();
    db.tx(move |tx| tx.revoke_krd(&name, "lost", at(6))).await;
    assert_eq!(served(6, "kdh-1").await, Err(refused("krd-revoked")));
    certified("02").await;
    db.tx(|tx| tx.revoke_authority(&rka("kdh-1"), "lost", at(7))).await;
    assert_eq!(served(7, "kdh-1").await, Err(refused("kdh-revoked")));
}

pub(crate) async fn a_retiring_kdh_is_needed_while_terminals_are_bound_to_it(db: Db) {
    hierarchy(&db).await;
    let id = allowed(&db, "POS-1").await;
    let name = id.clone();
    db.tx(move |tx| tx.bind_terminal(&name, &rka("kdh-1"), at(2))).await;
    made(&db, AuthorityRole::CaKdh, "kdhs-22", Some("root")).await;
    made(&db, AuthorityRole::Kdh, "kdh-2", Some("kdhs-22")).await;
    assert_eq!(db.tx(|tx| tx.unneeded_authorities(at(9))).await, [""; 0]);
    db.tx(move |tx| tx.bind_terminal(&id, &rka("kdh-2"), at(3))).await;
    assert_eq!(db.tx(|tx| tx.unneeded_authorities(at(9))).await, [rka("kdh-1")]);
    db.tx(|tx| tx.retire_authority(&rka("kdh-1"), at(9))).await;
    assert_eq!(db.tx(|tx| tx.unneeded_authorities(at(9))).await, [rka("kdhs-1")], "then its CA");
}

pub(crate) async fn a_campaign_follows_each_terminal(db: Db) {
    hierarchy(&db).await;
    let ids = [allowed(&db, "POS-1").await, allowed(&db, "POS-2").await];
    let free = allowed(&db, "POS-3").await;
    for id in ids.clone() {
        db.tx(move |tx| tx.bind_terminal(&id, &rka("kdh-1"), at(2))).await;
    }
    made(&db, AuthorityRole::Kdh, "kdh-2", Some("kdhs-1")).await;
    let reb = id(IdKind::Rebind, "one");
    let name = reb.clone();
    let begun = db.tx(move |tx| tx.begin_rebind(&name, &rka("kdh-2"), "opr_1", at(3))).await;
    assert_eq!((begun.open, begun.done, begun.failed, begun.state), (2, 0, 0, RebindState::Open));
    let twice = id(IdKind::Rebind, "two");
    let twice = db.refused(move |tx| tx.begin_rebind(&twice, &rka("kdh-2"), "o", at(4))).await;
    assert_eq!(twice, refused("rebind-open"));
    assert_eq!(db.tx(move |tx| tx.rebind_due(&free)).await, None, "it is bound to none");

    let (one, name) = (ids[0].clone(), reb.clone());
    let due = db.tx(move |tx| tx.rebind_due(&one)).await.unwrap();
    assert_eq!((due.from_kdh, due.to_kdh), (rka("kdh-1"), rka("kdh-2")));
    let one = ids[0].clone();
    db.tx(move |tx| tx.note_rebind(&name, &one, Some("token-refused"), at(5))).await;
    let one = ids[0].clone();
    let due = db.tx(move |tx| tx.rebind_due(&one)).await.unwrap();
    assert_eq!((due.progress, due.failed_check.as_deref()), {
        (RebindProgress::Failed, Some("token-refused"))
    });
    // Bound anew, in whatever way: nothing is due any more; the last one ends the campaign.
    let one = ids[0].clone();
    db.tx(move |tx| tx.bind_terminal(&one, &rka("kdh-2"), at(6))).await;
    let one = ids[0].clone();
    assert_eq!(db.tx(move |tx| tx.rebind_due(&one)).await, None);
    let two = ids[1].clone();
    db.tx(move |tx| tx.unbind_terminal(&two, at(7))).await;
    let name = reb.clone();
    let ended = db.tx(move |tx| tx.rebind_by_id(&name)).await.unwrap();
    assert_eq!((ended.open, ended.done, ended.state), (0, 2, RebindState::Done));
    let name = reb.clone();
    let late = db.refused(move |tx| tx.end_rebind(&name, RebindState::Cancelled, at(8))).await;
    assert_eq!(late, refused("rebind-ended"));
    let members = db.tx(move |tx| tx.rebind_terminals_page(&reb, None, 10)).await.items;
    assert!(members.len() == 2 && members.iter().all(|m| m.progress == RebindProgress::Done));
    assert_eq!(db.tx(|tx| tx.rebinds_page(None, 10)).await.items.len(), 1);
}

pub(crate) async fn a_campaign_that_was_followed_is_found_after_its_end(db: Db) {
    hierarchy(&db).await;
    for kdh in ["kdh-2", "kdh-3"] {
        made(&db, AuthorityRole::Kdh, kdh, Some("kdhs-1")).await;
    }
    let pos = allowed(&db, "POS-1").await;
    let bound = pos.clone();
    db.tx(move |tx| tx.bind_terminal(&bound, &rka("kdh-1"), at(2))).await;
    let begin = |name: &'static str, to: &'static str, millis: u64| {
        let name = id(IdKind::Rebind, name);
        db.tx(move |tx| tx.begin_rebind(&name, &rka(to), "opr_1", at(millis)))
    };
    let offered = || {
        let pos = pos.clone();
        db.tx(move |tx| tx.rebinds_offered(&pos))
    };
    begin("one", "kdh-2", 5_000).await;
    assert_eq!(offered().await, [], "it is open");
    let one = id(IdKind::Rebind, "one");
    db.tx(move |tx| tx.end_rebind(&one, RebindState::Cancelled, at(6_000))).await;
    assert_eq!(offered().await, [], "no token was made");
    for (nonce, kind, millis, found) in [
        (1, TokenKind::Rebind, 3_999, 0),
        (2, TokenKind::Key, 5_500, 0),
        (3, TokenKind::RebindByCa, 5_000, 1),
    ] {
        let (device_id, nonce) = (pos.clone(), vec![nonce; 16]);
        let kdh_id = rka("kdh-1");
        let intent = TokenIntent { device_id, nonce, kind, kdh_id, at: at(millis) };
        db.tx(move |tx| tx.intend_token(&intent, None)).await;
        assert_eq!(offered().await.len(), found, "{millis}");
    }
    begin("two", "kdh-3", 7_000).await;
    let found = offered().await.remove(0);
    assert_eq!((found.from_kdh, found.to_kdh), (rka("kdh-1"), rka("kdh-2")));
    let followed = pos.clone();
    db.tx(move |tx| tx.follow_rebind(&followed, &rka("kdh-2"), at(8_000))).await;
    assert_eq!(offered().await, [], "it is bound otherwise now");
    let due = pos.clone();
    let due = db.tx(move |tx| tx.rebind_due(&due)).await.unwrap();
    assert_eq!((due.from_kdh, due.to_kdh), (rka("kdh-2"), rka("kdh-3")), "what is open goes on");
    let followed = id(IdKind::Terminal, "POS-9");
    let nobody = db.refused(move |tx| tx.follow_rebind(&followed, &rka("kdh-2"), at(9))).await;
    assert_eq!(nobody, StoreError::NotFound { what: "terminal" });
}
