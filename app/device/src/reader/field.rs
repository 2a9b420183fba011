//! The card in front of the reader: looking for it, and working with it.

use std::sync::PoisonError;
use std::time::Duration;

use countersign_idcard::Configuration;
use countersign_idcard::card::{CardError, CardLink, CardPresent, read_configuration};
use countersign_idcard::presence::PresenceEvent;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{CARD_WAIT, POLL_EVERY, ReadError, Reader};

impl Reader {
    /// Looks for a card once. A card that was not there before has its configuration read and
    /// cached at once, before any read command (C6); one that was out of sight for a moment has it
    /// compared. Wipes what is kept if no card was seen for the preset time (C11, C15). Returns
    /// whether this look found a card; one look that does not is no removal.
    ///
    /// # Errors
    /// [`CardError`] if the card's configuration cannot be read.
    pub async fn poll(&mut self) -> Result<bool, CardError> {
        let (found, _no_apdu) = self.with_link(|link| link.poll()).await;
        let now = self.clock.now();
        self.presence.set_keeps(!self.cache.is_empty());
        match &found {
            Ok(Some(card)) => self.presence.found(now, card.uid),
            Ok(None) => self.presence.none_found(now),
            Err(error) => self.presence.failed(now, *error),
        }
        let compare = self.conclude();
        let seen = found?.is_some();
        if seen && (compare || self.present.is_none()) {
            let configuration = self.with_card(|link| read_configuration(link)).await;
            let configuration = configuration.inspect_err(|_| self.present = None)?;
            let new = self.cache.card_appeared(&configuration);
            self.present = Some(configuration);
            tracing::debug!(new, "the card's configuration is read");
            self.log_notes();
        }
        Ok(seen)
    }

    /// Keeps looking for cards for so long. A card that cannot be read now is looked at again.
    pub async fn attend(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            if let Err(error) = self.poll().await {
                tracing::debug!(%error, "the card cannot be read");
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(POLL_EVERY)).await;
        }
    }

    /// Whether a card is taken to be there, by all signals so far.
    #[must_use]
    pub const fn card_is_present(&self) -> bool {
        self.presence.is_present()
    }

    /// The host or a switch says that the card was taken: believed at once.
    pub fn card_taken(&mut self) {
        self.presence.taken(self.clock.now());
        self.conclude();
    }

    /// Before power goes: wipes keys, configurations and ciphertext (C11, C15). The reader may be
    /// used again; it knows no card then.
    pub fn power_off(&mut self) {
        self.present = None;
        self.presence = countersign_idcard::presence::Presence::new(self.wipe_after);
        self.cache.wipe();
        self.log_notes();
    }

    /// Does what the presence machine concludes; whether the card's configuration is to be read.
    fn conclude(&mut self) -> bool {
        let mut compare = false;
        while let Some(event) = self.presence.poll_event() {
            match event {
                PresenceEvent::Appeared { .. } | PresenceEvent::SeenAgain { .. } => compare = true,
                PresenceEvent::Gone => {
                    self.present = None;
                    compare = false;
                }
                PresenceEvent::Wipe => {
                    self.cache.wipe();
                    tracing::info!("no card for the preset time: the cache is wiped");
                }
            }
        }
        self.log_notes();
        compare
    }

    pub(super) fn log_notes(&mut self) {
        while let Some(note) = self.cache.poll_note() {
            tracing::warn!(%note, "the reader's cache");
        }
    }

    /// Works with the card. What the card's answers say about its presence is taken note of.
    pub(super) async fn with_card<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut (dyn CardLink + Send)) -> Result<T, CardError> + Send + 'static,
    ) -> Result<T, CardError> {
        let (done, answered) = self.with_link(work).await;
        let now = self.clock.now();
        match (&done, answered) {
            (Err(CardError::Swapped), _) => self.presence.failed(now, CardError::Swapped),
            (_, Some(Ok(()))) => self.presence.answered(now),
            (_, Some(Err(error))) => self.presence.failed(now, error),
            (_, None) => {}
        }
        self.conclude();
        done
    }

    /// The work's result, and how the last APDU went, if there was one.
    async fn with_link<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut (dyn CardLink + Send)) -> Result<T, CardError> + Send + 'static,
    ) -> (Result<T, CardError>, Option<Result<(), CardError>>) {
        let card = self.card.clone();
        let worked = tokio::task::spawn_blocking(move || {
            // A link that panicked is asked again: it is the driver's to be sound.
            let mut link = card.lock().unwrap_or_else(PoisonError::into_inner);
            let mut watched = Watched { link: &mut **link, answered: None };
            (work(&mut watched), watched.answered)
        });
        worked.await.unwrap_or((Err(CardError::Link), Some(Err(CardError::Link))))
    }

    pub(super) async fn wait_for_card(&mut self) -> Result<Configuration, ReadError> {
        let until = self.clock.now().plus(CARD_WAIT);
        loop {
            if self.poll().await?
                && let Some(configuration) = self.present_configuration()
            {
                return Ok(configuration.clone());
            }
            if self.clock.now() >= until {
                return Err(ReadError::NoCard);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Looks until it is seen or taken to be gone.
    pub(super) async fn is_still_there(&mut self, configuration: &Configuration) -> bool {
        loop {
            match self.poll().await {
                Ok(true) => return self.present_configuration() == Some(configuration),
                Ok(false) if self.card_is_present() => tokio::time::sleep(POLL_EVERY).await,
                Ok(false) | Err(_) => return false,
            }
        }
    }
}

/// A link that remembers whether the card answered.
struct Watched<'a> {
    link: &'a mut (dyn CardLink + Send),
    answered: Option<Result<(), CardError>>,
}

impl CardLink for Watched<'_> {
    fn poll(&mut self) -> Result<Option<CardPresent>, CardError> {
        self.link.poll()
    }

    fn transceive(&mut self, apdu: &[u8]) -> Result<Zeroizing<Vec<u8>>, CardError> {
        let response = self.link.transceive(apdu);
        self.answered = Some(response.as_ref().map(drop).map_err(|error| *error));
        response
    }
}

#[cfg(test)]
mod tests;
