//! What an answer does to a payment (D4 to D7), and what is wrong with the others.

use std::time::Duration;

use countersign_crypto::aws_lc;
use countersign_payment::{ConfirmationRequest, sign};
use countersign_pki::Role;
use countersign_service::{PaymentAnswer, PaymentPolicy, Policy, RejectReason};
use countersign_store::{
    AccountStatus, AnswerOutcome, AuditOutcome, CertificateIntent, DeviceStatus, PaymentRecord,
    SignMethod,
};

use crate::bank::{Bank, Device, House, Place, START, check, fresh, rng, value};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) async fn a_signature_executes_the_payment(place: Place) {
    let bank = Bank::new(place).await;
    let record = bank.pending("12.34").await;
    let answered = bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "executed");
    assert_eq!(answered.authorisation.outcome, AnswerOutcome::Accepted);
    assert_eq!(answered.authorisation.method, Some(SignMethod::Pki));
    assert_eq!(answered.authorisation.device_id.as_deref(), Some(bank.device.id.as_str()));
    assert!(answered.authorisation.certificate.is_some() && !answered.replayed);
    let id = &record.payment.id;
    assert_eq!(bank.states(id).await, ["created", "pending", "approved", "executing", "executed"]);
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (98_766, 1234));
    let postings = bank.service.payment_postings(&bank.admin, id).await.unwrap();
    let [posting] = postings.as_slice() else { panic!("{postings:?}") };
    assert_eq!((posting.amount, posting.reference.as_str()), (1234, id.as_str()));
    assert_eq!((posting.debit_balance, posting.credit_balance), (98_766, 1234));
    // The answer's record is the stored one.
    assert_eq!(bank.payment(id).await, answered.record);
    let audit = bank.audit_of(id).await;
    let actions: Vec<_> = audit.iter().map(|row| row.entry.action.as_str()).collect();
    assert_eq!(actions, ["payment.create", "payment.execute"]);
    let executed = &audit[1].entry;
    assert_eq!((executed.outcome, executed.actor.as_str()), (AuditOutcome::Done, bank.phone.id()));
    assert!(executed.detail.contains(&posting.id), "{}", executed.detail);
    assert!(executed.detail.contains(&answered.authorisation.id), "{}", executed.detail);
    bank.in_order().await;
}

pub(crate) async fn a_dynamic_password_executes_the_payment(place: Place) {
    let bank = Bank::new(place).await;
    let token = bank.token("TK-1", &["PAYER1"]).await;
    let record = bank.pending("1.00").await;
    let other = bank.pending("1.00").await;
    // Keyed over the whole request: the digits of another payment of the same amount do not fit.
    let error = bank.answer(&record, token.answer(&other)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "dynamic-password");
    let answered = bank.answer(&record, token.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "executed");
    assert_eq!(answered.authorisation.method, Some(SignMethod::Ocra));
    assert_eq!(answered.authorisation.certificate, None);
    // Its key is erased: nothing of it counts any more.
    bank.service.revoke_signer(&bank.admin, &token.id, "lost").await.unwrap();
    let error = bank.answer(&other, token.answer(&other)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "device-revoked");
    bank.in_order().await;
}

pub(crate) async fn a_signature_with_sm2_executes_the_payment(place: Place) {
    let bank = Bank::of_sm2(place).await;
    let record = bank.pending("12.34").await;
    let answered = bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "executed");
    let other = bank.pending("12.34").await;
    let error = bank.answer(&other, bank.device.answer(&record)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "answer-signature");
}

