//! `POST /v1/readers`.

use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::sm;
use countersign_pki::{Identity, Role, TrustStore, encryption_request};
use serde_json::json;
use testkit::rng::seeded;

use crate::world::{SERVER_ID, World, csr, csr_of, key, key_of, pem_of, provider};

fn der(pem: &serde_json::Value) -> Vec<u8> {
    let parsed = pem::parse(pem.as_str().unwrap()).unwrap();
    assert_eq!(parsed.tag(), "CERTIFICATE");
    parsed.into_contents()
}

#[tokio::test]
async fn a_reader_gets_a_certificate_that_verifies() {
    let world = World::new().await;
    let body = json!({ "request": pem_of(&csr(Role::Reader, "RD-1", &*key(1))) });
    let answer = world.post("/v1/readers", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let enrolment = answer.json();
    let reader = &enrolment["reader"];
    let id = reader["id"].as_str().unwrap();
    assert!(id.starts_with("rdr_"));
    assert_eq!(answer.header("location"), format!("/v1/readers/{id}"));
    let number = reader["certificate"]["number"].as_str().unwrap();
    assert_eq!(
        *reader,
        json!({
            "id": id,
            "serial": "RD-1",
            "status": "enrolled",
            "blockReason": null,
            "createdAt": "2027-01-15T08:00:00.000Z",
            "updatedAt": "2027-01-15T08:00:00.000Z",
            "certificate": { "number": number, "notAfter": "2028-01-15T08:00:00.000Z" },
        })
    );
    assert_eq!(enrolment["serverId"], SERVER_ID);
    let mut fields: Vec<_> = enrolment.as_object().unwrap().keys().collect();
    fields.sort();
    let expected = [
        "certificate",
        "deviceIssuer",
        "encryptionCertificate",
        "reader",
        "root",
        "serverId",
        "serverIssuer",
    ];
    assert_eq!(fields, expected);
    assert_eq!(enrolment["encryptionCertificate"], json!(null), "nobody asked for one");

    let (root, now) = (der(&enrolment["root"]), world.service.now());
    let mut trust = TrustStore::new(provider());
    trust.trust(&root, &der(&enrolment["deviceIssuer"]), Role::Reader, now).unwrap();
    trust.trust(&root, &der(&enrolment["serverIssuer"]), Role::Server, now).unwrap();
    let leaf = der(&enrolment["certificate"]);
    trust.verify(&leaf, Role::Reader, now, None).unwrap();
    trust.verify(&world.service.authority().server, Role::Server, now, None).unwrap();
    assert!(trust.verify(&leaf, Role::Server, now, None).is_err());
    assert_eq!(world.get(&format!("/v1/readers/{id}")).await.json(), *reader);
}

#[tokio::test]
async fn the_same_key_gets_the_same_certificate_in_any_encoding() {
    let world = World::new().await;
    let request = csr(Role::Reader, "RD-1", &*key(1));
    let first = world.post("/v1/readers", &json!({ "request": pem_of(&request) })).await;
    assert_eq!(first.status, StatusCode::CREATED);
    world.advance(Duration::from_secs(60));
    for text in [pem_of(&request), STANDARD.encode(&request)] {
        let again = world.post("/v1/readers", &json!({ "request": text })).await;
        assert_eq!(again.status, StatusCode::OK);
        assert_eq!(again.header("location"), "");
        assert_eq!(again.json(), first.json());
    }
}

#[tokio::test]
async fn another_key_for_a_serial_number_is_refused_until_the_certificate_is_revoked() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let body = json!({ "request": pem_of(&csr(Role::Reader, "RD-1", &*key(2))) });
    world.post("/v1/readers", &body).await.assert_problem(
        409,
        "serial-taken",
        "The current state does not allow this",
        "a reader with this serial number is enrolled with another key; \
         revoke its certificate first",
    );
    let revoked =
        world.post(&format!("/v1/readers/{id}/revoke"), &json!({ "reason": "new chip" })).await;
    assert_eq!(revoked.json()["certificate"], json!(null), "{revoked:?}");
    let answer = world.post("/v1/readers", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.json()["reader"]["id"], id);
}

#[tokio::test]
async fn a_blocked_reader_does_not_enrol() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    world.post(&format!("/v1/readers/{id}/block"), &json!({ "reason": "lost" })).await;
    for seed in [1, 2] {
        let request = pem_of(&csr(Role::Reader, "RD-1", &*key(seed)));
        world.post("/v1/readers", &json!({ "request": request })).await.assert_problem(
            409,
            "reader-blocked",
            "The current state does not allow this",
            "the reader is blocked",
        );
    }
}

