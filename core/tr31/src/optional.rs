//! Optional blocks of the header: identifier, length, and the formats X9.143 6.3.6 gives them.

use alloc::vec::Vec;
use core::fmt;

use crate::leniency::Tolerance;
use crate::{Leniency, Tr31Error};

/// A short block's identifier and length: two characters each.
const SHORT_HEAD: usize = 4;
/// An extended block's: identifier, "00", length of the length, length.
const EXTENDED_HEAD: usize = 10;
/// What two hex digits can say.
const SHORT_MAX: usize = 0xFF;

/// The two characters that name an optional block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OptionalId(pub [u8; 2]);

impl OptionalId {
    /// Asymmetric key life.
    pub const AL: Self = Self(*b"AL");
    /// Base derivation key identifier.
    pub const BI: Self = Self(*b"BI");
    /// Public key certificate, or a chain of them.
    pub const CT: Self = Self(*b"CT");
    /// Derivations allowed.
    pub const DA: Self = Self(*b"DA");
    /// Flags.
    pub const FL: Self = Self(*b"FL");
    /// Hash algorithm of an HMAC key.
    pub const HM: Self = Self(*b"HM");
    /// Initial key identifier of AES DUKPT.
    pub const IK: Self = Self(*b"IK");
    /// Check value of the wrapped key.
    pub const KC: Self = Self(*b"KC");
    /// Check value of the key block protection key.
    pub const KP: Self = Self(*b"KP");
    /// Initial key serial number of TDES DUKPT.
    pub const KS: Self = Self(*b"KS");
    /// Key block values (deprecated).
    pub const KV: Self = Self(*b"KV");
    /// Label.
    pub const LB: Self = Self(*b"LB");
    /// Padding, the last block.
    pub const PB: Self = Self(*b"PB");
    /// Check value of the protection key of an export.
    pub const PK: Self = Self(*b"PK");
    /// Time of creation.
    pub const TC: Self = Self(*b"TC");
    /// Time stamp.
    pub const TS: Self = Self(*b"TS");
    /// Wrapping pedigree.
    pub const WP: Self = Self(*b"WP");

    /// True for an identifier of X9.143.
    #[must_use]
    pub const fn is_known(self) -> bool {
        matches!(
            &self.0,
            b"AL"
                | b"BI"
                | b"CT"
                | b"DA"
                | b"FL"
                | b"HM"
                | b"IK"
                | b"KC"
                | b"KP"
                | b"KS"
                | b"KV"
                | b"LB"
                | b"PB"
                | b"PK"
                | b"TC"
                | b"TS"
                | b"WP"
        )
    }
}

impl fmt::Display for OptionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{}", char::from(byte).escape_default())?;
        }
        Ok(())
    }
}

/// One optional block: what follows identifier and length, in printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OptionalBlock {
    /// Its name.
    pub id: OptionalId,
    /// Its value as it stands in the header.
    pub data: Vec<u8>,
}

impl OptionalBlock {
    /// A block with this value. [`crate::wrap`] checks it.
    #[must_use]
    pub fn new(id: OptionalId, data: impl Into<Vec<u8>>) -> Self {
        Self { id, data: data.into() }
    }

