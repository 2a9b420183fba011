//! The injection hierarchy and its terminals over HTTP (E1, E2).

use countersign_crypto::{SecureElement, rust_crypto};
use countersign_pki::{Identity, Role as PkiRole, request};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::{Value, json};
use testkit::rng::seeded;
use tr34::aws_lc::SoftwareRsaKey;

use crate::world::{Answer, World, build, key, pem_of};

const BITS: u32 = 2048;

/// What a terminal with this serial number and code sends.
fn ask(serial: &str, code: &str, channel: &dyn SecureElement, rsa: &SoftwareRsaKey) -> Value {
    let identity = Identity::new(PkiRole::Terminal, serial).unwrap();
    let first = request(&rust_crypto::provider(), &identity, channel, &mut seeded(3)).unwrap();
    let party = tr34::Party::new(tr34::Role::Krd, serial).unwrap();
    let second = tr34::request(rsa, &party).unwrap();
    json!({
        "serial": serial,
        "code": code,
        "request": pem_of(&first),
        "krdRequest": pem_of(&second),
    })
}

/// Sent without any token.
async fn enrol(world: &World, body: &Value) -> Answer {
    let mut request =
        build(axum::http::Method::POST, "/v1/terminals/enrolments", "", body.to_string().into());
    request.headers_mut().remove("authorization");
    world.send(request).await
}

async fn vote(world: &World, approval: &str) {
    let voter = world.token("voter", &[Role::Approver]).await;
    let path = format!("/v1/approvals/{approval}/votes");
    let body = json!({ "vote": "approve" }).to_string();
    let request = build(axum::http::Method::POST, &path, &voter, body.into());
    assert!(world.send(request).await.status.is_success());
}

