//! What an operator does with a SAM host: its file of modules, block, unblock, revoke (C12).

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::host::{Database, Ended, Host, Ports, Process, reader_words, wait_for};
use crate::sams::{
    attach, enroll_host, health, listed, module, sam_words, serve, serve_host_with, wait_state,
};

type Trials = [(&'static str, fn() -> Result<(), Failed>); 3];

pub(crate) const TRIALS: Trials = [
    ("a_sam_host_is_blocked_and_revoked_by_its_serial", is_blocked_and_revoked_by_its_serial),
    ("a_sam_host_serves_what_its_file_names", serves_what_its_file_names),
    ("a_wrong_file_of_modules_is_named", a_wrong_file_of_modules_is_named),
];

/// A server with one SAM host, whose two modules stand in a file.
struct Site {
    host: Host,
    ports: Ports,
    at: String,
    _parts: [Process; 4],
}

const FILE: &str = "[[sam]]\nport = \"sam-1\"\n\n[[sam]]\nport = \"sam-2\"\nbaud = 115200\n";

impl Site {
    fn new() -> Result<Self, Failed> {
        let host = Host::new()?;
        let (ports, at) = (Ports::pick()?, Ports::pick()?.https);
        host.init(&Database::Sqlite)?;
        let modules = [module(&host, "sam-1", "1", "0")?, module(&host, "sam-2", "2", "0")?];
        let server = serve(&host, "data", None, &ports)?;
        host.enroll(&ports, "RD-1")?;
        enroll_host(&host, "SAMHOST-1", &ports.api(), ["ca.pem", "admin.token"])?;
        server.kill()?;
        std::fs::write(host.path("sams.toml"), FILE)?;
        let sams = serve_host_with(&host, "SAMHOST-1", ["--config", "sams.toml"], at)?;
        attach(&host, "data", at, "SAMHOST-1", 2)?;
        let server = serve(&host, "data", None, &ports)?;
        let [one, two] = modules;
        let at = format!("127.0.0.1:{at}");
        let site = Self { host, ports, at, _parts: [one, two, sams, server] };
        site.wait_until("ready")?;
        Ok(site)
    }

    fn wait_until(&self, state: &str) -> Result<(), Failed> {
        wait_state(&self.host, &self.ports, &self.at, state)
    }

    /// Waits until the server names this check for the connection to the host.
    fn wait_until_refused(&self, check: &str) -> Result<(), Failed> {
        wait_for(check, || {
            Ok((health(&self.host, &self.ports, &self.at)?["check"] == check).then_some(()))
        })
    }

    fn sam(&self, verb: &[&str]) -> Result<Ended, Failed> {
        self.host.run(&sam_words(&self.ports.api(), verb))
    }

    fn told(&self, verb: &[&str]) -> Result<Value, Failed> {
        self.sam(verb)?.ok()?.json()
    }

    fn refused(&self, verb: &[&str], check: &str) -> Result<(), Failed> {
        let ended = self.sam(verb)?;
        assert_eq!((ended.code, &ended.json()?["error"]["check"]), (1, &json!(check)), "{verb:?}");
        Ok(())
    }

    fn read(&self) -> Result<Value, Failed> {
        let gateway = self.ports.gateway();
        self.host.run(&reader_words(&gateway, "emulated:citizen", "1"))?.ok()?.json()
    }
}

fn is_blocked_and_revoked_by_its_serial() -> Result<(), Failed> {
    let site = Site::new()?;
    let which = ["--serial", "SAMHOST-1"];
    let verb = |verb: &'static str, more: &[&'static str]| [&[verb], &which[..], more].concat();
    let hosts = site.told(&["hosts"])?;
    assert_eq!(hosts["items"].as_array().map(Vec::len), Some(1), "{hosts}");
    assert_eq!(hosts["items"][0]["serial"], "SAMHOST-1");

    let blocked = site.told(&verb("block", &["--reason", "stolen"]))?;
    assert_eq!((&blocked["blocked"], &blocked["blockReason"]), (&json!(true), &json!("stolen")));
    site.wait_until_refused("sam-host-blocked")?;
    // The same for a person.
    let api = site.ports.api();
    let text = site.host.run(&sam_words(&api, &["hosts"])[1..])?.ok()?.stdout;
    assert!(text.contains("SAMHOST-1  blocked  certificate "), "{text}");
    assert!(text.contains("(stolen)"), "{text}");

    let unblocked = site.told(&verb("unblock", &[]))?;
    assert_eq!((&unblocked["blocked"], &unblocked["blockReason"]), (&json!(false), &Value::Null));
    site.wait_until("ready")?;
    site.read()?;

    site.refused(&["block", "--serial", "SAMHOST-7", "--reason", "r"], "not-found")?;
    site.refused(&["unblock", "--serial", "RD-1"], "not-found")?;
    site.refused(&verb("block", &["--reason", ""]), "reason-length")?;
    assert_eq!(site.sam(&verb("revoke", &[]))?.code, 2, "without a reason");
    assert_eq!(site.sam(&["block", "--reason", "r"])?.code, 2, "without a serial number");
    assert_eq!(health(&site.host, &site.ports, &site.at)?["state"], "ready", "nothing changed");

    let revoked = site.told(&verb("revoke", &["--reason", "key lost"]))?;
    assert_eq!(revoked["certificateNumber"], Value::Null, "{revoked}");
    site.wait_until_refused("certificate-revoked")?;
    site.refused(&verb("revoke", &["--reason", "again"]), "not-found")
}

fn serves_what_its_file_names() -> Result<(), Failed> {
    let site = Site::new()?;
    let sams = listed(&site.host, &site.ports)?;
    let mut names: Vec<_> = sams.iter().filter_map(|sam| sam["port"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sam-1", "sam-2"].map(|port| format!("{}/{port}", site.at)));
    let read = site.read()?;
    assert_eq!(read["reads"][0]["attempts"], 1, "{read}");
    Ok(())
}

fn a_wrong_file_of_modules_is_named() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    let _server = serve(&host, "data", None, &ports)?;
    enroll_host(&host, "SAMHOST-1", &ports.api(), ["ca.pem", "admin.token"])?;
    let words = ["--json", "sam", "serve", "--device", "SAMHOST-1", "--port", "0"];
    let with = |more: &[&str]| host.run(&[&words[..], more].concat());
    for (text, says) in [
        ("[[sam]]\nport = \"a\"\nspeed = 9600\n", "line 3: unknown field `speed`"),
        ("\n[[sam]]\nhost = \"h:1\"\nid = \"H\"\n", "line 2: a SAM host serves ports"),
        ("", "no [[sam]] section"),
    ] {
        std::fs::write(host.path("sams.toml"), text)?;
        let ended = with(&["--config", "sams.toml", "--sam", "sam"])?;
        let error = &ended.json()?["error"];
        assert_eq!((ended.code, &error["check"]), (1, &json!("sam-config")), "{text:?}");
        let detail = error["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("sams.toml: ") && detail.contains(says), "{detail}");
    }
    let absent = with(&["--config", "absent.toml"])?;
    assert_eq!((absent.code, &absent.json()?["error"]["check"]), (3, &json!("file")));
    assert_eq!(with(&[])?.code, 2, "no module at all");
    Ok(())
}
