//! Keys for injection as their custodians handle them: approvals, a key ceremony with a server that
//! dies, blocks from `countersign tr31`.

use std::fs;
use std::io::Write;

use countersign_crypto::Secret;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::Alone;
use crate::host::{Database, Ended, Host, Ports, Process, command};

pub(crate) const TRIALS: [(&str, Alone); 2] = [
    ("a_component_is_nowhere_to_be_found", a_component_is_nowhere_to_be_found),
    ("key_commands_name_wrong_words", key_commands_name_wrong_words),
];

/// Three components of an AES-128 key, with their check values, and the key.
const COMPONENTS: [&str; 3] = [
    "0F1E2D3C4B5A69788796A5B4C3D2E1F0",
    "A1B2C3D4E5F60718293A4B5C6D7E8F90",
    "13579BDF02468ACE13579BDF2468ACE0",
];
/// A key that comes under it.
const KEY: &str = "3F419E1CB7079442AA37474C2EFBF8B8";

fn bytes(hex: &str) -> Vec<u8> {
    data_encoding::HEXUPPER.decode(hex.as_bytes()).unwrap_or_default()
}

fn whole() -> String {
    let parts = COMPONENTS.map(bytes);
    let sum: Vec<u8> = (0..16).map(|at| parts[0][at] ^ parts[1][at] ^ parts[2][at]).collect();
    data_encoding::HEXUPPER.encode(&sum)
}

/// The check value of an AES key, three bytes of it, as it stands on its paper.
fn kcv(hex: &str) -> Result<String, Failed> {
    let key = Secret::new(bytes(hex));
    let kcv = tr31::kcv::kcv(&tr31::aws_lc::AwsLc, b'A', &key)?;
    Ok(kcv.shown().to_string())
}

/// A server and its custodians.
struct House {
    host: Host,
    ports: Ports,
    server: Option<Process>,
    logs: usize,
}

impl House {
    fn new(database: &Database) -> Result<Self, Failed> {
        let (host, ports) = (Host::new()?, Ports::pick()?);
        host.init(database)?;
        for name in ["ann", "bob", "cyd"] {
            let words =
                ["--json", "operator", "add", name, "--role", "custodian", "--data", "data"];
            let added = host.run(&words)?.ok()?.json()?;
            let token = added["token"]["secret"].as_str().ok_or("no token")?;
            fs::write(host.path(&format!("{name}.token")), token)?;
        }
        let mut house = Self { host, ports, server: None, logs: 0 };
        house.serve()?;
        Ok(house)
    }

    /// Starts the server, with all it can log in a file of its own.
    fn serve(&mut self) -> Result<(), Failed> {
        self.logs += 1;
        let log = format!("log{}", self.logs);
        self.server = Some(self.host.serve_logged(&self.ports, &log)?);
        Ok(())
    }

    /// `kill -9`, and another server.
    fn kill_and_serve(&mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        self.serve()
    }

    /// What `who` runs.
    fn run(&self, who: &str, words: &[&str]) -> Result<Ended, Failed> {
        let token = format!("{who}.token");
        let api = self.ports.api();
        let client = ["--json", "--server", &api, "--ca", "ca.pem", "--token-file", &token];
        self.host.run(&[words, &client].concat())
    }

    fn done(&self, who: &str, words: &[&str]) -> Result<Value, Failed> {
        self.run(who, words)?.ok()?.json()
    }

    /// What `who` runs is refused by this check.
    fn refused(&self, who: &str, words: &[&str], check: &str) -> Result<(), Failed> {
        let ended = self.run(who, words)?;
        let error = ended.json()?["error"].clone();
        assert_eq!((ended.code, error["check"].as_str()), (1, Some(check)), "{words:?}: {error}");
        Ok(())
    }

    /// Ann asks: the approval.
    fn asked(&self, words: &[&str]) -> Result<String, Failed> {
        let asked = self.done("ann", words)?;
        let id = asked["approval"]["id"].as_str();
        Ok(id.ok_or_else(|| format!("{words:?} was done without approval: {asked}"))?.to_owned())
    }

    /// Ann asks, Bob agrees, Ann does it.
    fn gated(&self, words: &[&str]) -> Result<Value, Failed> {
        let id = self.asked(words)?;
        self.done("bob", &["approval", "approve", &id])?;
        self.done("ann", &[words, &["--approval", &id]].concat())
    }

