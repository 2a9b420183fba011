//! Security devices and payers' phones over HTTP: enrolment, bindings, pushes (D2, D4).

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use countersign_crypto::Secret;
use countersign_payment::ocra::respond;
use countersign_pki::Role as PkiRole;
use countersign_service::WRONG_FROM_SOURCE_MAX;
use countersign_store::StoreError;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::bank::Bank;
use crate::world::{Answer, World, build, csr, key, key_of, pem_of};

fn enrolment(role: PkiRole, serial: &str, seed: u64) -> Value {
    let request = pem_of(&csr(role, serial, &*key(seed)));
    json!({ "request": request, "label": "Li Lei", "accounts": ["PAYER0001"] })
}

fn with(mut body: Value, member: &str, value: Value) -> Value {
    body[member] = value;
    body
}

/// Sent without any token.
async fn enrol_phone(world: &World, code: &Value) -> Answer {
    let body = json!({ "code": code }).to_string();
    let mut request = build(Method::POST, "/v1/phone/enrolments", "", body.into());
    request.headers_mut().remove("authorization");
    world.send(request).await
}

async fn allow(world: &World) -> Value {
    let body = json!({ "label": "Li Lei", "accounts": ["PAYER0001"] });
    let allowed = world.post("/v1/phones", &body).await;
    assert_eq!(allowed.status, StatusCode::CREATED, "{allowed:?}");
    let id = allowed.json()["phone"]["id"].as_str().unwrap().to_owned();
    assert_eq!(allowed.header("location"), format!("/v1/phones/{id}"));
    allowed.json()
}

/// What the newest row of the audit says: action, subject, check, detail.
async fn audited(world: &World) -> (String, String, Option<String>, String) {
    let row = world.service.audit_page(None, 1).await.unwrap().items.remove(0);
    (row.entry.action, row.entry.subject, row.entry.check, row.entry.detail)
}

#[tokio::test]
async fn a_security_device_is_enrolled_bound_and_blocked() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let body = enrolment(PkiRole::SecurityDevice, "KEY-1", 1);
    let first = world.post("/v1/devices", &body).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let device = first.json()["device"].clone();
    let path = format!("/v1/devices/{}", device["id"].as_str().unwrap());
    assert_eq!(first.header("location"), path);
    assert_eq!((&device["method"], &device["status"]), (&json!("pki"), &json!("enrolled")));
    assert_eq!(device["accounts"][0]["identification"], "PAYER0001");
    assert!(path.starts_with("/v1/devices/sdv_"));
    // The same key again gets the same certificate.
    let again = world.post("/v1/devices", &body).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.json()["certificate"], first.json()["certificate"]);
    assert_eq!(world.get(&path).await.json(), device);
    let listed = world.get("/v1/devices?serial=KEY-1").await.json();
    assert_eq!(listed, json!({ "items": [device], "next": null }));
    let none = world.get("/v1/devices?serial=KEY-9").await.json();
    assert_eq!(none["items"], json!([]));

    let post = async |step: &str, body: Value| world.post(&format!("{path}/{step}"), &body).await;
    let bound = post("bind", json!({ "accounts": ["SHOP0001", "PAYER0001"] })).await.json();
    assert_eq!(bound["accounts"].as_array().unwrap().len(), 2);
    let (action, subject, _, detail) = audited(world).await;
    assert_eq!(
        (action.as_str(), format!("/v1/devices/{subject}")),
        ("security-device.bind", path.clone())
    );
    assert!(detail.contains("SHOP0001"), "{detail}");
    let fewer = post("unbind", json!({ "account": "SHOP0001" })).await.json();
    assert_eq!(fewer["accounts"], device["accounts"]);
    post("unbind", json!({ "account": "SHOP0001" })).await.assert_check(404, "not-found");
    post("bind", json!({ "accounts": ["NOBODY01"] })).await.assert_check(404, "not-found");
    let many: Vec<String> = (0..17).map(|n| format!("NO{n:04}")).collect();
    post("bind", json!({ "accounts": many })).await.assert_check(422, "bound-accounts");
    let blocked = post("block", json!({ "reason": "stolen" })).await.json();
    assert_eq!(
        (&blocked["status"], &blocked["blockReason"]),
        (&json!("blocked"), &json!("stolen"))
    );
    post("block", json!({ "reason": "" })).await.assert_check(422, "reason-length");
    world.post("/v1/devices", &body).await.assert_check(409, "device-blocked");
    assert_eq!(post("unblock", json!({})).await.json()["status"], "enrolled");
    let revoked = post("revoke", json!({ "reason": "key lost" })).await.json();
    assert_eq!(revoked["certificateNumber"], Value::Null);
    post("revoke", json!({ "reason": "key lost" })).await.assert_check(404, "not-found");
    world.get("/v1/devices/sdv_unknown").await.assert_check(404, "not-found");
    // Readers' routes do not know it.
    let as_reader = path.replace("devices", "readers");
    world.get(&as_reader).await.assert_check(404, "not-found");
}

