//! A peer that does not keep to the order: a hostile sleeve, a hostile manager.

use proptest::prelude::*;

use super::*;
use crate::message::{
    APDU_MAX, Cards, CheckName, LeaseEnded, Limits, LoginResult, MESSAGE_LEN_MAX, PIECE_MAX,
    Refused, ResetDone,
};
use crate::wire::Wiped;

fn login() -> SleeveMessage {
    SleeveMessage::Login(PaddedPassword::new(&secret("open sesame")).unwrap())
}

fn apdu(number: u32, bytes: &[u8]) -> SleeveMessage {
    SleeveMessage::Apdu(Piece::cut(number, bytes).remove(0))
}

fn take(number: u32) -> SleeveMessage {
    SleeveMessage::Take(Take { number, card: card() })
}

fn distance() -> SleeveMessage {
    SleeveMessage::Distance(DistanceCheckFails { measured: 51, maximum: 50 })
}

fn sleep() -> SleeveMessage {
    SleeveMessage::Sleep(Times { every: 1, within: 1 })
}

/// Every message of a sleeve's, the numbered ones with this number.
fn sleeve_messages(number: u32) -> Vec<SleeveMessage> {
    vec![
        login(),
        SleeveMessage::List(number),
        take(number),
        apdu(number, &READ),
        SleeveMessage::Release(number),
        SleeveMessage::Probe(number),
        sleep(),
        SleeveMessage::Awake,
        SleeveMessage::Reset(number),
        distance(),
    ]
}

fn check() -> CheckName {
    CheckName::new("card-lent").unwrap()
}

/// Every message of a manager's, the numbered ones with this number.
fn manager_messages(number: u32) -> Vec<ManagerMessage> {
    let of = (atr(), Label::new("blue").unwrap());
    vec![
        ManagerMessage::LoginResult(LoginResult { outcome: LoginOutcome::Ok, seconds: 0 }),
        ManagerMessage::Cards(Cards::new(number, lines()).unwrap()),
        ManagerMessage::Taken(Taken::new(number, LEASE, 60, of, Limits::NONE)),
        ManagerMessage::ApduResult(Piece::cut(number, &OK).remove(0)),
        ManagerMessage::Released(number),
        ManagerMessage::ProbeResult(number),
        ManagerMessage::Refused(Refused { number, check: check() }),
        ManagerMessage::LeaseEnded(LeaseEnded { lease: LEASE, check: check() }),
        ManagerMessage::Ended(check()),
        ManagerMessage::ResetDone(ResetDone { number, atr: atr() }),
    ]
}

/// The manager ends the session for this message, asks for nothing, and stays dead.
fn ends_manager(mut manager: ManagerFlow, message: &SleeveMessage) {
    let name = message.name();
    let error = manager.handle(NOW, &message.encode()).unwrap_err();
    assert_eq!(
        (error, error.check()),
        (FlowError::Unexpected { message: name }, "message-unexpected")
    );
    assert!(manager.poll_transmit().is_none(), "{name}");
    // It is told also to an owner who looks only after the next message.
    assert_eq!(manager.handle(NOW, &message.encode()), Err(FlowError::Dead));
    let event = manager.poll_event();
    let ended = matches!(&event, Some(ManagerEvent::Ended { check }) if check == error.check());
    assert!(ended, "{name}: {event:?}");
    assert!(manager.poll().is_none() && manager.poll_timeout().is_none());
    for message in sleeve_messages(1) {
        assert_eq!(manager.handle(NOW, &message.encode()), Err(FlowError::Dead));
        assert!(manager.poll().is_none());
    }
}

/// The sleeve ends the session for this message, has no card, and stays dead.
fn ends_sleeve(mut sleeve: SleeveFlow, message: &ManagerMessage) {
    let name = message.name();
    let error = sleeve.handle(NOW, &message.encode()).unwrap_err();
    assert_eq!(error, FlowError::Unexpected { message: name });
    let event = sleeve.poll_event();
    let ended = matches!(&event, Some(SleeveEvent::Ended { check }) if check == error.check());
    assert!(ended, "{name}: {event:?}");
    assert!(sleeve.poll().is_none() && sleeve.poll_timeout().is_none());
    assert_eq!((sleeve.lease(), sleeve.is_busy()), (None, true));
    assert_eq!(sleeve.handle(NOW, &message.encode()), Err(FlowError::Dead));
    assert_eq!(sleeve.login(NOW, &secret("open sesame")), Err(FlowError::Misuse));
    assert_eq!(sleeve.list(NOW), Err(FlowError::Misuse));
}