    /// Its length in the header with what stands before the value.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let short = SHORT_HEAD + self.data.len();
        if short <= SHORT_MAX { short } else { EXTENDED_HEAD + self.data.len() }
    }

    /// Takes the block at the start of `bytes`: the block and its length.
    pub(crate) fn parse(
        bytes: &[u8],
        tolerance: &mut Tolerance,
    ) -> Result<(Self, usize), Tr31Error> {
        let id: [u8; 2] = bytes
            .get(..2)
            .and_then(|id| id.try_into().ok())
            .ok_or(Tr31Error::OptionalLength(OptionalId(*b"??")))?;
        let id = OptionalId(id);
        let length = bytes.get(2..4).ok_or(Tr31Error::OptionalLength(id))?;
        let (head, length) = if length == b"00" {
            match bytes.get(4..6) {
                Some(b"02") => {}
                // openemv and moov read X9.143 8.5 and 8.6 so; "04" there counts hex digits.
                Some(b"04") => {
                    tolerance.allow(Leniency::EXTENDED_LENGTH_04, Tr31Error::ExtendedLength(id))?;
                }
                _ => return Err(Tr31Error::ExtendedLength(id)),
            }
            let digits = bytes.get(6..EXTENDED_HEAD).ok_or(Tr31Error::OptionalLength(id))?;
            (EXTENDED_HEAD, number(digits, 16, tolerance).ok_or(Tr31Error::OptionalLength(id))?)
        } else {
            (SHORT_HEAD, number(length, 16, tolerance).ok_or(Tr31Error::OptionalLength(id))?)
        };
        let data = bytes.get(head..length).ok_or(Tr31Error::OptionalLength(id))?;
        let block = Self::new(id, data);
        block.check(tolerance)?;
        Ok((block, length))
    }

    /// Whether identifier and value are the standard's.
    pub(crate) fn check(&self, tolerance: &mut Tolerance) -> Result<(), Tr31Error> {
        if !self.id.0.iter().all(u8::is_ascii_alphanumeric) || !self.data.iter().all(is_printable) {
            return Err(Tr31Error::OptionalFormat(self.id));
        }
        tolerance.require(
            self.id.is_known(),
            Leniency::UNKNOWN_OPTIONAL_BLOCK,
            Tr31Error::UnknownOptional(self.id),
        )?;
        let lower_case = self.id.has_hex()
            && self.data.iter().any(u8::is_ascii_lowercase)
            && well_formed(self.id, &self.data.to_ascii_uppercase());
        if lower_case {
            return tolerance.allow(Leniency::LOWER_CASE_HEX, Tr31Error::OptionalFormat(self.id));
        }
        tolerance.require(
            well_formed(self.id, &self.data),
            Leniency::OPTIONAL_BLOCK_FORMAT,
            Tr31Error::OptionalFormat(self.id),
        )
    }

    /// Appends identifier, length and value; lengths beyond two digits with "02", or "04" where
    /// asked for.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, leniency: Leniency) -> Result<(), Tr31Error> {
        out.extend_from_slice(&self.id.0);
        let length = self.encoded_len();
        if length <= SHORT_MAX {
            hex_digits(out, length, 2);
        } else if length <= 0xFFFF {
            let form =
                if leniency.contains(Leniency::EXTENDED_LENGTH_04) { b"0004" } else { b"0002" };
            out.extend_from_slice(form);
            hex_digits(out, length, 4);
        } else {
            return Err(Tr31Error::TooLong);
        }
        out.extend_from_slice(&self.data);
        Ok(())
    }
}

impl OptionalId {
    /// True if the value is hex digits throughout.
    fn has_hex(self) -> bool {
        matches!(&self.0, b"BI" | b"HM" | b"IK" | b"KC" | b"KP" | b"KS" | b"PK")
    }
}

/// The value's format: X9.143 6.3.6, tables 8 to 23.
fn well_formed(id: OptionalId, data: &[u8]) -> bool {
    match &id.0 {
        b"AL" => matches!(data, b"0100" | b"0101"),
        b"BI" => {
            (data.starts_with(b"00") && data.len() == 12
                || data.starts_with(b"01") && data.len() == 10)
                && data.iter().all(is_hex)
        }
        b"CT" => is_certificate(data),
        b"DA" => {
            data.starts_with(b"01")
                && data.len() > 2
                && (data.len() - 2).is_multiple_of(5)
                && data.iter().all(u8::is_ascii_alphanumeric)
        }
        b"HM" => matches!(
            data,
            b"10"
                | b"20"
                | b"21"
                | b"22"
                | b"23"
                | b"24"
                | b"25"
                | b"30"
                | b"31"
                | b"32"
                | b"33"
                | b"40"
                | b"41"
        ),
        b"IK" => data.len() == 16 && data.iter().all(is_hex),
        b"KC" | b"KP" | b"PK" => is_check_value(data),
        // Ten bytes are the standard's; eight are the key set identifier that TR-31:2010 shows.
        b"KS" => matches!(data.len(), 16 | 20) && data.iter().all(is_hex),
        b"KV" => data.len() == 4,
        b"LB" | b"FL" => !data.is_empty(),
        b"TC" | b"TS" => is_utc_time(data),
        b"WP" => matches!(data, b"000" | b"001" | b"002" | b"003"),
        _ => true,
    }
}

