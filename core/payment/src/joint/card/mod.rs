//! The signing card as an ISO/IEC 7816-4 application (B1 to B7), and whoever talks to it:
//! `docs/protocols/joint-password.md`.
//!
//! [`JointCard`] is the card's side. In a terminal's contact reader it takes a transaction, signs
//! it together with a joint password of its own making, and hands out the signature only. Taken
//! out, it shows what it signed ([`View`]), takes its holder's PIN at its own keypad, and then
//! shows the joint password, or gives it, once and without contact, to whoever has the signature.
//! What it runs on is a [`JointChip`]. [`JointClient`] is the terminal's side, over whatever
//! [`CardLink`](countersign_iso7816::CardLink) there is.

mod application;
mod client;
mod error;
mod state;

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use countersign_crypto::{CryptoRng, Hash, Secret, Suite};

pub use application::JointCard;
pub use client::{JointClient, Signed};
pub use error::ConfirmError;
pub use state::{Phase, View};

use crate::card::{ChipError, Tries};
use crate::joint::{Commitment, Form, JointPassword};

/// The application identifier: `F0`, proprietary and not registered (ISO/IEC 7816-4, 12.2.3.3), and
/// "CountersignCard". It is selected whole.
pub const AID: [u8; 16] = *b"\xf0CountersignCard";
/// The application's label, in its control information.
pub const LABEL: &str = "Countersign card";
/// The version of what this application speaks.
pub const VERSION: u8 = 1;

/// How long a card that has signed waits to be taken out of the terminal. Then it destroys the
/// joint password.
pub const TAKE_OUT_TIME: Duration = Duration::from_secs(120);
/// How long, from when it was taken out, a card waits for its holder's PIN.
pub const CONSENT_TIME: Duration = Duration::from_secs(120);
/// How long, from its holder's consent, a card shows the joint password and gives it out.
pub const SHOW_TIME: Duration = Duration::from_secs(60);
/// What this application adds to [`crate::card::instruction`].
mod instruction {
    /// MANAGE SECURITY ENVIRONMENT.
    pub(super) const MANAGE_SECURITY_ENVIRONMENT: u8 = 0x22;
    /// GET DATA whose data field says what is asked for (ISO/IEC 7816-4, 7.4.2).
    pub(super) const GET_DATA_ODD: u8 = 0xcb;
}

/// What this application adds to [`crate::card::parameter`].
mod parameter {
    /// SET, for the digital signature template (ISO/IEC 7816-4, 11.5.11).
    pub(super) const SIGNATURE_TEMPLATE: u16 = 0x41b6;
    pub(super) const STATE: u16 = 0xdf06;
    pub(super) const RELEASE: u16 = 0xdf20;
}

/// Tags within commands and answers.
mod tag {
    pub(super) const VERSION: u16 = 0x80;
    pub(super) const FORMS: u16 = 0x81;
    pub(super) const SUITE: u16 = 0x82;
    pub(super) const SERVER: u16 = 0x83;
    pub(super) const ACCOUNT: u16 = 0x84;
    /// Of the form, in the digital signature template: a reference to an algorithm.
    pub(super) const ALGORITHM: u16 = 0x80;
    pub(super) const COMMITMENT: u16 = 0x80;
    pub(super) const SIGNATURE: u16 = 0x81;
}

/// How a card is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// A terminal's contact reader (ISO/IEC 7816-3), in which it signs.
    Contact,
    /// A contactless reader (ISO/IEC 14443), to which it gives the joint password at most.
    Contactless,
}

/// What a card says of itself in a contact reader, to anyone and without a PIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JointInfo {
    /// Its serial number, of the form of an [`Identity`](countersign_pki::Identity)'s id.
    pub serial: String,
    /// The forms of signature that it has, best first; none twice.
    pub forms: Vec<Form>,
    /// The suite of its key.
    pub suite: Suite,
    /// The server that enrolled it, of the same form as the serial number; empty until then.
    pub server_id: String,
    /// The number of its holder's account, from which it pays; empty if none is known.
    pub account: String,
}

/// What the application needs of the chip below it: what it says of itself, its key, its PIN.
pub trait JointChip {
    /// What it says of itself.
    fn info(&self) -> JointInfo;

    /// Its certificate (DER), if it is enrolled.
    fn certificate(&self) -> Option<Vec<u8>>;

    /// Tries that are left.
    ///
    /// # Errors
    /// [`ChipError::Failed`].
    fn tries(&self) -> Result<Tries, ChipError>;

    /// The hash of its suite.
    fn hash(&self) -> &dyn Hash;

    /// Commits to the joint password in this form, and signs the bytes of a confirmation request
    /// together with the commitment ([`crate::joint::commit`], [`crate::joint::sign`]). Before the
    /// PIN: alone, the signature executes nothing. Keeps nothing of the joint password.
    ///
    /// # Errors
    /// [`ChipError::Request`], [`ChipError::Failed`].
    fn commit_and_sign(
        &mut self,
        rng: &mut dyn CryptoRng,
        form: Form,
        transaction: &[u8],
        password: &JointPassword,
    ) -> Result<(Commitment, Vec<u8>), ChipError>;

    /// Whether this is the PIN. The try is counted before the PIN is compared, so that whoever
    /// takes the power away in between has gained nothing.
    ///
    /// # Errors
    /// [`ChipError::PinForm`], [`ChipError::PinWrong`], [`ChipError::PinBlocked`],
    /// [`ChipError::Failed`].
    fn check_pin(&mut self, pin: &Secret) -> Result<(), ChipError>;
}
