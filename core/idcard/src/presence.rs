//! Whether a card lies on the reader, judged from several signals (C6, C11, C15), sans I/O.
//!
//! One "none found" is never removal: a card that was read may not answer the next find while it
//! is still there. A card has gone after [`MISSES_MIN`] misses in a row *and* [`QUIET`] without a
//! sign of life, or after one miss that confirms an APDU's "removed", or when the host or a switch
//! says so. When no card was seen for the preset time, the reader wipes what it keeps.

use alloc::collections::VecDeque;
use core::fmt;
use core::time::Duration;

use countersign_crypto::UnixTime;

use crate::card::CardError;

/// Fewest looks in a row that found nothing before a card counts as gone.
pub const MISSES_MIN: u32 = 3;
/// Shortest time without a sign of life before a card counts as gone.
pub const QUIET: Duration = Duration::from_millis(500);
/// After so long without a look, a card that is found may be another.
pub const UNWATCHED_MAX: Duration = Duration::from_secs(2);
/// How long what was read is kept without a card, unless set otherwise.
pub const WIPE_AFTER: Duration = Duration::from_secs(10);

/// A card's UID.
pub type Uid = [u8; 8];

/// What the machine concludes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A card is there that was not: read its configuration.
    Appeared {
        /// Its UID.
        uid: Uid,
    },
    /// The card was out of sight for a moment, and one with its UID is there again: it may be
    /// another, so compare its configuration.
    SeenAgain {
        /// Its UID.
        uid: Uid,
    },
    /// The card has gone.
    Gone,
    /// No card was seen for the preset time: wipe what is kept (C11, C15).
    Wipe,
}

impl fmt::Debug for PresenceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appeared { .. } => "Appeared",
            Self::SeenAgain { .. } => "SeenAgain",
            Self::Gone => "Gone",
            Self::Wipe => "Wipe",
        })
    }
}

/// The machine. Each input has the time; then drain [`poll_event`](Self::poll_event), and call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) says.
///
/// Time is counted between inputs. A clock that jumps forward shortens what is kept; one that goes
/// back cannot prolong it: the time in question then counts as over.
#[derive(Debug)]
pub struct Presence {
    wipe_after: Duration,
    /// Whether the reader keeps anything that a wipe would erase.
    keeps: bool,
    now: Option<UnixTime>,
    /// How long ago the last sign of life of any card was.
    unseen: Duration,
    card: Option<Card>,
    /// How long ago the first of the misses in a row was, if the last look or APDU was one.
    missed: Option<Duration>,
    events: VecDeque<PresenceEvent>,
}

struct Card {
    uid: Uid,
    misses: u32,
    /// An APDU said "removed"; one miss confirms it.
    removed: bool,
    /// It was out of sight since its configuration was read.
    interrupted: bool,
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Card({} misses)", self.misses)
    }
}

impl Presence {
    /// Nothing seen yet. `wipe_after` is the preset time of C11 and C15, at least [`QUIET`].
    #[must_use]
    pub fn new(wipe_after: Duration) -> Self {
        Self {
            wipe_after: wipe_after.max(QUIET),
            keeps: false,
            now: None,
            unseen: Duration::ZERO,
            card: None,
            missed: None,
            events: VecDeque::new(),
        }
    }

    /// Whether a card is taken to be there. After a single miss it still is.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.card.is_some()
    }

    /// Whether the reader keeps anything now; without, there is nothing to wipe.
    pub const fn set_keeps(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// A look found this card.
    pub fn found(&mut self, now: UnixTime, uid: Uid) {
        self.advance(now); // what was due before this sighting stays due
        let unwatched = self.unseen > UNWATCHED_MAX;
        match &self.card {
            Some(card) if card.uid == uid => {
                if card.interrupted || unwatched {
                    self.events.push_back(PresenceEvent::SeenAgain { uid });
                }
            }
            other => {
                if other.is_some() {
                    self.events.push_back(PresenceEvent::Gone);
                }
                self.events.push_back(PresenceEvent::Appeared { uid });
            }
        }
        self.card = Some(Card { uid, misses: 0, removed: false, interrupted: false });
        self.alive();
    }

    /// A look found no card.
    pub fn none_found(&mut self, now: UnixTime) {
        self.advance(now);
        self.miss(1);
    }

    /// The card answered an APDU.
    pub fn answered(&mut self, now: UnixTime) {
        self.advance(now);
        self.alive();
    }

    /// An APDU, or a look, failed.
    pub fn failed(&mut self, now: UnixTime, error: CardError) {
        self.advance(now);
        match error {
            CardError::Removed => {
                // Not a look: the next one confirms it or not.
                self.miss(0);
                if let Some(card) = &mut self.card {
                    card.removed = true;
                }
            }
            CardError::Timeout => self.miss(1),
            // The interface cannot see: no sign of life, and none of absence either.
            CardError::Link => self.miss(0),
            CardError::Swapped => {
                self.alive();
                self.interrupt();
            }
            CardError::Refused(_) | CardError::Malformed => self.alive(),
        }
    }

    /// The host or a switch says that the card was taken.
    pub fn taken(&mut self, now: UnixTime) {
        self.advance(now);
        self.gone();
        self.wipe_if_due();
    }

    /// Takes the time.
    pub fn handle_timeout(&mut self, now: UnixTime) {
        self.advance(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixTime> {
        let absent = self.absent().filter(|_| self.keeps)?;
        Some(self.now?.plus(self.wipe_after.saturating_sub(absent)))
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<PresenceEvent> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: UnixTime) {
        let passed = match self.now {
            None => Duration::ZERO,
            Some(last) if now < last => Duration::MAX,
            Some(last) => now.since(last),
        };
        self.now = Some(now);
        self.unseen = self.unseen.saturating_add(passed);
        self.missed = self.missed.map(|since| since.saturating_add(passed));
        self.wipe_if_due();
    }

    const fn alive(&mut self) {
        self.unseen = Duration::ZERO;
        self.missed = None;
        if let Some(card) = &mut self.card {
            card.misses = 0;
            card.removed = false;
        }
    }

    const fn interrupt(&mut self) {
        if let Some(card) = &mut self.card {
            card.interrupted = true;
        }
    }

    fn miss(&mut self, looks: u32) {
        self.missed = self.missed.or(Some(Duration::ZERO));
        self.interrupt();
        if let Some(card) = &mut self.card {
            card.misses = card.misses.saturating_add(looks);
            let quiet = card.misses >= MISSES_MIN && self.unseen >= QUIET;
            if quiet || (card.removed && looks > 0) {
                self.gone();
            }
        }
        self.wipe_if_due();
    }

    fn gone(&mut self) {
        if self.card.take().is_some() {
            self.events.push_back(PresenceEvent::Gone);
        }
    }

    /// How long no card was seen. A card that is taken to be there counts from its first miss: how
    /// long nobody had looked before says nothing.
    const fn absent(&self) -> Option<Duration> {
        if self.card.is_none() { Some(self.unseen) } else { self.missed }
    }

    fn wipe_if_due(&mut self) {
        if self.keeps && self.absent().is_some_and(|absent| absent >= self.wipe_after) {
            self.gone();
            self.keeps = false;
            self.events.push_back(PresenceEvent::Wipe);
        }
    }
}
