//! SAM modules at the server and at SAM hosts of their own (C12): failover, drain, refusals.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, Host, Ports, Process, reader_words, wait_for};

type Trials = [(&'static str, fn() -> Result<(), Failed>); 3];

pub(crate) const TRIALS: Trials = [
    ("a_killed_sam_host_costs_no_read", a_killed_sam_host_costs_no_read),
    ("a_drained_module_begins_nothing", a_drained_module_begins_nothing),
    ("a_wrong_sam_host_is_refused_by_name", a_wrong_sam_host_is_refused_by_name),
];

/// An emulated module with a serial number of its own that takes its time.
pub(crate) fn module(
    host: &Host,
    link: &str,
    serial: &str,
    answer_after: &str,
) -> Result<Process, Failed> {
    let words = ["--json", "emulator", "sam", "--link", link, "--serial", serial];
    let mut sam = host.spawn(&[&words[..], &["--answer-after", answer_after]].concat())?;
    sam.first_json()?;
    Ok(sam)
}

pub(crate) fn enroll_host(
    host: &Host,
    serial: &str,
    api: &str,
    files: [&str; 2],
) -> Result<(), Failed> {
    let words = ["--json", "sam", "enroll", "--device", serial, "--serial", serial];
    let [ca, token] = files;
    host.run(&[&words[..], &["--server", api, "--ca", ca, "--token-file", token]].concat())?
        .ok()?;
    Ok(())
}

pub(crate) fn serve_host(
    host: &Host,
    serial: &str,
    sam: &str,
    port: u16,
) -> Result<Process, Failed> {
    serve_host_with(host, serial, ["--sam", sam], port)
}

/// The same with other words for its modules.
pub(crate) fn serve_host_with(
    host: &Host,
    serial: &str,
    modules: [&str; 2],
    port: u16,
) -> Result<Process, Failed> {
    let port = port.to_string();
    let words = ["--json", "sam", "serve", "--device", serial, "--port", &port];
    let mut served = host.spawn(&[&words[..], &modules].concat())?;
    let told = served.first_json()?;
    assert_eq!((told["id"].as_str(), told["samHost"].is_string()), (Some(serial), true), "{told}");
    Ok(served)
}

/// Appends a `[[sam]]` section.
pub(crate) fn attach(
    host: &Host,
    data: &str,
    port: u16,
    id: &str,
    modules: u8,
) -> Result<(), Failed> {
    let config = host.path(data).join("config.toml");
    let mut file = OpenOptions::new().append(true).open(config)?;
    let at = format!("host = \"127.0.0.1:{port}\"\nid = \"{id}\"\nmodules = {modules}\n");
    write!(file, "\n[[sam]]\n{at}")?;
    Ok(())
}

pub(crate) fn serve(
    host: &Host,
    data: &str,
    sam: Option<&str>,
    ports: &Ports,
) -> Result<Process, Failed> {
    let (https, gateway) = (ports.https.to_string(), ports.gateway.to_string());
    let mut words = vec!["--json", "serve", "--data", data, "--https-port", &https];
    words.extend(["--gateway-port", &gateway]);
    words.extend(sam.iter().flat_map(|sam| ["--sam", *sam]));
    let mut server = host.spawn(&words)?;
    server.first_json()?;
    Ok(server)
}

/// What health says of the module or connection whose port begins so.
pub(crate) fn health(host: &Host, ports: &Ports, port: &str) -> Result<Value, Failed> {
    let health: Value = host.api(ports)?.get("/v1/health")?;
    let sams = health["sams"].as_array().ok_or("no sams")?;
    let found = sams.iter().find(|sam| sam["port"].as_str().is_some_and(|at| at.starts_with(port)));
    Ok(found.cloned().ok_or_else(|| format!("no {port} in {health}"))?)
}

pub(crate) fn wait_state(
    host: &Host,
    ports: &Ports,
    port: &str,
    state: &str,
) -> Result<(), Failed> {
    wait_for(&format!("{port} {state}"), || {
        Ok((health(host, ports, port)?["state"] == state).then_some(()))
    })
}

pub(crate) fn sam_words<'a>(ports: &'a str, verb: &'a [&'a str]) -> Vec<&'a str> {
    let client = ["--server", ports, "--ca", "ca.pem", "--token-file", "admin.token"];
    [&["--json", "sam"], verb, &client].concat()
}

