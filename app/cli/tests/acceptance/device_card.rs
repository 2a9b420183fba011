//! The security device by itself: its PIN and PUK, its answer to a QR code, and as a card in a
//! reader that the test plays.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use countersign_crypto::Secret;
use countersign_device::{CardKey, Holder, KeyError, Phone, SecurityDevice};
use countersign_iso7816::{CardLink, LinkError};
use countersign_payment::Line;
use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Alone;
use crate::bank::Bank;
use crate::host::{Database, Ended, Process};

pub(crate) const TRIALS: [(&str, Alone); 5] = [
    ("a_puk_unblocks_a_device", a_puk_unblocks_a_device),
    ("an_enrolment_that_broke_off_tells_another_puk", an_enrolment_that_broke_off),
    ("a_qr_code_is_answered_if_it_is_the_servers", a_qr_code_is_answered_if_it_is_the_servers),
    ("a_card_confirms_in_a_virtual_reader", a_card_confirms_in_a_virtual_reader),
    ("a_card_without_a_reader_waits_for_one", a_card_without_a_reader_waits_for_one),
];

/// How long the card may take.
const PATIENCE: Duration = Duration::from_secs(20);

impl Bank {
    fn at_key(&self, words: &[&str]) -> Result<Ended, Failed> {
        self.host.run(&[&["--json", "device", "key"], words].concat())
    }

    fn key_refused(&self, words: &[&str], check: &str) -> Result<(), Failed> {
        let ended = self.at_key(words)?;
        let told = ended.json()?;
        assert_eq!(told["error"]["check"], json!(check), "{words:?}: {told}");
        assert_ne!(ended.code, 0);
        Ok(())
    }

    fn enroll_key(&self, serial: &str, method: &str, more: &[&str]) -> Result<Ended, Failed> {
        let words = ["device", "key", "enroll", "--key", serial, "--serial", serial];
        let bound = ["--label", "Li Lei's key", "--pin-file", "pin", "--method", method];
        self.run("admin", &[&words[..], &bound, more].concat())
    }
}

fn a_puk_unblocks_a_device() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let to_file = ["--account", "PAYER0001", "--puk-file", "puk"];
    let made = bank.enroll_key("KEY-1", "pki", &to_file)?.ok()?.json()?;
    assert_eq!((&made["pukFile"], &made["puk"]), (&json!("puk"), &Value::Null), "{made}");
    assert_eq!((&made["pinTriesLeft"], &made["pukTriesLeft"]), (&json!(3), &json!(10)));
    let mode = fs::metadata(bank.host.path("puk"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "its owner's only");
    let puk = fs::read_to_string(bank.host.path("puk"))?;
    assert!(puk.len() == 8 && puk.bytes().all(|c| c.is_ascii_digit()), "{puk}");
    // Enrolled again, it has its PUK: none is told, and no file is left or replaced.
    let again = bank.enroll_key("KEY-1", "pki", &["--account", "PAYER0001", "--puk-file", "p"])?;
    assert_eq!(again.ok()?.json()?["pukFile"], Value::Null);
    assert!(!bank.host.path("p").exists());
    let taken = bank.enroll_key("KEY-1", "pki", &to_file)?;
    assert_eq!((taken.code, &taken.json()?["error"]["check"]), (2, &json!("puk-file")));

    fs::write(bank.host.path("new-pin"), "135790\n")?;
    fs::write(bank.host.path("wrong"), "00000000\n")?;
    let change = |pin: &'static str| {
        ["pin", "--key", "KEY-1", "--pin-file", pin, "--new-pin-file", "new-pin"]
    };
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        bank.key_refused(&change("wrong"), check)?;
    }
    bank.key_refused(&change("pin"), "pin-blocked")?;
    let unblock = |puk: &'static str| {
        ["unblock", "--key", "KEY-1", "--puk-file", puk, "--new-pin-file", "new-pin"]
    };
    bank.key_refused(&unblock("wrong"), "puk-wrong")?;
    bank.key_refused(&unblock("pin"), "puk-form")?;
    bank.at_key(&unblock("puk"))?.ok()?;
    let shown = bank.at_key(&["show", "--key", "KEY-1"])?.ok()?.json()?;
    assert_eq!((&shown["pinTriesLeft"], &shown["pukTriesLeft"]), (&json!(3), &json!(10)));
    bank.key_refused(&change("pin"), "pin-wrong")?;
    bank.at_key(&change("new-pin"))?.ok()?;

    // Another PUK, for the PIN: the first ends.
    let renewed = bank.at_key(&["puk", "--key", "KEY-1", "--pin-file", "new-pin"])?.ok()?.json()?;
    let renewed = renewed["puk"].as_str().ok_or("no PUK")?;
    bank.key_refused(&unblock("puk"), "puk-wrong")?;
    fs::write(bank.host.path("puk"), renewed)?;
    bank.at_key(&unblock("puk"))?.ok()?;
    bank.books_hold()
}

