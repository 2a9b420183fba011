//! The allow-list, one-time codes, and what goes wrong with them.

use std::time::Duration;

use countersign_service::{Actor, WRONG_CODES_MAX, WRONG_FROM_SOURCE_MAX, WRONG_WINDOW};
use countersign_store::{DeviceKind, TerminalState};
use tr34::aws_lc::AwsLc;
use tr34::{Certificate, Krd, RsaKey};

use crate::desk::{Desk, Pos, check};

const TERMINAL: DeviceKind = DeviceKind::Terminal;

#[tokio::test]
async fn a_terminal_enrols_once_and_a_repeat_gives_the_same() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    assert_eq!(code.len(), 29, "24 characters in groups");
    let before = desk.service.terminal_by_serial("POS-1").await.unwrap();
    assert_eq!(before.state(desk.service.now()), TerminalState::Allowed);
    let pos = Pos::new("POS-1", 1);
    let first = desk.enrol(&pos, &code).await.unwrap();
    assert!(first.created);
    let krd = Certificate::parse(&first.krd).unwrap();
    assert_eq!(krd.public_key(), pos.rsa.public_key());
    let now = desk.service.now();
    let verified = Krd::verify(&AwsLc, krd, &first.hierarchy.ca_krd, now).unwrap();
    assert_eq!(verified.id(), Some("POS-1"));

    let typed = code.to_lowercase().replace('-', " ");
    let again = desk.enrol(&pos, &typed).await.unwrap();
    assert!(!again.created);
    assert_eq!((&again.certificate, &again.krd), (&first.certificate, &first.krd));
    // Also after its time: the code is used, nothing new is made.
    desk.advance(Duration::from_secs(10 * 86_400));
    assert!(!desk.enrol(&pos, &code).await.unwrap().created);

    let terminal = desk.service.terminal(&first.record.device.device.id).await.unwrap();
    assert_eq!(terminal.state, TerminalState::Enrolled);
    assert_eq!(terminal.krd.unwrap().raw(), first.krd);
    assert_eq!(terminal.bound_kdh, None);
    let done = desk.done().await;
    assert_eq!(done.iter().filter(|action| *action == "terminal.enrol").count(), 1);
}

#[tokio::test]
async fn a_bad_code_has_one_answer_and_the_audit_has_the_reason() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let foreign = desk.code("POS-2").await;
    let (pos, thief) = (Pos::new("POS-1", 1), Pos::new("POS-1", 2));
    let mut answers = Vec::new();
    for bad in [foreign.as_str(), "", "ABCD", "!!!!", &code[..code.len() - 1], &format!("{code}A")]
    {
        answers.push(desk.enrol(&pos, bad).await.err().unwrap());
    }
    desk.enrol(&pos, &code).await.unwrap();
    answers.push(desk.enrol(&thief, &code).await.err().unwrap());
    let late = desk.code("POS-3").await;
    desk.advance(Duration::from_secs(4 * 86_400));
    answers.push(desk.enrol(&Pos::new("POS-3", 3), &late).await.err().unwrap());

    let refusals = desk.refusals().await;
    assert_eq!(refusals.len(), answers.len());
    for (answer, (action, audited, reason)) in answers.iter().zip(&refusals) {
        assert_eq!((answer.check(), audited.as_str()), ("enrolment-code", "enrolment-code"));
        assert_eq!(action, "terminal.enrol");
        let told = answer.to_string();
        let (what, incident) = told.split_once(" (incident inc_").expect("an incident id");
        assert_eq!(what, "the enrolment code is wrong, expired or used");
        assert!(incident.ends_with(')'), "{told}");
        assert!(reason.contains("the code"), "{reason}");
    }
    let wrong = refusals.iter().filter(|one| one.2.contains("the code is wrong")).count();
    assert_eq!(wrong, 6);
    assert!(refusals[6].2.contains("used with other keys"), "{:?}", refusals[6]);
    assert!(refusals[7].2.contains("expired"), "{:?}", refusals[7]);
}

