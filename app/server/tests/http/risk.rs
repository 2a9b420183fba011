//! A reader's record, what is told of it, and the decisions over it (C5).

use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_store::{
    Device, DeviceKind, DeviceStatus, IdKind, RiskAction, RiskDecision, RiskEvent, RiskKind, Role,
    StoreError, new_id,
};
use serde_json::{Value, json};

use crate::world::{Answer, World, build};

const SECOND: Duration = Duration::from_secs(1);

async fn send(world: &World, method: Method, token: &str, path: &str, body: &Value) -> Answer {
    world.send(build(method, path, token, Body::from(body.to_string()))).await
}

async fn put(world: &World, path: &str, body: &Value) -> Answer {
    send(world, Method::PUT, &world.admin, path, body).await
}

/// Has a rule's decision in the store; its id.
async fn decide(world: &World, reader: &str, rule: &str, action: RiskAction) -> String {
    let now = world.service.now();
    let decision = RiskDecision {
        id: new_id(IdKind::Decision, now, &mut *world.service.rng()),
        device_id: reader.to_owned(),
        rule: rule.to_owned(),
        terms: json!({ "name": rule, "atLeast": 3 }).to_string(),
        counted: 3,
        action,
        pause: (action == RiskAction::Throttle).then_some(5 * SECOND),
        reason: format!("rule {rule}: 3 errors within 10m"),
        at: now,
        until: Some(now.plus(3600 * SECOND)),
        up_to_event: 0,
        end: None,
    };
    let id = decision.id.clone();
    let store = world.service.store();
    let opened = store.run_tx("test_decide", move |tx| tx.open_decision(&decision)).await;
    assert_eq!(opened, Ok::<_, StoreError>(true));
    id
}

async fn note(world: &World, reader: &str, kind: RiskKind, label: &'static str) {
    let (now, reader) = (world.service.now(), reader.to_owned());
    let noted = world.service.store().run_tx("test_note", move |tx| {
        tx.note_risk(&reader, now, &[RiskEvent::one(kind, label)], &[]).map(|_| ())
    });
    assert_eq!(noted.await, Ok::<_, StoreError>(()));
}

#[tokio::test]
async fn a_record_has_every_part_from_the_first_day() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let reader = world.get(&format!("/v1/readers/{id}")).await.json();
    let answer = world.get(&format!("/v1/readers/{id}/record")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let none = json!({
        "reads": 0, "done": 0, "errors": {}, "refusals": {}, "reports": {},
        "transactions": {}, "resent": 0, "concurrent": {},
    });
    let record = answer.json();
    let certificates = record["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 1);
    assert_eq!(certificates[0]["number"], reader["certificate"]["number"]);
    assert_eq!(certificates[0]["state"], "issued");
    let expected = json!({
        "reader": reader,
        "certificates": certificates,
        "factory": null,
        "totals": none,
        "lastDay": none,
        "lastReadAt": null,
        "standing": [],
    });
    assert_eq!(record, expected);
    let missing = world.get("/v1/readers/rdr_none/record").await;
    missing.assert_problem(404, "not-found", "Not found", "there is no such reader");
}

#[tokio::test]
async fn counts_name_no_check_that_depends_on_a_secret() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    for check in ["decryption", "card-authentication", "card-removed", "card-removed"] {
        note(&world, &id, RiskKind::Errors, check).await;
    }
    world.advance(86_400 * SECOND);
    note(&world, &id, RiskKind::Reads, "").await;
    let record = world.get(&format!("/v1/readers/{id}/record")).await.json();
    let errors = json!({ "authentication": 2, "card-removed": 2 });
    assert_eq!(record["totals"]["errors"], errors);
    assert_eq!(record["lastDay"]["errors"], json!({}));
    assert_eq!(record["lastDay"]["reads"], 1);
    assert_eq!(record["lastReadAt"], "2027-01-16T08:00:00.000Z");
    let events = world.get(&format!("/v1/readers/{id}/events?limit=4")).await.json();
    let labels: Vec<_> = events["items"].as_array().unwrap().iter().map(|e| &e["label"]).collect();
    assert_eq!(labels, ["", "card-removed", "card-removed", "authentication"]);
    let next = events["next"].as_str().unwrap();
    let rest = world.get(&format!("/v1/readers/{id}/events?cursor={next}")).await.json();
    assert_eq!(rest["items"][0]["label"], "authentication");
    assert_eq!(rest["next"], Value::Null);
}

#[tokio::test]
async fn factory_data_are_set_and_replaced() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let path = format!("/v1/readers/{id}/factory");
    let first = put(&world, &path, &json!({ "maker": "Acme", "madeOn": "2026-01-31" })).await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    let second = put(&world, &path, &json!({ "maker": "Ümläut", "batch": "42" })).await.json();
    assert_eq!((&second["maker"], &second["madeOn"]), (&json!("Ümläut"), &json!("")));
    assert!(second["setBy"].as_str().unwrap().starts_with("opr_"));
    let record = world.get(&format!("/v1/readers/{id}/record")).await.json();
    assert_eq!(record["factory"], second);
    put(&world, &path, &json!({ "maker": "x".repeat(101) })).await.assert_check(422, "text-length");
    put(&world, &path, &json!({ "madeOn": "31.1.2026" })).await.assert_check(422, "day-format");
    put(&world, &path, &json!({ "colour": "red" })).await.assert_check(400, "body");
    let nobody = put(&world, "/v1/readers/rdr_none/factory", &json!({})).await;
    nobody.assert_check(404, "not-found");
}

