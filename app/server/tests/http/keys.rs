//! `/v1/approvals`, `/v1/keks`, `/v1/keys`.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use countersign_crypto::Secret;
use countersign_store::Role;
use data_encoding::HEXUPPER;
use serde_json::{Value, json};
use tr31::aws_lc::AwsLc;
use tr31::{Header, Kbpk, Leniency, Padding, Version};

use crate::world::{Answer, World, build};

/// Three operators of the house.
struct House {
    world: World,
    ann: String,
    bob: String,
    cyd: String,
}

impl House {
    async fn new() -> Self {
        let world = World::new().await;
        let mut tokens = Vec::new();
        for name in ["ann", "bob", "cyd"] {
            tokens.push(world.token(name, &[Role::Custodian]).await);
        }
        let [ann, bob, cyd] = tokens.try_into().unwrap();
        Self { world, ann, bob, cyd }
    }

    async fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        let body = Body::from(body.to_string());
        self.world.send(build(Method::POST, path, token, body)).await
    }

    /// Ann asks, Bob agrees, Ann does it.
    async fn gated(&self, path: &str, body: &Value) -> Answer {
        let asked = self.post(&self.ann, path, body).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{asked:?}");
        let approval = asked.json();
        let id = approval["id"].as_str().unwrap();
        assert_eq!(asked.header("location"), format!("/v1/approvals/{id}"));
        let votes = format!("/v1/approvals/{id}/votes");
        let voted = self.post(&self.bob, &votes, &json!({ "vote": "approve" })).await;
        assert_eq!((voted.status, &voted.json()["state"]), (StatusCode::OK, &json!("approved")));
        let mut body = body.clone();
        body["approvalId"] = id.into();
        self.post(&self.ann, path, &body).await
    }
}

fn new_key(name: &str) -> Value {
    json!({ "name": name, "scope": "shared", "usage": "K0", "algorithm": "A", "mode": "D",
        "exportability": "E", "length": 16 })
}

fn kcv(key: &[u8]) -> String {
    let kcv = tr31::kcv::kcv(&AwsLc, b'A', &Secret::copied_from(key)).unwrap();
    HEXUPPER.encode(kcv.as_bytes())
}

#[tokio::test]
async fn approvals_are_asked_for_voted_on_and_listed() {
    let house = House::new().await;
    let asked = house.post(&house.ann, "/v1/keys", &new_key("zone")).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED);
    let approval = asked.json();
    assert_eq!(
        (&approval["action"], &approval["state"]),
        (&json!("key.generate"), &json!("pending"))
    );
    assert_eq!(approval["subject"]["name"], "zone");
    assert_eq!(approval["subject"]["length"], 16);
    let id = approval["id"].as_str().unwrap();
    let votes = format!("/v1/approvals/{id}/votes");
    let approve = json!({ "vote": "approve" });
    house.post(&house.ann, &votes, &approve).await.assert_check(409, "approval-own-request");
    house.post(&house.bob, &votes, &json!({ "vote": "maybe" })).await.assert_check(422, "vote");
    let voted = house.post(&house.bob, &votes, &json!({ "vote": "reject" })).await.json();
    assert_eq!(
        (&voted["state"], &voted["votes"][0]["vote"]),
        (&json!("rejected"), &json!("reject"))
    );
    house.post(&house.cyd, &votes, &approve).await.assert_check(409, "approval-settled");
    let mut again = new_key("zone");
    again["approvalId"] = id.into();
    house.post(&house.ann, "/v1/keys", &again).await.assert_check(409, "approval-rejected");
    let world = &house.world;
    let shown = world.get(&format!("/v1/approvals/{id}")).await.json();
    assert_eq!(shown, voted);
    world.get("/v1/approvals/apr_none").await.assert_check(404, "not-found");
    house
        .post(&house.bob, "/v1/approvals/apr_none/votes", &approve)
        .await
        .assert_check(404, "not-found");
    for (query, count) in [("", 1), ("?state=rejected", 1), ("?state=pending", 0)] {
        let list = world.get(&format!("/v1/approvals{query}")).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
    }
    world.get("/v1/approvals?state=open").await.assert_check(400, "approval-state");
    world.get("/v1/approvals?limit=0").await.assert_check(400, "page-limit");
}