pub(crate) async fn only_the_stored_bytes_are_what_was_signed(place: Place) {
    let policy = PaymentPolicy { wrong_answers_max: 5, ..PaymentPolicy::default() };
    let policy = Policy { payments: policy, ..Policy::default() };
    let bank = Bank::with(place, aws_lc::provider(), policy).await;
    let alterations: [fn(&mut ConfirmationRequest); 8] = [
        |request| {
            request.amount = countersign_payment::Amount::parse("12.35", "CNY").unwrap();
        },
        |request| {
            request.payee_account = countersign_payment::AccountNumber::parse("OUTSIDE").unwrap();
        },
        |request| {
            request.payer_account = countersign_payment::AccountNumber::parse("PAYEE1").unwrap();
        },
        |request| request.payee_name = "Corner Bakery 2".into(),
        |request| request.order = "Order 18".into(),
        |request| request.expires = request.expires.plus(Duration::from_secs(1)),
        |request| request.payment = "pay_other".into(),
        |request| match request.alerts.is_empty() {
            true => request.alerts.push("new-payee".into()),
            false => request.alerts.clear(),
        },
    ];
    for alter in alterations {
        let record = bank.pending("12.34").await;
        let mut request = ConfirmationRequest::parse(&record.payment.request).unwrap();
        alter(&mut request);
        let altered = request.to_bytes().unwrap();
        assert!(altered != record.payment.request);
        let error = bank.answer(&record, bank.device.answer_to(&altered)).await.unwrap_err();
        assert_eq!(error.check(), "authorisation-refused");
        assert_eq!(bank.incident(&error).await, "answer-signature");
        // The honest answer still counts, and ends the device's row of wrong ones.
        let good = bank.answer(&record, bank.device.answer(&record)).await.unwrap();
        assert_eq!(good.record.payment.state.name(), "executed");
    }
    assert_eq!(bank.balance("PAYEE1").await, 8 * 1234);
    bank.in_order().await;
}

pub(crate) async fn a_signature_counts_for_its_payment_only(place: Place) {
    let bank = Bank::new(place).await;
    let (one, other) = (bank.pending("5.00").await, bank.pending("5.00").await);
    let error = bank.answer(&other, bank.device.answer(&one)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "answer-signature");
    // And for a confirmation only: the same key over the bytes without their domain.
    let bare = bank.device.key.sign(&mut rng(), &other.payment.request).unwrap();
    let bare = PaymentAnswer::Pki { device_serial: "SD-1".into(), signature: bare };
    let error = bank.answer(&other, bare).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "answer-signature");
    assert_eq!(bank.balance("PAYEE1").await, 0);
    assert_eq!(bank.states(&other.payment.id).await, ["created", "pending"]);
}

