//! The reader's side of the card: APDUs over a [`CardLink`] (C6, C7).
//!
//! Public accounts of card clients give the files and their sizes: configuration in plaintext in
//! file 6002; after card and SAM have authenticated each other, encrypted header, text, photo and
//! fingerprint in 6011, 6012, 6013, 6021. The exact parameters of the three authentication
//! commands are not published for real cards; here P1 P2 are zero and each value has 8 bytes, as
//! the emulated card takes them. A real card's link may translate.

use alloc::vec::Vec;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::message::CardAnswer;
use crate::{
    CHALLENGE_LEN, CONFIGURATION_LEN, Challenge, Configuration, ENCRYPTED_LEN_MAX, EncryptedData,
    FILE_FINGERPRINT_LEN, FILE_HEADER_LEN, FILE_PHOTO_LEN, FILE_TEXT_LEN, Proof,
};

/// Most bytes read in one APDU.
pub const READ_CHUNK_MAX: usize = 0x70;
/// Most bytes of a command APDU sent here.
pub const APDU_LEN_MAX: usize = 16;
/// Most bytes of a response that is accepted: a chunk and its status word.
pub const RESPONSE_LEN_MAX: usize = READ_CHUNK_MAX + 2;
/// The status word of success.
pub const SW_OK: u16 = 0x9000;
/// The status word of a file that is not there.
pub const SW_FILE_NOT_FOUND: u16 = 0x6A82;

/// File with the plaintext configuration.
pub const FILE_CONFIGURATION: u16 = 0x6002;
/// File with the encrypted header.
pub const FILE_HEADER: u16 = 0x6011;
/// File with the encrypted text.
pub const FILE_TEXT: u16 = 0x6012;
/// File with the encrypted photo.
pub const FILE_PHOTO: u16 = 0x6013;
/// File with the encrypted fingerprint; not on every card.
pub const FILE_FINGERPRINT: u16 = 0x6021;

/// Why the card cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CardError {
    /// The card left the field.
    #[error("the card was removed")]
    Removed,
    /// The card did not answer in time.
    #[error("the card did not answer in time")]
    Timeout,
    /// The card answered with this status word.
    #[error("the card refused with status {0:#06x}")]
    Refused(u16),
    /// The card answered something of impossible length.
    #[error("the card's answer is malformed")]
    Malformed,
    /// The reader's RF part failed.
    #[error("the card interface failed")]
    Link,
    /// Another card lies there than the one whose configuration was read.
    #[error("the card was swapped for another")]
    Swapped,
}

/// A card in the field.
#[derive(Clone, PartialEq, Eq)]
pub struct CardPresent {
    /// The card's UID, 8 bytes for type B resident cards.
    pub uid: [u8; 8],
}

impl core::fmt::Debug for CardPresent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CardPresent(..)")
    }
}

/// The reader's RF part. Blocking: the device program gives it a thread of its own.
pub trait CardLink {
    /// Looks for a card.
    ///
    /// # Errors
    /// [`CardError::Link`] if the interface itself fails.
    fn poll(&mut self) -> Result<Option<CardPresent>, CardError>;

