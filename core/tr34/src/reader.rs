//! A strict walk over DER that keeps what it read: signatures cover received bytes, so nothing here
//! is decoded and encoded again.

use alloc::vec::Vec;

use thiserror::Error;

/// Deepest nesting that is walked. The deepest of ours, a name in a certificate in a token that
/// rebinds, stands at 16.
pub const DEPTH_MAX: u8 = 24;
/// Most octets in a length field. More than any bound of this crate needs.
const LENGTH_OCTETS_MAX: usize = 4;

/// Tags, as the first octet of an element.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING, primitive.
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING, primitive.
    pub const OCTET_STRING: u8 = 0x04;
    /// NULL.
    pub const NULL: u8 = 0x05;
    /// OBJECT IDENTIFIER.
    pub const OID: u8 = 0x06;
    /// ENUMERATED.
    pub const ENUMERATED: u8 = 0x0a;
    /// UTF8String.
    pub const UTF8_STRING: u8 = 0x0c;
    /// UTCTime.
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// SEQUENCE and SEQUENCE OF.
    pub const SEQUENCE: u8 = 0x30;
    /// SET and SET OF.
    pub const SET: u8 = 0x31;

    /// The primitive context-specific tag with this number (0 to 30).
    #[must_use]
    pub const fn context(number: u8) -> u8 {
        0x80 | (number & 0x1f)
    }

    /// The constructed context-specific tag with this number (0 to 30).
    #[must_use]
    pub const fn context_constructed(number: u8) -> u8 {
        0xa0 | (number & 0x1f)
    }
}

/// What is wrong with an encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DerError {
    /// The element is longer than what is there.
    #[error("the encoding is cut short")]
    Truncated,
    /// Something follows where nothing may.
    #[error("bytes follow the end of the encoding")]
    Trailing,
    /// Another tag than the one that belongs here.
    #[error("an element has the wrong tag")]
    UnexpectedTag,
    /// A tag number above 30: nothing here uses one.
    #[error("a tag has more than one octet")]
    LongTag,
    /// BER's indefinite length.
    #[error("a length is indefinite")]
    IndefiniteLength,
    /// A length not in its shortest form, or one of more than four octets.
    #[error("a length is not in its shortest form")]
    LengthForm,
    /// Deeper than [`DEPTH_MAX`].
    #[error("the encoding is nested too deeply")]
    TooDeep,
    /// A value that DER does not allow for its type.
    #[error("a value is not in DER")]
    Value,
}

impl DerError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Truncated => "der-truncated",
            Self::Trailing => "der-trailing",
            Self::UnexpectedTag => "der-tag",
            Self::LongTag => "der-long-tag",
            Self::IndefiniteLength => "der-indefinite",
            Self::LengthForm => "der-length",
            Self::TooDeep => "der-depth",
            Self::Value => "der-value",
        }
    }
}

/// One element as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// The tag octet.
    pub tag: u8,
    /// What the length counts.
    pub content: &'a [u8],
    /// Tag, length and content.
    pub whole: &'a [u8],
    depth: u8,
}

