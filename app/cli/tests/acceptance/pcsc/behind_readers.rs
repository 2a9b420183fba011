//! The device as a card, as its holder and as other makers' programs meet it.

use std::fs;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};
use testkit::parts::{Pcscd, require};

use super::foreign::hex;
use super::{cut, foreign};
use crate::bank::Bank;
use crate::host::{Database, Ended, Host, Process};

/// Longest that a card's event may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// "Countersign" after F0, the application's name on the card.
pub(super) const SELECT: &str = "00 A4 04 00 0C F0 43 6F 75 6E 74 65 72 73 69 67 6E 00";

pub(super) fn trials() -> Vec<Trial> {
    type Check = fn(Pcscd) -> Result<(), Failed>;
    let trials: [(&str, Check); 12] = [
        ("a_card_confirms_through_a_reader::p256", |pcscd| a_card_confirms(pcscd, "p256")),
        ("a_card_confirms_through_a_reader::sm2", |pcscd| a_card_confirms(pcscd, "sm2")),
        ("a_card_gives_a_dynamic_password", a_card_gives_a_dynamic_password),
        ("a_card_with_a_keypad_asks_there", a_card_with_a_keypad_asks_there),
        ("a_holder_says_no_at_the_keypad", a_holder_says_no_at_the_keypad),
        ("a_card_removed_in_mid_command_costs_nothing", removed_in_mid_command),
        ("a_card_removed_at_any_command_costs_nothing", cut::at_any_command),
        ("wrong_pins_block_the_card_and_its_puk_frees_it", wrong_pins_and_the_puk),
        ("other_makers_programs_read_the_card", foreign::programs_read_the_card),
        ("another_makers_program_has_a_payment_signed", foreign::program_has_a_payment_signed),
        ("a_card_refuses_what_is_out_of_order", foreign::what_is_out_of_order_is_refused),
        ("what_is_wrong_with_a_reader_is_named", what_is_wrong_with_a_reader_is_named),
    ];
    let part = require(Pcscd::start());
    let trials = trials.into_iter();
    let trial = |(name, run): (&str, Check)| {
        part.trial(format!("{name}::pcsc"), move |_| run(Pcscd::start()?))
    };
    trials.map(trial).collect()
}

/// A bank whose payer has a phone with a reader on it.
pub(super) struct Payer {
    pub(super) pcscd: Pcscd,
    pub(super) bank: Bank,
}

impl Payer {
    pub(super) fn new(pcscd: Pcscd, suite: &str) -> Result<Self, Failed> {
        let host = Host::new()?.with_env(pcscd.environment());
        host.init_with(&["--suite", suite], &Database::Sqlite)?;
        let payer = Self { bank: Bank::on(host, false)?, pcscd };
        payer.bank.phone("phone")?;
        Ok(payer)
    }

    /// Makes a security device and has it enrolled; its PUK is in `puk`.
    pub(super) fn key(&self, serial: &str, method: &str) -> Result<(), Failed> {
        let words = ["device", "key", "enroll", "--key", serial, "--serial", serial];
        let more = ["--label", "Li Lei's card", "--account", "PAYER0001"];
        let files = ["--pin-file", "pin", "--puk-file", "puk", "--method", method];
        self.bank.done(&[&words[..], &more, &files].concat())?;
        Ok(())
    }

    /// The device becomes a card in this slot; back when the reader speaks to it.
    pub(super) fn insert(&self, serial: &str, slot: u16, more: &[&str]) -> Result<Process, Failed> {
        self.insert_at(serial, &self.pcscd.slot(slot), more)
    }

    /// The same where something stands between the card and its slot.
    pub(super) fn insert_at(
        &self,
        serial: &str,
        at: &str,
        more: &[&str],
    ) -> Result<Process, Failed> {
        let words = ["--json", "device", "key", "serve", "--key", serial];
        let words = [&words[..], &["--virtual-reader", at], more].concat();
        let mut card = self.bank.host.spawn(&words)?;
        let ready = card.first_json()?;
        assert_eq!((&ready["event"], &ready["serial"]), (&json!("ready"), &json!(serial)));
        happens(&mut card, "inserted")?;
        Ok(card)
    }

