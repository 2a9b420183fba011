//! Payments that a signing card and its joint password confirm at a terminal (B1 to B8).

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_payment::evidence;
use countersign_payment::joint::Form;
use countersign_service::{PaymentPolicy, Policy};
use countersign_store::Role;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::logs::Lines;
use crate::world::{World, build, provider};

#[tokio::test]
async fn every_announced_form_settles_a_payment_once() {
    for suite in [provider(), countersign_crypto::sm::provider()] {
        let bank = Bank::on(World::of_suite(suite.clone()).await).await;
        let card = bank.card_of(suite, "CARD-1", "PAYER0001").await;
        let (id, _) = bank.transacted("k").await;
        let forms = bank.joint_terms(&bank.till, &id).await.json()["forms"].clone();
        assert_eq!(forms, json!(["sealed-random", "sealed", "digest"]), "the best first");
        for (at, name) in forms.as_array().unwrap().iter().enumerate() {
            let form = Form::from_name(name.as_str().unwrap()).unwrap();
            let (id, transaction) = bank.transacted(&format!("k-{at}")).await;
            let made = card.signed(form, &transaction);
            let answered = bank.submit(&id, &made.body()).await;
            assert_eq!(answered.status, StatusCode::CREATED, "{name}: {answered:?}");
            let told = answered.json();
            assert!(told["authorisationId"].as_str().unwrap().starts_with("aut_"));
            assert_eq!(
                (&told["scaStatus"], &told["status"], &told["transactionStatus"]),
                (&json!("finalised"), &json!("executed"), &json!("ACSC"))
            );
            assert_eq!((&told["paymentId"], &told["statusReason"]), (&json!(id), &Value::Null));
            // The same again is answered by the same bytes, and nothing is paid twice.
            for written in [made.body(), made.with("jointPassword", grouped(&made.password))] {
                let again = bank.submit(&id, &written).await;
                assert_eq!((again.status, again.text), (answered.status, answered.text.clone()));
            }
            // What the card makes of the same transaction later comes too late.
            let later = card.signed(form, &transaction);
            bank.submit(&id, &later.body()).await.assert_check(409, "payment-settled");
        }
        assert_eq!(bank.balance("PAYER0001").await, "962.98");
        assert_eq!(bank.balance("SHOP0001").await, "37.02");
    }
}

/// Two cards at two readers of one terminal, or one answer on its way twice: money moves once.
#[tokio::test]
async fn answers_at_the_same_moment_move_money_once() {
    let bank = Bank::new().await;
    let (card, second) =
        (bank.card("CARD-1", "PAYER0001").await, bank.card("CARD-2", "PAYER0001").await);
    for round in 0..8 {
        let (id, transaction) = bank.transacted(&format!("k-{round}")).await;
        let one = card.signed(Form::SealedRandom, &transaction);
        let other = second.signed(Form::Digest, &transaction);
        let wrong = one.with("jointPassword", other.password.clone());
        let (one, other) = (one.body(), other.body());
        let (first, twice, rival, wrong) = tokio::join!(
            bank.submit(&id, &one),
            bank.submit(&id, &one),
            bank.submit(&id, &other),
            bank.submit(&id, &wrong),
        );
        assert_eq!(first.status, twice.status, "{first:?} {twice:?}");
        if first.status == StatusCode::CREATED {
            assert_eq!(first.text, twice.text, "the same bytes");
        }
        let settled = [&first, &rival].into_iter().filter(|it| it.status == StatusCode::CREATED);
        assert_eq!(settled.count(), 1, "{first:?} {rival:?}");
        let wrong = wrong.json()["check"].as_str().unwrap().to_owned();
        assert!(["authorisation-refused", "payment-settled"].contains(&&*wrong), "{wrong}");
        let paid = format!("{}.{:02}", (round + 1) * 1234 / 100, (round + 1) * 1234 % 100);
        assert_eq!(bank.balance("SHOP0001").await, paid);
    }
}

fn grouped(digits: &str) -> String {
    format!("{} {}-{}", &digits[..4], &digits[4..8], &digits[8..])
}

