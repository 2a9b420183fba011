//! Whether a card is there, in virtual time (C6, C11, C15).

use std::time::Duration;

use countersign_crypto::UnixTime;
use countersign_idcard::card::CardError;
use countersign_idcard::presence::{
    MISSES_MIN, Presence, PresenceEvent, QUIET, UNWATCHED_MAX, Uid,
};

const WIPE_AFTER: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
const ONE: Uid = [1; 8];
const TWO: Uid = [2; 8];

/// A machine with its clock.
struct Stand {
    presence: Presence,
    now: UnixTime,
}

impl Stand {
    fn empty() -> Self {
        Self { presence: Presence::new(WIPE_AFTER), now: UnixTime::from_secs(1_000_000) }
    }

    /// A card lies there, and something of it is kept.
    fn with_card() -> Self {
        let mut stand = Self::empty();
        assert_eq!(stand.found(ONE), [PresenceEvent::Appeared { uid: ONE }]);
        stand.presence.set_keeps(true);
        stand
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now = self.now.plus(time);
        self
    }

    fn events(&mut self) -> Vec<PresenceEvent> {
        std::iter::from_fn(|| self.presence.poll_event()).collect()
    }

    fn found(&mut self, uid: Uid) -> Vec<PresenceEvent> {
        self.presence.found(self.now, uid);
        self.events()
    }

    fn none(&mut self) -> Vec<PresenceEvent> {
        self.presence.none_found(self.now);
        self.events()
    }

    fn failed(&mut self, error: CardError) -> Vec<PresenceEvent> {
        self.presence.failed(self.now, error);
        self.events()
    }

    fn timeout(&mut self) -> Vec<PresenceEvent> {
        self.presence.handle_timeout(self.now);
        self.events()
    }

    /// Looks every [`POLL`] and finds nothing, until something happens; how long that took.
    fn until_something(&mut self) -> (Duration, Vec<PresenceEvent>) {
        let began = self.now;
        for _ in 0..1000 {
            let events = self.pass(POLL).none();
            if !events.is_empty() {
                return (self.now.since(began), events);
            }
        }
        panic!("nothing ever happens");
    }
}

