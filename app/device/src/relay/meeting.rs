//! A meeting as its owner has it: a byte stream.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use countersign_wallet::relay::{
    CloseReason, DeviceMessage, EndState, MeetingEnd, MeetingId, WindowExceeded,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

/// A byte stream to another device, through the server: an
/// [`AsyncRead`](tokio::io::AsyncRead) and [`AsyncWrite`](tokio::io::AsyncWrite).
///
/// What runs over it is the two devices' own channel; the server only carries it. Reading ends when
/// the other side has closed it or is gone ([`ended`](Self::ended) tells which). Dropping it closes
/// it: what was written before still leaves.
pub struct Meeting {
    peer: String,
    half: Arc<Half>,
}

impl Meeting {
    pub(super) const fn new(peer: String, half: Arc<Half>) -> Self {
        Self { peer, half }
    }

    /// The other device's serial number: a sleeve's as the server authenticated it, a manager's as
    /// it was asked for. The devices' own channel proves it again.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Why the meeting has ended, once the server has told it.
    #[must_use]
    pub fn ended(&self) -> Option<CloseReason> {
        match self.half.lock().end.state() {
            EndState::Over(reason) => Some(reason),
            EndState::Open | EndState::Closed => None,
        }
    }
}

impl std::fmt::Debug for Meeting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meeting").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl AsyncRead for Meeting {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut inner = self.half.lock();
        if inner.end.readable() > 0 {
            let read = inner.end.read(into.initialize_unfilled());
            into.advance(read);
            if inner.end.wants_to_send() {
                self.half.link.notify_one(); // credit
            }
            return Poll::Ready(Ok(()));
        }
        if inner.end.state() != EndState::Open {
            return Poll::Ready(Ok(()));
        }
        inner.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Meeting {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.half.lock();
        if inner.end.state() != EndState::Open {
            let gone = io::Error::new(io::ErrorKind::BrokenPipe, "the meeting is over");
            return Poll::Ready(Err(gone));
        }
        let written = inner.end.write(bytes);
        if written == 0 && !bytes.is_empty() {
            inner.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if inner.end.wants_to_send() {
            self.half.link.notify_one();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // the link sends what there is by itself
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.half.close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        self.half.close();
    }
}

/// What the owner of a meeting and its link share.
pub(super) struct Half {
    inner: Mutex<Inner>,
    /// Wakes the link: this half has something to send.
    link: Arc<Notify>,
}

struct Inner {
    end: MeetingEnd,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Inner {
    fn wake(&mut self) {
        let wakers = [self.reader.take(), self.writer.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Half {
    pub(super) fn new(meeting: MeetingId, link: Arc<Notify>) -> Self {
        let end = MeetingEnd::new(meeting);
        Self { inner: Mutex::new(Inner { end, reader: None, writer: None }), link }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No method leaves it half-changed, so a poisoned lock is still sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut inner = self.lock();
        inner.end.close();
        inner.wake();
        drop(inner);
        self.link.notify_one();
    }

    pub(super) fn received(&self, bytes: &[u8]) -> Result<(), WindowExceeded> {
        let mut inner = self.lock();
        inner.end.received(bytes)?;
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    pub(super) fn credited(&self, bytes: u32) -> Result<(), WindowExceeded> {
        self.lock().end.credited(bytes)
    }

    /// The meeting is over, or its link.
    pub(super) fn over(&self, reason: CloseReason) {
        let mut inner = self.lock();
        inner.end.over(reason);
        inner.wake();
    }

    pub(super) fn poll_transmit(&self) -> Option<DeviceMessage> {
        let mut inner = self.lock();
        let message = inner.end.poll_transmit();
        if inner.end.writable() > 0
            && let Some(writer) = inner.writer.take()
        {
            writer.wake();
        }
        message
    }

    pub(super) fn is_finished(&self) -> bool {
        self.lock().end.is_finished()
    }
}
