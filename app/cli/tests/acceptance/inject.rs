//! Keys injected into POS terminals, as operators and a terminal's user see it (E1–E8).

use std::fs;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Alone;
use crate::host::{Database, Ports};
use crate::shop::Shop;

pub(crate) const TRIALS: [(&str, Alone); 2] = [
    ("a_terminal_is_refused_by_name", a_terminal_is_refused_by_name),
    ("a_run_is_reconciled_with_its_inventory", a_run_is_reconciled_with_its_inventory),
];

/// E1–E8 at the press of one button, on each database, with keys of every kind.
pub(crate) fn keys_come_to_a_terminal(database: &Database) -> Result<(), Failed> {
    let mut shop = Shop::new(database)?;
    shop.tmk()?;
    shop.gated(&[
        "key",
        "generate",
        "bdk",
        "--scope",
        "dukpt",
        "--usage",
        "B0",
        "--algorithm",
        "T",
        "--mode",
        "X",
        "--length",
        "16",
        "--ksn-base",
        "FFFF987654",
    ])?;
    shop.gated(&[
        "key",
        "generate",
        "abdk",
        "--scope",
        "dukpt",
        "--usage",
        "B0",
        "--algorithm",
        "A",
        "--mode",
        "X",
        "--length",
        "16",
        "--ksn-base",
        "12345678",
    ])?;
    shop.gated(&[
        "key",
        "generate",
        "zone",
        "--scope",
        "shared",
        "--usage",
        "P0",
        "--algorithm",
        "T",
        "--mode",
        "E",
        "--length",
        "24",
    ])?;
    shop.enroll("POS-1")?;
    let mut injections = Vec::new();
    for (slot, key) in ["tmk", "bdk", "abdk", "zone"].iter().enumerate() {
        injections.push(shop.assign(key, &slot.to_string(), "POS-1")?);
    }
    let told = shop.updated("POS-1")?;
    assert_eq!(told["bound"], true, "{told}");
    assert_eq!(told["keys"].as_array().map(Vec::len), Some(4), "{told}");
    let held = shop.held("POS-1")?;
    assert_eq!(held.len(), 4);
    for ((slot, state, kcv), injection) in held.iter().zip(&injections) {
        assert_eq!(state, "active");
        let expected = ("installed".to_owned(), kcv.clone(), Value::Null);
        assert_eq!(shop.injection(injection)?, expected, "slot {slot}");
    }
    let keys = shop.done(&["inject", "keys", "POS-1"])?;
    assert_eq!(keys["items"].as_array().map(Vec::len), Some(4));
    let status = ["--json", "device", "pos", "status", "--device", "POS-1"];
    let status = shop.host.run(&status)?.ok()?.json()?;
    assert!(status["kdhCertificate"].is_string() && status["crlSeen"].is_string(), "{status}");

    // E8: the new key takes the old one's place, which is kept as the previous one.
    let (old, new) = (held[0].2.clone(), shop.assign("tmk", "0", "POS-1")?);
    let told = shop.updated("POS-1")?;
    assert_eq!((&told["bound"], told["keys"].as_array().map(Vec::len)), (&json!(false), Some(1)));
    let held = shop.held("POS-1")?;
    assert_eq!(held[1], (0, "previous".to_owned(), old.clone()));
    assert_eq!(held[0].1, "active");
    assert_ne!(held[0].2, old, "another value");
    assert_eq!(shop.injection(&new)?.1, held[0].2);
    let told = shop.updated("POS-1")?;
    assert_eq!(told["keys"], json!([]), "nothing waits");
    // A person sees slot, usage, check value and state; nobody sees a value.
    let words = ["device", "pos", "keys", "--device", "POS-1"];
    let text = shop.host.run(&words)?.ok()?.stdout;
    let line = format!("Slot 0   K0ADN  KCV {}  active", held[0].2);
    assert!(text.contains(&line) && text.contains("Slot 1   B1TXN  KCV "), "{text}");
    shop.audit_holds()
}