#[test]
fn a4_before_the_login_a_sleeve_may_say_nothing_else() {
    for message in sleeve_messages(1).into_iter().skip(1) {
        ends_manager(ManagerFlow::new(USUAL, NOW), &message);
    }
    // Nor while its password is looked at, or its owner is asked: not even another login.
    let consenting = || {
        let mut manager = ManagerFlow::new(Terms { ask_consent: true, ..USUAL }, NOW);
        manager.handle(NOW, &login().encode()).unwrap();
        manager.poll_event().unwrap();
        manager.verified(NOW, Verdict::login(), None).unwrap();
        manager.poll_event().unwrap();
        manager
    };
    for message in sleeve_messages(1) {
        let mut verifying = ManagerFlow::new(USUAL, NOW);
        verifying.handle(NOW, &login().encode()).unwrap();
        verifying.poll_event().unwrap();
        ends_manager(verifying, &message);
        ends_manager(consenting(), &message);
    }
    // A word that comes after that is for nobody, and lets nobody in.
    let mut manager = consenting();
    manager.handle(NOW, &SleeveMessage::List(1).encode()).unwrap_err();
    manager.poll_event().unwrap();
    manager.consented(NOW, true).unwrap();
    assert!(manager.poll().is_none());
}

#[test]
fn a4_there_is_one_login() {
    ends_manager(Pair::open().manager, &login());
    ends_manager(Pair::holding(Rules::any()).manager, &login());
}

#[test]
fn a8_requests_are_numbered_without_gap() {
    for message in sleeve_messages(2).into_iter().skip(1) {
        let mut manager = Pair::open().manager;
        if matches!(message, SleeveMessage::Sleep(_) | SleeveMessage::Awake) {
            manager.handle(NOW, &message.encode()).unwrap();
        } else {
            ends_manager(manager, &message);
        }
    }
    for number in [0, 1, 3, u32::MAX] {
        let mut pair = Pair::open();
        pair.sleeve.probe(NOW).unwrap();
        pair.run();
        ends_manager(pair.manager, &SleeveMessage::Probe(number));
    }
}

#[test]
fn a8_one_request_is_under_way() {
    let open = |message: &SleeveMessage| {
        let mut manager = Pair::open().manager;
        manager.handle(NOW, &message.encode()).unwrap();
        manager.poll_event().unwrap();
        manager
    };
    let holding = |message: &SleeveMessage| {
        let mut manager = Pair::holding(Rules::any()).manager;
        manager.handle(NOW, &message.encode()).unwrap();
        manager.poll_event().unwrap();
        manager
    };
    for number in 1..5 {
        for message in sleeve_messages(number) {
            ends_manager(open(&SleeveMessage::List(1)), &message);
            ends_manager(open(&take(1)), &message);
            ends_manager(holding(&apdu(2, &READ)), &message);
            ends_manager(holding(&SleeveMessage::Reset(2)), &message);
        }
    }
    // What was sent to the card stays sent; its answer is for nobody.
    let mut manager = holding(&apdu(2, &READ));
    manager.handle(NOW, &apdu(3, &READ).encode()).unwrap_err();
    manager.poll_event().unwrap();
    manager.answered(LEASE, Ok(&OK)).unwrap();
    assert!(manager.poll().is_none());
}

#[test]
fn a8_a_sleeve_has_one_card() {
    ends_manager(Pair::holding(Rules::any()).manager, &take(2));
}

#[test]
fn a8_without_a_card_nothing_reaches_one() {
    for message in [apdu(1, &READ), SleeveMessage::Reset(1)] {
        let mut manager = Pair::open().manager;
        manager.handle(NOW, &message.encode()).unwrap();
        let refused = ManagerMessage::decode(&manager.poll_transmit().unwrap()).unwrap();
        let check = CheckName::new("card-not-taken").unwrap();
        assert_eq!(refused, ManagerMessage::Refused(Refused { number: 1, check }));
        assert!(manager.poll().is_none());
    }
}

