//! The security device as an ISO/IEC 7816-4 application (D3, D4), and whoever talks to it:
//! `docs/protocols/security-device.md`.
//!
//! [`SecurityDeviceCard`] is the card's side: it takes the very bytes of a confirmation request,
//! parses them, shows what it parsed, wants a PIN for them, and signs once. What it runs on is a
//! [`Chip`]; what its holder sees and types at is a [`Screen`]. [`CardClient`] is the phone's side,
//! over whatever [`CardLink`](countersign_iso7816::CardLink) there is.

pub(crate) mod application;
pub(crate) mod client;
mod error;
pub mod pin_block;

use alloc::string::String;
use alloc::vec::Vec;

use countersign_crypto::{CryptoRng, Secret, Suite};

pub use application::SecurityDeviceCard;
pub use client::CardClient;
pub use error::{CardError, ChipError};

use crate::Line;

/// The application identifier: `F0`, proprietary and not registered (ISO/IEC 7816-4, 12.2.3.3), and
/// "Countersign".
pub const AID: [u8; 12] = *b"\xf0Countersign";
/// The application's label, in its control information.
pub const LABEL: &str = "Countersign";
/// The version of what this application speaks.
pub const VERSION: u8 = 1;

/// Instructions (INS).
pub(crate) mod instruction {
    pub(crate) const VERIFY: u8 = 0x20;
    pub(crate) const CHANGE_REFERENCE_DATA: u8 = 0x24;
    pub(crate) const PERFORM_SECURITY_OPERATION: u8 = 0x2a;
    pub(crate) const RESET_RETRY_COUNTER: u8 = 0x2c;
    pub(crate) const INTERNAL_AUTHENTICATE: u8 = 0x88;
    pub(crate) const SELECT: u8 = 0xa4;
    pub(crate) const GET_DATA: u8 = 0xca;
    pub(crate) const PUT_DATA: u8 = 0xda;
}

/// P1-P2: data objects, and what commands are about.
pub(crate) mod parameter {
    pub(crate) const NONE: u16 = 0;
    pub(crate) const BY_NAME: u16 = 0x0400;
    /// The PIN: reference data 1, of this application.
    pub(crate) const PIN: u16 = 0x0081;
    /// Compute a digital signature (ISO/IEC 7816-8).
    pub(crate) const SIGNATURE: u16 = 0x9e9a;
    pub(crate) const SERIAL: u16 = 0xdf01;
    pub(crate) const INFO: u16 = 0xdf02;
    pub(crate) const TRIES: u16 = 0xdf03;
    pub(crate) const CERTIFICATE: u16 = 0xdf05;
    pub(crate) const REQUEST: u16 = 0xdf10;
}

/// Tags within answers.
mod tag {
    pub(super) const FCI: u16 = 0x6f;
    pub(super) const NAME: u16 = 0x84;
    pub(super) const PROPRIETARY: u16 = 0xa5;
    pub(super) const LABEL: u16 = 0x50;
    pub(super) const VERSION: u16 = 0x80;
    pub(super) const METHOD: u16 = 0x81;
    pub(super) const SUITE: u16 = 0x82;
    pub(super) const PIN_ENTRY: u16 = 0x83;
    pub(super) const SERVER: u16 = 0x84;
}

/// How a card signs (D4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Its private key: a signature under its certificate.
    Pki,
    /// The key that it shares with the server: a dynamic password (OCRA, RFC 6287).
    Ocra,
}

impl Method {
    /// The name, here and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pki => "pki",
            Self::Ocra => "ocra",
        }
    }

    /// The method of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pki, Self::Ocra].into_iter().find(|method| method.name() == name)
    }
}

/// Where a card takes its PIN from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinEntry {
    /// A keypad of its own, beside its own display: the phone never sees the PIN.
    Keypad,
    /// Whoever talks to it: VERIFY.
    Host,
}

impl PinEntry {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keypad => "keypad",
            Self::Host => "host",
        }
    }

    /// The entry of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Keypad, Self::Host].into_iter().find(|entry| entry.name() == name)
    }
}

