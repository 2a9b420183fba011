//! The ways between a reader and its server (C16): TCP, UDP, a host on a serial line; and what goes
//! wrong on them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{ChildStdin, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;
use serde_json::Value;
use testkit::loss::{Direction, Rates, UdpProxy};
use testkit::parts::pty;

use crate::host::{Database, Host, Ports, Process, command, exists, reader_words, wait_for};

/// Most a `host --read` may take whose reader says nothing.
const SILENCE: Duration = Duration::from_secs(20);

/// A machine with a server, a module, a reader and a serial line.
struct Setting {
    host: Host,
    ports: Ports,
    server: Option<Process>,
    _sam: Process,
}

impl Setting {
    fn new() -> Result<Self, Failed> {
        let host = Host::new()?;
        let ports = Ports::pick()?;
        host.init(&Database::Sqlite)?;
        let sam = host.sam()?;
        let server = host.serve(&ports)?;
        host.enroll(&ports, "RD-1")?;
        Ok(Self { host, ports, server: Some(server), _sam: sam })
    }

    /// An emulated line between `reader-port` and `host-port`.
    fn line(&self) -> Result<Process, Failed> {
        let words =
            ["emulator", "line", "--link-a", "reader-port", "--link-b", "host-port", "--json"];
        let mut line = self.host.spawn(&words)?;
        line.first_json()?;
        Ok(line)
    }

    /// A reader that stays, on its end of the line; its keys are the test's.
    fn resident(&self, more: &[&str]) -> Result<(Process, ChildStdin), Failed> {
        let mut command = command();
        command.args(["--json", "device", "reader", "--device", "RD-1", "--resident"]);
        command.args(["--gateway", "serial:reader-port", "--card", "emulated:citizen"]);
        command.args(more).current_dir(self.host.path(".")).stderr(Stdio::null());
        Process::start_with_stdin(command)
    }

    /// The words of `host --read`.
    fn read_through_host(&self, gateway: &str) -> Result<crate::host::Ended, Failed> {
        self.host.run(&["--json", "host", "--port", "host-port", "--gateway", gateway, "--read"])
    }
}

/// One card, one reader, every way: the same record.
pub(crate) fn a_card_is_read_by_every_link() -> Result<(), Failed> {
    let setting = Setting::new()?;
    let gateway = setting.ports.gateway();
    let _line = setting.line()?;
    let mut records = Vec::new();
    let udp = format!("udp:{gateway}");
    for way in [&gateway, &udp] {
        let read = setting.host.run(&reader_words(way, "emulated:citizen", "1"))?.ok()?.json()?;
        let read = &read["reads"][0];
        assert_eq!((&read["source"], &read["attempts"]), (&"server".into(), &1.into()), "{way}");
        records.push(read["record"].clone());
    }

    // Through the host, at the host's command: the record goes there, the reader shows nothing.
    let (resident, keys) = setting.resident(&["--keys"])?;
    for fingerprint in [false, true] {
        let mut words = vec!["--json", "host", "--port", "host-port", "--gateway", &gateway];
        words.push("--read");
        words.extend(fingerprint.then_some("--fingerprint"));
        let read = setting.host.run(&words)?.ok()?.json()?;
        assert_eq!(read["reader"], "RD-1");
        assert_eq!(read["photoBytes"], 1024);
        assert_eq!(read["handshake"], "c1");
        records.push(read["record"].clone());
    }
    // The same for a person.
    let words = ["host", "--port", "host-port", "--gateway", &gateway, "--read"];
    let text = setting.host.run(&words)?.ok()?.stdout;
    let name = records[0]["name"].as_str().ok_or("no name")?.to_owned();
    assert!(text.contains(&name) && text.contains("Read by RD-1"), "{text}");

    // By the reader's own keys, through a host that only carries: shown at the reader alone.
    let words = ["host", "--port", "host-port", "--gateway", &gateway];
    let carrying = setting.host.spawn(&words)?;
    let mut keys = keys;
    keys.write_all(b"r\n")?;
    wait_for("the read by the reader's own key", || {
        let api = setting.host.api(&setting.ports)?;
        let reads: Value = api.get("/v1/reads")?;
        let done = reads["items"]
            .as_array()
            .map_or(0, |reads| reads.iter().filter(|read| read["state"] == "done").count());
        Ok((done >= 6).then_some(()))
    })?;
    keys.write_all(b"q\n")?;
    drop(keys);
    let shown = resident.finish()?.ok()?.json()?;
    assert_eq!(shown["served"], 3);
    let reads = shown["reads"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 1, "what the host asked for is not shown at the reader");
    records.push(reads[0]["record"].clone());
    assert!(!carrying.kill_and_read()?.contains(&name), "nor is this one at the host");

    assert_eq!(records[0]["documentType"], "citizen");
    assert!(records.windows(2).all(|two| two[0] == two[1]), "{records:?}");
    Ok(())
}

