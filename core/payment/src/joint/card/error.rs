use thiserror::Error;

use crate::card::ChipError;

/// Why the holder's consent at the card's keypad did not count.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfirmError {
    /// There is nothing to consent to: nothing was signed, or it is too late, or it was answered.
    #[error("the card asks nothing")]
    NothingAsked,
    /// The card is in the terminal's reader, where its holder does not see its display.
    #[error("the card must be taken out of the terminal")]
    InTerminal,
    /// The PIN.
    #[error(transparent)]
    Chip(#[from] ChipError),
}

impl ConfirmError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::NothingAsked => "card-nothing-asked",
            Self::InTerminal => "card-in-terminal",
            Self::Chip(ChipError::PinForm) => "pin-form",
            Self::Chip(ChipError::PinWrong { .. }) => "pin-wrong",
            Self::Chip(ChipError::PinBlocked) => "pin-blocked",
            Self::Chip(_) => "card-failed",
        }
    }
}
