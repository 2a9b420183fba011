//! What reader and server say to each other inside the secure channel.
//!
//! Each message is the plaintext of exactly one record, so configuration and packets are each
//! encrypted in turn (C9). TLS presentation style: one type byte, fixed fields, length-prefixed
//! vectors with a cap; trailing bytes are an error. Over datagrams a message may come twice or not
//! at all; which ones are then said again is told where the flows are.

use alloc::format; // the codec derives name it
use alloc::vec::Vec;
use core::fmt;

use thiserror::Error;
use tls_codec::{
    DeserializeBytes, Error as CodecError, SerializeBytes, Size, TlsDeserializeBytes,
    TlsSerializeBytes, TlsSize,
};
use zeroize::Zeroizing;

use crate::pieces::cut;
use crate::{
    Challenge, Configuration, FINGERPRINT_LEN_MAX, PACKET_DATA_MAX, PACKETS_MAX, PHOTO_LEN, Packet,
    PlainData, Proof, ReadId, ShortText, TEXT_LEN,
};

/// Most bytes of an encoded message; longer input is refused unread.
pub const MESSAGE_LEN_MAX: usize = 4096;
/// Most bytes of a check's name in [`Refused`].
pub const CHECK_NAME_MAX: usize = 48;
/// Most bytes of an incident id in [`Refused`].
pub const INCIDENT_MAX: usize = 64;

/// Most bytes of an encoded [`Plaintext`].
pub(crate) const PLAINTEXT_LEN_MAX: usize = TEXT_LEN + PHOTO_LEN + 2 + FINGERPRINT_LEN_MAX + 1;

const _: () = assert!(PLAINTEXT_LEN_MAX <= PACKETS_MAX * PACKET_DATA_MAX);

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

/// Where the reader takes the encrypted data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum Source {
    /// From the card itself, after SAM and card have authenticated each other.
    Card = 1,
    /// From the reader's cache (C7): no authentication turn.
    Cache = 2,
}

/// Begins a read; carries the configuration as its own record (C9).
#[derive(Debug, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct ReadBegin {
    /// Unique per read, made by the reader.
    pub read_id: ReadId,
    /// The card's plaintext configuration (C6); the SAM needs it to decrypt.
    pub configuration: Configuration,
    /// Where the encrypted data come from.
    pub source: Source,
}

/// The card's side of the authentication.
#[derive(Debug, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct CardAnswer {
    /// The card's answer to the SAM's challenge.
    pub answer: Challenge,
    /// The card's own random number, which the SAM must answer.
    pub random: Challenge,
}

/// Why the reader gives a read up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum AbortReason {
    /// The card left the field.
    CardRemoved = 1,
    /// The card did not answer.
    CardTimeout = 2,
    /// The card refused a command.
    CardRefused = 3,
    /// The user or the program cancelled.
    Cancelled = 4,
    /// The server took too long.
    TimedOut = 5,
    /// The card that gave the data is not the one whose configuration was read.
    CardSwapped = 6,
}

/// Which packets of a card (C10), or which parts of a result, did not arrive: bit i stands for
/// number i. Names one at least, and none that cannot be.
#[derive(Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Missing(u8);

impl Missing {
    /// All that there may be: [`PACKETS_MAX`] numbers.
    pub const ALL: Self = Self(u8::MAX >> (u8::BITS as usize - PACKETS_MAX));

    /// From a bitmap; `None` if it is zero or has a bit for a number of [`PACKETS_MAX`] or more.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        if bits == 0 || bits & !Self::ALL.0 != 0 { None } else { Some(Self(bits)) }
    }

    /// The bitmap.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// True if number `index` is among them.
    #[must_use]
    pub const fn has(self, index: u8) -> bool {
        index < u8::BITS as u8 && self.0 & (1 << index) != 0
    }

    /// The highest number among them.
    #[must_use]
    pub const fn last(self) -> u8 {
        (u8::BITS - 1 - self.0.leading_zeros()) as u8
    }
}

impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Missing({:#06b})", self.0)
    }
}

const _: () = assert!(PACKETS_MAX >= 1 && PACKETS_MAX <= u8::BITS as usize);

/// Reader to server.
#[derive(Debug, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum ReaderMessage {
    /// Begins a read.
    #[tls_codec(discriminant = 1)]
    ReadBegin(ReadBegin),
    /// Answers [`ServerMessage::CardChallenge`].
    #[tls_codec(discriminant = 2)]
    CardAnswer(CardAnswer),
    /// One packet of encrypted data (C9).
    #[tls_codec(discriminant = 3)]
    Packet(Packet),
    /// Gives the read up.
    #[tls_codec(discriminant = 4)]
    Abort(AbortReason),
    /// Datagrams: these parts of the result have not come; all of them if none has.
    #[tls_codec(discriminant = 6)]
    ResendResult(Missing),
    /// Datagrams: the result is here whole, and the server may forget it.
    #[tls_codec(discriminant = 7)]
    Received,
}

/// The decrypted card data and what the reader may do with them.
#[derive(Debug)]
pub struct Plaintext {
    /// The data.
    pub data: PlainData,
    /// Policy C13: whether the reader may keep them in its plaintext cache. Off by default.
    pub cache_plaintext: bool,
}

