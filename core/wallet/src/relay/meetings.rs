//! The server's bookkeeping: who is here, who meets whom, what is under way between them.

mod bounds;

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::bucket::Bucket;
use super::message::{Closed, Met};
use super::{
    CheckName, CloseReason, Credited, DeviceMessage, MeetingId, PIECE_MAX, Piece, RelayMessage,
    RelayRefusal, Serial, WINDOW,
};
use countersign_crypto::UnixTime;
use countersign_injection::Bounded;

pub use bounds::{Dismissal, Limits, MeetRefusal, RelayError};

/// Messages other than data that may wait for one device; beyond that it is too slow, and is
/// dismissed.
pub const WAITING_MAX: usize = 512;
/// The least credit that is passed on while a rate holds it back, in bytes.
const GRANT_MIN: u32 = 1024;
/// Pairs whose rate a manager's seat remembers before those at rest are forgotten.
const PAIRS_KEPT: usize = 64;

/// A device's connection, numbered by the owner.
pub type SeatId = u64;

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// It asks to meet.
    Sleeve,
    /// It is met.
    Manager,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Devices here.
    pub seats: usize,
    /// Managers that can be met.
    pub managers: usize,
    /// Meetings.
    pub meetings: usize,
}

struct Seat {
    party: Party,
    serial: Serial,
    registered: bool,
    dismissed: bool,
    meetings: Vec<MeetingId>,
    control: VecDeque<RelayMessage>,
    /// Meetings that have something for this device, each once.
    ready: VecDeque<MeetingId>,
    /// Meetings whose credit for this device waits for a rate.
    starved: Vec<MeetingId>,
    /// A manager's rates; a sleeve has none.
    rates: Option<Box<ManagerRates>>,
}

struct ManagerRates {
    meets: Bucket,
    bytes: Bucket,
    pairs: BTreeMap<Serial, Bucket>,
}

/// One device's side of a meeting.
struct Side {
    seat: SeatId,
    /// It has neither closed nor been told the end.
    open: bool,
    /// What it is to be told once its queue is empty.
    end: Option<CloseReason>,
    ready: bool,
    /// What is under way to it.
    lane: Lane,
}

/// One direction: `queued` + `delivered` + `owed` is what its sender has sent and has no credit
/// for, at most [`WINDOW`].
#[derive(Default)]
struct Lane {
    queued: VecDeque<u8>,
    delivered: u32,
    owed: u32,
}

impl Lane {
    fn outstanding(&self) -> usize {
        self.queued.len() + self.delivered as usize + self.owed as usize
    }
}

struct Joined {
    sides: [Side; 2],
    bytes: Bucket,
}

impl Joined {
    /// The side of this device, while the meeting goes on for it.
    fn side_of(&self, seat: SeatId) -> Option<usize> {
        self.sides.iter().position(|side| side.seat == seat && side.open)
    }

    fn goes_on(&self) -> bool {
        self.sides.iter().all(|side| side.open && side.end.is_none())
    }
}

/// All meetings of one server. Sans-I/O: after each call the owner asks [`Self::poll_woken`] whom
/// there is something for, and [`Self::poll_transmit`] what.
pub struct Meetings {
    limits: Limits,
    seats: HashMap<SeatId, Seat>,
    managers: BTreeMap<Serial, SeatId>,
    meetings: HashMap<MeetingId, Joined>,
    next_meeting: MeetingId,
    woken: Vec<SeatId>,
}

