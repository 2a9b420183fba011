use std::time::Duration;

use countersign_injection::message::{TerminalMessage, TokenRequest};
use countersign_injection::{Bounded, FlowError};
use countersign_service::{InjectionSession, TOKENS_PER_WINDOW, TOKENS_WINDOW};
use countersign_store::{
    AuthorityRole, DeviceKind, InjectionState, TerminalState, TokenIntent, TokenKind,
};

use crate::plant::{BITS, Plant, check};

#[tokio::test]
async fn keys_are_installed_and_replaced() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let terminal = pos.known.id.clone();
    let first = plant.assign(&key, 0, &terminal).await;
    let other = plant.assign(&key, 1, "POS-1").await;
    plant.update(&mut pos).await.unwrap();
    for injection in [&first, &other] {
        let stored = plant.injection(&injection.id).await;
        assert_eq!((stored.state, stored.attempts), (InjectionState::Installed, 1));
        let slot = u8::try_from(stored.slot).unwrap();
        assert_eq!(stored.kcv.as_deref(), pos.active(slot));
    }
    assert_ne!(pos.active(0), pos.active(1), "each injection has a value of its own");

    let old = pos.active(0).map(<[u8]>::to_vec);
    let second = plant.assign(&key, 0, &terminal).await;
    plant.update(&mut pos).await.unwrap();
    assert_ne!(pos.active(0), old.as_deref());
    let keys = plant.service.terminal_keys(&terminal).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [&second.id, &other.id]);
    assert_eq!(plant.refusals().await, [], "nothing was refused");
}

#[tokio::test]
async fn a_lost_answer_sends_the_same_key_again() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let injection = plant.assign(&key, 0, "POS-1").await;
    plant.service.bind_terminal(&pos.known.id, pos.certificate.raw()).await.unwrap();
    // The token is made, and the terminal dies before it stores anything.
    let request = ask(&plant, [7; 16]).await;
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    assert_eq!(session.handle(&request).await.0.messages.len(), 1);
    let issued = plant.injection(&injection.id).await;
    assert_eq!((issued.state, issued.attempts), (InjectionState::Issued, 1));
    plant.update(&mut pos).await.unwrap();
    let stored = plant.injection(&injection.id).await;
    assert_eq!((stored.state, stored.attempts), (InjectionState::Installed, 2));
    assert_eq!(stored.kcv, issued.kcv, "the same key");
}

/// A request of a terminal that is bound to the KDH in use.
async fn ask(plant: &Plant, nonce: [u8; 16]) -> Vec<u8> {
    let hierarchy = plant.service.hierarchy().await.unwrap();
    let bound = tr34::Rsa::sha256(&tr34::aws_lc::AwsLc, hierarchy.kdh.raw());
    let nonce = tr34::token::Nonce::new(&nonce).unwrap();
    let request = Bounded::new(&tr34::token::RtKrd { nonce }.encode()).unwrap();
    let crl_seen = Bounded::new(&[]).unwrap();
    TerminalMessage::TokenRequest(TokenRequest { request, bound, crl_seen }).encode()
}

/// What the first message of a session is answered with, if it is refused.
async fn refusal(plant: &Plant, session: &mut InjectionSession, message: &[u8]) -> String {
    let (answer, handled) = session.handle(message).await;
    handled.unwrap();
    let said = countersign_injection::message::ServerMessage::decode(&answer.messages[0]).unwrap();
    let countersign_injection::message::ServerMessage::Refused(refusal) = said else {
        panic!("{said:?}");
    };
    let last = plant.refusals().await.pop().unwrap();
    assert_eq!(last.1, refusal.check.as_str(), "the audit names the check");
    refusal.check.as_str().to_owned()
}

