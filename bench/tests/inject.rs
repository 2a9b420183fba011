//! `bench inject --json` as the CI runs it: few rounds, without optimisation. What it measures then
//! means nothing; that it measures everything does.

use std::process::Command;

use serde_json::Value;

/// Name, what it stands beside, and whether a target judges it.
const ROWS: [(&str, Option<&str>, bool); 12] = [
    ("KT_KDH made per second and core, RSA-2048", Some("bare RSA-2048 signatures of AWS-LC"), true),
    (
        "KT_KDH checked and opened per second and core, RSA-2048",
        Some("bare RSA-2048 decryptions of AWS-LC"),
        false,
    ),
    ("bytes of a KT_KDH, RSA-2048", None, false),
    ("KT_KDH made per second and core, RSA-3072", Some("bare RSA-3072 signatures of AWS-LC"), true),
    (
        "KT_KDH checked and opened per second and core, RSA-3072",
        Some("bare RSA-3072 decryptions of AWS-LC"),
        false,
    ),
    ("bytes of a KT_KDH, RSA-3072", None, false),
    (
        "blocks of version D (AES-128) wrapped per second and core",
        Some("its 4 cipher calls alone"),
        false,
    ),
    (
        "blocks of version D (AES-128) unwrapped per second and core",
        Some("its 4 cipher calls alone"),
        false,
    ),
    (
        "blocks of version B (TDES, three parts) wrapped per second and core",
        Some("its 8 cipher calls alone"),
        false,
    ),
    (
        "blocks of version B (TDES, three parts) unwrapped per second and core",
        Some("its 8 cipher calls alone"),
        false,
    ),
    ("injections per second, one terminal", None, false),
    ("injections per second, terminals at once: 16", Some("one terminal"), false),
];

#[test]
fn a_run_measures_every_row() {
    let bench = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["inject", "--json", "--rounds", "2"])
        .output()
        .expect("bench");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    // Standard output is one JSON value and nothing else.
    let report: Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert_eq!(report["bench"], "inject");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), ROWS.len(), "{rows:#?}");
    for (row, (name, peer, judged)) in rows.iter().zip(ROWS) {
        assert_eq!((row["name"].as_str(), row["peer"].as_str()), (Some(name), peer));
        assert!(row["ours"].as_f64().is_some_and(|ours| ours.is_finite() && ours > 0.0), "{row}");
        assert_eq!(row["target"].is_number(), judged, "{row}");
    }
}
