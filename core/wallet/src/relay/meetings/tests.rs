//! Meetings between scripted devices, in virtual time.

use std::time::Duration;

use super::*;
use crate::relay::message::{Alarm, AlarmId};
use crate::relay::{CREDIT_STEP, MeetingEnd, Rate};

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const MANAGER: SeatId = 1;
const SLEEVE: SeatId = 2;
const OTHER: SeatId = 3;

fn serial(name: &str) -> Serial {
    Serial::new(name).unwrap()
}

/// A manager that is registered, and two sleeves.
fn hall_with(limits: Limits) -> Meetings {
    let mut meetings = Meetings::new(limits);
    meetings.enter(NOW, MANAGER, Party::Manager, serial("MGR-1"));
    meetings.enter(NOW, SLEEVE, Party::Sleeve, serial("SLV-1"));
    meetings.enter(NOW, OTHER, Party::Sleeve, serial("SLV-2"));
    meetings.register(MANAGER).unwrap();
    assert_eq!(told(&mut meetings, MANAGER), [RelayMessage::Registered(WINDOW)]);
    meetings
}

fn hall() -> Meetings {
    hall_with(Limits::default())
}

/// All that there is for a device at `now`.
fn told_at(meetings: &mut Meetings, now: UnixTime, seat: SeatId) -> Vec<RelayMessage> {
    std::iter::from_fn(|| meetings.poll_transmit(now, seat)).collect()
}

fn told(meetings: &mut Meetings, seat: SeatId) -> Vec<RelayMessage> {
    told_at(meetings, NOW, seat)
}

fn woken(meetings: &mut Meetings) -> Vec<SeatId> {
    let mut woken: Vec<_> = std::iter::from_fn(|| meetings.poll_woken()).collect();
    woken.sort_unstable();
    woken.dedup();
    woken
}

fn asks(meetings: &mut Meetings, now: UnixTime, seat: SeatId) -> Result<MeetingId, MeetRefusal> {
    meetings.meet(now, seat, &serial("MGR-1")).unwrap()
}

/// The sleeve meets the manager, and both have heard it.
fn met(meetings: &mut Meetings, seat: SeatId) -> MeetingId {
    let meeting = asks(meetings, NOW, seat).unwrap();
    told(meetings, MANAGER);
    told(meetings, seat);
    meeting
}

fn data(meeting: MeetingId, bytes: &[u8]) -> DeviceMessage {
    DeviceMessage::Data(Piece { meeting, bytes: Bounded::new(bytes).unwrap() })
}

const fn credit(meeting: MeetingId, bytes: u32) -> DeviceMessage {
    DeviceMessage::Credit(Credited { meeting, bytes })
}

const fn close(meeting: MeetingId, reason: CloseReason) -> DeviceMessage {
    DeviceMessage::Close(Closed { meeting, reason })
}

const fn closed(meeting: MeetingId, reason: CloseReason) -> RelayMessage {
    RelayMessage::Close(Closed { meeting, reason })
}

/// The bytes of these messages, which are data only.
fn bytes_of(messages: Vec<RelayMessage>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        let RelayMessage::Data(piece) = message else { panic!("{message:?}") };
        bytes.extend(piece.bytes.as_slice());
    }
    bytes
}

/// Fills the window from the sleeve to the manager.
fn fill(meetings: &mut Meetings, meeting: MeetingId) {
    for _ in 0..WINDOW as usize / PIECE_MAX {
        meetings.handle(SLEEVE, data(meeting, &[7; PIECE_MAX])).unwrap();
    }
}

