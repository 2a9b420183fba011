//! A service in memory, its router, operators with tokens, and readers with keys.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use countersign_crypto::{Provider, SecureElement, UnixTime};
use countersign_hsm::{FileVault, MemoryStorage};
use countersign_net::Clock;
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role as PkiRole, Validity, parse_request, request,
    self_signed,
};
use countersign_server::http;
use countersign_service::{
    Actor, Ambient, Authority, Policy, SamConnector, SamPool, SamPort, Service, WebhookClient,
    WebhookFailure, WebhookFuture, WebhookPolicy, WebhookRequest, Webhooks,
};
use countersign_store::{Role, Store};
use serde_json::{Value, json};
use testkit::pki::{LEAF_VALIDITY, NOW, encryption};
use testkit::rng::seeded;
use tower::ServiceExt;

/// The id in the server's certificate.
pub(crate) const SERVER_ID: &str = "test-server";

/// A clock that moves when it is told to.
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A SAM port that cannot be opened.
pub(crate) struct NoSam;

/// What the system says about it; health must not repeat it.
pub(crate) const SAM_FAILURE: &str = "the private reason";

impl SamConnector for NoSam {
    fn name(&self) -> &str {
        "/dev/ttySAM0"
    }

    fn open(&self) -> io::Result<Box<dyn SamPort>> {
        Err(io::Error::other(SAM_FAILURE))
    }
}

/// Receivers of webhooks that nobody reaches.
struct NoReceivers;

impl WebhookClient for NoReceivers {
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> WebhookFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(std::future::ready(Err(io::Error::other("there is no network here"))))
    }

    fn post<'a>(
        &'a self,
        _request: &'a WebhookRequest,
        _address: SocketAddr,
    ) -> WebhookFuture<'a, Result<u16, WebhookFailure>> {
        Box::pin(std::future::ready(Err(WebhookFailure::Connect)))
    }
}

/// The server under test.
pub(crate) struct World {
    pub(crate) service: Arc<Service>,
    pub(crate) router: Router,
    /// Of an operator with the role `admin`.
    pub(crate) admin: String,
    clock: Arc<TestClock>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is exactly the problem with these parts and nothing else.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, check: &str, title: &str, detail: &str) {
        let expected = json!({
            "type": format!("urn:countersign:problem:{check}"),
            "title": title,
            "status": status,
            "detail": detail,
            "check": check,
            "requestId": self.header("x-request-id"),
        });
        assert_eq!(self.json(), expected);
        assert_eq!(self.status.as_u16(), status);
        assert_eq!(self.header("content-type"), "application/problem+json");
    }

    /// Checks that this is a problem of this status and check.
    #[track_caller]
    pub(crate) fn assert_check(&self, status: u16, check: &str) {
        let body = self.json();
        assert_eq!((self.status.as_u16(), body["check"].as_str()), (status, Some(check)), "{body}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(body["requestId"], self.header("x-request-id"));
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_sams(Vec::new()).await
    }

    pub(crate) async fn with_sams(connectors: Vec<Arc<dyn SamConnector>>) -> Self {
        Self::build(connectors, provider(), Policy::default()).await
    }

    /// A server whose certificates are of this provider's suite.
    pub(crate) async fn of_suite(provider: Provider) -> Self {
        Self::build(Vec::new(), provider, Policy::default()).await
    }

    /// A server with this policy.
    pub(crate) async fn with_policy(policy: Policy) -> Self {
        Self::build(Vec::new(), provider(), policy).await
    }

    async fn build(
        connectors: Vec<Arc<dyn SamConnector>>,
        provider: Provider,
        policy: Policy,
    ) -> Self {
        let clock = Arc::new(TestClock(AtomicU64::new(NOW.as_millis())));
        let seed = AtomicU64::new(1);
        let ambient = Ambient {
            clock: clock.clone(),
            rng: Arc::new(move || Box::new(seeded(seed.fetch_add(1, Ordering::SeqCst)))),
        };
        let sams = SamPool::start(connectors, Default::default(), &ambient);
        let store = Store::in_memory().await.unwrap();
        let service = Service::new(store, authority(provider), sams, policy, ambient);
        let vault = FileVault::new(MemoryStorage::new(), seeded(77));
        let service = service
            .with_vault(Arc::new(vault), Arc::new(tr34::aws_lc::AwsLc))
            .with_ciphers(Arc::new(tr31::aws_lc::AwsLc))
            .with_webhooks(Webhooks {
                policy: WebhookPolicy::default(),
                client: Arc::new(NoReceivers),
                mac: countersign_crypto::aws_lc::provider().mac,
            });
        let service = Arc::new(service);
        let router = http::router(
            service.clone(),
            http::metrics::install(),
            tokio::sync::watch::channel(false).1,
            http::Site::new(true, None),
        );
        let mut world = Self { service, router, admin: String::new(), clock };
        world.admin = world.token("admin", &[Role::Admin]).await;
        world
    }

    /// The token of a new operator.
    pub(crate) async fn token(&self, name: &str, roles: &[Role]) -> String {
        let (_, token) = self.service.add_operator(&Actor::Console, name, roles).await.unwrap();
        token.secret.to_string()
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.clock.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 22).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// A GET with a token.
    pub(crate) async fn get_with(&self, token: &str, path: &str) -> Answer {
        self.send(build(Method::GET, path, token, Body::empty())).await
    }

    /// A GET by the admin.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(&self.admin, path).await
    }

    /// A POST of a text that is said to be JSON, by the admin.
    pub(crate) async fn post_text(&self, path: &str, text: impl Into<Body>) -> Answer {
        self.send(build(Method::POST, path, &self.admin, text.into())).await
    }

    /// A POST by the admin.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    /// Enrols a reader with a key of its own; its id.
    pub(crate) async fn reader(&self, serial: &str, seed: u64) -> String {
        let request = csr(PkiRole::Reader, serial, &*key(seed));
        let answer = self.post("/v1/readers", &json!({ "request": pem_of(&request) })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
        answer.json()["reader"]["id"].as_str().unwrap().to_owned()
    }
}

