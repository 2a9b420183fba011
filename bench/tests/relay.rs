//! `bench relay --json` as the CI runs it: little of everything, without optimisation. What it
//! measures then means nothing; that it measures everything does.

use std::process::Command;

use serde_json::Value;

/// Name, what it stands beside, and whether a target judges it.
type Expected = (String, Option<&'static str>, bool);

/// What is measured over each link: what it is called, what is added, and what they stand beside.
const EXCHANGES: [[&str; 3]; 2] = [
    ["an APDU", "added to an APDU", "the card and the link alone"],
    ["PC/SC to PC/SC", "added to a PC/SC exchange", "one PC/SC exchange and the link alone"],
];

const OTHERS: [(&str, Option<&str>, bool); 13] = [
    ("memory of one at the server, idle sleeves: 120", Some("8 KiB"), true),
    ("meetings at the end, idle sleeves: 120", Some("sleeves"), true),
    ("heartbeats lost, idle sleeves: 120", None, false),
    ("heartbeats answered per second, idle sleeves: 120", None, false),
    ("heartbeat answered after, median, idle sleeves: 120", Some("sleeves: 30"), false),
    ("heartbeat answered after, p99, idle sleeves: 120", Some("sleeves: 30"), false),
    ("heartbeat answered after, longest, idle sleeves: 120", Some("sleeves: 30"), false),
    ("a normal login", None, false),
    ("a login with the alarm password", Some("a normal login"), false),
    ("a login with the wrong password", Some("a normal login"), false),
    ("largest |t|, normal and alarm logins", Some("dudect's threshold"), true),
    ("largest |t|, normal and wrong logins", Some("dudect's threshold"), false),
    ("largest |t|, alarm and wrong logins", Some("dudect's threshold"), false),
];

fn expected() -> Vec<Expected> {
    // The others need real PC/SC services; all features are on where the CI runs.
    let exchanges = &EXCHANGES[..if cfg!(feature = "pcsc") { 2 } else { 1 }];
    let mut rows = Vec::new();
    for [whole, added, alone] in exchanges {
        for link in ["0", "20", "100"] {
            for way in ["on the LAN", "through the relay"] {
                rows.push((format!("{whole} {way}, link of {link} ms"), Some(*alone), false));
                rows.push((format!("{added} {way}, link of {link} ms"), Some("1 ms"), true));
            }
        }
    }
    rows.extend(OTHERS.map(|(name, peer, judged)| (name.to_owned(), peer, judged)));
    rows
}

#[test]
fn a_run_measures_every_row() {
    let bench = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["relay", "--json", "--rounds", "2", "--logins", "2"])
        .args(["--sleeves", "120", "--every", "1"])
        .output()
        .expect("bench");
    assert!(bench.status.success(), "{}", String::from_utf8_lossy(&bench.stderr));
    // Standard output is one JSON value and nothing else.
    let report: Value = serde_json::from_slice(&bench.stdout).unwrap();
    assert_eq!(report["bench"], "relay");
    let rows = report["rows"].as_array().expect("rows");
    let expected = expected();
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
    for (row, (name, peer, judged)) in rows.iter().zip(expected) {
        assert_eq!((row["name"].as_str(), row["peer"].as_str()), (Some(&*name), peer));
        assert!(row["ours"].as_f64().is_some_and(f64::is_finite), "{row}");
        assert_eq!(row["target"].is_number(), judged, "{row}");
        // Nothing is lost, whatever the machine does.
        match name.split(',').next() {
            Some("meetings at the end") => assert_eq!(row["ours"], 120.0),
            Some("heartbeats lost") => assert_eq!(row["ours"], 0.0),
            Some("heartbeats answered per second") => assert!(row["ours"].as_f64() > Some(0.0)),
            _ => {}
        }
    }
}
