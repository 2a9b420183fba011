use core::fmt;

/// Object identifiers of the P-256 suite, shared by its two providers.
pub(crate) const PRIME256V1: &str = "1.2.840.10045.3.1.7";
pub(crate) const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// A cipher suite: exchange, signature, AEAD and hash, named together and negotiated together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suite(u16);

impl Suite {
    /// X25519 exchange, ECDSA P-256 signatures, AES-128-GCM, SHA-256.
    pub const X25519_P256_AES128GCM_SHA256: Self = Self(0x0001);

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
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::X25519_P256_AES128GCM_SHA256 => f.write_str("X25519_P256_AES128GCM_SHA256"),
            Self(code) => write!(f, "Suite({code:#06x})"),
        }
    }
}
