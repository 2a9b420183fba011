//! What a manager's owner looks after: the audit and the settings.

use std::fs;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::stage::{Home, LOGIN, Way};
use crate::host::Host;

/// The audit says who came and what was done, in signed rows: altered, cut off or without its head
/// it does not verify, and the manager does not go on with it.
pub(super) fn an_altered_audit_shows() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let mut sleeve = home.sleeve(Way::Direct, &[])?;
    sleeve.takes("bank")?;
    // While the manager serves.
    let shown = home.owner(&["audit", "show", "--last", "100"])?.ok()?.json()?;
    let events = |told: &Value| -> Vec<String> {
        let items = told["items"].as_array().into_iter().flatten();
        items.filter_map(|row| Some(row["entry"]["event"].as_str()?.to_owned())).collect()
    };
    let told = events(&shown);
    for event in ["password", "pair", "connect", "login", "take"] {
        assert!(told.iter().any(|one| one == event), "{event}: {told:?}");
    }
    assert_eq!(home.owner(&["audit", "verify"])?.code, 3, "another program has it");
    sleeve.quits()?;
    manager.quits()?;
    let verified = home.owner(&["audit", "verify"])?.ok()?.json()?;
    assert_eq!((&verified["ok"], &verified["uncovered"]), (&json!(true), &json!(0)));
    let one = home.owner(&["audit", "show", "--last", "1"])?.ok()?.json()?;
    assert_eq!(one["items"].as_array().map(Vec::len), Some(1), "{one}");

    let path = home.bank.host.path("manager/audit.jsonl");
    let whole = fs::read_to_string(&path)?;
    let rows: Vec<_> = whole.split_inclusive('\n').collect();
    let altered = whole.replacen("SLV-1", "SLV-2", 1);
    let cut = rows[..rows.len() - 1].concat();
    let without = [&rows[..2], &rows[3..]].concat().concat();
    for (text, check) in
        [(&altered, "audit-chain"), (&cut, "audit-cut"), (&without, "audit-number")]
    {
        fs::write(&path, text)?;
        let told = home.owner(&["audit", "verify"])?;
        assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!(check)));
        let told = home.owner(&["serve", "--emulated", "bank", "--emulated", "spare"])?;
        assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!(check)));
    }
    fs::write(&path, &whole)?;
    home.owner(&["audit", "verify"])?.ok()?;
    // The passwords are nowhere in it.
    assert!(!whole.contains("correct horse") && !whole.contains("battery staple"));
    Ok(())
}

/// Settings are looked at before they are taken; a card is where they say, or nobody serves.
pub(super) fn settings_are_checked() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, "")?;
    let before = home.owner(&["settings"])?.ok()?.json()?;
    assert_eq!(before["consent"], "never", "{before}");
    let refused = |text: &str, check: &str| -> Result<(), Failed> {
        fs::write(home.bank.host.path("other.toml"), text)?;
        let told = home.owner(&["settings", "--from", "other.toml"])?;
        assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!(check)), "{text}");
        assert_eq!(home.owner(&["settings"])?.ok()?.json()?, before, "nothing is changed");
        Ok(())
    };
    for text in [
        "consent = \"perhaps\"",
        "door = \"open\"",
        "policies = []",
        "idle-seconds = 0",
        "[[card]]\nid = \"a b\"\nlabel = \"A\"\naids = \"any\"",
        "[[card]]\nid = \"a\"\nlabel = \"A\"",
        "[[card]]\nid = \"a\"\nlabel = \"A\"\naids = [\"00\"]",
        "listen = ",
    ] {
        refused(text, "manager-settings")?;
    }
    let card = "[[card]]\nid = \"bank\"\nlabel = \"Bank card\"\naids = \"any\"\n";
    fs::write(home.bank.host.path("other.toml"), format!("listen = \"127.0.0.1:0\"\n{card}"))?;
    home.owner(&["settings", "--from", "other.toml"])?.ok()?;
    let cards = home.owner(&["cards"])?.ok()?.json()?;
    let expected = json!([{
        "id": "bank", "label": "Bank card", "reader": null, "present": false, "decoy": false,
        "leaseSeconds": 120,
    }]);
    assert_eq!(cards["cards"], expected);
    // No card of the emulator takes the place of one that is nowhere, unless that is asked for.
    let told = home.owner(&["serve"])?;
    assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!("card-source")));
    for emulated in ["other", "bank:1234"] {
        let told = home.owner(&["serve", "--emulated", emulated])?;
        assert_eq!((told.code, &told.json()?["error"]["check"]), (2, &json!("emulated")));
    }
    // Nor does a manager serve where nobody can come, or log in.
    fs::write(home.bank.host.path("manager/manager.toml"), "")?;
    let told = home.owner(&["serve"])?.json()?;
    assert_eq!(told["error"]["check"], "manager-settings", "{told}");
    home.sleeve_enrolled("other-sleeve", "SLV-2")?;
    let words = ["device", "manager", "enroll", "--manager", "fresh", "--serial", "MGR-2"];
    home.bank.done(&words)?;
    fs::write(home.bank.host.path("fresh/manager.toml"), "listen = \"127.0.0.1:0\"")?;
    let words = ["--json", "device", "manager", "serve", "--manager", "fresh"];
    let told = home.bank.host.run(&words)?;
    assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!("password-absent")));
    let show = home.bank.host.run(&["device", "manager", "show", "--manager", "fresh"])?.ok()?;
    assert!(show.stdout.contains("not set: nobody can log in"), "{}", show.stdout);
    let words = ["--json", "device", "manager", "password", "alarm", "--manager", "fresh"];
    let told = home.bank.host.run(&[&words[..], &["--new-password-file", LOGIN]].concat())?;
    assert_eq!(told.json()?["error"]["check"], "password-absent", "{}", told.stdout);
    Ok(())
}
