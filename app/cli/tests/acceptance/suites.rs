//! Suites, handshakes and policies, as they are chosen on the command line and in `config.toml`.

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, Ended, Host, Ports, reader_words};

/// One read by `RD-1`.
fn read(host: &Host, gateway: &str, more: &[&str]) -> Result<Ended, Failed> {
    host.run(&[&reader_words(gateway, "emulated:citizen", "1")[..], more].concat())
}

/// It succeeds, from the card, and was protected like this.
fn reads(
    host: &Host,
    gateway: &str,
    suite: &str,
    handshake: &str,
    policy: &str,
) -> Result<(), Failed> {
    let words = ["--handshake", handshake, "--policy", policy];
    let read = read(host, gateway, &words)?.ok()?.json()?["reads"][0].clone();
    let said = json!([read["source"], read["handshake"], read["suite"], read["policy"]]);
    assert_eq!(said, json!(["server", handshake, suite, policy]));
    assert_eq!(read["record"]["documentType"], "citizen");
    Ok(())
}

/// It is refused, and the sentence names what this reader offered; the sentence.
fn is_refused(host: &Host, gateway: &str, more: &[&str], offered: &str) -> Result<String, Failed> {
    let ended = read(host, gateway, more)?;
    let detail = ended.json()?["error"]["detail"].as_str().unwrap_or_default().to_owned();
    assert_eq!(ended.code, 1, "{detail}");
    let named = format!("this reader offers {offered}, and the server allows others only");
    assert!(detail.contains(&named), "{detail}");
    Ok(detail)
}

fn configure(host: &Host, gateway: &str) -> Result<(), Failed> {
    Ok(std::fs::write(host.path("data/config.toml"), format!("[gateway]\n{gateway}\n"))?)
}

/// What the server's audit says of the incident that a refused reader was told.
fn audited(host: &Host, detail: &str) -> Result<Value, Failed> {
    let incident = detail.split(['(', ')', ' ']).find(|word| word.starts_with("inc_"));
    let incident = incident.ok_or_else(|| format!("no incident in {detail:?}"))?;
    let shown = host.run(&["--json", "audit", "show", "--data", "data", incident])?.ok()?.json()?;
    Ok(shown["items"][0].clone())
}

pub(crate) fn an_sm2_server_serves_its_readers() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init_with(&["--suite", "sm2", "--server-id", "srv-1"], &Database::Sqlite)?;
    let ports = Ports::pick()?;
    let gateway = ports.gateway();
    let _sam = host.sam()?;
    let server = host.serve(&ports)?;
    let enrolled = host.try_enroll(&ports, "RD-1")?.ok()?.json()?;
    assert_eq!(enrolled["suite"], "sm2", "learnt from the server");
    reads(&host, &gateway, "sm2", "c1", "encrypt+mac")?;
    reads(&host, &gateway, "sm2", "c2", "encrypt+mac")?;
    let sealed = ["--policy", "certificate-sealed"];
    let offered = "handshake c1, suite sm2 and policy certificate-sealed";
    is_refused(&host, &gateway, &sealed, offered)?;

    // A reader of a server that has the same id and the other suite.
    let other = Host::new()?;
    other.init_with(&["--server-id", "srv-1"], &Database::Sqlite)?;
    let other_ports = Ports::pick()?;
    let other_sam = other.sam()?;
    let other_server = other.serve(&other_ports)?;
    let enrolled = other.try_enroll(&other_ports, "RD-1")?.ok()?.json()?;
    assert_eq!(enrolled["suite"], "p256");
    for handshake in ["c1", "c2"] {
        let offered = format!("handshake {handshake}, suite p256 and policy encrypt+mac");
        let detail = is_refused(&other, &gateway, &["--handshake", handshake], &offered)?;
        let row = audited(&host, &detail)?;
        assert_eq!(row["check"], "incompatible");
        assert_eq!(row["detail"]["error"], "no common suite");
    }
    // Nor can it be enrolled here with the key that it has.
    std::fs::copy(host.path("ca.pem"), other.path("ca.pem"))?;
    std::fs::copy(host.path("admin.token"), other.path("admin.token"))?;
    let refused = other.try_enroll(&ports, "RD-1")?;
    let error = refused.json()?["error"].clone();
    assert_eq!((refused.code, error["check"].as_str()), (1, Some("device-suite")), "{error}");
    let detail = error["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("suite p256, not sm2"), "{detail}");
    drop((other_server, other_sam));

    server.kill()?;
    configure(&host, "policies = [\"certificate-sealed\"]")?;
    let server = host.serve(&ports)?;
    reads(&host, &gateway, "sm2", "c1", "certificate-sealed")?;
    reads(&host, &gateway, "sm2", "c2", "certificate-sealed")?;
    let offered = "handshake c2, suite sm2 and policy encrypt+mac";
    is_refused(&host, &gateway, &["--handshake", "c2"], offered)?;
    server.kill()?;
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    Ok(())
}

pub(crate) fn handshakes_are_as_configured() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let ports = Ports::pick()?;
    let gateway = ports.gateway();
    let _sam = host.sam()?;
    let server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    reads(&host, &gateway, "p256", "c1", "encrypt+mac")?;
    reads(&host, &gateway, "p256", "c2", "encrypt+mac")?;
    server.kill()?;
    for (allowed, other) in [("c1", "c2"), ("c2", "c1")] {
        configure(
            &host,
            &format!("handshakes = [\"{allowed}\"]\npolicies = [\"mac\", \"encrypt\"]"),
        )?;
        let server = host.serve(&ports)?;
        reads(&host, &gateway, "p256", allowed, "mac")?;
        reads(&host, &gateway, "p256", allowed, "encrypt")?;
        let offered = format!("handshake {other}, suite p256 and policy mac");
        is_refused(&host, &gateway, &["--handshake", other, "--policy", "mac"], &offered)?;
        let offered = format!("handshake {allowed}, suite p256 and policy encrypt+mac");
        is_refused(&host, &gateway, &["--handshake", allowed], &offered)?;
        server.kill()?;
    }
    Ok(())
}
