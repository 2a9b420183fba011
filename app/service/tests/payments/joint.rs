//! Payments that a signing card confirms with a joint password (B3–B5, B8).

use countersign_crypto::Secret;
use countersign_payment::evidence;
use countersign_payment::joint::Form;
use countersign_service::{PaymentPolicy, Policy, ServiceError};
use countersign_store::{
    AnswerOutcome, AuditOutcome, Authorisation, Role as OperatorRole, SignMethod,
};

use crate::bank::{Bank, Place, check, to_enrol};
use crate::card::{Card, csr};
use crate::rows::rows_with;

pub(crate) async fn every_form_executes_the_payment(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    for (round, form) in (1..).zip(Form::ALL) {
        let record = bank.pending("12.34").await;
        let id = &record.payment.id;
        let brought = card.sign(&bank, &record, form);
        let answered = bank.bring(&record, &brought).await.unwrap();
        assert_eq!(answered.record.payment.state.name(), "executed");
        assert!(!answered.replayed);
        let row = &answered.authorisation;
        assert_eq!((row.outcome, row.method), (AnswerOutcome::Accepted, Some(SignMethod::Joint)));
        assert_eq!((row.device_id.as_deref(), &row.phone_id), (Some(card.id.as_str()), &None));
        assert_eq!(row.signature.as_deref(), Some(brought.signature.as_slice()));
        assert_eq!(row.commitment.as_deref(), Some(brought.commitment.as_slice()));
        assert!(row.certificate.is_some() && row.certificate_number.is_some());
        assert_eq!(bank.payment(id).await, answered.record);
        let states = ["created", "pending", "approved", "executing", "executed"];
        assert_eq!(bank.states(id).await, states);
        assert_eq!(bank.balance("PAYEE1").await, round * 1234);
        // The operator whose terminal it was answers for it everywhere.
        let shop = bank.shop.id();
        let timeline = bank.service.payment_timeline(&bank.admin, id).await.unwrap();
        assert!(timeline.iter().all(|row| row.actor == shop), "{timeline:?}");
        let postings = bank.service.payment_postings(&bank.admin, id).await.unwrap();
        assert_eq!((postings.len(), postings[0].actor.as_str()), (1, shop));
        let audit = bank.audit_of(id).await;
        let actions: Vec<_> = audit.iter().map(|row| row.entry.action.as_str()).collect();
        assert_eq!(actions, ["payment.create", "payment.execute"]);
        let executed = &audit[1].entry;
        assert_eq!((executed.outcome, executed.actor.as_str()), (AuditOutcome::Done, shop));
    }
    bank.in_order().await;
}

