//! A card in a slot: echoes, remembers until it is reset, and can be held up or pulled out.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use countersign_smartcard::vpcd::{SlotCard, SlotEvent, VirtualReader};
use libtest_mimic::Failed;
use testkit::parts::Pcscd;

/// Longest wait for what has to come.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// T=1, no historical bytes.
pub(crate) const ATR: [u8; 5] = [0x3B, 0x80, 0x80, 0x01, 0x01];

/// Remember something; is it remembered; wait until let go.
pub(crate) const REMEMBER: &str = "80200000";
pub(crate) const RECALL: &str = "80300000";
pub(crate) const HOLD: &str = "80400000";

struct Card {
    atr: Vec<u8>,
    remembers: bool,
    resets: Arc<AtomicU32>,
    held: Sender<()>,
    let_go: Arc<Mutex<Receiver<()>>>,
}

impl SlotCard for Card {
    fn atr(&self) -> Vec<u8> {
        self.atr.clone()
    }

    fn power_on(&mut self) {
        self.remembers = false;
    }

    fn power_off(&mut self) {
        self.remembers = false;
    }

    fn reset(&mut self) {
        self.remembers = false;
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn transmit(&mut self, command: &[u8]) -> Vec<u8> {
        match command.get(1) {
            Some(0x20) => self.remembers = true,
            Some(0x30) if !self.remembers => return vec![0x69, 0x85],
            Some(0x30) => {}
            Some(0x40) => {
                let _ = self.held.send(());
                let let_go = self.let_go.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = let_go.recv_timeout(BOUND);
            }
            Some(0xEE) => {
                let data = match command {
                    [_, _, _, _, 0, high, low, rest @ ..] => {
                        let length = u16::from_be_bytes([*high, *low]);
                        &rest[..length.into()]
                    }
                    [_, _, _, _, length, rest @ ..] => &rest[..usize::from(*length)],
                    _ => &[],
                };
                return [data, &[0x90, 0x00]].concat();
            }
            _ => return vec![0x6D, 0x00],
        }
        vec![0x90, 0x00]
    }
}

/// A card that is kept in a slot by a thread until this is dropped.
pub(crate) struct InSlot {
    stop: Arc<AtomicBool>,
    resets: Arc<AtomicU32>,
    events: Receiver<SlotEvent>,
    held: Receiver<()>,
    go: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl InSlot {
    pub(crate) fn put(pcscd: &Pcscd, slot: u16) -> Result<Self, Failed> {
        Self::put_with(pcscd, slot, &ATR)
    }

    /// A card with this ATR; back when the reader has spoken to it.
    pub(crate) fn put_with(pcscd: &Pcscd, slot: u16, atr: &[u8]) -> Result<Self, Failed> {
        let reader: VirtualReader = pcscd.slot(slot).parse()?;
        let (stop, resets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (tell, events) = channel();
        let (hold, held) = channel();
        let (go, gone) = channel();
        let let_go = Arc::new(Mutex::new(gone));
        let (atr, stopped, counted) = (atr.to_vec(), Arc::clone(&stop), Arc::clone(&resets));
        let thread = thread::spawn(move || {
            let mut card = Card { atr, remembers: false, resets: counted, held: hold, let_go };
            reader.run(&mut card, &stopped, &mut |event| {
                let _ = tell.send(event.clone());
            });
        });
        let card = Self { stop, resets, events, held, go, thread: Some(thread) };
        card.is_told(|event| *event == SlotEvent::Inserted)?;
        Ok(card)
    }

    /// Waits for an event of this kind, passing over others.
    pub(crate) fn is_told(&self, wanted: fn(&SlotEvent) -> bool) -> Result<(), Failed> {
        loop {
            if wanted(&self.events.recv_timeout(BOUND)?) {
                return Ok(());
            }
        }
    }

    /// Waits until a command is held up.
    pub(crate) fn holds(&self) -> Result<(), Failed> {
        Ok(self.held.recv_timeout(BOUND)?)
    }

    /// Lets the held command go on.
    pub(crate) fn let_go(&self) {
        let _ = self.go.send(());
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::SeqCst)
    }
}

impl Drop for InSlot {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.let_go();
        let _panicked = self.thread.take().map(JoinHandle::join);
    }
}
