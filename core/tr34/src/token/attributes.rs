//! Signed attributes: read in received order, signed over the received bytes.

use alloc::vec;
use alloc::vec::Vec;

use countersign_crypto::UnixTime;
use der::asn1::{GeneralizedTime, UtcTime};
use der::{Decode, Encode};

use super::HEADER_MAX;
use super::algorithm::ID_DATA;
use crate::dialect::{AttributeOrder, Observed};
use crate::error::{AttributeFault, Error};
use crate::reader::{Element, tag, tlv};

/// Shortest random number, in bytes.
pub const NONCE_MIN: usize = 8;
/// Longest random number, in bytes; ours has this length.
pub const NONCE_MAX: usize = 16;
/// Most attributes that are looked at.
const ATTRIBUTES_MAX: usize = 8;
/// Length of the digest in bytes.
const DIGEST_LEN: usize = 32;
/// The first moment that CMS writes as GeneralizedTime (RFC 5652 §11.3): 2050-01-01.
const GENERALIZED_FROM: u64 = 2_524_608_000;

pub(crate) const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
pub(crate) const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
pub(crate) const SIGNING_TIME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 5];
/// id-aa-randomNonce, 1.2.840.113549.1.9.25.3.
pub(crate) const RANDOM_NONCE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 25, 3];

/// An attribute with one value, in DER.
pub(crate) fn attribute(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[oid]), &tlv(tag::SET, &[value])])
}

/// The object identifier and the one value of an attribute.
pub(crate) fn attribute_parts<'a>(element: &Element<'a>) -> Result<(&'a [u8], Element<'a>), Error> {
    if element.tag != tag::SEQUENCE {
        return Err(Error::Malformed);
    }
    let mut inside = element.inside()?;
    let oid = inside.element(tag::OID)?.content;
    let mut values = inside.element(tag::SET)?.inside()?;
    inside.end()?;
    if values.is_at_end() {
        return Err(AttributeFault::Values.of(name(oid)));
    }
    let value = values.any()?;
    if !values.is_at_end() {
        return Err(AttributeFault::Values.of(name(oid)));
    }
    Ok((oid, value))
}

fn name(oid: &[u8]) -> &'static str {
    match oid {
        CONTENT_TYPE => "contentType",
        MESSAGE_DIGEST => "messageDigest",
        SIGNING_TIME => "signingTime",
        RANDOM_NONCE => "randomNonce",
        ID_DATA => "keyBlockHeader",
        _ => "other",
    }
}

/// The place of an attribute in the standard's list.
fn rank(oid: &[u8]) -> u8 {
    match oid {
        CONTENT_TYPE => 0,
        RANDOM_NONCE | SIGNING_TIME => 1,
        ID_DATA => 2,
        MESSAGE_DIGEST => 3,
        _ => u8::MAX,
    }
}

/// Signed attributes as they arrived: each known one at most once, with one value.
#[derive(Debug, Clone, Default)]
pub struct SignedAttributes<'a> {
    raw: &'a [u8],
    content_type: Option<&'a [u8]>,
    digest: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
    signing_time: Option<UnixTime>,
    header: Option<&'a [u8]>,
}

impl<'a> SignedAttributes<'a> {
    /// From the element under the tag 0 of a SignerInfo.
    pub(crate) fn parse(element: &Element<'a>, observed: &mut Observed) -> Result<Self, Error> {
        let mut read = Self { raw: element.whole, ..Self::default() };
        let mut inside = element.inside()?;
        let mut list: Vec<(&[u8], u8)> = Vec::new();
        while !inside.is_at_end() {
            if list.len() == ATTRIBUTES_MAX {
                return Err(Error::TooMany);
            }
            let attribute = inside.element(tag::SEQUENCE)?;
            let (oid, value) = attribute_parts(&attribute)?;
            read.take(oid, &value)?;
            list.push((attribute.whole, rank(oid)));
        }
        observed.sorted = Some(list.is_sorted_by(|a, b| a.0 < b.0));
        observed.listed = Some(list.is_sorted_by(|a, b| a.1 < b.1));
        Ok(read)
    }

    fn take(&mut self, oid: &[u8], value: &Element<'a>) -> Result<(), Error> {
        let name = name(oid);
        match oid {
            CONTENT_TYPE => once(&mut self.content_type, octets(value, tag::OID, 1..=32)?, name),
            MESSAGE_DIGEST => {
                let digest = octets(value, tag::OCTET_STRING, DIGEST_LEN..=DIGEST_LEN)?;
                once(&mut self.digest, digest, name)
            }
            RANDOM_NONCE => {
                let nonce = octets(value, tag::OCTET_STRING, NONCE_MIN..=NONCE_MAX)?;
                once(&mut self.nonce, nonce, name)
            }
            ID_DATA => {
                let header = octets(value, tag::OCTET_STRING, 1..=HEADER_MAX)?;
                once(&mut self.header, header, name)
            }
            SIGNING_TIME => once(&mut self.signing_time, time(value)?, name),
            _ => Err(AttributeFault::Unexpected.of(name)),
        }
    }

