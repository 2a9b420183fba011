//! Payments, the answers to them, and batches of answers (D5–D7).

use countersign_payment::State;
use countersign_store::{
    AnswerKey, AnswerOutcome, Authorisation, CertificateIntent, Device, DeviceKind, Event, Fault,
    IdKind, LedgerFinding, LockedAnswers, Outcomes, Payment, PaymentChange, PaymentFilter, Phone,
    Posting, PostingKind, SignMethod, SignerRow, Store, StoreError, TimelineRow, Tx,
};

use crate::fixture::{Db, at, device, entry, id};
use crate::ledger::{acc, funded, in_order};

pub(crate) fn pay(name: &str) -> String {
    id(IdKind::Payment, name)
}

pub(crate) fn payment(name: &str, from: &str, to: &str) -> Payment {
    Payment {
        id: pay(name),
        state: State::Pending,
        payer_account: acc(from),
        payee_account: acc(to),
        currency: "CNY".to_owned(),
        amount: 100,
        refunded: 0,
        end_to_end_id: format!("E2E-{name}"),
        order_text: "2 × tea, 1 × 茶".to_owned(),
        initiating_party: "The Shop".to_owned(),
        alerts: vec!["new-payee".to_owned(), "payee-name-differs".to_owned()],
        created_by: id(IdKind::Operator, "shop"),
        request: format!("request of {name}").into_bytes(),
        wrong_answers: 0,
        reason: None,
        incident: None,
        version: 2,
        created_at: at(10),
        expires_at: at(1000),
        updated_at: at(10),
    }
}

pub(crate) fn step(name: &str, number: i64, state: State) -> TimelineRow {
    TimelineRow {
        payment_id: pay(name),
        number,
        state,
        actor: "opr_test".to_owned(),
        reason: None,
        at: at(20),
    }
}

pub(crate) async fn pending(db: &Db, name: &'static str, from: &'static str, to: &'static str) {
    db.tx(move |tx| insert(tx, name, from, to)).await;
}

fn insert(tx: &mut Tx<'_>, name: &str, from: &str, to: &str) -> Result<(), StoreError> {
    let timeline = [step(name, 1, State::Created), step(name, 2, State::Pending)];
    tx.insert_payment(&payment(name, from, to), &timeline)
}

/// Cancels a payment that [`pending`] made.
pub(crate) async fn settle(db: &Db, name: &'static str) {
    db.tx(move |tx| {
        tx.store_outcomes(&Outcomes {
            changes: vec![PaymentChange {
                id: pay(name),
                version_before: 2,
                version: 3,
                state: State::Cancelled,
                wrong_answers: 0,
                refunded: 0,
                reason: None,
                incident: None,
                at: at(20),
            }],
            timeline: vec![step(name, 3, State::Cancelled)],
            ..Outcomes::default()
        })
    })
    .await;
}

fn hash(name: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..name.len()].copy_from_slice(name.as_bytes());
    hash
}

/// A security device with a certificate, and a phone, for one account.
pub(crate) async fn payer(db: &Db, name: &'static str) {
    db.tx(move |tx| {
        let sdv = Device {
            id: id(IdKind::SecurityDevice, name),
            kind: DeviceKind::SecurityDevice,
            ..device(name)
        };
        tx.insert_device(&sdv)?;
        tx.insert_signer(&SignerRow {
            device_id: sdv.id.clone(),
            method: SignMethod::Pki,
            label: format!("key of {name}"),
            ocra_suite: None,
            ocra_key: None,
            joint_key: None,
            failures: 0,
            alerted_at: None,
        })?;
        tx.bind_signer(&sdv.id, &[acc(name)])?;
        let number = format!("aa{name}");
        tx.intend_certificate(&CertificateIntent {
            number: number.clone(),
            device_id: sdv.id,
            public_key: [7; 32],
            not_after: at(1_000_000),
            at: at(1),
        })?;
        tx.record_issued_certificate(&number, b"der", at(1))?;
        let phone = Phone {
            id: id(IdKind::Phone, name),
            label: format!("phone of {name}"),
            code_expires_at: None,
            created_at: at(1),
            enrolled_at: None,
            seen_at: None,
            revoked_at: None,
            revoke_reason: None,
            session_key: None,
        };
        tx.insert_phone(&phone, &hash(name))?;
        tx.bind_phone(&phone.id, &[acc(name)])
    })
    .await;
}

