//! `KT_KDH`, the key token.

use countersign_crypto::UnixTime;

use super::algorithm::ID_ENVELOPED_DATA;
use super::attributes::{Fresh, SignedAttributes, Wanted};
use super::enveloped::Enveloped;
use super::random::Nonce;
use super::signed::{SignedData, SignerInfo};
use crate::Error;
use crate::dialect::Observed;
use crate::error::AttributeFault;

/// What makes a key token fresh, and so the number of its passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Two passes: it answers the receiver's random number.
    TwoPass(Nonce),
    /// One pass: when it was signed.
    OnePass(UnixTime),
}

/// `KT_KDH` (E5) as it arrived.
#[derive(Debug, Clone)]
pub struct KtKdh<'a> {
    signed: SignedData<'a>,
    attributes: SignedAttributes<'a>,
    content: &'a [u8],
    /// The random number or the signing time.
    pub freshness: Freshness,
    /// The signed key block header.
    pub header: &'a [u8],
}

impl<'a> KtKdh<'a> {
    /// Takes the token apart down to its signed content, which [`Self::enveloped`] reads.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let signed = SignedData::parse(token)?.with_signer()?;
        let content = signed.content_of(ID_ENVELOPED_DATA)?;
        let attributes = signed.signer()?.attributes.clone();
        let attributes = attributes.ok_or(AttributeFault::Missing.of("contentType"))?;
        let fresh = if attributes.has_nonce() { Fresh::Nonce } else { Fresh::SigningTime };
        attributes.expect(Wanted { fresh, header: true })?;
        let freshness = match fresh {
            Fresh::Nonce => Freshness::TwoPass(Nonce::new(attributes.nonce()?)?),
            Fresh::SigningTime => Freshness::OnePass(attributes.signing_time()?),
        };
        let header = attributes.header()?;
        Ok(Self { signed, attributes, content, freshness, header })
    }

    /// The SignedData around it.
    #[must_use]
    pub const fn signed(&self) -> &SignedData<'a> {
        &self.signed
    }

    /// The signed attributes.
    #[must_use]
    pub const fn attributes(&self) -> &SignedAttributes<'a> {
        &self.attributes
    }

    /// The signer.
    ///
    /// # Errors
    /// None: parsing has seen that there is one.
    pub fn signer(&self) -> Result<&SignerInfo<'a>, Error> {
        self.signed.signer()
    }

    /// The envelope, and what token and envelope show of the dialect.
    ///
    /// # Errors
    /// An [`Error`] about the structure; [`Error::Algorithm`].
    pub fn enveloped(&self) -> Result<(Enveloped<'a>, Observed), Error> {
        let mut observed = self.signed.observed;
        let enveloped = Enveloped::parse(self.content, &mut observed)?;
        Ok((enveloped, observed))
    }
}
