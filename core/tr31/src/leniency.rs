use core::ops::BitOr;

use crate::Tr31Error;

/// Departures from X9.143 that a caller may allow, each by name. None is allowed by default.
///
/// ```
/// use tr31::Leniency;
/// let allowed = Leniency::from_name("lower-case-hex").unwrap_or_default() | Leniency::DES_PARITY;
/// assert!(allowed.contains(Leniency::LOWER_CASE_HEX));
/// assert!(!allowed.contains(Leniency::SINGLE_DES));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Leniency(u16);

/// Every departure with its name.
const NAMED: [(Leniency, &str); 11] = [
    (Leniency::LOWER_CASE_HEX, "lower-case-hex"),
    (Leniency::EXTENDED_LENGTH_04, "extended-length-04"),
    (Leniency::UNKNOWN_OPTIONAL_BLOCK, "unknown-optional-block"),
    (Leniency::OPTIONAL_BLOCK_FORMAT, "optional-block-format"),
    (Leniency::OPTIONAL_BLOCK_PADDING, "optional-block-padding"),
    (Leniency::UNKNOWN_VALUES, "unknown-values"),
    (Leniency::HEADER_COMBINATION, "header-combination"),
    (Leniency::NO_LENGTH_OBFUSCATION, "no-length-obfuscation"),
    (Leniency::SINGLE_DES, "single-des"),
    (Leniency::DES_PARITY, "des-parity"),
    (Leniency::WEAKER_WRAPPING_KEY, "weaker-wrapping-key"),
];

impl Leniency {
    /// Nothing: X9.143 as it is written.
    pub const NONE: Self = Self(0);
    /// Hex digits in lower case, in the payload, the MAC or an optional block.
    pub const LOWER_CASE_HEX: Self = Self(1);
    /// Extended lengths announced as "04" and counted in characters, as X9.143 8.5 and 8.6 print
    /// them.
    pub const EXTENDED_LENGTH_04: Self = Self(1 << 1);
    /// Optional blocks whose identifier is not the standard's, numeric ones included: kept as they
    /// are.
    pub const UNKNOWN_OPTIONAL_BLOCK: Self = Self(1 << 2);
    /// Optional blocks of the standard with a value in another format: kept as they are.
    pub const OPTIONAL_BLOCK_FORMAT: Self = Self(1 << 3);
    /// Optional blocks that do not fill up whole cipher blocks.
    pub const OPTIONAL_BLOCK_PADDING: Self = Self(1 << 4);
    /// Usage, algorithm, mode, exportability or key context that are reserved or proprietary.
    pub const UNKNOWN_VALUES: Self = Self(1 << 5);
    /// Values that are each known, together outside [`crate::policy`].
    pub const HEADER_COMBINATION: Self = Self(1 << 6);
    /// A payload whose length gives the length of the key away.
    pub const NO_LENGTH_OBFUSCATION: Self = Self(1 << 7);
    /// A DES key of one length (8 bytes).
    pub const SINGLE_DES: Self = Self(1 << 8);
    /// DES keys without odd parity, wrapped or wrapping.
    pub const DES_PARITY: Self = Self(1 << 9);
    /// A wrapping key weaker than the wrapped.
    pub const WEAKER_WRAPPING_KEY: Self = Self(1 << 10);

    /// What the published samples of TR-31, X9.143, ISO 20038 and their implementers need: for
    /// reading blocks of unknown origin where a person looks at what departed.
    pub const PUBLISHED_SAMPLES: Self = Self(
        Self::LOWER_CASE_HEX.0
            | Self::EXTENDED_LENGTH_04.0
            | Self::HEADER_COMBINATION.0
            | Self::NO_LENGTH_OBFUSCATION.0
            | Self::SINGLE_DES.0
            | Self::DES_PARITY.0,
    );

    /// The departure of this name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMED.iter().find(|(_, known)| *known == name).map(|(leniency, _)| *leniency)
    }

    /// The names in this set, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMED.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, name)| name)
    }

    /// Every departure there is.
    #[must_use]
    pub fn all() -> Self {
        NAMED.into_iter().fold(Self::NONE, |all, (one, _)| all | one)
    }

    /// True if everything in `other` is in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True for [`Self::NONE`].
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set without what is in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Leniency {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What is allowed, and what of it was needed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tolerance {
    allowed: Leniency,
    pub(crate) used: Leniency,
}

impl Tolerance {
    pub(crate) const fn new(allowed: Leniency) -> Self {
        Self { allowed, used: Leniency::NONE }
    }

    /// Notes that `departure` was met, or fails with `otherwise` where it is not allowed.
    pub(crate) fn allow(
        &mut self,
        departure: Leniency,
        otherwise: Tr31Error,
    ) -> Result<(), Tr31Error> {
        if !self.allowed.contains(departure) {
            return Err(otherwise);
        }
        self.used = self.used | departure;
        Ok(())
    }

    pub(crate) const fn allows(&self, departure: Leniency) -> bool {
        self.allowed.contains(departure)
    }

    /// [`Self::allow`] unless `holds`.
    pub(crate) fn require(
        &mut self,
        holds: bool,
        departure: Leniency,
        otherwise: Tr31Error,
    ) -> Result<(), Tr31Error> {
        if holds { Ok(()) } else { self.allow(departure, otherwise) }
    }
}
