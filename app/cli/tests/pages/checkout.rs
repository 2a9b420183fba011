//! The shop's screen: what is asked for, the QR code for a device alone, and the end as it happens
//! (D1, D6, D7, D8).

use std::process::Command;

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Chromium;

use crate::Check;
use crate::bank::Bank;
use crate::browser::{Browser, DESKTOP, NARROW};
use crate::host::Database;
use crate::payer::other_than;

pub(crate) const TRIALS: [(&str, Check); 3] = [
    ("a_qr_code_on_the_screen_pays_without_a_phone", a_qr_code_on_the_screen_pays_without_a_phone),
    ("a_payment_page_opens_by_its_key_only", a_payment_page_opens_by_its_key_only),
    ("the_shops_screen_follows_the_payment", the_shops_screen_follows_the_payment),
];

/// What a camera reads from a screenshot.
fn scan(bank: &Bank, browser: &Browser, name: &str) -> Result<String, Failed> {
    let path = bank.host.path(name);
    std::fs::write(&path, browser.picture()?)?;
    let scanned = Command::new("zbarimg").args(["--quiet", "--raw"]).arg(&path).output()?;
    let text = String::from_utf8(scanned.stdout)?.trim().to_owned();
    if text.is_empty() { Err("no code in the picture".into()) } else { Ok(text) }
}

/// The screen shows the payment as a code, signed by the server; a device scans it, shows it, and
/// its digits settle the payment. No phone takes part.
fn a_qr_code_on_the_screen_pays_without_a_phone(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.digits_device("OCRA-1")?;
    let id = bank.pending("12.34")?;
    let checkout = bank.checkout(&id)?;
    let shop = Browser::open(chromium, "en")?;
    shop.go(&checkout.url)?;
    shop.wait_view("pending")?;
    shop.click("#offline-open")?;
    shop.wait_for("#qr svg")?;
    let mut scanned = String::new();
    for (screen, file) in [(DESKTOP, "desktop.png"), (NARROW, "narrow.png")] {
        shop.screen(screen)?;
        scanned = scan(&bank, &shop, file)?;
        assert!(scanned.starts_with("CS1:"), "on {}: {scanned}", screen.name);
    }
    // What was changed on the way, the device does not even show.
    let last = if scanned.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{last}", &scanned[..scanned.len() - 1]);
    let words = ["--json", "device", "key", "offline", "--qr", &forged, "--key", "OCRA-1"];
    let refused = bank.host.run(&[&words[..], &["--pin-file", "pin"]].concat())?;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.json()?["digits"].is_null());

    let digits = bank.digits("OCRA-1", &scanned)?;
    shop.fill("#device-serial", "OCRA-1")?;
    shop.fill("#digits", "12")?;
    shop.click("#offline-button")?;
    shop.wait("an error at the field", |page| Ok(!page.text("#digits-error")?.is_empty()))?;
    shop.fill("#digits", &other_than(&digits))?;
    shop.click("#offline-button")?;
    let told = shop.wait_problem()?;
    assert!(told.contains("Not accepted"), "{told}");
    assert_eq!(bank.stands(&id)?.0, "pending");
    assert_eq!(bank.balance("SHOP0001")?, "0.00");
    shop.fill("#digits", &digits)?;
    shop.click("#offline-button")?;
    shop.wait_outcome("executed")?;
    assert_eq!(bank.stands(&id)?.0, "executed");
    assert_eq!(bank.balance("SHOP0001")?, "12.34");
    assert_eq!(bank.done(&["phone", "list"])?["items"], json!([]), "no phone");
    bank.books_hold()
}

