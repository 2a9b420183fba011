//! The HTTP client of webhooks: one request per connection, to an address that was checked before.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use axum::http::{Method, Request};
use countersign_service::{WebhookClient, WebhookFailure, WebhookFuture, WebhookRequest};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use crate::data_dir::DataError;

/// Most bytes of an answer's head that are read; of its body none is.
const HEAD_MAX: usize = 16 * 1024;
/// Most headers of an answer.
const HEADERS_MAX: usize = 64;
/// What requests say they come from.
const AGENT: &str = concat!("countersign/", env!("CARGO_PKG_VERSION"));

/// Trusts the system's roots and those of one file.
pub(crate) struct HttpWebhooks {
    own_roots: Vec<CertificateDer<'static>>,
    /// Made when it is first needed: the system's roots are many files.
    tls: OnceLock<Option<Arc<ClientConfig>>>,
}

impl HttpWebhooks {
    /// With the roots of a PEM file beside the system's.
    ///
    /// # Errors
    /// [`DataError`] if the file cannot be read or holds no certificate.
    pub(crate) fn new(roots: Option<&Path>) -> Result<Self, DataError> {
        let own_roots = match roots {
            Some(path) => read_roots(path)?,
            None => Vec::new(),
        };
        Ok(Self { own_roots, tls: OnceLock::new() })
    }

    fn tls(&self) -> Option<Arc<ClientConfig>> {
        self.tls.get_or_init(|| self.make_tls()).clone()
    }

    fn make_tls(&self) -> Option<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        let (known, _passed_over) = roots.add_parsable_certificates(system.certs);
        if known == 0 {
            tracing::warn!("the system has no root certificates: see [webhooks] roots");
        }
        for root in &self.own_roots {
            roots.add(root.clone()).ok()?; // it was parsed at the start
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().ok()?;
        Some(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    }

    async fn send(
        &self,
        request: &WebhookRequest,
        address: SocketAddr,
    ) -> Result<u16, WebhookFailure> {
        let url = Url::parse(&request.url).map_err(|_| WebhookFailure::Connect)?;
        let stream = TcpStream::connect(address).await.map_err(|_| WebhookFailure::Connect)?;
        let request = http_request(&url, request).ok_or(WebhookFailure::Connect)?;
        if url.scheme() != "https" {
            return exchange(stream, request).await;
        }
        let name = server_name(&url).ok_or(WebhookFailure::Tls)?;
        let config = self.tls().ok_or(WebhookFailure::Tls)?;
        let connecting = TlsConnector::from(config).connect(name, stream);
        let stream = connecting.await.map_err(|error| {
            tracing::debug!(%error, "a webhook's TLS failed");
            WebhookFailure::Tls
        })?;
        exchange(stream, request).await
    }
}

fn read_roots(path: &Path) -> Result<Vec<CertificateDer<'static>>, DataError> {
    let failed = |detail: String| DataError::Config { path: path.to_owned(), detail };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let found = pem::parse_many(text).map_err(|error| failed(error.to_string()))?;
    let roots: Vec<_> = found
        .into_iter()
        .filter(|one| one.tag() == "CERTIFICATE")
        .map(|one| CertificateDer::from(one.into_contents()))
        .collect();
    let mut trusted = RootCertStore::empty();
    for root in &roots {
        trusted.add(root.clone()).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    Ok(roots)
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(ServerName::IpAddress(std::net::IpAddr::V4(address).into())),
        Host::Ipv6(address) => Some(ServerName::IpAddress(std::net::IpAddr::V6(address).into())),
    }
}

fn http_request(url: &Url, request: &WebhookRequest) -> Option<Request<Body>> {
    let host = url.host_str()?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Request::builder()
        .method(Method::POST)
        .uri(format!("{}{query}", url.path()))
        .header(HOST, host)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .header(CONTENT_TYPE, "application/cloudevents+json; charset=UTF-8")
        .header("webhook-id", &request.id)
        .header("webhook-timestamp", request.timestamp.to_string())
        .header("webhook-signature", &request.signature)
        .body(Body::from(request.body.clone()))
        .ok()
}

/// Sends the request and reads the answer's head. The connection ends with this.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Body>,
) -> Result<u16, WebhookFailure> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
    let handshake = builder.handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(|_| WebhookFailure::Answer)?;
    let (mut answer, mut connection) = (pin!(sender.send_request(request)), pin!(connection));
    let mut open = true;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer,
            _ended = &mut connection, if open => open = false,
        }
    };
    Ok(answer.map_err(|_| WebhookFailure::Answer)?.status().as_u16())
}

impl WebhookClient for HttpWebhooks {
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> WebhookFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }

    fn post<'a>(
        &'a self,
        request: &'a WebhookRequest,
        address: SocketAddr,
    ) -> WebhookFuture<'a, Result<u16, WebhookFailure>> {
        Box::pin(self.send(request, address))
    }
}

#[cfg(test)]
mod tests;
