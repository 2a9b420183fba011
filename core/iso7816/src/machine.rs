use alloc::vec::Vec;

use countersign_crypto::CryptoRng;
use zeroize::Zeroizing;

use crate::command::CHAIN_BIT;
use crate::{Command, Response, Status};

/// Most bytes of data that a chain, or an extended APDU, may bring.
pub const CHAIN_MAX: usize = 4608;

/// SELECT.
const SELECT: u8 = 0xa4;
/// GET RESPONSE.
const GET_RESPONSE: u8 = 0xc0;
/// P1 of SELECT by application identifier.
const BY_NAME: u8 = 0x04;
/// P2 of SELECT: the first or only one, with its control information.
const WITH_FCI: u8 = 0x00;
/// P2 of SELECT: nothing is to be answered.
const WITHOUT_FCI: u8 = 0x0c;

/// Historical bytes (ISO/IEC 7816-4, 12.1.1): category 80; card capabilities, one byte, "selection
/// by full DF name"; issuer's data, the name.
const HISTORICAL: &[u8; 15] = b"\x80\x71\x80\x5bCountersign";

/// What a card runs.
pub trait Application {
    /// Its identifier, 5 to 16 bytes (ISO/IEC 7816-4, 12.2.3).
    fn aid(&self) -> &[u8];

    /// It is selected, maybe again: it forgets what it knew of the conversation, and gives its file
    /// control information.
    fn selected(&mut self) -> Vec<u8>;

    /// The card was reset or has lost its power, or another application was asked for: it forgets
    /// what it knew of the conversation.
    fn reset(&mut self);

    /// Answers a command with all its data, of the basic channel and without secure messaging. The
    /// machine cuts the answer to what the terminal asked for.
    fn handle(&mut self, command: &Command, rng: &mut dyn CryptoRng) -> Response;

    /// All of its last answer has been handed out, by GET RESPONSE where it was long. Of an answer
    /// that another command or a reset took the place of before that, this is not said.
    fn delivered(&mut self) {}
}

/// What came of a chain.
struct Chain {
    /// INS, P1, P2: the same in each command of it.
    header: [u8; 3],
    data: Zeroizing<Vec<u8>>,
}

/// The card's side of a conversation: whatever bytes come, it has an answer to them.
///
/// Bytes that are no APDU, and classes that the card does not have, change nothing: neither a
/// chain, nor what waits for GET RESPONSE, nor anything that the application knows.
pub struct CardMachine<A> {
    application: A,
    is_selected: bool,
    chain: Option<Chain>,
    /// What waits for GET RESPONSE.
    pending: Zeroizing<Vec<u8>>,
}

impl<A: Application> CardMachine<A> {
    /// A card with one application, after its reset.
    #[must_use]
    pub fn new(application: A) -> Self {
        Self { application, is_selected: false, chain: None, pending: Zeroizing::default() }
    }

    /// The application.
    #[must_use]
    pub const fn application(&self) -> &A {
        &self.application
    }

    /// The application, to change it.
    pub const fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// The answer to reset (ISO/IEC 7816-3, 8.2): direct convention, T=0 and T=1, no other
    /// interface bytes, historical bytes with a name, and the check byte.
    #[must_use]
    pub fn atr(&self) -> Vec<u8> {
        // T0: TD1 follows, and fifteen historical bytes. TD1: T=0, TD2 follows. TD2: T=1.
        let checked = [&[0x8f, 0x80, 0x01][..], HISTORICAL].concat();
        let check = checked.iter().fold(0, |check, byte| check ^ byte);
        [&[0x3b], &checked[..], &[check]].concat()
    }

    /// The card is powered; gives its answer to reset.
    pub fn power(&mut self) -> Vec<u8> {
        self.reset();
        self.atr()
    }

    /// The card is reset, or loses its power: nothing of the conversation is kept.
    pub fn reset(&mut self) {
        self.is_selected = false;
        self.chain = None;
        self.pending = Zeroizing::default();
        self.application.reset();
    }

    /// Answers a command APDU with a response APDU. An application that asks someone may take its
    /// time. The response may hold a secret: whoever sends it wipes it, as
    /// [`Terminal`](crate::Terminal) does with what a link gives.
    pub fn handle(&mut self, rng: &mut dyn CryptoRng, bytes: &[u8]) -> Vec<u8> {
        self.answer(rng, bytes).encode()
    }

