//! Data object lists (EMV Book 3, 5.4): where in a command's data the amount stands.

use super::Money;

/// Amount, authorised: six bytes of decimal digits.
const AMOUNT: u16 = 0x9f02;
/// The same amount as a binary number of four bytes.
const AMOUNT_BINARY: u16 = 0x81;
/// Transaction currency code: ISO 4217's number, in two bytes of decimal digits.
const CURRENCY: u16 = 0x5f2a;
/// Most objects of a list; a record holds 255 bytes, an entry at least two.
const ENTRIES_MAX: usize = 127;

/// A list, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dol {
    /// Bytes of what is sent by it.
    len: usize,
    amount: Place,
    binary: Place,
    currency: Place,
}

/// Where an object stands in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Absent,
    At(usize),
    /// More than once, or of another length than it has: nobody can say what the card takes.
    Unclear,
}

impl Place {
    fn found(&mut self, offset: usize, fits: bool) {
        *self = match self {
            Self::Absent if fits => Self::At(offset),
            _ => Self::Unclear,
        };
    }

    /// What stands there: `Some(None)` if the list does not have it, `None` if it is unclear.
    fn of<const N: usize>(self, data: &[u8]) -> Option<Option<[u8; N]>> {
        match self {
            Self::Absent => Some(None),
            Self::At(offset) => data.get(offset..)?.first_chunk().copied().map(Some),
            Self::Unclear => None,
        }
    }
}

impl Dol {
    /// Reads a list: tags of one or two bytes, each with the length of its value.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let [amount, binary, currency] = [Place::Absent; 3];
        let mut list = Self { len: 0, amount, binary, currency };
        for _ in 0..=ENTRIES_MAX {
            let (tag, len, rest) = match *bytes {
                [] => return Some(list),
                [first, second, len, ref rest @ ..]
                    if first & 0x1f == 0x1f && second & 0x80 == 0 =>
                {
                    (u16::from_be_bytes([first, second]), len, rest)
                }
                [first, len, ref rest @ ..] if first & 0x1f != 0x1f => (first.into(), len, rest),
                _ => return None,
            };
            match tag {
                AMOUNT => list.amount.found(list.len, len == 6),
                AMOUNT_BINARY => list.binary.found(list.len, len == 4),
                CURRENCY => list.currency.found(list.len, len == 2),
                _ => {}
            }
            list.len += usize::from(len);
            bytes = rest;
        }
        None
    }

    /// Whether data of this length can be sent by it.
    pub(super) const fn fits(&self, data: &[u8]) -> bool {
        data.len() == self.len
    }

    /// Whether the card asks for the amount at all.
    pub(super) fn has_amount(&self) -> bool {
        self.amount != Place::Absent || self.binary != Place::Absent
    }

    /// The amount in what is sent by this list; `None` if it cannot be told for sure.
    pub(super) fn money(&self, data: &[u8]) -> Option<Money> {
        if !self.fits(data) {
            return None;
        }
        let binary = self.binary.of(data)?.map(|bytes| u64::from(u32::from_be_bytes(bytes)));
        let amount = match self.amount.of::<6>(data)? {
            Some(digits) => decimal(&digits)?,
            None => binary?,
        };
        // Both forms say the same: nobody can tell which of them a card takes.
        if binary.is_some_and(|binary| binary != amount) {
            return None;
        }
        let currency = decimal(&self.currency.of::<2>(data)??)?;
        Some(Money { amount, currency: u16::try_from(currency).ok()? })
    }
}

