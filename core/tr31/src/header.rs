//! The header of a key block (X9.143 6.3).

use alloc::vec::Vec;
use core::fmt;

use crate::leniency::Tolerance;
use crate::optional::{is_printable, number};
use crate::{BlockCipher, Leniency, OptionalBlock, OptionalId, Tr31Error, policy};

/// The header without optional blocks, in characters.
pub const HEADER_LEN: usize = 16;
/// The longest key block: what four digits can say.
pub const BLOCK_MAX: usize = 9999;

/// How a key block is bound and encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// TDES, variants of the protection key, MAC over the ciphertext. Deprecated in favour of C.
    A,
    /// TDES, keys derived by CMAC, MAC over the plaintext.
    B,
    /// TDES, variants of the protection key, MAC over the ciphertext.
    C,
    /// AES, keys derived by CMAC, CBC.
    D,
    /// AES, keys derived by CMAC, counter mode (ISO 20038).
    E,
}

impl Version {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::A, Self::B, Self::C, Self::D, Self::E];

    /// The version of this letter, if there is one.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.letter() == letter)
    }

    /// Its letter.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::A => b'A',
            Self::B => b'B',
            Self::C => b'C',
            Self::D => b'D',
            Self::E => b'E',
        }
    }

    /// The cipher of its protection key.
    #[must_use]
    pub const fn cipher(self) -> BlockCipher {
        match self {
            Self::A | Self::B | Self::C => BlockCipher::Tdes,
            Self::D | Self::E => BlockCipher::Aes,
        }
    }

    /// The length of its MAC in bytes.
    #[must_use]
    pub const fn mac_len(self) -> usize {
        match self {
            Self::A | Self::C => 4,
            Self::B => 8,
            Self::D | Self::E => 16,
        }
    }

    /// What the payload's length is a multiple of.
    pub(crate) const fn payload_unit(self) -> usize {
        match self {
            Self::E => 1,
            Self::A | Self::B | Self::C | Self::D => self.cipher().block_len(),
        }
    }

    /// What the optional blocks' length is a multiple of when read.
    const fn optional_unit(self) -> usize {
        self.payload_unit()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", char::from(self.letter()))
    }
}

/// What a key block says of its key, in the clear and under its MAC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Header {
    /// How the block is protected.
    pub version: Version,
    /// Length of the whole key block in characters. [`crate::wrap`] sets it.
    pub length: u16,
    /// Key usage, two characters.
    pub usage: [u8; 2],
    /// Algorithm of the wrapped key.
    pub algorithm: u8,
    /// Mode of use.
    pub mode: u8,
    /// Key version number; "00" is none, "c" and a digit is a component.
    pub key_version: [u8; 2],
    /// Exportability.
    pub exportability: u8,
    /// Key context: "0" as its protection key, "1" storage, "2" exchange.
    pub context: u8,
    /// The optional blocks in their order.
    pub optional: Vec<OptionalBlock>,
}

/// A header at the start of something longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedHeader {
    /// The header.
    pub header: Header,
    /// Its length in characters, optional blocks included.
    pub len: usize,
    /// The departures that were met.
    pub used: Leniency,
}

impl Header {
    /// A header without version number, context and optional blocks.
    #[must_use]
    pub const fn new(
        version: Version,
        usage: [u8; 2],
        algorithm: u8,
        mode: u8,
        exportability: u8,
    ) -> Self {
        Self {
            version,
            length: 0,
            usage,
            algorithm,
            mode,
            key_version: *b"00",
            exportability,
            context: b'0',
            optional: Vec::new(),
        }
    }

    /// Reads a header that stands alone (as in a TR-34 token); `bytes` is all of it. The length
    /// field is taken as it is.
    ///
    /// # Errors
    /// The failed check; [`Tr31Error::BlockLength`] if something follows.
    pub fn parse(bytes: &[u8], leniency: Leniency) -> Result<Self, Tr31Error> {
        let parsed = Self::parse_prefix(bytes, leniency)?;
        if parsed.len != bytes.len() {
            return Err(Tr31Error::BlockLength);
        }
        Ok(parsed.header)
    }

    /// Reads the header at the start of `bytes`, which may go on. The length field is taken as it
    /// is.
    ///
    /// # Errors
    /// The failed check.
    pub fn parse_prefix(bytes: &[u8], leniency: Leniency) -> Result<ParsedHeader, Tr31Error> {
        let mut tolerance = Tolerance::new(leniency);
        let (header, len) = Self::read(bytes, &mut tolerance)?;
        Ok(ParsedHeader { header, len, used: tolerance.used })
    }

