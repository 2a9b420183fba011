use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use countersign_iso7816::{CardLink, LinkError};
use countersign_smartcard::vpcd::SlotCard;
use countersign_wallet::policy::status_of_refusal;
use zeroize::Zeroizing;

use super::SleeveError;
use super::session::{SleeveSession, TakenCard, Wish, response, was_reset};

/// A card at home, here (A8): it has the real card's answer to reset, and answers as the real card
/// does. Commands go there once and are never repeated.
///
/// For threads that may block, as a reader's are; never from a task of the runtime.
#[derive(Clone)]
pub struct RelayedCard {
    session: SleeveSession,
    atr: Vec<u8>,
    gone: Arc<AtomicBool>,
    /// The real card has heard nothing since its last reset.
    is_fresh: bool,
}

impl RelayedCard {
    pub(super) fn new(session: SleeveSession, taken: &TakenCard) -> Self {
        let gone = taken.gone.clone();
        Self { session, atr: taken.atr.clone(), gone, is_fresh: true }
    }

    /// True from the moment when the card is gone: given back, its lease ended, pulled at home, or
    /// the link lost. The same flag takes it out of a virtual reader: it is what
    /// [`VirtualReader::run`](countersign_smartcard::vpcd::VirtualReader::run) takes as `stop`.
    #[must_use]
    pub fn gone(&self) -> Arc<AtomicBool> {
        self.gone.clone()
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// The real card starts afresh too: a PIN that one terminal was given is not the next one's.
    fn restart(&mut self) {
        if self.is_gone() || self.is_fresh {
            return;
        }
        match self.session.ask_blocking(Wish::Reset, was_reset) {
            Ok(atr) => {
                self.atr = atr;
                self.is_fresh = true;
            }
            // A card that keeps what another terminal told it is none to go on with.
            Err(error) => {
                tracing::info!(%error, "the card at home was not reset");
                self.gone.store(true, Ordering::SeqCst);
            }
        }
    }

    fn exchange(&mut self, command: &[u8]) -> Result<Zeroizing<Vec<u8>>, SleeveError> {
        if self.is_gone() {
            return Err(SleeveError::Misuse("the card is gone"));
        }
        self.is_fresh = false;
        let wish = Wish::Transmit(Zeroizing::new(command.to_vec()));
        match self.session.ask_blocking(wish, response) {
            // Gone while it waited: what came is what was lost, not a refusal.
            Err(SleeveError::Refused(check)) if !self.is_gone() => {
                let status = status_of_refusal(&check);
                Ok(Zeroizing::new(status.word().to_be_bytes().to_vec()))
            }
            other => other,
        }
    }
}

impl SlotCard for RelayedCard {
    fn atr(&self) -> Vec<u8> {
        if self.is_gone() { Vec::new() } else { self.atr.clone() }
    }

    fn power_on(&mut self) {
        self.restart();
    }

    fn power_off(&mut self) {
        self.restart();
    }

    fn reset(&mut self) {
        self.restart();
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        // Without an answer the reader says "no precise diagnosis", and then that the card is gone.
        self.exchange(command).map(|answer| answer.to_vec()).unwrap_or_default()
    }
}

impl CardLink for RelayedCard {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        match self.exchange(command) {
            Ok(answer) => Ok(answer.to_vec()),
            Err(_) if self.is_gone() => Err(LinkError::Removed),
            Err(error) => Err(LinkError::Failed(error.to_string())),
        }
    }
}

impl fmt::Debug for RelayedCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayedCard").field("gone", &self.is_gone()).finish_non_exhaustive()
    }
}
