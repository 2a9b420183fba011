//! Parts of tests that are no Debian package: made under `target/parts`, once.

mod kryoptic;
mod psec;

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace;

/// Makes what is not there yet. What cannot be made fails the tests that need it, and this step.
///
/// # Errors
/// If a part cannot be made.
pub(crate) fn build() -> Result<()> {
    let folder = folder()?;
    kryoptic::build(&folder)?;
    psec::build(&folder)
}

/// Where the parts are; tests look for `parts` above their own program.
fn folder() -> Result<PathBuf> {
    Ok(workspace::target_folder()?.join("parts"))
}
