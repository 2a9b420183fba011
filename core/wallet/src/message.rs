//! What sleeve and manager say to each other inside their channel (A4, A6, A8).
//!
//! TLS presentation style: one type byte, fixed fields, vectors behind a length with a bound;
//! trailing bytes are an error, and everything has one encoding. What depends on a password, or on
//! which cards there are, has a fixed length or one padded to steps of [`STEP`].

use core::fmt;

use countersign_iso7816::COMMAND_MAX;
use thiserror::Error;
use tls_codec::{
    DeserializeBytes, Error as CodecError, SerializeBytes, Size, TlsDeserializeBytes,
    TlsSerializeBytes, TlsSize,
};
use zeroize::Zeroizing;

use countersign_injection::{Bounded, Name};

use crate::login::PaddedPassword;
use crate::wire::{Padding, Text, Wiped};

/// Most bytes of an encoded message, which is one record; longer input is refused unread.
pub const MESSAGE_LEN_MAX: usize = 16 * 1024;
/// Most bytes of an APDU in one message; a longer one goes in pieces.
pub const PIECE_MAX: usize = 8 * 1024;
/// Most bytes of a command or response APDU: the longest command there is.
pub const APDU_MAX: usize = COMMAND_MAX;
/// Most bytes of an answer to reset (ISO/IEC 7816-3, 8.2.1: TS and 32 characters).
pub const ATR_MAX: usize = 33;
/// Most bytes of a card's id.
pub const CARD_ID_MAX: usize = 40;
/// Most bytes of a card's label, UTF-8.
pub const LABEL_MAX: usize = 64;
/// Most cards of a manager.
pub const CARDS_MAX: usize = 64;
/// Most bytes of a check's name.
pub const CHECK_NAME_MAX: usize = 64;
/// [`Cards`] and [`Taken`] are padded to a multiple of so many bytes.
pub const STEP: usize = 512;
/// Bytes of every [`ManagerMessage::LoginResult`].
pub const LOGIN_RESULT_LEN: usize = 6;

/// A card's id at its manager.
pub type CardId = Name<CARD_ID_MAX>;
/// The stable name of a check.
pub type CheckName = Name<CHECK_NAME_MAX>;
/// What a card is called.
pub type Label = Text<LABEL_MAX>;
/// An answer to reset.
pub type Atr = Bounded<ATR_MAX>;

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

/// Part of a command or response APDU. The pieces of one come in order and without gap, none is
/// empty, and all but the last are full.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Piece {
    /// Of which request; the response's are the command's.
    pub number: u32,
    /// Bytes of the whole APDU, at most [`APDU_MAX`].
    pub total: u32,
    /// How many of them went before.
    pub offset: u32,
    /// Those of this piece.
    pub data: Wiped<PIECE_MAX>,
}

impl Piece {
    /// The pieces of an APDU; none for one that is empty or longer than [`APDU_MAX`].
    pub(crate) fn cut(number: u32, apdu: &[u8]) -> Vec<Self> {
        let total = u32::try_from(apdu.len()).ok().filter(|_| apdu.len() <= APDU_MAX);
        let Some(total) = total else { return Vec::new() };
        let pieces = apdu.chunks(PIECE_MAX).enumerate().map(|(index, data)| Self {
            number,
            total,
            offset: (index * PIECE_MAX) as u32,
            data: Wiped::new(data).expect("a chunk is no longer than its bound"),
        });
        pieces.collect()
    }

    /// Whether what it says of itself can be.
    fn is_sound(&self) -> bool {
        let (total, offset) = (self.total as usize, self.offset as usize);
        let left = total.checked_sub(offset).filter(|left| *left > 0);
        let fits = left.is_some_and(|left| self.data.as_slice().len() == left.min(PIECE_MAX));
        total <= APDU_MAX && offset.is_multiple_of(PIECE_MAX) && fits
    }