#[test]
fn a9_who_tells_of_a_distance_check_has_made_one() {
    ends_manager(Pair::open().manager, &distance());
    ends_manager(Pair::holding(Rules::any()).manager, &distance());
    let checked = |command: &[u8]| {
        let mut pair = Pair::holding(Rules::any());
        pair.exchange(command, &CHECK_ANSWER);
        pair
    };
    ends_manager(checked(&READ).manager, &distance());
    // Once, and before anything else: the audit is not for filling.
    let mut manager = checked(&CHECK).manager;
    manager.handle(NOW, &distance().encode()).unwrap();
    assert!(matches!(manager.poll_event(), Some(ManagerEvent::DistanceCheckFails(_))));
    ends_manager(manager, &distance());
    let mut manager = checked(&CHECK).manager;
    manager.handle(NOW, &SleeveMessage::Probe(3).encode()).unwrap();
    manager.poll_transmit().unwrap();
    ends_manager(manager, &distance());
}

fn piece(number: u32, total: usize, offset: usize, len: usize) -> Piece {
    let data = Wiped::new(&vec![7; len]).unwrap();
    Piece { number, total: total as u32, offset: offset as u32, data }
}

/// Pieces that belong to no APDU; the last of each is the one that shows it.
fn wrong_pieces(number: u32) -> Vec<Vec<Piece>> {
    let total = 3 * PIECE_MAX;
    let full = |at: usize| piece(number, total, at * PIECE_MAX, PIECE_MAX);
    vec![
        vec![full(1)],
        vec![full(0), full(2)],
        vec![full(0), full(0)],
        vec![full(0), full(1), full(1)],
        vec![full(0), Piece { number: number + 1, ..full(1) }],
        vec![full(0), piece(number, total - 1, PIECE_MAX, PIECE_MAX)],
        vec![full(0), piece(number, 2 * PIECE_MAX, PIECE_MAX, PIECE_MAX)],
    ]
}

/// Pieces that say what cannot be.
fn impossible_pieces(number: u32) -> [Piece; 7] {
    [
        piece(number, 5, 0, 4),
        piece(number, 5, 0, 6),
        piece(number, 5, 1, 4),
        piece(number, 0, 0, 0),
        piece(number, APDU_MAX + 1, 0, PIECE_MAX),
        piece(number, 3 * PIECE_MAX, PIECE_MAX - 1, PIECE_MAX),
        piece(number, 5, PIECE_MAX, 5),
    ]
}

#[test]
fn a8_pieces_with_gaps_overlaps_or_strangers_end_the_session() {
    for pieces in wrong_pieces(2) {
        let mut manager = Pair::holding(Rules::any()).manager;
        let (last, first) = pieces.split_last().unwrap();
        for piece in first {
            manager.handle(NOW, &SleeveMessage::Apdu(piece.clone()).encode()).unwrap();
            assert!(manager.poll().is_none());
        }
        ends_manager(manager, &SleeveMessage::Apdu(last.clone()));

        let mut pair = Pair::holding(Rules::any());
        pair.sleeve.transmit(NOW, &READ).unwrap();
        pair.run();
        for piece in first {
            let message = ManagerMessage::ApduResult(piece.clone());
            pair.sleeve.handle(NOW, &message.encode()).unwrap();
            assert!(pair.sleeve.poll().is_none());
        }
        ends_sleeve(pair.sleeve, &ManagerMessage::ApduResult(last.clone()));
    }
    for piece in impossible_pieces(2) {
        let malformed = Err(FlowError::Message(MessageError::Malformed));
        let mut pair = Pair::holding(Rules::any());
        pair.sleeve.transmit(NOW, &READ).unwrap();
        while pair.sleeve.poll().is_some() {}
        let command = SleeveMessage::Apdu(piece.clone()).encode();
        assert_eq!(pair.manager.handle(NOW, &command), malformed, "{piece:?}");
        let response = ManagerMessage::ApduResult(piece).encode();
        assert_eq!(pair.sleeve.handle(NOW, &response), malformed);
    }
    // Something else between two pieces.
    for message in sleeve_messages(3).into_iter().chain(sleeve_messages(2)) {
        let mut manager = Pair::holding(Rules::any()).manager;
        let first = piece(2, 3 * PIECE_MAX, 0, PIECE_MAX);
        manager.handle(NOW, &SleeveMessage::Apdu(first).encode()).unwrap();
        ends_manager(manager, &message);
    }
}

