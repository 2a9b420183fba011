use core::fmt;
use core::str::FromStr;

use thiserror::Error;

/// A cipher suite: exchange, signature, AEAD and hash, named together and negotiated together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suite(u16);

/// Code, name in configurations, full name.
const KNOWN: [(Suite, &str, &str); 2] = [
    (Suite::X25519_P256_AES128GCM_SHA256, "p256", "X25519_P256_AES128GCM_SHA256"),
    (Suite::SM2_SM4GCM_SM3, "sm2", "SM2_SM4GCM_SM3"),
];

impl Suite {
    /// X25519 exchange, ECDSA P-256 signatures, AES-128-GCM, SHA-256.
    pub const X25519_P256_AES128GCM_SHA256: Self = Self(0x0001);

    /// SM2 exchange, signatures and encryption, SM4-GCM, SM3 (GB/T 32918, 32907, 32905).
    pub const SM2_SM4GCM_SM3: Self = Self(0x0002);

    /// From the wire code; unknown codes are representable, because offers may carry them.
    #[must_use]
    pub const fn from_code(code: u16) -> Self {
        Self(code)
    }

    /// The wire code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.0
    }

    /// The suites with a provider here.
    pub fn known() -> impl Iterator<Item = Self> {
        KNOWN.into_iter().map(|(suite, _, _)| suite)
    }

    /// The short name, as configurations have it: `p256` or `sm2`. None for an unknown code.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        KNOWN.into_iter().find(|(suite, ..)| *suite == self).map(|(_, name, _)| name)
    }

    /// The suite with this short name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KNOWN.into_iter().find(|(_, short, _)| *short == name).map(|(suite, ..)| suite)
    }
}

/// A suite's short name that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no such suite; there are p256 and sm2")]
pub struct UnknownSuite;

impl FromStr for Suite {
    type Err = UnknownSuite;

    fn from_str(name: &str) -> Result<Self, UnknownSuite> {
        Self::from_name(name).ok_or(UnknownSuite)
    }
}

/// The full name.
impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match KNOWN.into_iter().find(|(suite, ..)| suite == self) {
            Some((_, _, full)) => f.write_str(full),
            None => write!(f, "Suite({:#06x})", self.0),
        }
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn suites_have_two_names_and_a_code() {
        let names = [("p256", 1, "X25519_P256_AES128GCM_SHA256"), ("sm2", 2, "SM2_SM4GCM_SM3")];
        assert_eq!(Suite::known().count(), names.len());
        for (name, code, full) in names {
            let suite: Suite = name.parse().unwrap();
            assert_eq!((suite.code(), suite.name()), (code, Some(name)));
            assert_eq!((suite, suite.to_string().as_str()), (Suite::from_code(code), full));
        }
        for wrong in ["", "SM2", "sm2 ", "SM2_SM4GCM_SM3"] {
            assert_eq!(wrong.parse::<Suite>(), Err(UnknownSuite), "{wrong}");
        }
        let unknown = Suite::from_code(0xfff0);
        assert_eq!((unknown.name(), unknown.to_string().as_str()), (None, "Suite(0xfff0)"));
    }
}
