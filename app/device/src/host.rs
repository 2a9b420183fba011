//! The host of a reader (C16): a PC that carries the reader's sealed datagrams between its serial
//! line and the server, passes the read command, and is given the record it asked for.
//!
//! It holds no key: what it carries it cannot read.

mod pump;
#[cfg(test)]
mod tests;

use std::time::Duration;

use countersign_crypto::CryptoRng;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::line::{Hello, LineFailure, LineResult, Progress};
use pump::{Ask, Pump};

/// How long a host waits for a word about a read before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a reader may be silent about a read.
pub(crate) const READER_SILENT: Duration = Duration::from_secs(5);
/// How long a read may take in all, whatever the reader says meanwhile.
const READ_MAX: Duration = Duration::from_secs(120);

/// What a host joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOptions {
    /// Path of the serial port on which the reader is.
    pub port: String,
    /// Its speed.
    pub baud: u32,
    /// The server's device gateway, `host:port`, over UDP.
    pub gateway: String,
}

/// What a host tells its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// The port is open.
    PortOpened,
    /// The port cannot be opened, or was unplugged; it is tried again all the time.
    PortAbsent {
        /// What the system said.
        detail: String,
    },
    /// The reader has said who it is.
    Hello(Hello),
    /// The server answers (again).
    ServerFound,
    /// The server cannot be reached; the reader was told.
    NoServer {
        /// What the system said.
        detail: String,
    },
    /// A read goes on.
    Progress(Progress),
    /// What came off the line was no message, or not the reader's to say, or not asked for.
    Unexpected {
        /// Stable name of the failed check: `line-damaged`, `line-oversized`, `line-malformed`,
        /// `line-unexpected`.
        check: &'static str,
        /// One sentence, without content.
        detail: String,
    },
}

/// Why a host got no record.
#[derive(Debug, Error)]
pub enum HostError {
    /// The port cannot be opened, or was unplugged and did not come back.
    #[error("the serial port {port}: {detail}")]
    Port {
        /// Which.
        port: String,
        /// What the system said.
        detail: String,
    },
    /// Bytes came, but nothing that a reader says.
    #[error(
        "what comes from {port} is not a reader's: {pieces} damaged pieces and no message (is the \
         speed right?)"
    )]
    Garbage {
        /// Which port.
        port: String,
        /// How many pieces.
        pieces: u64,
    },
    /// The reader does not answer.
    #[error("the reader on {port} does not answer")]
    Silent {
        /// Which port.
        port: String,
    },
    /// The read took too long.
    #[error("the read was not over after {} s", READ_MAX.as_secs())]
    TooLong,
    /// The reader did not read, or was refused.
    #[error("{}", .0.detail)]
    Reader(LineFailure),
    /// Another read was asked for meanwhile, or the host has ended.
    #[error("the host has ended")]
    Ended,
}

impl HostError {
    /// Stable name of the failed check.
    #[must_use]
    pub fn check(&self) -> &str {
        match self {
            Self::Port { .. } => "port-unavailable",
            Self::Garbage { .. } => "line-damaged",
            Self::Silent { .. } => "reader-silent",
            Self::TooLong => "read-timeout",
            Self::Reader(failure) => &failure.check,
            Self::Ended => "host-ended",
        }
    }

    /// Where an operator of the server finds more.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::Reader(failure) => failure.incident.as_deref(),
            _ => None,
        }
    }

    /// Whether the environment is to blame, rather than a check that refused.
    #[must_use]
    pub const fn is_environment(&self) -> bool {
        match self {
            Self::Reader(failure) => failure.environment,
            _ => true,
        }
    }
}

/// A running host. Dropping it ends it.
pub struct Host {
    asks: mpsc::Sender<Ask>,
    rng: Box<dyn CryptoRng + Send>,
    task: JoinHandle<()>,
}

impl Host {
    /// Opens the port and goes on, through unplugging and server restarts, until it is stopped.
    /// `rng` gives the numbers of its commands. Must be called on a runtime.
    #[must_use]
    pub fn start(
        options: HostOptions,
        rng: Box<dyn CryptoRng + Send>,
        tell: impl FnMut(HostEvent) + Send + 'static,
    ) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let task = tokio::spawn(Pump::new(options, asked, Box::new(tell)).run());
        Self { asks, rng, task }
    }

    /// Passes the read command and waits for the record.
    ///
    /// # Errors
    /// [`HostError`].
    pub async fn read(&mut self, fingerprint: bool) -> Result<LineResult, HostError> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { number: self.rng.next_u64(), fingerprint, answer };
        self.asks.send(ask).await.map_err(|_| HostError::Ended)?;
        answered.await.unwrap_or(Err(HostError::Ended))
    }

    /// Closes port and socket.
    pub async fn stop(self) {
        let Self { asks, task, .. } = self;
        drop(asks); // the pump ends with the last one who could ask
        let _panicked = task.await;
    }
}
