//! Project automation. `cargo xtask ci` is the whole CI; a machine and a person run the same.
//!
//! One module per group of steps; `ci` orders them, `tidy` holds the rules no other tool checks.
#![forbid(unsafe_code)]

mod child;
mod ci;
mod demo;
mod deny;
mod fuzz;
mod lints;
mod models;
mod nostd;
mod packages;
mod parts;
mod soak;
mod tests_run;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project automation for Countersign.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything the CI checks. The last line counts the tests.
    ///
    /// Example: cargo xtask ci --only tidy,fmt
    Ci {
        /// Only these steps, in the usual order.
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<ci::Step>,
    },
    /// Known vulnerabilities in dependencies: needs the network, so it is no part of `ci`.
    ///
    /// Example: cargo xtask deny-advisories
    DenyAdvisories,
    /// Fuzzes with cargo-fuzz under a nightly compiler: one target, or each in turn. Ends with 3
    /// where they are not installed.
    ///
    /// Example: cargo xtask fuzz sam_frames --seconds 300
    Fuzz {
        /// A name from `fuzz/fuzz_targets`; all, if left out.
        target: Option<String>,
        /// For how long, each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Runs a flow for a long time with trouble on every side, drawn from a seed: nothing may be
    /// lost, mixed up or grow.
    ///
    /// Example: cargo xtask soak read --minutes 10 --seed 1
    Soak {
        /// Which flow.
        #[arg(value_enum)]
        flow: soak::Flow,
        /// For how long.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1440))]
        minutes: u64,
        /// What the trouble is drawn from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().task {
        Task::Ci { only } => ci::run(&only),
        Task::DenyAdvisories => deny::advisories(),
        Task::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Task::Soak { flow, minutes, seed } => soak::run(flow, minutes, seed),
    }
}
