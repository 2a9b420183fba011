//! What an initiating terminal shows its payer, and what the payer's checkout page asks (D2, D6).

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use countersign_crypto::Secret;
use countersign_payment::ocra::respond;
use countersign_store::Role;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::logs::Lines;
use crate::world::{Answer, build};

const HOST: &str = "pay.test:8443";

fn at_host(mut request: Request<Body>) -> Request<Body> {
    request.headers_mut().insert(header::HOST, HOST.parse().unwrap());
    request
}

/// What the terminal is given for a payment.
async fn given(bank: &Bank, token: &str, id: &str) -> Answer {
    let path = format!("/v1/payments/{id}/checkout");
    bank.world.send(at_host(build(Method::GET, &path, token, Body::empty()))).await
}

/// A payment and the key of its page.
async fn opened(bank: &Bank, idempotency_key: &str) -> (String, String) {
    let id = bank.pending(idempotency_key).await["id"].as_str().unwrap().to_owned();
    let told = given(bank, &bank.till, &id).await.json();
    let url = told["url"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
    let (page, key) = url.split_once('#').unwrap();
    assert_eq!(page, format!("https://{HOST}/checkout/{id}"), "the key stands in the fragment");
    (id, key.to_owned())
}

fn asked(method: Method, path: &str, authorisation: &str, body: &str) -> Request<Body> {
    let mut request = at_host(build(method, path, "", Body::from(body.to_owned())));
    request.headers_mut().insert(header::AUTHORIZATION, authorisation.parse().unwrap());
    request
}

async fn page(bank: &Bank, id: &str, key: &str) -> Answer {
    let path = format!("/v1/checkout/{id}");
    bank.world.send(asked(Method::GET, &path, &format!("Checkout {key}"), "")).await
}

async fn typed(bank: &Bank, id: &str, key: &str, body: &Value) -> Answer {
    let path = format!("/v1/checkout/{id}/answers");
    let authorisation = format!("Checkout {key}");
    bank.world.send(asked(Method::POST, &path, &authorisation, &body.to_string())).await
}

/// A device that makes dynamic passwords: what it shows for a request.
async fn ocra_device(bank: &Bank, serial: &str, account: &str) -> impl Fn(&[u8]) -> String {
    let body = json!({ "serial": serial, "label": "token", "accounts": [account] });
    let made = bank.world.post("/v1/devices/ocra", &body).await.json();
    let key = HEXLOWER.decode(made["key"].as_str().unwrap().as_bytes()).unwrap();
    move |request| respond(&Secret::copied_from(&key), request).unwrap().to_string()
}

#[tokio::test]
async fn a_page_shows_the_payment_and_nothing_more() {
    let bank = Bank::new().await;
    let (id, key) = opened(&bank, "k-1").await;
    assert!(
        key.len() == 22 && key.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    );
    let told = given(&bank, &bank.till, &id).await.json();
    let shown = page(&bank, &id, &key).await;
    assert_eq!(shown.status, StatusCode::OK, "{shown:?}");
    assert_eq!(shown.header("cache-control"), "no-store");
    let payment = shown.json();
    assert_eq!(payment["instructedAmount"], json!({ "amount": "12.34", "currency": "CNY" }));
    assert_eq!(payment["creditor"], json!({ "name": "Tea Shop" }));
    assert_eq!(payment["creditorAccount"], json!({ "identification": "SHOP0001" }));
    assert_eq!(payment.get("debtorAccount"), None, "the payer's account is not for bystanders");
    assert!(!shown.text.contains("PAYER0001"), "{shown:?}");
    assert_eq!(payment["remittanceInformation"], "Order 7: 2 teas");
    assert_eq!((&payment["status"], &payment["statusReason"]), (&json!("pending"), &Value::Null));
    assert_eq!(payment["matchCode"], told["matchCode"]);
    let number: u32 = payment["matchCode"].as_str().unwrap().parse().unwrap();
    assert!((10..100).contains(&number));
    for text in [&told["offline"], &payment["offline"]] {
        assert!(text.as_str().unwrap().starts_with("CS1:"), "{text}");
    }
    let document = bank.world.get("/v1/openapi.json").await.json();
    for (name, answer) in [("CheckoutPayment", &payment), ("Checkout", &told)] {
        let schema = &document["components"]["schemas"][name];
        let mut members: Vec<_> = answer.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        members.sort();
        known.sort();
        assert_eq!(members, known, "{name}");
    }
    // The same page and number for who asks again; another payment has another key.
    assert_eq!(given(&bank, &bank.till, &id).await.json()["url"], told["url"]);
    assert_ne!(opened(&bank, "k-2").await.1, key);
}

#[tokio::test]
async fn only_who_asked_for_a_payment_is_given_its_page() {
    let bank = Bank::new().await;
    let (id, _) = opened(&bank, "k-1").await;
    let other = bank.world.token("other-till", &[Role::Integrator]).await;
    given(&bank, &other, &id).await.assert_check(404, "not-found");
    given(&bank, &bank.world.admin, &id).await.assert_check(404, "not-found");
    let auditor = bank.world.token("audrey", &[Role::Auditor]).await;
    given(&bank, &auditor, &id).await.assert_check(403, "scope");
    given(&bank, &bank.till, "pay_none").await.assert_check(404, "not-found");
    // A client that names no host gets no URL that leads nowhere.
    let path = format!("/v1/payments/{id}/checkout");
    bank.world.get_with(&bank.till, &path).await.assert_check(400, "host");
}

/// A wrong key, another payment's, a payment that is none: one answer for all.
#[tokio::test]
async fn without_its_own_key_a_payment_does_not_open() {
    let bank = Bank::new().await;
    let (id, key) = opened(&bank, "k-1").await;
    let (_, other) = opened(&bank, "k-2").await;
    let changed = format!("{}{}", &key[..21], if key.ends_with('A') { "Q" } else { "A" });
    let alike = format!("Checkout {key}");
    for authorisation in [
        String::new(),
        "Checkout".to_owned(),
        "Checkout ".to_owned(),
        format!("Checkout {other}"),
        format!("Checkout {changed}"),
        format!("Checkout {key}="),
        format!("Checkout {}", &key[..21]),
        format!("Checkout {}", key.to_lowercase()),
        format!("Checkout {}", "x".repeat(5000)),
        format!("Bearer {key}"),
        format!("Bearer {}", bank.till),
        format!("Bearer {}", bank.world.admin),
        format!("DPoP {key}"),
        key.clone(),
    ] {
        for (method, step) in
            [(Method::GET, ""), (Method::GET, "/events"), (Method::POST, "/answers")]
        {
            let path = format!("/v1/checkout/{id}{step}");
            let answer = bank.world.send(asked(method, &path, &authorisation, "{")).await;
            answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
            assert_eq!(answer.header("www-authenticate"), "Checkout");
        }
    }
    for unknown in ["pay_none", "PAY", "pay_00000000-0000-7000-8000-000000000000"] {
        let answer = page(&bank, unknown, &key).await;
        answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
    }
    let mut twice = asked(Method::GET, &format!("/v1/checkout/{id}"), &alike, "");
    twice.headers_mut().append(header::AUTHORIZATION, alike.parse().unwrap());
    bank.world.send(twice).await.assert_check(401, "token");
    // Nor does the key open anything else, or in another place.
    for path in [
        format!("/v1/checkout/{id}?key={key}"),
        format!("/v1/payments/{id}"),
        "/v1/phone".to_owned(),
    ] {
        bank.world.get_with(&key, &path).await.assert_check(401, "token");
    }
    assert_eq!(page(&bank, &id, &key).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_sees_the_payment_end() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let (id, key) = opened(&bank, "k-1").await;
    let path = format!("/v1/checkout/{id}/events");
    let request = asked(Method::GET, &path, &format!("Checkout {key}"), "");
    let response = tower::ServiceExt::oneshot(bank.world.router.clone(), request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let reading = tokio::spawn(axum::body::to_bytes(response.into_body(), 1 << 20));
    tokio::task::yield_now().await;
    assert_eq!(bank.confirm(&payer, &id).await.json()["status"], "executed");
    let text = reading.await.unwrap().unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let told: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    assert_eq!(told[0]["status"], "pending", "{text}");
    assert!(told[0]["matchCode"].is_string() && told[0]["offline"].is_null(), "{text}");
    let last = told.last().unwrap();
    assert_eq!(last["status"], "executed", "{text}");
    // What nobody needs any more is not there any more.
    assert_eq!((&last["matchCode"], &last["offline"]), (&Value::Null, &Value::Null));
    assert_eq!(page(&bank, &id, &key).await.json(), *last);
    // Who has seen it all is told nothing again.
    let mut request = asked(Method::GET, &path, &format!("Checkout {key}"), "");
    let version = last["version"].to_string();
    request.headers_mut().insert("last-event-id", version.parse().unwrap());
    let again = bank.world.send(request).await;
    assert!(again.status == StatusCode::OK && !again.text.contains("data:"), "{again:?}");

    // Why it was not executed.
    let (id, key) = opened(&bank, "k-2").await;
    let reject = json!({ "method": "reject", "reason": "wrong-details" });
    bank.answer(&payer, &id, &reject).await;
    let ended = page(&bank, &id, &key).await.json();
    assert_eq!(
        (&ended["status"], &ended["statusReason"]),
        (&json!("rejected"), &json!("wrong-details"))
    );
}

/// A key is not for ever: who finds the address in a history a day later sees nothing.
#[tokio::test]
async fn a_key_ends_a_day_after_its_payment() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let (id, key) = opened(&bank, "k-1").await;
    bank.confirm(&payer, &id).await;
    bank.world.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(page(&bank, &id, &key).await.json()["status"], "executed");
    bank.world.advance(Duration::from_secs(1));
    let authorisation = format!("Checkout {key}");
    for (method, path) in [
        (Method::GET, format!("/v1/checkout/{id}")),
        (Method::GET, format!("/v1/checkout/{id}/events")),
        (Method::POST, format!("/v1/checkout/{id}/answers")),
        (Method::GET, format!("/checkout/parts/{id}")),
    ] {
        let answer = bank.world.send(asked(method, &path, &authorisation, "{}")).await;
        answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
        assert_eq!(answer.header("www-authenticate"), "Checkout");
    }
}

#[tokio::test]
async fn streams_of_a_payment_are_few_and_take_no_others_place() {
    let bank = Bank::new().await;
    let (id, key) = opened(&bank, "k-1").await;
    let (second, second_key) = opened(&bank, "k-2").await;
    let open = async |id: &str, authorisation: String| {
        let request = asked(Method::GET, &format!("{id}/events"), &authorisation, "");
        tower::ServiceExt::oneshot(bank.world.router.clone(), request).await.unwrap()
    };
    let checkout = async |id: &str, key: &str| {
        open(&format!("/v1/checkout/{id}"), format!("Checkout {key}")).await
    };
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(checkout(&id, &key).await);
    }
    assert!(held.iter().all(|stream| stream.status() == StatusCode::OK));
    let path = format!("/v1/checkout/{id}/events");
    let full = bank.world.send(asked(Method::GET, &path, &format!("Checkout {key}"), "")).await;
    full.assert_check(429, "streams-full");
    assert_eq!(full.json()["detail"], "one payment has at most 4");
    assert_eq!(checkout(&second, &second_key).await.status(), StatusCode::OK);
    let till = open(&format!("/v1/payments/{id}"), format!("Bearer {}", bank.till)).await;
    assert_eq!(till.status(), StatusCode::OK);
    held.pop();
    assert_eq!(checkout(&id, &key).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn digits_of_a_device_without_a_network_settle_a_payment() {
    let bank = Bank::new().await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let device = ocra_device(&bank, "OCRA-1", "PAYER0001").await;
    let (id, key) = opened(&bank, "k-1").await;
    let request = bank.request(&payer, &id).await;
    let digits = device(&request);
    let body = json!({ "deviceSerial": "OCRA-1", "digits": digits });
    let answered = typed(&bank, &id, &key, &body).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    let told = answered.json();
    assert_eq!((&told["scaStatus"], &told["status"]), (&json!("finalised"), &json!("executed")));
    assert_eq!(typed(&bank, &id, &key, &body).await.text, answered.text);
    assert_eq!(bank.balance("SHOP0001").await, "12.34");
    let stored = bank.world.get(&format!("/v1/payments/{id}/authorisations")).await.json();
    let stored = &stored["items"][0];
    assert_eq!((&stored["method"], &stored["phoneId"]), (&json!("ocra"), &Value::Null));

    // Digits for another payment, of a foreign device, of none: one answer, and three end it.
    let foreign = ocra_device(&bank, "OCRA-2", "SHOP0001").await;
    let (id, key) = opened(&bank, "k-2").await;
    let request = bank.request(&payer, &id).await;
    for (serial, digits) in
        [("OCRA-1", digits), ("OCRA-2", foreign(&request)), ("OCRA-9", "00000000".to_owned())]
    {
        let body = json!({ "deviceSerial": serial, "digits": digits });
        typed(&bank, &id, &key, &body).await.assert_check(422, "authorisation-refused");
    }
    let body = json!({ "deviceSerial": "OCRA-1", "digits": device(&request) });
    typed(&bank, &id, &key, &body).await.assert_check(409, "payment-failed");
    assert_eq!(page(&bank, &id, &key).await.json()["status"], "failed");
    assert_eq!(bank.balance("SHOP0001").await, "12.34");
}

#[tokio::test]
async fn what_is_no_answer_counts_for_nothing() {
    let bank = Bank::new().await;
    let (id, key) = opened(&bank, "k-1").await;
    for body in [
        json!({}),
        json!([]),
        json!({ "deviceSerial": "OCRA-1" }),
        json!({ "deviceSerial": "OCRA-1", "digits": 12_345_678 }),
        json!({ "deviceSerial": "OCRA-1", "digits": "1", "method": "ocra" }),
        json!({ "method": "reject", "reason": "not-mine" }),
    ] {
        typed(&bank, &id, &key, &body).await.assert_check(400, "body");
    }
    let path = format!("/v1/checkout/{id}/answers");
    let mut text = asked(Method::POST, &path, &format!("Checkout {key}"), "{}");
    text.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    bank.world.send(text).await.assert_check(415, "media-type");
    let shown = page(&bank, &id, &key).await.json();
    assert_eq!(shown["status"], "pending");
}

/// The key is in no log and in no row of the audit.
#[tokio::test]
async fn the_key_is_written_nowhere() {
    let bank = Bank::new().await;
    let lines = Lines::start();
    let (id, key) = opened(&bank, "k-1").await;
    page(&bank, &id, &key).await;
    page(&bank, "pay_none", &key).await.assert_check(401, "token");
    let body = json!({ "deviceSerial": "OCRA-1", "digits": "00000000" });
    typed(&bank, &id, &key, &body).await.assert_check(422, "authorisation-refused");
    assert!(lines.text().contains("/v1/checkout/{id}"), "{}", lines.text());
    assert!(!lines.text().contains(&key), "{}", lines.text());
    let rows = bank.world.service.audit_page(None, 200).await.unwrap().items;
    assert!(!rows.is_empty() && !format!("{rows:?}").contains(&key));
}
