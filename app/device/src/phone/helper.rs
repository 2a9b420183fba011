//! The phone's helper (D3): a browser cannot speak to a card, so the phone page of a browser hands
//! a payment's bytes to this program on the same machine, and takes the security device's answer.
//!
//! It listens on loopback alone and answers one page's origin alone, for a token that it prints and
//! that works once. It holds no phone's session and speaks to no server: what it gives is an answer
//! for bytes that the device showed and its holder agreed to, at the helper's own terminal.

mod exchange;
mod head;
mod origin;
mod tokens;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use countersign_crypto::CryptoRng;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use super::super::key::{DeviceAnswer, KeyError};
use exchange::Exchange;
pub use origin::PageOrigin;
use tokens::Tokens;
pub use tokens::WRONG_TOKENS_MAX;

/// Connections at once; a page needs two.
const CONNECTIONS_MAX: usize = 16;
/// How long the head of a request may take.
const HEAD_WAIT: Duration = Duration::from_secs(5);
/// Longest head, in bytes; hyper takes no less.
const HEAD_MAX: usize = 8 * 1024 + 4096;
/// Events that wait to be told.
const EVENTS_MAX: usize = 16;
/// How long the last answers may take when the helper ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The pause after the system refused a connection, for want of something that comes back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a helper did not start, or ended.
#[derive(Debug, Error)]
pub enum HelperError {
    /// What was given as the page's origin is none that a page could be trusted at.
    #[error("the page's origin: {0}")]
    Origin(&'static str),
    /// The port on loopback is not to be had.
    #[error("port {port} on 127.0.0.1: {source}")]
    Listen {
        /// The port; 0 for any.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// No token could be made.
    #[error("no random token could be made")]
    Random,
    /// Somebody sent wrong tokens.
    #[error("{WRONG_TOKENS_MAX} wrong tokens were sent: the helper has ended, start it again")]
    WrongTokens,
}

impl HelperError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Origin(_) => "helper-origin",
            Self::Listen { .. } => "helper-port",
            Self::Random => "crypto",
            Self::WrongTokens => "helper-token",
        }
    }

    /// Whether the system is to blame, rather than whoever asked.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        matches!(self, Self::Listen { .. } | Self::Random)
    }
}

/// Why a security device gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable name of the failed check; the page is told it.
    pub check: String,
    /// A sentence for the helper's terminal.
    pub detail: String,
}

impl From<KeyError> for Refusal {
    fn from(error: KeyError) -> Self {
        Self { check: error.check().to_owned(), detail: error.to_string() }
    }
}

/// Has a security device show the bytes of a confirmation request and answer for them. It blocks
/// as long as the holder takes; it is called for one request at a time.
pub type Confirm = Box<dyn FnMut(&[u8]) -> Result<DeviceAnswer, Refusal> + Send>;

/// What a helper did, for its terminal.
#[derive(Debug, PartialEq, Eq)]
pub struct HelperEvent {
    /// The payment that the request was for, if it was one's.
    pub payment: Option<String>,
    /// The serial number of the device that answered; or why none did.
    pub outcome: Result<String, Refusal>,
    /// False if the page was gone before it had the answer, which nobody has then.
    pub heard: bool,
    /// The page's URL with the token that is good now.
    pub url: Zeroizing<String>,
}

/// A helper that listens, and answers nothing yet.
pub struct Helper {
    listener: TcpListener,
    port: u16,
    origin: PageOrigin,
    tokens: Tokens,
}

impl Helper {
    /// Listens on 127.0.0.1, at `port` or, if that is 0, at any that is free, for the page at
    /// `origin`. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`HelperError::Listen`], [`HelperError::Random`].
    pub async fn listen(
        origin: PageOrigin,
        port: u16,
        rng: Box<dyn CryptoRng + Send>,
    ) -> Result<Self, HelperError> {
        let failed = |source| HelperError::Listen { port, source };
        // IPv4 loopback by number: no name that could come to mean another address.
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port, origin, tokens: Tokens::new(rng)? })
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The page that it answers.
    #[must_use]
    pub const fn origin(&self) -> &PageOrigin {
        &self.origin
    }

    /// The page's URL. The part behind `#`, which browsers send to nobody, holds the token.
    #[must_use]
    pub fn url(&self) -> Zeroizing<String> {
        self.origin.page(self.port, self.tokens.current())
    }

    /// Answers until `stop` is done.
    ///
    /// # Errors
    /// [`HelperError::WrongTokens`].
    pub async fn run(
        self,
        confirm: Confirm,
        mut told: impl FnMut(HelperEvent),
        stop: impl Future<Output = ()>,
    ) -> Result<(), HelperError> {
        let (tell, mut events) = mpsc::channel(EVENTS_MAX);
        let Self { listener, port, origin, tokens } = self;
        let exchange = Arc::new(Exchange::new(origin, port, tokens, confirm, tell));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut stop = pin!(stop);
        let ended = loop {
            tokio::select! {
                () = &mut stop => break Ok(()),
                () = exchange.ended() => break Err(HelperError::WrongTokens),
                Some(event) = events.recv() => told(event),
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = accept(&listener, &places) => {
                    let Some((stream, place)) = accepted else { continue };
                    let exchange = Arc::clone(&exchange);
                    connections.spawn(async move {
                        serve(stream, exchange).await;
                        drop(place);
                    });
                }
            }
        };
        if ended.is_err() {
            // Whoever sent the last wrong one is told so.
            let last = async { while connections.join_next().await.is_some() {} };
            let _late = tokio::time::timeout(LAST_WORDS, last).await;
        }
        ended
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

/// The next connection, when there is a place for it.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, Place)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    if let Ok((stream, _)) = listener.accept().await {
        return Some((stream, place));
    }
    tokio::time::sleep(ACCEPT_PAUSE).await;
    None
}

/// One request of one connection.
async fn serve(stream: TcpStream, exchange: Arc<Exchange>) {
    let mut http = http1::Builder::new();
    http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
    http.max_buf_size(HEAD_MAX);
    let service = service_fn(move |request| {
        let exchange = Arc::clone(&exchange);
        async move { Ok::<_, std::convert::Infallible>(exchange.answer(request).await) }
    });
    let _gone = http.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests;
