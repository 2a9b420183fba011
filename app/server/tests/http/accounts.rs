//! `/v1/accounts`, `/v1/postings` and `/v1/ledger`.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::json;

use crate::bank::Bank;
use crate::world::build;

#[tokio::test]
async fn accounts_are_opened_frozen_closed_and_their_entries_listed() {
    let bank = Bank::new().await;
    let taken = json!({ "identification": "SHOP0001", "holder": "Other", "currency": "CNY" });
    bank.world.post("/v1/accounts", &taken).await.assert_check(409, "account-number-taken");
    for (member, value) in [
        ("identification", "abc"),
        ("identification", "GB00WEST12345698765432"),
        ("currency", "XYZ"),
        ("kind", "secret"),
        ("overdraft", "-1.00"),
        ("overdraft", "1.001"),
        ("holder", ""),
        ("holder", "a\u{202e}b"),
    ] {
        let mut account =
            json!({ "identification": "NEW00001", "holder": "New", "currency": "CNY" });
        account[member] = json!(value);
        let answer = bank.world.post("/v1/accounts", &account).await;
        assert_eq!(answer.status.as_u16(), 422, "{member} {value}: {answer:?}");
    }
    let iban = json!({ "identification": "GB82WEST12345698765432", "holder": "New",
        "currency": "GBP", "overdraft": "10.00" });
    let opened = bank.world.post("/v1/accounts", &iban).await.json();
    assert_eq!(opened["overdraft"], json!({ "amount": "10.00", "currency": "GBP" }));

    for n in 0..5 {
        let posted = bank.post_money(&format!("m-{n}"), "PAYER0001", "SHOP0001", "1.00").await;
        assert_eq!(posted.status, StatusCode::CREATED, "{posted:?}");
    }
    let path = "/v1/accounts?identification=SHOP0001";
    let shop = bank.world.get(path).await.json()["items"][0].clone();
    let path = format!("/v1/accounts/{}", shop["id"].as_str().unwrap());
    assert_eq!((&shop["balance"]["amount"], &shop["entries"]), (&json!("5.00"), &json!(5)));
    let mut numbers = Vec::new();
    let mut next = String::new();
    loop {
        let page = bank.world.get(&format!("{path}/entries?limit=2{next}")).await.json();
        for entry in page["items"].as_array().unwrap() {
            assert_eq!(entry["amount"]["amount"], "1.00");
            numbers.push(entry["number"].as_i64().unwrap());
        }
        match page["next"].as_str() {
            Some(cursor) => next = format!("&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(numbers, [5, 4, 3, 2, 1], "the newest first, each once");
    bank.world.get(&format!("{path}/entries?cursor=x")).await.assert_check(400, "page-cursor");

    let freeze = |on: bool| {
        let (step, body) = if on { ("freeze", r#"{"reason":"check"}"#) } else { ("unfreeze", "") };
        build(Method::POST, &format!("{path}/{step}"), &bank.world.admin, Body::from(body))
    };
    let frozen = bank.world.send(freeze(true)).await.json();
    assert_eq!((&frozen["status"], &frozen["statusReason"]), (&json!("frozen"), &json!("check")));
    let answer = bank.post_money("m-9", "PAYER0001", "SHOP0001", "1.00").await;
    answer.assert_check(409, "account-frozen");
    assert_eq!(bank.world.send(freeze(false)).await.json()["status"], "open");
    let close = |reason: &str| {
        let body = json!({ "reason": reason }).to_string();
        build(Method::POST, &format!("{path}/close"), &bank.world.admin, Body::from(body))
    };
    bank.world.send(close("end")).await.assert_check(409, "account-not-empty");
    let posted = bank.post_money("m-10", "SHOP0001", "PAYER0001", "5.00").await;
    assert_eq!(posted.status, StatusCode::CREATED);
    let poor = bank.post_money("m-11", "SHOP0001", "PAYER0001", "0.01").await;
    poor.assert_check(409, "insufficient-funds");
    assert_eq!(bank.world.send(close("end")).await.json()["status"], "closed");
    let closed = bank.post_money("m-12", "PAYER0001", "SHOP0001", "1.00").await;
    closed.assert_check(409, "account-closed");
    let ledger = bank.world.get("/v1/ledger").await.json();
    assert_eq!(ledger["balanced"], true, "{ledger}");
}

#[tokio::test]
async fn an_overdraft_is_set_and_not_below_what_is_used() {
    let bank = Bank::new().await;
    let path = "/v1/accounts?identification=SHOP0001";
    let shop = bank.world.get(path).await.json()["items"][0].clone();
    let path = format!("/v1/accounts/{}/overdraft", shop["id"].as_str().unwrap());
    let poor = bank.post_money("o-1", "SHOP0001", "PAYER0001", "3.00").await;
    poor.assert_check(409, "insufficient-funds");
    let set = bank.world.post(&path, &json!({ "overdraft": "5.00" })).await.json();
    assert_eq!(set["overdraft"]["amount"], "5.00");
    let posted = bank.post_money("o-2", "SHOP0001", "PAYER0001", "3.00").await;
    assert_eq!(posted.status, StatusCode::CREATED, "{posted:?}");
    let used = bank.world.post(&path, &json!({ "overdraft": "2.99" })).await;
    used.assert_check(409, "overdraft-used");
    for wrong in ["-1", "1.001", "a"] {
        let answer = bank.world.post(&path, &json!({ "overdraft": wrong })).await;
        assert_eq!(answer.status.as_u16(), 422, "{wrong}: {answer:?}");
    }
    let set = bank.world.post(&path, &json!({ "overdraft": "3.00" })).await.json();
    assert_eq!(set["overdraft"]["amount"], "3.00");
}
