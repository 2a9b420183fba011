use alloc::vec::Vec;
use core::fmt;

use countersign_crypto::CryptoRng;

use crate::{Application, CardLink, CardMachine, LinkError};

/// The link to a card in this very process, which never fails.
pub struct InProcess<'a, A> {
    card: &'a mut CardMachine<A>,
    rng: &'a mut dyn CryptoRng,
}

impl<'a, A: Application> InProcess<'a, A> {
    /// To this card, which takes its randomness from `rng`.
    #[must_use]
    pub fn new(card: &'a mut CardMachine<A>, rng: &'a mut dyn CryptoRng) -> Self {
        Self { card, rng }
    }

    /// The card: to reset it, for one.
    pub const fn card(&mut self) -> &mut CardMachine<A> {
        self.card
    }
}

impl<A: Application> CardLink for InProcess<'_, A> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        Ok(self.card.handle(self.rng, command))
    }
}

impl<A> fmt::Debug for InProcess<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcess")
    }
}
