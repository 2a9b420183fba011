//! Whoever confirms payments: phones that are told, security devices that show and sign (D2–D5).

use std::fs;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::bank::Bank;
use crate::host::{Database, Ended, Host};

/// A trial for one machine.
type Alone = fn() -> Result<(), Failed>;

pub(crate) const TRIALS: [(&str, Alone); 6] = [
    ("a_dynamic_password_confirms_a_payment", a_dynamic_password_confirms_a_payment),
    ("an_sm2_device_confirms_a_payment", an_sm2_device_confirms_a_payment),
    ("a_phone_enrols_once_and_sees_its_own", a_phone_enrols_once_and_sees_its_own),
    ("wrong_pins_block_the_device", wrong_pins_block_the_device),
    ("blocked_and_foreign_devices_are_refused", blocked_and_foreign_devices_are_refused),
    ("a_payer_says_no", a_payer_says_no),
];

impl Bank {
    /// A phone's command.
    fn at_phone(&self, words: &[&str]) -> Result<Ended, Failed> {
        self.host.run(&[&["--json", "device", "phone"], words].concat())
    }

    /// A phone's command that is refused with exit code 1 by this check.
    fn phone_refused(&self, words: &[&str], check: &str) -> Result<Value, Failed> {
        let ended = self.at_phone(words)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{words:?}: {told}");
        Ok(told)
    }

    fn approve_refused(&self, phone: &str, key: &str, id: &str, check: &str) -> Result<(), Failed> {
        let words = ["approve", id, "--phone", phone, "--key", key, "--pin-file", "pin"];
        self.phone_refused(&words, check).map(|_| ())
    }

    fn approved(&self, phone: &str, key: &str, id: &str) -> Result<(), Failed> {
        let done = self.approve(phone, key, id)?.ok()?.json()?;
        assert_eq!(
            (&done["status"], &done["scaStatus"]),
            (&json!("executed"), &json!("finalised"))
        );
        Ok(())
    }
}

/// The text behind a label on the device's display.
fn displayed<'a>(payment: &'a Value, label: &str) -> &'a str {
    let lines = payment["display"].as_array().into_iter().flatten();
    let mut found = lines.filter(|line| line["label"] == label);
    found.next().and_then(|line| line["text"].as_str()).unwrap_or_default()
}

/// D2 to D6 with real processes: a phone that waits is told, one that was away is told later, also
/// by a server that was killed meanwhile; the device shows and signs, the payment executes.
pub(crate) fn a_phone_is_told_and_its_device_confirms(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::new(database)?;
    bank.payer("KEY-1", "phone")?;
    let watch = ["--json", "device", "phone", "watch", "--phone", "phone", "--count", "1"];
    let waiting = bank.host.spawn(&watch)?;
    let id = bank.pending("12.34")?;
    let told = waiting.finish()?.ok()?.json()?;
    let payment = &told["items"][0];
    assert_eq!((&payment["id"], &payment["status"]), (&json!(id), &json!("pending")), "{told}");
    assert!(payment["pushId"].as_str().is_some_and(|push| push.starts_with("psh_")), "{told}");
    assert_eq!(displayed(payment, "Amount"), "12.34 CNY", "{told}");
    assert_eq!(displayed(payment, "Account"), "SHOP 0001");
    assert_eq!(displayed(payment, "For"), "Order 7: 2 teas");

    // By the push, for that is all that was sent.
    let push = payment["pushId"].as_str().ok_or("no push")?;
    let shown = bank.at_phone(&["show", push, "--phone", "phone"])?.ok()?.json()?;
    assert_eq!(shown["id"], json!(id));
    let approved = bank.approve("phone", "KEY-1", &id)?.ok()?;
    assert!(approved.stderr.contains("12.34 CNY") && approved.stderr.contains("Tea Shop"));
    assert_eq!(approved.json()?["status"], "executed");
    assert_eq!(bank.payment(&id)?["status"], "executed");
    assert_eq!(bank.balance("SHOP0001")?, "12.34");
    let listed = bank.at_phone(&["list", "--phone", "phone"])?.ok()?.json()?;
    assert_eq!(listed, json!({ "items": [] }));
    bank.approve_refused("phone", "KEY-1", &id, "payment-settled")?;

    // The phone is away, and the server dies; what waits for the phone does not.
    let id = bank.pending("5.00")?;
    bank.restart()?;
    let told = bank.host.run(&watch)?.ok()?.json()?;
    assert_eq!(told["items"][0]["id"], json!(id), "{told}");
    let again = bank.host.run(&watch)?.ok()?.json()?;
    assert_eq!(again, told, "a phone that lost it is told again");
    bank.approved("phone", "KEY-1", &id)?;
    bank.books_hold()
}

