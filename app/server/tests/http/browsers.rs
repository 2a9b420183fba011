//! A phone in a browser: its token opens nothing without a proof made for the very request (D2).

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::world::{Answer, World, build};

/// Where the browser thinks it is.
const HOST: &str = "pay.test:8443";

/// A browser with a key, enrolled as a phone.
pub(crate) struct Browser {
    key: EcdsaKeyPair,
    pub(crate) token: String,
    phone_id: String,
    proofs: std::cell::Cell<u32>,
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let half = |from: usize| BASE64URL_NOPAD.encode(&point[from..from + 32]);
    json!({ "kty": "EC", "crv": "P-256", "x": half(1), "y": half(33) })
}

fn sha256(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(digest(&SHA256, bytes).as_ref())
}

/// A signed proof with this head and these claims.
fn proof(key: &EcdsaKeyPair, head: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let input = format!("{}.{}", part(head), part(claims));
    let signature = key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    format!("{input}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

async fn allow(world: &World, account: &str) -> Value {
    let body = json!({ "label": "browser", "accounts": [account] });
    world.post("/v1/phones", &body).await.json()
}

async fn enrol(world: &World, code: &Value, session_key: &Value) -> Answer {
    let body = json!({ "code": code, "sessionKey": session_key }).to_string();
    let mut request = build(Method::POST, "/v1/phone/enrolments", "", body.into());
    request.headers_mut().remove(header::AUTHORIZATION);
    world.send(request).await
}

impl Browser {
    pub(crate) async fn enrolled(world: &World, account: &str) -> Self {
        let key = new_key();
        let code = allow(world, account).await["enrolmentCode"].clone();
        let answer = enrol(world, &code, &jwk(&key)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let told = answer.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (token, phone_id) = (text(&told["token"]), text(&told["phone"]["id"]));
        Self { key, token, phone_id, proofs: std::cell::Cell::new(0) }
    }

    fn head(&self) -> Value {
        json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk(&self.key) })
    }

    /// What a good proof for this request claims; each has another id.
    fn claims(&self, world: &World, method: &Method, path: &str, body: &str) -> Value {
        self.proofs.set(self.proofs.get() + 1);
        let mut claims = json!({
            "jti": format!("proof-of-a-test-{}", self.proofs.get()),
            "htm": method.as_str(),
            "htu": format!("https://{HOST}{path}"),
            "iat": world.service.now().as_secs(),
            "ath": sha256(self.token.as_bytes()),
        });
        if !body.is_empty() {
            claims["bh"] = json!(sha256(body.as_bytes()));
        }
        claims
    }

    /// A request as the page sends it, with a good proof.
    fn request(&self, world: &World, method: &Method, path: &str, body: &str) -> Request<Body> {
        let claims = self.claims(world, method, path, body);
        self.request_with(method, path, body, &proof(&self.key, &self.head(), &claims))
    }

    fn request_with(&self, method: &Method, path: &str, body: &str, jwt: &str) -> Request<Body> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST)
            .header(header::ORIGIN, format!("https://{HOST}"))
            .header("sec-fetch-site", "same-origin")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("DPoP {}", self.token))
            .header("dpop", jwt)
            .body(Body::from(body.to_owned()))
            .unwrap()
    }

    pub(crate) async fn get(&self, world: &World, path: &str) -> Answer {
        world.send(self.request(world, &Method::GET, path, "")).await
    }

    pub(crate) async fn answer(&self, world: &World, id: &str, body: &Value) -> Answer {
        let path = format!("/v1/payments/{id}/authorisations");
        world.send(self.request(world, &Method::POST, &path, &body.to_string())).await
    }
}

/// The checks of the refusals in the audit, the newest first.
async fn refused(world: &World, many: usize) -> Vec<String> {
    let rows = world.service.audit_page(None, 200).await.unwrap().items;
    rows.into_iter().filter_map(|row| row.entry.check).take(many).collect()
}

