//! Batches of answers to payments: what they are decided from, and what is stored (D5–D7).

use countersign_payment::State;
use countersign_store::{
    ANSWERS_MAX, AccountFreeze, AccountStatus, AnswerKey, AnswerOutcome, Authorisation,
    DeviceStatus, IdKind, Outcomes, PaymentChange, PaymentRecord, Posting, PostingKind,
    SignerChange, StoreError, ToVerify,
};
use tokio::task::JoinSet;

use crate::fixture::{Backend, Db, at, id};
use crate::ledger::{acc, funded, in_order};
use crate::payments::{answer, change, execute, executed, key, pay, payer, payment, pending};

pub(crate) async fn a_batch_is_read_as_it_stands(db: Db) {
    funded(&db, &["a", "b", "c"]).await;
    payer(&db, "a").await;
    payer(&db, "b").await;
    pending(&db, "p1", "a", "c").await;
    pending(&db, "p2", "b", "c").await;
    pending(&db, "p3", "a", "b").await;
    execute(&db.store, "p3", |_| ()).await.unwrap();
    let keys = || {
        [
            key("p2", "x", "b"),
            key("p1", "y", "a"),
            // Another payer's phone and device.
            key("p1", "z", "b"),
            // The same answer as before.
            key("p3", "p3", "a"),
            // Neither payment nor device nor phone.
            key("p9", "w", "c"),
            AnswerKey { device_serial: None, ..key("p2", "v", "b") },
            // Brought by no phone.
            AnswerKey { phone_id: None, ..key("p1", "u", "a") },
        ]
    };
    let found = db.store.run_locked::<_, StoreError, _>("test", move |tx| tx.lock_answers(&keys()));
    let found = found.await.unwrap();
    let unlocked = db.store.read::<_, StoreError, _>("test", move |tx| tx.to_verify(&keys()));
    let unlocked = unlocked.await.unwrap();
    let wanted = found.contexts.iter().map(|context| ToVerify {
        request: context.payment.as_ref().map(|payment| payment.request.clone()),
        certificate: context.device.as_ref().and_then(|device| {
            let certificate = device.device.certificate.as_ref()?;
            Some((certificate.number.clone(), certificate.der.clone()?))
        }),
    });
    assert_eq!(unlocked, wanted.collect::<Vec<_>>());
    // The connection is as good as before, though the transaction ended with its last statements.
    let again = db.store.read::<_, StoreError, _>("test", move |tx| tx.to_verify(&keys()));
    assert_eq!(again.await.unwrap(), unlocked);
    let shown: Vec<_> = found
        .contexts
        .iter()
        .map(|context| {
            let payment = context.payment.as_ref().map(|p| &*p.end_to_end_id);
            let device = context.device.as_ref().map(|d| &*d.device.device.serial);
            (payment, context.prior.is_some(), context.phone_serves_payer, device)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Some("E2E-p2"), false, true, Some("b")),
            (Some("E2E-p1"), false, true, Some("a")),
            (Some("E2E-p1"), false, false, Some("b")),
            (Some("E2E-p3"), true, true, Some("a")),
            (None, false, false, None),
            (Some("E2E-p2"), false, true, None),
            (Some("E2E-p1"), false, false, Some("a")),
        ]
    );
    let context = &found.contexts[3];
    assert_eq!(context.prior, Some(answer("p3", "p3", AnswerOutcome::Accepted)));
    let signer = context.device.as_ref().unwrap();
    assert!(signer.serves(&acc("a")) && !signer.serves(&acc("b")));
    assert_eq!(signer.device.certificate.as_ref().unwrap().der.as_deref(), Some(&b"der"[..]));
    let mut balances: Vec<_> =
        found.accounts.values().map(|a| (&*a.number, a.balance, a.entries)).collect();
    balances.sort_unstable();
    assert_eq!(balances, [("NOa", 99_900, 2), ("NOb", 100_100, 2), ("NOc", 100_000, 1)]);

    let nothing = db.tx(|tx| tx.lock_answers(&[])).await;
    assert_eq!((nothing.contexts.len(), nothing.accounts.len()), (0, 0));
    let many = vec![key("p1", "x", "a"); ANSWERS_MAX + 1];
    let error = db.refused(move |tx| tx.lock_answers(&many)).await;
    assert!(matches!(error, StoreError::Misuse { .. }), "{error:?}");

    // A revoked phone and a blocked device show at once.
    db.tx(|tx| {
        tx.revoke_phone(&id(IdKind::Phone, "a"), "lost", at(30))?;
        tx.block_device(&id(IdKind::SecurityDevice, "a"), "lost", at(30))
    })
    .await;
    let found = db.tx(|tx| tx.lock_answers(&[key("p1", "y", "a")])).await;
    assert!(!found.contexts[0].phone_serves_payer);
    let device = found.contexts[0].device.as_ref().unwrap();
    assert_eq!(device.device.device.status, DeviceStatus::Blocked);
}

