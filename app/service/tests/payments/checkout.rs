//! The number to match, the page of a checkout, digits without a phone, and what a payer's "this is
//! not mine" does (D5 to D7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use countersign_payment::{ConfirmationRequest, offline};
use countersign_service::{PaymentAnswer, PhoneDevice, RejectReason, ServiceError};
use countersign_store::{AccountStatus, AnswerOutcome, AuditOutcome, PaymentRecord, SignMethod};

use crate::bank::{Bank, Place, START, Token, check};
use crate::counted::CountedVault;
use crate::proofs::Browser;

const NO: PaymentAnswer = PaymentAnswer::Reject { reason: RejectReason::NotMine };

fn other_code(code: &str) -> String {
    if code == "10" { "11".to_owned() } else { "10".to_owned() }
}

fn digits(token: &Token, record: &PaymentRecord) -> String {
    match token.answer(record) {
        PaymentAnswer::Ocra { digits, .. } => digits,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_browser_matches_the_number(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let record = bank.pending("12.34").await;
    let id = &record.payment.id;
    let code = service.match_code(id).await.unwrap();
    assert_eq!(bank.another().await.match_code(id).await.unwrap(), code, "every server's");
    let answer = async |code: Option<&str>, answer: PaymentAnswer| {
        let phone = browser.actor(&bank).await;
        service.answer_payment(&phone, id, answer, code.map(str::to_owned)).await
    };
    // Missing or malformed: no secret is in that.
    let device = &bank.device;
    for bad in [None, Some(""), Some("1"), Some("123"), Some("1x"), Some("１２")] {
        assert_eq!(check(answer(bad, device.answer(&record)).await), "answer-format", "{bad:?}");
    }
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 0);
    // Wrong: one error outside, counted for the payment and not for the device.
    let signed = device.answer(&record);
    let error = answer(Some(&other_code(&code)), signed.clone()).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "match-code");
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 1);
    assert_eq!(service.signer(&device.id).await.unwrap().signer.failures, 0);
    let told = service.phone_authorisations(&browser.actor(&bank).await, id).await.unwrap();
    assert_eq!((told[0].outcome, &told[0].failed_check), (AnswerOutcome::Refused, &None));
    // Not even if the signature is wrong too: who has no number does not get to the device.
    let foreign = bank.pending("1.00").await;
    let error = answer(Some(&other_code(&code)), device.answer(&foreign)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "match-code");
    assert_eq!(service.signer(&device.id).await.unwrap().signer.failures, 0);
    // The very same signature with the right number is another answer.
    let answered = answer(Some(&code), signed.clone()).await.unwrap();
    assert_eq!((answered.record.payment.state.name(), answered.replayed), ("executed", false));
    assert!(answer(Some(&code), signed).await.unwrap().replayed);
    bank.in_order().await;
}

pub(crate) async fn numbers_are_guessed_three_times_at_most(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let record = bank.pending("12.34").await;
    let id = &record.payment.id;
    let code = service.match_code(id).await.unwrap();
    let wrong = (10..100).map(|n| n.to_string()).filter(|n| *n != code);
    for guess in wrong.take(3) {
        let phone = browser.actor(&bank).await;
        let error = service.answer_payment(&phone, id, bank.device.answer(&record), Some(guess));
        assert_eq!(bank.incident(&error.await.unwrap_err()).await, "match-code");
    }
    let payment = bank.payment(id).await.payment;
    assert_eq!((payment.state.name(), payment.wrong_answers), ("failed", 3));
    let phone = browser.actor(&bank).await;
    let late = service.answer_payment(&phone, id, bank.device.answer(&record), Some(code)).await;
    assert_eq!(check(late), "payment-failed");
    assert_eq!(service.signer(&bank.device.id).await.unwrap().signer.failures, 0);
    // All numbers have two digits, and payments have different ones.
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..300 {
        let code = service.match_code(&format!("pay_{n}")).await.unwrap();
        assert!((10..100).contains(&code.parse::<u32>().unwrap()) && code.len() == 2, "{code}");
        seen.insert(code);
    }
    assert!(seen.len() > 60, "{}", seen.len());
}

