//! `countersign tr31` as people run it: published blocks, what it refuses, and that no key is
//! printed unasked.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use libtest_mimic::Failed;
use serde_json::Value;

use crate::Alone;
use crate::host::{Ended, Host, command};

pub(crate) const TRIALS: [(&str, Alone); 6] = [
    ("tr31_opens_published_blocks", opens_published_blocks),
    ("tr31_wraps_what_it_unwraps", wraps_what_it_unwraps),
    ("tr31_prints_no_key_unasked", prints_no_key_unasked),
    ("tr31_refuses_altered_blocks", refuses_altered_blocks),
    ("tr31_refuses_unfit_keys", refuses_unfit_keys),
    ("tr31_names_wrong_words", names_wrong_words),
];

/// A payShield sample of version B and its keys.
const KBPK: &str = "EFE0853B256B583D868F251CE99EA1D9";
const KEY: &str = "5DB50B454F8389ADCE573BE50861F2BF";
const BLOCK: &str =
    "B0080K0TN00N00001C414014375212C24995E405B5EE052CB92B67F455EA2680F6751088F9F1C228";
/// An AES-256 protection key.
const AES_KBPK: &str = "88E1AB2A2E3DD38C1FA039A536500CC8A87AB9D62DC92C01058FA79F44657DE6";
const AES_KEY: &str = "3F419E1CB7079442AA37474C2EFBF8B8";

/// `tr31 VERB` with these words and `--json`.
fn tr31(host: &Host, verb: &str, words: &[&str]) -> Result<Ended, Failed> {
    host.run(&[&["tr31", verb, "--json"], words].concat())
}

fn unwrap(host: &Host, kbpk: &str, block: &str, more: &[&str]) -> Result<Ended, Failed> {
    tr31(host, "unwrap", &[&["--kbpk", kbpk, "--block", block], more].concat())
}

/// A PIN encryption key in a block of this version.
fn wrap(
    host: &Host,
    version: &str,
    kbpk: &str,
    algorithm: &str,
    key: &str,
    more: &[&str],
) -> Result<Ended, Failed> {
    let words = [
        "--version",
        version,
        "--kbpk",
        kbpk,
        "--usage",
        "P0",
        "--algorithm",
        algorithm,
        "--mode",
        "E",
        "--exportability",
        "N",
        "--key",
        key,
    ];
    tr31(host, "wrap", &[&words, more].concat())
}

fn block(ended: Ended) -> Result<String, Failed> {
    let said = ended.ok()?.json()?;
    Ok(said["block"].as_str().ok_or("no block")?.to_owned())
}

