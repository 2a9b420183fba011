//! The card in front of the reader: looking for it, and working with it.

use std::sync::PoisonError;

use countersign_idcard::Configuration;
use countersign_idcard::card::{CardError, CardLink, read_configuration};

use super::{CARD_WAIT, POLL_EVERY, ReadError, Reader};

impl Reader {
    /// Looks for a card once. A card that was not there before has its configuration read and
    /// cached at once, before any read command (C6). Returns whether a card is there.
    ///
    /// # Errors
    /// [`CardError`] if the card's configuration cannot be read.
    pub async fn poll(&mut self) -> Result<bool, CardError> {
        let known = self.present.as_ref().map(|(uid, _)| *uid);
        let found = self
            .with_card(move |link| {
                let Some(card) = link.poll()? else { return Ok(None) };
                if known == Some(card.uid) {
                    return Ok(Some((card.uid, None)));
                }
                Ok(Some((card.uid, Some(read_configuration(link)?))))
            })
            .await?;
        match found {
            None => self.present = None,
            Some((_, None)) => {}
            Some((uid, Some(configuration))) => {
                self.cache.card_appeared(&configuration);
                self.present = Some((uid, configuration));
            }
        }
        Ok(self.present.is_some())
    }

    pub(super) async fn with_card<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut (dyn CardLink + Send)) -> Result<T, CardError> + Send + 'static,
    ) -> Result<T, CardError> {
        let card = self.card.clone();
        let worked = tokio::task::spawn_blocking(move || {
            // A link that panicked is asked again: it is the driver's to be sound.
            work(&mut **card.lock().unwrap_or_else(PoisonError::into_inner))
        });
        worked.await.unwrap_or(Err(CardError::Link))
    }

    pub(super) async fn wait_for_card(&mut self) -> Result<Configuration, ReadError> {
        let until = self.clock.now().plus(CARD_WAIT);
        loop {
            self.poll().await?;
            if let Some(configuration) = self.present_configuration() {
                return Ok(configuration.clone());
            }
            if self.clock.now() >= until {
                return Err(ReadError::NoCard);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    pub(super) async fn is_still_there(&mut self, configuration: &Configuration) -> bool {
        self.poll().await.is_ok() && self.present_configuration() == Some(configuration)
    }
}
