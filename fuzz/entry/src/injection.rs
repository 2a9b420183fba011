//! Messages of key injection, and both flows that are fed with them.

use countersign_crypto::UnixTime;
use countersign_injection::message::{
    Incident, Installed, KeyToken, MESSAGE_LEN_MAX, MessageError, ServerMessage, TerminalMessage,
    Token,
};
use countersign_injection::server::{ServerEvent, ServerFlow, refusal};
use countersign_injection::terminal::{Standing, TerminalEvent, TerminalFlow, TerminalWork};
use countersign_injection::{Bounded, Name, TOKENS_PER_CONTACT_MAX};

use crate::script::Script;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

/// A list of messages, each behind two bytes of length: what either side reads it writes again, and
/// a flow that is fed with them says no more than it is asked.
pub fn injection(data: &[u8]) {
    let mut script = Script::new(data);
    let mut server = ServerFlow::new(NOW);
    let pending = Installed {
        injection: Name::clipped("inj_1"),
        slot: 1,
        kcv: Bounded::new(&[1, 2, 3]).expect("short"),
    };
    let standing = Standing { ct_krd: token(), bound: None, pending: vec![pending] };
    let mut terminal = TerminalFlow::new(standing, NOW);
    let (mut asked, mut activated) = (0, 0);
    while !script.is_empty() {
        let len = script.number();
        let message = script.bytes(len);
        one(message);
        if server.handle(NOW, message).is_ok()
            && let Some(event) = server.poll_event()
        {
            asked += u32::from(matches!(event, ServerEvent::Asked(_)));
            assert!(asked <= TOKENS_PER_CONTACT_MAX, "a flood");
            if let Some(answer) = answer(event) {
                server.answer(NOW, &answer).expect("it fits what was asked");
                let said = server.poll_transmit().expect("an answer");
                assert!(ServerMessage::decode(&said).is_ok(), "what is said is read");
            }
        }
        let confirms = matches!(ServerMessage::decode(message), Ok(ServerMessage::Confirmed(_)));
        let _refused = terminal.handle(NOW, message);
        while let Some(work) = terminal.poll_event().and_then(|event| {
            let is_key = matches!(event, TerminalEvent::Activate(_));
            assert!(!is_key || confirms, "no key is used that was not confirmed");
            activated += u32::from(is_key);
            work(event)
        }) {
            terminal.answer(NOW, work).expect("it fits what was asked");
        }
        if let Some(said) = terminal.poll_transmit() {
            assert!(TerminalMessage::decode(&said).is_ok(), "what is said is read");
        }
    }
    assert!(activated <= TOKENS_PER_CONTACT_MAX + 1);
}

/// One message, read as each side reads it.
fn one(message: &[u8]) {
    let (to_server, to_terminal) =
        (TerminalMessage::decode(message), ServerMessage::decode(message));
    assert!(to_server.is_err() || to_terminal.is_err(), "a message of both sides");
    if message.len() > MESSAGE_LEN_MAX {
        assert_eq!(to_server.as_ref().err(), Some(&MessageError::TooLong(message.len())));
    }
    if let Ok(read) = to_server {
        assert_eq!(read.encode(), message, "one encoding");
    }
    if let Ok(read) = to_terminal {
        assert_eq!(read.encode(), message, "one encoding");
    }
}

fn token() -> Token {
    Bounded::new(&[0x30, 0x00]).expect("short")
}

fn answer(event: ServerEvent) -> Option<ServerMessage> {
    Some(match event {
        ServerEvent::Bind(_) => refusal("krd-not-own", false, "inc_1"),
        ServerEvent::Asked(asked) if asked.bound[0] == 0 => ServerMessage::Unbind(token()),
        ServerEvent::Asked(asked) if asked.bound[0] == 1 => ServerMessage::Nothing,
        ServerEvent::Asked(_) => {
            let injection = Name::clipped("inj_1");
            ServerMessage::KeyToken(KeyToken { injection, slot: 1, token: token() })
        }
        ServerEvent::Installed(installed) => ServerMessage::Confirmed(installed.injection),
        ServerEvent::Refused(_) => ServerMessage::Noted(Incident::clipped("inc_2")),
        ServerEvent::Unbound => return None,
    })
}

fn work(event: TerminalEvent) -> Option<TerminalWork> {
    Some(match event {
        TerminalEvent::CheckBinding(_)
        | TerminalEvent::Rebind(_)
        | TerminalEvent::RebindByCa(_) => TerminalWork::Bound([2; 32]),
        TerminalEvent::MakeRequest => TerminalWork::Requested {
            request: Bounded::new(&[0x30, 0x00]).expect("short"),
            crl_seen: Bounded::new(&[]).expect("short"),
        },
        TerminalEvent::Install(key) if key.slot > 1 => {
            TerminalWork::Refused(Name::clipped("token-recipient"))
        }
        TerminalEvent::Install(_) => {
            TerminalWork::Installed(Bounded::new(&[1, 2, 3]).expect("short"))
        }
        TerminalEvent::Unbind(_) => TerminalWork::Unbound,
        TerminalEvent::Activate(_) | TerminalEvent::Discard { .. } => TerminalWork::Kept,
        TerminalEvent::Done | TerminalEvent::Failed(_) => return None,
    })
}
