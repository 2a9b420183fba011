//! Lists of revoked certificates, read from received bytes and verified over them. A KDH sends
//! `CRL_CA_KDH` along, outside its own signature, so an older valid list could be put in its
//! place: what was seen last counts too.

mod error;

use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::UnixTime;

pub use self::error::CrlError;
use crate::certificate::{Certificate, SHA256_WITH_RSA, time};
use crate::extensions;
use crate::identity::{IssuerAndSerial, NAME_MAX, check_serial, name_text};
use crate::reader::{DerError, Element, Walker, tag};
use crate::{Rsa, RsaError};

/// Longest list, in bytes of DER.
pub const CRL_MAX: usize = 1 << 20;
/// Most entries of a list.
pub const CRL_ENTRIES_MAX: usize = 20_000;
/// Most octets of a CRL number (RFC 5280 §5.2.3).
const NUMBER_LEN: usize = 20;

/// A CRL number, comparable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CrlNumber([u8; NUMBER_LEN]);

impl CrlNumber {
    /// From a magnitude, big-endian.
    ///
    /// # Errors
    /// [`DerError::Value`] above 20 octets.
    pub fn new(magnitude: &[u8]) -> Result<Self, DerError> {
        let mut number = [0; NUMBER_LEN];
        let start = NUMBER_LEN.checked_sub(magnitude.len()).ok_or(DerError::Value)?;
        number[start..].copy_from_slice(magnitude);
        Ok(Self(number))
    }

    /// The magnitude, big-endian, with leading zeros.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; NUMBER_LEN] {
        &self.0
    }
}

impl From<u64> for CrlNumber {
    fn from(number: u64) -> Self {
        let mut octets = [0; NUMBER_LEN];
        octets[NUMBER_LEN - 8..].copy_from_slice(&number.to_be_bytes());
        Self(octets)
    }
}

impl fmt::Display for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zeros = self.0[..NUMBER_LEN - 1].iter().take_while(|octet| **octet == 0).count();
        f.write_str("0x")?;
        self.0[zeros..].iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for CrlNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a relying party keeps of the last list of a CA, so that no older one is taken after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlSeen {
    issuer: Vec<u8>,
    this_update: UnixTime,
    number: Option<CrlNumber>,
}

impl CrlSeen {
    /// The CA's name in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// `thisUpdate`.
    #[must_use]
    pub const fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// The CRL number, where the list had one.
    #[must_use]
    pub const fn number(&self) -> Option<CrlNumber> {
        self.number
    }

    /// For storage.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = self.number.map(|number| number.0).unwrap_or_default();
        let has_number = u8::from(self.number.is_some());
        let secs = self.this_update.as_secs().to_be_bytes();
        [&[has_number][..], &number, &secs, &self.issuer].concat()
    }

    /// From storage; none unless [`Self::to_bytes`] wrote it.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&flag, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk::<NUMBER_LEN>()?;
        let (secs, issuer) = rest.split_first_chunk::<8>()?;
        Walker::single(issuer, tag::SEQUENCE).ok()?;
        let number = match flag {
            0 if *number == [0; NUMBER_LEN] => None,
            1 => Some(CrlNumber(*number)),
            _ => return None,
        };
        let this_update = UnixTime::from_secs(u64::from_be_bytes(*secs));
        Some(Self { issuer: issuer.to_vec(), this_update, number })
    }
}

/// A list taken apart. Parsing verifies nothing; [`Self::verify`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct Crl {
    raw: Vec<u8>,
    tbs: Vec<u8>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    this_update: UnixTime,
    next_update: Option<UnixTime>,
    number: Option<CrlNumber>,
    authority_key_id: Option<Vec<u8>>,
    /// Content octets of the serial numbers, sorted.
    serials: Vec<Vec<u8>>,
}

