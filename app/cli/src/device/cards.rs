//! The emulated cards that `device reader` puts on its reader.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::aws_lc;
use countersign_device::Reader;
use countersign_emulator::{CardHandle, CardImage, EmulatedCard, Scheme, load_card, sample};
use countersign_idcard::record::DocumentType;
use countersign_server::ambient;

use crate::failure::Failure;

/// Most cards that take turns.
pub(super) const CARDS_MAX: usize = 64;
/// How long at most until the reader notices that a card was taken away.
const NOTICED_WITHIN: Duration = Duration::from_secs(5);
/// How long it looks between asking itself that.
const LOOK: Duration = Duration::from_millis(50);

/// The four document types, in the order of the samples.
pub(crate) const DOCUMENTS: [DocumentType; 4] = [
    DocumentType::Citizen,
    DocumentType::Foreigner2017,
    DocumentType::Foreigner2023,
    DocumentType::ResidencePermit,
];

/// An emulated reader front end with nothing on it, and the hand that puts cards there.
pub(crate) fn emulated_field() -> (EmulatedCard, CardHandle) {
    EmulatedCard::new(Scheme::with_demo_key(aws_lc::provider()), (ambient().rng)())
}

/// Emulated cards that take turns on the reader.
pub(super) struct Cards {
    images: Vec<Arc<CardImage>>,
    field: CardHandle,
    /// Which one is next.
    next: usize,
    /// How long a card stays away after a read; a single card stays there without.
    away: Option<Duration>,
}

impl Cards {
    /// The cards of these names.
    pub(super) fn new(
        names: &[String],
        field: CardHandle,
        away: Option<Duration>,
    ) -> Result<Self, Failure> {
        if names.len() > CARDS_MAX {
            return Err(Failure::usage("card", format!("at most {CARDS_MAX} cards take turns")));
        }
        let scheme = Scheme::with_demo_key(aws_lc::provider());
        let image = |name: &String| Ok(Arc::new(emulated_card(&scheme, name)?));
        let images = names.iter().map(image).collect::<Result<_, Failure>>()?;
        Ok(Self { images, field, next: 0, away })
    }

    pub(super) const fn len(&self) -> usize {
        self.images.len()
    }

    /// Lays the next card on the reader, once the reader has noticed that the one before is gone.
    pub(super) async fn present_next(&mut self, reader: &mut Reader) {
        let first = self.next == 0;
        if !first && self.images.len() == 1 && self.away.is_none() {
            return; // it lies there
        }
        if !first {
            self.field.remove();
            reader.attend(self.away.unwrap_or_default()).await;
            let mut waited = Duration::ZERO;
            while reader.card_is_present() && waited < NOTICED_WITHIN {
                reader.attend(LOOK).await;
                waited += LOOK;
            }
        }
        self.lay_next();
        // A reader looks before any command comes (C6).
        reader.attend(Duration::ZERO).await;
    }

    /// Lays the next card on the reader.
    pub(super) fn lay_next(&mut self) {
        self.field.insert(self.images[self.next % self.images.len()].clone());
        self.next += 1;
    }

    /// Takes the card away.
    pub(super) fn take(&self) {
        self.field.remove();
    }
}

/// `emulated:NAME`: one of the four samples, or a JSON file.
fn emulated_card(scheme: &Scheme, name: &str) -> Result<CardImage, Failure> {
    let Some(name) = name.strip_prefix("emulated:") else {
        let detail = "no real card interface is built in: use --card emulated:…";
        return Err(Failure::usage("card", detail));
    };
    let mut rng = (ambient().rng)();
    let refused = |detail: String| Failure::usage("card", detail);
    let document = DOCUMENTS.into_iter().find(|document| document.name() == name);
    match document {
        Some(document) => {
            let serial = document as u64 + 1;
            CardImage::new(scheme, &mut *rng, serial, &sample(document), None, None)
                .map_err(|error| refused(error.to_string()))
        }
        None => load_card(scheme, &mut *rng, Path::new(name))
            .map_err(|error| refused(format!("{name}: {error}"))),
    }
}
