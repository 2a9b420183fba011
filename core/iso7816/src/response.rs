use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use crate::Status;

/// A response APDU: data and a status word. The data are wiped when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The data.
    pub data: Zeroizing<Vec<u8>>,
    /// The status word.
    pub status: Status,
}

impl Response {
    /// Done, with data.
    #[must_use]
    pub fn ok(data: Vec<u8>) -> Self {
        Self { data: Zeroizing::new(data), status: Status::OK }
    }

    /// Reads what a card answered; `None` for less than a status word.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (data, status) = bytes.split_last_chunk::<2>()?;
        let status = Status::new(u16::from_be_bytes(*status));
        Some(Self { data: Zeroizing::new(data.to_vec()), status })
    }

    /// The bytes of the APDU.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.data, &self.status.word().to_be_bytes()[..]].concat()
    }
}

/// A status word alone.
impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self { data: Zeroizing::default(), status }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({} bytes, {})", self.data.len(), self.status)
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::vec;

    use super::*;

    #[test]
    fn a_response_is_data_and_a_status_word() {
        let response = Response::ok(vec![1, 2]);
        assert_eq!(response.encode(), [1, 2, 0x90, 0]);
        assert_eq!(Response::parse(&[1, 2, 0x90, 0]), Some(response.clone()));
        assert_eq!(Response::parse(&[0x69, 0x85]), Some(Status::CONDITIONS.into()));
        assert_eq!(format!("{response:?}"), "Response(2 bytes, 9000)");
        for short in [&[][..], &[0x90]] {
            assert_eq!(Response::parse(short), None);
        }
    }
}
