//! Issuing: the root, the CAs, KDHs and terminals, and lists of revoked certificates. `prepare`
//! checks everything; what it returns lacks only the signature, and signing consumes it.

use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};
use der::Encode;
use der::asn1::{GeneralizedTime, UtcTime};
use thiserror::Error;

use crate::certificate::{Certificate, SHA256_WITH_RSA};
use crate::crl::{CRL_ENTRIES_MAX, CrlNumber};
use crate::extensions::{
    CRL_NUMBER, key_id, usage, write, write_authority_key_id, write_basic_constraints,
    write_key_usage, write_party, write_subject_key_id,
};
use crate::identity::{IssuerAndSerial, check_serial};
use crate::party::{ID_MAX, Party, Role};
use crate::reader::{DerError, tag, tlv, unsigned};
use crate::request::{Requested, name_der, subject_of};
use crate::{PublicKey, Rsa, RsaKey};

/// Random octets in a serial number: between the 8 that CA/B asks for and the 20 that may be.
const SERIAL_LEN: usize = 16;
/// Certificates begin this long before they are issued: the clocks of terminals differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Why a certificate or list could not be issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The issuer's certificate is not a CA's, or may not sign what is asked for.
    #[error("the issuer's certificate does not let it sign this")]
    IssuerUsage,
    /// The request asks for another role than the one that is to be certified.
    #[error("the request is for another role")]
    Role,
    /// The issuer is a CA for another role.
    #[error("the issuer is a CA for another role")]
    IssuerRole,
    /// The times end before they begin, do not fit into a certificate, or outlive the issuer.
    #[error("the validity is empty or goes beyond the issuer's")]
    Validity,
    /// A name, key or serial number cannot stand in a certificate.
    #[error("a name, key or serial number cannot be certified")]
    Malformed,
    /// More revoked certificates than a list may have.
    #[error("too many revoked certificates for one list")]
    TooManyEntries,
    /// The signing key is not the issuer's.
    #[error("the signing key is not the issuer's")]
    WrongKey,
    /// The key's holder failed, or gave a signature that does not verify.
    #[error("the issuing key could not sign")]
    SigningFailed,
}

impl IssueError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::IssuerUsage => "issue-usage",
            Self::Role => "issue-role",
            Self::IssuerRole => "issue-issuer-role",
            Self::Validity => "issue-validity",
            Self::Malformed => "issue-malformed",
            Self::TooManyEntries => "issue-entries",
            Self::WrongKey => "issue-key",
            Self::SigningFailed => "signing",
        }
    }
}

impl From<DerError> for IssueError {
    fn from(_: DerError) -> Self {
        Self::Malformed
    }
}

impl From<der::Error> for IssueError {
    fn from(_: der::Error) -> Self {
        Self::Malformed
    }
}

/// From when to when a certificate holds; whole seconds, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: UnixTime,
    /// Last moment.
    pub not_after: UnixTime,
}

impl Validity {
    /// From an hour before `now` (clocks differ) until `duration` after it.
    #[must_use]
    pub fn from(now: UnixTime, duration: Duration) -> Self {
        Self { not_before: now.minus(BACKDATED), not_after: now.plus(duration) }
    }

    /// The part of it in which `issuer` is valid too.
    #[must_use]
    pub fn within(self, issuer: &Certificate) -> Self {
        Self {
            not_before: self.not_before.max(issuer.not_before()),
            not_after: self.not_after.min(issuer.not_after()),
        }
    }

    fn encode(self) -> Result<Vec<u8>, IssueError> {
        if self.not_before.as_secs() > self.not_after.as_secs() {
            return Err(IssueError::Validity);
        }
        Ok(tlv(tag::SEQUENCE, &[&time_der(self.not_before)?, &time_der(self.not_after)?]))
    }
}

/// RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime after.
fn time_der(time: UnixTime) -> Result<Vec<u8>, IssueError> {
    let since_epoch = Duration::from_secs(time.as_secs());
    Ok(match UtcTime::from_unix_duration(since_epoch) {
        Ok(utc) => utc.to_der()?,
        Err(_) => GeneralizedTime::from_unix_duration(since_epoch)
            .map_err(|_| IssueError::Validity)?
            .to_der()?,
    })
}

/// One certificate that a list is to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Content octets of its serial number, as [`IssuerAndSerial::serial`] gives them.
    pub serial: Vec<u8>,
    /// When it was revoked; whole seconds.
    pub at: UnixTime,
}

/// Number and times of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrlTerms {
    /// Greater than that of every list of this CA before.
    pub number: u64,
    /// When it is made.
    pub this_update: UnixTime,
    /// Until when it holds.
    pub next_update: UnixTime,
}

/// A CA's certificate, ready to prepare certificates and lists under it. The private key is not
/// here: signing is given it.
#[derive(Debug, Clone)]
pub struct Issuer {
    certificate: Certificate,
}

