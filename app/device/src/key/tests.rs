mod card;
mod offline;
mod puk;

use std::fs;

use countersign_crypto::{UnixTime, rust_crypto};
use countersign_payment::{AccountNumber, Amount, ocra, verify};
use countersign_pki::Role;
use pem::Pem;
use tempfile::TempDir;
use testkit::pki::TestPki;
use testkit::rng::seeded;

use super::*;

const PIN: &[u8] = b"2580";

fn request(payment: &str, order: &str) -> ConfirmationRequest {
    ConfirmationRequest {
        server: "bank.example".to_owned(),
        payment: payment.to_owned(),
        payer_account: AccountNumber::parse("PAYER0001").unwrap(),
        payee_account: AccountNumber::parse("SHOP0001").unwrap(),
        payee_name: "Tea Shop".to_owned(),
        order: order.to_owned(),
        amount: Amount::parse("12.34", "CNY").unwrap(),
        expires: UnixTime::from_secs(1_790_000_000),
        initiator: "Web shop".to_owned(),
        alerts: vec!["new-payee".to_owned()],
    }
}

fn bytes() -> Vec<u8> {
    request("pay_1", "Order 7: 2 teas").to_bytes().unwrap()
}

fn secret(text: &[u8]) -> Secret {
    Secret::copied_from(text)
}

/// Types this PIN and remembers what it was shown.
struct Types {
    pin: Option<Vec<u8>>,
    shown: Vec<Vec<Line>>,
}

impl Types {
    fn pin(pin: &[u8]) -> Self {
        Self { pin: Some(pin.to_vec()), shown: Vec::new() }
    }
}

impl Holder for Types {
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError> {
        self.shown.push(display.to_vec());
        Ok(self.pin.as_deref().map(secret))
    }
}

/// A device as enrolment leaves it, and its key.
fn device(dir: &TempDir, serial: &str, method: SignWith, provider: &Provider) -> (KeyDir, Vec<u8>) {
    let enrolment = KeyEnrolment {
        serial: serial.to_owned(),
        label: "a key".to_owned(),
        accounts: Vec::new(),
        method,
        pin: secret(PIN),
    };
    let path = dir.path().join(serial);
    let mut made = KeyDir::open_or_make(&path, &enrolment, provider).unwrap();
    let mut rng = seeded(5);
    let (key, public) = match method {
        SignWith::Pki => {
            let key = provider.signature.generate(&mut rng).unwrap();
            (key.pkcs8, key.key.public_key().to_vec())
        }
        SignWith::Ocra => (secret(&[7; ocra::PAYMENT_KEY_LEN]), Vec::new()),
    };
    made.store_key(&key, &enrolment.pin, &mut rng).unwrap();
    if method == SignWith::Pki {
        // Of the right device, though not of its key: who it is is all that is read of it here.
        let party = TestPki::new(provider.clone(), 7).party(Role::SecurityDevice, serial);
        let pem = pem::encode(&Pem::new("CERTIFICATE", party.certificate));
        made.files.write(CERTIFICATE, pem.as_bytes()).unwrap();
    }
    made.settings.server_id = "server-1".to_owned();
    made.write_settings().unwrap();
    (made, public)
}

fn pki(dir: &TempDir, serial: &str) -> KeyDir {
    device(dir, serial, SignWith::Pki, &rust_crypto::provider()).0
}

fn refused(device: &mut KeyDir, request: &[u8], holder: &mut Types) -> KeyError {
    device.confirm(request, holder, &mut seeded(9)).unwrap_err()
}

#[test]
fn it_signs_the_very_bytes_that_it_shows() {
    let dir = tempfile::tempdir().unwrap();
    for provider in [rust_crypto::provider(), countersign_crypto::sm::provider()] {
        let serial = provider.suite.name().unwrap();
        let (mut device, public) = device(&dir, serial, SignWith::Pki, &provider);
        let mut holder = Types::pin(PIN);
        let answer = device.confirm(&bytes(), &mut holder, &mut seeded(9)).unwrap();
        let DeviceAnswer::Pki { serial: told, signature } = answer else { panic!("no signature") };
        assert_eq!(told, serial);
        let parsed = ConfirmationRequest::parse(&bytes()).unwrap();
        assert_eq!(holder.shown, [parsed.lines()], "every member once, from the bytes");
        let key = provider.signature.public_key(&public).unwrap();
        verify(&*key, &bytes(), &signature).unwrap();
        let other = request("pay_1", "Order 7: 3 teas").to_bytes().unwrap();
        assert!(verify(&*key, &other, &signature).is_err(), "for these bytes and no others");
    }
}

