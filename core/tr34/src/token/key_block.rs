//! The key block inside the envelope: version, sender, key, header.

use alloc::vec::Vec;

use countersign_crypto::Secret;
use zeroize::Zeroizing;

use super::algorithm::ID_DATA;
use super::attributes::{attribute, attribute_parts, octets};
use super::{HEADER_MAX, KEY_MAX};
use crate::Error;
use crate::dialect::{Dialect, HeaderForm, KeyBlockVersion, Observed};
use crate::identity::IssuerAndSerial;
use crate::reader::{Walker, tag, tlv};

/// The content of the envelope of `KT_KDH`.
#[derive(Debug)]
pub struct KeyBlock {
    /// The sender, the same as the token's signer.
    pub kdh: IssuerAndSerial,
    /// The key.
    pub key: Secret,
    /// The header, the same as the signed one.
    pub header: Vec<u8>,
}

impl KeyBlock {
    /// Takes the decrypted content apart.
    ///
    /// # Errors
    /// [`Error::Decryption`] for anything that is not a key block.
    pub fn parse(text: &Secret, observed: &mut Observed) -> Result<Self, Error> {
        Self::read(text, observed).map_err(|_| Error::Decryption)
    }

    fn read(text: &Secret, observed: &mut Observed) -> Result<Self, Error> {
        let mut inside = Walker::single(text.expose(), tag::SEQUENCE)?.inside()?;
        observed.key_block_version = Some(match inside.element(tag::INTEGER)?.small()? {
            0 => KeyBlockVersion::Zero,
            1 => KeyBlockVersion::One,
            _ => return Err(Error::Malformed),
        });
        let kdh = IssuerAndSerial::parse(inside.element(tag::SEQUENCE)?.whole)?;
        let key = octets(&inside.element(tag::OCTET_STRING)?, tag::OCTET_STRING, 1..=KEY_MAX)?;
        let header = inside.any()?;
        inside.end()?;
        let (form, header) = if header.tag == tag::OCTET_STRING {
            (HeaderForm::OctetString, header)
        } else {
            match attribute_parts(&header)? {
                (ID_DATA, value) => (HeaderForm::Attribute, value),
                _ => return Err(Error::Malformed),
            }
        };
        observed.header = Some(form);
        let header = octets(&header, tag::OCTET_STRING, 1..=HEADER_MAX)?.to_vec();
        Ok(Self { kdh, key: Secret::copied_from(key), header })
    }

    /// In DER.
    pub(crate) fn encode(
        kdh: &IssuerAndSerial,
        key: &Secret,
        header: &[u8],
        dialect: &Dialect,
    ) -> Zeroizing<Vec<u8>> {
        let version: u8 = match dialect.key_block_version {
            KeyBlockVersion::Zero => 0,
            KeyBlockVersion::One => 1,
        };
        let header = tlv(tag::OCTET_STRING, &[header]);
        let header = match dialect.header {
            HeaderForm::OctetString => header,
            HeaderForm::Attribute => attribute(ID_DATA, &header),
        };
        let key = Zeroizing::new(tlv(tag::OCTET_STRING, &[key.expose()]));
        let version = tlv(tag::INTEGER, &[&[version]]);
        Zeroizing::new(tlv(tag::SEQUENCE, &[&version, kdh.as_der(), &key, &header]))
    }
}
