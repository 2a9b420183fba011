//! Security devices, payers' phones, pushes (D2–D5).

use countersign_payment::State;
use countersign_store::{
    BOUND_ACCOUNTS_MAX, Device, DeviceKind, DeviceStatus, IdKind, PHONE_PROOFS_SWEEP_MAX,
    PHONES_PER_ACCOUNT_MAX, Phone, PhoneState, Push, SESSION_KEY_LEN, SignMethod, SignerRow, Store,
    StoreError, Tx,
};
use tokio::task::JoinSet;

use crate::fixture::{Db, at, device, id};
use crate::ledger::{acc, account, funded};
use crate::payments::{pay, pending, settle};

fn sdv(name: &str) -> String {
    id(IdKind::SecurityDevice, name)
}

fn phn(name: &str) -> String {
    id(IdKind::Phone, name)
}

fn hash(byte: u8) -> [u8; 32] {
    [byte; 32]
}

fn insert_device(tx: &mut Tx<'_>, name: &str) -> Result<(), StoreError> {
    let kind = DeviceKind::SecurityDevice;
    tx.insert_device(&Device { id: sdv(name), kind, ..device(name) })
}

fn row(name: &str, method: SignMethod) -> SignerRow {
    let ocra = method == SignMethod::Ocra;
    SignerRow {
        device_id: sdv(name),
        method,
        label: format!("key of {name}"),
        ocra_suite: ocra.then(|| "OCRA-1:HOTP-SHA256-8:QH64".to_owned()),
        ocra_key: ocra.then(|| "D0112 block".to_owned()),
        joint_key: (method == SignMethod::Joint).then(|| "D0112 joint".to_owned()),
        failures: 0,
        alerted_at: None,
    }
}

async fn signer(db: &Db, name: &'static str, method: SignMethod) {
    db.tx(move |tx| {
        insert_device(tx, name)?;
        tx.insert_signer(&row(name, method))
    })
    .await;
}

fn phone(name: &str) -> Phone {
    Phone {
        id: phn(name),
        label: format!("phone of {name}"),
        code_expires_at: Some(at(500)),
        created_at: at(1),
        enrolled_at: None,
        seen_at: None,
        revoked_at: None,
        revoke_reason: None,
        session_key: None,
    }
}

/// A phone with this code.
async fn allowed(db: &Db, name: &'static str, code: u8) {
    db.tx(move |tx| tx.insert_phone(&phone(name), &hash(code))).await;
}

fn push(name: &str, phone: &str, payment: &str) -> Push {
    Push {
        id: id(IdKind::Push, name),
        phone_id: phn(phone),
        payment_id: pay(payment),
        created_at: at(10),
        expires_at: at(1000),
        delivered_at: None,
    }
}

pub(crate) async fn security_devices_are_bound_to_accounts(db: Db) {
    funded(&db, &["a", "b"]).await;
    signer(&db, "K1", SignMethod::Pki).await;
    signer(&db, "K2", SignMethod::Ocra).await;

    let number = account("b", None).number;
    db.tx(move |tx| tx.bind_signer(&sdv("K1"), &[acc("a"), number.clone(), acc("a")])).await;
    let by_id = db.tx(|tx| tx.signer_by_id(&sdv("K1"))).await.unwrap();
    assert_eq!(db.tx(|tx| tx.signer_by_serial("K1")).await.unwrap(), by_id);
    assert!(by_id.serves(&acc("a")) && by_id.serves(&acc("b")) && !by_id.serves("acc_x"));
    assert_eq!((by_id.accounts.len(), by_id.signer), (2, row("K1", SignMethod::Pki)));
    let other = db.tx(|tx| tx.signer_by_serial("K2")).await.unwrap();
    assert_eq!((other.signer, other.accounts), (row("K2", SignMethod::Ocra), vec![]));
    assert_eq!(db.tx(|tx| tx.signer_by_serial("K3")).await, None);
    let of_a = db.tx(|tx| tx.signers_of_account(&acc("a"))).await;
    assert_eq!(of_a.iter().map(|it| it.signer.device_id.clone()).collect::<Vec<_>>(), [sdv("K1")]);

    assert!(db.tx(|tx| tx.unbind_signer(&sdv("K1"), &acc("a"))).await);
    assert!(!db.tx(|tx| tx.unbind_signer(&sdv("K1"), &acc("a"))).await, "it had it no more");
    assert!(!db.tx(|tx| tx.signer_by_id(&sdv("K1"))).await.unwrap().serves(&acc("a")));

    // A device of another kind is none, nor is one without its row.
    db.reader("R1").await;
    db.tx(|tx| insert_device(tx, "K4")).await;
    assert_eq!(db.tx(|tx| tx.signer_by_serial("R1")).await, None);
    assert_eq!(db.tx(|tx| tx.signer_by_serial("K4")).await, None);
    let first = db.tx(|tx| tx.signers_page(None, 1)).await;
    let cursor = first.next.clone().unwrap();
    let rest = db.tx(move |tx| tx.signers_page(Some(&cursor), 1)).await;
    assert_eq!((first.items.len(), rest.items.len(), rest.next), (1, 1, None));
    assert_ne!(first.items, rest.items);
}

