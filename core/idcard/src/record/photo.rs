use alloc::vec::Vec;

use thiserror::Error;

use crate::PHOTO_LEN;

/// Width in pixels of a decoded photo.
pub const PHOTO_WIDTH: usize = 102;
/// Height in pixels of a decoded photo.
pub const PHOTO_HEIGHT: usize = 126;

/// A decoded photo: [`PHOTO_WIDTH`] × [`PHOTO_HEIGHT`] pixels, three bytes (blue, green, red)
/// each, rows from the top. Personal: wiped on drop, not printed.
pub struct Photo {
    bgr: zeroize::Zeroizing<Vec<u8>>,
}

impl Photo {
    /// Takes the pixels over; `None` unless there are 38 556 bytes.
    #[must_use]
    pub fn new(bgr: Vec<u8>) -> Option<Self> {
        let bgr = zeroize::Zeroizing::new(bgr);
        (bgr.len() == PHOTO_WIDTH * PHOTO_HEIGHT * 3).then_some(Self { bgr })
    }

    /// The pixels.
    #[must_use]
    pub fn bgr(&self) -> &[u8] {
        &self.bgr
    }
}

impl core::fmt::Debug for Photo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Photo(..)")
    }
}

/// Why a photo cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PhotoError {
    /// The bytes are no photo.
    #[error("the photo is damaged")]
    Damaged,
    /// The decoder is missing or not licensed.
    #[error("the photo decoder is not available")]
    Unavailable,
}

/// Where a photo decoder plugs in. The WLT format is proprietary and its only decoder closed, so
/// Countersign has none and keeps photos raw.
pub trait PhotoDecoder: Send + Sync {
    /// Decodes the 1024 bytes of a card's photo.
    ///
    /// # Errors
    /// [`PhotoError`].
    fn decode(&self, wlt: &[u8; PHOTO_LEN]) -> Result<Photo, PhotoError>;
}
