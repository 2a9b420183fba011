use std::time::Duration;

use countersign_channel::AlertCode;

use super::*;

#[test]
fn pauses_grow_to_their_bound_and_are_no_shorter_than_the_server_asks() {
    let mut rng = testkit::rng::seeded(1);
    let lost = RelayError::AlwaysElsewhere;
    let mut pause = Pause::default();
    let mut base = PAUSE_FIRST;
    for _ in 0..12 {
        let next = pause.next(&lost, &mut rng);
        assert!(next >= base && next <= base * 5 / 4, "{next:?} of {base:?}");
        base = (base * 2).min(PAUSE_MAX);
    }
    let asked = RelayError::Refused { check: "manager-full".to_owned(), retry_after: 300 };
    assert!(pause.next(&asked, &mut rng) >= Duration::from_secs(300));
    assert!(Pause::default().next(&asked, &mut rng) >= Duration::from_secs(300));
}

#[test]
fn what_anybody_on_the_way_can_say_is_not_final() {
    let alert = |code| Error::Alert { code, incident: String::new() };
    let forged = [
        alert(AlertCode::CertificateRevoked),
        alert(AlertCode::ReaderBlocked),
        Error::Unexpected,
        Error::Truncated,
    ];
    for error in forged {
        let error = RelayError::Channel(error);
        assert!(!error.is_final(), "{error}");
    }
    assert!(!RelayError::Protocol("no message").is_final());
    let told = |retry_after| RelayError::Refused { check: "relay-slow".to_owned(), retry_after };
    assert!(!told(5).is_final());
    assert!(told(0).is_final());
    assert!(RelayError::Serial.is_final());
}
