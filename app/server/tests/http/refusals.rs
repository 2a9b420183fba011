//! Refusals that must be found in the audit, and noise that must not be.

use axum::http::StatusCode;
use countersign_pki::Role as PkiRole;
use countersign_store::{AuditEntry, AuditOutcome, Role};
use serde_json::json;

use crate::world::{World, csr, key, pem_of};

/// The audit's refusals, oldest first.
async fn refusals(world: &World) -> Vec<AuditEntry> {
    let page = world.service.audit_page(None, 200).await.unwrap();
    let entries = page.items.into_iter().rev().map(|row| row.entry);
    entries.filter(|entry| entry.outcome == AuditOutcome::Refused).collect()
}

/// Action, subject and check of each.
fn told(entries: &[AuditEntry]) -> Vec<(&str, &str, &str)> {
    entries
        .iter()
        .map(|entry| {
            (entry.action.as_str(), entry.subject.as_str(), entry.check.as_deref().unwrap_or(""))
        })
        .collect()
}

#[tokio::test]
async fn a_token_without_the_scope_is_audited_and_an_unknown_one_is_not() {
    let world = World::new().await;
    let approver = world.token("approver", &[Role::Approver]).await;
    world.get_with(&approver, "/v1/reads").await.assert_check(403, "scope");
    world.get_with(&approver.replace("cst_", "cst-"), "/v1/reads").await.assert_check(401, "token");
    world.get_with("", "/v1/reads").await.assert_check(401, "token");
    assert_eq!(world.get_with(&approver, "/v1/readers").await.status, StatusCode::OK);
    let entries = refusals(&world).await;
    assert_eq!(told(&entries), [("api.refuse", "reads:read", "scope")]);
    assert!(entries[0].actor.starts_with("op"), "{}", entries[0].actor);
    assert!(entries[0].incident.is_some());
}

#[tokio::test]
async fn refused_enrolments_are_audited() {
    let world = World::new().await;
    let id = world.reader("RD-1", 1).await;
    assert!(refusals(&world).await.is_empty());
    let enrol = async |request: &[u8]| {
        world.post("/v1/readers", &json!({ "request": pem_of(request) })).await
    };
    let other = csr(PkiRole::Reader, "RD-1", &*key(2));
    enrol(&other).await.assert_check(409, "serial-taken");
    enrol(&csr(PkiRole::Server, "srv-2", &*key(3))).await.assert_check(422, "request-role");
    let reason = json!({ "reason": "lost" });
    world.post(&format!("/v1/readers/{id}/block"), &reason).await;
    enrol(&other).await.assert_check(409, "reader-blocked");
    enrol(b"no request").await.assert_check(422, "certificate-malformed");
    let entries = refusals(&world).await;
    let expected = [
        ("reader.enrol", "RD-1", "serial-taken"),
        ("reader.enrol", "srv-2", "request-role"),
        ("reader.enrol", "RD-1", "reader-blocked"),
        ("reader.enrol", "request", "certificate-malformed"),
    ];
    assert_eq!(told(&entries), expected);
}

#[tokio::test]
async fn what_cannot_be_a_token_never_reaches_the_store() {
    let world = World::new().await;
    let asked = || world.service.store().stats().get("authorise").map_or(0, |it| it.attempts);
    let longer = format!("{}A", world.admin);
    let shorter = &world.admin[..world.admin.len() - 1];
    let unprefixed = world.admin.replace("cst_", "abcd");
    for text in [&longer, shorter, &unprefixed, "", "cst_", &"x".repeat(4000)] {
        world.get_with(text, "/v1/readers").await.assert_check(401, "token");
    }
    assert_eq!(asked(), 0);
    let unknown = format!("cst_{}", "A".repeat(world.admin.len() - 4));
    world.get_with(&unknown, "/v1/readers").await.assert_check(401, "token");
    assert_eq!(asked(), 1);
    assert_eq!(world.get("/v1/readers").await.status, StatusCode::OK);
}
