use cryptoki::error::{Error, RvError};

use crate::HsmError;

/// What stops an operation in a session: the token's answer, or our own check of it.
#[derive(Debug)]
pub(super) enum Failure {
    Token(Error),
    Check(HsmError),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}

impl From<HsmError> for Failure {
    fn from(error: HsmError) -> Self {
        Self::Check(error)
    }
}

impl From<Failure> for HsmError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Check(error) => error,
            Failure::Token(error) => of_token(&error),
        }
    }
}

/// True if the session has ended or its handles mean nothing any more, so that a fresh session
/// and a second look may help.
pub(super) fn is_lost(error: &Error) -> bool {
    let Error::Pkcs11(code, _) = error else { return false };
    matches!(
        code,
        RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::UserNotLoggedIn
            | RvError::CryptokiNotInitialized
            | RvError::KeyHandleInvalid
            | RvError::ObjectHandleInvalid
    )
}

/// The token's answer by blame. The texts are the library's names of codes; none has a PIN.
pub(super) fn of_token(error: &Error) -> HsmError {
    let text = error.to_string();
    match error {
        _ if is_lost(error) => HsmError::TokenLost(text),
        Error::LibraryLoading(_) | Error::MissingSymbol(_) | Error::NullFunctionPointer => {
            HsmError::Module(text)
        }
        Error::Pkcs11(code, _) => match code {
            RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => {
                HsmError::PinWrong
            }
            RvError::PinLocked => HsmError::PinLocked,
            RvError::UserPinNotInitialized | RvError::PinExpired => HsmError::PinNotSet,
            RvError::SessionCount => HsmError::Busy,
            _ => HsmError::Token(text),
        },
        _ => HsmError::Token(text),
    }
}
