//! The messages between a device and the relay.
//!
//! TLS presentation style: one type byte, fixed fields, vectors behind a length with a bound;
//! trailing bytes are an error, and everything has one encoding.

use countersign_injection::{Bounded, Name};
use thiserror::Error;
use tls_codec::{
    DeserializeBytes, Error as CodecError, SerializeBytes, TlsDeserializeBytes, TlsSerializeBytes,
    TlsSize,
};

use super::{PIECE_MAX, WINDOW};

/// Most bytes of an encoded message; longer input is refused unread.
pub const MESSAGE_LEN_MAX: usize = PIECE_MAX + 16;
/// Most bytes of a device's serial number, the id in its certificate.
pub const SERIAL_MAX: usize = 64;
/// Most bytes of an alarm's id.
pub const ALARM_ID_MAX: usize = 41;
/// Most bytes of a check's name.
pub const CHECK_NAME_MAX: usize = 64;
/// Most bytes of a gateway's address, `host:port`.
pub const ADDRESS_MAX: usize = 255;

/// A device's serial number.
pub type Serial = Name<SERIAL_MAX>;
/// An alarm's id, drawn by its manager.
pub type AlarmId = Name<ALARM_ID_MAX>;
/// The stable name of a check.
pub type CheckName = Name<CHECK_NAME_MAX>;
/// Where a gateway is reached.
pub type Address = Name<ADDRESS_MAX>;
/// A meeting's number, which the server gives; both devices know it by the same one.
pub type MeetingId = u32;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Longer than [`MESSAGE_LEN_MAX`].
    #[error("message of {0} bytes is too long")]
    TooLong(usize),
    /// A type (or enumerated field) that this version does not know.
    #[error("unknown message type or value {0:#04x}")]
    UnknownType(u64),
    /// Ends too early.
    #[error("message is cut short")]
    Truncated,
    /// Bytes follow the message.
    #[error("bytes follow the message")]
    Trailing,
    /// A field has an impossible value or length.
    #[error("message has an impossible field")]
    Malformed,
}

impl From<CodecError> for MessageError {
    fn from(error: CodecError) -> Self {
        match error {
            CodecError::EndOfStream => Self::Truncated,
            CodecError::TrailingData => Self::Trailing,
            CodecError::UnknownValue(value) => Self::UnknownType(value),
            _ => Self::Malformed,
        }
    }
}

/// Bytes of a meeting, as one device gave them. A stream: pieces may be joined and cut on the way.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Piece {
    /// Which meeting.
    pub meeting: MeetingId,
    /// At least one byte.
    pub bytes: Bounded<PIECE_MAX>,
}

/// So many bytes were taken, and so many more may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Credited {
    /// Which meeting.
    pub meeting: MeetingId,
    /// 1 to [`WINDOW`].
    pub bytes: u32,
}

/// Why a meeting ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum CloseReason {
    /// A device closed it.
    Done = 1,
    /// The other device has gone, or its connection has.
    PeerGone = 2,
    /// The sleeve came again: its newer meeting takes the place of this one.
    Replaced = 3,
    /// The other device may not be served any more.
    PeerDismissed = 4,
    /// The manager has no place for it.
    Busy = 5,
}

impl CloseReason {
    /// Stable name, for logs and people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::PeerGone => "peer-gone",
            Self::Replaced => "replaced",
            Self::PeerDismissed => "peer-dismissed",
            Self::Busy => "busy",
        }
    }
}

/// The end of a meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Closed {
    /// Which.
    pub meeting: MeetingId,
    /// Why.
    pub reason: CloseReason,
}