/// One error outside, whatever is wrong; which, only the audit says.
pub(crate) async fn wrong_devices_are_refused_alike(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let stranger = Device { serial: "SD-9".into(), ..bank.device.clone() };
    let unbound = bank.another_device("SD-2", &["PAYEE1"]).await;
    let blocked = bank.another_device("SD-3", &["PAYER1"]).await;
    service.block_signer(&bank.admin, &blocked.id, "lost").await.unwrap();
    let revoked = bank.another_device("SD-4", &["PAYER1"]).await;
    service.revoke_signer(&bank.admin, &revoked.id, "lost").await.unwrap();
    let token = bank.token("TK-1", &["PAYER1"]).await;
    let as_token = Device { serial: token.serial.clone(), ..bank.device.clone() };
    let taken = bank.another_device("SD-5", &["PAYER1"]).await;
    service.unbind_signer(&bank.admin, &taken.id, "PAYER1").await.unwrap();
    let mut told = Vec::new();
    for (device, expected) in [
        (&stranger, "device-unknown"),
        (&unbound, "device-not-bound"),
        (&blocked, "device-blocked"),
        (&revoked, "certificate-revoked"),
        (&as_token, "method"),
        (&taken, "device-not-bound"),
        // Another's key under this one's name.
        (&Device { key: blocked.key.clone(), ..bank.device.clone() }, "answer-signature"),
    ] {
        let record = bank.pending("5.00").await;
        let error = bank.answer(&record, device.answer(&record)).await.unwrap_err();
        assert_eq!(bank.incident(&error).await, expected);
        told.push((error.check(), error.to_string()));
        assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(bank.balance("PAYEE1").await, 0);
    // None of these were the fault of a device of the payer's, but the last and the wrong method.
    let failures = async |id: &str| service.signer(id).await.unwrap().signer.failures;
    for device in [&unbound, &blocked, &revoked, &taken] {
        assert_eq!(failures(&device.id).await, 0);
    }
    assert_eq!((failures(&bank.device.id).await, failures(&token.id).await), (1, 1));
    bank.in_order().await;
}

/// Gives a device another live certificate, as only a fault or somebody in the database does.
pub(crate) async fn plant(bank: &Bank, device_id: &str, certificate: (Vec<u8>, String), days: u32) {
    let (der, number) = certificate;
    let (id, not_after) = (device_id.to_owned(), START.plus(DAY * days));
    let intent = CertificateIntent {
        number: number.clone(),
        device_id: id.clone(),
        public_key: [7; 32],
        not_after,
        at: START,
    };
    bank.tx(move |tx| {
        if let Some(live) = tx.device_by_id(&id)?.and_then(|record| record.certificate) {
            tx.revoke_certificate(&live.number, "replaced", START)?;
        }
        tx.intend_certificate(&intent)?;
        tx.record_issued_certificate(&number, &der, START)
    })
    .await;
}

pub(crate) async fn certificates_are_verified_to_the_root(place: Place) {
    let bank = Bank::new(place).await;
    let mut own = bank.house();
    let mut foreign = House::new(aws_lc::provider(), 8);
    let key = &*bank.device.key;
    let of =
        |(der, number): (Vec<u8>, countersign_pki::CertificateNumber)| (der, number.to_string());
    for (certificate, expected) in [
        (of(foreign.certify(Role::SecurityDevice, "SD-1", key, 10 * DAY)), "certificate-issuer"),
        (of(own.certify(Role::Terminal, "SD-1", key, 10 * DAY)), "certificate-role"),
        (of(own.certify(Role::SecurityDevice, "SD-2", key, 10 * DAY)), "certificate-identity"),
    ] {
        plant(&bank, &bank.device.id, certificate, 10).await;
        let record = bank.pending("5.00").await;
        let error = bank.answer(&record, bank.device.answer(&record)).await.unwrap_err();
        assert_eq!(bank.incident(&error).await, expected);
    }
    // The same key under a good one.
    plant(&bank, &bank.device.id, of(own.certify(Role::SecurityDevice, "SD-1", key, DAY)), 1).await;
    let record = bank.pending("5.00").await;
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    // It has expired.
    bank.pass(DAY);
    let record = bank.pending("5.00").await;
    let error = bank.answer(&record, bank.device.answer(&record)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "certificate-expired");
    bank.in_order().await;
}

pub(crate) async fn what_happens_to_a_device_meanwhile_counts(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let record = bank.pending("5.00").await;
    let answer = bank.device.answer(&record);
    // Revoked between the request and the answer.
    service.revoke_signer(&bank.admin, &bank.device.id, "lost").await.unwrap();
    let error = bank.answer(&record, answer).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "certificate-revoked");
    // It enrols again with another key: the old key is nobody's, the new one counts.
    let new = bank.another_device("SD-1", &["PAYER1"]).await;
    assert_eq!(new.id, bank.device.id);
    let error = bank.answer(&record, bank.device.answer(&record)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "answer-signature");
    let answered = bank.answer(&record, new.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "executed");
    // A phone that is revoked in between learns nothing more, and changes nothing.
    let record = bank.pending("5.00").await;
    let phone = bank.phone.id().to_owned();
    service.revoke_phone(&bank.admin, &phone, "lost").await.unwrap();
    let refused = bank.answer(&record, new.answer(&record)).await;
    assert_eq!(check(refused), "not-found");
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
}

pub(crate) async fn the_same_answer_is_answered_as_before(place: Place) {
    let bank = Bank::new(place).await;
    let other_phone = bank.another_phone(&["PAYER1"]).await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    // A wrong one: one incident, counted once, whoever brings it again.
    let wrong = bank.device.answer(&bank.pending("6.00").await);
    let first = bank.answer(&record, wrong.clone()).await.unwrap_err();
    let again = bank.answer(&record, wrong.clone()).await.unwrap_err();
    assert_eq!(first, again);
    let elsewhere = bank.service.answer_payment(&other_phone, id, wrong.clone(), None).await;
    assert_eq!(elsewhere.unwrap_err(), first);
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 1);
    // A good one: executed once.
    let good = bank.device.answer(&record);
    let first = bank.answer(&record, good.clone()).await.unwrap();
    for phone in [&bank.phone, &other_phone] {
        let again = bank.service.answer_payment(phone, id, good.clone(), None).await.unwrap();
        assert!(again.replayed);
        assert_eq!(
            (again.record, again.authorisation),
            (first.record.clone(), first.authorisation.clone())
        );
    }
    // The wrong one is still answered as it was, and another good one comes too late.
    assert_eq!(bank.answer(&record, wrong).await.unwrap_err().check(), "authorisation-refused");
    let late = bank.answer(&record, bank.device.answer(&record)).await;
    assert_eq!(check(late), "payment-settled");
    assert_eq!(bank.balance("PAYEE1").await, 500);
    let answers = bank.service.payment_authorisations(&bank.admin, id).await.unwrap();
    assert_eq!(answers.len(), 2);
    bank.in_order().await;
}

