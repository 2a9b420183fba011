use alloc::string::String;
use alloc::vec::Vec;
use core::str;

use countersign_crypto::{Secret, Suite};
use countersign_iso7816::{CardLink, Command, SHORT_NE_MAX, Status, Terminal, tlv};
use countersign_pki::{Identity, Role};
use zeroize::Zeroizing;

use super::pin_block::{self, BLOCK_LEN, PUK_LEN};
use super::{
    AID, CardError, CardInfo, LABEL, Method, PinEntry, Tries, VERSION, instruction, parameter, tag,
};
use crate::REQUEST_MAX;

/// Longest answer to a confirmation request, in bytes: a DER signature of either suite is shorter.
const ANSWER_MAX: usize = 128;

/// Whoever talks to a security device: the phone, with the card at its antenna. Blocking.
///
/// The order is [`select`](Self::select), [`load`](Self::load), [`verify`](Self::verify) where the
/// PIN comes from here, [`sign`](Self::sign). After an error of the link, all begins again with
/// `select`; nothing was signed that was not handed out.
#[derive(Debug)]
pub struct CardClient<L> {
    terminal: Terminal<L>,
    /// What the selected card said of itself.
    known: Option<(Method, PinEntry)>,
}

impl<L: CardLink> CardClient<L> {
    /// Over this link; sends nothing yet.
    #[must_use]
    pub const fn new(link: L) -> Self {
        Self { terminal: Terminal::new(link), known: None }
    }

    /// The link.
    pub const fn link_mut(&mut self) -> &mut L {
        self.terminal.link_mut()
    }

    /// Gives the link back.
    #[must_use]
    pub fn into_link(self) -> L {
        self.terminal.into_link()
    }

    /// Selects the application. What was loaded, and a PIN that was given, are gone.
    ///
    /// # Errors
    /// [`CardError::NotOurs`], [`CardError::Link`], [`CardError::Malformed`].
    pub fn select(&mut self) -> Result<(), CardError> {
        self.known = None;
        select(&mut self.terminal, &AID, LABEL)
    }

    /// What the card says of itself.
    ///
    /// # Errors
    /// [`CardError::Link`], [`CardError::Malformed`], [`CardError::OutOfOrder`] before `select`.
    pub fn info(&mut self) -> Result<CardInfo, CardError> {
        let serial = self.data_object(parameter::SERIAL)?;
        let info = self.data_object(parameter::INFO)?;
        let info = read_info(&serial, &info).ok_or(CardError::Malformed)?;
        self.known = Some((info.method, info.pin_entry));
        Ok(info)
    }

