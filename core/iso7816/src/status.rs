use core::fmt;

/// A status word, SW1-SW2 (ISO/IEC 7816-4, 5.6).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u16);

impl Status {
    /// Done.
    pub const OK: Self = Self(0x9000);
    /// A length that is wrong: the APDU's form, or its data.
    pub const WRONG_LENGTH: Self = Self(0x6700);
    /// Logical channels other than the basic one are not supported.
    pub const CHANNEL: Self = Self(0x6881);
    /// Secure messaging is not supported.
    pub const SECURE_MESSAGING: Self = Self(0x6882);
    /// Another command came where the last one of a chain was expected.
    pub const CHAIN_BROKEN: Self = Self(0x6883);
    /// This command takes no chain.
    pub const CHAIN_UNSUPPORTED: Self = Self(0x6884);
    /// The security status is not satisfied: no PIN was given.
    pub const SECURITY: Self = Self(0x6982);
    /// The authentication method is blocked.
    pub const BLOCKED: Self = Self(0x6983);
    /// The conditions of use are not satisfied: a command out of order.
    pub const CONDITIONS: Self = Self(0x6985);
    /// The command is not allowed: the holder said no.
    pub const NOT_ALLOWED: Self = Self(0x6986);
    /// The data are wrong.
    pub const WRONG_DATA: Self = Self(0x6a80);
    /// The function is not supported.
    pub const UNSUPPORTED: Self = Self(0x6a81);
    /// There is no such application.
    pub const NOT_FOUND: Self = Self(0x6a82);
    /// Not enough memory for the data.
    pub const NO_MEMORY: Self = Self(0x6a84);
    /// P1 or P2 is wrong.
    pub const WRONG_PARAMETERS: Self = Self(0x6a86);
    /// There is no such data object.
    pub const NO_DATA_OBJECT: Self = Self(0x6a88);
    /// The instruction is not supported, or is none.
    pub const INSTRUCTION: Self = Self(0x6d00);
    /// The class is not supported.
    pub const CLASS: Self = Self(0x6e00);
    /// The card failed.
    pub const FAILED: Self = Self(0x6f00);

    /// From the two bytes as a number.
    #[must_use]
    pub const fn new(word: u16) -> Self {
        Self(word)
    }

    /// The two bytes as a number.
    #[must_use]
    pub const fn word(self) -> u16 {
        self.0
    }

    /// `61xx`: done, and `available` more bytes wait for GET RESPONSE; from 256 on it says 00.
    #[must_use]
    pub fn more(available: usize) -> Self {
        Self(0x6100 | u16::from(u8::try_from(available).unwrap_or(0)))
    }

    /// `63Cx`: wrong, with `left` more tries, of which one digit tells no more than 15.
    #[must_use]
    pub fn tries(left: u8) -> Self {
        Self(0x63c0 | u16::from(left.min(15)))
    }

    /// How many more bytes `61xx` says, 1 to 256.
    #[must_use]
    pub const fn more_available(self) -> Option<u16> {
        match self.0 {
            0x6100 => Some(256),
            0x6101..=0x61ff => Some(self.0 & 0xff),
            _ => None,
        }
    }

    /// The length that `6Cxx` asks for, 1 to 256.
    #[must_use]
    pub const fn exact_length(self) -> Option<u16> {
        match self.0 {
            0x6c00 => Some(256),
            0x6c01..=0x6cff => Some(self.0 & 0xff),
            _ => None,
        }
    }

    /// How many tries `63Cx` leaves.
    #[must_use]
    pub fn tries_left(self) -> Option<u8> {
        (self.0 & 0xfff0 == 0x63c0).then(|| self.0.to_be_bytes()[1] & 0xf)
    }

    /// Whether the command was processed: `9000`, or `61xx`.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 == Self::OK.0 || self.more_available().is_some()
    }
}

/// Four hexadecimal digits.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn what_is_in_a_status_word_is_read_back() {
        assert_eq!(Status::more(5).more_available(), Some(5));
        for many in [256, 257, 70_000] {
            assert_eq!(Status::more(many), Status::new(0x6100));
            assert_eq!(Status::more(many).more_available(), Some(256));
        }
        assert_eq!(Status::new(0x6c10).exact_length(), Some(16));
        assert_eq!(Status::new(0x6c00).exact_length(), Some(256));
        assert_eq!(Status::tries(2).tries_left(), Some(2));
        assert_eq!(Status::tries(200).tries_left(), Some(15));
        for other in [Status::OK, Status::new(0x6300), Status::new(0x64c3), Status::BLOCKED] {
            assert_eq!(other.tries_left(), None, "{other}");
            assert_eq!(other.more_available(), None, "{other}");
            assert_eq!(other.exact_length(), None, "{other}");
        }
        assert_eq!(Status::CONDITIONS.to_string(), "6985");
        assert!(Status::OK.is_ok() && Status::more(1).is_ok() && !Status::tries(1).is_ok());
    }
}