impl Issuer {
    /// From the CA's certificate.
    ///
    /// # Errors
    /// [`IssueError::IssuerUsage`] unless it is a CA that may certify.
    pub fn new(certificate: Certificate) -> Result<Self, IssueError> {
        if !certificate.may_certify() {
            return Err(IssueError::IssuerUsage);
        }
        Ok(Self { certificate })
    }

    /// The CA's certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Prepares a certificate for `role` from a request that proved possession of its key. A root
    /// certifies the two CAs, with path length 0; a CA what [`Role::may_certify`] says.
    ///
    /// # Errors
    /// [`IssueError::Role`], [`IssueError::IssuerRole`]; [`IssueError::Validity`] also when it goes
    /// beyond the CA's own: [`Validity::within`] cuts it.
    pub fn prepare(
        &self,
        rsa: &dyn Rsa,
        request: &Requested,
        role: Role,
        rng: &mut dyn CryptoRng,
        validity: Validity,
    ) -> Result<Prepared, IssueError> {
        if request.party().role() != role {
            return Err(IssueError::Role);
        }
        let may = match self.certificate.party() {
            None => role.is_ca(),
            Some(party) => party.role().may_certify(role),
        };
        if !may {
            return Err(IssueError::IssuerRole);
        }
        if validity.within(&self.certificate) != validity {
            return Err(IssueError::Validity);
        }
        let subject = Subject {
            name: subject_of(request.party())?,
            party: Some(request.party()),
            public_key: request.public_key(),
        };
        Prepared::new(rsa, Some(&self.certificate), &subject, rng, validity)
    }

    /// Prepares a list of revoked certificates. A serial number that is there twice is written
    /// once, with its first time.
    ///
    /// # Errors
    /// [`IssueError::IssuerUsage`], [`IssueError::TooManyEntries`], [`IssueError::Validity`],
    /// [`IssueError::Malformed`] for a serial number that is none.
    pub fn prepare_crl(
        &self,
        terms: CrlTerms,
        revoked: &[Revocation],
    ) -> Result<PreparedCrl, IssueError> {
        if !self.certificate.may_sign_crl() {
            return Err(IssueError::IssuerUsage);
        }
        if revoked.len() > CRL_ENTRIES_MAX {
            return Err(IssueError::TooManyEntries);
        }
        if terms.this_update.as_secs() > terms.next_update.as_secs() {
            return Err(IssueError::Validity);
        }
        let mut sorted: Vec<&Revocation> = revoked.iter().collect();
        sorted.sort_by(|one, other| one.serial.cmp(&other.serial).then(one.at.cmp(&other.at)));
        sorted.dedup_by(|one, other| one.serial == other.serial);
        let mut entries = Vec::new();
        for Revocation { serial, at } in sorted {
            check_serial(serial)?;
            let number = tlv(tag::INTEGER, &[serial]);
            entries.extend(tlv(tag::SEQUENCE, &[&number, &time_der(*at)?]));
        }
        // RFC 5280 §5.1.2.6: without entries the list is absent.
        let entries = if entries.is_empty() { entries } else { tlv(tag::SEQUENCE, &[&entries]) };
        let number = unsigned(CrlNumber::from(terms.number).as_bytes());
        let mut extensions = write(CRL_NUMBER, false, &number);
        if let Some(id) = self.certificate.key_id() {
            extensions = [write_authority_key_id(id), extensions].concat();
        }
        let tbs = tlv(
            tag::SEQUENCE,
            &[
                &[tag::INTEGER, 1, 1],
                &SHA256_WITH_RSA,
                self.certificate.subject(),
                &time_der(terms.this_update)?,
                &time_der(terms.next_update)?,
                &entries,
                &tlv(tag::context_constructed(0), &[&tlv(tag::SEQUENCE, &[&extensions])]),
            ],
        );
        let issuer_key = self.certificate.public_key().to_vec();
        Ok(PreparedCrl { unsigned: Unsigned { tbs, issuer_key }, terms })
    }
}

/// Prepares a self-signed root for `public_key`. Its name has 1 to [`ID_MAX`] characters of
/// `A-Z a-z 0-9 . _ -` and blank.
///
/// # Errors
/// [`IssueError::Malformed`] for a name or key that cannot be certified;
/// [`IssueError::Validity`].
pub fn prepare_root(
    rsa: &dyn Rsa,
    common_name: &str,
    public_key: &[u8],
    rng: &mut dyn CryptoRng,
    validity: Validity,
) -> Result<Prepared, IssueError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b' ');
    let length = 1..=ID_MAX;
    if !length.contains(&common_name.len()) || !common_name.bytes().all(allowed) {
        return Err(IssueError::Malformed);
    }
    let name = name_der(&format!("CN={common_name},O=Countersign"))?;
    let subject = Subject { name, party: None, public_key };
    Prepared::new(rsa, None, &subject, rng, validity)
}

struct Subject<'a> {
    name: Vec<u8>,
    party: Option<&'a Party>,
    public_key: &'a [u8],
}

/// What is to be signed, and with whose key.
struct Unsigned {
    tbs: Vec<u8>,
    issuer_key: Vec<u8>,
}

