//! The HTTP client for the server's API.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use zeroize::Zeroizing;

const TIMEOUT: Duration = Duration::from_secs(30);
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

/// A client for one server, with one token. Blocking.
pub struct Api {
    agent: Agent,
    base: String,
    token: Zeroizing<String>,
}

impl Api {
    /// For the server at `base` (`https://host:port`), whose HTTPS root is `ca` (PEM). Plain
    /// `http://` goes to loopback addresses only, so that no token crosses a network in the clear.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`] for a CA file without a certificate or a base that is not allowed.
    pub fn new(base: &str, ca: &str, token: &str) -> Result<Self, ApiError> {
        let base = base.trim_end_matches('/').to_owned();
        let unusable = |detail: String| ApiError::Unreachable { url: base.clone(), detail };
        if !(base.starts_with("https://") || is_loopback_http(&base)) {
            return Err(unusable("use https:// (http:// is for loopback only)".into()));
        }
        let root = Certificate::from_pem(ca.as_bytes())
            .map_err(|_| unusable("the CA file holds no certificate".into()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&[root]))
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .new_agent();
        Ok(Self { agent, base, token: Zeroizing::new(token.trim().to_owned()) })
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
        let sent = self.agent.post(&url).header("authorization", &*self.bearer()).send_json(body);
        answer(url, sent)
    }

    fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", *self.token))
    }
}

fn answer<T: DeserializeOwned>(
    url: String,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> Result<T, ApiError> {
    let mut response = sent
        .map_err(|error| ApiError::Unreachable { url: url.clone(), detail: error.to_string() })?;
    let status = response.status().as_u16();
    let not_ours = |detail: String| ApiError::NotOurs { url: url.clone(), detail };
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
    serde_json::from_str(&text).map_err(|error| not_ours(error.to_string()))
}

fn is_loopback_http(base: &str) -> bool {
    let Some(authority) = base.strip_prefix("http://") else { return false };
    let host = authority.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(host, _port)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
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
        for base in ["http://127.0.0.1:80", "http://[::1]:8443", "http://localhost/x"] {
            assert!(is_loopback_http(base), "{base}");
        }
        for base in [
            "http://192.0.2.1:80",
            "http://localhost.example.com",
            "http://example.com/127.0.0.1",
            "http://127.0.0.1@example.com",
            "ftp://127.0.0.1",
        ] {
            assert!(!is_loopback_http(base), "{base}");
        }
    }
}
