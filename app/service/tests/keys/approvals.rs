use std::time::Duration;

use countersign_service::{Actor, ApprovalPolicy, LIVE_APPROVALS_MAX, Policy};
use countersign_store::{ApprovalState, AuditOutcome, KeyScope, Role, Vote};

use crate::office::{HOUR, Office, check, done, new_key, pending};

#[tokio::test]
async fn nothing_is_done_before_another_has_agreed_and_then_once() {
    let office = Office::new().await;
    let (service, new) = (&office.service, new_key("tmk", KeyScope::PerTerminal));
    let asked = pending(service.generate_key(&office.ann, &new, None).await);
    assert_eq!(service.keys(None, 10).await.unwrap().items, []);
    let again = pending(service.generate_key(&office.ann, &new, None).await);
    assert_eq!(again.id, asked.id, "the same request is one request");
    let id = Some(asked.id.as_str());
    assert_eq!(check(service.generate_key(&office.ann, &new, id).await), "approval-pending");

    let own = service.vote(&office.ann, &asked.id, Vote::Approve).await;
    assert_eq!(check(own), "approval-own-request");
    let voted = service.vote(&office.bob, &asked.id, Vote::Approve).await.unwrap();
    assert_eq!((voted.approval.state, voted.votes.len()), (ApprovalState::Approved, 1));
    let late = service.vote(&office.cyd, &asked.id, Vote::Reject).await;
    assert_eq!(check(late), "approval-settled");

    let foreign = service.generate_key(&office.cyd, &new, id).await;
    assert_eq!(check(foreign), "approval-other-request", "only who asked may use it");
    let other = new_key("another", KeyScope::PerTerminal);
    let other = service.generate_key(&office.ann, &other, id).await;
    assert_eq!(check(other), "approval-other-request", "only for these parameters");
    let made = done(service.generate_key(&office.ann, &new, id).await);
    assert_eq!(made.key.name, "tmk");
    assert_eq!(check(service.generate_key(&office.ann, &new, id).await), "approval-used");
    assert_eq!(service.keys(None, 10).await.unwrap().items.len(), 1);

    let expected = [
        "approval.request",
        "key.generate approval-pending",
        "approval.vote approval-own-request",
        "approval.vote",
        "approval.vote approval-settled",
        "key.generate approval-other-request",
        "key.generate approval-other-request",
        "approval.use",
        "key.generate",
        "key.generate approval-used",
    ];
    assert_eq!(office.actions("approval.request").await, expected);
    let rows = office.audit().await;
    let used = rows.iter().find(|row| row.entry.action == "approval.use").unwrap();
    assert_eq!((&*used.entry.subject, &*used.entry.actor), (&*asked.id, office.ann.id()));
    let refused = rows.iter().filter(|row| row.entry.outcome == AuditOutcome::Refused);
    assert!(refused.into_iter().all(|row| row.entry.incident.is_some()));
}

#[tokio::test]
async fn objections_and_time_end_a_request() {
    let office = Office::new().await;
    let service = &office.service;
    let new = new_key("tmk", KeyScope::PerTerminal);
    let rejected = pending(service.generate_key(&office.ann, &new, None).await);
    service.vote(&office.cyd, &rejected.id, Vote::Reject).await.unwrap();
    let refused = service.generate_key(&office.ann, &new, Some(&rejected.id)).await;
    assert_eq!(check(refused), "approval-rejected");

    let open = pending(service.generate_key(&office.ann, &new, None).await);
    assert_ne!(open.id, rejected.id, "a request that was rejected is asked anew");
    let agreed = office.agreed(
        service.generate_key(&office.ann, &new_key("b", KeyScope::PerTerminal), None).await,
    );
    let agreed = agreed.await;
    office.advance(24 * HOUR);
    let shown = service.approval(&open.id).await.unwrap().approval.state;
    assert_eq!(shown, ApprovalState::Expired, "without a sweep");
    assert_eq!(check(service.vote(&office.bob, &open.id, Vote::Approve).await), "approval-expired");
    let late = service.generate_key(&office.ann, &new, Some(&open.id)).await;
    assert_eq!(check(late), "approval-expired");
    // The vote that came too late has marked the one; the sweep marks the other, once.
    assert_eq!(service.expire_approvals().await, Ok(1));
    assert_eq!(service.expire_approvals().await, Ok(0));
    assert_eq!(check(service.vote(&office.bob, &open.id, Vote::Approve).await), "approval-expired");
    let rows = office.audit().await;
    let expired: Vec<_> = rows
        .iter()
        .filter(|row| row.entry.action == "approval.expire")
        .map(|row| (&*row.entry.subject, &*row.entry.actor))
        .collect();
    assert_eq!(expired, [(&*open.id, "system"), (&*agreed, "system")]);
}

