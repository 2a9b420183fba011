//! Reads one after the other, reads that are kept, and exports.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::cache::{Stage, reads};
use crate::host::{Ended, wait_for};

const CITIZEN: [&str; 2] = ["--card", "emulated:citizen"];
const EXPORT: [&str; 4] = ["reads", "export", "--device", "RD-1"];

impl Stage {
    fn export(&self, more: &[&str]) -> Result<Ended, Failed> {
        self.host.run(&[&EXPORT[..], more].concat())
    }

    fn of_server<'a>(&self, api: &'a str, more: &[&'a str]) -> Result<Ended, Failed> {
        let client = ["--server", api, "--ca", "ca.pem", "--token-file", "admin.token"];
        self.host.run(&[&["reads", "export"][..], &client, more].concat())
    }

    /// Blocks the reader RD-1, or lets it go on.
    fn block(&self, block: bool) -> Result<(), Failed> {
        let api = self.host.api(&self.ports)?;
        let readers: Value = api.get("/v1/readers")?;
        let id = readers["items"][0]["id"].as_str().ok_or("no reader")?;
        let (verb, body) = if block {
            ("block", json!({ "reason": "reported stolen" }))
        } else {
            ("unblock", json!({}))
        };
        let _reader: Value = api.post(&format!("/v1/readers/{id}/{verb}"), &body)?;
        Ok(())
    }

    fn until_done(&self, count: usize) -> Result<(), Failed> {
        wait_for(&format!("{count} reads"), || {
            let page: Value = self.host.api(&self.ports)?.get("/v1/reads")?;
            let items = page["items"].as_array().map_or(&[][..], Vec::as_slice);
            let done = items.iter().filter(|read| read["state"] == "done").count();
            Ok((done >= count).then_some(()))
        })
    }
}

fn lines(text: &str) -> Result<Vec<Value>, Failed> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// What was read before a failure is told with it.
fn a_failed_read_ends_the_batch_and_the_others_are_told() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    let words = [&CITIZEN[..], &["--reads", "3", "--pause", "1.5", "--keep"]].concat();
    let reader = stage.reading(&words)?;
    stage.until_done(1)?;
    stage.block(true)?;
    let ended = reader.finish()?;
    assert_eq!(ended.code, 1);
    let told = ended.json()?;
    assert_eq!(told["error"]["check"], "reader-blocked");
    assert_eq!((reads(&told)?.len(), &told["done"], &told["failed"]), (1, &json!(1), &json!(1)));
    assert_eq!(told["reads"][0]["kept"], 1);
    // As text: the read on stdout, the error on stderr.
    stage.block(false)?;
    let gateway = stage.ports.gateway();
    let words = ["device", "reader", "--device", "RD-1", "--gateway", &gateway];
    let text = stage.host.run(&[&words[..], &CITIZEN, &["--reads", "2"]].concat())?.ok()?;
    assert!(text.stdout.contains("Read 2: "), "{}", text.stdout);
    let summary = "2 reads done: 1 from the card, 1 from kept packets, 0 from the cache alone; \
                   0 failed\n";
    assert!(text.stdout.ends_with(summary), "{}", text.stdout);
    assert_eq!(text.stderr, "", "no progress where nobody looks at it");
    Ok(())
}

fn a_batch_that_keeps_going_counts_its_failures() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    stage.block(true)?;
    let words = [&CITIZEN[..], &["--until-stopped", "--keep-going", "--pause", "0.1"]].concat();
    let reader = stage.reading(&words)?;
    wait_for("a refusal", || Ok(stage.log()?.contains("[reader-blocked]").then_some(())))?;
    stage.block(false)?;
    stage.until_done(2)?;
    reader.terminate()?;
    let ended = reader.finish()?;
    assert_eq!(ended.code, 1, "some failed: {}", ended.stdout);
    let told = ended.json()?;
    let count = |name: &str| told[name].as_u64().unwrap_or_default();
    assert!(count("failed") >= 1 && count("done") >= 2, "{told}");
    assert_eq!(reads(&told)?.len() as u64, count("done"));
    let failures = told["failures"].as_array().ok_or("no failures")?;
    assert_eq!(failures.len() as u64, count("failed"));
    assert!(failures.iter().all(|failure| failure["error"]["check"] == "reader-blocked"));
    assert!(told.get("error").is_none());
    Ok(())
}

