use core::time::Duration;

use thiserror::Error;

use super::{SamId, Status, Sw3};
use crate::{Challenge, Configuration, EncryptedData, PlainData, Proof};

/// How often a command is sent again after a checksum error, unless configured otherwise.
pub const CHECKSUM_RETRIES: u8 = 3;

/// How the module reaches the card that lies on the remote reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardSide {
    /// The emulator's own extension commands `E0 xx`, in the module's frames.
    #[default]
    EmulatorExtension,
    /// A vendor's RF bridge beside a real module: the host gives each step out as
    /// [`SamEvent::Bridge`] and waits for
    /// [`SamHost::bridge_done`](super::SamHost::bridge_done). No such bridge is part of
    /// Countersign.
    Bridge,
}

/// How long the host waits for each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamTimeouts {
    /// Reset, status and id at the start. Modules typically answer in under 100 ms.
    pub start: Duration,
    /// Find (typically under 100 ms).
    pub find: Duration,
    /// Select (typically under 100 ms).
    pub select: Duration,
    /// Read (typically 2 to 3 s).
    pub read: Duration,
    /// Each step on the card side (extension command or bridge).
    pub card_side: Duration,
}

impl Default for SamTimeouts {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(1),
            find: Duration::from_millis(500),
            select: Duration::from_millis(500),
            read: Duration::from_secs(5),
            card_side: Duration::from_secs(1),
        }
    }
}

/// Whether the module must say whose data it gave (command `30 05`, the card management number).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CardNumberCheck {
    /// A module that does not know the command, or has no number, fails the read.
    Required,
    /// Such a module's data are taken, and the result says that they were not checked.
    #[default]
    IfKnown,
}

/// A host's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SamConfig {
    /// How the module reaches the card.
    pub card_side: CardSide,
    /// How long to wait for each answer.
    pub timeouts: SamTimeouts,
    /// How often a command is sent again after a checksum error (ours or the module's).
    pub checksum_retries: u8,
    /// Whether the module must say whose data it gave.
    pub card_number: CardNumberCheck,
}

impl Default for SamConfig {
    fn default() -> Self {
        Self {
            card_side: CardSide::default(),
            timeouts: SamTimeouts::default(),
            checksum_retries: CHECKSUM_RETRIES,
            card_number: CardNumberCheck::default(),
        }
    }
}

/// Why an operation did not succeed. Only [`SamError::Card`] and [`SamError::NotReady`] leave the
/// host alive ([`is_fatal`](Self::is_fatal)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SamError {
    /// The module did not answer in time, or reported a timeout of its own.
    #[error("the SAM module did not answer '{during}' in time")]
    Timeout {
        /// The command.
        during: &'static str,
    },
    /// Checksum errors did not stop after the configured number of retries.
    #[error("'{during}' kept arriving damaged, {attempts} times")]
    Damaged {
        /// The command.
        during: &'static str,
        /// How often it was sent.
        attempts: u16,
    },
    /// The module refused because of the card: this card cannot be read, the next one may.
    #[error("the SAM module refused '{during}' because of the card: {status:?}")]
    Card {
        /// The command.
        during: &'static str,
        /// The module's answer.
        status: Sw3,
    },
    /// A status that this command must not have, or that blames the module.
    #[error("the SAM module answered '{during}' with {status:?}")]
    Unexpected {
        /// The command.
        during: &'static str,
        /// The module's answer.
        status: Status,
    },
    /// An ok answer whose data have an impossible length or content.
    #[error("the SAM module's answer to '{during}' is malformed")]
    Malformed {
        /// The command.
        during: &'static str,
    },
    /// The module gave the data of a card that is not the one it was shown: it confuses cards.
    #[error("the SAM module gave the data of another card")]
    OtherCard,
    /// The port is gone; reported by the owner with [`SamHost::gone`](super::SamHost::gone).
    #[error("the SAM module is gone")]
    Gone,
    /// Misuse: the host cannot do this operation now. Nothing changed.
    #[error("the SAM host is not ready for this operation")]
    NotReady,
    /// Misuse: the host died of an earlier error; reopen the port and make a new one.
    #[error("the SAM host is dead")]
    Dead,
}

impl SamError {
    /// True if the host is dead after this error.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Card { .. } | Self::NotReady)
    }
}

/// What the server wants of the SAM, in this order: `Begin`, then, if the card itself is read,
/// `Answer`, then `Decrypt`.
#[derive(Debug, PartialEq, Eq)]
pub enum SamOperation {
    /// Present the remote card, find it, select it. Result: [`SamResult::Challenge`].
    Begin {
        /// The card's configuration.
        configuration: Configuration,
    },
    /// The card's answer to the challenge. Result: [`SamResult::Proof`].
    Answer {
        /// The card's answer.
        answer: Challenge,
        /// The card's random number.
        random: Challenge,
    },
    /// Decrypt the card's data. Result: [`SamResult::Plaintext`]; the module then has forgotten
    /// the card. Reads the fingerprint if the data have it.
    Decrypt(EncryptedData),
    /// Forget the card (the read was given up). Allowed at any time. Result:
    /// [`SamResult::Cancelled`].
    Cancel,
    /// Whether the module still answers: its status command. Only between reads. Result:
    /// [`SamResult::Healthy`].
    Status,
}

/// What the SAM made of a [`SamOperation`].
#[derive(Debug)]
pub enum SamResult {
    /// The SAM's fresh challenge for the card.
    Challenge(Challenge),
    /// The SAM's proof for the card.
    Proof(Proof),
    /// The decrypted data.
    Plaintext {
        /// The data.
        data: PlainData,
        /// True if the module said whose data these are, and it is the card of `Begin`. A module
        /// that cannot tell leaves this false ([`CardNumberCheck::IfKnown`]).
        card_checked: bool,
    },
    /// The card is forgotten; the host is idle.
    Cancelled,
    /// The module answered its status command with ok.
    Healthy,
}

/// A step for a vendor's RF bridge ([`CardSide::Bridge`]).
#[derive(Debug, PartialEq, Eq)]
pub enum BridgeWork {
    /// Put this card into the module's field.
    RemoteCard(Configuration),
    /// Hand the card's answer and random number to the module.
    CardAnswer {
        /// The card's answer.
        answer: Challenge,
        /// The card's random number.
        random: Challenge,
    },
    /// Let the module read these encrypted data.
    EncryptedData(EncryptedData),
}

/// What came of a [`BridgeWork`].
#[derive(Debug, PartialEq, Eq)]
pub enum BridgeOutcome {
    /// Of `RemoteCard`: the challenge that the module sent to the card.
    Challenge(Challenge),
    /// Of `CardAnswer`: the proof that the module sent to the card.
    Proof(Proof),
    /// Of `EncryptedData`: the module has them.
    Accepted,
    /// The module refused the card.
    Refused(Sw3),
}

/// What the host tells its owner.
#[derive(Debug)]
pub enum SamEvent {
    /// The module answered reset and status; this is its id. Operations may start.
    Ready(SamId),
    /// An operation's result.
    Done(SamResult),
    /// An operation (or the start) failed; if the error is fatal, the host is dead.
    Failed(SamError),
    /// A step for the RF bridge; only with [`CardSide::Bridge`].
    Bridge(BridgeWork),
}
