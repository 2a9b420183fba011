use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use zeroize::Zeroizing;

/// What lies under a [`Connection`](crate::Connection): a byte stream, or a link for datagrams.
///
/// Every async stream is one. A link for datagrams gives one whole datagram per
/// [`receive`](Self::receive), and may lose, double or swap them, but drops what it damaged.
pub trait Transport: Send {
    /// Takes bytes that have arrived, and gives how many of `into` they fill; none at the end of a
    /// stream. While there are none it keeps nothing of `into`: whoever waits needs no buffer.
    ///
    /// # Errors
    /// The system's.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>>;

    /// Waits for bytes, as [`Self::poll_receive`] gives them.
    ///
    /// Cancel-safe: a dropped future has taken nothing.
    ///
    /// # Errors
    /// The system's.
    fn receive(
        &mut self,
        into: &mut [u8],
    ) -> impl Future<Output = io::Result<Option<usize>>> + Send {
        poll_fn(|cx| self.poll_receive(cx, into))
    }

    /// Sends these parts, in order; over datagrams, each as one.
    ///
    /// # Errors
    /// The system's.
    fn send<P: AsRef<[u8]> + Sync>(
        &mut self,
        parts: &[P],
    ) -> impl Future<Output = io::Result<()>> + Send;
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for S {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<Option<usize>>> {
        let mut buffer = ReadBuf::new(into);
        ready!(Pin::new(self).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(Some(buffer.filled().len()).filter(|read| *read > 0)))
    }

    /// In one write.
    async fn send<P: AsRef<[u8]> + Sync>(&mut self, parts: &[P]) -> io::Result<()> {
        // At its final size from the start: growing would leave unwiped copies.
        let len = parts.iter().map(|part| part.as_ref().len()).sum();
        let mut flight = Zeroizing::new(Vec::with_capacity(len));
        parts.iter().for_each(|part| flight.extend_from_slice(part.as_ref()));
        self.write_all(&flight).await?;
        self.flush().await
    }
}