/// Kept, exported masked and not, damaged, erased.
fn kept_reads_are_exported() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    assert_eq!(stage.export(&[])?.ok()?.stdout, "", "nothing is kept yet");
    let cards = ["citizen", "foreigner2017", "foreigner2023", "residencePermit"];
    let cards: Vec<_> = cards.iter().map(|card| format!("emulated:{card}")).collect();
    let mut words: Vec<_> = cards.iter().flat_map(|card| ["--card", card]).collect();
    words.push("--keep");
    let told = stage.read(&words)?.ok()?.json()?;
    let kept: Vec<_> = reads(&told)?.iter().map(|read| read["kept"].clone()).collect();
    assert_eq!(kept, [1, 2, 3, 4]);

    let masked = stage.export(&[])?.ok()?.stdout;
    let rows = lines(&masked)?;
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[0]["entry"], &rows[0]["source"]), (&json!(1), &json!("server")));
    let record = &rows[0]["record"];
    assert_eq!(record["idNumber"], "0****************".to_owned() + &last(&told, 0, "idNumber")?);
    assert_eq!((&record["name"], &record["birth"]), (&json!("样**"), &json!("2000-**-**")));
    assert_eq!(record["address"], "虚构省样本市**");
    let unmasked = stage.export(&["--unmasked"])?.ok()?.stdout;
    for (row, read) in lines(&unmasked)?.iter().zip(reads(&told)?) {
        assert_eq!(row["record"], read["record"]);
        assert_eq!(row["photo"].as_str().map(str::len), Some(2048));
        // Not one word of a person is left in the masked rows.
        for field in ["name", "chineseName", "englishName", "idNumber", "number", "passNumber"] {
            let Some(word) = read["record"][field].as_str() else { continue };
            assert!(unmasked.contains(word) && !masked.contains(word), "{field}");
        }
    }
    let csv = stage.export(&["--format", "csv"])?.ok()?.stdout;
    let (head, body) = csv.split_once('\n').ok_or("no line")?;
    assert!(head.starts_with("entry,at,source,documentType,name,"), "{head}");
    assert_eq!(body.lines().count(), 4);
    assert!(body.contains(",female,汉,01,,2000-**-**,虚构省样本市**,"), "{body}");
    assert!(body.contains(",citizen,样**,") && !csv.contains("photo,"), "{body}");
    assert_eq!(stage.export(&["--since", "2100-01-01T00:00:00Z"])?.ok()?.stdout, "");

    // To a file: new, private, and one JSON value on stdout.
    let to_file = ["--json", "reads", "export", "--device", "RD-1", "--output", "out.jsonl"];
    let told = stage.host.run(&to_file)?.ok()?.json()?;
    assert_eq!(told, json!({"exported": 4, "output": "out.jsonl"}));
    let out = stage.host.path("out.jsonl");
    assert_eq!(fs::metadata(&out)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(&out)?, masked);
    let again = stage.host.run(&to_file)?;
    assert_eq!((again.code, again.json()?["error"]["check"].clone()), (3, json!("file")));
    assert_eq!(fs::read_to_string(&out)?, masked, "nothing is overwritten");
    damaged_and_erased(&stage, &masked)
}

fn last(told: &Value, at: usize, field: &str) -> Result<String, Failed> {
    let text = told["reads"][at]["record"][field].as_str().ok_or("no such field")?;
    Ok(text.chars().last().ok_or("empty")?.to_string())
}

fn damaged_and_erased(stage: &Stage, masked: &str) -> Result<(), Failed> {
    let entries = stage.host.path("RD-1/reads/entries");
    let whole = fs::read(&entries)?;
    let len = whole.len() / 4;
    let mut damaged = whole.clone();
    damaged[len + len / 2] ^= 1;
    fs::write(&entries, &damaged)?;
    let ended = stage.export(&[])?;
    assert_eq!(ended.code, 1);
    let others: Vec<_> = masked.lines().enumerate().filter(|(at, _)| *at != 1).collect();
    let others: Vec<_> = others.into_iter().map(|(_, line)| line).collect();
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), others);
    assert!(ended.stderr.contains("kept read 2 [reads-damaged]"), "{}", ended.stderr);
    let words = ["--json", "reads", "export", "--device", "RD-1", "--output", "rest.jsonl"];
    let told = stage.host.run(&words)?;
    assert_eq!(told.code, 1);
    let told = told.json()?;
    assert_eq!((&told["exported"], &told["damaged"]), (&json!(3), &json!([2])));
    assert_eq!(told["error"]["check"], "reads-damaged");
    // A program that died while it kept a read: said, and no failure.
    fs::write(&entries, [&whole[..], &whole[..len - 1]].concat())?;
    let ended = stage.export(&[])?.ok()?;
    assert_eq!(ended.stdout, masked);
    assert!(ended.stderr.contains("cut off"), "{}", ended.stderr);
    let kept = stage.read(&[&CITIZEN[..], &["--keep"]].concat())?.ok()?;
    assert!(kept.stderr.contains("had cut off was dropped"), "{}", kept.stderr);
    assert_eq!(kept.json()?["reads"][0]["kept"], 5);
    // Without its key nothing opens, and nothing is written over it.
    let key = stage.host.path("RD-1/reads/key");
    let stored = fs::read(&key)?;
    fs::remove_file(&key)?;
    for words in [&EXPORT[..], &["--json", "reads", "export", "--device", "RD-1"]] {
        assert_ne!(stage.host.run(words)?.code, 0);
    }
    let lost = stage.export(&["--output", "none"])?;
    assert!(lost.code == 1 && lost.stderr.contains("[reads-key]"), "{}", lost.stderr);
    assert!(!stage.host.path("none").exists());
    let refused = stage.read(&[&CITIZEN[..], &["--keep"]].concat())?;
    assert_eq!((refused.code, refused.json()?["error"]["check"].clone()), (1, json!("reads-key")));
    fs::write(&key, stored)?;
    assert_eq!(stage.export(&[])?.ok()?.stdout.lines().count(), 5);

    let erase = ["--json", "reads", "erase", "--device", "RD-1"];
    assert_eq!(stage.host.run(&erase)?.ok()?.json()?, json!({"erased": 5}));
    assert!(!key.exists() && !entries.exists());
    assert_eq!(stage.host.run(&erase)?.ok()?.json()?, json!({"erased": 0}));
    assert_eq!(stage.export(&[])?.ok()?.stdout, "");
    for noun in ["export", "erase"] {
        let absent = stage.host.run(&["reads", noun, "--device", "nowhere"])?;
        assert!(absent.code == 1 && absent.stderr.contains("[device-not-ours]"), "{noun}");
    }
    Ok(())
}