    /// Writes a component to a file and gives the words to enter it.
    fn component(&self, number: usize) -> Result<[String; 2], Failed> {
        let file = format!("c{number}");
        fs::write(self.host.path(&file), format!("{}\n", COMPONENTS[number - 1]))?;
        Ok([format!("@{file}"), kcv(COMPONENTS[number - 1])?])
    }

    fn enter(&self, who: &str, kek: &str, number: usize) -> Result<Ended, Failed> {
        let ([file, kcv], number) = (self.component(number)?, number.to_string());
        let words = ["key", "kek", "component", kek, "--number", &number, "--kcv", &kcv];
        self.run(who, &[&words[..], &["--component", &file]].concat())
    }

    /// `countersign tr31 wrap` of this key under this protection key.
    fn wrap(&self, kbpk: &str, key: &str, more: &[&str]) -> Result<String, Failed> {
        let words = ["tr31", "wrap", "--json", "--version", "D", "--kbpk", kbpk, "--key", key];
        let header = ["--usage", "P0", "--algorithm", "A", "--mode", "E", "--exportability", "N"];
        let wrapped = self.host.run(&[&words[..], &header, more].concat())?.ok()?.json()?;
        Ok(wrapped["block"].as_str().ok_or("no block")?.to_owned())
    }

    /// The checks that were refused of such an action, oldest first, as the audit has them.
    fn refused_of(&self, action: &str) -> Result<Vec<String>, Failed> {
        let passphrase = fs::read(self.host.data().join("passphrase"))?;
        let passphrase = Secret::copied_from(passphrase.trim_ascii_end());
        let data = countersign_server::DataDir::open(&self.host.data())?;
        let rows = tokio::runtime::Runtime::new()?.block_on(async {
            let open = countersign_server::open_service_with_vault(&data, &passphrase, None);
            let service = open.await?;
            let page = service.audit_page(None, 100).await?;
            Ok::<_, Failed>(page.items)
        })?;
        let of_action = rows.into_iter().rev().filter(|row| row.entry.action == action);
        Ok(of_action.filter_map(|row| row.entry.check).collect())
    }

    fn verify_audit(mut self) -> Result<(), Failed> {
        self.server.take().ok_or("no server")?.kill()?;
        let verified = self.host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?;
        assert_eq!(verified.json()?["ok"], true);
        Ok(())
    }
}

const BEGIN: [&str; 10] =
    ["key", "kek", "begin", "zone", "--algorithm", "A", "--length", "16", "--components", "3"];

/// The whole ceremony with three custodians and a server that is killed between components, then
/// a key under the key-encrypting key, from `tr31 wrap` to its retirement.
pub(crate) fn the_key_ceremony(database: &Database) -> Result<(), Failed> {
    let mut house = House::new(database)?;
    let told = kcv(&whole())?;
    let begin = [&BEGIN[..], &["--kcv", &told]].concat();
    let id = house.asked(&begin)?;
    house.refused("ann", &["approval", "approve", &id], "approval-own-request")?;
    house.refused("ann", &[&begin[..], &["--approval", &id]].concat(), "approval-pending")?;
    house.done("bob", &["approval", "approve", &id])?;
    house.refused("cyd", &[&begin[..], &["--approval", &id]].concat(), "approval-other-request")?;
    house.refused("ann", &[&BEGIN[..], &["--approval", &id]].concat(), "approval-other-request")?;
    let kek = house.done("ann", &[&begin[..], &["--approval", &id]].concat())?;
    assert_eq!(kek["state"], "collecting");
    house.refused("ann", &[&begin[..], &["--approval", &id]].concat(), "approval-used")?;

    house.enter("ann", "zone", 1)?.ok()?;
    house.kill_and_serve()?;
    let words = ["key", "kek", "component", "zone", "--number", "2", "--kcv", "000000"];
    let [file, _kcv] = house.component(2)?;
    let wrong = [&words[..], &["--component", &file]].concat();
    house.refused("bob", &wrong, "component-kcv")?;
    let again = house.enter("ann", "zone", 2)?.json()?;
    assert_eq!(again["error"]["check"], "component-operator");
    house.enter("bob", "zone", 2)?.ok()?;
    house.kill_and_serve()?;
    let collecting = house.done("ann", &["key", "kek", "show", "zone"])?;
    assert_eq!(collecting["entered"].as_array().map(Vec::len), Some(2), "{collecting}");
    let active = house.enter("cyd", "zone", 3)?.ok()?.json()?;
    assert_eq!(active["state"], "active");
    assert!(active["kcv"].as_str().unwrap_or_default().starts_with(&told), "{active}");
    keys_under_it(&house)?;
    house.kill_and_serve()?;
    made_here(&house)?;
    house.verify_audit()
}