#[tokio::test]
async fn a_terminal_is_allowed_enrols_and_is_blocked() {
    let world = World::new().await;
    let asked = ask("POS-1", "AAAA", &*key(1), &SoftwareRsaKey::generate(BITS).unwrap());
    enrol(&world, &asked).await.assert_check(409, "rki-not-initialised");
    world.service.init_rki(&Actor::Console, BITS).await.unwrap();
    enrol(&world, &asked).await.assert_check(403, "terminal-not-allowed");

    let body = json!({ "serial": "POS-1", "model": "M2", "owner": "Shop" });
    let allowed = world.post("/v1/terminals", &body).await;
    assert_eq!(allowed.status.as_u16(), 201, "{allowed:?}");
    let id = allowed.json()["terminal"]["id"].as_str().unwrap().to_owned();
    assert_eq!(allowed.header("location"), format!("/v1/terminals/{id}"));
    let code = allowed.json()["enrolmentCode"].as_str().unwrap().to_owned();
    world.post("/v1/terminals", &body).await.assert_check(409, "terminal-serial-taken");
    let rows = world.service.audit_page(None, 1).await.unwrap().items;
    assert_eq!(rows[0].entry.action, "terminal.allow");
    assert_eq!(rows[0].entry.check.as_deref(), Some("terminal-serial-taken"), "it is audited");
    let shown = world.get(&format!("/v1/terminals/{id}")).await;
    assert_eq!(shown.json()["state"], "allowed");
    assert!(!shown.text.contains(&code), "the code is shown once");

    let refused = enrol(&world, &asked).await;
    refused.assert_check(403, "enrolment-code");
    assert!(refused.json()["detail"].as_str().unwrap().contains("(incident inc_"));
    let (channel, rsa) = (key(1), SoftwareRsaKey::generate(BITS).unwrap());
    let good = ask("POS-1", &code, &*channel, &rsa);
    let enrolled = enrol(&world, &good).await;
    assert_eq!(enrolled.status.as_u16(), 201, "{enrolled:?}");
    let first = enrolled.json();
    for part in [
        "certificate",
        "krdCertificate",
        "caKrd",
        "caKdh",
        "rkiRoot",
        "deviceIssuer",
        "serverIssuer",
        "root",
    ] {
        assert!(first[part].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"), "{part}");
    }
    let again = enrol(&world, &good).await;
    assert_eq!((again.status.as_u16(), &again.json()), (200, &first), "the same once more");
    let other = SoftwareRsaKey::generate(BITS).unwrap();
    enrol(&world, &ask("POS-1", &code, &*channel, &other))
        .await
        .assert_check(403, "enrolment-code");

    let path = format!("/v1/terminals/{id}");
    let blocked = world.post(&format!("{path}/block"), &json!({ "reason": "stolen" })).await;
    assert_eq!(blocked.json()["state"], "blocked");
    assert_eq!(blocked.json()["blockReason"], "stolen");
    enrol(&world, &good).await.assert_check(409, "device-blocked");
    let free = world.post_text(&format!("{path}/unblock"), "").await;
    assert_eq!(free.json()["state"], "enrolled");
    world.post(&format!("{path}/unbind"), &json!({})).await.assert_check(409, "terminal-not-bound");
    let revoked = world.post(&format!("{path}/revoke"), &json!({ "reason": "lost" })).await;
    assert_eq!(revoked.json()["state"], "allowed");
    assert_eq!(revoked.json()["krdCertificate"], Value::Null);
    let listed = world.get("/v1/terminals?serial=POS-1").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/terminals?serial=POS-2").await.json()["items"], json!([]));
    // Another kind's id is none of a terminal's.
    let reader = world.reader("RD-1", 9).await;
    for path in [format!("/v1/terminals/{reader}/block"), format!("/v1/readers/{id}/block")] {
        world.post(&path, &json!({ "reason": "x" })).await.assert_check(404, "not-found");
    }
}

#[tokio::test]
async fn the_hierarchy_is_shown_rolled_over_and_revoked_with_others() {
    let world = World::new().await;
    assert_eq!(world.get("/v1/rki").await.json()["authorities"], json!([]));
    let roll = json!({ "role": "kdh" });
    world.post("/v1/rki/roll", &roll).await.assert_check(409, "rki-not-initialised");
    world.service.init_rki(&Actor::Console, BITS).await.unwrap();
    for (body, check) in [
        (json!({ "role": "root" }), "authority-role"),
        (json!({ "role": "king" }), "authority-role"),
        (json!({ "role": "kdh", "bits": 1024 }), "key-size"),
    ] {
        world.post("/v1/rki/roll", &body).await.assert_check(422, check);
    }
    let pending = world.post("/v1/rki/roll", &roll).await;
    assert_eq!(pending.status.as_u16(), 202);
    let approval = pending.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(pending.header("location"), format!("/v1/approvals/{approval}"));
    vote(&world, &approval).await;
    let roll = json!({ "role": "kdh", "approvalId": approval });
    let rolled = world.post("/v1/rki/roll", &roll).await;
    assert_eq!(rolled.status.as_u16(), 200, "{rolled:?}");
    let states = |status: &Value, role: &str| {
        let all = status["authorities"].as_array().unwrap().iter();
        let of_role = all.filter(|one| one["role"] == role);
        of_role.map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let status = world.get("/v1/rki").await.json();
    assert_eq!(states(&status, "kdh"), ["active", "retired"]);
    let ca = status["authorities"].as_array().unwrap().iter().find(|one| one["role"] == "ca-kdh");
    let ca = ca.unwrap()["id"].as_str().unwrap();
    let crl = world.get(&format!("/v1/rki/authorities/{ca}/crl")).await.json();
    assert!(crl["crl"].as_str().unwrap().starts_with("-----BEGIN X509 CRL"), "{crl}");
    assert_eq!(crl["listed"], 0);
    world.get("/v1/rki/authorities/rka_none/crl").await.assert_check(404, "not-found");
    let health = world.get("/v1/health").await.json();
    assert_eq!(health["crls"]["expiring"], false, "{health}");
    world.post("/v1/rebinds", &json!({ "approvalId": "apr_none" })).await;
    assert_eq!(world.get("/v1/rebinds").await.json()["items"], json!([]));
    world.get("/v1/rebinds/reb_none").await.assert_check(404, "not-found");
}
