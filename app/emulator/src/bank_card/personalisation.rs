//! What the issuer wrote into an emulated bank card: its applications and their records.

use super::objects::{list, object, template};

/// The directory of a contact card (EMV Book 1, 12.2).
pub const PSE: &[u8] = b"1PAY.SYS.DDF01";
/// The directory of a contactless card.
pub const PPSE: &[u8] = b"2PAY.SYS.DDF01";
/// The first application. Its identifier is of the kind that nobody registers (ISO/IEC 7816-4,
/// 12.2.3.4), not a scheme's.
pub const AID_DEBIT: &[u8] = b"\xF0CSTEST\x01\x01";
/// The second application: it asks for the amount in its PDOL already.
pub const AID_CREDIT: &[u8] = b"\xF0CSTEST\x01\x02";

/// The sequence number of the card (5F34).
pub(super) const SEQUENCE: u8 = 1;
/// AIP (82): holder verification and terminal risk management are supported, and the relay
/// resistance protocol.
pub(super) const AIP: [u8; 2] = [0x18, 0x01];
/// AFL (94): records 1 and 2 of file 1, record 1 of file 2; none is authenticated offline.
const AFL: [u8; 8] = [1 << 3, 1, 2, 0, 2 << 3, 1, 1, 0];

/// What the terminal gives to the first GENERATE AC (CDOL1, 8C): amount, other amount, country,
/// TVR, currency, date, type, unpredictable number.
pub(super) const CDOL1: [(u16, u8); 8] = [
    (0x9F02, 6),
    (0x9F03, 6),
    (0x9F1A, 2),
    (0x95, 5),
    (0x5F2A, 2),
    (0x9A, 3),
    (0x9C, 1),
    (0x9F37, 4),
];
/// The authorisation response code that leads CDOL2 (8D); CDOL1's objects follow it.
pub(super) const RESPONSE_CODE: (u16, u8) = (0x8A, 2);
/// The second application's PDOL (9F38): amount, currency, unpredictable number.
pub(super) const PDOL: [(u16, u8); 3] = [(0x9F02, 6), (0x5F2A, 2), (0x9F37, 4)];

/// One of the card's two applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Application {
    Debit,
    Credit,
}

impl Application {
    pub(super) const ALL: [Self; 2] = [Self::Debit, Self::Credit];

    pub(super) const fn aid(self) -> &'static [u8] {
        match self {
            Self::Debit => AID_DEBIT,
            Self::Credit => AID_CREDIT,
        }
    }

    const fn label(self) -> &'static [u8] {
        match self {
            Self::Debit => b"TEST DEBIT",
            Self::Credit => b"TEST CREDIT",
        }
    }

    const fn priority(self) -> u8 {
        match self {
            Self::Debit => 1,
            Self::Credit => 2,
        }
    }

    /// What it wants to know at GET PROCESSING OPTIONS.
    pub(super) const fn pdol(self) -> &'static [(u16, u8)] {
        match self {
            Self::Debit => &[],
            Self::Credit => &PDOL,
        }
    }

    /// Its entry in a directory.
    fn entry(self) -> Vec<u8> {
        let aid = object(0x4F, self.aid());
        template(0x61, &[aid, object(0x50, self.label()), object(0x87, &[self.priority()])])
    }

    /// The file control information that SELECT answers.
    pub(super) fn information(self) -> Vec<u8> {
        let mut parts = vec![object(0x50, self.label()), object(0x87, &[self.priority()])];
        if !self.pdol().is_empty() {
            parts.push(object(0x9F38, &list(self.pdol())));
        }
        template(0x6F, &[object(0x84, self.aid()), template(0xA5, &parts)])
    }

    /// What GET PROCESSING OPTIONS answers: format 2 for the first application, format 1 for the
    /// second (EMV Book 3, 6.5.8.4).
    pub(super) fn options(self) -> Vec<u8> {
        match self {
            Self::Debit => template(0x77, &[object(0x82, &AIP), object(0x94, &AFL)]),
            Self::Credit => object(0x80, &[&AIP[..], &AFL].concat()),
        }
    }

    /// A record.
    pub(super) fn record(self, file: u8, number: u8, settings: &Printed) -> Option<Vec<u8>> {
        let parts = match (file, number) {
            (1, 1) => vec![
                object(0x5A, &settings.pan),
                object(0x5F24, &settings.expires),
                object(0x5F34, &[SEQUENCE]),
                object(0x5F20, settings.holder.as_bytes()),
                object(0x5F28, &[0x01, 0x56]),
                object(0x9F07, &[0xFF, 0xC0]),
            ],
            (1, 2) => vec![
                object(0x8C, &list(&CDOL1)),
                object(0x8D, &[list(&[RESPONSE_CODE]), list(&CDOL1)].concat()),
            ],
            // Holder verification: plain PIN checked by the card, or none (EMV Book 3, C3).
            (2, 1) => vec![
                object(0x8E, &[0, 0, 0, 0, 0, 0, 0, 0, 0x41, 0x00, 0x1F, 0x03]),
                object(0x9F0D, &[0; 5]),
                object(0x9F0E, &[0; 5]),
                object(0x9F0F, &[0; 5]),
            ],
            _ => return None,
        };
        Some(template(0x70, &parts))
    }
}

/// What stands on the card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printed {
    /// The number, packed.
    pub(super) pan: [u8; 8],
    /// YYMMDD, packed.
    pub(super) expires: [u8; 3],
    pub(super) holder: String,
}

/// The only record of the contact directory.
pub(super) fn directory_record() -> Vec<u8> {
    template(0x70, &Application::ALL.map(Application::entry))
}

/// What SELECT of a directory answers.
pub(super) fn directory_information(name: &[u8]) -> Vec<u8> {
    let inside = if name == PSE {
        [object(0x88, &[1]), object(0x5F2D, b"en")].concat()
    } else {
        object(0xBF0C, &Application::ALL.map(Application::entry).concat())
    };
    template(0x6F, &[object(0x84, name), object(0xA5, &inside)])
}
