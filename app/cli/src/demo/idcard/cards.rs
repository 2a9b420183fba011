//! The cards of the demo, and the comparison of what was read with what was written on them.

use std::sync::Arc;

use countersign_device::Outcome;
use countersign_emulator::{CardImage, Scheme, sample};
use countersign_idcard::reader::ReadOptions;
use countersign_idcard::record::{DocumentType, IdRecord};
use countersign_idcard::{PHOTO_LEN, PlainData};
use countersign_server::ambient;

use crate::device::DOCUMENTS;
use crate::failure::Failure;

/// Bytes of the emulated fingerprint: one finger.
const FINGERPRINT_LEN: usize = 512;
/// Which of the cards has a fingerprint, and its read asks for it.
const WITH_FINGERPRINT: DocumentType = DocumentType::Foreigner2023;

/// An emulated card and all that was written on it, to compare reads with.
pub(super) struct DemoCard {
    pub(super) image: Arc<CardImage>,
    pub(super) document: DocumentType,
    pub(super) photo: [u8; PHOTO_LEN],
    pub(super) fingerprint: Option<Vec<u8>>,
}

impl DemoCard {
    /// One card of each document type, each with photo bytes of its own.
    pub(super) fn all() -> Result<Vec<Self>, Failure> {
        let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
        DOCUMENTS.into_iter().map(|document| Self::make(&scheme, document)).collect()
    }

    /// A card of this document type.
    pub(super) fn of(document: DocumentType) -> Result<Self, Failure> {
        let scheme = Scheme::with_demo_key(countersign_crypto::aws_lc::provider());
        Self::make(&scheme, document)
    }

    fn make(scheme: &Scheme, document: DocumentType) -> Result<Self, Failure> {
        let mut rng = (ambient().rng)();
        let mut photo = [0; PHOTO_LEN];
        rng.fill_bytes(&mut photo);
        let fingerprint = (document == WITH_FINGERPRINT).then(|| {
            let mut bytes = vec![0; FINGERPRINT_LEN];
            rng.fill_bytes(&mut bytes);
            bytes
        });
        let (serial, record) = (document as u64 + 1, sample(document));
        let finger = fingerprint.as_deref();
        let image = CardImage::new(scheme, &mut *rng, serial, &record, Some(&photo), finger)
            .map_err(|error| Failure::check("card", error.to_string()))?;
        Ok(Self { image: Arc::new(image), document, photo, fingerprint })
    }

    pub(super) fn options(&self) -> ReadOptions {
        ReadOptions { fingerprint: self.fingerprint.is_some(), ..ReadOptions::default() }
    }

    /// Whether this card has a fingerprint.
    pub(super) const fn has_fingerprint(&self) -> bool {
        self.fingerprint.is_some()
    }

    /// Every field, and photo and fingerprint byte by byte, as they were written on this card.
    pub(super) fn compare(&self, outcome: &Outcome) -> Result<(), String> {
        self.compare_data(&outcome.data, true)
    }

    /// The same; without the fingerprint, if that was not asked for.
    pub(super) fn compare_data(&self, data: &PlainData, fingerprint: bool) -> Result<(), String> {
        let record = IdRecord::decode(data.text()).map_err(|error| error.to_string())?;
        if record != sample(self.document) {
            return Err("the record's fields differ from the card's".into());
        }
        if *data.photo() != self.photo {
            return Err("the photo's bytes differ from the card's".into());
        }
        if data.fingerprint() != self.fingerprint.as_deref().filter(|_| fingerprint) {
            return Err("the fingerprint's bytes differ from the card's".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use countersign_crypto::Secret;
    use countersign_device::Source;

    use super::*;

    fn outcome(document: DocumentType, photo: &[u8], fingerprint: Option<&[u8]>) -> Outcome {
        let text = Secret::copied_from(sample(document).encode().unwrap().as_slice());
        let fingerprint = fingerprint.map(Secret::copied_from);
        Outcome {
            data: PlainData::new(text, Secret::copied_from(photo), fingerprint).unwrap(),
            source: Source::Server,
            attempts: 1,
            handshake: Duration::ZERO,
            spoken: None,
            total: Duration::ZERO,
        }
    }

    #[test]
    fn every_byte_of_a_card_is_compared() {
        let cards = DemoCard::all().unwrap();
        assert_eq!(cards.iter().filter(|card| card.fingerprint.is_some()).count(), 1);
        for card in &cards {
            let (document, finger) = (card.document, card.fingerprint.as_deref());
            let compare = |outcome: &Outcome| card.compare(outcome);
            assert_eq!(compare(&outcome(document, &card.photo, finger)), Ok(()));
            for at in [0, PHOTO_LEN / 2, PHOTO_LEN - 1] {
                let mut photo = card.photo;
                photo[at] ^= 1;
                assert!(compare(&outcome(document, &photo, finger)).is_err(), "{document:?} {at}");
            }
            let other = [7; FINGERPRINT_LEN];
            assert!(compare(&outcome(document, &card.photo, Some(&other))).is_err());
            assert_eq!(compare(&outcome(document, &card.photo, None)).is_err(), finger.is_some());
        }
        let other = outcome(DocumentType::ResidencePermit, &cards[0].photo, None);
        assert!(cards[0].compare(&other).is_err());
    }
}
