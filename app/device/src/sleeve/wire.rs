//! The sleeve's channel on a stream: bytes in and out, one thing at a time.
//!
//! Not `countersign_net::Connection`: a session also waits for its owner, and what is being sent
//! must not be cut off when its owner says something.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_channel::{Error, SleeveChannel};
use countersign_crypto::{CryptoRng, UnixTime};
use countersign_net::{Clock, Transport, WRITE_TIMEOUT};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::{Zeroize, Zeroizing};

use super::{CONNECT_TIMEOUT, SleeveError};

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// The end of a session whose manager takes nothing any more.
pub(super) const STALLED: &str = "peer-stalled";

/// What a sleeve reaches its manager over: a connection in the same network, or a meeting in the
/// server's relay.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that is being made.
pub(super) type Dialled = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Connects to `HOST:PORT`.
pub(super) type Dial = Arc<dyn Fn(String) -> Dialled + Send + Sync>;

/// Over TCP.
pub(super) fn tcp() -> Dial {
    Arc::new(|address| {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    })
}

/// Connects in the same network.
pub(super) async fn direct(dial: &Dial, address: &str) -> Result<Box<dyn Stream>, SleeveError> {
    let connected = timeout(CONNECT_TIMEOUT, dial(address.to_owned())).await;
    let stream = connected.unwrap_or_else(|_| Err(io::Error::other("no answer")));
    stream.map_err(|error| SleeveError::Unreachable {
        at: address.to_owned(),
        detail: error.to_string(),
    })
}

/// A channel, its stream, and what it needs handed in.
pub(super) struct Wire {
    channel: SleeveChannel,
    stream: Box<dyn Stream>,
    clock: Arc<dyn Clock>,
    rng: Box<dyn CryptoRng + Send>,
    chunk: Zeroizing<Vec<u8>>,
}

/// What [`Wire::arrive`] waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrived {
    /// Bytes, or a deadline of the channel; it may have something to tell.
    Something,
    /// The stream's end, where it may end.
    End,
    /// The deadline that was given.
    Deadline,
}

impl Wire {
    pub(super) fn new(
        channel: SleeveChannel,
        stream: Box<dyn Stream>,
        clock: Arc<dyn Clock>,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Self {
        Self { channel, stream, clock, rng, chunk: Zeroizing::new(vec![0; CHUNK]) }
    }

    pub(super) const fn channel(&mut self) -> &mut SleeveChannel {
        &mut self.channel
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The channel together with time and randomness, for calls that take them.
    pub(super) fn parts(&mut self) -> (&mut SleeveChannel, UnixTime, &mut dyn CryptoRng) {
        (&mut self.channel, self.clock.now(), &mut *self.rng)
    }

    /// Sends what the channel wants to send. Not to be cut off.
    pub(super) async fn flush(&mut self) -> Result<(), SleeveError> {
        let parts: Vec<Vec<u8>> = std::iter::from_fn(|| self.channel.poll_transmit()).collect();
        if parts.is_empty() {
            return Ok(());
        }
        match timeout(WRITE_TIMEOUT, self.stream.send(&parts)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(lost("link-lost")),
            Err(_elapsed) => Err(lost(STALLED)),
        }
    }

    /// Waits for bytes and hands them to the channel, or tells it the time. May be cut off at any
    /// moment: it sends nothing.
    pub(super) async fn arrive(
        &mut self,
        deadline: Option<UnixTime>,
    ) -> Result<Arrived, SleeveError> {
        let now = self.clock.now();
        let channel_due = self.channel.poll_timeout();
        if channel_due.is_some_and(|due| now >= due) {
            self.channel.handle_timeout(now).map_err(SleeveError::Channel)?;
            tokio::task::yield_now().await; // a channel that keeps its timer starves nobody
            return Ok(Arrived::Something);
        }
        if deadline.is_some_and(|due| now >= due) {
            return Ok(Arrived::Deadline);
        }
        let due = [channel_due, deadline].into_iter().flatten().min();
        let receiving = self.stream.receive(&mut self.chunk);
        let received = match due {
            // Rounded up, so that the wait does not end a moment too early and spin.
            Some(due) => timeout(due.since(now) + Duration::from_millis(1), receiving).await,
            None => Ok(receiving.await),
        };
        match received {
            Err(_elapsed) => Ok(Arrived::Something),
            Ok(Ok(None)) => {
                self.channel.handle_end().map_err(SleeveError::Channel)?;
                Ok(Arrived::End)
            }
            Ok(Ok(Some(read))) => {
                let arrived = &mut self.chunk[..read];
                let handled = self.channel.handle(self.clock.now(), &mut *self.rng, arrived);
                arrived.zeroize();
                handled.map_err(SleeveError::Channel)?;
                Ok(Arrived::Something)
            }
            Ok(Err(_)) => Err(lost("link-lost")),
        }
    }

    /// Says that this is all, if someone still listens.
    pub(super) async fn close(&mut self) {
        let _dead = self.channel.close();
        let _gone = self.flush().await;
    }
}

/// The way to the manager failed.
pub(super) fn lost(check: &str) -> SleeveError {
    SleeveError::Ended { check: check.to_owned(), incident: None }
}

/// A stream that ended where it may not.
pub(super) const fn cut() -> SleeveError {
    SleeveError::Channel(Error::Truncated)
}
