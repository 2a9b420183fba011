//! Who a certificate is: its issuer **and** its serial number. One serial number may stand under
//! two issuers, as it does in the published sample PKIs.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use der::Decode;
use x509_cert::name::Name;

use crate::reader::{DerError, Walker, tag, tlv};

/// Longest issuer name that is taken, in bytes of DER.
pub const NAME_MAX: usize = 1024;
/// Most octets of a serial number (RFC 5280 §4.1.2.2), with one more for those who make 160 random
/// bits and a leading zero.
pub const SERIAL_MAX: usize = 21;

/// Issuer and serial number as they were received, `IssuerAndSerialNumber` of CMS. Two are equal
/// when their bytes are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerAndSerial {
    der: Vec<u8>,
}

impl IssuerAndSerial {
    /// From the whole SEQUENCE.
    ///
    /// # Errors
    /// A [`DerError`] unless it is a name of at most [`NAME_MAX`] bytes and an INTEGER of 1 to
    /// [`SERIAL_MAX`] octets.
    pub fn parse(der: &[u8]) -> Result<Self, DerError> {
        let mut inside = Walker::single(der, tag::SEQUENCE)?.inside()?;
        let issuer = inside.element(tag::SEQUENCE)?.whole;
        let serial = inside.element(tag::INTEGER)?;
        inside.end()?;
        if issuer.len() > NAME_MAX {
            return Err(DerError::Value);
        }
        check_serial(serial.content)?;
        Ok(Self { der: der.to_vec() })
    }

    /// From the two elements of a certificate.
    pub(crate) fn of(issuer: &[u8], serial: &[u8]) -> Result<Self, DerError> {
        Self::parse(&tlv(tag::SEQUENCE, &[issuer, serial]))
    }

    /// The whole SEQUENCE in DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The issuer's name in DER.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        self.parts().0
    }

    /// The content octets of the serial number.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        self.parts().1
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let walk = || -> Result<_, DerError> {
            let mut inside = Walker::single(&self.der, tag::SEQUENCE)?.inside()?;
            Ok((inside.any()?.whole, inside.any()?.content))
        };
        walk().expect("it was taken apart when it was made")
    }
}

impl fmt::Display for IssuerAndSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (issuer, serial) = self.parts();
        write!(f, "{}, serial ", name_text(issuer))?;
        serial.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// DER's shortest form; sample PKIs have negative numbers, so the sign is not asked.
pub(crate) fn check_serial(content: &[u8]) -> Result<(), DerError> {
    let padded = match content {
        [0, second, ..] => *second < 0x80,
        [0xff, second, ..] => *second >= 0x80,
        _ => false,
    };
    if content.is_empty() || content.len() > SERIAL_MAX || padded {
        return Err(DerError::Value);
    }
    Ok(())
}

/// A name in DER as text (RFC 4514), or in hexadecimal when it is none.
#[must_use]
pub fn name_text(der: &[u8]) -> String {
    match Name::from_der(der) {
        Ok(name) => name.to_string(),
        Err(_) => der.iter().fold(String::from("#"), |text, octet| text + &format!("{octet:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::Encode;
    use proptest::prelude::*;
    use std::str::FromStr;

    fn name(text: &str) -> Vec<u8> {
        Name::from_str(text).unwrap().to_der().unwrap()
    }

    fn identity(issuer: &str, serial: &[u8]) -> IssuerAndSerial {
        IssuerAndSerial::of(&name(issuer), &tlv(tag::INTEGER, &[serial])).unwrap()
    }

    #[test]
    fn issuer_and_serial_both_count() {
        let one = identity("CN=CA KDH", &[1, 2]);
        assert_eq!(one, IssuerAndSerial::parse(one.as_der()).unwrap());
        assert_ne!(one, identity("CN=CA KRD", &[1, 2]), "the same serial under another issuer");
        assert_ne!(one, identity("CN=CA KDH", &[1, 3]));
        assert_eq!(one.issuer(), name("CN=CA KDH"));
        assert_eq!(one.serial(), [1, 2]);
        assert_eq!(one.to_string(), "CN=CA KDH, serial 0102");
    }

    #[test]
    fn a_serial_has_one_form_and_a_bound() {
        let issuer = name("CN=A");
        let of = |serial: &[u8]| IssuerAndSerial::of(&issuer, &tlv(tag::INTEGER, &[serial]));
        for good in [&[0][..], &[0xff], &[0, 0x80], &[0x7f; 21]] {
            of(good).unwrap();
        }
        for bad in [&[][..], &[0, 1], &[0xff, 0x80], &[1; 22]] {
            assert_eq!(of(bad), Err(DerError::Value), "{bad:?}");
        }
        let long = tlv(tag::SEQUENCE, &[&[0; NAME_MAX]]);
        assert_eq!(IssuerAndSerial::of(&long, &tlv(tag::INTEGER, &[&[1]])), Err(DerError::Value));
    }

    #[test]
    fn control_characters_of_a_name_are_not_printed() {
        let utf8 = tlv(tag::UTF8_STRING, &[b"a\x1b[2J\nb"]);
        let pair = tlv(tag::SEQUENCE, &[&tlv(tag::OID, &[&[0x55, 4, 3]]), &utf8]);
        let der = tlv(tag::SEQUENCE, &[&tlv(tag::SET, &[&pair])]);
        assert!(name_text(&der).chars().all(|c| !c.is_control()), "{}", name_text(&der));
    }

    proptest! {
        #[test]
        fn total_on_arbitrary_bytes(der in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(identity) = IssuerAndSerial::parse(&der) {
                prop_assert_eq!(identity.as_der(), &der[..]);
                let _ = identity.to_string();
            }
            let _ = name_text(&der);
        }
    }
}
