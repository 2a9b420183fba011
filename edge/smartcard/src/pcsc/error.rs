use pcsc::Error;
use thiserror::Error as ThisError;

/// Why no card is connected.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum PcscError {
    /// No PC/SC service runs.
    #[error("the smart-card service does not run; on Linux it is pcscd")]
    NoService,
    /// The service knows no reader at all.
    #[error("no card reader is connected")]
    NoReader,
    /// No reader has this name.
    #[error("no card reader is called {0:?}")]
    UnknownReader(String),
    /// More than one reader has this in its name.
    #[error("several card readers are called so: {}", .0.join(", "))]
    SeveralReaders(Vec<String>),
    /// No card is in the reader, or in any.
    #[error("no card is in the reader")]
    NoCard,
    /// Cards are in several readers and none was named.
    #[error("several readers have a card, say which: {}", .0.join(", "))]
    SeveralCards(Vec<String>),
    /// Another program uses the card.
    #[error("another program uses the card")]
    Busy,
    /// The card does not start: put in the wrong way, or none that PC/SC can use.
    #[error("the card does not answer to power: is it put in the right way?")]
    Mute,
    /// The card was taken out while it was being connected.
    #[error("the card was removed")]
    Removed,
    /// The card or its reader hangs. What was begun goes on in the background: PC/SC cannot break
    /// it off, and the reader stays busy as long.
    #[error("the card or its reader does not answer; it stays busy until this program ends")]
    Stuck,
    /// Anything else the service says.
    #[error("the smart-card service failed: {0}")]
    Failed(String),
}

impl PcscError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::NoService => "pcsc-service",
            Self::NoReader => "reader-absent",
            Self::UnknownReader(_) => "reader-unknown",
            Self::SeveralReaders(_) => "reader-ambiguous",
            Self::NoCard => "card-absent",
            Self::SeveralCards(_) => "card-ambiguous",
            Self::Busy => "card-busy",
            Self::Mute => "card-mute",
            Self::Removed => "card-removed",
            Self::Stuck => "card-timeout",
            Self::Failed(_) => "pcsc",
        }
    }
}

impl From<Error> for PcscError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoService | Error::ServiceStopped | Error::Shutdown | Error::InvalidHandle => {
                Self::NoService
            }
            Error::NoReadersAvailable | Error::ReaderUnavailable | Error::UnknownReader => {
                Self::NoReader
            }
            Error::NoSmartcard => Self::NoCard,
            Error::SharingViolation => Self::Busy,
            Error::UnresponsiveCard
            | Error::UnpoweredCard
            | Error::UnsupportedCard
            | Error::CardUnsupported
            | Error::InvalidAtr
            | Error::ProtoMismatch => Self::Mute,
            Error::RemovedCard => Self::Removed,
            other => Self::Failed(other.to_string()),
        }
    }
}