/// The number to match, as the checkout tells the terminal.
pub(crate) async fn match_code(bank: &Bank, id: &str) -> String {
    let path = format!("/v1/payments/{id}/checkout");
    let mut request = build(Method::GET, &path, &bank.till, Body::empty());
    request.headers_mut().insert(header::HOST, HOST.parse().unwrap());
    let told = bank.world.send(request).await.json();
    told["matchCode"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned()
}

/// Three numbers that are not the one.
fn others_than(code: &str) -> Vec<String> {
    (10..100).map(|number: u32| number.to_string()).filter(|it| it != code).take(3).collect()
}

#[tokio::test]
async fn a_browser_pays_with_a_proof_for_each_request() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let own = browser.get(world, "/v1/phone").await;
    assert_eq!((own.status, &own.json()["id"]), (StatusCode::OK, &json!(browser.phone_id)));
    let waiting = browser.get(world, "/v1/phone/payments").await.json();
    assert_eq!(waiting["items"][0]["id"], id.as_str());
    let path = format!("/v1/phone/payments/{id}");
    let shown = browser.get(world, &path).await.json();
    let request = BASE64URL_NOPAD.decode(shown["request"].as_str().unwrap().as_bytes()).unwrap();
    let devices = browser.get(world, &format!("{path}/devices")).await.json();
    let known = json!({ "serial": "KEY-1", "label": "card", "method": "pki" });
    assert_eq!(devices, json!({ "items": [known] }));
    // A query is no part of what a proof is for (RFC 9449, section 4.2).
    let claims = browser.claims(world, &Method::GET, "/v1/phone", "");
    let jwt = proof(&browser.key, &browser.head(), &claims);
    let asked = browser.request_with(&Method::GET, "/v1/phone?lang=zh", "", &jwt);
    assert_eq!(world.send(asked).await.status, StatusCode::OK);

    let mut signed = payer.signed(&request);
    signed["matchCode"] = json!(match_code(&bank, &id).await);
    let answered = browser.answer(world, &id, &signed).await;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    assert_eq!(answered.json()["status"], "executed");
    let stored = bank.world.get(&format!("/v1/payments/{id}/authorisations")).await.json();
    assert_eq!(stored["items"][0]["phoneId"], browser.phone_id.as_str());
    // Rejecting needs no number: whoever sees what he did not begin says so at once.
    let id = bank.pending("k-2").await["id"].as_str().unwrap().to_owned();
    let reject = json!({ "method": "reject", "reason": "changed-mind" });
    let rejected = browser.answer(world, &id, &reject).await;
    assert_eq!(rejected.json()["status"], "rejected", "{rejected:?}");
}

