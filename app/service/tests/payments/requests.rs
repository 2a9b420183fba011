//! What the server makes of a transaction (D1), and what it does not take.

use std::time::Duration;

use countersign_payment::{ConfirmationRequest, State};
use countersign_service::{NewPayment, PaymentPolicy, Policy, Service, Settled};
use countersign_store::{IdempotentRequest, PaymentFilter, PaymentRecord};

use crate::bank::{Bank, Place, START, check, fresh, money, once, value};

pub(crate) async fn the_server_extracts_what_is_confirmed(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.pending("12.3").await;
    let request = ConfirmationRequest::parse(&record.payment.request).unwrap();
    assert_eq!(request.server, "srv-test");
    assert_eq!(request.payment, record.payment.id);
    assert_eq!(request.payer_account.as_str(), "PAYER1");
    assert_eq!(request.payee_account.as_str(), "PAYEE1");
    assert_eq!(request.payee_name, "Corner Bakery");
    assert_eq!(request.order, "Order 17: two loaves");
    assert_eq!(request.amount.to_string(), "12.30 CNY");
    assert_eq!(request.initiator, "Web shop");
    assert_eq!(request.expires, record.payment.expires_at);
    assert_eq!(request.expires, START.plus(Duration::from_secs(300)));
    assert_eq!(request.alerts, ["new-payee"]);
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
    // The payer is not warned of whom it has paid before, but of another name.
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    let again = bank.pending("1.00").await;
    assert_eq!(again.payment.alerts, Vec::<String>::new());
    let order = NewPayment { payee_name: "Corner Shop".into(), ..bank.order("1.00") };
    let order = value(bank.service.create_payment(&bank.shop, &order, fresh()).await.unwrap());
    assert_eq!(order.payment.alerts, ["payee-name-differs"]);
    let request = ConfirmationRequest::parse(&order.payment.request).unwrap();
    assert_eq!(request.alerts, ["payee-name-differs"]);
    // Each phone of the payer has a push, and each only one.
    let id = record.payment.id.clone();
    let pushes = bank.service.store().read("pushes", move |tx| tx.pushes_of_payment(&id)).await;
    let pushes: Vec<countersign_store::Push> = pushes.unwrap();
    assert_eq!(pushes.len(), 1);
    assert_eq!(pushes[0].phone_id, bank.phone.id());
}

pub(crate) async fn what_is_not_fit_is_refused_by_name(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let good = bank.order("1.00");
    let with = |change: &dyn Fn(&mut NewPayment)| {
        let mut order = good.clone();
        change(&mut order);
        order
    };
    let long = "x".repeat(141);
    for (order, expected) in [
        (with(&|it| it.amount = money("0", "CNY")), "amount-range"),
        (with(&|it| it.amount = money("-1", "CNY")), "amount-form"),
        (with(&|it| it.amount = money("1.001", "CNY")), "amount-decimals"),
        (with(&|it| it.amount = money("1.5", "JPY")), "amount-decimals"),
        (with(&|it| it.amount = money("1e3", "CNY")), "amount-form"),
        (with(&|it| it.amount = money("99999999999999999999", "CNY")), "amount-range"),
        (with(&|it| it.amount = money("1", "XTS")), "currency-unknown"),
        (with(&|it| it.amount = money("1", "EUR")), "currency-mismatch"),
        (with(&|it| it.payer = "payer1".into()), "account-form"),
        (with(&|it| it.payer = "NOBODY".into()), "account-unknown"),
        (with(&|it| it.payee = "NOBODY".into()), "payee-unknown"),
        (with(&|it| it.payee = "PAYER1".into()), "same-account"),
        (with(&|it| it.order = "pay \u{202e}me".into()), "text-direction"),
        (with(&|it| it.order = "a\u{0}b".into()), "text-control"),
        (with(&|it| it.order = "a\u{200b}b".into()), "text-invisible"),
        (with(&|it| it.order = String::new()), "text-empty"),
        (with(&|it| it.order = long.clone()), "text-too-long"),
        (with(&|it| it.payee_name = "Corner B\u{430}kery".into()), "text-scripts"),
        (with(&|it| it.initiating_party = "a\nb".into()), "text-control"),
        (with(&|it| it.end_to_end_id = "x".repeat(36)), "text-too-long"),
        (with(&|it| it.expires_in = Some(Duration::from_secs(29))), "expiry-range"),
        (with(&|it| it.expires_in = Some(Duration::from_secs(86_401))), "expiry-range"),
    ] {
        let refused = service.create_payment(&bank.shop, &order, fresh()).await;
        assert_eq!(check(refused), expected, "{order:?}");
    }
    let markup = with(&|it| it.order = "<script>alert(1)</script> & \"more\"".into());
    let record = value(service.create_payment(&bank.shop, &markup, fresh()).await.unwrap());
    assert_eq!(record.payment.order_text, markup.order, "text is text");
    // Who may not ask for payments does not; and the state of accounts counts.
    let (auditor, _) = service
        .add_operator(&bank.admin, "audie", &[countersign_store::Role::Auditor])
        .await
        .unwrap();
    let auditor = countersign_service::Actor::Operator(auditor);
    assert_eq!(check(service.create_payment(&auditor, &good, fresh()).await), "scope");
    service.freeze_account(&bank.admin, &bank.payee.id, "dispute").await.unwrap();
    assert_eq!(check(service.create_payment(&bank.shop, &good, fresh()).await), "account-frozen");
    service.unfreeze_account(&bank.admin, &bank.payee.id).await.unwrap();
    service.close_account(&bank.admin, &bank.payee.id, "gone").await.unwrap();
    assert_eq!(check(service.create_payment(&bank.shop, &good, fresh()).await), "account-closed");
    let refusals = bank.audit_of("payment").await;
    assert!(refusals.iter().any(|row| row.entry.check.as_deref() == Some("amount-decimals")));
}

