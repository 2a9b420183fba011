//! A server that injects keys, with all who are needed for it.

use std::fs;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, Ended, Host, Ports, Process};

/// A server with a hierarchy, its two custodians, and a place for terminals.
pub(crate) struct Shop {
    pub(crate) host: Host,
    pub(crate) ports: Ports,
    pub(crate) server: Option<Process>,
}

impl Shop {
    pub(crate) fn new(database: &Database) -> Result<Self, Failed> {
        let host = Host::new()?;
        host.init(database)?;
        Self::on(host, &[])
    }

    /// On a machine that was set up; `more` words for `rki init`.
    pub(crate) fn on(host: Host, more: &[&str]) -> Result<Self, Failed> {
        let ports = Ports::pick()?;
        for name in ["ann", "bob"] {
            let words =
                ["--json", "operator", "add", name, "--role", "custodian", "--data", "data"];
            let added = host.run(&words)?.ok()?.json()?;
            let token = added["token"]["secret"].as_str().ok_or("no token")?;
            fs::write(host.path(&format!("{name}.token")), token)?;
        }
        let init = ["--json", "rki", "init", "--data", "data"];
        host.run(&[&init[..], more].concat())?.ok()?;
        let server = Some(host.serve(&ports)?);
        Ok(Self { host, ports, server })
    }

    pub(crate) fn run(&self, who: &str, words: &[&str]) -> Result<Ended, Failed> {
        let (token, api) = (format!("{who}.token"), self.ports.api());
        let client = ["--json", "--server", &api, "--ca", "ca.pem", "--token-file", &token];
        self.host.run(&[words, &client].concat())
    }

    pub(crate) fn done(&self, words: &[&str]) -> Result<Value, Failed> {
        self.run("ann", words)?.ok()?.json()
    }

    /// Ann asks, Bob agrees, Ann does it.
    pub(crate) fn gated(&self, words: &[&str]) -> Result<Value, Failed> {
        let asked = self.done(words)?;
        let id = asked["approval"]["id"].as_str();
        let id = id.ok_or_else(|| format!("{words:?} was done without approval: {asked}"))?;
        self.run("bob", &["approval", "approve", id])?.ok()?;
        self.done(&[words, &["--approval", id]].concat())
    }

    pub(crate) fn code(&self, serial: &str) -> Result<String, Failed> {
        let allowed = self.done(&["terminal", "allow", "--serial", serial])?;
        Ok(allowed["enrolmentCode"].as_str().ok_or("no code")?.to_owned())
    }

    pub(crate) fn try_enroll(&self, dir: &str, serial: &str, code: &str) -> Result<Ended, Failed> {
        self.try_enroll_with(dir, serial, code, &[], &[])
    }

    /// The same with more words and environment variables.
    pub(crate) fn try_enroll_with(
        &self,
        dir: &str,
        serial: &str,
        code: &str,
        more: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Ended, Failed> {
        let api = self.ports.api();
        let words = ["--json", "device", "pos", "enroll", "--device", dir, "--serial", serial];
        let server = ["--code", code, "--server", &api, "--ca", "ca.pem"];
        self.host.run_with(&[&words[..], &server, more].concat(), env)
    }

    pub(crate) fn enroll(&self, serial: &str) -> Result<(), Failed> {
        let code = self.code(serial)?;
        self.try_enroll(serial, serial, &code)?.ok()?;
        Ok(())
    }

    pub(crate) fn update_words<'a>(&self, serial: &'a str, gateway: &'a str) -> [&'a str; 8] {
        ["--json", "device", "pos", "update", "--device", serial, "--gateway", gateway]
    }

    pub(crate) fn update(&self, serial: &str) -> Result<Ended, Failed> {
        let gateway = self.ports.gateway();
        self.host.run(&self.update_words(serial, &gateway))
    }

    pub(crate) fn updated(&self, serial: &str) -> Result<Value, Failed> {
        self.update(serial)?.ok()?.json()
    }

    /// The update is refused by this check; what was done is told all the same.
    pub(crate) fn refused(&self, serial: &str, code: i32, check: &str) -> Result<Value, Failed> {
        let ended = self.update(serial)?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (code, &json!(check)), "{told}");
        Ok(told)
    }

    /// The keys in the terminal: (slot, state, check value).
    pub(crate) fn held(&self, serial: &str) -> Result<Vec<(u64, String, String)>, Failed> {
        let words = ["--json", "device", "pos", "keys", "--device", serial];
        let keys = self.host.run(&words)?.ok()?.json()?;
        let text = |key: &Value, name: &str| key[name].as_str().unwrap_or_default().to_owned();
        let held = |key: &Value| {
            (key["slot"].as_u64().unwrap_or(99), text(key, "state"), text(key, "kcv"))
        };
        Ok(keys["items"].as_array().ok_or("no items")?.iter().map(held).collect())
    }

    pub(crate) fn assign(&self, key: &str, slot: &str, serial: &str) -> Result<String, Failed> {
        let words = ["inject", "assign", "--key", key, "--slot", slot, "--terminal", serial];
        let assigned = self.gated(&words)?;
        Ok(assigned["items"][0]["id"].as_str().ok_or("no injection")?.to_owned())
    }

    /// (state, check value, failed check) of an injection, as the server has it.
    pub(crate) fn injection(&self, id: &str) -> Result<(String, String, Value), Failed> {
        let page = self.done(&["inject", "list"])?;
        let items = page["items"].as_array().ok_or("no items")?;
        let found = items.iter().find(|item| item["id"] == id).ok_or("it is not listed")?;
        let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("kcv"), found["failedCheck"].clone()))
    }

    pub(crate) fn tmk(&self) -> Result<(), Failed> {
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

    pub(crate) fn audit_holds(&mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        let words = ["--json", "audit", "verify", "--data", "data"];
        let verified = self.host.run(&words)?.ok()?.json()?;
        assert_eq!(verified["ok"], true, "{verified}");
        Ok(())
    }
}
