//! RFC 9457 problems: the one place that says how a failure looks outside.

use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use countersign_service::ServiceError;
use serde::Serialize;
use utoipa::ToSchema;

/// Media type of problems (RFC 9457, section 3).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// What `type` begins with; the check's name follows.
const TYPE_PREFIX: &str = "urn:countersign:problem:";
/// Longest `detail` in bytes: it may quote what the client sent.
const DETAIL_MAX: usize = 300;

/// The checks about state: the same request may pass once the state has changed (409).
const STATE_CHECKS: &[&str] = &[
    "account-closed",
    "account-frozen",
    "account-not-empty",
    "account-number-taken",
    "account-phones",
    "approval-expired",
    "approval-needed",
    "approval-not-usable",
    "approval-other-request",
    "approval-own-request",
    "approval-pending",
    "approval-rejected",
    "approval-settled",
    "approval-used",
    "approval-voted",
    "approvals-full",
    "authority-ended",
    "certificate-not-intended",
    "component-operator",
    "component-taken",
    "conflict",
    "decision-ended",
    "delivery-under-way",
    "device-blocked",
    "drains-full",
    "evidence-not-ready",
    "idempotency-in-flight",
    "injection-closed",
    "insufficient-funds",
    "kek-name-taken",
    "kek-not-active",
    "kek-not-collecting",
    "kek-retired",
    "key-name-taken",
    "key-not-active",
    "key-retired",
    "ksn-base-taken",
    "ksn-exhausted",
    "operator-name-taken",
    "overdraft-used",
    "payment-cancelled",
    "payment-expired",
    "payment-failed",
    "payment-not-executed",
    "payment-not-pending",
    "payment-refunded",
    "payment-rejected",
    "payment-reversed",
    "payment-settled",
    "read-superseded",
    "reader-blocked",
    "rebind-ended",
    "rebind-open",
    "receipt-not-ready",
    "reference-taken",
    "rki-no-kdh",
    "rki-not-initialised",
    "roll-under-way",
    "run-closed",
    "run-label-taken",
    "run-slot-taken",
    "serial-taken",
    "signer-method",
    "terminal-not-bound",
    "terminal-serial-taken",
    "webhook-not-active",
    "webhooks-full",
];
/// The checks about a device that asks without a token: it is not let in (403).
const ADMISSION_CHECKS: &[&str] = &["enrolment-code", "terminal-not-allowed"];
/// The checks about the query (400).
const QUERY_CHECKS: &[&str] = &["page-cursor", "page-limit"];

/// A failure on its way out. `envelope` adds the request id and writes the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) check: &'static str,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
    /// What only the log is told.
    pub(super) log: Option<String>,
    /// The schemes by which one would be let in (RFC 9110, section 11.6.1), where that is the
    /// failure.
    pub(super) challenge: &'static str,
}

/// On an answer: its body says what went wrong, in a form of its own, and is to stay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rendered;