    fn approve_words<'a>(&'a self, id: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["--json", "device", "phone", "approve", id, "--phone", "phone"];
        [&words[..], more].concat()
    }

    /// The phone takes a payment to the card in the only reader that has one.
    pub(super) fn approve(&self, id: &str, more: &[&str]) -> Result<Ended, Failed> {
        self.bank.host.run(&self.approve_words(id, &[&["--reader"], more].concat()))
    }

    pub(super) fn approved(&self, id: &str, more: &[&str]) -> Result<Value, Failed> {
        let done = self.approve(id, more)?.ok()?.json()?;
        assert_eq!(done["status"], "executed", "{done}");
        Ok(done)
    }

    fn approve_refused(&self, id: &str, more: &[&str], check: &str) -> Result<Value, Failed> {
        refused(self.approve(id, more)?, check)
    }
}

/// Reads a card's events up to the first of this name. A card that never tells it is killed, which
/// ends the reading.
pub(crate) fn happens(card: &mut Process, event: &str) -> Result<Value, Failed> {
    let (done, is_done) = channel::<()>();
    let kill = format!("kill -KILL {}", card.id());
    thread::spawn(move || {
        if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let _killed = Command::new("sh").args(["-c", &kill]).status();
        }
    });
    loop {
        let told = card.first_json()?;
        if told["event"] == event {
            drop(done);
            return Ok(told);
        }
    }
}

/// Refused by this check: with 3 where the card or its reader failed, with 1 for the rest.
pub(crate) fn refused(ended: Ended, check: &str) -> Result<Value, Failed> {
    let told = ended.json()?;
    let places = ["card-removed", "card-absent", "card-ambiguous", "pcsc-", "reader-"];
    let code = if places.iter().any(|place| check.starts_with(place)) { 3 } else { 1 };
    assert_eq!((ended.code, &told["error"]["check"]), (code, &json!(check)), "{told}");
    Ok(told)
}

/// The text behind a label on the card's display.
pub(crate) fn displayed<'a>(event: &'a Value, label: &str) -> &'a str {
    let lines = event["display"].as_array().into_iter().flatten();
    let mut found = lines.filter(|line| line["label"] == label);
    found.next().and_then(|line| line["text"].as_str()).unwrap_or_default()
}

/// D3, D4: the card shows the very bytes, the PIN goes to it, it signs, the payment executes.
fn a_card_confirms(pcscd: Pcscd, suite: &str) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, suite)?;
    payer.key("KEY-1", "pki")?;
    let mut card = payer.insert("KEY-1", 0, &[])?;
    let words = ["--json", "device", "key", "show", "--reader"];
    let shown = payer.bank.host.run(&words)?.ok()?.json()?;
    assert_eq!((&shown["serial"], &shown["suite"]), (&json!("KEY-1"), &json!(suite)));
    let id = payer.bank.pending("12.34")?;
    payer.approved(&id, &["--pin-file", "pin"])?;
    let told = happens(&mut card, "shown")?;
    assert_eq!(displayed(&told, "Amount"), "12.34 CNY", "{told}");
    assert_eq!(displayed(&told, "Account"), "SHOP 0001", "{told}");
    assert_eq!(payer.bank.balance("SHOP0001")?, "12.34");
    // The reader by name, and the same card again.
    let id = payer.bank.pending("5.00")?;
    let reader = payer.pcscd.reader(0);
    let words = payer.approve_words(&id, &["--reader", &reader, "--pin-file", "pin"]);
    let done = payer.bank.host.run(&words)?.ok()?.json()?;
    assert_eq!(done["status"], "executed", "{done}");
    card.terminate()?;
    assert_eq!(card.finish()?.code, 0);
    payer.bank.books_hold()
}

fn a_card_gives_a_dynamic_password(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("OCRA-1", "ocra")?;
    let _card = payer.insert("OCRA-1", 0, &[])?;
    let id = payer.bank.pending("7.00")?;
    payer.approved(&id, &["--pin-file", "pin"])?;
    // There is no certificate to give.
    let answers = payer.script(&[SELECT, "00 CA DF 01 00", "00 CA DF 05 00 00 00"])?;
    assert_eq!(answers[1..], [format!("{}9000", hex(b"OCRA-1")), "6A88".to_owned()]);
    payer.bank.books_hold()
}

