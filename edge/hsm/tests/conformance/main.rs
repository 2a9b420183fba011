//! One suite over every vault: sealed files, SoftHSM2, kryoptic.
//!
//! A case is a list of steps. Between two steps the vault is closed and opened again: over the same
//! storage, or, for tokens, in another process. Those are this program again with `--step`, because
//! a module finds its tokens by a variable, which is set on children only.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

mod cases;
mod stage;
#[cfg(feature = "pkcs11")]
mod tokens;

use libtest_mimic::{Arguments, Trial};

use crate::stage::Stage;

fn main() {
    #[cfg(feature = "pkcs11")]
    if let Some(step) = tokens::Step::from_arguments() {
        return step.run();
    }
    let files = cases::CASES.iter().map(|case| {
        Trial::test(format!("sealed files: {}", case.name), || {
            let (storage, folder) = (stage::storage(), tempfile::tempdir()?);
            for (number, step) in case.steps.iter().enumerate() {
                step(&Stage::over_files(&storage, folder.path(), number));
            }
            Ok(())
        })
    });
    #[cfg_attr(not(feature = "pkcs11"), expect(unused_mut, reason = "no tokens to add"))]
    let mut trials: Vec<Trial> = files.collect();
    #[cfg(feature = "pkcs11")]
    trials.extend(tokens::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}