pub(crate) async fn wrong_answers_end_the_payment(place: Place) {
    let bank = Bank::new(place).await;
    let other = bank.pending("6.00").await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let wrong = || bank.device.answer(&other); // signatures differ each time
    for count in 1..=3_u32 {
        let error = bank.answer(&record, wrong()).await.unwrap_err();
        assert_eq!(error.check(), "authorisation-refused");
        assert_eq!(bank.payment(id).await.payment.wrong_answers, count);
    }
    assert_eq!(bank.states(id).await, ["created", "pending", "failed"]);
    let failed = bank.payment(id).await.payment;
    assert_eq!(failed.reason.as_deref(), Some("too-many-wrong-answers"));
    assert!(failed.incident.is_some_and(|incident| incident.starts_with("inc_")));
    // The right answer comes too late.
    assert_eq!(check(bank.answer(&record, bank.device.answer(&record)).await), "payment-failed");
    assert_eq!(bank.balance("PAYEE1").await, 0);
    let actions: Vec<_> = bank.audit_of(id).await.into_iter().map(|row| row.entry.action).collect();
    let expected = [
        "payment.create",
        "payment.answer",
        "payment.answer",
        "payment.answer",
        "payment.fail",
        "payment.answer", // the one that came too late
    ];
    assert_eq!(actions.len(), expected.len(), "{actions:?}");
    for action in expected {
        assert!(actions.iter().any(|found| found == action), "{actions:?}");
    }
}

pub(crate) async fn a_device_is_alerted_and_then_blocked(place: Place) {
    let bank = Bank::new(place).await;
    let other = bank.pending("6.00").await;
    let wrong = async |record: &PaymentRecord| {
        let error = bank.answer(record, bank.device.answer(&other)).await.unwrap_err();
        bank.incident(&error).await
    };
    let signer = async || bank.service.signer(&bank.device.id).await.unwrap();
    // Two wrong ones, and a good one: it begins anew.
    let record = bank.pending("5.00").await;
    for _ in 0..2 {
        assert_eq!(wrong(&record).await, "answer-signature");
    }
    assert_eq!(signer().await.signer.failures, 2);
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(signer().await.signer.failures, 0);
    // Five in a row, over several payments: an alert with the third, a block with the fifth.
    for count in 1..=5_u32 {
        let record = bank.pending("5.00").await;
        assert_eq!(wrong(&record).await, "answer-signature");
        let now = signer().await;
        assert_eq!(now.signer.failures, count);
        assert_eq!(now.signer.alerted_at.is_some(), count >= 3, "{count}");
        let blocked = now.device.device.status == DeviceStatus::Blocked;
        assert_eq!(blocked, count >= 5, "{count}");
    }
    let record = bank.pending("5.00").await;
    let error = bank.answer(&record, bank.device.answer(&record)).await.unwrap_err();
    assert_eq!(bank.incident(&error).await, "device-blocked");
    let device = signer().await.device.device;
    assert_eq!(device.block_reason.as_deref(), Some("too many wrong answers in a row"));
    let rows = bank.audit_of(&bank.device.id).await;
    let of = |action: &str| rows.iter().filter(|row| row.entry.action == action).count();
    assert_eq!((of("security-device.alert"), of("security-device.block")), (2, 1));
    // The operator lets it in again.
    bank.service.unblock_signer(&bank.admin, &bank.device.id).await.unwrap();
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    bank.in_order().await;
}

/// A phone that names others' devices does them no harm.
pub(crate) async fn wrong_answers_block_no_strangers_device(place: Place) {
    let bank = Bank::new(place).await;
    let victim = bank.another_device("SD-2", &["PAYEE1"]).await;
    for _ in 0..6 {
        let record = bank.pending("1.00").await;
        let error = bank.answer(&record, victim.answer_to(&record.payment.request)).await;
        assert_eq!(bank.incident(&error.unwrap_err()).await, "device-not-bound");
    }
    let victim = bank.service.signer(&victim.id).await.unwrap();
    assert_eq!(victim.signer.failures, 0);
    assert_eq!(victim.device.device.status, DeviceStatus::Enrolled);
}

