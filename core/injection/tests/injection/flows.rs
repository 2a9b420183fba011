use countersign_injection::message::{
    Installed, Refusing, SLOTS, ServerMessage, TerminalMessage, TokenRefused, TokenRequest,
};
use countersign_injection::server::{ServerEvent, ServerFlow, refusal};
use countersign_injection::terminal::{Failure, TerminalEvent, TerminalWork};
use countersign_injection::{Bounded, FlowError, Name, PATIENCE, TOKENS_PER_CONTACT_MAX};
use proptest::prelude::*;

use crate::stage::{NOW, Server, State, Terminal, binding, contact, injection, token};

const ALL: usize = usize::MAX;

fn active(terminal: &Terminal) -> Vec<(u8, Option<u8>)> {
    terminal.slots.iter().map(|(slot, kept)| (*slot, kept.active)).collect()
}

#[test]
fn a_terminal_is_bound_and_given_its_keys_in_one_contact() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 10), (3, 13)]));
    let went = contact(&mut terminal, &mut server, ALL);
    assert!(went.done && went.failure.is_none());
    assert_eq!(terminal.bound, Some([0xD1; 32]));
    assert_eq!(active(&terminal), [(0, Some(10)), (3, Some(13))]);
    assert_eq!(server.states(), [State::Installed; 2]);
    // bind, bound; for each key request, token, installed, confirmed; request, nothing
    assert_eq!(went.delivered, 2 + 2 * 4 + 2);
    // Next time nothing waits.
    assert_eq!(contact(&mut terminal, &mut server, ALL).delivered, 2);
}

/// E8: whatever message is the last that arrives, the old key stays usable until the new one is
/// confirmed, and the next contact ends with both sides agreed.
#[test]
fn a_contact_that_breaks_anywhere_is_repaired_by_the_next() {
    let whole = {
        let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1), (1, 2)]));
        contact(&mut terminal, &mut server, ALL).delivered
    };
    for first in 0..=whole {
        for second in 0..=whole {
            let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1)]));
            contact(&mut terminal, &mut server, ALL);
            server.injections.push((0, 11, State::Assigned));
            server.injections.push((1, 12, State::Assigned));
            for most in [first, second] {
                contact(&mut terminal, &mut server, most);
                let old_or_new = terminal.slots[&0].active;
                assert!(matches!(old_or_new, Some(1 | 11)), "{first} {second}");
                if old_or_new == Some(11) {
                    assert_eq!(server.states()[1], State::Installed, "not before it is confirmed");
                }
            }
            assert!(contact(&mut terminal, &mut server, ALL).done, "{first} {second}");
            assert_eq!(active(&terminal), [(0, Some(11)), (1, Some(12))], "{first} {second}");
            assert_eq!(server.states(), [State::Installed; 3], "{first} {second}");
        }
    }
}

#[test]
fn a_refused_token_is_on_record_and_changes_nothing() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1)]));
    contact(&mut terminal, &mut server, ALL);
    server.injections.push((0, 2, State::Assigned));
    server.injections.push((1, 3, State::Assigned));
    terminal.refuses = Some("crl-expired");
    let went = contact(&mut terminal, &mut server, ALL);
    let Some(Failure::Token { what: Refusing::Key, check, incident }) = went.failure else {
        panic!("{went:?}");
    };
    assert_eq!((check.as_str(), incident.as_str()), ("crl-expired", "inc_3"));
    assert_eq!(server.checks, [(Refusing::Key, "crl-expired".to_owned())]);
    assert_eq!(server.states(), [State::Installed, State::Failed, State::Assigned]);
    assert_eq!(active(&terminal), [(0, Some(1))], "and nothing waits");
    assert_eq!(terminal.slots[&0].pending, None);
}

