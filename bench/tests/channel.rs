//! `bench channel --json` as the CI runs it: few rounds, without optimisation. What it measures
//! then means nothing; that it measures everything does.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const MODES: [&str; 5] = ["C1", "C2", "A1", "A2", "A3"];
/// Those that begin with a challenge.
const CHALLENGED: [&str; 4] = ["C1", "C2", "A2", "A3"];
const MTLS: &str = "rustls mTLS, whole handshake";
const HELLO: &str = "rustls mTLS, ClientHello answered";
const IMPOSTOR: &str = "rustls mTLS, client's signature refused";
const NOISE: &str = "snow XX-25519 as it ships";
const NOISE_AWS_LC: &str = "snow XX-25519 on AWS-LC's X25519";

/// Name of a row and its peer.
type Row = (String, Option<&'static str>);

/// Every row that a run must have; the flag tells those that a target judges.
fn expected() -> Vec<(Row, bool)> {
    let mut rows = Vec::new();
    let mut add = |name: String, peers: &[(&'static str, bool)]| {
        rows.extend(peers.iter().map(|(peer, judged)| ((name.clone(), Some(*peer)), *judged)));
    };
    for mode in MODES {
        let cached = [(MTLS, true), (NOISE_AWS_LC, true), (NOISE, true)];
        add(format!("accept, {mode}, certificate cached"), &cached);
        add(format!("accept, {mode}, certificate not cached"), &[(MTLS, true)]);
        let suites =
            [("our P-256 suite in pure Rust", false), ("our P-256 suite on AWS-LC", false)];
        add(format!("accept, {mode}, suite SM2_SM4GCM_SM3"), &suites);
        let rate = format!("handshakes per second and core, {mode}");
        add(format!("{rate}, certificate cached"), &[(MTLS, false), (NOISE, false)]);
        let wire = [("rustls mTLS", false), ("snow XX-25519, which has no certificates", false)];
        add(format!("bytes of a handshake, {mode}"), &wire);
        add(format!("round trips before the client's data, {mode}"), &wire);
        let sm2 = format!("bytes of a handshake, {mode}, suite SM2_SM4GCM_SM3");
        add(sm2, &[("our P-256 suite", false)]);
    }
    for mode in CHALLENGED {
        for what in ["forged", "replayed", "stale"] {
            let name = format!("refuse a {what} challenge, {mode}");
            add(format!("{name}: M2 alone"), &[(HELLO, true), (IMPOSTOR, false)]);
            add(format!("{name}: M0, then M2"), &[(HELLO, false), (IMPOSTOR, false)]);
        }
        let limited = format!("refuse a source over its limit, {mode}: M2 alone");
        add(limited, &[(HELLO, false), (IMPOSTOR, false)]);
        for (state, judged) in [("cached", true), ("not cached", false)] {
            let name = format!("refuse a bad signature, {mode}, certificate {state}");
            add(name, &[(MTLS, judged), (HELLO, false), (IMPOSTOR, false)]);
        }
    }
    let refused = [(HELLO, false), (IMPOSTOR, false)];
    add("refuse outside the pairing window, A1".to_owned(), &refused);
    for mode in ["A2", "A3"] {
        for who in ["that is in no list", "with another factor"] {
            add(format!("refuse a sleeve {who}, {mode}"), &refused);
        }
    }
    for name in ["C1", "C2", "C1, suite SM2_SM4GCM_SM3", "A1", "A2", "A3"] {
        let tls = ("rustls ServerConnection", false);
        let idle = format!("memory of an idle channel, {name}");
        add(idle, &[tls, ("snow TransportState", false)]);
        let half = format!("memory of a half-open contact, {name}");
        add(half, &[tls, ("snow HandshakeState", false)]);
    }
    for len in ["1 KiB", "16 KiB"] {
        let name = format!("seal and open a record of {len}");
        add(name.clone(), &[("rustls TLS 1.3 records, AES-128-GCM", false)]);
        for kind in ["MAC only", "datagrams", "SM4-GCM", "a new key for each"] {
            let ours = ("our stream records, AES-128-GCM", false);
            add(format!("{name}, {kind}"), &[ours]);
        }
    }
    for mode in MODES {
        let name = format!("handshakes per second and core, {mode}, suite SM2_SM4GCM_SM3");
        rows.push(((name, None), false));
    }
    rows
}

fn run(arguments: &[&str]) -> String {
    let bench = Command::new(env!("CARGO_BIN_EXE_bench")).args(arguments).output().expect("bench");
    let errors = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "{errors}");
    String::from_utf8(bench.stdout).expect("text")
}

/// A figure that was measured.
fn figure(value: &Value) -> f64 {
    let figure = value.as_f64().unwrap_or(f64::NAN); // JSON has no NaN: null
    assert!(figure.is_finite() && figure > 0.0, "{value} is no measurement");
    figure
}

#[test]
fn a_run_measures_every_row_and_judges_every_target() {
    // Standard output is one JSON value and nothing else.
    let report: Value =
        serde_json::from_str(&run(&["channel", "--json", "--rounds", "2"])).unwrap();
    assert_eq!(report["bench"], "channel");
    let rows = report["rows"].as_array().expect("rows");
    let name_of = |row: &Value| (row["name"].to_string(), row["peer"].to_string());
    for ((name, peer), judged) in expected() {
        let is = |row: &&Value| row["name"] == *name && row["peer"].as_str() == peer;
        let [row] = rows.iter().filter(is).collect::<Vec<_>>()[..] else {
            panic!("one row `{name}` against {peer:?} among {:#?}", rows.iter().map(name_of));
        };
        let ours = figure(&row["ours"]);
        if peer.is_some() {
            let ratio = ours / figure(&row["theirs"]);
            assert!((figure(&row["ratio"]) / ratio - 1.0).abs() < 1e-3, "{row}");
        }
        if judged {
            let target = figure(&row["target"]);
            assert_eq!(row["met"], Value::from(figure(&row["ratio"]) <= target), "{row}");
        } else {
            assert!(row["target"].is_null() && row["met"].is_null(), "{row}");
        }
    }
    let names: BTreeSet<_> = rows.iter().map(name_of).collect();
    assert_eq!(
        (names.len(), rows.len()),
        (expected().len(), expected().len()),
        "rows twice or new"
    );
}

#[test]
fn all_benches_are_listed() {
    let list: Value = serde_json::from_str(&run(&["list", "--json"])).unwrap();
    let names: Vec<_> =
        list["benches"].as_array().expect("benches").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["channel", "read", "inject", "payments", "relay"]);
}
