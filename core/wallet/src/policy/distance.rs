//! Distance checks: noticed and told, never worked around.
//!
//! A terminal with such a check (Mastercard's relay resistance protocol, EMV Contactless Book C-2,
//! 3.10) times one command, and refuses a card that takes longer than it says of itself. A card
//! that is used from elsewhere must fail it, and does: the command passes untouched and takes as
//! long as it takes. What is added here is only that whoever pays is told why.

use core::time::Duration;

use countersign_iso7816::{Response, Status};

use crate::message::DistanceCheckFails;

/// EXCHANGE RELAY RESISTANCE DATA: class and instruction.
pub(crate) const EXCHANGE: [u8; 2] = [0x80, 0xea];
/// Tag and length of its response: entropy of the card (4 bytes), least and most time that it
/// takes, time on the way; two bytes each, in units of 100 µs.
const HEAD: [u8; 2] = [0x80, 10];
/// One unit of the times, in microseconds.
const UNIT_MICROS: u128 = 100;

/// Whether a command is a distance check.
#[must_use]
pub fn is_check(command: &[u8]) -> bool {
    command.starts_with(&EXCHANGE)
}

/// Judges an exchange that took `measured` from the terminal's command to its response: a finding,
/// if the command was a distance check and the card's own longest time was exceeded. A terminal may
/// allow a little more; it decides.
#[must_use]
pub fn judge(command: &[u8], response: &[u8], measured: Duration) -> Option<DistanceCheckFails> {
    if !is_check(command) {
        return None;
    }
    let response = Response::parse(response).filter(|r| r.status == Status::OK)?;
    let times = response.data.strip_prefix(&HEAD)?;
    let &[_, _, _, _, _, _, upper, lower, _, _] = times else { return None };
    let maximum = u16::from_be_bytes([upper, lower]);
    let measured = u32::try_from(measured.as_micros() / UNIT_MICROS).unwrap_or(u32::MAX);
    (measured > u32::from(maximum)).then_some(DistanceCheckFails { measured, maximum })
}
