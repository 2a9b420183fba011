use countersign_injection::message::{
    Binding, CERTIFICATE_LEN_MAX, Incident, InjectionId, Installed, KeyToken, MESSAGE_LEN_MAX,
    MessageError, Refusal, Refusing, SLOTS, ServerMessage, TOKEN_LEN_MAX, TerminalMessage, Token,
    TokenRefused, TokenRequest,
};
use countersign_injection::{Bounded, Name};
use proptest::prelude::*;

fn token(fill: u8, len: usize) -> Token {
    Bounded::new(&vec![fill; len]).unwrap()
}

fn name<const MAX: usize>(text: &str) -> Name<MAX> {
    Name::new(text).unwrap()
}

fn installed(slot: u8, kcv: &[u8]) -> TerminalMessage {
    let kcv = Bounded::new(kcv).unwrap();
    TerminalMessage::Installed(Installed { injection: name("inj_1"), slot, kcv })
}

fn to_server() -> Vec<TerminalMessage> {
    let refused = |what, injection| {
        let (injection, check) = (name(injection), name("crl-expired"));
        TerminalMessage::Refused(TokenRefused { what, injection, check })
    };
    vec![
        TerminalMessage::Bind(token(1, 900)),
        TerminalMessage::TokenRequest(TokenRequest {
            request: Bounded::new(&[2; 40]).unwrap(),
            bound: [3; 32],
            crl_seen: Bounded::new(&[1, 0]).unwrap(),
        }),
        installed(SLOTS - 1, &[1, 2, 3]),
        refused(Refusing::Key, "inj_1"),
        refused(Refusing::Rebinding, ""),
        TerminalMessage::Unbound,
    ]
}

fn to_terminal() -> Vec<ServerMessage> {
    let ca_kdh = Bounded::new(&[7; CERTIFICATE_LEN_MAX]).unwrap();
    let key = KeyToken { injection: name("inj_1"), slot: 0, token: token(4, TOKEN_LEN_MAX) };
    vec![
        ServerMessage::Bound(Binding { token: token(4, TOKEN_LEN_MAX), ca_kdh }),
        ServerMessage::KeyToken(key),
        ServerMessage::Rebind(Binding {
            token: token(5, 1000),
            ca_kdh: Bounded::new(&[]).unwrap(),
        }),
        ServerMessage::RebindByCa(Binding {
            token: token(8, 1000),
            ca_kdh: Bounded::new(&[7; 600]).unwrap(),
        }),
        ServerMessage::Unbind(token(6, 1000)),
        ServerMessage::Nothing,
        ServerMessage::Confirmed(name("inj_1")),
        ServerMessage::Noted(Incident::clipped("")),
        ServerMessage::Refused(Refusal::new(name("terminal-not-bound"), true, name("inc_1"))),
    ]
}

#[test]
fn every_message_comes_back_and_has_a_type_of_its_own() {
    let mut types = Vec::new();
    for message in to_server() {
        let bytes = message.encode();
        assert_eq!(TerminalMessage::decode(&bytes), Ok(message));
        assert!(ServerMessage::decode(&bytes).is_err());
        types.push(bytes[0]);
    }
    for message in to_terminal() {
        let bytes = message.encode();
        assert!(bytes.len() <= MESSAGE_LEN_MAX);
        assert_eq!(ServerMessage::decode(&bytes), Ok(message));
        assert!(TerminalMessage::decode(&bytes).is_err());
        types.push(bytes[0]);
    }
    types.dedup();
    let expected = [1, 2, 3, 4, 5, 0x81, 0x82, 0x83, 0x89, 0x84, 0x85, 0x86, 0x87, 0x88];
    assert_eq!(types, expected, "stable codes");
}

#[test]
fn what_cannot_be_is_refused() {
    use MessageError::{Malformed, TooLong, Trailing, Truncated, UnknownType};
    let cases = [
        (vec![], Truncated),
        (vec![9], UnknownType(9)),
        (vec![0x81, 0, 0], UnknownType(0x81)),
        (vec![5, 0], Trailing),
        (vec![1, 0, 5, 1], Truncated),
        (vec![1, 0xFF, 0xFF], Malformed), // a length above the bound, before anything is read
        (vec![4, 7, 0, 1, b'c'], UnknownType(7)),
        (vec![4, 1, 5, b'i'], Truncated),
        (vec![4, 4, 0, 0], Malformed),             // no check
        (vec![4, 2, 0, 1, b'c'], Malformed),       // a key without its injection
        (vec![4, 1, 1, b'i', 1, b'c'], Malformed), // a binding with one
        (vec![4, 4, 0, 1, b' '], Malformed),       // not visible
        (vec![3, 0, 0, 0, 3, 1, 2, 3], Malformed), // no injection
        (installed(SLOTS, &[1, 2, 3]).encode(), Malformed),
        (installed(0, &[1]).encode(), Malformed),
        (vec![0; MESSAGE_LEN_MAX + 1], TooLong(MESSAGE_LEN_MAX + 1)),
    ];
    for (bytes, error) in cases {
        assert_eq!(TerminalMessage::decode(&bytes), Err(error), "{bytes:02x?}");
    }
    let zero_first = TerminalMessage::TokenRequest(TokenRequest {
        request: Bounded::new(&[2; 40]).unwrap(),
        bound: [3; 32],
        crl_seen: Bounded::new(&[0, 1]).unwrap(),
    });
    assert_eq!(TerminalMessage::decode(&zero_first.encode()), Err(Malformed), "two encodings");
    for (bytes, error) in [
        (vec![0x86, 0], Malformed),
        (vec![0x88, 1, b'c', 2, 0], Malformed),
        (vec![0x88, 0, 0, 0], Malformed),
        (vec![0x82, 1, b'i', SLOTS, 0, 0], Malformed),
        (vec![0x85, 1], Trailing),
        (vec![1, 0, 0], UnknownType(1)),
    ] {
        assert_eq!(ServerMessage::decode(&bytes), Err(error), "{bytes:02x?}");
    }
}

#[test]
fn names_are_clipped_to_what_fits() {
    let clipped: InjectionId = Name::clipped(&format!("inj 1\n{}", "x".repeat(60)));
    assert_eq!(clipped.as_str(), format!("inj1{}", "x".repeat(37)));
    assert_eq!(InjectionId::new("a b"), None);
    assert_eq!(InjectionId::new(&"x".repeat(42)), None);
}

proptest! {
    /// Parsers are total, and what they accept has one encoding.
    #[test]
    fn any_bytes_are_refused_or_come_back(
        kind in prop::sample::select(vec![1_u8, 2, 3, 4, 5, 0x81, 0x82, 0x86, 0x87, 0x88]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes = [&[kind][..], &rest].concat();
        if let Ok(message) = TerminalMessage::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes.clone());
        }
        if let Ok(message) = ServerMessage::decode(&bytes) {
            prop_assert_eq!(message.encode(), bytes);
        }
    }
}