#[tokio::test]
async fn codes_cannot_be_tried_without_end() {
    let desk = Desk::new().await;
    desk.code("POS-1").await;
    let pos = Pos::new("POS-1", 1);
    for _ in 0..WRONG_CODES_MAX {
        assert_eq!(check(desk.enrol(&pos, "AAAA").await), "enrolment-code");
    }
    assert_eq!(check(desk.enrol(&pos, "AAAA").await), "enrolment-code");
    assert!(desk.refusals().await.last().unwrap().2.contains("too many"));
    desk.advance(WRONG_WINDOW);
    assert_eq!(check(desk.enrol(&pos, "AAAA").await), "enrolment-code");
    assert!(desk.refusals().await.last().unwrap().2.contains("is wrong"), "counted anew");
}

#[tokio::test]
async fn wrong_codes_do_not_keep_a_terminal_out() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let pos = Pos::new("POS-1", 1);
    for _ in 0..=WRONG_CODES_MAX {
        assert_eq!(check(desk.enrol(&pos, "AAAA").await), "enrolment-code");
    }
    assert!(desk.enrol(&pos, &code).await.unwrap().created);
}

#[tokio::test]
async fn one_source_cannot_try_the_codes_of_all_terminals() {
    let desk = Desk::new().await;
    let code = desk.code("POS-0").await;
    let good = Pos::new("POS-0", 1);
    let mut left = WRONG_FROM_SOURCE_MAX;
    for number in 1_u32.. {
        let serial = format!("POS-{number}");
        desk.code(&serial).await;
        let pos = Pos::new(&serial, u64::from(number));
        let tries = left.min(WRONG_CODES_MAX);
        for _ in 0..tries {
            assert_eq!(check(desk.enrol(&pos, "AAAA").await), "enrolment-code");
        }
        left -= tries;
        if left == 0 {
            break;
        }
    }
    assert_eq!(check(desk.enrol(&good, &code).await), "enrolment-code");
    let elsewhere = desk.service.enrol_terminal("192.0.2.8", good.request(&code)).await;
    assert!(elsewhere.unwrap().created, "others are not hindered");
}

#[tokio::test]
async fn who_is_not_on_the_list_or_is_blocked_does_not_enrol() {
    let desk = Desk::new().await;
    let stranger = Pos::new("POS-9", 1);
    let code = desk.code("POS-1").await;
    assert_eq!(check(desk.enrol(&stranger, &code).await), "terminal-not-allowed");
    let again = desk.service.allow_terminal(&desk.asker, "POS-1", "", "").await;
    assert_eq!(check(again), "terminal-serial-taken", "a duplicate device id");
    for (serial, model, wanted) in
        [("", "", "serial-format"), ("a b", "", "serial-format"), ("P", "\n", "terminal-note")]
    {
        let allowed = desk.service.allow_terminal(&desk.asker, serial, model, "").await;
        assert_eq!(check(allowed), wanted);
    }
    let pos = Pos::new("POS-1", 1);
    let id = desk.service.terminal_by_serial("POS-1").await.unwrap().device.device.id;
    let console = Actor::Console;
    desk.service.block_device(TERMINAL, &console, &id, "stolen").await.unwrap();
    let blocked = desk.enrol(&pos, &code).await.err().unwrap();
    assert_eq!((blocked.check(), blocked.to_string().as_str()), {
        ("device-blocked", "the terminal is blocked")
    });
    desk.service.unblock_device(TERMINAL, &console, &id).await.unwrap();
    desk.enrol(&pos, &code).await.unwrap();
    let refusals = desk.refusals().await;
    let checks: Vec<_> = refusals.iter().map(|(_, check, _)| check.as_str()).collect();
    assert_eq!(
        checks,
        [
            "terminal-not-allowed",
            "terminal-serial-taken",
            "serial-format",
            "serial-format",
            "terminal-note",
            "device-blocked",
        ]
    );
}

