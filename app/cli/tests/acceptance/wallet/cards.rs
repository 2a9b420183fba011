//! Cards at home, used elsewhere: a real PC/SC service at each end (A8).

use std::process::Command;

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Pcscd;

use super::stage::{Home, Manager, Sleeve, Way};
use crate::bank::Bank;
use crate::host::{Database, Ended, Host, Process, wait_for};
use crate::pcsc::behind_readers::{displayed, happens};
use crate::pcsc::foreign::script;

/// "Countersign" after F0, the name of the security device's application.
pub(super) const SELECT: &str = "00 A4 04 00 0C F0 43 6F 75 6E 74 65 72 73 69 67 6E 00";
/// The serial number of the security device, behind its status.
pub(super) const SERIAL: &str = "00 CA DF 01 00";
/// The serial number KEY-1, and that all is well.
pub(super) const KEY_1: &str = "4B45592D319000";
/// The application at the test's bank card that is allowed, and one that it has too.
pub(super) const ALLOWED: &str = "F04353544553540101";

/// A home with a card reader, and a terminal elsewhere with another; each has a smart-card service
/// of its own.
pub(super) struct Ends {
    pub(super) home: Home,
    pub(super) at_home: Pcscd,
    pub(super) elsewhere: Pcscd,
}

/// How the cards of the home's reader may be used.
pub(super) enum Use<'a> {
    /// For everything: a card of no scheme.
    Any,
    /// As a bank card, with these applications.
    Emv(&'a [&'a str]),
}

impl Ends {
    pub(super) fn new(at_home: Pcscd, used: &Use<'_>) -> Result<Self, Failed> {
        let host = Host::new()?.with_env(at_home.environment());
        host.init(&Database::Sqlite)?;
        let bank = Bank::on(host, false)?;
        let policy = match used {
            Use::Any => "aids = \"any\"\ncommands = \"any\"".to_owned(),
            Use::Emv(applications) => format!("aids = {applications:?}"),
        };
        let reader = at_home.reader(0);
        let cards = format!(
            "[[card]]\nid = \"card\"\nlabel = \"The card\"\nreader = {reader:?}\n{policy}\n"
        );
        let home = Home::around(bank, &cards)?;
        Ok(Self { home, at_home, elsewhere: Pcscd::start()? })
    }

    /// The environment of programs that are elsewhere.
    pub(super) fn elsewhere(&self) -> (&'static str, String) {
        let (name, value) = self.elsewhere.environment();
        (name, value.display().to_string())
    }

    /// Runs the command elsewhere.
    pub(super) fn run_elsewhere(&self, words: &[&str]) -> Result<Ended, Failed> {
        let (name, value) = self.elsewhere();
        self.home.bank.host.run_with(words, &[(name, &value)])
    }

    /// The two, paired and connected, the sleeve being the card in the first reader elsewhere.
    pub(super) fn used(&self, way: Way) -> Result<(Manager, Sleeve), Failed> {
        let mut manager = self.home.manager()?;
        self.home.paired(&mut manager, "sleeve")?;
        let mut sleeve = self.sleeve(way)?;
        manager.session()?;
        sleeve.takes("card")?;
        manager.event("taken")?;
        sleeve.event("inserted")?;
        Ok((manager, sleeve))
    }

    pub(super) fn sleeve(&self, way: Way) -> Result<Sleeve, Failed> {
        let slot = self.elsewhere.slot(0);
        self.home.sleeve(way, &["--virtual-reader", &slot])
    }

    /// A security device's key in the reader at home.
    pub(super) fn key_at_home(&self) -> Result<Process, Failed> {
        self.home.bank.payer("KEY-1", "phone")?;
        self.key_at(&self.at_home.slot(0))
    }

    pub(super) fn key_at(&self, slot: &str) -> Result<Process, Failed> {
        let words = ["--json", "device", "key", "serve", "--key", "KEY-1", "--virtual-reader"];
        let mut card = self.home.bank.host.spawn(&[&words[..], &[slot]].concat())?;
        happens(&mut card, "inserted")?;
        Ok(card)
    }

    /// The phone elsewhere takes a payment to the card in its reader.
    fn approve(&self, id: &str) -> Result<Ended, Failed> {
        let reader = self.elsewhere.reader(0);
        let words = ["--json", "device", "phone", "approve", id, "--phone", "phone"];
        self.run_elsewhere(&[&words[..], &["--reader", &reader, "--pin-file", "pin"]].concat())
    }

