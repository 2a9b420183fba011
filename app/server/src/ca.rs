//! Makes the certificate trees of a new data directory.

use std::time::Duration;

use countersign_crypto::{
    CryptoRng, Provider, Secret, SecureElement, SoftwareDecryptionKey, SoftwareKey, UnixTime,
};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, PkiError, Role, TlsName, Validity, encryption_request,
    parse_request, request, self_signed,
};

const YEAR: Duration = Duration::from_secs(365 * 86_400);
const ROOT_VALIDITY: Duration = YEAR.saturating_mul(20);
const ISSUER_VALIDITY: Duration = YEAR.saturating_mul(10);
const SERVER_VALIDITY: Duration = YEAR.saturating_mul(5);
/// Browsers take no HTTPS certificate beyond 398 days.
const TLS_VALIDITY: Duration = Duration::from_secs(397 * 86_400);
/// An HTTPS certificate with less than this left is replaced when the server starts.
pub(crate) const TLS_RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// A key and its certificate.
pub(crate) struct Made {
    pub(crate) key: SoftwareKey,
    pub(crate) certificate: Vec<u8>,
}

/// A decryption key and its certificate.
pub(crate) struct MadeEncryption {
    pub(crate) key: SoftwareDecryptionKey,
    pub(crate) certificate: Vec<u8>,
}

/// Everything `init` makes.
pub(crate) struct Trees {
    pub(crate) root: Made,
    pub(crate) devices: Made,
    pub(crate) servers: Made,
    pub(crate) server: Made,
    pub(crate) server_encryption: MadeEncryption,
    pub(crate) tls_root: Made,
    pub(crate) tls: Made,
    pub(crate) audit: SoftwareKey,
}

/// What HTTPS certificates are made with, whatever the suite of the devices is.
pub(crate) fn https_provider() -> Provider {
    countersign_crypto::aws_lc::provider()
}

/// What certificates are made with.
pub(crate) struct Maker<'a> {
    pub(crate) provider: &'a Provider,
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) now: UnixTime,
}

impl Maker<'_> {
    /// Everything in the maker's suite, but for the HTTPS tree: that is P-256 always, for TLS
    /// libraries and browsers speak no SM2.
    pub(crate) fn trees(
        &mut self,
        server_id: &str,
        tls_names: &[TlsName],
    ) -> Result<Trees, PkiError> {
        let root = self.root("Countersign Root CA")?;
        let devices = self.intermediate(&root, "Countersign Device CA")?;
        let servers = self.intermediate(&root, "Countersign Server CA")?;
        let server = self.server(&servers, server_id)?;
        let (issuer, key) = (&servers.certificate, &*servers.key.key);
        let server_encryption = self.server_encryption(issuer, key, server_id)?;
        let audit = self.key()?;
        let provider = &https_provider();
        let mut https = Maker { provider, rng: self.rng, now: self.now };
        let tls_root = https.root("Countersign HTTPS Root CA")?;
        let tls = https.tls(&tls_root.certificate, &*tls_root.key.key, tls_names)?;
        Ok(Trees { root, devices, servers, server, server_encryption, tls_root, tls, audit })
    }

    fn key(&mut self) -> Result<SoftwareKey, PkiError> {
        self.provider.signature.generate(self.rng).map_err(|_| PkiError::SigningFailed)
    }

    fn number(&mut self) -> CertificateNumber {
        CertificateNumber::random(self.rng)
    }

    fn root(&mut self, name: &str) -> Result<Made, PkiError> {
        let key = self.key()?;
        let validity = Validity::from(self.now, ROOT_VALIDITY);
        let number = self.number();
        let point = key.key.public_key();
        let prepared = self_signed(self.provider, name, point, number, validity)?;
        let certificate = prepared.sign(&*key.key, self.rng)?;
        Ok(Made { key, certificate })
    }

    fn intermediate(&mut self, root: &Made, name: &str) -> Result<Made, PkiError> {
        let key = self.key()?;
        let validity = Validity::from(self.now, ISSUER_VALIDITY);
        let number = self.number();
        let certificate = Issuer::from_certificate(self.provider, &root.certificate)?
            .prepare_intermediate(name, key.key.public_key(), number, validity)?
            .sign(&*root.key.key, self.rng)?;
        Ok(Made { key, certificate })
    }

    fn server(&mut self, issuer: &Made, server_id: &str) -> Result<Made, PkiError> {
        let key = self.key()?;
        let identity = Identity::new(Role::Server, server_id)?;
        let csr = request(self.provider, &identity, &*key.key, self.rng)?;
        let requested = parse_request(self.provider, &csr)?;
        let validity = Validity::from(self.now, SERVER_VALIDITY);
        let number = self.number();
        let certificate = Issuer::from_certificate(self.provider, &issuer.certificate)?
            .prepare(&requested, Role::Server, number, validity)?
            .sign(&*issuer.key.key, self.rng)?;
        Ok(Made { key, certificate })
    }

    /// The second certificate of a server, to which others seal, and a new key for it.
    pub(crate) fn server_encryption(
        &mut self,
        issuer: &[u8],
        issuer_key: &dyn SecureElement,
        server_id: &str,
    ) -> Result<MadeEncryption, PkiError> {
        let scheme = &self.provider.sealing;
        let key = scheme.generate(self.rng).map_err(|_| PkiError::SigningFailed)?;
        let certificate = self.certify_encryption(issuer, issuer_key, server_id, &key.pkcs8)?;
        Ok(MadeEncryption { key, certificate })
    }

    /// That certificate, for a key that is there (PKCS#8).
    pub(crate) fn certify_encryption(
        &mut self,
        issuer: &[u8],
        issuer_key: &dyn SecureElement,
        server_id: &str,
        pkcs8: &Secret,
    ) -> Result<Vec<u8>, PkiError> {
        let signature = &self.provider.signature;
        let signer = signature.load_pkcs8(pkcs8).map_err(|_| PkiError::SigningFailed)?;
        let identity = Identity::new(Role::Server, server_id)?;
        let csr = encryption_request(self.provider, &identity, &*signer, self.rng)?;
        let requested = parse_request(self.provider, &csr)?;
        let validity = Validity::from(self.now, SERVER_VALIDITY);
        let number = self.number();
        Issuer::from_certificate(self.provider, issuer)?
            .prepare_encryption(&requested, Role::Server, number, validity)?
            .sign(issuer_key, self.rng)
    }

    /// An HTTPS certificate under the HTTPS root.
    pub(crate) fn tls(
        &mut self,
        root: &[u8],
        root_key: &dyn SecureElement,
        names: &[TlsName],
    ) -> Result<Made, PkiError> {
        let key = self.key()?;
        let validity = Validity::from(self.now, TLS_VALIDITY);
        let number = self.number();
        let certificate = Issuer::from_certificate(self.provider, root)?
            .prepare_tls(names.to_vec(), key.key.public_key(), number, validity)?
            .sign(root_key, self.rng)?;
        Ok(Made { key, certificate })
    }
}
