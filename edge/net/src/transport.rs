use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

/// What lies under a [`Connection`](crate::Connection): a byte stream, or a link for datagrams.
///
/// Every async stream is one. A link for datagrams gives one whole datagram per
/// [`receive`](Self::receive), and may lose, double or swap them, but drops what it damaged.
pub trait Transport: Send {
    /// Waits for bytes and gives how many of `into` they fill; none at the end of a stream.
    ///
    /// Cancel-safe: a dropped future has taken nothing.
    ///
    /// # Errors
    /// The system's.
    fn receive(
        &mut self,
        into: &mut [u8],
    ) -> impl Future<Output = io::Result<Option<usize>>> + Send;

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
    async fn receive(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(Some(self.read(into).await?).filter(|read| *read > 0))
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
