//! The extensions of certificates, requests and revocation lists that mean something here.

use alloc::vec::Vec;

use crate::party::{BadParty, Party};
use crate::reader::{DerError, Element, Walker, tag, tlv};

/// `id-ce` (2.5.29), the content octets before the last.
const ID_CE: [u8; 2] = [0x55, 0x1d];
pub(crate) const SUBJECT_KEY_ID: u8 = 14;
pub(crate) const KEY_USAGE: u8 = 15;
pub(crate) const SUBJECT_ALT_NAME: u8 = 17;
pub(crate) const BASIC_CONSTRAINTS: u8 = 19;
pub(crate) const CRL_NUMBER: u8 = 20;
pub(crate) const AUTHORITY_KEY_ID: u8 = 35;
/// Most extensions of one certificate or list.
const EXTENSIONS_MAX: usize = 32;
const URI: u8 = tag::context(6);
const KEY_ID: u8 = tag::context(0);

/// keyUsage bits, as the first octet of the BIT STRING has them.
pub(crate) mod usage {
    pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
    pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
    pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
    pub(crate) const CRL_SIGN: u8 = 0x02;
}

/// One extension: the number under `id-ce`, none for any other identifier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extension<'a> {
    pub(crate) number: Option<u8>,
    pub(crate) critical: bool,
    value: Element<'a>,
}

/// Reads `Extensions`, the SEQUENCE OF. DER has no empty one, and a critical flag that is false is
/// left out.
pub(crate) fn read<'a>(sequence: &Element<'a>) -> Result<Vec<Extension<'a>>, DerError> {
    let mut list = sequence.inside()?;
    let mut out = Vec::new();
    while !list.is_at_end() {
        if out.len() == EXTENSIONS_MAX {
            return Err(DerError::Value);
        }
        let mut fields = list.element(tag::SEQUENCE)?.inside()?;
        let oid = fields.element(tag::OID)?.content;
        let critical = match fields.optional(tag::BOOLEAN)? {
            Some(flag) => flag.boolean()?,
            None => false,
        };
        let value = fields.element(tag::OCTET_STRING)?;
        fields.end()?;
        let number = match oid {
            [first, second, number] if [*first, *second] == ID_CE => Some(*number),
            _ => None,
        };
        out.push(Extension { number, critical, value });
    }
    Ok(out)
}

impl<'a> Extension<'a> {
    fn single(&self, tag: u8) -> Result<Element<'a>, DerError> {
        let mut inside = self.value.inside_octets()?;
        let element = inside.element(tag)?;
        inside.end()?;
        Ok(element)
    }

    /// basicConstraints: whether it is a CA, and the path length.
    pub(crate) fn basic_constraints(&self) -> Result<(bool, Option<u8>), DerError> {
        let mut fields = self.single(tag::SEQUENCE)?.inside()?;
        let ca = match fields.optional(tag::BOOLEAN)? {
            Some(flag) => flag.boolean()?,
            None => false,
        };
        let path_length = fields.optional(tag::INTEGER)?.map(|it| it.small()).transpose()?;
        fields.end()?;
        if path_length.is_some() && !ca {
            return Err(DerError::Value);
        }
        Ok((ca, path_length))
    }

    /// keyUsage: the first octet; the ninth bit (decipherOnly) means nothing here.
    pub(crate) fn key_usage(&self) -> Result<u8, DerError> {
        match self.single(tag::BIT_STRING)?.content {
            [0..=7, first] | [0..=7, first, _] => Ok(*first),
            _ => Err(DerError::Value),
        }
    }

    /// subjectKeyIdentifier.
    pub(crate) fn subject_key_id(&self) -> Result<&'a [u8], DerError> {
        Ok(self.single(tag::OCTET_STRING)?.content)
    }

    /// The key identifier in authorityKeyIdentifier, if it has one.
    pub(crate) fn authority_key_id(&self) -> Result<Option<&'a [u8]>, DerError> {
        let mut fields = self.single(tag::SEQUENCE)?.inside()?;
        Ok(fields.optional(KEY_ID)?.map(|id| id.content))
    }

    /// cRLNumber: the magnitude.
    pub(crate) fn crl_number(&self) -> Result<&'a [u8], DerError> {
        self.single(tag::INTEGER)?.unsigned()
    }

    /// The party in a subjectAltName. Names that are not of this project make none; one that is
    /// stands alone.
    pub(crate) fn party(&self) -> Result<Option<Party>, DerError> {
        let mut names = self.single(tag::SEQUENCE)?.inside()?;
        let (mut count, mut ours) = (0_u32, None);
        while !names.is_at_end() {
            let name = names.any()?;
            count += 1;
            let text = str::from_utf8(name.content).unwrap_or_default();
            if name.tag == URI && text.starts_with("countersign:") {
                ours = Some(Party::from_uri(text).map_err(|BadParty| DerError::Value)?);
            }
        }
        match (count, ours) {
            (1, ours) => Ok(ours),
            (_, None) => Ok(None),
            _ => Err(DerError::Value),
        }
    }
}

/// Writes one extension under `id-ce`.
pub(crate) fn write(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let oid = tlv(tag::OID, &[&ID_CE, &[number]]);
    let flag: &[u8] = if critical { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    tlv(tag::SEQUENCE, &[&oid, flag, &tlv(tag::OCTET_STRING, &[value])])
}

pub(crate) fn write_basic_constraints(ca: bool, path_length: Option<u8>) -> Vec<u8> {
    let flag: &[u8] = if ca { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    let length = path_length.map(|length| crate::reader::unsigned(&[length])).unwrap_or_default();
    write(BASIC_CONSTRAINTS, true, &tlv(tag::SEQUENCE, &[flag, &length]))
}

/// DER drops the trailing zero bits of a list of named bits.
pub(crate) fn write_key_usage(bits: u8) -> Vec<u8> {
    let unused = bits.trailing_zeros().min(7).to_le_bytes()[0];
    write(KEY_USAGE, true, &tlv(tag::BIT_STRING, &[&[unused, bits]]))
}

pub(crate) fn write_subject_key_id(id: &[u8]) -> Vec<u8> {
    write(SUBJECT_KEY_ID, false, &tlv(tag::OCTET_STRING, &[id]))
}

pub(crate) fn write_authority_key_id(id: &[u8]) -> Vec<u8> {
    write(AUTHORITY_KEY_ID, false, &tlv(tag::SEQUENCE, &[&tlv(KEY_ID, &[id])]))
}

pub(crate) fn write_party(party: &Party) -> Vec<u8> {
    let uri = tlv(URI, &[party.to_uri().as_bytes()]);
    write(SUBJECT_ALT_NAME, false, &tlv(tag::SEQUENCE, &[&uri]))
}

/// The key identifier of a public key: the first 20 octets of the SHA-256 of its BIT STRING's
/// content (RFC 7093, method 1).
pub(crate) fn key_id(rsa: &dyn crate::Rsa, public_key: &[u8]) -> Result<Vec<u8>, DerError> {
    let mut spki = Walker::single(public_key, tag::SEQUENCE)?.inside()?;
    spki.element(tag::SEQUENCE)?;
    let bits = spki.element(tag::BIT_STRING)?.octets_of_bits()?;
    Ok(rsa.sha256(bits)[..20].to_vec())
}
