//! The algorithms that are allowed, and their identifiers.

use alloc::vec::Vec;

use tr31::BlockCipher;

use crate::Error;
use crate::dialect::{OaepForm, SignatureName};
use crate::reader::{Element, tag, tlv};

/// id-data, 1.2.840.113549.1.7.1; as an attribute the key block header.
pub(crate) const ID_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
/// id-signedData, 1.2.840.113549.1.7.2.
pub(crate) const ID_SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
/// id-envelopedData, 1.2.840.113549.1.7.3.
pub(crate) const ID_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 3];

const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7];
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 8];
const P_SPECIFIED: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 9];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
const DES_EDE3_CBC: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 3, 7];
const AES128_CBC: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 1, 2];
/// NULL.
const NULL: &[u8] = &[tag::NULL, 0];

/// The cipher of an envelope's content, always in CBC mode with padding after PKCS#7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentCipher {
    /// `des-ede3-cbc`: a key of 24 bytes, of 112 bits of strength.
    Tdes,
    /// `aes128-CBC`: a key of 16 bytes.
    Aes128,
}

impl ContentCipher {
    /// Length of the content encryption key in bytes.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::Tdes => 24,
            Self::Aes128 => 16,
        }
    }

    /// The block cipher.
    #[must_use]
    pub const fn cipher(self) -> BlockCipher {
        match self {
            Self::Tdes => BlockCipher::Tdes,
            Self::Aes128 => BlockCipher::Aes,
        }
    }

    /// The identifier's name, as CMS writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tdes => "des-ede3-cbc",
            Self::Aes128 => "aes128-CBC",
        }
    }

    pub(crate) const fn oid(self) -> &'static [u8] {
        match self {
            Self::Tdes => DES_EDE3_CBC,
            Self::Aes128 => AES128_CBC,
        }
    }

    pub(crate) fn of(oid: &[u8]) -> Result<Self, Error> {
        [Self::Tdes, Self::Aes128]
            .into_iter()
            .find(|known| known.oid() == oid)
            .ok_or(Error::Algorithm)
    }
}

/// SHA-256 without parameters.
pub(crate) fn sha256() -> Vec<u8> {
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[SHA256])])
}

/// SHA-256; its parameters are absent or NULL (RFC 5754 §2).
pub(crate) fn expect_sha256(element: &Element<'_>) -> Result<(), Error> {
    let (oid, parameters) = identifier(element)?;
    let plain = parameters.is_none_or(|parameters| parameters.whole == NULL);
    if oid == SHA256 && plain { Ok(()) } else { Err(Error::Algorithm) }
}

pub(crate) fn signature(name: SignatureName) -> Vec<u8> {
    let oid = match name {
        SignatureName::Sha256WithRsa => SHA256_WITH_RSA,
        SignatureName::RsaEncryption => RSA_ENCRYPTION,
    };
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[oid]), NULL])
}

pub(crate) fn signature_name(element: &Element<'_>) -> Result<SignatureName, Error> {
    let (oid, parameters) = identifier(element)?;
    if parameters.is_some_and(|parameters| parameters.whole != NULL) {
        return Err(Error::Algorithm);
    }
    match oid {
        SHA256_WITH_RSA => Ok(SignatureName::Sha256WithRsa),
        RSA_ENCRYPTION => Ok(SignatureName::RsaEncryption),
        _ => Err(Error::Algorithm),
    }
}

/// RSAES-OAEP with SHA-256, MGF1 with SHA-256 and the empty label.
pub(crate) fn oaep(form: OaepForm) -> Vec<u8> {
    let mask = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[MGF1]), &sha256()]);
    let label = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[P_SPECIFIED]), &[tag::OCTET_STRING, 0]]);
    let parameters = match form {
        OaepForm::Untagged => tlv(tag::SEQUENCE, &[&sha256(), &mask, &label]),
        OaepForm::Tagged => {
            let [hash, mask, label] = [(0, &sha256()), (1, &mask), (2, &label)]
                .map(|(number, der)| tlv(tag::context_constructed(number), &[der]));
            tlv(tag::SEQUENCE, &[&hash, &mask, &label])
        }
    };
    tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[RSAES_OAEP]), &parameters])
}

