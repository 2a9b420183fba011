//! `bench payments --json` as the CI runs it: one round of short slices, without optimisation. What
//! it measures then means nothing; that it measures everything does, and that every payment of
//! every slice was executed once, for which the bench itself looks.

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use testkit::parts::{Postgres, require};

/// Name, what it stands beside, and whether a target judges it.
const ROWS: [(&str, &str, bool); 9] = [
    ("payments per second, clients: 8", "pgbench, statements", true),
    ("payments per second, clients: 8", "pgbench, pipeline", false),
    ("payments per second, clients: 32", "pgbench, statements", true),
    ("payments per second, clients: 32", "pgbench, pipeline", false),
    ("payments to one account per second, clients: 8", "pgbench, statements", true),
    ("payments to one account per second, clients: 8", "pgbench, pipeline", false),
    ("payments to one account per second, clients: 32", "pgbench, statements", true),
    ("payments to one account per second, clients: 32", "pgbench, pipeline", false),
    ("payments per second, clients: 64", "one client, so one commit for each payment", true),
];

fn a_run_measures_every_row() -> Result<(), Failed> {
    let bench = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["payments", "--json", "--rounds", "1", "--slice", "50"])
        .output()?;
    if !bench.status.success() {
        return Err(String::from_utf8_lossy(&bench.stderr).into_owned().into());
    }
    // Standard output is one JSON value and nothing else.
    let report: Value = serde_json::from_slice(&bench.stdout)?;
    assert_eq!(report["bench"], "payments");
    let rows = report["rows"].as_array().ok_or("no rows")?;
    assert_eq!(rows.len(), ROWS.len(), "{rows:#?}");
    for (row, (name, peer, judged)) in rows.iter().zip(ROWS) {
        assert_eq!((row["name"].as_str(), row["peer"].as_str()), (Some(name), Some(peer)));
        let spread = [&row["spread"][0], &row["ratio"], &row["spread"][1]];
        let [low, ratio, high] = spread.map(|figure| figure.as_f64().unwrap_or(f64::NAN));
        assert!(0.0 < low && low <= ratio && ratio <= high && high.is_finite(), "{row}");
        assert_eq!(row["target"].is_number(), judged, "{row}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // The bench starts a server of its own; this one only tells whether it can.
    let postgres = require(Postgres::start());
    let run: Trial = postgres.trial("a_run_measures_every_row", |_| a_run_measures_every_row());
    let conclusion = libtest_mimic::run(&arguments, vec![run]);
    drop(postgres);
    conclusion.exit_code()
}