/// Exit code 1, this check, a sentence; and nothing of a key.
fn refused(ended: &Ended, check: &str) -> Result<(), Failed> {
    let said = format!("{} {} {}", ended.code, ended.stdout, ended.stderr);
    assert_eq!(ended.code, 1, "{said}");
    let error = &ended.json()?["error"];
    assert_eq!(error["check"], check, "{said}");
    assert!(error["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{said}");
    Ok(())
}

fn opens_published_blocks() -> Result<(), Failed> {
    let host = Host::new()?;
    let said = unwrap(&host, KBPK, BLOCK, &["--show-key"])?.ok()?.json()?;
    for (name, value) in [
        ("version", "B"),
        ("usage", "K0"),
        ("algorithm", "T"),
        ("mode", "N"),
        ("keyVersion", "00"),
        ("exportability", "N"),
        ("keyContext", "0"),
        ("key", KEY),
        ("kcv", "5C9405"),
    ] {
        assert_eq!(said[name], value, "{name}: {said}");
    }
    assert_eq!((&said["length"], &said["keyLength"]), (&80.into(), &16.into()));
    assert_eq!(said["leniencies"], serde_json::json!(["no-length-obfuscation"]));
    refused(&unwrap(&host, KBPK, BLOCK, &["--strict"])?, "length-obfuscation")?;
    let allowed = ["--strict", "--lenient", "no-length-obfuscation"];
    unwrap(&host, KBPK, BLOCK, &allowed)?.ok()?;

    let block = "D0112P0AE00E0000B82679114F470F540165EDFBF7E250FCEA43F810D215F8D207E2E417C07156A27\
                 E8E31DA05F7425509593D03A457DC34";
    let said = unwrap(&host, AES_KBPK, block, &["--show-key"])?.ok()?.json()?;
    assert_eq!((&said["key"], &said["kcv"]), (&AES_KEY.into(), &"08793E25AB".into()));
    let said = tr31(&host, "inspect", &["--block", block])?.ok()?.json()?;
    assert_eq!((&said["version"], &said["payloadLength"]), (&"D".into(), &32.into()));
    let text = host.run(&["tr31", "inspect", "--block", block])?.ok()?.stdout;
    assert!(
        text.contains("usage: P0 (PIN encryption)\n") && text.contains("macLength: 16\n"),
        "{text}"
    );
    Ok(())
}

fn wraps_what_it_unwraps() -> Result<(), Failed> {
    let host = Host::new()?;
    fs::write(host.path("kbpk"), format!("{KBPK}\n"))?;
    for version in ["A", "B", "C", "D", "E"] {
        let optional = ["--opt", "KC", "--opt", "KP", "--opt", "LB=till 7", "--key-version", "12"];
        let block = block(wrap(&host, version, "@kbpk", "T", KEY, &optional)?)?;
        assert!(block.starts_with(&format!("{version}{:04}", block.len())), "{block}");
        let said = unwrap(&host, "@kbpk", &block, &["--strict", "--show-key"])?.ok()?.json()?;
        assert_eq!((&said["key"], &said["keyVersion"]), (&KEY.into(), &"12".into()));
        let blocks = said["optionalBlocks"].as_array().ok_or("no blocks")?;
        let data = |id: &str| blocks.iter().find(|block| block["id"] == id).map(|b| &b["data"]);
        assert_eq!(data("KC"), Some(&Value::from("005C9405")));
        assert_eq!(data("LB"), Some(&Value::from("till 7")));
    }
    // The key over stdin, the block over stdin.
    let words = [
        "tr31",
        "wrap",
        "--json",
        "--version",
        "D",
        "--kbpk",
        AES_KBPK,
        "--usage",
        "P0",
        "--algorithm",
        "A",
        "--mode",
        "E",
        "--exportability",
        "N",
        "--key",
        "-",
    ];
    let said: Value = serde_json::from_str(&with_stdin(&words, AES_KEY)?)?;
    let block = said["block"].as_str().ok_or("no block")?;
    let words = ["tr31", "unwrap", "--json", "--kbpk", AES_KBPK, "--block", "-", "--show-key"];
    let said: Value = serde_json::from_str(&with_stdin(&words, &format!("{block}\n"))?)?;
    assert_eq!(said["key"], AES_KEY);
    Ok(())
}

fn with_stdin(words: &[&str], input: &str) -> Result<String, Failed> {
    let mut child = command().args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("stdin is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8(output.stdout)?)
}

fn prints_no_key_unasked() -> Result<(), Failed> {
    let host = Host::new()?;
    let json = unwrap(&host, KBPK, BLOCK, &[])?.ok()?;
    let text = host.run(&["tr31", "unwrap", "--kbpk", KBPK, "--block", BLOCK])?.ok()?;
    let wrong = unwrap(&host, AES_KBPK, BLOCK, &["--show-key"])?;
    let weak = wrap(&host, "B", KBPK, "T", &"5DB50B454F8389AD".repeat(2), &[])?;
    let odd = wrap(&host, "B", KBPK, "T", &KEY[1..], &[])?;
    let wrapped = wrap(&host, "B", KBPK, "T", KEY, &[])?;
    for ended in [json, text, wrong, weak, odd, wrapped] {
        let said = format!("{}{}", ended.stdout, ended.stderr);
        for part in [&KEY[..8], &KEY[24..], &KBPK[..8], &AES_KBPK[..8]] {
            assert!(!said.to_uppercase().contains(part), "{said}");
        }
    }
    assert_eq!(unwrap(&host, KBPK, BLOCK, &[])?.ok()?.json()?["key"], Value::Null);
    Ok(())
}

fn refuses_altered_blocks() -> Result<(), Failed> {
    let host = Host::new()?;
    let wrong = KBPK.replacen("EF", "01", 1);
    refused(&unwrap(&host, &wrong, BLOCK, &["--show-key"])?, "mac")?;
    for (from, to, check) in [
        ("K0TN", "P0TE", "mac"),
        ("N0000", "E0000", "mac"),
        ("1C41", "1C42", "mac"),
        ("C228", "C229", "mac"),
        ("B0080", "B0081", "block-length"),
        ("B0080", "B0072", "block-length"),
        ("B0080", "Z0080", "version"),
        ("B0080", "00080", "version"),
        ("C228", "C22G", "hex"),
        ("C228", "C2", "block-length"),
        ("N0000", "N0100", "optional-block-length"),
    ] {
        refused(&unwrap(&host, KBPK, &BLOCK.replacen(from, to, 1), &[])?, check)?;
    }
    refused(&unwrap(&host, KBPK, "", &[])?, "block-length")?;
    refused(&tr31(&host, "inspect", &["--block", &BLOCK[..70]])?, "block-length")?;

    let unknown = ["--opt", "ZZ=data", "--lenient", "unknown-optional-block"];
    refused(&wrap(&host, "D", AES_KBPK, "A", AES_KEY, &unknown[..2])?, "unknown-optional-block")?;
    let block = block(wrap(&host, "D", AES_KBPK, "A", AES_KEY, &unknown)?)?;
    refused(&unwrap(&host, AES_KBPK, &block, &[])?, "unknown-optional-block")?;
    let said = unwrap(&host, AES_KBPK, &block, &unknown[2..])?.ok()?.json()?;
    assert_eq!(said["optionalBlocks"][0], serde_json::json!({"id": "ZZ", "data": "data"}));
    assert_eq!(said["leniencies"], serde_json::json!(["unknown-optional-block"]));
    Ok(())
}

fn refuses_unfit_keys() -> Result<(), Failed> {
    let host = Host::new()?;
    let (weak, even) = ("01FE01FE01FE01FE5DB50B454F8389AD", "5CB50B454F8389ADCE573BE50861F2BF");
    let halves = "5DB50B454F8389AD".repeat(2);
    for (key, check) in [
        (weak, "des-weak-key"),
        (even, "des-parity"),
        (&halves, "des-equal-halves"),
        (&KEY[..16], "single-des"),
        (&KEY[..30], "key-length"),
    ] {
        refused(&wrap(&host, "B", KBPK, "T", key, &[])?, check)?;
    }
    for (kbpk, check) in [
        (weak, "kbpk-des-weak-key"),
        (even, "kbpk-des-parity"),
        (&halves, "kbpk-des-equal-halves"),
        (&KEY[..16], "kbpk-length"),
        (AES_KBPK, "kbpk-length"),
    ] {
        refused(&wrap(&host, "B", kbpk, "T", KEY, &[])?, check)?;
    }
    // Read where a person sees that it departed, refused where nothing may.
    let block = block(wrap(&host, "B", KBPK, "T", even, &["--lenient", "des-parity"])?)?;
    let said = unwrap(&host, KBPK, &block, &[])?.ok()?.json()?;
    assert_eq!(said["leniencies"], serde_json::json!(["des-parity"]));
    refused(&unwrap(&host, KBPK, &block, &["--strict"])?, "des-parity")?;

    let three = "260892192061C8760BDF235E1619B057B334FED0EFA74F32";
    refused(&wrap(&host, "B", KBPK, "T", three, &[])?, "wrapping-key-weaker")?;
    refused(&wrap(&host, "D", AES_KEY, "A", AES_KBPK, &[])?, "wrapping-key-weaker")?;
    let lenient = ["--lenient", "weaker-wrapping-key"];
    let weaker = self::block(wrap(&host, "D", AES_KEY, "A", AES_KBPK, &lenient)?)?;
    refused(&unwrap(&host, AES_KEY, &weaker, &[])?, "wrapping-key-weaker")?;
    refused(&wrap(&host, "D", AES_KBPK, "H", KEY, &[])?, "usage-algorithm")?;
    refused(&wrap(&host, "Q", AES_KBPK, "A", AES_KEY, &[])?, "version")?;
    Ok(())
}

fn names_wrong_words() -> Result<(), Failed> {
    let host = Host::new()?;
    fs::write(host.path("long"), "A".repeat(70_000))?;
    fs::write(host.path("binary"), [0xFF; 16])?;
    for (kbpk, block, more, code, check) in [
        ("XYZ", BLOCK, vec![], 2, "kbpk"),
        ("ABC", BLOCK, vec![], 2, "kbpk"),
        ("", BLOCK, vec![], 2, "kbpk"),
        ("-", "-", vec![], 2, "stdin"),
        (KBPK, "@long", vec![], 2, "value-length"),
        ("@binary", BLOCK, vec![], 2, "value-text"),
        ("@nowhere", BLOCK, vec![], 3, "file"),
        (KBPK, BLOCK, vec!["--lenient", "everything"], 2, "lenient"),
    ] {
        let ended = unwrap(&host, kbpk, block, &more)?;
        let said = format!("{} {}", ended.stdout, ended.stderr);
        assert_eq!(ended.code, code, "{said}");
        assert_eq!(ended.json()?["error"]["check"], check, "{said}");
    }
    let ended = wrap(&host, "DD", AES_KBPK, "A", AES_KEY, &[])?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (2, &"version".into()));
    let ended = wrap(&host, "D", AES_KBPK, "A", AES_KEY, &["--opt", "LABEL"])?;
    assert_eq!((ended.code, &ended.json()?["error"]["check"]), (2, &"opt".into()));
    Ok(())
}
