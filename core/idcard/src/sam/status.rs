/// The third status byte of a module's response; SW1 and SW2 are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sw3 {
    /// 0x90.
    Ok,
    /// 0x9F: a card was found.
    CardFound,
    /// 0x91: the card has no such item.
    ItemEmpty,
    /// 0x10: the command's checksum was wrong.
    BadChecksum,
    /// 0x11: the command's length was wrong.
    BadLength,
    /// 0x21: the command is wrong.
    BadCommand,
    /// 0x23: not permitted (now).
    NotPermitted,
    /// 0x24: unknown command.
    UnknownCommand,
    /// 0x31: the card rejected the SAM.
    CardRejectedSam,
    /// 0x32: the SAM rejected the card.
    SamRejectedCard,
    /// 0x33: verification failed.
    VerificationFailed,
    /// 0x40: a card of unknown type.
    UnknownCardType,
    /// 0x41: reading the card failed.
    ReadFailed,
    /// 0x47: no random number.
    RandomFailed,
    /// 0x60: the self-test failed.
    SelfTestFailed,
    /// 0x66: the module is not authorised.
    SamUnauthorised,
    /// 0x80: no card found.
    NoCard,
    /// 0x81: selecting the card failed.
    SelectFailed,
}

/// Every known code, with its byte.
const TABLE: [(u8, Sw3); 18] = [
    (0x90, Sw3::Ok),
    (0x9F, Sw3::CardFound),
    (0x91, Sw3::ItemEmpty),
    (0x10, Sw3::BadChecksum),
    (0x11, Sw3::BadLength),
    (0x21, Sw3::BadCommand),
    (0x23, Sw3::NotPermitted),
    (0x24, Sw3::UnknownCommand),
    (0x31, Sw3::CardRejectedSam),
    (0x32, Sw3::SamRejectedCard),
    (0x33, Sw3::VerificationFailed),
    (0x40, Sw3::UnknownCardType),
    (0x41, Sw3::ReadFailed),
    (0x47, Sw3::RandomFailed),
    (0x60, Sw3::SelfTestFailed),
    (0x66, Sw3::SamUnauthorised),
    (0x80, Sw3::NoCard),
    (0x81, Sw3::SelectFailed),
];

impl Sw3 {
    /// The code of a byte, if it is known.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        TABLE.iter().find(|(known, _)| *known == byte).map(|(_, code)| *code)
    }

    /// The byte.
    #[must_use]
    pub fn byte(self) -> u8 {
        TABLE
            .iter()
            .find(|(_, code)| *code == self)
            .map(|(byte, _)| *byte)
            .expect("the table has every code; tested")
    }

    /// True if a module says so to a command for which it has no answer, while it is well: the
    /// command is wrong, not permitted, unknown, or there is nothing to tell (any more).
    #[must_use]
    pub const fn has_no_answer(self) -> bool {
        matches!(
            self,
            Self::BadCommand
                | Self::NotPermitted
                | Self::UnknownCommand
                | Self::ItemEmpty
                | Self::NoCard
        )
    }

    /// True if it tells of the card and not of the module: the next card may be read.
    #[must_use]
    pub const fn blames_card(self) -> bool {
        matches!(
            self,
            Self::ItemEmpty
                | Self::CardRejectedSam
                | Self::SamRejectedCard
                | Self::VerificationFailed
                | Self::UnknownCardType
                | Self::ReadFailed
                | Self::NoCard
                | Self::SelectFailed
        )
    }
}

/// The status of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// `00 00 SW3` with a known SW3.
    Known(Sw3),
    /// `05 05 05`, which some vendors' modules use for a timeout of their own.
    VendorTimeout,
    /// Anything else.
    Unknown([u8; 3]),
}

impl Status {
    /// From SW1 SW2 SW3.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 3]) -> Self {
        match bytes {
            [0x05, 0x05, 0x05] => Self::VendorTimeout,
            [0x00, 0x00, byte] => Sw3::from_byte(byte).map_or(Self::Unknown(bytes), Self::Known),
            _ => Self::Unknown(bytes),
        }
    }

    /// SW1 SW2 SW3.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        match self {
            Self::Known(code) => [0, 0, code.byte()],
            Self::VendorTimeout => [0x05; 3],
            Self::Unknown(bytes) => bytes,
        }
    }
}

impl From<Sw3> for Status {
    fn from(code: Sw3) -> Self {
        Self::Known(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_round_trips_and_unknown_ones_stay_unknown() {
        let known = (0..=u8::MAX)
            .filter(|&byte| match Status::from_bytes([0, 0, byte]) {
                Status::Known(code) => {
                    assert_eq!(code.byte(), byte);
                    assert_eq!(Status::Known(code).to_bytes(), [0, 0, byte]);
                    true
                }
                status => {
                    assert_eq!(status, Status::Unknown([0, 0, byte]));
                    false
                }
            })
            .count();
        assert_eq!(known, TABLE.len());
        assert_eq!(Status::from_bytes([5, 5, 5]), Status::VendorTimeout);
        assert_eq!(Status::from_bytes([1, 0, 0x90]), Status::Unknown([1, 0, 0x90]));
    }
}
