//! Where real cards are: behind PC/SC readers, or in this process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use countersign_iso7816::{CardLink, LinkError};

use super::{CardSettings, ManagerError, ManagerSettings};

/// Where a manager finds its cards. All of it blocks.
pub trait CardSource: Send + Sync {
    /// Whether the card is in its place.
    fn is_present(&self, card: &CardSettings) -> bool;

    /// Powers the card, fresh from a reset, and keeps all others away from it until it is dropped.
    ///
    /// # Errors
    /// [`LinkError`].
    fn open(&self, card: &CardSettings) -> Result<OpenCard, LinkError>;
}

/// Resets a card and gives its answer to reset.
pub type ResetCard = Box<dyn FnMut() -> Result<Vec<u8>, LinkError> + Send>;
/// Opens a card of this process.
type OpenHeld = Box<dyn Fn() -> Result<OpenCard, LinkError> + Send + Sync>;

/// A card that is ours alone; dropping it resets it.
pub struct OpenCard(Inner);

enum Inner {
    Held {
        link: Box<dyn CardLink + Send>,
        atr: Vec<u8>,
        reset: ResetCard,
    },
    #[cfg(feature = "pcsc")]
    Reader {
        reader: String,
        /// None after a reset that failed.
        link: Option<countersign_smartcard::pcsc::PcscLink>,
    },
}

impl fmt::Debug for OpenCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenCard(..)")
    }
}

impl OpenCard {
    /// A card in this process: its link, its answer to reset, and how it is reset.
    #[must_use]
    pub fn new(link: Box<dyn CardLink + Send>, atr: Vec<u8>, reset: ResetCard) -> Self {
        Self(Inner::Held { link, atr, reset })
    }

    /// Its answer to reset.
    #[must_use]
    pub fn answer_to_reset(&self) -> &[u8] {
        match &self.0 {
            Inner::Held { atr, .. } => atr,
            #[cfg(feature = "pcsc")]
            Inner::Reader { link, .. } => link.as_ref().map_or(&[], |link| link.atr()),
        }
    }

    /// Resets it: nothing is selected, no PIN was given.
    pub(super) fn reset(&mut self) -> Result<(), LinkError> {
        match &mut self.0 {
            Inner::Held { atr, reset, .. } => *atr = reset()?,
            #[cfg(feature = "pcsc")]
            Inner::Reader { reader, link } => {
                // Let go of and taken anew: both ends reset it.
                drop(link.take());
                *link = Some(in_reader(reader)?);
            }
        }
        Ok(())
    }
}

impl CardLink for OpenCard {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        match &mut self.0 {
            Inner::Held { link, .. } => link.transmit(command),
            #[cfg(feature = "pcsc")]
            Inner::Reader { link, .. } => match link {
                Some(link) => link.transmit(command),
                None => Err(LinkError::Removed),
            },
        }
    }
}

impl Drop for OpenCard {
    fn drop(&mut self) {
        // What was said to it is forgotten. A reader's link does this by itself.
        if let Inner::Held { reset, .. } = &mut self.0
            && let Err(error) = reset()
        {
            tracing::info!(%error, "a card could not be reset");
        }
    }
}

#[cfg(feature = "pcsc")]
fn in_reader(reader: &str) -> Result<countersign_smartcard::pcsc::PcscLink, LinkError> {
    use countersign_smartcard::pcsc::{PcscError, PcscLink};
    PcscLink::connect(Some(reader)).map_err(|error| match error {
        PcscError::NoCard | PcscError::Removed => LinkError::Removed,
        other => LinkError::Failed(other.to_string()),
    })
}

/// Cards of this process, by their ids.
#[derive(Default)]
pub struct HeldCards(BTreeMap<String, OpenHeld>);

impl HeldCards {
    /// The same with one card more; `open` powers it, or says that it is not there.
    #[must_use]
    pub fn with(
        mut self,
        id: &str,
        open: impl Fn() -> Result<OpenCard, LinkError> + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(id.to_owned(), Box::new(open));
        self
    }
}

impl fmt::Debug for HeldCards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Where each card of these settings is: in its PC/SC reader, or among those held in this process.
///
/// # Errors
/// [`ManagerError::Source`] for a card that is in neither: one with a reader, in a program without
/// PC/SC; one without, that is not held.
pub fn card_source(
    settings: &ManagerSettings,
    held: HeldCards,
) -> Result<Arc<dyn CardSource>, ManagerError> {
    for card in &settings.cards {
        let missing = match card.reader {
            Some(_) if cfg!(feature = "pcsc") => None,
            Some(_) => Some("this program was built without PC/SC"),
            None if held.0.contains_key(&card.id) => None,
            None => Some("its reader is not set"),
        };
        if let Some(detail) = missing {
            return Err(ManagerError::Source { card: card.id.clone(), detail });
        }
    }
    Ok(Arc::new(held))
}

impl CardSource for HeldCards {
    fn is_present(&self, card: &CardSettings) -> bool {
        match &card.reader {
            Some(reader) => is_in_reader(reader),
            None => self.0.get(&card.id).is_some_and(|open| open().is_ok()),
        }
    }

    fn open(&self, card: &CardSettings) -> Result<OpenCard, LinkError> {
        match (&card.reader, self.0.get(&card.id)) {
            #[cfg(feature = "pcsc")]
            (Some(reader), _) => {
                let link = Some(in_reader(reader)?);
                Ok(OpenCard(Inner::Reader { reader: reader.clone(), link }))
            }
            (None, Some(open)) => open(),
            _ => Err(LinkError::Removed),
        }
    }
}

#[cfg(feature = "pcsc")]
fn is_in_reader(wanted: &str) -> bool {
    let Ok(readers) = countersign_smartcard::pcsc::readers() else { return false };
    let exact = readers.iter().find(|reader| reader.name == wanted);
    let found = exact.or_else(|| readers.iter().find(|reader| reader.name.contains(wanted)));
    found.is_some_and(|reader| reader.card.is_some())
}

#[cfg(not(feature = "pcsc"))]
const fn is_in_reader(_: &str) -> bool {
    false
}
