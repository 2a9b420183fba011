//! What comes at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign_service::{PaymentAnswer, RejectReason, Service, ServiceError};
use countersign_store::{Fault, PaymentRecord};
use tokio::task::JoinSet;

use crate::bank::{Bank, Place, check};

pub(crate) async fn two_phones_at_once_execute_once(place: Place) {
    let bank = Bank::new(place).await;
    let other_phone = bank.another_phone(&["PAYER1"]).await;
    let other_device = bank.another_device("SD-2", &["PAYER1"]).await;
    let servers = [bank.service.clone(), bank.another().await];
    for round in 0..25_i64 {
        let record = bank.pending("1.00").await;
        let mut answers = vec![bank.device.answer(&record), other_device.answer(&record)];
        if round % 3 == 0 {
            answers[1] = answers[0].clone(); // the very same bytes from both
        }
        let same = answers[0] == answers[1];
        let mut tasks = JoinSet::new();
        for (number, (answer, phone)) in
            answers.into_iter().zip([bank.phone.clone(), other_phone.clone()]).enumerate()
        {
            let service = servers[number % 2].clone();
            let id = record.payment.id.clone();
            tasks.spawn(async move { service.answer_payment(&phone, &id, answer, None).await });
        }
        let mut fresh = 0;
        while let Some(ended) = tasks.join_next().await {
            match ended.unwrap() {
                Ok(answered) => {
                    assert_eq!(answered.record.payment.state.name(), "executed");
                    fresh += u32::from(!answered.replayed);
                    assert!(same || !answered.replayed);
                }
                Err(error) => {
                    assert!(!same, "round {round}: the same answer is answered alike: {error}");
                    assert_eq!(error.check(), "payment-settled", "round {round}");
                }
            }
        }
        assert_eq!(fresh, 1, "round {round}");
        assert_eq!(bank.balance("PAYEE1").await, (round + 1) * 100);
    }
    bank.in_order().await;
}

/// Approve against cancel against expire: one of them, and everybody is told which.
pub(crate) async fn one_end_whoever_comes_first(place: Place) {
    let bank = Bank::new(place).await;
    let servers = [bank.service.clone(), bank.another().await, bank.another().await];
    let mut ends = std::collections::BTreeMap::new();
    for round in 0..60_u64 {
        let record = bank.pending("1.00").await;
        let id = record.payment.id.clone();
        let answer = bank.device.answer(&record);
        let overdue = round % 3 == 0;
        if overdue {
            bank.set_clock(record.payment.expires_at.minus(Duration::from_millis(1)));
        }
        let (one, phone, to) = (servers[0].clone(), bank.phone.clone(), id.clone());
        let approve =
            tokio::spawn(async move { one.answer_payment(&phone, &to, answer, None).await });
        let (two, shop, to) = (servers[1].clone(), bank.shop.clone(), id.clone());
        let cancel = tokio::spawn(async move {
            if round % 2 == 0 { Some(two.cancel_payment(&shop, &to).await) } else { None }
        });
        let three = servers[2].clone();
        if overdue {
            bank.pass(Duration::from_millis(1));
        }
        let expire = tokio::spawn(async move { three.expire_payments().await });
        let approved = approve.await.unwrap();
        let cancelled = cancel.await.unwrap();
        expire.await.unwrap().unwrap();
        let state = bank.payment(&id).await.payment.state.name();
        *ends.entry(state).or_insert(0) += 1;
        match &approved {
            Ok(answered) => {
                assert_eq!(answered.record.payment.state.name(), "executed");
                assert_eq!(state, "executed", "round {round}");
            }
            Err(error) => {
                assert_eq!(error.check(), format!("payment-{state}"), "round {round}");
            }
        }
        match &cancelled {
            Some(Ok(_)) => assert_eq!(state, "cancelled", "round {round}"),
            Some(Err(error)) => {
                let expected = match state {
                    "executed" => "payment-settled",
                    "expired" => "payment-expired",
                    other => panic!("round {round}: {other}"),
                };
                assert_eq!(error.check(), expected, "round {round}");
            }
            None => assert_ne!(state, "cancelled"),
        }
        assert_eq!(bank.states(&id).await.last(), Some(&state));
    }
    let executed = ends.get("executed").copied().unwrap_or_default();
    assert_eq!(bank.balance("PAYEE1").await, executed * 100);
    assert!(ends.values().sum::<i64>() == 60 && executed > 0, "{ends:?}");
    bank.in_order().await;
}