pub(crate) async fn outcomes_are_stored_together(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    for name in ["p1", "p2", "p3"] {
        pending(&db, name, "a", "b").await;
    }
    let done = db.store.run_locked::<_, StoreError, _>("batch", |tx| {
        let names = ["p1", "p2", "p3"];
        let mut locked = tx.lock_answers(&names.map(|name| key(name, name, "a")))?;
        let mut outcomes = executed(&mut locked, &names);
        outcomes.signers.push(SignerChange {
            device_id: id(IdKind::SecurityDevice, "a"),
            failures: 3,
            alerted_at: Some(at(21)),
            blocked: None,
            at: at(21),
        });
        tx.store_outcomes(&outcomes)
    });
    done.await.unwrap();
    let record = db.tx(|tx| tx.payment(&pay("p2"))).await.unwrap();
    assert_eq!((record.payment.state, record.payment.version), (State::Executed, 5));
    assert_eq!((record.payer.balance, record.payee.balance), (99_700, 100_300));
    assert_eq!((record.payer.entries, record.payer.updated_at), (4, at(20)));
    let timeline = db.tx(|tx| tx.timeline(&pay("p2"))).await;
    let states: Vec<_> = timeline.iter().map(|row| row.state.name()).collect();
    assert_eq!(states, ["created", "pending", "approved", "executing", "executed"]);
    let answers = db.tx(|tx| tx.authorisations(&pay("p2"))).await;
    assert_eq!(answers, [answer("p2", "p2", AnswerOutcome::Accepted)]);
    let posted = db.tx(|tx| tx.postings_of_payment(&pay("p2"))).await;
    assert_eq!((posted.len(), posted[0].amount, posted[0].kind), (1, 100, PostingKind::Payment));
    let counts = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM audit_rows),
                      (SELECT count(*) FROM audit_pending)";
    let counts = db.tx(move |tx| tx.query_one(counts, &[])).await.unwrap();
    assert_eq!((counts.int(0), counts.int(1), counts.int(2)), (Ok(3), Ok(3), Ok(3)));
    let signer = db.tx(|tx| tx.signer_by_serial("a")).await.unwrap();
    assert_eq!((signer.signer.failures, signer.signer.alerted_at), (3, Some(at(21))));
    assert_eq!(signer.device.device.status, DeviceStatus::Enrolled);

    // A wrong answer: no posting; the device is blocked.
    pending(&db, "p4", "a", "b").await;
    let done = db.store.run_locked::<_, StoreError, _>("wrong", |tx| {
        let locked = tx.lock_answers(&[key("p4", "bad", "a")])?;
        let payment = locked.contexts[0].payment.as_ref().unwrap();
        let wrong = PaymentChange { wrong_answers: 1, ..change(payment, 3, State::Pending) };
        let refused = Authorisation {
            failed_check: Some("signature".to_owned()),
            incident: Some(id(IdKind::Incident, "x")),
            ..answer("p4", "bad", AnswerOutcome::Refused)
        };
        tx.store_outcomes(&Outcomes {
            changes: vec![wrong],
            authorisations: vec![refused],
            signers: vec![SignerChange {
                device_id: id(IdKind::SecurityDevice, "a"),
                failures: 5,
                alerted_at: Some(at(21)),
                blocked: Some("too many wrong answers".to_owned()),
                at: at(22),
            }],
            ..Outcomes::default()
        })
    });
    done.await.unwrap();
    let record = db.tx(|tx| tx.payment(&pay("p4"))).await.unwrap();
    assert_eq!((record.payment.state, record.payment.wrong_answers), (State::Pending, 1));
    let signer = db.tx(|tx| tx.signer_by_serial("a")).await.unwrap();
    assert_eq!(signer.device.blocked(at(23)), Some("too many wrong answers"));
    // A rejection has no method.
    let rejected = Authorisation {
        method: None,
        signature: None,
        ..answer("p4", "rejection", AnswerOutcome::Rejected)
    };
    let stored = rejected.clone();
    db.tx(move |tx| {
        let authorisations = vec![stored.clone()];
        tx.store_outcomes(&Outcomes { authorisations, ..Outcomes::default() })
    })
    .await;
    let answers = db.tx(|tx| tx.authorisations(&pay("p4"))).await;
    assert!(answers.contains(&rejected) && answers.len() == 2);
    in_order(&db).await;
}

