//! Other ways to run it: several servers on one database, a systemd credential, plain HTTP.

use std::fs;
use std::process::Command;

use countersign_device::Api;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Host, Ports, reader_words, wait_for};

/// Many servers, one truth: what one decides, the other follows, and one audit has it all.
pub(crate) fn two_servers_behave_as_one(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    // The second server has the same CA and keys: a copy of the directory.
    let mut copy = Command::new("cp");
    let copied = copy.args(["-a", "data", "data-2"]).current_dir(host.path(".")).status()?;
    assert!(copied.success());
    let (one, two) = (Ports::pick()?, Ports::pick()?);
    let _sam_one = host.sam_at("sam")?;
    let _sam_two = host.sam_at("sam-2")?;
    let first = host.serve_on("data", "sam", &one)?;
    let second = host.serve_on("data-2", "sam-2", &two)?;

    host.enroll(&one, "RD-1")?;
    let read = |ports: &Ports| {
        let gateway = ports.gateway();
        let card = "emulated:citizen";
        host.run(&reader_words(&gateway, card, "1"))
    };
    read(&two)?.ok()?;
    read(&one)?.ok()?;
    let reads: Value = host.api(&two)?.get("/v1/reads")?;
    let reads = reads["items"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 2, "each server sees the other's read");

    let id = reads[0]["readerId"].as_str().ok_or("no id")?;
    let body = serde_json::json!({ "reason": "reported stolen" });
    let _blocked: Value = host.api(&one)?.post(&format!("/v1/readers/{id}/block"), &body)?;
    let refused = read(&two)?;
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()?["error"]["check"], "reader-blocked");

    // Whichever of them chains the audit: if it dies, the other goes on.
    first.kill()?;
    let verify = || host.run(&["--json", "audit", "verify", "--data", "data-2"])?.json();
    wait_for("the second server's chaining", || {
        let report = verify()?;
        assert_eq!(report["ok"], true, "{report}");
        Ok((report["unchained"] == 0).then_some(()))
    })?;
    let api: Value =
        host.api(&two)?.post(&format!("/v1/readers/{id}/unblock"), &serde_json::json!({}))?;
    assert_eq!(api["status"], "enrolled");
    read(&two)?.ok()?;
    second.kill()?;

    // A server that cannot open what the database holds does not take part.
    fs::remove_dir_all(host.path("data-2/keys/vault"))?;
    let refused = host.run(&["--json", "serve", "--data", "data-2"])?;
    assert_eq!(refused.code, 1);
    assert_eq!(refused.json()?["error"]["check"], "storage-key-differs");
    Ok(())
}

/// Of directories from before there was an encryption key each copy would make one of its own at
/// its first start, and open nothing of what cards seal to the other's. The first one's is that of
/// all; the others say how they get it.
pub(crate) fn servers_share_one_encryption_key(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    let pair = ["ca/server-encryption.pem", "keys/server-encryption.sealed"];
    let path = |data: &str, name: &str| host.path(&format!("{data}/{name}"));
    let remove = |data: &str| pair.iter().try_for_each(|name| fs::remove_file(path(data, name)));
    let give = |from: &str, to: &str| {
        pair.iter().try_for_each(|name| fs::copy(path(from, name), path(to, name)).map(drop))
    };
    let copied = |to: &str| {
        let mut copy = Command::new("cp");
        let copied = copy.args(["-a", "data", to]).current_dir(host.path(".")).status();
        assert!(copied.is_ok_and(|status| status.success()));
    };
    remove("data")?;
    copied("data-2");
    let ports = Ports::pick()?;
    let _sam = host.sam_at("sam")?;
    host.serve_on("data", "sam", &ports)?.kill()?;
    copied("first");
    let refused = |data: &str| {
        let words = ["--json", "serve", "--data", data, "--https-port", "0", "--gateway-port", "0"];
        let refused = host.run(&words)?;
        assert_eq!(refused.code, 1);
        let error = refused.json()?["error"].clone();
        assert_eq!(error["check"], "encryption-key-differs", "{error}");
        for name in pair {
            assert!(error["detail"].as_str().is_some_and(|told| told.contains(name)), "{error}");
        }
        Ok::<_, Failed>(())
    };
    // SQLite is in its directory: there it is the same directory that lost the pair.
    let second = match database {
        Database::Sqlite => "data",
        Database::Postgres(_) => "data-2",
    };
    if second == "data" {
        // The copy has a database of its own, and so makes a pair of its own: not for this one.
        host.serve_on("data-2", "sam", &ports)?.kill()?;
        give("data-2", "data")?;
        refused("data")?;
        remove("data")?;
    }
    // One that lacks the pair makes none.
    refused(second)?;
    for name in pair {
        assert!(!path(second, name).exists(), "{name}");
    }
    give("first", second)?;
    host.serve_on(second, "sam", &ports)?.kill()
}

/// The passphrase as systemd hands it over, and the API without TLS on loopback.
pub(crate) fn a_credential_opens_the_keys_and_plain_http_stays_at_home() -> Result<(), Failed> {
    let host = Host::new()?;
    fs::create_dir(host.path("credentials"))?;
    fs::write(host.path("credentials/countersign-passphrase"), "from systemd\n")?;
    let credentials = host.path("credentials").display().to_string();
    let env = [("CREDENTIALS_DIRECTORY", credentials.as_str())];
    let words = ["--json", "init", "--data", "data", "--admin-token-file", "admin.token"];
    let made = host.run_with(&words, &env)?.ok()?.json()?;
    assert_eq!(made["passphraseFile"], Value::Null);
    assert!(!host.path("data/passphrase").exists());
    let verify = ["audit", "verify", "--data", "data"];
    assert_eq!(host.run(&verify)?.code, 2, "no passphrase, no keys");
    host.run_with(&verify, &env)?.ok()?;

    let mut command = crate::host::command();
    command.args(["--json", "serve", "--data", "data", "--plain-http"]);
    command.args(["--https-port", "0", "--gateway-port", "0"]);
    command.envs(env).current_dir(host.path(".")).stderr(std::process::Stdio::null());
    let mut server = crate::host::Process::start(command)?;
    let url = server.first_json()?["api"].as_str().ok_or("no address")?.to_owned();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    let ca = host.run(&["ca", "export", "--data", "data", "tls-root"])?.ok()?.stdout;
    let token = fs::read_to_string(host.path("admin.token"))?;
    let readers: Value = Api::new(&url, &ca, &token)?.get("/v1/readers")?;
    assert_eq!(readers["items"], serde_json::json!([]));
    server.kill()
}
