//! A [`SamError`] in four bytes and the command's number, and back.

use crate::message::MessageError;
use crate::sam::{SamError, Status, Sw3};

/// The commands that an error may name, by number; 0 is a command that this version does not know.
const DURING: [&str; 14] = [
    "a command",
    "reset",
    "status",
    "sam id",
    "find",
    "select",
    "read text and photo",
    "read text, photo and fingerprint",
    "remote card",
    "card answer",
    "encrypted data",
    "card side",
    "read",
    "card number",
];

/// `kind ‖ command ‖ three bytes of detail`.
pub(super) fn encode(error: &SamError) -> [u8; 5] {
    let number = |during: &str| {
        let at = DURING.iter().position(|known| *known == during);
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    };
    match *error {
        SamError::Timeout { during } => [1, number(during), 0, 0, 0],
        SamError::Damaged { during, attempts } => {
            let [high, low] = attempts.to_be_bytes();
            [2, number(during), high, low, 0]
        }
        SamError::Card { during, status } => [3, number(during), status.byte(), 0, 0],
        SamError::Unexpected { during, status } => {
            let [sw1, sw2, sw3] = status.to_bytes();
            [4, number(during), sw1, sw2, sw3]
        }
        SamError::Malformed { during } => [5, number(during), 0, 0, 0],
        SamError::Gone => [6, 0, 0, 0, 0],
        SamError::NotReady => [7, 0, 0, 0, 0],
        SamError::Dead => [8, 0, 0, 0, 0],
        SamError::OtherCard => [9, 0, 0, 0, 0],
    }
}

pub(super) fn decode([kind, command, a, b, c]: [u8; 5]) -> Result<SamError, MessageError> {
    let during = *DURING.get(usize::from(command)).ok_or(MessageError::Malformed)?;
    let error = match kind {
        1 => SamError::Timeout { during },
        2 => SamError::Damaged { during, attempts: u16::from_be_bytes([a, b]) },
        3 => {
            let status = Sw3::from_byte(a).ok_or(MessageError::Malformed)?;
            SamError::Card { during, status }
        }
        4 => SamError::Unexpected { during, status: Status::from_bytes([a, b, c]) },
        5 => SamError::Malformed { during },
        6 => SamError::Gone,
        7 => SamError::NotReady,
        8 => SamError::Dead,
        9 => SamError::OtherCard,
        other => return Err(MessageError::UnknownType(other.into())),
    };
    // One encoding of everything.
    if encode(&error) == [kind, command, a, b, c] {
        Ok(error)
    } else {
        Err(MessageError::Malformed)
    }
}
