//! A device's end of one meeting: two byte streams with a window each.

use std::collections::VecDeque;

use countersign_injection::Bounded;
use thiserror::Error;

use super::message::Closed;
use super::{
    CREDIT_STEP, CloseReason, Credited, DeviceMessage, MeetingId, PIECE_MAX, Piece, WINDOW,
};

/// The peer sent, or gave credit for, more than there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a window of the relay was exceeded")]
pub struct WindowExceeded;

/// Where an end stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndState {
    /// Both sides may send.
    Open,
    /// The server said that it is over. What arrived before can still be read.
    Over(CloseReason),
    /// This side closed it.
    Closed,
}

/// One device's end of a meeting. The owner writes and reads; messages to the server come out of
/// [`Self::poll_transmit`]. It holds at most [`WINDOW`] bytes of each direction.
pub struct MeetingEnd {
    meeting: MeetingId,
    inbound: VecDeque<u8>,
    /// Received and not yet credited, those in [`Self::inbound`] among them.
    uncredited: u32,
    /// Read by the owner and not yet credited.
    taken: u32,
    outbound: VecDeque<u8>,
    /// Sent and not yet credited.
    outstanding: u32,
    state: EndState,
    close_told: bool,
}

impl MeetingEnd {
    /// An end of the meeting with this number.
    #[must_use]
    pub fn new(meeting: MeetingId) -> Self {
        Self {
            meeting,
            inbound: VecDeque::new(),
            uncredited: 0,
            taken: 0,
            outbound: VecDeque::new(),
            outstanding: 0,
            state: EndState::Open,
            close_told: false,
        }
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> EndState {
        self.state
    }

    /// Bytes of the other device arrived.
    ///
    /// # Errors
    /// [`WindowExceeded`]: the server does not keep to the protocol.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(), WindowExceeded> {
        let len = u32::try_from(bytes.len()).map_err(|_| WindowExceeded)?;
        if len > WINDOW - self.uncredited {
            return Err(WindowExceeded);
        }
        if self.state == EndState::Open {
            self.uncredited += len;
            self.inbound.extend(bytes);
        }
        Ok(())
    }

    /// So much more may be sent.
    ///
    /// # Errors
    /// [`WindowExceeded`] for more than is under way.
    pub const fn credited(&mut self, bytes: u32) -> Result<(), WindowExceeded> {
        match self.outstanding.checked_sub(bytes) {
            Some(left) => self.outstanding = left,
            None => return Err(WindowExceeded),
        }
        Ok(())
    }

    /// The server said that the meeting is over, or the connection to it is.
    pub fn over(&mut self, reason: CloseReason) {
        if self.state == EndState::Open {
            self.state = EndState::Over(reason);
            self.outbound = VecDeque::new();
        }
    }

    /// Closes it from this side: what was written before still leaves, then the other side is told.
    pub fn close(&mut self) {
        if self.state == EndState::Open {
            self.state = EndState::Closed;
            self.inbound = VecDeque::new();
        }
    }

    /// Bytes that can be read now.
    #[must_use]
    pub fn readable(&self) -> usize {
        self.inbound.len()
    }

    /// Bytes that can be written now; 0 also after its end.
    #[must_use]
    pub fn writable(&self) -> usize {
        match self.state {
            EndState::Open => (WINDOW as usize).saturating_sub(self.outbound.len()),
            EndState::Over(_) | EndState::Closed => 0,
        }
    }

