//! The messages, inside the secure channel.
//!
//! TLS presentation style: one type byte, fixed fields, vectors behind a length with a bound;
//! trailing bytes are an error, and everything has one encoding. Tokens are DER as TR-34 has them,
//! byte for byte.

use alloc::format; // the codec derives name it
use alloc::vec::Vec;

use thiserror::Error;
use tls_codec::{
    DeserializeBytes, Error as CodecError, SerializeBytes, TlsDeserializeBytes, TlsSerializeBytes,
    TlsSize,
};

use crate::{Bounded, Name};

/// Most bytes of an encoded message, which is one record; longer input is refused unread.
pub const MESSAGE_LEN_MAX: usize = 16 * 1024;
/// Most bytes of a token. The longest carry a revocation list.
pub const TOKEN_LEN_MAX: usize = 12 * 1024;
/// Most bytes of a certificate.
pub const CERTIFICATE_LEN_MAX: usize = 3 * 1024;
/// Most bytes of `RT_KRD`.
pub const REQUEST_LEN_MAX: usize = 256;
/// Most bytes of an injection's id.
pub const INJECTION_ID_MAX: usize = 41;
/// Most bytes of a check's name.
pub const CHECK_NAME_MAX: usize = 64;
/// Most bytes of an incident id.
pub const INCIDENT_MAX: usize = 64;
/// Most bytes of the number of a revocation list, big-endian (RFC 5280 §5.2.3).
pub const CRL_NUMBER_MAX: usize = 20;
/// Bytes of a certificate's fingerprint: SHA-256.
pub const FINGERPRINT_LEN: usize = 32;
/// Fewest and most bytes of a key check value.
pub const KCV_LEN: core::ops::RangeInclusive<usize> = 2..=5;
/// Places for keys in a terminal, numbered from 0.
pub const SLOTS: u8 = 32;

/// A token of TR-34, DER.
pub type Token = Bounded<TOKEN_LEN_MAX>;
/// An injection's id.
pub type InjectionId = Name<INJECTION_ID_MAX>;
/// The stable name of a check.
pub type CheckName = Name<CHECK_NAME_MAX>;
/// An incident's id; empty if there is none.
pub type Incident = Name<INCIDENT_MAX>;
/// The number of a revocation list, big-endian; empty if none was seen.
pub type CrlNumber = Bounded<CRL_NUMBER_MAX>;
/// A key check value.
pub type CheckValue = Bounded<5>;
/// SHA-256 of a certificate's DER.
pub type Fingerprint = [u8; FINGERPRINT_LEN];

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

/// Asks for a token (E3).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct TokenRequest {
    /// `RT_KRD`, with a fresh nonce.
    pub request: Bounded<REQUEST_LEN_MAX>,
    /// The certificate of the KDH that the terminal is bound to.
    pub bound: Fingerprint,
    /// The newest revocation list of `CA_KDH` that the terminal has seen.
    pub crl_seen: CrlNumber,
}

/// A key was checked and stored beside the old one; it is not used before it is confirmed (E7).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Installed {
    /// Which injection.
    pub injection: InjectionId,
    /// Where the key lies, below [`SLOTS`].
    pub slot: u8,
    /// The key's check value, as the terminal computed it.
    pub kcv: CheckValue,
}

/// What a terminal refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum Refusing {
    /// `CT_KDH`, the binding.
    Binding = 1,
    /// `KT_KDH`, a key.
    Key = 2,
    /// `RBT_KDH` or `RBT_CA`, another KDH.
    Rebinding = 3,
    /// `UBT_KDH`, the end of the binding.
    Unbinding = 4,
}

/// The terminal refuses a token, and says why: the channel is authenticated, and the audit wants
/// the exact check (E6).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct TokenRefused {
    /// What is refused.
    pub what: Refusing,
    /// Of which injection, for a key; else empty.
    pub injection: InjectionId,
    /// The check that failed.
    pub check: CheckName,
}

/// Terminal to server.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum TerminalMessage {
    /// `CT_KRD`: asks to be bound (E2).
    #[tls_codec(discriminant = 1)]
    Bind(Token),
    /// Asks for a token.
    #[tls_codec(discriminant = 2)]
    TokenRequest(TokenRequest),
    /// A key waits for its confirmation.
    #[tls_codec(discriminant = 3)]
    Installed(Installed),
    /// A token is refused.
    #[tls_codec(discriminant = 4)]
    Refused(TokenRefused),
    /// The binding is gone.
    #[tls_codec(discriminant = 5)]
    Unbound,
}

