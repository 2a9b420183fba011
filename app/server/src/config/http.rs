//! `[http]`: how clients reach the API and the pages.

use serde::Deserialize;
use url::{Host, Url};

use super::quoted;

/// How clients reach the API and the pages: `[http]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "HttpSection")]
pub struct Http {
    public_url: Option<String>,
}

impl Http {
    /// Scheme, host and port under which browsers know this server, without a slash at the end;
    /// none: as each request says.
    #[must_use]
    pub fn public_url(&self) -> Option<&str> {
        self.public_url.as_deref()
    }

    pub(super) fn section(&self) -> String {
        let url = match &self.public_url {
            Some(url) => format!("public-url = {}\n", quoted(url)),
            None => {
                "# public-url = \"https://pay.example\"  # else as each request says\n".to_owned()
            }
        };
        format!(
            "[http]\n\
             # Scheme, host and port under which browsers reach the pages, where a proxy stands\n\
             # in between. Links begin with it, and requests of pages from elsewhere are refused.\n\
             {url}\n"
        )
    }
}

/// A `[http]` section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HttpSection {
    public_url: Option<String>,
}

impl TryFrom<HttpSection> for Http {
    type Error = String;

    fn try_from(HttpSection { public_url }: HttpSection) -> Result<Self, String> {
        Ok(Self { public_url: public_url.as_deref().map(origin).transpose()? })
    }
}

/// The origin that a URL is, if it is one and nothing more.
fn origin(text: &str) -> Result<String, String> {
    let refused = || {
        let words = "public-url is https:// with a host and, if wanted, a port, and nothing more; \
                     http:// for localhost only";
        words.to_owned()
    };
    let url = Url::parse(text).map_err(|_| refused())?;
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(refused()),
    };
    // Browsers keep no keys for pages that come over plain HTTP from elsewhere.
    let scheme = url.scheme() == "https" || (url.scheme() == "http" && local);
    let origin = url.origin().ascii_serialization();
    let whole = url.as_str().trim_end_matches('/') == origin;
    if scheme && whole { Ok(origin) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<Http, String> {
        let section = format!("public-url = {}", quoted(url));
        toml::from_str(&section).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_public_url_is_an_origin() {
        for (text, origin) in [
            ("https://pay.example", "https://pay.example"),
            ("https://Pay.Example:443/", "https://pay.example"),
            ("https://pay.example:8443", "https://pay.example:8443"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(parsed(text).unwrap().public_url(), Some(origin), "{text}");
        }
        for text in [
            "",
            "pay.example",
            "http://pay.example",
            "ftp://pay.example",
            "https://pay.example/shop",
            "https://pay.example?x=1",
            "https://pay.example#key",
            "https://name:word@pay.example",
            "https://",
        ] {
            let refused = parsed(text).expect_err(text);
            assert!(refused.starts_with("public-url is"), "{text}: {refused}");
        }
        assert_eq!(toml::from_str::<Http>("").unwrap().public_url(), None);
        assert!(toml::from_str::<Http>("url = \"https://pay.example\"").is_err());
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        for http in [Http::default(), parsed("https://pay.example").unwrap()] {
            let text = http.section();
            let read: std::collections::BTreeMap<String, Http> = toml::from_str(&text).unwrap();
            assert_eq!(read["http"], http, "{text}");
        }
    }
}