impl Unsigned {
    fn sign(self, rsa: &dyn Rsa, key: &dyn RsaKey) -> Result<Vec<u8>, IssueError> {
        if key.public_key() != self.issuer_key {
            return Err(IssueError::WrongKey);
        }
        let signature = key.sign(&self.tbs).map_err(|_| IssueError::SigningFailed)?;
        rsa.verify(&self.issuer_key, &self.tbs, &signature)
            .map_err(|_| IssueError::SigningFailed)?;
        let bits = tlv(tag::BIT_STRING, &[&[0], &signature]);
        Ok(tlv(tag::SEQUENCE, &[&self.tbs, &SHA256_WITH_RSA, &bits]))
    }
}

/// A certificate that passed every check and lacks only its signature. Signing consumes it.
pub struct Prepared {
    unsigned: Unsigned,
    identity: IssuerAndSerial,
    validity: Validity,
}

impl Prepared {
    fn new(
        rsa: &dyn Rsa,
        issuer: Option<&Certificate>,
        subject: &Subject<'_>,
        rng: &mut dyn CryptoRng,
        validity: Validity,
    ) -> Result<Self, IssueError> {
        PublicKey::parse(subject.public_key).map_err(|_| IssueError::Malformed)?;
        let issuer_name = issuer.map_or(subject.name.as_slice(), Certificate::subject);
        let serial = random_serial(rng);
        let own_id = key_id(rsa, subject.public_key)?;
        let mut extensions = write_subject_key_id(&own_id);
        if let Some(id) = issuer.and_then(Certificate::key_id) {
            extensions.extend(write_authority_key_id(id));
        }
        let of_ca = usage::KEY_CERT_SIGN | usage::CRL_SIGN;
        let (ca, path_length, bits) = match subject.party.map(Party::role) {
            None => (true, None, of_ca),
            Some(Role::CaKdh | Role::CaKrd) => (true, Some(0), of_ca),
            Some(Role::Kdh) => (false, None, usage::DIGITAL_SIGNATURE),
            Some(Role::Krd) => (false, None, usage::KEY_ENCIPHERMENT),
        };
        extensions.extend(write_basic_constraints(ca, path_length));
        extensions.extend(write_key_usage(bits));
        if let Some(party) = subject.party {
            extensions.extend(write_party(party));
        }
        let tbs = tlv(
            tag::SEQUENCE,
            &[
                &tlv(tag::context_constructed(0), &[&[tag::INTEGER, 1, 2]]),
                &serial,
                &SHA256_WITH_RSA,
                issuer_name,
                &validity.encode()?,
                &subject.name,
                subject.public_key,
                &tlv(tag::context_constructed(3), &[&tlv(tag::SEQUENCE, &[&extensions])]),
            ],
        );
        let issuer_key = issuer.map_or(subject.public_key, Certificate::public_key).to_vec();
        let identity = IssuerAndSerial::of(issuer_name, &serial)?;
        Ok(Self { unsigned: Unsigned { tbs, issuer_key }, identity, validity })
    }

    /// Issuer and serial number that the certificate will have: the intent is stored under them.
    #[must_use]
    pub const fn identity(&self) -> &IssuerAndSerial {
        &self.identity
    }

    /// The validity that the certificate will have.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// Signs with the issuer's key, verifies the signature and yields the certificate's DER.
    ///
    /// # Errors
    /// [`IssueError::WrongKey`], [`IssueError::SigningFailed`].
    pub fn sign(self, rsa: &dyn Rsa, key: &dyn RsaKey) -> Result<Vec<u8>, IssueError> {
        let der = self.unsigned.sign(rsa, key)?;
        // What was issued is what a relying party reads.
        match Certificate::parse(&der) {
            Ok(read) if *read.identity() == self.identity => Ok(der),
            _ => Err(IssueError::Malformed),
        }
    }
}

/// A list of revoked certificates that lacks only its signature. Signing consumes it.
pub struct PreparedCrl {
    unsigned: Unsigned,
    terms: CrlTerms,
}

impl PreparedCrl {
    /// Number and times that the list will have.
    #[must_use]
    pub const fn terms(&self) -> CrlTerms {
        self.terms
    }

    /// Signs with the issuer's key, verifies the signature and yields the list's DER.
    ///
    /// # Errors
    /// [`IssueError::WrongKey`], [`IssueError::SigningFailed`].
    pub fn sign(self, rsa: &dyn Rsa, key: &dyn RsaKey) -> Result<Vec<u8>, IssueError> {
        self.unsigned.sign(rsa, key)
    }
}

/// A random serial number as INTEGER: positive, of fixed length.
fn random_serial(rng: &mut dyn CryptoRng) -> Vec<u8> {
    let mut octets = [0; SERIAL_LEN];
    rng.fill_bytes(&mut octets);
    octets[0] = octets[0] & 0x7f | 0x40;
    tlv(tag::INTEGER, &[&octets])
}