pub(crate) fn key(payment: &str, answer: &str, payer: &str) -> AnswerKey {
    AnswerKey {
        payment_id: pay(payment),
        answer_hash: hash(answer),
        phone_id: Some(id(IdKind::Phone, payer)),
        device_serial: Some(payer.to_owned()),
    }
}

pub(crate) fn answer(payment: &str, answer: &str, outcome: AnswerOutcome) -> Authorisation {
    Authorisation {
        id: id(IdKind::Authorisation, answer),
        payment_id: pay(payment),
        answer_hash: hash(answer),
        outcome,
        method: Some(SignMethod::Pki),
        device_id: Some(id(IdKind::SecurityDevice, "a")),
        phone_id: Some(id(IdKind::Phone, "a")),
        certificate_number: Some("aaa".to_owned()),
        certificate: Some(b"der".to_vec()),
        signature: Some(vec![9; 64]),
        commitment: None,
        failed_check: None,
        incident: None,
        at: at(20),
    }
}

/// What executing payments is: a batch of locked answers, each accepted and posted.
pub(crate) fn executed(locked: &mut LockedAnswers, names: &[&str]) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (context, name) in locked.contexts.iter().zip(names) {
        let payment = context.payment.as_ref().unwrap();
        let version = payment.version;
        for (step_number, state) in
            [State::Approved, State::Executing, State::Executed].into_iter().enumerate()
        {
            outcomes.timeline.push(step(name, version + 1 + step_number as i64, state));
        }
        outcomes.changes.push(change(payment, version + 3, State::Executed));
        outcomes.authorisations.push(answer(name, name, AnswerOutcome::Accepted));
        let from = locked.accounts.get_mut(&payment.payer_account).unwrap();
        (from.entries, from.balance) = (from.entries + 1, from.balance - payment.amount);
        let (debit_entry, debit_balance) = (from.entries, from.balance);
        let to = locked.accounts.get_mut(&payment.payee_account).unwrap();
        (to.entries, to.balance) = (to.entries + 1, to.balance + payment.amount);
        outcomes.postings.push(Posting {
            id: id(IdKind::Posting, name),
            kind: PostingKind::Payment,
            reference: payment.id.clone(),
            payment_id: Some(payment.id.clone()),
            debit_account: payment.payer_account.clone(),
            credit_account: payment.payee_account.clone(),
            currency: payment.currency.clone(),
            amount: payment.amount,
            debit_entry,
            debit_balance,
            credit_entry: to.entries,
            credit_balance: to.balance,
            actor: "phn_test".to_owned(),
            at: at(20),
        });
        outcomes.events.push(Event {
            id: id(IdKind::Event, name),
            kind: "payment.executed".to_owned(),
            subject: payment.id.clone(),
            data: "{}".to_owned(),
            owner: None,
            at: at(20),
        });
        outcomes.audit.push(entry(20));
    }
    outcomes
}

pub(crate) fn change(payment: &Payment, version: i64, state: State) -> PaymentChange {
    PaymentChange {
        id: payment.id.clone(),
        version_before: payment.version,
        version,
        state,
        wrong_answers: payment.wrong_answers,
        refunded: payment.refunded,
        reason: None,
        incident: None,
        at: at(20),
    }
}

pub(crate) async fn execute(
    store: &Store,
    name: &'static str,
    spoil: impl Fn(&mut Outcomes) + Send + 'static,
) -> Result<(), StoreError> {
    let done = store.run_locked("execute", move |tx| {
        let mut locked = tx.lock_answers(&[key(name, name, "a")])?;
        let mut outcomes = executed(&mut locked, &[name]);
        spoil(&mut outcomes);
        tx.store_outcomes(&outcomes)
    });
    done.await
}

