//! `/v1/payments`: what initiating terminals ask, and what people who mean no good send.

use std::future::poll_fn;
use std::pin::Pin;

use axum::body::Body;
use axum::http::{Method, StatusCode, header};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::bank::{Bank, YEN, amount, keyed, order, order_with};
use crate::world::build;

#[tokio::test]
async fn a_payment_is_asked_for_shown_listed_and_taken_back() {
    let bank = Bank::new().await;
    let asked = bank.ask("k-1", &order()).await;
    assert_eq!(asked.status, StatusCode::CREATED, "{asked:?}");
    let payment = asked.json();
    let id = payment["id"].as_str().unwrap();
    assert!(id.starts_with("pay_"));
    let path = format!("/v1/payments/{id}");
    assert_eq!(asked.header("location"), path);
    for (name, value) in order().as_object().unwrap() {
        assert_eq!(payment[name], *value, "{name}");
    }
    assert_eq!(
        (&payment["status"], &payment["transactionStatus"]),
        (&json!("pending"), &json!("PDNG"))
    );
    assert_eq!(payment["refundedAmount"], json!({ "amount": "0.00", "currency": "CNY" }));
    let shown = bank.world.get_with(&bank.till, &path).await;
    assert_eq!(shown.text, asked.text, "the same payment in the same words");
    let listed = bank.world.get_with(&bank.till, "/v1/payments?status=pending").await.json();
    assert_eq!(listed["items"], json!([payment]));
    let none = bank.world.get_with(&bank.till, "/v1/payments?status=executed").await.json();
    assert_eq!(none["items"], json!([]));

    let cancel = format!("{path}/cancel");
    let cancelled = bank.world.send(build(Method::POST, &cancel, &bank.till, Body::empty())).await;
    let taken = cancelled.json();
    assert_eq!(
        (&taken["status"], &taken["transactionStatus"]),
        (&json!("cancelled"), &json!("CANC"))
    );
    let again = bank.world.send(build(Method::POST, &cancel, &bank.till, Body::empty())).await;
    assert_eq!(again.text, cancelled.text, "again is answered the same");
    let timeline = bank.world.get(&format!("{path}/timeline")).await.json();
    let states: Vec<_> = timeline["items"].as_array().unwrap().iter().collect();
    let names: Vec<_> = states.iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(names, ["created", "pending", "cancelled"]);
    assert!(states.iter().all(|row| row["at"].is_string() && row["actor"].is_string()));
    // Nobody paid anything.
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    let receipt = bank.world.get(&format!("{path}/receipt")).await;
    receipt.assert_check(409, "receipt-not-ready");
}

