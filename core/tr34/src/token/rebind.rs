//! `RBT_KDH` and `RBT_CA`: the new KDH's certificate for a receiver, under the old one's or the
//! authority's signature.

use alloc::vec::Vec;

use super::algorithm::{ID_DATA, ID_SIGNED_DATA};
use super::attributes::{Fresh, Wanted};
use super::signed::{SignedData, Unsigned};
use super::unbind::identities;
use crate::Error;
use crate::dialect::{ContentForm, CrlPlace, Dialect, Observed};
use crate::error::AttributeFault;
use crate::identity::IssuerAndSerial;
use crate::reader::{Walker, tag, tlv};

/// A rebind token as it arrived. With a KDH beside the KRD it is the authority's, `RBT_CA`.
#[derive(Debug, Clone)]
pub struct Rebind<'a> {
    signed: SignedData<'a>,
    /// Who is to be rebound.
    pub krd: IssuerAndSerial,
    /// From whom, in `RBT_CA`.
    pub old_kdh: Option<IssuerAndSerial>,
    /// The new KDH's certificate in DER.
    pub certificate: &'a [u8],
    /// The revocation list of the new KDH's authority, where that is another than the old one's.
    pub crl: Option<&'a [u8]>,
    /// What the token shows of its dialect.
    pub observed: Observed,
}

impl<'a> Rebind<'a> {
    /// Takes the token apart. The certificate is not looked at.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &'a [u8]) -> Result<Self, Error> {
        let signed = SignedData::parse(token)?.with_signer()?;
        let content = signed.content_of(ID_SIGNED_DATA)?;
        let mut outer = Walker::new(content);
        let (form, inner) = if outer.peek() == Some(tag::SEQUENCE) {
            let inside = outer.element(tag::SEQUENCE)?.inside()?;
            outer.end()?;
            (ContentForm::Sequence, SignedData::read(inside)?)
        } else {
            (ContentForm::Bare, SignedData::read(outer)?)
        };
        if inner.signer.is_some() {
            return Err(Error::SignerCount);
        }
        if inner.observed.credential_crl == Some(CrlPlace::AfterSigners) {
            return Err(Error::Malformed);
        }
        let certificate = inner.certificate.ok_or(Error::CertificateCount)?;
        let (krd, old_kdh) = identities(inner.content_of(ID_DATA)?)?;
        let fresh = if old_kdh.is_some() { Fresh::SigningTime } else { Fresh::Nonce };
        let attributes = signed.signer()?.attributes.as_ref();
        attributes
            .ok_or(AttributeFault::Missing.of("contentType"))?
            .expect(Wanted { fresh, header: false })?;
        let observed = Observed { rebind_content: Some(form), ..signed.observed };
        Ok(Self { krd, old_kdh, certificate, crl: inner.crl, observed, signed })
    }

    /// The SignedData around it.
    #[must_use]
    pub const fn signed(&self) -> &SignedData<'a> {
        &self.signed
    }
}

/// The octets of `eContent`.
pub(crate) fn content(
    identities: &[u8],
    certificate: &[u8],
    crl: Option<&[u8]>,
    dialect: &Dialect,
) -> Vec<u8> {
    let unsigned = Unsigned {
        content_type: ID_DATA,
        content: Some(identities),
        certificate: Some(certificate),
        crl,
    };
    let inside = unsigned.degenerate(dialect);
    match dialect.rebind_content {
        ContentForm::Sequence => tlv(tag::SEQUENCE, &[&inside]),
        ContentForm::Bare => inside,
    }
}