#[test]
fn one_miss_is_not_removal_nor_are_many_in_a_moment() {
    let mut stand = Stand::with_card();
    assert_eq!(stand.pass(POLL).none(), []);
    assert!(stand.presence.is_present());
    // The same card again: looked at anew, but never gone.
    assert_eq!(stand.pass(POLL).found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    assert_eq!(stand.pass(POLL).found(ONE), []);
    for _ in 0..20 {
        assert_eq!(stand.none(), [], "many misses, but no time");
    }
    let mut stand = Stand::with_card();
    for miss in 1..MISSES_MIN {
        assert_eq!(stand.pass(QUIET).none(), [], "time, but only {miss} misses");
    }
    assert_eq!(stand.pass(QUIET).none(), [PresenceEvent::Gone]);
}

#[test]
fn enough_misses_and_enough_time_are_removal() {
    let mut stand = Stand::with_card();
    let (took, events) = stand.until_something();
    assert_eq!(events, [PresenceEvent::Gone]);
    assert_eq!(took, QUIET);
    assert!(!stand.presence.is_present());
    assert_eq!(stand.pass(POLL).none(), [], "it goes once");
    assert_eq!(stand.pass(POLL).found(ONE), [PresenceEvent::Appeared { uid: ONE }]);
}

#[test]
fn a_removed_apdu_needs_one_miss_and_a_sighting_refutes_it() {
    let mut stand = Stand::with_card();
    assert_eq!(stand.failed(CardError::Removed), []);
    assert_eq!(stand.none(), [PresenceEvent::Gone]);

    let mut stand = Stand::with_card();
    assert_eq!(stand.failed(CardError::Removed), []);
    assert_eq!(stand.found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    assert_eq!(stand.none(), [], "the removal was refuted");

    // It takes a look to confirm it, not another such failure.
    let mut stand = Stand::with_card();
    for error in [CardError::Removed, CardError::Removed, CardError::Link] {
        assert_eq!(stand.failed(error), []);
    }
    assert_eq!(stand.none(), [PresenceEvent::Gone]);

    let mut stand = Stand::with_card();
    stand.failed(CardError::Removed);
    stand.presence.answered(stand.now);
    assert_eq!(stand.none(), [], "so did an answer");
}

#[test]
fn the_other_signals_count_as_what_they_are() {
    // A card that answers, be it a refusal, is there.
    let mut stand = Stand::with_card();
    for error in [CardError::Refused(0x6982), CardError::Malformed] {
        for _ in 0..10 {
            stand.pass(QUIET).none();
            stand.pass(POLL).failed(error);
        }
        assert!(stand.presence.is_present(), "{error:?}");
    }
    // A silent one goes like one that is not found.
    let mut stand = Stand::with_card();
    for _ in 1..MISSES_MIN {
        assert_eq!(stand.pass(QUIET).failed(CardError::Timeout), []);
    }
    assert_eq!(stand.pass(QUIET).failed(CardError::Timeout), [PresenceEvent::Gone]);
    // An interface that cannot see proves no removal; but what is kept goes in time.
    let mut stand = Stand::with_card();
    let mut passed = Duration::ZERO;
    while passed < WIPE_AFTER {
        assert_eq!(stand.pass(POLL).failed(CardError::Link), []);
        passed += POLL;
    }
    let end = [PresenceEvent::Gone, PresenceEvent::Wipe];
    assert_eq!(stand.pass(POLL).failed(CardError::Link), end);
    // The switch is believed at once.
    let mut stand = Stand::with_card();
    stand.presence.taken(stand.now);
    assert_eq!(stand.events(), [PresenceEvent::Gone]);
    // A swapped card is one to look at.
    let mut stand = Stand::with_card();
    assert_eq!(stand.failed(CardError::Swapped), []);
    assert_eq!(stand.found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
}

#[test]
fn another_uid_is_another_card_at_once() {
    let mut stand = Stand::with_card();
    let events = stand.pass(POLL).found(TWO);
    assert_eq!(events, [PresenceEvent::Gone, PresenceEvent::Appeared { uid: TWO }]);
}

#[test]
fn a_card_that_nobody_watched_is_looked_at_again() {
    let mut stand = Stand::with_card();
    assert_eq!(stand.pass(UNWATCHED_MAX).found(ONE), []);
    let later = UNWATCHED_MAX + Duration::from_millis(1);
    assert_eq!(stand.pass(later).found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    // APDUs are watching too.
    stand.pass(UNWATCHED_MAX);
    stand.presence.answered(stand.now);
    assert_eq!(stand.pass(UNWATCHED_MAX).found(ONE), []);
}

#[test]
fn the_wipe_comes_at_the_preset_time_after_the_last_sighting() {
    let mut stand = Stand::with_card();
    assert_eq!(stand.presence.poll_timeout(), None, "a card is there");
    let seen = stand.now;
    let (_, gone) = stand.until_something();
    assert_eq!(gone, [PresenceEvent::Gone]);
    let due = seen.plus(WIPE_AFTER);
    assert_eq!(stand.presence.poll_timeout(), Some(due));
    stand.now = due.minus(Duration::from_millis(1));
    assert_eq!(stand.timeout(), []);
    stand.now = due;
    assert_eq!(stand.timeout(), [PresenceEvent::Wipe]);
    assert_eq!(stand.presence.poll_timeout(), None);
    assert_eq!(stand.pass(WIPE_AFTER).timeout(), [], "once");
}

#[test]
fn a_card_that_comes_back_in_time_keeps_what_is_kept() {
    let mut stand = Stand::with_card();
    stand.until_something();
    stand.pass(WIPE_AFTER - QUIET - POLL);
    assert_eq!(stand.found(ONE), [PresenceEvent::Appeared { uid: ONE }]);
    // And the time begins anew, with any card.
    stand.until_something();
    stand.pass(WIPE_AFTER - QUIET - POLL);
    assert_eq!(stand.found(TWO), [PresenceEvent::Appeared { uid: TWO }]);
    assert_eq!(stand.presence.poll_timeout(), None);
}

#[test]
fn a_card_that_comes_back_too_late_finds_it_wiped() {
    let mut stand = Stand::with_card();
    stand.until_something();
    // Nobody called in time: the wipe is due before the card counts as there.
    stand.pass(WIPE_AFTER);
    assert_eq!(stand.found(ONE), [PresenceEvent::Wipe, PresenceEvent::Appeared { uid: ONE }]);
}

#[test]
fn nothing_kept_is_nothing_to_wipe_and_a_card_that_stays_keeps_it() {
    let mut stand = Stand::empty();
    assert_eq!(stand.none(), []);
    assert_eq!(stand.pass(WIPE_AFTER * 2).none(), []);
    assert_eq!(stand.presence.poll_timeout(), None);
    let mut stand = Stand::with_card();
    for _ in 0..1000 {
        assert_eq!(stand.pass(POLL).found(ONE), []);
    }
    // A read may take long, and nobody looks meanwhile: no sign of absence, no wipe.
    assert_eq!(stand.pass(WIPE_AFTER * 2).timeout(), []);
    assert_eq!(stand.found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
}

#[test]
fn a_flapping_card_neither_goes_nor_is_wiped_and_is_compared_each_time() {
    let mut stand = Stand::with_card();
    for _ in 0..500 {
        assert_eq!(stand.pass(POLL).none(), []);
        assert_eq!(stand.pass(POLL).none(), []);
        assert_eq!(stand.pass(POLL).found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    }
    // Flapping between answers too.
    for _ in 0..500 {
        assert_eq!(stand.pass(POLL).failed(CardError::Timeout), []);
        stand.presence.answered(stand.now);
    }
    assert!(stand.presence.is_present());
}

#[test]
fn a_clock_that_goes_back_never_prolongs() {
    for back in [Duration::from_millis(1), Duration::from_secs(3600), Duration::from_secs(999_999)]
    {
        let mut stand = Stand::with_card();
        stand.until_something();
        stand.now = stand.now.minus(back);
        assert_eq!(stand.timeout(), [PresenceEvent::Wipe], "back by {back:?}");
        // With a card there it wipes nothing, and the count starts from the new time.
        let mut stand = Stand::with_card();
        stand.now = stand.now.minus(back);
        assert_eq!(stand.found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
        let (took, events) = stand.until_something();
        assert_eq!((took, &events[..]), (QUIET, &[PresenceEvent::Gone][..]));
        let (took, events) = stand.until_something();
        assert_eq!((took, &events[..]), (WIPE_AFTER - QUIET, &[PresenceEvent::Wipe][..]));
    }
}

#[test]
fn a_clock_that_jumps_forward_only_shortens() {
    let mut stand = Stand::with_card();
    stand.until_something();
    stand.pass(Duration::from_secs(1_000_000_000));
    assert_eq!(stand.timeout(), [PresenceEvent::Wipe]);
    // While the card is there, nothing happens to it but a second look.
    let mut stand = Stand::with_card();
    stand.pass(Duration::from_secs(1_000_000_000));
    assert_eq!(stand.found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    // One miss after the jump is still only one. Enough of them are removal, and then the time
    // without a sighting has long passed.
    let mut stand = Stand::with_card();
    stand.pass(Duration::from_secs(1_000_000_000));
    for _ in 1..MISSES_MIN {
        assert_eq!(stand.pass(POLL).none(), []);
    }
    assert_eq!(stand.pass(POLL).none(), [PresenceEvent::Gone, PresenceEvent::Wipe]);
}

/// A read may wait long for the server while nobody looks; and a card that was read may not answer
/// the next look.
#[test]
fn one_miss_after_a_long_read_wipes_nothing() {
    let mut stand = Stand::with_card();
    assert_eq!(stand.pass(WIPE_AFTER * 2).none(), []);
    assert_eq!(stand.pass(POLL).found(ONE), [PresenceEvent::SeenAgain { uid: ONE }]);
    assert_eq!(stand.presence.poll_timeout(), None);
}

#[test]
fn the_preset_time_is_no_shorter_than_it_takes_to_judge() {
    let mut stand = Stand::with_card();
    stand.presence = Presence::new(Duration::ZERO);
    stand.found(ONE);
    stand.presence.set_keeps(true);
    assert_eq!(stand.pass(POLL).none(), []);
    let (took, events) = stand.until_something();
    assert_eq!(
        (took, &events[..]),
        (QUIET - POLL, &[PresenceEvent::Gone, PresenceEvent::Wipe][..])
    );
}

#[test]
fn nothing_of_a_card_is_printed() {
    let stand = Stand::with_card();
    let shown = format!("{:?} {:?}", stand.presence, PresenceEvent::Appeared { uid: ONE });
    assert!(!shown.contains("[1, 1"), "{shown}");
}
