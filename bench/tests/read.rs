//! `bench read --json` as the CI runs it: few rounds, without optimisation. What it measures then
//! means nothing; that it measures everything does.

use std::process::Command;

use serde_json::Value;

/// Name, what it stands beside, and whether a target judges it.
const ROWS: [(&str, Option<&str>, bool); 18] = [
    ("first read, latency", None, false),
    ("first read, its handshake", Some("the whole first read"), false),
    ("second read, latency (C14)", Some("the first read"), false),
    (
        "first read, bytes on the wire",
        Some("configuration, encrypted files and plaintext alone"),
        false,
    ),
    ("first read, bytes on the wire", Some("the same messages over rustls mutual TLS 1.3"), false),
    ("second read, bytes on the wire (C14)", Some("the first read"), true),
    ("sent again, 1 % damaged", Some("what got lost: the least possible"), true),
    ("sent again, 1 % damaged", Some("sending all packets again"), false),
    ("sent again, 5 % damaged", Some("what got lost: the least possible"), true),
    ("sent again, 5 % damaged", Some("sending all packets again"), false),
    ("sent again, 20 % damaged", Some("what got lost: the least possible"), true),
    ("sent again, 20 % damaged", Some("sending all packets again"), false),
    ("one module alone, read after read", None, false),
    ("reads per second, modules: 1", Some("what the modules can do"), true),
    ("reads per second, modules: 4", Some("what the modules can do"), true),
    ("reads per second, modules: 16", Some("what the modules can do"), true),
    ("latency beside the module's own time, p50", Some("the module's own time"), false),
    ("latency beside the module's own time, p99", Some("the module's own time"), false),
];

#[test]
fn a_run_measures_every_row_and_resends_what_was_lost_and_no_more() {
    let bench = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["read", "--json", "--rounds", "2"])
        .output()
        .expect("bench");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    // Standard output is one JSON value and nothing else.
    let report: Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert_eq!(report["bench"], "read");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), ROWS.len(), "{rows:#?}");
    for (row, (name, peer, judged)) in rows.iter().zip(ROWS) {
        assert_eq!((row["name"].as_str(), row["peer"].as_str()), (Some(name), peer));
        assert!(row["ours"].as_f64().is_some_and(f64::is_finite), "{row}");
        assert_eq!(row["target"].is_number(), judged, "{row}");
        // Bytes are no matter of time: here the verdict counts in any build. With so few reads at
        // so little damage, perhaps nothing got lost at all.
        if name.starts_with("sent again") && judged && row["theirs"] != 0.0 {
            assert_eq!(row["met"], true, "{row}");
        }
    }
}