    /// In a buffer that is wiped, with nothing left behind where it was made.
    fn encode(&self, kind: u8) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(1 + self.tls_serialized_len()));
        out.push(kind);
        for word in [self.number, self.total, self.offset] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let data = self.data.as_slice();
        out.extend_from_slice(&(data.len() as u16).to_be_bytes());
        out.extend_from_slice(data);
        out
    }
}

/// Joins the pieces of one APDU.
pub(crate) struct Joiner {
    number: u32,
    total: u32,
    joined: Zeroizing<Vec<u8>>,
}

/// How far it is, and none of it.
impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Joiner({}, {} of {})", self.number, self.joined.len(), self.total)
    }
}

/// What a piece led to.
pub(crate) enum Joined {
    /// More must come.
    More(Joiner),
    /// The whole APDU.
    Whole(Zeroizing<Vec<u8>>),
}

impl Joiner {
    /// Begins with the first piece, or goes on; `None` if the piece does not belong there.
    pub(crate) fn take(before: Option<Self>, piece: &Piece) -> Option<Joined> {
        let mut joiner = before.unwrap_or_else(|| Self {
            number: piece.number,
            total: piece.total,
            // To its whole size, at most [`APDU_MAX`]: growing would leave copies.
            joined: Zeroizing::new(Vec::with_capacity(piece.total as usize)),
        });
        let same = (joiner.number, joiner.total) == (piece.number, piece.total);
        if !same || joiner.joined.len() != piece.offset as usize {
            return None;
        }
        joiner.joined.extend_from_slice(piece.data.as_slice());
        Some(if joiner.joined.len() == joiner.total as usize {
            Joined::Whole(joiner.joined)
        } else {
            Joined::More(joiner)
        })
    }

    pub(crate) const fn number(&self) -> u32 {
        self.number
    }
}

/// Asks for a card.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Take {
    /// Which request.
    pub number: u32,
    /// Which card.
    pub card: CardId,
}

/// The times of sleep mode (A6), in milliseconds, neither of them zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Times {
    /// *t1*: how often a probe is sent.
    pub every: u32,
    /// *t2*: how long the answer may take.
    pub within: u32,
}

/// A terminal measured, or could have measured, that the card is not where it seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct DistanceCheckFails {
    /// How long the exchange took at the sleeve, in units of 100 µs.
    pub measured: u32,
    /// The longest time that the card says it takes, in units of 100 µs.
    pub maximum: u16,
}

/// Sleeve to manager.
#[derive(Debug, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum SleeveMessage {
    /// Asks to be let in (A4); 129 bytes, whatever the password.
    #[tls_codec(discriminant = 1)]
    Login(PaddedPassword),
    /// Asks which cards there are; the number of the request.
    #[tls_codec(discriminant = 2)]
    List(u32),
    /// Asks for a card.
    #[tls_codec(discriminant = 3)]
    Take(Take),
    /// A piece of a command to the card.
    #[tls_codec(discriminant = 4)]
    Apdu(Piece),
    /// Gives the card back; the number of the request.
    #[tls_codec(discriminant = 5)]
    Release(u32),
    /// Asks for an answer at once, to measure how long it takes; the number of the request.
    #[tls_codec(discriminant = 6)]
    Probe(u32),
    /// Sleep mode begins: probes of the channel follow (A6).
    #[tls_codec(discriminant = 7)]
    Sleep(Times),
    /// Sleep mode is over.
    #[tls_codec(discriminant = 8)]
    Awake,
    /// Asks to reset the card: the terminal did; the number of the request.
    #[tls_codec(discriminant = 9)]
    Reset(u32),
    /// Tells that a distance check cannot have been met. Nothing answers it.
    #[tls_codec(discriminant = 10)]
    Distance(DistanceCheckFails),
}

/// How a login went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum LoginOutcome {
    /// In, by either password.
    Ok = 1,
    /// The password is wrong.
    Refused = 2,
    /// Too many were wrong; the password was not looked at.
    Locked = 3,
    /// The password is right, and who is at the manager said no.
    Declined = 4,
}

/// The answer to a login: always [`LOGIN_RESULT_LEN`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct LoginResult {
    /// How it went.
    pub outcome: LoginOutcome,
    /// How long to wait before the next try, in seconds; 0 unless refused or locked.
    pub seconds: u32,
}

