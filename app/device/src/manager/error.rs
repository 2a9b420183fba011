use std::io;
use std::path::PathBuf;

use countersign_channel::Error;
use countersign_pki::PkiError;
use countersign_wallet::audit::{AuditError, Broken};
use countersign_wallet::login::{Locked, PasswordError};
use thiserror::Error as ThisError;

use crate::key::KeyError;
use crate::{DeviceDirError, RelayError};

/// Why a manager does not do what it was asked.
#[derive(Debug, ThisError)]
pub enum ManagerError {
    /// The device's directory.
    #[error(transparent)]
    Dir(#[from] DeviceDirError),
    /// Another program has it in use.
    #[error("another program has this manager in use")]
    Busy,
    /// A file does not parse.
    #[error("{path}: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
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
    /// The settings cannot be.
    #[error("the manager's settings: {0}")]
    Settings(String),
    /// No login password is set: nobody could log in (A4).
    #[error("this manager has no login password: set one first")]
    NoPassword,
    /// A password is not set or changed.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Too many wrong passwords.
    #[error(transparent)]
    Locked(#[from] Locked),
    /// No sleeve with this id is paired.
    #[error("the sleeve {0} is not paired with this manager")]
    UnknownSleeve(String),
    /// As many sleeves are paired, or remembered as revoked, as there may be.
    #[error("as many sleeves are on the list as it holds: forget one")]
    TooManySleeves,
    /// The pairing window closed while the sleeve's user was asked (A1).
    #[error("the pairing window has closed")]
    WindowClosed,
    /// A certificate does not parse.
    #[error("a paired sleeve's certificate: {0}")]
    Pki(#[from] PkiError),
    /// The audit was altered, or its end is missing.
    #[error("the audit does not hold: {0}")]
    Audit(#[from] Broken),
    /// The audit cannot be continued.
    #[error("the audit cannot be written: {0}")]
    Trail(#[from] AuditError),
    /// The audit is as long as it may be.
    #[error("{0} is full: move it and its head away to begin a new one")]
    AuditFull(PathBuf),
    /// A card's reader, or a card in this process, is not there for this program.
    #[error("the card {card}: {detail}")]
    Source {
        /// Its id.
        card: String,
        /// What is missing.
        detail: &'static str,
    },
    /// Sleeves of this network cannot be listened to.
    #[error("cannot listen at {at}: {source}")]
    Listen {
        /// Where.
        at: String,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration of the secure channel.
    #[error("the secure channel: {0}")]
    Channel(Error),
    /// The way through the server.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A task of this program ended before its time.
    #[error("a task of this program has failed")]
    Task,
}

impl ManagerError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Dir(error) => error.check(),
            Self::Busy => "device-busy",
            Self::Damaged { .. } => "device-damaged",
            Self::Io { .. } => "io",
            Self::Settings(_) => "manager-settings",
            Self::NoPassword => "password-absent",
            Self::Password(error) => error.check(),
            Self::Locked(locked) => locked.check(),
            Self::UnknownSleeve(_) => "sleeve-unknown",
            Self::TooManySleeves => "too-many-sleeves",
            Self::WindowClosed => "pairing-closed",
            Self::Pki(error) => error.check(),
            Self::Audit(broken) => broken.error.check(),
            Self::Trail(error) => error.check(),
            Self::AuditFull(_) => "audit-full",
            Self::Source { .. } => "card-source",
            Self::Listen { .. } => "listen",
            Self::Channel(error) => error.check(),
            Self::Relay(error) => error.check(),
            Self::Task => "internal",
        }
    }

    /// Whether the system is to blame, rather than whoever asked.
    #[must_use]
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Busy | Self::Io { .. } | Self::Listen { .. } | Self::Task => true,
            Self::Dir(error) => matches!(error, DeviceDirError::Io { .. }),
            Self::Relay(error) => error.is_environment(),
            _ => false,
        }
    }

    /// Where someone else finds more: nowhere, the manager is at its owner's.
    #[must_use]
    pub const fn incident(&self) -> Option<&str> {
        None
    }
}

/// What small files say, whichever device they are of.
impl From<KeyError> for ManagerError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Busy => Self::Busy,
            KeyError::Io { path, source } => Self::Io { path, source },
            KeyError::Damaged { path, detail } => Self::Damaged { path, detail },
            other => Self::Damaged { path: PathBuf::new(), detail: other.to_string() },
        }
    }
}
