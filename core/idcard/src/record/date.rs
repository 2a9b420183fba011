use alloc::format;
use alloc::string::String;
use core::fmt;

use zeroize::Zeroize;

/// What a record says instead of an expiry date when a card never expires.
pub(crate) const LONG_TERM: &str = "长期";

/// A date of the Gregorian calendar, years 1 to 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A date that exists, or `None`.
    #[must_use]
    pub const fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap =
            (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        let last = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        if year == 0 || year > 9999 || day == 0 || day > last {
            return None;
        }
        Some(Self { year, month, day })
    }

    /// From eight digits, YYYYMMDD.
    #[must_use]
    pub fn from_digits(text: &str) -> Option<Self> {
        // `parse` alone would take a sign.
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Self::new(text[..4].parse().ok()?, text[4..6].parse().ok()?, text[6..].parse().ok()?)
    }

    /// Eight digits, YYYYMMDD.
    #[must_use]
    pub fn to_digits(self) -> String {
        format!("{:04}{:02}{:02}", self.year, self.month, self.day)
    }

    /// The year.
    #[must_use]
    pub const fn year(self) -> u16 {
        self.year
    }

    /// The month, 1 to 12.
    #[must_use]
    pub const fn month(self) -> u8 {
        self.month
    }

    /// The day, 1 to 31.
    #[must_use]
    pub const fn day(self) -> u8 {
        self.day
    }
}

/// ISO 8601: `YYYY-MM-DD`.
impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

// A birth date is personal data.
impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Date(..)")
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        format!("{date}")
    }
}

impl TryFrom<String> for Date {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits: String = text.split('-').collect();
        let shape = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
        shape
            .then(|| Self::from_digits(&digits))
            .flatten()
            .ok_or("not a calendar date of the form YYYY-MM-DD")
    }
}

/// When a card expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Zeroize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub enum ValidUntil {
    /// On this date.
    Date(Date),
    /// 长期: never.
    LongTerm,
}

/// The word for 长期 in JSON.
const LONG_TERM_JSON: &str = "longTerm";

impl From<ValidUntil> for String {
    fn from(until: ValidUntil) -> Self {
        match until {
            ValidUntil::Date(date) => date.into(),
            ValidUntil::LongTerm => LONG_TERM_JSON.into(),
        }
    }
}

impl TryFrom<String> for ValidUntil {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == LONG_TERM_JSON { Ok(Self::LongTerm) } else { text.try_into().map(Self::Date) }
    }
}
