//! Formatting, clippy and documentation.
//!
//! Clippy, documentation and tests use one feature set (`--all-features` over the workspace), so
//! that dependencies are compiled once for all three; the default features are proven by the
//! release build of the demo.

use anyhow::Result;

use crate::child::{cargo, run};

/// `cargo fmt` finds nothing to change.
pub(crate) fn fmt() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))
}

/// Clippy is silent about every target.
pub(crate) fn clippy() -> Result<()> {
    run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))
}

/// Rustdoc is silent: no broken link, nothing public undocumented.
pub(crate) fn doc() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
