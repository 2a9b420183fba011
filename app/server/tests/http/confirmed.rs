//! Payments that are answered by payers' devices, and what goes back (D5-D7).

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_payment::evidence;
use serde_json::{Value, json};

use crate::bank::{Bank, amount, order_with};
use crate::world::{Answer, build};

#[tokio::test]
async fn a_confirmed_payment_is_executed_once_and_told() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let payment = bank.pending("k-1").await;
    let id = payment["id"].as_str().unwrap();
    let path = format!("/v1/payments/{id}");
    let request = bank.request(&payer, id).await;
    let shown = String::from_utf8(request.clone()).unwrap();
    for told in ["12.34", "CNY", "PAYER0001", "SHOP0001", "Tea Shop", "Order 7: 2 teas", id] {
        assert!(shown.contains(told), "{told} is signed: {shown}");
    }
    let signed = payer.signed(&request);
    let answered = bank.answer(&payer, id, &signed).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    let told = answered.json();
    assert!(told["authorisationId"].as_str().unwrap().starts_with("aut_"));
    assert_eq!(
        (&told["scaStatus"], &told["status"], &told["transactionStatus"], &told["statusReason"]),
        (&json!("finalised"), &json!("executed"), &json!("ACSC"), &Value::Null)
    );
    // The same answer again is answered the same, and nothing is paid twice.
    assert_eq!(bank.answer(&payer, id, &signed).await.text, answered.text);
    let balances = (bank.balance("PAYER0001").await, bank.balance("SHOP0001").await);
    assert_eq!(balances, ("987.66".to_owned(), "12.34".to_owned()));
    // What comes late is told how it ended.
    let reject = json!({ "method": "reject", "reason": "changed-mind" });
    bank.answer(&payer, id, &reject).await.assert_check(409, "payment-settled");
    let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
    bank.world.send(cancel).await.assert_check(409, "payment-settled");

    let timeline = bank.world.get_with(&bank.till, &format!("{path}/timeline")).await.json();
    let names: Vec<_> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["transactionStatus"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["RCVD", "PDNG", "ACCP", "ACSP", "ACSC"]);
    let answers = bank.world.get_with(&bank.till, &format!("{path}/authorisations")).await.json();
    let stored = &answers["items"][0];
    assert_eq!(answers["items"].as_array().unwrap().len(), 1);
    assert_eq!(stored["authorisationId"], told["authorisationId"]);
    assert_eq!((&stored["outcome"], &stored["method"]), (&json!("accepted"), &json!("pki")));
    assert_eq!(
        (&stored["deviceId"], &stored["phoneId"]),
        (&json!(payer.device), &json!(payer.phone_id))
    );
    // An incident's check is never there, nor a signature.
    assert!(!answers.to_string().contains("failedCheck"));
    let document = bank.world.get("/v1/openapi.json").await.json();
    for (name, answer) in [("AuthorisationResult", &told), ("Authorisation", stored)] {
        let schema = document["components"]["schemas"][name]["properties"].as_object().unwrap();
        let mut members: Vec<_> = answer.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = schema.keys().collect();
        members.sort();
        known.sort();
        assert_eq!(members, known, "{name}");
    }
}

#[tokio::test]
async fn evidence_and_receipt_are_given_when_a_payment_has_ended() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/payments/{id}");
    let early = bank.world.get_with(&bank.till, &format!("{path}/evidence")).await;
    early.assert_check(409, "evidence-not-ready");
    let early = bank.world.get_with(&bank.till, &format!("{path}/receipt")).await;
    early.assert_check(409, "receipt-not-ready");
    assert_eq!(bank.confirm(&payer, &id).await.status, StatusCode::CREATED);
    let receipt = bank.world.get_with(&bank.till, &format!("{path}/receipt")).await.json();
    assert_eq!(receipt["receipt"].as_str().unwrap().split('.').count(), 3, "a compact JWS");
    let bundle = bank.world.get_with(&bank.till, &format!("{path}/evidence")).await;
    assert_eq!(bundle.header("content-type"), "application/json");
    let root = &bank.world.service.authority().root;
    let report = evidence::verify(bundle.text.as_bytes(), root);
    let bad: Vec<_> = report.checks.iter().filter(|check| !check.ok).collect();
    assert!(bad.is_empty() && report.checks.len() > 5, "{:?}", report.checks);
    // One digit of what was posted.
    let altered = bundle.text.replace("12.34", "12.35");
    assert_ne!(altered, bundle.text);
    let report = evidence::verify(altered.as_bytes(), root);
    assert!(!report.is_good(), "{:?}", report.checks);
}

