use std::sync::atomic::Ordering;

use countersign_hsm::Vault;
use countersign_service::{Actor, NewKek};
use countersign_store::KekState;
use tokio::task::JoinSet;

use crate::office::{Office, check, done, kcv, new_kek, odd, pending, secret};

/// Three components of an AES key, and the whole.
fn parts() -> ([[u8; 32]; 3], [u8; 32]) {
    let part =
        |seed: u8| std::array::from_fn(|at| (at as u8).wrapping_mul(seed).wrapping_add(seed));
    let all: [[u8; 32]; 3] = [part(17), part(29), part(101)];
    (all, std::array::from_fn(|at| all[0][at] ^ all[1][at] ^ all[2][at]))
}

#[tokio::test]
async fn three_operators_make_a_key_and_its_components_are_erased() {
    let office = Office::new().await;
    let service = &office.service;
    let (parts, whole) = parts();
    let new = NewKek { kcv: Some(kcv("A", &whole)[..6].to_owned()), ..new_kek("zone", "A", 32) };
    let kek = office.kek(&new).await.kek;
    assert_eq!(kek.state, KekState::Collecting);
    let actors = [&office.ann, &office.bob, &office.cyd];
    for (at, (actor, part)) in actors.into_iter().zip(&parts).enumerate() {
        let number = u32::try_from(at).unwrap() + 1;
        let told = &kcv("A", part)[..6].to_lowercase();
        let entered = service.enter_component(actor, &kek.id, number, &secret(part), told).await;
        let record = entered.unwrap();
        assert_eq!(record.components.len(), at + 1);
        let erased = record.components.iter().all(|one| one.block.is_none());
        assert_eq!(erased, number == 3, "kept until the last one has come");
    }
    let active = service.kek(&kek.id).await.unwrap().kek;
    assert_eq!((active.state, active.kcv), (KekState::Active, Some(kcv("A", &whole))));
    assert!(active.block.is_some() && active.label.is_none());
    let expected = ["kek.begin", "kek.component", "kek.component", "kek.component", "kek.activate"];
    assert_eq!(office.actions("kek.begin").await, expected);
    let late = service.enter_component(&office.ann, &kek.id, 1, &secret(&parts[0]), "000000").await;
    assert_eq!(check(late), "kek-not-collecting");

    let id = office.agreed(service.retire_kek(&office.ann, &kek.id, None).await).await;
    let retired = done(service.retire_kek(&office.ann, &kek.id, Some(&id)).await).kek;
    assert_eq!((retired.state, retired.block), (KekState::Retired, None));
    assert_eq!(check(service.retire_kek(&office.ann, &kek.id, None).await), "kek-retired");
}

#[tokio::test]
async fn a_bad_component_is_refused_by_name_and_changes_nothing() {
    let office = Office::new().await;
    let service = &office.service;
    let (parts, _) = parts();
    let kek = office.kek(&new_kek("zone", "A", 32)).await.kek;
    let good = kcv("A", &parts[0]);
    let wrong = kcv("A", &parts[1]);
    let table: [(&str, u32, &[u8], &str); 9] = [
        ("component-kcv", 1, &parts[0], &wrong),
        ("component-kcv", 1, &parts[0], "12345"),
        ("component-kcv", 1, &parts[0], "zzzzzz"),
        ("component-length", 1, &parts[0][..16], &good),
        ("component-length", 1, &[], &good),
        ("component-weak", 1, &[0; 32], &good),
        ("component-weak", 1, &[0xA5; 32], &good),
        ("component-number", 0, &parts[0], &good),
        ("component-number", 4, &parts[0], &good),
    ];
    for (expected, number, part, told) in table {
        let refused =
            service.enter_component(&office.ann, &kek.id, number, &secret(part), told).await;
        assert_eq!(check(refused), expected);
        assert_eq!(service.kek(&kek.id).await.unwrap().components, []);
    }
    let enter = async |actor: &Actor, number, part: &[u8]| {
        service.enter_component(actor, &kek.id, number, &secret(part), &kcv("A", part)).await
    };
    assert_eq!(check(enter(&Actor::Console, 1, &parts[0]).await), "component-operator-needed");
    enter(&office.ann, 1, &parts[0]).await.unwrap();
    assert_eq!(check(enter(&office.ann, 2, &parts[1]).await), "component-operator");
    assert_eq!(check(enter(&office.bob, 1, &parts[0]).await), "component-taken");
    let nothing = service.enter_component(&office.ann, "kek_none", 1, &secret(&[1]), &good).await;
    assert_eq!(check(nothing), "not-found");
    assert_eq!(service.kek(&kek.id).await.unwrap().components.len(), 1);
    // All were audited, up to the bound on such rows; none with the component.
    let rows = office.audit().await;
    let refused = rows.iter().filter(|row| row.entry.action == "kek.component");
    assert_eq!(refused.filter(|row| row.entry.check.is_some()).count(), 13);
    let hex = data_encoding::HEXUPPER.encode(&parts[0]);
    let leaks = |text: &str| text.to_uppercase().contains(&hex[..16]);
    assert!(!rows.iter().any(|row| leaks(&row.entry.detail)));
}