/// Decimal digits, two to a byte.
fn decimal(bytes: &[u8]) -> Option<u64> {
    bytes.iter().try_fold(0_u64, |number, byte| {
        let (tens, ones) = (byte >> 4, byte & 0xf);
        (tens < 10 && ones < 10).then(|| number * 100 + u64::from(tens * 10 + ones))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Amount, other amount, country, TVR, currency, date, type, unpredictable number.
    const CDOL1: [u8; 23] = [
        0x9f, 2, 6, 0x9f, 3, 6, 0x9f, 0x1a, 2, 0x95, 5, 0x5f, 0x2a, 2, 0x9a, 3, 0x9c, 1, 0x9f,
        0x37, 4, 0x82, 2,
    ];

    fn data(amount: [u8; 6], currency: [u8; 2]) -> Vec<u8> {
        [&amount[..], &[0; 6 + 2 + 5], &currency, &[0; 3 + 1 + 4 + 2]].concat()
    }

    #[test]
    fn amount_and_currency_are_read_where_the_list_says() {
        let list = Dol::parse(&CDOL1).unwrap();
        assert!(list.has_amount());
        let money = list.money(&data([0, 0, 0, 0x12, 0x34, 0x56], [1, 0x56]));
        assert_eq!(money, Some(Money { amount: 123_456, currency: 156 }));
        let most = list.money(&data([0x99; 6], [9, 0x99]));
        assert_eq!(most, Some(Money { amount: 999_999_999_999, currency: 999 }));
    }

    #[test]
    fn what_is_not_clear_is_no_amount() {
        let list = Dol::parse(&CDOL1).unwrap();
        let right = data([0; 6], [1, 0x56]);
        assert!(list.money(&right).is_some());
        assert_eq!(list.money(&right[1..]), None, "too short");
        assert_eq!(list.money(&[&right[..], &[0]].concat()), None, "too long");
        assert_eq!(list.money(&data([0, 0, 0, 0, 0, 0xa0], [1, 0x56])), None, "no digit");
        assert_eq!(list.money(&data([0; 6], [0x0f, 0x56])), None, "no digit");
        for (unclear, data) in [
            (&[0x9f, 2, 6][..], 6),                            // no currency
            (&[0x5f, 0x2a, 2], 2),                             // no amount
            (&[0x9f, 2, 5, 0x5f, 0x2a, 2], 7),                 // cut amount
            (&[0x9f, 2, 6, 0x5f, 0x2a, 3], 9),                 // padded currency
            (&[0x9f, 2, 6, 0x9f, 2, 6, 0x5f, 0x2a, 2], 14),    // two amounts
            (&[0x81, 3, 0x5f, 0x2a, 2], 5),                    // cut binary amount
            (&[0x81, 4, 0x81, 4, 0x5f, 0x2a, 2], 10),          // two binary amounts
            (&[0x9f, 2, 6, 0x5f, 0x2a, 2, 0x5f, 0x2a, 2], 10), // two currencies
        ] {
            assert_eq!(Dol::parse(unclear).unwrap().money(&vec![0; data]), None, "{unclear:x?}");
        }
        for wrong in [&[0x9f][..], &[0x9f, 2], &[0x95], &[0x9f, 0x82, 1, 1], &[0x9a, 3, 0x9f]] {
            assert_eq!(Dol::parse(wrong), None, "{wrong:x?}");
        }
        assert_eq!(Dol::parse(&[0x9a, 3].repeat(ENTRIES_MAX + 1)), None, "endless");
        assert!(!Dol::parse(&[]).unwrap().has_amount());
    }

    #[test]
    fn two_forms_of_the_amount_say_the_same_or_nothing() {
        let list = Dol::parse(&[0x9f, 2, 6, 0x81, 4, 0x5f, 0x2a, 2]).unwrap();
        let data = |binary: u32| {
            [&[0, 0, 0, 0, 0x12, 0x34][..], &binary.to_be_bytes(), &[1, 0x56]].concat()
        };
        assert_eq!(list.money(&data(1_234)), Some(Money { amount: 1_234, currency: 156 }));
        assert_eq!(list.money(&data(999_999)), None, "small in digits, large in binary");
        let alone = Dol::parse(&[0x81, 4, 0x5f, 0x2a, 2]).unwrap();
        assert!(alone.has_amount());
        let money = alone.money(&[0, 0, 1, 0, 1, 0x56]);
        assert_eq!(money, Some(Money { amount: 256, currency: 156 }));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_list_or_none(
            list in prop::collection::vec(any::<u8>(), 0..300),
            data in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            if let Some(list) = Dol::parse(&list) {
                let money = list.money(&data);
                prop_assert!(money.is_none_or(|m| m.amount <= 999_999_999_999));
            }
        }
    }
}