/// A revoked phone is refused at once, also where it waits.
pub(crate) fn a_revoked_phone_is_refused_at_once(database: &Database) -> Result<(), Failed> {
    let mut bank = Bank::new(database)?;
    bank.payer("KEY-1", "phone")?;
    bank.phone("phone2")?;
    let id = bank.pending("1.00")?;
    let mut waiting =
        bank.host.spawn(&["--json", "device", "phone", "watch", "--phone", "phone2"])?;
    assert_eq!(waiting.first_json()?["id"], json!(id), "it listens, and has been told");
    let phones = bank.done(&["phone", "list"])?;
    let second = phones["items"][1]["id"].as_str().ok_or("no second phone")?.to_owned();
    let revoked = bank.done(&["phone", "revoke", &second, "--reason", "lost"])?;
    assert_eq!((&revoked["state"], &revoked["revokeReason"]), (&json!("revoked"), &json!("lost")));
    let ended = waiting.finish()?;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stdout.contains("\"check\":\"token\""), "{}", ended.stdout);
    bank.phone_refused(&["list", "--phone", "phone2"], "token")?;
    bank.approve_refused("phone2", "KEY-1", &id, "token")?;
    bank.phone_refused(&["reject", &id, "--phone", "phone2", "--reason", "not-mine"], "token")?;
    bank.refused("admin", &["phone", "code", &second], "not-found")?;
    bank.approved("phone", "KEY-1", &id)?;
    bank.books_hold()
}

fn a_dynamic_password_confirms_a_payment() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.phone("phone")?;
    let enroll = |key: &str, serial: &str| {
        let words = ["device", "key", "enroll", "--key", key, "--serial", serial];
        let more = ["--label", "a token", "--account", "PAYER0001", "--pin-file", "pin"];
        bank.run("admin", &[&words[..], &more, &["--method", "ocra"]].concat())
    };
    let made = enroll("OCRA-1", "OCRA-1")?.ok()?.json()?;
    assert_eq!((&made["method"], &made["certificateNumber"]), (&json!("ocra"), &Value::Null));
    let id = bank.pending("7.00")?;
    bank.approved("phone", "OCRA-1", &id)?;

    // Its key is told once; a device that has one gets no other unless it is revoked.
    let taken = enroll("again", "OCRA-1")?;
    assert_eq!(taken.json()?["error"]["check"], "serial-taken");
    let revoked = bank.done(&["security-device", "revoke", "OCRA-1", "--reason", "lost"])?;
    assert_eq!(revoked["ocraSuite"], Value::Null);
    let id = bank.pending("7.00")?;
    bank.approve_refused("phone", "OCRA-1", &id, "authorisation-refused")?;
    fs::remove_dir_all(bank.host.path("again"))?;
    enroll("again", "OCRA-1")?.ok()?;
    bank.approve_refused("phone", "OCRA-1", &id, "authorisation-refused")?;
    bank.approved("phone", "again", &id)?;
    let shown = bank.done(&["security-device", "show", "OCRA-1"])?;
    assert_eq!((&shown["failures"], &shown["method"]), (&json!(0), &json!("ocra")));
    bank.books_hold()
}

fn an_sm2_device_confirms_a_payment() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init_with(&["--suite", "sm2"], &Database::Sqlite)?;
    let mut bank = Bank::on(host, false)?;
    bank.payer("KEY-1", "phone")?;
    let shown = bank.host.run(&["--json", "device", "key", "show", "--key", "KEY-1"])?;
    assert_eq!(shown.ok()?.json()?["suite"], "sm2");
    let id = bank.pending("12.34")?;
    bank.approved("phone", "KEY-1", &id)?;
    bank.books_hold()
}

fn a_phone_enrols_once_and_sees_its_own() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let allow =
        |account: &str| bank.done(&["phone", "allow", "--label", "another", "--account", account]);
    let enroll = |dir: &str, code: &str| {
        let api = bank.ports.api();
        let words = ["enroll", "--phone", dir, "--code", code, "--server", &api, "--ca", "ca.pem"];
        bank.at_phone(&words)
    };
    let refused = |ended: Ended, check: &str| -> Result<(), Failed> {
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{told}");
        Ok(())
    };
    let allowed = allow("SHOP0001")?;
    let code = allowed["enrolmentCode"].as_str().ok_or("no code")?;
    refused(enroll("shop", "AAAA-BBBB-CCCC-DDDD-EEEE-FFFF")?, "enrolment-code")?;
    refused(enroll("shop", "no code")?, "enrolment-code")?;
    enroll("shop", &code.to_lowercase())?.ok()?;
    refused(enroll("thief", code)?, "enrolment-code")?;
    refused(enroll("shop", code)?, "phone-taken")?;
    bank.refused("till", &["phone", "allow", "--label", "x", "--account", "SHOP0001"], "scope")?;
    let unknown = ["phone", "allow", "--label", "x", "--account", "NOBODY01"];
    bank.refused("admin", &unknown, "not-found")?;

    // Another account's phone neither sees nor answers.
    let id = bank.pending("1.00")?;
    let listed = bank.at_phone(&["list", "--phone", "shop"])?.ok()?.json()?;
    assert_eq!(listed, json!({ "items": [] }));
    bank.phone_refused(&["show", &id, "--phone", "shop"], "not-found")?;
    let reject = ["reject", &id, "--phone", "shop", "--reason", "not-mine"];
    let rejected = bank.at_phone(&reject)?;
    assert_eq!(rejected.code, 1, "{}", rejected.stdout);
    assert_eq!(bank.payment(&id)?["status"], "pending", "nothing came of it");
    // A phone's token is no operator's, and the other way round.
    fs::copy(bank.host.path("phone/token"), bank.host.path("phone.token"))?;
    bank.refused("phone", &["account", "list"], "token")?;
    fs::copy(bank.host.path("admin.token"), bank.host.path("shop/token"))?;
    bank.phone_refused(&["list", "--phone", "shop"], "token")?;
    bank.approved("phone", "KEY-1", &id)?;
    bank.books_hold()
}