#[test]
fn what_is_no_message_ends_the_session() {
    let long = vec![4; MESSAGE_LEN_MAX + 1];
    for wrong in [&[][..], &[0], &[1], &[0x81], &[2, 0, 0, 0], &[8, 0], &long] {
        for mut manager in [ManagerFlow::new(USUAL, NOW), Pair::open().manager] {
            let error = manager.handle(NOW, wrong).unwrap_err();
            assert_eq!(error.check(), "message-malformed", "{wrong:?}");
            assert_eq!(manager.handle(NOW, &login().encode()), Err(FlowError::Dead));
        }
        for mut sleeve in [SleeveFlow::new(false), Pair::open().sleeve] {
            let error = sleeve.handle(NOW, wrong).unwrap_err();
            assert_eq!(error.check(), "message-malformed", "{wrong:?}");
        }
    }
}

#[test]
fn a8_a_manager_answers_what_was_asked() {
    // Nothing was asked: before the login, and after it.
    for message in manager_messages(0).into_iter().chain(manager_messages(1)) {
        if matches!(message, ManagerMessage::Ended(_)) {
            continue;
        }
        ends_sleeve(SleeveFlow::new(false), &message);
        // Of a lease that is none, it may have been told too late.
        if !matches!(message, ManagerMessage::LeaseEnded(_)) {
            ends_sleeve(Pair::open().sleeve, &message);
        }
    }
    // Something else, or with another number: of the ten messages, which fit?
    type Ask = fn(&mut SleeveFlow);
    let asks: [(Ask, &[usize]); 6] = [
        (|sleeve| sleeve.list(NOW).unwrap(), &[1, 6]),
        (|sleeve| sleeve.transmit(NOW, &READ).unwrap(), &[3, 6]),
        (|sleeve| sleeve.release(NOW).unwrap(), &[4, 6]),
        (|sleeve| sleeve.probe(NOW).unwrap(), &[5, 6]),
        (|sleeve| sleeve.reset(NOW).unwrap(), &[6, 9]),
        // Its card is gone: only a refusal is left.
        (
            |sleeve| {
                sleeve.transmit(NOW, &READ).unwrap();
                let ended = LeaseEnded { lease: LEASE, check: check() };
                sleeve.handle(NOW, &ManagerMessage::LeaseEnded(ended).encode()).unwrap();
            },
            &[6],
        ),
    ];
    for (ask, fits) in asks {
        for number in [0, 1, 2, 3, u32::MAX] {
            for (index, message) in manager_messages(number).into_iter().enumerate() {
                let mut sleeve = Pair::holding(Rules::any()).sleeve;
                ask(&mut sleeve);
                while sleeve.poll().is_some() {}
                // 7 and 8 are no answers.
                if index == 7 || index == 8 {
                    continue;
                }
                if number == 2 && fits.contains(&index) {
                    sleeve.handle(NOW, &message.encode()).unwrap();
                } else {
                    ends_sleeve(sleeve, &message);
                }
            }
        }
    }
    // A card that was not asked for.
    let mut pair = Pair::open();
    pair.sleeve.take(NOW, &card()).unwrap();
    while pair.sleeve.poll().is_some() {}
    ends_sleeve(pair.sleeve, &manager_messages(2)[2]);
}

#[test]
fn a4_a_manager_that_answers_a_login_otherwise() {
    for message in manager_messages(1) {
        let mut sleeve = SleeveFlow::new(false);
        sleeve.login(NOW, &secret("open sesame")).unwrap();
        sleeve.poll_transmit().unwrap();
        match message {
            ManagerMessage::LoginResult(_) | ManagerMessage::Ended(_) => {
                sleeve.handle(NOW, &message.encode()).unwrap();
            }
            _ => ends_sleeve(sleeve, &message),
        }
    }
}