pub(crate) async fn a_program_may_send_the_number(place: Place) {
    let bank = Bank::new(place).await;
    let (service, phone) = (&bank.service, &bank.phone);
    let record = bank.pending("12.34").await;
    let id = &record.payment.id;
    let code = service.match_code(id).await.unwrap();
    let signed = bank.device.answer(&record);
    let wrong = service.answer_payment(phone, id, signed.clone(), Some(other_code(&code))).await;
    assert_eq!(bank.incident(&wrong.unwrap_err()).await, "match-code");
    let good = service.answer_payment(phone, id, signed, Some(code)).await.unwrap();
    assert_eq!(good.record.payment.state.name(), "executed");
    // And a rejection needs none, of a browser either.
    let browser = Browser::enrol(&bank, &["PAYER1"]).await;
    let record = bank.pending("1.00").await;
    let no = PaymentAnswer::Reject { reason: RejectReason::ChangedMind };
    let phone = browser.actor(&bank).await;
    let said = service.answer_payment(&phone, &record.payment.id, no, None).await.unwrap();
    assert_eq!(said.record.payment.state.name(), "rejected");
}

pub(crate) async fn a_checkout_is_its_creators(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let record = bank.pending("12.34").await;
    let id = &record.payment.id;
    let made = service.checkout(&bank.shop, id).await.unwrap();
    assert_eq!(made.match_code, service.match_code(id).await.unwrap());
    assert_eq!(made.key.len(), 22);
    let again = bank.another().await.checkout(&bank.shop, id).await.unwrap();
    assert_eq!(made.key, again.key, "every server's");
    // An operator who sees all payments did not ask for this one; nor is there an unknown one.
    assert_eq!(check(service.checkout(&bank.admin, id).await), "not-found");
    let console = countersign_service::Actor::Device("phn_x".to_owned());
    assert_eq!(check(service.checkout(&console, id).await), "scope");
    assert_eq!(check(service.checkout(&bank.shop, "pay_none").await), "not-found");
    let (admin, _) = service
        .add_operator(
            &countersign_service::Actor::Console,
            "other",
            &[countersign_store::Role::Integrator],
        )
        .await
        .unwrap();
    let other = countersign_service::Actor::Operator(admin);
    assert_eq!(check(service.checkout(&other, id).await), "not-found");
    // The key is good for its payment, and for nothing else.
    let second = bank.pending("1.00").await.payment.id;
    for (id, key) in [
        (id.as_str(), ""),
        (id, "x"),
        (id, &made.key[1..]),
        (id, &format!("{}A", *made.key)),
        (id, &format!("{}=", &made.key[1..])),
        // The same bits, but for those that mean nothing.
        (id, &format!("{}{}", &made.key[..21], char::from(made.key.as_bytes()[21] + 1))),
        (&second, &made.key),
        ("pay_none", &made.key),
    ] {
        let view = service.checkout_view(id, key).await;
        assert_eq!(view.unwrap_err(), ServiceError::Unauthenticated, "{id} {key}");
        let wait = service.wait_checkout(id, key, 0, Duration::ZERO).await;
        assert_eq!(wait.unwrap_err(), ServiceError::Unauthenticated);
        let answer = service.answer_offline(id, key, "TK-1", "12345678").await;
        assert_eq!(answer.unwrap_err(), ServiceError::Unauthenticated);
    }
    assert_eq!(bank.payment(id).await.payment, record.payment, "nothing changed");
}

pub(crate) async fn a_checkout_shows_how_it_ends(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let record = bank.pending("12.34").await;
    let id = record.payment.id.clone();
    let key = service.checkout(&bank.shop, &id).await.unwrap().key.to_string();
    let view = service.checkout_view(&id, &key).await.unwrap();
    assert_eq!((view.payment.as_str(), view.state.name()), (id.as_str(), "pending"));
    assert_eq!(view.request, ConfirmationRequest::parse(&record.payment.request).unwrap());
    assert_eq!(view.match_code, Some(service.match_code(&id).await.unwrap()));
    assert!(view.offline.is_some() && view.reason.is_none());
    // Who waits is woken when it executes.
    let (waiting, service_, key_, id_) = (view.version, service.clone(), key.clone(), id.clone());
    let wait = tokio::spawn(async move {
        service_.wait_checkout(&id_, &key_, waiting, Duration::from_secs(30)).await
    });
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    let ended = wait.await.unwrap().unwrap();
    assert_eq!((ended.state.name(), &ended.match_code, &ended.offline), ("executed", &None, &None));
    assert!(ended.version > view.version && ended.reason.is_none());
    // While it waits, who waits is given no text: nothing is signed for each change.
    let waiting = bank.pending("1.00").await.payment.id;
    let opens = service.checkout(&bank.shop, &waiting).await.unwrap().key;
    let seen = service.wait_checkout(&waiting, &opens, -1, Duration::ZERO).await.unwrap();
    assert!(seen.match_code.is_some() && seen.offline.is_none());
    let at_once = service.wait_checkout(&id, &key, ended.version, Duration::from_secs(30)).await;
    assert_eq!(at_once.unwrap(), ended, "nothing more will happen");
    // Why not, by name; and time ends it for who only looks.
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let key = service.checkout(&bank.shop, id).await.unwrap().key;
    bank.set_clock(record.payment.expires_at);
    let view = service.checkout_view(id, &key).await.unwrap();
    assert_eq!((view.state.name(), view.reason.as_deref()), ("expired", Some("no-answer-in-time")));
}