    /// Takes what has arrived, as much as there is and fits; gives how much.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let len = into.len().min(self.inbound.len());
        for (place, byte) in into.iter_mut().zip(self.inbound.drain(..len)) {
            *place = byte;
        }
        if self.inbound.is_empty() {
            self.inbound = VecDeque::new(); // an idle end holds no buffer
        }
        self.taken += u32::try_from(len).unwrap_or(WINDOW);
        len
    }

    /// Gives bytes to be sent, as many as fit; gives how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(self.writable());
        self.outbound.extend(&bytes[..len]);
        len
    }

    /// Whether [`Self::poll_transmit`] has something.
    #[must_use]
    pub fn wants_to_send(&self) -> bool {
        match self.state {
            EndState::Over(_) => false,
            EndState::Open => self.is_credit_due() || self.sendable() > 0,
            EndState::Closed => {
                self.sendable() > 0 || (self.outbound.is_empty() && !self.close_told)
            }
        }
    }

    /// Whether nothing more will be sent or received.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        matches!(self.state, EndState::Over(_)) || self.close_told
    }

    const fn is_credit_due(&self) -> bool {
        self.taken >= CREDIT_STEP
    }

    fn sendable(&self) -> usize {
        let window = (WINDOW - self.outstanding) as usize;
        self.outbound.len().min(window).min(PIECE_MAX)
    }

    /// The next message to the server.
    pub fn poll_transmit(&mut self) -> Option<DeviceMessage> {
        if !self.wants_to_send() {
            return None;
        }
        let meeting = self.meeting;
        if self.state == EndState::Open && self.is_credit_due() {
            let bytes = std::mem::take(&mut self.taken);
            self.uncredited -= bytes;
            return Some(DeviceMessage::Credit(Credited { meeting, bytes }));
        }
        let len = self.sendable();
        if len == 0 {
            self.close_told = true;
            return Some(DeviceMessage::Close(Closed { meeting, reason: CloseReason::Done }));
        }
        let bytes: Vec<u8> = self.outbound.drain(..len).collect();
        if self.outbound.is_empty() {
            self.outbound = VecDeque::new();
        }
        self.outstanding += u32::try_from(len).unwrap_or(WINDOW);
        Bounded::new(&bytes).map(|bytes| DeviceMessage::Data(Piece { meeting, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_window_leaves_and_credit_lets_more_leave() {
        let mut end = MeetingEnd::new(7);
        assert_eq!(end.write(&[1; 100_000]), WINDOW as usize);
        assert_eq!(end.write(&[1]), 0);
        let mut sent = 0;
        while let Some(message) = end.poll_transmit() {
            let DeviceMessage::Data(piece) = message else { panic!("{message:?}") };
            sent += piece.bytes.as_slice().len();
        }
        assert_eq!(sent, WINDOW as usize);
        assert_eq!(end.write(&[2; 10]), 10);
        assert_eq!(end.poll_transmit(), None, "nothing is credited");
        assert_eq!(end.credited(WINDOW + 1), Err(WindowExceeded));
        end.credited(4).unwrap();
        let Some(DeviceMessage::Data(piece)) = end.poll_transmit() else { panic!("credited") };
        assert_eq!(piece.bytes.as_slice(), [2; 4]);
        assert_eq!(end.poll_transmit(), None);
    }

    #[test]
    fn what_arrives_beyond_the_window_is_refused_and_reading_gives_credit() {
        let mut end = MeetingEnd::new(7);
        end.received(&[3; WINDOW as usize]).unwrap();
        assert_eq!(end.received(&[3]), Err(WindowExceeded));
        assert_eq!(end.read(&mut [0; CREDIT_STEP as usize - 1]), CREDIT_STEP as usize - 1);
        assert_eq!(end.poll_transmit(), None, "too little for a message of its own");
        assert_eq!(end.received(&[3]), Err(WindowExceeded), "not credited yet");
        assert_eq!(end.read(&mut [0; 1]), 1);
        let credit = DeviceMessage::Credit(Credited { meeting: 7, bytes: CREDIT_STEP });
        assert_eq!(end.poll_transmit(), Some(credit));
        end.received(&[3; CREDIT_STEP as usize]).unwrap();
        assert_eq!(end.received(&[3]), Err(WindowExceeded));
    }

    #[test]
    fn closing_lets_what_was_written_leave_and_its_end_lets_what_arrived_be_read() {
        let mut end = MeetingEnd::new(1);
        end.write(b"last words");
        end.close();
        assert_eq!(end.write(b"more"), 0);
        assert!(matches!(end.poll_transmit(), Some(DeviceMessage::Data(_))));
        assert!(!end.is_finished());
        assert!(matches!(end.poll_transmit(), Some(DeviceMessage::Close(_))));
        assert_eq!((end.poll_transmit(), end.is_finished()), (None, true));

        let mut end = MeetingEnd::new(1);
        end.received(b"theirs").unwrap();
        end.write(b"mine");
        end.over(CloseReason::PeerGone);
        assert_eq!((end.poll_transmit(), end.writable(), end.is_finished()), (None, 0, true));
        let mut read = [0; 16];
        assert_eq!(end.read(&mut read), 6);
        assert_eq!(end.state(), EndState::Over(CloseReason::PeerGone));
    }
}