pub(crate) async fn bindings_that_do_not_fit_are_refused(db: Db) {
    signer(&db, "K1", SignMethod::Pki).await;
    allowed(&db, "p", 1).await;
    let absent = StoreError::NotFound { what: "account" };
    let unknown = || [acc("nobody")];
    assert_eq!(db.refused(move |tx| tx.bind_signer(&sdv("K1"), &unknown())).await, absent);
    assert_eq!(db.refused(move |tx| tx.bind_phone(&phn("p"), &unknown())).await, absent);

    let names: Vec<String> = (0..=BOUND_ACCOUNTS_MAX).map(|n| format!("n{n}")).collect();
    let accounts: Vec<String> = names.iter().map(|name| acc(name)).collect();
    db.tx(move |tx| names.iter().try_for_each(|name| tx.insert_account(&account(name, None))))
        .await;
    let too_many = StoreError::Refused { check: "bound-accounts" };
    let all = accounts.clone();
    assert_eq!(db.refused(move |tx| tx.bind_signer(&sdv("K1"), &all)).await, too_many);
    let (most, last) = accounts.split_at(BOUND_ACCOUNTS_MAX);
    let (most, last) = (most.to_vec(), last.to_vec());
    let (most_of_phone, last_of_phone) = (most.clone(), last.clone());
    db.tx(move |tx| tx.bind_signer(&sdv("K1"), &most)).await;
    assert_eq!(db.refused(move |tx| tx.bind_signer(&sdv("K1"), &last)).await, too_many);
    db.tx(move |tx| tx.bind_phone(&phn("p"), &most_of_phone)).await;
    assert_eq!(db.refused(move |tx| tx.bind_phone(&phn("p"), &last_of_phone)).await, too_many);
    let kept = db.tx(|tx| tx.signer_by_id(&sdv("K1"))).await.unwrap().accounts.len();
    assert_eq!(kept, BOUND_ACCOUNTS_MAX, "what was refused is not there");

    // Nor may an account have more phones than are told of a payment.
    let code = |n: usize| hash(u8::try_from(100 + n).unwrap());
    db.tx(move |tx| {
        for n in 1..PHONES_PER_ACCOUNT_MAX {
            let name = format!("more{n}");
            tx.insert_phone(&phone(&name), &code(n))?;
            tx.bind_phone(&phn(&name), &[acc("n0")])?;
        }
        tx.insert_phone(&phone("one too many"), &hash(99))
    })
    .await;
    let one_too_many = |tx: &mut Tx<'_>| tx.bind_phone(&phn("one too many"), &[acc("n0")]);
    let full = StoreError::Refused { check: "account-phones" };
    assert_eq!(db.refused(one_too_many).await, full);
    // A revoked one makes room.
    db.tx(|tx| tx.revoke_phone(&phn("more1"), "lost", at(5))).await;
    db.tx(one_too_many).await;
}

