use std::io;
use std::path::PathBuf;

use countersign_crypto::Suite;
use countersign_pki::PkiError;
use thiserror::Error;

use super::settings::{DeviceKind, short};

/// Why a device directory is of no use.
#[derive(Debug, Error)]
pub enum DeviceDirError {
    /// Not there, or not one of ours.
    #[error(
        "{0} is not a Countersign device directory: enrol the device first (`countersign device \
         enroll` a reader, `countersign device pos|key|card|manager|sleeve enroll` another)"
    )]
    NotOurs(PathBuf),
    /// It holds another device.
    #[error("{dir} belongs to the device {found}, not {wanted}")]
    OtherDevice {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Who was asked for.
        wanted: String,
    },
    /// Its key is of another suite.
    #[error(
        "the key in {dir} is of the suite {}, not {}: use another --device directory",
        short(*found),
        short(*wanted)
    )]
    OtherSuite {
        /// The directory.
        dir: PathBuf,
        /// The key's suite.
        found: Suite,
        /// What was asked for.
        wanted: Suite,
    },
    /// It is a device of another kind.
    #[error("{dir} belongs to a {}, not a {}", found.role().as_str(), wanted.role().as_str())]
    OtherKind {
        /// The directory.
        dir: PathBuf,
        /// What it is.
        found: DeviceKind,
        /// What was asked for.
        wanted: DeviceKind,
    },
    /// Enrolment has not finished.
    #[error(
        "{0} has no certificate yet: run `countersign device enroll` again, for a terminal \
         `countersign device pos enroll`"
    )]
    NotEnrolled(PathBuf),
    /// A file does not parse.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A certificate does not verify.
    #[error("the device's certificates: {0}")]
    Pki(#[from] PkiError),
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DeviceDirError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::NotOurs(_) => "device-not-ours",
            Self::OtherDevice { .. } => "device-other",
            Self::OtherSuite { .. } => "device-suite",
            Self::OtherKind { .. } => "device-kind",
            Self::NotEnrolled(_) => "device-not-enrolled",
            Self::Damaged { .. } => "device-damaged",
            Self::Pki(error) => error.check(),
            Self::Io { .. } => "io",
        }
    }
}
