//! Connecting (A2, A3), directly and through the server (A9), and what ends a session.

use std::process::Command;
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;

use serde_json::Value;

use super::stage::{ALARM, Home, LOGIN, Way};
use super::wire::{Harm, Wire};
use crate::bank::Bank;
use crate::host::{Database, Host, Ports, wait_for};

/// Both modes by both ways; before pairing there is no way at all.
pub(super) fn in_both_modes_by_both_ways() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.connect_refused(Way::Direct, LOGIN, "manager-unknown")?;
    home.paired(&mut manager, "sleeve")?;
    for (way, name) in [(Way::Direct, "direct"), (Way::Relay, "relay")] {
        for mode in ["a2", "a3"] {
            let mut sleeve = home.connects(way, mode, LOGIN, &[])?;
            let told = manager.event("connected")?;
            assert_eq!((&told["way"], &told["mode"]), (&name.into(), &mode.into()), "{told}");
            assert_eq!(told["sleeve"], "SLV-1");
            sleeve.event("logged-in")?;
            assert_eq!(sleeve.cards()?, ["bank"]);
            sleeve.types("probe")?;
            let probed = sleeve.event("probed")?;
            assert!(probed["roundTripMicros"].as_u64().is_some_and(|us| us > 0), "{probed}");
            sleeve.quits()?;
            manager.event("ended")?;
        }
    }
    manager.quits()?;
    // What is not there is not found, with the exit code of the environment.
    let sleeve = home.connects(Way::Direct, "a2", LOGIN, &["--retry-for", "0"])?;
    assert_eq!(sleeve.0.ends()?.code, 3);
    let sleeve = home.connects(Way::Relay, "a2", LOGIN, &["--retry-for", "0"])?;
    let ended = sleeve.0.ends()?;
    assert_eq!(ended.code, 3, "{}", ended.stdout);
    Ok(())
}

/// A revoked sleeve loses its session at once and does not come back; nor does one that the server
/// has revoked, once the manager has heard of it.
pub(super) fn a_revoked_sleeve_is_out() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let mut sleeve = home.sleeve(Way::Direct, &["--retry-for", "0"])?;
    manager.session()?;
    manager.types("revoke SLV-1")?;
    manager.event("revoked")?;
    assert_eq!(sleeve.event("ended")?["check"], "sleeve-revoked");
    assert_eq!(sleeve.0.ends()?.code, 1);
    for way in [Way::Direct, Way::Relay] {
        home.connect_refused(way, LOGIN, "certificate-revoked")?;
    }
    // No window that is open for another one lets it in again, until it is forgotten.
    manager.types("pair 60")?;
    manager.event("pairing-opened")?;
    let told = home.pairs("sleeve", Way::Direct)?.ends()?.json()?;
    assert_eq!(told["error"]["check"], "pairing-closed", "{told}");
    manager.quits()?;
    home.owner(&["forget", "SLV-1"])?.ok()?;
    let mut manager = home.manager()?;
    home.connect_refused(Way::Direct, LOGIN, "sleeve-unknown")?;
    home.paired(&mut manager, "sleeve")?;
    home.sleeve(Way::Direct, &[])?.quits()?;
    manager.quits()?;
    // The server's word counts where the server is asked: through its relay.
    home.bank.done(&["sleeve", "revoke", "SLV-1", "--reason", "lost"])?;
    let manager = home.manager()?;
    let told = home.connect_refused(Way::Relay, LOGIN, "certificate-revoked");
    manager.quits()?;
    told.map(|_| ())
}

/// The server is killed in the middle of a session through its relay, and comes again: the sleeve
/// and its manager find each other without anybody's help.
pub(super) fn a_killed_relay_costs_time_only() -> Result<(), Failed> {
    let mut home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let mut sleeve = home.sleeve(Way::Relay, &["--retry-for", "40"])?;
    manager.session()?;
    home.bank.server.take().ok_or("no server")?.kill()?;
    sleeve.event("lost")?;
    manager.event("relay-lost")?;
    // Directly it goes on.
    let copy = home.copied()?;
    let mut direct = home.connects_as(copy, (Way::Direct, "a2", LOGIN), &[])?;
    direct.event("logged-in")?;
    direct.quits()?;
    home.bank.server = Some(home.bank.host.serve(&home.bank.ports)?);
    manager.event("relay")?;
    sleeve.event("logged-in")?;
    assert_eq!(sleeve.cards()?, ["bank"]);
    sleeve.quits()?;
    manager.quits()?;
    Ok(())
}

