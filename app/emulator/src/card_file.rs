use std::fs::File;
use std::io::Read;
use std::path::Path;

use countersign_crypto::CryptoRng;
use countersign_idcard::PHOTO_LEN;
use countersign_idcard::record::IdRecord;
use serde::Deserialize;
use thiserror::Error;

use crate::{CardImage, EmulatorError, Scheme};

/// Most bytes of a card file.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Why a card file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CardFileError {
    /// The file cannot be read.
    #[error("the card file cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// Longer than 64 KiB.
    #[error("the card file is too long")]
    TooLong,
    /// Not JSON of the right form.
    #[error("the card file is not a card: {0}")]
    Json(#[from] serde_json::Error),
    /// `photo` or `fingerprint` is not hex, or not of the right length.
    #[error("'{0}' is not hex of the right length")]
    Hex(&'static str),
    /// The document has a bad field.
    #[error(transparent)]
    Card(#[from] EmulatorError),
}

/// The file's form; see [`load_card`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CardFile {
    serial: u64,
    document: IdRecord,
    #[serde(default)]
    photo: Option<String>,
    #[serde(default)]
    fingerprint: Option<String>,
}

/// Makes a card from a JSON file, so that users can try documents of their own; begin with a copy
/// of `cards/citizen.json`. The form is
/// `{"serial": 1, "document": {"documentType": "citizen", …}, "photo": HEX, "fingerprint": HEX}`,
/// the last two optional. The document's fields are those of [`IdRecord`] in camelCase; dates are
/// `YYYY-MM-DD`, `validUntil` may be `"longTerm"`.
///
/// # Errors
/// [`CardFileError`].
pub fn load_card(
    scheme: &Scheme,
    rng: &mut dyn CryptoRng,
    path: &Path,
) -> Result<CardImage, CardFileError> {
    let mut json = Vec::new();
    File::open(path)?.take(FILE_LEN_MAX + 1).read_to_end(&mut json)?;
    if json.len() as u64 > FILE_LEN_MAX {
        return Err(CardFileError::TooLong);
    }
    parse_card(scheme, rng, &json)
}

/// Makes a card from JSON (see [`load_card`]).
///
/// # Errors
/// [`CardFileError`].
pub fn parse_card(
    scheme: &Scheme,
    rng: &mut dyn CryptoRng,
    json: &[u8],
) -> Result<CardImage, CardFileError> {
    let file: CardFile = serde_json::from_slice(json)?;
    let photo = file.photo.as_deref().map(|hex| unhex("photo", hex)).transpose()?;
    let photo: Option<[u8; PHOTO_LEN]> =
        photo.map(|bytes| bytes.try_into().map_err(|_| CardFileError::Hex("photo"))).transpose()?;
    let fingerprint =
        file.fingerprint.as_deref().map(|hex| unhex("fingerprint", hex)).transpose()?;
    let card = CardImage::new(
        scheme,
        rng,
        file.serial,
        &file.document,
        photo.as_ref(),
        fingerprint.as_deref(),
    )?;
    Ok(card)
}

fn unhex(field: &'static str, text: &str) -> Result<Vec<u8>, CardFileError> {
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> = text
        .as_bytes()
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u8::try_from(nibble(high)? * 16 + nibble(low)?).ok(),
            _ => None,
        })
        .collect();
    bytes.ok_or(CardFileError::Hex(field))
}
