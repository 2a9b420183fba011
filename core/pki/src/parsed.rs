use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{Provider, UnixTime, VerifyingKey};
use der::oid::AssociatedOid;
use der::{Decode, Encode, Header, Reader, SliceReader};
use x509_cert::certificate::{Certificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};

use crate::keys::Algorithms;
use crate::{CertificateNumber, Identity, PkiError, Usage};

/// Longest certificate or request, in bytes of DER.
pub const CERTIFICATE_MAX: usize = 2048;

/// A certificate taken apart, nothing verified yet.
pub(crate) struct Parsed<'a> {
    pub(crate) tbs: &'a [u8],
    pub(crate) signature: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) number: CertificateNumber,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    pub(crate) point: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
}

impl<'a> Parsed<'a> {
    pub(crate) fn new(provider: &Provider, der: &'a [u8]) -> Result<Self, PkiError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(PkiError::Malformed);
        }
        let algorithms = Algorithms::of(provider)?;
        let certificate = Certificate::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        let wanted = algorithms.signature_identifier();
        if *certificate.signature_algorithm() != wanted || *tbs.signature() != wanted {
            return Err(PkiError::WrongAlgorithm);
        }
        if tbs.version() != Version::V3 {
            return Err(PkiError::Malformed);
        }
        let seconds =
            |time: x509_cert::time::Time| UnixTime::from_secs(time.to_unix_duration().as_secs());
        Ok(Self {
            tbs: first_element(der)?,
            signature: certificate.signature().as_bytes().ok_or(PkiError::Malformed)?.to_vec(),
            issuer: tbs.issuer().to_der()?,
            subject: tbs.subject().to_der()?,
            number: CertificateNumber::from_bytes(tbs.serial_number().as_bytes())?,
            not_before: seconds(tbs.validity().not_before),
            not_after: seconds(tbs.validity().not_after),
            point: algorithms.point(tbs.subject_public_key_info())?.to_vec(),
            extensions: tbs.extensions().cloned().unwrap_or_default(),
        })
    }

    pub(crate) fn key(&self, provider: &Provider) -> Result<Arc<dyn VerifyingKey>, PkiError> {
        provider.signature.public_key(&self.point).map_err(|_| PkiError::Malformed)
    }

    pub(crate) fn extension<T: for<'d> Decode<'d> + AssociatedOid>(&self) -> Result<T, PkiError> {
        let mut found = self.extensions.iter().filter(|extension| extension.extn_id == T::OID);
        let (Some(extension), None) = (found.next(), found.next()) else {
            return Err(PkiError::Malformed); // absent, or twice (RFC 5280 §4.2)
        };
        T::from_der(extension.extn_value.as_bytes()).map_err(|_| PkiError::Malformed)
    }

    /// RFC 5280 §4.2: an unknown critical extension means refusal.
    pub(crate) fn check_critical(&self) -> Result<(), PkiError> {
        let known = [BasicConstraints::OID, KeyUsage::OID, SubjectAltName::OID];
        let unknown =
            |extension: &Extension| extension.critical && !known.contains(&extension.extn_id);
        if self.extensions.iter().any(unknown) { Err(PkiError::Malformed) } else { Ok(()) }
    }

    pub(crate) fn check_ca(&self) -> Result<BasicConstraints, PkiError> {
        self.check_critical()?;
        let constraints: BasicConstraints = self.extension()?;
        let usage: KeyUsage = self.extension()?;
        if constraints.ca && usage.key_cert_sign() {
            Ok(constraints)
        } else {
            Err(PkiError::WrongRole)
        }
    }

    pub(crate) fn check_leaf(&self, wanted: Usage) -> Result<Identity, PkiError> {
        self.check_critical()?;
        let constraints: BasicConstraints = self.extension()?;
        let usage: KeyUsage = self.extension()?;
        if constraints.ca || usage.key_cert_sign() {
            return Err(PkiError::WrongRole);
        }
        if Usage::of(&usage) != Some(wanted) {
            return Err(PkiError::WrongUsage);
        }
        single_uri(&self.extensions)
    }
}

/// The identity in the one URI of the one subjectAltName.
pub(crate) fn single_uri(extensions: &[Extension]) -> Result<Identity, PkiError> {
    let mut names = extensions.iter().filter(|extension| extension.extn_id == SubjectAltName::OID);
    let (Some(extension), None) = (names.next(), names.next()) else {
        return Err(PkiError::Malformed);
    };
    let names = SubjectAltName::from_der(extension.extn_value.as_bytes())?;
    match names.0.as_slice() {
        [GeneralName::UniformResourceIdentifier(uri)] => Identity::from_uri(uri.as_str()),
        _ => Err(PkiError::Malformed),
    }
}

/// The first element inside the outer SEQUENCE, as the bytes that arrived: what was signed.
pub(crate) fn first_element(der: &[u8]) -> Result<&[u8], PkiError> {
    let mut reader = SliceReader::new(der)?;
    Header::decode(&mut reader)?;
    Ok(reader.tlv_bytes()?)
}
