use countersign_crypto::Secret;
use proptest::prelude::*;

use super::*;

fn card(id: &str) -> CardId {
    CardId::new(id).unwrap()
}

fn line(id: &str, label: &str) -> CardLine {
    CardLine::new(card(id), Label::new(label).unwrap(), true, false)
}

fn check(name: &str) -> CheckName {
    CheckName::new(name).unwrap()
}

fn login(password: &str) -> SleeveMessage {
    let secret = Secret::copied_from(password.as_bytes());
    SleeveMessage::Login(PaddedPassword::new(&secret).unwrap())
}

fn piece(number: u32, len: usize) -> Piece {
    Piece::cut(number, &vec![7; len]).remove(0)
}

fn sleeve_messages() -> Vec<SleeveMessage> {
    vec![
        login("open sesame"),
        SleeveMessage::List(1),
        SleeveMessage::Take(Take { number: 2, card: card("visa") }),
        SleeveMessage::Apdu(piece(3, 5)),
        SleeveMessage::Release(4),
        SleeveMessage::Probe(5),
        SleeveMessage::Sleep(Times { every: 30_000, within: 5_000 }),
        SleeveMessage::Awake,
        SleeveMessage::Reset(6),
        SleeveMessage::Distance(DistanceCheckFails { measured: 400, maximum: 50 }),
    ]
}

fn manager_messages() -> Vec<ManagerMessage> {
    let atr = Atr::new(&[0x3b, 0x80, 1]).unwrap();
    let of = (atr.clone(), Label::new("my card").unwrap());
    vec![
        ManagerMessage::LoginResult(LoginResult { outcome: LoginOutcome::Ok, seconds: 0 }),
        ManagerMessage::Cards(Cards::new(1, vec![line("visa", "卡")]).unwrap()),
        ManagerMessage::Taken(Taken::new(2, 9, 60, of, Limits::NONE)),
        ManagerMessage::ApduResult(piece(3, 2)),
        ManagerMessage::Released(4),
        ManagerMessage::ProbeResult(5),
        ManagerMessage::Refused(Refused { number: 6, check: check("policy-aid") }),
        ManagerMessage::LeaseEnded(LeaseEnded { lease: 9, check: check("lease-expired") }),
        ManagerMessage::Ended(check("sleeve-revoked")),
        ManagerMessage::ResetDone(ResetDone { number: 7, atr }),
    ]
}

#[test]
fn every_message_survives_the_wire_and_has_one_encoding() {
    for message in sleeve_messages() {
        let bytes = message.encode();
        // Secrets are encoded by hand, beside the derived form: both must be the same.
        assert_eq!(*bytes, message.tls_serialize_bytes().unwrap(), "{}", message.name());
        assert_eq!(SleeveMessage::decode(&bytes), Ok(message));
    }
    for message in manager_messages() {
        let bytes = message.encode();
        assert_eq!(*bytes, message.tls_serialize_bytes().unwrap(), "{}", message.name());
        assert_eq!(ManagerMessage::decode(&bytes), Ok(message));
    }
}

