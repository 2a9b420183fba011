//! The injection hierarchy and its terminals as operators run them: killed at any moment, verified
//! by OpenSSL, enrolled with requests that OpenSSL made.

use std::fs;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::Alone;
use crate::host::{Database, Ended, Host, Ports, Process, wait_for};

pub(crate) const TRIALS: [(&str, Alone); 3] = [
    ("openssl_verifies_the_injection_hierarchy", openssl_verifies_the_hierarchy),
    ("a_code_lets_one_terminal_in_once", a_code_lets_one_terminal_in_once),
    ("a_missing_token_is_named", a_missing_token_is_named),
];

const ROLES: [&str; 4] = ["root", "ca-krd", "ca-kdh", "kdh"];
/// Short keys: nothing here depends on their length, and making them takes most of the time.
const BITS: &str = "2048";

fn init(host: &Host) -> Result<Ended, Failed> {
    host.run(&["--json", "rki", "init", "--data", "data", "--bits", BITS])
}

/// A server with a hierarchy and two operators: the admin, and one who agrees.
struct Site {
    host: Host,
    ports: Ports,
    server: Option<Process>,
}

impl Site {
    fn new(database: &Database) -> Result<Self, Failed> {
        let (host, ports) = (Host::new()?, Ports::pick()?);
        host.init(database)?;
        let words = ["--json", "operator", "add", "eve", "--role", "approver", "--data", "data"];
        let added = host.run(&words)?.ok()?.json()?;
        let token = added["token"]["secret"].as_str().ok_or("no token")?;
        fs::write(host.path("eve.token"), token)?;
        init(&host)?.ok()?;
        let server = Some(host.serve(&ports)?);
        Ok(Self { host, ports, server })
    }

    fn client<'a>(&self, words: &[&'a str], api: &'a str, token: &'a str) -> Vec<&'a str> {
        let client = ["--json", "--server", api, "--ca", "ca.pem", "--token-file", token];
        [words, &client].concat()
    }

    fn run_as(&self, token: &str, words: &[&str]) -> Result<Ended, Failed> {
        let api = self.ports.api();
        self.host.run(&self.client(words, &api, token))
    }

    fn done(&self, words: &[&str]) -> Result<Value, Failed> {
        self.run_as("admin.token", words)?.ok()?.json()
    }

    fn refused(&self, words: &[&str], check: &str) -> Result<(), Failed> {
        let ended = self.run_as("admin.token", words)?;
        let error = ended.json()?["error"].clone();
        assert_eq!((ended.code, error["check"].as_str()), (1, Some(check)), "{words:?}: {error}");
        Ok(())
    }

    /// The admin asks, the other one agrees: the approval.
    fn agreed(&self, words: &[&str]) -> Result<String, Failed> {
        let asked = self.done(words)?;
        let id = asked["approval"]["id"].as_str().ok_or("nobody was asked")?.to_owned();
        self.run_as("eve.token", &["approval", "approve", &id])?.ok()?;
        Ok(id)
    }

    fn states(&self, role: &str) -> Result<Vec<String>, Failed> {
        states(&self.done(&["rki", "status"])?, role)
    }

    fn kill_and_serve(&mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        self.server = Some(self.host.serve(&self.ports)?);
        Ok(())
    }

    fn verify_audit(mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        let words = ["--json", "audit", "verify", "--data", "data"];
        let verified = self.host.run(&words)?.ok()?.json()?;
        assert_eq!(verified["ok"], true, "{verified}");
        Ok(())
    }

    fn openssl(&self, words: &[&str]) -> Result<String, Failed> {
        let output =
            Command::new("openssl").args(words).current_dir(self.host.path(".")).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(text) } else { Err(text.into()) }
    }

    /// Exports a certificate or CRL as `WHAT.pem`.
    fn export(&self, what: &str) -> Result<(), Failed> {
        let pem = self.done(&["rki", "export", what])?["pem"].as_str().unwrap_or("").to_owned();
        Ok(fs::write(self.host.path(&format!("{what}.pem")), pem)?)
    }

    /// What a terminal sends; OpenSSL makes its keys and requests.
    fn enrolment(&self, serial: &str, code: &str) -> Result<Value, Failed> {
        let [channel, krd] = ["channel", "krd"].map(|part| format!("{serial}-{part}"));
        let request = |name: &str, new: [&str; 4], role: &str| {
            let key = format!("{name}.key");
            let csr = format!("{name}.csr");
            let uri = format!("subjectAltName=URI:countersign://{role}/{serial}");
            if !crate::host::exists(&self.host.path(&key)) {
                let words = ["genpkey", "-algorithm", new[0], "-pkeyopt", new[1], "-out", &key];
                self.openssl(&words)?;
            }
            let words = ["req", "-new", "-key", &key, "-sha256", "-subj", "/CN=pos"];
            self.openssl(&[&words[..], &["-addext", &uri, "-out", &csr]].concat())?;
            Ok::<_, Failed>(fs::read_to_string(self.host.path(&csr))?)
        };
        let ec = ["EC", "ec_paramgen_curve:P-256", "", ""];
        let rsa = ["RSA", "rsa_keygen_bits:2048", "", ""];
        Ok(json!({
            "serial": serial,
            "code": code,
            "request": request(&channel, ec, "terminal")?,
            "krdRequest": request(&krd, rsa, "krd")?,
        }))
    }

    fn enrol(&self, body: &Value) -> Result<Result<Value, String>, Failed> {
        use countersign_device::ApiError;
        match self.host.api(&self.ports)?.post::<Value>("/v1/terminals/enrolments", body) {
            Ok(answer) => Ok(Ok(answer)),
            Err(ApiError::Refused { check, .. }) => Ok(Err(check)),
            Err(error) => Err(error.into()),
        }
    }
}