#[tokio::test]
async fn who_may_not_have_keys_is_refused_by_name() {
    let plant = Plant::new().await;
    let pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    let injection = plant.assign(&key, 0, "POS-1").await;
    let session = || InjectionSession::new(plant.service.clone(), pos.known.clone());
    let first = ask(&plant, [1; 16]).await;
    assert_eq!(refusal(&plant, &mut session(), &first).await, "terminal-not-bound");
    plant.service.bind_terminal(&pos.known.id, pos.certificate.raw()).await.unwrap();

    // Bound to another KDH than the server knows; a newer list seen than the server has.
    let mut other = ask(&plant, [2; 16]).await;
    let at = other.len() - 2 - 32; // the fingerprint stands before the empty number
    other[at] ^= 1;
    assert_eq!(refusal(&plant, &mut session(), &other).await, "terminal-other-kdh");
    let mut newer = ask(&plant, [2; 16]).await;
    newer.truncate(newer.len() - 2);
    newer.extend_from_slice(&[0, 1, 200]);
    assert_eq!(refusal(&plant, &mut session(), &newer).await, "crl-behind");

    // A nonce makes one token, whichever.
    let (answer, _) = session().handle(&first).await;
    assert_eq!(answer.messages.len(), 1);
    assert_eq!(refusal(&plant, &mut session(), &first).await, "nonce-reused");

    plant
        .service
        .block_device(DeviceKind::Terminal, &plant.asker, &pos.known.id, "stolen")
        .await
        .unwrap();
    let asked = ask(&plant, [3; 16]).await;
    assert_eq!(refusal(&plant, &mut session(), &asked).await, "device-blocked");
    plant.service.unblock_device(DeviceKind::Terminal, &plant.asker, &pos.known.id).await.unwrap();
    plant
        .service
        .revoke_device(DeviceKind::Terminal, &plant.asker, &pos.known.id, "key lost")
        .await
        .unwrap();
    assert_eq!(refusal(&plant, &mut session(), &asked).await, "certificate-revoked");
    let stored = plant.injection(&injection.id).await;
    assert_eq!((stored.state, stored.attempts), (InjectionState::Issued, 1), "nothing changed");
}

#[tokio::test]
async fn a_terminal_has_so_many_tokens_an_hour() {
    let plant = Plant::new().await;
    let pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    plant.assign(&key, 0, "POS-1").await;
    plant.service.bind_terminal(&pos.known.id, pos.certificate.raw()).await.unwrap();
    let (device, kdh) = (pos.known.id.clone(), plant.service.hierarchy().await.unwrap());
    let now = plant.service.now();
    plant
        .service
        .store()
        .run_tx("test", move |tx| {
            for number in 0..TOKENS_PER_WINDOW {
                let intent = TokenIntent {
                    device_id: device.clone(),
                    nonce: number.to_be_bytes().to_vec(),
                    kind: TokenKind::Rebind,
                    kdh_id: kdh.kdh_id.clone(),
                    at: now,
                };
                tx.intend_token(&intent, None)?;
            }
            Ok::<_, countersign_store::StoreError>(())
        })
        .await
        .unwrap();
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    let asked = ask(&plant, [1; 16]).await;
    assert_eq!(refusal(&plant, &mut session, &asked).await, "terminal-throttled");
    plant.advance(TOKENS_WINDOW + Duration::from_secs(1));
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    assert_eq!(session.handle(&asked).await.0.messages[0][0], 0x82, "a key token");
}

#[tokio::test]
async fn a_silent_or_rude_terminal_is_given_up() {
    let plant = Plant::new().await;
    let pos = plant.terminal("POS-1", BITS).await;
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    assert_eq!(session.handle_timeout(), Ok(()));
    plant.advance(countersign_injection::PATIENCE);
    assert_eq!(session.handle_timeout(), Err(FlowError::Timeout));
    let mut session = InjectionSession::new(plant.service.clone(), pos.known.clone());
    assert!(matches!(session.handle(b"?").await.1, Err(FlowError::Message(_))));
    assert_eq!(session.handle(b"?").await.1, Err(FlowError::Dead));
}

