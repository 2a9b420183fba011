//! What happens at a manager, for people and for programs.

use countersign_device::{ManagerHappening, Route};
use countersign_net::mode_name;
use serde_json::{Value, json};

/// How a sleeve came, in a word.
pub(super) const fn way_name(way: Route) -> &'static str {
    match way {
        Route::Direct => "direct",
        Route::Relay => "relay",
    }
}

/// Its name for programs.
const fn name(happening: &ManagerHappening) -> &'static str {
    use ManagerHappening as H;
    match happening {
        H::Listening { .. } => "listening",
        H::Relay { connected: true, .. } => "relay",
        H::Relay { connected: false, .. } => "relay-lost",
        H::WindowOpened { .. } => "pairing-opened",
        H::WindowClosed { .. } => "pairing-closed",
        H::PairingAsked { .. } => "pairing",
        H::Paired { .. } => "paired",
        H::PairingFailed { .. } => "not-paired",
        H::Connected { .. } => "connected",
        H::LoginFailed { .. } => "login-refused",
        H::ConsentAsked { .. } => "consent-asked",
        H::Declined { .. } => "declined",
        H::LoggedIn { .. } => "logged-in",
        H::Taken { .. } => "taken",
        H::Released { .. } => "released",
        H::CardRefused { .. } => "card-refused",
        H::DistanceCheckFails { .. } => "distance-check-fails",
        H::Asleep { .. } => "asleep",
        H::Awake { .. } => "awake",
        H::Ended { .. } => "ended",
        H::Revoked { .. } => "revoked",
        H::Refused { .. } => "refused",
    }
}

/// As a program is told.
pub(super) fn json(happening: &ManagerHappening) -> Value {
    use ManagerHappening as H;
    let mut told = match happening {
        H::Listening { at } => json!({ "at": at }),
        H::Relay { connected: true, .. } => json!({}),
        H::Relay { connected: false, check } => json!({ "check": check }),
        H::WindowOpened { seconds } => json!({ "seconds": seconds }),
        H::WindowClosed { because } => json!({ "reason": because }),
        H::PairingAsked { sleeve } | H::Revoked { sleeve } => json!({ "sleeve": sleeve }),
        H::Paired { sleeve, number } => {
            json!({ "sleeve": sleeve, "certificateNumber": number.to_string() })
        }
        H::PairingFailed { sleeve, check } => json!({ "sleeve": sleeve, "check": check }),
        H::Connected { session, sleeve, way, mode } => json!({
            "session": session, "sleeve": sleeve, "way": way_name(*way), "mode": mode_name(*mode),
        }),
        H::LoginFailed { session, locked_seconds } => {
            json!({ "session": session, "lockedSeconds": locked_seconds })
        }
        H::ConsentAsked { session, seconds } => json!({ "session": session, "seconds": seconds }),
        H::Declined { session }
        | H::LoggedIn { session }
        | H::Asleep { session }
        | H::Awake { session } => json!({ "session": session }),
        H::Taken { session, card, label, seconds } => {
            json!({ "session": session, "card": card, "label": label, "seconds": seconds })
        }
        H::Released { session, card, because } => {
            json!({ "session": session, "card": card, "reason": because })
        }
        H::CardRefused { session, card, check } => {
            json!({ "session": session, "card": card, "check": check })
        }
        H::DistanceCheckFails { session, card } => json!({ "session": session, "card": card }),
        H::Ended { session, sleeve, check } => {
            json!({ "session": session, "sleeve": sleeve, "check": check })
        }
        H::Refused { check, detail } => json!({ "check": check, "detail": detail }),
    };
    told["event"] = json!(name(happening));
    told
}

/// As people are told.
pub(super) fn text(happening: &ManagerHappening) -> String {
    use ManagerHappening as H;
    match happening {
        H::Listening { at } => format!("Sleeves of this network find the manager at {at}"),
        H::Relay { connected: true, .. } => "The way through the server is open".to_owned(),
        H::Relay { connected: false, check } => format!(
            "The way through the server is lost [{}]: trying again",
            check.as_deref().unwrap_or("closed")
        ),
        H::WindowOpened { seconds } => format!("One sleeve may pair within {seconds} s"),
        H::WindowClosed { because } => format!("No sleeve may pair any more ({because})"),
        H::PairingAsked { sleeve } => format!("The sleeve {sleeve} pairs"),
        H::Paired { sleeve, number } => {
            format!("The sleeve {sleeve} is paired (certificate {number})")
        }
        H::PairingFailed { sleeve: Some(sleeve), check } => {
            format!("The sleeve {sleeve} is not paired [{check}]")
        }
        H::PairingFailed { sleeve: None, check } => format!("Nobody is paired [{check}]"),
        H::Connected { session, sleeve, way, mode } => {
            let (way, mode) = (way_name(*way), mode_name(*mode));
            format!("Session {session}: the sleeve {sleeve} is there ({way}, {mode})")
        }
        H::LoginFailed { session, locked_seconds: 0 } => {
            format!("Session {session}: the password was wrong")
        }
        H::LoginFailed { session, locked_seconds } => {
            format!("Session {session}: no password is taken for {locked_seconds} s")
        }
        H::ConsentAsked { session, seconds } => format!(
            "Session {session}: may it use your cards? `yes {session}` or `no {session}`, within \
             {seconds} s"
        ),
        H::Declined { session } => format!("Session {session} may not use your cards"),
        H::LoggedIn { session } => format!("Session {session}: logged in"),
        H::Taken { session, label, seconds, .. } => {
            format!("Session {session} has the card {label} for {seconds} s from its last use")
        }
        H::Released { session, card, because } => {
            format!("Session {session} has the card {card} no more ({because})")
        }
        H::CardRefused { session, card: Some(card), check } => {
            format!("Session {session}, card {card}: refused [{check}]")
        }
        H::CardRefused { session, card: None, check } => {
            format!("Session {session}: refused [{check}]")
        }
        H::DistanceCheckFails { session, card } => {
            format!("Session {session}: a terminal measures the distance to {card}, and that fails")
        }
        H::Asleep { session } => format!("Session {session} sleeps"),
        H::Awake { session } => format!("Session {session} is awake"),
        H::Ended { session, sleeve, check } => {
            format!("Session {session}: the sleeve {sleeve} has gone [{check}]")
        }
        H::Revoked { sleeve } => format!("The sleeve {sleeve} is paired no more"),
        H::Refused { check, detail } => format!("No: {detail} [{check}]"),
    }
}