impl Meetings {
    /// Nobody is here.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let (seats, managers, meetings) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { limits, seats, managers, meetings, next_meeting: 0, woken: Vec::new() }
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (seats, managers) = (self.seats.len(), self.managers.len());
        Counts { seats, managers, meetings: self.meetings.len() }
    }

    /// The managers that can be met here.
    #[must_use]
    pub fn registered(&self) -> Vec<String> {
        self.managers.keys().map(|serial| serial.as_str().to_owned()).collect()
    }

    /// A device has come, and proven to be this one. Each seat is entered once.
    pub fn enter(&mut self, now: UnixTime, seat: SeatId, party: Party, serial: Serial) {
        let rates = (party == Party::Manager).then(|| {
            Box::new(ManagerRates {
                meets: Bucket::full(self.limits.manager, now),
                bytes: Bucket::full(self.limits.manager_bytes, now),
                pairs: BTreeMap::new(),
            })
        });
        let entered = Seat {
            party,
            serial,
            registered: false,
            dismissed: false,
            meetings: Vec::new(),
            control: VecDeque::new(),
            ready: VecDeque::new(),
            starved: Vec::new(),
            rates,
        };
        self.seats.insert(seat, entered);
    }

    /// The device has gone: its meetings end at their other sides.
    pub fn leave(&mut self, seat: SeatId) {
        self.end_all(seat, CloseReason::PeerGone);
        self.unregister(seat);
        self.seats.remove(&seat);
    }

    /// Sends a device away: it is told why, and [`Self::is_dismissed`] from now on.
    pub fn dismiss(&mut self, seat: SeatId, why: Dismissal) {
        self.end_all(seat, why.for_peers());
        self.unregister(seat);
        let Some(found) = self.seats.get_mut(&seat) else { return };
        if found.dismissed {
            return;
        }
        found.dismissed = true;
        found.control.clear();
        let check = CheckName::clipped(why.check());
        let told = RelayRefusal { check, retry_after: why.retry_after() };
        found.control.push_back(RelayMessage::Refused(told));
        self.woken.push(seat);
    }

    /// The seat of the manager with this serial number, if it can be met here.
    #[must_use]
    pub fn manager(&self, serial: &str) -> Option<SeatId> {
        self.managers.get(&Serial::new(serial)?).copied()
    }

    /// Whether the device was sent away: what [`Self::poll_transmit`] still has is its last word.
    #[must_use]
    pub fn is_dismissed(&self, seat: SeatId) -> bool {
        self.seats.get(&seat).is_some_and(|seat| seat.dismissed)
    }

    /// A manager may be met from now on. An older connection of it is dismissed.
    ///
    /// # Errors
    /// [`RelayError::WrongParty`].
    pub fn register(&mut self, seat: SeatId) -> Result<(), RelayError> {
        let Some(found) = self.seats.get_mut(&seat) else { return Ok(()) };
        if found.party != Party::Manager {
            return Err(RelayError::WrongParty);
        }
        if found.dismissed {
            return Ok(());
        }
        found.registered = true;
        let older = self.managers.insert(found.serial.clone(), seat);
        if let Some(older) = older.filter(|older| *older != seat) {
            self.dismiss(older, Dismissal::Replaced);
        }
        self.tell(seat, RelayMessage::Registered(WINDOW));
        Ok(())
    }

    /// A sleeve wants to meet a manager. An older meeting of the two ends.
    ///
    /// # Errors
    /// [`RelayError::WrongParty`]; inside, why there is no meeting.
    pub fn meet(
        &mut self,
        now: UnixTime,
        seat: SeatId,
        manager: &Serial,
    ) -> Result<Result<MeetingId, MeetRefusal>, RelayError> {
        let Some(sleeve) = self.seats.get(&seat) else { return Ok(Err(MeetRefusal::Absent)) };
        if sleeve.party != Party::Sleeve {
            return Err(RelayError::WrongParty);
        }
        let Some(&host) = self.managers.get(manager).filter(|_| !sleeve.dismissed) else {
            return Ok(Err(MeetRefusal::Absent));
        };
        let serial = sleeve.serial.clone();
        if let Err(seconds) = self.admit(now, host, &serial) {
            return Ok(Err(MeetRefusal::Rate(seconds)));
        }
        if let Some(older) = self.meeting_of(host, &serial) {
            self.end(older, CloseReason::Replaced);
        }
        if self.open_meetings(host) >= self.limits.per_manager {
            return Ok(Err(MeetRefusal::Full));
        }
        if self.open_meetings(seat) >= self.limits.per_sleeve {
            return Ok(Err(MeetRefusal::SleeveFull));
        }
        let meeting = self.free_number();
        let side = |seat| Side { seat, open: true, end: None, ready: false, lane: Lane::default() };
        let bytes = Bucket::full(self.limits.pair_bytes, now);
        self.meetings.insert(meeting, Joined { sides: [side(seat), side(host)], bytes });
        for (seat, peer) in [(seat, manager.clone()), (host, serial)] {
            if let Some(found) = self.seats.get_mut(&seat) {
                found.meetings.push(meeting);
            }
            self.tell(seat, RelayMessage::Met(Met { meeting, peer }));
        }
        Ok(Ok(meeting))
    }

    /// How many meetings of this seat go on; those that it has not heard the end of are not among
    /// them.
    fn open_meetings(&self, seat: SeatId) -> usize {
        let meetings = self.seats.get(&seat).map_or(&[][..], |seat| &seat.meetings);
        let goes_on =
            |meeting: &&MeetingId| self.meetings.get(meeting).is_some_and(Joined::goes_on);
        meetings.iter().filter(goes_on).count()
    }

    /// Whether this sleeve may begin a meeting now; else after how many seconds. The pair's rate is
    /// asked first: one sleeve that comes too often takes nothing from others.
    fn admit(&mut self, now: UnixTime, host: SeatId, sleeve: &Serial) -> Result<(), u32> {
        let rate = self.limits.pair;
        let Some(rates) = self.seats.get_mut(&host).and_then(|seat| seat.rates.as_mut()) else {
            return Ok(());
        };
        if rates.pairs.len() >= PAIRS_KEPT {
            rates.pairs.retain(|_, pair| !pair.is_full(now));
        }
        let pair = rates.pairs.entry(sleeve.clone()).or_insert_with(|| Bucket::full(rate, now));
        let seconds = |until: UnixTime| {
            let wait = until.since(now).as_secs().saturating_add(1);
            u32::try_from(wait).unwrap_or(u32::MAX)
        };
        if pair.available(now) == 0 {
            return Err(seconds(pair.ready_at(now, 1)));
        }
        if rates.meets.available(now) == 0 {
            return Err(seconds(rates.meets.ready_at(now, 1)));
        }
        pair.take(1);
        rates.meets.take(1);
        Ok(())
    }

    /// The meeting of this manager with this sleeve, on whatever connection of that.
    fn meeting_of(&self, host: SeatId, sleeve: &Serial) -> Option<MeetingId> {
        let of_sleeve = |meeting: &&MeetingId| {
            let joined = self.meetings.get(meeting).filter(|joined| joined.goes_on());
            let seat = joined.and_then(|joined| self.seats.get(&joined.sides[0].seat));
            seat.is_some_and(|seat| seat.serial == *sleeve)
        };
        self.seats.get(&host)?.meetings.iter().find(of_sleeve).copied()
    }

    fn free_number(&mut self) -> MeetingId {
        loop {
            self.next_meeting = self.next_meeting.wrapping_add(1);
            if !self.meetings.contains_key(&self.next_meeting) {
                return self.next_meeting;
            }
        }
    }

    /// Data, credit and closing, of a device. What is of a meeting that has ended meanwhile is
    /// dropped: the device did not know.
    ///
    /// # Errors
    /// [`RelayError::Window`]; [`RelayError::WrongParty`] for other messages.
    pub fn handle(&mut self, seat: SeatId, message: DeviceMessage) -> Result<(), RelayError> {
        match message {
            DeviceMessage::Data(piece) => self.data(seat, &piece),
            DeviceMessage::Credit(credited) => self.credit(seat, credited),
            DeviceMessage::Close(closed) => {
                let reason = match closed.reason {
                    CloseReason::Busy => CloseReason::Busy,
                    _ => CloseReason::Done,
                };
                self.close(seat, closed.meeting, reason);
                Ok(())
            }
            DeviceMessage::Register | DeviceMessage::Meet(_) | DeviceMessage::Alarm(_) => {
                Err(RelayError::WrongParty)
            }
        }
    }

    fn data(&mut self, seat: SeatId, piece: &Piece) -> Result<(), RelayError> {
        let Some(joined) = self.meetings.get_mut(&piece.meeting) else { return Ok(()) };
        let Some(from) = joined.side_of(seat).filter(|_| joined.goes_on()) else { return Ok(()) };
        let to = &mut joined.sides[1 - from];
        let bytes = piece.bytes.as_slice();
        if to.lane.outstanding() + bytes.len() > WINDOW as usize {
            return Err(RelayError::Window);
        }
        to.lane.queued.extend(bytes);
        self.ready(piece.meeting, 1 - from);
        Ok(())
    }

    fn credit(&mut self, seat: SeatId, credited: Credited) -> Result<(), RelayError> {
        let Some(joined) = self.meetings.get_mut(&credited.meeting) else { return Ok(()) };
        let Some(from) = joined.side_of(seat).filter(|_| joined.goes_on()) else { return Ok(()) };
        let lane = &mut joined.sides[from].lane;
        let left = lane.delivered.checked_sub(credited.bytes).ok_or(RelayError::Window)?;
        lane.delivered = left;
        lane.owed += credited.bytes;
        self.ready(credited.meeting, 1 - from);
        Ok(())
    }

    /// One side closes: the other is told after what is still queued for it.
    fn close(&mut self, seat: SeatId, meeting: MeetingId, reason: CloseReason) {
        let Some(joined) = self.meetings.get_mut(&meeting) else { return };
        let Some(from) = joined.side_of(seat) else { return };
        let side = &mut joined.sides[from];
        (side.open, side.lane) = (false, Lane::default());
        if let Some(found) = self.seats.get_mut(&seat) {
            found.forget(meeting);
        }
        let peer = &mut joined.sides[1 - from];
        if peer.open {
            peer.end.get_or_insert(reason);
            self.ready(meeting, 1 - from);
        } else {
            self.meetings.remove(&meeting);
        }
    }

    /// Ends a meeting for both at once; what is queued is lost.
    fn end(&mut self, meeting: MeetingId, reason: CloseReason) {
        let Some(joined) = self.meetings.get_mut(&meeting) else { return };
        for side in joined.sides.iter_mut().filter(|side| side.open) {
            side.end.get_or_insert(reason);
            side.lane = Lane::default();
        }
        self.ready(meeting, 0);
        self.ready(meeting, 1);
    }

    fn end_all(&mut self, seat: SeatId, reason: CloseReason) {
        let Some(found) = self.seats.get_mut(&seat) else { return };
        let meetings = std::mem::take(&mut found.meetings);
        (found.ready, found.starved) = (VecDeque::new(), Vec::new());
        for meeting in meetings {
            self.close(seat, meeting, reason);
        }
    }

    fn unregister(&mut self, seat: SeatId) {
        let Some(found) = self.seats.get_mut(&seat) else { return };
        found.registered = false;
        if self.managers.get(&found.serial) == Some(&seat) {
            self.managers.remove(&found.serial);
        }
    }

    /// Has something said to a device, before anything of its meetings. One that lets
    /// [`WAITING_MAX`] such messages wait is dismissed.
    pub fn tell(&mut self, seat: SeatId, message: RelayMessage) {
        let Some(found) = self.seats.get_mut(&seat) else { return };
        if found.dismissed {
            return; // it has had its last word
        }
        if found.control.len() >= WAITING_MAX {
            return self.dismiss(seat, Dismissal::Slow);
        }
        found.control.push_back(message);
        self.woken.push(seat);
    }

    /// There is something for this side.
    fn ready(&mut self, meeting: MeetingId, side: usize) {
        let Some(joined) = self.meetings.get_mut(&meeting) else { return };
        let side = &mut joined.sides[side];
        if !side.open || side.ready {
            return;
        }
        if let Some(seat) = self.seats.get_mut(&side.seat) {
            side.ready = true;
            seat.ready.push_back(meeting);
            self.woken.push(side.seat);
        }
    }

    /// Whom there is something for; the same may come more than once.
    pub fn poll_woken(&mut self) -> Option<SeatId> {
        self.woken.pop()
    }

    /// When [`Self::poll_transmit`] may have something for this device without a further cause.
    pub fn poll_timeout(&mut self, now: UnixTime, seat: SeatId) -> Option<UnixTime> {
        let starved = self.seats.get(&seat)?.starved.clone();
        starved.into_iter().filter_map(|meeting| self.credit_due(now, seat, meeting)).min()
    }

    /// When the rates let credit of this meeting pass to this device.
    fn credit_due(&mut self, now: UnixTime, seat: SeatId, meeting: MeetingId) -> Option<UnixTime> {
        let joined = self.meetings.get_mut(&meeting)?;
        let side = joined.side_of(seat).filter(|_| joined.goes_on())?;
        let least = joined.sides[1 - side].lane.owed.min(GRANT_MIN);
        let pair = joined.bytes.ready_at(now, least);
        let host = self.seats.get_mut(&joined.sides[1].seat)?.rates.as_mut()?;
        Some(pair.max(host.bytes.ready_at(now, least)))
    }

    /// The next message for this device. Meetings take turns.
    pub fn poll_transmit(&mut self, now: UnixTime, seat: SeatId) -> Option<RelayMessage> {
        let found = self.seats.get_mut(&seat)?;
        if let Some(message) = found.control.pop_front() {
            if found.control.is_empty() {
                found.control = VecDeque::new();
            }
            return Some(message);
        }
        for meeting in std::mem::take(&mut found.starved) {
            match self.credit_due(now, seat, meeting) {
                Some(due) if due > now => self.seats.get_mut(&seat)?.starved.push(meeting),
                Some(_) => {
                    let side = self.meetings.get(&meeting).and_then(|it| it.side_of(seat));
                    side.into_iter().for_each(|side| self.ready(meeting, side));
                }
                None => {}
            }
        }
        while let Some(meeting) = self.seats.get_mut(&seat)?.ready.pop_front() {
            if let Some(message) = self.transmit_of(now, seat, meeting) {
                return Some(message);
            }
        }
        let found = self.seats.get_mut(&seat)?;
        if found.ready.capacity() > 0 {
            found.ready = VecDeque::new();
        }
        None
    }

    /// What one meeting has for this device: credit, then data, then its end.
    fn transmit_of(
        &mut self,
        now: UnixTime,
        seat: SeatId,
        meeting: MeetingId,
    ) -> Option<RelayMessage> {
        let joined = self.meetings.get_mut(&meeting)?;
        let side = joined.side_of(seat)?;
        joined.sides[side].ready = false;
        if joined.goes_on() && joined.sides[1 - side].lane.owed > 0 {
            if let Some(bytes) = self.grant(now, meeting, side) {
                self.ready(meeting, side); // there may be more
                return Some(RelayMessage::Credit(Credited { meeting, bytes }));
            }
            let starved = &mut self.seats.get_mut(&seat)?.starved;
            if !starved.contains(&meeting) {
                starved.push(meeting);
            }
        }
        let here = &mut self.meetings.get_mut(&meeting)?.sides[side];
        if !here.lane.queued.is_empty() {
            let len = here.lane.queued.len().min(PIECE_MAX);
            let bytes: Vec<u8> = here.lane.queued.drain(..len).collect();
            here.lane.delivered += u32::try_from(len).unwrap_or(WINDOW);
            let more = !here.lane.queued.is_empty() || here.end.is_some();
            if here.lane.queued.is_empty() {
                here.lane.queued = VecDeque::new(); // an idle meeting holds no buffer
            }
            if more {
                self.ready(meeting, side);
            }
            let bytes = Bounded::new(&bytes)?;
            return Some(RelayMessage::Data(Piece { meeting, bytes }));
        }
        let reason = here.end?;
        here.open = false;
        let is_last = self.meetings.get(&meeting)?.sides.iter().all(|side| !side.open);
        if is_last {
            self.meetings.remove(&meeting);
        }
        self.seats.get_mut(&seat)?.forget(meeting);
        Some(RelayMessage::Close(Closed { meeting, reason }))
    }

    /// Credit for the device at `side`, as much as the rates allow.
    fn grant(&mut self, now: UnixTime, meeting: MeetingId, side: usize) -> Option<u32> {
        let joined = self.meetings.get_mut(&meeting)?;
        let rates = self.seats.get_mut(&joined.sides[1].seat)?.rates.as_mut()?;
        let lane = &mut joined.sides[1 - side].lane;
        let allowed = joined.bytes.available(now).min(rates.bytes.available(now));
        let bytes = lane.owed.min(allowed);
        if bytes < lane.owed.min(GRANT_MIN) {
            return None;
        }
        joined.bytes.take(bytes);
        rates.bytes.take(bytes);
        lane.owed -= bytes;
        Some(bytes)
    }

    /// Bytes that wait here, in both directions of all meetings; for metrics and tests.
    #[must_use]
    pub fn queued(&self) -> usize {
        let sides = self.meetings.values().flat_map(|joined| &joined.sides);
        sides.map(|side| side.lane.queued.len()).sum()
    }
}

impl Seat {
    fn forget(&mut self, meeting: MeetingId) {
        self.meetings.retain(|known| *known != meeting);
        self.starved.retain(|known| *known != meeting);
    }
}

#[cfg(test)]
mod tests;
