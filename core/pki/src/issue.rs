use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Provider, SecureElement, UnixTime};
use der::asn1::{BitString, GeneralizedTime, Ia5String, UtcTime};
use der::{Decode, Encode};
use spki::SubjectPublicKeyInfoRef;
use x509_cert::TbsCertificate;
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::Certificate;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::time::Time;

use crate::keys::{Algorithms, SignerInfo};
use crate::{CertificateNumber, Identity, PkiError, Requested, Role, Usage};

const ID_KP_SERVER_AUTH: der::asn1::ObjectIdentifier =
    der::asn1::ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// From when to when a certificate holds; whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: UnixTime,
    /// Last moment.
    pub not_after: UnixTime,
}

/// Certificates begin this long before they are issued: the clocks of devices and servers differ.
const BACKDATED: Duration = Duration::from_secs(3600);

impl Validity {
    /// From an hour before `now` (clocks differ) until `duration` after it.
    #[must_use]
    pub fn from(now: UnixTime, duration: Duration) -> Self {
        Self { not_before: now.minus(BACKDATED), not_after: now.plus(duration) }
    }
}

/// A name in an HTTPS certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsName {
    /// A DNS name.
    Dns(String),
    /// An address.
    Ip(IpAddr),
}

enum Kind {
    Root,
    Intermediate,
    Device(Identity, Usage),
    Tls(Vec<TlsName>),
    /// Whatever a test wants to see refused.
    #[cfg(test)]
    Raw(Vec<Extension>),
}

struct Profile {
    issuer: Option<Name>,
    subject: Name,
    kind: Kind,
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, subject: &Name) -> Name {
        self.issuer.clone().unwrap_or_else(|| subject.clone())
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer_key: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        #[cfg(test)]
        if let Kind::Raw(extensions) = &self.kind {
            return Ok(extensions.clone());
        }
        let mut extensions: Vec<Extension> = Vec::new();
        let subject = tbs.subject();
        let of_ca = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        let (ca, path_len, usage) = match &self.kind {
            Kind::Root => (true, None, of_ca),
            Kind::Intermediate => (true, Some(0), of_ca),
            Kind::Device(_, usage) => (false, None, usage.key_usage()),
            Kind::Tls(_) => (false, None, Usage::Signing.key_usage()),
            #[cfg(test)]
            Kind::Raw(_) => return Ok(extensions),
        };
        extensions.push(SubjectKeyIdentifier::try_from(key)?.to_extension(subject, &extensions)?);
        if self.issuer.is_some() {
            let authority = AuthorityKeyIdentifier::try_from(issuer_key)?;
            extensions.push(authority.to_extension(subject, &extensions)?);
        }
        let constraints = BasicConstraints { ca, path_len_constraint: path_len };
        extensions.push(constraints.to_extension(subject, &extensions)?);
        extensions.push(usage.to_extension(subject, &extensions)?);
        let names = match &self.kind {
            Kind::Root | Kind::Intermediate => return Ok(extensions),
            #[cfg(test)]
            Kind::Raw(_) => return Ok(extensions),
            Kind::Device(identity, _) => {
                vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&identity.to_uri())?)]
            }
            Kind::Tls(names) => {
                let usage = ExtendedKeyUsage(vec![ID_KP_SERVER_AUTH]);
                extensions.push(usage.to_extension(subject, &extensions)?);
                names.iter().map(tls_general_name).collect::<Result<_, _>>()?
            }
        };
        extensions.push(SubjectAltName(names).to_extension(subject, &extensions)?);
        Ok(extensions)
    }
}

fn tls_general_name(name: &TlsName) -> der::Result<GeneralName> {
    Ok(match name {
        TlsName::Dns(dns) => GeneralName::DnsName(Ia5String::new(dns)?),
        TlsName::Ip(ip) => GeneralName::from(*ip),
    })
}

/// A CA certificate together with what it takes to prepare certificates under it.
///
/// The private key is not here: [`Prepared::sign`] is given it.
pub struct Issuer {
    algorithms: Algorithms,
    name: Name,
    point: Vec<u8>,
}

impl Issuer {
    /// From the CA's certificate (DER).
    ///
    /// # Errors
    /// [`PkiError::Malformed`] or [`PkiError::WrongAlgorithm`].
    pub fn from_certificate(provider: &Provider, der: &[u8]) -> Result<Self, PkiError> {
        let algorithms = Algorithms::of(provider)?;
        let certificate = Certificate::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        let point = algorithms.point(tbs.subject_public_key_info())?.to_vec();
        Ok(Self { algorithms, name: tbs.subject().clone(), point })
    }

    /// Prepares a signing leaf for `role` from a verified request.
    ///
    /// # Errors
    /// [`PkiError::WrongRole`] if the request names another role, [`PkiError::WrongUsage`] if it is
    /// for an encryption key; [`PkiError::Malformed`] if the validity cannot be encoded.
    pub fn prepare(
        &self,
        request: &Requested,
        role: Role,
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        self.prepare_leaf(request, role, Usage::Signing, number, validity)
    }

    /// Prepares an encryption leaf for `role` from a verified
    /// [`encryption_request`](crate::encryption_request).
    ///
    /// # Errors
    /// As [`Self::prepare`]: [`PkiError::WrongUsage`] if the request is for a signing key.
    pub fn prepare_encryption(
        &self,
        request: &Requested,
        role: Role,
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        self.prepare_leaf(request, role, Usage::Encryption, number, validity)
    }

