//! The way to a signing card, which fails between any two APDUs or within one, when the seed says
//! so.

use countersign_crypto::CryptoRng;
use countersign_iso7816::{CardLink, LinkError};
use rand_core::Rng;
use testkit::rng::ChaCha20Rng;

use super::SigningCard;

/// Of so many commands about one meets each kind of trouble.
const TROUBLE_IN: u32 = 80;

/// What makes errors of the link, and of the order of commands, fair.
pub(super) const TROUBLES: [&str; 6] = [
    "joint cards removed",
    "joint cards reset",
    "joint cards reset untold",
    "joint responses lost",
    "joint commands twice",
    "joint batteries dead",
];

pub(super) struct Torn<'a> {
    pub(super) card: &'a mut SigningCard,
    pub(super) rng: &'a mut dyn CryptoRng,
    pub(super) chance: &'a mut ChaCha20Rng,
    pub(super) happened: &'a mut Vec<&'static str>,
}

/// What a command is, for the tally of those that met trouble.
const fn torn_at(instruction: Option<u8>) -> &'static str {
    match instruction {
        Some(0xa4) => "torn at SELECT",
        Some(0xca) => "torn at GET DATA",
        Some(0xda) => "torn at PUT TRANSACTION",
        Some(0x22) => "torn at MSE SET",
        Some(0x2a) => "torn at SIGN",
        Some(0xcb) => "torn at RELEASE",
        Some(0xc0) => "torn at GET RESPONSE",
        _ => "torn at others",
    }
}

impl CardLink for Torn<'_> {
    fn transmit(&mut self, command: &[u8]) -> Result<Vec<u8>, LinkError> {
        let trouble = self.chance.next_u32() % TROUBLE_IN;
        let instruction = command.get(1).copied();
        let kind = match trouble {
            0 | 1 => TROUBLES[0],
            2 => TROUBLES[1],
            3 => TROUBLES[2],
            4 => TROUBLES[3],
            5 => TROUBLES[4],
            6 | 7 => TROUBLES[5],
            _ => return Ok(self.card.handle(self.rng, command)),
        };
        self.happened.extend([kind, torn_at(instruction)]);
        // Every second kind strikes when the command has done what it does.
        if matches!(trouble, 1 | 4 | 5 | 7) {
            self.card.handle(self.rng, command);
        }
        match trouble {
            0 | 1 => {
                self.card.take_out();
                Err(LinkError::Removed)
            }
            2 => {
                self.card.reset();
                Err(LinkError::Reset)
            }
            3 => {
                self.card.reset();
                Ok(self.card.handle(self.rng, command))
            }
            4 => Err(LinkError::Timeout),
            5 => Ok(self.card.handle(self.rng, command)),
            _ => {
                self.card.battery();
                Err(LinkError::Removed)
            }
        }
    }
}
