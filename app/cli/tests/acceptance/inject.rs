//! Keys injected into POS terminals, as operators and a terminal's user see it (E1–E8).

use std::fs;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Alone;
use crate::host::{Database, Ended, Host, Ports, Process};

pub(crate) const TRIALS: [(&str, Alone); 2] = [
    ("a_terminal_is_refused_by_name", a_terminal_is_refused_by_name),
    ("a_run_is_reconciled_with_its_inventory", a_run_is_reconciled_with_its_inventory),
];

/// A server with a hierarchy, its two custodians, and a place for terminals.
struct Shop {
    host: Host,
    ports: Ports,
    server: Option<Process>,
}

impl Shop {
    fn new(database: &Database) -> Result<Self, Failed> {
        let (host, ports) = (Host::new()?, Ports::pick()?);
        host.init(database)?;
        for name in ["ann", "bob"] {
            let words =
                ["--json", "operator", "add", name, "--role", "custodian", "--data", "data"];
            let added = host.run(&words)?.ok()?.json()?;
            let token = added["token"]["secret"].as_str().ok_or("no token")?;
            fs::write(host.path(&format!("{name}.token")), token)?;
        }
        host.run(&["--json", "rki", "init", "--data", "data"])?.ok()?;
        let server = Some(host.serve(&ports)?);
        Ok(Self { host, ports, server })
    }

    fn run(&self, who: &str, words: &[&str]) -> Result<Ended, Failed> {
        let (token, api) = (format!("{who}.token"), self.ports.api());
        let client = ["--json", "--server", &api, "--ca", "ca.pem", "--token-file", &token];
        self.host.run(&[words, &client].concat())
    }

    fn done(&self, words: &[&str]) -> Result<Value, Failed> {
        self.run("ann", words)?.ok()?.json()
    }

    /// Ann asks, Bob agrees, Ann does it.
    fn gated(&self, words: &[&str]) -> Result<Value, Failed> {
        let asked = self.done(words)?;
        let id = asked["approval"]["id"].as_str();
        let id = id.ok_or_else(|| format!("{words:?} was done without approval: {asked}"))?;
        self.run("bob", &["approval", "approve", id])?.ok()?;
        self.done(&[words, &["--approval", id]].concat())
    }

    fn code(&self, serial: &str) -> Result<String, Failed> {
        let allowed = self.done(&["terminal", "allow", "--serial", serial])?;
        Ok(allowed["enrolmentCode"].as_str().ok_or("no code")?.to_owned())
    }

    fn try_enroll(&self, dir: &str, serial: &str, code: &str) -> Result<Ended, Failed> {
        let api = self.ports.api();
        let words = ["--json", "device", "pos", "enroll", "--device", dir, "--serial", serial];
        let more = ["--code", code, "--server", &api, "--ca", "ca.pem"];
        self.host.run(&[&words[..], &more].concat())
    }

    fn enroll(&self, serial: &str) -> Result<(), Failed> {
        let code = self.code(serial)?;
        self.try_enroll(serial, serial, &code)?.ok()?;
        Ok(())
    }

    fn update_words<'a>(&self, serial: &'a str, gateway: &'a str) -> [&'a str; 8] {
        ["--json", "device", "pos", "update", "--device", serial, "--gateway", gateway]
    }

    fn update(&self, serial: &str) -> Result<Ended, Failed> {
        let gateway = self.ports.gateway();
        self.host.run(&self.update_words(serial, &gateway))
    }

    fn updated(&self, serial: &str) -> Result<Value, Failed> {
        self.update(serial)?.ok()?.json()
    }

    /// The update is refused by this check; what was done is told all the same.
    fn refused(&self, serial: &str, code: i32, check: &str) -> Result<Value, Failed> {
        let ended = self.update(serial)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (code, &json!(check)), "{told}");
        Ok(told)
    }

    /// The keys in the terminal: (slot, state, check value).
    fn held(&self, serial: &str) -> Result<Vec<(u64, String, String)>, Failed> {
        let words = ["--json", "device", "pos", "keys", "--device", serial];
        let keys = self.host.run(&words)?.ok()?.json()?;
        let text = |key: &Value, name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let held = |key: &Value| {
            (key["slot"].as_u64().unwrap_or(99), text(key, "state"), text(key, "kcv"))
        };
        Ok(keys["items"].as_array().ok_or("no items")?.iter().map(held).collect())
    }

    fn assign(&self, key: &str, slot: &str, serial: &str) -> Result<String, Failed> {
        let words = ["inject", "assign", "--key", key, "--slot", slot, "--terminal", serial];
        let assigned = self.gated(&words)?;
        Ok(assigned["items"][0]["id"].as_str().ok_or("no injection")?.to_owned())
    }

    /// (state, check value, failed check) of an injection, as the server has it.
    fn injection(&self, id: &str) -> Result<(String, String, Value), Failed> {
        let page = self.done(&["inject", "list"])?;
        let items = page["items"].as_array().ok_or("no items")?;
        let found = items.iter().find(|item| item["id"] == id).ok_or("it is not listed")?;
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("kcv"), found["failedCheck"].clone()))
    }

    fn tmk(&self) -> Result<(), Failed> {
        self.gated(&[
            "key",
            "generate",
            "tmk",
            "--scope",
            "per-terminal",
            "--usage",
            "K0",
            "--algorithm",
            "A",
            "--mode",
            "D",
            "--length",
            "16",
        ])?;
        Ok(())
    }

    fn audit_holds(&mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        let words = ["--json", "audit", "verify", "--data", "data"];
        let verified = self.host.run(&words)?.ok()?.json()?;
        assert_eq!(verified["ok"], true, "{verified}");
        Ok(())
    }
}

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