    fn prepare_leaf(
        &self,
        request: &Requested,
        role: Role,
        usage: Usage,
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        let identity = request.identity().clone();
        if identity.role() != role {
            return Err(PkiError::WrongRole);
        }
        if request.usage() != usage {
            return Err(PkiError::WrongUsage);
        }
        let subject = format!("CN={},OU={},O=Countersign", identity.id(), identity.role().as_str());
        let kind = Kind::Device(identity, usage);
        self.prepare_kind(kind, &subject, request.point(), number, validity)
    }

    /// Prepares an intermediate CA's certificate (path length 0).
    ///
    /// # Errors
    /// [`PkiError::Malformed`] for a name that does not parse.
    pub fn prepare_intermediate(
        &self,
        common_name: &str,
        point: &[u8],
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        let subject = format!("CN={common_name},O=Countersign");
        self.prepare_kind(Kind::Intermediate, &subject, point, number, validity)
    }

    /// Prepares an HTTPS server certificate for `names`.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] without names or with names that are not IA5.
    pub fn prepare_tls(
        &self,
        names: Vec<TlsName>,
        point: &[u8],
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        if names.is_empty() {
            return Err(PkiError::Malformed);
        }
        let subject = "CN=Countersign HTTPS,O=Countersign";
        self.prepare_kind(Kind::Tls(names), subject, point, number, validity)
    }

    /// A certificate with exactly these extensions.
    #[cfg(test)]
    pub(crate) fn prepare_raw(
        &self,
        extensions: Vec<Extension>,
        point: &[u8],
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        self.prepare_kind(Kind::Raw(extensions), "CN=Raw", point, number, validity)
    }

    fn prepare_kind(
        &self,
        kind: Kind,
        subject: &str,
        point: &[u8],
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Prepared, PkiError> {
        let subject = Name::from_str(subject)?;
        let profile = Profile { issuer: Some(self.name.clone()), subject, kind };
        Prepared::new(self.algorithms, profile, point, &self.point, number, validity)
    }
}

/// Prepares a self-signed root for `point`.
///
/// # Errors
/// [`PkiError::Malformed`] for a name that does not parse.
pub fn self_signed(
    provider: &Provider,
    common_name: &str,
    point: &[u8],
    number: CertificateNumber,
    validity: Validity,
) -> Result<Prepared, PkiError> {
    let subject = Name::from_str(&format!("CN={common_name},O=Countersign"))?;
    let profile = Profile { issuer: None, subject, kind: Kind::Root };
    Prepared::new(Algorithms::of(provider)?, profile, point, point, number, validity)
}

/// A certificate that passed every check and lacks only its signature. Signing consumes it.
pub struct Prepared {
    builder: CertificateBuilder<Profile>,
    signer: SignerInfo,
    tbs: Vec<u8>,
    number: CertificateNumber,
    validity: Validity,
}

impl Prepared {
    fn new(
        algorithms: Algorithms,
        profile: Profile,
        point: &[u8],
        issuer_point: &[u8],
        number: CertificateNumber,
        validity: Validity,
    ) -> Result<Self, PkiError> {
        let signer = SignerInfo { algorithms, point: issuer_point.to_vec() };
        let serial = SerialNumber::new(number.as_bytes())?;
        let x509_validity = x509_cert::time::Validity::new(
            x509_time(validity.not_before)?,
            x509_time(validity.not_after)?,
        );
        let spki = algorithms.spki(point)?;
        let malformed = |_| PkiError::Malformed;
        let mut builder =
            CertificateBuilder::new(profile, serial, x509_validity, spki).map_err(malformed)?;
        let tbs = builder.finalize(&signer).map_err(malformed)?;
        Ok(Self { builder, signer, tbs, number, validity })
    }

    /// The number the certificate will have: the intent is stored under it.
    #[must_use]
    pub const fn number(&self) -> &CertificateNumber {
        &self.number
    }

    /// The validity the certificate will have.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs with the issuer's key and yields the certificate's DER.
    ///
    /// # Errors
    /// [`PkiError::SigningFailed`] if `key` is not the issuer's or the element fails.
    pub fn sign(
        self,
        key: &dyn SecureElement,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, PkiError> {
        if key.public_key() != self.signer.point {
            return Err(PkiError::SigningFailed);
        }
        let signature = key.sign(rng, &self.tbs).map_err(|_| PkiError::SigningFailed)?;
        let certificate = self
            .builder
            .assemble(BitString::from_bytes(&signature)?, &self.signer)
            .map_err(|_| PkiError::Malformed)?;
        Ok(certificate.to_der()?)
    }
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after.
fn x509_time(time: UnixTime) -> Result<Time, PkiError> {
    let since_epoch = Duration::from_secs(time.as_secs());
    Ok(match UtcTime::from_unix_duration(since_epoch) {
        Ok(utc) => Time::UtcTime(utc),
        Err(_) => Time::GeneralTime(GeneralizedTime::from_unix_duration(since_epoch)?),
    })
}

impl fmt::Display for TlsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(dns) => f.write_str(dns),
            Self::Ip(ip) => f.write_str(&ip.to_string()),
        }
    }
}
