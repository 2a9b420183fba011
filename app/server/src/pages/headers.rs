//! The headers that keep a page to itself: who may run scripts in it, frame it, or learn of it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// What a page is for decides whom it may speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageKind {
    /// The phone's pages: they also speak to the helper on this computer's loopback.
    Phone,
    /// The checkout's pages, and files.
    Checkout,
}

/// Everything is forbidden but what the pages use. Scripts and styles come from this server's files
/// only; `form-action 'none'`, because forms are sent by script, with a proof; markup that a script
/// sets must have passed the one policy `countersign-part` (Trusted Types).
macro_rules! policy {
    ($connect:literal) => {
        concat!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
             connect-src ",
            $connect,
            "; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
             require-trusted-types-for 'script'; trusted-types countersign-part"
        )
    };
}

/// No sensor, no camera, no other device: a page that was taken over gets none of them either. Not
/// named are the features for a local network, by which a browser asks before it lets the page
/// speak to the helper.
const PERMISSIONS: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), \
    gyroscope=(), hid=(), identity-credentials-get=(), magnetometer=(), microphone=(), midi=(), \
    payment=(), publickey-credentials-get=(), screen-wake-lock=(), \
    serial=(), usb=(), xr-spatial-tracking=()";

/// A year in which a browser asks this host over HTTPS only (RFC 6797), so that nobody between them
/// serves a page in its place to a payer who types a name. Not for names below it: they may be
/// others'.
const HTTPS_ONLY: &str = "max-age=31536000";

/// Sets them. Caching is not among them: the server lets nothing be kept unless a file says so.
/// `https_only`: the operator has said that this host is found under HTTPS.
pub(crate) fn set(headers: &mut HeaderMap, kind: PageKind, https_only: bool) {
    let policy = match kind {
        PageKind::Phone => policy!("'self' http://127.0.0.1:*"),
        PageKind::Checkout => policy!("'self'"),
    };
    let fixed: [(HeaderName, &'static str); 7] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        // For browsers older than `frame-ancestors`.
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS),
        (header::VARY, "Accept-Language"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if https_only {
        let value = HeaderValue::from_static(HTTPS_ONLY);
        headers.insert(header::STRICT_TRANSPORT_SECURITY, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy_of(kind: PageKind) -> String {
        let mut headers = HeaderMap::new();
        set(&mut headers, kind, false);
        headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
    }

    #[test]
    fn only_the_phone_may_speak_to_the_helper() {
        assert!(policy_of(PageKind::Phone).contains("connect-src 'self' http://127.0.0.1:*;"));
        assert!(policy_of(PageKind::Checkout).contains("connect-src 'self';"));
    }

    #[test]
    fn https_alone_is_asked_for_where_it_was_configured() {
        for kind in [PageKind::Phone, PageKind::Checkout] {
            let mut headers = HeaderMap::new();
            set(&mut headers, kind, false);
            assert!(!headers.contains_key(header::STRICT_TRANSPORT_SECURITY));
            set(&mut headers, kind, true);
            assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000");
        }
    }

    #[test]
    fn nothing_unsafe_is_allowed_and_the_policy_is_one_line() {
        for kind in [PageKind::Phone, PageKind::Checkout] {
            let policy = policy_of(kind);
            assert!(!policy.contains("unsafe") && !policy.contains("  "), "{policy}");
            assert!(policy.starts_with("default-src 'none';"), "{policy}");
            for part in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
                assert!(policy.contains(part), "{part}");
            }
        }
    }
}