#[tokio::test]
async fn devices_that_do_not_fit_are_refused() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let good = enrolment(PkiRole::SecurityDevice, "KEY-1", 1);
    let refused = async |body: Value, status: u16, check: &str| {
        world.post("/v1/devices", &body).await.assert_check(status, check);
    };
    refused(enrolment(PkiRole::Reader, "KEY-1", 1), 422, "request-role").await;
    refused(with(good.clone(), "request", json!("AAAA")), 422, "certificate-malformed").await;
    refused(with(good.clone(), "request", json!("?")), 422, "request-encoding").await;
    refused(with(good.clone(), "label", json!("")), 422, "label-format").await;
    refused(with(good.clone(), "label", json!("a\u{7}b")), 422, "label-format").await;
    refused(with(good.clone(), "accounts", json!(["NOBODY01"])), 404, "not-found").await;
    refused(with(good.clone(), "more", json!(1)), 400, "body").await;
    let sm2 = countersign_crypto::sm::provider();
    let foreign = crate::world::csr_of(&sm2, PkiRole::SecurityDevice, "KEY-1", &*key_of(&sm2, 1));
    let foreign = with(good.clone(), "request", json!(pem_of(&foreign)));
    refused(foreign, 422, "certificate-algorithm").await;
    assert_eq!(world.get("/v1/devices").await.json()["items"], json!([]), "none of them is there");

    world.post("/v1/devices", &good).await;
    refused(enrolment(PkiRole::SecurityDevice, "KEY-1", 2), 409, "serial-taken").await;
    let ocra = json!({ "serial": "KEY-1", "label": "Li Lei", "accounts": [] });
    world.post("/v1/devices/ocra", &ocra).await.assert_check(409, "signer-method");
    let bad = with(ocra.clone(), "serial", json!("KEY 1"));
    world.post("/v1/devices/ocra", &bad).await.assert_check(422, "serial-format");
    let (action, _, check, _) = audited(world).await;
    assert_eq!(
        (action.as_str(), check.as_deref()),
        ("security-device.enrol", Some("serial-format"))
    );

    // A shared key is told once, never shown again, and lies sealed.
    let ocra = with(ocra, "serial", json!("OCRA-1"));
    let made = world.post("/v1/devices/ocra", &ocra).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let secret = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 64);
    let path = made.header("location").to_owned();
    assert!(!world.get(&path).await.text.contains(&secret));
    let rows = world.service.audit_page(None, 50).await.unwrap().items;
    assert!(rows.iter().all(|row| !row.entry.detail.contains(&secret)), "not in the audit");
    let stored = world.service.signer_by_serial("OCRA-1").await.unwrap().signer.ocra_key.unwrap();
    assert!(stored.starts_with('D') && !stored.to_lowercase().contains(&secret), "{stored}");
    world.post("/v1/devices/ocra", &ocra).await.assert_check(409, "serial-taken");
    refused(enrolment(PkiRole::SecurityDevice, "OCRA-1", 3), 409, "signer-method").await;
}

