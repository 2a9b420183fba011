//! The served OpenAPI document against the routes, in both directions.

use axum::body::Body;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{World, build};

/// An operation of the document.
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) scope: Option<String>,
    responses: Vec<String>,
}

/// The routes that let in by a one-time code.
pub(crate) const ENROLMENTS: &str = "/v1/terminals/enrolments";
pub(crate) const PHONE_ENROLMENTS: &str = "/v1/phone/enrolments";
/// In the place of a scope: the route lets in payers' phones, and no operator.
pub(crate) const PHONE: &str = "phone";
/// In the place of a scope: the route lets in a payment's checkout page, and no one else.
pub(crate) const CHECKOUT: &str = "checkout";

/// What the document must list: a route that is added or lost shows here.
pub(crate) const ROUTES: &[(&str, &str, Option<&str>)] = &[
    ("GET", "/metrics", Some("metrics:read")),
    ("GET", "/v1/enrolment", Some("readers:enrol")),
    ("GET", "/v1/health", None),
    ("GET", "/v1/openapi.json", None),
    ("GET", "/v1/readers", Some("readers:read")),
    ("POST", "/v1/readers", Some("readers:enrol")),
    ("GET", "/v1/readers/{id}", Some("readers:read")),
    ("POST", "/v1/readers/{id}/block", Some("readers:block")),
    ("GET", "/v1/readers/{id}/decisions", Some("readers:read")),
    ("POST", "/v1/readers/{id}/decisions/{decisionId}/reverse", Some("readers:block")),
    ("GET", "/v1/readers/{id}/events", Some("readers:read")),
    ("PUT", "/v1/readers/{id}/factory", Some("readers:report")),
    ("GET", "/v1/readers/{id}/record", Some("readers:read")),
    ("GET", "/v1/readers/{id}/reports", Some("readers:read")),
    ("POST", "/v1/readers/{id}/reports", Some("readers:report")),
    ("POST", "/v1/readers/{id}/revoke", Some("readers:block")),
    ("GET", "/v1/readers/{id}/transactions", Some("readers:read")),
    ("POST", "/v1/readers/{id}/transactions", Some("readers:report")),
    ("POST", "/v1/readers/{id}/unblock", Some("readers:block")),
    ("GET", "/v1/approvals", Some("approvals:read")),
    ("GET", "/v1/approvals/{id}", Some("approvals:read")),
    ("POST", "/v1/approvals/{id}/votes", Some("approvals:vote")),
    ("GET", "/v1/keks", Some("keys:read")),
    ("POST", "/v1/keks", Some("keys:manage")),
    ("GET", "/v1/keks/{id}", Some("keys:read")),
    ("POST", "/v1/keks/{id}/components", Some("components:enter")),
    ("POST", "/v1/keks/{id}/retire", Some("keys:manage")),
    ("GET", "/v1/keys", Some("keys:read")),
    ("POST", "/v1/keys", Some("keys:manage")),
    ("POST", "/v1/keys/import", Some("keys:manage")),
    ("GET", "/v1/keys/{id}", Some("keys:read")),
    ("POST", "/v1/keys/{id}/export", Some("keys:manage")),
    ("POST", "/v1/keys/{id}/retire", Some("keys:manage")),
    ("GET", "/v1/rki", Some("terminals:read")),
    ("POST", "/v1/rki/roll", Some("keys:manage")),
    ("POST", "/v1/rki/authorities/{id}/revoke", Some("keys:manage")),
    ("GET", "/v1/rki/authorities/{id}/crl", Some("terminals:read")),
    ("GET", "/v1/rebinds", Some("terminals:read")),
    ("POST", "/v1/rebinds", Some("keys:manage")),
    ("GET", "/v1/rebinds/{id}", Some("terminals:read")),
    ("GET", "/v1/rebinds/{id}/terminals", Some("terminals:read")),
    ("POST", "/v1/rebinds/{id}/cancel", Some("keys:manage")),
    ("GET", "/v1/terminals", Some("terminals:read")),
    ("POST", "/v1/terminals", Some("terminals:manage")),
    ("GET", "/v1/terminals/terms", None),
    ("POST", ENROLMENTS, None),
    ("GET", "/v1/terminals/{id}", Some("terminals:read")),
    ("POST", "/v1/terminals/{id}/block", Some("terminals:manage")),
    ("POST", "/v1/terminals/{id}/code", Some("terminals:manage")),
    ("POST", "/v1/terminals/{id}/revoke", Some("terminals:manage")),
    ("POST", "/v1/terminals/{id}/unbind", Some("terminals:manage")),
    ("POST", "/v1/terminals/{id}/unblock", Some("terminals:manage")),
    ("GET", "/v1/terminals/{id}/keys", Some("terminals:read")),
    ("GET", "/v1/injections", Some("terminals:read")),
    ("POST", "/v1/injections", Some("keys:manage")),
    ("GET", "/v1/injections/{id}", Some("terminals:read")),
    ("POST", "/v1/injections/{id}/cancel", Some("keys:manage")),
    ("GET", "/v1/runs", Some("terminals:read")),
    ("POST", "/v1/runs", Some("keys:manage")),
    ("GET", "/v1/runs/{id}", Some("terminals:read")),
    ("POST", "/v1/runs/{id}/close", Some("keys:manage")),
    ("GET", "/v1/accounts", Some("accounts:read")),
    ("POST", "/v1/accounts", Some("accounts:manage")),
    ("GET", "/v1/accounts/{id}", Some("accounts:read")),
    ("GET", "/v1/accounts/{id}/entries", Some("accounts:read")),
    ("POST", "/v1/accounts/{id}/freeze", Some("accounts:manage")),
    ("POST", "/v1/accounts/{id}/unfreeze", Some("accounts:manage")),
    ("POST", "/v1/accounts/{id}/overdraft", Some("accounts:manage")),
    ("POST", "/v1/accounts/{id}/close", Some("accounts:manage")),
    ("POST", "/v1/postings", Some("accounts:manage")),
    ("GET", "/v1/ledger", Some("accounts:read")),
    ("GET", "/v1/payments", Some("payments:read")),
    ("POST", "/v1/payments", Some("payments:create")),
    ("GET", "/v1/payments/{id}", Some("payments:read")),
    ("POST", "/v1/payments/{id}/cancel", Some("payments:create")),
    ("GET", "/v1/payments/{id}/timeline", Some("payments:read")),
    ("GET", "/v1/payments/{id}/events", Some("payments:read")),
    ("GET", "/v1/payments/{id}/receipt", Some("payments:read")),
    ("GET", "/v1/payments/{id}/evidence", Some("payments:read")),
    ("GET", "/v1/payments/{id}/authorisations", Some("payments:read")),
    ("POST", "/v1/payments/{id}/authorisations", Some(PHONE)),
    ("GET", "/v1/payments/{id}/joint", Some("payments:create")),
    ("POST", "/v1/payments/{id}/joint", Some("payments:create")),
    ("GET", "/v1/payments/{id}/checkout", Some("payments:create")),
    ("GET", "/v1/checkout/{id}", Some(CHECKOUT)),
    ("GET", "/v1/checkout/{id}/events", Some(CHECKOUT)),
    ("POST", "/v1/checkout/{id}/answers", Some(CHECKOUT)),
    ("POST", "/v1/payments/{id}/refunds", Some("payments:manage")),
    ("POST", "/v1/payments/{id}/reversal", Some("payments:manage")),
    ("GET", "/v1/devices", Some("security-devices:read")),
    ("POST", "/v1/devices", Some("security-devices:manage")),
    ("GET", "/v1/devices/terms", Some("security-devices:manage")),
    ("POST", "/v1/devices/ocra", Some("security-devices:manage")),
    ("POST", "/v1/devices/joint", Some("security-devices:manage")),
    ("GET", "/v1/devices/{id}", Some("security-devices:read")),
    ("POST", "/v1/devices/{id}/bind", Some("security-devices:manage")),
    ("POST", "/v1/devices/{id}/unbind", Some("security-devices:manage")),
    ("POST", "/v1/devices/{id}/block", Some("security-devices:manage")),
    ("POST", "/v1/devices/{id}/unblock", Some("security-devices:manage")),
    ("POST", "/v1/devices/{id}/revoke", Some("security-devices:manage")),
    ("GET", "/v1/phones", Some("security-devices:read")),
    ("POST", "/v1/phones", Some("security-devices:manage")),
    ("GET", "/v1/phones/{id}", Some("security-devices:read")),
    ("POST", "/v1/phones/{id}/code", Some("security-devices:manage")),
    ("POST", "/v1/phones/{id}/bind", Some("security-devices:manage")),
    ("POST", "/v1/phones/{id}/unbind", Some("security-devices:manage")),
    ("POST", "/v1/phones/{id}/revoke", Some("security-devices:manage")),
    ("POST", PHONE_ENROLMENTS, None),
    ("GET", "/v1/phone", Some(PHONE)),
    ("GET", "/v1/phone/events", Some(PHONE)),
    ("GET", "/v1/phone/payments", Some(PHONE)),
    ("GET", "/v1/phone/payments/{id}", Some(PHONE)),
    ("GET", "/v1/phone/payments/{id}/devices", Some(PHONE)),
    ("GET", "/v1/sleeves", Some("wallets:read")),
    ("POST", "/v1/sleeves", Some("wallets:manage")),
    ("GET", "/v1/sleeves/alarms", Some("wallets:read")),
    ("GET", "/v1/sleeves/{id}", Some("wallets:read")),
    ("POST", "/v1/sleeves/{id}/block", Some("wallets:manage")),
    ("POST", "/v1/sleeves/{id}/unblock", Some("wallets:manage")),
    ("POST", "/v1/sleeves/{id}/revoke", Some("wallets:manage")),
    ("GET", "/v1/managers", Some("wallets:read")),
    ("POST", "/v1/managers", Some("wallets:manage")),
    ("GET", "/v1/managers/{id}", Some("wallets:read")),
    ("POST", "/v1/managers/{id}/block", Some("wallets:manage")),
    ("POST", "/v1/managers/{id}/unblock", Some("wallets:manage")),
    ("POST", "/v1/managers/{id}/revoke", Some("wallets:manage")),
    ("GET", "/v1/webhooks", Some("webhooks:read")),
    ("POST", "/v1/webhooks", Some("webhooks:manage")),
    ("GET", "/v1/webhooks/{id}", Some("webhooks:read")),
    ("GET", "/v1/webhooks/{id}/deliveries", Some("webhooks:read")),
    ("POST", "/v1/webhooks/{id}/disable", Some("webhooks:manage")),
    ("POST", "/v1/webhooks/{id}/enable", Some("webhooks:manage")),
    ("POST", "/v1/webhooks/{id}/remove", Some("webhooks:manage")),
    ("POST", "/v1/webhook-deliveries/{id}/resend", Some("webhooks:manage")),
    ("GET", "/v1/reads", Some("reads:read")),
    ("GET", "/v1/reads/{id}", Some("reads:read")),
    ("GET", "/v1/sams", Some("sams:read")),
    ("POST", "/v1/sams/{samId}/drain", Some("sams:manage")),
    ("POST", "/v1/sams/{samId}/resume", Some("sams:manage")),
    ("GET", "/v1/sam-hosts", Some("sams:read")),
    ("POST", "/v1/sam-hosts", Some("sams:manage")),
    ("POST", "/v1/sam-hosts/{id}/block", Some("sams:manage")),
    ("POST", "/v1/sam-hosts/{id}/unblock", Some("sams:manage")),
    ("POST", "/v1/sam-hosts/{id}/revoke", Some("sams:manage")),
];