fn body(settled: &Settled<PaymentRecord>) -> (u16, Vec<u8>) {
    let (status, body) = settled.answer();
    (status, body.to_vec())
}

pub(crate) async fn the_same_request_happens_once(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let order = bank.order("5.00");
    let first = service.create_payment(&bank.shop, &order, once("k1", "one")).await.unwrap();
    let told = body(&first);
    let record = value(first);
    // Much later, at another server, after the payment has gone on: byte by byte the same.
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    bank.pass(Duration::from_secs(3600));
    let elsewhere = bank.another().await;
    let again = elsewhere.create_payment(&bank.shop, &order, once("k1", "one")).await.unwrap();
    assert!(matches!(again, Settled::Replay { .. }));
    assert_eq!(body(&again), told);
    // Another request under this key is refused, and another operator's key is another one.
    let other = service.create_payment(&bank.shop, &order, once("k1", "two")).await;
    assert_eq!(check(other), "idempotency-mismatch");
    let admins = service.create_payment(&bank.admin, &order, once("k1", "two")).await.unwrap();
    assert_ne!(value(admins).payment.id, record.payment.id);
    // A refused one leaves nothing: the key is free.
    let bad = NewPayment { payee: "NOBODY".into(), ..order.clone() };
    let refused = service.create_payment(&bank.shop, &bad, once("k2", "bad")).await;
    assert_eq!(check(refused), "payee-unknown");
    let good = service.create_payment(&bank.shop, &order, once("k2", "good")).await.unwrap();
    assert!(matches!(good, Settled::Fresh { .. }));
    assert_eq!(count(service, &bank).await, 3);
}

async fn count(service: &Service, bank: &Bank) -> usize {
    let all = service.payments(&bank.admin, PaymentFilter::default(), None, 200).await.unwrap();
    all.items.len()
}

pub(crate) async fn retries_at_once_make_one_payment(place: Place) {
    let bank = Bank::new(place).await;
    let servers = [bank.service.clone(), bank.another().await];
    for round in 0..10 {
        let mut tasks = Vec::new();
        for attempt in 0..8 {
            let (service, shop) = (servers[attempt % 2].clone(), bank.shop.clone());
            let order = bank.order("5.00");
            tasks.push(tokio::spawn(async move {
                let once = once(&format!("round-{round}"), "the same");
                service.create_payment(&shop, &order, once).await
            }));
        }
        let mut told = Vec::new();
        let mut fresh = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(settled) => {
                    fresh += usize::from(matches!(settled, Settled::Fresh { .. }));
                    told.push(body(&settled));
                }
                // On one server the second is told to wait.
                Err(error) => assert_eq!(error.check(), "idempotency-in-flight"),
            }
        }
        assert_eq!(fresh, 1, "round {round}");
        told.dedup();
        assert_eq!(told.len(), 1, "round {round}: all are told the same");
    }
    assert_eq!(count(&bank.service, &bank).await, 10);
}

pub(crate) async fn a_key_that_another_server_works_on_is_in_flight(place: Place) {
    let bank = Bank::new(place).await;
    let operator_id = bank.shop.id().to_owned();
    let claimed = IdempotentRequest {
        operator_id,
        key: "k1".into(),
        hash: once::<PaymentRecord>("", "one").request_hash,
        claim: [1; 16],
    };
    bank.tx(move |tx| {
        tx.claim_idempotency(&claimed, START, START.plus(Duration::from_secs(60))).map(|_| ())
    })
    .await;
    let order = bank.order("5.00");
    let create = async || bank.service.create_payment(&bank.shop, &order, once("k1", "one")).await;
    assert_eq!(check(create().await), "idempotency-in-flight");
    bank.pass(Duration::from_secs(61)); // it has died
    assert!(matches!(create().await.unwrap(), Settled::Fresh { .. }));
}