fn an_enrolment_that_broke_off() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let refused = bank.enroll_key("KEY-1", "pki", &["--account", "NOBODY01", "--puk-file", "p"])?;
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(!bank.host.path("p").exists(), "no file without a PUK in it");
    let made = bank.enroll_key("KEY-1", "pki", &["--account", "PAYER0001"])?.ok()?.json()?;
    fs::write(bank.host.path("puk"), made["puk"].as_str().ok_or("no PUK")?)?;
    let unblock = ["unblock", "--key", "KEY-1", "--puk-file", "puk", "--new-pin-file", "pin"];
    bank.at_key(&unblock)?.ok()?;
    bank.books_hold()
}

fn a_qr_code_is_answered_if_it_is_the_servers() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let bound = ["--account", "PAYER0001"];
    bank.enroll_key("OCRA-1", "ocra", &bound)?.ok()?;
    bank.enroll_key("KEY-1", "pki", &bound)?.ok()?;
    let id = bank.pending("7.00")?;
    let told = bank.run("till", &["payment", "checkout", &id])?.ok()?.json()?;
    let code = told["offline"].as_str().ok_or("no code")?;
    fs::write(bank.host.path("code"), format!("{code}\n"))?;
    let offline =
        |key: &'static str| ["offline", "--key", key, "--qr", "@code", "--pin-file", "pin"];
    let answered = bank.at_key(&offline("OCRA-1"))?.ok()?;
    assert!(answered.stderr.contains("7.00 CNY") && answered.stderr.contains("Tea Shop"));
    let answer = answered.json()?;
    assert_eq!((&answer["paymentId"], &answer["deviceSerial"]), (&json!(id), &json!("OCRA-1")));
    assert_eq!(answer["digits"].as_str().map(str::len), Some(8), "{answer}");
    bank.key_refused(&offline("KEY-1"), "offline-method")?;

    // Altered in one place, it is not the server's any more; and what is no code is none.
    let last = if code.ends_with('A') { 'E' } else { 'A' };
    let altered = format!("{}{last}", &code[..code.len() - 1]);
    for (altered, checks) in
        [(altered.as_str(), ["offline-signature", "offline-form"]), ("CS1:", ["offline-form"; 2])]
    {
        let ended = bank.at_key(&["offline", "--key", "OCRA-1", "--qr", altered])?;
        let check = ended.json()?["error"]["check"].clone();
        assert!(checks.iter().any(|name| check == *name), "{check}");
        assert!(!ended.stderr.contains("CNY"), "nothing is shown: {}", ended.stderr);
    }
    // Whoever would give the device another key has its PIN; and it is asked only if it is meant.
    fs::write(bank.host.path("wrong"), "00000000\n")?;
    let again = ["device", "key", "enroll", "--key", "OCRA-1", "--serial", "OCRA-1"];
    let more = ["--label", "x", "--pin-file", "wrong", "--method", "ocra", "--account"];
    bank.refused("admin", &[&again[..], &more, &["PAYER0001"]].concat(), "pin-wrong")?;
    assert_eq!(bank.at_key(&offline("OCRA-1"))?.ok()?.json()?["digits"], answer["digits"]);
    bank.phone("phone")?;
    let approve = ["--json", "device", "phone", "approve", &id, "--phone", "phone", "--key"];
    let other = ["OCRA-1", "--serial", "KEY-1", "--pin-file", "pin"];
    let other = bank.host.run(&[&approve[..], &other].concat())?;
    assert_eq!((other.code, &other.json()?["error"]["check"]), (1, &json!("card-other")));
    assert!(!other.stderr.contains("CNY"), "nobody is asked: {}", other.stderr);
    // A device that has lost its server's certificate gets it again, from that server only.
    fs::remove_file(bank.host.path("OCRA-1/server.pem"))?;
    bank.key_refused(&offline("OCRA-1"), "server-unpinned")?;
    let refresh = ["device", "key", "refresh", "--key", "OCRA-1"];
    assert_eq!(bank.done(&refresh)?["refreshed"], true);
    assert_eq!(bank.at_key(&offline("OCRA-1"))?.ok()?.json()?["digits"], answer["digits"]);
    let root = fs::read(bank.host.path("OCRA-1/root.pem"))?;
    fs::copy(bank.host.path("ca.pem"), bank.host.path("OCRA-1/root.pem"))?;
    assert_eq!(bank.run("admin", &refresh)?.code, 1, "another root vouches for nothing");
    fs::write(bank.host.path("OCRA-1/root.pem"), root)?;
    bank.refused("till", &refresh, "scope")?;
    bank.books_hold()
}

