use std::io;
use std::path::{Path, PathBuf};

use countersign_channel::Error;
use countersign_hsm::HsmError;
use countersign_injection::FlowError;
use thiserror::Error as ThisError;

use crate::{ApiError, DeviceDirError, EnrollError};

/// The one name of everything that is wrong with a token, as people see it: the exact check stands
/// in the server's audit, under the incident (E6).
pub const TOKEN_REFUSED: &str = "token-refused";

/// Why a terminal did not do what it was asked.
#[derive(Debug, ThisError)]
pub enum PosError {
    /// The terminal's directory.
    #[error(transparent)]
    Dir(#[from] DeviceDirError),
    /// Enrolment, as of any device.
    #[error(transparent)]
    Enroll(#[from] EnrollError),
    /// The server's API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The secure element.
    #[error("the secure element: {0}")]
    Element(#[from] HsmError),
    /// This program was built without PKCS#11.
    #[error("this program was built without PKCS#11: build it with the feature `pkcs11`")]
    NoPkcs11,
    /// What the server certified at enrolment is of no use.
    #[error("the server's certificates for key injection: {detail}")]
    Certificates {
        /// Stable name.
        check: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The terminal was enrolled under another root.
    #[error(
        "this terminal was enrolled under another root of key injection, and does not change it"
    )]
    OtherRoot,
    /// A stored state that does not belong to this element, or is damaged.
    #[error("{path}: {detail}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: &'static str,
    },
    /// Another program works with this terminal now.
    #[error("another program is at this terminal's keys")]
    Busy,
    /// Own cryptography, or the element, failed in the middle of a token.
    #[error("the token could not be dealt with: {0}")]
    Own(String),
    /// The terminal refused a token of the server's.
    #[error("a token of the server's was refused{}", suffix(incident))]
    Token {
        /// The exact check, for the terminal's own log; people see [`TOKEN_REFUSED`].
        check: String,
        /// Where the server's operator finds it.
        incident: String,
    },
    /// The server does not do what was asked.
    #[error("the server refused: {check}{}", suffix(incident))]
    Server {
        /// The failed check's public name.
        check: String,
        /// Whether asking again later may help.
        retry: bool,
        /// Where its operator finds more; may be empty.
        incident: String,
    },
    /// The server broke the protocol, or was silent.
    #[error("the server: {0}")]
    Flow(#[from] FlowError),
    /// The secure channel ended.
    #[error("the secure channel: {0}")]
    Channel(Error),
    /// The server cannot be reached.
    #[error("the server at {gateway} cannot be reached: {detail}")]
    Unreachable {
        /// Where.
        gateway: String,
        /// What the system said.
        detail: String,
    },
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn suffix(incident: &str) -> String {
    if incident.is_empty() { String::new() } else { format!(" (incident {incident})") }
}

impl PosError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        |source| Self::Io { path: path.to_owned(), source }
    }

    /// Stable name of the failed check, as people may see it.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Dir(error) => error.check(),
            Self::Enroll(EnrollError::Dir(error)) => error.check(),
            Self::Enroll(EnrollError::Pki(error)) => error.check(),
            Self::Enroll(EnrollError::Api(error)) | Self::Api(error) => match error {
                ApiError::Refused { check, .. } => check,
                ApiError::Url { .. } => "server-url",
                ApiError::CaFile { .. } => "ca-file",
                ApiError::Unreachable { .. } => "server-unreachable",
                ApiError::NotOurs { .. } => "server-answer",
            },
            Self::Enroll(EnrollError::UnknownSuite(_)) => "device-suite",
            Self::Element(error) => error.check(),
            Self::NoPkcs11 => "pkcs11-absent",
            Self::Certificates { check, .. } => check,
            Self::OtherRoot => "rki-root-changed",
            Self::State { .. } => "terminal-state",
            Self::Busy => "terminal-busy",
            Self::Own(_) => "element-failed",
            Self::Token { .. } => TOKEN_REFUSED,
            Self::Server { check, .. } => check,
            Self::Flow(error) => error.check(),
            Self::Channel(error) => error.check(),
            Self::Unreachable { .. } => "server-unreachable",
            Self::Io { .. } => "io",
        }
    }

    /// Where an operator of the server finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        let incident = match self {
            Self::Token { incident, .. } | Self::Server { incident, .. } => incident.as_str(),
            Self::Channel(Error::Alert { incident, .. }) => incident.as_str(),
            _ => "",
        };
        Some(incident).filter(|incident| !incident.is_empty())
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Io { .. } | Self::Own(_) | Self::Busy => true,
            Self::Dir(error) | Self::Enroll(EnrollError::Dir(error)) => {
                matches!(error, DeviceDirError::Io { .. })
            }
            Self::Enroll(EnrollError::Api(error)) | Self::Api(error) => match error {
                ApiError::Refused { status, .. } => *status >= 500,
                ApiError::Unreachable { .. } | ApiError::NotOurs { .. } => true,
                ApiError::Url { .. } | ApiError::CaFile { .. } => false,
            },
            Self::Element(error) => error.is_environment(),
            Self::Server { retry, .. } => *retry,
            Self::Flow(error) => *error == FlowError::Timeout,
            Self::Channel(error) => matches!(error, Error::Truncated | Error::Timeout),
            _ => false,
        }
    }
}
