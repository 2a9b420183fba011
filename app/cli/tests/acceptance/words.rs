//! What the command says: one JSON value, help, and refusals with their exit codes.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Ended, Host, Ports, exists};

const REFUSED: i32 = 1;
const USAGE: i32 = 2;
const ENVIRONMENT: i32 = 3;

/// A refusal: exit code, named check, a sentence; as one JSON value and as text.
fn expect(host: &Host, words: &[&str], code: i32, check: &str) -> Result<Ended, Failed> {
    let ended = host.run(&[&["--json"], words].concat())?;
    let said = format!("{words:?}: {} {} {}", ended.code, ended.stdout, ended.stderr);
    assert_eq!(ended.code, code, "{said}");
    let error = &ended.json()?["error"];
    assert_eq!(error["check"], check, "{said}");
    assert!(error["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{said}");
    let text = host.run(words)?;
    assert_eq!((text.code, text.stdout.as_str()), (code, ""), "{said}");
    assert!(text.stderr.starts_with("error: "), "{}", text.stderr);
    Ok(ended)
}

/// The failure's sentence has these words.
fn says(ended: &Ended, words: &[&str]) -> Result<(), Failed> {
    let detail = ended.json()?["error"]["detail"].as_str().unwrap_or_default().to_owned();
    for word in words {
        assert!(detail.contains(word), "{word:?} is missing in {detail:?}");
    }
    Ok(())
}

pub(crate) fn demo_prints_one_json_object() -> Result<(), Failed> {
    let host = Host::new()?;
    let demo = host.run(&["demo", "--json"])?.ok()?.json()?;
    assert_eq!(demo["ok"], true);
    let steps = demo["flows"][0]["steps"].as_array().ok_or("no steps")?;
    assert_eq!(demo["flows"][0]["id"], "C");
    for id in ["C1", "C2", "C4", "C6", "C7", "C9", "C12", "C13", "C14"] {
        let step = steps.iter().find(|step| step["id"] == id).ok_or(format!("no step {id}"))?;
        assert_eq!(step["ok"], true);
        assert!(step["ms"].is_number() && step["what"].is_string());
    }
    let text = host.run(&["demo"])?.ok()?;
    assert!(text.stdout.ends_with("all checked\n"), "{}", text.stdout);
    Ok(())
}

pub(crate) fn every_command_has_help_and_an_example() -> Result<(), Failed> {
    let host = Host::new()?;
    let commands: &[&[&str]] = &[
        &["pay"],
        &["payment", "list"],
        &["payment", "show"],
        &["payment", "checkout"],
        &["payment", "cancel"],
        &["payment", "refund"],
        &["payment", "reverse"],
        &["payment", "timeline"],
        &["payment", "answers"],
        &["payment", "receipt"],
        &["payment", "evidence"],
        &["account", "open"],
        &["account", "list"],
        &["account", "show"],
        &["account", "entries"],
        &["account", "freeze"],
        &["account", "unfreeze"],
        &["account", "overdraft"],
        &["account", "close"],
        &["account", "post"],
        &["account", "ledger"],
        &["evidence", "verify"],
        &["phone", "allow"],
        &["phone", "code"],
        &["phone", "list"],
        &["phone", "show"],
        &["phone", "bind"],
        &["phone", "unbind"],
        &["phone", "revoke"],
        &["security-device", "list"],
        &["security-device", "show"],
        &["security-device", "bind"],
        &["security-device", "unbind"],
        &["security-device", "block"],
        &["security-device", "unblock"],
        &["security-device", "revoke"],
        &["webhook", "add"],
        &["webhook", "list"],
        &["webhook", "show"],
        &["webhook", "disable"],
        &["webhook", "enable"],
        &["webhook", "remove"],
        &["webhook", "deliveries"],
        &["webhook", "resend"],
        &["webhook", "receive"],
        &["device", "phone", "enroll"],
        &["device", "phone", "list"],
        &["device", "phone", "show"],
        &["device", "phone", "approve"],
        &["device", "phone", "reject"],
        &["device", "phone", "watch"],
        &["device", "card", "enroll"],
        &["device", "card", "serve"],
        &["device", "card", "show"],
        &["device", "card", "pin"],
        &["device", "card", "unblock"],
        &["device", "card", "puk"],
        &["device", "card", "refresh"],
        &["device", "manager", "enroll"],
        &["device", "manager", "serve"],
        &["device", "manager", "show"],
        &["device", "manager", "cards"],
        &["device", "manager", "sleeves"],
        &["device", "manager", "revoke"],
        &["device", "manager", "forget"],
        &["device", "manager", "settings"],
        &["device", "manager", "password"],
        &["device", "manager", "audit", "show"],
        &["device", "manager", "audit", "verify"],
        &["device", "sleeve", "enroll"],
        &["device", "sleeve", "show"],
        &["device", "sleeve", "pair"],
        &["device", "sleeve", "managers"],
        &["device", "sleeve", "forget"],
        &["device", "sleeve", "list"],
        &["device", "sleeve", "connect"],
        &["device", "terminal"],
        &["device", "key", "enroll"],
        &["device", "key", "show"],
        &["device", "key", "sign"],
        &["device", "key", "pin"],
        &["device", "key", "serve"],
        &["device", "key", "unblock"],
        &["device", "key", "puk"],
        &["device", "key", "offline"],
        &["device", "key", "refresh"],
        &["rki", "init"],
        &["rki", "status"],
        &["rki", "export"],
        &["rki", "roll"],
        &["rki", "revoke"],
        &["rki", "crl"],
        &["rki", "rebind", "begin"],
        &["rki", "rebind", "list"],
        &["rki", "rebind", "show"],
        &["rki", "rebind", "cancel"],
        &["terminal", "allow"],
        &["terminal", "code"],
        &["terminal", "list"],
        &["terminal", "show"],
        &["terminal", "block"],
        &["terminal", "unblock"],
        &["terminal", "revoke"],
        &["terminal", "unbind"],
        &["sleeve", "list"],
        &["sleeve", "show"],
        &["sleeve", "block"],
        &["sleeve", "unblock"],
        &["sleeve", "revoke"],
        &["sleeve", "alarms"],
        &["manager", "list"],
        &["manager", "show"],
        &["manager", "block"],
        &["manager", "unblock"],
        &["manager", "revoke"],
        &["sam", "list"],
        &["sam", "drain"],
        &["sam", "resume"],
        &["sam", "hosts"],
        &["sam", "block"],
        &["sam", "unblock"],
        &["sam", "revoke"],
        &["sam", "enroll"],
        &["sam", "serve"],
        &["reads", "export"],
        &["reads", "erase"],
        &["reader", "list"],
        &["reader", "show"],
        &["reader", "factory"],
        &["reader", "report"],
        &["reader", "transaction"],
        &["reader", "block"],
        &["reader", "unblock"],
        &["reader", "revoke"],
        &["reader", "decisions"],
        &["reader", "reverse"],
        &["reader", "rules"],
        &["demo"],
        &["audit", "show"],
        &["init"],
        &["serve"],
        &["ca", "export"],
        &["operator", "add"],
        &["operator", "list"],
        &["operator", "disable"],
        &["operator", "token", "add"],
        &["operator", "token", "revoke"],
        &["device", "enroll"],
        &["device", "reader"],
        &["emulator", "sam"],
        &["audit", "verify"],
        &["tr31", "wrap"],
        &["tr31", "unwrap"],
        &["tr31", "inspect"],
        &["tr34", "inspect"],
        &["tr34", "verify"],
        &["tr34", "unwrap"],
        &["tr34", "make", "ct-krd"],
        &["tr34", "make", "ct-kdh"],
        &["tr34", "make", "rt"],
        &["tr34", "make", "kt"],
        &["tr34", "make", "ubt"],
        &["tr34", "make", "rbt"],
        &["tr34", "make", "ubt-ca"],
        &["tr34", "make", "rbt-ca"],
    ];
    for words in commands {
        let help = host.run(&[*words, &["--help"]].concat())?.ok()?.stdout;
        assert!(help.contains("Example: countersign "), "{words:?}\n{help}");
    }
    assert!(host.run(&["--help"])?.ok()?.stdout.contains("demo"));
    assert!(host.run(&["--version"])?.ok()?.stdout.starts_with("countersign 0."));
    Ok(())
}

pub(crate) fn wrong_words_are_usage_errors() -> Result<(), Failed> {
    let host = Host::new()?;
    expect(&host, &["fly"], USAGE, "usage")?;
    expect(&host, &["serve", "--https-port", "70000"], USAGE, "usage")?;
    expect(&host, &["ca", "export", "everything"], USAGE, "usage")?;
    expect(&host, &["operator", "add", "x", "--role", "king"], USAGE, "usage")?;
    let init = ["init", "--data", "never", "--suite", "sm3"];
    says(&expect(&host, &init, USAGE, "usage")?, &["no such suite; there are p256 and sm2"])?;
    assert!(!exists(&host.path("never")), "nothing is made");
    let reader = ["device", "reader", "--card", "emulated:citizen"];
    let handshake = expect(&host, &[&reader[..], &["--handshake", "c3"]].concat(), USAGE, "usage")?;
    says(&handshake, &["no such handshake; there are c1 and c2"])?;
    let policy = expect(&host, &[&reader[..], &["--policy", "none"]].concat(), USAGE, "usage")?;
    says(&policy, &["no such protection policy", "encrypt+mac", "certificate-sealed"])?;
    host.init(&Database::Sqlite)?;
    let ports = Ports::pick()?;
    let sam = host.sam()?;
    let server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    server.kill()?;
    sam.kill()?;
    let reader = ["device", "reader", "--device", "RD-1", "--card"];
    expect(&host, &[&reader[..], &["real"]].concat(), USAGE, "card")?;
    expect(&host, &[&reader[..], &["emulated:no-such-file"]].concat(), USAGE, "card")?;
    // A reader of the suite p256 has no encryption certificate.
    let sealed = ["emulated:citizen", "--policy", "certificate-sealed"];
    let ended = expect(&host, &[&reader[..], &sealed[..]].concat(), USAGE, "policy")?;
    says(&ended, &["certificate-sealed", "sm2", "p256"])
}

pub(crate) fn wrong_directories_are_refused() -> Result<(), Failed> {
    let host = Host::new()?;
    expect(&host, &["serve", "--data", "absent"], REFUSED, "data-absent")?;
    std::fs::create_dir(host.path("foreign"))?;
    std::fs::write(host.path("foreign/file"), "mine")?;
    expect(&host, &["serve", "--data", "foreign"], REFUSED, "data-not-ours")?;
    expect(&host, &["init", "--data", "foreign"], REFUSED, "data-not-empty")?;
    expect(&host, &["audit", "verify", "--data", "foreign"], REFUSED, "data-not-ours")?;
    let device = ["device", "reader", "--device", "foreign", "--card", "emulated:citizen"];
    expect(&host, &device, REFUSED, "device-not-ours")?;
    assert_eq!(std::fs::read_dir(host.path("foreign"))?.count(), 1, "left untouched");

    host.init(&Database::Sqlite)?;
    expect(&host, &["init", "--data", "data"], REFUSED, "data-not-empty")?;
    std::fs::write(host.path("wrong"), "not the passphrase\n")?;
    let serve = ["serve", "--data", "data", "--passphrase-file", "wrong"];
    expect(&host, &serve, REFUSED, "passphrase")?;
    std::fs::write(host.path("data/config.toml"), "[readers]\nplaintext_cash = true\n")?;
    let ended = expect(&host, &["serve", "--data", "data"], REFUSED, "config")?;
    assert!(ended.stdout.contains("plaintext_cash"), "{}", ended.stdout);
    std::fs::write(host.path("data/config.toml"), "database = \"postgres://a:s3cret@h/b\n")?;
    let ended = expect(&host, &["serve", "--data", "data"], REFUSED, "config")?;
    assert!(
        !ended.stdout.contains("s3cret") && ended.stdout.contains("line 1"),
        "{}",
        ended.stdout
    );
    for (setting, said) in [
        ("handshakes = [\"c3\"]", &["line 2", "no such handshake; there are c1 and c2"][..]),
        ("policies = [\"aead\"]", &["line 2", "encrypt+mac, mac, encrypt and certificate-sealed"]),
        ("policies = []", &["line 2", "at least one"]),
        ("policies = [\"certificate-sealed\"]", &["policies", "the suite sm2", "is p256"]),
    ] {
        std::fs::write(host.path("data/config.toml"), format!("[gateway]\n{setting}\n"))?;
        says(&expect(&host, &["serve", "--data", "data"], REFUSED, "config")?, said)?;
    }
    std::fs::write(host.path("data/config.toml"), "")?;
    let mode = |mode| std::fs::set_permissions(host.data(), Permissions::from_mode(mode));
    mode(0o750)?;
    for words in [&["serve"][..], &["operator", "list"], &["ca", "export", "root"]] {
        expect(&host, &[words, &["--data", "data"]].concat(), REFUSED, "data-permissions")?;
    }
    mode(0o700)?;
    std::fs::write(host.path("data/COUNTERSIGN"), "countersign data directory, format 99\n")?;
    expect(&host, &["serve", "--data", "data"], REFUSED, "data-format")?;
    Ok(())
}

pub(crate) fn wrong_surroundings_are_named() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let free = ["--gateway-port", "0"];
    let serve = [&["serve", "--data", "data", "--https-port", &port], &free[..]].concat();
    expect(&host, &serve, ENVIRONMENT, "port-in-use")?;
    let ports = ["--https-port", "0", "--gateway-port", "0"];
    let url = format!("postgres://nobody:s3cret@127.0.0.1:{port}/none");
    let free_port = Ports::pick()?.https;
    let absent = format!("postgres://nobody:s3cret@127.0.0.1:{free_port}/none");
    for url in [url, absent] {
        let serve = [&["serve", "--data", "data", "--database", &url], &ports[..]].concat();
        let ended = expect(&host, &serve, ENVIRONMENT, "database-unreachable")?;
        assert!(!ended.stdout.contains("s3cret"), "no password in an error");
    }
    let tls = "postgres://nobody@127.0.0.1/none?sslmode=require";
    let serve = [&["serve", "--data", "data", "--database", tls], &ports[..]].concat();
    expect(&host, &serve, ENVIRONMENT, "database-tls")?;
    let open = [&["serve", "--data", "data", "--listen", "0.0.0.0", "--plain-http"], &ports[..]];
    expect(&host, &open.concat(), REFUSED, "plain-http")?;
    expect(&host, &["audit", "show", "--data", "data", "inc_none"], REFUSED, "not-found")?;
    std::fs::write(host.path("file"), "mine")?;
    expect(&host, &["emulator", "sam", "--link", "file"], REFUSED, "link-taken")?;
    assert_eq!(std::fs::read_to_string(host.path("file"))?, "mine");
    // A database of a newer program, and one that is not ours.
    let store = rusqlite::Connection::open(host.data().join("store.sqlite"))?;
    store.execute_batch("UPDATE countersign_schema SET version = 1000")?;
    let serve = [&["serve", "--data", "data"], &ports[..]].concat();
    expect(&host, &serve, ENVIRONMENT, "database-too-new")?;
    store.execute_batch("PRAGMA application_id = 7")?;
    expect(&host, &serve, ENVIRONMENT, "database-not-ours")?;
    Ok(())
}