/// What is wrong with an answer is not told: the same problem for all, but for the incident.
#[tokio::test]
async fn every_bad_answer_is_refused_alike_and_the_third_ends_the_payment() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let foreign = bank.payer("KEY-2", "SHOP0001").await;
    let other = bank.pending("k-0").await["id"].as_str().unwrap().to_owned();
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let request = bank.request(&payer, &id).await;
    let for_another = payer.signed(&bank.request(&payer, &other).await);
    let mut strange = foreign.signed(&request);
    let unknown = json!({ "method": "ocra", "deviceSerial": "KEY-9", "digits": "00000000" });
    let plain = |answer: &Answer| {
        answer.assert_check(422, "authorisation-refused");
        let problem = answer.json();
        let detail = problem["detail"].as_str().unwrap();
        let (before, incident) = detail.split_once("(incident ").unwrap();
        assert!(incident.starts_with("inc_"), "{detail}");
        before.to_owned()
    };
    let mut details = Vec::new();
    for answer in [&for_another, &strange, &unknown] {
        details.push(plain(&bank.answer(&payer, &id, answer).await));
    }
    details.dedup();
    assert_eq!(details.len(), 1, "all look alike: {details:?}");
    let ended = bank.world.get_with(&bank.till, &format!("/v1/payments/{id}")).await.json();
    assert_eq!((&ended["status"], &ended["transactionStatus"]), (&json!("failed"), &json!("RJCT")));
    assert!(ended["statusReason"].is_string() && ended["incident"].is_string(), "{ended}");
    // Now the right one comes too late.
    bank.confirm(&payer, &id).await.assert_check(409, "payment-failed");
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    // What is no answer at all is told apart: it says nothing about a secret.
    strange["signature"] = json!("not base64url!");
    bank.answer(&payer, &other, &strange).await.assert_check(422, "signature-encoding");
    for bad in [
        json!({}),
        json!({ "method": "pki" }),
        json!({ "method": "pin", "pin": "2580" }),
        json!({ "method": "reject" }),
        json!({ "method": "reject", "reason": "not-mine", "digits": "1" }),
        json!({ "method": "ocra", "deviceSerial": "KEY-1", "digits": 12_345_678 }),
    ] {
        bank.answer(&payer, &other, &bad).await.assert_check(400, "body");
    }
    let reason = json!({ "method": "reject", "reason": "no idea" });
    bank.answer(&payer, &other, &reason).await.assert_check(422, "reject-reason");
    let pending = bank.world.get_with(&bank.till, &format!("/v1/payments/{other}")).await.json();
    assert_eq!(pending["status"], "pending", "none of these counts as a wrong answer");
}

#[tokio::test]
async fn a_rejection_ends_a_payment_with_its_reason() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    // The last one freezes the account.
    for reason in ["wrong-details", "changed-mind", "not-mine"] {
        let id = bank.pending(reason).await["id"].as_str().unwrap().to_owned();
        let reject = json!({ "method": "reject", "reason": reason });
        let rejected = bank.answer(&payer, &id, &reject).await;
        assert_eq!(rejected.status, StatusCode::CREATED, "{rejected:?}");
        let told = rejected.json();
        assert_eq!(
            (&told["scaStatus"], &told["status"], &told["transactionStatus"]),
            (&json!("failed"), &json!("rejected"), &json!("RJCT"))
        );
        assert_eq!(told["statusReason"], reason);
        bank.confirm(&payer, &id).await.assert_check(409, "payment-rejected");
    }
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
}

