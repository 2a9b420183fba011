//! The decrypted text record: 256 bytes UTF-16LE, four kinds of documents.
//!
//! Layouts: GA 450 for citizens; the other three by several independent implementations (see
//! [`layout`]). Text is padded with U+0020. Reserved areas are ignored when decoding and blank
//! when encoding. Decoding is strict about everything else, and an error names the field but
//! never its content.

mod codec;
mod date;
mod id_number;
pub mod layout;
mod nation;
mod photo;

use alloc::string::String;
use core::fmt;

use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::TEXT_LEN;

pub use date::{Date, ValidUntil};
pub use id_number::{ID_NUMBER_LEN, id_check_digit, id_number_is_valid};
pub use nation::Nation;
pub use photo::{PHOTO_HEIGHT, PHOTO_WIDTH, Photo, PhotoDecoder, PhotoError};

/// Which document a record is from: the flag at offset 248.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum DocumentType {
    /// Resident identity card of a citizen (flag blank).
    Citizen,
    /// Foreigner's permanent residence card, 2017 (flag `I`).
    Foreigner2017,
    /// Foreigner's permanent residence card, 2023 (flag `Y`).
    Foreigner2023,
    /// Residence permit for Hong Kong, Macau and Taiwan residents (flag `J`).
    ResidencePermit,
}

impl DocumentType {
    /// Of a text record; `None` for an unknown flag.
    #[must_use]
    pub fn of(text: &[u8; TEXT_LEN]) -> Option<Self> {
        let at = layout::FLAG.offset;
        match u16::from_le_bytes([text[at], text[at + 1]]) {
            0x0020 => Some(Self::Citizen),
            0x0049 => Some(Self::Foreigner2017),
            0x0059 => Some(Self::Foreigner2023),
            0x004A => Some(Self::ResidencePermit),
            _ => None,
        }
    }

    /// The stable name: `citizen`, `foreigner2017`, `foreigner2023`, `residencePermit`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Citizen => "citizen",
            Self::Foreigner2017 => "foreigner2017",
            Self::Foreigner2023 => "foreigner2023",
            Self::ResidencePermit => "residencePermit",
        }
    }

    /// The flag's character.
    #[must_use]
    pub(crate) const fn flag(self) -> &'static str {
        match self {
            Self::Citizen => " ",
            Self::Foreigner2017 => "I",
            Self::Foreigner2023 => "Y",
            Self::ResidencePermit => "J",
        }
    }
}

/// Sex (GB/T 2261.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Zeroize)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum Sex {
    /// Code 0.
    #[default]
    Unknown,
    /// Code 1.
    Male,
    /// Code 2.
    Female,
    /// Code 9.
    Unstated,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not valid UTF-16LE (an unpaired surrogate), or a NUL or other control character.
    #[error("is not valid UTF-16LE text")]
    Encoding,
    /// Must not be blank.
    #[error("is blank")]
    Blank,
    /// Does not fit its field (encoding only).
    #[error("is too long")]
    TooLong,
    /// Not YYYYMMDD of the Gregorian calendar (or `长期` where that is allowed).
    #[error("is not a calendar date")]
    Date,
    /// Not a code of its table.
    #[error("has an unknown code")]
    Code,
    /// Not of the form that this document's numbers have.
    #[error("has the wrong form")]
    Form,
    /// The 18th character does not match the other 17 (GB 11643).
    #[error("has a wrong check digit")]
    CheckDigit,
}

/// A record that cannot be decoded or encoded: the field and its problem, never its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct RecordError {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: Problem,
}

/// A citizen's resident identity card.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields))]
pub struct Citizen {
    /// 姓名, at most 15 UTF-16 units.
    pub name: String,
    /// 性别.
    pub sex: Sex,
    /// 民族 (GB/T 3304).
    pub nation: Nation,
    /// 出生.
    pub birth: Date,
    /// 住址, at most 35 units.
    pub address: String,
    /// 公民身份号码, 18 characters, check digit verified.
    pub id_number: String,
    /// 签发机关, at most 15 units.
    pub issuer: String,
    /// Valid from.
    pub valid_from: Date,
    /// Valid until, possibly 长期.
    pub valid_until: ValidUntil,
}

/// A residence permit for Hong Kong, Macau and Taiwan residents (`J`).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields))]
pub struct ResidencePermit {
    /// 姓名, at most 15 UTF-16 units.
    pub name: String,
    /// 性别.
    pub sex: Sex,
    /// 出生日期.
    pub birth: Date,
    /// 住址, at most 35 units.
    pub address: String,
    /// 公民身份号码, 18 characters, check digit verified; begins with 810000 (Hong Kong), 820000
    /// (Macau) or 830000 (Taiwan).
    pub id_number: String,
    /// 签发机关, at most 15 units.
    pub issuer: String,
    /// Valid from.
    pub valid_from: Date,
    /// Valid until, possibly 长期.
    pub valid_until: ValidUntil,
    /// 通行证号码, at most 9 ASCII characters; may be blank.
    pub pass_number: String,
    /// 签发次数, two digits.
    pub issue_count: u8,
}

