use super::*;
use crate::pages::Asset;
use crate::pages::checkout::checkout_shell;

const HOSTILE: &str = "</dd><script>alert('1')</script>";

fn example() -> ConfirmationRequest {
    ConfirmationRequest {
        server: "Bank of Example".into(),
        payment: "pay_0199a1b2".into(),
        payer_account: countersign_payment::AccountNumber::parse("6222021234567890123").unwrap(),
        payee_account: countersign_payment::AccountNumber::parse("DE89370400440532013000").unwrap(),
        payee_name: "Müller & Söhne GmbH".into(),
        order: HOSTILE.into(),
        amount: countersign_payment::Amount::parse("1299.00", "CNY").unwrap(),
        expires: UnixTime::from_secs(1_800_000_300),
        initiator: "shop.example".into(),
        alerts: vec!["new-payee".into(), "other-thing".into()],
    }
}

fn part(state: State) -> PaymentPart {
    let request = example();
    PaymentPart {
        id: "pay_0199a1b2".into(),
        state,
        reason: None,
        bytes: request.to_bytes().unwrap(),
        request,
        devices: vec![
            Device { serial: "OCRA-\"1".into(), label: "My <token>".into(), shows_digits: true },
            Device { serial: "KEY-1".into(), label: "My key".into(), shows_digits: false },
        ],
        offline: Some("CS1:MZXW6YTBOI".into()),
    }
}

#[test]
fn a_payment_shows_every_member_of_what_is_signed() {
    for lang in Lang::ALL {
        let page = payment_part(lang, &part(State::Pending)).into_string();
        for shown in [
            ">1,299.00<",
            ">CNY<",
            "Müller &amp; Söhne GmbH",
            "DE89 3704 0044 0532 0130 00",
            "6222 0212 3456 7890 123",
            "shop.example",
            "Bank of Example",
            "pay_0199a1b2",
            "2027-01-15T08:05:00.000Z",
            "data-alert=\"new-payee\"",
            "other-thing",
        ] {
            assert!(page.contains(shown), "{lang:?}: {shown}: {page}");
        }
        let request = URL_SAFE_NO_PAD.encode(example().to_bytes().unwrap());
        assert!(page.contains(&format!("data-request=\"{request}\"")), "{page}");
        assert!(page.find("id=\"amount\"") < page.find("id=\"payee-name\""), "the amount first");
    }
}

#[test]
fn what_others_wrote_stays_text() {
    let page = payment_part(Lang::En, &part(State::Pending)).into_string();
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    assert!(page.contains("My &lt;token&gt;"), "{page}");
    assert!(page.contains("value=\"OCRA-&quot;1\""), "{page}");
    let list = [ListItem { id: "pay_1".into(), request: example() }];
    let list = list_part(Lang::En, &list).into_string();
    assert!(!list.contains("<script") && list.contains("&lt;script&gt;"), "{list}");
}

#[test]
fn only_devices_that_show_digits_are_offered_for_digits() {
    let page = payment_part(Lang::En, &part(State::Pending)).into_string();
    assert!(!page.contains("KEY-1") && page.contains("id=\"qr\""), "{page}");
    let mut keys_only = part(State::Pending);
    keys_only.devices.remove(0);
    let page = payment_part(Lang::En, &keys_only).into_string();
    assert!(page.contains("id=\"no-device\"") && page.contains("My key (KEY-1)"), "{page}");
    assert!(!page.contains("id=\"digits\""), "{page}");
    keys_only.devices.clear();
    let page = payment_part(Lang::En, &keys_only).into_string();
    assert!(page.contains(Text::NoDevice.of(Lang::En)), "{page}");
}

#[test]
fn what_has_ended_can_be_neither_confirmed_nor_rejected() {
    for state in State::ALL {
        let page = payment_part(Lang::En, &part(state)).into_string();
        let open = matches!(state, State::Created | State::Pending);
        for only_open in ["approve-form", "reject-form", "data-request", "countdown", "id=\"qr\""] {
            assert_eq!(page.contains(only_open), open, "{state:?}: {only_open}");
        }
        assert_eq!(page.contains("id=\"result\""), !open, "{state:?}");
        assert!(page.contains(&format!("data-state=\"{}\"", state.name())), "{state:?}");
    }
}

#[test]
fn inputs_have_labels_and_errors_have_places() {
    let now = UnixTime::from_secs(1);
    for lang in Lang::ALL {
        let open = payment_part(lang, &part(State::Pending)).into_string();
        for page in [open, list_shell(lang, now).into_string()] {
            let inputs: Vec<&str> = page.split("<input").skip(1).collect();
            assert!(!inputs.is_empty(), "{page}");
            for input in inputs {
                let input = input.split('>').next().unwrap();
                let value = |name: &str| {
                    let found = input.split_once(&format!("{name}=\"")).map(|(_, rest)| rest);
                    found.and_then(|rest| rest.split('"').next()).unwrap_or_default()
                };
                let id = value("id");
                assert!(page.contains(&format!("for=\"{id}\"")), "no label: {input}");
                let described = value("aria-describedby");
                assert!(!described.is_empty(), "{input}");
                for place in described.split(' ') {
                    assert!(page.contains(&format!("id=\"{place}\"")), "{place}");
                }
            }
        }
    }
}

/// The texts that a script asks for, by any name in quotes that is a key, are in its page.
#[test]
fn scripts_find_their_texts() {
    let now = UnixTime::from_secs(1);
    let shells = [
        (
            list_shell(Lang::Zh, now),
            ["common.js", "session.js", "helper.js", "phone.js"].as_slice(),
        ),
        (payment_shell(Lang::Zh, now), &["common.js", "session.js", "payment.js", "helper.js"]),
        (checkout_shell(Lang::Zh, now), &["common.js", "checkout.js"]),
    ];
    for (shell, scripts) in shells {
        let shell = shell.into_string();
        for name in scripts {
            let script = Asset::named(name).unwrap().content;
            for quoted in script.split('"').skip(1).step_by(2) {
                let asked = script.contains(&format!("text(\"{quoted}\""));
                let known = Text::ALL.iter().any(|text| text.key() == quoted);
                assert!(known || !asked, "{name} asks for {quoted}, which is no text");
                // The helper's words are said by the payment's page only.
                let elsewhere = *name == "helper.js" && shell.contains("phone.js");
                if known && !elsewhere {
                    let place = format!("data-text=\"{quoted}\"");
                    assert!(shell.contains(&place), "{name} says {quoted}, which its page lacks");
                }
            }
        }
    }
}

#[test]
fn shells_hold_nothing_of_anybody_and_run_nothing_inline() {
    let now = UnixTime::from_secs(1);
    for lang in Lang::ALL {
        for shell in [list_shell(lang, now), payment_shell(lang, now), checkout_shell(lang, now)] {
            let shell = shell.into_string();
            assert!(shell.starts_with("<!DOCTYPE html><html lang="), "{shell}");
            assert!(shell.contains(&format!("lang=\"{}\"", lang.tag())), "{shell}");
            assert!(!shell.contains("style=") && !shell.contains("<style"), "{shell}");
            for script in shell.split("<script").skip(1) {
                let rest = script.split_once('>').unwrap().1;
                assert!(rest.starts_with("</script>"), "inline script: {script}");
            }
            for handler in ["onclick=", "onload=", "onsubmit=", "onerror=", "javascript:"] {
                assert!(!shell.contains(handler), "{handler}");
            }
        }
    }
}
