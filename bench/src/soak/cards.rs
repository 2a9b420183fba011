//! Cards that differ in every byte, so that a mixed-up record shows.

use std::sync::Arc;

use countersign_device::Outcome;
use countersign_emulator::{CardImage, Scheme, sample};
use countersign_idcard::PHOTO_LEN;
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_server::ambient;

use crate::Fallible;

/// Bytes of an emulated fingerprint: one finger.
const FINGERPRINT_LEN: usize = 512;
const DOCUMENTS: [DocumentType; 4] = [
    DocumentType::Citizen,
    DocumentType::Foreigner2017,
    DocumentType::Foreigner2023,
    DocumentType::ResidencePermit,
];

/// The scheme of all emulated cards and modules.
pub(super) fn scheme() -> Scheme {
    Scheme::with_demo_key(countersign_crypto::aws_lc::provider())
}

/// A card, and what was written on it.
pub(super) struct Card {
    pub(super) image: Arc<CardImage>,
    document: DocumentType,
    photo: [u8; PHOTO_LEN],
    fingerprint: Option<Vec<u8>>,
}

impl Card {
    /// The card with this serial number; every other one has a fingerprint.
    pub(super) fn make(serial: u64) -> Fallible<Self> {
        let mut rng = (ambient().rng)();
        let document = DOCUMENTS[serial as usize % DOCUMENTS.len()];
        let mut photo = [0; PHOTO_LEN];
        rng.fill_bytes(&mut photo);
        let fingerprint = (serial % 8 >= 4).then(|| {
            let mut bytes = vec![0; FINGERPRINT_LEN];
            rng.fill_bytes(&mut bytes);
            bytes
        });
        let (record, finger) = (sample(document), fingerprint.as_deref());
        let image = CardImage::new(&scheme(), &mut *rng, serial, &record, Some(&photo), finger)?;
        Ok(Self { image: Arc::new(image), document, photo, fingerprint })
    }

    /// Whether a read gave what is on this card, each byte of what it asked for.
    pub(super) fn is_what_was_read(&self, outcome: &Outcome, fingerprint: bool) -> bool {
        let finger = self.fingerprint.as_deref().filter(|_| fingerprint);
        IdRecord::decode(outcome.data.text()).is_ok_and(|record| record == sample(self.document))
            && *outcome.data.photo() == self.photo
            && outcome.data.fingerprint() == finger
    }
}