#[tokio::test]
async fn what_an_answer_has_is_what_the_document_says() {
    let bank = Bank::new().await;
    let payment = bank.pending("k-1").await;
    let account = bank.world.get("/v1/accounts?identification=PAYER0001").await.json();
    let path = format!("/v1/accounts/{}/entries", account["items"][0]["id"].as_str().unwrap());
    let entry = bank.world.get(&path).await.json()["items"][0].clone();
    let document = bank.world.get("/v1/openapi.json").await.json();
    let ledger = bank.world.get("/v1/ledger").await.json();
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let posting = bank.post_money("cash-2", "OUTSIDE01", "PAYER0001", "1.00").await.json();
    for (name, answer) in [
        ("Payment", &payment),
        ("Account", &account["items"][0]),
        ("LedgerEntry", &entry),
        ("Ledger", &ledger),
        ("Posting", &posting),
    ] {
        let schema = &document["components"]["schemas"][name];
        let mut told: Vec<_> = answer.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        let mut required: Vec<_> =
            schema["required"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        told.sort();
        known.sort();
        required.sort_unstable();
        assert_eq!(told, known, "{name}");
        assert_eq!(required, told, "{name}: every member is always there");
    }
}

#[tokio::test]
async fn the_same_request_is_answered_by_the_same_bytes_and_done_once() {
    let bank = Bank::new().await;
    let first = bank.ask("k-1", &order()).await;
    let again = bank.ask("k-1", &order()).await;
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(
        (first.header("idempotency-replayed"), again.header("idempotency-replayed")),
        ("", "true")
    );
    let listed = bank.world.get("/v1/payments").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    // Later changes do not change the answer.
    let cancel = format!("{}/cancel", first.header("location"));
    bank.world.send(build(Method::POST, &cancel, &bank.till, Body::empty())).await;
    assert_eq!(bank.ask("k-1", &order()).await.text, first.text);
    // The same key for another request, even by one space.
    let other = bank.ask("k-1", &amount("12.35", "CNY")).await;
    other.assert_check(422, "idempotency-mismatch");
    let spaced = format!(" {}", order());
    let spaced = bank.world.send(keyed(&bank.till, "/v1/payments", "k-1", spaced)).await;
    spaced.assert_check(422, "idempotency-mismatch");
    // Another operator's key is another key.
    let other = bank.world.token("till-2", &[Role::Integrator]).await;
    let theirs = bank.world.send(keyed(&other, "/v1/payments", "k-1", order().to_string())).await;
    assert_eq!(theirs.status, StatusCode::CREATED);
    assert_ne!(theirs.json()["id"], first.json()["id"]);
    // A refused request leaves the key free.
    bank.ask("k-2", &amount("0", "CNY")).await.assert_check(422, "amount-range");
    assert_eq!(bank.ask("k-2", &order()).await.status, StatusCode::CREATED);
    let posted = bank.post_money("cash-2", "OUTSIDE01", "PAYER0001", "5.00").await;
    let again = bank.post_money("cash-2", "OUTSIDE01", "PAYER0001", "5.00").await;
    assert_eq!((posted.text, bank.balance("PAYER0001").await.as_str()), (again.text, "1005.00"));
    // A key is for one path, too.
    let elsewhere = keyed(&bank.till, "/v1/payments", "k-1", order().to_string());
    assert_eq!(bank.world.send(elsewhere).await.text, first.text);
    let elsewhere = keyed(&bank.world.admin, "/v1/payments", "cash-2", order().to_string());
    bank.world.send(elsewhere).await.assert_check(422, "idempotency-mismatch");
    let body = json!({ "reference": "cash-2", "debtorAccount": { "identification": "OUTSIDE01" },
        "creditorAccount": { "identification": "PAYER0001" },
        "amount": { "amount": "5.00", "currency": "CNY" } });
    let twice = keyed(&bank.world.admin, "/v1/postings", "another", body.to_string());
    bank.world.send(twice).await.assert_check(409, "reference-taken");
}

#[tokio::test]
async fn two_at_once_under_one_key_are_one_payment() {
    let bank = Bank::new().await;
    let mut in_flight = 0;
    for round in 0..50 {
        let key = format!("k-{round}");
        let request = || keyed(&bank.till, "/v1/payments", &key, order().to_string());
        let (a, b) = (bank.world.send(request()), bank.world.send(request()));
        let (c, d) = (bank.world.send(request()), bank.world.send(request()));
        let (a, b, c, d) = tokio::join!(a, b, c, d);
        let mut made = Vec::new();
        for answer in [a, b, c, d] {
            if answer.status == StatusCode::CREATED {
                made.push(answer.text);
            } else {
                answer.assert_check(409, "idempotency-in-flight");
                in_flight += 1;
            }
        }
        made.dedup();
        assert_eq!(made.len(), 1, "all that were answered were answered the same");
        let listed = bank.world.get("/v1/payments").await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), round + 1);
    }
    assert!(in_flight > 0, "none met another");
}

#[tokio::test]
async fn a_key_is_needed_and_bounded() {
    let bank = Bank::new().await;
    let without = build(Method::POST, "/v1/payments", &bank.till, order().to_string().into());
    bank.world.send(without).await.assert_check(400, "idempotency-key-missing");
    for bad in ["", "two words", &"k".repeat(256)] {
        bank.ask(bad, &order()).await.assert_check(400, "idempotency-key");
    }
    assert_eq!(bank.ask(&"k".repeat(255), &order()).await.status, StatusCode::CREATED);
    let mut twice = keyed(&bank.till, "/v1/payments", "a", order().to_string());
    twice.headers_mut().append("idempotency-key", "b".parse().unwrap());
    bank.world.send(twice).await.assert_check(400, "idempotency-key");
}

