//! The HTTP listener: TLS, and the bounds on what a client may hold open.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::middleware::AddExtension;
use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use hyper_util::rt::TokioTimer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

use crate::http::REQUEST_TIMEOUT;
use crate::http::metrics::HTTP_TURNED_AWAY;

/// HTTP connections at once; one more is closed at once.
pub const HTTP_CONNECTIONS_MAX: usize = 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// How long a connection may live, however busy: who only keeps a place loses it in the end.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// As many bytes as the HTTP library reads to tell HTTP/1 from HTTP/2 (the preface of RFC 9113,
/// section 3.4). It sets that no time limit, so this file does.
const OPENING: usize = 24;

/// What a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: usize,
    /// For a request's head, from the connection's or the former answer's end on; also how long a
    /// connection may be idle between requests.
    pub(crate) head: Duration,
    /// How long no byte may move in either direction. There are no pings from here: their answers
    /// would make an idle connection look alive.
    pub(crate) quiet: Duration,
    /// How long a connection may live in all.
    pub(crate) life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let head = Duration::from_secs(10);
        // Longer than any request may take to be answered.
        Self { connections: HTTP_CONNECTIONS_MAX, head, quiet: REQUEST_TIMEOUT + head, life: LIFE }
    }
}

/// Serves until the handle says stop.
pub(crate) async fn serve(
    listener: TcpListener,
    router: axum::Router,
    tls: Option<RustlsConfig>,
    handle: axum_server::Handle<SocketAddr>,
    limits: Limits,
) {
    let served = match tls {
        Some(tls) => {
            let inner = RustlsAcceptor::new(tls).handshake_timeout(limits.head);
            serve_with(listener, router, Bounded::new(inner, limits), handle).await
        }
        None => {
            let inner = DefaultAcceptor::new();
            serve_with(listener, router, Bounded::new(inner, limits), handle).await
        }
    };
    if let Err(error) = served {
        tracing::error!(%error, "the HTTP server failed");
    }
}

async fn serve_with<A>(
    listener: TcpListener,
    router: axum::Router,
    acceptor: Bounded<A>,
    handle: axum_server::Handle<SocketAddr>,
) -> io::Result<()>
where
    A: Accept<tokio::net::TcpStream, Routed> + Clone + Send + Sync + 'static,
    A::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A::Service: axum_server::service::SendService<axum::http::Request<hyper::body::Incoming>>
        + Send
        + 'static,
    A::Future: Send + 'static,
{
    let head = acceptor.limits.head;
    let mut server = axum_server::from_tcp(listener)?.handle(handle).acceptor(acceptor);
    let builder = server.http_builder();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    server.serve(router.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// The router as each connection has it: it knows the peer's address.
type Routed = AddExtension<axum::Router, ConnectInfo<SocketAddr>>;

/// Accepts what the inner acceptor does, as long as there is a place.
#[derive(Clone)]
struct Bounded<A> {
    inner: A,
    places: Arc<Semaphore>,
    limits: Limits,
}

impl<A> Bounded<A> {
    fn new(inner: A, limits: Limits) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(limits.connections)), limits }
    }
}

impl<A, I, S> Accept<I, S> for Bounded<A>
where
    A: Accept<I, S>,
    A::Future: Send + 'static,
    A::Stream: Unpin + Send + 'static,
    A::Service: Send + 'static,
{
    type Stream = Watched<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            metrics::counter!(HTTP_TURNED_AWAY).increment(1); // a log line each would be a flood
            return Box::pin(std::future::ready(Err(io::ErrorKind::ConnectionRefused.into())));
        };
        let (accepted, limits) = (self.inner.accept(stream, service), self.limits);
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((Watched::new(stream, place, limits), service))
        })
    }
}

/// A stream that fails once it has been quiet for too long. It holds a connection's place.
struct Watched<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
    limits: Limits,
    /// Bytes read, up to [`OPENING`].
    opening: usize,
    alarm: Pin<Box<Sleep>>,
    /// Never put off.
    end: Pin<Box<Sleep>>,
}

