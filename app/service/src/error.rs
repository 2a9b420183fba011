use countersign_pki::PkiError;
use countersign_store::StoreError;
use thiserror::Error;

/// Why a use case did not happen, by blame.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// An input, policy or state check failed; `check` is its stable name.
    #[error("{detail}")]
    Refused {
        /// Stable name.
        check: &'static str,
        /// One sentence for a person.
        detail: String,
    },
    /// What was named does not exist.
    #[error("there is no such {what}")]
    NotFound {
        /// What kind of thing.
        what: &'static str,
    },
    /// No token, or none that is live.
    #[error("a valid token is needed")]
    Unauthenticated,
    /// The token's roles do not allow this.
    #[error("this needs the scope {scope}")]
    Forbidden {
        /// The scope that is missing.
        scope: &'static str,
    },
    /// The database (or another part of the environment) cannot serve now.
    #[error("{detail}")]
    Unavailable {
        /// One sentence for an operator.
        detail: String,
    },
    /// A fault of the program or of its data.
    #[error("internal error: {detail}")]
    Internal {
        /// For the log.
        detail: String,
    },
}

impl ServiceError {
    pub(crate) fn refused(check: &'static str, detail: impl Into<String>) -> Self {
        Self::Refused { check, detail: detail.into() }
    }

    /// Whether the same request may pass later without anyone changing anything: what a reader is
    /// told to try again.
    pub(crate) fn may_pass_later(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Refused { check: "reader-throttled", .. })
    }

    /// Whether a rule refused what was asked, rather than the environment or a fault failed it.
    /// An absent token is neither: it is noise.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NotFound { .. } | Self::Forbidden { .. })
    }

    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Refused { check, .. } => check,
            Self::NotFound { .. } => "not-found",
            Self::Unauthenticated => "token",
            Self::Forbidden { .. } => "scope",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "internal",
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Refused { check } => Self::Refused { check, detail },
            // Two callers made the same thing at once; the second finds it on its next try.
            StoreError::Conflict { .. } => Self::Refused { check: "conflict", detail },
            StoreError::NotFound { what } => Self::NotFound { what },
            StoreError::Busy { .. }
            | StoreError::Full
            | StoreError::Unreachable { .. }
            | StoreError::TlsUnsupported
            | StoreError::Uncertain { .. } => Self::Unavailable { detail },
            _ => Self::Internal { detail },
        }
    }
}

impl From<PkiError> for ServiceError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::SigningFailed => Self::Internal { detail: error.to_string() },
            _ => Self::refused(error.check(), error.to_string()),
        }
    }
}
