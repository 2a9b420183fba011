use std::sync::atomic::Ordering;

use countersign_service::{KeyToMake, NewKsn};
use countersign_store::{Key, KeyOrigin, KeyScope, KeyState};
use tokio::task::JoinSet;
use tr31::OptionalId;
use tr31::dukpt::Allotted;

use crate::office::{Office, check, done, kcv, new_key};

#[tokio::test]
async fn a_shared_key_is_one_value_and_a_per_terminal_key_a_fresh_one_each() {
    let office = Office::new().await;
    let service = &office.service;
    let (one, two) = (office.terminal("T-1").await, office.terminal("T-2").await);
    let shared = office.key(&new_key("zone", KeyScope::Shared)).await.key;
    assert_eq!((shared.state, shared.origin), (KeyState::Active, KeyOrigin::Generated));
    let first = service.key_for_injection(&shared.id, &one, "inj_1").await.unwrap();
    let second = service.key_for_injection(&shared.id, &two, "inj_2").await.unwrap();
    assert!(first.key.ct_eq(second.key.expose()));
    assert_eq!(shared.kcv, Some(kcv("A", first.key.expose())));
    assert_eq!(first.kcv.to_string(), kcv("A", first.key.expose()));
    assert_eq!((&first.header.usage, first.header.mode), (b"K0", b'D'));
    assert!(first.ksn.is_none() && first.header.optional.is_empty());

    let tmk = office.key(&new_key("tmk", KeyScope::PerTerminal)).await.key;
    assert_eq!((tmk.state, tmk.kcv.as_ref()), (KeyState::Active, None));
    let first = service.key_for_injection(&tmk.id, &one, "inj_3").await.unwrap();
    let again = office.another().key_for_injection(&tmk.id, &one, "inj_3").await.unwrap();
    assert!(first.key.ct_eq(again.key.expose()), "a retry on another server sends the same");
    for (terminal, injection) in [(&two, "inj_4"), (&one, "inj_5")] {
        let other = service.key_for_injection(&tmk.id, terminal, injection).await.unwrap();
        assert!(!first.key.ct_eq(other.key.expose()), "another injection, another value");
    }
    let value = service.injected_value("inj_3").await.unwrap().unwrap();
    assert_eq!((value.kcv, value.device_id), (kcv("A", first.key.expose()), one.clone()));
    assert_eq!(service.injected_value("inj_none").await.unwrap(), None);
    assert_eq!(service.key(&tmk.id).await.unwrap().terminals, 2);
    let foreign = service.key_for_injection(&tmk.id, &two, "inj_3").await;
    assert_eq!(check(foreign), "injection-other-key");
    let foreign = service.key_for_injection(&shared.id, &one, "inj_3").await;
    assert_eq!(check(foreign), "injection-other-key");
    assert_eq!(check(service.key_for_injection("key_none", &one, "inj_9").await), "not-found");
}

#[tokio::test]
async fn tdes_keys_have_parity_and_no_equal_halves() {
    let office = Office::new().await;
    let terminal = office.terminal("T-1").await;
    for length in [16, 24] {
        let name = format!("tdes {length}");
        let new = KeyToMake {
            algorithm: "T".to_owned(),
            length,
            ..new_key(&name, KeyScope::PerTerminal)
        };
        let key = office.key(&new).await.key;
        for number in 0..20 {
            let injection = format!("inj_{length}_{number}");
            let sent = office.service.key_for_injection(&key.id, &terminal, &injection).await;
            let bytes = sent.unwrap().key;
            assert_eq!(bytes.len(), length as usize);
            assert!(bytes.expose().iter().all(|byte| byte.count_ones() % 2 == 1));
            assert_ne!(bytes.expose()[..8], bytes.expose()[8..16]);
        }
    }
}

