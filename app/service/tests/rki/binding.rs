//! Binding, rebinding and unbinding, and certificates that must not be bound.

use countersign_service::{Actor, Gated, Rebind};
use countersign_store::{AuthorityRole, DeviceKind, RebindState, TerminalState};
use tr34::Crl;
use tr34::aws_lc::AwsLc;

use crate::desk::{Desk, START, check};

const TERMINAL: DeviceKind = DeviceKind::Terminal;

async fn state(desk: &Desk, id: &str) -> TerminalState {
    desk.service.terminal(id).await.unwrap().state
}

#[tokio::test]
async fn a_terminal_is_bound_on_its_own_live_certificate_only() {
    let desk = Desk::new().await;
    let (one, own) = desk.enrolled("POS-1").await;
    let (two, other) = desk.enrolled("POS-2").await;
    let hierarchy = desk.service.hierarchy().await.unwrap();
    let service = &desk.service;
    assert_eq!(check(service.bind_terminal(&one, &other).await), "krd-not-own");
    let kdh = hierarchy.kdh.raw().to_vec();
    assert_eq!(check(service.bind_terminal(&one, &kdh).await), "krd-not-own", "a KDH's");
    let mut altered = own.clone();
    let last = altered.len() - 1;
    altered[last] ^= 1;
    assert!(service.bind_terminal(&one, &altered).await.is_err());
    assert_eq!(state(&desk, &one).await, TerminalState::Enrolled, "nothing changed");

    let bound = service.bind_terminal(&one, &own).await.unwrap();
    assert_eq!(bound.kdh_id, hierarchy.kdh_id);
    let crl = Crl::parse(&bound.crl).unwrap();
    crl.verify(&AwsLc, &bound.ca_kdh, START, None).unwrap();
    assert_eq!(state(&desk, &one).await, TerminalState::Bound);
    assert_eq!(service.terminal(&one).await.unwrap().bound_kdh, Some(bound.kdh_id));

    service.revoke_device(TERMINAL, &Actor::Console, &two, "lost").await.unwrap();
    assert_eq!(check(service.bind_terminal(&two, &other).await), "krd-revoked");
    service.block_device(TERMINAL, &Actor::Console, &one, "stolen").await.unwrap();
    assert_eq!(check(service.bind_terminal(&one, &own).await), "device-blocked");
    assert_eq!(state(&desk, &one).await, TerminalState::Blocked);
    assert_eq!(check(service.bind_terminal("trm_none", &own).await), "not-found");
}

#[tokio::test]
async fn an_expired_certificate_is_not_bound() {
    let desk = Desk::new().await;
    let (id, own) = desk.enrolled("POS-1").await;
    desk.advance(std::time::Duration::from_secs(6 * 366 * 86_400));
    let error = desk.service.bind_terminal(&id, &own).await.err().unwrap();
    assert_eq!(error.check(), "certificate-expired", "{error}");
}

async fn rolled(desk: &Desk) {
    let (service, role) = (&desk.service, AuthorityRole::Kdh);
    let id = desk.agreed(service.roll_authority(&desk.asker, role, None, None).await).await;
    service.roll_authority(&desk.asker, role, None, Some(&id)).await.unwrap();
}