/// A6: asleep, the sleeve sends a heartbeat every t1; while they are answered it stays, and when
/// the wire is dead both sides drop the connection.
pub(super) fn lost_heartbeats_end_it_on_both_sides() -> Result<(), Failed> {
    let mut home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let wire = Wire::to(&home.at)?;
    home.at.clone_from(&wire.at);
    let beats = ["--sleep-every", "0.3", "--sleep-within", "0.6", "--retry-for", "0"];
    let mut sleeve = home.sleeve(Way::Direct, &beats)?;
    manager.session()?;
    sleeve.types("sleep")?;
    sleeve.event("asleep")?;
    manager.event("asleep")?;
    // Longer than several heartbeats: it is still there.
    thread::sleep(Duration::from_millis(1500));
    sleeve.types("wake")?;
    sleeve.event("awake")?;
    manager.event("awake")?;
    assert_eq!(sleeve.cards()?, ["bank"]);
    sleeve.types("sleep")?;
    sleeve.event("asleep")?;
    manager.event("asleep")?;
    wire.does(Harm::Lose);
    let lost = sleeve.event("lost")?;
    assert_eq!(lost["check"], "heartbeat", "{lost}");
    let ended = manager.event("ended")?;
    assert_eq!(ended["check"], "heartbeat", "{ended}");
    manager.quits()?;
    Ok(())
}

/// A wire that alters, repeats or loses bytes ends the session by a check, and no command is sent
/// for it twice; one that is slow only takes longer. Directly and between the sleeve and the relay.
pub(super) fn a_bad_wire_is_found_out() -> Result<(), Failed> {
    let mut home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let relay = home.bank.ports.gateway();
    let at = home.at.clone();
    for way in [Way::Direct, Way::Relay] {
        for harm in [Harm::Delay, Harm::Alter, Harm::Repeat] {
            let wire = Wire::to(if matches!(way, Way::Direct) { &at } else { &relay })?;
            let more = ["--retry-for", "0"];
            let mut sleeve = home.connects_at(way, &wire.at, &more)?;
            sleeve.event("logged-in")?;
            let session = manager.session()?;
            wire.does(harm);
            if matches!(harm, Harm::Delay) {
                assert_eq!(sleeve.cards()?, ["bank"]);
                sleeve.types("probe")?;
                let micros = sleeve.event("probed")?["roundTripMicros"].as_u64();
                assert!(micros.is_some_and(|micros| micros > 100_000), "{micros:?}");
                sleeve.quits()?;
            } else {
                sleeve.types("list")?;
                let over = ["lost", "ended", "refused"];
                let told = sleeve.answer(&[&over[..], &["cards"]].concat())?;
                if told["event"] == "cards" {
                    // What was said twice may be answered once; then the second is found out.
                    assert!(matches!(harm, Harm::Repeat), "{way:?} {harm:?}: {told}");
                    sleeve.answer(&over)?;
                }
                assert_ne!(sleeve.0.ends()?.code, 0);
            }
            loop {
                let ended = manager.event("ended")?;
                if ended["session"] == session {
                    break;
                }
            }
        }
    }
    home.at = at;
    home.sleeve(Way::Direct, &[])?.quits()?;
    manager.quits()?;
    Ok(())
}

/// A9 with two servers on one database: a sleeve that asks one is sent to the other, where its
/// manager is, whichever of them that is.
pub(super) fn found_at_another_server(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    let copy =
        Command::new("cp").args(["-a", "data", "data-2"]).current_dir(host.path(".")).status();
    assert!(copy?.success());
    let home = Home::around(Bank::on(host, false)?, super::CARDS)?;
    let (one, two) = (home.bank.ports.gateway(), Ports::pick()?);
    let _second = home.bank.host.serve_on("data-2", "sam-2", &two)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    for (here, there) in [(&one, &two.gateway()), (&two.gateway(), &one)] {
        home.settings_by(here, "consent = \"never\"", super::CARDS)?;
        manager.quits()?;
        manager = home.manager()?;
        for asked in [there, here] {
            let mut sleeve = home.connects_at(Way::Relay, asked, &["--retry-for", "0"])?;
            sleeve.event("logged-in")?;
            manager.session()?;
            assert_eq!(sleeve.cards()?, ["bank"]);
            sleeve.quits()?;
            manager.event("ended")?;
        }
    }
    manager.quits()?;
    Ok(())
}