#[tokio::test]
async fn a_settled_payment_tells_how_and_proves_it() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let (id, transaction) = bank.transacted("k-1").await;
    let terms = bank.joint_terms(&bank.till, &id).await;
    assert_eq!(terms.status, StatusCode::OK);
    assert_eq!(terms.json()["expiresAt"], bank.payment(&id).await["expiresAt"]);
    for told in ["12.34", "CNY", "PAYER0001", "SHOP0001", "Tea Shop", "Order 7: 2 teas", &*id] {
        assert!(String::from_utf8_lossy(&transaction).contains(told), "{told} is signed");
    }
    let made = card.signed(Form::SealedRandom, &transaction);
    let told = bank.submit(&id, &made.body()).await.json();
    let path = format!("/v1/payments/{id}");
    let timeline = bank.world.get_with(&bank.till, &format!("{path}/timeline")).await.json();
    let states = timeline["items"].as_array().unwrap().iter();
    let states: Vec<_> = states.map(|row| row["transactionStatus"].as_str().unwrap()).collect();
    assert_eq!(states, ["RCVD", "PDNG", "ACCP", "ACSP", "ACSC"]);
    let answers = bank.world.get_with(&bank.till, &format!("{path}/authorisations")).await.json();
    let stored = &answers["items"][0];
    assert_eq!(answers["items"].as_array().unwrap().len(), 1);
    assert_eq!(stored["authorisationId"], told["authorisationId"]);
    assert_eq!((&stored["method"], &stored["outcome"]), (&json!("joint"), &json!("accepted")));
    assert_eq!((&stored["deviceId"], &stored["phoneId"]), (&json!(card.device), &Value::Null));
    let bundle = bank.world.get_with(&bank.till, &format!("{path}/evidence")).await;
    let root = &bank.world.service.authority().root;
    let report = evidence::verify(bundle.text.as_bytes(), root);
    let bad: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert!(bad.is_empty() && report.checks.len() > 5, "{:?}", report.checks);
    let shown = &bundle.json()["evidence"]["answers"][0];
    let commitment = BASE64URL_NOPAD.decode(made.body()["commitment"].as_str().unwrap().as_bytes());
    assert_eq!(shown["commitment"], BASE64.encode(&commitment.unwrap()));
    assert_eq!((&shown["method"], &shown["phone"]), (&json!("joint"), &Value::Null));
    assert!(!bundle.text.contains(&made.password), "the joint password is in no paper");

    let document = bank.world.get("/v1/openapi.json").await.json();
    for (name, answer) in [("JointTerms", &terms.json()), ("AuthorisationResult", &told)] {
        let schema = &document["components"]["schemas"][name];
        let mut members: Vec<_> = answer.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        members.sort();
        known.sort();
        assert_eq!(members, known, "{name}");
    }
    let schema = &document["components"]["schemas"]["JointAnswer"]["properties"];
    let mut known: Vec<_> = schema.as_object().unwrap().keys().cloned().collect();
    let mut sent: Vec<_> = made.body().as_object().unwrap().keys().cloned().collect();
    known.sort();
    sent.sort();
    assert_eq!(known, sent);
}

/// Nothing of the payment is told to who did not ask for it, and nothing of his counts.
#[tokio::test]
async fn only_who_asked_for_a_payment_may_bring_a_card_for_it() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let (id, transaction) = bank.transacted("k-1").await;
    let body = card.signed(Form::Sealed, &transaction).body();
    let other = bank.world.token("other-till", &[Role::Integrator]).await;
    let unknown = bank.brings(&bank.till, "pay_none", &body).await;
    unknown.assert_problem(404, "not-found", "Not found", "there is no such payment");
    for token in [&other, &bank.world.admin] {
        let answer = bank.brings(token, &id, &body).await;
        answer.assert_problem(404, "not-found", "Not found", "there is no such payment");
        bank.joint_terms(token, &id).await.assert_check(404, "not-found");
    }
    let auditor = bank.world.token("audrey", &[Role::Auditor]).await;
    for (token, status, check) in [
        (&auditor, 403, "scope"),
        (&payer.phone, 401, "token"),
        (&"cst_unknown".to_owned(), 401, "token"),
    ] {
        bank.brings(token, &id, &body).await.assert_check(status, check);
        bank.joint_terms(token, &id).await.assert_check(status, check);
    }
    let path = format!("/v1/payments/{id}/authorisations");
    let answers = bank.world.get_with(&bank.till, &path).await.json();
    assert_eq!(answers["items"], json!([]), "none of these is an answer");
    assert_eq!(bank.submit(&id, &body).await.json()["status"], "executed");
}

#[tokio::test]
async fn a_payment_that_has_ended_takes_no_card() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let (cancelled, transaction) = bank.transacted("k-1").await;
    let late = card.signed(Form::Digest, &transaction).body();
    let path = format!("/v1/payments/{cancelled}/cancel");
    let cancel = build(Method::POST, &path, &bank.till, Body::empty());
    assert_eq!(bank.world.send(cancel).await.json()["status"], "cancelled");
    bank.submit(&cancelled, &late).await.assert_check(409, "payment-cancelled");
    bank.joint_terms(&bank.till, &cancelled).await.assert_check(409, "payment-cancelled");

    // Signed in time, brought too late: not fresh any more.
    let (expired, transaction) = bank.transacted("k-2").await;
    let late = card.signed(Form::SealedRandom, &transaction).body();
    bank.world.advance(Duration::from_secs(301));
    bank.joint_terms(&bank.till, &expired).await.assert_check(409, "payment-expired");
    bank.submit(&expired, &late).await.assert_check(409, "payment-expired");

    let (settled, transaction) = bank.transacted("k-3").await;
    let body = card.signed(Form::Sealed, &transaction).body();
    assert_eq!(bank.submit(&settled, &body).await.status, StatusCode::CREATED);
    bank.joint_terms(&bank.till, &settled).await.assert_check(409, "payment-settled");
    assert_eq!(bank.balance("PAYER0001").await, "987.66");
}

