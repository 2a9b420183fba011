//! Certificate requests (PKCS#10): a party asks for a certificate and proves that it has the key.
//! The patent's text puts the private key into the request (E1); a request that is signed with it
//! proves the same and gives nothing away.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use der::asn1::{PrintableStringRef, Utf8StringRef};
use der::{Decode, Encode};
use thiserror::Error;
use x509_cert::name::Name;

use crate::certificate::{CERTIFICATE_MAX, SHA256_WITH_RSA};
use crate::extensions::{self, SUBJECT_ALT_NAME, write_party};
use crate::party::{BadParty, Party, Role};
use crate::reader::{DerError, Walker, tag, tlv};
use crate::{PublicKey, Rsa, RsaError, RsaKey};

/// `extensionRequest` (1.2.840.113549.1.9.14), the content octets.
const EXTENSION_REQUEST: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 14];
/// `commonName` (2.5.4.3), the content octets.
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];

/// Why a request was refused, or could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Longer than a request may be.
    #[error("the request is too long")]
    TooLong,
    /// Not DER, or not the structure of a request.
    #[error("the request is malformed: {0}")]
    Malformed(#[from] DerError),
    /// Signed otherwise than with RSASSA-PKCS1-v1_5 and SHA-256.
    #[error("the request is not signed with RSA and SHA-256")]
    Algorithm,
    /// The key is not RSA of 2048, 3072 or 4096 bits with a sound exponent.
    #[error("the request's key is not RSA of 2048, 3072 or 4096 bits")]
    Key,
    /// Its signature does not verify: possession of the key is not proven.
    #[error("the request does not prove possession of its key")]
    ProofOfPossession,
    /// It names no role and id, or more than one.
    #[error("the request does not name one role and id")]
    WithoutParty,
    /// An id with characters or a length that are not allowed.
    #[error(transparent)]
    BadParty(#[from] BadParty),
    /// The key's holder could not sign.
    #[error("the holder of the key could not sign the request")]
    SigningFailed,
}

impl RequestError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::TooLong => "request-length",
            Self::Malformed(_) => "request-malformed",
            Self::Algorithm => "request-algorithm",
            Self::Key => "request-key",
            Self::ProofOfPossession => "request-proof",
            Self::WithoutParty => "request-without-id",
            Self::BadParty(bad) => bad.check(),
            Self::SigningFailed => "signing",
        }
    }
}

/// A request that proved possession of its key. Only parsing one makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    party: Party,
    public_key: Vec<u8>,
}

impl Requested {
    /// Role and id that the request asks for.
    #[must_use]
    pub const fn party(&self) -> &Party {
        &self.party
    }

    /// The key: DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

/// The subject of a party's certificate and request.
pub(crate) fn subject_of(party: &Party) -> Result<Vec<u8>, DerError> {
    let text = format!("CN={},OU={},O=Countersign", party.id(), party.role());
    name_der(&text)
}

/// A name in DER from its text (RFC 4514).
pub(crate) fn name_der(text: &str) -> Result<Vec<u8>, DerError> {
    let name = Name::from_str(text).map_err(|_| DerError::Value)?;
    name.to_der().map_err(|_| DerError::Value)
}

/// Makes a request for `party`, signed with its key (E1).
///
/// # Errors
/// [`RequestError::SigningFailed`]; [`RequestError::Key`] for a key that is not acceptable.
pub fn request(key: &dyn RsaKey, party: &Party) -> Result<Vec<u8>, RequestError> {
    PublicKey::parse(key.public_key()).map_err(|_| RequestError::Key)?;
    let wanted = tlv(tag::SEQUENCE, &[&write_party(party)]);
    let attribute =
        tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[&EXTENSION_REQUEST]), &tlv(tag::SET, &[&wanted])]);
    let info = tlv(
        tag::SEQUENCE,
        &[
            &[tag::INTEGER, 1, 0],
            &subject_of(party)?,
            key.public_key(),
            &tlv(tag::context_constructed(0), &[&attribute]),
        ],
    );
    let signature = key.sign(&info).map_err(|_| RequestError::SigningFailed)?;
    let bits = tlv(tag::BIT_STRING, &[&[0], &signature]);
    Ok(tlv(tag::SEQUENCE, &[&info, &SHA256_WITH_RSA, &bits]))
}

