use alloc::format; // the codec derives name it
use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::Secret;
use thiserror::Error;
use tls_codec::{TlsDeserializeBytes, TlsSerializeBytes, TlsSize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::pieces::{Pieces, cut};
use crate::wire::Bytes;

/// Bytes of a card's plaintext configuration, file 6002 (C6).
pub const CONFIGURATION_LEN: usize = 32;
/// Bytes of a card's DN, with which its configuration begins.
pub const DN_LEN: usize = 16;
/// Bytes of a challenge, random number, answer or proof between card and SAM.
pub const CHALLENGE_LEN: usize = 8;
/// Bytes of the decrypted text record, UTF-16LE.
pub const TEXT_LEN: usize = 256;
/// Bytes of the decrypted photo (WLT, proprietary).
pub const PHOTO_LEN: usize = 1024;
/// Most bytes of a decrypted fingerprint: two encoded features of 512 bytes (GA 1012).
pub const FINGERPRINT_LEN_MAX: usize = 1024;
/// Bytes of one encoded fingerprint feature.
pub(crate) const FINGERPRINT_FEATURE_LEN: usize = 512;
/// Bytes of the card's encrypted file 6011.
pub const FILE_HEADER_LEN: usize = 0xD6;
/// Bytes of the card's encrypted file 6012 (text).
pub const FILE_TEXT_LEN: usize = 0x100;
/// Bytes of the card's encrypted file 6013 (photo).
pub const FILE_PHOTO_LEN: usize = 0x400;
/// Bytes of the card's encrypted file 6021 (fingerprint).
pub const FILE_FINGERPRINT_LEN: usize = 0x400;
/// Bytes of the encrypted data without the fingerprint: files 6011, 6012, 6013 in this order.
pub const ENCRYPTED_BASE_LEN: usize = FILE_HEADER_LEN + FILE_TEXT_LEN + FILE_PHOTO_LEN;
/// Bytes of the encrypted data with the fingerprint file 6021 at the end.
pub const ENCRYPTED_LEN_MAX: usize = ENCRYPTED_BASE_LEN + FILE_FINGERPRINT_LEN;
/// Most bytes of encrypted data in one packet (C9).
pub const PACKET_DATA_MAX: usize = 1024;
/// Most packets of one card (C9).
pub const PACKETS_MAX: usize = 4;
/// Bytes of a read's id.
pub const READ_ID_LEN: usize = 16;

const _: () = assert!(ENCRYPTED_LEN_MAX.div_ceil(PACKET_DATA_MAX) <= PACKETS_MAX);

/// A challenge, random number or answer exchanged between card and SAM.
pub type Challenge = [u8; CHALLENGE_LEN];
/// A proof that the SAM gives the card.
pub type Proof = [u8; CHALLENGE_LEN];
/// Names one read; made by the reader, unique per read.
pub type ReadId = [u8; READ_ID_LEN];

/// Data of a shape that no card, SAM or peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DataError {
    /// A part has a length that its kind cannot have.
    #[error("{part} has {len} bytes")]
    Length {
        /// Which part.
        part: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A packet's total is zero, too large, or not the first packet's.
    #[error("wrong number of packets: {total}")]
    PacketCount {
        /// The total that the packet states.
        total: u8,
    },
    /// A packet's index is not below its total, or one is asked for that does not exist.
    #[error("packet {index} of {total}")]
    PacketIndex {
        /// The index.
        index: u8,
        /// How many packets there are.
        total: u8,
    },
    /// A packet came again with other content.
    #[error("packet {index} came twice, with different content")]
    PacketConflict {
        /// The packet's index.
        index: u8,
    },
}

/// A card's plaintext configuration, file 6002 (C6): serial number, application data and protocol
/// parameters. It names one card, so `Debug` does not print it.
#[derive(
    Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, TlsSize, TlsSerializeBytes, TlsDeserializeBytes,
)]
pub struct Configuration([u8; CONFIGURATION_LEN]);

impl Configuration {
    /// From the file's bytes.
    #[must_use]
    pub const fn new(bytes: [u8; CONFIGURATION_LEN]) -> Self {
        Self(bytes)
    }

    /// From received bytes.
    ///
    /// # Errors
    /// [`DataError::Length`] unless there are [`CONFIGURATION_LEN`] bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, DataError> {
        let len = bytes.len();
        bytes.try_into().map(Self).map_err(|_| DataError::Length { part: "configuration", len })
    }

    /// All 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; CONFIGURATION_LEN] {
        &self.0
    }

    /// The first 16 bytes, by public accounts the card's DN.
    #[must_use]
    pub fn dn(&self) -> &[u8] {
        &self.0[..DN_LEN]
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Configuration(..)")
    }
}

/// One packet of encrypted card data (C9). Still encrypted, yet wiped on drop and not printed.
#[derive(Clone, PartialEq, Eq, TlsSize, TlsSerializeBytes, TlsDeserializeBytes)]
pub struct Packet {
    /// Position, from 0.
    pub index: u8,
    /// How many packets there are in all, 1 to [`PACKETS_MAX`].
    pub total: u8,
    /// 1 to [`PACKET_DATA_MAX`] bytes.
    pub data: Bytes<PACKET_DATA_MAX>,
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} of {}, {} bytes)", self.index, self.total, self.data.len())
    }
}

/// A card's encrypted data: files 6011, 6012, 6013 and, if read, 6021, one after the other.
#[derive(PartialEq, Eq)]
pub struct EncryptedData(Zeroizing<Vec<u8>>);