pub(crate) async fn an_initiator_sees_its_own_payments(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let (other, _) = service
        .add_operator(&bank.admin, "kiosk", &[countersign_store::Role::Integrator])
        .await
        .unwrap();
    let other = countersign_service::Actor::Operator(other);
    let record = bank.pending("5.00").await;
    let id = record.payment.id.as_str();
    assert_eq!(check(service.payment(&other, id).await), "not-found");
    assert_eq!(check(service.cancel_payment(&other, id).await), "not-found");
    assert_eq!(check(service.payment_timeline(&other, id).await), "not-found");
    assert_eq!(check(service.payment_evidence(&other, id).await), "not-found");
    let filter =
        PaymentFilter { created_by: Some(bank.shop.id().to_owned()), ..Default::default() };
    let seen = service.payments(&other, filter.clone(), None, 10).await.unwrap();
    assert_eq!(seen.items.len(), 0, "whatever it asks for");
    let seen = service.payments(&bank.shop, PaymentFilter::default(), None, 10).await.unwrap();
    assert_eq!(seen.items, std::slice::from_ref(&record));
    let filter = PaymentFilter { state: Some(State::Executed), ..Default::default() };
    let none = service.payments(&bank.admin, filter, None, 10).await.unwrap();
    assert_eq!(none.items.len(), 0);
    // It takes its own back, once or twice.
    let cancelled = service.cancel_payment(&bank.shop, id).await.unwrap();
    assert_eq!(cancelled.payment.state.name(), "cancelled");
    assert_eq!(service.cancel_payment(&bank.shop, id).await.unwrap(), cancelled);
    assert_eq!(check(bank.answer(&record, bank.device.answer(&record)).await), "payment-cancelled");
    let refund = service.refund_payment(&bank.shop, id, "1.00", fresh()).await;
    assert_eq!(check(refund), "scope");
}

pub(crate) async fn who_waits_is_woken(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.pending("5.00").await;
    let (id, version) = (record.payment.id.clone(), record.payment.version);
    // Not changed: the wait ends with its time.
    let began = tokio::time::Instant::now();
    let short = Duration::from_millis(50);
    let same = bank.service.wait_payment(&bank.shop, &id, version, short).await.unwrap();
    assert_eq!(same.payment.version, version);
    assert!(began.elapsed() >= short);
    // Another version than was seen: at once.
    let long = Duration::from_secs(60);
    let seen = bank.service.wait_payment(&bank.shop, &id, version - 1, long).await.unwrap();
    assert_eq!(seen.payment.version, version);
    // Changed by another server meanwhile.
    let (waiting, shop) = (bank.another().await, bank.shop.clone());
    let waited = id.clone();
    let waiter =
        tokio::spawn(async move { waiting.wait_payment(&shop, &waited, version, long).await });
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    let woken = tokio::time::timeout(Duration::from_secs(20), waiter).await.unwrap();
    assert_eq!(woken.unwrap().unwrap().payment.state.name(), "executed");
    // One that has ended is not waited for.
    let version = bank.payment(&id).await.payment.version;
    let ended = bank.service.wait_payment(&bank.shop, &id, version, long).await.unwrap();
    assert!(ended.payment.state.is_terminal());
}

pub(crate) async fn the_policy_says_name_and_bounds(place: Place) {
    let payments = PaymentPolicy {
        server_name: Some("Example Bank".into()),
        wrong_answers_max: 1,
        expiry: Duration::from_secs(60),
        expiry_min: Duration::from_secs(60),
        expiry_max: Duration::from_secs(120),
        ..PaymentPolicy::default()
    };
    let policy = Policy { payments, ..Policy::default() };
    let bank = Bank::with(place, countersign_crypto::aws_lc::provider(), policy).await;
    let record = bank.pending("5.00").await;
    let request = ConfirmationRequest::parse(&record.payment.request).unwrap();
    assert_eq!(request.server, "Example Bank");
    assert_eq!(request.expires, START.plus(Duration::from_secs(60)));
    let longer = NewPayment { expires_in: Some(Duration::from_secs(121)), ..bank.order("5.00") };
    assert_eq!(
        check(bank.service.create_payment(&bank.shop, &longer, fresh()).await),
        "expiry-range"
    );
    let other = bank.pending("6.00").await;
    bank.answer(&record, bank.device.answer(&other)).await.unwrap_err();
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending", "failed"]);
}