    /// What the signature covers: the received bytes with the tag of a SET (RFC 5652 §5.4).
    pub(crate) fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = self.raw.to_vec();
        if let Some(first) = bytes.first_mut() {
            *first = tag::SET;
        }
        bytes
    }

    /// The content's type, an object identifier's content octets.
    ///
    /// # Errors
    /// [`Error::Attribute`] if it is absent; so with the others.
    pub fn content_type(&self) -> Result<&'a [u8], Error> {
        self.content_type.ok_or(AttributeFault::Missing.of(name(CONTENT_TYPE)))
    }

    /// SHA-256 of the content.
    ///
    /// # Errors
    /// [`Error::Attribute`].
    pub fn digest(&self) -> Result<&'a [u8], Error> {
        self.digest.ok_or(AttributeFault::Missing.of(name(MESSAGE_DIGEST)))
    }

    /// The receiver's random number.
    ///
    /// # Errors
    /// [`Error::Attribute`].
    pub fn nonce(&self) -> Result<&'a [u8], Error> {
        self.nonce.ok_or(AttributeFault::Missing.of(name(RANDOM_NONCE)))
    }

    /// When the sender says that it signed.
    ///
    /// # Errors
    /// [`Error::Attribute`].
    pub fn signing_time(&self) -> Result<UnixTime, Error> {
        self.signing_time.ok_or(AttributeFault::Missing.of(name(SIGNING_TIME)))
    }

    /// The key block header, as ASCII.
    ///
    /// # Errors
    /// [`Error::Attribute`].
    pub fn header(&self) -> Result<&'a [u8], Error> {
        self.header.ok_or(AttributeFault::Missing.of(name(ID_DATA)))
    }

    /// True if there is a random number: two passes.
    #[must_use]
    pub const fn has_nonce(&self) -> bool {
        self.nonce.is_some()
    }

    /// Refuses attributes that do not belong to this kind of token.
    pub(crate) fn expect(&self, wanted: Wanted) -> Result<(), Error> {
        let unexpected = |present: bool, oid: &[u8]| {
            if present { Err(AttributeFault::Unexpected.of(name(oid))) } else { Ok(()) }
        };
        self.content_type()?;
        self.digest()?;
        match wanted.fresh {
            Fresh::Nonce => {
                self.nonce()?;
                unexpected(self.signing_time.is_some(), SIGNING_TIME)?;
            }
            Fresh::SigningTime => {
                self.signing_time()?;
                unexpected(self.nonce.is_some(), RANDOM_NONCE)?;
            }
        }
        if wanted.header {
            self.header()?;
        } else {
            unexpected(self.header.is_some(), ID_DATA)?;
        }
        Ok(())
    }
}

/// What says that a token is fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fresh {
    Nonce,
    SigningTime,
}

/// The attributes of a kind of token, beside contentType and messageDigest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) fresh: Fresh,
    pub(crate) header: bool,
}

fn once<T>(place: &mut Option<T>, value: T, name: &'static str) -> Result<(), Error> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(AttributeFault::Repeated.of(name)),
    }
}

pub(crate) fn octets<'a>(
    value: &Element<'a>,
    tag: u8,
    lengths: core::ops::RangeInclusive<usize>,
) -> Result<&'a [u8], Error> {
    if value.tag != tag || !lengths.contains(&value.content.len()) {
        return Err(Error::Malformed);
    }
    Ok(value.content)
}

fn time(value: &Element<'_>) -> Result<UnixTime, Error> {
    let duration = match value.tag {
        tag::UTC_TIME => UtcTime::from_der(value.whole).map(|time| time.to_unix_duration()),
        tag::GENERALIZED_TIME => {
            GeneralizedTime::from_der(value.whole).map(|time| time.to_unix_duration())
        }
        _ => return Err(Error::Malformed),
    };
    Ok(UnixTime::from_secs(duration.map_err(|_| Error::Malformed)?.as_secs()))
}

/// The attributes that a sender signs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) content_type: &'a [u8],
    pub(crate) digest: &'a [u8; DIGEST_LEN],
    pub(crate) nonce: Option<&'a [u8]>,
    pub(crate) signing_time: Option<UnixTime>,
    pub(crate) header: Option<&'a [u8]>,
}

impl Attributes<'_> {
    /// The SET that is signed.
    pub(crate) fn encode(&self, order: AttributeOrder) -> Result<Vec<u8>, Error> {
        let mut list = vec![attribute(CONTENT_TYPE, &tlv(tag::OID, &[self.content_type]))];
        if let Some(nonce) = self.nonce {
            list.push(attribute(RANDOM_NONCE, &tlv(tag::OCTET_STRING, &[nonce])));
        }
        if let Some(time) = self.signing_time {
            list.push(attribute(SIGNING_TIME, &encode_time(time)?));
        }
        if let Some(header) = self.header {
            list.push(attribute(ID_DATA, &tlv(tag::OCTET_STRING, &[header])));
        }
        list.push(attribute(MESSAGE_DIGEST, &tlv(tag::OCTET_STRING, &[self.digest])));
        if order == AttributeOrder::Sorted {
            list.sort_unstable();
        }
        let parts: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
        Ok(tlv(tag::SET, &parts))
    }
}

fn encode_time(time: UnixTime) -> Result<Vec<u8>, Error> {
    let duration = core::time::Duration::from_secs(time.as_secs());
    let der = if time.as_secs() < GENERALIZED_FROM {
        UtcTime::from_unix_duration(duration).and_then(|time| time.to_der())
    } else {
        GeneralizedTime::from_unix_duration(duration).and_then(|time| time.to_der())
    };
    der.map_err(|_| Error::Time)
}
