//! The steps of the CI, their order and their sum.

use std::fmt;
use std::ops::AddAssign;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;

use crate::{demo, deny, lints, models, nostd, packages, parts, tests_run, tidy};

/// A step of the CI. Declared in the order they run: what fails fast comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Debian packages the build and the tests need.
    Packages,
    /// Programs that tests talk to and that are no Debian package.
    Parts,
    /// Formatting.
    Fmt,
    /// The project's own rules.
    Tidy,
    /// Clippy, warnings are errors.
    Clippy,
    /// The protocol crates without `std`, for a microcontroller.
    Nostd,
    /// Documentation, warnings are errors.
    Doc,
    /// Licences, banned crates, sources.
    Deny,
    /// The symbolic models, where Verifpal is installed.
    Models,
    /// All tests, real parts included.
    Test,
    /// The first command of the README, twice.
    Demo,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self) -> Result<Tests> {
        match self {
            Self::Packages => packages::install().map(|()| Tests::default()),
            Self::Parts => parts::build().map(|()| Tests::default()),
            Self::Fmt => lints::fmt().map(|()| Tests::default()),
            Self::Tidy => tidy::check().map(|()| Tests::default()),
            Self::Clippy => lints::clippy().map(|()| Tests::default()),
            Self::Nostd => nostd::check(),
            Self::Doc => lints::doc().map(|()| Tests::default()),
            Self::Deny => deny::check().map(|()| Tests::default()),
            Self::Models => models::check(),
            Self::Test => tests_run::run(),
            Self::Demo => demo::run().map(|()| Tests::default()),
        }
    }
}

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl AddAssign for Tests {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs the steps of `only` (all, if empty). A failed step does not stop the others, so that one
/// run reports everything; missing packages do, because little works without them.
pub(crate) fn run(only: &[Step]) -> ExitCode {
    let chosen = |step: &&Step| only.is_empty() || only.contains(step);
    let mut sum = Tests::default();
    let mut report = Vec::new();
    for &step in Step::value_variants().iter().filter(chosen) {
        let (tests, line) = run_one(step);
        sum += tests;
        report.push(line);
        if step == Step::Packages && tests.failed > 0 {
            break;
        }
    }
    println!("\n== ci");
    for line in report {
        println!("   {line}");
    }
    println!("{sum}");
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a step; a failed one counts at least one failure, so that the last line never hides it.
fn run_one(step: Step) -> (Tests, String) {
    let name = step.name();
    println!("\n== {name}");
    let began = now();
    let tests = step.run().unwrap_or_else(|error| {
        eprintln!("{name}: {error:#}");
        Tests { failed: 1, ..Tests::default() }
    });
    let verdict = if tests.failed == 0 { "ok" } else { "FAILED" };
    let line = format!("{name:<9} {verdict:<7} {:>7.1} s", began.elapsed().as_secs_f64());
    println!("== {line}");
    (tests, line)
}

#[expect(clippy::disallowed_methods, reason = "a step's duration is for people, not a decision")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_has_its_exact_form() {
        let mut sum = Tests { passed: 2, failed: 0, skipped: 1 };
        sum += Tests { passed: 3, failed: 1, skipped: 0 };
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn packages_come_first_and_the_demo_last() {
        let steps = Step::value_variants();
        assert_eq!(steps.first(), Some(&Step::Packages));
        assert_eq!(steps.last(), Some(&Step::Demo));
        assert_eq!(Step::Fmt.name(), "fmt");
    }
}
