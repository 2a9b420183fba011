//! C5 through the programs: rules over readers, decisions, their reversal, and the record.

use std::process::Command;

use countersign_crypto::aws_lc;
use countersign_device::{DeviceDir, Reader};
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, Scheme, sample};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::DocumentType;
use countersign_server::ambient;
use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Ended, Host, Ports, reader_words, wait_for};

/// Warns after two errors, blocks after four.
const RULES: &str = r#"
[[rule]]
name = "look-at-it"
count = "errors"
at_least = 2
within = "1h"
action = "warn"
for = "1h"

[[rule]]
name = "bad-cards"
count = "errors"
check = "card-authentication"
at_least = 4
within = "1h"
action = "block"
"#;

/// Slows a reader that is fast for a person.
const FLOOD: &str = r#"
[[rule]]
name = "flood"
count = "reads"
at_least = 10
within = "1m"
action = "throttle"
pause = "1s"
for = "10m"
"#;

/// Any sign of a second device is enough.
const ONE_CERTIFICATE: &str = r#"
[[rule]]
name = "two-devices"
count = "concurrent"
at_least = 1
within = "10m"
action = "block"
"#;

/// `countersign reader …` with the client's words.
fn reader(host: &Host, ports: &Ports, words: &[&str]) -> Result<Ended, Failed> {
    let api = ports.api();
    let client = ["--server", &*api, "--ca", "ca.pem", "--token-file", "admin.token"];
    host.run(&[&["--json", "reader"], words, &client].concat())
}

fn decisions(host: &Host, ports: &Ports) -> Result<Vec<Value>, Failed> {
    let listed = reader(host, ports, &["decisions", "RD-1"])?.ok()?.json()?;
    Ok(listed["items"].as_array().cloned().unwrap_or_default())
}

/// The reader `RD-1` of this machine with a card that answers the SAM wrongly, or rightly.
struct Bench {
    runtime: tokio::runtime::Runtime,
    reader: Reader,
    card: CardHandle,
}

impl Bench {
    fn new(host: &Host, ports: &Ports) -> Result<Self, Failed> {
        let ambient = ambient();
        let dir = DeviceDir::open(&host.path("RD-1"))?;
        let config = dir.reader_config(&dir.provider(), ambient.clock.now())?;
        let scheme = || Scheme::with_demo_key(aws_lc::provider());
        let (link, card) = EmulatedCard::new(scheme(), (ambient.rng)());
        let document = sample(DocumentType::Citizen);
        let image = CardImage::new(&scheme(), &mut *(ambient.rng)(), 1, &document, None, None)?;
        card.insert(image.into());
        let rng = Box::new(move || (ambient.rng)());
        let reader = Reader::new(config, ports.gateway(), Box::new(link), ambient.clock, rng);
        Ok(Self { runtime: tokio::runtime::Runtime::new()?, reader, card })
    }

    /// Reads; the failed check, if there is one.
    fn read(&mut self, good: bool) -> Option<String> {
        self.card.set_wrong_answers(!good);
        let read = self.runtime.block_on(self.reader.read(ReadOptions::default()));
        read.err().map(|error| error.check().to_owned())
    }
}

/// A reader with a bad card errs until a rule warns and another blocks; a reversal lets it read
/// again; the record has all of it.
pub(crate) fn a_bad_card_is_warned_of_and_blocked(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(database)?;
    std::fs::write(host.path("data/risk.toml"), RULES)?;
    let _sam = host.sam()?;
    let server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let mut bench = Bench::new(&host, &ports)?;

    assert_eq!(bench.read(false).as_deref(), Some("authentication"));
    assert!(decisions(&host, &ports)?.is_empty());
    assert_eq!(bench.read(false).as_deref(), Some("authentication"));
    let warned = decisions(&host, &ports)?;
    assert_eq!((warned.len(), &warned[0]["action"]), (1, &"warn".into()));
    assert_eq!(bench.read(false).as_deref(), Some("authentication"), "a warning refuses nobody");
    assert_eq!(bench.read(false).as_deref(), Some("authentication"));
    let blocked = decisions(&host, &ports)?;
    let block = blocked.iter().find(|d| d["action"] == "block").ok_or("no block")?;
    assert_eq!((&block["rule"], &block["counted"]), (&"bad-cards".into(), &4.into()));
    assert_eq!(bench.read(true).as_deref(), Some("reader-blocked"), "with a good card too");
    let shown = reader(&host, &ports, &["show", "RD-1"])?.ok()?.json()?;
    assert_eq!(shown["reader"]["status"], "blocked");
    assert_eq!(shown["totals"]["errors"]["authentication"], 4);
    assert_eq!(shown["standing"].as_array().map(Vec::len), Some(2));

    // An operator's unblock is not the reversal of a rule's decision, and the other way round.
    reader(&host, &ports, &["unblock", "RD-1"])?.ok()?;
    assert_eq!(bench.read(true).as_deref(), Some("reader-blocked"));
    let id = block["id"].as_str().ok_or("no id")?;
    reader(&host, &ports, &["reverse", "RD-1", id, "--reason", "cards changed"])?.ok()?;
    assert_eq!(bench.read(true), None, "it reads again, at once");
    let again = reader(&host, &ports, &["reverse", "RD-1", id, "--reason", "twice"])?;
    assert_eq!((again.code, &again.json()?["error"]["check"]), (1, &"decision-ended".into()));

    // The decisions outlive the server, and the audit has them.
    server.kill()?;
    let _server = host.serve(&ports)?;
    let kept = decisions(&host, &ports)?;
    let ended = kept.iter().find(|decision| decision["id"] == id).ok_or("it is gone")?;
    assert_eq!(
        (&ended["stands"], &ended["end"]["reason"]),
        (&false.into(), &"cards changed".into())
    );
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true);
    Ok(())
}