/// A reader that speaks vpcd, played by the test.
struct Slot(TcpStream);

impl Slot {
    /// Waits for the card, and gives it power.
    fn accept(listener: &TcpListener) -> Result<Self, Failed> {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut slot = Self(stream);
        slot.send(&[0x01])?;
        slot.send(&[0x04])?;
        let atr = slot.receive()?;
        assert!(atr.starts_with(&[0x3b]) && atr.windows(11).any(|name| name == b"Countersign"));
        Ok(slot)
    }

    fn send(&mut self, payload: &[u8]) -> std::io::Result<()> {
        let length = u16::try_from(payload.len()).map_err(std::io::Error::other)?;
        self.0.write_all(&[&length.to_be_bytes(), payload].concat())
    }

    fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.0.read_exact(&mut length)?;
        let mut payload = vec![0; u16::from_be_bytes(length).into()];
        self.0.read_exact(&mut payload)?;
        Ok(payload)
    }
}

impl CardLink for Slot {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        self.send(command).and_then(|()| self.receive()).map_err(|_| LinkError::Removed)
    }
}

/// Types this PIN at the phone, which a card with a keypad never asks for.
struct AtPhone(Option<&'static [u8]>);

impl Holder for AtPhone {
    fn asked(&mut self, display: &[Line]) -> Result<Option<Secret>, KeyError> {
        assert!(display.iter().any(|line| line.text == "Tea Shop"));
        let pin = self.0.ok_or_else(|| KeyError::Keypad("it is not asked here".to_owned()))?;
        Ok(Some(Secret::copied_from(pin)))
    }
}

/// Carries a payment to the card in the slot, and its answer to the server.
fn confirm(bank: &Bank, slot: &mut Slot, pin: Option<&'static [u8]>) -> Result<String, Failed> {
    let id = bank.pending("3.00")?;
    let phone = Phone::open(&bank.host.path("phone"))?;
    let request = phone.payment(&id)?.to_confirm()?;
    let mut rng = testkit::rng::seeded(1);
    let answer = CardKey::new(slot)?.confirm(&request, &mut AtPhone(pin), &mut rng)?;
    Ok(phone.answer(&id, &answer)?.status)
}

fn card(bank: &Bank, words: &[&str], listener: &TcpListener) -> Result<(Process, Slot), Failed> {
    let at = listener.local_addr()?.to_string();
    let words = [&["--json", "device", "key"], words, &["--virtual-reader", &at]].concat();
    let mut card = bank.host.spawn(&words)?;
    let ready = card.first_json()?;
    let unattended = words.contains(&"--pin-file");
    assert_eq!((&ready["event"], &ready["unattended"]), (&json!("ready"), &json!(unattended)));
    let slot = Slot::accept(listener)?;
    assert_eq!(card.first_json()?, json!({ "event": "inserted" }));
    Ok((card, slot))
}

fn a_card_confirms_in_a_virtual_reader() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // The PIN comes from the phone; the words of the short form.
    let (mut process, mut slot) = card(&bank, &["--key", "KEY-1"], &listener)?;
    assert_eq!(confirm(&bank, &mut slot, Some(b"2580"))?, "executed");
    let shown = process.first_json()?;
    assert_eq!(shown["event"], "shown");
    assert!(shown["display"].as_array().is_some_and(|lines| {
        lines.contains(&json!({ "label": "Amount", "text": "3.00 CNY" }))
    }));
    // The card outlives its reader.
    drop(slot);
    assert_eq!(process.first_json()?["event"], "removed");
    let mut slot = Slot::accept(&listener)?;
    assert_eq!(process.first_json()?["event"], "inserted");
    assert_eq!(confirm(&bank, &mut slot, Some(b"2580"))?, "executed");
    // While it is a card, nobody else has it.
    bank.key_refused(&["show", "--key", "KEY-1"], "device-busy")?;
    process.terminate()?;
    assert_eq!(process.finish()?.code, 0);
    assert_eq!(slot.transmit(&[0, 0xca, 0xdf, 1, 0]), Err(LinkError::Removed));

    // With a keypad the phone is not told the PIN.
    let keypad = ["serve", "--key", "KEY-1", "--keypad", "--pin-file", "pin"];
    let (mut process, mut slot) = card(&bank, &keypad, &listener)?;
    assert_eq!(confirm(&bank, &mut slot, None)?, "executed");
    assert_eq!(process.first_json()?["event"], "asked");
    let blocks = [0x24, 0x25, 0x80, 0xff, 0xff, 0xff, 0xff, 0xff].repeat(2);
    for instruction in [0x24, 0x2c] {
        let answer = slot.transmit(&[&[0, instruction, 0, 0x81, 16][..], &blocks].concat());
        assert_eq!(answer, Ok(vec![0x6a, 0x81]), "PIN and PUK are the keypad's only");
    }
    drop(process);
    bank.books_hold()
}

fn a_card_without_a_reader_waits_for_one() -> Result<(), Failed> {
    let bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let serve = ["--json", "device", "key", "serve", "--key", "KEY-1", "--virtual-reader", &port];
    let mut process = bank.host.spawn(&serve)?;
    assert_eq!(process.first_json()?["event"], "ready");
    assert_eq!(process.first_json()?["event"], "no-reader");
    process.terminate()?;
    assert_eq!(process.finish()?.code, 0);

    for (words, code, check) in [
        (&["serve", "--key", "none", "--virtual-reader", &port][..], 1, "device-not-ours"),
        (&["serve", "--key", "KEY-1", "--virtual-reader", "nowhere"], 2, "usage"),
        (&["serve", "--key", "KEY-1"], 2, "usage"),
        (
            &["serve", "--key", "KEY-1", "--virtual-reader", &port, "--pin-file", "pin"],
            2,
            "pin-file",
        ),
        (&["show", "--key", "KEY-1", "--reader"], 2, "usage"),
    ] {
        let ended = bank.at_key(words)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (code, &json!(check)), "{told}");
    }
    Ok(())
}
