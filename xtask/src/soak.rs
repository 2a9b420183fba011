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
}

/// Builds the program and lets `bench soak` run it for `minutes`.
pub(crate) fn run(flow: Flow, minutes: u64, seed: u64) -> ExitCode {
    let Flow::Read = flow;
    match soak(minutes, seed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(minutes: u64, seed: u64) -> Result<()> {
    run_child(&mut cargo(&["build", "--release", "--package", "countersign-cli"]))?;
    let program = workspace::target_folder()?.join("release/countersign");
    let (seconds, seed) = ((minutes * 60).to_string(), seed.to_string());
    let mut soak = cargo(&["run", "--release", "--package", "bench", "--", "soak"]);
    soak.args(["--seconds", &seconds, "--seed", &seed, "--program"]).arg(program);
    run_child(&mut soak)
}