/// Many payments to one payee, through two servers: all of them, in batches.
pub(crate) async fn a_hot_payee_is_no_bottleneck_and_loses_nothing(place: Place) {
    const COUNT: i64 = 120;
    let bank = Bank::new(place).await;
    let servers = [bank.service.clone(), bank.another().await];
    let mut records = Vec::new();
    for _ in 0..COUNT {
        records.push(bank.pending("1.00").await);
    }
    let mut tasks = JoinSet::new();
    for (number, record) in records.iter().enumerate() {
        let (service, phone) = (servers[number % 2].clone(), bank.phone.clone());
        let (id, answer) = (record.payment.id.clone(), bank.device.answer(record));
        tasks.spawn(async move { service.answer_payment(&phone, &id, answer, None).await });
    }
    while let Some(ended) = tasks.join_next().await {
        let answered = ended.unwrap().unwrap();
        assert_eq!(answered.record.payment.state.name(), "executed");
        assert!(!answered.replayed);
    }
    assert_eq!(bank.balance("PAYEE1").await, COUNT * 100);
    assert_eq!(bank.balance("PAYER1").await, 100_000 - COUNT * 100);
    let mut committed = 0;
    for service in &servers {
        let stats = service.store().stats();
        committed += stats.get("answer_payments").map_or(0, |stats| stats.commits);
    }
    assert!(committed < COUNT as u64, "{committed} transactions");
    bank.in_order().await;
}

/// Starts answers so that they lie in one batch, and waits for all.
async fn together(
    bank: &Bank,
    answers: Vec<(PaymentRecord, PaymentAnswer)>,
) -> Vec<Result<&'static str, ServiceError>> {
    let mut tasks = Vec::new();
    for (record, answer) in answers {
        let (service, phone) = (bank.service.clone(), bank.phone.clone());
        tasks.push(tokio::spawn(async move {
            let answered = service.answer_payment(&phone, &record.payment.id, answer, None).await?;
            Ok(answered.record.payment.state.name())
        }));
    }
    let mut told = Vec::new();
    for task in tasks {
        told.push(task.await.unwrap());
    }
    told
}

/// One bad answer in a batch does the others no harm; and the money is spent in order.
pub(crate) async fn bad_answers_harm_no_others(place: Place) {
    let bank = Bank::new(place).await;
    let other_device = bank.another_device("SD-2", &["PAYER1"]).await;
    let mut records = Vec::new();
    for _ in 0..24 {
        records.push(bank.pending("100.00").await);
    }
    let wrong = bank.device.answer(&bank.pending("9.00").await);
    let answers = records.iter().enumerate().map(|(number, record)| {
        let answer = match number % 4 {
            0 => other_device.answer(record),
            1 => PaymentAnswer::Reject { reason: RejectReason::ChangedMind },
            2 if number < 12 => wrong.clone(),
            _ => bank.device.answer(record),
        };
        (record.clone(), answer)
    });
    let told = together(&bank, answers.collect()).await;
    let mut states = std::collections::BTreeMap::new();
    for (number, told) in told.into_iter().enumerate() {
        let told = told.unwrap_or_else(|error| error.check());
        match number % 4 {
            1 => assert_eq!(told, "rejected"),
            2 if number < 12 => assert_eq!(told, "authorisation-refused"),
            _ => assert!(["executed", "execution_failed"].contains(&told), "{number}: {told}"),
        }
        *states.entry(told).or_insert(0) += 1;
    }
    // 1000.00 pay for ten of the fifteen.
    assert_eq!(states["executed"], 10, "{states:?}");
    assert_eq!(states["execution_failed"], 5, "{states:?}");
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (0, 100_000));
    bank.in_order().await;
}

/// A damaged row spoils the transaction of a whole batch: then each answer has its own.
pub(crate) async fn a_spoilt_batch_is_decided_one_by_one(place: Place) {
    let bank = Bank::new(place).await;
    let mut records = Vec::new();
    for _ in 0..12 {
        records.push(bank.pending("1.00").await);
    }
    let spoilt = records[5].payment.id.clone();
    bank.tx(move |tx| {
        let sql = "UPDATE payments SET state = 'nonsense' WHERE id = ?1";
        tx.execute(sql, &[spoilt.as_str().into()]).map(|_| ())
    })
    .await;
    let answers = records.iter().map(|record| (record.clone(), bank.device.answer(record)));
    let told = together(&bank, answers.collect()).await;
    for (number, told) in told.into_iter().enumerate() {
        match told {
            Ok(state) => assert_eq!((state, number == 5), ("executed", false)),
            Err(error) => assert_eq!((error.check(), number), ("internal", 5), "{error}"),
        }
    }
    assert_eq!(bank.balance("PAYEE1").await, 1100);
}

