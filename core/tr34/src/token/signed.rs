//! SignedData in its ContentInfo, with one signer or none.

use alloc::vec::Vec;

use super::TOKEN_MAX;
use super::algorithm::{ID_DATA, ID_SIGNED_DATA, expect_sha256, sha256, signature, signature_name};
use super::attributes::SignedAttributes;
use crate::dialect::{CrlPlace, Dialect, Observed, SignedDataVersion};
use crate::identity::IssuerAndSerial;
use crate::reader::{Element, Walker, tag, tlv};
use crate::{Error, Rsa};

/// Most digest algorithms that are looked at.
const DIGESTS_MAX: usize = 4;
/// Version of a SignerInfo that names issuer and serial number.
const SIGNER_VERSION: u8 = 1;

/// A SignedData as it arrived, taken apart; nothing is verified yet.
#[derive(Debug, Clone)]
pub struct SignedData<'a> {
    /// The content's type: an object identifier's content octets.
    pub content_type: &'a [u8],
    /// The octets of `eContent`.
    pub content: Option<&'a [u8]>,
    /// The one certificate, in DER.
    pub certificate: Option<&'a [u8]>,
    /// The one revocation list, in DER.
    pub crl: Option<&'a [u8]>,
    /// The one signer.
    pub signer: Option<SignerInfo<'a>>,
    /// What it shows of its dialect.
    pub observed: Observed,
}

/// A SignerInfo as it arrived.
#[derive(Debug, Clone)]
pub struct SignerInfo<'a> {
    /// Who says to have signed.
    pub identity: IssuerAndSerial,
    /// The signed attributes; without them the signature covers the content itself.
    pub attributes: Option<SignedAttributes<'a>>,
    /// The signature.
    pub signature: &'a [u8],
}

impl<'a> SignedData<'a> {
    /// Takes a token apart: ContentInfo around SignedData.
    ///
    /// # Errors
    /// An [`Error`] about the structure. The dialect is not looked at.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        if token.len() > TOKEN_MAX {
            return Err(Error::TooLong);
        }
        let mut info = Walker::single(token, tag::SEQUENCE)?.inside()?;
        if info.element(tag::OID)?.content != ID_SIGNED_DATA {
            return Err(Error::ContentType);
        }
        let mut explicit = info.element(tag::context_constructed(0))?.inside()?;
        info.end()?;
        let signed = explicit.element(tag::SEQUENCE)?;
        explicit.end()?;
        Self::read(signed.inside()?)
    }

    /// From what is inside the SEQUENCE.
    pub(crate) fn read(mut inside: Walker<'a>) -> Result<Self, Error> {
        let mut observed = Observed::default();
        let version = inside.element(tag::INTEGER)?.small()?;
        let mut digests = inside.element(tag::SET)?.inside()?;
        let mut count = 0;
        while !digests.is_at_end() {
            count += 1;
            if count > DIGESTS_MAX {
                return Err(Error::TooMany);
            }
            expect_sha256(&digests.any()?)?;
        }
        let (content_type, content) = encapsulated(&inside.element(tag::SEQUENCE)?)?;
        let cms_version = if content_type == ID_DATA { 1 } else { 3 };
        if version != 1 && version != 3 {
            return Err(Error::Malformed);
        }
        observed.cms_version = Some(version == cms_version);
        observed.version_one = Some(version == 1);

        let certificates = inside.optional(tag::context_constructed(0))?;
        let certificate = single(certificates, Error::CertificateCount)?;
        let before = inside.optional(tag::context_constructed(1))?;
        let signers = inside.element(tag::SET)?;
        let after = inside.optional(tag::context_constructed(1))?;
        inside.end()?;
        let crl = match (before, after) {
            (Some(_), Some(_)) => return Err(Error::CrlCount),
            (Some(_), None) => {
                observed.credential_crl = Some(CrlPlace::BeforeSigners);
                single(before, Error::CrlCount)?
            }
            (None, after) => {
                observed.credential_crl = after.map(|_| CrlPlace::AfterSigners);
                single(after, Error::CrlCount)?
            }
        };
        let signer = match single_element(Some(signers), Error::SignerCount)? {
            Some(signer) => Some(SignerInfo::read(&signer, &mut observed)?),
            None => None,
        };
        Ok(Self { content_type, content, certificate, crl, signer, observed })
    }

    /// Of a token that is signed: with a signer, without a certificate, the revocation list in its
    /// CMS place.
    pub(crate) fn with_signer(self) -> Result<Self, Error> {
        self.signer()?;
        if self.certificate.is_some() {
            return Err(Error::CertificateCount);
        }
        if self.observed.credential_crl == Some(CrlPlace::AfterSigners) {
            return Err(Error::Malformed);
        }
        let observed = Observed { credential_crl: None, ..self.observed };
        Ok(Self { observed, ..self })
    }

    /// The signer, of a token that has one.
    pub(crate) fn signer(&self) -> Result<&SignerInfo<'a>, Error> {
        self.signer.as_ref().ok_or(Error::SignerCount)
    }

    /// The content, of a token that has one of this type.
    pub(crate) fn content_of(&self, content_type: &[u8]) -> Result<&'a [u8], Error> {
        if self.content_type != content_type {
            return Err(Error::ContentType);
        }
        self.content.ok_or(Error::Malformed)
    }

    /// Checks contentType, messageDigest and the signature, each over the received bytes.
    ///
    /// # Errors
    /// [`Error::SignerCount`], [`Error::ContentTypeAttribute`], [`Error::Digest`],
    /// [`Error::Signature`], [`Error::Attribute`].
    pub fn verify(&self, rsa: &dyn Rsa, public_key: &[u8]) -> Result<(), Error> {
        let signer = self.signer()?;
        let content = self.content.ok_or(Error::Malformed)?;
        let Some(attributes) = &signer.attributes else {
            // RFC 5652 §5.3: attributes may be absent around id-data only.
            if self.content_type != ID_DATA {
                return Err(crate::error::AttributeFault::Missing.of("contentType"));
            }
            return Ok(rsa.verify(public_key, content, signer.signature)?);
        };
        if attributes.content_type()? != self.content_type {
            return Err(Error::ContentTypeAttribute);
        }
        if attributes.digest()? != rsa.sha256(content) {
            return Err(Error::Digest);
        }
        Ok(rsa.verify(public_key, &attributes.signed_bytes(), signer.signature)?)
    }
}