/// Who did not begin a payment stops what else comes, until an operator has looked at it.
#[tokio::test]
async fn a_payment_that_is_not_mine_freezes_its_account() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let other = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let id = bank.pending("k-2").await["id"].as_str().unwrap().to_owned();
    let account = async || {
        let found = bank.world.get("/v1/accounts?identification=PAYER0001").await.json();
        found["items"][0].clone()
    };
    assert_eq!(account().await["status"], "open");
    let reject = json!({ "method": "reject", "reason": "not-mine" });
    assert_eq!(bank.answer(&payer, &id, &reject).await.json()["status"], "rejected");
    let frozen = account().await;
    assert_eq!(frozen["status"], "frozen");
    assert!(frozen["statusReason"].as_str().unwrap().contains(&id), "{frozen}");
    let ended = bank.confirm(&payer, &other).await.json();
    assert_eq!(
        (&ended["status"], &ended["statusReason"]),
        (&json!("execution_failed"), &json!("account-frozen"))
    );
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    let path = format!("/v1/accounts/{}/unfreeze", frozen["id"].as_str().unwrap());
    assert_eq!(bank.world.post(&path, &json!({})).await.json()["status"], "open");
    let id = bank.pending("k-3").await["id"].as_str().unwrap().to_owned();
    assert_eq!(bank.confirm(&payer, &id).await.json()["status"], "executed");
}

#[tokio::test]
async fn a_payment_that_cannot_be_executed_says_why() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let asked = bank.ask("k-1", &amount("1000.01", "CNY")).await;
    let id = asked.json()["id"].as_str().unwrap().to_owned();
    let answered = bank.confirm(&payer, &id).await.json();
    assert_eq!(
        (&answered["scaStatus"], &answered["status"], &answered["statusReason"]),
        (&json!("finalised"), &json!("execution_failed"), &json!("insufficient-funds"))
    );
    let told = bank.world.get_with(&bank.till, &format!("/v1/payments/{id}")).await.json();
    assert_eq!(
        (&told["transactionStatus"], &told["statusReason"]),
        (&json!("RJCT"), &json!("insufficient-funds"))
    );
    let receipt = bank.world.get_with(&bank.till, &format!("/v1/payments/{id}/receipt")).await;
    receipt.assert_check(409, "receipt-not-ready");
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
}

#[tokio::test]
async fn a_payment_whose_time_is_over_is_expired_for_all() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let asked = bank.ask("k-1", &order_with("/remittanceInformation", json!("late"))).await;
    let id = asked.json()["id"].as_str().unwrap().to_owned();
    let signed = payer.signed(&bank.request(&payer, &id).await);
    bank.world.advance(Duration::from_secs(301));
    bank.answer(&payer, &id, &signed).await.assert_check(409, "payment-expired");
    let path = format!("/v1/payments/{id}");
    let told = bank.world.get_with(&bank.till, &path).await.json();
    assert_eq!((&told["status"], &told["transactionStatus"]), (&json!("expired"), &json!("RJCT")));
    let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
    bank.world.send(cancel).await.assert_check(409, "payment-expired");
    // Only read, never answered: it is expired all the same.
    let other = bank.pending("k-2").await["id"].as_str().unwrap().to_owned();
    bank.world.advance(Duration::from_secs(301));
    let wait = format!("/v1/payments/{other}?wait=25");
    assert_eq!(bank.world.get_with(&bank.till, &wait).await.json()["status"], "expired");
}