#[tokio::test]
async fn keys_are_made_shown_exported_and_retired_but_never_told() {
    let house = House::new().await;
    let made = house.gated("/v1/keys", &new_key("zone")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let key = made.json();
    let path = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    assert_eq!(made.header("location"), path);
    assert_eq!((&key["state"], &key["origin"]), (&json!("active"), &json!("generated")));
    assert_eq!(key["kcv"].as_str().unwrap().len(), 10);
    let world = &house.world;
    assert_eq!(world.get(&path).await.json(), key);
    let list = world.get("/v1/keys").await.json();
    assert_eq!(list, json!({ "items": [key], "next": null }));
    world.get("/v1/keys/key_none").await.assert_check(404, "not-found");
    house.post(&house.ann, "/v1/keys", &new_key("zone")).await.assert_check(409, "key-name-taken");
    let mut bad = new_key("other");
    bad["scope"] = "global".into();
    house.post(&house.ann, "/v1/keys", &bad).await.assert_check(422, "key-scope");
    bad["scope"] = "dukpt".into();
    bad["ksn"] = json!({ "base": "xyz" });
    house.post(&house.ann, "/v1/keys", &bad).await.assert_check(422, "ksn-base");
    bad["value"] = "00".into();
    house.post(&house.ann, "/v1/keys", &bad).await.assert_check(400, "body");

    let kek = kek(&house, "zone kek", [7, 11]).await;
    let how = json!({ "kekId": kek["id"] });
    let exported = house.gated(&format!("{path}/export"), &how).await;
    assert_eq!((exported.status, &exported.json()["kcv"]), (StatusCode::OK, &key["kcv"]));
    let block = exported.json()["block"].as_str().unwrap().to_owned();
    assert!(block.starts_with('D'), "{block}");
    let retired = house.gated(&format!("{path}/retire"), &json!({})).await;
    assert_eq!((retired.status, &retired.json()["state"]), (StatusCode::OK, &json!("retired")));
    let again = house.post(&house.ann, &format!("{path}/retire"), &json!({})).await;
    again.assert_check(409, "key-retired");
    // What left comes back as another key.
    let new = json!({ "name": "back", "kekId": kek["id"], "block": block, "scope": "shared" });
    let imported = house.gated("/v1/keys/import", &new).await.json();
    assert_eq!((&imported["kcv"], &imported["kekId"]), (&key["kcv"], &kek["id"]));
    assert_eq!(imported["exportability"], "E");
}

/// A component of 16 bytes.
fn part(seed: u8) -> [u8; 16] {
    std::array::from_fn(|at| (at as u8).wrapping_mul(seed).wrapping_add(seed))
}

fn component(number: u32, part: &[u8]) -> Value {
    json!({ "number": number, "component": HEXUPPER.encode(part), "kcv": kcv(part) })
}

/// A key-encrypting key of two components, active.
async fn kek(house: &House, name: &str, seeds: [u8; 2]) -> Value {
    let new = json!({ "name": name, "algorithm": "A", "length": 16, "components": 2 });
    let begun = house.gated("/v1/keks", &new).await;
    assert_eq!(begun.status, StatusCode::CREATED, "{begun:?}");
    let path = begun.header("location").to_owned();
    let mut last = begun.json();
    for (token, number, seed) in [(&house.ann, 1, seeds[0]), (&house.bob, 2, seeds[1])] {
        let body = component(number, &part(seed));
        let entered = house.post(token, &format!("{path}/components"), &body).await;
        assert_eq!(entered.status, StatusCode::CREATED, "{entered:?}");
        last = entered.json();
    }
    last
}

#[tokio::test]
async fn components_are_entered_by_different_operators() {
    let house = House::new().await;
    let new = json!({ "name": "zone", "algorithm": "A", "length": 16, "components": 3 });
    let begun = house.gated("/v1/keks", &new).await;
    let path = begun.header("location").to_owned();
    assert_eq!(begun.json()["state"], "collecting");
    let enter = async |token: &str, number, seed| {
        let body = component(number, &part(seed));
        house.post(token, &format!("{path}/components"), &body).await
    };
    let mut wrong = component(1, &part(5));
    wrong["kcv"] = "000000".into();
    let components = format!("{path}/components");
    house.post(&house.ann, &components, &wrong).await.assert_check(422, "component-kcv");
    assert_eq!(house.world.get(&path).await.json()["entered"], json!([]));
    assert_eq!(enter(&house.ann, 1, 5).await.status, StatusCode::CREATED);
    enter(&house.ann, 2, 7).await.assert_check(409, "component-operator");
    enter(&house.bob, 1, 7).await.assert_check(409, "component-taken");
    enter(&house.bob, 4, 7).await.assert_check(422, "component-number");
    let approver = house.world.token("dan", &[Role::Approver]).await;
    enter(&approver, 2, 7).await.assert_check(403, "scope");
    assert_eq!(enter(&house.bob, 2, 7).await.status, StatusCode::CREATED);
    let kek = enter(&house.cyd, 3, 11).await.json();
    assert_eq!((&kek["state"], &kek["held"]), (&json!("active"), &json!("database")));
    let whole: Vec<u8> = (0..16).map(|at| part(5)[at] ^ part(7)[at] ^ part(11)[at]).collect();
    assert_eq!(kek["kcv"], kcv(&whole));
    enter(&house.cyd, 3, 11).await.assert_check(409, "kek-not-collecting");
    let retired = house.gated(&format!("{path}/retire"), &json!({})).await.json();
    assert_eq!((&retired["state"], &retired["held"]), (&json!("retired"), &Value::Null));
    house.world.get("/v1/keks/kek_none").await.assert_check(404, "not-found");
}

#[tokio::test]
async fn a_body_with_a_secret_is_never_quoted() {
    let house = House::new().await;
    let new = json!({ "name": "zone", "algorithm": "A", "length": 16, "components": 2 });
    let path = format!("{}/components", house.gated("/v1/keks", &new).await.header("location"));
    let secret = "0123456789ABCDEF0123456789ABCDEF";
    for body in [
        format!("{{\"number\":1,\"component\":\"{secret}X\",\"kcv\":\"000000\"}}"),
        format!("{{\"number\":1,\"component\":\"{secret}0\",\"kcv\":\"000000\"}}"),
        format!("{{\"number\":\"{secret}\",\"component\":\"00\",\"kcv\":\"000000\"}}"),
        format!("{{\"component\":[\"{secret}\"]}}"),
        format!("{{\"number\":1,\"component\":\"{}\",\"kcv\":\"000000\"}}", secret.repeat(5)),
        format!("{{\"number\":1,\"{secret}\":1}}"),
        format!("[1,\"{secret}\",\"000000\"]"),
        secret.to_owned(),
    ] {
        let answer =
            house.world.send(build(Method::POST, &path, &house.ann, Body::from(body))).await;
        answer.assert_check(400, "body");
        assert!(!answer.text.contains("0123456789"), "{answer:?}");
    }
    let mut request = build(Method::POST, &path, &house.ann, Body::from("{}"));
    request.headers_mut().remove("content-type");
    house.world.send(request).await.assert_check(415, "media-type");
}

#[tokio::test]
async fn what_tr31_refuses_has_its_name() {
    let house = House::new().await;
    let kek = kek(&house, "zone", [5, 7]).await;
    let kbpk: Vec<u8> = (0..16).map(|at| part(5)[at] ^ part(7)[at]).collect();
    let kbpk = Secret::new(kbpk);
    let mut rng = testkit::rng::seeded(4);
    let header = Header::new(Version::D, *b"K0", b'A', b'D', b'N');
    let key = Secret::copied_from(&part(23));
    let padding = Padding::Random(&mut rng);
    let block = tr31::wrap(&AwsLc, Kbpk::Clear(&kbpk), &header, &key, padding, Leniency::NONE);
    let block = block.unwrap();
    let new =
        |block: &str| json!({ "name": "k", "kekId": kek["id"], "block": block, "scope": "shared" });
    let altered = block.replacen("K0AD00N", "K0AD00E", 1);
    for (bad, check) in [
        (altered.as_str(), "mac"),
        (&block[..block.len() - 2], "block-length"),
        ("", "block-length"),
        ("Z", "block-length"),
    ] {
        house.post(&house.ann, "/v1/keys/import", &new(bad)).await.assert_check(422, check);
    }
    let nowhere = json!({ "name": "k", "kekId": "kek_none", "block": block, "scope": "shared" });
    house.post(&house.ann, "/v1/keys/import", &nowhere).await.assert_check(404, "not-found");
    let imported = house.gated("/v1/keys/import", &new(&block)).await;
    assert_eq!(imported.status, StatusCode::CREATED, "{imported:?}");
    assert_eq!(imported.json()["kcv"], kcv(&part(23)));
}