impl<'a> Element<'a> {
    /// The elements inside.
    ///
    /// # Errors
    /// [`DerError::TooDeep`]; [`DerError::UnexpectedTag`] for a primitive element.
    pub fn inside(&self) -> Result<Walker<'a>, DerError> {
        if self.tag & 0x20 == 0 {
            return Err(DerError::UnexpectedTag);
        }
        self.within(self.content)
    }

    /// The elements inside an OCTET STRING that holds an encoding.
    ///
    /// # Errors
    /// [`DerError::TooDeep`]; [`DerError::UnexpectedTag`] for another type.
    pub fn inside_octets(&self) -> Result<Walker<'a>, DerError> {
        if self.tag != tag::OCTET_STRING {
            return Err(DerError::UnexpectedTag);
        }
        self.within(self.content)
    }

    /// The elements inside a BIT STRING that holds an encoding.
    ///
    /// # Errors
    /// [`DerError::TooDeep`]; [`DerError::Value`] if it is not made of whole octets.
    pub fn inside_bits(&self) -> Result<Walker<'a>, DerError> {
        self.within(self.octets_of_bits()?)
    }

    /// The octets of a BIT STRING without unused bits.
    ///
    /// # Errors
    /// [`DerError::Value`] with unused bits; [`DerError::UnexpectedTag`] for another type.
    pub fn octets_of_bits(&self) -> Result<&'a [u8], DerError> {
        match (self.tag, self.content) {
            (tag::BIT_STRING, [0, octets @ ..]) => Ok(octets),
            (tag::BIT_STRING, _) => Err(DerError::Value),
            _ => Err(DerError::UnexpectedTag),
        }
    }

    /// The magnitude of an INTEGER that is not negative: big-endian, no leading zero octet, but
    /// one octet for zero.
    ///
    /// # Errors
    /// [`DerError::Value`] for a negative number or one not in its shortest form;
    /// [`DerError::UnexpectedTag`] for another type.
    pub fn unsigned(&self) -> Result<&'a [u8], DerError> {
        if self.tag != tag::INTEGER {
            return Err(DerError::UnexpectedTag);
        }
        match self.content {
            [0] => Ok(self.content),
            [0, rest @ ..] if rest[0] >= 0x80 => Ok(rest),
            [first, ..] if (1..0x80).contains(first) => Ok(self.content),
            _ => Err(DerError::Value),
        }
    }

    /// A small INTEGER, 0 to 255.
    ///
    /// # Errors
    /// As [`Self::unsigned`]; [`DerError::Value`] above 255.
    pub fn small(&self) -> Result<u8, DerError> {
        match self.unsigned()? {
            [value] => Ok(*value),
            _ => Err(DerError::Value),
        }
    }

    /// A BOOLEAN: DER knows 0x00 and 0xff only.
    ///
    /// # Errors
    /// [`DerError::Value`]; [`DerError::UnexpectedTag`] for another type.
    pub fn boolean(&self) -> Result<bool, DerError> {
        match (self.tag, self.content) {
            (tag::BOOLEAN, [0]) => Ok(false),
            (tag::BOOLEAN, [0xff]) => Ok(true),
            (tag::BOOLEAN, _) => Err(DerError::Value),
            _ => Err(DerError::UnexpectedTag),
        }
    }

    fn within(&self, content: &'a [u8]) -> Result<Walker<'a>, DerError> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(DerError::TooDeep);
        }
        Ok(Walker { rest: content, depth })
    }
}

/// Walks the elements of one level. Whoever is done calls [`Walker::end`].
#[derive(Debug, Clone, Copy)]
pub struct Walker<'a> {
    rest: &'a [u8],
    depth: u8,
}

impl<'a> Walker<'a> {
    /// At the outermost level.
    #[must_use]
    pub const fn new(der: &'a [u8]) -> Self {
        Self { rest: der, depth: 0 }
    }

    /// The one element that `der` consists of.
    ///
    /// # Errors
    /// Any [`DerError`]; [`DerError::Trailing`] if something follows.
    pub fn single(der: &'a [u8], tag: u8) -> Result<Element<'a>, DerError> {
        let mut walker = Self::new(der);
        let element = walker.element(tag)?;
        walker.end()?;
        Ok(element)
    }

    /// The next element, whatever it is.
    ///
    /// # Errors
    /// [`DerError::Truncated`] at the end; the others for a bad header.
    pub fn any(&mut self) -> Result<Element<'a>, DerError> {
        let (&tag, after_tag) = self.rest.split_first().ok_or(DerError::Truncated)?;
        if tag & 0x1f == 0x1f {
            return Err(DerError::LongTag);
        }
        let (length, after_length) = length(after_tag)?;
        let (content, rest) = after_length.split_at_checked(length).ok_or(DerError::Truncated)?;
        let whole = &self.rest[..self.rest.len() - rest.len()];
        self.rest = rest;
        Ok(Element { tag, content, whole, depth: self.depth })
    }

