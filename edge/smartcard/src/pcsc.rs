//! Talking to a card: PC/SC, the system's service for readers with contacts and without.
//!
//! The service is pcsc-lite's pcscd here (on Windows and macOS the system's own). Its own variable
//! `PCSCLITE_CSOCK_NAME` names another socket of it.

use std::time::Duration;

use countersign_iso7816::{CardLink, LinkError};

mod error;
mod readers;
mod worker;

pub use error::PcscError;
pub use readers::{Reader, readers};
use worker::Worker;

/// Longest that a card may take for one command: its holder reads, decides and types a PIN.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(240);

/// The card in a reader, ours alone until this is dropped: no other program can slip a command
/// between a PIN and the signature that it is for. The card is reset first and last: it brings
/// nothing along that another program began, and keeps nothing of ours.
#[derive(Debug)]
pub struct PcscLink {
    reader: String,
    atr: Vec<u8>,
    worker: Worker,
}

impl PcscLink {
    /// The card in this reader; without a name, in the only reader that has one.
    ///
    /// A name is a reader's whole name or a part that only one has.
    ///
    /// # Errors
    /// [`PcscError`].
    pub fn connect(reader: Option<&str>) -> Result<Self, PcscError> {
        Self::connect_within(reader, Duration::ZERO)
    }

    /// As [`Self::connect`], waiting so long for a reader and for a card to be put there.
    ///
    /// # Errors
    /// [`PcscError`].
    pub fn connect_within(reader: Option<&str>, wait: Duration) -> Result<Self, PcscError> {
        let (worker, found) = Worker::start(reader, wait)?;
        Ok(Self { reader: found.reader, atr: found.atr, worker })
    }

    /// The reader's name.
    #[must_use]
    pub fn reader(&self) -> &str {
        &self.reader
    }

    /// The card's answer to reset.
    #[must_use]
    pub fn atr(&self) -> &[u8] {
        &self.atr
    }
}

impl CardLink for PcscLink {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        self.worker.transmit(command, ANSWER_WITHIN)
    }
}