/// What `tr31 wrap` has made is taken in; what was altered, or is stronger, is not.
fn keys_under_it(house: &House) -> Result<(), Failed> {
    let block = house.wrap(&whole(), KEY, &[])?;
    let import = |block: &str| {
        fs::write(house.host.path("block"), block)?;
        Ok::<_, Failed>(["key", "import", "pin", "--kek", "zone", "--block", "@block"])
    };
    let scope = ["--scope", "shared"];
    let even = {
        let kbpk = whole();
        let words = ["tr31", "wrap", "--json", "--version", "D", "--kbpk", &kbpk];
        let header = ["--usage", "P0", "--algorithm", "T", "--mode", "E", "--exportability", "N"];
        let key = ["--key", "5CB50B454F8389ADCE573BE50861F2BF", "--lenient", "des-parity"];
        let wrapped = house.host.run(&[&words[..], &header, &key].concat())?.ok()?.json()?;
        wrapped["block"].as_str().ok_or("no block")?.to_owned()
    };
    let unknown = ["--opt", "ZZ=0123456789ABC", "--lenient", "unknown-optional-block"];
    let mut checks = Vec::new();
    for (bad, check) in [
        (house.wrap(KEY, KEY, &[])?, "mac"),
        (block.replacen("P0AE00N", "P0AE00E", 1), "mac"),
        (block[..block.len() - 2].to_owned(), "block-length"),
        (
            house.wrap(&whole(), &KEY.repeat(2), &["--lenient", "weaker-wrapping-key"])?,
            "wrapping-key-weaker",
        ),
        (house.wrap(&whole(), KEY, &unknown)?, "unknown-optional-block"),
        (even, "des-parity"),
    ] {
        house.refused("ann", &[&import(&bad)?[..], &scope].concat(), check)?;
        checks.push(check);
    }
    assert_eq!(house.refused_of("key.import")?, checks, "each in the audit");
    assert_eq!(house.done("ann", &["key", "list"])?["items"], serde_json::json!([]), "no key");
    let key = house.gated(&[&import(&block)?[..], &scope].concat())?;
    assert_eq!(
        (&key["usage"], &key["exportability"], &key["state"]),
        (&"P0".into(), &"N".into(), &"active".into())
    );
    assert!(key["kcv"].as_str().unwrap_or_default().starts_with(&kcv(KEY)?), "{key}");
    house.refused("ann", &["key", "export", "pin", "--kek", "zone"], "key-not-exportable")?;
    let taken = [&import(&block)?[..], &scope].concat();
    house.refused("ann", &taken, "key-name-taken")
}