/// The modules by id, as the command lists them.
pub(crate) fn listed(host: &Host, ports: &Ports) -> Result<Vec<Value>, Failed> {
    let list = host.run(&sam_words(&ports.api(), &["list"]))?.ok()?.json()?;
    Ok(list["items"].as_array().ok_or("no items")?.clone())
}

fn id_at(host: &Host, ports: &Ports, port: &str) -> Result<String, Failed> {
    wait_for(&format!("an id at {port}"), || {
        let at = |sam: &&Value| sam["port"].as_str().is_some_and(|at| at.starts_with(port));
        let listed = listed(host, ports)?;
        Ok(listed.iter().find(at).and_then(|sam| sam["samId"].as_str()).map(str::to_owned))
    })
}

fn drain(host: &Host, ports: &Ports, id: &str) -> Result<Value, Failed> {
    let verb = ["drain", id, "--reason", "moved"];
    host.run(&sam_words(&ports.api(), &verb))?.ok()?.json()
}

fn resume(host: &Host, ports: &Ports, id: &str) -> Result<Value, Failed> {
    host.run(&sam_words(&ports.api(), &["resume", id]))?.ok()?.json()
}

/// Two hosts and a module of its own behind one server.
struct Site {
    host: Host,
    ports: Ports,
    at_first: String,
    at_second: String,
    _modules: [Process; 3],
    first: Process,
    second: Process,
    server: Process,
}

impl Site {
    fn new() -> Result<Self, Failed> {
        let host = Host::new()?;
        let (ports, at) = (Ports::pick()?, Ports::pick()?);
        host.init(&Database::Sqlite)?;
        let modules = [
            module(&host, "sam", "1", "0")?,
            module(&host, "sam-1", "2", "200")?,
            module(&host, "sam-2", "3", "0")?,
        ];
        // The hosts are enrolled with a server that runs; it is restarted with them attached.
        let server = serve(&host, "data", Some("sam"), &ports)?;
        host.enroll(&ports, "RD-1")?;
        for serial in ["SAMHOST-1", "SAMHOST-2"] {
            enroll_host(&host, serial, &ports.api(), ["ca.pem", "admin.token"])?;
        }
        server.kill()?;
        let first = serve_host(&host, "SAMHOST-1", "sam-1", at.https)?;
        let second = serve_host(&host, "SAMHOST-2", "sam-2", at.gateway)?;
        attach(&host, "data", at.https, "SAMHOST-1", 1)?;
        attach(&host, "data", at.gateway, "SAMHOST-2", 1)?;
        let server = serve(&host, "data", Some("sam"), &ports)?;
        let [at_first, at_second] = [at.https, at.gateway].map(|port| format!("127.0.0.1:{port}"));
        let _modules = modules;
        let site = Self { host, ports, at_first, at_second, _modules, first, second, server };
        for port in [&site.at_first, &site.at_second, "sam"] {
            wait_state(&site.host, &site.ports, port, "ready")?;
        }
        Ok(site)
    }
}

/// `kill -9` of the host whose module has the read: the reader notices nothing.
fn a_killed_sam_host_costs_no_read() -> Result<(), Failed> {
    let site = Site::new()?;
    let (host, ports) = (&site.host, &site.ports);
    let other = [id_at(host, ports, "sam")?, id_at(host, ports, &site.at_second)?];
    for id in &other {
        drain(host, ports, id)?;
    }
    // The other host's connection serves no more once the host has said so.
    wait_state(host, ports, &site.at_second, "failed")?;
    let gateway = ports.gateway();
    let reader = host.spawn(&reader_words(&gateway, "emulated:citizen", "1"))?;
    wait_state(host, ports, &site.at_first, "leased")?;
    for id in &other {
        resume(host, ports, id)?;
    }
    site.first.kill()?;
    let read = reader.finish()?.ok()?.json()?;
    assert_eq!(read["reads"][0]["attempts"], 1, "the reader had to try again: {read}");
    let reads: Value = host.api(ports)?.get("/v1/reads")?;
    let by = reads["items"][0]["samId"].as_str().ok_or("no SAM")?;
    assert!(other.iter().any(|id| id == by), "{reads}");
    assert_eq!(reads["items"][0]["state"], "done");
    wait_state(host, ports, &site.at_first, "failed")?;
    site.second.kill()?;
    site.server.kill()
}