#[tokio::test]
async fn a_campaign_takes_every_terminal_to_the_new_kdh() {
    let desk = Desk::new().await;
    let service = &desk.service;
    let (one, own) = desk.enrolled("POS-1").await;
    let (two, _) = desk.enrolled("POS-2").await;
    let old = service.bind_terminal(&one, &own).await.unwrap().kdh_id;
    assert_eq!(service.rebind_due(&one).await.unwrap(), None);
    rolled(&desk).await;
    let new = service.hierarchy().await.unwrap().kdh_id.clone();
    assert_eq!(service.rebind_due(&one).await.unwrap(), None, "nobody has asked for it");
    let id = desk.agreed(service.begin_rebind(&desk.asker, None).await).await;
    let begun = service.begin_rebind(&desk.asker, Some(&id)).await.unwrap();
    let Gated::Done(campaign) = begun else { panic!("others have agreed") };
    assert_eq!((campaign.open, campaign.to_kdh.as_str()), (1, new.as_str()));

    assert_eq!(service.rebind_due(&two).await.unwrap(), None, "it is bound to none");
    let due = service.rebind_due(&one).await.unwrap().unwrap();
    let wanted = Rebind { campaign: campaign.id.clone(), old: old.clone(), new: new.clone() };
    assert_eq!(due, wanted);
    assert_eq!(service.kdh_by_id(&due.old).await.unwrap().id, old, "its key signs the token");
    service.rebound(&one, &due, Err("token-refused")).await.unwrap();
    let failed = service.rebind(&campaign.id).await.unwrap();
    assert_eq!((failed.failed, failed.state), (1, RebindState::Open));
    assert_eq!(service.rebind_due(&one).await.unwrap(), Some(wanted), "the next contact tries");
    service.rebound(&one, &due, Ok(())).await.unwrap();
    let ended = service.rebind(&campaign.id).await.unwrap();
    assert_eq!((ended.done, ended.state), (1, RebindState::Done));
    assert_eq!(service.terminal(&one).await.unwrap().bound_kdh, Some(new));
    assert_eq!(check(service.rebound(&one, &due, Ok(())).await), "rebind-not-due");
    assert_eq!(check(service.cancel_rebind(&desk.asker, &campaign.id).await), "rebind-ended");
    assert_eq!(check(service.renew_enrolment_code(&desk.asker, "trm_none").await), "not-found");
    // Now nobody needs the old one.
    service.maintain_rki().await.unwrap();
    let state = service.kdh_by_id(&old).await.unwrap().state;
    assert_eq!(state.name(), "retired");
    let refused = desk.refusals().await;
    let refused: Vec<_> = refused.iter().map(|one| (one.0.as_str(), one.1.as_str())).collect();
    let expected = [
        ("terminal.rebind", "token-refused"),
        ("rebind.cancel", "rebind-ended"),
        ("terminal.code", "not-found"),
    ];
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn unbinding_is_asked_for_agreed_to_and_confirmed() {
    let desk = Desk::new().await;
    let service = &desk.service;
    let (id, own) = desk.enrolled("POS-1").await;
    assert_eq!(check(service.ask_unbind(&desk.asker, &id, None).await), "terminal-not-bound");
    let kdh = service.bind_terminal(&id, &own).await.unwrap().kdh_id;
    assert_eq!(service.unbind_due(&id).await.unwrap(), None);
    assert_eq!(check(service.unbound(&id).await), "terminal-not-bound", "nobody asked for it");
    let approval = desk.agreed(service.ask_unbind(&desk.asker, &id, None).await).await;
    service.ask_unbind(&desk.asker, &id, Some(&approval)).await.unwrap();
    assert_eq!(service.unbind_due(&id).await.unwrap(), Some(kdh.clone()));
    assert_eq!(state(&desk, &id).await, TerminalState::Bound, "it has not been in contact yet");
    service.unbound(&id).await.unwrap();
    assert_eq!(state(&desk, &id).await, TerminalState::Unbound);
    assert_eq!(service.unbind_due(&id).await.unwrap(), None);
    assert_eq!(check(service.unbound(&id).await), "terminal-not-bound");
    service.bind_terminal(&id, &own).await.unwrap();
    assert_eq!(state(&desk, &id).await, TerminalState::Bound, "it may be bound again");
}

#[tokio::test]
async fn what_an_operator_ends_while_a_terminal_is_bound_counts() {
    let desk = Desk::new().await;
    let service = &desk.service;
    let (first, own) = desk.enrolled("POS-0").await;
    service.bind_terminal(&first, &own).await.unwrap();
    let before = desk.asked();
    let kdh = service.bind_terminal(&first, &own).await.unwrap().kdh_id;
    let last = desk.asked() - before; // right before the binding is stored
    for wanted in ["device-blocked", "krd-revoked", "kdh-revoked"] {
        let (id, own) = desk.enrolled(&format!("POS-{wanted}")).await;
        let (name, kdh) = (id.clone(), kdh.clone());
        desk.meanwhile(last, move |tx| match wanted {
            "device-blocked" => tx.block_device(&name, "stolen", START),
            "krd-revoked" => tx.revoke_krd(&name, "lost", START).map(|_| ()),
            _ => tx.revoke_authority(&kdh, "lost", START),
        });
        assert_eq!(check(service.bind_terminal(&id, &own).await), wanted);
        assert_eq!(service.terminal(&id).await.unwrap().bound_kdh, None, "{wanted}");
    }
}
