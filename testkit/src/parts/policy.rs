use std::sync::Arc;

use libtest_mimic::{Completion, Failed, Trial};

use super::PartError;

/// True if the environment says `CI=true` (or `1`): absent parts are then failures.
#[must_use]
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true" || value == "1")
}

/// Applies the policy to the result of starting a part.
///
/// Typical use, in a test without the standard harness (`harness = false`):
///
/// ```no_run
/// use testkit::parts::{Postgres, require};
///
/// let postgres = require(Postgres::start());
/// let trials = vec![postgres.trial("answers", |postgres| {
///     postgres.fresh_database()?;
///     Ok(())
/// })];
/// let conclusion = libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials);
/// drop(postgres); // `exit` runs no destructors
/// conclusion.exit();
/// ```
#[must_use]
pub fn require<P>(started: Result<P, PartError>) -> Required<P> {
    require_if(in_ci(), started)
}

fn require_if<P>(in_ci: bool, started: Result<P, PartError>) -> Required<P> {
    match started {
        Ok(part) => Required::Ready(Arc::new(part)),
        Err(absent @ PartError::Absent { .. }) if !in_ci => Required::Skipped(absent.to_string()),
        Err(error) => Required::Failed(error.to_string()),
    }
}

/// A part after the policy: what the tests that need it do.
#[derive(Debug)]
pub enum Required<P> {
    /// It runs; tests share it.
    Ready(Arc<P>),
    /// It is absent and this is not CI: tests are shown as skipped with this reason.
    Skipped(String),
    /// It is absent in CI, or would not start anywhere: tests fail with this reason.
    Failed(String),
}

impl<P> Clone for Required<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Ready(part) => Self::Ready(Arc::clone(part)),
            Self::Skipped(reason) => Self::Skipped(reason.clone()),
            Self::Failed(reason) => Self::Failed(reason.clone()),
        }
    }
}

impl<P: Send + Sync + 'static> Required<P> {
    /// The running part, if it runs.
    #[must_use]
    pub fn part(&self) -> Option<&Arc<P>> {
        match self {
            Self::Ready(part) => Some(part),
            Self::Skipped(_) | Self::Failed(_) => None,
        }
    }

    /// A test that needs the part: run, skipped or failed as the policy says.
    #[must_use]
    pub fn trial<T>(&self, name: impl Into<String>, test: T) -> Trial
    where
        T: FnOnce(&P) -> Result<(), Failed> + Send + 'static,
    {
        let part = self.clone();
        Trial::ignorable_test(name, move || match part {
            Self::Ready(part) => test(&part).map(|()| Completion::Completed),
            Self::Skipped(reason) => Ok(Completion::ignored_with(reason)),
            Self::Failed(reason) => Err(reason.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use libtest_mimic::{Arguments, run};

    use super::*;

    fn absent() -> Result<u8, PartError> {
        Err(PartError::Absent { what: "a part", install: "apt-get install a-part" })
    }

    /// (passed, failed, skipped) of one test that needs the part and succeeds.
    fn outcome(part: &Required<u8>) -> (u64, u64, u64) {
        // Its report would read as the outer tests'.
        let silent = Arguments { logfile: Some("/dev/null".into()), ..Arguments::default() };
        let trial = part.trial("needs the part", |part| {
            if *part == 7 { Ok(()) } else { Err("another part".into()) }
        });
        let done = run(&silent, vec![trial]);
        (done.num_passed, done.num_failed, done.num_ignored)
    }

    #[test]
    fn a_present_part_runs_the_test() {
        assert_eq!(outcome(&require_if(true, Ok(7))), (1, 0, 0));
        assert_eq!(outcome(&require_if(false, Ok(7))), (1, 0, 0));
        assert_eq!(outcome(&require_if(true, Ok(8))), (0, 1, 0), "the test's own failure counts");
    }

    #[test]
    fn an_absent_part_fails_in_ci_and_skips_elsewhere() {
        assert_eq!(outcome(&require_if(true, absent())), (0, 1, 0));
        assert_eq!(outcome(&require_if(false, absent())), (0, 0, 1));
    }

    #[test]
    fn a_part_that_does_not_start_fails_everywhere() {
        let broken =
            || Err(PartError::System { what: "starting", source: io::ErrorKind::Other.into() });
        assert_eq!(outcome(&require_if(true, broken())), (0, 1, 0));
        assert_eq!(outcome(&require_if(false, broken())), (0, 1, 0));
    }
}
