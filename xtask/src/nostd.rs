//! The protocol crates for a processor without an operating system.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::child::{capture, cargo, run};
use crate::ci::Tests;

/// A Cortex-M4/M7 with an FPU, as secure elements and readers have them. It has no `std` at all,
/// so a crate that reaches for it does not compile.
const TARGET: &str = "thumbv7em-none-eabihf";
/// What a device's firmware is built from.
const CRATES: [&str; 9] = [
    "countersign-crypto",
    "countersign-pki",
    "countersign-channel",
    "countersign-idcard",
    "countersign-injection",
    "countersign-iso7816",
    "countersign-payment",
    "tr31",
    "tr34",
];

/// Checks each crate on its own, so that no feature which another one asks for hides anything.
/// Where the target cannot be installed the check is left out, and counted as skipped.
///
/// # Errors
/// If a crate does not compile; all are tried.
pub(crate) fn check() -> Result<Tests> {
    if let Some(reason) = absent() {
        println!("   LEFT OUT: {TARGET} is not installed and {reason}");
        return Ok(Tests { skipped: 1, ..Tests::default() });
    }
    let mut tests = Tests::default();
    for name in CRATES {
        if let Err(error) = run(&mut cargo(&arguments(name))) {
            eprintln!("{error:#}");
            tests.failed += 1;
        }
    }
    Ok(tests)
}

fn arguments(name: &str) -> [&str; 7] {
    ["check", "--package", name, "--lib", "--no-default-features", "--target", TARGET]
}

/// Why the target's libraries are not there; installs them if it can.
fn absent() -> Option<&'static str> {
    if is_installed() {
        return None;
    }
    let mut install = Command::new("rustup");
    match run(install.args(["target", "add", TARGET])) {
        _ if is_installed() => None,
        Ok(()) => Some("rustup serves another toolchain than the one that runs this"),
        Err(_) => Some("rustup is absent or cannot reach its server"),
    }
}

/// Whether the compiler finds the target's `core`, however it came there.
fn is_installed() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    capture(&mut rustc).is_ok_and(|folder| PathBuf::from(folder.trim()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_checked_alone_and_without_its_default_features() {
        for name in CRATES {
            let words = arguments(name).join(" ");
            assert_eq!(words.matches("--package").count(), 1, "{words}");
            assert!(words.contains("--no-default-features"), "{words}");
            assert!(words.contains("thumbv7em-none-eabihf"), "{words}");
        }
    }
}
