use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{Digest, Provider, UnixTime, VerifyingKey};
use der::Decode;
use x509_cert::certificate::Certificate;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectKeyIdentifier};

use crate::keys::Algorithms;
use crate::parsed::{CERTIFICATE_MAX, Parsed, single_uri};
use crate::{CertificateNumber, Identity, PkiError, Role, Usage};

/// Most issuing certificates one trust store holds.
const ISSUERS_MAX: usize = 8;

/// A provisioned issuing certificate: it was verified against the root when it was loaded.
struct IssuerCertificate {
    hash: Digest,
    subject: Vec<u8>,
    key_id: Vec<u8>,
    key: Arc<dyn VerifyingKey>,
    not_before: UnixTime,
    not_after: UnixTime,
    role: Role,
}

/// Remembers that a leaf's signature was verified. Expiry and revocation are checked at every use
/// all the same; only a verified leaf is ever put.
pub trait LeafCache: Send + Sync {
    /// The leaf with this hash over its DER, if remembered.
    fn find(&self, hash: &Digest) -> Option<Arc<Leaf>>;
    /// Remembers a verified leaf; the cache bounds itself.
    fn put(&self, leaf: &Arc<Leaf>);
}

/// A leaf certificate whose signature and profile were verified. Only [`TrustStore`] makes one.
pub struct Leaf {
    identity: Identity,
    usage: Usage,
    number: CertificateNumber,
    point: Vec<u8>,
    key: Arc<dyn VerifyingKey>,
    not_before: UnixTime,
    not_after: UnixTime,
    hash: Digest,
    /// Which issuing certificate vouched for it.
    issuer: Digest,
}

impl Leaf {
    /// Whom the certificate speaks for.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The certificate's serial number ("certificate number" in C4).
    #[must_use]
    pub const fn number(&self) -> &CertificateNumber {
        &self.number
    }

    /// The certified public key.
    #[must_use]
    pub fn key(&self) -> &dyn VerifyingKey {
        &*self.key
    }

    /// Hash over the certificate's DER: a cache's key. It identifies bytes, not a holder: an ECDSA
    /// signature has a second form, so ban by [`Self::number`].
    #[must_use]
    pub const fn hash(&self) -> &Digest {
        &self.hash
    }

    /// Another leaf, as far as a cache can tell.
    #[cfg(test)]
    pub(crate) fn with_hash(&self, number: usize) -> Self {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Self {
            identity: self.identity.clone(),
            number: self.number.clone(),
            point: self.point.clone(),
            key: self.key.clone(),
            hash,
            ..*self
        }
    }

    fn check_time(&self, now: UnixTime) -> Result<(), PkiError> {
        check_time(self.not_before, self.not_after, now)
    }
}

/// An encryption certificate whose signature and profile were verified. Only
/// [`TrustStore::verify_encryption`] makes one.
pub struct EncryptionLeaf(Arc<Leaf>);

impl EncryptionLeaf {
    /// Whom the certificate speaks for: the holder of a signing certificate of this identity.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.0.identity()
    }

    /// The certificate's serial number.
    #[must_use]
    pub fn number(&self) -> &CertificateNumber {
        self.0.number()
    }

    /// The key to encrypt to: SEC1 uncompressed point, on the curve.
    #[must_use]
    pub fn point(&self) -> &[u8] {
        &self.0.point
    }

    /// Hash over the certificate's DER.
    #[must_use]
    pub fn hash(&self) -> &Digest {
        self.0.hash()
    }
}

/// The issuing certificates a party trusts, each for one role.
pub struct TrustStore {
    provider: Provider,
    issuers: Vec<IssuerCertificate>,
    revoked: Vec<CertificateNumber>,
}

impl TrustStore {
    /// An empty store, which trusts nobody.
    #[must_use]
    pub const fn new(provider: Provider) -> Self {
        Self { provider, issuers: Vec::new(), revoked: Vec::new() }
    }

