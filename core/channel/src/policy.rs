use crate::Error;

/// How records are protected (A7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Protection {
    /// The suite's AEAD: the default.
    #[default]
    EncryptAndMac = 1,
    /// HMAC over readable data.
    Mac = 2,
    /// What a policy that names "encrypt" gets: the AEAD under keys of its own. Encryption without
    /// authentication would let anyone on the path change what is read, so there is none.
    Encrypt = 3,
}

/// What lies under the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// A byte stream that keeps order and loses nothing (TCP): a gap is an attack.
    #[default]
    Stream,
    /// Datagrams that may be lost, doubled or swapped: records carry their number, handshake
    /// messages are repeated.
    Datagrams,
}

/// What both sides agree on beside the suite. It is in the transcript, so its keys are its own and
/// nobody on the path can weaken it (G8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// How records are protected.
    pub protection: Protection,
    /// What lies under the channel.
    pub delivery: Delivery,
    /// Whether the contribution (`R3` in C1, `R2` in C2) is sealed to the peer's encryption
    /// certificate as well as to its signed share: for dual-certificate deployments.
    pub certificate_sealed: bool,
}

const PROTECTION: u8 = 0x0f;
const CERTIFICATE_SEALED: u8 = 0x10;
const DATAGRAMS: u8 = 0x20;

impl Policy {
    /// The wire code.
    pub(crate) fn code(self) -> u8 {
        let sealed = if self.certificate_sealed { CERTIFICATE_SEALED } else { 0 };
        let datagrams = if self.delivery == Delivery::Datagrams { DATAGRAMS } else { 0 };
        self.protection as u8 | sealed | datagrams
    }

    pub(crate) fn from_code(code: u8) -> Result<Self, Error> {
        let protection = match code & PROTECTION {
            1 => Protection::EncryptAndMac,
            2 => Protection::Mac,
            3 => Protection::Encrypt,
            _ => return Err(Error::Malformed("protection policy")),
        };
        if code & !(PROTECTION | CERTIFICATE_SEALED | DATAGRAMS) != 0 {
            return Err(Error::Malformed("protection policy"));
        }
        let datagrams = code & DATAGRAMS != 0;
        Ok(Self {
            protection,
            delivery: if datagrams { Delivery::Datagrams } else { Delivery::Stream },
            certificate_sealed: code & CERTIFICATE_SEALED != 0,
        })
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_one_code_and_unknown_codes_are_refused() {
        let mut known = 0;
        for code in 0..=u8::MAX {
            if let Ok(policy) = Policy::from_code(code) {
                assert_eq!(policy.code(), code);
                known += 1;
            }
        }
        assert_eq!(known, 3 * 2 * 2);
        assert_eq!(Policy::default().code(), 1);
    }
}
