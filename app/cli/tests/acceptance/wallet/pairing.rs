//! Pairing (A1) as two people do it: an open window, a certified id, a yes or a no.

use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::stage::{Home, LOGIN, Manager, Way};
use crate::host::Host;

impl Home {
    /// Both lists, which are the same list seen from two sides.
    fn is_paired_with(&self, sleeves: &[&str], managers: &[&str]) -> Result<(), Failed> {
        let names = |told: &Value, of: &str| -> Vec<String> {
            let items = told[of].as_array().into_iter().flatten();
            items.filter_map(|item| Some(item["serial"].as_str()?.to_owned())).collect()
        };
        let holder = self.holder(&["managers"])?.ok()?.json()?;
        assert_eq!(names(&holder, "managers"), managers, "{holder}");
        let owner = self.owner(&["sleeves"])?.ok()?.json()?;
        assert_eq!(names(&owner, "sleeves"), sleeves, "{owner}");
        Ok(())
    }

    /// A pairing that ends by this check at the sleeve.
    fn pairing_refused(&self, way: Way, answer: &str, check: &str) -> Result<(), Failed> {
        let mut pairing = self.pairs("sleeve", way)?;
        if !answer.is_empty() {
            self.is_asked("pair.log", "MGR-1")?;
            pairing.types(answer)?;
        }
        let ended = pairing.ends()?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{told}");
        Ok(())
    }
}

/// Closed, it refuses before anything is looked at; a no, a closed window and a silent holder leave
/// both lists as they were; a yes makes one pair and closes the window.
pub(super) fn needs_the_window_and_the_users_yes() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, "")?;
    let mut manager = home.manager()?;
    for way in [Way::Direct, Way::Relay] {
        home.pairing_refused(way, "", "pairing-closed")?;
    }
    manager.types("pair 60")?;
    assert_eq!(manager.event("pairing-opened")?["seconds"], 60);
    home.pairing_refused(Way::Direct, "no", "pairing-refused")?;
    assert_eq!(manager.event("pairing")?["sleeve"], "SLV-1", "its certified id is shown");
    manager.event("not-paired")?;
    manager.types("close")?;
    manager.event("pairing-closed")?;
    home.pairing_refused(Way::Direct, "", "pairing-closed")?;
    // A window that ends by itself.
    manager.types("pair 1")?;
    manager.event("pairing-closed")?;
    home.pairing_refused(Way::Relay, "", "pairing-closed")?;
    home.connect_refused(Way::Direct, LOGIN, "manager-unknown")?;
    let told = manager.quits()?;
    assert!(told.iter().all(|told| told["event"] != "paired"), "{told:?}");
    home.is_paired_with(&[], &[])?;

    let mut manager = home.manager()?;
    let paired = home.paired(&mut manager, "sleeve")?;
    assert_eq!(paired["manager"], "MGR-1", "{paired}");
    // One window, one pair.
    manager.event("pairing-closed")?;
    home.pairing_refused(Way::Direct, "", "pairing-closed")?;
    manager.quits()?;
    home.is_paired_with(&["SLV-1"], &["MGR-1"])
}

/// The number that the sleeve shows is the one of the manager's certificate; through the relay it
/// is the same, and who is asked for is who answers.
pub(super) fn shows_the_certified_id() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, "")?;
    let number = home.owner(&["show"])?.ok()?.json()?["certificateNumber"].clone();
    let number = number.as_str().ok_or("no number")?;
    let mut manager = home.manager()?;
    manager.types("pair 60")?;
    manager.event("pairing-opened")?;
    let mut pairing = home.pairs("sleeve", Way::Relay)?;
    let asked = home.is_asked("pair.log", "MGR-1")?;
    assert!(asked.contains(number), "{asked}");
    pairing.types("yes")?;
    let paired = pairing.ends()?.ok()?.json()?;
    assert_eq!(paired["certificateNumber"], number, "{paired}");
    let told = manager.event("paired")?;
    let sleeve = home.holder(&["show"])?.ok()?.json()?;
    assert_eq!(told["certificateNumber"], sleeve["certificateNumber"]);
    manager.quits()?;
    home.is_paired_with(&["SLV-1"], &["MGR-1"])?;
    // The holder forgets it: that is its own list only.
    home.holder(&["forget", "MGR-1"])?.ok()?;
    home.is_paired_with(&["SLV-1"], &[])
}

/// A manager that is killed has its pairs when it comes again, and a sleeve that was refused by
/// the server cannot come back by another key.
pub(super) fn survives_a_restart() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, "")?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    manager.0.kill()?;
    home.is_paired_with(&["SLV-1"], &["MGR-1"])?;
    let mut manager = home.manager()?;
    let sleeve = home.sleeve(Way::Direct, &[])?;
    manager.session()?;
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}

/// Another device cannot have the same id: not from the server, and a copy of the directory has
/// one session at a time.
pub(super) fn same_id_twice() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, "")?;
    let words = ["device", "sleeve", "enroll", "--sleeve", "other", "--serial", "SLV-1"];
    home.bank.refused("admin", &words, "serial-taken")?;
    let mut manager: Manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let mut first = home.sleeve(Way::Direct, &[])?;
    let older = manager.session()?;
    let copy = home.copied()?;
    // One program a directory; a copy is another one, and the newest session is the only one.
    home.connect_refused(Way::Direct, LOGIN, "device-busy")?;
    let mut second = home.connects_as(copy, (Way::Direct, "a2", LOGIN), &[])?;
    let newer = manager.session()?;
    assert_ne!(older, newer);
    assert_eq!(first.event("ended")?["check"], "session-replaced");
    assert_eq!(first.0.ends()?.code, 1);
    second.event("logged-in")?;
    assert_eq!(second.cards()?, Vec::<String>::new(), "it has none");
    second.quits()?;
    manager.quits()?;
    Ok(())
}
