//! `/v1/sleeves` and `/v1/managers`: two kinds of devices with the same routes (A).

use axum::http::StatusCode;
use countersign_crypto::{UnixTime, sm};
use countersign_pki::{Identity, Role, TrustStore, encryption_request};
use countersign_service::NewAlarm;
use serde_json::{Value, json};
use testkit::rng::seeded;

use crate::world::{Answer, SERVER_ID, World, csr, csr_of, key, key_of, pem_of, provider};

/// A kind of device: path, role, the name in problems, prefix of its ids.
const KINDS: [(&str, Role, &str, &str); 2] = [
    ("/v1/sleeves", Role::Sleeve, "sleeve", "slv_"),
    ("/v1/managers", Role::Manager, "manager", "mgr_"),
];
const NOBODY: &str = "00000000-0000-7000-8000-000000000000";

fn der(pem: &Value) -> Vec<u8> {
    pem::parse(pem.as_str().unwrap()).unwrap().into_contents()
}

fn peer(role: Role) -> Role {
    if role == Role::Sleeve { Role::Manager } else { Role::Sleeve }
}

async fn enrol(world: &World, path: &str, role: Role, serial: &str, seed: u64) -> Answer {
    let request = pem_of(&csr(role, serial, &*key(seed)));
    world.post(path, &json!({ "request": request })).await
}

