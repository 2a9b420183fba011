//! Who may do what: no token, bad tokens, and every role on every route.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use countersign_service::Actor;
use countersign_store::Role;
use serde_json::json;

use crate::contract::{CHECKOUT, ENROLMENTS, PHONE, PHONE_ENROLMENTS, ROUTES, operations};
use crate::world::{World, build};

/// What each role may, by the scope that the document names (interfaces.md, Operators).
const ALLOWED: [(Role, &[&str]); 5] = [
    (
        Role::Admin,
        &[
            "readers:read",
            "readers:enrol",
            "readers:block",
            "readers:report",
            "reads:read",
            "metrics:read",
            "sams:read",
            "sams:manage",
            "terminals:read",
            "terminals:manage",
            "keys:read",
            "keys:manage",
            "components:enter",
            "approvals:read",
            "approvals:vote",
            "payments:read",
            "payments:create",
            "payments:manage",
            "accounts:read",
            "accounts:manage",
            "security-devices:read",
            "security-devices:manage",
            "webhooks:read",
            "webhooks:manage",
            "wallets:read",
            "wallets:manage",
        ],
    ),
    (
        Role::Custodian,
        &[
            "readers:read",
            "readers:enrol",
            "readers:block",
            "readers:report",
            "reads:read",
            "sams:read",
            "sams:manage",
            "terminals:read",
            "terminals:manage",
            "keys:read",
            "keys:manage",
            "components:enter",
            "approvals:read",
            "approvals:vote",
            "payments:read",
            "accounts:read",
            "accounts:manage",
            "security-devices:read",
            "security-devices:manage",
            "webhooks:read",
            "webhooks:manage",
            "wallets:read",
            "wallets:manage",
        ],
    ),
    (
        Role::Approver,
        &[
            "readers:read",
            "terminals:read",
            "keys:read",
            "approvals:read",
            "approvals:vote",
            "payments:read",
            "accounts:read",
            "security-devices:read",
        ],
    ),
    (
        Role::Auditor,
        &[
            "readers:read",
            "reads:read",
            "metrics:read",
            "sams:read",
            "terminals:read",
            "keys:read",
            "approvals:read",
            "payments:read",
            "accounts:read",
            "security-devices:read",
            "webhooks:read",
            "wallets:read",
        ],
    ),
    (
        Role::Integrator,
        &[
            "readers:read",
            "readers:enrol",
            "readers:report",
            "reads:read",
            "metrics:read",
            "sams:read",
            "terminals:read",
            "keys:read",
            "approvals:read",
            "payments:read",
            "payments:create",
            "webhooks:read",
            "webhooks:manage",
        ],
    ),
];

#[tokio::test]
async fn each_role_may_what_it_may_on_every_route() {
    let world = World::new().await;
    let mut secured = 0;
    for (role, allowed) in ALLOWED {
        let token = world.token(&format!("op-{role}"), &[role]).await;
        for operation in operations(&world).await {
            let path = operation.path.replace("{id}", "unknown").replace("{decisionId}", "unknown");
            let request = build(operation.method, &path, &token, Body::empty());
            let answer = world.send(request).await;
            let Some(scope) = operation.scope else {
                let coded = [ENROLMENTS, PHONE_ENROLMENTS].contains(&&*path);
                let wanted = if coded { 400 } else { 200 };
                assert_eq!(answer.status.as_u16(), wanted, "{path} needs no token");
                continue;
            };
            secured += 1;
            if [PHONE, CHECKOUT].contains(&&*scope) {
                answer.assert_check(401, "token");
                continue;
            }
            if allowed.contains(&scope.as_str()) {
                assert_ne!(answer.status, StatusCode::FORBIDDEN, "{role} {path} {answer:?}");
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{role} {path}");
            } else {
                let detail = format!("this needs the scope {scope}");
                let title = "The token does not allow this";
                answer.assert_problem(403, "scope", title, &detail);
            }
        }
    }
    let scoped = ROUTES.iter().filter(|(_, _, scope)| scope.is_some()).count();
    assert_eq!(secured, ALLOWED.len() * scoped);
}

#[tokio::test]
async fn roles_add_up() {
    let world = World::new().await;
    let token = world.token("both", &[Role::Approver, Role::Auditor]).await;
    assert_eq!(world.get_with(&token, "/metrics").await.status, StatusCode::OK);
    let enrol = build(Method::POST, "/v1/readers", &token, Body::from("{}"));
    world.send(enrol).await.assert_check(403, "scope");
}

#[tokio::test]
async fn without_a_live_token_all_answers_are_the_same() {
    let world = World::new().await;
    let (_, revoked) =
        world.service.add_operator(&Actor::Console, "gone", &[Role::Admin]).await.unwrap();
    let alive = world.get_with(&revoked.secret, "/v1/readers").await;
    assert_eq!(alive.status, StatusCode::OK);
    world.service.revoke_token(&Actor::Console, &revoked.id).await.unwrap();
    let disabled = world.token("disabled", &[Role::Admin]).await;
    world.service.disable_operator(&Actor::Console, "disabled").await.unwrap();

    let headers: Vec<Vec<String>> = vec![
        vec![],
        vec![String::new()],
        vec!["Bearer".into()],
        vec!["Bearer ".into()],
        vec!["Bearer cst_unknown".into()],
        vec![format!("Bearer {}", "x".repeat(5000))],
        vec![format!("Basic {}", world.admin)],
        vec![world.admin.clone()],
        vec![format!("Bearer  {}", world.admin)],
        vec![format!("Bearer {}", world.admin.to_uppercase())],
        vec![format!("Bearer {}", world.admin), "Bearer x".into()],
        vec![format!("Bearer {}", *revoked.secret)],
        vec![format!("Bearer {disabled}")],
    ];
    for values in headers {
        let mut request = Request::builder().uri("/v1/readers");
        for value in &values {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        answer.assert_problem(401, "token", "A token is needed", "a valid token is needed");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.headers.len(), 6, "{:?}", answer.headers);
    }
    let lower = Request::builder()
        .uri("/v1/readers")
        .header(header::AUTHORIZATION, format!("bearer {}", world.admin))
        .body(Body::empty())
        .unwrap();
    assert_eq!(world.send(lower).await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_is_looked_at_before_the_token() {
    let world = World::new().await;
    for (method, path) in [
        (Method::POST, "/v1/readers"),
        (Method::GET, "/v1/readers?limit=bad"),
        (Method::GET, "/v1/readers/%ff"),
        (Method::POST, "/v1/readers/x/unblock"),
        (Method::POST, "/v1/payments/%ff/authorisations"),
        (Method::GET, "/v1/phone/payments/%ff/devices"),
        (Method::POST, "/v1/checkout/%ff/answers"),
    ] {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Body::from("x".repeat(100_000))).unwrap();
        world.send(request).await.assert_check(401, "token");
    }
    let unknown = json!({ "token": world.admin });
    let answer = world.post("/v1/readers", &unknown).await;
    answer.assert_check(400, "body");
    assert!(!answer.text.contains(&world.admin));
}