pub(crate) async fn keys_and_failures_of_a_device_are_changed(db: Db) {
    signer(&db, "K1", SignMethod::Pki).await;
    signer(&db, "K2", SignMethod::Ocra).await;
    let twice = db.refused(|tx| tx.insert_signer(&row("K1", SignMethod::Pki))).await;
    let constraint = "security_devices_device_id_key".to_owned();
    assert_eq!(twice, StoreError::Conflict { constraint });
    assert!(db.tx(|tx| tx.erase_ocra_key(&sdv("K2"))).await);
    assert!(!db.tx(|tx| tx.erase_ocra_key(&sdv("K2"))).await, "it has none any more");
    assert_eq!(db.tx(|tx| tx.signer_by_serial("K2")).await.unwrap().signer.ocra_key, None);
    db.tx(|tx| tx.set_ocra_key(&sdv("K2"), "OCRA-1", "another block")).await;
    let key = db.tx(|tx| tx.signer_by_serial("K2")).await.unwrap().signer.ocra_key;
    assert_eq!(key.as_deref(), Some("another block"));
    let none = StoreError::NotFound { what: "security device" };
    let of_pki = db.refused(|tx| tx.set_ocra_key(&sdv("K1"), "OCRA-1", "block")).await;
    assert_eq!(of_pki, none, "a device that signs has no shared key");
    let unknown = db.refused(|tx| tx.forgive_signer("sdv_x")).await;
    assert_eq!(unknown, none);
    db.tx(|tx| tx.block_device(&sdv("K1"), "lost", at(3))).await;
    let blocked = db.tx(|tx| tx.signer_by_serial("K1")).await.unwrap().device;
    assert_eq!(blocked.device.status, DeviceStatus::Blocked);
    assert_eq!(blocked.blocked(at(4)), Some("lost"));
}