async fn document(world: &World) -> Value {
    let answer = world.get("/v1/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

/// All operations, by path and method.
pub(crate) async fn operations(world: &World) -> Vec<Operation> {
    let document = document(world).await;
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = &operation["security"][0];
            let other = [PHONE, CHECKOUT].into_iter().find(|name| security[name].is_array());
            let scope = security["token"][0].as_str().or(other);
            let responses = operation["responses"].as_object().unwrap();
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                scope: scope.map(str::to_owned),
                responses: responses.keys().cloned().collect(),
            });
        }
    }
    all
}

#[tokio::test]
async fn the_document_lists_exactly_the_routes() {
    let world = World::new().await;
    let mut listed: Vec<_> = operations(&world)
        .await
        .into_iter()
        .map(|op| (op.method.to_string(), op.path, op.scope))
        .collect();
    let mut expected: Vec<_> = ROUTES
        .iter()
        .map(|(method, path, scope)| {
            ((*method).to_owned(), (*path).to_owned(), scope.map(str::to_owned))
        })
        .collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn every_documented_route_answers_with_a_documented_status() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    for operation in operations(&world).await {
        let name = format!("{} {}", operation.method, operation.path);
        let path = operation.path.replace("{id}", &id).replace("{decisionId}", "dec_none");
        let request = build(operation.method, &path, &world.admin, Body::empty());
        let answer = world.send(request).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{name}");
        let missing = answer.status == StatusCode::NOT_FOUND
            && ![
                "/v1/reads/",
                "/v1/sam",
                "/v1/approvals/",
                "/v1/ke",
                "/v1/terminals/",
                "/v1/rki/",
                "/v1/rebinds/",
                "/v1/injections/",
                "/v1/runs/",
                "/v1/payments/",
                "/v1/accounts/",
                "/v1/devices/",
                "/v1/phones/",
                "/v1/webhook",
                "/v1/sleeves/",
                "/v1/managers/",
            ]
            .iter()
            .any(|absent| path.starts_with(absent));
        assert!(!missing, "{name}: {answer:?}");
        let problem = answer.header("content-type") == "application/problem+json";
        let status = answer.status.as_str().to_owned();
        assert!(problem || operation.responses.contains(&status), "{name}: {answer:?}");
        assert!(operation.responses.contains(&"default".to_owned()), "{name}");
        for refusal in ["401", "403"] {
            let documented = operation.responses.contains(&refusal.to_owned());
            let coded = [ENROLMENTS, PHONE_ENROLMENTS].contains(&&*operation.path);
            let expected = match operation.scope.as_deref() {
                None => coded && refusal == "403",
                Some(PHONE | CHECKOUT) => refusal == "401",
                Some(_) => true,
            };
            assert_eq!(documented, expected, "{name} {refusal}");
        }
    }
}

