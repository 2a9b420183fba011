//! Cards from both sides: talk to one behind a PC/SC reader, and be one behind a virtual reader.
//!
//! - `pcsc` (feature of that name) lists readers and gives the card in one as a
//!   [`CardLink`](countersign_iso7816::CardLink) (D3).
//! - [`vpcd`] makes any [`SlotCard`](vpcd::SlotCard) a card of pcscd's virtual reader.
//! - [`bluetooth`] is the seam for a radio. No radio was tested.
#![forbid(unsafe_code)]

pub mod bluetooth;
#[cfg(feature = "pcsc")]
pub mod pcsc;
pub mod vpcd;
