//! What both roles of every handshake have in common: frames in, frames out, the open session.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use countersign_pki::Leaf;
use zeroize::Zeroizing;

use crate::record::{Content, DirectionKeys};
use crate::wire::{self, Frame, FrameBuffer, HEADER_LEN, Kind, Mode};
use crate::{Error, Exporter, HANDSHAKE_FRAME_MAX, alert};

/// Most bytes a peer may have sent ahead while this side waits for its owner: one flight.
const AHEAD_MAX: usize = 2 * (HEADER_LEN + HANDSHAKE_FRAME_MAX);

pub(crate) struct Link {
    mode: Mode,
    frames: FrameBuffer,
    outbox: VecDeque<Vec<u8>>,
}

impl Link {
    pub(crate) const fn new(mode: Mode) -> Self {
        Self { mode, frames: FrameBuffer::new(mode), outbox: VecDeque::new() }
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
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

    /// The next frame of the awaited kind.
    pub(crate) fn next(&mut self, awaited: Kind) -> Result<Option<Frame>, Error> {
        self.frames.next(&[awaited])
    }

    /// The next frame of the awaited kind; an alert from the peer becomes the error it is. Only a
    /// server sends alerts, so only a reader calls this. Alerts are not authenticated: like a
    /// connection reset, anyone on the path can send one.
    pub(crate) fn next_or_alert(&mut self, awaited: Kind) -> Result<Option<Frame>, Error> {
        let Some(frame) = self.frames.next(&[awaited, Kind::Alert])? else {
            return Ok(None);
        };
        if frame.kind == Kind::Alert {
            return Err(match alert::decode(frame.body()) {
                Some((code, incident)) => Error::Alert { code, incident },
                None => Error::Malformed("alert"),
            });
        }
        Ok(Some(frame))
    }

    /// Queues a message and returns it as sent, for the transcript.
    pub(crate) fn send(&mut self, kind: Kind, parts: &[&[u8]]) -> &[u8] {
        self.outbox.push_back(wire::frame(self.mode, kind, parts));
        self.outbox.back().expect("just pushed")
    }

    pub(crate) fn send_frame(&mut self, frame: Vec<u8>) {
        self.outbox.push_back(frame);
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
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

/// A session after confirmation: only from here on does application data flow (G7).
pub(crate) struct Open {
    sealing: DirectionKeys,
    opening: DirectionKeys,
    pub(crate) exporter: Exporter,
    pub(crate) peer: Arc<Leaf>,
    closing: bool,
    peer_closed: bool,
}

impl Open {
    pub(crate) const fn new(
        sealing: DirectionKeys,
        opening: DirectionKeys,
        exporter: Exporter,
        peer: Arc<Leaf>,
    ) -> Self {
        Self { sealing, opening, exporter, peer, closing: false, peer_closed: false }
    }

    pub(crate) fn send(&mut self, link: &mut Link, data: &[u8]) -> Result<(), Error> {
        if self.closing {
            return Err(Error::Misuse("sending after close"));
        }
        let frame = self.sealing.seal_data(link.mode(), data)?;
        link.send_frame(frame);
        Ok(())
    }

    pub(crate) fn close(&mut self, link: &mut Link) -> Result<(), Error> {
        if !self.closing {
            let frame = self.sealing.seal_close(link.mode())?;
            link.send_frame(frame);
            self.closing = true;
        }
        Ok(())
    }

    pub(crate) fn receive(&mut self, frame: Frame) -> Result<Received, Error> {
        if self.peer_closed {
            return Err(Error::Unexpected);
        }
        match self.opening.open(frame.raw)? {
            Content::Data(data) => Ok(Received::Data(data)),
            Content::Close => {
                self.peer_closed = true;
                Ok(Received::Closed)
            }
        }
    }

    pub(crate) const fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }
}

pub(crate) enum Received {
    Data(Zeroizing<Vec<u8>>),
    Closed,
}
