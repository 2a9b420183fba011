//! The way between a sleeve and its home: in memory, and in the tests' own time.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
    duplex, split,
};
use tokio::time::{Instant, advance};

use super::super::wire::{Dial, Stream};

/// Where the home is.
pub(super) const ADDRESS: &str = "home.example:8446";
/// More than anybody sends at once: what is sent in one piece arrives in one.
const BUFFER: usize = 1 << 20;
/// Where little fits into the line.
const NARROW: usize = 1 << 10;

/// The network that a sleeve is in. Its time passes only for what is on the way.
#[derive(Default)]
pub(super) struct Network {
    /// How long a flight takes, in milliseconds.
    latency: AtomicU64,
    /// Pieces that were on their way, to and fro.
    flights: AtomicUsize,
    /// What is sent gets lost, the end of a line too, and nobody is told.
    pub(super) dead: AtomicBool,
    /// What is sent stays where it is, and soon nothing more is taken.
    pub(super) clogged: AtomicBool,
    /// Little fits into a line.
    pub(super) narrow: AtomicBool,
    /// Nobody is at home.
    pub(super) away: AtomicBool,
    /// When somebody tried to connect.
    pub(super) tried: Mutex<Vec<Instant>>,
    /// Lines that the sleeve holds.
    held: Arc<AtomicUsize>,
}

impl Network {
    pub(super) fn takes(&self, latency: Duration) {
        self.latency.store(latency.as_millis().try_into().unwrap(), Ordering::SeqCst);
    }

    pub(super) fn flights(&self) -> usize {
        self.flights.load(Ordering::SeqCst)
    }

    /// The same when nothing is on its way any more.
    pub(super) async fn quiet(&self) -> usize {
        // Time passes by itself when there is nothing else to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.flights()
    }

    /// Lines that the sleeve holds, each with its channel and its keys.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Connects to who serves.
    pub(super) fn dial(self: &Arc<Self>, serve: Arc<dyn Fn(DuplexStream) + Send + Sync>) -> Dial {
        let network = self.clone();
        Arc::new(move |address| {
            let (network, serve) = (network.clone(), serve.clone());
            Box::pin(async move {
                network.tried.lock().unwrap().push(Instant::now());
                if network.away.load(Ordering::SeqCst) || address != ADDRESS {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let narrow = network.narrow.load(Ordering::SeqCst);
                let fits = if narrow { NARROW } else { BUFFER };
                let (sleeve, near) = duplex(fits);
                let (far, home) = duplex(fits);
                let ((from_sleeve, to_sleeve), (from_home, to_home)) = (split(near), split(far));
                tokio::spawn(network.clone().carry(from_sleeve, to_home));
                tokio::spawn(network.clone().carry(from_home, to_sleeve));
                serve(home);
                network.held.fetch_add(1, Ordering::SeqCst);
                let held = Held { stream: sleeve, held: network.held.clone() };
                Ok(Box::new(held) as Box<dyn Stream>)
            })
        })
    }

    async fn carry(
        self: Arc<Self>,
        mut from: ReadHalf<DuplexStream>,
        mut to: WriteHalf<DuplexStream>,
    ) {
        let mut piece = vec![0; BUFFER];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            let latency = Duration::from_millis(self.latency.load(Ordering::SeqCst));
            if !latency.is_zero() {
                advance(latency).await;
            }
            if self.dead.load(Ordering::SeqCst) {
                continue;
            }
            if self.clogged.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            self.flights.fetch_add(1, Ordering::SeqCst);
            if to.write_all(&piece[..read]).await.is_err() {
                break;
            }
        }
        if self.dead.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let _gone = to.shutdown().await;
    }
}

/// A line while the sleeve holds it.
struct Held {
    stream: DuplexStream,
    held: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