#[tokio::test]
async fn only_operators_ask_and_vote_each_once_and_as_many_as_are_needed() {
    let approvals = ApprovalPolicy { needed: 2, expires: Duration::from_secs(60) };
    let office = Office::with(Policy { approvals, ..Policy::default() }, false).await;
    let service = &office.service;
    let new = new_key("tmk", KeyScope::PerTerminal);
    let console = service.generate_key(&Actor::Console, &new, None).await;
    assert_eq!(check(console), "approval-operator-needed");
    let asked = pending(service.generate_key(&office.ann, &new, None).await);
    assert_eq!(asked.needed, 2);
    let console = service.vote(&Actor::Console, &asked.id, Vote::Approve).await;
    assert_eq!(check(console), "approval-operator-needed");
    let voted = service.vote(&office.bob, &asked.id, Vote::Approve).await.unwrap();
    assert_eq!(voted.approval.state, ApprovalState::Pending);
    let twice = service.vote(&office.bob, &asked.id, Vote::Approve).await;
    assert_eq!(check(twice), "approval-voted");
    let (auditor, _) =
        service.add_operator(&Actor::Console, "eve", &[Role::Auditor]).await.unwrap();
    let eve = Actor::Operator(auditor);
    assert_eq!(check(service.vote(&eve, &asked.id, Vote::Approve).await), "scope");
    assert_eq!(check(service.generate_key(&eve, &new, None).await), "scope");
    service.disable_operator(&Actor::Console, "cyd").await.unwrap();
    let disabled = service.vote(&office.cyd, &asked.id, Vote::Approve).await;
    assert_eq!(check(disabled), "operator-disabled");
    let (dan, _) = service.add_operator(&Actor::Console, "dan", &[Role::Approver]).await.unwrap();
    let voted = service.vote(&Actor::Operator(dan), &asked.id, Vote::Approve).await.unwrap();
    assert_eq!(voted.approval.state, ApprovalState::Approved);
    assert_eq!(check(service.approval("apr_none").await), "not-found");
    let none = service.vote(&office.bob, "apr_none", Vote::Approve).await;
    assert_eq!(check(none), "not-found");
}

#[tokio::test]
async fn what_can_be_refused_is_refused_before_anybody_is_asked_and_requests_are_bounded() {
    let office = Office::new().await;
    let service = &office.service;
    office.key(&new_key("tmk", KeyScope::PerTerminal)).await;
    let taken = service.generate_key(&office.ann, &new_key("tmk", KeyScope::Shared), None).await;
    assert_eq!(check(taken), "key-name-taken");
    for number in 0..LIVE_APPROVALS_MAX {
        let new = new_key(&format!("k{number}"), KeyScope::Shared);
        pending(service.generate_key(&office.ann, &new, None).await);
    }
    let more = new_key("one more", KeyScope::Shared);
    assert_eq!(check(service.generate_key(&office.ann, &more, None).await), "approvals-full");
    pending(service.generate_key(&office.bob, &more, None).await);
    let page = service.approvals(Some(ApprovalState::Used), None, 200).await.unwrap();
    assert_eq!(page.items.len(), 1);
    let all = service.approvals(None, None, 200).await.unwrap().items.len();
    assert_eq!(all, LIVE_APPROVALS_MAX as usize + 2);
}

#[tokio::test]
async fn an_operator_who_was_disabled_since_does_not_count() {
    let office = Office::new().await;
    let service = &office.service;
    let new = |name| new_key(name, KeyScope::PerTerminal);
    let (first, second) = (new("first"), new("second"));
    let one = office.agreed(service.generate_key(&office.ann, &first, None).await).await;
    let two = pending(service.generate_key(&office.ann, &second, None).await).id;
    service.vote(&office.cyd, &two, Vote::Approve).await.unwrap();
    // Bob's vote was not Bob's: his token was stolen.
    service.disable_operator(&Actor::Console, "bob").await.unwrap();
    let used = service.generate_key(&office.ann, &first, Some(&one)).await;
    assert_eq!(check(used), "approval-not-usable");
    done(service.generate_key(&office.ann, &second, Some(&two)).await);
    assert_eq!(service.keys(None, 10).await.unwrap().items.len(), 1);
    // And whoever asked: the request was under way when Ann was disabled.
    let third = new("third");
    let three = pending(service.generate_key(&office.ann, &third, None).await).id;
    service.vote(&office.cyd, &three, Vote::Approve).await.unwrap();
    service.disable_operator(&Actor::Console, "ann").await.unwrap();
    let used = service.generate_key(&office.ann, &third, Some(&three)).await;
    assert_eq!(check(used), "approval-not-usable");
    assert_eq!(service.keys(None, 10).await.unwrap().items.len(), 1);
}
