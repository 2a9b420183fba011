//! RSA public keys as X.509 carries them.

use alloc::vec::Vec;

use crate::RsaError;
use crate::reader::{DerError, Element, Walker, tag, tlv, unsigned};

/// `rsaEncryption` (1.2.840.113549.1.1.1), the content octets.
const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// The lengths that are accepted, in bits.
pub const RSA_BITS: [u32; 3] = [2048, 3072, 4096];
/// The smallest exponent that is accepted (FIPS 186-5, A.1.1).
const EXPONENT_MIN: u32 = 65_537;

/// A public key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey<'a> {
    /// Big-endian, no leading zeros.
    pub modulus: &'a [u8],
    /// Odd, 65537 or more.
    pub exponent: u32,
}

impl<'a> PublicKey<'a> {
    /// From DER `SubjectPublicKeyInfo` with `rsaEncryption`.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`] for another structure or algorithm, another length than
    /// [`RSA_BITS`], an even modulus, an exponent that is even, below 65537 or above 32 bits.
    pub fn parse(der: &'a [u8]) -> Result<Self, RsaError> {
        Self::walk(der).map_err(|_| RsaError::InvalidKey)?.checked()
    }

    fn walk(der: &'a [u8]) -> Result<Self, DerError> {
        let mut spki = Walker::single(der, tag::SEQUENCE)?.inside()?;
        let mut algorithm = spki.element(tag::SEQUENCE)?.inside()?;
        let oid = algorithm.element(tag::OID)?.content;
        let parameters = algorithm.element(tag::NULL)?.content;
        algorithm.end()?;
        if oid != RSA_ENCRYPTION || !parameters.is_empty() {
            return Err(DerError::Value);
        }
        let mut bits = spki.element(tag::BIT_STRING)?.inside_bits()?;
        spki.end()?;
        let mut key = bits.element(tag::SEQUENCE)?.inside()?;
        bits.end()?;
        let modulus = key.element(tag::INTEGER)?.unsigned()?;
        let exponent = exponent(&key.element(tag::INTEGER)?)?;
        key.end()?;
        Ok(Self { modulus, exponent })
    }

    fn checked(self) -> Result<Self, RsaError> {
        let odd = self.modulus.last().is_some_and(|octet| octet & 1 == 1);
        let exponent_sound = self.exponent % 2 == 1 && self.exponent >= EXPONENT_MIN;
        if odd && exponent_sound && RSA_BITS.contains(&self.bits()) {
            Ok(self)
        } else {
            Err(RsaError::InvalidKey)
        }
    }

    /// The modulus' length in bits.
    #[must_use]
    pub fn bits(&self) -> u32 {
        let zeros = self.modulus.first().map_or(0, |octet| octet.leading_zeros());
        u32::try_from(self.modulus.len()).unwrap_or(u32::MAX / 8).saturating_mul(8) - zeros
    }

    /// DER `SubjectPublicKeyInfo` from modulus and exponent (big-endian, leading zeros allowed), as
    /// a token gives them.
    ///
    /// # Errors
    /// [`RsaError::InvalidKey`], as [`Self::parse`].
    pub fn encode(modulus: &[u8], exponent: &[u8]) -> Result<Vec<u8>, RsaError> {
        let key = tlv(tag::SEQUENCE, &[&unsigned(modulus), &unsigned(exponent)]);
        let der = tlv(
            tag::SEQUENCE,
            &[
                &tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[&RSA_ENCRYPTION]), &[tag::NULL, 0]]),
                &tlv(tag::BIT_STRING, &[&[0], &key]),
            ],
        );
        PublicKey::parse(&der)?;
        Ok(der)
    }
}

fn exponent(integer: &Element<'_>) -> Result<u32, DerError> {
    let octets = integer.unsigned()?;
    if octets.len() > 4 {
        return Err(DerError::Value);
    }
    Ok(octets.iter().fold(0, |sum, octet| sum << 8 | u32::from(*octet)))
}

/// A PKCS#1 `RSAPrivateKey` in a PKCS#8 envelope.
#[cfg(feature = "aws-lc")]
pub(crate) fn pkcs8_of_pkcs1(pkcs1: &[u8]) -> countersign_crypto::Secret {
    use zeroize::Zeroizing;
    let algorithm = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[&RSA_ENCRYPTION]), &[tag::NULL, 0]]);
    let key = Zeroizing::new(tlv(tag::OCTET_STRING, &[pkcs1]));
    let pkcs8 = tlv(tag::SEQUENCE, &[&[tag::INTEGER, 1, 0], &algorithm, &key]);
    countersign_crypto::Secret::new(pkcs8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(modulus: &[u8], exponent: &[u8]) {
        assert_eq!(PublicKey::encode(modulus, exponent), Err(RsaError::InvalidKey));
    }

    #[test]
    fn only_sound_keys_pass() {
        let mut modulus = vec![0xff; 256];
        let der = PublicKey::encode(&modulus, &[1, 0, 1]).unwrap();
        let key = PublicKey::parse(&der).unwrap();
        assert_eq!((key.bits(), key.exponent, key.modulus), (2048, 65_537, &modulus[..]));
        assert_eq!(PublicKey::encode(&[&[0], &modulus[..]].concat(), &[0, 1, 0, 1]), Ok(der));
        refused(&modulus, &[3]);
        refused(&modulus, &[1, 0, 0]);
        refused(&modulus, &[1, 0, 0, 0, 1]);
        refused(&modulus, &[]);
        refused(&modulus[1..], &[1, 0, 1]);
        refused(&[&[1], &modulus[..]].concat(), &[1, 0, 1]);
        refused(&[0xff; 128], &[1, 0, 1]);
        refused(&[0xff; 640], &[1, 0, 1]);
        refused(&[], &[1, 0, 1]);
        modulus[0] = 0x7f;
        refused(&modulus, &[1, 0, 1]);
        modulus[0] = 0xff;
        modulus[255] = 0xfe;
        refused(&modulus, &[1, 0, 1]);
    }

    #[test]
    fn another_algorithm_or_structure_is_refused() {
        let der = PublicKey::encode(&[0xff; 256], &[1, 0, 1]).unwrap();
        for position in 0..24 {
            let mut changed = der.clone();
            changed[position] ^= 1;
            assert_eq!(PublicKey::parse(&changed), Err(RsaError::InvalidKey), "{position}");
        }
        assert_eq!(PublicKey::parse(&der[..der.len() - 1]), Err(RsaError::InvalidKey));
        assert_eq!(PublicKey::parse(&[&der[..], &[0]].concat()), Err(RsaError::InvalidKey));
    }
}
