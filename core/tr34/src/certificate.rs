//! RSA certificates of the key-injection hierarchy, read from received bytes and verified over
//! them.

mod error;

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::UnixTime;
use der::Decode;
use der::asn1::{GeneralizedTime, UtcTime};

pub use self::error::CertificateError;
use crate::extensions::{self, Extension, usage};
use crate::identity::{IssuerAndSerial, NAME_MAX};
use crate::party::Party;
use crate::reader::{DerError, Element, Walker, tag};
use crate::{PublicKey, Rsa, RsaError};

/// Longest certificate or request, in bytes of DER.
pub const CERTIFICATE_MAX: usize = 4096;
/// `sha256WithRSAEncryption` (1.2.840.113549.1.1.11) with NULL, the whole AlgorithmIdentifier.
pub(crate) const SHA256_WITH_RSA: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 0x05, 0x00];

/// What is accepted of a certificate beyond our own profile, each by its name. It stays with the
/// certificate and counts in every later check of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leniency {
    /// An extension may stand several times, as in a published sample. Usages that not all copies
    /// have do not count; copies that contradict each other otherwise are refused.
    pub repeated_extensions: bool,
    /// No role in the certificate: the issuing CA alone decides what its holder is.
    pub without_role: bool,
    /// No keyUsage: any usage.
    pub without_key_usage: bool,
    /// A CA signs lists of revoked certificates although its keyUsage does not say so.
    pub crl_sign_unsaid: bool,
    /// A KRD's keyUsage has digitalSignature in the place of keyEncipherment.
    pub krd_signs: bool,
}

impl Leniency {
    /// Our own profile.
    pub const STRICT: Self = Self {
        repeated_extensions: false,
        without_role: false,
        without_key_usage: false,
        crl_sign_unsaid: false,
        krd_signs: false,
    };
    /// Everything that hierarchies made elsewhere are known to need.
    pub const FOREIGN: Self = Self {
        repeated_extensions: true,
        without_role: true,
        without_key_usage: true,
        crl_sign_unsaid: true,
        krd_signs: true,
    };
    /// The names, as settings and commands have them.
    pub const NAMES: [&'static str; 5] = [
        "repeated-extensions",
        "without-role",
        "without-key-usage",
        "crl-sign-unsaid",
        "krd-signs",
    ];

    /// This one and the one of [`Self::NAMES`] that is named; none for an unknown name.
    #[must_use]
    pub fn and(mut self, name: &str) -> Option<Self> {
        let flag = match name {
            "repeated-extensions" => &mut self.repeated_extensions,
            "without-role" => &mut self.without_role,
            "without-key-usage" => &mut self.without_key_usage,
            "crl-sign-unsaid" => &mut self.crl_sign_unsaid,
            "krd-signs" => &mut self.krd_signs,
            _ => return None,
        };
        *flag = true;
        Some(self)
    }
}

/// A certificate taken apart. Parsing verifies nothing; [`Self::verified_by`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    raw: Vec<u8>,
    tbs: Vec<u8>,
    signature: Vec<u8>,
    identity: IssuerAndSerial,
    subject: Vec<u8>,
    public_key: Vec<u8>,
    not_before: UnixTime,
    not_after: UnixTime,
    claims: Claims,
    leniency: Leniency,
}

/// What the extensions say.
#[derive(Clone, PartialEq, Eq, Default)]
struct Claims {
    ca: Option<bool>,
    path_length: Option<u8>,
    key_usage: Option<u8>,
    subject_key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    party: Option<Party>,
}