fn wrong_pins_block_the_device() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    fs::write(bank.host.path("new-pin"), "135790\n")?;
    let change = ["--json", "device", "key", "pin", "--key", "KEY-1"];
    let files = ["--pin-file", "pin", "--new-pin-file", "new-pin"];
    bank.host.run(&[&change[..], &files].concat())?.ok()?;
    let id = bank.pending("1.00")?;
    bank.approve_refused("phone", "KEY-1", &id, "pin-wrong")?;
    let words = ["approve", &id, "--phone", "phone", "--key", "KEY-1", "--pin-file", "new-pin"];
    assert_eq!(bank.at_phone(&words)?.ok()?.json()?["status"], "executed");

    let id = bank.pending("1.00")?;
    for check in ["pin-wrong", "pin-wrong", "pin-blocked"] {
        bank.approve_refused("phone", "KEY-1", &id, check)?;
    }
    let words = ["approve", &id, "--phone", "phone", "--key", "KEY-1", "--pin-file", "new-pin"];
    bank.phone_refused(&words, "pin-blocked")?;
    // The server has heard of none of it.
    let shown = bank.done(&["security-device", "show", "KEY-1"])?;
    assert_eq!(shown["failures"], 0);
    assert_eq!(bank.payment(&id)?["status"], "pending");
    bank.books_hold()
}

fn blocked_and_foreign_devices_are_refused() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let words = ["device", "key", "enroll", "--key", "FOREIGN", "--serial", "FOREIGN"];
    let more = ["--label", "the shop's key", "--account", "SHOP0001", "--pin-file", "pin"];
    bank.done(&[&words[..], &more].concat())?;
    let id = bank.pending("1.00")?;
    bank.approve_refused("phone", "FOREIGN", &id, "authorisation-refused")?;
    bank.done(&["security-device", "block", "KEY-1", "--reason", "reported stolen"])?;
    bank.approve_refused("phone", "KEY-1", &id, "authorisation-refused")?;
    assert_eq!(bank.payment(&id)?["status"], "pending");
    let free = bank.done(&["security-device", "unblock", "KEY-1"])?;
    assert_eq!((&free["status"], &free["failures"]), (&json!("enrolled"), &json!(0)));
    bank.approved("phone", "KEY-1", &id)?;

    // Bound to an account, and no more; then revoked.
    bank.done(&["security-device", "bind", "FOREIGN", "--account", "PAYER0001"])?;
    let id = bank.pending("2.00")?;
    bank.approved("phone", "FOREIGN", &id)?;
    bank.done(&["security-device", "unbind", "FOREIGN", "--account", "PAYER0001"])?;
    let unbind = ["security-device", "unbind", "FOREIGN", "--account", "PAYER0001"];
    bank.refused("admin", &unbind, "not-found")?;
    let id = bank.pending("3.00")?;
    bank.approve_refused("phone", "FOREIGN", &id, "authorisation-refused")?;
    bank.done(&["security-device", "revoke", "KEY-1", "--reason", "key lost"])?;
    bank.approve_refused("phone", "KEY-1", &id, "authorisation-refused")?;
    // Enrolled anew with the key that it has, it confirms.
    bank.done(&[
        "device",
        "key",
        "enroll",
        "--key",
        "KEY-1",
        "--serial",
        "KEY-1",
        "--label",
        "Li Lei",
        "--account",
        "PAYER0001",
        "--pin-file",
        "pin",
    ])?;
    bank.approved("phone", "KEY-1", &id)?;
    bank.refused("till", &["security-device", "block", "KEY-1", "--reason", "x"], "scope")?;
    bank.books_hold()
}

fn a_payer_says_no() -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.payer("KEY-1", "phone")?;
    let id = bank.pending("1.00")?;
    let reject = ["reject", &id, "--phone", "phone", "--reason", "not-mine"];
    let told = bank.at_phone(&reject)?.ok()?.json()?;
    assert_eq!((&told["status"], &told["scaStatus"]), (&json!("rejected"), &json!("failed")));
    let payment = bank.payment(&id)?;
    assert_eq!(
        (&payment["status"], &payment["statusReason"]),
        (&json!("rejected"), &json!("not-mine"))
    );
    bank.approve_refused("phone", "KEY-1", &id, "payment-rejected")?;
    // What the payer did not begin stops the account, and says why.
    let account = bank.done(&["account", "show", "PAYER0001"])?;
    assert_eq!(account["status"], "frozen", "{account}");
    assert!(account["statusReason"].as_str().is_some_and(|why| why.contains(&id)), "{account}");
    bank.books_hold()
}