#[test]
fn what_is_cut_or_followed_by_more_is_refused() {
    for message in sleeve_messages() {
        let bytes = message.encode();
        for len in 0..bytes.len() {
            assert!(SleeveMessage::decode(&bytes[..len]).is_err(), "{} {len}", message.name());
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(SleeveMessage::decode(&more).is_err(), "{}", message.name());
    }
    for message in manager_messages() {
        let bytes = message.encode();
        for len in 0..bytes.len() {
            assert!(ManagerMessage::decode(&bytes[..len]).is_err(), "{} {len}", message.name());
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(ManagerMessage::decode(&more).is_err(), "{}", message.name());
    }
    let long = vec![4; MESSAGE_LEN_MAX + 1];
    assert_eq!(SleeveMessage::decode(&long), Err(MessageError::TooLong(MESSAGE_LEN_MAX + 1)));
    assert_eq!(SleeveMessage::decode(&[0x81]), Err(MessageError::UnknownType(0x81)));
    assert_eq!(ManagerMessage::decode(&[1]), Err(MessageError::UnknownType(1)));
}

#[test]
fn impossible_fields_are_refused() {
    let malformed = Err(MessageError::Malformed);
    let sleep = |every, within| SleeveMessage::Sleep(Times { every, within }).encode();
    assert_eq!(SleeveMessage::decode(&sleep(0, 1)), malformed);
    assert_eq!(SleeveMessage::decode(&sleep(1, 0)), malformed);
    let nameless = SleeveMessage::Take(Take { number: 1, card: card("") }).encode();
    assert_eq!(SleeveMessage::decode(&nameless), malformed);
    let met = DistanceCheckFails { measured: 50, maximum: 50 };
    assert_eq!(SleeveMessage::decode(&SleeveMessage::Distance(met).encode()), malformed);

    let malformed = Err(MessageError::Malformed);
    let result =
        |outcome, seconds| ManagerMessage::LoginResult(LoginResult { outcome, seconds }).encode();
    assert_eq!(ManagerMessage::decode(&result(LoginOutcome::Ok, 1)), malformed);
    assert_eq!(ManagerMessage::decode(&result(LoginOutcome::Declined, 1)), malformed);
    ManagerMessage::decode(&result(LoginOutcome::Locked, 1)).unwrap();
    let unnamed = ManagerMessage::Ended(check("")).encode();
    assert_eq!(ManagerMessage::decode(&unnamed), malformed);
    let mut state = line("visa", "v");
    state.state = 4;
    let cards = ManagerMessage::Cards(Cards::new(1, vec![state]).unwrap()).encode();
    assert_eq!(ManagerMessage::decode(&cards), malformed);
}

#[test]
fn pieces_that_lie_about_themselves_are_refused() {
    let sound = Piece { number: 1, total: 5, offset: 0, data: Wiped::new(&[7; 5]).unwrap() };
    let full = Wiped::new(&[7; PIECE_MAX]).unwrap();
    for wrong in [
        Piece { total: 6, ..sound.clone() },
        Piece { total: 4, ..sound.clone() },
        Piece { total: 0, data: Wiped::new(&[]).unwrap(), ..sound.clone() },
        Piece { offset: 5, ..sound.clone() },
        Piece { offset: u32::MAX, ..sound.clone() },
        Piece { total: APDU_MAX as u32 + 1, data: full.clone(), ..sound.clone() },
        Piece { total: u32::MAX, data: full.clone(), ..sound.clone() },
        Piece { total: 3 * PIECE_MAX as u32, offset: 1, data: full, ..sound.clone() },
    ] {
        let bytes = SleeveMessage::Apdu(wrong.clone()).encode();
        assert_eq!(SleeveMessage::decode(&bytes), Err(MessageError::Malformed), "{wrong:?}");
    }
    SleeveMessage::decode(&SleeveMessage::Apdu(sound).encode()).unwrap();
    assert!(Piece::cut(1, &[]).is_empty());
    assert!(Piece::cut(1, &vec![0; APDU_MAX + 1]).is_empty());
}

/// Joins pieces; the whole, if all belong to it.
fn join(pieces: &[Piece]) -> Option<Zeroizing<Vec<u8>>> {
    let mut joiner = None;
    for (index, piece) in pieces.iter().enumerate() {
        match Joiner::take(joiner.take(), piece)? {
            Joined::More(more) => joiner = Some(more),
            Joined::Whole(whole) => return (index + 1 == pieces.len()).then_some(whole),
        }
    }
    None
}

#[test]
fn an_apdu_of_64_kib_goes_in_pieces() {
    for len in [1, PIECE_MAX, PIECE_MAX + 1, APDU_MAX] {
        let apdu: Vec<u8> = (0..len).map(|index| index as u8).collect();
        let pieces = Piece::cut(7, &apdu);
        assert_eq!(pieces.len(), len.div_ceil(PIECE_MAX));
        for piece in &pieces {
            let bytes = SleeveMessage::Apdu(piece.clone()).encode();
            assert!(bytes.len() <= MESSAGE_LEN_MAX);
            assert_eq!(SleeveMessage::decode(&bytes), Ok(SleeveMessage::Apdu(piece.clone())));
        }
        assert_eq!(join(&pieces).as_deref(), Some(&apdu));
    }
    let pieces = Piece::cut(7, &vec![1; 3 * PIECE_MAX]);
    assert!(join(&[pieces[0].clone(), pieces[2].clone()]).is_none(), "a gap");
    assert!(join(&[pieces[0].clone(), pieces[0].clone()]).is_none(), "doubled");
    assert!(join(&[pieces[1].clone()]).is_none(), "no beginning");
    let other = Piece { number: 8, ..pieces[1].clone() };
    assert!(join(&[pieces[0].clone(), other]).is_none(), "of another command");
    let shorter = Piece { total: 2 * PIECE_MAX as u32, ..pieces[1].clone() };
    assert!(join(&[pieces[0].clone(), shorter]).is_none(), "of another length");
}

#[test]
fn a5_a_login_has_one_length_whatever_is_typed_and_answered() {
    let long = "x".repeat(128);
    for password in ["abcd", "open sesame", &long] {
        assert_eq!(login(password).encode().len(), 129);
    }
    for outcome in [LoginOutcome::Ok, LoginOutcome::Refused, LoginOutcome::Locked] {
        for seconds in [0, 86_400] {
            let result = ManagerMessage::LoginResult(LoginResult { outcome, seconds });
            assert_eq!(result.encode().len(), LOGIN_RESULT_LEN);
        }
    }
    assert_eq!(format!("{:?}", login("open sesame")), "Login(PaddedPassword(..))");
}

#[test]
fn a5_lists_of_cards_differ_in_steps_only() {
    let len = |lines: &[CardLine]| {
        ManagerMessage::Cards(Cards::new(1, lines.to_vec()).unwrap()).encode().len()
    };
    let real = [line("visa", "Visa, blue"), line("union", "银联"), line("key", "the house")];
    let decoys = [line("decoy", "Old card")];
    assert_eq!((len(&real), len(&decoys), len(&[])), (STEP, STEP, STEP));
    let most = vec![line(&"c".repeat(CARD_ID_MAX), &"l".repeat(LABEL_MAX)); CARDS_MAX];
    assert!(len(&most).is_multiple_of(STEP) && len(&most) <= MESSAGE_LEN_MAX);
    assert!(Cards::new(1, [&most[..], &decoys].concat()).is_none());
    let taken = |atr: &[u8], label: &str| {
        let of = (Atr::new(atr).unwrap(), Label::new(label).unwrap());
        ManagerMessage::Taken(Taken::new(1, 2, 3, of, Limits::NONE)).encode().len()
    };
    assert_eq!((taken(&[], ""), taken(&[1; 33], &"x".repeat(64))), (STEP, STEP));
}

#[test]
fn a_label_shows_what_it_is() {
    for right in ["Visa, blue", "银联", "", "e\u{301}"] {
        assert_eq!(Label::new(right).unwrap().as_str(), right);
    }
    for wrong in ["two\nlines", "\u{1b}[2J", "a\u{202e}b", "a\u{2066}b", "a\u{200f}b", "a\u{2028}b"]
    {
        assert_eq!(Label::new(wrong), None, "{wrong:?}");
        // Nor from the wire, on which the whole message is refused.
        let right = "x".repeat(wrong.len());
        let cards = Cards::new(1, vec![line("visa", &right)]).unwrap();
        let mut bytes = ManagerMessage::Cards(cards).encode();
        let at = bytes.windows(right.len()).position(|part| part == right.as_bytes()).unwrap();
        bytes[at..][..wrong.len()].copy_from_slice(wrong.as_bytes());
        assert_eq!(ManagerMessage::decode(&bytes), Err(MessageError::Malformed), "{wrong:?}");
    }
}

#[test]
fn padding_is_zeros_and_no_more_than_needed() {
    let mut bytes = ManagerMessage::Cards(Cards::new(1, vec![]).unwrap()).encode().to_vec();
    let last = bytes.len() - 1;
    bytes[last] = 1;
    assert_eq!(ManagerMessage::decode(&bytes), Err(MessageError::Malformed));
    bytes[last] = 0;
    bytes.extend([0; STEP]);
    assert_eq!(ManagerMessage::decode(&bytes), Err(MessageError::Malformed));
}

proptest! {
    #[test]
    fn parsers_are_total_and_what_they_take_has_one_encoding(
        kind in prop_oneof![0..12_u8, 0x80..0x8c_u8],
        body in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let bytes = [&[kind][..], &body].concat();
        if let Ok(message) = SleeveMessage::decode(&bytes) {
            prop_assert_eq!(&*message.encode(), &bytes);
        }
        if let Ok(message) = ManagerMessage::decode(&bytes) {
            prop_assert_eq!(&*message.encode(), &bytes);
        }
    }

    #[test]
    fn an_altered_message_is_another_one_or_none(
        which in 0..20_usize, at in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let (sleeve, manager) = (sleeve_messages(), manager_messages());
        if let Some(message) = sleeve.get(which) {
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(SleeveMessage::decode(&bytes).as_ref() != Ok(message));
        } else {
            let message = &manager[which - sleeve.len()];
            let mut bytes = message.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(ManagerMessage::decode(&bytes).as_ref() != Ok(message));
        }
    }

    #[test]
    fn any_apdu_is_cut_and_joined_again(len in 1..40_000_usize, number in any::<u32>()) {
        let apdu: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
        prop_assert!(join(&Piece::cut(number, &apdu)).as_deref() == Some(&apdu));
    }
}