impl Certificate {
    /// Takes a certificate of our own profile apart.
    ///
    /// # Errors
    /// [`CertificateError`] for what is malformed or outside the profile.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        Self::parse_with(der, Leniency::STRICT)
    }

    /// Takes a certificate apart that may need a named leniency, now or in a later check.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_with(der: &[u8], leniency: Leniency) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(CertificateError::TooLong);
        }
        let mut outer = Walker::single(der, tag::SEQUENCE)?.inside()?;
        let tbs = outer.element(tag::SEQUENCE)?;
        let outer_algorithm = outer.element(tag::SEQUENCE)?.whole;
        let signature = outer.element(tag::BIT_STRING)?.octets_of_bits()?;
        outer.end()?;

        let mut fields = tbs.inside()?;
        check_version(&mut fields)?;
        let serial = fields.element(tag::INTEGER)?;
        let inner_algorithm = fields.element(tag::SEQUENCE)?.whole;
        if [outer_algorithm, inner_algorithm] != [SHA256_WITH_RSA; 2] {
            return Err(CertificateError::Algorithm);
        }
        let issuer = fields.element(tag::SEQUENCE)?;
        let mut validity = fields.element(tag::SEQUENCE)?.inside()?;
        let (not_before, not_after) = (time(validity.any()?)?, time(validity.any()?)?);
        validity.end()?;
        let subject = fields.element(tag::SEQUENCE)?.whole;
        let public_key = fields.element(tag::SEQUENCE)?.whole;
        let extensions = fields.element(tag::context_constructed(3))?;
        fields.end()?;
        if subject.len() > NAME_MAX {
            return Err(CertificateError::TooLong);
        }
        PublicKey::parse(public_key).map_err(|_| CertificateError::Key)?;
        Ok(Self {
            raw: der.to_vec(),
            tbs: tbs.whole.to_vec(),
            signature: signature.to_vec(),
            identity: IssuerAndSerial::of(issuer.whole, serial.whole)?,
            subject: subject.to_vec(),
            public_key: public_key.to_vec(),
            not_before,
            not_after,
            claims: Claims::read(&extensions, leniency)?,
            leniency,
        })
    }

    /// The certificate as it was received.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Issuer and serial number.
    #[must_use]
    pub const fn identity(&self) -> &IssuerAndSerial {
        &self.identity
    }

    /// The subject's name in DER; [`name_text`](crate::name_text) shows it.
    #[must_use]
    pub fn subject(&self) -> &[u8] {
        &self.subject
    }

    /// The certified key: DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// First moment, in whole seconds.
    #[must_use]
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// Last moment, in whole seconds.
    #[must_use]
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// True for a CA's certificate.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.claims.ca == Some(true)
    }

    /// Role and id, where the certificate has them.
    #[must_use]
    pub const fn party(&self) -> Option<&Party> {
        self.claims.party.as_ref()
    }

    /// subjectKeyIdentifier, where there is one.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.claims.subject_key_id.as_deref()
    }

    /// With what it was taken in.
    #[must_use]
    pub const fn leniency(&self) -> Leniency {
        self.leniency
    }

    /// Whether keyUsage allows `bits`; one that is absent does under its leniency only.
    pub(crate) fn allows(&self, bits: u8) -> bool {
        match self.claims.key_usage {
            Some(usage) => usage & bits == bits,
            None => self.leniency.without_key_usage,
        }
    }

    /// Whether keyUsage says `bits`.
    pub(crate) fn says(&self, bits: u8) -> bool {
        self.claims.key_usage.is_some_and(|usage| usage & bits == bits)
    }

    /// Whether this certificate may sign lists of revoked certificates.
    pub(crate) fn may_sign_crl(&self) -> bool {
        self.is_ca() && (self.allows(usage::CRL_SIGN) || self.leniency.crl_sign_unsaid)
    }

    /// Whether this certificate may sign certificates.
    pub(crate) fn may_certify(&self) -> bool {
        self.is_ca() && self.allows(usage::KEY_CERT_SIGN)
    }

    /// Whether `other`, an authorityKeyIdentifier, may mean this certificate.
    pub(crate) fn is_meant_by(&self, other: Option<&[u8]>) -> bool {
        match (self.key_id(), other) {
            (Some(own), Some(other)) => own == other,
            _ => true,
        }
    }

    /// Verifies that `issuing` issued this certificate and that both are valid at `now`. What
    /// vouches for `issuing` is the caller's question.
    ///
    /// # Errors
    /// [`CertificateError`], in this order: the issuer's name and key, a CA, path length, both
    /// windows, the signature over the received bytes.
    pub fn verified_by(
        &self,
        rsa: &dyn Rsa,
        issuing: &Self,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let key_id = self.claims.authority_key_id.as_deref();
        if self.identity.issuer() != issuing.subject || !issuing.is_meant_by(key_id) {
            return Err(CertificateError::Issuer);
        }
        if !issuing.may_certify() {
            return Err(CertificateError::IssuerNotCa);
        }
        if self.is_ca() && issuing.claims.path_length == Some(0) {
            return Err(CertificateError::PathLength);
        }
        issuing.check_window(now).map_err(|_| CertificateError::IssuerTime)?;
        self.check_window(now)?;
        self.check_signature(rsa, &issuing.public_key)
    }

    /// Verifies that this is a root: a CA, signed by its own key, valid at `now`.
    ///
    /// # Errors
    /// [`CertificateError::NotARoot`], or the window's.
    pub fn verify_root(&self, rsa: &dyn Rsa, now: UnixTime) -> Result<(), CertificateError> {
        let names_itself = self.identity.issuer() == self.subject
            && self.is_meant_by(self.claims.authority_key_id.as_deref());
        if !names_itself || !self.may_certify() {
            return Err(CertificateError::NotARoot);
        }
        self.check_signature(rsa, &self.public_key).map_err(|_| CertificateError::NotARoot)?;
        self.check_window(now)
    }

    /// Whether it is valid at `now`, both ends included.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`], [`CertificateError::Expired`].
    pub fn check_window(&self, now: UnixTime) -> Result<(), CertificateError> {
        if now.as_secs() < self.not_before.as_secs() {
            return Err(CertificateError::NotYetValid);
        }
        if now.as_secs() > self.not_after.as_secs() {
            return Err(CertificateError::Expired);
        }
        Ok(())
    }

    fn check_signature(&self, rsa: &dyn Rsa, key: &[u8]) -> Result<(), CertificateError> {
        rsa.verify(key, &self.tbs, &self.signature).map_err(|error| match error {
            RsaError::InvalidKey => CertificateError::Key,
            _ => CertificateError::Signature,
        })
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.identity)
    }
}

