//! `UBT_KDH` and `UBT_CA`: who is unbound from whom.

use super::algorithm::ID_DATA;
use super::attributes::{Fresh, Wanted};
use super::signed::SignedData;
use crate::Error;
use crate::identity::IssuerAndSerial;
use crate::reader::{Walker, tag};

/// An unbind token as it arrived. With a KDH beside the KRD it is the authority's, `UBT_CA`.
#[derive(Debug, Clone)]
pub struct Unbind<'a> {
    signed: SignedData<'a>,
    /// Who is to be unbound.
    pub krd: IssuerAndSerial,
    /// From whom, in `UBT_CA`.
    pub kdh: Option<IssuerAndSerial>,
}

impl<'a> Unbind<'a> {
    /// Takes the token apart.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let signed = SignedData::parse(token)?.with_signer()?;
        let (krd, kdh) = identities(signed.content_of(ID_DATA)?)?;
        match (&signed.signer()?.attributes, &kdh) {
            (Some(attributes), None) => {
                attributes.expect(Wanted { fresh: Fresh::Nonce, header: false })?;
            }
            (None, None) => {
                return Err(crate::error::AttributeFault::Missing.of("randomNonce"));
            }
            // The published UBT_CA has none, and none would make it fresh.
            (Some(_), Some(_)) => {
                return Err(crate::error::AttributeFault::Unexpected.of("contentType"));
            }
            (None, Some(_)) => {}
        }
        Ok(Self { signed, krd, kdh })
    }

    /// The SignedData around it.
    #[must_use]
    pub const fn signed(&self) -> &SignedData<'a> {
        &self.signed
    }
}

/// One or two identities, one after the other.
pub(crate) fn identities(
    content: &[u8],
) -> Result<(IssuerAndSerial, Option<IssuerAndSerial>), Error> {
    let mut walker = Walker::new(content);
    let first = IssuerAndSerial::parse(walker.element(tag::SEQUENCE)?.whole)?;
    let second = match walker.optional(tag::SEQUENCE)? {
        Some(second) => Some(IssuerAndSerial::parse(second.whole)?),
        None => None,
    };
    walker.end()?;
    Ok((first, second))
}