/// The server ends the read without a result.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Refused {
    /// The failed check's stable public name.
    pub check: ShortText<CHECK_NAME_MAX>,
    /// 1 if trying again may help.
    retry: u8,
    /// Where an operator finds the detail; empty if there is no more to say.
    pub incident: ShortText<INCIDENT_MAX>,
}

impl Refused {
    /// A refusal.
    #[must_use]
    pub fn new(
        check: ShortText<CHECK_NAME_MAX>,
        retry: bool,
        incident: ShortText<INCIDENT_MAX>,
    ) -> Self {
        Self { check, retry: u8::from(retry), incident }
    }

    /// True if trying again may help.
    #[must_use]
    pub const fn retry(&self) -> bool {
        self.retry != 0
    }
}

/// Server to reader.
#[derive(Debug, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum ServerMessage {
    /// The SAM's challenge for the card.
    #[tls_codec(discriminant = 0x81)]
    CardChallenge(Challenge),
    /// The SAM's proof for the card; the card then gives its encrypted files.
    #[tls_codec(discriminant = 0x82)]
    SamProof(Proof),
    /// Send the packets now (data from the cache: no authentication turn).
    #[tls_codec(discriminant = 0x83)]
    SendPackets,
    /// The result.
    #[tls_codec(discriminant = 0x84)]
    Plaintext(Plaintext),
    /// No result.
    #[tls_codec(discriminant = 0x85)]
    Refused(Refused),
    /// Send exactly these packets again (C10).
    #[tls_codec(discriminant = 0x86)]
    Resend(Missing),
    /// Datagrams: a part of the encoded [`Plaintext`], cut as encrypted data are.
    #[tls_codec(discriminant = 0x87)]
    ResultPart(Packet),
}

impl Size for Plaintext {
    fn tls_serialized_len(&self) -> usize {
        self.data.encoded_len() + 1
    }
}

impl SerializeBytes for Plaintext {
    fn tls_serialize_bytes(&self) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::with_capacity(self.tls_serialized_len());
        self.write_to(&mut out);
        Ok(out)
    }
}

impl DeserializeBytes for Plaintext {
    fn tls_deserialize_bytes(bytes: &[u8]) -> Result<(Self, &[u8]), CodecError> {
        let (data, rest) = PlainData::read_from(bytes).ok_or(CodecError::InvalidInput)?;
        let (&flag, rest) = rest.split_first().ok_or(CodecError::EndOfStream)?;
        let cache_plaintext = match flag {
            0 => false,
            1 => true,
            _ => return Err(CodecError::InvalidInput),
        };
        Ok((Self { data, cache_plaintext }, rest))
    }
}

impl Plaintext {
    /// Cut into parts that fit a datagram each.
    pub(crate) fn parts(&self) -> Vec<Packet> {
        let mut whole = Zeroizing::new(Vec::with_capacity(self.tls_serialized_len()));
        self.write_to(&mut whole);
        cut(&whole)
    }

    /// From the parts put together again.
    pub(crate) fn from_whole(whole: &[u8]) -> Result<Self, MessageError> {
        Ok(Self::tls_deserialize_exact_bytes(whole)?)
    }

    fn write_to(&self, out: &mut Vec<u8>) {
        self.data.write_to(out);
        out.push(u8::from(self.cache_plaintext));
    }
}

impl ReaderMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ReadBegin(_) => "read begin",
            Self::CardAnswer(_) => "card answer",
            Self::Packet(_) => "packet",
            Self::Abort(_) => "abort",
            Self::ResendResult(_) => "resend result",
            Self::Received => "received",
        }
    }

    /// Encodes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.tls_serialize_bytes().expect("every field has a cap that fits"))
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        match &message {
            Self::ResendResult(missing) if Missing::new(missing.0).is_none() => {
                Err(MessageError::Malformed)
            }
            _ => Ok(message),
        }
    }
}

impl ServerMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CardChallenge(_) => "card challenge",
            Self::SamProof(_) => "sam proof",
            Self::SendPackets => "send packets",
            Self::Plaintext(_) => "plaintext",
            Self::Refused(_) => "refused",
            Self::Resend(_) => "resend",
            Self::ResultPart(_) => "result part",
        }
    }

    /// Encodes.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(self.tls_serialized_len()));
        // Personal data go straight into the wiped buffer: the derived code would leave copies.
        match self {
            Self::Plaintext(plaintext) => {
                out.push(TYPE_PLAINTEXT);
                plaintext.write_to(&mut out);
            }
            Self::ResultPart(part) => {
                let len = u16::try_from(part.data.len()).expect("at most PACKET_DATA_MAX");
                out.extend_from_slice(&[TYPE_RESULT_PART, part.index, part.total]);
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(part.data.as_slice());
            }
            _ => *out = self.tls_serialize_bytes().expect("every field has a cap that fits"),
        }
        out
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        match &message {
            Self::Refused(refused) if refused.retry > 1 => Err(MessageError::Malformed),
            Self::Resend(missing) if Missing::new(missing.0).is_none() => {
                Err(MessageError::Malformed)
            }
            _ => Ok(message),
        }
    }
}

const TYPE_PLAINTEXT: u8 = 0x84;
const TYPE_RESULT_PART: u8 = 0x87;

fn check_len(bytes: &[u8]) -> Result<(), MessageError> {
    if bytes.len() > MESSAGE_LEN_MAX { Err(MessageError::TooLong(bytes.len())) } else { Ok(()) }
}