/// A KDH to be bound to (E2).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Binding {
    /// `CT_KDH`, `RBT_KDH` or `RBT_CA`, with revocation lists.
    pub token: Token,
    /// The certificate of its `CA_KDH`: the terminal may know an older one only, and takes this one
    /// if it descends from the root that it was given at its enrolment.
    pub ca_kdh: Bounded<CERTIFICATE_LEN_MAX>,
}

/// A key for the terminal (E5).
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct KeyToken {
    /// Which injection.
    pub injection: InjectionId,
    /// Where the key belongs, below [`SLOTS`].
    pub slot: u8,
    /// `KT_KDH`, with its revocation list.
    pub token: Token,
}

/// The server does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Refusal {
    /// The failed check's public name.
    pub check: CheckName,
    /// 1 if asking again later may help.
    retry: u8,
    /// Where an operator finds the detail; empty if there is no more to say.
    pub incident: Incident,
}

impl Refusal {
    /// A refusal.
    #[must_use]
    pub fn new(check: CheckName, retry: bool, incident: Incident) -> Self {
        Self { check, retry: u8::from(retry), incident }
    }

    /// True if asking again later may help.
    #[must_use]
    pub const fn retry(&self) -> bool {
        self.retry != 0
    }
}

/// Server to terminal.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum ServerMessage {
    /// `CT_KDH`, with its revocation list (E2).
    #[tls_codec(discriminant = 0x81)]
    Bound(Binding),
    /// `KT_KDH`: a key.
    #[tls_codec(discriminant = 0x82)]
    KeyToken(KeyToken),
    /// `RBT_KDH`: another KDH, signed by the one the terminal is bound to.
    #[tls_codec(discriminant = 0x83)]
    Rebind(Binding),
    /// `UBT_KDH`: the end of the binding.
    #[tls_codec(discriminant = 0x84)]
    Unbind(Token),
    /// Nothing is waiting for this terminal.
    #[tls_codec(discriminant = 0x85)]
    Nothing,
    /// The check value is right and the key counts as installed: use it (E7).
    #[tls_codec(discriminant = 0x86)]
    Confirmed(InjectionId),
    /// What the terminal refused is on record.
    #[tls_codec(discriminant = 0x87)]
    Noted(Incident),
    /// No.
    #[tls_codec(discriminant = 0x88)]
    Refused(Refusal),
    /// `RBT_CA`: another KDH, signed by the terminal's `Sub_CA_KRD`, where the one that the
    /// terminal is bound to can sign no more.
    #[tls_codec(discriminant = 0x89)]
    RebindByCa(Binding),
}

impl TerminalMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bind(_) => "bind",
            Self::TokenRequest(_) => "token request",
            Self::Installed(_) => "installed",
            Self::Refused(_) => "refused",
            Self::Unbound => "unbound",
        }
    }

    /// Encodes.
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
            Self::Installed(Installed { injection, slot, kcv }) => {
                !injection.is_empty() && *slot < SLOTS && KCV_LEN.contains(&kcv.as_slice().len())
            }
            Self::Refused(refused) => {
                !refused.check.is_empty()
                    && refused.injection.is_empty() == (refused.what != Refusing::Key)
            }
            Self::TokenRequest(asked) => asked.crl_seen.as_slice().first() != Some(&0),
            Self::Bind(_) | Self::Unbound => true,
        };
        if sound { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

impl ServerMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Bound(_) => "bound",
            Self::KeyToken(_) => "key token",
            Self::Rebind(_) => "rebind",
            Self::Unbind(_) => "unbind",
            Self::Nothing => "nothing",
            Self::Confirmed(_) => "confirmed",
            Self::Noted(_) => "noted",
            Self::Refused(_) => "refused",
            Self::RebindByCa(_) => "rebind by the CA",
        }
    }

    /// Encodes.
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
            Self::KeyToken(key) => !key.injection.is_empty() && key.slot < SLOTS,
            Self::Confirmed(injection) => !injection.is_empty(),
            Self::Refused(refusal) => refusal.retry <= 1 && !refusal.check.is_empty(),
            _ => true,
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