#[tokio::test]
async fn what_cannot_be_a_key_is_refused_by_name() {
    let office = Office::new().await;
    let shared = || new_key("k", KeyScope::Shared);
    let dukpt = || new_key("k", KeyScope::Dukpt);
    let ksn = |base: &[u8], first, last| Some(NewKsn { base: base.to_vec(), first, last });
    let text = str::to_owned;
    let table = [
        ("name-format", KeyToMake { name: text("a\tb"), ..shared() }),
        ("key-usage", KeyToMake { usage: text("Z9"), ..shared() }),
        ("key-usage", KeyToMake { usage: text("K00"), ..shared() }),
        ("algorithm", KeyToMake { algorithm: text("X"), ..shared() }),
        ("mode-of-use", KeyToMake { mode: text("Q"), ..shared() }),
        ("exportability", KeyToMake { exportability: text("Y"), ..shared() }),
        ("usage-mode", KeyToMake { mode: text("V"), ..shared() }),
        ("usage-algorithm", KeyToMake { usage: text("M7"), mode: text("G"), ..shared() }),
        ("key-length", KeyToMake { length: 17, ..shared() }),
        ("key-length", KeyToMake { algorithm: text("T"), length: 8, ..shared() }),
        ("key-length", KeyToMake { algorithm: text("T"), length: 32, ..shared() }),
        ("key-scope", KeyToMake { usage: text("B0"), mode: text("X"), ..shared() }),
        ("key-scope", KeyToMake { usage: text("K0"), mode: text("D"), ..dukpt() }),
        ("key-scope", KeyToMake { mode: text("Y"), ..dukpt() }),
        ("ksn-needed", KeyToMake { ksn: None, ..dukpt() }),
        ("ksn-unneeded", KeyToMake { ksn: ksn(&[0; 4], 0, None), ..shared() }),
        ("ksn-base", KeyToMake { ksn: ksn(&[0; 5], 0, None), ..dukpt() }),
        ("ksn-range", KeyToMake { ksn: ksn(&[0; 4], 5, Some(4)), ..dukpt() }),
        (
            "ksn-range",
            KeyToMake { algorithm: text("T"), ksn: ksn(&[0; 5], 0, Some(1 << 19)), ..dukpt() },
        ),
        (
            "key-algorithm",
            KeyToMake { usage: text("M7"), algorithm: text("H"), mode: text("G"), ..shared() },
        ),
    ];
    for (expected, new) in table {
        let refused = office.service.generate_key(&office.ann, &new, None).await;
        assert_eq!(check(refused), expected, "{new:?}");
    }
    assert_eq!(office.service.approvals(None, None, 10).await.unwrap().items, []);
    assert_eq!(office.service.keys(None, 10).await.unwrap().items, []);
}

#[tokio::test]
async fn a_dukpt_key_gives_each_injection_a_number_of_its_own_until_there_is_none() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let bdk = office.key(&new_key("bdk", KeyScope::Dukpt)).await.key;
    let mut ids = Vec::new();
    for injection in ["inj_1", "inj_2", "inj_1", "inj_3"] {
        let sent = service.key_for_injection(&bdk.id, &terminal, injection).await.unwrap();
        let Some(Allotted::Aes(id)) = sent.ksn else { panic!("an AES key has AES numbers") };
        assert_eq!((&sent.header.usage, sent.header.mode), (b"B1", b'X'));
        assert_eq!(sent.header.exportability, b'N');
        let block = sent.header.block(OptionalId::IK).unwrap();
        assert_eq!(block.data, id.to_string().as_bytes());
        ids.push(id.to_string());
    }
    let derived = office.actions("key.derive").await;
    assert_eq!(derived, ["key.derive"; 3], "a retry derives nothing");
    assert_eq!(ids, ["0102030400000007", "0102030400000008", ids[0].as_str(), "0102030400000009"]);
    let none_left = service.key_for_injection(&bdk.id, &terminal, "inj_4").await;
    assert_eq!(check(none_left), "ksn-exhausted");
    let again = service.key_for_injection(&bdk.id, &terminal, "inj_2").await;
    assert!(again.is_ok(), "what was allotted stays");
    let same_base = new_key("other bdk", KeyScope::Dukpt);
    let id = office.agreed(service.generate_key(&office.ann, &same_base, None).await).await;
    let refused = service.generate_key(&office.ann, &same_base, Some(&id)).await;
    assert_eq!(check(refused), "ksn-base-taken");
    let approval = service.approval(&id).await.unwrap().approval;
    assert_eq!(approval.state.name(), "approved", "what was refused has not used it up");
}

