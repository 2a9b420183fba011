//! Enrolling signing cards, and what the server tells them to seal to.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_crypto::Provider;
use countersign_payment::joint::Form;
use countersign_pki::{Role as PkiRole, TrustStore};
use serde_json::{Value, json};
use testkit::pki::NOW;

use crate::bank::Bank;
use crate::cards::{card_from, enrolment};
use crate::world::{SERVER_ID, World, build, csr, key, pem_of, provider};

fn der(text: &Value) -> Vec<u8> {
    pem::parse(text.as_str().unwrap_or_else(|| panic!("{text}"))).unwrap().into_contents()
}

/// That what was given is enough to know whose the certificates are, under the root alone.
fn check_chain(provider: Provider, told: &Value) {
    let mut trust = TrustStore::new(provider);
    let (root, issuer) = (der(&told["root"]), der(&told["serverIssuer"]));
    trust.trust(&root, &issuer, PkiRole::Server, NOW).unwrap();
    let server = trust.verify(&der(&told["serverCertificate"]), PkiRole::Server, NOW, None);
    assert_eq!(server.unwrap().identity().id(), SERVER_ID);
    let second = der(&told["serverEncryptionCertificate"]);
    let sealed_to = trust.verify_encryption(&second, PkiRole::Server, NOW, None).unwrap();
    assert_eq!(sealed_to.identity().id(), SERVER_ID);
    assert_eq!(told["serverId"], SERVER_ID);
}

#[tokio::test]
async fn a_card_gets_what_it_seals_to_and_its_shared_key_once() {
    for suite in [provider(), countersign_crypto::sm::provider()] {
        let bank = Bank::on(World::of_suite(suite.clone()).await).await;
        let world = &bank.world;
        let terms = world.get("/v1/devices/terms").await.json();
        check_chain(suite.clone(), &terms);
        let body = enrolment(&suite, "CARD-1", &["PAYER0001"]);
        let answer = world.post("/v1/devices/joint", &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let made = answer.json();
        check_chain(suite.clone(), &made);
        assert_eq!(made["serverEncryptionCertificate"], terms["serverEncryptionCertificate"]);
        let device = &made["device"];
        let path = format!("/v1/devices/{}", device["id"].as_str().unwrap());
        assert_eq!(answer.header("location"), path);
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!((&device["method"], &device["serial"]), (&json!("joint"), &json!("CARD-1")));
        assert_eq!((&device["status"], &device["ocraSuite"]), (&json!("enrolled"), &Value::Null));
        assert_eq!(device["accounts"][0]["identification"], "PAYER0001");
        assert!(device["certificateNumber"].is_string() && device["notAfter"].is_string());
        assert_eq!(world.get(&path).await.json(), *device);
        let mut trust = TrustStore::new(suite.clone());
        let issuer = der(&made["deviceIssuer"]);
        trust.trust(&der(&made["root"]), &issuer, PkiRole::SecurityDevice, NOW).unwrap();
        let leaf = trust.verify(&der(&made["certificate"]), PkiRole::SecurityDevice, NOW, None);
        assert_eq!(leaf.unwrap().identity().id(), "CARD-1");
        let shared = |made: &Value| made["sharedKey"].as_str().unwrap().to_owned();
        assert!(shared(&made).len() == 64 && shared(&made).bytes().all(|c| c.is_ascii_hexdigit()));
        assert!(!world.get(&path).await.text.contains(&shared(&made)));

        // The answer was lost: the same key pair gets the same certificate, and another secret.
        let again = world.post("/v1/devices/joint", &body).await;
        assert_eq!(again.status, StatusCode::OK, "{again:?}");
        assert_eq!(again.header("location"), "");
        let renewed = again.json();
        assert_eq!(renewed["certificate"], made["certificate"]);
        assert_ne!(shared(&renewed), shared(&made));
        let (old, new) = (card_from(suite.clone(), &made), card_from(suite.clone(), &renewed));
        let (id, transaction) = bank.transacted("k-1").await;
        let void = old.signed(Form::Digest, &transaction).body();
        bank.submit(&id, &void).await.assert_check(422, "authorisation-refused");
        let body = new.signed(Form::Digest, &transaction).body();
        assert_eq!(bank.submit(&id, &body).await.json()["status"], "executed");

        let document = world.get("/v1/openapi.json").await.json();
        for (name, answer) in [("JointEnrolment", &made), ("DeviceTerms", &terms)] {
            let mut members = Vec::new();
            collect(&document, &document["components"]["schemas"][name], &mut members);
            members.sort();
            let mut told: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
            told.sort();
            assert_eq!(members, told, "{name}");
        }
    }
}

/// The members of a schema, also of those that it is made of.
fn collect(document: &Value, schema: &Value, members: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.strip_prefix('#').unwrap()).unwrap();
        return collect(document, named, members);
    }
    members.extend(schema["properties"].as_object().into_iter().flatten().map(|it| it.0.clone()));
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(document, part, members);
    }
}

