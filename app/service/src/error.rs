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
    /// The answer to a payment is refused: signature, digits, device or certificate. Which of them
    /// is not told (D7); the audit has it under the incident.
    #[error("the answer is refused")]
    AuthorisationRefused {
        /// `inc_…`.
        incident: String,
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
            Self::AuthorisationRefused { .. } => "authorisation-refused",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal { .. } => "internal",
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Refused { check } => {
                Self::Refused { check, detail: in_words(check).map_or(detail, str::to_owned) }
            }
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

/// What people are told of the store's rules that they can run into.
fn in_words(check: &str) -> Option<&'static str> {
    const { assert!(countersign_store::RUN_TERMINALS_MAX == 2000, "the text below says so") };
    Some(match check {
        "account-phones" => "an account has at most 16 phones",
        "approval-not-usable" => "this approval is not for this, not given yet, or used",
        "approval-own-request" => "who asks does not agree: others must",
        "approval-settled" => "this approval is settled already",
        "bound-accounts" => "a security device or a phone has at most 16 accounts",
        "delivery-under-way" => "a server is sending it at this moment",
        "enrolment-code-used" => "the enrolment code was used",
        "injection-closed" => "this injection has ended: it is installed, failed or taken back",
        "nonce-reused" => "this random number has made a token before",
        "page-cursor" => "this cursor is not one that a page ended with",
        "page-limit" => "a page has so many items only",
        "rebind-ended" => "this rebind campaign has ended",
        "rebind-open" => "a campaign to this KDH is open already",
        "run-closed" => "this run is closed",
        "run-size" => "a run has 1 to 2000 terminals",
        "run-slot-taken" => "this run has another key for this slot",
        "signing-time-taken" => "another server made a token at this moment: ask again",
        "terminal-not-bound" => "the terminal is bound to no KDH",
        "text-nul" => "a text has a zero character in it",
        "text-too-long" => "a text is too long",
        "webhook-not-active" => "this webhook is disabled or removed",
        "webhooks-full" => "there are as many webhooks as there may be",
        _ => return None,
    })
}

impl From<PkiError> for ServiceError {
    fn from(error: PkiError) -> Self {
        match error {
            PkiError::SigningFailed => Self::Internal { detail: error.to_string() },
            _ => Self::refused(error.check(), error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_the_store_is_told_in_words_under_its_name() {
        for check in ["run-closed", "run-size", "injection-closed", "rebind-open"] {
            let told = ServiceError::from(StoreError::Refused { check });
            assert_eq!(told.check(), check);
            assert!(!told.to_string().contains(check), "{told}");
        }
        let told = ServiceError::from(StoreError::Refused { check: "row-check" });
        assert!(told.to_string().contains("row-check"), "nothing is told without its name");
    }
}