#[tokio::test]
async fn a_method_that_is_not_documented_is_refused_and_allow_lists_the_others() {
    let world = World::new().await;
    let all = operations(&world).await;
    for path in all.iter().map(|operation| &operation.path) {
        let mut allowed: Vec<_> = all
            .iter()
            .filter(|operation| operation.path == *path)
            .map(|operation| operation.method.to_string())
            .collect();
        if allowed.contains(&"GET".to_owned()) {
            allowed.push("HEAD".to_owned());
        }
        allowed.sort();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if allowed.iter().any(|allowed| allowed == method) {
                continue;
            }
            let request = build(method.parse().unwrap(), path, &world.admin, Body::empty());
            let answer = world.send(request).await;
            answer.assert_problem(
                405,
                "method",
                "Wrong method",
                "this path has other methods: see the Allow header",
            );
            let mut allow: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
            allow.sort_unstable();
            assert_eq!(allow, allowed, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn the_document_is_sound() {
    let world = World::new().await;
    let document = document(&world).await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{}", document["openapi"]);
    let scheme = &document["components"]["securitySchemes"]["token"];
    assert_eq!(*scheme, json!({ "type": "http", "scheme": "bearer" }));
    assert_eq!(document["components"]["securitySchemes"]["phone"], *scheme);
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut names = Vec::new();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            names.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "operation ids are unique: {names:?}");
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Every member of a real answer is in its schema, and every required one in the answer.
#[tokio::test]
async fn answers_match_their_schemas() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    let document = document(&world).await;
    let schema = |name: &str| document["components"]["schemas"][name].clone();
    let missing = world.get("/v1/readers/unknown").await.json();
    let cases = [
        ("Reader", world.get(&format!("/v1/readers/{id}")).await.json()),
        ("Health", world.get("/v1/health").await.json()),
        ("Record", world.get(&format!("/v1/readers/{id}/record")).await.json()),
        ("Problem", missing),
    ];
    for (name, answer) in cases {
        let schema = schema(name);
        let mut members: Vec<_> = answer.as_object().unwrap().keys().cloned().collect();
        let mut properties: Vec<_> =
            schema["properties"].as_object().unwrap_or_else(|| panic!("{name}")).keys().collect();
        members.sort();
        properties.sort();
        assert_eq!(members.iter().collect::<Vec<_>>(), properties, "{name}");
        let mut required: Vec<_> =
            schema["required"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
        required.sort_unstable();
        assert_eq!(required, members, "{name}: every member is always there");
    }
}
