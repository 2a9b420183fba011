//! Logging in: the password, a wrong one, too many, and the one that raises an alarm (A4, A5).

use std::fs;
use std::net::TcpStream;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use super::stage::{ALARM, Home, LOGIN, WRONG, Way};
use crate::host::{Database, Host, Ports, wait_for};
use crate::webhooks;

/// Three wrong passwords lock the sleeve out, the right one too; restarting the manager does not
/// help, and resetting the password does.
pub(super) fn wrong_passwords_lock_it_out() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    for _ in 0..3 {
        home.connect_refused(Way::Direct, WRONG, "login-refused")?;
        manager.event("login-refused")?;
    }
    home.connect_refused(Way::Relay, LOGIN, "login-locked")?;
    manager.0.kill()?;
    let manager = home.manager()?;
    for password in [LOGIN, ALARM, WRONG] {
        home.connect_refused(Way::Direct, password, "login-locked")?;
    }
    manager.quits()?;
    assert!(home.alarms()?.is_empty(), "an alarm password that is not taken raises none");
    Ok(())
}

/// The owner changes a password for the old one, resets it without, and the two are never equal.
pub(super) fn passwords_are_changed_and_reset() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    fs::write(home.bank.host.path("new-password"), "new horse")?;
    let refused = |words: &[&str], check: &str| -> Result<(), Failed> {
        let ended = home.owner(words)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{told}");
        Ok(())
    };
    refused(&["password", "alarm", "--new-password-file", LOGIN], "password-equal")?;
    fs::write(home.bank.host.path("short"), "abc")?;
    refused(&["password", "login", "--new-password-file", "short"], "password-form")?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    manager.quits()?;
    home.owner(&["password", "login", "--new-password-file", "new-password"])?.ok()?;
    let manager = home.manager()?;
    home.connect_refused(Way::Direct, LOGIN, "login-refused")?;
    home.connects(Way::Direct, "a2", "new-password", &[])?.event("logged-in")?;
    manager.quits()?;
    // Changed for who knows it; a wrong one is counted.
    let change = |old: &str, new: &str| {
        let files = ["--old-password-file", old, "--new-password-file", new];
        home.owner(&[&["password", "login"][..], &files].concat())
    };
    change("new-password", LOGIN)?.ok()?;
    for _ in 0..3 {
        let told = change(WRONG, "new-password")?;
        assert_eq!((told.code, &told.json()?["error"]["check"]), (1, &json!("password-wrong")));
    }
    assert_eq!(change(LOGIN, "new-password")?.json()?["error"]["check"], "login-locked");
    // Without an alarm password its words are a wrong password.
    home.owner(&["password", "alarm", "--remove"])?.ok()?;
    assert_eq!(home.owner(&["password", "login", "--remove"])?.code, 2);
    let manager = home.manager()?;
    home.connect_refused(Way::Direct, ALARM, "login-refused")?;
    home.sleeve(Way::Direct, &[])?.quits()?;
    manager.quits()?;
    assert!(home.alarms()?.is_empty());
    Ok(())
}

/// What the screen, and whoever reads the manager's output, learns of a session.
fn told_without_times(said: &[Value]) -> Vec<Value> {
    let mut told = said.to_vec();
    for event in &mut told {
        event["session"] = Value::Null;
        event["card"] = Value::Null;
    }
    told.retain(|event| event["event"] != "relay" && event["event"] != "listening");
    told
}

/// A5: the alarm reaches the server's list and a webhook; nothing that is told at the manager or at
/// the sleeve differs but the cards: decoys only.
pub(super) fn an_alarm_is_raised_and_not_seen() -> Result<(), Failed> {
    let home = Home::around(webhooks::bank(&Database::Sqlite)?, super::CARDS)?;
    let listen = format!("127.0.0.1:{}", Ports::pick()?.https);
    let url = format!("http://{listen}/");
    let hook = home.bank.done(&["webhook", "add", &url, "--type", "sleeve.alarm"])?;
    fs::write(home.bank.host.path("secret"), hook["secret"].as_str().ok_or("no secret")?)?;
    let words = ["--json", "webhook", "receive", "--listen", &listen, "--secret-file", "secret"];
    let receiving =
        home.bank.host.spawn(&[&words[..], &["--count", "1", "--wait", "60"]].concat())?;
    wait_for("the receiver", || Ok(TcpStream::connect(&listen).ok()))?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    manager.quits()?;
    let mut told = Vec::new();
    for password in [LOGIN, ALARM] {
        let mut manager = home.manager()?;
        let mut sleeve = home.connects(Way::Direct, "a2", password, &[])?;
        sleeve.event("logged-in")?;
        let cards = sleeve.cards()?;
        let (has, has_not) = if password == LOGIN { ("bank", "spare") } else { ("spare", "bank") };
        assert_eq!(cards, [has]);
        sleeve.types(&format!("take {has_not}"))?;
        sleeve.is_refused("card-unknown")?;
        sleeve.quits()?;
        manager.event("ended")?;
        told.push(told_without_times(&manager.quits()?));
    }
    assert_eq!(told[0], told[1], "nobody at the manager sees it");
    let alarms = wait_for("the alarm at the server", || {
        let alarms = home.alarms()?;
        Ok((!alarms.is_empty()).then_some(alarms))
    })?;
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    let manager = home.bank.done(&["manager", "show", "MGR-1"])?;
    let (alarm, expected) = (&alarms[0], (&json!("SLV-1"), &manager["id"]));
    assert_eq!((&alarm["sleeve"], &alarm["managerId"]), expected, "{alarm}");
    let heard = receiving.finish()?.ok()?.json()?;
    let item = &heard["items"][0];
    assert_eq!(item["verified"], true, "{heard}");
    assert_eq!(item["event"]["type"], "countersign.sleeve.alarm", "{heard}");
    Ok(())
}
