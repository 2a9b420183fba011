//! What goes wrong with a card that is used from elsewhere.

use libtest_mimic::Failed;
use testkit::parts::Pcscd;

use super::cards::{ALLOWED, Ends, KEY_1, SELECT, SERIAL, Use};
use super::stage::Way;
use crate::host::wait_for;
use crate::pcsc::behind_readers::happens;
use crate::pcsc::cut::{Cut, Hand};
use crate::pcsc::foreign::script;

/// Bytes of data in the longest command that goes through virtual readers: two bytes say how long
/// a message is, and an extended command has nine bytes besides its data.
const LONGEST: usize = 65_535 - 9;

/// The last command has no answer of the card's: the reader says that there is no card, or has no
/// word for what happened (6F 00) and then says it.
fn is_broken_off(said: &Result<Vec<String>, Failed>) {
    let last = said.as_ref().ok().and_then(|answers| answers.last());
    assert!(last.is_none_or(|last| last == "6F00"), "{said:?}");
}

/// The card at home is pulled out before it hears a command, and after it has done it: elsewhere
/// the card is gone, it is nobody's any more, and back in the reader it can be taken again.
pub(super) fn pulled_in_mid_command(pcscd: Pcscd) -> Result<(), Failed> {
    let ends = Ends::new(pcscd, &Use::Any)?;
    let hand = Hand::default();
    let (at, put) = hand.between(ends.at_home.slot(0))?;
    put.send(())?;
    ends.home.bank.payer("KEY-1", "phone")?;
    let _card = ends.key_at(&at)?;
    let (mut manager, mut sleeve) = ends.used(Way::Direct)?;
    assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);
    for is_heard in [false, true] {
        hand.plan(Some(Cut { at: 2, is_heard }));
        is_broken_off(&script(&ends.elsewhere, 0, &[SELECT, SERIAL]));
        assert!(hand.has_cut());
        let released = sleeve.event("released")?;
        assert_eq!(released["check"], "card-removed", "{released}");
        manager.event("released")?;
        wait_for("no card elsewhere", || {
            Ok(script(&ends.elsewhere, 0, &[SELECT]).is_err().then_some(()))
        })?;
        put.send(())?;
        wait_for("the card at home", || {
            sleeve.types("take card")?;
            Ok((sleeve.answer(&["taken", "refused"])?["event"] == "taken").then_some(()))
        })?;
        sleeve.event("inserted")?;
        assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);
    }
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}

/// The smart-card service at home ends, and the one elsewhere: no session ends by that, and each
/// comes back into use when it runs again.
pub(super) fn services_restarted(pcscd: Pcscd) -> Result<(), Failed> {
    let mut ends = Ends::new(pcscd, &Use::Any)?;
    let _card = ends.key_at_home()?;
    let (manager, mut sleeve) = ends.used(Way::Relay)?;
    assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);
    // Elsewhere: the sleeve puts its card into the reader again.
    ends.elsewhere.restart()?;
    sleeve.event("removed")?;
    sleeve.event("inserted")?;
    assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);
    // At home: the card is lost with its service, and taken again.
    ends.at_home.kill()?;
    is_broken_off(&script(&ends.elsewhere, 0, &[SELECT, SERIAL]));
    sleeve.event("released")?;
    sleeve.types("take card")?;
    assert_eq!(sleeve.answer(&["taken", "refused"])?["event"], "refused");
    ends.at_home.restart()?;
    wait_for("the card at home", || {
        sleeve.types("take card")?;
        Ok((sleeve.answer(&["taken", "refused"])?["event"] == "taken").then_some(()))
    })?;
    sleeve.event("inserted")?;
    assert_eq!(ends.script(&[SELECT, SERIAL])?[1], KEY_1);
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}

/// Another application than the ones that the policy names is not reached, nor an instruction that
/// it does not; the card at home hears nothing of either.
pub(super) fn policy_forbids_the_application(pcscd: Pcscd) -> Result<(), Failed> {
    let ends = Ends::new(pcscd, &Use::Emv(&[ALLOWED]))?;
    let _card = ends.key_at_home()?;
    let (mut manager, sleeve) = ends.used(Way::Direct)?;
    let answers = ends.script(&[SELECT, SERIAL, "00 DA DF 10 04 01 02 03 04"])?;
    assert!(answers.iter().all(|answer| !answer.ends_with("9000")), "{answers:?}");
    assert_eq!(manager.event("card-refused")?["check"], "policy-aid");
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}

/// The longest commands and responses that virtual readers carry go through, byte by byte.
pub(super) fn long_commands(pcscd: Pcscd) -> Result<(), Failed> {
    let ends = Ends::new(pcscd, &Use::Any)?;
    let slot = ends.at_home.slot(0);
    let words = ["--json", "emulator", "bank-card", "--virtual-reader", &slot];
    let mut card = ends.home.bank.host.spawn(&words)?;
    happens(&mut card, "inserted")?;
    let (manager, sleeve) = ends.used(Way::Relay)?;
    for length in [255, 256, 8192, 16_400, LONGEST] {
        let data: Vec<_> = (0..length).map(|at| format!("{:02X}", at % 251)).collect();
        let [high, low] = u16::try_from(length)?.to_be_bytes();
        let put = format!("80 DA DF 50 00 {high:02X} {low:02X} {}", data.join(" "));
        let answers = ends.script(&[&put, "80 CA DF 50 00 00 00"])?;
        assert_eq!(answers[0], "9000", "{length}");
        assert!(answers[1] == format!("{}9000", data.concat()), "{length}");
    }
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}