/// What a server knows of reads, all pages of it.
fn a_servers_reads_are_exported() -> Result<(), Failed> {
    let stage = Stage::new(false)?;
    let many = "205"; // more than a page
    stage.read(&[&CITIZEN[..], &["--reads", many]].concat())?.ok()?;
    let api = stage.ports.api();
    let rows = lines(&stage.of_server(&api, &[])?.ok()?.stdout)?;
    assert_eq!(rows.len(), 205);
    assert!(rows.iter().all(|row| row["state"] == "done" && row["documentType"] == "citizen"));
    let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| row["id"].as_str()).collect();
    assert_eq!(ids.len(), 205, "each once");

    let csv = stage.of_server(&api, &["--format", "csv"])?.ok()?.stdout;
    assert!(csv.starts_with("id,readerId,clientReadId,state,failedCheck,"), "{csv}");
    assert_eq!(csv.lines().count(), 206);
    let reader = rows[0]["readerId"].as_str().ok_or("no reader")?;
    let since = rows[9]["startedAt"].as_str().ok_or("no time")?;
    let later = stage.of_server(&api, &["--reader", reader, "--since", since])?.ok()?.stdout;
    assert_eq!(later, stage.of_server(&api, &["--since", since])?.ok()?.stdout);
    assert!((10..205).contains(&later.lines().count()), "{}", later.lines().count());
    assert_eq!(stage.of_server(&api, &["--since", "2100-01-01T00:00:00Z"])?.ok()?.stdout, "");
    let other = stage.of_server(&api, &["--reader", "rdr_another", "--output", "none"])?;
    assert_eq!((other.code, other.stdout.as_str()), (0, "0 reads written to none\n"));

    // Wrong words and surroundings.
    let usage = |words: &[&str]| {
        let ended = stage.host.run(words)?;
        assert_eq!(ended.code, 2, "{words:?}: {}", ended.stderr);
        Ok::<_, Failed>(())
    };
    usage(&["reads", "export"])?;
    usage(&["reads", "export", "--device", "RD-1", "--reader", "rdr_1"])?;
    usage(&["reads", "export", "--unmasked", "--server", &api])?;
    usage(&["reads", "export", "--device", "RD-1", "--since", "yesterday"])?;
    usage(&["--json", "reads", "export", "--device", "RD-1"])?;
    let nobody = stage.of_server("https://127.0.0.1:1", &["--output", "never"])?;
    assert!(nobody.code == 3 && nobody.stderr.contains("[server-unreachable]"));
    let odd = stage.of_server(&api, &["--reader", "a&limit=1", "--output", "never"])?;
    assert!(odd.code == 1 && odd.stderr.contains("[reader-id]"), "{}", odd.stderr);
    assert!(!stage.host.path("never").exists());
    Ok(())
}

/// A test of this file by its name.
type Named = (&'static str, fn() -> Result<(), Failed>);

pub(crate) const TRIALS: [Named; 4] = [
    (
        "a_failed_read_ends_the_batch_and_the_others_are_told",
        a_failed_read_ends_the_batch_and_the_others_are_told,
    ),
    ("a_batch_that_keeps_going_counts_its_failures", a_batch_that_keeps_going_counts_its_failures),
    ("kept_reads_are_exported", kept_reads_are_exported),
    ("a_servers_reads_are_exported", a_servers_reads_are_exported),
];