#[tokio::test]
async fn a_shared_key_opens_for_its_own_device_only() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let mut keys = Vec::new();
    for serial in ["OCRA-1", "OCRA-2"] {
        let body = json!({ "serial": serial, "label": "token", "accounts": ["PAYER0001"] });
        let made = world.post("/v1/devices/ocra", &body).await.json();
        keys.push(HEXLOWER.decode(made["key"].as_str().unwrap().as_bytes()).unwrap());
    }
    let (service, serial) = (&world.service, async |serial| {
        world.service.signer_by_serial(serial).await.unwrap().signer
    });
    let (first, second) = (serial("OCRA-1").await, serial("OCRA-2").await);
    // Somebody with the database in hands gives the second device the first one's key.
    let (own, foreign) = (second.ocra_key.clone().unwrap(), first.ocra_key.unwrap());
    let set = async |block: String| {
        let id = second.device_id.clone();
        let suite = second.ocra_suite.clone().unwrap();
        let set: Result<(), StoreError> =
            service.store().run_tx("tamper", move |tx| tx.set_ocra_key(&id, &suite, &block)).await;
        set.unwrap();
    };
    set(foreign).await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let request = bank.request(&payer, &id).await;
    let digits = |key: &[u8]| respond(&Secret::copied_from(key), &request).unwrap();
    let answer =
        |key: &[u8]| json!({ "method": "ocra", "deviceSerial": "OCRA-2", "digits": digits(key) });
    for key in &keys {
        let refused = bank.answer(&payer, &id, &answer(key)).await;
        assert!(refused.status.as_u16() >= 400, "{refused:?}");
    }
    let path = format!("/v1/payments/{id}");
    assert_eq!(world.get(&path).await.json()["status"], "pending");
    set(own).await;
    let taken = bank.answer(&payer, &id, &answer(&keys[1])).await;
    assert_eq!(taken.json()["status"], "executed", "{taken:?}");
}

#[tokio::test]
async fn a_phone_enrols_by_its_code_once() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let allowed = allow(world).await;
    let id = allowed["phone"]["id"].as_str().unwrap().to_owned();
    assert_eq!(allowed["phone"]["state"], "allowed");
    enrol_phone(world, &json!("AAAA-BBBB-CCCC-DDDD-EEEE-FFFF"))
        .await
        .assert_check(403, "enrolment-code");
    let (action, _, check, detail) = audited(world).await;
    assert_eq!((action.as_str(), check.as_deref()), ("phone.enrol", Some("enrolment-code")));
    assert!(detail.contains("wrong, or was used"), "{detail}");
    // A terminal's code, if it were the same, is none of a phone's, and no text is.
    enrol_phone(world, &json!("x")).await.assert_check(403, "enrolment-code");
    enrol_phone(world, &json!(7)).await.assert_check(400, "body");

    let enrolled = enrol_phone(world, &allowed["enrolmentCode"]).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{enrolled:?}");
    let token = enrolled.json()["token"].as_str().unwrap().to_owned();
    assert!(token.starts_with("csp_"));
    let (action, subject, _, detail) = audited(world).await;
    assert_eq!((action.as_str(), &subject), ("phone.enrol", &id));
    assert!(!detail.contains(&token), "{detail}");
    enrol_phone(world, &allowed["enrolmentCode"]).await.assert_check(403, "enrolment-code");
    let own = world.get_with(&token, "/v1/phone").await.json();
    assert_eq!((&own["id"], &own["state"]), (&json!(id), &json!("enrolled")));
    assert_eq!(own["accounts"][0]["identification"], "PAYER0001");

    // A code has its time; another one voids the token only when it is used.
    let path = format!("/v1/phones/{id}/code");
    let renewed = world.post(&path, &json!({})).await.json();
    world.advance(Duration::from_secs(3 * 86_400));
    enrol_phone(world, &renewed["enrolmentCode"]).await.assert_check(403, "enrolment-code");
    let (_, subject, _, detail) = audited(world).await;
    assert!(subject == id && detail.contains("expired"), "{subject} {detail}");
    assert_eq!(world.get_with(&token, "/v1/phone").await.status, StatusCode::OK);
    let renewed = world.post(&path, &json!({})).await.json();
    let second = enrol_phone(world, &renewed["enrolmentCode"]).await.json();
    world.get_with(&token, "/v1/phone").await.assert_check(401, "token");
    let second = second["token"].as_str().unwrap().to_owned();
    assert_eq!(world.get_with(&second, "/v1/phone").await.status, StatusCode::OK);

    let revoke = format!("/v1/phones/{id}/revoke");
    let revoked = world.post(&revoke, &json!({ "reason": "lost" })).await.json();
    assert_eq!((&revoked["state"], &revoked["revokeReason"]), (&json!("revoked"), &json!("lost")));
    world.get_with(&second, "/v1/phone").await.assert_check(401, "token");
    world.post(&path, &json!({})).await.assert_check(404, "not-found");
    let listed = world.get("/v1/phones").await.json();
    assert_eq!(listed["items"], json!([revoked]));
}