#[tokio::test]
async fn components_of_another_key_show_at_the_last_one() {
    let office = Office::new().await;
    let service = &office.service;
    let (parts, whole) = parts();
    let new = NewKek { components: 2, kcv: Some(kcv("A", &whole)), ..new_kek("zone", "A", 32) };
    let kek = office.kek(&new).await.kek;
    let enter = async |actor, number, part: &[u8]| {
        service.enter_component(actor, &kek.id, number, &secret(part), &kcv("A", part)).await
    };
    enter(&office.ann, 1, &parts[0]).await.unwrap();
    assert_eq!(check(enter(&office.bob, 2, &parts[1]).await), "kek-kcv");
    assert_eq!(check(enter(&office.bob, 2, &parts[0]).await), "kek-weak", "they cancel out");
    assert_eq!(service.kek(&kek.id).await.unwrap().components.len(), 1);
    let rest: Vec<u8> = parts[1].iter().zip(&parts[2]).map(|(one, two)| one ^ two).collect();
    assert_eq!(enter(&office.bob, 2, &rest).await.unwrap().kek.state, KekState::Active);
}

#[tokio::test]
async fn tdes_components_have_odd_parity_and_so_has_the_key() {
    let office = Office::new().await;
    let service = &office.service;
    let kek = office.kek(&NewKek { components: 2, ..new_kek("zone", "T", 16) }).await.kek;
    let part = |seed: u8| -> Vec<u8> { (0..16).map(|at| odd(seed.wrapping_mul(at + 3))).collect() };
    let (one, two) = (part(37), part(91));
    let mut even = one.clone();
    even[3] ^= 1;
    let told = kcv("T", &one);
    let refused = service.enter_component(&office.ann, &kek.id, 1, &secret(&even), &told).await;
    assert_eq!(check(refused), "component-parity");
    let equal: Vec<u8> = one[..8].iter().chain(&one[..8]).copied().collect();
    let refused = service.enter_component(&office.ann, &kek.id, 1, &secret(&equal), &told).await;
    assert_eq!(check(refused), "component-weak");
    let weak = [&[0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE, 0x01, 0xFE], &one[8..]].concat();
    let refused = service.enter_component(&office.ann, &kek.id, 1, &secret(&weak), &told).await;
    assert_eq!(check(refused), "component-weak");
    for (actor, number, part) in [(&office.ann, 1, &one), (&office.bob, 2, &two)] {
        let told = kcv("T", part);
        service.enter_component(actor, &kek.id, number, &secret(part), &told).await.unwrap();
    }
    let whole: Vec<u8> = one.iter().zip(&two).map(|(one, two)| odd(one ^ two)).collect();
    let active = service.kek(&kek.id).await.unwrap().kek;
    assert_eq!((active.state, active.kcv), (KekState::Active, Some(kcv("T", &whole))));
}