/// The phone never has the PIN: it is typed where the payment is shown.
fn a_card_with_a_keypad_asks_there(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let mut card = payer.insert("KEY-1", 0, &["--keypad", "--pin-file", "pin"])?;
    let id = payer.bank.pending("12.34")?;
    payer.approved(&id, &[])?;
    let asked = happens(&mut card, "asked")?;
    assert_eq!(displayed(&asked, "Amount"), "12.34 CNY", "{asked}");
    assert_eq!(displayed(&asked, "For"), "Order 7: 2 teas", "{asked}");
    // A PIN over the reader is refused, right as it is.
    let answers = payer.script(&[SELECT, "00 20 00 81 08 24 25 80 FF FF FF FF FF"])?;
    assert_eq!(answers[1], "6A81");
    // Nor is it changed there, or a PUK tried: with other makers' programs as little as with ours.
    let blocks = "81 10 24 25 80 FF FF FF FF FF 24 11 11 FF FF FF FF FF";
    let (change, unblock) = (format!("00 24 00 {blocks}"), format!("00 2C 00 {blocks}"));
    let answers = payer.script(&[SELECT, &change, &unblock, "00 CA DF 03 00"])?;
    assert_eq!(answers[1..], ["6A81", "6A81", "030A9000"]);
    for words in [["pin", "--pin-file", "pin"], ["unblock", "--puk-file", "puk"]] {
        let words = [&["--json", "device", "key"], &words[..], &["--new-pin-file", "pin"]].concat();
        refused(payer.bank.host.run(&[&words[..], &["--reader"]].concat())?, "card-keypad")?;
    }
    payer.bank.books_hold()
}

fn a_holder_says_no_at_the_keypad(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    fs::write(payer.bank.host.path("nothing"), "\n")?;
    let card = payer.insert("KEY-1", 0, &["--keypad", "--pin-file", "nothing"])?;
    let id = payer.bank.pending("12.34")?;
    payer.approve_refused(&id, &[], "declined")?;
    assert_eq!(payer.bank.payment(&id)?["status"], "pending");
    card.kill()?;
    let _card = payer.insert("KEY-1", 0, &["--keypad", "--pin-file", "pin"])?;
    payer.approved(&id, &[])?;
    payer.bank.books_hold()
}

/// The card goes while its holder is being asked: nothing was signed, nothing is lost.
fn removed_in_mid_command(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    // A keypad at which nobody has typed yet.
    let keypad = payer.bank.host.path("keypad");
    assert!(Command::new("mkfifo").arg(&keypad).status()?.success());
    let mut card = payer.insert("KEY-1", 0, &["--keypad", "--pin-file", "keypad"])?;
    let id = payer.bank.pending("12.34")?;
    let words = payer.approve_words(&id, &["--reader"]);
    let approving = payer.bank.host.spawn(&words)?;
    happens(&mut card, "asked")?;
    card.kill()?;
    let ended = approving.finish()?;
    refused(ended, "card-removed")?;
    assert_eq!(payer.bank.payment(&id)?["status"], "pending");
    payer.approve_refused(&id, &[], "card-absent")?;
    let shown = payer.bank.done(&["security-device", "show", "KEY-1"])?;
    assert_eq!(shown["failures"], 0, "the server has heard of none of it");

    // It comes back, and its holder has all the tries there were.
    let _card = payer.insert("KEY-1", 0, &["--keypad", "--pin-file", "pin"])?;
    let answers = payer.script(&[SELECT, "00 CA DF 03 00"])?;
    assert!(answers[1].starts_with("03"), "{answers:?}");
    payer.approved(&id, &[])?;
    assert_eq!(payer.bank.balance("SHOP0001")?, "12.34");
    payer.bank.books_hold()
}