#[test]
fn two_devices_meet_and_their_bytes_arrive_as_they_were_given() {
    let mut meetings = hall();
    woken(&mut meetings);
    let meeting = asks(&mut meetings, NOW, SLEEVE).unwrap();
    assert_eq!(woken(&mut meetings), [MANAGER, SLEEVE]);
    let to_manager = Met { meeting, peer: serial("SLV-1") };
    let to_sleeve = Met { meeting, peer: serial("MGR-1") };
    assert_eq!(told(&mut meetings, MANAGER), [RelayMessage::Met(to_manager)]);
    assert_eq!(told(&mut meetings, SLEEVE), [RelayMessage::Met(to_sleeve)]);

    meetings.handle(SLEEVE, data(meeting, b"sealed ")).unwrap();
    meetings.handle(SLEEVE, data(meeting, b"record")).unwrap();
    assert_eq!(woken(&mut meetings), [MANAGER]);
    assert_eq!(meetings.queued(), 13);
    assert_eq!(bytes_of(told(&mut meetings, MANAGER)), b"sealed record");
    assert_eq!(meetings.queued(), 0);
    meetings.handle(MANAGER, data(meeting, b"answer")).unwrap();
    assert_eq!(bytes_of(told(&mut meetings, SLEEVE)), b"answer");

    meetings.handle(SLEEVE, data(meeting, b"bye")).unwrap();
    meetings.handle(SLEEVE, close(meeting, CloseReason::Done)).unwrap();
    let last = told(&mut meetings, MANAGER);
    assert_eq!(last.last(), Some(&closed(meeting, CloseReason::Done)));
    assert_eq!(bytes_of(last[..1].to_vec()), b"bye", "what was said before still arrives");
    assert_eq!(meetings.counts(), Counts { seats: 3, managers: 1, meetings: 0 });
}