fn a_payment_page_opens_by_its_key_only(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    let (id, other) = (bank.pending("12.34")?, bank.pending("56.78")?);
    let (url, key) = {
        let checkout = bank.checkout(&id)?;
        let (url, key) = checkout.url.split_once('#').ok_or("no key")?;
        (url.to_owned(), key.to_owned())
    };
    // Without a key, with another one, with another payment's.
    let foreign = bank.checkout(&other)?.url;
    let foreign = foreign.split_once('#').ok_or("no key")?.1;
    let unlike = |key: &str| key.chars().rev().collect::<String>();
    for bad in ["", &unlike(&key), foreign] {
        let shop = Browser::open(chromium, "en")?;
        shop.go(&format!("{url}#{bad}"))?;
        shop.wait_view("no-key")?;
        let shown = shop.text("body")?;
        assert!(!shown.contains("12.34") && !shown.contains("Tea Shop"), "{bad}: {shown}");
    }
    // With it; then the key is not in the address any more, where a shoulder or a log would see it.
    let shop = Browser::open(chromium, "en")?;
    shop.go(&format!("{url}#{key}"))?;
    shop.wait_view("pending")?;
    assert!(shop.text("#amount")?.starts_with("12.34"));
    assert!(!shop.url()?.contains(&key), "{}", shop.url()?);
    shop.reload()?;
    shop.wait_view("pending")?;
    // Another window of the same browser has no key.
    assert_eq!(
        shop.promise(
            "await (await fetch(location.href.replace('/checkout/', '/v1/checkout/'))).status"
        )?,
        json!(401)
    );
    bank.books_hold()
}

fn the_shops_screen_follows_the_payment(chromium: &Chromium) -> Result<(), Failed> {
    let mut bank = Bank::new(&Database::Sqlite)?;
    bank.signing_device("KEY-1")?;
    bank.phone("phone")?;
    let shop = Browser::open(chromium, "en")?;
    let shown = |id: &str| -> Result<String, Failed> {
        let checkout = bank.checkout(id)?;
        shop.go(&checkout.url)?;
        shop.wait_view("pending")?;
        shop.script("window.stayed = true", Vec::new())?;
        Ok(checkout.number)
    };
    let followed = |outcome: &str| -> Result<String, Failed> {
        shop.wait_outcome(outcome)?;
        assert_eq!(shop.script("return window.stayed", Vec::new())?, json!(true), "no reload");
        shop.text("#result")
    };
    // Confirmed elsewhere, by a phone that is no browser.
    let id = bank.pending("12.34")?;
    shown(&id)?;
    bank.approve("phone", "KEY-1", &id)?.ok()?;
    assert!(followed("executed")?.contains("done"));
    // Rejected there.
    let id = bank.pending("12.34")?;
    shown(&id)?;
    let reject =
        ["device", "phone", "reject", &id, "--phone", "phone", "--reason", "wrong-details"];
    bank.host.run(&reject)?.ok()?;
    assert!(followed("rejected")?.contains("something in it is wrong"));
    // Taken back by the shop.
    let id = bank.pending("12.34")?;
    shown(&id)?;
    bank.run("till", &["payment", "cancel", &id])?.ok()?;
    followed("cancelled")?;
    // Confirmed, and the ledger says no: an error, in words, on the shop's screen too.
    let id = bank.pending("900.00")?;
    shown(&id)?;
    bank.post("emptied", "PAYER0001", "OUTSIDE01", "900.00")?.ok()?;
    bank.approve("phone", "KEY-1", &id)?;
    assert_eq!(bank.stands(&id)?.0, "execution_failed");
    assert!(followed("execution_failed")?.contains("not enough money"));

    // The server dies while the page waits, and comes back: the page says so, and follows on.
    let id = bank.pending("1.00")?;
    let checkout = bank.checkout(&id)?;
    shop.go(&checkout.url)?;
    shop.wait_view("pending")?;
    bank.server.take().ok_or("no server")?.kill()?;
    shop.wait("the page to notice", |page| Ok(!page.text("#offline-note")?.is_empty()))?;
    bank.server = Some(bank.host.serve(&bank.ports)?);
    bank.run("till", &["payment", "cancel", &id])?.ok()?;
    shop.wait_outcome("cancelled")?;
    bank.books_hold()
}