async fn id(world: &World, path: &str, role: Role, serial: &str, seed: u64) -> String {
    let answer = enrol(world, path, role, serial, seed).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer.json()["device"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_device_gets_a_certificate_that_the_other_kind_verifies() {
    for (path, role, _, prefix) in KINDS {
        let world = World::new().await;
        let answer = enrol(&world, path, role, "A-1", 1).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        let enrolment = answer.json();
        let device = &enrolment["device"];
        let id = device["id"].as_str().unwrap();
        assert!(id.starts_with(prefix), "{id}");
        assert_eq!(answer.header("location"), format!("{path}/{id}"));
        let number = device["certificate"]["number"].as_str().unwrap();
        let expected = json!({
            "id": id,
            "serial": "A-1",
            "blocked": false,
            "blockReason": null,
            "createdAt": "2027-01-15T08:00:00.000Z",
            "updatedAt": "2027-01-15T08:00:00.000Z",
            "certificate": { "number": number, "notAfter": "2028-01-15T08:00:00.000Z" },
        });
        assert_eq!(*device, expected);
        assert_eq!(enrolment["serverId"], SERVER_ID);
        assert_eq!(enrolment["encryptionCertificate"], Value::Null);

        // What the device that it will meet does with it, and the gateway.
        let (now, leaf) = (world.service.now(), der(&enrolment["certificate"]));
        let mut trust = TrustStore::new(provider());
        let (root, issuer) = (der(&enrolment["root"]), der(&enrolment["deviceIssuer"]));
        trust.trust(&root, &issuer, role, now).unwrap();
        let verified = trust.verify(&leaf, role, now, None).unwrap();
        assert_eq!(verified.identity().id(), "A-1");
        assert!(trust.verify(&leaf, peer(role), now, None).is_err(), "it is not its own peer");
        let gateway = world.service.authority().trust_in_devices(now).unwrap();
        gateway.verify(&leaf, role, now, None).unwrap();

        let again = enrol(&world, path, role, "A-1", 1).await;
        assert_eq!((again.status, again.json()), (StatusCode::OK, enrolment.clone()));
        assert_eq!(world.get(&format!("{path}/{id}")).await.json(), *device);
    }
}

#[tokio::test]
async fn a_device_of_a_dual_certificate_suite_gets_both() {
    let sm = sm::provider();
    let world = World::of_suite(sm.clone()).await;
    for (path, role, ..) in KINDS {
        let identity = Identity::new(role, "A-1").unwrap();
        let request = csr_of(&sm, role, "A-1", &*key_of(&sm, 1));
        let second = encryption_request(&sm, &identity, &*key_of(&sm, 2), &mut seeded(9)).unwrap();
        let body = json!({ "request": pem_of(&request), "encryptionRequest": pem_of(&second) });
        let answer = world.post(path, &body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        assert!(answer.json()["encryptionCertificate"].is_string());
        let p256 = enrol(&world, path, role, "A-2", 3).await;
        p256.assert_check(422, "certificate-algorithm");
    }
}

#[tokio::test]
async fn requests_that_do_not_fit_are_refused() {
    for (path, role, ..) in KINDS {
        let world = World::new().await;
        for other in [peer(role), Role::Reader, Role::Server] {
            enrol(&world, path, other, "A-1", 1).await.assert_check(422, "request-role");
        }
        let text = json!({ "request": "no request" });
        world.post(path, &text).await.assert_check(422, "request-encoding");
        world.post(path, &json!({ "code": "x" })).await.assert_check(400, "body");
        assert_eq!(world.get(path).await.json(), json!({ "items": [], "next": null }));

        let id = id(&world, path, role, "A-1", 1).await;
        enrol(&world, path, role, "A-1", 2).await.assert_check(409, "serial-taken");
        let reason = json!({ "reason": "lost" });
        world.post(&format!("{path}/{id}/block"), &reason).await;
        enrol(&world, path, role, "A-1", 1).await.assert_check(409, "device-blocked");
        enrol(&world, "/v1/readers", role, "A-1", 1).await.assert_check(422, "request-role");
    }
}

#[tokio::test]
async fn devices_are_blocked_let_in_and_revoked() {
    for (path, role, name, prefix) in KINDS {
        let world = World::new().await;
        let id = id(&world, path, role, "A-1", 1).await;
        let at = |step: &str| format!("{path}/{id}/{step}");
        let blocked = world.post(&at("block"), &json!({ "reason": "lost" })).await.json();
        assert_eq!((&blocked["blocked"], &blocked["blockReason"]), (&json!(true), &json!("lost")));
        let free = world.post_text(&at("unblock"), "").await.json();
        assert_eq!((&free["blocked"], &free["blockReason"]), (&json!(false), &Value::Null));
        for bad in ["", &"x".repeat(201), "a\nb"] {
            let body = json!({ "reason": bad });
            world.post(&at("block"), &body).await.assert_check(422, "reason-length");
            world.post(&at("revoke"), &body).await.assert_check(422, "reason-length");
        }
        let revoked = world.post(&at("revoke"), &json!({ "reason": "key lost" })).await.json();
        assert_eq!(revoked["certificate"], Value::Null);
        let again = world.post(&at("revoke"), &json!({ "reason": "again" })).await;
        again.assert_check(404, "not-found");
        // It may come again with another key.
        let other = enrol(&world, path, role, "A-1", 2).await;
        assert_eq!(
            (other.status, &other.json()["device"]["id"]),
            (StatusCode::CREATED, &json!(id))
        );

        let mut nobody: Vec<String> = vec![format!("{prefix}{NOBODY}"), "A%20b".to_owned()];
        nobody.push(world.reader("RD-1", 7).await);
        for id in nobody {
            let answer = world.get(&format!("{path}/{id}")).await;
            let detail = format!("there is no such {name}");
            answer.assert_problem(404, "not-found", "Not found", &detail);
            let body = json!({ "reason": "lost" });
            let answer = world.post(&format!("{path}/{id}/block"), &body).await;
            answer.assert_check(404, "not-found");
        }
        let rows = world.service.audit_page(None, 200).await.unwrap().items;
        for verb in ["enrol", "block", "unblock", "revoke"] {
            let action = format!("{name}.{verb}");
            assert!(rows.iter().any(|row| row.entry.action == action), "{action}");
        }
    }
}

#[tokio::test]
async fn devices_are_listed_and_found_by_serial_number() {
    let world = World::new().await;
    let mut seed = 0;
    for (path, role, ..) in KINDS {
        for serial in ["A-1", "A-2", "A-3"] {
            seed += 1;
            id(&world, path, role, serial, seed).await;
        }
        let first = world.get(&format!("{path}?limit=2")).await.json();
        let cursor = first["next"].as_str().unwrap();
        let rest = world.get(&format!("{path}?limit=2&cursor={cursor}")).await.json();
        let mut serials: Vec<_> = [&first, &rest]
            .iter()
            .flat_map(|page| page["items"].as_array().unwrap())
            .map(|device| device["serial"].as_str().unwrap())
            .collect();
        serials.sort_unstable();
        assert_eq!((serials, &rest["next"]), (vec!["A-1", "A-2", "A-3"], &Value::Null));
        let found = world.get(&format!("{path}?serial=A-2")).await.json();
        assert_eq!(found["items"].as_array().unwrap().len(), 1);
        assert_eq!(found["items"][0]["serial"], "A-2");
        let none = world.get(&format!("{path}?serial=A-9")).await.json();
        assert_eq!(none, json!({ "items": [], "next": null }));
        world.get(&format!("{path}?limit=0")).await.assert_check(400, "page-limit");
        world.get(&format!("{path}?serial=")).await.assert_check(400, "serial");
    }
}

#[tokio::test]
async fn alarms_are_listed_newest_first() {
    let world = World::new().await;
    let empty = world.get("/v1/sleeves/alarms").await.json();
    assert_eq!(empty, json!({ "items": [], "next": null }));
    let manager = id(&world, "/v1/managers", Role::Manager, "MGR-1", 1).await;
    let sleeve = id(&world, "/v1/sleeves", Role::Sleeve, "SLV-1", 2).await;
    for (name, serial) in [("0a", "SLV-1"), ("0b", "SLV-9")] {
        world.advance(std::time::Duration::from_millis(10));
        let alarm = NewAlarm {
            alarm: name.to_owned(),
            sleeve: serial.to_owned(),
            session: "7".to_owned(),
            raised_at: UnixTime::from_secs(1_800_000_000),
        };
        world.service.raise_alarm(&manager, alarm).await.unwrap();
    }
    let listed = world.get("/v1/sleeves/alarms").await.json();
    let items = listed["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    let expected = json!({
        "id": items[1]["id"],
        "managerId": manager,
        "sleeve": "SLV-1",
        "sleeveId": sleeve,
        "session": "7",
        "raisedAt": "2027-01-15T08:00:00.000Z",
        "at": "2027-01-15T08:00:00.010Z",
    });
    assert_eq!(items[1], expected);
    assert_eq!((&items[0]["sleeve"], &items[0]["sleeveId"]), (&json!("SLV-9"), &Value::Null));
    let first = world.get("/v1/sleeves/alarms?limit=1").await.json();
    assert_eq!(first["items"][0], items[0]);
    let cursor = first["next"].as_str().unwrap();
    let rest = world.get(&format!("/v1/sleeves/alarms?limit=1&cursor={cursor}")).await.json();
    assert_eq!((&rest["items"][0], &rest["next"]), (&items[1], &Value::Null));
    world.get("/v1/sleeves/alarms?limit=0").await.assert_check(400, "page-limit");
    // Who may scrape, a shop among them, learns of none of this (A5).
    let figures = world.get("/metrics").await.text;
    assert!(figures.contains("countersign_store_transactions_total"));
    assert!(!figures.contains("alarm"), "{figures}");
}
