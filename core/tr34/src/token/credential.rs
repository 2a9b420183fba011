//! `CT_KRD` and `CT_KDH`: a certificate, and the sender's with its revocation list. No signer.

use alloc::vec::Vec;

use super::algorithm::ID_DATA;
use super::signed::{SignedData, Unsigned, content_info};
use crate::Error;
use crate::dialect::{Dialect, Observed};

/// `CT_KRD`: the receiver's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtKrd<'a> {
    /// The certificate in DER.
    pub certificate: &'a [u8],
}

impl<'a> CtKrd<'a> {
    /// Takes the token apart. The certificate is not looked at.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let signed = credential(token)?;
        if signed.crl.is_some() {
            return Err(Error::CrlCount);
        }
        Ok(Self { certificate: signed.certificate.ok_or(Error::CertificateCount)? })
    }

    /// The token. It is the same in all dialects.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self.certificate, None, &Dialect::STRICT)
    }
}

/// `CT_KDH`: the sender's certificate and the revocation list of its certification authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CtKdh<'a> {
    /// The certificate in DER.
    pub certificate: &'a [u8],
    /// The revocation list in DER.
    pub crl: Option<&'a [u8]>,
    /// What the token shows of its dialect.
    pub observed: Observed,
}

impl<'a> CtKdh<'a> {
    /// Takes the token apart. Certificate and revocation list are not looked at.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let signed = credential(token)?;
        let certificate = signed.certificate.ok_or(Error::CertificateCount)?;
        Ok(Self { certificate, crl: signed.crl, observed: signed.observed })
    }

    /// A token.
    #[must_use]
    pub fn encode(certificate: &[u8], crl: Option<&[u8]>, dialect: &Dialect) -> Vec<u8> {
        encode(certificate, crl, dialect)
    }
}

fn credential(token: &[u8]) -> Result<SignedData<'_>, Error> {
    let signed = SignedData::parse(token)?;
    if signed.content_type != ID_DATA || signed.content.is_some() {
        return Err(Error::ContentType);
    }
    if signed.signer.is_some() {
        return Err(Error::SignerCount);
    }
    Ok(signed)
}

fn encode(certificate: &[u8], crl: Option<&[u8]>, dialect: &Dialect) -> Vec<u8> {
    let unsigned =
        Unsigned { content_type: ID_DATA, content: None, certificate: Some(certificate), crl };
    content_info(&unsigned.degenerate(dialect))
}