/// What people and back offices tell of a reader.
pub(crate) fn a_readers_record_is_kept() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let gateway = ports.gateway();
    host.run(&reader_words(&gateway, "emulated:citizen", "2"))?.ok()?;
    let run = |words: &[&str]| reader(&host, &ports, words);
    let listed = run(&["list"])?.ok()?.json()?;
    let id = listed["items"][0]["id"].as_str().ok_or("no reader")?.to_owned();
    run(&["factory", "RD-1", "--maker", "Acme", "--batch", "42", "--made-on", "2026-01-31"])?
        .ok()?;
    let report = ["--kind", "broken-seal", "--text", "torn", "--reference", "T-1"];
    let first = run(&[&["report", "RD-1"], &report[..]].concat())?.ok()?.json()?;
    let again = run(&[&["report", &*id], &report[..]].concat())?.ok()?.json()?;
    assert_eq!(first, again, "by its id, and once only");
    let other = ["report", "RD-1", "--kind", "noise", "--text", "hums", "--reference", "T-1"];
    let refused = run(&other)?;
    assert_eq!((refused.code, &refused.json()?["error"]["check"]), (1, &"reference-taken".into()));
    let told = ["--reference", "P-1", "--amount", "12.34", "--currency", "CNY"];
    run(&[&["transaction", "RD-1", "--outcome", "paid"], &told[..]].concat())?.ok()?;
    let shown = run(&["show", "RD-1"])?.ok()?.json()?;
    assert_eq!(shown["factory"]["maker"], "Acme");
    let totals = &shown["totals"];
    assert_eq!((&totals["reads"], &totals["done"]), (&2.into(), &2.into()));
    assert_eq!(totals["reports"]["broken-seal"], 1);
    assert_eq!(totals["transactions"]["paid"], 1);
    assert_eq!(shown["certificates"].as_array().map(Vec::len), Some(1));
    assert_eq!(shown["standing"][0]["rule"], "reported", "the rules that init writes are on");
    let missing = run(&["show", "RD-9"])?;
    assert_eq!((missing.code, &missing.json()?["error"]["check"]), (1, &"not-found".into()));
    run(&["revoke", "RD-1", "--reason", "key lost"])?.ok()?;
    let shown = run(&["show", "RD-1"])?.ok()?.json()?;
    assert_eq!(shown["certificates"][0]["revokeReason"], "key lost");
    Ok(())
}

/// Two devices present one certificate: the copy of a device's directory shows.
pub(crate) fn one_certificate_twice_is_noticed() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    std::fs::write(host.path("data/risk.toml"), ONE_CERTIFICATE)?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let gateway = ports.gateway();
    host.run(&reader_words(&gateway, "emulated:citizen", "20"))?.ok()?;
    assert!(decisions(&host, &ports)?.is_empty(), "one device, one read after the other");
    let mut copy = Command::new("cp");
    assert!(copy.args(["-a", "RD-1", "copy"]).current_dir(host.path(".")).status()?.success());
    let mut twin = reader_words(&gateway, "emulated:citizen", "200");
    let original = host.spawn(&twin)?;
    let at = twin.iter().position(|word| *word == "RD-1").ok_or("no device")?;
    twin[at] = "copy";
    let copied = host.spawn(&twin)?;
    let (one, two) = (original.finish()?, copied.finish()?);
    let decisions = decisions(&host, &ports)?;
    assert_eq!((decisions.len(), &decisions[0]["rule"]), (1, &"two-devices".into()));
    let reason = decisions[0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("a second device with its certificate"), "{reason}");
    // Neither can be told from the other: both are refused.
    for ended in [one, two] {
        assert_eq!((ended.code, &ended.json()?["error"]["check"]), (1, &"reader-blocked".into()));
    }
    Ok(())
}