impl EncryptedData {
    /// Takes the concatenated files over.
    ///
    /// # Errors
    /// [`DataError::Length`] unless the length is one of the two possible.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Result<Self, DataError> {
        match bytes.len() {
            ENCRYPTED_BASE_LEN | ENCRYPTED_LEN_MAX => Ok(Self(bytes)),
            len => Err(DataError::Length { part: "encrypted data", len }),
        }
    }

    /// All bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// True if the fingerprint file is part of it.
    #[must_use]
    pub fn has_fingerprint(&self) -> bool {
        self.0.len() == ENCRYPTED_LEN_MAX
    }

    /// Cuts into packets (C9).
    #[must_use]
    pub fn packets(&self) -> Vec<Packet> {
        cut(&self.0)
    }

    /// The same data once more: for a SAM that has to begin again.
    pub(crate) fn copy(&self) -> Self {
        Self(self.0.clone())
    }
}

impl fmt::Debug for EncryptedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedData({} bytes)", self.0.len())
    }
}

/// Puts packets together again, in whatever order they come (C9, C10).
#[derive(Default)]
pub struct PacketAssembler {
    pieces: Pieces,
}

impl PacketAssembler {
    /// An assembler that has no packet yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a packet; with the last one that was missing gives the assembled data. A packet that
    /// is here already changes nothing, if it is the same.
    ///
    /// # Errors
    /// [`DataError`] for a wrong total, index or length, or for a repeat with other content; the
    /// assembler is then of no more use.
    pub fn push(&mut self, packet: &Packet) -> Result<Option<EncryptedData>, DataError> {
        if !self.pieces.push(packet, ENCRYPTED_LEN_MAX)? {
            return Ok(None);
        }
        match self.pieces.join() {
            Some(whole) => EncryptedData::new(whole).map(Some),
            None => Ok(None),
        }
    }

    /// Which packets are missing: bit i is packet i. All that there may be, before the first one
    /// has come and told how many there are.
    #[must_use]
    pub fn missing(&self) -> u8 {
        self.pieces.missing()
    }

    /// True before the first packet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pieces.total().is_none()
    }
}

impl fmt::Debug for PacketAssembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketAssembler(missing {:#06b})", self.missing())
    }
}

/// A card's decrypted data. Personal: wiped on drop, never printed, not `Clone`.
#[derive(Debug)]
pub struct PlainData {
    text: Secret,
    photo: Secret,
    fingerprint: Option<Secret>,
}

impl PlainData {
    /// Takes the parts over.
    ///
    /// # Errors
    /// [`DataError::Length`] unless `text` has [`TEXT_LEN`], `photo` [`PHOTO_LEN`] and
    /// `fingerprint` 512 or 1024 bytes.
    pub fn new(
        text: Secret,
        photo: Secret,
        fingerprint: Option<Secret>,
    ) -> Result<Self, DataError> {
        let wrong = |part, len| Err(DataError::Length { part, len });
        if text.len() != TEXT_LEN {
            return wrong("text", text.len());
        }
        if photo.len() != PHOTO_LEN {
            return wrong("photo", photo.len());
        }
        match fingerprint.as_ref().map(Secret::len) {
            None | Some(FINGERPRINT_FEATURE_LEN | FINGERPRINT_LEN_MAX) => {
                Ok(Self { text, photo, fingerprint })
            }
            Some(len) => wrong("fingerprint", len),
        }
    }

    /// The text record, [`TEXT_LEN`] bytes UTF-16LE; decode it with
    /// [`IdRecord::decode`](crate::record::IdRecord::decode).
    #[must_use]
    pub fn text(&self) -> &[u8; TEXT_LEN] {
        self.text.expose().try_into().expect("checked by the constructor")
    }

    /// The photo, [`PHOTO_LEN`] bytes in the closed WLT format.
    #[must_use]
    pub fn photo(&self) -> &[u8; PHOTO_LEN] {
        self.photo.expose().try_into().expect("checked by the constructor")
    }

    /// The fingerprint, 512 or 1024 bytes (GA 1012), if the card has one and it was asked for.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&[u8]> {
        self.fingerprint.as_ref().map(Secret::expose)
    }

    /// Bytes of the encoding that [`write_to`](Self::write_to) makes.
    pub(crate) fn encoded_len(&self) -> usize {
        TEXT_LEN + PHOTO_LEN + 2 + self.fingerprint.as_ref().map_or(0, Secret::len)
    }

    /// Appends `text ‖ photo ‖ u16 fingerprint length ‖ fingerprint`.
    pub(crate) fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.text.expose());
        out.extend_from_slice(self.photo.expose());
        let fingerprint = self.fingerprint.as_ref().map_or(&[][..], Secret::expose);
        let len = u16::try_from(fingerprint.len()).expect("at most FINGERPRINT_LEN_MAX");
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(fingerprint);
    }

    /// Reads what [`write_to`](Self::write_to) wrote; gives the rest back.
    pub(crate) fn read_from(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (text, rest) = bytes.split_at_checked(TEXT_LEN)?;
        let (photo, rest) = rest.split_at_checked(PHOTO_LEN)?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let (fingerprint, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        let fingerprint =
            if fingerprint.is_empty() { None } else { Some(Secret::copied_from(fingerprint)) };
        let plain = Self::new(Secret::copied_from(text), Secret::copied_from(photo), fingerprint);
        Some((plain.ok()?, rest))
    }
}