/// `kill -9` of the terminal, then of the server, at many moments of an update: the key in use is
/// the old one or the confirmed new one, and the next update brings both sides together.
pub(crate) fn a_killed_update_leaves_a_usable_key(database: &Database) -> Result<(), Failed> {
    const KILLS: u64 = 14;
    let mut shop = Shop::new(database)?;
    shop.tmk()?;
    shop.enroll("POS-1")?;
    shop.assign("tmk", "0", "POS-1")?;
    shop.updated("POS-1")?;
    let active = |shop: &Shop| -> Result<String, Failed> {
        let held = shop.held("POS-1")?;
        let active = held.into_iter().find(|(slot, state, _)| *slot == 0 && state == "active");
        Ok(active.ok_or("no active key")?.2)
    };
    let mut interrupted = 0;
    for kill in 0..KILLS {
        let old = active(&shop)?;
        let id = shop.assign("tmk", "0", "POS-1")?;
        let gateway = shop.ports.gateway();
        let update = shop.host.spawn(&shop.update_words("POS-1", &gateway))?;
        std::thread::sleep(Duration::from_millis(12 + 5 * (kill / 2)));
        if kill % 2 == 0 {
            update.kill()?;
        } else {
            shop.server.take().ok_or("no server")?.kill()?;
            shop.server = Some(shop.host.serve(&shop.ports)?);
            let _either = update.finish()?;
        }
        let (state, kcv, _) = shop.injection(&id)?;
        let now = active(&shop)?;
        assert!(now == old || (state == "installed" && now == kcv), "{kill}: {state}");
        interrupted += u32::from(now == old);
        shop.updated("POS-1")?;
        let (state, kcv, check) = shop.injection(&id)?;
        assert_eq!((state.as_str(), &check), ("installed", &Value::Null), "{kill}");
        assert_eq!(active(&shop)?, kcv, "{kill}: both sides agree");
        assert!(shop.held("POS-1")?.iter().all(|(_, state, _)| state != "pending"), "{kill}");
    }
    assert!(interrupted > 0, "no update was interrupted");
    shop.audit_holds()
}

/// Many servers, one truth: a terminal goes from one to the other between any two words.
pub(crate) fn a_terminal_alternates_between_two_servers(database: &Database) -> Result<(), Failed> {
    let mut shop = Shop::new(database)?;
    let other = Ports::pick()?;
    let second = shop.host.serve(&other)?;
    shop.tmk()?;
    let code = shop.code("POS-1")?;
    shop.try_enroll("POS-1", "POS-1", &code)?.ok()?;
    let gateways = [shop.ports.gateway(), other.gateway()];
    let update = |shop: &Shop, at: usize| {
        shop.host.run(&shop.update_words("POS-1", &gateways[at % 2]))?.ok()?.json()
    };
    let agreed = |shop: &Shop, id: &str| -> Result<(), Failed> {
        let (state, kcv, _) = shop.injection(id)?;
        let held = shop.held("POS-1")?;
        assert_eq!(state, "installed");
        assert_eq!(held[0], (0, "active".to_owned(), kcv), "both sides agree");
        assert!(held.iter().all(|(_, state, _)| state != "pending"));
        Ok(())
    };
    for at in 0..4 {
        let id = shop.assign("tmk", "0", "POS-1")?;
        let told = update(&shop, at)?;
        assert_eq!(told["bound"], at == 0, "{told}");
        assert_eq!(told["keys"].as_array().map(Vec::len), Some(1), "{told}");
        agreed(&shop, &id)?;
    }
    // An update that breaks off at one server is gone on with at the other.
    for at in 0..8 {
        let id = shop.assign("tmk", "0", "POS-1")?;
        let started = shop.host.spawn(&shop.update_words("POS-1", &gateways[at % 2]))?;
        std::thread::sleep(Duration::from_millis(12 + 5 * at as u64));
        started.kill()?;
        update(&shop, at + 1)?;
        agreed(&shop, &id)?;
    }
    // What one decides, the other follows: a block, a KDH that is rolled, its campaign.
    shop.done(&["terminal", "block", "POS-1", "--reason", "stolen"])?;
    let refused = shop.host.run(&shop.update_words("POS-1", &gateways[1]))?;
    assert_eq!(refused.json()?["error"]["check"], "reader-blocked");
    shop.done(&["terminal", "unblock", "POS-1"])?;
    for at in 0..2 {
        shop.gated(&["rki", "roll", "kdh"])?;
        shop.gated(&["rki", "rebind", "begin"])?;
        let id = shop.assign("tmk", "0", "POS-1")?;
        assert_eq!(update(&shop, at + 1)?["bound"], true);
        agreed(&shop, &id)?;
        assert_eq!(update(&shop, at)?["bound"], false, "the first server knows it, too");
    }
    second.kill()?;
    shop.audit_holds()
}

