//! Where this server is for a browser, and whose pages may ask it (D2).
//!
//! No cookie lets anyone in, so a foreign page gains nothing by asking in its visitor's name. It is
//! refused all the same, before anything of its request is looked at.

use std::borrow::Cow;

use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use url::{Host, Url};

use super::Api;
use super::problem::Problem;

/// Where a request comes from, as browsers tell it (Fetch Metadata Request Headers).
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Under which scheme, host and port browsers know this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    tls: bool,
    public: Option<String>,
}

impl Site {
    /// `tls`: whether this server itself speaks TLS. `public`: the configured origin, which goes
    /// before what a request says; without a slash at its end.
    #[must_use]
    pub fn new(tls: bool, public: Option<String>) -> Self {
        Self { tls, public }
    }

    /// Whether browsers may keep in mind that this host is asked over HTTPS only: it was configured
    /// so, and is no name of this computer, which other programs have too.
    pub(crate) fn is_https_only(&self) -> bool {
        let url = self.public.as_deref().and_then(|public| Url::parse(public).ok());
        url.is_some_and(|url| {
            let is_local = match url.host() {
                Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
                Some(Host::Ipv4(address)) => address.is_loopback(),
                Some(Host::Ipv6(address)) => address.is_loopback(),
                None => true,
            };
            url.scheme() == "https" && !is_local
        })
    }

    /// The origin under which a request came: `https://host:port`; none if it says no host.
    pub(crate) fn base(&self, uri: &Uri, headers: &HeaderMap) -> Option<Cow<'_, str>> {
        if let Some(public) = &self.public {
            return Some(Cow::Borrowed(public));
        }
        let authority = authority(uri, headers)?;
        let (scheme, usual) = if self.tls { ("https", ":443") } else { ("http", ":80") };
        let authority = authority.as_str().to_ascii_lowercase();
        let authority = authority.strip_suffix(usual).unwrap_or(&authority);
        Some(Cow::Owned(format!("{scheme}://{authority}")))
    }

    /// The URL that was asked for, as far as its path.
    pub(crate) fn url(&self, parts: &Parts) -> Option<String> {
        // The path as it came, not as a nested router sees it.
        let original = parts.extensions.get::<OriginalUri>();
        let uri = original.map_or(&parts.uri, |original| &original.0);
        Some(format!("{}{}", self.base(uri, &parts.headers)?, uri.path()))
    }

    /// Whether a request may come from where it says it does. What is no browser says nothing.
    fn admits(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut origins = headers.get_all(ORIGIN).iter();
        let ours = match (origins.next(), origins.next()) {
            (None, _) => true,
            (Some(origin), None) => {
                self.base(uri, headers).is_some_and(|base| origin.as_bytes() == base.as_bytes())
            }
            (Some(_), Some(_)) => false,
        };
        ours && (own(headers) || is_navigation(method, headers))
    }
}

/// Where the request says it goes: HTTP/2 says so in the URI, HTTP/1 in a header.
fn authority(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(HOST).iter();
    let said = match (uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, _) => Some(authority.clone()),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).ok(),
        _ => None,
    };
    said.filter(|authority| !authority.as_str().contains('@'))
}

/// Whether a page of ours asks, the user himself, or no browser.
fn own(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(FETCH_SITE).iter();
    match (sites.next(), sites.next()) {
        (None, _) => true,
        (Some(site), None) => site == "same-origin" || site == "none",
        (Some(_), Some(_)) => false,
    }
}

/// Whether a browser goes to a page in a window of its own: following a link from anywhere.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    let says = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|is| is == value);
    let reads = method == Method::GET || method == Method::HEAD;
    reads && says(&FETCH_MODE, "navigate") && says(&FETCH_DEST, "document")
}

