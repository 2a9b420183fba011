//! What the head of a request must say before a byte of its body is read.

use hyper::header::{
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, CONTENT_TYPE,
    HOST, HeaderMap, HeaderName, ORIGIN,
};
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::PageOrigin;

/// Longest body, in bytes: a request of [`countersign_payment::REQUEST_MAX`] in base64url, a token,
/// and their names.
pub(super) const BODY_MAX: usize = 8 * 1024;
/// The one path.
const PATH: &str = "/confirm";
const JSON: &str = "application/json";

/// Fetch's predecessor of local network access: a page of the internet asks for a private address.
const PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// What the head asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether the page may send what it wants to send.
    Preflight {
        /// It says that it asks for a private address.
        private_network: bool,
    },
    /// A device's answer; the body follows.
    Answer,
}

/// Why the head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadHead {
    /// Called by another name than loopback's: a name of somebody's that was made to mean this
    /// machine (DNS rebinding).
    Host,
    /// Another page, or none.
    Origin,
    Path,
    Method,
    ContentType,
    TooLarge,
}

impl BadHead {
    pub(super) const fn check(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Path => "path",
            Self::Method => "method",
            Self::ContentType => "content-type",
            Self::TooLarge => "body-too-large",
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Origin => StatusCode::FORBIDDEN,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// Whether the page may read the refusal: it is the one page.
    pub(super) const fn is_told_to_the_page(self) -> bool {
        !matches!(self, Self::Host | Self::Origin)
    }
}

/// Judges a head, strangers first.
pub(super) fn judge(head: &Parts, origin: &PageOrigin, port: u16) -> Result<Asked, BadHead> {
    let host = only(&head.headers, &HOST).ok_or(BadHead::Host)?;
    let ours = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{port}"));
    // A target with a host of its own (RFC 9112, section 3.2.2) is for proxies.
    if head.uri.authority().is_some() || !ours.iter().any(|name| host == name) {
        return Err(BadHead::Host);
    }
    if only(&head.headers, &ORIGIN) != Some(origin.as_str()) {
        return Err(BadHead::Origin);
    }
    if head.uri.path_and_query().map(|path| path.as_str()) != Some(PATH) {
        return Err(BadHead::Path);
    }
    if head.method == Method::OPTIONS {
        return preflight(&head.headers);
    }
    if head.method != Method::POST {
        return Err(BadHead::Method);
    }
    // Only with this type does a browser ask first whether it may send it to us at all.
    if !only(&head.headers, &CONTENT_TYPE).is_some_and(is_json) {
        return Err(BadHead::ContentType);
    }
    let length = only(&head.headers, &CONTENT_LENGTH).map(str::parse::<usize>);
    if length.is_some_and(|length| !length.is_ok_and(|length| length <= BODY_MAX)) {
        return Err(BadHead::TooLarge);
    }
    Ok(Asked::Answer)
}

fn preflight(headers: &HeaderMap) -> Result<Asked, BadHead> {
    if only(headers, &ACCESS_CONTROL_REQUEST_METHOD) != Some("POST") {
        return Err(BadHead::Method);
    }
    let wanted = only(headers, &ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
    let mut wanted = wanted.split(',').map(str::trim).filter(|name| !name.is_empty());
    if !wanted.all(|name| name.eq_ignore_ascii_case(CONTENT_TYPE.as_str())) {
        return Err(BadHead::ContentType);
    }
    let private_network = only(headers, &PRIVATE_NETWORK) == Some("true");
    Ok(Asked::Preflight { private_network })
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next().filter(|_| values.next().is_none())?;
    first.to_str().ok()
}

fn is_json(value: &str) -> bool {
    let (kind, parameter) = value.split_once(';').unwrap_or((value, ""));
    let parameter = parameter.trim();
    kind.trim().eq_ignore_ascii_case(JSON)
        && (parameter.is_empty() || parameter.eq_ignore_ascii_case("charset=utf-8"))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    const PORT: u16 = 4567;
    const OWN: [(&str, &str); 3] = [
        ("host", "127.0.0.1:4567"),
        ("origin", "https://pay.example.com"),
        ("content-type", "application/json"),
    ];

    /// The judgement on a request with these headers beside, or instead of, the right ones; an
    /// empty value takes one away.
    fn judged(method: &str, path: &str, changed: &[(&str, &str)]) -> Result<Asked, BadHead> {
        let mut request = Request::builder().method(method).uri(path);
        let kept = OWN.iter().filter(|(name, _)| !changed.iter().any(|(other, _)| name == other));
        for (name, value) in kept.chain(changed).filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        judge(&head, &PageOrigin::of("https://pay.example.com").unwrap(), PORT)
    }

    #[test]
    fn the_page_is_heard() {
        assert_eq!(judged("POST", "/confirm", &[]), Ok(Asked::Answer));
        for more in [
            ("host", "localhost:4567"),
            ("content-type", "application/json; charset=UTF-8"),
            ("content-length", "8192"),
        ] {
            assert_eq!(judged("POST", "/confirm", &[more]), Ok(Asked::Answer), "{more:?}");
        }
    }

    #[test]
    fn another_host_is_a_rebound_name() {
        for host in [
            "",
            "evil.example:4567",
            "127.0.0.1",
            "localhost",
            "127.0.0.1:4568",
            "127.0.0.1:4567.evil.example",
            "localhost.:4567",
            "[::1]:4567",
            "0.0.0.0:4567",
            "127.0.0.1:4567, localhost:4567",
        ] {
            let said = judged("POST", "/confirm", &[("host", host)]);
            assert_eq!(said, Err(BadHead::Host), "{host}");
        }
        let both = [("host", "127.0.0.1:4567"), ("host", "evil.example")];
        assert_eq!(judged("POST", "/confirm", &both), Err(BadHead::Host));
        let absolute = judged("POST", "http://127.0.0.1:4567/confirm", &[]);
        assert_eq!(absolute, Err(BadHead::Host));
    }

    #[test]
    fn another_page_is_refused_whatever_it_asks() {
        for origin in [
            "",
            "null",
            "https://evil.example",
            "http://pay.example.com",
            "https://pay.example.com:443",
            "https://pay.example.com.",
            "https://PAY.example.com",
            "https://pay.example.com/",
            "https://pay.example.com.evil.example",
            "http://127.0.0.1:4567",
            "https://pay.example.com https://evil.example",
        ] {
            for (method, path) in [("POST", "/confirm"), ("OPTIONS", "/confirm"), ("GET", "/")] {
                let said = judged(method, path, &[("origin", origin)]);
                assert_eq!(said, Err(BadHead::Origin), "{method} {origin}");
            }
        }
        let both = [("origin", "https://pay.example.com"), ("origin", "https://evil.example")];
        assert_eq!(judged("POST", "/confirm", &both), Err(BadHead::Origin));
    }

    #[test]
    fn simple_requests_which_need_no_preflight_are_refused() {
        for kind in [
            "",
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/plain; application/json",
            "application/json; charset=utf-16",
            "application/jsonp",
        ] {
            let said = judged("POST", "/confirm", &[("content-type", kind)]);
            assert_eq!(said, Err(BadHead::ContentType), "{kind}");
        }
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "TRACE"] {
            assert_eq!(judged(method, "/confirm", &[]), Err(BadHead::Method), "{method}");
        }
        for path in ["/", "/confirm/", "/confirm?x", "/Confirm", "//confirm", "/phone"] {
            assert_eq!(judged("POST", path, &[]), Err(BadHead::Path), "{path}");
        }
    }

    #[test]
    fn a_length_that_is_too_much_or_none_is_refused() {
        for length in ["8193", "99999999999999999999999", "-1", "x"] {
            let said = judged("POST", "/confirm", &[("content-length", length)]);
            assert_eq!(said, Err(BadHead::TooLarge), "{length}");
        }
    }

    #[test]
    fn a_preflight_is_granted_for_the_one_request_only() {
        let method = ("access-control-request-method", "POST");
        let headers = ("access-control-request-headers", "content-type");
        let private = ("access-control-request-private-network", "true");
        let granted = |private_network| Ok(Asked::Preflight { private_network });
        assert_eq!(judged("OPTIONS", "/confirm", &[method, headers]), granted(false));
        assert_eq!(judged("OPTIONS", "/confirm", &[method, headers, private]), granted(true));
        let get = ("access-control-request-method", "GET");
        assert_eq!(judged("OPTIONS", "/confirm", &[get]), Err(BadHead::Method));
        assert_eq!(judged("OPTIONS", "/confirm", &[]), Err(BadHead::Method));
        let more = ("access-control-request-headers", "content-type, authorization");
        assert_eq!(judged("OPTIONS", "/confirm", &[method, more]), Err(BadHead::ContentType));
    }
}
