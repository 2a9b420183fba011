//! Where the card is: in the reader with contacts, at the contactless one, or in its holder's hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use countersign_crypto::CryptoRng;
use countersign_iso7816::CardMachine;
use countersign_net::Clock;
use countersign_payment::joint::card::{Interface, JointCard, JointChip};
use countersign_smartcard::vpcd::{SlotCard, SlotEvent, VirtualReader};
use tokio::time::Instant;

use super::serve::Happening;
use crate::device::virtual_reader::AWAY_MIN;

/// What the card says once it was taken away: "no precise diagnosis".
const GONE: [u8; 2] = [0x6f, 0x00];

/// The card itself, whoever has it.
pub(super) struct Body<C: JointChip> {
    pub(super) machine: CardMachine<JointCard<C>>,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    pub(super) clock: Arc<dyn Clock>,
}

impl<C: JointChip> Body<C> {
    /// The card's application, which knows what time it is.
    pub(super) fn card(&mut self) -> &mut JointCard<C> {
        let now = self.clock.now();
        let card = self.machine.application_mut();
        card.tick(now);
        card
    }
}

/// The card, for its readers and its holder.
pub(super) struct Shared<C: JointChip>(Arc<Mutex<Body<C>>>);

impl<C: JointChip> Clone for Shared<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: JointChip> Shared<C> {
    pub(super) fn new(body: Body<C>) -> Self {
        Self(Arc::new(Mutex::new(body)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Body<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The virtual readers that there are.
pub(super) struct Readers {
    pub(super) contact: VirtualReader,
    pub(super) contactless: Option<VirtualReader>,
}

/// The hand that holds the card, or has put it somewhere.
pub(super) struct Hand<C: JointChip> {
    card: Shared<C>,
    readers: Readers,
    placed: Option<Placed>,
    /// When it was taken out of a reader last.
    taken: Option<Instant>,
    tell: SyncSender<Happening>,
}

/// A card that is in a reader.
struct Placed {
    at: Interface,
    taken: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl<C: JointChip + Send + 'static> Hand<C> {
    pub(super) const fn new(
        card: Shared<C>,
        readers: Readers,
        tell: SyncSender<Happening>,
    ) -> Self {
        Self { card, readers, placed: None, taken: None, tell }
    }

    /// Which reader the card is in.
    pub(super) fn place(&self) -> Option<Interface> {
        self.placed.as_ref().map(|placed| placed.at)
    }

    /// Puts the card into a reader; false if there is none of this kind. It is taken away from the
    /// other one before.
    pub(super) fn put(&mut self, at: Interface) -> bool {
        let reader = match at {
            Interface::Contact => Some(self.readers.contact.clone()),
            Interface::Contactless => self.readers.contactless.clone(),
        };
        let Some(reader) = reader else { return false };
        self.take();
        if let Some(taken) = self.taken {
            thread::sleep(AWAY_MIN.saturating_sub(taken.elapsed()));
        }
        self.card.lock().card().set_interface(at);
        let taken = Arc::new(AtomicBool::new(false));
        let mut slot =
            InSlot { card: self.card.clone(), taken: taken.clone(), tell: self.tell.clone() };
        let (stop, tell) = (taken.clone(), self.tell.clone());
        let thread = thread::spawn(move || {
            reader.run(&mut slot, &stop, &mut |event: &SlotEvent| {
                // A program that does not look at what it is told misses it.
                let _full = tell.try_send(Happening::Slot(at, event.clone()));
            });
        });
        self.placed = Some(Placed { at, taken, thread });
        true
    }

    /// Takes the card out of the reader that it is in; false if it is in none.
    pub(super) fn take(&mut self) -> bool {
        let Some(placed) = self.placed.take() else { return false };
        placed.taken.store(true, Ordering::SeqCst);
        let mut body = self.card.lock();
        body.card().removed();
        // What the reader had begun to say is forgotten.
        body.machine.reset();
        drop(body);
        // The reader sees it gone before anybody puts it anywhere else.
        let _ended = placed.thread.join();
        self.taken = Some(Instant::now());
        true
    }
}

impl<C: JointChip> Drop for Hand<C> {
    fn drop(&mut self) {
        if let Some(placed) = &self.placed {
            placed.taken.store(true, Ordering::SeqCst);
        }
    }
}

/// The card as one of its readers has it, until it is taken away.
struct InSlot<C: JointChip> {
    card: Shared<C>,
    taken: Arc<AtomicBool>,
    tell: SyncSender<Happening>,
}

impl<C: JointChip> InSlot<C> {
    /// Does something to the card if it is still there.
    fn touch<T>(&self, done: impl FnOnce(&mut Body<C>) -> T) -> Option<T> {
        let mut body = self.card.lock();
        if self.taken.load(Ordering::SeqCst) {
            return None;
        }
        body.card();
        let done = done(&mut body);
        drop(body);
        let _full = self.tell.try_send(Happening::Touched);
        Some(done)
    }
}

impl<C: JointChip> SlotCard for InSlot<C> {
    fn atr(&self) -> Vec<u8> {
        self.card.lock().machine.atr()
    }

    fn power_on(&mut self) {
        self.touch(|body| {
            body.machine.power();
        });
    }

    fn power_off(&mut self) {
        self.touch(|body| body.machine.reset());
    }

    fn reset(&mut self) {
        self.touch(|body| body.machine.reset());
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        let answer = self.touch(|body| body.machine.handle(&mut *body.rng, command));
        answer.unwrap_or_else(|| GONE.to_vec())
    }
}