    /// What another maker's program gets of the card elsewhere, once there is one.
    pub(super) fn script(&self, commands: &[&str]) -> Result<Vec<String>, Failed> {
        wait_for("the card elsewhere", || Ok(script(&self.elsewhere, 0, commands).ok()))
    }
}

/// A payment is shown by the card at home, signed there, and executed: the phone is elsewhere, and
/// everything in between is the relay. OpenSC's program sees the same card.
pub(super) fn sign_through_the_whole_relay(pcscd: Pcscd) -> Result<(), Failed> {
    let mut ends = Ends::new(pcscd, &Use::Any)?;
    let mut card = ends.key_at_home()?;
    let (manager, sleeve) = ends.used(Way::Relay)?;
    let id = ends.home.bank.pending("12.34")?;
    let done = wait_for("the card elsewhere", || {
        let ended = ends.approve(&id)?;
        Ok((!ended.stdout.contains("\"card-absent\"")).then_some(ended))
    })?;
    let done = done.ok()?.json()?;
    assert_eq!(done["status"], "executed", "{done}");
    let told = happens(&mut card, "shown")?;
    assert_eq!(displayed(&told, "Amount"), "12.34 CNY", "{told}");
    assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);

    let (name, value) = ends.elsewhere();
    let mut tool = Command::new("opensc-tool");
    tool.env(name, value).args(["--reader", &ends.elsewhere.reader(0)]);
    tool.args(["--card-driver", "default", "--send-apdu", &SELECT.replace(' ', "")]);
    let output = tool.args(["--send-apdu", "00CADF0100"]).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("4B 45 59 2D 31 KEY-1"), "{said}");

    sleeve.quits()?;
    manager.quits()?;
    assert_eq!(ends.home.owner(&["audit", "verify"])?.ok()?.json()?["ok"], true);
    let audit = std::fs::read_to_string(ends.home.bank.host.path("manager/audit.jsonl"))?;
    assert!(!audit.contains("2580") && !audit.to_uppercase().contains("24258"), "no PIN");
    ends.home.bank.books_hold()
}

/// A bank card at home pays at a terminal elsewhere, by both ways; its cryptogram verifies.
pub(super) fn pay_as_a_bank_card(pcscd: Pcscd) -> Result<(), Failed> {
    let ends = Ends::new(pcscd, &Use::Emv(&[ALLOWED]))?;
    let slot = ends.at_home.slot(0);
    let words = ["--json", "emulator", "bank-card", "--virtual-reader", &slot];
    // A card that allows 200 µs, which is less than any way through two readers takes.
    let words = [&words[..], &["--distance-max", "2"]].concat();
    let mut card = ends.home.bank.host.spawn(&words)?;
    happens(&mut card, "inserted")?;
    let (mut manager, sleeve) = ends.used(Way::Direct)?;
    let reader = ends.elsewhere.reader(0);
    let pay = |more: &[&str]| {
        let words = ["--json", "emulator", "bank-card", "pay", "--reader", &reader];
        let price = ["--amount", "1234", "--wait", "20"];
        ends.run_elsewhere(&[&words[..], &price, more].concat())
    };
    let paid = pay(&["--pin", "1234"])?.ok()?.json()?;
    assert_eq!((&paid["approved"], &paid["aid"]), (&json!(true), &json!(ALLOWED)), "{paid}");
    assert_eq!(paid["request"]["verifies"], true, "{paid}");
    // A distance check fails over any relay, and is said to fail; nothing is done about it.
    let measured = pay(&["--distance-check"])?;
    assert_eq!(measured.code, 1, "{}", measured.stdout);
    assert_eq!(measured.json()?["distanceCheck"]["passes"], false, "{}", measured.stdout);
    manager.event("distance-check-fails")?;
    // The other application is on the card too, and is not allowed.
    let other = pay(&["--aid", "F04353544553540102"])?;
    assert_ne!(other.code, 0, "{}", other.stdout);
    assert_eq!(manager.event("card-refused")?["check"], "policy-aid");
    sleeve.quits()?;
    manager.event("ended")?;
    let mut sleeve = ends.sleeve(Way::Relay)?;
    sleeve.takes("card")?;
    sleeve.event("inserted")?;
    let paid = pay(&[])?.ok()?.json()?;
    assert_eq!((&paid["approved"], &paid["outcome"]["verifies"]), (&json!(true), &json!(true)));
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}