#[tokio::test]
async fn wrong_codes_from_one_source_are_bounded() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let allowed = allow(world).await;
    for _ in 0..WRONG_FROM_SOURCE_MAX {
        enrol_phone(world, &json!("wrong")).await.assert_check(403, "enrolment-code");
    }
    // Now the right one is refused too, in the same words.
    enrol_phone(world, &allowed["enrolmentCode"]).await.assert_check(403, "enrolment-code");
    world.advance(Duration::from_secs(3601));
    let enrolled = enrol_phone(world, &allowed["enrolmentCode"]).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{enrolled:?}");
}

#[tokio::test]
async fn phones_that_do_not_fit_are_refused() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let good = json!({ "label": "Li Lei", "accounts": ["PAYER0001"] });
    for (member, value, status, check) in [
        ("label", json!(" x"), 422, "label-format"),
        ("accounts", json!(["NOBODY01"]), 404, "not-found"),
        ("accounts", json!(vec!["PAYER0001"; 17]), 422, "bound-accounts"),
        ("more", json!(1), 400, "body"),
    ] {
        let body = with(good.clone(), member, value);
        world.post("/v1/phones", &body).await.assert_check(status, check);
    }
    for _ in 0..16 {
        assert_eq!(world.post("/v1/phones", &good).await.status, StatusCode::CREATED);
    }
    world.post("/v1/phones", &good).await.assert_check(409, "account-phones");
    world.get("/v1/phones/phn_unknown").await.assert_check(404, "not-found");
    // What is no phone's token is told nothing.
    let short = format!("csp_{}", "A".repeat(42));
    let right_form = format!("csp_{}", "A".repeat(43));
    for token in [&world.admin, &bank.till, &short, &right_form] {
        world.get_with(token, "/v1/phone/payments").await.assert_check(401, "token");
        world.get_with(token, "/v1/phone/events").await.assert_check(401, "token");
    }
}

/// A stream of events as it comes.
struct Stream(Body);

impl Stream {
    async fn open(world: &World, token: &str) -> Self {
        let request = build(Method::GET, "/v1/phone/events", token, Body::empty());
        let response: Response = world.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self(response.into_body());
        assert_eq!(stream.next().await.as_deref(), Some("retry: 1000\n\n"));
        stream
    }

    /// The next piece, or `None` at the stream's end.
    async fn next(&mut self) -> Option<String> {
        let body = &mut self.0;
        let frame =
            std::future::poll_fn(|cx| axum::body::HttpBody::poll_frame(Pin::new(&mut *body), cx));
        let frame = tokio::time::timeout(Duration::from_secs(20), frame).await.unwrap()?;
        let bytes = frame.unwrap().into_data().unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    /// The id in the next push; it says nothing else.
    async fn push(&mut self) -> String {
        let event = self.next().await.unwrap();
        let id = event.split("id: ").nth(1).unwrap().split('\n').next().unwrap().to_owned();
        assert!(id.starts_with("psh_"), "{event}");
        let data = json!({ "id": id });
        assert_eq!(event, format!("event: push\nid: {id}\ndata: {data}\n\n"));
        id
    }
}

#[tokio::test]
async fn pushes_carry_an_opaque_id_and_wait_for_who_was_away() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let (payer, other) =
        (bank.payer("KEY-1", "PAYER0001").await, bank.payer("KEY-2", "SHOP0001").await);
    let early = bank.pending("k-1").await["id"].clone();
    let mut stream = Stream::open(world, &payer.phone).await;
    let push = stream.push().await;
    let behind = async |push: &str| {
        let path = format!("/v1/phone/payments/{push}");
        world.get_with(&payer.phone, &path).await
    };
    let payment = behind(&push).await.json();
    assert_eq!((&payment["id"], &payment["pushId"]), (&early, &json!(push)));
    assert_eq!(payment["status"], "pending");
    // One that waits hears of the next at once.
    let late = bank.pending("k-2").await["id"].clone();
    let second = stream.push().await;
    assert_eq!(behind(&second).await.json()["id"], late);
    let id = early.as_str().unwrap().to_owned();
    let noted = world.service.store().read("test", move |tx| tx.pushes_of_payment(&id)).await;
    let noted: Result<_, StoreError> = noted;
    assert!(noted.unwrap()[0].delivered_at.is_some());

