//! The HTTP client for the server's API.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::typestate::WithBody;
use ureq::{Agent, RequestBuilder};
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stream of events may be silent; servers break the silence in 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Longest event read, in bytes.
const EVENT_MAX: usize = 64 * 1024;
/// Largest answer read, in bytes.
const ANSWER_MAX: u64 = 1024 * 1024;

/// Why a call did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApiError {
    /// The server refused and named the check.
    #[error("{detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stable name of the failed check.
        check: String,
        /// A sentence.
        detail: String,
    },
    /// The URL that was given is not allowed for a server.
    #[error("the server's URL: {detail}")]
    Url {
        /// Why; the URL itself is not repeated, it may hold a password.
        detail: String,
    },
    /// The CA file that was given is of no use.
    #[error("the CA file holds no certificate in PEM: {detail}")]
    CaFile {
        /// What is wrong with it.
        detail: String,
    },
    /// The server cannot be reached, or does not prove to be the one `--ca` vouches for.
    #[error("{url}: {detail}")]
    Unreachable {
        /// What was called.
        url: String,
        /// What the system or TLS library said.
        detail: String,
    },
    /// The answer is not one of this API.
    #[error("{url} does not answer as a Countersign server does: {detail}")]
    NotOurs {
        /// What was called.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ApiError {
    /// Whether nobody knows what became of a request, or the server had no place for it (429): ask
    /// again, or ask how things stand.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            Self::Unreachable { .. } => true,
            _ => false,
        }
    }
}

/// A client for one server, with one token. Blocking.
pub struct Api {
    agent: Agent,
    base: String,
    scheme: &'static str,
    token: Zeroizing<String>,
}

impl Api {
    /// For the server at `base` (`https://host:port`), whose HTTPS root is `ca` (PEM). Plain
    /// `http://` goes to loopback addresses only, so that no token crosses a network in the clear.
    ///
    /// No proxy is used, whatever `HTTPS_PROXY` and its like say: a token for a loopback server
    /// must not leave the machine, and a server of this kind is reached directly.
    ///
    /// # Errors
    /// [`ApiError::Url`] for a base that is not allowed; [`ApiError::CaFile`].
    pub fn new(base: &str, ca: &str, token: &str) -> Result<Self, ApiError> {
        check_base(base).map_err(|detail| ApiError::Url { detail: detail.to_owned() })?;
        let base = base.trim_end_matches('/').to_owned();
        let root = Certificate::from_pem(ca.as_bytes())
            .map_err(|error| ApiError::CaFile { detail: error.to_string() })?;
        // The TLS library passes over what it cannot parse, and then trusts nobody.
        countersign_pki::not_after(root.der())
            .map_err(|error| ApiError::CaFile { detail: error.to_string() })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&[root]))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .new_agent();
        Ok(Self { agent, base, scheme: "Bearer", token: Zeroizing::new(token.trim().to_owned()) })
    }

    /// The same for a checkout page's key, which speaks for one payment.
    ///
    /// # Errors
    /// As [`Api::new`].
    pub fn checkout(base: &str, ca: &str, key: &str) -> Result<Self, ApiError> {
        Ok(Self { scheme: "Checkout", ..Self::new(base, ca, key)? })
    }

    /// GETs and parses the JSON answer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.base);
        let sent = self.agent.get(&url).header("authorization", &*self.bearer()).call();
        answer(url, sent)
    }

    /// POSTs JSON and parses the JSON answer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.post(&url).header("authorization", &*self.bearer());
        answer(url, send(request, body))
    }

    /// POSTs JSON under an `Idempotency-Key` and parses the JSON answer: the same key and body
    /// again is answered as the first time and does nothing twice.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn post_once<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.base);
        let post = self.agent.post(&url).header("authorization", &*self.bearer());
        answer(url, send(post.header("idempotency-key", key), body))
    }

    /// GETs the JSON answer as it came, not parsed: for what is kept as a file.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn get_text(&self, path: &str) -> Result<String, ApiError> {
        let url = format!("{}{path}", self.base);
        let sent = self.agent.get(&url).header("authorization", &*self.bearer()).call();
        answer_text(&url, sent)
    }

    /// PUTs JSON and parses the JSON answer.
    ///
    /// # Errors
    /// [`ApiError`].
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ApiError> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.put(&url).header("authorization", &*self.bearer());
        answer(url, send(request, body))
    }

    /// Reads a stream of server-sent events until it ends or `told` breaks off. A stream that is
    /// silent for 45 s is given up: the server would have broken the silence.
    ///
    /// # Errors
    /// [`ApiError`]; [`ApiError::NotOurs`] for a stream that is none.
    pub fn events(
        &self,
        path: &str,
        mut told: impl FnMut(&ServerEvent) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ApiError> {
        let url = format!("{}{path}", self.base);
        let request = self.agent.get(&url).header("authorization", &*self.bearer());
        let request = request.header("accept", "text/event-stream").config();
        let request = request.timeout_global(None).timeout_recv_response(Some(TIMEOUT));
        let sent = request.timeout_per_read(Some(SILENCE_MAX)).build().call();
        let mut response = match sent {
            Ok(response) if response.status() == 200 => response,
            other => {
                answer_text(&url, other)?;
                let detail = "the answer is no stream of events".to_owned();
                return Err(ApiError::NotOurs { url, detail });
            }
        };
        let mut lines = BufReader::new(response.body_mut().as_reader());
        let mut event = ServerEvent::default();
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut lines).take(EVENT_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut line).map_err(|error| {
                ApiError::Unreachable { url: url.clone(), detail: error.to_string() }
            })?;
            if read == 0 {
                return Ok(ControlFlow::Continue(()));
            }
            let not_ours =
                |detail: &str| ApiError::NotOurs { url: url.clone(), detail: detail.to_owned() };
            if line.len() + event.data.len() > EVENT_MAX {
                return Err(not_ours("an event is too long"));
            }
            let line = String::from_utf8(line).map_err(|_| not_ours("an event is not text"))?;
            if event.take_line(line.trim_end_matches(['\r', '\n'])) {
                let whole = std::mem::take(&mut event);
                if told(&whole).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{} {}", self.scheme, *self.token))
    }
}