pub(crate) async fn a_checkouts_key_ends_a_day_after_the_payment(place: Place) {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    const MOMENT: Duration = Duration::from_millis(1);
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let opens = async |id: &str, key: &str| {
        let opened = service.authorise_checkout(id, key).await;
        assert_eq!(service.checkout_view(id, key).await.map(drop), opened);
        assert_eq!(service.wait_checkout(id, key, 0, DAY).await.map(drop), opened);
        if opened.is_err() {
            let answer = service.answer_offline(id, key, "TK-1", "12345678").await;
            assert_eq!(answer.map(drop), opened);
        }
        opened
    };
    let (paid, left) = (bank.executed("2.00").await.payment, bank.pending("1.00").await.payment);
    let key_of = async |id: &str| service.checkout(&bank.shop, id).await.unwrap().key;
    let (paid_key, left_key) = (key_of(&paid.id).await, key_of(&left.id).await);
    bank.set_clock(paid.updated_at.plus(DAY - MOMENT));
    opens(&paid.id, &paid_key).await.unwrap();
    bank.pass(MOMENT);
    assert_eq!(opens(&paid.id, &paid_key).await, Err(ServiceError::Unauthenticated));
    // One that time ended, and that nobody looked at when it did.
    bank.set_clock(left.expires_at.plus(DAY - MOMENT));
    opens(&left.id, &left_key).await.unwrap();
    bank.pass(MOMENT);
    assert_eq!(opens(&left.id, &left_key).await, Err(ServiceError::Unauthenticated));
    // A refund changes the payment and revives no key.
    bank.refund(&paid.id, "1.00").await.unwrap();
    assert_eq!(bank.payment(&paid.id).await.payment.updated_at, service.now());
    assert_eq!(opens(&paid.id, &paid_key).await, Err(ServiceError::Unauthenticated));
    bank.in_order().await;
}

/// Keys and numbers are looked at for anybody: the vault, which may be an HSM, is asked once.
pub(crate) async fn what_anybody_shows_sets_no_vault_to_work(place: Place) {
    let bank = Bank::new(place).await;
    let id = bank.pending("12.34").await.payment.id;
    let right = bank.service.checkout(&bank.shop, &id).await.unwrap().key;
    let cmacs = Arc::new(AtomicU64::new(0));
    let counted = cmacs.clone();
    let service = bank.serve_with(|inner| {
        Arc::new(CountedVault { inner, cmacs: counted, meanwhile: Arc::new(|| ()) })
    });
    for bad in ["", "x", "not a key, not a key..", "AAAAAAAAAAAAAAAAAAAAAB", "ＡＡＡＡＡＡＡ+"]
    {
        let refused = service.authorise_checkout(&id, bad).await;
        assert_eq!(refused, Err(ServiceError::Unauthenticated), "{bad}");
    }
    assert_eq!(cmacs.load(Ordering::SeqCst), 0, "what is no key is not looked at");
    let wrong = "A".repeat(22);
    assert_eq!(service.authorise_checkout(&id, &wrong).await, Err(ServiceError::Unauthenticated));
    let asked = cmacs.load(Ordering::SeqCst);
    assert_eq!(asked, 4, "the storage key's check value, and a key for each label");
    for n in 0..50 {
        let other = format!("pay_{n}");
        let refused = service.authorise_checkout(&other, &wrong).await;
        assert_eq!(refused, Err(ServiceError::Unauthenticated));
        service.match_code(&other).await.unwrap();
    }
    service.checkout_view(&id, &right).await.unwrap();
    assert_eq!(cmacs.load(Ordering::SeqCst), asked);
}

