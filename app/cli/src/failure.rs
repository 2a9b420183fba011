//! Failures as the command line tells them: blame decides the exit code (interfaces.md).

use countersign_device::{
    ApiError, DeviceDirError, EnrollError, HostError, JournalError, ReadError,
};
use countersign_server::{DataError, StartError};
use countersign_service::ServiceError;
use countersign_store::StoreError;

/// Who is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A check refused: exit code 1.
    Check,
    /// The call's words are wrong: 2.
    Usage,
    /// Unreachable, busy, disk: 3.
    Environment,
}

impl Blame {
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Check => 1,
            Self::Usage => 2,
            Self::Environment => 3,
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) blame: Blame,
    /// Stable name of the failed check.
    pub(crate) check: String,
    /// One sentence.
    pub(crate) detail: String,
    /// Where the server's operator finds more.
    pub(crate) incident: Option<String>,
    /// Stdout has had its one JSON value: this goes to stderr.
    pub(crate) late: bool,
    /// What was done before it failed: an object, whose members stand beside the error in JSON.
    pub(crate) done: Option<Box<serde_json::Value>>,
}

impl Failure {
    fn new(blame: Blame, check: &str, detail: String) -> Self {
        let check = check.to_owned();
        Self { blame, check, detail, incident: None, late: false, done: None }
    }

    pub(crate) fn check(check: &str, detail: impl Into<String>) -> Self {
        Self::new(Blame::Check, check, detail.into())
    }

    pub(crate) fn usage(check: &str, detail: impl Into<String>) -> Self {
        Self::new(Blame::Usage, check, detail.into())
    }

    pub(crate) fn environment(check: &str, detail: impl Into<String>) -> Self {
        Self::new(Blame::Environment, check, detail.into())
    }

    /// The failure of a long-running command that has said on stdout where it listens.
    pub(crate) fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// A failure after a part was done, which is told too.
    pub(crate) fn after(self, done: serde_json::Value) -> Self {
        Self { done: Some(Box::new(done)), ..self }
    }

    pub(crate) fn file(path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::environment("file", format!("{}: {error}", path.display()))
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        let blame = if error.is_environment() { Blame::Environment } else { Blame::Check };
        Self::new(blame, error.check(), error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let blame = if error.is_environment() { Blame::Environment } else { Blame::Check };
        Self::new(blame, error.check(), error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        StartError::from(error).into()
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        let blame = match error {
            ServiceError::Unavailable { .. } | ServiceError::Internal { .. } => Blame::Environment,
            _ => Blame::Check,
        };
        Self::new(blame, error.check(), error.to_string())
    }
}

impl From<DeviceDirError> for Failure {
    fn from(error: DeviceDirError) -> Self {
        let blame = match error {
            DeviceDirError::Io { .. } => Blame::Environment,
            _ => Blame::Check,
        };
        Self::new(blame, error.check(), error.to_string())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let detail = error.to_string();
        match &error {
            ApiError::Refused { status, check, .. } => {
                let blame = if *status >= 500 { Blame::Environment } else { Blame::Check };
                Self::new(blame, check, detail)
            }
            ApiError::Url { .. } => Self::usage("server-url", detail),
            ApiError::CaFile { .. } => Self::usage("ca-file", detail),
            ApiError::Unreachable { .. } => Self::environment("server-unreachable", detail),
            ApiError::NotOurs { .. } => Self::environment("server-answer", detail),
        }
    }
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::Dir(error) => error.into(),
            EnrollError::Api(error) => error.into(),
            EnrollError::Pki(error) => Self::check(error.check(), error.to_string()),
            EnrollError::UnknownSuite(_) => Self::check("device-suite", error.to_string()),
        }
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        let blame = if error.is_environment() { Blame::Environment } else { Blame::Check };
        Self::new(blame, error.check(), error.to_string())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let blame = if error.is_environment() { Blame::Environment } else { Blame::Check };
        let incident = error.incident().map(str::to_owned);
        Self { incident, ..Self::new(blame, error.check(), error.to_string()) }
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let blame = if error.is_environment() { Blame::Environment } else { Blame::Check };
        let incident = error.incident().map(str::to_owned);
        Self { incident, ..Self::new(blame, error.check(), error.to_string()) }
    }
}