pub(crate) async fn payments_are_stored_and_found(db: Db) {
    funded(&db, &["a", "b"]).await;
    pending(&db, "p1", "a", "b").await;
    pending(&db, "p2", "b", "a").await;
    let record = db.tx(|tx| tx.payment(&pay("p1"))).await.unwrap();
    assert_eq!(record.payment, payment("p1", "a", "b"));
    assert_eq!((&*record.payer.number, &*record.payee.number), ("NOa", "NOb"));
    let locked = db.store.run_locked::<_, StoreError, _>("test", |tx| tx.lock_payment(&pay("p1")));
    assert_eq!(locked.await.unwrap(), Some(record));
    assert_eq!(db.tx(|tx| tx.payment(&pay("p3"))).await, None);
    let both = db.tx(|tx| tx.lock_payments(&[&pay("p2"), &pay("p1"), &pay("p3")])).await;
    assert_eq!(both.len(), 2);
    assert!(both[0].id < both[1].id);
    let timeline = db.tx(|tx| tx.timeline(&pay("p1"))).await;
    assert_eq!(timeline, [step("p1", 1, State::Created), step("p1", 2, State::Pending)]);

    let wanted = |filter: PaymentFilter| async {
        let page = db.tx(move |tx| tx.payments_page(&filter, None, 10)).await;
        let mut ends: Vec<_> = page.items.into_iter().map(|p| p.end_to_end_id).collect();
        ends.sort();
        ends.join(",")
    };
    let none = PaymentFilter::default();
    assert_eq!(wanted(none.clone()).await, "E2E-p1,E2E-p2");
    let of_a = PaymentFilter { payer: Some(acc("a")), ..none.clone() };
    assert_eq!(wanted(of_a.clone()).await, "E2E-p1");
    let shop = Some(id(IdKind::Operator, "shop"));
    let of_shop = PaymentFilter { created_by: shop, ..of_a.clone() };
    assert_eq!(wanted(of_shop.clone()).await, "E2E-p1");
    let executed = PaymentFilter { state: Some(State::Executed), ..of_shop };
    assert_eq!(wanted(executed).await, "");
    let another = PaymentFilter { created_by: Some("opr_x".to_owned()), ..none };
    assert_eq!(wanted(another).await, "");
    let page = db.tx(|tx| tx.payments_page(&PaymentFilter::default(), None, 1)).await;
    let cursor = page.next.unwrap();
    let next = db.tx(move |tx| tx.payments_page(&PaymentFilter::default(), Some(&cursor), 1)).await;
    assert!(next.items[0].id < page.items[0].id && next.next.is_none());
}

pub(crate) async fn payments_that_do_not_fit_are_refused(db: Db) {
    funded(&db, &["a", "b"]).await;
    let refused = |change: fn(&mut Payment)| {
        let mut new = payment("p1", "a", "b");
        change(&mut new);
        db.refused(move |tx| tx.insert_payment(&new, &[]))
    };
    let row = StoreError::Refused { check: "row-check" };
    let missing = StoreError::NotFound { what: "referenced row" };
    let long = StoreError::Refused { check: "text-too-long" };
    assert_eq!(refused(|p| p.amount = 0).await, row);
    assert_eq!(refused(|p| p.refunded = 101).await, row);
    assert_eq!(refused(|p| p.refunded = -1).await, row);
    assert_eq!(refused(|p| p.currency = "USD".to_owned()).await, missing);
    assert_eq!(refused(|p| p.payer_account = acc("x")).await, missing);
    assert_eq!(refused(|p| p.order_text = "x".repeat(4097)).await, long);
    assert_eq!(refused(|p| p.request = vec![0; 4097]).await, long);
    assert_eq!(refused(|p| p.alerts = vec!["x".repeat(257)]).await, long);
    pending(&db, "p1", "a", "b").await;
    let again = db.refused(|tx| insert(tx, "p1", "a", "b")).await;
    assert_eq!(again, StoreError::Conflict { constraint: "payments_id_key".to_owned() });
    for sql in ["UPDATE payment_events SET actor = 'x'", "DELETE FROM payment_events"] {
        let error = db.refused(move |tx| tx.execute(sql, &[])).await;
        assert_eq!(error, StoreError::Refused { check: "append-only" }, "{sql}");
    }
}

pub(crate) async fn overdue_payments_are_found(db: Db) {
    funded(&db, &["a", "b"]).await;
    for (name, expires, state) in [
        ("p1", 100, State::Pending),
        ("p2", 50, State::Created),
        ("p3", 50, State::Executed),
        ("p4", 101, State::Pending),
    ] {
        db.tx(move |tx| {
            let new = Payment { expires_at: at(expires), state, ..payment(name, "a", "b") };
            tx.insert_payment(&new, &[step(name, 1, state)])
        })
        .await;
    }
    let overdue = |now, limit| db.tx(move |tx| tx.overdue_payments(at(now), limit));
    let ids = |payments: Vec<Payment>| payments.into_iter().map(|p| p.id).collect::<Vec<_>>();
    assert_eq!(ids(overdue(49, 10).await), Vec::<String>::new());
    assert_eq!(ids(overdue(100, 10).await), [pay("p2"), pay("p1")]);
    assert_eq!(ids(overdue(100, 1).await), [pay("p2")]);
}

