//! Frames in, frames out: what lies between a machine and the wire.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::wire::{self, Awaited, Frame, FrameBuffer, HEADER_LEN, Kind, Mode, Modes};
use crate::{Error, HANDSHAKE_FRAME_MAX, alert};

/// Most bytes a peer may have sent ahead while this side waits for its owner: one flight.
const AHEAD_MAX: usize = 2 * (HEADER_LEN + HANDSHAKE_FRAME_MAX);

pub(crate) struct Link {
    /// The modes that may be spoken; the first good frame leaves one.
    modes: Modes,
    frames: FrameBuffer,
    outbox: VecDeque<Vec<u8>>,
}

impl Link {
    pub(crate) fn new(modes: impl IntoIterator<Item = Mode>) -> Self {
        Self { modes: Modes::of(modes), frames: FrameBuffer::default(), outbox: VecDeque::new() }
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// Bounds what lies unread while a state accepts nothing.
    pub(crate) const fn check_ahead(&self) -> Result<(), Error> {
        if self.frames.len() > AHEAD_MAX {
            return Err(Error::Malformed("more bytes than a handshake has"));
        }
        Ok(())
    }

    /// The next frame of an awaited kind.
    pub(crate) fn next(&mut self, kinds: &[Kind]) -> Result<Option<Frame>, Error> {
        let frame = self.frames.next(Awaited { modes: self.modes, kinds });
        match &frame {
            Ok(Some(frame)) => self.fix(frame.mode),
            // What is said about it must be in the peer's mode, or it will not listen.
            Err(_) => self.modes = self.frames.mode().map_or_else(Modes::default, Modes::only),
            Ok(None) => {}
        }
        frame
    }

    /// The frame that this datagram is, if it is one.
    pub(crate) fn datagram(&self, bytes: &[u8]) -> Option<Frame> {
        wire::datagram(bytes, self.modes)
    }

    /// From now on only this mode is spoken.
    pub(crate) const fn fix(&mut self, mode: Mode) {
        self.modes = Modes::only(mode);
    }

    /// The mode spoken; the first of those possible before that is clear.
    pub(crate) fn mode(&self) -> Mode {
        self.modes.first().unwrap_or(Mode::C1)
    }

    /// Queues a message and returns it as sent, for the transcript.
    pub(crate) fn send(&mut self, kind: Kind, parts: &[&[u8]]) -> &[u8] {
        self.outbox.push_back(wire::frame(self.mode(), kind, parts));
        self.outbox.back().expect("just pushed")
    }

    /// Fills what was queued last up with zeros, to at least `len` bytes.
    pub(crate) fn fill_up(&mut self, len: usize) {
        if let Some(last) = self.outbox.back_mut() {
            last.resize(last.len().max(len), 0);
        }
    }

    pub(crate) fn send_frame(&mut self, frame: Vec<u8>) {
        self.outbox.push_back(frame);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// What waits to be sent.
    pub(crate) fn queued(&self) -> Vec<Vec<u8>> {
        self.outbox.iter().cloned().collect()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Queues the alert for an error that ends nothing, in the mode of the message it is about.
    pub(crate) fn tell(&mut self, mode: Mode, error: &Error) {
        if let Some(code) = error.alert() {
            let body = alert::encode(code, "");
            self.outbox.push_back(wire::frame(mode, Kind::Alert, &[&body]));
        }
    }

    /// Replaces whatever was queued by the alert, if the error is for the peer's ears: after a
    /// fatal error nothing else may leave.
    pub(crate) fn send_alert(&mut self, error: &Error, incident: &str) {
        self.outbox.clear();
        if let Some(code) = error.alert() {
            let body = alert::encode(code, incident);
            self.send(Kind::Alert, &[&body]);
        }
    }
}
