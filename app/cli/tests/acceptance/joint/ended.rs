//! How the terminal's payments end that are repeated, stopped, or met by other cards.

use std::fs;
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};
use testkit::parts::Pcscd;

use super::stage::{DISPLAY, PIN, Shop};
use super::wrong::wrong;
use crate::host::{Database, wait_for};

/// Longer than a reader takes to see that its card is gone.
const AWAY: Duration = Duration::from_millis(1500);

/// The payments that there are.
fn payments(shop: &Shop) -> Result<usize, Failed> {
    let listed = shop.bank.done(&["payment", "list"])?;
    Ok(listed["items"].as_array().ok_or("no payments")?.len())
}

/// A repeated payment is told as it ended; a signal has it taken back; a reader that there is not
/// is found before the card signs; and what is no text at prompt or keypad ends nothing.
pub(super) fn as_it_did(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;

    // The answer is taken to be lost: the same command again, with the card in the reader.
    let words = ["--idempotency-key", "order-7"];
    let mut terminal = shop.terminal("1.00", &words)?;
    let shown = holder.consents("1.00")?;
    terminal.types_bytes(b"\xff\xfe\n")?;
    terminal.types(&shown)?;
    let paid = terminal.executed()?;
    assert_eq!(paid["initiatingParty"]["name"], "countersign terminal", "{paid}");
    let said = fs::read_to_string(shop.bank.host.path("terminal.log"))?;
    assert!(said.contains("neither nine digits nor nine names"), "{said}");
    assert!(!said.contains("Put the card"), "it is in: {said}");
    let until = paid["expiresAt"].as_str().ok_or("no end")?;
    assert!(said.contains(&format!("Joint password, until {until} ")), "{said}");
    holder.press("in")?;
    holder.event("inserted")?;
    let again = shop.terminal("1.00", &words)?.executed()?;
    assert_eq!(again["id"], paid["id"], "{again}");
    assert_eq!(shop.bank.balance("SHOP0001")?, "1.00", "once");

    // No payment is made that the terminal has no reader for.
    let made = payments(&shop)?;
    let ended = shop.terminal("1.00", &["--contactless", "no such reader"])?.ends()?;
    let told = ended.json()?;
    assert_eq!((ended.code, &told["error"]["check"]), (3, &json!("reader-unknown")), "{told}");
    assert_eq!((payments(&shop)?, &told["payment"]), (made, &Value::Null), "{told}");

    // Stopped at the prompt, at a file that does not come, and before there is a card.
    for (signal, more) in [("INT", &[][..]), ("TERM", &["--scan", "nothing.png"])] {
        let terminal = shop.terminal("1.00", more)?;
        holder.sees("take-out")?;
        holder.press("out")?;
        holder.sees("consent")?;
        let ended = terminal.stopped_by(signal)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!("interrupted")), "{told}");
        assert_eq!(told["payment"]["status"], "cancelled", "{told}");
        holder.press("in")?;
        holder.event("inserted")?;
    }
    holder.press("out")?;
    holder.event("out")?;
    let made = payments(&shop)?;
    let terminal = shop.terminal("1.00", &[])?;
    shop.is_told("Put the card into the reader.")?;
    let ended = terminal.stopped_by("INT")?;
    assert_eq!(ended.json()?["error"]["check"], "interrupted", "{}", ended.stdout);
    assert_eq!(payments(&shop)?, made);
    holder.press("in")?;
    holder.event("inserted")?;

    // A key that is none, and the keypad goes on; a display whose terminal is closed shows no more.
    let terminal = shop.terminal("1.00", &[])?;
    holder.sees("take-out")?;
    holder.press_bytes(b"\xff\n")?;
    holder.is_refused("key")?;
    holder.press("out")?;
    holder.press(PIN)?;
    holder.press("ok")?;
    holder.sees("password")?;
    let display = shop.bank.host.path(&format!("{DISPLAY}/display.png"));
    assert!(display.exists());
    holder.hangs_up()?;
    assert!(!display.exists(), "nor is its picture there");
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");

    // Enrolled again, it has the PUK that it had, and says so.
    let words = ["device", "card", "enroll", "--card", "CARD-1", "--serial", "CARD-1"];
    let more = ["--label", "Li Lei's card", "--account", "PAYER0001"];
    let files = ["--pin-file", "pin", "--puk-file", "another.puk"];
    let made = shop.bank.done(&[&words[..], &more, &files].concat())?;
    assert_eq!(made.get("pukFile"), Some(&Value::Null), "{made}");
    assert!(!shop.bank.host.path("another.puk").exists());
    shop.bank.books_hold()
}

/// Another card at the contactless reader, even one that has just declined, ends nothing; and where
/// one wrong joint password ends the payment, nobody is asked for another.
pub(super) fn by_the_right_card(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    shop.card("CARD-2", "PAYER0001")?;
    let mut other = shop.insert("CARD-2")?;
    let terminal = shop.terminal("1.00", &[])?;
    other.sees("take-out")?;
    other.press("out")?;
    other.sees("consent")?;
    other.press("no")?;
    other.sees("declined")?;
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");

    // The reader has to see the slot empty; a program that begins does not know how long it was.
    thread::sleep(AWAY);
    let mut holder = wait_for("the reader", || Ok(shop.insert("CARD-1").ok()))?;
    let reader = shop.pcscd.reader(1);
    let terminal = shop.terminal("2.00", &["--contactless", &reader])?;
    holder.consents("2.00")?;
    other.press("tap")?;
    while other.event("inserted")?["interface"] != "contactless" {}
    let told = "has nothing for this payment";
    shop.is_told(told)?;
    other.press("out")?;
    other.event("out")?;
    holder.press("tap")?;
    terminal.executed()?;
    let said = fs::read_to_string(shop.bank.host.path("terminal.log"))?;
    assert_eq!(said.matches(told).count(), 1, "{said}");
    holder.press("out")?;
    holder.press("in")?;
    while holder.event("inserted")?["interface"] != "contact" {}

    let path = shop.bank.host.path("data/config.toml");
    let usual = fs::read_to_string(&path)?;
    let set = usual.replace("# wrong-answers = 3", "wrong-answers = 1");
    let set = set.replace("\nwrong-answers = 3", "\nwrong-answers = 1");
    assert_ne!(set, usual);
    fs::write(&path, set)?;
    shop.bank.restart()?;
    let mut terminal = shop.terminal("1.00", &[])?;
    let shown = holder.consents("1.00")?;
    terminal.types(&wrong("1", &shown))?;
    // The prompt stands open: it has ended of itself.
    shop.is_told("Joint password")?;
    let payment = terminal.refused("authorisation-refused")?;
    assert_eq!(payment["status"], "failed", "{payment}");
    let said = fs::read_to_string(shop.bank.host.path("terminal.log"))?;
    assert_eq!(said.matches("Joint password").count(), 1, "asked once: {said}");
    assert_eq!(shop.bank.balance("SHOP0001")?, "2.00");
    holder.quit()?;
    shop.bank.books_hold()
}