#[test]
fn an_owner_that_answers_what_was_not_asked_ends_the_session() {
    type Answer = fn(&mut ManagerFlow) -> Result<(), FlowError>;
    let answers: [(&str, Answer); 7] = [
        ("verified", |manager| manager.verified(NOW, Verdict::login(), None)),
        ("locked", |manager| manager.locked(NOW, Locked { seconds: 1 })),
        ("listed", |manager| manager.listed(lines())),
        ("taken", |manager| manager.taken(NOW, Ok(given(Rules::any())))),
        ("not taken", |manager| manager.taken(NOW, Err("card-lent"))),
        ("answered", |manager| manager.answered(LEASE, Ok(&OK))),
        ("was_reset", |manager| manager.was_reset(LEASE, Ok(atr()))),
    ];
    for (name, answer) in answers {
        let mut manager = Pair::holding(Rules::any()).manager;
        assert_eq!(answer(&mut manager), Err(FlowError::Misuse), "{name}");
        assert!(manager.poll_transmit().is_none(), "{name}");
        assert!(matches!(manager.poll_event(), Some(ManagerEvent::Ended { .. })));
        // Before a login there is no card, and a session.
        let mut fresh = ManagerFlow::new(USUAL, NOW);
        if !matches!(name, "answered" | "was_reset") {
            assert_eq!(answer(&mut fresh), Err(FlowError::Misuse), "{name}");
        }
    }
    // Of another lease it is for nobody.
    let mut pair = Pair::holding(Rules::any());
    pair.manager.answered(LEASE + 1, Ok(&OK)).unwrap();
    pair.manager.was_reset(LEASE + 1, Ok(atr())).unwrap();
    assert_eq!(pair.run(), [""; 0]);
    // Too many cards are a fault of the owner's too.
    let mut manager = Pair::open().manager;
    manager.handle(NOW, &SleeveMessage::List(1).encode()).unwrap();
    manager.poll_event().unwrap();
    let many = vec![lines().remove(0); crate::message::CARDS_MAX + 1];
    assert_eq!(manager.listed(many), Err(FlowError::Misuse));
    // After the end, what was under way is for nobody.
    let mut pair = Pair::open();
    pair.sleeve.list(NOW).unwrap();
    pair.run();
    pair.manager.end("sleeve-revoked");
    pair.manager.listed(lines()).unwrap();
    assert_eq!(pair.run(), ["sleeve ended sleeve-revoked", "manager ended sleeve-revoked"]);
}

