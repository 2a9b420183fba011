use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use tls_codec::{DeserializeBytes, Error, SerializeBytes, Size};

/// At most `MAX` bytes behind a u16 length. The bound is checked before anything is allocated.
#[derive(Clone, PartialEq, Eq)]
pub struct Bounded<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Bounded<MAX> {
    /// A copy of `bytes`, or `None` if there are more than `MAX`.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        const { assert!(MAX <= u16::MAX as usize) };
        (bytes.len() <= MAX).then(|| Self(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for Bounded<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bounded({})", self.0.len())
    }
}

impl<const MAX: usize> Size for Bounded<MAX> {
    fn tls_serialized_len(&self) -> usize {
        2 + self.0.len()
    }
}

impl<const MAX: usize> SerializeBytes for Bounded<MAX> {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, Error> {
        let len = u16::try_from(self.0.len()).map_err(|_| Error::InvalidVectorLength)?;
        Ok([&len.to_be_bytes()[..], &self.0].concat())
    }
}

impl<const MAX: usize> DeserializeBytes for Bounded<MAX> {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (len, rest) = bytes.split_first_chunk::<2>().ok_or(Error::EndOfStream)?;
        let len = usize::from(u16::from_be_bytes(*len));
        if len > MAX {
            return Err(Error::InvalidVectorLength);
        }
        let (data, rest) = rest.split_at_checked(len).ok_or(Error::EndOfStream)?;
        Ok((Self(data.to_vec()), rest))
    }
}

/// At most `MAX` bytes of visible ASCII behind a length of one byte: ids, names of checks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name<const MAX: usize>(String);

impl<const MAX: usize> Name<MAX> {
    /// The text, or `None` if it is too long or not visible ASCII.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        const { assert!(MAX <= u8::MAX as usize) };
        let fits = text.len() <= MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// As much of the text as fits, without what is not visible ASCII.
    #[must_use]
    pub fn clipped(text: &str) -> Self {
        Self(text.chars().filter(char::is_ascii_graphic).take(MAX).collect())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<const MAX: usize> fmt::Debug for Name<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<const MAX: usize> fmt::Display for Name<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> Size for Name<MAX> {
    fn tls_serialized_len(&self) -> usize {
        1 + self.0.len()
    }
}

impl<const MAX: usize> SerializeBytes for Name<MAX> {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, Error> {
        let len = u8::try_from(self.0.len()).map_err(|_| Error::InvalidVectorLength)?;
        Ok([&[len][..], self.0.as_bytes()].concat())
    }
}

impl<const MAX: usize> DeserializeBytes for Name<MAX> {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), Error> {
        let (&len, rest) = bytes.split_first().ok_or(Error::EndOfStream)?;
        let (text, rest) = rest.split_at_checked(usize::from(len)).ok_or(Error::EndOfStream)?;
        let text = core::str::from_utf8(text).map_err(|_| Error::InvalidInput)?;
        Ok((Self::new(text).ok_or(Error::InvalidInput)?, rest))
    }
}
