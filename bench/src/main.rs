//! `bench`: measures this project side by side with its peers and prints ratios.
//!
//! Figures of one machine say little; ratios of one run, with the subjects taking turns, say more.
//! Nothing here is a test: a missed target is printed, not asserted.
#![forbid(unsafe_code)]

mod card_read;
mod handshake;
mod measure;
mod party;
mod records;
mod report;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::party::tree::Tree;
use crate::report::Report;

/// What can go wrong in a bench: nobody matches on it, it ends the run.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measure, side by side with peers.
///
/// Example: cargo run --release -p bench -- read
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Print one JSON value instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The ID-card read: latency, bytes on the wire, handshakes, refusals, records.
    Read {
        /// How often the subjects take turns.
        #[arg(long, value_name = "N", default_value_t = 100,
              value_parser = clap::value_parser!(u64).range(1..=handshake::ROUNDS_MAX))]
        rounds: u64,
    },
    /// Which benches there are.
    List,
}

const BENCHES: [(&str, &str); 1] =
    [("read", "the ID-card read: latency, bytes on the wire, handshakes, refusals, records")];

fn read(rounds: u64) -> Fallible<Report> {
    let rounds = usize::try_from(rounds)?;
    let tree = Tree::new()?;
    let mut rows = card_read::rows(&tree, rounds)?;
    rows.extend(handshake::rows(&tree, rounds)?);
    rows.extend(records::rows(&tree, rounds)?);
    let notes = [
        "Latency is wall time on loopback with an emulated SAM module behind a pty; no peer reads \
         such cards, so there is none. A first read waits for durable commits: what else writes to \
         the disk can move it tenfold, so compare latencies of a quiet machine only.",
        "CPU is the server's thread time, medians of interleaved rounds; P-256 keys, depth of \
         certificates and AWS-LC are the same on both sides of rustls' rows, without resumption. \
         Our directory look-up is in memory: no database is in these rows.",
        "A refusal's row is the whole contact: M0, M1, M2 and the alert.",
        "C1 costs one round trip more than TLS 1.3.",
    ];
    if cfg!(debug_assertions) {
        eprintln!("bench: built without --release, the figures mean nothing");
    }
    Ok(Report { bench: "read", rows, notes: notes.map(String::from).to_vec() })
}

fn list(json: bool) -> String {
    if json {
        let items: Vec<_> =
            BENCHES.iter().map(|(name, what)| json!({ "name": name, "what": what })).collect();
        return json!({ "benches": items }).to_string();
    }
    BENCHES.map(|(name, what)| format!("{name}  {what}")).join("\n")
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let text = match arguments.bench {
        Bench::List => Ok(list(arguments.json)),
        Bench::Read { rounds } => read(rounds).map(|report| {
            if arguments.json { report.to_json().to_string() } else { report.to_table() }
        }),
    };
    let printed = text.and_then(|text| Ok(writeln!(io::stdout(), "{text}")?));
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        assert!(Arguments::try_parse_from(["bench", "read", "--rounds", "0"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "read", "--rounds", "1001"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "read", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["bench", "nothing"]).is_err());
    }
}