/// Faults that a test injects are what it asked for.
pub(crate) async fn injected_faults_fail_as_asked(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    for name in ["p1", "p2", "p3"] {
        pending(&db, name, "a", "b").await;
    }
    let faulty = |fault: Fault| {
        db.store.clone().with_faults(move |name| (name == "execute").then_some(fault))
    };
    let state =
        |name: &'static str| db.tx(move |tx| Ok(tx.payment(&pay(name))?.unwrap().payment.state));
    let error = execute(&faulty(Fault::Undone), "p1", |_| ()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert_eq!(state("p1").await, State::Pending);
    let error = execute(&faulty(Fault::LostBefore), "p1", |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
    assert_eq!(state("p1").await, State::Pending);
    let error = execute(&faulty(Fault::LostAfter), "p1", |_| ()).await.unwrap_err();
    assert!(matches!(error, StoreError::Uncertain { .. }), "{error:?}");
    assert_eq!(state("p1").await, State::Executed);
    // Other transactions of that handle work, and so do other handles.
    faulty(Fault::Undone).ping().await.unwrap();
    execute(&db.store, "p2", |_| ()).await.unwrap();
    in_order(&db).await;
}

/// Whoever has the database in hands can make a payment look executed; the check says so.
pub(crate) async fn the_check_names_payments_that_do_not_fit(db: Db) {
    funded(&db, &["a", "b"]).await;
    payer(&db, "a").await;
    pending(&db, "p1", "a", "b").await;
    pending(&db, "p2", "a", "b").await;
    execute(&db.store, "p1", |_| ()).await.unwrap();
    let (done, open, posting) = (pay("p1"), pay("p2"), id(IdKind::Posting, "p1"));
    let finding = |rule, subject: &str| LedgerFinding { rule, subject: subject.to_owned() };
    let cases: &[(&str, &str, Vec<LedgerFinding>)] = &[
        (
            "UPDATE payments SET state = 'executed' WHERE id = '{o}'",
            "UPDATE payments SET state = 'pending' WHERE id = '{o}'",
            vec![
                finding("executed-unposted", &open),
                finding("executed-unconfirmed", &open),
                finding("timeline", &open),
            ],
        ),
        (
            "UPDATE payments SET state = 'expired' WHERE id = '{d}'",
            "UPDATE payments SET state = 'executed' WHERE id = '{d}'",
            vec![
                finding("posted-unexecuted", &posting),
                finding("confirmed-unexecuted", &done),
                finding("timeline", &done),
            ],
        ),
        (
            "UPDATE payments SET amount = 101 WHERE id = '{d}'",
            "UPDATE payments SET amount = 100 WHERE id = '{d}'",
            vec![finding("executed-unposted", &done)],
        ),
        (
            "UPDATE payments SET payer_account = payee_account WHERE id = '{d}'",
            "UPDATE payments SET payer_account = '{a}' WHERE id = '{d}'",
            vec![finding("executed-unposted", &done)],
        ),
        (
            "UPDATE payment_authorisations SET outcome = 'refused' WHERE payment_id = '{d}'",
            "UPDATE payment_authorisations SET outcome = 'accepted' WHERE payment_id = '{d}'",
            vec![finding("executed-unconfirmed", &done)],
        ),
        (
            "UPDATE payments SET refunded = 1 WHERE id = '{d}'",
            "UPDATE payments SET refunded = 0 WHERE id = '{d}'",
            vec![finding("refunded", &done)],
        ),
        (
            "UPDATE payments SET version = 4 WHERE id = '{d}'",
            "UPDATE payments SET version = 5 WHERE id = '{d}'",
            vec![finding("timeline", &done)],
        ),
    ];
    for (breaks, mends, findings) in cases {
        let filled =
            |sql: &str| sql.replace("{d}", &done).replace("{o}", &open).replace("{a}", &acc("a"));
        db.tamper(&filled(breaks)).await;
        assert_eq!(&db.tx(|tx| tx.ledger_check()).await, findings, "{breaks}");
        db.tamper(&filled(mends)).await;
        in_order(&db).await;
    }
}