fn a_terminal_is_refused_by_name() -> Result<(), Failed> {
    let mut shop = Shop::new(&Database::Sqlite)?;
    shop.tmk()?;
    let code = shop.code("POS-1")?;
    let enroll = |dir: &str, serial: &str, code: &str, check: &str| -> Result<(), Failed> {
        let ended = shop.try_enroll(dir, serial, code)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{told}");
        Ok(())
    };
    enroll("POS-1", "POS-1", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA", "enrolment-code")?;
    enroll("POS-7", "POS-7", &code, "terminal-not-allowed")?;
    shop.refused("POS-1", 1, "device-not-enrolled")?;
    shop.try_enroll("POS-1", "POS-1", &code)?.ok()?;
    shop.try_enroll("POS-1", "POS-1", &code)?.ok()?; // the same keys, after a break-off
    enroll("POS-X", "POS-1", &code, "enrolment-code")?; // the code is used up for other keys
    enroll("POS-1", "POS-2", &code, "device-other")?;

    shop.assign("tmk", "0", "POS-1")?;
    shop.updated("POS-1")?;
    let before = shop.held("POS-1")?;

    // Taken back in time; blocked; revoked.
    let id = shop.assign("tmk", "0", "POS-1")?;
    shop.done(&["inject", "cancel", &id])?;
    let again = shop.run("ann", &["inject", "cancel", &id])?;
    assert_eq!(again.json()?["error"]["check"], "injection-closed");
    assert_eq!(shop.updated("POS-1")?["keys"], json!([]));
    shop.assign("tmk", "0", "POS-1")?;
    shop.done(&["terminal", "block", "POS-1", "--reason", "stolen"])?;
    shop.refused("POS-1", 1, "reader-blocked")?;
    assert_eq!(shop.held("POS-1")?, before, "the key in use stays");
    shop.done(&["terminal", "unblock", "POS-1"])?;
    assert_eq!(shop.updated("POS-1")?["keys"].as_array().map(Vec::len), Some(1));

    // Wrong words, wrong parameters, wrong surroundings.
    for (words, check) in [
        (["inject", "assign", "--key", "none", "--slot", "0", "--terminal", "POS-1"], "not-found"),
        (["inject", "assign", "--key", "tmk", "--slot", "0", "--terminal", "POS-9"], "not-found"),
    ] {
        assert_eq!(shop.run("ann", &words)?.json()?["error"]["check"], check, "{words:?}");
    }
    let words = ["inject", "assign", "--key", "tmk", "--slot", "32", "--terminal", "POS-1"];
    assert_eq!(shop.run("ann", &words)?.code, 2);
    let silent = ["--json", "device", "pos", "update", "--device", "POS-1", "--gateway"];
    let ended = shop.host.run(&[&silent[..], &["127.0.0.1:1"]].concat())?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (3, &json!("server-unreachable")));
    let reader = ["--json", "device", "pos", "status", "--device", "data"];
    assert_eq!(shop.host.run(&reader)?.json()?["error"]["check"], "device-not-ours");

    // Whoever alters what stands for the chip gets nothing of it.
    let state = shop.host.path("POS-1/terminal-state");
    let text = fs::read_to_string(&state)?;
    assert!(!text.contains("\"key\""), "no value in the state");
    fs::write(&state, text.replace("\"slots\":{\"0\"", "\"slots\":{\"1\""))?;
    shop.refused("POS-1", 1, "terminal-state")?;
    fs::write(&state, &text)?;
    let key = shop.host.path("POS-1/element/sealing-key");
    let sealing = fs::read(&key)?;
    fs::write(&key, vec![7; sealing.len()])?;
    shop.refused("POS-1", 3, "key-damaged")?;
    fs::write(&key, sealing)?;
    shop.updated("POS-1")?;
    shop.audit_holds()
}

