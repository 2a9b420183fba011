//! cargo-deny: licences, banned crates, sources; and, apart, advisories.

use std::process::{Command, ExitCode, Stdio};

use anyhow::Result;

use crate::child::{cargo, run};

/// The cargo-deny whose configuration `deny.toml` speaks.
const VERSION: &str = "^0.20";
/// Exit code for "could not be checked", as the product's own programs use it.
const ENVIRONMENT: u8 = 3;

/// Licences, bans and sources of all dependencies. Says nothing about advisories.
///
/// # Errors
/// If a check fails or cargo-deny cannot be installed.
pub(crate) fn check() -> Result<()> {
    install()?;
    run(&mut cargo(&[
        "deny",
        "--all-features",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]))
}

/// Known vulnerabilities. Success only if the database was there and nothing was found.
pub(crate) fn advisories() -> ExitCode {
    match check_advisories() {
        Ok(Verdict::Clean) => {
            println!("advisories: none found");
            ExitCode::SUCCESS
        }
        Ok(Verdict::Found) => {
            println!("advisories: FOUND, see above");
            ExitCode::FAILURE
        }
        Ok(Verdict::Unknown) => {
            println!("advisories: NOT CHECKED, the database could not be reached or read");
            ExitCode::from(ENVIRONMENT)
        }
        Err(error) => {
            eprintln!("advisories: NOT CHECKED, {error:#}");
            ExitCode::from(ENVIRONMENT)
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Clean,
    Found,
    Unknown,
}

fn check_advisories() -> Result<Verdict> {
    install()?;
    let output = cargo(&["deny", "--all-features", "check", "advisories"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    eprint!("{text}");
    Ok(verdict(output.status.success(), &text))
}

/// cargo-deny ends every completed check with its summary; without it nothing was checked.
fn verdict(success: bool, text: &str) -> Verdict {
    let completed =
        |word: &str| text.lines().any(|line| line.contains(&format!("advisories {word}")));
    match success {
        true if completed("ok") => Verdict::Clean,
        false if completed("FAILED") => Verdict::Found,
        _ => Verdict::Unknown,
    }
}

/// Takes minutes the first time, nothing afterwards.
fn install() -> Result<()> {
    let version = cargo(&["deny", "--version"]).stderr(Stdio::null()).output();
    if version.is_ok_and(|output| speaks(&String::from_utf8_lossy(&output.stdout))) {
        return Ok(());
    }
    println!("   cargo-deny {VERSION} is absent; installing it takes some minutes");
    let mut install: Command = cargo(&["install", "cargo-deny", "--locked", "--version", VERSION]);
    run(install.args(["--target-dir", "target/tools"]))
}

/// Whether the output of `cargo deny --version` is of [`VERSION`].
fn speaks(version: &str) -> bool {
    let wanted = VERSION.trim_start_matches('^');
    let found = version.trim().strip_prefix("cargo-deny ").unwrap_or_default();
    found.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_completed_check_is_a_verdict() {
        assert_eq!(verdict(true, "warning: x\nadvisories ok\n"), Verdict::Clean);
        assert_eq!(verdict(false, "error: y\nadvisories FAILED\n"), Verdict::Found);
        let unreachable = "[ERROR] failed to fetch advisory database: could not resolve host";
        assert_eq!(verdict(false, unreachable), Verdict::Unknown);
        assert_eq!(verdict(true, ""), Verdict::Unknown, "silence is no pass");
    }

    #[test]
    fn only_the_version_of_the_configuration_will_do() {
        assert!(speaks("cargo-deny 0.20.2\n"));
        for other in ["cargo-deny 0.18.1\n", "cargo-deny 0.200.1", "0.20.2", ""] {
            assert!(!speaks(other), "{other}");
        }
    }
}