pub(crate) async fn the_payer_says_no(place: Place) {
    let bank = Bank::new(place).await;
    for reason in RejectReason::ALL {
        let record = bank.pending("5.00").await;
        let no = PaymentAnswer::Reject { reason };
        let answered = bank.answer(&record, no.clone()).await.unwrap();
        assert_eq!(answered.record.payment.state.name(), "rejected");
        assert_eq!(answered.record.payment.reason.as_deref(), Some(reason.name()));
        assert_eq!(answered.authorisation.outcome, AnswerOutcome::Rejected);
        assert!(bank.answer(&record, no).await.unwrap().replayed);
        let late = bank.answer(&record, bank.device.answer(&record)).await;
        assert_eq!(check(late), "payment-rejected");
        let audit = bank.audit_of(&record.payment.id).await;
        assert_eq!(audit[1].entry.action, "payment.reject");
        // What is not the payer's own freezes the account, and nothing else does.
        let account = bank.service.account(&bank.admin, &bank.payer.id).await.unwrap();
        let frozen = account.status == AccountStatus::Frozen;
        assert_eq!(frozen, reason == RejectReason::NotMine);
        bank.service.unfreeze_account(&bank.admin, &bank.payer.id).await.unwrap();
    }
    assert_eq!(bank.balance("PAYEE1").await, 0);
}

pub(crate) async fn a_phone_sees_its_own_payments_only(place: Place) {
    let bank = Bank::new(place).await;
    let foreign = bank.another_phone(&["PAYEE1"]).await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let service = &bank.service;
    let answered = service.answer_payment(&foreign, id, bank.device.answer(&record), None).await;
    assert_eq!(check(answered), "not-found");
    let no = PaymentAnswer::Reject { reason: RejectReason::NotMine };
    assert_eq!(check(service.answer_payment(&foreign, id, no, None).await), "not-found");
    assert_eq!(check(service.phone_authorisations(&foreign, id).await), "not-found");
    assert_eq!(bank.payment(id).await.payment, record.payment, "nothing changed");
    // Which check refused an answer, neither the phone nor the initiator is told.
    let other = bank.pending("6.00").await;
    bank.answer(&record, bank.device.answer(&other)).await.unwrap_err();
    let of_phone = service.phone_authorisations(&bank.phone, id).await.unwrap();
    let of_shop = service.payment_authorisations(&bank.shop, id).await.unwrap();
    let of_admin = service.payment_authorisations(&bank.admin, id).await.unwrap();
    assert_eq!(
        (of_phone[0].failed_check.as_deref(), of_shop[0].failed_check.as_deref()),
        (None, None)
    );
    assert_eq!(of_admin[0].failed_check.as_deref(), Some("answer-signature"));
    let no_answer = bank
        .answer(&record, PaymentAnswer::Ocra { device_serial: "SD-1".into(), digits: "12".into() });
    assert_eq!(check(no_answer.await), "answer-format");
}

pub(crate) async fn time_ends_a_payment(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    // Until the last millisecond.
    let record = bank.pending("5.00").await;
    bank.set_clock(record.payment.expires_at.minus(Duration::from_millis(1)));
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    // And not at the end: whoever answers then ends it.
    let record = bank.pending("5.00").await;
    bank.set_clock(record.payment.expires_at);
    assert_eq!(check(bank.answer(&record, bank.device.answer(&record)).await), "payment-expired");
    let id = record.payment.id;
    assert_eq!(bank.states(&id).await, ["created", "pending", "expired"]);
    let actions: Vec<_> =
        bank.audit_of(&id).await.into_iter().map(|row| row.entry.action).collect();
    assert!(actions.contains(&"payment.expire".to_owned()), "{actions:?}");
    // Whoever looks at it ends it too.
    let record = bank.pending("5.00").await;
    bank.set_clock(record.payment.expires_at);
    let seen = service.payment(&bank.shop, &record.payment.id).await.unwrap();
    assert_eq!(seen.payment.state.name(), "expired");
    // Or takes it back too late.
    let record = bank.pending("5.00").await;
    bank.set_clock(record.payment.expires_at);
    let late = service.cancel_payment(&bank.shop, &record.payment.id).await;
    assert_eq!(check(late), "payment-expired");
    // Or the sweeper.
    let record = bank.pending("5.00").await;
    let open = bank.order("5.00");
    let open = countersign_service::NewPayment { expires_in: Some(DAY), ..open };
    let open = value(service.create_payment(&bank.shop, &open, fresh()).await.unwrap());
    bank.set_clock(record.payment.expires_at);
    assert_eq!(service.expire_payments().await.unwrap(), 1);
    assert_eq!(service.expire_payments().await.unwrap(), 0);
    assert_eq!(bank.states(&record.payment.id).await, ["created", "pending", "expired"]);
    assert_eq!(bank.states(&open.payment.id).await, ["created", "pending"]);
    // More than are ended together, in one turn.
    let (mut last, now) = (record, bank.service.now());
    for _ in 0..230 {
        last = bank.pending("0.01").await;
    }
    bank.set_clock(last.payment.expires_at);
    assert!(last.payment.expires_at > now);
    assert_eq!(service.expire_payments().await.unwrap(), 230);
    let audit = bank.audit_of(&last.payment.id).await;
    assert_eq!(audit.last().unwrap().entry.action, "payment.expire");
    bank.in_order().await;
}