pub(crate) fn wrong_clients_are_refused() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let ports = Ports::pick()?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    let (api, gateway) = (ports.api(), ports.gateway());
    let enroll = |device: &'static str, serial: &'static str, ca, token| {
        vec![
            "device",
            "enroll",
            "--device",
            device,
            "--serial",
            serial,
            "--server",
            &*api,
            "--ca",
            ca,
            "--token-file",
            token,
        ]
    };
    std::fs::write(host.path("bad.token"), "cst_nonsense")?;
    expect(&host, &enroll("a", "RD-A", "ca.pem", "bad.token"), REFUSED, "token")?;
    let other = Host::new()?;
    other.init(&Database::Sqlite)?;
    std::fs::copy(other.path("ca.pem"), host.path("other.pem"))?;
    let foreign_ca = enroll("b", "RD-B", "other.pem", "admin.token");
    expect(&host, &foreign_ca, ENVIRONMENT, "server-unreachable")?;
    std::fs::write(host.path("junk.pem"), "no certificate")?;
    expect(&host, &enroll("b", "RD-B", "junk.pem", "admin.token"), USAGE, "ca-file")?;
    for url in ["http://192.0.2.1", "http://127.0.0.1:80@192.0.2.1", "https://me@127.0.0.1"] {
        let mut words = enroll("b", "RD-B", "ca.pem", "admin.token");
        let at = words.iter().position(|word| *word == api).ok_or("no URL")?;
        words[at] = url;
        expect(&host, &words, USAGE, "server-url")?;
    }
    expect(&host, &enroll("c", "RD C", "ca.pem", "admin.token"), REFUSED, "serial-format")?;
    assert!(!exists(&host.path("c")), "nothing is made for a refused serial number");

    // A proxy that the environment names gets nothing.
    let proxy = TcpListener::bind("127.0.0.1:0")?;
    proxy.set_nonblocking(true)?;
    let proxy_url = format!("http://{}", proxy.local_addr()?);
    let names = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy"];
    let env = names.map(|name| (name, &*proxy_url));
    host.run_with(&enroll("first", "RD-1", "ca.pem", "admin.token"), &env)?.ok()?;
    assert!(proxy.accept().is_err(), "the proxy was asked");
    // The same serial number with another key.
    expect(&host, &enroll("second", "RD-1", "ca.pem", "admin.token"), REFUSED, "serial-taken")?;
    // A device directory of another device.
    expect(&host, &enroll("first", "RD-2", "ca.pem", "admin.token"), REFUSED, "device-other")?;
    // An enrolment that never finished.
    let unfinished = ["device", "reader", "--device", "second", "--gateway", &*gateway];
    let unfinished = [&unfinished[..], &["--card", "emulated:citizen"]].concat();
    expect(&host, &unfinished, REFUSED, "device-not-enrolled")?;
    // An auditor's token must not enrol.
    let added = ["--json", "operator", "add", "--data", "data", "ann", "--role", "auditor"];
    let secret: Value = host.run(&added)?.ok()?.json()?["token"]["secret"].clone();
    std::fs::write(host.path("ann.token"), secret.as_str().ok_or("no token")?)?;
    expect(&host, &enroll("d", "RD-D", "ca.pem", "ann.token"), REFUSED, "scope")?;
    host.run(&["operator", "disable", "--data", "data", "ann"])?.ok()?;
    expect(&host, &enroll("d", "RD-D", "ca.pem", "ann.token"), REFUSED, "token")?;
    let readers: Value = host.api(&ports)?.get("/v1/readers")?;
    assert_eq!(readers["items"].as_array().map(Vec::len), Some(1), "nothing else was enrolled");
    Ok(())
}