    /// Trusts `issuer` (DER), which `root` (DER) must have issued, to certify subjects in `role`.
    ///
    /// # Errors
    /// What is wrong with either certificate; [`PkiError::TooManyIssuers`].
    pub fn trust(
        &mut self,
        root: &[u8],
        issuer: &[u8],
        role: Role,
        now: UnixTime,
    ) -> Result<(), PkiError> {
        if self.issuers.len() >= ISSUERS_MAX {
            return Err(PkiError::TooManyIssuers);
        }
        let root_parsed = Parsed::new(&self.provider, root)?;
        let root_key = root_parsed.key(&self.provider)?;
        if root_parsed.check_ca()?.path_len_constraint == Some(0) {
            return Err(PkiError::WrongRole); // RFC 5280 §6.1.4: no intermediate below it
        }
        root_key
            .verify(root_parsed.tbs, &root_parsed.signature)
            .map_err(|_| PkiError::BadSignature)?;
        check_time(root_parsed.not_before, root_parsed.not_after, now)?;

        let parsed = Parsed::new(&self.provider, issuer)?;
        parsed.check_ca()?;
        if parsed.issuer != root_parsed.subject {
            return Err(PkiError::UnknownIssuer);
        }
        root_key.verify(parsed.tbs, &parsed.signature).map_err(|_| PkiError::BadSignature)?;
        check_time(parsed.not_before, parsed.not_after, now)?;
        self.issuers.push(IssuerCertificate {
            hash: self.provider.hash.hash(&[issuer]),
            key: parsed.key(&self.provider)?,
            key_id: parsed.extension::<SubjectKeyIdentifier>()?.0.as_bytes().to_vec(),
            subject: parsed.subject,
            // An issuer cannot vouch for longer than its own root.
            not_before: parsed.not_before.max(root_parsed.not_before),
            not_after: parsed.not_after.min(root_parsed.not_after),
            role,
        });
        Ok(())
    }

    /// Refuses the leaf with this number from now on.
    pub fn revoke(&mut self, number: CertificateNumber) {
        self.revoked.push(number);
    }

    /// Verifies a signing leaf (DER) for `role` at `now`: profile, issuer, validity, revocation,
    /// and the issuer's signature unless `cache` remembers that. One signature verification at
    /// most.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify(
        &self,
        der: &[u8],
        role: Role,
        now: UnixTime,
        cache: Option<&dyn LeafCache>,
    ) -> Result<Arc<Leaf>, PkiError> {
        self.verify_for(Usage::Signing, der, role, now, cache)
    }

    /// Verifies an encryption leaf (DER), otherwise as [`Self::verify`]. That it belongs to the one
    /// who is being talked to is for the caller to check: same identity as the signing leaf.
    ///
    /// # Errors
    /// The first check that fails.
    pub fn verify_encryption(
        &self,
        der: &[u8],
        role: Role,
        now: UnixTime,
        cache: Option<&dyn LeafCache>,
    ) -> Result<EncryptionLeaf, PkiError> {
        self.verify_for(Usage::Encryption, der, role, now, cache).map(EncryptionLeaf)
    }

    fn verify_for(
        &self,
        usage: Usage,
        der: &[u8],
        role: Role,
        now: UnixTime,
        cache: Option<&dyn LeafCache>,
    ) -> Result<Arc<Leaf>, PkiError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(PkiError::Malformed);
        }
        let hash = self.provider.hash.hash(&[der]);
        // A cache may have outlived the trust under which it was filled.
        let vouched = |leaf: &Arc<Leaf>| {
            let role = leaf.identity.role();
            self.issuers.iter().any(|one| one.hash == leaf.issuer && one.role == role)
        };
        let leaf = match cache.and_then(|cache| cache.find(&hash)).filter(vouched) {
            Some(leaf) => leaf,
            None => {
                let leaf = Arc::new(self.verify_signature(usage, der, hash, role, now)?);
                if let Some(cache) = cache {
                    cache.put(&leaf);
                }
                leaf
            }
        };
        if leaf.identity.role() != role {
            return Err(PkiError::WrongRole);
        }
        if leaf.usage != usage {
            return Err(PkiError::WrongUsage);
        }
        leaf.check_time(now)?;
        if self.revoked.contains(&leaf.number) {
            return Err(PkiError::Revoked);
        }
        Ok(leaf)
    }

    fn verify_signature(
        &self,
        usage: Usage,
        der: &[u8],
        hash: Digest,
        role: Role,
        now: UnixTime,
    ) -> Result<Leaf, PkiError> {
        let parsed = Parsed::new(&self.provider, der)?;
        let identity = parsed.check_leaf(usage)?;
        if identity.role() != role {
            return Err(PkiError::WrongRole);
        }
        let authority: AuthorityKeyIdentifier = parsed.extension()?;
        let key_id = authority.key_identifier.ok_or(PkiError::Malformed)?;
        let mut named = self
            .issuers
            .iter()
            .filter(|issuer| issuer.subject == parsed.issuer && issuer.key_id == key_id.as_bytes())
            .peekable();
        named.peek().ok_or(PkiError::UnknownIssuer)?;
        // A device CA cannot make servers, nor the other way round.
        let issuer = named.find(|issuer| issuer.role == role).ok_or(PkiError::WrongRole)?;
        check_time(parsed.not_before, parsed.not_after, now)?;
        check_time(issuer.not_before, issuer.not_after, now)?;
        let key = parsed.key(&self.provider)?;
        issuer.key.verify(parsed.tbs, &parsed.signature).map_err(|_| PkiError::BadSignature)?;
        Ok(Leaf {
            identity,
            usage,
            number: parsed.number,
            point: parsed.point,
            key,
            not_before: parsed.not_before.max(issuer.not_before),
            not_after: parsed.not_after.min(issuer.not_after),
            hash,
            issuer: issuer.hash,
        })
    }
}