#[tokio::test]
async fn what_cannot_be_a_key_encrypting_key_is_refused_by_name() {
    let office = Office::new().await;
    let service = &office.service;
    for (expected, new) in [
        ("name-format", new_kek("", "A", 32)),
        ("kek-algorithm", new_kek("k", "R", 32)),
        ("kek-length", new_kek("k", "A", 8)),
        ("kek-length", new_kek("k", "T", 32)),
        ("kek-components", NewKek { components: 1, ..new_kek("k", "A", 32) }),
        ("kek-components", NewKek { components: 4, ..new_kek("k", "A", 32) }),
        ("kek-kcv", NewKek { kcv: Some("12".to_owned()), ..new_kek("k", "A", 32) }),
    ] {
        assert_eq!(check(service.begin_kek(&office.ann, &new, None).await), expected);
    }
    office.kek(&new_kek("zone", "A", 16)).await;
    let taken = service.begin_kek(&office.ann, &new_kek("zone", "A", 16), None).await;
    assert_eq!(check(taken), "kek-name-taken");
    let token = Office::with_token().await;
    let tdes = token.service.begin_kek(&token.ann, &new_kek("k", "T", 16), None).await;
    assert_eq!(check(tdes), "mechanism-unsupported");
    pending(token.service.begin_kek(&token.ann, &new_kek("k", "A", 16), None).await);
}

#[tokio::test]
async fn racing_entries_make_one_key() {
    for round in 0..8 {
        let office = Office::new().await;
        let (parts, whole) = parts();
        let kek = office.kek(&new_kek("zone", "A", 32)).await.kek;
        let servers = [office.service.clone(), office.another(), office.another()];
        let mut tasks = JoinSet::new();
        for (at, actor) in [&office.ann, &office.bob, &office.cyd].into_iter().enumerate() {
            let (server, actor) = (servers[at].clone(), actor.clone());
            let (id, part) = (kek.id.clone(), parts[at]);
            let number = u32::try_from(at).unwrap() + 1;
            tasks.spawn(async move {
                let told = kcv("A", &part);
                server.enter_component(&actor, &id, number, &secret(&part), &told).await.map(|_| ())
            });
        }
        assert_eq!(tasks.join_all().await, [Ok(()), Ok(()), Ok(())], "round {round}");
        let active = office.service.kek(&kek.id).await.unwrap();
        assert_eq!(active.kek.kcv, Some(kcv("A", &whole)));
        assert!(active.components.iter().all(|one| one.block.is_none()));
    }
}

#[tokio::test]
async fn a_token_holds_the_key_and_is_swept_after_a_crash() {
    let office = Office::with_token().await;
    let service = &office.service;
    let labels = || {
        let held = office.vault.labels().unwrap();
        held.into_iter().map(|held| held.label).filter(|label| label.starts_with("kek_")).count()
    };
    let kek = office.kek_of("zone", "A", &parts().1).await;
    assert_eq!((kek.kek.state, kek.kek.block.is_none()), (KekState::Active, true));
    assert_eq!(labels(), 1);
    // The token is away in the moment when the key is to be deleted.
    let id = office.agreed(service.retire_kek(&office.ann, &kek.kek.id, None).await).await;
    office.vault.away.store(true, Ordering::SeqCst);
    done(service.retire_kek(&office.ann, &kek.kek.id, Some(&id)).await);
    assert_eq!(labels(), 1);
    office.vault.away.store(false, Ordering::SeqCst);
    assert_eq!(service.sweep_keks().await, Ok(1));
    assert_eq!((labels(), service.sweep_keks().await), (0, Ok(0)));
}

#[tokio::test]
async fn who_was_disabled_meanwhile_enters_nothing() {
    let office = Office::new().await;
    let service = &office.service;
    let kek = office.kek(&NewKek { components: 2, ..new_kek("zone", "A", 16) }).await.kek;
    // The request was under way when Cyd was disabled.
    service.disable_operator(&Actor::Console, "cyd").await.unwrap();
    let part: Vec<u8> = (1..=16).collect();
    let told = kcv("A", &part);
    let entered = service.enter_component(&office.cyd, &kek.id, 1, &secret(&part), &told).await;
    assert_eq!(check(entered), "operator-disabled");
    assert_eq!(service.kek(&kek.id).await.unwrap().components, []);
    let entered = service.enter_component(&office.bob, &kek.id, 1, &secret(&part), &told).await;
    assert_eq!(entered.unwrap().components.len(), 1);
}
