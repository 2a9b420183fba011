//! Real components, started for a test and taken down after it.
//!
//! The policy (`require`) is the same everywhere: with `CI=true` in the environment an absent part
//! fails the test; elsewhere the test is shown as skipped, with the line that installs the part.
//! Variables a part needs are set on child processes only, never on this one.

mod chromium;
mod keeper;
mod lossy_line;
mod pcscd;
mod policy;
mod postgres;
mod psec;
mod pty;
mod tokens;

use std::io;

pub use chromium::Chromium;
pub use lossy_line::{LossyLine, lossy_line};
pub use pcscd::Pcscd;
pub use policy::{Required, in_ci, require};
pub use postgres::Postgres;
pub use psec::Psec;
pub use pty::{Pty, pty};
use thiserror::Error;
pub use tokens::{Kryoptic, Pkcs11Token, SoftHsm};

/// Why a part is not running.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PartError {
    /// The part is not installed on this machine.
    #[error("{what} is not installed; {install}")]
    Absent {
        /// The part, as people call it.
        what: &'static str,
        /// What to do about it, as one line of shell.
        install: &'static str,
    },
    /// The part is installed but did not do what it was asked.
    #[error("{what} failed: {detail}")]
    Failed {
        /// The part or the program, as people call it.
        what: &'static str,
        /// What it said last.
        detail: String,
    },
    /// The operating system refused a file, a process or a socket.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl PartError {
    /// For `map_err`: an operating-system error while doing `what`.
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::System { what, source: error.into() }
    }
}