/// Each of these would execute twice, or otherwise than was decided. The error is the transaction's
/// and nothing of it is stored.
/// An account is frozen with the rest, and only if it is open.
pub(crate) async fn accounts_are_frozen_with_what_was_decided(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    db.tx(|tx| tx.set_account_status(&acc("b"), AccountStatus::Frozen, Some("first"), at(3))).await;
    let freeze = |name, reason: &str| AccountFreeze {
        account_id: acc(name),
        reason: reason.to_owned(),
        at: at(21),
    };
    let both = vec![freeze("a", "the payer did not start it"), freeze("b", "again")];
    let done = db.store.run_locked::<_, StoreError, _>("test", move |tx| {
        // With a posting of the same account: both are stored.
        let mut locked = tx.lock_answers(&[key("p1", "p1", "a")])?;
        let mut outcomes = executed(&mut locked, &["p1"]);
        outcomes.freezes = both.clone();
        tx.store_outcomes(&outcomes)
    });
    done.await.unwrap();
    let shown = async |name: &'static str| {
        let account = db.tx(move |tx| tx.account(&acc(name))).await.unwrap();
        (account.status, account.status_reason, account.balance, account.updated_at)
    };
    let reason = Some("the payer did not start it".to_owned());
    assert_eq!(shown("a").await, (AccountStatus::Frozen, reason, 99_900, at(21)));
    let (status, reason, balance, _) = shown("b").await;
    assert_eq!(
        (status, reason.as_deref(), balance),
        (AccountStatus::Frozen, Some("first"), 100_100)
    );
    let long = Outcomes { freezes: vec![freeze("a", &"x".repeat(300))], ..Outcomes::default() };
    let refused = db.refused(move |tx| tx.store_outcomes(&long)).await;
    assert_eq!(refused, StoreError::Refused { check: "text-too-long" });
    in_order(&db).await;
}