fn a_run_is_reconciled_with_its_inventory() -> Result<(), Failed> {
    let mut shop = Shop::new(&Database::Sqlite)?;
    shop.tmk()?;
    shop.enroll("POS-1")?;
    shop.enroll("POS-9")?;
    fs::write(shop.host.path("serials"), "POS-1\n\nPOS-2\nPOS-3\n")?;
    let begun = shop.done(&["run", "begin", "batch 7", "--file", "serials"])?;
    let run = begun["run"]["id"].as_str().ok_or("no run")?.to_owned();
    assert_eq!(begun["tally"]["missing"], 3, "{begun}");
    let taken = shop.run("ann", &["run", "begin", "batch 7", "--serial", "POS-1"])?;
    assert_eq!(taken.json()?["error"]["check"], "run-label-taken");
    let twice = ["run", "begin", "b", "--serial", "POS-1", "--serial", "POS-1"];
    assert_eq!(shop.run("ann", &twice)?.json()?["error"]["check"], "run-serial-repeated");
    shop.gated(&["inject", "assign", "--key", "tmk", "--slot", "0", "--run", &run])?;
    assert_eq!(shop.updated("POS-1")?["keys"].as_array().map(Vec::len), Some(1));
    // One of the inventory that enrols only now is given its key when it asks; one outside of it
    // is not, and shows.
    shop.enroll("POS-2")?;
    assert_eq!(shop.updated("POS-2")?["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(shop.updated("POS-9")?["keys"], json!([]));
    let report = shop.done(&["run", "show", &run])?;
    let tally = json!({ "installed": 2, "missing": 1, "failed": 0, "unexpected": 1 });
    assert_eq!(report["tally"], tally, "{report}");
    assert_eq!(report["unexpected"][0]["serial"], "POS-9");
    assert_eq!(
        report["terminals"][2],
        json!({
            "serial": "POS-3", "terminalId": null, "state": "missing", "installed": 0,
            "failedCheck": null,
        })
    );
    let text = shop.host.run(&[
        "run",
        "show",
        &run,
        "--server",
        &shop.ports.api(),
        "--ca",
        "ca.pem",
        "--token-file",
        "ann.token",
    ]);
    let text = text?.ok()?.stdout;
    assert!(text.contains("POS-9  UNEXPECTED: asked for keys"), "{text}");

    let closed = shop.done(&["run", "close", &run])?;
    assert_eq!((&closed["run"]["state"], &closed["tally"]), (&json!("closed"), &tally));
    let again = shop.run("ann", &["run", "close", &run])?;
    assert_eq!(again.json()?["error"]["check"], "run-closed");
    let late = ["inject", "assign", "--key", "tmk", "--slot", "1", "--run", &run];
    assert_eq!(shop.run("ann", &late)?.json()?["error"]["check"], "run-closed");
    shop.enroll("POS-3")?;
    assert_eq!(shop.updated("POS-3")?["keys"], json!([]), "too late for the run");
    assert_eq!(shop.done(&["run", "show", &run])?["tally"], tally, "it does not change");
    shop.audit_holds()
}
