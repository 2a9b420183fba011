//! Sleeves and managers as operators see them: enrolled, listed, blocked, let in, revoked (A).

use std::fs;

use countersign_crypto::{UnixTime, aws_lc};
use countersign_device::DeviceDir;
use countersign_net::{Clock, SystemClock};
use countersign_pki::Role;
use libtest_mimic::Failed;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::host::{Database, Host, Ports, Process};

type Trials = [(&'static str, fn() -> Result<(), Failed>); 2];

pub(crate) const TRIALS: Trials = [
    ("a_sleeve_and_a_manager_know_who_certified_the_other", know_who_certified_the_other),
    ("a_sleeves_directory_is_no_managers", a_sleeves_directory_is_no_managers),
];

const KINDS: [(&str, &str); 2] = [("sleeve", "slv_"), ("manager", "mgr_")];

/// A server and its operators.
struct Site {
    host: Host,
    ports: Ports,
    server: Option<Process>,
}

impl Site {
    fn new(database: &Database) -> Result<Self, Failed> {
        let host = Host::new()?;
        let ports = Ports::pick()?;
        host.init(database)?;
        for (name, role) in [("audrey", "auditor"), ("till", "integrator")] {
            let words = ["--json", "operator", "add", name, "--role", role, "--data", "data"];
            let added = host.run(&words)?.ok()?.json()?;
            let token = added["token"]["secret"].as_str().ok_or("no token")?;
            fs::write(host.path(&format!("{name}.token")), token)?;
        }
        let server = Some(host.serve(&ports)?);
        Ok(Self { host, ports, server })
    }

    fn enroll(&self, kind: &str, dir: &str, serial: &str) -> Result<Value, Failed> {
        let at = format!("--{kind}");
        self.done(&["device", kind, "enroll", &at, dir, "--serial", serial])
    }

    fn client<'a>(&self, api: &'a str, token: &'a str) -> [&'a str; 6] {
        ["--server", api, "--ca", "ca.pem", "--token-file", token]
    }

    fn done(&self, words: &[&str]) -> Result<Value, Failed> {
        let api = self.ports.api();
        let client = self.client(&api, "admin.token");
        self.host.run(&[&["--json"], words, &client].concat())?.ok()?.json()
    }

    /// What people are shown.
    fn shown(&self, words: &[&str]) -> Result<String, Failed> {
        let api = self.ports.api();
        let client = self.client(&api, "admin.token");
        Ok(self.host.run(&[words, &client].concat())?.ok()?.stdout)
    }

    fn refused(&self, who: &str, words: &[&str], check: &str) -> Result<(), Failed> {
        let (api, token) = (self.ports.api(), format!("{who}.token"));
        let ended = self.host.run(&[&["--json"], words, &self.client(&api, &token)].concat())?;
        let told = ended.json()?;
        assert_eq!((ended.code, &told["error"]["check"]), (1, &json!(check)), "{words:?}: {told}");
        Ok(())
    }
}

/// What operators do with both kinds; by serial number and by id, after a killed server too.
pub(crate) fn are_enrolled_blocked_and_revoked(database: &Database) -> Result<(), Failed> {
    let mut site = Site::new(database)?;
    for (kind, prefix) in KINDS {
        let empty = site.done(&[kind, "list"])?;
        assert_eq!(empty, json!({ "items": [], "next": null }));
        site.enroll(kind, kind, "A-1")?;
        site.enroll(kind, kind, "A-1")?; // the same key: nothing changes
        let listed = site.done(&[kind, "list"])?;
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
        let device = &listed["items"][0];
        let id = device["id"].as_str().ok_or("no id")?;
        assert!(id.starts_with(prefix), "{id}");
        assert_eq!((&device["serial"], &device["blocked"]), (&json!("A-1"), &json!(false)));
        for named in ["A-1", id] {
            assert_eq!(site.done(&[kind, "show", named])?, *device, "{named}");
        }
    }
    // Another directory has another key.
    let other = ["device", "sleeve", "enroll", "--sleeve", "other", "--serial", "A-1"];
    site.refused("admin", &other, "serial-taken")?;

    for (kind, _) in KINDS {
        let blocked = site.done(&[kind, "block", "A-1", "--reason", "stolen"])?;
        let state = (&blocked["blocked"], &blocked["blockReason"]);
        assert_eq!(state, (&json!(true), &json!("stolen")));
        let text = site.shown(&[kind, "list"])?;
        assert!(text.contains("A-1  blocked  (stolen)"), "{text}");
        let at = format!("--{kind}");
        let again = ["device", kind, "enroll", &at, kind, "--serial", "A-1"];
        site.refused("admin", &again, "device-blocked")?;
        for who in ["audrey", "till"] {
            site.refused(who, &[kind, "unblock", "A-1"], "scope")?;
        }
    }
    // Acknowledged is durable, and an operator's word holds after a crash.
    site.server.take().ok_or("no server")?.kill()?;
    site.server = Some(site.host.serve(&site.ports)?);
    for (kind, _) in KINDS {
        assert_eq!(site.done(&[kind, "show", "A-1"])?["blocked"], true);
        assert_eq!(site.done(&[kind, "unblock", "A-1"])?["blocked"], false);

        site.refused("admin", &[kind, "block", "A-9", "--reason", "r"], "not-found")?;
        site.refused("admin", &[kind, "show", "rdr_1"], "not-found")?;
        site.refused("admin", &[kind, "block", "A-1", "--reason", ""], "reason-length")?;
        site.refused("till", &[kind, "list"], "scope")?;
        let usage = site.host.run(&[kind, "revoke", "A-1"])?;
        assert_eq!(usage.code, 2, "without a reason");

        let revoked = site.done(&[kind, "revoke", "A-1", "--reason", "key lost"])?;
        assert_eq!(revoked["certificate"], Value::Null, "{revoked}");
        site.refused("admin", &[kind, "revoke", "A-1", "--reason", "again"], "not-found")?;
        let text = site.shown(&[kind, "show", "A-1"])?;
        assert!(text.contains("A-1  enrolled  no certificate"), "{text}");
        // It comes again, and has another certificate.
        site.enroll(kind, kind, "A-1")?;
        assert!(site.done(&[kind, "show", "A-1"])?["certificate"]["number"].is_string());
    }
    assert_eq!(site.done(&["sleeve", "alarms"])?, json!({ "items": [], "next": null }));
    site.refused("till", &["sleeve", "alarms"], "scope")?;

    site.server.take().ok_or("no server")?.kill()?;
    let verified = site.host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    if let Database::Sqlite = database {
        let store = Connection::open(site.host.data().join("store.sqlite"))?;
        let mut rows = store.prepare("SELECT COUNT(*) FROM audit_rows WHERE action = ?1")?;
        for action in KINDS.iter().flat_map(|(kind, _)| {
            ["enrol", "block", "unblock", "revoke"].map(|verb| format!("{kind}.{verb}"))
        }) {
            assert!(rows.query_row([&action], |row| row.get::<_, u32>(0))? > 0, "{action}");
        }
    }
    Ok(())
}

/// What each proves itself with, and whom it believes to be the other kind.
fn know_who_certified_the_other() -> Result<(), Failed> {
    let site = Site::new(&Database::Sqlite)?;
    for (kind, serial) in [("sleeve", "SLV-1"), ("manager", "MGR-1")] {
        site.enroll(kind, kind, serial)?;
    }
    let (provider, now) = (aws_lc::provider(), SystemClock::default().now());
    let open = |dir: &str| DeviceDir::open(&site.host.path(dir));
    let sleeve = open("sleeve")?.wallet_credential(&provider, now)?;
    let manager = open("manager")?.wallet_credential(&provider, now)?;
    let seen = sleeve.trust.verify(&manager.certificate, Role::Manager, now, None)?;
    assert_eq!(seen.identity().id(), "MGR-1");
    let seen = manager.trust.verify(&sleeve.certificate, Role::Sleeve, now, None)?;
    assert_eq!(seen.identity().id(), "SLV-1");
    // Neither takes its own kind for the other, nor any device after its time.
    assert!(sleeve.trust.verify(&sleeve.certificate, Role::Manager, now, None).is_err());
    assert!(manager.trust.verify(&manager.certificate, Role::Sleeve, now, None).is_err());
    let late = UnixTime::from_secs(now.as_secs() + 3650 * 86_400);
    assert!(sleeve.trust.verify(&manager.certificate, Role::Manager, late, None).is_err());
    for dir in ["sleeve", "manager"] {
        let relay = open(dir)?.relay_config(&provider, now)?;
        assert_eq!(relay.peer_role, Role::Server);
    }
    Ok(())
}

/// A directory stays what it was made for.
fn a_sleeves_directory_is_no_managers() -> Result<(), Failed> {
    let site = Site::new(&Database::Sqlite)?;
    site.enroll("sleeve", "sleeve", "A-1")?;
    let words = ["device", "manager", "enroll", "--manager", "sleeve", "--serial", "A-1"];
    site.refused("admin", &words, "device-kind")?;
    assert_eq!(site.done(&["manager", "list"])?["items"], json!([]));
    site.host.enroll(&site.ports, "RD-1")?;
    let (provider, now) = (aws_lc::provider(), SystemClock::default().now());
    let reader = DeviceDir::open(&site.host.path("RD-1"))?;
    assert_eq!(
        reader.wallet_credential(&provider, now).err().map(|e| e.check()),
        Some("device-kind")
    );
    assert_eq!(reader.relay_config(&provider, now).err().map(|e| e.check()), Some("device-kind"));
    let sleeve = DeviceDir::open(&site.host.path("sleeve"))?;
    assert_eq!(sleeve.reader_config(&provider, now).err().map(|e| e.check()), Some("device-kind"));
    Ok(())
}