    // Who comes back is told again of what waits, not of what was settled.
    drop(stream);
    let confirmed = bank.confirm(&payer, early.as_str().unwrap()).await;
    assert_eq!(confirmed.json()["status"], "executed", "{confirmed:?}");
    let mut stream = Stream::open(world, &payer.phone).await;
    assert_eq!(stream.push().await, second);
    let waiting = world.get_with(&payer.phone, "/v1/phone/payments").await.json();
    assert_eq!(waiting["items"].as_array().unwrap().len(), 1);
    assert_eq!(behind(&push).await.json()["status"], "executed", "it stays in sight");

    // Another payer's phone sees none of it, by whatever name.
    for name in [&push, &second, early.as_str().unwrap()] {
        let path = format!("/v1/phone/payments/{name}");
        world.get_with(&other.phone, &path).await.assert_check(404, "not-found");
    }
    let waiting = world.get_with(&other.phone, "/v1/phone/payments").await.json();
    assert_eq!(waiting, json!({ "items": [] }));
    // Time passes: nothing waits, and what is asked for has expired.
    world.advance(Duration::from_secs(301));
    let waiting = world.get_with(&payer.phone, "/v1/phone/payments").await.json();
    assert_eq!(waiting, json!({ "items": [] }));
    assert_eq!(behind(&second).await.json()["status"], "expired");
}

#[tokio::test]
async fn a_revoked_phones_stream_ends() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let mut stream = Stream::open(world, &payer.phone).await;
    bank.pending("k-1").await;
    stream.push().await;
    let path = format!("/v1/phones/{}/revoke", payer.phone_id);
    assert_eq!(world.post(&path, &json!({ "reason": "lost" })).await.status, StatusCode::OK);
    assert_eq!(stream.next().await, None, "not a comment, the end");
    bank.pending("k-2").await;
    let request = build(Method::GET, "/v1/phone/events", &payer.phone, Body::empty());
    world.send(request).await.assert_check(401, "token");
}

#[tokio::test]
async fn what_a_phone_gets_is_what_the_document_says() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    bank.pending("k-1").await;
    let waiting = world.get_with(&payer.phone, "/v1/phone/payments").await.json();
    let device = world.get(&format!("/v1/devices/{}", payer.device)).await.json();
    let phone = world.get(&format!("/v1/phones/{}", payer.phone_id)).await.json();
    let document = world.get("/v1/openapi.json").await.json();
    for (name, answer) in [
        ("PhonePayment", &waiting["items"][0]),
        ("SecurityDevice", &device),
        ("Phone", &phone),
        ("BoundAccount", &device["accounts"][0]),
    ] {
        let schema = &document["components"]["schemas"][name];
        let mut told: Vec<_> = answer.as_object().unwrap().keys().collect();
        let mut known: Vec<_> = schema["properties"].as_object().unwrap().keys().collect();
        let required = schema["required"].as_array().unwrap();
        let mut required: Vec<_> = required.iter().map(|it| it.as_str().unwrap()).collect();
        told.sort();
        known.sort();
        required.sort_unstable();
        assert_eq!(told, known, "{name}");
        assert_eq!(required, told, "{name}: every member is always there");
    }
}