    fn answer(&mut self, rng: &mut dyn CryptoRng, bytes: &[u8]) -> Response {
        let Ok(command) = Command::parse(bytes) else { return Status::WRONG_LENGTH.into() };
        if let Err(status) = check_class(command.cla) {
            return status.into();
        }
        let ne = usize::try_from(command.ne()).unwrap_or(usize::MAX);
        let whole = match self.gather(command) {
            Ok(Some(whole)) => whole,
            Ok(None) => return Status::OK.into(),
            Err(status) => return status.into(),
        };
        if whole.ins == GET_RESPONSE {
            return self.get_response(&whole, ne);
        }
        self.pending = Zeroizing::default();
        let response = match whole.ins {
            SELECT => self.select(&whole),
            // ISO/IEC 7816-4, 5.4.2: such an instruction is none.
            0x60..=0x6f | 0x90..=0x9f => Status::INSTRUCTION.into(),
            _ if !self.is_selected => Status::CONDITIONS.into(),
            _ => self.application.handle(&whole, rng),
        };
        if response.status == Status::OK {
            self.pending = response.data;
            return self.deliver(ne);
        }
        response.status.into()
    }

    /// The whole command, once the last of its chain is there.
    fn gather(&mut self, command: Command) -> Result<Option<Command>, Status> {
        let header = [command.ins, command.p1, command.p2];
        let goes_on = command.cla & CHAIN_BIT != 0;
        let chain = self.chain.take();
        if chain.as_ref().is_some_and(|chain| chain.header != header) {
            return Err(Status::CHAIN_BROKEN);
        }
        if goes_on && matches!(command.ins, SELECT | GET_RESPONSE) {
            return Err(Status::CHAIN_UNSUPPORTED);
        }
        if goes_on && (command.data().is_empty() || command.ne() > 0) {
            return Err(Status::WRONG_LENGTH);
        }
        let mut data = chain.map_or_else(Zeroizing::default, |chain| chain.data);
        let is_chained = goes_on || !data.is_empty();
        if data.len() + command.data().len() > CHAIN_MAX {
            return Err(Status::NO_MEMORY);
        }
        if !is_chained {
            return Ok(Some(command));
        }
        data = Zeroizing::new([&data[..], command.data()].concat());
        if goes_on {
            // A chain takes the place of what waited.
            self.pending = Zeroizing::default();
            self.chain = Some(Chain { header, data });
            return Ok(None);
        }
        let whole = Command::new(command.cla, command.ins, command.p1, command.p2);
        whole.with_data(&data).map(Some).map_err(|_| Status::NO_MEMORY)
    }

    /// Whoever selects by name begins a conversation of its own, also where there is no such
    /// application: nothing of the one before is kept. Ours stays selected.
    fn select(&mut self, command: &Command) -> Response {
        if command.p1 != BY_NAME {
            return Status::WRONG_PARAMETERS.into();
        }
        let refused = match command.p2 {
            WITH_FCI | WITHOUT_FCI if command.data() == self.application.aid() => None,
            WITH_FCI | WITHOUT_FCI => Some(Status::NOT_FOUND),
            _ => Some(Status::WRONG_PARAMETERS),
        };
        if let Some(status) = refused {
            self.application.reset();
            return status.into();
        }
        self.is_selected = true;
        let information = self.application.selected();
        if command.p2 == WITH_FCI { Response::ok(information) } else { Status::OK.into() }
    }

    fn get_response(&mut self, command: &Command, ne: usize) -> Response {
        if command.parameters() != 0 {
            return Status::WRONG_PARAMETERS.into();
        }
        if !command.data().is_empty() || ne == 0 {
            return Status::WRONG_LENGTH.into();
        }
        if self.pending.is_empty() {
            return Status::CONDITIONS.into();
        }
        self.deliver(ne)
    }

    /// As much of what waits as was asked for.
    fn deliver(&mut self, ne: usize) -> Response {
        let len = ne.min(self.pending.len());
        let rest = Zeroizing::new(self.pending.split_off(len));
        let data = core::mem::replace(&mut self.pending, rest);
        if !self.pending.is_empty() {
            return Response { data, status: Status::more(self.pending.len()) };
        }
        self.application.delivered();
        Response { data, status: Status::OK }
    }
}

/// ISO/IEC 7816-4, 5.4.1: only the basic channel, in clear.
const fn check_class(cla: u8) -> Result<(), Status> {
    match cla {
        // First interindustry values.
        0x00..=0x1f => match (cla & 0x03, cla & 0x0c) {
            (0, 0) => Ok(()),
            (0, _) => Err(Status::SECURE_MESSAGING),
            _ => Err(Status::CHANNEL),
        },
        // Further interindustry values: channels 4 to 19.
        0x40..=0x7f => Err(Status::CHANNEL),
        // Reserved, or of somebody's own.
        _ => Err(Status::CLASS),
    }
}

#[cfg(test)]
mod tests;