/// Until when a certificate of our own says it holds; nothing about it is verified.
///
/// # Errors
/// [`PkiError::Malformed`] if it does not parse.
pub fn not_after(der: &[u8]) -> Result<UnixTime, PkiError> {
    let certificate = Certificate::from_der(der)?;
    let not_after = certificate.tbs_certificate().validity().not_after;
    Ok(UnixTime::from_secs(not_after.to_unix_duration().as_secs()))
}

/// The number of a certificate of our own; nothing about it is verified.
///
/// # Errors
/// [`PkiError::Malformed`] if it does not parse.
pub fn number(der: &[u8]) -> Result<CertificateNumber, PkiError> {
    let certificate = Certificate::from_der(der)?;
    CertificateNumber::from_bytes(certificate.tbs_certificate().serial_number().as_bytes())
}

/// Whom a certificate of our own says it speaks for; nothing about it is verified.
///
/// # Errors
/// [`PkiError::Malformed`] if it does not parse, [`PkiError::BadIdentity`].
pub fn identity(der: &[u8]) -> Result<Identity, PkiError> {
    let certificate = Certificate::from_der(der)?;
    let extensions = certificate.tbs_certificate().extensions();
    single_uri(extensions.map(Vec::as_slice).unwrap_or_default())
}

/// The key that a certificate certifies, as its SEC1 point; nothing about it is verified.
///
/// # Errors
/// [`PkiError::Malformed`] or [`PkiError::WrongAlgorithm`].
pub fn certified_point(provider: &Provider, der: &[u8]) -> Result<Vec<u8>, PkiError> {
    let certificate = Certificate::from_der(der)?;
    let spki = certificate.tbs_certificate().subject_public_key_info();
    Algorithms::of(provider)?.point(spki).map(<[u8]>::to_vec)
}

fn check_time(not_before: UnixTime, not_after: UnixTime, now: UnixTime) -> Result<(), PkiError> {
    if now < not_before {
        Err(PkiError::NotYetValid)
    } else if now > not_after {
        Err(PkiError::Expired)
    } else {
        Ok(())
    }
}