#[test]
fn a_binding_that_is_refused_is_on_record() {
    let mut server = Server::with(&[(0, 1)]);
    let mut terminal = Terminal { refuses: Some("role"), ..Terminal::default() };
    let went = contact(&mut terminal, &mut server, ALL);
    assert!(matches!(went.failure, Some(Failure::Token { what: Refusing::Binding, .. })));
    assert_eq!(server.checks, [(Refusing::Binding, "role".to_owned())]);
    assert_eq!((terminal.bound, server.states()), (None, vec![State::Assigned]));
}

#[test]
fn a_wrong_check_value_counts_for_nothing() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1)]));
    contact(&mut terminal, &mut server, ALL);
    server.injections.push((0, 2, State::Assigned));
    terminal.lies = true;
    let went = contact(&mut terminal, &mut server, ALL);
    let Some(Failure::Server(refusal)) = went.failure else { panic!("{went:?}") };
    assert_eq!((refusal.check.as_str(), refusal.retry()), ("token-refused", false));
    assert_eq!(server.states(), [State::Installed, State::Failed]);
    assert_eq!(active(&terminal), [(0, Some(1))], "the old key stays");
    assert_eq!(terminal.slots[&0].pending, None, "the new one is gone");
}

#[test]
fn a_key_that_was_cancelled_while_it_waited_is_erased_and_the_contact_goes_on() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1), (1, 2)]));
    // bind, bound, request, token; the key waits, and its report is lost.
    contact(&mut terminal, &mut server, 4);
    assert!(terminal.slots[&0].pending.is_some());
    server.injections[0].2 = State::Cancelled;
    assert!(contact(&mut terminal, &mut server, ALL).done);
    assert_eq!(active(&terminal), [(0, None), (1, Some(2))]);
    assert_eq!(terminal.slots[&0].pending, None);
}

#[test]
fn a_server_that_cannot_now_loses_nothing() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1)]));
    contact(&mut terminal, &mut server, 4);
    server.unavailable = true;
    let went = contact(&mut terminal, &mut server, ALL);
    assert!(matches!(went.failure, Some(Failure::Server(refusal)) if refusal.retry()));
    assert!(terminal.slots[&0].pending.is_some(), "it waits on");
    server.unavailable = false;
    assert!(contact(&mut terminal, &mut server, ALL).done);
    assert_eq!(active(&terminal), [(0, Some(1))]);
}

#[test]
fn a_terminal_is_bound_to_another_kdh_and_unbound() {
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&[(0, 1)]));
    contact(&mut terminal, &mut server, ALL);
    // The answer is lost after the terminal has changed over: its next word says so.
    server.rebinds_to = Some(0xD2);
    contact(&mut terminal, &mut server, 2);
    assert_eq!((terminal.bound, server.kdh), (Some([0xD2; 32]), 0xD1));
    server.injections.push((0, 2, State::Assigned));
    assert!(contact(&mut terminal, &mut server, ALL).done);
    assert_eq!((server.kdh, active(&terminal)), (0xD2, vec![(0, Some(2))]));

    server.unbinds = true;
    assert!(contact(&mut terminal, &mut server, ALL).done);
    assert_eq!((terminal.bound, server.unbinds), (None, false));
    assert_eq!(active(&terminal), [(0, Some(2))], "keys stay");
}

#[test]
fn a_contact_has_a_bound() {
    let keys: Vec<_> = (0..=TOKENS_PER_CONTACT_MAX as u8).map(|key| (key % 32, key)).collect();
    let (mut terminal, mut server) = (Terminal::default(), Server::with(&keys));
    assert!(contact(&mut terminal, &mut server, ALL).done);
    let left = server.states().iter().filter(|state| **state == State::Assigned).count();
    assert_eq!(left, 1, "the rest comes next time");
    assert!(contact(&mut terminal, &mut server, ALL).done);
    assert_eq!(server.states(), vec![State::Installed; keys.len()]);

    let mut flow = ServerFlow::new(NOW);
    let ask = request().encode();
    for _ in 0..TOKENS_PER_CONTACT_MAX {
        flow.handle(NOW, &ask).unwrap();
        flow.answer(NOW, &ServerMessage::Rebind(binding(1))).unwrap();
    }
    assert_eq!(flow.handle(NOW, &ask), Err(FlowError::TooMany));
}