/// Who may see and tell of readers may not, by a reader's routes, of SAM hosts.
#[tokio::test]
async fn a_sam_host_has_no_reader_s_record() {
    let world = World::new().await;
    let now = world.service.now();
    let host = Device {
        id: new_id(IdKind::SamHost, now, &mut *world.service.rng()),
        kind: DeviceKind::SamHost,
        serial: "SAMHOST-1".to_owned(),
        status: DeviceStatus::Enrolled,
        block_reason: None,
        created_at: now,
        updated_at: now,
    };
    let path = format!("/v1/readers/{}", host.id);
    let inserted = world.service.store().run_tx("test_host", move |tx| tx.insert_device(&host));
    assert_eq!(inserted.await, Ok::<_, StoreError>(()));
    for part in ["record", "reports", "transactions", "events", "decisions"] {
        world.get(&format!("{path}/{part}")).await.assert_check(404, "not-found");
    }
    put(&world, &format!("{path}/factory"), &json!({})).await.assert_check(404, "not-found");
    let report = json!({ "kind": "seal", "text": "", "reference": "1" });
    let told = world.post(&format!("{path}/reports"), &report).await;
    told.assert_check(404, "not-found");
}

#[tokio::test]
async fn what_is_told_twice_is_one_thing() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let report = json!({ "kind": "broken-seal", "text": "torn\noff", "reference": "T-1" });
    let paid =
        json!({ "reference": "P-1", "amount": "12.34", "currency": "CNY", "outcome": "paid" });
    for (list, body, field, other) in
        [("reports", report, "text", "gone"), ("transactions", paid, "amount", "99")]
    {
        let path = format!("/v1/readers/{id}/{list}");
        let first = world.post(&path, &body).await;
        assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
        for (name, value) in body.as_object().unwrap() {
            assert_eq!(first.json()[name], *value, "{list} {name}");
        }
        world.advance(SECOND);
        let again = world.post(&path, &body).await;
        assert_eq!((again.status, again.json()), (StatusCode::OK, first.json()));
        let mut changed = body.clone();
        changed[field] = json!(other);
        let detail = "this reference was told before, with another content";
        let title = "The current state does not allow this";
        world.post(&path, &changed).await.assert_problem(409, "reference-taken", title, detail);
        let listed = world.get(&path).await.json();
        assert_eq!(listed, json!({ "items": [first.json()], "next": null }));
        let nobody = world.post(&format!("/v1/readers/rdr_none/{list}"), &body).await;
        nobody.assert_check(404, "not-found");
        world.get(&format!("/v1/readers/rdr_none/{list}")).await.assert_check(404, "not-found");
        world.get(&format!("{path}?limit=0")).await.assert_check(400, "page-limit");
        world.get(&format!("{path}?cursor=%00")).await.assert_check(400, "page-cursor");
        world.get(&format!("{path}?order=up")).await.assert_check(400, "query");
    }
    let record = world.get(&format!("/v1/readers/{id}/record")).await.json();
    assert_eq!(record["totals"]["reports"], json!({ "broken-seal": 1 }));
    assert_eq!(record["totals"]["transactions"], json!({ "paid": 1 }));
}

#[tokio::test]
async fn bad_values_name_their_check() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let report = json!({ "kind": "seal", "text": "x", "reference": "T-1" });
    let paid = json!({ "reference": "P-1", "amount": "1", "currency": "CNY", "outcome": "paid" });
    for (list, whole, field, value, check) in [
        ("reports", &report, "kind", json!("Broken seal"), "code-format"),
        ("reports", &report, "text", json!("x".repeat(2001)), "text-length"),
        ("reports", &report, "text", json!("a\u{0}b"), "text-length"),
        ("reports", &report, "reference", json!(""), "reference-format"),
        ("reports", &report, "reference", json!("a b"), "reference-format"),
        ("transactions", &paid, "amount", json!("1e9"), "amount-format"),
        ("transactions", &paid, "amount", json!("-"), "amount-format"),
        ("transactions", &paid, "currency", json!("RMBY"), "currency-format"),
        ("transactions", &paid, "outcome", json!("x".repeat(41)), "code-format"),
        ("transactions", &paid, "reference", json!("é"), "reference-format"),
    ] {
        let mut body = whole.clone();
        body[field] = value;
        let answer = world.post(&format!("/v1/readers/{id}/{list}"), &body).await;
        answer.assert_check(422, check);
    }
    for body in [json!({}), json!({ "reference": 5 }), json!(null)] {
        for list in ["reports", "transactions"] {
            let answer = world.post(&format!("/v1/readers/{id}/{list}"), &body).await;
            answer.assert_check(400, "body");
        }
    }
}