fn states(status: &Value, role: &str) -> Result<Vec<String>, Failed> {
    let all = status["authorities"].as_array().ok_or("no authorities")?;
    let of_role = all.iter().filter(|one| one["role"] == role);
    Ok(of_role.map(|one| one["state"].as_str().unwrap_or_default().to_owned()).collect())
}

/// Moments at which `rki init` is killed.
const KILLS: u32 = 12;
const KILL_STEP: Duration = Duration::from_millis(55);

/// `kill -9` at any moment of `rki init`: run again, it goes on where it broke off.
pub(crate) fn a_killed_rki_init_is_gone_on_with(database: &Database) -> Result<(), Failed> {
    let (host, ports) = (Host::new()?, Ports::pick()?);
    host.init(database)?;
    for kill in 0..KILLS {
        let words = ["--json", "rki", "init", "--data", "data", "--bits", BITS];
        let making = host.spawn(&words)?;
        std::thread::sleep(KILL_STEP * kill);
        making.kill()?;
    }
    let made = init(&host)?.ok()?.json()?;
    for role in ROLES {
        assert_eq!(states(&made, role)?, ["active"], "{role}");
    }
    assert_eq!(made["vault"], "sealed files");
    assert_eq!(init(&host)?.ok()?.json()?, made, "nothing more is made");
    let server = host.serve(&ports)?;
    let status: Value = host.api(&ports)?.get("/v1/rki")?;
    for role in ["ca-krd", "ca-kdh"] {
        let all = status["authorities"].as_array().ok_or("no authorities")?;
        let ca = all.iter().find(|one| one["role"] == role).ok_or("no CA")?;
        assert!(ca["crl"]["number"].as_u64() >= Some(1), "{ca}");
    }
    server.kill()?;
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true, "{verified}");
    Ok(())
}

/// A roll-over takes two, and a server that is killed in the middle of it finishes it.
pub(crate) fn a_roll_over_takes_two_and_survives_a_kill(database: &Database) -> Result<(), Failed> {
    let mut site = Site::new(database)?;
    let roll = ["rki", "roll", "kdh"];
    site.refused(&["rki", "roll", "kdh", "--approval", "apr_none"], "not-found")?;
    let approval = site.agreed(&roll)?;
    let with = ["rki", "roll", "kdh", "--approval", &approval];
    let api = site.ports.api();
    let rolling = site.host.spawn(&site.client(&with, &api, "admin.token"))?;
    std::thread::sleep(Duration::from_millis(120));
    site.kill_and_serve()?;
    rolling.finish()?;
    // Either the approval was used, and what it allowed is finished; or nothing was done.
    let kdhs = wait_for("a KDH in use", || {
        let states = site.states("kdh")?;
        Ok((states[0] == "active").then_some(states))
    })?;
    if kdhs.len() == 1 {
        site.done(&with)?;
    }
    assert_eq!(site.states("kdh")?.len(), 2, "once, however often the server died");
    assert!(site.run_as("admin.token", &with)?.code == 1, "an approval is used once");

    let bare = site.done(&["rki", "rebind", "list"])?;
    assert_eq!(bare["items"], json!([]));
    let begin = ["rki", "rebind", "begin"];
    let approval = site.agreed(&begin)?;
    let begun = site.done(&[&begin[..], &["--approval", &approval]].concat())?;
    assert_eq!((&begun["open"], &begun["state"]), (&json!(0), &json!("done")), "nobody was bound");
    site.verify_audit()
}

