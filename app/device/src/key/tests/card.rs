//! The device as a card, with nothing between but a reader: what is sent are APDUs.

use std::slice;
use std::sync::{Arc, Mutex};

use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::card::{CardClient, CardError, PinEntry, Screen};

use super::*;

const NEW: &[u8] = b"135790";

/// The card's display, which the test reads, and its keypad, at which these PINs are typed.
#[derive(Clone, Default)]
struct Keypad(Arc<Mutex<Pressed>>);

#[derive(Default)]
struct Pressed {
    pin: Option<Vec<u8>>,
    shown: Vec<Vec<Line>>,
}

impl Keypad {
    fn pin(pin: &[u8]) -> Self {
        let keypad = Self::default();
        keypad.will_type(Some(pin));
        keypad
    }

    fn will_type(&self, pin: Option<&[u8]>) {
        self.0.lock().unwrap().pin = pin.map(<[u8]>::to_vec);
    }

    fn shown(&self) -> Vec<Vec<Line>> {
        std::mem::take(&mut self.0.lock().unwrap().shown)
    }
}

impl Screen for Keypad {
    fn shown(&mut self, lines: &[Line]) {
        self.0.lock().unwrap().shown.push(lines.to_vec());
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        let mut pressed = self.0.lock().unwrap();
        pressed.shown.push(lines.to_vec());
        pressed.pin.as_deref().map(secret)
    }
}

type Card = InProcessCard<Keypad>;

fn card(device: KeyDir, entry: PinEntry, keypad: &Keypad) -> Card {
    let chip = KeyChip::new(device, entry).unwrap();
    InProcessCard::new(chip, keypad.clone(), Box::new(seeded(3)))
}

fn confirm<L: CardLink>(
    key: &mut CardKey<L>,
    holder: &mut Types,
) -> Result<DeviceAnswer, KeyError> {
    key.confirm(&bytes(), holder, &mut seeded(9))
}

fn refuses<L: CardLink>(key: &mut CardKey<L>, pin: &[u8]) -> &'static str {
    confirm(key, &mut Types::pin(pin)).unwrap_err().check()
}

/// What the server makes of the answer.
fn counts(answer: &DeviceAnswer, provider: &Provider, public: &[u8]) -> bool {
    match answer {
        DeviceAnswer::Pki { signature, .. } => {
            let key = provider.signature.public_key(public).unwrap();
            verify(&*key, &bytes(), signature).is_ok()
        }
        DeviceAnswer::Ocra { digits, .. } => {
            ocra::verify(&secret(&[7; ocra::PAYMENT_KEY_LEN]), &bytes(), digits)
        }
    }
}

#[test]
fn a_card_confirms_in_both_ways_with_and_without_a_keypad() {
    let dir = tempfile::tempdir().unwrap();
    let lines = ConfirmationRequest::parse(&bytes()).unwrap().lines();
    for (at, (method, entry, provider)) in [
        (SignWith::Pki, PinEntry::Host, rust_crypto::provider()),
        (SignWith::Pki, PinEntry::Keypad, countersign_crypto::sm::provider()),
        (SignWith::Ocra, PinEntry::Host, rust_crypto::provider()),
        (SignWith::Ocra, PinEntry::Keypad, rust_crypto::provider()),
    ]
    .into_iter()
    .enumerate()
    {
        let serial = format!("CARD-{at}");
        let (device, public) = device(&dir, &serial, method, &provider);
        let keypad = Keypad::pin(PIN);
        let mut key = CardKey::new(card(device, entry, &keypad)).unwrap();
        let info = key.info().clone();
        assert_eq!((key.serial(), info.suite), (serial.as_str(), provider.suite));
        assert_eq!((info.pin_entry, info.server_id.as_str()), (entry, "server-1"));
        let mut holder = Types::pin(PIN);
        let answer = confirm(&mut key, &mut holder).unwrap();
        assert!(counts(&answer, &provider, &public), "{serial}");
        let (DeviceAnswer::Pki { serial: told, .. } | DeviceAnswer::Ocra { serial: told, .. }) =
            &answer;
        assert_eq!(told, &serial);
        assert_eq!(keypad.shown(), slice::from_ref(&lines), "the card shows what it signs");
        // With a keypad the phone never sees the PIN.
        let asked = if entry == PinEntry::Host { vec![lines.clone()] } else { Vec::new() };
        assert_eq!(holder.shown, asked);
        let shown_by = if entry == PinEntry::Host { ShownBy::Host } else { ShownBy::Device };
        assert_eq!(key.shown_by(), shown_by);
        let printed = format!("{answer:?}");
        let secret = match &answer {
            DeviceAnswer::Pki { signature, .. } => format!("{signature:?}"),
            DeviceAnswer::Ocra { digits, .. } => digits.clone(),
        };
        assert!(printed.contains(&serial) && !printed.contains(&secret), "{printed}");
    }
}

