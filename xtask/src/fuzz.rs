//! cargo-fuzz, where it and a nightly compiler are installed. The CI replays the corpus instead:
//! `fuzz/entry/tests/smoke.rs`, on stable.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::child::{root, run as run_child};

/// Exit code for "could not be run", as the product's own programs use it.
const ENVIRONMENT: u8 = 3;
/// Longest input, in bytes. Every frame and message of the protocols fits.
const INPUT_MAX: usize = 8192;
/// Longest time for one input, in seconds.
const INPUT_SECONDS: usize = 20;
/// Most memory that one allocation may ask for, in MiB: no length field reaches this.
const ALLOCATION_MAX: usize = 16;

/// Runs `target`, or each in turn, for `seconds`.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> ExitCode {
    if !is_installed() {
        println!(
            "fuzz: NOT RUN, this needs a nightly compiler and cargo-fuzz:\n  \
             rustup toolchain install nightly && cargo install cargo-fuzz --locked"
        );
        return ExitCode::from(ENVIRONMENT);
    }
    match run_chosen(target, seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_chosen(target: Option<&str>, seconds: u64) -> Result<()> {
    let all = targets(&root().join("fuzz/fuzz_targets"))?;
    let chosen: Vec<&String> =
        all.iter().filter(|name| target.is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("no such target; there are {}", all.join(", "));
    }
    // The versions that the product is built with; cargo adds what only the fuzzer needs.
    fs::copy(root().join("Cargo.lock"), root().join("fuzz/Cargo.lock")).context("Cargo.lock")?;
    let mut failed = Vec::new();
    for name in chosen {
        println!("\n== {name}");
        // What the fuzzer learns goes into the first folder, the seeds of the second stay.
        fs::create_dir_all(root().join(learned(name)))?;
        if let Err(error) = run_child(nightly().args(arguments(name, seconds))) {
            eprintln!("{error:#}");
            failed.push(name.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}; the inputs are in fuzz/artifacts", failed.join(", "));
    }
    Ok(())
}

fn learned(name: &str) -> String {
    format!("target/fuzz-corpus/{name}")
}

fn arguments(name: &str, seconds: u64) -> Vec<String> {
    let mut words: Vec<String> =
        ["fuzz", "run", "--target-dir", "target/fuzz", name].map(str::to_owned).to_vec();
    words.push(learned(name));
    words.push(format!("fuzz/corpus/{name}"));
    words.push("--".to_owned());
    words.push(format!("-max_total_time={seconds}"));
    words.push(format!("-max_len={INPUT_MAX}"));
    words.push(format!("-timeout={INPUT_SECONDS}"));
    words.push(format!("-malloc_limit_mb={ALLOCATION_MAX}"));
    words.push("-print_final_stats=1".to_owned());
    words
}

/// The nightly compiler's cargo. Only rustup chooses between compilers.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(root());
    command
}

fn is_installed() -> bool {
    let mut version = nightly();
    version.args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    version.status().is_ok_and(|status| status.success())
}

/// The names of the fuzz targets in `folder`, sorted.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).context("fuzz/fuzz_targets")? {
        let path = entry?.path();
        if let (Some("rs"), Some(name)) =
            (path.extension().and_then(|e| e.to_str()), path.file_stem().and_then(|s| s.to_str()))
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_built_by_the_package_and_has_seeds() {
        let folder = root().join("fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let mut built: Vec<&str> = manifest["bin"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bin| bin["name"].as_str().unwrap())
            .collect();
        built.sort_unstable();
        let targets = targets(&folder.join("fuzz_targets")).unwrap();
        assert_eq!(built, targets);
        for name in targets {
            let seeds = fs::read_dir(folder.join("corpus").join(&name)).unwrap().count();
            assert!(seeds > 0, "{name} has no seeds");
        }
    }

    #[test]
    fn what_is_learned_never_mixes_with_the_seeds() {
        let words = arguments("a", 7);
        let first = words.iter().position(|word| word == "target/fuzz-corpus/a").unwrap();
        assert_eq!(words[first + 1], "fuzz/corpus/a");
        assert!(words.contains(&"-max_total_time=7".to_owned()));
    }
}