impl<'a> SignerInfo<'a> {
    fn read(element: &Element<'a>, observed: &mut Observed) -> Result<Self, Error> {
        if element.tag != tag::SEQUENCE {
            return Err(Error::Malformed);
        }
        let mut inside = element.inside()?;
        if inside.element(tag::INTEGER)?.small()? != SIGNER_VERSION {
            return Err(Error::Malformed);
        }
        let identity = IssuerAndSerial::parse(inside.element(tag::SEQUENCE)?.whole)?;
        expect_sha256(&inside.element(tag::SEQUENCE)?)?;
        let attributes = match inside.optional(tag::context_constructed(0))? {
            Some(attributes) => Some(SignedAttributes::parse(&attributes, observed)?),
            None => None,
        };
        observed.signature = Some(signature_name(&inside.element(tag::SEQUENCE)?)?);
        let signature = inside.element(tag::OCTET_STRING)?.content;
        // Unsigned attributes have no place in any token.
        inside.end()?;
        Ok(Self { identity, attributes, signature })
    }
}

/// EncapsulatedContentInfo: type and octets.
fn encapsulated<'a>(element: &Element<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), Error> {
    let mut inside = element.inside()?;
    let content_type = inside.element(tag::OID)?.content;
    let content = match inside.optional(tag::context_constructed(0))? {
        Some(explicit) => {
            let mut explicit = explicit.inside()?;
            let octets = explicit.element(tag::OCTET_STRING)?.content;
            explicit.end()?;
            Some(octets)
        }
        None => None,
    };
    inside.end()?;
    Ok((content_type, content))
}

/// The only element of a set that may be absent or empty.
fn single_element<'a>(
    set: Option<Element<'a>>,
    several: Error,
) -> Result<Option<Element<'a>>, Error> {
    let Some(set) = set else { return Ok(None) };
    let mut inside = set.inside()?;
    if inside.is_at_end() {
        return Ok(None);
    }
    let only = inside.any()?;
    if inside.is_at_end() { Ok(Some(only)) } else { Err(several) }
}