/// One step of a sleeve that says whatever it likes, and of its manager's owner.
#[derive(Debug, Clone)]
enum Step {
    Say(usize, i8),
    Bytes(Vec<u8>),
    Verify(u8),
    Consent(bool),
    Answer(bool),
    LeaseEnds,
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..10_usize, prop_oneof![8 => Just(1_i8), 1 => -1..3_i8])
            .prop_map(|(which, ahead)| Step::Say(which, ahead)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        4 => (0..4_u8).prop_map(Step::Verify),
        3 => any::<bool>().prop_map(Step::Consent),
        6 => any::<bool>().prop_map(Step::Answer),
        1 => Just(Step::LeaseEnds),
        1 => (0..70_000_u32).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Whatever a sleeve says in whatever order: no card without a right password and consent, one
    /// command at a time, each to the card once, none after the lease or the session.
    #[test]
    fn no_order_of_messages_reaches_a_card_without_login_and_lease(
        steps in steps(), ask_consent in any::<bool>(),
    ) {
        let mut manager = ManagerFlow::new(Terms { ask_consent, readable: false }, NOW);
        let (mut now, mut number, mut over) = (NOW, 0_u32, false);
        let (mut let_in, mut held, mut asked) = (false, false, None);
        // The first is always a login.
        for step in [Step::Say(0, 1)].into_iter().chain(steps) {
            match step {
                Step::Say(which, ahead) => {
                    let number = number.wrapping_add_signed(ahead.into());
                    let message = sleeve_messages(number).remove(which);
                    over |= manager.handle(now, &message.encode()).is_err();
                }
                Step::Bytes(bytes) => over |= manager.handle(now, &bytes).is_err(),
                Step::Verify(kind) if asked == Some("verify") => {
                    asked = None;
                    match kind {
                        0 => manager.locked(now, Locked { seconds: 1 }).unwrap(),
                        1 => manager.verified(now, Verdict::wrong(), None).unwrap(),
                        _ => {
                            let alarm = kind & 1 != 0;
                            let verdict = if alarm { Verdict::alarm() } else { Verdict::login() };
                            let_in |= !ask_consent;
                            manager.verified(now, verdict, None).unwrap();
                        }
                    }
                }
                Step::Consent(yes) if asked == Some("consent") => {
                    asked = None;
                    let_in |= yes;
                    manager.consented(now, yes).unwrap();
                }
                Step::Answer(well) => match asked.take() {
                    Some("list") => manager.listed(lines()).unwrap(),
                    Some("take") if well => {
                        manager.taken(now, Ok(given(Rules::any()))).unwrap();
                        held = !over;
                    }
                    Some("take") => manager.taken(now, Err("card-lent")).unwrap(),
                    Some("transmit") if well => manager.answered(LEASE, Ok(&OK)).unwrap(),
                    Some("transmit") => {
                        manager.answered(LEASE, Err(&LinkError::Removed)).unwrap();
                        held = false;
                    }
                    Some("reset") => manager.was_reset(LEASE, Ok(atr())).unwrap(),
                    other => asked = other,
                },
                Step::LeaseEnds => {
                    manager.lease_ended(LEASE, "lease-expired");
                    held = false;
                }
                Step::Wait(millis) => {
                    now = now.plus(Duration::from_millis(millis.into()));
                    over |= manager.handle_timeout(now).is_err();
                }
                Step::Verify(_) | Step::Consent(_) => {}
            }
            while let Some(output) = manager.poll() {
                let event = match output {
                    Output::Send(bytes) => {
                        // What the manager says is always a message.
                        match ManagerMessage::decode(&bytes).unwrap() {
                            ManagerMessage::Released(of)
                            | ManagerMessage::ProbeResult(of)
                            | ManagerMessage::Refused(Refused { number: of, .. }) => number = of,
                            _ => {}
                        }
                        continue;
                    }
                    Output::Event(event) => event,
                };
                let is_end = matches!(event, ManagerEvent::Ended { .. });
                prop_assert!(!over || is_end, "{:?} after the end", event);
                let word = match event {
                    ManagerEvent::Verify(_) => Some("verify"),
                    ManagerEvent::Consent => Some("consent"),
                    ManagerEvent::List => Some("list"),
                    ManagerEvent::Take { .. } => {
                        prop_assert!(!held);
                        Some("take")
                    }
                    ManagerEvent::Transmit { .. } => {
                        prop_assert!(held && asked.is_none());
                        Some("transmit")
                    }
                    ManagerEvent::Reset { .. } => {
                        prop_assert!(held && asked.is_none());
                        Some("reset")
                    }
                    ManagerEvent::Released { .. } => {
                        prop_assert!(held);
                        held = false;
                        None
                    }
                    ManagerEvent::LoggedIn(_) => {
                        prop_assert!(let_in);
                        None
                    }
                    ManagerEvent::Ended { .. } => {
                        over = true;
                        held = false;
                        None
                    }
                    _ => None,
                };
                if matches!(word, Some("list" | "take" | "transmit" | "reset")) {
                    prop_assert!(let_in);
                    number = number.wrapping_add(1);
                }
                if word.is_some() {
                    asked = word;
                }
            }
        }
    }

    /// Whatever a manager says: the sleeve never panics, has no card that it did not ask for, and
    /// tells of at most one answer to each question.
    #[test]
    fn no_order_of_answers_gives_a_sleeve_what_it_did_not_ask_for(
        steps in prop::collection::vec((0..7_u8, 0..10_usize, 0..3_u32), 1..60),
    ) {
        let mut sleeve = SleeveFlow::new(false);
        let (mut open, mut took, mut sent, mut answers) = (false, false, 0, 0);
        for (what, which, behind) in steps {
            match what {
                0 if !open => drop(sleeve.login(NOW, &secret("open sesame"))),
                0 => took |= sleeve.take(NOW, &card()).is_ok(),
                1 => sent += u32::from(sleeve.transmit(NOW, &READ).is_ok()),
                2 => drop(sleeve.list(NOW)),
                _ => {}
            }
            let mut number = 1_u32;
            while let Some(output) = sleeve.poll() {
                match output {
                    Output::Send(bytes) => number = match SleeveMessage::decode(&bytes).unwrap() {
                        SleeveMessage::List(number) => number,
                        SleeveMessage::Take(take) => take.number,
                        SleeveMessage::Apdu(piece) => piece.number,
                        _ => number,
                    },
                    Output::Event(_) => {}
                }
            }
            let message = manager_messages(number.wrapping_sub(behind / 2)).remove(which);
            let _ended = sleeve.handle(NOW, &message.encode());
            while let Some(output) = sleeve.poll() {
                match output {
                    Output::Event(SleeveEvent::LoggedIn) => open = true,
                    Output::Event(SleeveEvent::Answer(_)) => answers += 1,
                    Output::Event(SleeveEvent::Taken(_)) => prop_assert!(took),
                    _ => {}
                }
            }
            prop_assert!(sleeve.lease().is_none() || took);
            prop_assert!(answers <= sent);
        }
    }
}
