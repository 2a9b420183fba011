//! The origin of the page that a helper answers (RFC 6454, section 6.2).

use std::fmt;

use hyper::Uri;
use zeroize::Zeroizing;

use super::HelperError;
use crate::api::is_loopback;

/// Longest origin, in bytes.
const ORIGIN_MAX: usize = 300;

/// A page's origin, as browsers write it: scheme, host in lower case, and the port unless it is
/// the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageOrigin(String);

impl PageOrigin {
    /// The origin of pages at `url`. Plain `http://` is for loopback only: anybody on the way could
    /// be the page.
    ///
    /// # Errors
    /// [`HelperError::Origin`].
    pub fn of(url: &str) -> Result<Self, HelperError> {
        let refused = |why| Err(HelperError::Origin(why));
        let Ok(uri) = url.parse::<Uri>() else { return refused("it is not a URL") };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return refused("it names no scheme and host");
        };
        if url.len() > ORIGIN_MAX || authority.as_str().contains('@') {
            return refused("it is too long, or names a user");
        }
        let host = authority.host().to_ascii_lowercase();
        let own_port = match scheme {
            "https" => 443,
            "http" if is_loopback(&host) => 80,
            _ => return refused("use https:// (http:// is for loopback only)"),
        };
        if host.is_empty() {
            return refused("it names no host");
        }
        // The library passes over a port that is none.
        let port = match authority.as_str()[host.len()..].strip_prefix(':').map(str::parse::<u16>) {
            None => String::new(),
            Some(Ok(port)) if port == own_port => String::new(),
            Some(Ok(port)) => format!(":{port}"),
            Some(Err(_)) => return refused("its port is none"),
        };
        Ok(Self(format!("{scheme}://{host}{port}")))
    }

    /// As browsers send it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL at which the page learns of a helper.
    pub(super) fn page(&self, port: u16, token: &str) -> Zeroizing<String> {
        Zeroizing::new(format!("{}/phone#helper={port}.{token}", self.0))
    }
}

impl fmt::Display for PageOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (url, origin) in [
            ("https://localhost:8443", "https://localhost:8443"),
            ("https://Pay.Example.COM:443/phone?x", "https://pay.example.com"),
            ("https://192.0.2.1/", "https://192.0.2.1"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("http://127.0.0.1:80/", "http://127.0.0.1"),
            ("http://localhost:8080", "http://localhost:8080"),
        ] {
            assert_eq!(PageOrigin::of(url).unwrap().as_str(), origin);
        }
    }

    #[test]
    fn what_is_no_origin_of_a_trusted_page_is_refused() {
        let long = format!("https://{}.example.com", "a".repeat(ORIGIN_MAX));
        for url in [
            "",
            "null",
            "*",
            "localhost:8443",
            "/phone",
            "http://pay.example.com",
            "http://127.0.0.1@pay.example.com",
            "https://user@pay.example.com",
            "ftp://localhost",
            "file:///phone",
            "https://",
            "https://localhost:99999",
            "https://localhost:",
            "https://a b",
            &long,
        ] {
            let refused = PageOrigin::of(url).err().map(|error| error.check());
            assert_eq!(refused, Some("helper-origin"), "{url}");
        }
    }
}
