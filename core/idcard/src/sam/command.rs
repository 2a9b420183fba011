use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::Secret;
use zeroize::Zeroizing;

use super::{Status, Sw3, frame};
use crate::{
    CHALLENGE_LEN, CONFIGURATION_LEN, Challenge, Configuration, DN_LEN, FINGERPRINT_LEN_MAX,
    PHOTO_LEN, PlainData, TEXT_LEN,
};

/// Most bytes of encrypted data in one [`Command::EncryptedData`].
pub const CHUNK_MAX: usize = 1024;

const SAM_ID_LEN: usize = 16;
const FIND_LEN: usize = 4;
const SELECT_LEN: usize = 8;
/// Bytes of a card management number: IIN, SN, DN.
pub const CARD_NUMBER_LEN: usize = 4 + 8 + DN_LEN;

const _: () = assert!(2 + 2 + CHUNK_MAX <= frame::BODY_MAX);

/// A command to the module. `Debug` prints its name only.
#[derive(PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// `10 FF`: reset.
    Reset,
    /// `11 FF`: status (self-test).
    Status,
    /// `12 FF`: the module's id.
    SamId,
    /// `20 01`: find a card.
    Find,
    /// `20 02`: select the card found.
    Select,
    /// `30 01`: read text and photo.
    ReadTextPhoto,
    /// `30 10`: read text, photo and fingerprint.
    ReadTextPhotoFingerprint,
    /// `30 05`: the management number of the card that was read. Its ok data: IIN (4), SN (8) and
    /// the DN (16) with which a card's configuration begins.
    CardNumber,
    /// `E0 01`, emulator extension: the module's card is the remote one with this configuration.
    /// Its ok data: the SAM's challenge for the card, 8 bytes.
    RemoteCard(Configuration),
    /// `E0 02`, emulator extension: the remote card's answer and random number. Its ok data: the
    /// SAM's proof for the card, 8 bytes; else SW3 0x32 or 0x33.
    CardAnswer {
        /// The card's answer to the SAM's challenge.
        answer: Challenge,
        /// The card's own random number.
        random: Challenge,
    },
    /// `E0 03`, emulator extension: a chunk of the remote card's encrypted data.
    EncryptedData {
        /// Position, from 0.
        index: u8,
        /// How many chunks there are in all.
        total: u8,
        /// 1 to [`CHUNK_MAX`] bytes.
        chunk: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({})", self.name())
    }
}

impl Command {
    /// CMD and PARA.
    #[must_use]
    pub const fn code(&self) -> [u8; 2] {
        match self {
            Self::Reset => [0x10, 0xFF],
            Self::Status => [0x11, 0xFF],
            Self::SamId => [0x12, 0xFF],
            Self::Find => [0x20, 0x01],
            Self::Select => [0x20, 0x02],
            Self::ReadTextPhoto => [0x30, 0x01],
            Self::ReadTextPhotoFingerprint => [0x30, 0x10],
            Self::CardNumber => [0x30, 0x05],
            Self::RemoteCard(_) => [0xE0, 0x01],
            Self::CardAnswer { .. } => [0xE0, 0x02],
            Self::EncryptedData { .. } => [0xE0, 0x03],
        }
    }

    /// A short name for errors and logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Status => "status",
            Self::SamId => "sam id",
            Self::Find => "find",
            Self::Select => "select",
            Self::ReadTextPhoto => "read text and photo",
            Self::ReadTextPhotoFingerprint => "read text, photo and fingerprint",
            Self::CardNumber => "card number",
            Self::RemoteCard(_) => "remote card",
            Self::CardAnswer { .. } => "card answer",
            Self::EncryptedData { .. } => "encrypted data",
        }
    }

    /// The whole frame to send.
    #[must_use]
    pub fn to_frame(&self) -> Zeroizing<Vec<u8>> {
        let code = self.code();
        let frame = match self {
            Self::RemoteCard(configuration) => frame::encode(&[&code, configuration.as_bytes()]),
            Self::CardAnswer { answer, random } => frame::encode(&[&code, answer, random]),
            Self::EncryptedData { index, total, chunk } => {
                frame::encode(&[&code, &[*index, *total], chunk])
            }
            _ => frame::encode(&[&code]),
        };
        frame.expect("const-asserted: every command fits a frame")
    }

    /// Reads a frame's body as a module does.
    ///
    /// # Errors
    /// The SW3 with which a module refuses it.
    pub fn parse(body: &[u8]) -> Result<Self, Sw3> {
        let (&code, data) = body.split_first_chunk::<2>().ok_or(Sw3::BadLength)?;
        let command = match code {
            [0x10, 0xFF] => Self::Reset,
            [0x11, 0xFF] => Self::Status,
            [0x12, 0xFF] => Self::SamId,
            [0x20, 0x01] => Self::Find,
            [0x20, 0x02] => Self::Select,
            [0x30, 0x01] => Self::ReadTextPhoto,
            [0x30, 0x10] => Self::ReadTextPhotoFingerprint,
            [0x30, 0x05] => Self::CardNumber,
            _ => return Self::parse_extension(code, data),
        };
        if data.is_empty() { Ok(command) } else { Err(Sw3::BadLength) }
    }

    fn parse_extension(code: [u8; 2], data: &[u8]) -> Result<Self, Sw3> {
        match code {
            [0xE0, 0x01] => {
                let bytes: [u8; CONFIGURATION_LEN] = data.try_into().map_err(|_| Sw3::BadLength)?;
                Ok(Self::RemoteCard(Configuration::new(bytes)))
            }
            [0xE0, 0x02] => {
                let (answer, random) = data.split_first_chunk().ok_or(Sw3::BadLength)?;
                let random = random.try_into().map_err(|_| Sw3::BadLength)?;
                Ok(Self::CardAnswer { answer: *answer, random })
            }
            [0xE0, 0x03] => match data {
                [index, total, chunk @ ..] if (1..=CHUNK_MAX).contains(&chunk.len()) => {
                    let chunk = Zeroizing::new(chunk.to_vec());
                    Ok(Self::EncryptedData { index: *index, total: *total, chunk })
                }
                _ => Err(Sw3::BadLength),
            },
            _ => Err(Sw3::UnknownCommand),
        }
    }
}

