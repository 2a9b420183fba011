use alloc::string::String;
use alloc::vec::Vec;

use thiserror::Error;

/// A card that is reached somehow: through PC/SC, over Bluetooth, in this very process (D3).
pub trait CardLink {
    /// Sends one command APDU and gives the card's response APDU, status word included. Blocking:
    /// a card that asks its holder may take a minute.
    ///
    /// # Errors
    /// [`LinkError`]: what was sent may or may not have reached the card.
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError>;
}

/// Why a card did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LinkError {
    /// The card is not there any more.
    #[error("the card was removed")]
    Removed,
    /// Someone else reset the card: what it knew of this conversation is gone.
    #[error("the card was reset")]
    Reset,
    /// It did not answer in time.
    #[error("the card does not answer")]
    Timeout,
    /// The way to it failed.
    #[error("the card cannot be reached: {0}")]
    Failed(String),
}

impl LinkError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Removed => "card-removed",
            Self::Reset => "card-reset",
            Self::Timeout => "card-timeout",
            Self::Failed(_) => "card-link",
        }
    }
}

impl<L: CardLink + ?Sized> CardLink for &mut L {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        (**self).transmit(command)
    }
}

impl<L: CardLink + ?Sized> CardLink for alloc::boxed::Box<L> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        (**self).transmit(command)
    }
}