/// What a card says of itself, to anyone and without a PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardInfo {
    /// Its serial number, of the form of an [`Identity`](countersign_pki::Identity)'s id.
    pub serial: String,
    /// How it signs.
    pub method: Method,
    /// The suite of its key, or of the server that its key is shared with.
    pub suite: Suite,
    /// Where it takes its PIN from.
    pub pin_entry: PinEntry,
    /// The server that enrolled it, of the same form; empty until then.
    pub server_id: String,
}

/// Tries that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Of the PIN.
    pub pin: u8,
    /// Of the PUK; 0 too where there is none.
    pub puk: u8,
}

/// What the application needs of the chip below it. Without an [`unlock`](Chip::unlock) nothing is
/// signed; each `unlock` serves one [`sign`](Chip::sign) at most.
pub trait Chip {
    /// What it says of itself.
    fn info(&self) -> CardInfo;

    /// Its certificate (DER), if it has one.
    fn certificate(&self) -> Option<Vec<u8>>;

    /// Tries that are left.
    ///
    /// # Errors
    /// [`ChipError::Failed`].
    fn tries(&self) -> Result<Tries, ChipError>;

    /// Makes its key usable, for the PIN. The try is counted before the PIN is compared, so that
    /// whoever takes the power away in between has gained nothing.
    ///
    /// # Errors
    /// [`ChipError::PinForm`], [`ChipError::PinWrong`], [`ChipError::PinBlocked`],
    /// [`ChipError::Failed`].
    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError>;

    /// Forgets that it was unlocked.
    fn lock(&mut self);

    /// Answers the bytes of a confirmation request, if it is unlocked: a signature as the suite's
    /// are (DER), or the ASCII digits of a dynamic password. Locks itself, whatever comes of it.
    ///
    /// # Errors
    /// [`ChipError::Locked`], [`ChipError::Request`], [`ChipError::Failed`].
    fn sign(&mut self, request: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError>;

    /// Changes the PIN, for the old one.
    ///
    /// # Errors
    /// As [`Self::unlock`].
    fn change_pin(
        &mut self,
        old: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError>;

    /// Sets a PIN anew, for the PUK, and gives it back its tries. Counted as [`Self::unlock`] is.
    ///
    /// # Errors
    /// [`ChipError::PinForm`], [`ChipError::PukWrong`], [`ChipError::PukBlocked`],
    /// [`ChipError::PukAbsent`], [`ChipError::Failed`].
    fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError>;
}

impl<C: Chip + ?Sized> Chip for &mut C {
    fn info(&self) -> CardInfo {
        (**self).info()
    }

    fn certificate(&self) -> Option<Vec<u8>> {
        (**self).certificate()
    }

    fn tries(&self) -> Result<Tries, ChipError> {
        (**self).tries()
    }

    fn unlock(&mut self, pin: &Secret) -> Result<(), ChipError> {
        (**self).unlock(pin)
    }

    fn lock(&mut self) {
        (**self).lock();
    }

    fn sign(&mut self, request: &[u8], rng: &mut dyn CryptoRng) -> Result<Vec<u8>, ChipError> {
        (**self).sign(request, rng)
    }

    fn change_pin(
        &mut self,
        old: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        (**self).change_pin(old, new, rng)
    }

    fn unblock(
        &mut self,
        puk: &Secret,
        new: &Secret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), ChipError> {
        (**self).unblock(puk, new, rng)
    }
}

/// A card's own display and keypad.
pub trait Screen {
    /// Shows what was loaded. Of cards whose PIN comes from the host.
    fn shown(&mut self, lines: &[Line]);

    /// Shows what is to be signed, and waits for the PIN at the keypad; `None` if the holder says
    /// no, or nothing. Of cards with a keypad.
    fn asked(&mut self, lines: &[Line]) -> Option<Secret>;
}

impl<S: Screen + ?Sized> Screen for &mut S {
    fn shown(&mut self, lines: &[Line]) {
        (**self).shown(lines);
    }

    fn asked(&mut self, lines: &[Line]) -> Option<Secret> {
        (**self).asked(lines)
    }
}