pub(crate) async fn a_phone_enrols_once_per_code(db: Db) {
    funded(&db, &["a"]).await;
    allowed(&db, "p", 1).await;
    db.tx(|tx| tx.bind_phone(&phn("p"), &[acc("a")])).await;
    let found = db.tx(|tx| tx.phone_by_code(&hash(1))).await.unwrap();
    assert_eq!((found.state(), found.serves(&acc("a"))), (PhoneState::Allowed, true));
    assert_eq!(db.tx(|tx| tx.phone_by_code(&hash(2))).await, None);

    let used = StoreError::Refused { check: "enrolment-code-used" };
    let wrong =
        db.refused(|tx| tx.use_phone_code(&phn("p"), &hash(2), &hash(11), None, at(5))).await;
    assert_eq!(wrong, used);
    db.tx(|tx| tx.use_phone_code(&phn("p"), &hash(1), &hash(11), None, at(5))).await;
    let again =
        db.refused(|tx| tx.use_phone_code(&phn("p"), &hash(1), &hash(12), None, at(6))).await;
    assert_eq!(again, used);
    assert_eq!(db.tx(|tx| tx.phone_by_code(&hash(1))).await, None);
    let owner = db.tx(|tx| tx.phone_of_token(&hash(11))).await.unwrap();
    assert_eq!((owner.phone.id.clone(), owner.state()), (phn("p"), PhoneState::Enrolled));
    assert_eq!((owner.phone.enrolled_at, owner.phone.code_expires_at), (Some(at(5)), None));
    assert_eq!(db.tx(|tx| tx.phone_of_token(&hash(12))).await, None);
    db.tx(|tx| tx.note_phone(&phn("p"), at(7))).await;
    let seen = db.tx(|tx| tx.phone_by_id(&phn("p"))).await.unwrap().phone.seen_at;
    assert_eq!(seen, Some(at(7)));

    // Another code: the token holds until it is used.
    db.tx(|tx| tx.renew_phone_code(&phn("p"), &hash(3), at(600))).await;
    assert!(db.tx(|tx| tx.phone_of_token(&hash(11))).await.is_some());
    db.tx(|tx| tx.use_phone_code(&phn("p"), &hash(3), &hash(13), None, at(8))).await;
    assert_eq!(db.tx(|tx| tx.phone_of_token(&hash(11))).await, None);
    assert!(db.tx(|tx| tx.phone_of_token(&hash(13))).await.is_some());

    // With a key: it stays beside the token, and goes with it.
    db.tx(|tx| tx.renew_phone_code(&phn("p"), &hash(6), at(600))).await;
    let (one, other) = ([4; SESSION_KEY_LEN], [5; SESSION_KEY_LEN]);
    db.tx(move |tx| tx.use_phone_code(&phn("p"), &hash(6), &hash(14), Some(&one), at(8))).await;
    let key_of = async |token| db.tx(move |tx| tx.phone_of_token(&hash(token))).await.unwrap();
    assert_eq!(key_of(14).await.phone.session_key, Some(one));
    db.tx(|tx| tx.renew_phone_code(&phn("p"), &hash(7), at(600))).await;
    assert_eq!(key_of(14).await.phone.session_key, Some(one), "until the code is used");
    db.tx(move |tx| tx.use_phone_code(&phn("p"), &hash(7), &hash(15), Some(&other), at(8))).await;
    assert_eq!(key_of(15).await.phone.session_key, Some(other));
    db.tx(|tx| tx.renew_phone_code(&phn("p"), &hash(8), at(600))).await;
    db.tx(|tx| tx.use_phone_code(&phn("p"), &hash(8), &hash(13), None, at(8))).await;
    assert_eq!(key_of(13).await.phone.session_key, None, "a program has none");

    // Revoked: no token, no code, no further one; the first reason stays.
    db.tx(|tx| tx.renew_phone_code(&phn("p"), &hash(4), at(600))).await;
    db.tx(|tx| tx.revoke_phone(&phn("p"), "lost", at(9))).await;
    db.tx(|tx| tx.revoke_phone(&phn("p"), "found", at(10))).await;
    assert_eq!(db.tx(|tx| tx.phone_of_token(&hash(13))).await, None);
    assert_eq!(db.tx(|tx| tx.phone_by_code(&hash(4))).await, None);
    let revoked = db.tx(|tx| tx.phone_by_id(&phn("p"))).await.unwrap();
    assert_eq!(revoked.state(), PhoneState::Revoked);
    assert_eq!(revoked.phone.revoke_reason.as_deref(), Some("lost"));
    let renewed = db.refused(|tx| tx.renew_phone_code(&phn("p"), &hash(5), at(600))).await;
    assert_eq!(renewed, StoreError::NotFound { what: "phone" });
    assert!(db.tx(|tx| tx.phones_of_account(&acc("a"))).await.is_empty(), "nobody is told");
    let page = db.tx(|tx| tx.phones_page(None, 10)).await;
    assert_eq!((page.items, page.next), (vec![revoked], None));
    assert!(db.tx(|tx| tx.unbind_phone(&phn("p"), &acc("a"))).await);
    assert!(!db.tx(|tx| tx.unbind_phone(&phn("p"), &acc("a"))).await);
}

pub(crate) async fn racing_phones_use_a_code_once(db: Db) {
    allowed(&db, "p", 1).await;
    let mut racing = JoinSet::new();
    for n in 0..8 {
        let store = db.store.clone();
        racing.spawn(async move {
            let used = move |tx: &mut Tx<'_>| {
                tx.use_phone_code(&phn("p"), &hash(1), &hash(100 + n), None, at(5))
            };
            store.run_tx("use_code", used).await.is_ok()
        });
    }
    let won = racing.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

pub(crate) async fn a_revoked_phone_has_no_key(db: Db) {
    allowed(&db, "p", 1).await;
    let key = [4; SESSION_KEY_LEN];
    db.tx(move |tx| tx.use_phone_code(&phn("p"), &hash(1), &hash(11), Some(&key), at(5))).await;
    db.tx(|tx| tx.revoke_phone(&phn("p"), "lost", at(9))).await;
    assert_eq!(db.tx(|tx| tx.phone_by_id(&phn("p"))).await.unwrap().phone.session_key, None);
}