#[test]
fn a_dynamic_password_is_for_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let (mut device, _) = device(&dir, "OCRA-1", SignWith::Ocra, &rust_crypto::provider());
    let answer = device.confirm(&bytes(), &mut Types::pin(PIN), &mut seeded(9)).unwrap();
    let DeviceAnswer::Ocra { serial, digits } = answer else { panic!("no digits") };
    assert_eq!((serial.as_str(), digits.len()), ("OCRA-1", ocra::PAYMENT_DIGITS));
    let key = secret(&[7; ocra::PAYMENT_KEY_LEN]);
    assert!(ocra::verify(&key, &bytes(), &digits));
    let other = request("pay_2", "Order 7: 2 teas").to_bytes().unwrap();
    assert!(!ocra::verify(&key, &other, &digits));
}

#[test]
fn what_it_cannot_show_as_it_is_it_neither_shows_nor_signs() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    let text = String::from_utf8(bytes()).unwrap();
    let spaced = text.replacen(':', ": ", 1);
    let longer = format!("{text} ");
    let added = text.replacen("{\"alerts\"", "{\"aaa\":\"\",\"alerts\"", 1);
    let bidi = text.replace("2 teas", "2 \u{202e}teas");
    let escape = text.replace("2 teas", "2 \u{1b}[2Jteas");
    let more = text.replace("12.34", "12.340");
    for bad in ["", "{}", "hello", &spaced, &longer, &added, &bidi, &escape, &more] {
        let mut holder = Types::pin(PIN);
        let error = refused(&mut device, bad.as_bytes(), &mut holder);
        assert!(matches!(error, KeyError::Request(_)), "{bad}: {error}");
        assert!(holder.shown.is_empty(), "nothing is shown: {bad}");
    }
    device.confirm(&bytes(), &mut Types::pin(PIN), &mut seeded(9)).unwrap();
}

#[test]
fn a_holder_who_declines_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    let mut holder = Types { pin: None, shown: Vec::new() };
    let error = refused(&mut device, &bytes(), &mut holder);
    assert!(matches!(error, KeyError::Declined), "{error}");
    assert_eq!((holder.shown.len(), device.tries_left().unwrap()), (1, PIN_TRIES));
}

#[test]
fn three_wrong_pins_block_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    let wrong = || Types::pin(b"0000");
    assert_eq!(refused(&mut device, &bytes(), &mut wrong()).check(), "pin-wrong");
    assert_eq!(device.tries_left().unwrap(), 2);
    // A PIN of no PIN's form costs no try, and the right one gives them all back.
    assert_eq!(refused(&mut device, &bytes(), &mut Types::pin(b"12ab")).check(), "pin-form");
    assert_eq!(device.tries_left().unwrap(), 2);
    device.confirm(&bytes(), &mut Types::pin(PIN), &mut seeded(9)).unwrap();
    assert_eq!(device.tries_left().unwrap(), PIN_TRIES);

    for left in [2, 1] {
        let error = refused(&mut device, &bytes(), &mut wrong());
        assert!(matches!(error, KeyError::PinWrong { left: told } if told == left), "{error}");
        // What was counted stays so when the program is started again.
        let path = device.path();
        drop(device);
        device = KeyDir::open(&path).unwrap();
    }
    assert_eq!(refused(&mut device, &bytes(), &mut wrong()).check(), "pin-blocked");
    let mut right = Types::pin(PIN);
    assert_eq!(refused(&mut device, &bytes(), &mut right).check(), "pin-blocked");
    assert!(right.shown.is_empty(), "no PIN is asked for any more");
    let changed = device.change_pin(&secret(PIN), &secret(b"1357"), &mut seeded(9));
    assert_eq!(changed.unwrap_err().check(), "pin-blocked");
}

