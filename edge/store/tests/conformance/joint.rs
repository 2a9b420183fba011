//! Signing cards with joint passwords (B3–B5, B8): their shared keys, and what they committed to.

use countersign_store::{
    AnswerOutcome, Authorisation, Device, DeviceKind, IdKind, Outcomes, SignMethod, SignerRow,
    StoreError,
};

use crate::fixture::{Db, at, device, id};
use crate::ledger::{acc, funded, in_order};
use crate::payments::{answer, executed, key, pay, payer, pending};

const BLOCK: &str = "D0112 shared";

fn sdv(name: &str) -> String {
    id(IdKind::SecurityDevice, name)
}

/// A card for one account.
async fn card(db: &Db, name: &'static str) {
    db.tx(move |tx| {
        let kind = DeviceKind::SecurityDevice;
        tx.insert_device(&Device { id: sdv(name), kind, ..device(name) })?;
        tx.insert_signer(&SignerRow {
            device_id: sdv(name),
            method: SignMethod::Joint,
            label: format!("card of {name}"),
            ocra_suite: None,
            ocra_key: None,
            joint_key: Some(BLOCK.to_owned()),
            failures: 0,
            alerted_at: None,
        })?;
        tx.bind_signer(&sdv(name), &[acc(name)])
    })
    .await;
}

async fn shared(db: &Db, name: &'static str) -> Option<String> {
    db.tx(move |tx| tx.signer_by_id(&sdv(name))).await.unwrap().signer.joint_key
}

pub(crate) async fn a_cards_shared_key_is_given_replaced_and_erased(db: Db) {
    funded(&db, &["a", "b"]).await;
    card(&db, "a").await;
    payer(&db, "b").await;
    let found = db.tx(|tx| tx.signer_by_serial("a")).await.unwrap();
    assert_eq!(found.signer.method, SignMethod::Joint);
    assert_eq!(found.signer.joint_key.as_deref(), Some(BLOCK));
    // What is decided from is read with it.
    pending(&db, "p1", "a", "b").await;
    let locked = db.tx(|tx| tx.lock_answers(&[key("p1", "x", "a")])).await;
    assert_eq!(locked.contexts[0].device.as_ref(), Some(&found));

    db.tx(|tx| tx.set_joint_key(&sdv("a"), "another block")).await;
    assert_eq!(shared(&db, "a").await.as_deref(), Some("another block"));
    assert!(db.tx(|tx| tx.erase_joint_key(&sdv("a"))).await);
    assert!(!db.tx(|tx| tx.erase_joint_key(&sdv("a"))).await, "it has none any more");
    assert_eq!(shared(&db, "a").await, None);
    db.tx(|tx| tx.set_joint_key(&sdv("a"), BLOCK)).await;
    assert_eq!(shared(&db, "a").await.as_deref(), Some(BLOCK));

    // Only a card has such a key, and it has no other one.
    let none = StoreError::NotFound { what: "security device" };
    assert_eq!(db.refused(|tx| tx.set_joint_key(&sdv("b"), BLOCK)).await, none);
    assert_eq!(db.refused(|tx| tx.set_joint_key(&sdv("nobody"), BLOCK)).await, none);
    assert_eq!(db.refused(|tx| tx.set_ocra_key(&sdv("a"), "OCRA-1", "block")).await, none);
    assert!(!db.tx(|tx| tx.erase_joint_key(&sdv("b"))).await);
    assert_eq!(shared(&db, "b").await, None);
}

/// As any answer, with what the signature covers beside it.
fn brought(payment: &str, name: &str, outcome: AnswerOutcome) -> Authorisation {
    Authorisation {
        method: Some(SignMethod::Joint),
        phone_id: None,
        commitment: Some(vec![3; 97]),
        ..answer(payment, name, outcome)
    }
}