#[tokio::test]
async fn bodies_of_the_wrong_form_are_refused() {
    let bank = Bank::new().await;
    let text = order().to_string();
    let number = text.replace("\"12.34\"", "12.34");
    let twice = text.replace("{\"endToEnd", "{\"endToEndIdentification\":\"X\",\"endToEnd");
    let nested = text.replace("{\"amount\"", "{\"amount\":\"1\",\"amount\"");
    let unknown = text.replace("{\"amount\"", "{\"amuont\":\"1\",\"amount\"");
    assert!([&number, &twice, &nested, &unknown].into_iter().all(|changed| *changed != text));
    let mut not_utf8 = text.clone().into_bytes();
    let at = not_utf8.iter().position(|byte| *byte == b'7').unwrap();
    not_utf8[at] = 0xFF;
    let mut missing = order();
    missing.as_object_mut().unwrap().remove("creditor");
    let cases: Vec<Vec<u8>> = vec![
        vec![],
        b"{".to_vec(),
        text[..text.len() - 1].into(),
        format!("{text}{text}").into(),
        b"null".to_vec(),
        b"[]".to_vec(),
        "[".repeat(60_000).into(),
        number.into(),
        twice.into(),
        nested.into(),
        unknown.into(),
        not_utf8,
        missing.to_string().into(),
        order_with("/instructedAmount", json!("12.34 CNY")).to_string().into(),
        order_with("/instructedAmount/amount", json!(1234)).to_string().into(),
        order_with("/instructedAmount/amount", Value::Null).to_string().into(),
        order_with("/debtorAccount", json!("PAYER0001")).to_string().into(),
        text.replace("\"Order 7: 2 teas\"", "\"\\ud800\"").into(),
    ];
    for body in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
        let answer = bank.world.send(keyed(&bank.till, "/v1/payments", "k", body)).await;
        assert_eq!(answer.status.as_u16(), 400, "{shown}");
        answer.assert_check(400, "body");
    }
    let mut plain = keyed(&bank.till, "/v1/payments", "k", text.clone());
    plain.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    bank.world.send(plain).await.assert_check(415, "media-type");
    let large = vec![b' '; 10 * 1024 * 1024];
    let answer = bank.world.send(keyed(&bank.till, "/v1/payments", "k", large)).await;
    answer.assert_check(413, "body-too-large");
    let listed = bank.world.get("/v1/payments").await.json();
    assert_eq!(listed["items"], json!([]), "nothing of it became a payment");
    // Nothing of it used the key up.
    assert_eq!(bank.ask("k", &order()).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn amounts_are_exact_or_refused() {
    let bank = Bank::new().await;
    for (text, check) in [
        ("0", "amount-range"),
        ("0.00", "amount-range"),
        ("9223372036854775808", "amount-range"),
        ("99999999999999999999999999.99", "amount-range"),
        ("10000000000000.01", "amount-range"),
        ("1.001", "amount-decimals"),
        ("1.000", "amount-decimals"),
        ("-1.00", "amount-form"),
        ("+1.00", "amount-form"),
        ("1e3", "amount-form"),
        ("1,000.00", "amount-form"),
        (" 1.00", "amount-form"),
        ("1.", "amount-form"),
        (".5", "amount-form"),
        ("01.00", "amount-form"),
        ("0x10", "amount-form"),
        ("NaN", "amount-form"),
        ("１.00", "amount-form"),
        ("", "amount-form"),
    ] {
        let answer = bank.ask("k", &amount(text, "CNY")).await;
        assert_eq!(answer.json()["check"], check, "{text}: {answer:?}");
        answer.assert_check(422, check);
    }
    for currency in ["", "cny", "XYZ", "CN", "CNYY", "ZZZ"] {
        let answer = bank.ask("k", &amount("1.00", currency)).await;
        answer.assert_check(422, "currency-unknown");
    }
    // A currency has its own decimals, and its own accounts.
    let yen = |text: &str| {
        let mut order = amount(text, "JPY");
        order["debtorAccount"]["identification"] = json!(YEN);
        order["creditorAccount"]["identification"] = json!("JPYSHOP01");
        order
    };
    bank.ask("k", &yen("1.5")).await.assert_check(422, "amount-decimals");
    bank.ask("k", &yen("1.0")).await.assert_check(422, "amount-decimals");
    bank.ask("k", &amount("1", "JPY")).await.assert_check(422, "currency-mismatch");
    assert_eq!(bank.ask("k", &yen("15")).await.json()["instructedAmount"]["amount"], "15");
    // The same number in a shorter form is shown with all its decimals.
    for (key, text, shown) in [("a", "12", "12.00"), ("b", "0.01", "0.01"), ("c", "7.5", "7.50")] {
        let answer = bank.ask(key, &amount(text, "CNY")).await;
        assert_eq!(answer.json()["instructedAmount"]["amount"], shown, "{answer:?}");
    }
}

#[tokio::test]
async fn texts_that_could_deceive_are_refused_and_markup_is_only_text() {
    let bank = Bank::new().await;
    let long = "x".repeat(1000);
    let places = ["/remittanceInformation", "/creditor/name", "/initiatingParty/name"];
    for place in places {
        for text in [
            "",
            "Tea\u{202e}pohS",         // right-to-left override
            "Tea\u{2066}Shop\u{2069}", // isolates
            "Tea\u{200b}Shop",         // zero width space
            "Tea\u{200d}Shop",
            "Tea\u{feff}Shop",
            "Tea\u{ad}Shop",    // soft hyphen
            "Tea\u{e0054}Shop", // tag character
            "Tea\0Shop",
            "Tea\nShop",
            "Tea\u{1b}[2J",
            "Tea\u{85}Shop",
            "Tea\u{e000}Shop", // private use
            "Te\u{301}a",      // not composed
            "T\u{0435}a Shop", // Cyrillic е between Latin letters
            &long,
        ] {
            let answer = bank.ask("k", &order_with(place, json!(text))).await;
            assert_eq!(answer.status.as_u16(), 422, "{place} {text:?}: {answer:?}");
            let check = answer.json()["check"].as_str().unwrap().to_owned();
            assert!(check.starts_with("text"), "{place} {text:?}: {check}");
        }
    }
    // `<` is a letter like others; who shows it escapes it.
    for (key, text) in [
        ("a", "<script>alert(1)</script> & \"quotes\""),
        ("b", "茶 2 杯"),
        ("c", "شاي"),
        ("d", "O'Brien; DROP TABLE payments;--"),
    ] {
        let answer = bank.ask(key, &order_with("/remittanceInformation", json!(text))).await;
        assert_eq!(answer.json()["remittanceInformation"], text, "{answer:?}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
}

#[tokio::test]
async fn accounts_and_times_that_do_not_fit_are_refused_by_name() {
    let bank = Bank::new().await;
    for (pointer, value, check) in [
        ("/debtorAccount/identification", json!("NOBODY001"), "account-unknown"),
        ("/creditorAccount/identification", json!("NOBODY001"), "payee-unknown"),
        ("/creditorAccount/identification", json!("PAYER0001"), "same-account"),
        ("/creditorAccount/identification", json!("JPYSHOP01"), "currency-mismatch"),
    ] {
        let answer = bank.ask("k", &order_with(pointer, value)).await;
        answer.assert_check(422, check);
    }
    for number in ["", "ABC", "shop0001", "SHOP 001", &"A".repeat(35)] {
        let pointer = "/creditorAccount/identification";
        let answer = bank.ask("k", &order_with(pointer, json!(number))).await;
        assert_eq!(answer.status.as_u16(), 422, "{number}: {answer:?}");
    }
    for (seconds, fits) in [(0, false), (29, false), (30, true), (86_400, true), (86_401, false)] {
        let mut order = order();
        order["expiresIn"] = json!(seconds);
        let answer = bank.ask(&format!("e-{seconds}"), &order).await;
        if fits {
            assert_eq!(answer.status, StatusCode::CREATED, "{seconds}: {answer:?}");
        } else {
            answer.assert_check(422, "expiry-range");
        }
    }
    for bad in [json!(-1), json!(1.5), json!("300"), json!(u64::MAX)] {
        let mut order = order();
        order["expiresIn"] = bad;
        bank.ask("k", &order).await.assert_check(400, "body");
    }
}

#[tokio::test]
async fn an_integrator_sees_its_own_payments_and_an_auditor_all() {
    let bank = Bank::new().await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let stranger = bank.world.token("till-2", &[Role::Integrator]).await;
    let auditor = bank.world.token("auditor", &[Role::Auditor]).await;
    let path = format!("/v1/payments/{id}");
    for more in [
        "",
        "?wait=1&version=0",
        "/timeline",
        "/authorisations",
        "/receipt",
        "/evidence",
        "/events",
    ] {
        let answer = bank.world.get_with(&stranger, &format!("{path}{more}")).await;
        answer.assert_problem(404, "not-found", "Not found", "there is no such payment");
    }
    let cancel = build(Method::POST, &format!("{path}/cancel"), &stranger, Body::empty());
    bank.world.send(cancel).await.assert_check(404, "not-found");
    let listed = bank.world.get_with(&stranger, "/v1/payments").await.json();
    assert_eq!(listed["items"], json!([]));

    assert_eq!(bank.world.get_with(&auditor, &path).await.status, StatusCode::OK);
    let listed = bank.world.get_with(&auditor, "/v1/payments").await.json();
    assert_eq!(listed["items"][0]["id"], id.as_str());
    let cancel = build(Method::POST, &format!("{path}/cancel"), &auditor, Body::empty());
    bank.world.send(cancel).await.assert_check(403, "scope");
    // Seeing all and asking for some is not managing all.
    let both = bank.world.token("both", &[Role::Integrator, Role::Auditor]).await;
    let cancel = build(Method::POST, &format!("{path}/cancel"), &both, Body::empty());
    bank.world.send(cancel).await.assert_check(403, "scope");
    let ask = keyed(&auditor, "/v1/payments", "k", order().to_string());
    bank.world.send(ask).await.assert_check(403, "scope");
    for path in ["/v1/accounts", "/v1/ledger"] {
        assert_eq!(bank.world.get_with(&auditor, path).await.status, StatusCode::OK, "{path}");
    }
    let refund = json!({ "instructedAmount": { "amount": "1.00", "currency": "CNY" } });
    let refund = keyed(&bank.till, &format!("{path}/refunds"), "r", refund.to_string());
    bank.world.send(refund).await.assert_check(403, "scope");
    // An operator's token is no phone's.
    let body = json!({ "method": "reject", "reason": "not-mine" }).to_string();
    let answers = format!("{path}/authorisations");
    let answer = build(Method::POST, &answers, &bank.world.admin, Body::from(body));
    bank.world.send(answer).await.assert_check(401, "token");
}

#[tokio::test]
async fn who_is_disabled_while_it_waits_is_told_nothing_more() {
    let bank = Bank::new().await;
    let payment = bank.pending("k-1").await;
    let auditor = bank.world.token("auditor", &[Role::Auditor]).await;
    let (id, version) = (payment["id"].as_str().unwrap(), &payment["version"]);
    let path = format!("/v1/payments/{id}?wait=1&version={version}");
    let waiting = bank.world.get_with(&auditor, &path);
    let disabling = async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let service = &bank.world.service;
        service.disable_operator(&Actor::Console, "auditor").await.unwrap();
    };
    let (answer, ()) = tokio::join!(waiting, disabling);
    answer.assert_check(401, "token");
}

#[tokio::test]
async fn waiting_is_bounded_and_ends_with_a_change() {
    let bank = Bank::new().await;
    let payment = bank.pending("k-1").await;
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    for bad in ["wait=0", "wait=26", "wait=-1", "wait=1.5", "wait=x", "wait=", "version=1"] {
        let answer = bank.world.get_with(&bank.till, &format!("{path}?{bad}")).await;
        assert_eq!(answer.status.as_u16(), 400, "{bad}: {answer:?}");
    }
    let twice = bank.world.get_with(&bank.till, &format!("{path}?wait=1&wait=2")).await;
    twice.assert_check(400, "query");
    // A version that is not the payment's is a change that was missed.
    let missed = bank.world.get_with(&bank.till, &format!("{path}?wait=25&version=0")).await;
    assert_eq!(missed.json(), payment);
    let version = payment["version"].as_i64().unwrap();
    let wait = format!("{path}?wait=25&version={version}");
    let waiting = bank.world.get_with(&bank.till, &wait);
    let cancelling = async {
        tokio::task::yield_now().await;
        let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
        bank.world.send(cancel).await
    };
    let (told, cancelled) = tokio::join!(waiting, cancelling);
    assert_eq!(cancelled.status, StatusCode::OK);
    assert_eq!(told.json()["status"], "cancelled", "{told:?}");
    // What has ended is not waited for.
    let version = told.json()["version"].as_i64().unwrap();
    let ended = bank.world.get_with(&bank.till, &format!("{path}?wait=25&version={version}")).await;
    assert_eq!(ended.json()["status"], "cancelled");
}

#[tokio::test]
async fn a_stream_tells_each_change_once_and_ends() {
    let bank = Bank::new().await;
    let payment = bank.pending("k-1").await;
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    let events = format!("{path}/events");
    let stream = bank.world.get_with(&bank.till, &events);
    let cancelling = async {
        tokio::task::yield_now().await;
        let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
        bank.world.send(cancel).await
    };
    let (stream, cancelled) = tokio::join!(stream, cancelling);
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let told: Vec<Value> = stream
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(told.last(), Some(&cancelled.json()), "{}", stream.text);
    assert!(told.len() == 1 || told[0] == payment, "{}", stream.text);
    // A client that has the last version is told nothing again.
    let mut again = build(Method::GET, &format!("{path}/events"), &bank.till, Body::empty());
    let version = cancelled.json()["version"].to_string();
    again.headers_mut().insert("last-event-id", version.parse().unwrap());
    let again = bank.world.send(again).await;
    assert!(!again.text.contains("data:"), "{}", again.text);
}

#[tokio::test]
async fn waits_of_one_token_are_bounded_and_their_places_come_back() {
    const PER_TOKEN: usize = 256;
    let bank = Bank::new().await;
    let payment = bank.pending("k-1").await;
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    let wait = format!("{path}?wait=25&version={}", payment["version"]);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..PER_TOKEN {
        let (router, wait, till) = (bank.world.router.clone(), wait.clone(), bank.till.clone());
        waiting.spawn(async move {
            // A probe below may have the place for a moment.
            loop {
                let request = build(Method::GET, &wait, &till, Body::empty());
                let status = router.clone().oneshot(request).await.unwrap().status();
                if status != StatusCode::TOO_MANY_REQUESTS {
                    return status;
                }
            }
        });
    }
    // They are all there once one more is refused; those before only look, for a moment.
    let mut refused = None;
    for _ in 0..100 {
        let more = bank.world.get_with(&bank.till, &format!("{path}?wait=1&version=0")).await;
        if more.status == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(more);
            break;
        }
        tokio::task::yield_now().await;
    }
    refused.unwrap().assert_check(429, "waits-full");
    let looked = bank.world.get_with(&bank.till, &path).await;
    assert_eq!(looked.status, StatusCode::OK, "who does not wait needs no place");
    let admins = bank.world.get(&format!("{path}?wait=1&version=0")).await;
    assert_eq!(admins.status, StatusCode::OK, "others have their own");
    let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
    bank.world.send(cancel).await;
    for status in waiting.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
    let again = bank.world.get_with(&bank.till, &wait).await;
    assert_eq!(again.json()["status"], "cancelled");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let bank = Bank::new().await;
    let (_, token) =
        bank.world.service.add_operator(&Actor::Console, "gone", &[Role::Auditor]).await.unwrap();
    let path = format!("/v1/payments/{}", bank.pending("k-1").await["id"].as_str().unwrap());
    let events = build(Method::GET, &format!("{path}/events"), &token.secret, Body::empty());
    let mut body = bank.world.router.clone().oneshot(events).await.unwrap().into_body();
    let mut next = async || {
        let frame = poll_fn(|cx| hyper::body::Body::poll_frame(Pin::new(&mut body), cx)).await?;
        String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).ok()
    };
    assert!(next().await.unwrap().starts_with("retry:"));
    assert!(next().await.unwrap().contains("\"status\":\"pending\""));
    bank.world.service.revoke_token(&Actor::Console, &token.id).await.unwrap();
    let cancel = build(Method::POST, &format!("{path}/cancel"), &bank.till, Body::empty());
    assert_eq!(bank.world.send(cancel).await.status, StatusCode::OK);
    assert_eq!(next().await, None, "what happens now is not told any more");
}
