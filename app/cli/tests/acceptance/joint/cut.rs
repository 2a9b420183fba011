//! The reader loses the card at each command in turn, before the card hears it and after it has
//! done it.

use libtest_mimic::Failed;
use serde_json::json;
use testkit::parts::Pcscd;

use super::stage::Shop;
use crate::host::{Database, wait_for};
use crate::pcsc::cut::{Cut, Hand};

/// More commands than one signature takes.
const COMMANDS_MAX: u32 = 40;
/// Fewest that it can take: SELECT, what the card is, its certificate, the transaction, the form,
/// the signature.
const COMMANDS_MIN: u32 = 6;

/// Whenever the card goes for good, the terminal says so and takes the payment back; the card
/// forgets what it had, and the next payment goes through.
pub(super) fn at_any_command(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let hand = Hand::default();
    let (at, put) = hand.between(shop.pcscd.slot(0))?;
    put.send(())?;
    let mut holder = shop.insert_at("CARD-1", &at)?;
    let mut commands = 0;
    'all: for at in 1..COMMANDS_MAX {
        for is_heard in [false, true] {
            hand.plan(Some(Cut { at, is_heard }));
            let ended = wait_for("a card in the reader", || {
                let mut terminal = shop.terminal("1.00", &["--card-wait", "0"])?;
                if !hand.has_cut() {
                    // It may be the first one that gets through.
                    terminal.types("no")?;
                }
                let ended = terminal.ends()?;
                Ok((!ended.stdout.contains("\"card-absent\"")).then_some(ended))
            })?;
            let told = ended.json()?;
            if !hand.has_cut() {
                // All commands went by: the card has signed, and nobody typed.
                assert_eq!(told["error"]["check"], "declined", "{told}");
                break 'all;
            }
            assert_eq!(
                (ended.code, &told["error"]["check"]),
                (3, &json!("card-removed")),
                "command {at}, heard: {is_heard}: {told}"
            );
            // Where the payment was made already, it is taken back.
            let state = &told["payment"]["status"];
            assert!(state.is_null() || state == "cancelled", "{told}");
            put.send(())?;
        }
        commands = at;
    }
    assert!((COMMANDS_MIN..COMMANDS_MAX - 1).contains(&commands), "{commands} commands");
    hand.plan(None);
    assert_eq!(shop.bank.balance("SHOP0001")?, "0.00");
    // Taken out now, it may ask for the last one that it signed, which is of no use any more.
    holder.press("out")?;
    holder.event("out")?;
    holder.press("no")?;
    put.send(())?;
    holder.press("in")?;
    holder.event("inserted")?;
    put.send(())?;
    shop.pays(&mut holder, "2.00")?;
    // Put in again while the terminal waits for it, it signs the same payment again.
    hand.plan(Some(Cut { at: commands, is_heard: false }));
    let mut terminal = shop.terminal("3.00", &["--typed"])?;
    shop.is_told("Put the card in again.")?;
    put.send(())?;
    let shown = holder.consents("3.00")?;
    terminal.types(&shown)?;
    terminal.executed()?;
    assert_eq!(shop.bank.balance("SHOP0001")?, "5.00");
    let shown = shop.bank.done(&["security-device", "show", "CARD-1"])?;
    assert_eq!((&shown["failures"], &shown["status"]), (&json!(0), &json!("enrolled")));
    shop.bank.books_hold()
}
