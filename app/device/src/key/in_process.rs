//! A card in this very process: the whole stack of a card without a reader.

use countersign_crypto::CryptoRng;
use countersign_iso7816::{CardLink, CardMachine, InProcess, LinkError};
use countersign_payment::card::{Screen, SecurityDeviceCard};

use super::KeyChip;

/// A card with its own display and keypad `S`, reached over a [`CardLink`] that ends in this
/// process: the same bytes as behind a reader. It can be taken away and reset at any moment.
pub struct InProcessCard<S: Screen> {
    machine: CardMachine<SecurityDeviceCard<KeyChip, S>>,
    rng: Box<dyn CryptoRng + Send>,
    is_there: bool,
    /// The reader has not told yet.
    was_reset: bool,
}

impl<S: Screen> InProcessCard<S> {
    /// A card that lies on its reader, powered.
    #[must_use]
    pub fn new(chip: KeyChip, screen: S, rng: Box<dyn CryptoRng + Send>) -> Self {
        let mut machine = CardMachine::new(SecurityDeviceCard::new(chip, screen));
        machine.power();
        Self { machine, rng, is_there: true, was_reset: false }
    }

    /// Takes it away: it loses its power, and who talks to it is told [`LinkError::Removed`].
    pub fn remove(&mut self) {
        self.machine.reset();
        self.is_there = false;
    }

    /// Puts it back.
    pub fn insert(&mut self) {
        self.machine.power();
        self.is_there = true;
    }

    /// Someone else resets it: who talks to it is told [`LinkError::Reset`] once.
    pub fn reset(&mut self) {
        self.machine.reset();
        self.was_reset = true;
    }

    /// Its answer to reset.
    #[must_use]
    pub fn atr(&self) -> Vec<u8> {
        self.machine.atr()
    }
}

impl<S: Screen> CardLink for InProcessCard<S> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        if !self.is_there {
            return Err(LinkError::Removed);
        }
        if std::mem::take(&mut self.was_reset) {
            return Err(LinkError::Reset);
        }
        InProcess::new(&mut self.machine, &mut *self.rng).transmit(command)
    }
}