/// Someone logged in under duress (A5).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Alarm {
    /// Drawn once by the manager: raising it again changes nothing.
    pub id: AlarmId,
    /// The sleeve.
    pub sleeve: Serial,
    /// The manager's number of the session.
    pub session: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// Device to server.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum DeviceMessage {
    /// A manager may be met here from now on.
    #[tls_codec(discriminant = 1)]
    Register,
    /// A sleeve wants to meet the manager with this serial number.
    #[tls_codec(discriminant = 2)]
    Meet(Serial),
    /// Bytes for the other device.
    #[tls_codec(discriminant = 3)]
    Data(Piece),
    /// Bytes of the other device were taken.
    #[tls_codec(discriminant = 4)]
    Credit(Credited),
    /// The meeting is over for this device.
    #[tls_codec(discriminant = 5)]
    Close(Closed),
    /// An alarm, from a manager.
    #[tls_codec(discriminant = 6)]
    Alarm(Alarm),
}

/// A meeting has begun.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Met {
    /// Its number.
    pub meeting: MeetingId,
    /// The other device's serial number, as the server authenticated it.
    pub peer: Serial,
}

/// The server does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct RelayRefusal {
    /// The failed check's public name.
    pub check: CheckName,
    /// After how many seconds asking again may help; 0 if it will not.
    pub retry_after: u32,
}

/// Server to device.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum RelayMessage {
    /// The manager may be met; meetings have this window in bytes.
    #[tls_codec(discriminant = 0x81)]
    Registered(u32),
    /// A meeting has begun.
    #[tls_codec(discriminant = 0x82)]
    Met(Met),
    /// Bytes of the other device.
    #[tls_codec(discriminant = 0x83)]
    Data(Piece),
    /// So much more may be sent.
    #[tls_codec(discriminant = 0x84)]
    Credit(Credited),
    /// The meeting is over.
    #[tls_codec(discriminant = 0x85)]
    Close(Closed),
    /// The manager is at another server: meet it there.
    #[tls_codec(discriminant = 0x86)]
    Elsewhere(Address),
    /// No.
    #[tls_codec(discriminant = 0x87)]
    Refused(RelayRefusal),
    /// The alarm is on record.
    #[tls_codec(discriminant = 0x88)]
    AlarmTaken(AlarmId),
}

impl DeviceMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Meet(_) => "meet",
            Self::Data(_) => "data",
            Self::Credit(_) => "credit",
            Self::Close(_) => "close",
            Self::Alarm(_) => "alarm",
        }
    }

    /// Encodes.
    ///
    /// # Panics
    /// Never: every field has a bound that fits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.tls_serialize_bytes().expect("every field has a bound that fits")
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        let sound = match &message {
            Self::Meet(manager) => !manager.is_empty(),
            Self::Data(piece) => !piece.bytes.as_slice().is_empty(),
            Self::Credit(credited) => (1..=WINDOW).contains(&credited.bytes),
            Self::Alarm(alarm) => !alarm.id.is_empty() && !alarm.sleeve.is_empty(),
            Self::Register | Self::Close(_) => true,
        };
        if sound { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

impl RelayMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Registered(_) => "registered",
            Self::Met(_) => "met",
            Self::Data(_) => "data",
            Self::Credit(_) => "credit",
            Self::Close(_) => "close",
            Self::Elsewhere(_) => "elsewhere",
            Self::Refused(_) => "refused",
            Self::AlarmTaken(_) => "alarm taken",
        }
    }

    /// A refusal.
    #[must_use]
    pub fn refused(check: &str, retry_after: u32) -> Self {
        Self::Refused(RelayRefusal { check: CheckName::clipped(check), retry_after })
    }

    /// Encodes.
    ///
    /// # Panics
    /// Never: every field has a bound that fits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.tls_serialize_bytes().expect("every field has a bound that fits")
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        let sound = match &message {
            Self::Registered(window) => *window == WINDOW,
            Self::Met(met) => !met.peer.is_empty(),
            Self::Data(piece) => !piece.bytes.as_slice().is_empty(),
            Self::Credit(credited) => (1..=WINDOW).contains(&credited.bytes),
            Self::Elsewhere(address) => !address.is_empty(),
            Self::Refused(refusal) => !refusal.check.is_empty(),
            Self::AlarmTaken(id) => !id.is_empty(),
            Self::Close(_) => true,
        };
        if sound { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

fn check_len(bytes: &[u8]) -> Result<(), MessageError> {
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