/// A token that was read somewhere, in whatever way it is shown.
#[tokio::test]
async fn a_stolen_token_opens_nothing() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    let path = "/v1/phone/payments";
    let thief = Browser {
        key: new_key(),
        token: browser.token.clone(),
        phone_id: String::new(),
        proofs: std::cell::Cell::new(500),
    };
    // As a program's token; without a proof; with a proof of the thief's own key.
    let bearer = build(Method::GET, path, &browser.token, Body::empty());
    world.send(bearer).await.assert_check(401, "token");
    let mut bare = browser.request(world, &Method::GET, path, "");
    bare.headers_mut().remove("dpop");
    world.send(bare).await.assert_check(401, "token");
    thief.get(world, path).await.assert_check(401, "token");
    assert_eq!(refused(world, 1).await, ["proof-key"]);
    // With the victim's public key in the head, signed by the thief's.
    let claims = thief.claims(world, &Method::GET, path, "");
    let jwt = proof(&thief.key, &browser.head(), &claims);
    let answer = world.send(browser.request_with(&Method::GET, path, "", &jwt)).await;
    answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
    assert_eq!(answer.header("www-authenticate"), "Bearer, DPoP algs=\"ES256\"");
    assert_eq!(refused(world, 1).await, ["proof-signature"]);
    // A proof that was seen on its way, again; also for another phone's token.
    let request = browser.request(world, &Method::GET, path, "");
    let seen = request.headers()["dpop"].to_str().unwrap().to_owned();
    assert_eq!(world.send(request).await.status, StatusCode::OK);
    let again = browser.request_with(&Method::GET, path, "", &seen);
    world.send(again).await.assert_check(401, "token");
    assert_eq!(refused(world, 1).await, ["proof-replayed"]);
    let other = Browser::enrolled(world, "PAYER0001").await;
    let crossed = other.request_with(&Method::GET, path, "", &seen);
    world.send(crossed).await.assert_check(401, "token");
    // A program's phone has no key, and no proof makes it one's.
    let claims = browser.claims(world, &Method::GET, path, "");
    let jwt = proof(&browser.key, &browser.head(), &claims);
    let mut program = browser.request_with(&Method::GET, path, "", &jwt);
    let token = format!("DPoP {}", payer.phone).parse().unwrap();
    program.headers_mut().insert(header::AUTHORIZATION, token);
    world.send(program).await.assert_check(401, "token");
    assert_eq!(refused(world, 1).await, ["proof-unexpected"]);
    // The one whose token it is goes on.
    assert_eq!(browser.get(world, path).await.status, StatusCode::OK);
}

