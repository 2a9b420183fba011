//! `bench`: measures this project side by side with its peers and prints ratios.
//!
//! Figures of one machine say little; ratios of one run, with the subjects taking turns, say more.
//! Nothing here is a test: a missed target is printed, not asserted.
#![forbid(unsafe_code)]

mod card_read;
mod channel;
mod inject;
mod measure;
mod party;
mod payments;
mod relay;
mod report;
mod soak;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::json;

use crate::report::Report;

/// What can go wrong in a bench: nobody matches on it, it ends the run.
type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measure, side by side with peers.
///
/// Example: cargo run --release -p bench -- channel
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Print one JSON value instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

/// How often the subjects take turns.
type Rounds = clap::builder::RangedU64ValueParser<usize>;

fn rounds() -> Rounds {
    Rounds::new().range(1..=channel::ROUNDS_MAX)
}

#[derive(Subcommand)]
enum Bench {
    /// The secure channel: handshakes, refusals, bytes, memory, records.
    Channel {
        /// How often the subjects take turns.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = rounds())]
        rounds: usize,
    },
    /// The ID-card read: latency, bytes on the wire.
    Read {
        /// How often a card is read.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = rounds())]
        rounds: usize,
    },
    /// Key injection: tokens, key blocks, beside the library's bare operations.
    Inject {
        /// How often the subjects take turns.
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = rounds())]
        rounds: usize,
    },
    /// Confirmed payments, beside pgbench on the same PostgreSQL, and group commit on SQLite.
    Payments {
        /// How often the sides take turns.
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = rounds())]
        rounds: usize,
        /// How long a side's turn is, in milliseconds.
        #[arg(long, value_name = "N", default_value_t = 1500,
              value_parser = clap::value_parser!(u64).range(1..=60_000))]
        slice: u64,
        /// Measure on this database only.
        #[arg(long, value_name = "DATABASE")]
        only: Option<payments::Database>,
    },
    /// Sleeves and managers: time added to an APDU, idle sleeves at the server, times of logins.
    Relay {
        /// APDUs per way and link.
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = rounds())]
        rounds: usize,
        /// Logins of each kind.
        #[arg(long, value_name = "N", default_value_t = 1000,
              value_parser = Rounds::new().range(2..=100_000))]
        logins: usize,
        /// Idle sleeves; 50000 is the full figure.
        #[arg(long, value_name = "N", default_value_t = 2000,
              value_parser = Rounds::new().range(4..=200_000))]
        sleeves: usize,
        /// How often each of them sends a heartbeat, in seconds.
        #[arg(long, value_name = "N", default_value_t = 5,
              value_parser = clap::value_parser!(u64).range(1..=600))]
        every: u64,
    },
    /// A process that `relay` starts.
    #[command(subcommand, hide = true)]
    RelayPart(relay::Part),
    /// Not a comparison: reads for a long time with trouble on every side. Exits with 1 if anything
    /// was lost, wrong or grew.
    Soak {
        /// The program to run: target/release/countersign.
        #[arg(long, value_name = "PATH")]
        program: PathBuf,
        /// For how long, in seconds.
        #[arg(long, value_name = "N", default_value_t = 600,
              value_parser = clap::value_parser!(u64).range(10..=86_400))]
        seconds: u64,
        /// What everything is drawn from.
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// How many readers there are.
        #[arg(long, value_name = "N", default_value_t = 8,
              value_parser = clap::value_parser!(u32).range(1..=64))]
        readers: u32,
    },
    /// Which benches there are.
    List,
}

const BENCHES: [(&str, &str); 5] = [
    ("channel", "the secure channel: handshakes, refusals, bytes, memory, records"),
    ("read", "the ID-card read: latency, bytes on the wire"),
    ("inject", "key injection: tokens, key blocks, beside the library's bare operations"),
    ("payments", "confirmed payments, beside pgbench on the same PostgreSQL; group commit"),
    ("relay", "sleeves and managers: time added to an APDU, idle sleeves, times of logins"),
];

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
    if cfg!(debug_assertions) && !matches!(arguments.bench, Bench::List | Bench::RelayPart(_)) {
        eprintln!("bench: built without --release, the figures mean nothing");
    }
    if let Bench::Soak { program, seconds, seed, readers } = arguments.bench {
        let plan = soak::Plan { program, time: Duration::from_secs(seconds), seed, readers };
        return soaked(&plan);
    }
    if let Bench::RelayPart(part) = arguments.bench {
        return match relay::run_part(part) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let print = |report: Report| {
        if arguments.json { report.to_json().to_string() } else { report.to_table() }
    };
    let text = match arguments.bench {
        Bench::List | Bench::Soak { .. } | Bench::RelayPart(_) => Ok(list(arguments.json)),
        Bench::Channel { rounds } => channel::report(rounds).map(print),
        Bench::Read { rounds } => card_read::report(rounds).map(print),
        Bench::Inject { rounds } => inject::report(rounds).map(print),
        Bench::Payments { rounds, slice, only } => {
            let plan = payments::Plan { rounds, slice: Duration::from_millis(slice), only };
            payments::report(plan).map(print)
        }
        Bench::Relay { rounds, logins, sleeves, every } => {
            let plan = relay::Plan { rounds, logins, sleeves, every: Duration::from_secs(every) };
            relay::report(plan).map(print)
        }
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

fn soaked(plan: &soak::Plan) -> ExitCode {
    let ended = soak::run(plan).and_then(|(ok, report)| {
        writeln!(io::stdout(), "{report:#}")?;
        Ok(ok)
    });
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
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
        assert!(Arguments::try_parse_from(["bench", "channel", "--rounds", "1000"]).is_ok());
        assert!(Arguments::try_parse_from(["bench", "inject", "--rounds", "0"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "inject", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["bench", "channel", "--rounds", "1001"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "payments", "--slice", "0"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "payments", "--only", "oracle"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "payments", "--json"]).is_ok());
        assert!(Arguments::try_parse_from(["bench", "relay", "--sleeves", "50000"]).is_ok());
        assert!(Arguments::try_parse_from(["bench", "relay", "--every", "0"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "relay", "--logins", "1"]).is_err());
        assert!(Arguments::try_parse_from(["bench", "nothing"]).is_err());
    }
}