pub(crate) async fn digits_without_a_phone_execute_it(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let token = bank.token("TK-1", &["PAYER1"]).await;
    let record = bank.pending("12.34").await;
    let id = &record.payment.id;
    let checkout = service.checkout(&bank.shop, id).await.unwrap();
    // The device reads the text, knows the server by its certificate, and shows the very bytes.
    let text = checkout.offline.unwrap();
    let read = offline::OfflineRequest::parse(&text).unwrap();
    let authority = service.authority();
    let shown = read.verify(bank.provider(), &authority.server, START).unwrap();
    assert_eq!(shown, ConfirmationRequest::parse(&record.payment.request).unwrap());
    assert_eq!(read.request(), record.payment.request);
    let typed = countersign_payment::ocra::respond(&token.key, read.request()).unwrap();
    let answered = service.answer_offline(id, &checkout.key, "TK-1", &typed).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "executed");
    let row = &answered.authorisation;
    assert_eq!((&row.phone_id, row.method), (&None, Some(SignMethod::Ocra)));
    assert_eq!(row.device_id.as_deref(), Some(token.id.as_str()));
    assert!(service.answer_offline(id, &checkout.key, "TK-1", &typed).await.unwrap().replayed);
    let audit = bank.audit_of(id).await;
    let executed = audit.iter().find(|row| row.entry.action == "payment.execute").unwrap();
    assert_eq!(
        (executed.entry.outcome, executed.entry.actor.as_str()),
        (AuditOutcome::Done, "checkout")
    );
    let timeline = service.payment_timeline(&bank.admin, id).await.unwrap();
    assert_eq!(timeline.last().unwrap().actor, "checkout");
    // The papers hold too.
    service.payment_receipt(&bank.shop, id).await.unwrap();
    let evidence = service.payment_evidence(&bank.admin, id).await.unwrap();
    let report = countersign_payment::evidence::verify(&evidence, bank.root());
    assert!(report.is_good(), "{:?}", report.checks);
    bank.in_order().await;
}

pub(crate) async fn wrong_digits_count_without_a_phone_too(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let token = bank.token("TK-1", &["PAYER1"]).await;
    let foreign = bank.token("TK-2", &["PAYEE1"]).await;
    let failures = async |id: &str| service.signer(id).await.unwrap().signer.failures;
    let mut wrong = 0;
    let mut refused = async |record: &PaymentRecord, serial: &str, name: &str| {
        let id = &record.payment.id;
        let key = service.checkout(&bank.shop, id).await.unwrap().key;
        wrong += 1;
        let answer = service.answer_offline(id, &key, serial, &format!("{wrong:08}")).await;
        assert_eq!(bank.incident(&answer.unwrap_err()).await, name);
    };
    let record = bank.pending("1.00").await;
    refused(&record, "TK-1", "dynamic-password").await;
    assert_eq!(failures(&token.id).await, 1, "as if a phone had brought it");
    // A stranger's device, an unknown one, one that signs otherwise.
    refused(&record, "TK-2", "device-not-bound").await;
    assert_eq!(failures(&foreign.id).await, 0);
    refused(&record, "TK-9", "device-unknown").await;
    assert_eq!(bank.payment(&record.payment.id).await.payment.state.name(), "failed");
    let key = service.checkout(&bank.shop, &record.payment.id).await.unwrap().key;
    let late = service.answer_offline(&record.payment.id, &key, "TK-1", "12345678").await;
    assert_eq!(check(late), "payment-failed");
    let bad = service.answer_offline(&record.payment.id, &key, "TK-1", "1234567").await;
    assert_eq!(check(bad), "answer-format");
    // Five in a row block it, wherever they were typed.
    for n in 0..4 {
        refused(&bank.pending("1.00").await, "TK-1", "dynamic-password").await;
        assert_eq!(failures(&token.id).await, n + 2);
    }
    let record = bank.pending("1.00").await;
    let key = service.checkout(&bank.shop, &record.payment.id).await.unwrap().key;
    let good = digits(&token, &record);
    let blocked = service.answer_offline(&record.payment.id, &key, "TK-1", &good).await;
    assert_eq!(bank.incident(&blocked.unwrap_err()).await, "device-blocked");
    bank.in_order().await;
}