#[tokio::test]
async fn a_phone_answers_for_its_own_accounts_and_while_it_is_not_revoked() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let stranger = bank.payer("KEY-2", "SHOP0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let signed = payer.signed(&bank.request(&payer, &id).await);
    let answer = bank.answer(&stranger, &id, &signed).await;
    answer.assert_problem(404, "not-found", "Not found", "there is no such payment");
    let reject = json!({ "method": "reject", "reason": "not-mine" });
    bank.answer(&stranger, &id, &reject).await.assert_check(404, "not-found");
    let none = bank.answer(&payer, "pay_none", &signed).await;
    none.assert_check(404, "not-found");
    // A phone's token opens nothing of the operators'.
    for path in ["/v1/payments", "/v1/accounts", "/v1/ledger"] {
        bank.world.get_with(&payer.phone, path).await.assert_check(401, "token");
    }
    let revoke = format!("/v1/phones/{}/revoke", payer.phone_id);
    bank.world.post(&revoke, &json!({ "reason": "lost" })).await;
    bank.answer(&payer, &id, &signed).await.assert_check(401, "token");
    let told = bank.world.get_with(&bank.till, &format!("/v1/payments/{id}")).await.json();
    assert_eq!(told["status"], "pending");
}

#[tokio::test]
async fn refunds_go_back_up_to_the_amount_and_a_reversal_once() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let (refunds, reversal) =
        (format!("/v1/payments/{id}/refunds"), format!("/v1/payments/{id}/reversal"));
    let of = |amount: &str| json!({ "instructedAmount": { "amount": amount, "currency": "CNY" } });
    let early = bank.once(&refunds, "r-0", &of("1.00")).await;
    early.assert_check(409, "payment-not-executed");
    bank.once(&reversal, "v-0", &Value::Null).await.assert_check(409, "payment-not-executed");
    bank.confirm(&payer, &id).await;
    let first = bank.once(&refunds, "r-1", &of("2.34")).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let posting = first.json();
    assert_eq!((&posting["kind"], &posting["paymentId"]), (&json!("refund"), &json!(id)));
    assert_eq!(posting["amount"], json!({ "amount": "2.34", "currency": "CNY" }));
    assert_eq!(bank.once(&refunds, "r-1", &of("2.34")).await.text, first.text);
    bank.once(&refunds, "r-1", &of("2.35")).await.assert_check(422, "idempotency-mismatch");
    assert_eq!(bank.balance("PAYER0001").await, "990.00");
    bank.once(&refunds, "r-2", &of("10.01")).await.assert_check(422, "refund-too-much");
    for bad in ["0", "-1.00", "1.001"] {
        let answer = bank.once(&refunds, "r-3", &of(bad)).await;
        assert_eq!(answer.status.as_u16(), 422, "{bad}: {answer:?}");
    }
    let yen = json!({ "instructedAmount": { "amount": "1", "currency": "JPY" } });
    bank.once(&refunds, "r-4", &yen).await.assert_check(422, "currency-mismatch");
    bank.once(&reversal, "v-1", &Value::Null).await.assert_check(409, "payment-refunded");
    assert_eq!(bank.once(&refunds, "r-5", &of("10.00")).await.status, StatusCode::CREATED);
    bank.once(&refunds, "r-6", &of("0.01")).await.assert_check(422, "refund-too-much");
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    let told = bank.world.get_with(&bank.till, &format!("/v1/payments/{id}")).await.json();
    assert_eq!(
        (&told["status"], &told["refundedAmount"]["amount"]),
        (&json!("executed"), &json!("12.34"))
    );

    let id = bank.pending("k-2").await["id"].as_str().unwrap().to_owned();
    bank.confirm(&payer, &id).await;
    let reversal = format!("/v1/payments/{id}/reversal");
    let bodied = bank.once(&reversal, "v-2", &of("1.00")).await;
    bodied.assert_check(400, "body");
    let reversed = bank.once(&reversal, "v-2", &Value::Null).await;
    assert_eq!(reversed.json()["kind"], "reversal", "{reversed:?}");
    assert_eq!(bank.once(&reversal, "v-2", &Value::Null).await.text, reversed.text);
    bank.once(&reversal, "v-3", &Value::Null).await.assert_check(409, "payment-reversed");
    let late = bank.once(&format!("/v1/payments/{id}/refunds"), "r-9", &of("1.00")).await;
    late.assert_check(409, "payment-reversed");
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    assert_eq!(bank.world.get("/v1/ledger").await.json()["balanced"], true);
}
