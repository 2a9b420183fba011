//! What both sides of every mode have in common: a machine that is in a handshake, open, or dead.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};
use zeroize::Zeroizing;

use crate::link::Link;
use crate::session::{Received, Session};
use crate::wire::{Frame, Kind, Mode};
use crate::{Delivery, Error, HANDSHAKE_TIMEOUT, alert};

/// When a handshake message is first repeated over datagrams; then after twice as long, and so on.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// The longest time between two repetitions: on a bad link a handshake needs several before its
/// deadline.
const REPEAT_EVERY_MAX: Duration = Duration::from_secs(1);

/// What happened on one side of a channel; `Q` is what its owner may be asked.
pub enum Event<Q> {
    /// The handshake waits for the owner's answer.
    Ask(Q),
    /// Both sides have confirmed; data may be sent.
    Connected,
    /// One record's data.
    Data(Zeroizing<Vec<u8>>),
    /// The peer has closed properly; over a stream, nothing is missing.
    Closed,
}

impl<Q: fmt::Debug> fmt::Debug for Event<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ask(question) => f.debug_tuple("Ask").field(question).finish(),
            Self::Connected => f.write_str("Connected"),
            Self::Data(_) => f.write_str("Data(..)"),
            Self::Closed => f.write_str("Closed"),
        }
    }
}

/// One side of a family of handshakes: its configuration, and its states as one enum.
pub(crate) trait Party {
    /// One struct per awaited message, consumed by its handler.
    type State;
    /// What the owner may be asked.
    type Question;
    /// Whether the peer of this side may send alerts. They are not authenticated: like a
    /// connection reset, anyone on the path can send one.
    const HEARS_ALERTS: bool;

    /// The same for one state of the handshake.
    fn hears_alerts(_: &Self::State) -> bool {
        Self::HEARS_ALERTS
    }

    /// How long the handshake may take from its coming into this state; `None` leaves the deadline
    /// as it was. A pairing waits for people.
    fn allows(_: &Self::State) -> Option<Duration> {
        None
    }

    /// Which messages a state awaits; none while the owner is asked.
    fn awaited(state: &Self::State) -> &'static [Kind];

    /// Whether, over datagrams, this side repeats what it sent last until it hears the answer.
    fn repeats(state: &Self::State) -> bool;

    /// A copy of a state that holds nothing of the peer: over datagrams a message that fails in it
    /// is as good as lost.
    fn unchanged(_: &Self::State) -> Option<Self::State> {
        None
    }

    /// Whether the peer is told of this error although the machine goes on, as
    /// [`Self::unchanged`] has it.
    fn tells(_: &Error) -> bool {
        false
    }

    /// Takes an awaited message.
    fn handle(
        &self,
        state: Self::State,
        cx: &mut Cx<'_>,
        frame: &Frame,
    ) -> Result<Step<Self>, Error>;
}

/// What a handler may use.
pub(crate) struct Cx<'a> {
    pub(crate) now: UnixTime,
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) link: &'a mut Link,
}

/// Where a handler leaves the machine.
pub(crate) enum Step<P: Party + ?Sized> {
    Await(P::State),
    Ask(P::State, P::Question),
    Open(Box<Session>),
}

enum State<H> {
    Handshake(H),
    Open(Box<Session>),
    Dead,
}

/// The last flight over datagrams: repeated after a while, and when its cause arrives again.
#[derive(Default)]
struct Repeat {
    flight: Vec<Vec<u8>>,
    heard: Vec<u8>,
    due: Option<UnixTime>,
    wait: Duration,
}

/// The machine behind every public channel type.
pub(crate) struct Endpoint<P: Party> {
    pub(crate) party: P,
    delivery: Delivery,
    link: Link,
    state: State<P::State>,
    deadline: Option<UnixTime>,
    repeat: Repeat,
    discarded: u64,
    events: VecDeque<Event<P::Question>>,
}

impl<P: Party> Endpoint<P> {
    /// A machine in its first state; `link` may already hold its first message.
    pub(crate) fn new(
        party: P,
        delivery: Delivery,
        link: Link,
        state: P::State,
        now: UnixTime,
    ) -> Self {
        let mut endpoint = Self {
            party,
            delivery,
            link,
            state: State::Handshake(state),
            deadline: Some(now.plus(HANDSHAKE_TIMEOUT)),
            repeat: Repeat::default(),
            discarded: 0,
            events: VecDeque::new(),
        };
        endpoint.remember_flight(now, &[]);
        endpoint
    }

