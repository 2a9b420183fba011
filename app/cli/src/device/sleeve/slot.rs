//! The sleeve's card in a virtual reader, while it has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use countersign_device::RelayedCard;
use countersign_smartcard::vpcd::{SlotEvent, VirtualReader};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::device::virtual_reader::AWAY_MIN;

/// What the virtual reader does that nobody told yet.
const TELL_MAX: usize = 64;

/// A virtual reader and the card that is in it.
pub(super) struct VirtualSlot {
    reader: VirtualReader,
    tell: mpsc::Sender<SlotEvent>,
    placed: Option<Arc<AtomicBool>>,
    /// When a card was taken out last.
    taken: Option<Instant>,
}

impl VirtualSlot {
    /// An empty slot, and what will happen there.
    pub(super) fn new(reader: VirtualReader) -> (Self, mpsc::Receiver<SlotEvent>) {
        let (tell, told) = mpsc::channel(TELL_MAX);
        (Self { reader, tell, placed: None, taken: None }, told)
    }

    /// Puts a card in, as soon as the reader has seen the slot empty.
    pub(super) async fn put(&mut self, mut card: RelayedCard) {
        self.empty();
        if let Some(taken) = self.taken {
            sleep(AWAY_MIN.saturating_sub(taken.elapsed())).await;
        }
        let (gone, reader, tell) = (card.gone(), self.reader.clone(), self.tell.clone());
        self.placed = Some(gone.clone());
        // A thread that nobody waits for: it may be amid a command.
        thread::spawn(move || {
            reader.run(&mut card, &gone, &mut |event| {
                // A program that does not look at what it is told misses it.
                let _full = tell.try_send(event.clone());
            });
        });
    }

    /// Takes the card out, if there is one.
    pub(super) fn empty(&mut self) {
        if let Some(gone) = self.placed.take() {
            gone.store(true, Ordering::SeqCst);
            self.taken = Some(Instant::now());
        }
    }
}

impl Drop for VirtualSlot {
    fn drop(&mut self) {
        self.empty();
    }
}