/// What is no answer says nothing of a secret: it is told apart, and counts for nothing.
#[tokio::test]
async fn what_is_of_another_form_counts_for_nothing() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let (id, transaction) = bank.transacted("k-1").await;
    let made = card.signed(Form::Digest, &transaction);
    let encoded = |bytes: usize| BASE64URL_NOPAD.encode(&vec![0; bytes]);
    let text = |member: &str| made.body()[member].as_str().unwrap().to_owned();
    let last = made.password.as_bytes()[8] - b'0';
    let another = |by: u8| format!("{}{}", &made.password[..8], (last + by) % 10);
    let mut refused = vec![("jointPassword", text("jointPassword")[..8].to_owned())];
    refused.extend((1..10).map(|by| ("jointPassword", another(by))));
    let digits = text("jointPassword");
    for bad in [
        String::new(),
        format!("{digits}0"),
        format!("x{}", &digits[1..]),
        digits.replace(|c: char| c.is_ascii_digit(), "１"),
        format!("{digits}{}", " ".repeat(100)),
        " ".repeat(9),
    ] {
        refused.push(("jointPassword", bad));
    }
    for member in ["transaction", "commitment", "signature"] {
        for bad in ["", "=", "not base64url!", "AA==", "A"] {
            refused.push((member, bad.to_owned()));
        }
        refused.push((member, text(member) + "="));
        refused.push((member, text(member) + "\n"));
    }
    refused.push(("transaction", encoded(4097)));
    refused.push(("signature", encoded(81)));
    refused.push(("commitment", encoded(1025)));
    // No form has code 0 or 4; a digest is of one length.
    refused.push(("commitment", encoded(49)));
    refused.push(("commitment", BASE64URL_NOPAD.encode(&[4; 49])));
    let commitment = BASE64URL_NOPAD.decode(text("commitment").as_bytes()).unwrap();
    refused.push(("commitment", BASE64URL_NOPAD.encode(&commitment[..48])));
    refused.push(("commitment", BASE64URL_NOPAD.encode(&[&commitment[..], &[0]].concat())));
    for serial in ["", "CARD 1", "CARD-1\u{202e}", &"C".repeat(65)] {
        refused.push(("deviceSerial", serial.to_owned()));
    }
    for (member, bad) in refused {
        let answer = bank.submit(&id, &made.with(member, bad.clone())).await;
        assert_eq!(answer.json()["check"], "answer-format", "{member} {bad:?}: {answer:?}");
        answer.assert_check(422, "answer-format");
        assert!(!answer.text.contains(&made.password), "{answer:?}");
    }
    let mut shapes = vec![json!({}), json!([]), json!("x"), made.with("more", 1)];
    for (member, _) in made.body().as_object().unwrap() {
        let mut without = made.body();
        without.as_object_mut().unwrap().remove(member);
        shapes.push(without);
        shapes
            .extend([Value::Null, json!(123_456_789), json!([1])].map(|it| made.with(member, it)));
    }
    // As a number: a reader that says what it found would quote it.
    let number = made.password.parse::<u64>().unwrap();
    shapes.push(made.with("jointPassword", number));
    for shape in shapes {
        let answer = bank.submit(&id, &shape).await;
        answer.assert_check(400, "body");
        assert!(!answer.text.contains(&number.to_string()), "{answer:?}");
    }
    let long = made.with("transaction", "A".repeat(70_000));
    bank.submit(&id, &long).await.assert_check(413, "body-too-large");
    let path = format!("/v1/payments/{id}/joint");
    let mut request = build(Method::POST, &path, &bank.till, Body::from(made.body().to_string()));
    request.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    bank.world.send(request).await.assert_check(415, "media-type");

    let answers = format!("/v1/payments/{id}/authorisations");
    assert_eq!(bank.world.get_with(&bank.till, &answers).await.json()["items"], json!([]));
    assert_eq!(bank.submit(&id, &made.body()).await.json()["status"], "executed");
}