    /// The next element, which has this tag.
    ///
    /// # Errors
    /// [`DerError::UnexpectedTag`]; as [`Self::any`].
    pub fn element(&mut self, tag: u8) -> Result<Element<'a>, DerError> {
        match self.peek() {
            Some(found) if found != tag => Err(DerError::UnexpectedTag),
            _ => self.any(),
        }
    }

    /// The next element if it has this tag.
    ///
    /// # Errors
    /// As [`Self::any`].
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, DerError> {
        if self.peek() == Some(tag) { self.any().map(Some) } else { Ok(None) }
    }

    /// The next element's tag octet; none at the end.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// What is left of this level.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// True at the end.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Nothing may follow.
    ///
    /// # Errors
    /// [`DerError::Trailing`].
    pub const fn end(&self) -> Result<(), DerError> {
        if self.is_at_end() { Ok(()) } else { Err(DerError::Trailing) }
    }
}

/// A definite length in its shortest form, and what follows it.
fn length(der: &[u8]) -> Result<(usize, &[u8]), DerError> {
    let (&first, rest) = der.split_first().ok_or(DerError::Truncated)?;
    let count = match first {
        0..=0x7f => return Ok((usize::from(first), rest)),
        0x80 => return Err(DerError::IndefiniteLength),
        _ => usize::from(first & 0x7f),
    };
    if count > LENGTH_OCTETS_MAX {
        return Err(DerError::LengthForm);
    }
    let (octets, rest) = rest.split_at_checked(count).ok_or(DerError::Truncated)?;
    let length = octets.iter().fold(0_u64, |sum, octet| sum << 8 | u64::from(*octet));
    if octets[0] == 0 || length < 0x80 {
        return Err(DerError::LengthForm);
    }
    Ok((usize::try_from(length).map_err(|_| DerError::Truncated)?, rest))
}