    /// Tries that are left of PIN and PUK.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn tries(&mut self) -> Result<Tries, CardError> {
        match self.data_object(parameter::TRIES)?[..] {
            [pin, puk] => Ok(Tries { pin, puk }),
            _ => Err(CardError::Malformed),
        }
    }

    /// The card's certificate (DER), unverified; none of a card for dynamic passwords.
    ///
    /// # Errors
    /// As [`Self::info`].
    pub fn certificate(&mut self) -> Result<Option<Vec<u8>>, CardError> {
        match self.data_object(parameter::CERTIFICATE) {
            Ok(der) if der.is_empty() => Err(CardError::Malformed),
            Ok(der) => Ok(Some(der)),
            Err(CardError::Status(word)) if Status::new(word) == Status::NO_DATA_OBJECT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Loads the bytes of a confirmation request, which the card parses and shows. A PIN that was
    /// given before does not count any more.
    ///
    /// # Errors
    /// [`CardError::RequestRefused`] for bytes that the card could not show; those of
    /// [`Self::info`].
    pub fn load(&mut self, request: &[u8]) -> Result<(), CardError> {
        if request.is_empty() || request.len() > REQUEST_MAX {
            return Err(CardError::RequestRefused);
        }
        let response = self.transmit(instruction::PUT_DATA, parameter::REQUEST, request, false)?;
        match response {
            Ok(_) => Ok(()),
            Err(Status::WRONG_DATA) => Err(CardError::RequestRefused),
            Err(status) => Err(refused(status)),
        }
    }

    /// Gives the PIN, for what is loaded. To a card with a keypad nothing is sent.
    ///
    /// # Errors
    /// [`CardError::PinForm`], [`CardError::PinWrong`], [`CardError::PinBlocked`],
    /// [`CardError::Keypad`]; those of [`Self::info`].
    pub fn verify(&mut self, pin: &Secret) -> Result<(), CardError> {
        let block = pin_block::encode(pin).ok_or(CardError::PinForm)?;
        self.check_host_entry()?;
        let response = self.transmit(instruction::VERIFY, parameter::PIN, &*block, false)?;
        response.map(|_| ()).map_err(of_pin)
    }

    /// Has the card sign what is loaded: a DER signature, or the ASCII digits of a dynamic password
    /// (see [`Self::info`]). A card with a keypad asks its holder first, which may take a minute.
    /// Whatever comes of it, the next one must be loaded again, but for a wrong PIN at the keypad.
    ///
    /// # Errors
    /// [`CardError::RequestRefused`]; at a keypad [`CardError::Declined`], [`CardError::PinForm`],
    /// [`CardError::PinWrong`] and [`CardError::PinBlocked`]; those of [`Self::info`].
    pub fn sign(&mut self) -> Result<Vec<u8>, CardError> {
        let (method, pin_entry) = self.known()?;
        let (instruction, parameters) = match method {
            Method::Pki => (instruction::PERFORM_SECURITY_OPERATION, parameter::SIGNATURE),
            Method::Ocra => (instruction::INTERNAL_AUTHENTICATE, parameter::NONE),
        };
        let response = self.transmit(instruction, parameters, &[], true)?;
        let answer = response.map_err(|status| of_signature(status, pin_entry))?;
        if answer.is_empty() || answer.len() > ANSWER_MAX {
            return Err(CardError::Malformed);
        }
        Ok(answer.to_vec())
    }

    /// Changes the PIN. To a card with a keypad nothing is sent.
    ///
    /// # Errors
    /// As [`Self::verify`].
    pub fn change_pin(&mut self, old: &Secret, new: &Secret) -> Result<(), CardError> {
        let blocks = two_blocks(old, new)?;
        self.check_host_entry()?;
        let response =
            self.transmit(instruction::CHANGE_REFERENCE_DATA, parameter::PIN, &*blocks, false)?;
        response.map(|_| ()).map_err(of_pin)
    }

    /// Sets a new PIN, for the PUK, where the PIN is blocked. To a card with a keypad, or whose PIN
    /// is not blocked, nothing is sent.
    ///
    /// # Errors
    /// [`CardError::PinForm`], [`CardError::Keypad`], [`CardError::PinNotBlocked`],
    /// [`CardError::PukWrong`], [`CardError::PukBlocked`], [`CardError::PukAbsent`]; those of
    /// [`Self::info`].
    pub fn unblock(&mut self, puk: &Secret, new: &Secret) -> Result<(), CardError> {
        if puk.len() != PUK_LEN {
            return Err(CardError::PinForm);
        }
        let blocks = two_blocks(puk, new)?;
        self.check_host_entry()?;
        if self.tries()?.pin > 0 {
            return Err(CardError::PinNotBlocked);
        }
        let response =
            self.transmit(instruction::RESET_RETRY_COUNTER, parameter::PIN, &*blocks, false)?;
        response.map(|_| ()).map_err(of_puk)
    }

    /// What the card said of itself, asked for if it was not yet.
    fn known(&mut self) -> Result<(Method, PinEntry), CardError> {
        match self.known {
            Some(known) => Ok(known),
            None => self.info().map(|info| (info.method, info.pin_entry)),
        }
    }

    /// A PIN or PUK is not even sent to a card that takes none from here.
    fn check_host_entry(&mut self) -> Result<(), CardError> {
        match self.known()?.1 {
            PinEntry::Host => Ok(()),
            PinEntry::Keypad => Err(CardError::Keypad),
        }
    }

    fn data_object(&mut self, parameters: u16) -> Result<Vec<u8>, CardError> {
        let response = self.transmit(instruction::GET_DATA, parameters, &[], true)?;
        response.map(|data| data.to_vec()).map_err(refused)
    }

    /// The data of a response, or its status word.
    fn transmit(
        &mut self,
        instruction: u8,
        parameters: u16,
        data: &[u8],
        expects: bool,
    ) -> Result<Result<Zeroizing<Vec<u8>>, Status>, CardError> {
        transmit(&mut self.terminal, instruction, parameters, data, expects)
    }
}

/// Selects the application of this identifier and label; any other card is none of ours.
pub(crate) fn select<L: CardLink>(
    terminal: &mut Terminal<L>,
    aid: &[u8],
    label: &str,
) -> Result<(), CardError> {
    let (select, by_name) = (instruction::SELECT, parameter::BY_NAME);
    let mut response = transmit(terminal, select, by_name, aid, true)?;
    // The end of a chain that was given up without a reset; now it is dropped.
    if response.as_ref().is_err_and(|status| *status == Status::CHAIN_BROKEN) {
        response = transmit(terminal, select, by_name, aid, true)?;
    }
    let information = response.map_err(|_| CardError::NotOurs)?;
    let is_ours = || {
        let template = tlv::only(&information, tag::FCI).ok()?;
        let [name, own] = tlv::exactly(template, [tag::NAME, tag::PROPRIETARY]).ok()?;
        let found = tlv::only(own, tag::LABEL).ok()?;
        (name == aid && found == label.as_bytes()).then_some(())
    };
    is_ours().ok_or(CardError::NotOurs)
}

/// The data of a response, or its status word.
pub(crate) fn transmit<L: CardLink>(
    terminal: &mut Terminal<L>,
    instruction: u8,
    parameters: u16,
    data: &[u8],
    expects: bool,
) -> Result<Result<Zeroizing<Vec<u8>>, Status>, CardError> {
    let [p1, p2] = parameters.to_be_bytes();
    let command = Command::new(0, instruction, p1, p2).with_data(data);
    let command = command.map_err(|_| CardError::Malformed)?;
    let command = command.expecting(if expects { SHORT_NE_MAX } else { 0 });
    let response = terminal.send(&command)?;
    Ok(if response.status == Status::OK { Ok(response.data) } else { Err(response.status) })
}

/// A serial number or a server's id. As in certificates: what is printed for people has no
/// characters that they do not see.
pub(crate) fn id(bytes: &[u8], role: Role) -> Option<String> {
    let id = Identity::new(role, str::from_utf8(bytes).ok()?).ok()?;
    Some(String::from(id.id()))
}

/// What a status word says that is about neither PIN nor PUK.
pub(crate) fn refused(status: Status) -> CardError {
    match status {
        Status::CONDITIONS | Status::SECURITY | Status::CHAIN_BROKEN => CardError::OutOfOrder,
        Status::NOT_ALLOWED => CardError::Declined,
        other => CardError::Status(other.word()),
    }
}

/// Of a PIN that was sent.
fn of_pin(status: Status) -> CardError {
    match status {
        Status::WRONG_DATA => CardError::PinForm,
        Status::UNSUPPORTED => CardError::Keypad,
        other => of_pin_tries(other),
    }
}

/// Of a signature: what is wrong with data is the request, but at a keypad, where a PIN was typed.
fn of_signature(status: Status, pin_entry: PinEntry) -> CardError {
    match (status, pin_entry) {
        (Status::WRONG_DATA, PinEntry::Host) => CardError::RequestRefused,
        (Status::WRONG_DATA, PinEntry::Keypad) => CardError::PinForm,
        _ => of_pin_tries(status),
    }
}

fn of_pin_tries(status: Status) -> CardError {
    match (status, status.tries_left()) {
        (Status::BLOCKED, _) | (_, Some(0)) => CardError::PinBlocked,
        (_, Some(left)) => CardError::PinWrong { left },
        (other, None) => refused(other),
    }
}

fn of_puk(status: Status) -> CardError {
    match (status, status.tries_left()) {
        (Status::WRONG_DATA, _) => CardError::PinForm,
        (Status::UNSUPPORTED, _) => CardError::Keypad,
        (Status::NO_DATA_OBJECT, _) => CardError::PukAbsent,
        (Status::BLOCKED, _) | (_, Some(0)) => CardError::PukBlocked,
        (_, Some(left)) => CardError::PukWrong { left },
        (other, None) => refused(other),
    }
}

fn two_blocks(
    first: &Secret,
    second: &Secret,
) -> Result<Zeroizing<[u8; 2 * BLOCK_LEN]>, CardError> {
    let mut blocks = Zeroizing::new([0; 2 * BLOCK_LEN]);
    let (front, back) = blocks.split_at_mut(BLOCK_LEN);
    front.copy_from_slice(&*pin_block::encode(first).ok_or(CardError::PinForm)?);
    back.copy_from_slice(&*pin_block::encode(second).ok_or(CardError::PinForm)?);
    Ok(blocks)
}

fn read_info(serial: &[u8], info: &[u8]) -> Option<CardInfo> {
    let tags = [tag::VERSION, tag::METHOD, tag::SUITE, tag::PIN_ENTRY, tag::SERVER];
    let [version, method, suite, pin_entry, server] = tlv::exactly(info, tags).ok()?;
    let text = |bytes| str::from_utf8(bytes).ok();
    if version != [VERSION] {
        return None;
    }
    Some(CardInfo {
        serial: id(serial, Role::SecurityDevice)?,
        method: Method::from_name(text(method)?)?,
        suite: Suite::from_name(text(suite)?)?,
        pin_entry: PinEntry::from_name(text(pin_entry)?)?,
        // Empty until it is enrolled.
        server_id: if server.is_empty() { String::new() } else { id(server, Role::Server)? },
    })
}