/// A policy is bounded by the card's own: nine digits bear three tries.
#[tokio::test]
async fn the_third_wrong_joint_password_ends_a_payment_whatever_the_policy_says() {
    for (allowed, ended_by) in [(5, 3), (3, 3), (1, 1)] {
        let payments = PaymentPolicy { wrong_answers_max: allowed, ..PaymentPolicy::default() };
        let policy = Policy { payments, ..Policy::default() };
        let bank = Bank::on(World::with_policy(policy).await).await;
        let card = bank.card("CARD-1", "PAYER0001").await;
        let (id, transaction) = bank.transacted("k-1").await;
        let made = card.signed(Form::SealedRandom, &transaction);
        for at in 1..=ended_by {
            assert_eq!(bank.payment(&id).await["status"], "pending", "before wrong answer {at}");
            let wrong = card.signed(Form::SealedRandom, &transaction).password;
            let answer = bank.submit(&id, &made.with("jointPassword", wrong.clone())).await;
            answer.assert_check(422, "authorisation-refused");
            // Who repeats it, for the answer was lost, is told the same, and it counts once.
            let again = bank.submit(&id, &made.with("jointPassword", wrong)).await;
            assert_eq!(again.json()["detail"], answer.json()["detail"]);
        }
        let ended = bank.payment(&id).await;
        assert_eq!(
            (&ended["status"], &ended["transactionStatus"]),
            (&json!("failed"), &json!("RJCT"))
        );
        assert!(ended["statusReason"].is_string() && ended["incident"].is_string(), "{ended}");
        bank.submit(&id, &made.body()).await.assert_check(409, "payment-failed");
        assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    }
}

/// What a payer's phone and a checkout page can do with a signing card: nothing.
#[tokio::test]
async fn a_phone_is_offered_no_signing_card_and_cannot_answer_by_one() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let (id, transaction) = bank.transacted("k-1").await;
    let path = format!("/v1/phone/payments/{id}/devices");
    let offered = bank.world.get_with(&payer.phone, &path).await.json();
    let offered = offered["items"].as_array().unwrap().iter();
    assert_eq!(offered.map(|it| it["serial"].clone()).collect::<Vec<_>>(), [json!("KEY-1")]);
    let part = bank.world.get_with(&payer.phone, &format!("/phone/parts/payments/{id}")).await;
    assert_eq!(part.status, StatusCode::OK, "{part:?}");
    assert!(part.text.contains("KEY-1") && !part.text.contains("CARD-1"), "{}", part.text);

    let made = card.signed(Form::Sealed, &transaction).body();
    let signed = json!({ "method": "pki", "deviceSerial": "CARD-1",
        "signature": made["signature"] });
    bank.answer(&payer, &id, &signed).await.assert_check(422, "authorisation-refused");
    let mut joint = made.clone();
    joint["method"] = json!("joint");
    bank.answer(&payer, &id, &joint).await.assert_check(400, "body");
    let digits = json!({ "method": "ocra", "deviceSerial": "CARD-1", "digits": "12345678" });
    bank.answer(&payer, &id, &digits).await.assert_check(422, "authorisation-refused");
    let pending = bank.payment(&id).await;
    assert_eq!(pending["status"], "pending");
    assert_eq!(bank.submit(&id, &made).await.json()["status"], "executed");
}

#[tokio::test]
async fn joint_password_and_shared_key_are_written_nowhere() {
    let bank = Bank::new().await;
    let lines = Lines::start();
    let body = crate::cards::enrolment(&provider(), "CARD-1", &["PAYER0001"]);
    let enrolled = bank.world.post("/v1/devices/joint", &body).await.json();
    let card = crate::cards::card_from(provider(), &enrolled);
    let (id, transaction) = bank.transacted("k-1").await;
    let wrong = card.signed(Form::Sealed, &transaction).password;
    let made = card.signed(Form::Digest, &transaction);
    let bad = made.with("jointPassword", wrong.clone());
    bank.submit(&id, &bad).await.assert_check(422, "authorisation-refused");
    let malformed = made.with("signature", "!");
    bank.submit(&id, &malformed).await.assert_check(422, "answer-format");
    assert_eq!(bank.submit(&id, &made.body()).await.json()["status"], "executed");
    assert!(lines.text().contains("/v1/payments/{id}/joint"), "{}", lines.text());
    let rows = bank.world.service.audit_page(None, 200).await.unwrap().items;
    let audit = format!("{rows:?}");
    let device = bank.world.get(&format!("/v1/devices/{}", card.device)).await.text;
    for secret in [&wrong, &made.password, enrolled["sharedKey"].as_str().unwrap()] {
        for (place, text) in [("log", &lines.text()), ("audit", &audit), ("device", &device)] {
            assert!(!text.contains(secret), "{secret} in the {place}: {text}");
        }
    }
}