/// Two servers on one database and one vault: what one does, the other does with.
pub(crate) fn two_servers_share_a_hierarchy(database: &Database) -> Result<(), Failed> {
    let mut site = Site::new(database)?;
    let other = Ports::pick()?;
    let (first_server, second) = (site.server.take(), site.host.serve(&other)?);
    let crl = |ports: &Ports| {
        let api = ports.api();
        let words = site.client(&["rki", "crl", "ca-kdh"], &api, "admin.token");
        site.host.run(&words)?.ok()?.json()
    };
    assert_eq!(crl(&site.ports)?, crl(&other)?, "one CRL, whoever is asked");
    let allowed = site.done(&["terminal", "allow", "--serial", "POS-1"])?;
    let body = site.enrolment("POS-1", allowed["enrolmentCode"].as_str().unwrap_or_default())?;
    // Enrolled at one, repeated at the other; the code is used once.
    let first = site.enrol(&body)?.map_err(Failed::from)?;
    let again: Value = site.host.api(&other)?.post("/v1/terminals/enrolments", &body)?;
    assert_eq!(first, again);
    let roll = ["rki", "roll", "ca-kdh"];
    let approval = site.agreed(&roll)?;
    let rolled = site.done(&[&roll[..], &["--approval", &approval]].concat())?;
    let there: Value = site.host.api(&other)?.get("/v1/rki")?;
    let active = |status: &Value, role: &str| {
        let mut all = status["authorities"].as_array().into_iter().flatten();
        let found = all.find(|one| one["role"] == role && one["state"] == "active");
        found.map(|one| one["serial"].clone())
    };
    for role in ROLES {
        assert!(active(&there, role).is_some(), "{role}");
    }
    assert_eq!(active(&there, "ca-kdh"), active(&rolled, "ca-kdh"));
    assert_eq!(crl(&site.ports)?, crl(&other)?);
    first_server.ok_or("no server")?.kill()?;
    assert_eq!(crl(&other)?["listed"], 0, "the new CA's key is there for both");
    site.server = Some(second);
    site.verify_audit()
}

/// Another implementation's word on the hierarchy, with the CRLs.
fn openssl_verifies_the_hierarchy() -> Result<(), Failed> {
    let site = Site::new(&Database::Sqlite)?;
    for what in ["root", "ca-krd", "ca-kdh", "kdh", "crl-kdh", "crl-krd"] {
        site.export(what)?;
    }
    let join = |name: &str, parts: &[&str]| {
        let read = |part: &&str| fs::read_to_string(site.host.path(&format!("{part}.pem")));
        let all = parts.iter().map(read).collect::<Result<String, _>>()?;
        fs::write(site.host.path(name), all)
    };
    join("kdh-chain.pem", &["root", "ca-kdh"])?;
    join("krd-chain.pem", &["root", "ca-krd"])?;
    let verify = |chain: &str, crl: &str, certificate: &str| {
        let words = ["verify", "-x509_strict", "-crl_check", "-CAfile", chain, "-CRLfile", crl];
        site.openssl(&[&words[..], &[certificate]].concat())
    };
    verify("kdh-chain.pem", "crl-kdh.pem", "kdh.pem")?;
    assert!(verify("krd-chain.pem", "crl-krd.pem", "kdh.pem").is_err(), "another CA");
    let text = site.openssl(&["x509", "-in", "kdh.pem", "-noout", "-text"])?;
    for wanted in ["URI:countersign://kdh/", "Digital Signature", "CA:FALSE"] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }

    let allowed = site.done(&["terminal", "allow", "--serial", "POS-1"])?;
    let code = allowed["enrolmentCode"].as_str().ok_or("no code")?;
    let enrolled = site.enrol(&site.enrolment("POS-1", code)?)?.map_err(Failed::from)?;
    fs::write(site.host.path("pos.pem"), enrolled["krdCertificate"].as_str().unwrap_or(""))?;
    verify("krd-chain.pem", "crl-krd.pem", "pos.pem")?;
    site.done(&["terminal", "revoke", "POS-1", "--reason", "key lost"])?;
    site.export("crl-krd")?;
    let revoked = verify("krd-chain.pem", "crl-krd.pem", "pos.pem");
    assert!(revoked.is_err_and(|error| format!("{error:?}").contains("revoked")));

    // A revoked KDH is on the list at once.
    let status = site.done(&["rki", "status"])?;
    let all = status["authorities"].as_array().ok_or("no authorities")?;
    let kdh = all.iter().find(|one| one["role"] == "kdh").and_then(|one| one["id"].as_str());
    let revoke = ["rki", "revoke", kdh.ok_or("no KDH")?, "--reason", "token lost"];
    let approval = site.agreed(&revoke)?;
    site.done(&[&revoke[..], &["--approval", &approval]].concat())?;
    site.export("crl-kdh")?;
    let revoked = verify("kdh-chain.pem", "crl-kdh.pem", "kdh.pem");
    assert!(revoked.is_err_and(|error| format!("{error:?}").contains("revoked")));
    site.refused(&["rki", "export", "kdh"], "rki-not-initialised")?;
    site.verify_audit()
}