pub(crate) async fn outcomes_that_do_not_fit_are_refused(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    let conflict = |name: &str| Err(StoreError::Conflict { constraint: name.to_owned() });
    let row = Err(StoreError::Refused { check: "row-check" });
    let stale = |before: i64, version: i64| {
        move |o: &mut Outcomes| {
            (o.changes[0].version_before, o.changes[0].version) = (before, version);
        }
    };
    assert_eq!(execute(&db.store, "p1", stale(1, 5)).await, row);
    assert_eq!(execute(&db.store, "p1", stale(3, 5)).await, row);
    assert_eq!(execute(&db.store, "p1", stale(2, 2)).await, row);
    let refunded = |refunded| move |o: &mut Outcomes| o.changes[0].refunded = refunded;
    assert_eq!(execute(&db.store, "p1", refunded(101)).await, row);
    assert_eq!(execute(&db.store, "p1", refunded(-1)).await, row);
    let numbers = execute(&db.store, "p1", |o| o.timeline[0].number = 2).await;
    assert_eq!(numbers, conflict("payment_events_payment_id_number_key"));
    let twice = execute(&db.store, "p1", |o| {
        o.authorisations.push(Authorisation {
            id: id(IdKind::Authorisation, "second"),
            answer_hash: [9; 32],
            ..o.authorisations[0].clone()
        });
    });
    assert_eq!(twice.await, conflict("payment_authorisations_payment_id_key"));
    let long = execute(&db.store, "p1", |o| o.authorisations[0].signature = Some(vec![0; 1025]));
    assert_eq!(long.await, Err(StoreError::Refused { check: "text-too-long" }));
    let record = db.tx(|tx| tx.payment(&pay("p1"))).await.unwrap();
    assert_eq!(record.payment, payment("p1", "a", "b"));
    assert_eq!((record.payer.entries, record.payee.entries), (1, 1));
    assert_eq!(db.tx(|tx| tx.timeline(&pay("p1"))).await.len(), 2);
    assert_eq!(db.tx(|tx| tx.query("SELECT id FROM events", &[])).await.len(), 0);

    execute(&db.store, "p1", |_| ()).await.unwrap();
    // Whatever decides that it may be executed once more meets the database's rules.
    let anew = |o: &mut Outcomes| {
        o.authorisations[0].id = id(IdKind::Authorisation, "anew");
        o.postings[0].id = id(IdKind::Posting, "anew");
        o.events.clear();
    };
    let same = conflict("payment_authorisations_payment_id_answer_hash_key");
    let second = conflict("payment_authorisations_payment_id_key");
    let again = execute(&db.store, "p1", anew).await;
    assert!(again == same || again == second, "{again:?}");
    let again = execute(&db.store, "p1", move |o| {
        anew(o);
        o.authorisations[0].answer_hash = [1; 32];
    });
    assert_eq!(again.await, second);
    let again = execute(&db.store, "p1", move |o| {
        anew(o);
        o.authorisations.clear();
    });
    assert_eq!(again.await, conflict("ledger_postings_kind_reference_key"));
    in_order(&db).await;
}

/// What goes back is counted at the payment, posted, and never more than was paid.
pub(crate) async fn refunds_are_counted_and_bounded(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    execute(&db.store, "p1", |_| ()).await.unwrap();
    let refund = |name: &'static str, reference: &'static str, amount: i64| {
        db.store.run_locked::<_, StoreError, _>("refund", move |tx| {
            let record = tx.lock_payment(&pay("p1"))?.unwrap();
            let PaymentRecord { payment, payer, payee } = &record;
            let accounts = tx.lock_accounts(&[&payer.id, &payee.id])?;
            let (from, to) = (&accounts[&payee.id], &accounts[&payer.id]);
            let change = change(payment, payment.version + 1, State::Executed);
            let refunded = payment.refunded + amount;
            tx.store_outcomes(&Outcomes {
                changes: vec![PaymentChange { refunded, ..change }],
                postings: vec![Posting {
                    id: id(IdKind::Posting, name),
                    kind: PostingKind::Refund,
                    reference: reference.to_owned(),
                    payment_id: Some(payment.id.clone()),
                    debit_account: from.id.clone(),
                    credit_account: to.id.clone(),
                    currency: payment.currency.clone(),
                    amount,
                    debit_entry: from.entries + 1,
                    debit_balance: from.balance - amount,
                    credit_entry: to.entries + 1,
                    credit_balance: to.balance + amount,
                    actor: "opr_test".to_owned(),
                    at: at(40),
                }],
                ..Outcomes::default()
            })
        })
    };
    refund("one", "refund-1", 40).await.unwrap();
    let constraint = "ledger_postings_kind_reference_key".to_owned();
    assert_eq!(refund("two", "refund-1", 1).await, Err(StoreError::Conflict { constraint }));
    assert_eq!(
        refund("three", "refund-2", 61).await,
        Err(StoreError::Refused { check: "row-check" })
    );
    refund("four", "refund-2", 60).await.unwrap();
    assert_eq!(
        refund("five", "refund-3", 1).await,
        Err(StoreError::Refused { check: "row-check" })
    );
    let record = db.tx(|tx| tx.payment(&pay("p1"))).await.unwrap();
    assert_eq!((record.payment.refunded, record.payment.version), (100, 7));
    assert_eq!((record.payer.balance, record.payee.balance), (100_000, 100_000));
    let kinds: Vec<_> =
        db.tx(|tx| tx.postings_of_payment(&pay("p1"))).await.iter().map(|p| p.kind).collect();
    assert_eq!(kinds, [PostingKind::Payment, PostingKind::Refund, PostingKind::Refund]);
    let pair = db.tx(|tx| {
        Ok((tx.paid_before(&acc("a"), &acc("b"))?, tx.paid_before(&acc("b"), &acc("a"))?))
    });
    // A refund is no payment the other way.
    assert_eq!(pair.await, (true, false));
    let some = db.tx(|tx| tx.accounts_by_id(&[&acc("a"), &acc("x")])).await;
    assert_eq!(some.keys().collect::<Vec<_>>(), [&acc("a")]);
    in_order(&db).await;
}