/// Whoever is between a manager and its server can cut the line and say in the clear that the
/// manager is revoked. It comes again, and the alarm that was raised meanwhile is at the server.
pub(super) fn forged_words_of_the_server_are_not_the_last() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let wire = Wire::to(&home.bank.ports.gateway())?;
    home.settings_by(&wire.at, "consent = \"never\"", super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    wire.forges(true);
    wire.does(Harm::Alter);
    let mut sleeve = home.connects(Way::Direct, "a2", ALARM, &[])?;
    sleeve.event("logged-in")?;
    sleeve.quits()?;
    manager.event("relay-lost")?;
    wait_for("more than one forged answer", || Ok((wire.forged() > 1).then_some(())))?;
    assert_eq!(home.alarms()?, Vec::<Value>::new());
    wire.forges(false);
    manager.event("relay")?;
    let alarms = wait_for("the alarm at the server", || {
        let alarms = home.alarms()?;
        Ok((!alarms.is_empty()).then_some(alarms))
    })?;
    assert_eq!((alarms.len(), &alarms[0]["sleeve"]), (1, &"SLV-1".into()), "{alarms:?}");
    manager.quits()?;
    Ok(())
}

/// What a sleeve said when it connected and logged in, said again by a stranger, opens nothing.
pub(super) fn a_replayed_connect_is_refused() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    for mode in ["a2", "a3"] {
        let wire = Wire::to(&home.at)?;
        let way = ["--direct", &wire.at];
        let mut sleeve = home.connects_by(&way, mode, &[])?;
        sleeve.event("logged-in")?;
        manager.session()?;
        sleeve.quits()?;
        manager.event("ended")?;
        let said = wire.said();
        assert!(said.len() > 100, "{}", said.len());
        let answered = Wire::says(&home.at, &said)?;
        // The manager answers its own part and then no more; nobody is connected.
        assert!(answered.len() < 4096, "{}", answered.len());
    }
    manager.types("look")?;
    let state = manager.event("state")?;
    assert_eq!(state["sessions"], serde_json::json!([]), "{state}");
    let said = manager.quits()?;
    let connected = said.iter().filter(|told| told["event"] == "connected").count();
    assert_eq!(connected, 2, "{said:?}");
    Ok(())
}

/// The owner is asked for each session where the settings want it so, and a no is one; a card is
/// taken back, and a session ended, by whoever is at the manager.
pub(super) fn the_owner_has_the_last_word() -> Result<(), Failed> {
    let home = Home::new(Host::new()?, super::CARDS)?;
    home.settings("consent = \"ask\"", super::CARDS)?;
    let mut manager = home.manager()?;
    home.paired(&mut manager, "sleeve")?;
    let sleeve = home.connects(Way::Direct, "a2", LOGIN, &["--retry-for", "0"])?;
    let asked = manager.event("consent-asked")?["session"].clone();
    manager.types(&format!("no {asked}"))?;
    manager.event("declined")?;
    let ended = sleeve.0.ends()?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (1, &"consent-refused".into()));
    manager.event("ended")?;

    let mut sleeve = home.connects(Way::Relay, "a2", LOGIN, &["--retry-for", "0"])?;
    let asked = manager.event("consent-asked")?["session"].clone();
    manager.types(&format!("yes {asked}"))?;
    assert_eq!(manager.session()?, asked.as_u64().unwrap_or_default());
    sleeve.event("logged-in")?;
    sleeve.takes("bank")?;
    manager.event("taken")?;
    manager.types("recall bank")?;
    assert_eq!(sleeve.event("released")?["check"], "card-recalled");
    manager.event("released")?;
    manager.types(&format!("end {asked}"))?;
    assert_eq!(sleeve.event("ended")?["check"], "ended-by-owner");
    assert_eq!(sleeve.0.ends()?.code, 1);
    manager.event("ended")?;
    // What cannot be done is said.
    for (words, check) in [
        ("end 999", "session-unknown"),
        ("yes 999", "session-unknown"),
        ("recall bank", "card-not-lent"),
        ("revoke SLV-9", "sleeve-unknown"),
        ("pair 100000", "window-seconds"),
        ("open the door", "key"),
    ] {
        manager.types(words)?;
        assert_eq!(manager.event("refused")?["check"], check, "{words}");
    }
    manager.quits()?;
    Ok(())
}
