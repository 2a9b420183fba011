//! How long a decision holds, and what lifts it.

use countersign_idcard::message::AbortReason;
use countersign_service::{Actor, Policy, RiskRules, Rule, RuleAction};
use countersign_store::{DeviceKind, Role, Store};

use crate::desk::{Desk, HOUR, MINUTE, SECOND, refused, rule};

async fn errors(desk: &Desk, reader: &countersign_service::KnownDevice, reads: &[u8]) {
    for read in reads {
        desk.advance(SECOND / 1000); // ids sort by time
        desk.err(reader, *read, AbortReason::CardRemoved).await.unwrap();
    }
}

#[tokio::test]
async fn a_window_slides_and_its_edge_is_out() {
    let milli = SECOND / 1000;
    for (later, decided) in [(10 * MINUTE - milli, 1), (10 * MINUTE, 0)] {
        let desk = Desk::new(vec![rule()]).await;
        let reader = desk.reader("RD-1").await;
        errors(&desk, &reader, &[1]).await;
        desk.advance(later - milli * 2);
        errors(&desk, &reader, &[2]).await;
        errors(&desk, &reader, &[3]).await;
        assert_eq!(desk.decisions(&reader).await.len(), decided, "{later:?} after the first");
    }
}

#[tokio::test]
async fn a_reversal_lifts_at_once_on_all_servers_and_counts_anew() {
    let store = Store::in_memory().await.unwrap();
    let rules = || RiskRules::new(vec![rule()]).unwrap();
    let policy = || Policy { risk: rules(), ..Policy::default() };
    let desk = Desk::on(store.clone(), policy()).await;
    let second = Desk::on(store, policy()).await;
    let reader = desk.reader("RD-1").await;
    let mut open = second.connect(&reader, "192.0.2.1");
    errors(&desk, &reader, &[1, 2, 3]).await;
    assert_eq!(open.begin(4).await, refused("reader-blocked", false), "on the other server too");
    let decision = desk.decisions(&reader).await.remove(0);
    desk.reverse(&decision).await;
    assert_eq!(open.begin(4).await, Ok(()), "the open connection reads on");
    assert!(second.look_up("RD-1").await.is_some());
    assert_eq!(desk.audited("risk.reverse").await, 1);
    errors(&desk, &reader, &[5, 6]).await;
    assert_eq!(desk.decisions(&reader).await.len(), 1, "what was before counts no more");
    errors(&desk, &reader, &[7]).await;
    let decisions = desk.decisions(&reader).await;
    assert_eq!((decisions.len(), desk.look_up("RD-1").await), (2, None), "and again");
    let again = desk.service.reverse_decision(&Actor::Console, &reader.id, &decision.id, "x").await;
    assert_eq!(again.unwrap_err().check(), "decision-ended");
}

#[tokio::test]
async fn a_decision_with_a_time_ends_by_itself() {
    let desk = Desk::new(vec![Rule { lasts: Some(HOUR), ..rule() }]).await;
    let reader = desk.reader("RD-1").await;
    errors(&desk, &reader, &[1, 2, 3]).await;
    assert_eq!(desk.look_up("RD-1").await, None);
    desk.advance(HOUR - SECOND);
    assert_eq!(desk.look_up("RD-1").await, None);
    desk.advance(SECOND);
    assert!(desk.look_up("RD-1").await.is_some());
    // Nobody noted the end, and the rule may decide again all the same.
    errors(&desk, &reader, &[4, 5]).await;
    assert_eq!(desk.decisions(&reader).await.len(), 1);
    errors(&desk, &reader, &[6]).await;
    let decisions = desk.decisions(&reader).await;
    assert_eq!(decisions.len(), 2);
    assert_eq!(decisions[1].end.as_ref().unwrap().by, "system");
}

#[tokio::test]
async fn an_operators_block_and_a_rules_are_lifted_apart() {
    let desk = Desk::new(vec![rule()]).await;
    let (reader, console) = (desk.reader("RD-1").await, Actor::Console);
    let service = &desk.service;
    errors(&desk, &reader, &[1, 2, 3]).await;
    service.block_device(DeviceKind::Reader, &console, &reader.id, "stolen").await.unwrap();
    desk.reverse(&desk.decisions(&reader).await[0]).await;
    let record = service.device(DeviceKind::Reader, &reader.id).await.unwrap();
    assert_eq!(record.blocked(desk.now()), Some("stolen"), "the operator's stays");
    service.unblock_device(DeviceKind::Reader, &console, &reader.id).await.unwrap();
    errors(&desk, &reader, &[4, 5, 6]).await;
    let still = service.unblock_device(DeviceKind::Reader, &console, &reader.id).await.unwrap();
    let reason = "rule test: 3 errors within 10m";
    assert_eq!(still.blocked(desk.now()), Some(reason), "the rule's stays");
    assert_eq!(desk.look_up("RD-1").await, None);
    desk.reverse(&desk.decisions(&reader).await[0]).await;
    assert!(desk.look_up("RD-1").await.is_some());
}

#[tokio::test]
async fn several_rules_decide_each_for_itself() {
    let warn = Rule { name: "early".into(), at_least: 2, action: RuleAction::Warn, ..rule() };
    let desk = Desk::new(vec![warn, rule()]).await;
    let reader = desk.reader("RD-1").await;
    errors(&desk, &reader, &[1, 2]).await;
    assert_eq!(desk.decisions(&reader).await.len(), 1);
    assert!(desk.look_up("RD-1").await.is_some(), "warned only");
    errors(&desk, &reader, &[3]).await;
    let rules: Vec<_> = desk.decisions(&reader).await.into_iter().map(|d| d.rule).collect();
    assert_eq!(rules, ["test", "early"], "the newest first");
    let block = desk.decisions(&reader).await.remove(0);
    desk.reverse(&block).await;
    let standing = desk.service.reader_record(&reader.id).await.unwrap().standing;
    assert_eq!(standing.iter().map(|d| &*d.rule).collect::<Vec<_>>(), ["early"]);
}

#[tokio::test]
async fn only_who_may_block_may_reverse() {
    let desk = Desk::new(vec![rule()]).await;
    let reader = desk.reader("RD-1").await;
    errors(&desk, &reader, &[1, 2, 3]).await;
    let decision = desk.decisions(&reader).await.remove(0);
    for (role, may) in [
        (Role::Integrator, false),
        (Role::Auditor, false),
        (Role::Approver, false),
        (Role::Custodian, true),
    ] {
        let (operator, _) =
            desk.service.add_operator(&Actor::Console, role.name(), &[role]).await.unwrap();
        let actor = Actor::Operator(operator);
        let reversed = desk.service.reverse_decision(&actor, &reader.id, &decision.id, "ok").await;
        assert_eq!(reversed.is_ok(), may, "{role}");
        assert_eq!(desk.look_up("RD-1").await.is_some(), may);
    }
}