impl Claims {
    fn read(extensions: &Element<'_>, leniency: Leniency) -> Result<Self, CertificateError> {
        let mut inside = extensions.inside()?;
        let list = extensions::read(&inside.element(tag::SEQUENCE)?)?;
        inside.end()?;
        let mut claims = Self::default();
        for (position, extension) in list.iter().enumerate() {
            let Some(number) = extension.number else {
                check_unknown(extension)?;
                continue;
            };
            let earlier = list[..position].iter().any(|other| other.number == Some(number));
            if earlier && !leniency.repeated_extensions {
                return Err(CertificateError::RepeatedExtension);
            }
            claims.take(number, extension)?;
        }
        Ok(claims)
    }

    /// Takes one extension; of several copies the narrowest reading holds, and those that
    /// contradict each other are refused.
    fn take(&mut self, number: u8, extension: &Extension<'_>) -> Result<(), CertificateError> {
        match number {
            extensions::BASIC_CONSTRAINTS => {
                let (ca, path_length) = extension.basic_constraints()?;
                if self.ca.is_some_and(|earlier| earlier != ca) {
                    return Err(CertificateError::RepeatedExtension);
                }
                self.ca = Some(ca);
                self.path_length = match (self.path_length, path_length) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
            }
            extensions::KEY_USAGE => {
                let bits = extension.key_usage()?;
                self.key_usage = Some(self.key_usage.unwrap_or(0xff) & bits);
            }
            extensions::SUBJECT_ALT_NAME => only(&mut self.party, extension.party()?)?,
            extensions::SUBJECT_KEY_ID => {
                only(&mut self.subject_key_id, Some(extension.subject_key_id()?.to_vec()))?;
            }
            extensions::AUTHORITY_KEY_ID => {
                let id = extension.authority_key_id()?.map(<[u8]>::to_vec);
                only(&mut self.authority_key_id, id)?;
            }
            _ => check_unknown(extension)?,
        }
        Ok(())
    }
}

/// RFC 5280 §4.2: an unknown critical extension means refusal.
fn check_unknown(extension: &Extension<'_>) -> Result<(), CertificateError> {
    if extension.critical { Err(CertificateError::CriticalExtension) } else { Ok(()) }
}

/// Sets what is not set yet; another value than the one that is set is refused.
fn only<T: PartialEq>(slot: &mut Option<T>, value: Option<T>) -> Result<(), CertificateError> {
    if slot.is_some() && *slot != value {
        return Err(CertificateError::RepeatedExtension);
    }
    *slot = value;
    Ok(())
}

fn check_version(fields: &mut Walker<'_>) -> Result<(), CertificateError> {
    let Some(version) = fields.optional(tag::context_constructed(0))? else {
        return Err(CertificateError::Version);
    };
    let mut inside = version.inside()?;
    let number = inside.element(tag::INTEGER)?.small()?;
    inside.end()?;
    if number == 2 { Ok(()) } else { Err(CertificateError::Version) }
}

/// UTCTime or GeneralizedTime in the forms of RFC 5280 §4.1.2.5, from 1970 on.
pub(crate) fn time(element: Element<'_>) -> Result<UnixTime, DerError> {
    let since_epoch = match element.tag {
        tag::UTC_TIME => UtcTime::from_der(element.whole).map(|time| time.to_unix_duration()),
        tag::GENERALIZED_TIME => {
            GeneralizedTime::from_der(element.whole).map(|time| time.to_unix_duration())
        }
        _ => return Err(DerError::UnexpectedTag),
    };
    Ok(UnixTime::from_secs(since_epoch.map_err(|_| DerError::Value)?.as_secs()))
}