pub(crate) async fn sm2_cards_execute_it_too(place: Place) {
    let bank = Bank::of_sm2(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    for form in Form::ALL {
        let record = bank.pending("1.00").await;
        let brought = card.sign(&bank, &record, form);
        assert_eq!(bank.why_not(&record, &brought.guessed(7)).await, "joint-password");
        let answered = bank.bring(&record, &brought).await.unwrap();
        assert_eq!(answered.record.payment.state.name(), "executed");
    }
    bank.in_order().await;
}

pub(crate) async fn a_card_is_told_what_to_sign(place: Place) {
    let forms = vec![Form::Digest, Form::SealedRandom];
    let policy = PaymentPolicy { joint_forms: forms.clone(), ..PaymentPolicy::default() };
    let policy = Policy { payments: policy, ..Policy::default() };
    let bank = Bank::with(place, countersign_crypto::aws_lc::provider(), policy).await;
    let service = &bank.service;
    let record = bank.pending("12.34").await;
    let id = record.payment.id.as_str();
    let terms = service.joint_terms(&bank.shop, id).await.unwrap();
    assert_eq!(terms.transaction, record.payment.request, "the stored bytes");
    assert_eq!((terms.forms, terms.expires_at), (forms, record.payment.expires_at));
    // By default all three, the randomised ones first.
    let all = [Form::SealedRandom, Form::Sealed, Form::Digest];
    assert_eq!(PaymentPolicy::default().joint_forms, all);
    // Only its initiator asks, and only while it waits.
    let (other, _) =
        service.add_operator(&bank.admin, "other shop", &[OperatorRole::Integrator]).await.unwrap();
    let other = countersign_service::Actor::Operator(other);
    assert_eq!(check(service.joint_terms(&other, id).await), "not-found");
    assert_eq!(check(service.joint_terms(&bank.admin, id).await), "not-found");
    assert_eq!(check(service.joint_terms(&bank.shop, "pay_none").await), "not-found");
    let (auditor, _) =
        service.add_operator(&bank.admin, "eve", &[OperatorRole::Auditor]).await.unwrap();
    let auditor = countersign_service::Actor::Operator(auditor);
    assert_eq!(check(service.joint_terms(&auditor, id).await), "scope");
    service.cancel_payment(&bank.shop, id).await.unwrap();
    assert_eq!(check(service.joint_terms(&bank.shop, id).await), "payment-cancelled");
    let paid = bank.executed("1.00").await.payment.id;
    assert_eq!(check(service.joint_terms(&bank.shop, &paid).await), "payment-settled");
    let late = bank.pending("1.00").await.payment;
    bank.set_clock(late.expires_at);
    assert_eq!(check(service.joint_terms(&bank.shop, &late.id).await), "payment-expired");
    assert_eq!(bank.states(&late.id).await, ["created", "pending", "expired"]);
}

pub(crate) async fn the_same_answer_is_answered_as_before(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let other_server = bank.another().await;
    let record = bank.pending("5.00").await;
    let id = &record.payment.id;
    let brought = card.sign(&bank, &record, Form::SealedRandom);
    // A wrong one: one incident, counted once, at whichever server.
    let wrong = brought.guessed(1);
    let first = bank.bring(&record, &wrong).await.unwrap_err();
    assert_eq!(bank.bring(&record, &wrong).await.unwrap_err(), first);
    let elsewhere = other_server.answer_joint(&bank.shop, id, wrong.answer()).await;
    assert_eq!(elsewhere.unwrap_err(), first);
    assert_eq!(bank.payment(id).await.payment.wrong_answers, 1);
    assert_eq!(bank.failures(&card).await, 1);
    // The same with the right password is another answer, and good once. How it was typed is
    // nothing of the answer.
    let first = bank.bring(&record, &brought).await.unwrap();
    assert_eq!(bank.failures(&card).await, 0, "a good one ends the row of wrong ones");
    let (four, rest) = brought.password.split_at(4);
    let (more, last) = rest.split_at(4);
    let mut grouped = brought.answer();
    grouped.password = Secret::copied_from(format!("{four} {more}-{last}").as_bytes());
    let again = [
        bank.bring(&record, &brought).await.unwrap(),
        bank.service.answer_joint(&bank.shop, id, grouped).await.unwrap(),
        other_server.answer_joint(&bank.shop, id, brought.answer()).await.unwrap(),
    ];
    for again in again {
        assert!(again.replayed);
        assert_eq!(
            (again.record, again.authorisation),
            (first.record.clone(), first.authorisation.clone())
        );
    }
    // The wrong one is answered as it was, and a second good one comes too late.
    assert_eq!(bank.bring(&record, &wrong).await.unwrap_err().check(), "authorisation-refused");
    let late = bank.bring(&record, &card.sign(&bank, &record, Form::Digest)).await;
    assert_eq!(check(late), "payment-settled");
    assert_eq!(bank.balance("PAYEE1").await, 500);
    let answers = bank.service.payment_authorisations(&bank.admin, id).await.unwrap();
    assert_eq!(answers.len(), 2);
    bank.in_order().await;
}

/// Who reads the database finds no joint password there, also none that may still be good: an
/// answer that was refused for another reason leaves the hash of a right one behind.
pub(crate) async fn no_joint_password_lies_in_the_database(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("5.00").await;
    let other = bank.pending("6.00").await;
    for form in Form::ALL {
        let brought = card.sign(&bank, &record, form);
        // The right password beside other bytes: refused, and the payment still waits.
        let mut altered = brought.clone();
        altered.transaction.clone_from(&other.payment.request);
        assert_eq!(bank.why_not(&record, &altered).await, "joint-transaction");
        let rows = bank.service.payment_authorisations(&bank.admin, &record.payment.id).await;
        let rows = rows.unwrap();
        let of_this = |row: &&Authorisation| row.commitment.as_ref() == Some(&brought.commitment);
        let row = rows.iter().find(of_this).unwrap();
        // With the framing known and all fields but the password read from the database, no guess
        // can be tried: the right one does not give the hash either.
        let mut framed = Vec::new();
        for part in [
            b"joint".as_slice(),
            b"SC-1",
            &altered.transaction,
            &altered.commitment,
            &altered.signature,
            altered.password.as_bytes(),
        ] {
            framed.extend_from_slice(&(part.len() as u64).to_be_bytes());
            framed.extend_from_slice(part);
        }
        let provider = bank.provider();
        assert_ne!(provider.hash.hash(&[&framed]), row.answer_hash);
        assert_ne!(provider.mac.mac(&[], &[&framed]), row.answer_hash);
        let record = bank.pending("5.00").await;
        let brought = card.sign(&bank, &record, form);
        bank.bring(&record, &brought.guessed(3)).await.unwrap_err();
        bank.bring(&record, &brought).await.unwrap();
        for digits in [&altered.password, &brought.password, &brought.guessed(3).password] {
            assert_eq!(rows_with(&bank, digits).await, 0, "{form:?}");
        }
    }
    let shared = &bank.service.signer(&card.id).await.unwrap().signer.joint_key;
    let block = shared.clone().unwrap();
    let hex = data_encoding::HEXUPPER.encode(card.shared.expose());
    assert!(block.starts_with('D') && !block.contains(&hex), "a block, sealed");
    let shown = format!("{:?}", card.sign(&bank, &record, Form::Sealed).answer());
    assert_eq!(shown, "JointAnswer(SC-1)", "nor is it printed");
    // What is looked for is found where it is.
    assert!(rows_with(&bank, "SC-1").await > 0);
}

pub(crate) async fn evidence_says_what_rests_on_the_server(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    for form in Form::ALL {
        let record = bank.pending("12.34").await;
        let brought = card.sign(&bank, &record, form);
        bank.bring(&record, &brought.guessed(5)).await.unwrap_err();
        bank.bring(&record, &brought).await.unwrap();
        let bundle = bank.service.payment_evidence(&bank.shop, &record.payment.id).await.unwrap();
        let report = evidence::verify(&bundle, bank.root());
        let failed: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
        assert!(report.is_good(), "{failed:?}");
        assert!(report.rests_on_server, "that the password was right is the server's word");
        let text = String::from_utf8(bundle).unwrap();
        assert!(!text.contains(&brought.password));
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        let answers = said["evidence"]["answers"].as_array().unwrap();
        let accepted = answers.iter().find(|answer| answer["outcome"] == "accepted").unwrap();
        let commitment = data_encoding::BASE64.encode(&brought.commitment);
        assert_eq!(accepted["commitment"], commitment.as_str());
        assert_eq!((&accepted["method"], &accepted["phone"]), (&"joint".into(), &().into()));
        // Altered, it does not hold.
        let forged = text.replace(&commitment, &data_encoding::BASE64.encode(&[1; 97]));
        assert!(!evidence::verify(forged.as_bytes(), bank.root()).is_good());
        let receipt = bank.service.payment_receipt(&bank.shop, &record.payment.id).await.unwrap();
        countersign_payment::receipt::verify(&receipt, bank.root()).unwrap();
    }
    // A payment that a card's wrong answers ended has evidence too.
    let record = bank.pending("1.00").await;
    let brought = card.sign(&bank, &record, Form::Sealed);
    for guess in 0..3 {
        bank.bring(&record, &brought.guessed(guess)).await.unwrap_err();
    }
    let bundle = bank.service.payment_evidence(&bank.admin, &record.payment.id).await.unwrap();
    let report = evidence::verify(&bundle, bank.root());
    assert!(report.is_good(), "{:?}", report.checks);
    assert_eq!(report.state.map(|state| state.name()), Some("failed"));
}

pub(crate) async fn a_card_and_a_phone_at_once_execute_once(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let other = bank.another().await;
    for round in 1..=20_i64 {
        let record = bank.pending("1.00").await;
        let id = record.payment.id.clone();
        let brought = card.sign(&bank, &record, Form::ALL[round as usize % 3]);
        let by_phone = bank.device.answer(&record);
        let (phone_server, phone, to) = (bank.service.clone(), bank.phone.clone(), id.clone());
        let by_phone =
            tokio::spawn(
                async move { phone_server.answer_payment(&phone, &to, by_phone, None).await },
            );
        let mut ended = Vec::new();
        let mut cards = tokio::task::JoinSet::new();
        // The terminal asks twice, of two servers.
        for server in [bank.service.clone(), other.clone()] {
            let (shop, to, answer) = (bank.shop.clone(), id.clone(), brought.answer());
            cards.spawn(async move { server.answer_joint(&shop, &to, answer).await });
        }
        while let Some(card) = cards.join_next().await {
            ended.push(card.unwrap());
        }
        ended.push(by_phone.await.unwrap());
        let fresh = ended.iter().flatten().filter(|answered| !answered.replayed).count();
        assert_eq!(fresh, 1, "round {round}: {ended:?}");
        for error in ended.iter().filter_map(|one| one.as_ref().err()) {
            assert_eq!(error.check(), "payment-settled", "round {round}");
        }
        assert_eq!(bank.balance("PAYEE1").await, round * 100);
        assert_eq!(bank.states(&id).await.len(), 5);
    }
    bank.in_order().await;
}

/// Confirmed, and not executed: the same refusals as of any payment, and time counts.
pub(crate) async fn the_ledger_has_the_last_word(place: Place) {
    let bank = Bank::new(place).await;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let record = bank.pending("5000.00").await;
    let brought = card.sign(&bank, &record, Form::SealedRandom);
    let answered = bank.bring(&record, &brought).await.unwrap();
    assert_eq!(answered.record.payment.state.name(), "execution_failed");
    assert_eq!(answered.record.payment.reason.as_deref(), Some("insufficient-funds"));
    assert!(bank.bring(&record, &brought).await.unwrap().replayed);
    assert_eq!(bank.balance("PAYER1").await, 100_000);
    // Until the last millisecond, and not at the end.
    for (moment, ends) in [(1, "executed"), (0, "expired")] {
        let record = bank.pending("1.00").await;
        let brought = card.sign(&bank, &record, Form::Digest);
        bank.set_clock(record.payment.expires_at.minus(std::time::Duration::from_millis(moment)));
        let answered = bank.bring(&record, &brought).await;
        match answered {
            Ok(answered) => assert_eq!(answered.record.payment.state.name(), "executed"),
            Err(error) => assert_eq!(error.check(), "payment-expired"),
        }
        assert_eq!(bank.states(&record.payment.id).await.last(), Some(&ends));
    }
    // Somebody in the database changes a row, and not what is signed: nothing is paid.
    let record = bank.pending("5.00").await;
    let brought = card.sign(&bank, &record, Form::Sealed);
    let id = record.payment.id.clone();
    bank.tx(move |tx| {
        let sql = "UPDATE payments SET amount = 1 WHERE id = ?1";
        tx.execute(sql, &[id.as_str().into()]).map(|_| ())
    })
    .await;
    assert_eq!(check(bank.bring(&record, &brought).await), "internal");
    assert_eq!(bank.balance("PAYEE1").await, 100);
}

pub(crate) async fn a_card_is_enrolled_again(place: Place) {
    let bank = Bank::new(place).await;
    let service = &bank.service;
    let card = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    let number = async || {
        let found = service.signer(&card.id).await.unwrap();
        (found.device.certificate.map(|live| live.number), found.signer.joint_key)
    };
    let before = number().await;
    // The answer was lost: the same certificate, and another key, of which only the last counts.
    let again = card.enrol_again(&bank).await;
    let after = number().await;
    assert_eq!((&again.id, &before.0), (&card.id, &after.0));
    assert!(!again.shared.ct_eq(card.shared.expose()));
    assert!(before.1 != after.1 && after.1.is_some());
    assert_eq!(again.shared.len(), countersign_payment::joint::SHARED_LEN);
    // The audit tells the one from the other: whoever enrols a card a second time has a key of it.
    let told = async || {
        let rows = bank.audit_of(&card.id).await;
        let bound = rows.iter().filter(|row| row.entry.action == "security-device.bind");
        let detail = |row: &countersign_store::AuditRow| -> serde_json::Value {
            serde_json::from_str(&row.entry.detail).unwrap()
        };
        let told = bound.map(|row| detail(row)["sharedKey"].as_str().unwrap().to_owned());
        told.collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["first", "replaced"]);
    let of_a_phones = bank.audit_of(&bank.device.id).await;
    let bound = of_a_phones.iter().find(|row| row.entry.action == "security-device.bind").unwrap();
    assert!(!bound.entry.detail.contains("sharedKey"), "a device that has none");
    let record = bank.pending("1.00").await;
    let old = card.sign(&bank, &record, Form::Digest);
    assert_eq!(bank.why_not(&record, &old).await, "joint-password");
    bank.bring(&record, &again.sign(&bank, &record, Form::Digest)).await.unwrap();
    // Another key under its name, and another method, are refused.
    let new = to_enrol(&["PAYER1"]);
    let refused = service.enrol_joint(&bank.admin, &csr(&bank, "SC-1"), &new).await;
    assert_eq!(refused.err().map(|error| error.check()), Some("serial-taken"));
    let refused = service.enrol_signer(&bank.admin, &card.csr, &new).await;
    assert_eq!(refused.err().map(|error| error.check()), Some("signer-method"));
    assert_eq!(number().await, after);
    let refused = service.enrol_joint(&bank.shop, &card.csr, &new).await;
    assert!(matches!(refused.err(), Some(ServiceError::Forbidden { .. })));
    // Nor does a refusal leave a certificate with a device that signs otherwise, and has none now.
    service.revoke_signer(&bank.admin, &bank.device.id, "lost").await.unwrap();
    bank.token("TK-1", &["PAYER1"]).await;
    for serial in ["SD-1", "TK-1"] {
        let refused = service.enrol_joint(&bank.admin, &csr(&bank, serial), &new).await;
        assert_eq!(refused.err().map(|error| error.check()), Some("signer-method"));
        let found = service.signer_by_serial(serial).await.unwrap();
        assert!(found.device.certificate.is_none() && found.signer.joint_key.is_none());
    }
    // Revoked: certificate and key go together.
    let record = bank.pending("1.00").await;
    let signed = again.sign(&bank, &record, Form::Sealed);
    service.revoke_signer(&bank.admin, &card.id, "lost").await.unwrap();
    assert_eq!(number().await, (None, None));
    assert_eq!(bank.why_not(&record, &signed).await, "certificate-revoked");
    // It enrols with a new key pair: the old one's signatures are nobody's.
    let new = Card::enrol(&bank, "SC-1", &["PAYER1"]).await;
    assert_eq!(new.id, card.id);
    assert_eq!(told().await, ["first", "replaced", "first"], "its key was erased with it");
    let old = again.sign(&bank, &record, Form::Sealed);
    assert_eq!(bank.why_not(&record, &old).await, "answer-signature");
    bank.bring(&record, &new.sign(&bank, &record, Form::Sealed)).await.unwrap();
    bank.in_order().await;
}