/// A module's response: status and data.
#[derive(PartialEq, Eq)]
pub struct Response {
    /// SW1 SW2 SW3.
    pub status: Status,
    data: Zeroizing<Vec<u8>>,
}

impl Response {
    /// Splits a frame's body; `None` if it has no three status bytes.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (status, data) = body.split_first_chunk::<3>()?;
        let data = Zeroizing::new(data.to_vec());
        Some(Self { status: Status::from_bytes(*status), data })
    }

    /// The data after the status.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// A response's frame, as a module sends it; `None` if `data` are too long.
    #[must_use]
    pub fn frame(status: Status, data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        frame::encode(&[&status.to_bytes(), data])
    }

    /// Whether the data have the length of an ok response without inner structure.
    pub(crate) fn has_ok_len(&self, command: &Command) -> bool {
        let len = match command {
            Command::SamId => SAM_ID_LEN,
            Command::Find => FIND_LEN,
            Command::Select => SELECT_LEN,
            Command::CardNumber => CARD_NUMBER_LEN,
            Command::RemoteCard(_) | Command::CardAnswer { .. } => CHALLENGE_LEN,
            // These have lengths inside; `read_plain` checks them.
            Command::ReadTextPhoto | Command::ReadTextPhotoFingerprint => return true,
            _ => 0,
        };
        self.data.len() == len
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({:?}, {} bytes)", self.status, self.data.len())
    }
}

impl PlainData {
    /// The data of a read response: lengths (2 each, big-endian) of text, photo and, for `30 10`,
    /// fingerprint, then these.
    #[must_use]
    pub fn from_sam(data: &[u8], fingerprint: bool) -> Option<Self> {
        let (text_len, rest) = data.split_first_chunk::<2>()?;
        let (photo_len, rest) = rest.split_first_chunk::<2>()?;
        let (finger_len, rest) =
            if fingerprint { rest.split_first_chunk::<2>()? } else { (&[0, 0], rest) };
        if usize::from(u16::from_be_bytes(*text_len)) != TEXT_LEN
            || usize::from(u16::from_be_bytes(*photo_len)) != PHOTO_LEN
        {
            return None;
        }
        let finger_len = usize::from(u16::from_be_bytes(*finger_len));
        let (text, rest) = rest.split_at_checked(TEXT_LEN)?;
        let (photo, finger) = rest.split_at_checked(PHOTO_LEN)?;
        if finger.len() != finger_len || finger_len > FINGERPRINT_LEN_MAX {
            return None;
        }
        let finger = (finger_len > 0).then(|| Secret::copied_from(finger));
        Self::new(Secret::copied_from(text), Secret::copied_from(photo), finger).ok()
    }

    /// The data of a read response, as a module sends them.
    #[must_use]
    pub fn to_sam(&self, fingerprint: bool) -> Zeroizing<Vec<u8>> {
        let finger = self.fingerprint().filter(|_| fingerprint).unwrap_or(&[]);
        let mut data = Zeroizing::new(Vec::with_capacity(6 + TEXT_LEN + PHOTO_LEN + finger.len()));
        data.extend_from_slice(&(TEXT_LEN as u16).to_be_bytes());
        data.extend_from_slice(&(PHOTO_LEN as u16).to_be_bytes());
        if fingerprint {
            let len = u16::try_from(finger.len()).expect("at most FINGERPRINT_LEN_MAX");
            data.extend_from_slice(&len.to_be_bytes());
        }
        data.extend_from_slice(self.text());
        data.extend_from_slice(self.photo());
        data.extend_from_slice(finger);
        data
    }
}

/// A module's id: five little-endian numbers, shown as `05.03-yyyymmdd-nnnnnnnnnn-nnnnnnnnnn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SamId([u8; SAM_ID_LEN]);

impl SamId {
    /// From the response's 16 bytes.
    #[must_use]
    pub const fn new(bytes: [u8; SAM_ID_LEN]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; SAM_ID_LEN] {
        &self.0
    }
}

impl fmt::Display for SamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a0, a1, b0, b1, c0, c1, c2, c3, d0, d1, d2, d3, e0, e1, e2, e3] = self.0;
        write!(
            f,
            "{:02X}.{:02X}-{:08}-{:010}-{:010}",
            u16::from_le_bytes([a0, a1]),
            u16::from_le_bytes([b0, b1]),
            u32::from_le_bytes([c0, c1, c2, c3]),
            u32::from_le_bytes([d0, d1, d2, d3]),
            u32::from_le_bytes([e0, e1, e2, e3]),
        )
    }
}
