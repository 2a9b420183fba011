//! The published sample hierarchy of the folder that `COUNTERSIGN_VECTORS` names. Without the
//! folder the tests are shown as skipped, in the CI too: it is not part of the project.

#![expect(clippy::unwrap_used, reason = "a vector that is not as described fails its test")]

mod hierarchy;
mod tokens;

use std::env;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

const VARIABLE: &str = "COUNTERSIGN_VECTORS";

/// A test over the folder `tr34` of the vectors.
type Check = fn(&Path) -> Result<(), Failed>;

fn main() {
    let arguments = Arguments::from_args();
    let folder = env::var_os(VARIABLE).map(|folder| PathBuf::from(folder).join("tr34"));
    let checks = hierarchy::CHECKS.into_iter().chain(tokens::CHECKS);
    let trials = checks.map(|(name, check)| {
        let folder = folder.clone();
        Trial::ignorable_test(name, move || match folder {
            Some(folder) => check(&folder).map(|()| Completion::Completed),
            None => Ok(Completion::ignored_with(format!("{VARIABLE} names no folder"))),
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}
