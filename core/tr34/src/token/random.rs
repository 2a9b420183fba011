//! `RT_KRD`, the receiver's random number: a bare attribute.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::CryptoRng;

use super::TOKEN_MAX;
use super::attributes::{NONCE_MAX, NONCE_MIN, RANDOM_NONCE, attribute, attribute_parts, octets};
use crate::Error;
use crate::reader::{Walker, tag, tlv};

/// A random number of a receiver, 8 to 16 bytes. It is public.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

impl Nonce {
    /// From its bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] unless they are [`NONCE_MIN`] to [`NONCE_MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        if (NONCE_MIN..=NONCE_MAX).contains(&bytes.len()) {
            Ok(Self(bytes.to_vec()))
        } else {
            Err(Error::Malformed)
        }
    }

    /// A new one, of [`NONCE_MAX`] bytes.
    #[must_use]
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = vec![0; NONCE_MAX];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02X}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Nonce({self})")
    }
}

/// `RT_KRD` (E3): the receiver's request for a token of two passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtKrd {
    /// `R_KRD`.
    pub nonce: Nonce,
}

impl RtKrd {
    /// Takes the token apart.
    ///
    /// # Errors
    /// An [`Error`] about the structure.
    pub fn parse(token: &[u8]) -> Result<Self, Error> {
        if token.len() > TOKEN_MAX {
            return Err(Error::TooLong);
        }
        let (oid, value) = attribute_parts(&Walker::single(token, tag::SEQUENCE)?)?;
        if oid != RANDOM_NONCE {
            return Err(Error::ContentType);
        }
        let nonce = octets(&value, tag::OCTET_STRING, NONCE_MIN..=NONCE_MAX)?;
        Ok(Self { nonce: Nonce(nonce.to_vec()) })
    }

    /// The token.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        attribute(RANDOM_NONCE, &tlv(tag::OCTET_STRING, &[&self.nonce.0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_attribute_with_one_value() {
        let token = RtKrd { nonce: Nonce::new(&[7; 8]).unwrap() }.encode();
        assert_eq!(hex::encode(&token), "3018060a2a864886f70d01091903310a04080707070707070707");
        assert_eq!(RtKrd::parse(&token).unwrap().nonce.as_bytes(), [7; 8]);
        assert_eq!(RtKrd::parse(&[&token[..], &[0]].concat()).unwrap_err(), Error::Trailing);
        let two = attribute(RANDOM_NONCE, &[4, 8, 1, 1, 1, 1, 1, 1, 1, 1].repeat(2));
        assert_eq!(RtKrd::parse(&two).unwrap_err().check(), "attribute-values");
        for length in [0, 7, 17] {
            let value = tlv(tag::OCTET_STRING, &[&vec![1; length]]);
            let token = attribute(RANDOM_NONCE, &value);
            assert_eq!(RtKrd::parse(&token).unwrap_err(), Error::Malformed, "{length}");
            assert_eq!(Nonce::new(&vec![1; length]).unwrap_err(), Error::Malformed);
        }
        let other = attribute(super::super::algorithm::ID_DATA, &[4, 1, 7]);
        assert_eq!(RtKrd::parse(&other).unwrap_err(), Error::ContentType);
    }
}