#[test]
fn the_pin_can_be_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    let new = b"135790";
    let mut change =
        |old: &[u8], new: &[u8]| device.change_pin(&secret(old), &secret(new), &mut seeded(9));
    for bad in [&b"123"[..], b"1234567890123", b"12345a", b""] {
        assert_eq!(change(PIN, bad).unwrap_err().check(), "pin-form");
    }
    assert_eq!(change(b"0000", new).unwrap_err().check(), "pin-wrong");
    change(PIN, new).unwrap();
    assert_eq!(device.tries_left().unwrap(), PIN_TRIES);
    assert_eq!(refused(&mut device, &bytes(), &mut Types::pin(PIN)).check(), "pin-wrong");
    device.confirm(&bytes(), &mut Types::pin(new), &mut seeded(9)).unwrap();
}

#[test]
fn files_of_two_devices_cannot_be_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, two) = (pki(&dir, "KEY-1"), pki(&dir, "KEY-2"));
    fs::copy(two.path().join(sealed::FILE), one.path().join(sealed::FILE)).unwrap();
    assert_eq!(refused(&mut one, &bytes(), &mut Types::pin(PIN)).check(), "pin-wrong");
    fs::write(one.path().join(sealed::FILE), "memory_kib = 4000000000").unwrap();
    assert_eq!(refused(&mut one, &bytes(), &mut Types::pin(PIN)).check(), "device-damaged");
}

#[test]
fn parameters_out_of_bounds_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut device = pki(&dir, "KEY-1");
    let path = device.path().join(sealed::FILE);
    let text = fs::read_to_string(&path).unwrap();
    for (from, to) in
        [("memory_kib = 65536", "memory_kib = 2000000"), ("passes = 3", "passes = 99")]
    {
        assert!(text.contains(from));
        fs::write(&path, text.replace(from, to)).unwrap();
        assert_eq!(refused(&mut device, &bytes(), &mut Types::pin(PIN)).check(), "device-damaged");
        fs::write(device.path().join("pin-tries"), "3\n").unwrap();
    }
    fs::write(device.path().join("pin-tries"), "4\n").unwrap();
    assert_eq!(device.tries_left().unwrap_err().check(), "device-damaged");
}

#[test]
fn one_program_at_a_time_and_one_device_per_directory() {
    let dir = tempfile::tempdir().unwrap();
    let device = pki(&dir, "KEY-1");
    let path = device.path();
    assert_eq!(KeyDir::open(&path).err().unwrap().check(), "device-busy");
    drop(device);
    KeyDir::open(&path).unwrap();
    let other = KeyEnrolment {
        serial: "KEY-2".to_owned(),
        label: String::new(),
        accounts: Vec::new(),
        method: SignWith::Pki,
        pin: secret(PIN),
    };
    let error = KeyDir::open_or_make(&path, &other, &rust_crypto::provider()).err().unwrap();
    assert_eq!(error.check(), "device-other");
    let empty = dir.path().join("empty");
    assert_eq!(KeyDir::open(&empty).err().unwrap().check(), "device-not-ours");
    let fresh = KeyDir::open_or_make(&empty, &other, &rust_crypto::provider());
    let error = refused(&mut fresh.unwrap(), &bytes(), &mut Types::pin(PIN));
    assert_eq!(error.check(), "device-not-enrolled");
}

#[test]
fn a_beginning_that_was_cut_off_is_begun_again() {
    let provider = rust_crypto::provider();
    let wanted = KeyEnrolment {
        serial: "KEY-1".to_owned(),
        label: String::new(),
        accounts: Vec::new(),
        method: SignWith::Pki,
        pin: secret(PIN),
    };
    let dir = tempfile::tempdir().unwrap();
    // In the order in which they come to be; what is cut off has the ending `new`.
    let files = ["lock", "security-device.new", SETTINGS, "COUNTERSIGN-SECURITY-DEVICE.new"];
    for count in 0..=files.len() {
        let path = dir.path().join(count.to_string());
        fs::create_dir(&path).unwrap();
        for file in &files[..count] {
            fs::write(path.join(file), "serial = \"KE").unwrap();
        }
        assert_eq!(KeyDir::open(&path).err().unwrap().check(), "device-not-ours");
        drop(KeyDir::open_or_make(&path, &wanted, &provider).unwrap());
        KeyDir::open(&path).unwrap();
    }
    // Somebody's files are not taken for such a beginning, nor a key without its marker.
    for file in ["notes.txt", sealed::FILE] {
        let path = dir.path().join(format!("with {file}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(file), "mine").unwrap();
        let error = KeyDir::open_or_make(&path, &wanted, &provider).err().unwrap();
        assert_eq!(error.check(), "device-not-ours");
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was added");
    }
}