/// Writes one element: the tag octet, the length, and the parts one after the other.
#[must_use]
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let octets = length.to_be_bytes();
    let significant = &octets[octets.iter().take_while(|octet| **octet == 0).count()..];
    let mut out = Vec::with_capacity(2 + significant.len() + length);
    out.push(tag);
    if length < 0x80 {
        out.push(length.to_le_bytes()[0]);
    } else {
        out.push(0x80 | significant.len().to_le_bytes()[0]);
        out.extend_from_slice(significant);
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// An INTEGER from a magnitude (big-endian, leading zeros allowed).
#[must_use]
pub fn unsigned(magnitude: &[u8]) -> Vec<u8> {
    let zeros = magnitude.iter().take_while(|octet| **octet == 0).count();
    match &magnitude[zeros..] {
        [] => tlv(tag::INTEGER, &[&[0]]),
        shortest @ [0x80..=0xff, ..] => tlv(tag::INTEGER, &[&[0], shortest]),
        shortest => tlv(tag::INTEGER, &[shortest]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(der: &[u8]) -> DerError {
        Walker::new(der).any().unwrap_err()
    }

    #[test]
    fn keeps_the_bytes_of_every_element() {
        let der = [0x30, 0x05, 0x02, 0x01, 0x07, 0x05, 0x00];
        let outer = Walker::single(&der, tag::SEQUENCE).unwrap();
        assert_eq!(outer.whole, der);
        let mut inside = outer.inside().unwrap();
        let number = inside.element(tag::INTEGER).unwrap();
        assert_eq!(number.whole, [0x02, 0x01, 0x07]);
        assert_eq!(number.small(), Ok(7));
        assert_eq!(inside.end(), Err(DerError::Trailing));
        assert_eq!(inside.optional(tag::SET), Ok(None));
        assert_eq!(inside.element(tag::SET), Err(DerError::UnexpectedTag));
        assert!(inside.optional(tag::NULL).unwrap().is_some());
        inside.end().unwrap();
    }

    #[test]
    fn each_bad_header_has_its_name() {
        assert_eq!(refusal(&[]), DerError::Truncated);
        assert_eq!(refusal(&[0x30]), DerError::Truncated);
        assert_eq!(refusal(&[0x30, 0x01]), DerError::Truncated);
        assert_eq!(refusal(&[0x30, 0x82, 0x01]), DerError::Truncated);
        assert_eq!(refusal(&[0x3f, 0x81, 0x01, 0x00]), DerError::LongTag);
        assert_eq!(refusal(&[0x30, 0x80, 0x00, 0x00]), DerError::IndefiniteLength);
        assert_eq!(refusal(&[0x30, 0x81, 0x01, 0x05]), DerError::LengthForm);
        assert_eq!(refusal(&[0x30, 0x85, 1, 0, 0, 0, 0]), DerError::LengthForm);
        let long = [&[0x04, 0x82, 0x00, 0x80][..], &[0; 128]].concat();
        assert_eq!(refusal(&long), DerError::LengthForm);
        assert_eq!(Walker::single(&[5, 0, 5, 0], tag::NULL).unwrap_err(), DerError::Trailing);
        let primitive = Walker::single(&[4, 0], tag::OCTET_STRING).unwrap();
        assert_eq!(primitive.inside().unwrap_err(), DerError::UnexpectedTag);
    }

    #[test]
    fn depth_is_bounded() {
        let mut der = vec![tag::NULL, 0];
        for _ in 0..=DEPTH_MAX {
            der = tlv(tag::SEQUENCE, &[&der]);
        }
        let mut element = Walker::single(&der, tag::SEQUENCE).unwrap();
        for _ in 0..DEPTH_MAX {
            element = element.inside().unwrap().any().unwrap();
        }
        assert_eq!(element.inside().unwrap_err(), DerError::TooDeep);
    }

    #[test]
    fn values_have_one_form() {
        let of = |der: &'static [u8]| Walker::new(der).any().unwrap();
        assert_eq!(of(&[2, 2, 0, 0x80]).unsigned(), Ok(&[0x80][..]));
        assert_eq!(of(&[2, 1, 0]).unsigned(), Ok(&[0][..]));
        for bad in [&[2, 0][..], &[2, 1, 0x80], &[2, 2, 0, 0x7f], &[2, 2, 0, 0]] {
            assert_eq!(Walker::new(bad).any().unwrap().unsigned(), Err(DerError::Value), "{bad:?}");
        }
        assert_eq!(of(&[2, 2, 1, 0]).small(), Err(DerError::Value));
        assert_eq!(of(&[1, 1, 0xff]).boolean(), Ok(true));
        assert_eq!(of(&[1, 1, 1]).boolean(), Err(DerError::Value));
        assert_eq!(of(&[3, 2, 1, 0]).octets_of_bits(), Err(DerError::Value));
        assert_eq!(of(&[3, 0]).octets_of_bits(), Err(DerError::Value));
        for magnitude in [&[][..], &[0, 0], &[0x7f], &[0x80], &[0, 1, 2]] {
            let written = unsigned(magnitude);
            let read = Walker::single(&written, tag::INTEGER).unwrap().unsigned().unwrap();
            let value = |octets: &[u8]| octets.iter().fold(0_u64, |v, o| v << 8 | u64::from(*o));
            assert_eq!(value(read), value(magnitude));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let der = tlv(tag::OCTET_STRING, &[&content]);
            prop_assert_eq!(Walker::single(&der, tag::OCTET_STRING).unwrap().content, &content[..]);
        }

        #[test]
        fn total_on_arbitrary_bytes(der in prop::collection::vec(any::<u8>(), 0..300)) {
            fn walk(mut walker: Walker<'_>) {
                while let Ok(element) = walker.any() {
                    let again = tlv(element.tag, &[element.content]);
                    assert_eq!(again, element.whole, "one form only");
                    let _ = (element.unsigned(), element.boolean(), element.octets_of_bits());
                    if let Ok(inside) = element.inside() {
                        walk(inside);
                    }
                }
            }
            walk(Walker::new(&der));
        }
    }
}
