use std::path::{Path, PathBuf};

use libtest_mimic::Failed;
use serde_json::Value;

use crate::host::{Database, Host, Ports, reader_words};

/// The flow of the README: `serve`, `emulator sam` and `device reader` as processes of their own.
pub(crate) fn three_processes_read_a_card(database: &Database) -> Result<(), Failed> {
    let host = Host::new()?;
    let ports = Ports::pick()?;
    host.init(database)?;
    let sam = host.sam()?;
    let server = host.serve_logged(&ports, "serve.log")?;
    host.enroll(&ports, "RD-1")?;
    host.enroll(&ports, "RD-1")?; // again, as after a break-off: the same certificate

    let gateway = ports.gateway();
    let mut personal = Vec::new();
    for document in ["citizen", "foreigner2017", "foreigner2023", "residencePermit"] {
        let card = format!("emulated:{document}");
        let words = reader_words(&gateway, &card, "2");
        let read = host.run(&words)?.ok()?.json()?;
        let [first, second] = read["reads"].as_array().map_or(&[][..], Vec::as_slice) else {
            return Err(format!("not two reads: {read}").into());
        };
        assert_eq!(first["record"]["documentType"], document);
        assert_eq!(first["record"], second["record"]);
        personal.extend(personal_words(&first["record"])?);
        assert_eq!(first["photoBytes"], 1024);
        assert_eq!(first["source"], "server");
        // The plaintext cache is off by default: the second read asks the server again.
        assert_eq!(second["source"], "serverFromCache");
    }

    let api = host.api(&ports)?;
    let readers: Value = api.get("/v1/readers")?;
    assert_eq!(readers["items"].as_array().map(Vec::len), Some(1));
    let reads: Value = api.get("/v1/reads")?;
    let reads = reads["items"].as_array().ok_or("no reads")?;
    assert_eq!(reads.len(), 8);
    for read in reads {
        assert_eq!(read["state"], "done");
        assert_eq!(read["readerId"], readers["items"][0]["id"]);
        expect_without(&personal, "the API's answer", read.to_string().as_bytes())?;
    }
    let health: Value = api.get("/v1/health")?;
    assert_eq!(health["status"], "ok");
    let backend = if matches!(database, Database::Sqlite) { "sqlite" } else { "postgresql" };
    assert_eq!(health["store"]["backend"], backend);

    // A blocked reader is refused by name; the incident leads the operator to the check.
    let id = reads[0]["readerId"].as_str().ok_or("no id")?;
    let body = serde_json::json!({ "reason": "reported stolen" });
    let _blocked: Value = api.post(&format!("/v1/readers/{id}/block"), &body)?;
    let words = reader_words(&gateway, "emulated:citizen", "1");
    let refused = host.run(&words)?;
    assert_eq!(refused.code, 1);
    let error = refused.json()?["error"].clone();
    assert_eq!(error["check"], "reader-blocked");
    let detail = error["detail"].as_str().unwrap_or_default();
    let incident = detail.split(['(', ')', ' ']).find(|word| word.starts_with("inc_"));
    let incident = incident.ok_or_else(|| format!("no incident in {detail:?}"))?;
    let shown = host.run(&["--json", "audit", "show", "--data", "data", incident])?.ok()?.json()?;
    assert_eq!(shown["items"][0]["check"], "reader-blocked");

    server.kill()?;
    sam.kill()?;
    nothing_personal_is_kept(&host, &personal)?; // before anything folds the write-ahead log in
    let verified = host.run(&["--json", "audit", "verify", "--data", "data"])?.ok()?.json()?;
    assert_eq!(verified["ok"], true);
    nothing_personal_is_kept(&host, &personal)
}

/// What of a record names or locates a person.
fn personal_words(record: &Value) -> Result<Vec<String>, Failed> {
    let fields = ["name", "chineseName", "englishName", "address", "idNumber", "number"];
    let words = fields.iter().filter_map(|field| record[*field].as_str());
    let words: Vec<String> = words.map(str::to_owned).collect();
    // All types have a name and a number; less would be a test that looks for nothing.
    if words.len() < 2 || words.iter().any(|word| word.chars().count() < 3) {
        return Err(format!("too little to look for in {record}").into());
    }
    Ok(words)
}

/// The ways in which text shows in files and logs: UTF-8, the card's UTF-16LE, and the latter as
/// bytes are printed in hexadecimal and as a list.
fn forms(word: &str) -> [Vec<u8>; 4] {
    let card: Vec<u8> = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let hex: String = card.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{card:?}");
    let list = list.trim_matches(['[', ']']);
    [word.into(), card.clone(), hex.into(), list.into()]
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let Some(&first) = wanted.first() else { return true };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == first) {
        if rest[at..].starts_with(wanted) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

fn expect_without(personal: &[String], what: &str, bytes: &[u8]) -> Result<(), Failed> {
    for word in personal {
        if forms(word).iter().any(|form| contains(bytes, form)) {
            return Err(format!("{what} has {word:?} of a card").into());
        }
    }
    Ok(())
}

/// The server was killed: what it held in files, the write-ahead log among them, is as it was.
fn nothing_personal_is_kept(host: &Host, personal: &[String]) -> Result<(), Failed> {
    // That the search finds what is there, in each form.
    for form in personal.iter().flat_map(|word| forms(word)) {
        let sample = [b"before ", &form[..], b" after"].concat();
        assert!(expect_without(personal, "a sample", &sample).is_err(), "the search is blind");
    }
    let log = std::fs::read(host.path("serve.log"))?;
    assert!(contains(&log, b"\"TRACE\"") && contains(&log, b"inc_"), "a log of everything");
    expect_without(personal, "the log", &log)?;
    let mut files = files_below(&host.data())?;
    files.extend(files_below(&host.path("RD-1"))?);
    let store = host.data().join("store.sqlite");
    if store.exists() {
        let wal = host.data().join("store.sqlite-wal");
        let stored = [std::fs::read(&store)?, std::fs::read(&wal).unwrap_or_default()].concat();
        assert!(contains(&stored, b"RD-1"), "what is stored is found");
    }
    for file in files {
        expect_without(personal, &file.display().to_string(), &std::fs::read(&file)?)?;
    }
    Ok(())
}

fn files_below(dir: &Path) -> Result<Vec<PathBuf>, Failed> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