/// RSAES-OAEP as [`oaep`]. The label may be absent: empty is its default.
pub(crate) fn oaep_form(element: &Element<'_>) -> Result<OaepForm, Error> {
    let (oid, parameters) = identifier(element)?;
    let parameters = parameters.filter(|it| oid == RSAES_OAEP && it.tag == tag::SEQUENCE);
    let mut inside = parameters.ok_or(Error::Algorithm)?.inside()?;
    let form = match inside.peek() {
        Some(tag::SEQUENCE) => OaepForm::Untagged,
        _ => OaepForm::Tagged,
    };
    let mut part = |number: u8| -> Result<Option<Element<'_>>, Error> {
        match form {
            OaepForm::Untagged => Ok(inside.optional(tag::SEQUENCE)?),
            OaepForm::Tagged => {
                let Some(tagged) = inside.optional(tag::context_constructed(number))? else {
                    return Ok(None);
                };
                let mut inside = tagged.inside()?;
                let part = inside.element(tag::SEQUENCE)?;
                inside.end()?;
                Ok(Some(part))
            }
        }
    };
    // An absent hash or mask means SHA-1, which is not allowed.
    expect_sha256(&part(0)?.ok_or(Error::Algorithm)?)?;
    let (mask, hash) = identifier(&part(1)?.ok_or(Error::Algorithm)?)?;
    if mask != MGF1 {
        return Err(Error::Algorithm);
    }
    expect_sha256(&hash.ok_or(Error::Algorithm)?)?;
    if let Some(source) = part(2)? {
        let (source, label) = identifier(&source)?;
        let empty = label.is_some_and(|label| label.whole == [tag::OCTET_STRING, 0]);
        if source != P_SPECIFIED || !empty {
            return Err(Error::Algorithm);
        }
    }
    inside.end()?;
    Ok(form)
}

/// An AlgorithmIdentifier: its object identifier and its parameters.
fn identifier<'a>(element: &Element<'a>) -> Result<(&'a [u8], Option<Element<'a>>), Error> {
    if element.tag != tag::SEQUENCE {
        return Err(Error::Malformed);
    }
    let mut inside = element.inside()?;
    let oid = inside.element(tag::OID)?.content;
    let parameters = if inside.is_at_end() { None } else { Some(inside.any()?) };
    inside.end()?;
    Ok((oid, parameters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Walker;

    fn sequence(der: &[u8]) -> Element<'_> {
        Walker::single(der, tag::SEQUENCE).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        expect_sha256(&sequence(&sha256())).unwrap();
        for name in [SignatureName::Sha256WithRsa, SignatureName::RsaEncryption] {
            assert_eq!(signature_name(&sequence(&signature(name))).unwrap(), name);
        }
        for form in [OaepForm::Tagged, OaepForm::Untagged] {
            assert_eq!(oaep_form(&sequence(&oaep(form))).unwrap(), form);
        }
        for cipher in [ContentCipher::Tdes, ContentCipher::Aes128] {
            assert_eq!(ContentCipher::of(cipher.oid()).unwrap(), cipher);
        }
    }

    #[test]
    fn each_other_algorithm_is_refused() {
        let algorithm =
            |result: Result<(), Error>| assert_eq!(result.unwrap_err(), Error::Algorithm);
        for position in 4..13 {
            let mut other = sha256();
            other[position] ^= 1;
            algorithm(expect_sha256(&sequence(&other)));
        }
        algorithm(signature_name(&sequence(&oaep(OaepForm::Tagged))).map(|_| ()));
        algorithm(oaep_form(&sequence(&sha256())).map(|_| ()));
        // No parameters: SHA-1 and MGF1 with SHA-1.
        let empty = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[RSAES_OAEP]), &[tag::SEQUENCE, 0]]);
        algorithm(oaep_form(&sequence(&empty)).map(|_| ()));
        let aes256 = [&AES128_CBC[..8], &[42]].concat();
        algorithm(ContentCipher::of(&aes256).map(|_| ()));
    }

    #[test]
    fn absent_parameters_and_null_are_one() {
        let of = |parameters: &[u8]| {
            let der = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[SHA256]), parameters]);
            expect_sha256(&sequence(&der))
        };
        of(&[]).unwrap();
        of(NULL).unwrap();
        assert_eq!(of(&[4, 0]).unwrap_err(), Error::Algorithm);
        assert_eq!(of(&[5, 0, 5, 0]).unwrap_err(), Error::Trailing);
        // As the public importer of AWS writes it: the one with NULL, the other without.
        let hash = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[SHA256]), NULL]);
        let mask = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[MGF1]), &sha256()]);
        let label = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[P_SPECIFIED]), &[4, 0]]);
        let parameters = tlv(tag::SEQUENCE, &[&hash, &mask, &label]);
        let der = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[RSAES_OAEP]), &parameters]);
        assert_eq!(oaep_form(&sequence(&der)).unwrap(), OaepForm::Untagged);
    }

    #[test]
    fn a_label_is_refused_and_an_absent_one_is_empty() {
        let hash = tlv(0xa0, &[&sha256()]);
        let mask = tlv(0xa1, &[&tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[MGF1]), &sha256()])]);
        let of = |parts: &[&[u8]]| {
            let parameters = tlv(tag::SEQUENCE, parts);
            let der = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[RSAES_OAEP]), &parameters]);
            oaep_form(&sequence(&der))
        };
        assert_eq!(of(&[&hash, &mask]).unwrap(), OaepForm::Tagged);
        let label = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[P_SPECIFIED]), &[4, 1, 7]]);
        let label = tlv(0xa2, &[&label]);
        assert_eq!(of(&[&hash, &mask, &label]).unwrap_err(), Error::Algorithm);
        assert_eq!(of(&[&hash]).unwrap_err(), Error::Algorithm);
        assert_eq!(of(&[&mask]).unwrap_err(), Error::Algorithm);
    }
}