pub(crate) async fn a_caller_that_goes_away_loses_nothing(place: Place) {
    let bank = Bank::new(place).await;
    for _ in 0..10 {
        let record = bank.pending("1.00").await;
        let (service, phone) = (bank.service.clone(), bank.phone.clone());
        let (id, answer) = (record.payment.id.clone(), bank.device.answer(&record));
        let again = answer.clone();
        let mut asked = Box::pin({
            let (service, phone, id) = (service.clone(), phone.clone(), id.clone());
            async move { service.answer_payment(&phone, &id, answer, None).await }
        });
        // It is queued by the first poll, and then nobody waits for it.
        let polled = futures_poll_once(asked.as_mut()).await;
        drop(asked);
        assert!(polled.is_none(), "it was not decided in one poll");
        let mut state = "pending";
        for _ in 0..2000 {
            state = bank.payment(&id).await.payment.state.name();
            if state == "executed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(state, "executed");
        // Who asks again is told what was decided.
        let told = service.answer_payment(&phone, &id, again, None).await.unwrap();
        assert!(told.replayed);
    }
    bank.in_order().await;
}

/// Polls a future once.
async fn futures_poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

/// A commit whose answer was lost is decided again, and what was stored is found.
pub(crate) async fn an_uncertain_commit_is_settled(place: Place) {
    let bank = Bank::new(place).await;
    for fault in [Fault::LostAfter, Fault::LostBefore] {
        let left = Arc::new(AtomicU32::new(2));
        let store = bank.store().clone().with_faults(move |name| {
            let hit = name == "answer_payments"
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    .is_ok();
            hit.then_some(fault)
        });
        let service: Arc<Service> = bank.serve_on(store);
        let record = bank.pending("1.00").await;
        let answer = bank.device.answer(&record);
        let told =
            service.answer_payment(&bank.phone, &record.payment.id, answer, None).await.unwrap();
        assert_eq!(told.record.payment.state.name(), "executed", "{fault:?}");
        bank.in_order().await;
    }
    assert_eq!(bank.balance("PAYEE1").await, 200);
    // A database that does not serve is no answer's fault: nothing happened, and it is said so.
    let store = bank
        .store()
        .clone()
        .with_faults(|name| (name == "answer_payments").then_some(Fault::Undone));
    let service = bank.serve_on(store);
    let record = bank.pending("1.00").await;
    let answer = bank.device.answer(&record);
    let told = service.answer_payment(&bank.phone, &record.payment.id, answer.clone(), None).await;
    assert_eq!(check(told), "unavailable");
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
    bank.answer(&record, answer).await.unwrap();
    bank.in_order().await;
}

/// Blocking, revoking and unbinding against answering: once it is acknowledged, nothing of the
/// device counts any more.
pub(crate) async fn a_block_holds_from_its_acknowledgement(place: Place) {
    let bank = Bank::new(place).await;
    let other = bank.another().await;
    for round in 0..12 {
        let device = bank.another_device(&format!("SD-1{round}"), &["PAYER1"]).await;
        let (first, second) = (bank.pending("1.00").await, bank.pending("1.00").await);
        let (service, phone) = (bank.service.clone(), bank.phone.clone());
        let (id, answer) = (first.payment.id.clone(), device.answer(&first));
        let racing =
            tokio::spawn(async move { service.answer_payment(&phone, &id, answer, None).await });
        let (service, admin) = (other.clone(), bank.admin.clone());
        match round % 3 {
            0 => service.block_signer(&admin, &device.id, "lost").await.map(|_| ()),
            1 => service.revoke_signer(&admin, &device.id, "lost").await.map(|_| ()),
            _ => service.unbind_signer(&admin, &device.id, "PAYER1").await.map(|_| ()),
        }
        .unwrap();
        // Begun after the acknowledgement: refused, whatever became of the other one.
        let error = bank.answer(&second, device.answer(&second)).await.unwrap_err();
        let expected = ["device-blocked", "certificate-revoked", "device-not-bound"][round % 3];
        assert_eq!(bank.incident(&error).await, expected);
        match racing.await.unwrap() {
            Ok(answered) => assert_eq!(answered.record.payment.state.name(), "executed"),
            Err(error) => assert_eq!(error.check(), "authorisation-refused"),
        }
    }
    bank.in_order().await;
}
