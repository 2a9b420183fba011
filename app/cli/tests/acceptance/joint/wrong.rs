//! What goes wrong at the card: a no, no power, wrong PINs; and what is typed wrongly.

use std::fs;

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Pcscd;

use super::stage::{Holder, PIN, Shop};
use crate::host::{Database, wait_for};

/// The card is put back; what it displayed is read over.
fn back(holder: &mut Holder) -> Result<(), Failed> {
    holder.press("in")?;
    holder.event("inserted")?;
    Ok(())
}

/// B6: a no destroys the joint password, and so does the loss of power; the payment is taken back.
/// What is mistyped costs a try at the server, and three wrong ones end the payment.
pub(super) fn holder_keeps_or_loses_it(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;

    // In the terminal nobody consents, and what was not asked is not answered.
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.is_refused("card-nothing-asked")?;
    let terminal = shop.terminal("1.00", &[])?;
    holder.sees("take-out")?;
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.is_refused("card-nothing-asked")?;
    holder.press("tap")?;
    holder.is_refused("card-place")?;
    // The holder says no, and leaves.
    holder.press("out")?;
    holder.sees("consent")?;
    holder.press("no")?;
    holder.sees("declined")?;
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.is_refused("card-nothing-asked")?;
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");

    // The same where the terminal asks the card itself.
    back(&mut holder)?;
    let reader = shop.pcscd.reader(1);
    let terminal = shop.terminal("1.00", &["--contactless", &reader])?;
    holder.sees("take-out")?;
    holder.press("out")?;
    holder.sees("consent")?;
    holder.press("tap")?;
    while holder.event("inserted")?["interface"] != "contactless" {}
    holder.press("no")?;
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");

    // Its battery is out for a moment, before and after the consent.
    holder.press("out")?;
    back(&mut holder)?;
    for consents in [false, true] {
        let terminal = shop.terminal("1.00", &[])?;
        if consents {
            holder.consents("1.00")?;
            assert!(shop.bank.host.path("display/display.png").exists());
        } else {
            holder.sees("take-out")?;
            holder.press("out")?;
            holder.sees("consent")?;
        }
        holder.press("battery")?;
        holder.sees("idle")?;
        assert!(!shop.bank.host.path("display/display.png").exists());
        holder.press(PIN)?;
        holder.press("ok")?;
        holder.is_refused("card-nothing-asked")?;
        assert_eq!(terminal.refused("declined")?["status"], "cancelled");
        back(&mut holder)?;
    }

    // Three wrong ones, each of the right form, end the payment; the right one is too late.
    let mut terminal = shop.terminal("1.00", &[])?;
    let shown = holder.consents("1.00")?;
    for wrong in ["0000 0000 2", "1111-1111-3", "123456789"] {
        // Whatever their check digits are: the form's refusal costs nothing.
        terminal.types(wrong)?;
    }
    for first in ["1", "2", "3"] {
        terminal.types(&wrong(first, &shown))?;
    }
    terminal.types(&shown)?;
    let payment = terminal.refused("authorisation-refused")?;
    assert_eq!(payment["status"], "failed", "{payment}");
    back(&mut holder)?;
    shop.pays(&mut holder, "2.00")?;
    assert_eq!(shop.bank.balance("SHOP0001")?, "2.00");
    let shown = shop.bank.done(&["security-device", "show", "CARD-1"])?;
    assert_eq!((&shown["status"], &shown["failures"]), (&json!("enrolled"), &json!(0)), "{shown}");
    shop.bank.books_hold()
}

/// A joint password that begins so, with its check digit (ISO/IEC 7064, MOD 11,10), and is another
/// one than `right`.
pub(super) fn wrong(first: &str, right: &str) -> String {
    let right: String = right.split(' ').collect();
    let mut digits = format!("{first}{}", &right[1..8]);
    if digits == right[..8] {
        digits.replace_range(7.., if digits.ends_with('9') { "0" } else { "9" });
    }
    let product = digits.bytes().fold(10, |product, digit| {
        let sum = (u32::from(digit - b'0') + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    format!("{digits}{}", (11 - product) % 10)
}

/// Three wrong PINs destroy the joint password and block the card; its PUK gives it a new PIN.
pub(super) fn pins_and_the_puk(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;
    let terminal = shop.terminal("1.00", &[])?;
    holder.sees("take-out")?;
    holder.press("out")?;
    assert_eq!(holder.sees("consent")?["triesLeft"], 3);
    holder.press("pin 12")?;
    holder.press("ok")?;
    holder.is_refused("pin-form")?;
    for (left, check) in [(2, "pin-wrong"), (1, "pin-wrong")] {
        holder.press("pin 0000")?;
        holder.press("ok")?;
        holder.is_refused(check)?;
        assert_eq!(holder.sees("consent")?["triesLeft"], left);
    }
    holder.press("pin 0000")?;
    holder.press("ok")?;
    holder.sees("blocked")?;
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");

    // Blocked, it signs nothing more; the right PIN changes nothing.
    back(&mut holder)?;
    let terminal = shop.terminal("1.00", &[])?;
    assert_eq!(terminal.refused("pin-blocked")?["status"], "cancelled");
    holder.quit()?;
    let host = &shop.bank.host;
    fs::write(host.path("new"), "135790\n")?;
    let at_card = |words: &[&str]| {
        host.run(&[&["--json", "device", "card"], words, &["--card", "CARD-1"]].concat())
    };
    let shown = at_card(&["show"])?.ok()?.json()?;
    assert_eq!((&shown["pinTriesLeft"], &shown["pukTriesLeft"]), (&json!(0), &json!(10)));
    fs::write(host.path("wrong"), "00000000\n")?;
    for (puk, check) in [("wrong", Some("puk-wrong")), ("CARD-1.puk", None)] {
        let ended = at_card(&["unblock", "--puk-file", puk, "--new-pin-file", "new"])?;
        assert_eq!(ended.json()?["error"]["check"], json!(check), "{}", ended.stdout);
    }
    // With the new PIN it makes another PUK, and gets the old PIN back.
    at_card(&["puk", "--pin-file", "new", "--puk-file", "puk"])?.ok()?;
    let ended = at_card(&["unblock", "--puk-file", "CARD-1.puk", "--new-pin-file", "pin"])?;
    assert_eq!(ended.json()?["error"]["check"], "puk-wrong");
    at_card(&["pin", "--pin-file", "new", "--new-pin-file", "pin"])?.ok()?;
    let refresh = ["device", "card", "refresh", "--card", "CARD-1"];
    assert_eq!(shop.bank.done(&refresh)?["refreshed"], true);
    let mut holder = wait_for("the reader", || Ok(shop.insert("CARD-1").ok()))?;
    shop.pays(&mut holder, "1.00")?;
    assert_eq!(shop.bank.balance("SHOP0001")?, "1.00");
    shop.bank.books_hold()
}
