//! What an owner allows: as it stands in the manager's settings.

use core::fmt;
use core::str::FromStr;

use countersign_iso7816::Command;
use data_encoding::HEXUPPER_PERMISSIVE;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most bytes of an application's name (ISO/IEC 7816-4, 12.2.3).
const AID_LEN_MAX: usize = 16;
/// Most applications of a card's list.
pub const AIDS_MAX: usize = 64;
/// Most patterns of a card's list.
pub const PATTERNS_MAX: usize = 256;
/// The directory of a card with contacts, and of one without (EMV Book 1, 12.2.2; Book B, 3.3.1).
const DIRECTORIES: [&[u8]; 2] = [b"1PAY.SYS.DDF01", b"2PAY.SYS.DDF01"];

/// What a terminal needs of a payment card (EMV Book 3, 6.5; the last: Contactless Book C-2, 3.10).
const EMV: [Pattern; 11] = [
    Pattern([Some(0x00), Some(0xa4), Some(0x04), None]), // SELECT by name
    Pattern([Some(0x80), Some(0xa8), Some(0x00), Some(0x00)]), // GET PROCESSING OPTIONS
    Pattern([Some(0x00), Some(0xb2), None, None]),       // READ RECORD
    Pattern([Some(0x80), Some(0xca), None, None]),       // GET DATA
    Pattern([Some(0x00), Some(0x82), Some(0x00), Some(0x00)]), // EXTERNAL AUTHENTICATE
    Pattern([Some(0x00), Some(0x88), Some(0x00), Some(0x00)]), // INTERNAL AUTHENTICATE
    Pattern([Some(0x00), Some(0x20), Some(0x00), None]), // VERIFY
    Pattern([Some(0x80), Some(0xae), None, Some(0x00)]), // GENERATE AC
    Pattern([Some(0x00), Some(0x84), Some(0x00), Some(0x00)]), // GET CHALLENGE
    Pattern([Some(0x00), Some(0xc0), Some(0x00), Some(0x00)]), // GET RESPONSE
    Pattern([Some(0x80), Some(0xea), Some(0x00), Some(0x00)]), // EXCHANGE RELAY RESISTANCE DATA
];

/// Rules that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Not 5 to 16 bytes in hexadecimal digits.
    #[error("an application's name has 5 to 16 bytes, in hexadecimal digits")]
    Aid,
    /// Not `CLA INS [P1 [P2]]`, each two hexadecimal digits or `*`.
    #[error("a pattern is CLA INS P1 P2, each two hexadecimal digits or *")]
    Pattern,
    /// Neither `any` nor a list (nor `emv`, for commands).
    #[error("expected \"any\" or a list")]
    Choice,
    /// Longer than [`AIDS_MAX`] or [`PATTERNS_MAX`].
    #[error("the list is too long")]
    TooMany,
    /// An amount limit without its currency.
    #[error("an amount limit needs a currency")]
    NoCurrency,
}

impl RulesError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Aid => "policy-rules-aid",
            Self::Pattern => "policy-rules-pattern",
            Self::Choice => "policy-rules-choice",
            Self::TooMany => "policy-rules-too-many",
            Self::NoCurrency => "policy-rules-currency",
        }
    }
}

/// An application's name, or its beginning.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Aid(Vec<u8>);

impl Aid {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// What a terminal asked for, of whatever length.
    pub(super) fn clipped(bytes: &[u8]) -> Self {
        Self(bytes.iter().take(AID_LEN_MAX).copied().collect())
    }
}

/// Hexadecimal digits.
impl fmt::Display for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXUPPER_PERMISSIVE.encode(&self.0))
    }
}

impl fmt::Debug for Aid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aid({self})")
    }
}

impl FromStr for Aid {
    type Err = RulesError;

    fn from_str(text: &str) -> Result<Self, RulesError> {
        let bytes = HEXUPPER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| RulesError::Aid)?;
        // Five bytes are a whole registered provider (ISO/IEC 7816-5): less is half the world.
        (5..=AID_LEN_MAX).contains(&bytes.len()).then_some(Self(bytes)).ok_or(RulesError::Aid)
    }
}

impl TryFrom<String> for Aid {
    type Error = RulesError;

    fn try_from(text: String) -> Result<Self, RulesError> {
        text.parse()
    }
}

impl From<Aid> for String {
    fn from(aid: Aid) -> Self {
        aid.to_string()
    }
}

/// Which applications may be selected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub enum Aids {
    /// All: said so on purpose.
    Any,
    /// Those whose name begins with one of these, and the payment directories.
    List(Vec<Aid>),
}

impl Aids {
    /// Whether an application of this name may be selected.
    #[must_use]
    pub fn allow(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::List(aids) => {
                DIRECTORIES.contains(&name) || aids.iter().any(|aid| name.starts_with(&aid.0))
            }
        }
    }
}

/// A word or a list, as settings have it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Listed {
    Word(String),
    List(Vec<String>),
}

impl TryFrom<Listed> for Aids {
    type Error = RulesError;

    fn try_from(listed: Listed) -> Result<Self, RulesError> {
        match listed {
            Listed::Word(word) if word == "any" => Ok(Self::Any),
            Listed::Word(_) => Err(RulesError::Choice),
            Listed::List(aids) => {
                let aids: Result<_, _> = aids.iter().map(|aid| aid.parse()).collect();
                Ok(Self::List(aids?))
            }
        }
    }
}