/// Keys that are made here, exported so that `tr31 unwrap` opens them, and retired.
fn made_here(house: &House) -> Result<(), Failed> {
    let generate = ["key", "generate", "out", "--scope", "shared", "--usage", "D0", "--algorithm"];
    let rest = ["A", "--mode", "B", "--length", "16", "--exportability", "E"];
    let made = house.gated(&[&generate[..], &rest].concat())?;
    let exported = house.gated(&["key", "export", "out", "--kek", "zone"])?;
    let block = exported["block"].as_str().ok_or("no block")?;
    let unwrap = ["tr31", "unwrap", "--json", "--kbpk", &whole(), "--block", block];
    let opened = house.host.run(&unwrap)?.ok()?.json()?;
    let shown = opened["kcv"].as_str().unwrap_or_default();
    assert!(made["kcv"].as_str().unwrap_or_default().starts_with(shown), "{opened} {made}");

    let dukpt = ["key", "generate", "bdk", "--scope", "dukpt", "--usage", "B0", "--algorithm", "T"];
    let rest = ["--mode", "X", "--length", "16", "--ksn-base", "FFFF987654"];
    let made = house.gated(&[&dukpt[..], &rest].concat())?;
    assert_eq!(
        (&made["ksn"]["base"], &made["ksn"]["left"]),
        (&"FFFF987654".into(), &(1 << 19).into())
    );
    let retired = house.gated(&["key", "retire", "out"])?;
    assert_eq!(retired["state"], "retired");
    house.refused("ann", &["key", "retire", "out"], "key-retired")?;
    let listed = house.done("bob", &["key", "list"])?;
    let mut states: Vec<_> = listed["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| Some((key["name"].as_str()?, key["state"].as_str()?)))
        .collect();
    states.sort_unstable();
    assert_eq!(states, [("bdk", "active"), ("out", "retired"), ("pin", "active")]);
    house.gated(&["key", "kek", "retire", "zone"])?;
    let gone = house.done("ann", &["key", "kek", "show", "zone"])?;
    assert_eq!(gone["state"], "retired");
    let used = house.done("cyd", &["approval", "list", "--state", "used"])?;
    assert_eq!(used["items"].as_array().map(Vec::len), Some(7), "{used}");
    Ok(())
}

/// Neither component nor key stands in the log, the database or an answer, however much is logged.
fn a_component_is_nowhere_to_be_found() -> Result<(), Failed> {
    let house = House::new(&Database::Sqlite)?;
    house.gated(&BEGIN)?;
    house.enter("ann", "zone", 1)?.ok()?;
    // From stdin, as from a program that holds it.
    let mut piped = command();
    let (api, kcv) = (house.ports.api(), kcv(COMPONENTS[1])?);
    piped.args(["--json", "key", "kek", "component", "zone", "--number", "2", "--kcv", &kcv]);
    piped.args(["--component", "-", "--server", &api, "--ca", "ca.pem"]);
    piped.args(["--token-file", "bob.token"]).current_dir(house.host.path(""));
    let (process, mut stdin) = Process::start_with_stdin(piped)?;
    stdin.write_all(COMPONENTS[1].to_lowercase().as_bytes())?;
    drop(stdin);
    let entered = process.finish()?.ok()?;
    let last = house.enter("cyd", "zone", 3)?.ok()?;
    let shown = house.run("ann", &["key", "kek", "show", "zone"])?.ok()?;
    let mut places = vec![entered.stdout, last.stdout, last.stderr, shown.stdout];
    house.server.as_ref().ok_or("no server")?.terminate()?;
    places.push(fs::read_to_string(house.host.path("log1"))?);
    assert!(places.last().is_some_and(|log| log.contains("/v1/keks/{id}/components")), "no log");
    let whole = whole();
    for secret in COMPONENTS.iter().copied().chain([whole.as_str()]) {
        for place in &places {
            assert!(!place.to_uppercase().contains(secret), "{place}");
        }
        for file in ["store.sqlite", "store.sqlite-wal"] {
            let stored = fs::read(house.host.data().join(file)).unwrap_or_default();
            let raw = bytes(secret);
            assert!(!stored.windows(raw.len()).any(|window| window == raw), "{file}");
            let text = String::from_utf8_lossy(&stored).to_uppercase();
            assert!(!text.contains(secret), "{file}");
        }
    }
    Ok(())
}

fn key_commands_name_wrong_words() -> Result<(), Failed> {
    let house = House::new(&Database::Sqlite)?;
    let words = ["key", "kek", "component", "zone", "--number", "1", "--kcv", "000000"];
    let given = house.run("ann", &[&words[..], &["--component", COMPONENTS[0]]].concat())?;
    assert_eq!(given.json()?["error"]["check"], "component-on-command-line");
    assert_eq!(given.code, 2);
    assert!(!given.stdout.contains(COMPONENTS[0]) && !given.stderr.contains(COMPONENTS[0]));
    fs::write(house.host.path("odd"), "ABC")?;
    let odd = house.run("ann", &[&words[..], &["--component", "@odd"]].concat())?;
    assert_eq!((odd.code, &odd.json()?["error"]["check"]), (2, &"component".into()));
    house.refused("ann", &["key", "show", "nothing"], "not-found")?;
    house.refused("ann", &["key", "kek", "show", "kek_0"], "not-found")?;
    house.refused("ann", &["approval", "show", "apr_0"], "not-found")?;
    let console = house.run("ann", &["approval", "list", "--state", "open"])?;
    assert_eq!(console.code, 2);
    let plain = ["key", "generate", "k", "--scope", "shared", "--usage", "K0", "--algorithm", "A"];
    let text = [&plain[..], &["--mode", "D", "--length", "16"]].concat();
    let (api, token) = (house.ports.api(), ["--ca", "ca.pem", "--token-file", "ann.token"]);
    let asked = house.host.run(&[&text[..], &["--server", &api], &token].concat())?.ok()?;
    let id = house.asked(&text)?;
    assert!(
        asked.stdout.contains(&format!("countersign approval approve {id}")),
        "{}",
        asked.stdout
    );
    assert!(asked.stdout.contains(&format!("--approval {id}")), "{}", asked.stdout);
    Ok(())
}