#[test]
fn a_card_is_blocked_by_wrong_pins_and_unblocked_by_its_puk() {
    let dir = tempfile::tempdir().unwrap();
    for entry in [PinEntry::Host, PinEntry::Keypad] {
        let mut device = pki(&dir, entry.name());
        let (puk, path) = (device.take_puk().unwrap(), device.path());
        let keypad = Keypad::pin(b"0000");
        let mut key = CardKey::new(card(device, entry, &keypad)).unwrap();
        for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
            assert_eq!(refuses(&mut key, b"0000"), check);
        }
        keypad.will_type(Some(PIN));
        keypad.shown();
        let mut right = Types::pin(PIN);
        assert_eq!(confirm(&mut key, &mut right).unwrap_err().check(), "pin-blocked");
        assert!(right.shown.is_empty() && keypad.shown().is_empty(), "no PIN is asked for");
        if entry == PinEntry::Keypad {
            // Not from here: at the device.
            for refused in [
                key.check_host_entry(),
                key.change_pin(&secret(PIN), &secret(NEW)),
                key.unblock(&puk, &secret(NEW)),
                key.unblock(&secret(b"00000000"), &secret(NEW)),
            ] {
                assert_eq!(refused.unwrap_err().check(), "card-keypad");
            }
            assert_eq!(key.tries().map(|tries| (tries.pin, tries.puk)).unwrap(), (0, 10));
            drop(key);
            let mut device = KeyDir::open(&path).unwrap();
            device.unblock(&puk, &secret(NEW), &mut seeded(4)).unwrap();
            keypad.will_type(Some(NEW));
            let mut key = CardKey::new(card(device, entry, &keypad)).unwrap();
            confirm(&mut key, &mut Types::pin(b"0000")).unwrap();
            continue;
        }
        assert_eq!(key.change_pin(&secret(PIN), &secret(NEW)).unwrap_err().check(), "pin-blocked");

        assert_eq!(key.unblock(&secret(b"1"), &secret(NEW)).unwrap_err().check(), "pin-form");
        let error = key.unblock(&secret(b"00000000"), &secret(NEW)).unwrap_err();
        assert!(matches!(error, KeyError::PukWrong { left: 9 }), "{error}");
        assert_eq!(key.tries().map(|tries| (tries.pin, tries.puk)).unwrap(), (0, 9));
        key.unblock(&puk, &secret(NEW)).unwrap();
        assert_eq!(key.tries().map(|tries| (tries.pin, tries.puk)).unwrap(), (3, 10));
        for wrong in [&secret(b"00000000"), &puk] {
            let error = key.unblock(wrong, &secret(PIN)).unwrap_err();
            assert_eq!(error.check(), "pin-not-blocked");
        }
        assert_eq!(key.tries().map(|tries| (tries.pin, tries.puk)).unwrap(), (3, 10));
        key.change_pin(&secret(NEW), &secret(PIN)).unwrap();
        confirm(&mut key, &mut Types::pin(PIN)).unwrap();
    }
}

#[test]
fn a_card_without_a_puk_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let device = pki(&dir, "KEY-1");
    fs::remove_file(device.path().join("puk.sealed")).unwrap();
    let mut key = CardKey::new(card(device, PinEntry::Host, &Keypad::default())).unwrap();
    assert_eq!(key.tries().unwrap().puk, 0);
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        assert_eq!(refuses(&mut key, b"0000"), check);
    }
    let error = key.unblock(&secret(b"12345678"), &secret(NEW)).unwrap_err();
    assert_eq!(error.check(), "puk-absent");
}

#[test]
fn a_holder_who_declines_has_signed_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for entry in [PinEntry::Host, PinEntry::Keypad] {
        let keypad = Keypad::default();
        let mut key = CardKey::new(card(pki(&dir, entry.name()), entry, &keypad)).unwrap();
        let mut nobody = Types { pin: None, shown: Vec::new() };
        let error = confirm(&mut key, &mut nobody).unwrap_err();
        assert!(matches!(error, KeyError::Declined), "{error}");
        assert_eq!((keypad.shown().len(), key.tries().unwrap().pin), (1, 3));
    }
}

