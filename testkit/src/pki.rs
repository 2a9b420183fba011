//! A small PKI in memory: root, one issuing CA for readers and one for servers.

use std::sync::Arc;
use std::time::Duration;

use countersign_channel::EncryptionCredential;
use countersign_crypto::{DecryptionKey, Provider, SecureElement, SoftwareKey, UnixTime};
use countersign_pki::{
    CertificateNumber, Identity, Issuer, Role, TrustStore, Validity, encryption_request,
    parse_request, request, self_signed,
};
use rand_chacha::ChaCha20Rng;

/// The moment at which tests begin.
pub const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// How long test leaves hold.
pub const LEAF_VALIDITY: Duration = Duration::from_secs(90 * 86_400);

/// A key and its certificate.
pub struct Party {
    /// The private key.
    pub key: Arc<dyn SecureElement>,
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The certificate's number.
    pub number: CertificateNumber,
    /// Serial number or server id.
    pub id: String,
}

struct Ca {
    key: SoftwareKey,
    certificate: Vec<u8>,
}

/// A root and its two issuing CAs.
pub struct TestPki {
    /// What keys and certificates are made with.
    pub provider: Provider,
    /// Where the tree's randomness comes from.
    pub rng: ChaCha20Rng,
    root: Vec<u8>,
    readers: Ca,
    servers: Ca,
}

impl TestPki {
    /// A tree valid from [`NOW`], all its randomness from `seed`.
    #[must_use]
    pub fn new(provider: Provider, seed: u64) -> Self {
        let mut rng = crate::rng::seeded(seed);
        let validity = Validity::from(NOW, 10 * LEAF_VALIDITY);
        let root_key = provider.signature.generate(&mut rng).expect("root key");
        let number = CertificateNumber::random(&mut rng);
        let root = self_signed(&provider, "Root", root_key.key.public_key(), number, validity)
            .and_then(|prepared| prepared.sign(&*root_key.key, &mut rng))
            .expect("root");
        let issuer = Issuer::from_certificate(&provider, &root).expect("root");
        let mut ca = |name: &str| {
            let key = provider.signature.generate(&mut rng).expect("CA key");
            let number = CertificateNumber::random(&mut rng);
            let certificate = issuer
                .prepare_intermediate(name, key.key.public_key(), number, validity)
                .and_then(|prepared| prepared.sign(&*root_key.key, &mut rng))
                .expect("CA");
            Ca { key, certificate }
        };
        let readers = ca("Readers");
        let servers = ca("Servers");
        Self { provider, rng, root, readers, servers }
    }

    /// A party with its own fresh key, valid from [`NOW`] for [`LEAF_VALIDITY`].
    ///
    /// # Panics
    /// If `id` is not a serial number.
    #[must_use]
    pub fn party(&mut self, role: Role, id: &str) -> Party {
        let key = self.provider.signature.generate(&mut self.rng).expect("key").key;
        let identity = Identity::new(role, id).expect("id");
        let csr = request(&self.provider, &identity, &*key, &mut self.rng).expect("request");
        let (certificate, number) = self.certify(role, &csr);
        Party { key, certificate, number, id: id.into() }
    }

    /// The certificate (DER) for somebody's own request (DER), valid from [`NOW`] for
    /// [`LEAF_VALIDITY`], and its number.
    ///
    /// # Panics
    /// If it is no request of that role.
    #[must_use]
    pub fn certify(&mut self, role: Role, csr: &[u8]) -> (Vec<u8>, CertificateNumber) {
        let ca = match role {
            Role::Server => &self.servers,
            _ => &self.readers,
        };
        let requested = parse_request(&self.provider, csr).expect("request");
        let number = CertificateNumber::random(&mut self.rng);
        let certificate = Issuer::from_certificate(&self.provider, &ca.certificate)
            .and_then(|issuer| {
                issuer.prepare(&requested, role, number.clone(), Validity::from(NOW, LEAF_VALIDITY))
            })
            .and_then(|prepared| prepared.sign(&*ca.key.key, &mut self.rng))
            .expect("certificate");
        (certificate, number)
    }

    /// An encryption key for the party `id` and its certificate (DER), as dual-certificate
    /// deployments have.
    ///
    /// # Panics
    /// If `id` is not a serial number.
    #[must_use]
    pub fn encryption(&mut self, role: Role, id: &str) -> (Arc<dyn DecryptionKey>, Vec<u8>) {
        let ca = match role {
            Role::Reader => &self.readers,
            _ => &self.servers,
        };
        let issuer = (ca.certificate.as_slice(), &*ca.key.key);
        let validity = Validity::from(NOW, LEAF_VALIDITY);
        let identity = Identity::new(role, id).expect("id");
        let made = encryption(&self.provider, issuer, &identity, validity, &mut self.rng);
        (made.key, made.certificate)
    }

    /// The root's certificate (DER).
    #[must_use]
    pub fn root(&self) -> &[u8] {
        &self.root
    }

    /// The certificate (DER) that issues those of `role`.
    #[must_use]
    pub fn issuer(&self, role: Role) -> &[u8] {
        match role {
            Role::Server => &self.servers.certificate,
            _ => &self.readers.certificate,
        }
    }

    /// Trust in this tree, checked with `provider` (for instance one that counts).
    #[must_use]
    pub fn trust(&self, provider: Provider) -> TrustStore {
        let mut trust = TrustStore::new(provider);
        for (ca, role) in [
            (&self.readers, Role::Reader),
            (&self.readers, Role::SamHost),
            (&self.readers, Role::Terminal),
            (&self.readers, Role::Sleeve),
            (&self.readers, Role::Manager),
            (&self.servers, Role::Server),
        ] {
            trust.trust(&self.root, &ca.certificate, role, NOW).expect("trust");
        }
        trust
    }
}

/// A new encryption key and its certificate by this issuer (certificate and key), in any tree.
///
/// # Panics
/// If the issuer is none.
#[must_use]
pub fn encryption(
    provider: &Provider,
    (issuer, issuer_key): (&[u8], &dyn SecureElement),
    identity: &Identity,
    validity: Validity,
    rng: &mut ChaCha20Rng,
) -> EncryptionCredential {
    let made = provider.sealing.generate(rng).expect("key");
    let signer = provider.signature.load_pkcs8(&made.pkcs8).expect("key");
    let csr = encryption_request(provider, identity, &*signer, rng).expect("request");
    let requested = parse_request(provider, &csr).expect("request");
    let (role, number) = (identity.role(), CertificateNumber::random(rng));
    let certificate = Issuer::from_certificate(provider, issuer)
        .and_then(|issuer| issuer.prepare_encryption(&requested, role, number, validity))
        .and_then(|prepared| prepared.sign(issuer_key, rng))
        .expect("certificate");
    EncryptionCredential { key: made.key, certificate }
}

/// An encryption key without a certificate, for servers whose certificates nobody looks at.
///
/// # Panics
/// If the provider makes no key.
#[must_use]
pub fn uncertified_encryption(provider: &Provider) -> EncryptionCredential {
    let key = provider.sealing.generate(&mut crate::rng::seeded(2)).expect("key").key;
    EncryptionCredential { key, certificate: Vec::new() }
}
