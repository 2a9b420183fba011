//! Counts what a reader sends and receives, so that "no byte" can be checked rather than claimed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use countersign_net::Transport;

/// A reader's network traffic since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections opened, or channels begun over datagrams.
    pub connections: u64,
    /// Bytes sent: those of a stream as the system took them, those of datagrams without what
    /// the link puts around them.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Traffic {
        Traffic {
            connections: self.connections.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }
}

/// A transport whose bytes are counted.
pub(crate) struct Counted<T> {
    transport: T,
    counters: Arc<Counters>,
}

impl<T> Counted<T> {
    pub(crate) fn new(transport: T, counters: Arc<Counters>) -> Self {
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Self { transport, counters }
    }
}

impl<T: Transport> Transport for Counted<T> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let received = ready!(self.transport.poll_receive(cx, into))?;
        self.counters.received.fetch_add(received.unwrap_or(0) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(received))
    }

    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        self.transport.send(parts).await?;
        let sent: usize = parts.iter().map(|part| part.as_ref().len()).sum();
        self.counters.sent.fetch_add(sent as u64, Ordering::Relaxed);
        Ok(())
    }
}
