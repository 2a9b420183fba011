//! Which commands reach a card (A8): applications and instructions by lists, payments by their
//! amount and number.
//!
//! A [`Policy`] looks at every command before the card does and at every response before the sleeve
//! does. It changes neither: what it does not refuse passes untouched, `61xx` and `6Cxx`, extended
//! APDUs and distance checks too. Of a PIN it keeps nothing.

use countersign_crypto::UnixTime;
use countersign_iso7816::{Command, Response, Status};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub mod distance;
mod dol;
mod emv;
mod rules;
#[cfg(test)]
mod tests;
mod usage;

pub use rules::{
    AIDS_MAX, Aid, Aids, CardLimits, Commands, PATTERNS_MAX, Pattern, Rules, RulesError,
};
pub use usage::{PERIOD, Tally, Usage};

use emv::Emv;

use crate::login::Access;
use crate::message::Limits;

/// Why a command does not reach the card, or its response not the sleeve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PolicyRefusal {
    /// Not a command APDU.
    #[error("not a command APDU")]
    Malformed,
    /// No pattern allows this command.
    #[error("the command is not allowed")]
    Command,
    /// The application is not on the list.
    #[error("the application is not allowed")]
    Aid,
    /// No allowed application is selected.
    #[error("no allowed application is selected")]
    NotSelected,
    /// The payment is larger than one may be.
    #[error("the amount is too large")]
    Amount,
    /// There is an amount limit, and the amount cannot be read.
    #[error("the amount cannot be read")]
    AmountUnreadable,
    /// There is an amount limit, in another currency.
    #[error("the currency is another")]
    Currency,
    /// The payments of the period are too much together.
    #[error("the sum of the payments is too large")]
    Total,
    /// The card was used as often as it may.
    #[error("the card may not be used more often")]
    Uses,
    /// More GENERATE ACs than a transaction has.
    #[error("a transaction has two GENERATE ACs")]
    Again,
}

impl PolicyRefusal {
    /// Stable name of the failed check. Nothing in it tells a usual session from one after an
    /// alarm.
    #[must_use]
    pub const fn check(self) -> &'static str {
        match self {
            Self::Malformed => "apdu-malformed",
            Self::Command => "policy-command",
            Self::Aid => "policy-aid",
            Self::NotSelected => "policy-not-selected",
            Self::Amount => "policy-amount",
            Self::AmountUnreadable => "policy-amount-unreadable",
            Self::Currency => "policy-currency",
            Self::Total => "policy-total",
            Self::Uses => "policy-uses",
            Self::Again => "policy-generate-ac",
        }
    }
}

/// What the sleeve's card says to the terminal where the manager refused a command with this check:
/// that there is no such application, or that the command is not for now.
#[must_use]
pub fn status_of_refusal(check: &str) -> Status {
    if check == PolicyRefusal::Aid.check() { Status::NOT_FOUND } else { Status::CONDITIONS }
}

/// An amount that a terminal asked the card to authorise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// In minor units of the currency.
    pub amount: u64,
    /// ISO 4217's number.
    pub currency: u16,
}

/// What an exchange was, without its data: for the audit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exchange {
    /// The application, as it was selected.
    pub aid: Option<Aid>,
    /// Class and instruction.
    pub instruction: Option<[u8; 2]>,
    /// The amount, where the command has one that can be read.
    pub money: Option<Money>,
    /// The card's status word; none where the command did not reach it.
    pub status: Option<u16>,
    /// The check that refused it.
    pub check: Option<&'static str>,
}

impl Exchange {
    /// Whether the card can have done no more by it than show what it has: SELECT, READ BINARY,
    /// READ RECORD, GET RESPONSE and GET DATA of ISO 7816-4, and EMV's GET DATA.
    #[must_use]
    pub const fn only_read(&self) -> bool {
        const INTERINDUSTRY: u8 = 0x80;
        match self.instruction {
            Some([0x80, 0xca]) => true,
            Some([class, 0xa4 | 0xb0..=0xb3 | 0xc0 | 0xca | 0xcb]) => class < INTERINDUSTRY,
            _ => false,
        }
    }
}

/// The policy of one card in one session.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    emv: Emv,
    /// What is selected, and allowed.
    selected: Option<Aid>,
    exchange: Exchange,
    /// The SELECT that waits for its response.
    selecting: Option<Aid>,
}