pub(crate) async fn a_commitment_is_kept_with_the_answer(db: Db) {
    funded(&db, &["a", "b"]).await;
    card(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    let done = db.store.run_locked::<_, StoreError, _>("batch", |tx| {
        let mut locked = tx.lock_answers(&[key("p1", "p1", "a")])?;
        let mut outcomes = executed(&mut locked, &["p1"]);
        outcomes.authorisations = vec![
            brought("p1", "p1", AnswerOutcome::Accepted),
            brought("p1", "wrong", AnswerOutcome::Refused),
        ];
        tx.store_outcomes(&outcomes)
    });
    done.await.unwrap();
    let stored = db.tx(|tx| tx.authorisations(&pay("p1"))).await;
    let good = brought("p1", "p1", AnswerOutcome::Accepted);
    let wrong = brought("p1", "wrong", AnswerOutcome::Refused);
    assert!(stored.len() == 2 && stored.contains(&good) && stored.contains(&wrong), "{stored:?}");
    let again = db.tx(|tx| tx.lock_answers(&[key("p1", "wrong", "a"), key("p1", "p1", "a")])).await;
    let priors: Vec<_> = again.contexts.into_iter().map(|context| context.prior).collect();
    assert_eq!(priors, [Some(wrong), Some(good)]);
    // It is bounded as everything is that is stored.
    let store = async |len| {
        let long = Authorisation {
            commitment: Some(vec![0; len]),
            ..brought("p1", "long", AnswerOutcome::Refused)
        };
        let outcomes = Outcomes { authorisations: vec![long], ..Outcomes::default() };
        let stored =
            db.store.run_tx::<_, StoreError, _>("test", move |tx| tx.store_outcomes(&outcomes));
        stored.await
    };
    assert_eq!(store(1025).await, Err(StoreError::Refused { check: "text-too-long" }));
    assert_eq!(store(1024).await, Ok(()));
    in_order(&db).await;
}

/// An answer is never accepted under a key after it was acknowledged that the key is no more, or
/// another one.
pub(crate) async fn a_new_shared_key_waits_for_answers_being_decided(db: Db) {
    funded(&db, &["a", "b"]).await;
    card(&db, "a").await;
    for (name, erase) in [("p1", false), ("p2", true)] {
        pending(&db, name, "a", "b").await;
        let (locked, is_locked) = std::sync::mpsc::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        let store = db.store.clone();
        let deciding = tokio::spawn(async move {
            let done = store.run_locked::<_, StoreError, _>("decide", move |tx| {
                let mut found = tx.lock_answers(&[key(name, name, "a")])?;
                locked.send(()).unwrap();
                may_go_on.lock().unwrap().recv().unwrap();
                tx.store_outcomes(&executed(&mut found, &[name]))
            });
            done.await
        });
        tokio::task::spawn_blocking(move || is_locked.recv().unwrap()).await.unwrap();
        let store = db.store.clone();
        let changing = tokio::spawn(async move {
            let done = store.run_tx::<_, StoreError, _>("change", move |tx| match erase {
                true => tx.erase_joint_key(&sdv("a")).map(|_| ()),
                false => tx.set_joint_key(&sdv("a"), "another"),
            });
            done.await
        });
        let waits = async {
            let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            while db.tx(move |tx| tx.query_one(sql, &[])).await.unwrap().int(0) != Ok(1) {}
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), waits).await.expect("it waits");
        assert!(!changing.is_finished() && !deciding.is_finished());
        go_on.send(()).unwrap();
        deciding.await.unwrap().unwrap();
        changing.await.unwrap().unwrap();
        let after = (!erase).then(|| "another".to_owned());
        assert_eq!(shared(&db, "a").await, after);
    }
    in_order(&db).await;
}

/// Devices and answers from before the step have neither.
pub(crate) async fn a_database_from_before_cards_is_brought_up_to_date(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    db.tx(|tx| {
        let authorisations = vec![answer("p1", "old", AnswerOutcome::Refused)];
        tx.store_outcomes(&Outcomes { authorisations, ..Outcomes::default() })
    })
    .await;
    let device = db.tx(|tx| tx.signer_by_serial("a")).await.unwrap();
    db.tamper(crate::opening::WITHOUT_WALLETS).await;
    db.tamper(
        "ALTER TABLE security_devices DROP COLUMN joint_key;
         ALTER TABLE payment_authorisations DROP COLUMN commitment;
         DROP TABLE server_keys;
         UPDATE countersign_schema SET version = 5",
    )
    .await;
    let store = db.open().await.unwrap();
    let kept = store.read::<_, StoreError, _>("test", |tx| {
        Ok((tx.signer_by_serial("a")?, tx.authorisations(&pay("p1"))?))
    });
    let (kept_device, kept_answers) = kept.await.unwrap();
    assert_eq!(kept_device, Some(device));
    assert_eq!(kept_answers, [answer("p1", "old", AnswerOutcome::Refused)]);
    assert_eq!((at(20), kept_answers[0].commitment.clone()), (kept_answers[0].at, None));
    // A card is enrolled there now.
    card(&db, "b").await;
    assert_eq!(shared(&db, "b").await.as_deref(), Some(BLOCK));
}

/// The first server's key is the database's, whoever comes with another.
pub(crate) async fn a_servers_key_is_kept_once(db: Db) {
    assert_eq!(db.tx(|tx| tx.server_key("encryption")).await, None);
    let kept = db.tx(|tx| tx.keep_server_key("encryption", &[1; 32], at(1))).await;
    assert_eq!(kept, [1; 32]);
    let kept = db.tx(|tx| tx.keep_server_key("encryption", &[2; 32], at(2))).await;
    assert_eq!(kept, [1; 32], "another server's key does not take its place");
    assert_eq!(db.tx(|tx| tx.server_key("encryption")).await.as_deref(), Some(&[1; 32][..]));
    assert_eq!(db.tx(|tx| tx.server_key("other")).await, None);
}