/// "00" and up to three bytes, or "01" (CMAC) and up to five.
fn is_check_value(data: &[u8]) -> bool {
    let longest = match data.get(..2) {
        Some(b"00") => 6,
        Some(b"01") => 10,
        _ => return false,
    };
    let value = &data[2..];
    (2..=longest).contains(&value.len())
        && value.len().is_multiple_of(2)
        && value.iter().all(is_hex)
}

/// "00" (X.509) or "01" (EMV) and base64, or "02" and a chain of them, each with its length.
fn is_certificate(data: &[u8]) -> bool {
    match data.get(..2) {
        Some(b"00" | b"01") => is_base64(&data[2..]),
        Some(b"02") => {
            let mut rest = &data[2..];
            while !rest.is_empty() {
                let (Some(b"00" | b"01"), Some(length)) = (rest.get(..2), rest.get(2..6)) else {
                    return false;
                };
                let Some(end) = hex_number(length).and_then(|length| length.checked_add(6)) else {
                    return false;
                };
                if !rest.get(6..end).is_some_and(is_base64) {
                    return false;
                }
                rest = &rest[end..];
            }
            data.len() > 2
        }
        _ => false,
    }
}

fn is_base64(data: &[u8]) -> bool {
    let body = data.strip_suffix(b"==").or_else(|| data.strip_suffix(b"=")).unwrap_or(data);
    !body.is_empty()
        && data.len().is_multiple_of(4)
        && body.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

/// ISO 8601 in UTC: `YYYYMMDDhhmmss[ff]Z` or `YYYY-MM-DDThh:mm:ss[.ff]Z`.
fn is_utc_time(data: &[u8]) -> bool {
    let Some(time) = data.strip_suffix(b"Z") else { return false };
    let mut digits = Vec::with_capacity(16);
    let punctuated = time.len() > 10 && time[4] == b'-';
    for (at, &byte) in time.iter().enumerate() {
        let punctuation = match at {
            _ if !punctuated => None,
            4 | 7 => Some(b'-'),
            10 => Some(b'T'),
            13 | 16 => Some(b':'),
            19 => Some(b'.'),
            _ => None,
        };
        match punctuation {
            Some(expected) if byte == expected => {}
            None if byte.is_ascii_digit() => digits.push(usize::from(byte - b'0')),
            _ => return false,
        }
    }
    if !matches!(digits.len(), 14 | 16) {
        return false;
    }
    let pair = |at: usize| digits[at] * 10 + digits[at + 1];
    let leap = |year: usize| {
        year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
    };
    let days = match pair(4) {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap(pair(0) * 100 + pair(2)) => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&pair(6)) && pair(8) < 24 && pair(10) < 60 && pair(12) <= 60
}

pub(crate) fn is_printable(byte: &u8) -> bool {
    (0x20..0x7F).contains(byte)
}

fn is_hex(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'A'..=b'F')
}

fn hex_number(digits: &[u8]) -> Option<usize> {
    number(digits, 16, &mut Tolerance::default())
}

/// A number of digits in `radix`, nothing else; lower-case hex digits by leniency.
pub(crate) fn number(digits: &[u8], radix: u32, tolerance: &mut Tolerance) -> Option<usize> {
    let mut value = 0;
    for &digit in digits {
        if digit.is_ascii_lowercase() {
            tolerance.allow(Leniency::LOWER_CASE_HEX, Tr31Error::Hex).ok()?;
        }
        value = value * radix as usize + char::from(digit).to_digit(radix)? as usize;
    }
    Some(value)
}

/// Appends `value` as that many upper-case hex digits.
fn hex_digits(out: &mut Vec<u8>, value: usize, count: u32) {
    for place in (0..count).rev() {
        let digit = (value >> (4 * place)) & 0xF;
        out.push(b"0123456789ABCDEF"[digit]);
    }
}