impl Crl {
    /// Takes a list apart, of version 1 or 2, with extensions or without.
    ///
    /// # Errors
    /// [`CrlError`] for what is malformed, too long, or not understood.
    pub fn parse(der: &[u8]) -> Result<Self, CrlError> {
        if der.len() > CRL_MAX {
            return Err(CrlError::TooLong);
        }
        let mut outer = Walker::single(der, tag::SEQUENCE)?.inside()?;
        let tbs = outer.element(tag::SEQUENCE)?;
        let outer_algorithm = outer.element(tag::SEQUENCE)?.whole;
        let signature = outer.element(tag::BIT_STRING)?.octets_of_bits()?;
        outer.end()?;

        let mut fields = tbs.inside()?;
        let version = fields.optional(tag::INTEGER)?.map(|it| it.small()).transpose()?;
        if version.is_some_and(|version| version != 1) {
            return Err(CrlError::Version);
        }
        let inner_algorithm = fields.element(tag::SEQUENCE)?.whole;
        if [outer_algorithm, inner_algorithm] != [SHA256_WITH_RSA; 2] {
            return Err(CrlError::Algorithm);
        }
        let issuer = fields.element(tag::SEQUENCE)?.whole;
        if issuer.len() > NAME_MAX {
            return Err(CrlError::TooLong);
        }
        let this_update = time(fields.any()?)?;
        let next_update = match fields.peek() {
            Some(tag::UTC_TIME | tag::GENERALIZED_TIME) => Some(time(fields.any()?)?),
            _ => None,
        };
        let with_extensions = version == Some(1);
        let serials = match fields.optional(tag::SEQUENCE)? {
            Some(entries) => serials(&entries, with_extensions)?,
            None => Vec::new(),
        };
        let extensions = fields.optional(tag::context_constructed(0))?;
        fields.end()?;
        if extensions.is_some() && !with_extensions {
            return Err(CrlError::Version);
        }
        let (number, authority_key_id) = claims(extensions.as_ref())?;
        Ok(Self {
            raw: der.to_vec(),
            tbs: tbs.whole.to_vec(),
            signature: signature.to_vec(),
            issuer: issuer.to_vec(),
            this_update,
            next_update,
            number,
            authority_key_id,
            serials,
        })
    }

    /// The list as it was received.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The CA's name in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// When it was made.
    #[must_use]
    pub const fn this_update(&self) -> UnixTime {
        self.this_update
    }

    /// Until when it holds.
    #[must_use]
    pub const fn next_update(&self) -> Option<UnixTime> {
        self.next_update
    }

    /// Its number, where it has one.
    #[must_use]
    pub const fn number(&self) -> Option<CrlNumber> {
        self.number
    }

    /// How many certificates are on it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.serials.len()
    }

    /// True for a list without entries.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.serials.is_empty()
    }

    /// The serial numbers on it, rising: the content octets of each.
    pub fn serials(&self) -> impl Iterator<Item = &[u8]> {
        self.serials.iter().map(Vec::as_slice)
    }

    /// True if the certificate is of this list's CA and on the list. The CA's other certificates,
    /// and those of other CAs, are not: [`Self::admits`] tells them apart.
    #[must_use]
    pub fn lists(&self, identity: &IssuerAndSerial) -> bool {
        matches!(self.admits(identity), Err(CrlError::Revoked))
    }

    /// Whether this list, verified before, admits the certificate.
    ///
    /// # Errors
    /// [`CrlError::NotTheIssuer`] for a certificate of another CA, of which this list says nothing;
    /// [`CrlError::Revoked`].
    pub fn admits(&self, identity: &IssuerAndSerial) -> Result<(), CrlError> {
        if identity.issuer() != self.issuer {
            return Err(CrlError::NotTheIssuer);
        }
        match self.serials.binary_search_by(|serial| serial.as_slice().cmp(identity.serial())) {
            Ok(_) => Err(CrlError::Revoked),
            Err(_) => Ok(()),
        }
    }

    /// Verifies the list: issued by `ca`, which the caller trusts, signed over the received bytes,
    /// valid at `now`, and not older than the one seen last: by number where both have one, else
    /// by `thisUpdate`. Returns what to keep for the next time.
    ///
    /// # Errors
    /// [`CrlError`], in this order: the issuer's name and key, its usage and window, the signature,
    /// `thisUpdate`, `nextUpdate`, age.
    pub fn verify(
        &self,
        rsa: &dyn Rsa,
        ca: &Certificate,
        now: UnixTime,
        last_seen: Option<&CrlSeen>,
    ) -> Result<CrlSeen, CrlError> {
        if self.issuer != ca.subject() || !ca.is_meant_by(self.authority_key_id.as_deref()) {
            return Err(CrlError::Issuer);
        }
        if !ca.may_sign_crl() {
            return Err(CrlError::IssuerUsage);
        }
        ca.check_window(now).map_err(|_| CrlError::IssuerTime)?;
        rsa.verify(ca.public_key(), &self.tbs, &self.signature).map_err(|error| match error {
            RsaError::InvalidKey => CrlError::IssuerUsage,
            _ => CrlError::Signature,
        })?;
        if now.as_secs() < self.this_update.as_secs() {
            return Err(CrlError::NotYetValid);
        }
        let next_update = self.next_update.ok_or(CrlError::WithoutNextUpdate)?;
        if now.as_secs() > next_update.as_secs() {
            return Err(CrlError::Expired);
        }
        if let Some(last) = last_seen {
            self.check_not_older(last)?;
        }
        let Self { issuer, this_update, number, .. } = self;
        Ok(CrlSeen { issuer: issuer.clone(), this_update: *this_update, number: *number })
    }

    fn check_not_older(&self, last: &CrlSeen) -> Result<(), CrlError> {
        if last.issuer != self.issuer {
            return Err(CrlError::LastSeenIssuer);
        }
        let older = match (self.number, last.number) {
            (Some(number), Some(last)) => number < last,
            _ => self.this_update < last.this_update,
        };
        if older { Err(CrlError::Older) } else { Ok(()) }
    }
}