#[tokio::test]
async fn racing_servers_never_allot_one_number_twice() {
    let office = Office::new().await;
    let ksn = NewKsn { base: vec![9; 4], first: 0, last: None };
    let new = KeyToMake { ksn: Some(ksn), ..new_key("bdk", KeyScope::Dukpt) };
    let bdk = office.key(&new).await.key;
    let terminal = office.terminal("T-1").await;
    let servers = [office.service.clone(), office.another()];
    let mut tasks = JoinSet::new();
    for at in 0..24 {
        // Each injection is asked for at both servers.
        let server = servers[at % 2].clone();
        let (key, terminal) = (bdk.id.clone(), terminal.clone());
        tasks.spawn(async move {
            let injection = format!("inj_{}", at / 2);
            let sent = server.key_for_injection(&key, &terminal, &injection).await.unwrap();
            let Some(Allotted::Aes(id)) = sent.ksn else { panic!("an AES key has AES numbers") };
            (at / 2, id.to_string(), sent.key.expose().to_vec())
        });
    }
    let mut all = tasks.join_all().await;
    all.sort();
    for pair in all.chunks(2) {
        assert_eq!(pair[0], pair[1], "both servers send the same");
    }
    let mut ids: Vec<_> = all.iter().map(|(_, id, _)| id).collect();
    ids.dedup();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 12);
}

#[tokio::test]
async fn a_key_whose_value_cannot_be_made_stays_pending_until_it_can() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let new = new_key("zone", KeyScope::Shared);
    let id = office.agreed(service.generate_key(&office.ann, &new, None).await).await;
    office.vault.away.store(true, Ordering::SeqCst);
    let key = done(service.generate_key(&office.ann, &new, Some(&id)).await).key;
    assert_eq!((key.state, &key.kcv, &key.block), (KeyState::Pending, &None, &None));
    let early = service.key_for_injection(&key.id, &terminal, "inj_1").await;
    assert_eq!(check(early), "key-not-active");
    assert_eq!(check(service.finish_pending_keys().await), "unavailable");
    office.vault.away.store(false, Ordering::SeqCst);
    assert_eq!(service.finish_pending_keys().await, Ok(1));
    assert_eq!(service.finish_pending_keys().await, Ok(0));
    let sent = service.key_for_injection(&key.id, &terminal, "inj_1").await.unwrap();
    let active = service.key(&key.id).await.unwrap().key;
    assert_eq!(active.kcv, Some(kcv("A", sent.key.expose())));
    let actions = office.actions("key.generate").await;
    assert_eq!(actions, ["key.generate", "key.activate"]);
}

#[tokio::test]
async fn a_retired_key_is_erased_with_what_was_made_of_it() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let key = office.key(&new_key("tmk", KeyScope::PerTerminal)).await.key;
    service.key_for_injection(&key.id, &terminal, "inj_1").await.unwrap();
    assert!(service.injected_value("inj_1").await.unwrap().unwrap().block.is_some());
    let id = office.agreed(service.retire_key(&office.ann, &key.id, None).await).await;
    let retired = done(service.retire_key(&office.ann, &key.id, Some(&id)).await);
    assert_eq!((retired.key.state, retired.key.block), (KeyState::Retired, None));
    let value = service.injected_value("inj_1").await.unwrap().unwrap();
    assert_eq!(value.block, None);
    assert_eq!(value.kcv.len(), 10, "the check value stays, for audits");
    for injection in ["inj_1", "inj_2"] {
        let refused = service.key_for_injection(&key.id, &terminal, injection).await;
        assert_eq!(check(refused), "key-not-active");
    }
    assert_eq!(check(service.retire_key(&office.ann, &key.id, None).await), "key-retired");
    let taken = service.generate_key(&office.ann, &new_key("tmk", KeyScope::Shared), None).await;
    assert_eq!(check(taken), "key-name-taken", "a name means one key for ever");
}