/// Drained by the command: no read uses it, wherever it is, and a restart does not forget.
fn a_drained_module_begins_nothing() -> Result<(), Failed> {
    let site = Site::new()?;
    let (host, ports) = (&site.host, &site.ports);
    let ids = [
        id_at(host, ports, "sam")?,
        id_at(host, ports, &site.at_first)?,
        id_at(host, ports, &site.at_second)?,
    ];
    let drained = drain(host, ports, &ids[0])?;
    assert_eq!((&drained["drained"], &drained["drain"]["reason"]), (&json!(true), &json!("moved")));
    drain(host, ports, &ids[1])?;
    wait_state(host, ports, &site.at_first, "failed")?;
    assert_eq!(health(host, ports, "sam")?["state"], "drained");
    let gateway = ports.gateway();
    host.run(&reader_words(&gateway, "emulated:citizen", "6"))?.ok()?;
    let used = || {
        let reads: Value = host.api(ports)?.get("/v1/reads?limit=200")?;
        let reads = reads["items"].as_array().ok_or("no reads")?.clone();
        Ok::<_, Failed>(reads)
    };
    assert!(used()?.iter().all(|read| read["samId"] == ids[2].as_str()), "{:?}", used()?);

    site.server.kill()?;
    let server = serve(host, "data", Some("sam"), ports)?;
    wait_state(host, ports, &site.at_second, "ready")?;
    wait_state(host, ports, "sam", "drained")?;
    host.run(&reader_words(&gateway, "emulated:citizen", "2"))?.ok()?;
    assert!(used()?.iter().all(|read| read["samId"] == ids[2].as_str()));

    resume(host, ports, &ids[0])?;
    drain(host, ports, &ids[2])?;
    host.run(&reader_words(&gateway, "emulated:citizen", "1"))?.ok()?;
    let reads = used()?;
    assert_eq!(reads.len(), 9);
    assert!(reads.iter().any(|read| read["samId"] == ids[0].as_str()), "{reads:?}");

    let unknown = host.run(&sam_words(&ports.api(), &["resume", "05.03-1-2-3"]))?;
    assert_eq!((unknown.code, &unknown.json()?["error"]["check"]), (1, &json!("not-found")));
    let odd = host.run(&sam_words(&ports.api(), &["drain", "x/../y", "--reason", "r"]))?;
    assert_eq!((odd.code, &odd.json()?["error"]["check"]), (1, &json!("sam-id")));
    server.kill()
}