fn wrong_pins_and_the_puk(pcscd: Pcscd) -> Result<(), Failed> {
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    let file = |name: &str, text: &str| fs::write(payer.bank.host.path(name), text);
    file("wrong", "9999\n")?;
    file("new", "135790\n")?;
    file("wrong-puk", "00000000\n")?;
    let _card = payer.insert("KEY-1", 0, &[])?;
    let id = payer.bank.pending("1.00")?;
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        payer.approve_refused(&id, &["--pin-file", "wrong"], check)?;
    }
    payer.approve_refused(&id, &["--pin-file", "pin"], "pin-blocked")?;
    let answers = payer.script(&[SELECT, "00 CA DF 03 00"])?;
    assert_eq!(answers[1], "000A9000");
    let unblock = |puk: &str| {
        let words = ["--json", "device", "key", "unblock", "--reader", "--puk-file", puk];
        payer.bank.host.run(&[&words[..], &["--new-pin-file", "new"]].concat())
    };
    refused(unblock("wrong-puk")?, "puk-wrong")?;
    assert_eq!(payer.script(&[SELECT, "00 CA DF 03 00"])?[1], "00099000");
    unblock("puk")?.ok()?;
    for puk in ["wrong-puk", "puk"] {
        refused(unblock(puk)?, "pin-not-blocked")?;
    }
    assert_eq!(payer.script(&[SELECT, "00 CA DF 03 00"])?[1], "030A9000");
    payer.approve_refused(&id, &["--pin-file", "pin"], "pin-wrong")?;
    payer.approved(&id, &["--pin-file", "new"])?;
    // And back to the first PIN, by the PIN.
    let words = ["--json", "device", "key", "pin", "--reader", "--pin-file", "new"];
    payer.bank.host.run(&[&words[..], &["--new-pin-file", "pin"]].concat())?.ok()?;
    let id = payer.bank.pending("1.00")?;
    payer.approved(&id, &["--pin-file", "pin"])?;
    payer.bank.books_hold()
}

fn what_is_wrong_with_a_reader_is_named(mut pcscd: Pcscd) -> Result<(), Failed> {
    pcscd.kill()?;
    let mut payer = Payer::new(pcscd, "p256")?;
    payer.key("KEY-1", "pki")?;
    payer.key_again("KEY-2")?;
    let id = payer.bank.pending("1.00")?;
    let words = ["--json", "device", "key", "serve", "--key", "KEY-1", "--virtual-reader"];
    let ended = payer.bank.host.run(&[&words[..], &["192.0.2.1:35963"]].concat())?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (2, &json!("remote-reader")));
    payer.approve_refused(&id, &["--pin-file", "pin"], "pcsc-service")?;
    payer.pcscd.restart()?;
    payer.approve_refused(&id, &["--pin-file", "pin"], "card-absent")?;
    let words = payer.approve_words(&id, &["--reader", "none such", "--pin-file", "pin"]);
    refused(payer.bank.host.run(&words)?, "reader-unknown")?;
    let card = payer.insert("KEY-1", 0, &[])?;
    let _other = payer.insert("KEY-2", 1, &[])?;
    // Two cards are there as soon as the service has seen both.
    crate::host::wait_for("a second card", || {
        let told = payer.approve(&id, &["--pin-file", "no-such-file"])?.json()?;
        Ok((told["error"]["check"] == "card-ambiguous").then_some(()))
    })?;
    payer.approve_refused(&id, &["--pin-file", "pin"], "card-ambiguous")?;
    card.kill()?;
    crate::host::wait_for("the first card's end", || {
        let told = payer.approve(&id, &["--pin-file", "no-such-file"])?.json()?;
        Ok((told["error"]["check"] != "card-ambiguous").then_some(()))
    })?;
    assert_eq!(payer.bank.payment(&id)?["status"], "pending");
    payer.approved(&id, &["--pin-file", "pin"])?;
    payer.bank.books_hold()
}

impl Payer {
    /// A second device; the first one's PUK stays where it is.
    fn key_again(&self, serial: &str) -> Result<(), Failed> {
        fs::remove_file(self.bank.host.path("puk"))?;
        self.key(serial, "pki")
    }
}