/// A foreigner's permanent residence card of 2017 (`I`).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields))]
pub struct Foreigner2017 {
    /// English name, at most 60 UTF-16 units.
    pub english_name: String,
    /// Sex.
    pub sex: Sex,
    /// 永久居留证号码, 15 digits and capital letters. Only the form is checked: our sources give
    /// no rule for a check digit, so none is invented here.
    pub number: String,
    /// Nationality, three capital letters (ISO 3166-1 alpha-3).
    pub country: String,
    /// Chinese name, at most 15 units; may be blank.
    pub chinese_name: String,
    /// Valid from.
    pub valid_from: Date,
    /// Expiry.
    pub valid_until: Date,
    /// Date of birth.
    pub birth: Date,
    /// Card version, at most 2 characters; may be blank.
    pub version: String,
    /// Code of the authority, at most 4 characters; may be blank.
    pub authority: String,
}

/// A foreigner's permanent residence card of 2023 (`Y`).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase", deny_unknown_fields))]
pub struct Foreigner2023 {
    /// Chinese name, at most 15 UTF-16 units; may be blank.
    pub chinese_name: String,
    /// English name, at most 46 units.
    pub english_name: String,
    /// Sex.
    pub sex: Sex,
    /// 换证次数, two digits.
    pub renewal_count: u8,
    /// Date of birth.
    pub birth: Date,
    /// 18 characters beginning with 9, check digit verified.
    pub id_number: String,
    /// Nationality, three capital letters (ISO 3166-1 alpha-3).
    pub country: String,
    /// Issue date.
    pub valid_from: Date,
    /// Expiry.
    pub valid_until: Date,
    /// Link to the holder's number of 2017, at most 3 characters; may be blank.
    pub old_number_link: String,
}

/// A decoded text record. Personal: wiped on drop; `Debug` prints the type only.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(tag = "documentType", rename_all = "camelCase"))]
pub enum IdRecord {
    /// A citizen's card.
    Citizen(Citizen),
    /// A foreigner's card of 2017.
    Foreigner2017(Foreigner2017),
    /// A foreigner's card of 2023.
    Foreigner2023(Foreigner2023),
    /// A permit for Hong Kong, Macau and Taiwan residents.
    ResidencePermit(ResidencePermit),
}

impl IdRecord {
    /// Decodes a text record.
    ///
    /// # Errors
    /// [`RecordError`] naming the first bad field.
    pub fn decode(text: &[u8; TEXT_LEN]) -> Result<Self, RecordError> {
        codec::decode(text)
    }

    /// Encodes, checking every field as [`decode`](Self::decode) does.
    ///
    /// # Errors
    /// [`RecordError`] naming the first bad field.
    pub fn encode(&self) -> Result<Zeroizing<[u8; TEXT_LEN]>, RecordError> {
        codec::encode(self)
    }

    /// Which document it is.
    #[must_use]
    pub const fn document_type(&self) -> DocumentType {
        match self {
            Self::Citizen(_) => DocumentType::Citizen,
            Self::Foreigner2017(_) => DocumentType::Foreigner2017,
            Self::Foreigner2023(_) => DocumentType::Foreigner2023,
            Self::ResidencePermit(_) => DocumentType::ResidencePermit,
        }
    }

    /// The name as printed: Chinese, or English if there is no Chinese name.
    #[must_use]
    pub fn name(&self) -> &str {
        let (chinese, english) = match self {
            Self::Citizen(card) => return &card.name,
            Self::ResidencePermit(card) => return &card.name,
            Self::Foreigner2017(card) => (&card.chinese_name, &card.english_name),
            Self::Foreigner2023(card) => (&card.chinese_name, &card.english_name),
        };
        if chinese.is_empty() { english } else { chinese }
    }

    /// The holder's number.
    #[must_use]
    pub fn id_number(&self) -> &str {
        match self {
            Self::Citizen(card) => &card.id_number,
            Self::ResidencePermit(card) => &card.id_number,
            Self::Foreigner2017(card) => &card.number,
            Self::Foreigner2023(card) => &card.id_number,
        }
    }
}

macro_rules! silent_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    )*};
}

silent_debug!(Citizen, ResidencePermit, Foreigner2017, Foreigner2023);

impl fmt::Debug for IdRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdRecord({})", self.document_type().name())
    }
}