impl Policy {
    /// A card's policy: its rules, the tighter limits of a session after an alarm (A5), and what
    /// was used of it before.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn new(
        rules: Rules,
        alarm: &CardLimits,
        access: Access,
        usage: Usage,
    ) -> Result<Self, RulesError> {
        rules.check()?;
        alarm.check()?;
        let emv = Emv::new((rules.limits, *alarm), access, usage, &rules.commands);
        Ok(Self { rules, emv, selected: None, exchange: Exchange::default(), selecting: None })
    }

    /// What the card may be used for, as the sleeve may see it.
    #[must_use]
    pub fn limits(&self, now: UnixTime) -> Limits {
        self.emv.limits(now)
    }

    /// What was used of the card, if that has changed since it was last asked for. The owner stores
    /// it before the command goes to the card.
    pub fn changed_usage(&mut self) -> Option<Usage> {
        self.emv.changed_usage()
    }

    /// The card was reset: nothing is selected.
    pub fn reset(&mut self) {
        (self.selected, self.selecting) = (None, None);
        self.emv.forget();
    }

    /// What the last command was, and what came of it.
    #[must_use]
    pub fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    /// Whether a command may go to the card. A payment counts as made from here on, unless the
    /// card's response says otherwise.
    ///
    /// # Errors
    /// [`PolicyRefusal`]: the command must not reach the card.
    pub fn check(&mut self, now: UnixTime, command: &[u8]) -> Result<(), PolicyRefusal> {
        self.exchange = Exchange { aid: self.selected.clone(), ..Exchange::default() };
        let checked = self.check_inner(now, command);
        self.exchange.money = self.emv.money();
        self.exchange.check = checked.err().map(PolicyRefusal::check);
        checked
    }

    fn check_inner(&mut self, now: UnixTime, bytes: &[u8]) -> Result<(), PolicyRefusal> {
        self.emv.forget_command();
        let command = Command::parse(bytes).map_err(|_| PolicyRefusal::Malformed)?;
        self.exchange.instruction = Some([command.cla, command.ins]);
        let by_name = command.ins == SELECT && command.p1 == BY_NAME;
        if by_name {
            self.exchange.aid = Some(Aid::clipped(command.data()));
        }
        if !self.rules.commands.allow(&command) {
            return Err(PolicyRefusal::Command);
        }
        self.check_form(&command, bytes)?;
        if let Aids::List(_) = self.rules.aids {
            self.check_application(&command)?;
        }
        self.emv.check(now, &command)?;
        // From here on the card sees it. A command that was refused has changed nothing.
        match command.ins {
            GET_RESPONSE => {}
            SELECT => {
                self.emv.forget();
                self.selected = None;
                self.selecting = self.exchange.aid.clone().filter(|_| by_name);
            }
            _ => self.selecting = None,
        }
        Ok(())
    }

    /// Forms of a command that a card may read otherwise than it is read here.
    fn check_form(&self, command: &Command, bytes: &[u8]) -> Result<(), PolicyRefusal> {
        // A payment card has short APDUs, and may take the mark of a long one for a length.
        let extended = bytes.len() > SHORT_HEAD_LEN && bytes[SHORT_HEAD_LEN - 1] == 0;
        if extended && self.emv.takes_short_only(command) {
            return Err(PolicyRefusal::Command);
        }
        // Another logical channel has another application and another transaction; an ENVELOPE
        // holds another command.
        let guarded = matches!(self.rules.aids, Aids::List(_)) || self.emv.is_limited();
        let elsewhere = matches!(command.ins, MANAGE_CHANNEL | ENVELOPE | ENVELOPE_BER)
            || command.cla & CHANNEL_BITS != 0;
        if guarded && elsewhere {
            return Err(PolicyRefusal::Command);
        }
        Ok(())
    }

    fn check_application(&self, command: &Command) -> Result<(), PolicyRefusal> {
        match (command.ins, command.p1) {
            // In one piece: the pieces of a chain would each be looked at as a name.
            (SELECT, BY_NAME) if command.cla == 0 && self.rules.aids.allow(command.data()) => {
                Ok(())
            }
            (SELECT, _) => Err(PolicyRefusal::Aid),
            (GET_RESPONSE, _) => Ok(()),
            _ if self.selected.is_some() => Ok(()),
            _ => Err(PolicyRefusal::NotSelected),
        }
    }

    /// Takes the card's response to the command that was checked last.
    ///
    /// # Errors
    /// [`PolicyRefusal::AmountUnreadable`]: the card authorised something whose amount could not be
    /// read, and the response must not leave.
    pub fn answered(&mut self, response: &[u8]) -> Result<(), PolicyRefusal> {
        let parsed = Response::parse(response);
        self.exchange.status = parsed.as_ref().map(|response| response.status.word());
        let answered = match parsed {
            Some(response) => self.answered_inner(&response),
            None => Ok(()),
        };
        self.exchange.check = answered.err().map(PolicyRefusal::check);
        answered
    }

    fn answered_inner(&mut self, response: &Response) -> Result<(), PolicyRefusal> {
        let Some(whole) = self.emv.collect(response)? else { return Ok(()) };
        match self.selecting.take() {
            Some(aid) if response.status == Status::OK => {
                let named = emv::name_of(&whole).is_none_or(|name| self.rules.aids.allow(name));
                self.emv.selected(&whole);
                self.selected = Some(aid).filter(|_| named);
            }
            Some(_) => {}
            None => self.emv.answered(response.status, &whole),
        }
        Ok(())
    }
}

/// SELECT (ISO/IEC 7816-4, 11.2.2).
const SELECT: u8 = 0xa4;
/// P1 of SELECT: by name.
const BY_NAME: u8 = 4;
/// GET RESPONSE.
const GET_RESPONSE: u8 = 0xc0;
/// MANAGE CHANNEL.
const MANAGE_CHANNEL: u8 = 0x70;
/// ENVELOPE, in both of its encodings.
const ENVELOPE: u8 = 0xc2;
const ENVELOPE_BER: u8 = 0xc3;
/// Bytes of a header and a short length.
const SHORT_HEAD_LEN: usize = 5;
/// Bits of CLA that name a logical channel, or the form with more of them.
const CHANNEL_BITS: u8 = 0x43;