impl From<Aids> for Listed {
    fn from(aids: Aids) -> Self {
        match aids {
            Aids::Any => Self::Word("any".to_owned()),
            Aids::List(aids) => Self::List(aids.into_iter().map(String::from).collect()),
        }
    }
}

/// A command's header with places for any byte: `00 A4 04 *`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pattern([Option<u8>; 4]);

impl Pattern {
    /// Whether a command is of this pattern.
    #[must_use]
    pub fn fits(&self, command: &Command) -> bool {
        let header = [command.cla, command.ins, command.p1, command.p2];
        self.0.iter().zip(header).all(|(wanted, is)| wanted.is_none_or(|wanted| wanted == is))
    }
}

impl FromStr for Pattern {
    type Err = RulesError;

    fn from_str(text: &str) -> Result<Self, RulesError> {
        let words: Vec<&str> = text.split(' ').collect();
        if !(2..=4).contains(&words.len()) {
            return Err(RulesError::Pattern);
        }
        let mut bytes = [None; 4];
        for (byte, word) in bytes.iter_mut().zip(words) {
            *byte = match word.as_bytes() {
                b"*" => None,
                digits => match HEXUPPER_PERMISSIVE.decode(digits).as_deref() {
                    Ok([byte]) => Some(*byte),
                    _ => return Err(RulesError::Pattern),
                },
            };
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            match byte {
                Some(byte) => write!(f, "{space}{byte:02X}")?,
                None => write!(f, "{space}*")?,
            }
        }
        Ok(())
    }
}

/// Which commands may be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Listed", into = "Listed")]
pub enum Commands {
    /// Those of a payment.
    Emv,
    /// All: said so on purpose, for a card that is none of a payment scheme's.
    Any,
    /// Those of these patterns.
    List(Vec<Pattern>),
}

impl Commands {
    /// Whether this command may be sent.
    #[must_use]
    pub fn allow(&self, command: &Command) -> bool {
        match self {
            Self::Emv => EMV.iter().any(|pattern| pattern.fits(command)),
            Self::Any => true,
            Self::List(patterns) => patterns.iter().any(|pattern| pattern.fits(command)),
        }
    }
}

impl TryFrom<Listed> for Commands {
    type Error = RulesError;

    fn try_from(listed: Listed) -> Result<Self, RulesError> {
        match listed {
            Listed::Word(word) if word == "emv" => Ok(Self::Emv),
            Listed::Word(word) if word == "any" => Ok(Self::Any),
            Listed::Word(_) => Err(RulesError::Choice),
            Listed::List(patterns) => {
                let patterns: Result<_, _> = patterns.iter().map(|text| text.parse()).collect();
                Ok(Self::List(patterns?))
            }
        }
    }
}

impl From<Commands> for Listed {
    fn from(commands: Commands) -> Self {
        match commands {
            Commands::Emv => Self::Word("emv".to_owned()),
            Commands::Any => Self::Word("any".to_owned()),
            Commands::List(list) => Self::List(list.iter().map(Pattern::to_string).collect()),
        }
    }
}

/// How much, and how often. What is absent is not limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CardLimits {
    /// The currency of the amounts, ISO 4217's number (156 is CNY): a payment in another is
    /// refused. Needed with either amount.
    pub currency: Option<u16>,
    /// Most of one payment, in minor units.
    pub max_amount: Option<u64>,
    /// Most of all payments of a [`PERIOD`](super::PERIOD), in minor units.
    pub max_total: Option<u64>,
    /// Most payments, or signatures of another kind of card, in a [`PERIOD`](super::PERIOD).
    pub max_uses: Option<u32>,
}

impl CardLimits {
    /// Whether an amount must be readable.
    #[must_use]
    pub const fn has_amount(&self) -> bool {
        self.max_amount.is_some() || self.max_total.is_some()
    }

    /// Whether there is any limit.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.has_amount() || self.max_uses.is_some()
    }

    /// Whether they can be.
    ///
    /// # Errors
    /// [`RulesError::NoCurrency`].
    pub const fn check(&self) -> Result<(), RulesError> {
        if self.has_amount() && self.currency.is_none() {
            return Err(RulesError::NoCurrency);
        }
        Ok(())
    }
}

/// What an owner allows of one card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rules {
    /// Which applications.
    pub aids: Aids,
    /// Which commands.
    pub commands: Commands,
    /// How much, and how often.
    #[serde(default)]
    pub limits: CardLimits,
}

impl Rules {
    /// A payment card with these applications, without limits.
    #[must_use]
    pub const fn emv(aids: Vec<Aid>) -> Self {
        let limits =
            CardLimits { currency: None, max_amount: None, max_total: None, max_uses: None };
        Self { aids: Aids::List(aids), commands: Commands::Emv, limits }
    }

    /// Everything: for a card that is none of a payment scheme's.
    #[must_use]
    pub fn any() -> Self {
        Self { aids: Aids::Any, commands: Commands::Any, ..Self::emv(Vec::new()) }
    }

    /// Whether they can be.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn check(&self) -> Result<(), RulesError> {
        let aids = matches!(&self.aids, Aids::List(list) if list.len() > AIDS_MAX);
        let patterns = matches!(&self.commands, Commands::List(list) if list.len() > PATTERNS_MAX);
        if aids || patterns {
            return Err(RulesError::TooMany);
        }
        self.limits.check()
    }
}
