//! One connection with the server, and the meetings on it.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_channel::ReaderEvent;
use countersign_crypto::UnixTime;
use countersign_net::Next;
use countersign_wallet::relay::{DeviceMessage, MeetingId, RelayMessage, WindowExceeded};
use tokio::sync::Notify;

use super::meeting::Half;
use super::{Link, RelayError, all_over, lost};

/// Messages that are sealed at once, before what arrives is looked at again.
const TOGETHER_MAX: usize = 8;

/// A connection that has its meetings.
pub(super) struct Session {
    pub(super) link: Link,
    pub(super) wake: Arc<Notify>,
    pub(super) halves: BTreeMap<MeetingId, Arc<Half>>,
    /// Whose turn it is to send.
    turn: MeetingId,
}

/// What [`Session::step`] came to.
pub(super) enum Stepped {
    /// Something of the meetings.
    Nothing,
    /// A message that is not about a meeting's bytes.
    Message(RelayMessage),
    /// The deadline passed.
    Deadline,
}

impl Session {
    pub(super) const fn new(link: Link, wake: Arc<Notify>) -> Self {
        Self { link, wake, halves: BTreeMap::new(), turn: 0 }
    }

    pub(super) fn of_sleeve(
        link: Link,
        wake: Arc<Notify>,
        meeting: MeetingId,
        half: Arc<Half>,
    ) -> Self {
        let mut session = Self::new(link, wake);
        session.halves.insert(meeting, half);
        session
    }

    /// A sleeve's: until its one meeting has ended.
    pub(super) async fn run(mut self) {
        while !self.halves.is_empty() {
            match self.step(None).await {
                Ok(Stepped::Nothing) => {}
                Ok(Stepped::Message(_) | Stepped::Deadline) => {} // an answer to an older request
                Err(error) => {
                    tracing::debug!(%error, "the link to the relay has ended");
                    break;
                }
            }
        }
        self.end().await;
    }

    /// Ends all meetings and the connection.
    pub(super) async fn end(mut self) {
        all_over(self.halves.values());
        let _gone = self.link.machine().close();
        let _gone = self.link.flush().await;
    }

    /// Sends what there is, then waits for what comes next.
    pub(super) async fn step(&mut self, due: Option<UnixTime>) -> Result<Stepped, RelayError> {
        let more = self.send_some()?;
        self.link.flush().await.map_err(lost)?;
        if self.halves.is_empty() && due.is_none() {
            return Ok(Stepped::Nothing);
        }
        if more {
            self.wake.notify_one();
        }
        let next = tokio::select! {
            next = self.link.next(due) => next.map_err(lost)?,
            () = self.wake.notified() => return Ok(Stepped::Nothing),
        };
        match next {
            Next::Event(ReaderEvent::Data(bytes)) => {
                let message = RelayMessage::decode(&bytes);
                self.take(message.map_err(|_| RelayError::Protocol("no message"))?)
            }
            Next::Event(ReaderEvent::Closed) | Next::Ended => {
                Err(RelayError::Channel(countersign_channel::Error::Truncated))
            }
            Next::Event(_) => Ok(Stepped::Nothing),
            Next::Deadline => Ok(Stepped::Deadline),
        }
    }

    fn take(&mut self, message: RelayMessage) -> Result<Stepped, RelayError> {
        let exceeded = |WindowExceeded| RelayError::Protocol("a window was exceeded");
        match message {
            RelayMessage::Data(piece) => {
                if let Some(half) = self.halves.get(&piece.meeting) {
                    half.received(piece.bytes.as_slice()).map_err(exceeded)?;
                }
            }
            RelayMessage::Credit(credited) => {
                if let Some(half) = self.halves.get(&credited.meeting) {
                    half.credited(credited.bytes).map_err(exceeded)?;
                }
            }
            RelayMessage::Close(closed) => {
                if let Some(half) = self.halves.remove(&closed.meeting) {
                    half.over(closed.reason);
                }
            }
            other => return Ok(Stepped::Message(other)),
        }
        Ok(Stepped::Nothing)
    }

    /// Seals some of what the meetings have, one message each in turn. Whether there is more.
    fn send_some(&mut self) -> Result<bool, RelayError> {
        for _ in 0..TOGETHER_MAX {
            let Some(message) = self.poll_transmit() else { return Ok(false) };
            self.link.machine().send(&message.encode()).map_err(RelayError::Channel)?;
        }
        Ok(true)
    }

    fn poll_transmit(&mut self) -> Option<DeviceMessage> {
        let after = self.halves.range(self.turn..).chain(self.halves.range(..self.turn));
        let found = after.into_iter().find_map(|(meeting, half)| {
            half.poll_transmit().map(|message| (*meeting, message, half.is_finished()))
        });
        let (meeting, message, finished) = found?;
        self.turn = meeting.wrapping_add(1);
        if finished {
            self.halves.remove(&meeting);
        }
        Some(message)
    }
}
