//! The vectors of the messages: each with its bound, checked before anything is allocated.

use core::fmt;

use tls_codec::{DeserializeBytes, Error, SerializeBytes, Size};
use zeroize::Zeroizing;

/// At most `MAX` bytes behind a u16 length, wiped when they are dropped: part of an APDU, which may
/// hold a PIN.
#[derive(Clone, PartialEq, Eq)]
pub struct Wiped<const MAX: usize>(Zeroizing<Vec<u8>>);

impl<const MAX: usize> Wiped<MAX> {
    /// A copy of `bytes`, or `None` if there are more than `MAX`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        const { assert!(MAX <= u16::MAX as usize) };
        (bytes.len() <= MAX).then(|| Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// How many bytes, and none of them.
impl<const MAX: usize> fmt::Debug for Wiped<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wiped({})", self.0.len())
    }
}

impl<const MAX: usize> Size for Wiped<MAX> {
    fn tls_serialized_len(&self) -> usize {
        2 + self.0.len()
    }
}

impl<const MAX: usize> SerializeBytes for Wiped<MAX> {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, Error> {
        let len = u16::try_from(self.0.len()).map_err(|_| Error::InvalidVectorLength)?;
        Ok([&len.to_be_bytes()[..], &self.0].concat())
    }
}

impl<const MAX: usize> DeserializeBytes for Wiped<MAX> {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(Error::EndOfStream)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > MAX {
            return Err(Error::InvalidVectorLength);
        }
        let (data, rest) = rest.split_at_checked(len).ok_or(Error::EndOfStream)?;
        Ok((Self(Zeroizing::new(data.to_vec())), rest))
    }
}

/// At most `MAX` bytes of UTF-8 behind a length of one byte: what a person reads. Without control
/// characters, also those that turn the direction of writing: what is shown is what is there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// The text, or `None` if it is too long or has control characters.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        const { assert!(MAX <= u8::MAX as usize) };
        let turns = |c| {
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}')
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
        };
        let fits = text.len() <= MAX && !text.chars().any(|c| c.is_control() || turns(c));
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Size for Text<MAX> {
    fn tls_serialized_len(&self) -> usize {
        1 + self.0.len()
    }
}

impl<const MAX: usize> SerializeBytes for Text<MAX> {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, Error> {
        let len = u8::try_from(self.0.len()).map_err(|_| Error::InvalidVectorLength)?;
        Ok([&[len][..], self.0.as_bytes()].concat())
    }
}

impl<const MAX: usize> DeserializeBytes for Text<MAX> {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (&len, rest) = bytes.split_first().ok_or(Error::EndOfStream)?;
        let (text, rest) = rest.split_at_checked(usize::from(len)).ok_or(Error::EndOfStream)?;
        let text = core::str::from_utf8(text).map_err(|_| Error::InvalidInput)?;
        Ok((Self::new(text).ok_or(Error::InvalidInput)?, rest))
    }
}

/// Zeros up to the end of a message, so that its length says little about its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding(usize);

impl Padding {
    /// What brings `len` bytes to the next multiple of `step`.
    pub(crate) const fn after(len: usize, step: usize) -> Self {
        Self((step - len % step) % step)
    }
}

impl Size for Padding {
    fn tls_serialized_len(&self) -> usize {
        self.0
    }
}

impl SerializeBytes for Padding {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, Error> {
        Ok(vec![0; self.0])
    }
}

impl DeserializeBytes for Padding {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(Error::InvalidInput);
        }
        Ok((Self(bytes.len()), &[]))
    }
}