    /// Sends one command APDU (at most [`APDU_LEN_MAX`] bytes) and takes the response: data and
    /// two status bytes.
    ///
    /// # Errors
    /// [`CardError::Removed`], [`CardError::Timeout`] or [`CardError::Link`]. A status word that
    /// is not success is part of the response, not an error of the link.
    fn transceive(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError>;
}

/// What the reader's flow wants done with the card.
#[derive(Debug, PartialEq, Eq)]
pub enum CardWork {
    /// Give the SAM's challenge to the card; take the card's answer and its random number.
    Authenticate {
        /// The SAM's challenge.
        challenge: Challenge,
    },
    /// Give the SAM's proof to the card and read its encrypted files.
    ReadEncrypted {
        /// The SAM's proof.
        proof: Proof,
        /// Also read the fingerprint, if the card has one.
        fingerprint: bool,
        /// The configuration that the card must still have when all is read.
        configuration: Configuration,
    },
}

/// What came of a [`CardWork`].
#[derive(Debug, PartialEq, Eq)]
pub enum CardDone {
    /// Of [`CardWork::Authenticate`].
    Answer(CardAnswer),
    /// Of [`CardWork::ReadEncrypted`].
    Encrypted(EncryptedData),
}

impl CardWork {
    /// Does the work.
    ///
    /// # Errors
    /// [`CardError`]; the read is then over.
    pub fn perform(&self, link: &mut dyn CardLink) -> Result<CardDone, CardError> {
        match self {
            Self::Authenticate { challenge } => authenticate(link, challenge).map(CardDone::Answer),
            Self::ReadEncrypted { proof, fingerprint, configuration } => {
                let read = read_encrypted(link, proof, *fingerprint);
                // A card that refuses may be one that knows nothing of all this.
                if matches!(read, Ok(_) | Err(CardError::Refused(_) | CardError::Malformed)) {
                    still_there(link, configuration)?;
                }
                read.map(CardDone::Encrypted)
            }
        }
    }
}

/// Reads the plaintext configuration, before any read command (C6).
///
/// # Errors
/// [`CardError`].
pub fn read_configuration(link: &mut dyn CardLink) -> Result<Configuration, CardError> {
    let mut file = Zeroizing::new(Vec::with_capacity(CONFIGURATION_LEN));
    read_file(link, FILE_CONFIGURATION, CONFIGURATION_LEN, &mut file)?;
    Configuration::from_slice(&file).map_err(|_| CardError::Malformed)
}

/// Reads the configuration again: data must never be kept under another card's. A card that does
/// not give it any more is not the one that did.
fn still_there(link: &mut dyn CardLink, configuration: &Configuration) -> Result<(), CardError> {
    match read_configuration(link) {
        Ok(found) if found == *configuration => Ok(()),
        Ok(_) | Err(CardError::Refused(_) | CardError::Malformed) => Err(CardError::Swapped),
        Err(error) => Err(error),
    }
}

/// First half of the authenticating phase: the card answers the SAM's challenge and draws its own
/// random number.
///
/// # Errors
/// [`CardError`].
pub fn authenticate(
    link: &mut dyn CardLink,
    challenge: &Challenge,
) -> Result<CardAnswer, CardError> {
    let answer = exchange(link, &with_value(0x88, challenge), CHALLENGE_LEN)?;
    let random = exchange(link, &[0x00, 0x84, 0x00, 0x00, CHALLENGE_LEN as u8], CHALLENGE_LEN)?;
    Ok(CardAnswer {
        answer: answer.as_slice().try_into().map_err(|_| CardError::Malformed)?,
        random: random.as_slice().try_into().map_err(|_| CardError::Malformed)?,
    })
}

/// Second half: the card verifies the SAM's proof and then gives its encrypted files.
///
/// # Errors
/// [`CardError`]; [`CardError::Refused`] if the card does not accept the proof.
pub fn read_encrypted(
    link: &mut dyn CardLink,
    proof: &Proof,
    fingerprint: bool,
) -> Result<EncryptedData, CardError> {
    exchange(link, &with_value(0x82, proof), 0)?;
    let mut data = Zeroizing::new(Vec::with_capacity(ENCRYPTED_LEN_MAX));
    read_file(link, FILE_HEADER, FILE_HEADER_LEN, &mut data)?;
    read_file(link, FILE_TEXT, FILE_TEXT_LEN, &mut data)?;
    read_file(link, FILE_PHOTO, FILE_PHOTO_LEN, &mut data)?;
    if fingerprint {
        match read_file(link, FILE_FINGERPRINT, FILE_FINGERPRINT_LEN, &mut data) {
            // A card without fingerprint is read like any other.
            Ok(()) | Err(CardError::Refused(SW_FILE_NOT_FOUND)) => {}
            Err(error) => return Err(error),
        }
    }
    EncryptedData::new(data).map_err(|_| CardError::Malformed)
}

/// `00 INS 00 00 08 value`.
fn with_value(instruction: u8, value: &[u8; CHALLENGE_LEN]) -> [u8; 5 + CHALLENGE_LEN] {
    let mut apdu = [0; 5 + CHALLENGE_LEN];
    apdu[1] = instruction;
    apdu[4] = CHALLENGE_LEN as u8;
    apdu[5..].copy_from_slice(value);
    apdu
}

/// Selects `file` and appends its first `len` bytes to `out`.
fn read_file(
    link: &mut dyn CardLink,
    file: u16,
    len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CardError> {
    let [high, low] = file.to_be_bytes();
    exchange(link, &[0x00, 0xA4, 0x00, 0x00, 0x02, high, low], 0)?;
    let mut offset = 0;
    while offset < len {
        let chunk = READ_CHUNK_MAX.min(len - offset);
        let [high, low] = u16::try_from(offset).map_err(|_| CardError::Malformed)?.to_be_bytes();
        let apdu = [0x80, 0xB0, high, low, chunk as u8];
        out.extend_from_slice(&exchange(link, &apdu, chunk)?);
        offset += chunk;
    }
    Ok(())
}

/// One APDU whose response must be `len` bytes of data and success.
fn exchange(
    link: &mut dyn CardLink,
    apdu: &[u8],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>, CardError> {
    let mut response = link.transceive(apdu)?;
    if response.len() > RESPONSE_LEN_MAX {
        return Err(CardError::Malformed);
    }
    let (data, status) = response.split_last_chunk::<2>().ok_or(CardError::Malformed)?;
    match u16::from_be_bytes(*status) {
        SW_OK if data.len() == len => {
            response.truncate(len);
            Ok(response)
        }
        SW_OK => Err(CardError::Malformed),
        status => Err(CardError::Refused(status)),
    }
}

const _: () = assert!(READ_CHUNK_MAX <= u8::MAX as usize && 5 + CHALLENGE_LEN <= APDU_LEN_MAX);
