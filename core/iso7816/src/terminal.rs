use thiserror::Error;
use zeroize::Zeroizing;

use crate::command::{CHAIN_BIT, SHORT_DATA_MAX, SHORT_NE_MAX};
use crate::{CardLink, Command, LinkError, Response, Status};

/// Most bytes that a terminal sends in one chain, or collects of one response.
pub const TRANSFER_MAX: usize = 16 * 1024;
/// Most GET RESPONSEs for one response: the largest comes in full ones, with some to spare.
pub const ROUNDS_MAX: usize = TRANSFER_MAX / 256 + 6;
/// GET RESPONSE.
const GET_RESPONSE: u8 = 0xc0;

/// Why a terminal has no response.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TerminalError {
    /// The link failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What came is no response APDU, or more than was asked for, or than [`TRANSFER_MAX`], or has
    /// no end within [`ROUNDS_MAX`].
    #[error("the card's answer is malformed")]
    Malformed,
    /// The command's data are more than [`TRANSFER_MAX`].
    #[error("the command is too long")]
    TooLong,
}

/// The terminal's side of a conversation with a card: it sends short APDUs only, which every reader
/// and every card takes, and so chains longer data (ISO/IEC 7816-4, 5.4.1) and collects longer
/// responses (GET RESPONSE).
#[derive(Debug)]
pub struct Terminal<L> {
    link: L,
}

impl<L: CardLink> Terminal<L> {
    /// Over this link.
    #[must_use]
    pub const fn new(link: L) -> Self {
        Self { link }
    }

    /// The link.
    pub const fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// Gives the link back.
    #[must_use]
    pub fn into_link(self) -> L {
        self.link
    }

    /// Sends a command and gives the whole response, whatever its status word. A command of a chain
    /// that the card does not take ends the chain, with that status word.
    ///
    /// # Errors
    /// [`TerminalError`]. Of what was sent, some may have reached the card.
    pub fn send(&mut self, command: &Command) -> Result<Response, TerminalError> {
        if command.data().len() > TRANSFER_MAX {
            return Err(TerminalError::TooLong);
        }
        let mut data = command.data();
        while data.len() > SHORT_DATA_MAX {
            let (part, rest) = data.split_at(SHORT_DATA_MAX);
            let response = self.exchange(&of(command, CHAIN_BIT, part, 0))?;
            if response.status != Status::OK {
                return Ok(response.status.into());
            }
            data = rest;
        }
        let ne = command.ne().min(SHORT_NE_MAX);
        let mut response = self.exchange(&of(command, 0, data, ne))?;
        if let Some(exact) = response.status.exact_length() {
            // The card has not run it: it wants the length said right, once.
            response = self.exchange(&of(command, 0, data, u32::from(exact)))?;
        }
        self.collect(command.cla, response)
    }

    /// Asks for what is left of a response.
    fn collect(&mut self, cla: u8, first: Response) -> Result<Response, TerminalError> {
        let Response { mut data, mut status } = first;
        let mut rounds = 0;
        while let Some(more) = status.more_available() {
            rounds += 1;
            if rounds > ROUNDS_MAX {
                return Err(TerminalError::Malformed);
            }
            let next = Command::new(cla, GET_RESPONSE, 0, 0).expecting(u32::from(more));
            let response = self.exchange(&next)?;
            if !response.status.is_ok() {
                return Ok(response.status.into());
            }
            // Nothing, or too much.
            if response.data.is_empty() || data.len() + response.data.len() > TRANSFER_MAX {
                return Err(TerminalError::Malformed);
            }
            // Not appended: what a vector leaves behind when it grows is not wiped.
            data = Zeroizing::new([&data[..], &response.data].concat());
            status = response.status;
        }
        Ok(Response { data, status })
    }

    fn exchange(&mut self, command: &Command) -> Result<Response, TerminalError> {
        let answer = Zeroizing::new(self.link.transmit(&command.encode())?);
        let response = Response::parse(&answer).ok_or(TerminalError::Malformed)?;
        let asked = usize::try_from(command.ne()).map_err(|_| TerminalError::Malformed)?;
        if response.data.len() > asked {
            return Err(TerminalError::Malformed);
        }
        Ok(response)
    }
}

/// A part of `command`.
fn of(command: &Command, chain: u8, data: &[u8], ne: u32) -> Command {
    let Command { cla, ins, p1, p2, .. } = *command;
    let part = Command::new(cla | chain, ins, p1, p2).with_data(data);
    part.expect("no longer than the whole").expecting(ne)
}

#[cfg(test)]
mod tests;