#[tokio::test]
async fn what_is_no_request_of_a_reader_is_refused_and_stores_nothing() {
    let world = World::new().await;
    let good = csr(Role::Reader, "RD-1", &*key(1));
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let cases = [
        ("not base64!".to_owned(), "request-encoding"),
        (String::new(), "request-encoding"),
        (pem::encode(&pem::Pem::new("PRIVATE KEY", good.clone())), "request-encoding"),
        (STANDARD.encode(b"garbage"), "certificate-malformed"),
        (STANDARD.encode(&good[..good.len() - 1]), "certificate-malformed"),
        (STANDARD.encode(vec![0x30; 40 * 1024]), "certificate-malformed"),
        (STANDARD.encode(&forged), "request-proof"),
        (pem_of(&csr(Role::Server, "RD-1", &*key(1))), "request-role"),
    ];
    for (text, check) in cases {
        let answer = world.post("/v1/readers", &json!({ "request": text })).await;
        answer.assert_check(422, check);
    }
    assert_eq!(world.get("/v1/readers").await.json(), json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn who_asks_is_told_the_suite_to_make_a_request_in() {
    let world = World::new().await;
    let terms = json!({ "suite": "p256", "encryption": false, "serverId": SERVER_ID });
    assert_eq!(world.get("/v1/enrolment").await.json(), terms);
    let world = World::of_suite(sm::provider()).await;
    let terms = json!({ "suite": "sm2", "encryption": true, "serverId": SERVER_ID });
    assert_eq!(world.get("/v1/enrolment").await.json(), terms);
}

#[tokio::test]
async fn a_request_in_another_suite_is_refused_and_the_suite_is_named() {
    let sm2 = sm::provider();
    let world = World::of_suite(sm2.clone()).await;
    let p256 = csr(Role::Reader, "RD-1", &*key(1));
    let answer = world.post("/v1/readers", &json!({ "request": pem_of(&p256) })).await;
    answer.assert_check(422, "certificate-algorithm");
    assert!(answer.text.contains("the suite sm2 (SM2_SM4GCM_SM3)"), "{answer:?}");
    let world = World::new().await;
    let request = csr_of(&sm2, Role::Reader, "RD-1", &*key_of(&sm2, 1));
    let answer = world.post("/v1/readers", &json!({ "request": pem_of(&request) })).await;
    answer.assert_check(422, "certificate-algorithm");
    assert!(answer.text.contains("the suite p256"), "{answer:?}");
}

/// A request for the encryption key of this seed.
fn second(serial: &str, seed: u64) -> String {
    let (sm2, key) = (sm::provider(), key_of(&sm::provider(), seed));
    let identity = Identity::new(Role::Reader, serial).unwrap();
    pem_of(&encryption_request(&sm2, &identity, &*key, &mut seeded(8)).unwrap())
}

#[tokio::test]
async fn a_reader_gets_a_pair_of_certificates_and_both_are_audited() {
    let sm2 = sm::provider();
    let world = World::of_suite(sm2.clone()).await;
    let first = pem_of(&csr_of(&sm2, Role::Reader, "RD-1", &*key_of(&sm2, 1)));
    let body = json!({ "request": first, "encryptionRequest": second("RD-1", 2) });
    let answer = world.post("/v1/readers", &body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let enrolment = answer.json();
    let (root, now) = (der(&enrolment["root"]), world.service.now());
    let mut trust = TrustStore::new(sm2.clone());
    trust.trust(&root, &der(&enrolment["deviceIssuer"]), Role::Reader, now).unwrap();
    let (signing, encryption) =
        (der(&enrolment["certificate"]), der(&enrolment["encryptionCertificate"]));
    let leaf = trust.verify(&signing, Role::Reader, now, None).unwrap();
    let sealed_to = trust.verify_encryption(&encryption, Role::Reader, now, None).unwrap();
    assert_eq!(sealed_to.identity(), leaf.identity());
    assert_eq!(sealed_to.point(), key_of(&sm2, 2).public_key());
    assert!(trust.verify(&encryption, Role::Reader, now, None).is_err(), "it proves nothing");

    // Again, as after a break-off: the same signing certificate, another encryption certificate.
    let again = world.post("/v1/readers", &body).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(again.json()["certificate"], enrolment["certificate"]);
    let other = der(&again.json()["encryptionCertificate"]);
    let other = trust.verify_encryption(&other, Role::Reader, now, None).unwrap();
    assert_eq!(other.point(), sealed_to.point());

    let id = enrolment["reader"]["id"].as_str().unwrap();
    let rows = world.service.audit_page(None, 50).await.unwrap().items;
    for number in [sealed_to.number(), other.number()] {
        let number = number.to_string();
        let about: Vec<_> = rows.iter().filter(|row| row.entry.subject == number).collect();
        let actions: Vec<_> = about.iter().map(|row| row.entry.action.as_str()).collect();
        assert_eq!(actions, ["certificate.issue", "certificate.intend"], "newest first");
        let detail = json!({ "usage": "encryption", "device": id }).to_string();
        assert!(about.iter().all(|row| row.entry.detail == detail), "{about:?}");
    }
}

#[tokio::test]
async fn a_pair_that_is_none_is_refused_and_stores_nothing() {
    let sm2 = sm::provider();
    let world = World::of_suite(sm2.clone()).await;
    let first = pem_of(&csr_of(&sm2, Role::Reader, "RD-1", &*key_of(&sm2, 1)));
    let cases = [
        (second("RD-2", 2), "request-pair"),
        (second("RD-1", 1), "request-pair"),
        (pem_of(&csr_of(&sm2, Role::Reader, "RD-1", &*key_of(&sm2, 2))), "certificate-usage"),
        (pem_of(&csr(Role::Reader, "RD-1", &*key(2))), "certificate-algorithm"),
        ("junk!".to_owned(), "request-encoding"),
    ];
    for (second, check) in cases {
        let body = json!({ "request": first, "encryptionRequest": second });
        world.post("/v1/readers", &body).await.assert_check(422, check);
    }
    let only = json!({ "request": second("RD-1", 2) });
    world.post("/v1/readers", &only).await.assert_check(422, "certificate-usage");
    assert_eq!(world.get("/v1/readers").await.json()["items"], json!([]));

    let world = World::new().await;
    let p256 = pem_of(&csr(Role::Reader, "RD-1", &*key(1)));
    let body = json!({ "request": p256, "encryptionRequest": second("RD-1", 2) });
    world.post("/v1/readers", &body).await.assert_check(422, "request-pair");
    assert_eq!(world.get("/v1/readers").await.json()["items"], json!([]));
}
