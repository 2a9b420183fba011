//! The long runs: real programs, seeded trouble, for minutes. No part of `ci`.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use crate::child::{cargo, run as run_child};
use crate::workspace;

/// What can be soaked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flow {
    /// Reading ID cards (C).
    Read,
    /// Payments (D), in worlds drawn from seeds.
    Payments,
}

/// Runs a flow for `minutes`.
pub(crate) fn run(flow: Flow, minutes: u64, seed: u64) -> ExitCode {
    let soaked = match flow {
        Flow::Read => soak_reads(minutes, seed),
        Flow::Payments => soak_payments(minutes, seed),
    };
    match soaked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the program and lets `bench soak` run it.
fn soak_reads(minutes: u64, seed: u64) -> Result<()> {
    run_child(&mut cargo(&["build", "--release", "--package", "countersign-cli"]))?;
    let program = workspace::target_folder()?.join("release/countersign");
    let (seconds, seed) = ((minutes * 60).to_string(), seed.to_string());
    let mut soak = cargo(&["run", "--release", "--package", "bench", "--", "soak"]);
    soak.args(["--seconds", &seconds, "--seed", &seed, "--program"]).arg(program);
    run_child(&mut soak)
}

/// The simulation of `app/service/tests/simulation`, one world after the other.
fn soak_payments(minutes: u64, seed: u64) -> Result<()> {
    let mut soak = cargo(&["test", "--release", "--package", "countersign-service"]);
    soak.args(["--test", "simulation", "--", "--nocapture"]);
    soak.env("COUNTERSIGN_SOAK_SECONDS", (minutes * 60).to_string());
    soak.env("COUNTERSIGN_SOAK_SEED", seed.to_string());
    run_child(&mut soak)
}
