//! A session after confirmation: only from here on does application data flow (G7).

use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_crypto::{Suite, UnixTime};
use countersign_pki::Leaf;
use zeroize::Zeroizing;

use crate::heartbeat::{Due, Pulse};
use crate::link::Link;
use crate::record::{self, Content, Direction};
use crate::window::ReplayWindow;
use crate::wire::{Frame, Kind};
use crate::{Delivery, Error, Exporter, Heartbeat, Policy};

/// What a handshake ends in.
pub(crate) struct Session {
    sealing: Direction,
    opening: Direction,
    window: ReplayWindow,
    pub(crate) exporter: Exporter,
    pub(crate) peer: Arc<Leaf>,
    pub(crate) policy: Policy,
    pub(crate) suite: Suite,
    pulse: Pulse,
    /// An answer to a probe is queued; one is enough for all probes until it has left.
    answer_queued: bool,
    closing: bool,
    peer_closed: bool,
}

/// What a record meant to the owner.
pub(crate) enum Received {
    Data(Zeroizing<Vec<u8>>),
    Closed,
    /// Something for this layer only.
    Nothing,
    /// A datagram that is old, forged or damaged: as if it had been lost.
    Discarded,
}

impl Session {
    pub(crate) fn new(
        (sealing, opening, exporter): (Direction, Direction, Exporter),
        peer: Arc<Leaf>,
        policy: Policy,
        suite: Suite,
    ) -> Self {
        Self {
            sealing,
            opening,
            window: ReplayWindow::default(),
            exporter,
            peer,
            policy,
            suite,
            pulse: Pulse::Off,
            answer_queued: false,
            closing: false,
            peer_closed: false,
        }
    }

    /// The frame type that carries records.
    pub(crate) const fn record_kind(&self) -> Kind {
        match self.policy.delivery {
            Delivery::Stream => Kind::Record,
            Delivery::Datagrams => Kind::Numbered,
        }
    }

    pub(crate) fn send(&mut self, link: &mut Link, data: &[u8]) -> Result<(), Error> {
        if self.closing {
            return Err(Error::Misuse("sending after close"));
        }
        link.send_frame(self.sealing.seal(Content::Data, data)?);
        Ok(())
    }

    pub(crate) fn close(&mut self, link: &mut Link) -> Result<(), Error> {
        if !self.closing {
            link.send_frame(self.sealing.seal(Content::Close, &[])?);
            self.closing = true;
        }
        Ok(())
    }

    pub(crate) fn rekey(&mut self, link: &mut Link) -> Result<(), Error> {
        if self.closing {
            return Err(Error::Misuse("re-keying after close"));
        }
        if let Some(frame) = self.sealing.rekey()? {
            link.send_frame(frame);
        }
        Ok(())
    }

    pub(crate) fn sleep(&mut self, now: UnixTime, times: Heartbeat) {
        self.pulse = Pulse::probing(now, times);
    }

    pub(crate) fn watch(&mut self, now: UnixTime, times: Heartbeat) {
        self.pulse = Pulse::watching(now, times);
    }

    pub(crate) fn wake(&mut self) {
        self.pulse = Pulse::Off;
    }

    pub(crate) fn poll_timeout(&self) -> Option<UnixTime> {
        self.pulse.poll_timeout()
    }

    pub(crate) fn handle_timeout(&mut self, now: UnixTime, link: &mut Link) -> Result<(), Error> {
        match self.pulse.handle_timeout(now) {
            Due::Nothing => Ok(()),
            Due::Silence => Err(Error::Silent),
            // After our close nothing more may follow; the peer's silence will end it.
            Due::Probe if self.closing => Ok(()),
            Due::Probe => {
                link.send_frame(self.sealing.seal(Content::Probe, &[])?);
                Ok(())
            }
        }
    }

    /// What was queued has left.
    pub(crate) const fn sent(&mut self) {
        self.answer_queued = false;
    }

    pub(crate) fn receive(
        &mut self,
        now: UnixTime,
        link: &mut Link,
        frame: Frame,
    ) -> Result<Received, Error> {
        let (content, data) = match self.policy.delivery {
            Delivery::Stream if self.peer_closed => return Err(Error::Unexpected),
            Delivery::Stream => self.opening.open(frame.raw)?,
            Delivery::Datagrams => match self.open_datagram(frame) {
                Ok(opened) => opened,
                Err(Error::Authentication(_)) => return Ok(Received::Discarded),
                Err(error) => return Err(error),
            },
        };
        self.pulse.heard(now);
        self.sealing.heard();
        match content {
            Content::Data => return Ok(Received::Data(data)),
            Content::Close => {
                self.peer_closed = true;
                return Ok(Received::Closed);
            }
            Content::Answer => self.pulse.answered(),
            Content::Probe if !self.answer_queued && !self.closing => {
                link.send_frame(self.sealing.seal(Content::Answer, &[])?);
                self.answer_queued = true;
            }
            Content::Probe | Content::Rekey => {}
        }
        Ok(Received::Nothing)
    }

    /// Opens a numbered record that is new; whatever is not is as good as lost.
    fn open_datagram(&mut self, frame: Frame) -> Result<(Content, Zeroizing<Vec<u8>>), Error> {
        let lost = Error::Authentication("record");
        let number = record::number_of(&frame.raw).ok_or(lost.clone())?;
        if self.peer_closed || !self.window.is_fresh(number) {
            return Err(lost);
        }
        let opened = self.opening.open_numbered(number, frame.raw)?;
        self.window.mark(number);
        Ok(opened)
    }

    pub(crate) const fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }
}