/// One card of a list.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct CardLine {
    /// Its id.
    pub card: CardId,
    /// What it is called.
    pub label: Label,
    state: u8,
}

/// Bit of [`CardLine`]: the card is in its reader.
const PRESENT: u8 = 1;
/// Bit of [`CardLine`]: another sleeve has it.
const LENT: u8 = 2;

impl CardLine {
    /// A line.
    #[must_use]
    pub fn new(card: CardId, label: Label, present: bool, lent: bool) -> Self {
        let present = if present { PRESENT } else { 0 };
        Self { card, label, state: present | if lent { LENT } else { 0 } }
    }

    /// The card is in its reader.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.state & PRESENT != 0
    }

    /// Another sleeve has it.
    #[must_use]
    pub const fn is_lent(&self) -> bool {
        self.state & LENT != 0
    }
}

/// The cards of this session, padded to a multiple of [`STEP`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Cards {
    /// Of which request.
    pub number: u32,
    lines: Vec<CardLine>,
    padding: Padding,
}

impl Cards {
    /// The message; `None` for more than [`CARDS_MAX`] cards.
    #[must_use]
    pub fn new(number: u32, lines: Vec<CardLine>) -> Option<Self> {
        let len = 1 + number.tls_serialized_len() + lines.tls_serialized_len();
        let padding = Padding::after(len, STEP);
        (lines.len() <= CARDS_MAX).then_some(Self { number, lines, padding })
    }

    /// The cards.
    #[must_use]
    pub fn lines(&self) -> &[CardLine] {
        &self.lines
    }
}

/// What a card may be used for in a session. The highest number of its kind means without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Limits {
    /// Uses that are left.
    pub uses: u32,
    /// Most of one payment, in minor units of the currency.
    pub payment: u64,
    /// The currency, ISO 4217's number; 0 without an amount limit.
    pub currency: u16,
}

impl Limits {
    /// Without limit.
    pub const NONE: Self = Self { uses: u32::MAX, payment: u64::MAX, currency: 0 };
}

/// The card is the sleeve's until then. Padded to a multiple of [`STEP`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Taken {
    /// Of which request.
    pub number: u32,
    /// The lease.
    pub lease: u64,
    /// When it ends unless the card is used before, in seconds from now.
    pub seconds: u32,
    /// The card's answer to reset.
    pub atr: Atr,
    /// What it is called.
    pub label: Label,
    /// What it may be used for.
    pub limits: Limits,
    padding: Padding,
}

impl Taken {
    /// The message.
    #[must_use]
    pub fn new(
        number: u32,
        lease: u64,
        seconds: u32,
        (atr, label): (Atr, Label),
        limits: Limits,
    ) -> Self {
        let padding = Padding::after(0, STEP);
        let mut taken = Self { number, lease, seconds, atr, label, limits, padding };
        taken.padding = Padding::after(1 + taken.tls_serialized_len(), STEP);
        taken
    }
}

/// No: the answer to the request of this number.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Refused {
    /// Of which request.
    pub number: u32,
    /// The failed check's name.
    pub check: CheckName,
}

/// A lease is over; the card is gone for this sleeve.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct LeaseEnded {
    /// Which lease.
    pub lease: u64,
    /// Why.
    pub check: CheckName,
}

/// The card was reset.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct ResetDone {
    /// Of which request.
    pub number: u32,
    /// Its answer to reset.
    pub atr: Atr,
}