#[tokio::test]
async fn a_key_that_nothing_here_may_carry_fails_and_the_next_one_goes_on() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", 2048).await;
    let (aes, tdes) = (plant.key("aes", "A", 16).await, plant.tdes_key("tdes").await);
    let retired = plant.tdes_key("retired").await;
    let strong = plant.assign(&aes, 0, "POS-1").await;
    let gone = plant.assign(&retired, 1, "POS-1").await;
    let good = plant.assign(&tdes, 2, "POS-1").await;
    let id = plant.agreed(plant.service.retire_key(&plant.asker, &retired, None).await).await;
    plant.service.retire_key(&plant.asker, &retired, Some(&id)).await.unwrap();
    plant.update(&mut pos).await.unwrap();
    let failed = |check: &str| (InjectionState::Failed, Some(check.to_owned()));
    let stored = plant.injection(&strong.id).await;
    assert_eq!((stored.state, stored.failed_check), failed("wrapping-key-weaker"));
    let stored = plant.injection(&gone.id).await;
    assert_eq!((stored.state, stored.failed_check), failed("key-not-active"));
    assert_eq!(plant.injection(&good.id).await.state, InjectionState::Installed);
    // With 3072 bits it may.
    let mut pos = plant.terminal("POS-2", 3072).await;
    let strong = plant.assign(&aes, 0, "POS-2").await;
    plant.update(&mut pos).await.unwrap();
    assert_eq!(plant.injection(&strong.id).await.state, InjectionState::Installed);
}

async fn roll(plant: &Plant, role: AuthorityRole) {
    let id = plant.service.roll_authority(&plant.asker, role, None, None).await;
    let id = plant.agreed(id).await;
    plant.service.roll_authority(&plant.asker, role, None, Some(&id)).await.unwrap();
    let id = plant.agreed(plant.service.begin_rebind(&plant.asker, None).await).await;
    plant.service.begin_rebind(&plant.asker, Some(&id)).await.unwrap();
}

/// A terminal follows a roll-over of the KDH, and of the CA_KDH above it, at its next contact.
#[tokio::test]
async fn a_terminal_is_rebound_and_unbound() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    plant.assign(&key, 0, "POS-1").await;
    plant.update(&mut pos).await.unwrap();
    for role in [AuthorityRole::Kdh, AuthorityRole::CaKdh] {
        let before = pos.state.kdh().unwrap().identity().clone();
        roll(&plant, role).await;
        let injection = plant.assign(&key, 0, "POS-1").await;
        plant.update(&mut pos).await.unwrap();
        let hierarchy = plant.service.hierarchy().await.unwrap();
        assert_ne!(*pos.state.kdh().unwrap().identity(), before);
        assert_eq!(pos.state.kdh().unwrap().raw(), hierarchy.kdh.raw());
        let terminal = plant.service.terminal(&pos.known.id).await.unwrap();
        assert_eq!(terminal.bound_kdh.as_ref(), Some(&hierarchy.kdh_id));
        let stored = plant.injection(&injection.id).await;
        assert_eq!(stored.state, InjectionState::Installed, "in the same contact");
        assert_eq!(stored.kdh_id.as_ref(), Some(&hierarchy.kdh_id));
    }
    let id = plant.service.ask_unbind(&plant.asker, &pos.known.id, None).await;
    let id = plant.agreed(id).await;
    plant.service.ask_unbind(&plant.asker, &pos.known.id, Some(&id)).await.unwrap();
    let kept = pos.active(0).map(<[u8]>::to_vec);
    plant.update(&mut pos).await.unwrap();
    assert!(pos.state.kdh().is_none());
    let state = plant.service.terminal(&pos.known.id).await.unwrap().state;
    assert_eq!(state, TerminalState::Unbound);
    assert_eq!(pos.active(0), kept.as_deref(), "its keys stay");
    assert_eq!(plant.refusals().await, []);
}