pub(crate) async fn what_cannot_be_executed_fails_by_name(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let (payer, payee) = (bank.payer.id.clone(), bank.payee.id.clone());
    let fails = async |record: &PaymentRecord, reason: &str| {
        let answer = bank.device.answer(record);
        let answered = bank.answer(record, answer.clone()).await.unwrap();
        assert_eq!(answered.record.payment.state.name(), "execution_failed", "{reason}");
        assert_eq!(answered.record.payment.reason.as_deref(), Some(reason));
        let states = bank.states(&record.payment.id).await;
        assert_eq!(states[2..], ["approved", "executing", "execution_failed"]);
        let audit = bank.audit_of(&record.payment.id).await;
        let last = &audit.last().unwrap().entry;
        assert_eq!((last.outcome, last.check.as_deref()), (AuditOutcome::Failed, Some(reason)));
        assert!(bank.answer(record, answer).await.unwrap().replayed);
    };
    // Two payments of the same money: the second comes too late.
    let (one, two) = (bank.pending("600.00").await, bank.pending("600.00").await);
    bank.answer(&one, bank.device.answer(&one)).await.unwrap();
    fails(&two, "insufficient-funds").await;
    let record = bank.pending("5.00").await;
    service.freeze_account(&bank.admin, &payer, "dispute").await.unwrap();
    fails(&record, "account-frozen").await;
    service.unfreeze_account(&bank.admin, &payer).await.unwrap();
    let record = bank.pending("5.00").await;
    service.freeze_account(&bank.admin, &payee, "dispute").await.unwrap();
    fails(&record, "account-frozen").await;
    service.unfreeze_account(&bank.admin, &payee).await.unwrap();
    // An overdraft is used up to its end and no further.
    service.set_overdraft(&bank.admin, &payer, "10.00").await.unwrap();
    let record = bank.pending("410.00").await;
    bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(bank.balance("PAYER1").await, -1000);
    let record = bank.pending("0.01").await;
    fails(&record, "insufficient-funds").await;
    bank.in_order().await;
}

pub(crate) async fn a_closed_payee_and_a_full_one_get_nothing(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let record = bank.pending("5.00").await;
    service.close_account(&bank.admin, &bank.payee.id, "gone").await.unwrap();
    let answered = bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.reason.as_deref(), Some("account-closed"));
    // A balance at the end of its integer: the posting would overflow.
    let new = countersign_service::NewAccount {
        number: "FULL1".into(),
        holder: "Full".into(),
        currency: "CNY".into(),
        kind: countersign_store::AccountKind::External,
        overdraft: None,
    };
    let full = service.open_account(&bank.admin, &new).await.unwrap();
    let mut order = bank.order("5.00");
    (order.payee, order.payee_name) = ("FULL1".into(), "Full".into());
    let record = value(service.create_payment(&bank.shop, &order, fresh()).await.unwrap());
    let id = full.id.clone();
    bank.tx(move |tx| {
        let sql = "UPDATE ledger_accounts SET balance = ?2 WHERE id = ?1";
        tx.execute(sql, &[id.as_str().into(), (i64::MAX - 499).into()]).map(|_| ())
    })
    .await;
    let answered = bank.answer(&record, bank.device.answer(&record)).await.unwrap();
    assert_eq!(answered.record.payment.reason.as_deref(), Some("balance-overflow"));
    assert_eq!(bank.balance("PAYER1").await, 100_000, "nothing was taken");
}