    pub(crate) fn handle(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        bytes: &[u8],
    ) -> Result<(), Error> {
        if matches!(self.state, State::Dead) {
            return Err(Error::Dead);
        }
        if self.deadline.is_some_and(|due| now >= due) {
            self.state = State::Dead;
            return Err(Error::Timeout);
        }
        match self.delivery {
            Delivery::Stream => {
                self.link.receive(bytes);
                self.advance(now, rng)
            }
            Delivery::Datagrams => self.handle_datagram(now, rng, bytes),
        }
    }

    /// Takes frames off the stream as long as there are any.
    fn advance(&mut self, now: UnixTime, rng: &mut dyn CryptoRng) -> Result<(), Error> {
        loop {
            let awaited = match &self.state {
                State::Dead => return Err(Error::Dead),
                State::Handshake(state) => P::awaited(state),
                State::Open(_) => &[Kind::Record],
            };
            if awaited.is_empty() {
                return self.link.check_ahead().inspect_err(|_| self.state = State::Dead);
            }
            let hears = match &self.state {
                State::Handshake(state) => P::hears_alerts(state),
                _ => P::HEARS_ALERTS,
            };
            let frame = if hears {
                let kinds = [awaited, &[Kind::Alert]].concat();
                self.link.next(&kinds)
            } else {
                self.link.next(awaited)
            };
            // From here on an error leaves the machine dead.
            let state = core::mem::replace(&mut self.state, State::Dead);
            let Some(frame) = frame? else {
                self.state = state;
                return Ok(());
            };
            self.take(state, now, rng, frame)?;
        }
    }

    /// Takes one frame that the state awaits.
    fn take(
        &mut self,
        state: State<P::State>,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        frame: Frame,
    ) -> Result<(), Error> {
        if frame.kind == Kind::Alert {
            return Err(match alert::decode(frame.body()) {
                Some((code, incident)) => Error::Alert { code, incident },
                None => Error::Malformed("alert"),
            });
        }
        match state {
            State::Dead => Err(Error::Dead),
            State::Handshake(state) => {
                let mut cx = Cx { now, rng, link: &mut self.link };
                let step = self.party.handle(state, &mut cx, &frame)?;
                self.settle(now, step);
                self.remember_flight(now, &frame.raw);
                Ok(())
            }
            State::Open(mut session) => {
                match session.receive(now, &mut self.link, frame)? {
                    Received::Data(data) => self.events.push_back(Event::Data(data)),
                    Received::Closed => self.events.push_back(Event::Closed),
                    Received::Nothing => {}
                    Received::Discarded => self.discarded += 1,
                }
                self.state = State::Open(session);
                Ok(())
            }
        }
    }

    fn settle(&mut self, now: UnixTime, step: Step<P>) {
        if let Step::Await(state) | Step::Ask(state, _) = &step
            && let Some(time) = P::allows(state)
        {
            self.deadline = Some(now.plus(time));
        }
        self.state = match step {
            Step::Await(state) => State::Handshake(state),
            Step::Ask(state, question) => {
                self.events.push_back(Event::Ask(question));
                State::Handshake(state)
            }
            Step::Open(session) => {
                self.deadline = None;
                self.events.push_back(Event::Connected);
                State::Open(session)
            }
        };
    }

    /// Takes one datagram. What is not awaited was doubled or swapped on its way, or is forged;
    /// none of that ends the channel. What is awaited and wrong ends a handshake that has begun.
    fn handle_datagram(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let Some(frame) = self.link.datagram(bytes) else {
            self.discarded += 1;
            return Ok(());
        };
        let awaited = match &self.state {
            State::Dead => return Err(Error::Dead),
            State::Handshake(state) => {
                P::awaited(state).contains(&frame.kind)
                    || (P::hears_alerts(state) && frame.kind == Kind::Alert)
            }
            State::Open(session) => frame.kind == session.record_kind(),
        };
        if awaited {
            let unchanged = match &self.state {
                State::Handshake(state) => P::unchanged(state),
                _ => None,
            };
            let (mode, state) = (frame.mode, core::mem::replace(&mut self.state, State::Dead));
            match (self.take(state, now, rng, frame), unchanged) {
                (Err(error), Some(unchanged)) => {
                    if P::tells(&error) {
                        self.link.tell(mode, &error);
                    }
                    self.state = State::Handshake(unchanged);
                    self.discarded += 1;
                    Ok(())
                }
                (result, _) => result,
            }
        } else {
            if !self.repeat.flight.is_empty() && frame.raw == self.repeat.heard {
                self.send_again(); // the peer has not heard our answer
            } else {
                self.discarded += 1;
            }
            Ok(())
        }
    }