/// Two servers decide one payment, and others of the same accounts, at one moment: each payment is
/// executed once, and nobody has to begin anew.
pub(crate) async fn racing_batches_execute_once(db: Db) {
    const NAMES: [&str; 6] = ["q1", "q2", "q3", "q4", "q5", "q6"];
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    for name in NAMES {
        pending(&db, name, "a", "b").await;
    }
    let other =
        if db.backend == Backend::Memory { db.store.clone() } else { db.open().await.unwrap() };
    let mut tasks = JoinSet::new();
    for turn in 0..24 {
        let store = if turn % 2 == 0 { db.store.clone() } else { other.clone() };
        tasks.spawn(async move {
            let done = store.run_locked::<_, StoreError, _>("race", move |tx| {
                // Overlapping halves, in either order.
                let mut names: Vec<&str> = NAMES.into_iter().cycle().skip(turn).take(4).collect();
                if turn % 3 == 0 {
                    names.reverse();
                }
                let keys: Vec<_> = names.iter().map(|name| key(name, name, "a")).collect();
                let mut locked = tx.lock_answers(&keys)?;
                let mut open = Vec::new();
                let mut kept = Vec::new();
                for (context, name) in locked.contexts.drain(..).zip(names) {
                    if context.payment.as_ref().unwrap().state == State::Pending {
                        assert_eq!(context.prior, None);
                        open.push(context);
                        kept.push(name);
                    } else {
                        assert!(context.prior.is_some());
                    }
                }
                locked.contexts = open;
                tx.store_outcomes(&executed(&mut locked, &kept))?;
                Ok(kept.len())
            });
            done.await
        });
    }
    let done: usize = tasks.join_all().await.into_iter().map(Result::unwrap).sum();
    assert_eq!(done, NAMES.len());
    for store in [&db.store, &other] {
        assert_eq!(store.stats()["race"].retries, 0);
    }
    let balance = db.tx(|tx| Ok(tx.account(&acc("a"))?.map(|a| a.balance))).await;
    assert_eq!(balance, Some(100_000 - 600));
    in_order(&db).await;
}

/// PostgreSQL: revoking a device's certificate, blocking it and unbinding it wait for an answer
/// that is being decided with it, so that none is accepted after they were acknowledged.
pub(crate) async fn a_revocation_waits_for_answers_being_decided(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    let sdv = || id(IdKind::SecurityDevice, "a");
    for (name, turn) in [("p1", 0), ("p2", 1), ("p3", 2)] {
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
            let done = store.run_tx::<_, StoreError, _>("change", move |tx| match turn {
                0 => tx.unbind_signer(&sdv(), &acc("a")).map(|_| ()),
                1 => tx.block_device(&sdv(), "lost", at(30)),
                _ => tx.revoke_certificate("aaa", "lost", at(30)),
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
        let state = db.tx(move |tx| Ok(tx.payment(&pay(name))?.unwrap().payment.state)).await;
        assert_eq!(state, State::Executed);
    }
    pending(&db, "p4", "a", "b").await;
    let found = db.tx(|tx| tx.lock_answers(&[key("p4", "p4", "a")])).await;
    let device = found.contexts[0].device.as_ref().unwrap();
    assert!(!device.serves(&acc("a")) && device.device.certificate.is_none());
    assert_eq!(device.device.device.status, DeviceStatus::Blocked);
    in_order(&db).await;
}
