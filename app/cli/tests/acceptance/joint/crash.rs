//! `kill -9` around the submission: of the server, and of the card.

use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use super::stage::Shop;
use crate::host::Database;

/// When the server is killed after the joint password was typed, in milliseconds; the first is
/// before.
const MOMENTS: [Option<u64>; 4] = [None, Some(0), Some(8), Some(25)];

/// The terminal sends its answer until the server has taken it, which executes the payment once.
pub(super) fn executes_once(pcscd: Pcscd) -> Result<(), Failed> {
    let mut shop = Shop::new(pcscd, "p256", &Database::Sqlite)?;
    shop.card("CARD-1", "PAYER0001")?;
    let mut holder = shop.insert("CARD-1")?;
    for moment in MOMENTS {
        let mut terminal = shop.terminal("1.00", &[])?;
        let shown = holder.consents("1.00")?;
        match moment {
            None => {
                shop.bank.server.take().ok_or("no server")?.kill()?;
                terminal.types(&shown)?;
                // It finds nobody, and asks again.
                thread::sleep(Duration::from_millis(700));
                shop.bank.server = Some(shop.bank.host.serve_plain(&shop.bank.ports)?);
            }
            Some(moment) => {
                terminal.types(&shown)?;
                thread::sleep(Duration::from_millis(moment));
                shop.bank.restart()?;
            }
        }
        terminal.executed()?;
        holder.press("in")?;
        holder.event("inserted")?;
    }
    assert_eq!(shop.bank.balance("SHOP0001")?, "4.00", "each once");

    // The card is killed with the joint password on its display: it is gone, and the card is not.
    let terminal = shop.terminal("1.00", &[])?;
    holder.consents("1.00")?;
    holder.kill()?;
    // The reader has to see the slot empty; a program that begins does not know how long it was.
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(terminal.refused("declined")?["status"], "cancelled");
    let mut holder = crate::host::wait_for("the reader", || Ok(shop.insert("CARD-1").ok()))?;
    assert!(!shop.bank.host.path("display/display.png").exists(), "nor is its picture there");
    shop.pays(&mut holder, "1.00")?;
    assert_eq!(shop.bank.balance("SHOP0001")?, "5.00");
    shop.bank.books_hold()
}