/// One server-sent event (HTML, section 9.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its type; empty if it has none.
    pub kind: String,
    /// Its id, if it has one.
    pub id: String,
    /// Its data; several lines are joined by line breaks.
    pub data: String,
}

impl ServerEvent {
    /// Takes one line of the stream; true when it ends the event.
    fn take_line(&mut self, line: &str) -> bool {
        if line.is_empty() {
            let whole = *self != Self::default();
            if whole && self.data.ends_with('\n') {
                self.data.pop();
            }
            return whole;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "id" => value.clone_into(&mut self.id),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {} // comments, retry, and what is not known
        }
        false
    }
}

/// Sends JSON out of a buffer that is wiped: a body may hold a joint password or a PUK. What the
/// HTTP and TLS libraries copy of it into their own buffers is theirs, and is not.
fn send(
    request: RequestBuilder<WithBody>,
    body: &impl Serialize,
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    let mut length = Length(0);
    serde_json::to_writer(&mut length, body)?;
    // A buffer that grew would leave parts of it behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *bytes, body)?;
    request.header("content-type", "application/json").send(&**bytes)
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer<T: DeserializeOwned>(
    url: String,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, ApiError> {
    let text = answer_text(&url, sent)?;
    serde_json::from_str(&text)
        .map_err(|error| ApiError::NotOurs { url, detail: error.to_string() })
}

/// The text of a good answer.
fn answer_text(
    url: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<String, ApiError> {
    let mut response = sent.map_err(|error| ApiError::Unreachable {
        url: url.to_owned(),
        detail: error.to_string(),
    })?;
    let status = response.status().as_u16();
    let not_ours = |detail: String| ApiError::NotOurs { url: url.to_owned(), detail };
    let text = response
        .body_mut()
        .with_config()
        .limit(ANSWER_MAX)
        .read_to_string()
        .map_err(|error| not_ours(error.to_string()))?;
    if !(200..300).contains(&status) {
        let problem: Problem = serde_json::from_str(&text)
            .map_err(|_| not_ours(format!("HTTP {status} without a problem document")))?;
        let Problem { check, detail } = problem;
        return Err(ApiError::Refused { status, check, detail });
    }
    Ok(text)
}

/// What a token may be sent to. Judged on the parsed URL, which is also what is connected to: a
/// name before `@` is nobody's host.
fn check_base(base: &str) -> Result<(), &'static str> {
    let uri: Uri = base.parse().map_err(|_| "it is not a URL")?;
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it must not hold a user or password (`@`)");
    }
    if uri.query().is_some() || base.contains('#') {
        return Err("it must not hold a query or fragment");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_loopback(authority.host()) => Ok(()),
        _ => Err("use https:// (http:// is for loopback only)"),
    }
}

pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[derive(serde::Deserialize)]
struct Problem {
    check: String,
    #[serde(default)]
    detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cross_networks_only_under_tls() {
        for base in [
            "http://127.0.0.1:80",
            "http://[::1]:8443",
            "http://localhost/x",
            "http://LOCALHOST:1",
            "https://example.com",
            "https://192.0.2.1:8443/",
        ] {
            assert_eq!(check_base(base), Ok(()), "{base}");
        }
        for base in [
            "http://192.0.2.1:80",
            "http://localhost.example.com",
            "http://example.com/127.0.0.1",
            "http://127.0.0.1@example.com",
            "http://127.0.0.1:80@example.com",
            "http://localhost:80@example.com:80/",
            "http://[::1]:80@example.com",
            "http://user:pass@127.0.0.1:80",
            "https://user@example.com",
            "https://example.com:443@example.org",
            "https://example.com/?a=b",
            "https://example.com/#fragment",
            "ftp://127.0.0.1",
            "127.0.0.1:80",
            "https://",
            "",
        ] {
            assert!(check_base(base).is_err(), "{base}");
        }
    }

    #[test]
    fn what_nobody_knows_the_fate_of_is_lost_and_a_refusal_is_not() {
        let refused =
            |status| ApiError::Refused { status, check: "check".to_owned(), detail: String::new() };
        let (url, detail) = (String::new(), String::new());
        assert!(ApiError::Unreachable { url: url.clone(), detail: detail.clone() }.is_lost());
        for (status, is_lost) in [(422, false), (404, false), (429, true), (500, true), (503, true)]
        {
            assert_eq!(refused(status).is_lost(), is_lost, "{status}");
        }
        assert!(!ApiError::NotOurs { url, detail }.is_lost());
    }

    #[test]
    fn a_body_is_counted_before_it_is_written() {
        let body = serde_json::json!({ "jointPassword": "123456789", "more": [1, "ü\n"] });
        let mut length = Length(0);
        serde_json::to_writer(&mut length, &body).unwrap();
        assert_eq!(length.0, body.to_string().len());
    }

    #[test]
    fn events_are_read_line_by_line() {
        let mut event = ServerEvent::default();
        let stream = ["retry: 1000", "", ":", "", "event: push", "id:7", "data: {", "data:}", ""];
        let ends: Vec<bool> = stream.iter().map(|line| event.take_line(line)).collect();
        assert_eq!(ends.iter().filter(|end| **end).count(), 1, "comments are no events");
        let wanted = ServerEvent { kind: "push".into(), id: "7".into(), data: "{\n}".into() };
        assert_eq!(event, wanted);
    }

    #[test]
    fn a_refused_url_or_file_is_named_and_not_repeated() {
        let refused = |base, ca| Api::new(base, ca, "token").err();
        let error = refused("https://admin:s3cret@example.com", "").unwrap();
        assert!(matches!(error, ApiError::Url { .. }), "{error:?}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
        let junk = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        for ca in ["", "no certificate", junk] {
            let error = refused("https://example.com", ca).unwrap();
            assert!(matches!(error, ApiError::CaFile { .. }), "{error:?}");
        }
    }
}