/// Parses a request and checks that it proves possession of its key. Role and id stand in the one
/// URI of its subjectAltName.
///
/// # Errors
/// [`RequestError`].
pub fn parse_request(rsa: &dyn Rsa, der: &[u8]) -> Result<Requested, RequestError> {
    let parsed = Parsed::new(rsa, der)?;
    let party = parsed.party()?.ok_or(RequestError::WithoutParty)?;
    Ok(Requested { party, public_key: parsed.public_key.to_vec() })
}

/// Parses a request that was made elsewhere: without our URI the one commonName is the id, for
/// `role`. A request with our URI must ask for that role.
///
/// # Errors
/// [`RequestError`].
pub fn parse_foreign_request(
    rsa: &dyn Rsa,
    der: &[u8],
    role: Role,
) -> Result<Requested, RequestError> {
    let parsed = Parsed::new(rsa, der)?;
    let party = match parsed.party()? {
        Some(party) if party.role() == role => party,
        Some(_) => return Err(RequestError::WithoutParty),
        None => Party::new(role, &common_name(parsed.subject)?)?,
    };
    Ok(Requested { party, public_key: parsed.public_key.to_vec() })
}

/// A request whose signature was verified over the received bytes.
struct Parsed<'a> {
    subject: &'a [u8],
    public_key: &'a [u8],
    attributes: Walker<'a>,
}

impl<'a> Parsed<'a> {
    fn new(rsa: &dyn Rsa, der: &'a [u8]) -> Result<Self, RequestError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(RequestError::TooLong);
        }
        let mut outer = Walker::single(der, tag::SEQUENCE)?.inside()?;
        let info = outer.element(tag::SEQUENCE)?;
        let algorithm = outer.element(tag::SEQUENCE)?.whole;
        let signature = outer.element(tag::BIT_STRING)?.octets_of_bits()?;
        outer.end()?;
        if algorithm != SHA256_WITH_RSA {
            return Err(RequestError::Algorithm);
        }
        let mut fields = info.inside()?;
        if fields.element(tag::INTEGER)?.small()? != 0 {
            return Err(DerError::Value.into());
        }
        let subject = fields.element(tag::SEQUENCE)?.whole;
        let public_key = fields.element(tag::SEQUENCE)?.whole;
        let attributes = fields.element(tag::context_constructed(0))?.inside()?;
        fields.end()?;
        rsa.verify(public_key, info.whole, signature).map_err(|error| match error {
            RsaError::InvalidKey => RequestError::Key,
            _ => RequestError::ProofOfPossession,
        })?;
        Ok(Self { subject, public_key, attributes })
    }

    /// The party in the one subjectAltName among the wanted extensions.
    fn party(&self) -> Result<Option<Party>, RequestError> {
        let mut attributes = self.attributes;
        let mut names = Vec::new();
        while !attributes.is_at_end() {
            let mut attribute = attributes.element(tag::SEQUENCE)?.inside()?;
            let oid = attribute.element(tag::OID)?.content;
            let mut values = attribute.element(tag::SET)?.inside()?;
            attribute.end()?;
            if oid != EXTENSION_REQUEST {
                continue;
            }
            while !values.is_at_end() {
                let wanted = extensions::read(&values.element(tag::SEQUENCE)?)?;
                names.extend(wanted.into_iter().filter(|it| it.number == Some(SUBJECT_ALT_NAME)));
            }
        }
        match names.as_slice() {
            [] => Ok(None),
            [one] => Ok(one.party()?),
            _ => Err(RequestError::WithoutParty),
        }
    }
}

/// The one commonName of a name.
fn common_name(name: &[u8]) -> Result<String, RequestError> {
    let mut parts = Walker::single(name, tag::SEQUENCE)?.inside()?;
    let mut found = None;
    while !parts.is_at_end() {
        let mut set = parts.element(tag::SET)?.inside()?;
        while !set.is_at_end() {
            let mut pair = set.element(tag::SEQUENCE)?.inside()?;
            let oid = pair.element(tag::OID)?.content;
            let value = pair.any()?.whole;
            pair.end()?;
            if oid == COMMON_NAME && found.replace(value).is_some() {
                return Err(RequestError::WithoutParty);
            }
        }
    }
    let value = found.ok_or(RequestError::WithoutParty)?;
    let utf8 = Utf8StringRef::from_der(value).map(|text| text.as_str().to_owned());
    utf8.or_else(|_| PrintableStringRef::from_der(value).map(|text| text.as_str().to_owned()))
        .map_err(|_| RequestError::WithoutParty)
}