/// The body of every failure (RFC 9457).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// `urn:countersign:problem:` and the check.
    #[schema(example = "urn:countersign:problem:serial-taken")]
    r#type: String,
    /// What kind of failure, the same for each of its kind.
    #[schema(example = "The current state does not allow this")]
    title: &'a str,
    /// The HTTP status.
    #[schema(example = 409)]
    status: u16,
    /// One sentence about this occurrence.
    detail: &'a str,
    /// Stable name of the check that failed.
    #[schema(example = "serial-taken")]
    check: &'a str,
    /// As in the `X-Request-Id` header; the server's log has it too.
    request_id: &'a str,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        check: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let detail = clip(detail.into());
        Self { status, check, title, detail, log: None, challenge: "Bearer" }
    }

    /// Names the schemes by which one would be let in.
    pub(super) fn challenging(self, challenge: &'static str) -> Self {
        Self { challenge, ..self }
    }

    /// A body that is not said to be JSON.
    pub(super) fn media_type() -> Self {
        let (title, detail) = ("The media type is not JSON", "send application/json");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", title, detail)
    }

    fn malformed(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, check, "The request is malformed", detail)
    }

    /// A query parameter that is unknown, repeated or of the wrong form.
    pub(super) fn query(check: &'static str, detail: impl Into<String>) -> Self {
        Self::malformed(check, detail)
    }

    /// A body where none belongs, or not the body that belongs there.
    pub(super) fn body(detail: impl Into<String>) -> Self {
        Self::malformed("body", detail)
    }

    /// A field whose value is refused.
    pub(super) fn value(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, check, "A value is refused", detail)
    }

    pub(crate) fn not_found(what: &str) -> Self {
        let detail = format!("there is no such {what}");
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub(super) fn unknown_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "path", "Unknown path", "see /v1/openapi.json")
    }

    pub(super) fn wrong_method() -> Self {
        let detail = "this path has other methods: see the Allow header";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "Wrong method", detail)
    }

    pub(super) fn body_too_large() -> Self {
        let detail = format!("a body has at most {} bytes", super::BODY_MAX);
        let title = "The body is too large";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", title, detail)
    }

    pub(super) fn body_timeout() -> Self {
        let detail = format!("the body did not arrive in {} s", super::BODY_TIMEOUT.as_secs());
        let title = "The body came too slowly";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", title, detail)
    }

    pub(super) fn request_timeout() -> Self {
        let detail = "the server did not finish in time; what it had begun may be done or not";
        let title = "The request took too long";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "request-timeout", title, detail)
    }

    /// A fault of the program: outside only the request id shows, inside also `log`.
    pub(super) fn internal(log: impl Into<String>) -> Self {
        let detail = "the server failed; its log has the reason under this request id";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self { log: Some(log.into()), ..Self::new(status, "internal", "Internal error", detail) }
    }

    fn unavailable(log: String) -> Self {
        let detail = "a part of the server cannot serve now; try again later";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self { log: Some(log), ..Self::new(status, "unavailable", "Unavailable", detail) }
    }

    /// For an answer that some layer made without saying why.
    pub(super) fn of_status(status: StatusCode) -> Self {
        if status.is_server_error() {
            return Self::internal(format!("a layer answered {status} without a reason"));
        }
        Self::new(status, "request", "The request is refused", "the request is refused")
    }

    /// The body.
    pub(super) fn document<'a>(&'a self, request_id: &'a str) -> Document<'a> {
        Document {
            r#type: format!("{TYPE_PREFIX}{}", self.check),
            title: self.title,
            status: self.status.as_u16(),
            detail: &self.detail,
            check: self.check,
            request_id,
        }
    }
}

fn clip(mut text: String) -> String {
    if text.len() > DETAIL_MAX {
        text.truncate(text.floor_char_boundary(DETAIL_MAX));
        text.push('…');
    }
    text
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let check = error.check();
        match error {
            ServiceError::Refused { check, detail } if STATE_CHECKS.contains(&check) => {
                let title = "The current state does not allow this";
                Self::new(StatusCode::CONFLICT, check, title, detail)
            }
            ServiceError::Refused { check, detail } if ADMISSION_CHECKS.contains(&check) => {
                let title = "The device is not let in";
                Self::new(StatusCode::FORBIDDEN, check, title, detail)
            }
            ServiceError::Refused { check, detail } if QUERY_CHECKS.contains(&check) => {
                Self::query(check, detail)
            }
            ServiceError::Refused { check, detail } => Self::value(check, detail),
            ServiceError::NotFound { what } => Self::not_found(what),
            ServiceError::Unauthenticated => {
                let (title, detail) = ("A token is needed", error.to_string());
                Self::new(StatusCode::UNAUTHORIZED, check, title, detail)
            }
            ServiceError::Forbidden { .. } => {
                let (title, detail) = ("The token does not allow this", error.to_string());
                Self::new(StatusCode::FORBIDDEN, check, title, detail)
            }
            ServiceError::AuthorisationRefused { incident } => {
                let detail = format!("the answer is refused (incident {incident})");
                Self::value(check, detail)
            }
            ServiceError::Unavailable { detail } => Self::unavailable(detail),
            ServiceError::Internal { detail } => Self::internal(detail),
            other => Self::internal(other.to_string()),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            Self::body_too_large()
        } else {
            Self::body("the body broke off")
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        match rejection {
            JsonRejection::BytesRejection(rejection) => rejection.into(),
            JsonRejection::MissingJsonContentType(_) => Self::media_type(),
            other => Self::body(other.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::query("query", rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        if rejection.status().is_server_error() {
            return Self::internal(rejection.body_text());
        }
        Self::malformed("path", "the path is not UTF-8")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