#[test]
fn what_a_card_cannot_show_it_does_not_take() {
    let dir = tempfile::tempdir().unwrap();
    let keypad = Keypad::pin(PIN);
    let bidi = String::from_utf8(bytes()).unwrap().replace("2 teas", "2 \u{202e}teas");
    let mut key = CardKey::new(card(pki(&dir, "KEY-1"), PinEntry::Host, &keypad)).unwrap();
    let error = key.confirm(bidi.as_bytes(), &mut Types::pin(PIN), &mut seeded(9)).unwrap_err();
    assert!(matches!(error, KeyError::Request(_)), "the phone looks first: {error}");
    // A phone that does not look gets no further.
    let mut client = CardClient::new(key.link_mut());
    client.select().unwrap();
    assert_eq!(client.load(bidi.as_bytes()), Err(CardError::RequestRefused));
    assert_eq!(client.verify(&secret(PIN)), Err(CardError::OutOfOrder));
    assert_eq!(client.sign(), Err(CardError::OutOfOrder));
    assert!(keypad.shown().is_empty());
}

#[test]
fn a_card_that_was_exchanged_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let keypad = Keypad::pin(PIN);
    let mut key = CardKey::new(card(pki(&dir, "KEY-1"), PinEntry::Keypad, &keypad)).unwrap();
    *key.link_mut() = card(pki(&dir, "KEY-2"), PinEntry::Keypad, &keypad);
    assert_eq!(refuses(&mut key, PIN), "card-other");
    assert_eq!(key.unblock(&secret(b"12345678"), &secret(NEW)).unwrap_err().check(), "card-other");
    assert!(keypad.shown().is_empty());
}

#[test]
fn a_card_that_is_not_whom_its_certificate_names_is_not_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (pki(&dir, "KEY-1"), pki(&dir, "KEY-2"));
    fs::copy(two.path().join(CERTIFICATE), one.path().join(CERTIFICATE)).unwrap();
    let claims = card(one, PinEntry::Host, &Keypad::default());
    assert_eq!(CardKey::new(claims).err().unwrap().check(), "card-other");
    fs::remove_file(two.path().join(CERTIFICATE)).unwrap();
    let has_none = card(two, PinEntry::Host, &Keypad::default());
    assert_eq!(CardKey::new(has_none).err().unwrap().check(), "card-other");
}

/// Takes the card away, or has it reset, at one command of many: before it comes to the card, or
/// when its answer should come.
struct Interrupted {
    card: Card,
    at: usize,
    after: bool,
    by_reset: bool,
}

impl CardLink for Interrupted {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let Some(left) = self.at.checked_sub(1) else { return self.card.transmit(command) };
        self.at = left;
        if left > 0 {
            return self.card.transmit(command);
        }
        let answered = self.after.then(|| self.card.transmit(command));
        if self.by_reset {
            self.card.reset();
        } else {
            self.card.remove();
        }
        drop(answered);
        self.card.transmit(command)
    }
}

#[test]
fn a_card_that_leaves_at_any_command_has_lost_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let keypad = Keypad::default();
    let (device, public) = device(&dir, "KEY-1", SignWith::Pki, &rust_crypto::provider());
    let link = Interrupted {
        card: card(device, PinEntry::Host, &keypad),
        at: 0,
        after: false,
        by_reset: false,
    };
    let mut key = CardKey::new(link).unwrap();
    let mut interruptions = 0;
    for at in 1.. {
        let link = key.link_mut();
        (link.at, link.after, link.by_reset) = (at, at % 2 == 0, at % 3 == 0);
        let expected = if link.by_reset { "card-reset" } else { "card-removed" };
        match confirm(&mut key, &mut Types::pin(PIN)) {
            Ok(answer) => {
                key.link_mut().at = 0;
                assert!(counts(&answer, &rust_crypto::provider(), &public));
                break;
            }
            Err(error) => {
                assert_eq!((error.check(), error.is_environment()), (expected, true), "{at}");
            }
        }
        interruptions += 1;
        let link = key.link_mut();
        link.card.insert();
        // What was loaded, and the PIN that was given, went with the power.
        let mut client = CardClient::new(link);
        client.select().unwrap();
        assert_eq!(client.sign(), Err(CardError::OutOfOrder), "{at}");
    }
    // SELECT, two data objects, tries, the request in two parts, VERIFY, the signature.
    assert!(interruptions >= 8, "{interruptions}");
    assert_eq!(key.tries().unwrap().pin, 3, "no try was lost");
    confirm(&mut key, &mut Types::pin(PIN)).unwrap();
}

#[test]
fn a_device_that_is_not_enrolled_is_no_card() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    device.settings.server_id.clear();
    let error = KeyChip::new(device, PinEntry::Host).err().unwrap();
    assert_eq!(error.check(), "device-not-enrolled");
}