#[tokio::test]
async fn an_enrolment_that_does_not_fit_is_refused_by_name() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let good = enrolment(&provider(), "CARD-1", &["PAYER0001"]);
    let with = |member: &str, value: Value| {
        let mut body = good.clone();
        body[member] = value;
        body
    };
    let reader = csr(PkiRole::Reader, "CARD-1", &*key(1));
    let mut cut = csr(PkiRole::SecurityDevice, "CARD-1", &*key(1));
    cut.pop();
    for (member, value, status, check) in [
        ("request", json!("x!"), 422, "request-encoding"),
        ("request", json!(pem_of(&reader)), 422, "request-role"),
        ("request", json!(pem_of(&cut)), 422, "certificate-malformed"),
        ("request", Value::Null, 400, "body"),
        ("label", json!(""), 422, "label-format"),
        ("label", json!("x".repeat(65)), 422, "label-format"),
        ("accounts", json!(["NOBODY01"]), 404, "not-found"),
        ("accounts", json!(vec!["PAYER0001"; 17]), 422, "bound-accounts"),
        ("accounts", json!("PAYER0001"), 400, "body"),
        ("method", json!("joint"), 400, "body"),
    ] {
        let answer = world.post("/v1/devices/joint", &with(member, value)).await;
        assert_eq!(answer.json()["check"], check, "{member}: {answer:?}");
        answer.assert_check(status, check);
    }
    assert_eq!(world.get("/v1/devices").await.json()["items"], json!([]), "nothing was kept");
    let body = Body::from(good.to_string());
    let by_till = build(Method::POST, "/v1/devices/joint", &bank.till, body);
    world.send(by_till).await.assert_check(403, "scope");

    assert_eq!(world.post("/v1/devices/joint", &good).await.status, StatusCode::CREATED);
    let other = csr(PkiRole::SecurityDevice, "CARD-1", &*key(2));
    let other = with("request", json!(pem_of(&other)));
    world.post("/v1/devices/joint", &other).await.assert_check(409, "serial-taken");
}

/// A serial number is of one method, whatever became of the device; and who is refused has changed
/// nothing.
#[tokio::test]
async fn a_card_takes_no_other_devices_serial_number_nor_they_a_cards() {
    let bank = Bank::new().await;
    let world = &bank.world;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let payer = bank.payer("KEY-1", "PAYER0001").await;
    let ocra =
        |serial: &str| json!({ "serial": serial, "label": "token", "accounts": ["PAYER0001"] });
    let made = world.post("/v1/devices/ocra", &ocra("OCRA-1")).await.json();
    let ids = [&card.device, &payer.device, made["device"]["id"].as_str().unwrap()];
    for revoked in [false, true] {
        let mut before = Vec::new();
        for id in ids {
            let path = format!("/v1/devices/{id}");
            if revoked {
                let reason = json!({ "reason": "lost" });
                let done = world.post(&format!("{path}/revoke"), &reason).await;
                assert_eq!(done.status, StatusCode::OK, "{done:?}");
            }
            before.push(world.get(&path).await.json());
        }
        for serial in ["KEY-1", "OCRA-1"] {
            let body = enrolment(&provider(), serial, &["PAYER0001", "SHOP0001"]);
            world.post("/v1/devices/joint", &body).await.assert_check(409, "signer-method");
        }
        let body = enrolment(&provider(), "CARD-1", &["PAYER0001", "SHOP0001"]);
        world.post("/v1/devices", &body).await.assert_check(409, "signer-method");
        world.post("/v1/devices/ocra", &ocra("CARD-1")).await.assert_check(409, "signer-method");
        for (id, before) in ids.into_iter().zip(before) {
            assert_eq!(world.get(&format!("/v1/devices/{id}")).await.json(), before);
        }
    }
}

#[tokio::test]
async fn a_card_that_was_revoked_enrols_anew_under_another_key_pair() {
    let bank = Bank::new().await;
    let card = bank.card("CARD-1", "PAYER0001").await;
    let path = format!("/v1/devices/{}/revoke", card.device);
    let revoked = bank.world.post(&path, &json!({ "reason": "lost" })).await.json();
    assert_eq!(
        (&revoked["certificateNumber"], &revoked["method"]),
        (&Value::Null, &json!("joint"))
    );
    let key = key(77);
    let request = csr(PkiRole::SecurityDevice, "CARD-1", &*key);
    let body = json!({ "request": pem_of(&request), "label": "signing card",
        "accounts": ["PAYER0001"] });
    let again = bank.world.post("/v1/devices/joint", &body).await;
    assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    assert_eq!(again.json()["device"]["id"], card.device, "it is the same device");
}