    /// Over datagrams: keeps what is about to be sent, if this side is the one to repeat it.
    fn remember_flight(&mut self, now: UnixTime, heard: &[u8]) {
        if self.delivery == Delivery::Stream {
            return;
        }
        let (keep, again) = match &self.state {
            State::Handshake(state) => (P::repeats(state), true),
            State::Open(_) => (true, false), // the last message, if its cause comes once more
            State::Dead => (false, false),
        };
        self.repeat = Repeat {
            flight: if keep { self.link.queued() } else { Vec::new() },
            heard: heard.to_vec(),
            due: (keep && again).then(|| now.plus(REPEAT_AFTER)),
            wait: REPEAT_AFTER * 2,
        };
    }

    fn send_again(&mut self) {
        for frame in &self.repeat.flight {
            self.link.send_frame(frame.clone());
        }
    }

    /// Goes on with the owner's answer.
    pub(crate) fn answer(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        waits: impl FnOnce(&P::State) -> bool,
        go_on: impl FnOnce(&P, P::State, &mut Cx<'_>) -> Result<Step<P>, Error>,
    ) -> Result<(), Error> {
        // The owner may have been slow; what comes after its answer is the dear part.
        self.handle_timeout(now)?;
        match &self.state {
            State::Dead => return Err(Error::Dead),
            State::Handshake(state) if waits(state) => {}
            _ => return Err(Error::Misuse("nothing was asked")), // and the session goes on
        }
        if let State::Handshake(state) = core::mem::replace(&mut self.state, State::Dead) {
            let mut cx = Cx { now, rng, link: &mut self.link };
            let step = go_on(&self.party, state, &mut cx)?;
            self.settle(now, step);
            let heard = core::mem::take(&mut self.repeat.heard);
            self.remember_flight(now, &heard);
        }
        match self.delivery {
            Delivery::Stream => self.advance(now, rng),
            Delivery::Datagrams => Ok(()),
        }
    }

    pub(crate) fn refuse(&mut self, error: &Error, incident: &str) {
        self.state = State::Dead;
        self.link.send_alert(error, incident);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let frame = self.link.poll_transmit();
        if let (State::Open(session), true) = (&mut self.state, self.link.is_drained()) {
            session.sent();
        }
        frame
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event<P::Question>> {
        self.events.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixTime> {
        match &self.state {
            State::Open(session) => session.poll_timeout(),
            State::Handshake(_) => [self.deadline, self.repeat.due].into_iter().flatten().min(),
            State::Dead => None,
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: UnixTime) -> Result<(), Error> {
        match core::mem::replace(&mut self.state, State::Dead) {
            State::Dead => Ok(()),
            State::Handshake(_) if self.deadline.is_some_and(|due| now >= due) => {
                Err(Error::Timeout)
            }
            State::Handshake(state) => {
                if self.repeat.due.is_some_and(|due| now >= due) {
                    self.send_again();
                    self.repeat.due = Some(now.plus(self.repeat.wait));
                    self.repeat.wait = (self.repeat.wait * 2).min(REPEAT_EVERY_MAX);
                }
                self.state = State::Handshake(state);
                Ok(())
            }
            // A peer that is silent for too long leaves nothing here: the keys go with the session.
            State::Open(mut session) => {
                session.handle_timeout(now, &mut self.link)?;
                self.state = State::Open(session);
                Ok(())
            }
        }
    }

    pub(crate) fn handle_end(&mut self) -> Result<(), Error> {
        match core::mem::replace(&mut self.state, State::Dead) {
            State::Open(session) if session.is_peer_closed() => Ok(()),
            State::Dead => Err(Error::Dead),
            _ => Err(Error::Truncated),
        }
    }

    /// Whether the handshake is in a state of this kind.
    pub(crate) fn is_in(&self, is: impl FnOnce(&P::State) -> bool) -> bool {
        matches!(&self.state, State::Handshake(state) if is(state))
    }

    /// The handshake's state, for tests that put something wrong into it.
    #[cfg(all(test, feature = "std"))]
    pub(crate) const fn state_mut(&mut self) -> Option<&mut P::State> {
        match &mut self.state {
            State::Handshake(state) => Some(state),
            _ => None,
        }
    }

    /// The open session, if there is one.
    pub(crate) const fn session(&self) -> Option<&Session> {
        match &self.state {
            State::Open(session) => Some(session),
            _ => None,
        }
    }

    /// The open session and the link it sends on.
    pub(crate) const fn open(&mut self) -> Result<(&mut Session, &mut Link), Error> {
        match &mut self.state {
            State::Open(session) => Ok((session, &mut self.link)),
            State::Dead => Err(Error::Dead),
            State::Handshake(_) => Err(Error::Misuse("the handshake is not done")),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.link.mode()
    }

    pub(crate) const fn discarded(&self) -> u64 {
        self.discarded
    }
}