/// A fifth of all datagrams dropped, damaged, doubled and swapped each: every record is right, and
/// the server's metrics tell how many packets it had to ask for again.
pub(crate) fn a_lossy_link_costs_time_and_no_record() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    let _sam = host.sam()?;
    let (https, gateway) = (ports.https.to_string(), ports.gateway.to_string());
    let mut server = host.spawn(&[
        "--json",
        "serve",
        "--data",
        "data",
        "--sam",
        "sam",
        "--plain-http",
        "--https-port",
        &https,
        "--gateway-port",
        &gateway,
    ])?;
    assert_eq!(server.first_json()?["datagrams"], true);
    let api = format!("http://127.0.0.1:{https}");
    host.run(&[
        "--json",
        "device",
        "enroll",
        "--device",
        "RD-1",
        "--serial",
        "RD-1",
        "--server",
        &api,
        "--ca",
        "ca.pem",
        "--token-file",
        "admin.token",
    ])?
    .ok()?;

    let direct = host.run(&reader_words(&ports.gateway(), "emulated:citizen", "1"))?.ok()?;
    let expected = direct.json()?["reads"][0]["record"].clone();
    let resent = "countersign_packets_resent_total{transport=\"udp\"} ";
    assert!(!metrics(&host, ports.https)?.contains(resent), "nothing over UDP yet");
    let proxy = UdpProxy::start(ports.gateway().parse()?, Rates::all(20), 77)?;
    let way = format!("udp:{}", proxy.address());
    let read = host.run(&reader_words(&way, "emulated:citizen", "5"))?.ok()?.json()?;
    let reads = read["reads"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 5);
    assert!(reads.iter().all(|read| read["record"] == expected), "{read}");
    let tally = proxy.tally(Direction::Forth);
    assert!(tally.dropped > 0 && tally.damaged > 0 && tally.duplicated > 0, "{tally:?}");

    let text = metrics(&host, ports.https)?;
    let line = text.lines().find_map(|line| line.strip_prefix(resent)).ok_or("no count")?;
    assert!(line.parse::<u64>()? > 0, "{line}");
    let done = "countersign_reads_total{outcome=\"done\",transport=\"udp\"} 5";
    assert!(text.contains(done), "{text}");
    Ok(())
}

/// `GET /metrics` over plain HTTP.
fn metrics(host: &Host, port: u16) -> Result<String, Failed> {
    let token = std::fs::read_to_string(host.path("admin.token"))?;
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Connection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(answer)
}