fn request() -> TerminalMessage {
    TerminalMessage::TokenRequest(TokenRequest {
        request: Bounded::new(&[1; 40]).unwrap(),
        bound: [2; 32],
        crl_seen: Bounded::new(&[]).unwrap(),
    })
}

fn installed(index: usize, slot: u8) -> TerminalMessage {
    let kcv = Bounded::new(&[1, 2, 3]).unwrap();
    TerminalMessage::Installed(Installed { injection: injection(index), slot, kcv })
}

fn refused(what: Refusing, of: &str) -> TerminalMessage {
    let (injection, check) = (Name::clipped(of), Name::clipped("digest"));
    TerminalMessage::Refused(TokenRefused { what, injection, check })
}

#[test]
fn the_server_takes_nothing_out_of_order() {
    let key = ServerMessage::KeyToken(countersign_injection::message::KeyToken {
        injection: injection(1),
        slot: 2,
        token: token(9),
    });
    let unexpected = |message| FlowError::Unexpected { message };
    let after_key: Vec<(TerminalMessage, Result<(), FlowError>)> = vec![
        (installed(1, 2), Ok(())),
        (refused(Refusing::Key, "inj_1"), Ok(())),
        (installed(2, 2), Err(FlowError::OtherInjection)),
        (installed(1, 3), Err(FlowError::OtherInjection)),
        (refused(Refusing::Key, "inj_2"), Err(FlowError::OtherInjection)),
        (refused(Refusing::Binding, ""), Err(FlowError::OtherInjection)),
        (request(), Err(unexpected("token request"))),
        (TerminalMessage::Bind(token(1)), Err(unexpected("bind"))),
        (TerminalMessage::Unbound, Err(unexpected("unbound"))),
    ];
    for (message, result) in after_key {
        let mut flow = ServerFlow::new(NOW);
        flow.handle(NOW, &request().encode()).unwrap();
        assert!(matches!(flow.poll_event(), Some(ServerEvent::Asked(_))));
        flow.answer(NOW, &key).unwrap();
        assert_eq!(flow.handle(NOW, &message.encode()), result, "{message:?}");
        if result.is_err() {
            assert_eq!(flow.poll_event(), None);
            assert_eq!(flow.handle(NOW, &message.encode()), Err(FlowError::Dead));
        }
    }
    // Two at once; a refusal of nothing; an answer to nothing; an answer that does not fit.
    let mut flow = ServerFlow::new(NOW);
    flow.handle(NOW, &request().encode()).unwrap();
    assert_eq!(flow.handle(NOW, &request().encode()), Err(unexpected("token request")));
    let mut flow = ServerFlow::new(NOW);
    let refusal = refused(Refusing::Binding, "").encode();
    assert_eq!(flow.handle(NOW, &refusal), Err(unexpected("refused")));
    let mut flow = ServerFlow::new(NOW);
    assert_eq!(flow.answer(NOW, &ServerMessage::Nothing), Err(FlowError::Misuse));
    let mut flow = ServerFlow::new(NOW);
    flow.handle(NOW, &request().encode()).unwrap();
    let wrong = ServerMessage::Confirmed(injection(1));
    assert_eq!(flow.answer(NOW, &wrong), Err(FlowError::Misuse));
}