/// A key of another length is no key: the row is damaged, and nobody is let in.
pub(crate) async fn a_damaged_key_lets_nobody_in(db: Db) {
    allowed(&db, "p", 1).await;
    let key = [4; SESSION_KEY_LEN];
    db.tx(move |tx| tx.use_phone_code(&phn("p"), &hash(1), &hash(11), Some(&key), at(5))).await;
    db.tamper("UPDATE phones SET session_key = x'04' WHERE session_key IS NOT NULL").await;
    let damaged = db.refused(|tx| tx.phone_of_token(&hash(11)).map(|_| ())).await;
    assert!(matches!(damaged, StoreError::Corrupt { .. }), "{damaged:?}");
}

pub(crate) async fn a_proof_counts_once(db: Db) {
    assert!(db.tx(|tx| tx.use_phone_proof(&hash(1), at(100))).await);
    assert!(!db.tx(|tx| tx.use_phone_proof(&hash(1), at(200))).await);
    assert!(db.tx(|tx| tx.use_phone_proof(&hash(2), at(150))).await);
    shown_at_once(std::slice::from_ref(&db.store)).await;
    // What may still be shown is kept, and a proof that was swept would be too old anyway.
    assert_eq!(db.tx(|tx| tx.sweep_phone_proofs(at(99))).await, 0);
    assert_eq!(db.tx(|tx| tx.sweep_phone_proofs(at(150))).await, 2);
    assert!(!db.tx(|tx| tx.use_phone_proof(&hash(3), at(300))).await);
    assert!(db.tx(|tx| tx.use_phone_proof(&hash(1), at(400))).await);
    // A bounded number at a time.
    db.tx(|tx| {
        for n in 0..=PHONE_PROOFS_SWEEP_MAX {
            let mut hash = [7; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            tx.use_phone_proof(&hash, at(20))?;
        }
        Ok(())
    })
    .await;
    let most = u64::from(PHONE_PROOFS_SWEEP_MAX);
    assert_eq!(db.tx(|tx| tx.sweep_phone_proofs(at(21))).await, most);
    assert_eq!(db.tx(|tx| tx.sweep_phone_proofs(at(21))).await, 1);
}

/// Shows one proof many times at once; it counts once.
async fn shown_at_once(servers: &[Store]) {
    let mut racing = JoinSet::new();
    for store in servers.iter().cycle().take(8) {
        let store = store.clone();
        racing.spawn(async move {
            let used = |tx: &mut Tx<'_>| tx.use_phone_proof(&hash(3), at(300));
            store.run_snapshot::<_, StoreError, _>("use_proof", used).await.unwrap()
        });
    }
    let won = racing.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
}

pub(crate) async fn two_servers_take_a_proof_once(db: Db) {
    shown_at_once(&[db.store.clone(), db.open().await.unwrap()]).await;
}

pub(crate) async fn pushes_wait_until_they_are_settled(db: Db) {
    funded(&db, &["a", "b"]).await;
    for (name, code) in [("p", 1), ("q", 2)] {
        allowed(&db, name, code).await;
    }
    db.tx(|tx| {
        tx.bind_phone(&phn("p"), &[acc("a")])?;
        tx.bind_phone(&phn("q"), &[acc("a"), acc("b")])
    })
    .await;
    pending(&db, "one", "a", "b").await;
    pending(&db, "two", "b", "a").await;
    let made = [push("1", "p", "one"), push("2", "q", "one"), push("3", "q", "two")];
    db.tx(move |tx| tx.insert_pushes(&made)).await;
    let twice = db.refused(|tx| tx.insert_pushes(&[push("4", "p", "one")])).await;
    let constraint = "pushes_phone_id_payment_id_key".to_owned();
    assert_eq!(twice, StoreError::Conflict { constraint });

    let waiting = async |phone: &'static str, now| {
        let pushes = db.tx(move |tx| tx.waiting_pushes(&phn(phone), at(now), 100)).await;
        pushes.into_iter().map(|push| push.payment_id).collect::<Vec<_>>()
    };
    assert_eq!(waiting("p", 20).await, [pay("one")]);
    assert_eq!(waiting("q", 20).await.len(), 2);
    assert!(waiting("q", 1000).await.is_empty(), "they have expired");
    // Many that nobody answers hide none that was made after them.
    let all = db.tx(|tx| tx.waiting_pushes(&phn("q"), at(20), 100)).await;
    assert!(all[0].id < all[1].id, "oldest first");
    assert_eq!(db.tx(|tx| tx.waiting_pushes(&phn("q"), at(20), 1)).await, all[1..]);

    // Delivered, and asked for again: it is told again; the first time stays.
    let first = id(IdKind::Push, "1");
    db.tx(move |tx| {
        // Nobody marks another phone's.
        tx.mark_delivered(&phn("q"), std::slice::from_ref(&first), at(20))?;
        tx.mark_delivered(&phn("p"), std::slice::from_ref(&first), at(21))?;
        tx.mark_delivered(&phn("p"), std::slice::from_ref(&first), at(22))
    })
    .await;
    assert_eq!(waiting("p", 23).await, [pay("one")]);
    let all = db.tx(|tx| tx.pushes_of_payment(&pay("one"))).await;
    let delivered: Vec<_> = all.iter().map(|it| (it.phone_id.clone(), it.delivered_at)).collect();
    assert!(delivered.contains(&(phn("p"), Some(at(21)))), "{delivered:?}");
    assert!(delivered.contains(&(phn("q"), None)), "{delivered:?}");

    // Settled, or the account taken away: nothing waits.
    settle(&db, "one").await;
    assert!(waiting("p", 23).await.is_empty());
    assert_eq!(waiting("q", 23).await, [pay("two")]);
    db.tx(|tx| tx.unbind_phone(&phn("q"), &acc("b"))).await;
    assert!(waiting("q", 23).await.is_empty());
}

