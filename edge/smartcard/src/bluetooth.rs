//! A card behind a radio: the seam only.
//!
//! The patent's phone may reach the device over Bluetooth (D3). What a driver has to give is
//! written down here, and everything above it works over any [`CardLink`]. **No driver is part of
//! this project and no radio was tested with it.**

use std::time::Duration;

use countersign_iso7816::CardLink;
use thiserror::Error;

/// A device that a radio sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nearby {
    /// How the radio names it; opaque here.
    pub address: String,
    /// What it calls itself. Anyone can call himself anything: nothing is decided by it.
    pub name: String,
}

/// A Bluetooth adapter that can open a link to a card.
///
/// A link carries whole APDUs in order and without loss, and is encrypted with a pairing that a
/// man in the middle cannot have (LE Secure Connections with numeric comparison or passkey). The
/// request and the answer need no secrecy from the phone, but a PIN that goes by VERIFY does.
pub trait Radio {
    /// The link to one device; dropping it disconnects.
    type Link: CardLink;

    /// Devices that advertise our service, seen within this time.
    ///
    /// # Errors
    /// [`BluetoothError::Absent`], [`BluetoothError::Failed`].
    fn nearby(&mut self, within: Duration) -> Result<Vec<Nearby>, BluetoothError>;

    /// Connects to a device.
    ///
    /// # Errors
    /// [`BluetoothError`].
    fn open(&mut self, device: &Nearby) -> Result<Self::Link, BluetoothError>;
}

/// Why a radio gives no link.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BluetoothError {
    /// There is no adapter, or it is off.
    #[error("there is no Bluetooth adapter that is on")]
    Absent,
    /// The device is paired with nobody here, or the pairing is too weak for a PIN.
    #[error("the device is not paired safely with this phone")]
    Unpaired,
    /// The device is out of reach.
    #[error("the device does not answer")]
    Unreachable,
    /// Anything else the radio says.
    #[error("Bluetooth fails: {0}")]
    Failed(String),
}

impl BluetoothError {
    /// Stable name of the failed check.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Absent => "bluetooth-absent",
            Self::Unpaired => "bluetooth-unpaired",
            Self::Unreachable => "card-timeout",
            Self::Failed(_) => "bluetooth",
        }
    }
}