/// Somebody in the database changes a row, and not what is signed: nothing is paid.
pub(crate) async fn a_row_that_is_not_what_was_signed_pays_nothing(place: Place) {
    let bank = Bank::new(place).await;
    bank.fund("PAYEE1", "1.00").await;
    for (column, value) in [
        ("amount", countersign_store::Value::Int(1)),
        ("payee_account", bank.payer.id.as_str().into()),
        ("payer_account", bank.payee.id.as_str().into()),
        ("expires_at", (START.as_millis() as i64 + 86_400_000).into()),
    ] {
        let record = bank.pending("5.00").await;
        let id = record.payment.id.clone();
        let sql = format!("UPDATE payments SET {column} = ?2 WHERE id = ?1");
        if column == "payer_account" {
            bank.service
                .bind_phone(&bank.admin, bank.phone.id(), &["PAYEE1".into()])
                .await
                .unwrap();
            let device = bank.device.id.as_str();
            bank.service.bind_signer(&bank.admin, device, &["PAYEE1".into()]).await.unwrap();
        }
        bank.tx(move |tx| tx.execute(&sql, &[id.as_str().into(), value.clone()]).map(|_| ())).await;
        let answered = bank.answer(&record, bank.device.answer(&record)).await;
        assert_eq!(check(answered), "internal", "{column}");
        assert_eq!(bank.states(&record.payment.id).await, ["created", "pending"]);
    }
    assert_eq!((bank.balance("PAYER1").await, bank.balance("PAYEE1").await), (100_000, 100));
}

/// A phone that names devices of others learns neither whether there are such, nor sets their keys
/// to work.
pub(crate) async fn names_of_others_devices_tell_nothing(place: Place) {
    let bank = Bank::new(place).await;
    let token = bank.token("TK-2", &["PAYEE1"]).await;
    let id = token.id.clone();
    // Whoever opens this key fails by it.
    bank.tx(move |tx| tx.set_ocra_key(&id, "OCRA-1:HOTP-SHA256-8:QH64", "no block")).await;
    let record = bank.pending("1.00").await;
    for (serial, why) in [("TK-2", "device-not-bound"), ("TK-9", "device-unknown")] {
        let (device_serial, digits) = (serial.to_owned(), "01234567".to_owned());
        let answer = PaymentAnswer::Ocra { device_serial, digits };
        let error = bank.answer(&record, answer).await.unwrap_err();
        assert_eq!(error.check(), "authorisation-refused", "{serial}");
        assert_eq!(bank.incident(&error).await, why);
    }
    let id = record.payment.id.as_str();
    let to_phone = bank.service.phone_authorisations(&bank.phone, id).await.unwrap();
    let to_shop = bank.service.payment_authorisations(&bank.shop, id).await.unwrap();
    assert_eq!(to_phone.len(), 2);
    assert!(to_phone.iter().chain(&to_shop).all(|told| told.device_id.is_none()), "{to_phone:?}");
    let all = bank.service.payment_authorisations(&bank.admin, id).await.unwrap();
    assert!(all.iter().any(|answer| answer.device_id.as_ref() == Some(&token.id)));
    // Nor does it in the name of a payment that is not its own.
    let other = bank.another_phone(&["PAYEE1"]).await;
    let (device_serial, digits) = ("TK-2".to_owned(), "01234567".to_owned());
    let answer = PaymentAnswer::Ocra { device_serial, digits };
    let foreign = bank.service.answer_payment(&other, id, answer, None);
    assert_eq!(check(foreign.await), "not-found");
}

pub(crate) async fn an_answer_needs_a_stored_request(place: Place) {
    let bank = Bank::new(place).await;
    let unknown = bank.service.answer_payment(
        &bank.phone,
        "pay_00000000-0000-7000-8000-000000000000",
        PaymentAnswer::Reject { reason: RejectReason::NotMine },
        None,
    );
    assert_eq!(check(unknown.await), "not-found");
    // A device signs nothing that it could not show; nor does it count if it did.
    assert!(sign(&*bank.device.key, &mut rng(), b"{}").is_err());
}