/// A revoked KDH makes no tokens, and is on the list that terminals get.
#[tokio::test]
async fn a_revoked_kdh_makes_no_tokens() {
    let plant = Plant::new().await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    let key = plant.tdes_key("tmk").await;
    plant.assign(&key, 0, "POS-1").await;
    plant.update(&mut pos).await.unwrap();
    let kept = pos.active(0).map(<[u8]>::to_vec);
    let kdh = plant.service.hierarchy().await.unwrap().kdh_id.clone();
    let revoke = |approval: Option<String>| {
        let (service, asker, kdh) = (plant.service.clone(), plant.asker.clone(), kdh.clone());
        async move { service.revoke_authority(&asker, &kdh, "lost", approval.as_deref()).await }
    };
    let id = plant.agreed(revoke(None).await).await;
    revoke(Some(id)).await.unwrap();
    plant.assign(&key, 0, "POS-1").await;
    assert_eq!(check(plant.update(&mut pos).await), "kdh-revoked");
    assert_eq!(pos.active(0), kept.as_deref());
}

#[tokio::test]
async fn what_an_operator_ends_while_a_key_token_is_made_counts() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let kdh = plant.service.hierarchy().await.unwrap().kdh_id.clone();
    for wanted in ["device-blocked", "krd-revoked", "kdh-revoked"] {
        let mut pos = plant.terminal(&format!("POS-{wanted}"), BITS).await;
        plant.update(&mut pos).await.unwrap(); // it is bound
        let injection = plant.assign(&key, 0, &pos.known.entry.serial).await;
        let (id, kdh, at) = (pos.known.id.clone(), kdh.clone(), plant.service.now());
        plant.meanwhile(move |tx| match wanted {
            "device-blocked" => tx.block_device(&id, "stolen", at),
            "krd-revoked" => tx.revoke_krd(&id, "lost", at).map(|_| ()),
            _ => tx.revoke_authority(&kdh, "lost", at),
        });
        assert_eq!(check(plant.update(&mut pos).await), wanted);
        let stored = plant.injection(&injection.id).await;
        assert_eq!(stored.state, InjectionState::Assigned, "{wanted}: nothing was signed");
        assert_eq!(pos.active(0), None);
        let last = plant.refusals().await.pop().unwrap();
        assert_eq!(last, ("token.request".to_owned(), wanted.to_owned()));
    }
}

#[tokio::test]
async fn one_operator_alone_puts_no_other_terminal_in_the_place_of_one() {
    let plant = Plant::new().await;
    let key = plant.tdes_key("tmk").await;
    let mut pos = plant.terminal("POS-1", BITS).await;
    plant.assign(&key, 0, "POS-1").await;
    plant.update(&mut pos).await.unwrap();
    // Others agree to a key for this terminal. One operator revokes its certificates, and enrols
    // a terminal of his own under its serial number.
    let waiting = plant.assign(&key, 1, "POS-1").await;
    let (id, kind) = (pos.known.id.clone(), DeviceKind::Terminal);
    let (service, asker) = (&plant.service, &plant.asker);
    service.revoke_device(kind, asker, &id, "broken").await.unwrap();
    let code = service.renew_enrolment_code(asker, &id).await.unwrap().code;
    let mut rogue = plant.enrol("POS-1", code.expose(), BITS).await;
    plant.update(&mut rogue).await.unwrap();
    assert_eq!((rogue.active(0), rogue.active(1)), (None, None), "no key went there");
    assert_eq!(plant.injection(&waiting.id).await.state, InjectionState::Cancelled);
    let rows = service.audit_page(None, 50).await.unwrap().items;
    let cancelled = rows.iter().find(|row| row.entry.action == "injection.cancel").unwrap();
    assert_eq!(cancelled.entry.subject, waiting.id);
    // With the agreement of others it has the key.
    plant.assign(&key, 1, "POS-1").await;
    plant.update(&mut rogue).await.unwrap();
    assert!(rogue.active(1).is_some());
}
