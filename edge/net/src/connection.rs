use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use countersign_crypto::{CryptoRng, UnixTime};
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroize;

use crate::{Clock, Transport};

/// How long the peer may refuse to take what is sent.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes read at once; a datagram that is longer is cut, and then refused by its checksum.
const CHUNK: usize = 16 * 1024;

thread_local! {
    /// Where bytes are read into, on their way to a machine: one buffer for all connections of a
    /// thread, so that those that wait hold none. It is all zeros while nobody has it.
    static SHARED_CHUNK: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The thread's chunk, for the time of one look at a transport; wiped when it is given back.
struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
}

impl Chunk {
    fn take() -> Self {
        let mut bytes = SHARED_CHUNK.take();
        bytes.resize(CHUNK, 0); // the first time, and where a transport has a connection below it
        Self { bytes, filled: 0 }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // A SAM's port brings plaintext, and may then be silent for days.
        self.bytes[..self.filled].zeroize();
        let bytes = std::mem::take(&mut self.bytes);
        let _thread_ends = SHARED_CHUNK.try_with(|shared| shared.set(bytes));
    }
}

/// A sans-I/O machine as a [`Connection`] drives it; the grammar of the core crates.
pub trait Machine: Send {
    /// What the machine reports.
    type Event;
    /// Why it died.
    type Error;
    /// What it wants to send.
    type Transmit: AsRef<[u8]> + Send + Sync;

    /// Takes bytes that arrived: any piece of a stream, or one datagram.
    ///
    /// # Errors
    /// The machine is dead afterwards.
    fn handle(
        &mut self,
        now: UnixTime,
        rng: &mut dyn CryptoRng,
        bytes: &[u8],
    ) -> Result<(), Self::Error>;

    /// Takes the time.
    ///
    /// # Errors
    /// The machine is dead afterwards.
    fn handle_timeout(&mut self, now: UnixTime) -> Result<(), Self::Error>;

    /// The stream has ended.
    ///
    /// # Errors
    /// If it ended where it must not.
    fn handle_end(&mut self) -> Result<(), Self::Error>;

    /// Bytes to send; over datagrams, one datagram.
    fn poll_transmit(&mut self) -> Option<Self::Transmit>;

    /// What happened.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// When [`Self::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<UnixTime>;
}

/// Why a connection ended.
#[derive(Debug, Error)]
pub enum NetError<E> {
    /// The transport failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer does not take what is sent.
    #[error("the peer does not read")]
    WriteTimeout,
    /// The machine died; its reason.
    #[error("{0}")]
    Machine(E),
}

/// What [`Connection::next`] waited for.
#[derive(Debug)]
pub enum Next<T> {
    /// An event of the machine.
    Event(T),
    /// The transport ended where it may.
    Ended,
    /// The caller's deadline passed.
    Deadline,
}

/// A transport (a stream, or a link for datagrams), the machine that speaks on it, and what the
/// machine needs handed in.
pub struct Connection<M, T> {
    machine: M,
    transport: T,
    clock: Arc<dyn Clock>,
    rng: Box<dyn CryptoRng + Send>,
}

/// What the machine said to bytes.
type Handled<M> = Result<(), <M as Machine>::Error>;

impl<M: Machine, T: Transport> Connection<M, T> {
    /// Joins a machine and a transport.
    pub fn new(
        machine: M,
        transport: T,
        clock: Arc<dyn Clock>,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        Self { machine, transport, clock, rng }
    }

    /// The machine, to ask it or to tell it something; call [`Self::next`] or [`Self::flush`]
    /// afterwards.
    pub const fn machine(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The clock's time, to hand to the machine.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The machine together with time and randomness, for calls that take them.
    pub fn parts(&mut self) -> (&mut M, UnixTime, &mut dyn CryptoRng) {
        (&mut self.machine, self.clock.now(), &mut *self.rng)
    }

    /// Sends what the machine wants to send: over a stream in one write, else each as a datagram.
    ///
    /// Not cancel-safe: a dropped future may have sent part of a message.
    ///
    /// # Errors
    /// [`NetError::Io`] or [`NetError::WriteTimeout`].
    pub async fn flush(&mut self) -> Result<(), NetError<M::Error>> {
        let parts: Vec<M::Transmit> = std::iter::from_fn(|| self.machine.poll_transmit()).collect();
        if parts.is_empty() {
            return Ok(());
        }
        let sent = timeout(WRITE_TIMEOUT, self.transport.send(&parts)).await;
        sent.map_err(|_| NetError::WriteTimeout)??;
        Ok(())
    }

    /// Moves bytes until the machine reports something, the transport ends or `deadline` passes.
    ///
    /// Cancel-safe only while the machine has nothing to send.
    ///
    /// # Errors
    /// [`NetError`]; what the machine still wants to send (an alert) is left for [`Self::flush`].
    pub async fn next(
        &mut self,
        deadline: Option<UnixTime>,
    ) -> Result<Next<M::Event>, NetError<M::Error>> {
        loop {
            self.flush().await?;
            if let Some(event) = self.machine.poll_event() {
                return Ok(Next::Event(event));
            }
            let now = self.clock.now();
            let machine_due = self.machine.poll_timeout();
            if machine_due.is_some_and(|due| now >= due) {
                self.machine.handle_timeout(now).map_err(NetError::Machine)?;
                tokio::task::yield_now().await; // a machine that keeps its timer starves nobody
                continue;
            }
            if deadline.is_some_and(|due| now >= due) {
                return Ok(Next::Deadline);
            }
            let due = [machine_due, deadline].into_iter().flatten().min();
            // Rounded up, so that the wait does not end a moment too early and spin.
            let wait = due.map_or(Duration::MAX, |due| due.since(now) + Duration::from_millis(1));
            match timeout(wait, poll_fn(|cx| self.poll_handle(cx))).await {
                Err(_elapsed) => {}
                Ok(Ok(Some(handled))) => handled.map_err(NetError::Machine)?,
                Ok(Ok(None)) => {
                    self.machine.handle_end().map_err(NetError::Machine)?;
                    return Ok(Next::Ended);
                }
                Ok(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// Takes bytes that have arrived and gives them to the machine at once, so that nothing of them
    /// is held here while waiting; `None` at the end of a stream.
    fn poll_handle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Handled<M>>>> {
        let mut chunk = Chunk::take();
        let received = ready!(self.transport.poll_receive(cx, &mut chunk.bytes))?;
        let Some(filled) = received else { return Poll::Ready(Ok(None)) };
        chunk.filled = filled;
        let arrived = &chunk.bytes[..filled];
        Poll::Ready(Ok(Some(self.machine.handle(self.clock.now(), &mut *self.rng, arrived))))
    }
}
