//! Writing and reading the parts of messages, every length bounded.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::{REMOTE_LEN_MAX, REMOTE_TEXT_MAX, RemoteText};
use crate::PlainData;
use crate::message::MessageError;

/// A message in the making. At its final size from the start: growing would leave copies behind.
pub(super) struct Output(Zeroizing<Vec<u8>>);

impl Output {
    pub(super) fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(REMOTE_LEN_MAX)))
    }

    pub(super) fn finish(self) -> Zeroizing<Vec<u8>> {
        debug_assert!(self.0.len() <= REMOTE_LEN_MAX);
        self.0
    }

    pub(super) fn byte(&mut self, byte: u8) -> &mut Self {
        self.0.push(byte);
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Behind a u16 length.
    pub(super) fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        let len = u16::try_from(bytes.len()).expect("no field is longer than a message");
        self.bytes(&len.to_be_bytes()).bytes(bytes)
    }

    /// Behind a u8 length.
    pub(super) fn text(&mut self, text: &RemoteText) -> &mut Self {
        let text = text.as_str().as_bytes();
        let len = u8::try_from(text.len()).expect("REMOTE_TEXT_MAX bytes at most");
        self.byte(len).bytes(text)
    }

    /// Behind a u8 count.
    pub(super) fn list<T>(&mut self, items: &[T], max: usize, item: impl Fn(&mut Self, &T)) {
        assert!(items.len() <= max, "a list is longer than its cap");
        self.byte(u8::try_from(items.len()).expect("every cap fits"));
        items.iter().for_each(|one| item(self, one));
    }

    pub(super) fn plain(&mut self, data: &PlainData) -> &mut Self {
        data.write_to(&mut self.0);
        self
    }
}

/// What is left of a received message.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Result<Self, MessageError> {
        if bytes.len() > REMOTE_LEN_MAX {
            return Err(MessageError::TooLong(bytes.len()));
        }
        Ok(Self(bytes))
    }

    pub(super) const fn end(&self) -> Result<(), MessageError> {
        if self.0.is_empty() { Ok(()) } else { Err(MessageError::Trailing) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(MessageError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        self.take(N)?.try_into().map_err(|_| MessageError::Truncated)
    }

    pub(super) fn byte(&mut self) -> Result<u8, MessageError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, MessageError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, MessageError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn sized(&mut self) -> Result<&'a [u8], MessageError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    pub(super) fn text(&mut self) -> Result<RemoteText, MessageError> {
        let len = usize::from(self.byte()?);
        if len > REMOTE_TEXT_MAX {
            return Err(MessageError::Malformed);
        }
        let text = core::str::from_utf8(self.take(len)?).map_err(|_| MessageError::Malformed)?;
        RemoteText::new(text).ok_or(MessageError::Malformed)
    }

    pub(super) fn list<T>(
        &mut self,
        max: usize,
        item: impl Fn(&mut Self) -> Result<T, MessageError>,
    ) -> Result<Vec<T>, MessageError> {
        let count = usize::from(self.byte()?);
        if count > max {
            return Err(MessageError::Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }

    pub(super) fn plain(&mut self) -> Result<PlainData, MessageError> {
        let (data, rest) = PlainData::read_from(self.0).ok_or(MessageError::Malformed)?;
        self.0 = rest;
        Ok(data)
    }
}
