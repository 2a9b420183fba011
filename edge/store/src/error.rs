use countersign_crypto::CryptoError;
use thiserror::Error;

/// Why a store operation failed, by blame.
///
/// *Caller*: [`Conflict`](Self::Conflict), [`NotFound`](Self::NotFound),
/// [`Refused`](Self::Refused), [`Misuse`](Self::Misuse), [`Panicked`](Self::Panicked).
/// *Environment*: the others. `Display` never shows values of rows, keys or the database URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A uniqueness rule of the database refused the row. The name is the same on both back
    /// ends: `<table>_<columns>_key`. Of several that refuse, any one is named.
    #[error("already exists ({constraint})")]
    Conflict {
        /// Which rule, for instance `operators_name_key`.
        constraint: String,
    },
    /// A row that was named, or that a new row refers to, does not exist.
    #[error("{what} not found")]
    NotFound {
        /// What kind of row.
        what: &'static str,
    },
    /// A rule over the state of a row refused; `check` is a stable name.
    #[error("refused: {check}")]
    Refused {
        /// Which rule, for instance `approval-settled`.
        check: &'static str,
    },
    /// The caller's SQL, parameters or column types are wrong: a bug, not an input.
    #[error("misuse of the store: {detail}")]
    Misuse {
        /// What was wrong.
        detail: String,
    },
    /// The closure of this transaction panicked; it was rolled back and the store goes on.
    #[error("transaction {name} panicked and was rolled back")]
    Panicked {
        /// The transaction's name.
        name: &'static str,
    },
    /// Too much work at once: queue full, lock not obtained, retries used up. Try again later.
    #[error("the database is busy ({what})")]
    Busy {
        /// What was waited for.
        what: &'static str,
    },
    /// No room left on the database's disk; nothing of the transaction was stored.
    #[error("the database's disk is full")]
    Full,
    /// The database cannot be opened or reached; nothing of the transaction was stored.
    #[error("the database cannot be reached: {detail}")]
    Unreachable {
        /// What the system or driver said.
        detail: String,
    },
    /// The URL demands TLS to PostgreSQL, which this build cannot speak.
    #[error("TLS to PostgreSQL is not supported: use a Unix socket or a local tunnel")]
    TlsUnsupported,
    /// The connection was lost while committing: the transaction may or may not be stored.
    #[error("connection lost while committing, outcome unknown: {detail}")]
    Uncertain {
        /// What the driver said.
        detail: String,
    },
    /// The database was migrated by a newer program.
    #[error("the database has schema version {found}, this program knows {known}")]
    TooNew {
        /// Version in the database.
        found: i64,
        /// Newest version this program knows.
        known: i64,
    },
    /// The database belongs to something else; it was left untouched.
    #[error("the database is not one of ours; it was left untouched")]
    NotOurs,
    /// The key that signs the audit's checkpoints failed.
    #[error("the audit's signing key failed: {0}")]
    Signer(CryptoError),
    /// What is stored does not decode: damaged or altered.
    #[error("the database is damaged: {detail}")]
    Corrupt {
        /// Where and how.
        detail: String,
    },
}

impl StoreError {
    /// True if the same call may succeed later without anyone changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Unreachable { .. })
    }

    pub(crate) fn misuse(detail: impl Into<String>) -> Self {
        Self::Misuse { detail: detail.into() }
    }

    pub(crate) fn corrupt(detail: impl Into<String>) -> Self {
        Self::Corrupt { detail: detail.into() }
    }

    pub(crate) fn unreachable(detail: impl Into<String>) -> Self {
        Self::Unreachable { detail: detail.into() }
    }
}

/// What a back end says about a failed statement: the error, and what it means for the attempt.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// Running the transaction again may succeed (serialisation failure, deadlock).
    Retry,
    /// The connection is gone; nothing was committed.
    Lost(StoreError),
    /// Running it again would fail again.
    Final(StoreError),
}

impl Failure {
    /// The error that the closure, and after the last retry the caller, sees.
    pub(crate) fn error(&self) -> StoreError {
        match self {
            Self::Retry => StoreError::Busy { what: "concurrent transactions" },
            Self::Lost(error) | Self::Final(error) => error.clone(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Final(error)
    }
}
