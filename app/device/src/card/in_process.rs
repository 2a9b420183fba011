//! A signing card in this very process: the whole stack of a card without a reader.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_crypto::{CryptoRng, Secret, UnixTime};
use countersign_iso7816::{CardLink, CardMachine, InProcess, LinkError};
use countersign_payment::joint::card::{ConfirmError, Interface, JointCard, JointChip, View};

use super::CardChipDir;

/// What tells the time to a card.
type Clock = Box<dyn Fn() -> UnixTime + Send>;

struct Card<C: JointChip> {
    machine: CardMachine<JointCard<C>>,
    rng: Box<dyn CryptoRng + Send>,
    clock: Clock,
    at: Option<Interface>,
    /// The reader has not told yet.
    was_reset: bool,
}

/// A signing card with its own display, keypad and battery, reached over a [`CardLink`] that ends
/// in this process: the same bytes as behind a reader. It can be put into a terminal's reader,
/// taken out, held to a contactless one, reset, and lose its power, at any moment.
///
/// A handle: a terminal has one as its link, and the card's holder another one of the same card.
pub struct InProcessJointCard<C: JointChip = CardChipDir>(Arc<Mutex<Card<C>>>);

impl<C: JointChip> Clone for InProcessJointCard<C> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<C: JointChip> InProcessJointCard<C> {
    /// A card in its holder's hand, at no reader yet.
    #[must_use]
    pub fn new(
        chip: C,
        clock: impl Fn() -> UnixTime + Send + 'static,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        let machine = CardMachine::new(JointCard::new(chip));
        let clock = Box::new(clock);
        Self(Arc::new(Mutex::new(Card { machine, rng, clock, at: None, was_reset: false })))
    }

    /// Puts it into a terminal's reader, or holds it to a contactless one; the reader powers it.
    pub fn insert(&self, interface: Interface) {
        let mut card = self.now();
        if card.at.is_some() {
            card.leave();
        }
        card.machine.application_mut().set_interface(interface);
        card.machine.power();
        card.at = Some(interface);
        card.was_reset = false;
    }

    /// Takes it away: who talks to it is told [`LinkError::Removed`].
    pub fn remove(&self) {
        self.now().leave();
    }

    /// Someone else resets it: who talks to it is told [`LinkError::Reset`] once.
    pub fn reset(&self) {
        let mut card = self.now();
        card.machine.reset();
        card.was_reset = true;
    }

    /// Its battery fails, wherever it is. It is at no reader after that.
    pub fn power_lost(&self) {
        let mut card = self.now();
        card.leave();
        card.machine.application_mut().power_lost();
    }

    /// Its holder types the PIN at its keypad and presses the key that consents.
    ///
    /// # Errors
    /// [`ConfirmError`].
    pub fn confirm(&self, pin: &Secret) -> Result<(), ConfirmError> {
        self.now().machine.application_mut().confirm(pin)
    }

    /// Its holder presses the key that declines.
    pub fn decline(&self) {
        self.now().machine.application_mut().decline();
    }

    /// Looks at its display.
    pub fn view<R>(&self, look: impl FnOnce(View<'_>) -> R) -> R {
        look(self.now().machine.application().view())
    }

    /// Its chip, to look at or to change.
    pub fn chip<R>(&self, what: impl FnOnce(&mut C) -> R) -> R {
        what(self.now().machine.application_mut().chip_mut())
    }

    /// The card, told the time.
    fn now(&self) -> MutexGuard<'_, Card<C>> {
        // What a panic elsewhere left is a card in one of its states all the same.
        let mut card = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (card.clock)();
        card.machine.application_mut().tick(now);
        card
    }
}

impl<C: JointChip> Card<C> {
    fn leave(&mut self) {
        if self.at.take().is_some() {
            // The conversation first: a card that is taken out amid a command has not done it.
            self.machine.reset();
            self.machine.application_mut().removed();
        }
    }
}

impl<C: JointChip> CardLink for InProcessJointCard<C> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let mut card = self.now();
        if card.at.is_none() {
            return Err(LinkError::Removed);
        }
        if std::mem::take(&mut card.was_reset) {
            return Err(LinkError::Reset);
        }
        let Card { machine, rng, .. } = &mut *card;
        InProcess::new(machine, &mut **rng).transmit(command)
    }
}