pub(crate) async fn a_phone_sees_payments_of_its_accounts_only(db: Db) {
    funded(&db, &["a", "b"]).await;
    allowed(&db, "p", 1).await;
    db.tx(|tx| tx.bind_phone(&phn("p"), &[acc("a")])).await;
    pending(&db, "own", "a", "b").await;
    pending(&db, "late", "a", "b").await;
    pending(&db, "foreign", "b", "a").await;
    db.tx(|tx| tx.insert_pushes(&[push("1", "p", "own")])).await;

    let seen = db.tx(|tx| tx.phone_payments(&phn("p"), at(20), 100)).await;
    let mut ids: Vec<_> = seen.iter().map(|seen| seen.id.clone()).collect();
    let mut wanted = [pay("own"), pay("late")];
    ids.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(ids, wanted, "with a push or without");
    assert_eq!(db.tx(|tx| tx.phone_payments(&phn("p"), at(20), 1)).await, seen[1..]);
    let one = db.tx(|tx| tx.phone_payment(&phn("p"), &pay("own"), at(20))).await.unwrap();
    assert_eq!((one.state, one.request), (State::Pending, b"request of own".to_vec()));
    let push_id = id(IdKind::Push, "1");
    assert_eq!(one.push_id, Some(push_id.clone()));
    let by_push = db.tx(move |tx| tx.phone_payment(&phn("p"), &push_id, at(20))).await;
    assert_eq!(by_push.unwrap().id, pay("own"));
    let foreign = db.tx(|tx| tx.phone_payment(&phn("p"), &pay("foreign"), at(20))).await;
    assert_eq!(foreign, None);
    let late = db.tx(|tx| tx.phone_payment(&phn("p"), &pay("late"), at(1000))).await.unwrap();
    assert_eq!(late.state, State::Expired, "whoever has noted it or not");
    assert!(db.tx(|tx| tx.phone_payments(&phn("p"), at(1000), 100)).await.is_empty());
    settle(&db, "own").await;
    let settled = db.tx(|tx| tx.phone_payment(&phn("p"), &pay("own"), at(1000))).await.unwrap();
    assert_eq!(settled.state, State::Cancelled, "it stays in sight");
}
