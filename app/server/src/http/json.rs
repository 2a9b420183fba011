//! The shapes of answers (interfaces.md, JSON).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use countersign_crypto::UnixTime;
use countersign_store::Page;
use pem::{EncodeConfig, LineEnding, Pem};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use utoipa::ToSchema;

use super::problem::Problem;

const RFC_3339_MILLIS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
/// What a time past the calendar's end is shown as.
const END_OF_TIME: &str = "9999-12-31T23:59:59.999Z";
/// Labels of a PKCS#10 request: RFC 7468's, and the one old tools write.
const REQUEST_LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A part of a list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<T> {
    /// The items, in the list's order.
    items: Vec<T>,
    /// The cursor of the next part; null if this is the last.
    #[schema(required)]
    next: Option<String>,
}

impl<T> List<T> {
    pub(super) fn mapped<S>(page: Page<S>, map: impl Fn(S) -> T) -> Self {
        Self { items: page.items.into_iter().map(map).collect(), next: page.next }
    }

    /// A list that has no further parts.
    pub(super) fn whole<S: Into<T>>(items: Vec<S>) -> Self {
        Self { items: items.into_iter().map(Into::into).collect(), next: None }
    }

    pub(super) fn of<S: Into<T>>(page: Page<S>) -> Self {
        Self { items: page.items.into_iter().map(Into::into).collect(), next: page.next }
    }
}

/// RFC 3339, UTC, milliseconds.
pub(super) fn timestamp(time: UnixTime) -> String {
    let nanos = i128::from(time.as_millis()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|time| time.format(RFC_3339_MILLIS).ok())
        .unwrap_or_else(|| END_OF_TIME.to_owned())
}

/// A certificate as PEM (RFC 7468).
pub(super) fn certificate_pem(der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", der), config)
}

/// A CRL as PEM (RFC 7468).
pub(super) fn crl_pem(der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("X509 CRL", der), config)
}

/// The DER of a PKCS#10 request given as PEM, or as base64 of the DER.
pub(super) fn request_der(text: &str) -> Result<Vec<u8>, Problem> {
    let refused = || {
        let detail = "request is one PKCS#10 request: PEM, or base64 of its DER";
        Problem::value("request-encoding", detail)
    };
    if text.contains("-----BEGIN") {
        return match pem::parse_many(text).map_err(|_| refused())?.as_slice() {
            [one] if REQUEST_LABELS.contains(&one.tag()) => Ok(one.contents().to_vec()),
            _ => Err(refused()),
        };
    }
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    match STANDARD.decode(compact) {
        Ok(der) if !der.is_empty() => Ok(der),
        _ => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_utc_with_milliseconds() {
        let shown = |millis| timestamp(UnixTime::from_millis(millis));
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(1_800_000_000_007), "2027-01-15T08:00:00.007Z");
        assert_eq!(shown(253_402_300_799_999), END_OF_TIME);
        assert_eq!(shown(253_402_300_800_000), END_OF_TIME);
        assert_eq!(shown(u64::MAX), END_OF_TIME);
    }

    #[test]
    fn a_request_is_pem_or_base64_and_nothing_else() {
        let pem = |label| pem::encode(&Pem::new(label, [1, 2, 3]));
        for good in [pem(REQUEST_LABELS[0]), pem(REQUEST_LABELS[1]), " AQ\r\nID\n".to_owned()] {
            assert_eq!(request_der(&good), Ok(vec![1, 2, 3]), "{good}");
        }
        let two = pem(REQUEST_LABELS[0]).repeat(2);
        for bad in ["", " ", "AQID=", "AQ-_", "-----BEGIN", &pem("CERTIFICATE"), &two] {
            let problem = request_der(bad).expect_err(bad);
            assert_eq!(problem.check, "request-encoding", "{bad}");
        }
    }
}