pub(crate) async fn what_is_not_the_payers_freezes_the_account(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    // Others of the same account wait at that moment.
    let (theft, waiting, later) =
        (bank.pending("5.00").await, bank.pending("6.00").await, bank.pending("7.00").await);
    let id = &theft.payment.id;
    let answered = bank.answer(&theft, NO).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "rejected");
    assert_eq!(answered.record.payment.reason.as_deref(), Some("not-mine"));
    assert_eq!(answered.record.payer.status, AccountStatus::Frozen);
    let account = service.account(&bank.admin, &bank.payer.id).await.unwrap();
    assert_eq!(account, answered.record.payer);
    assert!(account.status_reason.unwrap().contains(id), "it says why");
    let frozen = bank.audit_of(&bank.payer.id).await;
    let frozen = frozen.iter().find(|row| row.entry.action == "account.freeze").unwrap();
    assert_eq!(frozen.entry.actor, bank.phone.id());
    assert!(frozen.entry.detail.contains("not-mine") && frozen.entry.detail.contains(id));
    assert_eq!(bank.events_of("account.frozen").await, std::slice::from_ref(&bank.payer.id));
    assert_eq!(bank.events_of("payment.rejected").await, std::slice::from_ref(id));
    // The same again changes nothing more.
    assert!(bank.answer(&theft, NO).await.unwrap().replayed);
    assert_eq!(bank.events_of("account.frozen").await.len(), 1);
    // What waited ends as for any frozen account, and nothing new is taken.
    let ended = bank.answer(&waiting, bank.device.answer(&waiting)).await.unwrap();
    assert_eq!(ended.record.payment.state.name(), "execution_failed");
    assert_eq!(ended.record.payment.reason.as_deref(), Some("account-frozen"));
    let order = bank.order("1.00");
    let new = service.create_payment(&bank.shop, &order, crate::bank::fresh()).await;
    assert_eq!(check(new), "account-frozen");
    assert_eq!(bank.balance("PAYER1").await, 100_000);
    // An operator opens it again.
    service.unfreeze_account(&bank.admin, &bank.payer.id).await.unwrap();
    let done = bank.answer(&later, bank.device.answer(&later)).await.unwrap();
    assert_eq!(done.record.payment.state.name(), "executed");
    // An account that is frozen already keeps its reason.
    let record = bank.pending("1.00").await;
    service.freeze_account(&bank.admin, &bank.payer.id, "a court order").await.unwrap();
    let said = bank.answer(&record, NO).await.unwrap();
    assert_eq!(said.record.payer.status_reason.as_deref(), Some("a court order"));
    assert_eq!(bank.events_of("account.frozen").await.len(), 1);
    bank.in_order().await;
}

/// Answers that are decided together see the freeze in their order.
pub(crate) async fn a_freeze_counts_within_its_batch(place: Place) {
    let bank = Bank::new(place).await;
    let mut records = Vec::new();
    for _ in 0..12 {
        records.push(bank.pending("1.00").await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (n, record) in records.iter().enumerate() {
        let (service, phone, id) =
            (bank.service.clone(), bank.phone.clone(), record.payment.id.clone());
        let answer = if n == 5 { NO } else { bank.device.answer(record) };
        tasks
            .spawn(async move { service.answer_payment(&phone, &id, answer, None).await.unwrap() });
    }
    let ends = tasks.join_all().await;
    let count =
        |state: &str| ends.iter().filter(|end| end.record.payment.state.name() == state).count();
    let (executed, failed) = (count("executed"), count("execution_failed"));
    assert_eq!((executed + failed, count("rejected")), (11, 1));
    assert_eq!(bank.balance("PAYEE1").await, 100 * i64::try_from(executed).unwrap());
    let account = bank.service.account(&bank.admin, &bank.payer.id).await.unwrap();
    assert_eq!(account.status, AccountStatus::Frozen);
    bank.in_order().await;
}

pub(crate) async fn a_phone_is_told_the_devices_that_may_answer(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let token = bank.token("TK-1", &["PAYER1"]).await;
    bank.token("TK-2", &["PAYEE1"]).await;
    let record = bank.pending("1.00").await;
    let id = &record.payment.id;
    let told = async || service.phone_devices(&bank.phone, id).await.unwrap();
    let device = |serial: &str, method| PhoneDevice {
        serial: serial.to_owned(),
        label: "key".to_owned(),
        method,
    };
    let both = [device("SD-1", SignMethod::Pki), device("TK-1", SignMethod::Ocra)];
    assert_eq!(told().await, both);
    service.block_signer(&bank.admin, &bank.device.id, "lost").await.unwrap();
    assert_eq!(told().await, both[1..]);
    service.unblock_signer(&bank.admin, &bank.device.id).await.unwrap();
    service.revoke_signer(&bank.admin, &token.id, "lost").await.unwrap();
    assert_eq!(told().await, both[..1]);
    bank.pass(Duration::from_secs(366 * 86_400));
    assert_eq!(told().await, [], "its certificate has expired");
    let foreign = bank.another_phone(&["PAYEE1"]).await;
    assert_eq!(check(service.phone_devices(&foreign, id).await), "not-found");
    assert_eq!(check(service.phone_devices(&bank.phone, "pay_none").await), "not-found");
}