#[tokio::test]
async fn a_rules_block_shows_ends_and_is_reversed() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let path = format!("/v1/readers/{id}");
    let block = decide(&world, &id, "bad-cards", RiskAction::Block).await;
    world.advance(SECOND);
    let throttle = decide(&world, &id, "flood", RiskAction::Throttle).await;
    let reader = world.get(&path).await.json();
    assert_eq!(reader["status"], "blocked");
    assert_eq!(reader["blockReason"], "rule bad-cards: 3 errors within 10m");
    let unblocked = world.post(&format!("{path}/unblock"), &json!({})).await.json();
    assert_eq!(unblocked["status"], "blocked", "an operator's unblock is another thing");

    let listed = world.get(&format!("{path}/decisions")).await.json();
    let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|d| &d["id"]).collect();
    assert_eq!(ids, [&json!(throttle), &json!(block)]);
    let expected = json!({
        "id": block,
        "readerId": id,
        "rule": "bad-cards",
        "terms": { "name": "bad-cards", "atLeast": 3 },
        "counted": 3,
        "action": "block",
        "pause": null,
        "reason": "rule bad-cards: 3 errors within 10m",
        "at": "2027-01-15T08:00:00.000Z",
        "until": "2027-01-15T09:00:00.000Z",
        "stands": true,
        "end": null,
    });
    assert_eq!(listed["items"][1], expected);
    assert_eq!(listed["items"][0]["pause"], "5s");
    let standing = world.get(&format!("{path}/record")).await.json()["standing"].clone();
    assert_eq!(standing.as_array().map(Vec::len), Some(2));

    let reverse = format!("{path}/decisions/{block}/reverse");
    world.post(&reverse, &json!({ "reason": "" })).await.assert_check(422, "reason-length");
    world.post(&reverse, &json!({})).await.assert_check(400, "body");
    let reversed = world.post(&reverse, &json!({ "reason": "new cards" })).await;
    assert_eq!(reversed.status, StatusCode::OK);
    let reversed = reversed.json();
    assert_eq!(
        (&reversed["stands"], &reversed["end"]["reason"]),
        (&json!(false), &json!("new cards"))
    );
    assert!(reversed["end"]["by"].as_str().unwrap().starts_with("opr_"));
    assert_eq!(world.get(&path).await.json()["status"], "enrolled");
    let again = world.post(&reverse, &json!({ "reason": "x" })).await;
    again.assert_check(409, "decision-ended");
    for wrong in [
        format!("{path}/decisions/dec_none/reverse"),
        format!("{path}/decisions/%ff/reverse"),
        format!("/v1/readers/rdr_none/decisions/{throttle}/reverse"),
    ] {
        let answer = world.post(&wrong, &json!({ "reason": "x" })).await;
        assert!([400, 404].contains(&answer.status.as_u16()), "{wrong}: {answer:?}");
    }
    world.advance(3600 * SECOND);
    let ended = world.get(&format!("{path}/decisions")).await.json()["items"][0].clone();
    assert_eq!((&ended["stands"], &ended["end"]), (&json!(false), &Value::Null), "over by itself");
}

#[tokio::test]
async fn a_reader_is_found_by_its_serial_number() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    world.reader("RD-2", 2).await;
    let found = world.get("/v1/readers?serial=RD-1").await.json();
    assert_eq!(
        (found["items"].as_array().unwrap().len(), &found["items"][0]["id"]),
        (1, &json!(id))
    );
    assert_eq!(found["next"], Value::Null);
    let none = world.get("/v1/readers?serial=RD-3").await.json();
    assert_eq!(none, json!({ "items": [], "next": null }));
    for bad in ["", &"x".repeat(65)] {
        world.get(&format!("/v1/readers?serial={bad}")).await.assert_check(400, "serial");
    }
}

#[tokio::test]
async fn who_may_tell_may_not_reverse() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let token = world.token("shop", &[Role::Integrator]).await;
    let report = json!({ "kind": "seal", "text": "x", "reference": "T-1" });
    let path = format!("/v1/readers/{id}/reports");
    let told = send(&world, Method::POST, &token, &path, &report).await;
    assert_eq!(told.status, StatusCode::CREATED);
    let block = decide(&world, &id, "bad", RiskAction::Block).await;
    let path = format!("/v1/readers/{id}/decisions/{block}/reverse");
    let refused = send(&world, Method::POST, &token, &path, &json!({ "reason": "please" })).await;
    refused.assert_check(403, "scope");
    assert_eq!(world.get(&format!("/v1/readers/{id}")).await.json()["status"], "blocked");
    let auditor = world.token("ann", &[Role::Auditor]).await;
    let seen = world.get_with(&auditor, &format!("/v1/readers/{id}/record")).await;
    assert_eq!(seen.status, StatusCode::OK);
}
