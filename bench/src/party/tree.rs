//! Keys and certificates that both channels use: the same leaf of the reader, the same P-256 keys,
//! the same depth (a leaf under a provisioned issuer).

use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::{Provider, SoftwareKey, UnixTime};
use countersign_net::SystemRng;
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, TlsName, TrustStore, Validity, parse_request,
    request, self_signed,
};

use crate::Fallible;

/// When the measured handshakes take place.
pub(crate) const NOW: UnixTime = testkit::pki::NOW;
/// Serial number of the reader.
pub(crate) const READER: &str = "RD-1";
/// The server's id, and its DNS name in TLS.
pub(crate) const SERVER: &str = "srv-1";
/// The sleeve's id.
pub(crate) const SLEEVE: &str = "SLV-1";
/// The manager's id.
pub(crate) const MANAGER: &str = "MGR-1";

const VALIDITY: Duration = Duration::from_secs(90 * 86_400);

/// A key and its certificate, DER.
pub(crate) struct Party {
    pub(crate) key: SoftwareKey,
    pub(crate) certificate: Vec<u8>,
    pub(crate) number: CertificateNumber,
}

/// A root, an issuer of those who begin, an issuer of those who answer, and one leaf of each role.
pub(crate) struct Tree {
    pub(crate) provider: Provider,
    root: Vec<u8>,
    pub(crate) reader_issuer: Vec<u8>,
    pub(crate) server_issuer: Vec<u8>,
    pub(crate) reader: Party,
    pub(crate) server: Party,
    pub(crate) sleeve: Party,
    pub(crate) manager: Party,
    /// The server's key under a TLS profile: rustls wants a DNS name.
    pub(crate) tls_server: Vec<u8>,
    /// A key that no certificate is for.
    pub(crate) stray: SoftwareKey,
}

impl Tree {
    /// A fresh tree in the P-256 suite, on AWS-LC.
    pub(crate) fn new() -> Fallible<Self> {
        Self::on(countersign_crypto::aws_lc::provider())
    }

    /// A fresh tree in the provider's suite.
    pub(crate) fn on(provider: Provider) -> Fallible<Self> {
        let mut rng = SystemRng::default();
        let validity = Validity::from(NOW, VALIDITY);
        let root_key = provider.signature.generate(&mut rng)?;
        let number = CertificateNumber::random(&mut rng);
        let root = self_signed(&provider, "Root", root_key.key.public_key(), number, validity)?
            .sign(&*root_key.key, &mut rng)?;
        let mut issuer = |name: &str| -> Fallible<(SoftwareKey, Vec<u8>)> {
            let key = provider.signature.generate(&mut rng)?;
            let number = CertificateNumber::random(&mut rng);
            let certificate = Issuer::from_certificate(&provider, &root)?
                .prepare_intermediate(name, key.key.public_key(), number, validity)?
                .sign(&*root_key.key, &mut rng)?;
            Ok((key, certificate))
        };
        let (readers_key, reader_issuer) = issuer("Readers")?;
        let (servers_key, server_issuer) = issuer("Servers")?;
        let mut leaf = |key: &SoftwareKey, issuer: &[u8], role, id: &str| -> Fallible<Party> {
            let own = provider.signature.generate(&mut rng)?;
            let csr = request(&provider, &Identity::new(role, id)?, &*own.key, &mut rng)?;
            let requested = parse_request(&provider, &csr)?;
            let number = CertificateNumber::random(&mut rng);
            let certificate = Issuer::from_certificate(&provider, issuer)?
                .prepare(&requested, role, number.clone(), validity)?
                .sign(&*key.key, &mut rng)?;
            Ok(Party { key: own, certificate, number })
        };
        let reader = leaf(&readers_key, &reader_issuer, Role::Reader, READER)?;
        let server = leaf(&servers_key, &server_issuer, Role::Server, SERVER)?;
        let sleeve = leaf(&readers_key, &reader_issuer, Role::Sleeve, SLEEVE)?;
        let manager = leaf(&servers_key, &server_issuer, Role::Manager, MANAGER)?;
        let names = vec![TlsName::Dns(SERVER.into())];
        let number = CertificateNumber::random(&mut rng);
        let point = server.key.key.public_key();
        let tls_server = Issuer::from_certificate(&provider, &server_issuer)?
            .prepare_tls(names, point, number, validity)?
            .sign(&*servers_key.key, &mut rng)?;
        let stray = provider.signature.generate(&mut rng)?;
        Ok(Self {
            provider,
            root,
            reader_issuer,
            server_issuer,
            reader,
            server,
            sleeve,
            manager,
            tls_server,
            stray,
        })
    }

    /// Trust in this tree.
    pub(crate) fn trust(&self) -> Fallible<Arc<TrustStore>> {
        let mut trust = TrustStore::new(self.provider.clone());
        for role in [Role::Reader, Role::Sleeve] {
            trust.trust(&self.root, &self.reader_issuer, role, NOW)?;
        }
        for role in [Role::Server, Role::Manager] {
            trust.trust(&self.root, &self.server_issuer, role, NOW)?;
        }
        Ok(Arc::new(trust))
    }
}