#[tokio::test]
async fn requests_are_for_this_terminal_and_prove_both_keys() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let (pos, other) = (Pos::new("POS-1", 1), Pos::new("POS-2", 2));
    let mixed = |change: fn(&mut countersign_service::TerminalRequest, &Pos)| {
        let mut request = pos.request(&code);
        change(&mut request, &other);
        request
    };
    for (request, wanted) in [
        (mixed(|mine, other| mine.channel = other.request("").channel), "request-serial"),
        (mixed(|mine, other| mine.krd = other.request("").krd), "request-serial"),
        (mixed(|mine, _| mine.serial = "POS-2".to_owned()), "request-serial"),
        (
            mixed(|mine, other| {
                let party = tr34::Party::new(tr34::Role::Kdh, "POS-1").unwrap();
                mine.krd = tr34::request(&other.rsa as &dyn RsaKey, &party).unwrap();
            }),
            "request-role",
        ),
    ] {
        let refused = desk.service.enrol_terminal("peer", request).await;
        assert_eq!(check(refused), wanted);
    }
    let mut altered = pos.request(&code);
    let last = altered.krd.len() - 1;
    altered.krd[last] ^= 1;
    assert!(desk.service.enrol_terminal("peer", altered).await.is_err());
    let row = desk.service.terminal_by_serial("POS-1").await.unwrap();
    assert_eq!((row.terminal.code_used_at, row.krd), (None, None), "nothing changed");
    desk.enrol(&pos, &code).await.unwrap();
}

#[tokio::test]
async fn other_keys_need_a_revocation_and_another_code() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let first = desk.enrol(&Pos::new("POS-1", 1), &code).await.unwrap();
    let id = first.record.device.device.id.clone();
    let repaired = Pos::new("POS-1", 2);
    let second = desk.service.renew_enrolment_code(&desk.asker, &id).await.unwrap();
    assert_eq!(check(desk.enrol(&repaired, second.code.expose()).await), "serial-taken");
    desk.service.revoke_device(TERMINAL, &Actor::Console, &id, "repaired").await.unwrap();
    // The CRL of the CA that certified it lists it at once.
    let ca = &first.hierarchy.ca_krd_id;
    let stored = desk.service.authority_crl(ca).await.unwrap();
    let crl = tr34::Crl::parse(stored.der.as_deref().unwrap()).unwrap();
    assert!(crl.lists(Certificate::parse(&first.krd).unwrap().identity()));
    let done = desk.enrol(&repaired, second.code.expose()).await.unwrap();
    assert!(done.created && done.krd != first.krd);
    assert!(!crl.lists(Certificate::parse(&done.krd).unwrap().identity()));
    // The old code and keys bring nothing back.
    assert_eq!(check(desk.enrol(&Pos::new("POS-1", 1), &code).await), "enrolment-code");
}

#[tokio::test]
async fn a_used_code_brings_nothing_back_after_a_revocation() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let pos = Pos::new("POS-1", 1);
    let first = desk.enrol(&pos, &code).await.unwrap();
    let id = first.record.device.device.id;
    desk.service.revoke_device(TERMINAL, &Actor::Console, &id, "lost").await.unwrap();
    assert_eq!(check(desk.enrol(&pos, &code).await), "enrolment-code");
}

#[tokio::test]
async fn operators_cannot_enrol_terminals_around_the_code() {
    let desk = Desk::new().await;
    desk.code("POS-1").await;
    let request = Pos::new("POS-1", 1).request("").channel;
    let around = desk.service.enrol_device(TERMINAL, &desk.asker, &request, None).await;
    assert_eq!(check(around), "enrolment-code");
}

#[tokio::test]
async fn one_source_cannot_ask_without_end_who_is_on_the_list_or_have_signatures_verified() {
    let desk = Desk::new().await;
    let code = desk.code("POS-1").await;
    let (pos, stranger) = (Pos::new("POS-1", 1), Pos::new("POS-9", 2));
    let damaged = || {
        let mut request = pos.request(&code);
        let last = request.krd.len() - 1;
        request.krd[last] ^= 1;
        request
    };
    let from = |peer: &'static str, request| desk.service.enrol_terminal(peer, request);
    for _ in 0..WRONG_FROM_SOURCE_MAX {
        let asked = from("192.0.2.1", stranger.request(&code)).await;
        assert_eq!(check(asked), "terminal-not-allowed");
        assert_eq!(check(from("192.0.2.2", damaged()).await), "request-proof");
    }
    assert_eq!(check(from("192.0.2.1", stranger.request(&code)).await), "enrolment-code");
    assert_eq!(check(from("192.0.2.2", damaged()).await), "enrolment-code", "before any RSA");
    assert_eq!(check(from("192.0.2.2", pos.request(&code)).await), "enrolment-code");
    assert!(from("192.0.2.3", pos.request(&code)).await.unwrap().created);
}