/// A request with a token and a JSON content type.
pub(crate) fn build(method: Method, path: &str, token: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body)
        .unwrap()
}

pub(crate) fn provider() -> Provider {
    countersign_crypto::rust_crypto::provider()
}

/// A device's key.
pub(crate) fn key(seed: u64) -> Arc<dyn SecureElement> {
    key_of(&provider(), seed)
}

/// A device's key of this suite.
pub(crate) fn key_of(provider: &Provider, seed: u64) -> Arc<dyn SecureElement> {
    provider.signature.generate(&mut seeded(seed)).unwrap().key
}

/// A PKCS#10 request, DER.
pub(crate) fn csr(role: PkiRole, id: &str, key: &dyn SecureElement) -> Vec<u8> {
    csr_of(&provider(), role, id, key)
}

/// A PKCS#10 request in this suite, DER.
pub(crate) fn csr_of(
    provider: &Provider,
    role: PkiRole,
    id: &str,
    key: &dyn SecureElement,
) -> Vec<u8> {
    request(provider, &Identity::new(role, id).unwrap(), key, &mut seeded(9)).unwrap()
}

/// A PKCS#10 request, PEM.
pub(crate) fn pem_of(request: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request))
}

/// A root, its two issuing CAs and a server's certificate.
fn authority(provider: Provider) -> Authority {
    let mut rng = seeded(0);
    let validity = Validity::from(NOW, 10 * LEAF_VALIDITY);
    let keys: Vec<Arc<dyn SecureElement>> =
        (100..105).map(|seed| key_of(&provider, seed)).collect();
    let [root_key, device_key, issuer_key, server_key, audit_key] = keys.try_into().ok().unwrap();
    let number = CertificateNumber::random(&mut rng);
    let root = self_signed(&provider, "Root", root_key.public_key(), number, validity)
        .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
        .unwrap();
    let issuer = Issuer::from_certificate(&provider, &root).unwrap();
    let mut intermediate = |name, key: &dyn SecureElement| {
        let number = CertificateNumber::random(&mut rng);
        issuer
            .prepare_intermediate(name, key.public_key(), number, validity)
            .and_then(|prepared| prepared.sign(&*root_key, &mut rng))
            .unwrap()
    };
    let device_issuer = intermediate("Readers", &*device_key);
    let server_issuer = intermediate("Servers", &*issuer_key);
    let requested =
        parse_request(&provider, &csr_of(&provider, PkiRole::Server, SERVER_ID, &*server_key))
            .unwrap();
    let number = CertificateNumber::random(&mut rng);
    let server = Issuer::from_certificate(&provider, &server_issuer)
        .and_then(|issuer| issuer.prepare(&requested, PkiRole::Server, number, validity))
        .and_then(|prepared| prepared.sign(&*issuer_key, &mut rng))
        .unwrap();
    let identity = Identity::new(PkiRole::Server, SERVER_ID).unwrap();
    let issuer = (server_issuer.as_slice(), &*issuer_key);
    let server_encryption = encryption(&provider, issuer, &identity, validity, &mut rng);
    Authority {
        provider,
        root,
        device_issuer,
        device_issuer_key: device_key,
        server_issuer,
        server,
        server_key,
        server_encryption,
        server_id: SERVER_ID.to_owned(),
        audit_key,
    }
}