/// Outside all look alike; the audit has the check.
#[tokio::test]
async fn every_bad_proof_is_refused_alike() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    let path = "/v1/phone/payments";
    let now = world.service.now().as_secs();
    let claim = |name: &'static str, value: Value| (name, value);
    for ((name, value), check) in [
        (claim("htm", json!("POST")), "proof-method"),
        (claim("htu", json!(format!("https://{HOST}/v1/phone"))), "proof-url"),
        (claim("htu", json!(format!("http://{HOST}{path}"))), "proof-url"),
        (claim("htu", json!(format!("https://evil.example{path}"))), "proof-url"),
        (claim("htu", json!(path)), "proof-url"),
        (claim("iat", json!(now - 61)), "proof-old"),
        (claim("iat", json!(now + 61)), "proof-future"),
        (claim("iat", json!("now")), "proof-form"),
        (claim("ath", json!(sha256(b"another token"))), "proof-token"),
        (claim("jti", json!("short")), "proof-id"),
        (claim("jti", json!("x".repeat(129))), "proof-id"),
        (claim("bh", json!(sha256(b"a body"))), "proof-body"),
        (claim("more", json!(1)), "proof-form"),
    ] {
        let mut claims = browser.claims(world, &Method::GET, path, "");
        claims[name] = value.clone();
        let jwt = proof(&browser.key, &browser.head(), &claims);
        let answer = world.send(browser.request_with(&Method::GET, path, "", &jwt)).await;
        answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
        assert_eq!(refused(world, 1).await, [check], "{name} {value}");
    }
    let claims = || browser.claims(world, &Method::GET, path, "");
    let mut none = browser.head();
    none["alg"] = json!("none");
    let mut shared = browser.head();
    shared["alg"] = json!("HS256");
    let mut plain = browser.head();
    plain["typ"] = json!("JWT");
    let mut private = browser.head();
    private["jwk"]["d"] = json!("AAAA");
    for (head, check) in [
        (none, "proof-algorithm"),
        (shared, "proof-algorithm"),
        (plain, "proof-type"),
        (private, "proof-form"),
    ] {
        let jwt = proof(&browser.key, &head, &claims());
        let answer = world.send(browser.request_with(&Method::GET, path, "", &jwt)).await;
        answer.assert_check(401, "token");
        assert_eq!(refused(world, 1).await, [check], "{head}");
    }
    let good = proof(&browser.key, &browser.head(), &claims());
    let unsigned = good.rsplit_once('.').unwrap().0;
    let long = "x".repeat(3000);
    for bad in ["", "x", "a.b.c", "....", &format!("{unsigned}."), unsigned, long.as_str()] {
        let answer = world.send(browser.request_with(&Method::GET, path, "", bad)).await;
        answer.assert_check(401, "token");
    }
    // Two proofs, two schemes, a proof beside a program's scheme, a request without a host.
    let mut two = browser.request_with(&Method::GET, path, "", &good);
    two.headers_mut().append("dpop", good.parse().unwrap());
    world.send(two).await.assert_check(401, "token");
    let mut beside = browser.request_with(&Method::GET, path, "", &good);
    let bearer = format!("Bearer {}", browser.token).parse().unwrap();
    beside.headers_mut().insert(header::AUTHORIZATION, bearer);
    world.send(beside).await.assert_check(401, "token");
    let mut nowhere = browser.request_with(&Method::GET, path, "", &good);
    nowhere.headers_mut().remove(header::HOST);
    nowhere.headers_mut().remove(header::ORIGIN);
    world.send(nowhere).await.assert_check(401, "token");
    // After all that the proof itself is still unused.
    let answer = world.send(browser.request_with(&Method::GET, path, "", &good)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_body_that_was_altered_under_its_proof_does_nothing() {
    let bank = Bank::new().await;
    let world = &bank.world;
    bank.payer("KEY-1", "PAYER0001").await;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/payments/{id}/authorisations");
    let sent = json!({ "method": "reject", "reason": "changed-mind" }).to_string();
    let altered = json!({ "method": "reject", "reason": "not-mine" }).to_string();
    let post = Method::POST;
    let jwt = proof(&browser.key, &browser.head(), &browser.claims(world, &post, &path, &sent));
    for body in [&altered, &format!("{sent} "), ""] {
        world.send(browser.request_with(&post, &path, body, &jwt)).await.assert_check(401, "token");
        assert_eq!(refused(world, 1).await, ["proof-body"], "{body}");
    }
    let mut unbound = browser.claims(world, &post, &path, &sent);
    unbound.as_object_mut().unwrap().remove("bh");
    let unbound = proof(&browser.key, &browser.head(), &unbound);
    let answer = world.send(browser.request_with(&post, &path, &sent, &unbound)).await;
    answer.assert_check(401, "token");
    let state = world.get(&format!("/v1/payments/{id}")).await.json()["status"].clone();
    assert_eq!(state, "pending");
    // What its proof covers is read, and what is wrong with it is told.
    let answer = browser.answer(world, &id, &json!({ "method": "nod" })).await;
    answer.assert_check(400, "body");
    let mut text = browser.request(world, &post, &path, &sent);
    text.headers_mut().insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
    world.send(text).await.assert_check(415, "media-type");
    let long = "x".repeat(65 * 1024);
    world
        .send(browser.request(world, &post, &path, &long))
        .await
        .assert_check(413, "body-too-large");
    // The very bytes are taken.
    let answer = world.send(browser.request_with(&post, &path, &sent, &jwt)).await;
    assert_eq!(answer.json()["status"], "rejected", "{answer:?}");
}

#[tokio::test]
async fn a_number_that_does_not_match_counts_against_the_payment_not_the_device() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    let id = bank.pending("k-1").await["id"].as_str().unwrap().to_owned();
    let code = match_code(&bank, &id).await;
    let signed = payer.signed(&bank.request(&payer, &id).await);
    let with = |code: Value| {
        let mut signed = signed.clone();
        signed["matchCode"] = code;
        signed
    };
    // None, or what nobody was shown: it is told, and counts for nothing.
    for bad in [Value::Null, json!(""), json!("4"), json!(format!("{code} ")), json!("４２")] {
        let answer = browser.answer(world, &id, &with(bad)).await;
        answer.assert_check(422, "answer-format");
    }
    for guess in others_than(&code) {
        let answer = browser.answer(world, &id, &with(json!(guess))).await;
        answer.assert_check(422, "authorisation-refused");
        assert_eq!(refused(world, 1).await, ["match-code"]);
    }
    let device = world.get(&format!("/v1/devices/{}", payer.device)).await.json();
    assert_eq!((&device["failures"], &device["status"]), (&json!(0), &json!("enrolled")));
    browser.answer(world, &id, &with(json!(code))).await.assert_check(409, "payment-failed");
    assert_eq!(bank.balance("PAYER0001").await, "1000.00");
    // It is text, as it is shown; a program may send it, and then it counts.
    let id = bank.pending("k-2").await["id"].as_str().unwrap().to_owned();
    let code = match_code(&bank, &id).await;
    let mut signed = payer.signed(&bank.request(&payer, &id).await);
    signed["matchCode"] = json!(code.parse::<u32>().unwrap());
    browser.answer(world, &id, &signed).await.assert_check(400, "body");
    signed["matchCode"] = json!(others_than(&code)[0]);
    bank.answer(&payer, &id, &signed).await.assert_check(422, "authorisation-refused");
    signed["matchCode"] = json!(code);
    assert_eq!(bank.answer(&payer, &id, &signed).await.json()["status"], "executed");
}

