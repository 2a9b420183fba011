//! psec, a foreign implementation of TR-31, in Python.

use std::path::PathBuf;
use std::process::Command;

use super::{PartError, tokens};

/// Where `cargo xtask ci` puts its interpreter, below the folder of builds.
const PYTHON: &str = "parts/psec/bin/python";

/// A Python that has psec.
#[derive(Debug)]
pub struct Psec {
    python: PathBuf,
}

impl Psec {
    /// Finds the interpreter.
    ///
    /// # Errors
    /// [`PartError::Absent`].
    pub fn find() -> Result<Self, PartError> {
        let install = "run: cargo xtask ci --only packages,parts";
        let python = tokens::built(PYTHON).ok_or(PartError::Absent { what: "psec", install })?;
        Ok(Self { python })
    }

    /// The interpreter, to be given a program.
    #[must_use]
    pub fn python(&self) -> Command {
        Command::new(&self.python)
    }
}
