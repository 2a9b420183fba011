//! rustls on AWS-LC: mutual TLS 1.3, P-256 certificates, X25519, AES-128-GCM, no resumption.

use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use super::tree::{NOW, SERVER, Tree};
use super::{Client, Server};
use crate::Fallible;

/// The clock stands still, as it does for our own channel.
#[derive(Debug)]
struct Still;

impl TimeProvider for Still {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(NOW.as_secs())))
    }
}

/// Only the algorithms that our own suite has.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}

fn private_key(key: &countersign_crypto::SoftwareKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.pkcs8.expose().to_vec()))
}

/// Trust in one issuer, which is provisioned at the verifier as ours is.
fn anchor(issuer: &[u8]) -> Fallible<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(issuer.to_vec()))?;
    Ok(Arc::new(roots))
}

/// What any number of connections share.
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    impostor: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// Between the tree's reader and server.
    pub(crate) fn new(tree: &Tree) -> Fallible<Self> {
        let readers = anchor(&tree.reader_issuer)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(readers, provider()).build()?;
        let mut server = ServerConfig::builder_with_details(provider(), Arc::new(Still))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from(tree.tls_server.clone())],
                private_key(&tree.server.key),
            )?;
        // No resumption: no tickets to make, none to take.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            client: client(tree, &tree.reader.key)?,
            impostor: client(tree, &tree.stray)?,
            server: Arc::new(server),
        })
    }

    /// A client with certificate and key.
    pub(crate) fn client(&self) -> Fallible<TlsClient> {
        connect(&self.client)
    }

    /// A client with a true certificate that it has no key to: refused at its signature.
    pub(crate) fn impostor(&self) -> Fallible<TlsClient> {
        connect(&self.impostor)
    }

    /// The server's end of a new connection.
    pub(crate) fn server(&self) -> TlsServer {
        TlsServer(ServerConnection::new(self.server.clone()))
    }
}

fn client(tree: &Tree, key: &countersign_crypto::SoftwareKey) -> Fallible<Arc<ClientConfig>> {
    let servers = anchor(&tree.server_issuer)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(servers, provider()).build()?;
    let chain = vec![CertificateDer::from(tree.reader.certificate.clone())];
    let signing = aws_lc_rs::sign::any_supported_type(&private_key(key))?;
    let certified = SingleCertAndKey::from(CertifiedKey::new(chain, signing));
    let mut client = ClientConfig::builder_with_details(provider(), Arc::new(Still))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_client_cert_resolver(Arc::new(certified));
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

fn connect(config: &Arc<ClientConfig>) -> Fallible<TlsClient> {
    Ok(TlsClient(ClientConnection::new(config.clone(), ServerName::try_from(SERVER)?)?))
}

/// The client's end.
pub(crate) struct TlsClient(pub(crate) ClientConnection);

/// The server's end; none if it could not even start.
pub(crate) struct TlsServer(Result<ServerConnection, rustls::Error>);

/// All that a connection wants to send.
macro_rules! flight {
    ($connection:expr) => {{
        let mut flight = Vec::new();
        while $connection.wants_write() {
            // Writing into memory does not fail.
            if $connection.write_tls(&mut flight).is_err() {
                break;
            }
        }
        flight
    }};
}

/// Takes all bytes in, as rustls asks for them.
macro_rules! take_in {
    ($connection:expr, $flight:expr) => {{
        let mut rest: &[u8] = $flight;
        let mut taken = Ok(());
        while !rest.is_empty() && taken.is_ok() {
            let read = $connection.read_tls(&mut rest);
            taken = read
                .map_err(|error| rustls::Error::General(error.to_string()))
                .and_then(|_| $connection.process_new_packets().map(drop));
        }
        taken
    }};
}

impl Client for TlsClient {
    fn answer(&mut self, flight: &[u8]) -> Fallible<Vec<u8>> {
        take_in!(self.0, flight)?;
        Ok(flight!(self.0))
    }
}

impl TlsClient {
    /// Seals `data` into records.
    pub(crate) fn seal(&mut self, data: &[u8]) -> Fallible<Vec<u8>> {
        self.0.writer().write_all(data)?;
        Ok(flight!(self.0))
    }

    /// Opens records into `data`, which must be as long as what they hold.
    pub(crate) fn open(&mut self, records: &[u8], data: &mut [u8]) -> Fallible<()> {
        take_in!(self.0, records)?;
        Ok(self.0.reader().read_exact(data)?)
    }

    /// The closing alert.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        self.0.send_close_notify();
        flight!(self.0)
    }
}

impl TlsServer {
    /// As [`TlsClient::seal`].
    pub(crate) fn seal(&mut self, data: &[u8]) -> Fallible<Vec<u8>> {
        let connection = self.0.as_mut().map_err(|error| error.clone())?;
        connection.writer().write_all(data)?;
        Ok(flight!(connection))
    }

    /// As [`TlsClient::open`].
    pub(crate) fn open(&mut self, records: &[u8], data: &mut [u8]) -> Fallible<()> {
        let connection = self.0.as_mut().map_err(|error| error.clone())?;
        take_in!(connection, records)?;
        Ok(connection.reader().read_exact(data)?)
    }

    /// As [`TlsClient::close`].
    pub(crate) fn close(&mut self) -> Vec<u8> {
        match &mut self.0 {
            Ok(connection) => {
                connection.send_close_notify();
                flight!(connection)
            }
            Err(_) => Vec::new(),
        }
    }
}

impl Server for TlsServer {
    type Refusal = rustls::Error;

    fn receive(&mut self, flight: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let connection = self.0.as_mut().map_err(|error| error.clone())?;
        let taken = take_in!(connection, flight);
        let answer = flight!(connection);
        taken.map(|()| answer)
    }

    fn check(refusal: &rustls::Error) -> String {
        format!("{refusal:?}")
    }

    fn is_connected(&self) -> bool {
        self.0.as_ref().is_ok_and(|connection| !connection.is_handshaking())
    }
}