impl fmt::Debug for Crl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let issuer = name_text(&self.issuer);
        write!(f, "Crl({issuer}, made at {}, {} entries)", self.this_update, self.len())
    }
}

/// The serial numbers on the list. An entry's extensions (reason, date) say nothing that counts
/// here, unless they are critical: then it is another CA's entry.
fn serials(entries: &Element<'_>, with_extensions: bool) -> Result<Vec<Vec<u8>>, CrlError> {
    let mut walker = entries.inside()?;
    let mut serials = Vec::new();
    while !walker.is_at_end() {
        if serials.len() == CRL_ENTRIES_MAX {
            return Err(CrlError::TooLong);
        }
        let mut entry = walker.element(tag::SEQUENCE)?.inside()?;
        let serial = entry.element(tag::INTEGER)?.content;
        check_serial(serial)?;
        time(entry.any()?)?;
        if let Some(list) = entry.optional(tag::SEQUENCE)? {
            if !with_extensions {
                return Err(CrlError::Version);
            }
            if extensions::read(&list)?.iter().any(|extension| extension.critical) {
                return Err(CrlError::CriticalExtension);
            }
        }
        entry.end()?;
        serials.push(serial.to_vec());
    }
    serials.sort_unstable();
    Ok(serials)
}

type Claims = (Option<CrlNumber>, Option<Vec<u8>>);

/// The number, and the identifier of the key that signed.
fn claims(extensions: Option<&Element<'_>>) -> Result<Claims, CrlError> {
    let Some(element) = extensions else { return Ok((None, None)) };
    let mut inside = element.inside()?;
    let list = extensions::read(&inside.element(tag::SEQUENCE)?)?;
    inside.end()?;
    let (mut number, mut key_id) = (None, None);
    for (position, extension) in list.iter().enumerate() {
        let earlier = &list[..position];
        if extension.number.is_some() && earlier.iter().any(|it| it.number == extension.number) {
            return Err(CrlError::RepeatedExtension);
        }
        match extension.number {
            Some(extensions::CRL_NUMBER) => {
                number = Some(CrlNumber::new(extension.crl_number()?)?);
            }
            Some(extensions::AUTHORITY_KEY_ID) => {
                key_id = extension.authority_key_id()?.map(<[u8]>::to_vec);
            }
            _ if extension.critical => return Err(CrlError::CriticalExtension),
            _ => {}
        }
    }
    Ok((number, key_id))
}