#[test]
fn the_terminal_takes_nothing_out_of_order() {
    let terminal = Terminal { bound: Some([1; 32]), ..Terminal::default() };
    let asked = || {
        let mut flow = terminal.flow();
        assert_eq!(flow.poll_event(), Some(TerminalEvent::MakeRequest));
        let request = Bounded::new(&[1; 40]).unwrap();
        let work = TerminalWork::Requested { request, crl_seen: Bounded::new(&[]).unwrap() };
        flow.answer(NOW, work).unwrap();
        flow
    };
    for message in [
        ServerMessage::Bound(binding(1)),
        ServerMessage::Confirmed(injection(1)),
        ServerMessage::Noted(Name::clipped("")),
    ] {
        let mut flow = asked();
        let told = flow.handle(NOW, &message.encode());
        assert_eq!(told, Err(FlowError::Unexpected { message: message.name() }));
        assert_eq!(flow.poll_event(), None);
        assert_eq!(flow.handle(NOW, &message.encode()), Err(FlowError::Dead));
    }
    let mut flow = terminal.flow();
    assert_eq!(flow.answer(NOW, TerminalWork::Kept), Err(FlowError::Misuse));
    assert_eq!(flow.answer(NOW, TerminalWork::Kept), Err(FlowError::Dead));
    // A confirmation of another injection activates nothing.
    let mut waiting = Terminal { bound: Some([1; 32]), ..Terminal::default() };
    waiting.slots.entry(0).or_default().pending = Some((injection(1), 7));
    let mut flow = waiting.flow();
    let other = ServerMessage::Confirmed(injection(2)).encode();
    assert_eq!(flow.handle(NOW, &other), Err(FlowError::OtherInjection));
    assert_eq!(flow.poll_event(), None);
}

#[test]
fn nobody_is_waited_for_for_ever() {
    let mut server = ServerFlow::new(NOW);
    assert_eq!(server.handle_timeout(NOW), Ok(()));
    let due = server.poll_timeout().unwrap();
    assert_eq!(due, NOW.plus(PATIENCE));
    assert_eq!(server.handle_timeout(due), Err(FlowError::Timeout));
    assert_eq!(server.handle(due, &request().encode()), Err(FlowError::Dead));

    let mut terminal = Terminal::default().flow();
    let due = terminal.poll_timeout().unwrap();
    let late = terminal.handle(due, &ServerMessage::Bound(binding(1)).encode());
    assert_eq!(late, Err(FlowError::Timeout), "an answer that comes too late is none");
    assert_eq!(terminal.poll_event(), None);
}

proptest! {
    /// Whatever bytes come, a flow answers with an error or goes on; it never panics.
    #[test]
    fn flows_are_total(messages in prop::collection::vec(
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            Just(request().encode()),
            Just(installed(1, 2).encode()),
            Just(refused(Refusing::Key, "inj_1").encode()),
            Just(ServerMessage::Nothing.encode()),
            Just(ServerMessage::Bound(binding(1)).encode()),
            Just(ServerMessage::Confirmed(injection(1)).encode()),
        ],
        0..12,
    )) {
        let mut server = ServerFlow::new(NOW);
        let mut owner = Server::with(&[(0, 1), (1, 2), (2, 3)]);
        let mut terminal = Terminal::default();
        let mut flow = terminal.flow();
        for message in messages {
            if server.handle(NOW, &message).is_ok()
                && let Some(ServerEvent::Asked(asked)) = server.poll_event()
            {
                let answer = owner.decide(ServerEvent::Asked(asked)).unwrap();
                server.answer(NOW, &answer).unwrap();
            }
            let _refused = flow.handle(NOW, &message);
            if let Some(work) = flow.poll_event().and_then(|event| terminal.work(event)) {
                flow.answer(NOW, work).unwrap();
            }
        }
    }
}

/// A terminal has no more keys that wait than places: whoever reports more floods the audit.
#[test]
fn a_contact_reports_as_many_keys_as_there_are_slots() {
    let mut flow = ServerFlow::new(NOW);
    for _ in 0..SLOTS {
        flow.handle(NOW, &installed(0, 0).encode()).unwrap();
        assert!(matches!(flow.poll_event(), Some(ServerEvent::Installed(_))));
        flow.answer(NOW, &refusal("injection-closed", false, "")).unwrap();
    }
    let more = flow.handle(NOW, &installed(0, 0).encode());
    assert_eq!(more, Err(FlowError::TooMany));
    assert!(flow.is_over() && flow.poll_event().is_none());
}