    pub(crate) fn read(
        bytes: &[u8],
        tolerance: &mut Tolerance,
    ) -> Result<(Self, usize), Tr31Error> {
        let fixed = bytes.first_chunk::<HEADER_LEN>().ok_or(Tr31Error::BlockLength)?;
        if !fixed.iter().all(is_printable) {
            return Err(Tr31Error::Character);
        }
        let version = Version::from_letter(fixed[0]).ok_or(Tr31Error::Version)?;
        let length = number(&fixed[1..5], 10, tolerance).ok_or(Tr31Error::BlockLength)?;
        let count = number(&fixed[12..14], 10, tolerance).ok_or(Tr31Error::OptionalCount)?;
        let mut header = Self {
            version,
            length: u16::try_from(length).map_err(|_| Tr31Error::BlockLength)?,
            usage: [fixed[5], fixed[6]],
            algorithm: fixed[7],
            mode: fixed[8],
            key_version: [fixed[9], fixed[10]],
            exportability: fixed[11],
            context: fixed[14],
            optional: Vec::new(),
        };
        if fixed[15] != b'0' {
            return Err(Tr31Error::Reserved);
        }
        header.check_values(tolerance)?;
        let mut len = HEADER_LEN;
        for _ in 0..count {
            let (block, block_len) = OptionalBlock::parse(&bytes[len..], tolerance)?;
            len += block_len;
            header.optional.push(block);
        }
        header.check_order()?;
        tolerance.require(
            (len - HEADER_LEN).is_multiple_of(version.optional_unit()),
            Leniency::OPTIONAL_BLOCK_PADDING,
            Tr31Error::OptionalPadding,
        )?;
        Ok((header, len))
    }

    /// The header in characters, with [`Self::length`] as it stands; extended lengths as "02".
    ///
    /// # Errors
    /// [`Tr31Error::TooLong`], [`Tr31Error::OptionalCount`].
    pub fn encode(&self) -> Result<Vec<u8>, Tr31Error> {
        self.encode_as(Leniency::NONE)
    }

    /// [`Self::encode`], with extended lengths as "04" where `leniency` names that.
    pub(crate) fn encode_as(&self, leniency: Leniency) -> Result<Vec<u8>, Tr31Error> {
        if usize::from(self.length) > BLOCK_MAX {
            return Err(Tr31Error::TooLong);
        }
        let count = u8::try_from(self.optional.len()).unwrap_or(u8::MAX);
        if count > 99 {
            return Err(Tr31Error::OptionalCount);
        }
        let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
        let length = self.length;
        let mut out = alloc::vec![
            self.version.letter(),
            digit(length / 1000),
            digit(length / 100),
            digit(length / 10),
            digit(length),
        ];
        out.extend_from_slice(&self.usage);
        out.extend_from_slice(&[self.algorithm, self.mode]);
        out.extend_from_slice(&self.key_version);
        out.push(self.exportability);
        out.extend_from_slice(&[digit((count / 10).into()), digit(count.into())]);
        out.extend_from_slice(&[self.context, b'0']);
        for block in &self.optional {
            block.encode(&mut out, leniency)?;
        }
        Ok(out)
    }

    /// The optional block of this name.
    #[must_use]
    pub fn block(&self, id: OptionalId) -> Option<&OptionalBlock> {
        self.optional.iter().find(|block| block.id == id)
    }

    /// Each field by itself: known, or at least alphanumeric where that is allowed.
    pub(crate) fn check_values(&self, tolerance: &mut Tolerance) -> Result<(), Tr31Error> {
        let mut field = |value: &[u8], known: bool, otherwise: Tr31Error| {
            if !value.iter().all(u8::is_ascii_alphanumeric) {
                return Err(otherwise);
            }
            tolerance.require(known, Leniency::UNKNOWN_VALUES, otherwise)
        };
        field(&self.usage, policy::is_usage(self.usage), Tr31Error::Usage)?;
        let algorithm = policy::is_algorithm(self.algorithm);
        field(&[self.algorithm], algorithm, Tr31Error::Algorithm)?;
        field(&[self.mode], policy::is_mode(self.mode), Tr31Error::Mode)?;
        field(&self.key_version, true, Tr31Error::KeyVersion)?;
        let exportability = matches!(self.exportability, b'E' | b'N' | b'S');
        field(&[self.exportability], exportability, Tr31Error::Exportability)?;
        field(&[self.context], matches!(self.context, b'0'..=b'2'), Tr31Error::KeyContext)
    }

    /// No identifier twice, PB only at the end.
    pub(crate) fn check_order(&self) -> Result<(), Tr31Error> {
        for (at, block) in self.optional.iter().enumerate() {
            if self.optional[..at].iter().any(|earlier| earlier.id == block.id) {
                return Err(Tr31Error::DuplicateOptional(block.id));
            }
            if block.id == OptionalId::PB && at + 1 != self.optional.len() {
                return Err(Tr31Error::OptionalPadding);
            }
        }
        Ok(())
    }

    /// Fills the optional blocks up to whole cipher blocks with a PB of "0" characters. A PB that
    /// is there stays if it does that. [`crate::wrap`] does this by itself; a header that travels
    /// without a block (TR-34) wants it too.
    ///
    /// # Errors
    /// [`Tr31Error::OptionalPadding`] for a PB that fills up to something else.
    pub fn pad_optional(&mut self) -> Result<(), Tr31Error> {
        let unit = self.version.cipher().block_len();
        let total: usize = self.optional.iter().map(OptionalBlock::encoded_len).sum();
        let over = total % unit;
        if over == 0 {
            return Ok(());
        }
        if self.block(OptionalId::PB).is_some() {
            return Err(Tr31Error::OptionalPadding);
        }
        // Identifier and length take four characters themselves.
        let fill = (2 * unit - over - 4) % unit;
        self.optional.push(OptionalBlock::new(OptionalId::PB, alloc::vec![b'0'; fill]));
        Ok(())
    }
}