fn single<'a>(set: Option<Element<'a>>, several: Error) -> Result<Option<&'a [u8]>, Error> {
    let only = single_element(set, several)?;
    if only.is_some_and(|only| only.tag != tag::SEQUENCE) {
        return Err(Error::Malformed);
    }
    Ok(only.map(|only| only.whole))
}

/// A SignedData without signature: what is inside the SEQUENCE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsigned<'a> {
    pub(crate) content_type: &'a [u8],
    pub(crate) content: Option<&'a [u8]>,
    pub(crate) certificate: Option<&'a [u8]>,
    pub(crate) crl: Option<&'a [u8]>,
}

impl Unsigned<'_> {
    /// A SignedData with no signer: the parts inside its SEQUENCE.
    pub(crate) fn degenerate(&self, dialect: &Dialect) -> Vec<u8> {
        self.around(&[tag::SET, 0], &[tag::SET, 0], dialect)
    }

    fn around(&self, digests: &[u8], signers: &[u8], dialect: &Dialect) -> Vec<u8> {
        let version: u8 = match dialect.version {
            SignedDataVersion::Cms if self.content_type != ID_DATA => 3,
            _ => 1,
        };
        let content = self.content.map_or_else(Vec::new, |content| {
            tlv(tag::context_constructed(0), &[&tlv(tag::OCTET_STRING, &[content])])
        });
        let encapsulated = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[self.content_type]), &content]);
        let set = |number: u8, der: Option<&[u8]>| {
            der.map_or_else(Vec::new, |der| tlv(tag::context_constructed(number), &[der]))
        };
        let (certificate, crl) = (set(0, self.certificate), set(1, self.crl));
        // The place was seen in credentials only; elsewhere it is CMS'.
        let after = self.content.is_none() && dialect.credential_crl == CrlPlace::AfterSigners;
        let (before, after): (&[u8], &[u8]) = if after { (&[], &crl) } else { (&crl, &[]) };
        let version = tlv(tag::INTEGER, &[&[version]]);
        [&version, digests, &encapsulated, &certificate, before, signers, after].concat()
    }
}

/// ContentInfo around the inside of a SignedData.
pub(crate) fn content_info(inside: &[u8]) -> Vec<u8> {
    let signed = tlv(tag::SEQUENCE, &[inside]);
    let explicit = tlv(tag::context_constructed(0), &[&signed]);
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[ID_SIGNED_DATA]), &explicit])
}

/// A token that is complete but for its signature.
#[derive(Debug, Clone)]
pub(crate) struct Signing {
    pub(crate) content_type: &'static [u8],
    pub(crate) content: Vec<u8>,
    pub(crate) crl: Option<Vec<u8>>,
    pub(crate) signer: IssuerAndSerial,
    /// The SET of attributes in DER; none: the signature covers the content.
    pub(crate) attributes: Option<Vec<u8>>,
    pub(crate) dialect: Dialect,
}

impl Signing {
    /// What the signature covers.
    pub(crate) fn message(&self) -> &[u8] {
        self.attributes.as_deref().unwrap_or(&self.content)
    }

    /// The token with this signature.
    pub(crate) fn token(&self, signed: &[u8]) -> Vec<u8> {
        let attributes = self.attributes.as_ref().map_or_else(Vec::new, |set| {
            let mut attributes = set.clone();
            attributes[0] = tag::context_constructed(0);
            attributes
        });
        let info = tlv(
            tag::SEQUENCE,
            &[
                &tlv(tag::INTEGER, &[&[SIGNER_VERSION]]),
                self.signer.as_der(),
                &sha256(),
                &attributes,
                &signature(self.dialect.signature),
                &tlv(tag::OCTET_STRING, &[signed]),
            ],
        );
        let unsigned = Unsigned {
            content_type: self.content_type,
            content: Some(&self.content),
            certificate: None,
            crl: self.crl.as_deref(),
        };
        let digests = tlv(tag::SET, &[&sha256()]);
        content_info(&unsigned.around(&digests, &tlv(tag::SET, &[&info]), &self.dialect))
    }
}
