//! All tests, counted.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::child::{cargo, root, stream};
use crate::ci::Tests;

/// Names the folder of published vectors for the tests that read it.
const VECTORS: &str = "COUNTERSIGN_VECTORS";
/// How many lines of each test program's failures are said again at the end.
const SAID_AGAIN: usize = 60;

/// Runs every test of the workspace; absent real parts are failures here. Tests that pass are
/// counted and not shown; what failed is said once more at the end, where it is looked for.
///
/// # Errors
/// If cargo cannot be run, no test is found, or it fails without a failed test (a crate that does
/// not compile, a test program that crashes).
pub(crate) fn run() -> Result<Tests> {
    let mut sum = Tests::default();
    let mut command = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    if let Some(folder) = vectors(&root()) {
        command.env(VECTORS, folder);
    }
    // Many tests panic on purpose: their backtraces would bury the failures.
    command.env("CI", "true").env("RUST_BACKTRACE", "0");
    let mut failures = Failures::default();
    let status = stream(&mut command, |line| {
        if let Some(tests) = parse(line) {
            sum += tests;
        }
        failures.read(line);
        !passed(line)
    })?;
    failures.say();
    if status.success() && sum.passed == 0 {
        bail!("no test ran");
    }
    if !status.success() && sum.failed == 0 {
        eprintln!("cargo test failed outside of the tests ({status})");
        sum.failed = 1;
    }
    Ok(sum)
}

/// The folder of published vectors, which is not part of the project, where it lies beside it.
fn vectors(root: &Path) -> Option<PathBuf> {
    let folder = root.parent()?.join("shared/vectors");
    folder.is_dir().then_some(folder)
}

/// Whether it tells of a test that passed, in the standard harness or in libtest-mimic.
fn passed(line: &str) -> bool {
    line.starts_with("test ") && line.ends_with("... ok")
}

/// What the test programs print between `failures:` and their result.
#[derive(Default)]
struct Failures {
    lines: Vec<String>,
    /// Those of the test program that is running, once it tells of any.
    program: Option<usize>,
}

impl Failures {
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            self.program.get_or_insert(0);
        }
        let Some(told) = &mut self.program else {
            return;
        };
        let result = line.starts_with("test result: ");
        *told += 1;
        if *told <= SAID_AGAIN || result || line.starts_with("    ") {
            self.lines.push(line.to_owned());
        }
        if result {
            self.program = None;
        }
    }

    fn say(&self) {
        if !self.lines.is_empty() {
            println!("\n-- once more: what failed");
        }
        for line in &self.lines {
            println!("{line}");
        }
    }
}

/// The counts of a line like `test result: ok. 3 passed; 0 failed; 1 ignored; …`, which the
/// standard harness and libtest-mimic write alike.
fn parse(line: &str) -> Option<Tests> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tests = Tests::default();
    for part in counts.split(';') {
        let Some((number, kind)) = part.trim().split_once(' ') else {
            continue;
        };
        match kind {
            "passed" => tests.passed = number.parse().ok()?,
            "failed" => tests.failed = number.parse().ok()?,
            "ignored" => tests.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_read_in_both_outcomes() {
        let ok = "test result: ok. 13 passed; 0 failed; 2 ignored; 0 measured; 1 filtered out; \
                  finished in 0.03s";
        assert_eq!(parse(ok), Some(Tests { passed: 13, failed: 0, skipped: 2 }));
        let bad = "test result: FAILED. 0 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse(bad), Some(Tests { passed: 0, failed: 4, skipped: 0 }));
    }

    #[test]
    fn only_tests_that_passed_are_left_out() {
        assert!(passed("test parse ... ok"));
        assert!(passed("test memory::keys::one    ... ok"));
        for line in ["test parse ... FAILED", "running 3 tests", "test result: ok. 3 passed", ""] {
            assert!(!passed(line), "{line}");
        }
    }

    #[test]
    fn failures_are_kept_to_the_result_and_bounded() {
        let mut failures = Failures::default();
        for line in ["running 2 tests", "test a ... FAILED", "", "failures:", "", "---- a"] {
            failures.read(line);
        }
        for _ in 0..2 * SAID_AGAIN {
            failures.read("noise");
        }
        for line in ["failures:", "    a", "test result: FAILED. 1 passed; 1 failed", "later"] {
            failures.read(line);
        }
        assert_eq!(failures.lines.first().unwrap(), "failures:");
        assert_eq!(failures.lines.len(), SAID_AGAIN + 2);
        assert_eq!(
            failures.lines[SAID_AGAIN..],
            ["    a", "test result: FAILED. 1 passed; 1 failed"]
        );
    }

    #[test]
    fn vectors_are_named_only_where_they_are() {
        let folder =
            std::env::temp_dir().join(format!("countersign-xtask-v{}", std::process::id()));
        let project = folder.join("project");
        assert_eq!(vectors(&project), None);
        std::fs::create_dir_all(folder.join("shared/vectors")).unwrap();
        assert_eq!(vectors(&project), Some(folder.join("shared/vectors")));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn other_lines_are_not_results() {
        for line in [
            "",
            "test parse ... ok",
            "running 3 tests",
            " test result: ok. 1 passed; 0 failed; 0 ignored",
            "test result: ok. many passed; 0 failed; 0 ignored",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