/// A host of another authority, with another id, or whose certificate is revoked: health names the
/// check.
fn a_wrong_sam_host_is_refused_by_name() -> Result<(), Failed> {
    let site = Site::new()?;
    let (host, ports) = (&site.host, &site.ports);
    let mut silent = TcpStream::connect(&site.at_second)?;
    let hosts: Value = host.api(ports)?.get("/v1/sam-hosts")?;
    let id = hosts["items"][0]["id"].as_str().ok_or("no id")?.to_owned();
    assert!(id.starts_with("smh_") && hosts["items"][0]["serial"] == "SAMHOST-1", "{hosts}");
    // A SAM host is no reader.
    let as_reader = host.api(ports)?.get::<Value>(&format!("/v1/readers/{id}"));
    assert!(as_reader.is_err(), "{as_reader:?}");
    let words = ["--json", "device", "reader", "--device", "SAMHOST-1", "--gateway"];
    let gateway = ports.gateway();
    let read = host.run(&[&words[..], &[&gateway, "--card", "emulated:citizen"]].concat())?;
    assert_eq!((read.code, &read.json()?["error"]["check"]), (1, &json!("device-kind")));

    let body = json!({ "reason": "stolen" });
    let named = |port: &str, check: &str| {
        wait_for(&format!("{check} at {port}"), || {
            let health = health(host, ports, port)?;
            Ok((health["state"] == "failed" && health["check"] == check).then_some(()))
        })
    };
    let _blocked: Value = host.api(ports)?.post(&format!("/v1/sam-hosts/{id}/block"), &body)?;
    named(&site.at_first, "sam-host-blocked")?;
    let path = format!("/v1/sam-hosts/{id}/unblock");
    let _unblocked: Value = host.api(ports)?.post(&path, &json!({}))?;
    wait_state(host, ports, &site.at_first, "ready")?;
    let _revoked: Value = host.api(ports)?.post(&format!("/v1/sam-hosts/{id}/revoke"), &body)?;
    named(&site.at_first, "certificate-revoked")?;
    site.server.kill()?;

    // At the address of the second host another is expected; and a host of another authority.
    let (foreign_ports, at) = (Ports::pick()?, Ports::pick()?);
    let words = ["init", "--data", "other", "--admin-token-file", "other.token"];
    host.run(&words)?.ok()?;
    let ca = host.run(&["ca", "export", "--data", "other", "tls-root"])?.ok()?;
    std::fs::write(host.path("other.pem"), ca.stdout)?;
    let foreign = serve(host, "other", None, &foreign_ports)?;
    enroll_host(host, "SAMHOST-3", &foreign_ports.api(), ["other.pem", "other.token"])?;
    foreign.kill()?;
    let _third = serve_host(host, "SAMHOST-3", "sam", at.https)?;
    let config = host.data().join("config.toml");
    let text = std::fs::read_to_string(&config)?.replace("SAMHOST-2", "SAMHOST-9");
    std::fs::write(&config, text)?;
    attach(host, "data", at.https, "SAMHOST-3", 1)?;
    let server = serve(host, "data", None, ports)?;
    named(&site.at_second, "wrong-server")?;
    let at_foreign = format!("127.0.0.1:{}", at.https);
    let check = wait_for("a check", || {
        let health = health(host, ports, &at_foreign)?;
        Ok(health["check"].as_str().filter(|_| health["state"] == "failed").map(str::to_owned))
    })?;
    assert!(check.starts_with("certificate"), "{check}");
    // Whoever connects and says nothing is not waited for.
    silent.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut told = Vec::new(); // an alert at most
    assert!(silent.read_to_end(&mut told)? < 100, "{told:?}");
    server.kill()
}

/// Two servers on one database, one SAM host with one module for both.
pub(crate) fn two_servers_share_a_sam_host(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    let (one, two, at) = (Ports::pick()?, Ports::pick()?, Ports::pick()?);
    host.init(database)?;
    let _module = module(&host, "sam", "1", "0")?;
    let server = serve(&host, "data", None, &one)?;
    host.enroll(&one, "RD-1")?;
    enroll_host(&host, "SAMHOST-1", &one.api(), ["ca.pem", "admin.token"])?;
    server.kill()?;
    let _sam_host = serve_host(&host, "SAMHOST-1", "sam", at.https)?;
    attach(&host, "data", at.https, "SAMHOST-1", 2)?;
    let mut copy = std::process::Command::new("cp");
    let copied = copy.args(["-a", "data", "data-2"]).current_dir(host.path(".")).status()?;
    assert!(copied.success());
    let first = serve(&host, "data", None, &one)?;
    let second = serve(&host, "data-2", None, &two)?;
    let port = format!("127.0.0.1:{}", at.https);
    for ports in [&one, &two] {
        wait_state(&host, ports, &port, "ready")?;
    }
    let gateways = [one.gateway(), two.gateway()];
    let reader = |gateway: &str| host.spawn(&reader_words(gateway, "emulated:citizen", "20"));
    let readers = [reader(&gateways[0])?, reader(&gateways[1])?];
    for reader in readers {
        let read = reader.finish()?.ok()?.json()?;
        assert_eq!(read["reads"].as_array().map(Vec::len), Some(20), "{read}");
    }
    // Taken out of service at one server, it is so at the other.
    let id = id_at(&host, &one, &port)?;
    drain(&host, &one, &id)?;
    wait_state(&host, &two, &port, "failed")?;
    resume(&host, &two, &id)?;
    wait_state(&host, &one, &port, "ready")?;
    first.kill()?;
    host.run(&reader_words(&gateways[1], "emulated:citizen", "1"))?.ok()?;
    second.kill()
}