/// Several pairs at one manager do not hear each other, and take turns.
#[test]
fn meetings_are_apart_and_take_turns() {
    let mut meetings = hall();
    let first = met(&mut meetings, SLEEVE);
    let second = met(&mut meetings, OTHER);
    assert_ne!(first, second);
    fill(&mut meetings, first);
    meetings.handle(OTHER, data(second, b"short")).unwrap();
    let order: Vec<MeetingId> = told(&mut meetings, MANAGER)
        .into_iter()
        .map(|message| match message {
            RelayMessage::Data(piece) => piece.meeting,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(order[..2], [first, second], "one full pair does not hold another up");
    // A sleeve that names another pair's meeting says nothing to anyone.
    meetings.handle(OTHER, data(first, b"forged")).unwrap();
    meetings.handle(OTHER, credit(first, 1)).unwrap();
    meetings.handle(OTHER, close(first, CloseReason::Done)).unwrap();
    assert_eq!(told(&mut meetings, MANAGER), []);
    assert_eq!(meetings.counts().meetings, 2);
}

/// However fast one side sends and however slow the other takes, the server holds one window.
#[test]
fn a_slow_side_holds_its_peer_back_and_costs_no_more_than_the_window() {
    let mut meetings = hall();
    let meeting = met(&mut meetings, SLEEVE);
    fill(&mut meetings, meeting);
    assert_eq!(meetings.queued(), WINDOW as usize);
    assert_eq!(meetings.handle(SLEEVE, data(meeting, &[7])), Err(RelayError::Window));
    assert_eq!(meetings.queued(), WINDOW as usize);

    // Delivered is not taken: still no credit.
    assert_eq!(bytes_of(told(&mut meetings, MANAGER)).len(), WINDOW as usize);
    assert_eq!(told(&mut meetings, SLEEVE), []);
    assert_eq!(meetings.handle(SLEEVE, data(meeting, &[7])), Err(RelayError::Window));

    // Taken: credit passes, exactly as much, and no more can be given than came.
    meetings.handle(MANAGER, credit(meeting, CREDIT_STEP)).unwrap();
    let passed = RelayMessage::Credit(Credited { meeting, bytes: CREDIT_STEP });
    assert_eq!(told(&mut meetings, SLEEVE), [passed]);
    for _ in 0..CREDIT_STEP as usize / PIECE_MAX {
        meetings.handle(SLEEVE, data(meeting, &[7; PIECE_MAX])).unwrap();
    }
    assert_eq!(meetings.handle(SLEEVE, data(meeting, &[7])), Err(RelayError::Window));
    let too_much = credit(meeting, WINDOW - CREDIT_STEP + 1);
    assert_eq!(meetings.handle(MANAGER, too_much), Err(RelayError::Window));
}

/// A device that does not read at all gets its meetings' bytes by the window, and of the rest
/// [`WAITING_MAX`] messages; then it is sent away.
#[test]
fn a_device_that_takes_nothing_is_sent_away() {
    let limits = Limits {
        pair: Rate::per_second(10_000),
        manager: Rate::per_second(10_000),
        ..Limits::default()
    };
    let mut meetings = hall_with(limits);
    let mut asked = 0;
    while !meetings.is_dismissed(MANAGER) {
        asked += 1;
        assert!(asked <= WAITING_MAX + 1, "the queue has a bound");
        let _refused_at_the_end = asks(&mut meetings, NOW, SLEEVE);
        told(&mut meetings, SLEEVE);
    }
    assert!(asked > WAITING_MAX / 2, "{asked}: not at the first");
    assert_eq!(told(&mut meetings, MANAGER), [RelayMessage::refused("relay-slow", 5)]);
    assert_eq!(asks(&mut meetings, NOW, SLEEVE), Err(MeetRefusal::Absent));
}

/// Bytes beyond a pair's rate wait with their sender, not here.
#[test]
fn a_pairs_rate_holds_credit_back() {
    let rate = Rate { burst: WINDOW, amount: 1024, every: Duration::from_secs(1) };
    let limits = Limits { pair_bytes: rate, ..Limits::default() };
    let mut meetings = hall_with(limits);
    let meeting = met(&mut meetings, SLEEVE);
    let round = |meetings: &mut Meetings, now| {
        fill(meetings, meeting);
        told_at(meetings, now, MANAGER);
        meetings.handle(MANAGER, credit(meeting, WINDOW)).unwrap();
        told_at(meetings, now, SLEEVE)
    };
    let all = RelayMessage::Credit(Credited { meeting, bytes: WINDOW });
    assert_eq!(round(&mut meetings, NOW), [all]);
    assert_eq!(round(&mut meetings, NOW), [], "the burst is spent");
    let due = meetings.poll_timeout(NOW, SLEEVE).unwrap();
    assert_eq!(due, NOW.plus(Duration::from_secs(1)));
    let early = due.minus(Duration::from_millis(1));
    assert_eq!(told_at(&mut meetings, early, SLEEVE), []);
    let some = RelayMessage::Credit(Credited { meeting, bytes: 1024 });
    assert_eq!(told_at(&mut meetings, due, SLEEVE), [some]);
    // Another pair has a rate of its own.
    let other = met(&mut meetings, OTHER);
    meetings.handle(OTHER, data(other, &[1; 2048])).unwrap();
    told_at(&mut meetings, due, MANAGER);
    meetings.handle(MANAGER, credit(other, 2048)).unwrap();
    let passed = RelayMessage::Credit(Credited { meeting: other, bytes: 2048 });
    assert_eq!(told_at(&mut meetings, due, OTHER), [passed]);
}

#[test]
fn a_managers_rate_is_over_all_its_pairs() {
    let rate = Rate { burst: 2048, amount: 1024, every: Duration::from_secs(1) };
    let mut meetings = hall_with(Limits { manager_bytes: rate, ..Limits::default() });
    let (first, second) = (met(&mut meetings, SLEEVE), met(&mut meetings, OTHER));
    for (seat, meeting, passes) in [(SLEEVE, first, true), (OTHER, second, false)] {
        meetings.handle(seat, data(meeting, &[1; 2048])).unwrap();
        told(&mut meetings, MANAGER);
        meetings.handle(MANAGER, credit(meeting, 2048)).unwrap();
        assert_eq!(!told(&mut meetings, seat).is_empty(), passes);
    }
    let due = meetings.poll_timeout(NOW, OTHER).unwrap();
    assert!(!told_at(&mut meetings, due, OTHER).is_empty());
}

#[test]
fn meetings_begin_no_faster_than_the_pairs_and_the_managers_rates() {
    let limits =
        Limits { pair: Rate::per_minute(2), manager: Rate::per_minute(3), ..Limits::default() };
    let mut meetings = hall_with(limits);
    met(&mut meetings, SLEEVE);
    met(&mut meetings, SLEEVE);
    let refused = asks(&mut meetings, NOW, SLEEVE).unwrap_err();
    assert_eq!((refused, refused.check()), (MeetRefusal::Rate(31), "meeting-rate"));
    // One sleeve that comes too often takes nothing from another.
    met(&mut meetings, OTHER);
    assert_eq!(asks(&mut meetings, NOW, OTHER), Err(MeetRefusal::Rate(21)), "the manager's");
    let later = NOW.plus(Duration::from_secs(31));
    assert!(asks(&mut meetings, later, SLEEVE).is_ok());
    // Going away and coming again brings nothing: the manager's seat remembers.
    meetings.leave(SLEEVE);
    meetings.enter(later, SLEEVE, Party::Sleeve, serial("SLV-1"));
    assert!(matches!(asks(&mut meetings, later, SLEEVE), Err(MeetRefusal::Rate(_))));
}

#[test]
fn a_manager_has_so_many_meetings_and_no_more() {
    let mut meetings = hall_with(Limits { per_manager: 1, ..Limits::default() });
    let first = met(&mut meetings, SLEEVE);
    assert_eq!(asks(&mut meetings, NOW, OTHER), Err(MeetRefusal::Full));
    meetings.handle(SLEEVE, close(first, CloseReason::Done)).unwrap();
    assert!(asks(&mut meetings, NOW, OTHER).is_ok());
}

#[test]
fn a_connection_of_a_sleeve_has_so_many_meetings_and_no_more() {
    let mut meetings = hall_with(Limits { per_sleeve: 1, ..Limits::default() });
    meetings.enter(NOW, 9, Party::Manager, serial("MGR-2"));
    meetings.register(9).unwrap();
    met(&mut meetings, SLEEVE);
    let second = meetings.meet(NOW, SLEEVE, &serial("MGR-2")).unwrap();
    assert_eq!(second, Err(MeetRefusal::SleeveFull));
}

/// What a lossy or lying transport could make of the messages changes nothing for others: doubled,
/// late and foreign ones are dropped or refused.
#[test]
fn late_doubled_and_impossible_messages_do_no_harm() {
    let mut meetings = hall();
    let meeting = met(&mut meetings, SLEEVE);
    meetings.handle(SLEEVE, data(meeting, b"once")).unwrap();
    told(&mut meetings, MANAGER);
    meetings.handle(MANAGER, credit(meeting, 4)).unwrap();
    assert_eq!(meetings.handle(MANAGER, credit(meeting, 4)), Err(RelayError::Window), "twice");
    meetings.handle(SLEEVE, close(meeting, CloseReason::Done)).unwrap();
    meetings.handle(SLEEVE, close(meeting, CloseReason::Done)).unwrap();
    meetings.handle(SLEEVE, data(meeting, b"late")).unwrap();
    meetings.handle(SLEEVE, credit(meeting, 1)).unwrap();
    meetings.handle(MANAGER, data(meeting, b"it did not know yet")).unwrap();
    assert_eq!(told(&mut meetings, MANAGER), [closed(meeting, CloseReason::Done)]);
    meetings.handle(MANAGER, data(meeting, b"late")).unwrap();
    assert_eq!((told(&mut meetings, SLEEVE), meetings.queued()), (vec![], 0));

    // Whoever says what is another's to say is found out.
    let wrong = Err(RelayError::WrongParty);
    assert_eq!(meetings.register(SLEEVE), wrong);
    assert_eq!(meetings.meet(NOW, MANAGER, &serial("MGR-1")), Err(RelayError::WrongParty));
    let alarm = Alarm { id: AlarmId::new("1").unwrap(), sleeve: serial("S"), session: 1, at: 1 };
    for misplaced in
        [DeviceMessage::Register, DeviceMessage::Meet(serial("M")), DeviceMessage::Alarm(alarm)]
    {
        assert_eq!(meetings.handle(MANAGER, misplaced), wrong, "the owner handles those");
    }
    // A device cannot end another's meeting with a reason that is the server's.
    let meeting = met(&mut meetings, SLEEVE);
    meetings.handle(SLEEVE, close(meeting, CloseReason::PeerDismissed)).unwrap();
    assert_eq!(told(&mut meetings, MANAGER), [closed(meeting, CloseReason::Done)]);
}

#[test]
fn a_manager_that_comes_again_wins_and_the_older_connection_goes() {
    let mut meetings = hall();
    let meeting = met(&mut meetings, SLEEVE);
    meetings.handle(SLEEVE, data(meeting, b"lost with the old connection")).unwrap();
    meetings.enter(NOW, 9, Party::Manager, serial("MGR-1"));
    assert_eq!(meetings.manager("MGR-1"), Some(MANAGER), "it has not registered yet");
    meetings.register(9).unwrap();
    assert_eq!(meetings.manager("MGR-1"), Some(9));
    assert!(meetings.is_dismissed(MANAGER) && !meetings.is_dismissed(9));
    let old = told(&mut meetings, MANAGER);
    assert_eq!(old.first(), Some(&RelayMessage::refused("manager-replaced", 60)));
    assert!(!old.iter().any(|message| matches!(message, RelayMessage::Data(_))), "{old:?}");
    assert_eq!(told(&mut meetings, SLEEVE), [closed(meeting, CloseReason::PeerGone)]);
    // The old one's end takes nothing from the new one, nor does its coming too late.
    meetings.register(MANAGER).unwrap();
    meetings.leave(MANAGER);
    assert_eq!(meetings.manager("MGR-1"), Some(9));
    assert!(asks(&mut meetings, NOW, SLEEVE).is_ok());
    // The same connection may say it twice.
    meetings.register(9).unwrap();
    assert!(!meetings.is_dismissed(9));
}

#[test]
fn a_sleeve_that_comes_again_replaces_its_older_meeting() {
    let mut meetings = hall();
    let older = met(&mut meetings, SLEEVE);
    meetings.enter(NOW, 9, Party::Sleeve, serial("SLV-1"));
    let newer = asks(&mut meetings, NOW, 9).unwrap();
    assert_eq!(told(&mut meetings, SLEEVE), [closed(older, CloseReason::Replaced)]);
    let to_manager = told(&mut meetings, MANAGER);
    assert!(to_manager.contains(&closed(older, CloseReason::Replaced)), "{to_manager:?}");
    assert!(to_manager.contains(&RelayMessage::Met(Met { meeting: newer, peer: serial("SLV-1") })));
    meetings.leave(SLEEVE);
    assert_eq!(meetings.counts(), Counts { seats: 3, managers: 1, meetings: 1 });
}

#[test]
fn devices_that_may_not_be_served_are_sent_away_and_their_peers_are_told() {
    for (who, peer, why, check) in [
        (SLEEVE, MANAGER, Dismissal::Blocked, "device-blocked"),
        (MANAGER, SLEEVE, Dismissal::Revoked, "certificate-revoked"),
    ] {
        let mut meetings = hall();
        let meeting = met(&mut meetings, SLEEVE);
        woken(&mut meetings);
        meetings.dismiss(who, why);
        meetings.dismiss(who, Dismissal::Slow); // it is told the first reason, once
        assert_eq!(woken(&mut meetings), [MANAGER, SLEEVE]);
        assert!(meetings.is_dismissed(who) && !meetings.is_dismissed(peer));
        let last_word = told(&mut meetings, who);
        assert_eq!(last_word.first(), Some(&RelayMessage::refused(check, 0)));
        assert_eq!(told(&mut meetings, peer), [closed(meeting, CloseReason::PeerDismissed)]);
        // From now on it meets nobody, and what it sends goes nowhere.
        meetings.handle(who, data(meeting, b"x")).unwrap();
        assert_eq!(asks(&mut meetings, NOW, SLEEVE), Err(MeetRefusal::Absent));
        assert_eq!(meetings.queued(), 0);
    }
}

/// A device's and the server's bookkeeping together: 1 MiB in both directions at once, with both
/// ends taking what comes in odd bites.
#[test]
fn a_long_stream_arrives_whole_through_both_windows() {
    const TOTAL: usize = 1024 * 1024;
    let limits = Limits {
        pair_bytes: Rate::per_second(1 << 30),
        manager_bytes: Rate::per_second(1 << 30),
        ..Limits::default()
    };
    let mut meetings = hall_with(limits);
    let meeting = met(&mut meetings, SLEEVE);
    let source: Vec<u8> = (0..TOTAL).map(|at| (at * 31 % 251) as u8).collect();
    let mut ends = [MeetingEnd::new(meeting), MeetingEnd::new(meeting)];
    let (mut given, mut taken) = ([0; 2], [Vec::new(), Vec::new()]);
    while taken.iter().any(|taken| taken.len() < TOTAL) {
        let before = (given, [taken[0].len(), taken[1].len()]);
        for (side, seat) in [(0, SLEEVE), (1, MANAGER)] {
            given[side] += ends[side].write(&source[given[side]..]);
            while let Some(message) = ends[side].poll_transmit() {
                meetings.handle(seat, message).unwrap();
            }
            assert!(meetings.queued() <= 2 * WINDOW as usize);
            while let Some(message) = meetings.poll_transmit(NOW, seat) {
                match message {
                    RelayMessage::Data(piece) => {
                        ends[side].received(piece.bytes.as_slice()).unwrap();
                    }
                    RelayMessage::Credit(credited) => ends[side].credited(credited.bytes).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            let mut bite = [0; 5003];
            for _ in 0..7 {
                let read = ends[side].read(&mut bite);
                taken[side].extend_from_slice(&bite[..read]);
            }
        }
        assert_ne!(before, (given, [taken[0].len(), taken[1].len()]), "it goes on");
    }
    assert!(taken.iter().all(|taken| *taken == source));
}