/// Refuses requests of foreign pages, before anything else of them is looked at.
pub(super) async fn screen(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.site.admits(request.method(), request.uri(), request.headers()) {
        return next.run(request).await;
    }
    let detail = "a page of another site asks: only this server's own pages may";
    Problem::new(StatusCode::FORBIDDEN, "origin", "Another site asks", detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        // `collect` keeps the last of two; `append` keeps both.
        let mut headers = HeaderMap::new();
        pairs.iter().map(pair).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn admits(site: &Site, pairs: &[(&'static str, &str)]) -> bool {
        site.admits(&Method::GET, &Uri::from_static("/v1/health"), &of(pairs))
    }

    #[test]
    fn own_pages_and_what_is_no_browser_are_let_in_and_foreign_pages_are_not() {
        let site = Site::new(true, None);
        let host = ("host", "127.0.0.1:8443");
        for good in [
            &[][..],
            &[host],
            &[host, ("origin", "https://127.0.0.1:8443")],
            &[("host", "Pay.Example:443"), ("origin", "https://pay.example")],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
        ] {
            assert!(admits(&site, good), "{good:?}");
        }
        for bad in [
            &[host, ("origin", "null")][..],
            &[host, ("origin", "")],
            &[host, ("origin", "https://evil.example")],
            &[host, ("origin", "http://127.0.0.1:8443")],
            &[host, ("origin", "https://127.0.0.1:8444")],
            &[host, ("origin", "https://127.0.0.1:8443/")],
            &[host, ("origin", "https://127.0.0.1:8443"), ("origin", "https://evil.example")],
            &[("origin", "https://127.0.0.1:8443")],
            &[host, host, ("origin", "https://127.0.0.1:8443")],
            &[("host", "a@pay.example"), ("origin", "https://a@pay.example")],
            &[host, ("sec-fetch-site", "cross-site")],
            // Another port of this machine is the same site, and not ours.
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[host, ("origin", "https://127.0.0.1:8443"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!admits(&site, bad), "{bad:?}");
        }
    }

    #[test]
    fn a_link_from_elsewhere_opens_a_page_in_its_own_window_only() {
        let site = Site::new(true, None);
        let asked = |method: Method, mode: &str, dest: &str| {
            let headers = of(&[
                ("host", "h"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-mode", mode),
                ("sec-fetch-dest", dest),
            ]);
            site.admits(&method, &Uri::from_static("/phone"), &headers)
        };
        assert!(asked(Method::GET, "navigate", "document"));
        for (method, mode, dest) in [
            (Method::POST, "navigate", "document"),
            (Method::GET, "navigate", "iframe"),
            (Method::GET, "no-cors", "image"),
            (Method::GET, "no-cors", "script"),
            (Method::GET, "cors", "empty"),
            (Method::GET, "cors", "document"),
        ] {
            assert!(!asked(method.clone(), mode, dest), "{method} {mode} {dest}");
        }
    }

    #[test]
    fn https_only_is_said_of_a_configured_host_that_is_elsewhere() {
        let of = |public: Option<&str>| Site::new(true, public.map(str::to_owned)).is_https_only();
        assert!(of(Some("https://pay.example")) && of(Some("https://pay.example:8443")));
        for local in [
            None,
            Some("http://pay.example"),
            Some("https://localhost:8443"),
            Some("https://pay.localhost"),
            Some("https://127.0.0.2"),
            Some("https://[::1]:8443"),
        ] {
            assert!(!of(local), "{local:?}");
        }
    }

    #[test]
    fn a_configured_origin_goes_before_what_requests_say() {
        let behind = Site::new(false, Some("https://pay.example".to_owned()));
        assert!(admits(&behind, &[("host", "10.0.0.7:80"), ("origin", "https://pay.example")]));
        assert!(!admits(&behind, &[("host", "10.0.0.7:80"), ("origin", "http://10.0.0.7")]));
        let mut parts = Request::get("/v1/phone?x=1").body(()).unwrap().into_parts().0;
        assert_eq!(behind.url(&parts).as_deref(), Some("https://pay.example/v1/phone"));
        assert_eq!(Site::new(true, None).url(&parts), None, "no host is said");
        parts.headers = of(&[("host", "h:8443")]);
        assert_eq!(Site::new(true, None).url(&parts).as_deref(), Some("https://h:8443/v1/phone"));
        parts.uri = Uri::from_static("https://other:1/v1/phone");
        assert_eq!(Site::new(true, None).url(&parts).as_deref(), Some("https://other:1/v1/phone"));
    }
}