#[tokio::test]
async fn a_revoked_browser_is_out_at_once() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    assert_eq!(browser.get(world, "/v1/phone").await.status, StatusCode::OK);
    let path = format!("/v1/phones/{}/revoke", browser.phone_id);
    world.post(&path, &json!({ "reason": "lost" })).await;
    for path in ["/v1/phone", "/v1/phone/payments", "/v1/phone/events"] {
        browser.get(world, path).await.assert_check(401, "token");
    }
}

/// A stream is opened by a proof, lasts without another, and ends with the token.
#[tokio::test]
async fn a_stream_that_a_proof_opened_lasts_until_the_phone_is_revoked() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let browser = Browser::enrolled(world, "PAYER0001").await;
    bank.pending("k-1").await;
    let request = browser.request(world, &Method::GET, "/v1/phone/events", "");
    let response = tower::ServiceExt::oneshot(world.router.clone(), request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let reading = tokio::spawn(axum::body::to_bytes(response.into_body(), 1 << 20));
    // The proof is old by now: the stream is none the worse.
    world.advance(Duration::from_secs(120));
    bank.pending("k-2").await;
    let waits = async || {
        let noted = world.get(&format!("/v1/phones/{}", browser.phone_id)).await.json();
        assert!(noted["seenAt"].is_string());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    waits().await;
    assert!(!reading.is_finished());
    let path = format!("/v1/phones/{}/revoke", browser.phone_id);
    world.post(&path, &json!({ "reason": "lost" })).await;
    let body = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap();
    let text = String::from_utf8(body.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(text.matches("event: push\n").count(), 2, "{text}");
}

#[tokio::test]
async fn what_is_no_session_key_enrols_nobody() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let code = allow(world, "PAYER0001").await["enrolmentCode"].clone();
    let good = jwk(&new_key());
    let with = |member: &str, value: Value| {
        let mut key = good.clone();
        key[member] = value;
        key
    };
    let off_the_curve = with("x", good["y"].clone());
    for bad in [
        with("kty", json!("RSA")),
        with("crv", json!("P-384")),
        with("x", json!("")),
        with("y", json!("A".repeat(44))),
        with("y", json!("not base64url")),
        off_the_curve,
    ] {
        enrol(world, &code, &bad).await.assert_check(422, "session-key");
    }
    for bad in [json!("key"), json!([]), json!({}), with("d", json!("AAAA")), with("x", json!(1))] {
        enrol(world, &code, &bad).await.assert_check(400, "body");
    }
    // The code is not used up by them.
    let enrolled = enrol(world, &code, &good).await;
    assert_eq!(enrolled.status, StatusCode::CREATED, "{enrolled:?}");
}