fn a_code_lets_one_terminal_in_once() -> Result<(), Failed> {
    let site = Site::new(&Database::Sqlite)?;
    let inventory = "serial,model,owner\nPOS-1,M2,Shop 7\nPOS-2,M2,Shop 8\n";
    fs::write(site.host.path("inventory.csv"), inventory)?;
    fs::write(site.host.path("twice.csv"), "serial\nPOS-8\nPOS-8\n")?;
    site.refused(&["terminal", "allow", "--file", "twice.csv"], "inventory")?;
    let allowed = site.done(&["terminal", "allow", "--file", "inventory.csv"])?;
    let code = |at: usize| allowed["items"][at]["enrolmentCode"].as_str().unwrap_or_default();
    site.refused(&["terminal", "allow", "--serial", "POS-1"], "terminal-serial-taken")?;
    site.refused(&["terminal", "show", "POS-9"], "not-found")?;

    let refused = |answer: Result<Value, String>| answer.err().unwrap_or_default();
    let ask = |serial: &str, code: &str| site.enrol(&site.enrolment(serial, code)?);
    assert_eq!(refused(ask("POS-9", code(0))?), "terminal-not-allowed");
    assert_eq!(refused(ask("POS-1", code(1))?), "enrolment-code", "another terminal's");
    assert_eq!(refused(ask("POS-1", "AAAA-BBBB")?), "enrolment-code");
    let first = ask("POS-1", code(0))?.map_err(Failed::from)?;
    let again = ask("POS-1", code(0))?.map_err(Failed::from)?;
    assert_eq!(first, again, "a repeat with the same keys");
    fs::remove_file(site.host.path("POS-1-krd.key"))?;
    assert_eq!(refused(ask("POS-1", code(0))?), "enrolment-code", "used, with other keys");
    site.done(&["terminal", "block", "POS-2", "--reason", "stolen"])?;
    assert_eq!(refused(ask("POS-2", code(1))?), "device-blocked");
    site.done(&["terminal", "unblock", "POS-2"])?;
    ask("POS-2", code(1))?.map_err(Failed::from)?;
    let other = site.done(&["terminal", "code", "POS-1"])?;
    let other = other["enrolmentCode"].as_str().unwrap_or_default();
    assert_eq!(refused(ask("POS-1", other)?), "serial-taken");
    site.refused(&["terminal", "unbind", "POS-1"], "terminal-not-bound")?;

    let listed = site.done(&["terminal", "list"])?;
    let states: Vec<_> =
        listed["items"].as_array().ok_or("no items")?.iter().map(|one| &one["state"]).collect();
    assert_eq!(states, ["enrolled", "enrolled"]);
    // No code lies in the database or in a log.
    let stored = fs::read(site.host.data().join("store.sqlite"))?;
    let plain = code(0).replace('-', "");
    for secret in [code(0).as_bytes(), plain.as_bytes()] {
        assert!(!stored.windows(secret.len()).any(|part| part == secret));
    }
    site.verify_audit()
}

/// What `[keys]` names must be there; the sentence says what is missing.
fn a_missing_token_is_named() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let path = host.data().join("config.toml");
    let config = fs::read_to_string(&path)?;
    let token = "vault = \"pkcs11\"\nmodule = \"/nowhere/token.so\"\ntoken = \"hsm\"\n\
                 pin-file = \"pin\"\n";
    fs::write(&path, config.replace("vault = \"file\"\n", token))?;
    let no_pin = init(&host)?;
    assert_eq!((no_pin.code, &no_pin.json()?["error"]["check"]), (3, &json!("io")));
    fs::write(host.data().join("pin"), "4711\n")?;
    let error = init(&host)?.json()?["error"].clone();
    let check = error["check"].as_str().unwrap_or_default();
    assert!(["pkcs11-not-built", "pkcs11-module"].contains(&check), "{error}");
    assert!(!error.to_string().contains("4711"), "{error}");
    // What needs no vault works without the token.
    let words = ["operator", "add", "eve", "--role", "auditor", "--data", "data"];
    host.run(&words)?.ok()?;
    Ok(())
}
