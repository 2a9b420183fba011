use countersign_injection::message::{
    Binding, Incident, Installed, KeyToken, Refusing, ServerMessage, TerminalMessage, TokenRefused,
    TokenRequest,
};
use countersign_injection::server::refusal;
use countersign_injection::{Bounded, Name};

use super::Named;

/// Messages behind their lengths, as the target reads them.
fn script(messages: &[Vec<u8>]) -> Vec<u8> {
    let framed = messages.iter().map(|message| {
        let len = u16::try_from(message.len()).expect("short").to_be_bytes();
        [&len[..], message].concat()
    });
    framed.collect::<Vec<_>>().concat()
}

pub(super) fn injection() -> Named {
    let der = [0x30, 0x03, 0x02, 0x01, 0x05];
    let token = || Bounded::new(&der).expect("short");
    let id = || Name::clipped("inj_1");
    let bind = TerminalMessage::Bind(token()).encode();
    let asked = |kdh: u8| {
        let request = Bounded::new(&der).expect("short");
        let crl_seen = Bounded::new(&[1, 0]).expect("short");
        TerminalMessage::TokenRequest(TokenRequest { request, bound: [kdh; 32], crl_seen }).encode()
    };
    let kcv = Bounded::new(&[1, 2, 3]).expect("short");
    let installed = TerminalMessage::Installed(Installed { injection: id(), slot: 1, kcv });
    let refused =
        TokenRefused { what: Refusing::Key, injection: id(), check: Name::clipped("crl-expired") };
    let refused = TerminalMessage::Refused(refused).encode();
    let ca_kdh = Bounded::new(&der).expect("short");
    let binding = Binding { token: token(), ca_kdh };
    let bound = ServerMessage::Bound(binding.clone()).encode();
    let key =
        |slot| ServerMessage::KeyToken(KeyToken { injection: id(), slot, token: token() }).encode();
    let confirmed = ServerMessage::Confirmed(id()).encode();
    let noted = ServerMessage::Noted(Incident::clipped("inc_1")).encode();
    let rebind = ServerMessage::Rebind(binding.clone()).encode();
    let by_ca = ServerMessage::RebindByCa(binding).encode();
    let unbind = ServerMessage::Unbind(token()).encode();
    let nothing = ServerMessage::Nothing.encode();
    let closed = refusal("injection-closed", false, "").encode();
    let later = refusal("unavailable", true, "").encode();
    let unbound = TerminalMessage::Unbound.encode();
    vec![
        ("server", script(&[asked(2), installed.encode(), asked(2), refused, asked(1)])),
        ("server-bind", script(&[bind, asked(0), unbound])),
        ("server-again", script(&[installed.encode(), asked(1)])),
        (
            "terminal",
            script(&[confirmed.clone(), bound.clone(), key(1), confirmed.clone(), nothing]),
        ),
        ("terminal-refuses", script(&[confirmed.clone(), bound.clone(), key(2), noted])),
        ("terminal-discards", script(&[closed, bound.clone(), rebind, by_ca, unbind])),
        ("terminal-waits", script(&[confirmed, bound, later])),
    ]
}