/// A reader that reads as fast as it can is slowed, and loses no read.
pub(crate) fn a_flood_is_slowed() -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(&Database::Sqlite)?;
    std::fs::write(host.path("data/risk.toml"), FLOOD)?;
    let _sam = host.sam()?;
    let _server = host.serve(&ports)?;
    host.enroll(&ports, "RD-1")?;
    let gateway = ports.gateway();
    let clock = ambient().clock;
    let begun = clock.now();
    let read = host.run(&reader_words(&gateway, "emulated:citizen", "12"))?.ok()?.json()?;
    let took = clock.now().since(begun);
    assert!(took >= std::time::Duration::from_secs(2), "two of them had to wait");
    let reads = read["reads"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 12);
    let tries = |read: &Value| read["attempts"].as_u64().unwrap_or_default();
    assert!(tries(&reads[0]) == 1 && tries(&reads[11]) > 1, "told to try again: {read}");
    let decisions = decisions(&host, &ports)?;
    assert_eq!((decisions.len(), &decisions[0]["action"]), (1, &"throttle".into()));
    assert_eq!(decisions[0]["pause"], "1s");
    let id = decisions[0]["id"].as_str().ok_or("no id")?;
    reader(&host, &ports, &["reverse", "RD-1", id, "--reason", "a test"])?.ok()?;
    let read = host.run(&reader_words(&gateway, "emulated:citizen", "3"))?.ok()?.json()?;
    let reads = read["reads"].as_array().ok_or("no reads")?;
    assert!(reads.iter().all(|read| tries(read) == 1), "lifted: {read}");
    Ok(())
}

/// Rules that do not fit stop `serve` before it touches anything.
pub(crate) fn wrong_rules_are_refused() -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(&Database::Sqlite)?;
    let rules = ["--json", "reader", "rules", "--data", "data"];
    let good = host.run(&rules)?.ok()?.json()?;
    assert!(good["rules"].as_array().is_some_and(|rules| rules.len() >= 5), "{good}");
    let text = std::fs::read_to_string(host.path("data/risk.toml"))?;
    let line = text.lines().position(|line| line == "within = \"1m\"").ok_or("no window")? + 1;
    let wrong = text.replacen("within = \"1m\"", "within = \"1 minute\"", 1);
    std::fs::write(host.path("data/risk.toml"), wrong)?;
    for words in [&rules[..], &["--json", "serve", "--data", "data"]] {
        let refused = host.run(words)?;
        let error = refused.json()?["error"].clone();
        assert_eq!((refused.code, &error["check"]), (1, &"risk-rules".into()), "{words:?}");
        let detail = error["detail"].as_str().unwrap_or_default();
        for word in ["risk.toml", &format!("line {line}:"), "\"flood\"", "within"] {
            assert!(detail.contains(word), "{word:?} is missing in {detail:?}");
        }
    }
    // What does not serve readers does not need them.
    host.run(&["operator", "list", "--data", "data"])?.ok()?;
    std::fs::write(host.path("data/risk.toml"), "")?;
    let none = host.run(&rules)?.ok()?.json()?;
    assert_eq!(none["rules"], serde_json::json!([]));
    std::fs::remove_file(host.path("data/risk.toml"))?;
    assert_eq!(host.run(&rules)?.ok()?.json()?, good, "without a file the initial rules hold");
    Ok(())
}

/// Several servers, one truth: what one's rule decides the other honours, and a reversal too.
pub(crate) fn a_reversal_holds_on_all_servers(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    host.init(database)?;
    std::fs::write(host.path("data/risk.toml"), RULES)?;
    let mut copy = Command::new("cp");
    assert!(copy.args(["-a", "data", "data-2"]).current_dir(host.path(".")).status()?.success());
    let (one, two) = (Ports::pick()?, Ports::pick()?);
    let (_sam_one, _sam_two) = (host.sam_at("sam")?, host.sam_at("sam-2")?);
    let _first = host.serve_on("data", "sam", &one)?;
    let _second = host.serve_on("data-2", "sam-2", &two)?;
    host.enroll(&one, "RD-1")?;
    let (mut here, mut there) = (Bench::new(&host, &one)?, Bench::new(&host, &two)?);
    // Errors at both servers add up.
    for number in 0..4 {
        let bench = if number % 2 == 0 { &mut here } else { &mut there };
        assert_eq!(bench.read(false).as_deref(), Some("authentication"));
    }
    assert_eq!(here.read(true).as_deref(), Some("reader-blocked"));
    assert_eq!(there.read(true).as_deref(), Some("reader-blocked"));
    let block = decisions(&host, &two)?.into_iter().find(|d| d["action"] == "block");
    let block = block.ok_or("no block")?;
    let id = block["id"].as_str().ok_or("no id")?;
    reader(&host, &one, &["reverse", "RD-1", id, "--reason", "cards changed"])?.ok()?;
    assert_eq!(there.read(true), None, "on the other server, at once");
    assert_eq!(here.read(true), None);
    wait_for("the audit's chain", || {
        let verify = ["--json", "audit", "verify", "--data", "data"];
        let report = host.run(&verify)?.json()?;
        assert_eq!(report["ok"], true, "{report}");
        Ok((report["unchained"] == 0).then_some(()))
    })
}