/// The plug is pulled and put back, the server is killed and comes back: the read goes on.
pub(crate) fn a_host_survives_its_port_and_its_server() -> Result<(), Failed> {
    let mut setting = Setting::new()?;
    let gateway = setting.ports.gateway();
    let line = setting.line()?;
    let (resident, mut keys) = setting.resident(&["--keys"])?;
    setting.read_through_host(&gateway)?.ok()?;

    // No line at all when the host starts; it is plugged in while the host waits.
    // First the links: the system may give the ptys' names to another test's module at once.
    std::fs::remove_file(setting.host.path("reader-port"))?;
    std::fs::remove_file(setting.host.path("host-port"))?;
    line.kill()?;
    let words = ["--json", "host", "--port", "host-port", "--gateway", &gateway, "--read"];
    let waiting = setting.host.spawn(&words)?;
    std::thread::sleep(Duration::from_secs(1));
    let _line = setting.line()?;
    assert_eq!(waiting.finish()?.ok()?.json()?["record"]["documentType"], "citizen");

    // No server when the read begins.
    setting.server.take().ok_or("a server")?.kill()?;
    let waiting = setting.host.spawn(&words)?;
    std::thread::sleep(Duration::from_secs(2));
    setting.server = Some(setting.host.serve(&setting.ports)?);
    let read = waiting.finish()?.ok()?.json()?;
    assert_eq!(read["record"]["documentType"], "citizen");
    assert!(read["attempts"].as_u64().is_some_and(|attempts| attempts > 1), "{read}");

    keys.write_all(b"q")?;
    assert_eq!(resident.finish()?.ok()?.json()?["served"], 3);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a user's patience is measured")]
fn now() -> Instant {
    Instant::now()
}

/// What is wrong on the line is named, soon, and blamed on the environment.
pub(crate) fn a_host_names_what_is_wrong_on_the_line() -> Result<(), Failed> {
    let host = Host::new()?;
    let read = |port: &str| -> Result<(i32, String), Failed> {
        let started = now();
        let ended = host.run(&["--json", "host", "--port", port, "--read"])?;
        assert!(started.elapsed() < SILENCE, "{port}: {:?}", started.elapsed());
        let error = ended.json()?["error"].clone();
        Ok((ended.code, error["check"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(read("no-such-port")?, (3, "port-unavailable".to_owned()));
    std::fs::write(host.path("a-file"), b"x")?;
    assert_eq!(read("a-file")?, (3, "port-unavailable".to_owned()));

    let silent = pty()?;
    assert_eq!(read(&silent.path().display().to_string())?, (3, "reader-silent".to_owned()));

    let pair = pty()?;
    let mut noise = pair.master.try_clone()?;
    let noisy = std::thread::spawn(move || {
        while noise.write_all(b"\0U-Boot 2026.01 \xff\xfe\0").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert_eq!(read(&pair.path().display().to_string())?, (3, "line-damaged".to_owned()));
    drop(pair);
    drop(noisy); // ends with the line, or with this program

    let usage = host.run(&["--json", "host", "--port", "p", "--fingerprint"])?;
    assert_eq!(usage.code, 2, "{}", usage.stdout);
    let usage =
        host.run(&["--json", "device", "reader", "--card", "emulated:citizen", "--keys"])?;
    assert_eq!(usage.code, 2, "{}", usage.stdout);
    Ok(())
}

/// A reader whose server, or whose host, is not there says so.
pub(crate) fn a_link_to_nobody_is_named() -> Result<(), Failed> {
    let mut setting = Setting::new()?;
    let gateway = setting.ports.gateway();
    setting.server.take().ok_or("a server")?.kill()?;
    let _line = setting.line()?;
    assert!(exists(&setting.host.path("host-port")));
    let (_resident, _keys) = setting.resident(&["--keys", "--retry-for", "1"])?;
    let refused = setting.read_through_host(&gateway)?;
    let error = refused.json()?["error"].clone();
    assert_eq!((refused.code, &error["check"]), (3, &"server-unreachable".into()), "{error}");
    let detail = error["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("serial:reader-port") && detail.contains(&gateway), "{detail}");

    let udp = format!("udp:{gateway}");
    for way in ["serial:no-such-port", &udp] {
        let mut words = reader_words(way, "emulated:citizen", "1");
        words.extend(["--retry-for", "0.5"]);
        let refused = setting.host.run(&words)?;
        let error = refused.json()?["error"].clone();
        assert_eq!((refused.code, &error["check"]), (3, &"server-unreachable".into()), "{error}");
    }
    Ok(())
}