impl<S: Unpin> Watched<S> {
    fn new(stream: S, place: OwnedSemaphorePermit, limits: Limits) -> Self {
        let alarm = Box::pin(tokio::time::sleep(limits.head));
        let end = Box::pin(tokio::time::sleep(limits.life));
        Self { stream, _place: place, limits, opening: 0, alarm, end }
    }

    /// Bytes moved. The opening has one limit as a whole, so that no trickle prolongs it.
    fn moved(&mut self, read: usize, written: usize) {
        self.opening = (self.opening + read).min(OPENING);
        if written > 0 {
            self.opening = OPENING;
        }
        if self.opening == OPENING && read + written > 0 {
            let until = Instant::now() + self.limits.quiet;
            self.alarm.as_mut().reset(until);
        }
    }

    /// Turns waiting into an error once it has taken too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let over = self.end.as_mut().poll(cx).is_ready();
        if over || (poll.is_pending() && self.alarm.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        this.moved(buffer.filled().len() - before, 0);
        this.watch(cx, read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            this.moved(0, count);
        }
        this.watch(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watch(cx, shut)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        if let Poll::Ready(Ok(count)) = written {
            this.moved(0, count);
        }
        this.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    const HEAD: Duration = Duration::from_millis(200);
    const QUIET: Duration = Duration::from_millis(600);
    const SLOW_ANSWER: Duration = Duration::from_millis(400);
    /// Much longer than any limit here: what takes this long was not cut.
    const PATIENCE: Duration = Duration::from_secs(10);

    async fn started(connections: usize) -> (SocketAddr, axum_server::Handle<SocketAddr>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let slow = async || {
            tokio::time::sleep(SLOW_ANSWER).await;
            "slow"
        };
        let router = axum::Router::new().route("/", get(async || "fine")).route("/slow", get(slow));
        let handle = axum_server::Handle::new();
        let limits = Limits { connections, head: HEAD, quiet: QUIET, life: LIFE };
        tokio::spawn(serve(listener, router, None, handle.clone(), limits));
        (address, handle)
    }

    /// What comes until the server closes, which it must.
    async fn until_closed(stream: &mut TcpStream) -> String {
        let mut answer = Vec::new();
        let _end_or_reset = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn whoever_begins_and_stalls_is_cut() {
        let (address, _handle) = started(8).await;
        // Nothing; what may become HTTP/2; what may not; half a head; the preface and no more.
        let openings =
            ["", "P", "G", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
        for opening in openings {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(opening.as_bytes()).await.unwrap();
            if opening.starts_with("PRI") {
                let mut bytes = Vec::new();
                let _end = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
            } else {
                let answer = until_closed(&mut stream).await;
                assert!(!answer.contains("200 OK"), "{opening:?}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_idle_after_its_answer_is_closed() {
        let (address, _handle) = started(8).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = until_closed(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("fine"), "{answer}");
    }

    /// A byte now and then keeps a connection from being quiet, but not from its end.
    #[tokio::test(start_paused = true)]
    async fn a_busy_connection_ends_too() {
        let (mut client, server) = tokio::io::duplex(64);
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let mut watched = Watched::new(server, place, Limits::default());
        let started = Instant::now();
        let trickle = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut bytes = [0; 8];
        let error = loop {
            if let Err(error) = watched.read(&mut bytes).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= LIFE, "{:?}", started.elapsed());
        drop(watched);
        trickle.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_head() {
        let (address, _handle) = started(8).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        assert!(until_closed(&mut stream).await.ends_with("slow"));
    }

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_a_place_comes_back() {
        let (address, _handle) = started(1).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        let ask = b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        first.write_all(ask).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        let _may_be_reset = second.write_all(ask).await;
        assert_eq!(until_closed(&mut second).await, "", "turned away");
        assert!(until_closed(&mut first).await.ends_with("slow"));
        for _ in 0..100 {
            let mut third = TcpStream::connect(address).await.unwrap();
            let _may_be_reset = third.write_all(ask).await;
            if until_closed(&mut third).await.ends_with("slow") {
                return;
            }
        }
        panic!("the place never came back");
    }
}