/// Manager to sleeve.
#[derive(Debug, Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
#[repr(u8)]
pub enum ManagerMessage {
    /// The answer to a login.
    #[tls_codec(discriminant = 0x81)]
    LoginResult(LoginResult),
    /// The cards of this session.
    #[tls_codec(discriminant = 0x82)]
    Cards(Cards),
    /// The card is the sleeve's.
    #[tls_codec(discriminant = 0x83)]
    Taken(Taken),
    /// A piece of the card's response.
    #[tls_codec(discriminant = 0x84)]
    ApduResult(Piece),
    /// The card is given back; the number of the request.
    #[tls_codec(discriminant = 0x85)]
    Released(u32),
    /// The answer to a probe; its number.
    #[tls_codec(discriminant = 0x86)]
    ProbeResult(u32),
    /// No.
    #[tls_codec(discriminant = 0x87)]
    Refused(Refused),
    /// A lease is over. No request's answer: a request that waits has its own.
    #[tls_codec(discriminant = 0x88)]
    LeaseEnded(LeaseEnded),
    /// The session is over, and why: revoked, too many wrong logins, nothing said in time.
    #[tls_codec(discriminant = 0x89)]
    Ended(CheckName),
    /// The card was reset.
    #[tls_codec(discriminant = 0x8a)]
    ResetDone(ResetDone),
}

impl SleeveMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Login(_) => "login",
            Self::List(_) => "list",
            Self::Take(_) => "take",
            Self::Apdu(_) => "apdu",
            Self::Release(_) => "release",
            Self::Probe(_) => "probe",
            Self::Sleep(_) => "sleep",
            Self::Awake => "awake",
            Self::Reset(_) => "reset",
            Self::Distance(_) => "distance",
        }
    }

    /// Encodes, into a buffer that is wiped: there may be a password or a PIN in it.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Login(password) => password.encode(1),
            Self::Apdu(piece) => piece.encode(4),
            _ => Zeroizing::new(self.tls_serialize_bytes().expect("every field has its bound")),
        }
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        let sound = match &message {
            Self::Take(take) => !take.card.is_empty(),
            Self::Apdu(piece) => piece.is_sound(),
            Self::Sleep(times) => times.every > 0 && times.within > 0,
            Self::Distance(fails) => fails.measured > u32::from(fails.maximum),
            _ => true,
        };
        if sound { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

impl ManagerMessage {
    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::LoginResult(_) => "login result",
            Self::Cards(_) => "cards",
            Self::Taken(_) => "taken",
            Self::ApduResult(_) => "apdu result",
            Self::Released(_) => "released",
            Self::ProbeResult(_) => "probe result",
            Self::Refused(_) => "refused",
            Self::LeaseEnded(_) => "lease ended",
            Self::Ended(_) => "ended",
            Self::ResetDone(_) => "reset done",
        }
    }

    /// Encodes, into a buffer that is wiped: there may be a card's data in it.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::ApduResult(piece) => piece.encode(0x84),
            _ => Zeroizing::new(self.tls_serialize_bytes().expect("every field has its bound")),
        }
    }

    /// Decodes exactly one message.
    ///
    /// # Errors
    /// [`MessageError`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        check_len(bytes)?;
        let message = Self::tls_deserialize_exact_bytes(bytes)?;
        let waits = |outcome| matches!(outcome, LoginOutcome::Refused | LoginOutcome::Locked);
        let sound = match &message {
            Self::LoginResult(result) => result.seconds == 0 || waits(result.outcome),
            Self::Cards(cards) => {
                let known = cards.lines.iter().all(|line| line.state <= PRESENT | LENT);
                let named = cards.lines.iter().all(|line| !line.card.is_empty());
                let again = Cards::new(cards.number, cards.lines.clone());
                known && named && again.is_some_and(|again| again.padding == cards.padding)
            }
            Self::Taken(taken) => {
                let unpadded = bytes.len() - taken.padding.tls_serialized_len();
                taken.padding == Padding::after(unpadded, STEP)
            }
            Self::ApduResult(piece) => piece.is_sound(),
            Self::Refused(Refused { check, .. })
            | Self::LeaseEnded(LeaseEnded { check, .. })
            | Self::Ended(check) => !check.is_empty(),
            _ => true,
        };
        if sound { Ok(message) } else { Err(MessageError::Malformed) }
    }
}

const fn check_len(bytes: &[u8]) -> Result<(), MessageError> {
    if bytes.len() > MESSAGE_LEN_MAX {
        return Err(MessageError::TooLong(bytes.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