#[tokio::test]
async fn blocks_that_were_exchanged_or_altered_in_the_database_do_not_open() {
    let office = Office::new().await;
    let service = &office.service;
    let terminal = office.terminal("T-1").await;
    let one = office.key(&new_key("one", KeyScope::Shared)).await.key;
    let two = office.key(&new_key("two", KeyScope::Shared)).await.key;
    let block = one.block.unwrap();
    assert!(block.starts_with('D') && block.contains(&one.id), "the header names the row");
    let set = |id: String, block: String| async move {
        let sql = "UPDATE keys SET block = ?2 WHERE id = ?1";
        let values = [id.into(), block.into()];
        service.store().run_tx("tamper", move |tx| tx.execute(sql, &values)).await.unwrap();
    };
    set(two.id.clone(), block.clone()).await;
    let exchanged = service.key_for_injection(&two.id, &terminal, "inj_1").await;
    assert_eq!(check(exchanged), "internal");
    // An exportable key, by its header: the MAC is over it.
    set(one.id.clone(), block.replacen("K0AD00N", "K0AD00E", 1)).await;
    let altered = service.key_for_injection(&one.id, &terminal, "inj_2").await;
    assert_eq!(check(altered), "internal");
    set(one.id.clone(), block).await;
    assert!(service.key_for_injection(&one.id, &terminal, "inj_2").await.is_ok());
}

#[tokio::test]
async fn what_never_goes_to_a_terminal_does_not_go_whatever_the_rows_say() {
    let office = Office::new().await;
    let service = &office.service;
    let (one, two) = (office.terminal("T-1").await, office.terminal("T-2").await);
    let set = |sql: &'static str, id: String, value: String| async move {
        let values = [id.into(), value.into()];
        service.store().run_tx("tamper", move |tx| tx.execute(sql, &values)).await.unwrap();
    };
    // A base derivation key whose row says that terminals share it.
    let bdk = office.key(&new_key("bdk", KeyScope::Dukpt)).await.key;
    set("UPDATE keys SET scope = ?2 WHERE id = ?1", bdk.id.clone(), "shared".to_owned()).await;
    assert_eq!(check(service.key_for_injection(&bdk.id, &one, "inj_1").await), "internal");
    // A key-encrypting key in the place of a shared key.
    let shared = office.key(&new_key("shared", KeyScope::Shared)).await.key;
    let kek = office.kek_of("zone", "A", &[0x3C, 0xA5].repeat(8)).await.kek;
    let (id, block, kcv) = (kek.id.clone(), kek.block, kek.kcv);
    let fake = Key { id: id.clone(), name: "fake".to_owned(), block, kcv, ..shared };
    service.store().run_tx("tamper", move |tx| tx.insert_key(&fake)).await.unwrap();
    assert_eq!(check(service.key_for_injection(&id, &one, "inj_2").await), "internal");
    // The value of one terminal for another.
    let tmk = office.key(&new_key("tmk", KeyScope::PerTerminal)).await.key;
    service.key_for_injection(&tmk.id, &one, "inj_3").await.unwrap();
    let sql = "UPDATE key_values SET device_id = ?2 WHERE injection_id = ?1";
    set(sql, "inj_3".to_owned(), two.clone()).await;
    assert_eq!(check(service.key_for_injection(&tmk.id, &two, "inj_3").await), "internal");
    set(sql, "inj_3".to_owned(), one.clone()).await;
    service.key_for_injection(&tmk.id, &one, "inj_3").await.unwrap();
}
