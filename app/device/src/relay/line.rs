//! A TCP connection of which one task writes and another reads.
//!
//! A side that wrote and read in turns could wait for the server to read, while the server waits
//! for it to read. Here reading goes on while something waits to be written; how much may wait is
//! bounded by the windows of the meetings.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use countersign_net::{Transport, WRITE_TIMEOUT};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Most bytes that may wait to be written: the windows of all meetings of a manager, and more.
const WAITING_MAX: usize = 8 * 1024 * 1024;
/// How many flights are written at once.
const TOGETHER_MAX: usize = 32;

/// A stream as a [`Transport`] whose sending never waits.
pub(super) struct Line {
    reader: OwnedReadHalf,
    flights: mpsc::UnboundedSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
}

impl Line {
    /// Must be called within a runtime. What is sent still leaves after it is dropped.
    pub(super) fn new(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        let (flights, queue) = mpsc::unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        tokio::spawn(write(writer, queue, waiting.clone()));
        Self { reader, flights, waiting }
    }
}

/// Writes until nobody sends any more, or the peer does not read; then the peer sees the end.
async fn write(
    mut writer: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
) {
    let mut flights = Vec::new();
    while queue.recv_many(&mut flights, TOGETHER_MAX).await > 0 {
        let all = flights.concat();
        flights.clear();
        let written = timeout(WRITE_TIMEOUT, writer.write_all(&all)).await;
        waiting.fetch_sub(all.len(), Ordering::Relaxed);
        if !matches!(written, Ok(Ok(()))) {
            return; // the next sending fails
        }
    }
}

impl Transport for Line {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(&mut self.reader).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Some(buffer.filled().len()).filter(|read| *read > 0)))
    }

    /// Never waits. Everything here is sealed: nothing needs to be wiped.
    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        let flight: Vec<u8> = parts.iter().flat_map(|part| part.as_ref().iter().copied()).collect();
        let waiting = self.waiting.fetch_add(flight.len(), Ordering::Relaxed) + flight.len();
        if waiting > WAITING_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not read"));
        }
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the server does not read");
        self.flights.send(flight).map_err(gone)
    }
}
