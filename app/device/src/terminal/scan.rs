//! Reading a joint password off a picture of the card's display (B6, B7): a photograph or a
//! camera's frame that shows the QR code or the bar code.

use std::collections::HashSet;
use std::io::Cursor;

use countersign_payment::joint::{DIGITS, JointPassword};
use image::imageops::{self, FilterType};
use image::{GrayImage, ImageFormat, ImageReader, Limits};
use rxing::common::HybridBinarizer;
use rxing::{
    BarcodeFormat, BinaryBitmap, DecodeHints, Luma8Source, LuminanceSource, MultiFormatReader,
    Reader,
};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// Largest image file that is looked at, in bytes.
pub const SCAN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most points of an image; 24 million are what phones' cameras take.
pub const SCAN_PIXELS_MAX: u64 = 24_000_000;

/// Longest side of an image, in points; it is checked with [`SCAN_PIXELS_MAX`] before anything is
/// decoded.
const SIDE_MAX: u32 = 16_384;
/// Memory that decoding may take, in bytes: four for a point, and as much again.
const DECODING_MAX: u64 = 8 * SCAN_PIXELS_MAX;
/// Larger images are made smaller before they are searched: a code that fills a tenth of them is
/// still sharp enough.
const SEARCHED_SIDE: u32 = 1600;
/// Parts of an image that are searched at most: around every code found it is searched for more.
const PARTS_MAX: usize = 48;
/// A part smaller than this in either direction, in points, holds no code.
const PART_MIN: usize = 40;

/// Why an image gives no joint password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanError {
    /// The file or the image is larger than what is looked at.
    #[error("the image is too large: at most 16 MiB and 24 million points")]
    TooLarge,
    /// The file is no image of a kind that is read, or a damaged one.
    #[error("this is no PNG, JPEG or PNM image, or a damaged one")]
    Format,
    /// No code of nine digits was found.
    #[error("the image shows no QR code or bar code of a joint password")]
    Nothing,
    /// Several codes were found that hold different digits.
    #[error("the image shows several different joint passwords")]
    Ambiguous,
    /// The digits found are not a joint password.
    #[error("the check digit of what the image shows is wrong")]
    CheckDigit,
}

impl ScanError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::TooLarge => "scan-too-large",
            Self::Format => "scan-format",
            Self::Nothing => "scan-nothing",
            Self::Ambiguous => "scan-ambiguous",
            Self::CheckDigit => "scan-check-digit",
        }
    }
}

/// The joint password that an image file shows: PNG, JPEG or PNM, at most [`SCAN_BYTES_MAX`] bytes
/// and [`SCAN_PIXELS_MAX`] points. Codes that do not hold nine digits are not looked at: there may
/// be others in the picture. The image is wiped; what the decoding libraries allocate is not.
///
/// # Errors
/// [`ScanError`].
pub fn scan(file: &[u8]) -> Result<JointPassword, ScanError> {
    let mut image = read(file)?;
    let found = search(&image);
    wipe(&mut image);
    let mut found = found.into_iter();
    let digits = found.next().ok_or(ScanError::Nothing)?;
    if found.next().is_some() {
        return Err(ScanError::Ambiguous);
    }
    JointPassword::parse(&digits).map_err(|_| ScanError::CheckDigit)
}

/// The image in grey, at most [`SEARCHED_SIDE`] long.
fn read(file: &[u8]) -> Result<GrayImage, ScanError> {
    if file.len() > SCAN_BYTES_MAX {
        return Err(ScanError::TooLarge);
    }
    let reader = || {
        let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
        let reader = reader.map_err(|_| ScanError::Format)?;
        match reader.format() {
            Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Pnm) => Ok(reader),
            _ => Err(ScanError::Format),
        }
    };
    let (width, height) = reader()?.into_dimensions().map_err(|_| ScanError::Format)?;
    if width == 0 || height == 0 {
        return Err(ScanError::Format);
    }
    let points = u64::from(width) * u64::from(height);
    if width.max(height) > SIDE_MAX || points > SCAN_PIXELS_MAX {
        return Err(ScanError::TooLarge);
    }
    let mut limited = reader()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(DECODING_MAX);
    limited.limits(limits);
    let mut grey = limited.decode().map_err(|_| ScanError::Format)?.into_luma8();
    let side = width.max(height);
    if side <= SEARCHED_SIDE {
        return Ok(grey);
    }
    let scaled = |side_of: u32| {
        let scaled = u64::from(side_of) * u64::from(SEARCHED_SIDE) / u64::from(side);
        u32::try_from(scaled).expect("smaller than before").max(1)
    };
    let smaller = imageops::resize(&grey, scaled(width), scaled(height), FilterType::Triangle);
    wipe(&mut grey);
    Ok(smaller)
}

fn wipe(image: &mut GrayImage) {
    let samples: &mut [u8] = image;
    samples.zeroize();
}

/// The different texts of nine digits that codes in the image hold.
fn search(image: &GrayImage) -> Vec<Zeroizing<String>> {
    let mut found = Vec::new();
    let (width, height) = image.dimensions();
    // Each sort of code by itself: a search ends with the first code, of whichever sort.
    for format in [BarcodeFormat::QR_CODE, BarcodeFormat::CODE_128] {
        let hints = DecodeHints {
            PossibleFormats: Some(HashSet::from([format])),
            TryHarder: Some(true),
            AlsoInverted: Some(true),
            ..DecodeHints::default()
        };
        let Ok(whole) = Luma8Source::new_with_slice(image, width, height) else { continue };
        let mut parts = vec![whole];
        for at in 0..PARTS_MAX {
            let Some(part) = parts.get(at).cloned() else { break };
            let Some((text, around)) = code_in(&part, &hints) else { continue };
            let is_digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
            if is_digits && !found.contains(&text) {
                found.push(text);
            }
            parts.extend(around);
        }
    }
    found
}

/// The text of a code in this part of an image, and the parts around it.
fn code_in<'a>(
    part: &Luma8Source<'a>,
    hints: &DecodeHints,
) -> Option<(Zeroizing<String>, Vec<Luma8Source<'a>>)> {
    let mut bitmap = BinaryBitmap::new(HybridBinarizer::new(part.clone()));
    let code = MultiFormatReader::default().decode_with_hints(&mut bitmap, hints).ok()?;
    let (width, height) = (part.get_width(), part.get_height());
    // A conversion of a float ends at the borders of its type.
    let places = || code.getPoints().iter().map(|point| (point.x as usize, point.y as usize));
    let left = places().map(|(x, _)| x).min().unwrap_or(0).min(width);
    let right = places().map(|(x, _)| x).max().unwrap_or(width).min(width);
    let top = places().map(|(_, y)| y).min().unwrap_or(0).min(height);
    let bottom = places().map(|(_, y)| y).max().unwrap_or(height).min(height);
    let around = [
        (0, 0, left, height),
        (right, 0, width - right, height),
        (0, 0, width, top),
        (0, bottom, width, height - bottom),
    ];
    let around = around
        .into_iter()
        .filter(|(.., width, height)| *width >= PART_MIN && *height >= PART_MIN)
        .filter_map(|(left, top, width, height)| part.crop(left, top, width, height).ok());
    Some((Zeroizing::new(code.getText().to_owned()), around.collect()))
}

#[cfg(test)]
mod tests;
